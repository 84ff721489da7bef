use clap::Parser as _;

use super::*;
use crate::audit::journal::{DATABASE, Journal};
use crate::audit::prune;
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
    std::sync::Arc::make_mut(&mut found.record.accepted).host = "\x1b]0;owned\x07".to_owned();
    assert!(!story::tell(&found, &[], true).contains("\x1b]"));
}

fn said(dir: &std::path::Path, words: &[&str]) -> (Exit, String) {
    let dir = dir.to_str().expect("text");
    let line = ["remediator", "audit", "--state-dir", dir].into_iter().chain(words.iter().copied());
    let Command::Audit(args) = Cli::try_parse_from(line).expect("words").command else { panic!("audit was asked for") };
    let mut out = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let exit = runtime.block_on(answer(args, &mut out, false)).expect("asked");
    (exit, String::from_utf8(out).expect("text"))
}

#[test]
fn verify_works_across_a_pruned_head() {
    let (dir, _) = state();
    let journal = Journal::open(dir.path()).expect("a journal");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (first, second, pruned) = runtime.block_on(async {
        let hashes = journal.entries_after(0, 2).await.expect("entries");
        // Nothing is watched any more, so that much may go.
        for replica in 0..3 {
            let key = crate::audit::walks::target(replica).key();
            let event = crate::event::Event::WatchEnded { key, detail: "over".to_owned() };
            journal.append(crate::event::Draft::global(crate::audit::walks::start(), event)).await.expect("written");
        }
        let aim = prune::Aim { before: Timestamp::MAX, written: u64::MAX, keep: 1, most: 1_000 };
        let step = journal.prune(aim, crate::audit::walks::start()).await.expect("pruned");
        let prune::Step::Done(pruned) = step else { panic!("{step:?}") };
        (hashes[0].hash.clone(), hashes[1].hash.clone(), pruned)
    });
    drop((journal, second));
    assert!(pruned.through > 2, "{pruned:?}");
    let (exit, text) = said(dir.path(), &["verify"]);
    let line = format!("entries 1..{} were pruned on 2026-02-03T04:05:06Z; anchor {}\n", pruned.through, pruned.anchor_hash);
    assert!(exit == Exit::Fine && text.contains(&line), "{text}");
    let (exit, text) = said(dir.path(), &["verify", "--head", &pruned.anchor_hash]);
    assert!(exit == Exit::Fine && text.contains("is the anchor"), "{text}");
    let (exit, text) = said(dir.path(), &["verify", "--head", &first]);
    assert!(exit == Exit::No && text.contains("CANNOT TELL") && !text.contains("BROKEN"), "{text}");
    let (exit, text) = said(dir.path(), &["verify", "--json", "--head", &first]);
    let json: serde_json::Value = serde_json::from_str(&text).expect("json");
    assert!(exit == Exit::No && json["ok"] == false && json["head_is"] == "cannot_tell", "{text}");
    assert_eq!(json["pruned"]["through"], pruned.through);
    assert_eq!(said(dir.path(), &["show", &id(1).to_string()]).0, Exit::No);
    assert_eq!(said(dir.path(), &["export"]).0, Exit::Fine);
    let (exit, text) = said(dir.path(), &["rebuild"]);
    assert!(exit == Exit::Fine && text.starts_with("made again up to entry "), "{text}");
    assert_eq!(said(dir.path(), &["verify"]).0, Exit::Fine);
}

#[test]
fn what_cannot_be_asked_is_said_before_anything_is_read() {
    let told = |words: &[&str]| {
        let line = ["remediator", "audit", "--state-dir", "none"].into_iter().chain(words.iter().copied());
        Cli::try_parse_from(line).expect_err("refused").to_string()
    };
    // A hash that lost its end when it was copied is no sign of a journal that was cut.
    assert!(told(&["verify", "--head", "45022f20"]).contains("a hash has 64 hexadecimal digits, and this has 8"));
    assert!(told(&["search", "--target", "inventory-2:8080"]).contains("write it as service/instance"));
    assert!(told(&["export", "--target", "inventory/"]).contains("write it as service/instance"));
    assert!(told(&["show", "inventory-2"]).contains("`remediator audit search` lists them"));
}

#[test]
fn what_reads_files_does_not_answer_for_another_machine() {
    for words in [&["verify"][..], &["export"], &["rebuild"]] {
        let line = ["remediator", "audit", "--url", "http://127.0.0.1:1"].into_iter().chain(words.iter().copied());
        let Command::Audit(args) = Cli::try_parse_from(line).expect("a command line").command else {
            panic!("audit was asked for")
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let told = runtime.block_on(answer(args, &mut std::io::sink(), false)).expect_err("refused").to_string();
        assert!(told.contains("which --url does not lead to"), "{words:?}: {told}");
    }
}
