//! `GET /audit/stream`: closed records as they close, as server-sent events.
//!
//! Promise: a reader that comes back with the id of the last event it saw (`Last-Event-ID`, which browsers send by
//! themselves, or `?after=`) misses none and gets none twice. An event's id is the sequence number of the entry that
//! closed the record; without one the stream begins with the next record to close. Who comes back so late that some of
//! what he missed was pruned is told so first, by an event `pruned`, and gets what is kept. When the journal cannot be read, or
//! the program stops, the stream ends, and the reader comes back. It ends as well when the token that opened it is taken away.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use tokio::sync::OwnedSemaphorePermit;

use super::Face;
use super::door::MayRead;
use super::openapi::{LineShape, ProblemShape};
use super::problem::{Problem, stopping};
use crate::detect::caller::Role;

/// Readers at a time; each asks the journal once per commit that closes a record.
pub const MAX_STREAMS: usize = 32;
/// Records read from the journal at a time.
const BATCH: u32 = 100;
/// A comment this often, so that a reader who is gone is noticed and proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a reader should wait before it comes back.
const RETRY: Duration = Duration::from_secs(3);

/// The route.
#[utoipa::path(get, path = "/audit/stream", tag = "reading", summary = "Closed records as they close", security(("bearer" = []), ("basic" = [])),
    params(
        ("after" = Option<u64>, Query, description = "Begin after this event's id; without it, with the next record to close"),
        ("Last-Event-ID" = Option<u64>, Header, description = "As `after`, and before it"),
    ),
    responses(
        (status = 200, description = "Server-sent events `record`; the id is the closing entry's number, the data one line of the audit",
            body = LineShape, content_type = "text/event-stream"),
        (status = 400, description = "Not an event's id", body = ProblemShape, content_type = "application/problem+json"),
    ))]
pub async fn follow(_leave: MayRead, State(face): State<Face>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let after = last_seen(&uri, &headers)?;
    if face.closing.is_cancelled() {
        return Err(stopping());
    }
    let place = Arc::clone(&face.streams)
        .try_acquire_owned()
        .map_err(|_| Problem::later("too_many_streams", format!("{MAX_STREAMS} streams are being read already")))?;
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let shown = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes().to_vec());
    Ok(Sse::new(closed_records(face, after, shown, place)).keep_alive(keep_alive).into_response())
}

/// `Last-Event-ID` first: a browser that comes back sends it to the address it began with, `?after=` included.
fn last_seen(uri: &Uri, headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let bad = |detail: &str| Problem::bad("bad_query", detail);
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| bad(&error.body_text()))?;
    if pairs.iter().any(|(name, _)| name != "after") {
        return Err(bad("there is no such parameter; there is after"));
    }
    let header = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    let Some(text) = header.filter(|text| !text.is_empty()).or(pairs.first().map(|(_, value)| value.as_str())) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| bad("the last event's id must be the number that the event came with"))
}

/// `shown` is what the reader presented, because leave to read lasts only as long as the token.
fn closed_records(
    face: Face,
    after: Option<u64>,
    shown: Option<Vec<u8>>,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> {
    stream! {
        let _place = place;
        let mut tokens = face.gate.follow();
        let may_read = || face.gate.admit(shown.as_deref(), Role::Reader).is_ok();
        let mut head = face.desk.follow();
        let mut seen = after.unwrap_or_else(|| *head.borrow());
        yield Ok(Event::default().retry(RETRY).comment("closed audit records follow"));
        // No id, so that a reader who breaks off here asks again from where he was.
        if let Some(bygone) = face.desk.bygone().await.filter(|bygone| seen < bygone.through) {
            yield Ok(Event::default().event("pruned").data(serde_json::json!(bygone).to_string()));
        }
        loop {
            // Asked to be woken before looking: what is committed in between wakes us again.
            head.borrow_and_update();
            tokens.borrow_and_update();
            let lines = match face.desk.closed_after(seen, BATCH).await {
                Ok(lines) => lines,
                Err(error) => {
                    tracing::warn!(%error, "a stream of records ended because the journal could not be read");
                    break;
                }
            };
            let full = lines.len() >= BATCH as usize;
            if !may_read() {
                tracing::info!("a stream of records ended because its token was taken away");
                break;
            }
            for closed in lines {
                // A slow reader may be in the middle of it when the tokens are replaced.
                if tokens.has_changed().unwrap_or(true) && !may_read() {
                    return;
                }
                seen = closed.seq;
                yield Ok(Event::default().id(closed.seq.to_string()).event("record").data(closed.line.to_string()));
            }
            if full {
                continue;
            }
            tokio::select! {
                () = face.closing.cancelled() => break,
                moved = head.changed() => if moved.is_err() { break },
                _ = tokens.changed() => {}
            }
        }
    }
}
