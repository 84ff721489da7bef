//! Walks the audit chain while the program runs, so that a changed journal is noticed by somebody before it is asked for.
//!
//! Promises: every entry is held against its hash and its predecessor within [`ALL_EVERY`], a new one within
//! [`NEW_EVERY`]; what was the head when a round began must be there at its end, so that cutting the newest entries off
//! is noticed, too. It never writes, never holds up the writer, and takes a small share of one core.
//!
//! How: in chunks, each in a reading transaction of its own, because a long one would keep the WAL from being reused. It
//! knows the hash up to which it has looked, and goes on from there; from time to time it begins anew.
//!
//! Where the oldest entries were pruned it begins at the anchor that they left.
//!
//! Not its business: whether the entries are legal one after the other, and whether the projections are their fold.
//! `remediator audit verify` says that.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tokio_util::sync::CancellationToken;

use crate::audit::JournalError;
use crate::audit::anchor::Anchor;
use crate::audit::chain::{Broken, ChainError, Head, Link};
use crate::audit::journal::Journal;
use crate::edge::sqlite::integer;
use crate::metrics::Telemetry;
use crate::world::Clock;

/// How often what is new is looked at.
const NEW_EVERY: Duration = Duration::from_secs(3600);
/// How often everything is.
const ALL_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Entries looked at without a rest. Hashing and reading a hundred takes some milliseconds.
const CHUNK: u64 = 100;
/// The rest: nine tenths of the time, and still a thousand entries a second.
const REST: Duration = Duration::from_millis(100);

/// How far the chain was followed.
#[derive(Debug, Default)]
pub struct Patrol {
    seen: Head,
}

/// One round after the other, until the program stops.
pub async fn keep_patrolling(journal: Journal, clock: Arc<dyn Clock>, telemetry: Arc<Telemetry>, shutdown: CancellationToken) {
    let mut patrol = Patrol::default();
    let mut rounds = 0;
    loop {
        let rounds_of_all = u32::try_from(ALL_EVERY.as_secs() / NEW_EVERY.as_secs()).unwrap_or(1);
        if rounds % rounds_of_all == 0 {
            patrol = Patrol::default();
        }
        rounds += 1;
        let walked = tokio::select! {
            walked = patrol.round(&journal, &*clock) => walked,
            () = shutdown.cancelled() => return,
        };
        match walked {
            Ok(_) => telemetry.chain(Some(clock.now())),
            Err(JournalError::Broken(broken)) => {
                tracing::error!(%broken, "the audit chain is broken: entries were changed, removed or added by somebody else");
                telemetry.chain(None);
                // Everything again: whatever is said next is said of the whole chain.
                rounds = 0;
            }
            Err(error) => tracing::warn!(%error, "the audit chain could not be looked at; it is tried again"),
        }
        tokio::select! {
            () = clock.sleep(NEW_EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

impl Patrol {
    /// Follows the chain to what is its head now, and answers that head.
    ///
    /// # Errors
    /// [`JournalError::Broken`] names the first entry that cannot be believed; otherwise nothing is known.
    pub async fn round(&mut self, journal: &Journal, clock: &dyn Clock) -> Result<Head, JournalError> {
        let head = journal.head();
        while self.seen.seq < head.seq {
            let (from, to) = (self.seen.clone(), head.seq.min(self.seen.seq + CHUNK));
            self.seen = journal.ask(move |conn| Ok(follow(conn, from, to)?)).await?;
            clock.sleep(REST).await;
        }
        if self.seen.seq == head.seq && self.seen.hash != head.hash {
            let why = "its hash is not the one that it was written with".to_owned();
            return Err(Broken { seq: head.seq, why }.into());
        }
        Ok(head)
    }
}

/// Holds the entries after `from` and up to number `to` against each other.
fn follow(conn: &Connection, from: Head, to: u64) -> Result<Head, ChainError> {
    // One look: an entry that is pruned meanwhile is no gap.
    let view = conn.unchecked_transaction()?;
    let anchor = Anchor::load(&view)?.map(|anchor| anchor.head);
    let mut head = anchor.filter(|anchor| anchor.seq > from.seq).unwrap_or(from);
    let sql = format!("SELECT {} FROM entries WHERE seq > ? AND seq <= ? ORDER BY seq", Link::COLUMNS);
    let mut statement = view.prepare(&sql)?;
    let mut rows = statement.query([integer(head.seq), integer(to)])?;
    while let Some(row) = rows.next()? {
        let unreadable = |error| Broken { seq: head.seq + 1, why: format!("its row cannot be read: {error}") };
        let link = Link::from_row(row).map_err(unreadable)?;
        link.check(&head)?;
        head = Head { seq: link.seq, hash: link.hash };
    }
    if head.seq < to {
        return Err(Broken { seq: head.seq + 1, why: format!("it is gone, and the newest is number {to} or later") }.into());
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::journal::{DATABASE, reader};
    use crate::audit::walks::Walker;
    use crate::edge::clock::SystemClock;

    async fn walked(dir: &std::path::Path, entries: u64) -> Journal {
        another(dir, entries, 11).await
    }

    async fn another(dir: &std::path::Path, entries: u64, seed: u64) -> Journal {
        let journal = Journal::open(dir).expect("a journal");
        let mut walker = Walker::new();
        let drafts = (0..entries).map(|n| walker.next((n * 37 % 250) as u8, (n * seed % 250) as u8)).collect();
        journal.transact(move |_| (drafts, ())).await.expect("written");
        journal
    }

    fn doctor(dir: &std::path::Path, sql: &str) {
        let conn = Connection::open(dir.join(DATABASE)).expect("the file");
        let free = "DROP TRIGGER IF EXISTS entries_are_not_changed; DROP TRIGGER IF EXISTS entries_are_not_removed;";
        conn.execute_batch(&format!("{free}{sql}")).expect(sql);
    }

    async fn found(patrol: &mut Patrol, journal: &Journal) -> (u64, String) {
        match patrol.round(journal, &SystemClock).await {
            Err(JournalError::Broken(Broken { seq, why })) => (seq, why),
            other => panic!("not noticed: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_whole_chain_is_followed_to_its_head_and_then_only_what_is_new() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = walked(dir.path(), 2 * CHUNK + 17).await;
        let mut patrol = Patrol::default();
        assert_eq!(patrol.round(&journal, &SystemClock).await.expect("whole"), journal.head());
        // Looked at already: not seen before everything is looked at again.
        doctor(dir.path(), "UPDATE entries SET body = replace(body, 'ann', 'bob') WHERE seq = 5");
        doctor(dir.path(), "UPDATE entries SET hash = 'x' WHERE seq = 5");
        patrol.round(&journal, &SystemClock).await.expect("nothing is new");
        assert_eq!(found(&mut Patrol::default(), &journal).await.0, 5);
    }

    #[tokio::test]
    async fn whatever_is_changed_removed_or_cut_off_is_named() {
        for (sql, seq, why) in [
            ("UPDATE entries SET body = replace(body, '\"', '\"\"') WHERE seq = 120", 120, "hash"),
            ("DELETE FROM entries WHERE seq = 3", 4, "follows entry 2"),
            ("DELETE FROM entries WHERE seq > 100", 101, "gone"),
            ("UPDATE entries SET kind = 'nothing' WHERE seq = 1", 1, "columns"),
            ("UPDATE entries SET body = CAST(x'ff' AS TEXT) WHERE seq = 7", 7, "cannot be read"),
        ] {
            let dir = tempfile::tempdir().expect("a directory");
            let journal = walked(dir.path(), CHUNK + 30).await;
            doctor(dir.path(), sql);
            let (at, said) = found(&mut Patrol::default(), &journal).await;
            assert_eq!(at, seq, "{sql}: {said}");
            assert!(said.contains(why), "{sql}: {said}");
        }
    }

    /// Somebody rewrote the whole file, hashes and all: what was known of it does not fit any more.
    #[tokio::test]
    async fn another_chain_in_the_place_of_ours_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = walked(dir.path(), 10).await;
        let mut patrol = Patrol { seen: follow(&reader(dir.path()).expect("a journal"), Head::default(), 5).expect("whole") };
        let other = tempfile::tempdir().expect("a directory");
        another(other.path(), 10, 13).await.close().await;
        let path = other.path().join(DATABASE);
        let swap = "DELETE FROM entries; INSERT INTO entries SELECT * FROM other.entries;";
        doctor(dir.path(), &format!("ATTACH '{}' AS other; {swap}", path.display()));
        assert_eq!(found(&mut patrol, &journal).await.0, 6, "it does not follow what was seen");
        let (seq, why) = found(&mut Patrol::default(), &journal).await;
        assert!(seq == 10 && why.contains("written with"), "whole in itself, and not what this program wrote: {seq}: {why}");
    }
}
