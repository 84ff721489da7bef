//! `remediator status`: one screen that says what it is doing, what it would do, what keeps it, and when it looks again.
//!
//! Everything relative is counted from the remediator's own clock, not from this machine's.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::api::board::Board;
use crate::api::desk::Probe;
use crate::cli::Exit;
use crate::cli::remote::{Need, Remote};
use crate::cli::terminal::{Screen, Style, clock, relative, span};
use crate::decide::playbook::Mode;
use crate::event::Step;
use crate::guard::view::PlaybookNow;
use crate::words;

#[derive(clap::Args, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    remote: Remote,
    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

/// What was asked, as it is shown.
struct Seen {
    url: String,
    ready: bool,
    probes: Vec<Probe>,
    board: Board,
}

/// Asks and shows.
///
/// # Errors
/// It could not be asked.
pub async fn status(args: StatusArgs) -> anyhow::Result<Exit> {
    let asker = args.remote.asker(Need::Read)?;
    let answers = tokio::try_join!(asker.get("guards", &[]), asker.get("readyz", &[]));
    let (guards, readiness) = match answers {
        Ok(answers) => answers,
        Err(failure) => return Ok(failure.tell(args.json)),
    };
    let board: Board = serde_json::from_value(guards.clone()).context("its answer cannot be read; is it of another version?")?;
    let probes = serde_json::from_value(readiness["probes"].clone()).unwrap_or_default();
    let seen = Seen { url: asker.shown(), ready: readiness["ready"] == true, probes, board };
    let acts = seen.ready && seen.board.paused().next().is_none();
    if args.json {
        println!("{}", document(&seen, guards));
    } else {
        let mut screen = Screen::new();
        show(&mut screen, &seen);
        print!("{}", screen.text());
    }
    Ok(if acts { Exit::Fine } else { Exit::No })
}

fn document(seen: &Seen, mut guards: Value) -> Value {
    guards["url"] = json!(seen.url);
    guards["ready"] = json!(seen.ready);
    guards["probes"] = json!(seen.probes);
    guards
}

fn show(screen: &mut Screen, seen: &Seen) {
    headline(screen, seen);
    under_way(screen, &seen.board);
    waiting(screen, &seen.board);
    for playbook in &seen.board.playbooks {
        rails(screen, &seen.board, playbook);
    }
    screen.blank();
    let head = &seen.board.head;
    screen.fact("journal", Style::Dim, &format!("entry {} {}", head.seq, head.hash));
}

fn headline(screen: &mut Screen, Seen { url, ready, probes, board }: &Seen) {
    let (style, word) = match (board.paused().next().is_some(), ready) {
        (true, _) => (Style::Wait, "PAUSED"),
        (false, false) => (Style::Bad, "NOT READY"),
        (false, true) => (Style::Good, "ready"),
    };
    screen.line(Style::Bold, &format!("{} on {} at {url}", board.healer, board.host));
    screen.fact("state", style, word);
    for (at, pause) in board.pauses.iter().enumerate() {
        let until = pause
            .until
            .map_or_else(|| "until somebody resumes".to_owned(), |until| format!("ends {}", relative(until, board.at)));
        let said = format!("{} by {}, {until}: {}", pause.scope, pause.actor, pause.reason);
        screen.fact(if at == 0 { "paused" } else { "" }, Style::Wait, &said);
    }
    let allowed = board.remediations_allowed;
    screen.fact("would allow", Style::Plain, &format!("{allowed} remediation{} now", if allowed == 1 { "" } else { "s" }));
    let (good, bad): (Vec<&Probe>, Vec<&Probe>) = probes.iter().partition(|probe| probe.ok);
    let names: Vec<&str> = good.iter().map(|probe| probe.name.as_str()).collect();
    screen.fact("answers", Style::Plain, &if names.is_empty() { "nothing".to_owned() } else { names.join(", ") });
    for probe in bad {
        screen.fact("missing", Style::Bad, &format!("{}: {}", probe.name, probe.detail));
    }
}

fn under_way(screen: &mut Screen, board: &Board) {
    screen.title("Under way");
    let row = |open: &crate::api::board::OpenNow| {
        let at = open.step.map_or_else(|| words::phase(open.phase), Step::word);
        let at = if open.step.is_some() && !open.running { format!("after {at}") } else { at.to_owned() };
        let at = if open.abort.is_some() { format!("{at}, aborted") } else { at };
        let since = span(board.at.duration_since(open.since));
        vec![
            (Style::Plain, open.target.clone().unwrap_or_else(|| "no target".to_owned())),
            (Style::Wait, at),
            (Style::Plain, format!("for {since}")),
            (Style::Plain, format!("{}, {}", open.alertname, open.mode.word())),
            (Style::Dim, open.id.to_string()),
        ]
    };
    if board.open.is_empty() {
        screen.line(Style::Dim, " nothing");
    } else {
        screen.table(&["TARGET", "AT", "SINCE", "ALERT", "RECORD"], board.open.iter().map(row).collect());
    }
    for (server, drained) in &board.drained {
        let since = relative(drained.since, board.at);
        screen.line(Style::Wait, &format!(" drained in our name: {server}, {since}, by record {}", drained.record));
    }
}

fn waiting(screen: &mut Screen, board: &Board) {
    let (settled, unsettled): (Vec<_>, Vec<_>) = board.watches.iter().partition(|watch| watch.outcome.is_settled());
    screen.title("Waiting");
    let row = |watch: &&crate::api::board::WatchNow| {
        let next = watch.next_look.map_or_else(|| "now".to_owned(), |at| relative(at, board.at));
        vec![
            (Style::Plain, watch.target.clone().unwrap_or_else(|| watch.alertname.clone())),
            (Style::Bad, format!("{}, {}", watch.outcome, watch.reason)),
            (Style::Plain, relative(watch.since, board.at)),
            (Style::Plain, next),
            (Style::Dim, watch.detail.clone()),
        ]
    };
    if unsettled.is_empty() {
        screen.line(Style::Dim, " nothing");
    } else {
        screen.table(&["TARGET", "WHY", "SINCE", "LOOKS AGAIN", "DETAIL"], unsettled.iter().map(row).collect());
    }
    if !settled.is_empty() {
        let names: Vec<String> = settled
            .iter()
            .map(|watch| format!("{} ({})", watch.target.as_deref().unwrap_or(&watch.alertname), watch.outcome))
            .collect();
        screen.line(Style::Dim, &format!(" on trial, in case it comes back: {}", names.join(", ")));
    }
}

fn rails(screen: &mut Screen, board: &Board, playbook: &PlaybookNow) {
    let every = playbook.every.map_or_else(String::new, |every| format!(", looks by itself every {every}"));
    let paused = if playbook.paused { ", paused" } else { "" };
    screen.title(&format!("Playbook {} ({}{every}{paused})", playbook.playbook, playbook.mode.word()));
    let shadow = if playbook.mode == Mode::Shadow { ", and would only say so" } else { "" };
    screen.fact("would allow", Style::Plain, &format!("{}{shadow}", playbook.remediations_allowed));
    let most = playbook.blast_radius.max_in_flight;
    let names = if playbook.in_flight.is_empty() { String::new() } else { format!(": {}", playbook.in_flight.join(", ")) };
    screen.fact("in flight", Style::Plain, &format!("{} of at most {most}{names}", playbook.in_flight.len()));
    let tokens: Vec<String> = playbook
        .rate
        .iter()
        .map(|bucket| format!("{} {} of {}", bucket.scope, words::number(bucket.tokens), bucket.burst))
        .collect();
    let short = playbook.rate.iter().any(|bucket| bucket.tokens < 1.0);
    screen.fact(
        "tokens",
        if short { Style::Wait } else { Style::Plain },
        &format!("{}; one is needed of each", tokens.join(", ")),
    );
    for (at, budget) in playbook.budget.iter().enumerate() {
        let mut said = format!("{} of {} in {}, {} left", budget.spent, budget.most, budget.per, budget.left);
        if let Some(frees) = budget.frees_at {
            let _ = write!(said, ", the next {}", relative(frees, board.at));
        }
        screen.fact(if at == 0 { "budget" } else { "" }, if budget.left == 0 { Style::Bad } else { Style::Plain }, &said);
    }
    let breaker = &playbook.breaker;
    let mut said =
        format!("{}: {}, {} of {} in a row did not help", breaker.name, breaker.state, breaker.failures, breaker.opens_at);
    if let Some(at) = breaker.probe_at {
        let _ = write!(said, "; one probe {} ({})", relative(at, board.at), clock(at));
    }
    if let Some(record) = breaker.probe {
        let _ = write!(said, "; the probe is record {record}");
    }
    screen.fact("breaker", if breaker.state == "closed" { Style::Good } else { Style::Bad }, &said);
    for (at, cooling) in playbook.cooling.iter().enumerate() {
        screen.fact(
            if at == 0 { "cooldown" } else { "" },
            Style::Wait,
            &format!("{} ends {}", cooling.target, relative(cooling.until, board.at)),
        );
    }
    let radius = &playbook.blast_radius;
    let said = format!("others serving at least {}, sick at most {}", radius.min_healthy, radius.max_unhealthy);
    screen.fact("blast radius", Style::Plain, &said);
}
