//! For drills and simulations: a disk that pretends to fail, or to take its time.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::audit::JournalError;
use crate::audit::journal::Journal;
use crate::event::{Entry, Event};

impl Journal {
    /// For drills: while `true`, every commit fails as on a full disk.
    pub fn pretend_full(&self, full: bool) {
        self.inner.published.full.store(full, Ordering::Relaxed);
    }

    /// Whether a drill has the disk full now.
    pub fn pretends_full(&self) -> bool {
        self.inner.published.full.load(Ordering::Relaxed)
    }

    /// For drills: while `true`, every commit is written and then fails, as when a sync of the disk does. Unlike one on
    /// a full disk it may be there after all once the process has died ([`Journal::come_back`]).
    pub fn pretend_unsynced(&self, unsynced: bool) {
        self.inner.published.unsynced.store(unsynced, Ordering::Relaxed);
    }

    pub fn pretends_unsynced(&self) -> bool {
        self.inner.published.unsynced.load(Ordering::Relaxed)
    }

    /// Whether a drill has the disk fail now, one way or the other.
    pub fn pretends_to_fail(&self) -> bool {
        self.pretends_full() || self.pretends_unsynced()
    }

    /// Whether a commit whose sync failed left something behind.
    pub fn is_haunted(&self) -> bool {
        !self.inner.published.ghost.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// For drills: the next process finds what the last commit wrote although its sync failed. Nothing, if a later commit
    /// went well.
    ///
    /// # Errors
    /// As [`Journal::transact`].
    pub async fn come_back(&self) -> Result<(), JournalError> {
        let ghost = std::mem::take(&mut *self.inner.published.ghost.lock().unwrap_or_else(PoisonError::into_inner));
        let (full, unsynced) = (self.pretends_full(), self.pretends_unsynced());
        self.pretend_full(false);
        self.pretend_unsynced(false);
        let back = self.transact(move |_| (ghost, ())).await;
        self.pretend_full(full);
        self.pretend_unsynced(unsynced);
        back.map(|_| ())
    }

    /// For drills: whoever begins the next step is answered only after so long, as by a disk that stalls.
    pub fn pretend_stalled(&self, how_long: Duration) {
        let millis = u64::try_from(how_long.as_millis()).unwrap_or(u64::MAX);
        self.inner.published.stalled.store(millis, Ordering::Relaxed);
    }

    /// For drills: while `true` everybody waits and nothing is done, as by a disk that hangs.
    pub fn pretend_hung(&self, hung: bool) {
        self.inner.published.hung.store(hung, Ordering::Relaxed);
    }

    pub(super) async fn hung(&self) {
        while self.inner.published.hung.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(super) async fn stalled<T>(&self, answer: &Result<(Vec<Entry>, T), JournalError>) {
        let stalled = &self.inner.published.stalled;
        if stalled.load(Ordering::Relaxed) == 0 {
            return;
        }
        let begins = |entry: &Entry| matches!(entry.event, Event::StepStarted { .. });
        if answer.as_ref().is_ok_and(|(entries, _)| entries.iter().any(begins)) {
            tokio::time::sleep(Duration::from_millis(stalled.swap(0, Ordering::Relaxed))).await;
        }
    }
}
