//! A running server and the plainest of clients: bytes out, bytes in.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use remediator::api::{self, Face};
use remediator::detect::caller::Gate;
use remediator::edge::serve::{self, Server, Stopped};
use remediator::edge::tls::Tls;
use remediator::metrics::Telemetry;
use secrecy::SecretString;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::desk::Fake;

/// A hang becomes a failure after this long. Nothing is asserted about time.
const HANG: Duration = Duration::from_secs(120);

pub const RECEIVER: &str = "token-of-the-receiver";
pub const READER: &str = "token-of-the-reader";
pub const OPERATOR: &str = "token-of-the-operator";

pub struct Running {
    pub addr: SocketAddr,
    pub desk: Arc<Fake>,
    pub closing: CancellationToken,
    server: Server,
}

#[derive(Default)]
pub struct With {
    pub api: api::Limits,
    pub serve: serve::Limits,
    pub guarded: bool,
    pub tls: Option<Arc<Tls>>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

pub async fn start(with: With) -> Running {
    let secret = |token: &str| [SecretString::from(token)];
    let gate = match with.guarded {
        true => Gate::new(&secret(RECEIVER), &secret(READER), &secret(OPERATOR)).expect("good tokens"),
        false => Gate::open(),
    };
    let desk = Arc::new(Fake::default());
    let telemetry = Arc::new(Telemetry::new("test"));
    let closing = CancellationToken::new();
    let face = Face::new(desk.clone(), Arc::new(gate), telemetry.clone(), closing.clone(), with.api);
    let bound = serve::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
    let addr = bound.addr();
    let server = bound.over(with.tls).serve(face.router(), with.serve, telemetry, closing.clone());
    Running { addr, desk, closing, server }
}

/// Fails the test when `what` never ends.
pub async fn ends<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(HANG, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not end"),
    }
}

impl Running {
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.expect("the server listens")
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "", b"").await
    }

    pub async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.call("POST", path, "", body.as_ref()).await
    }

    /// `headers`: whole lines, each ending in CRLF.
    pub async fn call(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n");
        self.raw(&[head.as_bytes(), body].concat()).await
    }

    /// Sends bytes and reads until the server closes.
    pub async fn raw(&self, request: &[u8]) -> Answer {
        let (mut read, mut write) = self.connect().await.into_split();
        let mut got = Vec::new();
        let exchange = async {
            // The server may answer and close before it has read everything.
            let sent = write.write_all(request);
            let (_, _) = tokio::join!(sent, read.read_to_end(&mut got));
        };
        ends("an exchange", exchange).await;
        Answer::parse(&got)
    }

    /// Until it answers: one that is impatient may give up on a test that is starved for a moment.
    pub async fn serves(&self) {
        let served = async { while self.get("/healthz").await.status != 200 {} };
        ends("waiting for an answer", served).await;
    }

    pub async fn metrics(&self) -> String {
        self.get("/metrics").await.body
    }

    pub async fn stop(self, within: Duration) -> Stopped {
        ends("stopping", self.server.stop(within)).await
    }

    /// Sockets of this process that the server accepted and that are still open.
    pub fn descriptors(&self) -> usize {
        sockets(self.addr.port())
    }

    pub async fn no_descriptors_left(&self) {
        let gone = async {
            while self.descriptors() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        ends("the last accepted connection", gone).await;
    }
}

impl Answer {
    pub fn parse(bytes: &[u8]) -> Answer {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of a problem document that is one in every respect.
    pub fn problem(&self) -> String {
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        let document = self.json();
        assert_eq!(document["status"], self.status);
        assert!(document["title"].is_string() && !document["detail"].as_str().unwrap_or_default().is_empty(), "{document}");
        let code = document["code"].as_str().expect("a code").to_owned();
        assert_eq!(document["type"], format!("urn:remediator:problem:{code}"));
        code
    }
}

/// Accepted sockets of this process on a local port: its entries in /proc/net/tcp (the listening one left out) whose
/// inode one of our descriptors points to. Other tests' sockets do not count, nor do the clients' ends.
fn sockets(port: u16) -> usize {
    const LISTEN: &str = "0A";
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("/proc/self/net/tcp");
    let ours = |line: &&str| {
        let mut columns = line.split_whitespace().skip(1);
        let local = columns.next().unwrap_or_default();
        local.ends_with(&format!(":{port:04X}")) && columns.nth(1) != Some(LISTEN)
    };
    let inodes: Vec<String> = table
        .lines()
        .filter(ours)
        .filter_map(|line| line.split_whitespace().nth(9))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let held = |entry: std::io::Result<std::fs::DirEntry>| entry.ok().and_then(|entry| std::fs::read_link(entry.path()).ok());
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("/proc/self/fd").filter_map(held);
    descriptors.filter(|link| inodes.iter().any(|inode| link == Path::new(inode))).count()
}
