//! The walk of one alert, to be read aloud: is it true, right now, here? What should be done? May we, now? Drain,
//! restart, readmit. Did it help? What happened, and why?
//!
//! Every stage either hands on what the next one needs or ends the walk; an [`Ending`] is how a record closes.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use crate::act::hands::Hands;
use crate::act::scribe::{Scribe, Settled};
use crate::act::{self, Acted, abort, recover};
use crate::audit::journal::Journal;
use crate::audit::state::State;
use crate::decide::decision::{Decision, Explained, Finding, Plan, decide};
use crate::decide::evidence::{Evidence, Reading};
use crate::decide::playbook::Playbook;
use crate::detect::confirm::{Question, confirm};
use crate::detect::look::Looks;
use crate::detect::rush::Rush;
use crate::detect::target_of;
use crate::detect::watchdog::Watchdog;
use crate::event::{Accepted, Draft, Event, Phase, Record, RecordId, Step};
use crate::guard::coordinate::{Admission, admit};
use crate::guard::permit::{Granted, Live, Permit};
use crate::guard::rails::{Limits, Request};
use crate::moment::Moment;
use crate::period::Period;
use crate::reason::{Outcome, Reason};
use crate::verify::recovery::verify;
use crate::verify::{Judgement, Verdict};
use crate::words;
use crate::world::World;

/// How often an answer that is not yet clear (the rule's listing and its expression disagree for a moment) is asked
/// for again before it counts.
const PATIENCE: u32 = 3;

/// How old the answer that nothing is the matter may be when it is written down.
const QUIET_FOR: SignedDuration = SignedDuration::from_secs(15);

/// What every room needs. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub world: World,
    /// Of that world, shared by all walks.
    pub looks: Looks,
    /// Deliveries come first.
    pub rush: Rush,
    /// What is being done outside and is not written yet.
    pub hands: Hands,
    pub journal: Journal,
    pub playbooks: Arc<RwLock<Arc<Vec<Playbook>>>>,
    pub limits: Limits,
    pub timing: Timing,
    /// This host's name, for the audit.
    pub host: String,
    /// The dead-man's switch that deliveries are listened to for.
    pub watchdog: Arc<Watchdog>,
    /// Cancelled when the program is to stop at the next safe point.
    pub shutdown: CancellationToken,
}

/// How patient the program is.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How often an unsettled episode is asked about again.
    pub ask_again: Period,
    /// How long an episode is watched, and its page kept, at least.
    pub hold: Period,
    /// How often a page is sent again.
    pub page_every: Period,
}

/// How a walk ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub outcome: Outcome,
    pub reason: Reason,
    pub detail: String,
}

/// Walks one record from where it stands to its end. Never fails; what goes wrong is how it ends. True when it was admitted,
/// and so held what others may have waited for.
pub async fn walk(context: &Context, record: Record) -> bool {
    let mut scribe = Scribe::new(context.journal.clone(), record.id);
    loop {
        let joined = context.journal.read(|state| joined(state, record.id));
        let ending = road(context, &mut scribe, &record).await.unwrap_or_else(|ending| ending);
        let held = context.journal.read(|state| state.open.get(&record.id).is_some_and(|record| record.intent.is_some()));
        if close(context, &mut scribe, ending, joined).await {
            return held;
        }
    }
}

/// Writes down how the walk ended, unless it is left for the next process. False when that must be asked for again: that nothing
/// is the matter is true of its moment and of the alerts that had `joined` by then, and it could not be written down in time.
async fn close(context: &Context, scribe: &mut Scribe, ending: Ending, joined: usize) -> bool {
    let closes = !left_for_the_next(&ending, scribe);
    let Ending { outcome, reason, detail } = ending;
    if closes {
        scribe.hold(context.world.clock.now(), Event::Closed { outcome, reason, detail: detail.clone() });
    }
    let (passing, id, clock) = (outcome == Outcome::ConditionCleared, scribe.record(), context.world.clock.clone());
    // Once by the time of the evidence: where asking again takes as long, that is as good as it gets. Then by how long it waits for
    // the disk, and longer each time, so that a disk that is always slow does not keep it open.
    let since = scribe.seen().filter(|_| scribe.dropped() == 0).unwrap_or_else(|| Moment::now(&*clock));
    let most = QUIET_FOR * i32::try_from(scribe.dropped() + 1).unwrap_or(i32::MAX);
    let outdated = move |state: &State| passing && (since.age(clock.now()) > most || self::joined(state, id) > joined);
    let settled = scribe.settle(&*context.world.clock, &context.shutdown, outdated).await;
    if settled == Settled::Written && closes {
        tracing::info!(record = %id, %outcome, %reason, detail, "closed");
    }
    settled != Settled::Outdated
}

/// How many alerts have joined the record.
fn joined(state: &State, record: RecordId) -> usize {
    state.open.get(&record).map_or(0, |record| record.members.len())
}

/// Asked to stop before anything was consumed, or while verifying: the record stays open, and the next process goes on
/// from there. In between, the run is broken off and closed.
fn left_for_the_next(ending: &Ending, scribe: &Scribe) -> bool {
    ending.reason == Reason::ShuttingDown && (!scribe.began(Step::CaptureEvidence) || scribe.began(Step::Restart))
}

async fn road(context: &Context, scribe: &mut Scribe, record: &Record) -> Result<Ending, Ending> {
    let acted = match (record.phase, &record.intent) {
        // A crash came between the last word and the close.
        (Phase::Judged | Phase::Refused | Phase::Closed, _) | (Phase::Admitted, None) => return Err(Ending::left_open(record)),
        // Before anybody asks for the playbook, which may be gone: what was begun has to be brought to an end.
        (Phase::Admitted, Some(intent)) => recover::take_up(context, scribe, record, intent).await?,
        (Phase::Accepted | Phase::Confirmed | Phase::Decided, _) => {
            let playbook = claim(context, record)?;
            let (evidence, seen) = confirm_patiently(context, scribe, record, &playbook).await?;
            let plan = decided(context, scribe, &playbook, &evidence)?;
            let permit = guarded(context, scribe, &playbook, evidence, seen, plan).await?;
            act::carry_out(context, scribe, permit, seen).await?
        }
    };
    let judgement = judged(context, scribe, record, &acted).await?;
    Ok(Ending::of(judgement))
}

/// The playbook that claimed the alert, as it is written today.
fn claim(context: &Context, record: &Record) -> Result<Playbook, Ending> {
    let Some(name) = &record.accepted.playbook else {
        let alertname = record.accepted.alert.labels.alertname().to_owned();
        return Err(Ending::unmatched(Reason::NoPlaybook, format!("no playbook matches {alertname:?}")));
    };
    if record.accepted.target.is_none() {
        let detail = format!("the alert has no usable value in the label that playbook {name} names a replica by");
        return Err(Ending::unmatched(Reason::TargetUnnamed, detail));
    }
    context.own_playbook(&record.accepted).ok_or_else(|| {
        let detail = format!("playbook {name} is gone, or is no longer for this alert");
        Ending::unmatched(Reason::NoPlaybook, detail)
    })
}

/// Is it true, right now, here?
async fn confirm_patiently(
    context: &Context,
    scribe: &mut Scribe,
    record: &Record,
    playbook: &Playbook,
) -> Result<(Evidence, Moment), Ending> {
    let looking = async {
        let mut seen = ask(context, record, playbook).await?;
        for _ in 0..PATIENCE {
            if !unclear(&seen.0.reading) {
                break;
            }
            context.pause_for(Duration::from_millis(500).max(context.timing.ask_again.get() / 2)).await?;
            seen = ask(context, record, playbook).await?;
        }
        Ok(seen)
    };
    let (evidence, moment) = tokio::select! {
        biased;
        aborted = abort::ordered(&context.journal, record.id) => return Err(aborted),
        seen = looking => seen?,
    };
    scribe.confirmed(evidence.clone(), moment);
    Ok((evidence, moment))
}

async fn ask(context: &Context, record: &Record, playbook: &Playbook) -> Result<(Evidence, Moment), Ending> {
    let Some(target) = &record.accepted.target else {
        return Err(Ending::unmatched(Reason::TargetUnnamed, "the alert names no replica".to_owned()));
    };
    let siblings = context.playbooks();
    let question = Question { accepted: &record.accepted, target, playbook, siblings: siblings.as_slice() };
    // Nothing is changed by asking, so that a Prometheus that takes its time does not hold up the stop.
    tokio::select! {
        biased;
        seen = confirm(&context.world, &context.looks, question) => Ok(seen),
        () = context.shutdown.cancelled() => Err(Ending::interrupted(Reason::ShuttingDown, "stopped while confirming")),
    }
}

/// The signals disagree in a way that a moment may settle.
pub fn unclear(reading: &Reading) -> bool {
    use Reason::{AlertPending, InputMissing, InputStale, RuleLags, RuleStale, SignalsMixed};
    match reading {
        Reading::Unknown { why } => {
            matches!(why.reason, AlertPending | InputMissing | InputStale | RuleLags | RuleStale | SignalsMixed)
        }
        Reading::Firing { .. } | Reading::Quiet { .. } => false,
    }
}

/// What should be done?
fn decided(context: &Context, scribe: &mut Scribe, playbook: &Playbook, evidence: &Evidence) -> Result<Plan, Ending> {
    let now = context.world.clock.now();
    let explained = decide(playbook, evidence, now);
    scribe.hold(now, Event::Decided { decision: explained.clone() });
    plan_of(explained)
}

/// The plan, or the ending that the decision means.
pub fn plan_of(explained: Explained) -> Result<Plan, Ending> {
    match explained.decision {
        Decision::Remediate { plan } => Ok(*plan),
        Decision::Escalate { finding: Finding { outcome, reason, detail } }
        | Decision::Ignore { finding: Finding { outcome, reason, detail } } => Err(Ending { outcome, reason, detail }),
    }
}

/// May we, now? Evaluated and consumed in the journal's writer, in one transaction with the intent and the start of the
/// first step, which only looks.
async fn guarded(
    context: &Context,
    scribe: &mut Scribe,
    playbook: &Playbook,
    evidence: Evidence,
    seen: Moment,
    plan: Plan,
) -> Result<Permit<Live>, Ending> {
    let (playbook, limits, clock, id) = (playbook.clone(), context.limits, context.world.clock.clone(), scribe.record());
    let admission = scribe.transact(move |state| {
        let now = clock.now();
        if let Some(aborted) = abort::of(state, id) {
            return (Vec::new(), Err(aborted));
        }
        let passed = seen.passed();
        let request = Request { playbook: &playbook, limits: &limits, evidence: &evidence, passed, plan: &plan };
        match admit(&state.books, &request, id, now) {
            Admission::Admitted { granted, intent } => {
                let first = Event::StepStarted { step: Step::CaptureEvidence };
                let begun = matches!(granted, Granted::Live(_)).then_some(first);
                let events = [Event::Intent { intent }].into_iter().chain(begun);
                (events.map(|event| Draft::of(id, now, event)).collect(), Ok(granted))
            }
            Admission::Refused(assessment) => {
                let ending = Ending::refused(&assessment);
                let event = Event::Refused { guards: assessment.checks, recurred: assessment.recurred };
                (vec![Draft::of(id, now, event)], Err(ending))
            }
        }
    });
    match admission.await.map_err(Ending::unwritten)?? {
        Granted::Live(permit) => Ok(permit),
        Granted::Shadow(permit) => {
            let detail = words::would_remediate(permit.plan());
            Err(Ending { outcome: Outcome::Shadow, reason: Reason::WouldRemediate, detail })
        }
    }
}

/// Did it help?
async fn judged(context: &Context, scribe: &mut Scribe, record: &Record, acted: &Acted) -> Result<Judgement, Ending> {
    let verdict = verify(context, &record.accepted.alert.labels, acted);
    let judgement = tokio::select! {
        biased;
        judgement = verdict => judgement,
        () = context.shutdown.cancelled() => return Err(Ending::interrupted(Reason::ShuttingDown, "stopped while verifying")),
    };
    scribe.hold(context.world.clock.now(), Event::Judged { judgement: judgement.clone() });
    Ok(judgement)
}

impl Context {
    pub fn playbooks(&self) -> Arc<Vec<Playbook>> {
        Arc::clone(&self.playbooks.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn playbook(&self, name: &crate::target::PlaybookName) -> Option<Playbook> {
        self.playbooks().iter().find(|playbook| playbook.name == *name).cloned()
    }

    /// The playbook that took an alert in, if it still is for this target and still claims the alert: a name alone is no
    /// leave, because a reload may have narrowed what stands behind it.
    pub fn own_playbook(&self, accepted: &Accepted) -> Option<Playbook> {
        let (name, target) = (accepted.playbook.as_ref()?, accepted.target.as_ref()?);
        self.playbook(name).filter(|playbook| {
            playbook.service == target.service && (playbook.every.is_some() || playbook.claims(&accepted.alert.labels))
        })
    }

    /// The playbook that an alert belongs to today: its own, or else whichever claims it for the same target, such as one
    /// that was given another name.
    pub fn playbook_today(&self, accepted: &Accepted) -> Option<Playbook> {
        self.own_playbook(accepted).or_else(|| {
            let labels = &accepted.alert.labels;
            let fits = |playbook: &&Playbook| {
                playbook.claims(labels) && accepted.target.is_some() && target_of(playbook, labels) == accepted.target
            };
            self.playbooks().iter().find(fits).cloned()
        })
    }

    /// Waits, unless the program is to stop.
    async fn pause_for(&self, how_long: Duration) -> Result<(), Ending> {
        tokio::select! {
            biased;
            () = self.world.clock.sleep(how_long) => Ok(()),
            () = self.shutdown.cancelled() => Err(Ending::interrupted(Reason::ShuttingDown, "remediator was asked to stop")),
        }
    }
}

impl Ending {
    pub fn interrupted(reason: Reason, detail: impl Into<String>) -> Self {
        Ending { outcome: Outcome::Interrupted, reason, detail: detail.into() }
    }

    pub fn failed(reason: Reason, detail: impl Into<String>) -> Self {
        Ending { outcome: Outcome::ActionFailed, reason, detail: detail.into() }
    }

    pub fn refused(assessment: &crate::guard::rails::Assessment) -> Self {
        match assessment.first() {
            Some((check, refusal)) => Ending { outcome: Outcome::Refused, reason: refusal.reason, detail: check.detail.clone() },
            None => Ending { outcome: Outcome::Refused, reason: Reason::RadiusUnknown, detail: "no rail said why".to_owned() },
        }
    }

    fn unmatched(reason: Reason, detail: String) -> Self {
        Ending { outcome: Outcome::UnmatchedTarget, reason, detail }
    }

    /// Nothing is done whose intent is not on disk.
    fn unwritten(error: crate::audit::JournalError) -> Self {
        Ending { outcome: Outcome::Refused, reason: Reason::StoreUnavailable, detail: error.to_string() }
    }

    /// What a record says that an earlier process did not get to close.
    fn left_open(record: &Record) -> Self {
        if let Some(judgement) = &record.judgement {
            return Ending::of(judgement.clone());
        }
        match record.guards.iter().find_map(|check| check.refusal.map(|refusal| (check, refusal))) {
            Some((check, refusal)) => Ending { outcome: Outcome::Refused, reason: refusal.reason, detail: check.detail.clone() },
            None => Ending::interrupted(Reason::Crashed, "stopped before the end"),
        }
    }

    fn of(judgement: Judgement) -> Self {
        let outcome = match judgement.verdict {
            Verdict::Recovered => Outcome::Recovered,
            Verdict::StillFiring => Outcome::StillFiring,
            Verdict::Unknown => Outcome::VerdictUnknown,
        };
        Ending { outcome, reason: judgement.reason, detail: judgement.detail }
    }
}
