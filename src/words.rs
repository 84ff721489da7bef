//! Every sentence said to humans: checks, refusals, pages, verdicts. Pure, so that all of them can be read in one place.

use jiff::{SignedDuration, Timestamp};

use crate::decide::decision::Plan;
use crate::event::{Abort, Pause, PauseScope, Phase, Record};
use crate::guard::ledger::Watch;
use crate::period::Period;
use crate::reason::{Outcome, Reason};
use crate::target::{Replica, ServerPath};
use crate::world::{Server, ServerStatus, Silence};

/// Where the pages and the rules link to.
pub const RUNBOOK: &str = "https://github.com/remediator/remediator/blob/main/RUNBOOK.md";

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

/// What is no longer in the journal.
pub fn pruned(through: u64, before: Timestamp) -> String {
    format!("entries 1 to {through}, until {before:.0}, were pruned")
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
    format!("{} is {} with {} sessions", server.path, server_word(server), server.sessions)
}

/// Which way a clock jumped, and how far.
pub fn jumped(jump: SignedDuration) -> String {
    format!("{} by {}", if jump.is_negative() { "back" } else { "ahead" }, roughly(jump.abs()))
}

pub fn in_maintenance(server: &ServerPath) -> String {
    format!("{server} is in maintenance now")
}

pub fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", roughly(now.duration_since(then)))
}

pub fn paused(pause: &Pause) -> String {
    let until = pause.until.map(|until| format!(" until {until}")).unwrap_or_default();
    format!("{} paused by {}{until}: {}", pause.scope, pause.actor, pause.reason)
}

/// Why a reload is refused that has no playbook of the pause's name any more.
pub fn pause_would_be_lost(pause: &Pause) -> String {
    let PauseScope::Playbook(name) = &pause.scope else { return paused(pause) };
    format!(
        "playbook {name} is paused (by {}: {}), and with this configuration the pause would hold nothing any more; pause what \
         must stay paused by another scope (remediator pause --reason ...), then remediator resume --playbook {name}, then reload",
        pause.actor, pause.reason
    )
}

/// Why everything is paused after a start without the playbook that was.
pub fn pause_widened(pause: &Pause) -> String {
    format!("{} was paused by {} ({}), and there is no such playbook any more", pause.scope, pause.actor, pause.reason)
}

pub fn aborted(abort: &Abort) -> String {
    format!("aborted by {}: {}", abort.actor, abort.reason)
}

/// How far a record has come, in a word or two.
pub fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Accepted => "confirming",
        Phase::Confirmed => "deciding",
        Phase::Decided => "asking the guardrails",
        Phase::Refused => "refused",
        Phase::Admitted => "about to act",
        Phase::Judged => "judged",
        Phase::Closed => "closed",
    }
}

pub fn abort_ordered(at: &str, drained: bool) -> String {
    let next = if drained { "the server is put back and nothing is restarted" } else { "nothing is touched" };
    format!("it was at: {at}; {next}; it is closed as interrupted, aborted, and may be tried again after the cooldown")
}

pub fn abort_too_late(at: &str) -> String {
    format!("too late to abort, it is at: {at}; a restart cannot be taken back, so it goes on to readmit the server and verify")
}

pub fn abort_closed(record: &Record, watched: bool) -> String {
    let outcome = record.outcome.map_or("not at all", Outcome::word);
    let target = record.accepted.target.as_ref().map_or_else(|| "SERVICE/INSTANCE".to_owned(), ToString::to_string);
    let instead = match watched {
        true => {
            format!("; it is looked at again while its alert fires: to keep it from being acted on, pause the target {target}")
        }
        false => String::new(),
    };
    format!("record {} is closed already ({outcome}), there is nothing to abort{instead}", record.id)
}

/// What the balancer thinks of a server, in one word or two.
pub fn server_word(server: &Server) -> String {
    let word = match server.status {
        ServerStatus::Up => "up",
        ServerStatus::Down => "down",
        ServerStatus::Drain => "draining",
        ServerStatus::Maintenance => "in maintenance",
        ServerStatus::NoCheck => "not checked",
        ServerStatus::Other => "in an unknown state",
    };
    if server.drained && server.status != ServerStatus::Drain { format!("{word} and drained") } else { word.to_owned() }
}

/// What a plan does, for people: "restart inventory/inventory-2:8080".
pub fn plan(plan: &Plan) -> String {
    format!("restart {}", plan.target)
}

pub fn would_remediate(plan: &Plan) -> String {
    format!("shadow mode: would have drained {} and restarted {}", plan.server, plan.target)
}

/// The first line of a page.
pub fn page_summary(watch: &Watch) -> String {
    let alert = watch.accepted.alert.labels.alertname();
    let target = watch.accepted.target.as_ref().map_or_else(|| "a target that it does not name".to_owned(), ToString::to_string);
    let did = match watch.outcome {
        Outcome::Recovered | Outcome::ConditionCleared => "is settled",
        Outcome::StillFiring => "was remediated and still fires",
        Outcome::VerdictUnknown => "was remediated; whether it helped is unknown",
        Outcome::ActionFailed => "could not be remediated",
        Outcome::Interrupted => "was not remediated: the run was broken off",
        Outcome::Refused => "is not remediated: a guardrail refused",
        Outcome::UnknownCondition => "is not remediated: Prometheus cannot say whether it is true",
        Outcome::UnmatchedTarget => "is not remediated: it does not name exactly one replica that may be touched",
        Outcome::Shadow => "would have been remediated (shadow mode)",
    };
    format!("{alert} on {target} {did} ({})", watch.reason.meaning())
}

/// The last records of the same target, newest first.
pub fn history(records: &[Record]) -> String {
    let line = |record: &Record| {
        let outcome = record.outcome.map_or("under way", Outcome::word);
        let reason = record.reason.map_or("", Reason::code);
        format!("{} {outcome} {reason} ({})", record.opened_at.strftime("%Y-%m-%d %H:%M:%SZ"), record.id)
    };
    records.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What a person types to do the same by hand. Names only from what was resolved, never from the alert.
pub fn manual_commands(watch: &Watch, record: Option<&Record>) -> String {
    let replica = record.and_then(|record| record.evidence.as_ref()).and_then(|evidence| evidence.replica.as_ref().ok());
    let mut lines = vec![format!("remediator audit show {}", watch.record)];
    if let Some(replica) = replica {
        let (server, name) = (&replica.server.path, &replica.container.name);
        lines.push(format!("echo 'set server {server} state drain' | socat - $HAPROXY_SOCKET"));
        lines.push(format!("docker restart {name}"));
        lines.push(format!("echo 'set server {server} state ready' | socat - $HAPROXY_SOCKET"));
    }
    lines.join("\n")
}

/// Every reason code has a heading of its own in the runbook.
pub fn runbook_url(reason: Reason) -> String {
    format!("{RUNBOOK}#{}", reason.code())
}
