//! Alertmanager's API, at every Alertmanager of the cluster: raise and end alerts, ask for silences.
//!
//! A page must get out while one of them lives, so one that took it is enough. A silence seen by one of them is a
//! silence. Whether a silence matches is worked out here, by Alertmanager's rules, because its API only lists them.
//! A silence that may match but holds a regular expression that we cannot compile counts as "cannot say": holding
//! back is the safe side of a doubt about "hold".
//!
//! A page that is up goes out without times. Alertmanager puts its own, keeps the first start while it is told again,
//! and ends what it is not told of for `resolve_timeout`. By our own times a page would be over on arrival while this
//! clock is behind, and be turned down, as one that starts after its end, while it is ahead.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use jiff::Timestamp;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::BadAddress;
use super::http::{Body, Peer, Reply};
use super::redact::plain_line;
use crate::alert::{LabelSet, MatchOp, Matcher};
use crate::reason::Reason;
use crate::world::{Answer, PageAlert, Pager, Silence, Unanswered};

/// Longest piece of Alertmanager's own words quoted in a detail, in bytes.
const MAX_QUOTED: usize = 300;

/// One or more Alertmanagers, peers of one cluster.
#[derive(Clone, Debug)]
pub struct Alertmanager {
    peers: Vec<Peer>,
}

/// What one Alertmanager's list of silences says about a label set.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Matching {
    pub silences: Vec<Silence>,
    /// Active silences of which it cannot be said whether they match, each with its cause.
    pub doubtful: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PostableAlert<'a> {
    labels: &'a LabelSet,
    annotations: &'a LabelSet,
    #[serde(skip_serializing_if = "Option::is_none")]
    starts_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SilenceOnTheWire {
    id: String,
    status: SilenceStatus,
    #[serde(default)]
    comment: String,
    #[serde(default)]
    created_by: String,
    ends_at: Option<Timestamp>,
    matchers: Vec<MatcherOnTheWire>,
}

#[derive(Deserialize)]
struct SilenceStatus {
    state: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MatcherOnTheWire {
    name: String,
    value: String,
    is_regex: bool,
    /// Absent before Alertmanager 0.22, when there were no negative matchers.
    is_equal: Option<bool>,
}

impl Alertmanager {
    /// `urls` may carry path prefixes. `timeout` bounds each question to each of them.
    ///
    /// # Errors
    /// No URL at all, or one that is not an HTTP URL.
    pub fn new(urls: &[String], timeout: Duration) -> Result<Self, BadAddress> {
        if urls.is_empty() {
            return Err(BadAddress::new("Alertmanager", "", "name at least one"));
        }
        let peers = urls.iter().map(|url| Peer::new("Alertmanager", url, timeout)).collect::<Result<_, _>>()?;
        Ok(Alertmanager { peers })
    }
}

#[async_trait]
impl Pager for Alertmanager {
    async fn raise(&self, alerts: &[PageAlert]) -> Answer<()> {
        let body: Vec<_> = alerts
            .iter()
            .map(|alert| PostableAlert {
                labels: &alert.labels,
                annotations: &alert.annotations,
                starts_at: alert.ends_at.map(|ends_at| alert.starts_at.min(ends_at)),
                ends_at: alert.ends_at,
            })
            .collect();
        let body = serde_json::to_vec(&body).map_err(|error| unavailable(format!("writing the alerts: {error}")))?;
        let answers = join_all(self.peers.iter().map(|peer| async {
            let path = "api/v2/alerts";
            let reply = peer.ask(Method::POST, path, Body::Json(body.clone())).await.map_err(|why| why.to_string())?;
            accepted(&reply).map_err(|why| format!("{}{path}: {why}", peer.shown()))
        }))
        .await;
        any_of(answers).map(|_| ())
    }

    async fn silences(&self, labels: &LabelSet) -> Answer<Vec<Silence>> {
        let answers = join_all(self.peers.iter().map(|peer| async {
            let path = "api/v2/silences";
            let reply = peer.ask(Method::GET, path, Body::None).await.map_err(|why| why.to_string())?;
            let read = accepted(&reply).and_then(|()| read_silences(&reply.body, labels));
            read.map_err(|why| format!("{}{path}: {why}", peer.shown()))
        }))
        .await;
        union(any_of(answers)?)
    }
}

/// The answers of those that answered; an error, with every cause, when none did.
fn any_of<T>(answers: Vec<Result<T, String>>) -> Answer<Vec<T>> {
    let mut taken = Vec::new();
    let mut failed = Vec::new();
    for answer in answers {
        match answer {
            Ok(value) => taken.push(value),
            Err(why) => failed.push(why),
        }
    }
    if taken.is_empty() {
        return Err(unavailable(failed.join("; ")));
    }
    // The caller sees only that it worked, so a peer that is down is said here.
    for why in failed {
        tracing::warn!(reason = Reason::AlertmanagerUnavailable.code(), detail = %why, "one Alertmanager of several did not answer");
    }
    Ok(taken)
}

/// Peers share their silences, so most are listed by each of them.
fn union(answers: Vec<Matching>) -> Answer<Vec<Silence>> {
    let mut silences: Vec<Silence> = Vec::new();
    let mut doubtful = Vec::new();
    for answer in answers {
        for silence in answer.silences {
            if silences.iter().all(|known| known.id != silence.id) {
                silences.push(silence);
            }
        }
        doubtful.extend(answer.doubtful);
    }
    doubtful.dedup();
    match doubtful.is_empty() || !silences.is_empty() {
        true => Ok(silences),
        false => Err(unavailable(doubtful.join("; "))),
    }
}

/// The active silences of one answer that match `labels`, and those of which that cannot be said.
///
/// # Errors
/// Not a list of silences.
pub fn read_silences(body: &[u8], labels: &LabelSet) -> Result<Matching, String> {
    let listed: Vec<SilenceOnTheWire> =
        serde_json::from_slice(body).map_err(|error| plain_line(&error.to_string(), MAX_QUOTED))?;
    let mut out = Matching::default();
    for silence in listed.into_iter().filter(|silence| silence.status.state == "active") {
        let parsed: Vec<_> = silence.matchers.iter().map(|m| Matcher::new(&m.name, m.op(), &m.value)).collect();
        // One matcher that says no is enough, whatever the others mean.
        if parsed.iter().flatten().any(|matcher| !matcher.matches(labels)) {
            continue;
        }
        match parsed.into_iter().find_map(Result::err) {
            None => out.silences.push(Silence {
                id: plain_line(&silence.id, 80),
                comment: plain_line(&silence.comment, MAX_QUOTED),
                created_by: plain_line(&silence.created_by, 80),
                ends_at: silence.ends_at,
            }),
            Some(error) => {
                let (id, error) = (plain_line(&silence.id, 80), plain_line(&error.to_string(), MAX_QUOTED));
                out.doubtful.push(format!("silence {id} may match: {error}"));
            }
        }
    }
    Ok(out)
}

impl MatcherOnTheWire {
    fn op(&self) -> MatchOp {
        match (self.is_regex, self.is_equal.unwrap_or(true)) {
            (false, true) => MatchOp::Equal,
            (false, false) => MatchOp::NotEqual,
            (true, true) => MatchOp::Regex,
            (true, false) => MatchOp::NotRegex,
        }
    }
}

/// Only 200 is a yes: a 400 may mean that every alert but one was stored, and which is not said.
fn accepted(reply: &Reply) -> Result<(), String> {
    if reply.status == 200 {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&reply.body[..reply.body.len().min(2 * MAX_QUOTED)]);
    Err(format!("HTTP {}: {}", reply.status, plain_line(said.trim(), MAX_QUOTED)))
}

fn unavailable(detail: impl Into<String>) -> Unanswered {
    Unanswered::new(Reason::AlertmanagerUnavailable, detail)
}
