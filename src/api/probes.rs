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
use super::openapi::{AliveShape, ReadyShape};
use crate::metrics::CONTENT_TYPE;

/// `GET /metrics`
#[utoipa::path(get, path = "/metrics", tag = "machines", summary = "For Prometheus", security(()),
    responses((status = 200, description = "OpenMetrics", body = String, content_type = "application/openmetrics-text")))]
pub async fn metrics(State(face): State<Face>) -> Response {
    let gauges = face.desk.gauges().await;
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], face.telemetry.render(&gauges)).into_response()
}

/// `GET /healthz`
#[utoipa::path(get, path = "/healthz", tag = "machines", summary = "Is it alive? Asks nothing outside", security(()),
    responses((status = 200, description = "It is", body = AliveShape)))]
pub async fn healthz() -> Json<Value> {
    Json(json!({ "alive": true }))
}

/// `GET /readyz`
#[utoipa::path(get, path = "/readyz", tag = "machines", summary = "Could it act, and what is missing?", security(()),
    responses(
        (status = 200, description = "It could", body = ReadyShape),
        (status = 503, description = "It could not", body = ReadyShape),
    ))]
pub async fn readyz(State(face): State<Face>) -> Response {
    let probes = face.desk.readiness().await;
    let ready = !face.closing.is_cancelled() && probes.iter().all(|probe| probe.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "probes": probes }))).into_response()
}
