//! The guardrails, one function each, in the order of evaluation: pause, episode, cooldown, rate, budget, breaker, blast
//! radius, blame, clock, evidence. (Opt-in is settled before: a container that is not opted in never becomes a target; mode is
//! settled after, by the type of the permit.)
//!
//! Each prints its arithmetic whether it passes or not. A rail that cannot be evaluated refuses.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::decide::decision::Plan;
use crate::decide::evidence::{Evidence, Sibling};
use crate::decide::playbook::{Playbook, Rate};
use crate::event::RecordId;
use crate::guard::breaker::{BreakerState, Gauge, recurred};
use crate::guard::ledger::{Accounts, Books, breaker_name};
use crate::moment::jump;
use crate::mutant::{Mutant, off};
use crate::reason::Reason;
use crate::target::{EpisodeKey, Target};
use crate::words;

/// How far the wall clock may be behind the newest entry before it counts as having gone back.
pub const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(5);

/// How old evidence may be when it is acted on: three answers at their longest usual time-out.
const SHELF_LIFE: SignedDuration = SignedDuration::from_secs(15);

/// The limits that hold for everything, beside each playbook's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Attempts of this program, whatever the playbook.
    pub fleet: Rate,
    /// Attempts on one service, whatever the playbook.
    pub group: Rate,
}

/// What asks for admission.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub playbook: &'a Playbook,
    pub limits: &'a Limits,
    pub evidence: &'a Evidence,
    /// How long ago the evidence was seen, by a clock that does not jump.
    pub passed: SignedDuration,
    pub plan: &'a Plan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rail {
    Pause,
    Episode,
    Cooldown,
    Rate,
    Budget,
    Breaker,
    MinHealthy,
    MaxUnhealthy,
    MaxInFlight,
    Blame,
    Clock,
    Evidence,
}

/// One rail's answer with its arithmetic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RailCheck {
    pub rail: Rail,
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

/// A rail said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub reason: Reason,
    /// When asking again makes sense at the earliest; none when that is not a matter of time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// A bucket's level after one token was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BucketLevel {
    pub scope: String,
    pub tokens: f64,
}

/// What all rails say, and what would be consumed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    pub checks: Vec<RailCheck>,
    pub buckets: Vec<BucketLevel>,
    pub probe: bool,
    /// Earlier runs that this firing proves to have been no cure.
    pub recurred: Vec<RecordId>,
}

impl Rail {
    pub fn word(self) -> &'static str {
        match self {
            Rail::Pause => "pause",
            Rail::Episode => "episode",
            Rail::Cooldown => "cooldown",
            Rail::Rate => "rate",
            Rail::Budget => "budget",
            Rail::Breaker => "breaker",
            Rail::MinHealthy => "min_healthy",
            Rail::MaxUnhealthy => "max_unhealthy",
            Rail::MaxInFlight => "max_in_flight",
            Rail::Blame => "blame",
            Rail::Clock => "clock",
            Rail::Evidence => "evidence",
        }
    }

    /// Who lives without it.
    fn mutant(self) -> Mutant {
        match self {
            Rail::Pause => Mutant::PauseRail,
            // A task per key keeps two runs of one target apart as well: see what becomes of a key that is not the target's.
            Rail::Episode => Mutant::Folding,
            Rail::Cooldown => Mutant::CooldownRail,
            Rail::Rate => Mutant::RateRail,
            Rail::Budget => Mutant::BudgetRail,
            Rail::Breaker => Mutant::BreakerRail,
            Rail::MinHealthy => Mutant::MinHealthyRail,
            Rail::MaxUnhealthy => Mutant::MaxUnhealthyRail,
            Rail::MaxInFlight => Mutant::MaxInFlightRail,
            Rail::Blame => Mutant::BlameRail,
            Rail::Clock => Mutant::ClockRail,
            Rail::Evidence => Mutant::ShelfLife,
        }
    }
}

impl Assessment {
    pub fn refused(&self) -> bool {
        self.checks.iter().any(|check| check.refusal.is_some())
    }

    /// The first refusal in the order of evaluation: the one that the record is closed with.
    pub fn first(&self) -> Option<(&RailCheck, Refusal)> {
        self.checks.iter().find_map(|check| check.refusal.map(|refusal| (check, refusal)))
    }
}

/// Evaluates every rail. Pure; consumes nothing.
pub fn assess(books: &Books, request: &Request<'_>, now: Timestamp) -> Assessment {
    let accounts = books.accounts(request.playbook.mode);
    let target = &request.plan.target;
    let key = target.key();
    let recurred = if off(Mutant::Recurrence) { Vec::new() } else { recurred(accounts, request.playbook, target, now) };
    let (buckets, rate) = rate(accounts, request, now);
    let (probe, breaker) = breaker(accounts, request, &recurred, now);
    let mut checks = vec![pause(books, request, now), episode(accounts, &key, now), cooldown(accounts, request, &key, now), rate];
    checks.extend(budgets(accounts, request, now));
    checks.push(breaker);
    checks.extend(blast_radius(accounts, books, request));
    checks.push(blame(accounts, request, now));
    checks.push(clock(books, now));
    checks.push(shelf_life(request, now));
    checks.iter_mut().filter(|check| off(check.rail.mutant())).for_each(|check| check.refusal = None);
    Assessment { checks, buckets, probe, recurred }
}

fn pause(books: &Books, request: &Request<'_>, now: Timestamp) -> RailCheck {
    let hit = books.pauses.iter().find(|pause| pause.covers(&request.playbook.name, &request.plan.target, now));
    match hit {
        None => pass(Rail::Pause, "not paused".to_owned()),
        Some(pause) => {
            let retry = pause.until.map(|until| until.duration_since(now));
            refuse(Rail::Pause, Reason::Paused, words::paused(pause), retry)
        }
    }
}

fn episode(accounts: &Accounts, key: &EpisodeKey, now: Timestamp) -> RailCheck {
    match accounts.held.get(key) {
        None => pass(Rail::Episode, "no remediation of this target is under way".to_owned()),
        Some(held) => {
            let detail = format!("record {} holds this target since {}", held.record, words::ago(held.since, now));
            refuse(Rail::Episode, Reason::EpisodeHeld, detail, None)
        }
    }
}

fn cooldown(accounts: &Accounts, request: &Request<'_>, key: &EpisodeKey, now: Timestamp) -> RailCheck {
    let cooldown = request.playbook.guards.cooldown;
    let Some(granted) = accounts.granted.get(key) else {
        return pass(Rail::Cooldown, "this target was not remediated lately".to_owned());
    };
    let since = now.duration_since(*granted);
    let detail = format!("last permit or abort {} ago, must be at least {cooldown}", words::roughly(since));
    if since >= cooldown.signed() {
        pass(Rail::Cooldown, detail)
    } else {
        refuse(Rail::Cooldown, Reason::Cooldown, detail, Some(cooldown.signed() - since))
    }
}

/// The fleet's bucket is asked first, then the service's, then the playbook's; all must hold a whole token.
fn rate(accounts: &Accounts, request: &Request<'_>, now: Timestamp) -> (Vec<BucketLevel>, RailCheck) {
    let service = &request.plan.target.service;
    let scopes = [
        ("fleet".to_owned(), request.limits.fleet),
        (format!("service {service}"), request.limits.group),
        (format!("playbook {}", request.playbook.name), request.playbook.guards.rate),
    ];
    let mut levels = Vec::new();
    let mut short: Option<SignedDuration> = None;
    let mut told = Vec::new();
    for (scope, rate) in scopes {
        let tokens = accounts.buckets.get(&scope).map_or(f64::from(rate.burst), |bucket| bucket.level(rate, now));
        told.push(format!("{scope} {tokens:.2} of {}", rate.burst));
        if tokens < 1.0 {
            let wait = (1.0 - tokens) * rate.per.as_secs_f64() / f64::from(rate.burst.max(1));
            let wait = SignedDuration::try_from_secs_f64(wait).unwrap_or(SignedDuration::MAX);
            short = Some(short.map_or(wait, |known| known.max(wait)));
        }
        levels.push(BucketLevel { scope, tokens: tokens - 1.0 });
    }
    let detail = format!("tokens: {}; one is needed of each", told.join(", "));
    match short {
        None => (levels, pass(Rail::Rate, detail)),
        Some(wait) => (Vec::new(), refuse(Rail::Rate, Reason::RateLimited, detail, Some(wait))),
    }
}

fn budgets(accounts: &Accounts, request: &Request<'_>, now: Timestamp) -> Vec<RailCheck> {
    let ours: Vec<Timestamp> = accounts
        .attempts
        .iter()
        .filter(|a| a.playbook == request.playbook.name && a.target.service == request.plan.target.service)
        .map(|a| a.at)
        .collect();
    let check = |budget: &crate::decide::playbook::Budget| {
        let window = budget.per.signed();
        let within: Vec<_> = ours.iter().filter(|at| now.duration_since(**at) < window).collect();
        let detail = format!("{} attempts in the last {}, at most {}", within.len(), budget.per, budget.most);
        if within.len() < budget.most as usize {
            return pass(Rail::Budget, detail);
        }
        // A slot frees when the oldest of the newest `most` attempts leaves the window.
        let frees = within.iter().rev().nth(budget.most.saturating_sub(1) as usize).map(|at| window - now.duration_since(**at));
        refuse(Rail::Budget, Reason::BudgetSpent, detail, frees)
    };
    request.playbook.guards.budget.iter().map(check).collect()
}

/// Opens after `failures` runs in a row that did not help; half-open, it lets exactly one probe through.
fn breaker(accounts: &Accounts, request: &Request<'_>, recurred: &[RecordId], now: Timestamp) -> (bool, RailCheck) {
    let spec = request.playbook.guards.breaker;
    let name = breaker_name(&request.playbook.name, &request.plan.target.service);
    let gauge = Gauge::read(accounts.breakers.get(&name), spec, recurred, now);
    let arithmetic = format!("{} remediations in a row did not help, opens at {}", gauge.count, spec.failures);
    match gauge.state {
        BreakerState::Closed => (false, pass(Rail::Breaker, arithmetic)),
        BreakerState::HalfOpen => {
            (true, pass(Rail::Breaker, format!("{arithmetic}; half-open after {}: one probe", spec.cooldown)))
        }
        BreakerState::Probing(record) => {
            let detail = format!("{arithmetic}; the probe is record {record}");
            (false, refuse(Rail::Breaker, Reason::BreakerProbing, detail, None))
        }
        BreakerState::Open { since } => {
            let open_for = now.duration_since(since);
            let detail = format!("{arithmetic}; open for {}, half-open after {}", words::roughly(open_for), spec.cooldown);
            (false, refuse(Rail::Breaker, Reason::BreakerOpen, detail, Some(spec.cooldown.signed() - open_for)))
        }
    }
}

fn blast_radius(accounts: &Accounts, books: &Books, request: &Request<'_>) -> Vec<RailCheck> {
    let siblings = match &request.evidence.siblings {
        Ok(siblings) => siblings,
        Err(why) => {
            let detail = format!("the replicas of {} could not be counted: {}", request.plan.target.service, why.detail);
            return vec![refuse(Rail::MinHealthy, Reason::RadiusUnknown, detail, None)];
        }
    };
    let out: Vec<&Target> = out_of_service(accounts, books, request);
    vec![min_healthy(siblings, &out, request), max_unhealthy(siblings, &out, request), max_in_flight(&out, request)]
}

/// Replicas of the service that we hold: in flight, in verification, or drained by a run that is over.
fn out_of_service<'a>(accounts: &'a Accounts, books: &'a Books, request: &Request<'_>) -> Vec<&'a Target> {
    let service = &request.plan.target.service;
    let mut out: Vec<&Target> = accounts.held.values().map(|held| &held.target).collect();
    let drained = |record: RecordId| books.live.attempts.iter().find(move |a| a.record == record).map(|a| &a.target);
    out.extend(books.drained.values().filter_map(|d| drained(d.record)));
    out.retain(|target| target.service == *service && **target != request.plan.target);
    out.sort();
    out.dedup();
    out
}

fn min_healthy(siblings: &[Sibling], out: &[&Target], request: &Request<'_>) -> RailCheck {
    let need = request.playbook.guards.blast_radius.min_healthy as usize;
    let others = siblings.iter().filter(|s| s.instance != request.plan.target.instance);
    let serving = others.clone().filter(|s| s.serving && !out.iter().any(|t| t.instance == s.instance)).count();
    let not: Vec<_> = others
        .filter(|s| !s.serving || out.iter().any(|t| t.instance == s.instance))
        .map(|s| format!("{} {}", s.instance, if s.serving { "in remediation" } else { &s.state }))
        .collect();
    let tail = if not.is_empty() { String::new() } else { format!(" (not serving: {})", not.join(", ")) };
    let detail = format!("healthy after this restart {serving}, must be at least {need}{tail}");
    if serving >= need { pass(Rail::MinHealthy, detail) } else { refuse(Rail::MinHealthy, Reason::MinHealthy, detail, None) }
}

fn max_unhealthy(siblings: &[Sibling], out: &[&Target], request: &Request<'_>) -> RailCheck {
    let limit = request.playbook.guards.blast_radius.max_unhealthy;
    let all = siblings.len();
    let is_sick =
        |s: &&Sibling| s.sick || s.instance == request.plan.target.instance || out.iter().any(|t| t.instance == s.instance);
    let sick: Vec<_> = siblings.iter().filter(is_sick).map(|s| s.instance.as_str()).collect();
    let percent = (sick.len() * 100).checked_div(all).unwrap_or(100);
    let detail = format!("sick {} of {all} ({percent}%: {}), at most {limit}", sick.len(), sick.join(", "));
    if all > 0 && limit.allows(sick.len(), all) {
        pass(Rail::MaxUnhealthy, detail)
    } else {
        refuse(Rail::MaxUnhealthy, Reason::MaxUnhealthy, detail, None)
    }
}

fn max_in_flight(out: &[&Target], request: &Request<'_>) -> RailCheck {
    let most = request.playbook.guards.blast_radius.max_in_flight as usize;
    let names: Vec<_> = out.iter().map(|t| t.instance.as_str()).collect();
    let tail = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
    let detail = format!("{} in flight{tail}, with this one at most {most}", names.len());
    if names.len() < most {
        pass(Rail::MaxInFlight, detail)
    } else {
        refuse(Rail::MaxInFlight, Reason::MaxInFlight, detail, None)
    }
}

/// A target whose alert became active after our own drain of a sibling may be sick because of it.
fn blame(accounts: &Accounts, request: &Request<'_>, now: Timestamp) -> RailCheck {
    let blame = request.playbook.guards.blast_radius.blame;
    let target = &request.plan.target;
    let active_at = request
        .evidence
        .siblings
        .as_ref()
        .ok()
        .and_then(|siblings| siblings.iter().find(|s| s.instance == target.instance))
        .and_then(|sibling| sibling.active_at);
    let recent = accounts
        .drains
        .values()
        .filter(|mark| mark.target.service == target.service && mark.target != *target)
        .filter(|mark| now.duration_since(mark.at) <= blame.signed());
    // Without a beginning of the condition every recent drain is a suspect.
    let suspect = recent.filter(|mark| active_at.is_none_or(|active_at| active_at > mark.at)).max_by_key(|mark| mark.at);
    match suspect {
        None => pass(Rail::Blame, format!("not sick because of a drain of ours in the last {blame}")),
        Some(mark) => {
            let when = match active_at {
                Some(active_at) => format!("the condition began {} after", words::roughly(active_at.duration_since(mark.at))),
                None => "nobody knows whether the condition began before or after".to_owned(),
            };
            let detail = format!("{when} we drained {}, blame {blame}", mark.target);
            refuse(Rail::Blame, Reason::SickAfterAction, detail, Some(blame.signed() - now.duration_since(mark.at)))
        }
    }
}

fn clock(books: &Books, now: Timestamp) -> RailCheck {
    let behind = books.last_at.duration_since(now);
    if behind <= CLOCK_TOLERANCE {
        pass(Rail::Clock, "the clock is not behind the journal".to_owned())
    } else {
        let detail = format!("the clock is {} behind the journal's newest entry", words::roughly(behind));
        refuse(Rail::Clock, Reason::ClockUnreliable, detail, Some(behind))
    }
}

/// What was seen long ago says nothing of now, and a clock that went back since says nothing of how long ago that is. A disk that
/// stalls in the intent's own commit is noticed before the drain (`act::last_look`).
fn shelf_life(request: &Request<'_>, now: Timestamp) -> RailCheck {
    let jump = jump(request.evidence.at, request.passed, now);
    // One that went ahead makes the evidence look old, as in a machine that was suspended.
    if -jump > CLOCK_TOLERANCE {
        let detail = format!("the clock went {} since the evidence was seen", words::jumped(jump));
        return refuse(Rail::Evidence, Reason::ClockUnreliable, detail, None);
    }
    let age = now.duration_since(request.evidence.at).max(request.passed);
    let detail = format!("the evidence is {} old, must be younger than {}", words::roughly(age), words::roughly(SHELF_LIFE));
    if age < SHELF_LIFE { pass(Rail::Evidence, detail) } else { refuse(Rail::Evidence, Reason::EvidenceStale, detail, None) }
}

fn pass(rail: Rail, detail: String) -> RailCheck {
    RailCheck { rail, detail, refusal: None }
}

fn refuse(rail: Rail, reason: Reason, detail: String, retry_after: Option<SignedDuration>) -> RailCheck {
    let retry_after_ms = retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(0));
    RailCheck { rail, detail, refusal: Some(Refusal { reason, retry_after_ms }) }
}
