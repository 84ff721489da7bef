//! A journal as long as somebody wants to measure with, made in minutes: valid entry by entry, chained and folded like any
//! other, but written without a sync and with its indexes made at the end. For `make bench`; a crash leaves rubbish.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use crate::audit::JournalError;
use crate::audit::chain::{Head, Link};
use crate::audit::journal::DATABASE;
pub use crate::audit::projection::MIGRATIONS;
use crate::audit::projection::{self, Changes};
use crate::audit::state::State;
use crate::edge::sqlite;
pub use crate::edge::sqlite::WAL_PAGES;
use crate::event::{Draft, Entry, Event, Record, RecordId};

/// A journal that is being made.
pub struct Bulk {
    conn: Connection,
    state: State,
    opened: BTreeMap<RecordId, u64>,
    /// The statements that make the indexes again.
    indexes: Vec<String>,
}

impl Bulk {
    /// In a directory that holds no journal yet.
    ///
    /// # Errors
    /// There is one, or SQLite cannot write.
    pub fn begin(dir: &Path) -> Result<Bulk, JournalError> {
        let path = dir.join(DATABASE);
        // Before anything is touched: what follows takes the indexes away.
        if path.exists() {
            let why = format!("{} is there already", path.display());
            return Err(JournalError::Unwritable { kind: "journal", why });
        }
        let conn = sqlite::writer(&path, MIGRATIONS)?;
        conn.pragma_update_and_check(None, "journal_mode", "off", |_| Ok(()))?;
        conn.pragma_update(None, "synchronous", "off")?;
        let made = "SELECT sql, name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL";
        let mut statement = conn.prepare(made)?;
        let found = statement.query_map((), |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        let found = found.collect::<rusqlite::Result<Vec<_>>>()?;
        drop(statement);
        for (_, name) in &found {
            conn.execute_batch(&format!("DROP INDEX {name}"))?;
        }
        let indexes = found.into_iter().map(|(sql, _)| sql).collect();
        Ok(Bulk { conn, state: State::default(), opened: BTreeMap::new(), indexes })
    }

    /// Appends these, in one transaction.
    ///
    /// # Errors
    /// An entry that the journal itself would refuse, or SQLite cannot write.
    pub fn append(&mut self, drafts: Vec<Draft>) -> Result<(), JournalError> {
        let (mut links, mut entries) = (Vec::new(), Vec::new());
        let mut closed: BTreeMap<RecordId, Arc<Record>> = BTreeMap::new();
        for Draft { at, record, event } in drafts {
            let kind = event.kind();
            let entry = Entry { seq: self.state.head.seq + 1, at, record, event };
            let forged = Link::forge(&entry, &self.state.head).map_err(|why| JournalError::Unwritable { kind, why })?;
            let (link, entry) = forged;
            closed.extend(self.state.apply(&entry)?.map(|record| (record.id, record)));
            self.state.head = Head { seq: link.seq, hash: link.hash.clone() };
            if let (Event::Accepted { .. }, Some(id)) = (&entry.event, entry.record) {
                self.opened.insert(id, entry.seq);
            }
            links.push(link);
            entries.push(entry);
        }
        let mut records = BTreeMap::new();
        for (id, record) in &closed {
            records.insert(*id, (self.opened.remove(id), &**record));
        }
        let watches = BTreeSet::new();
        let state = &self.state;
        let changes =
            Changes { links: &links, entries: &entries, records: &records, state, books_changed: false, watches: &watches };
        sqlite::write(&mut self.conn, |transaction| projection::save(transaction, &changes))
    }

    /// Writes what is still open and what is watched, makes the indexes, and answers the head.
    ///
    /// # Errors
    /// SQLite cannot write.
    pub fn finish(mut self) -> Result<Head, JournalError> {
        let opened = &self.opened;
        let records = self.state.records().map(|record| (record.id, (opened.get(&record.id).copied(), record))).collect();
        let watches = self.state.books.watches.keys().cloned().collect();
        let state = &self.state;
        let changes = Changes { links: &[], entries: &[], records: &records, state, books_changed: true, watches: &watches };
        sqlite::write(&mut self.conn, |transaction| projection::save(transaction, &changes))?;
        for sql in &self.indexes {
            self.conn.execute_batch(sql)?;
        }
        self.conn.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        Ok(self.state.head)
    }
}
