//! Act or page, never silently; and a page is one per episode and reason, and ends when it is over.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use remediator::alert::{Alert, AlertStatus, LabelSet};
use remediator::decide::playbook::{Budget, Confirm, Mode, Threshold};
use remediator::event::PauseScope;
use remediator::period::Period;
use remediator::pipeline::Context;
use remediator::reason::{Outcome, Reason};
use remediator::sim::bench::Bench;
use remediator::world::{Answer, PageAlert, Pager, Silence, Unanswered, World};
use tokio_util::sync::CancellationToken;

use crate::kit::*;

/// Shadow mode: nothing touched, one record, one page, and nothing flaps over an hour.
#[tokio::test(start_paused = true)]
async fn shadow_only_says_what_it_would_do() {
    let mut playbook = playbook();
    playbook.mode = Mode::Shadow;
    let bench = bench_with(playbook).await;
    // Slow enough to leak on for the whole hour.
    bench.sim.replica(TWO, |replica, now| replica.leaks(now, 600.0, 0.1));
    firing(&bench, &[TWO]).await;
    bench.run_with_feed(hours(1), mins(1)).await;
    untouched(&bench);
    assert_eq!(bench.records().len(), 1, "{:#?}", told(&bench.records()));
    let record = &bench.records()[0];
    is(record, Outcome::Shadow, Reason::WouldRemediate);
    assert!(record.detail.contains("would have drained inventory/inventory-2"), "{}", record.detail);
    assert_eq!(up(&bench), ["would_remediate"]);
    assert_eq!(bench.sim.with(|state| state.distinct_pages().len()), 1);
    assert!(bench.context.journal.read(|state| state.books.live.attempts.is_empty()), "shadow spends nothing of live's");
    // Once somebody has restarted it by hand the page ends.
    bench.sim.replica(TWO, |replica, now| replica.restart(now));
    bench.run_for(mins(30)).await;
    assert!(up(&bench).is_empty(), "{:?}", up(&bench));
}

#[tokio::test(start_paused = true)]
async fn a_page_ends_when_its_target_recovers() {
    let bench = bench().await;
    bench.pause(PauseScope::All);
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    bench.run_for(mins(3)).await;
    assert_eq!(up(&bench), ["paused"]);
    let page = bench.pages().pop().expect("a page");
    assert_eq!(page.labels.get("instance"), Some("10.0.0.2:8080"));
    assert!(page.annotations.get("record").is_some_and(|link| link.starts_with("http://bench/audit/")), "{page:?}");
    assert!(page.annotations.get("commands").is_some_and(|text| text.contains("docker restart inventory-2")), "{page:?}");
    bench.resume(PauseScope::All);
    bench.run_for(secs(1)).await;
    is(&finished(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
    bench.run_for(secs(5)).await;
    assert!(up(&bench).is_empty(), "{:?}", up(&bench));
    assert_eq!(bench.sim.with(|state| state.distinct_pages().len()), 1);
}

/// A budget that is spent may ask for hours of patience. Somebody restarts the replica by hand meanwhile, and whoever was to
/// tell us that the alert is over is lost.
#[tokio::test(start_paused = true)]
async fn a_page_about_a_spent_budget_does_not_outlive_the_trouble() {
    let mut playbook = playbook();
    playbook.guards.budget = vec![Budget { most: 1, per: Period::from_secs(6 * 3600) }];
    let bench = bench_with(playbook).await;
    is(&one_run(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
    bench.run_for(mins(30)).await;
    leaking(&bench, &[ONE]).await;
    deliver(&bench).await;
    is(&finished(&bench).await, Outcome::Refused, Reason::BudgetSpent);
    bench.run_for(mins(1)).await;
    assert_eq!(up(&bench), ["budget_spent"]);
    bench.sim.replica(ONE, |replica, now| replica.restart(now));
    bench.run_for(mins(25)).await;
    assert!(up(&bench).is_empty(), "{:?}", up(&bench));
}

/// How long a page lives is told by Alertmanager's clock, not by ours.
#[tokio::test(start_paused = true)]
async fn a_page_stands_whatever_this_hosts_clock_says() {
    for minutes in [-10, 10] {
        let bench = bench().await;
        leaking(&bench, &[TWO]).await;
        bench.sim.with(|state| state.clock_ahead = jiff::SignedDuration::from_mins(minutes));
        deliver(&bench).await;
        finished(&bench).await;
        untouched(&bench);
        bench.run_for(secs(5)).await;
        assert_eq!(up(&bench).len(), 1, "{minutes} minutes off: {:?}", up(&bench));
        bench.context.journal.pretend_full(true);
        // Cannot be written.
        bench.pause(PauseScope::All);
        bench.run_for(secs(5)).await;
        assert!(up(&bench).contains(&"store_unavailable".to_owned()), "{minutes} minutes off: {:?}", up(&bench));
    }
}

#[tokio::test(start_paused = true)]
async fn one_page_for_an_episode_and_its_reason() {
    let bench = bench().await;
    bench.pause(PauseScope::All);
    leaking(&bench, &[TWO]).await;
    bench.run_with_feed(mins(8), secs(20)).await;
    assert_eq!(bench.sim.with(|state| state.distinct_pages().len()), 1);
    assert_eq!(bench.records().len(), 1, "{:#?}", told(&bench.records()));
    let starts: std::collections::BTreeSet<_> = bench.sim.with(|s| s.pager.sent.iter().map(|(_, page)| page.starts_at).collect());
    assert_eq!(starts.len(), 1, "the page does not look new each time it is sent");
}

#[tokio::test(start_paused = true)]
async fn a_page_that_nobody_took_is_sent_until_somebody_does() {
    let bench = bench().await;
    bench.pause(PauseScope::All);
    leaking(&bench, &[TWO]).await;
    bench
        .sim
        .at(remediator::sim::When::Before, remediator::sim::Point::Raise, 1, |sim| sim.with(|state| state.pager.down = true));
    deliver(&bench).await;
    bench.run_for(mins(2)).await;
    assert!(up(&bench).is_empty());
    bench.sim.with(|state| state.pager.down = false);
    bench.run_for(secs(10)).await;
    assert_eq!(up(&bench), ["paused"]);
}

#[tokio::test(start_paused = true)]
async fn pages_outlive_a_crash() {
    let bench = bench().await;
    bench.pause(PauseScope::All);
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    bench.run_for(mins(1)).await;
    let bench = bench.crash_and_restart(None, mins(10)).await.expect("starts again");
    bench.run_for(secs(10)).await;
    assert_eq!(up(&bench), ["paused"]);
    assert_eq!(bench.records().len(), 1, "{:#?}", told(&bench.records()));
}

/// What shadow has said it would do is done once the playbook is taken live, without a new delivery.
#[tokio::test(start_paused = true)]
async fn a_playbook_taken_live_acts_on_what_shadow_has_said() {
    let live = playbook();
    let bench = bench_with(remediator::decide::playbook::Playbook { mode: Mode::Shadow, ..live.clone() }).await;
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    bench.run_for(mins(3)).await;
    untouched(&bench);
    *bench.context.playbooks.write().expect("the playbooks") = std::sync::Arc::new(vec![live]);
    bench.run_for(mins(3)).await;
    assert_eq!(restarts(&bench), [TWO]);
    assert!(up(&bench).is_empty(), "{:?}", up(&bench));
}

/// A page's labels are cut and made harmless, and two episodes that differ only there are still two pages.
#[tokio::test(start_paused = true)]
async fn targets_that_look_alike_in_a_page_have_one_each() {
    let bench = bench().await;
    let long = "x".repeat(300);
    let instances = [format!("{long}1"), format!("{long}2"), "http://me:one@db:1".to_owned(), "http://me:two@db:1".to_owned()];
    let disks = ["sda", "sdb"].map(|device| LabelSet::from([("alertname", "DiskFull"), ("instance", "a"), ("device", device)]));
    let labels = instances.iter().map(|name| LabelSet::from([("alertname", "Other"), ("instance", name.as_str())])).chain(disks);
    let alert = |labels| Alert {
        status: AlertStatus::Firing,
        labels,
        annotations: LabelSet::default(),
        starts_at: None,
        generator_url: String::new(),
    };
    bench.deliver(labels.map(alert).collect()).await.expect("durable");
    bench.run_for(mins(2)).await;
    assert_eq!(up(&bench), ["no_playbook"; 6], "{:#?}", bench.pages());
    // Each leads to its own record.
    let links: BTreeSet<String> =
        bench.pages().iter().filter_map(|page| page.annotations.get("record").map(str::to_owned)).collect();
    assert_eq!(links.len(), 6);
    assert!(!format!("{:?}", bench.pages()).contains("me:one"), "made harmless all the same");
}

/// What is no longer so is not paged any more, although nobody can say what is.
#[tokio::test(start_paused = true)]
async fn the_page_of_a_pause_ends_with_it_while_prometheus_cannot_say() {
    let mut by_query = playbook();
    let query = "process_open_fds{$target} / process_max_fds{$target}".to_owned();
    by_query.confirm = Confirm::Query { query, threshold: Threshold::Above(0.5) };
    let bench = bench_with(by_query).await;
    bench.pause(PauseScope::All);
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    is(&finished(&bench).await, Outcome::Refused, Reason::Paused);
    // Out of descriptors it cannot count them any more: an input is missing, which a moment might settle.
    bench.sim.replica(TWO, |replica, now| replica.leaks(now, 2_000.0, 0.0));
    bench.run_for(mins(5)).await;
    assert_eq!(up(&bench), ["paused"], "it is still so");
    bench.resume(PauseScope::All);
    bench.run_for(mins(5)).await;
    assert_eq!(up(&bench), ["input_missing"]);
    untouched(&bench);
}

/// Thousands may stand: what stands is not told again because something else changed, only when its time comes.
#[tokio::test(start_paused = true)]
async fn a_page_that_stands_is_told_again_by_the_clock_and_not_by_other_pages() {
    let bench = bench().await;
    bench.pause(PauseScope::All);
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    bench.run_for(secs(90)).await;
    let times = |alert: &str| {
        let about = |page: &PageAlert| page.labels.get("alert").unwrap_or("leak") == alert && page.ends_at.is_none();
        bench.sim.with(|state| state.pager.sent.iter().filter(|(_, page)| about(page)).count())
    };
    let before = times("leak");
    assert!(before >= 2, "raised, and renewed a minute later");
    // Right after a renewal, so that the next one is most of a minute away.
    assert!(bench.until(mins(2), |_| times("leak") > before).await, "it was not renewed");
    let before = times("leak");
    for name in ["One", "Other", "Third"] {
        bench.deliver(vec![nobodys(name)]).await.expect("durable");
        bench.run_for(secs(5)).await;
        assert_eq!(times(name), 1, "told at once");
    }
    assert_eq!(times("leak"), before, "told again although nothing about it is new");
    bench.run_for(mins(1)).await;
    assert_eq!((times("leak"), times("One")), (before + 1, 2), "all that stand are told every minute");
    assert_eq!(up(&bench).len(), 4);
    // Its end is told at once, and the others are not.
    bench.resume(PauseScope::All);
    let recovered = |bench: &Bench| bench.records().iter().any(|record| record.outcome == Some(Outcome::Recovered));
    assert!(bench.until(mins(5), recovered).await, "{:#?}", told(&bench.records()));
    let before = times("One");
    bench.run_for(secs(1)).await;
    assert_eq!((up(&bench), times("One")), (vec!["no_playbook".to_owned(); 3], before));
}

/// An alert that no playbook is for.
fn nobodys(name: &str) -> Alert {
    Alert {
        status: AlertStatus::Firing,
        labels: LabelSet::from([("alertname", name)]),
        annotations: LabelSet::default(),
        starts_at: None,
        generator_url: String::new(),
    }
}

/// An Alertmanager that turns every request down that has a certain page in it.
struct Picky(Arc<dyn Pager>);

#[async_trait]
impl Pager for Picky {
    async fn raise(&self, alerts: &[PageAlert]) -> Answer<()> {
        if alerts.iter().any(|page| page.labels.get("alert") == Some("Bad")) {
            return Err(Unanswered::new(Reason::AlertmanagerUnavailable, "HTTP 400: that one, no"));
        }
        self.0.raise(alerts).await
    }

    async fn silences(&self, labels: &LabelSet) -> Answer<Vec<Silence>> {
        self.0.silences(labels).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_refused_takes_none_down_with_it() {
    let first = bench().await;
    first.stop().await;
    let world = first.sim.world();
    let world = World { pager: Arc::new(Picky(world.pager.clone())), ..world };
    let context = Context { world, shutdown: CancellationToken::new(), ..first.context.clone() };
    let bench = Bench::process(first.sim.clone(), context).await.expect("starts");
    bench.deliver(vec![nobodys("Good")]).await.expect("durable");
    bench.run_for(secs(5)).await;
    assert_eq!(up(&bench), ["no_playbook"]);
    bench.deliver(vec![nobodys("Bad")]).await.expect("durable");
    // Longer than an alert lives that nobody tells of.
    bench.run_for(mins(8)).await;
    let names: Vec<_> = bench.pages().iter().filter_map(|page| page.labels.get("alert").map(str::to_owned)).collect();
    assert_eq!(names, ["Good"]);
}
