//! The data file of a ledger, read as strictly as the configuration: each mistake with line, column and what to do.

use std::path::Path;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Deserialize;

use super::{Basis, ByHand, Figure, Figures, Ledger, Unit, WEEK};
use crate::config::ConfigError;
use crate::config::sheet::{At, Sheet};
use crate::edge::redact::plain_line;

/// Largest number taken: a thousand years of minutes would only hide a typing mistake.
const MOST: f64 = 1e6;

/// Most minutes that one event can take: a day.
const MOST_MINUTES: u32 = 24 * 60;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    toil: At<String>,
    service: At<String>,
    week: At<String>,
    live: At<String>,
    #[serde(default)]
    example: bool,
    #[serde(default)]
    currency: String,
    events: Vec<At<EventTyped>>,
    figures: FiguresTyped,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventTyped {
    at: At<String>,
    who: At<String>,
    replica: At<String>,
    what: At<String>,
    minutes: At<u32>,
    #[serde(default)]
    night: bool,
    #[serde(default)]
    false_alarm: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FiguresTyped {
    command_seconds: At<FigureTyped>,
    review_minutes_per_week: At<FigureTyped>,
    run_minutes_per_week: At<FigureTyped>,
    pages_per_week: At<FigureTyped>,
    page_minutes: At<FigureTyped>,
    build_hours: At<FigureTyped>,
    money_per_hour: Option<At<FigureTyped>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FigureTyped {
    value: Option<At<f64>>,
    samples: Option<At<Vec<At<f64>>>>,
    assumed: Option<At<String>>,
    measured: Option<At<String>>,
    on: Option<At<String>>,
}

/// Reads a data file.
///
/// # Errors
/// All that is wrong with it, in the order of the file; never empty.
pub fn read(path: &Path) -> Result<Ledger, Vec<ConfigError>> {
    let mut sheet = Sheet::read(path).map_err(|error| vec![error])?;
    let documents = sheet.documents::<Typed>();
    match documents.as_slice() {
        [] if sheet.errors.is_empty() => {
            sheet.wrong_file("is empty", "Write toil, service, week, live, events and figures; toil/inventory-week.yml is one");
        }
        [_, second, ..] => sheet.wrong(second.referenced, "a second document", "Write one week in one file"),
        _ => {}
    }
    let ledger = documents.into_iter().next().and_then(|typed| checked(&mut sheet, &typed.value));
    let (errors, _) = sheet.into_findings();
    match ledger {
        Some(ledger) if errors.is_empty() => Ok(ledger),
        _ => Err(errors),
    }
}

fn checked(sheet: &mut Sheet, typed: &Typed) -> Option<Ledger> {
    let week = date(sheet, &typed.week);
    let live = date(sheet, &typed.live);
    let mut events: Vec<ByHand> = typed.events.iter().filter_map(|event| by_hand(sheet, &event.value, week)).collect();
    events.sort_by_key(|event| event.at);
    let figures = figures(sheet, &typed.figures);
    let name = written(sheet, "toil", &typed.toil);
    let service = written(sheet, "service", &typed.service);
    Some(Ledger {
        name,
        service,
        week: week?,
        example: typed.example,
        events,
        figures: figures?,
        live: live?,
        currency: typed.currency.trim().to_owned(),
    })
}

fn by_hand(sheet: &mut Sheet, typed: &EventTyped, week: Option<Date>) -> Option<ByHand> {
    let at: Option<Timestamp> = typed.at.value.parse().ok();
    match (at, week.and_then(|week| week.to_zoned(jiff::tz::TimeZone::UTC).ok())) {
        (None, _) => sheet.wrong(
            typed.at.referenced,
            format!("`{}` is not a time", plain_line(&typed.at.value, 40)),
            "Write it with its offset, such as 2026-02-03T04:05:06Z or 2026-02-03T05:05:06+01:00",
        ),
        (Some(at), Some(start)) if !(0..WEEK).contains(&at.duration_since(start.timestamp()).as_secs()) => {
            sheet.wrong(
                typed.at.referenced,
                format!("{at} is not in the week that begins on {} (UTC)", start.date()),
                "Put it into the file of its own week, or correct `week`",
            );
        }
        _ => {}
    }
    let minutes = typed.minutes.value;
    if minutes == 0 || minutes > MOST_MINUTES {
        let help = format!("Write from 1 to {MOST_MINUTES}: from the page until the person was back at what it broke off");
        sheet.wrong(typed.minutes.referenced, format!("minutes is {minutes}"), help);
    }
    Some(ByHand {
        at: at?,
        who: written(sheet, "who", &typed.who),
        replica: written(sheet, "replica", &typed.replica),
        what: written(sheet, "what", &typed.what),
        minutes,
        night: typed.night,
        false_alarm: typed.false_alarm,
    })
}

fn figures(sheet: &mut Sheet, typed: &FiguresTyped) -> Option<Figures> {
    let commands = figure(sheet, "command_seconds", &typed.command_seconds, Unit::Seconds);
    let review = figure(sheet, "review_minutes_per_week", &typed.review_minutes_per_week, Unit::Minutes);
    let run = figure(sheet, "run_minutes_per_week", &typed.run_minutes_per_week, Unit::Minutes);
    let pages = figure(sheet, "pages_per_week", &typed.pages_per_week, Unit::Count);
    let page = figure(sheet, "page_minutes", &typed.page_minutes, Unit::Minutes);
    let build = figure(sheet, "build_hours", &typed.build_hours, Unit::Hours);
    let money = typed.money_per_hour.as_ref().and_then(|typed| figure(sheet, "money_per_hour", typed, Unit::Money));
    Some(Figures {
        commands: commands?,
        review: review?,
        run: run?,
        pages: pages?,
        page: page?,
        build: build?,
        money_per_hour: money,
    })
}

/// Exactly one number, or samples; and exactly one of `assumed` and `measured`, because a number without an origin is a rumour.
fn figure(sheet: &mut Sheet, name: &str, typed: &At<FigureTyped>, unit: Unit) -> Option<Figure> {
    let (at, typed) = (typed.referenced, &typed.value);
    let mut samples = match (&typed.value, &typed.samples) {
        (Some(value), None) => vec![number(sheet, name, value)],
        (None, Some(samples)) if !samples.value.is_empty() => {
            samples.value.iter().map(|sample| number(sheet, name, sample)).collect()
        }
        _ => {
            sheet.wrong(
                at,
                format!("{name} needs either `value` or `samples`"),
                "Write one number, or what was measured, at least once",
            );
            return None;
        }
    };
    samples.sort_by(f64::total_cmp);
    let value = median(&samples);
    let basis = match (&typed.assumed, &typed.measured) {
        (Some(why), None) => {
            if let Some(stray) = &typed.on {
                sheet.wrong(
                    stray.referenced,
                    format!("{name} is assumed, and has a date"),
                    "Remove `on`, or say how it was `measured`",
                );
            }
            Basis::Assumed { why: written(sheet, "assumed", why) }
        }
        (None, Some(how)) => {
            let on = sheet.required(at, &typed.on, &format!("{name}.on"), "Say when it was measured, such as on: 2026-02-03")?;
            Basis::Measured { how: written(sheet, "measured", how), on: date(sheet, on)?, samples }
        }
        _ => {
            let help = "Write assumed: with the reason, or measured: with the command or the source, and on: with the date";
            sheet.wrong(at, format!("{name} does not say where it comes from"), help);
            return None;
        }
    };
    Some(Figure { value, unit, basis })
}

/// Of ascending numbers; the mean of the two in the middle when they are even in number.
fn median(samples: &[f64]) -> f64 {
    let middle = samples.len() / 2;
    let at = |index: usize| samples.get(index).copied().unwrap_or_default();
    if samples.len().is_multiple_of(2) { f64::midpoint(at(middle.saturating_sub(1)), at(middle)) } else { at(middle) }
}

fn number(sheet: &mut Sheet, name: &str, at: &At<f64>) -> f64 {
    if !(0.0..=MOST).contains(&at.value) {
        sheet.wrong(at.referenced, format!("{name} is {}", at.value), format!("Write a number from 0 to {MOST}"));
    }
    at.value
}

fn date(sheet: &mut Sheet, text: &At<String>) -> Option<Date> {
    // Years of four digits leave room for every sum that is made with it.
    let parsed = text.value.parse().ok().filter(|date: &Date| (1970..=9000).contains(&date.year()) && text.value.len() == 10);
    if parsed.is_none() {
        sheet.wrong(text.referenced, format!("`{}` is not a date", plain_line(&text.value, 40)), "Write one such as 2026-02-03");
    }
    parsed
}

fn written(sheet: &mut Sheet, name: &str, text: &At<String>) -> String {
    if text.value.trim().is_empty() {
        sheet.wrong(text.referenced, format!("{name} is empty"), "Write something that a reader understands in a year");
    }
    text.value.trim().to_owned()
}
