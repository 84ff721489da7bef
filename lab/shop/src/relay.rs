//! Stands between Alertmanager and remediator: passes each delivery on, writes down what became of it, and can make the
//! receiver slow.
//!
//! `POST /remediate` is passed on as it stands, and the answer comes back as it is, `delay_ms` later. What is not answered is a
//! 502, which Alertmanager retries. `GET /deliveries?from=N` lists deliveries from the N-th on; `POST /relay?delay_ms=N` sets
//! the delay.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::outbound::{self, innermost};
use crate::serve::{self, Connections};

/// As long as the lab's Alertmanager waits for its receiver.
const PATIENCE: Duration = Duration::from_secs(10);
const BODY: usize = 8 << 20;
/// A delivery is a few hundred bytes here; a run of the lab makes some thousands.
const KEPT: usize = 100_000;

struct Relay {
    target: String,
    client: reqwest::Client,
    delay_ms: AtomicU64,
    deliveries: Mutex<Vec<Delivery>>,
}

#[derive(Clone, Serialize)]
struct Delivery {
    /// Unix seconds, when it came in.
    at: f64,
    /// Which Alertmanager sent it, by its `externalURL`.
    peer: String,
    /// remediator's answer; 0 when there was none.
    status: u16,
    /// Of each alert: status, labels, fingerprint, startsAt.
    alerts: Vec<Value>,
    /// Of each alert, what remediator said of it.
    results: Vec<Value>,
}

#[derive(Deserialize)]
struct From {
    #[serde(default)]
    from: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    delay_ms: u64,
}

pub async fn run(listen: SocketAddr, target: String) -> anyhow::Result<()> {
    let client = outbound::client(PATIENCE)?;
    let relay = Relay { target, client, delay_ms: AtomicU64::new(0), deliveries: Mutex::default() };
    let app = Router::new()
        .route("/remediate", post(deliver))
        .route("/deliveries", get(list))
        .route("/relay", post(order))
        .route("/healthz", get(|| async { "ok\n" }))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(Arc::new(relay));
    serve::until_signal(listen, Connections::default(), app).await
}

async fn deliver(State(relay): State<Arc<Relay>>, headers: HeaderMap, body: Bytes) -> Response {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    // In a task of its own: a sender that hangs up does not take back what is already on its way.
    let passed = tokio::spawn(pass(relay.clone(), headers, body, at));
    let (status, answer) = passed.await.unwrap_or_else(|error| (502, Bytes::from(error.to_string())));
    tokio::time::sleep(Duration::from_millis(relay.delay_ms.load(Ordering::Relaxed))).await;
    (StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY), answer).into_response()
}

/// Passes it on and writes it down; what the sender is to be told.
async fn pass(relay: Arc<Relay>, headers: HeaderMap, body: Bytes, at: f64) -> (u16, Bytes) {
    let group: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut request = relay.client.post(&relay.target).body(body);
    for name in [header::AUTHORIZATION, header::CONTENT_TYPE] {
        if let Some(value) = headers.get(&name) {
            request = request.header(name, value);
        }
    }
    let answered = async {
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        Ok::<_, reqwest::Error>((status, answer.bytes().await?))
    };
    let (status, answer) = answered.await.unwrap_or_else(|error| (0, Bytes::from(innermost(&error))));
    let results: Value = serde_json::from_slice(&answer).unwrap_or_default();
    let listed = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let delivery = Delivery {
        at,
        peer: group["externalURL"].as_str().unwrap_or_default().to_owned(),
        status,
        alerts: listed(&group["alerts"]).iter().map(short).collect(),
        results: listed(&results["results"]),
    };
    let mut deliveries = relay.deliveries.lock().expect("no panic while relaying");
    if deliveries.len() < KEPT {
        deliveries.push(delivery);
    }
    (if status == 0 { 502 } else { status }, answer)
}

fn short(alert: &Value) -> Value {
    json!({
        "status": alert["status"], "labels": alert["labels"], "fingerprint": alert["fingerprint"], "startsAt": alert["startsAt"],
    })
}

async fn list(State(relay): State<Arc<Relay>>, Query(query): Query<From>) -> Json<Vec<Delivery>> {
    Json(relay.deliveries.lock().expect("no panic while relaying").iter().skip(query.from).cloned().collect())
}

async fn order(State(relay): State<Arc<Relay>>, Query(order): Query<Order>) -> StatusCode {
    relay.delay_ms.store(order.delay_ms, Ordering::Relaxed);
    StatusCode::NO_CONTENT
}
