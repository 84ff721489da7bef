//! One batch: from closures to entries on the disk, or to nothing at all.
//!
//! Promise: every command of a batch sees the newest state, the earlier commands of the same batch included; all
//! entries of the batch are committed at once; nobody is answered and nothing is published before that; when the commit
//! fails, everybody is told, and the state is the committed one again.
//!
//! How: two states. `working` runs ahead within a batch; the published one follows once the entries are on the disk, by
//! sharing what the batch touched ([`State::follow`]). The two are equal between batches, and going back is copying the
//! published one.
//!
//! Beside batches the writer has chores, one commit each: taking out old entries, giving free pages back.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use crate::audit::JournalError;
use crate::audit::chain::{Head, Link};
use crate::audit::projection::{self, Changes};
use crate::audit::prune::{self, Cut};
use crate::audit::pulse;
use crate::audit::state::{State, Touched};
use crate::edge::sqlite;
use crate::event::{Draft, Entry, Event, IllegalTransition, Record, RecordId};
use crate::guard::ledger::Books;
use crate::target::EpisodeKey;

/// Longest body of one entry, in bytes. The largest are evidence: a few hundred log lines of 2,000 bytes each.
const MAX_BODY: usize = 8 << 20;

/// What everybody may see, from any thread.
pub(super) struct Published {
    pub state: RwLock<State>,
    pub seq: watch::Sender<u64>,
    /// The number of the newest entry that closed a record since the start; before the first, of the newest at all. Whoever
    /// follows records is not woken by everything else.
    pub closed: watch::Sender<u64>,
    /// As `closed`, for orders to abort: every run that may still be broken off waits for one.
    pub aborted: watch::Sender<u64>,
    /// Commits since the start.
    pub commits: AtomicU64,
    /// Why the last commit failed; none once one succeeds.
    pub trouble: RwLock<Option<String>>,
    /// The writer does not answer: nothing fails, and nothing is written.
    pub hangs: AtomicBool,
    /// Drills: everybody waits while this is set.
    pub hung: AtomicBool,
    /// Drills: the next commits fail as on a full disk.
    pub full: AtomicBool,
    /// Drills: the next commits are written, and then their sync fails.
    pub unsynced: AtomicBool,
    /// Drills: for how many milliseconds whoever begins the next step waits.
    pub stalled: AtomicU64,
    /// Drills: what such a commit left behind in the WAL. The next commit writes over it; the next process may find it.
    pub ghost: Mutex<Vec<Draft>>,
}

/// A transaction whose types are forgotten, so that a queue can hold it.
pub(super) trait Command: Send {
    fn draft(&mut self, state: &State) -> Vec<Draft>;
    /// When the heart beat, for what needs a commit without having an entry.
    fn beat(&self) -> Option<Timestamp> {
        None
    }
    fn answer(self: Box<Self>, result: Result<Vec<Entry>, JournalError>);
}

/// What the writer is asked for.
pub(super) enum Errand {
    Transact(Box<dyn Command>),
    Chore(Chore),
}

pub(super) enum Chore {
    /// Carry out a step of pruning, and write down at what time.
    Prune { cut: Box<Cut>, at: Timestamp, reply: oneshot::Sender<Result<(), JournalError>> },
    /// Give so many free pages back; answers how many are left.
    Shrink { pages: u32, reply: oneshot::Sender<Result<u64, JournalError>> },
    /// Cut the WAL to nothing, unless somebody reads from it.
    EmptyWal { reply: oneshot::Sender<Result<bool, JournalError>> },
}

pub(super) struct Transaction<F, T> {
    pub body: Option<F>,
    pub value: Option<T>,
    pub reply: oneshot::Sender<Result<(Vec<Entry>, T), JournalError>>,
}

/// Entries after which the WAL is worth being brought into the database: about a thousand pages, which is where SQLite would
/// do it by itself, within a commit that somebody waits for.
const BEHIND: usize = 128;

/// The connection that writes, and the state that runs ahead.
pub(super) struct Core {
    pub conn: Connection,
    /// Which file it was that was opened; none in memory.
    file: Option<sqlite::Identity>,
    working: State,
    published: Arc<Published>,
    /// Entries that were committed since the WAL was last brought into the database.
    since: usize,
}

/// What the commands of a batch have made so far.
#[derive(Default)]
struct Staged {
    links: Vec<Link>,
    entries: Vec<Entry>,
    /// Records that were opened in this batch, with the number of their first entry.
    opened: BTreeMap<RecordId, u64>,
    closed: BTreeMap<RecordId, Arc<Record>>,
    /// The newest heartbeat of the batch.
    beat: Option<Timestamp>,
}

impl<F, T> Command for Transaction<F, T>
where
    F: FnOnce(&State) -> (Vec<Draft>, T) + Send,
    T: Send,
{
    fn draft(&mut self, state: &State) -> Vec<Draft> {
        let Some(body) = self.body.take() else { return Vec::new() };
        let (drafts, value) = body(state);
        self.value = Some(value);
        drafts
    }

    fn answer(self: Box<Self>, result: Result<Vec<Entry>, JournalError>) {
        let Transaction { value, reply, .. } = *self;
        let result = result.and_then(|entries| value.map(|value| (entries, value)).ok_or(JournalError::Closed));
        // A caller who went away is no reason to undo what is on the disk.
        let _ = reply.send(result);
    }
}

impl Published {
    pub fn new(state: State) -> Arc<Published> {
        let [seq, closed, aborted] = [state.head.seq; 3].map(watch::Sender::new);
        Arc::new(Published {
            state: RwLock::new(state),
            seq,
            closed,
            aborted,
            commits: AtomicU64::new(0),
            trouble: RwLock::default(),
            hangs: AtomicBool::new(false),
            hung: AtomicBool::new(false),
            full: AtomicBool::new(false),
            unsynced: AtomicBool::new(false),
            stalled: AtomicU64::new(0),
            ghost: Mutex::default(),
        })
    }

    /// Tells whoever follows the journal, too: that nothing can be written is news, and that it can be again.
    pub fn troubled(&self, trouble: Option<String>) {
        let mut known = self.trouble.write().unwrap_or_else(PoisonError::into_inner);
        let news = trouble.is_some() || known.is_some();
        *known = trouble;
        drop(known);
        if news {
            self.seq.send_modify(|_| {});
        }
    }

    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        // Poisoned only if following panicked, which only copies what was folded before.
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Core {
    pub fn new(conn: Connection, published: Arc<Published>) -> Core {
        let file = sqlite::identity(&conn);
        Core { conn, file, working: published.read(State::clone), published, since: 0 }
    }

    /// Runs a batch and answers everybody in it.
    pub fn run(&mut self, mut batch: Vec<Box<dyn Command>>) {
        let mut staged = Staged::default();
        let mut results = Vec::with_capacity(batch.len());
        for command in &mut batch {
            // A closure sees the state and cannot change it, so its panic leaves nothing half done.
            let drafts = catch_unwind(AssertUnwindSafe(|| command.draft(&self.working)));
            results.push(drafts.map_err(|_| JournalError::Panicked).and_then(|drafts| self.stage(drafts, &mut staged)));
            staged.beat = staged.beat.max(command.beat());
        }
        if let Err(error) = self.settle(&staged, None) {
            // Those whose own transaction was refused keep their reason.
            results.iter_mut().filter(|result| result.is_ok()).for_each(|result| *result = Err(error.clone()));
        }
        for (command, result) in batch.into_iter().zip(results) {
            command.answer(result);
        }
    }

    /// Whether there is something to be brought into the database as soon as nobody waits.
    pub fn is_behind(&self) -> bool {
        self.since >= BEHIND
    }

    /// Brings the WAL into the database: what was committed is on the disk already, and only its place changes. What fails here
    /// is tried again after as many entries.
    pub fn catch_up(&mut self) {
        self.since = 0;
        if let Err(error) = sqlite::catch_up(&self.conn) {
            tracing::warn!(%error, "the journal's WAL cannot be brought into the database");
        }
    }

    /// Does one chore and answers. Somebody who went away is no reason to undo it.
    pub fn chore(&mut self, chore: Chore) {
        match chore {
            Chore::Prune { cut, at, reply } => _ = reply.send(self.prune(&cut, at)),
            Chore::Shrink { pages, reply } => _ = reply.send(sqlite::shrink(&self.conn, pages).map_err(Into::into)),
            Chore::EmptyWal { reply } => _ = reply.send(sqlite::empty_wal(&self.conn).map_err(Into::into)),
        }
    }

    /// Takes entries out and writes down that it did, at once or not at all.
    fn prune(&mut self, cut: &Cut, at: Timestamp) -> Result<(), JournalError> {
        let mut staged = Staged::default();
        let event = Event::Pruned { pruned: cut.pruned.clone() };
        self.stage(vec![Draft::global(at, event)], &mut staged)?;
        self.settle(&staged, Some(cut))
    }

    /// Commits what is staged and publishes it, or goes back to what is committed.
    fn settle(&mut self, staged: &Staged, cut: Option<&Cut>) -> Result<(), JournalError> {
        let touched = self.touched(staged);
        let committed = self.commit(staged, &touched, cut);
        match &committed {
            Ok(()) => {
                self.since += staged.entries.len();
                self.publish(staged, &touched);
            }
            Err(error) => {
                tracing::error!(error = error as &dyn std::error::Error, entries = staged.entries.len(), "commit failed");
                // A cut that came too late says nothing about the store.
                if !matches!(error, JournalError::Outdated) {
                    self.published.troubled(Some(crate::edge::causes(error)));
                }
                self.working = self.published.read(State::clone);
            }
        }
        if self.published.unsynced.load(Ordering::Relaxed) || committed.is_ok() {
            self.haunt(staged, committed.is_err());
        }
        committed
    }

    /// What a commit whose sync failed leaves behind, and that a commit which did not fail leaves nothing.
    fn haunt(&self, staged: &Staged, failed: bool) {
        let left = staged.entries.iter().filter(|_| failed).cloned();
        let drafts = left.map(|Entry { at, record, event, .. }| Draft { at, record, event }).collect();
        *self.published.ghost.lock().unwrap_or_else(PoisonError::into_inner) = drafts;
    }

    /// Numbers, chains and folds the entries of one transaction; all of them or none.
    fn stage(&mut self, drafts: Vec<Draft>, staged: &mut Staged) -> Result<Vec<Entry>, JournalError> {
        let mut links = Vec::with_capacity(drafts.len());
        let mut entries = Vec::with_capacity(drafts.len());
        let mut head = self.working.head.clone();
        for Draft { at, record, event } in drafts {
            let kind = event.kind();
            let unwritable = |why| JournalError::Unwritable { kind, why };
            let entry = Entry { seq: head.seq + 1, at, record, event };
            let (link, entry) = Link::forge(&entry, &head).map_err(unwritable)?;
            if link.body.len() > MAX_BODY {
                return Err(unwritable(format!("{} bytes, at most {MAX_BODY}", link.body.len())));
            }
            self.refuse_a_second_life(&entry, staged)?;
            head = Head { seq: link.seq, hash: link.hash.clone() };
            links.push(link);
            entries.push(entry);
        }
        let mut closed = BTreeMap::new();
        for (entry, link) in entries.iter().zip(&links) {
            match self.working.apply(entry) {
                Ok(record) => closed.extend(record.map(|record| (record.id, record))),
                Err(illegal) => {
                    self.go_back_to(staged);
                    return Err(illegal.into());
                }
            }
            self.working.head.hash.clone_from(&link.hash);
        }
        staged.opened.extend(entries.iter().filter_map(opening));
        staged.closed.append(&mut closed);
        staged.links.append(&mut links);
        staged.entries.extend(entries.iter().cloned());
        Ok(entries)
    }

    /// The state forgets closed records; the table does not.
    fn refuse_a_second_life(&self, entry: &Entry, staged: &Staged) -> Result<(), JournalError> {
        let Some((id, seq)) = opening(entry) else { return Ok(()) };
        if staged.closed.contains_key(&id) || projection::known(&self.conn, id)? {
            let phase = "an earlier opening".to_owned();
            return Err(IllegalTransition { seq, record: id.to_string(), event: entry.event.kind(), phase }.into());
        }
        Ok(())
    }

    /// Undoes a transaction that was folded half-way: a bug in a caller, so that it may cost a copy.
    fn go_back_to(&mut self, staged: &Staged) {
        self.working = self.published.read(State::clone);
        fold(&mut self.working, staged);
    }

    fn touched(&self, staged: &Staged) -> Touched {
        let working = &self.working;
        self.published.read(|published| Touched {
            books: books_differ(published, working),
            watches: watches_touched(published, working, staged),
        })
    }

    fn commit(&mut self, staged: &Staged, touched: &Touched, cut: Option<&Cut>) -> Result<(), JournalError> {
        // A file without a name still takes writes, and nobody would ever read them: a lost disk must not look like a good one.
        if self.file.is_some() && self.file != sqlite::identity(&self.conn) {
            return Err(JournalError::Gone { file: self.conn.path().unwrap_or_default().into() });
        }
        let (full, unsynced) = (self.published.full.load(Ordering::Relaxed), self.published.unsynced.load(Ordering::Relaxed));
        let sealed = |written| match () {
            () if full => Err(disk_full()),
            () if unsynced => Err(not_synced()),
            () => Ok(written),
        };
        if staged.entries.is_empty() {
            let Some(at) = staged.beat else { return Ok(()) };
            return sqlite::write(&mut self.conn, |transaction| sealed(pulse::save(transaction, at)?));
        }
        let ids = staged.entries.iter().filter_map(|entry| entry.record);
        let working = &self.working;
        let records = ids
            .filter_map(|id| {
                let record = staged.closed.get(&id).or_else(|| working.open.get(&id))?;
                Some((id, (staged.opened.get(&id).copied(), &**record)))
            })
            .collect();
        let Touched { books: books_changed, watches } = touched;
        let (links, entries) = (&staged.links, &staged.entries);
        let changes = Changes { links, entries, records: &records, state: working, books_changed: *books_changed, watches };
        sqlite::write(&mut self.conn, |transaction| {
            if let Some(cut) = cut {
                prune::carry_out(transaction, cut)?;
            }
            projection::save(transaction, &changes)?;
            staged.beat.map_or(Ok(()), |at| pulse::save(transaction, at))?;
            sealed(())
        })
    }

    /// Shows the committed state to everybody. What the batch did not touch is the same already; what it did touch is shared with
    /// the state that runs ahead, not folded a second time: neither twice the work nor twice the memory.
    fn publish(&mut self, staged: &Staged, touched: &Touched) {
        if staged.entries.is_empty() {
            if staged.beat.is_some() {
                self.published.troubled(None);
            }
            return;
        }
        {
            let mut state = self.published.state.write().unwrap_or_else(PoisonError::into_inner);
            let records = staged.entries.iter().filter_map(|entry| entry.record);
            state.follow(&self.working, records, touched);
        }
        self.published.commits.fetch_add(1, Ordering::Relaxed);
        self.published.troubled(None);
        self.published.seq.send_replace(self.working.head.seq);
        let newest = |kind: fn(&Event) -> bool| staged.entries.iter().rev().find(|entry| kind(&entry.event));
        if let Some(entry) = newest(|event| matches!(event, Event::Closed { .. })) {
            self.published.closed.send_replace(entry.seq);
        }
        if let Some(entry) = newest(|event| matches!(event, Event::AbortOrdered { .. })) {
            self.published.aborted.send_replace(entry.seq);
        }
    }
}

/// The record that an entry opens, with the entry's number.
fn opening(entry: &Entry) -> Option<(RecordId, u64)> {
    entry.record.filter(|_| matches!(entry.event, Event::Accepted { .. })).map(|id| (id, entry.seq))
}

/// Folds entries that were folded before, so that none of them can be illegal.
fn fold(state: &mut State, staged: &Staged) {
    for (entry, link) in staged.entries.iter().zip(&staged.links) {
        if let Err(illegal) = state.apply(entry) {
            tracing::error!(%illegal, "the same entry folded twice gave two answers");
        }
        state.head.hash.clone_from(&link.hash);
    }
}

/// Episodes whose watch the batch may have changed, as only these events do, and did.
fn watches_touched(old: &State, new: &State, staged: &Staged) -> BTreeSet<EpisodeKey> {
    let key = |entry: &Entry| match &entry.event {
        Event::Closed { .. } => Some(staged.closed.get(&entry.record?)?.accepted.key.clone()),
        Event::Joined { accepted, .. } => Some(accepted.key.clone()),
        Event::WatchEnded { key, .. } => Some(key.clone()),
        _ => None,
    };
    let changed = |key: &EpisodeKey| old.books.watches.get(key) != new.books.watches.get(key);
    staged.entries.iter().filter_map(key).filter(changed).collect()
}

/// Whether the books must be stored again. What changes with nearly every entry is stored with the stamp instead, and
/// watches have rows of their own.
fn books_differ(old: &State, new: &State) -> bool {
    if old.head.seq == 0 {
        return true;
    }
    // No `..`: a new field must say where it is stored.
    let Books { last_at: _, last_decision: _, live, shadow, pauses, drained, watches: _, anchored } = &old.books;
    let new = &new.books;
    (live, shadow, pauses, drained, anchored) != (&new.live, &new.shadow, &new.pauses, &new.drained, &new.anchored)
}

fn not_synced() -> JournalError {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC), None).into()
}

fn disk_full() -> JournalError {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None).into()
}
