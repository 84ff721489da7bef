//! What must hold when leave is given: every rail, worked out again from the entries before, by arithmetic of its own.

use jiff::{SignedDuration, Timestamp};

use super::{Invariant, Walk};
use crate::decide::evidence::{Evidence, Reading};
use crate::decide::playbook::{Mode, Playbook};
use crate::event::{Entry, Intent, Record};
use crate::guard::ledger::{Accounts, breaker_name};
use crate::target::Target;

/// The bound on the age of what was seen when leave is given.
const FRESH: SignedDuration = SignedDuration::from_secs(15);
/// How far a clock may be behind the newest entry.
const BEHIND: SignedDuration = SignedDuration::from_secs(5);

impl Walk<'_> {
    pub(super) fn intent(&mut self, entry: &Entry, intent: &Intent) {
        let (at, id) = (entry.at, entry.record);
        let Some(record) = id.and_then(|id| self.fold.open.get(&id)).cloned() else {
            return self.broken(Invariant::I4, Some(at), "an intent without a record".to_owned());
        };
        let (Some(playbook), Some(evidence)) = (self.playbook(&intent.playbook), &record.evidence) else {
            return self.broken(Invariant::I1, Some(at), "an intent without evidence, or of no playbook".to_owned());
        };
        self.evidence(entry, &record, evidence, intent);
        self.again(entry, playbook, intent);
        self.breaker(entry, playbook, intent);
        self.radius(entry, playbook, evidence, intent);
        let paused = self.fold.books.pauses.iter().find(|pause| pause.covers(&intent.playbook, &intent.plan.target, at));
        if let Some(scope) = paused.map(|pause| pause.scope.clone()) {
            self.broken(Invariant::I9, Some(at), format!("leave is given while {scope} is paused"));
        }
        let behind = self.fold.books.last_at.duration_since(at);
        self.must(Invariant::I5, at, behind <= BEHIND, || format!("the clock is {behind:#} behind the journal"));
    }

    fn evidence(&mut self, entry: &Entry, record: &Record, evidence: &Evidence, intent: &Intent) {
        let at = entry.at;
        let firing = matches!(evidence.reading, Reading::Firing { value, .. } if value.is_finite());
        self.must(Invariant::I1, at, firing, || format!("{} acts on {:?}", record.id, evidence.reading));
        let age = at.duration_since(evidence.at);
        self.must(Invariant::I1, at, age < FRESH, || format!("the evidence is {age:#} old"));
        let young = evidence.replica.as_ref().ok().and_then(|replica| replica.container.started_at);
        let grace = self.playbook(&intent.playbook).map(|playbook| playbook.guards.start_grace.signed()).unwrap_or_default();
        let old = young.is_some_and(|started| at.duration_since(started) >= grace);
        self.must(Invariant::I1, at, old, || "the container is younger than its start grace".to_owned());
        self.must(Invariant::I1, at, evidence.truncated == 0, || "the notification was cut off".to_owned());
        let silent = evidence.silences.as_ref().is_ok_and(Vec::is_empty);
        self.must(Invariant::I1, at, silent, || "a silence means hold".to_owned());
        let refused = intent.guards.iter().find(|check| check.refusal.is_some());
        self.must(Invariant::I1, at, refused.is_none(), || format!("{refused:?}"));
    }

    fn accounts(&self, mode: Mode) -> &Accounts {
        self.fold.books.accounts(mode)
    }

    /// One at a time, and not again too soon.
    fn again(&mut self, entry: &Entry, playbook: &Playbook, intent: &Intent) {
        let (at, key) = (entry.at, intent.plan.target.key());
        let accounts = self.accounts(intent.mode);
        let held = accounts.held.get(&key).map(|held| held.record);
        let granted = accounts.granted.get(&key).map(|granted| at.duration_since(*granted));
        let ours = |attempt: &&crate::guard::ledger::Attempt| {
            attempt.playbook == playbook.name && attempt.target.service == playbook.service
        };
        let times: Vec<_> = accounts.attempts.iter().filter(ours).map(|attempt| attempt.at).collect();
        self.must(Invariant::I2, at, held.is_none(), || format!("record {held:?} holds the target"));
        let cooldown = playbook.guards.cooldown.signed();
        if let Some(since) = granted.filter(|since| *since < cooldown) {
            self.broken(Invariant::I2, Some(at), format!("leave again after {since:#}, cooldown {cooldown:#}"));
        }
        for budget in &playbook.guards.budget {
            let count = 1 + times.iter().filter(|then| at.duration_since(**then) < budget.per.signed()).count();
            self.must(Invariant::I3, at, count <= budget.most as usize, || {
                format!("leave {count} times in {}, at most {}", budget.per, budget.most)
            });
        }
    }

    /// After `failures` runs in a row that did not help, nothing for a while. One whose target fires again within
    /// `recurrence` was no cure, since then.
    fn breaker(&mut self, entry: &Entry, playbook: &Playbook, intent: &Intent) {
        let (spec, at) = (playbook.guards.breaker, entry.at);
        let name = breaker_name(&playbook.name, &intent.plan.target.service);
        let Some(breaker) = self.accounts(intent.mode).breakers.get(&name) else { return };
        let on_trial = |ended: Timestamp| at.duration_since(ended) <= spec.recurrence.signed();
        let ended = breaker.runs.iter().rev().filter_map(|run| Some((run, run.end?))).take(spec.failures as usize);
        let newest: Vec<_> = ended
            .map(|(run, end)| match run.recurred_at {
                _ if !end.recovered => Some(end.at),
                None if run.target == intent.plan.target && on_trial(end.at) => Some(at),
                recurred_at => recurred_at,
            })
            .collect();
        let failed = newest.len() == spec.failures as usize && newest.iter().all(Option::is_some);
        let since = newest.iter().flatten().map(|failed_at| at.duration_since(*failed_at)).min().unwrap_or_default();
        let probing = breaker.runs.iter().any(|run| run.probe && run.end.is_none());
        self.must(Invariant::I3, at, !(failed && since < spec.cooldown.signed()), || {
            format!("{} runs in a row did not help, the last {since:#} ago", spec.failures)
        });
        self.must(Invariant::I3, at, !probing, || "the breaker's one probe is under way".to_owned());
    }

    fn radius(&mut self, entry: &Entry, playbook: &Playbook, evidence: &Evidence, intent: &Intent) {
        let (radius, at, target) = (playbook.guards.blast_radius, entry.at, &intent.plan.target);
        let Ok(siblings) = &evidence.siblings else {
            return self.broken(Invariant::I3, Some(at), "nobody counted the replicas".to_owned());
        };
        let accounts = self.accounts(intent.mode);
        let held: Vec<Target> = accounts.held.values().map(|held| held.target.clone()).collect();
        let held: Vec<_> = held.iter().filter(|held| held.service == target.service && *held != target).collect();
        let out = |instance: &crate::target::Instance| held.iter().any(|held| held.instance == *instance);
        let others = siblings.iter().filter(|sibling| sibling.instance != target.instance);
        let serving = others.clone().filter(|sibling| sibling.serving && !out(&sibling.instance)).count();
        let sick = 1 + others.filter(|sibling| sibling.sick || out(&sibling.instance)).count();
        let (in_flight, all) = (held.len() + 1, siblings.len());
        let marks: Vec<_> = accounts
            .drains
            .values()
            .filter(|mark| mark.target.service == target.service && mark.target != *target)
            .cloned()
            .collect();
        let active_at = siblings.iter().find(|sibling| sibling.instance == target.instance).and_then(|sibling| sibling.active_at);
        self.must(Invariant::I3, at, serving >= radius.min_healthy as usize, || {
            format!("leave with {serving} others serving, must be at least {}", radius.min_healthy)
        });
        self.must(Invariant::I3, at, radius.max_unhealthy.allows(sick, all), || {
            format!("leave with {sick} of {all} sick, at most {}", radius.max_unhealthy)
        });
        self.must(Invariant::I3, at, in_flight <= radius.max_in_flight as usize, || {
            format!("leave for {in_flight} at once, at most {}", radius.max_in_flight)
        });
        let blamed = marks.iter().find(|mark| {
            at.duration_since(mark.at) <= radius.blame.signed() && active_at.is_none_or(|active_at| active_at > mark.at)
        });
        if let Some(mark) = blamed {
            self.broken(
                Invariant::I3,
                Some(at),
                format!("sick since {active_at:?}, after we drained {} at {}", mark.target, mark.at),
            );
        }
    }
}
