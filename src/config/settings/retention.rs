//! How long the journal and `audit.jsonl` are kept.

use super::typed::RetentionTyped;
use crate::audit::export::Rotation;
use crate::audit::prune::{Bounds, FLOOR};
use crate::config::sheet::{At, Sheet};
use crate::period::Period;
use crate::size::Size;

/// Checked.
#[derive(Debug, PartialEq)]
pub struct Retention {
    /// Of the journal.
    pub bounds: Bounds,
    /// How often it is looked whether something has to go.
    pub check_every: Period,
    /// Of `audit.jsonl`.
    pub audit_jsonl: Rotation,
}

/// A year, and a month to compare it with the last one.
const AGE: Period = Period::from_secs(400 * 24 * 3600);
/// Some hundred thousand entries.
const SIZE: Size = Size::from_mib(1024);
/// A smaller journal would be pruned in the middle of one bad night.
const LEAST_SIZE: Size = Size::from_mib(16);
const CHECK_EVERY: Period = Period::from_secs(3600);
/// What is too old goes a day late at the most.
const RAREST_CHECK: Period = Period::from_secs(24 * 3600);
const LINES_SIZE: Size = Size::from_mib(100);
const LINES_AGE: Period = Period::from_secs(31 * 24 * 3600);
/// With [`LINES_AGE`], as long as the journal.
const LINES_KEEP: usize = 13;
/// Files that may be asked for: each is looked at when one more is rotated.
const LINES_MOST: usize = 10_000;

pub(super) fn read(sheet: &mut Sheet, typed: &RetentionTyped) -> Retention {
    let age = sheet.some_period("retention.age", typed.age.as_ref(), AGE);
    let floor = Period::from(std::time::Duration::try_from(FLOOR).unwrap_or_default());
    if let Some(at) = typed.age.as_ref()
        && age < floor
    {
        sheet.wrong(
            at.referenced,
            format!("retention.age ({age}) is shorter than {floor}, the longest time that a guardrail looks back on"),
            format!("Write at least {floor}"),
        );
    }
    let size = size(sheet, "retention.size", typed.size.as_ref(), SIZE, LEAST_SIZE);
    let check_every = sheet.some_period("retention.check_every", typed.check_every.as_ref(), CHECK_EVERY);
    if let Some(at) = typed.check_every.as_ref()
        && check_every > RAREST_CHECK
    {
        sheet.wrong(at.referenced, format!("retention.check_every is {check_every}"), format!("Write at most {RAREST_CHECK}"));
    }
    let lines = &typed.audit_jsonl;
    let keep = lines.keep.as_ref().map_or(LINES_KEEP, |at| {
        if at.value > LINES_MOST {
            let what = format!("retention.audit_jsonl.keep is {}", at.value);
            sheet.wrong(at.referenced, what, format!("Write a number from 0 (somebody else rotates) to {LINES_MOST}"));
        }
        at.value
    });
    let audit_jsonl = Rotation {
        size: self::size(sheet, "retention.audit_jsonl.size", lines.size.as_ref(), LINES_SIZE, Size::from_mib(1)).bytes(),
        age: sheet.some_period("retention.audit_jsonl.age", lines.age.as_ref(), LINES_AGE).signed(),
        keep,
    };
    Retention { bounds: Bounds { age: age.signed(), size: size.bytes() }, check_every, audit_jsonl }
}

fn size(sheet: &mut Sheet, name: &str, text: Option<&At<String>>, default: Size, least: Size) -> Size {
    let size = text.map_or(default, |text| sheet.parsed(text).unwrap_or(default));
    if let Some(at) = text
        && size < least
    {
        sheet.wrong(at.referenced, format!("{name} is {size}"), format!("Write at least {least}"));
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{SETTINGS, SKETCH, folder, loaded};

    fn read(retention: &str, playbook: &str) -> Result<Retention, Vec<String>> {
        let folder = folder(&format!("{SETTINGS}{retention}\n"), &[("x.yml", playbook)]);
        loaded(folder.path()).map(|config| config.settings.retention)
    }

    #[test]
    fn it_has_defaults_and_takes_what_is_written() {
        let usual = read("", SKETCH).expect("good");
        assert_eq!((usual.bounds, usual.check_every), (Bounds { age: AGE.signed(), size: 1 << 30 }, Period::from_secs(3600)));
        assert_eq!(usual.audit_jsonl, Rotation { size: 100 << 20, age: LINES_AGE.signed(), keep: 13 });
        let text = "retention: { age: 31d, size: 64MiB, check_every: 10m, audit_jsonl: { size: 5MiB, age: 1d, keep: 0 } }";
        let written = read(text, SKETCH).expect("good");
        assert_eq!((written.bounds, written.check_every), (Bounds { age: FLOOR, size: 64 << 20 }, Period::from_secs(600)));
        assert_eq!(written.audit_jsonl, Rotation { size: 5 << 20, age: Period::from_secs(86_400).signed(), keep: 0 });
    }

    #[test]
    fn what_a_guardrail_needs_cannot_be_pruned() {
        for (text, want) in [
            (
                "retention: { age: 30d }",
                "remediator.yml:7:19: retention.age (30d) is shorter than 31d, the longest time that a guardrail looks back on. \
                 Write at least 31d.",
            ),
            ("retention: { size: 1MiB }", "remediator.yml:7:20: retention.size is 1MiB. Write at least 16MiB."),
            (
                "retention: { size: 1GB }",
                "remediator.yml:7:20: `1GB` is not a size: write a whole number of bytes, or of KiB, MiB, GiB or TiB, such as 100MiB.",
            ),
            ("retention: { check_every: 2d }", "remediator.yml:7:27: retention.check_every is 2d. Write at most 1d."),
            (
                "retention: { audit_jsonl: { size: 0 } }",
                "remediator.yml:7:35: retention.audit_jsonl.size is 0. Write at least 1MiB.",
            ),
        ] {
            assert_eq!(read(text, SKETCH).expect_err(text), [want]);
        }
        for (before, after, named) in [
            ("12 per 1d", "12 per 32d", "a budget's window is 32d"),
            ("cooldown: 5m", "cooldown: 5w", "cooldown is 35d"),
            ("recurrence: 1h", "recurrence: 1y", "breaker.recurrence is 365d"),
            ("blame: 10m", "blame: 60d", "blame is 60d"),
            ("rate: { per: 1m", "rate: { per: 32d", "rate.per is 32d"),
        ] {
            let said = read("", &SKETCH.replace(before, after)).expect_err(after);
            assert!(said.len() == 1 && said[0].contains(named) && said[0].ends_with("Write at most 31d."), "{said:?}");
        }
    }
}
