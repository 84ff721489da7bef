//! What the journal knows, in memory: the fold of all its entries, without the records that are closed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::audit::chain::Head;
use crate::event::{Entry, Event, IllegalTransition, Record, RecordId};
use crate::guard::ledger::Books;
use crate::target::EpisodeKey;

/// Everything that a transaction may look at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub books: Books,
    /// Records that have no outcome yet. Behind a pointer: a map moves what it holds, and a record is large.
    pub open: BTreeMap<RecordId, Arc<Record>>,
    pub head: Head,
    /// The open records by their episodes: a storm looks up thousands, and must not walk through all of them for each.
    keys: BTreeSet<(EpisodeKey, RecordId)>,
}

/// What a batch changed beside its records.
pub(super) struct Touched {
    /// Any of the books but their watches and what changes with nearly every entry.
    pub books: bool,
    pub watches: BTreeSet<EpisodeKey>,
}

impl State {
    pub fn of(books: Books, open: BTreeMap<RecordId, Arc<Record>>, head: Head) -> State {
        let keys = open.values().map(|record| (record.accepted.key.clone(), record.id)).collect();
        State { books, open, head, keys }
    }

    /// The open records.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.open.values().map(|record| &**record)
    }

    /// The open record of an episode; the oldest, should there be several.
    pub fn under_way(&self, key: &EpisodeKey) -> Option<&Record> {
        let first = (key.clone(), RecordId(uuid::Uuid::nil()));
        let (of, id) = self.keys.range(first..).next()?;
        if of == key { self.open.get(id).map(|record| &**record) } else { None }
    }

    /// Folds one entry in: first its record, then the books. Answers the record if the entry closed it.
    /// `head.hash` is the chain's business and stays as it is.
    ///
    /// # Errors
    /// Every transition that [`Record::apply`] does not name, and an entry of a record that is not open; the state is
    /// left as it was.
    pub fn apply(&mut self, entry: &Entry) -> Result<Option<Arc<Record>>, IllegalTransition> {
        let Some(id) = entry.record else {
            if must_have_record(&entry.event) {
                return Err(nowhere(entry, "no record"));
            }
            self.books.apply(entry, None);
            self.head.seq = entry.seq;
            return Ok(None);
        };
        if !must_have_record(&entry.event) {
            return Err(nowhere(entry, "a record"));
        }
        match self.open.get_mut(&id) {
            Some(record) => Arc::make_mut(record).apply(entry)?,
            // Says "nothing" for a record that is closed, too: the state does not remember those.
            None => {
                let record = Record::open(entry)?;
                self.keys.insert((record.accepted.key.clone(), id));
                self.open.insert(id, Arc::new(record));
            }
        }
        let record = self.open.get(&id).map(|record| &**record);
        self.books.apply(entry, record);
        self.head.seq = entry.seq;
        let closed = record.is_some_and(Record::is_closed);
        let ended = if closed { self.open.remove(&id) } else { None };
        if let Some(record) = &ended {
            self.keys.remove(&(record.accepted.key.clone(), id));
        }
        Ok(ended)
    }

    /// Becomes the same as `ahead`, which is this state and one batch more. `records` are those that the batch is about.
    pub(super) fn follow(&mut self, ahead: &State, records: impl Iterator<Item = RecordId>, touched: &Touched) {
        for id in records {
            if let Some(record) = ahead.open.get(&id) {
                self.keys.insert((record.accepted.key.clone(), id));
                self.open.insert(id, Arc::clone(record));
            } else if let Some(record) = self.open.remove(&id) {
                self.keys.remove(&(record.accepted.key.clone(), id));
            }
        }
        for key in &touched.watches {
            match ahead.books.watches.get(key) {
                Some(watch) => drop(self.books.watches.insert(key.clone(), Arc::clone(watch))),
                None => drop(self.books.watches.remove(key)),
            }
        }
        // No `..`: a new field must say how it follows.
        let Books { last_at, last_decision, live, shadow, pauses, drained, watches: _, anchored } = &ahead.books;
        (self.books.last_at, self.books.last_decision) = (*last_at, *last_decision);
        if touched.books {
            self.books.live.clone_from(live);
            self.books.shadow.clone_from(shadow);
            self.books.pauses.clone_from(pauses);
            self.books.drained.clone_from(drained);
            self.books.anchored.clone_from(anchored);
        }
        self.head.clone_from(&ahead.head);
    }
}

/// What is said of one record, as against the whole program. `readmitted`, `joined` and `watch_ended` are said of a server and an
/// episode, whose records are closed by then.
fn must_have_record(event: &Event) -> bool {
    !matches!(
        event,
        Event::Joined { .. }
            | Event::WatchEnded { .. }
            | Event::Readmitted { .. }
            | Event::Paused { .. }
            | Event::Resumed { .. }
            | Event::BreakerReset { .. }
            | Event::Started { .. }
            | Event::Pruned { .. }
    )
}

fn nowhere(entry: &Entry, phase: &str) -> IllegalTransition {
    IllegalTransition {
        seq: entry.seq,
        record: entry.record.map(|id| id.to_string()).unwrap_or_default(),
        event: entry.event.kind(),
        phase: phase.to_owned(),
    }
}
