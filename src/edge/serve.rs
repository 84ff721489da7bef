//! The listening side: an accept loop of our own over hyper, HTTP/1 only.
//!
//! Promise: no peer holds a connection for longer than it is of use. `axum::serve` has no timer for headers, so a silent
//! or half-sent connection stays open for ever there, and a few thousand of them leave no descriptor for Alertmanager.
//! Here
//! - a request's head must be complete within [`Limits::head`], counted from the accept or from the last answer, so a
//!   silent connection, a slow one and an idle one all end;
//! - a peer that stops reading its answer is cut off after [`Limits::stall`] ([`Patient`]);
//! - above [`Limits::connections`] a new connection is closed at once, and counted;
//! - how long a request may take in all is the router's to say: `?wait` takes longer.
//!
//! Stopping: the listener closes first, idle connections end at once, requests in flight may finish within a bound, and
//! what is left then is cut. Every descriptor is closed when [`Server::stop`] returns.
//!
//! Accepted race: a keep-alive connection may be closed just as the peer sends its next request. Alertmanager and
//! Prometheus both send again.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::metrics::{Rejection, Telemetry};

/// Bytes of a request's head, and of one read of its body. Alertmanager's head has a few hundred; a token has at most 4 KiB.
const MAX_BUFFER: usize = 64 * 1024;
/// Lines in a request's head.
const MAX_HEADERS: usize = 64;
/// Rest after an accept that failed: nearly always "no descriptors left", which ends only when somebody closes one.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Bounds of the listening side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For the head of a request to be complete; also how long a connection may be idle.
    pub head: Duration,
    /// For a peer to take the next byte of an answer.
    pub stall: Duration,
    /// Open at a time. Each is one descriptor and at most [`MAX_BUFFER`] twice.
    pub connections: usize,
}

/// A listener that accepts nobody yet: the address is known before anything runs.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    addr: SocketAddr,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    closing: CancellationToken,
    cut: CancellationToken,
    accepting: JoinHandle<usize>,
}

/// How stopping went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that did not end within the bound and were cut.
    pub cut: usize,
}

/// The peer's address, as a request's extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// A stream that gives up when its peer takes nothing for `patience`.
struct Patient {
    stream: TcpStream,
    patience: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Default for Limits {
    /// Alertmanager sends its head in one packet; ten seconds forgive a bad network. Both shapes of an alert storm stay
    /// far below 512 connections, and 512 descriptors below the usual limit of 1,024.
    fn default() -> Self {
        Limits { head: Duration::from_secs(10), stall: Duration::from_secs(30), connections: 512 }
    }
}

/// Takes the address. Port 0 asks the system for a free one.
///
/// # Errors
/// The address is taken or not ours.
pub async fn bind(addr: SocketAddr) -> io::Result<Bound> {
    let listener = TcpListener::bind(addr).await?;
    let addr = listener.local_addr()?;
    Ok(Bound { listener, addr })
}

impl Bound {
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Starts accepting. `closing` is shared with the router, whose long waits and streams end when it is cancelled.
    pub fn serve(self, router: Router, limits: Limits, telemetry: Arc<Telemetry>, closing: CancellationToken) -> Server {
        let cut = CancellationToken::new();
        let accepting = Accepting {
            listener: self.listener,
            router,
            limits,
            telemetry,
            room: Arc::new(Semaphore::new(limits.connections)),
            graceful: GracefulShutdown::new(),
            open: JoinSet::new(),
            closing: closing.clone(),
        };
        let accepting = tokio::spawn(accepting.run(cut.clone()));
        Server { addr: self.addr, closing, cut, accepting }
    }
}

impl Server {
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops accepting, lets what is in flight finish for at most `within`, then cuts it.
    pub async fn stop(mut self, within: Duration) -> Stopped {
        self.closing.cancel();
        let ended = match tokio::time::timeout(within, &mut self.accepting).await {
            Ok(ended) => ended,
            Err(_) => {
                self.cut.cancel();
                (&mut self.accepting).await
            }
        };
        Stopped { cut: ended.unwrap_or(0) }
    }
}

struct Accepting {
    listener: TcpListener,
    router: Router,
    limits: Limits,
    telemetry: Arc<Telemetry>,
    room: Arc<Semaphore>,
    graceful: GracefulShutdown,
    open: JoinSet<()>,
    closing: CancellationToken,
}

/// One accepted connection.
struct Connection {
    stream: Patient,
    peer: SocketAddr,
    router: Router,
    head: Duration,
    watcher: Watcher,
    /// Its place among [`Limits::connections`], until it ends.
    _room: OwnedSemaphorePermit,
}

impl Accepting {
    /// Until closing; answers with how many connections had to be cut.
    async fn run(mut self, cut: CancellationToken) -> usize {
        loop {
            tokio::select! {
                biased;
                () = self.closing.cancelled() => break,
                // Ended connections leave the set as they end, so that it holds no more than are open.
                Some(ended) = self.open.join_next() => report(ended),
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => self.take(stream, peer),
                    Err(error) => {
                        self.telemetry.connection_rejected(Rejection::AcceptFailed);
                        tracing::warn!(%error, "no connection could be accepted; trying again shortly");
                        tokio::time::sleep(ACCEPT_REST).await;
                    }
                },
            }
        }
        drop(self.listener);
        let drained = async {
            self.graceful.shutdown().await;
            while let Some(ended) = self.open.join_next().await {
                report(ended);
            }
        };
        tokio::select! {
            () = drained => return 0,
            () = cut.cancelled() => {}
        }
        // Those that ended by themselves are still in the set.
        while let Some(ended) = self.open.try_join_next() {
            report(ended);
        }
        let left = self.open.len();
        self.open.shutdown().await;
        left
    }

    fn take(&mut self, stream: TcpStream, peer: SocketAddr) {
        let Ok(room) = self.room.clone().try_acquire_owned() else {
            self.telemetry.connection_rejected(Rejection::Full);
            return;
        };
        let connection = Connection {
            stream: Patient { stream, patience: self.limits.stall, waiting: None },
            peer,
            router: self.router.clone(),
            head: self.limits.head,
            watcher: self.graceful.watcher(),
            _room: room,
        };
        self.open.spawn(connection.run());
    }
}

impl Connection {
    /// From its first byte to its last.
    async fn run(self) {
        let Connection { stream, peer, router, head, watcher, _room } = self;
        // Answers are one small write; waiting for more to send only delays them. If it fails, it is only slower.
        let _ = stream.stream.set_nodelay(true);
        let service = hyper::service::service_fn(move |request| answer(router.clone(), request, peer));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head)
            .max_buf_size(MAX_BUFFER)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        // Time-outs, resets and things that are not HTTP end here: the peer's doing, and every scanner's.
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%peer, error = super::causes(&error), "a connection ended early");
        }
    }
}

async fn answer(router: Router, mut request: Request<Incoming>, peer: SocketAddr) -> Result<Response, Infallible> {
    request.extensions_mut().insert(Peer(peer));
    router.oneshot(request.map(Body::new)).await
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked; the others go on");
    }
}

impl Patient {
    /// Passes on what a write came to, unless it has been pending for too long.
    fn bounded<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + patience)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer stopped reading")))
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.bounded(cx, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
