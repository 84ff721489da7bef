//! What is delivered is a hint: by a stranger, about a healthy replica, twice, again later, or while nobody can say.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::FLOOD;
use crate::lab::{Lab, eventually, replica};
use crate::remediator::{group, labels, text};

#[tokio::test]
async fn a_delivery_is_a_hint_and_never_a_command() {
    let lab = Lab::up("deliveries").await;
    let begun = Timestamp::now();
    let starts = lab.starts();
    no_credentials(&lab).await;
    forged(&lab).await;
    lab.assert_restarts(begun, [0, 0, 0]).await;

    am_duplicate(&lab).await;

    let blind = Timestamp::now();
    prometheus_stopped(&lab).await;
    lab.assert_restarts(blind, [0, 0, 0]).await;
    assert_eq!((&starts[1], &starts[2]), (&lab.starts()[1], &lab.starts()[2]), "only inventory-1 was ever touched");
    lab.assert_sound().await;
    lab.stop().await;
}

/// Anyone on the network could trigger a drain: 401 or 403, counted, and nothing else.
async fn no_credentials(lab: &Lab) {
    const COUNTED: &str = r#"remediator_unauthorized_calls_total{status="401"}"#;
    let delivery = group(&labels("FdLeakFast", 3), Timestamp::now(), "stranger");
    let before = lab.metric(COUNTED).await;
    for token in [None, Some("0123456789abcdef")] {
        let (status, problem) = lab.deliver("", token, &delivery).await;
        assert_eq!(status, 401, "{problem}");
    }
    let (status, problem) = lab.deliver("", Some(&lab.token("reader")), &delivery).await;
    assert_eq!(status, 403, "who may read may not deliver: {problem}");
    assert_eq!(lab.metric(COUNTED).await, before + 2.0);
    let records = lab.records(3, Timestamp::UNIX_EPOCH).await.expect("records");
    assert!(records.is_empty(), "nothing was taken in: {records:#?}");
}

/// A valid token and a well-made alert about a healthy replica: Prometheus is asked, and says no.
async fn forged(lab: &Lab) {
    let begun = Timestamp::now();
    lab.watch_customers().await;
    let forgery = group(&labels("FdLeakFast", 3), begun - SignedDuration::from_mins(10), "forger");
    let (status, answer) = lab.deliver("?wait=1m", Some(&lab.token("receiver")), &forgery).await;
    let record = &answer["results"][0]["record"];
    assert_eq!((status, text(&record["outcome"]).as_str()), (200, "condition_cleared"), "{answer:#}");
    assert_eq!(record["reason"], "condition_quiet", "{record:#}");
    assert_eq!(record["steps"], Value::Array(Vec::new()));
    assert!(record["intent"].is_null(), "{record:#}");
    assert_eq!(lab.balancer_logged(3, "enters drain state", begun), []);
    lab.assert_customers_served().await;
    lab.assert_no_calls().await;
}

/// Both peers deliver, 50 ms apart, each with its own `startsAt`, and Alertmanager itself as well; later one of the deliveries
/// is replayed. One record, one restart.
async fn am_duplicate(lab: &Lab) {
    let begun = Timestamp::now();
    lab.leak(1, FLOOD).await;
    let firing = lab.firing("FdExhausted", 1).await;
    let now = Timestamp::now();
    let (first, second) = (group(&firing, now, "peer-1"), group(&firing, now - SignedDuration::from_secs(14), "peer-2"));
    let token = lab.token("receiver");
    let later = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        lab.deliver("?wait=2m", Some(&token), &second).await
    };
    // Another rule about the same replica (the story `three_rules_one_replica`).
    let other_rule = group(&labels("FdLeakFast", 1), now, "peer-1");
    let third = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        lab.deliver("?wait=2m", Some(&token), &other_rule).await
    };
    let (one, two, three) = tokio::join!(lab.deliver("?wait=2m", Some(&token), &first), later, third);
    let id = one.1["results"][0]["receipt"]["id"].clone();
    assert!(id.is_string(), "{:#}", one.1);
    for (status, answer) in [&one, &two, &three] {
        let result = &answer["results"][0];
        assert_eq!(*status, 200, "{answer:#}");
        assert_eq!((&result["receipt"]["id"], &result["record"]["id"]), (&id, &id), "{answer:#}");
        assert_eq!(result["record"]["outcome"], "recovered", "{answer:#}");
    }
    let members = &three.1["results"][0]["record"]["members"];
    assert!(members.as_array().is_some_and(|m| m.iter().any(|m| m["labels"]["alertname"] == "FdLeakFast")), "{members:#}");
    lab.assert_restarts(begun, [1, 0, 0]).await;

    let (status, replay) = lab.deliver("?wait=1m", Some(&token), &first).await;
    let result = &replay["results"][0];
    assert_eq!((status, &result["receipt"]["id"], &result["receipt"]["state"]), (200, &id, &"folded".into()), "{replay:#}");
    assert_eq!(result["record"]["id"], id, "it was asked about again, and is no news: {replay:#}");
    let records = lab.records(1, begun).await.expect("records");
    assert_eq!(records.len(), 1, "{records:#?}");
    lab.assert_restarts(begun, [1, 0, 0]).await;
    lab.assert_no_calls().await;
}

/// Prometheus is gone, so nobody can say whether the alert is true: nothing is touched, a human is called; and when it is
/// back the question is asked again, without any delivery, and the page ends.
async fn prometheus_stopped(lab: &Lab) {
    let begun = Timestamp::now();
    let prometheus = lab.container("prometheus");
    lab.docker_ok(&["stop", "--time", "5", &prometheus]);
    let delivery = group(&labels("FdLeakFast", 2), begun, "peer-1");
    let (status, answer) = lab.deliver("?wait=1m", Some(&lab.token("receiver")), &delivery).await;
    let record = &answer["results"][0]["record"];
    assert_eq!((status, text(&record["outcome"]).as_str()), (200, "unknown_condition"), "{answer:#}");
    let reason = text(&record["reason"]);
    assert!(["prometheus_unreachable", "prometheus_timeout"].contains(&reason.as_str()), "{record:#}");
    assert_eq!(record["steps"], Value::Array(Vec::new()));

    let page = lab.called(2, &reason).await;
    assert_eq!(page["labels"]["outcome"], "unknown_condition");
    assert!(page["annotations"]["record"].as_str().is_some_and(|link| link.ends_with(&text(&record["id"]))), "{page:#}");
    assert_eq!(lab.balancer_logged(2, "enters drain state", begun), []);

    lab.docker_ok(&["start", &prometheus]);
    lab.outcome(2, begun, "condition_cleared", "condition_quiet").await;
    lab.resolved(&format!("instance={}", replica(2))).await;
    eventually("/readyz to say that Prometheus is back", 30, async || lab.get("REMEDIATOR", "/readyz").await).await;
}
