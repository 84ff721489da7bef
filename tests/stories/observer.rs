//! When the observer is blind, nothing is done and somebody hears of it.

use std::io::Write as _;

use remediator::decide::decision::Decision;
use remediator::decide::evidence::Reading;
use remediator::decide::playbook::{Confirm, Mode, Threshold};
use remediator::event::PauseScope;
use remediator::reason::{Outcome, Reason};
use remediator::sim::prometheus::Trouble;
use remediator::sim::{Point, When};
use remediator::world::{Sample, Silence};

use crate::kit::*;

/// By a clock that is behind, what Prometheus scraped long ago looks fresh. A rule that was judged in our future tells.
#[tokio::test(start_paused = true)]
async fn an_old_scrape_is_not_fresh_by_a_clock_that_is_behind() {
    for by_query in [false, true] {
        let mut playbook = playbook();
        if by_query {
            let query = "process_open_fds{$target} / process_max_fds{$target}".to_owned();
            playbook.confirm = Confirm::Query { query, threshold: Threshold::Above(0.5) };
        }
        let bench = bench_with(playbook).await;
        leaking(&bench, &[TWO]).await;
        bench.sim.with(|state| state.prometheus.trouble = Trouble::Frozen);
        bench.run_for(secs(90)).await;
        bench.sim.with(|state| state.clock_ahead = jiff::SignedDuration::from_secs(-90));
        deliver(&bench).await;
        let record = finished(&bench).await;
        match by_query {
            false => is(&record, Outcome::UnknownCondition, Reason::ClockUnreliable),
            true => is(&record, Outcome::Refused, Reason::RadiusUnknown),
        }
        untouched(&bench);
    }
}

/// Whom no rule looks at any more cannot be counted as well.
#[tokio::test(start_paused = true)]
async fn rules_that_are_no_longer_judged_count_nobody() {
    let mut playbook = playbook();
    let query = "process_open_fds{$target} / process_max_fds{$target}".to_owned();
    playbook.confirm = Confirm::Query { query, threshold: Threshold::Above(0.5) };
    let bench = bench_with(playbook).await;
    leaking(&bench, &[TWO]).await;
    bench.sim.with(|state| state.prometheus.trouble = Trouble::Stalled);
    bench.run_for(mins(1)).await;
    deliver(&bench).await;
    let record = finished(&bench).await;
    is(&record, Outcome::Refused, Reason::RadiusUnknown);
    assert!(record.detail.contains("last evaluated"), "{}", record.detail);
    untouched(&bench);
}

/// Pause is state that we own and survives restarts; targets vanishing from Prometheus causes zero actions.
#[tokio::test(start_paused = true)]
async fn reddit_16s() {
    let bench = bench().await;
    bench.pause(PauseScope::All);
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    is(&finished(&bench).await, Outcome::Refused, Reason::Paused);
    let bench = bench.crash_and_restart(None, mins(1)).await.expect("starts again");
    bench.run_with_feed(mins(10), mins(1)).await;
    untouched(&bench);
    assert_eq!(up(&bench), ["paused"]);

    bench.sim.with(|state| state.prometheus.trouble = Trouble::NoTargets);
    bench.resume(PauseScope::All);
    bench.run_with_feed(mins(20), mins(1)).await;
    untouched(&bench);
    is(bench.records().last().expect("a record"), Outcome::UnknownCondition, Reason::PrometheusBlind);
}

/// A query error for every target causes zero actions and a page that says the observer is blind.
#[tokio::test(start_paused = true)]
async fn facebook_2010() {
    let bench = bench().await;
    leaking(&bench, &ALL).await;
    bench.sim.with(|state| state.prometheus.trouble = Trouble::Down);
    deliver(&bench).await;
    bench.run_with_feed(mins(30), mins(1)).await;
    untouched(&bench);
    // One per replica, which the route groups into one notification: same alertname, service and reason.
    assert_eq!(up(&bench), ["prometheus_unreachable"; 3]);
    assert_eq!(bench.records().len(), 3, "{:#?}", told(&bench.records()));
}

/// Every way of not knowing is told apart, and none of them acts.
#[tokio::test(start_paused = true)]
async fn every_kind_of_blindness_has_its_name() {
    let cases = [
        (Trouble::Down, Reason::PrometheusUnreachable),
        (Trouble::Slow, Reason::PrometheusTimeout),
        (Trouble::Warnings, Reason::PrometheusWarnings),
        (Trouble::Nan, Reason::InputNotFinite),
        (Trouble::Frozen, Reason::PrometheusBlind),
        (Trouble::NoTargets, Reason::PrometheusBlind),
    ];
    for (trouble, reason) in cases {
        let bench = bench().await;
        leaking(&bench, &[TWO]).await;
        let alerts = bench.sim.with(|state| state.prometheus.firing());
        bench.sim.with(|state| state.prometheus.trouble = trouble);
        bench.run_for(mins(1)).await;
        bench.deliver(alerts).await.expect("durable");
        is(&finished(&bench).await, Outcome::UnknownCondition, reason);
        bench.run_for(mins(1)).await;
        untouched(&bench);
        assert_eq!(up(&bench), [reason.code()], "{trouble:?}");
    }
}

/// The probe's failure is a fact with its text; nothing is decided from it, and it is visible.
#[tokio::test(start_paused = true)]
async fn redis_down_is_zero() {
    // A playbook that acts on too little: a probe whose failure reads as zero would act at once.
    let mut playbook = playbook();
    playbook.confirm = Confirm::Query { query: "process_open_fds{$target}".to_owned(), threshold: Threshold::Below(10.0) };
    let bench = bench_with(playbook).await;
    leaking(&bench, &[TWO]).await;
    bench.sim.replica(TWO, |replica, _| replica.hung = true);
    bench.run_for(secs(20)).await;
    let alert =
        bench.sim.with(|state| state.prometheus.alert("FdLeakFast", &"10.0.0.2:8080".parse().expect("an instance"), None));
    bench.deliver(alert.into_iter().collect()).await.expect("durable");
    let record = finished(&bench).await;
    is(&record, Outcome::UnknownCondition, Reason::TargetDown);
    bench.run_for(mins(1)).await;
    untouched(&bench);
    let Some(Reading::Unknown { why }) = record.evidence.map(|evidence| evidence.reading.clone()) else {
        panic!("no error in the evidence")
    };
    assert!(why.detail.contains("connection refused"), "{}", why.detail);
    let page = paged(&bench, Reason::TargetDown).pop().expect("a page");
    assert!(page.annotations.get("description").is_some_and(|text| text.contains("connection refused")));
}

/// The same for Docker, the balancer and Alertmanager: an error is never an empty list.
#[tokio::test(start_paused = true)]
async fn no_answer_is_never_an_empty_list() {
    for reason in [Reason::DockerUnavailable, Reason::BalancerUnavailable, Reason::AlertmanagerUnavailable] {
        let bench = bench().await;
        leaking(&bench, &[TWO]).await;
        bench.sim.with(|state| match reason {
            Reason::DockerUnavailable => state.engine.down = true,
            Reason::BalancerUnavailable => state.balancer.down = true,
            _ => state.pager.down = true,
        });
        deliver(&bench).await;
        is(&finished(&bench).await, Outcome::Refused, reason);
        untouched(&bench);
        // The page goes out as soon as somebody takes it.
        bench.sim.with(|state| state.pager.down = false);
        bench.run_for(secs(10)).await;
        assert_eq!(up(&bench), [reason.code()]);
        // And the alert, which still fires, is taken up by itself when the outside answers again.
        bench.sim.with(|state| (state.engine.down, state.balancer.down) = (false, false));
        bench.run_for(mins(5)).await;
        assert_eq!(restarts(&bench), [TWO], "{:#?}", told(&bench.records()));
    }
}

/// An empty selector is a start-up error and selects nothing.
#[test]
fn diskerase() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/playbooks/inventory-fd-leak.yml")).expect("shipped");
    let start = text.find("match:").expect("a selector");
    let end = start + text[start..].find('\n').expect("a line");
    for empty in ["match: []", "match:", ""] {
        let file = written(&format!("{}{empty}{}", &text[..start], &text[end..]));
        let errors = remediator::config::load_playbooks(file.path()).expect_err(empty);
        assert!(errors.iter().any(|error| error.place.is_some()), "{errors:?}");
    }
    let mut playbook = playbook();
    playbook.matchers.clear();
    assert!(!playbook.claims(&remediator::alert::LabelSet::from([("alertname", "FdLeakFast"), ("service", "inventory")])));
}

/// As `diskerase`; shadow is the default.
#[tokio::test(start_paused = true)]
async fn draino_29() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/playbooks/inventory-fd-leak.yml")).expect("shipped");
    let file = written(&text.replace("mode: shadow", ""));
    let (mut playbooks, _) = remediator::config::load_playbooks(file.path()).expect("valid without a mode");
    let (unsaid, _) = playbooks.remove(0);
    assert_eq!(unsaid.mode, Mode::Shadow);

    // A live playbook without a selector, as only a bug could make one, touches nothing.
    let mut playbook = playbook();
    playbook.matchers.clear();
    let bench = bench_with(playbook).await;
    leaking(&bench, &ALL).await;
    bench.run_with_feed(mins(30), mins(1)).await;
    untouched(&bench);
    assert_eq!(up(&bench), ["no_playbook"; 3]);
}

/// Vetoes are asked before anything is consumed, and a veto that ends lets the alert through by itself.
#[tokio::test(start_paused = true)]
async fn kured_792() {
    let mut playbook = playbook();
    playbook.veto = vec!["maintenance_window".to_owned()];
    let bench = bench_with(playbook).await;
    leaking(&bench, &[TWO]).await;
    let held = vec![Sample { labels: remediator::alert::LabelSet::default(), value: 1.0 }];
    bench.sim.with(|state| state.prometheus.answers.insert("maintenance_window".to_owned(), held));
    deliver(&bench).await;
    is(&finished(&bench).await, Outcome::Refused, Reason::Vetoed);
    let spent = bench.context.journal.read(|state| state.books.live.clone());
    assert_eq!(spent, Default::default(), "something was consumed under a veto");

    // An error is no leave either.
    bench.sim.with(|state| state.prometheus.answers.remove("maintenance_window"));
    bench.run_for(mins(1)).await;
    is(bench.records().last().expect("a record"), Outcome::Refused, Reason::VetoUnknown);
    untouched(&bench);
    bench.sim.with(|state| state.prometheus.answers.insert("maintenance_window".to_owned(), Vec::new()));
    bench.run_for(mins(3)).await;
    assert_eq!(restarts(&bench), [TWO]);
}

/// Refused and paged: the radius is unknown.
#[tokio::test(start_paused = true)]
async fn am_truncated() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    let alerts = bench.sim.with(|state| state.prometheus.firing());
    bench.deliver_group(alerts, 7).await.expect("durable");
    let record = finished(&bench).await;
    is(&record, Outcome::Refused, Reason::AlertsTruncated);
    assert!(record.detail.contains("cut 7 alerts"), "{}", record.detail);
    bench.run_for(mins(10)).await;
    untouched(&bench);
    assert_eq!(up(&bench), ["alerts_truncated"]);
}

/// A container younger than its start grace is never restarted.
#[tokio::test(start_paused = true)]
async fn autoheal_53() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    // Somebody restarts it; Prometheus has not scraped it since and still says that it fires.
    bench.sim.replica(TWO, |replica, now| {
        replica.habit.level = 1000.0;
        replica.restart(now);
    });
    bench.deliver_firing().await.expect("durable");
    let record = finished(&bench).await;
    is(&record, Outcome::Refused, Reason::StartGrace);
    assert!(record.detail.contains("must be at least 2m"), "{}", record.detail);
    untouched(&bench);
}

/// A silence means hold.
#[tokio::test(start_paused = true)]
async fn a_silence_holds() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    let matcher = "instance=\"10.0.0.2:8080\"".parse().expect("a matcher");
    let silence = Silence { id: "s1".to_owned(), comment: "load test".to_owned(), created_by: "ana".to_owned(), ends_at: None };
    bench.sim.with(|state| state.pager.silences.push((vec![matcher], silence)));
    deliver(&bench).await;
    let record = finished(&bench).await;
    is(&record, Outcome::Refused, Reason::Silenced);
    assert!(matches!(record.decision.map(|explained| explained.decision), Some(Decision::Escalate { .. })));
    untouched(&bench);
    bench.sim.with(|state| state.pager.silences.clear());
    bench.run_for(mins(3)).await;
    assert_eq!(restarts(&bench), [TWO]);
}

/// A look is shared, and whoever comes while one is under way waits for it. What Alertmanager said meanwhile would be older than
/// the evidence, which goes by the look's instant.
#[tokio::test(start_paused = true)]
async fn a_silence_that_is_made_while_a_look_is_waited_for_holds() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    bench.sim.at(When::After, Point::Rules, 1, |sim| sim.stand_still(secs(60)));
    let (looks, world) = (bench.context.looks.clone(), bench.context.world.clone());
    let other = tokio::spawn(async move { looks.look(&world).await });
    tokio::time::sleep(secs(1)).await;
    deliver(&bench).await;
    tokio::time::sleep(secs(10)).await;
    let matcher = "instance=\"10.0.0.2:8080\"".parse().expect("a matcher");
    let silence = Silence { id: "s1".to_owned(), comment: "load test".to_owned(), created_by: "ana".to_owned(), ends_at: None };
    bench.sim.with(|state| state.pager.silences.push((vec![matcher], silence)));
    is(&finished(&bench).await, Outcome::Refused, Reason::Silenced);
    untouched(&bench);
    other.await.expect("a look");
}

/// A forged alert for a healthy replica, and one that names nothing of ours.
#[tokio::test(start_paused = true)]
async fn a_forged_alert_is_cleared() {
    let bench = bench().await;
    let alert = |instance: &str| {
        bench.sim.with(|state| state.prometheus.alert("FdLeakFast", &instance.parse().expect("an instance"), None))
    };
    let forged = alert("10.0.0.1:8080").expect("scraped");
    bench.deliver(vec![forged.clone()]).await.expect("durable");
    is(&finished(&bench).await, Outcome::ConditionCleared, Reason::ConditionQuiet);
    let mut stranger = forged;
    stranger.labels = stranger.labels.with([("instance", "10.0.0.9:8080")]);
    bench.deliver(vec![stranger]).await.expect("durable");
    is(&finished(&bench).await, Outcome::UnmatchedTarget, Reason::ContainerMissing);
    untouched(&bench);
}

/// A look that fails half-way through the evidence fails the decision, not only itself.
#[tokio::test(start_paused = true)]
async fn trouble_in_the_middle_of_the_questions() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    bench.sim.at(When::Before, Point::Instant, 1, |sim| sim.with(|state| state.prometheus.trouble = Trouble::Down));
    deliver(&bench).await;
    is(&finished(&bench).await, Outcome::UnknownCondition, Reason::PrometheusUnreachable);
    untouched(&bench);
}

fn written(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".yml").tempfile().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}
