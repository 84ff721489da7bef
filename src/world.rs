//! What the rooms may ask of the outside: metrics, the engine, the balancer, the pager and the clock.
//!
//! There are three worlds: the live one (`edge`), the simulated one and the recorded one (Prometheus' history). Each
//! port says what it must answer and how it says that it cannot: an error is a fact with its cause, never a zero and
//! never an empty list. Calls that change something answer with three values, because a timeout says nothing about
//! what happened.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alert::LabelSet;
use crate::event::RecordId;
use crate::reason::Reason;
use crate::target::{ContainerId, ContainerName, ServerPath};

/// The outside, whole. Cheap to clone.
#[derive(Clone)]
pub struct World {
    pub metrics: Arc<dyn Metrics>,
    pub engine: Arc<dyn Engine>,
    pub balancer: Arc<dyn Balancer>,
    pub pager: Arc<dyn Pager>,
    pub clock: Arc<dyn Clock>,
}

/// Why the outside could not answer a question: the reason code and the cause's own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Unanswered {
    pub reason: Reason,
    pub detail: String,
}

impl Unanswered {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Unanswered { reason, detail: detail.into() }
    }
}

/// The answer to a question.
pub type Answer<T> = Result<T, Unanswered>;

/// What is known of a call that changes something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", content = "detail", rename_all = "snake_case")]
pub enum Call {
    /// It happened.
    Done,
    /// It did not happen.
    Failed(String),
    /// It may have happened: look, never repeat blindly.
    Unknown(String),
}

/// One series of an instant vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub labels: LabelSet,
    /// May be NaN or infinite: Prometheus sends those as strings.
    pub value: f64,
}

/// State of one active alert in Prometheus' rules API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleAlertState {
    Pending,
    Firing,
}

/// One active alert of an alerting rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleAlert {
    pub labels: LabelSet,
    pub state: RuleAlertState,
    pub active_at: Option<Timestamp>,
}

/// One alerting rule as Prometheus' rules API lists it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertingRule {
    pub name: String,
    /// The expression's text, to be sent as it stands.
    pub query: String,
    /// Labels that the rule adds to its alerts.
    pub labels: LabelSet,
    /// `for`, in seconds.
    pub for_seconds: f64,
    /// The group's evaluation interval, in seconds.
    pub interval_seconds: f64,
    pub last_evaluation: Option<Timestamp>,
    /// `ok`, `unknown` or `err`.
    pub health: String,
    pub alerts: Vec<RuleAlert>,
}

/// One active scrape target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScrapeTarget {
    pub labels: LabelSet,
    /// `up`, `down` or `unknown`.
    pub health: String,
    pub last_scrape: Option<Timestamp>,
    /// Empty when the last scrape went well.
    pub last_error: String,
    /// Seconds between scrapes.
    pub interval_seconds: f64,
}

/// Prometheus' HTTP API. Queries are pinned to one instant, so that a verdict has one time.
/// An answer with warnings is not an answer ([`Reason::PrometheusWarnings`]).
#[async_trait]
pub trait Metrics: Send + Sync {
    /// `GET /api/v1/query`; anything but a vector (or a scalar, as one series without labels) is malformed.
    async fn instant(&self, query: &str, at: Timestamp) -> Answer<Vec<Sample>>;
    /// `GET /api/v1/rules?type=alert`.
    async fn alerting_rules(&self) -> Answer<Vec<AlertingRule>>;
    /// `GET /api/v1/targets?state=active`.
    async fn scrape_targets(&self) -> Answer<Vec<ScrapeTarget>>;
}

/// One container in the Engine's list, running or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerSummary {
    pub id: ContainerId,
    pub name: ContainerName,
    pub labels: BTreeMap<String, String>,
    pub network_mode: String,
}

/// State of the image's health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// The image has no health check.
    None,
    Starting,
    Healthy,
    Unhealthy,
}

/// One container, inspected. Carries no environment: evidence must not carry secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Container {
    pub id: ContainerId,
    pub name: ContainerName,
    pub image: String,
    pub labels: BTreeMap<String, String>,
    /// Its process runs: neither paused nor waiting to be started again.
    pub running: bool,
    /// `created, running, paused, restarting, removing, exited, dead`.
    pub status: String,
    pub started_at: Option<Timestamp>,
    pub health: Health,
    /// The last answers of the health check, newest last, each cut to a line.
    #[serde(default)]
    pub health_log: Vec<String>,
    pub network_mode: String,
    pub addresses: Vec<IpAddr>,
    /// Where its ports are published on the host.
    pub published: Vec<SocketAddr>,
    #[serde(default)]
    pub restart_count: i64,
    /// Which part of our own infrastructure it is, as `target::infrastructure` says it; none if it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infrastructure: Option<String>,
    /// Why nobody can say whether it is one; none if somebody can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infrastructure_unknown: Option<String>,
}

/// The Docker Engine, through its two doors.
#[async_trait]
pub trait Engine: Send + Sync {
    async fn ping(&self) -> Answer<()>;
    /// Every container of the host, stopped ones too.
    async fn containers(&self) -> Answer<Vec<ContainerSummary>>;
    async fn inspect(&self, id: &ContainerId) -> Answer<Container>;
    /// The last `tail` lines that the container wrote, each at most [`MAX_LOG_LINE`] bytes.
    async fn logs(&self, id: &ContainerId, tail: u32) -> Answer<Vec<String>>;
    /// `POST /containers/{id}/restart?t={grace}`, once. `within` bounds the wait, not the Engine.
    async fn restart(&self, id: &ContainerId, grace_seconds: u32, within: Duration) -> Call;
    /// How many names of our own configuration were looked up, so that it can be said which containers are a part of ours.
    /// An error names one that leads nowhere.
    async fn own_names(&self) -> Answer<usize> {
        Ok(0)
    }
    /// Asks the restart door for something it must refuse. `Ok(true)`: it was refused.
    async fn forbidden_call_is_refused(&self) -> Answer<bool>;
}

/// Longest log line kept as evidence, in bytes.
pub const MAX_LOG_LINE: usize = 2_000;

/// What the balancer thinks of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerStatus {
    Up,
    Down,
    /// Takes no new sessions.
    Drain,
    Maintenance,
    /// Not checked, hence never known to be up.
    NoCheck,
    Other,
}

/// One server at the balancer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub path: ServerPath,
    /// Where the balancer sends its traffic.
    pub address: Option<SocketAddr>,
    pub status: ServerStatus,
    /// Set by an operator or by us through the runtime API (a draining server that is dead shows [`ServerStatus::Down`]).
    pub drained: bool,
    pub maintenance: bool,
    /// True when a health check runs against it.
    pub checked: bool,
    /// Sessions open now.
    pub sessions: u64,
    /// Requests waiting for this server.
    pub queued: u64,
}

impl Server {
    /// UP at the balancer and taking traffic.
    pub fn serving(&self) -> bool {
        self.status == ServerStatus::Up && !self.drained && !self.maintenance
    }
}

/// HAProxy's runtime API.
#[async_trait]
pub trait Balancer: Send + Sync {
    async fn servers(&self) -> Answer<Vec<Server>>;
    async fn drain(&self, server: &ServerPath) -> Call;
    /// Readmit: the server takes traffic again as soon as its check passes.
    async fn ready(&self, server: &ServerPath) -> Call;
}

/// An alert that we raise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PageAlert {
    pub labels: LabelSet,
    pub annotations: LabelSet,
    pub starts_at: Timestamp,
    /// Since when it is over. None while it is up: then Alertmanager's own clock says how long it lives without news.
    pub ends_at: Option<Timestamp>,
}

/// An active silence that matches an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    pub id: String,
    pub comment: String,
    pub created_by: String,
    pub ends_at: Option<Timestamp>,
}

/// Alertmanager's API.
#[async_trait]
pub trait Pager: Send + Sync {
    /// Raises or ends alerts at every Alertmanager; an error only when none took them.
    async fn raise(&self, alerts: &[PageAlert]) -> Answer<()>;
    /// Active silences that match these labels, at any Alertmanager. An error only when none answered.
    async fn silences(&self, labels: &LabelSet) -> Answer<Vec<Silence>>;
}

/// Time. `now` is the wall clock and may jump; waiting follows the monotonic clock.
#[async_trait]
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
    /// The id of a record that is opened now. Time and chance come from the same place, so that a simulation owns both.
    fn new_record(&self) -> RecordId {
        crate::detect::new_record()
    }
    async fn sleep(&self, how_long: Duration);
}
