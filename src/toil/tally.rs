//! An audit log, counted: what was saved, what was handed to a person, and what was harm.
//!
//! What it promises: each closed record counts exactly once, whatever log files it stands in, and in doubt it counts
//! against remediator:
//!
//! | record | counts as |
//! |---|---|
//! | `recovered`, and quiet for `recurrence` after it | a restart that nobody did by hand |
//! | `recovered`, and confirmed to fire again within `recurrence` | harm: it did not last |
//! | `still_firing`, `verdict_unknown` | harm: restarted, and nothing proves that it helped |
//! | `action_failed`, `interrupted`, once the server was to be drained | harm: touched, and left to a person |
//! | the same before anything was touched | handed to a person |
//! | `refused`, `unknown_condition`, `unmatched_target` | handed to a person: paged as ever, so nothing is saved |
//! | `condition_cleared`, and nobody had been paged | a false alarm that woke nobody |
//! | `condition_cleared` after a record that paged | the end of that one: nothing |
//! | anything of a playbook in shadow | a rehearsal: nothing |
//!
//! What it cannot see: whether a person who was paged had gone back to sleep before the pager rang twice; a repair by
//! hand that made a record `recovered`. Whether a cleared alert had paged before is told from the same target's records
//! of the last [`MEMORY`]: audit lines do not say what asked. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::decide::playbook::Mode;
use crate::event::{RecordId, Step};
use crate::period::Period;
use crate::reason::{Outcome, Reason};

/// How long a page is held against what clears for the same target after it: a person's repair may take a day.
pub const MEMORY: Period = Period::from_secs(86_400);

/// What an audit line says that matters here; all else in it is passed over.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Line {
    pub id: RecordId,
    pub ts: Timestamp,
    pub mode: Mode,
    /// None while it is open.
    pub outcome: Option<Outcome>,
    pub reason_code: Option<Reason>,
    pub target: Option<String>,
    #[serde(default)]
    pub duration_ms: Option<u64>,
    #[serde(default)]
    pub steps: Vec<LineStep>,
    #[serde(default)]
    pub evidence: LineEvidence,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct LineStep {
    pub step: Step,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct LineEvidence {
    #[serde(default)]
    pub reading: Option<LineReading>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct LineReading {
    /// As [`crate::decide::evidence::Reading`] is tagged.
    pub state: String,
}

/// What one record counts as, before its neighbours are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Recovered,
    Cleared,
    HandedOver,
    Harm,
    Rehearsed,
}

/// Why a record that was handed to a person was, in one word for many codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// A guardrail kept it from acting.
    Guarded,
    /// It was not the time; it is asked again by itself.
    Waiting,
    /// A person said hold.
    Held,
    /// Something outside did not answer, or contradicted itself.
    Blind,
    /// Labels, rules or the balancer's configuration are not as they must be.
    Setup,
    /// It had begun, or had ended.
    Acted,
}

/// The counts of a log.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tally {
    /// Closed records.
    pub records: u64,
    /// Lines whose record was counted already: the same file twice, or a rotated one.
    pub repeated: u64,
    /// Lines of records that are still open.
    pub open: u64,
    /// When the first and the last of them were closed.
    pub first: Option<Timestamp>,
    pub last: Option<Timestamp>,
    /// The first that was not a rehearsal.
    pub first_live: Option<Timestamp>,
    pub recovered: u64,
    pub false_alarms: u64,
    /// Cleared after a page: the end of an episode that is counted already.
    pub cleared_after_a_page: u64,
    pub handed_over: u64,
    pub handed_over_by: BTreeMap<Reason, u64>,
    pub harm: u64,
    /// Without those that did not last: their own reason says that they recovered.
    pub harm_by: BTreeMap<Reason, u64>,
    /// Part of the harm: it recovered, and did not last.
    pub did_not_last: u64,
    pub would_have_restarted: u64,
    /// Rehearsals that ended otherwise.
    pub rehearsed_else: u64,
    /// From the alert to the proof, of those that recovered and lasted; half of them took no longer.
    pub median_ms: Option<u64>,
}

/// What a record counts as by itself.
pub fn class(line: &Line, outcome: Outcome) -> Class {
    if line.mode == Mode::Shadow {
        return Class::Rehearsed;
    }
    let touched = line.steps.iter().any(|run| run.step != Step::CaptureEvidence);
    match outcome {
        Outcome::Recovered => Class::Recovered,
        Outcome::StillFiring | Outcome::VerdictUnknown => Class::Harm,
        Outcome::ActionFailed | Outcome::Interrupted => {
            if touched {
                Class::Harm
            } else {
                Class::HandedOver
            }
        }
        Outcome::ConditionCleared => Class::Cleared,
        Outcome::Refused | Outcome::UnknownCondition | Outcome::UnmatchedTarget => Class::HandedOver,
        // A live line never says so; if one does, nothing was done.
        Outcome::Shadow => Class::Rehearsed,
    }
}

/// Every reason code has one; a new one does not compile until somebody has thought about it.
pub fn because(reason: Reason) -> Because {
    use Reason as R;
    match reason {
        R::BudgetSpent | R::BreakerOpen | R::MinHealthy | R::MaxUnhealthy | R::SickAfterAction | R::RadiusUnknown => {
            Because::Guarded
        }
        R::EvidenceStale | R::AlertsTruncated | R::ContainerNotRunning => Because::Guarded,
        R::EpisodeHeld
        | R::Cooldown
        | R::RateLimited
        | R::BreakerProbing
        | R::MaxInFlight
        | R::StartGrace
        | R::AlertPending
        | R::RuleLags => Because::Waiting,
        R::Paused | R::Silenced | R::Vetoed | R::ServerDrained | R::ServerMaintenance | R::WouldRemediate | R::Aborted => {
            Because::Held
        }
        R::PrometheusUnreachable | R::PrometheusTimeout | R::PrometheusRefused | R::PrometheusWarnings => Because::Blind,
        R::PrometheusMalformed | R::PrometheusBlind | R::RuleStale | R::SignalsMixed => Because::Blind,
        R::InputMissing | R::InputAmbiguous | R::InputStale | R::InputNotFinite | R::TargetDown => Because::Blind,
        R::DockerUnavailable | R::BalancerUnavailable | R::AlertmanagerUnavailable | R::VetoUnknown => Because::Blind,
        R::StoreUnavailable | R::ClockUnreliable | R::OwnInfrastructureUnknown => Because::Blind,
        R::NoPlaybook | R::TargetUnnamed | R::RuleMissing | R::TargetNotScraped | R::NoHealthCheck => Because::Setup,
        R::ContainerMissing | R::ContainerAmbiguous | R::NotEnabled | R::ServerMissing => Because::Setup,
        R::AddressMismatch | R::SharedNetwork | R::OwnInfrastructure => Because::Setup,
        R::ConditionQuiet | R::EvidenceMissing | R::DrainFailed | R::DrainTimeout | R::DrainLost => Because::Acted,
        R::PermitExpired | R::ContainerChanged | R::ModeChanged | R::RestartFailed | R::RestartUnknown => Because::Acted,
        R::NotHealthyInTime | R::ReadmitFailed | R::Crashed | R::ShuttingDown => Because::Acted,
        R::RecoveryConfirmed | R::RecoveryAbove | R::RecoveryUnseen => Because::Acted,
    }
}

impl Because {
    pub fn words(self) -> &'static str {
        match self {
            Because::Guarded => "a guardrail kept it from acting",
            Because::Waiting => "not yet; asked again by itself",
            Because::Held => "somebody said hold",
            Because::Blind => "something outside could not be seen",
            Because::Setup => "labels, rules or configuration",
            Because::Acted => "it had begun",
        }
    }
}

/// Counts the lines of one or several logs, in any order. A recovered target that is confirmed to fire again within
/// `recurrence` was not helped.
pub fn tally(lines: impl IntoIterator<Item = Line>, recurrence: Period) -> Tally {
    let mut count = Tally::default();
    let mut seen = HashSet::new();
    let mut closed: Vec<(Line, Outcome)> = Vec::new();
    for line in lines {
        match line.outcome {
            None => count.open += 1,
            Some(_) if !seen.insert(line.id) => count.repeated += 1,
            Some(outcome) => closed.push((line, outcome)),
        }
    }
    // Ids sort by the time of opening, which tells two apart that were closed in the same instant.
    closed.sort_by_key(|(line, _)| (line.ts, line.id));
    count.records = closed.len() as u64;
    count.first = closed.first().map(|(line, _)| line.ts);
    count.last = closed.last().map(|(line, _)| line.ts);
    count.first_live = closed.iter().find(|(line, outcome)| class(line, *outcome) != Class::Rehearsed).map(|(line, _)| line.ts);

    let relapsed = relapsed(&closed, recurrence.signed());
    let mut paged: HashMap<&str, Timestamp> = HashMap::new();
    let mut took = Vec::new();
    for (line, outcome) in &closed {
        let class = class(line, *outcome);
        // A record without a target is nobody's neighbour.
        let target = line.target.as_deref();
        let reason = line.reason_code;
        let by = |by: &mut BTreeMap<Reason, u64>| reason.map(|reason| *by.entry(reason).or_default() += 1);
        match class {
            Class::Rehearsed => match outcome {
                Outcome::Shadow => count.would_have_restarted += 1,
                _ => count.rehearsed_else += 1,
            },
            Class::Recovered if relapsed.contains(&line.id) => {
                count.harm += 1;
                count.did_not_last += 1;
            }
            Class::Recovered => {
                count.recovered += 1;
                took.extend(line.duration_ms);
            }
            Class::Harm => {
                count.harm += 1;
                by(&mut count.harm_by);
            }
            Class::HandedOver => {
                count.handed_over += 1;
                by(&mut count.handed_over_by);
            }
            Class::Cleared => {
                let since = target.and_then(|target| paged.get(target));
                match since.is_some_and(|at| line.ts.duration_since(*at) <= MEMORY.signed()) {
                    true => count.cleared_after_a_page += 1,
                    false => count.false_alarms += 1,
                }
            }
        }
        match (target, outcome.is_settled()) {
            (Some(target), true) => drop(paged.remove(target)),
            (Some(target), false) => drop(paged.insert(target, line.ts)),
            (None, _) => {}
        }
    }
    took.sort_unstable();
    count.median_ms = took.get(took.len().saturating_sub(1) / 2).copied();
    count
}

/// Records that recovered and whose target was confirmed to fire again within `recurrence`.
fn relapsed(closed: &[(Line, Outcome)], recurrence: SignedDuration) -> HashSet<RecordId> {
    let mut last: HashMap<&str, (RecordId, Timestamp)> = HashMap::new();
    let mut found = HashSet::new();
    for (line, outcome) in closed {
        let Some(target) = line.target.as_deref() else { continue };
        let fires = line.evidence.reading.as_ref().is_some_and(|reading| reading.state == "firing");
        if let Some((id, at)) = last.get(target)
            && fires
            && (SignedDuration::ZERO..=recurrence).contains(&opened(line).duration_since(*at))
        {
            found.insert(*id);
        }
        if *outcome == Outcome::Recovered {
            last.insert(target, (line.id, line.ts));
        }
    }
    found
}

/// When it was opened, as far as its line says.
fn opened(line: &Line) -> Timestamp {
    let took = SignedDuration::from_millis(line.duration_ms.and_then(|ms| i64::try_from(ms).ok()).unwrap_or_default());
    line.ts.checked_sub(took).unwrap_or(line.ts)
}
