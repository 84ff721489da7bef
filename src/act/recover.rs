//! After a crash: what the journal says was begun is looked at, finished to a safe point, and never repeated blindly.
//!
//! | the record says | what is done |
//! |---|---|
//! | no intent | the walk starts again at Confirm (`pipeline`); nothing was consumed |
//! | intent, no drain begun | `interrupted`; nothing was touched |
//! | drain begun and not held back, restart not begun | readmit, `interrupted` (as aborted, if a person had ordered that) |
//! | restart begun, end unknown | the container's start tells: restarted → go on; not → readmit, `interrupted`; no answer → readmit, `restart_unknown` |
//! | restart failed, or held back | readmit, `interrupted` |
//! | restart done | healthy, readmit, verify, as if nothing had happened |
//!
//! `reconcile` is the second net: whatever is drained in our name and belongs to no open record is readmitted.

use std::time::Duration;

use jiff::Timestamp;

use crate::act::scribe::Scribe;
use crate::act::steps::{Steps, readmit, restarted_after_all};
use crate::act::{Acted, abort};
use crate::decide::decision::Plan;
use crate::decide::playbook::Mode;
use crate::event::{Draft, Event, Intent, Record, RecordId, Step};
use crate::mutant::{Mutant, off};
use crate::pipeline::{Context, Ending};
use crate::reason::{Outcome, Reason};
use crate::target::ServerPath;
use crate::world::Call;

/// How long a call that was cut off by a crash may still be at work in the Engine.
const SETTLE: Duration = Duration::from_secs(1);
/// How long it may take to write down a readmit that is done.
const WRITTEN: Duration = Duration::from_secs(10);

/// Takes up a run that an earlier process began.
///
/// # Errors
/// The ending that the record is to be closed with.
pub async fn take_up(context: &Context, scribe: &mut Scribe, record: &Record, intent: &Intent) -> Result<Acted, Ending> {
    if off(Mutant::TakeUp) {
        return Err(Ending::interrupted(Reason::Crashed, "left as it is"));
    }
    let plan = intent.plan.clone();
    if intent.mode == Mode::Shadow {
        let detail = crate::words::would_remediate(&plan);
        return Err(Ending { outcome: Outcome::Shadow, reason: Reason::WouldRemediate, detail });
    }
    let restart_at = record.steps.iter().find(|run| run.step == Step::Restart).map(|run| run.started_at);
    end_what_was_running(context, scribe, record, &plan).await;
    let mut steps = Steps { context, scribe, plan: plan.clone(), drain_unknown: true };
    let restarted: Result<Timestamp, Ending> = async {
        let Some(acted_at) = restart_at else {
            let crashed = || Ending::interrupted(Reason::Crashed, "stopped before the restart");
            return Err(abort::ending(&context.journal, record.id).unwrap_or_else(crashed));
        };
        match restarted(context, record, &plan).await {
            Ok(true) => {}
            Ok(false) => {
                return Err(Ending::interrupted(Reason::Crashed, "stopped at the restart, and the container did not restart"));
            }
            Err(why) => {
                let detail = format!("stopped at the restart, and Docker cannot say whether the container restarted: {why}");
                return Err(Ending::failed(Reason::RestartUnknown, detail));
            }
        }
        if !record.began(Step::AwaitHealthy) && !record.began(Step::Readmit) {
            steps.await_healthy(acted_at).await?;
        }
        Ok(acted_at)
    }
    .await;
    let readmitted = match record.ordered(Step::Drain) && !record.done(Step::Readmit) {
        true => steps.readmit().await,
        false => Ok(()),
    };
    let acted_at = restarted?;
    readmitted?;
    Ok(Acted { plan, acted_at })
}

/// A step that has no end was cut off by the crash; what became of it is looked up where that matters.
async fn end_what_was_running(context: &Context, scribe: &mut Scribe, record: &Record, plan: &Plan) {
    let Some(step) = record.running() else { return };
    let call = match step {
        Step::Restart => {
            let _restarting = context.hands.restarting(&plan.server);
            context.world.clock.sleep(SETTLE).await;
            restarted_after_all(&context.world, plan, "remediator stopped during the call").await
        }
        _ => Call::Unknown("remediator stopped during this step".to_owned()),
    };
    scribe.note(context.world.clock.now(), Event::StepEnded { step, call, note: serde_json::Value::Null }).await;
}

/// Done or not according to the journal, or according to the container's start; an error when neither can say.
async fn restarted(context: &Context, record: &Record, plan: &Plan) -> Result<bool, String> {
    match record.steps.iter().find(|run| run.step == Step::Restart).and_then(|run| run.call.as_ref()) {
        Some(Call::Done) => return Ok(true),
        // Whoever has started the container since, it was not this run.
        Some(Call::Failed(_)) => return Ok(false),
        Some(Call::Unknown(_)) | None => {}
    }
    let container = context.world.engine.inspect(&plan.container).await.map_err(|why| why.detail)?;
    Ok(container.started_at.is_some_and(|at| at > plan.started_at))
}

/// Readmits whatever is drained in our name, whoever's record it is and whether or not it can be written down: for a
/// process that cannot start or has to stop, and for one whose journal hangs. What is being restarted at this moment waits, and what
/// was readmitted before is left alone: by now it may be somebody else's drain. The next process finds it readmitted, and so does a
/// run that waits for its disk: its last look says that the drain is lost.
pub async fn release(context: &Context) -> usize {
    let mut left = 0;
    for (server, record) in context.hands.left(drained(context)) {
        match readmit(&context.world, &server, true).await {
            Ok(detail) => {
                context.hands.drain_is_over(&server, record);
                tracing::warn!(%server, %record, detail, "readmitted, and not written down");
            }
            Err(error) => {
                left += 1;
                tracing::error!(%server, %record, %error, "a server is drained in our name and cannot be readmitted");
            }
        }
    }
    left
}

fn drained(context: &Context) -> Vec<(ServerPath, RecordId)> {
    context.journal.read(|state| {
        let drained = state.books.drained.iter();
        drained.map(|(server, drained)| (server.clone(), drained.record)).collect()
    })
}

/// Compares the balancer with the journal and readmits what is drained in our name without an open record; everything, when the
/// journal hangs. Returns how many servers are still drained in our name although nobody works on them.
pub async fn reconcile(context: &Context) -> usize {
    if off(Mutant::Reconcile) {
        return 0;
    }
    // Every way to a readmit leads through the journal, but for this one.
    match context.journal.answers().await {
        true => release_orphans(context).await,
        false => release(context).await,
    }
}

/// As [`reconcile`], without asking the journal's writer first: for a process that stops, and what it does last has a bound.
pub async fn release_orphans(context: &Context) -> usize {
    let (hands, drained) = (&context.hands, drained(context));
    hands.forget_all_but(&drained);
    // Nobody works on it, or somebody who does nothing more for it and waits for the journal.
    let orphan = |(server, record): &(ServerPath, RecordId)| {
        context.journal.read(|state| !state.open.contains_key(record)) || hands.has_given_up(server, *record)
    };
    let mut left = 0;
    let mut done = Vec::new();
    for (server, record) in drained.into_iter().filter(orphan) {
        // Once is enough: whoever drains it by now is somebody else.
        if hands.is_over(&server, record) {
            done.push((server, record, "readmitted before".to_owned()));
            continue;
        }
        match readmit(&context.world, &server, false).await {
            Ok(detail) => {
                tracing::warn!(%server, %record, %detail, "readmitted");
                hands.drain_is_over(&server, record);
                done.push((server, record, detail));
            }
            Err(error) => {
                left += 1;
                tracing::error!(%server, %record, %error, "a server is drained in our name and cannot be readmitted");
            }
        }
    }
    // After all of them: a disk that hangs by now holds none of them up.
    for (server, record, detail) in done {
        let at = context.world.clock.now();
        let written = context.journal.transact(move |state| {
            // By now another record may have drained it. One that is open has a readmit of its own to write, and its next process would
            // find a drain that is no longer in the books.
            let ours = state.books.drained.get(&server).is_some_and(|drained| drained.record == record);
            let ours = ours && !state.open.contains_key(&record);
            let detail = format!("drained by record {record}: {detail}");
            (ours.then(|| Draft::global(at, Event::Readmitted { server, detail })).into_iter().collect(), ())
        });
        match tokio::time::timeout(WRITTEN, written).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(%error, "the readmit is done but could not be written"),
            Err(_) => tracing::error!("the readmit is done, and the journal takes its time to write it"),
        }
    }
    left
}
