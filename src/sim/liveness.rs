//! Watches from outside, every few seconds, that nothing is silent: an alert that fires, was taken in and is neither
//! acted upon nor paged for; a full disk that nobody hears of; and at the end, pages for what has long been well.
//!
//! The bound: [`SHORT`] after the alert was taken in by a process that lives, with a pager that answers, a disk that
//! takes entries and a clock that is right. For an alert that comes back after a cure: the playbook's cooldown and the
//! refill of its rate come on top, because within those nothing new is said.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::alert::AlertStatus;
use crate::audit::Told;
use crate::audit::state::State as Known;
use crate::pipeline::Context;
use crate::reason::{Outcome, Reason};
use crate::sim::State;
use crate::sim::fault::Scene;
use crate::sim::ledger::{Delivery, Noted};
use crate::sim::run::End;
use crate::sim::scenario::Scenario;
use crate::sim::shop::Replica;
use crate::world::RuleAlertState;

/// From taken in to acted or paged: patience with answers that are not yet clear, at their longest time-outs.
pub const SHORT: SignedDuration = SignedDuration::from_mins(5);
/// Longer than every step and the verification of a run together.
const RUN: SignedDuration = SignedDuration::from_mins(8);
/// How soon somebody hears of a full disk.
const STORE: SignedDuration = SignedDuration::from_secs(25);
/// How long a page may stand for what is well: its hold, and a clock that had been ahead.
const STALE: SignedDuration = SignedDuration::from_mins(25);

/// What was seen so far.
pub struct Liveness {
    /// By service: how much longer an alert may wait after a cure.
    patience: BTreeMap<String, SignedDuration>,
    firing: BTreeMap<String, Timestamp>,
    taken: BTreeMap<String, Timestamp>,
    sick: BTreeMap<String, Timestamp>,
    calm: Option<Timestamp>,
    refused: Option<Timestamp>,
    said: BTreeSet<String>,
}

impl Liveness {
    pub fn new(scenario: &Scenario) -> Liveness {
        let mut patience = BTreeMap::new();
        for playbook in &scenario.playbooks {
            let guards = &playbook.guards;
            let limits = &scenario.limits;
            let refill = guards.rate.per.signed() + limits.fleet.per.signed() + limits.group.per.signed();
            patience.insert(playbook.service.to_string(), guards.cooldown.signed() + refill);
        }
        Liveness {
            patience,
            firing: BTreeMap::new(),
            taken: BTreeMap::new(),
            sick: BTreeMap::new(),
            calm: None,
            refused: None,
            said: BTreeSet::new(),
        }
    }

    pub fn delivered(&mut self, delivery: &Delivery, now: Timestamp) {
        match delivery.status {
            Some(503) => {
                self.refused.get_or_insert(now);
            }
            Some(202) => {
                self.refused = None;
                let firing = delivery.receipts.iter().filter(|receipt| receipt.status == AlertStatus::Firing);
                for target in firing.filter_map(|receipt| receipt.target.clone()) {
                    self.taken.insert(target, now);
                }
            }
            _ => {}
        }
    }

    /// However short: the page is over, and another one takes its time.
    pub fn disk_is_well(&mut self) {
        self.refused = None;
    }

    pub fn look(&mut self, scene: &Scene, context: &Context, alive: bool) {
        let complaints = scene.sim.with(|state| {
            let now = state.now;
            let full = context.journal.pretends_to_fail();
            let well = alive && !state.is_still() && !state.pager.down && !full && state.clock_ahead.is_zero();
            self.calm = if well { self.calm.or(Some(now)) } else { None };
            let mut complaints = self.silent(state, context);
            if full && alive && !state.is_still() && !state.pager.down {
                complaints.extend(self.unsaid(state));
            } else {
                self.refused = None;
            }
            complaints
        });
        complaints.into_iter().for_each(|complaint| scene.ledger.note(&scene.sim, complaint));
    }

    fn silent(&mut self, state: &State, context: &Context) -> Vec<Noted> {
        let now = state.now;
        let firing: BTreeSet<String> = instances(state, RuleAlertState::Firing);
        let listed: BTreeSet<String> = instances(state, RuleAlertState::Pending).union(&firing).cloned().collect();
        let mut complaints = Vec::new();
        for replica in &state.replicas {
            let name = replica.target().to_string();
            let instance = replica.instance.as_str();
            if listed.contains(instance) || !replica.answers(now) || replica.drained_since.is_some() {
                self.sick.insert(name.clone(), now);
            }
            // Of what is well by now, Prometheus may go on saying for a while that it fires, if it judges no rule.
            let well = replica.answers(now) && replica.fds(now) < 0.5 * crate::sim::shop::MAX_FDS;
            if !firing.contains(instance) || well {
                self.firing.remove(&name);
                self.said.remove(&name);
                continue;
            }
            let since = *self.firing.entry(name.clone()).or_insert(now);
            let (Some(taken), Some(calm)) = (self.taken.get(&name).filter(|taken| **taken >= since), self.calm) else { continue };
            let waited = now.duration_since(since.max(*taken).max(calm));
            let late = waited > self.bound(replica, context) && !heard_of(state, replica, context, waited, calm);
            if late && self.said.insert(name.clone()) {
                complaints.push(Noted::Silent(format!("{name} fires, was taken in, and for {waited:#} nobody heard of it")));
            }
        }
        complaints
    }

    fn bound(&self, replica: &Replica, context: &Context) -> SignedDuration {
        let key = replica.target().key();
        let cured =
            context.journal.read(|known| known.books.watches.get(&key).is_some_and(|watch| watch.outcome == Outcome::Recovered));
        let more = self.patience.get(replica.service.as_str()).copied().unwrap_or_default();
        if cured { SHORT + more } else { SHORT }
    }

    fn unsaid(&mut self, state: &State) -> Option<Noted> {
        let since = self.refused.filter(|since| state.now.duration_since(*since) > STORE)?;
        let up = state.up().iter().any(|page| page.labels.get("reason") == Some(Reason::StoreUnavailable.code()));
        if up {
            return None;
        }
        self.refused = None;
        Some(Noted::Unsaid(format!("a delivery was refused at {since} because the disk is full, and nobody was paged")))
    }

    /// How the world and the journal stand at the end.
    pub fn end(&self, scene: &Scene, context: &Context, entries: &[Told]) -> End {
        let (open, drained, state) = context.journal.read(|known| {
            let now = context.world.clock.now();
            let old = known.records().filter(|record| now.duration_since(record.opened_at) > RUN);
            let open = old.map(|record| record.id.to_string()).collect();
            let under_way = |record| known.open.get(record).is_some_and(|record| now.duration_since(record.opened_at) <= RUN);
            let left = known.books.drained.iter().filter(|(_, drained)| !under_way(&drained.record));
            let drained: Vec<String> = left.map(|(server, _)| server.to_string()).collect();
            let busy: BTreeSet<String> = known.books.drained.keys().map(ToString::to_string).collect();
            (open, (drained, busy), known.clone())
        });
        let mut fold = Known::default();
        let legal = entries.iter().all(|told| {
            let applied = fold.apply(&told.entry).is_ok();
            fold.head.hash.clone_from(&told.hash);
            applied
        });
        let (drained, stale_pages) = scene.sim.with(|world| {
            let (drained, busy) = drained;
            let left = world.replicas.iter().filter(|replica| replica.drained_since.is_some());
            // What the journal knows to be drained is judged by its record.
            let left = left.map(|replica| replica.server.to_string()).filter(|server| !busy.contains(server));
            let left: Vec<String> = left.chain(drained).collect();
            (left, self.stale(world))
        });
        End { open, drained, stale_pages, deaths: scene.sim.deaths(), same_state: legal && fold == state, split: Vec::new() }
    }

    fn stale(&self, state: &State) -> Vec<String> {
        let now = state.now;
        let stale = |page: &&&crate::world::PageAlert| {
            let replica = state.replicas.iter().find(|r| page.labels.get("instance") == Some(r.instance.as_str()));
            let Some(replica) = replica else { return true };
            let sick = self.sick.get(&replica.target().to_string());
            let well = replica.fds(now) < 0.3 * crate::sim::shop::MAX_FDS && replica.answers(now);
            well && sick.is_none_or(|sick| now.duration_since(*sick) > STALE)
        };
        state.up().iter().filter(stale).map(|page| format!("{:?}", page.labels)).collect()
    }
}

/// Acted upon lately, under way for no longer than a run takes, or paged for.
fn heard_of(state: &State, replica: &Replica, context: &Context, lately: SignedDuration, calm: Timestamp) -> bool {
    let key = replica.target().key();
    let acted =
        state.effects.iter().rev().take_while(|effect| state.now.duration_since(effect.at) <= lately).any(|effect| match &effect
            .what
        {
            super::What::Drain(path) | super::What::Ready(path) => *path == replica.server,
            super::What::Restart { name, .. } => *name == replica.name,
            super::What::Asked { container } => *container == replica.id,
        });
    let fresh = |opened: Timestamp| state.now.duration_since(opened.max(calm)) <= RUN;
    let open =
        || context.journal.read(|known| known.records().any(|record| record.accepted.key == key && fresh(record.opened_at)));
    acted || open() || state.up().iter().any(|page| page.labels.get("instance") == Some(replica.instance.as_str()))
}

fn instances(state: &State, wanted: RuleAlertState) -> BTreeSet<String> {
    state.prometheus.listed(wanted).into_iter().map(|(_, instance)| instance).collect()
}
