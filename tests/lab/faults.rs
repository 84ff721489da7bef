//! What can be done to the parts that `lab/faults.yml` adds, and to the others.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::lab::{Lab, eventually, replica};

/// One delivery as the relay saw it.
#[derive(Clone, Debug, Deserialize)]
pub struct Delivery {
    /// Unix seconds.
    pub at: f64,
    pub peer: String,
    /// 0 when remediator gave no answer.
    pub status: u16,
    pub alerts: Vec<Value>,
    pub results: Vec<Value>,
}

/// Sessions at the balancer that do not end by themselves.
pub struct Sessions(#[expect(dead_code, reason = "dropping it ends them")] JoinSet<()>);

impl Delivery {
    pub fn answered(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Ids of the records that the answer names for firing alerts about replica `n`.
    pub fn ids(&self, n: usize) -> Vec<String> {
        let ours = self
            .alerts
            .iter()
            .zip(&self.results)
            .filter(|(alert, _)| alert["status"] == "firing" && alert["labels"]["instance"] == replica(n));
        ours.filter_map(|(_, result)| Some(result["id"].as_str()?.to_owned())).collect()
    }
}

impl Lab {
    /// Where a container that publishes `port` wherever there is room can be reached now.
    pub fn published(&self, service: &str, port: u16) -> String {
        let bound = self.docker_ok(&["port", &self.container(service), &port.to_string()]);
        format!("http://{}", bound.lines().next().unwrap_or_else(|| panic!("{service} publishes {port}")).trim())
    }

    /// All deliveries so far, from the `from`-th on.
    pub async fn deliveries(&self, from: usize) -> Vec<Delivery> {
        let relay = self.published("relay", 8080);
        let listed = self.json(self.http.get(format!("{relay}/deliveries?from={from}"))).await.expect("the relay answers");
        serde_json::from_value(listed).expect("deliveries")
    }

    /// From now on remediator's answers arrive this much later.
    pub async fn slow_receiver(&self, delay: Duration) {
        let order = format!("{}/relay?delay_ms={}", self.published("relay", 8080), delay.as_millis());
        let answer = self.http.post(order).send().await.expect("the relay answers");
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Two sessions on each replica, opened through the balancer, so that whoever is drained has one to wait for.
    pub async fn try_sessions(&self) -> Option<Sessions> {
        let url = format!("{}/stock?hold=60", self.base("INVENTORY"));
        let mut sessions = JoinSet::new();
        for _ in 0..6 {
            let mut answer = self.http.get(&url).send().await.ok()?;
            sessions.spawn(async move { while let Ok(Some(_)) = answer.chunk().await {} });
        }
        Some(Sessions(sessions))
    }

    pub async fn hold_sessions(&self) -> Sessions {
        self.try_sessions().await.expect("the balancer answers")
    }

    /// Writes the playbook anew, this replaced by that, and has it read.
    pub async fn rewrite_playbook(&self, changes: &[(&str, &str)]) {
        let file = self.dir().join("remediator/playbooks/inventory-fd-leak.yml");
        let mut text = std::fs::read_to_string(&file).expect("the playbook can be read");
        for (from, to) in changes {
            assert_eq!(text.matches(from).count(), 1, "the playbook says {from:?} once:\n{text}");
            text = text.replace(from, to);
        }
        std::fs::write(&file, text).expect("the playbook can be written");
        const SUCCESS: &str = "remediator_config_last_reload_success_timestamp_seconds";
        let before = self.metric(SUCCESS).await;
        // Whole seconds.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        self.docker_ok(&["kill", "--signal", "HUP", &self.container("remediator")]);
        eventually("the playbook to be read", 20, async || {
            let (now, good) = (self.metric(SUCCESS).await, self.metric("remediator_config_last_reload_successful").await);
            (now > before && good == 1.0).then_some(()).ok_or_else(|| format!("{before}, now {now}, good {good}"))
        })
        .await;
    }

    /// Not a byte is left where the journal is, for as long as remediator writes nothing.
    pub fn fill_disk(&self) {
        let fill = "dd if=/dev/zero of=/state/filler bs=64k 2>/dev/null; dd if=/dev/zero of=/state/filler-rest bs=1k 2>/dev/null; \
                    df --output=avail /state | tail -n 1";
        let left = self.docker_ok(&["exec", &self.container("room"), "sh", "-c", fill]);
        assert_eq!(left.trim(), "0", "KiB left on the state's disk");
    }

    pub fn free_disk(&self) {
        self.docker_ok(&["exec", &self.container("room"), "sh", "-c", "rm -f /state/filler /state/filler-rest"]);
    }

    fn questions(&self) -> String {
        format!("{}_questions", self.project)
    }

    /// remediator can no longer ask Prometheus. Everybody else still can, and Prometheus goes on scraping and telling.
    pub fn cut_questions(&self) {
        self.docker_ok(&["network", "disconnect", &self.questions(), &self.container("prometheus")]);
    }

    pub fn mend_questions(&self) {
        self.docker_ok(&["network", "connect", "--alias", "observer", &self.questions(), &self.container("prometheus")]);
    }

    pub fn restart(&self, service: &str) {
        self.docker_ok(&["restart", "--time", "2", &self.container(service)]);
    }
}
