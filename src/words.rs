//! Every sentence said to humans: checks, refusals, pages, verdicts. Pure, so that all of them can be read in one place.

use jiff::{SignedDuration, Timestamp};

use crate::event::Pause;
use crate::period::Period;
use crate::target::Replica;
use crate::world::{Server, Silence};

/// A length of time, rounded for people: `3.2s`, `14s`, `5m`, `2h`.
pub fn roughly(duration: SignedDuration) -> String {
    let secs = duration.as_secs_f64();
    let (sign, secs) = if secs < 0.0 { ("-", -secs) } else { ("", secs) };
    let whole = Period::from_secs(secs.round() as u64);
    match secs {
        s if s < 10.0 => format!("{sign}{s:.1}s"),
        _ => format!("{sign}{whole}"),
    }
}

/// A value of a query: enough digits to compare it with a threshold.
pub fn number(value: f64) -> String {
    if value.is_finite() && value.abs() >= 1e-3 && value.abs() < 1e9 {
        let text = format!("{value:.4}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        format!("{value}")
    }
}

pub fn reading_firing(value: f64) -> String {
    format!("Prometheus confirms the condition, value {}", number(value))
}

pub fn reading_quiet() -> String {
    "Prometheus lists the alert neither pending nor firing, the expression is empty, and every input is fresh".to_owned()
}

pub fn matched(replica: &Replica) -> String {
    format!("{} is container {} and server {}", replica.target, replica.container.name, replica.server.path)
}

pub fn truncated(cut: u64) -> String {
    format!("Alertmanager cut {cut} alerts from the group, so how many replicas are sick is unknown")
}

pub fn silenced(silences: &[Silence]) -> String {
    let list: Vec<_> = silences.iter().map(|s| format!("{} by {}: {}", s.id, s.created_by, s.comment)).collect();
    format!("silenced ({})", list.join("; "))
}

pub fn age(age: SignedDuration, grace: Period) -> String {
    format!("the container has run for {}, must be at least {grace}", roughly(age))
}

pub fn server_state(server: &Server) -> String {
    format!("{} is {:?} with {} sessions", server.path, server.status, server.sessions).to_lowercase()
}

pub fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", roughly(now.duration_since(then)))
}

pub fn paused(pause: &Pause) -> String {
    let until = pause.until.map(|until| format!(" until {until}")).unwrap_or_default();
    format!("{} paused by {}{until}: {}", pause.scope, pause.actor, pause.reason)
}
