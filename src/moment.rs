//! A moment by two clocks: the wall clock, which may jump, and the steady one, which only goes on.
//!
//! What was seen is as old as the older of the two says, and where they disagree one of them cannot be believed: a process that
//! stood still while the clock was set back would otherwise take what it saw before for new.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::world::Clock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    at: Timestamp,
    steady: Instant,
}

impl Moment {
    pub fn now(clock: &dyn Clock) -> Moment {
        Moment { at: clock.now(), steady: Instant::now() }
    }

    /// By the wall clock.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// How long ago it was by the steady clock, which stands still in a machine that is suspended.
    pub fn passed(&self) -> SignedDuration {
        SignedDuration::try_from(self.steady.elapsed()).unwrap_or(SignedDuration::MAX)
    }

    /// How long ago it was by whichever clock says longer.
    pub fn age(&self, now: Timestamp) -> SignedDuration {
        self.passed().max(now.duration_since(self.at))
    }
}

/// By how much the wall clock has gone ahead of the time that has really passed; less than nothing when it went back.
pub fn jump(at: Timestamp, passed: SignedDuration, now: Timestamp) -> SignedDuration {
    now.duration_since(at).saturating_sub(passed)
}
