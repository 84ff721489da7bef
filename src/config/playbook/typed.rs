//! A playbook as it is typed. What has no default and is not asked for by serde is optional here, so that everything
//! missing can be told at once.

use serde::Deserialize;

use crate::config::sheet::{At, RateTyped};
use crate::decide::playbook::{Mode, OnTimeout};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Typed {
    pub playbook: At<String>,
    #[serde(rename = "match")]
    pub matchers: Option<At<Vec<At<String>>>>,
    pub every: Option<At<String>>,
    pub target: Option<TargetTyped>,
    pub confirm: Option<At<ConfirmTyped>>,
    #[serde(default)]
    pub evidence: EvidenceTyped,
    pub steps: Option<At<Vec<At<StepTyped>>>>,
    pub recovered: Option<RecoveredTyped>,
    pub guards: Option<At<GuardsTyped>>,
    pub mode: Option<Mode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetTyped {
    pub service: At<String>,
    pub replica: Option<At<String>>,
    pub infrastructure: Option<At<bool>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmTyped {
    pub inputs: Option<At<Vec<At<String>>>>,
    pub query: Option<At<String>>,
    pub above: Option<At<f64>>,
    pub below: Option<At<f64>>,
    #[serde(default)]
    pub veto: Vec<At<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct EvidenceTyped {
    pub logs: Option<At<u32>>,
    pub required: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepTyped {
    Drain(DrainTyped),
    Restart(RestartTyped),
    Healthy(HealthyTyped),
    Readmit,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainTyped {
    pub within: At<String>,
    pub on_timeout: Option<OnTimeout>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartTyped {
    pub grace: At<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthyTyped {
    pub within: At<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveredTyped {
    pub query: At<String>,
    pub below: At<f64>,
    pub settle: At<String>,
    pub looks: At<u32>,
    pub within: At<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardsTyped {
    pub start_grace: Option<At<String>>,
    pub cooldown: Option<At<String>>,
    pub rate: Option<RateTyped>,
    #[serde(default)]
    pub budget: Vec<At<String>>,
    pub breaker: Option<BreakerTyped>,
    pub blast_radius: Option<At<RadiusTyped>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerTyped {
    pub failures: At<u32>,
    pub recurrence: At<String>,
    pub cooldown: At<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RadiusTyped {
    pub min_healthy: At<u32>,
    pub max_unhealthy: At<String>,
    pub max_in_flight: Option<At<u32>>,
    pub blame: Option<At<String>>,
}
