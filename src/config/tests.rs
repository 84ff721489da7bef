//! What the files say, what is refused, and the exact words of it.

use std::fs;
use std::path::Path;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;
use crate::decide::playbook::{BlastRadius, Budget, Confirm, DrainSpec, EvidenceSpec, Mode, OnTimeout, Rate, Share, Threshold};
use crate::period::Period;

/// DESIGN §6's sketch.
pub const SKETCH: &str = r#"playbook: inventory-fd-leak
match: ['alertname=~"FdLeakFast|FdLeakSustained|FdLeakSlow|FdExhausted"', 'service="inventory"']
target:
  service: inventory
  replica: instance
confirm:
  inputs: [process_open_fds, process_max_fds, up]
  veto: []
evidence: { logs: 100, required: true }
steps:
  - drain:    { within: 30s, on_timeout: abort }
  - restart:  { grace: 10s }
  - healthy:  { within: 60s }
  - readmit
recovered: { query: 'process_open_fds{$target} / process_max_fds{$target}', below: 0.3, settle: 10s, looks: 3, within: 2m }
guards:
  start_grace: 2m
  cooldown: 5m
  rate: { per: 1m, burst: 3 }
  budget: [6 per 1h, 12 per 1d]
  breaker: { failures: 3, recurrence: 1h, cooldown: 10m }
  blast_radius: { min_healthy: 2, max_unhealthy: 67%, max_in_flight: 1, blame: 10m }
mode: shadow
"#;

pub const SETTINGS: &str = "state_dir: state
playbooks: [playbooks/*.yml]
prometheus: { url: 'http://127.0.0.1:9090/' }
alertmanager: { urls: [http://127.0.0.1:9093] }
docker: { read: unix:///run/read.sock, restart: unix:///run/restart.sock }
haproxy: { address: tcp://127.0.0.1:9999 }
";

/// A folder with settings, one token and playbooks.
pub fn folder(settings: &str, playbooks: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    fs::create_dir(folder.path().join("playbooks")).expect("a folder");
    fs::write(folder.path().join("remediator.yml"), settings).expect("written");
    fs::write(folder.path().join("token"), "0123456789abcdef\n").expect("written");
    fs::write(folder.path().join("short"), "secret\n").expect("written");
    for (name, text) in playbooks {
        fs::write(folder.path().join("playbooks").join(name), text).expect("written");
    }
    folder
}

pub fn loaded(folder: &Path) -> Result<Config, Vec<String>> {
    load(&folder.join("remediator.yml"))
        .map_err(|errors| errors.iter().map(|error| error.to_string().replace(&format!("{}/", folder.display()), "")).collect())
}

fn refusals(settings: &str, playbooks: &[(&str, &str)]) -> Vec<String> {
    loaded(folder(settings, playbooks).path()).expect_err("must be refused")
}

#[test]
fn the_sketch_is_read_as_it_is_meant() {
    let folder = folder(SETTINGS, &[("x.yml", SKETCH)]);
    let config = loaded(folder.path()).expect("good");
    let [playbook] = config.playbooks.as_slice() else { panic!("{:?}", config.playbooks) };
    assert_eq!(playbook.name.as_str(), "inventory-fd-leak");
    assert_eq!(playbook.matchers.len(), 2);
    assert_eq!((playbook.service.as_str(), playbook.replica_label.as_str()), ("inventory", "instance"));
    assert_eq!(
        playbook.confirm,
        Confirm::Rule { inputs: ["process_open_fds", "process_max_fds", "up"].map(String::from).to_vec() }
    );
    assert_eq!(playbook.evidence, EvidenceSpec { logs: 100, required: true });
    assert_eq!(playbook.drain, DrainSpec { within: Period::from_secs(30), on_timeout: OnTimeout::Abort });
    assert_eq!((playbook.restart_grace_seconds, playbook.healthy_within), (10, Period::from_secs(60)));
    assert_eq!((playbook.recovered.below, playbook.recovered.looks), (0.3, 3));
    let guards = &playbook.guards;
    assert_eq!(guards.rate, Rate { per: Period::from_secs(60), burst: 3 });
    assert_eq!(guards.budget[1], Budget { most: 12, per: Period::from_secs(86_400) });
    assert_eq!(
        guards.blast_radius,
        BlastRadius { min_healthy: 2, max_unhealthy: Share::Percent(67), max_in_flight: 1, blame: Period::from_secs(600) }
    );
    assert_eq!(playbook.mode, Mode::Shadow);
    assert_eq!(config.warnings, []);
    let origin = &config.origins[0];
    assert_eq!((origin.name.line, origin.matchers.line, origin.within.line), (1, 2, 15));
}

#[test]
fn settings_have_the_documented_defaults() {
    let folder = folder(SETTINGS, &[("x.yml", SKETCH)]);
    let settings = loaded(folder.path()).expect("good").settings;
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8090");
    assert_eq!(settings.external_url, "http://127.0.0.1:8090");
    assert_eq!(settings.state_dir, folder.path().join("state"));
    assert_eq!(settings.playbooks, [folder.path().join("playbooks/x.yml")]);
    assert_eq!(settings.prometheus.url, "http://127.0.0.1:9090");
    assert_eq!((settings.prometheus.timeout, settings.haproxy.timeout), (Period::from_secs(5), Period::from_secs(2)));
    assert_eq!(settings.limits.fleet, Rate { per: Period::from_secs(60), burst: 5 });
    assert_eq!(settings.limits.group, Rate { per: Period::from_secs(60), burst: 3 });
    assert_eq!((settings.limits.body, settings.limits.alerts), (8_388_608, 10_000));
    assert_eq!(
        (settings.pages.every, settings.pages.hold, settings.pages.ask_again),
        (Period::from_secs(60), Period::from_secs(600), Period::from_secs(30))
    );
    assert_eq!((settings.heartbeat.every, settings.heartbeat.textfile), (Period::from_secs(30), None));
    assert_eq!((settings.watchdog.alertname.as_deref(), settings.watchdog.within), (Some("Watchdog"), Period::from_secs(600)));
    assert!(!settings.start_paused);
    assert_eq!((settings.log.format, settings.log.level), (settings::LogFormat::Human, None));
}

#[test]
fn settings_take_what_is_written() {
    let text = format!(
        "{SETTINGS}listen: 0.0.0.0:80\nexternal_url: https://r.example/x/\nstart_paused: true\ntokens: {{ receiver: [token] }}\n\
         limits: {{ fleet: {{ per: 1h, burst: 1 }}, body: 1000 }}\npages: {{ every: 10s, hold: 20s }}\nlog: {{ format: json, level: debug }}\n"
    );
    let folder = folder(&text, &[("x.yml", SKETCH)]);
    let config = loaded(folder.path()).expect("good");
    let settings = config.settings;
    assert_eq!(
        (settings.listen.port(), settings.external_url.as_str(), settings.start_paused),
        (80, "https://r.example/x", true)
    );
    assert_eq!(settings.tokens.receiver[0].expose_secret(), "0123456789abcdef");
    assert!(!format!("{settings:?}").is_empty() && !format!("{:?}", settings.tokens).contains("0123456789abcdef"));
    assert_eq!((settings.limits.body, settings.limits.fleet.burst, settings.log.format), (1000, 1, settings::LogFormat::Json));
    assert_eq!(config.warnings, []);
}

#[test]
fn bad_settings_are_refused_in_so_many_words() {
    for (before, after, want) in [
        (
            "state_dir: state\n",
            "state_dir: state\nstate: x\n",
            &[
                "remediator.yml:2:1: unknown field `state`. Known here: listen, external_url, state_dir, playbooks, prometheus, alertmanager, docker, haproxy, tokens, tls, limits, pages, retention, heartbeat, watchdog, start_paused, log.",
            ][..],
        ),
        ("state_dir: state\n", "", &["remediator.yml:1:1: `state_dir` is missing. Name the folder for the journal."]),
        (
            "state_dir: state\n",
            "state_dir: ''\nlisten: here\n",
            &[
                "remediator.yml:1:12: state_dir is empty. Name the folder for the journal.",
                "remediator.yml:2:9: `here` is not an address to listen on. Write an IP address and a port, such as 127.0.0.1:8090.",
            ],
        ),
        (
            "state_dir: state\n",
            "state_dir: state\nlisten: 10.0.0.1:8090\n",
            &[
                "remediator.yml:2:9: 10.0.0.1:8090 can be reached from other machines and no tokens are configured, so anyone could have a container restarted. Listen on 127.0.0.1, or name token files under `tokens`.",
            ],
        ),
        (
            "[playbooks/*.yml]",
            "[playbooks/*.yaml]",
            &[
                "remediator.yml:2:13: playbooks/*.yaml matches no file. Name at least one playbook file; `*` may stand in the file's name.",
            ],
        ),
        (
            "[playbooks/*.yml]",
            "[]",
            &[
                "remediator.yml:2:12: playbooks is empty, so nothing would ever be remediated. Name at least one playbook file; `*` may stand in the file's name.",
            ],
        ),
        (
            "'http://127.0.0.1:9090/'",
            "127.0.0.1:9090",
            &[
                "remediator.yml:3:20: `127.0.0.1:9090` is not a base URL. Write one such as http://127.0.0.1:9090, without ? or #.",
            ],
        ),
        (
            "9090/' }",
            "9090/', timeout: 0s }",
            &["remediator.yml:3:55: prometheus.timeout is 0. Write a duration such as 30s or 5m."],
        ),
        (
            "[http://127.0.0.1:9093]",
            "[]",
            &["remediator.yml:4:23: alertmanager.urls is empty, so nobody could be paged. Name at least one Alertmanager."],
        ),
        (
            "unix:///run/read.sock",
            "/run/read.sock",
            &[
                "remediator.yml:5:17: `/run/read.sock` is not an address of Docker's read door: write unix:///path/to/socket or tcp://host:port.",
            ],
        ),
        (
            "/run/restart.sock }",
            "/run/restart.sock, only: [shop] }",
            &[
                "remediator.yml:5:82: `shop` is not a label with its value. Write name=value, such as com.docker.compose.project=shop.",
            ],
        ),
        (
            "haproxy:",
            "tokens: { receiver: [token, token, token], reader: [short], operator: [none] }\nhaproxy:",
            &[
                "remediator.yml:6:36: more than two token files for receiver. Two are for replacing a token; remove the old one.",
                "remediator.yml:6:53: token file short does not hold one token of 16 to 4096 bytes. Make one with: openssl rand -hex 32.",
                "remediator.yml:6:72: token file none cannot be read: No such file or directory (os error 2). Create it, readable by remediator only.",
            ],
        ),
        (
            "haproxy:",
            "limits: { group: { per: 0s, burst: 0 }, alerts: 0 }\npages: { every: 5m, hold: 1m, ask_again: 1 }\nhaproxy:",
            &[
                "remediator.yml:6:25: limits.group.per is 0. Write a duration such as 30s or 5m.",
                "remediator.yml:6:36: limits.group.burst is 0, so nothing would ever be remediated. Write 1 or more.",
                "remediator.yml:6:49: limits.alerts is 0. Write a number from 1 to 1000000.",
                "remediator.yml:7:27: pages.hold (1m) is shorter than pages.every (5m), so a page would end before it is sent again. Make hold at least as long as every.",
                "remediator.yml:7:42: `1` is not a duration: write whole numbers with units, largest first, such as 30s, 5m or 1h30m.",
            ],
        ),
        (
            "haproxy:",
            "pages: { every: 3m }\nhaproxy:",
            &[
                "remediator.yml:6:17: pages.every is 3m: Alertmanager ends what it is not told of for its resolve_timeout, 5m if not set. Write at most 2m.",
            ],
        ),
        (
            "haproxy:",
            "log: { format: xml }\nhaproxy:",
            &["remediator.yml:6:16: `xml` is not known here. Write one of: human, json."],
        ),
        ("haproxy:", "state_dir: x\nhaproxy:", &["remediator.yml:6:1: duplicate mapping key `state_dir` is not allowed here."]),
        ("haproxy:", "listen: [\nhaproxy:", &["remediator.yml:6:9: expected string scalar."]),
        (
            "haproxy:",
            "? \"a\\tb\\e\"\n: 1\nhaproxy:",
            &[
                "remediator.yml:6:3: unknown field `a\\tb\\u{1b}`. Known here: listen, external_url, state_dir, playbooks, prometheus, alertmanager, docker, haproxy, tokens, tls, limits, pages, retention, heartbeat, watchdog, start_paused, log.",
            ],
        ),
    ] {
        let text = SETTINGS.replace(before, after);
        let got = refusals(&text, &[("x.yml", SKETCH)]);
        assert_eq!(got, want, "{after}");
    }
    assert_eq!(
        refusals("", &[]),
        ["remediator.yml: is empty. Write at least state_dir, prometheus, alertmanager, docker and haproxy."]
    );
}

#[test]
fn bad_playbooks_are_refused_in_so_many_words() {
    for (before, after, want) in [
        (
            "target:",
            "colour: red\ntarget:",
            &[
                "playbooks/x.yml:3:1: unknown field `colour`. Known here: playbook, match, every, target, confirm, evidence, steps, recovered, guards, mode.",
            ][..],
        ),
        (
            "match: ['alertname=~\"FdLeakFast|FdLeakSustained|FdLeakSlow|FdExhausted\"', 'service=\"inventory\"']",
            "match: []",
            &[
                "playbooks/x.yml:2:8: `match` is empty, and an empty selector selects nothing. Name the alerts, such as alertname=\"FdLeakFast\".",
            ],
        ),
        (
            "['alertname=~\"FdLeakFast|FdLeakSustained|FdLeakSlow|FdExhausted\"', 'service=\"inventory\"']",
            "['alertname=~\".*\"', 'team!=\"x\"']",
            &[
                "playbooks/x.yml:2:8: `match` matches every alert, even one without labels. Name the alerts, such as alertname=\"FdLeakFast\".",
            ],
        ),
        (
            "'service=\"inventory\"'",
            "service, 'a=~\"(\"'",
            &[
                "playbooks/x.yml:2:75: `service` is not a matcher: write name=\"value\", name!=\"value\", name=~\"regex\" or name!~\"regex\".",
                "playbooks/x.yml:2:84: the regular expression of `a=~\"(\"` does not compile: regex parse error: unclosed group.",
            ],
        ),
        (
            "service: inventory",
            "service: ../x",
            &[
                "playbooks/x.yml:4:12: `../x` is not a valid service name: letters, digits, `_`, `.` and `-`, starting with a letter or digit.",
            ],
        ),
        (
            "replica: instance",
            "replica: a.b",
            &[
                "playbooks/x.yml:5:12: `a.b` is not a label name that can be matched: letters, digits and `_`, not starting with a digit, not __name__.",
            ],
        ),
        (
            "[process_open_fds, process_max_fds, up]",
            "[]",
            &[
                "playbooks/x.yml:7:11: `inputs` is empty, so silence of the rule would prove nothing. List the scraped metrics that the rule reads.",
            ],
        ),
        (
            "process_max_fds, up]",
            "'up{}']",
            &["playbooks/x.yml:7:30: `up{}` is not a metric name: letters, digits, `_` and `:`, not starting with a digit."],
        ),
        (
            "confirm:\n  inputs: [process_open_fds, process_max_fds, up]",
            "confirm:\n  query: up",
            &[
                "playbooks/x.yml:7:10: selector `up` does not bind the target, so it would read every replica. Write up{$target}.",
                "playbooks/x.yml:7:10: confirm needs exactly one of `above` and `below`. Write the value beyond which the target is sick.",
            ],
        ),
        (
            "  inputs: [process_open_fds, process_max_fds, up]\n",
            "",
            &[
                "playbooks/x.yml:7:3: confirm has neither `inputs` nor `query`. List the metrics that the alert's rule reads under `inputs`.",
            ],
        ),
        (
            "  veto: []",
            "  query: up{$target}",
            &[
                "playbooks/x.yml:8:10: confirm has both `inputs` and `query`. Keep `inputs` to ask the alert's own rule, or `query` to ask this query.",
            ],
        ),
        ("veto: []", "above: 1", &["playbooks/x.yml:8:10: a threshold without a query. The rule has its own; remove this one."]),
        (
            "veto: []",
            "veto: ['busy{$target} > limit', 'a >']",
            &[
                "playbooks/x.yml:8:27: selector `limit` does not bind the target, so it would read every replica. Write limit{$target}.",
                "playbooks/x.yml:8:35: the query does not parse: invalid promql query.",
            ],
        ),
        ("logs: 100", "logs: 1001", &["playbooks/x.yml:9:19: evidence.logs is 1001. Write at most 1000."]),
        (
            "  - readmit\n",
            "",
            &[
                "playbooks/x.yml:11:3: the steps are [drain, restart, healthy], and a plan leaves no choice. Write drain, restart, healthy, readmit, in this order.",
            ],
        ),
        (
            "  - restart:  { grace: 10s }\n  - healthy:  { within: 60s }\n",
            "  - healthy:  { within: 60s }\n  - restart:  { grace: 10s }\n",
            &[
                "playbooks/x.yml:12:5: the steps are [drain, healthy, restart, readmit], and a plan leaves no choice. Write drain, restart, healthy, readmit, in this order.",
            ],
        ),
        (
            "- readmit",
            "- reboot",
            &["playbooks/x.yml:14:5: `reboot` is not known here. Write one of: drain, restart, healthy, readmit."],
        ),
        ("grace: 10s", "grace: 17m", &["playbooks/x.yml:12:24: restart.grace is 17m. The restart door passes at most 999s."]),
        (
            "on_timeout: abort",
            "on_timeout: panic",
            &["playbooks/x.yml:11:42: `panic` is not known here. Write one of: abort, proceed."],
        ),
        (
            "/ process_max_fds{$target}'",
            "/ process_max_fds'",
            &[
                "playbooks/x.yml:15:50: selector `process_max_fds` does not bind the target, so it would read every replica. Write process_max_fds{$target}.",
            ],
        ),
        (
            "'process_open_fds{$target} / process_max_fds{$target}', below: 0.3, settle: 10s, looks: 3",
            "'up{$target}', below: .nan, settle: 2m, looks: 0",
            &[
                "playbooks/x.yml:15:43: NaN is not a threshold. Write a finite number.",
                "playbooks/x.yml:15:68: recovered.looks is 0, so nothing would prove a recovery. Write 1 or more.",
                "playbooks/x.yml:15:79: recovered.within (2m) leaves no time after settle (2m). Make it at least settle and one scrape more than looks.",
            ],
        ),
        (
            "  rate: { per: 1m, burst: 3 }\n  budget: [6 per 1h, 12 per 1d]\n  breaker: { failures: 3, recurrence: 1h, cooldown: 10m }\n  blast_radius: { min_healthy: 2, max_unhealthy: 67%, max_in_flight: 1, blame: 10m }\n",
            "",
            &[
                "playbooks/x.yml:17:3: `guards.rate` is missing. Every playbook must declare blast_radius, rate and breaker.",
                "playbooks/x.yml:17:3: `guards.breaker` is missing. Every playbook must declare blast_radius, rate and breaker.",
                "playbooks/x.yml:17:3: `guards.blast_radius` is missing. Every playbook must declare blast_radius, rate and breaker.",
            ],
        ),
        (
            "per: 1m, burst: 3",
            "per: 0s, burst: 0",
            &[
                "playbooks/x.yml:19:16: rate.per is 0. Write a duration such as 30s or 5m.",
                "playbooks/x.yml:19:27: rate.burst is 0, so nothing would ever be remediated. Write 1 or more.",
            ],
        ),
        (
            "[6 per 1h, 12 per 1d]",
            "[0 per 1h, 6 per 0s, often]",
            &[
                "playbooks/x.yml:20:12: `0 per 1h` is not a budget. Write how many attempts in which time, such as 6 per 1h; neither may be 0.",
                "playbooks/x.yml:20:22: `6 per 0s` is not a budget. Write how many attempts in which time, such as 6 per 1h; neither may be 0.",
                "playbooks/x.yml:20:32: `often` is not a budget. Write how many attempts in which time, such as 6 per 1h; neither may be 0.",
            ],
        ),
        (
            "failures: 3",
            "failures: 0",
            &["playbooks/x.yml:21:24: breaker.failures is 0, so the breaker would never close. Write 1 or more."],
        ),
        (
            "failures: 3",
            "failures: 65",
            &["playbooks/x.yml:21:24: breaker.failures is 65, and 64 runs are remembered. Write a small number, such as 3."],
        ),
        (
            "playbook: inventory-fd-leak",
            "playbook: inventory-fd-leak\nevery: 60s",
            &[
                "playbooks/x.yml:2:8: a playbook with `every` has no alert whose rule could be asked. Write confirm: { query, above } (or below).",
            ],
        ),
        (
            "67%, max_in_flight: 1",
            "101%, max_in_flight: 0",
            &[
                "playbooks/x.yml:22:50: max_unhealthy `101%` is neither a percentage from 1% to 100% nor a count from 1. Write how many replicas may be sick at once, such as 67% or 2.",
                "playbooks/x.yml:22:71: max_in_flight is 0, so nothing would ever be remediated. Write 1 or more.",
            ],
        ),
        ("min_healthy: 2", "min_healthy: -2", &["playbooks/x.yml:22:32: this is not a whole number from 0."]),
        ("mode: shadow", "mode: on", &["playbooks/x.yml:23:7: `on` is not known here. Write one of: shadow, live."]),
    ] {
        let text = SKETCH.replace(before, after);
        assert_ne!(text, SKETCH, "{before} is not in the sketch");
        let got = refusals(SETTINGS, &[("x.yml", &text)]);
        assert_eq!(got, want, "{after}");
    }
}

#[test]
fn what_is_missing_is_told_at_once() {
    assert_eq!(
        refusals(SETTINGS, &[("x.yml", "playbook: a\n")]),
        [
            "playbooks/x.yml:1:11: `match` is missing. Say which alerts it is for, or with `every` how often to look.",
            "playbooks/x.yml:1:11: `target` is missing. Say which service it is for.",
            "playbooks/x.yml:1:11: `confirm` is missing. Write at least confirm: { inputs: [the metrics that the rule reads] }.",
            "playbooks/x.yml:1:11: `steps` is missing. Write drain, restart, healthy, readmit, in this order.",
            "playbooks/x.yml:1:11: `recovered` is missing. A rule that turns false proves nothing; write a recovery query.",
            "playbooks/x.yml:1:11: `guards` is missing. Every playbook must declare blast_radius, rate and breaker.",
        ]
    );
}

#[test]
fn files_are_told_apart() {
    assert_eq!(
        refusals(SETTINGS, &[("a.yml", SKETCH), ("b.yml", "# nothing\n"), ("c.yml", SKETCH), ("d.yml", &" ".repeat(2 << 20))]),
        [
            "playbooks/b.yml: holds no playbook. Write one, or take the file out of `playbooks`.",
            "playbooks/c.yml:1:11: playbook inventory-fd-leak is already written at playbooks/a.yml:1. Give each playbook a name of its own.",
            "playbooks/d.yml: is longer than 1048576 bytes. Name a file of configuration.",
        ]
    );
    let two = format!("{SKETCH}---\n{}", SKETCH.replace("inventory-fd-leak", "other").replace("67%", "2"));
    let folder = folder(SETTINGS, &[("a.yml", &two), (".hidden.yml", "nonsense"), ("a.yaml", "nonsense")]);
    let config = loaded(folder.path()).expect("two playbooks in one file");
    assert_eq!(config.playbooks[1].guards.blast_radius.max_unhealthy, Share::Count(2));
    assert_eq!(config.origins[1].name.line, 25);
}

#[test]
fn a_playbook_may_say_less_or_ask_its_own_query() {
    let text = SKETCH
        .replace("evidence: { logs: 100, required: true }\n", "")
        .replace("  start_grace: 2m\n  cooldown: 5m\n", "")
        .replace("  budget: [6 per 1h, 12 per 1d]\n", "")
        .replace("mode: shadow\n", "")
        .replace(", on_timeout: abort", "")
        .replace("grace: 10s", "grace: 1333ms")
        .replace("min_healthy: 2", "min_healthy: 0")
        .replace("inputs: [process_open_fds, process_max_fds, up]", "query: process_open_fds{$target}\n  above: 5");
    let folder = folder(SETTINGS, &[("x.yml", &text)]);
    let config = loaded(folder.path()).expect("good");
    let playbook = &config.playbooks[0];
    assert_eq!(playbook.evidence, EvidenceSpec { logs: 100, required: true });
    assert_eq!((playbook.guards.start_grace, playbook.guards.cooldown), (Period::from_secs(120), Period::from_secs(300)));
    assert_eq!((playbook.mode, playbook.drain.on_timeout, playbook.restart_grace_seconds), (Mode::Shadow, OnTimeout::Abort, 2));
    assert_eq!(playbook.confirm, Confirm::Query { query: "process_open_fds{$target}".into(), threshold: Threshold::Above(5.0) });
    let warning = config.warnings[0].to_string();
    assert!(
        warning.starts_with("warning: ")
            && warning.ends_with("playbooks/x.yml:19:32: min_healthy is 0: the last replica that serves may be restarted, too."),
        "{warning}"
    );
}

#[test]
fn the_playbook_that_we_ship_is_good() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("playbooks/inventory-fd-leak.yml");
    let (playbooks, warnings) = load_playbooks(&file).expect("good");
    assert_eq!((playbooks.len(), warnings), (1, Vec::new()));
}
