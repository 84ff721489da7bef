//! Ledgers and reports as Markdown, for people and for toil-ledger.md. Pure.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::tally::{Tally, because};
use super::{Basis, Figure, Ledger, Payback, Unit, Week, payback};
use crate::edge::redact::plain_line;
use crate::words::roughly;

/// A log, and what it is worth by a ledger's figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub from: Timestamp,
    pub to: Timestamp,
    pub tally: Tally,
    /// None without a ledger: counts alone have no minutes.
    pub worth: Option<Worth>,
}

/// In seconds over the whole time of the log; what is lost is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Worth {
    /// What one is worth; 0 when the ledger has none to learn it from.
    pub restart: i64,
    pub false_alarm: i64,
    pub restarts: i64,
    pub false_alarms: i64,
    pub harm: i64,
    pub review: i64,
    pub run: i64,
    pub saved: i64,
    pub payback: Payback,
}

impl Report {
    /// What the log says about the time from `from` to `to`.
    pub fn new(tally: Tally, from: Timestamp, to: Timestamp, ledger: Option<&Ledger>) -> Report {
        let worth = ledger.map(|ledger| worth(&tally, to.duration_since(from).as_secs().max(0), ledger));
        Report { from, to, tally, worth }
    }
}

fn worth(tally: &Tally, span: i64, ledger: &Ledger) -> Worth {
    let figures = &ledger.figures;
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let weekly = |figure: &Figure| -(figure.seconds().saturating_mul(span) / super::WEEK);
    let (restart, false_alarm) = (ledger.restart().unwrap_or(0), ledger.false_alarm().unwrap_or(0));
    let restarts = restart.saturating_mul(count(tally.recovered));
    let false_alarms = false_alarm.saturating_mul(count(tally.false_alarms));
    let harm = -figures.page.seconds().saturating_mul(count(tally.harm));
    let (review, run) = (weekly(&figures.review), weekly(&figures.run));
    let saved = [restarts, false_alarms, harm, review, run].into_iter().fold(0_i64, i64::saturating_add);
    let live = tally.first_live.map_or(ledger.live, |at| at.to_zoned(jiff::tz::TimeZone::UTC).date());
    let payback = payback(saved, span, figures.build.seconds(), live);
    Worth { restart, false_alarm, restarts, false_alarms, harm, review, run, saved, payback }
}

/// The whole of a ledger.
pub fn ledger(ledger: &Ledger) -> String {
    let mut out = String::new();
    if ledger.example {
        out.push_str(
            "**An example.** The events are made up around the lab's shop; only what is labelled `measured` was measured.\n\n",
        );
    }
    by_hand(&mut out, ledger);
    let figures = &ledger.figures;
    let Week { by_hand, with } = ledger.week();
    out.push_str("\n## What is left with remediator\n\n| per week | minutes |\n|---|---:|\n");
    let _ = writeln!(out, "| reading the audit log | {} |", minutes(figures.review.seconds()));
    let _ =
        writeln!(out, "| keeping remediator itself: upgrades, its alerts, its playbooks | {} |", minutes(figures.run.seconds()));
    let pages = figures.pages.times(&figures.page);
    let _ = writeln!(
        out,
        "| pages that it cannot settle: {} of {} minutes | {} |",
        plain(figures.pages.value),
        minutes(figures.page.seconds()),
        minutes(pages)
    );
    let _ = writeln!(out, "| **total** | **{}** |", minutes(with));

    out.push_str("\n## Payback\n\n| | minutes |\n|---|---:|\n");
    let _ = writeln!(out, "| by hand, per week | {} |", minutes(by_hand));
    let _ = writeln!(out, "| with remediator, per week | {} |", minutes(with));
    let _ = writeln!(out, "| **saved, per week** | **{}** |", minutes(by_hand - with));
    let _ = writeln!(out, "| built in, once | {} |", minutes(figures.build.seconds()));
    out.push('\n');
    out.push_str(&break_even("Break-even", ledger.payback()));
    if let Some(money) = &figures.money_per_hour {
        let saved = money.value * (by_hand - with) as f64 / 3600.0;
        let _ = write!(
            out,
            " An hour is taken to cost {} {}: {saved:.0} {} a week.",
            plain(money.value),
            cell(&ledger.currency),
            cell(&ledger.currency)
        );
    }
    out.push('\n');
    origins(&mut out, ledger);
    out
}

fn by_hand(out: &mut String, ledger: &Ledger) {
    let _ = writeln!(out, "## A week of restarts by hand\n\n`{}`, the week from {} (UTC).\n", ledger.service, ledger.week);
    out.push_str("| # | when (UTC) | who | replica | what | minutes |\n|---:|---|---|---|---|---:|\n");
    for (at, event) in ledger.events.iter().enumerate() {
        let when = event.at.strftime("%a %H:%M");
        let mut what = cell(&event.what);
        if event.false_alarm {
            what.push_str(" (false alarm)");
        }
        let night = if event.night { ", at night" } else { "" };
        let (who, replica) = (cell(&event.who), cell(&event.replica));
        let _ = writeln!(out, "| {} | {when}{night} | {who} | {replica} | {what} | {} |", at + 1, event.minutes);
    }
    let _ = writeln!(out, "| | | | | **total** | **{}** |", minutes(ledger.by_hand()));
    let (nights, false_alarms) = (
        ledger.events.iter().filter(|event| event.night).count(),
        ledger.events.iter().filter(|event| event.false_alarm).count(),
    );
    let each =
        ledger.restart().map_or_else(|| "no restart".to_owned(), |each| format!("{} minutes for each restart", minutes(each)));
    let _ = writeln!(
        out,
        "\nEvents: {}, at night: {nights}, false alarms: {false_alarms}; {each}. The three commands themselves take {} s of that ({}).",
        ledger.events.len(),
        plain(ledger.figures.commands.value),
        basis_word(&ledger.figures.commands.basis, ledger.example),
    );
}

fn origins(out: &mut String, ledger: &Ledger) {
    let figures = &ledger.figures;
    out.push_str("\n## Where the numbers come from\n\n| number | value | basis | how, or why |\n|---|---:|---|---|\n");
    let events = if ledger.example { "assumed (the lab's example)" } else { "written down" };
    let _ = writeln!(out, "| the events by hand | {} min | {events} | the table above |", minutes(ledger.by_hand()));
    let rows = [
        ("the three commands", Some(&figures.commands)),
        ("reading the audit log, per week", Some(&figures.review)),
        ("keeping remediator, per week", Some(&figures.run)),
        ("pages that are left, per week", Some(&figures.pages)),
        ("one page that is left", Some(&figures.page)),
        ("building it in", Some(&figures.build)),
        ("an hour of a person", figures.money_per_hour.as_ref()),
    ];
    for (what, figure) in rows {
        let Some(figure) = figure else { continue };
        let unit = match figure.unit {
            Unit::Seconds => "s",
            Unit::Minutes => "min",
            Unit::Hours => "h",
            Unit::Count => "",
            Unit::Money => &ledger.currency,
        };
        let how = match &figure.basis {
            Basis::Assumed { why } => cell(why),
            Basis::Measured { how, on, samples } => {
                let spread = match samples.as_slice() {
                    [least, .., most] => format!("; median of {}, {} to {}", samples.len(), plain(*least), plain(*most)),
                    _ => String::new(),
                };
                format!("{}, on {on}{spread}", cell(how))
            }
        };
        let value = format!("{} {}", plain(figure.value), cell(unit));
        let _ = writeln!(out, "| {what} | {} | {} | {how} |", value.trim_end(), basis_word(&figure.basis, ledger.example));
    }
}

fn basis_word(basis: &Basis, example: bool) -> &'static str {
    match (basis, example) {
        (Basis::Measured { .. }, _) => "measured",
        (Basis::Assumed { .. }, true) => "assumed (the lab's example)",
        (Basis::Assumed { .. }, false) => "assumed",
    }
}

/// `what` says by which rate.
fn break_even(what: &str, payback: Payback) -> String {
    match payback {
        Payback::After { days: 0, on } => format!("**{what}: {on}**, at once: nothing was spent."),
        Payback::After { days, on } => format!("**{what}: {on}**, on day {days} of saving."),
        Payback::Never => format!("**{what}: never at this rate.** It costs as much as it saves, or more."),
        Payback::TooEarly => format!("**{what}: too early to say.** The log covers less than a week."),
    }
}

/// What a log says, and what that is worth.
pub fn report(report: &Report) -> String {
    let Report { from, to, tally, worth } = report;
    let mut out = String::new();
    let weeks = to.duration_since(*from).as_secs_f64() / super::WEEK as f64;
    let _ = writeln!(
        out,
        "## What the audit log says\n\n{} closed records from {} to {} ({weeks:.1} weeks).",
        tally.records,
        shown(*from),
        shown(*to)
    );
    if tally.open + tally.repeated > 0 {
        let _ = writeln!(
            out,
            "Not counted: {} still open, {} lines of records that were counted already.",
            tally.open, tally.repeated
        );
    }
    let value = |pick: fn(&Worth) -> i64| worth.as_ref().map_or_else(String::new, |worth| minutes(pick(worth)));
    let each = |pick: fn(&Worth) -> i64| {
        worth.as_ref().map_or_else(String::new, |worth| format!(" ({} minutes each)", minutes(pick(worth))))
    };
    out.push_str("\n| | count | minutes |\n|---|---:|---:|\n");
    let _ = writeln!(
        out,
        "| restarts that nobody did by hand{} | {} | {} |",
        each(|w| w.restart),
        tally.recovered,
        value(|w| w.restarts)
    );
    let _ = writeln!(
        out,
        "| false alarms that woke nobody{} | {} | {} |",
        each(|w| w.false_alarm),
        tally.false_alarms,
        value(|w| w.false_alarms)
    );
    let _ = writeln!(out, "| handed to a person, as ever | {} | {} |", tally.handed_over, if worth.is_some() { "0" } else { "" });
    let _ = writeln!(out, "| harm: touched, and no cure | {} | {} |", tally.harm, value(|w| w.harm));
    let _ = writeln!(
        out,
        "| cleared after somebody had been paged | {} | {} |",
        tally.cleared_after_a_page,
        if worth.is_some() { "0" } else { "" }
    );
    let _ = writeln!(out, "| rehearsed in shadow: would have restarted | {} | |", tally.would_have_restarted);
    let _ = writeln!(out, "| rehearsed in shadow: anything else | {} | |", tally.rehearsed_else);
    if let Some(worth) = worth {
        let _ = writeln!(out, "| reading the audit log | | {} |", minutes(worth.review));
        let _ = writeln!(out, "| keeping remediator | | {} |", minutes(worth.run));
        let _ = writeln!(out, "| **saved** | | **{}** |", minutes(worth.saved));
    }
    if let Some(ms) = tally.median_ms {
        let took = roughly(SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX)));
        let _ = writeln!(
            out,
            "\nFrom the alert to the proof that it helped: half of those that recovered took no longer than {took}."
        );
    }
    if tally.did_not_last > 0 {
        let _ =
            writeln!(out, "\n{} of the harm recovered first and did not last: the restart is no cure there.", tally.did_not_last);
    }
    by_reason(&mut out, "Handed to a person, by reason", &tally.handed_over_by, true);
    by_reason(&mut out, "Harm, by reason", &tally.harm_by, false);
    match worth {
        Some(_) if tally.first_live.is_none() => out.push_str("\nNothing ran live, so nothing is saved yet.\n"),
        Some(worth) => {
            let _ = writeln!(out, "\n{}", break_even("Break-even at the log's rate", worth.payback));
        }
        None => out.push_str("\nGive a ledger (`remediator toil LEDGER.yml --audit FILE`) to turn the counts into minutes and a break-even date.\n"),
    }
    out
}

fn by_reason(out: &mut String, title: &str, counts: &std::collections::BTreeMap<crate::reason::Reason, u64>, why: bool) {
    if counts.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{title}:\n\n| reason | count | |\n|---|---:|---|");
    let mut rows: Vec<_> = counts.iter().collect();
    rows.sort_by_key(|(reason, count)| (std::cmp::Reverse(**count), **reason));
    for (reason, count) in rows {
        let words = if why { because(*reason).words() } else { reason.meaning() };
        let _ = writeln!(out, "| `{reason}` | {count} | {words} |");
    }
}

fn shown(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%MZ").to_string()
}

/// Seconds as minutes, with one decimal where that is not a whole number.
fn minutes(seconds: i64) -> String {
    if seconds % 60 == 0 { (seconds / 60).to_string() } else { format!("{:.1}", seconds as f64 / 60.0) }
}

/// A number without a tail of zeros.
fn plain(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// As one cell of a Markdown table: one line, no bar, no mark-up that would be HTML.
fn cell(text: &str) -> String {
    plain_line(text, 300).replace('|', "\\|").replace('<', "&lt;")
}
