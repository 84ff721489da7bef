//! What is known when the decision is made. Every item is either known or an error with its cause; nothing is a zero.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alert::LabelSet;
use crate::target::{Instance, Replica, ServerPath, Target, Unmatched};
use crate::world::{Answer, Silence};

/// The answer to "is it true, right now, here?".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Reading {
    /// The condition holds, with the value of its expression.
    Firing { value: f64, query: String },
    /// The condition provably does not hold.
    Quiet { query: String },
    /// Nobody can say; [`crate::world::Unanswered`] names why.
    Unknown { why: crate::world::Unanswered },
}

/// One replica of the service as the balancer and Prometheus see it, for the blast radius.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sibling {
    pub instance: Instance,
    /// Its server at the balancer, as its container is labelled; none when it is not, or not known there.
    #[serde(default)]
    pub server: Option<ServerPath>,
    /// UP at the balancer and neither drained nor in maintenance.
    pub serving: bool,
    /// What the balancer says of it, in its own words, or why it could not say.
    pub state: String,
    /// A playbook's condition is pending or firing for it, or its state is unknown.
    pub sick: bool,
    /// Names of the alerts that are pending or firing for it.
    #[serde(default)]
    pub alerts: Vec<String>,
    /// Since when the earliest of them is active.
    #[serde(default)]
    pub active_at: Option<Timestamp>,
}

/// The answer of one veto query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Veto {
    pub query: String,
    /// How many series it returned; any means "hold".
    pub series: Answer<usize>,
}

/// Why a target is not one replica: the outside did not answer, or it answered and there is no exact match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", content = "why", rename_all = "snake_case")]
pub enum NoReplica {
    #[error(transparent)]
    Unmatched(Unmatched),
    #[error(transparent)]
    Unanswered(crate::world::Unanswered),
}

/// Everything that a decision may look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The pinned instant of every query.
    pub at: Timestamp,
    pub labels: LabelSet,
    pub target: Target,
    /// Alerts that Alertmanager cut from the notification.
    pub truncated: u64,
    pub reading: Reading,
    pub replica: Result<Replica, NoReplica>,
    /// Every replica of the service, this one included.
    pub siblings: Answer<Vec<Sibling>>,
    /// Names of the alerts that Prometheus lists, pending or firing, for this very target under a playbook of its service.
    pub listed: Answer<Vec<String>>,
    pub silences: Answer<Vec<Silence>>,
    #[serde(default)]
    pub vetoes: Vec<Veto>,
}
