//! Every label hostile, at every door: nothing but exact matchers reaches Prometheus, ids Docker, checked names HAProxy;
//! a log line stays a line, a record a JSON object, a page within its bounds.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::MatchOp;
use regex::Regex;
use serde_json::Value;

use crate::nasty::{VALUES, may_name_a_replica, steers};
use crate::outside::{Inside, Outside, Replica, selectors};
use crate::program::{Program, RECEIVER, delivery};

/// Every value twice: in all labels but the one that names the replica, so that the walk goes to its end, and in all.
fn replicas() -> Vec<Replica> {
    let mut values: Vec<String> = VALUES.iter().map(|value| (*value).to_owned()).collect();
    values.push("x".repeat(4096));
    let mut replicas = Vec::new();
    for value in &values {
        for instance in [format!("plain-{}:80", replicas.len()), value.clone()] {
            let mut labels: BTreeMap<String, String> =
                ["alertname", "job", "service", "note"].map(|name| (name.to_owned(), value.clone())).into();
            labels.insert(value.clone(), "in the name".to_owned());
            labels.extend([("team".to_owned(), "shop".to_owned()), ("instance".to_owned(), instance.clone())]);
            replicas.push(Replica::new(replicas.len() + 1, &instance, labels));
        }
    }
    replicas
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_labels_with_a_log_for_people() {
    hostile_labels("human").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_labels_with_a_log_for_machines() {
    hostile_labels("json").await;
}

async fn hostile_labels(format: &str) {
    let replicas = replicas();
    let outside = Outside::new(replicas.clone(), Inside::default()).await;
    let mut program = Program::start(&outside, &format!("format: {format}, level: debug"), "", "").await;
    let (status, answer) = program.deliver(RECEIVER, delivery(&replicas, &Value::Null)).await;
    assert_eq!(status, 202, "{answer}");
    let records = program.closed(replicas.len()).await;
    refused_at_the_first_door(&program).await;

    the_walks_went_as_far_as_they_may(&replicas, &records);
    prometheus_was_asked_about_one_target_each(&outside, &replicas);
    docker_saw_ids_and_haproxy_names(&outside);
    metrics_have_series_of_ours_only(&program.get("/metrics").await);
    let page = program.get("/audit?limit=500").await;
    program.stop().await;
    everybody_was_restarted_once_and_serves(&outside);
    pages_are_legal_and_bounded(&outside);
    every_line_of_the_log_is_one(&program.log(), format);
    every_line_of_the_audit_is_a_record(&program, records.len(), &page);
    a_terminal_is_not_steered(&program, &records);
}

/// What is no label at all does not get in, and the answer says where it is.
async fn refused_at_the_first_door(program: &Program) {
    let label = |value: &str| format!(r#"{{"alerts":[{{"labels":{{"team":"shop","alertname":"A","instance":{value}}}}}]}}"#);
    for (body, code) in [
        (label(&format!("\"{}\"", "x".repeat(64 * 1024))), "payload_too_long"),
        (label(r#""\ud800""#), "payload_not_json"),
        (label(r#""\udc00\ud800""#), "payload_not_json"),
        (label(r#""\x41""#), "payload_not_json"),
        (label("\"a\nb\""), "payload_not_json"),
        (label(&format!("{}{}", "[".repeat(40), "]".repeat(40))), "payload_too_deep"),
    ] {
        let (status, answer) = program.deliver(RECEIVER, body.clone()).await;
        let problem: Value = serde_json::from_str(&answer).expect("a problem document");
        assert_eq!((status, problem["code"].as_str()), (400, Some(code)), "{body:.200}: {answer}");
        assert!(!problem["detail"].as_str().unwrap_or_default().contains(steers) && answer.len() < 1_000, "{answer}");
    }
    let (status, answer) = program.deliver(RECEIVER, b"{\"alerts\":[{\"labels\":{\"a\":\"\xff\"}}]}".to_vec()).await;
    assert!(status == 400 && answer.contains("payload_not_utf8"), "{answer}");
}

fn the_walks_went_as_far_as_they_may(replicas: &[Replica], records: &[Value]) {
    for replica in replicas {
        let labels = serde_json::json!(replica.labels);
        // The newest: on a slow machine a walk may have been refused once before.
        let record = records.iter().find(|record| record["alert"]["labels"] == labels).expect("its labels, as they were sent");
        let want = if may_name_a_replica(&replica.instance) { "recovery_confirmed" } else { "target_unnamed" };
        assert_eq!(record["reason_code"], want, "{:?}: {}", replica.instance, record["reason"]);
    }
}

/// Parsed again, each query has the two matchers of one target in every selector, and none beside them.
fn prometheus_was_asked_about_one_target_each(outside: &Outside, replicas: &[Replica]) {
    let targets: BTreeSet<(&str, &str)> = replicas.iter().map(|r| (r.instance.as_str(), r.labels["job"].as_str())).collect();
    let mut asked = BTreeSet::new();
    for query in outside.queries() {
        assert!(!query.contains(char::is_control), "{query:?}");
        let found = selectors(&query);
        assert!(!found.is_empty(), "{query}");
        for selector in found {
            let matchers = &selector.matchers;
            assert!(matchers.or_matchers.is_empty() && matchers.matchers.iter().all(|m| m.op == MatchOp::Equal), "{query}");
            let named: Vec<(&str, &str)> = matchers.matchers.iter().map(|m| (m.name.as_str(), m.value.as_str())).collect();
            let (instance, job) = match named[..] {
                [("instance", instance), ("job", job)] => (instance, job),
                // A label without a value is no label.
                [("instance", instance)] => (instance, ""),
                _ => panic!("{query}: {named:?}"),
            };
            let target = targets.iter().find(|target| **target == (instance, job));
            asked.insert(*target.unwrap_or_else(|| panic!("{query} is about nobody")));
        }
    }
    let nameable = targets.iter().filter(|(instance, _)| may_name_a_replica(instance));
    assert_eq!(asked, nameable.copied().collect());
}

fn docker_saw_ids_and_haproxy_names(outside: &Outside) {
    let passed = |patterns: &[&str], lines: Vec<String>| {
        let pattern = Regex::new(&format!("^(?:{})$", patterns.join("|"))).expect("a pattern");
        assert!(!lines.is_empty());
        lines.iter().for_each(|line| assert!(pattern.is_match(line), "{line:?}"));
    };
    let id = "/containers/[0-9a-f]{64}";
    let read = format!(
        r"GET (?:/_ping|/containers/json\?all=true&size=false|{id}/json|{id}/logs\?[a-z0-9&=]+) HTTP/1\.1|POST {id}/restart\?t=0 HTTP/1\.1"
    );
    passed(&[&read], outside.read_door.first_lines());
    let restart = format!(r"POST {id}/restart\?t=1 HTTP/1\.1");
    passed(&[&restart, r"GET /containers/json HTTP/1\.1"], outside.restart_door.first_lines());
    let set = r"set server inventory/inv-[0-9]+ state (?:drain|ready)\n";
    passed(&["show stat\n", "show servers state\n", set], outside.balancer.requests());
}

fn everybody_was_restarted_once_and_serves(outside: &Outside) {
    for replica in outside.shop() {
        let restarts = u32::from(may_name_a_replica(&replica.instance));
        assert_eq!((replica.restarts, replica.drained), (restarts, false), "{:?}", replica.instance);
    }
}

fn metrics_have_series_of_ours_only(metrics: &str) {
    let line = Regex::new(
        r#"^(?:# .*|remediator_[a-z_]+(?:\{[a-z_]+="[A-Za-z0-9_./{}+-]*"(?:,[a-z_]+="[A-Za-z0-9_./{}+-]*")*\})? [-+0-9.eInf]+)$"#,
    );
    let line = line.expect("a pattern");
    assert!(metrics.lines().count() < 600, "{} lines", metrics.lines().count());
    metrics.lines().for_each(|text| assert!(line.is_match(text), "{text:?}"));
}

fn pages_are_legal_and_bounded(outside: &Outside) {
    let pages = outside.pages();
    assert!(!pages.is_empty(), "what names no replica is told");
    let legal = Regex::new("^[a-zA-Z_][a-zA-Z0-9_]*$").expect("a pattern");
    for page in pages {
        for (name, value) in page["labels"].as_object().expect("labels") {
            let value = value.as_str().expect("text");
            assert!(legal.is_match(name) && value.len() <= 256 && !value.contains(steers), "{name}: {value:?}");
        }
        for (name, value) in page["annotations"].as_object().expect("annotations") {
            let value = value.as_str().expect("text");
            assert!(legal.is_match(name) && value.len() <= 4_000, "{name}: {} bytes", value.len());
            // History and commands are lists of ours; nothing else has a second line.
            let lines = matches!(name.as_str(), "history" | "commands");
            assert!(!value.contains(|c| steers(c) && !(lines && c == '\n')), "{name}: {value:?}");
        }
    }
}

fn every_line_of_the_log_is_one(log: &str, format: &str) {
    let time = Regex::new(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z +(?:INFO|WARN|ERROR|DEBUG) ").expect("a pattern");
    let closed = log.lines().filter(|line| line.contains("closed")).count();
    assert!(closed > 2 * VALUES.len(), "{closed} closed records in the log");
    for line in log.split_terminator('\n') {
        assert!(!line.contains(steers), "{line:?}");
        match format {
            "json" => assert!(serde_json::from_str::<Value>(line).is_ok_and(|event| event["timestamp"].is_string()), "{line}"),
            _ => assert!(time.is_match(line), "{line:?}"),
        }
    }
}

/// `page` is what `GET /audit` gave, which is the file's lines to the byte.
fn every_line_of_the_audit_is_a_record(program: &Program, count: usize, page: &str) {
    let text = std::fs::read_to_string(program.state().join("audit.jsonl")).expect("the file");
    let lines: Vec<Value> = text.split_terminator('\n').map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.len() >= count && lines.iter().all(|line| line["id"].is_string() && line["outcome"].is_string()));
    let in_the_page = text.lines().filter(|line| page.contains(line)).count();
    assert!(in_the_page >= count, "{in_the_page} of {} lines are in the page", lines.len());
    let verified = program.command(&["audit", "verify", "--state-dir"], &program.state());
    assert!(verified.status.success(), "{verified:?}");
}

fn a_terminal_is_not_steered(program: &Program, records: &[Value]) {
    for record in records.iter().step_by(3) {
        let id = record["id"].as_str().expect("an id");
        let shown = program.command(&["audit", "show", id, "--state-dir"], &program.state());
        let text = String::from_utf8(shown.stdout).expect("UTF-8");
        assert!(text.contains(id), "{text}");
        text.lines().for_each(|line| assert!(!line.contains(steers), "{line:?}"));
    }
}
