//! What must hold in every run: I1 to I12. Each is held against the world's own ledger, the entries of the journal and
//! how things stood at the end; nothing that the program says of itself counts where the world can be asked instead.
//!
//! One pass: the entries are folded one by one, and every note of the ledger is judged at its place between them. So
//! "before the effect" means: folded before it. Where the program's clock decides (a cooldown of five minutes) and the
//! world's is used to check it, [`SLACK`] is what a clock may be off before freshness refuses.

mod acts;
mod drained;
mod intents;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use crate::audit::Told;
use crate::audit::state::State;
use crate::decide::playbook::{Mode, Playbook};
use crate::event::{Entry, Event, RecordId, Step};
use crate::sim::fault::Fault;
use crate::sim::ledger::{Act, Delivery, Note, Noted};
use crate::sim::run::{End, Trial};
use crate::sim::scenario::Scenario;
use crate::target::{PlaybookName, ServiceName};

/// How far the program's clock may be off without being noticed: two scrapes, and what Confirm grants beyond them.
pub const SLACK: SignedDuration = SignedDuration::from_secs(45);
/// How old the evidence may be at the drain, with the drain's own way to the balancer.
pub const STALE: SignedDuration = SignedDuration::from_secs(35);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// No action without an authenticated caller, an allow-listed target, a fresh `Firing`, all guardrails and an intent
    /// on disk.
    I1,
    /// At most one action per target and cooldown.
    I2,
    /// Budgets, rates, breaker and blast radius hold.
    I3,
    /// Every intent ends in exactly one outcome; an unknown outcome is looked at, never repeated.
    I4,
    /// What fails stops action, and neither pages nor audit.
    I5,
    /// The audit is a chain.
    I6,
    /// 2xx means durable.
    I7,
    /// Drain precedes restart, and is undone on every way out.
    I8,
    /// Pause, mode, permit and identity are read last.
    I9,
    /// Projections are what the entries say.
    I10,
    /// Order, repetition and batches of deliveries change nothing.
    I11,
    /// Act or page, in time.
    I12,
}

impl Invariant {
    pub const ALL: [Invariant; 12] = {
        use Invariant::{I1, I2, I3, I4, I5, I6, I7, I8, I9, I10, I11, I12};
        [I1, I2, I3, I4, I5, I6, I7, I8, I9, I10, I11, I12]
    };
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// An invariant that did not hold, where and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: Invariant,
    pub at: Option<Timestamp>,
    pub seq: u64,
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.map_or_else(|| "at the end".to_owned(), |at| format!("{at:.0}"));
        write!(f, "{} at entry {}, {at}: {}", self.invariant, self.seq, self.detail)
    }
}

/// What has happened up to a place in the run.
struct Walk<'a> {
    scenario: &'a Scenario,
    /// When Prometheus was asked, by what the program's clock said then.
    asked: BTreeMap<Timestamp, Vec<Timestamp>>,
    fold: State,
    /// Drains so far, by when they were admitted, with the playbook that asked for them.
    drains: Vec<(Timestamp, &'a Act, PlaybookName)>,
    /// Restart calls, whatever became of them.
    restarts: BTreeMap<RecordId, u32>,
    /// Records whose process died between the restart's start and its end: whether it was ordered, nobody knows any more.
    cut_off: BTreeSet<RecordId>,
    /// When the pager last went or came.
    pager_at: Option<Timestamp>,
    /// When a silence of the service last came or went.
    silenced_at: BTreeMap<ServiceName, Timestamp>,
    opened: BTreeSet<RecordId>,
    found: Vec<Violation>,
}

/// Every violation of a run, in the order of the run.
pub fn check(trial: &Trial) -> Vec<Violation> {
    let asked = trial.sim.with(|state| state.prometheus.asked.clone());
    let mut walk = Walk::new(&trial.scenario, asked);
    let mut entries = trial.entries.iter().peekable();
    for note in &trial.notes {
        while let Some(told) = entries.next_if(|told| told.entry.seq <= note.seq) {
            walk.entry(told);
        }
        walk.note(note);
    }
    entries.for_each(|told| walk.entry(told));
    walk.undone(&trial.notes);
    walk.received(&trial.notes);
    walk.end(&trial.end, &trial.broken);
    walk.found
}

impl<'a> Walk<'a> {
    fn new(scenario: &'a Scenario, asked: BTreeMap<Timestamp, Vec<Timestamp>>) -> Walk<'a> {
        Walk {
            scenario,
            asked,
            fold: State::default(),
            drains: Vec::new(),
            restarts: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            pager_at: None,
            silenced_at: BTreeMap::new(),
            opened: BTreeSet::new(),
            found: Vec::new(),
        }
    }

    fn broken(&mut self, invariant: Invariant, at: Option<Timestamp>, detail: String) {
        self.found.push(Violation { invariant, at, seq: self.fold.head.seq, detail });
    }

    /// A sentence for each condition that does not hold.
    fn must(&mut self, invariant: Invariant, at: Timestamp, holds: bool, detail: impl FnOnce() -> String) {
        if !holds {
            self.broken(invariant, Some(at), detail());
        }
    }

    fn playbook(&self, name: &PlaybookName) -> Option<&'a Playbook> {
        self.scenario.playbooks.iter().find(|playbook| playbook.name == *name)
    }

    fn entry(&mut self, told: &'a Told) {
        let entry = &told.entry;
        if told.prev_hash != self.fold.head.hash || entry.seq != self.fold.head.seq + 1 {
            self.broken(Invariant::I6, Some(entry.at), format!("entry {} does not follow {}", entry.seq, self.fold.head.seq));
        }
        if let Event::Intent { intent } = &entry.event {
            self.intent(entry, intent);
        }
        if let (Event::Accepted { accepted }, Some(id)) = (&entry.event, entry.record) {
            self.opened.insert(id);
            let twin =
                self.fold.open.values().find(|open| open.accepted.target.is_some() && open.accepted.target == accepted.target);
            if let Some(twin) = twin {
                let detail = format!("{id} is opened for a target that {} is about", twin.id);
                self.broken(Invariant::I2, Some(entry.at), detail);
            }
        }
        match self.fold.apply(entry) {
            Ok(closed) => {
                if let Some(record) = closed {
                    self.closed(entry, &record);
                }
            }
            Err(illegal) => self.broken(Invariant::I4, Some(entry.at), illegal.to_string()),
        }
        self.fold.head.hash.clone_from(&told.hash);
    }

    /// A live run that began to drain has begun to readmit before it is closed.
    fn closed(&mut self, entry: &Entry, record: &crate::event::Record) {
        let live = record.intent.as_ref().is_some_and(|intent| intent.mode == Mode::Live);
        if live && record.ordered(Step::Drain) && !record.began(Step::Readmit) {
            self.broken(Invariant::I8, Some(entry.at), format!("{} drained and was closed without a readmit", record.id));
        }
        // Somebody else's restart is taken for its own by a run that was cut off in it.
        let ordered = self.restarts.contains_key(&record.id) || self.cut_off.contains(&record.id);
        if record.judgement.is_some() && !ordered {
            self.broken(Invariant::I4, Some(entry.at), format!("{} is judged by a restart that nobody asked for", record.id));
        }
    }

    fn note(&mut self, note: &'a Note) {
        match &note.what {
            Noted::Fault(Fault::PagerDown(_)) => self.pager_at = Some(note.at),
            Noted::Fault(Fault::Silenced(service, _)) => {
                let first = self.scenario.services.get(*service).and_then(|places| places.first());
                let name = first.and_then(|place| self.scenario.replicas.get(*place)).map(|replica| replica.service.clone());
                self.silenced_at.extend(name.map(|name| (name, note.at)));
            }
            Noted::Act(act) => self.act(note.at, act),
            Noted::Delivery(delivery) => self.delivery(note.at, delivery),
            Noted::Silent(why) => self.broken(Invariant::I12, Some(note.at), why.clone()),
            Noted::Unsaid(why) => self.broken(Invariant::I5, Some(note.at), why.clone()),
            Noted::Died => {
                let restarting = self.fold.records().filter(|record| record.running() == Some(Step::Restart));
                self.cut_off.extend(restarting.map(|record| record.id));
            }
            Noted::Fault(_) | Noted::Started | Noted::DidNotStart | Noted::Stopped | Noted::Calm => {}
        }
    }

    fn delivery(&mut self, at: Timestamp, delivery: &Delivery) {
        let Some(status) = delivery.status else { return };
        let turned_away = matches!(status, 401 | 403) && delivery.before == delivery.after;
        self.must(Invariant::I1, at, delivery.authentic || turned_away, || {
            format!("{} has no token and was answered {status}, with {} entries", delivery.from, delivery.after - delivery.before)
        });
        self.must(Invariant::I7, at, delivery.lost == 0, || {
            format!("{} of {} receipts name records that the journal does not have", delivery.lost, delivery.receipts.len())
        });
    }

    /// What was answered with 2xx is in the journal that is left, whatever died meanwhile.
    fn received(&mut self, notes: &[Note]) {
        for note in notes {
            let Noted::Delivery(delivery) = &note.what else { continue };
            for receipt in delivery.receipts.iter().filter(|_| delivery.status == Some(202)) {
                if let Some(id) = receipt.id.filter(|id| !self.opened.contains(id)) {
                    let detail = format!("{} was answered with 202 and record {id}, which is gone", receipt.alertname);
                    self.broken(Invariant::I7, Some(note.at), detail);
                }
            }
        }
    }

    fn end(&mut self, end: &End, broken: &[String]) {
        let mut say = |invariant, detail: String| self.broken(invariant, None, detail);
        for why in broken {
            let projection = why.contains("projections") || why.contains("table");
            say(if projection { Invariant::I10 } else { Invariant::I6 }, why.clone());
        }
        if !end.same_state {
            say(Invariant::I10, "the journal's state is not the fold of its entries".to_owned());
        }
        end.open.iter().for_each(|id| say(Invariant::I4, format!("record {id} never ended")));
        end.drained.iter().for_each(|server| say(Invariant::I8, format!("{server} is left drained")));
        end.stale_pages.iter().for_each(|page| say(Invariant::I12, format!("a page stands for what is well: {page}")));
        end.split.iter().for_each(|why| say(Invariant::I11, why.clone()));
    }
}
