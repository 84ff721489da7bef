//! The command line against a running remediator, and against one that does not run: the real binary, as a person types.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use remediator::audit::Journal;
use remediator::edge::tls::Tls;
use remediator::event::{Draft, Event, PauseScope};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::board::EVIL;
use crate::certificates::Authority;
use crate::desk::id;
use crate::wire::{OPERATOR, READER, RECEIVER, Running, With, ends, start};

const ONE: &[u8] = br#"{"alerts":[{"labels":{"alertname":"FdLeakFast","instance":"inventory-2:8080"}}]}"#;

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// The binary with nothing in its environment but who is sitting there.
fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_remediator"));
    command.env_clear().env("SUDO_USER", "ada").env("USER", "root").args(words).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(mut command: Command) -> Said {
    let output = ends("a command", command.output()).await.expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let said = Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) };
    for text in [&said.out, &said.err] {
        assert!(!text.contains('\u{1b}'), "an escape code where there is no terminal: {text:?}");
        assert!(![OPERATOR, READER, RECEIVER].iter().any(|token| text.contains(token)), "a token was printed: {text}");
    }
    said
}

async fn say(running: &Running, words: &[&str]) -> Said {
    let mut command = command(words);
    command.env("REMEDIATOR_URL", format!("http://{}", running.addr));
    run(command).await
}

/// With the address taken out, which is another each time.
fn settled(running: &Running, text: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
    text.replace(&running.addr.to_string(), "ADDRESS").replace(&format!("ada@{}", host.trim()), "ada@HOST")
}

fn orders(running: &Running) -> Vec<String> {
    running.desk.orders.lock().expect("no panic").iter().map(|order| settled(running, order)).collect()
}

/// A folder with a configuration in it that is good for nothing but finding the remediator, and with its tokens.
struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    fn new(listen: &str, operator: &str) -> Folder {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("operator"), format!("{operator}\n")).expect("written");
        std::fs::write(at("reader"), READER).expect("written");
        let text = format!(
            "listen: {listen}\nstate_dir: state\nplaybooks: [none/*.yml]\nprometheus: broken\n\
             tokens: {{ operator: [gone, operator], reader: [reader], receiver: [gone] }}\n"
        );
        std::fs::write(at("remediator.yml"), text).expect("written");
        Folder { dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn say(&self, words: &[&str]) -> Said {
        let mut command = command(words);
        // Stands for the usual place, /etc/remediator/remediator.yml.
        command.env("REMEDIATOR_CONFIG", self.at("remediator.yml"));
        run(command).await
    }
}

#[tokio::test]
async fn a_pause_needs_nothing_but_a_reason() {
    let running = start(With { guarded: true, ..With::default() }).await;
    // Much of the configuration is broken, and one of the token files is gone.
    let folder = Folder::new(&running.addr.to_string(), OPERATOR);
    let said = folder.say(&["pause", "--reason", "release in progress"]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    insta::assert_snapshot!("pause", settled(&running, &said.out));
    assert_eq!(orders(&running), ["pause everything by ada@HOST for None: release in progress"]);
    let said = folder.say(&["resume"]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    insta::assert_snapshot!("resume", settled(&running, &said.out));
}

#[tokio::test]
async fn every_order_reaches_the_desk_as_it_was_typed() {
    let running = start(With::default()).await;
    running.post("/remediate", ONE).await;
    let record = id(1).to_string();
    for words in [
        &["pause", "--reason", "r", "--playbook", "inventory-fd-leak", "--for", "2h", "--actor", "ben"][..],
        &["pause", "--reason", "r", "--target", "inventory/inventory-2:8080", "--json"],
        &["resume", "--target", "inventory/inventory-2:8080", "--reason", "done", "--json"],
        &["resume", "--all"],
        &["breaker", "reset", "inventory-fd-leak/inventory", "--reason", "rolled back"],
        &["abort", &record, "--reason", "wrong replica", "--json"],
        // By its target, as the board has it.
        &["abort", "inventory/inventory-2:8080", "--reason", "again", "--json"],
    ] {
        let said = say(&running, words).await;
        assert_eq!(said.code, Some(0), "{words:?}: {}{}", said.out, said.err);
        if words.contains(&"--json") {
            serde_json::from_str::<Value>(&said.out).unwrap_or_else(|error| panic!("{words:?}: {error}: {}", said.out));
        }
    }
    assert_eq!(
        orders(&running),
        [
            "pause playbook inventory-fd-leak by ben for Some(Period(7200s)): r",
            "pause target inventory/inventory-2:8080 by ada@HOST for None: r",
            "resume target inventory/inventory-2:8080 by ada@HOST: done",
            "resume everything by ada@HOST: no reason given",
            "resume target inventory/inventory-3:8080 by ada@HOST: no reason given",
            "reset inventory-fd-leak/inventory by ada@HOST: rolled back",
            &format!("abort {record} by ada@HOST: wrong replica"),
            &format!("abort {record} by ada@HOST: again"),
        ]
    );
}

/// The record is followed to its end, so that nobody has to ask whether something is left drained.
#[tokio::test]
async fn an_abort_tells_how_it_ended() {
    let running = start(With::default()).await;
    running.post("/remediate", ONE).await;
    let record = id(1);
    let text = record.to_string();
    let words = ["abort", &text, "--reason", "wrong replica"];
    let close = async {
        while running.desk.orders.lock().expect("no panic").is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        running.desk.close(record);
    };
    let (said, ()) = tokio::join!(say(&running, &words), ends("the order", close));
    assert_eq!(said.code, Some(0), "{}", said.err);
    insta::assert_snapshot!("abort", settled(&running, &said.out));
    let said = say(&running, &words).await;
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    assert!(said.err.contains("is closed already (recovered)"), "{}", said.err);
}

#[tokio::test]
async fn status_is_one_screen() {
    let running = start(With::default()).await;
    let said = say(&running, &["status"]).await;
    assert_eq!(said.code, Some(1), "everything is paused: {}", said.err);
    insta::assert_snapshot!("status", settled(&running, &said.out));
    let json: Value = serde_json::from_str(&say(&running, &["status", "--json"]).await.out).expect("JSON");
    assert_eq!((&json["ready"], &json["at"]), (&Value::Bool(true), &Value::from("2026-03-01T02:10:00Z")));
    assert_eq!(json["watches"][0]["target"], EVIL, "JSON says it as it is");
    running.desk.board.lock().expect("no panic").pauses.clear();
    let said = say(&running, &["status"]).await;
    assert_eq!(said.code, Some(0), "{}", said.out);
    // What is missing is named, and is no reason not to show the rest.
    running.desk.unready.store(true, Ordering::SeqCst);
    let said = say(&running, &["status"]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("NOT READY") && said.out.contains("missing  journal: disk full"), "{}", said.out);
}

#[tokio::test]
async fn breakers_are_listed() {
    let running = start(With::default()).await;
    let said = say(&running, &["breaker", "list"]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    insta::assert_snapshot!("breakers", said.out);
    let json: Value = serde_json::from_str(&say(&running, &["breaker", "list", "--json"]).await.out).expect("JSON");
    assert_eq!(json["breakers"].as_array().map(Vec::len), Some(2));
}

/// Each is one sentence that says what, where, and what to do; 1 when the answer is no, 2 when it could not be asked.
#[tokio::test]
async fn what_goes_wrong_is_said_and_has_its_exit_code() {
    let running = start(With { guarded: true, ..With::default() }).await;
    let wrong = Folder::new(&running.addr.to_string(), "a-token-that-nobody-knows");
    let reader = Folder::new(&running.addr.to_string(), READER);
    let good = Folder::new(&running.addr.to_string(), OPERATOR);
    let unknown = id(7).to_string();
    for (folder, words, code, part) in [
        (&wrong, &["pause", "--reason", "r"][..], 2, "not one of ours (HTTP 401 from http://127"),
        (&reader, &["pause", "--reason", "r"], 2, "the role operator is needed (HTTP 403 from"),
        (&good, &["pause", "--reason", "r", "--playbook", "nobody"], 1, "there is no playbook nobody"),
        (&good, &["pause", "--reason", " "], 1, "reason: must be given"),
        (&good, &["abort", &unknown, "--reason", "r"], 1, "there is no record"),
        (
            &good,
            &["abort", "inventory/inventory-7:8080", "--reason", "r"],
            1,
            "nothing is under way on `inventory/inventory-7:8080`",
        ),
        (&good, &["breaker", "reset", "x/y", "--reason", "r"], 1, "there is no breaker x/y"),
        (&good, &["pause"], 2, "--reason"),
        (&good, &["pause", "--reason", "r", "--target", "inventory"], 2, "service/instance"),
        (&good, &["pause", "--reason", "r", "--for", "soon"], 2, "not a duration"),
        (&good, &["status", "--token-file", "/nowhere"], 2, "token file /nowhere: No such file"),
        (&good, &["status", "--url", "ftp://x"], 2, "is no address"),
        (&good, &["status", "--config", "/nowhere"], 2, "/nowhere cannot be read"),
    ] {
        let said = folder.say(words).await;
        assert_eq!(said.code, Some(code), "{words:?}: {}{}", said.out, said.err);
        assert!(said.err.contains(part), "{words:?}: {}", said.err);
    }
    assert!(orders(&running).is_empty(), "{:?}", orders(&running));
    let said = good.say(&["pause", "--reason", "r", "--playbook", "nobody", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&said.out).expect("a problem document")["code"], "not_found");
    // A reader may look, with the reader's token.
    std::fs::remove_file(reader.at("operator")).expect("gone");
    assert_eq!(reader.say(&["breaker", "list"]).await.code, Some(0));
    let said = reader.say(&["pause", "--reason", "r"]).await;
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("the configured token cannot be read"), "{}", said.err);
    running.desk.set_broken(true);
    let said = good.say(&["breaker", "list"]).await;
    assert_eq!((said.code, said.err.contains("cannot do that now")), (Some(2), true), "{}", said.err);
    running.desk.set_broken(false);
    running.desk.stuck.store(true, Ordering::SeqCst);
    let said = good.say(&["breaker", "list", "--timeout", "50ms"]).await;
    assert_eq!((said.code, said.err.contains("did not answer within 50ms")), (Some(2), true), "{}", said.err);
}

/// An address where nothing listens.
async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("its address").to_string()
}

async fn pauses(dir: &Path) -> Vec<(PauseScope, String, String, bool)> {
    let journal = Journal::open(dir).expect("the next process opens it");
    journal.read(|state| {
        let told = state.books.pauses.iter();
        told.map(|pause| (pause.scope.clone(), pause.actor.clone(), pause.reason.clone(), pause.until.is_some())).collect()
    })
}

#[tokio::test]
async fn while_none_runs_a_pause_is_written_down_for_the_next_one() {
    let folder = Folder::new(&nobody().await, OPERATOR);
    let dir = folder.at("state");
    let said = folder.say(&["pause", "--reason", "r"]).await;
    assert_eq!(said.code, Some(2), "{}", said.out);
    assert!(said.err.contains("there is no journal in"), "{}", said.err);
    assert!(!dir.exists(), "no journal is made where none is used");

    let journal = Journal::open(&dir).expect("a journal");
    let now = jiff::Timestamp::UNIX_EPOCH;
    journal.append(Draft::global(now, Event::Started { version: "test".to_owned(), pid: 1 })).await.expect("written");
    // One that has the directory is never written beside.
    let said = folder.say(&["pause", "--reason", "r"]).await;
    assert_eq!(said.code, Some(2), "{}", said.out);
    assert!(said.err.contains(&format!("kill -TERM {} stops it", std::process::id())), "{}", said.err);
    let said = folder.say(&["pause", "--offline", "--reason", "r"]).await;
    assert_eq!((said.code, said.err.contains("leave --offline out")), (Some(2), true), "{}", said.err);
    drop(journal);
    assert!(pauses(&dir).await.is_empty());

    // Whoever names an address does not mean these files.
    let said = folder.say(&["pause", "--reason", "r", "--url", &format!("http://{}", nobody().await)]).await;
    assert_eq!((said.code, said.err.contains("(connection refused); is it running?")), (Some(2), true), "{}", said.err);
    assert!(pauses(&dir).await.is_empty());

    let said = folder.say(&["pause", "--reason", "not tonight"]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("the next one starts paused"), "{}", said.out);
    let said = folder
        .say(&["pause", "--offline", "--reason", "mine", "--target", "inventory/inventory-2:8080", "--for", "2h", "--json"])
        .await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(serde_json::from_str::<Value>(&said.out).expect("JSON")["offline"], true);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
    let ada = format!("ada@{}", host.trim());
    assert_eq!(
        pauses(&dir).await,
        [
            (PauseScope::All, ada.clone(), "not tonight".to_owned(), false),
            (PauseScope::Target("inventory/inventory-2:8080".to_owned()), ada, "mine".to_owned(), true),
        ]
    );
    // Everything else says that it does not run.
    for words in [&["status"][..], &["resume"], &["abort", "a/b", "--reason", "r"], &["breaker", "list"]] {
        let said = folder.say(words).await;
        assert_eq!(
            (said.code, said.err.contains("no remediator answers at http://127")),
            (Some(2), true),
            "{words:?}: {}",
            said.err
        );
    }
}

#[tokio::test]
async fn the_audit_is_read_over_http() {
    let running = start(With::default()).await;
    running.post("/remediate", ONE).await;
    let record = id(1).to_string();
    let said = say(&running, &["audit", "search", "--outcome", "recovered", "--target", "a/b", "-n", "3", "--json"]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(said.out.lines().count(), 3, "page by page until there are enough: {}", said.out);
    let asked = running.desk.asked.lock().expect("no panic")[0].0.clone();
    assert_eq!((asked.outcome.map(|o| o.word()), asked.target.as_deref()), (Some("recovered"), Some("a/b")));
    let said = say(&running, &["audit", "search"]).await;
    assert!(said.out.contains("OUTCOME") && said.out.contains("open"), "{}", said.out);
    let said = say(&running, &["audit", "show", &record]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("inventory/inventory-2:8080") && said.out.contains("still open"), "{}", said.out);
    assert_eq!(say(&running, &["audit", "show", &id(9).to_string()]).await.code, Some(1));
    assert_eq!(say(&running, &["audit", "search", "--key", &"0".repeat(64)]).await.code, Some(2));
}

#[tokio::test]
async fn the_tail_is_followed_as_records_close() {
    let running = start(With::default()).await;
    running.post("/remediate", ONE).await;
    running.post("/remediate", ONE).await;
    running.desk.close(id(1));
    let mut tail = command(&["audit", "tail", "-f", "--json"]);
    tail.env("REMEDIATOR_URL", format!("http://{}", running.addr)).stdout(Stdio::piped());
    let mut tail = tail.spawn().expect("it runs");
    let mut lines = BufReader::new(tail.stdout.take().expect("its output")).lines();
    let mut next = async || {
        let line = ends("a line", lines.next_line()).await.expect("readable").expect("a line");
        serde_json::from_str::<Value>(&line).expect("JSON")["id"].as_str().expect("an id").to_owned()
    };
    // The fake desk's pages hold nothing closed, so that the stream begins at the beginning.
    assert_eq!(next().await, id(1).to_string());
    running.desk.close(id(2));
    assert_eq!(next().await, id(2).to_string());
}

/// A listener that asks for client certificates: `status` and `pause` show one, and `probe` does by its own options.
#[tokio::test]
async fn to_a_listener_with_a_client_ca_it_shows_its_certificate() {
    let (ours, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let tls = Arc::new(Tls::new(ours.issue("127.0.0.1").identity(Some(&clients))));
    let running = start(With { guarded: true, tls: Some(tls), ..With::default() }).await;
    let folder = tempfile::tempdir().expect("a folder");
    clients.issue("ada").write(folder.path(), "ada");
    strangers.issue("ada").write(folder.path(), "eve");
    std::fs::write(folder.path().join("ca.crt"), ours.pem()).expect("written");
    std::fs::write(folder.path().join("token"), OPERATOR).expect("written");
    let url = format!("https://{}", running.addr);
    let say = async |words: &str| {
        let words: Vec<&str> = words.split_whitespace().collect();
        let mut command = command(&words);
        command.current_dir(folder.path());
        run(command).await
    };
    let pause = format!("pause --reason leaks --url {url} --ca ca.crt --token-file token");
    let said = say(&format!("{pause} --client-cert ada.crt --client-key ada.key")).await;
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert_eq!(orders(&running).len(), 1);
    for (words, why) in [
        (pause.clone(), "no certificate"),
        (format!("{pause} --client-cert eve.crt --client-key eve.key"), "somebody else's"),
        (format!("{pause} --client-cert ada.crt --client-key eve.key"), "not its key"),
        (format!("{pause} --client-cert none.crt --client-key ada.key"), "no such file"),
        (format!("{pause} --client-cert ada.crt"), "half of it"),
    ] {
        let said = say(&words).await;
        assert!(matches!(said.code, Some(1..)) && !said.err.is_empty(), "{why}: {:?} {}{}", said.code, said.out, said.err);
    }
    assert_eq!(orders(&running).len(), 1, "and nothing was ordered");
    let probe = format!("probe --ca ca.crt {url}/healthz");
    assert_eq!(say(&format!("{probe} --cert ada.crt --key ada.key")).await.code, Some(0));
    assert_ne!(say(&probe).await.code, Some(0), "no certificate");
}

#[tokio::test]
async fn help_can_be_used_by_a_stranger() {
    for words in [
        &["--help"][..],
        &["pause", "--help"],
        &["abort", "--help"],
        &["status", "--help"],
        &["audit", "--help"],
        &["breaker", "--help"],
    ] {
        let said = run(command(words)).await;
        assert_eq!(said.code, Some(0), "{words:?}");
        assert!(said.out.contains("Usage: remediator"), "{}", said.out);
    }
    let said = run(command(&["pause", "--help"])).await;
    for part in ["--reason", "--for", "--target", "--offline", "Which remediator", "Examples:"] {
        assert!(said.out.contains(part), "{part} is not in\n{}", said.out);
    }
}

/// `script` (in Debian's essential package bsdutils) runs a command on a terminal of its own.
#[tokio::test]
async fn colour_is_for_terminals_whose_owner_wants_it() {
    let running = start(With::default()).await;
    for (no_colour, coloured) in [("", true), ("1", false)] {
        let mut command = Command::new("script");
        let words = format!("stty cols 100 rows 40; {} status --url http://{}", env!("CARGO_BIN_EXE_remediator"), running.addr);
        command.args(["-qec", &words, "/dev/null"]).env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "xterm");
        command.env("NO_COLOR", no_colour).stdin(Stdio::null()).kill_on_drop(true);
        let output = ends("a terminal", command.output()).await.expect("script, of Debian's package bsdutils");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("PAUSED") && text.contains("00000000-0000-0000-0000-000000000001"), "an id in one piece: {text}");
        assert_eq!(text.contains('\u{1b}'), coloured, "NO_COLOR={no_colour}: {text:?}");
        assert!(!text.contains("\u{1b}[2J"), "a label cleared the screen: {text:?}");
    }
}
