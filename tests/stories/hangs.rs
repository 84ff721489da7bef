//! A disk that hangs: no commit fails and none ends, and a server that is drained does not wait for it.

use futures_util::FutureExt as _;
use remediator::audit::journal::Journal;
use remediator::decide::playbook::Playbook;
use remediator::reason::{Outcome, Reason};
use remediator::sim::bench::Bench;
use remediator::sim::docker::RestartFault;
use remediator::sim::{Point, When};

use crate::heartbeat::alert;
use crate::kit::*;

fn drained(bench: &Bench) -> bool {
    bench.sim.replica(TWO, |replica, _| replica.drained_since.is_some()) == Some(true)
}

/// From this call on nobody is answered by the journal.
fn hangs(bench: &Bench, when: When, point: Point) {
    let journal = bench.context.journal.clone();
    bench.sim.at(when, point, 1, move |_| journal.pretend_hung(true));
}

/// The restart's start does not come to the disk: the server is readmitted without it, and when the disk is back the last look says that
/// the drain is lost.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_drained_does_not_wait_for_a_disk_that_hangs() {
    let bench = bench().await;
    hangs(&bench, When::After, Point::Drain);
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    assert!(bench.until(mins(1), drained).await, "not drained");
    assert!(bench.until(secs(45), |bench| !drained(bench)).await, "left drained");
    bench.run_for(mins(5)).await;
    assert!(bench.context.journal.hangs());
    assert_eq!(up(&bench), ["store_unavailable"]);
    assert!(!drained(&bench));
    bench.context.journal.pretend_hung(false);
    is(&finished(&bench).await, Outcome::Interrupted, Reason::DrainLost);
    assert!(restarts(&bench).is_empty(), "restarted although it takes traffic");
    bench.run_for(mins(1)).await;
    assert!(!bench.context.journal.hangs() && bench.context.journal.trouble().is_none());
    assert!(bench.context.journal.read(|state| state.books.drained.is_empty()));
}

/// Nor does it matter that the balancer does not answer at first.
#[tokio::test(start_paused = true)]
async fn a_readmit_that_fails_while_the_disk_hangs_is_tried_again() {
    let bench = bench().await;
    let journal = bench.context.journal.clone();
    bench.sim.at(When::After, Point::Drain, 1, move |sim| {
        journal.pretend_hung(true);
        sim.with(|state| state.balancer.down = true);
    });
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    assert!(bench.until(mins(1), drained).await, "not drained");
    bench.run_for(mins(2)).await;
    assert!(drained(&bench));
    bench.sim.with(|state| state.balancer.down = false);
    assert!(bench.until(secs(45), |bench| !drained(bench)).await, "left drained");
    bench.context.journal.pretend_hung(false);
    is(&finished(&bench).await, Outcome::ActionFailed, Reason::DrainTimeout);
    assert!(restarts(&bench).is_empty(), "restarted although it takes traffic");
}

/// The restart is done and its end does not come to the disk.
#[tokio::test(start_paused = true)]
async fn nor_does_one_whose_container_was_restarted() {
    let bench = bench().await;
    hangs(&bench, When::After, Point::Restart);
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    assert!(bench.until(mins(2), |bench| restarts(bench) == [TWO]).await, "not restarted");
    bench.run_for(secs(45)).await;
    assert!(!drained(&bench), "left drained");
    bench.context.journal.pretend_hung(false);
    is(&finished(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
    assert_eq!(restarts(&bench), [TWO]);
    all_serve(&bench);
}

/// While the Engine is at it the server takes no traffic, however long the journal hangs.
#[tokio::test(start_paused = true)]
async fn what_is_being_restarted_waits_for_the_engine() {
    let bench = bench_with(Playbook { restart_grace_seconds: 60, ..playbook() }).await;
    bench.sim.with(|state| state.engine.restart = RestartFault::SilentDone);
    hangs(&bench, When::Before, Point::Restart);
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    assert!(bench.until(mins(2), |bench| bench.context.journal.hangs()).await, "it does not hang");
    bench.run_for(secs(40)).await;
    assert!(drained(&bench), "readmitted in the middle of its restart");
    bench.run_for(mins(1)).await;
    assert!(!drained(&bench), "left drained");
    bench.context.journal.pretend_hung(false);
    is(&finished(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
    assert_eq!(restarts(&bench), [TWO]);
}

/// Readmitted once, it is left alone: whoever drains it now is somebody else. And so is what was never drained by us, although its
/// step was begun.
#[tokio::test(start_paused = true)]
async fn somebodys_drain_is_not_undone_because_the_journal_hangs() {
    let bench = bench().await;
    hangs(&bench, When::After, Point::Drain);
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    assert!(bench.until(mins(1), drained).await && bench.until(mins(1), |bench| !drained(bench)).await, "not readmitted");
    by_hand(&bench);
    bench.run_for(mins(1)).await;
    assert!(drained(&bench), "somebody's drain was undone");
    // Nor is it taken for ours when the disk is back.
    bench.context.journal.pretend_hung(false);
    is(&finished(&bench).await, Outcome::Interrupted, Reason::DrainLost);
    bench.run_for(mins(1)).await;
    assert!(drained(&bench) && restarts(&bench).is_empty(), "somebody's drain was taken for ours");

    let bench = crate::kit::bench().await;
    let journal = bench.context.journal.clone();
    bench.sim.at(When::After, Point::Logs, 1, move |sim| {
        journal.pretend_stalled(secs(30));
        let sim = sim.clone();
        tokio::spawn(async move {
            tokio::time::sleep(secs(10)).await;
            sim.replica(TWO, |replica, now| replica.drained_since = Some(now));
            // The look that is asked for once the start is on disk.
            sim.at(When::After, Point::Inspect, 1, move |_| journal.pretend_hung(true));
        });
    });
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    bench.run_for(mins(3)).await;
    assert!(bench.context.journal.hangs() && drained(&bench), "somebody's drain was undone");
    untouched(&bench);
}

fn by_hand(bench: &Bench) {
    bench.sim.replica(TWO, |replica, now| replica.drained_since = Some(now));
}

/// Deliveries would wait in memory: they are refused, and come again. The dead man's switch is heard, because the journal is not asked.
#[tokio::test(start_paused = true)]
async fn nothing_is_taken_in_while_the_journal_hangs() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    bench.context.journal.pretend_hung(true);
    assert!(bench.until(mins(1), |bench| bench.context.journal.hangs()).await, "it does not hang");
    let refused = bench.deliver_firing().now_or_never().expect("at once");
    assert_eq!(refused.err().map(|why| why.reason), Some(Reason::StoreUnavailable));
    let watchdog = alert(&[("alertname", remediator::detect::watchdog::ALERTNAME)]);
    assert!(bench.deliver(vec![watchdog]).now_or_never().expect("at once").is_ok());
    bench.context.journal.pretend_hung(false);
    assert!(bench.until(mins(1), |bench| !bench.context.journal.hangs()).await, "it still hangs");
    deliver(&bench).await;
    is(&finished(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
}

/// A real writer that is held up, and one that is gone.
#[tokio::test(start_paused = true)]
async fn a_writer_that_is_held_up_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = Journal::open(folder.path()).expect("a journal");
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let holding = tokio::spawn({
        let journal = journal.clone();
        async move {
            let hold = journal.transact(move |_| {
                let _ = held.recv();
                (Vec::new(), ())
            });
            hold.await
        }
    });
    tokio::task::yield_now().await;
    assert!(!journal.answers().await && journal.hangs());
    assert!(journal.trouble().is_some_and(|why| why.contains("has not answered")));
    let_go.send(()).expect("somebody waits");
    holding.await.expect("no panic").expect("done");
    // Time runs here as fast as nobody waits for it, and the writer is a thread that does not.
    while !journal.answers().await {}
    assert!(!journal.hangs() && journal.trouble().is_none());
    journal.close().await;
    assert!(!journal.answers().await, "it is gone");
}

/// The disk is full, so that the record stays open and is nobody's whom the reconciler knows; and the balancer is away for longer than
/// a readmit is tried. It fills up before the readmit is begun, or between its start and its end.
#[tokio::test(start_paused = true)]
async fn a_readmit_that_failed_is_tried_again_although_the_disk_is_full() {
    for (when, point) in [(When::After, Point::Restart), (When::Before, Point::Ready)] {
        let bench = bench().await;
        let journal = bench.context.journal.clone();
        bench.sim.at(when, point, 1, move |sim| {
            journal.pretend_full(true);
            sim.with(|state| state.balancer.down = true);
        });
        leaking(&bench, &[TWO]).await;
        deliver(&bench).await;
        assert!(bench.until(mins(2), |bench| restarts(bench) == [TWO]).await, "not restarted");
        bench.run_for(mins(5)).await;
        assert!(drained(&bench));
        bench.sim.with(|state| state.balancer.down = false);
        bench.run_for(secs(15)).await;
        assert!(!drained(&bench), "left drained for as long as the disk is full, {when:?} {point:?}");
        bench.context.journal.pretend_full(false);
        is(&finished(&bench).await, Outcome::ActionFailed, Reason::ReadmitFailed);
        bench.run_for(secs(15)).await;
        all_serve(&bench);
    }
}
