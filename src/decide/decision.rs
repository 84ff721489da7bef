//! `decide`: from a playbook and evidence to a decision that explains itself.
//!
//! Order matters only for which reason is named first: what makes the alert nobody's business (unmatched, quiet,
//! unknown), then what means "hold" (silence, veto, age, somebody else's drain).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::decide::evidence::{Evidence, NoReplica, Reading};
use crate::decide::playbook::{DrainSpec, Playbook, RecoverySpec};
use crate::mutant::{Mutant, off};
use crate::period::Period;
use crate::reason::{Outcome, Reason};
use crate::target::{ContainerId, ServerPath, Target};
use crate::words;
use crate::world::Unanswered;

/// What should be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    Remediate {
        plan: Box<Plan>,
    },
    /// A human must look: [`Finding::outcome`] pages.
    Escalate {
        finding: Finding,
    },
    /// There is nothing to do.
    Ignore {
        finding: Finding,
    },
}

/// Why nothing is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    pub outcome: Outcome,
    pub reason: Reason,
    pub detail: String,
}

/// What Act will do. It leaves no choice: every bound and every identity is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub target: Target,
    /// The label that names the replica to Prometheus, so that a run can be verified when its playbook is gone.
    pub replica_label: String,
    pub container: ContainerId,
    /// The container's start when the plan was made; another start means another process, and the plan is void.
    pub started_at: Timestamp,
    pub server: ServerPath,
    /// The other replicas' servers, and how many of them must be serving at each last look.
    #[serde(default)]
    pub others: Vec<ServerPath>,
    #[serde(default)]
    pub min_healthy: u32,
    pub logs: u32,
    pub evidence_required: bool,
    pub drain: DrainSpec,
    pub grace_seconds: u32,
    pub healthy_within: Period,
    pub recovery: RecoverySpec,
    /// How long the permit lives.
    pub deadline: Period,
}

/// One comparison of a decision, with its numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub ok: bool,
    /// What was compared, in words.
    pub detail: String,
    /// What would have had to differ for it to act; empty when it was fine.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub would_act_if: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// A decision and every comparison behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    #[serde(flatten)]
    pub decision: Decision,
    pub checks: Vec<Check>,
}

/// What is to be done about this alert. Pure and total.
pub fn decide(playbook: &Playbook, evidence: &Evidence, now: Timestamp) -> Explained {
    let checks = checks(playbook, evidence, now);
    let decision = match checks.iter().find(|check| !check.ok) {
        Some(check) => refuse(check, evidence),
        None => match plan(playbook, evidence) {
            Ok(plan) => Decision::Remediate { plan: Box::new(plan) },
            Err(why) => {
                Decision::Escalate { finding: Finding { outcome: Outcome::Refused, reason: why.reason, detail: why.detail } }
            }
        },
    };
    Explained { decision, checks }
}

fn refuse(check: &Check, evidence: &Evidence) -> Decision {
    let reason = check.reason.unwrap_or(Reason::RadiusUnknown);
    // In the order of the checks: the first that fails is the one that the outcome is about.
    let outcome = match (&evidence.reading, &evidence.replica) {
        (_, Err(NoReplica::Unmatched(_))) => Outcome::UnmatchedTarget,
        (Reading::Quiet { .. }, _) => Outcome::ConditionCleared,
        (Reading::Unknown { .. }, _) => Outcome::UnknownCondition,
        (Reading::Firing { .. }, _) => Outcome::Refused,
    };
    let finding = Finding { outcome, reason, detail: check.detail.clone() };
    if outcome == Outcome::ConditionCleared { Decision::Ignore { finding } } else { Decision::Escalate { finding } }
}

fn checks(playbook: &Playbook, evidence: &Evidence, now: Timestamp) -> Vec<Check> {
    // An alert that names nothing we may touch is nobody's business whatever Prometheus says of it; that Docker or the
    // balancer did not answer matters only when there is something to do.
    let mut checks = match evidence.replica {
        Err(NoReplica::Unmatched(_)) => vec![matched(evidence), condition(evidence)],
        Ok(_) | Err(NoReplica::Unanswered(_)) => vec![condition(evidence), matched(evidence)],
    };
    checks.extend([untruncated(evidence), silence(evidence)]);
    checks.extend(evidence.vetoes.iter().map(veto));
    if let Ok(replica) = &evidence.replica {
        checks.push(running(replica));
        checks.push(age(playbook, replica, now));
        checks.push(server(replica));
    }
    checks
}

fn condition(evidence: &Evidence) -> Check {
    const NAME: &str = "condition";
    match &evidence.reading {
        Reading::Firing { value, .. } => pass(NAME, words::reading_firing(*value)),
        _ if off(Mutant::Condition) => pass(NAME, "believed".to_owned()),
        Reading::Quiet { .. } => {
            fail(NAME, Reason::ConditionQuiet, words::reading_quiet(), "the alert's rule fired for this target now")
        }
        Reading::Unknown { why } => fail(NAME, why.reason, why.detail.clone(), "Prometheus could prove that the condition holds"),
    }
}

fn matched(evidence: &Evidence) -> Check {
    const NAME: &str = "target";
    match &evidence.replica {
        Ok(replica) => pass(NAME, words::matched(replica)),
        Err(NoReplica::Unmatched(why)) => {
            fail(NAME, why.reason, why.detail.clone(), "the alert named exactly one container and its own server at the balancer")
        }
        Err(NoReplica::Unanswered(why)) => fail(NAME, why.reason, why.detail.clone(), "Docker and the balancer answered"),
    }
}

fn untruncated(evidence: &Evidence) -> Check {
    const NAME: &str = "notification";
    match evidence.truncated {
        n if n == 0 || off(Mutant::Truncation) => pass(NAME, "Alertmanager sent the whole group".to_owned()),
        n => fail(NAME, Reason::AlertsTruncated, words::truncated(n), "Alertmanager's max_alerts let the whole group through"),
    }
}

fn silence(evidence: &Evidence) -> Check {
    const NAME: &str = "silence";
    match &evidence.silences {
        Ok(silences) if silences.is_empty() || off(Mutant::Silence) => pass(NAME, "no silence matches".to_owned()),
        Ok(silences) => fail(NAME, Reason::Silenced, words::silenced(silences), "the silence were expired"),
        Err(why) => fail(NAME, why.reason, why.detail.clone(), "Alertmanager answered which silences are active"),
    }
}

fn veto(veto: &crate::decide::evidence::Veto) -> Check {
    const NAME: &str = "veto";
    match &veto.series {
        Ok(0) => pass(NAME, format!("`{}` returns nothing", veto.query)),
        Ok(n) => fail(NAME, Reason::Vetoed, format!("`{}` returns {n} series", veto.query), "the veto query returned nothing"),
        Err(why) => fail(NAME, Reason::VetoUnknown, format!("`{}`: {}", veto.query, why.detail), "the veto query were answered"),
    }
}

fn running(replica: &crate::target::Replica) -> Check {
    const NAME: &str = "container";
    let container = &replica.container;
    if container.running {
        pass(NAME, format!("{} is running", container.name))
    } else {
        let detail = format!("{} is {}", container.name, container.status);
        fail(NAME, Reason::ContainerNotRunning, detail, "the container were running")
    }
}

fn age(playbook: &Playbook, replica: &crate::target::Replica, now: Timestamp) -> Check {
    const NAME: &str = "start grace";
    let grace = playbook.guards.start_grace;
    let Some(started_at) = replica.container.started_at else {
        return fail(NAME, Reason::StartGrace, "the Engine does not say when the container started".to_owned(), "it did");
    };
    let age = now.duration_since(started_at);
    let detail = words::age(age, grace);
    // A start in the future is a clock that cannot be trusted; it counts as too young.
    if age >= grace.signed() || off(Mutant::StartGrace) {
        pass(NAME, detail)
    } else {
        fail(NAME, Reason::StartGrace, detail, "the container were older")
    }
}

fn server(replica: &crate::target::Replica) -> Check {
    const NAME: &str = "server";
    let server = &replica.server;
    let path = &server.path;
    if server.maintenance && !off(Mutant::TheirMaintenance) {
        fail(NAME, Reason::ServerMaintenance, format!("{path} is in maintenance"), "somebody took it out of maintenance")
    } else if server.drained && !off(Mutant::TheirDrain) {
        fail(NAME, Reason::ServerDrained, format!("{path} was drained by somebody else"), "whoever drained it readmitted it")
    } else if !server.checked {
        fail(
            NAME,
            Reason::NoHealthCheck,
            format!("the balancer runs no health check against {path}"),
            "the server had a health check",
        )
    } else {
        pass(NAME, words::server_state(server))
    }
}

/// The other replicas' servers; none when nobody could count them, and then no guardrail lets the plan through.
fn others(evidence: &Evidence) -> Vec<ServerPath> {
    let siblings = evidence.siblings.iter().flatten().filter(|sibling| sibling.instance != evidence.target.instance);
    siblings.filter_map(|sibling| sibling.server.clone()).collect()
}

fn plan(playbook: &Playbook, evidence: &Evidence) -> Result<Plan, Unanswered> {
    let replica = evidence.replica.as_ref().map_err(|why| Unanswered::new(Reason::ContainerMissing, why.to_string()))?;
    let started_at = replica
        .container
        .started_at
        .ok_or_else(|| Unanswered::new(Reason::StartGrace, "the Engine does not say when the container started"))?;
    Ok(Plan {
        target: evidence.target.clone(),
        replica_label: playbook.replica_label.clone(),
        container: replica.container.id.clone(),
        started_at,
        server: replica.server.path.clone(),
        others: others(evidence),
        min_healthy: playbook.guards.blast_radius.min_healthy,
        logs: playbook.evidence.logs,
        evidence_required: playbook.evidence.required,
        drain: playbook.drain,
        grace_seconds: playbook.restart_grace_seconds,
        healthy_within: playbook.healthy_within,
        recovery: playbook.recovered.clone(),
        deadline: playbook.deadline(),
    })
}

fn pass(name: &str, detail: String) -> Check {
    Check { name: name.to_owned(), ok: true, detail, would_act_if: String::new(), reason: None }
}

fn fail(name: &str, reason: Reason, detail: String, would_act_if: &str) -> Check {
    Check { name: name.to_owned(), ok: false, detail, would_act_if: would_act_if.to_owned(), reason: Some(reason) }
}
