//! One seed: the production program on a drawn world, from the first scrape to half an hour after the last trouble.
//!
//! Deliveries go through the HTTP face, with tokens, as bytes. A process that dies leaves its journal, cut at the entry
//! after which it died; another one starts a little later, as a supervisor would have it. Nothing here looks into the
//! program; what is right is `invariants`' business.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::act::hands::Hands;
use crate::act::recover;
use crate::api::desk::Receipt;
use crate::api::{Face, Limits};
use crate::app::desk::FrontDesk;
use crate::audit::journal::Journal;
use crate::audit::{JournalError, Told};
use crate::detect::caller::Gate;
use crate::detect::look::Looks;
use crate::detect::rush::Rush;
use crate::detect::watchdog::Watchdog;
use crate::metrics::Telemetry;
use crate::page;
use crate::period::Period;
use crate::pipeline::Context;
use crate::sim::alertmanager::{Cluster, Post, TICK, body, wire};
use crate::sim::bench::{Bench, prefix};
use crate::sim::dice::Dice;
use crate::sim::fault::{Fault, Scene};
use crate::sim::invariants::{self, Violation};
use crate::sim::ledger::{Delivery, Ledger, Note, Noted};
use crate::sim::liveness::Liveness;
use crate::sim::order;
use crate::sim::scenario::Scenario;
use crate::sim::{Sim, What};
use crate::target::hex;

/// One seed in so many is also told in two ways.
const ORDER_EVERY: u64 = 16;
const TOKEN: &str = "a-receiver's-token";
/// How soon a supervisor tries again to start what did not start.
const START_AGAIN: Duration = Duration::from_secs(10);
/// Longer than any world lasts.
const NEVER: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longest that a stop may take: every step of a run has a bound, and this is more than their sum.
const STOPS_WITHIN: Duration = Duration::from_secs(300);

/// A run with everything that can be known of it.
#[derive(Clone)]
pub struct Trial {
    pub scenario: Scenario,
    pub sim: Sim,
    pub notes: Vec<Note>,
    pub entries: Vec<Told>,
    /// Why the journal cannot be believed, if so.
    pub broken: Vec<String>,
    /// What the journal's own state and pages were at the end.
    pub end: End,
}

/// How the world stood at the end.
#[derive(Clone, Debug, Default)]
pub struct End {
    pub open: Vec<String>,
    pub drained: Vec<String>,
    /// Pages that are up for what is well.
    pub stale_pages: Vec<String>,
    pub deaths: u64,
    /// The journal's state is its fold.
    pub same_state: bool,
    /// What came out differently when the same was delivered differently.
    pub split: Vec<String>,
}

/// What a seed came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub seed: u64,
    pub violations: Vec<Violation>,
    pub world_time: Duration,
    pub faults: usize,
    pub deliveries: usize,
    pub drains: usize,
    pub restarts: usize,
    pub pages: usize,
    pub deaths: u64,
    pub entries: usize,
    /// SHA-256 of the story's facts.
    pub hash: String,
}

/// Runs a seed on a runtime of its own, in virtual time.
///
/// # Errors
/// The runtime or a journal in memory cannot be made.
pub fn run(seed: u64) -> anyhow::Result<(Trial, Outcome)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    // Virtual time only passes while somebody waits for it, so that a world in which everybody waits for something else
    // comes to this at once.
    let told = runtime.block_on(async { tokio::time::timeout(NEVER, stage(Scenario::draw(seed))).await });
    let mut trial = told.map_err(|_| anyhow::anyhow!("seed {seed} does not come to its end"))??;
    if seed.is_multiple_of(ORDER_EVERY) {
        trial.end.split = runtime.block_on(order::differences(seed))?;
    }
    let outcome = judge(&trial);
    Ok((trial, outcome))
}

fn judge(trial: &Trial) -> Outcome {
    let effects = trial.sim.with(|state| state.effects.clone());
    let count = |wanted: fn(&What) -> bool| effects.iter().filter(|effect| wanted(&effect.what)).count();
    let noted = |wanted: fn(&Noted) -> bool| trial.notes.iter().filter(|note| wanted(&note.what)).count();
    Outcome {
        seed: trial.scenario.seed,
        violations: invariants::check(trial),
        world_time: trial.scenario.end,
        faults: noted(|what| matches!(what, Noted::Fault(_))),
        deliveries: noted(|what| matches!(what, Noted::Delivery(_))),
        drains: count(|what| matches!(what, What::Drain(_))),
        restarts: count(|what| matches!(what, What::Restart { .. })),
        pages: trial.sim.with(|state| state.distinct_pages().len()),
        deaths: trial.end.deaths,
        entries: trial.entries.len(),
        hash: fingerprint(trial, &effects),
    }
}

fn fingerprint(trial: &Trial, effects: &[crate::sim::Effect]) -> String {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    for told in &trial.entries {
        hash.update(told.hash.as_bytes());
    }
    hash.update(format!("{effects:?}").as_bytes());
    hex(&hash.finalize())
}

/// The stage: a world, its Alertmanagers, and a program that comes and goes.
struct Stage {
    scenario: Scenario,
    scene: Scene,
    cluster: Cluster,
    dice: Dice,
    base: Context,
    bench: Option<Bench>,
    router: Option<Router>,
    start_at: Option<Timestamp>,
    broken: Vec<String>,
    liveness: Liveness,
}

async fn stage(scenario: Scenario) -> anyhow::Result<Trial> {
    let mut stage = Stage::new(scenario)?;
    stage.start().await;
    let mut script = stage.scenario.script.clone().into_iter().peekable();
    let begin = stage.scene.sim.now();
    let at = |offset: Duration| begin.saturating_add(jiff::SignedDuration::try_from(offset).unwrap_or_default()).unwrap_or(begin);
    let (end, calm_at) = (at(stage.scenario.end), at(stage.scenario.calm_at));
    let (mut tick, mut calm) = (begin, false);
    loop {
        let now = stage.scene.sim.now();
        if now >= end {
            break;
        }
        stage.bury_the_dead().await?;
        if stage.start_at.is_some_and(|at| at <= now) {
            stage.start().await;
        }
        while let Some((_, fault)) = script.next_if(|(offset, _)| at(*offset) <= now) {
            stage.apply(&fault).await;
        }
        if !calm && now >= calm_at {
            calm = true;
            stage.scene.put_right();
            // Also when no process lives, and its journal has been cut since.
            stage.base.journal.pretend_full(false);
            stage.base.journal.pretend_unsynced(false);
            stage.cluster.put_right();
            stage.scene.ledger.note(&stage.scene.sim, Noted::Calm);
        }
        if now >= tick {
            stage.tick(now).await;
            tick = at(now.duration_since(begin).unsigned_abs() + TICK);
        }
        let next =
            [script.peek().map(|(offset, _)| at(*offset)), stage.start_at, (!calm).then_some(calm_at), Some(tick), Some(end)];
        let next = next.into_iter().flatten().min().unwrap_or(end);
        let wait = Duration::try_from(next.duration_since(stage.scene.sim.now())).unwrap_or_default();
        tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
    }
    stage.close().await
}

impl Stage {
    fn new(scenario: Scenario) -> Result<Stage, JournalError> {
        let sim = scenario.world();
        let current = Arc::new(Mutex::new(None));
        let ledger = Ledger::new(current.clone());
        let witness = ledger.clone();
        sim.witness(move |state, effect| witness.witness(state, effect));
        let base = Context {
            world: sim.world(),
            looks: Looks::default(),
            rush: Rush::default(),
            hands: Hands::default(),
            journal: Journal::in_memory()?,
            playbooks: Arc::new(RwLock::new(Arc::new(scenario.playbooks.clone()))),
            watchdog: Arc::new(Watchdog::new(None, Period::from_secs(600))),
            limits: scenario.limits,
            timing: scenario.timing,
            host: "sim".to_owned(),
            shutdown: CancellationToken::new(),
        };
        let scene = Scene { sim, ledger, services: scenario.services.clone(), current, doom: Arc::default() };
        Ok(Stage {
            cluster: Cluster::new(scenario.seed, &scenario.peers),
            dice: Dice::new(scenario.seed, 3),
            liveness: Liveness::new(&scenario),
            scenario,
            scene,
            base,
            bench: None,
            router: None,
            start_at: None,
            broken: Vec::new(),
        })
    }

    /// What a supervisor does.
    async fn start(&mut self) {
        self.start_at = None;
        let sim = self.scene.sim.clone();
        let context = Context {
            world: sim.world(),
            looks: Looks::default(),
            rush: Rush::default(),
            hands: Hands::default(),
            shutdown: CancellationToken::new(),
            ..self.base.clone()
        };
        *self.scene.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.clone());
        let life = sim.deaths();
        let starting = async {
            let started = Bench::process(sim.clone(), context.clone()).await;
            if started.is_err() {
                // As `App::start` does.
                context.shutdown.cancel();
                recover::release(&context).await;
                page::send_once(&context, "http://sim").await;
            }
            started.ok()
        };
        let started = tokio::select! {
            biased;
            started = starting => started,
            () = death(&sim, life) => {
                self.scene.ledger.note(&sim, Noted::Died);
                self.take_away();
                return self.gone_for(START_AGAIN);
            }
        };
        match started {
            Some(bench) => {
                self.scene.ledger.note(&sim, Noted::Started);
                self.router = face(&bench);
                self.bench = Some(bench);
            }
            None => {
                self.scene.ledger.note(&sim, Noted::DidNotStart);
                self.gone_for(START_AGAIN);
            }
        }
    }

    fn gone_for(&mut self, how_long: Duration) {
        let now = self.scene.sim.now();
        self.start_at = now.saturating_add(jiff::SignedDuration::try_from(how_long).unwrap_or_default()).ok();
    }

    /// A dead process is taken away; one that was asked to stop is waited for.
    async fn bury_the_dead(&mut self) -> Result<(), JournalError> {
        let Some(bench) = self.bench.as_ref() else { return Ok(()) };
        let last = *self.scene.doom.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| bench.context.journal.head().seq >= last) && bench.alive() {
            self.scene.sim.kill();
        }
        if !bench.alive() {
            self.scene.ledger.note(&self.scene.sim, Noted::Died);
            self.take_away();
            if let Some(last) = last.filter(|last| self.base.journal.head().seq > *last) {
                // As it was left; the one that is cut has its projections made again.
                self.believe().await;
                let (full, unsynced) = (self.base.journal.pretends_full(), self.base.journal.pretends_unsynced());
                self.base.journal = prefix(&self.base.journal, last).await?;
                self.base.journal.pretend_full(full);
                self.base.journal.pretend_unsynced(unsynced);
                self.scene.ledger.cut(last);
            }
            // Whatever is noted until the next process starts is noted of the journal that is left.
            *self.scene.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.base.clone());
            if self.base.journal.is_haunted() && self.dice.one_in(2) {
                self.base.journal.come_back().await?;
            }
            self.believe().await;
            let gone_for = self.dice.seconds(1, 60);
            self.gone_for(gone_for);
        } else if bench.context.shutdown.is_cancelled() {
            let stopped = tokio::time::timeout(STOPS_WITHIN, bench.stop()).await;
            if stopped.is_err() && bench.alive() {
                self.broken.push("a process that was asked to stop did not".to_owned());
            }
            self.scene.ledger.note(&self.scene.sim, Noted::Stopped);
            self.scene.sim.kill();
            self.take_away();
            let gone_for = self.dice.seconds(1, 30);
            self.gone_for(gone_for);
        }
        Ok(())
    }

    fn take_away(&mut self) {
        if let Some(bench) = self.bench.take() {
            bench.bury();
        }
        self.router = None;
        self.scene.sim.disarm();
        *self.scene.doom.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The journal is what it says, and so are its projections.
    async fn believe(&mut self) {
        if let Err(error) = self.base.journal.verify().await {
            self.broken.push(error.to_string());
        }
    }

    async fn apply(&mut self, fault: &Fault) {
        self.scene.apply(fault);
        match fault {
            Fault::PeerDown(peer, down) => self.cluster.down(*peer, *down),
            Fault::Truncates(peer, on) => self.cluster.truncates(*peer, *on),
            Fault::Intruder(replica) => {
                let post = self.forged(*replica);
                let token = self.dice.of(&[None, Some("guessed"), Some("")]);
                self.post("intruder", token, &post).await;
            }
            Fault::Liar(replica) => {
                let post = self.forged(*replica);
                self.post("liar", Some(TOKEN), &post).await;
            }
            // Also while no process lives.
            Fault::Full(on) => self.base.journal.pretend_full(*on),
            Fault::Unsynced(on) => self.base.journal.pretend_unsynced(*on),
            _ => {}
        }
        if !self.base.journal.pretends_to_fail() {
            self.liveness.disk_is_well();
        }
    }

    /// An alert that Prometheus never sent.
    fn forged(&mut self, replica: usize) -> Vec<u8> {
        let now = self.scene.sim.now();
        let name = self.dice.of(&["FdLeakFast", "FdExhausted", "NobodysAlert"]);
        let alert = self.scene.sim.with(|state| {
            let instance = state.replicas[replica].instance.clone();
            state.prometheus.alert(name, &instance, Some(now))
        });
        let alerts: Vec<_> = alert.iter().map(|alert| wire(alert, now, true)).collect();
        body("{}:{forged}", &alerts, 0)
    }

    async fn tick(&mut self, now: Timestamp) {
        use crate::sim::prometheus::Trouble;
        let firing = self.scene.sim.with(|state| {
            let sends = !matches!(state.prometheus.trouble, Trouble::Down);
            sends.then(|| state.prometheus.firing())
        });
        for post in self.cluster.tick(now, firing.as_deref()) {
            let status = self.deliver(&post).await;
            self.cluster.answered(&post, status, self.scene.sim.now());
        }
        let alive = self.bench.as_ref().is_some_and(Bench::alive);
        self.liveness.look(&self.scene, &self.base, alive);
    }

    async fn deliver(&mut self, post: &Post) -> Option<u16> {
        let from = format!("alertmanager {} ({})", post.peer + 1, post.told);
        self.post(&from, Some(TOKEN), &post.body).await
    }

    /// Posts to whoever listens.
    async fn post(&mut self, from: &str, token: Option<&str>, body: &[u8]) -> Option<u16> {
        let answer = self.ask(token, body).await;
        let (status, before, after, receipts) = answer.unwrap_or((None, 0, 0, Vec::new()));
        let known = |receipt: &&Receipt| receipt.id.is_none_or(|id| self.knows(id));
        let lost = receipts.iter().filter(|receipt| !known(receipt)).count();
        let delivery = Delivery {
            from: from.to_owned(),
            authentic: token == Some(TOKEN),
            status,
            before,
            after,
            lost,
            told: receipts.iter().map(told).collect::<Vec<_>>().join("; "),
            receipts,
        };
        self.liveness.delivered(&delivery, self.scene.sim.now());
        self.scene.ledger.note(&self.scene.sim, Noted::Delivery(delivery));
        status
    }

    fn knows(&self, id: crate::event::RecordId) -> bool {
        use futures_util::FutureExt as _;
        let open = self.base.journal.read(|state| state.open.contains_key(&id));
        open || self.base.journal.record(id).now_or_never().is_some_and(|found| matches!(found, Ok(Some(_))))
    }

    async fn ask(&self, token: Option<&str>, body: &[u8]) -> Option<(Option<u16>, u64, u64, Vec<Receipt>)> {
        #[derive(Deserialize)]
        struct Answer {
            results: Vec<Receipt>,
        }
        let (router, bench) = (self.router.clone()?, self.bench.as_ref()?);
        let journal = &bench.context.journal;
        let last = *self.scene.doom.lock().unwrap_or_else(PoisonError::into_inner);
        let doomed = || last.is_some_and(|last| journal.head().seq >= last);
        if !bench.alive() || doomed() {
            return None;
        }
        let before = journal.head().seq;
        let mut request = Request::post("/remediate").header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = router.oneshot(request.body(Body::from(body.to_vec())).ok()?).await.ok()?;
        let after = journal.head().seq;
        if !bench.alive() || doomed() {
            // It died before the answer was out.
            return None;
        }
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.ok()?.to_bytes();
        let receipts = serde_json::from_slice::<Answer>(&bytes).map(|answer| answer.results).unwrap_or_default();
        Some((Some(status), before, after, receipts))
    }

    async fn close(mut self) -> anyhow::Result<Trial> {
        self.believe().await;
        let entries = crate::sim::bench::entries(&self.base.journal).await?;
        let end = self.liveness.end(&self.scene, &self.base, &entries);
        if let Some(bench) = self.bench.take() {
            bench.bury();
        }
        *self.scene.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let notes = self.scene.ledger.notes();
        Ok(Trial { scenario: self.scenario, sim: self.scene.sim, notes, entries, broken: self.broken, end })
    }
}

/// Waits until the process that begins now is killed: whatever it waits for then never comes.
async fn death(sim: &Sim, life: u64) {
    while sim.deaths() == life {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn told(receipt: &Receipt) -> String {
    let target = receipt.target.as_deref().unwrap_or("nobody's");
    format!("{} {target} {}", receipt.alertname, receipt.state.word())
}

/// The HTTP face of a process, as `app` makes it.
fn face(bench: &Bench) -> Option<Router> {
    let desk = FrontDesk {
        context: bench.context.clone(),
        episodes: bench.episodes.clone(),
        doors: Arc::new(watch::Sender::new(Some(true))),
        probed: tokio::sync::Mutex::default(),
    };
    let gate = Gate::new(&[SecretString::from(TOKEN)], &[], &[]).ok()?;
    let telemetry = Arc::new(Telemetry::new("sim"));
    Some(Face::new(Arc::new(desk), Arc::new(gate), telemetry, CancellationToken::new(), Limits::default()).router())
}
