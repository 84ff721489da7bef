//! One lab: started for one test, removed with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::docker::Events;
use crate::slots::{self, Slot};

/// What would make a lab another one than the test's own, were it set where the tests are started.
const OTHERS: [&str; 17] = [
    "LAB_DIR",
    "LAB_FAULTS",
    "LAB_SUBNET",
    "LAB_SPEED",
    "LAB_MODE",
    "LAB_REMEDIATOR",
    "REMEDIATOR_PORT",
    "PROMETHEUS_PORT",
    "ALERTMANAGER_PORT",
    "HAPROXY_STATS_PORT",
    "SHOP_PORT",
    "INVENTORY_PORT",
    "INVENTORY_1_PORT",
    "INVENTORY_2_PORT",
    "INVENTORY_3_PORT",
    "PAGER_PORT",
    "LOAD_PORT",
];
/// How often something awaited is looked at.
const LOOK: Duration = Duration::from_millis(100);

pub struct Lab {
    pub project: String,
    pub http: reqwest::Client,
    pub events: Events,
    settings: BTreeMap<String, String>,
    _slot: Slot,
}

impl Lab {
    /// Up, healthy, scraped, with customers being served.
    pub async fn up(name: &str) -> Lab {
        Lab::start_up(name, &["up"]).await
    }

    /// As [`Lab::up`], with what `lab/faults.yml` adds: two Alertmanagers, a relay in front of remediator, a small disk, a
    /// network that can be cut, and steps that take long enough to be interrupted.
    pub async fn under_faults(name: &str) -> Lab {
        Lab::start_up(name, &["up", "faults"]).await
    }

    async fn start_up(name: &str, how: &[&str]) -> Lab {
        let slot = slots::take(&root().join(".lab")).await;
        sweep();
        let project = format!("e2e-{name}-{}", std::process::id());
        // From here on a panic takes down what was started.
        let events = Events::follow(&project);
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(150))
            .no_proxy()
            .tls_certs_only([])
            .build()
            .expect("an HTTP client");
        let mut lab = Lab { project, http, events, settings: BTreeMap::new(), _slot: slot };
        let started = lab.script(how);
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        let settings = String::from_utf8(lab.script(&["env"]).stdout).expect("settings are text");
        let setting = |line: &str| {
            let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        };
        lab.settings = settings.lines().filter_map(setting).collect();
        lab
    }

    /// Runs `lab/lab` for this lab.
    pub fn script(&self, arguments: &[&str]) -> Output {
        script(&self.project, arguments)
    }

    /// This lab's own directory: configurations, rules, tokens.
    pub fn dir(&self) -> PathBuf {
        PathBuf::from(&self.settings["LAB_DIR"])
    }

    /// `http://127.0.0.1:port` of `REMEDIATOR`, `PROMETHEUS`, `INVENTORY_1` and so on.
    pub fn base(&self, name: &str) -> String {
        let port = self.settings.get(&format!("{name}_PORT")).unwrap_or_else(|| panic!("{name} has a port"));
        format!("http://127.0.0.1:{port}")
    }

    pub async fn json(&self, request: reqwest::RequestBuilder) -> Result<Value, String> {
        let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
        let (status, body) = (answer.status(), answer.text().await.map_err(|error| error.to_string())?);
        if !status.is_success() {
            return Err(format!("{status}: {body}"));
        }
        serde_json::from_str(&body).map_err(|error| format!("{error} in {body}"))
    }

    pub async fn get(&self, name: &str, path: &str) -> Result<Value, String> {
        self.json(self.http.get(self.base(name) + path)).await
    }

    /// Replica `n` falls sick.
    pub async fn leak(&self, n: usize, how: &str) {
        let request = self.http.post(format!("{}/leak?{how}", self.base(&format!("INVENTORY_{n}"))));
        let report = self.json(request).await.unwrap_or_else(|why| panic!("inventory-{n} could not be made to leak: {why}"));
        println!("inventory-{n} leaks ({how}): {report}");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        let down = self.script(&["down"]);
        if !down.status.success() {
            eprintln!("{} is left behind: {}", self.project, String::from_utf8_lossy(&down.stderr));
        }
    }
}

/// Waits until it is so; says what was awaited and what was seen last when it never is.
pub async fn eventually<T>(what: &str, within: u64, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + Duration::from_secs(within);
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(last) => assert!(Instant::now() < end, "waited {within} s for {what}; last seen: {last}"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

pub fn replica(n: usize) -> String {
    format!("inventory-{n}:8080")
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn script(project: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("lab/lab");
    command.current_dir(root()).args(arguments).env("COMPOSE_PROJECT_NAME", project).env("LAB_FREE", "1");
    OTHERS.iter().for_each(|name| {
        command.env_remove(name);
    });
    command.output().expect("lab/lab can be run: bash is there")
}

/// Removes the labs of test runs that were killed before they could do so themselves.
fn sweep() {
    let kept = std::fs::read_dir(root().join(".lab")).into_iter().flatten().flatten();
    for name in kept.filter_map(|entry| entry.file_name().into_string().ok()) {
        let pid = name.strip_prefix("e2e-").and_then(|rest| rest.rsplit_once('-')).map(|(_, pid)| pid);
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            script(&name, &["down"]);
        }
    }
}
