//! The doors at which other people's bytes come in, each as one function of bytes: what `fuzz/` drives with libFuzzer, and
//! `tests/fuzz.rs` with the committed corpus and a few thousand mutations of it.
//!
//! Promise: whatever the bytes are, none of these panics, hangs or grows beyond its caps, and what is accepted holds what
//! the rest of the program relies on. Each asserts that; an assertion that fails is a finding.

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use jiff::Timestamp;

use crate::alert::{LabelSet, Matcher};
use crate::audit::chain::{self, Head};
use crate::audit::export::FILE;
use crate::audit::export::last_line;
use crate::audit::journal::{self, DATABASE, Journal};
use crate::config;
use crate::detect::payload;
use crate::edge::promql::{self, Template};
use crate::edge::{alertmanager, docker, haproxy, prometheus, redact};
use crate::event::{Draft, Event, Pause, PauseScope};
use crate::period::Period;
use crate::target::{ContainerId, ContainerName, EpisodeKey, Instance, ServerPath, ServiceName};

/// Alerts taken from one fuzzed delivery.
const MAX_ALERTS: usize = 50;
/// Longest sentence that an error may become: it is logged, and goes into a page.
const MAX_SENTENCE: usize = 16 * 1024;

/// A door: bytes in, nothing out but a panic when a promise is broken.
pub type Door = fn(&[u8]);

/// Every door, by the name of its target in `fuzz/`.
pub const DOORS: [(&str, Door); 7] = [
    ("payload", payload),
    ("promql", promql),
    ("haproxy", haproxy),
    ("engine", engine),
    ("prometheus", prometheus),
    ("config", config),
    ("journal", journal_tail),
];

/// A webhook's body.
pub fn payload(data: &[u8]) {
    match payload::parse(data, MAX_ALERTS) {
        Ok(group) => {
            assert!(group.alerts.len() <= MAX_ALERTS, "more alerts than the cap");
            for alert in &group.alerts {
                // What everything after it does with labels.
                let _ = (alert.labels.fingerprint(), EpisodeKey::of_unclaimed(&alert.labels));
                let json = serde_json::to_vec(alert).unwrap_or_default();
                let back: Option<crate::alert::Alert> = serde_json::from_slice(&json).ok();
                assert_eq!(back.as_ref(), Some(alert), "an alert is not read back from the journal as it was written");
            }
        }
        Err(error) => sentence(&error.to_string()),
    }
}

/// A query that an operator wrote (the first line), and label values that an attacker wrote (the rest).
pub fn promql(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (query, values) = text.split_once('\n').unwrap_or((&text, "x"));
    let mut parts = values.split('\u{1f}');
    let labels = [("instance", parts.next().unwrap_or("x")), ("job", parts.next().unwrap_or("y"))];
    // Binding proves by parsing that the result selects these labels and nothing else.
    for bound in [promql::exact("process_open_fds", &labels), promql::timestamp_of("up", &labels)] {
        match bound {
            Ok(bound) => assert!(!bound.contains('\n'), "a line break in {bound:?}"),
            Err(error) => {
                assert!(labels.iter().any(|(_, value)| value.is_empty()) || bound_too_long(&labels), "{labels:?}: {error}");
            }
        }
    }
    match Template::parse(query) {
        Ok(template) => {
            let _ = (template.bind(&labels), template.metrics());
        }
        Err(error) => sentence(&error.to_string()),
    }
    let _ = (Template::parse_veto(query), promql::check_expression(query), promql::sample_demands(query));
    if let Ok(matcher) = query.parse::<Matcher>() {
        let _ = matcher.matches(&labelled("instance", values));
    }
    let _ =
        (values.parse::<Period>(), values.parse::<ServiceName>(), values.parse::<Instance>(), values.parse::<ContainerName>());
    if let Ok(server) = values.parse::<ServerPath>() {
        let command = format!("set server {server} state drain");
        assert!(command.chars().all(|c| c.is_ascii_graphic() || c == ' ') && !command.contains(';'), "{command:?}");
        assert_eq!(command.split(' ').count(), 5, "{command:?} has more words than a command of ours");
    }
    let line = redact::plain_line(values, 200);
    assert!(!line.chars().any(char::is_control) && line.len() <= 220, "{line:?}");
}

/// A value that makes the query longer than any query of ours may be.
fn bound_too_long(labels: &[(&str, &str)]) -> bool {
    labels.iter().map(|(_, value)| value.len()).sum::<usize>() > 1_000
}

/// HAProxy's replies to `show stat` and `show servers state`, with a NUL between them.
pub fn haproxy(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (stat, state) = text.split_once('\0').unwrap_or((&text, &text));
    match haproxy::read_servers(stat, state) {
        Ok(servers) => {
            let mut names: Vec<_> = servers.iter().map(|server| server.path.clone()).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), servers.len(), "a server is there twice");
        }
        Err(error) => sentence(&error),
    }
}

/// The Engine's answers: a list, an inspected container, and the frames of a log.
pub fn engine(data: &[u8]) {
    let asked: ContainerId = match "a".repeat(64).parse() {
        Ok(id) => id,
        Err(_) => return,
    };
    if let Some(Err(error)) = docker::read_list(data, &[("project".to_owned(), "shop".to_owned())]) {
        sentence(&error);
    }
    match docker::read_inspected(data, &asked) {
        Some(Ok(container)) => assert_eq!(container.id, asked, "an answer about another container"),
        Some(Err(error)) => sentence(&error),
        None => {}
    }
    let lines = docker::read_logs(data, 20);
    assert!(lines.len() <= 20, "more lines than were asked for");
    for line in lines {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

/// Answers of Prometheus and Alertmanager.
pub fn prometheus(data: &[u8]) {
    let status = if data.first().is_some_and(|byte| byte % 8 == 0) { 503 } else { 200 };
    let said = |error: &crate::world::Unanswered| sentence(&error.detail);
    let _ = prometheus::read_instant(status, data).inspect_err(said);
    let _ = prometheus::read_rules(status, data).inspect_err(said);
    let _ = prometheus::read_targets(status, data).inspect_err(said);
    let labels = labelled("alertname", "FdLeakFast");
    if let Err(error) = alertmanager::read_silences(data, &labels) {
        sentence(&error);
    }
}

/// A playbook file, and the same text as settings.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for found in [config::playbooks_of(&text), config::settings_of(&text)] {
        for error in found {
            assert!(!error.what.is_empty(), "an error that does not say what is wrong");
            sentence(&error.to_string());
        }
    }
}

/// A journal whose files were cut or changed: bytes 0 to 4 say which file and where, the rest is written there.
pub fn journal_tail(data: &[u8]) {
    let [which, a, b, c, patch @ ..] = data else { return };
    let sample = SAMPLE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(sample) = sample.as_ref() else { return };
    let files = [DATABASE.to_owned(), format!("{DATABASE}-wal"), FILE.to_owned()];
    let place = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
    for (number, (name, bytes)) in files.iter().zip(&sample.files).enumerate() {
        let mut bytes = bytes.clone();
        if number == usize::from(which % 3) && !bytes.is_empty() {
            // From the end: a crash tears the tail.
            let at = bytes.len() - 1 - place % bytes.len();
            if which & 0x80 != 0 {
                bytes.truncate(at);
            }
            let upto = (at + patch.len()).min(bytes.len());
            if at < upto {
                bytes[at..upto].copy_from_slice(&patch[..upto - at]);
            }
        }
        let _ = std::fs::write(sample.dir.join(name), bytes);
    }
    let _ = std::fs::remove_file(sample.dir.join(format!("{DATABASE}-shm")));
    if let Ok(mut file) = std::fs::File::options().read(true).write(true).open(sample.dir.join(FILE)) {
        let _ = last_line(&mut file);
    }
    match Journal::open(&sample.dir) {
        Ok(opened) => drop(opened),
        Err(error) => return sentence(&error.to_string()),
    }
    let Ok(conn) = journal::reader(&sample.dir) else { return };
    if let Ok(verified) = chain::verify(&conn) {
        let known = verified.head == Head::default() || sample.hashes.contains(&verified.head.hash);
        assert!(known, "a chain that we never wrote was believed: {:?}", verified.head);
    }
}

/// A small journal with everything in its WAL, and the hash of each of its entries.
struct Sample {
    dir: PathBuf,
    files: [Vec<u8>; 3],
    hashes: Vec<String>,
}

static SAMPLE: LazyLock<Mutex<Option<Sample>>> = LazyLock::new(|| Mutex::new(sample().ok()));

#[allow(clippy::disallowed_methods, reason = "a scratch folder; TMPDIR=/dev/shm spares the disk")]
fn sample() -> anyhow::Result<Sample> {
    let dir = std::env::temp_dir().join(format!("remediator-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let journal = Journal::open(&dir)?;
    let mut hashes = Vec::new();
    for number in 0..40_i64 {
        let at = Timestamp::from_second(1_767_582_000 + number)?;
        let reason = format!("pause number {number}");
        let pause = Pause { scope: PauseScope::All, actor: "fuzz".to_owned(), reason, until: None };
        runtime.block_on(journal.append(Draft::global(at, Event::Paused { pause })))?;
        hashes.push(journal.head().hash);
    }
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap_or_default();
    let lines: String = (1..20).map(|seq| format!("{{\"id\":\"x\",\"seq\":{seq}}}\n")).collect();
    let files = [read(DATABASE), read(&format!("{DATABASE}-wal")), lines.into_bytes()];
    runtime.block_on(journal.close());
    drop(journal);
    Ok(Sample { dir: Path::to_owned(&dir), files, hashes })
}

fn labelled(name: &str, value: &str) -> LabelSet {
    LabelSet::from([(name, value)])
}

/// What an error says is one line of bounded length.
fn sentence(text: &str) {
    assert!(text.len() <= MAX_SENTENCE, "a sentence of {} bytes: {:.200}", text.len(), text);
    assert!(!text.chars().any(|c| c.is_control()), "{text:?} has a control character");
}
