//! A changed configuration in the middle of things: a run keeps its plan whatever becomes of its playbook, what is drained
//! is readmitted, and polls follow. That the files are read, checked and taken over whole is in `tests/http/reload.rs`.

use std::sync::Arc;

use remediator::decide::playbook::{Confirm, Mode, Playbook, Threshold};
use remediator::detect::poll;
use remediator::event::{PauseScope, Trigger};
use remediator::period::Period;
use remediator::reason::{Outcome, Reason};
use remediator::sim::bench::Bench;
use remediator::sim::{Point, When};
use tokio_util::task::TaskTracker;

use crate::kit::*;

/// What a reload may do to the playbook of a run.
#[derive(Clone, Copy, Debug)]
enum Change {
    Gone,
    Shadow,
    Renamed,
    /// The same name, and another set of alerts.
    Narrowed,
    /// The same name, and another service.
    OtherService,
}

fn changed(change: Change) -> Vec<Playbook> {
    let playbook = playbook();
    let name = "another".parse().expect("a name");
    match change {
        Change::Shadow => vec![Playbook { mode: Mode::Shadow, ..playbook }],
        // Nothing claims the alert any more.
        Change::Gone => vec![Playbook { name, matchers: vec!["alertname=\"Other\"".parse().expect("a matcher")], ..playbook }],
        Change::Renamed => vec![Playbook { name, ..playbook }],
        Change::Narrowed => vec![Playbook { matchers: vec!["alertname=\"Other\"".parse().expect("a matcher")], ..playbook }],
        Change::OtherService => vec![Playbook { service: "another".parse().expect("a name"), ..playbook }],
    }
}

/// As `App::reload` exchanges them.
fn exchange(bench: &Bench, playbooks: Vec<Playbook>) {
    *bench.context.playbooks.write().expect("no panic") = Arc::new(playbooks);
}

fn exchange_later(bench: &Bench, change: Change) -> impl FnOnce(&remediator::sim::Sim) + Send + 'static {
    let shared = Arc::clone(&bench.context.playbooks);
    move |_| *shared.write().expect("no panic") = Arc::new(changed(change))
}

#[tokio::test(start_paused = true)]
async fn before_the_restart_the_run_gives_up_and_readmits() {
    for change in [Change::Gone, Change::Shadow, Change::Renamed, Change::Narrowed, Change::OtherService] {
        for point in [Point::Logs, Point::Drain] {
            let bench = bench().await;
            bench.sim.at(When::After, point, 1, exchange_later(&bench, change));
            let record = one_run(&bench).await;
            is(&record, Outcome::Interrupted, Reason::ModeChanged);
            assert!(restarts(&bench).is_empty(), "{change:?} at {point:?}");
            all_serve(&bench);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_restart_the_run_goes_on_to_its_verdict() {
    for change in [Change::Gone, Change::Shadow, Change::Renamed] {
        for point in [Point::Restart, Point::Ready] {
            let bench = bench().await;
            bench.sim.at(When::Before, point, 1, exchange_later(&bench, change));
            let record = one_run(&bench).await;
            is(&record, Outcome::Recovered, Reason::RecoveryConfirmed);
            assert_eq!(restarts(&bench), [TWO], "{change:?} at {point:?}");
            all_serve(&bench);
            bench.run_with_feed(mins(20), mins(1)).await;
            assert_eq!(restarts(&bench), [TWO], "{change:?} at {point:?}: repeated");
            all_serve(&bench);
        }
    }
}

/// A name is no leave: what waits behind a rail is not done by a playbook that no longer claims it, and that nobody is for it
/// any more is paged.
#[tokio::test(start_paused = true)]
async fn what_waits_is_not_done_once_its_playbook_is_not_for_it() {
    for change in [Change::Gone, Change::Narrowed, Change::OtherService] {
        let bench = bench().await;
        bench.pause(PauseScope::All);
        leaking(&bench, &[TWO]).await;
        deliver(&bench).await;
        is(&finished(&bench).await, Outcome::Refused, Reason::Paused);
        bench.run_for(mins(15)).await;
        exchange(&bench, changed(change));
        bench.resume(PauseScope::All);
        bench.episodes.look_at(None, None);
        bench.run_for(mins(5)).await;
        let story = told(&bench.records());
        assert!(restarts(&bench).is_empty(), "{change:?}: {story:#?}");
        assert_eq!(bench.records().last().and_then(|record| record.reason), Some(Reason::NoPlaybook), "{change:?}: {story:#?}");
        assert_eq!(bench.pages().len(), 1, "{change:?}: {story:#?}");
    }
}

/// A playbook under another name takes over what the old one left, without waiting for the next delivery.
#[tokio::test(start_paused = true)]
async fn another_name_takes_over_what_waits() {
    let bench = bench().await;
    bench.pause(PauseScope::All);
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    is(&finished(&bench).await, Outcome::Refused, Reason::Paused);
    exchange(&bench, changed(Change::Renamed));
    bench.resume(PauseScope::All);
    bench.run_for(mins(5)).await;
    assert_eq!(restarts(&bench), [TWO], "{:#?}", told(&bench.records()));
}

/// What stands drained in our name is told for as long as it does, whatever became of its playbook.
#[tokio::test(start_paused = true)]
async fn a_server_that_stays_drained_keeps_its_page_without_a_playbook() {
    for change in [Change::Gone, Change::Renamed] {
        let bench = bench().await;
        bench.sim.with(|state| state.balancer.refuses_ready = true);
        leaking(&bench, &[TWO]).await;
        deliver(&bench).await;
        assert!(bench.until(mins(5), |bench| bench.records().iter().any(|r| r.reason == Some(Reason::ReadmitFailed))).await);
        bench.run_for(mins(15)).await;
        exchange(&bench, changed(change));
        bench.episodes.look_at(None, None);
        bench.run_for(mins(15)).await;
        let pages = bench.pages();
        let said = |page: &remediator::world::PageAlert| page.labels.get("reason") == Some("readmit_failed");
        assert!(pages.iter().any(said), "{change:?}: {pages:#?} {:#?}", told(&bench.records()));
    }
}

/// Wherever it happens: nothing stays drained, nothing stays open, nothing is restarted twice.
#[tokio::test(start_paused = true)]
async fn at_any_call_nothing_is_left_behind() {
    let points = [Point::Instant, Point::Rules, Point::Containers, Point::Inspect, Point::Servers, Point::Sleep];
    for change in [Change::Gone, Change::Renamed] {
        for point in points {
            for nth in [1, 3, 5] {
                let bench = bench().await;
                leaking(&bench, &[TWO]).await;
                bench.sim.at(When::After, point, nth, exchange_later(&bench, change));
                deliver(&bench).await;
                let case = format!("{change:?} after call {nth} of {point:?}");
                bench.run_for(mins(5)).await;
                let story = told(&bench.records());
                assert!(bench.idle(), "{case}: {story:#?}");
                assert!(restarts(&bench).len() <= 1, "{case}: {story:#?}");
                all_serve(&bench);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_process_readmits_for_a_playbook_that_has_gone() {
    for change in [Change::Gone, Change::Shadow] {
        for (when, point, restarted) in
            [(When::After, Point::Drain, false), (When::Before, Point::Restart, true), (When::Before, Point::Ready, true)]
        {
            let bench = bench().await;
            bench.sim.at(when, point, 1, |sim| sim.kill());
            leaking(&bench, &[TWO]).await;
            deliver(&bench).await;
            assert!(bench.until(mins(5), |bench| bench.sim.deaths() == 1).await, "no call of {point:?}");
            assert_eq!(bench.sim.replica(TWO, |replica, _| replica.drained_since.is_some()), Some(true), "{point:?}");
            exchange(&bench, changed(change));
            let bench = bench.crash_and_restart(None, secs(5)).await.expect("starts again");
            bench.run_for(mins(5)).await;
            let case = format!("{change:?}, died {when:?} {point:?}");
            all_serve(&bench);
            assert!(bench.idle(), "{case}");
            let first = bench.records().into_iter().next().expect("a record");
            match restarted && !restarts(&bench).is_empty() {
                true => is(&first, Outcome::Recovered, Reason::RecoveryConfirmed),
                false => is(&first, Outcome::Interrupted, Reason::Crashed),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_shadow_would_have_done_is_done_once_the_playbook_is_live() {
    let bench = bench_with(Playbook { mode: Mode::Shadow, ..playbook() }).await;
    is(&one_run(&bench).await, Outcome::Shadow, Reason::WouldRemediate);
    exchange(&bench, vec![playbook()]);
    bench.episodes.look_at(None, None);
    assert!(bench.until(mins(2), |bench| !restarts(bench).is_empty()).await, "{:#?}", told(&bench.records()));
    is(&finished(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
}

fn polling(every: u64) -> Playbook {
    let playbook = playbook();
    let query = playbook.recovered.query.clone();
    Playbook {
        matchers: Vec::new(),
        every: Some(Period::from_secs(every)),
        confirm: Confirm::Query { query, threshold: Threshold::Above(0.5) },
        ..playbook
    }
}

#[tokio::test(start_paused = true)]
async fn polls_follow_what_is_written() {
    let bench = bench().await;
    let tracker = TaskTracker::new();
    let polls = poll::start(&bench.context, &bench.episodes, &tracker);
    assert_eq!(tracker.len(), 0, "nothing polls yet");
    bench.sim.leak(TWO);
    bench.run_for(mins(5)).await;
    assert!(bench.records().is_empty(), "nobody looked, and nobody delivered");

    // So rarely that it is not seen within the test; then often.
    exchange(&bench, vec![polling(86_400)]);
    polls.follow();
    polls.follow();
    assert_eq!(tracker.len(), 1, "one loop, however often it is reloaded");
    bench.run_for(mins(5)).await;
    assert!(bench.records().is_empty(), "not due yet");
    exchange(&bench, vec![polling(60)]);
    polls.follow();
    assert!(bench.until(mins(3), |bench| !bench.records().is_empty()).await, "the new period is not followed");
    assert_eq!(bench.records()[0].accepted.trigger, Trigger::Poll);
    is(&finished(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);

    // Taken away: its loop ends, and nobody looks any more.
    exchange(&bench, vec![playbook()]);
    polls.follow();
    bench.run_for(secs(1)).await;
    assert_eq!(tracker.len(), 0, "its loop goes on");
    bench.sim.leak(THREE);
    bench.run_for(mins(5)).await;
    assert!(of(&bench, THREE).is_empty(), "{:#?}", told(&bench.records()));

    // And back again.
    exchange(&bench, vec![polling(60)]);
    polls.follow();
    assert!(bench.until(mins(30), |bench| restarts(bench).len() == 2).await, "{:#?}", told(&bench.records()));
}

/// Somebody sends SIGHUP more often than the playbook polls.
#[tokio::test(start_paused = true)]
async fn reloads_do_not_put_a_poll_off() {
    let bench = bench().await;
    let polls = poll::start(&bench.context, &bench.episodes, &TaskTracker::new());
    bench.sim.leak(TWO);
    bench.run_for(mins(2)).await;
    exchange(&bench, vec![polling(60)]);
    for _ in 0..12 {
        polls.follow();
        bench.run_for(secs(20)).await;
    }
    assert!(!bench.records().is_empty(), "every reload began the wait anew");
}
