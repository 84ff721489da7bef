//! What stands in the place of the entries that were pruned: the hash that the first kept entry follows, and the state
//! that everything before it added up to.
//!
//! Promise: the chain stays checkable, and the projections can still be made again. Nobody can move the anchor or change
//! its state unnoticed: the newest `pruned` entry, which is part of the chain, names the anchor's number, its hash and
//! the SHA-256 of its state's text. The anchor is written in the same transaction as that entry and the deletion.
//!
//! The state's text is canonical JSON and is read by every later version: its shape may grow by fields with defaults,
//! and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::audit::JournalError;
use crate::audit::canonical::canonical;
use crate::audit::chain::{self, Broken, Head};
use crate::audit::state::State;
use crate::edge::sqlite::{count, integer};
use crate::event::{Entry, Event, Record, RecordId};
use crate::guard::ledger::Books;
use crate::target::hex;

/// The anchor as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The last entry that was pruned.
    pub head: Head,
    /// [`Folded`], as canonical JSON.
    text: String,
}

/// Where a hash that was given out earlier is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// It is the hash of this entry, which is kept.
    Kept(u64),
    /// It is the anchor's: of the last entry that was pruned.
    Anchor(u64),
    /// It was an anchor's earlier: a kept `pruned` entry names it as the hash of this entry.
    Earlier(u64),
    /// Nothing was ever pruned and it is not there: the journal was cut or rewritten.
    Missing,
    /// It is older than the anchor, or it is not this journal's. Nobody can tell which from this journal.
    Untold,
}

/// The state at the anchor.
#[derive(Serialize, Deserialize)]
struct Folded {
    books: Books,
    open: Vec<Carried>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kept: Vec<Kept>,
}

/// A record that was opened before the anchor and closed after it: its first entries are gone, what they say is not.
#[derive(Serialize, Deserialize)]
struct Carried {
    opened_seq: u64,
    record: Record,
}

/// A record that was closed before the anchor and that something still refers to: a watch, a hold, a server that is drained
/// in its name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    pub opened_seq: u64,
    /// Of its closing entry.
    pub hash: String,
    pub record: Arc<Record>,
    /// Fingerprints and group keys of alerts that joined its episode after it was closed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub joined: BTreeSet<(String, String)>,
}

impl Kept {
    /// Takes note of an alert that led to this record.
    pub fn hear(&mut self, entry: &Entry) {
        if let Event::Joined { accepted, of: Some(id) } = &entry.event
            && *id == self.record.id
        {
            self.joined.insert((accepted.fingerprint.clone(), accepted.group_key.clone()));
        }
    }
}

impl Anchor {
    /// The anchor that `state` makes; `opened` has the first entry of each record that is open in it, and `kept` are those that
    /// are closed and stay.
    ///
    /// # Errors
    /// The state cannot be written as JSON, or an open record has no first entry.
    pub(super) fn of(state: &State, opened: &BTreeMap<RecordId, u64>, kept: Vec<Kept>) -> Result<Anchor, JournalError> {
        let unwritable = |why: String| JournalError::Unwritable { kind: "anchor", why };
        let carried = |record: &Record| {
            let id = &record.id;
            let opened_seq = *opened.get(id).ok_or_else(|| unwritable(format!("record {id} was never opened")))?;
            Ok(Carried { opened_seq, record: record.clone() })
        };
        let open = state.records().map(carried).collect::<Result<_, JournalError>>()?;
        let folded = Folded { books: state.books.clone(), open, kept };
        let text = canonical(&folded).map_err(|error| unwritable(error.to_string()))?;
        Ok(Anchor { head: state.head.clone(), text })
    }

    /// None: nothing was ever pruned.
    ///
    /// # Errors
    /// SQLite cannot read it.
    pub fn load(conn: &Connection) -> rusqlite::Result<Option<Anchor>> {
        conn.prepare_cached("SELECT seq, hash, state FROM anchor")?
            .query_row((), |row| Ok(Anchor { head: Head { seq: count(row, 0)?, hash: row.get(1)? }, text: row.get(2)? }))
            .optional()
    }

    /// # Errors
    /// Whatever SQLite says, such as that the anchor would move back.
    pub(super) fn store(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let sql = "INSERT INTO anchor(id, seq, hash, state) VALUES (1,?,?,?)
                   ON CONFLICT(id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, state = excluded.state";
        transaction.execute(sql, params![integer(self.head.seq), self.head.hash, self.text]).map(|_| ())
    }

    /// The SHA-256 of the state's text, in hexadecimal: `sqlite3 journal.db 'SELECT state FROM anchor' | tr -d '\n' | sha256sum`.
    pub fn state_sha256(&self) -> String {
        hex(&Sha256::digest(self.text.as_bytes()))
    }

    /// The state from which the first kept entry goes on.
    ///
    /// # Errors
    /// The text cannot be read.
    pub(super) fn state(&self) -> Result<State, Broken> {
        let Folded { books, open, .. } = self.folded()?;
        let open = open.into_iter().map(|carried| (carried.record.id, Arc::new(carried.record))).collect();
        Ok(State::of(books, open, self.head.clone()))
    }

    /// The first entry of each record that was open at the anchor.
    ///
    /// # Errors
    /// The text cannot be read.
    pub(super) fn opened(&self) -> Result<BTreeMap<RecordId, u64>, Broken> {
        Ok(self.folded()?.open.into_iter().map(|carried| (carried.record.id, carried.opened_seq)).collect())
    }

    /// Closed records that stay.
    ///
    /// # Errors
    /// The text cannot be read.
    pub(super) fn kept(&self) -> Result<Vec<Kept>, Broken> {
        Ok(self.folded()?.kept)
    }

    fn folded(&self) -> Result<Folded, Broken> {
        serde_json::from_str(&self.text).map_err(|error| self.broken(format!("the anchor's state cannot be read: {error}")))
    }

    /// Whether the newest `pruned` entry of the chain, which `state` was folded from, means exactly this anchor.
    ///
    /// # Errors
    /// Says what differs.
    pub(super) fn vouched(anchor: Option<&Anchor>, state: &State) -> Result<(), Broken> {
        let named = state.books.anchored.as_ref().map(|anchored| &anchored.pruned);
        let (anchor, named) = match (anchor, named) {
            (None, None) => return Ok(()),
            (None, Some(named)) => {
                let why =
                    format!("entries until {} were pruned, and the anchor that was left in their place is gone", named.through);
                return Err(Broken { seq: named.through, why });
            }
            (Some(anchor), None) => return Err(anchor.broken("there is an anchor, and no entry says that anything was pruned")),
            (Some(anchor), Some(named)) => (anchor, named),
        };
        if (named.through, &named.anchor_hash) != (anchor.head.seq, &anchor.head.hash) {
            return Err(anchor.broken(format!("the newest `pruned` entry names another anchor, entry {}", named.through)));
        }
        if named.state_sha256 != anchor.state_sha256() {
            return Err(anchor.broken("the anchor's state is not what the newest `pruned` entry vouches for"));
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn literal(seq: u64, hash: &str, text: &str) -> Anchor {
        Anchor { head: Head { seq, hash: hash.to_owned() }, text: text.to_owned() }
    }

    fn broken(&self, why: impl Into<String>) -> Broken {
        Broken { seq: self.head.seq, why: why.into() }
    }
}

/// Where a hash stands that was given out earlier.
///
/// # Errors
/// SQLite cannot read.
pub fn place(conn: &Connection, hash: &str) -> Result<Whereabouts, rusqlite::Error> {
    if let Some(seq) = chain::locate(conn, hash)? {
        return Ok(Whereabouts::Kept(seq));
    }
    let Some(anchor) = Anchor::load(conn)? else { return Ok(Whereabouts::Missing) };
    if anchor.head.hash == hash {
        return Ok(Whereabouts::Anchor(anchor.head.seq));
    }
    let mut statement = conn.prepare("SELECT body FROM entries WHERE kind = 'pruned' ORDER BY seq")?;
    for body in statement.query_map((), |row| row.get::<_, String>(0))? {
        if let Ok(Event::Pruned { pruned }) = serde_json::from_str(&body?)
            && pruned.anchor_hash == hash
        {
            return Ok(Whereabouts::Earlier(pruned.through));
        }
    }
    Ok(Whereabouts::Untold)
}
