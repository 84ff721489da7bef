//! What is read, and what is refused.

use clap::Parser as _;

use super::*;
use crate::audit::journal::Journal;
use crate::audit::walks::Walker;
use crate::cli::{Cli, Command};

fn parsed(words: &[&str]) -> Result<ToilArgs, clap::Error> {
    match Cli::try_parse_from(["remediator", "toil"].into_iter().chain(words.iter().copied()))?.command {
        Command::Toil(args) => Ok(args),
        other => panic!("{other:?}"),
    }
}

fn read(text: &str) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    read_lines(text.as_bytes(), "x.jsonl", &mut lines).map(|()| lines).map_err(|error| format!("{error:#}"))
}

#[test]
fn a_journal_and_its_exported_lines_count_alike() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(dir.path()).expect("a journal");
    let mut walker = Walker::new();
    let drafts: Vec<_> = (0..250_u16).map(|n| walker.next((n * 37) as u8, (n * 11) as u8)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(journal.transact(move |_| (drafts, ()))).expect("written");
    drop(journal);

    let from_journal = journal_lines(dir.path()).expect("lines");
    assert!(from_journal.len() > 5, "only {} records were closed", from_journal.len());
    let conn = journal::reader(dir.path()).expect("a journal");
    let mut text = String::new();
    query::each_closed(&conn, &Filter::default(), |found| {
        text.push_str(&serde_json::to_string(&line(found)).expect("a line"));
        text.push('\n');
        true
    })
    .expect("asked");
    assert_eq!(read(&text).expect("audit lines"), from_journal);
    assert!(from_journal.iter().any(|line| line.evidence.reading.is_some()), "what Prometheus said is found where it stands");
    assert!(from_journal.iter().any(|line| !line.steps.is_empty()), "so are the steps");
}

#[test]
fn what_is_no_audit_log_is_refused_with_its_line() {
    let good = r#"{"id":"019c1fd0-0000-7000-8000-000000000001","ts":"2026-02-03T04:05:06Z","mode":"live","outcome":"recovered","reason_code":null,"target":null}"#;
    assert_eq!(read(&format!("{good}\n\n{good}\n")).expect("lines").len(), 2);
    assert_eq!(read("").expect("an empty log is a log").len(), 0);
    for (text, want) in [
        (format!("{good}\nnonsense\n"), "x.jsonl:2: not an audit line: expected ident"),
        (format!("{good}\n{}\n", good.replace("recovered", "cured")), "x.jsonl:2: not an audit line: unknown variant `cured`"),
        ("{}\n".to_owned(), "x.jsonl:1: not an audit line: missing field `id`"),
    ] {
        let error = read(&text).expect_err(want);
        assert!(error.starts_with(want) && error.contains("Name an audit.jsonl"), "{error}");
    }
    // The line that is being written right now.
    assert_eq!(read(&format!("{good}\n{}", &good[..40])).expect("lines").len(), 1);
    let endless = " ".repeat(usize::try_from(MAX_LINE).expect("small") + 1);
    assert!(read(&endless).expect_err("endless").contains("longer than"));
}

#[test]
fn one_of_ledger_and_log_is_needed_and_two_logs_are_not_one() {
    assert!(parsed(&[]).is_err() && parsed(&["--audit", "x", "--state-dir", "y"]).is_err());
    assert!(parsed(&["--recurrence", "soon", "--audit", "-"]).is_err() && parsed(&["x", "--since", "monday"]).is_err());
    let args = parsed(&["x.yml", "--audit", "a", "--audit", "b", "--recurrence", "30m"]).expect("good");
    assert_eq!((args.audit.len(), args.recurrence), (2, Period::from_secs(1800)));
    let folder = tempfile::tempdir().expect("a folder");
    let bad = folder.path().join("bad.yml");
    std::fs::write(&bad, "toil: x\n").expect("written");
    assert_eq!(toil(&parsed(&[&bad.display().to_string()]).expect("good")).expect("asked"), Exit::No);
    assert!(toil(&parsed(&["--audit", "/nowhere/audit.jsonl"]).expect("good")).is_err());
    assert!(toil(&parsed(&["--state-dir", "/nowhere"]).expect("good")).is_err());
}
