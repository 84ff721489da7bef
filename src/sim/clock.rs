//! Virtual time: tokio's own, from a fixed beginning. The program's clock may be ahead of the world's or behind it.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::sim::{Point, Ports};
use crate::world::Clock;

#[async_trait]
impl Clock for Ports {
    fn now(&self) -> Timestamp {
        let ahead = self.sim.lock().clock_ahead;
        self.sim.now().saturating_add(ahead).unwrap_or(Timestamp::MAX)
    }

    async fn sleep(&self, how_long: Duration) {
        self.enter(Point::Sleep).await;
        tokio::time::sleep(how_long).await;
        self.leave(Point::Sleep).await;
    }
}
