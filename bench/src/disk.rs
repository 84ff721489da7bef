//! Reference (a): the same bytes appended to a file and synced, on the same disk and in the same minute.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use crate::load::quantile;
use crate::program::folder;

/// Appends `bytes` and syncs, `times` times; the median of one write and sync, in milliseconds.
///
/// # Errors
/// The disk refuses.
pub fn fdatasync(bytes: usize, times: usize) -> io::Result<f64> {
    let dir = folder()?;
    let mut file = OpenOptions::new().create(true).append(true).open(dir.path().join("calibration"))?;
    let bytes = vec![b'x'; bytes];
    let mut took = Vec::new();
    for _ in 0..times {
        let begun = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        took.push(begun.elapsed());
    }
    Ok(quantile(took.iter().map(Duration::as_secs_f64).map(|seconds| seconds * 1e3).collect(), 0.5))
}
