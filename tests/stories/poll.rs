//! Signals that nobody wrote an alert for: a playbook with `every` looks by itself, and walks the same road.

use remediator::decide::playbook::{Confirm, Playbook, Threshold};
use remediator::event::Trigger;
use remediator::period::Period;
use remediator::reason::{Outcome, Reason};
use remediator::sim::prometheus::Trouble;

use crate::kit::*;

/// The shipped playbook, asking by itself every minute.
fn polling() -> Playbook {
    let playbook = playbook();
    let query = playbook.recovered.query.clone();
    Playbook {
        matchers: Vec::new(),
        every: Some(Period::from_secs(60)),
        confirm: Confirm::Query { query, threshold: Threshold::Above(0.5) },
        ..playbook
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_delivered_is_found_and_repaired_once() {
    let bench = bench_with(polling()).await;
    assert!(bench.records().is_empty(), "a healthy shop is no news");
    bench.sim.leak(TWO);
    assert!(bench.until(hours(2), |bench| !restarts(bench).is_empty()).await, "nobody looked");
    bench.run_for(mins(30)).await;
    assert_eq!(restarts(&bench), [TWO]);
    let first = bench.records().into_iter().next().expect("a record");
    assert_eq!(first.accepted.trigger, Trigger::Poll);
    is(&first, Outcome::Recovered, Reason::RecoveryConfirmed);
    all_serve(&bench);
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_cannot_see_ends_in_a_page_and_not_in_silence() {
    let bench = bench_with(polling()).await;
    bench.sim.with(|state| state.prometheus.trouble = Trouble::Down);
    bench.run_for(mins(10)).await;
    untouched(&bench);
    assert!(up(&bench).iter().all(|reason| reason == "prometheus_unreachable") && !up(&bench).is_empty(), "{:?}", up(&bench));
}
