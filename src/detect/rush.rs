//! Deliveries come first. An alert that was not acknowledged is sent again, and a sender that waits too long gives up; a
//! question to Prometheus or a page can wait a second. So while alerts come faster than anybody can act on them,
//! nothing new is asked and no page is made, for [`LONGEST`] at most: a flood that does not end delays a remediation and
//! never keeps it from coming.
//!
//! Only what has not begun waits here. What is drained, restarted or readmitted never does.
//!
//! How: a bucket of [`BURST`] alerts that fills up at [`RATE`]. It is a rush while the bucket is empty, so that a single
//! alert, and a handful, are asked about at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::{Instant, sleep};

/// Alerts that may come together without being a rush.
const BURST: f64 = 16.0;
/// Alerts a second that are no rush, however long they last.
const RATE: f64 = 20.0;
/// Longest wait.
pub const LONGEST: Duration = Duration::from_secs(1);

/// Cheap to clone; each process has one. Measures by the monotonic clock, so that no jump of the other one prolongs a wait.
#[derive(Clone, Default)]
pub struct Rush(Arc<Inner>);

#[derive(Default)]
struct Inner {
    bucket: Mutex<Option<Bucket>>,
    /// What everybody waits for who waits now: one timer for thousands.
    passing: Mutex<Option<Shared<BoxFuture<'static, ()>>>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rush {
    /// A delivery of so many alerts has come.
    pub fn delivered(&self, alerts: usize) {
        let mut bucket = self.0.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let Bucket { left, at } = filled(*bucket);
        *bucket = Some(Bucket { left: (left - alerts as f64).max(0.0), at });
    }

    /// Returns at once unless it is a rush; then when it is over, or after [`LONGEST`].
    pub async fn passed(&self) {
        if self.over_in().is_zero() {
            return;
        }
        let passing = {
            let mut passing = self.0.passing.lock().unwrap_or_else(PoisonError::into_inner);
            passing.get_or_insert_with(|| pass(self.clone()).boxed().shared()).clone()
        };
        passing.await;
    }

    /// How long until it is over, if nothing more comes.
    fn over_in(&self) -> Duration {
        let bucket = self.0.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = 1.0 - filled(*bucket).left;
        Duration::try_from_secs_f64(missing / RATE).unwrap_or(Duration::ZERO)
    }
}

/// The bucket as it is now.
fn filled(bucket: Option<Bucket>) -> Bucket {
    let at = Instant::now();
    let left = bucket.map_or(BURST, |bucket| BURST.min(bucket.left + RATE * (at - bucket.at).as_secs_f64()));
    Bucket { left, at }
}

async fn pass(rush: Rush) {
    let begun = Instant::now();
    loop {
        let wait = rush.over_in().min(LONGEST.saturating_sub(begun.elapsed()));
        if wait.is_zero() {
            break;
        }
        // Timers count whole milliseconds.
        sleep(wait.max(Duration::from_millis(1))).await;
    }
    // Whoever comes now waits anew.
    rush.0.passing.lock().unwrap_or_else(PoisonError::into_inner).take();
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waits(rush: &Rush) -> Duration {
        let begun = Instant::now();
        rush.passed().await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_handful_is_no_rush_and_neither_is_a_steady_trickle() {
        let rush = Rush::default();
        assert_eq!(waits(&rush).await, Duration::ZERO);
        rush.delivered(5);
        rush.delivered(10);
        assert_eq!(waits(&rush).await, Duration::ZERO);
        for _ in 0..500 {
            sleep(Duration::from_millis(55)).await;
            rush.delivered(1);
            assert_eq!(waits(&rush).await, Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rush_is_waited_out() {
        let rush = Rush::default();
        rush.delivered(1000);
        let waited = waits(&rush).await;
        assert!(waited >= Duration::from_millis(50) && waited < Duration::from_millis(55), "{waited:?}");
        assert_eq!(waits(&rush).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_end_delays_nobody_for_longer_than_a_second() {
        let rush = Rush::default();
        let flood = rush.clone();
        let flood = tokio::spawn(async move {
            loop {
                flood.delivered(1);
                sleep(Duration::from_millis(1)).await;
            }
        });
        sleep(Duration::from_millis(100)).await;
        let first = waits(&rush).await;
        assert!(first >= LONGEST - Duration::from_millis(2) && first <= LONGEST + Duration::from_millis(2), "{first:?}");
        // Two that wait together are let go together; who gave up leaves nothing behind that stands in the way.
        let _ = tokio::time::timeout(Duration::from_millis(300), rush.passed()).await;
        let waited = waits(&rush).await;
        assert!(waited <= LONGEST + Duration::from_millis(2), "{waited:?}");
        flood.abort();
        sleep(Duration::from_millis(60)).await;
        assert_eq!(waits(&rush).await, Duration::ZERO);
    }
}
