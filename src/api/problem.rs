//! How an error is said: `application/problem+json` (RFC 9457) with a stable code and a sentence.
//!
//! Alertmanager throws every answer's body away and sends again only after a 5xx. So what may work later is a 503, what
//! never will is a 400, and there is no 429, no 408 and no redirect: those it would not send again, or follow.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::desk::{DeskError, Unavailable};
use crate::detect::caller::Denied;
use crate::detect::payload::PayloadError;
use crate::reason::Reason;

/// An error on its way to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
}

#[derive(Serialize)]
struct Document<'p> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'p str,
    code: &'static str,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Problem { status, code, detail: detail.into() }
    }

    /// 400: it can never be answered as it was asked.
    pub fn bad(code: &'static str, detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 404: what it names does not exist.
    pub fn no_such(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 503: asking again later may work.
    pub fn later(code: &'static str, detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
    }
}

impl From<Unavailable> for Problem {
    fn from(error: Unavailable) -> Self {
        tracing::warn!(reason = error.reason.code(), detail = error.detail, "a call was answered with 503");
        Problem::later(error.reason.code(), format!("{}: {}", error.reason.meaning(), error.detail))
    }
}

impl From<DeskError> for Problem {
    fn from(error: DeskError) -> Self {
        match error {
            DeskError::NoSuch(detail) => Problem::no_such(detail),
            DeskError::BadQuery(detail) => Problem::bad("bad_query", detail),
            DeskError::TooLate(detail) => Problem::new(StatusCode::CONFLICT, "too_late", detail),
            DeskError::Unavailable(error) => error.into(),
        }
    }
}

impl From<PayloadError> for Problem {
    fn from(error: PayloadError) -> Self {
        tracing::warn!(code = error.code(), %error, "a delivery was refused with 400; Alertmanager will not send it again soon");
        Problem::bad(error.code(), error.to_string())
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let status = match denied {
            Denied::Missing | Denied::Unknown => StatusCode::UNAUTHORIZED,
            Denied::WrongRole(_) => StatusCode::FORBIDDEN,
        };
        Problem::new(status, denied.code(), denied.to_string())
    }
}

/// The program stops, so a wait or a stream is not begun.
pub fn stopping() -> Problem {
    Problem::later(Reason::ShuttingDown.code(), Reason::ShuttingDown.meaning())
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            r#type: format!("urn:remediator:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
        };
        let mut response = (self.status, Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            for scheme in ["Bearer realm=\"remediator\"", "Basic realm=\"remediator\", charset=\"UTF-8\""] {
                headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
            }
        }
        response
    }
}
