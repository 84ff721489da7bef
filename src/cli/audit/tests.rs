use clap::Parser as _;

use super::*;
use crate::audit::journal::{DATABASE, Journal};
use crate::audit::walks::{Walker, id};
use crate::cli::{Cli, Command};

/// A state directory with a few dozen entries.
fn state() -> (tempfile::TempDir, usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(dir.path()).expect("a journal");
    let mut walker = Walker::new();
    let drafts: Vec<_> = (0..60_u8).map(|n| walker.next(n.wrapping_mul(37), n.wrapping_mul(11))).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(journal.transact(move |_| (drafts, ()))).expect("written");
    let open = journal.read(|state| state.open.len());
    drop(journal);
    (dir, open)
}

fn audit(dir: &std::path::Path, words: &[&str]) -> anyhow::Result<Exit> {
    let dir = dir.to_str().expect("text");
    let line = ["remediator", "audit", "--state-dir", dir].into_iter().chain(words.iter().copied());
    let Command::Audit(args) = Cli::try_parse_from(line)?.command else { panic!("audit was asked for") };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(answer(args, &mut std::io::sink(), false))
}

#[test]
fn each_command_answers_with_its_exit_code() {
    let (dir, _) = state();
    let head = Journal::open(dir.path()).expect("a journal").head().hash;
    let dir = dir.path();
    assert_eq!(audit(dir, &["verify"]).expect("asked"), Exit::Fine);
    assert_eq!(audit(dir, &["verify", "--json", "--head", &head]).expect("asked"), Exit::Fine);
    assert_eq!(audit(dir, &["verify", "--head", &"0".repeat(64)]).expect("asked"), Exit::No);
    assert_eq!(audit(dir, &["export", "--since", "7d", "--outcome", "recovered"]).expect("asked"), Exit::Fine);
    assert_eq!(audit(dir, &["show", &id(1).to_string(), "--json"]).expect("asked"), Exit::Fine);
    assert_eq!(audit(dir, &["show", &id(999).to_string()]).expect("asked"), Exit::No);
    assert_eq!(audit(dir, &["search", "-n", "3", "--json"]).expect("asked"), Exit::Fine);
    assert_eq!(audit(dir, &["search", "--playbook", "nobody"]).expect("asked"), Exit::No);
    assert_eq!(audit(dir, &["tail", "-n", "3"]).expect("asked"), Exit::Fine);
    assert!(audit(dir, &["tail", "-f"]).is_err(), "files do not tell what closes next");
    assert_eq!(audit(dir, &["rebuild"]).expect("asked"), Exit::Fine);
    for bad in [&["export", "--outcome", "fine"][..], &["export", "--since", "yesterday"], &["show", "x"], &["tail", "-n", "501"]]
    {
        assert!(audit(dir, bad).is_err(), "{bad:?} was taken");
    }
    let nowhere = dir.join("nowhere");
    for words in [&["verify"][..], &["export"], &["rebuild"]] {
        assert!(audit(&nowhere, words).is_err(), "{words:?} made a journal where there is none");
    }
    assert!(!nowhere.join(DATABASE).exists());
}

#[test]
fn a_doctored_journal_is_an_answer_and_reading_goes_on_beside_a_writer() {
    let (dir, _) = state();
    let writer = Journal::open(dir.path()).expect("a writer beside it");
    assert_eq!(audit(dir.path(), &["verify"]).expect("asked"), Exit::Fine);
    assert!(audit(dir.path(), &["rebuild"]).is_err(), "only with the directory to itself");
    drop(writer);
    let conn = rusqlite::Connection::open(dir.path().join(DATABASE)).expect("the file");
    conn.execute_batch("DROP TRIGGER entries_are_not_changed; UPDATE entries SET ts = 'x' WHERE seq = 9").expect("doctored");
    assert_eq!(audit(dir.path(), &["verify"]).expect("asked"), Exit::No);
    assert_eq!(audit(dir.path(), &["rebuild"]).expect("asked"), Exit::No);
}

#[test]
fn a_story_is_aligned_relative_and_harmless_to_the_terminal() {
    let (dir, open) = state();
    let conn = journal::reader(dir.path()).expect("a reader");
    let mut seen = 0;
    query::each_closed(&conn, &Filter::default(), |found| {
        let told = query::story(&conn, found.record.id).expect("a story");
        let plain = story::tell(found, &told, false);
        assert!(!plain.contains('\x1b'), "colour only on a terminal");
        assert!(plain.starts_with(&format!("record {}\n", found.record.id)));
        assert!(plain.contains("    +0.0s  accepted       FdLeakFast from remediator\n"), "{plain}");
        assert!(plain.contains(found.record.reason.expect("closed").code()) && plain.contains(&found.hash), "{plain}");
        assert!(story::tell(found, &told, true).contains("\x1b["));
        seen += 1;
        true
    })
    .expect("records");
    assert!(seen + open > 2);
    let mut found = query::found(&conn, id(1)).expect("readable").expect("a record");
    found.record.accepted.host = "\x1b]0;owned\x07".to_owned();
    assert!(!story::tell(&found, &[], true).contains("\x1b]"));
}
