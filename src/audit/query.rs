//! Questions to the journal. Read-only, each on one connection, each bounded.
//!
//! Records are listed by the number of their first entry, newest first: that number never changes, so a page that
//! follows another shows nothing twice and leaves nothing out, whatever is written meanwhile.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter};
use serde::{Deserialize, Serialize};

use crate::audit::JournalError;
use crate::audit::chain::{Broken, Link};
use crate::audit::projection::nanos;
use crate::edge::sqlite::{count, integer};
use crate::event::{Entry, Record, RecordId};
use crate::reason::{Outcome, Reason};
use crate::target::{EpisodeKey, PlaybookName};

/// Records on one page unless asked otherwise.
pub const DEFAULT_LIMIT: usize = 50;
/// Records on one page at most: evidence makes a record some tens of kilobytes.
pub const MAX_LIMIT: usize = 500;

/// Which records; all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    pub outcome: Option<Outcome>,
    pub reason: Option<Reason>,
    pub playbook: Option<PlaybookName>,
    /// `service/instance`.
    pub target: Option<String>,
    /// Of the alert that opened the record, or of one that joined.
    pub fingerprint: Option<String>,
    /// Likewise.
    pub group_key: Option<String>,
    /// Opened at this time or later.
    pub since: Option<Timestamp>,
    /// Opened before this time.
    pub until: Option<Timestamp>,
    pub key: Option<EpisodeKey>,
    /// Only open, or only closed ones.
    pub open: Option<bool>,
}

/// Where the next page begins. Opaque: made by one page, given to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(u64);

/// A record and the hash of the last entry that is folded into it.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub record: Record,
    pub hash: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Newest first.
    pub items: Vec<Found>,
    /// None: there are no older ones.
    pub next: Option<Cursor>,
}

/// One entry with its place in the chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    #[serde(flatten)]
    pub entry: Entry,
    pub prev_hash: String,
    pub hash: String,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{:x}", self.0)
    }
}

impl FromStr for Cursor {
    type Err = JournalError;
    fn from_str(text: &str) -> Result<Self, JournalError> {
        let number = text.strip_prefix('s').and_then(|hex| u64::from_str_radix(hex, 16).ok());
        number.map(Cursor).ok_or_else(|| JournalError::Cursor(text.chars().take(40).collect()))
    }
}

/// What is asked of a record. The hash of one whose closing entry was pruned is in the anchor, as is all else that is known
/// of it.
const COLUMNS: &str =
    "SELECT r.body, coalesce(e.hash, (SELECT k.value ->> '$.hash' FROM anchor, json_each(anchor.state, '$.kept') k
    WHERE k.value ->> '$.record.id' = r.id)), r.opened_seq, r.seq";
const FOUND: &str = "FROM records r LEFT JOIN entries e ON e.seq = r.seq";
/// The same from the alerts' side, which are in the order of the records: the newest fifty of a million are read as fifty.
const FOUND_BY_ALERT: &str =
    "FROM record_alerts a CROSS JOIN records r ON r.opened_seq = a.record LEFT JOIN entries e ON e.seq = r.seq";

pub(crate) fn found(conn: &Connection, id: RecordId) -> Result<Option<Found>, JournalError> {
    let mut statement = conn.prepare_cached(&format!("{COLUMNS} {FOUND} WHERE r.id = ?"))?;
    let row = statement.query_row([id.to_string()], raw).optional()?;
    Ok(row.map(parse).transpose()?.map(|(found, _)| found))
}

pub(crate) fn page(conn: &Connection, filter: &Filter, cursor: Option<Cursor>, limit: usize) -> Result<Page, JournalError> {
    let limit = limit.clamp(1, MAX_LIMIT);
    let by_alert = filter.fingerprint.is_some() || filter.group_key.is_some();
    let (conditions, mut values) = conditions(filter, cursor, by_alert);
    // One more than asked for says whether there is a next page.
    values.push(Value::Integer(integer(limit as u64 + 1)));
    let sql = if by_alert {
        format!("{COLUMNS} {FOUND_BY_ALERT} WHERE {conditions} GROUP BY a.record ORDER BY a.record DESC LIMIT ?")
    } else {
        format!("{COLUMNS} {FOUND} WHERE {conditions} ORDER BY r.opened_seq DESC LIMIT ?")
    };
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), raw)?;
    let mut items = Vec::new();
    let mut last = 0;
    let mut more = false;
    for row in rows {
        let (found, opened_seq) = parse(row?)?;
        if items.len() == limit {
            more = true;
            break;
        }
        last = opened_seq;
        items.push(found);
    }
    Ok(Page { items, next: more.then_some(Cursor(last)) })
}

/// The filter as SQL, of [`FOUND_BY_ALERT`] or else of [`FOUND`]. Only fixed text goes into the statement; values are bound.
fn conditions(filter: &Filter, cursor: Option<Cursor>, by_alert: bool) -> (String, Vec<Value>) {
    let place = if by_alert { "a.record" } else { "r.opened_seq" };
    let mut sql = vec!["1".to_owned()];
    let mut values = Vec::new();
    let mut and = |condition: &str, bound: &[Value]| {
        sql.push(condition.to_owned());
        values.extend_from_slice(bound);
    };
    if let Some(Cursor(before)) = cursor {
        and(&format!("{place} < ?"), &[Value::Integer(integer(before))]);
    }
    if let Some(outcome) = filter.outcome {
        and("r.outcome = ?", &[text(outcome.word())]);
    }
    if let Some(reason) = filter.reason {
        and("r.reason_code = ?", &[text(reason.code())]);
    }
    if let Some(playbook) = &filter.playbook {
        and("r.playbook = ?", &[text(playbook.as_str())]);
    }
    if let Some(target) = &filter.target {
        // A service's name holds no slash, an instance may.
        let (service, instance) = target.split_once('/').unwrap_or((target, ""));
        and("r.service = ?", &[text(service)]);
        and("r.instance = ?", &[text(instance)]);
    }
    if let Some(fingerprint) = &filter.fingerprint {
        let any = "r.opened_seq IN (SELECT record FROM record_alerts WHERE fingerprint = ?)";
        and(if by_alert { "a.fingerprint = ?" } else { any }, &[text(fingerprint)]);
    }
    if let Some(group_key) = &filter.group_key {
        let condition = match (by_alert, &filter.fingerprint) {
            (true, None) => "a.group_key = ?",
            // Beside a fingerprint it may be another alert's of the same record.
            (true, Some(_)) => "EXISTS (SELECT 1 FROM record_alerts g WHERE g.record = a.record AND g.group_key = ?)",
            (false, _) => "r.opened_seq IN (SELECT record FROM record_alerts WHERE group_key = ?)",
        };
        and(condition, &[text(group_key)]);
    }
    if let Some(since) = filter.since {
        let since = Value::Integer(nanos(since));
        and("r.opened_at >= ?", std::slice::from_ref(&since));
        // None is before this place.
        let first = "SELECT opened_seq FROM records WHERE tide >= ? ORDER BY tide, opened_seq LIMIT 1";
        and(&format!("{place} >= ({first})"), &[since]);
    }
    if let Some(until) = filter.until {
        let until = Value::Integer(nanos(until));
        and("r.opened_at < ?", std::slice::from_ref(&until));
        // None is after the later of these: where the tide has not come so far yet, and the last one that was opened while
        // the clock was behind.
        let tide = "SELECT opened_seq FROM records WHERE tide < ? ORDER BY tide DESC, opened_seq DESC LIMIT 1";
        let behind = "SELECT opened_seq FROM records WHERE opened_at < tide AND opened_at < ? ORDER BY opened_seq DESC LIMIT 1";
        and(&format!("{place} <= max(coalesce(({tide}), 0), coalesce(({behind}), 0))"), &[until.clone(), until]);
    }
    if let Some(key) = &filter.key {
        and("r.key = ?", &[text(key.as_str())]);
    }
    if let Some(open) = filter.open {
        and(if open { "r.closed_at IS NULL" } else { "r.closed_at IS NOT NULL" }, &[]);
    }
    (sql.join(" AND "), values)
}

/// Hands over every closed record that matches, in the order of closing, one at a time; `each` answers `false` to stop.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn each_closed(conn: &Connection, filter: &Filter, mut each: impl FnMut(&Found) -> bool) -> Result<(), JournalError> {
    let (conditions, values) = conditions(&Filter { open: Some(false), ..filter.clone() }, None, false);
    let mut statement = conn.prepare(&format!("{COLUMNS} {FOUND} WHERE {conditions} ORDER BY r.seq"))?;
    for row in statement.query_map(params_from_iter(values), raw)? {
        if !each(&parse(row?)?.0) {
            break;
        }
    }
    Ok(())
}

pub(crate) fn story(conn: &Connection, id: RecordId) -> Result<Vec<Told>, JournalError> {
    let mut statement = conn.prepare_cached(&format!("SELECT {} FROM entries WHERE record = ? ORDER BY seq", Link::COLUMNS))?;
    statement.query_map([id.to_string()], Link::from_row)?.map(|link| told(link?)).collect()
}

pub(crate) fn entries_after(conn: &Connection, seq: u64, limit: usize) -> Result<Vec<Told>, JournalError> {
    let sql = format!("SELECT {} FROM entries WHERE seq > ? ORDER BY seq LIMIT ?", Link::COLUMNS);
    let mut statement = conn.prepare_cached(&sql)?;
    let values = [integer(seq), integer(limit.clamp(1, MAX_LIMIT) as u64)];
    statement.query_map(values, Link::from_row)?.map(|link| told(link?)).collect()
}

pub(crate) fn closed_after(conn: &Connection, seq: u64, limit: usize) -> Result<Vec<Found>, JournalError> {
    let sql = format!("{COLUMNS} {FOUND} WHERE r.closed_at IS NOT NULL AND r.seq > ? ORDER BY r.seq LIMIT ?");
    let mut statement = conn.prepare_cached(&sql)?;
    let values = [integer(seq), integer(limit.clamp(1, MAX_LIMIT) as u64)];
    statement.query_map(values, raw)?.map(|row| Ok(parse(row?)?.0)).collect()
}

type Raw = (String, String, u64, u64);

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok((row.get(0)?, row.get(1)?, count(row, 2)?, count(row, 3)?))
}

fn parse((body, hash, opened_seq, seq): Raw) -> Result<(Found, u64), JournalError> {
    let record = serde_json::from_str(&body)
        .map_err(|error| Broken { seq, why: format!("the record folded up to it cannot be read: {error}") })?;
    Ok((Found { record, hash }, opened_seq))
}

fn told(link: Link) -> Result<Told, JournalError> {
    let entry = serde_json::from_str(&link.body)
        .map_err(|error| Broken { seq: link.seq, why: format!("its body cannot be read: {error}") })?;
    Ok(Told { entry, prev_hash: link.prev_hash, hash: link.hash })
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Journal;
    use crate::audit::walks::{Walker, closes, opens, start, target};
    use crate::event::Event;

    /// Records 1 to 20 of three replicas; every second one is closed.
    async fn journal() -> Journal {
        let journal = Journal::in_memory().expect("a journal");
        for number in 1..=20_u8 {
            let at = start().checked_add(jiff::SignedDuration::from_millis(i64::from(number) * 500)).expect("in range");
            journal.append(opens(number.into(), number % 3, at)).await.expect("opened");
            if number.is_multiple_of(2) {
                let outcome = if number.is_multiple_of(4) { Outcome::Recovered } else { Outcome::Refused };
                journal.append(closes(number.into(), outcome, at)).await.expect("closed");
            }
        }
        journal
    }

    fn numbers(page: &Page) -> Vec<u128> {
        page.items.iter().map(|found| found.record.id.0.as_u128()).collect()
    }

    #[tokio::test]
    async fn pages_show_each_once_whatever_is_written_meanwhile() {
        let journal = journal().await;
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let page = journal.query(Filter::default(), cursor, 7).await.expect("a page");
            seen.extend(numbers(&page));
            // What is opened or closed between two pages must not shift them.
            journal.append(opens(100 + seen.len() as u128, 0, start())).await.expect("opened");
            let open = seen.iter().find(|number| *number % 2 == 1 && !seen.contains(&(*number + 200)));
            let _ = journal.append(closes(*open.expect("one is open"), Outcome::Refused, start())).await;
            match page.next {
                Some(next) => cursor = Some(next.to_string().parse().expect("what it printed")),
                None => break,
            }
        }
        assert_eq!(seen, (1..=20).rev().collect::<Vec<_>>());
        assert!("20".parse::<Cursor>().is_err() && "s-1".parse::<Cursor>().is_err());
    }

    #[tokio::test]
    async fn every_filter_filters() {
        let journal = journal().await;
        let ask = async |filter: Filter| numbers(&journal.query(filter, None, 500).await.expect("a page"));
        let none = Filter::default();
        let all = ask(none.clone()).await;
        let third: Vec<u128> = all.iter().copied().filter(|n| n % 3 == 1).collect();
        let key = Some(target(1).key());
        let since = Some("2026-02-03T04:05:11Z".parse().expect("a time"));
        for (filter, want) in [
            (Filter { outcome: Some(Outcome::Recovered), ..none.clone() }, vec![20, 16, 12, 8, 4]),
            (Filter { reason: Some(Reason::Cooldown), ..none.clone() }, vec![]),
            (
                Filter { reason: Some(Reason::ConditionQuiet), outcome: Some(Outcome::Refused), ..none.clone() },
                vec![18, 14, 10, 6, 2],
            ),
            (Filter { playbook: "other".parse().ok(), ..none.clone() }, vec![]),
            (Filter { playbook: "inventory-fd-leak".parse().ok(), ..none.clone() }, all.clone()),
            (Filter { target: Some("inventory/inventory-1:8080".to_owned()), ..none.clone() }, third.clone()),
            (Filter { target: Some("inventory' OR 1=1 --/x".to_owned()), ..none.clone() }, vec![]),
            (Filter { fingerprint: Some(format!("{:016x}", 1)), ..none.clone() }, third.clone()),
            (Filter { group_key: Some("none".to_owned()), ..none.clone() }, vec![]),
            (Filter { key, ..none.clone() }, third.clone()),
            (Filter { since, ..none.clone() }, (10..=20).rev().collect()),
            (Filter { until: since, ..none.clone() }, (1..10).rev().collect()),
            (Filter { open: Some(true), ..none.clone() }, (1..=20).rev().filter(|n| n % 2 == 1).collect()),
        ] {
            assert_eq!(ask(filter.clone()).await, want, "{filter:?}");
        }
        let one = journal.query(none, None, 0).await.expect("a page");
        assert_eq!(one.items.len(), 1, "a limit of nothing is brought into range");
    }

    /// The clock may go back and forth; a question about a time finds exactly what was opened then, in the order of opening.
    #[tokio::test]
    async fn times_are_found_although_the_clock_jumped() {
        let journal = Journal::in_memory().expect("a journal");
        let second = |n: i64| start().checked_add(jiff::SignedDuration::from_secs(n)).expect("in range");
        let times = [10, 20, 21, 5, 6, 30, 7, 31, 31, 40, 2, 41];
        for (number, at) in (1..).zip(times) {
            journal.append(opens(number, u8::try_from(number % 3).expect("small"), second(at))).await.expect("opened");
        }
        let fingerprint = Some(format!("{:016x}", 1));
        for since in [None, Some(0), Some(6), Some(20), Some(31), Some(41), Some(50)] {
            for until in [None, Some(0), Some(3), Some(7), Some(21), Some(31), Some(50)] {
                let inside = |at: i64| since.is_none_or(|since| at >= since) && until.is_none_or(|until| at < until);
                let matching = times.iter().enumerate().filter(|(_, at)| inside(**at));
                let wanted: Vec<u128> = matching.map(|(index, _)| index as u128 + 1).rev().collect();
                let filter = Filter { since: since.map(second), until: until.map(second), ..Filter::default() };
                let found = numbers(&journal.query(filter.clone(), None, 50).await.expect("a page"));
                assert_eq!(found, wanted, "{since:?} {until:?}");
                let of_one = Filter { fingerprint: fingerprint.clone(), ..filter };
                let found = numbers(&journal.query(of_one, None, 50).await.expect("a page"));
                assert_eq!(found, wanted.iter().copied().filter(|n| n % 3 == 1).collect::<Vec<_>>(), "{since:?} {until:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_member_is_found_by_its_own_fingerprint_and_a_story_is_whole() {
        let journal = Journal::in_memory().expect("a journal");
        let mut walker = Walker::new();
        let mut joined = None;
        // 0 opens, 2 folds.
        for (what, which) in [(0, 0), (3, 0), (2, 77), (3, 0)] {
            let draft = walker.next(what, which);
            if let Event::Folded { alert } = &draft.event {
                joined = Some(alert.clone());
            }
            journal.append(draft).await.expect("legal");
        }
        let joined = joined.expect("one joined");
        for filter in [
            Filter { fingerprint: Some(joined.fingerprint.clone()), ..Filter::default() },
            Filter { group_key: Some(joined.group_key.clone()), ..Filter::default() },
        ] {
            assert_eq!(numbers(&journal.query(filter, None, 5).await.expect("a page")), [1]);
        }
        let story = journal.story(crate::audit::walks::id(1)).await.expect("a story");
        assert_eq!(story.iter().map(|told| told.entry.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(story.windows(2).all(|two| two[0].hash == two[1].prev_hash));
    }
}
