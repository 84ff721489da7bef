//! What the HTTP face may ask of the rooms behind it.
//!
//! The face reads the journal and hands alerts in; it never acts. There are two desks: the real one (`app`) and the
//! fake one that the tests of the face stand on.
//!
//! A caller who hangs up drops the future that serves him, at any await. So every method here must be safe to drop:
//! what was queued for the journal is still committed, and what is asked again folds in.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::board::{Aborting, Board};
use crate::alert::{AlertGroup, AlertStatus};
pub use crate::audit::query::Filter as AuditFilter;
use crate::event::{Pause, PauseScope, Record, RecordId};
use crate::period::Period;
use crate::reason::Reason;
use crate::target::PlaybookName;

/// What became of one alert of a delivery, in the order of the delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// The record that tells the alert's story; none when it has none (a "resolved" of nothing that we hold).
    #[schema(value_type = Option<String>, format = "uuid")]
    pub id: Option<RecordId>,
    pub alertname: String,
    /// Alertmanager's, recomputed by us: 16 hex digits.
    pub fingerprint: String,
    #[schema(value_type = String, example = "firing")]
    pub status: AlertStatus,
    /// `service/instance`; none when the alert does not name one.
    pub target: Option<String>,
    #[schema(value_type = Option<String>)]
    pub playbook: Option<PlaybookName>,
    pub state: ReceiptState,
    /// Why it went no further than this, when that is known already.
    #[schema(value_type = Option<String>)]
    pub reason: Option<Reason>,
    pub detail: String,
}

/// How far an alert came before it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptState {
    /// It opened a record.
    Accepted,
    /// It belongs to an episode that is held or watched already.
    Folded,
    /// Alertmanager says that it is over. A hint, never proof.
    Resolved,
    /// It is the dead-man's switch: that it came is all there is to it.
    Heard,
}

/// It could not be done now; asking again later may work. Becomes a 503.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Unavailable {
    /// [`Reason::StoreUnavailable`] or [`Reason::ShuttingDown`], as a rule.
    pub reason: Reason,
    pub detail: String,
}

/// Why a question or an order was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeskError {
    /// What it names does not exist. Becomes a 404: a misspelt pause must not look like a pause.
    #[error("{0}")]
    NoSuch(String),
    /// It can never be answered as it was asked. Becomes a 400.
    #[error("{0}")]
    BadQuery(String),
    /// It cannot be done any more. Becomes a 409.
    #[error("{0}")]
    TooLate(String),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// One page of records, newest first. Each is the line of `audit.jsonl`; an open record has `"outcome": null`.
#[derive(Clone, Debug, Default)]
pub struct RecordPage {
    pub records: Vec<Box<RawValue>>,
    /// Where the next page starts; none after the last. Opaque to the caller; letters, digits, `-`, `_` and `.` only.
    pub next: Option<String>,
}

/// A closed record as `audit.jsonl` has it, with the sequence number of the entry that closed it.
#[derive(Clone, Debug)]
pub struct ClosedLine {
    pub seq: u64,
    pub line: Box<RawValue>,
}

/// A pause that somebody asks for. The desk's clock makes `until` of `lasting`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PauseOrder {
    pub scope: PauseScope,
    pub actor: String,
    pub reason: String,
    /// None: until somebody resumes.
    pub lasting: Option<Period>,
}

/// Whether one thing that we need is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Probe {
    pub name: String,
    pub ok: bool,
    pub detail: String,
}

/// What is true now and shown as gauges, taken at each scrape, so that a pause that ran out is not shown for ever.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gauges {
    /// Pauses in force, of any scope.
    pub pauses: u64,
    /// By the breaker's name (`playbook/service`).
    pub breakers: Vec<(String, BreakerState)>,
    pub drained_servers: u64,
    pub watches: u64,
    pub open_records: u64,
    /// The last commit went well.
    pub store_writable: bool,
    /// Seconds by which the most overdue open record is late; 0 when none is.
    pub overdue_seconds: f64,
    /// When the dead-man's switch was last delivered.
    pub watchdog: Option<Timestamp>,
    /// Seconds for which its absence is no news; 0 when nobody listens for it.
    pub watchdog_within_seconds: f64,
    /// When the pipeline last decided anything.
    pub last_decision: Option<Timestamp>,
    pub head_seq: u64,
    /// The hash of the journal's newest entry, 64 hex digits; empty while there is none.
    pub head_hash: String,
    /// The last entry that was pruned, and its hash; 0 and empty while none was.
    pub anchor_seq: u64,
    pub anchor_hash: String,
    /// What the journal takes on the disk: the database and its WAL.
    pub journal_bytes: u64,
}

/// What is no longer in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bygone {
    /// Entries up to this one were pruned.
    pub through: u64,
    /// Their newest is of this time.
    pub before: Timestamp,
}

/// The value of a breaker's gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    Closed = 0,
    HalfOpen = 1,
    Open = 2,
}

#[async_trait]
pub trait Desk: Send + Sync {
    /// Takes a delivery in, durably, and answers with one receipt per alert in the same order. All or nothing.
    ///
    /// # Errors
    /// It is not on disk. The caller (Alertmanager) delivers again.
    async fn take_in(&self, group: AlertGroup) -> Result<Vec<Receipt>, Unavailable>;

    /// Waits until the episodes behind these receipts have an outcome, at most `within`, and answers with the newest
    /// record of each episode, open or closed, in no particular order. Zero looks without waiting.
    async fn await_outcome(&self, receipts: &[Receipt], within: Duration) -> Vec<Record>;

    /// The whole story: the record, and its entries with their hashes. `None`: there is no such record.
    async fn record(&self, id: RecordId) -> Result<Option<serde_json::Value>, Unavailable>;

    /// What was pruned and cannot be asked about any more; none when the journal is whole.
    async fn bygone(&self) -> Option<Bygone> {
        None
    }

    /// At most `limit` records; [`DeskError::BadQuery`] when the cursor is not one of ours.
    async fn records(&self, filter: AuditFilter, cursor: Option<String>, limit: u32) -> Result<RecordPage, DeskError>;

    /// Records that closed after entry `seq`, oldest first, at most `limit`.
    async fn closed_after(&self, seq: u64, limit: u32) -> Result<Vec<ClosedLine>, Unavailable>;

    /// The number of the newest committed entry that closed a record, as it changes; at first of the newest entry.
    fn follow(&self) -> watch::Receiver<u64>;

    async fn pause(&self, order: PauseOrder) -> Result<Pause, DeskError>;

    /// Ends every pause of exactly this scope; [`DeskError::NoSuch`] when there is none, so that nobody believes that
    /// something runs again while a wider or narrower pause still holds.
    async fn resume(&self, scope: PauseScope, actor: String, reason: String) -> Result<(), DeskError>;

    async fn reset_breaker(&self, breaker: String, actor: String, reason: String) -> Result<(), DeskError>;

    /// Breaks one run off at its next safe point; [`DeskError::TooLate`] when its restart is begun or it is closed.
    async fn abort(&self, id: RecordId, actor: String, reason: String) -> Result<Aborting, DeskError>;

    /// Every rail's state and `remediations_allowed`.
    async fn guards(&self) -> Result<Board, Unavailable>;

    async fn readiness(&self) -> Vec<Probe>;

    /// Never fails: what cannot be read now is what was known last.
    async fn gauges(&self) -> Gauges;
}

impl ReceiptState {
    pub fn word(self) -> &'static str {
        match self {
            ReceiptState::Accepted => "accepted",
            ReceiptState::Folded => "folded",
            ReceiptState::Resolved => "resolved",
            ReceiptState::Heard => "heard",
        }
    }
}

impl Unavailable {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Unavailable { reason, detail: detail.into() }
    }
}
