//! The fake desk: keeps what it is given, answers what it is told to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use remediator::alert::{AlertGroup, AlertStatus};
use remediator::api::board::{AbortState, Aborting, Board};
use remediator::api::desk::{
    AuditFilter, BreakerState, Bygone, ClosedLine, Desk, DeskError, Gauges, PauseOrder, Probe, Receipt, ReceiptState, RecordPage,
    Unavailable,
};
use remediator::decide::playbook::Mode;
use remediator::event::{Accepted, Entry, Event, Pause, PauseScope, Record, RecordId, Trigger};
use remediator::reason::{Outcome, Reason};
use remediator::target::{PlaybookName, Target};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

/// Everything is public: a test arranges it and reads it.
pub struct Fake {
    pub taken: Mutex<Vec<AlertGroup>>,
    pub records: Mutex<BTreeMap<RecordId, Record>>,
    pub closed: Mutex<Vec<ClosedLine>>,
    pub asked: Mutex<Vec<(AuditFilter, Option<String>, u32)>>,
    pub orders: Mutex<Vec<String>>,
    pub head: watch::Sender<u64>,
    /// How many calls waited so far, for an outcome or for ever.
    pub waiting: watch::Sender<usize>,
    /// The store cannot be written or read.
    pub broken: AtomicBool,
    /// Something is missing, and the store is not.
    pub unready: AtomicBool,
    /// Nothing is answered, ever.
    pub stuck: AtomicBool,
    /// What `/guards` answers.
    pub board: Mutex<Board>,
    /// What was pruned.
    pub bygone: Mutex<Option<Bygone>>,
    /// The story told of the record with the id 0, in bytes.
    pub long_story: Mutex<usize>,
}

impl Default for Fake {
    fn default() -> Self {
        Fake {
            taken: Mutex::default(),
            records: Mutex::default(),
            closed: Mutex::default(),
            asked: Mutex::default(),
            orders: Mutex::default(),
            head: watch::channel(0).0,
            waiting: watch::channel(0).0,
            broken: AtomicBool::new(false),
            unready: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            board: Mutex::new(crate::board::board()),
            bygone: Mutex::default(),
            long_story: Mutex::default(),
        }
    }
}

pub fn id(n: u128) -> RecordId {
    RecordId(Uuid::from_u128(n))
}

fn text(line: &Value) -> Box<RawValue> {
    to_raw_value(line).expect("a line")
}

impl Fake {
    pub fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::SeqCst);
    }

    /// Closes a record and tells everybody who follows.
    pub fn close(&self, record: RecordId) {
        let mut records = self.records.lock().expect("no test panicked here");
        let record = records.get_mut(&record).expect("an open record");
        let seq = *self.head.borrow() + 1;
        let closed =
            Event::Closed { outcome: Outcome::Recovered, reason: Reason::RecoveryConfirmed, detail: "it helped".to_owned() };
        record.apply(&Entry { seq, at: Timestamp::UNIX_EPOCH, record: Some(record.id), event: closed }).expect("legal");
        let line = text(&json!({ "id": record.id, "outcome": "recovered", "seq": seq }));
        self.closed.lock().expect("no test panicked here").push(ClosedLine { seq, line });
        self.head.send_replace(seq);
    }

    async fn ready(&self) -> Result<(), Unavailable> {
        if self.stuck.load(Ordering::SeqCst) {
            self.waiting.send_modify(|waiting| *waiting += 1);
            std::future::pending::<()>().await;
        }
        match self.broken.load(Ordering::SeqCst) {
            true => Err(Unavailable::new(Reason::StoreUnavailable, "disk full")),
            false => Ok(()),
        }
    }

    fn order(&self, text: String) {
        self.orders.lock().expect("no test panicked here").push(text);
    }

    fn open(&self, group: &AlertGroup, at: usize) -> RecordId {
        let alert = &group.alerts[at];
        let target = Target {
            service: "inventory".parse().expect("a name"),
            instance: alert.labels.get("instance").unwrap_or("none").parse().expect("an instance"),
        };
        let mut records = self.records.lock().expect("no test panicked here");
        let id = id(records.len() as u128 + 1);
        let accepted = Accepted {
            key: target.key(),
            alert: alert.clone(),
            fingerprint: alert.labels.fingerprint().to_string(),
            receiver: group.receiver.clone(),
            group_key: group.group_key.clone(),
            truncated: group.truncated,
            trigger: Trigger::Webhook,
            playbook: "inventory-fd-leak".parse().ok(),
            target: Some(target),
            mode: Mode::Live,
            host: "test".to_owned(),
            healer: "remediator test".to_owned(),
        };
        let seq = *self.head.borrow() + 1;
        let event = Event::Accepted { accepted: Arc::new(accepted) };
        let entry = Entry { seq, at: Timestamp::UNIX_EPOCH, record: Some(id), event };
        records.insert(id, Record::open(&entry).expect("a first entry"));
        self.head.send_replace(seq);
        id
    }
}

#[async_trait]
impl Desk for Fake {
    async fn take_in(&self, group: AlertGroup) -> Result<Vec<Receipt>, Unavailable> {
        self.ready().await?;
        let receipt = |(at, alert): (usize, &remediator::alert::Alert)| {
            let firing = alert.status == AlertStatus::Firing;
            Receipt {
                id: firing.then(|| self.open(&group, at)),
                alertname: alert.labels.alertname().to_owned(),
                fingerprint: alert.labels.fingerprint().to_string(),
                status: alert.status,
                target: alert.labels.get("instance").map(|instance| format!("inventory/{instance}")),
                playbook: PlaybookName::try_from("inventory-fd-leak".to_owned()).ok(),
                state: if firing { ReceiptState::Accepted } else { ReceiptState::Resolved },
                reason: None,
                detail: "taken in".to_owned(),
            }
        };
        let receipts = group.alerts.iter().enumerate().map(receipt).collect();
        self.taken.lock().expect("no test panicked here").push(group);
        Ok(receipts)
    }

    async fn await_outcome(&self, receipts: &[Receipt], within: Duration) -> Vec<Record> {
        let mut head = self.head.subscribe();
        self.waiting.send_modify(|waiting| *waiting += 1);
        let now = || -> Vec<Record> {
            let records = self.records.lock().expect("no test panicked here");
            let newest = |of: &Record| records.values().rfind(|record| record.accepted.key == of.accepted.key).cloned();
            receipts.iter().filter_map(|receipt| records.get(&receipt.id?)).filter_map(newest).collect()
        };
        let all_closed = async {
            while !now().iter().all(Record::is_closed) {
                head.changed().await.expect("the desk outlives its callers");
            }
        };
        let _ = tokio::time::timeout(within, all_closed).await;
        now()
    }

    async fn record(&self, wanted: RecordId) -> Result<Option<Value>, Unavailable> {
        self.ready().await?;
        if wanted == id(0) {
            let long = *self.long_story.lock().expect("no test panicked here");
            return Ok(Some(json!({ "story": "x".repeat(long) })));
        }
        let records = self.records.lock().expect("no test panicked here");
        Ok(records.get(&wanted).map(|record| json!({ "record": record, "entries": [] })))
    }

    async fn records(&self, filter: AuditFilter, cursor: Option<String>, limit: u32) -> Result<RecordPage, DeskError> {
        self.ready().await?;
        if cursor.as_deref().is_some_and(|cursor| cursor != "p2") {
            return Err(DeskError::BadQuery("that cursor is not one of ours".to_owned()));
        }
        let (records, next) = match cursor {
            None => (vec![text(&json!({ "id": "3" })), text(&json!({ "id": "2" }))], Some("p2".to_owned())),
            Some(_) => (vec![text(&json!({ "id": "1" }))], None),
        };
        self.asked.lock().expect("no test panicked here").push((filter, cursor, limit));
        Ok(RecordPage { records, next })
    }

    async fn closed_after(&self, seq: u64, limit: u32) -> Result<Vec<ClosedLine>, Unavailable> {
        self.ready().await?;
        let closed = self.closed.lock().expect("no test panicked here");
        Ok(closed.iter().filter(|line| line.seq > seq).take(limit as usize).cloned().collect())
    }

    fn follow(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    async fn pause(&self, order: PauseOrder) -> Result<Pause, DeskError> {
        self.ready().await?;
        if order.scope == PauseScope::Playbook("nobody".parse().expect("a name")) {
            return Err(DeskError::NoSuch("there is no playbook nobody".to_owned()));
        }
        self.order(format!("pause {} by {} for {:?}: {}", order.scope, order.actor, order.lasting, order.reason));
        let until = order.lasting.map(|lasting| Timestamp::UNIX_EPOCH + lasting.signed());
        Ok(Pause { scope: order.scope, actor: order.actor, reason: order.reason, until })
    }

    async fn resume(&self, scope: PauseScope, actor: String, reason: String) -> Result<(), DeskError> {
        self.ready().await?;
        self.order(format!("resume {scope} by {actor}: {reason}"));
        Ok(())
    }

    async fn reset_breaker(&self, breaker: String, actor: String, reason: String) -> Result<(), DeskError> {
        self.ready().await?;
        if breaker != "inventory-fd-leak/inventory" {
            return Err(DeskError::NoSuch(format!("there is no breaker {breaker}")));
        }
        self.order(format!("reset {breaker} by {actor}: {reason}"));
        Ok(())
    }

    async fn abort(&self, wanted: RecordId, actor: String, reason: String) -> Result<Aborting, DeskError> {
        self.ready().await?;
        let known = self.records.lock().expect("no test panicked here").get(&wanted).map(Record::is_closed);
        match known {
            None => return Err(DeskError::NoSuch(format!("there is no record {wanted}"))),
            Some(true) => return Err(DeskError::TooLate(format!("record {wanted} is closed already (recovered)"))),
            Some(false) => {}
        }
        self.order(format!("abort {wanted} by {actor}: {reason}"));
        Ok(Aborting { id: wanted, actor, reason, state: AbortState::Ordered, detail: "nothing is restarted".to_owned() })
    }

    async fn guards(&self) -> Result<Board, Unavailable> {
        self.ready().await?;
        Ok(self.board.lock().expect("no test panicked here").clone())
    }

    async fn bygone(&self) -> Option<Bygone> {
        *self.bygone.lock().expect("no test panicked here")
    }

    async fn readiness(&self) -> Vec<Probe> {
        let broken = self.broken.load(Ordering::SeqCst) || self.unready.load(Ordering::SeqCst);
        let detail = if broken { "disk full" } else { "written" };
        vec![
            Probe { name: "journal".to_owned(), ok: !broken, detail: detail.to_owned() },
            Probe { name: "prometheus".to_owned(), ok: true, detail: "answers".to_owned() },
        ]
    }

    async fn gauges(&self) -> Gauges {
        Gauges {
            pauses: 1,
            breakers: vec![("inventory-fd-leak/inventory".to_owned(), BreakerState::HalfOpen)],
            head_seq: *self.head.borrow(),
            head_hash: "ab".repeat(32),
            ..Gauges::default()
        }
    }
}
