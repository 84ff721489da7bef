//! The program itself, started as a person would, on a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::outside::{Outside, Replica};
use crate::wire::nobody;

pub const RECEIVER: &str = "planted-token-of-the-receiver";
pub const READER: &str = "planted-token-of-the-reader";

/// Longest wait for all records; a guard against hanging, nothing more.
const HANG: Duration = Duration::from_secs(240);

const PLAYBOOK: &str = "playbook: inventory
match: ['team=\"shop\"']
target: { service: inventory }
confirm: { inputs: [process_open_fds] }
evidence: { logs: 10 }
steps: [{ drain: { within: 60s } }, { restart: { grace: 1s } }, { healthy: { within: 60s } }, readmit]
recovered: { query: 'process_open_fds{$target} / process_max_fds{$target}', below: 0.3, settle: 0s, looks: 1, within: 60s }
guards:
  start_grace: 1m
  rate: { per: 1m, burst: 1000 }
  breaker: { failures: 60, recurrence: 1h, cooldown: 10m }
  blast_radius: { min_healthy: 0, max_unhealthy: 100%, max_in_flight: 200 }
mode: live
";

pub struct Program {
    pub folder: TempDir,
    base: String,
    child: Child,
    http: reqwest::Client,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_remediator"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

impl Program {
    /// `userinfo` goes into the addresses of Prometheus and Alertmanager, and `more_alertmanagers` beside that one.
    pub async fn start(outside: &Outside, log: &str, userinfo: &str, more_alertmanagers: &str) -> Program {
        let folder = TempDir::new().expect("a folder");
        let (dir, listen) = (folder.path(), nobody().await);
        let settings = format!(
            "listen: {listen}\nstate_dir: state\nplaybooks: [playbook.yml]\n\
             prometheus: {{ url: 'http://{userinfo}{}' }}\nalertmanager: {{ urls: ['http://{userinfo}{}'{more_alertmanagers}] }}\n\
             docker: {{ read: 'tcp://{}', restart: 'tcp://{}' }}\nhaproxy: {{ address: 'tcp://{}' }}\n\
             tokens: {{ receiver: [receiver], reader: [reader] }}\n\
             limits: {{ fleet: {{ per: 1m, burst: 1000 }}, group: {{ per: 1m, burst: 1000 }} }}\n\
             pages: {{ ask_again: 1s }}\nlog: {{ {log} }}\n",
            outside.prometheus.place,
            outside.alertmanager.place,
            outside.read_door.place,
            outside.restart_door.place,
            outside.balancer.place,
        );
        for (name, text) in
            [("remediator.yml", settings.as_str()), ("playbook.yml", PLAYBOOK), ("receiver", RECEIVER), ("reader", READER)]
        {
            std::fs::write(dir.join(name), text).expect("written");
        }
        let log_file = std::fs::File::create(dir.join("log")).expect("a file");
        let child =
            binary().args(["serve", "--config"]).arg(dir.join("remediator.yml")).stderr(log_file).spawn().expect("starts");
        let program = Program { base: format!("http://{listen}"), http: reqwest::Client::new(), child, folder };
        let ready = async {
            while program.http.get(format!("{}/healthz", program.base)).send().await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(HANG, ready).await.unwrap_or_else(|_| panic!("it does not listen: {}", program.log()));
        program
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("what it wrote is UTF-8")
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("remediator.yml")
    }

    /// A delivery's status and answer.
    pub async fn deliver(&self, token: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
        let request = self.http.post(format!("{}/remediate", self.base)).bearer_auth(token).body(body);
        let answer = request.send().await.expect("it answers");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    pub async fn get(&self, path: &str) -> String {
        let request = self.http.get(format!("{}{path}", self.base)).bearer_auth(READER);
        request.send().await.expect("it answers").text().await.expect("text")
    }

    /// Waits until this many records are there and closed; newest first, as `GET /audit` has them.
    pub async fn closed(&self, count: usize) -> Vec<Value> {
        let mut seen = String::new();
        let looking = async {
            loop {
                seen = self.get("/audit?limit=500").await;
                let answer: Value = serde_json::from_str(&seen).expect("JSON");
                let records = answer["records"].as_array().expect("records");
                if records.len() >= count && records.iter().all(|record| !record["outcome"].is_null()) {
                    return records.clone();
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let records = tokio::time::timeout(HANG, looking).await;
        records.unwrap_or_else(|_| panic!("not closed: {seen:.2000}\n{:.4000}", self.log()))
    }

    /// Asks it to stop, and waits until it has: everything is on disk then.
    pub async fn stop(&mut self) {
        let told = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().expect("kill");
        assert!(told.success());
        let gone = async {
            while self.child.try_wait().expect("a child").is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(HANG, gone).await.expect("it stops");
    }

    /// Another command of the same program.
    pub fn command(&self, arguments: &[&str], path: &Path) -> Output {
        binary().args(arguments).arg(path).output().expect("it runs")
    }
}

/// A delivery with the alert of every replica, as Alertmanager sends it.
pub fn delivery(replicas: &[Replica], ornaments: &Value) -> String {
    let alert = |replica: &Replica| {
        let mut alert = json!({ "status": "firing", "labels": replica.labels, "startsAt": "2026-03-01T02:00:05Z" });
        for (name, value) in ornaments.as_object().into_iter().flatten() {
            alert[name] = value.clone();
        }
        alert
    };
    let alerts: Vec<Value> = replicas.iter().map(alert).collect();
    json!({ "version": "4", "status": "firing", "receiver": "remediator", "groupKey": "{}:{}", "truncatedAlerts": 0,
            "externalURL": "http://u:planted-in-the-external-url@am:9093", "alerts": alerts })
    .to_string()
}
