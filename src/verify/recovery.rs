//! The looks: settle, then ask the recovery query until enough fresh samples agree or the time is up.
//!
//! A look counts only on a scrape that no look before it has seen, of a process (or container) that started after the
//! action. Alertmanager's "resolved" plays no part, nor does the rule turning false.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::act::Acted;
use crate::alert::LabelSet;
use crate::decide::playbook::Playbook;
use crate::detect::confirm::{one_value, sample_time, target_labels};
use crate::edge::promql::{self, Template};
use crate::moment::Moment;
use crate::pipeline::Context;
use crate::reason::Reason;
use crate::target::Target;
use crate::verify::{Judgement, Look, Verdict};
use crate::words;
use crate::world::{Answer, Unanswered};

/// How often Prometheus is asked whether there is a new scrape.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Clock ticks, rounding of `process_start_time_seconds` to seconds, and skew between two clocks of one host.
const START_SLACK: SignedDuration = SignedDuration::from_secs(2);
/// Looks kept in the record.
const MAX_LOOKS: usize = 50;

/// Looks until there is a verdict. Never fails: what cannot be seen is `Unknown`.
pub async fn verify(context: &Context, labels: &LabelSet, acted: &Acted) -> Judgement {
    let spec = &acted.plan.recovery;
    let named = target_labels(&acted.plan.replica_label, &acted.plan.target, labels);
    let mut looks: Vec<Look> = Vec::new();
    context.world.clock.sleep(spec.settle.get()).await;
    // By a clock that went back the time would not be up for as long.
    let begun = Moment::now(&*context.world.clock);
    loop {
        let now = context.world.clock.now();
        let seen = looks.iter().filter(|look| look.counted).filter_map(|look| look.sample_at).max();
        let look = look(context, acted, &named, seen, now).await;
        // A look that brings nothing new is not worth a line, unless it says something else than the last.
        if look.counted || looks.last().is_none_or(|last| last.detail != look.detail) {
            looks.push(look);
        }
        if let Some(judgement) = judge(spec.below, spec.looks, &looks) {
            return judgement;
        }
        if begun.age(now) >= spec.within.signed() || looks.len() >= MAX_LOOKS {
            return time_is_up(spec.below, looks, spec.within);
        }
        context.world.clock.sleep(ASK_EVERY).await;
    }
}

/// Whether the recovery query is below its threshold now. The caller has made sure that its inputs are fresh.
pub async fn below_now(context: &Context, playbook: &Playbook, target: &Target, labels: &LabelSet, now: Timestamp) -> bool {
    let spec = &playbook.recovered;
    let named = target_labels(&playbook.replica_label, target, labels);
    let Ok(query) = Template::parse(&spec.query).and_then(|template| template.bind(&named)) else { return false };
    one_value(&*context.world.metrics, "the recovery query", &query, now).await.is_ok_and(|value| value < spec.below)
}

async fn look(context: &Context, acted: &Acted, named: &[(&str, &str)], seen: Option<Timestamp>, now: Timestamp) -> Look {
    let mut look = Look { at: now, value: None, sample_at: None, counted: false, detail: String::new() };
    match sample(context, acted, named, now).await {
        Err(why) => look.detail = why.detail,
        Ok((value, sample_at)) => {
            look.value = Some(value).filter(|value| value.is_finite());
            look.sample_at = Some(sample_at);
            look.counted = look.value.is_some() && sample_at > acted.acted_at && seen.is_none_or(|seen| sample_at > seen);
            look.detail = match look.value {
                None => format!("the recovery query is {value}"),
                Some(_) if sample_at <= acted.acted_at => "no scrape since the action yet".to_owned(),
                Some(_) if !look.counted => "no new scrape yet".to_owned(),
                Some(value) => format!("{} on a scrape of {sample_at}", words::number(value)),
            };
        }
    }
    look
}

/// The query's value, and the oldest of its metrics' newest samples; an error unless the process is a new one.
async fn sample(context: &Context, acted: &Acted, named: &[(&str, &str)], now: Timestamp) -> Answer<(f64, Timestamp)> {
    let metrics = &*context.world.metrics;
    let template = Template::parse(&acted.plan.recovery.query).map_err(unbindable)?;
    let mut oldest = Timestamp::MAX;
    for metric in template.metrics() {
        oldest = oldest.min(sample_time(metrics, &metric, named, now).await?);
    }
    let query = template.bind(named).map_err(unbindable)?;
    let value = one_value(metrics, "the recovery query", &query, now).await?;
    started_after(context, acted, named, now).await?;
    Ok((value, oldest))
}

/// The scraped process started after the action; without `process_start_time_seconds` the container did.
async fn started_after(context: &Context, acted: &Acted, named: &[(&str, &str)], now: Timestamp) -> Answer<()> {
    const METRIC: &str = "process_start_time_seconds";
    let query = promql::exact(METRIC, named).map_err(unbindable)?;
    let series = context.world.metrics.instant(&query, now).await?;
    let started = match series.as_slice() {
        [one] if one.value.is_finite() => Timestamp::from_millisecond((one.value * 1000.0) as i64)
            .map_err(|error| Unanswered::new(Reason::PrometheusMalformed, format!("{METRIC} is {}: {error}", one.value)))?,
        _ => {
            let container = context.world.engine.inspect(&acted.plan.container).await?;
            container
                .started_at
                .ok_or_else(|| Unanswered::new(Reason::DockerUnavailable, "the Engine does not say when the container started"))?
        }
    };
    if started.duration_since(acted.acted_at) >= -START_SLACK {
        return Ok(());
    }
    Err(Unanswered::new(Reason::InputStale, format!("the samples are of a process that started at {started}, before the action")))
}

/// A verdict as soon as the newest `looks` counted looks agree.
fn judge(below: f64, looks_needed: u32, looks: &[Look]) -> Option<Judgement> {
    let counted: Vec<f64> = looks.iter().filter(|look| look.counted).filter_map(|look| look.value).collect();
    let needed = looks_needed.max(1) as usize;
    let newest = counted.len().checked_sub(needed).map(|from| &counted[from..])?;
    let told = newest.iter().map(|value| words::number(*value)).collect::<Vec<_>>().join(", ");
    let limit = words::number(below);
    if newest.iter().all(|value| *value < below) {
        let detail = format!("{needed} fresh looks in a row below {limit}: {told}");
        return Some(judgement(Verdict::Recovered, Reason::RecoveryConfirmed, detail, looks));
    }
    if newest.iter().all(|value| *value >= below) {
        let detail = format!("{needed} fresh looks in a row not below {limit}: {told}");
        return Some(judgement(Verdict::StillFiring, Reason::RecoveryAbove, detail, looks));
    }
    None
}

fn time_is_up(below: f64, looks: Vec<Look>, within: crate::period::Period) -> Judgement {
    let counted = looks.iter().filter(|look| look.counted).count();
    match looks.iter().rev().find(|look| look.counted).and_then(|look| look.value) {
        Some(value) if value >= below => {
            let detail = format!("{} after {within}, must be below {}", words::number(value), words::number(below));
            judgement(Verdict::StillFiring, Reason::RecoveryAbove, detail, &looks)
        }
        _ => {
            let last = looks.last().map(|look| look.detail.clone()).unwrap_or_default();
            let detail = format!("{counted} fresh looks within {within}; last: {last}");
            judgement(Verdict::Unknown, Reason::RecoveryUnseen, detail, &looks)
        }
    }
}

fn judgement(verdict: Verdict, reason: Reason, detail: String, looks: &[Look]) -> Judgement {
    Judgement { verdict, reason, detail, looks: looks.to_vec() }
}

fn unbindable(error: promql::PromqlError) -> Unanswered {
    Unanswered::new(Reason::PrometheusRefused, format!("the recovery query cannot be bound to this target: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(values: &[f64]) -> Vec<Look> {
        let look = |value: &f64| Look {
            at: Timestamp::UNIX_EPOCH,
            value: Some(*value),
            sample_at: None,
            counted: true,
            detail: String::new(),
        };
        values.iter().map(look).collect()
    }

    #[test]
    fn only_looks_in_a_row_give_a_verdict() {
        let verdict = |values: &[f64]| judge(0.3, 3, &looks(values)).map(|judgement| judgement.verdict);
        assert_eq!(verdict(&[0.1, 0.1]), None);
        assert_eq!(verdict(&[0.1, 0.1, 0.1]), Some(Verdict::Recovered));
        assert_eq!(verdict(&[0.1, 0.4, 0.1]), None);
        assert_eq!(verdict(&[0.4, 0.1, 0.1, 0.1]), Some(Verdict::Recovered));
        assert_eq!(verdict(&[0.3, 0.3, 0.3]), Some(Verdict::StillFiring));
        assert_eq!(time_is_up(0.3, looks(&[0.1, 0.4]), crate::period::Period::ZERO).verdict, Verdict::StillFiring);
        assert_eq!(time_is_up(0.3, looks(&[0.1, 0.1]), crate::period::Period::ZERO).verdict, Verdict::Unknown);
        assert_eq!(time_is_up(0.3, Vec::new(), crate::period::Period::ZERO).verdict, Verdict::Unknown);
    }
}
