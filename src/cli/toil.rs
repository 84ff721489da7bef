//! `remediator toil`: what a page costs by hand, what an audit log says about the rest, and when it pays.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use crate::audit::export::line;
use crate::audit::journal;
use crate::audit::query::{self, Filter};
use crate::cli::{Exit, out};
use crate::edge::clock::SystemClock;
use crate::period::Period;
use crate::toil::ledger;
use crate::toil::table::{self, Report};
use crate::toil::tally::{Line, tally};
use crate::world::Clock as _;

/// Longest audit line taken: a record holds at most 2 MB of log lines as evidence, and JSON may escape each byte.
const MAX_LINE: u64 = 16 << 20;

#[derive(Debug, Args)]
pub struct ToilArgs {
    /// A ledger: the week by hand and its figures; toil/inventory-week.yml is one
    #[arg(value_name = "LEDGER", required_unless_present_any = ["audit", "state_dir"])]
    ledger: Option<PathBuf>,
    /// Audit lines (audit.jsonl, or what `audit export` prints); several files count together; - for stdin
    #[arg(long, value_name = "FILE", conflicts_with = "state_dir")]
    audit: Vec<PathBuf>,
    /// A state directory, whose journal is read
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Count what was closed at this time or later, such as 2026-02-03T00:00:00Z; default: from the first record on
    #[arg(long)]
    since: Option<Timestamp>,
    /// Count what was closed before this time; default: until now
    #[arg(long)]
    until: Option<Timestamp>,
    /// A target that fires again this soon after a restart was not helped by it: the playbook's breaker.recurrence
    #[arg(long, default_value = "1h")]
    recurrence: Period,
    /// Answer as JSON; every length of time in it is in seconds
    #[arg(long)]
    json: bool,
}

/// Runs the command. `Exit::No`: a ledger that is wrong.
///
/// # Errors
/// A log that cannot be read, or is none.
pub fn toil(args: &ToilArgs) -> anyhow::Result<Exit> {
    // Without it nothing was asked, so that there is no answer either.
    if let Some(path) = &args.ledger {
        File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    }
    let ledger = match args.ledger.as_deref().map(ledger::read).transpose() {
        Ok(ledger) => ledger,
        Err(errors) => {
            errors.iter().for_each(|error| eprintln!("{error}"));
            return Ok(Exit::No);
        }
    };
    let report = match lines(args)? {
        None => None,
        Some(mut lines) => {
            let (since, until) = (args.since, args.until.unwrap_or_else(|| SystemClock.now()));
            let all = lines.len();
            lines.retain(|line| since.is_none_or(|since| line.ts >= since) && line.ts < until);
            if lines.len() < all {
                eprintln!(
                    "remediator: {} of {all} audit lines are left out: closed before --since, or not before {until}",
                    all - lines.len()
                );
            }
            let tally = tally(lines, args.recurrence);
            let from = since.or(tally.first).unwrap_or(until);
            Some(Report::new(tally, from, until, ledger.as_ref()))
        }
    };
    if args.json {
        let week = ledger.as_ref().map(|ledger| {
            json!({
                "week": ledger.week(), "saved": ledger.week().saved(), "restart": ledger.restart(),
                "false_alarm": ledger.false_alarm(), "payback": ledger.payback(), "ledger": ledger,
            })
        });
        return out::print(&format!("{:#}\n", json!({ "by_hand": week, "report": report })));
    }
    let parts = [ledger.as_ref().map(table::ledger), report.as_ref().map(table::report)];
    out::print(&parts.into_iter().flatten().collect::<Vec<_>>().join("\n"))
}

/// None when no log was named.
fn lines(args: &ToilArgs) -> anyhow::Result<Option<Vec<Line>>> {
    if let Some(dir) = &args.state_dir {
        return journal_lines(dir).with_context(|| dir.display().to_string()).map(Some);
    }
    let mut lines = Vec::new();
    for file in &args.audit {
        let name = file.display().to_string();
        if file == Path::new("-") {
            read_lines(stdin().lock(), "stdin", &mut lines)?;
        } else {
            let open = File::open(file).with_context(|| format!("{name} cannot be read"))?;
            read_lines(BufReader::new(open), &name, &mut lines)?;
        }
    }
    Ok((!args.audit.is_empty()).then_some(lines))
}

/// Every record of the journal by way of its audit line, so that a log and its journal count alike.
fn journal_lines(dir: &Path) -> anyhow::Result<Vec<Line>> {
    let conn = journal::reader(dir)?;
    let mut lines = Vec::new();
    let mut wrong = None;
    query::each_closed(&conn, &Filter::default(), |found| {
        match serde_json::to_value(line(found)).and_then(serde_json::from_value) {
            Ok(line) => lines.push(line),
            Err(error) => wrong = Some(anyhow!("record {}: {error}", found.record.id)),
        }
        wrong.is_none()
    })?;
    wrong.map_or(Ok(lines), Err)
}

/// A last line without its end is one that is being written right now; any other that is no audit line is an error.
fn read_lines(mut from: impl BufRead, name: &str, lines: &mut Vec<Line>) -> anyhow::Result<()> {
    let mut text = Vec::new();
    for number in 1_u64.. {
        text.clear();
        let taken = from.by_ref().take(MAX_LINE).read_until(b'\n', &mut text).with_context(|| name.to_owned())?;
        if taken == 0 {
            break;
        }
        let whole = text.last() == Some(&b'\n');
        if !whole && taken as u64 == MAX_LINE {
            bail!("{name}:{number}: longer than {MAX_LINE} bytes, which no audit line is. Name an audit.jsonl");
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(&text) {
            Ok(line) => lines.push(line),
            Err(_) if !whole => eprintln!("remediator: {name}:{number}: the last line has no end yet and is left out"),
            Err(error) => {
                bail!(
                    "{name}:{number}: not an audit line: {error}. Name an audit.jsonl, or what `remediator audit export` printed"
                )
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
