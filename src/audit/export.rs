//! The audit line: one closed record as one line of JSON, in the shape that log shippers expect.
//!
//! The keys and their order are a promise (DESIGN §4); what is unknown is `null`, never left out. Pure; the file that
//! holds these lines is [`Follower`]'s.

mod follower;
mod rotation;

use jiff::Timestamp;
use serde::Serialize;

use crate::alert::Alert;
use crate::audit::query::Found;
use crate::decide::decision::{Check, Decision};
use crate::decide::evidence::{Evidence, Reading};
use crate::decide::playbook::Mode;
use crate::event::{Record, RecordId, StepRun};
use crate::guard::rails::RailCheck;
use crate::reason::{Outcome, Reason};
use crate::target::PlaybookName;
use crate::verify::Judgement;
use crate::words;

pub(crate) use follower::last_line;
pub use follower::{FILE, Follower, Written};
pub use rotation::Rotation;

/// One record as a line.
#[derive(Clone, Debug, Serialize)]
pub struct AuditLine<'a> {
    pub id: RecordId,
    /// When it was closed; while it is open, when it was opened.
    pub ts: Timestamp,
    pub host: &'a str,
    /// Name and version of this program.
    pub healer: &'a str,
    pub mode: Mode,
    /// What was done, or would have been.
    pub intent: Option<String>,
    pub outcome: Option<Outcome>,
    /// A sentence; `reason_code` is the stable word.
    pub reason: Option<String>,
    pub reason_code: Option<Reason>,
    /// What Prometheus said when it was asked.
    pub fact: Option<String>,
    pub alert: LineAlert<'a>,
    /// `service/instance`.
    pub target: Option<String>,
    pub incident: Option<&'a str>,
    pub guards: &'a [RailCheck],
    pub steps: &'a [StepRun],
    pub evidence: LineEvidence<'a>,
    pub duration_ms: Option<u64>,
    /// Number and hash of the closing entry.
    pub seq: u64,
    pub hash: &'a str,
}

/// The alert that opened the record.
#[derive(Clone, Debug, Serialize)]
pub struct LineAlert<'a> {
    pub fingerprint: &'a str,
    pub group_key: &'a str,
    pub receiver: &'a str,
    /// The playbook that claims it.
    pub playbook: Option<&'a PlaybookName>,
    #[serde(flatten)]
    pub alert: &'a Alert,
    /// Fingerprints of the alerts that joined.
    pub members: Vec<&'a str>,
}

/// What was known, what was compared, and how the recovery was judged.
#[derive(Clone, Debug, Serialize)]
pub struct LineEvidence<'a> {
    #[serde(flatten)]
    pub evidence: Option<&'a Evidence>,
    pub checks: &'a [Check],
    pub judgement: Option<&'a Judgement>,
}

/// A record as its line.
pub fn line(found: &Found) -> AuditLine<'_> {
    let Found { record, hash } = found;
    let accepted = &record.accepted;
    AuditLine {
        id: record.id,
        ts: record.closed_at.unwrap_or(record.opened_at),
        host: &accepted.host,
        healer: &accepted.healer,
        mode: record.intent.as_ref().map_or(accepted.mode, |intent| intent.mode),
        intent: intent(record),
        outcome: record.outcome,
        reason: reason(record),
        reason_code: record.reason,
        fact: record.evidence.as_deref().map(fact),
        alert: LineAlert {
            fingerprint: &accepted.fingerprint,
            group_key: &accepted.group_key,
            receiver: &accepted.receiver,
            playbook: accepted.playbook.as_ref(),
            alert: &accepted.alert,
            members: record.members.iter().map(|member| member.fingerprint.as_str()).collect(),
        },
        target: accepted.target.as_ref().map(ToString::to_string),
        incident: None,
        guards: &record.guards,
        steps: &record.steps,
        evidence: LineEvidence {
            evidence: record.evidence.as_deref(),
            checks: record.decision.as_ref().map_or(&[], |explained| &explained.checks),
            judgement: record.judgement.as_ref(),
        },
        duration_ms: record.duration().map(|period| u64::try_from(period.get().as_millis()).unwrap_or(u64::MAX)),
        seq: record.seq,
        hash,
    }
}

/// What was to be done; none when it never came to a plan.
pub fn intent(record: &Record) -> Option<String> {
    let decided = record.decision.as_ref().and_then(|explained| match &explained.decision {
        Decision::Remediate { plan } => Some(plan.as_ref()),
        Decision::Escalate { .. } | Decision::Ignore { .. } => None,
    });
    let plan = record.intent.as_ref().map(|intent| &intent.plan).or(decided)?;
    Some(format!("restart {}", plan.target))
}

/// Why it ended as it did, in a sentence: what the code means, and the numbers of this case.
pub fn reason(record: &Record) -> Option<String> {
    let meaning = record.reason?.meaning();
    let detail = record.detail.as_str();
    let says_it_all = detail.is_empty() || detail == meaning;
    Some(if says_it_all { meaning.to_owned() } else { format!("{meaning}: {detail}") })
}

fn fact(evidence: &Evidence) -> String {
    match &evidence.reading {
        Reading::Firing { value, .. } => words::reading_firing(*value),
        Reading::Quiet { .. } => words::reading_quiet(),
        Reading::Unknown { why } => why.detail.clone(),
    }
}
