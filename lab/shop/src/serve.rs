//! Accepts connections until SIGTERM, then lets requests in flight finish.
//!
//! An own accept loop instead of `axum::serve`, for two reasons: the open connections are counted (a rule tells a leak
//! from load by them), and a process that is out of descriptors must go on living as real ones do: `accept` fails, the
//! caller's connection hangs in the kernel's backlog, and connections accepted earlier are still answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// How long requests in flight may take to finish after SIGTERM. Requests here take milliseconds.
const DRAIN: Duration = Duration::from_millis(1500);
/// How long `accept` rests after a failure, so that an exhausted process does not also burn its CPU.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Longer than any scrape interval of the lab, so that Prometheus' connection stays open between scrapes.
const SILENCE: Duration = Duration::from_secs(60);

/// The number of connections open right now.
#[derive(Clone, Default)]
pub struct Connections(Arc<AtomicU64>);

impl Connections {
    pub fn open(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn enter(&self) -> Entered {
        self.0.fetch_add(1, Ordering::Relaxed);
        Entered(self.0.clone())
    }
}

struct Entered(Arc<AtomicU64>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves `app` on `listen` until SIGTERM or SIGINT.
pub async fn until_signal(listen: SocketAddr, connections: Connections, app: Router) -> anyhow::Result<()> {
    // Taken before anything can leak: a process without descriptors must still hear that it should stop.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    tracing::info!(%listen, "serving");

    let graceful = GracefulShutdown::new();
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Once per episode, not ten times a second.
                if !failing {
                    tracing::error!(%error, "accept fails");
                    failing = true;
                }
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
        };
        failing = false;
        let entered = connections.enter();
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(SILENCE)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _entered = entered;
            // A caller that hangs up is its own business.
            let _ = connection.await;
        });
    }

    tracing::info!(open = connections.open(), "stopping: no new connections, finishing requests in flight");
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!(open = connections.open(), "some requests did not finish in time");
    }
    tracing::info!("stopped");
    Ok(())
}
