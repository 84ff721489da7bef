//! `audit.jsonl`: the closed records as a file that log shippers can read.
//!
//! Promise: every closed record is one line, in the order of closing; no crash loses or doubles one. The file follows
//! the journal and never the other way round, so that a full disk delays lines and nothing else.
//!
//! How: the last whole line says where to go on. What comes after it is cut off: it is the half of a line that will be
//! written again. A file without a line (new, or just rotated) says nothing, so number and hash of the last line are kept
//! beside it. Hashes tell whose lines they are: beside a journal that was restored from a backup, or begun anew, the file's
//! newest lines are of the one that is lost, and it goes on after the newest line that is this journal's. A file that was moved away (logrotate) is noticed by its inode before each write, and on
//! [`Follower::reopen`]. Deleting the file does not bring its lines back: `audit export` does. A file that is full is
//! moved away by ourselves ([`Rotation`]), after the number of its last line is noted, so that this rotation loses and doubles
//! nothing.
//!
//! Race accepted: a file that somebody else rotates in the instant between a crash's last line and the note of its number gets
//! that one batch twice, once in the old file and once in the new.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::audit::export::line;
use crate::audit::export::rotation::{self, Rotation};
use crate::audit::journal::Journal;
use crate::audit::query::Found;
use crate::audit::{JournalError, query};
use crate::edge::sqlite::integer;

/// The file within the state directory.
pub const FILE: &str = "audit.jsonl";
/// Number and hash of the last line that was written, for when the file has none.
const POSITION: &str = "audit.jsonl.position";
/// How long a failed write waits to be tried again, and how often an idle follower looks whether its file was moved.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Lines per write: a line with evidence may have some hundreds of kilobytes.
const BATCH: usize = 50;
/// A first line that is longer tells no time, and its file is rotated by size alone.
const LONGEST_LINE: u64 = 16 << 20;
/// Bytes read at once on the way back to the last line.
const CHUNK: u64 = 64 << 10;

/// The task that writes the file; it holds a handle of the journal. [`Follower::stop`] waits for its last line; dropping
/// it only tells it to end.
#[derive(Debug)]
pub struct Follower {
    signals: Arc<Signals>,
    task: JoinHandle<()>,
    _ends_with_us: DropGuard,
}

#[derive(Debug, Default)]
struct Signals {
    stop: CancellationToken,
    reopen: AtomicBool,
    wake: Notify,
    /// The number of the last line that is on the disk.
    written: AtomicU64,
}

/// The open file and the number of its last line.
#[derive(Debug)]
struct LineFile {
    dir: PathBuf,
    file: File,
    position: u64,
    rotation: Rotation,
    /// The time of its first line.
    first: Option<Timestamp>,
}

/// How far the file is written, for whoever must not take away what it still needs.
#[derive(Clone, Debug)]
pub struct Written(Arc<Signals>);

impl Written {
    /// Every record that was closed up to this entry has its line on the disk.
    pub fn seq(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }
}

#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("{FILE} cannot be written")]
    File(#[from] io::Error),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Follower {
    /// Opens `audit.jsonl` in `dir`, repairs its end, and starts to follow.
    ///
    /// # Errors
    /// The file cannot be opened: better said at the start than in the log.
    pub fn start(journal: Journal, dir: &Path, rotation: Rotation) -> io::Result<Follower> {
        let file = LineFile::open(&journal, dir, None, rotation)?;
        let signals = Arc::new(Signals { written: AtomicU64::new(file.position), ..Signals::default() });
        let task = tokio::spawn(follow(journal, file, Arc::clone(&signals)));
        let _ends_with_us = signals.stop.clone().drop_guard();
        Ok(Follower { signals, task, _ends_with_us })
    }

    /// To be asked how far the file is written.
    pub fn written(&self) -> Written {
        Written(Arc::clone(&self.signals))
    }

    /// Closes the file and opens it by its name again: after a rotation, on SIGHUP.
    pub fn reopen(&self) {
        self.signals.reopen.store(true, Ordering::Relaxed);
        self.signals.wake.notify_one();
    }

    /// Writes what is closed by now, and ends.
    pub async fn stop(self) {
        self.signals.stop.cancel();
        let _ = self.task.await;
    }
}

async fn follow(journal: Journal, file: LineFile, signals: Arc<Signals>) {
    let mut committed = journal.watch_closed();
    let dir = file.dir.clone();
    let rotation = file.rotation;
    let mut position = file.position;
    let mut open = Some(file);
    let mut failing = false;
    loop {
        // Asked before looking, so that what is closed during the look is seen by the next one.
        let last_look = signals.stop.is_cancelled();
        committed.mark_unchanged();
        if signals.reopen.swap(false, Ordering::Relaxed) {
            open = None;
        }
        match catch_up(&journal, &dir, rotation, open.take(), &mut position).await {
            Ok(file) => {
                if failing {
                    tracing::info!(position, "{FILE} is written again");
                }
                (open, failing) = (Some(file), false);
            }
            Err(error) => {
                if !failing {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, position, "{FILE} lags behind the journal");
                }
                failing = true;
            }
        }
        signals.written.store(position, Ordering::Relaxed);
        if last_look {
            return;
        }
        tokio::select! {
            // An error means that the journal is closed: nothing more will come.
            changed = committed.changed(), if !failing => if changed.is_err() { return },
            () = signals.wake.notified() => {}
            () = signals.stop.cancelled() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Writes every closed record after `position`. The file is given up on an error, and repaired when it is opened again.
async fn catch_up(
    journal: &Journal,
    dir: &Path,
    rotation: Rotation,
    file: Option<LineFile>,
    position: &mut u64,
) -> Result<LineFile, FollowError> {
    let (folder, from, its) = (dir.to_owned(), *position, journal.clone());
    let mut file = blocking(move || match file {
        Some(file) => file.where_named(&its),
        None => LineFile::open(&its, &folder, Some(from), rotation),
    })
    .await?;
    loop {
        let closed = journal.closed_after(file.position, BATCH.min(query::MAX_LIMIT)).await?;
        if closed.is_empty() {
            return Ok(file);
        }
        // After the question: what was closed after a rotation must not land in the file that was moved away.
        let its = journal.clone();
        file = blocking(move || file.where_named(&its)?.append(&closed)?.rotated(&its, &closed)).await?;
        *position = file.position;
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
}

impl LineFile {
    /// Opens the file, cuts what is not a whole line, and finds out where to go on; `known` is what this process knows
    /// about that, for a file without lines of this journal.
    fn open(journal: &Journal, dir: &Path, known: Option<u64>, rotation: Rotation) -> io::Result<LineFile> {
        let path = dir.join(FILE);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let position = match (last_line(&mut file)?, known) {
            (Some(newest), _) => where_left(journal, dir, &mut file, newest, known)?,
            (None, Some(known)) => known,
            (None, None) => noted(journal, dir)?,
        };
        // The name of a new file must survive a crash as well as its lines do.
        File::open(dir)?.sync_all()?;
        let first = first_line(&mut file)?;
        Ok(LineFile { dir: dir.to_owned(), file, position, rotation, first })
    }

    /// Another file has our name, or none.
    fn moved(&self) -> bool {
        let ours = self.file.metadata().map(|m| (m.dev(), m.ino()));
        let named = std::fs::metadata(self.dir.join(FILE)).map(|m| (m.dev(), m.ino()));
        !matches!((ours, named), (Ok(ours), Ok(named)) if ours == named)
    }

    /// The file that has our name now: this one, or a new one if this was moved away.
    fn where_named(self, journal: &Journal) -> io::Result<LineFile> {
        if self.moved() { LineFile::open(journal, &self.dir, Some(self.position), self.rotation) } else { Ok(self) }
    }

    /// Appends the lines and syncs them; then notes the last one's number.
    fn append(mut self, closed: &[Found]) -> io::Result<LineFile> {
        let mut text = Vec::new();
        // A file that came in between may be further than we were when we asked.
        for found in closed.iter().filter(|found| found.record.seq > self.position) {
            serde_json::to_writer(&mut text, &line(found))?;
            text.push(b'\n');
        }
        self.file.write_all(&text)?;
        self.file.sync_data()?;
        if let Some(last) = closed.last().filter(|last| last.record.seq > self.position) {
            self.position = last.record.seq;
            note(&self.dir, self.position, &last.hash)?;
        }
        Ok(self)
    }

    /// This file, or a new one if this is full now. `written` are the lines that it got last.
    fn rotated(mut self, journal: &Journal, written: &[Found]) -> io::Result<LineFile> {
        let time = |found: &Found| found.record.closed_at.unwrap_or(found.record.opened_at);
        let (Some(oldest), Some(newest)) = (written.first().map(time), written.last().map(time)) else { return Ok(self) };
        let first = *self.first.get_or_insert(oldest);
        if !self.rotation.is_due(self.file.metadata()?.len(), Some(first), newest) {
            return Ok(self);
        }
        if self.rotation.rotate(&self.dir, newest, self.position)? {
            LineFile::open(journal, &self.dir, Some(self.position), self.rotation)
        } else {
            Ok(self)
        }
    }
}

/// The time of the first line.
fn first_line(file: &mut File) -> io::Result<Option<Timestamp>> {
    #[derive(serde::Deserialize)]
    struct Timed {
        ts: Timestamp,
    }
    file.seek(SeekFrom::Start(0))?;
    let mut line = Vec::new();
    io::BufReader::new(&*file).take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice::<Timed>(&line).ok().map(|timed| timed.ts))
}

/// Where a line stands.
#[derive(Debug)]
pub(crate) struct Line {
    pub seq: u64,
    /// Of the entry that closed its record.
    hash: String,
    begins: u64,
    ends: u64,
}

/// The last whole line. Cuts off everything after it.
pub(crate) fn last_line(file: &mut File) -> io::Result<Option<Line>> {
    let length = file.metadata()?.len();
    let whole = end_of_line(file, length)?;
    let line = line_before(file, whole)?;
    let end = line.as_ref().map_or(0, |line| line.ends);
    if end < length {
        tracing::warn!(bytes = length - end, "{FILE} ended in the middle of a line, which is cut off and written again");
        file.set_len(end)?;
        file.sync_all()?;
    }
    Ok(line)
}

/// The last line before `end`, which is the end of a line; what is no line of ours is passed over.
fn line_before(file: &mut File, mut end: u64) -> io::Result<Option<Line>> {
    #[derive(serde::Deserialize)]
    struct Numbered {
        seq: u64,
        #[serde(default)]
        hash: String,
    }
    while end > 0 {
        let start = end_of_line(file, end - 1)?;
        let mut text = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut text)?;
        if let Ok(Numbered { seq, hash }) = serde_json::from_slice(&text) {
            return Ok(Some(Line { seq, hash, begins: start, ends: end }));
        }
        end = start;
    }
    Ok(None)
}

/// Where to go on in a file with lines: after the newest one that is this journal's.
fn where_left(journal: &Journal, dir: &Path, file: &mut File, newest: Line, known: Option<u64>) -> io::Result<u64> {
    let mut line = newest;
    if !ours(journal, line.seq, &line.hash)? {
        tracing::warn!(seq = line.seq, "the last line of {FILE} is not of this journal, which was restored or begun anew");
    }
    let oldest = loop {
        if ours(journal, line.seq, &line.hash)? {
            return Ok(line.seq);
        }
        match line_before(file, line.begins)? {
            Some(before) => line = before,
            None => break line.seq,
        }
    };
    if let Some(known) = known {
        return Ok(known);
    }
    // Not one of them is. Either the backup is older than all of them, and what it has was written to earlier files; or the
    // journal begins anew, and none of it was written at all.
    let head = journal.head();
    match read_note(dir)? {
        Some((seq, hash)) if ours(journal, seq, &hash)? => Ok(seq),
        _ if oldest > head.seq => {
            note(dir, head.seq, &head.hash)?;
            Ok(head.seq)
        }
        _ => Ok(0),
    }
}

/// Whether the journal has this very entry. Of one that was pruned nobody can say, and nothing before it is left to be written.
fn ours(journal: &Journal, seq: u64, hash: &str) -> io::Result<bool> {
    let asked = journal.ask_here(|conn| {
        let sql =
            "SELECT EXISTS(SELECT 1 FROM entries WHERE seq = ?1 AND hash = ?2) OR EXISTS(SELECT 1 FROM anchor WHERE seq >= ?1)";
        Ok(conn.prepare_cached(sql)?.query_row(rusqlite::params![integer(seq), hash], |row| row.get(0))?)
    });
    asked.map_err(io::Error::other)
}

/// Just after the last line feed before `end`, or the beginning.
fn end_of_line(file: &mut File, mut end: u64) -> io::Result<u64> {
    while end > 0 {
        let start = end.saturating_sub(CHUNK);
        let mut chunk = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut chunk)?;
        if let Some(at) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn note(dir: &Path, position: u64, hash: &str) -> io::Result<()> {
    let new = dir.join(format!("{POSITION}.new"));
    let mut file = File::create(&new)?;
    writeln!(file, "{position} {hash}")?;
    file.sync_data()?;
    std::fs::rename(new, dir.join(POSITION))
}

/// What was noted last. One that cannot be read says 0: everything is written again rather than a line lost.
fn read_note(dir: &Path) -> io::Result<Option<(u64, String)>> {
    match std::fs::read_to_string(dir.join(POSITION)) {
        Ok(text) => {
            // Notes of earlier versions have no hash.
            let (seq, hash) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
            Ok(Some((seq.parse().unwrap_or(0), hash.to_owned())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where to go on in a file without lines.
fn noted(journal: &Journal, dir: &Path) -> io::Result<u64> {
    let (seq, hash) = match read_note(dir)? {
        Some(noted) => noted,
        // Without a note the newest file that we rotated says it.
        None => (rotation::newest(dir)?.unwrap_or(0), String::new()),
    };
    let head = journal.head();
    if seq <= head.seq || ours(journal, seq, &hash)? {
        return Ok(seq);
    }
    // The journal was restored, and is behind what was written. Noted at once: it may grow before a line is.
    note(dir, head.seq, &head.hash)?;
    Ok(head.seq)
}

#[cfg(test)]
mod tests;
