//! An order to stop, at every step of a run: a safe point within the stated bound, and nothing is left drained.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use remediator::act::hands::Hands;
use remediator::act::steps::safe_point_within;
use remediator::detect::look::Looks;
use remediator::detect::rush::Rush;
use remediator::episodes::Episodes;
use remediator::pipeline::Context;
use remediator::reason::Outcome;
use remediator::sim::bench::Bench;
use remediator::sim::docker::RestartFault;
use remediator::sim::{Point, When};
use remediator::world::{AlertingRule, Answer, Metrics, Sample, ScrapeTarget, World};

use tokio_util::sync::CancellationToken;

use crate::kit::*;

/// The settings' own time-outs.
const ENGINE: Duration = secs(5);
const BALANCER: Duration = secs(2);

fn bound() -> Duration {
    safe_point_within(playbook().restart_grace_seconds, ENGINE, BALANCER)
}

/// Ends as the process would: every run at a safe point, and the second net thrown. Virtual time, so the bound is exact.
async fn stops_in_time(bench: &Bench, case: &str) {
    bench.context.shutdown.cancel();
    assert!(tokio::time::timeout(bound(), bench.episodes.stopped()).await.is_ok(), "{case}: not within {:?}", bound());
    bench.stop().await;
}

#[test]
fn the_bound_is_what_the_runbook_says() {
    assert_eq!(bound(), Duration::from_millis(101_700));
}

#[tokio::test(start_paused = true)]
async fn every_step_comes_to_a_safe_point_and_the_next_process_goes_on() {
    let points = [Point::Rules, Point::Inspect, Point::Logs, Point::Drain, Point::Servers, Point::Restart, Point::Ready];
    for (when, point) in points.into_iter().flat_map(|point| [(When::Before, point), (When::After, point)]) {
        // Each is called several times in a run: evidence, last looks, the drain's and the container's end.
        for nth in 1..=4 {
            let bench = bench().await;
            bench.sim.replica(TWO, |replica, _| {
                replica.empties_in = Some(secs(10));
                replica.stops_in = secs(9);
                replica.starts_in = secs(20);
            });
            leaking(&bench, &[TWO]).await;
            let shutdown = bench.context.shutdown.clone();
            bench.sim.at(when, point, nth, move |_| shutdown.cancel());
            deliver(&bench).await;
            let case = format!("{when:?} {point:?} {nth}");
            bench.until(mins(2), |bench| bench.context.shutdown.is_cancelled()).await;
            stops_in_time(&bench, &case).await;
            all_serve(&bench);
            let bench = bench.crash_and_restart(None, secs(5)).await.expect("starts again");
            bench.run_with_feed(mins(12), mins(1)).await;
            assert_eq!(restarts(&bench), [TWO], "{case}: {:#?}", told(&bench.records()));
            assert_eq!(bench.records().last().and_then(|record| record.outcome), Some(Outcome::Recovered), "{case}");
            all_serve(&bench);
        }
    }
}

/// The worst that the bound counts with: the Engine never answers, and the balancer refuses to readmit.
#[tokio::test(start_paused = true)]
async fn the_worst_case_is_within_the_bound_too() {
    for fault in [RestartFault::SilentDone, RestartFault::SilentUndone] {
        let bench = bench().await;
        leaking(&bench, &[TWO]).await;
        bench.sim.with(|state| (state.engine.restart, state.balancer.refuses_ready) = (fault, true));
        let shutdown = bench.context.shutdown.clone();
        bench.sim.at(When::Before, Point::Restart, 1, move |_| shutdown.cancel());
        deliver(&bench).await;
        assert!(bench.until(mins(2), |bench| bench.context.shutdown.is_cancelled()).await);
        stops_in_time(&bench, &format!("{fault:?}")).await;
        // Nobody could readmit it; the journal knows, and the next process does.
        bench.sim.with(|state| (state.engine.restart, state.balancer.refuses_ready) = (RestartFault::None, false));
        let bench = bench.crash_and_restart(None, secs(5)).await.expect("starts again");
        bench.run_for(secs(15)).await;
        all_serve(&bench);
    }
}

/// A Prometheus that takes the question and never answers.
struct Deaf;

#[async_trait]
impl Metrics for Deaf {
    async fn instant(&self, _query: &str, _at: Timestamp) -> Answer<Vec<Sample>> {
        std::future::pending().await
    }

    async fn alerting_rules(&self) -> Answer<Vec<AlertingRule>> {
        std::future::pending().await
    }

    async fn scrape_targets(&self) -> Answer<Vec<ScrapeTarget>> {
        std::future::pending().await
    }
}

/// Nothing is consumed by asking, so nobody has to wait for the answer.
#[tokio::test(start_paused = true)]
async fn a_question_without_an_answer_holds_nothing_up() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    let world = World { metrics: Arc::new(Deaf), ..bench.sim.world() };
    // The bench's own process, which sees well, must not take it over.
    bench.context.shutdown.cancel();
    let context = Context {
        world,
        looks: Looks::default(),
        rush: Rush::default(),
        hands: Hands::default(),
        shutdown: CancellationToken::new(),
        ..bench.context.clone()
    };
    let episodes = Episodes::new(context.clone());
    let group = remediator::alert::AlertGroup {
        receiver: "remediator".to_owned(),
        group_key: "{}:{}".to_owned(),
        truncated: 0,
        alerts: bench.sim.with(|state| state.prometheus.firing()),
    };
    let taken = remediator::detect::take_in(&context, group).await.expect("durable");
    taken.touched.iter().for_each(|key| episodes.look(key));
    bench.run_for(mins(1)).await;
    context.shutdown.cancel();
    assert!(tokio::time::timeout(secs(1), episodes.stopped()).await.is_ok(), "held up by Prometheus");
    assert!(!bench.idle(), "left open for the next process");
    let bench = bench.crash_and_restart(None, secs(5)).await.expect("starts again");
    bench.run_for(mins(5)).await;
    assert_eq!(restarts(&bench), [TWO]);
}
