//! Prometheus' HTTP API: an instant query, the alerting rules, the scrape targets.
//!
//! An answer counts only if it is HTTP 200, `status: success`, without warnings, and of the shape asked for.
//! Everything else is an [`Unanswered`] with its own reason, so that "Prometheus is down", "it says no" and "it says
//! something that we cannot read" are never mistaken for each other, or for "nothing is firing".
//! API: <https://prometheus.io/docs/prometheus/latest/querying/api/>.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::BadAddress;
use super::http::{Body, NoReply, Peer};
use super::redact::plain_line;
use crate::alert::LabelSet;
use crate::period::Period;
use crate::reason::Reason;
use crate::world::{AlertingRule, Answer, Metrics, RuleAlert, RuleAlertState, Sample, ScrapeTarget, Unanswered};

/// Longest piece of Prometheus' own words quoted in a detail, in bytes.
const MAX_QUOTED: usize = 300;

/// One Prometheus server.
#[derive(Clone, Debug)]
pub struct Prometheus {
    peer: Peer,
}

#[derive(Deserialize)]
struct Envelope<D> {
    status: String,
    data: Option<D>,
    #[serde(rename = "errorType")]
    error_type: Option<String>,
    error: Option<String>,
    /// `infos` is left out on purpose: those are advice about the query, not about the data.
    warnings: Option<Vec<String>>,
}

/// Matrices and strings are not what we ask for, and fail as unknown variants.
#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum QueryResult {
    Vector(Vec<Series>),
    Scalar((f64, String)),
}

/// A native histogram has `histogram` in place of `value`, and so cannot be read as a number.
#[derive(Deserialize)]
struct Series {
    metric: LabelSet,
    value: (f64, String),
}

#[derive(Deserialize)]
struct RuleGroups {
    groups: Vec<RuleGroup>,
}

#[derive(Deserialize)]
struct RuleGroup {
    interval: f64,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Rule {
    Alerting(RuleOnTheWire),
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleOnTheWire {
    name: String,
    query: String,
    duration: f64,
    #[serde(default)]
    labels: LabelSet,
    health: String,
    last_evaluation: Option<String>,
    #[serde(default)]
    alerts: Vec<RuleAlertOnTheWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleAlertOnTheWire {
    labels: LabelSet,
    state: String,
    active_at: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Targets {
    active_targets: Vec<TargetOnTheWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TargetOnTheWire {
    labels: LabelSet,
    health: String,
    last_scrape: Option<String>,
    #[serde(default)]
    last_error: String,
    scrape_interval: String,
}

impl Prometheus {
    /// `url` may carry a path prefix. `timeout` bounds each question as a whole.
    ///
    /// # Errors
    /// Not an HTTP URL.
    pub fn new(url: &str, timeout: Duration) -> Result<Self, BadAddress> {
        Ok(Prometheus { peer: Peer::new("Prometheus", url, timeout)? })
    }

    async fn ask<T>(&self, method: Method, path: &str, body: Body<'_>, read: fn(u16, &[u8]) -> Answer<T>) -> Answer<T> {
        let reply = self.peer.ask(method, path, body).await.map_err(|why| match why {
            NoReply::Unreachable(detail) => Unanswered::new(Reason::PrometheusUnreachable, detail),
            NoReply::Timeout(detail) => Unanswered::new(Reason::PrometheusTimeout, detail),
            NoReply::Unreadable(detail) => Unanswered::new(Reason::PrometheusMalformed, detail),
        })?;
        read(reply.status, &reply.body)
            .map_err(|why| Unanswered::new(why.reason, format!("{}{path}: {}", self.peer.shown(), why.detail)))
    }
}

#[async_trait]
impl Metrics for Prometheus {
    async fn instant(&self, query: &str, at: Timestamp) -> Answer<Vec<Sample>> {
        // POST, because a long query does not fit every proxy's idea of a URL.
        let fields = [("query", query), ("time", &at.to_string())];
        self.ask(Method::POST, "api/v1/query", Body::Form(&fields), read_instant).await
    }

    async fn alerting_rules(&self) -> Answer<Vec<AlertingRule>> {
        self.ask(Method::GET, "api/v1/rules?type=alert", Body::None, read_rules).await
    }

    async fn scrape_targets(&self) -> Answer<Vec<ScrapeTarget>> {
        self.ask(Method::GET, "api/v1/targets?state=active", Body::None, read_targets).await
    }
}

/// Reads the answer to an instant query.
pub fn read_instant(status: u16, body: &[u8]) -> Answer<Vec<Sample>> {
    let number = |text: &str| text.parse().map_err(|_| malformed(format!("`{}` is not a number", plain_line(text, 40))));
    match read::<QueryResult>(status, body)? {
        QueryResult::Vector(series) => {
            series.into_iter().map(|one| Ok(Sample { labels: one.metric, value: number(&one.value.1)? })).collect()
        }
        QueryResult::Scalar((_, value)) => Ok(vec![Sample { labels: LabelSet::default(), value: number(&value)? }]),
    }
}

/// Reads the answer of the rules API; rules of other kinds are left out.
pub fn read_rules(status: u16, body: &[u8]) -> Answer<Vec<AlertingRule>> {
    let mut out = Vec::new();
    for group in read::<RuleGroups>(status, body)?.groups {
        for rule in group.rules {
            if let Rule::Alerting(rule) = rule {
                out.push(alerting_rule(rule, group.interval)?);
            }
        }
    }
    Ok(out)
}

fn alerting_rule(rule: RuleOnTheWire, interval_seconds: f64) -> Answer<AlertingRule> {
    let mut alerts = Vec::with_capacity(rule.alerts.len());
    for alert in rule.alerts {
        let state = match alert.state.as_str() {
            "pending" => RuleAlertState::Pending,
            "firing" => RuleAlertState::Firing,
            // By its own word not active.
            "inactive" => continue,
            other => {
                let (rule, other) = (plain_line(&rule.name, 80), plain_line(other, 40));
                return Err(malformed(format!("an alert of rule {rule} is in the unknown state `{other}`")));
            }
        };
        alerts.push(RuleAlert { labels: alert.labels, state, active_at: instant_of(alert.active_at.as_deref())? });
    }
    Ok(AlertingRule {
        name: rule.name,
        query: rule.query,
        labels: rule.labels,
        for_seconds: rule.duration,
        interval_seconds,
        last_evaluation: instant_of(rule.last_evaluation.as_deref())?,
        health: rule.health,
        alerts,
    })
}

/// Reads the answer of the targets API.
pub fn read_targets(status: u16, body: &[u8]) -> Answer<Vec<ScrapeTarget>> {
    let targets = read::<Targets>(status, body)?.active_targets;
    targets
        .into_iter()
        .map(|target| {
            let interval: Period = target
                .scrape_interval
                .parse()
                .map_err(|error: crate::period::NotAPeriod| malformed(format!("scrapeInterval: {error}")))?;
            Ok(ScrapeTarget {
                labels: target.labels,
                health: target.health,
                last_scrape: instant_of(target.last_scrape.as_deref())?,
                last_error: plain_line(&target.last_error, MAX_QUOTED),
                interval_seconds: interval.as_secs_f64(),
            })
        })
        .collect()
}

/// Takes off the envelope, or says why there is nothing in it.
fn read<D: DeserializeOwned>(status: u16, body: &[u8]) -> Answer<D> {
    if status != 200 {
        return Err(refused(status, body));
    }
    let envelope: Envelope<D> = match serde_json::from_slice(body) {
        Ok(envelope) => envelope,
        // An error with status 200 has no data of our shape; its own words are better than serde's.
        Err(_) if says_error(body) => return Err(refused(status, body)),
        Err(error) => return Err(malformed(plain_line(&error.to_string(), MAX_QUOTED))),
    };
    if envelope.status != "success" {
        return Err(refused(status, body));
    }
    if let Some(warnings) = envelope.warnings.filter(|warnings| !warnings.is_empty()) {
        return Err(Unanswered::new(
            Reason::PrometheusWarnings,
            format!("answered with warnings: {}", plain_line(&warnings.join("; "), MAX_QUOTED)),
        ));
    }
    envelope.data.ok_or_else(|| malformed("answered `success` without data"))
}

fn says_error(body: &[u8]) -> bool {
    serde_json::from_slice::<Envelope<serde::de::IgnoredAny>>(body).is_ok_and(|envelope| envelope.status != "success")
}

/// A refusal in Prometheus' own words if it has any, or else (a proxy's error page) the beginning of the body.
fn refused(status: u16, body: &[u8]) -> Unanswered {
    let said = match serde_json::from_slice::<Envelope<serde::de::IgnoredAny>>(body) {
        Ok(Envelope { error_type: Some(kind), error: Some(error), .. }) => format!("{kind}: {error}"),
        Ok(envelope) => format!("status {}", envelope.status),
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(2 * MAX_QUOTED)]).into_owned(),
    };
    Unanswered::new(Reason::PrometheusRefused, format!("HTTP {status}: {}", plain_line(said.trim(), MAX_QUOTED)))
}

/// Go's zero time stands for "never".
fn instant_of(text: Option<&str>) -> Answer<Option<Timestamp>> {
    match text {
        None | Some("") => Ok(None),
        Some(text) if text.starts_with("0001-01-01T") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| malformed(format!("`{}` is not a time", plain_line(text, 40)))),
    }
}

fn malformed(detail: impl Into<String>) -> Unanswered {
    Unanswered::new(Reason::PrometheusMalformed, detail)
}
