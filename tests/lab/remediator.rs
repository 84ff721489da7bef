//! remediator from outside: what it answers, what it wrote down, and being stopped, killed and started.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::lab::{Lab, eventually, replica};

/// Longest wait for a run: an alert's `for`, a cooldown of 40 s, and the run itself with every bound used up.
const RUN: u64 = 150;
pub const CONFIG: &str = "/etc/remediator/remediator.yml";

impl Lab {
    /// The bearer token of `receiver`, `reader` or `operator`.
    pub fn token(&self, role: &str) -> String {
        let file = self.dir().join("remediator/tokens").join(role);
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).trim().to_owned()
    }

    pub async fn read(&self, path: &str) -> Result<Value, String> {
        self.json(self.http.get(self.base("REMEDIATOR") + path).bearer_auth(self.token("reader"))).await
    }

    /// An operator's order, which must be taken.
    pub async fn order(&self, path: &str, body: Value) -> Value {
        let request = self.http.post(self.base("REMEDIATOR") + path).bearer_auth(self.token("operator")).json(&body);
        self.json(request).await.unwrap_or_else(|why| panic!("{path} {body}: {why}"))
    }

    /// Delivers by hand what Alertmanager would; status and answer.
    pub async fn deliver(&self, query: &str, token: Option<&str>, group: &Value) -> (u16, Value) {
        let request = self.http.post(format!("{}/remediate{query}", self.base("REMEDIATOR"))).json(group);
        let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
        let answer = request.send().await.expect("remediator answers");
        (answer.status().as_u16(), answer.json().await.expect("it answers in JSON"))
    }

    /// Records about replica `n` that were opened after `since`, oldest first, as lines of `GET /audit`.
    pub async fn records(&self, n: usize, since: Timestamp) -> Result<Vec<Value>, String> {
        let path = format!("/audit?limit=500&target=inventory/{}&since={since}", replica(n));
        let answer = self.read(&path).await?;
        Ok(answer["records"].as_array().ok_or("no records")?.iter().rev().cloned().collect())
    }

    /// Waits for a record about replica `n` with this outcome and reason, opened after `since`.
    pub async fn outcome(&self, n: usize, since: Timestamp, outcome: &str, reason: &str) -> Value {
        eventually(&format!("a record of inventory-{n}: {outcome} {reason}"), RUN, async || {
            let records = self.records(n, since).await?;
            let found = records.iter().find(|record| record["outcome"] == outcome && record["reason_code"] == reason);
            found.cloned().ok_or_else(|| told(&records))
        })
        .await
    }

    pub async fn recovered(&self, n: usize, since: Timestamp) -> Value {
        self.outcome(n, since, "recovered", "recovery_confirmed").await
    }

    /// Waits for a record about replica `n` that could not find out whether the alert is true.
    pub async fn unknown(&self, n: usize, since: Timestamp) -> Value {
        eventually(&format!("a record of inventory-{n}: unknown_condition"), RUN, async || {
            let records = self.records(n, since).await?;
            let found = records.iter().find(|record| record["outcome"] == "unknown_condition");
            found.cloned().ok_or_else(|| told(&records))
        })
        .await
    }

    /// Waits until a run on replica `n` has begun this step, or gone past it.
    pub async fn began(&self, n: usize, since: Timestamp, step: &str) -> Value {
        eventually(&format!("a run on inventory-{n} that began {step}"), RUN, async || {
            let records = self.records(n, since).await?;
            let began = |record: &&Value| steps(record).iter().any(|(name, _)| name == step);
            records.iter().find(began).cloned().ok_or_else(|| told(&records))
        })
        .await
    }

    /// The value of one of our own metrics; 0 when the series is not there.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.http.get(self.base("REMEDIATOR") + "/metrics").send().await.expect("remediator answers").text().await;
        let text = text.expect("metrics are text");
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        value.unwrap_or(0.0)
    }

    /// A command in remediator's own container: whether its answer is yes, and what it printed.
    pub fn remediator(&self, arguments: &[&str]) -> (bool, String) {
        let container = self.container("remediator");
        let output = self.docker(&[&["exec", &container, "/remediator"], arguments].concat());
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.success(), said)
    }

    pub fn check(&self) -> (bool, String) {
        self.remediator(&["check", "--config", CONFIG])
    }

    /// Killed without a word of warning.
    pub fn kill(&self) {
        self.docker_ok(&["kill", "--signal", "KILL", &self.container("remediator")]);
    }

    pub async fn start(&self) {
        self.docker_ok(&["start", &self.container("remediator")]);
        self.ready().await;
    }

    pub async fn ready(&self) {
        eventually("remediator to be ready", 60, async || self.get("REMEDIATOR", "/readyz").await).await;
    }

    /// SIGTERM: it must end by itself, with 0, and leave no server drained.
    pub async fn stop(&self) {
        self.docker_ok(&["stop", "--time", "60", &self.container("remediator")]);
        assert_eq!(self.inspect("remediator", "{{.State.ExitCode}}"), "0", "the exit code after SIGTERM");
        self.assert_none_drained().await;
    }

    /// What must hold at the end of every scenario: the chain is whole, each closed record is exactly one line of the file,
    /// every replica takes traffic.
    pub async fn assert_sound(&self) {
        let (ok, said) = self.remediator(&["audit", "--config", CONFIG, "verify"]);
        assert!(ok && said.starts_with("ok: "), "remediator audit verify: {said}");
        // The file follows the journal; a record that was just closed may take a moment to be in it.
        eventually("audit.jsonl to have exactly one line for each closed record", 20, async || {
            let mut closed = self.closed().await?;
            let mut lines = self.audit_file()?;
            closed.sort();
            lines.sort();
            (closed == lines).then_some(()).ok_or_else(|| format!("closed: {closed:#?}, in the file: {lines:#?}"))
        })
        .await;
        self.assert_none_drained().await;
    }

    /// Ids of all closed records.
    async fn closed(&self) -> Result<Vec<String>, String> {
        let answer = self.read("/audit?limit=500").await?;
        let records = answer["records"].as_array().ok_or("no records")?;
        let closed = records.iter().filter(|record| !record["outcome"].is_null());
        Ok(closed.map(|record| text(&record["id"])).collect())
    }

    /// Ids in `audit.jsonl`.
    fn audit_file(&self) -> Result<Vec<String>, String> {
        Ok(self.audit_lines()?.iter().map(|line| text(&line["id"])).collect())
    }

    /// The lines of `audit.jsonl`, as the file lies in the volume.
    pub fn audit_lines(&self) -> Result<Vec<Value>, String> {
        let volume = format!("{}_state:/state:ro", self.project);
        let lines = self.docker_ok(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--user",
            "10001:10001",
            "--volume",
            &volume,
            "--entrypoint",
            "cat",
            &self.inspect("haproxy", "{{.Config.Image}}"),
            "/state/audit.jsonl",
        ]);
        lines.lines().map(|line| serde_json::from_str(line).map_err(|error| format!("{error} in {line}"))).collect()
    }

    /// Looks for a while, and nothing comes of it: `still` must hold all the time.
    pub async fn for_a_while(&self, seconds: u64, mut still: impl AsyncFnMut()) {
        for _ in 0..seconds {
            still().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// A delivery as one of two Alertmanager peers would send it.
pub fn group(labels: &Value, starts_at: Timestamp, peer: &str) -> Value {
    json!({
        "version": "4",
        "groupKey": format!("{{}}/{{}}:{{instance=\"{}\"}}", labels["instance"].as_str().unwrap_or_default()),
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "remediator",
        "groupLabels": {},
        "commonLabels": labels,
        "commonAnnotations": {},
        "externalURL": format!("http://{peer}:9093"),
        "alerts": [{
            "status": "firing",
            "labels": labels,
            "annotations": {},
            "startsAt": starts_at.to_string(),
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "",
        }],
    })
}

/// The labels of an alert about replica `n`, as the lab's Prometheus would send them.
pub fn labels(alertname: &str, n: usize) -> Value {
    json!({
        "alertname": alertname, "cluster": "lab", "instance": replica(n), "job": "inventory", "service": "inventory",
        "severity": "page",
    })
}

/// The steps of a record, and what became of each.
pub fn steps(record: &Value) -> Vec<(String, String)> {
    let steps = record["steps"].as_array().into_iter().flatten();
    steps.map(|run| (text(&run["step"]), run["call"]["result"].as_str().unwrap_or("under way").to_owned())).collect()
}

/// The guardrail of a record that refused, in its own words.
pub fn refusal(record: &Value, rail: &str) -> String {
    let guards = record["guards"].as_array().into_iter().flatten();
    let refused = guards.filter(|check| check["rail"] == rail && !check["refusal"].is_null());
    refused.map(|check| text(&check["detail"])).collect()
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub fn moment(value: &Value) -> Timestamp {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is a time"))
}

/// Records in short.
fn told(records: &[Value]) -> String {
    let line = |record: &Value| {
        let (outcome, reason) = (record["outcome"].as_str().unwrap_or("open"), text(&record["reason"]));
        format!("{} {outcome} ({reason}) {:?}", text(&record["ts"]), steps(record))
    };
    if records.is_empty() { "no record".to_owned() } else { records.iter().map(line).collect::<Vec<_>>().join("; ") }
}
