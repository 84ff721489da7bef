//! What comes after: a cure on trial, a rule that goes on about the process before, an alert that comes late.

use std::time::Duration;

use remediator::audit::query::Filter;
use remediator::reason::{Outcome, Reason};
use remediator::sim::Sim;
use remediator::sim::bench::Bench;
use remediator::sim::prometheus::{Condition, Prometheus, Rule, Trouble};
use remediator::sim::shop::{Replica, inventory};

use crate::kit::*;

/// Alertmanager throws our answer away: whoever looks for what became of an alert has its fingerprint and its group key.
#[tokio::test(start_paused = true)]
async fn an_alert_that_joins_a_settled_episode_finds_its_record() {
    let bench = bench().await;
    let cured = one_run(&bench).await;
    is(&cured, Outcome::Recovered, Reason::RecoveryConfirmed);
    let instance = instance(&bench.sim, TWO).parse().expect("an instance");
    let late = bench.sim.with(|state| state.prometheus.alert("FdLeakSustained", &instance, None)).expect("scraped");
    let fingerprint = late.labels.fingerprint().to_string();
    assert_ne!(fingerprint, cured.accepted.fingerprint);
    let found = async |filter: Filter| {
        let page = bench.context.journal.query(filter, None, 10).await.expect("a page");
        page.items.iter().map(|found| found.record.id).collect::<Vec<_>>()
    };
    let by_fingerprint = || Filter { fingerprint: Some(fingerprint.clone()), ..Filter::default() };
    assert_eq!(found(by_fingerprint()).await, []);
    let receipts = bench.deliver(vec![late]).await.expect("durable");
    assert_eq!(receipts[0].id, Some(cured.id));
    assert_eq!(found(by_fingerprint()).await, [cured.id]);
    // Delivered again it is the same one, and a rebuild of the tables loses nothing.
    bench.run_for(mins(5)).await;
    assert_eq!(found(by_fingerprint()).await, [cured.id]);
    assert_eq!(bench.records().len(), 1, "{:#?}", told(&bench.records()));
}

/// Nobody can see whether the cure holds, and nobody delivers anything: somebody has to hear of it.
#[tokio::test(start_paused = true)]
async fn a_cure_on_trial_that_nobody_can_see_is_told() {
    for (trouble, reason) in [(Trouble::Down, Reason::PrometheusUnreachable), (Trouble::Frozen, Reason::PrometheusBlind)] {
        let bench = bench().await;
        is(&one_run(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
        bench.run_for(mins(5)).await;
        bench.sim.with(|state| state.prometheus.trouble = trouble);
        bench.run_for(mins(5)).await;
        assert_eq!(up(&bench), [reason.code()], "{:#?}", told(&bench.records()));
        assert_eq!(bench.records().len(), 2, "told once: {:#?}", told(&bench.records()));
        // Once it sees again, the page ends by itself.
        bench.sim.with(|state| state.prometheus.trouble = Trouble::None);
        bench.run_for(mins(5)).await;
        assert!(up(&bench).is_empty(), "{:?}", up(&bench));
        assert_eq!(restarts(&bench), [TWO]);
    }
}

/// A Prometheus that is restarted is no news.
#[tokio::test(start_paused = true)]
async fn a_moment_without_sight_is_not_told() {
    let bench = bench().await;
    is(&one_run(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
    for _ in 0..10 {
        bench.run_for(mins(3)).await;
        bench.sim.with(|state| state.prometheus.trouble = Trouble::Down);
        bench.run_for(secs(60)).await;
        bench.sim.with(|state| state.prometheus.trouble = Trouble::None);
    }
    assert_eq!(bench.records().len(), 1, "{:#?}", told(&bench.records()));
    assert!(bench.sim.with(|state| state.distinct_pages()).is_empty());
}

/// What was over comes again. Prometheus lists it, and answers nothing to its expression, because some of its data is missing. That may last,
/// and then somebody has to hear of it; what there is to see once the data is back is acted upon.
#[tokio::test(start_paused = true)]
async fn an_alert_that_came_again_while_the_signals_disagree_is_told() {
    let bench = bench().await;
    let instance = instance(&bench.sim, TWO).parse().expect("an instance");
    let false_alarm = bench.sim.with(|state| state.prometheus.alert("FdLeakFast", &instance, None)).expect("scraped");
    bench.deliver(vec![false_alarm]).await.expect("durable");
    is(&finished(&bench).await, Outcome::ConditionCleared, Reason::ConditionQuiet);
    bench.sim.with(|state| state.prometheus.trouble = Trouble::Partial);
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    bench.run_for(mins(5)).await;
    assert_eq!(up(&bench), ["signals_mixed"], "{:#?}", told(&bench.records()));
    assert_eq!(bench.records().len(), 2, "told once: {:#?}", told(&bench.records()));
    assert_eq!(restarts(&bench), [""; 0]);
    bench.sim.with(|state| state.prometheus.trouble = Trouble::None);
    bench.run_with_feed(mins(5), mins(1)).await;
    assert_eq!(restarts(&bench), [TWO]);
    assert!(up(&bench).is_empty(), "{:?}", up(&bench));
}

/// Three replicas, and one rule under a name of the playbook's that averages over a quarter of an hour.
async fn averaging() -> Bench {
    let replicas: Vec<Replica> = inventory().with(|state| state.replicas.clone());
    let rule = Rule::new("FdLeakSustained", Condition::Average { above: 0.5, over: mins(15) }, mins(1));
    let sim = Sim::new(replicas, Prometheus::new(Duration::from_secs(15), vec![rule]));
    let bench = Bench::start(sim, vec![playbook()]).await.expect("a journal in memory");
    bench.run_for(mins(2)).await;
    bench
}

/// A person restarts the sick replica. The rule fires on for minutes, and nobody restarts it a second time.
#[tokio::test(start_paused = true)]
async fn a_rule_that_lags_behind_a_persons_restart_restarts_nothing() {
    let bench = averaging().await;
    bench.sim.replica(TWO, |replica, now| replica.leaks(now, 1_000.0, 0.0));
    firing(&bench, &[TWO]).await;
    bench.run_for(mins(10)).await;
    bench.sim.replica(TWO, |replica, now| replica.restart(now));
    // Longer than the playbook's start grace.
    bench.run_for(mins(3)).await;
    deliver(&bench).await;
    is(&finished(&bench).await, Outcome::UnknownCondition, Reason::RuleLags);
    bench.run_for(secs(5)).await;
    assert_eq!(up(&bench), ["rule_lags"]);
    bench.run_with_feed(mins(30), mins(1)).await;
    untouched(&bench);
    assert!(up(&bench).is_empty(), "it ends with the rule: {:?}", up(&bench));
    assert!(bench.records().len() <= 2, "{:#?}", told(&bench.records()));
}

/// The same, and nobody can say how the new process does: that is no leave to restart it for what the old one did.
#[tokio::test(start_paused = true)]
async fn a_rule_that_lags_restarts_nothing_while_the_recovery_query_has_no_answer() {
    let bench = averaging().await;
    bench.sim.replica(TWO, |replica, now| replica.leaks(now, 1_000.0, 0.0));
    firing(&bench, &[TWO]).await;
    bench.run_for(mins(10)).await;
    bench.sim.replica(TWO, |replica, now| {
        replica.starts_in = mins(30);
        replica.restart(now);
    });
    bench.run_for(mins(3)).await;
    deliver(&bench).await;
    is(&finished(&bench).await, Outcome::UnknownCondition, Reason::InputMissing);
    bench.run_with_feed(mins(10), mins(1)).await;
    untouched(&bench);
}

/// The same restart, and it did not help: the recovery query says so, and the alert's age is no excuse.
#[tokio::test(start_paused = true)]
async fn a_restart_that_did_not_help_is_repeated_although_the_alert_is_older() {
    let bench = averaging().await;
    bench.sim.replica(TWO, |replica, now| {
        replica.leaks(now, 1_000.0, 0.0);
        replica.habit.level = 900.0;
    });
    firing(&bench, &[TWO]).await;
    bench.sim.replica(TWO, |replica, now| replica.restart(now));
    bench.run_for(mins(3)).await;
    deliver(&bench).await;
    finished(&bench).await;
    assert_eq!(restarts(&bench), [TWO], "{:#?}", told(&bench.records()));
}
