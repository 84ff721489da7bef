//! What an operator may order: pause, resume, reset a breaker. And the state of every rail, which he looks at first.
//!
//! Every order carries a reason, because the journal must answer "why did it not act?" as well. Orders are parsed
//! strictly: an unknown field in a pause might have been the one that mattered.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::board::Board;
use super::desk::PauseOrder;
use super::door::{MayOrder, MayRead};
use super::openapi::{AbortedShape, PausedShape, ProblemShape, ResetShape, ResumedShape};
use super::problem::Problem;
use super::{Face, body};
use crate::event::PauseScope;
use crate::period::Period;
use crate::target::{Instance, ServiceName};

/// Longest reason, in characters: it is printed in pages.
const MAX_REASON: usize = 1_000;
/// Longest name of an actor, in characters.
const MAX_ACTOR: usize = 100;
/// Who ordered it, when the order does not say.
const NOBODY: &str = "api";

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PauseBody {
    scope: Option<ScopeWord>,
    playbook: Option<String>,
    target: Option<String>,
    /// One line; must be given.
    #[schema(value_type = String, max_length = 1000)]
    reason: Option<String>,
    #[schema(max_length = 100)]
    actor: Option<String>,
    /// How long; until somebody resumes when left out.
    #[schema(value_type = Option<String>, example = "2h")]
    r#for: Option<Period>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResumeBody {
    scope: Option<ScopeWord>,
    playbook: Option<String>,
    target: Option<String>,
    /// One line; must be given.
    #[schema(value_type = String, max_length = 1000)]
    reason: Option<String>,
    #[schema(max_length = 100)]
    actor: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResetBody {
    /// `playbook/service`.
    breaker: String,
    /// One line; must be given.
    #[schema(value_type = String, max_length = 1000)]
    reason: Option<String>,
    #[schema(max_length = 100)]
    actor: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AbortBody {
    /// The record, as `/guards` lists it under `open`.
    #[schema(format = "uuid")]
    id: String,
    /// One line; must be given.
    #[schema(value_type = String, max_length = 1000)]
    reason: Option<String>,
    #[schema(max_length = 100)]
    actor: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ScopeWord {
    All,
    Playbook,
    Target,
}

/// `POST /pause`
#[utoipa::path(post, path = "/pause", tag = "orders", summary = "Stop everything, one playbook or one target", security(("bearer" = []), ("basic" = [])),
    request_body = PauseBody,
    responses(
        (status = 200, description = "On disk, and read again before each drain and each restart", body = PausedShape),
        (status = 400, description = "The order is not clear", body = ProblemShape, content_type = "application/problem+json"),
        (status = 404, description = "There is no such playbook or target", body = ProblemShape, content_type = "application/problem+json"),
    ))]
pub async fn pause(_leave: MayOrder, State(face): State<Face>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Problem> {
    let order: PauseBody = order(&face, &headers, body).await?;
    if order.r#for == Some(Period::ZERO) {
        return Err(bad("for: a pause of no length is none"));
    }
    let order = PauseOrder {
        scope: scope(order.scope, order.playbook, order.target)?,
        actor: actor(order.actor)?,
        reason: reason(order.reason)?,
        lasting: order.r#for,
    };
    let pause = face.desk.pause(order).await?;
    Ok(Json(json!({ "paused": pause })))
}

/// `POST /resume`
#[utoipa::path(post, path = "/resume", tag = "orders", summary = "End every pause of exactly this scope", security(("bearer" = []), ("basic" = [])),
    request_body = ResumeBody,
    responses(
        (status = 200, description = "What is watched is asked about again at once", body = ResumedShape),
        (status = 400, description = "The order is not clear", body = ProblemShape, content_type = "application/problem+json"),
        (status = 404, description = "This scope is not paused", body = ProblemShape, content_type = "application/problem+json"),
    ))]
pub async fn resume(_leave: MayOrder, State(face): State<Face>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Problem> {
    let order: ResumeBody = order(&face, &headers, body).await?;
    let scope = scope(order.scope, order.playbook, order.target)?;
    let (actor, reason) = (actor(order.actor)?, reason(order.reason)?);
    face.desk.resume(scope.clone(), actor.clone(), reason.clone()).await?;
    Ok(Json(json!({ "resumed": { "scope": scope, "actor": actor, "reason": reason } })))
}

/// `POST /breaker/reset`
#[utoipa::path(post, path = "/breaker/reset", tag = "orders", summary = "Close a breaker by hand", security(("bearer" = []), ("basic" = [])),
    request_body = ResetBody,
    responses(
        (status = 200, description = "Closed, and counting from nothing", body = ResetShape),
        (status = 400, description = "The order is not clear", body = ProblemShape, content_type = "application/problem+json"),
        (status = 404, description = "There is no such breaker", body = ProblemShape, content_type = "application/problem+json"),
    ))]
pub async fn reset(_leave: MayOrder, State(face): State<Face>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Problem> {
    let order: ResetBody = order(&face, &headers, body).await?;
    let breaker = sentence("breaker", order.breaker, MAX_ACTOR * 3)?;
    let (actor, reason) = (actor(order.actor)?, reason(order.reason)?);
    face.desk.reset_breaker(breaker.clone(), actor.clone(), reason.clone()).await?;
    Ok(Json(json!({ "reset": { "breaker": breaker, "actor": actor, "reason": reason } })))
}

/// `POST /abort`
#[utoipa::path(post, path = "/abort", tag = "orders", summary = "Break one run off at its next safe point", security(("bearer" = []), ("basic" = [])),
    request_body = AbortBody,
    responses(
        (status = 200, description = "Ordered, now or before: no drain and no restart of this record begins any more", body = AbortedShape),
        (status = 400, description = "The order is not clear", body = ProblemShape, content_type = "application/problem+json"),
        (status = 404, description = "There is no such record", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "Its restart is begun, or it is closed already", body = ProblemShape, content_type = "application/problem+json"),
    ))]
pub async fn abort(_leave: MayOrder, State(face): State<Face>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Problem> {
    let order: AbortBody = order(&face, &headers, body).await?;
    let id = order.id.parse().map_err(|_| bad("id: an audit record's id is a UUID, as /guards lists it under open"))?;
    let aborted = face.desk.abort(id, actor(order.actor)?, reason(order.reason)?).await?;
    Ok(Json(json!({ "aborted": aborted })))
}

/// `GET /guards`
#[utoipa::path(get, path = "/guards", tag = "reading", summary = "What is true now: every rail, what is under way, what is waited for", security(("bearer" = []), ("basic" = [])),
    responses((status = 200, description = "Read from memory", body = Board)))]
pub async fn guards(_leave: MayRead, State(face): State<Face>) -> Result<Json<Board>, Problem> {
    Ok(Json(face.desk.guards().await?))
}

async fn order<T: DeserializeOwned>(face: &Face, headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let held = body::read(face, headers, body, body::MAX_ORDER).await?;
    serde_json::from_slice(&held.bytes).map_err(|error| {
        // Someone who got the quotes of a shell wrong is helped by an example, not by the parser's words.
        let example = if error.is_data() { "" } else { "; send JSON, such as {\"reason\":\"release in progress\"}" };
        bad(format!("the order cannot be read: {error}{example}"))
    })
}

/// Everything, when nothing is named: to stop too much is the safe mistake.
fn scope(word: Option<ScopeWord>, playbook: Option<String>, target: Option<String>) -> Result<PauseScope, Problem> {
    match (word, playbook, target) {
        (None | Some(ScopeWord::All), None, None) => Ok(PauseScope::All),
        (None | Some(ScopeWord::Playbook), Some(name), None) => {
            name.parse().map(PauseScope::Playbook).map_err(|error| bad(error.to_string()))
        }
        (None | Some(ScopeWord::Target), None, Some(name)) => target_name(name).map(PauseScope::Target),
        _ => Err(bad("scope: say nothing or \"all\" for everything, or name one playbook, or one target as service/instance")),
    }
}

fn target_name(name: String) -> Result<String, Problem> {
    let (service, instance) = name.split_once('/').ok_or_else(|| bad("target: must be service/instance"))?;
    service.parse::<ServiceName>().map_err(|error| bad(error.to_string()))?;
    instance.parse::<Instance>().map_err(|error| bad(error.to_string()))?;
    Ok(name)
}

fn reason(text: Option<String>) -> Result<String, Problem> {
    sentence("reason", text.unwrap_or_default(), MAX_REASON)
}

fn actor(text: Option<String>) -> Result<String, Problem> {
    text.map_or_else(|| Ok(NOBODY.to_owned()), |text| sentence("actor", text, MAX_ACTOR))
}

/// One line that says something.
fn sentence(field: &str, text: String, most: usize) -> Result<String, Problem> {
    let text = text.trim();
    match text.chars().count() {
        0 => Err(bad(format!("{field}: must be given; it goes into the journal"))),
        length if length > most => Err(bad(format!("{field}: {length} characters, at most {most}"))),
        _ if text.chars().any(char::is_control) => Err(bad(format!("{field}: must be one line without control characters"))),
        _ => Ok(text.to_owned()),
    }
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::bad("bad_order", detail)
}
