//! A disk that takes its time for a step's start: what the last look saw is old by then, and a person may have said stop.

use std::time::Duration;

use futures_util::FutureExt as _;
use remediator::event::{Draft, Event, Pause, PauseScope, Record, Step};
use remediator::reason::{Outcome, Reason};
use remediator::sim::bench::{Bench, write_now};
use remediator::sim::{Point, Sim, When};

use crate::kit::*;

/// The step that begins after this call waits so long for its start, and halfway something happens.
fn stalls(bench: &Bench, after: Point, how_long: Duration, meanwhile: impl FnOnce(&Sim) + Send + 'static) {
    let journal = bench.context.journal.clone();
    bench.sim.at(When::After, after, 1, move |sim| {
        sim.at(When::After, Point::Inspect, 1, move |sim| {
            journal.pretend_stalled(how_long);
            let sim = sim.clone();
            tokio::spawn(async move {
                tokio::time::sleep(how_long / 2).await;
                meanwhile(&sim);
            });
        });
    });
}

/// How long the step took from its start to its end.
fn took(record: &Record, step: Step) -> Duration {
    let run = record.steps.iter().find(|run| run.step == step).expect("a step");
    run.ended_at.expect("ended").duration_since(run.started_at).unsigned_abs()
}

#[tokio::test(start_paused = true)]
async fn what_came_while_the_disk_stalled_before_the_restart_is_seen() {
    let bench = bench().await;
    stalls(&bench, Point::Drain, secs(30), |sim| sim.with(|state| state.reload_balancer()));
    let record = one_run(&bench).await;
    is(&record, Outcome::Interrupted, Reason::DrainLost);
    assert!(record.began(Step::Restart) && !record.done(Step::Restart));
    assert!(restarts(&bench).is_empty(), "it took traffic");
    all_serve(&bench);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_stalls_and_nothing_else_holds_nothing_up() {
    for after in [Point::Logs, Point::Drain] {
        let bench = bench().await;
        stalls(&bench, after, secs(30), |_| {});
        let record = one_run(&bench).await;
        is(&record, Outcome::Recovered, Reason::RecoveryConfirmed);
        let step = if after == Point::Logs { Step::Drain } else { Step::Restart };
        assert!(took(&record, step) >= secs(30), "{:?}", record.steps);
        all_serve(&bench);
    }
}

/// A pause that was acknowledged while the step's start was written holds, however long that took.
#[tokio::test(start_paused = true)]
async fn a_pause_that_came_with_the_start_of_a_step_holds() {
    let long = [Duration::from_millis(200), secs(30)];
    for (after, how_long) in long.into_iter().flat_map(|long| [(Point::Logs, long), (Point::Drain, long)]) {
        let bench = bench().await;
        let (journal, now) = (bench.context.journal.clone(), bench.sim.now());
        stalls(&bench, after, how_long, move |_| {
            let (actor, reason) = ("ana".to_owned(), "stop!".to_owned());
            let pause = Pause { scope: PauseScope::All, actor, reason, until: None };
            write_now(&journal, Draft::global(now, Event::Paused { pause }));
        });
        let record = one_run(&bench).await;
        is(&record, Outcome::Interrupted, Reason::Paused);
        held_back(&bench, &record, after);
    }
}

/// The step that begins after this call was begun, and was not ordered.
fn held_back(bench: &Bench, record: &Record, after: Point) {
    assert!(restarts(bench).is_empty());
    all_serve(bench);
    let step = if after == Point::Logs { Step::Drain } else { Step::Restart };
    assert!(record.began(step) && !record.ordered(step), "{:?}", record.steps);
    if after == Point::Logs {
        untouched(bench);
        let drains = bench.context.journal.read(|state| state.books.live.drains.len());
        assert_eq!(drains, 0, "others would be sick because of it");
    }
}

/// The disk is full since the step's start was written, and somebody else's entry has met with it.
#[tokio::test(start_paused = true)]
async fn a_disk_that_fills_up_behind_the_start_of_a_step_holds_it() {
    for after in [Point::Logs, Point::Drain] {
        let bench = bench().await;
        let (journal, now) = (bench.context.journal.clone(), bench.sim.now());
        stalls(&bench, after, secs(30), move |_| {
            journal.pretend_full(true);
            let event = Event::Resumed { scope: PauseScope::All, actor: "ana".to_owned(), reason: "go on".to_owned() };
            let refused = journal.append(Draft::global(now, event)).now_or_never().expect("inline");
            assert!(refused.is_err());
        });
        leaking(&bench, &[TWO]).await;
        deliver(&bench).await;
        bench.run_for(mins(1)).await;
        bench.context.journal.pretend_full(false);
        bench.run_for(secs(15)).await;
        let record = bench.records().swap_remove(0);
        is(&record, Outcome::Interrupted, Reason::StoreUnavailable);
        held_back(&bench, &record, after);
    }
}

/// Nothing was drained by us, so that nothing is readmitted: somebody else drained it while the disk stalled.
#[tokio::test(start_paused = true)]
async fn what_came_while_the_disk_stalled_before_the_drain_stays_as_it_is() {
    let bench = bench().await;
    stalls(&bench, Point::Logs, secs(30), |sim| {
        sim.replica(TWO, |replica, now| replica.drained_since = Some(now));
    });
    is(&one_run(&bench).await, Outcome::Interrupted, Reason::ServerDrained);
    bench.run_for(mins(1)).await;
    untouched(&bench);
    assert_eq!(bench.sim.replica(TWO, |replica, _| replica.drained_since.is_some()), Some(true), "somebody's drain was undone");
    assert!(bench.context.journal.read(|state| state.books.drained.is_empty()), "the journal takes it for ours");
}

/// Asked to stop while the restart's start was written, or somebody else restarts the container: closed as such, and not left to
/// the next process, which would take their restart for ours.
#[tokio::test(start_paused = true)]
async fn a_restart_that_was_held_back_is_nobodys_cure() {
    for (theirs, reason) in [(false, Reason::ShuttingDown), (true, Reason::ContainerChanged)] {
        let bench = bench().await;
        let shutdown = bench.context.shutdown.clone();
        stalls(&bench, Point::Drain, secs(30), move |sim| {
            shutdown.cancel();
            if theirs {
                sim.replica(TWO, |replica, now| replica.restart(now));
            }
        });
        leaking(&bench, &[TWO]).await;
        deliver(&bench).await;
        bench.run_for(mins(1)).await;
        let record = bench.records().swap_remove(0);
        is(&record, Outcome::Interrupted, reason);
        held_back(&bench, &record, Point::Drain);
    }
}
