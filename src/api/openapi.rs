//! `GET /openapi.json`: the face as a document that other programs read (OpenAPI 3.1).
//!
//! Promise: every route is in it and nothing else is; the committed `openapi.json` is this document. Tests compare both.
//!
//! How: each route documents itself where it is written; here they are put together, with what holds for all of them.
//! Shapes of answers that are made of inner types are written out here, so that those types need not know of this.

use axum::Json;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi, ToSchema};

use super::{audit, board, desk, orders, probes, remediate, stream};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "remediator",
        description = "Alerts in, receipts out; the audit to read; the kill switch. Errors are `application/problem+json` \
                       (RFC 9457) with a stable `code`. 503 may work later, 400 never will; there is no redirect and no 429."
    ),
    paths(
        remediate::remediate,
        audit::list,
        stream::follow,
        audit::one,
        orders::pause,
        orders::resume,
        orders::abort,
        orders::reset,
        orders::guards,
        probes::metrics,
        probes::healthz,
        probes::readyz,
        document,
    ),
    components(schemas(ProblemShape, board::Board)),
    modifiers(&Doors, &Problems),
)]
struct Face;

/// The document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Face::openapi()
}

/// `GET /openapi.json`
#[utoipa::path(get, path = "/openapi.json", tag = "machines", summary = "This document", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub async fn document() -> Response {
    Json(openapi()).into_response()
}

/// The two ways to show a token.
struct Doors;

impl Modify for Doors {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let mut bearer = Http::new(HttpAuthScheme::Bearer);
        bearer.description = Some("A token of a role: receiver, reader or operator (who may read as well)".to_owned());
        let mut basic = Http::new(HttpAuthScheme::Basic);
        basic.description = Some("The role's name as the user, a token of that role as the password".to_owned());
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme("basic", SecurityScheme::Http(basic));
    }
}

/// What every guarded route may answer.
struct Problems;

impl Modify for Problems {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for item in document.paths.paths.values_mut() {
            for operation in [item.get.as_mut(), item.post.as_mut()].into_iter().flatten() {
                let guarded = operation.security.as_ref().is_some_and(|security| security.len() > 1);
                if !guarded {
                    continue;
                }
                for (status, what) in [
                    ("401", "No token, or one that is not ours"),
                    ("403", "A token of another role, or an order from another site's page"),
                    ("503", "It cannot be done now; asking again later may work"),
                ] {
                    operation.responses.responses.entry(status.to_owned()).or_insert_with(|| problem(what));
                }
            }
        }
    }
}

fn problem(what: &str) -> RefOr<utoipa::openapi::Response> {
    let content = Content::new(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
    ResponseBuilder::new().description(what).content("application/problem+json", content).build().into()
}

/// RFC 9457.
#[derive(ToSchema)]
#[schema(as = Problem)]
#[allow(dead_code, reason = "documents the JSON of a problem")]
pub struct ProblemShape {
    #[schema(rename = "type", example = "urn:remediator:problem:not_found")]
    kind: String,
    #[schema(example = "Not Found")]
    title: String,
    #[schema(example = 404)]
    status: u16,
    /// A sentence for people.
    detail: String,
    /// Stable: may be compared.
    #[schema(example = "not_found")]
    code: String,
}

/// Alertmanager's webhook, version 4; what is not named here is allowed and not read.
#[derive(ToSchema)]
#[schema(as = Delivery)]
#[allow(dead_code, reason = "documents a body that is parsed by hand")]
pub struct DeliveryShape {
    receiver: Option<String>,
    #[schema(rename = "groupKey")]
    group_key: Option<String>,
    #[schema(rename = "truncatedAlerts")]
    truncated_alerts: Option<u64>,
    alerts: Vec<DeliveredShape>,
}

#[derive(ToSchema)]
#[schema(as = DeliveredAlert)]
#[allow(dead_code, reason = "documents a body that is parsed by hand")]
pub struct DeliveredShape {
    /// `firing` (also when left out) or `resolved`.
    status: Option<String>,
    labels: std::collections::BTreeMap<String, String>,
    annotations: Option<std::collections::BTreeMap<String, String>>,
    #[schema(rename = "startsAt", format = DateTime)]
    starts_at: Option<String>,
    #[schema(rename = "endsAt", format = DateTime)]
    ends_at: Option<String>,
}

/// One for each alert, in the order of the delivery.
#[derive(ToSchema)]
#[schema(as = Results)]
#[allow(dead_code, reason = "documents an answer that borrows")]
pub struct ResultsShape {
    results: Vec<desk::Receipt>,
}

/// As `Results`, each with its episode's newest record: the answer to `?wait=`.
#[derive(ToSchema)]
#[schema(as = FollowedResults)]
#[allow(dead_code, reason = "documents an answer that borrows")]
pub struct FollowedShape {
    results: Vec<FollowedOne>,
}

#[derive(ToSchema)]
#[schema(as = FollowedResult)]
#[allow(dead_code, reason = "documents an answer that borrows")]
pub struct FollowedOne {
    receipt: desk::Receipt,
    #[schema(value_type = Option<Object>)]
    record: Option<()>,
}

/// One page of records, newest first.
#[derive(ToSchema)]
#[schema(as = RecordPage)]
#[allow(dead_code, reason = "documents an answer that borrows")]
pub struct PageShape {
    records: Vec<LineShape>,
    /// The `cursor` of the next page; null after the last.
    next: Option<String>,
    /// Once something was pruned; left out before.
    #[schema(nullable = false)]
    pruned: Option<PrunedShape>,
}

/// What is no longer in the journal.
#[derive(ToSchema)]
#[schema(as = Pruned)]
#[allow(dead_code, reason = "documents desk::Bygone")]
pub struct PrunedShape {
    /// Entries up to this one were pruned.
    through: u64,
    /// Their newest is of this time.
    #[schema(format = DateTime)]
    before: String,
}

/// One record as the line of `audit.jsonl`. What is unknown is null, never left out.
#[derive(ToSchema)]
#[schema(as = AuditLine)]
#[allow(dead_code, reason = "documents audit::export::AuditLine")]
pub struct LineShape {
    #[schema(format = "uuid")]
    id: String,
    /// When it was closed; while it is open, when it was opened.
    #[schema(format = DateTime)]
    ts: String,
    host: String,
    healer: String,
    /// `live` or `shadow`.
    mode: String,
    /// What was done, or would have been.
    intent: Option<String>,
    /// Null while it is open.
    outcome: Option<String>,
    reason: Option<String>,
    reason_code: Option<String>,
    /// What Prometheus said when it was asked.
    fact: Option<String>,
    #[schema(value_type = Object)]
    alert: (),
    /// `service/instance`.
    target: Option<String>,
    incident: Option<String>,
    /// Every guardrail's answer with its arithmetic.
    #[schema(value_type = Vec<Object>)]
    guards: (),
    #[schema(value_type = Vec<Object>)]
    steps: (),
    #[schema(value_type = Object)]
    evidence: (),
    duration_ms: Option<u64>,
    /// Number and hash of the newest entry that is folded in: of the closing one, once it is closed.
    seq: u64,
    hash: String,
}

/// The whole story of one record: what it says, and its journal entries with their hashes.
#[derive(ToSchema)]
#[schema(as = Story)]
#[allow(dead_code, reason = "documents an answer that borrows")]
pub struct StoryShape {
    #[schema(value_type = Object)]
    record: (),
    #[schema(value_type = Vec<Object>)]
    entries: (),
}

#[derive(ToSchema)]
#[schema(as = Paused)]
#[allow(dead_code, reason = "documents an answer that borrows")]
pub struct PausedShape {
    paused: board::PauseShape,
}

#[derive(ToSchema)]
#[schema(as = Resumed)]
#[allow(dead_code, reason = "documents an answer that borrows")]
pub struct ResumedShape {
    #[schema(value_type = Object)]
    resumed: (),
}

#[derive(ToSchema)]
#[schema(as = Reset)]
#[allow(dead_code, reason = "documents an answer that borrows")]
pub struct ResetShape {
    #[schema(value_type = Object)]
    reset: (),
}

#[derive(ToSchema)]
#[schema(as = Aborted)]
#[allow(dead_code, reason = "documents an answer that borrows")]
pub struct AbortedShape {
    aborted: board::Aborting,
}

#[derive(ToSchema)]
#[schema(as = Alive)]
#[allow(dead_code, reason = "documents an answer that borrows")]
pub struct AliveShape {
    alive: bool,
}

/// Whether it could act, and what is missing.
#[derive(ToSchema)]
#[schema(as = Readiness)]
#[allow(dead_code, reason = "documents an answer that borrows")]
pub struct ReadyShape {
    ready: bool,
    probes: Vec<desk::Probe>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::audit::query::Found;
    use crate::audit::walks::{opens, start};
    use crate::event::{Entry, Record};

    fn properties(schema: &str) -> BTreeSet<String> {
        let document = serde_json::to_value(openapi()).expect("it is JSON");
        let properties = document["components"]["schemas"][schema]["properties"].as_object().expect(schema).clone();
        properties.into_iter().map(|(name, _)| name).collect()
    }

    fn keys(value: &Value) -> BTreeSet<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    }

    #[test]
    fn a_line_of_the_audit_is_documented_key_by_key() {
        let draft = opens(1, 0, start());
        let entry = Entry { seq: 1, at: draft.at, record: draft.record, event: draft.event };
        let found = Found { record: Record::open(&entry).expect("opens"), hash: "a".to_owned() };
        assert_eq!(keys(&json!(crate::audit::export::line(&found))), properties("AuditLine"));
    }

    #[test]
    fn a_problem_and_a_pause_are_documented_key_by_key() {
        let pause = crate::event::Pause {
            scope: crate::event::PauseScope::All,
            actor: "a".to_owned(),
            reason: "r".to_owned(),
            until: None,
        };
        assert_eq!(keys(&json!(pause)), properties("Pause"));
        let target = crate::event::PauseScope::Target("a/b".to_owned());
        assert_eq!(keys(&json!(target)), properties("Scope"));
        assert_eq!(properties("Problem"), ["code", "detail", "status", "title", "type"].map(str::to_owned).into());
    }
}
