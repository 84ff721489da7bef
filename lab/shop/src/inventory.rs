//! The service that leaks.
//!
//! `POST /leak?per_second=N` opens N descriptors a second and never closes them; `once=N` opens N at once; `per_second=0`
//! stops. A leak does not stop at the limit: it goes on trying, as a real one does. From then on `accept` fails, so new
//! connections hang, and whatever needs a descriptor fails: `/stock` and `/healthz` answer 500.
//!
//! `GET /stock?hold=N` answers a little at a time for N seconds: a session that a drain has to wait for.

use std::fs::File;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::metrics::{self, Page, Requests};
use crate::serve::{self, Connections};

/// How often the leak opens what is due.
const TICK: Duration = Duration::from_millis(100);
/// What a request takes, so that at any moment some are in flight and a drain has something to wait for.
const WORK: Duration = Duration::from_millis(25);
/// How often a held answer gives a sign of life: well within the balancer's patience with a silent server.
const SIGN: Duration = Duration::from_millis(200);
/// The fastest leak: far beyond the lab's limit of 1024 descriptors.
const FASTEST: f64 = 10_000.0;

#[derive(Default)]
struct Inventory {
    leak: Mutex<Leak>,
    requests: Requests,
    connections: Connections,
}

#[derive(Default)]
struct Leak {
    per_second: f64,
    /// The part of a descriptor that is due but not yet whole.
    due: f64,
    held: Vec<File>,
}

impl Leak {
    /// Opens up to `count` more; stops at the first refusal of the kernel.
    fn open(&mut self, count: usize) {
        for _ in 0..count {
            match File::open("/dev/null") {
                Ok(file) => self.held.push(file),
                Err(_) => return,
            }
        }
    }

    fn tick(&mut self) {
        self.due += self.per_second * TICK.as_secs_f64();
        let whole = self.due.floor();
        self.due -= whole;
        self.open(whole as usize);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeakRequest {
    per_second: Option<f64>,
    once: Option<usize>,
}

#[derive(Serialize)]
struct LeakReport {
    per_second: f64,
    leaked: usize,
    /// Absent when the process has none left to find out with.
    open_fds: Option<usize>,
}

#[derive(Deserialize)]
struct StockRequest {
    /// Seconds.
    #[serde(default)]
    hold: f64,
}

/// Listens after `starts_in` seconds.
pub async fn run(listen: SocketAddr, starts_in: f64) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::try_from_secs_f64(starts_in)?).await;
    let inventory = Arc::new(Inventory::default());
    let leaking = inventory.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            leaking.leak.lock().expect("no panic while leaking").tick();
        }
    });
    let app = Router::new()
        .route("/stock", get(stock))
        .route("/healthz", get(healthz))
        .route("/metrics", get(expose))
        .route("/leak", post(leak))
        .with_state(inventory.clone());
    serve::until_signal(listen, inventory.connections.clone(), app).await
}

/// Needs a descriptor, as every real request does (a database connection, a file, a call to another service).
fn consult_ledger() -> Result<(), (StatusCode, String)> {
    File::open("/proc/self/stat")
        .map(drop)
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("the ledger cannot be opened: {error}\n")))
}

async fn stock(State(inventory): State<Arc<Inventory>>, Query(request): Query<StockRequest>) -> Response {
    if request.hold > 0.0 {
        return held(Duration::try_from_secs_f64(request.hold).unwrap_or_default());
    }
    let consulted = consult_ledger();
    tokio::time::sleep(WORK).await;
    let answer = consulted.map(|()| Json(serde_json::json!({ "item": "anvil", "in_stock": 7 })));
    inventory.requests.count(answer.as_ref().map_or_else(|(code, _)| code.as_u16(), |_| 200));
    answer.into_response()
}

/// An answer that takes its time. No customer's, so it is not counted as one.
fn held(time: Duration) -> Response {
    Body::from_stream(async_stream::stream! {
        let end = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < end {
            yield Ok::<_, std::convert::Infallible>(".");
            tokio::time::sleep(SIGN).await;
        }
    })
    .into_response()
}

async fn healthz() -> Result<&'static str, (StatusCode, String)> {
    consult_ledger().map(|()| "ok\n")
}

async fn expose(State(inventory): State<Arc<Inventory>>) -> Page {
    let mut page = Page::default();
    page.process();
    page.single("http_connections_active", "gauge", "Connections open right now.", inventory.connections.open());
    inventory.requests.write(&mut page);
    page
}

async fn leak(
    State(inventory): State<Arc<Inventory>>,
    Query(request): Query<LeakRequest>,
) -> Result<Json<LeakReport>, (StatusCode, &'static str)> {
    if request.per_second.is_none() && request.once.is_none() {
        return Err((StatusCode::BAD_REQUEST, "say how fast: per_second=N, or how many at once: once=N\n"));
    }
    if request.per_second.is_some_and(|rate| !(0.0..=FASTEST).contains(&rate)) {
        return Err((StatusCode::BAD_REQUEST, "per_second must be between 0 and 10000\n"));
    }
    let mut leak = inventory.leak.lock().expect("no panic while leaking");
    if let Some(count) = request.once {
        leak.open(count);
    }
    if let Some(rate) = request.per_second {
        leak.per_second = rate;
        leak.due = 0.0;
    }
    tracing::warn!(per_second = leak.per_second, leaked = leak.held.len(), "leaking");
    Ok(Json(LeakReport { per_second: leak.per_second, leaked: leak.held.len(), open_fds: metrics::open_fds() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_leak_opens_whole_descriptors_over_time() {
        let mut leak = Leak { per_second: 2.5, ..Leak::default() };
        for _ in 0..40 {
            leak.tick();
        }
        assert_eq!(leak.held.len(), 10, "2.5 a second for 4 s");
    }

    #[test]
    fn no_rate_no_leak() {
        let mut leak = Leak::default();
        leak.tick();
        assert!(leak.held.is_empty());
    }
}
