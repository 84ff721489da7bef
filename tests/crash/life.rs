//! The program between its fakes, from one death to the next start.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use remediator::edge::clock::SystemClock;
use remediator::world::Clock as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::fault::{Breaker, Doorman, Fault, SIGKILL};
use crate::hangs;
use crate::outside::{Inside, Outside, Replica};

const TOKEN: &str = "a-token-for-the-crash-tests";
pub const SIGTERM: i32 = 15;
/// Longest wait for anything; a guard against hanging, nothing more. A stop on a disk that hangs is the longest.
pub const HANG: Duration = Duration::from_secs(240);
/// Lives after which a program that dies again and again is given up.
const LIVES: usize = 8;

const PLAYBOOK: &str = "playbook: inventory
match: ['alertname=\"Leak\"']
target: { service: inventory }
confirm: { inputs: [process_open_fds] }
evidence: { logs: 10 }
steps: [{ drain: { within: 10s } }, { restart: { grace: 1s } }, { healthy: { within: 10s } }, readmit]
recovered: { query: 'process_open_fds{$target} / process_max_fds{$target}', below: 0.3, settle: 0s, looks: 1, within: 10s }
guards:
  start_grace: 1m
  cooldown: 4s
  rate: { per: 1m, burst: 1000 }
  breaker: { failures: 60, recurrence: 1h, cooldown: 10m }
  blast_radius: { min_healthy: 1, max_unhealthy: 100%, max_in_flight: 1 }
mode: live
";

/// One world, and the lives of the program in it.
pub struct World {
    pub folder: TempDir,
    pub outside: Outside,
    doorman: Arc<Doorman>,
    listen: String,
    http: reqwest::Client,
    /// What is to break in each life.
    plan: Vec<Option<Fault>>,
    pub lives: Vec<Life>,
    /// What a death left behind that somebody may read before the next start.
    pub torn: Vec<String>,
    /// A death left half a line of `audit.jsonl`.
    pub torn_line: bool,
    /// When a disk that had hung answered again.
    pub mended: Option<Timestamp>,
}

pub struct Life {
    pub breaker: Arc<Breaker>,
    ended: watch::Receiver<Option<i32>>,
    /// It answered at least once.
    pub listened: bool,
}

impl World {
    pub async fn new(plan: Vec<Option<Fault>>) -> World {
        let doorman = Arc::new(Doorman::default());
        let labels = |instance: &str| {
            [("alertname", "Leak"), ("job", "shop"), ("service", "inventory"), ("instance", instance)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into()
        };
        let mut replicas = vec![Replica::new(1, "inv-1:80", labels("inv-1:80")), Replica::new(2, "inv-2:80", labels("inv-2:80"))];
        replicas[1].leaks = false;
        let outside = Outside::guarded(replicas, Inside::default(), doorman.clone()).await;
        let folder = TempDir::new().expect("a folder");
        // Whole addresses of loopback of our own: a port that was free a moment ago may be somebody else's.
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let n = WORLDS.fetch_add(1, Ordering::Relaxed) + (std::process::id() << 12);
        let listen = format!("127.{}.{}.{}:18090", 64 + (n >> 16) % 128, (n >> 8) % 256, 1 + n % 254);
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().expect("a client");
        let (lives, torn, torn_line, mended) = (Vec::new(), Vec::new(), false, None);
        let world = World { folder, outside, doorman, listen, http, plan, lives, torn, torn_line, mended };
        world.write_configuration();
        world
    }

    fn write_configuration(&self) {
        let (dir, outside) = (self.folder.path(), &self.outside);
        let settings = format!(
            "listen: {}\nstate_dir: {}\nplaybooks: [playbook.yml]\n\
             prometheus: {{ url: 'http://{}', timeout: 1s }}\nalertmanager: {{ urls: ['http://{}'], timeout: 1s }}\n\
             docker: {{ read: 'tcp://{}', restart: 'tcp://{}', timeout: 1s }}\nhaproxy: {{ address: 'tcp://{}', timeout: 1s }}\n\
             tokens: {{ receiver: [token], reader: [token2] }}\nheartbeat: {{ every: 1s, textfile: {} }}\n\
             pages: {{ ask_again: 1s, every: 1s, hold: 5s }}\n",
            self.listen,
            dir.join("state").display(),
            outside.prometheus.place,
            outside.alertmanager.place,
            outside.read_door.place,
            outside.restart_door.place,
            outside.balancer.place,
            dir.join("text/remediator.prom").display(),
        );
        std::fs::create_dir(dir.join("text")).expect("a folder");
        let reader = format!("{TOKEN}-of-the-reader");
        for (name, text) in
            [("remediator.yml", settings.as_str()), ("playbook.yml", PLAYBOOK), ("token", TOKEN), ("token2", &reader)]
        {
            std::fs::write(dir.join(name), text).expect("written");
        }
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn log(&self) -> String {
        let read = |n| std::fs::read(self.folder.path().join(format!("log{n}"))).unwrap_or_default();
        (0..self.lives.len()).map(|n| format!("-- life {n}\n{}", String::from_utf8_lossy(&read(n)))).collect()
    }

    /// How the newest life ended; none while it lives.
    pub fn ended(&self) -> Option<i32> {
        self.lives.last().and_then(|life| *life.ended.borrow())
    }

    /// A living program: the one there is, or the next.
    pub fn alive(&mut self) -> Result<(), String> {
        hangs::watch(self)?;
        if !self.lives.is_empty() && self.ended().is_none() {
            return Ok(());
        }
        if self.lives.len() == LIVES {
            return Err(format!("it died {LIVES} times"));
        }
        self.torn.extend(torn_textfile(self.folder.path()));
        let audit = std::fs::read(self.state().join("audit.jsonl")).unwrap_or_default();
        self.torn_line |= audit.last().is_some_and(|last| *last != b'\n');
        let breaker = Breaker::new(self.plan.get(self.lives.len()).cloned().flatten());
        *self.doorman.breaker.lock().expect("no panic") = Some(breaker.clone());
        let log = std::fs::File::create(self.folder.path().join(format!("log{}", self.lives.len()))).expect("a file");
        let program: Vec<std::ffi::OsString> = vec![
            env!("CARGO_BIN_EXE_remediator").into(),
            "serve".into(),
            "--config".into(),
            self.folder.path().join("remediator.yml").into(),
        ];
        let (end, ended) = watch::channel(None);
        let (judge, folder) = (breaker.clone(), self.folder.path().to_owned());
        std::thread::spawn(move || {
            let started = |pid| judge.pid.store(pid, Ordering::SeqCst);
            let code = tracer::run(&program, log, started, |call| judge.judge(&folder, call));
            end.send_replace(Some(code.unwrap_or_else(|error| panic!("the program cannot be traced: {error}"))));
        });
        self.lives.push(Life { breaker, ended, listened: false });
        Ok(())
    }

    /// SIGTERM, and its exit code once it is gone.
    pub async fn stop(&mut self) -> Result<i32, String> {
        self.end(SIGTERM).await
    }

    /// SIGKILL, and gone when this returns.
    pub async fn kill(&mut self) -> Result<(), String> {
        self.end(SIGKILL).await.map(drop)
    }

    async fn end(&mut self, signal: i32) -> Result<i32, String> {
        let life = self.lives.last_mut().expect("one life at least");
        let mut pid = life.breaker.pid.load(Ordering::SeqCst);
        while pid == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            pid = life.breaker.pid.load(Ordering::SeqCst);
        }
        tracer::send(pid, signal);
        let gone = tokio::time::timeout(HANG, life.ended.wait_for(Option::is_some)).await;
        match gone {
            Ok(Ok(code)) => Ok(code.expect("waited for")),
            Ok(Err(_)) => Err("its tracer died".to_owned()),
            Err(_) => Err("it does not stop".to_owned()),
        }
    }

    /// The webhook, once: the answer's status and the ids of its records.
    pub async fn deliver(&mut self) -> Option<(u16, Vec<String>)> {
        let shop = self.outside.shop();
        let body = json!({
            "version": "4", "status": "firing", "receiver": "remediator", "groupKey": "{}:{}", "truncatedAlerts": 0,
            "alerts": [{ "status": "firing", "labels": shop[0].labels, "startsAt": SystemClock.now() }]
        });
        let request = self.http.post(format!("http://{}/remediate", self.listen)).bearer_auth(TOKEN).body(body.to_string());
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        let body: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
        let ids = body["results"].as_array().into_iter().flatten().filter_map(|result| result["id"].as_str());
        self.lives.last_mut()?.listened = true;
        Some((status, ids.map(str::to_owned).collect()))
    }

    /// Every record, newest first; none when nobody answers.
    pub async fn records(&mut self) -> Option<Vec<Value>> {
        let request = self.http.get(format!("http://{}/audit?limit=500", self.listen));
        let answer = request.bearer_auth(format!("{TOKEN}-of-the-reader")).send().await.ok()?;
        let body: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
        self.lives.last_mut()?.listened = true;
        body["records"].as_array().cloned()
    }
}

/// Whoever reads the textfile finds a whole one, or none.
pub fn torn_textfile(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("text/remediator.prom")).ok()?;
    let whole = text.ends_with('\n') && text.contains("remediator_");
    (!whole).then(|| format!("a torn textfile: {text:?}"))
}

impl Drop for World {
    fn drop(&mut self) {
        for life in &self.lives {
            if life.ended.borrow().is_none() {
                tracer::send(life.breaker.pid.load(Ordering::SeqCst), SIGKILL);
            }
        }
    }
}
