//! `remediator check`: everything that can be known to be wrong before anything starts.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::app::live_world;
use crate::cli::Exit;
use crate::config::{self, Finding, Severity};
use crate::edge::redact::plain_line;

/// Longest line printed, in bytes.
const MAX_LINE: usize = 4_000;

#[derive(clap::Args, Debug)]
pub struct CheckArgs {
    /// The configuration file.
    #[arg(long, env = "REMEDIATOR_CONFIG", default_value = "/etc/remediator/remediator.yml")]
    config: PathBuf,
    /// Only the files: do not ask Prometheus, Docker, the balancer and Alertmanager.
    #[arg(long)]
    offline: bool,
    /// One JSON document instead of lines.
    #[arg(long)]
    json: bool,
}

/// Prints every finding. `Exit::Fine`: nothing wrong (warnings are allowed); `Exit::No`: something is.
///
/// # Errors
/// The file cannot be read, or the outside that it names cannot be built at all.
pub async fn check(args: CheckArgs) -> anyhow::Result<Exit> {
    let file = args.config.display().to_string();
    // Without it nothing was asked, so that there is no answer either.
    std::fs::File::open(&args.config).with_context(|| format!("{file} cannot be read"))?;
    let config = match config::load(&args.config) {
        Ok(config) => config,
        Err(errors) => {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            print(&lines, &[], args.json);
            return Ok(Exit::No);
        }
    };
    let mut findings: Vec<Finding> = Vec::new();
    if !args.offline {
        let world = live_world(&config)?;
        findings.extend(config::check_against(&world, &file, &config).await);
    }
    findings.extend(config.warnings);
    let (errors, warnings): (Vec<_>, Vec<_>) = findings.iter().partition(|finding| finding.severity == Severity::Error);
    let text = |findings: &[&Finding]| findings.iter().map(ToString::to_string).collect::<Vec<_>>();
    print(&text(&errors), &text(&warnings), args.json);
    if !errors.is_empty() {
        return Ok(Exit::No);
    }
    if !args.json {
        let asked = if args.offline { "the files only" } else { "the files, and against the world" };
        let count = config.playbooks.len();
        println!("{file}: good, with {count} playbook{} ({asked})", if count == 1 { "" } else { "s" });
    }
    Ok(Exit::Fine)
}

fn print(errors: &[String], warnings: &[String], json: bool) {
    if json {
        println!("{}", serde_json::json!({ "errors": errors, "warnings": warnings }));
        return;
    }
    for line in errors.iter().chain(warnings) {
        // It may repeat what others wrote into labels, rules and files.
        line.lines().for_each(|line| println!("{}", plain_line(line, MAX_LINE)));
    }
}
