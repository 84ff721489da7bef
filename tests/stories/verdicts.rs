//! Did it help? Only fresh samples of the new process say so.

use remediator::reason::{Outcome, Reason};
use remediator::sim::prometheus::Trouble;
use remediator::sim::{Point, When};

use crate::kit::*;

#[tokio::test(start_paused = true)]
async fn a_frozen_prometheus_gives_no_verdict() {
    for trouble in [Trouble::Frozen, Trouble::Down, Trouble::Nan, Trouble::Warnings, Trouble::NoTargets] {
        let bench = bench().await;
        bench.sim.at(When::After, Point::Restart, 1, move |sim| sim.with(|state| state.prometheus.trouble = trouble));
        let record = one_run(&bench).await;
        is(&record, Outcome::VerdictUnknown, Reason::RecoveryUnseen);
        let looks = &record.judgement.as_ref().expect("a judgement").looks;
        assert!(!looks.is_empty() && looks.iter().all(|look| !look.counted), "{trouble:?}: {looks:#?}");
        all_serve(&bench);
        bench.run_for(secs(5)).await;
        assert_eq!(up(&bench), ["recovery_unseen"], "{trouble:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_process_that_has_as_many_open_still_fires() {
    let bench = bench().await;
    bench.sim.leak_for_ever(TWO);
    firing(&bench, &[TWO]).await;
    deliver(&bench).await;
    let record = finished(&bench).await;
    is(&record, Outcome::StillFiring, Reason::RecoveryAbove);
    let looks = record.judgement.expect("a judgement").looks;
    assert_eq!(looks.iter().filter(|look| look.counted).count(), 3, "{looks:#?}");
    bench.run_for(secs(5)).await;
    assert_eq!(up(&bench), ["recovery_above"]);
}

/// Three looks need three scrapes: asking the same scrape three times is one look.
#[tokio::test(start_paused = true)]
async fn every_look_is_a_scrape_of_its_own() {
    let bench = bench().await;
    let record = one_run(&bench).await;
    is(&record, Outcome::Recovered, Reason::RecoveryConfirmed);
    let judgement = record.judgement.expect("a judgement");
    let counted: Vec<_> = judgement.looks.iter().filter(|look| look.counted).filter_map(|look| look.sample_at).collect();
    assert_eq!(counted.len(), 3);
    assert!(counted.windows(2).all(|pair| pair[0] < pair[1]), "{counted:?}");
    let restarted = record.steps.iter().find(|run| run.step == remediator::event::Step::Restart).expect("a restart");
    assert!(counted.iter().all(|at| *at > restarted.started_at), "{counted:?}");
}

/// The old process goes low after the action, and a scrape sees it: that is no proof that the new one is well.
#[tokio::test(start_paused = true)]
async fn samples_of_the_old_process_do_not_count() {
    let bench = bench().await;
    // The Engine says that it restarted, and for as long as anybody looks Prometheus sees the process from before.
    bench.sim.at(When::After, Point::Ready, 1, |sim| {
        sim.replica(TWO, |replica, now| {
            replica.started_at = now.saturating_sub(jiff::SignedDuration::from_hours(2)).expect("a time");
            replica.leaks(now, 60.0, 0.0);
        });
    });
    let record = one_run(&bench).await;
    is(&record, Outcome::VerdictUnknown, Reason::RecoveryUnseen);
    assert!(record.detail.contains("before the action"), "{}", record.detail);
}

/// The rule turns false after any restart, because it leaves young processes out. That is not what recovery means.
#[tokio::test(start_paused = true)]
async fn a_rule_that_turns_false_is_no_proof() {
    let bench = bench().await;
    bench.sim.leak_for_ever(TWO);
    firing(&bench, &[TWO]).await;
    deliver(&bench).await;
    let record = finished(&bench).await;
    assert!(bench.sim.with(|state| state.prometheus.firing()).is_empty(), "the rule is quiet");
    assert_eq!(record.outcome, Some(Outcome::StillFiring));
}

/// The whole host's clock goes back by hours while the new process is looked at, and nobody sees a scrape that is newer than the action.
/// The time for that is up all the same, and somebody is told.
#[tokio::test(start_paused = true)]
async fn a_clock_that_goes_back_does_not_put_off_the_verdict() {
    let bench = bench().await;
    bench.sim.at(When::After, Point::Ready, 1, |sim| sim.with(|state| state.prometheus.trouble = Trouble::Frozen));
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    assert!(bench.until(mins(2), |bench| restarts(bench) == [TWO]).await, "not restarted");
    bench.run_for(mins(1)).await;
    assert!(bench.records()[0].outcome.is_none());
    bench.sim.with(|state| state.clock_ahead = jiff::SignedDuration::from_hours(-3));
    bench.run_for(mins(10)).await;
    let record = bench.records().swap_remove(0);
    is(&record, Outcome::VerdictUnknown, Reason::RecoveryUnseen);
}
