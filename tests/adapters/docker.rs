//! The Docker Engine behind its doors: only ids reach a path, secrets stay behind, and "maybe" is never "no".

use std::net::SocketAddr;
use std::time::Duration;

use remediator::edge::docker::Docker;
use remediator::reason::Reason;
use remediator::target::infrastructure::Infrastructure;
use remediator::target::{self, ContainerId, LABEL_SERVER, Target};
use remediator::world::{Answer, Call, Engine, Health, MAX_LOG_LINE, Server, ServerStatus, Unanswered};

use crate::wire::{Act, Fake, Framing, LONG, SHORT, http, http_cut, http_endless, nobody};

const WITHIN: Duration = LONG;

fn id() -> ContainerId {
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".parse().expect("an id")
}

/// One fake behind both doors.
async fn engine(timeout: Duration, act: Act) -> (Fake, Docker) {
    let fake = Fake::unix(Framing::Http, move |_| act.clone()).await;
    let address = format!("unix://{}", fake.place);
    let docker = Docker::new(&address, &address, timeout).expect("addresses");
    (fake, docker)
}

async fn questions(docker: &Docker) -> [(&'static str, Answer<()>); 4] {
    [
        ("ping", docker.ping().await),
        ("list containers", docker.containers().await.map(drop)),
        ("inspect container 0123", docker.inspect(&id()).await.map(drop)),
        ("logs of container 0123", docker.logs(&id(), 10).await.map(drop)),
    ]
}

/// Every question must fail, name what was asked and where, and say `words`.
async fn all_fail(timeout: Duration, act: Act, words: &str) {
    let (fake, docker) = engine(timeout, act).await;
    for (what, answer) in questions(&docker).await {
        let Unanswered { reason, detail } = answer.expect_err("an answer was made up");
        assert_eq!(reason, Reason::DockerUnavailable);
        for part in [what, "read door", fake.place.as_str(), words] {
            assert!(detail.contains(part), "no `{part}` in: {detail}");
        }
    }
}

async fn restart(timeout: Duration, within: Duration, act: Act) -> Call {
    let (fake, docker) = engine(timeout, act).await;
    let call = docker.restart(&id(), 10, within).await;
    if let Call::Failed(detail) | Call::Unknown(detail) = &call {
        for part in ["restart of container 0123456789abcdef", "restart door", fake.place.as_str()] {
            assert!(detail.contains(part), "no `{part}` in: {detail}");
        }
    }
    assert!(fake.requests().len() <= 1, "a restart was repeated");
    call
}

fn listed(id: &str, names: &str, labels: &str, mode: &str) -> String {
    format!(
        r#"{{"Id":{id},"Names":{names},"Image":"shop","ImageID":"sha256:1","Command":"x","Created":1,"Ports":[],"Labels":{labels},
        "State":"running","Status":"Up","HostConfig":{{"NetworkMode":{mode}}},"NetworkSettings":{{"Networks":{{}}}},"Mounts":[]}}"#
    )
}

const INSPECTED: &str = r#"{"Id":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","Created":"2026-01-02T03:00:00.1Z","Path":"/shop",
 "Args":["--password","hunter2"],"Name":"/shop-inventory-1","RestartCount":3,"Image":"sha256:77","Platform":"linux","Mounts":[],
 "State":{"Status":"running","Running":true,"Paused":false,"Restarting":false,"OOMKilled":false,"Dead":false,"Pid":7,"ExitCode":0,"Error":"",
  "StartedAt":"2026-01-02T03:04:05.123456789Z","FinishedAt":"0001-01-01T00:00:00Z","Health":{"Status":"unhealthy","FailingStreak":2,"Log":[
   {"Start":"2026-01-02T03:04:05Z","End":"2026-01-02T03:04:06Z","ExitCode":0,"Output":"first"},
   {"Start":"2026-01-02T03:04:05Z","End":"2026-01-02T03:04:06Z","ExitCode":0,"Output":"ok"},
   {"Start":"2026-01-02T03:04:05Z","End":"2026-01-02T03:04:06Z","ExitCode":0,"Output":"ok"},
   {"Start":"2026-01-02T03:04:05Z","End":"2026-01-02T03:04:06Z","ExitCode":0,"Output":"ok"},
   {"Start":"2026-01-02T03:04:05Z","End":"2026-01-02T03:04:06Z","ExitCode":0,"Output":"ok"},
   {"Start":"2026-01-02T03:04:05Z","End":"2026-01-02T03:04:06Z","ExitCode":1,"Output":"GET http://u:hunter2@x/ \u001b[2J\nToo many open files\n"}]}},
 "HostConfig":{"NetworkMode":"lab_default"},
 "NetworkSettings":{"Networks":{"lab_default":{"IPAddress":"172.30.0.11","GlobalIPv6Address":"fd00::11"},"none":{"IPAddress":"","GlobalIPv6Address":""}},
  "Ports":{"8080/tcp":[{"HostIp":"0.0.0.0","HostPort":"18080"},{"HostIp":"::","HostPort":"18080"}],"9/udp":null}},
 "Config":{"Image":"remediator-lab/shop:lab","Env":["DB_PASSWORD=hunter2"],"Cmd":["--password","hunter2"],
  "Labels":{"remediator.enable":"true","remediator.server":"inventory/inv-1"}}}"#;

/// A frame of the Engine's log stream: 1 is standard output, 2 standard error.
fn frame(stream: u8, text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).expect("short").to_be_bytes();
    [&[stream, 0, 0, 0], length.as_slice(), text].concat()
}

fn http_bytes(body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

#[tokio::test]
async fn requests_are_exactly_what_the_doors_pass() {
    let (fake, docker) = engine(LONG, Act::Say(http(200, "[]"))).await;
    let _ = questions(&docker).await;
    let (restarts, docker) = engine(LONG, Act::Say(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())).await;
    assert_eq!(docker.restart(&id(), 10, WITHIN).await, Call::Done);
    let lines: Vec<_> = fake.first_lines().into_iter().chain(restarts.first_lines()).collect();
    let id = id();
    assert_eq!(
        lines,
        [
            "GET /_ping HTTP/1.1".to_owned(),
            "GET /containers/json?all=true&size=false HTTP/1.1".to_owned(),
            format!("GET /containers/{id}/json HTTP/1.1"),
            format!(
                "GET /containers/{id}/logs?follow=false&stdout=true&stderr=true&since=0&until=0&timestamps=false&tail=10 HTTP/1.1"
            ),
            format!("POST /containers/{id}/restart?t=10 HTTP/1.1"),
        ]
    );
    for request in fake.requests() {
        assert_eq!(request.matches("host: localhost\r\n").count(), 1, "{request}");
    }
}

#[tokio::test]
async fn a_door_on_tcp_works_the_same() {
    let fake = Fake::tcp(Framing::Http, |_| Act::Say(http(200, "[]"))).await;
    let address = format!("tcp://{}", fake.place);
    let docker = Docker::new(&address, &address, LONG).expect("addresses");
    assert_eq!(docker.containers().await, Ok(vec![]));
    assert!(fake.requests()[0].contains(&format!("host: {}\r\n", fake.place)));
}

#[tokio::test]
async fn an_engine_that_comes_up_later_is_found() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let address = format!("unix://{}/d.sock", dir.path().display());
    let docker = Docker::new(&address, &address, LONG).expect("no connection is made yet");
    let error = docker.ping().await.expect_err("not there yet");
    assert!(error.detail.contains(&address) && error.detail.contains("No such file"), "{}", error.detail);
    let listener = tokio::net::UnixListener::bind(dir.path().join("d.sock")).expect("a socket");
    let serve = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(&http(200, "OK")).await;
    });
    assert_eq!(docker.ping().await, Ok(()));
    serve.await.expect("served");
}

#[tokio::test]
async fn no_answer_is_not_an_empty_list() {
    all_fail(LONG, Act::Say(vec![]), "").await;
    all_fail(LONG, Act::Say(b"HTTP/1.1 200 OK\r\n".to_vec()), "").await;
    all_fail(LONG, Act::Say(http_cut("")), "").await;
    all_fail(LONG, Act::Say(b"SSH-2.0-x\r\n\r\n".to_vec()), "").await;
    all_fail(LONG, Act::Say(http(500, r#"{"message":"it \u001b[2J broke"}"#)), "HTTP 500: it \\u{1b}[2J broke").await;
    all_fail(LONG, Act::Say(http(403, "<h1>Forbidden</h1>")), "HTTP 403: <h1>Forbidden</h1>").await;
    all_fail(LONG, Act::Say(http(404, "")), "HTTP 404").await;
    all_fail(LONG, Act::Say(b"HTTP/1.1 301 X\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n".to_vec()), "HTTP 301").await;
}

#[tokio::test]
async fn silence_is_a_timeout_also_after_the_headers() {
    for act in [
        Act::SayThenHang(vec![]),
        Act::SayThenHang(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Act::SayThenHang(http_cut("[")),
        Act::Late(Duration::from_secs(60), http(200, "[]")),
    ] {
        all_fail(SHORT, act, "no answer within 200ms").await;
    }
}

#[tokio::test]
async fn an_answer_without_end_is_an_error_not_memory() {
    let (fake, docker) = engine(LONG, http_endless()).await;
    for (what, answer) in questions(&docker).await {
        let detail = answer.expect_err("an answer was made up").detail;
        assert!(detail.contains(what) && detail.contains(&fake.place), "{detail}");
        // bollard's log reader drops the cause of a broken body.
        assert!(detail.contains("larger than 16777216 bytes") || what.starts_with("logs"), "{detail}");
    }
}

#[tokio::test]
async fn nobody_there_names_the_door() {
    let (read, restart) = (nobody().await, nobody().await);
    let docker = Docker::new(&format!("tcp://{read}"), &format!("tcp://{restart}"), LONG).expect("addresses");
    for (_, answer) in questions(&docker).await {
        let detail = answer.expect_err("nobody there").detail;
        assert!(detail.contains(&read) && detail.contains("refused"), "{detail}");
    }
    let Call::Failed(detail) = docker.restart(&id(), 10, WITHIN).await else { panic!("nothing was sent") };
    assert!(detail.contains(&restart) && detail.contains("refused"), "{detail}");
    let error = docker.forbidden_call_is_refused().await.expect_err("nobody there");
    assert!(error.detail.contains(&restart), "{}", error.detail);
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error() {
    for body in ["", "{}", "[7]", r#"[{"Id":7}]"#] {
        let (fake, docker) = engine(LONG, Act::Say(http(200, body))).await;
        let error = docker.containers().await.expect_err(body);
        assert!(error.detail.contains(&fake.place) && error.reason == Reason::DockerUnavailable, "{}", error.detail);
    }
    let other = id().as_str().replace("0123", "ffff");
    for (from, to, words) in [
        (id().as_str(), other.as_str(), "the answer is about container ffff"),
        ("/shop-inventory-1", "/../../v1.41", "container name"),
        ("\"NetworkMode\":\"lab_default\"", "\"x\":1", "network mode"),
        ("2026-01-02T03:04:05.123456789Z", "lately", "StartedAt `lately`"),
        ("\"State\":{", "\"Stat\":{", "no State"),
        ("\"Config\":{", "\"Confi\":{", "no Config"),
        ("\"Status\":\"running\"", "\"Status\":\"levitating\"", "levitating"),
    ] {
        let (fake, docker) = engine(LONG, Act::Say(http(200, &INSPECTED.replacen(from, to, 1)))).await;
        let error = docker.inspect(&id()).await.expect_err(words);
        assert!(error.detail.contains(&fake.place) && error.detail.contains(words), "no `{words}` in: {}", error.detail);
    }
}

#[tokio::test]
async fn an_inspected_container_carries_no_secret() {
    let (_fake, docker) = engine(LONG, Act::Say(http(200, INSPECTED))).await;
    let container = docker.inspect(&id()).await.expect("a container");
    assert_eq!((container.name.as_str(), container.image.as_str()), ("shop-inventory-1", "remediator-lab/shop:lab"));
    assert_eq!((container.running, container.status.as_str(), container.health), (true, "running", Health::Unhealthy));
    assert_eq!(container.started_at, Some("2026-01-02T03:04:05.123456789Z".parse().expect("time")));
    assert_eq!(container.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["172.30.0.11", "fd00::11"]);
    assert_eq!(container.published.iter().map(ToString::to_string).collect::<Vec<_>>(), ["0.0.0.0:18080", "[::]:18080"]);
    assert_eq!((container.network_mode.as_str(), container.restart_count), ("lab_default", 3));
    assert_eq!(container.health_log.len(), 5);
    assert_eq!(container.health_log[4], "exit 1: GET http://[redacted]@x/ \\u{1b}[2J\\nToo many open files");
    assert!(!serde_json::to_string(&container).expect("JSON").contains("hunter2"));
}

/// The Engine says `Running` of these, too.
#[tokio::test]
async fn a_container_that_is_paused_or_started_again_does_not_run() {
    for (status, flag) in [("paused", "\"Paused\":true"), ("restarting", "\"Restarting\":true")] {
        let before = flag.replace("true", "false");
        let body =
            INSPECTED.replacen("\"Status\":\"running\"", &format!("\"Status\":\"{status}\""), 1).replacen(&before, flag, 1);
        let (_fake, docker) = engine(LONG, Act::Say(http(200, &body))).await;
        let container = docker.inspect(&id()).await.expect("a container");
        assert_eq!((container.running, container.status.as_str()), (false, status));
    }
}

#[tokio::test]
async fn a_container_without_health_check_or_start_says_so() {
    let body =
        INSPECTED.replacen("\"Health\":{", "\"Hea\":{", 1).replacen("2026-01-02T03:04:05.123456789Z", "0001-01-01T00:00:00Z", 1);
    let (_fake, docker) = engine(LONG, Act::Say(http(200, &body))).await;
    let container = docker.inspect(&id()).await.expect("a container");
    assert_eq!((container.health, container.started_at, container.health_log.len()), (Health::None, None, 0));
}

/// Two environments on one Engine have replicas of the same names. The other one's are none of ours, but stay in the list:
/// what lives in our containers' network goes down with them, whoever it belongs to.
#[tokio::test]
async fn a_container_of_another_environment_is_no_replica() {
    let labels = |project: &str| format!(r#"{{"remediator.enable":"true","remediator.service":"s","project":"{project}"}}"#);
    let full = format!("\"{}\"", id());
    let ours = listed(&full, r#"["/ours"]"#, &labels("shop"), r#""lab""#);
    let theirs = listed(&full, r#"["/theirs"]"#, &labels("shop-2"), r#""lab""#);
    let (_fake, docker) = engine(LONG, Act::Say(http(200, &format!("[{ours},{theirs}]")))).await;
    let docker = docker.only(vec![("project".to_owned(), "shop".to_owned())]);
    let containers = docker.containers().await.expect("both can be read");
    let labels = containers.iter().map(|c| (c.name.as_str(), c.labels.len())).collect::<Vec<_>>();
    assert_eq!(labels, [("ours", 3), ("theirs", 1)]);
}

#[tokio::test]
async fn a_listed_container_is_left_out_only_if_it_cannot_concern_us() {
    let good = listed(&format!("\"{}\"", id()), r#"["/other/alias","/inv-1"]"#, r#"{"remediator.enable":"true"}"#, r#""lab""#);
    let ours = r#"{"remediator.enable":"false"}"#;
    let short = r#""0123""#;
    let hostile_id = r#""../../v1.41/containers/create?x=""#;
    let full = format!("\"{}\"", id());
    for (entry, error) in [
        (listed(short, r#"["/x"]"#, "{}", r#""lab""#), None),
        (listed(hostile_id, r#"["/x"]"#, "null", r#""lab""#), None),
        (listed(&full, r#"["/x y"]"#, "{}", r#""lab""#), None),
        (listed(&full, "null", "{}", r#""lab""#), None),
        (listed(&full, r#"["/x"]"#, "{}", "null"), None),
        (listed(hostile_id, r#"["/x"]"#, ours, r#""lab""#), Some("container id")),
        (listed(&full, r#"["/a?x=1"]"#, ours, r#""lab""#), Some("container name")),
        (listed(&full, r#"["/other/alias"]"#, ours, r#""lab""#), Some("no name of its own")),
        (listed(&full, r#"["/x"]"#, ours, "null"), Some("no network mode")),
        // Perhaps the guest of one of ours: its name may be legal for Docker and too long for us.
        (listed(&full, &format!(r#"["/{}"]"#, "x".repeat(200)), "{}", r#""container:0123""#), Some("container name")),
    ] {
        let (fake, docker) = engine(LONG, Act::Say(http(200, &format!("[{entry},{good}]")))).await;
        match (docker.containers().await, error) {
            (Ok(got), None) => assert_eq!(got.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["inv-1"]),
            (Err(got), Some(words)) => {
                assert!(got.detail.contains(&fake.place) && got.detail.contains(words), "no `{words}` in: {}", got.detail);
            }
            (got, want) => panic!("{got:?}, not {want:?}, for {entry}"),
        }
    }
}

#[tokio::test]
async fn logs_are_lines_of_both_streams_made_harmless() {
    let body = [
        frame(1, b"one\r\n"),
        frame(2, b"err "),
        frame(1, b"two password=hunter2\nthr"),
        frame(2, b"or\n"),
        frame(1, b"ee\x1b[2J \xff\n\n"),
        frame(1, "é".repeat(3_000).as_bytes()),
    ]
    .concat();
    let (_fake, docker) = engine(LONG, Act::Say(http_bytes(&body))).await;
    let lines = docker.logs(&id(), 10).await.expect("lines");
    assert_eq!(lines[..5], ["one", "two password=[redacted]", "err or", "three\\u{1b}[2J \u{fffd}", ""]);
    assert!(lines[5].len() <= MAX_LOG_LINE && lines[5].ends_with("é…"), "{}", lines[5].len());
    assert_eq!(docker.logs(&id(), 2).await.expect("lines")[0], "", "no more than asked for, the last ones");
}

#[tokio::test]
async fn a_terminals_log_has_no_frames() {
    let (_fake, docker) = engine(LONG, Act::Say(http_bytes(b"one\r\ntwo\r\nthree"))).await;
    assert_eq!(docker.logs(&id(), 10).await.expect("lines"), ["one", "two", "three"]);
    let (fake, docker) = engine(LONG, Act::Say(http_bytes(b""))).await;
    assert_eq!(docker.logs(&id(), 1_000_000).await.expect("lines"), [""; 0]);
    assert!(fake.first_lines()[0].ends_with("&tail=1000 HTTP/1.1"));
}

#[tokio::test]
async fn a_restart_that_was_refused_has_failed() {
    for (status, message) in [(404, "No such container"), (409, "is marked for removal"), (400, "bad"), (403, "Forbidden")] {
        let body = format!(r#"{{"message":"{message}"}}"#);
        let call = restart(LONG, WITHIN, Act::Say(http(status, &body))).await;
        assert!(matches!(&call, Call::Failed(why) if why.contains(&format!("HTTP {status}: {message}"))), "{call:?}");
    }
    let (fake, docker) = engine(LONG, Act::Say(http(204, ""))).await;
    let call = docker.restart(&id(), 1_000, WITHIN).await;
    assert!(matches!(&call, Call::Failed(why) if why.contains("1000 s")), "{call:?}");
    assert_eq!(fake.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_restart_that_may_have_happened_is_unknown() {
    for status in [500, 502, 503, 504] {
        let call = restart(LONG, WITHIN, Act::Say(http(status, r#"{"message":"Cannot restart container"}"#))).await;
        assert!(matches!(&call, Call::Unknown(why) if why.contains("Cannot restart container")), "{call:?}");
    }
    // Somebody answered, but not as the Engine does.
    for act in [
        Act::Say(http(200, "<h1>It works!</h1>")),
        Act::Say(b"HTTP/1.1 304 X\r\n\r\n".to_vec()),
        Act::Say(b"HTTP/1.1 302 X\r\nlocation: /\r\ncontent-length: 0\r\n\r\n".to_vec()),
        Act::Say(vec![]),
        Act::Say(b"HTTP/1.1 20".to_vec()),
        Act::Say(http_cut("").into_iter().map(|b| if b == b'K' { b'k' } else { b }).collect()),
    ] {
        let call = restart(LONG, WITHIN, act).await;
        assert!(matches!(&call, Call::Unknown(_)), "{call:?}");
    }
    // The wait is bounded by `within`, not by the limit of the questions.
    for act in [Act::SayThenHang(vec![]), Act::Late(Duration::from_secs(60), http(204, ""))] {
        let call = restart(LONG, SHORT, act).await;
        assert!(matches!(&call, Call::Unknown(why) if why.contains("no answer within 200ms")), "{call:?}");
    }
    let late = Act::Late(2 * SHORT, b"HTTP/1.1 204 No Content\r\n\r\n".to_vec());
    assert_eq!(restart(SHORT, WITHIN, late).await, Call::Done);
}

#[tokio::test]
async fn a_door_is_shut_only_if_the_filter_itself_says_so() {
    async fn doors(read: Act, restart: Act) -> (Answer<bool>, [Vec<String>; 2]) {
        let read = Fake::unix(Framing::Http, move |_| read.clone()).await;
        let restart = Fake::unix(Framing::Http, move |_| restart.clone()).await;
        let docker =
            Docker::new(&format!("unix://{}", read.place), &format!("unix://{}", restart.place), SHORT).expect("addresses");
        (docker.forbidden_call_is_refused().await, [read.first_lines(), restart.first_lines()])
    }
    let shut = || Act::Say(http(403, "<html>Forbidden</html>"));
    let (answer, [read, restart]) = doors(shut(), shut()).await;
    assert_eq!(answer, Ok(true));
    assert_eq!(read, [format!("POST /containers/{}/restart?t=0 HTTP/1.1", "0".repeat(64))]);
    assert_eq!(restart, ["GET /containers/json HTTP/1.1"]);
    // As the Engine answers behind an open door.
    let absent = || Act::Say(http(404, r#"{"message":"No such container"}"#));
    assert_eq!(doors(absent(), shut()).await.0, Ok(false));
    assert_eq!(doors(shut(), Act::Say(http(200, "[]"))).await.0, Ok(false));
    assert_eq!(doors(shut(), Act::Say(http(200, "not a list"))).await.0, Ok(false));
    assert_eq!(doors(shut(), Act::Say(http(503, ""))).await.0, Ok(false));
    assert_eq!(doors(absent(), Act::Say(http(401, ""))).await.0, Ok(false));
    for (read, restart, words) in [
        (Act::SayThenHang(vec![]), shut(), "read door"),
        (shut(), Act::SayThenHang(vec![]), "restart door"),
        (Act::Say(vec![]), shut(), "read door"),
    ] {
        let error = doors(read, restart).await.0.expect_err("nobody said anything");
        assert!(error.detail.contains(words) && error.reason == Reason::DockerUnavailable, "{}", error.detail);
    }
}

/// Whatever leads from our configuration to a container makes it a part of ours: a name in one of its networks, its own
/// address, a port that it publishes, the folder of a socket, and that this process runs in it.
#[tokio::test]
async fn a_container_that_the_configuration_leads_to_is_told_as_ours() {
    let inspected = INSPECTED
        .replacen(
            "\"IPAddress\":\"172.30.0.11\"",
            "\"Aliases\":[\"prometheus\"],\"DNSNames\":[\"am-1\"],\"IPAddress\":\"172.30.0.11\"",
            1,
        )
        .replacen("\"Config\":{", "\"Config\":{\"Hostname\":\"balancer\",", 1)
        .replacen(
            "\"Mounts\":[]",
            "\"Mounts\":[{\"Type\":\"volume\",\"Source\":\"/var/lib/docker/volumes/x/_data\",\"Destination\":\"/run/haproxy\"}]",
            1,
        );
    let (_fake, docker) = engine(LONG, Act::Say(http(200, &inspected))).await;
    let part = async |address: &str| {
        let mut ours = Infrastructure::default();
        ours.endpoint("a.setting", address);
        docker.clone().ours(ours).inspect(&id()).await.expect("a container").infrastructure
    };
    for address in [
        "http://prometheus:9090",
        "http://am-1.lab_default:9093",
        "http://shop-inventory-1:9093",
        "http://0123456789ab:9093",
        "tcp://balancer:9999",
        "tcp://172.30.0.11:2375",
        "http://localhost:18080",
        "unix:///run/haproxy/runtime.sock",
    ] {
        assert!(part(address).await.is_some_and(|why| why.starts_with("a.setting (")), "{address} leads nowhere");
    }
    for address in ["http://localhost:9090", "tcp://172.30.0.12:2375", "unix:///run/doors/read.sock"] {
        assert_eq!(part(address).await, None, "{address}");
    }
    let mut ours = Infrastructure::default();
    ours.own(&id().as_str()[..12]);
    let own = docker.clone().ours(ours).inspect(&id()).await.expect("a container").infrastructure;
    assert_eq!(own.as_deref(), Some("remediator itself runs in it"));
    // On the host's own network the host name is the host's.
    let (_fake, docker) = engine(LONG, Act::Say(http(200, &inspected.replacen("\"lab_default\"", "\"host\"", 1)))).await;
    let mut ours = Infrastructure::default();
    ours.endpoint("a.setting", "tcp://balancer:9999");
    assert_eq!(docker.ours(ours).inspect(&id()).await.expect("a container").infrastructure, None);
}

/// A name that cannot be looked up may lead to any container, so none of them is a target until it can.
#[tokio::test]
async fn while_a_name_of_ours_cannot_be_looked_up_no_container_is_a_target() {
    let (_fake, docker) = engine(LONG, Act::Say(http(200, INSPECTED))).await;
    let resolved = async |address: &str| {
        let mut ours = Infrastructure::default();
        ours.endpoint("a.setting", address);
        let container = docker.clone().ours(ours).inspect(&id()).await.expect("a container");
        let server = Server {
            path: container.labels[LABEL_SERVER].parse().expect("a server"),
            address: Some(SocketAddr::new(container.addresses[0], 8080)),
            status: ServerStatus::Up,
            drained: false,
            maintenance: false,
            checked: true,
            sessions: 0,
            queued: 0,
        };
        let target = Target { service: "inventory".parse().expect("a name"), instance: "a".parse().expect("an instance") };
        target::resolve(&target, &container, &[], &[server]).map(drop).map_err(|why| (why.reason.code(), why.detail))
    };
    for address in ["http://172.30.0.12:9090", "http://localhost:9090", "unix:///run/doors/read.sock"] {
        assert_eq!(resolved(address).await, Ok(()), "{address}");
    }
    let (code, why) = resolved("http://prometheus.example.invalid:9090").await.expect_err("nobody can say where it leads");
    assert_eq!(code, "own_infrastructure_unknown");
    assert!(why.contains("prometheus.example.invalid"), "{why}");
}
