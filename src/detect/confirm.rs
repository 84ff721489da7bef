//! Is it true, right now, here? Asks Prometheus again at one pinned instant, and gathers what else a decision needs.
//!
//! Promises: nothing is changed; every question that was not answered stays in the evidence as an error with its cause;
//! `Quiet` is said only when it is proven, because "no series" means healthy, or no data, or NaN.
//!
//! The questions go out together, but Prometheus' rules and targets, Docker and the balancer are asked a few
//! milliseconds apart; what may have changed in between is looked at again right before each step of Act. What is asked about
//! all replicas at once is shared with whoever asks at the same time (`look`).

use jiff::{SignedDuration, Timestamp};

use crate::alert::{LabelSet, Overlaid};
use crate::decide::evidence::{Evidence, NoReplica, Reading, Veto};
use crate::decide::playbook::{Confirm, Playbook, Threshold};
use crate::detect::look::{Look, Looks};
use crate::detect::shelf::{Rules, Shelf};
use crate::detect::{lags, siblings};
use crate::edge::promql::{self, Template};
use crate::event::Accepted;
use crate::moment::Moment;
use crate::mutant::{Mutant, off};
use crate::reason::Reason;
use crate::target::{self, LABEL_INSTANCE, Target};
use crate::world::{AlertingRule, Answer, Metrics, RuleAlertState, ScrapeTarget, Unanswered, World};

/// How much later than its interval a rule's evaluation may be before the rule counts as stale.
const EVALUATION_SLACK: SignedDuration = SignedDuration::from_secs(5);
/// How much later than two scrapes a scrape may have been before Prometheus counts as blind.
pub(super) const SCRAPE_SLACK: SignedDuration = SignedDuration::from_secs(1);
/// How much later than the pinned instant a scrape or an evaluation may have been: the answer's own time, and two clocks
/// that are kept. A clock that is further behind makes whatever is old look fresh.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(15);

/// The question: which alert, about which target, under which playbook.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    pub accepted: &'a Accepted,
    pub target: &'a Target,
    pub playbook: &'a Playbook,
    /// Every playbook of the same service: a replica that is sick under any of them counts as sick.
    pub siblings: &'a [Playbook],
}

/// Gathers the evidence, as of a moment after the call.
pub async fn confirm(world: &World, looks: &Looks, question: Question<'_>) -> (Evidence, Moment) {
    let Question { accepted, target, playbook, .. } = question;
    let labels = &accepted.alert.labels;
    // Before anything else: whoever shares a look may wait for it, and the evidence is as old as its instant says. What was
    // answered earlier would look younger than it is.
    let look = looks.look(world).await;
    let at = look.at();
    let ((reading, by), replica, vetoes, silences) = tokio::join!(
        read(&*world.metrics, question, &look),
        replica(world, question, &look),
        vetoes(&*world.metrics, playbook, target, labels, at),
        world.pager.silences(labels),
    );
    let reading = match (reading, &replica) {
        (Reading::Firing { value, query }, Ok(replica)) => {
            match lags::lags(&*world.metrics, question, &look.rules, replica, at).await {
                Some(why) => Reading::Unknown { why },
                None => Reading::Firing { value, query },
            }
        }
        (reading, _) => reading,
    };
    // A silence of the alert that fires means hold, too.
    let silences = match (silences, by) {
        (Ok(mut found), Some(labels)) => world.pager.silences(&labels).await.map(|more| {
            found.extend(more.into_iter().filter(|silence| !found.contains(silence)).collect::<Vec<_>>());
            found
        }),
        (silences, _) => silences,
    };
    let evidence = Evidence {
        at,
        labels: labels.clone(),
        target: target.clone(),
        truncated: accepted.truncated,
        reading,
        replica,
        siblings: siblings::siblings(question, &look),
        listed: match &look.rules {
            Ok(rules) => Ok(siblings::sick(question, rules, &target.instance).alerts),
            Err(why) => Err(why.clone()),
        },
        silences,
        vetoes,
    };
    (evidence, if off(Mutant::SteadyAge) { Moment::now(&*world.clock) } else { look.moment })
}

/// The matchers that name the target to Prometheus: the replica label, and the job when the alert has one. A label with
/// an empty value is none, to Prometheus as well.
pub fn target_labels<'a>(replica_label: &'a str, target: &'a Target, labels: &'a LabelSet) -> Vec<(&'a str, &'a str)> {
    let mut named = vec![(replica_label, target.instance.as_str())];
    if let Some(job) = labels.get("job").filter(|job| replica_label != "job" && !job.is_empty()) {
        named.push(("job", job));
    }
    named
}

/// The reading, and the labels of the alert that gives it when that is another than the delivered one.
async fn read(metrics: &dyn Metrics, question: Question<'_>, look: &Look) -> (Reading, Option<LabelSet>) {
    let answer = async {
        let scrape = scraped(question, &look.scrapes, look.at())?;
        match &question.playbook.confirm {
            Confirm::Rule { inputs } => by_rule(metrics, question, look, scrape, inputs).await,
            Confirm::Query { query, threshold } => {
                by_query(metrics, question, scrape, query, *threshold, look.at()).await.map(|reading| (reading, None))
            }
        }
    };
    answer.await.unwrap_or_else(|why| (Reading::Unknown { why }, None))
}

/// The target's scrape, provided that Prometheus still looks at it.
fn scraped<'a>(question: Question<'_>, scrapes: &'a Answer<Shelf<ScrapeTarget>>, at: Timestamp) -> Answer<&'a ScrapeTarget> {
    let scrapes = scrapes.as_ref().map_err(Clone::clone)?;
    if scrapes.all().is_empty() {
        return Err(Unanswered::new(Reason::PrometheusBlind, "Prometheus has no active targets at all"));
    }
    let wanted = target_labels(&question.playbook.replica_label, question.target, &question.accepted.alert.labels);
    let mut found = scrapes.find(&question.playbook.replica_label, question.target.instance.as_str());
    found.retain(|scrape| wanted.iter().all(|(name, value)| scrape.labels.get(name) == Some(*value)));
    let scrape = match found.as_slice() {
        [one] => *one,
        [] => {
            let detail = format!("none of Prometheus' {} active targets is {}", scrapes.all().len(), question.target);
            return Err(Unanswered::new(Reason::TargetNotScraped, detail));
        }
        many => {
            let detail = format!("{} of Prometheus' active targets are {}", many.len(), question.target);
            return Err(Unanswered::new(Reason::InputAmbiguous, detail));
        }
    };
    let allowed = seconds(2.0 * scrape.interval_seconds) + SCRAPE_SLACK;
    match scrape.last_scrape {
        Some(last) if last.duration_since(at) > CLOCK_SKEW && !off(Mutant::Freshness) => {
            let ahead = crate::words::roughly(last.duration_since(at));
            let detail = format!("Prometheus last scraped {} {ahead} in the future: this clock is behind", question.target);
            Err(Unanswered::new(Reason::ClockUnreliable, detail))
        }
        Some(last) if at.duration_since(last) <= allowed || off(Mutant::Freshness) => Ok(scrape),
        Some(last) => {
            let age = crate::words::roughly(at.duration_since(last));
            let detail = format!(
                "Prometheus last scraped {} {age} ago, must be within {}",
                question.target,
                crate::words::roughly(allowed)
            );
            Err(Unanswered::new(Reason::PrometheusBlind, detail))
        }
        None => Err(Unanswered::new(Reason::PrometheusBlind, format!("Prometheus has not scraped {} yet", question.target))),
    }
}

/// What one rule of the alert's name says of the target.
struct RuleView {
    listed: Option<RuleAlertState>,
    value: Option<f64>,
    query: String,
}

async fn by_rule(
    metrics: &dyn Metrics,
    question: Question<'_>,
    look: &Look,
    scrape: &ScrapeTarget,
    inputs: &[String],
) -> Answer<(Reading, Option<LabelSet>)> {
    let alertname = question.accepted.alert.labels.alertname();
    let at = look.at();
    let rules = look.rules.as_ref().map_err(Clone::clone)?;
    let named: Vec<_> = rules.iter().filter(|rule| rule.name == alertname).collect();
    if named.is_empty() {
        return Err(Unanswered::new(Reason::RuleMissing, format!("Prometheus has no alerting rule named {alertname:?}")));
    }
    let mut views = Vec::new();
    for rule in named {
        evaluated(rule, at)?;
        views.push(view(look, question, rules, rule, &question.accepted.alert.labels).await?);
    }
    if let Some(RuleView { value: Some(value), query, .. }) =
        views.iter().find(|view| view.listed == Some(RuleAlertState::Firing) && view.value.is_some())
    {
        return Ok((Reading::Firing { value: *value, query: query.clone() }, None));
    }
    if let Some((reading, labels)) = by_another_rule(look, question, rules).await? {
        return Ok((reading, Some(labels)));
    }
    if let Some(mixed) = views.iter().find(|view| view.listed.is_some() || view.value.is_some()) {
        return Err(disagreement(alertname, mixed));
    }
    // Silence of this alert is no silence while Prometheus lists another one for the target.
    let alerts = siblings::sick(question, rules, &question.target.instance).alerts;
    if !alerts.is_empty() {
        let detail = format!("{alertname} is not listed for this target, but {} is", alerts.join(", "));
        return Err(Unanswered::new(Reason::SignalsMixed, detail));
    }
    fresh_inputs(metrics, question, scrape, inputs, at).await?;
    Ok((Reading::Quiet { query: views.into_iter().map(|view| view.query).next().unwrap_or_default() }, None))
}

/// Whatever else of the playbook's fires for the target: the same sick replica, hence the same episode. A process that
/// runs out of descriptors no longer satisfies the rule that saw it leak, and labels may be rewritten on their way here.
async fn by_another_rule(look: &Look, question: Question<'_>, rules: &Rules) -> Answer<Option<(Reading, LabelSet)>> {
    let Question { accepted, target, playbook, .. } = question;
    let wanted = target_labels(&playbook.replica_label, target, &accepted.alert.labels);
    let named = rules.alerts(&playbook.replica_label, target.instance.as_str());
    for (rule, alert) in named.filter(|(_, alert)| alert.state == RuleAlertState::Firing) {
        let ours = wanted.iter().all(|(name, value)| alert.labels.get(name) == Some(*value));
        if !ours || !playbook.claims(&Overlaid { over: &alert.labels, under: &accepted.alert.labels }) {
            continue;
        }
        // As it is delivered: with the external labels of the alert that we have.
        let delivered = accepted.alert.labels.with(alert.labels.iter());
        evaluated(rule, look.at())?;
        if let RuleView { value: Some(value), query, .. } = view(look, question, rules, rule, &delivered).await? {
            return Ok(Some((Reading::Firing { value, query }, delivered)));
        }
    }
    Ok(None)
}

fn disagreement(alertname: &str, view: &RuleView) -> Unanswered {
    match (view.listed, view.value) {
        (Some(RuleAlertState::Pending), Some(_)) => {
            Unanswered::new(Reason::AlertPending, format!("Prometheus lists {alertname} as pending for this target"))
        }
        (Some(state), None) => {
            let state = format!("{state:?}").to_lowercase();
            let detail = format!("Prometheus lists {alertname} as {state}, but its expression is empty now");
            Unanswered::new(Reason::SignalsMixed, detail)
        }
        _ => {
            let detail = format!("the expression of {alertname} holds now, but Prometheus does not list the alert");
            Unanswered::new(Reason::SignalsMixed, detail)
        }
    }
}

/// The rule is healthy and was evaluated lately.
pub(super) fn evaluated(rule: &AlertingRule, at: Timestamp) -> Answer<()> {
    if rule.health == "err" {
        return Err(Unanswered::new(Reason::RuleStale, format!("Prometheus fails to evaluate {}", rule.name)));
    }
    let allowed = seconds(2.0 * rule.interval_seconds) + EVALUATION_SLACK;
    match rule.last_evaluation {
        // A Prometheus that no longer scrapes goes on judging, so that this tells what no scrape can.
        Some(last) if last.duration_since(at) > CLOCK_SKEW && !off(Mutant::Freshness) => {
            let ahead = crate::words::roughly(last.duration_since(at));
            let detail = format!("Prometheus last evaluated {} {ahead} in the future: this clock is behind", rule.name);
            Err(Unanswered::new(Reason::ClockUnreliable, detail))
        }
        Some(last) if at.duration_since(last) <= allowed || off(Mutant::Freshness) => Ok(()),
        Some(last) => {
            let age = crate::words::roughly(at.duration_since(last));
            Err(Unanswered::new(Reason::RuleStale, format!("Prometheus last evaluated {} {age} ago", rule.name)))
        }
        None => Err(Unanswered::new(Reason::RuleStale, format!("Prometheus has not evaluated {} yet", rule.name))),
    }
}

async fn view(look: &Look, question: Question<'_>, rules: &Rules, rule: &AlertingRule, delivered: &LabelSet) -> Answer<RuleView> {
    let (replica, instance) = (&question.playbook.replica_label, question.target.instance.as_str());
    // Every label that Prometheus has must be in the payload; external labels are in the payload only, and a metric's name is not.
    let ours = |labels: &LabelSet| {
        labels.iter().filter(|(name, _)| *name != "__name__").all(|(name, value)| delivered.get(name) == Some(value))
    };
    let listed = rules.alerts(replica, instance).filter(|(by, alert)| std::ptr::eq(*by, rule) && ours(&alert.labels));
    let listed = listed.map(|(_, alert)| alert.state).max_by_key(|state| *state == RuleAlertState::Firing);
    let mut series = look.series(&rule.query, replica, instance).await?;
    series.retain(|sample| ours(&sample.labels));
    let value = match series.as_slice() {
        [] => None,
        [one] if one.value.is_finite() => Some(one.value),
        [one] => return Err(not_finite(&rule.name, one.value)),
        many => {
            let detail = format!("{} series of {} name this target", many.len(), rule.name);
            return Err(Unanswered::new(Reason::InputAmbiguous, detail));
        }
    };
    Ok(RuleView { listed, value, query: rule.query.clone() })
}

/// Every input is one series, finite and, by the time of its sample, younger than two scrapes.
async fn fresh_inputs(
    metrics: &dyn Metrics,
    question: Question<'_>,
    scrape: &ScrapeTarget,
    inputs: &[String],
    at: Timestamp,
) -> Answer<()> {
    if scrape.health != "up" {
        let detail = format!("Prometheus' last scrape of {} failed: {}", question.target, scrape.last_error);
        return Err(Unanswered::new(Reason::TargetDown, detail));
    }
    let named = target_labels(&question.playbook.replica_label, question.target, &question.accepted.alert.labels);
    for input in inputs {
        let query = promql::exact(input, &named).map_err(unbindable)?;
        let value = one_value(metrics, input, &query, at).await?;
        if !value.is_finite() {
            return Err(not_finite(input, value));
        }
        fresh(metrics, input, &named, scrape.interval_seconds, at).await?;
    }
    Ok(())
}

/// The time of the metric's newest sample, provided it is younger than two scrapes.
///
/// An instant vector carries the time of the evaluation, so the sample's own time needs `timestamp()`.
async fn fresh(
    metrics: &dyn Metrics,
    metric: &str,
    named: &[(&str, &str)],
    interval_seconds: f64,
    at: Timestamp,
) -> Answer<Timestamp> {
    let sample_at = sample_time(metrics, metric, named, at).await?;
    let age = at.duration_since(sample_at);
    if age < seconds(2.0 * interval_seconds) || off(Mutant::Freshness) {
        return Ok(sample_at);
    }
    let age = crate::words::roughly(age);
    let detail =
        format!("the newest sample of {metric} is {age} old, must be younger than two scrapes ({interval_seconds}s each)");
    Err(Unanswered::new(Reason::InputStale, detail))
}

/// When the metric's newest sample was scraped.
pub async fn sample_time(metrics: &dyn Metrics, metric: &str, named: &[(&str, &str)], at: Timestamp) -> Answer<Timestamp> {
    let query = promql::timestamp_of(metric, named).map_err(unbindable)?;
    let value = one_value(metrics, metric, &query, at).await?;
    Timestamp::from_millisecond((value * 1000.0).round() as i64)
        .map_err(|error| Unanswered::new(Reason::PrometheusMalformed, format!("timestamp({metric}) is {value}: {error}")))
}

/// The value of a query that must return exactly one series; it may be NaN.
pub async fn one_value(metrics: &dyn Metrics, what: &str, query: &str, at: Timestamp) -> Answer<f64> {
    let series = metrics.instant(query, at).await?;
    match series.as_slice() {
        [one] => Ok(one.value),
        [] => Err(Unanswered::new(Reason::InputMissing, format!("{what} has no series for this target ({query})"))),
        many => {
            let detail = format!("{what} has {} series for this target ({query})", many.len());
            Err(Unanswered::new(Reason::InputAmbiguous, detail))
        }
    }
}

async fn by_query(
    metrics: &dyn Metrics,
    question: Question<'_>,
    scrape: &ScrapeTarget,
    query: &str,
    threshold: Threshold,
    at: Timestamp,
) -> Answer<Reading> {
    let template = Template::parse(query).map_err(unbindable)?;
    fresh_inputs(metrics, question, scrape, &template.metrics(), at).await?;
    let named = target_labels(&question.playbook.replica_label, question.target, &question.accepted.alert.labels);
    let query = template.bind(&named).map_err(unbindable)?;
    let value = one_value(metrics, "the confirm query", &query, at).await?;
    if !value.is_finite() {
        return Err(not_finite("the confirm query", value));
    }
    Ok(if threshold.holds(value) { Reading::Firing { value, query } } else { Reading::Quiet { query } })
}

async fn replica(
    world: &World,
    Question { target, playbook, .. }: Question<'_>,
    look: &Look,
) -> Result<target::Replica, NoReplica> {
    let unanswered = |why: &Unanswered| NoReplica::Unanswered(why.clone());
    let containers = look.containers.as_ref().map_err(unanswered)?;
    let named = containers.find(LABEL_INSTANCE, target.instance.as_str());
    let picked = target::pick(named, target).map_err(NoReplica::Unmatched)?;
    let container = world.engine.inspect(&picked.id).await.map_err(NoReplica::Unanswered)?;
    let servers = look.servers.as_ref().map_err(unanswered)?;
    let resolve = if playbook.infrastructure { target::resolve_any } else { target::resolve };
    resolve(target, &container, containers.all(), servers.all()).map_err(|why| match why.reason {
        // Not that it is no replica of ours: nobody can say.
        Reason::OwnInfrastructureUnknown => NoReplica::Unanswered(Unanswered::new(why.reason, why.detail)),
        _ => NoReplica::Unmatched(why),
    })
}

async fn vetoes(metrics: &dyn Metrics, playbook: &Playbook, target: &Target, labels: &LabelSet, at: Timestamp) -> Vec<Veto> {
    let mut vetoes = Vec::new();
    for query in &playbook.veto {
        let bound = if query.contains("$target") {
            Template::parse(query)
                .and_then(|template| template.bind(&target_labels(&playbook.replica_label, target, labels)))
                .map_err(unbindable)
        } else {
            Ok(query.clone())
        };
        let series = match bound {
            Ok(text) => metrics.instant(&text, at).await.map(|series| series.len()),
            Err(why) => Err(why),
        };
        vetoes.push(Veto { query: query.clone(), series });
    }
    vetoes
}

pub(super) fn unbindable(error: promql::PromqlError) -> Unanswered {
    Unanswered::new(Reason::PrometheusRefused, format!("the query cannot be bound to this target: {error}"))
}

fn not_finite(what: &str, value: f64) -> Unanswered {
    Unanswered::new(Reason::InputNotFinite, format!("{what} is {value}"))
}

pub(super) fn seconds(seconds: f64) -> SignedDuration {
    SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::ZERO)
}
