//! The HTTP face: alerts in, receipts out; the audit to read; the kill switch.
//!
//! Promise: the face hands alerts to the [`Desk`] and reads what it tells; it never acts. Every answer is JSON (or
//! NDJSON, or an event stream, or metrics), every error a problem document. What Alertmanager should send again is a
//! 503, what it never should a 400; never a redirect, a 429 or a 408, which it would follow or drop.
//!
//! Each route demands its leave as a type (`door`), before the body is read. Bodies are capped and the memory of all of
//! them together is too (`body`). Every request ends in time: a request has [`Limits::request`], and one that waits for
//! an outcome has that much more than its wait.
//!
//! Orders from another site's page are turned away: without tokens we listen on loopback, where any page in the
//! operator's browser could otherwise reach us.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::desk::Desk;
use self::problem::Problem;
use self::turned_away::{Sum, TurnedAway};
use crate::detect::caller::Gate;
use crate::metrics::Telemetry;

mod audit;
pub mod board;
mod body;
pub mod desk;
pub mod door;
pub mod openapi;
mod orders;
mod probes;
pub mod problem;
mod remediate;
mod stream;
mod turned_away;

/// Bounds of the face.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest body of a delivery, in bytes.
    pub body: usize,
    /// Most alerts of a delivery.
    pub alerts: usize,
    /// For a request to be answered, its body included; waiting for an outcome comes on top.
    pub request: Duration,
}

/// Everything that the routes need. Cheap to clone.
#[derive(Clone)]
pub struct Face {
    desk: Arc<dyn Desk>,
    gate: Arc<Gate>,
    telemetry: Arc<Telemetry>,
    closing: CancellationToken,
    limits: Limits,
    memory: Arc<Semaphore>,
    orders: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    turned_away: Arc<TurnedAway>,
}

impl Default for Limits {
    /// Alertmanager's largest measured group, 5,000 alerts, is one body of 3.95 MB. Thirty seconds are three of its own
    /// default time-outs of a scrape: whoever still waits then has hung up.
    fn default() -> Self {
        Limits { body: 8 << 20, alerts: 10_000, request: Duration::from_secs(30) }
    }
}

impl Face {
    /// `closing` is the one that the server is given: when it is cancelled, long waits and streams end.
    pub fn new(
        desk: Arc<dyn Desk>,
        gate: Arc<Gate>,
        telemetry: Arc<Telemetry>,
        closing: CancellationToken,
        limits: Limits,
    ) -> Face {
        let memory = Arc::new(Semaphore::new(body::memory(limits.body.max(body::MAX_ORDER))));
        let orders = Arc::new(Semaphore::new(body::memory_for_orders()));
        let streams = Arc::new(Semaphore::new(stream::MAX_STREAMS));
        Face { desk, gate, telemetry, closing, limits, memory, orders, streams, turned_away: Arc::default() }
    }

    /// Every route, bounded and measured.
    pub fn router(self) -> Router {
        let router = routes().into_iter().fold(Router::new(), |router, (_, path, route)| router.route(path, route));
        router
            .fallback(no_route)
            .method_not_allowed_fallback(wrong_method)
            .layer(from_fn_with_state(self.clone(), bounded))
            .layer(from_fn_with_state(self.clone(), measured))
            .with_state(self)
    }
}

/// Every route there is: method, path, and who answers. `openapi.json` documents exactly these.
fn routes() -> [(&'static str, &'static str, MethodRouter<Face>); 13] {
    [
        ("POST", "/remediate", post(remediate::remediate)),
        ("GET", "/audit", get(audit::list)),
        ("GET", "/audit/stream", get(stream::follow)),
        ("GET", "/audit/{id}", get(audit::one)),
        ("POST", "/pause", post(orders::pause)),
        ("POST", "/resume", post(orders::resume)),
        ("POST", "/abort", post(orders::abort)),
        ("POST", "/breaker/reset", post(orders::reset)),
        ("GET", "/guards", get(orders::guards)),
        ("GET", "/metrics", get(probes::metrics)),
        ("GET", "/healthz", get(probes::healthz)),
        ("GET", "/readyz", get(probes::readyz)),
        ("GET", "/openapi.json", get(openapi::document)),
    ]
}

/// Method and path of every route, for whoever compares it with a document.
pub fn route_table() -> Vec<(&'static str, &'static str)> {
    routes().into_iter().map(|(method, path, _)| (method, path)).collect()
}

async fn no_route(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(80).collect();
    Problem::no_such(format!("there is nothing at {path}"))
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}; the header Allow says what it takes", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// Answers in time, and only to who is not sent by another site.
async fn bounded(State(face): State<Face>, request: Request, next: Next) -> Response {
    if foreign(&request) {
        return Problem::new(StatusCode::FORBIDDEN, "cross_origin", "orders from another site's page are not taken")
            .into_response();
    }
    let waits = request.uri().path() == "/remediate";
    let wait = if waits { remediate::asked_wait(request.uri()).ok().flatten() } else { None };
    let bound = face.limits.request + wait.unwrap_or_default();
    match tokio::time::timeout(bound, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            tracing::warn!(?bound, "a request was not answered in time");
            Problem::later("timed_out", format!("not answered within {} s", bound.as_secs())).into_response()
        }
    }
}

/// A browser says where a page comes from that sends something; nobody else sends this header.
fn foreign(request: &Request) -> bool {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return false;
    }
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    request.headers().get(header::ORIGIN).is_some_and(|origin| {
        let site = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        site.is_none_or(|(_, authority)| !authority.eq_ignore_ascii_case(host))
    })
}

/// Counts every answer, and marks it as nobody's to keep.
async fn measured(State(face): State<Face>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    for Sum { host, status, calls } in face.turned_away.due(began) {
        let host = host.map_or_else(|| "many hosts".to_owned(), |host| host.to_string());
        tracing::info!(host, status, calls, "more calls were turned away");
    }
    // The pattern, never the path: ids and scanners' guesses must not become series.
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    face.telemetry.request(&route, response.status().as_u16(), began.elapsed());
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
