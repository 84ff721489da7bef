//! Rotation of `audit.jsonl` by ourselves: how large and how old a file may grow, and how many are kept.
//!
//! A full file gets the time and the number of its last line as its name, `audit.jsonl-20260203T040506Z-1234`, by one rename:
//! nothing is shifted, so that a crash leaves either name and never two files under one. Names sort by time. Whoever
//! prefers logrotate keeps 0, and then nothing here touches a file.

use std::fs::File;
use std::io;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::follower::FILE;

/// When a file is full, and how many full ones are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes; a file may be one batch of lines larger.
    pub size: u64,
    /// From its first line to its last.
    pub age: SignedDuration,
    /// Full files that are kept. 0: nothing is rotated, and nothing removed.
    pub keep: usize,
}

impl Rotation {
    /// Somebody else rotates, or nobody.
    pub const OFF: Rotation = Rotation { size: u64::MAX, age: SignedDuration::MAX, keep: 0 };

    pub(super) fn is_due(&self, bytes: u64, first: Option<Timestamp>, last: Timestamp) -> bool {
        let old = first.is_some_and(|first| last.duration_since(first) >= self.age);
        self.keep > 0 && (bytes >= self.size || old)
    }

    /// Moves the file away and removes the oldest beyond `keep`. Answers whether it was moved: not when its new name is taken.
    ///
    /// # Errors
    /// The directory cannot be changed.
    pub(super) fn rotate(&self, dir: &Path, last: Timestamp, seq: u64) -> io::Result<bool> {
        let full = dir.join(format!("{FILE}-{}-{seq}", last.strftime("%Y%m%dT%H%M%SZ")));
        if full.exists() {
            return Ok(false);
        }
        // The note of the last line's number is on the disk before the file without lines is.
        File::open(dir)?.sync_all()?;
        std::fs::rename(dir.join(FILE), full)?;
        File::open(dir)?.sync_all()?;
        let full = full_files(dir)?;
        for (name, _) in full.iter().take(full.len().saturating_sub(self.keep)) {
            std::fs::remove_file(dir.join(name))?;
            tracing::info!(name, "removed the oldest rotated file of audit lines");
        }
        Ok(true)
    }
}

/// The number of the last line in the newest full file.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn newest(dir: &Path) -> io::Result<Option<u64>> {
    Ok(full_files(dir)?.last().map(|(_, seq)| *seq))
}

/// Files that we rotated, oldest first, with the number of their last line. Nobody else's names look like ours.
fn full_files(dir: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if let Some(seq) = last_seq(&name) {
            found.push((name, seq));
        }
    }
    // By time, and then by number: as text, 9 would come after 10.
    let time = |name: &str| name.get(..FILE.len() + 17).unwrap_or_default().to_owned();
    found.sort_by_key(|(name, seq)| (time(name), *seq));
    Ok(found)
}

fn last_seq(name: &str) -> Option<u64> {
    let (time, seq) = name.strip_prefix(FILE)?.strip_prefix('-')?.split_once('-')?;
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    if shape == "00000000T000000Z" && seq.bytes().all(|byte| byte.is_ascii_digit()) { seq.parse().ok() } else { None }
}
