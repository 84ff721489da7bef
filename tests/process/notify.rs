//! What the supervisor is told, and when.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::program::{HANG, Place};

#[test]
fn ready_comes_with_the_first_heartbeat_and_the_watchdog_is_fed_by_every_one() {
    let place = Place::new();
    let mut program = place.start();
    let (_, before) = program.told("READY=1");
    assert!(before.iter().all(|line| line.starts_with("STATUS=")), "something else was told first: {before:#?}");
    for _ in 0..3 {
        program.told("WATCHDOG=1");
        let (status, _) = program.told("STATUS=");
        assert!(status.contains("0 open; last heartbeat ") && status.contains("cannot act without"), "{status}");
        for missing in ["prometheus", "docker", "balancer", "alertmanager"] {
            assert!(status.contains(missing), "{status}");
        }
    }
    let file = std::fs::read_to_string(place.path("textfile/remediator.prom")).expect("the heartbeat's file");
    let beat = file.lines().find_map(|line| line.strip_prefix("remediator_heartbeat_timestamp_seconds "));
    assert!(beat.and_then(|value| value.parse::<f64>().ok()).is_some_and(|at| at > 1.7e9), "{file}");
    assert!(file.contains("\nremediator_store_writable 1\n") && file.contains("remediator_build_info{version="), "{file}");

    program.signal("HUP");
    let (_, before) = program.told("RELOADING=1");
    assert!(!before.iter().any(|line| line == "STOPPING=1"));
    program.told("MONOTONIC_USEC=");
    program.told("READY=1");

    program.signal("TERM");
    program.told("STOPPING=1");
    program.told("EXTEND_TIMEOUT_USEC=");
    // Asked again, and by somebody impatient at a terminal: it still comes to its safe point.
    program.signal("TERM");
    program.signal("INT");
    assert_eq!(program.ended().code(), Some(0));
    assert!(!program.left().iter().any(|line| line == "WATCHDOG=1" || line == "READY=1"), "after it said goodbye");
}

/// The process runs and answers; only the journal takes nothing.
#[test]
fn a_disk_that_takes_nothing_stops_the_heartbeat_and_not_the_program() {
    let place = Place::new();
    let mut program = place.start();
    program.told("READY=1");
    program.told("WATCHDOG=1");
    program.cap_files("0:unlimited");
    program.logged("the heartbeat did not get through");
    // Whatever was on its way is told by now.
    program.told("STATUS=no heartbeat: journal");
    // A beat a second, and a word about each. The writer answers, so systemd is told that we live: a process started anew
    // would find the same disk, and page and readmit no better.
    let told = program.next(6);
    assert!(told.iter().all(|line| line.starts_with("STATUS=no heartbeat") || line == "WATCHDOG=1"), "{told:#?}");
    assert!(told.iter().any(|line| line == "WATCHDOG=1"), "{told:#?}");
    let file = std::fs::read_to_string(place.path("textfile/remediator.prom")).expect("the last good one");
    assert!(file.contains("remediator_heartbeat_timestamp_seconds "), "{file}");

    program.cap_files("unlimited:unlimited");
    program.told("WATCHDOG=1");
    program.logged("the heartbeat gets through again");
    program.cap_files("0:unlimited");
    program.signal("TERM");
    program.told("STOPPING=1");
    assert_eq!(program.ended().code(), Some(0), "also when nothing can be written");
}

/// As when the Engine hangs, whose log driver it is that reads: the pipe is full, and everything else goes on.
#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    /// What a pipe takes before a write to it waits.
    const PIPE: usize = 64 << 10;
    let place = Place::new();
    // An address of loopback of our own: what it listens on is said where nobody reads.
    let listen = format!("127.{}.{}.2:18091", 1 + std::process::id() / 256 % 250, std::process::id() % 256);
    place.listen(&listen);
    let (mut program, mut stderr) = place.start_unheard("trace");
    program.told("READY=1");
    // Each of these is asked about, in vain, and every question has its lines.
    let alerts: Vec<String> = (0..200).map(alert).collect();
    let body = format!(r#"{{"version":"4","status":"firing","receiver":"r","groupKey":"g","alerts":[{}]}}"#, alerts.join(","));
    let mut caller = TcpStream::connect(&listen).expect("it listens");
    caller.set_read_timeout(Some(HANG)).expect("a time-out");
    let head =
        format!("POST /remediate?wait=60s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    caller.write_all((head + &body).as_bytes()).expect("delivered");
    let mut answer = String::new();
    caller.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200 "), "not all of them came to an end: {answer:.300}");
    // The first of them may be of before.
    for _ in 0..4 {
        program.told("WATCHDOG=1");
    }
    program.signal("TERM");
    program.told("STOPPING=1");
    let mut full = vec![0; PIPE];
    stderr.read_exact(&mut full).expect("it was full, or this says nothing");
    drop(stderr);
    assert_eq!(program.ended().code(), Some(0));
}

fn alert(n: usize) -> String {
    format!(
        r#"{{"status":"firing","labels":{{"alertname":"FdLeakSustained","service":"inventory","instance":"10.0.0.{n}:8080"}},"startsAt":"2026-01-01T00:00:00Z"}}"#
    )
}

#[test]
fn the_second_one_names_the_first_and_is_told_no() {
    let place = Place::new();
    let mut first = place.start();
    first.told("READY=1");
    let (code, said) = place.run();
    assert_eq!(code, Some(1), "{said}");
    let sentence = format!("another remediator (pid {}) uses {}", first.pid(), place.path("state").display());
    assert!(said.contains(&sentence), "{said}");
    first.told("WATCHDOG=1");
    first.signal("INT");
    assert_eq!(first.ended().code(), Some(0));
    // The place is free again, and also after an end without a word.
    let second = place_again(&place);
    drop(second);
    let mut third = place_again(&place);
    third.signal("TERM");
    assert_eq!(third.ended().code(), Some(0));
}

fn place_again(place: &Place) -> crate::program::Program {
    let _ = std::fs::remove_file(place.path("notify.sock"));
    let program = place.start();
    program.told("READY=1");
    program
}
