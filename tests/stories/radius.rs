//! A remedy never takes more out than the service can spare.

use remediator::guard::rails::Rail;
use remediator::reason::{Outcome, Reason};
use remediator::sim::{Point, What, When};

use crate::kit::*;

/// A target whose alert became active after our own drain of its sibling is refused as `sick_after_action` and paged.
#[tokio::test(start_paused = true)]
async fn capi_7353() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    // The load that inventory-2 no longer takes is too much for inventory-3.
    bench.sim.at(When::After, Point::Drain, 1, |sim| sim.leak(THREE));
    deliver(&bench).await;
    is(&finished(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
    firing(&bench, &[THREE]).await;
    deliver(&bench).await;
    let record = finished(&bench).await;
    is(&record, Outcome::Refused, Reason::SickAfterAction);
    assert!(record.detail.contains("after we drained inventory/10.0.0.2:8080"), "{}", record.detail);
    bench.run_with_feed(mins(5), mins(1)).await;
    assert_eq!(restarts(&bench), [TWO]);
    assert_eq!(up(&bench), ["sick_after_action"]);
}

/// In flight, in verification and unknown all count as unhealthy.
#[tokio::test(start_paused = true)]
async fn mao_902() {
    let bench = bench().await;
    leaking(&bench, &[ONE, TWO]).await;
    deliver(&bench).await;
    let settled = |bench: &remediator::sim::bench::Bench| bench.records().iter().any(|record| record.outcome.is_some());
    assert!(bench.until(secs(5), settled).await);
    let refused = bench.records().into_iter().find(|record| record.outcome.is_some()).expect("one of the two");
    is(&refused, Outcome::Refused, Reason::MinHealthy);
    let other = if of(&bench, ONE)[0].outcome.is_some() { TWO } else { ONE };
    let arithmetic = format!("healthy after this restart 1, must be at least 2 (not serving: {} ", instance(&bench.sim, other));
    assert!(refused.detail.starts_with(&arithmetic), "{}", refused.detail);

    // Readmitted and UP again, and still in verification.
    let readmitted = |bench: &remediator::sim::bench::Bench| {
        bench.sim.with(|state| state.effects.iter().any(|effect| matches!(effect.what, What::Ready(_))))
    };
    assert!(bench.until(mins(1), readmitted).await);
    assert!(!bench.idle(), "still in verification");
    bench.run_for(secs(5)).await;
    deliver(&bench).await;
    bench.run_for(secs(5)).await;
    assert_eq!(restarts(&bench), [other]);

    // A replica that the balancer does not know cannot be called healthy.
    let bench = crate::kit::bench().await;
    leaking(&bench, &[TWO]).await;
    bench.sim.replica(ONE, |replica, _| replica.at_balancer = false);
    deliver(&bench).await;
    let record = finished(&bench).await;
    is(&record, Outcome::Refused, Reason::MinHealthy);
    let sick = record.guards.iter().find(|check| check.rail == Rail::MaxUnhealthy).expect("every rail is listed");
    assert!(sick.detail.starts_with("sick 2 of 3"), "{}", sick.detail);
}

/// Of 3 replicas one is repaired at a time; the second is refused while the first is out, with the arithmetic printed,
/// and repaired after; with 3 of 3 sick nothing is touched and a human is paged.
#[tokio::test(start_paused = true)]
async fn karpenter_small() {
    let bench = bench().await;
    leaking(&bench, &[ONE, TWO]).await;
    deliver(&bench).await;
    // Delivered once; the second is taken up by itself.
    bench.run_for(mins(6)).await;
    let mut repaired = restarts(&bench);
    repaired.sort();
    assert_eq!(repaired, [ONE, TWO], "{:#?}", told(&bench.records()));
    one_at_a_time(&bench);
    let refused: Vec<_> = bench.records().into_iter().filter(|r| r.outcome == Some(Outcome::Refused)).collect();
    assert_eq!(refused.len(), 1, "{:#?}", told(&bench.records()));
    assert!(refused[0].detail.starts_with("healthy after this restart 1, must be at least 2"), "{}", refused[0].detail);
    bench.run_for(mins(1)).await;
    assert!(up(&bench).is_empty(), "{:?}", up(&bench));

    let bench = crate::kit::bench().await;
    leaking(&bench, &ALL).await;
    bench.run_with_feed(mins(10), mins(1)).await;
    untouched(&bench);
    assert_eq!(up(&bench), ["max_unhealthy"; 3]);
    assert_eq!(bench.records().len(), 3, "{:#?}", told(&bench.records()));
}

/// Between a drain and the readmit that belongs to it lies no other drain.
pub fn one_at_a_time(bench: &remediator::sim::bench::Bench) {
    let effects = bench.sim.with(|state| state.effects.clone());
    let mut out = None;
    for effect in &effects {
        match &effect.what {
            What::Drain(server) => assert_eq!(out.replace(server), None, "{effects:?}"),
            What::Ready(server) => assert_eq!(out.take(), Some(server), "{effects:?}"),
            What::Asked { .. } => {}
            What::Restart { .. } => assert!(out.is_some(), "restarted without a drain: {effects:?}"),
        }
    }
    assert_eq!(out, None);
}
