//! The tables: the entries themselves, and what is folded from them so that reading is cheap.
//!
//! Promise: projections change in the same transaction as the entries they are folded from, and are made again from the
//! entries whenever they cannot be trusted: another head, another [`VERSION`], a body that cannot be read.
//!
//! Times in `records` are nanoseconds since 1970: texts of different precision do not sort by time. `tide` is the latest
//! `opened_at` of a record and of those opened before it: records are listed in the order of opening, a clock may go
//! back, and a question about a time has to find its place in that order without reading its way there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use serde::{Deserialize, Serialize};

use crate::audit::JournalError;
use crate::audit::anchor::Anchor;
use crate::audit::canonical::canonical;
use crate::audit::chain::{self, Head, Link};
use crate::audit::state::State;
use crate::edge::sqlite::{self, count, integer};
use crate::event::{Entry, Event, Record, RecordId};
use crate::guard::ledger::{Books, Watch};
use crate::target::EpisodeKey;

/// Raised whenever folding the same entries gives something else than before, so that old projections are made again.
const VERSION: u32 = 3;

pub const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE entries(
        seq INTEGER PRIMARY KEY, ts TEXT NOT NULL, record TEXT, kind TEXT NOT NULL, body TEXT NOT NULL,
        prev_hash TEXT NOT NULL, hash TEXT NOT NULL) STRICT;
    CREATE INDEX entries_record ON entries(record, seq) WHERE record IS NOT NULL;
    CREATE TRIGGER entries_are_not_changed BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END;
    CREATE TRIGGER entries_are_not_removed BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END;

    CREATE TABLE records(
        id TEXT PRIMARY KEY, opened_seq INTEGER NOT NULL UNIQUE, seq INTEGER NOT NULL, key TEXT NOT NULL,
        opened_at INTEGER NOT NULL, closed_at INTEGER, outcome TEXT, reason_code TEXT, playbook TEXT, service TEXT,
        instance TEXT, fingerprint TEXT NOT NULL, group_key TEXT NOT NULL, body TEXT NOT NULL) STRICT;
    CREATE INDEX records_outcome ON records(outcome, opened_seq);
    CREATE INDEX records_reason ON records(reason_code, opened_seq);
    CREATE INDEX records_playbook ON records(playbook, opened_seq);
    CREATE INDEX records_target ON records(service, instance, opened_seq);
    CREATE INDEX records_key ON records(key, opened_seq);
    CREATE INDEX records_opened_at ON records(opened_at);
    CREATE INDEX records_closed ON records(seq) WHERE closed_at IS NOT NULL;
    CREATE INDEX records_open ON records(id) WHERE closed_at IS NULL;

    CREATE TABLE record_alerts(
        fingerprint TEXT NOT NULL, group_key TEXT NOT NULL, record TEXT NOT NULL REFERENCES records(id),
        PRIMARY KEY(fingerprint, group_key, record)) STRICT, WITHOUT ROWID;
    CREATE INDEX record_alerts_group_key ON record_alerts(group_key, record);

    CREATE TABLE projections(name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
",
    "
    CREATE TABLE anchor(id INTEGER PRIMARY KEY CHECK(id = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL, state TEXT NOT NULL) STRICT;
    CREATE TRIGGER anchor_moves_forward BEFORE UPDATE ON anchor WHEN NEW.seq <= OLD.seq
        BEGIN SELECT RAISE(ABORT, 'the anchor only moves forward'); END;
    CREATE TRIGGER anchor_is_not_removed BEFORE DELETE ON anchor BEGIN SELECT RAISE(ABORT, 'append-only'); END;
    DROP TRIGGER entries_are_not_removed;
    CREATE TRIGGER entries_are_not_removed BEFORE DELETE ON entries
        WHEN OLD.seq > (SELECT coalesce(max(seq), 0) FROM anchor) BEGIN SELECT RAISE(ABORT, 'append-only'); END;
    CREATE INDEX entries_pruned ON entries(seq) WHERE kind = 'pruned';
    CREATE INDEX record_alerts_record ON record_alerts(record);
",
    "
    CREATE TABLE heartbeat(one INTEGER PRIMARY KEY CHECK (one = 1), at INTEGER NOT NULL) STRICT;
",
    // Filled again from the entries, as the version of the projections is another. The number of its first entry is a
    // record's place in every list, so it is the row's own key: each index leads in that order without naming it.
    "
    DROP TABLE record_alerts;
    DROP TABLE records;
    CREATE TABLE records(
        opened_seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, seq INTEGER NOT NULL, key TEXT NOT NULL,
        opened_at INTEGER NOT NULL, tide INTEGER NOT NULL, closed_at INTEGER, outcome TEXT, reason_code TEXT, playbook TEXT,
        service TEXT, instance TEXT, fingerprint TEXT NOT NULL, group_key TEXT NOT NULL, body TEXT NOT NULL) STRICT;
    CREATE INDEX records_outcome ON records(outcome) WHERE outcome IS NOT NULL;
    CREATE INDEX records_reason ON records(reason_code) WHERE reason_code IS NOT NULL;
    CREATE INDEX records_playbook ON records(playbook);
    CREATE INDEX records_target ON records(service, instance);
    CREATE INDEX records_key ON records(key);
    CREATE INDEX records_tide ON records(tide);
    CREATE INDEX records_behind ON records(opened_seq) WHERE opened_at < tide;
    CREATE INDEX records_closed ON records(seq) WHERE closed_at IS NOT NULL;
    CREATE INDEX records_open ON records(opened_seq) WHERE closed_at IS NULL;
    CREATE TABLE record_alerts(
        fingerprint TEXT NOT NULL, record INTEGER NOT NULL, group_key TEXT NOT NULL,
        PRIMARY KEY(fingerprint, record, group_key)) STRICT, WITHOUT ROWID;
    CREATE INDEX record_alerts_group_key ON record_alerts(group_key, record);
    CREATE INDEX record_alerts_record ON record_alerts(record);

    CREATE TABLE watches(key TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
",
];

/// Which entries the projections are folded from, and those fields of the books that change with nearly every entry:
/// the rest is larger and changes seldom.
#[derive(Debug, Serialize, Deserialize)]
struct Stamp {
    version: u32,
    head: Head,
    last_at: Timestamp,
    last_decision: Option<Timestamp>,
}

/// What one commit writes.
pub(super) struct Changes<'a> {
    pub links: &'a [Link],
    /// Entries that may make a record findable by one more alert.
    pub entries: &'a [Entry],
    /// Every record that the entries belong to, as it is after them; with the number of its first entry if that is new.
    pub records: &'a BTreeMap<RecordId, (Option<u64>, &'a Record)>,
    pub state: &'a State,
    /// Whether the books are stored again; their watches are not part of that.
    pub books_changed: bool,
    /// Episodes whose watch began, changed or ended.
    pub watches: &'a BTreeSet<EpisodeKey>,
}

/// # Errors
/// Whatever SQLite says; the transaction must not be committed then.
pub(super) fn save(transaction: &Transaction<'_>, changes: &Changes<'_>) -> Result<(), JournalError> {
    for link in changes.links {
        transaction
            .prepare_cached("INSERT INTO entries(seq, ts, record, kind, body, prev_hash, hash) VALUES (?,?,?,?,?,?,?)")?
            .execute(params![integer(link.seq), link.ts, link.record, link.kind, link.body, link.prev_hash, link.hash])?;
    }
    let mut records: Vec<_> = changes.records.values().collect();
    // Each new one looks at the tide of the one before it.
    records.sort_by_key(|(opened_seq, _)| *opened_seq);
    for (opened_seq, record) in records {
        save_record(transaction, *opened_seq, record)?;
    }
    for key in changes.watches {
        save_watch(transaction, key, changes.state.books.watches.get(key).map(|watch| &**watch))?;
    }
    for entry in changes.entries {
        save_joined(transaction, entry)?;
    }
    if changes.books_changed {
        put(transaction, "books", &without_watches(&changes.state.books))?;
    }
    let Books { last_at, last_decision, .. } = changes.state.books;
    let stamp = Stamp { version: VERSION, head: changes.state.head.clone(), last_at, last_decision };
    put(transaction, "stamp", &stamp)
}

fn save_record(transaction: &Transaction<'_>, opened_seq: Option<u64>, record: &Record) -> Result<(), JournalError> {
    let id = record.id.to_string();
    let accepted = &record.accepted;
    let body = readable(record)?;
    let closed_at = record.closed_at.map(nanos);
    let (outcome, reason) = (record.outcome.map(|o| o.word()), record.reason.map(|r| r.code()));
    if let Some(opened_seq) = opened_seq {
        let playbook = accepted.playbook.as_ref().map(|name| name.as_str());
        let service = accepted.target.as_ref().map(|target| target.service.as_str());
        let instance = accepted.target.as_ref().map(|target| target.instance.as_str());
        transaction
            .prepare_cached(
                "INSERT INTO records(id, opened_seq, seq, key, opened_at, closed_at, outcome, reason_code, playbook, service,
                 instance, fingerprint, group_key, body, tide) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,
                 max(?5, coalesce((SELECT tide FROM records WHERE opened_seq < ?2 ORDER BY opened_seq DESC LIMIT 1), ?5)))",
            )?
            .execute(params![
                id,
                integer(opened_seq),
                integer(record.seq),
                accepted.key.as_str(),
                nanos(record.opened_at),
                closed_at,
                outcome,
                reason,
                playbook,
                service,
                instance,
                accepted.fingerprint,
                accepted.group_key,
                body
            ])?;
    } else {
        transaction
            .prepare_cached("UPDATE records SET seq=?, closed_at=?, outcome=?, reason_code=?, body=? WHERE id=?")?
            .execute(params![integer(record.seq), closed_at, outcome, reason, body, id])?;
    }
    if let Some(opened_seq) = opened_seq {
        transaction
            .prepare_cached("INSERT OR IGNORE INTO record_alerts(fingerprint, group_key, record) VALUES (?,?,?)")?
            .execute(params![accepted.fingerprint, accepted.group_key, integer(opened_seq)])?;
    }
    for member in &record.members {
        save_alert(transaction, &member.fingerprint, &member.group_key, &id)?;
    }
    Ok(())
}

/// Makes a record findable by one more alert.
fn save_alert(transaction: &Transaction<'_>, fingerprint: &str, group_key: &str, id: &str) -> Result<(), JournalError> {
    transaction
        .prepare_cached(
            "INSERT OR IGNORE INTO record_alerts(fingerprint, group_key, record) SELECT ?, ?, opened_seq FROM records WHERE id = ?",
        )?
        .execute(params![fingerprint, group_key, id])?;
    Ok(())
}

/// Each watch has a row of its own: there may be thousands, and one of them changes at a time.
fn save_watch(transaction: &Transaction<'_>, key: &EpisodeKey, watch: Option<&Watch>) -> Result<(), JournalError> {
    match watch {
        Some(watch) => transaction
            .prepare_cached("INSERT INTO watches(key, body) VALUES (?,?) ON CONFLICT(key) DO UPDATE SET body = excluded.body")?
            .execute(params![key.as_str(), readable(watch)?])?,
        None => transaction.prepare_cached("DELETE FROM watches WHERE key = ?")?.execute([key.as_str()])?,
    };
    Ok(())
}

/// What is stored as one text: neither the watches, which have rows, nor what the stamp has.
fn without_watches(books: &Books) -> Books {
    // No `..`: a new field must say where it is stored.
    let Books { last_at: _, last_decision: _, live, shadow, pauses, drained, watches: _, anchored } = books;
    Books {
        last_at: Timestamp::default(),
        last_decision: None,
        live: live.clone(),
        shadow: shadow.clone(),
        pauses: pauses.clone(),
        drained: drained.clone(),
        watches: BTreeMap::new(),
        anchored: anchored.clone(),
    }
}

/// An alert that joined a watched episode leads to the record that the watch points to. Alertmanager throws our answer
/// away, so that its fingerprint is all that anybody has to look by. The record itself is closed and stays as it is.
fn save_joined(transaction: &Transaction<'_>, entry: &Entry) -> Result<(), JournalError> {
    let Event::Joined { accepted, of: Some(id) } = &entry.event else { return Ok(()) };
    save_alert(transaction, &accepted.fingerprint, &accepted.group_key, &id.to_string())
}

/// The state that the projections hold, or `None` when they are not those of the last entry.
///
/// # Errors
/// The last entry is not what its hash says, or SQLite cannot read.
pub(super) fn load(conn: &Connection) -> Result<Option<State>, JournalError> {
    let head = head(conn)?;
    Ok(stored(conn, head)?)
}

/// The state as the projections have it; made again from the entries when they do not fit.
///
/// # Errors
/// As [`load`] and [`rebuild`].
pub(super) fn loaded_or_made_again(conn: &mut Connection) -> Result<State, JournalError> {
    match load(conn)? {
        Some(state) => Ok(state),
        None => sqlite::write(conn, rebuild),
    }
}

fn stored(conn: &Connection, head: Head) -> rusqlite::Result<Option<State>> {
    let Some(stamp) = get::<Stamp>(conn, "stamp")?.filter(|stamp| stamp.version == VERSION && stamp.head == head) else {
        return Ok(None);
    };
    let Some(books) = get::<Books>(conn, "books")? else { return Ok(None) };
    let mut books = Books { last_at: stamp.last_at, last_decision: stamp.last_decision, ..books };
    let mut statement = conn.prepare("SELECT body FROM watches")?;
    for body in statement.query_map((), |row| row.get::<_, String>(0))? {
        let Ok(watch) = serde_json::from_str::<Watch>(&body?) else { return Ok(None) };
        books.watches.insert(watch.key.clone(), Arc::new(watch));
    }
    let mut open = BTreeMap::new();
    let mut statement = conn.prepare("SELECT body FROM records WHERE closed_at IS NULL")?;
    for body in statement.query_map((), |row| row.get::<_, String>(0))? {
        let Ok(record) = serde_json::from_str::<Record>(&body?) else { return Ok(None) };
        open.insert(record.id, Arc::new(record));
    }
    Ok(Some(State::of(books, open, head)))
}

/// The last entry, checked against its own hash. The rest of the chain is `audit verify`'s business.
fn head(conn: &Connection) -> Result<Head, JournalError> {
    let sql = format!("SELECT {} FROM entries ORDER BY seq DESC LIMIT 1", Link::COLUMNS);
    let Some(last) = conn.query_row(&sql, (), Link::from_row).optional()? else { return Ok(Head::default()) };
    let before = Head { seq: last.seq.saturating_sub(1), hash: last.prev_hash.clone() };
    last.check(&before)?;
    Ok(Head { seq: last.seq, hash: last.hash })
}

/// Throws the projections away and makes them again from the entries.
///
/// # Errors
/// The first entry that cannot be believed: nothing is made from a broken chain.
pub(super) fn rebuild(transaction: &Transaction<'_>) -> Result<State, JournalError> {
    transaction.execute_batch("DELETE FROM record_alerts; DELETE FROM records; DELETE FROM watches; DELETE FROM projections;")?;
    let anchor = Anchor::load(transaction)?;
    // Those that were open when the entries before were pruned.
    let mut opened = anchor.as_ref().map_or_else(|| Ok(BTreeMap::new()), Anchor::opened)?;
    for kept in anchor.as_ref().map_or_else(|| Ok(Vec::new()), Anchor::kept)? {
        save_record(transaction, Some(kept.opened_seq), &kept.record)?;
        for (fingerprint, group_key) in &kept.joined {
            save_alert(transaction, fingerprint, group_key, &kept.record.id.to_string())?;
        }
    }
    let mut failed = None;
    let state = chain::walk(transaction, anchor.as_ref(), |_, entry, closed| {
        if let (Event::Accepted { .. }, Some(id)) = (&entry.event, entry.record) {
            opened.insert(id, entry.seq);
        }
        if let Some(record) = closed {
            let opened_seq = opened.remove(&record.id);
            if let Err(error) = save_record(transaction, opened_seq, record) {
                failed.get_or_insert(error);
            }
        }
        if let Err(error) = save_joined(transaction, entry) {
            failed.get_or_insert(error);
        }
        Ok(())
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let records = state.records().map(|record| (record.id, (opened.get(&record.id).copied(), record))).collect();
    let watches = state.books.watches.keys().cloned().collect();
    let (links, entries) = (&[][..], &[][..]);
    save(transaction, &Changes { links, entries, records: &records, state: &state, books_changed: true, watches: &watches })?;
    // They were written in the order of closing.
    transaction.execute_batch(
        "UPDATE records SET tide = t.tide FROM (SELECT opened_seq, max(opened_at) OVER (ORDER BY opened_seq) AS tide FROM records) t
         WHERE t.opened_seq = records.opened_seq AND t.tide <> records.tide",
    )?;
    Ok(state)
}

/// Whether the projections hold `state`, the fold of all entries. Closed records are not part of a state: see [`agrees`].
pub(super) fn same_as(conn: &Connection, anchor: Option<&Anchor>, state: &State) -> rusqlite::Result<bool> {
    let Some(stored) = stored(conn, state.head.clone())? else { return Ok(state.head.seq == 0) };
    let opened = "SELECT count(*) FROM entries WHERE kind = 'accepted'";
    let records = "SELECT count(*) FROM records";
    let [opened, records] = [opened, records].map(|sql| conn.query_row(sql, (), |row| count(row, 0)));
    let open = anchor.and_then(|anchor| anchor.opened().ok()).map_or(0, |opened| opened.len() as u64);
    let kept = anchor.and_then(|anchor| anchor.kept().ok()).map_or(0, |kept| kept.len() as u64);
    // No record beside those of the entries and the anchor; that each is right was seen one by one.
    Ok(stored == *state && opened? + open + kept == records?)
}

/// Whether the row of a closed record is its fold.
pub(super) fn agrees(conn: &Connection, record: &Record) -> rusqlite::Result<bool> {
    type Row = (String, Option<String>, Option<String>);
    let row: Option<Row> = conn
        .prepare_cached("SELECT body, outcome, reason_code FROM records WHERE id = ?")?
        .query_row([record.id.to_string()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let want = (canonical(record).ok(), record.outcome.map(|o| o.word()), record.reason.map(|r| r.code()));
    Ok(row.is_some_and(|(body, outcome, reason)| (Some(body), outcome.as_deref(), reason.as_deref()) == want))
}

pub(super) fn known(conn: &Connection, id: RecordId) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM records WHERE id = ?")?.exists([id.to_string()])
}

/// Nanoseconds since 1970; jiff's range is wider than what fits, and its ends are as good as any later time.
pub(super) fn nanos(at: Timestamp) -> i64 {
    let nanos = at.as_nanosecond();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

fn put<T: Serialize>(transaction: &Transaction<'_>, name: &str, value: &T) -> Result<(), JournalError> {
    transaction
        .prepare_cached("INSERT INTO projections(name, body) VALUES (?,?) ON CONFLICT(name) DO UPDATE SET body = excluded.body")?
        .execute(params![name, readable(value)?])?;
    Ok(())
}

/// A body that cannot be read (another version's, or a doctored one) counts as missing.
fn get<T: for<'de> Deserialize<'de>>(conn: &Connection, name: &str) -> rusqlite::Result<Option<T>> {
    let body: Option<String> =
        conn.query_row("SELECT body FROM projections WHERE name = ?", [name], |row| row.get(0)).optional()?;
    Ok(body.and_then(|body| serde_json::from_str(&body).ok()))
}

fn readable<T: Serialize>(value: &T) -> Result<String, JournalError> {
    canonical(value).map_err(|error| JournalError::Unwritable { kind: "projection", why: error.to_string() })
}
