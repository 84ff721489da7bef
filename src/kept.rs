//! Loops that nobody may miss: one that ends badly is told of and begun again.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;

use crate::world::Clock;

/// Before it is begun again: a loop that panics at once must not fill the log.
const PAUSE: Duration = Duration::from_secs(5);

/// Runs a loop to its own end, however often it panics on the way.
pub async fn kept<F: Future<Output = ()>>(what: &'static str, clock: Arc<dyn Clock>, begin: impl Fn() -> F) {
    while let Err(panic) = AssertUnwindSafe(begin()).catch_unwind().await {
        tracing::error!(what, error = said(&*panic), "a loop ended badly; it is begun again");
        clock.sleep(PAUSE).await;
    }
}

/// What a panic said.
pub fn said(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::edge::clock::SystemClock;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_panics_is_begun_again_and_one_that_ends_is_over() {
        let begun = AtomicU32::new(0);
        let round = || async {
            assert!(begun.fetch_add(1, Ordering::Relaxed) >= 2, "not yet");
        };
        kept("a loop", Arc::new(SystemClock), round).await;
        assert_eq!(begun.load(Ordering::Relaxed), 3);
    }
}
