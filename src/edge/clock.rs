//! The machine's own clock. The only place in the program that asks what time it is.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::world::Clock;

/// `now` follows the wall clock, which may jump; `sleep` follows the monotonic clock, which does not.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place where the time comes from")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep(&self, how_long: Duration) {
        tokio::time::sleep(how_long).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn time_passes_while_sleeping() {
        let (wall, monotonic) = (SystemClock.now(), tokio::time::Instant::now());
        SystemClock.sleep(Duration::from_millis(20)).await;
        assert!(monotonic.elapsed() >= Duration::from_millis(20));
        assert!(wall > Timestamp::UNIX_EPOCH);
    }
}
