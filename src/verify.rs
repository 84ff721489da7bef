//! Did it help? A verdict is given by the playbook's own recovery query, on samples that are younger than the action.

pub mod recovery;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::reason::Reason;

/// Whether the remedy worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Recovered,
    StillFiring,
    Unknown,
}

/// One look at the recovery query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Look {
    pub at: Timestamp,
    /// The query's value; none when there was no usable answer.
    pub value: Option<f64>,
    /// When the youngest sample behind it was scraped.
    pub sample_at: Option<Timestamp>,
    /// Counts towards the verdict: a new scrape of the process that the action started.
    pub counted: bool,
    /// Why it does not count, or what it says.
    pub detail: String,
}

/// A verdict with the looks it stands on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    pub verdict: Verdict,
    pub reason: Reason,
    pub detail: String,
    pub looks: Vec<Look>,
}
