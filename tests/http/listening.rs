//! The listening side against peers that are silent, slow, greedy or gone.

use std::sync::atomic::Ordering;
use std::time::Duration;

use remediator::edge::serve;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::wire::{Running, With, ends, start};

fn impatient() -> With {
    let short = Duration::from_millis(300);
    With {
        serve: serve::Limits { head: short, stall: short, ..Default::default() },
        api: remediator::api::Limits { request: short, ..Default::default() },
        ..With::default()
    }
}

/// Reads until the server is done with this connection, however it ends.
async fn closed_by_server(stream: &mut TcpStream) -> String {
    let mut got = Vec::new();
    let _ = ends("a connection", stream.read_to_end(&mut got)).await;
    String::from_utf8_lossy(&got).into_owned()
}

#[tokio::test]
async fn silent_half_sent_and_idle_connections_are_closed() {
    let running = start(impatient()).await;
    let mut silent = running.connect().await;
    let mut half = running.connect().await;
    let _ = half.write_all(b"POST /remediate HTTP/1.1\r\nHost: t\r\nX-Slow: ").await;
    assert_eq!(closed_by_server(&mut silent).await, "");
    let half = closed_by_server(&mut half).await;
    assert!(half.is_empty() || half.starts_with("HTTP/1.1 408"), "{half}");
    loop {
        let mut idle = running.connect().await;
        let _ = idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n").await;
        // Answered, then closed though it was kept alive.
        if closed_by_server(&mut idle).await.starts_with("HTTP/1.1 200") {
            break;
        }
    }
    running.no_descriptors_left().await;
    running.serves().await;
}

#[tokio::test]
async fn a_head_that_drips_in_is_not_waited_for() {
    let running = start(impatient()).await;
    let (mut read, mut write) = running.connect().await.into_split();
    let drip = async {
        write.write_all(b"GET /healthz HTTP/1.1\r\nX-Drip: ").await?;
        loop {
            write.write_all(b"x").await?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        #[allow(unreachable_code)]
        Ok::<(), std::io::Error>(())
    };
    let mut got = Vec::new();
    let cut = async {
        tokio::select! {
            _ = drip => {}
            _ = read.read_to_end(&mut got) => {}
        }
    };
    ends("a dripping head", cut).await;
    running.no_descriptors_left().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let running = start(With::default()).await;
    let long = format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(256 * 1024));
    assert!([431, 400, 0].contains(&running.raw(long.as_bytes()).await.status));
    let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1_000));
    assert!([431, 400, 0].contains(&running.raw(many.as_bytes()).await.status));
    running.no_descriptors_left().await;
    assert_eq!(running.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn above_the_limit_a_connection_is_closed_at_once_and_counted() {
    let mut with = With::default();
    with.serve.connections = 2;
    let running = start(with).await;
    let held = [kept(&running).await, kept(&running).await];
    assert_eq!(closed_by_server(&mut running.connect().await).await, "");
    let [one, _two] = held;
    drop(one);
    let metrics = ends("a free place", async {
        loop {
            let metrics = running.metrics().await;
            if !metrics.is_empty() {
                return metrics;
            }
        }
    })
    .await;
    let line = metrics.lines().find(|line| line.starts_with("remediator_connections_rejected_total{reason=\"full\"}"));
    let count: u64 = line.and_then(|line| line.rsplit(' ').next()).and_then(|n| n.parse().ok()).expect("a count");
    assert!(count >= 1, "{metrics}");
}

/// A connection that is accepted for sure, because it was answered, and kept open.
async fn kept(running: &Running) -> TcpStream {
    let mut stream = running.connect().await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n").await.expect("the server reads");
    let mut first = [0; 12];
    ends("an answer", stream.read_exact(&mut first)).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    stream
}

async fn from(running: &Running, address: &str) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{address}:0").parse().expect("an address")).expect("all of 127/8 is ours");
    socket.connect(running.addr).await.expect("the server listens")
}

#[tokio::test]
async fn one_host_cannot_take_every_place() {
    let mut with = With::default();
    with.serve.per_peer = 3;
    let running = start(with).await;
    let held = [kept(&running).await, kept(&running).await, kept(&running).await];
    assert_eq!(closed_by_server(&mut running.connect().await).await, "", "a fourth of the same host");
    // Another host is not concerned, and sees it counted under a reason of its own.
    let mut other = from(&running, "127.0.0.2").await;
    other.write_all(b"GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await.expect("the server reads");
    let metrics = closed_by_server(&mut other).await;
    assert!(metrics.contains("remediator_connections_rejected_total{reason=\"peer_full\"} 1\n"), "{metrics}");
    assert!(metrics.contains("remediator_connections_rejected_total{reason=\"full\"} 0\n"), "{metrics}");
    // Each place is given back when its connection ends.
    drop(held);
    running.no_descriptors_left().await;
    for _ in 0..20 {
        running.serves().await;
    }
}

#[tokio::test]
async fn a_peer_that_stops_reading_is_cut_off() {
    let mut with = With::default();
    with.serve.stall = Duration::from_millis(300);
    let running = start(with).await;
    // More than both ends' socket buffers hold.
    *running.desk.long_story.lock().expect("no panic") = 64 << 20;
    let mut greedy = running.connect().await;
    let request = format!("GET /audit/{} HTTP/1.1\r\nHost: t\r\n\r\n", crate::desk::id(0));
    greedy.write_all(request.as_bytes()).await.expect("the server reads");
    let mut first = [0; 12];
    ends("the answer's begin", greedy.read_exact(&mut first)).await.expect("an answer");
    running.no_descriptors_left().await;
    drop(greedy);
}

async fn stuck_request(running: &Running) -> TcpStream {
    running.desk.stuck.store(true, Ordering::SeqCst);
    let mut stream = running.connect().await;
    stream.write_all(b"GET /audit HTTP/1.1\r\nHost: t\r\n\r\n").await.expect("the server reads");
    let mut waiting = running.desk.waiting.subscribe();
    ends("the request's arrival", waiting.wait_for(|waiting| *waiting > 0)).await.expect("the desk lives");
    stream
}

#[tokio::test]
async fn stopping_lets_what_is_in_flight_finish_and_cuts_what_does_not() {
    let running = start(With::default()).await;
    let addr = running.addr;
    let mut stuck = stuck_request(&running).await;
    let idle = running.connect().await;
    assert_eq!(running.get("/healthz").await.status, 200);
    let stopped = running.stop(Duration::from_millis(100)).await;
    assert_eq!(stopped.cut, 1, "the idle one ended by itself, the stuck one did not");
    assert_eq!(closed_by_server(&mut stuck).await, "");
    drop(idle);
    assert!(TcpStream::connect(addr).await.is_err(), "nobody listens any more");
}
