//! What the journal can say, and how what it says folds into a record.
//!
//! The journal is the truth: a [`Record`] is nothing but the fold of its entries. [`Record::apply`] names every legal
//! transition and refuses all others, so that neither a bug nor a doctored file can make a record say something that
//! the walk cannot do. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::alert::{Alert, LabelSet};
use crate::decide::decision::{Explained, Plan};
use crate::decide::evidence::Evidence;
use crate::decide::playbook::Mode;
use crate::guard::rails::{BucketLevel, RailCheck};
use crate::period::Period;
use crate::reason::{Outcome, Reason};
use crate::target::{EpisodeKey, PlaybookName, ServerPath, Target};
use crate::verify::Judgement;
use crate::world::Call;

/// A record's id: a UUID of version 7, so that ids sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordId(pub Uuid);

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub seq: u64,
    pub at: Timestamp,
    /// The record it belongs to; none for what concerns the whole program.
    pub record: Option<RecordId>,
    #[serde(flatten)]
    pub event: Event,
}

/// An entry that has no place in the journal yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    pub at: Timestamp,
    pub record: Option<RecordId>,
    pub event: Event,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// An alert of ours was taken in; 2xx follows only after this is on disk.
    Accepted {
        accepted: Arc<Accepted>,
    },
    /// Another firing of the same episode joined. Written once per alert; repeats are only counted.
    Folded {
        alert: Member,
    },
    Confirmed {
        evidence: Arc<Evidence>,
    },
    Decided {
        decision: Explained,
    },
    /// A guardrail said no. Every rail is listed, not only those that refused.
    Refused {
        guards: Vec<RailCheck>,
        recurred: Vec<RecordId>,
    },
    /// Everything passed and was consumed; nothing outside is done before this is on disk.
    Intent {
        intent: Arc<Intent>,
    },
    StepStarted {
        step: Step,
    },
    StepEnded {
        step: Step,
        call: Call,
        #[serde(default)]
        note: serde_json::Value,
    },
    Judged {
        judgement: Judgement,
    },
    /// A person wants this run broken off. Once it is here, no drain and no restart of the record begins any more.
    AbortOrdered {
        abort: Abort,
    },
    Closed {
        outcome: Outcome,
        reason: Reason,
        detail: String,
    },
    /// A firing was delivered for an episode that is being watched, and says something that the watch did not know.
    Joined {
        accepted: Arc<Accepted>,
        /// The record that the watch points to, so that it is found by this alert, too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<RecordId>,
    },
    /// Nobody waits for this key any more.
    WatchEnded {
        key: EpisodeKey,
        detail: String,
    },
    /// A server that we had drained was readmitted outside its own run.
    Readmitted {
        server: ServerPath,
        detail: String,
    },
    Paused {
        pause: Pause,
    },
    Resumed {
        scope: PauseScope,
        actor: String,
        reason: String,
    },
    BreakerReset {
        breaker: String,
        actor: String,
        reason: String,
    },
    /// A process opened the journal.
    Started {
        version: String,
        pid: u32,
    },
    /// The oldest entries were taken out of the journal, in the same transaction as this was written.
    Pruned {
        pruned: Pruned,
    },
}

/// What was taken out at the old end of the chain, and the proof of what is kept in its place: the anchor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// The last entry that is gone. All before it are, too.
    pub through: u64,
    /// Its hash: what the first entry that is kept must follow.
    pub anchor_hash: String,
    /// Its time. Whatever closed before it is gone.
    pub before: Timestamp,
    /// Entries and records taken out this time.
    pub entries: u64,
    pub records: u64,
    /// Of the state that all pruned entries add up to, as it is stored beside the chain.
    pub state_sha256: String,
}

/// What Detect wrote down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    pub key: EpisodeKey,
    pub alert: Alert,
    pub fingerprint: String,
    pub receiver: String,
    pub group_key: String,
    pub truncated: u64,
    pub trigger: Trigger,
    /// None: no playbook claims the alert.
    pub playbook: Option<PlaybookName>,
    /// None: the alert does not name one.
    pub target: Option<Target>,
    pub mode: Mode,
    pub host: String,
    /// Name and version of this program.
    pub healer: String,
}

/// What made us look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Trigger {
    Webhook,
    /// A playbook's own `every`.
    Poll,
    /// The timer of an episode that was left unsettled.
    AskedAgain {
        of: RecordId,
    },
}

/// An alert that belongs to the episode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub fingerprint: String,
    pub labels: LabelSet,
    pub group_key: String,
}

/// Leave to act, as the journal keeps it: what was consumed, and what will be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    pub key: EpisodeKey,
    pub playbook: PlaybookName,
    pub mode: Mode,
    pub plan: Plan,
    pub expires_at: Timestamp,
    pub guards: Vec<RailCheck>,
    /// Levels of the token buckets after this attempt was taken from them.
    pub buckets: Vec<BucketLevel>,
    /// This attempt is the one probe of a half-open breaker.
    pub probe: bool,
    /// Earlier runs that this firing proves to have been no cure.
    pub recurred: Vec<RecordId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    CaptureEvidence,
    Drain,
    Restart,
    AwaitHealthy,
    Readmit,
}

/// Leave withdrawn by a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    pub scope: PauseScope,
    pub actor: String,
    pub reason: String,
    pub until: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "scope", content = "name", rename_all = "snake_case")]
pub enum PauseScope {
    All,
    Playbook(PlaybookName),
    /// `service/instance`.
    Target(String),
}

/// A run broken off by a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    pub actor: String,
    pub reason: String,
}

/// How far a record has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Accepted,
    Confirmed,
    Decided,
    Refused,
    Admitted,
    Judged,
    Closed,
}

/// One step as it went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRun {
    pub step: Step,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub call: Option<Call>,
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub note: serde_json::Value,
}

/// The note of a step that was begun and not ordered, because what had been seen before its start was on disk was no longer so.
pub fn note_held_back() -> serde_json::Value {
    serde_json::json!({ "ordered": false })
}

/// The note of a step's end says so.
pub fn held_back(note: &serde_json::Value) -> bool {
    *note == note_held_back()
}

/// The whole story of one alert: the answer to "why did it do that?".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub id: RecordId,
    pub phase: Phase,
    pub opened_at: Timestamp,
    pub closed_at: Option<Timestamp>,
    pub outcome: Option<Outcome>,
    pub reason: Option<Reason>,
    pub detail: String,
    /// Shared with the entry that said so and with the watch that comes after, as are evidence and intent: thousands of records
    /// may be open, and each stands in two states.
    #[serde(flatten)]
    pub accepted: Arc<Accepted>,
    pub members: Vec<Member>,
    pub evidence: Option<Arc<Evidence>>,
    pub decision: Option<Explained>,
    pub guards: Vec<RailCheck>,
    pub intent: Option<Arc<Intent>>,
    pub steps: Vec<StepRun>,
    pub judgement: Option<Judgement>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
    /// The last entry that is folded in.
    pub seq: u64,
}

/// An entry that cannot follow what the record already says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {seq}: {event} cannot follow {phase} in record {record}")]
pub struct IllegalTransition {
    pub seq: u64,
    pub record: String,
    pub event: &'static str,
    pub phase: String,
}

impl RecordId {
    /// When the record was opened, to the millisecond, as the id itself says; none for an id that is not of version 7.
    pub fn opened_at(self) -> Option<Timestamp> {
        let (seconds, nanos) = self.0.get_timestamp().filter(|_| self.0.get_version_num() == 7)?.to_unix();
        Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok()
    }
}

impl std::fmt::Display for RecordId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for RecordId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(RecordId)
    }
}

impl Step {
    pub const ALL: [Step; 5] = [Step::CaptureEvidence, Step::Drain, Step::Restart, Step::AwaitHealthy, Step::Readmit];

    pub fn word(self) -> &'static str {
        match self {
            Step::CaptureEvidence => "capture_evidence",
            Step::Drain => "drain",
            Step::Restart => "restart",
            Step::AwaitHealthy => "await_healthy",
            Step::Readmit => "readmit",
        }
    }
}

impl Event {
    /// The tag that the entry carries in the journal.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Accepted { .. } => "accepted",
            Event::Folded { .. } => "folded",
            Event::Confirmed { .. } => "confirmed",
            Event::Decided { .. } => "decided",
            Event::Refused { .. } => "refused",
            Event::Intent { .. } => "intent",
            Event::StepStarted { .. } => "step_started",
            Event::StepEnded { .. } => "step_ended",
            Event::Judged { .. } => "judged",
            Event::AbortOrdered { .. } => "abort_ordered",
            Event::Closed { .. } => "closed",
            Event::Joined { .. } => "joined",
            Event::WatchEnded { .. } => "watch_ended",
            Event::Readmitted { .. } => "readmitted",
            Event::Paused { .. } => "paused",
            Event::Resumed { .. } => "resumed",
            Event::BreakerReset { .. } => "breaker_reset",
            Event::Started { .. } => "started",
            Event::Pruned { .. } => "pruned",
        }
    }
}

impl Draft {
    pub fn of(record: RecordId, at: Timestamp, event: Event) -> Self {
        Draft { at, record: Some(record), event }
    }

    /// For what concerns the whole program.
    pub fn global(at: Timestamp, event: Event) -> Self {
        Draft { at, record: None, event }
    }
}

impl Pause {
    pub fn covers(&self, playbook: &PlaybookName, target: &Target, now: Timestamp) -> bool {
        let live = self.until.is_none_or(|until| now < until);
        live && match &self.scope {
            PauseScope::All => true,
            PauseScope::Playbook(name) => name == playbook,
            PauseScope::Target(name) => *name == target.to_string(),
        }
    }
}

impl std::fmt::Display for PauseScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PauseScope::All => f.write_str("everything"),
            PauseScope::Playbook(name) => write!(f, "playbook {name}"),
            PauseScope::Target(name) => write!(f, "target {name}"),
        }
    }
}

impl Record {
    /// The record that its first entry makes.
    ///
    /// # Errors
    /// The entry is not an `accepted`, or belongs to no record.
    pub fn open(entry: &Entry) -> Result<Record, IllegalTransition> {
        match (&entry.event, entry.record) {
            (Event::Accepted { accepted }, Some(id)) => Ok(Record {
                id,
                phase: Phase::Accepted,
                opened_at: entry.at,
                closed_at: None,
                outcome: None,
                reason: None,
                detail: String::new(),
                accepted: Arc::clone(accepted),
                members: Vec::new(),
                evidence: None,
                decision: None,
                guards: Vec::new(),
                intent: None,
                steps: Vec::new(),
                judgement: None,
                abort: None,
                seq: entry.seq,
            }),
            _ => Err(IllegalTransition {
                seq: entry.seq,
                record: entry.record.map(|r| r.to_string()).unwrap_or_default(),
                event: entry.event.kind(),
                phase: "nothing".to_owned(),
            }),
        }
    }

    /// Folds the next entry in.
    ///
    /// # Errors
    /// Every transition that is not named here; the record is left as it was.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), IllegalTransition> {
        use Phase::{Accepted, Admitted, Closed, Confirmed, Decided, Judged, Refused};
        match (self.phase, &entry.event) {
            (phase, Event::Folded { alert }) if phase != Closed => self.members.push(alert.clone()),
            // Asked again: the answer was not yet clear, or a crash came before the decision was admitted.
            (Accepted | Confirmed | Decided, Event::Confirmed { evidence }) => {
                self.evidence = Some(Arc::clone(evidence));
                self.phase = Confirmed;
            }
            (Confirmed, Event::Decided { decision }) => {
                self.decision = Some(decision.clone());
                self.phase = Decided;
            }
            (Decided, Event::Refused { guards, .. }) => {
                self.guards.clone_from(guards);
                self.phase = Refused;
            }
            (Decided, Event::Intent { intent }) if self.abort.is_none() => {
                self.guards.clone_from(&intent.guards);
                self.intent = Some(Arc::clone(intent));
                self.phase = Admitted;
            }
            (Admitted, Event::StepStarted { step }) if self.may_start(*step) => self.steps.push(StepRun {
                step: *step,
                started_at: entry.at,
                ended_at: None,
                call: None,
                note: serde_json::Value::Null,
            }),
            (Admitted, Event::StepEnded { step, call, note }) if self.running() == Some(*step) => {
                if let Some(run) = self.steps.last_mut() {
                    run.ended_at = Some(entry.at);
                    run.call = Some(call.clone());
                    run.note = note.clone();
                }
            }
            (Admitted, Event::Judged { judgement }) if self.running().is_none() && self.began(Step::Restart) => {
                self.judgement = Some(judgement.clone());
                self.phase = Judged;
            }
            // An order that nothing can follow any more is not taken: whoever gave it is told so instead.
            (_, Event::AbortOrdered { abort }) if self.may_abort() => {
                self.abort = Some(abort.clone());
            }
            (phase, Event::Closed { outcome, reason, detail }) if phase != Closed && self.running().is_none() => {
                self.phase = Closed;
                self.closed_at = Some(entry.at);
                self.outcome = Some(*outcome);
                self.reason = Some(*reason);
                self.detail.clone_from(detail);
            }
            _ => {
                return Err(IllegalTransition {
                    seq: entry.seq,
                    record: self.id.to_string(),
                    event: entry.event.kind(),
                    phase: format!("{:?}", self.phase).to_lowercase(),
                });
            }
        }
        self.seq = entry.seq;
        Ok(())
    }

    /// Once, and until the restart is begun: what is restarted cannot be taken back.
    pub fn may_abort(&self) -> bool {
        let walking = matches!(self.phase, Phase::Accepted | Phase::Confirmed | Phase::Decided | Phase::Admitted);
        walking && self.abort.is_none() && !self.began(Step::Restart) && !self.began(Step::Readmit)
    }

    /// Forward in the order of the plan, each once, one at a time; readmit also straight after anything, and again
    /// after a readmit that was not done. After an abort only readmit.
    fn may_start(&self, step: Step) -> bool {
        let idle = self.running().is_none();
        let last = self.steps.last().map(|run| run.step);
        let live = self.intent.as_ref().is_some_and(|intent| intent.mode == Mode::Live);
        let allowed = self.abort.is_none() || step == Step::Readmit;
        idle && live && allowed && (last.is_none_or(|last| step > last) || (step == Step::Readmit && !self.done(Step::Readmit)))
    }

    /// The step was begun, and it is not known that its order was held back.
    pub fn ordered(&self, step: Step) -> bool {
        self.steps.iter().any(|run| run.step == step && !held_back(&run.note))
    }

    /// The step that has started and not ended.
    pub fn running(&self) -> Option<Step> {
        self.steps.last().filter(|run| run.ended_at.is_none()).map(|run| run.step)
    }

    /// True when the step ended and it is known that it happened.
    pub fn done(&self, step: Step) -> bool {
        self.steps.iter().any(|run| run.step == step && run.call == Some(Call::Done))
    }

    pub fn began(&self, step: Step) -> bool {
        self.steps.iter().any(|run| run.step == step)
    }

    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// From the first entry to the last, or nothing while it is open.
    pub fn duration(&self) -> Option<Period> {
        let closed = self.closed_at?;
        std::time::Duration::try_from(closed.duration_since(self.opened_at)).ok().map(Period::from)
    }
}
