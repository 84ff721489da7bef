//! What must hold at the moment of each effect, by the world around it.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Invariant, SLACK, STALE, Walk};
use crate::decide::playbook::{Mode, Playbook, Rate};
use crate::event::{Intent, Record, Step};
use crate::sim::What;
use crate::sim::ledger::Act;

/// How long Prometheus may have been blind when we begin: what it saw last was younger than two scrapes when it was asked, and
/// since then the evidence may have become as old as [`STALE`].
const BLIND: SignedDuration = SignedDuration::from_secs(65);
/// How old evidence is that was gathered without delay.
const SEEN: SignedDuration = SignedDuration::from_secs(1);

impl<'a> Walk<'a> {
    pub(super) fn act(&mut self, at: Timestamp, act: &'a Act) {
        match &act.what {
            What::Ready(path) => {
                let ours = self.fold.books.drained.contains_key(path);
                self.must(Invariant::I8, at, ours, || format!("{path} is readmitted, and no drain of it was written down"));
                self.must(Invariant::I8, at, !act.maintenance, || format!("{path} is readmitted out of somebody's maintenance"));
            }
            What::Drain(path) => {
                let record = self.running(Step::Drain, |intent| intent.plan.server == *path);
                let Some((record, intent)) = record else {
                    return self.broken(Invariant::I1, Some(at), format!("{path} is drained without an intent on disk"));
                };
                self.may(at, act, &record, &intent);
                self.blind(at, act);
                // By the world's own time: the program's clock may have jumped since.
                let asked = record.evidence.as_ref().and_then(|evidence| self.asked.get(&evidence.at));
                let seen_at = asked.and_then(|asked| asked.iter().rev().find(|asked| **asked <= at)).copied();
                self.hushed(at, act, seen_at.unwrap_or(at));
                self.must(Invariant::I8, at, !act.taken, || format!("{path} was drained by somebody else"));
                self.must(Invariant::I8, at, !act.maintenance, || format!("{path} is in maintenance, and is drained"));
                let age = seen_at.map(|seen_at| at.duration_since(seen_at));
                self.must(Invariant::I1, at, age.is_some_and(|age| age <= STALE), || {
                    format!("{path} is drained for what was seen {age:?} ago")
                });
                // Rails count from the admission; a process that stands still may drain a good while after it.
                let admitted = record.steps.first().map_or(act.program_now, |run| run.started_at);
                let admitted = at.saturating_sub(act.program_now.duration_since(admitted)).unwrap_or(at);
                self.often(admitted, act, &intent);
                // Evidence may be some seconds old; what Prometheus lists since then is not held against it.
                let seen = age.is_some_and(|age| age <= SEEN);
                let limit = self.playbook(&intent.playbook).map(|playbook| playbook.guards.blast_radius.max_unhealthy);
                self.must(Invariant::I3, at, !seen || limit.is_none_or(|limit| limit.allows(act.sick, act.all)), || {
                    format!("{} of {} are sick, at most {limit:?}", act.sick, act.all)
                });
                self.drains.push((admitted, act, intent.playbook.clone()));
            }
            What::Restart { container, .. } | What::Asked { container } => {
                let record = self.running(Step::Restart, |intent| intent.plan.container == *container);
                let Some((record, intent)) = record else {
                    let detail = format!("{} is restarted without an intent on disk", act.server);
                    return self.broken(Invariant::I1, Some(at), detail);
                };
                self.restart(at, act, &record, &intent);
            }
        }
    }

    /// One call with leave to make it, whatever the Engine says to it and does.
    fn restart(&mut self, at: Timestamp, act: &Act, record: &Record, intent: &Intent) {
        self.may(at, act, record, intent);
        self.must(Invariant::I8, at, act.drained && act.ours, || format!("{} takes traffic and is restarted", act.server));
        self.must(Invariant::I8, at, !act.maintenance, || format!("{} is in maintenance, and is restarted", act.server));
        let count = self.restarts.entry(record.id).or_default();
        *count += 1;
        let count = *count;
        self.must(Invariant::I4, at, count == 1, || format!("restart call number {count} of record {}", record.id));
    }

    /// The open record that has begun this step, by what is on disk.
    fn running(&self, step: Step, about: impl Fn(&Intent) -> bool) -> Option<(Record, Arc<Intent>)> {
        self.fold.records().find_map(|record| {
            let intent = record.intent.as_ref().filter(|intent| about(intent))?;
            (record.running() == Some(step)).then(|| (record.clone(), intent.clone()))
        })
    }

    /// Leave to do it, at this very moment.
    fn may(&mut self, at: Timestamp, act: &Act, record: &Record, intent: &Intent) {
        let (id, plan, now) = (record.id, &intent.plan, act.program_now);
        self.must(Invariant::I1, at, intent.mode == Mode::Live, || format!("{id} is in shadow"));
        // A real container's labels are its own for life; here they change in place, so that the run's beginning counts.
        let opted_in = act.opted_in || !matches!(act.what, What::Drain(_));
        self.must(Invariant::I1, at, opted_in, || format!("{} is not opted in", act.server));
        self.must(Invariant::I1, at, act.instance == plan.target.instance, || {
            format!("{id} is about {}, and {} is touched", plan.target, act.instance)
        });
        self.must(Invariant::I1, at, act.share > 0.5 || act.mute, || {
            format!("{} has {:.0}% of its descriptors open", act.server, act.share * 100.0)
        });
        let paused = self.fold.books.pauses.iter().any(|pause| pause.covers(&intent.playbook, &plan.target, now));
        self.must(Invariant::I9, at, !paused, || format!("{} is paused", intent.playbook));
        self.must(Invariant::I9, at, act.live.contains(&intent.playbook), || format!("{} is no longer live", intent.playbook));
        self.must(Invariant::I9, at, now < intent.expires_at, || format!("the permit expired at {}", intent.expires_at));
        let same = act.container == plan.container && act.started_at == plan.started_at;
        self.must(Invariant::I9, at, same, || {
            format!("the permit is for the start at {}, the container started at {}", plan.started_at, act.started_at)
        });
        self.must(Invariant::I3, at, act.others_serving >= plan.min_healthy as usize, || {
            format!("{} others serve, must be at least {}", act.others_serving, plan.min_healthy)
        });
        // That it is down is what an Engine may say to the call itself.
        let engine_down = act.engine_down && !matches!(act.what, What::Asked { .. });
        let failing = [(engine_down, "Docker"), (act.balancer_down, "the balancer"), (act.full, "the disk")];
        for (_, part) in failing.iter().filter(|(fails, _)| *fails) {
            self.broken(Invariant::I5, Some(at), format!("{part} fails"));
        }
        self.must(Invariant::I5, at, act.clock_ahead.abs() <= SLACK, || format!("the clock is off by {:#}", act.clock_ahead));
    }

    /// What was silenced, or could not be asked about, when the evidence was gathered is no reason to act.
    fn hushed(&mut self, at: Timestamp, act: &Act, seen_at: Timestamp) {
        let before = |since: Option<&Timestamp>| since.is_some_and(|since| *since < seen_at);
        let (silenced, mute) = (before(self.silenced_at.get(&act.service)), before(self.pager_at.as_ref()));
        self.must(Invariant::I1, at, !(act.silenced && silenced), || format!("{} is silenced", act.service));
        self.must(Invariant::I5, at, !(act.pager_down && mute), || "nobody can say what is silenced".to_owned());
    }

    fn blind(&mut self, at: Timestamp, act: &Act) {
        self.must(Invariant::I5, at, act.blind_for <= BLIND, || format!("Prometheus has been blind for {:#}", act.blind_for));
    }

    /// Limits over time and over the service, by the world's own count.
    fn often(&mut self, at: Timestamp, act: &Act, intent: &Intent) {
        let Some(playbook) = self.playbook(&intent.playbook) else { return };
        let books = self.scenario.playbooks.iter().filter(|other| other.service == playbook.service);
        let cooldown = books.map(|other| other.guards.cooldown.signed()).min().unwrap_or_default();
        let last = self.drains.iter().rev().find(|(_, before, _)| before.instance == act.instance).map(|(at, ..)| *at);
        if let Some(since) = last.map(|last| at.duration_since(last)).filter(|since| *since + SLACK < cooldown) {
            self.broken(Invariant::I2, Some(at), format!("{} again after {since:#}, cooldown {cooldown:#}", act.instance));
        }
        let radius = playbook.guards.blast_radius;
        let in_flight = act.also_drained + 1;
        self.must(Invariant::I3, at, in_flight <= radius.max_in_flight as usize, || {
            format!("{in_flight} are drained at once, at most {}", radius.max_in_flight)
        });
        self.budgets(at, playbook);
        let limits = self.scenario.limits;
        self.bucket(at, "the fleet", limits.fleet, |_, _| true);
        self.bucket(at, "the service", limits.group, |before, _| before.service == act.service);
        self.bucket(at, "the playbook", playbook.guards.rate, |_, by| *by == playbook.name);
    }

    fn budgets(&mut self, at: Timestamp, playbook: &Playbook) {
        for budget in &playbook.guards.budget {
            let window = budget.per.signed() - SLACK;
            let within = |(then, _, by): &&(Timestamp, &Act, _)| *by == playbook.name && at.duration_since(*then) < window;
            let count = 1 + self.drains.iter().filter(within).count();
            self.must(Invariant::I3, at, count <= budget.most as usize, || {
                format!("{count} in {}, at most {}", budget.per, budget.most)
            });
        }
    }

    /// No run of actions is denser than the bucket allows.
    fn bucket(&mut self, at: Timestamp, whose: &str, rate: Rate, ours: impl Fn(&Act, &crate::target::PlaybookName) -> bool) {
        let times: Vec<Timestamp> = self.drains.iter().filter(|(_, act, by)| ours(act, by)).map(|(then, ..)| *then).collect();
        for (number, then) in times.iter().rev().enumerate() {
            let (count, passed) = (number as f64 + 2.0, (at.duration_since(*then) + SLACK).as_secs_f64());
            let most = f64::from(rate.burst) * (1.0 + passed / rate.per.as_secs_f64());
            self.must(Invariant::I3, at, count <= most + 1e-6, || {
                format!("{count} actions of {whose} since {then}, the bucket is {} per {}", rate.burst, rate.per)
            });
        }
    }
}
