//! The simulated Prometheus: it scrapes at its own instants, keeps what it saw, judges its rules by that, and answers the
//! queries that Confirm and Verify send.
//!
//! It is as blind as the real one: an answer is what was last scraped, up to the lookback, and `timestamp()` alone says
//! how old that is. A process out of descriptors is still scraped and no longer says how many it has.

mod answer;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::alert::{Alert, AlertStatus, LabelSet};
use crate::sim::beginning;
use crate::sim::shop::{MAX_FDS, Replica};
use crate::target::Instance;
use crate::world::{RuleAlertState, Sample};

/// How long a sample answers for its series.
const LOOKBACK: SignedDuration = SignedDuration::from_mins(5);
/// Scrapes kept per target: half an hour, which is how far back `FdExhausted` looks.
const KEPT: usize = 120;
/// Scrapes over which a level must have grown to count as a leak.
const GROWTH: usize = 3;
/// An external label: in every delivered alert, in nothing that Prometheus lists.
const EXTERNAL: (&str, &str) = ("cluster", "lab");

/// A Prometheus, its rules and its troubles.
pub struct Prometheus {
    pub trouble: Trouble,
    /// Answers to queries that are about nothing simulated, such as vetoes.
    pub answers: BTreeMap<String, Vec<Sample>>,
    /// When it was asked for its rules, by what the program's clock said then: evidence names its own moment by that clock.
    pub asked: BTreeMap<Timestamp, Vec<Timestamp>>,
    pub(super) every: SignedDuration,
    rules: Vec<Rule>,
    next: Timestamp,
    judged: Timestamp,
    targets: Vec<Seen>,
    active: BTreeMap<(usize, Instance), Active>,
}

/// What ails it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    #[default]
    None,
    /// Nothing listens.
    Down,
    /// Every answer comes too late.
    Slow,
    /// Every answer comes late, but in time.
    Lagging,
    /// Every answer comes with a warning.
    Warnings,
    /// Every value is NaN.
    Nan,
    /// It scrapes nothing any more, and says of everything what it last knew.
    Frozen,
    /// Some of its data is missing: every other target in every answer to a query, and it says nothing of that.
    Partial,
    /// It scrapes, and judges no rule any more; what fired goes on firing.
    Stalled,
    /// Its configuration lost all targets. What it knew is still answered, with the evaluation's own time.
    NoTargets,
}

/// An alerting rule: the text it is known by, and what it means here.
#[derive(Clone, Debug)]
pub struct Rule {
    pub name: String,
    pub query: String,
    pub condition: Condition,
    pub lasting: SignedDuration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition {
    /// More than `above` of the descriptors are open, more than a few scrapes ago, in a process that is old enough.
    Leaking { above: f64, older_than: Duration },
    /// At the limit when it could last say so, and now it cannot, or is still there.
    Exhausted,
    /// More than `above` of the descriptors on average, whichever process had them open: a rule that lags.
    Average { above: f64, over: Duration },
}

/// One scrape of one target.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scrape {
    at: Timestamp,
    up: bool,
    open_fds: Option<f64>,
    started_at: Timestamp,
}

/// A target as it was seen.
struct Seen {
    labels: LabelSet,
    instance: Instance,
    scrapes: VecDeque<Scrape>,
}

#[derive(Clone, Copy, Debug)]
struct Active {
    since: Timestamp,
    state: RuleAlertState,
}

impl Rule {
    pub fn new(name: &str, condition: Condition, lasting: Duration) -> Rule {
        let lasting = SignedDuration::try_from(lasting).unwrap_or(SignedDuration::MAX);
        // Any text will do: it is sent back as it stands, and recognised by that.
        Rule { name: name.to_owned(), query: format!("simulated_condition{{rule=\"{name}\"}}"), condition, lasting }
    }
}

impl Prometheus {
    pub fn new(every: Duration, rules: Vec<Rule>) -> Prometheus {
        Prometheus {
            trouble: Trouble::None,
            answers: BTreeMap::new(),
            asked: BTreeMap::new(),
            every: SignedDuration::try_from(every).unwrap_or(SignedDuration::MAX),
            rules,
            next: beginning(),
            judged: beginning(),
            targets: Vec::new(),
            active: BTreeMap::new(),
        }
    }

    pub(super) fn next_tick(&self) -> Timestamp {
        self.next
    }

    /// Scrapes everything and judges every rule, at the instant that is due.
    pub(super) fn tick(&mut self, replicas: &[Replica]) {
        let at = self.next;
        self.next = at.saturating_add(self.every).unwrap_or(Timestamp::MAX);
        if !matches!(self.trouble, Trouble::Frozen | Trouble::NoTargets) {
            self.targets.retain(|seen| replicas.iter().any(|r| r.scraped && r.instance == seen.instance));
            for replica in replicas.iter().filter(|replica| replica.scraped) {
                self.seen(replica).push(scrape(replica, at));
            }
        }
        if self.trouble != Trouble::Stalled {
            self.judge(at);
        }
    }

    fn seen(&mut self, replica: &Replica) -> &mut Seen {
        let known = self.targets.iter().position(|seen| seen.instance == replica.instance);
        let at = known.unwrap_or_else(|| {
            let labels =
                LabelSet::from([("instance", replica.instance.as_str()), ("job", "shop"), ("service", replica.service.as_str())]);
            self.targets.push(Seen { labels, instance: replica.instance.clone(), scrapes: VecDeque::new() });
            self.targets.len() - 1
        });
        &mut self.targets[at]
    }

    fn judge(&mut self, at: Timestamp) {
        self.judged = at;
        let mut active = BTreeMap::new();
        for (number, rule) in self.rules.iter().enumerate() {
            for seen in self.targets.iter().filter(|seen| seen.holds(rule.condition, at).is_some()) {
                let key = (number, seen.instance.clone());
                let since = self.active.get(&key).map_or(at, |known| known.since);
                let lasted = at.duration_since(since) >= rule.lasting;
                let state = if lasted { RuleAlertState::Firing } else { RuleAlertState::Pending };
                active.insert(key, Active { since, state });
            }
        }
        self.active = active;
    }

    /// The alerts that fire now, as Alertmanager would deliver them.
    pub fn firing(&self) -> Vec<Alert> {
        let firing = self.active.iter().filter(|(_, active)| active.state == RuleAlertState::Firing);
        firing
            .filter_map(|((rule, instance), active)| self.alert(&self.rules[*rule].name, instance, Some(active.since)))
            .collect()
    }

    /// One alert as Alertmanager would deliver it, whether it fires or not; none for a target that was never scraped.
    pub fn alert(&self, name: &str, instance: &Instance, starts_at: Option<Timestamp>) -> Option<Alert> {
        let seen = self.targets.iter().find(|seen| seen.instance == *instance)?;
        let labels = seen.labels.with([("alertname", name), EXTERNAL]);
        Some(Alert {
            status: AlertStatus::Firing,
            labels,
            annotations: LabelSet::default(),
            starts_at,
            generator_url: String::new(),
        })
    }
}

impl Seen {
    fn push(&mut self, scrape: Scrape) {
        self.scrapes.push_back(scrape);
        if self.scrapes.len() > KEPT {
            self.scrapes.pop_front();
        }
    }

    /// The newest scrape, while it still answers for the series.
    fn last(&self, at: Timestamp) -> Option<&Scrape> {
        self.scrapes.back().filter(|scrape| at.duration_since(scrape.at) < LOOKBACK)
    }

    /// The rule's value for this target, if it holds.
    fn holds(&self, condition: Condition, at: Timestamp) -> Option<f64> {
        let last = self.last(at)?;
        match condition {
            Condition::Leaking { above, older_than } => {
                let open = last.open_fds.filter(|_| last.up)?;
                let before = self.scrapes.iter().rev().nth(GROWTH)?;
                let grown = before.started_at == last.started_at && before.open_fds? < open;
                let older_than = SignedDuration::try_from(older_than).unwrap_or(SignedDuration::MAX);
                let old = at.duration_since(last.started_at) > older_than;
                (grown && old && open / MAX_FDS > above).then_some(open / MAX_FDS)
            }
            Condition::Average { above, over } => {
                let over = SignedDuration::try_from(over).unwrap_or(SignedDuration::MAX);
                let within = self.scrapes.iter().filter(|scrape| at.duration_since(scrape.at) < over);
                let (sum, count) = within.filter_map(|scrape| scrape.open_fds).fold((0.0, 0.0), |(s, n), fds| (s + fds, n + 1.0));
                let average = sum / count / MAX_FDS;
                (average > above).then_some(average)
            }
            Condition::Exhausted => {
                let known = self.scrapes.iter().rev().find_map(|scrape| scrape.open_fds)?;
                let mute = !last.up || last.open_fds.is_none_or(|open| open >= 0.98 * MAX_FDS);
                (mute && known >= 0.9 * MAX_FDS).then_some(known / MAX_FDS)
            }
        }
    }
}

fn scrape(replica: &Replica, at: Timestamp) -> Scrape {
    // The kept-alive connection of a process out of descriptors is still answered; listing them needs one.
    let up = replica.running && !replica.lost && !replica.hung && !replica.starting(at);
    let open_fds = Some(replica.fds(at)).filter(|_| up && !replica.exhausted(at));
    Scrape { at, up, open_fds, started_at: replica.started_at }
}
