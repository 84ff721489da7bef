//! Our own metric families, each named once.
//!
//! Names begin with `remediator_` and end in their unit; label values are words of closed lists (outcomes, reason
//! codes, rails, routes) or names from the operator's own configuration, never text from an alert, so that nobody
//! outside can make series. What is known in advance exists from the start with 0, so that `increase()` sees the first
//! of its kind. Counters begin at 0 with each process: the journal is the truth, these are for alerting and graphs.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::alert::AlertStatus;
use crate::api::desk::{Gauges, ReceiptState};
use crate::event::{Record, Step, held_back};
use crate::target::PlaybookName;
use crate::world::Call;

/// What [`Telemetry::render`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From a readiness probe's answer to a step that was waited out; a walk is a few minutes at most.
const WALK_BUCKETS: [f64; 11] = [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];
/// From an answer out of memory to a `?wait` of half an hour.
const HTTP_BUCKETS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0, 1800.0];
/// The label value where there is no playbook.
const NONE: &str = "none";

type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Levels<const N: usize> = Family<Labels<N>, Gauge>;
type Seconds = Gauge<f64, std::sync::atomic::AtomicU64>;
type Times<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// All of our metrics. Recording never waits and never fails.
pub struct Telemetry {
    registry: Registry,
    alerts: Counters<2>,
    records: Counters<3>,
    refusals: Counters<2>,
    actions: Counters<2>,
    pages: Counters<1>,
    denied: Counters<1>,
    requests: Counters<2>,
    rejected: Counters<1>,
    reloaded: Gauge,
    reloaded_at: Gauge<f64, std::sync::atomic::AtomicU64>,
    walks: Times<1>,
    steps: Times<1>,
    answers: Times<1>,
    pauses: Gauge,
    breakers: Levels<1>,
    drained: Gauge,
    watches: Gauge,
    open: Gauge,
    decided: Seconds,
    heartbeat: Seconds,
    watchdog: Seconds,
    watchdog_within: Seconds,
    overdue: Seconds,
    store_writable: Gauge,
    chain_ok: Gauge,
    chain_checked: Seconds,
    head_seq: Gauge,
    head: Levels<1>,
    anchor_seq: Gauge,
    anchor: Levels<1>,
    entries: Gauge,
    size: Gauge,
    /// Gauges that replace each other are set and read under one lock, so that no scrape sees half of them.
    scrape: Mutex<()>,
}

/// Why a connection was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// As many are open as may be.
    Full,
    /// As many are open from this host as may be.
    PeerFull,
    /// TLS could not be agreed on, or not in time.
    HandshakeFailed,
    /// The system gave none, mostly for want of descriptors.
    AcceptFailed,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Telemetry")
    }
}

impl Telemetry {
    pub fn new(version: &str) -> Self {
        let mut registry = Registry::with_prefix("remediator");
        let it = Telemetry {
            alerts: counters(
                &mut registry,
                "alerts_received",
                "Alerts delivered, by Alertmanager's status and what became of them",
            ),
            records: counters(&mut registry, "records_closed", "Audit records closed, by outcome, reason code and playbook"),
            refusals: counters(&mut registry, "refusals", "Refusals by guardrail and reason code; one record may have several"),
            actions: counters(&mut registry, "restarts", "Restarts asked of the Engine, by playbook and what is known of them"),
            pages: counters(&mut registry, "pages", "Pages handed to Alertmanager, by whether it took them"),
            denied: counters(&mut registry, "unauthorized_calls", "Calls without leave, by the status they were answered with"),
            requests: counters(&mut registry, "http_requests", "HTTP requests answered, by route and status"),
            rejected: counters(&mut registry, "connections_rejected", "Connections that were not served, by reason"),
            reloaded: gauge(
                &mut registry,
                "config_last_reload_successful",
                "1 when the configuration was taken the last time it was read, 0 when the one before it stays in force",
            ),
            reloaded_at: Gauge::default(),
            walks: times(
                &mut registry,
                "walk",
                "From an alert's acceptance to the end of its record, by outcome",
                walk_histogram,
            ),
            steps: times(&mut registry, "step", "How long a step of a plan took", walk_histogram),
            answers: times(&mut registry, "http_request", "From a request's head to its answer's head, by route", http_histogram),
            pauses: gauge(&mut registry, "pauses", "Pauses in force, of any scope"),
            breakers: family(&mut registry, "breaker_state", "0 closed, 1 half-open, 2 open, by breaker"),
            drained: gauge(&mut registry, "drained_servers", "Servers that we drained and have not readmitted"),
            watches: gauge(&mut registry, "watches", "Episodes without a permit that are asked again while their alert fires"),
            open: gauge(&mut registry, "open_records", "Audit records without an outcome yet"),
            decided: seconds(
                &mut registry,
                "last_decision_timestamp",
                "When the pipeline last decided anything, as seconds since 1970; 0 before the first time",
            ),
            heartbeat: seconds(
                &mut registry,
                "heartbeat_timestamp",
                "When a synthetic alert last walked from Detect to Guard and into a commit; 0 before the first time",
            ),
            watchdog: seconds(
                &mut registry,
                "watchdog_timestamp",
                "When the always-firing alert of the dead-man's switch was last delivered; 0 before the first time",
            ),
            watchdog_within: seconds(
                &mut registry,
                "watchdog_within",
                "How long the absence of that alert is no news; 0 when nobody listens for it",
            ),
            overdue: seconds(&mut registry, "overdue", "By how much the most overdue open record is late; 0 when none is"),
            store_writable: gauge(&mut registry, "store_writable", "1 when the journal's last commit went well, else 0"),
            chain_ok: gauge(&mut registry, "audit_chain_ok", "0 once the audit chain was found broken, else 1"),
            chain_checked: seconds(
                &mut registry,
                "audit_chain_checked_timestamp",
                "When the audit chain was last found whole up to its head; 0 before the first time",
            ),
            head_seq: gauge(&mut registry, "journal_head_seq", "Sequence number of the journal's newest entry"),
            head: family(
                &mut registry,
                "journal_head_info",
                "Hash of the journal's newest entry; keep it, and a rewritten journal shows",
            ),
            anchor_seq: gauge(
                &mut registry,
                "journal_anchor_seq",
                "Sequence number of the last entry that was pruned; 0: none was",
            ),
            anchor: family(
                &mut registry,
                "journal_anchor_info",
                "Hash of the last entry that was pruned; keep it, and what comes after it can be checked",
            ),
            entries: gauge(&mut registry, "journal_entries", "Entries that the journal keeps"),
            size: Gauge::default(),
            scrape: Mutex::new(()),
            registry,
        };
        it.with_known_series(version)
    }

    fn with_known_series(mut self, version: &str) -> Self {
        let help = "When the configuration in force was read, as seconds since 1970";
        let name = "config_last_reload_success_timestamp";
        self.registry.register_with_unit(name, help, Unit::Seconds, self.reloaded_at.clone());
        let help = "Room that the journal takes on the disk: the database and its WAL";
        self.registry.register_with_unit("journal_size", help, Unit::Bytes, self.size.clone());
        self.chain_ok.set(1);
        let build: Levels<1> = family(&mut self.registry, "build_info", "Always 1; the version of this program");
        build.get_or_create(&[("version", Cow::Owned(version.to_owned()))]).set(1);
        for status in [AlertStatus::Firing, AlertStatus::Resolved] {
            for result in ["accepted", "folded", "resolved", "heard", "unavailable"] {
                self.alerts.get_or_create(&[("status", status_word(status)), ("result", result.into())]).inc_by(0);
            }
        }
        for result in ["raised", "failed"] {
            self.pages.get_or_create(&[("result", result.into())]).inc_by(0);
        }
        for status in ["401", "403"] {
            self.denied.get_or_create(&[("status", status.into())]).inc_by(0);
        }
        for reason in Rejection::ALL {
            self.rejected.get_or_create(&[("reason", reason.word().into())]).inc_by(0);
        }
        self
    }

    /// The configuration was read, and is in force.
    pub fn config_taken(&self, now: Timestamp) {
        self.reloaded.set(1);
        self.reloaded_at.set(now.as_duration().as_secs_f64());
    }

    /// The configuration was read and not taken.
    pub fn config_refused(&self) {
        self.reloaded.set(0);
    }

    /// Makes a playbook's series, so that its first restart is seen as an increase.
    pub fn playbook(&self, name: &PlaybookName) {
        for result in ["done", "failed", "unknown"] {
            self.actions.get_or_create(&[("playbook", name.to_string().into()), ("result", result.into())]).inc_by(0);
        }
    }

    pub fn alert(&self, status: AlertStatus, result: ReceiptState) {
        self.alerts.get_or_create(&[("status", status_word(status)), ("result", result.word().into())]).inc();
    }

    /// An alert that was not taken in, because it could not be made durable.
    pub fn alert_unavailable(&self, status: AlertStatus) {
        self.alerts.get_or_create(&[("status", status_word(status)), ("result", "unavailable".into())]).inc();
    }

    /// Everything that a record says about itself, once, when it closes.
    pub fn record_closed(&self, record: &Record) {
        let (Some(outcome), Some(reason)) = (record.outcome, record.reason) else { return };
        let playbook: Cow<'static, str> = record.accepted.playbook.as_ref().map_or(NONE.into(), |name| name.to_string().into());
        let labels = [("outcome", outcome.word().into()), ("reason_code", reason.code().into()), ("playbook", playbook.clone())];
        self.records.get_or_create(&labels).inc();
        if let Some(took) = record.duration() {
            self.walks.get_or_create(&[("outcome", outcome.word().into())]).observe(took.as_secs_f64());
        }
        for check in &record.guards {
            if let Some(refusal) = check.refusal {
                let labels = [("rail", check.rail.word().into()), ("reason_code", refusal.reason.code().into())];
                self.refusals.get_or_create(&labels).inc();
            }
        }
        for run in &record.steps {
            if let Some(ended) = run.ended_at {
                let took = ended.duration_since(run.started_at).as_secs_f64().max(0.0);
                self.steps.get_or_create(&[("step", run.step.word().into())]).observe(took);
            }
            if run.step == Step::Restart && !held_back(&run.note) {
                let result = call_word(run.call.as_ref());
                self.actions.get_or_create(&[("playbook", playbook.clone()), ("result", result.into())]).inc();
            }
        }
    }

    /// A page was handed to Alertmanager, or no Alertmanager took it.
    pub fn page(&self, raised: bool) {
        let result = if raised { "raised" } else { "failed" };
        self.pages.get_or_create(&[("result", result.into())]).inc();
    }

    pub fn denied(&self, status: u16) {
        self.denied.get_or_create(&[("status", status.to_string().into())]).inc();
    }

    /// `route` is the router's own pattern.
    pub fn request(&self, route: &str, status: u16, took: Duration) {
        let route: Cow<'static, str> = Cow::Owned(route.to_owned());
        self.requests.get_or_create(&[("route", route.clone()), ("code", status.to_string().into())]).inc();
        self.answers.get_or_create(&[("route", route)]).observe(took.as_secs_f64());
    }

    /// A heartbeat was completed.
    pub fn heartbeat(&self, at: Timestamp) {
        self.heartbeat.set(since_1970(at));
    }

    /// The audit chain was followed to its head: whole as of then, or broken somewhere.
    pub fn chain(&self, whole: Option<Timestamp>) {
        self.chain_ok.set(i64::from(whole.is_some()));
        if let Some(at) = whole {
            self.chain_checked.set(since_1970(at));
        }
    }

    pub fn connection_rejected(&self, reason: Rejection) {
        self.rejected.get_or_create(&[("reason", reason.word().into())]).inc();
    }

    /// The exposition, with `now` as its gauges.
    pub fn render(&self, now: &Gauges) -> String {
        let _alone = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        self.pauses.set(level(now.pauses));
        self.drained.set(level(now.drained_servers));
        self.watches.set(level(now.watches));
        self.open.set(level(now.open_records));
        self.head_seq.set(level(now.head_seq));
        self.decided.set(now.last_decision.map_or(0.0, since_1970));
        self.store_writable.set(i64::from(now.store_writable));
        self.overdue.set(now.overdue_seconds);
        self.watchdog.set(now.watchdog.map_or(0.0, since_1970));
        self.watchdog_within.set(now.watchdog_within_seconds);
        self.breakers.clear();
        for (name, state) in &now.breakers {
            self.breakers.get_or_create(&[("breaker", name.clone().into())]).set(*state as i64);
        }
        self.head.clear();
        self.head.get_or_create(&[("hash", now.head_hash.clone().into())]).set(1);
        self.anchor_seq.set(level(now.anchor_seq));
        self.entries.set(level(now.head_seq.saturating_sub(now.anchor_seq)));
        self.size.set(level(now.journal_bytes));
        self.anchor.clear();
        if now.anchor_seq > 0 {
            self.anchor.get_or_create(&[("hash", now.anchor_hash.clone().into())]).set(1);
        }
        let mut text = String::new();
        // Writing to a string cannot fail; a scrape without a body is seen by Prometheus as a failed one.
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}

impl Rejection {
    pub const ALL: [Rejection; 4] = [Rejection::Full, Rejection::PeerFull, Rejection::HandshakeFailed, Rejection::AcceptFailed];

    pub fn word(self) -> &'static str {
        match self {
            Rejection::Full => "full",
            Rejection::PeerFull => "peer_full",
            Rejection::HandshakeFailed => "handshake_failed",
            Rejection::AcceptFailed => "accept_failed",
        }
    }
}

fn status_word(status: AlertStatus) -> Cow<'static, str> {
    match status {
        AlertStatus::Firing => "firing".into(),
        AlertStatus::Resolved => "resolved".into(),
    }
}

/// A call without an answer was cut off by a crash: whether it happened is unknown.
fn call_word(call: Option<&Call>) -> &'static str {
    match call {
        Some(Call::Done) => "done",
        Some(Call::Failed(_)) => "failed",
        Some(Call::Unknown(_)) | None => "unknown",
    }
}

fn level(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn walk_histogram() -> Histogram {
    Histogram::new(WALK_BUCKETS)
}

fn http_histogram() -> Histogram {
    Histogram::new(HTTP_BUCKETS)
}

fn counters<const N: usize>(registry: &mut Registry, name: &str, help: &str) -> Counters<N> {
    let counters = Counters::default();
    registry.register(name, help, counters.clone());
    counters
}

fn family<const N: usize>(registry: &mut Registry, name: &str, help: &str) -> Levels<N> {
    let levels = Levels::default();
    registry.register(name, help, levels.clone());
    levels
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

/// The registry adds the unit to the name.
fn seconds(registry: &mut Registry, name: &str, help: &str) -> Seconds {
    let gauge = Seconds::default();
    registry.register_with_unit(name, help, Unit::Seconds, gauge.clone());
    gauge
}

fn since_1970(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

/// The registry adds the unit to the name: `..._duration_seconds`.
fn times<const N: usize>(registry: &mut Registry, what: &str, help: &str, histogram: fn() -> Histogram) -> Times<N> {
    let times = Times::new_with_constructor(histogram);
    registry.register_with_unit(format!("{what}_duration"), help, Unit::Seconds, times.clone());
    times
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::desk::BreakerState;

    #[test]
    fn what_is_known_in_advance_is_there_with_zero() {
        let text = Telemetry::new("1.2.3").render(&Gauges::default());
        for line in [
            "remediator_build_info{version=\"1.2.3\"} 1",
            "remediator_alerts_received_total{status=\"firing\",result=\"accepted\"} 0",
            "remediator_unauthorized_calls_total{status=\"401\"} 0",
            "remediator_pages_total{result=\"failed\"} 0",
            "remediator_connections_rejected_total{reason=\"full\"} 0",
            "remediator_last_decision_timestamp_seconds 0.0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_scrape_shows_only_what_is_true_now() {
        let telemetry = Telemetry::new("1");
        let first = Gauges {
            pauses: 1,
            breakers: vec![("a/b".into(), BreakerState::Open), ("c/d".into(), BreakerState::Closed)],
            head_seq: 7,
            head_hash: "aa".into(),
            anchor_seq: 3,
            anchor_hash: "a3".into(),
            journal_bytes: 4096,
            ..Gauges::default()
        };
        let text = telemetry.render(&first);
        assert!(text.contains("remediator_breaker_state{breaker=\"a/b\"} 2\n"));
        assert!(text.contains("remediator_journal_head_info{hash=\"aa\"} 1\n"));
        assert!(text.contains("remediator_journal_head_seq 7\n"));
        assert!(text.contains("remediator_journal_anchor_seq 3\n") && text.contains("remediator_journal_entries 4\n"));
        assert!(text.contains("remediator_journal_anchor_info{hash=\"a3\"} 1\n"));
        assert!(text.contains("remediator_journal_size_bytes 4096\n"), "{text}");
        assert!(text.contains("remediator_pauses 1\n"));
        let text = telemetry.render(&Gauges { head_hash: "bb".into(), ..Gauges::default() });
        assert!(!text.contains("a/b") && !text.contains("\"aa\"") && text.contains("remediator_pauses 0\n"));
    }
}
