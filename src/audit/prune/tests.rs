use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::audit::anchor::{Whereabouts, place};
use crate::audit::chain::{self, ChainError};
use crate::audit::journal::{self, DATABASE};
use crate::audit::walks::{Walker, accepted, closes, id, opens, start, target};
use crate::audit::{JournalError, projection};
use crate::event::{Accepted, Draft};
use crate::reason::Outcome;

/// As far as it may go: only what is open stays, and the last entry.
const ALL: Aim = Aim { before: Timestamp::MAX, written: u64::MAX, keep: 1, most: STEP };

/// The inline journal never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the inline journal answers at once")
}

fn hours(hours: i64) -> Timestamp {
    start().checked_add(SignedDuration::from_hours(hours)).expect("in range")
}

/// One record an hour, opened and closed: entries 1 and 2, 3 and 4, and so on.
fn hourly(journal: &Journal, from: i64, to: i64) {
    let of = |hour: i64| {
        let number = hour as u128 + 1;
        [opens(number, hour as u8 % 3, hours(hour)), closes(number, Outcome::Refused, hours(hour))]
    };
    let drafts = (from..to).flat_map(of).collect();
    now(journal.transact(move |_| (drafts, ()))).expect("written");
}

fn inline() -> Journal {
    Journal::in_memory().expect("a journal")
}

fn pruned(journal: &Journal, aim: Aim) -> Option<Pruned> {
    match now(journal.prune(aim, start())).expect("pruned") {
        Step::Done(pruned) => Some(pruned),
        Step::Nothing | Step::Held(_) => None,
    }
}

/// Every row that is folded from entries.
fn tables(conn: &Connection) -> Vec<String> {
    let sql = "SELECT id || opened_seq || ' ' || seq || ifnull(closed_at, '') || ifnull(outcome, '') || body FROM records
               UNION ALL SELECT fingerprint || group_key || record FROM record_alerts
               UNION ALL SELECT key || body FROM watches UNION ALL SELECT name || body FROM projections ORDER BY 1";
    conn.prepare(sql).expect("sql").query_map((), |row| row.get(0)).expect("rows").map(|r| r.expect("text")).collect()
}

/// The chain is sound, and a rebuild makes of it what is there.
fn sound(journal: &Journal) -> chain::Verified {
    let state = journal.read(State::clone);
    journal.with_core(|conn| {
        let verified = chain::verify(conn).expect("a sound chain");
        assert_eq!(projection::load(conn).expect("readable").as_ref(), Some(&state));
        let before = tables(conn);
        let rebuilt = crate::edge::sqlite::write(conn, projection::rebuild).expect("rebuilt");
        assert!(rebuilt == state, "a rebuild gives another state");
        let first = before.iter().zip(&tables(conn)).find(|(was, is)| was != is).map(|(was, is)| format!("{was}\n{is}"));
        assert_eq!(first, None, "the tables are what a rebuild makes of the anchor and the entries");
        assert_eq!(before.len(), tables(conn).len());
        verified
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Wherever and however often it is pruned: what is known is what an unpruned journal knows, the chain is sound, a
    /// rebuild gives the same, and every record is whole or gone.
    #[test]
    fn pruning_changes_nothing_that_is_known(
        choices in proptest::collection::vec((any::<(u8, u8)>(), 0_u8..12, 1_usize..40, 1_u64..30), 1..150)
    ) {
        let (journal, whole) = (inline(), inline());
        let mut walker = Walker::new();
        for ((what, which), prune, most, keep) in choices {
            let draft = walker.next(what, which);
            now(whole.append(draft.clone())).expect("legal");
            now(journal.append(draft)).expect("legal");
            if prune == 0 {
                pruned(&journal, Aim { most, keep, ..ALL });
            }
        }
        let verified = sound(&journal);
        let (state, other) = (journal.read(State::clone), whole.read(State::clone));
        // Entries are numbered with the `pruned` ones in between, and nothing else differs.
        let unnumbered = |state: &State| {
            let open: Vec<_> = state.records().map(|record| crate::event::Record { seq: 0, ..record.clone() }).collect();
            (crate::guard::ledger::Books { anchored: None, last_at: start(), ..state.books.clone() }, open)
        };
        prop_assert_eq!(unnumbered(&state), unnumbered(&other));
        let through = verified.anchor.as_ref().map_or(0, |anchored| anchored.pruned.through);
        prop_assert_eq!(verified.entries, state.head.seq - through);
        let kept = now(journal.query(Default::default(), None, 500)).expect("records").items;
        for found in &kept {
            let twin = now(whole.record(found.record.id)).expect("readable").expect("the other has it");
            prop_assert_eq!(
                crate::event::Record { seq: 0, ..found.record.clone() },
                crate::event::Record { seq: 0, ..twin }
            );
            // Those in the anchor were needed at the last cut; what was needed at an earlier one may be over by now.
            let anchored = journal.with_core(|conn| Anchor::load(conn).expect("readable").map(|anchor| anchor.kept().expect("read")));
            let anchored = anchored.is_some_and(|kept| kept.iter().any(|kept| kept.record.id == found.record.id));
            prop_assert_eq!(found.record.seq <= through && found.record.is_closed(), anchored, "its last entry is gone: so is it");
        }
        for id in journal.read(|state| needed(&state.books)) {
            prop_assert!(now(journal.record(id)).expect("readable").is_some(), "record {id} is needed and gone");
        }
    }
}

#[test]
fn only_what_nobody_needs_and_is_old_enough_goes() {
    let made = || {
        let journal = inline();
        hourly(&journal, 0, 12);
        now(journal.append(opens(100, 9, hours(12)))).expect("stays open"); // entry 25
        hourly(&journal, 13, 20); // entries 26 to 39
        journal
    };
    for (aim, through, why) in [
        (Aim { most: 10, ..ALL }, 10, "a step"),
        (ALL, 24, "an open record"),
        (Aim { before: hours(5), ..ALL }, 10, "young entries"),
        (Aim { written: 8, ..ALL }, 8, "lines that are not written"),
        (Aim { keep: 30, ..ALL }, 8, "the newest entries"),
    ] {
        let journal = made();
        let done = pruned(&journal, aim).unwrap_or_else(|| panic!("{why}: nothing was pruned"));
        assert_eq!((done.through, done.entries, done.records), (through, through, through / 2), "{why}");
        assert_eq!(done.before, hours(through as i64 / 2 - 1));
        sound(&journal);
    }
    let journal = made();
    assert_eq!(pruned(&journal, ALL).expect("pruned").through, 24);
    assert_eq!(now(journal.prune(ALL, start())).expect("asked"), Step::Held(25), "it is open");
    now(journal.append(closes(100, Outcome::Refused, hours(20)))).expect("closed");
    assert_eq!(pruned(&journal, Aim { written: 30, ..ALL }), None, "no clean place before the line that is not written");
    hourly(&journal, 20, 24); // entries 42 to 49; 40 says what was pruned
    assert_eq!(pruned(&journal, ALL).expect("pruned").through, 47, "all but the last entries");
    assert_eq!(now(journal.prune(Aim { before: hours(0), ..ALL }, start())).expect("asked"), Step::Nothing);
    sound(&journal);
}

/// The one that it names stays whole to whoever reads it, and everything else goes.
#[test]
fn a_watch_that_never_settles_holds_nothing_back() {
    let journal = inline();
    let member = Accepted { fingerprint: "f00d".to_owned(), ..accepted(9) };
    now(journal.append(opens(1_000, 9, hours(0)))).expect("opened");
    now(journal.append(closes(1_000, Outcome::Refused, hours(0)))).expect("closed");
    let joined = Event::Joined { accepted: Arc::new(member), of: Some(id(1_000)) };
    now(journal.append(Draft::global(hours(0), joined))).expect("joined");
    hourly(&journal, 1, 100);
    let before = now(journal.found(id(1_000))).expect("readable").expect("there");
    while pruned(&journal, Aim { most: 30, ..ALL }).is_some() {
        sound(&journal);
        assert_eq!(now(journal.found(id(1_000))).expect("readable").as_ref(), Some(&before), "with the hash of its last entry");
    }
    let left = now(journal.entries_after(0, 500)).expect("readable");
    assert!(left[0].entry.seq > 195, "all but the last record went: {}", left[0].entry.seq);
    assert!(now(journal.story(id(1_000))).expect("readable").is_empty(), "only its story is gone");
    let by = |filter: crate::audit::query::Filter| now(journal.query(filter, None, 500)).expect("a page").items;
    let joined = crate::audit::query::Filter { fingerprint: Some("f00d".to_owned()), ..Default::default() };
    assert_eq!(by(joined), std::slice::from_ref(&before), "found by what joined it, too");
    assert_eq!(now(journal.closed_after(0, 500)).expect("readable").first(), Some(&before));
    // Doctored, it is noticed, and a rebuild makes it again.
    journal.with_core(|conn| {
        let doctor = "UPDATE records SET body = replace(body, 'refused', 'recovered') WHERE opened_seq = 1";
        assert_eq!(conn.execute(doctor, ()).expect("doctored"), 1);
        let said = chain::verify(conn).expect_err("noticed");
        assert!(matches!(&said, ChainError::Broken(broken) if broken.why.contains(&id(1_000).to_string())), "{said:?}");
        crate::edge::sqlite::write(conn, projection::rebuild).expect("rebuilt");
    });
    sound(&journal);
    // Once it is over it goes with the next step.
    let event = Event::WatchEnded { key: target(9).key(), detail: "over".to_owned() };
    now(journal.append(Draft::global(hours(101), event))).expect("ended");
    hourly(&journal, 102, 110);
    assert!(pruned(&journal, ALL).is_some());
    assert!(now(journal.record(id(1_000))).expect("readable").is_none());
    sound(&journal);
}

/// A quiet journal keeps its newest entries however old they are, and that is nobody's fault.
#[test]
fn a_quiet_journal_is_not_said_to_be_held() {
    let journal = inline();
    hourly(&journal, 0, 100);
    let ran = run_at(&journal, hours(24 * 365), Bounds { age: FLOOR, size: u64::MAX });
    assert_eq!(ran, Ran::default());
    hourly(&journal, 100, 900);
    let ran = run_at(&journal, hours(24 * 365), Bounds { age: FLOOR, size: u64::MAX });
    assert_eq!((ran.entries, ran.held_at), (800, None), "down to the newest that stay");
    // That audit.jsonl has not got them is worth a word.
    hourly(&journal, 900, 1_400);
    let written = now(run(&journal, &Still(std::sync::Mutex::new(hours(24 * 365))), Bounds { age: FLOOR, size: u64::MAX }, 900));
    assert_eq!(written.expect("ran").held_at, Some(902), "the closing entry of the first");
}

#[test]
fn where_something_is_always_under_way_records_are_carried() {
    let journal = inline();
    // Each opens before the one before it closes: there is no clean place at all.
    now(journal.append(opens(1, 0, hours(0)))).expect("opened");
    for number in 2..=40_u128 {
        now(journal.append(opens(number, number as u8 % 3, hours(number as i64)))).expect("opened");
        now(journal.append(closes(number - 1, Outcome::Refused, hours(number as i64)))).expect("closed");
    }
    let first = pruned(&journal, Aim { most: 10, ..ALL }).expect("pruned");
    // opens 1, then (opens n, closes n - 1): after ten entries 6 is open and 5 not closed yet.
    assert_eq!((first.through, first.entries, first.records), (10, 10, 4));
    sound(&journal);
    for (number, entries) in [(4, 0), (5, 1), (6, 1), (7, 2)] {
        let record = now(journal.record(id(number))).expect("readable");
        assert_eq!(record.is_some(), entries > 0, "record {number} is whole or gone");
        assert_eq!(now(journal.story(id(number))).expect("readable").len(), entries, "record {number}");
    }
    let carried = now(journal.record(id(5))).expect("readable").expect("carried");
    assert_eq!((carried.opened_at, carried.outcome), (hours(5), Some(Outcome::Refused)));
    while pruned(&journal, Aim { most: 10, ..ALL }).is_some() {
        sound(&journal);
    }
    assert!(now(journal.record(id(5))).expect("readable").is_none());
}

#[test]
fn a_step_that_cannot_be_written_changes_nothing() {
    let journal = inline();
    hourly(&journal, 0, 20);
    let (before, rows) = (journal.read(State::clone), journal.with_core(|conn| tables(conn)));
    journal.pretend_full(true);
    assert!(matches!(now(journal.prune(ALL, start())), Err(JournalError::Store(_))));
    journal.pretend_full(false);
    assert_eq!((journal.read(State::clone), journal.with_core(|conn| tables(conn))), (before, rows));
    assert_eq!(sound(&journal).anchor, None);
    assert!(pruned(&journal, ALL).is_some());
}

#[test]
fn a_cut_that_was_planned_before_another_is_refused() {
    let journal = inline();
    hourly(&journal, 0, 20);
    let late = journal.with_core(|conn| plan(conn, &[], Aim { most: 4, ..ALL }).expect("planned"));
    pruned(&journal, Aim { most: 6, ..ALL }).expect("pruned");
    let Plan::Cut(late) = late else { panic!("{late:?}") };
    let refused = journal.with_core(|conn| crate::edge::sqlite::write(conn, |transaction| carry_out(transaction, &late)));
    assert!(matches!(refused, Err(JournalError::Outdated)), "{refused:?}");
    assert_eq!(sound(&journal).anchor.expect("anchored").pruned.through, 6);
}

/// A journal on disk that was pruned through entry 20, closed.
fn on_disk() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(dir.path()).expect("a journal");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        for hour in 0..15 {
            let number = hour as u128 + 1;
            let both = vec![opens(number, hour as u8 % 3, hours(hour)), closes(number, Outcome::Refused, hours(hour))];
            journal.transact(|_| (both, ())).await.expect("written");
        }
        let done = journal.prune(Aim { most: 20, ..ALL }, hours(15)).await.expect("pruned");
        assert!(matches!(done, Step::Done(Pruned { through: 20, .. })), "{done:?}");
    });
    dir
}

fn doctored(dir: &Path, sql: &str) -> Result<chain::Verified, String> {
    let conn = Connection::open(dir.join(DATABASE)).expect("the file");
    let triggers = ["entries_are_not_changed", "entries_are_not_removed", "anchor_moves_forward", "anchor_is_not_removed"];
    for trigger in triggers {
        conn.execute_batch(&format!("DROP TRIGGER {trigger}")).expect("there is such a trigger");
    }
    conn.execute_batch(sql).expect(sql);
    chain::verify(&conn).map_err(|error| match error {
        ChainError::Broken(broken) => broken.to_string(),
        ChainError::Store(error) => panic!("{sql}: {error}"),
    })
}

#[test]
fn nobody_moves_or_changes_the_anchor_unnoticed() {
    doctored(on_disk().path(), "SELECT 1").expect("sound before");
    for (sql, why) in [
        ("DELETE FROM anchor", "follows entry 0"),
        ("UPDATE anchor SET state = replace(state, '2026', '2025')", "is not what the newest `pruned` entry vouches for"),
        ("UPDATE anchor SET hash = replace(hash, substr(hash, 1, 1), 'x')", "prev_hash is not the hash"),
        ("UPDATE anchor SET seq = 19", "follows entry 19, so 20 should be here"),
        ("DELETE FROM entries WHERE seq = 21", "follows entry 20, so 21"),
        ("DELETE FROM entries; DELETE FROM projections", "no entry says that anything was pruned"),
        // More is taken out and the anchor moved after it, without leave.
        (
            "UPDATE anchor SET seq = 22, hash = (SELECT hash FROM entries WHERE seq = 22); DELETE FROM entries WHERE seq <= 22",
            "names another anchor, entry 20",
        ),
    ] {
        let said = doctored(on_disk().path(), sql).expect_err(sql);
        assert!(said.contains(why), "{sql}: {said}");
    }
    // An anchor in a journal that was never pruned.
    let dir = tempfile::tempdir().expect("a directory");
    drop(Journal::open(dir.path()).expect("a journal"));
    let said = doctored(dir.path(), "INSERT INTO anchor VALUES (1, 5, 'x', '{}')").expect_err("an anchor from nowhere");
    assert!(said.contains("cannot be read"), "{said}");
}

#[test]
fn every_flipped_byte_of_the_anchor_and_of_what_is_kept_is_noticed() {
    let journal = inline();
    hourly(&journal, 0, 15);
    pruned(&journal, Aim { most: 20, ..ALL }).expect("pruned");
    journal.with_core(|conn| {
        conn.execute_batch("DROP TRIGGER anchor_moves_forward; DROP TRIGGER entries_are_not_changed").expect("no triggers");
        let mut flips = 0;
        for (table, column, row) in [
            ("anchor", "state", 1),
            ("anchor", "hash", 1),
            ("entries", "body", 21),
            ("entries", "hash", 26),
            ("entries", "prev_hash", 21),
            // The one that vouches.
            ("entries", "body", 31),
        ] {
            let key = if table == "anchor" { "id" } else { "seq" };
            let text: String = conn
                .query_row(&format!("SELECT {column} FROM {table} WHERE {key} = {row}"), (), |row| row.get(0))
                .expect("there is such a row");
            let set = format!("UPDATE {table} SET {column} = ? WHERE {key} = {row}");
            // The anchor's state is long and one text; a few bytes of it, and all of the rest.
            for at in (0..text.len()).step_by(if text.len() > 1_000 { 7 } else { 1 }) {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1;
                let Ok(bad) = String::from_utf8(bytes) else { continue };
                conn.execute(&set, [bad]).expect("flipped");
                assert!(chain::verify(conn).is_err(), "byte {at} of {table}.{column} of row {row}");
                flips += 1;
            }
            conn.execute(&set, [text]).expect("put back");
        }
        chain::verify(conn).expect("sound again");
        assert!(flips > 500, "{flips}");
    });
}

#[test]
fn the_database_itself_refuses_to_lose_what_was_not_pruned() {
    let dir = on_disk();
    let conn = Connection::open(dir.path().join(DATABASE)).expect("the file");
    for sql in [
        "DELETE FROM entries WHERE seq = 21",
        "DELETE FROM entries",
        "DELETE FROM anchor",
        "UPDATE anchor SET seq = 3",
        "UPDATE entries SET ts = 'x'",
    ] {
        let refused = conn.execute_batch(sql).expect_err(sql).to_string();
        assert!(refused.contains("append-only") || refused.contains("forward"), "{sql}: {refused}");
    }
    chain::verify(&conn).expect("sound");
}

/// kill -9 and a power cut: the WAL ends anywhere.
#[test]
fn a_crash_at_any_point_leaves_all_of_a_step_or_nothing() {
    let (dir, copy) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let journal = Journal::open(dir.path()).expect("a journal");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        for hour in 0..15 {
            let number = hour as u128 + 1;
            let both = vec![opens(number, hour as u8 % 3, hours(hour)), closes(number, Outcome::Refused, hours(hour))];
            journal.transact(|_| (both, ())).await.expect("written");
        }
        journal.tidy().await.expect("an empty WAL");
        journal.prune(Aim { most: 8, ..ALL }, hours(15)).await.expect("pruned");
        journal.prune(Aim { most: 8, ..ALL }, hours(15)).await.expect("pruned");
    });
    let wal = std::fs::read(dir.path().join("journal.db-wal")).expect("the WAL");
    let mut seen = BTreeSet::new();
    for cut in (0..=wal.len()).step_by(wal.len() / 40).chain([wal.len()]) {
        std::fs::copy(dir.path().join(DATABASE), copy.path().join(DATABASE)).expect("copied");
        std::fs::write(copy.path().join("journal.db-wal"), &wal[..cut]).expect("written");
        let _ = std::fs::remove_file(copy.path().join("journal.db-shm"));
        let after = Journal::open(copy.path()).expect("opens after a crash");
        let through = after.read(|state| state.books.anchored.as_ref().map_or(0, |anchored| anchored.pruned.through));
        drop(after);
        let verified = chain::verify(&journal::reader(copy.path()).expect("a reader")).expect("sound");
        assert_eq!(verified.entries + through, verified.head.seq);
        journal::rebuild(copy.path()).expect("rebuilt");
        seen.insert((through, verified.head.seq));
    }
    assert_eq!(seen, BTreeSet::from([(0, 30), (8, 31), (16, 32)]), "before, between and after, and nothing else");
}

#[test]
fn a_hash_that_was_given_out_is_found_or_it_is_said_that_nobody_can_tell() {
    let journal = inline();
    hourly(&journal, 0, 20);
    let hash = |seq: u64| now(journal.entries_after(seq - 1, 1)).expect("readable").remove(0).hash;
    let (fourth, sixth, tenth, last) = (hash(4), hash(6), hash(10), hash(40));
    let ask = |hash: &str| journal.with_core(|conn| place(conn, hash).expect("readable"));
    assert_eq!((ask(&sixth), ask("nonsense")), (Whereabouts::Kept(6), Whereabouts::Missing));
    pruned(&journal, Aim { most: 6, ..ALL }).expect("pruned");
    pruned(&journal, Aim { most: 4, ..ALL }).expect("pruned");
    assert_eq!(ask(&last), Whereabouts::Kept(40));
    assert_eq!(ask(&tenth), Whereabouts::Anchor(10));
    assert_eq!(ask(&sixth), Whereabouts::Earlier(6), "an earlier anchor");
    assert_eq!((ask(&fourth), ask("nonsense")), (Whereabouts::Untold, Whereabouts::Untold));
}

#[test]
fn an_anchor_of_today_is_read_for_ever() {
    // Written by the version that first had anchors. If this cannot be read any more, no pruned journal can be.
    let folded: super::super::anchor::Anchor = super::super::anchor::Anchor::literal(
        7,
        "ab",
        r#"{"books":{"anchored":{"anchor_hash":"x","at":"2026-02-03T04:05:06Z","before":"2026-02-03T04:05:06Z","entries":2,"records":1,"state_sha256":"y","through":2},"drained":{},"last_at":"2026-02-03T04:05:06Z","last_decision":null,"live":{"attempts":[],"breakers":{},"buckets":{"fleet":{"at":"2026-02-03T04:05:06Z","tokens":1.5}},"drains":{},"granted":{},"held":{}},"pauses":[{"actor":"ann","reason":"r","scope":{"scope":"all"},"until":null}],"shadow":{"attempts":[],"breakers":{},"buckets":{},"drains":{},"granted":{},"held":{}},"watches":{}},"open":[]}"#,
    );
    let state = folded.state().expect("read");
    assert_eq!((state.head.seq, state.books.pauses.len()), (7, 1));
}

/// A clock that stands still but for sleeps.
struct Still(std::sync::Mutex<Timestamp>);

#[async_trait::async_trait]
impl Clock for Still {
    fn now(&self) -> Timestamp {
        *self.0.lock().expect("no panic")
    }
    async fn sleep(&self, how_long: std::time::Duration) {
        let mut now = self.0.lock().expect("no panic");
        *now = now.checked_add(SignedDuration::try_from(how_long).expect("short")).expect("in range");
    }
}

fn run_at(journal: &Journal, at: Timestamp, bounds: Bounds) -> Ran {
    now(run(journal, &Still(std::sync::Mutex::new(at)), bounds, u64::MAX)).expect("ran")
}

#[test]
fn a_run_prunes_by_age_once_a_day_and_never_below_the_floor() {
    let day = 24;
    let journal = inline();
    hourly(&journal, 0, 100 * day);
    let bounds = Bounds { age: SignedDuration::from_hours(40 * day), size: u64::MAX };
    let ran = run_at(&journal, hours(100 * day), bounds);
    // Everything older than 40 days: 60 days of 24 records of 2 entries, in steps.
    assert_eq!((ran.entries, ran.records, ran.steps), (60 * 24 * 2, 60 * 24, 3));
    assert_eq!(run_at(&journal, hours(100 * day + 23), bounds), Ran::default(), "not again on the same day");
    assert!(run_at(&journal, hours(101 * day + 2), bounds).entries > 0);
    sound(&journal);
    // Asked for less than the floor, and far too large: the floor holds.
    let ran = run_at(&journal, hours(101 * day + 3), Bounds { age: SignedDuration::ZERO, size: 1 });
    assert!(ran.still_crowded, "{ran:?}");
    let oldest = now(journal.oldest()).expect("readable").expect("some");
    assert_eq!(hours(101 * day + 3).duration_since(oldest), FLOOR);
    sound(&journal);
}

#[test]
fn a_run_prunes_by_size_until_a_tenth_is_free() {
    let journal = inline();
    hourly(&journal, 0, 100 * 24);
    let before = now(journal.room()).expect("readable");
    let bounds = Bounds { age: SignedDuration::from_hours(1_000_000), size: before.live * 3 / 4 };
    let ran = run_at(&journal, hours(100 * 24), bounds);
    let after = now(journal.room()).expect("readable");
    assert!(!ran.still_crowded && after.live <= bounds.size, "{ran:?} {after:?}");
    assert!(after.live > bounds.size / 2, "not much more than needed: {after:?}");
    assert!(after.file < before.file, "given back to the file system: {before:?} {after:?}");
    assert_eq!(run_at(&journal, hours(100 * 24), bounds), Ran::default());
    sound(&journal);
}

#[test]
fn a_clock_that_cannot_be_right_does_not_eat_the_journal() {
    let journal = inline();
    hourly(&journal, 0, 1_000);
    let bounds = Bounds { age: FLOOR, size: 0 };
    let ran = run_at(&journal, hours(-1), bounds);
    assert!(ran.clock_behind && ran.steps == 0, "{ran:?}");
    // A leap of a hundred years: the newest entries stay, however often it looks.
    for _ in 0..3 {
        run_at(&journal, hours(24 * 365 * 100), bounds);
    }
    let kept = now(journal.closed_after(0, 500)).expect("readable");
    assert_eq!((kept.len(), kept[0].record.id), (500, id(501)));
    sound(&journal);
}

#[tokio::test]
async fn room_is_really_given_back_while_others_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(dir.path()).expect("a journal");
    let long = "x".repeat(20_000);
    for hour in 0..600_i64 {
        let event = Event::Started { version: long.clone(), pid: 1 };
        journal.append(Draft::global(hours(hour), event)).await.expect("written");
    }
    let before = journal.room().await.expect("readable");
    let size = |name: &str| std::fs::metadata(dir.path().join(name)).map_or(0, |found| found.len());
    let writing = {
        let journal = journal.clone();
        tokio::spawn(async move {
            for n in 0..50 {
                let event = Event::Started { version: format!("{n}"), pid: 1 };
                journal.append(Draft::global(hours(600), event)).await.expect("written beside the pruning");
            }
        })
    };
    while let Step::Done(_) = journal.prune(Aim { most: 100, keep: 60, ..ALL }, hours(600)).await.expect("pruned") {}
    writing.await.expect("no panic");
    while let Step::Done(_) = journal.prune(Aim { most: 100, keep: 60, ..ALL }, hours(600)).await.expect("pruned") {}
    journal.tidy().await.expect("tidied");
    let after = journal.room().await.expect("readable");
    assert!(before.file > 12_000_000 && after.file < 3_000_000, "{before:?} {after:?}");
    assert_eq!(size("journal.db") + size("journal.db-wal"), after.file);
    assert_eq!(size("journal.db-wal"), 0);
    let conn = journal::reader(dir.path()).expect("a reader");
    chain::verify(&conn).expect("sound");
}
