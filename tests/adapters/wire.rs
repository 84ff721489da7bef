//! A server that does exactly what a test tells it, byte by byte, on TCP or on a Unix socket.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

/// The adapters' time limit in tests of what happens when it passes.
pub const SHORT: Duration = Duration::from_millis(200);
/// The adapters' time limit in all other tests: far more than any answer takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(20);

/// What the fake does with one request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Sends these bytes and closes.
    Say(Vec<u8>),
    /// Sends these bytes, then nothing, and keeps the connection open.
    SayThenHang(Vec<u8>),
    /// Answers after a while.
    Late(Duration, Vec<u8>),
    /// Sends these bytes first and the others for ever.
    Endless(Vec<u8>, Vec<u8>),
}

/// How a request ends.
#[derive(Clone, Copy)]
pub enum Framing {
    /// Empty line, and as many bytes as `content-length` says.
    Http,
    Line,
}

type Script = Arc<dyn Fn(&str) -> Act + Send + Sync>;

/// A running fake. Stops when it is dropped.
pub struct Fake {
    /// `host:port`, or the socket's path.
    pub place: String,
    requests: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
    _dir: Option<tempfile::TempDir>,
}

impl Fake {
    pub async fn tcp(framing: Framing, script: impl Fn(&str) -> Act + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let place = listener.local_addr().expect("bound").to_string();
        let (script, requests): (Script, _) = (Arc::new(script), Arc::new(Mutex::new(Vec::new())));
        let seen = requests.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, framing, script.clone(), seen.clone()));
            }
        });
        Fake { place, requests, task, _dir: None }
    }

    pub async fn unix(framing: Framing, script: impl Fn(&str) -> Act + Send + Sync + 'static) -> Fake {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path: PathBuf = dir.path().join("s");
        let listener = UnixListener::bind(&path).expect("a socket");
        let (script, requests): (Script, _) = (Arc::new(script), Arc::new(Mutex::new(Vec::new())));
        let seen = requests.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, framing, script.clone(), seen.clone()));
            }
        });
        Fake { place: path.display().to_string(), requests, task, _dir: Some(dir) }
    }

    /// Everything asked so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no test panicked in it").clone()
    }

    /// The first line of everything asked so far.
    pub fn first_lines(&self) -> Vec<String> {
        self.requests().iter().map(|request| request.lines().next().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    framing: Framing,
    script: Script,
    seen: Arc<Mutex<Vec<String>>>,
) {
    let Some(request) = read_request(&mut stream, framing).await else { return };
    seen.lock().expect("no test panicked in it").push(request.clone());
    // A client that gave up is part of the test, so write errors are not.
    match script(&request) {
        Act::Say(bytes) => drop(stream.write_all(&bytes).await),
        Act::SayThenHang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            std::future::pending::<()>().await;
        }
        Act::Late(how_long, bytes) => {
            tokio::time::sleep(how_long).await;
            let _ = stream.write_all(&bytes).await;
        }
        Act::Endless(first, then) => {
            let mut sent = stream.write_all(&first).await;
            while sent.is_ok() {
                sent = stream.write_all(&then).await;
            }
        }
    }
    let _ = stream.shutdown().await;
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin), framing: Framing) -> Option<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        let whole = match framing {
            Framing::Line => text.contains('\n'),
            Framing::Http => text.split_once("\r\n\r\n").is_some_and(|(head, body)| body.len() >= content_length(head)),
        };
        if whole {
            return Some(text.into_owned());
        }
        match stream.read(&mut chunk).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    }
}

fn content_length(head: &str) -> usize {
    let line = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// A whole HTTP answer with JSON in it.
pub fn http(status: u16, body: &str) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body.as_bytes());
    answer
}

/// An HTTP answer that promises more than it brings.
pub fn http_cut(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len() + 100).into_bytes()
}

/// The head of an HTTP answer that never ends.
pub fn http_endless() -> Act {
    Act::Endless(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(), {
        let mut chunk = b"10000\r\n".to_vec();
        chunk.extend(std::iter::repeat_n(b' ', 0x10000));
        chunk.extend(b"\r\n");
        chunk
    })
}

/// A port on loopback where nobody listens.
pub async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
    listener.local_addr().expect("bound").to_string()
}
