//! More than it can take: it says 503, which Alertmanager sends again, and what it answered with 202 is on disk. Here the
//! desk is the real one over a real journal in a folder; only the world around it is simulated.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock, mpsc};
use std::time::Duration;

use remediator::act::hands::Hands;
use remediator::api::{self, Face};
use remediator::app::desk::FrontDesk;
use remediator::audit::JournalError;
use remediator::audit::journal::{self, Journal};
use remediator::decide::playbook::Rate;
use remediator::detect::caller::Gate;
use remediator::detect::look::Looks;
use remediator::detect::rush::Rush;
use remediator::detect::watchdog::Watchdog;
use remediator::edge::serve;
use remediator::episodes::Episodes;
use remediator::guard::rails::Limits;
use remediator::metrics::Telemetry;
use remediator::period::Period;
use remediator::pipeline::{Context, Timing};
use remediator::sim::shop::inventory;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{Mutex, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::wire::ends;

struct Real {
    addr: SocketAddr,
    context: Context,
    episodes: Episodes,
    server: serve::Server,
    http: reqwest::Client,
    folder: TempDir,
}

impl Real {
    async fn start() -> Real {
        let folder = TempDir::new().expect("a folder");
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("playbooks/inventory-fd-leak.yml");
        let (playbooks, _) = remediator::config::load_playbooks(&path).expect("the shipped playbook is valid");
        let playbooks = playbooks.into_iter().map(|(playbook, _)| playbook).collect();
        let minute = Period::from_secs(60);
        let context = Context {
            world: inventory().world(),
            looks: Looks::default(),
            rush: Rush::default(),
            hands: Hands::default(),
            journal: Journal::open(folder.path()).expect("a journal"),
            playbooks: Arc::new(RwLock::new(Arc::new(playbooks))),
            limits: Limits { fleet: Rate { per: minute, burst: 5 }, group: Rate { per: minute, burst: 3 } },
            timing: Timing { ask_again: minute, hold: minute, page_every: minute },
            watchdog: Arc::new(Watchdog::new(None, minute)),
            host: "test".to_owned(),
            shutdown: CancellationToken::new(),
        };
        let episodes = Episodes::new(context.clone());
        let doors = Arc::new(watch::Sender::new(Some(true)));
        let desk = FrontDesk { context: context.clone(), episodes: episodes.clone(), doors, probed: Mutex::default() };
        let (telemetry, closing) = (Arc::new(Telemetry::new("test")), CancellationToken::new());
        let limits = api::Limits::default();
        let face = Face::new(Arc::new(desk), Arc::new(Gate::open()), telemetry.clone(), closing.clone(), limits);
        let bound = serve::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
        let server = bound.serve(face.router(), serve::Limits::default(), telemetry, closing);
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
        Real { addr: server.addr(), context, episodes, server, http, folder }
    }

    /// Delivers one alert about a replica of its own: the status, and the answer.
    async fn deliver(&self, instance: &str) -> (u16, Value) {
        let alert = format!(
            r#"{{"status":"firing","labels":{{"alertname":"FdLeakFast","service":"inventory","instance":"{instance}"}}}}"#
        );
        let body = format!(r#"{{"version":"4","groupKey":"g","alerts":[{alert}]}}"#);
        let answer = ends("a delivery", self.http.post(format!("http://{}/remediate", self.addr)).body(body).send()).await;
        let answer = answer.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("json"))
    }

    async fn stop(self) -> TempDir {
        self.context.shutdown.cancel();
        ends("the server", self.server.stop(Duration::from_secs(5))).await;
        ends("the episodes", self.episodes.stopped()).await;
        self.context.journal.close().await;
        self.folder
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_on_disk_while_the_disk_is_full_now_and_then() {
    const CALLERS: usize = 24;
    const EACH: usize = 20;
    let real = Arc::new(Real::start().await);
    let answered = Arc::new(AtomicUsize::new(0));
    let callers = (0..CALLERS).map(|caller| {
        let (real, answered) = (Arc::clone(&real), Arc::clone(&answered));
        tokio::spawn(async move {
            let (mut taken, mut refused) = (Vec::new(), 0);
            for n in 0..EACH {
                let (status, answer) = real.deliver(&format!("10.{caller}.{n}.1:8080")).await;
                match status {
                    202 => taken.push(answer["results"][0]["id"].as_str().expect("an id").to_owned()),
                    503 => {
                        assert_eq!(answer["code"], "store_unavailable");
                        refused += 1;
                    }
                    other => panic!("{other}: {answer}"),
                }
                // In turns of forty answers: writable, full, writable...
                let so_far = answered.fetch_add(1, Ordering::SeqCst) + 1;
                real.context.journal.pretend_full((so_far / 40) % 2 == 1);
            }
            (taken, refused)
        })
    });
    let (mut taken, mut refused) = (Vec::new(), 0);
    for caller in callers.collect::<Vec<_>>() {
        let (ids, no) = ends("a caller", caller).await.expect("no panic");
        taken.extend(ids);
        refused += no;
    }
    assert_eq!(taken.len() + refused, CALLERS * EACH);
    real.context.journal.pretend_full(false);
    let real = Arc::try_unwrap(real).map_err(|_| "still shared").expect("every caller is done");
    let folder = real.stop().await;
    // As the next process finds it.
    let journal = Journal::open(folder.path()).expect("nobody else has it any more");
    for id in &taken {
        let record = journal.record(id.parse().expect("an id")).await.expect("readable");
        assert!(record.is_some(), "{id} was acknowledged and is lost");
    }
    let conn = journal::reader(folder.path()).expect("readable");
    let records: i64 = conn.query_row("SELECT count(*) FROM records", [], |row| row.get(0)).expect("a count");
    assert_eq!(usize::try_from(records), Ok(taken.len()), "what was refused is not in it");
    assert!(taken.len() > 40 && refused > 40, "{} taken, {refused} refused", taken.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_a_503_at_once_and_what_waited_is_written() {
    let real = Real::start().await;
    let journal = real.context.journal.clone();
    // The writer is held up, as by a disk that does not answer.
    let (entered, is_in) = oneshot::channel();
    let (release, released) = mpsc::channel::<()>();
    let held = tokio::spawn({
        let journal = journal.clone();
        async move {
            let body = move |_: &remediator::audit::state::State| {
                let _ = entered.send(());
                let _ = released.recv();
                (Vec::new(), ())
            };
            journal.transact(body).await.map(|_| ())
        }
    });
    ends("the writer", is_in).await.expect("the writer runs it");
    let mut waiting = Vec::new();
    let refused = loop {
        let mut one = Box::pin(journal.transact(|_| (Vec::new(), ())));
        match futures_util::poll!(&mut one) {
            std::task::Poll::Pending => waiting.push(one),
            std::task::Poll::Ready(answer) => break answer,
        }
        assert!(waiting.len() < 100_000, "the queue has no end");
    };
    assert!(matches!(refused, Err(JournalError::Overloaded)), "{:?}", refused.map(|_| ()));
    let (status, answer) = real.deliver("10.0.0.1:8080").await;
    assert_eq!((status, &answer["code"]), (503, &Value::from("store_unavailable")), "{answer}");
    // Who asks whether it is alive, and how it is, is answered all the same.
    for path in ["healthz", "metrics"] {
        let answer = ends(path, real.http.get(format!("http://{}/{path}", real.addr)).send()).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
    }
    release.send(()).expect("the writer waits");
    ends("the one that held it up", held).await.expect("no panic").expect("written");
    for one in waiting {
        ends("one that waited", one).await.expect("what was queued is written");
    }
    assert_eq!(real.deliver("10.0.0.1:8080").await.0, 202);
    drop(journal);
    real.stop().await;
}
