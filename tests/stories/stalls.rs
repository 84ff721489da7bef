//! A disk that takes its time for a step's start: what the last look saw is old by then, and a person may have said stop.

use futures_util::FutureExt as _;
use remediator::event::{Draft, Event, Pause, PauseScope, Step};
use remediator::reason::{Outcome, Reason};
use remediator::sim::bench::{Bench, write_now};
use remediator::sim::{Point, Sim, When};

use crate::kit::*;

/// The step that begins after this call waits half a minute for its start, and meanwhile something happens: nobody calls
/// anything then but whoever wakes up in between.
fn stalls(bench: &Bench, after: Point, meanwhile: impl FnOnce(&Sim) + Send + 'static) {
    let journal = bench.context.journal.clone();
    bench.sim.at(When::After, after, 1, move |sim| {
        sim.at(When::After, Point::Inspect, 1, move |sim| {
            journal.pretend_stalled(secs(30));
            sim.at(When::After, Point::Sleep, 1, meanwhile);
        });
    });
}

#[tokio::test(start_paused = true)]
async fn what_came_while_the_disk_stalled_before_the_restart_is_seen() {
    let bench = bench().await;
    stalls(&bench, Point::Drain, |sim| sim.with(|state| state.reload_balancer()));
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
        stalls(&bench, after, |_| {});
        is(&one_run(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
        all_serve(&bench);
    }
}

/// A pause that was acknowledged while the step's start was written holds.
#[tokio::test(start_paused = true)]
async fn a_pause_that_came_with_the_start_of_a_step_holds() {
    for after in [Point::Logs, Point::Drain] {
        let bench = bench().await;
        let (journal, now) = (bench.context.journal.clone(), bench.sim.now());
        stalls(&bench, after, move |_| {
            let (actor, reason) = ("ana".to_owned(), "stop!".to_owned());
            let pause = Pause { scope: PauseScope::All, actor, reason, until: None };
            write_now(&journal, Draft::global(now, Event::Paused { pause }));
        });
        is(&one_run(&bench).await, Outcome::Interrupted, Reason::Paused);
        assert!(restarts(&bench).is_empty());
        all_serve(&bench);
    }
}

/// The disk is full since the step's start was written, and somebody else's entry has met with it.
#[tokio::test(start_paused = true)]
async fn a_disk_that_fills_up_behind_the_start_of_a_step_holds_it() {
    for after in [Point::Logs, Point::Drain] {
        let bench = bench().await;
        let (journal, now) = (bench.context.journal.clone(), bench.sim.now());
        stalls(&bench, after, move |_| {
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
        is(&bench.records()[0], Outcome::Interrupted, Reason::StoreUnavailable);
        assert!(restarts(&bench).is_empty());
        all_serve(&bench);
    }
}

/// Nothing was drained by us, so that nothing is readmitted: somebody else drained it while the disk stalled.
#[tokio::test(start_paused = true)]
async fn what_came_while_the_disk_stalled_before_the_drain_stays_as_it_is() {
    let bench = bench().await;
    stalls(&bench, Point::Logs, |sim| {
        sim.replica(TWO, |replica, now| replica.drained_since = Some(now));
    });
    is(&one_run(&bench).await, Outcome::Interrupted, Reason::ServerDrained);
    bench.run_for(mins(1)).await;
    untouched(&bench);
    assert_eq!(bench.sim.replica(TWO, |replica, _| replica.drained_since.is_some()), Some(true), "somebody's drain was undone");
    assert!(bench.context.journal.read(|state| state.books.drained.is_empty()), "the journal takes it for ours");
}
