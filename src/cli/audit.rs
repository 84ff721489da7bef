//! `remediator audit`: what happened, read by a person: from a running remediator, or from its state directory, whether a
//! remediator uses it or not.
//!
//! Only `rebuild` writes, and it takes the state directory for itself.

mod reading;
pub(crate) mod story;

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use crate::audit::anchor::{self, Anchor, Whereabouts};
use crate::audit::chain::{self, ChainError, Verified};
use crate::audit::export::line;
use crate::audit::journal;
use crate::audit::query::{self, Filter};
use crate::audit::{Broken, JournalError};
use crate::cli::remote::{Remote, whereabouts};
use crate::cli::{Exit, terminal};
use crate::edge::clock::SystemClock;
use crate::event::RecordId;
use crate::guard::ledger::Anchored;
use crate::period::Period;
use crate::reason::{Outcome, Reason};
use crate::target::{EpisodeKey, PlaybookName};
use crate::world::Clock as _;

#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    pub command: AuditCommand,
    /// The state directory: work on its files, and ask no running remediator
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Walk the whole chain and name the first entry that cannot be believed
    Verify {
        /// A head or anchor hash that left this machine earlier, with a page, in the log or on /metrics: it must still be in the
        /// chain, or stand before it as the anchor of what was pruned
        #[arg(long, value_name = "HASH", value_parser = hash)]
        head: Option<String>,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print closed records, oldest first, one line of JSON each
    Export(ExportArgs),
    /// The last closed records, a line each, and what closes from now on
    Tail(reading::TailArgs),
    /// Records that match, newest first, as a table
    Search(reading::SearchArgs),
    /// Tell the whole story of one record
    Show {
        /// The record's id, as the page and the answer to the webhook have it
        #[arg(value_parser = record_id)]
        id: RecordId,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the records and the books again from the entries, which stay as they are (stop remediator first)
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
    /// How it ended, such as refused
    #[arg(long, value_parser = outcome)]
    pub outcome: Option<Outcome>,
    /// A reason code, such as min_healthy
    #[arg(long, value_parser = reason)]
    pub reason: Option<Reason>,
    /// A playbook's name
    #[arg(long)]
    pub playbook: Option<PlaybookName>,
    /// A target, as service/instance
    #[arg(long, value_parser = target)]
    pub target: Option<String>,
    /// An alert's fingerprint, as Alertmanager prints it
    #[arg(long)]
    pub fingerprint: Option<String>,
    /// Alertmanager's group key, as its webhook has it
    #[arg(long)]
    pub group_key: Option<String>,
    /// An episode's key
    #[arg(long, value_parser = key)]
    pub key: Option<EpisodeKey>,
    /// One line of JSON each (always, when exporting)
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// What kept it from being asked; a broken chain is an answer.
pub async fn run(args: AuditArgs) -> anyhow::Result<Exit> {
    let stdout = std::io::stdout();
    let colour = terminal::colour();
    let mut out = BufWriter::new(stdout);
    let answered = answer(args, &mut out, colour).await.and_then(|exit| Ok(out.flush().map(|()| exit)?));
    match answered {
        // `remediator audit export | head` is no failure.
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) => {
            Ok(Exit::Fine)
        }
        answered => answered,
    }
}

async fn answer(args: AuditArgs, out: &mut impl Write, colour: bool) -> anyhow::Result<Exit> {
    let AuditArgs { command, state_dir: dir, remote } = args;
    let source = reading::Source { state_dir: dir.as_deref(), remote: &remote };
    let place = || state_dir(dir.as_deref(), &remote);
    match command {
        AuditCommand::Verify { head, json } => verify(out, &place()?, head.as_deref(), json),
        AuditCommand::Export(args) => export(out, &place()?, args),
        AuditCommand::Tail(args) => reading::tail(out, &source, args).await,
        AuditCommand::Search(args) => reading::search(out, &source, args).await,
        AuditCommand::Show { id, json } => reading::show(out, &source, id, (!json).then_some(colour)).await,
        AuditCommand::Rebuild { json } => rebuild(out, &place()?, json),
    }
}

/// The one that is named, or the one that the configuration names.
fn state_dir(dir: Option<&Path>, remote: &Remote) -> anyhow::Result<PathBuf> {
    if let Some(dir) = dir {
        return Ok(dir.to_owned());
    }
    // An answer about this machine's files would be taken for one about the other's.
    anyhow::ensure!(
        remote.url.is_none(),
        "this reads files, which --url does not lead to: run it on that machine, or on a copy, with --state-dir DIR"
    );
    let found = whereabouts(remote.config.as_deref())?.state_dir;
    found.ok_or_else(|| anyhow!("say which journal: either --state-dir DIR or --config FILE"))
}

fn verify(out: &mut impl Write, dir: &Path, head: Option<&str>, as_json: bool) -> anyhow::Result<Exit> {
    let conn = journal::reader(dir).with_context(|| dir.display().to_string())?;
    let verified = match chain::verify(&conn) {
        Ok(verified) => verified,
        Err(ChainError::Broken(broken)) => return tell_broken(out, &broken, as_json),
        Err(ChainError::Store(error)) => return Err(error.into()),
    };
    let place = head.map(|hash| anchor::place(&conn, hash)).transpose()?;
    if let (Some(hash), Some(Whereabouts::Missing)) = (head, place) {
        let why = format!("no entry has the hash {hash}: the journal was cut or rewritten since that hash was given out");
        return tell_broken(out, &Broken { seq: verified.head.seq, why }, as_json);
    }
    if as_json {
        tell_verified_as_json(out, &verified, place)?;
    } else {
        tell_verified(out, &verified, place)?;
    }
    Ok(if place == Some(Whereabouts::Untold) { Exit::No } else { Exit::Fine })
}

fn tell_verified(out: &mut impl Write, verified: &Verified, place: Option<Whereabouts>) -> std::io::Result<()> {
    writeln!(out, "ok: {} entries, head {} {}", verified.entries, verified.head.seq, verified.head.hash)?;
    if let Some(Anchored { at, pruned }) = &verified.anchor {
        writeln!(out, "entries 1..{} were pruned on {at:.0}; anchor {}", pruned.through, pruned.anchor_hash)?;
    }
    match place {
        None | Some(Whereabouts::Missing) => Ok(()),
        Some(Whereabouts::Kept(seq)) => writeln!(out, "the hash that was given out is that of entry {seq}"),
        Some(Whereabouts::Anchor(seq)) => {
            writeln!(out, "the hash that was given out is the anchor: that of entry {seq}, the last that was pruned")
        }
        Some(Whereabouts::Earlier(seq)) => {
            writeln!(out, "the hash that was given out was the anchor earlier: that of entry {seq}, pruned by now")
        }
        Some(Whereabouts::Untold) => writeln!(
            out,
            "CANNOT TELL: the hash that was given out is older than the anchor, or not this journal's. What is kept is sound in itself. \
             Ask with a younger one, such as an anchor's (remediator_journal_anchor_info on /metrics, or in the log)"
        ),
    }
}

fn tell_verified_as_json(out: &mut impl Write, verified: &Verified, place: Option<Whereabouts>) -> std::io::Result<()> {
    let (word, seq) = match place {
        None => (None, None),
        Some(Whereabouts::Kept(seq)) => (Some("kept"), Some(seq)),
        Some(Whereabouts::Anchor(seq)) => (Some("anchor"), Some(seq)),
        Some(Whereabouts::Earlier(seq)) => (Some("earlier_anchor"), Some(seq)),
        Some(Whereabouts::Missing | Whereabouts::Untold) => (Some("cannot_tell"), None),
    };
    let Verified { entries, head, anchor } = verified;
    // What is kept is sound; whether the hash was ever of this chain is another question.
    let ok = place != Some(Whereabouts::Untold);
    writeln!(out, "{}", json!({ "ok": ok, "entries": entries, "head": head, "head_at": seq, "head_is": word, "pruned": anchor }))
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
    let filter = filter(args);
    let conn = journal::reader(dir).with_context(|| dir.display().to_string())?;
    if let Some(anchor) = Anchor::load(&conn)? {
        eprintln!("remediator: entries 1..{} were pruned; what closed before is not here", anchor.head.seq);
    }
    let mut written = Ok(());
    query::each_closed(&conn, &filter, |found| {
        written =
            serde_json::to_writer(&mut *out, &line(found)).map_err(std::io::Error::from).and_then(|()| out.write_all(b"\n"));
        written.is_ok()
    })?;
    written?;
    Ok(Exit::Fine)
}

fn filter(args: ExportArgs) -> Filter {
    Filter {
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
    }
}

/// As text, coloured or not; as JSON when `text` is none.
fn show(out: &mut impl Write, dir: &Path, id: RecordId, text: Option<bool>) -> anyhow::Result<Exit> {
    let conn = journal::reader(dir).with_context(|| dir.display().to_string())?;
    let Some(found) = query::found(&conn, id)? else {
        let pruned = if Anchor::load(&conn)?.is_some() { ", or it was pruned" } else { "" };
        eprintln!("remediator: there is no record {id} in {}{pruned}", dir.display());
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
        Ok(head) => writeln!(out, "made again up to entry {}, head {}", head.seq, head.hash)?,
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

/// Half a target would match nothing, and read as "nothing happened there".
fn target(text: &str) -> Result<String, String> {
    let whole = text.split_once('/').is_some_and(|(service, instance)| !service.is_empty() && !instance.is_empty());
    whole.then(|| text.to_owned()).ok_or_else(|| "write it as service/instance".to_owned())
}

/// A hash that was cut when it was copied must not read as a journal that was tampered with.
fn hash(text: &str) -> Result<String, String> {
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    if digits == 64 && text.len() == 64 {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("a hash has 64 hexadecimal digits, and this has {digits} of them in {} characters", text.chars().count()))
}

fn record_id(text: &str) -> Result<RecordId, String> {
    text.parse().map_err(|_| {
        "an id looks like 01a2009e-dbb0-713e-8c86-441b2d311fa3; `remediator audit search` lists them in its last column"
            .to_owned()
    })
}

fn key(text: &str) -> Result<EpisodeKey, String> {
    serde_json::from_value(json!(text)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
