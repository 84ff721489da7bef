//! The world's own ledger of a run: every effect with the world around it, every delivery with its answer, every fault.
//! It is written outside the program, so that the program's journal can be held against it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::api::desk::Receipt;
use crate::decide::playbook::Mode;
use crate::pipeline::Context;
use crate::sim::fault::Fault;
use crate::sim::invariants::STALE;
use crate::sim::prometheus::Trouble;
use crate::sim::{Effect, Sim, State, What};
use crate::target::{ContainerId, Instance, PlaybookName, ServerPath, ServiceName};
use crate::world::RuleAlertState;

/// How long somebody else's drain or maintenance may go unnoticed: what a last look may take, and its way to the balancer.
const NOTICED: SignedDuration = SignedDuration::from_secs(15);

/// The ledger. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    pages: Arc<Mutex<Pages>>,
    current: Arc<Mutex<Option<Context>>>,
}

#[derive(Default)]
struct Pages {
    notes: Vec<Note>,
    ours: BTreeSet<ServerPath>,
    newest_drain: Option<ServerPath>,
    /// Since when Prometheus cannot be believed.
    blind_since: Option<Timestamp>,
}

/// One line: when, after which entry of the journal, what.
#[derive(Clone, Debug)]
pub struct Note {
    pub at: Timestamp,
    pub seq: u64,
    pub what: Noted,
}

#[derive(Clone, Debug)]
pub enum Noted {
    Fault(Fault),
    Act(Box<Act>),
    Delivery(Delivery),
    Started,
    /// The journal could not be written, so the process did not start.
    DidNotStart,
    Died,
    Stopped,
    /// Everything is put right; from now on nothing goes wrong.
    Calm,
    /// An alert fires that was delivered, in a world where all is well, and nothing was done nor said for too long.
    Silent(String),
    /// The journal is full and refused a delivery, and nobody was paged for it.
    Unsaid(String),
}

/// One effect and the world at its moment.
#[derive(Clone, Debug)]
pub struct Act {
    pub what: What,
    pub server: ServerPath,
    pub service: ServiceName,
    pub instance: Instance,
    /// What the program's clock said.
    pub program_now: Timestamp,
    pub container: ContainerId,
    pub started_at: Timestamp,
    pub opted_in: bool,
    /// Open descriptors as a share of the limit, now or when they were seen: what a ramp takes may be less again.
    pub share: f64,
    /// Answers nothing.
    pub mute: bool,
    /// The server is drained in our name.
    pub ours: bool,
    /// It was drained before, and not in our name.
    pub taken: bool,
    /// Somebody had put it in maintenance.
    pub maintenance: bool,
    /// It takes no new sessions, whoever drained it.
    pub drained: bool,
    /// Other servers of the service that are drained in our name.
    pub also_drained: usize,
    /// Other replicas of the service that take traffic, opted in or not.
    pub others_serving: usize,
    /// Replicas for which Prometheus lists an alert, or that we hold, this one included.
    pub sick: usize,
    pub all: usize,
    /// How long Prometheus has been blind.
    pub blind_for: SignedDuration,
    pub engine_down: bool,
    pub balancer_down: bool,
    pub pager_down: bool,
    pub clock_ahead: SignedDuration,
    /// The disk is full, or a sync of it fails, and a write has met with that. (The start of what is done now was written before.)
    pub full: bool,
    pub silenced: bool,
    /// Playbooks that are live.
    pub live: Vec<PlaybookName>,
}

/// One notification and what it was answered.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub from: String,
    /// It came with a receiver's token.
    pub authentic: bool,
    /// None: nobody answered.
    pub status: Option<u16>,
    /// The journal's head before and after.
    pub before: u64,
    pub after: u64,
    pub receipts: Vec<Receipt>,
    pub told: String,
    /// Receipts that the journal does not know.
    pub lost: usize,
}

impl Ledger {
    pub fn new(current: Arc<Mutex<Option<Context>>>) -> Ledger {
        Ledger { pages: Arc::default(), current }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn context(&self) -> Option<Context> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn head(&self) -> u64 {
        self.context().map_or(0, |context| context.journal.read(|state| state.head.seq))
    }

    pub fn note(&self, sim: &Sim, what: Noted) {
        let (at, seq) = (sim.now(), self.head());
        let mut pages = self.pages();
        match &what {
            // What comes late, or not for everybody, may still be whole for this one.
            Noted::Fault(Fault::Prometheus(Trouble::None | Trouble::Lagging | Trouble::Partial)) => pages.blind_since = None,
            // One that was down scraped on; what it lacks now is lacking since now.
            Noted::Fault(Fault::Prometheus(_)) => pages.blind_since = Some(at),
            Noted::Fault(Fault::Reload) => pages.ours.clear(),
            _ => {}
        }
        pages.notes.push(Note { at, seq, what });
    }

    /// The journal was cut after this entry: whatever was noted of later ones comes right after it.
    pub fn cut(&self, last: u64) {
        self.pages().notes.iter_mut().rev().take_while(|note| note.seq > last).for_each(|note| note.seq = last);
    }

    /// Servers that are drained in our name.
    pub fn ours(&self) -> BTreeSet<ServerPath> {
        self.pages().ours.clone()
    }

    pub fn newest_drain(&self) -> Option<ServerPath> {
        self.pages().newest_drain.clone()
    }

    pub fn notes(&self) -> Vec<Note> {
        self.pages().notes.clone()
    }

    /// Called at the moment of each effect, with the world locked.
    pub fn witness(&self, state: &State, effect: &Effect) {
        let path = match &effect.what {
            What::Drain(path) | What::Ready(path) => Some(path.clone()),
            What::Restart { container, .. } | What::Asked { container } => {
                state.replicas.iter().find(|replica| replica.id == *container).map(|replica| replica.server.clone())
            }
        };
        let (Some(path), seq) = (path, self.head()) else { return };
        let mut pages = self.pages();
        if let Some(act) = self.act(state, effect, &path, &pages) {
            pages.notes.push(Note { at: effect.at, seq, what: Noted::Act(Box::new(act)) });
        }
        match &effect.what {
            What::Drain(path) => {
                pages.ours.insert(path.clone());
                pages.newest_drain = Some(path.clone());
            }
            What::Ready(path) => {
                pages.ours.remove(path);
            }
            What::Restart { .. } | What::Asked { .. } => {}
        }
    }

    fn act(&self, state: &State, effect: &Effect, path: &ServerPath, pages: &Pages) -> Option<Act> {
        let replica = state.replicas.iter().find(|replica| replica.server == *path)?;
        let family = || state.replicas.iter().filter(|other| other.service == replica.service && other.opted_in && !other.lost);
        let listed: BTreeSet<String> = [RuleAlertState::Pending, RuleAlertState::Firing]
            .into_iter()
            .flat_map(|wanted| state.prometheus.listed(wanted))
            .map(|(_, instance)| instance)
            .collect();
        // A reload undoes a drain without our doing, and what somebody put in maintenance is theirs.
        let ours = |other: &&crate::sim::shop::Replica| {
            other.drained_since.is_some() && other.maintenance_since.is_none() && pages.ours.contains(&other.server)
        };
        let others = || family().filter(|other| other.server != *path);
        // A replica that was opted out a moment ago serves all the same.
        let of_service = state.replicas.iter().filter(|other| other.service == replica.service && !other.lost);
        let serving = || of_service.clone().filter(|other| crate::sim::haproxy::server(other, state.now).serving());
        let context = self.context();
        let seen = state.now.saturating_sub(STALE).unwrap_or(state.now);
        let noticed = |since: Timestamp| since.saturating_add(NOTICED).is_ok_and(|seen| seen < state.now);
        let silence = |(matchers, _): &(Vec<crate::alert::Matcher>, _)| {
            matchers.iter().all(|matcher| matcher.value == replica.service.as_str())
        };
        Some(Act {
            what: effect.what.clone(),
            server: path.clone(),
            service: replica.service.clone(),
            instance: replica.instance.clone(),
            program_now: state.now.saturating_add(state.clock_ahead).unwrap_or(state.now),
            container: replica.id.clone(),
            started_at: replica.started_at,
            opted_in: replica.opted_in,
            share: replica.fds(state.now).max(replica.fds(seen)) / crate::sim::shop::MAX_FDS,
            mute: !replica.answers(state.now),
            ours: pages.ours.contains(path),
            taken: !pages.ours.contains(path) && replica.drained_since.is_some_and(noticed),
            maintenance: replica.maintenance_since.is_some_and(noticed),
            drained: replica.drained_since.is_some(),
            also_drained: others().filter(|other| ours(other)).count(),
            others_serving: serving().filter(|other| other.server != *path).count(),
            sick: 1 + others().filter(|other| listed.contains(other.instance.as_str()) || ours(other)).count(),
            all: family().count(),
            blind_for: pages.blind_since.map_or(SignedDuration::ZERO, |since| state.now.duration_since(since)),
            engine_down: state.engine.down,
            balancer_down: state.balancer.down,
            pager_down: state.pager.down,
            clock_ahead: state.clock_ahead,
            full: context
                .as_ref()
                .map(|context| &context.journal)
                .is_some_and(|journal| journal.pretends_to_fail() && journal.trouble().is_some()),
            silenced: state.pager.silences.iter().any(silence),
            live: context
                .map(|context| {
                    let playbooks = context.playbooks();
                    playbooks.iter().filter(|p| p.mode == Mode::Live).map(|p| p.name.clone()).collect()
                })
                .unwrap_or_default(),
        })
    }
}
