//! One task per episode key, so that one target is never walked twice at a time: it walks the open record if there is
//! one, else watches what was left unsettled, and is gone when there is neither.
//!
//! All of its state is the journal's: a new process starts the same tasks from what it finds there.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio_util::task::TaskTracker;

use crate::event::Record;
use crate::guard::ledger::Watch;
use crate::kept;
use crate::pipeline::{Context, Timing, walk};
use crate::target::{EpisodeKey, ServiceName};
use crate::watch::ask_again;

/// Episodes that are walked or asked about at the same moment; the others wait their turn.
const AT_ONCE: usize = 256;

/// All episodes that are under way or watched. Cheap to clone.
#[derive(Clone)]
pub struct Episodes {
    context: Context,
    tasks: Arc<Mutex<HashMap<EpisodeKey, Arc<Task>>>>,
    turns: Arc<Semaphore>,
    tracker: TaskTracker,
}

struct Task {
    /// Look now, do not wait for the timer.
    poke: Notify,
    /// How many walks and questions have been finished.
    rounds: watch::Sender<u64>,
    /// When the timer of its watch runs out; none while it is walked or asked.
    next: Mutex<Option<Timestamp>>,
}

/// What there is to do for a key. Only that: thousands may wait for their turn, and each would keep a copy.
enum Work {
    Walk,
    /// Ask again, at the latest after this long.
    Watch(Duration),
    Nothing,
}

impl Episodes {
    pub fn new(context: Context) -> Self {
        Episodes { context, tasks: Arc::default(), turns: Arc::new(Semaphore::new(AT_ONCE)), tracker: TaskTracker::new() }
    }

    /// Starts a task for everything that the journal holds open or watched.
    pub fn take_up(&self) {
        for key in self.keys() {
            self.look(&key);
        }
    }

    /// Starts a task for everything that is open or watched and has none, without disturbing those that have one. Heals
    /// what a panic, or a caller that vanished at the wrong moment, has left behind.
    pub fn adopt(&self) {
        for key in self.keys() {
            self.task(&key);
        }
    }

    fn keys(&self) -> Vec<EpisodeKey> {
        self.context.journal.read(|state| {
            let open = state.records().map(|record| record.accepted.key.clone());
            open.chain(state.books.watches.keys().cloned()).collect()
        })
    }

    /// Something happened to this episode: look at it now.
    pub fn look(&self, key: &EpisodeKey) {
        self.task(key).poke.notify_one();
    }

    /// A rail may have freed: look at every watched episode of the service, or of all services.
    pub fn look_at(&self, service: Option<&ServiceName>, but: Option<&EpisodeKey>) {
        let keys: Vec<EpisodeKey> = self.context.journal.read(|state| {
            let of_service = |watch: &&Arc<Watch>| {
                let target = watch.accepted.target.as_ref();
                !watch.outcome.is_settled()
                    && but != Some(&watch.key)
                    && service.is_none_or(|wanted| target.is_some_and(|target| target.service == *wanted))
            };
            state.books.watches.values().filter(of_service).map(|watch| watch.key.clone()).collect()
        });
        for key in keys {
            self.look(&key);
        }
    }

    /// Waits until the episode has no open record and has been looked at since the call, or the time is up.
    pub async fn settled(&self, key: &EpisodeKey, within: Duration) {
        let task = self.task(key);
        let mut rounds = task.rounds.subscribe();
        let start = *rounds.borrow_and_update();
        let under_way = self.is_open(key);
        if !under_way {
            task.poke.notify_one();
        }
        let done = async {
            let mut journal = self.context.journal.watch();
            loop {
                let looked = under_way || *rounds.borrow() > start;
                if looked && !self.is_open(key) {
                    return;
                }
                tokio::select! {
                    changed = rounds.changed() => if changed.is_err() { return },
                    changed = journal.changed() => if changed.is_err() { return },
                }
            }
        };
        tokio::select! {
            () = done => {}
            () = self.context.world.clock.sleep(within) => {}
            () = self.context.shutdown.cancelled() => {}
        }
    }

    /// Waits until every task has come to a safe point. Call after the shutdown was ordered.
    pub async fn stopped(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// When each watched episode is asked about next, unless something makes it look before.
    pub fn next_looks(&self) -> HashMap<EpisodeKey, Timestamp> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let next = |task: &Task| *task.next.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().filter_map(|(key, task)| Some((key.clone(), next(task)?))).collect()
    }

    fn is_open(&self, key: &EpisodeKey) -> bool {
        self.context.journal.read(|state| state.under_way(key).is_some())
    }

    fn task(&self, key: &EpisodeKey) -> Arc<Task> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = tasks.get(key) {
            return Arc::clone(task);
        }
        let task = Arc::new(Task { poke: Notify::new(), rounds: watch::Sender::new(0), next: Mutex::default() });
        tasks.insert(key.clone(), Arc::clone(&task));
        self.tracker.spawn(self.clone().keep_attending(key.clone(), Arc::clone(&task)));
        task
    }

    /// A panic costs this key its task and nothing else; `adopt` starts another one.
    async fn keep_attending(self, key: EpisodeKey, task: Arc<Task>) {
        let attending = self.attend(&key, &task);
        if let Err(panic) = AssertUnwindSafe(attending).catch_unwind().await {
            tracing::error!(%key, error = kept::said(&*panic), "an episode's task ended badly; it is taken up again");
        }
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.get(&key).is_some_and(|known| Arc::ptr_eq(known, &task)) {
            tasks.remove(&key);
        }
    }

    async fn attend(&self, key: &EpisodeKey, task: &Task) {
        let mut blind = None;
        while !self.context.shutdown.is_cancelled() {
            match self.work(key) {
                Work::Walk => {
                    // A run that an earlier process began may have left a server drained.
                    let admitted = |record: &Record| record.intent.is_some();
                    let begun = self.context.journal.read(|state| state.under_way(key).is_some_and(admitted));
                    let _turn = if begun { None } else { self.turn().await };
                    if let Some(record) = self.context.journal.read(|state| state.under_way(key).cloned()) {
                        // In a box: whoever waits for a turn needs no room for a walk.
                        Box::pin(self.walk(record)).await;
                    }
                    blind = None;
                }
                Work::Watch(wait) => {
                    task.looks_at(self.context.world.clock.now().checked_add(wait).ok());
                    tokio::select! {
                        biased;
                        () = task.poke.notified() => {}
                        () = self.context.world.clock.sleep(wait) => {}
                        () = self.context.shutdown.cancelled() => break,
                    }
                    task.looks_at(None);
                    let _turn = self.turn().await;
                    // What it is about may have changed while we waited.
                    if let Some(watch) = self.watched(key) {
                        // Asking changes nothing outside; what it has queued for the journal is written all the same.
                        tokio::select! {
                            biased;
                            _ = Box::pin(ask_again(&self.context, &watch, &mut blind)) => {}
                            () = self.context.shutdown.cancelled() => break,
                        }
                    }
                }
                Work::Nothing if self.leave(key) => break,
                Work::Nothing => {}
            }
            task.rounds.send_modify(|rounds| *rounds += 1);
        }
    }

    /// Waits for a turn to ask. Deliveries come first, and are waited for without a turn in hand.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.context.rush.passed().await;
        self.turns.acquire().await.ok()
    }

    async fn walk(&self, record: Record) {
        let service = record.accepted.target.as_ref().map(|target| target.service.clone());
        let (id, key) = (record.id, record.accepted.key.clone());
        let held = walk(&self.context, record).await;
        if self.context.journal.read(|state| state.open.contains_key(&id)) {
            // Left for the next process, or the journal refuses its end. Never walk it again at once.
            tokio::select! {
                biased;
                () = self.context.world.clock.sleep(self.context.timing.ask_again.get()) => {}
                () = self.context.shutdown.cancelled() => {}
            }
        }
        // Whatever this run held is free now. One that held nothing frees nothing.
        if let Some(service) = service.filter(|_| held) {
            self.look_at(Some(&service), Some(&key));
        }
    }

    fn work(&self, key: &EpisodeKey) -> Work {
        self.context.journal.read(|state| match state.books.watches.get(key) {
            _ if state.under_way(key).is_some() => Work::Walk,
            Some(watch) => Work::Watch(self.patience(watch)),
            None => Work::Nothing,
        })
    }

    /// The watch, unless there is a record to be walked first.
    fn watched(&self, key: &EpisodeKey) -> Option<Arc<Watch>> {
        self.context.journal.read(|state| match state.under_way(key) {
            Some(_) => None,
            None => state.books.watches.get(key).cloned(),
        })
    }

    /// Under the lock, because a delivery may be about to poke this very task.
    fn leave(&self, key: &EpisodeKey) -> bool {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing = matches!(self.work(key), Work::Nothing);
        if nothing {
            tasks.remove(key);
        }
        nothing
    }

    /// `max(ask_again, the rail's retry_after)`, and `hold` at most: the page that stands meanwhile may be over, and whoever
    /// was to tell us so may have been lost.
    fn patience(&self, watch: &Watch) -> Duration {
        let retry_after = watch.retry_after_ms.map_or(Duration::ZERO, Duration::from_millis);
        let passed = self.context.world.clock.now().duration_since(watch.since);
        let left = retry_after.saturating_sub(Duration::try_from(passed).unwrap_or(Duration::ZERO));
        let Timing { ask_again, hold, .. } = self.context.timing;
        left.min(hold.get()).max(ask_again.get())
    }
}

impl Task {
    fn looks_at(&self, at: Option<Timestamp>) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}
