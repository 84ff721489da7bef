//! What remediator stands on is no target, unless a playbook says so in so many words.

use remediator::reason::{Outcome, Reason};

use crate::kit::*;

/// The address of the second replica is Prometheus' own: somebody opted the wrong container in.
fn mistaken(bench: &remediator::sim::bench::Bench) {
    let why = || Some("prometheus.url (http://prometheus:9090) leads to it".to_owned());
    bench.sim.replica(TWO, |replica, _| replica.infrastructure = why());
}

#[tokio::test(start_paused = true)]
async fn the_observer_is_never_restarted() {
    let bench = bench().await;
    mistaken(&bench);
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    let record = finished(&bench).await;
    is(&record, Outcome::UnmatchedTarget, Reason::OwnInfrastructure);
    assert!(record.detail.contains("inventory-2 is no target: prometheus.url"), "{}", record.detail);
    bench.run_with_feed(mins(30), mins(1)).await;
    untouched(&bench);
    assert_eq!(up(&bench), ["own_infrastructure"], "and a person hears of it");
}

/// A name of the configuration cannot be looked up, so that any container may be the one that it leads to.
#[tokio::test(start_paused = true)]
async fn what_may_be_the_observer_is_not_restarted_until_somebody_can_say() {
    let bench = bench().await;
    let doubt = |why: Option<&str>| bench.sim.replica(TWO, |replica, _| replica.infrastructure_unknown = why.map(str::to_owned));
    doubt(Some("nobody can say where prometheus.url leads"));
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    let record = finished(&bench).await;
    is(&record, Outcome::Refused, Reason::OwnInfrastructureUnknown);
    assert!(record.detail.contains("inventory-2 may be a part"), "{}", record.detail);
    bench.run_with_feed(mins(5), mins(1)).await;
    untouched(&bench);
    assert_eq!(up(&bench), ["own_infrastructure_unknown"], "and a person hears of it");
    doubt(None);
    bench.run_for(mins(1)).await;
    is(&finished(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
    assert_eq!(restarts(&bench), [TWO], "it is asked again by itself");
}

/// Another playbook's permission, and another replica's part, change nothing.
#[tokio::test(start_paused = true)]
async fn it_takes_the_playbooks_own_word() {
    let bench = bench().await;
    mistaken(&bench);
    leaking(&bench, &[THREE]).await;
    deliver(&bench).await;
    is(&finished(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
    assert_eq!(restarts(&bench), [THREE]);

    let mut meant = playbook();
    meant.infrastructure = true;
    let bench = bench_with(meant).await;
    mistaken(&bench);
    is(&one_run(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
    assert_eq!(restarts(&bench), [TWO]);
}
