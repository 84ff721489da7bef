//! The hash chain: whoever changes, removes, adds or reorders an entry changes every hash after it.
//!
//! `hash = SHA-256(prev_hash "\n" body)`, in lower-case hexadecimal, where `body` is the canonical JSON of the entry and
//! the first `prev_hash` is 64 zeros. With the columns of one row at hand:
//!
//! ```sh
//! printf '%s\n%s' "$prev_hash" "$body" | sha256sum
//! ```
//!
//! Canonical JSON is what [`canonical`] says. An entry is read back from its body before it is folded, so that what is in
//! memory never knows more than what is on the disk.
//!
//! The old end may be pruned: then the walk begins at the [`Anchor`], which says what hash the first entry follows and what
//! all before it added up to, and for which the newest `pruned` entry of the chain vouches.
//!
//! Accepted: someone who can write the file can rewrite *all* of it. That is noticed by the head hash, which leaves the
//! machine with every page and on `/metrics`; `audit verify --head` compares. That an id was used before is noticed only
//! while its entries are there; ids are random.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::audit::JournalError;
use crate::audit::anchor::Anchor;
use crate::audit::canonical::canonical;
use crate::audit::projection;
use crate::audit::state::State;
use crate::edge::sqlite;
use crate::event::{Entry, Event, Record};
use crate::guard::ledger::Anchored;
use crate::target::hex;

/// What stands before the first entry.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What to do about a projection that is not the fold of its entries.
const REMEDY: &str = "`remediator audit rebuild` makes it again";

/// The last entry: its number and its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub seq: u64,
    pub hash: String,
}

/// One row of `entries`, as it stands in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub seq: u64,
    pub ts: String,
    pub record: Option<String>,
    pub kind: String,
    pub body: String,
    pub prev_hash: String,
    pub hash: String,
}

/// The first entry that cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal is broken at entry {seq}: {why}")]
pub struct Broken {
    pub seq: u64,
    pub why: String,
}

/// What a whole walk along the chain found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Those that are kept.
    pub entries: u64,
    pub head: Head,
    /// What was pruned before them.
    pub anchor: Option<Anchored>,
}

#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("the journal could not be read")]
    Store(#[from] rusqlite::Error),
}

impl Default for Head {
    fn default() -> Self {
        Head { seq: 0, hash: GENESIS.to_owned() }
    }
}

impl From<ChainError> for JournalError {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Broken(broken) => broken.into(),
            ChainError::Store(error) => error.into(),
        }
    }
}

/// The hash of an entry whose predecessor has `prev_hash`.
pub fn hash(prev_hash: &str, body: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(prev_hash.as_bytes());
    hash.update(b"\n");
    hash.update(body.as_bytes());
    hex(&hash.finalize())
}

impl Link {
    pub(super) const COLUMNS: &'static str = "seq, ts, record, kind, body, prev_hash, hash";

    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Link> {
        Ok(Link {
            seq: sqlite::count(row, 0)?,
            ts: row.get(1)?,
            record: row.get(2)?,
            kind: row.get(3)?,
            body: row.get(4)?,
            prev_hash: row.get(5)?,
            hash: row.get(6)?,
        })
    }

    /// The link that `entry` makes after `head`, and the entry as its body gives it back.
    ///
    /// # Errors
    /// Says why the entry cannot be written so that it can be read.
    pub(super) fn forge(entry: &Entry, head: &Head) -> Result<(Link, Entry), String> {
        let body = canonical(entry).map_err(|error| error.to_string())?;
        let read: Entry = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        // Equal entries have equal bodies; the others differ in a fraction that was cut, or in what cannot be read back.
        if read != *entry && canonical(&read).map_err(|error| error.to_string())? != body {
            return Err("it does not read back as it was written".to_owned());
        }
        let link = Link {
            seq: read.seq,
            ts: read.at.to_string(),
            record: read.record.map(|id| id.to_string()),
            kind: read.event.kind().to_owned(),
            hash: hash(&head.hash, &body),
            prev_hash: head.hash.clone(),
            body,
        };
        Ok((link, read))
    }

    /// The entry of this link, if the link is what must follow `head`.
    ///
    /// # Errors
    /// Names the first thing that is wrong.
    pub fn check(&self, head: &Head) -> Result<Entry, Broken> {
        let broken = |why: String| Broken { seq: self.seq, why };
        if self.seq != head.seq + 1 {
            let why = format!("it follows entry {}, so {} should be here", head.seq, head.seq + 1);
            return Err(broken(why));
        }
        if self.prev_hash != head.hash {
            return Err(broken("its prev_hash is not the hash of the entry before".to_owned()));
        }
        if hash(&self.prev_hash, &self.body) != self.hash {
            return Err(broken("its hash is not that of its body".to_owned()));
        }
        let entry: Entry =
            serde_json::from_str(&self.body).map_err(|error| broken(format!("its body cannot be read: {error}")))?;
        if canonical(&entry).ok().as_deref() != Some(self.body.as_str()) {
            return Err(broken("its body is not canonical".to_owned()));
        }
        let columns = (self.seq, self.ts.clone(), self.record.clone(), self.kind.as_str());
        if columns != (entry.seq, entry.at.to_string(), entry.record.map(|id| id.to_string()), entry.event.kind()) {
            return Err(broken("its columns do not say what its body says".to_owned()));
        }
        Ok(entry)
    }
}

/// Walks the whole chain from the anchor on, folding as it goes; `each` sees every entry with the record that it closed.
///
/// # Errors
/// The first entry that cannot be believed, or whatever `each` or SQLite said.
pub(super) fn walk(
    conn: &Connection,
    anchor: Option<&Anchor>,
    mut each: impl FnMut(&Link, &Entry, Option<&Record>) -> Result<(), ChainError>,
) -> Result<State, ChainError> {
    let mut state = anchor.map_or_else(|| Ok(State::default()), Anchor::state)?;
    // The state forgets closed records, and an id must not come twice.
    let mut opened = BTreeSet::new();
    let mut statement = conn.prepare(&format!("SELECT {} FROM entries ORDER BY seq", Link::COLUMNS))?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        let seq = row.get::<_, i64>(0)?;
        let link = Link::from_row(row)
            .map_err(|error| Broken { seq: u64::try_from(seq).unwrap_or(0), why: format!("its row cannot be read: {error}") })?;
        let entry = link.check(&state.head)?;
        if let (Event::Accepted { .. }, Some(id)) = (&entry.event, entry.record)
            && !opened.insert(id)
        {
            return Err(Broken { seq: entry.seq, why: format!("record {id} is opened a second time") }.into());
        }
        let closed = state.apply(&entry).map_err(|illegal| Broken { seq: entry.seq, why: illegal.to_string() })?;
        state.head.hash.clone_from(&link.hash);
        each(&link, &entry, closed.as_deref())?;
    }
    Anchor::vouched(anchor, &state)?;
    Ok(state)
}

/// Walks everything: the chain, the legality of every transition, and whether the projections say what the entries say.
///
/// # Errors
/// [`ChainError::Broken`] names the first entry that cannot be believed. A record or books that differ from their fold
/// are told at the entry that they claim to be folded up to.
pub fn verify(conn: &Connection) -> Result<Verified, ChainError> {
    // One read transaction: a remediator may be writing meanwhile.
    let view = conn.unchecked_transaction()?;
    let mut entries = 0;
    // Told only when the whole chain is sound: the entries are the truth, and a table can be made again.
    let mut astray = None;
    let anchor = Anchor::load(&view)?;
    let state = walk(&view, anchor.as_ref(), |_, entry, closed| {
        entries += 1;
        if let Some(record) = closed.filter(|_| astray.is_none())
            && !projection::agrees(&view, record)?
        {
            let why = format!("record {} in the table `records` is not what its entries say; {REMEDY}", record.id);
            astray = Some(Broken { seq: entry.seq, why });
        }
        Ok(())
    })?;
    for kept in anchor.as_ref().map_or_else(|| Ok(Vec::new()), Anchor::kept)? {
        if astray.is_none() && !projection::agrees(&view, &kept.record)? {
            let why = format!("record {} in the table `records` is not what the anchor says; {REMEDY}", kept.record.id);
            astray = Some(Broken { seq: kept.record.seq, why });
        }
    }
    if let Some(broken) = astray {
        return Err(broken.into());
    }
    if !projection::same_as(&view, anchor.as_ref(), &state)? {
        let why = format!("the projections are not what the entries say; {REMEDY}");
        return Err(Broken { seq: state.head.seq, why }.into());
    }
    Ok(Verified { entries, head: state.head, anchor: state.books.anchored })
}

/// The entry with this hash: a hash that once left the machine must be there for ever.
///
/// # Errors
/// SQLite cannot read.
pub fn locate(conn: &Connection, hash: &str) -> Result<Option<u64>, rusqlite::Error> {
    conn.query_row("SELECT seq FROM entries WHERE hash = ?", [hash], |row| sqlite::count(row, 0)).optional()
}
