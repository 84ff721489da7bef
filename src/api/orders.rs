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

use super::desk::PauseOrder;
use super::door::{MayOrder, MayRead};
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseBody {
    scope: Option<ScopeWord>,
    playbook: Option<String>,
    target: Option<String>,
    reason: Option<String>,
    actor: Option<String>,
    r#for: Option<Period>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResumeBody {
    scope: Option<ScopeWord>,
    playbook: Option<String>,
    target: Option<String>,
    reason: Option<String>,
    actor: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetBody {
    breaker: String,
    reason: Option<String>,
    actor: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ScopeWord {
    All,
    Playbook,
    Target,
}

/// `POST /pause`
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
pub async fn resume(_leave: MayOrder, State(face): State<Face>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Problem> {
    let order: ResumeBody = order(&face, &headers, body).await?;
    let scope = scope(order.scope, order.playbook, order.target)?;
    let (actor, reason) = (actor(order.actor)?, reason(order.reason)?);
    face.desk.resume(scope.clone(), actor.clone(), reason.clone()).await?;
    Ok(Json(json!({ "resumed": { "scope": scope, "actor": actor, "reason": reason } })))
}

/// `POST /breaker/reset`
pub async fn reset(_leave: MayOrder, State(face): State<Face>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Problem> {
    let order: ResetBody = order(&face, &headers, body).await?;
    let breaker = sentence("breaker", order.breaker, MAX_ACTOR * 3)?;
    let (actor, reason) = (actor(order.actor)?, reason(order.reason)?);
    face.desk.reset_breaker(breaker.clone(), actor.clone(), reason.clone()).await?;
    Ok(Json(json!({ "reset": { "breaker": breaker, "actor": actor, "reason": reason } })))
}

/// `GET /guards`
pub async fn guards(_leave: MayRead, State(face): State<Face>) -> Result<Json<Value>, Problem> {
    Ok(Json(face.desk.guards().await?))
}

async fn order<T: DeserializeOwned>(face: &Face, headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let held = body::read(face, headers, body, body::MAX_ORDER).await?;
    serde_json::from_slice(&held.bytes).map_err(|error| bad(format!("the order cannot be read: {error}")))
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
