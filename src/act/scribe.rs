//! Writes one record's entries in their order. What must be durable before something is done is written with
//! [`Scribe::must`] or decided in the writer with [`Scribe::transact`]; what has already happened is written with
//! [`Scribe::note`], which never fails: while the journal cannot be written the entries wait here, in order, and
//! [`Scribe::settle`] stays until they are on disk, or
//! until what they say is no longer so.
//!
//! What is only a step on the way to the next entry waits for that one ([`Scribe::hold`]), because each commit is a sync
//! of the disk between an alert and its cure. Promise: nothing outside is changed while something is
//! held, but for a readmit, which no journal holds up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::audit::JournalError;
use crate::audit::journal::Journal;
use crate::audit::state::State;
use crate::decide::evidence::Evidence;
use crate::event::{Draft, Event, Record, RecordId, Step};
use crate::moment::Moment;
use crate::reason::{Outcome, Reason};
use crate::world::{Call, Clock};

/// What became of all that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// On disk.
    Written,
    /// Outdated before it could be written, and dropped.
    Outdated,
    /// Given up: the program stops, or the journal refuses it.
    Unwritten,
}

/// Attempts once the program is to stop.
const LAST_ATTEMPTS: u32 = 4;
/// Waits between attempts to write what waits here: from the first to the last, then the last again.
const RETRIES: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

pub struct Scribe {
    journal: Journal,
    record: RecordId,
    backlog: VecDeque<Draft>,
    /// The journal could not take what has happened already.
    behind: bool,
    begun: Vec<Step>,
    /// Of the evidence that was held last.
    seen: Option<Moment>,
    /// How often what waited was outdated.
    dropped: u32,
}

impl Scribe {
    pub fn new(journal: Journal, record: RecordId) -> Self {
        let ordered = |r: &Arc<Record>| Step::ALL.into_iter().filter(|step| r.ordered(*step)).collect();
        let begun = journal.read(|state| state.open.get(&record).map(ordered).unwrap_or_default());
        Scribe { journal, record, backlog: VecDeque::new(), behind: false, begun, seen: None, dropped: 0 }
    }

    pub fn record(&self) -> RecordId {
        self.record
    }

    /// True when the step was begun, by this process or by one before it, and not held back.
    pub fn began(&self, step: Step) -> bool {
        self.begun.contains(&step)
    }

    /// The step was begun, and its order was held back.
    pub fn hold_back(&mut self, step: Step) {
        self.begun.retain(|begun| *begun != step);
    }

    /// Durable when this returns `Ok`, together with everything that waited.
    ///
    /// # Errors
    /// The journal could not be written. The entry is dropped: what it announces must not be done.
    pub async fn must(&mut self, now: jiff::Timestamp, event: Event) -> Result<(), JournalError> {
        let draft = Draft::of(self.record, now, event);
        self.transact(move |_| (vec![draft], ())).await
    }

    /// What `decide` makes of the newest state, durable when this returns `Ok`, together with everything that waited.
    ///
    /// # Errors
    /// The journal could not be written. What was decided is dropped.
    pub async fn transact<T: Send + 'static>(
        &mut self,
        decide: impl FnOnce(&State) -> (Vec<Draft>, T) + Send + 'static,
    ) -> Result<T, JournalError> {
        let decide = |state: &State, mut waited: Vec<Draft>| {
            let (more, value) = decide(state);
            waited.extend(more);
            (waited, value)
        };
        self.write(decide).await
    }

    /// What `decide` makes of the newest state and of everything that waited, which waits no longer then.
    async fn write<T: Send + 'static>(
        &mut self,
        decide: impl FnOnce(&State, Vec<Draft>) -> (Vec<Draft>, T) + Send + 'static,
    ) -> Result<T, JournalError> {
        let waited: Vec<Draft> = self.backlog.iter().cloned().collect();
        let (entries, value) = self.journal.transact(move |state| decide(state, waited)).await?;
        self.backlog.clear();
        if !entries.is_empty() && std::mem::take(&mut self.behind) {
            tracing::info!(record = %self.record, "what waited is in the journal");
        }
        entries.iter().for_each(|entry| self.remember(&entry.event));
        Ok(value)
    }

    /// For what nothing outside follows from before the next entry, in whose commit it will be.
    pub fn hold(&mut self, now: jiff::Timestamp, event: Event) {
        self.backlog.push_back(Draft::of(self.record, now, event));
    }

    /// Holds the evidence, and remembers its moment.
    pub fn confirmed(&mut self, evidence: Evidence, seen: Moment) {
        self.hold(evidence.at, Event::Confirmed { evidence: Arc::new(evidence) });
        self.seen = Some(seen);
    }

    /// The moment of the evidence; none before there is any.
    pub fn seen(&self) -> Option<Moment> {
        self.seen
    }

    /// How often what waited was outdated before it could be written.
    pub fn dropped(&self) -> u32 {
        self.dropped
    }

    /// For what has happened already: on disk now, or as soon as the journal can be written.
    pub async fn note(&mut self, now: jiff::Timestamp, event: Event) {
        self.remember(&event);
        self.hold(now, event);
        if let Err(error) = self.flush().await {
            self.falls_behind(&error);
        }
    }

    fn falls_behind(&mut self, error: &JournalError) {
        if !std::mem::replace(&mut self.behind, true) {
            tracing::error!(record = %self.record, %error, waiting = self.backlog.len(), "the journal cannot be written; entries wait");
        }
    }

    async fn flush(&mut self) -> Result<(), JournalError> {
        self.flush_unless(|_| false).await.map(|_| ())
    }

    /// All that waits, unless it is `outdated` by the newest state.
    async fn flush_unless(&mut self, outdated: impl FnOnce(&State) -> bool + Send + 'static) -> Result<Settled, JournalError> {
        if self.backlog.is_empty() {
            return Ok(Settled::Written);
        }
        let decide = move |state: &State, waited| match outdated(state) {
            true => (Vec::new(), Settled::Outdated),
            false => (waited, Settled::Written),
        };
        let settled = self.write(decide).await?;
        if settled == Settled::Outdated {
            self.dropped += 1;
            self.behind = false;
        }
        Ok(settled)
    }

    /// Stays until nothing waits any more, or what waits is `outdated`. When the program is to stop, a few attempts must do.
    pub async fn settle<F>(&mut self, clock: &dyn Clock, shutdown: &CancellationToken, outdated: F) -> Settled
    where
        F: Fn(&State) -> bool + Clone + Send + 'static,
    {
        let mut last = LAST_ATTEMPTS;
        let mut waits = RETRIES.iter().chain(std::iter::repeat(&RETRIES[RETRIES.len() - 1]));
        loop {
            let error = match self.flush_unless(outdated.clone()).await {
                Ok(settled) => return settled,
                Err(error) => error,
            };
            if let JournalError::Illegal(_) | JournalError::Unwritable { .. } = error {
                // A bug of ours, and no wait mends it: say it loudly, and close what can be closed.
                tracing::error!(record = %self.record, %error, "the journal refuses the record's entries");
                self.backlog.clear();
                self.close_somehow(clock.now()).await;
                return Settled::Unwritten;
            }
            self.falls_behind(&error);
            if shutdown.is_cancelled() {
                last -= 1;
                if last == 0 {
                    tracing::error!(record = %self.record, %error, waiting = self.backlog.len(), "stopping with entries unwritten");
                    return Settled::Unwritten;
                }
            }
            // Whatever wakes it, not at once; and when it is to stop its few attempts are not to be over in a moment.
            let wakes = matches!(error, JournalError::Store(_) | JournalError::Gone { .. }) && !shutdown.is_cancelled();
            let wait = *waits.next().unwrap_or(&RETRIES[0]);
            clock.sleep(RETRIES[0]).await;
            tokio::select! {
                biased;
                () = clock.sleep(wait.saturating_sub(RETRIES[0])) => {}
                () = self.journal.mended(), if wakes => {}
            }
        }
    }

    /// An end that is always legal: whatever step runs is unknown, and the record is interrupted.
    async fn close_somehow(&mut self, now: jiff::Timestamp) {
        let id = self.record;
        let written = self.journal.transact(move |state| {
            let Some(record) = state.open.get(&id) else { return (Vec::new(), ()) };
            let unknown = |step| Event::StepEnded { step, call: Call::Unknown("not written down".to_owned()), note: Value::Null };
            let detail = "the run's own end could not be written down".to_owned();
            let closed = Event::Closed { outcome: Outcome::Interrupted, reason: Reason::Crashed, detail };
            let events = record.running().map(unknown).into_iter().chain([closed]);
            (events.map(|event| Draft::of(id, now, event)).collect(), ())
        });
        if let Err(error) = written.await {
            tracing::error!(record = %id, %error, "the record stays open until the next start");
        }
    }

    fn remember(&mut self, event: &Event) {
        if let Event::StepStarted { step } = event
            && !self.begun.contains(step)
        {
            self.begun.push(*step);
        }
    }
}
