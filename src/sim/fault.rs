//! What can go wrong, as a value: drawn by `scenario`, carried out here, told in the story.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;

use crate::alert::{MatchOp, Matcher};
use crate::decide::playbook::Mode;
use crate::event::{Draft, Event, Pause, PauseScope};
use crate::pipeline::Context;
use crate::sim::bench::write_now;
use crate::sim::docker::RestartFault;
use crate::sim::ledger::{Ledger, Noted};
use crate::sim::prometheus::Trouble;
use crate::sim::scenario::NEWEST;
use crate::sim::shop::{Habit, Load};
use crate::sim::{Point, Sim, When};
use crate::world::Silence;

/// How long the processes of a crash loop live: long enough to be scraped once.
const CRASHES_IN: Duration = Duration::from_secs(40);

/// Descriptors at the height of a ramp: four fifths of the limit with those that a process has anyway.
const RAMP: f64 = 760.0;

/// One thing going wrong, or being put right. Replicas, services and playbooks are named by their place in the scenario.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    Leaks(usize),
    /// Out of descriptors within half a minute.
    Exhausted(usize),
    /// Many descriptors, and not one more: a pool that is simply large.
    Flat(usize),
    /// Every new process is as sick as the last.
    Incurable(usize),
    /// Every new process leaks again after a while.
    LeaksAgain(usize, Duration),
    /// Every replica of the service leaks at once.
    Shared(usize),
    /// Every replica of the service has more to do for so long, whichever process it is, and then less and less.
    Ramp(usize, Duration),
    /// A deploy that leaks: every replica of the service is another container now, and leaks after a while.
    BadDeploy(usize),
    /// Every process dies soon after its start, and Docker starts the next.
    CrashLoops(usize, bool),
    /// The next drain of one makes the others of the service leak.
    Sympathy(usize),
    Hangs(usize, bool),
    Stopped(usize, bool),
    Slow(usize, Duration),
    Empties(usize, Option<Duration>),
    /// Somebody else restarts the container.
    ForeignRestart(usize),
    /// A new container takes its place.
    Recreated(usize),
    Lost(usize, bool),
    OptedOut(usize, bool),
    ForeignDrain(usize, bool),
    /// Ordered at the balancer, which takes a drain away.
    Maintenance(usize, bool),
    /// It comes by itself, as to a server that tracks another one: a drain stands beside it, and is left standing by its end.
    Tracked(usize, bool),
    Unscraped(usize, bool),
    Prometheus(Trouble),
    EngineDown(bool),
    EngineSlow(bool),
    Restarts(RestartFault),
    Mute(bool),
    BalancerDown(bool),
    RefusesDrain(bool),
    DrainsSilently(bool),
    RefusesReady(bool),
    Reload,
    PagerDown(bool),
    /// A silence for everything of a service.
    Silenced(usize, bool),
    Full(bool),
    /// Every commit is written, and then its sync fails.
    Unsynced(bool),
    /// Whoever begins the next step waits so long for the disk.
    Stalled(Duration),
    /// The program's clock is so many seconds ahead of the world's.
    Clock(i64),
    Kill,
    KillAt(Point, When, u64),
    /// Dies once so many more entries are written.
    KillAfter(u64),
    /// Is asked to stop, and started again.
    Stop,
    /// Stands still for so long.
    Still(Duration),
    Pause(Option<usize>),
    Resume(Option<usize>),
    Mode(usize, Mode),
    /// At the next call of this kind.
    Then(Point, Box<Fault>),
    /// Somebody without a token, and somebody with one who lies.
    Intruder(usize),
    Liar(usize),
    /// A peer's own troubles are `alertmanager`'s.
    PeerDown(usize, bool),
    Truncates(usize, bool),
}

/// Where faults happen.
#[derive(Clone)]
pub struct Scene {
    pub sim: Sim,
    pub ledger: Ledger,
    pub services: Vec<Vec<usize>>,
    /// The process that lives now.
    pub current: Arc<Mutex<Option<Context>>>,
    /// The last entry that the doomed process writes.
    pub doom: Arc<Mutex<Option<u64>>>,
}

impl Scene {
    pub fn context(&self) -> Option<Context> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Carries it out, and writes it down.
    pub fn apply(&self, fault: &Fault) {
        self.ledger.note(&self.sim, Noted::Fault(fault.clone()));
        match fault {
            Fault::Prometheus(trouble) => self.sim.with(|state| state.prometheus.trouble = *trouble),
            Fault::EngineDown(down) => self.sim.with(|state| state.engine.down = *down),
            Fault::EngineSlow(on) => self.sim.with(|state| state.engine.slow = *on),
            Fault::Restarts(fault) => self.sim.with(|state| state.engine.restart = *fault),
            Fault::Mute(mute) => self.sim.with(|state| state.engine.logs_unavailable = *mute),
            Fault::BalancerDown(on) => self.sim.with(|state| state.balancer.down = *on),
            Fault::RefusesDrain(on) => self.sim.with(|state| state.balancer.refuses_drain = *on),
            Fault::DrainsSilently(on) => self.sim.with(|state| state.balancer.drains_silently = *on),
            Fault::RefusesReady(on) => self.sim.with(|state| state.balancer.refuses_ready = *on),
            Fault::Reload => self.sim.with(|state| state.reload_balancer()),
            Fault::PagerDown(down) => self.sim.with(|state| state.pager.down = *down),
            Fault::Silenced(service, on) => self.silence(*service, *on),
            Fault::Still(how_long) => self.sim.stand_still(*how_long),
            Fault::Clock(ahead) => self.sim.with(|state| state.clock_ahead = SignedDuration::from_secs(*ahead)),
            Fault::Then(point, inner) => {
                let (scene, inner) = (self.clone(), inner.clone());
                self.sim.at(When::After, *point, 1, move |sim| scene.apply(&inner.aimed_at(scene.newest(sim))));
            }
            Fault::Sympathy(service) => {
                let (scene, service) = (self.clone(), *service);
                self.sim.at(When::After, Point::Drain, 1, move |_| scene.spread(service));
            }
            Fault::Shared(service) => self.services[*service].clone().into_iter().for_each(|i| self.leak(i)),
            Fault::Ramp(service, half) => self.ramp(*service, *half),
            Fault::BadDeploy(service) => self.deploy(*service),
            Fault::Full(_)
            | Fault::Unsynced(_)
            | Fault::Stalled(_)
            | Fault::Kill
            | Fault::KillAt(..)
            | Fault::KillAfter(_)
            | Fault::Stop
            | Fault::Pause(_)
            | Fault::Resume(_)
            | Fault::Mode(..) => self.to_the_process(fault),
            // The run's own, who has the peers at hand.
            Fault::Intruder(_) | Fault::Liar(_) | Fault::PeerDown(..) | Fault::Truncates(..) => {}
            replica => self.to_a_replica(replica),
        }
    }

    /// The replica whose drain is the newest.
    fn newest(&self, sim: &Sim) -> Option<usize> {
        let path = self.ledger.newest_drain()?;
        sim.with(|state| state.replicas.iter().position(|replica| replica.server == path))
    }

    fn to_the_process(&self, fault: &Fault) {
        let Some(context) = self.context() else { return };
        let journal = context.journal.clone();
        match fault {
            Fault::Full(full) => journal.pretend_full(*full),
            Fault::Unsynced(on) => journal.pretend_unsynced(*on),
            Fault::Stalled(how_long) => journal.pretend_stalled(*how_long),
            Fault::Kill => self.sim.kill(),
            Fault::Stop => context.shutdown.cancel(),
            Fault::KillAt(point, when, nth) => self.sim.at(*when, *point, *nth, Sim::kill),
            Fault::KillAfter(entries) => {
                let last = journal.head().seq + entries;
                *self.doom.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
                self.sim.die_when(move || journal.head().seq >= last);
            }
            Fault::Pause(playbook) => {
                let scope = scope(&context, *playbook);
                let pause = Pause { scope, actor: "operator".to_owned(), reason: "drawn by lot".to_owned(), until: None };
                write_now(&journal, Draft::global(context.world.clock.now(), Event::Paused { pause }));
            }
            Fault::Resume(playbook) => {
                let (scope, by) = (scope(&context, *playbook), "operator".to_owned());
                let event = Event::Resumed { scope, actor: by, reason: "drawn by lot".to_owned() };
                write_now(&journal, Draft::global(context.world.clock.now(), event));
            }
            Fault::Mode(number, mode) => {
                let mut playbooks = context.playbooks().as_ref().clone();
                playbooks[*number].mode = *mode;
                *context.playbooks.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(playbooks);
            }
            _ => {}
        }
    }

    fn to_a_replica(&self, fault: &Fault) {
        let ours = self.ledger.ours();
        self.sim.with(|state| {
            let now = state.now;
            let all = &mut state.replicas;
            match fault {
                Fault::Leaks(i) => all[*i].leaks(now, 600.0, 0.5),
                Fault::Exhausted(i) => all[*i].leaks(now, 1000.0, 1.0),
                Fault::Flat(i) => all[*i].leaks(now, 700.0, 0.0),
                Fault::Incurable(i) => {
                    all[*i].leaks(now, 600.0, 0.5);
                    all[*i].habit = Habit { level: 600.0, per_second: 0.002, ..Habit::default() };
                }
                Fault::LeaksAgain(i, after) => {
                    all[*i].leaks(now, 600.0, 0.5);
                    all[*i].habit = Habit { after: *after, per_second: 2.0, ..Habit::default() };
                }
                Fault::Hangs(i, on) => all[*i].hung = *on,
                Fault::CrashLoops(i, on) => all[*i].crashes_in = on.then_some(CRASHES_IN),
                Fault::Stopped(i, on) => all[*i].running = !on,
                Fault::Slow(i, by) => (all[*i].starts_in, all[*i].stops_in) = (*by, *by / 8),
                Fault::Empties(i, within) => all[*i].empties_in = *within,
                Fault::ForeignRestart(i) => all[*i].restart(now),
                Fault::Recreated(i) => all[*i].recreate(now),
                Fault::Lost(i, on) => all[*i].lost = *on,
                Fault::OptedOut(i, out) => all[*i].opted_in = !out,
                Fault::Maintenance(i, true) => {
                    all[*i].maintenance_since.get_or_insert(now);
                    all[*i].drained_since = None;
                }
                Fault::Tracked(i, true) => {
                    all[*i].maintenance_since.get_or_insert(now);
                    all[*i].tracks = true;
                }
                Fault::Tracked(i, false) => (all[*i].maintenance_since, all[*i].tracks) = (None, false),
                // Ready at the balancer means neither.
                Fault::Maintenance(i, false) if all[*i].tracks => all[*i].drained_since = None,
                Fault::Maintenance(i, false) => (all[*i].maintenance_since, all[*i].drained_since) = (None, None),
                Fault::Unscraped(i, on) => all[*i].scraped = !on,
                // What we have drained is ours, and nobody else puts it back.
                Fault::ForeignDrain(i, true) if !ours.contains(&all[*i].server) => {
                    all[*i].drained_since.get_or_insert(now);
                }
                Fault::ForeignDrain(i, false) if !ours.contains(&all[*i].server) => all[*i].drained_since = None,
                _ => {}
            }
        });
    }

    fn leak(&self, replica: usize) {
        self.sim.with(|state| {
            let now = state.now;
            state.replicas[replica].leaks(now, 600.0, 0.5);
        });
    }

    fn ramp(&self, service: usize, half: Duration) {
        self.sim.with(|state| {
            let load = Load { from: state.now, half, most: RAMP };
            for replica in &self.services[service] {
                state.replicas[*replica].load = Some(load);
            }
        });
    }

    fn deploy(&self, service: usize) {
        self.sim.with(|state| {
            let now = state.now;
            for replica in &self.services[service] {
                let replica = &mut state.replicas[*replica];
                replica.habit = Habit { after: Duration::from_secs(60), per_second: 4.0, ..Habit::default() };
                replica.recreate(now);
            }
        });
    }

    /// The load that one of them no longer takes is the others' now.
    fn spread(&self, service: usize) {
        for replica in &self.services[service] {
            let drained = self.sim.with(|state| state.replicas[*replica].drained_since.is_some());
            if !drained {
                self.leak(*replica);
            }
        }
    }

    fn silence(&self, service: usize, on: bool) {
        self.sim.with(|state| {
            let name = self.services[service].first().map(|i| state.replicas[*i].service.clone());
            let Some(name) = name else { return };
            let id = format!("silence-{name}");
            state.pager.silences.retain(|(_, silence)| silence.id != id);
            if let (true, Ok(matcher)) = (on, Matcher::new("service", MatchOp::Equal, name.as_str())) {
                let silence = Silence { id, comment: String::new(), created_by: "operator".to_owned(), ends_at: None };
                state.pager.silences.push((vec![matcher], silence));
            }
        });
    }

    /// Everything that was broken is whole; who leaks still leaks.
    pub fn put_right(&self) {
        // A standstill that has begun goes on to its end: one that is cut short may be shorter than what a last look lets pass.
        self.sim.disarm();
        for fault in [
            Fault::Prometheus(Trouble::None),
            Fault::EngineDown(false),
            Fault::EngineSlow(false),
            Fault::Restarts(RestartFault::None),
            Fault::Mute(false),
            Fault::BalancerDown(false),
            Fault::RefusesDrain(false),
            Fault::DrainsSilently(false),
            Fault::RefusesReady(false),
            Fault::PagerDown(false),
            Fault::Full(false),
            Fault::Unsynced(false),
            Fault::Stalled(Duration::ZERO),
            Fault::Clock(0),
            Fault::Resume(None),
        ] {
            self.apply(&fault);
        }
        (0..self.services.len()).for_each(|service| self.silence(service, false));
        let ours = self.ledger.ours();
        self.sim.with(|state| {
            for replica in &mut state.replicas {
                (replica.hung, replica.running, replica.lost, replica.opted_in) = (false, true, false, true);
                replica.crashes_in = None;
                let quick = Duration::from_secs(2);
                (replica.starts_in, replica.stops_in, replica.empties_in) = (quick, quick / 2, Some(quick));
                if !ours.contains(&replica.server) {
                    replica.drained_since = None;
                }
                (replica.scraped, replica.maintenance_since, replica.tracks) = (true, None, false);
            }
        });
    }
}

fn scope(context: &Context, playbook: Option<usize>) -> PauseScope {
    match playbook.and_then(|number| context.playbooks().get(number).map(|playbook| playbook.name.clone())) {
        Some(name) => PauseScope::Playbook(name),
        None => PauseScope::All,
    }
}

impl Fault {
    /// The same, at the replica that stands for `NEWEST`.
    fn aimed_at(&self, newest: Option<usize>) -> Fault {
        match (self, newest) {
            (Fault::ForeignRestart(NEWEST), Some(i)) => Fault::ForeignRestart(i),
            (Fault::Recreated(NEWEST), Some(i)) => Fault::Recreated(i),
            (Fault::ForeignRestart(NEWEST) | Fault::Recreated(NEWEST), None) => Fault::Reload,
            (other, _) => other.clone(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
