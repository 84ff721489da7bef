//! What past entries add up to: attempts, buckets, breakers, who is being remediated, who is drained, who waits.
//!
//! A pure fold of the journal, kept as a projection and rebuildable from it. Shadow has accounts of its own, so that it
//! neither spends nor blocks what live needs.
//!
//! Bounded, however many targets come and go: with each permit (nothing else makes the accounts grow), what is older than
//! [`LONGEST_WINDOW`] by that entry's own time is forgotten, so that folding again forgets the same.
//!
//! Read for ever: the books as they were stand in the journal's anchor once their entries are pruned. A new field needs
//! `#[serde(default)]`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::decide::playbook::Mode;
use crate::event::{Accepted, Entry, Event, Intent, Pause, Pruned, Record, RecordId, Step, held_back};
use crate::reason::{Outcome, Reason};
use crate::target::{EpisodeKey, PlaybookName, ServerPath, ServiceName, Target};
use crate::world::Call;

/// What is older than this is forgotten; the configuration refuses a longer budget window, cooldown, `blame`,
/// `recurrence` or rate.
pub const LONGEST_WINDOW: SignedDuration = SignedDuration::from_hours(31 * 24);
/// Other alerts that a watch asks about; a playbook has a handful of rules.
const MAX_WATCH_MEMBERS: usize = 8;
/// Runs remembered per breaker, hence the most `failures` that `check` accepts.
pub const MAX_RUNS: usize = 64;

/// Everything that admission looks at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Books {
    /// Time of the newest entry; a clock behind it cannot be trusted.
    pub last_at: Timestamp,
    /// When anything was last decided.
    #[serde(default)]
    pub last_decision: Option<Timestamp>,
    pub live: Accounts,
    pub shadow: Accounts,
    pub pauses: Vec<Pause>,
    /// Servers that we drained and have not readmitted.
    pub drained: BTreeMap<ServerPath, Drained>,
    /// Episodes that somebody must look at again.
    pub watches: BTreeMap<EpisodeKey, Arc<Watch>>,
    /// What was taken out of the journal last, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchored: Option<Anchored>,
}

/// The newest `pruned` entry: what the journal's anchor has to agree with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchored {
    pub at: Timestamp,
    #[serde(flatten)]
    pub pruned: Pruned,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accounts {
    pub attempts: VecDeque<Attempt>,
    /// Token buckets by scope.
    pub buckets: BTreeMap<String, Bucket>,
    /// Episodes held from permit to verdict.
    pub held: BTreeMap<EpisodeKey, Held>,
    /// When the last permit for a target was given, or a person aborted a run of it: the cooldown counts from there.
    pub granted: BTreeMap<EpisodeKey, Timestamp>,
    /// When a replica of the service was last drained by us.
    pub drains: BTreeMap<EpisodeKey, DrainMark>,
    /// Runs by [`breaker_name`].
    pub breakers: BTreeMap<String, Breaker>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub at: Timestamp,
    pub playbook: PlaybookName,
    pub target: Target,
    pub record: RecordId,
}

/// A token bucket's level at a time. `tokens` may be fractional.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    pub tokens: f64,
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    pub record: RecordId,
    pub target: Target,
    pub playbook: PlaybookName,
    pub server: ServerPath,
    pub since: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrainMark {
    pub target: Target,
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drained {
    pub record: RecordId,
    pub since: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Breaker {
    /// Oldest first.
    pub runs: VecDeque<Run>,
}

/// One remediation as the breaker remembers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub record: RecordId,
    pub target: Target,
    pub at: Timestamp,
    pub probe: bool,
    pub end: Option<RunEnd>,
    /// When the target was seen to fire again within `recurrence`: the run was no cure.
    pub recurred_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnd {
    pub at: Timestamp,
    pub recovered: bool,
}

/// An episode that ended without a permit, or whose end is still on trial. It is asked again while its alert fires, and
/// what it says is what the page says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    pub key: EpisodeKey,
    pub accepted: Arc<Accepted>,
    /// The record that says why.
    pub record: RecordId,
    pub outcome: Outcome,
    pub reason: Reason,
    pub detail: String,
    /// Since when this outcome and reason hold.
    pub since: Timestamp,
    /// The shortest `retry_after` of the refusals, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// Other alerts of the episode that were delivered meanwhile: they are asked about, too.
    #[serde(default)]
    pub members: Vec<Arc<Accepted>>,
    /// When something was last delivered that the watch did not know.
    #[serde(default)]
    pub joined_at: Option<Timestamp>,
}

impl Watch {
    /// What a delivery would tell this watch: nothing, if it knows the alert and waits for it already.
    pub fn knows(&self, accepted: &Accepted) -> bool {
        let known =
            std::iter::once(&self.accepted).chain(&self.members).map(|known| &**known).find(|known| same_alert(known, accepted));
        // A settled episode has to hear of a firing once; it was thought to be over.
        let heard = !self.outcome.is_settled() || self.joined_at.is_some();
        heard && known.is_some_and(|known| known.truncated == accepted.truncated)
    }

    fn join(&mut self, accepted: &Arc<Accepted>, at: Timestamp) {
        self.joined_at = Some(at);
        if same_alert(&self.accepted, accepted) {
            let known = Arc::make_mut(&mut self.accepted);
            known.truncated = accepted.truncated;
            known.group_key.clone_from(&accepted.group_key);
            return;
        }
        self.members.retain(|known| !same_alert(known, accepted));
        self.members.push(Arc::clone(accepted));
        if self.members.len() > MAX_WATCH_MEMBERS {
            self.members.remove(0);
        }
    }
}

fn same_alert(one: &Accepted, other: &Accepted) -> bool {
    one.fingerprint == other.fingerprint && one.playbook == other.playbook
}

/// The name of the breaker of a playbook and its target group.
pub fn breaker_name(playbook: &PlaybookName, service: &ServiceName) -> String {
    format!("{playbook}/{service}")
}

impl Bucket {
    /// Tokens at `now`: refilled evenly with `burst` per `per`, never above `burst`. A clock that went back refills nothing.
    pub fn level(&self, rate: crate::decide::playbook::Rate, now: Timestamp) -> f64 {
        let passed = now.duration_since(self.at).as_secs_f64().max(0.0);
        let per = rate.per.as_secs_f64();
        let burst = f64::from(rate.burst);
        if per <= 0.0 { 0.0 } else { (self.tokens + passed * burst / per).clamp(0.0, burst) }
    }
}

impl Accounts {
    /// Lets go of what no rail can ask about any more: each of them looks back [`LONGEST_WINDOW`] at the most.
    fn forget(&mut self, now: Timestamp) {
        let spent = |at: Timestamp| now.duration_since(at) > LONGEST_WINDOW;
        while self.attempts.front().is_some_and(|oldest| spent(oldest.at)) {
            self.attempts.pop_front();
        }
        self.granted.retain(|_, at| !spent(*at));
        self.drains.retain(|_, mark| !spent(mark.at));
        // Full again, whatever its rate.
        self.buckets.retain(|_, bucket| !spent(bucket.at));
        for breaker in self.breakers.values_mut() {
            // A cure that has held for so long sets the count back to zero: what came before it no longer counts.
            let cured = |run: &Run| run.recurred_at.is_none() && run.end.is_some_and(|end| end.recovered && spent(end.at));
            // Gauge reads from the newest run backwards and stops there, unless somebody is still in flight before it.
            let settled =
                breaker.runs.iter().rposition(cured).filter(|last| breaker.runs.iter().take(*last).all(|run| run.end.is_some()));
            if let Some(last) = settled {
                breaker.runs.drain(..=last);
            }
        }
        self.breakers.retain(|_, breaker| !breaker.runs.is_empty());
    }
}

impl Books {
    pub fn accounts(&self, mode: Mode) -> &Accounts {
        match mode {
            Mode::Live => &self.live,
            Mode::Shadow => &self.shadow,
        }
    }

    fn accounts_mut(&mut self, mode: Mode) -> &mut Accounts {
        match mode {
            Mode::Live => &mut self.live,
            Mode::Shadow => &mut self.shadow,
        }
    }

    /// Folds one entry in. `record` is the entry's record with the entry already applied.
    pub fn apply(&mut self, entry: &Entry, record: Option<&Record>) {
        self.last_at = self.last_at.max(entry.at);
        match &entry.event {
            Event::Decided { .. } => self.last_decision = Some(entry.at),
            Event::Intent { intent } => {
                if let Some(id) = entry.record {
                    self.admit(entry.at, id, intent);
                }
            }
            Event::Refused { recurred, .. } => self.recur(recurred, entry.at),
            Event::StepStarted { step: Step::Drain } => self.drain(entry.at, record),
            // It was never ordered: nothing of ours is drained, and nothing can be sick because of it.
            Event::StepEnded { step: Step::Drain, note, .. } if held_back(note) => {
                if let Some(record) = record {
                    self.drained.retain(|_, drained| drained.record != record.id);
                    self.live.drains.remove(&record.accepted.key);
                }
            }
            Event::StepEnded { step: Step::Readmit, call: Call::Done, .. } => {
                if let Some(id) = entry.record {
                    self.drained.retain(|_, drained| drained.record != id);
                }
            }
            Event::Readmitted { server, .. } => {
                self.drained.remove(server);
            }
            Event::AbortOrdered { .. } => {
                // Otherwise what was aborted before its permit would begin anew at the next look.
                if let Some(record) = record {
                    // In both accounts: a reload may have changed the mode since it was taken in.
                    for mode in [Mode::Live, Mode::Shadow] {
                        self.accounts_mut(mode).granted.insert(record.accepted.key.clone(), entry.at);
                    }
                }
            }
            Event::Closed { outcome, .. } => {
                if let (Some(id), Some(record)) = (entry.record, record) {
                    self.close(entry.at, id, *outcome, record);
                }
            }
            Event::Joined { accepted, .. } => {
                if let Some(watch) = self.watches.get_mut(&accepted.key) {
                    Arc::make_mut(watch).join(accepted, entry.at);
                }
            }
            Event::WatchEnded { key, .. } => {
                self.watches.remove(key);
            }
            Event::Paused { pause } => {
                // The same order again (a script that runs every hour) is one pause.
                self.pauses.retain(|old| old != pause && old.until.is_none_or(|until| entry.at < until));
                self.pauses.push(pause.clone());
            }
            Event::Resumed { scope, .. } => self.pauses.retain(|pause| pause.scope != *scope),
            Event::BreakerReset { breaker, .. } => {
                self.live.breakers.remove(breaker);
                self.shadow.breakers.remove(breaker);
            }
            Event::Pruned { pruned } => self.anchored = Some(Anchored { at: entry.at, pruned: pruned.clone() }),
            Event::Accepted { .. }
            | Event::Folded { .. }
            | Event::Confirmed { .. }
            | Event::StepStarted { .. }
            | Event::StepEnded { .. }
            | Event::Judged { .. }
            | Event::Started { .. } => {}
        }
    }

    fn admit(&mut self, at: Timestamp, id: RecordId, intent: &Intent) {
        self.recur(&intent.recurred, at);
        self.live.forget(at);
        self.shadow.forget(at);
        let target = intent.plan.target.clone();
        let accounts = self.accounts_mut(intent.mode);
        accounts.attempts.push_back(Attempt { at, playbook: intent.playbook.clone(), target: target.clone(), record: id });
        for level in &intent.buckets {
            accounts.buckets.insert(level.scope.clone(), Bucket { tokens: level.tokens, at });
        }
        accounts.granted.insert(intent.key.clone(), at);
        let held = Held {
            record: id,
            target: target.clone(),
            playbook: intent.playbook.clone(),
            server: intent.plan.server.clone(),
            since: at,
        };
        accounts.held.insert(intent.key.clone(), held);
        if intent.mode == Mode::Live {
            let runs = &mut accounts.breakers.entry(breaker_name(&intent.playbook, &target.service)).or_default().runs;
            runs.push_back(Run { record: id, target, at, probe: intent.probe, end: None, recurred_at: None });
            while runs.len() > MAX_RUNS {
                runs.pop_front();
            }
        }
    }

    fn recur(&mut self, recurred: &[RecordId], at: Timestamp) {
        for run in self.live.breakers.values_mut().flat_map(|breaker| breaker.runs.iter_mut()) {
            if recurred.contains(&run.record) && run.recurred_at.is_none() {
                run.recurred_at = Some(at);
            }
        }
    }

    fn drain(&mut self, at: Timestamp, record: Option<&Record>) {
        let Some((record, intent)) = record.and_then(|r| r.intent.as_ref().map(|intent| (r, intent))) else { return };
        let target = intent.plan.target.clone();
        self.live.drains.insert(intent.key.clone(), DrainMark { target, at });
        self.drained.insert(intent.plan.server.clone(), Drained { record: record.id, since: at });
    }

    /// The newest answer takes the watch's place. What else was delivered stays, unless the episode is settled.
    fn replace(&mut self, mut watch: Watch) {
        if let Some(old) = self.watches.remove(&watch.key).filter(|_| !watch.outcome.is_settled()) {
            let old = Arc::unwrap_or_clone(old);
            let others = old.members.into_iter().chain([old.accepted]).filter(|known| !same_alert(known, &watch.accepted));
            watch.members = others.collect();
            watch.members.truncate(MAX_WATCH_MEMBERS);
        }
        self.watches.insert(watch.key.clone(), Arc::new(watch));
    }

    fn close(&mut self, at: Timestamp, id: RecordId, outcome: Outcome, record: &Record) {
        for accounts in [&mut self.live, &mut self.shadow] {
            accounts.held.retain(|_, held| held.record != id);
            for run in accounts.breakers.values_mut().flat_map(|breaker| breaker.runs.iter_mut()) {
                if run.record == id {
                    run.end = Some(RunEnd { at, recovered: outcome == Outcome::Recovered });
                }
            }
        }
        let refusals = record.guards.iter().filter_map(|check| check.refusal.as_ref());
        let retry_after_ms = refusals.filter_map(|refusal| refusal.retry_after_ms).min();
        let key = record.accepted.key.clone();
        let reason = record.reason.unwrap_or(Reason::Crashed);
        // The same answer again keeps the time since when it holds, so that a page does not look new.
        let since =
            self.watches.get(&key).filter(|old| old.outcome == outcome && old.reason == reason).map_or(at, |old| old.since);
        let watch = Watch {
            key: key.clone(),
            accepted: Arc::clone(&record.accepted),
            record: id,
            outcome,
            reason,
            detail: record.detail.clone(),
            since,
            retry_after_ms,
            members: Vec::new(),
            joined_at: None,
        };
        self.replace(watch);
    }
}

#[cfg(test)]
mod tests;
