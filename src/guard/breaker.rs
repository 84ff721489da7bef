//! The breaker on *whether remediation works*, per playbook and target group.
//!
//! A run counts against the remedy when its target did not recover, when nobody could tell, when it was broken off, and
//! when the target fired again within `recurrence`: a restart that helps for ten minutes is not a cure. The count goes
//! back to zero only when `recurrence` has passed quietly. Half-open, exactly one probe is let through; its slot is held
//! until its verdict, and only that verdict closes the breaker. A probe that helped and then recurred opens it at once.

use jiff::{SignedDuration, Timestamp};

use crate::decide::playbook::{BreakerSpec, Playbook};
use crate::event::RecordId;
use crate::guard::ledger::{Accounts, Breaker, Run, breaker_name};
use crate::target::Target;

/// What the breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open {
        since: Timestamp,
    },
    /// The next run is the probe.
    HalfOpen,
    /// The probe is under way.
    Probing(RecordId),
}

/// The breaker's state with its arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauge {
    pub state: BreakerState,
    /// Runs in a row that did not help, at most `failures`.
    pub count: u32,
}

/// How a run counts at `now`.
enum Tally {
    /// It did not help; since when that is known.
    NoHelp(Timestamp),
    /// It helped and `recurrence` has passed quietly.
    Helped,
    /// It helped, and is still on trial.
    OnTrial,
    InFlight,
}

impl BreakerState {
    pub fn word(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open { .. } => "open",
            BreakerState::HalfOpen | BreakerState::Probing(_) => "half_open",
        }
    }
}

/// Runs on this target that ended `recovered` less than `recurrence` ago: the target fires again, so they were no cure.
pub fn recurred(accounts: &Accounts, playbook: &Playbook, target: &Target, now: Timestamp) -> Vec<RecordId> {
    let recurrence = playbook.guards.breaker.recurrence.signed();
    let Some(breaker) = accounts.breakers.get(&breaker_name(&playbook.name, &target.service)) else { return Vec::new() };
    breaker
        .runs
        .iter()
        .filter(|run| run.target == *target && run.recurred_at.is_none())
        .filter(|run| run.end.is_some_and(|end| end.recovered && now.duration_since(end.at) <= recurrence))
        .map(|run| run.record)
        .collect()
}

impl Gauge {
    /// `recurred`: runs that the firing in hand proves to have been no cure, although no entry says so yet.
    pub fn read(breaker: Option<&Breaker>, spec: BreakerSpec, recurred: &[RecordId], now: Timestamp) -> Gauge {
        let mut count = 0_u32;
        let mut since: Option<Timestamp> = None;
        let mut probing = None;
        for run in breaker.into_iter().flat_map(|breaker| breaker.runs.iter().rev()) {
            match tally(run, recurred, spec.recurrence.signed(), now) {
                Tally::InFlight if run.probe => probing = Some(run.record),
                Tally::InFlight => {}
                Tally::NoHelp(at) => {
                    count = count.saturating_add(if run.probe { spec.failures } else { 1 });
                    since = Some(since.map_or(at, |known| known.max(at)));
                }
                // A probe that helped closes the breaker: what came before it no longer counts.
                Tally::OnTrial if run.probe => break,
                Tally::OnTrial => {}
                Tally::Helped => break,
            }
        }
        // Below the limit, failures are forgotten when nothing failed for a whole `recurrence`. Once open, only a probe's
        // verdict closes it, however long nobody could try.
        let quiet = spec.recurrence.signed() + spec.cooldown.signed();
        if count < spec.failures && since.is_some_and(|since| now.duration_since(since) > quiet) {
            count = 0;
        }
        let state = match (probing, since) {
            (Some(record), _) => BreakerState::Probing(record),
            (None, Some(since)) if count >= spec.failures => {
                if now.duration_since(since) >= spec.cooldown.signed() {
                    BreakerState::HalfOpen
                } else {
                    BreakerState::Open { since }
                }
            }
            (None, _) => BreakerState::Closed,
        };
        Gauge { state, count: count.min(spec.failures) }
    }
}

fn tally(run: &Run, recurred: &[RecordId], recurrence: SignedDuration, now: Timestamp) -> Tally {
    match run.end {
        None => Tally::InFlight,
        Some(end) if !end.recovered => Tally::NoHelp(end.at),
        Some(end) => match run.recurred_at {
            Some(at) => Tally::NoHelp(at),
            None if recurred.contains(&run.record) => Tally::NoHelp(now),
            None if now.duration_since(end.at) > recurrence => Tally::Helped,
            None => Tally::OnTrial,
        },
    }
}
