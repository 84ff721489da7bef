//! Virtual time: tokio's own, from a fixed beginning. The program's clock may be ahead of the world's or behind it.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use crate::event::RecordId;
use crate::sim::{Point, Ports};
use crate::world::Clock;

#[async_trait]
impl Clock for Ports {
    fn now(&self) -> Timestamp {
        let ahead = self.sim.lock().clock_ahead;
        self.sim.now().saturating_add(ahead).unwrap_or(Timestamp::MAX)
    }

    /// Counted, so that the same run has the same ids and they sort in the order of their making.
    fn new_record(&self) -> RecordId {
        let mut state = self.sim.lock();
        state.ids += 1;
        RecordId(Uuid::from_u128((u128::from(state.ids) << 80) | (0x7 << 76) | (0x8 << 60)))
    }

    async fn sleep(&self, how_long: Duration) {
        self.enter(Point::Sleep).await;
        tokio::time::sleep(how_long).await;
        self.leave(Point::Sleep).await;
    }
}
