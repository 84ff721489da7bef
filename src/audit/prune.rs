//! Pruning: the journal is bounded by age and by size, from the old end of the chain.
//!
//! Promises: what is pruned is replaced by its [`Anchor`](super::anchor), so that the chain stays checkable and the
//! projections can still be made again. A record's row goes when its closing entry goes, unless something still refers to it.
//! Nothing is pruned that is open, that `audit.jsonl` has not got yet, that is younger than any window of the guardrails
//! ([`FLOOR`]), or that belongs to the newest [`KEEP`] entries. A chain that is broken is not pruned: what is wrong with it is
//! evidence.
//!
//! How: in steps of at most [`STEP`] entries. A step is planned on a reading connection: old entries do not change, so
//! the writer only checks that the anchor is still where the plan began, and then deletes; commits go on in between. A step
//! ends where no record is open. Where there is no such place in a whole step, because something is always under way,
//! a record that was open there is carried: the anchor holds what its first entries said, its row stays whole, and only its
//! story begins later. A closed record that is watched, held or drained, which may be so for years, holds nothing back
//! either: the anchor holds it as it was closed ([`Kept`]), its row stays until nothing refers to it, and only its story is gone.
//!
//! Races accepted: the wall clock decides what is old. One that is behind the journal prunes nothing; one that leapt
//! ahead prunes [`STEPS`] steps at each look until somebody sets it right, and never the newest [`KEEP`] entries.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::audit::JournalError;
use crate::audit::anchor::{Anchor, Kept};
use crate::audit::chain::{Head, Link};
use crate::audit::journal::Journal;
use crate::audit::state::State;
use crate::edge::sqlite::{count, integer};
use crate::event::{Entry, Event, Pruned, RecordId};
use crate::guard::ledger::{Books, LONGEST_WINDOW};
use crate::world::Clock;

/// What is younger than this is never pruned, however large the journal is.
pub const FLOOR: SignedDuration = LONGEST_WINDOW;
/// Entries that are kept whatever their age, so that a clock that leapt ahead does not take everything.
pub const KEEP: u64 = 1_000;
/// Entries in one step, hence in one commit.
pub const STEP: usize = 1_000;
/// Bytes of entries in one step: evidence makes single ones megabytes long.
const STEP_BYTES: usize = 16 << 20;
/// Steps of one run; the next look goes on.
const STEPS: usize = 50;
/// How long a run lets others write between two steps.
const BREATH: std::time::Duration = std::time::Duration::from_millis(200);
/// A run by age begins when the oldest entry is this much too old, so that it comes once a day and not for each entry.
const SLACK: SignedDuration = SignedDuration::from_hours(24);
/// How far the clock may be behind the newest entry.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(5);

/// What the journal is bounded by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Older entries are pruned, a day late at the most. At least [`FLOOR`].
    pub age: SignedDuration,
    /// Bytes of data in the database. Above it the oldest entries are pruned until a tenth is free, down to [`FLOOR`].
    pub size: u64,
}

/// How far one step may go.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    /// Entries of this time or later stay.
    pub before: Timestamp,
    /// `audit.jsonl` has every record that was closed up to this entry.
    pub written: u64,
    /// The newest entries that stay whatever their age, those that only say what was pruned not counted; at least the last
    /// one does.
    pub keep: u64,
    /// Entries in this step.
    pub most: usize,
}

/// One step, ready to be carried out.
#[derive(Debug)]
pub struct Cut {
    /// Where the anchor stood when this was planned.
    from: u64,
    anchor: Anchor,
    pub pruned: Pruned,
}

/// What a step came to before it is carried out.
#[derive(Debug)]
pub(super) enum Plan {
    Cut(Box<Cut>),
    /// Nothing is old enough.
    Nothing,
    /// It would go on, but for the record that is open, or the line that is not written, from this entry on.
    Held(u64),
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    pub steps: usize,
    pub entries: u64,
    pub records: u64,
    /// The entry that the last step may not pass: a record that is open, or one without its line in `audit.jsonl`.
    pub held_at: Option<u64>,
    /// The journal is larger than it should be, and everything in it is too young to go.
    pub still_crowded: bool,
    pub clock_behind: bool,
}

/// Prunes what may go now, a step at a time, and gives the room back to the file system.
///
/// # Errors
/// The journal is broken, or cannot be read or written. Steps that were carried out stay so.
pub async fn run(journal: &Journal, clock: &dyn Clock, bounds: Bounds, written: u64) -> Result<Ran, JournalError> {
    let now = clock.now();
    let mut ran = Ran::default();
    if journal.read(|state| state.books.last_at).duration_since(now) > CLOCK_TOLERANCE {
        ran.clock_behind = true;
        return Ok(ran);
    }
    let back = |by: SignedDuration| now.checked_sub(by).unwrap_or(Timestamp::MIN);
    let age = bounds.age.max(FLOOR);
    let crowded = journal.room().await?.live > bounds.size;
    let aged = journal.oldest().await?.is_some_and(|oldest| oldest < back(age.saturating_add(SLACK)));
    if !crowded && !aged {
        return Ok(ran);
    }
    while ran.steps < STEPS {
        let too_large = crowded && journal.room().await?.live > bounds.size / 10 * 9;
        let aim = Aim { before: back(if too_large { FLOOR } else { age }), written, keep: KEEP, most: STEP };
        match journal.prune(aim, clock.now()).await? {
            Step::Done(pruned) => {
                ran.steps += 1;
                ran.entries += pruned.entries;
                ran.records += pruned.records;
            }
            Step::Nothing => break,
            Step::Held(seq) => {
                ran.held_at = Some(seq);
                break;
            }
        }
        clock.sleep(BREATH).await;
    }
    if ran.steps > 0 {
        journal.tidy().await?;
    }
    ran.still_crowded = ran.steps < STEPS && journal.room().await?.live > bounds.size;
    Ok(ran)
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Done(Pruned),
    Nothing,
    /// As [`Ran::held_at`].
    Held(u64),
}

/// Records that something still refers to, although they may be closed.
pub(super) fn needed(books: &Books) -> Vec<RecordId> {
    let held = books.live.held.values().chain(books.shadow.held.values()).map(|held| held.record);
    let drained = books.drained.values().map(|drained| drained.record);
    books.watches.values().map(|watch| watch.record).chain(held).chain(drained).collect()
}

/// Plans the next step. Checks every entry that would go.
///
/// # Errors
/// An entry cannot be believed, or SQLite cannot read.
pub(super) fn plan(conn: &Connection, needed: &[RecordId], aim: Aim) -> Result<Plan, JournalError> {
    // One read transaction, so that anchor, records and entries are of one moment.
    let view = conn.unchecked_transaction()?;
    let stop = stop(&view, aim)?;
    let anchor = Anchor::load(&view)?;
    let mut state = anchor.as_ref().map_or_else(|| Ok(State::default()), Anchor::state)?;
    let mut opened = anchor.as_ref().map_or_else(|| Ok(BTreeMap::new()), Anchor::opened)?;
    let mut kept = anchor.as_ref().map_or_else(|| Ok(Vec::new()), Anchor::kept)?;
    kept.retain(|kept| needed.contains(&kept.record.id));
    let from = state.head.seq;
    let (entries, held) = take(&view, &state, stop.at, aim)?;
    if entries.is_empty() {
        return Ok(if held && stop.needed { Plan::Held(stop.at) } else { Plan::Nothing });
    }
    let mut records = 0;
    let mut before = Timestamp::MIN;
    for (entry, hash) in &entries {
        if let Some((id, seq)) = opening(entry) {
            opened.insert(id, seq);
        }
        if let Some(record) = state.apply(entry)? {
            records += 1;
            if let Some(opened_seq) = opened.remove(&record.id).filter(|_| needed.contains(&record.id)) {
                kept.push(Kept { opened_seq, hash: hash.clone(), record, joined: BTreeSet::new() });
            }
        }
        kept.iter_mut().for_each(|kept| kept.hear(entry));
        state.head.hash.clone_from(hash);
        before = before.max(entry.at);
    }
    let anchor = Anchor::of(&state, &opened, kept)?;
    let pruned = Pruned {
        through: state.head.seq,
        anchor_hash: state.head.hash.clone(),
        before,
        entries: entries.len() as u64,
        records,
        state_sha256: anchor.state_sha256(),
    };
    Ok(Plan::Cut(Box::new(Cut { from, anchor, pruned })))
}

/// The entries of a step with their hashes, and whether it was `stop` that ended them.
fn take(conn: &Connection, from: &State, stop: u64, aim: Aim) -> Result<(Vec<(Entry, String)>, bool), JournalError> {
    let sql = format!("SELECT {} FROM entries WHERE seq > ? ORDER BY seq LIMIT ?", Link::COLUMNS);
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([integer(from.head.seq), integer(aim.most as u64)])?;
    let mut open: BTreeSet<RecordId> = from.open.keys().copied().collect();
    let mut head: Head = from.head.clone();
    let mut taken: Vec<(Entry, String)> = Vec::new();
    let (mut clean, mut bytes) = (0, 0);
    let (mut held, mut full) = (false, false);
    while let Some(row) = rows.next()? {
        let link = Link::from_row(row)?;
        let entry = link.check(&head)?;
        if link.seq >= stop || entry.at >= aim.before {
            held = entry.at < aim.before;
            break;
        }
        bytes += link.body.len();
        match (&entry.event, entry.record) {
            (Event::Accepted { .. }, Some(id)) => _ = open.insert(id),
            (Event::Closed { .. }, Some(id)) => _ = open.remove(&id),
            _ => {}
        }
        head = Head { seq: link.seq, hash: link.hash.clone() };
        taken.push((entry, link.hash));
        if open.is_empty() {
            clean = taken.len();
        }
        full = taken.len() >= aim.most || bytes > STEP_BYTES;
        if full {
            break;
        }
    }
    // Where records are always under way there is no clean place, and a full step carries those that are open.
    if clean > 0 || !full {
        taken.truncate(clean);
    }
    Ok((taken, held))
}

/// Where a step must end.
struct Stop {
    /// The first entry that must stay.
    at: u64,
    /// Because somebody needs it, and not only because it is one of the newest.
    needed: bool,
}

fn stop(conn: &Connection, aim: Aim) -> Result<Stop, JournalError> {
    let first = |sql: &str, value: i64| -> rusqlite::Result<Option<u64>> {
        conn.prepare_cached(sql)?.query_row([value], |row| count(row, 0)).optional()
    };
    let newest = first("SELECT seq FROM entries WHERE seq > ? ORDER BY seq DESC LIMIT 1", 0)?.unwrap_or(0);
    // Else each step would take one entry and write one, until nothing but such entries is left.
    let of_pruning = first("SELECT count(*) FROM entries WHERE kind = 'pruned' AND seq > ?", 0)?.unwrap_or(0);
    let young = (newest + 1).saturating_sub(aim.keep.max(1) + of_pruning);
    let open = first("SELECT opened_seq FROM records WHERE closed_at IS NULL AND opened_seq > ? ORDER BY opened_seq LIMIT 1", 0)?;
    let unwritten = "SELECT seq FROM records WHERE closed_at IS NOT NULL AND seq > ? ORDER BY seq LIMIT 1";
    let unwritten = first(unwritten, integer(aim.written))?;
    let needed = [open, unwritten].into_iter().flatten().min().filter(|seq| *seq < young);
    Ok(Stop { at: needed.unwrap_or(young), needed: needed.is_some() })
}

/// Takes out what the cut says. The `pruned` entry is written by the caller, in the same transaction.
///
/// # Errors
/// [`JournalError::Outdated`]: the anchor has moved since the cut was planned. Or whatever SQLite says.
pub(super) fn carry_out(transaction: &Transaction<'_>, cut: &Cut) -> Result<(), JournalError> {
    let stands = Anchor::load(transaction)?.map_or(0, |anchor| anchor.head.seq);
    if stands != cut.from {
        return Err(JournalError::Outdated);
    }
    // First, because it is what allows the rest: no entry after the anchor can be deleted.
    cut.anchor.store(transaction)?;
    let through = integer(cut.pruned.through);
    let kept: Vec<String> = cut.anchor.kept()?.iter().map(|kept| kept.record.id.to_string()).collect();
    let kept = serde_json::json!(kept).to_string();
    let gone =
        "SELECT opened_seq FROM records WHERE closed_at IS NOT NULL AND seq <= ? AND id NOT IN (SELECT value FROM json_each(?))";
    transaction.execute(&format!("DELETE FROM record_alerts WHERE record IN ({gone})"), params![through, kept])?;
    transaction.execute(&format!("DELETE FROM records WHERE opened_seq IN ({gone})"), params![through, kept])?;
    let gone = transaction.execute("DELETE FROM entries WHERE seq <= ?", [through])?;
    if gone as u64 != cut.pruned.entries {
        return Err(JournalError::Outdated);
    }
    Ok(())
}

fn opening(entry: &Entry) -> Option<(RecordId, u64)> {
    entry.record.filter(|_| matches!(entry.event, Event::Accepted { .. })).map(|id| (id, entry.seq))
}

#[cfg(test)]
mod tests;
