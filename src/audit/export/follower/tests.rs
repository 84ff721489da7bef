use std::time::Duration;

use jiff::SignedDuration;

use super::*;
use crate::audit::walks::{closes, opens, start};
use crate::reason::Outcome;

/// A journal in memory with records `from..to`, closed one after the other.
async fn grown(journal: &Journal, from: u128, to: u128) {
    for number in from..to {
        journal.append(opens(number, 0, start())).await.expect("opened");
        journal.append(closes(number, Outcome::Refused, start())).await.expect("closed");
    }
}

async fn followed(journal: &Journal, dir: &Path) {
    Follower::start(journal.clone(), dir, Rotation::OFF).expect("a follower").stop().await;
}

fn text(dir: &Path) -> String {
    std::fs::read_to_string(dir.join(FILE)).expect("the file")
}

fn seqs(text: &str) -> Vec<u64> {
    let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("a line")["seq"].as_u64().expect("a number");
    text.lines().map(line).collect()
}

/// Waits for the follower's task, which runs beside the test.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen");
}

#[tokio::test]
async fn every_closed_record_is_one_line_with_the_promised_keys() {
    let (journal, dir) = (Journal::in_memory().expect("a journal"), tempfile::tempdir().expect("a directory"));
    grown(&journal, 1, 4).await;
    journal.append(opens(9, 1, start())).await.expect("one stays open");
    followed(&journal, dir.path()).await;
    let text = text(dir.path());
    assert_eq!(seqs(&text), [2, 4, 6]);
    let keys = "id, ts, host, healer, mode, intent, outcome, reason, reason_code, fact, alert, target, incident, guards, steps, \
                evidence, duration_ms, seq, hash";
    let mut rest = text.lines().next().expect("a line");
    for key in keys.split(", ") {
        let at = rest.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key} is not there, or not in its place"));
        rest = &rest[at..];
    }
    let value: serde_json::Value = serde_json::from_str(text.lines().next().expect("a line")).expect("json");
    assert_eq!(value.as_object().map(serde_json::Map::len), Some(keys.split(", ").count()));
    assert_eq!(value["target"], "inventory/inventory-0:8080");
    assert_eq!(value["outcome"], "refused");
    assert_eq!(value["reason"], "Prometheus proves that the condition does not hold now: said in a test");
    assert_eq!(value["hash"].as_str().map(str::len), Some(64));
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_line_loses_and_doubles_none() {
    let (journal, dir) = (Journal::in_memory().expect("a journal"), tempfile::tempdir().expect("a directory"));
    grown(&journal, 1, 6).await;
    followed(&journal, dir.path()).await;
    let whole = text(dir.path());
    // The disk may have got any part of what was written, and the note is never ahead of the lines.
    for cut in (0..=whole.len()).rev().step_by(97).chain(0..3) {
        std::fs::write(dir.path().join(FILE), &whole[..cut]).expect("cut");
        if !whole[..cut].contains('\n') {
            let _ = std::fs::remove_file(dir.path().join(POSITION));
        }
        followed(&journal, dir.path()).await;
        assert!(text(dir.path()) == whole, "cut at {cut}");
    }
    // What a file system may leave after a power cut: the length without the data.
    std::fs::write(dir.path().join(FILE), format!("{}\0\0\0\0\n\0\0", &whole[..whole.len() / 2])).expect("zeros");
    followed(&journal, dir.path()).await;
    assert!(text(dir.path()) == whole);
}

#[tokio::test]
async fn a_rotated_file_is_not_written_twice() {
    let (journal, dir) = (Journal::in_memory().expect("a journal"), tempfile::tempdir().expect("a directory"));
    let (file, old) = (dir.path().join(FILE), dir.path().join("audit.jsonl.1"));
    grown(&journal, 1, 4).await;
    followed(&journal, dir.path()).await;
    // Rotated while nobody followed: the new file is empty, and the old lines stay in the old one.
    std::fs::rename(&file, &old).expect("rotated");
    followed(&journal, dir.path()).await;
    assert_eq!(text(dir.path()), "");
    // Rotated under a running follower: noticed before the next line.
    let follower = Follower::start(journal.clone(), dir.path(), Rotation::OFF).expect("a follower");
    grown(&journal, 4, 6).await;
    until("two lines", || seqs(&text(dir.path())).len() == 2).await;
    std::fs::rename(&file, &old).expect("rotated");
    grown(&journal, 6, 8).await;
    until("a new file with two lines", || file.exists() && seqs(&text(dir.path())).len() == 2).await;
    assert_eq!(seqs(&text(dir.path())), [12, 14]);
    assert_eq!(seqs(&std::fs::read_to_string(&old).expect("the old file")), [8, 10]);
    // SIGHUP makes the file even when nothing is closed.
    std::fs::rename(&file, &old).expect("rotated");
    follower.reopen();
    until("a new file", || file.exists()).await;
    follower.stop().await;
}

#[tokio::test]
async fn a_follower_that_cannot_write_catches_up_later() {
    let (journal, dir) = (Journal::in_memory().expect("a journal"), tempfile::tempdir().expect("a directory"));
    let follower = Follower::start(journal.clone(), dir.path(), Rotation::OFF).expect("a follower");
    // A directory stands where the file should be: the open fails, whoever runs the test.
    let file = dir.path().join(FILE);
    std::fs::remove_file(&file).expect("removed");
    std::fs::create_dir(&file).expect("in the way");
    grown(&journal, 1, 3).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    std::fs::remove_dir(&file).expect("out of the way");
    follower.reopen();
    until("both lines", || file.is_file() && seqs(&text(dir.path())) == [2, 4]).await;
    follower.stop().await;
}

/// Every file of lines, oldest first, with the numbers of its lines.
fn files(dir: &Path) -> Vec<(String, Vec<u64>)> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .expect("readable")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .filter(|name| name.starts_with(FILE) && !name.starts_with(POSITION))
        .collect();
    // The one without a number is the newest.
    names.sort_by_key(|name| (name == FILE, name.rsplit('-').next().and_then(|seq| seq.parse::<u64>().ok())));
    let read = |name: String| {
        let text = std::fs::read_to_string(dir.join(&name)).expect("readable");
        (name, seqs(&text))
    };
    names.into_iter().map(read).collect()
}

async fn rotating(journal: &Journal, dir: &Path, rotation: Rotation) {
    Follower::start(journal.clone(), dir, rotation).expect("a follower").stop().await;
}

#[tokio::test]
async fn a_full_file_is_moved_away_and_no_line_is_lost_or_doubled() {
    let (journal, dir) = (Journal::in_memory().expect("a journal"), tempfile::tempdir().expect("a directory"));
    // Somebody else's files are left alone.
    for other in ["audit.jsonl.1", "audit.jsonl-20260203", "audit.jsonl-20260203T040506Z-x"] {
        std::fs::write(dir.path().join(other), "").expect("written");
    }
    let rotation = Rotation { size: 3_000, age: SignedDuration::MAX, keep: 100 };
    for round in 0..12 {
        grown(&journal, round * 3 + 1, round * 3 + 4).await;
        rotating(&journal, dir.path(), rotation).await;
    }
    let found = files(dir.path());
    let lines: Vec<u64> = found.iter().flat_map(|(_, seqs)| seqs.clone()).collect();
    assert_eq!(lines, (1..=36).map(|n| n * 2).collect::<Vec<_>>());
    let full: Vec<_> = found.iter().filter(|(_, seqs)| !seqs.is_empty() && seqs.last() != Some(&72)).collect();
    assert!(full.len() >= 3, "{found:?}");
    for (name, seqs) in full {
        assert!(name == FILE || name.ends_with(&format!("-20260203T040506Z-{}", seqs.last().expect("lines"))), "{name}");
    }
    // Only the newest are kept; the current file is not one of them.
    grown(&journal, 37, 60).await;
    rotating(&journal, dir.path(), Rotation { size: 1, keep: 2, ..rotation }).await;
    let kept: Vec<_> = files(dir.path()).into_iter().filter(|(_, seqs)| !seqs.is_empty()).collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert_eq!(kept.last().and_then(|(_, seqs)| seqs.last()), Some(&118));
    for other in ["audit.jsonl.1", "audit.jsonl-20260203", "audit.jsonl-20260203T040506Z-x"] {
        assert!(dir.path().join(other).exists(), "{other} was not ours to remove");
    }
}

#[tokio::test]
async fn a_file_is_full_when_its_lines_span_its_age_and_keeping_none_leaves_it_alone() {
    let (journal, dir) = (Journal::in_memory().expect("a journal"), tempfile::tempdir().expect("a directory"));
    let day = |days: i64| start().checked_add(SignedDuration::from_hours(days * 24)).expect("in range");
    let rotation = Rotation { size: u64::MAX, age: SignedDuration::from_hours(48), keep: 9 };
    for number in 0..6_u128 {
        journal.append(opens(number + 1, 0, day(number as i64))).await.expect("opened");
        journal.append(closes(number + 1, Outcome::Refused, day(number as i64))).await.expect("closed");
        rotating(&journal, dir.path(), if number == 0 { Rotation { size: 1, keep: 0, ..rotation } } else { rotation }).await;
    }
    let lines: Vec<_> = files(dir.path()).into_iter().map(|(_, seqs)| seqs).collect();
    assert_eq!(lines, [vec![2, 4, 6], vec![8, 10, 12], vec![]]);
}

#[tokio::test]
async fn a_crash_at_any_point_of_a_rotation_loses_and_doubles_none() {
    let rotation = Rotation { size: 1, age: SignedDuration::MAX, keep: 9 };
    for (what, note) in [("between rename and create", true), ("the note is lost, too", false)] {
        let (journal, dir) = (Journal::in_memory().expect("a journal"), tempfile::tempdir().expect("a directory"));
        grown(&journal, 1, 4).await;
        rotating(&journal, dir.path(), rotation).await;
        assert_eq!(text(dir.path()), "", "rotated");
        std::fs::remove_file(dir.path().join(FILE)).expect("not made yet");
        if !note {
            std::fs::remove_file(dir.path().join(POSITION)).expect("not written yet");
        }
        grown(&journal, 4, 6).await;
        rotating(&journal, dir.path(), rotation).await;
        let lines: Vec<u64> = files(dir.path()).into_iter().flat_map(|(_, seqs)| seqs).collect();
        assert_eq!(lines, [2, 4, 6, 8, 10], "{what}");
    }
    // Before the rename: the file is still there, full, and the next line fills it again.
    let (journal, dir) = (Journal::in_memory().expect("a journal"), tempfile::tempdir().expect("a directory"));
    grown(&journal, 1, 4).await;
    followed(&journal, dir.path()).await;
    grown(&journal, 4, 5).await;
    rotating(&journal, dir.path(), rotation).await;
    assert_eq!(files(dir.path()).into_iter().map(|(_, seqs)| seqs).collect::<Vec<_>>(), [vec![2, 4, 6, 8], vec![]]);
}

#[tokio::test]
async fn how_far_it_is_written_is_known_to_who_prunes() {
    let (journal, dir) = (Journal::in_memory().expect("a journal"), tempfile::tempdir().expect("a directory"));
    let follower = Follower::start(journal.clone(), dir.path(), Rotation::OFF).expect("a follower");
    let written = follower.written();
    grown(&journal, 1, 4).await;
    follower.stop().await;
    assert_eq!(written.seq(), 6);
    let again = Follower::start(journal.clone(), dir.path(), Rotation::OFF).expect("a follower");
    assert_eq!(again.written().seq(), 6, "before its first look");
}

/// A journal that was restored from a backup is behind its own file, and what it writes has numbers that the file knows.
#[tokio::test]
async fn after_a_restore_no_line_is_missing_however_often_the_file_is_opened() {
    let restored = async |dir: &Path| {
        let lost = Journal::in_memory().expect("a journal");
        grown(&lost, 1, 11).await;
        followed(&lost, dir).await;
        assert_eq!(seqs(&text(dir)).last(), Some(&20));
        let journal = Journal::in_memory().expect("a journal");
        grown(&journal, 1, 4).await;
        journal
    };
    let dir = tempfile::tempdir().expect("a directory");
    let journal = restored(dir.path()).await;
    let follower = Follower::start(journal.clone(), dir.path(), Rotation::OFF).expect("a follower");
    // Before the first new line, and again in between.
    follower.reopen();
    until("it is opened again", || !follower.signals.reopen.load(Ordering::Relaxed)).await;
    grown(&journal, 21, 23).await;
    until("two lines more", || seqs(&text(dir.path())).len() == 12).await;
    follower.reopen();
    grown(&journal, 23, 24).await;
    follower.stop().await;
    assert_eq!(seqs(&text(dir.path()))[9..], [20, 8, 10, 12]);
    assert_eq!(text(dir.path()).lines().count(), 13);

    // The program dies before it has written a line, and the journal outgrows the numbers that the file knows.
    let dir = tempfile::tempdir().expect("a directory");
    let journal = restored(dir.path()).await;
    grown(&journal, 21, 31).await;
    followed(&journal, dir.path()).await;
    assert_eq!(seqs(&text(dir.path()))[9..], [20, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26]);

    // Rotated before: the file is empty, and the note beside it is of the journal that is lost.
    let dir = tempfile::tempdir().expect("a directory");
    let journal = restored(dir.path()).await;
    std::fs::rename(dir.path().join(FILE), dir.path().join("audit.jsonl.1")).expect("rotated");
    let follower = Follower::start(journal.clone(), dir.path(), Rotation::OFF).expect("a follower");
    follower.reopen();
    until("it is opened again", || !follower.signals.reopen.load(Ordering::Relaxed)).await;
    grown(&journal, 21, 23).await;
    follower.stop().await;
    assert_eq!(seqs(&text(dir.path())), [8, 10]);
}

/// A journal that begins anew after a lost disk shares nothing with the file that outlived it.
#[tokio::test]
async fn a_new_journal_beside_an_old_file_is_written_from_its_beginning() {
    let dir = tempfile::tempdir().expect("a directory");
    let (old, new) = (Journal::in_memory().expect("a journal"), Journal::in_memory().expect("a journal"));
    grown(&old, 1, 6).await;
    followed(&old, dir.path()).await;
    // Other records under the same numbers.
    grown(&new, 31, 34).await;
    for _ in 0..2 {
        followed(&new, dir.path()).await;
        assert_eq!(seqs(&text(dir.path())), [2, 4, 6, 8, 10, 2, 4, 6]);
    }
}
