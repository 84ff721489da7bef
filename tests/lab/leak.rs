//! The main job: a leak in one replica, from the first descriptor to the audit record, with nothing but the lab's own
//! parts talking to each other.

use jiff::Timestamp;
use serde_json::Value;

use crate::LEAK;
use crate::lab::{Lab, eventually, replica, root};
use crate::remediator::{moment, steps};

const N: usize = 2;

#[tokio::test]
async fn a_leak_in_one_replica_ends_in_one_restart_and_an_audit_record() {
    let lab = Lab::up("leak").await;
    let (good, said) = lab.check();
    assert!(good && said.contains("good, with 1 playbook ("), "remediator check: {said}");

    let begun = Timestamp::now();
    let before = lab.starts();
    let servers = lab.servers().await.expect("statistics");
    lab.watch_customers().await;
    lab.leak(N, LEAK).await;
    let record = lab.recovered(N, begun).await;

    // Exactly one restart, of exactly that container.
    lab.assert_restarts(begun, [0, 1, 0]).await;
    let after = lab.starts();
    assert_eq!((&before[0], &before[2]), (&after[0], &after[2]), "the other replicas run on");
    assert_ne!(before[1], after[1], "inventory-2 started anew");
    assert_eq!(before[1][..64], after[1][..64], "and is the same container");

    in_order(&lab, &record, begun).await;

    // No customer noticed: none was turned away, and none even had to be asked to wait for another replica.
    lab.assert_customers_served().await;
    assert_eq!(lab.servers().await.expect("statistics"), servers, "states, retries and redispatches are as before");
    lab.assert_no_calls().await;
    lab.resolved(&format!("instance={}", replica(N))).await;

    record_answers_why(&record);
    audit_can_be_asked(&lab, &record).await;
    lab.assert_sound().await;
    slow_scrapes_are_refused(&lab).await;
    lab.stop().await;
}

/// Drained, restarted, readmitted: by the record, by HAProxy's log and by the Engine's events.
async fn in_order(lab: &Lab, record: &Value, begun: Timestamp) {
    let done =
        ["capture_evidence", "drain", "restart", "await_healthy", "readmit"].map(|step| (step.to_owned(), "done".to_owned()));
    assert_eq!(steps(record), done);
    let drained = lab.balancer_logged(N, "enters drain state", begun);
    let readmitted = lab.balancer_logged(N, "leaving forced drain", begun);
    let restarts = lab.restarts(N, begun).await;
    match (drained.as_slice(), restarts.as_slice(), readmitted.as_slice()) {
        ([drained], [(stopped, started)], [readmitted]) => {
            assert!(
                drained < stopped && started < readmitted,
                "drained {drained}, restarted {stopped} to {started}, readmitted {readmitted}"
            );
        }
        other => panic!("not one drain, one restart and one readmit: {other:?}"),
    }
}

fn record_answers_why(record: &Value) {
    assert_eq!(record["alert"]["labels"]["alertname"], "FdLeakFast");
    assert_eq!(record["alert"]["receiver"], "remediator", "delivered by Alertmanager");
    assert_eq!(record["target"], format!("inventory/{}", replica(N)));
    assert_eq!(record["intent"], format!("restart inventory/{}", replica(N)));
    assert_eq!(record["mode"], "live");
    assert!(record["fact"].as_str().is_some_and(|fact| fact.starts_with("Prometheus confirms")), "{}", record["fact"]);
    let guards = record["guards"].as_array().expect("guards");
    assert!(guards.len() >= 8 && guards.iter().all(|check| check["refusal"].is_null()), "every rail passed: {guards:#?}");
    assert_eq!(record["evidence"]["judgement"]["verdict"], "recovered");
    let logs = &record["steps"][0]["note"]["logs"];
    assert!(logs.as_array().is_some_and(|lines| !lines.is_empty()), "the last log lines from before the restart: {logs}");
}

/// Filters, NDJSON and the whole story, on real data.
async fn audit_can_be_asked(lab: &Lab, record: &Value) {
    let id = record["id"].as_str().expect("an id");
    let fingerprint = record["alert"]["fingerprint"].as_str().expect("a fingerprint");
    let closed = moment(&record["ts"]);
    let found = async |query: String| {
        let page = lab.read(&format!("/audit?{query}")).await.unwrap_or_else(|why| panic!("{query}: {why}"));
        page["records"].as_array().expect("records").iter().any(|record| record["id"] == id)
    };
    for query in [
        "outcome=recovered",
        "reason=recovery_confirmed",
        "playbook=inventory-fd-leak",
        &format!("fingerprint={fingerprint}"),
        &format!("until={closed}"),
    ] {
        assert!(found(query.to_owned()).await, "{query} finds the record");
    }
    for query in ["outcome=refused".to_owned(), format!("target=inventory/{}", replica(1)), format!("since={closed}")] {
        assert!(!found(query.clone()).await, "{query} does not find the record");
    }
    let request = lab.http.get(lab.base("REMEDIATOR") + "/audit?outcome=recovered").bearer_auth(lab.token("reader"));
    let answer = request.header("accept", "application/x-ndjson").send().await.expect("an answer").text().await.expect("text");
    let lines: Vec<Value> = answer.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(lines.as_slice(), std::slice::from_ref(record), "the same record as a line");
    let story = lab.read(&format!("/audit/{id}")).await.expect("the story");
    let entries = story["entries"].as_array().expect("entries");
    assert!(entries.len() >= 15, "accepted, confirmed, decided, intent, five steps, judged, closed: {entries:#?}");
}

/// The rules as they would be for replicas scraped twice a second: `check` says that this Prometheus cannot feed them.
async fn slow_scrapes_are_refused(lab: &Lab) {
    let scaled = std::process::Command::new("bash")
        .args(["-c", "lab/scale 30 <prometheus-rules/fd-leak.yml >\"$1\"", "scale"])
        .arg(lab.dir().join("rules/fd-leak.yml"))
        .current_dir(root())
        .status();
    assert!(scaled.is_ok_and(|status| status.success()), "lab/scale");
    let reload = lab.http.post(lab.base("PROMETHEUS") + "/-/reload").send().await.expect("Prometheus answers");
    assert!(reload.status().is_success(), "{reload:?}");
    eventually("remediator check to refuse a Prometheus that scrapes too slowly", 20, async || {
        let (good, said) = lab.check();
        (!good && said.contains("scrape")).then_some(()).ok_or(said)
    })
    .await;
}
