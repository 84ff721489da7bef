//! Alertmanager: a page that one of them took is out; a silence that may match is never "no silence".

use std::time::Duration;

use remediator::alert::LabelSet;
use remediator::edge::alertmanager::Alertmanager;
use remediator::reason::Reason;
use remediator::world::{PageAlert, Pager};

use crate::wire::{Act, Fake, Framing, LONG, SHORT, http, http_cut, http_endless, nobody};

async fn fake(act: Act) -> Fake {
    Fake::tcp(Framing::Http, move |_| act.clone()).await
}

fn client(timeout: Duration, fakes: &[&Fake]) -> Alertmanager {
    let urls: Vec<_> = fakes.iter().map(|fake| format!("http://me:hunter2@{}", fake.place)).collect();
    Alertmanager::new(&urls, timeout).expect("addresses")
}

fn page() -> PageAlert {
    PageAlert {
        labels: LabelSet::from([("alertname", "RemediatorEscalation"), ("hostile", "\"}\n<script>")]),
        annotations: LabelSet::from([("summary", "é")]),
        starts_at: "2026-01-02T03:04:05Z".parse().expect("time"),
        ends_at: None,
    }
}

fn labels() -> LabelSet {
    LabelSet::from([("alertname", "FdLeakFast"), ("service", "inventory")])
}

fn silence(id: &str, state: &str, matchers: &str) -> String {
    format!(
        r#"{{"id":"{id}","status":{{"state":"{state}"}},"updatedAt":"2026-01-02T03:00:00.000Z","comment":"deploy","createdBy":"ann",
        "startsAt":"2026-01-02T03:00:00.000Z","endsAt":"2026-01-02T05:00:00.000Z","matchers":[{matchers}]}}"#
    )
}

fn matcher(name: &str, value: &str, is_regex: bool, is_equal: bool) -> String {
    format!(r#"{{"name":"{name}","value":"{value}","isRegex":{is_regex},"isEqual":{is_equal}}}"#)
}

/// Everything that is not an answer, and what the detail must say of it.
fn no_answers() -> Vec<(Act, &'static str)> {
    vec![
        (Act::Say(vec![]), ""),
        (Act::Say(http_cut("[")), ""),
        (Act::Say(http(400, r#""bad alert""#)), "HTTP 400: \"bad alert\""),
        (Act::Say(http(500, "")), "HTTP 500"),
        (Act::Say(http(204, "")), "HTTP 204"),
        (Act::Say(b"HTTP/1.1 302 X\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n".to_vec()), "HTTP 302"),
        (Act::Say(b"\x15\x03\x01\x00\x02\x02\x16".to_vec()), ""),
        (http_endless(), "more than 16777216 bytes"),
    ]
}

#[tokio::test]
async fn a_page_arrives_whole_at_every_alertmanager() {
    let (one, two) = (fake(Act::Say(http(200, ""))).await, fake(Act::Say(http(200, ""))).await);
    client(LONG, &[&one, &two]).raise(&[page()]).await.expect("taken");
    for fake in [&one, &two] {
        let request = fake.requests().remove(0);
        assert!(request.starts_with("POST /api/v2/alerts HTTP/1.1\r\n"), "{request}");
        let (_, body) = request.split_once("\r\n\r\n").expect("a body");
        let sent: serde_json::Value = serde_json::from_str(body).expect("JSON");
        let want = serde_json::json!([{
            "labels": {"alertname": "RemediatorEscalation", "hostile": "\"}\n<script>"}, "annotations": {"summary": "é"}
        }]);
        assert_eq!(sent, want, "its times are Alertmanager's own");
    }
}

/// By a clock that went back a page may end before it began, which Alertmanager turns down, with all that came with it.
#[tokio::test]
async fn a_page_that_is_over_never_starts_after_its_end() {
    for (ends_at, starts_at) in
        [("2026-01-02T04:04:05Z", "2026-01-02T03:04:05Z"), ("2026-01-02T02:00:00Z", "2026-01-02T02:00:00Z")]
    {
        let one = fake(Act::Say(http(200, ""))).await;
        let over = PageAlert { ends_at: Some(ends_at.parse().expect("time")), ..page() };
        client(LONG, &[&one]).raise(&[over]).await.expect("taken");
        let request = one.requests().remove(0);
        let (_, body) = request.split_once("\r\n\r\n").expect("a body");
        let sent: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!((sent[0]["startsAt"].as_str(), sent[0]["endsAt"].as_str()), (Some(starts_at), Some(ends_at)));
    }
}

#[tokio::test]
async fn one_that_takes_the_page_is_enough_and_none_is_an_error_that_names_all() {
    for (act, words) in no_answers() {
        let (bad, good) = (fake(act).await, fake(Act::Say(http(200, ""))).await);
        client(LONG, &[&bad, &good]).raise(&[page()]).await.expect("one took it");
        assert_eq!(good.requests().len(), 1);

        let gone = format!("http://{}", nobody().await);
        let urls = [format!("http://{}", bad.place), gone.clone()];
        let error = Alertmanager::new(&urls, LONG).expect("addresses").raise(&[page()]).await.expect_err("none took it");
        assert_eq!(error.reason, Reason::AlertmanagerUnavailable);
        for part in [bad.place.as_str(), gone.as_str(), "api/v2/alerts", "refused", words] {
            assert!(error.detail.contains(part), "no `{part}` in: {}", error.detail);
        }
    }
}

#[tokio::test]
async fn silence_on_the_wire_is_a_timeout_and_does_not_hold_up_the_other() {
    let (hangs, good) = (fake(Act::SayThenHang(vec![])).await, fake(Act::Say(http(200, "[]"))).await);
    client(SHORT, &[&hangs, &good]).raise(&[page()]).await.expect("one took it");
    assert_eq!(client(SHORT, &[&hangs, &good]).silences(&labels()).await, Ok(vec![]));
    let alone = client(SHORT, &[&hangs]);
    for error in [alone.raise(&[page()]).await.expect_err("hangs"), alone.silences(&labels()).await.expect_err("hangs")] {
        assert_eq!(error.reason, Reason::AlertmanagerUnavailable);
        assert!(error.detail.contains("within 200ms") && error.detail.contains(&hangs.place), "{}", error.detail);
        assert!(!error.detail.contains("hunter2"), "{}", error.detail);
    }
}

#[tokio::test]
async fn silences_that_nobody_could_list_are_not_an_empty_list() {
    let mut all = no_answers();
    all.push((Act::Say(http(200, "{}")), "invalid type"));
    all.push((Act::Say(http(200, r#"[{"id":"x","status":{"state":"active"}}]"#)), "matchers"));
    for (act, words) in all {
        let fake = fake(act).await;
        let error = client(LONG, &[&fake]).silences(&labels()).await.expect_err("no answer");
        assert_eq!(error.reason, Reason::AlertmanagerUnavailable);
        for part in [fake.place.as_str(), "api/v2/silences", words] {
            assert!(error.detail.contains(part), "no `{part}` in: {}", error.detail);
        }
    }
}

#[tokio::test]
async fn only_active_silences_count_and_all_their_matchers_must() {
    let both = [matcher("service", "inventory", false, true), matcher("alertname", "FdLeak.*", true, true)].join(",");
    let listed = [
        silence("match", "active", &both),
        silence("old", "expired", &both),
        silence("soon", "pending", &both),
        silence("other-service", "active", &matcher("service", "checkout", false, true)),
        silence("one-of-two", "active", &[both.clone(), matcher("team", "x", false, true)].join(",")),
        silence("anchored", "active", &matcher("alertname", "FdLeak", true, true)),
        silence("negative", "active", &matcher("service", "checkout", false, false)),
        silence("negative-regex", "active", &matcher("service", "inv.*", true, false)),
        silence("before-0.22", "active", r#"{"name":"service","value":"inventory","isRegex":false}"#),
        silence("absent-label", "active", &matcher("team", "", false, true)),
    ];
    let fake = fake(Act::Say(http(200, &format!("[{}]", listed.join(","))))).await;
    let got = client(LONG, &[&fake]).silences(&labels()).await.expect("an answer");
    let ids: Vec<_> = got.iter().map(|silence| silence.id.as_str()).collect();
    assert_eq!(ids, ["match", "negative", "before-0.22", "absent-label"]);
    assert_eq!((got[0].comment.as_str(), got[0].created_by.as_str()), ("deploy", "ann"));
    assert_eq!(got[0].ends_at, Some("2026-01-02T05:00:00Z".parse().expect("time")));
}

#[tokio::test]
async fn silences_are_united_over_all_that_answer() {
    let matching = |id: &str| silence(id, "active", &matcher("service", "inventory", false, true));
    let one = fake(Act::Say(http(200, &format!("[{}]", matching("a"))))).await;
    let two = fake(Act::Say(http(200, &format!("[{},{}]", matching("a"), matching("b"))))).await;
    let down = fake(Act::Say(http(503, ""))).await;
    let got = client(LONG, &[&down, &one, &two]).silences(&labels()).await.expect("two answered");
    assert_eq!(got.iter().map(|silence| silence.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn a_silence_that_may_match_is_never_no_silence() {
    let odd = matcher("alertname", "(?<!x)Fd", true, true);
    let odd_one = silence("odd", "active", &odd);
    let clear = silence("clear", "active", &matcher("service", "inventory", false, true));
    let elsewhere = silence("odd-elsewhere", "active", &[odd, matcher("service", "checkout", false, true)].join(","));

    let doubtful = fake(Act::Say(http(200, &format!("[{odd_one}]")))).await;
    let quiet = fake(Act::Say(http(200, "[]"))).await;
    let error = client(LONG, &[&doubtful, &quiet]).silences(&labels()).await.expect_err("cannot say");
    assert_eq!(error.reason, Reason::AlertmanagerUnavailable);
    assert!(error.detail.contains("silence odd may match") && error.detail.contains("(?<!x)Fd"), "{}", error.detail);

    let both = fake(Act::Say(http(200, &format!("[{odd_one},{clear}]")))).await;
    assert_eq!(client(LONG, &[&both]).silences(&labels()).await.expect("one matches for sure")[0].id, "clear");
    let not_ours = fake(Act::Say(http(200, &format!("[{elsewhere}]")))).await;
    assert_eq!(client(LONG, &[&not_ours]).silences(&labels()).await, Ok(vec![]), "another matcher rules it out");
}

#[test]
fn addresses_are_checked_at_the_door() {
    let refuse = |urls: &[&str]| {
        let urls: Vec<_> = urls.iter().map(|url| (*url).to_owned()).collect();
        Alertmanager::new(&urls, LONG).expect_err("refused").to_string()
    };
    assert!(refuse(&[]).contains("at least one"));
    assert!(refuse(&["http://ok:9093", "alertmanager:9093"]).contains("alertmanager:9093"));
}
