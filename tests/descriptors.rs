//! A program that restarts others because they leak descriptors must not leak any itself.
//!
//! Thousands of bad connections, in batches of a hundred, on a plain port, a TLS port and one that is full; then this
//! process has exactly the descriptors that it had before. A binary of its own, with this one test, so that nobody else's
//! descriptors are in the count.

#[allow(dead_code, reason = "shared with the HTTP tests, which use all of it")]
#[path = "http/board.rs"]
mod board;
#[allow(dead_code, reason = "shared with the HTTP tests, which use all of it")]
#[path = "http/certificates.rs"]
mod certificates;
#[allow(dead_code, reason = "shared with the HTTP tests, which use all of it")]
#[path = "http/desk.rs"]
mod desk;
#[allow(dead_code, reason = "shared with the HTTP tests, which use all of it")]
#[path = "http/wire.rs"]
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use remediator::edge::serve;
use remediator::edge::tls::Tls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::certificates::Authority;
use crate::wire::{Running, With, ends, start};

const BATCHES: usize = 32;
const IN_A_BATCH: usize = 100;
/// More than the socket buffers of both ends hold.
const LONG: usize = 24 << 20;

const HALF_HEAD: &[u8] = b"POST /remediate HTTP/1.1\r\nHost: t\r\nX-Slow: ";
const HALF_BODY: &[u8] = b"POST /remediate HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n{";
const BAD_CHUNKS: &[u8] = b"POST /remediate HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
const WHOLE: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n";
const TLS_GARBAGE: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 this is no hello";

/// What a bad peer does. It then holds its end open, unless it is gone.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bad {
    Sends(&'static [u8]),
    /// Sends, and resets the connection at once.
    Resets(&'static [u8]),
    /// Asks for something long and reads nothing of it.
    SlowReader,
    /// The same once TLS is agreed on.
    OverTls(&'static [u8]),
    TlsSlowReader,
}

struct Servers {
    plain: Running,
    tls: Running,
    full: Running,
    connector: TlsConnector,
}

/// The client's end, held open.
enum End {
    #[allow(dead_code, reason = "held open, never used again")]
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

fn impatient(tls: Option<Arc<Tls>>, most: usize) -> With {
    let short = Duration::from_millis(250);
    With {
        serve: serve::Limits { head: short, stall: short, connections: most, per_peer: most },
        api: remediator::api::Limits { request: short, ..Default::default() },
        guarded: false,
        tls,
    }
}

impl Servers {
    async fn start() -> Servers {
        let authority = Authority::new();
        let tls = Arc::new(Tls::new(authority.issue("127.0.0.1").identity(None)));
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("PEM")).expect("a CA");
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let servers = Servers {
            plain: start(impatient(None, 512)).await,
            tls: start(impatient(Some(tls), 512)).await,
            full: start(impatient(None, 4)).await,
            connector: TlsConnector::from(Arc::new(config)),
        };
        for running in [&servers.plain, &servers.tls] {
            *running.desk.long_story.lock().expect("no panic") = LONG;
        }
        servers
    }

    async fn over_tls(&self, sent: &[u8]) -> Option<End> {
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let stream = self.tls.connect().await;
        // On a machine that starves it the handshake may be cut off; that is a bad connection, too.
        let mut stream = self.connector.connect(name, stream).await.ok()?;
        let _ = stream.write_all(sent).await;
        let _ = stream.flush().await;
        Some(End::Tls(Box::new(stream)))
    }

    async fn suffer(&self, running: &Running, bad: Bad) -> Option<End> {
        match bad {
            Bad::OverTls(sent) => return self.over_tls(sent).await,
            Bad::TlsSlowReader => return self.over_tls(&long_story()).await,
            Bad::Sends(_) | Bad::Resets(_) | Bad::SlowReader => {}
        }
        let mut stream = running.connect().await;
        match bad {
            Bad::Sends(sent) => stream.write_all(sent).await.ok()?,
            Bad::SlowReader => stream.write_all(&long_story()).await.ok()?,
            Bad::Resets(sent) => {
                let _ = stream.write_all(sent).await;
                stream.set_zero_linger().expect("an open socket");
                return None;
            }
            Bad::OverTls(_) | Bad::TlsSlowReader => return None,
        }
        Some(End::Plain(stream))
    }

    async fn idle(&self) {
        for running in [&self.plain, &self.tls, &self.full] {
            running.no_descriptors_left().await;
        }
    }

    /// How many of the TLS server's handshakes failed, and that nobody was turned away for want of a place.
    async fn told(&self) -> u64 {
        let rejected = |metrics: &str, reason: &str| -> u64 {
            let wanted = format!("remediator_connections_rejected_total{{reason=\"{reason}\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&wanted)?.parse().ok()).unwrap_or_else(|| panic!("{metrics}"))
        };
        let plain = metrics(&self.plain).await;
        assert_eq!((rejected(&plain, "full"), rejected(&plain, "peer_full")), (0, 0), "every connection was served");
        let tls = ends("the TLS server's metrics", async {
            loop {
                let Some(End::Tls(mut stream)) =
                    self.over_tls(b"GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await
                else {
                    continue;
                };
                let mut text = String::new();
                if stream.read_to_string(&mut text).await.is_ok() && text.starts_with("HTTP/1.1 200") {
                    return text;
                }
            }
        })
        .await;
        assert_eq!((rejected(&tls, "full"), rejected(&tls, "peer_full")), (0, 0), "every connection was served");
        let full = metrics(&self.full).await;
        assert!(rejected(&full, "full") + rejected(&full, "peer_full") > 0, "that one was never full");
        rejected(&tls, "handshake_failed")
    }
}

fn long_story() -> Vec<u8> {
    format!("GET /audit/{} HTTP/1.1\r\nHost: t\r\n\r\n", crate::desk::id(0)).into_bytes()
}

async fn metrics(running: &Running) -> String {
    ends("metrics", async {
        loop {
            let answer = running.get("/metrics").await;
            if answer.status == 200 {
                return answer.body;
            }
        }
    })
    .await
}

/// Every descriptor of this process, with what it leads to.
fn descriptors() -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("/proc/self/fd").filter_map(Result::ok);
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, std::fs::read_link(entry.path()).ok()?)))
        // The folder that is being read.
        .filter(|(_, link)| !link.starts_with("/proc"))
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn thousands_of_bad_connections_leave_no_descriptor() {
    let servers = Servers::start().await;
    let plain = [b"".as_slice(), HALF_HEAD, HALF_BODY, BAD_CHUNKS, TLS_GARBAGE, WHOLE];
    let plain = plain.into_iter().flat_map(|sent| [Bad::Sends(sent), Bad::Resets(sent)]);
    let mut kinds: Vec<(&Running, Bad)> = plain.map(|bad| (&servers.plain, bad)).collect();
    // The TLS port: silent, garbage, plain HTTP, half a hello, each held or reset; and bad HTTP over good TLS.
    for sent in [b"".as_slice(), TLS_GARBAGE, WHOLE, &TLS_GARBAGE[..5]] {
        kinds.extend([(&servers.tls, Bad::Sends(sent)), (&servers.tls, Bad::Resets(sent))]);
    }
    kinds.extend([b"".as_slice(), HALF_HEAD, HALF_BODY].map(|sent| (&servers.tls, Bad::OverTls(sent))));
    kinds.extend([(&servers.full, Bad::Sends(b"")), (&servers.full, Bad::Sends(WHOLE))]);
    // What is made once and kept is made before the first count.
    servers.plain.serves().await;
    servers.over_tls(WHOLE).await;
    servers.idle().await;
    let before = descriptors();
    let mut connections = 0;
    for batch in 0..BATCHES {
        let slow = [(&servers.plain, Bad::SlowReader), (&servers.tls, Bad::TlsSlowReader)];
        let slow = slow.into_iter().filter(|_| batch % 8 == 0);
        let peers: Vec<_> = slow.chain(kinds.iter().copied().cycle()).take(IN_A_BATCH).collect();
        connections += peers.len();
        let held = futures_util::future::join_all(peers.iter().map(|(running, bad)| servers.suffer(running, *bad))).await;
        // The clients' ends are all still open here: it is the servers that close.
        servers.idle().await;
        drop(held);
    }
    let failed = servers.told().await;
    servers.idle().await;
    assert!(connections >= 3_000, "{connections}");
    assert!(failed >= 500, "only {failed} handshakes failed");
    let mut after = descriptors();
    let settles = async {
        while after.len() > before.len() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            after = descriptors();
        }
    };
    // What is said then is which descriptors there are too many of.
    let _ = tokio::time::timeout(Duration::from_secs(30), settles).await;
    assert_eq!(after, before, "after {connections} bad connections");
    for running in [&servers.plain, &servers.full] {
        running.serves().await;
    }
}
