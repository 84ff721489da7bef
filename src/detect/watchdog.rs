//! The dead-man's switch: an alert that always fires, so that its absence says that alerts do not reach us.
//!
//! Promise: a delivery of it writes no record, opens no episode, asks and touches nothing, and answers a receipt without
//! an id. All that it leaves is the time at which it was heard.
//!
//! It is recognised by its name before any playbook is asked, so it can never be remediated; and because the name comes
//! from the operator's own settings, naming an alert so from outside only keeps it from being remediated.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::alert::{Alert, AlertStatus};
use crate::api::desk::{Receipt, ReceiptState};
use crate::period::Period;

/// The always-firing alert's usual name: kube-prometheus calls it so, and many copied it.
pub const ALERTNAME: &str = "Watchdog";
/// Two deliveries of `repeat_interval: 5m` may be missed before it counts as absent.
pub const WITHIN: Period = Period::from_secs(600);

/// What is listened for, and when it was heard last.
#[derive(Debug, Default)]
pub struct Watchdog {
    alertname: String,
    within: Period,
    heard: Mutex<Option<Timestamp>>,
}

impl Watchdog {
    /// Without a name nothing is listened for.
    pub fn new(alertname: Option<String>, within: Period) -> Watchdog {
        let within = if alertname.is_some() { within } else { Period::ZERO };
        Watchdog { alertname: alertname.unwrap_or_default(), within, heard: Mutex::default() }
    }

    /// The receipt, when this is the alert that is listened for; firing, it counts as heard at `now`.
    pub fn hear(&self, alert: &Alert, now: Timestamp) -> Option<Receipt> {
        if self.alertname.is_empty() || alert.labels.alertname() != self.alertname {
            return None;
        }
        let (state, detail) = match alert.status {
            AlertStatus::Firing => {
                let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
                *heard = (*heard).max(Some(now));
                (ReceiptState::Heard, "the dead-man's switch: heard, and nothing is done about it")
            }
            AlertStatus::Resolved => (ReceiptState::Resolved, "the dead-man's switch should never stop firing"),
        };
        Some(Receipt {
            id: None,
            alertname: self.alertname.clone(),
            fingerprint: alert.labels.fingerprint().to_string(),
            status: alert.status,
            target: None,
            playbook: None,
            state,
            reason: None,
            detail: detail.to_owned(),
        })
    }

    /// When it was last delivered, firing.
    pub fn heard(&self) -> Option<Timestamp> {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long its absence is no news; zero when nothing is listened for.
    pub fn within(&self) -> Period {
        self.within
    }
}
