//! The heartbeat's place in the writer: a look at the newest state that is answered only after a commit of its own.
//!
//! Promise: [`Journal::beat`] comes back with `Ok` only when the queue, the writer and the disk all did their part just now. It
//! leaves nothing in the chain, in the records or in the books: one row of one table that nothing is folded from is
//! written over each time.
//!
//! Accepted: a disk that is full may still take this row, while the WAL has room that is its own already. It then takes
//! a small entry as well, and says no to the first one that it does not.

use jiff::Timestamp;
use rusqlite::{Transaction, params};
use tokio::sync::oneshot;

use crate::audit::JournalError;
use crate::audit::commit::Command;
use crate::audit::journal::Journal;
use crate::audit::projection::nanos;
use crate::audit::state::State;
use crate::event::{Draft, Entry};

/// A look at the state whose answer waits for a commit.
pub(super) struct Beat<F, T> {
    pub at: Timestamp,
    pub look: Option<F>,
    pub value: Option<T>,
    pub reply: oneshot::Sender<Result<T, JournalError>>,
}

impl<F, T> Command for Beat<F, T>
where
    F: FnOnce(&State) -> T + Send,
    T: Send,
{
    fn draft(&mut self, state: &State) -> Vec<Draft> {
        self.value = self.look.take().map(|look| look(state));
        Vec::new()
    }

    fn beat(&self) -> Option<Timestamp> {
        Some(self.at)
    }

    fn answer(self: Box<Self>, result: Result<Vec<Entry>, JournalError>) {
        let Beat { value, reply, .. } = *self;
        // Whoever does not wait any more has given this beat up.
        let _ = reply.send(result.and_then(|_| value.ok_or(JournalError::Closed)));
    }
}

impl Journal {
    /// Looks at the newest state in the writer, as a transaction does, and answers when a commit has reached the disk
    /// after that, although there is nothing to write but that it did.
    ///
    /// # Errors
    /// As [`Journal::transact`].
    pub async fn beat<T, F>(&self, at: Timestamp, look: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&State) -> T + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.queue(Box::new(Beat { at, look: Some(look), value: None, reply }))?;
        answer.await.unwrap_or(Err(JournalError::Closed))
    }
}

/// Writes down that the heart beat.
pub(super) fn save(transaction: &Transaction<'_>, at: Timestamp) -> Result<(), JournalError> {
    transaction
        .prepare_cached("INSERT INTO heartbeat(one, at) VALUES (1, ?) ON CONFLICT(one) DO UPDATE SET at = excluded.at")?
        .execute(params![nanos(at)])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain;
    use crate::audit::journal::reader;
    use crate::audit::walks::{opens, start};

    fn row(dir: &std::path::Path) -> Vec<i64> {
        let conn = reader(dir).expect("a journal");
        let mut rows = conn.prepare("SELECT at FROM heartbeat").expect("the table");
        rows.query_map((), |row| row.get(0)).expect("rows").map(|at| at.expect("a time")).collect()
    }

    #[tokio::test]
    async fn a_beat_is_a_commit_and_leaves_the_audit_as_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).expect("a journal");
        journal.append(opens(1, 1, start())).await.expect("written");
        let (before, commits) = (journal.read(State::clone), journal.commits());
        for _ in 0..3 {
            let open = journal.beat(start(), |state| state.open.len()).await.expect("a commit");
            assert_eq!(open, 1, "it sees the newest state");
        }
        assert_eq!(journal.commits(), commits, "which counts commits of entries");
        assert_eq!(journal.read(State::clone), before);
        assert_eq!(row(dir.path()), [nanos(start())], "one row, written over");
        assert_eq!(chain::verify(&reader(dir.path()).expect("a journal")).expect("sound").entries, 1);
        journal.close().await;
        drop(journal);
        let again = Journal::open(dir.path()).expect("a journal");
        assert_eq!(again.read(State::clone), before, "not folded from anything");
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_stops_it_and_a_disk_that_does_again_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).expect("a journal");
        journal.pretend_full(true);
        assert!(matches!(journal.beat(start(), |_| ()).await, Err(JournalError::Store(_))));
        assert!(journal.trouble().is_some(), "known although nothing else was written");
        assert!(row(dir.path()).is_empty(), "rolled back");
        journal.pretend_full(false);
        journal.beat(start(), |_| ()).await.expect("a commit");
        assert_eq!(journal.trouble(), None);
    }

    /// A batch holds both: the beat's row and the entries are one commit.
    #[tokio::test]
    async fn beats_and_entries_share_a_commit() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).expect("a journal");
        let (entry, beat) = tokio::join!(journal.append(opens(1, 1, start())), journal.beat(start(), |_| ()));
        assert!(entry.is_ok() && beat.is_ok());
        assert_eq!(row(dir.path()), [nanos(start())]);
    }

    #[tokio::test]
    async fn a_writer_that_panics_in_the_look_or_is_gone_is_no_beat() {
        let journal = Journal::in_memory().expect("a journal");
        let panicked = journal.beat(start(), |_| panic!("a rail's bug")).await;
        assert!(matches!(panicked, Err(JournalError::Panicked)), "{panicked:?}");
        journal.beat(start(), |_| ()).await.expect("and the next one is whole");
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).expect("a journal");
        journal.close().await;
        assert!(matches!(journal.beat(start(), |_| ()).await, Err(JournalError::Closed)));
    }
}
