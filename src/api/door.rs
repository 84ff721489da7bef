//! Leave to call, as types: a route that demands a `MayRead` cannot be reached without one.
//!
//! Each is an extractor that shows the request's head to the [`Gate`](crate::detect::caller::Gate); it runs before any
//! byte of the body is read. Who is turned away is counted, each time; the log gets a sum (`turned_away`).

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use tokio::time::Instant;

use super::Face;
use super::problem::Problem;
use crate::detect::caller::{Caller, Role};
use crate::edge::serve::{Peer, host};

/// Leave to deliver alerts.
#[derive(Debug)]
pub struct MayDeliver(pub Caller);

/// Leave to read the audit and the guards' state.
#[derive(Debug)]
pub struct MayRead(pub Caller);

/// Leave to pause, resume and reset.
#[derive(Debug)]
pub struct MayOrder(pub Caller);

impl FromRequestParts<Face> for MayDeliver {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, face: &Face) -> Result<Self, Problem> {
        admit(parts, face, Role::Receiver).map(MayDeliver)
    }
}

impl FromRequestParts<Face> for MayRead {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, face: &Face) -> Result<Self, Problem> {
        admit(parts, face, Role::Reader).map(MayRead)
    }
}

impl FromRequestParts<Face> for MayOrder {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, face: &Face) -> Result<Self, Problem> {
        admit(parts, face, Role::Operator).map(MayOrder)
    }
}

fn admit(parts: &Parts, face: &Face, wanted: Role) -> Result<Caller, Problem> {
    let header = parts.headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    face.gate.admit(header, wanted).map_err(|denied| {
        let problem = Problem::from(denied);
        face.telemetry.denied(denied.status());
        let peer = parts.extensions.get::<Peer>().map(|peer| peer.0);
        let status = denied.status();
        if face.turned_away.one(peer.map(|peer| host(peer.ip())), status, Instant::now()) {
            let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
            tracing::info!(peer, status, path = parts.uri.path(), %denied, "a call was turned away; more of them are summed up");
        }
        problem
    })
}
