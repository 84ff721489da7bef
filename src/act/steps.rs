//! The five steps, one function each: start on disk, call, look, end on disk. An end is held for the commit of the next
//! start where only looks lie between the two.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::act::abort;
use crate::act::last_look::{FRESH, Leave};
use crate::act::scribe::Scribe;
use crate::decide::decision::Plan;
use crate::decide::playbook::OnTimeout;
use crate::event::{Event, Step, note_held_back};
use crate::moment::Moment;
use crate::mutant::{Mutant, off};
use crate::period::Period;
use crate::pipeline::{Context, Ending};
use crate::reason::Reason;
use crate::words;
use crate::world::{Call, Container, Health, Server, World};

/// How often a drain and a starting container are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// What the Engine may take on top of the grace before its answer counts as unknown.
const ENGINE_MARGIN: Duration = Duration::from_secs(15);
/// Waits between attempts to readmit; the reconciler takes over after the last.
const READMIT_RETRIES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// How long a run takes at most, once the program is to stop, to the point where it may be left: nothing is drained, and
/// no call is under way. Worst is an order that comes with the restart: the Engine's answer, a look at what became of it
/// without one, and all attempts to readmit, while the Engine and the balancer use up their time-outs each time.
pub fn safe_point_within(grace_seconds: u32, engine: Duration, balancer: Duration) -> Duration {
    /// Of one attempt: servers, ready, servers again. (Once more where the first took longer than [`FRESH`]: in a process that stood
    /// still, whose time nobody can bound, or with a time-out of the balancer of several seconds.)
    const CALLS: u32 = 3;
    let restart = (Duration::from_secs(u64::from(grace_seconds)) + ENGINE_MARGIN) * 2;
    let readmit: Duration = READMIT_RETRIES.into_iter().map(|wait| wait + balancer * CALLS).sum();
    // The last look before the restart asks both once.
    engine + balancer + restart + readmit
}

/// The hands of one run.
pub struct Steps<'a> {
    pub context: &'a Context,
    pub scribe: &'a mut Scribe,
    pub plan: Plan,
    /// The drain's own answer is unknown: it may still take effect after a look that does not see it.
    pub drain_unknown: bool,
}

/// What came of waiting for a server's sessions to end.
enum Emptying {
    Done,
    /// The balancer forgot the drain, or somebody undid it.
    Lost,
    /// It went into maintenance, which an order does in place of the drain.
    Theirs,
}

impl Steps<'_> {
    fn now(&self) -> Timestamp {
        self.context.world.clock.now()
    }

    /// The step's start on disk, or no step.
    async fn start(&mut self, step: Step) -> Result<Timestamp, Ending> {
        let now = self.now();
        match self.scribe.must(now, Event::StepStarted { step }).await {
            Ok(()) => Ok(now),
            Err(_) if off(Mutant::Intent) => Ok(now),
            // The journal also refuses the step when an abort came first, however late.
            Err(error) => Err(abort::ending(&self.context.journal, self.scribe.record())
                .unwrap_or_else(|| Ending::interrupted(Reason::StoreUnavailable, format!("before {}: {error}", step.word())))),
        }
    }

    /// The leave still holds now that the step's start is on disk, or the step ends without its order.
    async fn still(&mut self, leave: Leave<'_>, step: Step) -> Result<(), Ending> {
        leave.still().await.inspect_err(|ending| {
            self.end(step, Call::Failed(format!("not ordered: {}", ending.detail)), note_held_back());
            self.scribe.hold_back(step);
            if step == Step::Drain {
                self.context.hands.drain_is_over(&self.plan.server, self.scribe.record());
            }
        })
    }

    /// The step's end. It is on disk with the next entry: another step's start, or the record's end.
    fn end(&mut self, step: Step, call: Call, note: Value) {
        let now = self.now();
        self.scribe.hold(now, Event::StepEnded { step, call, note });
    }

    /// As [`until`], and over at once when the program is to stop.
    async fn until_or_stop<T, F, Fut>(&self, within: Duration, look: F) -> Result<T, String>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, String>>,
    {
        tokio::select! {
            biased;
            seen = until(&self.context.world, within, look) => seen,
            () = self.context.shutdown.cancelled() => Err("remediator was asked to stop".to_owned()),
        }
    }

    /// What the container was before it is touched: inspect, health log, last log lines. Its start is in the intent's commit.
    pub async fn capture_evidence(&mut self) -> Result<(), Ending> {
        let engine = &self.context.world.engine;
        let (container, logs) =
            tokio::join!(engine.inspect(&self.plan.container), engine.logs(&self.plan.container, self.plan.logs));
        let missing = container.as_ref().err().or(logs.as_ref().err()).map(|why| why.detail.clone());
        let note = json!({ "container": container.ok(), "logs": logs.ok() });
        match missing {
            None => {
                self.end(Step::CaptureEvidence, Call::Done, note);
                Ok(())
            }
            Some(why) => {
                self.end(Step::CaptureEvidence, Call::Failed(why.clone()), note);
                if self.plan.evidence_required {
                    return Err(Ending::interrupted(Reason::EvidenceMissing, why));
                }
                Ok(())
            }
        }
    }

    /// No new sessions for the server, then wait until the open ones are over.
    pub async fn drain(&mut self, leave: Leave<'_>) -> Result<(), Ending> {
        let started = self.start(Step::Drain).await?;
        self.still(leave, Step::Drain).await?;
        let call = self.context.world.balancer.drain(&self.plan.server).await;
        if let Call::Failed(why) | Call::Unknown(why) = &call {
            let (why, detail) = (why.clone(), format!("draining {}: {why}", self.plan.server));
            self.drain_unknown = matches!(call, Call::Unknown(_));
            self.end(Step::Drain, call, json!({ "server": self.plan.server, "why": why }));
            return Err(Ending::failed(Reason::DrainFailed, detail));
        }
        let within = self.plan.drain.within.get();
        let emptying = self.until_or_stop(within, || async {
            match server(&self.context.world, &self.plan).await {
                Ok(server) if server.maintenance && !off(Mutant::TheirMaintenance) => Ok(Emptying::Theirs),
                // Whoever drains it from now on, it is no longer our drain.
                Ok(server) if !server.drained => Ok(Emptying::Lost),
                Ok(server) if server.sessions == 0 && server.queued == 0 => Ok(Emptying::Done),
                Ok(server) => Err(format!("{} has {} sessions and {} queued", server.path, server.sessions, server.queued)),
                Err(why) => Err(why),
            }
        });
        let emptied = tokio::select! {
            biased;
            emptied = emptying => Ok(emptied),
            aborted = abort::ordered(&self.context.journal, self.scribe.record()) => Err(aborted),
        };
        let took = words::roughly(self.now().duration_since(started));
        let emptied = match emptied {
            Ok(emptied) => emptied,
            Err(aborted) => {
                let note = json!({ "server": self.plan.server, "after": took });
                self.end(Step::Drain, Call::Failed(aborted.detail.clone()), note);
                return Err(aborted);
            }
        };
        match emptied {
            Ok(Emptying::Done) => {
                self.end(Step::Drain, Call::Done, json!({ "server": self.plan.server, "emptied_in": took }));
                Ok(())
            }
            Ok(Emptying::Lost) => {
                let note = json!({ "server": self.plan.server, "after": took });
                self.end(Step::Drain, Call::Failed("not drained any more".to_owned()), note);
                Err(Ending::interrupted(Reason::DrainLost, drain_lost(&self.plan)))
            }
            Ok(Emptying::Theirs) => {
                let note = json!({ "server": self.plan.server, "after": took });
                self.end(Step::Drain, Call::Failed("in maintenance".to_owned()), note);
                Err(Ending::interrupted(Reason::ServerMaintenance, words::in_maintenance(&self.plan.server)))
            }
            Err(left) if self.context.shutdown.is_cancelled() => {
                self.end(
                    Step::Drain,
                    Call::Failed("asked to stop".to_owned()),
                    json!({ "server": self.plan.server, "left": left }),
                );
                Err(Ending::interrupted(Reason::ShuttingDown, "remediator was asked to stop while it drained"))
            }
            Err(left) => {
                let proceed = self.plan.drain.on_timeout == OnTimeout::Proceed;
                let note = json!({ "server": self.plan.server, "after": took, "left": left, "proceed": proceed });
                self.end(Step::Drain, Call::Failed(format!("not empty in {}", self.plan.drain.within)), note);
                if proceed {
                    return Ok(());
                }
                Err(Ending::failed(Reason::DrainTimeout, format!("not empty within {}: {left}", self.plan.drain.within)))
            }
        }
    }

    /// One restart call. Returns when it was begun, provided that the container did restart.
    pub async fn restart(&mut self, leave: Leave<'_>) -> Result<Timestamp, Ending> {
        let acted_at = self.start(Step::Restart).await?;
        let _restarting = self.context.hands.restarting(&self.plan.server);
        self.still(leave, Step::Restart).await?;
        let bound = Duration::from_secs(u64::from(self.plan.grace_seconds)) + ENGINE_MARGIN;
        let call = self.context.world.engine.restart(&self.plan.container, self.plan.grace_seconds, bound).await;
        let call = match call {
            Call::Unknown(_) if off(Mutant::OutcomeLookup) => {
                self.context.world.engine.restart(&self.plan.container, self.plan.grace_seconds, bound).await
            }
            Call::Unknown(why) => restarted_after_all(&self.context.world, &self.plan, &why).await,
            known => known,
        };
        self.end(Step::Restart, call.clone(), json!({ "container": self.plan.container }));
        match call {
            Call::Done => Ok(acted_at),
            Call::Failed(why) => Err(Ending::failed(Reason::RestartFailed, why)),
            Call::Unknown(why) => Err(Ending::failed(Reason::RestartUnknown, why)),
        }
    }

    /// Running, started anew, and healthy by its own health check (running is enough for an image without one).
    pub async fn await_healthy(&mut self, acted_at: Timestamp) -> Result<(), Ending> {
        // The container runs again whether this is on disk or not; there is nothing to hold back.
        let now = self.now();
        self.scribe.note(now, Event::StepStarted { step: Step::AwaitHealthy }).await;
        let healthy = self
            .until_or_stop(self.plan.healthy_within.get(), || async {
                let container = self.context.world.engine.inspect(&self.plan.container).await.map_err(|why| why.detail)?;
                healthy(&container, &self.plan)
            })
            .await;
        let took = words::roughly(self.now().duration_since(acted_at));
        match healthy {
            Ok(()) => {
                self.end(Step::AwaitHealthy, Call::Done, json!({ "after": took }));
                Ok(())
            }
            Err(why) if self.context.shutdown.is_cancelled() => {
                // Readmitted next; the balancer's own check keeps traffic away until it is healthy. The next process verifies.
                self.end(Step::AwaitHealthy, Call::Unknown("asked to stop".to_owned()), json!({ "after": took, "state": why }));
                Err(Ending::interrupted(Reason::ShuttingDown, "remediator was asked to stop while the container started"))
            }
            Err(why) => {
                self.end(Step::AwaitHealthy, Call::Failed(why.clone()), json!({ "after": took }));
                Err(Ending::failed(Reason::NotHealthyInTime, format!("not healthy within {}: {why}", self.plan.healthy_within)))
            }
        }
    }

    /// On disk at once: what comes next is to watch for minutes.
    async fn readmitted(&mut self, call: Call, note: Value) {
        let now = self.now();
        self.scribe.note(now, Event::StepEnded { step: Step::Readmit, call, note }).await;
    }

    /// The server takes traffic again. Blocked by nothing: not by a pause, a breaker, an expired permit or a journal that fails; where
    /// the journal hangs, the reconciler comes first.
    pub async fn readmit(&mut self) -> Result<(), Ending> {
        let (now, hands, record) = (self.now(), self.context.hands.clone(), self.scribe.record());
        self.scribe.note(now, Event::StepStarted { step: Step::Readmit }).await;
        let mut last = String::new();
        for wait in READMIT_RETRIES {
            self.context.world.clock.sleep(wait).await;
            // Whoever drains it by now is somebody else.
            let readmitted = match hands.is_over(&self.plan.server, record) {
                true => Ok("readmitted before, while the journal hung".to_owned()),
                false => readmit(&self.context.world, &self.plan.server, self.drain_unknown).await,
            };
            match readmitted {
                Ok(note) => {
                    hands.drain_is_over(&self.plan.server, record);
                    self.readmitted(Call::Done, json!({ "server": self.plan.server, "note": note })).await;
                    return Ok(());
                }
                Err(why) => last = why,
            }
        }
        // Before its end is written, which a full disk puts off: the reconciler takes over.
        hands.give_up(&self.plan.server, record);
        self.readmitted(Call::Failed(last.clone()), json!({ "server": self.plan.server })).await;
        Err(Ending::failed(Reason::ReadmitFailed, format!("{}: {last}; it is tried again until it works", self.plan.server)))
    }
}

/// In words: what we drained is not drained any more.
pub fn drain_lost(plan: &Plan) -> String {
    format!("{} is no longer drained; a reload of the balancer forgets it", plan.server)
}

/// Makes sure that the server is not drained. A server that somebody put in maintenance meanwhile is left alone: making
/// it ready would undo their work; one that the balancer no longer has needs nothing. Safe to repeat. With `anyway` the
/// order is given even when nothing is drained, because a drain may still be on its way.
pub async fn readmit(world: &World, path: &crate::target::ServerPath, anyway: bool) -> Result<String, String> {
    let find = || async {
        let servers = world.balancer.servers().await.map_err(|why| why.detail)?;
        Ok::<_, String>(servers.into_iter().find(|server| server.path == *path))
    };
    let begun = Moment::now(&*world.clock);
    let mut before = find().await?;
    // What a process that stood still saw before says nothing of now. Once more only: a balancer that is slow to answer holds up no
    // readmit.
    if begun.age(world.clock.now()).unsigned_abs() > FRESH && !off(Mutant::LastLookFresh) {
        before = find().await?;
    }
    let Some(before) = before else { return Ok("the balancer no longer has it".to_owned()) };
    if before.maintenance && !off(Mutant::TheirMaintenance) {
        // Maintenance that somebody orders takes our drain away. Beside one that comes by itself (a tracked server, a name without an
        // address) ours stands, and would stand after it.
        if before.drained {
            return Err(format!("{path} is in maintenance, and drained by us beside it; readmitted when that is over"));
        }
        return Ok("somebody put it in maintenance; left alone".to_owned());
    }
    if !before.drained && !anyway {
        return Ok("it was not drained any more".to_owned());
    }
    if let Call::Failed(why) | Call::Unknown(why) = world.balancer.ready(path).await {
        return Err(why);
    }
    match find().await? {
        Some(after) if after.drained => Err(format!("{path} is still drained")),
        Some(after) => Ok(format!("{path} is {}", words::server_word(&after))),
        None => Ok("the balancer no longer has it".to_owned()),
    }
}

async fn server(world: &World, plan: &Plan) -> Result<Server, String> {
    let servers = world.balancer.servers().await.map_err(|why| why.detail)?;
    servers.into_iter().find(|server| server.path == plan.server).ok_or_else(|| format!("the balancer has no {}", plan.server))
}

/// The Engine's answer is unknown: look at the container's start until it is clear or the time is up.
pub async fn restarted_after_all(world: &World, plan: &Plan, why: &str) -> Call {
    let within = Duration::from_secs(u64::from(plan.grace_seconds)) + ENGINE_MARGIN;
    let seen = until(world, within, || async {
        match world.engine.inspect(&plan.container).await {
            Ok(container) if container.started_at.is_some_and(|at| at > plan.started_at) => Ok(()),
            Ok(container) => Err(format!("{} is {} and has not started anew", container.name, container.status)),
            Err(error) => Err(error.detail),
        }
    })
    .await;
    match seen {
        Ok(()) => Call::Done,
        Err(state) => Call::Unknown(format!("{why}; then for {}: {state}", Period::from(within))),
    }
}

fn healthy(container: &Container, plan: &Plan) -> Result<(), String> {
    let name = &container.name;
    match (container.running, container.started_at, container.health) {
        (false, _, _) => Err(format!("{name} is {}", container.status)),
        (true, Some(at), _) if at <= plan.started_at => Err(format!("{name} has not started anew")),
        (true, None, _) => Err(format!("the Engine does not say when {name} started")),
        (true, Some(_), Health::Healthy | Health::None) => Ok(()),
        (true, Some(_), Health::Starting) => Err(format!("{name} is still starting")),
        (true, Some(_), Health::Unhealthy) => Err(format!("{name} is unhealthy")),
    }
}

/// Looks until it is so or the time is up; then the last thing seen.
async fn until<T, F, Fut>(world: &World, within: Duration, look: F) -> Result<T, String>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let mut last = String::from("nothing was seen in time");
    let looking = async {
        loop {
            match look().await {
                Ok(seen) => break seen,
                Err(seen) => last = seen,
            }
            world.clock.sleep(LOOK).await;
        }
    };
    tokio::time::timeout(within, looking).await.map_err(|_| last)
}
