//! `remediator audit`: the journal of a state directory, read by a person, whether a remediator uses it or not.
//!
//! Only `rebuild` writes, and it takes the state directory for itself.

pub(crate) mod story;

use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use crate::audit::chain::{self, ChainError};
use crate::audit::export::line;
use crate::audit::journal;
use crate::audit::query::{self, Filter};
use crate::audit::{Broken, JournalError};
use crate::cli::Exit;
use crate::edge::clock::SystemClock;
use crate::event::RecordId;
use crate::period::Period;
use crate::reason::{Outcome, Reason};
use crate::target::{EpisodeKey, PlaybookName};
use crate::world::Clock as _;

#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    pub command: AuditCommand,
    #[command(flatten)]
    pub place: Place,
}

/// Which journal.
#[derive(Debug, Args)]
pub struct Place {
    /// The state directory
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// A configuration file that names the state directory
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Walk the whole chain and name the first entry that cannot be believed (exit code 1)
    Verify {
        /// A head hash that left this machine earlier, with a page or on /metrics: it must still be in the chain
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print closed records, oldest first, one line of JSON each
    Export(ExportArgs),
    /// Tell the whole story of one record
    Show {
        id: RecordId,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the records and the books again from the entries
    Rebuild {
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which records; all that is given must hold.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Opened at this time or later: a time such as 2026-02-03T04:05:06Z, or so long ago, such as 7d
    #[arg(long, value_parser = moment)]
    pub since: Option<Timestamp>,
    /// Opened before this time
    #[arg(long, value_parser = moment)]
    pub until: Option<Timestamp>,
    #[arg(long, value_parser = outcome)]
    pub outcome: Option<Outcome>,
    /// A reason code
    #[arg(long, value_parser = reason)]
    pub reason: Option<Reason>,
    #[arg(long)]
    pub playbook: Option<PlaybookName>,
    /// service/instance
    #[arg(long)]
    pub target: Option<String>,
    /// Of an alert, as Alertmanager prints it
    #[arg(long)]
    pub fingerprint: Option<String>,
    #[arg(long)]
    pub group_key: Option<String>,
    /// An episode's key
    #[arg(long, value_parser = key)]
    pub key: Option<EpisodeKey>,
    /// Taken for granted: the lines are JSON
    #[arg(long, hide = true)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// What kept it from being asked; a broken chain is an answer.
pub fn run(args: AuditArgs) -> anyhow::Result<Exit> {
    let stdout = std::io::stdout();
    #[allow(clippy::disallowed_methods, reason = "NO_COLOR is the convention for every program on a terminal")]
    let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut out = BufWriter::new(stdout.lock());
    let answered = answer(args, &mut out, colour).and_then(|exit| Ok(out.flush().map(|()| exit)?));
    match answered {
        // `remediator audit export | head` is no failure.
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) => {
            Ok(Exit::Fine)
        }
        answered => answered,
    }
}

fn answer(args: AuditArgs, out: &mut impl Write, colour: bool) -> anyhow::Result<Exit> {
    let dir = state_dir(args.place)?;
    match args.command {
        AuditCommand::Verify { head, json } => verify(out, &dir, head.as_deref(), json),
        AuditCommand::Export(args) => export(out, &dir, args),
        AuditCommand::Show { id, json } => show(out, &dir, id, (!json).then_some(colour)),
        AuditCommand::Rebuild { json } => rebuild(out, &dir, json),
    }
}

fn state_dir(place: Place) -> anyhow::Result<PathBuf> {
    match (place.state_dir, place.config) {
        (Some(dir), None) => Ok(dir),
        (None, Some(file)) => match crate::config::load(&file) {
            Ok(config) => Ok(config.settings.state_dir),
            Err(errors) => Err(anyhow!(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))),
        },
        _ => Err(anyhow!("say which journal: either --state-dir DIR or --config FILE")),
    }
}

fn verify(out: &mut impl Write, dir: &Path, head: Option<&str>, as_json: bool) -> anyhow::Result<Exit> {
    let conn = journal::reader(dir).with_context(|| dir.display().to_string())?;
    let verified = match chain::verify(&conn) {
        Ok(verified) => verified,
        Err(ChainError::Broken(broken)) => return tell_broken(out, &broken, as_json),
        Err(ChainError::Store(error)) => return Err(error.into()),
    };
    let located = head.map(|hash| chain::locate(&conn, hash)).transpose()?;
    if let (Some(hash), Some(None)) = (head, located) {
        let why = format!("no entry has the hash {hash}: the journal was cut or rewritten since that hash was given out");
        return tell_broken(out, &Broken { seq: verified.head.seq, why }, as_json);
    }
    if as_json {
        writeln!(
            out,
            "{}",
            json!({ "ok": true, "entries": verified.entries, "head": verified.head, "head_at": located.flatten() })
        )?;
    } else {
        writeln!(out, "ok: {} entries, head {} {}", verified.entries, verified.head.seq, verified.head.hash)?;
        if let Some(seq) = located.flatten() {
            writeln!(out, "the hash that was given out is that of entry {seq}")?;
        }
    }
    Ok(Exit::Fine)
}

fn tell_broken(out: &mut impl Write, broken: &Broken, as_json: bool) -> anyhow::Result<Exit> {
    if as_json {
        writeln!(out, "{}", json!({ "ok": false, "seq": broken.seq, "why": broken.why }))?;
    } else {
        writeln!(out, "BROKEN at entry {}: {}", broken.seq, broken.why)?;
    }
    Ok(Exit::No)
}

fn export(out: &mut impl Write, dir: &Path, args: ExportArgs) -> anyhow::Result<Exit> {
    let filter = Filter {
        outcome: args.outcome,
        reason: args.reason,
        playbook: args.playbook,
        target: args.target,
        fingerprint: args.fingerprint,
        group_key: args.group_key,
        since: args.since,
        until: args.until,
        key: args.key,
        open: Some(false),
    };
    let conn = journal::reader(dir).with_context(|| dir.display().to_string())?;
    let mut written = Ok(());
    query::each_closed(&conn, &filter, |found| {
        written =
            serde_json::to_writer(&mut *out, &line(found)).map_err(std::io::Error::from).and_then(|()| out.write_all(b"\n"));
        written.is_ok()
    })?;
    written?;
    Ok(Exit::Fine)
}

/// As text, coloured or not; as JSON when `text` is none.
fn show(out: &mut impl Write, dir: &Path, id: RecordId, text: Option<bool>) -> anyhow::Result<Exit> {
    let conn = journal::reader(dir).with_context(|| dir.display().to_string())?;
    let Some(found) = query::found(&conn, id)? else {
        eprintln!("remediator: there is no record {id} in {}", dir.display());
        return Ok(Exit::No);
    };
    let told = query::story(&conn, id)?;
    match text {
        Some(colour) => out.write_all(story::tell(&found, &told, colour).as_bytes())?,
        None => writeln!(out, "{:#}", json!({ "record": found.record, "hash": found.hash, "entries": told }))?,
    }
    Ok(Exit::Fine)
}

fn rebuild(out: &mut impl Write, dir: &Path, as_json: bool) -> anyhow::Result<Exit> {
    match journal::rebuild(dir) {
        Ok(head) if as_json => writeln!(out, "{}", json!({ "ok": true, "head": head }))?,
        Ok(head) => writeln!(out, "made again from {} entries, head {}", head.seq, head.hash)?,
        Err(JournalError::Broken(broken)) => return tell_broken(out, &broken, as_json),
        Err(error) => return Err(error.into()),
    }
    Ok(Exit::Fine)
}

/// A time, or how long ago it was.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(period) = text.parse::<Period>() {
        return SystemClock.now().checked_sub(period.signed()).map_err(|error| error.to_string());
    }
    text.parse().map_err(|_| "write a time such as 2026-02-03T04:05:06Z, or how long ago, such as 7d".to_owned())
}

fn outcome(text: &str) -> Result<Outcome, String> {
    let known = || Outcome::ALL.iter().map(|outcome| outcome.word()).collect::<Vec<_>>().join(", ");
    Outcome::ALL.iter().copied().find(|outcome| outcome.word() == text).ok_or_else(|| format!("known are {}", known()))
}

fn reason(text: &str) -> Result<Reason, String> {
    let unknown = || "not a reason code; RUNBOOK.md lists them".to_owned();
    Reason::ALL.iter().copied().find(|reason| reason.code() == text).ok_or_else(unknown)
}

fn key(text: &str) -> Result<EpisodeKey, String> {
    serde_json::from_value(json!(text)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
