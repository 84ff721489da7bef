//! Leave to act, as a type: it cannot be made outside this room, copied, or used twice.

use std::marker::PhantomData;

use jiff::Timestamp;

use crate::decide::decision::Plan;
use crate::event::RecordId;

/// Marks a permit that may touch production.
#[derive(Debug)]
pub enum Live {}

/// Marks a permit that may only say what it would have done.
#[derive(Debug)]
pub enum Shadow {}

/// Leave to carry out one plan until it expires. Act consumes it.
#[derive(Debug)]
pub struct Permit<Mode> {
    record: RecordId,
    plan: Box<Plan>,
    expires_at: Timestamp,
    mode: PhantomData<Mode>,
}

/// What admission gave.
#[derive(Debug)]
pub enum Granted {
    Live(Permit<Live>),
    Shadow(Permit<Shadow>),
}

impl<Mode> Permit<Mode> {
    /// Only `guard::coordinate` calls this, after the intent has been drafted for the same transaction.
    pub(super) fn grant(record: RecordId, plan: Plan, expires_at: Timestamp) -> Self {
        Permit { record, plan: Box::new(plan), expires_at, mode: PhantomData }
    }

    pub fn record(&self) -> RecordId {
        self.record
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn expired(&self, now: Timestamp) -> bool {
        now >= self.expires_at
    }

    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }
}
