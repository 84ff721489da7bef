//! The simulated Prometheus' HTTP API: instant queries, rules, targets, and how each fails.
//!
//! It reads just enough PromQL: a rule's own text, `metric{a="b"}`, `timestamp(metric{...})` and the quotient of two
//! such. Anything else is refused, as a syntax error would be, so that a query nobody simulated cannot pass for silence.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{MAX_FDS, Prometheus, Scrape, Seen, Trouble};
use crate::alert::LabelSet;
use crate::reason::Reason;
use crate::sim::{Point, Ports};
use crate::world::{AlertingRule, Answer, Metrics, RuleAlert, RuleAlertState, Sample, ScrapeTarget, Unanswered};

/// How long a slow Prometheus keeps its caller waiting.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a lagging one does.
const LAG: Duration = Duration::from_millis(4_700);

/// A selector: a metric and exact matchers.
struct Selector<'a> {
    metric: &'a str,
    matchers: Vec<(&'a str, String)>,
    timestamp: bool,
}

impl Prometheus {
    fn query(&self, text: &str, at: Timestamp) -> Answer<Vec<Sample>> {
        let mut series = if let Some(rule) = self.rules.iter().find(|rule| rule.query == text) {
            let there = self.targets.iter().enumerate().filter(|(number, _)| self.trouble != Trouble::Partial || number % 2 == 0);
            let held = there.filter_map(|(_, seen)| Some((seen, seen.holds(rule.condition, at)?)));
            held.map(|(seen, value)| Sample { labels: seen.labels.clone(), value }).collect()
        } else if let Some(answer) = self.answers.get(text) {
            answer.clone()
        } else {
            self.arithmetic(text, at)?
        };
        if self.trouble == Trouble::Nan {
            series.iter_mut().for_each(|sample| sample.value = f64::NAN);
        }
        Ok(series)
    }

    fn arithmetic(&self, text: &str, at: Timestamp) -> Answer<Vec<Sample>> {
        match text.split_once("} / ") {
            None => self.select(text, at),
            Some((left, right)) => {
                let (left, right) = (self.select(&format!("{left}}}"), at)?, self.select(right, at)?);
                let divided = left.into_iter().filter_map(|sample| {
                    let by = right.iter().find(|other| other.labels == sample.labels)?;
                    Some(Sample { value: sample.value / by.value, labels: sample.labels })
                });
                Ok(divided.collect())
            }
        }
    }

    fn select(&self, text: &str, at: Timestamp) -> Answer<Vec<Sample>> {
        let unread = || Unanswered::new(Reason::PrometheusRefused, format!("400: the simulated Prometheus cannot read {text}"));
        let selector = Selector::read(text).ok_or_else(unread)?;
        let matching = |seen: &Seen| selector.matchers.iter().all(|(name, value)| seen.labels.get(name) == Some(value));
        let mut series = Vec::new();
        for (number, seen) in self.targets.iter().enumerate().filter(|(_, seen)| matching(seen)) {
            if self.trouble == Trouble::Partial && number % 2 == 1 {
                continue;
            }
            let Some(scrape) = seen.last(at) else { continue };
            let value = metric(scrape, selector.metric).ok_or_else(unread)?;
            let stamp = scrape.at.as_duration().as_secs_f64();
            let value = value.map(|value| if selector.timestamp { stamp } else { value });
            series.extend(value.map(|value| Sample { labels: seen.labels.clone(), value }));
        }
        Ok(series)
    }

    fn rules(&self) -> Vec<AlertingRule> {
        // Rules are judged whether anything is scraped or not.
        let last_evaluation = Some(self.judged);
        let rule = |(number, rule): (usize, &super::Rule)| AlertingRule {
            name: rule.name.clone(),
            query: rule.query.clone(),
            labels: LabelSet::default(),
            for_seconds: rule.lasting.as_secs_f64(),
            interval_seconds: self.every.as_secs_f64(),
            last_evaluation,
            health: "ok".to_owned(),
            alerts: self
                .active
                .iter()
                .filter(|((of, _), _)| *of == number)
                .filter_map(|((_, instance), active)| {
                    let seen = self.targets.iter().find(|seen| seen.instance == *instance)?;
                    let labels = seen.labels.with([("alertname", rule.name.as_str())]);
                    Some(RuleAlert { labels, state: active.state, active_at: Some(active.since) })
                })
                .collect(),
        };
        self.rules.iter().enumerate().map(rule).collect()
    }

    fn scrapes(&self) -> Vec<ScrapeTarget> {
        if self.trouble == Trouble::NoTargets {
            return Vec::new();
        }
        let target = |seen: &Seen| {
            let last = seen.scrapes.back();
            let up = last.is_some_and(|scrape| scrape.up);
            ScrapeTarget {
                labels: seen.labels.clone(),
                health: if up { "up" } else { "down" }.to_owned(),
                last_scrape: last.map(|scrape| scrape.at),
                last_error: if up { "" } else { "connection refused" }.to_owned(),
                interval_seconds: self.every.as_secs_f64(),
            }
        };
        self.targets.iter().map(target).collect()
    }

    /// Alerts of a state, by name and instance, for tests that wait for one.
    pub fn listed(&self, state: RuleAlertState) -> Vec<(String, String)> {
        let active = self.active.iter().filter(|(_, active)| active.state == state);
        active.map(|((rule, instance), _)| (self.rules[*rule].name.clone(), instance.to_string())).collect()
    }
}

impl Ports {
    /// Asks, unless what ails Prometheus keeps it from answering.
    async fn prometheus<T: Send>(&self, point: Point, answer: impl FnOnce(&Prometheus) -> Answer<T> + Send) -> Answer<T> {
        self.enter(point).await;
        let trouble = self.sim.with(|state| state.prometheus.trouble);
        let answer = match trouble {
            Trouble::Down => Err(Unanswered::new(Reason::PrometheusUnreachable, "connection refused")),
            Trouble::Slow => {
                tokio::time::sleep(TIMEOUT).await;
                Err(Unanswered::new(Reason::PrometheusTimeout, format!("no answer within {}s", TIMEOUT.as_secs())))
            }
            Trouble::Lagging => {
                tokio::time::sleep(LAG).await;
                self.sim.with(|state| answer(&state.prometheus))
            }
            Trouble::Warnings => Err(Unanswered::new(Reason::PrometheusWarnings, "warnings: one store did not answer")),
            Trouble::None | Trouble::Nan | Trouble::Frozen | Trouble::Partial | Trouble::Stalled | Trouble::NoTargets => {
                self.sim.with(|state| answer(&state.prometheus))
            }
        };
        self.leave(point).await;
        answer
    }
}

#[async_trait]
impl Metrics for Ports {
    async fn instant(&self, query: &str, at: Timestamp) -> Answer<Vec<Sample>> {
        self.prometheus(Point::Instant, |prometheus| prometheus.query(query, at)).await
    }

    async fn alerting_rules(&self) -> Answer<Vec<AlertingRule>> {
        self.sim.with(|state| {
            let program_now = state.now.saturating_add(state.clock_ahead).unwrap_or(Timestamp::MAX);
            state.prometheus.asked.entry(program_now).or_default().push(state.now);
        });
        self.prometheus(Point::Rules, |prometheus| Ok(prometheus.rules())).await
    }

    async fn scrape_targets(&self) -> Answer<Vec<ScrapeTarget>> {
        self.prometheus(Point::Targets, |prometheus| Ok(prometheus.scrapes())).await
    }
}

impl<'a> Selector<'a> {
    /// `metric{a="b",c="d"}`, perhaps within `timestamp(...)`.
    fn read(text: &'a str) -> Option<Selector<'a>> {
        let (timestamp, text) = match text.strip_prefix("timestamp(") {
            Some(rest) => (true, rest.strip_suffix(')')?),
            None => (false, text),
        };
        let (metric, rest) = text.split_once('{')?;
        let mut matchers = Vec::new();
        for matcher in rest.strip_suffix('}')?.split(',') {
            let (name, value) = matcher.split_once('=')?;
            matchers.push((name, value.strip_prefix('"')?.strip_suffix('"')?.to_owned()));
        }
        Some(Selector { metric, matchers, timestamp })
    }
}

/// A metric's value in a scrape: unknown metric, absent from this scrape, or there.
fn metric(scrape: &Scrape, name: &str) -> Option<Option<f64>> {
    match name {
        "up" => Some(Some(if scrape.up { 1.0 } else { 0.0 })),
        "process_open_fds" => Some(scrape.open_fds),
        "process_max_fds" => Some(Some(MAX_FDS).filter(|_| scrape.up)),
        "process_start_time_seconds" => Some(Some(scrape.started_at.as_duration().as_secs_f64()).filter(|_| scrape.up)),
        _ => None,
    }
}
