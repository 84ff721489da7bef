//! `POST /remediate`: alerts come in, receipts go out.
//!
//! Durable first, then 2xx: a receipt is a promise that the alert is on disk. With `?wait=5m` the answer is held until
//! every record has an outcome (200), or until the time is up (202 with the records so far). Nothing depends on the
//! caller waiting: he may hang up at any time.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::desk::Receipt;
use super::door::MayDeliver;
use super::openapi::{DeliveryShape, FollowedShape, ProblemShape, ResultsShape};
use super::problem::Problem;
use super::{Face, body};
use crate::alert::{AlertGroup, AlertStatus};
use crate::detect::payload;
use crate::event::Record;
use crate::period::Period;

/// Longest wait for an outcome; a longer one is cut to it. A remediation takes a few minutes at most.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30 * 60);

#[derive(Serialize)]
struct Results<T> {
    results: Vec<T>,
}

#[derive(Serialize)]
struct Followed<'r> {
    receipt: &'r Receipt,
    record: Option<&'r Record>,
}

/// The route.
#[utoipa::path(post, path = "/remediate", tag = "alerts", summary = "Alertmanager's webhook, or the same by hand", security(("bearer" = []), ("basic" = [])),
    params(("wait" = Option<String>, Query, description = "Hold the answer until every record has an outcome, at most this long", example = "5m")),
    request_body = DeliveryShape,
    responses(
        (status = 202, description = "On disk; with `wait`, the time was up before every record had an outcome",
            content((ResultsShape = "application/json"))),
        (status = 200, description = "With `wait`: every record has an outcome", body = FollowedShape),
        (status = 400, description = "It can never be read; Alertmanager does not send it again", body = ProblemShape, content_type = "application/problem+json"),
        (status = 413, description = "Larger than limits.body", body = ProblemShape, content_type = "application/problem+json"),
    ))]
pub async fn remediate(
    _leave: MayDeliver,
    State(face): State<Face>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let wait = asked_wait(&uri)?;
    let receipts = take_in(&face, &headers, body).await?;
    let Some(wait) = wait else {
        return Ok((StatusCode::ACCEPTED, Json(Results { results: receipts })).into_response());
    };
    let records = outcomes(&face, &receipts, wait).await;
    let record_of = |receipt: &Receipt| newest_of(receipt, &records);
    // A receipt without a record has nothing to wait for.
    let settled = receipts.iter().all(|r| r.id.is_none() || record_of(r).is_some_and(Record::is_closed));
    let results = receipts.iter().map(|receipt| Followed { receipt, record: record_of(receipt) }).collect();
    let status = if settled { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(Results { results })).into_response())
}

/// How long the caller wants to wait; `None` when he does not. Other parameters are left alone: a 400 for one that a
/// proxy added would cost alerts.
pub fn asked_wait(uri: &Uri) -> Result<Option<Duration>, Problem> {
    let bad = |detail: String| Problem::bad("bad_wait", detail);
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| bad(error.body_text()))?;
    let Some((_, text)) = pairs.iter().find(|(name, _)| name == "wait") else { return Ok(None) };
    let wait: Period = text.parse().map_err(|error| bad(format!("wait: {error}")))?;
    Ok(Some(wait.get().min(LONGEST_WAIT)))
}

async fn take_in(face: &Face, headers: &HeaderMap, body: Body) -> Result<Vec<Receipt>, Problem> {
    // Held until the alerts are on disk: until then they are in memory.
    let held = body::read(face, headers, body, face.limits.body).await?;
    let group: AlertGroup = payload::parse(&held.bytes, face.limits.alerts)?;
    let statuses: Vec<AlertStatus> = group.alerts.iter().map(|alert| alert.status).collect();
    match face.desk.take_in(group).await {
        Ok(receipts) => {
            receipts.iter().for_each(|receipt| face.telemetry.alert(receipt.status, receipt.state));
            Ok(receipts)
        }
        Err(unavailable) => {
            statuses.into_iter().for_each(|status| face.telemetry.alert_unavailable(status));
            Err(unavailable.into())
        }
    }
}

/// The newest record of the receipt's episode: the receipt's own, or a later one, because the condition was asked again
/// (the first was refused, say). Ids are UUIDs of version 7, so the largest is the newest.
fn newest_of<'r>(receipt: &Receipt, records: &'r [Record]) -> Option<&'r Record> {
    let own = receipt.id?;
    let same_target = |record: &Record| {
        let target = record.accepted.target.as_ref().map(ToString::to_string);
        target.is_some() && target == receipt.target
    };
    let ours = |record: &&Record| {
        record.id == own
            || same_target(record)
            || (receipt.target.is_none() && record.accepted.fingerprint == receipt.fingerprint)
    };
    records.iter().filter(ours).max_by_key(|record| record.id)
}

/// The records behind the receipts, when they are settled, when the time is up, or when the program stops.
async fn outcomes(face: &Face, receipts: &[Receipt], wait: Duration) -> Vec<Record> {
    tokio::select! {
        records = face.desk.await_outcome(receipts, wait) => records,
        () = face.closing.cancelled() => face.desk.await_outcome(receipts, Duration::ZERO).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_duration_and_has_an_end() {
        let wait = |query: &str| asked_wait(&format!("/remediate{query}").parse().expect("a uri"));
        assert_eq!(wait(""), Ok(None));
        assert_eq!(wait("?from=proxy"), Ok(None));
        assert_eq!(wait("?x=1&wait=1m30s"), Ok(Some(Duration::from_secs(90))));
        assert_eq!(wait("?wait=2d"), Ok(Some(LONGEST_WAIT)));
        for bad in ["?wait=", "?wait", "?wait=5", "?wait=soon", "?wait=-1s", "?wait=%ff"] {
            assert!(wait(bad).is_err(), "{bad} was taken");
        }
    }
}
