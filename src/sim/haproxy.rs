//! The simulated balancer: servers that are drained, empty or do not, and a reload that forgets.

use async_trait::async_trait;
use jiff::Timestamp;

use crate::reason::Reason;
use crate::sim::shop::Replica;
use crate::sim::{Point, Ports, State, What};
use crate::target::ServerPath;
use crate::world::{Answer, Balancer, Call, Server, ServerStatus, Unanswered};

/// What is wrong with the balancer.
#[derive(Clone, Copy, Debug, Default)]
pub struct BalancerState {
    pub down: bool,
    /// Answers every drain with a sentence that means no.
    pub refuses_drain: bool,
    /// Drains, and the answer gets lost.
    pub drains_silently: bool,
    /// Answers every readmit with a sentence that means no.
    pub refuses_ready: bool,
}

impl State {
    /// The balancer is reloaded: state that was set at run time is gone.
    pub fn reload_balancer(&mut self) {
        for replica in &mut self.replicas {
            replica.drained_since = None;
            replica.leave_maintenance();
        }
    }

    fn server(&mut self, path: &ServerPath) -> Result<&mut Replica, Call> {
        if self.balancer.down {
            return Err(Call::Failed("the simulated balancer is down".to_owned()));
        }
        let found = self.replicas.iter_mut().find(|replica| replica.at_balancer && replica.server == *path);
        found.ok_or_else(|| Call::Failed("No such server.".to_owned()))
    }

    fn drain(&mut self, path: &ServerPath) -> Call {
        let (now, faults) = (self.now, self.balancer);
        if let Err(call) = self.server(path) {
            return call;
        }
        if faults.refuses_drain {
            return Call::Failed("Permission denied".to_owned());
        }
        // Seen first: whose the server was is judged by how it was found.
        self.effect(What::Drain(path.clone()));
        if let Ok(replica) = self.server(path) {
            replica.drained_since.get_or_insert(now);
            replica.leave_maintenance();
        }
        if faults.drains_silently { Call::Unknown("no answer".to_owned()) } else { Call::Done }
    }

    fn ready(&mut self, path: &ServerPath) -> Call {
        let faults = self.balancer;
        if let Err(call) = self.server(path) {
            return call;
        }
        if faults.refuses_ready {
            return Call::Failed("Permission denied".to_owned());
        }
        self.effect(What::Ready(path.clone()));
        if let Ok(replica) = self.server(path) {
            replica.drained_since = None;
            replica.leave_maintenance();
        }
        Call::Done
    }
}

impl Replica {
    /// By an order: one that comes by itself goes by itself.
    fn leave_maintenance(&mut self) {
        if !self.tracks {
            self.maintenance_since = None;
        }
    }
}

#[async_trait]
impl Balancer for Ports {
    async fn servers(&self) -> Answer<Vec<Server>> {
        self.enter(Point::Servers).await;
        let answer = self.sim.with(|state| {
            if state.balancer.down {
                return Err(Unanswered::new(Reason::BalancerUnavailable, "the simulated balancer is down"));
            }
            let known = state.replicas.iter().filter(|replica| replica.at_balancer);
            Ok(known.map(|replica| server(replica, state.now)).collect())
        });
        self.leave(Point::Servers).await;
        answer
    }

    async fn drain(&self, server: &ServerPath) -> Call {
        self.enter(Point::Drain).await;
        let call = self.sim.with(|state| state.drain(server));
        self.leave(Point::Drain).await;
        call
    }

    async fn ready(&self, server: &ServerPath) -> Call {
        self.enter(Point::Ready).await;
        let call = self.sim.with(|state| state.ready(server));
        self.leave(Point::Ready).await;
        call
    }
}

pub(super) fn server(replica: &Replica, now: Timestamp) -> Server {
    let drained = replica.drained_since.is_some();
    let status = match () {
        () if replica.maintenance_since.is_some() => ServerStatus::Maintenance,
        () if !replica.answers(now) => ServerStatus::Down,
        () if drained => ServerStatus::Drain,
        () => ServerStatus::Up,
    };
    Server {
        path: replica.server.clone(),
        address: replica.instance.as_str().parse().ok(),
        status,
        drained,
        maintenance: replica.maintenance_since.is_some(),
        checked: true,
        sessions: replica.sessions(now),
        queued: 0,
    }
}
