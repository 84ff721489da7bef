//! The process dies anywhere, and whatever it was doing is finished to a safe point by the next one.
//!
//! Exact for every entry of the journal: the dead process gets no further than the first call after the k-th entry, and
//! the next one finds the journal as it was when that entry had been written, and nothing after it.

use remediator::audit::canonical::canonical;
use remediator::audit::chain::{GENESIS, hash};
use remediator::decide::playbook::{Mode, Playbook};
use remediator::event::{Event, Step};
use remediator::reason::{Outcome, Reason};
use remediator::sim::bench::Bench;
use remediator::sim::docker::RestartFault;
use remediator::sim::{Point, When};

use crate::kit::*;

/// Long enough for a cooldown, a second attempt and its verdict.
const AFTERWARDS: std::time::Duration = mins(12);

async fn dead(bench: &Bench, deaths: u64) -> bool {
    bench.until(mins(10), |bench| bench.sim.deaths() >= deaths).await
}

/// The dead process writes nothing after this entry.
fn doomed_at(bench: &Bench, seq: u64) {
    let journal = bench.context.journal.clone();
    bench.sim.die_when(move || journal.head().seq >= seq);
}

/// What must hold however often and wherever the process died.
async fn nothing_is_broken(bench: &Bench, case: &str) {
    bench.run_with_feed(AFTERWARDS, mins(1)).await;
    let story = told(&bench.records());
    assert_eq!(restarts(bench), [TWO], "{case}: restarted at most once, and in the end once: {story:#?}");
    all_serve(bench);
    assert!(bench.idle(), "{case}: a record stayed open: {story:#?}");
    for record in bench.records() {
        assert!(record.outcome.is_some() && record.is_closed(), "{case}: {story:#?}");
        assert!(record.running().is_none());
    }
    let entries = bench.entries().await.expect("readable");
    let mut head = GENESIS.to_owned();
    for (number, told) in entries.iter().enumerate() {
        assert_eq!(told.entry.seq, number as u64 + 1);
        assert_eq!(told.prev_hash, head, "{case}: the chain is broken at {number}");
        let body = canonical(&told.entry).expect("canonical");
        assert_eq!(told.hash, hash(&told.prev_hash, &body));
        head.clone_from(&told.hash);
    }
    for record in bench.records() {
        let closings = entries.iter().filter(|told| told.entry.record == Some(record.id));
        let closings = closings.filter(|told| matches!(told.entry.event, Event::Closed { .. })).count();
        assert_eq!(closings, 1, "{case}: exactly one outcome");
    }
    assert!(up(bench).is_empty(), "{case}: {:?}: {story:#?}", up(bench));
}

/// The entries of a run that nothing disturbs: from the first after the start to the closing one.
async fn undisturbed() -> std::ops::RangeInclusive<u64> {
    let bench = bench().await;
    let begin = bench.context.journal.head().seq + 1;
    one_run(&bench).await;
    let end = bench.context.journal.head().seq;
    let kinds: Vec<&str> = bench.entries().await.expect("readable").iter().map(|told| told.entry.event.kind()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "step_started").count(), Step::ALL.len(), "{kinds:?}");
    begin..=end
}

#[tokio::test(start_paused = true)]
async fn after_every_entry_of_the_journal() {
    for seq in undisturbed().await {
        let bench = bench().await;
        doomed_at(&bench, seq);
        leaking(&bench, &[TWO]).await;
        deliver(&bench).await;
        assert!(dead(&bench, 1).await, "did not die at entry {seq}");
        let bench = bench.crash_and_restart(Some(seq), secs(20)).await.expect("starts again");
        nothing_is_broken(&bench, &format!("died after entry {seq}")).await;
    }
}

/// In shadow there is nothing to finish: what would have been done is told once, and nothing is touched.
#[tokio::test(start_paused = true)]
async fn in_shadow_after_every_entry() {
    let shadow = Playbook { mode: Mode::Shadow, ..playbook() };
    let bench = bench_with(shadow.clone()).await;
    let begin = bench.context.journal.head().seq + 1;
    one_run(&bench).await;
    for seq in begin..=bench.context.journal.head().seq {
        let bench = bench_with(shadow.clone()).await;
        doomed_at(&bench, seq);
        leaking(&bench, &[TWO]).await;
        deliver(&bench).await;
        assert!(dead(&bench, 1).await, "did not die at entry {seq}");
        let bench = bench.crash_and_restart(Some(seq), secs(20)).await.expect("starts again");
        bench.run_for(mins(1)).await;
        untouched(&bench);
        let records = bench.records();
        assert_eq!(records.len(), 1, "died after entry {seq}: {:#?}", told(&records));
        is(&records[0], Outcome::Shadow, Reason::WouldRemediate);
    }
}

#[tokio::test(start_paused = true)]
async fn after_every_entry_and_again_while_cleaning_up() {
    for seq in undisturbed().await {
        for further in 1..=4 {
            let bench = bench().await;
            doomed_at(&bench, seq);
            leaking(&bench, &[TWO]).await;
            deliver(&bench).await;
            assert!(dead(&bench, 1).await, "did not die at entry {seq}");
            let bench = bench.crash_and_restart(Some(seq), secs(5)).await.expect("starts again");
            // The first further entry is `started`.
            doomed_at(&bench, seq + 1 + further);
            let keep = if dead(&bench, 2).await { Some(seq + 1 + further) } else { None };
            let bench = bench.crash_and_restart(keep, secs(5)).await.expect("starts again");
            nothing_is_broken(&bench, &format!("died after entry {seq} and {further} further ones")).await;
        }
    }
}

/// The call had its effect, and the process that made it never heard the answer.
#[tokio::test(start_paused = true)]
async fn in_the_middle_of_every_call_that_changes_something() {
    for when in [When::Before, When::After] {
        for point in [Point::Drain, Point::Restart, Point::Ready, Point::Raise, Point::Logs, Point::Inspect] {
            let bench = bench().await;
            bench.sim.at(when, point, 1, |sim| sim.kill());
            leaking(&bench, &[TWO]).await;
            deliver(&bench).await;
            let died = bench.until(mins(3), |bench| bench.sim.deaths() == 1).await;
            assert!(died || point == Point::Raise, "no call of {point:?}");
            let bench = bench.crash_and_restart(None, secs(1)).await.expect("starts again");
            nothing_is_broken(&bench, &format!("died {when:?} {point:?}")).await;
        }
    }
}

/// The Engine carries on with what a dead process asked for, even long after the next process started.
#[tokio::test(start_paused = true)]
async fn while_the_engine_is_still_at_it() {
    for stops_in in [1, 5, 9] {
        let bench = bench().await;
        bench.sim.replica(TWO, |replica, _| replica.stops_in = secs(stops_in));
        bench.sim.at(When::Before, Point::Restart, 1, |sim| {
            // Dies half a second after it asked.
            let sim = sim.clone();
            tokio::spawn(async move {
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                sim.kill();
            });
        });
        leaking(&bench, &[TWO]).await;
        deliver(&bench).await;
        assert!(dead(&bench, 1).await);
        let bench = bench.crash_and_restart(None, std::time::Duration::from_millis(100)).await.expect("starts again");
        nothing_is_broken(&bench, &format!("died while the Engine took {stops_in}s to stop it")).await;
    }
}

/// It did restart, and the next process cannot ask: not having seen it is no proof that it did not happen.
#[tokio::test(start_paused = true)]
async fn a_restart_that_cannot_be_looked_up_is_not_called_undone() {
    let bench = bench().await;
    bench.sim.at(When::After, Point::Restart, 1, |sim| {
        sim.with(|state| state.engine.down = true);
        sim.kill();
    });
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    assert!(dead(&bench, 1).await);
    let bench = bench.crash_and_restart(None, secs(1)).await.expect("starts again");
    let record = finished(&bench).await;
    is(&record, Outcome::ActionFailed, Reason::RestartUnknown);
    assert_eq!(restarts(&bench), [TWO]);
    all_serve(&bench);
}

/// The Engine refused the restart, the process died before the record was closed, and then somebody else restarted the container:
/// that is not our cure.
#[tokio::test(start_paused = true)]
async fn a_restart_that_was_refused_is_not_looked_up_again() {
    let bench = bench().await;
    bench.sim.with(|state| state.engine.restart = RestartFault::Refused);
    bench.sim.at(When::Before, Point::Ready, 1, |sim| sim.kill());
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    assert!(dead(&bench, 1).await);
    bench.sim.replica(TWO, |replica, now| replica.restart(now));
    let bench = bench.crash_and_restart(None, secs(1)).await.expect("starts again");
    let record = finished(&bench).await;
    is(&record, Outcome::Interrupted, Reason::Crashed);
    assert!(record.began(Step::Restart) && !record.done(Step::Restart), "{:?}", record.steps);
    assert!(restarts(&bench).is_empty());
    all_serve(&bench);
}

/// The restart had no answer and could not be looked up, so that the run went straight to the readmit, and died in it. The next process
/// sees that the container did restart: it readmits, waits for nothing that would be out of order by now, and judges.
#[tokio::test(start_paused = true)]
async fn in_the_readmit_after_a_restart_that_was_done_without_an_answer() {
    let bench = bench().await;
    bench.sim.with(|state| state.engine.restart = RestartFault::SilentDone);
    bench.sim.at(When::Before, Point::Restart, 1, |sim| {
        let sim = sim.clone();
        tokio::spawn(async move {
            // The call is on its way.
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            sim.with(|state| state.engine.down = true);
        });
    });
    bench.sim.at(When::Before, Point::Ready, 1, |sim| {
        sim.with(|state| state.engine.down = false);
        sim.kill();
    });
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    assert!(dead(&bench, 1).await);
    let bench = bench.crash_and_restart(None, secs(1)).await.expect("starts again");
    let record = finished(&bench).await;
    is(&record, Outcome::Recovered, Reason::RecoveryConfirmed);
    let begun: Vec<Step> = record.steps.iter().map(|run| run.step).collect();
    assert_eq!(begun, [Step::CaptureEvidence, Step::Drain, Step::Restart, Step::Readmit, Step::Readmit], "{record:#?}");
    assert_eq!(restarts(&bench), [TWO]);
    all_serve(&bench);
}

/// Dead for hours: what it drained stays drained until somebody starts it again, and then not for long.
#[tokio::test(start_paused = true)]
async fn a_server_left_drained_is_readmitted_at_the_next_start() {
    let bench = bench().await;
    bench.sim.at(When::After, Point::Drain, 1, |sim| sim.kill());
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    assert!(dead(&bench, 1).await);
    bench.run_for(hours(3)).await;
    assert_eq!(bench.sim.replica(TWO, |replica, _| replica.drained_since.is_some()), Some(true));
    let bench = bench.crash_and_restart(None, secs(1)).await.expect("starts again");
    bench.run_for(secs(5)).await;
    all_serve(&bench);
}
