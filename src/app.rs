//! The one place where things meet: build, start, addr, stop.
//!
//! Start: take the state directory, check the doors, compare the balancer with the journal, take up what an earlier
//! process left, then listen. Stop, last in first out: stop listening, let every run come to a safe point, flush.
//! In between, [`App::reload`] takes a changed configuration over.

mod board;
pub mod desk;
mod pauses;
mod pulse;
pub mod reload;
mod retention;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::act::hands::Hands;
use crate::act::recover::{self, reconcile};
use crate::act::steps::safe_point_within;
use crate::api::desk::Desk;
use crate::api::{self, Face};
use crate::app::desk::FrontDesk;
use crate::app::pulse::Pulse;
use crate::app::reload::Reloads;
use crate::audit::export::Follower;
use crate::audit::journal::Journal;
use crate::audit::patrol::keep_patrolling;
use crate::config::settings::Retention;
use crate::config::{Config, Settings};
use crate::detect::caller::Gate;
use crate::detect::look::Looks;
use crate::detect::poll;
use crate::detect::rush::Rush;
use crate::detect::watchdog::Watchdog;
use crate::edge::alertmanager::Alertmanager;
use crate::edge::clock::SystemClock;
use crate::edge::docker::Docker;
use crate::edge::haproxy::HaProxy;
use crate::edge::prometheus::Prometheus;
use crate::edge::serve;
use crate::edge::tls::Tls;
use crate::episodes::Episodes;
use crate::event::{Draft, Event, Pause, PauseScope};
use crate::guard::rails::Limits;
use crate::heartbeat::Heart;
use crate::kept::kept;
use crate::metrics::Telemetry;
use crate::page::{self, keep_paging};
use crate::pipeline::{Context, Timing};
use crate::target::infrastructure::Infrastructure;
use crate::world::World;

/// How long closed records that could not be counted wait to be counted again.
const COUNT_AGAIN: Duration = Duration::from_secs(5);
/// How often the balancer is compared with the journal, and the doors are tried.
const RECONCILE_EVERY: Duration = Duration::from_secs(10);
/// How often a process that cannot start tries to readmit what an earlier one left drained, and what it waits in between.
const RELEASES: u32 = 3;
const RELEASE_AGAIN: Duration = Duration::from_secs(5);
/// For the first entries of a process.
const FIRST_WORDS: Duration = Duration::from_secs(30);
/// For each of the things that are done last when stopping: readmitting, paging, the file, the journal.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How long answers that are under way may take when stopping.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// A running remediator.
pub struct App {
    addr: SocketAddr,
    context: Context,
    episodes: Episodes,
    server: serve::Server,
    rest: TaskTracker,
    /// Time-outs of questions to the Engine and to the balancer.
    asked: (Duration, Duration),
    /// Cancelled last: what the stop breaks off is paged for, too.
    paging: CancellationToken,
    follower: Follower,
    reloads: Reloads,
}

/// The live world that the settings name.
///
/// # Errors
/// An address that cannot be one.
pub fn live_world(config: &Config) -> anyhow::Result<World> {
    let s = &config.settings;
    let docker = Docker::new(&s.docker.read, &s.docker.restart, s.docker.timeout.get()).context("docker")?;
    Ok(World {
        metrics: Arc::new(Prometheus::new(&s.prometheus.url, s.prometheus.timeout.get()).context("prometheus")?),
        engine: Arc::new(docker.only(s.docker.only.clone()).ours(infrastructure(s))),
        balancer: Arc::new(HaProxy::new(&s.haproxy.address, s.haproxy.timeout.get()).context("haproxy")?),
        pager: Arc::new(Alertmanager::new(&s.alertmanager.urls, s.alertmanager.timeout.get()).context("alertmanager")?),
        clock: Arc::new(SystemClock),
    })
}

/// What this process stands on, as its own configuration names it.
fn infrastructure(settings: &Settings) -> Infrastructure {
    let mut ours = Infrastructure::default();
    ours.endpoint("prometheus.url", &settings.prometheus.url);
    settings.alertmanager.urls.iter().for_each(|url| ours.endpoint("alertmanager.urls", url));
    ours.endpoint("docker.read", &settings.docker.read);
    ours.endpoint("docker.restart", &settings.docker.restart);
    ours.endpoint("haproxy.address", &settings.haproxy.address);
    crate::edge::host::container_ids().iter().for_each(|id| ours.own(id));
    ours
}

impl App {
    /// Builds and starts everything.
    ///
    /// # Errors
    /// The state directory is taken or broken, or the address is.
    pub async fn start(config: Config, world: World) -> anyhow::Result<App> {
        let heart = Heart::new()?;
        let Config { settings, playbooks, .. } = config;
        let journal = Journal::open(&settings.state_dir)?;
        let context = Context {
            world,
            looks: Looks::default(),
            rush: Rush::default(),
            hands: Hands::default(),
            journal,
            playbooks: Arc::new(RwLock::new(Arc::new(playbooks))),
            limits: Limits { fleet: settings.limits.fleet, group: settings.limits.group },
            timing: Timing { ask_again: settings.pages.ask_again, hold: settings.pages.hold, page_every: settings.pages.every },
            host: crate::edge::host::name(),
            watchdog: Arc::new(Watchdog::new(settings.watchdog.alertname.clone(), settings.watchdog.within)),
            shutdown: CancellationToken::new(),
        };
        let external_url = settings.external_url.clone();
        match App::run(context.clone(), heart, settings).await {
            Ok(app) => Ok(app),
            Err(error) => {
                // An earlier process may have left a server drained, and nobody else will readmit it.
                context.shutdown.cancel();
                for _ in 0..RELEASES {
                    if recover::release(&context).await == 0 {
                        break;
                    }
                    context.world.clock.sleep(RELEASE_AGAIN).await;
                }
                // So that a disk that hangs is paged for, too.
                context.journal.answers().await;
                page::send_once(&context, &external_url).await;
                // Not for as long as its disk takes.
                bounded("the journal", context.journal.close()).await;
                Err(error)
            }
        }
    }

    async fn run(context: Context, heart: Heart, settings: Settings) -> anyhow::Result<App> {
        let first = async {
            started(&context, settings.start_paused).await?;
            pauses::widen(&context).await.context("the journal cannot be written")
        };
        // A disk that hangs is as bad as one that says no: what an earlier process left drained is readmitted.
        let first = tokio::time::timeout(FIRST_WORDS, first).await;
        first.with_context(|| format!("the journal's disk has not answered for {} s", FIRST_WORDS.as_secs()))??;
        let telemetry = Arc::new(Telemetry::new(env!("CARGO_PKG_VERSION")));
        for playbook in context.playbooks().iter() {
            telemetry.playbook(&playbook.name);
        }
        let doors = Arc::new(watch::Sender::new(None));
        try_doors(&context, &doors).await;
        reconcile(&context).await;

        let bound = serve::bind(settings.listen).await.with_context(|| format!("listen on {}", settings.listen))?;
        let episodes = Episodes::new(context.clone());
        let rest = TaskTracker::new();
        let clock = || Arc::clone(&context.world.clock);
        let (known, all, tried) = (context.clone(), episodes.clone(), Arc::clone(&doors));
        rest.spawn(kept("reconciling", clock(), move || keep_reconciling(known.clone(), all.clone(), Arc::clone(&tried))));
        let paging = CancellationToken::new();
        let (known, url, counts, end) = (context.clone(), settings.external_url.clone(), Arc::clone(&telemetry), paging.clone());
        rest.spawn(kept("paging", clock(), move || keep_paging(known.clone(), url.clone(), Arc::clone(&counts), end.clone())));
        let (known, counts) = (context.clone(), Arc::clone(&telemetry));
        let counted = Arc::new(AtomicU64::new(*context.journal.watch_closed().borrow()));
        rest.spawn(kept("counting", clock(), move || count_closed(known.clone(), Arc::clone(&counts), Arc::clone(&counted))));
        let Retention { bounds, check_every, audit_jsonl } = settings.retention;
        let follower = Follower::start(context.journal.clone(), &settings.state_dir, audit_jsonl)?;
        let (known, written) = (context.clone(), follower.written());
        rest.spawn(kept("retention", clock(), move || {
            retention::keep(known.clone(), bounds, check_every.get(), written.clone())
        }));
        episodes.take_up();
        let polls = poll::start(&context, &episodes, &rest);

        let desk = FrontDesk { context: context.clone(), episodes: episodes.clone(), doors, probed: Mutex::default() };
        let desk: Arc<dyn Desk> = Arc::new(desk);
        let tokens = &settings.tokens;
        let gate = Arc::new(Gate::new(&tokens.receiver, &tokens.reader, &tokens.operator)?);
        guarded(&gate, bound.addr())?;
        let tls = settings.tls.as_ref().map(|tls| Arc::new(Tls::new(tls.identity.clone())));
        let closing = CancellationToken::new();
        let limits = api::Limits { body: settings.limits.body, alerts: settings.limits.alerts, ..api::Limits::default() };
        let face = Face::new(Arc::clone(&desk), Arc::clone(&gate), Arc::clone(&telemetry), closing.clone(), limits);
        let bound = bound.over(tls.clone());
        let server = bound.serve(face.router(), serve::Limits::default(), Arc::clone(&telemetry), closing);
        let (addr, how) = (server.addr(), listens(&settings));
        tracing::info!(%addr, how, state_dir = %settings.state_dir.display(), "listening");
        telemetry.config_taken(context.world.clock.now());
        // Last: the first beat says that all of this is there.
        let (known, counts) = (context.clone(), Arc::clone(&telemetry));
        rest.spawn(kept("patrol", clock(), move || {
            let (journal, clock, shutdown) = (known.journal.clone(), Arc::clone(&known.world.clock), known.shutdown.clone());
            keep_patrolling(journal, clock, Arc::clone(&counts), shutdown)
        }));
        let (every, textfile) = (settings.heartbeat.every.get(), settings.heartbeat.textfile.clone());
        let pulse = Pulse { context: context.clone(), heart, every, textfile, telemetry: Arc::clone(&telemetry), desk };
        rest.spawn(pulse.keep_beating());
        let asked = (settings.docker.timeout.get(), settings.haproxy.timeout.get());
        let reloads = Reloads { in_force: Mutex::new(settings), gate, tls, telemetry, polls };
        Ok(App { addr, context, episodes, server, rest, asked, paging, follower, reloads })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Opens `audit.jsonl` by its name again, after a rotation.
    pub fn reopen(&self) {
        self.follower.reopen();
    }

    /// How long [`App::stop`] takes at most, by the playbooks of now and the runs that are under way.
    pub fn stop_within(&self) -> Duration {
        CLOSE_WITHIN.max(self.safe_point_within()) + LAST_WORDS * 4
    }

    fn safe_point_within(&self) -> Duration {
        let playbooks = self.context.playbooks();
        let written = playbooks.iter().map(|playbook| playbook.restart_grace_seconds);
        let begun = self.context.journal.read(|state| {
            let intents = state.records().filter_map(|record| record.intent.as_ref());
            intents.map(|intent| intent.plan.grace_seconds).max()
        });
        let (engine, balancer) = self.asked;
        safe_point_within(written.chain(begun).max().unwrap_or(0), engine, balancer)
    }

    /// Stops listening, lets every run come to a safe point (no server is left drained), and flushes the journal. Takes no
    /// longer than [`App::stop_within`]: whatever hangs is left behind then, and the next start takes it up.
    pub async fn stop(self) {
        let within = self.safe_point_within();
        // First of all, so that no drain and no restart begins any more.
        self.context.shutdown.cancel();
        let runs = tokio::time::timeout(within, self.episodes.stopped());
        // Runs that wait for a disk that hangs come to no safe point, and what they drained does not wait with them.
        let hangs = async {
            if !self.context.journal.answers().await {
                recover::release(&self.context).await;
            }
        };
        let (stopped, runs, ()) = tokio::join!(self.server.stop(CLOSE_WITHIN), runs, hangs);
        if stopped.cut > 0 {
            tracing::warn!(connections = stopped.cut, "answers that took too long were cut off");
        }
        if runs.is_err() {
            tracing::error!(?within, "a run did not come to a safe point; what is drained in our name is readmitted without it");
        }
        if runs.is_err() || self.context.journal.trouble().is_some() {
            bounded("readmitting", async { _ = recover::release(&self.context).await }).await;
        }
        self.paging.cancel();
        self.rest.close();
        bounded("the last page", self.rest.wait()).await;
        let flush = async {
            recover::release_orphans(&self.context).await;
            self.follower.stop().await;
        };
        bounded("audit.jsonl", flush).await;
        bounded("the journal", self.context.journal.close()).await;
        tracing::info!("stopped");
    }
}

/// Without tokens whoever reaches the port may start a drain. Configuration refuses such a thing with a place in the
/// file; this is the last lock, and where it is said.
fn guarded(gate: &Gate, addr: SocketAddr) -> anyhow::Result<()> {
    if !gate.is_open() {
        return Ok(());
    }
    anyhow::ensure!(addr.ip().is_loopback(), "no tokens are configured, so {addr} is not listened on; only loopback would be");
    tracing::warn!(
        %addr,
        "no tokens are configured: every user of this machine may deliver alerts, read the audit and give orders; for this reason only loopback is listened on"
    );
    Ok(())
}

fn listens(settings: &Settings) -> &'static str {
    match &settings.tls {
        None => "plain HTTP",
        Some(tls) if tls.mutual => "TLS, with client certificates",
        Some(_) => "TLS",
    }
}

/// What is not done by then is not waited for.
async fn bounded(what: &str, last: impl Future<Output = ()>) {
    if tokio::time::timeout(LAST_WORDS, last).await.is_err() {
        tracing::error!(what, "not done in {} s; stopping all the same", LAST_WORDS.as_secs());
    }
}

/// The journal's first entry of this process, and the pause that the configuration asks for.
async fn started(context: &Context, start_paused: bool) -> anyhow::Result<()> {
    let now = context.world.clock.now();
    let event = Event::Started { version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() };
    let mut drafts = vec![Draft::global(now, event)];
    let paused = context.journal.read(|state| {
        state.books.pauses.iter().any(|pause| {
            pause.scope == PauseScope::All && pause.until.is_none() // one that runs out does not hold until somebody resumes
        })
    });
    if start_paused && !paused {
        let reason = "start_paused is set in the configuration".to_owned();
        let pause = Pause { scope: PauseScope::All, actor: "configuration".to_owned(), reason, until: None };
        drafts.push(Draft::global(now, Event::Paused { pause }));
    }
    context.journal.transact(move |_| (drafts, ())).await.context("the journal cannot be written")?;
    Ok(())
}

/// Asks both doors for something that they must refuse, and says what came of it.
async fn try_doors(context: &Context, doors: &watch::Sender<Option<bool>>) {
    let answer = context.world.engine.forbidden_call_is_refused().await;
    let refused = match answer {
        Ok(refused) => Some(refused),
        Err(why) => {
            tracing::warn!(error = %why, "the doors to the Docker Engine cannot be tried");
            None
        }
    };
    if *doors.borrow() != refused {
        match refused {
            Some(true) => tracing::info!("both doors to the Docker Engine refuse a forbidden call"),
            Some(false) => tracing::error!("a door to the Docker Engine lets a forbidden call through: it is no door"),
            None => {}
        }
        doors.send_replace(refused);
    }
}

async fn keep_reconciling(context: Context, episodes: Episodes, doors: Arc<watch::Sender<Option<bool>>>) {
    loop {
        tokio::select! {
            () = context.world.clock.sleep(RECONCILE_EVERY) => {}
            () = context.shutdown.cancelled() => return,
        }
        tokio::select! {
            _ = reconcile(&context) => {}
            () = context.shutdown.cancelled() => return,
        }
        episodes.adopt();
        if *doors.borrow() != Some(true) {
            try_doors(&context, &doors).await;
        }
    }
}

/// Counts what the journal says was closed, so that a metric and the audit cannot disagree.
/// `counted`: up to this entry.
async fn count_closed(context: Context, telemetry: Arc<Telemetry>, counted: Arc<AtomicU64>) {
    let mut journal = context.journal.watch_closed();
    loop {
        tokio::select! {
            changed = journal.changed() => if changed.is_err() { return },
            () = context.shutdown.cancelled() => return,
        }
        // In bounded pages.
        loop {
            match context.journal.closed_after(counted.load(Ordering::Relaxed), 500).await {
                Ok(closed) if closed.is_empty() => break,
                Ok(closed) => {
                    for found in &closed {
                        telemetry.record_closed(&found.record);
                        counted.fetch_max(found.record.seq, Ordering::Relaxed);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "closed records could not be counted yet");
                    tokio::select! {
                        () = tokio::time::sleep(COUNT_AGAIN) => {}
                        () = context.shutdown.cancelled() => return,
                    }
                }
            }
        }
    }
}
