//! A disk that hangs: no commit fails and none ends, and a server that is drained does not wait for it.

use remediator::reason::{Outcome, Reason};
use remediator::sim::bench::Bench;
use remediator::sim::{Point, When};

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

/// The restart is done and its end does not come to the disk.
#[tokio::test(start_paused = true)]
async fn nor_does_one_whose_container_was_restarted() {
    for point in [Point::Restart, Point::Ready] {
        let bench = bench().await;
        hangs(&bench, When::After, point);
        leaking(&bench, &[TWO]).await;
        deliver(&bench).await;
        assert!(bench.until(mins(2), |bench| restarts(bench) == [TWO]).await, "not restarted");
        bench.run_for(secs(45)).await;
        assert!(!drained(&bench), "left drained after {point:?}");
        bench.context.journal.pretend_hung(false);
        is(&finished(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
        assert_eq!(restarts(&bench), [TWO]);
        all_serve(&bench);
    }
}

/// The disk is full, so that the record stays open and is nobody's whom the reconciler knows; and the balancer is away for longer than
/// a readmit is tried.
#[tokio::test(start_paused = true)]
async fn a_readmit_that_failed_is_tried_again_although_the_disk_is_full() {
    let bench = bench().await;
    let journal = bench.context.journal.clone();
    bench.sim.at(When::After, Point::Restart, 1, move |sim| {
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
    assert!(!drained(&bench), "left drained for as long as the disk is full");
    bench.context.journal.pretend_full(false);
    is(&finished(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
    all_serve(&bench);
}
