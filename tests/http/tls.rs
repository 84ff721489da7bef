//! TLS and mTLS: who gets through, who does not and how soon, and certificates that are exchanged in place.

use std::sync::Arc;
use std::time::Duration;

use remediator::edge::serve;
use remediator::edge::tls::Tls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::certificates::{Authority, client};
use crate::wire::{READER, Running, With, ends, start};

fn over(tls: &Arc<Tls>) -> With {
    With { tls: Some(Arc::clone(tls)), ..With::default() }
}

fn url(running: &Running, path: &str) -> String {
    format!("https://127.0.0.1:{}{path}", running.addr.port())
}

async fn status(running: &Running, client: &reqwest::Client, path: &str) -> Result<u16, reqwest::Error> {
    let answer = ends("an answer", client.get(url(running, path)).send()).await;
    answer.map(|answer| answer.status().as_u16())
}

async fn closed_by_server(stream: &mut TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    let _ = ends("a connection", stream.read_to_end(&mut got)).await;
    got
}

async fn rejected(running: &Running, trusted: &reqwest::Client, reason: &str) -> u64 {
    let metrics = trusted.get(url(running, "/metrics")).send().await.expect("an answer").text().await.expect("a body");
    let wanted = format!("remediator_connections_rejected_total{{reason=\"{reason}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&wanted)).and_then(|count| count.parse().ok()).expect("the series")
}

#[tokio::test]
async fn over_tls_the_face_is_the_same_and_tokens_still_count() {
    let authority = Authority::new();
    let tls = Arc::new(Tls::new(authority.issue("127.0.0.1").identity(None)));
    let running = start(With { guarded: true, ..over(&tls) }).await;
    let client = client(&authority, None);
    assert_eq!(status(&running, &client, "/healthz").await.expect("served"), 200);
    assert_eq!(status(&running, &client, "/guards").await.expect("served"), 401);
    let with_token = client.get(url(&running, "/guards")).bearer_auth(READER).send().await.expect("served");
    assert_eq!(with_token.status(), 200);
    let by_basic_auth = client.get(url(&running, "/guards")).basic_auth("reader", Some(READER)).send().await.expect("served");
    assert_eq!(by_basic_auth.status(), 200);
    // Whoever expects somebody else is told apart by his own check.
    assert!(status(&running, &crate::certificates::client(&Authority::new(), None), "/healthz").await.is_err());
}

#[tokio::test]
async fn a_large_answer_and_a_large_body_pass_whole() {
    let authority = Authority::new();
    let tls = Arc::new(Tls::new(authority.issue("127.0.0.1").identity(None)));
    let running = start(over(&tls)).await;
    *running.desk.long_story.lock().expect("no panic") = 8 << 20;
    let client = client(&authority, None);
    let path = format!("/audit/{}", crate::desk::id(0));
    let story = client.get(url(&running, &path)).send().await.expect("served").bytes().await.expect("whole");
    assert!(story.len() > 8 << 20);
    let padding = "x".repeat(4 << 20);
    let body = format!(
        "{{\"version\":\"4\",\"pad\":\"{padding}\",\"alerts\":[{{\"status\":\"firing\",\"labels\":{{\"alertname\":\"A\"}}}}]}}"
    );
    let answer = client.post(url(&running, "/remediate")).body(body).send().await.expect("served");
    assert_eq!(answer.status(), 202);
}

#[tokio::test]
async fn with_a_client_ca_nobody_gets_in_without_its_certificate() {
    let (ours, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let tls = Arc::new(Tls::new(ours.issue("127.0.0.1").identity(Some(&clients))));
    let running = start(With { guarded: true, ..over(&tls) }).await;
    let alertmanager = clients.issue("alertmanager");
    let trusted = client(&ours, Some(&alertmanager));
    assert_eq!(status(&running, &trusted, "/healthz").await.expect("served"), 200);
    assert_eq!(status(&running, &trusted, "/guards").await.expect("served"), 401, "a certificate is no token");
    assert!(status(&running, &client(&ours, None), "/healthz").await.is_err(), "no certificate");
    let stranger = strangers.issue("alertmanager");
    assert!(status(&running, &client(&ours, Some(&stranger)), "/healthz").await.is_err(), "somebody else's certificate");
    assert_eq!(rejected(&running, &trusted, "handshake_failed").await, 2);
}

#[tokio::test]
async fn silent_half_sent_and_plain_peers_of_a_tls_port_are_closed() {
    let authority = Authority::new();
    let tls = Arc::new(Tls::new(authority.issue("127.0.0.1").identity(None)));
    let short = Duration::from_millis(300);
    let running = start(With { serve: serve::Limits { head: short, ..Default::default() }, ..over(&tls) }).await;
    let sends: [&[u8]; 4] =
        [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n", b"\x00\xff\x00\xff"];
    let mut peers = Vec::new();
    for sent in sends {
        let mut peer = running.connect().await;
        let _ = peer.write_all(sent).await;
        peers.push(peer);
    }
    // None of them is in the way of the others, nor of who speaks properly.
    let trusted = client(&authority, None);
    let served = async { while !status(&running, &trusted, "/healthz").await.is_ok_and(|status| status == 200) {} };
    ends("an answer", served).await;
    for peer in &mut peers {
        let got = closed_by_server(peer).await;
        assert!(!got.starts_with(b"HTTP/"), "{:?}", String::from_utf8_lossy(&got));
    }
    assert!(rejected(&running, &trusted, "handshake_failed").await >= 4);
    running.no_descriptors_left().await;
}

#[tokio::test]
async fn a_new_certificate_is_served_and_the_old_client_ca_no_longer_counts() {
    let (old, new) = (Authority::new(), Authority::new());
    let tls = Arc::new(Tls::new(old.issue("127.0.0.1").identity(Some(&old))));
    let running = start(over(&tls)).await;
    let old_friend = client(&old, Some(&old.issue("a")));
    assert_eq!(status(&running, &old_friend, "/healthz").await.expect("served"), 200);
    tls.replace(new.issue("127.0.0.1").identity(Some(&new)));
    assert!(status(&running, &old_friend, "/healthz").await.is_err(), "the old certificate is not served any more");
    let of_the_old_ca = client(&new, Some(&old.issue("a")));
    assert!(status(&running, &of_the_old_ca, "/healthz").await.is_err(), "the old CA's clients are not taken any more");
    let new_friend = client(&new, Some(&new.issue("a")));
    assert_eq!(status(&running, &new_friend, "/healthz").await.expect("served"), 200);
}

#[tokio::test]
async fn stopping_does_not_wait_for_a_handshake() {
    let authority = Authority::new();
    let tls = Arc::new(Tls::new(authority.issue("127.0.0.1").identity(None)));
    let running = start(over(&tls)).await;
    let mut silent = running.connect().await;
    assert_eq!(status(&running, &client(&authority, None), "/healthz").await.expect("served"), 200);
    let stopped = running.stop(Duration::from_secs(60)).await;
    assert_eq!(stopped.cut, 0, "the handshake ended by itself");
    assert_eq!(closed_by_server(&mut silent).await, b"");
}
