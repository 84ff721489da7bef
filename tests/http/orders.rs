//! Who may do what, and what an operator may order.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::wire::{OPERATOR, READER, RECEIVER, With, start};

/// Every route: method, path, and which of receiver, reader and operator may call it.
const ROUTES: [(&str, &str, [bool; 3]); 9] = [
    ("POST", "/remediate", [true, false, false]),
    ("GET", "/audit", [false, true, true]),
    ("GET", "/audit/018f0000-0000-7000-8000-000000000001", [false, true, true]),
    ("GET", "/audit/stream?after=x", [false, true, true]),
    ("GET", "/guards", [false, true, true]),
    ("POST", "/pause", [false, false, true]),
    ("POST", "/resume", [false, false, true]),
    ("POST", "/breaker/reset", [false, false, true]),
    ("POST", "/abort", [false, false, true]),
];

/// Story `no_credentials`: 401, counted, alertable.
#[tokio::test]
async fn every_route_demands_its_role() {
    let running = start(With { guarded: true, ..With::default() }).await;
    let (mut unknown, mut wrong) = (0, 0);
    for (method, path, allowed) in ROUTES {
        for header in ["", "Authorization: Bearer guess\r\n", "Authorization: Basic YTpi\r\n"] {
            let answer = running.call(method, path, header, b"{}").await;
            assert_eq!(answer.status, 401, "{method} {path} {header}");
            let offers = ["www-authenticate: bearer", "www-authenticate: basic"];
            assert!(offers.iter().all(|offer| answer.head.contains(offer)), "{answer:?}");
            assert!(["token_missing", "token_unknown"].contains(&answer.problem().as_str()));
            unknown += 1;
        }
        let tokens = [("receiver", RECEIVER), ("reader", READER), ("operator", OPERATOR)];
        for ((user, token), allowed) in tokens.into_iter().zip(allowed) {
            // The same token, presented in either way.
            for header in [format!("Bearer {token}"), format!("Basic {}", STANDARD.encode(format!("{user}:{token}")))] {
                let answer = running.call(method, path, &format!("Authorization: {header}\r\n"), b"{}").await;
                if allowed {
                    assert!(![401, 403].contains(&answer.status), "{method} {path} {user}: {answer:?}");
                } else {
                    assert_eq!((answer.status, answer.problem().as_str()), (403, "role_missing"), "{method} {path} {user}");
                    wrong += 1;
                }
            }
        }
    }
    for path in ["/metrics", "/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(running.get(path).await.status, 200, "{path} needs no token");
    }
    let metrics = running.metrics().await;
    assert!(metrics.contains(&format!("remediator_unauthorized_calls_total{{status=\"401\"}} {unknown}\n")), "{metrics}");
    assert!(metrics.contains(&format!("remediator_unauthorized_calls_total{{status=\"403\"}} {wrong}\n")), "{metrics}");
    assert!(running.desk.taken.lock().expect("no panic").is_empty() && running.desk.orders.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn who_is_turned_away_need_not_send_the_body() {
    let running = start(With { guarded: true, ..With::default() }).await;
    let head = "POST /remediate HTTP/1.1\r\nHost: t\r\nContent-Length: 8000000\r\n\r\n";
    assert_eq!(running.raw(head.as_bytes()).await.status, 401);
}

#[tokio::test]
async fn without_any_token_every_route_is_open() {
    let running = start(With::default()).await;
    for (method, path, _) in ROUTES {
        let answer = running.call(method, path, "", b"{}").await;
        assert!(![401, 403].contains(&answer.status), "{method} {path}: {answer:?}");
    }
}

#[tokio::test]
async fn orders_reach_the_desk_as_they_were_given() {
    let running = start(With::default()).await;
    let answer = running.post("/pause", br#"{"reason":"deploy","for":"1h30m","actor":"ada"}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let paused = answer.json()["paused"].clone();
    assert_eq!((paused["scope"]["scope"].as_str(), paused["until"].as_str()), (Some("all"), Some("1970-01-01T01:30:00Z")));
    for (path, body) in [
        ("/pause", r#"{"playbook":"inventory-fd-leak","reason":"r"}"#),
        ("/pause", r#"{"scope":"target","target":"inventory/inventory-2:8080","reason":"r"}"#),
        ("/resume", r#"{"reason":"done"}"#),
        ("/breaker/reset", r#"{"breaker":"inventory-fd-leak/inventory","reason":"fixed","actor":"ada"}"#),
    ] {
        assert_eq!(running.post(path, body).await.status, 200, "{path} {body}");
    }
    let orders = running.desk.orders.lock().expect("no panic").clone();
    assert_eq!(
        orders,
        [
            "pause everything by ada for Some(Period(5400s)): deploy",
            "pause playbook inventory-fd-leak by api for None: r",
            "pause target inventory/inventory-2:8080 by api for None: r",
            "resume everything by api: done",
            "reset inventory-fd-leak/inventory by ada: fixed",
        ]
    );
}

#[tokio::test]
async fn an_order_that_is_not_clear_is_not_taken() {
    let running = start(With::default()).await;
    let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(1_001));
    for (path, body, status) in [
        ("/pause", "{}", 400),
        ("/pause", r#"{"reason":"  "}"#, 400),
        ("/pause", r#"{"reason":"a\nb"}"#, 400),
        ("/pause", &long, 400),
        ("/pause", r#"{"reason":"r","until":"tomorrow"}"#, 400),
        ("/pause", r#"{"reason":"r","for":"soon"}"#, 400),
        ("/pause", r#"{"reason":"r","for":"0"}"#, 400),
        ("/pause", r#"{"reason":"r","scope":"playbook"}"#, 400),
        ("/pause", r#"{"reason":"r","scope":"all","playbook":"p"}"#, 400),
        ("/pause", r#"{"reason":"r","playbook":"p","target":"a/b"}"#, 400),
        ("/pause", r#"{"reason":"r","target":"inventory"}"#, 400),
        ("/pause", r#"{"reason":"r","target":"../x/b"}"#, 400),
        ("/pause", r#"{"reason":"r","playbook":"nobody"}"#, 404),
        ("/pause", "not json", 400),
        ("/resume", "{}", 400),
        ("/breaker/reset", r#"{"reason":"r"}"#, 400),
        ("/breaker/reset", r#"{"reason":"r","breaker":"x/y"}"#, 404),
    ] {
        let answer = running.post(path, body).await;
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
        answer.problem();
    }
    assert_eq!(running.post("/pause", " ".repeat(64 * 1024 + 1)).await.status, 413);
    running.desk.set_broken(true);
    assert_eq!(running.post("/pause", br#"{"reason":"r"}"#).await.status, 503);
    assert!(running.desk.orders.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn an_abort_names_an_open_record() {
    let running = start(With::default()).await;
    running.post("/remediate", br#"{"alerts":[{"labels":{"alertname":"FdLeakFast","instance":"inventory-2:8080"}}]}"#).await;
    let id = crate::desk::id(1);
    let order = format!(r#"{{"id":"{id}","reason":"wrong replica","actor":"ada"}}"#);
    let answer = running.post("/abort", &order).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let aborted = answer.json()["aborted"].clone();
    assert_eq!((aborted["id"].as_str(), aborted["state"].as_str()), (Some(id.to_string().as_str()), Some("ordered")));
    assert_eq!(*running.desk.orders.lock().expect("no panic"), [format!("abort {id} by ada: wrong replica")]);
    running.desk.close(id);
    let answer = running.post("/abort", &order).await;
    assert_eq!((answer.status, answer.problem().as_str()), (409, "too_late"));
    let other = order.replace(&id.to_string(), &crate::desk::id(2).to_string());
    for (body, status, code) in [
        (other.as_str(), 404, "not_found"),
        (r#"{"id":"inventory-2","reason":"r"}"#, 400, "bad_order"),
        (r#"{"reason":"r"}"#, 400, "bad_order"),
        (&format!(r#"{{"id":"{id}"}}"#), 400, "bad_order"),
    ] {
        let answer = running.post("/abort", body).await;
        assert_eq!((answer.status, answer.problem().as_str()), (status, code), "{body}");
    }
    assert_eq!(running.desk.orders.lock().expect("no panic").len(), 1, "nothing else was ordered");
}

#[tokio::test]
async fn another_sites_page_gives_no_orders() {
    let running = start(With::default()).await;
    let order = br#"{"reason":"r"}"#;
    for origin in ["https://evil.example", "null", "http://test.evil.example"] {
        let answer = running.call("POST", "/pause", &format!("Origin: {origin}\r\n"), order).await;
        assert_eq!((answer.status, answer.problem().as_str()), (403, "cross_origin"), "{origin}");
    }
    assert_eq!(running.call("POST", "/pause", "Origin: http://test\r\n", order).await.status, 200, "our own page");
}
