//! At most two labs at a time, whoever runs the tests: threads of one process, or processes of cargo-nextest.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

/// More would only measure how the machine shares itself.
const SLOTS: usize = 2;
/// All other labs together do not take as long.
const PATIENCE: Duration = Duration::from_secs(20 * 60);
const LOOK: Duration = Duration::from_millis(200);

/// Leave to have a lab; given back when dropped, by the kernel if nobody else does.
pub struct Slot(#[expect(dead_code, reason = "its lock is what counts")] File);

pub async fn take(dir: &Path) -> Slot {
    fs::create_dir_all(dir).expect(".lab can be made");
    let mut waited = Duration::ZERO;
    loop {
        for slot in 0..SLOTS {
            let file = File::create(dir.join(format!("slot-{slot}"))).expect("a slot's file can be made");
            if file.try_lock().is_ok() {
                return Slot(file);
            }
        }
        assert!(waited < PATIENCE, "no lab could be started for {PATIENCE:?}: {SLOTS} others are still up");
        tokio::time::sleep(LOOK).await;
        waited += LOOK;
    }
}
