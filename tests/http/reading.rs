//! What is read: the audit, its stream, the guards, the probes; and what is not there.

use std::time::Duration;

use remediator::reason::Outcome;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::tcp::OwnedReadHalf;

use remediator::api::desk::Bygone;

use crate::desk::id;
use crate::wire::{Running, With, ends, start};

const ONE: &str = r#"{"alerts":[{"labels":{"alertname":"FdLeakFast","instance":"inventory-2:8080"}}]}"#;

#[tokio::test]
async fn the_audit_is_read_page_by_page() {
    let running = start(With::default()).await;
    let page = running.get("/audit?outcome=recovered&limit=2").await;
    assert_eq!(page.status, 200, "{page:?}");
    assert_eq!(page.json(), json!({ "records": [{ "id": "3" }, { "id": "2" }], "next": "p2" }));
    let page = running.get("/audit?outcome=recovered&limit=2&cursor=p2").await;
    assert_eq!(page.json(), json!({ "records": [{ "id": "1" }], "next": null }));
    let asked = running.desk.asked.lock().expect("no panic").clone();
    assert!(asked.iter().all(|(filter, _, limit)| filter.outcome == Some(Outcome::Recovered) && *limit == 2), "{asked:?}");
    for (path, code) in [
        ("/audit?outcom=recovered", "bad_query"),
        ("/audit?cursor=forged", "bad_query"),
        ("/audit?limit=many", "bad_query"),
        ("/audit/not-an-id", "bad_id"),
    ] {
        let answer = running.get(path).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, code), "{path}");
    }
    let unknown = running.get("/audit?outcom=recovered").await;
    assert!(unknown.body.contains("`outcom`") && unknown.body.contains("groupKey"), "{unknown:?}");
}

#[tokio::test]
async fn the_audit_is_also_one_record_per_line() {
    let running = start(With::default()).await;
    let accept = "Accept: application/json;q=0.1, application/x-ndjson\r\n";
    let page = running.call("GET", "/audit?limit=2", accept, b"").await;
    assert!(page.head.contains("content-type: application/x-ndjson"), "{page:?}");
    assert_eq!(page.body, "{\"id\":\"3\"}\n{\"id\":\"2\"}\n");
    assert!(page.head.contains("link: </audit?limit=2&cursor=p2>; rel=\"next\""), "{page:?}");
    let page = running.call("GET", "/audit?limit=2&cursor=p2", accept, b"").await;
    assert!(page.body == "{\"id\":\"1\"}\n" && !page.head.contains("link:"), "{page:?}");
}

#[tokio::test]
async fn one_record_is_told_whole() {
    let running = start(With::default()).await;
    running.post("/remediate", ONE).await;
    let story = running.get(&format!("/audit/{}", id(1))).await;
    assert_eq!((story.status, &story.json()["record"]["id"]), (200, &json!(id(1).to_string())));
    let none = running.get(&format!("/audit/{}", id(99))).await;
    assert_eq!((none.status, none.problem().as_str()), (404, "not_found"));
    running.desk.set_broken(true);
    assert_eq!(running.get("/audit").await.status, 503);
    assert_eq!(running.get("/guards").await.status, 503);
}

/// An event stream that is being read.
struct Events {
    lines: Lines<BufReader<OwnedReadHalf>>,
    _write: tokio::net::tcp::OwnedWriteHalf,
}

impl Events {
    async fn open(running: &Running, path: &str, headers: &str) -> Events {
        let (read, mut write) = running.connect().await.into_split();
        let request = format!("GET {path} HTTP/1.1\r\nHost: t\r\n{headers}\r\n");
        write.write_all(request.as_bytes()).await.expect("the server reads");
        let mut events = Events { lines: BufReader::new(read).lines(), _write: write };
        // The comment that begins the stream: from here on, every commit is seen.
        assert!(events.until(": closed audit records").await.is_some(), "no stream");
        events
    }

    /// Reads up to a line that starts like this; none when the stream ends first.
    async fn until(&mut self, start: &str) -> Option<String> {
        loop {
            let line = ends("an event", self.lines.next_line()).await.ok().flatten()?;
            if let Some(rest) = line.strip_prefix(start) {
                return Some(rest.trim().to_owned());
            }
        }
    }
}

async fn closed_records(running: &Running, ids: std::ops::RangeInclusive<u128>) {
    for n in ids {
        running.post("/remediate", ONE).await;
        running.desk.close(id(n));
    }
}

#[tokio::test]
async fn a_stream_that_is_resumed_misses_none_and_doubles_none() {
    let running = start(With::default()).await;
    closed_records(&running, 1..=2).await;
    let mut fresh = Events::open(&running, "/audit/stream", "").await;
    closed_records(&running, 3..=3).await;
    let third = fresh.until("id:").await.expect("an event");
    assert_eq!(
        fresh.until("data:").await.map(|data| data.contains(&id(3).to_string())),
        Some(true),
        "only what closes from now on"
    );
    drop(fresh);
    closed_records(&running, 4..=5).await;
    let mut resumed = Events::open(&running, "/audit/stream?after=0", &format!("Last-Event-ID: {third}\r\n")).await;
    for n in 4..=5 {
        let data = resumed.until("data:").await.expect("an event");
        assert!(data.contains(&id(n).to_string()), "{n}: {data}");
    }
    closed_records(&running, 6..=6).await;
    assert!(resumed.until("data:").await.expect("an event").contains(&id(6).to_string()));
    let mut all = Events::open(&running, "/audit/stream?after=0", "").await;
    for n in 1..=6 {
        assert!(all.until("data:").await.expect("an event").contains(&id(n).to_string()), "{n}");
    }
    running.desk.set_broken(true);
    running.desk.head.send_modify(|seq| *seq += 1);
    assert_eq!(all.until("data:").await, None, "a stream that cannot go on ends");
    for (path, headers) in [("/audit/stream?after=x", ""), ("/audit/stream?x=1", ""), ("/audit/stream", "Last-Event-ID: é\r\n")]
    {
        assert_eq!(running.call("GET", path, headers, b"").await.status, 400, "{path} {headers}");
    }
}

#[tokio::test]
async fn streams_are_limited_and_end_when_the_program_stops() {
    let running = start(With::default()).await;
    let mut open = Vec::new();
    for _ in 0..32 {
        open.push(Events::open(&running, "/audit/stream", "").await);
    }
    let answer = running.get("/audit/stream").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "too_many_streams"));
    open.pop();
    running.closing.cancel();
    for events in &mut open {
        assert_eq!(events.until("data:").await, None);
    }
    assert_eq!(running.stop(Duration::from_secs(60)).await.cut, 0);
}

#[tokio::test]
async fn probes_say_what_is_true() {
    let running = start(With::default()).await;
    assert_eq!(running.get("/healthz").await.json(), json!({ "alive": true }));
    let ready = running.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &json!(true)));
    running.desk.set_broken(true);
    let ready = running.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["probes"][0]["detail"]), (503, &json!("disk full")));
    assert_eq!(running.get("/healthz").await.status, 200, "trouble outside must not get us restarted");
    running.desk.set_broken(false);
    let metrics = running.get("/metrics").await;
    assert!(metrics.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", metrics.head);
    for line in [
        "remediator_breaker_state{breaker=\"inventory-fd-leak/inventory\"} 1",
        "remediator_pauses 1",
        "remediator_http_requests_total{route=\"/readyz\",code=\"503\"} 1",
    ] {
        assert!(metrics.body.lines().any(|have| have == line), "{line} is not in\n{}", metrics.body);
    }
    assert!(metrics.body.contains(&format!("remediator_journal_head_info{{hash=\"{}\"}} 1", "ab".repeat(32))));
    assert_eq!(running.get("/guards").await.json(), json!(crate::board::board()));
}

#[tokio::test]
async fn what_is_not_there_is_said_to_be_so() {
    let running = start(With::default()).await;
    for path in ["/", "/remediate/", "/audit/1/2", "/../etc/passwd", "/.env"] {
        let answer = running.get(path).await;
        assert_eq!((answer.status, answer.problem().as_str()), (404, "not_found"), "{path}");
    }
    for (method, path, allow) in [("GET", "/remediate", "post"), ("DELETE", "/audit", "get,head"), ("PUT", "/pause", "post")] {
        let answer = running.call(method, path, "", b"").await;
        assert_eq!((answer.status, answer.problem().as_str()), (405, "method_not_allowed"), "{method} {path}");
        assert!(answer.head.contains(&format!("allow: {allow}")), "{answer:?}");
    }
    let metrics = running.metrics().await;
    assert!(
        metrics.contains("remediator_http_requests_total{route=\"none\",code=\"404\"} 5\n"),
        "no series per guess: {metrics}"
    );
}

#[tokio::test]
async fn what_was_pruned_is_said() {
    let running = start(With::default()).await;
    let before = "2026-11-22T00:00:00Z".parse().expect("a time");
    *running.desk.bygone.lock().expect("no panic") = Some(Bygone { through: 7, before });
    let page = running.get("/audit?limit=2").await;
    assert_eq!(page.json()["pruned"], json!({ "through": 7, "before": "2026-11-22T00:00:00Z" }));
    let lines = running.call("GET", "/audit?limit=2", "Accept: application/x-ndjson\r\n", b"").await;
    assert!(lines.head.contains("remediator-pruned-before: 2026-11-22t00:00:00z"), "{lines:?}");
    // The first 48 bits of an id are its time: one of before, and one of after.
    for (id, code, word) in [
        ("019aa8c0-0000-7000-8000-000000000001", "pruned", "after 2026-11-22T00:00:00Z"),
        ("01b00000-0000-7000-8000-000000000001", "not_found", "there is no audit record"),
        ("00000000-0000-0000-0000-000000000063", "not_found", "there is no audit record"),
    ] {
        let none = running.get(&format!("/audit/{id}")).await;
        assert_eq!((none.status, none.problem().as_str()), (404, code), "{id}");
        assert!(none.body.contains(word), "{none:?}");
    }
    // A reader that comes back too late is told once, and gets what is kept; one in time is not bothered.
    running.post("/remediate", ONE).await;
    running.desk.close(id(1));
    let mut late = Events::open(&running, "/audit/stream?after=0", "").await;
    assert_eq!(late.until("event:").await.as_deref(), Some("pruned"));
    assert_eq!(late.until("event:").await.as_deref(), Some("record"));
    let mut fresh = Events::open(&running, "/audit/stream?after=7", "").await;
    running.post("/remediate", ONE).await;
    running.desk.head.send_replace(8);
    running.desk.close(id(2));
    assert_eq!(fresh.until("event:").await.as_deref(), Some("record"));
}
