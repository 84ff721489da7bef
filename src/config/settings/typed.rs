//! `remediator.yml` as it is typed. What has no default is optional here, so that everything missing can be told at once.

use serde::Deserialize;

use super::LogFormat;
use super::liveness::{HeartbeatTyped, WatchdogTyped};
use crate::config::sheet::{At, RateTyped};

/// As typed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Typed {
    pub listen: Option<At<String>>,
    pub external_url: Option<At<String>>,
    pub state_dir: Option<At<String>>,
    pub playbooks: Option<At<Vec<At<String>>>>,
    pub prometheus: Option<PrometheusTyped>,
    pub alertmanager: Option<AlertmanagerTyped>,
    pub docker: Option<DockerTyped>,
    pub haproxy: Option<HaproxyTyped>,
    #[serde(default)]
    pub tokens: TokensTyped,
    #[serde(default)]
    pub limits: LimitsTyped,
    #[serde(default)]
    pub pages: PagesTyped,
    #[serde(default)]
    pub heartbeat: HeartbeatTyped,
    #[serde(default)]
    pub watchdog: WatchdogTyped,
    #[serde(default)]
    pub start_paused: bool,
    #[serde(default)]
    pub log: LogTyped,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrometheusTyped {
    pub url: At<String>,
    pub timeout: Option<At<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertmanagerTyped {
    pub urls: At<Vec<At<String>>>,
    pub timeout: Option<At<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DockerTyped {
    pub read: At<String>,
    pub restart: At<String>,
    pub timeout: Option<At<String>>,
    #[serde(default)]
    pub only: Vec<At<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HaproxyTyped {
    pub address: At<String>,
    pub timeout: Option<At<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct TokensTyped {
    pub receiver: Vec<At<String>>,
    pub reader: Vec<At<String>>,
    pub operator: Vec<At<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsTyped {
    pub fleet: Option<RateTyped>,
    pub group: Option<RateTyped>,
    pub body: Option<At<usize>>,
    pub alerts: Option<At<usize>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct PagesTyped {
    pub every: Option<At<String>>,
    pub hold: Option<At<String>>,
    pub ask_again: Option<At<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct LogTyped {
    pub format: LogFormat,
    pub level: Option<String>,
}
