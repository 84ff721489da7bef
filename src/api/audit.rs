//! `GET /audit` and `GET /audit/{id}`: what happened, and why.
//!
//! Strict about its parameters: a misspelt filter that is ignored would answer a question that nobody asked. Pages are
//! walked by an opaque cursor; as NDJSON the next page is in the `Link` header, so that the body is records only.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Face;
use super::desk::{AuditFilter, Bygone, RecordPage};
use super::door::MayRead;
use super::openapi::{LineShape, PageShape, ProblemShape, StoryShape};
use super::problem::Problem;
use crate::event::RecordId;
use crate::reason::{Outcome, Reason};

/// One record per line.
pub const NDJSON: &str = "application/x-ndjson";

/// What closed before this time was pruned.
const PRUNED_BEFORE: &str = "remediator-pruned-before";
/// Records of a page when nobody says how many; a screen or two.
const USUAL_LIMIT: u32 = 50;
/// Most records of a page: a record with its evidence has some 20 KB, so that a page stays around 10 MB.
const MAX_LIMIT: u32 = 500;
/// Longest value of a parameter, in bytes. A group key is the longest.
const MAX_VALUE: usize = 16 * 1024;

/// Every parameter there is.
const KNOWN: [&str; 10] =
    ["outcome", "reason", "playbook", "target", "fingerprint", "groupKey", "since", "until", "cursor", "limit"];

/// What is asked of `GET /audit`.
#[derive(Debug, PartialEq)]
struct Question {
    filter: AuditFilter,
    cursor: Option<String>,
    limit: u32,
}

/// One page, of lines that are text already: they are copied, in the order of keys that `audit.jsonl` has.
#[derive(Serialize)]
struct Body<'a> {
    records: &'a [Box<RawValue>],
    next: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pruned: Option<&'a Bygone>,
}

/// `GET /audit`
#[utoipa::path(get, path = "/audit", tag = "reading", summary = "Records, newest first, page by page", security(("bearer" = []), ("basic" = [])),
    params(
        ("outcome" = Option<String>, Query, description = "Such as recovered; RUNBOOK.md lists them"),
        ("reason" = Option<String>, Query, description = "A reason code"),
        ("playbook" = Option<String>, Query),
        ("target" = Option<String>, Query, description = "service/instance"),
        ("fingerprint" = Option<String>, Query, description = "Of an alert: 16 hexadecimal digits"),
        ("groupKey" = Option<String>, Query),
        ("since" = Option<String>, Query, description = "Opened at this time or later (RFC 3339)"),
        ("until" = Option<String>, Query, description = "Opened before this time"),
        ("cursor" = Option<String>, Query, description = "From the page before"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500),
    ),
    responses(
        (status = 200, description = "One page; as NDJSON (by `Accept`) the next page is in the header `Link`",
            content((PageShape = "application/json"), (LineShape = "application/x-ndjson"))),
        (status = 400, description = "A parameter that there is not, or a value that cannot be", body = ProblemShape, content_type = "application/problem+json"),
    ))]
pub async fn list(_leave: MayRead, State(face): State<Face>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let Question { filter, cursor, limit } = question(&uri)?;
    let page = face.desk.records(filter, cursor, limit).await?;
    let bygone = face.desk.bygone().await;
    let mut response = if wants_ndjson(&headers) {
        ndjson(&page, &uri)
    } else {
        Json(Body { records: &page.records, next: page.next.as_deref(), pruned: bygone.as_ref() }).into_response()
    };
    // Whoever reads lines is told as well that the oldest of them are not the first there ever were.
    if let Some(before) = bygone.and_then(|bygone| HeaderValue::from_str(&bygone.before.to_string()).ok()) {
        response.headers_mut().insert(PRUNED_BEFORE, before);
    }
    Ok(response)
}

/// `GET /audit/{id}`
#[utoipa::path(get, path = "/audit/{id}", tag = "reading", summary = "The whole story of one record", security(("bearer" = []), ("basic" = [])),
    params(("id" = String, Path, description = "A UUID, as /remediate and /audit give it")),
    responses(
        (status = 200, description = "The record and its entries", body = StoryShape),
        (status = 400, description = "Not an id", body = ProblemShape, content_type = "application/problem+json"),
        (status = 404, description = "There is no such record", body = ProblemShape, content_type = "application/problem+json"),
    ))]
pub async fn one(_leave: MayRead, State(face): State<Face>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id: RecordId =
        id.parse().map_err(|_| Problem::bad("bad_id", "an audit record's id is a UUID, as /remediate and /audit give it"))?;
    match face.desk.record(id).await? {
        Some(story) => Ok(Json(story).into_response()),
        None => Err(missing(id, face.desk.bygone().await)),
    }
}

/// A record's id tells when it was opened, so that one can be told that was pruned from one that never was.
fn missing(id: RecordId, bygone: Option<Bygone>) -> Problem {
    let opened = id.opened_at();
    match bygone.filter(|bygone| opened.is_some_and(|opened| opened <= bygone.before)) {
        Some(Bygone { before, .. }) => Problem::new(
            StatusCode::NOT_FOUND,
            "pruned",
            format!(
                "audit record {id} was pruned, if it ever was: the journal keeps what closed after {before:.0}. \
                 Look for its line in audit.jsonl and its rotated files, or in a backup"
            ),
        ),
        None => Problem::no_such(format!("there is no audit record {id}")),
    }
}

fn question(uri: &Uri) -> Result<Question, Problem> {
    let bad = |detail: String| Problem::bad("bad_query", detail);
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| bad(error.body_text()))?;
    let mut question = Question { filter: AuditFilter::default(), cursor: None, limit: USUAL_LIMIT };
    let mut seen: Vec<&str> = Vec::new();
    for (name, value) in &pairs {
        if seen.contains(&name.as_str()) {
            return Err(bad(format!("parameter {name} is there twice")));
        }
        if value.is_empty() || value.len() > MAX_VALUE {
            return Err(bad(format!("{}: empty, or longer than {MAX_VALUE} bytes", clip(name))));
        }
        question.take(name, value).map_err(bad)?;
        seen.push(name);
    }
    Ok(question)
}

impl Question {
    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        let wrong = |why: &dyn std::fmt::Display| format!("{name}: {why}");
        let filter = &mut self.filter;
        match name {
            "outcome" => filter.outcome = Some(outcome(value)?),
            "reason" => {
                let known = Reason::ALL.iter().find(|reason| reason.code() == value);
                filter.reason = Some(*known.ok_or_else(|| format!("reason: `{}` is not a reason code", clip(value)))?);
            }
            "playbook" => filter.playbook = Some(value.parse().map_err(|error| wrong(&error))?),
            "target" if value.split_once('/').is_some_and(|(service, instance)| !service.is_empty() && !instance.is_empty()) => {
                filter.target = Some(value.to_owned());
            }
            // Half a target would match nothing, and read as "nothing happened there".
            "target" => return Err("target: must be service/instance".to_owned()),
            "fingerprint" => {
                if value.len() != 16 || !value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err("fingerprint: must be 16 hexadecimal digits".to_owned());
                }
                filter.fingerprint = Some(value.to_ascii_lowercase());
            }
            "groupKey" => filter.group_key = Some(value.to_owned()),
            "since" => filter.since = Some(value.parse().map_err(|_| moment(name))?),
            "until" => filter.until = Some(value.parse().map_err(|_| moment(name))?),
            "cursor" => self.cursor = Some(value.to_owned()),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                self.limit = limit.ok_or_else(|| format!("limit: must be a number from 1 to {MAX_LIMIT}"))?;
            }
            _ => return Err(format!("there is no parameter `{}`; there are {}", clip(name), KNOWN.join(", "))),
        }
        Ok(())
    }
}

fn outcome(value: &str) -> Result<Outcome, String> {
    Outcome::ALL.iter().copied().find(|outcome| outcome.word() == value).ok_or_else(|| {
        let words: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.word()).collect();
        format!("outcome: `{}` is none of {}", clip(value), words.join(", "))
    })
}

fn moment(name: &str) -> String {
    format!("{name}: must be a time such as 2026-03-01T02:00:00Z (a `+` in it is written %2B)")
}

fn clip(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

fn wants_ndjson(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|media| media.split(';').next().unwrap_or_default().trim() == NDJSON)
}

fn ndjson(page: &RecordPage, uri: &Uri) -> Response {
    let lines: String = page.records.iter().map(|record| format!("{record}\n")).collect();
    let mut response = ([(header::CONTENT_TYPE, NDJSON)], lines).into_response();
    if let Some(link) = page.next.as_deref().and_then(|next| HeaderValue::from_str(&next_link(uri, next)).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// The same question from where the page ends.
fn next_link(uri: &Uri, next: &str) -> String {
    let asked = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    let cursor = format!("cursor={next}");
    let query: Vec<&str> = asked.chain([cursor.as_str()]).collect();
    format!("</audit?{}>; rel=\"next\"", query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<Question, Problem> {
        question(&format!("/audit?{query}").parse().expect("a uri"))
    }

    #[test]
    fn every_known_parameter_is_read() {
        let query = "outcome=refused&reason=min_healthy&playbook=inventory-fd-leak&target=inventory/inventory-2:8080&\
                     fingerprint=678850D779BDA26B&groupKey=%7B%7D:%7B%7D&since=2026-03-01T00:00:00Z&until=2026-03-02T00:00:00Z&cursor=c1&limit=7";
        let got = asked(query).expect("all known");
        assert_eq!(got.filter.outcome, Some(Outcome::Refused));
        assert_eq!(got.filter.reason, Some(Reason::MinHealthy));
        assert_eq!(got.filter.fingerprint.as_deref(), Some("678850d779bda26b"));
        assert_eq!(got.filter.group_key.as_deref(), Some("{}:{}"));
        assert_eq!((got.cursor.as_deref(), got.limit), (Some("c1"), 7));
        assert!(got.filter.since < got.filter.until && got.filter.target.is_some() && got.filter.playbook.is_some());
        assert_eq!(asked("").expect("nothing asked").filter, AuditFilter::default());
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (query, named) in [
            ("outcom=refused", "there is no parameter `outcom`; there are outcome, reason,"),
            ("outcome=great", "is none of recovered, still_firing"),
            ("reason=because", "`because` is not a reason code"),
            ("since=yesterday", "since: must be a time"),
            ("limit=0", "from 1 to 500"),
            ("limit=501", "from 1 to 500"),
            ("fingerprint=xyz", "16 hexadecimal digits"),
            ("playbook=a%20b", "playbook: "),
            ("target=", "target: empty"),
            ("target=inventory-2:8080", "target: must be service/instance"),
            ("target=inventory/", "target: must be service/instance"),
            ("limit=1&limit=2", "limit is there twice"),
        ] {
            let problem = format!("{:?}", asked(query).expect_err(query));
            assert!(problem.contains(named), "{query}: {problem}");
        }
    }

    #[test]
    fn the_next_page_asks_the_same_question() {
        let uri: Uri = "/audit?limit=2&cursor=old&outcome=refused".parse().expect("a uri");
        assert_eq!(next_link(&uri, "new"), "</audit?limit=2&outcome=refused&cursor=new>; rel=\"next\"");
        assert_eq!(next_link(&"/audit".parse().expect("a uri"), "new"), "</audit?cursor=new>; rel=\"next\"");
    }
}
