//! Alertmanager delivers at least once, in any order, from two peers; what is done is done at most once.

use std::time::Duration;

use remediator::alert::Alert;
use remediator::api::desk::ReceiptState;
use remediator::audit::JournalError;
use remediator::audit::journal::Journal;
use remediator::event::{Draft, Event, Member, PauseScope, Record};
use remediator::reason::{Outcome, Reason};
use remediator::sim::bench::{Bench, write_now};
use remediator::sim::{Point, When};

use crate::kit::*;

/// One action, both answered with the same record.
#[tokio::test(start_paused = true)]
async fn am_duplicate() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    let mut alerts = bench.sim.with(|state| state.prometheus.firing());
    let first = bench.deliver(alerts.clone()).await.expect("durable");
    bench.run_for(std::time::Duration::from_millis(50)).await;
    alerts[0].starts_at = Some(bench.sim.now());
    let second = bench.deliver(alerts.clone()).await.expect("durable");
    assert_eq!((first[0].state, second[0].state), (ReceiptState::Accepted, ReceiptState::Folded));
    assert_eq!(first[0].id, second[0].id);
    is(&finished(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
    // Replayed an hour later it is still the same one, and asked about again: nothing is wrong any more.
    bench.run_for(mins(40)).await;
    bench.deliver(alerts).await.expect("durable");
    bench.run_for(mins(5)).await;
    assert_eq!(restarts(&bench), [TWO]);
    assert_eq!(bench.records().len(), 1, "{:#?}", told(&bench.records()));
}

/// A replay after everything is forgotten finds a healthy replica.
#[tokio::test(start_paused = true)]
async fn a_replay_a_day_later_is_cleared() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    let alerts = bench.sim.with(|state| state.prometheus.firing());
    bench.deliver(alerts.clone()).await.expect("durable");
    finished(&bench).await;
    bench.run_for(hours(24)).await;
    bench.deliver(alerts).await.expect("durable");
    is(&finished(&bench).await, Outcome::ConditionCleared, Reason::ConditionQuiet);
    assert_eq!(restarts(&bench), [TWO]);
}

/// A pending action is dropped, a running one is finished to a safe point.
#[tokio::test(start_paused = true)]
async fn am_resolved_midrun() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    let alerts = bench.sim.with(|state| state.prometheus.firing());
    bench.deliver(alerts.clone()).await.expect("durable");
    assert!(bench.until(secs(10), |bench| bench.sim.calls(Point::Drain) == 1).await);
    let receipts = bench.deliver_resolved(alerts.clone()).await.expect("durable");
    assert_eq!(receipts[0].state, ReceiptState::Resolved);
    is(&finished(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
    all_serve(&bench);

    let bench = crate::kit::bench().await;
    bench.pause(PauseScope::All);
    leaking(&bench, &[TWO]).await;
    bench.deliver(alerts.clone()).await.expect("durable");
    is(&finished(&bench).await, Outcome::Refused, Reason::Paused);
    // It heals by itself, and Alertmanager says so.
    bench.sim.replica(TWO, |replica, now| replica.leaks(now, 60.0, 0.0));
    bench.run_for(secs(30)).await;
    bench.deliver_resolved(alerts).await.expect("durable");
    bench.resume(PauseScope::All);
    bench.run_for(mins(30)).await;
    untouched(&bench);
    assert!(up(&bench).is_empty(), "{:?}", up(&bench));
}

/// While the alert fires, the condition is asked again when the run ends or the rail frees.
#[tokio::test(start_paused = true)]
async fn nvsentinel_1536() {
    let bench = bench().await;
    bench.sim.leak_for_ever(TWO);
    firing(&bench, &[TWO]).await;
    deliver(&bench).await;
    assert!(bench.until(secs(10), |bench| bench.sim.calls(Point::Drain) == 1).await);
    let receipts = bench.deliver_firing().await.expect("durable");
    assert_eq!(receipts[0].state, ReceiptState::Folded, "a duplicate during the run");
    is(&finished(&bench).await, Outcome::StillFiring, Reason::RecoveryAbove);
    // Nothing is delivered any more.
    bench.run_for(mins(12)).await;
    assert!(restarts(&bench).len() >= 2, "never looked at again: {:#?}", told(&bench.records()));

    let bench = crate::kit::bench().await;
    bench.pause(PauseScope::All);
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    finished(&bench).await;
    bench.run_for(mins(1)).await;
    bench.resume(PauseScope::All);
    bench.run_for(secs(5)).await;
    assert_eq!(bench.records().len(), 2, "taken up at once when the rail frees");
    is(&finished(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
}

/// One episode, one action.
#[tokio::test(start_paused = true)]
async fn three_rules_one_replica() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    let alert = |name: &str| {
        let instance = "10.0.0.2:8080".parse().expect("an instance");
        bench.sim.with(|state| state.prometheus.alert(name, &instance, None)).expect("scraped")
    };
    let all = vec![alert("FdLeakSustained"), alert("FdLeakFast"), alert("FdExhausted")];
    let receipts = bench.deliver(all.clone()).await.expect("durable");
    assert!(receipts.iter().all(|receipt| receipt.id == receipts[0].id), "{receipts:?}");
    bench.run_for(mins(1)).await;
    bench.deliver(all).await.expect("durable");
    bench.run_for(mins(10)).await;
    assert_eq!(restarts(&bench), [TWO], "{:#?}", told(&bench.records()));
    assert_eq!(of(&bench, TWO)[0].members.len(), 2);
    assert!(up(&bench).is_empty(), "{:?}", up(&bench));
}

/// The rule that opened the episode goes quiet when the process can no longer say how many descriptors it has open, and
/// another one takes over. It is the same episode, and it must be heard although the first one is being watched.
#[tokio::test(start_paused = true)]
async fn another_rule_of_a_watched_episode_is_heard() {
    let bench = bench().await;
    bench.pause(PauseScope::All);
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    is(&finished(&bench).await, Outcome::Refused, Reason::Paused);
    // It is exhausted soon after a scrape at 94 %: FdLeakFast ends, FdExhausted fires.
    bench.sim.replica(TWO, |replica, now| replica.leaks(now, 960.0, 3.0));
    bench.run_with_feed(mins(5), mins(1)).await;
    let listed = bench.sim.with(|state| state.prometheus.listed(remediator::world::RuleAlertState::Firing));
    assert_eq!(listed, [("FdExhausted".to_owned(), "10.0.0.2:8080".to_owned())]);
    bench.resume(PauseScope::All);
    bench.run_with_feed(mins(5), mins(1)).await;
    assert_eq!(restarts(&bench), [TWO], "{:#?}", told(&bench.records()));
}

/// 503, nothing done; the retry succeeds exactly once.
#[tokio::test(start_paused = true)]
async fn disk_full() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    let alerts = bench.sim.with(|state| state.prometheus.firing());
    bench.context.journal.pretend_full(true);
    let refused = bench.deliver(alerts.clone()).await.expect_err("nothing can be made durable");
    assert_eq!(refused.reason, Reason::StoreUnavailable);
    bench.run_for(mins(1)).await;
    untouched(&bench);
    assert!(bench.records().is_empty());
    assert_eq!(up(&bench), ["store_unavailable"], "and somebody hears of it");
    bench.context.journal.pretend_full(false);
    bench.deliver(alerts.clone()).await.expect("durable again");
    bench.deliver(alerts).await.expect("durable again");
    is(&finished(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
    bench.run_for(mins(5)).await;
    assert_eq!(restarts(&bench), [TWO]);
    assert!(up(&bench).is_empty(), "{:?}", up(&bench));
}

/// The disk fills up between drain and restart: no restart, the server comes back, and the record closes when it can.
#[tokio::test(start_paused = true)]
async fn disk_full_in_the_middle_of_a_run() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    let journal = bench.context.journal.clone();
    bench.sim.at(When::After, Point::Drain, 1, move |_| journal.pretend_full(true));
    deliver(&bench).await;
    bench.run_for(mins(1)).await;
    assert!(restarts(&bench).is_empty(), "{:?}", restarts(&bench));
    assert_eq!(bench.sim.replica(TWO, |replica, _| replica.drained_since), Some(None), "readmitted without the journal");
    bench.context.journal.pretend_full(false);
    bench.run_for(secs(15)).await;
    is(&bench.records()[0], Outcome::Interrupted, Reason::StoreUnavailable);
    all_serve(&bench);
}

/// A guardrail whose own store failed refuses, with its own reason code.
#[tokio::test(start_paused = true)]
async fn lock_error() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    let journal = bench.context.journal.clone();
    bench.sim.at(When::After, Point::Silences, 1, move |_| journal.pretend_full(true));
    deliver(&bench).await;
    bench.run_for(mins(2)).await;
    untouched(&bench);
    bench.context.journal.pretend_full(false);
    bench.run_for(secs(15)).await;
    is(&bench.records()[0], Outcome::Refused, Reason::StoreUnavailable);
    // It still fires, so it is taken up again by itself.
    bench.run_for(mins(3)).await;
    assert_eq!(restarts(&bench), [TWO]);
}

/// An alert that Prometheus knows nothing of.
fn forged(bench: &Bench, name: &str) -> Alert {
    let quiet = instance(&bench.sim, TWO).parse().expect("an instance");
    let now = bench.sim.now();
    bench.sim.with(|state| state.prometheus.alert(name, &quiet, Some(now))).expect("a rule of this name")
}

/// How long after the record's beginning, and how long ago, Prometheus was asked. (An entry's own time is when it was made.)
fn asked(bench: &Bench, record: &Record) -> [Duration; 2] {
    let at = record.evidence.as_ref().expect("evidence").at;
    [at.duration_since(record.opened_at), bench.sim.now().duration_since(at)].map(|length| length.unsigned_abs())
}

/// Nothing was the matter when Prometheus was asked. By the time that can be written down, something may be.
#[tokio::test(start_paused = true)]
async fn an_answer_that_waited_for_the_disk_is_asked_for_again() {
    let bench = bench().await;
    let journal = bench.context.journal.clone();
    bench.sim.at(When::After, Point::Silences, 1, move |_| journal.pretend_full(true));
    bench.deliver(vec![forged(&bench, "FdLeakFast")]).await.expect("durable");
    bench.run_for(mins(4)).await;
    assert!(!bench.records()[0].is_closed());
    bench.context.journal.pretend_full(false);
    let record = finished(&bench).await;
    is(&record, Outcome::ConditionCleared, Reason::ConditionQuiet);
    let [_, ago] = asked(&bench, &record);
    assert!(ago < secs(30), "closed by what was so {ago:?} ago");
}

/// The same for a process that stood still between the answer and the journal.
#[tokio::test(start_paused = true)]
async fn an_answer_of_before_a_standstill_is_asked_for_again() {
    let bench = bench().await;
    bench.sim.at(When::After, Point::Silences, 1, |sim| sim.stand_still(mins(2)));
    bench.deliver(vec![forged(&bench, "FdLeakFast")]).await.expect("durable");
    let record = finished(&bench).await;
    is(&record, Outcome::ConditionCleared, Reason::ConditionQuiet);
    let [after, ago] = asked(&bench, &record);
    assert!(after >= mins(2) && ago < secs(30), "closed by what was so {ago:?} ago");
}

/// Nothing was the matter when Prometheus was asked, and another alert joined before that was written down.
#[tokio::test(start_paused = true)]
async fn an_answer_of_before_another_alert_joined_is_asked_for_again() {
    let bench = bench().await;
    let (journal, other) = (bench.context.journal.clone(), forged(&bench, "FdExhausted"));
    bench.sim.at(When::After, Point::Silences, 1, move |sim| {
        let id = journal.read(|state| state.records().next().map(|record| record.id)).expect("an open record");
        let alert =
            Member { fingerprint: other.labels.fingerprint().to_string(), labels: other.labels, group_key: String::new() };
        write_now(&journal, Draft::of(id, sim.now(), Event::Folded { alert }));
        sim.stand_still(secs(2));
    });
    bench.deliver(vec![forged(&bench, "FdLeakFast")]).await.expect("durable");
    let record = finished(&bench).await;
    is(&record, Outcome::ConditionCleared, Reason::ConditionQuiet);
    let [after, _] = asked(&bench, &record);
    assert!(after >= secs(2), "asked {after:?} after it was opened, and not again");
    assert_eq!(record.members.len(), 1);
}

/// The second refuses to start, naming the first's pid.
#[tokio::test]
async fn two_healers() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = Journal::open(dir.path()).expect("the first");
    let Err(error) = Journal::open(dir.path()) else { panic!("two healers use one journal") };
    assert!(matches!(error, JournalError::Locked { pid: Some(pid), .. } if pid == std::process::id()), "{error:?}");
    assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
    first.close().await;
    drop(first);
    Journal::open(dir.path()).expect("once the first is gone");
}
