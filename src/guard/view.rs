//! The rails' state for people: what each would say now, without an alert in hand. Pure.
//!
//! These types are also what `GET /guards` documents and what `remediator status` reads, so that the three cannot drift
//! apart.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::decide::playbook::{Budget, Mode, Playbook, Rate};
use crate::event::RecordId;
use crate::guard::breaker::{BreakerState, Gauge};
use crate::guard::ledger::{Accounts, Books, breaker_name};
use crate::guard::rails::Limits;
use crate::period::Period;
use crate::target::{PlaybookName, ServiceName};

/// One playbook's rails: pauses, tokens, budgets, breaker, what is in flight, and how many remediations they would allow
/// now. Whether enough replicas serve is not in it: that depends on what the outside says at the moment of asking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlaybookNow {
    #[schema(value_type = String)]
    pub playbook: PlaybookName,
    #[schema(value_type = String)]
    pub service: ServiceName,
    #[schema(value_type = String, example = "live")]
    pub mode: Mode,
    /// How often it looks by itself; none when it waits for alerts.
    #[schema(value_type = Option<String>, example = "1m")]
    pub every: Option<Period>,
    /// A pause of everything or of this playbook is in force.
    pub paused: bool,
    pub remediations_allowed: u64,
    pub rate: Vec<TokensNow>,
    pub budget: Vec<BudgetNow>,
    pub breaker: BreakerNow,
    /// Targets, as `service/instance`, that are being remediated.
    pub in_flight: Vec<String>,
    /// Targets that may not be remediated again yet.
    pub cooling: Vec<CoolingNow>,
    pub blast_radius: RadiusNow,
}

/// A token bucket; one whole token of each is needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokensNow {
    pub scope: String,
    pub tokens: f64,
    pub burst: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BudgetNow {
    #[schema(value_type = String, example = "1h")]
    pub per: Period,
    pub spent: u64,
    pub most: u32,
    pub left: u64,
    /// When the next slot frees; none while one is free.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub frees_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BreakerNow {
    /// `playbook/service`: what a reset names.
    pub name: String,
    /// `closed`, `open` or `half_open`.
    pub state: String,
    /// Remediations in a row that did not help.
    pub failures: u32,
    pub opens_at: u32,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// When one probe is let through; only while open.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub probe_at: Option<Timestamp>,
    /// The record of the probe that is under way.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub probe: Option<RecordId>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CoolingNow {
    /// `service/instance`, or an episode's key when no record tells the name any more.
    pub target: String,
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RadiusNow {
    pub min_healthy: u32,
    /// A count, or a percentage such as `67%`.
    pub max_unhealthy: String,
    pub max_in_flight: u32,
}

/// The state of a playbook's breaker.
pub fn breaker(books: &Books, playbook: &Playbook, now: Timestamp) -> Gauge {
    let name = breaker_name(&playbook.name, &playbook.service);
    Gauge::read(books.live.breakers.get(&name), playbook.guards.breaker, &[], now)
}

/// One playbook's rails at `now`.
pub fn playbook(books: &Books, playbook: &Playbook, limits: &Limits, now: Timestamp) -> PlaybookNow {
    let accounts = books.accounts(playbook.mode);
    let gauge = breaker(books, playbook, now);
    let rate = rate(accounts, playbook, limits, now);
    let budget: Vec<BudgetNow> = playbook.guards.budget.iter().map(|b| budget(accounts, playbook, b, now)).collect();
    let in_flight: Vec<String> =
        accounts.held.values().filter(|h| h.target.service == playbook.service).map(|h| h.target.to_string()).collect();
    let paused = books.pauses.iter().any(|pause| {
        pause.until.is_none_or(|until| now < until)
            && match &pause.scope {
                crate::event::PauseScope::All => true,
                crate::event::PauseScope::Playbook(name) => *name == playbook.name,
                crate::event::PauseScope::Target(_) => false,
            }
    });
    let room = (playbook.guards.blast_radius.max_in_flight as usize).saturating_sub(in_flight.len()) as u64;
    let by_tokens = rate.iter().map(|bucket| bucket.tokens.floor() as u64).min().unwrap_or(0);
    let by_budget = budget.iter().map(|budget| budget.left).min().unwrap_or(u64::MAX);
    let by_breaker = match gauge.state {
        BreakerState::Closed => u64::MAX,
        BreakerState::HalfOpen => 1,
        BreakerState::Open { .. } | BreakerState::Probing(_) => 0,
    };
    PlaybookNow {
        playbook: playbook.name.clone(),
        service: playbook.service.clone(),
        mode: playbook.mode,
        every: playbook.every,
        paused,
        remediations_allowed: if paused { 0 } else { room.min(by_tokens).min(by_budget).min(by_breaker) },
        rate,
        budget,
        breaker: breaker_now(playbook, gauge),
        in_flight,
        cooling: cooling(books, accounts, playbook, now),
        blast_radius: RadiusNow {
            min_healthy: playbook.guards.blast_radius.min_healthy,
            max_unhealthy: playbook.guards.blast_radius.max_unhealthy.to_string(),
            max_in_flight: playbook.guards.blast_radius.max_in_flight,
        },
    }
}

fn rate(accounts: &Accounts, playbook: &Playbook, limits: &Limits, now: Timestamp) -> Vec<TokensNow> {
    let scopes = [
        ("fleet".to_owned(), limits.fleet),
        (format!("service {}", playbook.service), limits.group),
        (format!("playbook {}", playbook.name), playbook.guards.rate),
    ];
    let level =
        |scope: &str, rate: Rate| accounts.buckets.get(scope).map_or(f64::from(rate.burst), |bucket| bucket.level(rate, now));
    scopes.into_iter().map(|(scope, rate)| TokensNow { tokens: level(&scope, rate), burst: rate.burst, scope }).collect()
}

fn budget(accounts: &Accounts, playbook: &Playbook, budget: &Budget, now: Timestamp) -> BudgetNow {
    let ours = accounts.attempts.iter().filter(|a| a.playbook == playbook.name && a.target.service == playbook.service);
    let within: Vec<Timestamp> = ours.map(|a| a.at).filter(|at| now.duration_since(*at) < budget.per.signed()).collect();
    let left = (budget.most as usize).saturating_sub(within.len());
    // As the rail has it: a slot frees when the oldest of the newest `most` attempts leaves the window.
    let oldest = within.iter().rev().nth(budget.most.saturating_sub(1) as usize).filter(|_| left == 0);
    BudgetNow {
        per: budget.per,
        spent: within.len() as u64,
        most: budget.most,
        left: left as u64,
        frees_at: oldest.and_then(|at| at.checked_add(budget.per.signed()).ok()),
    }
}

fn breaker_now(playbook: &Playbook, gauge: Gauge) -> BreakerNow {
    let spec = playbook.guards.breaker;
    let since = match gauge.state {
        BreakerState::Open { since } => Some(since),
        BreakerState::Closed | BreakerState::HalfOpen | BreakerState::Probing(_) => None,
    };
    BreakerNow {
        name: breaker_name(&playbook.name, &playbook.service),
        state: gauge.state.word().to_owned(),
        failures: gauge.count,
        opens_at: spec.failures,
        since,
        probe_at: since.and_then(|since| since.checked_add(spec.cooldown.signed()).ok()),
        probe: if let BreakerState::Probing(record) = gauge.state { Some(record) } else { None },
    }
}

/// Targets of the playbook's service whose cooldown is not over.
fn cooling(books: &Books, accounts: &Accounts, playbook: &Playbook, now: Timestamp) -> Vec<CoolingNow> {
    let cooldown = playbook.guards.cooldown.signed();
    let cooling = accounts.granted.iter().filter_map(|(key, granted)| {
        let until = granted.checked_add(cooldown).ok().filter(|until| now < *until)?;
        let attempted = accounts.attempts.iter().rev().map(|attempt| &attempt.target).find(|target| target.key() == *key);
        let watched = books.watches.get(key).and_then(|watch| watch.accepted.target.as_ref());
        let target = attempted.or(watched);
        if target.is_some_and(|target| target.service != playbook.service) {
            return None;
        }
        Some(CoolingNow { target: target.map_or_else(|| key.as_str().to_owned(), ToString::to_string), until })
    });
    cooling.collect()
}
