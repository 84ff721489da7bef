//! `POST /remediate`: deliveries as Alertmanager sends them, as curl sends them, and as nobody should.

use std::sync::atomic::Ordering;
use std::time::Duration;

use remediator::api;
use serde_json::json;

use crate::desk::id;
use crate::wire::{With, ends, start};

/// Alertmanager 0.34 with a group that fires and has one alert resolved; cut by `max_alerts`.
const DELIVERY: &str = r#"{"receiver":"remediator","status":"firing","notification_reason":"group_changed","alerts":[
  {"status":"firing","labels":{"alertname":"FdLeakFast","instance":"inventory-2:8080","service":"inventory"},"annotations":{"summary":"x"},
   "startsAt":"2026-03-01T02:00:05Z","endsAt":"0001-01-01T00:00:00Z","generatorURL":"http://p/graph","fingerprint":"ffffffffffffffff"},
  {"status":"resolved","labels":{"alertname":"FdLeakFast","instance":"inventory-1:8080","service":"inventory"},"annotations":{},
   "startsAt":"2026-03-01T01:00:05Z","endsAt":"2026-03-01T01:30:05Z","generatorURL":"","fingerprint":"eeeeeeeeeeeeeeee"}],
  "groupLabels":{"service":"inventory"},"commonLabels":{},"commonAnnotations":{},"routeLabels":{},"externalURL":"http://am:9093",
  "version":"4","groupKey":"{}:{service=\"inventory\"}","truncatedAlerts":2}"#;

const ONE: &str = r#"{"alerts":[{"labels":{"alertname":"FdLeakFast","instance":"inventory-2:8080"}}]}"#;

#[tokio::test]
async fn a_delivery_is_answered_with_one_receipt_per_alert() {
    let running = start(With::default()).await;
    let answer = running.post("/remediate", DELIVERY).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let results = answer.json()["results"].clone();
    assert_eq!(results.as_array().map(Vec::len), Some(2));
    assert_eq!(results[0]["id"], id(1).to_string());
    assert_eq!(results[0]["state"], "accepted");
    assert_eq!(results[0]["status"], "firing");
    assert_eq!(results[0]["target"], "inventory/inventory-2:8080");
    assert_ne!(results[0]["fingerprint"], "ffffffffffffffff", "the delivered fingerprint is not believed");
    assert_eq!((&results[1]["state"], &results[1]["id"]), (&json!("resolved"), &json!(null)));
    let group = running.desk.taken.lock().expect("no panic").pop().expect("it was taken in");
    assert_eq!((group.truncated, group.group_key.as_str()), (2, "{}:{service=\"inventory\"}"));
    let metrics = running.metrics().await;
    assert!(metrics.contains("remediator_alerts_received_total{status=\"firing\",result=\"accepted\"} 1\n"), "{metrics}");
    assert!(metrics.contains("remediator_http_requests_total{route=\"/remediate\",code=\"202\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn a_wait_is_answered_with_the_whole_record_when_it_has_an_outcome() {
    let running = start(With::default()).await;
    let close = async {
        let mut waiting = running.desk.waiting.subscribe();
        ends("the wait's begin", waiting.wait_for(|waiting| *waiting > 0)).await.expect("the desk lives");
        running.desk.close(id(1));
    };
    let (answer, ()) = tokio::join!(running.post("/remediate?wait=30m", DELIVERY), close);
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json()["results"].clone();
    assert_eq!(results[0]["receipt"]["id"], results[0]["record"]["id"]);
    assert_eq!(results[0]["record"]["outcome"], "recovered");
    assert_eq!(results[1]["record"], json!(null), "a resolved alert has nothing to wait for");
}

#[tokio::test]
async fn a_wait_is_answered_with_the_newest_record_of_the_episode() {
    let running = start(With::default()).await;
    let asked_again = async {
        let mut waiting = running.desk.waiting.subscribe();
        ends("the wait's begin", waiting.wait_for(|waiting| *waiting > 0)).await.expect("the desk lives");
        assert_eq!(running.post("/remediate", ONE).await.status, 202);
        running.desk.close(id(1));
        running.desk.close(id(2));
    };
    let (answer, ()) = tokio::join!(running.post("/remediate?wait=30m", ONE), asked_again);
    assert_eq!(answer.status, 200, "{answer:?}");
    let first = answer.json()["results"][0].clone();
    assert_eq!(first["receipt"]["id"], id(1).to_string());
    assert_eq!(first["record"]["id"], id(2).to_string());
}

#[tokio::test]
async fn a_wait_that_is_up_is_answered_with_the_record_so_far() {
    let running = start(With::default()).await;
    let answer = running.post("/remediate?wait=1ms", ONE).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let first = answer.json()["results"][0].clone();
    assert_eq!((&first["record"]["phase"], &first["record"]["outcome"]), (&json!("accepted"), &json!(null)));
    for wait in ["5", "soon", "", "-1s"] {
        let answer = running.post(&format!("/remediate?wait={wait}"), ONE).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_wait"), "{wait}");
    }
    assert_eq!(running.desk.taken.lock().expect("no panic").len(), 1, "a bad wait takes nothing in");
}

#[tokio::test]
async fn a_wait_outlasts_the_bound_of_other_requests() {
    let request = Duration::from_millis(50);
    let running = start(With { api: api::Limits { request, ..Default::default() }, ..With::default() }).await;
    let outlast = async {
        let mut waiting = running.desk.waiting.subscribe();
        ends("the wait's begin", waiting.wait_for(|waiting| *waiting > 0)).await.expect("the desk lives");
        running.desk.stuck.store(true, Ordering::SeqCst);
        // Began later and its time is up: so the bound has passed for the one that waits.
        assert_eq!(running.get("/audit").await.problem(), "timed_out");
        running.desk.close(id(1));
    };
    let (answer, ()) = tokio::join!(running.post("/remediate?wait=30m", ONE), outlast);
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_wait_ends_when_the_program_stops() {
    let running = start(With::default()).await;
    let stop = async {
        let mut waiting = running.desk.waiting.subscribe();
        ends("the wait's begin", waiting.wait_for(|waiting| *waiting > 0)).await.expect("the desk lives");
        running.closing.cancel();
    };
    let (answer, ()) = tokio::join!(running.post("/remediate?wait=30m", ONE), stop);
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json()["results"][0]["record"]["phase"], "accepted");
    assert_eq!(running.stop(Duration::from_secs(60)).await.cut, 0);
}

/// Story `disk_full`: 503, nothing done; the retry succeeds exactly once.
#[tokio::test]
async fn what_cannot_be_made_durable_is_a_503_and_may_be_sent_again() {
    let running = start(With::default()).await;
    running.desk.set_broken(true);
    let answer = running.post("/remediate", DELIVERY).await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "store_unavailable"));
    assert!(running.desk.taken.lock().expect("no panic").is_empty());
    running.desk.set_broken(false);
    assert_eq!(running.post("/remediate", DELIVERY).await.status, 202);
    assert_eq!(running.desk.taken.lock().expect("no panic").len(), 1);
    let metrics = running.metrics().await;
    assert!(metrics.contains("remediator_alerts_received_total{status=\"firing\",result=\"unavailable\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn what_is_not_a_delivery_is_a_400_that_says_where() {
    let running = start(With { api: api::Limits { alerts: 3, ..Default::default() }, ..With::default() }).await;
    let labels = (0..65).map(|n| format!("\"l{n}\":\"\"")).collect::<Vec<_>>().join(",");
    let deep = format!("{{\"alerts\":[],\"x\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    let long = format!(r#"{{"alerts":[{{"labels":{{"a":"{}"}}}}]}}"#, "x".repeat(1 << 20));
    let many = format!(r#"{{"alerts":[{}]}}"#, [r#"{"labels":{"a":"b"}}"#; 4].join(","));
    let cases: Vec<(&[u8], &str)> = vec![
        (b"", "payload_not_json"),
        (b"alerts=1", "payload_not_json"),
        (b"{\"alerts\":[]}\0", "payload_not_json"),
        (b"{\"alerts\":[{\"labels\":{\"a\":\"\0\"}}]}", "payload_not_json"),
        (b"{\"alerts\":\"\xff\xfe\"}", "payload_not_utf8"),
        (b"[]", "payload_wrong_kind"),
        (b"{}", "payload_missing"),
        (br#"{"alerts":[{"labels":{"a":1}}]}"#, "payload_wrong_kind"),
        (br#"{"alerts":[],"version":"5"}"#, "payload_version"),
        (br#"{"alerts":[{"labels":{"a":"1","a":"2"}}]}"#, "payload_twice"),
        (br#"{"alerts":[{"status":"odd","labels":{"a":"1"}}]}"#, "payload_status"),
        (deep.as_bytes(), "payload_too_deep"),
        (long.as_bytes(), "payload_too_long"),
        (many.as_bytes(), "payload_too_many_alerts"),
    ];
    let crowded = format!(r#"{{"alerts":[{{"labels":{{{labels}}}}}]}}"#);
    for (body, code) in cases.into_iter().chain([(crowded.as_bytes(), "payload_too_many_labels")]) {
        let answer = running.post("/remediate", body).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (400, code),
            "{}",
            String::from_utf8_lossy(&body[..body.len().min(80)])
        );
    }
    assert!(running.desk.taken.lock().expect("no panic").is_empty());
    assert_eq!(running.post("/remediate", br#"{"alerts":[{"labels":{"a":"\u0000\u001b[2J"}}]}"#).await.status, 202, "data");
}

#[tokio::test]
async fn only_a_body_above_the_cap_is_a_413() {
    let cap = api::Limits::default().body;
    let running = start(With::default()).await;
    let padded = |bytes: usize| format!("{ONE}{}", " ".repeat(bytes - ONE.len()));
    assert_eq!(running.post("/remediate", padded(cap)).await.status, 202, "exactly the cap");
    let answer = running.post("/remediate", padded(cap + 1)).await;
    assert_eq!((answer.status, answer.problem().as_str()), (413, "body_too_large"));
    let lied = "POST /remediate HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 99999999999\r\n\r\n";
    assert_eq!(running.raw(lied.as_bytes()).await.status, 413, "what is announced need not be read");
    let chunk = format!("{:x}\r\n{}\r\n", cap + 1, " ".repeat(cap + 1));
    let head = "POST /remediate HTTP/1.1\r\nHost: t\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(running.raw(format!("{head}{chunk}0\r\n\r\n").as_bytes()).await.status, 413, "nor announced at all");
}

#[tokio::test]
async fn a_desk_that_hangs_is_a_503_not_a_hang() {
    let request = Duration::from_millis(50);
    let running = start(With { api: api::Limits { request, ..Default::default() }, ..With::default() }).await;
    running.desk.stuck.store(true, Ordering::SeqCst);
    let answer = running.post("/remediate", ONE).await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "timed_out"));
    let half = "POST /remediate HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n{\"alerts\"";
    assert_eq!(running.raw(half.as_bytes()).await.status, 503, "a body that never ends");
    running.no_descriptors_left().await;
}
