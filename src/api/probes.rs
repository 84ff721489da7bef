//! What machines ask: `/metrics`, `/healthz`, `/readyz`. Without a token, as scrapers and supervisors expect.
//!
//! `/healthz` asks nothing, so that trouble outside never gets us restarted in the middle of a run; `/readyz` says
//! whether we could act, and what is missing.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Face;
use crate::metrics::CONTENT_TYPE;

/// `GET /metrics`
pub async fn metrics(State(face): State<Face>) -> Response {
    let gauges = face.desk.gauges().await;
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], face.telemetry.render(&gauges)).into_response()
}

/// `GET /healthz`
pub async fn healthz() -> Json<Value> {
    Json(json!({ "alive": true }))
}

/// `GET /readyz`
pub async fn readyz(State(face): State<Face>) -> Response {
    let probes = face.desk.readiness().await;
    let ready = !face.closing.is_cancelled() && probes.iter().all(|probe| probe.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "probes": probes }))).into_response()
}
