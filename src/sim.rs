//! The simulated outside: a shop with faults, in virtual time.
//!
//! Promises: everything that the five ports of `world` can be asked has a state behind it, and that state only changes
//! by time, by what the program does and by what a test orders. Two runs of the same orders are the same run. Every
//! effect is written down with its time, so that "exactly one restart" is counted outside the program.
//!
//! How: nothing runs in the background. Whoever asks first brings the state forward to now: restarts finish, Prometheus
//! scrapes and evaluates its rules at its own instants, descriptors leak. Time is tokio's, so with a paused runtime an
//! hour takes milliseconds.
//!
//! A process that crashed is a [`Ports`] whose life is over: every call it still makes hangs for ever, as nothing that a
//! dead process awaits ever comes back. What it had asked of the Engine goes on without it.

pub mod alertmanager;
pub mod bench;
pub mod clock;
pub mod dice;
pub mod docker;
pub mod fault;
pub mod haproxy;
pub mod invariants;
pub mod ledger;
pub mod liveness;
pub mod order;
pub mod pager;
pub mod prometheus;
pub mod run;
pub mod scenario;
pub mod shop;
pub mod story;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::sim::docker::EngineState;
use crate::sim::haproxy::BalancerState;
use crate::sim::pager::PagerState;
use crate::sim::prometheus::Prometheus;
use crate::sim::shop::Replica;
use crate::target::{ContainerId, ServerPath};
use crate::world::World;

/// When the simulated world begins: 2026-01-05T03:00:00Z, a Monday at 3 am.
const BEGINNING: i64 = 1_767_582_000;

/// How often a process that stands still sees whether it may go on.
const STILL: Duration = Duration::from_secs(1);

/// The world. Cheap to clone.
#[derive(Clone)]
pub struct Sim {
    inner: Arc<Inner>,
}

struct Inner {
    born: Instant,
    state: Mutex<State>,
}

/// Everything there is, as of [`State::now`].
pub struct State {
    pub now: Timestamp,
    pub replicas: Vec<Replica>,
    pub prometheus: Prometheus,
    pub engine: EngineState,
    pub balancer: BalancerState,
    pub pager: PagerState,
    /// How far the program's clock is ahead of the world's.
    pub clock_ahead: SignedDuration,
    /// What was done to the world, oldest first.
    pub effects: Vec<Effect>,
    calls: BTreeMap<Point, u64>,
    triggers: Vec<Trigger>,
    witness: Option<Witness>,
    ids: u64,
    life: u64,
    doom: Option<Doom>,
    /// Which process stands still, and until when.
    still: Option<(u64, Instant)>,
}

type Doom = Arc<dyn Fn() -> bool + Send + Sync>;
type Order = Box<dyn FnOnce(&Sim) + Send>;
/// Sees the world at the moment of each effect.
type Witness = Box<dyn FnMut(&State, &Effect) + Send>;

/// One thing that was done to the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    pub at: Timestamp,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Drain(ServerPath),
    Ready(ServerPath),
    /// The Engine was asked and carries it out (perhaps later). `drained`: the server took no new sessions by then.
    Restart {
        container: ContainerId,
        name: String,
        drained: bool,
    },
    /// The Engine was asked for a restart, and does not carry it out, whatever it says.
    Asked {
        container: ContainerId,
    },
}

/// A kind of call, for faults at the n-th one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    Instant,
    Rules,
    Targets,
    Containers,
    Inspect,
    Logs,
    Restart,
    Servers,
    Drain,
    Ready,
    Raise,
    Silences,
    Sleep,
}

/// Whether an order is carried out before the call has an effect or after it had one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

struct Trigger {
    point: Point,
    when: When,
    nth: u64,
    order: Order,
}

/// The world as one process sees it, until that process dies.
#[derive(Clone)]
pub struct Ports {
    sim: Sim,
    life: u64,
}

impl Sim {
    /// A world with these replicas, seen by this Prometheus.
    pub fn new(replicas: Vec<Replica>, prometheus: Prometheus) -> Sim {
        let now = beginning();
        let state = State {
            now,
            replicas,
            prometheus,
            engine: EngineState::default(),
            balancer: BalancerState::default(),
            pager: PagerState::default(),
            clock_ahead: SignedDuration::ZERO,
            effects: Vec::new(),
            calls: BTreeMap::new(),
            triggers: Vec::new(),
            witness: None,
            ids: 0,
            life: 0,
            doom: None,
            still: None,
        };
        Sim { inner: Arc::new(Inner { born: Instant::now(), state: Mutex::new(state) }) }
    }

    /// The world's own time.
    pub fn now(&self) -> Timestamp {
        let lived = SignedDuration::try_from(self.inner.born.elapsed()).unwrap_or(SignedDuration::MAX);
        beginning().saturating_add(lived).unwrap_or(Timestamp::MAX)
    }

    /// Looks at the world, or changes it, as of now.
    pub fn with<T>(&self, body: impl FnOnce(&mut State) -> T) -> T {
        let now = self.now();
        let mut state = self.lock();
        state.advance(now);
        body(&mut state)
    }

    /// Carries out an order at the n-th call of a kind from now on, counted from 1.
    pub fn at(&self, when: When, point: Point, nth: u64, order: impl FnOnce(&Sim) + Send + 'static) {
        let mut state = self.lock();
        let nth = state.calls.get(&point).copied().unwrap_or(0) + nth;
        state.triggers.push(Trigger { point, when, nth, order: Box::new(order) });
    }

    /// Has every effect seen at its moment, with the world around it. The witness must not ask the world anything.
    pub fn witness(&self, witness: impl FnMut(&State, &Effect) + Send + 'static) {
        self.lock().witness = Some(Box::new(witness));
    }

    /// Takes back every order that was not carried out yet.
    pub fn disarm(&self) {
        self.lock().triggers.clear();
    }

    /// The process that lives now dies at its first call after `doom` holds.
    pub fn die_when(&self, doom: impl Fn() -> bool + Send + Sync + 'static) {
        self.lock().doom = Some(Arc::new(doom));
    }

    /// The process that lives now is dead at once.
    pub fn kill(&self) {
        let mut state = self.lock();
        state.life += 1;
        state.doom = None;
    }

    /// The process that lives now stands still, as one whose machine is suspended: whatever it asked is answered only after
    /// this long.
    pub fn stand_still(&self, how_long: Duration) {
        let mut state = self.lock();
        state.still = Some((state.life, Instant::now() + how_long));
    }

    /// Whether the process that lives now stands still.
    pub fn is_still(&self) -> bool {
        self.lock().is_still()
    }

    /// How many processes have died.
    pub fn deaths(&self) -> u64 {
        self.lock().life
    }

    /// The ports of a new process.
    pub fn world(&self) -> World {
        let ports = Arc::new(Ports { sim: self.clone(), life: self.deaths() });
        World { metrics: ports.clone(), engine: ports.clone(), balancer: ports.clone(), pager: ports.clone(), clock: ports }
    }

    /// How often a call of this kind was made.
    pub fn calls(&self, point: Point) -> u64 {
        self.lock().calls.get(&point).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Brings everything forward, in the order in which it happens.
    fn advance(&mut self, to: Timestamp) {
        loop {
            let restart = self.engine.next_restart();
            let crash = self.replicas.iter().filter_map(Replica::crash_at).min();
            let scrape = self.prometheus.next_tick();
            if let Some(at) = crash.filter(|at| *at <= to && *at <= scrape && restart.is_none_or(|restart| *at < restart)) {
                self.now = at.max(self.now);
                let now = self.now;
                self.replicas.iter_mut().filter(|r| r.crash_at().is_some_and(|at| at <= now)).for_each(|r| r.restart(now));
                continue;
            }
            match restart {
                Some(at) if at <= to && at <= scrape => {
                    self.now = at;
                    self.finish_restarts(at);
                }
                _ if scrape <= to => {
                    self.now = scrape;
                    self.prometheus.tick(&self.replicas);
                }
                _ => break,
            }
        }
        self.now = to;
    }

    fn is_still(&self) -> bool {
        self.still.is_some_and(|(life, until)| life == self.life && Instant::now() < until)
    }

    fn effect(&mut self, what: What) {
        let effect = Effect { at: self.now, what };
        if let Some(mut witness) = self.witness.take() {
            witness(self, &effect);
            self.witness = Some(witness);
        }
        self.effects.push(effect);
    }

    /// The restarts that the Engine carries out, by container name.
    pub fn restarts(&self) -> Vec<String> {
        let restarts = self.effects.iter().filter_map(|effect| match &effect.what {
            What::Restart { name, .. } => Some(name.clone()),
            What::Drain(_) | What::Ready(_) | What::Asked { .. } => None,
        });
        restarts.collect()
    }
}

impl Ports {
    /// A call begins: orders that wait for it are carried out, and a dead process gets no further.
    async fn enter(&self, point: Point) {
        self.stage(point, When::Before).await;
    }

    /// A call's answer is on its way.
    async fn leave(&self, point: Point) {
        self.stage(point, When::After).await;
        // Only here: a process that stands still between its last look and the call that follows is beyond every look.
        while self.sim.deaths() == self.life && self.sim.is_still() {
            tokio::time::sleep(STILL).await;
        }
        self.die_if_doomed().await;
    }

    async fn stage(&self, point: Point, when: When) {
        self.die_if_doomed().await;
        let orders = {
            let mut state = self.sim.lock();
            let nth = state.calls.entry(point).or_default();
            if when == When::Before {
                *nth += 1;
            }
            let nth = *nth;
            let due = |trigger: &mut Trigger| trigger.point == point && trigger.when == when && trigger.nth <= nth;
            state.triggers.extract_if(.., due).map(|trigger| trigger.order).collect::<Vec<_>>()
        };
        for order in orders {
            order(&self.sim);
        }
        self.die_if_doomed().await;
    }

    async fn die_if_doomed(&self) {
        let (life, doom) = {
            let state = self.sim.lock();
            (state.life, state.doom.clone())
        };
        // Asked without the lock: it looks at a journal, and whoever holds that may be asking for the time.
        if life == self.life && doom.is_some_and(|doom| doom()) {
            self.sim.kill();
        }
        if self.sim.deaths() != self.life {
            std::future::pending::<()>().await;
        }
    }
}

fn beginning() -> Timestamp {
    Timestamp::from_second(BEGINNING).unwrap_or(Timestamp::UNIX_EPOCH)
}
