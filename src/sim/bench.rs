//! A whole remediator on the simulated world: the same walk, episodes, pages and reconciler as in production, on a
//! journal without a thread, so that virtual time stands still while it writes.
//!
//! A crash leaves nothing of the process but its journal. [`Bench::crash_and_restart`] may also take the journal back to
//! an entry: what was written after the process should have been dead never happened.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::act::hands::Hands;
use crate::act::recover::reconcile;
use crate::alert::{Alert, AlertGroup, AlertStatus};
use crate::api::desk::{Receipt, Unavailable};
use crate::audit::journal::Journal;
use crate::audit::query::Filter;
use crate::audit::{JournalError, Told};
use crate::decide::playbook::{Playbook, Rate};
use crate::detect::look::Looks;
use crate::detect::rush::Rush;
use crate::detect::watchdog::{self, Watchdog};
use crate::detect::{poll, take_in};
use crate::episodes::Episodes;
use crate::event::{Draft, Event, Pause, PauseScope, Record};
use crate::guard::rails::Limits;
use crate::metrics::Telemetry;
use crate::page::keep_paging;
use crate::period::Period;
use crate::pipeline::{Context, Timing};
use crate::sim::Sim;
use crate::world::PageAlert;

/// How often the balancer is compared with the journal, as `app` does.
const RECONCILE_EVERY: Duration = Duration::from_secs(10);
/// How often [`Bench::until`] looks.
const LOOK: Duration = Duration::from_millis(100);
/// Entries that a journal of the bench is read in at a time.
const CHUNK: usize = 500;

/// A remediator under test and the world around it.
pub struct Bench {
    pub sim: Sim,
    pub context: Context,
    pub episodes: Episodes,
    tasks: Vec<JoinHandle<()>>,
    life: u64,
}

impl Bench {
    /// Starts a remediator with these playbooks.
    ///
    /// # Errors
    /// The journal cannot be made.
    pub async fn start(sim: Sim, playbooks: Vec<Playbook>) -> Result<Bench, JournalError> {
        Bench::on(sim, playbooks, Journal::in_memory()?).await
    }

    /// Starts a remediator on a journal that there is.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub async fn on(sim: Sim, playbooks: Vec<Playbook>, journal: Journal) -> Result<Bench, JournalError> {
        let minute = Period::from_secs(60);
        let context = Context {
            world: sim.world(),
            looks: Looks::default(),
            rush: Rush::default(),
            hands: Hands::default(),
            journal,
            playbooks: Arc::new(RwLock::new(Arc::new(playbooks))),
            // The settings' own defaults.
            limits: Limits { fleet: Rate { per: minute, burst: 5 }, group: Rate { per: minute, burst: 3 } },
            timing: Timing { ask_again: Period::from_secs(30), hold: Period::from_secs(600), page_every: minute },
            host: "bench".to_owned(),
            watchdog: Arc::new(Watchdog::new(Some(watchdog::ALERTNAME.to_owned()), watchdog::WITHIN)),
            shutdown: CancellationToken::new(),
        };
        Bench::process(sim, context).await
    }

    /// What `app` does between opening the journal and listening.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub async fn process(sim: Sim, context: Context) -> Result<Bench, JournalError> {
        let life = sim.deaths();
        let event = Event::Started { version: "bench".to_owned(), pid: 1 };
        context.journal.append(Draft::global(context.world.clock.now(), event)).await?;
        reconcile(&context).await;
        let episodes = Episodes::new(context.clone());
        let telemetry = Arc::new(Telemetry::new("bench"));
        let tasks = vec![
            tokio::spawn(keep_paging(context.clone(), "http://bench".to_owned(), telemetry, context.shutdown.clone())),
            tokio::spawn(keep_reconciling(context.clone(), episodes.clone())),
        ];
        episodes.take_up();
        poll::start(&context, &episodes, &TaskTracker::new());
        Ok(Bench { life, sim, context, episodes, tasks })
    }

    /// The process dies at once, is gone for a while, and another one starts on the same journal.
    /// `keep`: the last entry that the dead one wrote; later ones are taken back.
    ///
    /// # Errors
    /// The journal cannot be read or made again.
    pub async fn crash_and_restart(self, keep: Option<u64>, gone_for: Duration) -> Result<Bench, JournalError> {
        self.sim.kill();
        self.tasks.iter().for_each(JoinHandle::abort);
        let journal = match keep {
            Some(seq) => prefix(&self.context.journal, seq).await?,
            None => self.context.journal.clone(),
        };
        tokio::time::sleep(gone_for).await;
        let context = Context {
            world: self.sim.world(),
            looks: Looks::default(),
            rush: Rush::default(),
            hands: Hands::default(),
            journal,
            shutdown: CancellationToken::new(),
            ..self.context.clone()
        };
        Bench::process(self.sim, context).await
    }

    /// The process has not died.
    pub fn alive(&self) -> bool {
        self.life == self.sim.deaths()
    }

    /// What a dead process leaves behind goes with it.
    pub fn bury(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }

    /// The process is asked to stop, and does.
    pub async fn stop(&self) {
        self.context.shutdown.cancel();
        self.episodes.stopped().await;
        reconcile(&self.context).await;
    }

    /// One notification, as the webhook takes it in.
    ///
    /// # Errors
    /// It could not be made durable.
    pub async fn deliver_group(&self, alerts: Vec<Alert>, truncated: u64) -> Result<Vec<Receipt>, Unavailable> {
        let group = AlertGroup { receiver: "remediator".to_owned(), group_key: "{}:{}".to_owned(), truncated, alerts };
        let taken = take_in(&self.context, group).await?;
        for key in &taken.touched {
            self.episodes.look(key);
        }
        Ok(taken.receipts)
    }

    /// # Errors
    /// As [`Bench::deliver_group`].
    pub async fn deliver(&self, alerts: Vec<Alert>) -> Result<Vec<Receipt>, Unavailable> {
        self.deliver_group(alerts, 0).await
    }

    /// # Errors
    /// As [`Bench::deliver_group`].
    pub async fn deliver_resolved(&self, alerts: Vec<Alert>) -> Result<Vec<Receipt>, Unavailable> {
        let resolved = |alert: Alert| Alert { status: AlertStatus::Resolved, ..alert };
        self.deliver(alerts.into_iter().map(resolved).collect()).await
    }

    /// Delivers whatever Prometheus says is firing.
    ///
    /// # Errors
    /// As [`Bench::deliver_group`].
    pub async fn deliver_firing(&self) -> Result<Vec<Receipt>, Unavailable> {
        let firing = self.sim.with(|state| state.prometheus.firing());
        if firing.is_empty() { Ok(Vec::new()) } else { self.deliver(firing).await }
    }

    /// Virtual time passes.
    pub async fn run_for(&self, how_long: Duration) {
        tokio::time::sleep(how_long).await;
    }

    /// As [`Bench::run_for`], while an Alertmanager delivers what fires every so often.
    pub async fn run_with_feed(&self, how_long: Duration, every: Duration) {
        let mut left = how_long;
        while !left.is_zero() {
            // A refused delivery comes again, as Alertmanager's does.
            let _ = self.deliver_firing().await;
            let step = every.min(left);
            self.run_for(step).await;
            left = left.saturating_sub(step);
        }
    }

    /// Lets time pass until it is so. False: it was not within that time.
    pub async fn until(&self, within: Duration, so: impl Fn(&Bench) -> bool) -> bool {
        let mut waited = Duration::ZERO;
        while !so(self) {
            if waited >= within {
                return false;
            }
            self.run_for(LOOK).await;
            waited += LOOK;
        }
        true
    }

    /// Every record, oldest first.
    pub fn records(&self) -> Vec<Record> {
        let filter = Filter::default();
        // The journal without a thread answers at once.
        let page = self.context.journal.query(filter, None, CHUNK).now_or_never().and_then(Result::ok);
        let newest_first = page.map(|page| page.items).unwrap_or_default();
        newest_first.into_iter().rev().map(|found| found.record).collect()
    }

    /// Nothing is open.
    pub fn idle(&self) -> bool {
        self.context.journal.read(|state| state.open.is_empty())
    }

    /// Every entry with its place in the chain.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn entries(&self) -> Result<Vec<Told>, JournalError> {
        entries(&self.context.journal).await
    }

    pub fn pages(&self) -> Vec<PageAlert> {
        self.sim.with(|state| state.pages())
    }

    /// An operator's word, as `POST /pause` writes it down.
    pub fn pause(&self, scope: PauseScope) {
        let pause = Pause { scope, actor: "operator".to_owned(), reason: "a test".to_owned(), until: None };
        self.order(Event::Paused { pause });
    }

    pub fn resume(&self, scope: PauseScope) {
        self.order(Event::Resumed { scope, actor: "operator".to_owned(), reason: "a test".to_owned() });
    }

    fn order(&self, event: Event) {
        write_now(&self.context.journal, Draft::global(self.context.world.clock.now(), event));
        self.episodes.look_at(None, None);
    }
}

/// Writes an entry without waiting: for orders that are given in the middle of a call.
pub fn write_now(journal: &Journal, draft: Draft) -> bool {
    journal.append(draft).now_or_never().is_some_and(|written| written.is_ok())
}

async fn keep_reconciling(context: Context, episodes: Episodes) {
    loop {
        context.world.clock.sleep(RECONCILE_EVERY).await;
        if context.shutdown.is_cancelled() {
            return;
        }
        reconcile(&context).await;
        episodes.adopt();
    }
}

pub(super) async fn entries(journal: &Journal) -> Result<Vec<Told>, JournalError> {
    let mut all: Vec<Told> = Vec::new();
    loop {
        let after = all.last().map_or(0, |told| told.entry.seq);
        let more = journal.entries_after(after, CHUNK).await?;
        if more.is_empty() {
            return Ok(all);
        }
        all.extend(more);
    }
}

/// A journal that ends with the entry of this number.
pub(super) async fn prefix(journal: &Journal, seq: u64) -> Result<Journal, JournalError> {
    let kept = entries(journal).await?.into_iter().map(|told| told.entry).filter(|entry| entry.seq <= seq);
    let drafts = kept.map(|entry| Draft { at: entry.at, record: entry.record, event: entry.event }).collect();
    let shorter = Journal::in_memory()?;
    shorter.transact(move |_| (drafts, ())).await?;
    Ok(shorter)
}
