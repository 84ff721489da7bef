//! A remedy that does not help is not tried for ever.

use remediator::decide::playbook::Rate;
use remediator::event::PauseScope;
use remediator::guard::breaker::BreakerState;
use remediator::guard::rails::Rail;
use remediator::guard::view;
use remediator::period::Period;
use remediator::reason::{Outcome, Reason};
use remediator::sim::bench::Bench;
use remediator::sim::docker::RestartFault;

use crate::kit::*;

fn breaker(bench: &Bench) -> BreakerState {
    let now = bench.context.world.clock.now();
    let playbook = &bench.context.playbooks()[0];
    bench.context.journal.read(|state| view::breaker(&state.books, playbook, now)).state
}

/// The same remedy failing three times opens the breaker and pages once.
#[tokio::test(start_paused = true)]
async fn azure_2012() {
    let bench = bench().await;
    bench.sim.leak_for_ever(TWO);
    let open = |bench: &Bench| matches!(breaker(bench), BreakerState::Open { .. });
    firing(&bench, &[TWO]).await;
    deliver(&bench).await;
    assert!(bench.until(hours(1), open).await, "{:#?}", told(&bench.records()));
    assert_eq!(restarts(&bench), [TWO; 3]);
    bench.run_with_feed(mins(9), mins(1)).await;
    assert_eq!(restarts(&bench), [TWO; 3], "the breaker is open");
    let pages = paged(&bench, Reason::BreakerOpen);
    assert_eq!(pages.len(), 1);
    assert_eq!(up(&bench), ["breaker_open"]);
    let history = pages[0].annotations.get("history").expect("the history");
    assert_eq!(history.matches("still_firing").count(), 3, "{history}");
}

/// Every restart helped for ten minutes: recurrence counts as failure, the breaker opens, a human is paged.
#[tokio::test(start_paused = true)]
async fn ten_minute_cure() {
    let bench = bench().await;
    bench.sim.leak_again(TWO, mins(10));
    let open = |bench: &Bench| matches!(breaker(bench), BreakerState::Open { .. });
    firing(&bench, &[TWO]).await;
    // Delivered once: Alertmanager does not tell about an alert that resolved and fired between two of its flushes.
    deliver(&bench).await;
    assert!(bench.until(hours(3), open).await, "{:#?}", told(&bench.records()));
    let recovered = bench.records().iter().filter(|record| record.outcome == Some(Outcome::Recovered)).count();
    assert_eq!((recovered, restarts(&bench).len()), (3, 3), "{:#?}", told(&bench.records()));
    bench.run_for(mins(2)).await;
    assert_eq!(up(&bench), ["breaker_open"]);
}

/// A rule that fires on for a replica that the recovery query calls well is no reason to repeat the cure.
#[tokio::test(start_paused = true)]
async fn a_rule_that_lags_repeats_no_cure() {
    let mut playbook = playbook();
    playbook.recovered.below = 0.9;
    let bench = bench_with(playbook).await;
    bench.sim.leak_again(TWO, mins(10));
    firing(&bench, &[TWO]).await;
    deliver(&bench).await;
    is(&finished(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
    // Long after cooldown and start grace the rule fires again, at half the threshold of the recovery query.
    firing(&bench, &[TWO]).await;
    bench.run_for(mins(2)).await;
    assert_eq!(restarts(&bench), [TWO], "{:#?}", told(&bench.records()));
}

/// After a day open with 1,000 old events, only what is true now is acted on, one probe first.
#[tokio::test(start_paused = true)]
async fn nvsentinel_450() {
    let mut playbook = playbook();
    playbook.guards.breaker.cooldown = Period::from_secs(86_400);
    let bench = bench_with(playbook).await;
    bench.sim.leak_for_ever(TWO);
    firing(&bench, &[TWO]).await;
    deliver(&bench).await;
    let open = |bench: &Bench| matches!(breaker(bench), BreakerState::Open { .. });
    assert!(bench.until(hours(1), open).await);
    // Alerts of all three arrive all day; most of them are long over.
    let stale: Vec<_> = ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]
        .iter()
        .filter_map(|name| {
            bench.sim.with(|state| state.prometheus.alert("FdLeakFast", &name.parse().expect("an instance"), None))
        })
        .collect();
    for _ in 0..334 {
        bench.deliver(stale.clone()).await.expect("durable");
        bench.run_for(secs(240)).await;
    }
    assert_eq!(restarts(&bench), [TWO; 3], "the breaker is open");
    // It is cured by now: the next process does not leak.
    bench.sim.replica(TWO, |replica, _| replica.habit = Default::default());
    let before = bench.sim.now();
    assert!(bench.until(hours(4), |bench| restarts(bench).len() > 3).await, "no probe: {:#?}", told(&bench.records()));
    bench.run_for(hours(1)).await;
    assert_eq!(restarts(&bench), [TWO; 4], "one probe, and nothing of the others");
    let probe =
        bench.records().into_iter().rfind(|record| record.opened_at > before && record.intent.is_some()).expect("a probe");
    assert!(probe.intent.as_ref().is_some_and(|intent| intent.probe));
    is(&probe, Outcome::Recovered, Reason::RecoveryConfirmed);
    assert_eq!(breaker(&bench), BreakerState::Closed);
}

/// Readmit works while the breaker is open and while paused.
#[tokio::test(start_paused = true)]
async fn nvsentinel_1852() {
    let mut playbook = playbook();
    playbook.guards.breaker.failures = 1;
    let bench = bench_with(playbook).await;
    bench.sim.with(|state| {
        state.engine.restart = RestartFault::Refused;
        state.balancer.refuses_ready = true;
    });
    let record = one_run(&bench).await;
    // The server that stays drained is the more urgent news.
    is(&record, Outcome::ActionFailed, Reason::ReadmitFailed);
    assert!(record.detail.contains("restart_failed"), "{}", record.detail);
    bench.pause(PauseScope::All);
    assert!(matches!(breaker(&bench), BreakerState::Open { .. }));
    bench.run_for(mins(1)).await;
    assert_eq!(bench.sim.replica(TWO, |replica, _| replica.drained_since.is_some()), Some(true), "still refused");
    bench.sim.with(|state| state.balancer.refuses_ready = false);
    bench.run_for(secs(15)).await;
    all_serve(&bench);
    assert!(matches!(breaker(&bench), BreakerState::Open { .. }));
}

/// Attempts are counted, whether they succeed or not, and the fleet's bucket is asked before the playbook's.
#[tokio::test(start_paused = true)]
async fn innerwarden_181() {
    let mut bench = bench().await;
    bench.context.limits.fleet = Rate { per: Period::from_secs(86_400), burst: 2 };
    // A new process reads the new limits.
    let bench = bench.crash_and_restart(None, secs(1)).await.expect("starts again");
    bench.sim.with(|state| state.engine.restart = RestartFault::Refused);
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    bench.run_with_feed(mins(25), mins(1)).await;
    let attempts = bench.records().iter().filter(|record| record.intent.is_some()).count();
    assert_eq!(attempts, 2, "{:#?}", told(&bench.records()));
    // It fires for another replica, whose own buckets are full.
    leaking(&bench, &[THREE]).await;
    deliver(&bench).await;
    bench.run_for(secs(1)).await;
    let record = of(&bench, THREE).pop().expect("a record");
    is(&record, Outcome::Refused, Reason::RateLimited);
    assert!(record.detail.starts_with("tokens: fleet 0."), "{}", record.detail);
    let order: Vec<Rail> = record.guards.iter().map(|check| check.rail).collect();
    assert!(order.starts_with(&[Rail::Pause, Rail::Episode, Rail::Cooldown, Rail::Rate]), "{order:?}");
}

/// The same feed gets at most burst + rate·t restarts, then the breaker opens and a human is paged; the neighbours live.
#[tokio::test(start_paused = true)]
async fn queue_bad_healer() {
    let bench = bench().await;
    bench.sim.leak_for_ever(TWO);
    let mut opened = false;
    for minute in 1..=120_u64 {
        bench.run_with_feed(mins(1), secs(20)).await;
        let done = restarts(&bench);
        assert!(done.len() as u64 <= 3 + 3 * minute, "burst + rate·t");
        assert!(done.iter().all(|name| name == TWO), "a neighbour was restarted: {done:?}");
        opened |= up(&bench).contains(&"breaker_open".to_owned());
    }
    assert!(opened, "{:#?}", told(&bench.records()));
    // Three to open it, and a probe every ten minutes and some; the budget of 6 an hour is there as well.
    assert!((4..=12).contains(&restarts(&bench).len()), "{:?}", restarts(&bench).len());
    crate::radius::one_at_a_time(&bench);
    assert!(!up(&bench).is_empty(), "a human is still being paged");
}

/// A leak that comes back once a week is repaired every week, each time with one action, and every time is on record.
#[tokio::test(start_paused = true)]
async fn weekly_leak() {
    let bench = bench().await;
    // Past one half after six and a half days at this rate.
    let rate = (512.0 - 60.0) / (6.5 * 86_400.0);
    bench.sim.replica(TWO, |replica, now| {
        replica.leaks(now, 60.0, rate);
        replica.habit.per_second = rate;
    });
    bench.run_with_feed(hours(24 * 7 * 5), hours(4)).await;
    let repaired = of(&bench, TWO).iter().filter(|record| record.outcome == Some(Outcome::Recovered)).count();
    assert_eq!((repaired, restarts(&bench).len()), (5, 5), "{:#?}", told(&bench.records()));
    assert!(bench.sim.with(|state| state.distinct_pages()).is_empty());
}
