//! A person's order to break one run off, and what the run makes of it.
//!
//! Promises: an abort that was answered with "ordered" is obeyed. The order and the steps meet in the journal's one
//! writer: once the order is written, no intent, no drain and no restart of that record can be; once the restart is
//! begun, the order is refused and whoever gave it is told so. A server that was drained is readmitted as on every
//! other way out. The order is in the journal, so that the next process obeys it after a crash.
//!
//! How: a run looks where it looks for a pause, right before drain and restart, and it listens while it confirms and
//! while it waits for the server to empty.
//!
//! Race accepted: a call to the balancer that is under way is waited for (its own time-out bounds it), and then undone.

use jiff::Timestamp;

use crate::audit::JournalError;
use crate::audit::journal::Journal;
use crate::audit::state::State;
use crate::event::{Abort, Draft, Event, Phase, Record, RecordId, Step};
use crate::pipeline::Ending;
use crate::reason::Reason;
use crate::words;

/// What became of an order to abort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// The run is broken off at its next safe point, and this is where it was.
    Now { phase: Phase, step: Option<Step> },
    /// Somebody had ordered it before; that order stands.
    Before(Abort),
    /// The restart is begun or done, or the record has come to its end but for the last entry.
    TooLate { phase: Phase, step: Option<Step> },
    /// No such record is open.
    NotOpen,
}

/// Writes the order down, if there is still something to break off.
///
/// # Errors
/// The journal could not be written; nothing was ordered.
pub async fn order(journal: &Journal, now: Timestamp, id: RecordId, abort: Abort) -> Result<Ordered, JournalError> {
    let ordered = journal.transact(move |state| {
        let Some(record) = state.open.get(&id) else { return (Vec::new(), Ordered::NotOpen) };
        let (phase, step) = (record.phase, where_it_is(record));
        match &record.abort {
            Some(abort) => (Vec::new(), Ordered::Before(abort.clone())),
            None if !record.may_abort() => (Vec::new(), Ordered::TooLate { phase, step }),
            None => (vec![Draft::of(id, now, Event::AbortOrdered { abort })], Ordered::Now { phase, step }),
        }
    });
    ordered.await.map(|(_, ordered)| ordered)
}

/// How a record ends whose run was aborted; none while nobody ordered that.
pub fn of(state: &State, id: RecordId) -> Option<Ending> {
    let abort = state.open.get(&id)?.abort.as_ref()?;
    Some(Ending::interrupted(Reason::Aborted, words::aborted(abort)))
}

/// As [`of`], as far as the journal is committed.
pub fn ending(journal: &Journal, id: RecordId) -> Option<Ending> {
    journal.read(|state| of(state, id))
}

/// Waits until somebody orders it. Never ends otherwise.
pub async fn ordered(journal: &Journal, id: RecordId) -> Ending {
    let mut moved = journal.watch_aborts();
    loop {
        // Asked to be woken before looking: what is committed in between wakes us again.
        moved.borrow_and_update();
        if let Some(ending) = ending(journal, id) {
            return ending;
        }
        if moved.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The step that runs, or the last one that ran.
fn where_it_is(record: &Record) -> Option<Step> {
    record.running().or(record.steps.last().map(|run| run.step))
}
