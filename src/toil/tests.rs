//! The arithmetic, the data file's refusals, and what each record counts as.

use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::ledger::read;
use super::table::{self, Report};
use super::tally::{Because, Class, Line, because, class, tally};
use super::*;
use crate::period::Period;
use crate::reason::{Outcome, Reason};

const HOUR: Period = Period::from_secs(3600);

const WEEKLY: &str = "toil: t
service: s
week: 2026-03-23
live: 2026-04-06
events:
  - { at: 2026-03-23T00:00:00Z, who: on-call, replica: a, minutes: 40, what: x }
  - { at: 2026-03-29T23:59:59Z, who: on-call, replica: b, minutes: 20, what: y, night: true }
  - { at: 2026-03-25T10:00:00Z, who: on-call, replica: b, minutes: 10, what: z, false_alarm: true }
figures:
  command_seconds: { samples: [4, 2, 3, 9], measured: lab/by-hand, on: 2026-03-20 }
  review_minutes_per_week: { value: 10, assumed: because }
  run_minutes_per_week: { value: 2.5, assumed: because }
  pages_per_week: { value: 0.5, assumed: because }
  page_minutes: { value: 25, assumed: because }
  build_hours: { value: 1.5, assumed: because }
";

fn parsed(text: &str) -> Result<Ledger, Vec<String>> {
    let file = tempfile::Builder::new().suffix(".yml").tempfile().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    let name = format!("{}:", file.path().display());
    read(file.path()).map_err(|errors| errors.iter().map(|error| error.to_string().replace(&name, "")).collect())
}

fn weekly() -> Ledger {
    parsed(WEEKLY).expect("good")
}

fn date(text: &str) -> Date {
    text.parse().expect("a date")
}

// --- arithmetic ---------------------------------------------------------------------------------------------------

#[test]
fn a_week_adds_up() {
    let ledger = weekly();
    assert_eq!(ledger.events.iter().map(|event| event.replica.as_str()).collect::<String>(), "abb", "in the order of time");
    assert_eq!(ledger.by_hand(), 70 * 60);
    assert_eq!((ledger.restart(), ledger.false_alarm()), (Some(30 * 60), Some(10 * 60)));
    assert_eq!(ledger.figures.commands.value, 3.5, "the median of four");
    // 10 + 2.5 + 0.5 pages of 25 minutes.
    assert_eq!(ledger.week(), Week { by_hand: 4200, with: 1500 });
    // 1.5 h at 45 minutes a week: two weeks to the day, the first of which is `live`.
    assert_eq!(ledger.payback(), Payback::After { days: 14, on: date("2026-04-19") });
}

#[test]
fn an_empty_week_and_one_of_false_alarms_only_are_weeks() {
    let events = WEEKLY.split_once("events:").expect("events").1.split_once("figures:").expect("figures").0;
    let empty = parsed(&WEEKLY.replace(events, " []\n")).expect("a quiet week is no mistake");
    assert_eq!((empty.by_hand(), empty.restart(), empty.false_alarm()), (0, None, None));
    assert_eq!(empty.payback(), Payback::Never);
    assert!(table::ledger(&empty).contains("never at this rate"));

    let alarms = parsed(&WEEKLY.replace("what: x", "what: x, false_alarm: true").replace("night: true", "false_alarm: true"))
        .expect("good");
    assert_eq!((alarms.restart(), alarms.false_alarm()), (None, Some(70 * 60 / 3)));
    // Without one restart by hand to learn from, a restart is worth nothing.
    let log = tally([line(1, 0, Outcome::Recovered, "a")], HOUR);
    let week = ("2026-04-06T00:00:00Z".parse().expect("a time"), "2026-04-13T00:00:00Z".parse().expect("a time"));
    let worth = Report::new(log, week.0, week.1, Some(&alarms)).worth.expect("by a ledger");
    assert_eq!((worth.restarts, worth.saved), (0, -(750)));
    assert_eq!(worth.payback, Payback::Never);
}

#[test]
fn times_with_offsets_are_reckoned_in_utc_across_the_change_of_clocks() {
    // In Berlin the clocks go forward on 2026-03-29 at 02:00: that local Sunday has 23 hours, the ledger's has 24.
    let local = |time: &str| parsed(&WEEKLY.replace("2026-03-29T23:59:59Z", time));
    for inside in
        ["2026-03-29T01:59:59+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T01:59:59+02:00", "2026-03-23T01:00:00+01:00"]
    {
        let ledger = local(inside).unwrap_or_else(|errors| panic!("{inside}: {errors:?}"));
        assert!(ledger.events.iter().any(|event| event.at == inside.parse().expect("a time")));
    }
    for outside in ["2026-03-30T02:00:00+02:00", "2026-03-23T00:59:59+01:00"] {
        assert!(local(outside).expect_err(outside)[0].contains("is not in the week that begins on 2026-03-23 (UTC)"));
    }
    let shown = table::ledger(&local("2026-03-29T03:00:00+02:00").expect("good"));
    assert!(shown.contains("| Sun 01:00, at night |"), "{shown}");
}

#[test]
fn never_is_said_and_so_is_too_early() {
    let from = date("2026-01-01");
    for (saved, span, build, want) in [
        (0, WEEK, 1, Payback::Never),
        (-1, WEEK, 0, Payback::Never),
        (0, WEEK, 0, Payback::After { days: 0, on: from }),
        (1, WEEK, 0, Payback::After { days: 0, on: from }),
        (7, WEEK, 1, Payback::After { days: 1, on: from }),
        (7, WEEK, 2, Payback::After { days: 2, on: date("2026-01-02") }),
        (1, WEEK, HORIZON_DAYS, Payback::Never),
        (1, i64::MAX, i64::MAX, Payback::Never),
        (i64::MAX, WEEK, i64::MAX, Payback::After { days: 7, on: date("2026-01-07") }),
        (1_000_000, WEEK - 1, 1, Payback::TooEarly),
    ] {
        assert_eq!(payback(saved, span, build, from), want, "{saved} {span} {build}");
    }
    assert_eq!(payback(7, WEEK, 2, Date::MAX), Payback::Never, "no date left");
}

proptest! {
    /// On the day that is named it has paid, and on the day before it had not.
    #[test]
    fn the_break_even_day_is_the_first(saved in 1_i64..1_000_000, span in WEEK..100 * WEEK, build in 1_i64..100_000_000) {
        let paid = |days: i64| i128::from(saved) * i128::from(DAY * days) >= i128::from(build) * i128::from(span);
        match payback(saved, span, build, date("2026-01-01")) {
            Payback::After { days, on } => {
                prop_assert!(paid(days) && !paid(days - 1));
                prop_assert_eq!(date("2026-01-01").until(on).expect("days").get_days(), i32::try_from(days - 1).expect("small"));
            }
            Payback::Never => prop_assert!(!paid(HORIZON_DAYS)),
            Payback::TooEarly => prop_assert!(false),
        }
    }

    /// Whatever a log holds, in any order and however often: each closed record counts once, as one thing.
    #[test]
    fn every_record_counts_exactly_once(
        records in proptest::collection::vec((0..10_usize, 0..2_u8, 0..3_u8, 0_i64..200_000, 0..100_u128), 0..40),
        turn in 0..40_usize,
    ) {
        let mut lines: Vec<Line> = records.iter().map(|(outcome, shadow, target, at, id)| {
            let mut line = line(*id, *at, Outcome::ALL[*outcome], ["a", "b", "c"][usize::from(*target)]);
            if *shadow == 1 { line.mode = crate::decide::playbook::Mode::Shadow }
            line
        }).collect();
        lines.sort_by_key(|line| line.id);
        lines.dedup_by_key(|line| line.id);
        let counted = tally(lines.clone(), HOUR);
        let sum = counted.recovered + counted.false_alarms + counted.cleared_after_a_page + counted.handed_over + counted.harm
            + counted.would_have_restarted + counted.rehearsed_else;
        prop_assert_eq!((sum, counted.records), (lines.len() as u64, lines.len() as u64));
        let (same, again) = (lines.len(), lines.clone());
        lines.rotate_left(turn.min(same));
        lines.extend(again);
        let repeated = tally(lines, HOUR);
        prop_assert_eq!(repeated.repeated, same as u64);
        prop_assert_eq!(super::tally::Tally { repeated: 0, ..repeated }, counted);
    }
}

// --- the data file --------------------------------------------------------------------------------------------------

#[test]
fn mistakes_in_the_data_file_are_told_with_place_and_remedy() {
    for (before, after, want) in [
        (
            "service: s\n",
            "service: s\nteam: x\n",
            &["3:1: unknown field `team`. Known here: toil, service, week, live, example, currency, events, figures."][..],
        ),
        ("service: s\n", "", &["8:1: field `service` is missing. Add it."]),
        ("service: s\n", "service: ''\n", &["2:10: service is empty. Write something that a reader understands in a year."]),
        ("week: 2026-03-23", "week: monday", &["3:7: `monday` is not a date. Write one such as 2026-02-03."]),
        ("live: 2026-04-06", "live: 0001-01-01", &["4:7: `0001-01-01` is not a date. Write one such as 2026-02-03."]),
        (
            "2026-03-23T00:00:00Z",
            "03:12",
            &[
                "6:11: `03:12` is not a time. Write it with its offset, such as 2026-02-03T04:05:06Z or 2026-02-03T05:05:06+01:00.",
            ],
        ),
        (
            "2026-03-23T00:00:00Z",
            "2026-03-22T23:59:59Z",
            &[
                "6:11: 2026-03-22T23:59:59Z is not in the week that begins on 2026-03-23 (UTC). Put it into the file of its own week, or correct `week`.",
            ],
        ),
        (
            "minutes: 40",
            "minutes: 0",
            &["6:68: minutes is 0. Write from 1 to 1440: from the page until the person was back at what it broke off."],
        ),
        ("minutes: 40", "minutes: -4", &["6:68: this is not a whole number from 0."]),
        (
            "[4, 2, 3, 9]",
            "[]",
            &["10:20: command_seconds needs either `value` or `samples`. Write one number, or what was measured, at least once."],
        ),
        ("{ value: 10,", "{ value: -10,", &["11:37: review_minutes_per_week is -10. Write a number from 0 to 1000000."]),
        ("{ value: 10,", "{ value: .nan,", &["11:37: review_minutes_per_week is NaN. Write a number from 0 to 1000000."]),
        (
            "value: 2.5, assumed: because",
            "value: 2.5",
            &[
                "12:25: run_minutes_per_week does not say where it comes from. Write assumed: with the reason, or measured: with the command or the source, and on: with the date.",
            ],
        ),
        (", on: 2026-03-20", "", &["10:20: `command_seconds.on` is missing. Say when it was measured, such as on: 2026-02-03."]),
        (
            "value: 25, assumed: because",
            "value: 25, assumed: because, on: 2026-01-01",
            &["14:52: page_minutes is assumed, and has a date. Remove `on`, or say how it was `measured`."],
        ),
    ] {
        let text = WEEKLY.replacen(before, after, 1);
        assert_ne!(text, WEEKLY, "{before} is not in the file");
        assert_eq!(parsed(&text).expect_err(after), want, "{after}");
    }
    assert_eq!(
        parsed("# nothing\n").expect_err("empty"),
        [" is empty. Write toil, service, week, live, events and figures; toil/inventory-week.yml is one."]
    );
    assert!(read(Path::new("/nowhere/x.yml")).expect_err("not there")[0].to_string().contains("cannot be read"));
}

#[test]
fn what_the_file_says_cannot_break_the_table() {
    let text = WEEKLY.replace("what: x", r#"what: "a | b <img src=x>\n| 9 | forged | row |""#);
    let shown = table::ledger(&parsed(&text).expect("good"));
    let row = shown.lines().find(|line| line.starts_with("| 1 |")).expect("a row");
    assert!(row.contains(r"a \| b &lt;img src=x>") && row.ends_with("| 40 |"), "{row}");
    assert!(!shown.lines().any(|line| line.starts_with("| 9 |")), "{shown}");
}

// --- the log --------------------------------------------------------------------------------------------------------

/// A closed live record, `at` seconds after some time, that took a minute and was confirmed.
fn line(id: u128, at: i64, outcome: Outcome, target: &str) -> Line {
    let ts = Timestamp::from_second(1_770_000_000 + at).expect("a time");
    let state = if outcome == Outcome::ConditionCleared { "quiet" } else { "firing" };
    serde_json::from_value(json!({
        "id": uuid::Uuid::from_u128(id), "ts": ts, "mode": "live", "outcome": outcome, "reason_code": "cooldown",
        "target": format!("inventory/{target}"), "duration_ms": 60_000, "steps": [], "evidence": { "reading": { "state": state } },
        "unknown to us": 1,
    }))
    .expect("a line")
}

fn with_steps(mut line: Line, steps: &[&str]) -> Line {
    line.steps = steps.iter().map(|step| serde_json::from_value(json!({ "step": step })).expect("a step")).collect();
    line
}

#[test]
fn every_outcome_counts_as_what_the_table_says() {
    let touched = &["capture_evidence", "drain"][..];
    for outcome in Outcome::ALL {
        let (untouched, after_drain) = match outcome {
            Outcome::Recovered => (Class::Recovered, Class::Recovered),
            Outcome::StillFiring | Outcome::VerdictUnknown => (Class::Harm, Class::Harm),
            Outcome::ActionFailed | Outcome::Interrupted => (Class::HandedOver, Class::Harm),
            Outcome::Refused | Outcome::UnknownCondition | Outcome::UnmatchedTarget => (Class::HandedOver, Class::HandedOver),
            Outcome::ConditionCleared => (Class::Cleared, Class::Cleared),
            Outcome::Shadow => (Class::Rehearsed, Class::Rehearsed),
        };
        let plain = line(1, 0, *outcome, "a");
        assert_eq!(class(&with_steps(plain.clone(), &["capture_evidence"]), *outcome), untouched, "{outcome}");
        assert_eq!(class(&with_steps(plain.clone(), touched), *outcome), after_drain, "{outcome}");
        let shadow = Line { mode: crate::decide::playbook::Mode::Shadow, ..plain };
        assert_eq!(class(&shadow, *outcome), Class::Rehearsed, "{outcome} in shadow");
        let counted = tally([shadow], HOUR);
        assert_eq!(
            (counted.recovered, counted.false_alarms, counted.first_live),
            (0, 0, None),
            "{outcome}: shadow saves nothing"
        );
        assert_eq!(counted.would_have_restarted, u64::from(*outcome == Outcome::Shadow));
    }
}

#[test]
fn every_reason_has_its_because_and_only_acting_begins() {
    use crate::reason::Group;
    for reason in Reason::ALL {
        let because = because(*reason);
        let fits = match reason.group() {
            Group::Detect | Group::Match => because == Because::Setup,
            Group::Act if *reason == Reason::Aborted => because == Because::Held,
            Group::Act | Group::Verify => because == Because::Acted,
            Group::Confirm => because != Because::Held && because != Because::Guarded,
            Group::Decide => because != Because::Acted,
            Group::Guard => because != Because::Acted && because != Because::Setup,
        };
        assert!(fits && !because.words().is_empty(), "{reason}: {because:?}");
    }
}

#[test]
fn a_cure_that_does_not_last_is_harm_and_a_quiet_hour_makes_it_one_that_does() {
    // Closed at 0; the next record of the target was opened 59 minutes or one second more than an hour after.
    for (second, recovered, harm) in [(3600, 1, 1), (3661, 2, 0)] {
        let lines = [line(1, 0, Outcome::Recovered, "a"), line(2, second, Outcome::Recovered, "a")];
        let counted = tally(lines, HOUR);
        assert_eq!((counted.recovered, counted.harm, counted.did_not_last), (recovered, harm, harm), "{second}");
    }
    // A refusal whose condition was confirmed proves it as well; another target's, or a quiet one, does not.
    let quiet = |mut line: Line| {
        line.evidence.reading.as_mut().expect("a reading").state = "unknown".to_owned();
        line
    };
    for (second, harm) in [
        (line(2, 600, Outcome::Refused, "a"), 1),
        (line(2, 600, Outcome::Refused, "b"), 0),
        (quiet(line(2, 600, Outcome::UnknownCondition, "a")), 0),
    ] {
        assert_eq!(tally([line(1, 0, Outcome::Recovered, "a"), second], HOUR).did_not_last, harm);
    }
}

#[test]
fn a_false_alarm_is_stopped_only_when_nobody_had_been_paged_for_it() {
    let cleared = |at| line(9, at, Outcome::ConditionCleared, "a");
    for (before, at, stopped) in [
        (None, 100, 1),
        (Some(Outcome::Refused), 100, 0),
        (Some(Outcome::StillFiring), 86_400, 0),
        (Some(Outcome::Refused), 86_401, 1),
        (Some(Outcome::Recovered), 100, 1),
        (Some(Outcome::ConditionCleared), 100, 2),
    ] {
        let lines = before.map(|outcome| line(1, 0, outcome, "a")).into_iter().chain([cleared(at)]);
        assert_eq!(tally(lines, HOUR).false_alarms, stopped, "{before:?}");
    }
}

#[test]
fn a_report_counts_doubt_against_itself() {
    let lines = [
        line(1, 0, Outcome::Recovered, "a"),
        line(2, 90_000, Outcome::ConditionCleared, "b"),
        line(3, 180_000, Outcome::Refused, "a"),
        line(4, 300_000, Outcome::StillFiring, "c"),
        Line { outcome: None, ..line(5, 300_100, Outcome::Refused, "c") },
    ];
    let from = Timestamp::from_second(1_770_000_000).expect("a time");
    let to = from.checked_add(jiff::SignedDuration::from_secs(2 * WEEK)).expect("a time");
    let report = Report::new(tally(lines, HOUR), from, to, Some(&weekly()));
    let worth = report.worth.expect("by a ledger");
    assert_eq!((worth.restarts, worth.false_alarms, worth.harm), (30 * 60, 10 * 60, -25 * 60));
    assert_eq!((worth.review, worth.run, worth.saved), (-20 * 60, -5 * 60, -10 * 60));
    assert_eq!((worth.payback, report.tally.open, report.tally.median_ms), (Payback::Never, 1, Some(60_000)));
    let shown = table::report(&report);
    for row in [
        "| restarts that nobody did by hand (30 minutes each) | 1 | 30 |",
        "| handed to a person, as ever | 1 | 0 |",
        "| harm: touched, and no cure | 1 | -25 |",
        "| **saved** | | **-10** |",
        "| `cooldown` | 1 | not yet; asked again by itself |",
        "never at this rate",
    ] {
        assert!(shown.contains(row), "{row} is missing in\n{shown}");
    }
    let counts = table::report(&Report::new(report.tally, from, to, None));
    assert!(counts.contains("| harm: touched, and no cure | 1 |  |") && counts.contains("Give a ledger"), "{counts}");
    let nothing = table::report(&Report::new(tally([], HOUR), from, to, Some(&weekly())));
    assert!(nothing.contains("0 closed records") && nothing.contains("Nothing ran live"), "{nothing}");
}
