//! The shop: replicas that leak, hang, start slowly and come back, each a container and a server at once.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::sim::prometheus::{Condition, Prometheus, Rule};
use crate::sim::{Sim, beginning};
use crate::target::{ContainerId, Instance, ServerPath, ServiceName, Target};

/// The soft limit of every process.
pub const MAX_FDS: f64 = 1024.0;
/// Descriptors of a process that does not leak.
pub const BASE_FDS: f64 = 60.0;
/// Until a new process answers its health check.
const STARTS_IN: Duration = Duration::from_secs(2);
/// From SIGTERM to the end of a process that drains itself.
const STOPS_IN: Duration = Duration::from_secs(1);

/// One replica of a service.
#[derive(Clone, Debug)]
pub struct Replica {
    pub service: ServiceName,
    /// Container name and, after the backend, server name.
    pub name: String,
    pub instance: Instance,
    pub server: ServerPath,
    pub id: ContainerId,
    pub started_at: Timestamp,
    pub restart_count: i64,
    pub running: bool,
    /// Answers nothing, and its health check fails.
    pub hung: bool,
    /// Labelled `remediator.enable=true`.
    pub opted_in: bool,
    pub leak: Leak,
    /// What customers ask of it, whichever process answers them.
    pub load: Option<Load>,
    /// What each new process of it does.
    pub habit: Habit,
    pub starts_in: Duration,
    pub stops_in: Duration,
    /// Each process dies so long after its start, and Docker starts the next.
    pub crashes_in: Option<Duration>,
    /// Sessions open at the balancer, and how long after a drain they are over; never, if none.
    pub sessions: u64,
    pub empties_in: Option<Duration>,
    pub drained_since: Option<Timestamp>,
    pub maintenance_since: Option<Timestamp>,
    /// Its maintenance is that of the server that it tracks: no order ends it.
    pub tracks: bool,
    /// The Engine has lost the container.
    pub lost: bool,
    /// Prometheus has it among its targets.
    pub scraped: bool,
    /// The balancer knows it.
    pub at_balancer: bool,
    /// Which part of remediator's own infrastructure its container is.
    pub infrastructure: Option<String>,
    /// Why nobody can say.
    pub infrastructure_unknown: Option<String>,
}

/// Descriptors of the running process: `level` until `from`, then `per_second` more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leak {
    pub from: Timestamp,
    pub level: f64,
    pub per_second: f64,
}

/// Descriptors that a ramp of load takes: more and more for `half`, up to `most`, and then less and less.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    pub from: Timestamp,
    pub half: Duration,
    pub most: f64,
}

impl Load {
    fn at(&self, at: Timestamp) -> f64 {
        let (passed, half) = (at.duration_since(self.from).as_secs_f64(), self.half.as_secs_f64());
        self.most * (1.0 - (passed / half - 1.0).abs()).max(0.0)
    }
}

/// How a new process leaks: from a level, after a while, at a rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Habit {
    pub level: f64,
    pub after: Duration,
    pub per_second: f64,
}

impl Default for Habit {
    fn default() -> Self {
        Habit { level: BASE_FDS, after: Duration::ZERO, per_second: 0.0 }
    }
}

impl Replica {
    /// A healthy replica of a service that has run for an hour.
    pub fn new(service: &ServiceName, number: u8) -> Option<Replica> {
        let started_at = beginning().saturating_sub(SignedDuration::from_hours(1)).ok()?;
        let name = format!("{service}-{number}");
        Some(Replica {
            service: service.clone(),
            instance: format!("10.0.0.{number}:8080").parse().ok()?,
            server: format!("{service}/{name}").parse().ok()?,
            id: container_id(number, 0)?,
            name,
            started_at,
            restart_count: 0,
            running: true,
            hung: false,
            opted_in: true,
            leak: Leak { from: started_at, level: BASE_FDS, per_second: 0.0 },
            load: None,
            habit: Habit::default(),
            starts_in: STARTS_IN,
            stops_in: STOPS_IN,
            crashes_in: None,
            sessions: 3,
            empties_in: Some(Duration::from_secs(3)),
            drained_since: None,
            maintenance_since: None,
            tracks: false,
            lost: false,
            scraped: true,
            at_balancer: true,
            infrastructure: None,
            infrastructure_unknown: None,
        })
    }

    pub fn target(&self) -> Target {
        Target { service: self.service.clone(), instance: self.instance.clone() }
    }

    pub fn fds(&self, at: Timestamp) -> f64 {
        let leaking = at.duration_since(self.leak.from).as_secs_f64().max(0.0);
        let load = self.load.map_or(0.0, |load| load.at(at));
        (self.leak.level + leaking * self.leak.per_second + load).min(MAX_FDS)
    }

    pub fn exhausted(&self, at: Timestamp) -> bool {
        self.fds(at) >= MAX_FDS
    }

    pub fn starting(&self, at: Timestamp) -> bool {
        at.duration_since(self.started_at) < SignedDuration::try_from(self.starts_in).unwrap_or(SignedDuration::MAX)
    }

    /// Answers requests and health checks.
    pub fn answers(&self, at: Timestamp) -> bool {
        self.running && !self.lost && !self.hung && !self.starting(at) && !self.exhausted(at)
    }

    /// The running process leaks from now on.
    pub fn leaks(&mut self, at: Timestamp, level: f64, per_second: f64) {
        self.leak = Leak { from: at, level, per_second };
    }

    /// A new process in the same container.
    pub fn restart(&mut self, at: Timestamp) {
        self.started_at = at;
        self.restart_count += 1;
        self.running = true;
        let after = SignedDuration::try_from(self.habit.after).unwrap_or(SignedDuration::MAX);
        let from = at.saturating_add(after).unwrap_or(Timestamp::MAX);
        self.leak = Leak { from, level: self.habit.level, per_second: self.habit.per_second };
    }

    /// When the process dies by itself.
    pub fn crash_at(&self) -> Option<Timestamp> {
        let within = self.crashes_in.filter(|_| self.running && !self.lost)?;
        self.started_at.saturating_add(SignedDuration::try_from(within).ok()?).ok()
    }

    /// A new container of the same name, as `compose up --force-recreate` makes one.
    pub fn recreate(&mut self, at: Timestamp) {
        let number = self.name.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        if let Some(id) = container_id(number, 0xa0 + (self.restart_count & 0xf) as u8) {
            self.id = id;
        }
        self.restart(at);
    }

    /// Sessions open at the balancer.
    pub fn sessions(&self, at: Timestamp) -> u64 {
        let emptied = |since: Timestamp| {
            let empties_in = self.empties_in.and_then(|within| SignedDuration::try_from(within).ok());
            empties_in.is_some_and(|within| at.duration_since(since) >= within)
        };
        if self.drained_since.is_some_and(emptied) { 0 } else { self.sessions }
    }
}

/// 64 hexadecimal digits that name the replica, and which container of it.
fn container_id(number: u8, generation: u8) -> Option<ContainerId> {
    format!("{generation:02x}{}", format!("{number:02x}").repeat(31)).parse().ok()
}

/// The shop of the lab: three replicas of `inventory`, scraped and judged every 15 s.
pub fn inventory() -> Sim {
    let service: Option<ServiceName> = "inventory".parse().ok();
    let replicas = service.iter().flat_map(|service| (1..=3).filter_map(|number| Replica::new(service, number))).collect();
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let rules = vec![
        Rule::new("FdLeakSustained", Condition::Leaking { above: 0.5, older_than: minutes(15) }, minutes(5)),
        Rule::new("FdLeakFast", Condition::Leaking { above: 0.5, older_than: minutes(5) }, minutes(1)),
        Rule::new("FdExhausted", Condition::Exhausted, minutes(2)),
    ];
    Sim::new(replicas, Prometheus::new(Duration::from_secs(15), rules))
}

impl Sim {
    /// Looks at one replica by its container's name, or changes it; none if there is no such replica.
    pub fn replica<T>(&self, name: &str, body: impl FnOnce(&mut Replica, Timestamp) -> T) -> Option<T> {
        self.with(|state| {
            let now = state.now;
            state.replicas.iter_mut().find(|replica| replica.name == name).map(|replica| body(replica, now))
        })
    }

    /// The replica's process is at 600 descriptors and leaks: seen at the next scrapes, exhausted in 14 minutes.
    pub fn leak(&self, name: &str) {
        self.replica(name, |replica, now| replica.leaks(now, 600.0, 0.5));
    }

    /// As [`Sim::leak`], and every process after it leaks again once it has run for `after`.
    pub fn leak_again(&self, name: &str, after: Duration) {
        self.leak(name);
        self.replica(name, |replica, _| replica.habit = Habit { after, per_second: 2.0, ..Habit::default() });
    }

    /// As [`Sim::leak`], and a restart does not help: every process after it starts with as many.
    pub fn leak_for_ever(&self, name: &str) {
        self.leak(name);
        self.replica(name, |replica, _| replica.habit = Habit { level: 600.0, per_second: 0.002, ..Habit::default() });
    }
}
