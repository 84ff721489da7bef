//! What a person orders: pause, resume, abort.
//!
//! Promise: `remediator pause --reason x` stops it, with nothing else to know, on the machine where it runs; also while
//! no process runs. Then the pause is written straight into the journal, which takes the state directory for that
//! moment, and the next process starts paused. It is never written beside a process that has the directory: one that has
//! it and does not answer is said to be there, with its pid.
//!
//! Race accepted: a remediator that is started in the very moment of such a write finds its directory taken, and says so.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use crate::api::board::Board;
use crate::audit::journal::DATABASE;
use crate::audit::{Journal, JournalError};
use crate::cli::Exit;
use crate::cli::remote::{Asker, Failure, Need, Remote, whereabouts};
use crate::cli::terminal::{Screen, Style, clock, relative};
use crate::edge::clock::SystemClock;
use crate::edge::redact::plain_line;
use crate::event::{Draft, Event, Pause, PauseScope, RecordId};
use crate::period::Period;
use crate::target::{PlaybookName, Target};
use crate::world::Clock as _;

/// Longest name of an actor, as the order's own limit has it.
const MAX_ACTOR: usize = 100;
/// How long `abort` follows the run to its end, and how often it looks.
const FOLLOW: Duration = Duration::from_secs(30);
const FOLLOW_EVERY: Duration = Duration::from_millis(300);

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  remediator pause --reason 'release in progress'\n  remediator pause --reason 'mine' --target inventory/inventory-2:8080 --for 2h\n\nA pause is on disk, survives restarts, and is read again right before each drain and each restart. When no remediator\nruns, it is written into the journal, and the next one starts paused."
)]
pub struct PauseArgs {
    /// Why; it goes into the journal and into pages
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    scope: Scope,
    /// How long, such as 30m or 2h [default: until somebody resumes]
    #[arg(long, value_name = "DURATION")]
    r#for: Option<Period>,
    #[command(flatten)]
    who: Who,
    /// Do not ask a running remediator: write it into the journal of one that does not run
    #[arg(long)]
    offline: bool,
    /// The state directory to write it into [default: what the configuration file says]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  remediator resume --reason 'release done'\n\nWhat is watched is asked about again at once. Says which pauses are still in force."
)]
pub struct ResumeArgs {
    #[command(flatten)]
    scope: Scope,
    /// End every pause there is, whatever its scope
    #[arg(long, conflicts_with_all = ["playbook", "target"])]
    all: bool,
    /// Why; it goes into the journal
    #[arg(long, value_name = "TEXT", default_value = "no reason given")]
    reason: String,
    #[command(flatten)]
    who: Who,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  remediator abort inventory/inventory-2:8080 --reason 'wrong replica'\n\nBefore its restart a run is broken off, its server put back, and its record closed as interrupted, aborted. From the\nrestart on it is too late, and it goes on (exit code 1). An abort is for one run: to keep a target from being acted on,\npause it."
)]
pub struct AbortArgs {
    /// The run: a record's id, or a target as service/instance
    #[arg(value_name = "ID")]
    id: String,
    /// Why; it goes into the journal and into the page
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    who: Who,
}

/// Of what: everything, when nothing is named.
#[derive(Args, Debug)]
struct Scope {
    /// Only this playbook
    #[arg(long, value_name = "NAME", conflicts_with = "target")]
    playbook: Option<PlaybookName>,
    /// Only this target, as service/instance
    #[arg(long, value_name = "TARGET", value_parser = target)]
    target: Option<String>,
}

#[derive(Args, Debug)]
struct Who {
    /// Who orders it [default: you, at this host]
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    #[command(flatten)]
    remote: Remote,
    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

fn target(text: &str) -> Result<String, String> {
    let (service, instance) = text.split_once('/').ok_or("write it as service/instance")?;
    let service = service.parse().map_err(|error| format!("{error}"))?;
    let instance = instance.parse().map_err(|error| format!("{error}"))?;
    Ok(Target { service, instance }.to_string())
}

impl Scope {
    fn of(self) -> PauseScope {
        match (self.playbook, self.target) {
            (Some(name), _) => PauseScope::Playbook(name),
            (None, Some(target)) => PauseScope::Target(target),
            (None, None) => PauseScope::All,
        }
    }
}

/// The order's own fields for a scope.
fn body(scope: &PauseScope, actor: &str, reason: &str) -> Value {
    let mut body = json!({ "actor": actor, "reason": reason });
    match scope {
        PauseScope::All => {}
        PauseScope::Playbook(name) => body["playbook"] = json!(name),
        PauseScope::Target(name) => body["target"] = json!(name),
    }
    body
}

/// Who types this: the name given, or the user who logged in, before any sudo, at this host.
pub(super) fn actor(given: Option<String>) -> String {
    let name = given.unwrap_or_else(|| format!("{}@{}", user(), crate::edge::host::name()));
    plain_line(&name, MAX_ACTOR)
}

/// By name; by number where the environment has none, as in a container.
fn user() -> String {
    #[allow(clippy::disallowed_methods, reason = "who gives an order is what the environment of the terminal knows")]
    let named = ["SUDO_USER", "USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    let uid = || std::fs::metadata("/proc/self").map_or_else(|_| "somebody".to_owned(), |meta| format!("uid{}", meta.uid()));
    named.into_iter().find(|user| !user.is_empty()).unwrap_or_else(uid)
}

/// `remediator pause`
///
/// # Errors
/// It could not be asked, and could not be written down either.
pub async fn pause(args: PauseArgs) -> anyhow::Result<Exit> {
    let PauseArgs { reason, scope, r#for, who, offline, state_dir } = args;
    let (scope, actor) = (scope.of(), actor(who.actor));
    let asked = Asked { reason: &reason, scope, lasting: r#for, actor: &actor, json: who.json };
    if offline {
        return asked.write_down(&who.remote, state_dir, true).await;
    }
    let asker = who.remote.asker(Need::Order)?;
    let mut order = body(&asked.scope, &actor, &reason);
    if let Some(lasting) = asked.lasting {
        order["for"] = json!(lasting);
    }
    match asker.post("pause", &order).await {
        Ok(answer) => {
            let pause = serde_json::from_value(answer["paused"].clone()).context("the answer cannot be read")?;
            if who.json {
                println!("{answer}");
            } else {
                print!(
                    "{}",
                    paused(
                        &pause,
                        "it is on disk, and read again right before each drain and each restart",
                        board(&asker).await.as_ref()
                    )
                );
            }
            Ok(Exit::Fine)
        }
        // Nobody is there to be asked; whoever names an address does not mean this machine's files.
        Err(Failure::NotRunning { .. }) if !asker.named || state_dir.is_some() => {
            asked.write_down(&who.remote, state_dir, false).await
        }
        Err(failure) => Ok(failure.tell(who.json)),
    }
}

/// A pause as it was typed.
struct Asked<'a> {
    reason: &'a str,
    scope: PauseScope,
    lasting: Option<Period>,
    actor: &'a str,
    json: bool,
}

impl Asked<'_> {
    /// Into the journal of a remediator that does not run.
    async fn write_down(self, remote: &Remote, state_dir: Option<PathBuf>, offline: bool) -> anyhow::Result<Exit> {
        let reason = self.reason.trim();
        if reason.is_empty() || reason.chars().any(char::is_control) {
            eprintln!("remediator: reason: must be one line that says something; it goes into the journal");
            return Ok(Exit::No);
        }
        let found = match state_dir {
            Some(_) => None,
            None => whereabouts(remote.config.as_deref())?.state_dir,
        };
        let Some(dir) = state_dir.or(found) else {
            anyhow::bail!(
                "no remediator answers, and nobody says where its state is; name it with --state-dir DIR, or the address with --url URL"
            );
        };
        // One that does not exist would be made as the wrong user's, and would pause nobody.
        if !dir.join(DATABASE).is_file() {
            anyhow::bail!(
                "no remediator answers, and there is no journal in {} to write the pause into; name its --state-dir or its --url, or set start_paused: true in remediator.yml",
                dir.display()
            );
        }
        let journal = Journal::open(&dir).map_err(|error| taken(error, &dir, offline))?;
        let now = SystemClock.now();
        let until = self.lasting.and_then(|lasting| now.checked_add(lasting.signed()).ok());
        let pause = Pause { scope: self.scope, actor: self.actor.to_owned(), reason: reason.to_owned(), until };
        journal
            .append(Draft::global(now, Event::Paused { pause: pause.clone() }))
            .await
            .context("the pause could not be written")?;
        journal.close().await;
        if self.json {
            println!("{}", json!({ "paused": pause, "offline": true }));
        } else {
            let how = format!("no remediator is running, so this is written into {}: the next one starts paused", dir.display());
            print!("{}", paused(&pause, &how, None));
        }
        Ok(Exit::Fine)
    }
}

fn taken(error: JournalError, dir: &Path, offline: bool) -> anyhow::Error {
    let help = match &error {
        JournalError::Locked { .. } if offline => "it runs: leave --offline out, and it is asked".to_owned(),
        JournalError::Locked { pid, .. } => {
            let stop = pid.map_or_else(|| "stop it".to_owned(), |pid| format!("kill -TERM {pid} stops it at a safe point"));
            format!("it runs, but does not answer where it was looked for; name its address with --url URL, or {stop}")
        }
        _ => format!("the pause could not be written into {}; run this as root or as remediator's user", dir.display()),
    };
    anyhow::Error::new(error).context(help)
}

/// What a person wants to know after a pause: that it holds, what is under way all the same, and how to end it.
fn paused(pause: &Pause, how: &str, board: Option<&Board>) -> String {
    let mut screen = Screen::new();
    let until = match (pause.until, board) {
        (None, _) => "until somebody resumes".to_owned(),
        (Some(until), Some(board)) => format!("until {} ({})", clock(until), relative(until, board.at)),
        (Some(until), None) => format!("until {}", clock(until)),
    };
    screen.line(Style::Wait, &format!("paused: {}, {until}, by {}: {}", pause.scope, pause.actor, pause.reason));
    screen.line(Style::Plain, how);
    for open in board.iter().flat_map(|board| &board.open) {
        let at = open.step.map_or_else(|| crate::words::phase(open.phase), crate::event::Step::word);
        let target = open.target.as_deref().unwrap_or("no target");
        screen.line(
            Style::Plain,
            &format!("under way: {target} is at {at}; to break it off at once: remediator abort {} --reason ...", open.id),
        );
    }
    let scope = match &pause.scope {
        PauseScope::All => String::new(),
        PauseScope::Playbook(name) => format!(" --playbook {name}"),
        PauseScope::Target(name) => format!(" --target {name}"),
    };
    screen.line(Style::Dim, &format!("end it with: remediator resume{scope}"));
    screen.text()
}

/// `remediator resume`
///
/// # Errors
/// It could not be asked.
pub async fn resume(args: ResumeArgs) -> anyhow::Result<Exit> {
    let ResumeArgs { scope, all, reason, who } = args;
    let asker = who.remote.asker(Need::Order)?;
    let actor = actor(who.actor);
    let scopes = if all {
        match in_force(&asker).await {
            Ok(pauses) => pauses,
            Err(failure) => return Ok(failure.tell(who.json)),
        }
    } else {
        vec![scope.of()]
    };
    let mut done = Vec::new();
    for scope in &scopes {
        match asker.post("resume", &body(scope, &actor, &reason)).await {
            Ok(answer) => done.push(answer),
            Err(failure) => {
                let exit = failure.tell(who.json);
                still_paused(&asker, who.json).await;
                return Ok(exit);
            }
        }
        if !who.json {
            println!("resumed: {scope}");
        }
    }
    match (who.json, all) {
        (true, true) => println!("{}", json!(done)),
        (true, false) => done.iter().for_each(|answer| println!("{answer}")),
        (false, true) if scopes.is_empty() => println!("nothing is paused"),
        (false, _) => still_paused(&asker, false).await,
    }
    Ok(Exit::Fine)
}

async fn in_force(asker: &Asker) -> Result<Vec<PauseScope>, Failure> {
    let answer = asker.get("guards", &[]).await?;
    let mut scopes: Vec<PauseScope> = serde_json::from_value(answer["pauses"].clone())
        .map(|pauses: Vec<Pause>| pauses.into_iter().map(|pause| pause.scope).collect())
        .unwrap_or_default();
    scopes.sort();
    scopes.dedup();
    Ok(scopes)
}

/// Nobody shall believe that something runs again while another pause holds.
async fn still_paused(asker: &Asker, json: bool) {
    let Some(board) = board(asker).await.filter(|_| !json) else { return };
    let mut screen = Screen::new();
    for pause in &board.pauses {
        screen.line(Style::Wait, &format!("still in force: {}", crate::words::paused(pause)));
    }
    if !board.pauses.is_empty() {
        screen.line(Style::Dim, "end one with --playbook NAME or --target SERVICE/INSTANCE, all of them with --all");
    }
    print!("{}", screen.text());
}

/// What is true now, when that can be had: never a reason to fail.
async fn board(asker: &Asker) -> Option<Board> {
    serde_json::from_value(asker.get("guards", &[]).await.ok()?).ok()
}

/// `remediator abort`
///
/// # Errors
/// It could not be asked.
pub async fn abort(args: AbortArgs) -> anyhow::Result<Exit> {
    let AbortArgs { id, reason, who } = args;
    let asker = who.remote.asker(Need::Order)?;
    let id = match named_run(&asker, &id).await {
        Ok(id) => id,
        Err(failure) => return Ok(failure.tell(who.json)),
    };
    let order = json!({ "id": id, "reason": reason, "actor": actor(who.actor) });
    let answer = match asker.post("abort", &order).await {
        Ok(answer) => answer,
        Err(failure) => return Ok(failure.tell(who.json)),
    };
    if who.json {
        println!("{answer}");
        return Ok(Exit::Fine);
    }
    let mut screen = Screen::new();
    let said = answer["aborted"]["detail"].as_str().unwrap_or_default();
    screen.line(Style::Wait, &format!("abort ordered for record {id}: {said}"));
    print!("{}", screen.text());
    print!("{}", followed(&asker, &id).await);
    Ok(Exit::Fine)
}

/// The record's id, or that of the one run that is open on a target.
async fn named_run(asker: &Asker, named: &str) -> Result<String, Failure> {
    if named.parse::<RecordId>().is_ok() {
        return Ok(named.to_owned());
    }
    let board = asker.get("guards", &[]).await?;
    let open = board["open"].as_array().into_iter().flatten();
    let found = open.filter(|open| open["target"] == named).find_map(|open| open["id"].as_str());
    found.map(str::to_owned).ok_or_else(|| {
        let detail = format!(
            "nothing is under way on `{}`; remediator status lists what is. To keep a target from being acted on, pause it",
            plain_line(named, 200)
        );
        Failure::Refused { document: json!({ "code": "not_found", "detail": detail }), detail }
    })
}

/// Looks until the record is closed, so that nobody has to ask whether a server is left drained.
async fn followed(asker: &Asker, id: &str) -> String {
    let path = format!("audit/{id}");
    let mut screen = Screen::new();
    let looking = async {
        loop {
            if let Ok(story) = asker.get(&path, &[]).await
                && let Some(outcome) = story["record"]["outcome"].as_str()
            {
                let reason = story["record"]["reason"].as_str().unwrap_or_default();
                return format!("closed as {outcome}, {reason}; the whole story: remediator audit show {id}");
            }
            SystemClock.sleep(FOLLOW_EVERY).await;
        }
    };
    match tokio::time::timeout(FOLLOW, looking).await {
        Ok(said) => screen.line(Style::Good, &said),
        Err(_) => screen.line(Style::Wait, &format!("not closed after {}s; look with: remediator status", FOLLOW.as_secs())),
    }
    screen.text()
}
