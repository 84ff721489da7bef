//! What is read again immediately before drain and before restart. The plan was made seconds ago; since then a person
//! may have paused us, somebody else may have restarted the container, or the balancer may have forgotten the drain.

use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::Instant;

use crate::act::abort;
use crate::act::steps::drain_lost;
use crate::decide::decision::Plan;
use crate::decide::playbook::Mode;
use crate::event::Step;
use crate::guard::permit::{Live, Permit};
use crate::guard::rails::CLOCK_TOLERANCE;
use crate::moment::{Moment, jump};
use crate::mutant::{Mutant, off};
use crate::pipeline::{Context, Ending};
use crate::reason::{Outcome, Reason};
use crate::words;
use crate::world::Server;

/// How long the two questions of one look may take together. After more, as in a process that was stopped meanwhile, what was
/// answered first says nothing about now, and both are asked again.
pub const FRESH: Duration = Duration::from_secs(10);
/// Looks that may take longer before the run is broken off.
const LOOKS: u32 = 3;
/// How long the disk may take for a step's start; after more, everything is looked at again.
const WRITTEN: SignedDuration = SignedDuration::from_millis(250);
/// How old the evidence may be when the drain begins: what the rail lets pass, and what the commit of the intent, the capture
/// and the last look take where nothing stalls.
const EVIDENCE: SignedDuration = SignedDuration::from_secs(30);

/// Leave to order one step: what a last look came to. The step's start has to be on disk before its order, and a disk that stalls
/// in that very commit makes the look old.
pub struct Leave<'a> {
    context: &'a Context,
    permit: &'a Permit<Live>,
    seen: Moment,
    step: Step,
    looked: Moment,
}

impl Leave<'_> {
    /// Still given, now that the step's start is on disk.
    ///
    /// # Errors
    /// `interrupted`, with the reason: the step must not be ordered.
    pub async fn still(self) -> Result<(), Ending> {
        let Leave { context, permit, seen, step, looked } = self;
        if off(Mutant::StepStall) {
            return Ok(());
        }
        if looked.age(context.world.clock.now()) <= WRITTEN {
            standing(context, permit, seen)?;
        } else if step == Step::Drain {
            before_drain(context, permit, seen).await?;
        } else {
            before_restart(context, permit, seen).await?;
        }
        // The start was written, and nothing has been since.
        match context.journal.trouble() {
            Some(why) if !off(Mutant::Intent) => {
                Err(Ending::interrupted(Reason::StoreUnavailable, format!("before {}: {why}", step.word())))
            }
            _ => Ok(()),
        }
    }
}

/// `seen` is the moment of the evidence that the permit was given for.
///
/// # Errors
/// `interrupted`, with the reason: nothing has been touched yet.
pub async fn before_drain<'a>(context: &'a Context, permit: &'a Permit<Live>, seen: Moment) -> Result<Leave<'a>, Ending> {
    leave(context, permit, seen)?;
    let plan = permit.plan();
    let servers = look(context, permit, seen).await?;
    let server = servers.iter().find(|server| server.path == plan.server);
    let server = server
        .ok_or_else(|| Ending::interrupted(Reason::ServerMissing, format!("the balancer no longer has {}", plan.server)))?;
    theirs(server)?;
    if server.drained && !off(Mutant::TheirDrain) {
        return Err(Ending::interrupted(Reason::ServerDrained, format!("somebody else drained {}", plan.server)));
    }
    enough_left(plan, &servers)?;
    evidence(context, seen)?;
    leave(context, permit, seen)?;
    Ok(Leave { context, permit, seen, step: Step::Drain, looked: Moment::now(&*context.world.clock) })
}

/// # Errors
/// `interrupted`, with the reason: the server is drained and has to be readmitted.
pub async fn before_restart<'a>(context: &'a Context, permit: &'a Permit<Live>, seen: Moment) -> Result<Leave<'a>, Ending> {
    let plan = permit.plan();
    let servers = look(context, permit, seen).await?;
    let server = servers.iter().find(|server| server.path == plan.server);
    server.map_or(Ok(()), theirs)?;
    // Drained by us, and not readmitted meanwhile because the journal hung.
    let ours = server.is_some_and(|server| server.drained) && !context.hands.is_over(&plan.server, permit.record());
    if !ours && !off(Mutant::LastLookDrained) {
        return Err(Ending::interrupted(Reason::DrainLost, drain_lost(plan)));
    }
    enough_left(plan, &servers)?;
    // Last of all, because it costs nothing and a person's word counts most.
    leave(context, permit, seen)?;
    Ok(Leave { context, permit, seen, step: Step::Restart, looked: Moment::now(&*context.world.clock) })
}

/// Whoever put it in maintenance is at work on it.
fn theirs(server: &Server) -> Result<(), Ending> {
    if server.maintenance && !off(Mutant::TheirMaintenance) {
        return Err(Ending::interrupted(Reason::ServerMaintenance, words::in_maintenance(&server.path)));
    }
    Ok(())
}

/// The container is the one that is meant, and these are the servers: both of within a moment.
async fn look(context: &Context, permit: &Permit<Live>, seen: Moment) -> Result<Vec<Server>, Ending> {
    for _ in 0..LOOKS {
        let begun = Instant::now();
        // Before the balancer: the Engine may take its time, and who serves changes sooner than which container it is.
        identity(context, permit.plan()).await?;
        let servers = context.world.balancer.servers().await.map_err(|why| Ending::interrupted(why.reason, why.detail))?;
        if begun.elapsed() <= FRESH || off(Mutant::LastLookFresh) {
            return Ok(servers);
        }
        leave(context, permit, seen)?;
    }
    let detail = format!("the Engine and the balancer took more than {}s to answer, {LOOKS} times", FRESH.as_secs());
    Err(Ending::interrupted(Reason::EvidenceStale, detail))
}

/// The disk may have stalled in the very commit that gave leave, or the process have stood still since.
fn evidence(context: &Context, seen: Moment) -> Result<(), Ending> {
    let age = seen.age(context.world.clock.now());
    if age <= EVIDENCE || off(Mutant::ShelfLife) {
        return Ok(());
    }
    let detail = format!("the evidence is {} old, must be younger than {}", words::roughly(age), words::roughly(EVIDENCE));
    Err(Ending::interrupted(Reason::EvidenceStale, detail))
}

/// What this process knows itself.
fn leave(context: &Context, permit: &Permit<Live>, seen: Moment) -> Result<(), Ending> {
    if context.shutdown.is_cancelled() {
        return Err(Ending::interrupted(Reason::ShuttingDown, "remediator was asked to stop"));
    }
    standing(context, permit, seen)
}

/// Abort, pause, mode, permit, clock.
fn standing(context: &Context, permit: &Permit<Live>, seen: Moment) -> Result<(), Ending> {
    let now = context.world.clock.now();
    if let Some(ending) = abort::ending(&context.journal, permit.record()) {
        return Err(ending);
    }
    if permit.expired(now) && !off(Mutant::LastLookPermit) {
        let detail = format!("the permit expired at {}", permit.expires_at());
        return Err(Ending::interrupted(Reason::PermitExpired, detail));
    }
    let target = &permit.plan().target;
    let record = permit.record();
    let (accepted, pause, behind) = context.journal.read(|state| {
        let accepted = state.open.get(&record).map(|record| record.accepted.clone());
        let name = accepted.as_ref().and_then(|accepted| accepted.playbook.as_ref());
        let pause = name.and_then(|name| state.books.pauses.iter().find(|p| p.covers(name, target, now)).cloned());
        (accepted, pause, state.books.last_at.duration_since(now))
    });
    // By a clock that went back no permit expires, and no sample is older than the action.
    if behind > CLOCK_TOLERANCE && !off(Mutant::LastLookClock) {
        let detail =
            format!("the clock went back during the run: it is {} behind the journal's newest entry", words::roughly(behind));
        return Err(Ending::interrupted(Reason::ClockUnreliable, detail));
    }
    // By a clock that went ahead whatever comes after looks late, and the verdict would wait for scrapes of the future. One that went
    // back by less than the run has taken is not behind the journal, and yet the permit lives longer by it than it was given for.
    let jump = jump(seen.at(), seen.passed(), now);
    if jump.abs() > CLOCK_TOLERANCE && !off(Mutant::LastLookClock) {
        let detail = format!("the clock went {} since the evidence was seen", words::jumped(jump));
        return Err(Ending::interrupted(Reason::ClockUnreliable, detail));
    }
    if let Some(pause) = pause.filter(|_| !off(Mutant::LastLookPause)) {
        return Err(Ending::interrupted(Reason::Paused, words::paused(&pause)));
    }
    let playbook = accepted.and_then(|accepted| context.own_playbook(&accepted));
    let live = playbook.is_some_and(|playbook| playbook.mode == Mode::Live);
    if !live && !off(Mutant::LastLookMode) {
        return Err(Ending::interrupted(Reason::ModeChanged, "the playbook is no longer live, or no longer for this alert"));
    }
    Ok(())
}

/// A sibling may have died while we drained: then this one is needed, leak or no leak.
fn enough_left(plan: &Plan, servers: &[Server]) -> Result<(), Ending> {
    let serving = servers.iter().filter(|server| plan.others.contains(&server.path) && server.serving()).count();
    if serving >= plan.min_healthy as usize || off(Mutant::LastLookSiblings) {
        return Ok(());
    }
    let detail = format!("healthy without this one {serving} now, must be at least {}", plan.min_healthy);
    Err(Ending::interrupted(Reason::MinHealthy, detail))
}

/// The container is still the one the permit was given for.
async fn identity(context: &Context, plan: &Plan) -> Result<(), Ending> {
    let container =
        context.world.engine.inspect(&plan.container).await.map_err(|why| Ending::interrupted(why.reason, why.detail))?;
    let same = container.id == plan.container && container.started_at == Some(plan.started_at) && container.running;
    if same || off(Mutant::LastLookIdentity) {
        return Ok(());
    }
    let started = container.started_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
    let detail = format!(
        "container {} started at {started} and is {}; the permit is for its start at {}",
        container.name, container.status, plan.started_at
    );
    Err(Ending { outcome: Outcome::Interrupted, reason: Reason::ContainerChanged, detail })
}
