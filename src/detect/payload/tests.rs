//! Every way in which a body is or is not a delivery.

use proptest::prelude::*;

use super::*;

/// As Alertmanager 0.34 sends it, unknown fields included; key order as Go's encoder writes it.
const DELIVERY: &str = r#"{"receiver":"remediator","status":"firing","notification_reason":"first_notification",
  "alerts":[
    {"status":"firing","labels":{"alertname":"FdLeakFast","instance":"inventory-2:8080","job":"inventory","service":"inventory","severity":"page"},
     "annotations":{"summary":"inventory-2 leaks","runbook_url":"https://x/RUNBOOK.md"},"startsAt":"2026-03-01T02:00:05.123Z",
     "endsAt":"0001-01-01T00:00:00Z","generatorURL":"http://prometheus:9090/graph?g0.expr=x","fingerprint":"0000000000000000"},
    {"status":"resolved","labels":{"alertname":"FdLeakFast","instance":"inventory-1:8080"},"annotations":{},
     "startsAt":"0001-01-01T00:00:00Z","endsAt":"2026-03-01T02:05:00Z","generatorURL":"","fingerprint":"1111111111111111"}],
  "groupLabels":{"service":"inventory"},"commonLabels":{"service":"inventory"},"commonAnnotations":{},"routeLabels":{"team":"shop"},
  "externalURL":"http://alertmanager:9093","version":"4","groupKey":"{}/{alertname=~\"FdLeak.*\"}:{service=\"inventory\"}","truncatedAlerts":3}"#;

const MANY: usize = 1_000;

#[test]
fn a_real_delivery_is_read_whole() {
    let group = parse(DELIVERY.as_bytes(), MANY).expect("a real delivery");
    assert_eq!(group.receiver, "remediator");
    assert_eq!(group.group_key, "{}/{alertname=~\"FdLeak.*\"}:{service=\"inventory\"}");
    assert_eq!(group.truncated, 3);
    let [first, second] = group.alerts.as_slice() else { panic!("two alerts, not {}", group.alerts.len()) };
    assert_eq!((first.status, second.status), (AlertStatus::Firing, AlertStatus::Resolved));
    assert_eq!(first.labels.get("instance"), Some("inventory-2:8080"));
    assert_eq!(first.annotations.get("summary"), Some("inventory-2 leaks"));
    assert_eq!(first.starts_at, Some("2026-03-01T02:00:05.123Z".parse().expect("a time")));
    assert_eq!(second.starts_at, None, "Go's zero time is no time");
    assert_ne!(first.labels.fingerprint().to_string(), "0000000000000000", "the payload's own is not believed");
}

#[test]
fn curl_needs_only_labels() {
    let group = parse(br#"{"alerts":[{"labels":{"alertname":"X"}}]}"#, MANY).expect("the smallest delivery");
    assert_eq!(group.alerts[0].status, AlertStatus::Firing);
    assert_eq!((group.truncated, group.alerts[0].starts_at), (0, None));
    let group = parse(br#"{"alerts":[{"labels":{"a":"b"}}],"status":"resolved"}"#, MANY).expect("a group's status");
    assert_eq!(group.alerts[0].status, AlertStatus::Resolved);
    assert_eq!(parse(br#"{"alerts":[]}"#, MANY).expect("nothing to do").alerts, []);
}

#[test]
fn control_characters_in_labels_are_data() {
    let group = parse(br#"{"alerts":[{"labels":{"a":"x\u0000\n\"{}","\u00fc b":"1"}}]}"#, MANY).expect("any UTF-8");
    assert_eq!(group.alerts[0].labels.get("a"), Some("x\0\n\"{}"));
    assert_eq!(group.alerts[0].labels.get("\u{fc} b"), Some("1"));
}

#[test]
fn ornaments_of_another_kind_or_size_do_not_matter() {
    let long = "x".repeat(MAX_ORNAMENT + 1);
    let body = format!(
        r#"{{"alerts":[{{"labels":{{"a":"b"}},"annotations":{{"n":5,"o":{{}},"long":"{long}"}},"startsAt":[1],"generatorURL":null,"x":[[{{}}]]}}],"receiver":7}}"#
    );
    let group = parse(body.as_bytes(), MANY).expect("tolerated");
    assert_eq!(group.receiver, "");
    assert_eq!(group.alerts[0].annotations.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["long"]);
    assert_eq!(group.alerts[0].annotations.get("long").map(str::len), Some(MAX_ORNAMENT));
}

#[test]
fn what_a_decision_stands_on_is_named_when_it_is_wrong() {
    let labels = (0..=MAX_LABELS).map(|n| format!("\"l{n}\":\"\"")).collect::<Vec<_>>().join(",");
    let long = "x".repeat(MAX_LABEL + 1);
    for (body, want) in [
        ("[]".to_owned(), "the body is an array, must be an object"),
        ("null".to_owned(), "the body is null, must be an object"),
        ("5".to_owned(), "the body is a number, must be an object"),
        ("{}".to_owned(), "alerts is missing"),
        (r#"{"alerts":{}}"#.to_owned(), "alerts is an object, must be an array"),
        (r#"{"alerts":null}"#.to_owned(), "alerts is null, must be an array"),
        (r#"{"alerts":[5]}"#.to_owned(), "alerts[0] is a number, must be an object"),
        (r#"{"alerts":[{}]}"#.to_owned(), "alerts[0].labels is missing"),
        (r#"{"alerts":[{"labels":{}}]}"#.to_owned(), "alerts[0].labels is missing"),
        (r#"{"alerts":[{"labels":[]}]}"#.to_owned(), "alerts[0].labels is an array, must be an object"),
        (
            r#"{"alerts":[{"labels":{"a":"b"}},{"labels":{"x\n":5}}]}"#.to_owned(),
            r#"alerts[1].labels["x\n"] is a number, must be a string"#,
        ),
        (r#"{"alerts":[{"labels":{"a":{"b":1}}}]}"#.to_owned(), r#"alerts[0].labels["a"] is an object, must be a string"#),
        (r#"{"alerts":[{"labels":{"a":"1","a":"2"}}]}"#.to_owned(), r#"alerts[0].labels["a"] is there twice"#),
        (r#"{"alerts":[{"labels":{"a":"1"},"labels":{"a":"1"}}]}"#.to_owned(), "alerts[0].labels is there twice"),
        (r#"{"alerts":[],"alerts":[]}"#.to_owned(), "alerts is there twice"),
        (
            r#"{"alerts":[{"labels":{"a":"1"},"status":"suppressed"}]}"#.to_owned(),
            r#"alerts[0].status is "suppressed", must be firing or resolved"#,
        ),
        (r#"{"alerts":[],"version":"3"}"#.to_owned(), r#"version is "3", must be "4""#),
        (r#"{"version":4,"alerts":[]}"#.to_owned(), "version is a number, must be a string"),
        (
            r#"{"alerts":[],"truncatedAlerts":-1}"#.to_owned(),
            "truncatedAlerts is a negative number, must be a whole number from 0",
        ),
        (format!(r#"{{"alerts":[{{"labels":{{{labels}}}}}]}}"#), "alerts[0].labels has more than 64 entries"),
        (format!(r#"{{"alerts":[{{"labels":{{"a":"{long}"}}}}]}}"#), r#"alerts[0].labels["a"] has 4097 bytes, at most 4096"#),
        (
            r#"{"alerts":[{"labels":{"a":"1"}},{"labels":{"a":"2"}},{"labels":{"a":"3"}}]}"#.to_owned(),
            "more than 2 alerts in one delivery; group them into smaller notifications, or raise limits.alerts",
        ),
    ] {
        assert_eq!(parse(body.as_bytes(), 2).expect_err(&body).to_string(), want);
    }
}

/// At the cap it is taken, one above it is refused, each with the code that the answer carries.
#[test]
fn every_cap_holds_at_its_edge() {
    let alert = |labels: &str| format!(r#"{{"alerts":[{{"labels":{{{labels}}}}}]}}"#);
    let labels = |count: usize| alert(&(0..count).map(|n| format!("\"l{n}\":\"\"")).collect::<Vec<_>>().join(","));
    let value = |bytes: usize| alert(&format!("\"a\":\"{}\"", "x".repeat(bytes)));
    let name = |bytes: usize| alert(&format!("\"{}\":\"a\"", "x".repeat(bytes)));
    let alerts = |count: usize| format!(r#"{{"alerts":[{}]}}"#, vec![r#"{"labels":{"a":"b"}}"#; count].join(","));
    let depth = |deep: usize| format!(r#"{{"alerts":[],"x":{}{}}}"#, "[".repeat(deep - 1), "]".repeat(deep - 1));
    for (taken, refused, code) in [
        (labels(MAX_LABELS), labels(MAX_LABELS + 1), "payload_too_many_labels"),
        (value(MAX_LABEL), value(MAX_LABEL + 1), "payload_too_long"),
        (name(MAX_LABEL), name(MAX_LABEL + 1), "payload_too_long"),
        (alerts(5), alerts(6), "payload_too_many_alerts"),
        (depth(MAX_DEPTH), depth(MAX_DEPTH + 1), "payload_too_deep"),
    ] {
        assert!(parse(taken.as_bytes(), 5).is_ok(), "{code}: refused at the cap");
        assert_eq!(parse(refused.as_bytes(), 5).map_err(|error| error.code()).err(), Some(code));
    }
    // What nothing is decided from is cut, never refused.
    let annotations = |count: usize| (0..count).map(|n| format!("\"a{n}\":\"x\"")).collect::<Vec<_>>().join(",");
    let body = format!(r#"{{"alerts":[{{"labels":{{"a":"b"}},"annotations":{{{}}}}}]}}"#, annotations(MAX_ANNOTATIONS + 1));
    assert_eq!(parse(body.as_bytes(), 1).expect("taken").alerts[0].annotations.len(), MAX_ANNOTATIONS);
    let key = format!(r#"{{"alerts":[],"groupKey":"token=a {}"}}"#, "é".repeat(MAX_ORNAMENT));
    let key = parse(key.as_bytes(), 1).expect("taken").group_key;
    assert!(key.len() <= MAX_ORNAMENT && key.starts_with("token=a é"), "records are found by it, so it stays as it is");
}

#[test]
fn what_is_not_json_is_said_to_be_so() {
    for body in [
        "",
        " ",
        "{",
        r#"{"alerts":[}"#,
        r#"{"alerts":[]}x"#,
        "{\"alerts\":[]}\0",
        r#"{"a":"\ud800","alerts":[{"labels":{"a":"\ud800"}}]}"#,
        "alerts=x",
    ] {
        assert!(matches!(parse(body.as_bytes(), MANY), Err(PayloadError::NotJson { .. })), "{body:?}");
    }
    assert_eq!(parse(b"{\"alerts\":\"\xff\"}", MANY), Err(PayloadError::NotUtf8 { at: 11 }));
    let deep = format!(r#"{{"alerts":[],"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(parse(deep.as_bytes(), MANY), Err(PayloadError::TooDeep { at: 17 + MAX_DEPTH - 1 }));
    let quoted = format!(r#"{{"alerts":[],"x":"{}\"{}"}}"#, "[".repeat(1_000), "{".repeat(1_000));
    assert!(parse(quoted.as_bytes(), MANY).is_ok(), "brackets in a text are not brackets");
}

proptest! {
    /// No body makes it panic, and what it takes keeps its promises.
    #[test]
    fn any_bytes_are_answered(body in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&body, 3);
    }

    #[test]
    fn labels_come_back_as_they_were_sent(labels in proptest::collection::btree_map("\\PC{1,12}", ".{0,40}", 1..12)) {
        let body = serde_json::json!({ "alerts": [{ "labels": labels }] }).to_string();
        let group = parse(body.as_bytes(), 1).expect("a delivery");
        prop_assert_eq!(&group.alerts[0].labels, &labels.into_iter().collect());
    }

    #[test]
    fn a_delivery_cut_anywhere_is_refused(at in 0..DELIVERY.len()) {
        prop_assert!(parse(&DELIVERY.as_bytes()[..at], MANY).is_err());
    }
}
