//! What the journal promises, promise by promise.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use rusqlite::Connection;

use super::canonical::canonical;
use super::chain::{self, GENESIS, Link};
use super::journal::{self, DATABASE, Journal};
use super::walks::{self, Walker, closes, opens, start};
use super::*;
use crate::event::{Draft, Entry, Event};
use crate::reason::Outcome;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn note(text: &str) -> Draft {
    Draft::global(start(), Event::Started { version: text.to_owned(), pid: 1 })
}

/// The WAL is brought into the database when the writer has a quiet moment, and not before SQLite itself would have to.
#[tokio::test]
async fn what_was_written_finds_its_place_in_a_quiet_moment() {
    const ENTRIES: i64 = 200;
    let dir = dir();
    let journal = Journal::open(dir.path()).expect("a journal");
    for n in 0..ENTRIES {
        journal.append(note(&n.to_string())).await.expect("written");
    }
    // A copy of the database without its WAL has what was brought into it.
    let copy = dir.path().join("copy.db");
    let placed = || {
        std::fs::copy(dir.path().join(DATABASE), &copy).expect("a copy");
        let conn = Connection::open(&copy).expect("a database");
        conn.query_row("SELECT count(*) FROM entries", (), |row| row.get::<_, i64>(0)).unwrap_or(0)
    };
    // A minute is a guard against hanging, nothing more.
    for _ in 0..1_200 {
        if placed() == ENTRIES {
            return journal.close().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{} of {ENTRIES} are in the database", placed());
}

/// A walk as long as `choices`, in a journal that lives in memory.
fn walked(choices: &[(u8, u8)]) -> (Journal, State) {
    let journal = Journal::in_memory().expect("a journal");
    let mut walker = Walker::new();
    for (what, which) in choices {
        now(journal.append(walker.next(*what, *which))).expect("a legal walk");
    }
    let state = journal.read(State::clone);
    (journal, state)
}

/// The same walk cut into transactions and batches. Each batch is tried on a full disk first, and holds a transaction that is
/// refused half-way.
fn walked_in_batches(choices: &[(u8, u8)], cuts: &[u8]) -> (Journal, State) {
    let journal = Journal::in_memory().expect("a journal");
    let mut walker = Walker::new();
    let mut batches: Vec<Vec<Vec<Draft>>> = Vec::new();
    for ((what, which), cut) in choices.iter().zip(cuts.iter().cycle()) {
        let draft = walker.next(*what, *which);
        match batches.last_mut() {
            Some(batch) if cut % 3 == 1 => batch.push(vec![draft]),
            Some(batch) if cut % 3 == 2 => batch.last_mut().expect("never empty").push(draft),
            _ => batches.push(vec![vec![draft]]),
        }
    }
    for (n, mut batch) in batches.into_iter().enumerate() {
        let before = journal.read(State::clone);
        journal.pretend_full(true);
        assert!(journal.batch(batch.clone()).iter().all(Result::is_err), "a full disk took something");
        journal.pretend_full(false);
        assert_eq!(journal.read(State::clone), before);
        let place = n % (batch.len() + 1);
        batch.insert(place, vec![opens(9_000, 0, start()), closes(9_001, Outcome::Refused, start())]);
        let results = journal.batch(batch);
        assert!(results.iter().enumerate().all(|(n, result)| result.is_ok() == (n != place)), "{results:?}");
    }
    let state = journal.read(State::clone);
    (journal, state)
}

/// The inline journal never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the inline journal answers at once")
}

/// A small chain with something of everything.
fn walk() -> Vec<(u8, u8)> {
    (0..60_u8).map(|n| (n.wrapping_mul(37), n.wrapping_mul(11))).collect()
}

fn written(dir: &Path, choices: &[(u8, u8)]) {
    let journal = Journal::open(dir).expect("a journal");
    let mut walker = Walker::new();
    let drafts: Vec<_> = choices.iter().map(|(what, which)| walker.next(*what, *which)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(journal.transact(move |_| (drafts, ()))).expect("written");
}

fn doctored(dir: &Path, sql: &str) -> Result<chain::Verified, chain::ChainError> {
    let conn = Connection::open(dir.join(DATABASE)).expect("the file");
    conn.execute_batch("DROP TRIGGER IF EXISTS entries_are_not_changed; DROP TRIGGER IF EXISTS entries_are_not_removed")
        .expect("no triggers");
    conn.execute_batch(sql).expect(sql);
    chain::verify(&conn)
}

fn broken_at(result: Result<chain::Verified, chain::ChainError>) -> (u64, String) {
    match result {
        Err(chain::ChainError::Broken(broken)) => (broken.seq, broken.why),
        other => panic!("not noticed: {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// What is in memory, what the projections hold, and what the entries say are the same.
    #[test]
    fn state_is_the_fold_of_the_entries(
        choices in proptest::collection::vec(any::<(u8, u8)>(), 1..120),
        cuts in proptest::collection::vec(any::<u8>(), 1..20),
    ) {
        let (journal, state) = walked_in_batches(&choices, &cuts);
        let (verified, loaded, again) = journal.with_core(|conn| {
            let tables = |conn: &Connection| -> Vec<String> {
                let sql = "SELECT id || opened_seq || ' ' || seq || ifnull(closed_at, '') || ifnull(outcome, '') || body FROM records
                           UNION ALL SELECT fingerprint || group_key || record FROM record_alerts
                           UNION ALL SELECT key || body FROM watches UNION ALL SELECT name || body FROM projections ORDER BY 1";
                conn.prepare(sql).expect("sql").query_map((), |row| row.get(0)).expect("rows").map(|r| r.expect("text")).collect()
            };
            let verified = chain::verify(conn).expect("a sound chain");
            let loaded = projection::load(conn).expect("readable");
            let before = tables(conn);
            let rebuilt = crate::edge::sqlite::write(conn, projection::rebuild).expect("rebuilt");
            let first = before.iter().zip(&tables(conn)).find(|(was, is)| was != is).map(|(was, is)| format!("{was}\n{is}"));
            assert_eq!(first, None, "the tables are what a rebuild makes of the entries");
            (verified, loaded, rebuilt)
        });
        prop_assert_eq!(verified.entries, choices.len() as u64);
        prop_assert_eq!(&verified.head, &state.head);
        prop_assert_eq!(loaded.as_ref(), Some(&state));
        prop_assert_eq!(&again, &state);
    }

    /// Whatever number an entry holds, its body reads back as it was written.
    #[test]
    fn canonical_numbers_read_back(number in any::<f64>(), whole in any::<i64>()) {
        let once = canonical(&serde_json::json!({ "b": number, "a": [whole, number / 3.0] })).expect("json");
        let read: serde_json::Value = serde_json::from_str(&once).expect("json");
        prop_assume!(number == 0.0 || (1e-300..1e300).contains(&number.abs()));
        prop_assert_eq!(canonical(&read).expect("json"), once);
    }
}

#[test]
fn the_hash_is_what_sha256sum_says() {
    let (journal, _) = walked(&walk()[..2]);
    let told = now(journal.entries_after(0, 10)).expect("entries");
    assert_eq!(told[0].prev_hash, GENESIS);
    for one in &told {
        let body = canonical(&one.entry).expect("json");
        // Coreutils: the point is that no part of this program is needed to check a hash.
        let script = r#"printf '%s\n%s' "$1" "$2" | sha256sum"#;
        let shell = Command::new("sh").args(["-c", script, "sh", &one.prev_hash, &body]).stderr(Stdio::inherit()).output();
        let said = String::from_utf8(shell.expect("sh and sha256sum").stdout).expect("text");
        assert_eq!(said.split_whitespace().next(), Some(one.hash.as_str()));
    }
}

#[test]
fn every_flipped_byte_is_noticed_where_it_is() {
    let (journal, _) = walked(&walk());
    let links: Vec<Link> = journal.with_core(|conn| {
        let sql = format!("SELECT {} FROM entries ORDER BY seq", Link::COLUMNS);
        conn.prepare(&sql).expect("sql").query_map((), Link::from_row).expect("rows").map(|l| l.expect("a link")).collect()
    });
    let mut head = Head::default();
    let mut flips = 0;
    for link in &links {
        link.check(&head).expect("sound");
        let fields: [fn(&mut Link) -> &mut String; 5] =
            [|l| &mut l.body, |l| &mut l.hash, |l| &mut l.prev_hash, |l| &mut l.ts, |l| &mut l.kind];
        for field in fields {
            for at in 0..field(&mut link.clone()).len() {
                let mut bad = link.clone();
                let mut bytes = std::mem::take(field(&mut bad)).into_bytes();
                bytes[at] ^= 1;
                let Ok(text) = String::from_utf8(bytes) else { continue };
                *field(&mut bad) = text;
                assert_eq!(bad.check(&head).expect_err("a flipped byte").seq, link.seq);
                flips += 1;
            }
        }
        head = Head { seq: link.seq, hash: link.hash.clone() };
    }
    assert!(flips > 10_000, "{flips}");
}

#[test]
fn a_doctored_file_is_told_by_its_first_bad_entry() {
    let cases: [(&str, u64, &str); 10] = [
        ("UPDATE entries SET body = replace(body, 'inventory', 'inventori') WHERE seq = 3", 3, "hash is not that"),
        ("UPDATE entries SET body = CAST(x'7b80' AS TEXT) WHERE seq = 4", 4, "cannot be read"),
        ("DELETE FROM entries WHERE seq = 5", 6, "follows entry 4"),
        ("DELETE FROM entries WHERE seq = 1", 2, "follows entry 0"),
        ("UPDATE entries SET hash = (SELECT hash FROM entries WHERE seq = 2) WHERE seq = 7", 7, "hash is not that"),
        ("UPDATE entries SET kind = 'closed' WHERE seq = 8", 8, "columns"),
        ("DELETE FROM entries WHERE seq > 30", 30, "projections"),
        (
            "UPDATE records SET outcome = 'recovered', body = replace(body, 'case', 'CASE') WHERE closed_at IS NOT NULL",
            0,
            "records",
        ),
        ("UPDATE projections SET body = replace(body, 'ann', 'bob') WHERE name = 'books'", 60, "projections"),
        ("UPDATE watches SET body = replace(body, 'FdLeakFast', 'FdLeakSlow')", 60, "projections"),
    ];
    for (sql, seq, why) in cases {
        let dir = dir();
        written(dir.path(), &walk());
        let (at, said) = broken_at(doctored(dir.path(), sql));
        assert!(said.contains(why) && (seq == 0 || at == seq), "{sql}: {at} {said}");
    }
}

#[test]
fn a_chain_forged_from_the_start_is_refused_for_what_it_says() {
    // Every hash fits; only the story does not: it opens a record twice, or closes one that was never opened.
    for drafts in [
        vec![opens(1, 0, start()), closes(1, Outcome::Refused, start()), opens(1, 0, start())],
        vec![closes(1, Outcome::Refused, start())],
    ] {
        let dir = dir();
        written(dir.path(), &[]);
        let conn = Connection::open(dir.path().join(DATABASE)).expect("the file");
        let (mut head, count) = (Head::default(), drafts.len() as u64);
        for Draft { at, record, event } in drafts {
            let (link, _) = Link::forge(&Entry { seq: head.seq + 1, at, record, event }, &head).expect("forged");
            let row = rusqlite::params![link.seq as i64, link.ts, link.record, link.kind, link.body, link.prev_hash, link.hash];
            conn.execute("INSERT INTO entries VALUES (?,?,?,?,?,?,?)", row).expect("a row");
            head = Head { seq: link.seq, hash: link.hash };
        }
        let (at, why) = broken_at(chain::verify(&conn));
        assert!(at == count && !why.contains("audit rebuild"), "{at} {why}");
        drop(conn);
        assert!(matches!(Journal::open(dir.path()), Err(JournalError::Broken(_))), "nothing starts on such a chain");
    }
}

#[test]
fn a_hash_that_left_the_machine_tells_a_cut_journal() {
    let dir = dir();
    written(dir.path(), &walk());
    let given_out = Journal::open(dir.path()).expect("a journal").head();
    doctored(dir.path(), "DELETE FROM entries WHERE seq = 60; DELETE FROM projections").expect_err("projections are gone");
    journal::rebuild(dir.path()).expect("rebuilt from what is left");
    let conn = journal::reader(dir.path()).expect("a reader");
    assert_eq!(chain::verify(&conn).expect("sound in itself").head.seq, 59);
    assert_eq!(chain::locate(&conn, &given_out.hash).expect("readable"), None);
}

#[test]
fn a_crash_loses_nothing_that_was_answered() {
    let (dir, copy) = (dir(), dir());
    let journal = Journal::open(dir.path()).expect("a journal");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut walker = Walker::new();
    for (what, which) in walk() {
        runtime.block_on(journal.append(walker.next(what, which))).expect("written");
    }
    // As the disk has it at this instant: the writer is alive, the WAL is not checkpointed.
    for name in [DATABASE, "journal.db-wal"] {
        std::fs::copy(dir.path().join(name), copy.path().join(name)).expect(name);
    }
    let after = Journal::open(copy.path()).expect("opens after a crash");
    assert_eq!(after.read(State::clone), journal.read(State::clone));
    let foreign = "UPDATE projections SET body = replace(body, '\"version\":', '\"version\":9') WHERE name = 'stamp'";
    drop(after);
    assert!(doctored(copy.path(), foreign).is_err());
    let rebuilt = Journal::open(copy.path()).expect("projections of another version are made again");
    assert_eq!(rebuilt.read(State::clone), journal.read(State::clone));
}

#[test]
fn an_illegal_entry_refuses_its_whole_transaction_and_nothing_else() {
    let (journal, before) = walked(&walk());
    let fresh = 1000;
    let drafts = vec![note("a"), opens(fresh, 0, start()), closes(fresh + 1, Outcome::Refused, start())];
    let refused = now(journal.transact(move |_| (drafts, ())));
    assert!(matches!(refused, Err(JournalError::Illegal(_))), "{refused:?}");
    assert_eq!(journal.read(State::clone), before);
    assert_eq!(now(journal.record(walks::id(fresh))).expect("readable"), None);
    // The same batch holds a good one before and one after it.
    let results = journal.batch(vec![
        vec![opens(fresh, 0, start())],
        vec![note("b"), opens(fresh, 0, start())],
        vec![closes(fresh, Outcome::Refused, start())],
        vec![opens(fresh, 0, start())],
    ]);
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, false]);
    let record = now(journal.record(walks::id(fresh))).expect("readable").expect("written");
    assert_eq!((record.outcome, record.seq), (Some(Outcome::Refused), before.head.seq + 2));
    let again = now(journal.append(opens(fresh, 0, start())));
    assert!(matches!(again, Err(JournalError::Illegal(_))), "a closed record is not opened again: {again:?}");
    journal.with_core(|conn| chain::verify(conn).expect("sound"));
}

#[test]
fn an_entry_that_would_not_read_back_is_refused() {
    let journal = Journal::in_memory().expect("a journal");
    let mut walker = Walker::new();
    let mut confirmed = None;
    for what in [3, 3] {
        let draft = walker.next(what, 0);
        if let Event::Confirmed { .. } = draft.event {
            confirmed = Some(draft);
        } else {
            now(journal.append(draft)).expect("opened");
        }
    }
    let mut draft = confirmed.expect("a reading");
    if let Event::Confirmed { evidence } = &mut draft.event {
        Arc::make_mut(evidence).reading = crate::decide::evidence::Reading::Firing { value: f64::NAN, query: "q".to_owned() };
    }
    let refused = now(journal.append(draft.clone()));
    assert!(matches!(refused, Err(JournalError::Unwritable { kind: "confirmed", .. })), "{refused:?}");
    assert_eq!(journal.head().seq, 1);
    // Its record is not kept open by it either: what can never be written is not tried for ever.
    let (id, at) = (draft.record.expect("of a record"), draft.at);
    let mut scribe = crate::act::scribe::Scribe::new(journal.clone(), id);
    scribe.hold(at, draft.event);
    let shutdown = tokio_util::sync::CancellationToken::new();
    let settled = scribe.settle(&crate::edge::clock::SystemClock, &shutdown, |_| false);
    assert!(settled.now_or_never().is_some(), "it goes on trying");
    assert!(journal.read(|state| state.open.is_empty()), "the record stays open");
}

/// A file that lost its name still takes writes. Nobody may be told that a pause is on disk then.
#[tokio::test]
async fn a_journal_that_was_removed_takes_nothing_more() {
    for replaced in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).expect("a journal");
        journal.append(opens(1000, 0, start())).await.expect("written");
        let file = dir.path().join(journal::DATABASE);
        let copy = std::fs::read(&file).expect("readable");
        std::fs::remove_file(&file).expect("removed");
        if replaced {
            std::fs::write(&file, copy).expect("another one of the same name");
        }
        let refused = journal.append(closes(1000, Outcome::Refused, start())).await;
        assert!(matches!(refused, Err(JournalError::Gone { .. })), "{refused:?}");
        assert!(journal.trouble().is_some_and(|why| why.contains("was removed or replaced")), "readyz and the metric say so");
        assert_eq!(journal.head().seq, 1);
    }
}

/// STORIES: the store could not be written. The answer is an error, nothing is done, the retry succeeds exactly once.
#[test]
fn disk_full() {
    let (journal, before) = walked(&walk());
    // A real SQLITE_FULL: no page more than there are, and an entry that needs some.
    let pages = |most: u32| {
        journal.with_core(|conn| conn.pragma_update_and_check(None, "max_page_count", most, |_| Ok(())).expect("set"))
    };
    pages(1);
    let long = "x".repeat(100_000);
    let batch = || vec![vec![opens(1000, 0, start())], vec![note(&long)], vec![closes(1000, Outcome::Refused, start())]];
    let results = journal.batch(batch());
    for result in &results {
        let error = result.as_ref().expect_err("everybody in the batch is told");
        assert!(matches!(error, JournalError::Store(_)), "{error:?}");
        assert!(crate::edge::causes(error).contains("full"), "{error:?}");
    }
    assert_eq!(journal.read(State::clone), before);
    assert_eq!(now(journal.record(walks::id(1000))).expect("readable"), None);
    pages(u32::MAX / 2);
    assert!(journal.batch(batch()).iter().all(Result::is_ok));
    assert_eq!(journal.head().seq, before.head.seq + 3);
    let verified = journal.with_core(|conn| chain::verify(conn).expect("sound"));
    assert_eq!(verified.entries, before.head.seq + 3);
}

#[tokio::test]
async fn a_pretended_full_disk_drops_the_value_too() {
    let dir = dir();
    let journal = Journal::open(dir.path()).expect("a journal");
    let permit = std::sync::Arc::new(());
    journal.pretend_full(true);
    let held = permit.clone();
    assert!(journal.transact(move |_| (vec![note("a")], held)).await.is_err());
    assert_eq!(std::sync::Arc::strong_count(&permit), 1, "a permit whose intent is not on disk must not exist");
    assert_eq!((journal.head(), journal.trouble().is_some()), (Head::default(), true));
    journal.pretend_full(false);
    assert_eq!(journal.append(note("a")).await.expect("written").seq, 1);
    assert_eq!(journal.trouble(), None);
}

/// SQLite has written the frames, the sync failed, and nobody knows what the next process will find.
#[tokio::test]
async fn a_commit_whose_sync_failed_may_be_there_for_the_next_process() {
    let journal = Journal::in_memory().expect("a journal");
    journal.append(note("a")).await.expect("written");
    journal.pretend_unsynced(true);
    assert!(journal.append(note("b")).await.is_err());
    assert_eq!((journal.head().seq, journal.is_haunted(), journal.trouble().is_some()), (1, true, true));
    journal.come_back().await.expect("legal");
    assert_eq!((journal.head().seq, journal.is_haunted(), journal.pretends_unsynced()), (2, false, true));
    // A commit that goes well writes over what was left.
    assert!(journal.append(note("c")).await.is_err());
    journal.pretend_unsynced(false);
    journal.append(note("d")).await.expect("written");
    assert!(!journal.is_haunted());
    journal.come_back().await.expect("nothing to do");
    assert_eq!(journal.head().seq, 3);
}

/// STORIES: an admin started a second copy by hand.
#[test]
fn two_healers() {
    let dir = dir();
    let first = Journal::open(dir.path()).expect("the first");
    let second = Journal::open(dir.path()).err().expect("the second is refused");
    let pid = std::process::id();
    assert_eq!(second.to_string(), format!("another remediator (pid {pid}) uses {}", dir.path().display()));
    assert!(matches!(journal::rebuild(dir.path()), Err(JournalError::Locked { .. })));
    drop(first);
    Journal::open(dir.path()).expect("the directory is free again");
}

/// Holds the writer inside a transaction until the sender is dropped.
async fn held(journal: &Journal) -> (mpsc::Sender<()>, tokio::task::JoinHandle<()>) {
    let (go, gone) = mpsc::channel::<()>();
    let (there, is_there) = tokio::sync::oneshot::channel();
    let journal = journal.clone();
    let task = tokio::spawn(async move {
        let hold = move |_: &State| {
            let _ = there.send(());
            let _ = gone.recv();
            (Vec::new(), ())
        };
        journal.transact(hold).await.expect("held");
    });
    is_there.await.expect("the writer is in it");
    (go, task)
}

#[tokio::test]
async fn what_waits_is_committed_at_once() {
    let dir = dir();
    let journal = Journal::open(dir.path()).expect("a journal");
    let (go, task) = held(&journal).await;
    let appends: Vec<_> = (0..100).map(|n| journal.append(note(&n.to_string()))).collect();
    let mut all = Box::pin(futures_util::future::join_all(appends));
    assert!((&mut all).now_or_never().is_none(), "all are queued and none is answered");
    drop(go);
    let mut seqs: Vec<_> = all.await.into_iter().map(|entry| entry.expect("written").seq).collect();
    seqs.dedup();
    task.await.expect("held");
    assert_eq!(seqs, (1..=100).collect::<Vec<_>>());
    assert_eq!(journal.commits(), 1);
}

#[tokio::test]
async fn a_full_queue_says_so_at_once_and_a_closed_one_too() {
    let dir = dir();
    let journal = Journal::open(dir.path()).expect("a journal");
    let (go, task) = held(&journal).await;
    let mut waiting = Vec::new();
    let refused = loop {
        let mut append = Box::pin(journal.append(note("n")));
        match (&mut append).now_or_never() {
            None => waiting.push(append),
            Some(answer) => break answer,
        }
        assert!(waiting.len() < 100_000, "there is no limit");
    };
    assert!(matches!(refused, Err(JournalError::Overloaded)), "{refused:?}");
    drop(go);
    let count = waiting.len() as u64;
    journal.close().await;
    assert!(futures_util::future::join_all(waiting).await.iter().all(Result::is_ok), "what was taken is written");
    task.await.expect("held");
    assert_eq!(journal.head().seq, count);
    assert!(matches!(journal.append(note("late")).await, Err(JournalError::Closed)));
    assert_eq!(journal.entries_after(0, 1).await.expect("reading goes on").len(), 1);
}

#[tokio::test]
async fn a_panic_in_a_transaction_is_its_own() {
    let dir = dir();
    let journal = Journal::open(dir.path()).expect("a journal");
    let panicked = journal.transact(|_| -> (Vec<Draft>, ()) { panic!("in a test") }).await;
    assert!(matches!(panicked, Err(JournalError::Panicked)));
    assert_eq!(journal.append(note("a")).await.expect("the writer lives").seq, 1);
}

#[tokio::test]
async fn dropping_the_last_handle_writes_what_waits() {
    let dir = dir();
    let journal = Journal::open(dir.path()).expect("a journal");
    let mut watch = journal.watch();
    let (go, task) = held(&journal).await;
    let mut append = Box::pin(journal.append(note("a")));
    assert!((&mut append).now_or_never().is_none());
    drop(append);
    drop(go);
    task.await.expect("held");
    drop(journal);
    assert_eq!(*watch.borrow_and_update(), 1, "a caller who goes away does not take its transaction back");
    assert_eq!(Journal::open(dir.path()).expect("free again").head().seq, 1);
}
