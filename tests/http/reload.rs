//! SIGHUP, on the real program over the simulated outside: files are changed, and what they say is in force, or nothing of
//! it is. (`cli::serve` does nothing else on SIGHUP than call [`App::reload`] and reopen the audit file.)
//!
//! Time is real here, because sockets and the journal's thread know no other: the simulated Prometheus scrapes twice a
//! second, so that a leak fires and a cure is proven within a few.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use remediator::app::App;
use remediator::app::reload::Reloaded;
use remediator::config;
use remediator::sim::Sim;
use remediator::sim::prometheus::{Condition, Prometheus, Rule};
use remediator::sim::shop::Replica;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::certificates::{Authority, client};
use crate::wire::ends;

const RECEIVER: &str = "the-receivers-first-token";
const READER: &str = "the-readers-only-token";
const TWO: &str = "inventory-2";

const SETTINGS: &str = "listen: 127.0.0.1:0
state_dir: state
playbooks: [playbooks/*.yml]
prometheus: { url: 'http://127.0.0.1:9' }
alertmanager: { urls: ['http://127.0.0.1:9'] }
docker: { read: unix:///nowhere/read.sock, restart: unix:///nowhere/restart.sock }
haproxy: { address: unix:///nowhere/runtime.sock }
pages: { every: 1s, hold: 2s, ask_again: 1s }
";
const TOKENS: &str = "tokens: { receiver: [receiver], reader: [reader] }\n";

/// A playbook that is done in a few seconds of real time.
fn playbook(name: &str, alert: &str, mode: &str) -> String {
    format!(
        "playbook: {name}
match: ['alertname=\"{alert}\"']
target: {{ service: inventory, replica: instance }}
confirm: {{ inputs: [process_open_fds, process_max_fds, up] }}
evidence: {{ logs: 10, required: true }}
steps:
  - drain:    {{ within: 30s, on_timeout: abort }}
  - restart:  {{ grace: 1s }}
  - healthy:  {{ within: 30s }}
  - readmit
recovered: {{ query: 'process_open_fds{{$target}} / process_max_fds{{$target}}', below: 0.3, settle: 1s, looks: 1, within: 30s }}
guards:
  start_grace: 10s
  cooldown: 5m
  rate: {{ per: 1m, burst: 3 }}
  budget: [6 per 1h]
  breaker: {{ failures: 3, recurrence: 1h, cooldown: 10m }}
  blast_radius: {{ min_healthy: 2, max_unhealthy: 67%, max_in_flight: 1, blame: 10m }}
mode: {mode}
"
    )
}

fn polling(name: &str) -> String {
    let confirm = "confirm: { query: 'process_open_fds{$target} / process_max_fds{$target}', above: 0.5 }";
    playbook(name, "x", "live")
        .replace("match: ['alertname=\"x\"']", "every: 1s")
        .replace("confirm: { inputs: [process_open_fds, process_max_fds, up] }", confirm)
}

struct Site {
    folder: TempDir,
    sim: Sim,
    app: App,
    http: reqwest::Client,
}

/// Everything that is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn start() -> (Log, tracing::subscriber::DefaultGuard) {
        let log = Log::default();
        let to = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || to.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic")).into_owned()
    }
}

/// Three replicas, the second of which leaks; its alert fires within a few seconds.
fn leaking_shop() -> Sim {
    let service = "inventory".parse().expect("a name");
    let mut replicas: Vec<Replica> = (1..=3).filter_map(|number| Replica::new(&service, number)).collect();
    for replica in &mut replicas {
        (replica.empties_in, replica.stops_in, replica.starts_in) =
            (Some(Duration::ZERO), Duration::from_millis(100), Duration::from_millis(500));
    }
    let condition = Condition::Leaking { above: 0.5, older_than: Duration::from_secs(300) };
    let rules = vec![Rule::new("FdLeakFast", condition, Duration::from_secs(1))];
    let sim = Sim::new(replicas, Prometheus::new(Duration::from_millis(500), rules));
    sim.leak(TWO);
    sim
}

impl Site {
    async fn start(settings: &str, playbooks: &[(&str, String)]) -> Site {
        let folder = TempDir::new().expect("a folder");
        std::fs::create_dir(folder.path().join("playbooks")).expect("a folder");
        std::fs::write(folder.path().join("remediator.yml"), settings).expect("written");
        for (name, text) in [("receiver", RECEIVER), ("reader", READER)] {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        for (name, text) in playbooks {
            std::fs::write(folder.path().join("playbooks").join(name), text).expect("written");
        }
        Site::on(folder).await
    }

    async fn on(folder: TempDir) -> Site {
        let sim = leaking_shop();
        let config = config::load(&folder.path().join("remediator.yml")).expect("a good configuration");
        let app = App::start(config, sim.world()).await.expect("starts");
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
        Site { folder, sim, app, http }
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.folder.path().join(name), text).expect("written");
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.folder.path().join(name)).expect("was there");
    }

    async fn reload(&self) -> Reloaded {
        self.app.reload(&self.folder.path().join("remediator.yml")).await
    }

    async fn taken(&self) -> Vec<&'static str> {
        match self.reload().await {
            Reloaded::Taken { standing } => standing,
            Reloaded::Kept { findings } => panic!("not taken: {findings:#?}"),
        }
    }

    async fn kept(&self) -> Vec<String> {
        match self.reload().await {
            Reloaded::Kept { findings } => findings,
            Reloaded::Taken { .. } => panic!("taken"),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.addr())
    }

    /// Waits until Prometheus says that the alert fires.
    async fn fires(&self) {
        self.until("the alert", |sim| !sim.with(|state| state.prometheus.firing().is_empty())).await;
    }

    /// Delivers the alert, true or not, with this token; the status, and the answer.
    async fn deliver(&self, token: &str) -> (u16, Value) {
        let instance = self.sim.replica(TWO, |replica, _| replica.instance.clone()).expect("a replica");
        let alert = || self.sim.with(|state| state.prometheus.alert("FdLeakFast", &instance, None));
        self.until("the first scrape", |_| alert().is_some()).await;
        let alert = alert().expect("scraped");
        let alert = json!({ "status": "firing", "labels": alert.labels });
        let body = json!({ "version": "4", "status": "firing", "receiver": "r", "groupKey": "g", "alerts": [alert] }).to_string();
        let request = self.http.post(self.url("/remediate")).bearer_auth(token).body(body);
        let answer = ends("a delivery", request.send()).await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("json"))
    }

    /// The playbook that claims what fires.
    async fn claimed_by(&self) -> String {
        let (status, answer) = self.deliver(RECEIVER).await;
        assert_eq!(status, 202, "{answer}");
        answer["results"][0]["playbook"].as_str().unwrap_or("none").to_owned()
    }

    async fn metrics(&self) -> String {
        let answer = self.http.get(self.url("/metrics")).send().await.expect("an answer");
        answer.text().await.expect("a body")
    }

    /// Closed records, newest first: outcome and reason code.
    async fn closed(&self) -> Vec<(String, String)> {
        let answer = self.http.get(self.url("/audit")).bearer_auth(READER).send().await.expect("an answer");
        let answer: Value = answer.json().await.expect("json");
        let word = |record: &Value, key: &str| record[key].as_str().unwrap_or_default().to_owned();
        let records = answer["records"].as_array().expect("records").iter();
        let closed = records.filter(|record| record["outcome"].is_string());
        closed.map(|record| (word(record, "outcome"), word(record, "reason_code"))).collect()
    }

    async fn closes_as(&self, outcome: &str, reason: &str) {
        let wanted = (outcome.to_owned(), reason.to_owned());
        let closes = async {
            while !self.closed().await.contains(&wanted) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), closes).await.is_err() {
            panic!("no record is {wanted:?}: {:?}", self.closed().await);
        }
    }

    async fn until(&self, what: &str, so: impl Fn(&Sim) -> bool) {
        let becomes = async {
            while !so(&self.sim) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        ends(what, becomes).await;
    }

    fn drained(&self) -> bool {
        self.sim.replica(TWO, |replica, _| replica.drained_since.is_some()).expect("a replica")
    }

    fn restarts(&self) -> Vec<String> {
        self.sim.with(|state| state.restarts())
    }
}

fn guarded() -> String {
    format!("{SETTINGS}{TOKENS}")
}

fn shadow() -> [(&'static str, String); 1] {
    [("a.yml", playbook("first", "FdLeakFast", "shadow"))]
}

#[tokio::test]
async fn a_bad_file_keeps_everything_and_says_so_loudly() {
    let (log, _guard) = Log::start();
    let site = Site::start(&guarded(), &shadow()).await;
    let metrics = site.metrics().await;
    assert!(metrics.contains("remediator_config_last_reload_successful 1\n"), "{metrics}");
    // Two mistakes in one file, one in another, and beside them changes that are good by themselves.
    site.write(
        "playbooks/a.yml",
        playbook("renamed", "FdLeakFast", "live").replace("burst: 3", "burst: 0").replace("mode:", "moode:"),
    );
    site.write("playbooks/b.yml", "playbook: [");
    site.write("receiver", "the-receivers-second-token");
    let findings = site.kept().await;
    assert!(
        findings.iter().any(|line| line.contains("playbooks/a.yml:"))
            && findings.iter().any(|line| line.contains("playbooks/b.yml:"))
    );
    let text = log.text();
    for finding in &findings {
        let line =
            text.lines().find(|line| line.contains(&finding.escape_debug().to_string()) || line.contains(finding.as_str()));
        assert!(line.is_some_and(|line| line.contains("ERROR")), "{finding} is not in\n{text}");
    }
    assert!(text.contains("the configuration was NOT taken over"), "{text}");
    assert!(site.metrics().await.contains("remediator_config_last_reload_successful 0\n"));
    assert_eq!(site.claimed_by().await, "first", "the old playbook, by the old token");
    // Put right, all of it is taken at once.
    site.write("playbooks/a.yml", playbook("renamed", "FdLeakFast", "shadow"));
    site.remove("playbooks/b.yml");
    assert_eq!(site.taken().await, [""; 0]);
    assert_eq!(site.deliver(RECEIVER).await.0, 401);
    let metrics = site.metrics().await;
    assert!(metrics.contains("remediator_config_last_reload_successful 1\n"), "{metrics}");
    let stamp = metrics.lines().find_map(|line| line.strip_prefix("remediator_config_last_reload_success_timestamp_seconds "));
    let now = site.sim.now().as_second() as f64;
    let stamp: f64 = stamp.and_then(|stamp| stamp.parse().ok()).expect("a time");
    assert!(stamp > now - 120.0 && stamp <= now + 1.0, "{stamp}");
    assert!(metrics.contains("remediator_restarts_total{playbook=\"renamed\",result=\"done\"} 0\n"), "{metrics}");
    assert!(log.text().contains("renamed added (shadow), first removed"), "{}", log.text());
    site.app.stop().await;
}

#[tokio::test]
async fn tokens_rotate_and_never_vanish() {
    let site = Site::start(&guarded(), &shadow()).await;
    let second = "the-receivers-second-token";
    assert_eq!(site.deliver(second).await.0, 401);
    // Both live while one replaces the other, then the old one opens nothing any more.
    site.write("new", second);
    site.write("remediator.yml", guarded().replace("[receiver]", "[receiver, new]"));
    site.taken().await;
    assert_eq!((site.deliver(RECEIVER).await.0, site.deliver(second).await.0), (202, 202));
    site.write("remediator.yml", guarded().replace("[receiver]", "[new]"));
    site.taken().await;
    assert_eq!((site.deliver(RECEIVER).await.0, site.deliver(second).await.0), (401, 202));
    // A file without tokens is good for a start on loopback, and would open the door here.
    site.write("remediator.yml", SETTINGS);
    let findings = site.kept().await;
    assert!(findings[0].contains("the last token would be taken away"), "{findings:?}");
    assert_eq!((site.deliver("guess").await.0, site.deliver(second).await.0), (401, 202));
    assert!(site.metrics().await.contains("remediator_config_last_reload_successful 0\n"));
    site.app.stop().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_opened_it() {
    let site = Site::start(&guarded(), &shadow()).await;
    site.write("second", "the-readers-second-token");
    site.write("remediator.yml", guarded().replace("[reader]", "[reader, second]"));
    site.taken().await;
    let open = async |token: &str| {
        let request = site.http.get(site.url("/audit/stream")).bearer_auth(token);
        let mut stream = ends("a stream", request.send()).await.expect("an answer");
        assert_eq!(stream.status().as_u16(), 200);
        assert!(ends("the comment", stream.chunk()).await.expect("readable").is_some());
        stream
    };
    let (mut stays, mut goes) = (open(READER).await, open("the-readers-second-token").await);
    site.write("remediator.yml", guarded());
    site.taken().await;
    assert_eq!(ends("the stream of the token that is gone", goes.chunk()).await.expect("readable"), None);
    // The other one hears of what closes from now on.
    site.fires().await;
    site.deliver(RECEIVER).await;
    let heard = async {
        let mut text = String::new();
        while !text.contains("event: record") {
            text.push_str(&String::from_utf8_lossy(&stays.chunk().await.expect("readable").expect("it goes on")));
        }
    };
    ends("a record", heard).await;
    site.app.stop().await;
}

#[tokio::test]
async fn a_flood_of_refused_calls_is_a_few_lines_and_every_one_counts() {
    let (log, _guard) = Log::start();
    let site = Site::start(&guarded(), &shadow()).await;
    for _ in 0..200 {
        assert_eq!(site.deliver("guess").await.0, 401);
    }
    assert_eq!(site.deliver(READER).await.0, 403);
    let text = log.text();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("turned away")).collect();
    assert!(lines.len() <= 2, "{} lines:\n{}", lines.len(), lines.join("\n"));
    assert!(lines[0].contains("127.0.0.1:") && lines[0].contains("/remediate"), "{}", lines[0]);
    let metrics = site.metrics().await;
    for series in
        ["remediator_unauthorized_calls_total{status=\"401\"} 200\n", "remediator_unauthorized_calls_total{status=\"403\"} 1\n"]
    {
        assert!(metrics.contains(series), "{series}: {metrics}");
    }
    site.app.stop().await;
}

#[tokio::test]
async fn certificates_are_exchanged_and_a_bad_one_is_not_taken() {
    let (old, new) = (Authority::new(), Authority::new());
    let folder = TempDir::new().expect("a folder");
    std::fs::create_dir(folder.path().join("playbooks")).expect("a folder");
    let settings = format!("{SETTINGS}tls: {{ certificate: s.crt, key: s.key }}\n");
    std::fs::write(folder.path().join("remediator.yml"), settings).expect("written");
    std::fs::write(folder.path().join("playbooks/a.yml"), playbook("first", "FdLeakFast", "shadow")).expect("written");
    old.issue("127.0.0.1").write(folder.path(), "s");
    let site = Site::on(folder).await;
    let url = format!("https://{}/healthz", site.app.addr());
    let trusts = |authority: &Authority| {
        let (client, url) = (client(authority, None), url.clone());
        async move { client.get(url).send().await.is_ok_and(|answer| answer.status() == 200) }
    };
    assert!(trusts(&old).await && !trusts(&new).await);
    // Half a renewal: the key is not the certificate's.
    site.write("s.crt", new.issue("127.0.0.1").certificate);
    let findings = site.kept().await;
    assert!(findings[0].contains("does not belong to the certificate"), "{findings:?}");
    assert!(trusts(&old).await && !trusts(&new).await);
    new.issue("127.0.0.1").write(site.folder.path(), "s");
    site.taken().await;
    assert!(trusts(&new).await && !trusts(&old).await);
    // The listener itself stays what it is.
    site.write("remediator.yml", SETTINGS);
    assert_eq!(site.taken().await, ["external_url", "tls"]);
    assert!(trusts(&new).await);
    site.app.stop().await;
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_stays() {
    let (log, _guard) = Log::start();
    let site = Site::start(&guarded(), &shadow()).await;
    let changed = guarded().replace("127.0.0.1:0", "127.0.0.1:1").replace("state_dir: state", "state_dir: elsewhere");
    site.write("remediator.yml", format!("{changed}limits: {{ alerts: 1 }}\nstart_paused: true\n"));
    site.write("playbooks/a.yml", playbook("renamed", "FdLeakFast", "shadow"));
    assert_eq!(site.taken().await, ["listen", "external_url", "state_dir", "limits", "start_paused"]);
    for setting in ["listen", "state_dir", "limits", "start_paused"] {
        let said = log.text().lines().any(|line| {
            line.contains("WARN") && line.contains("needs a restart") && line.contains(&format!("setting=\"{setting}\""))
        });
        assert!(said, "{setting} is not named in\n{}", log.text());
    }
    assert_eq!(site.claimed_by().await, "renamed", "the rest is taken");
    assert!(!Path::new(&site.folder.path().join("elsewhere")).exists());
    site.app.stop().await;
}

#[tokio::test]
async fn from_shadow_to_live_without_a_restart_of_ours() {
    let site = Site::start(&guarded(), &shadow()).await;
    site.fires().await;
    assert_eq!(site.claimed_by().await, "first");
    site.closes_as("shadow", "would_remediate").await;
    assert!(site.restarts().is_empty());
    site.write("playbooks/a.yml", playbook("first", "FdLeakFast", "live"));
    site.taken().await;
    site.closes_as("recovered", "recovery_confirmed").await;
    assert_eq!(site.restarts(), [TWO]);
    assert!(!site.drained());
    site.app.stop().await;
}

#[tokio::test]
async fn a_playbook_that_goes_while_its_run_drains_is_readmitted_for() {
    let site = Site::start(&guarded(), &[("a.yml", playbook("first", "FdLeakFast", "live"))]).await;
    site.fires().await;
    site.sim.replica(TWO, |replica, _| replica.empties_in = None);
    site.deliver(RECEIVER).await;
    site.until("the drain", |sim| sim.replica(TWO, |replica, _| replica.drained_since.is_some()) == Some(true)).await;
    site.write("playbooks/b.yml", playbook("second", "Other", "live"));
    site.remove("playbooks/a.yml");
    site.taken().await;
    site.sim.replica(TWO, |replica, _| replica.empties_in = Some(Duration::ZERO));
    site.closes_as("interrupted", "mode_changed").await;
    assert!(site.restarts().is_empty() && !site.drained());
    site.app.stop().await;
}

#[tokio::test]
async fn a_playbook_that_goes_after_its_restart_keeps_its_verdict() {
    let site = Site::start(&guarded(), &[("a.yml", playbook("first", "FdLeakFast", "live"))]).await;
    site.fires().await;
    site.sim.replica(TWO, |replica, _| replica.starts_in = Duration::from_secs(2));
    site.deliver(RECEIVER).await;
    site.until("the restart", |sim| !sim.with(|state| state.restarts()).is_empty()).await;
    assert!(site.drained());
    site.write("playbooks/b.yml", playbook("second", "Other", "live"));
    site.remove("playbooks/a.yml");
    site.taken().await;
    site.closes_as("recovered", "recovery_confirmed").await;
    assert!(!site.drained());
    site.app.stop().await;
}

/// A pause names a playbook. Neither a reload nor a restart with another name may take what it holds back from under it.
#[tokio::test]
async fn a_pause_does_not_lose_its_playbook() {
    let site = Site::start(SETTINGS, &[("a.yml", playbook("first", "FdLeakFast", "live"))]).await;
    let order = async |site: &Site, path: &str, body: Value| {
        let sent = ends("an order", site.http.post(site.url(path)).body(body.to_string()).send()).await.expect("an answer");
        assert_eq!(sent.status().as_u16(), 200, "{}", sent.text().await.expect("a body"));
    };
    let first = json!({ "playbook": "first", "reason": "a release" });
    order(&site, "/pause", first.clone()).await;
    site.write("playbooks/a.yml", playbook("second", "FdLeakFast", "live"));
    let findings = site.kept().await;
    assert!(findings[0].contains("playbook first is paused"), "{findings:?}");
    assert!(findings[0].contains("remediator resume --playbook first"), "it says what to do: {findings:?}");
    assert_eq!(site.claimed_by().await, "first");
    site.closes_as("refused", "paused").await;
    // A restart reads the files whatever is paused. What was held back is held back still, and more than that.
    let Site { folder, app, .. } = site;
    app.stop().await;
    let site = Site::on(folder).await;
    site.fires().await;
    assert_eq!(site.claimed_by().await, "second");
    site.closes_as("refused", "paused").await;
    let board: Value = site.http.get(site.url("/guards")).send().await.expect("an answer").json().await.expect("json");
    let pauses = board["pauses"].as_array().expect("pauses");
    assert_eq!(pauses.len(), 1, "{board:#}");
    assert_eq!(pauses[0]["scope"], json!({ "scope": "all" }));
    assert!(pauses[0]["reason"].as_str().is_some_and(|why| why.contains("first") && why.contains("a release")), "{board:#}");
    assert!(site.restarts().is_empty());
    // One word ends it, and then the reload is free to rename again.
    order(&site, "/resume", json!({ "scope": "all", "reason": "looked at it" })).await;
    site.closes_as("recovered", "recovery_confirmed").await;
    site.write("playbooks/a.yml", playbook("first", "FdLeakFast", "live"));
    site.taken().await;
    site.app.stop().await;
}

#[tokio::test]
async fn a_new_poll_begins() {
    let site = Site::start(&guarded(), &[("a.yml", playbook("first", "Other", "live"))]).await;
    site.write("playbooks/b.yml", polling("by-itself"));
    site.taken().await;
    // Nobody delivers anything.
    site.closes_as("recovered", "recovery_confirmed").await;
    assert_eq!(site.restarts(), [TWO]);
    site.app.stop().await;
}

/// Story `no_credentials`.
#[tokio::test]
async fn without_tokens_it_says_that_only_loopback_is_listened_on() {
    let (log, _guard) = Log::start();
    let site = Site::start(SETTINGS, &shadow()).await;
    let said = |text: &str| text.lines().any(|line| line.contains("WARN") && line.contains("only loopback is listened on"));
    assert!(said(&log.text()), "{}", log.text());
    assert_eq!(site.deliver("no token at all is asked for").await.0, 202);
    // From now on there are some.
    site.write("remediator.yml", guarded());
    site.taken().await;
    assert_eq!((site.deliver("guess").await.0, site.deliver(RECEIVER).await.0), (401, 202));
    site.app.stop().await;
}
