//! The journal: one writer, one commit per batch, answers after the commit.
//!
//! Promises: a transaction sees the newest state and nobody comes between its look and its entries; it is answered only
//! when it is on the disk; when it cannot be, nothing of it happened. One process at a time has a state directory.
//!
//! How: callers queue closures; the writer thread takes all that wait, runs them one after the other and commits once
//! (measured with `synchronous=FULL`: eight rows per commit are eight times as many per second). The inline journal
//! runs the same code under a mutex, in the caller, for tests and virtual time.
//!
//! Races accepted: a caller that stops waiting does not take its transaction back. [`Journal::read`] shows committed
//! state, which may be a batch behind what is being written: to act on what one sees, look inside a transaction.

mod drills;
mod hang;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use crate::audit::JournalError;
use crate::audit::chain::{self, Head, Verified};
use crate::audit::commit::{Chore, Command, Core, Errand, Published, Transaction};
use crate::audit::lock::Lock;
use crate::audit::projection::{self, MIGRATIONS};
use crate::audit::prune::{self, Aim, Plan, Step};
use crate::audit::query::{self, Cursor, Filter, Found, Page, Told};
use crate::audit::readers::Readers;
use crate::audit::state::State;
use crate::edge::sqlite::{self, Room};
use crate::event::{Draft, Entry, Record, RecordId};

/// Transactions that may wait. More than one webhook's worth of alerts times a minute of a stuck disk; beyond it, saying
/// no at once is better than a queue that nobody outlives.
const QUEUE: usize = 4096;
/// Transactions in one commit, so that the first of a burst is not answered after the last.
const MAX_BATCH: usize = 512;
/// How long nobody must have wanted anything before the writer turns to what can wait.
const QUIET: Duration = Duration::from_millis(200);
/// Free pages given back in one commit: two megabytes that move through the WAL.
const SHRINK: u32 = 512;
/// The database within the state directory.
pub const DATABASE: &str = "journal.db";

/// A handle; clones share one journal. The last one to go flushes the queue and joins the writer.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    published: Arc<Published>,
    road: Road,
}

/// How transactions reach the one who writes.
enum Road {
    Thread {
        queue: Mutex<Option<SyncSender<Errand>>>,
        writer: Mutex<Option<JoinHandle<()>>>,
        readers: Arc<Readers>,
        /// Let go only after the writer is joined: fields are dropped after `Drop::drop`.
        _lock: Lock,
    },
    Inline(Box<Mutex<Core>>),
}

impl Journal {
    /// Opens the journal of a state directory, making both if need be, and starts its writer.
    ///
    /// # Errors
    /// [`JournalError::Locked`] when another process has the directory; a broken last entry; the store's own reasons.
    pub fn open(dir: &Path) -> Result<Journal, JournalError> {
        let lock = Lock::take(dir)?;
        let path = dir.join(DATABASE);
        let mut conn = sqlite::writer(&path, MIGRATIONS)?;
        let published = Published::new(projection::loaded_or_made_again(&mut conn)?);
        let core = Core::new(conn, published.clone());
        let (queue, work) = sync_channel(QUEUE);
        let known = published.clone();
        let writer = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                // Everybody is told that the journal is closed from then on; this says it to those who do not ask.
                if catch_unwind(AssertUnwindSafe(|| write(core, &work))).is_err() {
                    known.troubled(Some("the journal's writer ended badly; start remediator again".to_owned()));
                }
            })
            .map_err(|source| JournalError::Directory { dir: dir.to_owned(), source: Arc::new(source) })?;
        let road = Road::Thread {
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(writer)),
            readers: Arc::new(Readers::of(path)),
            _lock: lock,
        };
        Ok(Journal { inner: Arc::new(Inner { published, road }) })
    }

    /// A journal without a file and without a thread: whoever calls does the work before the call's first await ends.
    ///
    /// # Errors
    /// SQLite cannot be set up.
    pub fn in_memory() -> Result<Journal, JournalError> {
        let mut conn = sqlite::in_memory(MIGRATIONS)?;
        let published = Published::new(projection::loaded_or_made_again(&mut conn)?);
        let road = Road::Inline(Box::new(Mutex::new(Core::new(conn, published.clone()))));
        Ok(Journal { inner: Arc::new(Inner { published, road }) })
    }

    /// Runs `body` in the writer against the newest state, and commits the entries that it drafts. Nothing can come
    /// between. Without drafts it is a look that no transaction is ahead of.
    ///
    /// # Errors
    /// Whatever the error, nothing happened and `T` is dropped. [`JournalError::Illegal`] and
    /// [`JournalError::Unwritable`] concern this transaction alone, [`JournalError::Store`] its whole batch.
    pub async fn transact<T, F>(&self, body: F) -> Result<(Vec<Entry>, T), JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&State) -> (Vec<Draft>, T) + Send + 'static,
    {
        self.hung().await;
        let (reply, answer) = oneshot::channel();
        self.queue(Box::new(Transaction { body: Some(body), value: None, reply }))?;
        let answer = answer.await.unwrap_or(Err(JournalError::Closed));
        self.stalled(&answer).await;
        answer
    }

    /// Hands a command to the writer; inline, carries it out.
    pub(super) fn queue(&self, command: Box<dyn Command>) -> Result<(), JournalError> {
        self.order(Errand::Transact(command))
    }

    /// Hands an errand to the writer; inline, does it.
    fn order(&self, errand: Errand) -> Result<(), JournalError> {
        match &self.inner.road {
            Road::Thread { queue, .. } => {
                let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.as_ref().ok_or(JournalError::Closed)?.try_send(errand).map_err(|error| match error {
                    TrySendError::Full(_) => JournalError::Overloaded,
                    TrySendError::Disconnected(_) => JournalError::Closed,
                })
            }
            Road::Inline(core) => {
                let mut core = core.lock().unwrap_or_else(PoisonError::into_inner);
                match errand {
                    Errand::Transact(command) => core.run(vec![command]),
                    Errand::Chore(chore) => core.chore(chore),
                }
                Ok(())
            }
        }
    }

    /// One entry, whatever the state.
    ///
    /// # Errors
    /// As [`Journal::transact`].
    pub async fn append(&self, draft: Draft) -> Result<Entry, JournalError> {
        let (mut entries, ()) = self.transact(move |_| (vec![draft], ())).await?;
        entries.pop().ok_or(JournalError::Closed)
    }

    /// Looks at the committed state. Keep it short: the next commit waits for it.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.inner.published.read(look)
    }

    /// The last committed entry: what leaves the machine with every page, so that a rewritten journal is noticed.
    pub fn head(&self) -> Head {
        self.read(|state| state.head.clone())
    }

    /// The number of the last committed entry as it changes. Subscribe first, then look, then wait.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.inner.published.seq.subscribe()
    }

    /// As [`Journal::watch`], of entries that close a record, and only of those that come from now on.
    pub fn watch_closed(&self) -> watch::Receiver<u64> {
        self.inner.published.closed.subscribe()
    }

    /// As [`Journal::watch_closed`], of orders to abort.
    pub fn watch_aborts(&self) -> watch::Receiver<u64> {
        self.inner.published.aborted.subscribe()
    }

    /// Commits since the start; several transactions share one.
    pub fn commits(&self) -> u64 {
        self.inner.published.commits.load(Ordering::Relaxed)
    }

    /// Why the last commit failed, until one succeeds; or that the writer hangs, until it answers when it is asked ([`Journal::answers`]).
    pub fn trouble(&self) -> Option<String> {
        let failed = self.inner.published.trouble.read().unwrap_or_else(PoisonError::into_inner).clone();
        failed.or_else(|| self.hangs().then(hang::said))
    }

    /// Waits until the last commit is one that succeeded.
    pub async fn mended(&self) {
        let mut news = self.watch();
        while self.trouble().is_some() {
            if news.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Walks the whole chain: hashes, legal transitions, and whether the projections say what the entries say.
    ///
    /// # Errors
    /// The first entry that cannot be believed, or the store cannot be read.
    pub async fn verify(&self) -> Result<Verified, JournalError> {
        self.ask(|conn| Ok(chain::verify(conn)?)).await
    }

    /// A record, open or closed.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn record(&self, id: RecordId) -> Result<Option<Record>, JournalError> {
        Ok(self.found(id).await?.map(|found| found.record))
    }

    /// A record with the hash of the last entry that is folded into it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn found(&self, id: RecordId) -> Result<Option<Found>, JournalError> {
        self.ask(move |conn| query::found(conn, id)).await
    }

    /// Records that match, newest first. `limit` is brought into 1..=[`query::MAX_LIMIT`].
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn query(&self, filter: Filter, cursor: Option<Cursor>, limit: usize) -> Result<Page, JournalError> {
        self.ask(move |conn| query::page(conn, &filter, cursor, limit)).await
    }

    /// Every entry of one record, oldest first; empty when there is no such record.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn story(&self, id: RecordId) -> Result<Vec<Told>, JournalError> {
        self.ask(move |conn| query::story(conn, id)).await
    }

    /// Entries after number `seq`, oldest first: to follow the journal, together with [`Journal::watch`].
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn entries_after(&self, seq: u64, limit: usize) -> Result<Vec<Told>, JournalError> {
        self.ask(move |conn| query::entries_after(conn, seq, limit)).await
    }

    /// Records whose closing entry comes after number `seq`, in the order of closing.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn closed_after(&self, seq: u64, limit: usize) -> Result<Vec<Found>, JournalError> {
        self.ask(move |conn| query::closed_after(conn, seq, limit)).await
    }

    /// Prunes one step: at most [`prune::STEP`] of the oldest entries. `at` is the time of the entry that says so.
    ///
    /// # Errors
    /// An entry that would go cannot be believed; the store cannot be read or written. Nothing was pruned then.
    pub async fn prune(&self, aim: Aim, at: Timestamp) -> Result<Step, JournalError> {
        let needed = self.read(|state| prune::needed(&state.books));
        let cut = match self.ask(move |conn| prune::plan(conn, &needed, aim)).await? {
            Plan::Cut(cut) => cut,
            Plan::Nothing => return Ok(Step::Nothing),
            Plan::Held(seq) => return Ok(Step::Held(seq)),
        };
        let pruned = cut.pruned.clone();
        self.chore(|reply| Chore::Prune { cut, at, reply }).await?;
        Ok(Step::Done(pruned))
    }

    /// Gives free pages back to the file system, a few per commit, and cuts the WAL unless somebody reads from it.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn tidy(&self) -> Result<(), JournalError> {
        let mut before = u64::MAX;
        loop {
            let free = self.chore(|reply| Chore::Shrink { pages: SHRINK, reply }).await?;
            if free == 0 || free >= before {
                break;
            }
            before = free;
        }
        let emptied = self.chore(|reply| Chore::EmptyWal { reply }).await?;
        tracing::debug!(emptied, "the journal's WAL after pruning");
        Ok(())
    }

    async fn chore<T>(&self, chore: impl FnOnce(oneshot::Sender<Result<T, JournalError>>) -> Chore) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        self.order(Errand::Chore(chore(reply)))?;
        answer.await.unwrap_or(Err(JournalError::Closed))
    }

    /// How much room the journal takes.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn room(&self) -> Result<Room, JournalError> {
        let wal = match &self.inner.road {
            Road::Thread { readers, .. } => readers.wal(),
            Road::Inline(_) => PathBuf::new(),
        };
        self.ask(move |conn| Ok(sqlite::room(conn, &wal)?)).await
    }

    /// The time of the oldest entry that is kept.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn oldest(&self) -> Result<Option<Timestamp>, JournalError> {
        let first = self.entries_after(0, 1).await?;
        Ok(first.first().map(|told| told.entry.at))
    }

    /// Takes nothing more in, writes what waits, and ends the writer. Reading goes on.
    pub async fn close(&self) {
        if let Road::Thread { queue, writer, .. } = &self.inner.road {
            queue.lock().unwrap_or_else(PoisonError::into_inner).take();
            let writer = writer.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(writer) = writer {
                let _ = tokio::task::spawn_blocking(move || writer.join()).await;
            }
        }
    }

    /// Asks a reading connection, off the caller's thread; inline, the only connection there is.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        match &self.inner.road {
            Road::Inline(core) => question(&core.lock().unwrap_or_else(PoisonError::into_inner).conn),
            Road::Thread { readers, .. } => {
                let readers = readers.clone();
                let answer = tokio::task::spawn_blocking(move || readers.ask(question)).await;
                answer.unwrap_or(Err(JournalError::Closed))
            }
        }
    }

    /// As [`Journal::ask`], for one who may block.
    pub(super) fn ask_here<T>(&self, question: impl FnOnce(&Connection) -> Result<T, JournalError>) -> Result<T, JournalError> {
        match &self.inner.road {
            Road::Inline(core) => question(&core.lock().unwrap_or_else(PoisonError::into_inner).conn),
            Road::Thread { readers, .. } => readers.ask(question),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Road::Thread { queue, writer, .. } = &mut self.road else { return };
        queue.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let writer = writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // A transaction may own the last handle, and the writer cannot wait for itself; its queue is closed, so it ends.
        if let Some(writer) = writer.filter(|writer| writer.thread().id() != std::thread::current().id()) {
            let _ = writer.join();
        }
    }
}

/// Makes the projections of a state directory again from its entries. Answers the head.
///
/// # Errors
/// Another remediator uses the directory, there is no journal in it, or the chain is broken.
pub fn rebuild(dir: &Path) -> Result<Head, JournalError> {
    let _lock = Lock::take(dir)?;
    let path = dir.join(DATABASE);
    // `writer` would make an empty one.
    drop(sqlite::reader(&path, MIGRATIONS.len())?);
    let mut conn = sqlite::writer(&path, MIGRATIONS)?;
    Ok(sqlite::write(&mut conn, projection::rebuild)?.head)
}

/// A reading connection to the journal of a state directory, whether a remediator uses it or not.
///
/// # Errors
/// There is no journal, or it has another schema.
pub fn reader(dir: &Path) -> Result<Connection, JournalError> {
    Ok(sqlite::reader(&dir.join(DATABASE), MIGRATIONS.len())?)
}

#[cfg(test)]
impl Journal {
    /// The connection of an inline journal.
    pub(super) fn with_core<T>(&self, look: impl FnOnce(&mut Connection) -> T) -> T {
        let Road::Inline(core) = &self.inner.road else { panic!("not an inline journal") };
        look(&mut core.lock().expect("no panic").conn)
    }

    /// Several transactions as one batch, in an inline journal.
    pub(super) fn batch(&self, transactions: Vec<Vec<Draft>>) -> Vec<Result<Vec<Entry>, JournalError>> {
        let Road::Inline(core) = &self.inner.road else { panic!("not an inline journal") };
        let mut answers = Vec::new();
        let commands = transactions.into_iter().map(|drafts| {
            let (reply, answer) = oneshot::channel();
            answers.push(answer);
            let body = Some(move |_: &State| (drafts, ()));
            Box::new(Transaction { body, value: None, reply }) as Box<dyn Command>
        });
        core.lock().expect("no panic").run(commands.collect());
        let mut results = Vec::new();
        for mut answer in answers {
            let answer: Result<(Vec<Entry>, ()), JournalError> = answer.try_recv().expect("answered");
            results.push(answer.map(|(entries, ())| entries));
        }
        results
    }
}

/// What is to be done next, and in a quiet moment what can wait; none once every sender is gone and the queue is empty.
fn next(core: &mut Core, work: &Receiver<Errand>) -> Option<Errand> {
    if core.is_behind() {
        match work.recv_timeout(QUIET) {
            Err(RecvTimeoutError::Timeout) => core.catch_up(),
            found => return found.ok(),
        }
    }
    work.recv().ok()
}

/// The writer: takes what waits, commits once, until there is nobody left.
fn write(mut core: Core, work: &Receiver<Errand>) {
    while let Some(first) = next(&mut core, work) {
        let mut batch = Vec::new();
        let mut chore = None;
        let mut next = Some(first);
        while let Some(errand) = next {
            match errand {
                Errand::Transact(command) => batch.push(command),
                // In its turn: what came before it is committed before it.
                Errand::Chore(one) => chore = Some(one),
            }
            let more = chore.is_none() && batch.len() < MAX_BATCH;
            next = if more { work.try_recv().ok() } else { None };
        }
        if !batch.is_empty() {
            core.run(batch);
        }
        if let Some(chore) = chore {
            core.chore(chore);
        }
    }
}
