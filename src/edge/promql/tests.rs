//! Hostile label values, templates that must be refused, and the product's own rules.

use proptest::prelude::*;

use super::*;

const RATIO: &str = "process_open_fds{$target} / process_max_fds{$target}";

fn refused(text: &str) -> (Option<usize>, String) {
    let error = Template::parse(text).expect_err(text);
    (error.offset(), error.to_string())
}

#[test]
fn binds_every_selector_and_names_the_metrics() {
    let template = Template::parse(RATIO).expect("the playbook's query");
    assert_eq!(template.metrics(), ["process_open_fds", "process_max_fds"]);
    assert_eq!(
        template.bind(&[("instance", "inventory-1:8080"), ("service", "inventory")]).expect("bound"),
        "process_open_fds{instance=\"inventory-1:8080\",service=\"inventory\"} / process_max_fds{instance=\"inventory-1:8080\",service=\"inventory\"}"
    );
    let other = "topk(scalar(limit{$target}), rate(requests_total{code=~\"5..\", $target}[5m] offset 1m)) # one {comment} (";
    assert_eq!(Template::parse(other).expect(other).metrics(), ["limit", "requests_total"]);
}

#[test]
fn a_template_that_could_read_another_replica_is_refused_with_its_place() {
    for (text, offset, sentence) in [
        ("up", Some(0), "selector `up` does not bind the target, so it would read every replica"),
        ("up{$target} / on () down", Some(20), "selector `down` does not bind the target, so it would read every replica"),
        ("up{$target} + up{job=\"a\"}", Some(14), "selector `up` does not bind the target, so it would read every replica"),
        ("sum by (up) (rate(up[5m]))", Some(18), "selector `up` does not bind the target, so it would read every replica"),
        (
            "topk(scalar(limit), up{$target})",
            Some(12),
            "selector `limit` does not bind the target, so it would read every replica",
        ),
        ("up{$target} and {job=\"a\"}", Some(16), "selector `{...}` does not bind the target, so it would read every replica"),
        ("up{a=\"$target\"}", Some(6), "$target stands outside the braces of a selector"),
        ("up # {$target}", Some(6), "$target stands outside the braces of a selector"),
        ("$target", Some(0), "$target stands outside the braces of a selector"),
        (
            "up{$target or a=\"b\"}",
            Some(0),
            "the query uses `or` between matchers, which Prometheus does not read as our parser does",
        ),
        (
            "up{a=`x\\`,$target}",
            Some(5),
            "the query uses a back-quoted string, which Prometheus does not read as our parser does",
        ),
        ("up{$targets}", Some(3), "the query has a variable that is not $target"),
        ("up{$target}[$__range]", Some(12), "the query has a variable that is not $target"),
        ("{$target}", Some(1), "selector `{...}` does not name its metric exactly"),
        ("vector(1)", None, "the query selects no series, so it says nothing about the target"),
        ("up{$target", None, "the query does not parse: unexpected end of input inside braces"),
    ] {
        assert_eq!(refused(text), (offset, sentence.to_owned()), "{text}");
    }
}

#[test]
fn what_would_widen_the_selection_is_refused() {
    for (labels, want) in [
        (&[][..], PromqlError::NoLabels),
        (&[("instance", "")][..], PromqlError::EmptyValue("instance".into())),
        (&[("ein.name", "x")][..], PromqlError::LabelName("ein.name".into())),
        (&[("", "x")][..], PromqlError::LabelName(String::new())),
        (&[("__name__", "x")][..], PromqlError::LabelName("__name__".into())),
        (&[("a", "x"), ("a", "y")][..], PromqlError::LabelTwice("a".into())),
    ] {
        assert_eq!(exact("up", labels), Err(want));
    }
    assert_eq!(exact("up or vector", &[("a", "b")]), Err(PromqlError::MetricName("up or vector".into())));
    assert_eq!(exact("", &[("a", "b")]), Err(PromqlError::MetricName(String::new())));
}

#[test]
fn hostile_values_stay_values() {
    assert_eq!(
        exact("up", &[("instance", "a\"b\\c\n{}\u{fffd}\u{202e}é")]).expect("bound"),
        r#"up{instance="a\"b\\c\n{}\ufffd\u202eé"}"#
    );
    assert_eq!(timestamp_of("up", &[("a", "\"} or vector(1) #")]).expect("bound"), r#"timestamp(up{a="\"} or vector(1) #"})"#);
    // Bound once: a value that says `$target` is a value.
    assert_eq!(exact("up", &[("a", "$target"), ("b", "c")]).expect("bound"), r#"up{a="$target",b="c"}"#);
}

#[test]
fn a_veto_may_be_about_something_else() {
    let veto = Template::parse_veto("deploy_running > 0").expect("no target");
    assert_eq!(veto.bind(&[("instance", "a")]).expect("as it stands"), "deploy_running > 0");
    assert_eq!(
        Template::parse_veto("busy{$target} > 0").expect("target").bind(&[("a", "b")]).expect("bound"),
        "busy{a=\"b\"} > 0"
    );
    assert!(Template::parse_veto("busy{$target} > limit").is_err(), "half bound");
    assert!(Template::parse_veto("busy >").is_err());
}

#[test]
fn sample_demands_are_read_from_comparisons() {
    for (text, want) in [
        ("a and count_over_time(x[5m]) >= 18", vec![(300.0, 18.0)]),
        (
            "count_over_time(x[1h] offset 5h) > 53.5 unless (count_over_time(y{a=\"b\"}[1m])) > 3",
            vec![(3600.0, 54.0), (60.0, 4.0)],
        ),
        ("18 <= count_over_time(x[2667ms])", vec![(2.667, 18.0)]),
        ("count_over_time(x[5m:15s]) >= 18", vec![]),
        ("count_over_time(x[5m]) <= 18", vec![]),
        ("sum_over_time(x[5m]) >= 18", vec![]),
        ("not promql >=", vec![]),
    ] {
        assert_eq!(sample_demands(text), want, "{text}");
    }
}

#[test]
fn no_text_ends_the_program() {
    let deep = "(".repeat(200) + "1" + &")".repeat(200);
    assert_eq!(check_expression(&deep), Err(PromqlError::TooDeep));
    assert_eq!(check_expression(&" ".repeat(20_000)), Err(PromqlError::TooLong { length: 20_000 }));
    for text in ["x[1e30]", "x offset 1e300", "x @ 1e300", "", "é", "{é", "\"", "x[", "\\"] {
        let _ = check_expression(text);
        let _ = Template::parse(text);
    }
    for link in ["-", "1+", "1 or ", "1^", "- (", "abs("] {
        let _ = check_expression(&(link.repeat(read::MAX_QUERY / link.len() - 1) + "1"));
    }
}

/// The table at the head of the rules' file, read by the program.
#[test]
fn our_own_rules_parse_and_say_what_scrape_they_need() {
    #[derive(serde::Deserialize)]
    struct File {
        groups: Vec<Group>,
    }
    #[derive(serde::Deserialize)]
    struct Group {
        rules: Vec<Rule>,
    }
    #[derive(serde::Deserialize)]
    struct Rule {
        alert: String,
        expr: String,
    }
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("prometheus-rules/fd-leak.yml");
    let file: File = serde_saphyr::from_str(&std::fs::read_to_string(file).expect("the rules")).expect("rules");
    let slowest: Vec<(String, f64)> = file
        .groups
        .iter()
        .flat_map(|group| &group.rules)
        .map(|rule| {
            check_expression(&rule.expr).unwrap_or_else(|error| panic!("{}: {error}", rule.alert));
            let slowest =
                sample_demands(&rule.expr).into_iter().map(|(window, samples)| window / samples).fold(f64::INFINITY, f64::min);
            (rule.alert.clone(), (slowest * 10.0).round() / 10.0)
        })
        .collect();
    let want = [
        ("FdLeakSustained", 16.7),
        ("FdLeakFast", 16.4),
        ("FdExhausted", 20.0),
        ("FdMetricsAbsent", f64::INFINITY),
        ("FdLeakSlow", 66.7),
    ];
    assert_eq!(slowest, want.map(|(name, slowest)| (name.to_owned(), slowest)));
}

proptest! {
    #[test]
    fn bound_matchers_are_the_labels_given(
        values in prop::collection::vec(prop_oneof!["\\PC{1,20}", "[\"\\\\\n\r\t{}$`#, a]{1,12}", any::<Vec<char>>().prop_map(|c| c.into_iter().collect::<String>())], 1..4),
    ) {
        let names = ["instance", "service", "or"];
        let labels: Vec<(&str, &str)> = names.into_iter().zip(values.iter().map(String::as_str)).filter(|(_, v)| !v.is_empty()).collect();
        prop_assume!(!labels.is_empty());
        let bound = Template::parse(RATIO).expect("template").bind(&labels).expect("every non-empty value can be bound");
        prop_assert!(!bound.contains(|c: char| c.is_control()));
        let expr = parse(&bound).expect("parses");
        let found = selectors(&expr);
        prop_assert_eq!(found.len(), 2);
        for selector in found {
            let got: Vec<(&str, &str)> = selector.matchers.matchers.iter().map(|m| (m.name.as_str(), m.value.as_str())).collect();
            prop_assert_eq!(&got, &labels);
        }
    }

    #[test]
    fn any_text_is_answered(text in "[a-z{}()\\[\\]\"'`$#=~!,:0-9. é\\\\]{0,60}") {
        if let Ok(template) = Template::parse(&text) {
            prop_assert!(template.bind(&[("instance", "a\"b")]).is_ok());
        }
        let _ = check_expression(&text);
    }
}
