//! `audit show`, `search` and `tail`: records from a running remediator, or from its state directory when it does not run.
//!
//! Both give the same lines (`audit.jsonl`'s), so that what is printed does not depend on where it came from.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{ExportArgs, filter, state_dir, story};
use crate::audit::export::line;
use crate::audit::journal;
use crate::audit::query::{self, Found, MAX_LIMIT, Told};
use crate::cli::Exit;
use crate::cli::remote::{Asker, Failure, Need, Remote};
use crate::cli::terminal::{Screen, Style, clock, relative, span};
use crate::edge::clock::SystemClock;
use crate::event::{Record, RecordId};
use crate::world::Clock as _;

/// Longest line of the stream that is read, in bytes: a record with its evidence.
const MAX_EVENT: usize = 16 << 20;
/// How soon a stream that ended is opened again.
const AGAIN: Duration = Duration::from_secs(3);
/// The stream says something every 15 s; after this long without a byte it is dead.
const SILENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub struct SearchArgs {
    #[command(flatten)]
    which: ExportArgs,
    /// How many at most, newest first
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=MAX_LIMIT as i64))]
    limit: u32,
}

#[derive(Debug, Args)]
pub struct TailArgs {
    /// Go on with what closes from now on, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// How many of the last ones first
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=MAX_LIMIT as i64))]
    lines: u32,
    /// One line of JSON each
    #[arg(long)]
    json: bool,
}

/// Where records come from.
pub struct Source<'a> {
    pub state_dir: Option<&'a Path>,
    pub remote: &'a Remote,
}

impl Source<'_> {
    /// The one that runs, unless a state directory was named.
    fn asker(&self) -> anyhow::Result<Option<Asker>> {
        match self.state_dir {
            Some(_) => Ok(None),
            None => match self.remote.asker(Need::Read) {
                Ok(asker) => Ok(Some(asker)),
                // No token: the files may be readable all the same.
                Err(error) if self.remote.url.is_none() && self.remote.token_file.is_none() => {
                    eprintln!("remediator: {error:#}; its files are read instead");
                    Ok(None)
                }
                Err(error) => Err(error),
            },
        }
    }

    fn dir(&self) -> anyhow::Result<std::path::PathBuf> {
        state_dir(self.state_dir, self.remote)
    }

    /// When it does not run, its files say the same; when an address was named, nobody's files are meant.
    fn files_instead(&self, asker: &Asker, failure: &Failure) -> bool {
        let instead = !asker.named && failure.unreachable() && self.dir().is_ok();
        if instead {
            eprintln!("remediator: {failure}; its files are read instead");
        }
        instead
    }
}

/// `audit show`
pub async fn show(out: &mut impl Write, source: &Source<'_>, id: RecordId, text: Option<bool>) -> anyhow::Result<Exit> {
    if source.remote.url.is_some()
        && let Some(asker) = source.asker()?
    {
        let answer = match asker.get(&format!("audit/{id}"), &[]).await {
            Ok(answer) => answer,
            Err(failure) => return Ok(failure.tell(text.is_none())),
        };
        let Some(colour) = text else {
            writeln!(out, "{answer:#}")?;
            return Ok(Exit::Fine);
        };
        let record: Record = serde_json::from_value(answer["record"].clone()).context("its record cannot be read")?;
        let told: Vec<Told> = serde_json::from_value(answer["entries"].clone()).context("its entries cannot be read")?;
        let hash = told.last().map(|told| told.hash.clone()).unwrap_or_default();
        out.write_all(story::tell(&Found { record, hash }, &told, colour).as_bytes())?;
        return Ok(Exit::Fine);
    }
    super::show(out, &source.dir()?, id, text)
}

/// `audit search`
pub async fn search(out: &mut impl Write, source: &Source<'_>, args: SearchArgs) -> anyhow::Result<Exit> {
    let SearchArgs { which, limit } = args;
    let as_json = which.json;
    let mut found = None;
    if let Some(asker) = source.asker()? {
        anyhow::ensure!(which.key.is_none(), "--key is answered from files only; add --state-dir DIR");
        match pages(&asker, &asked(&which), limit, false).await {
            Ok(lines) => found = Some(lines),
            Err(failure) if source.files_instead(&asker, &failure) => {}
            Err(failure) => return Ok(failure.tell(as_json)),
        }
    }
    let lines = match found {
        Some(lines) => lines,
        None => {
            let conn = journal::reader(&source.dir()?)?;
            let page = query::page(&conn, &query::Filter { open: None, ..filter(which) }, None, limit as usize)?;
            page.items.iter().map(|found| json!(line(found))).collect()
        }
    };
    if as_json {
        for line in &lines {
            writeln!(out, "{line}")?;
        }
    } else {
        let mut screen = Screen::new();
        table(&mut screen, &lines, SystemClock.now());
        out.write_all(screen.text().as_bytes())?;
    }
    Ok(if lines.is_empty() { Exit::No } else { Exit::Fine })
}

/// The filters as `GET /audit` names them.
fn asked(args: &ExportArgs) -> Vec<(&'static str, String)> {
    let all = [
        ("since", args.since.map(|at| at.to_string())),
        ("until", args.until.map(|at| at.to_string())),
        ("outcome", args.outcome.map(|outcome| outcome.word().to_owned())),
        ("reason", args.reason.map(|reason| reason.code().to_owned())),
        ("playbook", args.playbook.as_ref().map(ToString::to_string)),
        ("target", args.target.clone()),
        ("fingerprint", args.fingerprint.clone()),
        ("groupKey", args.group_key.clone()),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Newest first, page by page until there are enough.
async fn pages(asker: &Asker, asked: &[(&str, String)], limit: u32, closed_only: bool) -> Result<Vec<Value>, Failure> {
    let mut lines: Vec<Value> = Vec::new();
    let mut cursor: Option<String> = None;
    while lines.len() < limit as usize {
        let mut query: Vec<(&str, String)> = asked.to_vec();
        query.push(("limit", limit.to_string()));
        query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let page = asker.get("audit", &query).await?;
        let records = page["records"].as_array().cloned().unwrap_or_default();
        let got = records.len();
        lines.extend(records.into_iter().filter(|line| !closed_only || !line["outcome"].is_null()));
        match page["next"].as_str() {
            Some(next) if got > 0 => cursor = Some(next.to_owned()),
            _ => break,
        }
    }
    lines.truncate(limit as usize);
    Ok(lines)
}

fn table(screen: &mut Screen, lines: &[Value], now: Timestamp) {
    if lines.is_empty() {
        screen.line(Style::Dim, "no record matches");
        return;
    }
    let row = |line: &Value| {
        let when = line["ts"].as_str().and_then(|ts| ts.parse().ok()).map_or_else(String::new, |at| relative(at, now));
        let took = line["duration_ms"].as_i64().map_or_else(String::new, |ms| span(jiff::SignedDuration::from_millis(ms)));
        let (style, outcome) = outcome(line);
        vec![
            (Style::Plain, when),
            (style, outcome),
            (Style::Plain, text(line, "reason_code")),
            (Style::Plain, text(line, "target")),
            (Style::Plain, line["alert"]["labels"]["alertname"].as_str().unwrap_or_default().to_owned()),
            (Style::Plain, took),
            (Style::Dim, text(line, "id")),
        ]
    };
    let header = ["WHEN", "OUTCOME", "REASON", "TARGET", "ALERT", "TOOK", "RECORD"];
    screen.table(&header, lines.iter().map(row).collect());
}

fn outcome(line: &Value) -> (Style, String) {
    match line["outcome"].as_str() {
        None => (Style::Wait, "open".to_owned()),
        Some(word @ ("recovered" | "condition_cleared")) => (Style::Good, word.to_owned()),
        Some(word) => (Style::Bad, word.to_owned()),
    }
}

fn text(line: &Value, name: &str) -> String {
    line[name].as_str().unwrap_or_default().to_owned()
}

/// `audit tail`
pub async fn tail(out: &mut impl Write, source: &Source<'_>, args: TailArgs) -> anyhow::Result<Exit> {
    let mut newest = None;
    let mut first: Option<Vec<Value>> = None;
    let asker = source.asker()?;
    if let Some(asker) = &asker {
        match pages(asker, &[], args.lines.max(1), true).await {
            Ok(mut lines) => {
                newest = lines.iter().filter_map(|line| line["seq"].as_u64()).max();
                lines.truncate(args.lines as usize);
                first = Some(lines);
            }
            Err(failure) if !args.follow && source.files_instead(asker, &failure) => {}
            Err(failure) => return Ok(failure.tell(args.json)),
        }
    }
    let lines = match first {
        Some(lines) => lines,
        None => last_closed(&source.dir()?, args.lines as usize)?,
    };
    for line in lines.iter().rev() {
        tell(out, line, args.json)?;
    }
    out.flush()?;
    match asker {
        Some(asker) if args.follow => follow(out, &asker, newest.unwrap_or(0), args.json).await,
        None if args.follow => anyhow::bail!("--follow needs a running remediator; leave --state-dir out, or name its --url"),
        _ => Ok(Exit::Fine),
    }
}

fn last_closed(dir: &Path, count: usize) -> anyhow::Result<Vec<Value>> {
    let conn = journal::reader(dir).with_context(|| dir.display().to_string())?;
    if count == 0 {
        return Ok(Vec::new());
    }
    let closed = query::Filter { open: Some(false), ..query::Filter::default() };
    Ok(query::page(&conn, &closed, None, count)?.items.iter().map(|found| json!(line(found))).collect())
}

fn tell(out: &mut impl Write, line: &Value, as_json: bool) -> std::io::Result<()> {
    if as_json {
        return writeln!(out, "{line}");
    }
    let mut screen = Screen::new();
    let when = line["ts"].as_str().and_then(|ts| ts.parse().ok()).map_or_else(String::new, clock);
    let (style, outcome) = outcome(line);
    let outcome = screen.paint(style, &format!("{outcome:<17}"));
    let rest = format!("{:<22} {:<34} {}", text(line, "reason_code"), text(line, "target"), text(line, "id"));
    let said = format!("{when}  {outcome} {}", screen.paint(Style::Plain, &rest));
    screen.already_painted(&said);
    out.write_all(screen.text().as_bytes())
}

/// The stream of closed records, opened again where it ended, for ever.
async fn follow(out: &mut impl Write, asker: &Asker, newest: u64, as_json: bool) -> anyhow::Result<Exit> {
    let mut after = newest;
    let mut silent = false;
    loop {
        match asker.open("audit/stream", &[("after", after.to_string())]).await {
            Ok(response) => {
                silent = false;
                after = events(out, response, after, as_json).await?;
            }
            Err(failure @ (Failure::Denied { .. } | Failure::Refused { .. } | Failure::Foreign { .. })) => {
                return Ok(failure.tell(as_json));
            }
            Err(failure) => {
                if !silent {
                    eprintln!("remediator: {failure}; trying again every {} s", AGAIN.as_secs());
                }
                silent = true;
            }
        }
        SystemClock.sleep(AGAIN).await;
    }
}

/// Reads one stream to its end and answers the last event's id.
async fn events(out: &mut impl Write, mut response: reqwest::Response, mut after: u64, as_json: bool) -> anyhow::Result<u64> {
    let mut buffer: Vec<u8> = Vec::new();
    let mut id = after;
    // Broken, silent for too long, or over: in each case the next one goes on from here.
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(SILENCE, response.chunk()).await {
        buffer.extend_from_slice(&chunk);
        anyhow::ensure!(buffer.len() <= MAX_EVENT, "a line of the stream is longer than {MAX_EVENT} bytes");
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let taken: Vec<u8> = buffer.drain(..=end).collect();
            let taken = String::from_utf8_lossy(&taken);
            match taken.trim_end().split_once(": ").or(taken.trim_end().split_once(':')) {
                Some(("id", number)) => id = number.trim().parse().unwrap_or(after),
                Some(("data", text)) => {
                    let line: Value = serde_json::from_str(text).context("a line of the stream cannot be read")?;
                    tell(out, &line, as_json)?;
                    out.flush()?;
                    after = id;
                }
                _ => {}
            }
        }
    }
    Ok(after)
}
