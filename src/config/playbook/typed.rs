//! A playbook as it is typed. What has no default and is not asked for by serde is optional here, so that everything
//! missing can be told at once.
//!
//! The doc comments are what an editor shows beside a field (`schema/playbook.schema.json`). One that ends in a paragraph
//! `WARNING: ...` makes its field a dangerous one: the playbook that we ship must warn, too, and a test sees to it.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::config::schema::{Budget, Duration, Share};
use crate::config::sheet::{At, RateTyped};
use crate::decide::playbook::{Mode, OnTimeout};

/// What to do about one signature of one service, and within which limits. `match` or `every` says when.
#[derive(Deserialize, JsonSchema)]
#[schemars(title = "a playbook of remediator", extend("anyOf" = json!([{"required": ["match"]}, {"required": ["every"]}])))]
#[serde(deny_unknown_fields)]
pub struct Typed {
    /// Its name: in every record, metric and page. Required, and another one for each playbook.
    #[schemars(length(min = 1))]
    pub playbook: At<String>,
    /// Alertmanager matchers, of which all must match an alert. Required without `every`.
    ///
    /// WARNING: alerts that match stop being a person's and become this playbook's. Name them; a set that matches everything is refused.
    #[serde(rename = "match")]
    #[schemars(length(min = 1))]
    pub matchers: Option<At<Vec<At<String>>>>,
    /// Look by itself this often, without an alert; needs confirm.query. At least 1s. Default: only when an alert comes.
    #[schemars(with = "Option<Duration>")]
    pub every: Option<At<String>>,
    /// Which replicas it is for. Required.
    #[schemars(required)]
    pub target: Option<TargetTyped>,
    /// How Prometheus is asked again before anything is done. Required: `inputs`, or `query` with a threshold.
    #[schemars(required)]
    pub confirm: Option<At<ConfirmTyped>>,
    /// What is kept before the restart destroys it.
    #[serde(default)]
    pub evidence: EvidenceTyped,
    /// What is done: drain, restart, healthy, readmit, in this order; written out so that a reader sees it. Required.
    #[schemars(required, length(min = 4, max = 4))]
    pub steps: Option<At<Vec<At<StepTyped>>>>,
    /// How the recovery is proven: with a query of its own, because a rule is false after any restart. Required.
    #[schemars(required)]
    pub recovered: Option<RecoveredTyped>,
    /// The limits. Required, with blast_radius, rate and breaker.
    #[schemars(required)]
    pub guards: Option<At<GuardsTyped>>,
    /// shadow: everything but the side effects; live: drains and restarts. Default: shadow.
    ///
    /// WARNING: `live` restarts production. Watch the playbook in shadow first, until you agree with everything that it says.
    pub mode: Option<Mode>,
}

/// Which replicas it is for.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetTyped {
    /// The container label remediator.service. Required.
    #[schemars(length(min = 1))]
    pub service: At<String>,
    /// The alert label whose value is the container's label remediator.instance. Default: instance.
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub replica: Option<At<String>>,
    /// true: it may restart a container that remediator itself stands on. Default: false.
    ///
    /// WARNING: restarting Prometheus, Alertmanager, the balancer, a door to Docker or remediator takes away what makes a restart safe.
    pub infrastructure: Option<At<bool>>,
}

/// How Prometheus is asked again: the alert's own rule (`inputs`), or a query of the playbook's (`query`).
#[derive(Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = json!([
    {"required": ["inputs"], "not": {"anyOf": [{"required": ["query"]}, {"required": ["above"]}, {"required": ["below"]}]}},
    {"required": ["query", "above"], "not": {"anyOf": [{"required": ["inputs"]}, {"required": ["below"]}]}},
    {"required": ["query", "below"], "not": {"anyOf": [{"required": ["inputs"]}, {"required": ["above"]}]}},
])))]
#[serde(deny_unknown_fields)]
pub struct ConfirmTyped {
    /// The scraped metrics that the alert's rule reads: all must be there and fresh before its silence means anything.
    ///
    /// WARNING: an input left out is one whose absence reads as "no problem". Recorded series prove nothing: name scraped ones.
    #[schemars(length(min = 1), inner(regex(pattern = r"^[A-Za-z_:][A-Za-z0-9_:]*$")))]
    pub inputs: Option<At<Vec<At<String>>>>,
    /// PromQL, instead of the rule; `metric{$target}` becomes exact matchers for the replica. With `above` or `below`.
    #[schemars(length(min = 1))]
    pub query: Option<At<String>>,
    /// The target is sick above this value.
    ///
    /// WARNING: a threshold that health crosses, too, restarts healthy replicas.
    pub above: Option<At<f64>>,
    /// The target is sick below this value.
    ///
    /// WARNING: as `above`.
    pub below: Option<At<f64>>,
    /// Queries whose data means "hold": a maintenance window, a deploy, a backup. Default: none.
    #[serde(default)]
    pub veto: Vec<At<String>>,
}

/// What is kept before the restart destroys it.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvidenceTyped {
    /// Log lines of the container, at most 1000. Default: 100.
    #[schemars(range(max = 1000))]
    pub logs: Option<At<u32>>,
    /// true: no restart when the evidence could not be kept. Default: true.
    ///
    /// WARNING: `false` restarts although nobody will be able to tell what was wrong.
    pub required: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StepTyped {
    /// Take the replica's server out of the balancing and wait until it is empty.
    Drain(DrainTyped),
    /// Restart the container.
    Restart(RestartTyped),
    /// Wait until the container is healthy.
    Healthy(HealthyTyped),
    /// Put the server back; done on every other way out, too.
    Readmit,
}

/// Take the replica's server out of the balancing and wait until it is empty.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainTyped {
    /// How long it may take until no session is left. Required, not 0.
    #[schemars(with = "Duration")]
    pub within: At<String>,
    /// A server that is not empty in time: abort (put it back, page) or proceed (restart with sessions open). Default: abort.
    ///
    /// WARNING: `proceed` cuts off the customers that are still being served.
    pub on_timeout: Option<OnTimeout>,
}

/// Restart the container.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestartTyped {
    /// From SIGTERM to SIGKILL, in whole seconds, at most 999s. Required.
    ///
    /// WARNING: shorter than the program needs to end, it is killed in the middle of a write.
    #[schemars(with = "Duration")]
    pub grace: At<String>,
}

/// Wait until the container is healthy.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthyTyped {
    /// How long it may take. Required, not 0. Too short for a slow start: ends as action_failed, and pages.
    #[schemars(with = "Duration")]
    pub within: At<String>,
}

/// How the recovery is proven.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoveredTyped {
    /// PromQL with `metric{$target}`, which `remediator` turns into exact matchers for the replica. Required.
    #[schemars(length(min = 1))]
    pub query: At<String>,
    /// Recovered is what stays below this value. Required.
    ///
    /// WARNING: above what the alert fires at, every restart looks like a cure, and the breaker never opens.
    pub below: At<f64>,
    /// How long after the readmit the first look waits; 0 for none. Required.
    #[schemars(with = "Duration")]
    pub settle: At<String>,
    /// How many looks at fresh samples in a row must be below. Required, 1 or more.
    #[schemars(range(min = 1))]
    pub looks: At<u32>,
    /// Until when, after the readmit. Required: at least settle, and one scrape more than looks.
    #[schemars(with = "Duration")]
    pub within: At<String>,
}

/// The limits: blast_radius, rate and breaker have no defaults, because nobody should run with limits that nobody has thought about.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardsTyped {
    /// A container younger than this is not restarted. Default: 2m.
    ///
    /// WARNING: shorter than the service's start, and slow starters are restarted before they could start, for ever.
    #[schemars(with = "Option<Duration>")]
    pub start_grace: Option<At<String>>,
    /// After a permit the same target is left alone for this long, by every playbook. Default: 5m.
    ///
    /// WARNING: with 0 the same replica may be restarted again as soon as it fires again.
    #[schemars(with = "Option<Duration>")]
    pub cooldown: Option<At<String>>,
    /// Token bucket of this playbook. Required.
    #[schemars(required)]
    pub rate: Option<RateTyped>,
    /// Most attempts in any window of this length, such as "6 per 1h"; several hold together. Default: none.
    ///
    /// WARNING: without a budget only rate and breaker end a night of restarts that each help for an hour.
    #[serde(default)]
    #[schemars(with = "Vec<Budget>")]
    pub budget: Vec<At<String>>,
    /// Stops a remedy that does not help. Required.
    #[schemars(required)]
    pub breaker: Option<BreakerTyped>,
    /// How much of the service may be out or sick at once. Required.
    #[schemars(required)]
    pub blast_radius: Option<At<RadiusTyped>>,
}

/// Stops a remedy that does not help.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BreakerTyped {
    /// It opens after so many remediations in a row that did not help. Required, 1 to 64.
    ///
    /// WARNING: a large number is that many useless restarts before a human is told that they are useless.
    #[schemars(range(min = 1, max = 64))]
    pub failures: At<u32>,
    /// A target that fires again within this time was not helped. Required, not 0.
    ///
    /// WARNING: too short, and a cure for ten minutes counts as a cure.
    #[schemars(with = "Duration")]
    pub recurrence: At<String>,
    /// How long it stays open before one probe is let through. Required, not 0.
    #[schemars(with = "Duration")]
    pub cooldown: At<String>,
}

/// How much of the service may be out or sick at once; all of it must hold.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RadiusTyped {
    /// How many other replicas must be serving while this one is out. Required.
    ///
    /// WARNING: 0 lets the last replica that serves be restarted, too: an outage by configuration.
    pub min_healthy: At<u32>,
    /// How many may be sick at once, this one included: 1% to 100% of the replicas, or a count from 1. Required.
    ///
    /// WARNING: with 100% it acts although everything looks sick, when the cause is shared or the observer is wrong.
    #[schemars(with = "Share")]
    pub max_unhealthy: At<String>,
    /// How many of the service may be under remediation at once. Default: 1.
    ///
    /// WARNING: above 1 a bad restart hits several replicas before the first verdict is in.
    #[schemars(range(min = 1))]
    pub max_in_flight: Option<At<u32>>,
    /// A target that became sick within this time after a sibling's drain is refused: the remedy may be the cause. Default: 10m.
    #[schemars(with = "Option<Duration>")]
    pub blame: Option<At<String>>,
}
