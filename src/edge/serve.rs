//! The listening side: an accept loop of our own over hyper, HTTP/1 only, plain or over TLS (`tls`).
//!
//! Promise: no peer holds a connection for longer than it is of use. `axum::serve` has no timer for headers, so a silent
//! or half-sent connection stays open for ever there, and a few thousand of them leave no descriptor for Alertmanager.
//! Here
//! - a request's head must be complete within [`Limits::head`], counted from the accept or from the last answer, so a
//!   silent connection, a slow one and an idle one all end;
//! - over TLS the handshake must be complete within the same bound, and holds up nobody else: it is the connection's own
//!   task that waits for it;
//! - a peer that stops reading its answer is cut off after [`Limits::stall`] ([`Patient`]);
//! - above [`Limits::connections`], and for one host above [`Limits::per_peer`], a new connection is closed at once, and
//!   counted;
//! - how long a request may take in all is the router's to say: `?wait` takes longer.
//!
//! Stopping: the listener closes first, idle connections end at once, requests in flight may finish within a bound, and
//! what is left then is cut. Every descriptor is closed when [`Server::stop`] returns.
//!
//! Accepted race: a keep-alive connection may be closed just as the peer sends its next request. Alertmanager and
//! Prometheus both send again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
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

use crate::edge::tls::Tls;
use crate::metrics::{Rejection, Telemetry};

/// Bytes of a request's head, and of one read of its body. Alertmanager's head has a few hundred; a token has at most 4 KiB.
const MAX_BUFFER: usize = 64 * 1024;
/// Lines in a request's head.
const MAX_HEADERS: usize = 64;
/// Rest after an accept that failed: nearly always "no descriptors left", which ends only when somebody closes one.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Connections that are open at a time by default. Both shapes of an alert storm stay far below, and 512 descriptors
/// below the usual limit of 1,024.
const CONNECTIONS: usize = 512;
/// Of them for one host: a quarter. A broken or hostile host then leaves three quarters to the others; an Alertmanager
/// needs a few, because it sends one notification of a group at a time. Loopback is a host like any other: a broken
/// exporter on it, or a reverse proxy that is flooded, must not shut out the Alertmanager that comes over the network.
const PER_PEER: usize = CONNECTIONS / 4;

/// Bounds of the listening side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For the head of a request to be complete; also how long a connection may be idle.
    pub head: Duration,
    /// For a peer to take the next byte of an answer.
    pub stall: Duration,
    /// Open at a time. Each is one descriptor and at most [`MAX_BUFFER`] twice.
    pub connections: usize,
    /// Open at a time from one host, loopback included ([`PER_PEER`]).
    pub per_peer: usize,
}

/// A listener that accepts nobody yet: the address is known before anything runs.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    addr: SocketAddr,
    tls: Option<Arc<Tls>>,
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
    /// Alertmanager sends its head in one packet; ten seconds forgive a bad network.
    fn default() -> Self {
        let (head, stall) = (Duration::from_secs(10), Duration::from_secs(30));
        Limits { head, stall, connections: CONNECTIONS, per_peer: PER_PEER }
    }
}

/// Takes the address. Port 0 asks the system for a free one.
///
/// # Errors
/// The address is taken or not ours.
pub async fn bind(addr: SocketAddr) -> io::Result<Bound> {
    let listener = TcpListener::bind(addr).await?;
    let addr = listener.local_addr()?;
    Ok(Bound { listener, addr, tls: None })
}

impl Bound {
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Speaks TLS with whoever connects, and nothing else.
    pub fn over(self, tls: Option<Arc<Tls>>) -> Bound {
        Bound { tls, ..self }
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
            peers: Arc::default(),
            tls: self.tls,
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
    peers: Peers,
    tls: Option<Arc<Tls>>,
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
    tls: Option<Arc<Tls>>,
    telemetry: Arc<Telemetry>,
    closing: CancellationToken,
    /// Its place among [`Limits::connections`] and its host's own, until it ends.
    _place: Place,
}

/// How many connections each host has open; as long as [`Limits::connections`] at most.
type Peers = Arc<Mutex<HashMap<IpAddr, usize>>>;

struct Place {
    peers: Peers,
    host: IpAddr,
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
        let place = match self.place(host(peer.ip())) {
            Ok(place) => place,
            Err(rejection) => return self.telemetry.connection_rejected(rejection),
        };
        let connection = Connection {
            stream: Patient { stream, patience: self.limits.stall, waiting: None },
            peer,
            router: self.router.clone(),
            head: self.limits.head,
            watcher: self.graceful.watcher(),
            tls: self.tls.clone(),
            telemetry: Arc::clone(&self.telemetry),
            closing: self.closing.clone(),
            _place: place,
        };
        self.open.spawn(connection.run());
    }

    fn place(&self, host: IpAddr) -> Result<Place, Rejection> {
        let room = self.room.clone().try_acquire_owned().map_err(|_| Rejection::Full)?;
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let open = peers.entry(host).or_default();
        // The entry is not left behind with 0: a host that is turned away has some open.
        if *open >= self.limits.per_peer.max(1) {
            return Err(Rejection::PeerFull);
        }
        *open += 1;
        Ok(Place { peers: Arc::clone(&self.peers), host, _room: room })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut open) = peers.entry(self.host) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

/// What counts as one host: an IPv4 address, or the /64 that a host of IPv6 may choose its addresses from.
pub fn host(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
    }
}

impl Connection {
    /// From its first byte to its last.
    async fn run(self) {
        let Connection { stream, peer, router, head, watcher, tls, telemetry, closing, _place } = self;
        // Answers are one small write; waiting for more to send only delays them. If it fails, it is only slower.
        let _ = stream.stream.set_nodelay(true);
        let Some(tls) = tls else { return speak(stream, peer, router, head, watcher).await };
        let handshake = tokio::select! {
            handshake = tokio::time::timeout(head, tls.acceptor().accept(stream)) => handshake,
            () = closing.cancelled() => return,
        };
        match handshake {
            Ok(Ok(stream)) => speak(stream, peer, router, head, watcher).await,
            Ok(Err(error)) => {
                telemetry.connection_rejected(Rejection::HandshakeFailed);
                // A certificate that is not taken, by us or by the peer, is worth a line: somebody cannot reach us.
                if about_certificates(&error) {
                    tracing::info!(%peer, error = super::causes(&error), "a TLS handshake failed over a certificate");
                } else {
                    tracing::debug!(%peer, error = super::causes(&error), "a TLS handshake failed");
                }
            }
            Err(_) => {
                telemetry.connection_rejected(Rejection::HandshakeFailed);
                tracing::debug!(%peer, "a TLS handshake was not complete in time");
            }
        }
    }
}

/// HTTP/1, until the peer or a bound ends it.
async fn speak<S>(stream: S, peer: SocketAddr, router: Router, head: Duration, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
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

fn about_certificates(error: &io::Error) -> bool {
    use tokio_rustls::rustls::{AlertDescription as Alert, Error};
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match error {
        Some(Error::NoCertificatesPresented | Error::InvalidCertificate(_)) => true,
        Some(Error::AlertReceived(alert)) => matches!(
            alert,
            Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
        ),
        _ => false,
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
