//! Legal walks for tests: any list of numbers becomes a list of drafts that the journal takes.
//!
//! The walker knows what may follow what only by the phase of the record, as Act and Verify do; the fold is the judge.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use uuid::Uuid;

use crate::audit::state::State;
use crate::decide::playbook::Mode;
use crate::event::{Abort, Accepted, Draft, Entry, Event, Intent, Member, Pause, PauseScope, Phase, Record, RecordId, Step};
use crate::guard::rails::{BucketLevel, Rail, RailCheck, Refusal};
use crate::reason::{Outcome, Reason};
use crate::target::{ServerPath, Target};
use crate::world::Call;

/// Makes drafts that are legal one after the other.
pub(crate) struct Walker {
    state: State,
    now: Timestamp,
    made: u128,
}

pub(crate) fn target(replica: u8) -> Target {
    json(json!({ "service": "inventory", "instance": format!("inventory-{replica}:8080") }))
}

pub(crate) fn id(number: u128) -> RecordId {
    RecordId(Uuid::from_u128(number))
}

pub(crate) fn accepted(replica: u8) -> Accepted {
    let target = target(replica);
    let labels = json!({ "alertname": "FdLeakFast", "instance": target.instance, "odd": "ä\"\\\n\u{1}" });
    json(json!({
        "key": target.key(), "target": target, "fingerprint": format!("{replica:016x}"), "receiver": "remediator",
        "alert": { "status": "firing", "labels": labels, "starts_at": "2026-02-03T04:05:06.7Z" },
        "group_key": "{}:{service=\"inventory\"}", "truncated": 0, "trigger": { "kind": "webhook" },
        "playbook": "inventory-fd-leak", "mode": "live", "host": "h", "healer": "remediator 0.1.0",
    }))
}

pub(crate) fn opens(number: u128, replica: u8, at: Timestamp) -> Draft {
    Draft::of(id(number), at, Event::Accepted { accepted: Arc::new(accepted(replica)) })
}

pub(crate) fn closes(number: u128, outcome: Outcome, at: Timestamp) -> Draft {
    let event = Event::Closed { outcome, reason: Reason::ConditionQuiet, detail: "said in a test".to_owned() };
    Draft::of(id(number), at, event)
}

pub(crate) fn start() -> Timestamp {
    "2026-02-03T04:05:06Z".parse().expect("a time")
}

fn json<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("what the test wrote")
}

fn evidence(target: &Target, at: Timestamp, odd: f64) -> Event {
    let unanswered = json!({ "Err": { "reason": "docker_unavailable", "detail": "connection refused" } });
    json(json!({ "event": "confirmed", "evidence": {
        "at": at, "labels": {}, "target": target, "truncated": 0,
        "reading": { "state": "firing", "value": odd, "query": "process_open_fds > 1" },
        "replica": { "Err": { "kind": "unanswered", "why": unanswered["Err"] } },
        "siblings": { "Ok": [{ "instance": target.instance, "serving": true, "state": "up", "sick": true }] },
        "listed": { "Ok": ["FdLeakFast"] }, "silences": { "Ok": [] }, "vetoes": [{ "query": "q", "series": { "Ok": 3 } }],
    } }))
}

fn decision(target: &Target, at: Timestamp) -> Event {
    json(json!({ "event": "decided", "decision": {
        "decision": "remediate", "plan": plan(target, at),
        "checks": [{ "name": "condition", "ok": true, "detail": "value 0.93" }],
    } }))
}

fn plan(target: &Target, at: Timestamp) -> serde_json::Value {
    json!({
        "target": target, "replica_label": "instance", "container": "a".repeat(64), "started_at": at, "server": server(target), "logs": 100,
        "evidence_required": true, "drain": { "within": "30s", "on_timeout": "abort" }, "grace_seconds": 10,
        "healthy_within": "60s", "deadline": "2m10s",
        "recovery": { "query": "q{$target}", "below": 0.3, "settle": "10s", "looks": 3, "within": "2m" },
    })
}

fn server(target: &Target) -> ServerPath {
    format!("be/{}", target.instance.as_str().replace(':', ".")).parse().expect("a path")
}

/// One remediation of a replica of its own, from the alert to the end of its watch.
pub(crate) fn episode(number: u128, at: Timestamp, outcome: Outcome) -> Vec<Draft> {
    let target: Target = json(json!({ "service": "inventory", "instance": format!("r{number}:8080") }));
    let accepted = Accepted { key: target.key(), target: Some(target.clone()), ..accepted(0) };
    let intent = Intent {
        key: target.key(),
        playbook: json(json!("inventory-fd-leak")),
        mode: Mode::Live,
        plan: json(plan(&target, at)),
        expires_at: at,
        guards: Vec::new(),
        buckets: ["fleet", &format!("service of {}", number / 1_000)]
            .map(|scope| BucketLevel { scope: scope.to_owned(), tokens: 1.5 })
            .to_vec(),
        probe: false,
        recurred: Vec::new(),
    };
    let step = |step| [Event::StepStarted { step }, Event::StepEnded { step, call: Call::Done, note: serde_json::Value::Null }];
    let closed = Event::Closed { outcome, reason: Reason::RecoveryConfirmed, detail: String::new() };
    let accepted = Event::Accepted { accepted: Arc::new(accepted) };
    let events = [accepted, evidence(&target, at, 0.9), decision(&target, at), Event::Intent { intent: Arc::new(intent) }];
    let events = events.into_iter().chain(step(Step::Drain)).chain(step(Step::Readmit)).chain([closed]);
    let over = Event::WatchEnded { key: target.key(), detail: "quiet".to_owned() };
    events.map(|event| Draft::of(id(number), at, event)).chain([Draft::global(at, over)]).collect()
}

impl Walker {
    pub fn new() -> Walker {
        Walker { state: State::default(), now: start(), made: 0 }
    }

    /// The next draft, chosen by two numbers.
    pub fn next(&mut self, what: u8, which: u8) -> Draft {
        // Odd nanoseconds, and now and then a clock that goes back.
        let step = if what == 250 { -1_000_000_000 } else { i64::from(what) * 7_654_321 };
        self.now = self.now.checked_add(SignedDuration::from_nanos(step)).expect("in range");
        let draft = self.choose(what, which);
        let entry = Entry { seq: self.state.head.seq + 1, at: draft.at, record: draft.record, event: draft.event.clone() };
        self.state.apply(&entry).expect("a legal walk");
        draft
    }

    fn choose(&mut self, what: u8, which: u8) -> Draft {
        let open: Vec<&Record> = self.state.records().collect();
        if open.is_empty() || (what.is_multiple_of(11) && open.len() < 5) {
            self.made += 1;
            return opens(self.made, which % 3, self.now);
        }
        if what % 11 == 1 {
            return Draft::global(self.now, self.of_the_program(which));
        }
        let record = open[which as usize % open.len()];
        let event = if what > 245 && record.may_abort() {
            Event::AbortOrdered { abort: Abort { actor: "ann".to_owned(), reason: "test".to_owned() } }
        } else if what % 11 == 2 {
            let fingerprint = format!("{which:016x}");
            let alert = Member { fingerprint, labels: record.accepted.alert.labels.clone(), group_key: "other".to_owned() };
            Event::Folded { alert }
        } else {
            self.of_a_record(record, what, which)
        };
        Draft::of(record.id, self.now, event)
    }

    fn of_the_program(&self, which: u8) -> Event {
        let (actor, reason) = ("ann".to_owned(), "test".to_owned());
        // Said of an episode that is watched; while none is, of nothing.
        let watched = self.state.books.watches.values().nth(which as usize % 3);
        if let Some(watch) = watched.filter(|_| which.is_multiple_of(7)) {
            let accepted = Accepted { fingerprint: format!("{which:016x}"), ..(*watch.accepted).clone() };
            return Event::Joined { accepted: Arc::new(accepted), of: Some(watch.record) };
        }
        match which % 5 {
            0 => Event::Paused { pause: Pause { scope: PauseScope::All, actor, reason, until: Some(self.now) } },
            1 => Event::Resumed { scope: PauseScope::All, actor, reason },
            2 => Event::BreakerReset { breaker: "inventory-fd-leak/inventory".to_owned(), actor, reason },
            3 => Event::WatchEnded { key: target(which % 3).key(), detail: "quiet".to_owned() },
            _ => Event::Readmitted { server: server(&target(which % 3)), detail: "found drained".to_owned() },
        }
    }

    fn of_a_record(&self, record: &Record, what: u8, which: u8) -> Event {
        let target = target(which % 3);
        match record.phase {
            Phase::Accepted => evidence(&target, self.now, 0.1 + 0.2 + f64::from(what) / 3.0),
            Phase::Confirmed => decision(&target, self.now),
            Phase::Decided if what.is_multiple_of(2) || record.abort.is_some() => {
                Event::Refused { guards: refusals(), recurred: vec![id(1)] }
            }
            Phase::Decided => Event::Intent { intent: Arc::new(self.intent(&target, what)) },
            Phase::Admitted => self.of_a_run(record, what),
            Phase::Refused | Phase::Judged | Phase::Closed => closing(what),
        }
    }

    fn of_a_run(&self, record: &Record, what: u8) -> Event {
        let call = match what % 4 {
            0 => Call::Failed("no".to_owned()),
            1 => Call::Unknown("silence".to_owned()),
            _ => Call::Done,
        };
        if let Some(step) = record.running() {
            return Event::StepEnded { step, call, note: json!({ "odd": 1.0 / 3.0, "n": what, "none": null }) };
        }
        let live = record.intent.as_ref().is_some_and(|intent| intent.mode == Mode::Live);
        let last = record.steps.last().map(|run| run.step);
        match Step::ALL.into_iter().find(|step| last.is_none_or(|last| *step > last)) {
            Some(step) if live && record.abort.is_none() => Event::StepStarted { step },
            _ if record.done(Step::Restart) && what.is_multiple_of(3) => json(json!({ "event": "judged", "judgement": {
                "verdict": "recovered", "reason": "recovery_confirmed", "detail": "0.04 below 0.3",
                "looks": [{ "at": self.now, "value": 0.04, "sample_at": self.now, "counted": true, "detail": "fresh" }],
            } })),
            _ => closing(what),
        }
    }

    fn intent(&self, target: &Target, what: u8) -> Intent {
        Intent {
            key: target.key(),
            playbook: json(json!("inventory-fd-leak")),
            mode: if what.is_multiple_of(5) { Mode::Shadow } else { Mode::Live },
            plan: json(plan(target, self.now)),
            expires_at: self.now,
            guards: refusals(),
            buckets: vec![BucketLevel { scope: "fleet".to_owned(), tokens: 3.0 / (1.0 + f64::from(what)) }],
            probe: what.is_multiple_of(7),
            recurred: vec![id(2)],
        }
    }
}

fn closing(what: u8) -> Event {
    let outcome = Outcome::ALL[what as usize % Outcome::ALL.len()];
    let reason = Reason::ALL[what as usize % Reason::ALL.len()];
    Event::Closed { outcome, reason, detail: format!("case {what}") }
}

fn refusals() -> Vec<RailCheck> {
    let refusal = Some(Refusal { reason: Reason::MinHealthy, retry_after_ms: Some(1500) });
    vec![RailCheck { rail: Rail::MinHealthy, detail: "healthy after this restart 1, must be at least 2".to_owned(), refusal }]
}
