//! A playbook, checked and ready to use. How it is written down (YAML, strict) is `config::playbook`'s business.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::alert::{Labelled, Matcher};
use crate::period::Period;
use crate::target::{PlaybookName, ServiceName};

/// The name of the alert that is walked to prove that walking works (`heartbeat`). No playbook gets it, whatever it matches.
pub const HEARTBEAT: &str = "RemediatorHeartbeat";

/// What to do about one signature of one service, and within which limits.
#[derive(Clone, Debug)]
pub struct Playbook {
    pub name: PlaybookName,
    /// All must match. Empty only with `every`; an empty selector selects nothing.
    pub matchers: Vec<Matcher>,
    /// How often to look without having been told; only with [`Confirm::Query`].
    pub every: Option<Period>,
    pub service: ServiceName,
    /// The alert label whose value names the replica; usually `instance`.
    pub replica_label: String,
    /// Written by somebody who means it: parts of our own infrastructure may be targets, too.
    pub infrastructure: bool,
    pub confirm: Confirm,
    /// Queries whose data means "hold".
    pub veto: Vec<String>,
    pub evidence: EvidenceSpec,
    pub drain: DrainSpec,
    /// Seconds from SIGTERM to SIGKILL, as Docker's `t` takes them.
    pub restart_grace_seconds: u32,
    pub healthy_within: Period,
    pub recovered: RecoverySpec,
    pub guards: Guards,
    pub mode: Mode,
}

/// How the condition is asked again.
#[derive(Clone, Debug, PartialEq)]
pub enum Confirm {
    /// The alert's own rule; `inputs` are the scraped metrics that must be there before its silence means anything.
    Rule { inputs: Vec<String> },
    /// A query with `$target`, compared by us.
    Query { query: String, threshold: Threshold },
}

/// A comparison that we make ourselves, so that "not firing" and "nothing there" cannot be confused.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    Above(f64),
    Below(f64),
}

impl Threshold {
    pub fn holds(self, value: f64) -> bool {
        match self {
            Threshold::Above(limit) => value > limit,
            Threshold::Below(limit) => value < limit,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvidenceSpec {
    /// Log lines to keep.
    pub logs: u32,
    /// Without evidence no action.
    pub required: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainSpec {
    pub within: Period,
    pub on_timeout: OnTimeout,
}

/// What to do with a server that does not empty in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnTimeout {
    Abort,
    Proceed,
}

/// How recovery is proven: a query of its own, because a rule that excludes young processes is false after any restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecoverySpec {
    /// With `$target`.
    pub query: String,
    pub below: f64,
    pub settle: Period,
    /// Fresh looks in a row that must be below.
    pub looks: u32,
    pub within: Period,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Everything but the side effects.
    Shadow,
    Live,
}

/// The limits of one playbook.
#[derive(Clone, Debug, PartialEq)]
pub struct Guards {
    /// A container younger than this is never restarted.
    pub start_grace: Period,
    /// Per target, across playbooks.
    pub cooldown: Period,
    pub rate: Rate,
    pub budget: Vec<Budget>,
    pub breaker: BreakerSpec,
    pub blast_radius: BlastRadius,
}

/// A token bucket: `burst` at once, refilled evenly with `burst` tokens `per` period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    pub per: Period,
    pub burst: u32,
}

/// At most `most` attempts in any window of length `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    pub most: u32,
    pub per: Period,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerSpec {
    /// Remediations in a row that did not help before it opens.
    pub failures: u32,
    /// A target that fires again within this counts as not helped.
    pub recurrence: Period,
    pub cooldown: Period,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlastRadius {
    /// How many other replicas must be serving while this one is out.
    pub min_healthy: u32,
    pub max_unhealthy: Share,
    pub max_in_flight: u32,
    /// A target that became sick within this after a sibling's drain is refused.
    pub blame: Period,
}

/// A count of replicas or a percentage of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    Count(u32),
    Percent(u32),
}

impl Share {
    /// `count ≤ limit`, or `count × 100 ≤ percent × all`.
    pub fn allows(self, count: usize, all: usize) -> bool {
        match self {
            Share::Count(limit) => count <= limit as usize,
            Share::Percent(percent) => count * 100 <= percent as usize * all,
        }
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Share::Count(count) => write!(f, "{count}"),
            Share::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Mode {
    pub fn word(self) -> &'static str {
        match self {
            Mode::Shadow => "shadow",
            Mode::Live => "live",
        }
    }
}

impl Playbook {
    /// True when the alert is this playbook's: every matcher matches, and its name is not reserved.
    pub fn claims(&self, labels: &impl Labelled) -> bool {
        labels.label("alertname") != Some(HEARTBEAT) && self.matches(labels)
    }

    /// True when every matcher matches. A playbook without matchers matches nothing.
    pub fn matches(&self, labels: &impl Labelled) -> bool {
        !self.matchers.is_empty() && self.matchers.iter().all(|matcher| matcher.matches(labels))
    }

    /// How long a permit lives: the sum of the steps' bounds and a margin. Verification needs no permit.
    pub fn deadline(&self) -> Period {
        /// For evidence, the calls themselves and the journal's writes between the steps.
        const MARGIN: Period = Period::from_secs(30);
        self.drain.within + Period::from_secs(u64::from(self.restart_grace_seconds)) + self.healthy_within + MARGIN
    }
}
