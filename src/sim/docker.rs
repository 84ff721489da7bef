//! The simulated Engine: it lists, inspects and restarts, and can be down, refuse, or leave its caller in the dark.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use crate::reason::Reason;
use crate::sim::shop::Replica;
use crate::sim::{Point, Ports, State, What};
use crate::target::{ContainerId, LABEL_ENABLE, LABEL_INSTANCE, LABEL_SERVER, LABEL_SERVICE};
use crate::world::{Answer, Call, Container, ContainerSummary, Engine, Health, Unanswered};

/// How long a slow Engine takes for an answer: longer than anybody likes, shorter than it is waited for.
const SLOW: Duration = Duration::from_secs(3);

/// What is wrong with the Engine, and what it is about to do.
#[derive(Clone, Debug, Default)]
pub struct EngineState {
    pub down: bool,
    pub logs_unavailable: bool,
    /// Every answer takes its time.
    pub slow: bool,
    pub restart: RestartFault,
    pending: Vec<(Timestamp, ContainerId)>,
}

/// How the next restarts go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartFault {
    #[default]
    None,
    /// The Engine says no.
    Refused,
    /// No answer in time; it does it all the same.
    SilentDone,
    /// No answer in time, and it does not do it.
    SilentUndone,
    /// Says that it did, and did not.
    SaidUndone,
    /// Stops the container, cannot start it again, and says so.
    LeftStopped,
    /// Does it, and the container is another one afterwards.
    NewId,
}

impl EngineState {
    pub(super) fn next_restart(&self) -> Option<Timestamp> {
        self.pending.iter().map(|(at, _)| *at).min()
    }

    fn check(&self) -> Answer<()> {
        if self.down { Err(Unanswered::new(Reason::DockerUnavailable, "the simulated Engine is down")) } else { Ok(()) }
    }
}

impl Ports {
    /// A question to the Engine arrives.
    async fn arrive(&self, point: Point) {
        self.enter(point).await;
        if self.sim.with(|state| state.engine.slow) {
            tokio::time::sleep(SLOW).await;
        }
    }
}

impl State {
    pub(super) fn finish_restarts(&mut self, at: Timestamp) {
        let done: Vec<_> = self.engine.pending.extract_if(.., |(due, _)| *due <= at).collect();
        for (_, id) in done {
            let fault = self.engine.restart;
            let Some(replica) = self.replicas.iter_mut().find(|replica| replica.id == id) else { continue };
            match fault {
                RestartFault::LeftStopped => replica.running = false,
                RestartFault::NewId => replica.recreate(at),
                _ => replica.restart(at),
            }
        }
    }

    /// Takes a restart in. Answers how long the caller has to wait for it, and what it is told then. A slow Engine takes its
    /// time after that: what the caller looked at last is judged at the moment of the call, which nobody can take back.
    fn begin_restart(&mut self, id: &ContainerId, within: Duration) -> (Duration, Call) {
        let fault = self.engine.restart;
        let refused = match self.engine.check() {
            Err(why) => Some(why.detail),
            Ok(()) if fault == RestartFault::Refused => Some("500: the simulated Engine refuses".to_owned()),
            Ok(()) => None,
        };
        if let Some(why) = refused {
            self.effect(What::Asked { container: id.clone() });
            return (Duration::ZERO, Call::Failed(why));
        }
        let Some(replica) = self.replicas.iter().find(|replica| replica.id == *id && !replica.lost) else {
            self.effect(What::Asked { container: id.clone() });
            return (Duration::ZERO, Call::Failed(format!("404: no such container {id}")));
        };
        let takes = replica.stops_in + if self.engine.slow { SLOW } else { Duration::ZERO };
        let (name, drained) = (replica.name.clone(), replica.drained_since.is_some());
        if matches!(fault, RestartFault::SilentUndone | RestartFault::SaidUndone) {
            self.effect(What::Asked { container: id.clone() });
        } else {
            let due = self.now.saturating_add(SignedDuration::try_from(takes).unwrap_or(SignedDuration::MAX));
            self.engine.pending.push((due.unwrap_or(Timestamp::MAX), id.clone()));
            self.effect(What::Restart { container: id.clone(), name, drained });
        }
        match fault {
            RestartFault::None | RestartFault::NewId if takes <= within => (takes, Call::Done),
            RestartFault::SaidUndone => (Duration::ZERO, Call::Done),
            RestartFault::LeftStopped if takes <= within => {
                (takes, Call::Unknown("500: the simulated Engine cannot start it again".to_owned()))
            }
            _ => (within, Call::Unknown(format!("no answer within {}s", within.as_secs()))),
        }
    }
}

#[async_trait]
impl Engine for Ports {
    async fn ping(&self) -> Answer<()> {
        self.sim.with(|state| state.engine.check())
    }

    async fn containers(&self) -> Answer<Vec<ContainerSummary>> {
        self.arrive(Point::Containers).await;
        let answer = self.sim.with(|state| {
            state.engine.check()?;
            state.replicas.iter().filter(|replica| !replica.lost).map(summary).collect()
        });
        self.leave(Point::Containers).await;
        answer
    }

    async fn inspect(&self, id: &ContainerId) -> Answer<Container> {
        self.arrive(Point::Inspect).await;
        let answer = self.sim.with(|state| {
            state.engine.check()?;
            let replica = state.replicas.iter().find(|replica| replica.id == *id && !replica.lost);
            let replica =
                replica.ok_or_else(|| Unanswered::new(Reason::ContainerMissing, format!("404: no such container {id}")))?;
            container(replica, state.now)
        });
        self.leave(Point::Inspect).await;
        answer
    }

    async fn logs(&self, id: &ContainerId, tail: u32) -> Answer<Vec<String>> {
        self.arrive(Point::Logs).await;
        let answer = self.sim.with(|state| {
            state.engine.check()?;
            if state.engine.logs_unavailable {
                return Err(Unanswered::new(Reason::DockerUnavailable, "the logging driver does not support reading"));
            }
            Ok((0..tail.min(3)).map(|line| format!("line {line} of {}", &id.as_str()[..12])).collect())
        });
        self.leave(Point::Logs).await;
        answer
    }

    async fn restart(&self, id: &ContainerId, _grace_seconds: u32, within: Duration) -> Call {
        self.enter(Point::Restart).await;
        let (wait, call) = self.sim.with(|state| state.begin_restart(id, within));
        tokio::time::sleep(wait).await;
        self.leave(Point::Restart).await;
        call
    }

    async fn forbidden_call_is_refused(&self) -> Answer<bool> {
        self.sim.with(|state| state.engine.check()).map(|()| true)
    }
}

fn labels(replica: &Replica) -> BTreeMap<String, String> {
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    BTreeMap::from([
        label(LABEL_ENABLE, if replica.opted_in { "true" } else { "false" }),
        label(LABEL_SERVICE, replica.service.as_str()),
        label(LABEL_INSTANCE, replica.instance.as_str()),
        label(LABEL_SERVER, &replica.server.to_string()),
    ])
}

fn summary(replica: &Replica) -> Answer<ContainerSummary> {
    let name =
        replica.name.parse().map_err(|_| Unanswered::new(Reason::ContainerMissing, "a name that Docker would not take"))?;
    Ok(ContainerSummary { id: replica.id.clone(), name, labels: labels(replica), network_mode: "shop".to_owned() })
}

fn container(replica: &Replica, now: Timestamp) -> Answer<Container> {
    let ContainerSummary { id, name, labels, network_mode } = summary(replica)?;
    let health = match replica {
        r if !r.running => Health::None,
        r if r.starting(now) => Health::Starting,
        r if r.answers(now) => Health::Healthy,
        _ => Health::Unhealthy,
    };
    let address = replica.instance.as_str().parse::<std::net::SocketAddr>().ok();
    Ok(Container {
        id,
        name,
        image: "shop:lab".to_owned(),
        labels,
        running: replica.running,
        status: if replica.running { "running" } else { "exited" }.to_owned(),
        started_at: Some(replica.started_at),
        health,
        health_log: Vec::new(),
        network_mode,
        addresses: address.iter().map(std::net::SocketAddr::ip).collect(),
        published: Vec::new(),
        restart_count: replica.restart_count,
        infrastructure: replica.infrastructure.clone(),
        infrastructure_unknown: replica.infrastructure_unknown.clone(),
    })
}
