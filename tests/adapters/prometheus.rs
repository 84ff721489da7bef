//! Prometheus: every way of not answering has its own reason, and no answer is made up.

use std::time::Duration;

use proptest::prelude::*;
use remediator::alert::LabelSet;
use remediator::edge::prometheus::{Prometheus, read_instant, read_rules, read_targets};
use remediator::reason::Reason;
use remediator::world::{Metrics, RuleAlertState, Sample, Unanswered};

use crate::wire::{Act, Fake, Framing, LONG, SHORT, http, http_cut, http_endless, nobody};

const ONE: &str =
    r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"instance":"a:1"},"value":[1700000000.5,"3"]}]}}"#;

async fn prometheus(timeout: Duration, act: Act) -> (Fake, Prometheus) {
    let fake = Fake::tcp(Framing::Http, move |_| act.clone()).await;
    let client = Prometheus::new(&format!("http://me:hunter2@{}/prefix", fake.place), timeout).expect("address");
    (fake, client)
}

fn at() -> jiff::Timestamp {
    "2026-01-02T03:04:05.678Z".parse().expect("time")
}

/// Asks all three questions; each must fail with `reason`, name the place, keep the password, and say `words`.
async fn all_fail(timeout: Duration, act: Act, reason: Reason, words: &str) {
    let (fake, client) = prometheus(timeout, act).await;
    let answers = [
        client.instant("up", at()).await.map(drop),
        client.alerting_rules().await.map(drop),
        client.scrape_targets().await.map(drop),
    ];
    for (answer, path) in answers.into_iter().zip(["api/v1/query", "api/v1/rules", "api/v1/targets"]) {
        let Unanswered { reason: got, detail } = answer.expect_err("an answer was made up");
        assert_eq!(got, reason, "{detail}");
        assert!(detail.contains(&format!("http://{}/prefix/{path}", fake.place)), "no place in: {detail}");
        assert!(detail.contains(words), "no `{words}` in: {detail}");
        assert!(!detail.contains("hunter2"), "{detail}");
    }
}

#[tokio::test]
async fn a_query_is_pinned_to_its_instant_and_arrives_as_it_stands() {
    let (fake, client) = prometheus(LONG, Act::Say(http(200, ONE))).await;
    let query = "a{b=\"c&d=%\\\"\"} > 0 # é";
    let got = client.instant(query, at()).await.expect("an answer");
    assert_eq!(got, [Sample { labels: LabelSet::from([("instance", "a:1")]), value: 3.0 }]);
    let request = fake.requests().remove(0);
    assert!(request.starts_with("POST /prefix/api/v1/query HTTP/1.1\r\n"), "{request}");
    assert!(request.to_lowercase().contains("content-type: application/x-www-form-urlencoded"), "{request}");
    let (_, body) = request.split_once("\r\n\r\n").expect("a body");
    assert_eq!(body, "query=a%7Bb%3D%22c%26d%3D%25%5C%22%22%7D+%3E+0+%23+%C3%A9&time=2026-01-02T03%3A04%3A05.678Z");
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let place = nobody().await;
    let client = Prometheus::new(&format!("http://{place}"), LONG).expect("address");
    let error = client.instant("up", at()).await.expect_err("nobody answers");
    assert_eq!(error.reason, Reason::PrometheusUnreachable);
    assert!(error.detail.contains(&place) && error.detail.contains("refused"), "{}", error.detail);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_unreachable() {
    let client = Prometheus::new("http://prometheus.invalid:9090", LONG).expect("address");
    let error = client.instant("up", at()).await.expect_err("nobody answers");
    assert_eq!(error.reason, Reason::PrometheusUnreachable);
    assert!(error.detail.contains("prometheus.invalid"), "{}", error.detail);
}

#[tokio::test]
async fn a_connection_that_breaks_is_unreachable() {
    all_fail(LONG, Act::Say(vec![]), Reason::PrometheusUnreachable, "").await;
    all_fail(LONG, Act::Say(b"HTTP/1.1 200 OK\r\ncontent-".to_vec()), Reason::PrometheusUnreachable, "").await;
    all_fail(LONG, Act::Say(http_cut(ONE)), Reason::PrometheusUnreachable, "").await;
}

#[tokio::test]
async fn silence_is_a_timeout_wherever_it_begins() {
    for act in [
        Act::SayThenHang(vec![]),
        Act::SayThenHang(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Act::SayThenHang(http_cut(ONE)),
        Act::Late(Duration::from_secs(60), http(200, ONE)),
    ] {
        all_fail(SHORT, act, Reason::PrometheusTimeout, "within 200ms").await;
    }
}

#[tokio::test]
async fn a_refusal_keeps_prometheus_words() {
    for (status, kind) in [(400, "bad_data"), (422, "execution"), (503, "timeout"), (500, "internal"), (200, "odd")] {
        let body =
            format!(r#"{{"status":"error","errorType":"{kind}","error":"it said \u001b[2J no","data":{{"resultType":"x"}}}}"#);
        all_fail(
            LONG,
            Act::Say(http(status, &body)),
            Reason::PrometheusRefused,
            &format!("HTTP {status}: {kind}: it said \\u{{1b}}"),
        )
        .await;
    }
    for status in [401, 404, 429, 502] {
        all_fail(LONG, Act::Say(http(status, "<h1>proxy</h1>\n")), Reason::PrometheusRefused, "<h1>proxy</h1>").await;
    }
    all_fail(LONG, Act::Say(http(500, "")), Reason::PrometheusRefused, "HTTP 500").await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Fake::tcp(Framing::Http, |_| Act::Say(http(200, ONE))).await;
    let answer = format!("HTTP/1.1 307 X\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n", other.place).into_bytes();
    all_fail(LONG, Act::Say(answer), Reason::PrometheusRefused, "HTTP 307").await;
    assert_eq!(other.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn an_answer_with_warnings_is_not_an_answer() {
    let warned = |data: &str| {
        let body = format!(r#"{{"status":"success","data":{data},"warnings":["remote read: one store is down"]}}"#);
        move |_: &str| Act::Say(http(200, &body))
    };
    let fake = Fake::tcp(Framing::Http, warned(r#"{"resultType":"vector","result":[]}"#)).await;
    let client = Prometheus::new(&format!("http://{}", fake.place), LONG).expect("address");
    let error = client.instant("up", at()).await.expect_err("warned");
    assert_eq!(error.reason, Reason::PrometheusWarnings);
    assert!(error.detail.contains("one store is down"), "{}", error.detail);

    let fake = Fake::tcp(Framing::Http, warned(r#"{"groups":[]}"#)).await;
    let client = Prometheus::new(&format!("http://{}", fake.place), LONG).expect("address");
    assert_eq!(client.alerting_rules().await.expect_err("warned").reason, Reason::PrometheusWarnings);
}

#[tokio::test]
async fn what_cannot_be_read_is_malformed() {
    for body in [
        "",
        "not json",
        "[]",
        "{}",
        r#"{"status":"success"}"#,
        r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#,
        r#"{"status":"success","data":{"resultType":"string","result":[1,"x"]}}"#,
    ] {
        all_fail(LONG, Act::Say(http(200, body)), Reason::PrometheusMalformed, "").await;
    }
    let deep = format!(r#"{{"status":"success","data":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    all_fail(LONG, Act::Say(http(200, &deep)), Reason::PrometheusMalformed, "").await;
    all_fail(LONG, Act::Say(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), Reason::PrometheusMalformed, "").await;
}

#[tokio::test]
async fn an_answer_without_end_is_malformed_not_memory() {
    all_fail(LONG, http_endless(), Reason::PrometheusMalformed, "more than 16777216 bytes").await;
}

#[test]
fn numbers_are_read_as_prometheus_writes_them() {
    let read = |value: &str| {
        let body = format!(
            r#"{{"status":"success","infos":["x"],"data":{{"result":[{{"value":[1,"{value}"],"metric":{{}}}}],"resultType":"vector"}}}}"#
        );
        read_instant(200, body.as_bytes())
    };
    let value = |text: &str| read(text).expect(text)[0].value;
    assert!(value("NaN").is_nan());
    assert_eq!(value("+Inf"), f64::INFINITY);
    assert_eq!(value("-Inf"), f64::NEG_INFINITY);
    assert_eq!(value("1.5e+06"), 1_500_000.0);
    for bad in ["", "1,5", "0x10", "one"] {
        assert_eq!(read(bad).expect_err(bad).reason, Reason::PrometheusMalformed);
    }
}

#[test]
fn a_scalar_is_one_sample_without_labels_and_a_histogram_is_not_a_number() {
    let scalar = read_instant(200, br#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"7"]}}"#);
    assert_eq!(scalar.expect("a scalar"), [Sample { labels: LabelSet::default(), value: 7.0 }]);
    let histogram = read_instant(
        200,
        br#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{"count":"1"}]}]}}"#,
    );
    assert_eq!(histogram.expect_err("not a number").reason, Reason::PrometheusMalformed);
}

const RULES: &str = r#"{"status":"success","data":{"groups":[{"name":"fd","file":"/r.yml","interval":2.5,"limit":0,"evaluationTime":0.1,
 "lastEvaluation":"2026-01-02T03:04:05.123456789+01:00","rules":[
 {"type":"recording","name":"r","query":"x","health":"ok","lastEvaluation":"2026-01-02T03:04:05Z","evaluationTime":0.1},
 {"type":"future","whatever":1},
 {"type":"alerting","state":"firing","name":"FdLeak","query":"a > 1","duration":40,"keepFiringFor":0,"labels":{"severity":"page"},
  "annotations":{},"health":"ok","lastEvaluation":"2026-01-02T03:04:05.123456789+01:00","evaluationTime":0.1,"alerts":[
   {"labels":{"alertname":"FdLeak","instance":"a"},"annotations":{},"state":"firing","activeAt":"2026-01-02T02:04:05Z","value":"1e+00"},
   {"labels":{"alertname":"FdLeak","instance":"b"},"annotations":{},"state":"pending","activeAt":"2026-01-02T02:04:06Z","value":"1e+00"},
   {"labels":{"alertname":"FdLeak","instance":"c"},"annotations":{},"state":"inactive","value":"1e+00"}]},
 {"type":"alerting","state":"unknown","name":"New","query":"b","duration":0,"labels":{},"health":"unknown","lastEvaluation":"0001-01-01T00:00:00Z","alerts":[]}
]}]}}"#;

#[test]
fn rules_are_read_whole_and_other_kinds_left_out() {
    let rules = read_rules(200, RULES.as_bytes()).expect("rules");
    assert_eq!(rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["FdLeak", "New"]);
    let rule = &rules[0];
    assert_eq!((rule.for_seconds, rule.interval_seconds, rule.query.as_str(), rule.health.as_str()), (40.0, 2.5, "a > 1", "ok"));
    assert_eq!(rule.last_evaluation, Some("2026-01-02T02:04:05.123456789Z".parse().expect("time")));
    assert_eq!(rule.labels, LabelSet::from([("severity", "page")]));
    let states: Vec<_> = rule.alerts.iter().map(|alert| (alert.labels.get("instance"), alert.state)).collect();
    assert_eq!(states, [(Some("a"), RuleAlertState::Firing), (Some("b"), RuleAlertState::Pending)]);
    assert_eq!(rule.alerts[0].active_at, Some("2026-01-02T02:04:05Z".parse().expect("time")));
    assert_eq!(rules[1].last_evaluation, None, "the zero time means never");
}

#[test]
fn a_rule_or_a_target_that_cannot_be_read_is_malformed_not_left_out() {
    for (from, to, words) in [
        ("\"firing\",\"activeAt\"", "\"smouldering\",\"activeAt\"", "smouldering"),
        ("2026-01-02T02:04:05Z", "yesterday", "yesterday"),
        ("\"duration\":40,", "", "duration"),
        ("\"interval\":2.5,", "", "interval"),
        ("\"query\":\"a > 1\",", "", "query"),
    ] {
        let changed = RULES.replacen(from, to, 1);
        assert_ne!(changed, RULES);
        let error = read_rules(200, changed.as_bytes()).expect_err(from);
        assert_eq!(error.reason, Reason::PrometheusMalformed);
        assert!(error.detail.contains(words), "{}", error.detail);
    }
    for (from, to) in [("\"2s667ms\"", "\"soon\""), ("\"scrapeInterval\":\"2s667ms\",", ""), ("2026-01-02T02:04:05Z", "now")] {
        let error = read_targets(200, TARGETS.replacen(from, to, 1).as_bytes()).expect_err(from);
        assert_eq!(error.reason, Reason::PrometheusMalformed);
    }
}

const TARGETS: &str = r#"{"status":"success","data":{"droppedTargets":[],"activeTargets":[
 {"discoveredLabels":{},"labels":{"instance":"a:1","job":"shop"},"scrapePool":"shop","scrapeUrl":"http://a:1/metrics","globalUrl":"","lastError":"",
  "lastScrape":"2026-01-02T02:04:05Z","lastScrapeDuration":0.1,"health":"up","scrapeInterval":"2s667ms","scrapeTimeout":"2s"},
 {"labels":{"instance":"b:1"},"lastError":"Get \"http://u:hunter2@b:1/metrics\": connection refused","lastScrape":"0001-01-01T00:00:00Z","health":"down",
  "scrapeInterval":"1m"}]}}"#;

#[test]
fn targets_are_read_with_their_interval_and_without_passwords() {
    let targets = read_targets(200, TARGETS.as_bytes()).expect("targets");
    assert_eq!((targets[0].health.as_str(), targets[0].interval_seconds, targets[0].last_error.as_str()), ("up", 2.667, ""));
    assert_eq!(targets[0].last_scrape, Some("2026-01-02T02:04:05Z".parse().expect("time")));
    assert_eq!((targets[1].last_scrape, targets[1].interval_seconds), (None, 60.0));
    assert_eq!(targets[1].last_error, "Get \"http://[redacted]@b:1/metrics\": connection refused");
}

proptest! {
    #[test]
    fn no_bytes_make_the_readers_panic(status in prop_oneof![Just(200u16), any::<u16>()], body in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read_instant(status, &body);
        let _ = read_rules(status, &body);
        let _ = read_targets(status, &body);
    }

    /// Nearly right answers get further into the readers than random bytes.
    #[test]
    fn no_damage_makes_the_readers_panic(at in 0usize..2000, with in any::<[u8; 3]>(), keep in 0usize..2500) {
        for good in [ONE, RULES, TARGETS] {
            let mut body = good.as_bytes().to_vec();
            let at = at % body.len();
            let end = (at + 3).min(body.len());
            body[at..end].copy_from_slice(&with[..end - at]);
            body.truncate(keep);
            let _ = (read_instant(200, &body), read_rules(200, &body), read_targets(200, &body));
        }
    }
}
