//! The rails' state for people: what each would say now, without an alert in hand.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::decide::playbook::Playbook;
use crate::guard::breaker::{BreakerState, Gauge};
use crate::guard::ledger::{Books, breaker_name};
use crate::guard::rails::Limits;

/// The state of a playbook's breaker.
pub fn breaker(books: &Books, playbook: &Playbook, now: Timestamp) -> Gauge {
    let name = breaker_name(&playbook.name, &playbook.service);
    Gauge::read(books.live.breakers.get(&name), playbook.guards.breaker, &[], now)
}

/// One playbook's rails: pauses, tokens, budgets, breaker, what is in flight, and how many remediations they would allow
/// now. The blast radius is not in it: it depends on what the outside says at the moment of asking.
pub fn playbook(books: &Books, playbook: &Playbook, limits: &Limits, now: Timestamp) -> Value {
    let accounts = books.accounts(playbook.mode);
    let gauge = breaker(books, playbook, now);
    let scopes = [
        ("fleet".to_owned(), limits.fleet),
        (format!("service {}", playbook.service), limits.group),
        (format!("playbook {}", playbook.name), playbook.guards.rate),
    ];
    let tokens = |(scope, rate): &(String, crate::decide::playbook::Rate)| {
        accounts.buckets.get(scope).map_or(f64::from(rate.burst), |bucket| bucket.level(*rate, now))
    };
    let attempts = accounts.attempts.iter().filter(|a| a.playbook == playbook.name && a.target.service == playbook.service);
    let spent = |per: crate::period::Period| attempts.clone().filter(|a| now.duration_since(a.at) < per.signed()).count();
    let in_flight: Vec<String> =
        accounts.held.values().filter(|h| h.target.service == playbook.service).map(|h| h.target.to_string()).collect();
    let global_pause = books.pauses.iter().any(|pause| {
        pause.until.is_none_or(|until| now < until)
            && match &pause.scope {
                crate::event::PauseScope::All => true,
                crate::event::PauseScope::Playbook(name) => *name == playbook.name,
                crate::event::PauseScope::Target(_) => false,
            }
    });
    let room = (playbook.guards.blast_radius.max_in_flight as usize).saturating_sub(in_flight.len());
    let by_tokens = scopes.iter().map(|scope| tokens(scope).floor() as usize).min().unwrap_or(0);
    let by_budget =
        playbook.guards.budget.iter().map(|b| (b.most as usize).saturating_sub(spent(b.per))).min().unwrap_or(usize::MAX);
    let by_breaker = match gauge.state {
        BreakerState::Closed => usize::MAX,
        BreakerState::HalfOpen => 1,
        BreakerState::Open { .. } | BreakerState::Probing(_) => 0,
    };
    let allowed = if global_pause { 0 } else { room.min(by_tokens).min(by_budget).min(by_breaker) };
    json!({
        "playbook": playbook.name,
        "service": playbook.service,
        "mode": playbook.mode,
        "paused": global_pause,
        "remediations_allowed": allowed,
        "rate": scopes.iter().map(|scope| json!({ "scope": scope.0, "tokens": tokens(scope), "burst": scope.1.burst })).collect::<Vec<_>>(),
        "budget": playbook.guards.budget.iter().map(|b| json!({ "per": b.per, "spent": spent(b.per), "most": b.most })).collect::<Vec<_>>(),
        "breaker": {
            "name": breaker_name(&playbook.name, &playbook.service),
            "state": gauge.state.word(),
            "failures": gauge.count,
            "opens_at": playbook.guards.breaker.failures,
        },
        "in_flight": in_flight,
        "blast_radius": {
            "min_healthy": playbook.guards.blast_radius.min_healthy,
            "max_unhealthy": playbook.guards.blast_radius.max_unhealthy.to_string(),
            "max_in_flight": playbook.guards.blast_radius.max_in_flight,
        },
    })
}
