//! Secrets are planted wherever evidence comes from, and searched for wherever it goes to.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::outside::{Inside, Outside, Replica};
use crate::program::{Program, READER, RECEIVER, delivery};
use crate::wire::nobody;

/// What every planted secret begins with, in some spelling.
const PLANTED: [&str; 2] = ["planted-", "AKIAPLANTED"];

fn replica(number: usize, alertname: &str) -> Replica {
    let instance = format!("inventory-{number}:8080");
    let labels = [("alertname", alertname), ("team", "shop"), ("job", "shop"), ("instance", instance.as_str())];
    let labels: BTreeMap<String, String> = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Replica::new(number, &instance, labels)
}

fn inside() -> Inside {
    let logs = [
        "login failed: password=planted-in-log-1 user=ann",
        "> Authorization: Bearer planted-in-log-2-0123456789",
        "connect https://user:planted-in-log-3@db/ 3.25 s",
        r#"{"level":"warn","token":"planted-in-log-4","open_fds":931}"#,
        "AWS_SECRET_ACCESS_KEY=planted-in-log-5/abc",
        "using key AKIAPLANTEDINLOG6789 in eu-west-1",
        "too many open files: 1021 of 1024",
    ];
    Inside {
        config: json!({ "Env": ["DB_PASSWORD=planted-in-env"], "Cmd": ["--key", "planted-in-cmd"] }),
        health: json!({ "Status": "healthy", "FailingStreak": 0, "Log": [
            { "Start": "2026-01-02T03:04:05Z", "End": "2026-01-02T03:04:06Z", "ExitCode": 0, "Output": "GET http://u:planted-in-health@x/" },
        ] }),
        logs: logs.join("\n") + "\n",
    }
}

/// One replica is cured, one rule cannot be evaluated, one target is not scraped: three ways for foreign words to get in.
fn replicas() -> Vec<Replica> {
    let mut replicas = vec![replica(1, "Leaks"), replica(2, "Fails"), replica(3, "Quiet")];
    replicas[1].refusal = Some("store http://u:planted-in-error@s3/: token=planted-in-error-2".to_owned());
    replicas[2].scrape_error = "Get \"http://u:planted-in-scrape@10.0.0.3/metrics\": refused".to_owned();
    replicas
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_planted_comes_out_anywhere() {
    for log in ["format: human, level: trace", "format: json, level: trace"] {
        let outside = Outside::new(replicas(), inside()).await;
        let dead = nobody().await;
        let userinfo = "me:planted-in-config@";
        let mut program = Program::start(&outside, log, userinfo, &format!(", 'http://{userinfo}{dead}'")).await;
        let ornaments = json!({
            "annotations": { "summary": "see https://ops:planted-in-annotation@wiki/", "description": "password: planted-in-annotation-2" },
            "generatorURL": "http://u:planted-in-generator-url@prom/graph?g0.expr=x",
        });
        let (status, answer) = program.deliver(RECEIVER, delivery(&replicas(), &ornaments)).await;
        assert_eq!(status, 202, "{answer}");
        let (status, turned_away) = program.deliver("planted-token-of-a-stranger", "{}").await;
        assert_eq!(status, 401, "{turned_away}");
        let records = program.closed(3).await;
        let ends: Vec<_> = records.iter().rev().map(|record| record["reason_code"].as_str().unwrap_or_default()).collect();
        assert_eq!(ends, ["recovery_confirmed", "prometheus_refused", "target_down"]);
        let kept = kept_evidence(&records);

        let mut answers = vec![answer, turned_away];
        for path in ["/audit?limit=500", "/guards", "/metrics", "/readyz", "/healthz"] {
            answers.push(program.get(path).await);
        }
        for record in &records {
            answers.push(program.get(&format!("/audit/{}", record["id"].as_str().expect("an id"))).await);
        }
        program.stop().await;
        nothing_planted("an answer", answers.join("\n").as_bytes());
        nothing_planted("the log", program.log().as_bytes());
        for page in outside.pages() {
            nothing_planted("a page", page.to_string().as_bytes());
        }
        let mut files = 0;
        for entry in std::fs::read_dir(program.state()).expect("a folder") {
            let path = entry.expect("an entry").path();
            nothing_planted(&path.display().to_string(), &std::fs::read(&path).expect("readable"));
            files += 1;
        }
        assert!(files >= 3, "journal, lock and audit file, at least: {files}");
        for arguments in [&["check", "--config"][..], &["check", "--offline", "--json", "--config"]] {
            let checked = program.command(arguments, &program.config());
            nothing_planted("check", &[checked.stdout, checked.stderr].concat());
        }
        // What decisions and people need is still there.
        for number in ["1021 of 1024", "931", "3.25 s", "user=ann"] {
            assert!(kept.contains(number), "{number} is gone: {kept}");
        }
    }
}

/// The log lines in the evidence of the run that acted.
fn kept_evidence(records: &[Value]) -> String {
    let acted = records.iter().find(|record| record["outcome"] == "recovered").expect("one acted");
    let captured = &acted["steps"][0]["note"];
    assert!(captured["container"]["labels"]["remediator.server"].is_string(), "{captured}");
    captured["logs"].to_string()
}

fn nothing_planted(place: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for planted in PLANTED.into_iter().chain([RECEIVER, READER]) {
        if let Some(at) = text.find(planted) {
            let around: String = text[text.floor_char_boundary(at.saturating_sub(80))..].chars().take(200).collect();
            panic!("{place}: {around}");
        }
    }
}

/// An error in a file says where and what, and does not repeat the secrets of its neighbours.
#[test]
fn errors_in_the_configuration_repeat_no_secret() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let good = "state_dir: s\nplaybooks: [p.yml]\nprometheus: { url: 'http://me:planted-1@p:9090' }\n\
                alertmanager: { urls: ['http://me:planted-2@a:9093'] }\ndocker: { read: 'tcp://d:1', restart: 'tcp://d:2' }\n\
                haproxy: { address: 'tcp://h:1' }\n";
    for (change, said) in [
        (good.replace("url: 'http://me:planted-1@p:9090'", "url: 'http://me:planted-1@p:99999'"), "not a base URL"),
        (good.replace("url: 'http://me:planted-1@p:9090'", "uri: 'http://me:planted-1@p:9090'"), "uri"),
        (good.replace("tcp://d:1", "tcp://me:planted-3@d:1"), "read door"),
        (format!("{good}external_url: http://me:planted-4@r.example\n"), "external_url holds a user name or password"),
        (format!("{good}prometheus: {{ url: 'http://me:planted-5@p:9090' }}\n"), "prometheus"),
    ] {
        let file = folder.path().join("remediator.yml");
        std::fs::write(&file, change).expect("written");
        let errors = remediator::config::load(&file).expect_err("refused");
        let text: String = errors.iter().map(|error| format!("{error}\n")).collect();
        assert!(text.contains(said), "{text}");
        nothing_planted("an error", text.as_bytes());
    }
}
