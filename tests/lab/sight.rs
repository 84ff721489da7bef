//! What everybody else sees: Prometheus, Alertmanager, the pager, HAProxy and the customers.

use std::collections::BTreeMap;
use std::process::Command;

use jiff::Timestamp;
use serde_json::Value;

use crate::lab::{Lab, eventually, replica};

/// A replica at the balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `UP`, `DOWN`, `DRAIN`; without the count of a check that is changing its mind.
    pub status: String,
    /// Connections that had to be tried again, or on another replica.
    pub retries: u64,
    pub redispatches: u64,
}

impl Lab {
    /// Labels of the alert of this name that Prometheus lists as firing for replica `n`, as Alertmanager would get them.
    pub async fn firing(&self, alertname: &str, n: usize) -> Value {
        eventually(&format!("{alertname} to fire for inventory-{n}"), 120, async || {
            let answer = self.get("PROMETHEUS", "/api/v1/alerts").await?;
            let alerts = answer["data"]["alerts"].as_array().ok_or("no alerts")?;
            let ours = |alert: &&Value| alert["labels"]["instance"] == replica(n) && alert["labels"]["alertname"] == alertname;
            let alert = alerts.iter().find(ours).ok_or_else(|| format!("{answer}"))?;
            if alert["state"] != "firing" {
                return Err(format!("it is {}", alert["state"]));
            }
            let mut labels = alert["labels"].clone();
            labels["cluster"] = "lab".into();
            Ok(labels)
        })
        .await
    }

    /// The value of a query that must give exactly one.
    pub async fn query(&self, query: &str) -> Result<f64, String> {
        let request = self.http.get(self.base("PROMETHEUS") + "/api/v1/query").query(&[("query", query)]);
        let answer = self.json(request).await?;
        match answer["data"]["result"].as_array().map(Vec::as_slice) {
            Some([one]) => one["value"][1].as_str().and_then(|value| value.parse().ok()).ok_or_else(|| one.to_string()),
            _ => Err(answer.to_string()),
        }
    }

    /// Waits until Alertmanager holds no alert of this kind any more.
    pub async fn resolved(&self, matcher: &str) {
        eventually(&format!("Alertmanager to hold no {matcher}"), 60, async || {
            let request = self.http.get(self.base("ALERTMANAGER") + "/api/v2/alerts").query(&[("filter", matcher)]);
            let alerts = self.json(request).await?;
            if alerts == Value::Array(Vec::new()) { Ok(()) } else { Err(alerts.to_string()) }
        })
        .await;
    }

    /// Notifications of our own escalations that say "firing": what a human was called with.
    pub async fn calls(&self) -> Vec<Value> {
        let pages = self.get("PAGER", "/pages").await.expect("the pager answers");
        let pages = pages.as_array().expect("a list").iter();
        pages.filter(|page| page["status"] == "firing").cloned().collect()
    }

    /// Waits until a human is called for this reason about replica `n`; answers with that alert of the call.
    pub async fn called(&self, n: usize, reason: &str) -> Value {
        eventually(&format!("a page about inventory-{n} for {reason}"), 60, async || {
            let calls = self.calls().await;
            let alerts = calls.iter().filter_map(|call| call["alerts"].as_array()).flatten();
            let wanted = |alert: &&Value| {
                let labels = &alert["labels"];
                labels["alertname"] == "RemediationEscalated" && labels["instance"] == replica(n) && labels["reason"] == reason
            };
            alerts.clone().find(wanted).cloned().ok_or_else(|| format!("{:#?}", calls))
        })
        .await
    }

    /// Waits until a human is called for this reason, whatever it is about; answers with that alert of the call.
    pub async fn called_for(&self, reason: &str) -> Value {
        eventually(&format!("a page for {reason}"), 90, async || {
            let calls = self.calls().await;
            let alerts = calls.iter().filter_map(|call| call["alerts"].as_array()).flatten();
            alerts.clone().find(|alert| alert["labels"]["reason"] == reason).cloned().ok_or_else(|| format!("{calls:#?}"))
        })
        .await
    }

    pub async fn assert_no_calls(&self) {
        let calls = self.calls().await;
        assert!(calls.is_empty(), "a human was called: {calls:#?}");
    }

    /// The three replicas as HAProxy's statistics have them.
    pub async fn servers(&self) -> Result<[Server; 3], String> {
        let answer = self.http.get(self.base("HAPROXY_STATS") + "/;csv").send().await.map_err(|error| format!("{error:?}"))?;
        let csv = answer.text().await.map_err(|error| error.to_string())?;
        let mut lines = csv.lines().map(|line| line.trim_start_matches("# ").split(',').collect::<Vec<_>>());
        let names = lines.next().ok_or("no statistics")?;
        let rows: Vec<BTreeMap<_, _>> = lines.map(|line| names.iter().copied().zip(line).collect()).collect();
        let server = |n: usize| {
            let row = rows.iter().find(|row| row["pxname"] == "inventory" && row["svname"] == format!("inventory-{n}"));
            let row = row.ok_or_else(|| format!("HAProxy has no inventory-{n}"))?;
            let count = |name: &str| row[name].parse().map_err(|error| format!("{name} is {:?}: {error}", row[name]));
            let status = row["status"].split(' ').next().unwrap_or_default().to_owned();
            Ok::<_, String>(Server { status, retries: count("wretr")?, redispatches: count("wredis")? })
        };
        Ok([server(1)?, server(2)?, server(3)?])
    }

    /// Every replica takes traffic again.
    pub async fn assert_none_drained(&self) {
        eventually("all three replicas to take traffic", 30, async || {
            let servers = self.servers().await?;
            servers.iter().all(|server| server.status == "UP").then_some(()).ok_or_else(|| format!("{servers:?}"))
        })
        .await;
    }

    /// When HAProxy itself logged something about replica `n`, such as "enters drain state".
    pub fn balancer_logged(&self, n: usize, what: &str, since: Timestamp) -> Vec<Timestamp> {
        let output = self.docker(&["logs", "--timestamps", &self.container("haproxy")]);
        let log = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        let said = format!("Server inventory/inventory-{n} ");
        let times = log.lines().filter_map(|line| line.split_once(' ')).filter_map(|(at, line)| {
            // Each line comes twice, the second time with a level in front.
            (line.starts_with(&said) && line.contains(what)).then(|| at.parse::<Timestamp>().ok())?
        });
        times.filter(|at| *at >= since).collect()
    }

    /// Forgets how customers fared so far.
    pub async fn watch_customers(&self) {
        let request = self.http.post(self.base("LOAD") + "/report/reset");
        self.json(request).await.expect("load answers");
    }

    /// Nobody was turned away since `watch_customers`.
    pub async fn assert_customers_served(&self) {
        let report = self.get("LOAD", "/report").await.expect("load answers");
        assert_eq!(report["failed"], 0, "customers were turned away: {report:#}");
        assert!(report["ok"].as_u64().is_some_and(|served| served > 0), "there were no customers: {report:#}");
    }

    /// What the lab had to say, for whoever reads of a failure.
    pub fn tell(&self) {
        let shell = r#"eval "$(lab/lab env)" || exit 0
            get() { curl -sf --max-time 3 "$@" || echo '(no answer)'; }
            as_reader() { get -H "Authorization: Bearer $(cat "$LAB_DIR/remediator/tokens/reader")" "http://127.0.0.1:$REMEDIATOR_PORT$1"; }
            echo '== containers';  lab/lab ps
            echo '== remediator';  docker logs --tail 200 "$(lab/lab container remediator)" 2>&1
            echo '== records, newest first'; as_reader '/audit?limit=100' | jq -c '.records[]
                | [.ts, .target, .alert.labels.alertname, .outcome, .reason, [.steps[]? | .step + " " + (.call.result // "under way")]]'
            echo '== guards';      as_reader /guards
            echo; echo '== Prometheus: alerts'; get "http://127.0.0.1:$PROMETHEUS_PORT/api/v1/alerts" \
                | jq -c '.data.alerts[] | [.labels.alertname, .labels.instance, .state, .activeAt]'
            echo '== Alertmanager: alerts'; get "http://127.0.0.1:$ALERTMANAGER_PORT/api/v2/alerts" \
                | jq -c '.[] | [.labels.alertname, .labels.instance, .labels.reason, .endsAt]'
            echo '== pager';       get "http://127.0.0.1:$PAGER_PORT/pages" | jq -c '.[] | [.received, .status, [.alerts[] | .status, .labels.instance, .labels.reason]]'
            echo '== customers';   get "http://127.0.0.1:$LOAD_PORT/report"
            echo; echo '== HAProxy'; get "http://127.0.0.1:$HAPROXY_STATS_PORT/;csv" | cut -d, -f1,2,14-18 | grep -E '^(#|inventory)'
            docker logs --timestamps "$(lab/lab container haproxy)" 2>&1 | grep -v WARNING | tail -n 40"#;
        let told = Command::new("bash")
            .args(["-c", shell])
            .env("COMPOSE_PROJECT_NAME", &self.project)
            .current_dir(crate::lab::root())
            .output();
        eprintln!("---- {} ----", self.project);
        if let Ok(told) = told {
            eprintln!("{}{}", String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
        }
        eprintln!("== containers' events");
        for event in self.events.all().iter().filter(|event| !event.action.starts_with("exec_")) {
            eprintln!("{} {} {}", event.at, event.service, event.action);
        }
        eprintln!("---- end of {} ----", self.project);
    }
}
