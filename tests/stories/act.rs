//! Drain, restart, readmit: every branch, and the server takes traffic at the end of each.

use remediator::decide::playbook::OnTimeout;
use remediator::event::Draft;
use remediator::event::{Event, Pause, PauseScope, Step};
use remediator::reason::{Outcome, Reason};
use remediator::sim::bench::{Bench, write_now};
use remediator::sim::docker::RestartFault;
use remediator::sim::{Point, When};
use remediator::world::Call;

use crate::kit::*;

#[tokio::test(start_paused = true)]
async fn the_whole_walk() {
    let bench = bench().await;
    let record = one_run(&bench).await;
    is(&record, Outcome::Recovered, Reason::RecoveryConfirmed);
    let steps: Vec<Step> = record.steps.iter().map(|run| run.step).collect();
    assert_eq!(steps, Step::ALL);
    assert!(record.steps.iter().all(|run| run.call == Some(Call::Done)), "{:#?}", record.steps);
    assert_eq!(restarts(&bench), [TWO]);
    all_serve(&bench);
    bench.run_for(mins(30)).await;
    assert!(bench.sim.with(|state| state.distinct_pages()).is_empty(), "nobody is paged for what was repaired");
    assert_eq!(bench.records().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_does_not_empty_is_given_up() {
    let bench = bench().await;
    bench.sim.replica(TWO, |replica, _| replica.empties_in = None);
    let record = one_run(&bench).await;
    is(&record, Outcome::ActionFailed, Reason::DrainTimeout);
    assert!(record.detail.contains("3 sessions"), "{}", record.detail);
    assert!(restarts(&bench).is_empty());
    all_serve(&bench);
    bench.run_for(secs(5)).await;
    assert_eq!(up(&bench), ["drain_timeout"]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_does_not_empty_goes_on_if_the_playbook_says_so() {
    let mut playbook = playbook();
    playbook.drain.on_timeout = OnTimeout::Proceed;
    let bench = bench_with(playbook).await;
    bench.sim.replica(TWO, |replica, _| replica.empties_in = None);
    let record = one_run(&bench).await;
    is(&record, Outcome::Recovered, Reason::RecoveryConfirmed);
    assert_eq!(restarts(&bench), [TWO]);
    all_serve(&bench);
}

#[tokio::test(start_paused = true)]
async fn a_refused_drain_ends_the_run() {
    let bench = bench().await;
    bench.sim.with(|state| state.balancer.refuses_drain = true);
    is(&one_run(&bench).await, Outcome::ActionFailed, Reason::DrainFailed);
    untouched(&bench);
    all_serve(&bench);
}

#[tokio::test(start_paused = true)]
async fn a_drain_whose_answer_is_lost_is_undone() {
    let bench = bench().await;
    bench.sim.with(|state| state.balancer.drains_silently = true);
    is(&one_run(&bench).await, Outcome::ActionFailed, Reason::DrainFailed);
    assert!(restarts(&bench).is_empty());
    all_serve(&bench);
}

#[tokio::test(start_paused = true)]
async fn a_reload_of_the_balancer_loses_the_drain() {
    let bench = bench().await;
    // The look that sees it empty comes first, then the reload, then the last look.
    bench.sim.at(When::After, Point::Drain, 1, |sim| {
        sim.replica(TWO, |replica, _| replica.sessions = 0);
        sim.at(When::After, Point::Servers, 1, |sim| sim.with(|state| state.reload_balancer()));
    });
    is(&one_run(&bench).await, Outcome::Interrupted, Reason::DrainLost);
    assert!(restarts(&bench).is_empty());
    all_serve(&bench);
}

#[tokio::test(start_paused = true)]
async fn a_reload_while_the_server_empties_is_noticed() {
    let bench = bench().await;
    bench.sim.replica(TWO, |replica, _| replica.empties_in = Some(secs(20)));
    bench.sim.at(When::After, Point::Drain, 1, |sim| sim.with(|state| state.reload_balancer()));
    let record = one_run(&bench).await;
    // And it is not called a drain that did not empty: nobody should go and look for long sessions.
    is(&record, Outcome::Interrupted, Reason::DrainLost);
    assert!(restarts(&bench).is_empty(), "restarted while it took traffic");
    all_serve(&bench);
}

/// The drain is forgotten while we wait for the server to empty, and then somebody else drains it: that one is theirs.
#[tokio::test(start_paused = true)]
async fn a_drain_of_somebody_elses_is_not_taken_for_our_lost_one() {
    let bench = bench().await;
    bench.sim.replica(TWO, |replica, _| replica.empties_in = Some(secs(20)));
    bench.sim.at(When::After, Point::Drain, 1, |sim| {
        sim.with(|state| state.reload_balancer());
        sim.at(When::After, Point::Servers, 3, |sim| {
            sim.replica(TWO, |replica, now| replica.drained_since = Some(now));
        });
    });
    is(&one_run(&bench).await, Outcome::Interrupted, Reason::DrainLost);
    bench.run_for(mins(1)).await;
    assert!(restarts(&bench).is_empty(), "restarted on somebody else's drain");
    assert_eq!(bench.sim.replica(TWO, |replica, _| replica.drained_since.is_some()), Some(true), "their drain was undone");
}

/// `min_healthy` was fine at admission; then a sibling goes while ours is drained. Ours is needed, leak or no leak.
#[tokio::test(start_paused = true)]
async fn a_sibling_that_goes_while_we_drain_stops_the_restart() {
    let bench = bench().await;
    bench.sim.at(When::After, Point::Drain, 1, |sim| {
        sim.replica(ONE, |replica, now| replica.maintenance_since = Some(now));
    });
    let record = one_run(&bench).await;
    is(&record, Outcome::Interrupted, Reason::MinHealthy);
    assert!(record.detail.contains("healthy without this one 1 now, must be at least 2"), "{}", record.detail);
    assert!(restarts(&bench).is_empty());
    let drained = bench.context.journal.read(|state| state.books.drained.len());
    assert_eq!(drained, 0, "readmitted");
}

fn pause_now(bench: &Bench) -> impl FnOnce(&remediator::sim::Sim) + Send + 'static {
    let (journal, clock) = (bench.context.journal.clone(), bench.context.world.clock.clone());
    move |_| {
        let pause = Pause { scope: PauseScope::All, actor: "ana".to_owned(), reason: "stop!".to_owned(), until: None };
        assert!(write_now(&journal, Draft::global(clock.now(), Event::Paused { pause })));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_before_the_drain_touches_nothing() {
    let bench = bench().await;
    bench.sim.at(When::After, Point::Logs, 1, pause_now(&bench));
    is(&one_run(&bench).await, Outcome::Interrupted, Reason::Paused);
    untouched(&bench);
}

#[tokio::test(start_paused = true)]
async fn a_pause_between_drain_and_restart_readmits() {
    let bench = bench().await;
    bench.sim.at(When::After, Point::Drain, 1, pause_now(&bench));
    let record = one_run(&bench).await;
    is(&record, Outcome::Interrupted, Reason::Paused);
    assert!(record.detail.contains("paused by ana: stop!"), "{}", record.detail);
    assert!(restarts(&bench).is_empty());
    all_serve(&bench);
}

/// By a clock that went back no permit expires; one that went ahead by less than a permit lives is no better.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_between_drain_and_restart_readmits() {
    for jump in [-600, 20] {
        let bench = bench().await;
        let jump = jiff::SignedDuration::from_secs(jump);
        bench.sim.at(When::After, Point::Drain, 1, move |sim| sim.with(|state| state.clock_ahead = jump));
        is(&one_run(&bench).await, Outcome::Interrupted, Reason::ClockUnreliable);
        assert!(restarts(&bench).is_empty());
        all_serve(&bench);
    }
}

/// Its permit has run out while it stood still, and by a clock that went back meanwhile it has not.
#[tokio::test(start_paused = true)]
async fn a_clock_that_went_back_by_less_than_the_run_has_taken_readmits() {
    let bench = bench().await;
    bench.sim.at(When::After, Point::Drain, 1, |sim| {
        sim.stand_still(secs(300));
        sim.with(|state| state.clock_ahead = jiff::SignedDuration::from_secs(-240));
    });
    let record = one_run(&bench).await;
    is(&record, Outcome::Interrupted, Reason::ClockUnreliable);
    assert!(record.detail.contains("the clock went back by"), "{}", record.detail);
    assert!(restarts(&bench).is_empty());
    all_serve(&bench);
}

/// It stands still right after Prometheus has answered, and the clock goes back by that much meanwhile: by the clock what it
/// saw is new.
#[tokio::test(start_paused = true)]
async fn a_clock_that_went_back_while_the_process_stood_still_makes_no_evidence_new() {
    for back in [-85, -90] {
        let bench = bench().await;
        bench.sim.at(When::After, Point::Silences, 1, move |sim| {
            sim.stand_still(secs(85));
            sim.with(|state| state.clock_ahead = jiff::SignedDuration::from_secs(back));
        });
        let record = one_run(&bench).await;
        is(&record, Outcome::Refused, Reason::ClockUnreliable);
        untouched(&bench);
    }
}

/// A process that is stopped in the middle of the last look: what was answered before says nothing about now.
#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_looks_again() {
    for (how_long, reason) in [(20, Reason::ContainerChanged), (300, Reason::PermitExpired)] {
        let bench = bench().await;
        bench.sim.at(When::After, Point::Drain, 1, move |sim| {
            sim.at(When::After, Point::Inspect, 1, move |sim| {
                sim.stand_still(secs(how_long));
                // The look has seen the process before this one.
                sim.replica(TWO, |replica, now| replica.restart(now));
            });
        });
        is(&one_run(&bench).await, Outcome::Interrupted, reason);
        assert!(restarts(&bench).is_empty(), "still for {how_long}s, and restarted what somebody else had restarted");
        all_serve(&bench);
    }
}

/// A disk that stalls in the intent's commit, or a process that is stopped while it captures evidence, looks the same: by the
/// time of the drain what was seen is old.
#[tokio::test(start_paused = true)]
async fn old_evidence_drains_nothing() {
    let bench = bench().await;
    bench.sim.at(When::After, Point::Logs, 1, |sim| sim.stand_still(secs(60)));
    let record = one_run(&bench).await;
    is(&record, Outcome::Interrupted, Reason::EvidenceStale);
    untouched(&bench);
}

/// An Engine that always takes longer than a look may: the run is broken off and says so.
#[tokio::test(start_paused = true)]
async fn looks_that_take_too_long_end_the_run() {
    let bench = bench().await;
    bench.sim.at(When::After, Point::Drain, 1, |sim| {
        for nth in 1..=3 {
            sim.at(When::After, Point::Inspect, nth, |sim| sim.stand_still(secs(11)));
        }
    });
    let record = one_run(&bench).await;
    is(&record, Outcome::Interrupted, Reason::EvidenceStale);
    assert!(record.detail.contains("3 times"), "{}", record.detail);
    assert!(restarts(&bench).is_empty());
    all_serve(&bench);
}

#[tokio::test(start_paused = true)]
async fn a_playbook_taken_back_to_shadow_stops_the_run() {
    let bench = bench().await;
    let playbooks = bench.context.playbooks.clone();
    bench.sim.at(When::After, Point::Drain, 1, move |_| {
        let mut shadow = playbook();
        shadow.mode = remediator::decide::playbook::Mode::Shadow;
        *playbooks.write().expect("not poisoned") = std::sync::Arc::new(vec![shadow]);
    });
    is(&one_run(&bench).await, Outcome::Interrupted, Reason::ModeChanged);
    assert!(restarts(&bench).is_empty());
    all_serve(&bench);
}

/// A permit expires; container id and start time are compared at the moment of the call.
#[tokio::test(start_paused = true)]
async fn stale_plan() {
    // The permit lives for the sum of its steps' bounds and a margin; the host sleeps through that.
    let bench = bench().await;
    bench.sim.at(When::After, Point::Drain, 1, |sim| sim.with(|state| state.clock_ahead = jiff::SignedDuration::from_mins(5)));
    is(&one_run(&bench).await, Outcome::Interrupted, Reason::PermitExpired);
    assert!(restarts(&bench).is_empty());
    all_serve(&bench);

    // Somebody else restarts it, or makes it anew, while it drains.
    for recreate in [false, true] {
        let bench = crate::kit::bench().await;
        bench.sim.at(When::After, Point::Drain, 1, move |sim| {
            sim.replica(TWO, |replica, now| if recreate { replica.recreate(now) } else { replica.restart(now) });
        });
        let record = one_run(&bench).await;
        let reason = if recreate { Reason::ContainerMissing } else { Reason::ContainerChanged };
        is(&record, Outcome::Interrupted, reason);
        assert!(restarts(&bench).is_empty());
        all_serve(&bench);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_restart_readmits() {
    let bench = bench().await;
    bench.sim.with(|state| state.engine.restart = RestartFault::Refused);
    is(&one_run(&bench).await, Outcome::ActionFailed, Reason::RestartFailed);
    all_serve(&bench);
}

#[tokio::test(start_paused = true)]
async fn a_restart_without_an_answer_that_happened_goes_on() {
    let bench = bench().await;
    bench.sim.with(|state| state.engine.restart = RestartFault::SilentDone);
    let record = one_run(&bench).await;
    is(&record, Outcome::Recovered, Reason::RecoveryConfirmed);
    assert_eq!(restarts(&bench), [TWO], "looked at, not repeated");
    all_serve(&bench);
}

#[tokio::test(start_paused = true)]
async fn a_restart_without_an_answer_that_did_not_happen_is_not_repeated() {
    let bench = bench().await;
    bench.sim.with(|state| state.engine.restart = RestartFault::SilentUndone);
    let record = one_run(&bench).await;
    is(&record, Outcome::ActionFailed, Reason::RestartUnknown);
    assert_eq!(bench.sim.calls(Point::Restart), 1);
    all_serve(&bench);
    bench.run_for(secs(5)).await;
    assert_eq!(up(&bench), ["restart_unknown"]);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_does_not_get_healthy_is_readmitted_and_paged_for() {
    let bench = bench().await;
    bench.sim.at(When::Before, Point::Restart, 1, |sim| {
        sim.replica(TWO, |replica, _| replica.starts_in = hours(1));
    });
    let record = one_run(&bench).await;
    is(&record, Outcome::ActionFailed, Reason::NotHealthyInTime);
    assert!(record.detail.contains("still starting"), "{}", record.detail);
    all_serve(&bench);
    bench.run_for(secs(5)).await;
    assert_eq!(up(&bench), ["not_healthy_in_time"]);
    assert_eq!(restarts(&bench), [TWO]);
}

#[tokio::test(start_paused = true)]
async fn a_readmit_that_fails_is_tried_until_it_works() {
    let bench = bench().await;
    bench.sim.with(|state| state.balancer.refuses_ready = true);
    let record = one_run(&bench).await;
    is(&record, Outcome::ActionFailed, Reason::ReadmitFailed);
    bench.run_for(mins(3)).await;
    let drained = bench.context.journal.read(|state| state.books.drained.len());
    assert_eq!(drained, 1, "the journal still knows that it is drained in our name");
    assert_eq!(up(&bench), ["readmit_failed"]);
    bench.sim.with(|state| state.balancer.refuses_ready = false);
    bench.run_for(secs(15)).await;
    all_serve(&bench);
}

/// The other net readmits it while the disk is full: no journal holds that up, and it is written down once there is room.
#[tokio::test(start_paused = true)]
async fn a_late_readmit_waits_for_no_journal() {
    let bench = bench().await;
    bench.sim.with(|state| state.balancer.refuses_ready = true);
    is(&one_run(&bench).await, Outcome::ActionFailed, Reason::ReadmitFailed);
    bench.context.journal.pretend_full(true);
    bench.sim.with(|state| state.balancer.refuses_ready = false);
    bench.run_for(secs(15)).await;
    assert_eq!(bench.sim.replica(TWO, |replica, _| replica.drained_since), Some(None));
    let known = |bench: &Bench| bench.context.journal.read(|state| state.books.drained.len());
    assert_eq!(known(&bench), 1, "nothing can be written");
    bench.context.journal.pretend_full(false);
    bench.run_for(secs(15)).await;
    assert_eq!(known(&bench), 0);
    let entries = bench.entries().await.expect("readable");
    assert_eq!(entries.iter().filter(|told| told.entry.event.kind() == "readmitted").count(), 1);
    all_serve(&bench);
}

#[tokio::test(start_paused = true)]
async fn evidence_that_is_required_and_missing_stops_the_run() {
    let bench = bench().await;
    bench.sim.with(|state| state.engine.logs_unavailable = true);
    is(&one_run(&bench).await, Outcome::Interrupted, Reason::EvidenceMissing);
    untouched(&bench);

    let mut playbook = playbook();
    playbook.evidence.required = false;
    let bench = bench_with(playbook).await;
    bench.sim.with(|state| state.engine.logs_unavailable = true);
    is(&one_run(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
    assert_eq!(restarts(&bench), [TWO]);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_drained_is_refused_and_never_readmitted() {
    for maintenance in [false, true] {
        let bench = bench().await;
        leaking(&bench, &[TWO]).await;
        bench.sim.replica(TWO, |replica, now| {
            replica.maintenance_since = maintenance.then_some(now);
            replica.drained_since = (!maintenance).then_some(now);
        });
        deliver(&bench).await;
        let reason = if maintenance { Reason::ServerMaintenance } else { Reason::ServerDrained };
        is(&finished(&bench).await, Outcome::Refused, reason);
        bench.run_for(mins(5)).await;
        untouched(&bench);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_put_in_maintenance_during_the_run_is_left_alone() {
    let bench = bench().await;
    bench.sim.at(When::After, Point::Drain, 1, |sim| {
        sim.replica(TWO, |replica, now| (replica.maintenance_since, replica.drained_since) = (Some(now), None));
    });
    is(&one_run(&bench).await, Outcome::Interrupted, Reason::ServerMaintenance);
    bench.run_for(mins(5)).await;
    assert!(restarts(&bench).is_empty());
    assert_eq!(
        bench.sim.replica(TWO, |replica, _| replica.maintenance_since.is_some()),
        Some(true),
        "somebody's work was undone"
    );
    assert_eq!(bench.sim.calls(Point::Ready), 0);

    // The same where it came by itself, and leaves our drain standing beside it.
    let bench = crate::kit::bench().await;
    bench.sim.at(When::After, Point::Drain, 1, |sim| {
        sim.replica(TWO, |replica, now| replica.maintenance_since = Some(now));
    });
    let record = one_run(&bench).await;
    is(&record, Outcome::ActionFailed, Reason::ReadmitFailed);
    assert!(record.detail.contains("before that server_maintenance"), "{}", record.detail);
    assert!(restarts(&bench).is_empty(), "restarted under somebody's hands");
    bench.run_for(mins(1)).await;
    assert_eq!(bench.sim.calls(Point::Ready), 0);
    // When it is over, our drain is still ours to undo.
    bench.sim.replica(TWO, |replica, _| replica.maintenance_since = None);
    bench.run_for(mins(1)).await;
    assert_eq!(bench.sim.replica(TWO, |replica, _| replica.drained_since), Some(None), "left drained");

    // The same right after the restart, by somebody whose order leaves our drain standing beside it.
    let bench = crate::kit::bench().await;
    bench.sim.at(When::After, Point::Restart, 1, |sim| {
        sim.replica(TWO, |replica, now| replica.maintenance_since = Some(now));
    });
    one_run(&bench).await;
    assert_eq!(bench.sim.replica(TWO, |replica, _| replica.maintenance_since.is_some()), Some(true));
    assert_eq!(bench.sim.calls(Point::Ready), 0);
}

/// The process stands still between its look and the readmit, and somebody puts the server in maintenance meanwhile.
#[tokio::test(start_paused = true)]
async fn a_readmit_after_a_standstill_looks_again() {
    let bench = bench().await;
    bench.sim.at(When::After, Point::Restart, 1, |sim| {
        sim.at(When::After, Point::Servers, 1, |sim| {
            sim.stand_still(secs(20));
            sim.replica(TWO, |replica, now| (replica.maintenance_since, replica.drained_since) = (Some(now), None));
        });
    });
    one_run(&bench).await;
    let theirs = bench.sim.replica(TWO, |replica, _| replica.maintenance_since.is_some());
    assert_eq!(theirs, Some(true), "somebody's work was undone");
    assert_eq!((restarts(&bench), bench.sim.calls(Point::Ready)), (vec![TWO.to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn an_order_to_stop_leaves_nothing_drained() {
    for point in [Point::Logs, Point::Drain, Point::Restart, Point::Ready] {
        let bench = bench().await;
        let shutdown = bench.context.shutdown.clone();
        bench.sim.at(When::After, point, 1, move |_| shutdown.cancel());
        leaking(&bench, &[TWO]).await;
        deliver(&bench).await;
        bench.run_for(secs(20)).await;
        bench.stop().await;
        all_serve(&bench);
        let bench = bench.crash_and_restart(None, secs(5)).await.expect("starts again");
        bench.run_with_feed(mins(10), mins(1)).await;
        assert_eq!(restarts(&bench), [TWO], "{point:?}: {:#?}", told(&bench.records()));
        assert_eq!(bench.records().last().and_then(|record| record.outcome), Some(Outcome::Recovered), "{point:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_went_back_gives_no_permit() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    bench.sim.with(|state| state.clock_ahead = -jiff::SignedDuration::from_hours(1));
    deliver(&bench).await;
    let record = finished(&bench).await;
    assert!(record.intent.is_none(), "{:?}", ended(&record));
    untouched(&bench);
}
