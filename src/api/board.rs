//! What is true now, in one answer: `GET /guards`. What `remediator status` shows is made of this.
//!
//! Additive: a field may come, none may go or change its meaning.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::decide::playbook::Mode;
use crate::event::{Abort, Pause, PauseScope, Phase, RecordId, Step};
use crate::guard::view::PlaybookNow;
use crate::reason::{Outcome, Reason};
use crate::target::PlaybookName;

/// Everything that decides whether anything is done now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Board {
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    pub host: String,
    /// Name and version of the program.
    pub healer: String,
    /// How many remediations the rails would allow now, over all live playbooks.
    pub remediations_allowed: u64,
    /// In force now.
    #[schema(value_type = Vec<PauseShape>)]
    pub pauses: Vec<Pause>,
    pub playbooks: Vec<PlaybookNow>,
    /// Records without an outcome yet, oldest first.
    pub open: Vec<OpenNow>,
    /// Targets that are held, from permit to verdict.
    pub in_flight: Vec<HeldNow>,
    /// Servers (`backend/server`) that are drained in our name.
    pub drained: BTreeMap<String, DrainedNow>,
    /// Episodes that are asked about again.
    pub watches: Vec<WatchNow>,
    pub head: HeadNow,
}

/// A record that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OpenNow {
    #[schema(value_type = String, format = "uuid")]
    pub id: RecordId,
    pub alertname: String,
    /// `service/instance`.
    pub target: Option<String>,
    #[schema(value_type = Option<String>)]
    pub playbook: Option<PlaybookName>,
    #[schema(value_type = String)]
    pub mode: Mode,
    #[schema(value_type = String, format = DateTime)]
    pub opened_at: Timestamp,
    #[schema(value_type = String, example = "admitted")]
    pub phase: Phase,
    /// The step that runs, or the last one that ran.
    #[schema(value_type = Option<String>, example = "drain")]
    pub step: Option<Step>,
    /// Whether that step has not ended yet.
    pub running: bool,
    /// Since when it is at that step; since its opening when it is at none.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    #[schema(value_type = Option<AbortShape>)]
    pub abort: Option<Abort>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HeldNow {
    #[schema(value_type = String, format = "uuid")]
    pub record: RecordId,
    #[schema(value_type = TargetShape)]
    pub target: crate::target::Target,
    #[schema(value_type = String)]
    pub playbook: PlaybookName,
    pub server: String,
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DrainedNow {
    #[schema(value_type = String, format = "uuid")]
    pub record: RecordId,
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
}

/// An episode that ended unsettled, or whose cure is on trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WatchNow {
    pub key: String,
    pub alertname: String,
    pub target: Option<String>,
    #[schema(value_type = Option<String>)]
    pub playbook: Option<PlaybookName>,
    #[schema(value_type = String, format = "uuid")]
    pub record: RecordId,
    #[schema(value_type = String, example = "refused")]
    pub outcome: Outcome,
    #[schema(value_type = String, example = "min_healthy")]
    pub reason: Reason,
    pub detail: String,
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// When it is asked about again; none while it is being asked.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_look: Option<Timestamp>,
}

/// The journal's newest entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeadNow {
    pub seq: u64,
    pub hash: String,
}

/// What an order to abort one run came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Aborting {
    #[schema(value_type = String, format = "uuid")]
    pub id: RecordId,
    /// Who ordered it, and why; somebody else's when `state` is `already_ordered`.
    pub actor: String,
    pub reason: String,
    pub state: AbortState,
    /// A sentence about what happens now.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AbortState {
    Ordered,
    AlreadyOrdered,
}

/// How a pause is written. `until`: none until somebody resumes.
#[derive(ToSchema)]
#[schema(as = Pause)]
#[allow(dead_code, reason = "documents the JSON of event::Pause")]
pub struct PauseShape {
    scope: ScopeShape,
    actor: String,
    reason: String,
    #[schema(format = DateTime)]
    until: Option<String>,
}

/// `scope` is `all`, `playbook` or `target`; the latter two have a `name`.
#[derive(ToSchema)]
#[schema(as = Scope)]
#[allow(dead_code, reason = "documents the JSON of event::PauseScope")]
pub struct ScopeShape {
    #[schema(example = "target")]
    scope: String,
    #[schema(example = "inventory/inventory-2:8080")]
    name: Option<String>,
}

#[derive(ToSchema)]
#[schema(as = Abort)]
#[allow(dead_code, reason = "documents the JSON of event::Abort")]
pub struct AbortShape {
    actor: String,
    reason: String,
}

#[derive(ToSchema)]
#[schema(as = Target)]
#[allow(dead_code, reason = "documents the JSON of target::Target")]
pub struct TargetShape {
    service: String,
    instance: String,
}

impl Board {
    /// Pauses that stop everything.
    pub fn paused(&self) -> impl Iterator<Item = &Pause> {
        self.pauses.iter().filter(|pause| pause.scope == PauseScope::All)
    }
}
