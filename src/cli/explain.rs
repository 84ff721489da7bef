//! `remediator explain`: what would be decided about an alert, with its arithmetic, and what would have had to differ.
//!
//! With `--evidence` it is pure; without, the world is asked (and nothing in it is changed).

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;

use crate::alert::Alert;
use crate::app::live_world;
use crate::cli::Exit;
use crate::decide::decision::{Decision, Explained, decide};
use crate::decide::evidence::Evidence;
use crate::decide::playbook::Playbook;
use crate::detect::confirm::{Question, confirm};
use crate::detect::look::Looks;
use crate::detect::payload;
use crate::detect::{by_hand, target_of};
use crate::edge::clock::SystemClock;
use crate::edge::redact::plain_line;
use crate::guard::ledger::Books;
use crate::guard::rails::{Limits, RailCheck, Request, assess};
use crate::world::{Clock as _, World};

/// Longest line printed, in bytes.
const MAX_LINE: usize = 4_000;

#[derive(clap::Args, Debug)]
pub struct ExplainArgs {
    /// The configuration file.
    #[arg(long, env = "REMEDIATOR_CONFIG", default_value = "/etc/remediator/remediator.yml")]
    config: PathBuf,
    /// A webhook body, as Alertmanager sends it; the first firing alert is explained.
    #[arg(long, value_name = "FILE")]
    alert: PathBuf,
    /// Evidence as a record has it (`remediator audit show --json ID`, the field `evidence`); the world is not asked.
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
    /// One JSON document instead of lines.
    #[arg(long)]
    json: bool,
}

/// Prints the decision. `Exit::Fine`: it would act; `Exit::No`: it would not.
///
/// # Errors
/// A file that cannot be read or is not what it should be, an alert that no playbook claims.
pub async fn explain(args: ExplainArgs) -> anyhow::Result<Exit> {
    let config = super::serve::load(&args.config)?;
    let group = payload::parse(&read(&args.alert)?, config.settings.limits.alerts)
        .map_err(|error| anyhow::anyhow!("{}: {error}", args.alert.display()))?;
    let alert = group.alerts.into_iter().find(|alert| alert.status == crate::alert::AlertStatus::Firing);
    let alert = alert.with_context(|| format!("{}: no firing alert in it", args.alert.display()))?;
    let playbook = config.playbooks.iter().find(|playbook| playbook.claims(&alert.labels));
    let playbook = playbook.with_context(|| format!("no playbook matches {:?}", alert.labels.alertname()))?;
    let evidence = match &args.evidence {
        Some(file) => serde_json::from_slice(&read(file)?).with_context(|| format!("{}: not evidence", file.display()))?,
        None => ask(&live_world(&config)?, playbook, &config.playbooks, alert).await?,
    };
    let now: Timestamp = if args.evidence.is_some() { evidence_time(&evidence) } else { SystemClock.now() };
    let explained = decide(playbook, &evidence, now);
    let limits = Limits { fleet: config.settings.limits.fleet, group: config.settings.limits.group };
    let guards = guards(playbook, &limits, &evidence, &explained, now);
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(
                &serde_json::json!({ "playbook": playbook.name, "explained": explained, "guards": guards, "evidence": evidence })
            )?
        );
    } else {
        print(playbook, &evidence, &explained, &guards);
    }
    Ok(if matches!(explained.decision, Decision::Remediate { .. }) { Exit::Fine } else { Exit::No })
}

fn evidence_time(evidence: &Evidence) -> Timestamp {
    evidence.at
}

async fn ask(world: &World, playbook: &Playbook, siblings: &[Playbook], alert: Alert) -> anyhow::Result<Evidence> {
    let target = target_of(playbook, &alert.labels)
        .with_context(|| format!("the alert has no usable value in its label {:?}", playbook.replica_label))?;
    let accepted = by_hand(playbook, &target, alert);
    let question = Question { accepted: &accepted, target: &target, playbook, siblings };
    Ok(confirm(world, &Looks::default(), question).await.0)
}

/// What the rails would say to a remediator that has done nothing yet: the blast radius is real, the counters are empty.
fn guards(playbook: &Playbook, limits: &Limits, evidence: &Evidence, explained: &Explained, now: Timestamp) -> Vec<RailCheck> {
    let Decision::Remediate { plan } = &explained.decision else { return Vec::new() };
    let passed = now.duration_since(evidence.at);
    assess(&Books::default(), &Request { playbook, limits, evidence, passed, plan }, now).checks
}

fn print(playbook: &Playbook, evidence: &Evidence, explained: &Explained, guards: &[RailCheck]) {
    let about = format!("{} on {}", evidence.labels.alertname(), evidence.target);
    println!("{} (playbook {}, {})", shown(&about), playbook.name, playbook.mode.word());
    for check in &explained.checks {
        let mark = if check.ok { "ok " } else { "NO " };
        println!("  {mark} {:<13} {}", check.name, shown(&check.detail));
        if !check.would_act_if.is_empty() {
            println!("      {:<13} would act if {}", "", check.would_act_if);
        }
    }
    match &explained.decision {
        Decision::Remediate { plan } => {
            println!("decision: {}", crate::words::plan(plan));
            println!(
                "  drain {} (at most {}), restart container {:.12} (grace {}s), healthy within {}, readmit, verify",
                plan.server,
                plan.drain.within,
                plan.container.as_str(),
                plan.grace_seconds,
                plan.healthy_within
            );
            println!("guardrails, for a remediator that has done nothing yet (GET /guards has the running one's counters):");
            for check in guards {
                let mark = if check.refusal.is_none() { "ok " } else { "NO " };
                println!("  {mark} {:<13} {}", check.rail.word(), check.detail);
            }
        }
        Decision::Escalate { finding } => {
            println!("decision: page ({}, {}): {}", finding.outcome, finding.reason, shown(&finding.detail))
        }
        Decision::Ignore { finding } => println!("decision: nothing to do ({}): {}", finding.reason, shown(&finding.detail)),
    }
}

/// Text of other people must not steer the terminal.
fn shown(text: &str) -> String {
    plain_line(text, MAX_LINE)
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))
}
