//! systemd's notify protocol (`sd_notify(3)`): what a unit of `Type=notify` and `WatchdogSec=` hears from us.
//!
//! Promises: without `NOTIFY_SOCKET` nothing happens, so that a container needs no other build; a message that cannot be
//! sent is told in the log and stops nothing. When to say what is not decided here.
//!
//! Accepted: a service manager that does not read its socket makes us wait. It is process 1.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::edge::redact::plain_line;

/// Longest status line sent, in bytes; `systemctl status` shows one line.
const MAX_STATUS: usize = 300;

/// It may be relied on from now on. Also ends [`reloading`].
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(&line(status))]);
}

/// The pipeline has just decided something: the watchdog may wait for another `WatchdogSec`.
pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    send(&[NotifyState::Status(&line(text))]);
}

/// The configuration is being read again; [`ready`] follows, whatever comes of it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the service manager is not told of the reload: no monotonic clock"),
    }
}

/// It is coming to a safe point, which takes at most so long.
pub fn stopping(within: Duration, status: &str) {
    let micros = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
    send(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros), NotifyState::Status(&line(status))]);
}

/// A line break would begin another assignment.
fn line(text: &str) -> String {
    plain_line(text, MAX_STATUS)
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told {}", states.first().map(ToString::to_string).unwrap_or_default());
    }
}
