//! The papers say what the program says: headings of RUNBOOK.md, links of the rules, snippets of README.md, metric names, sums.

#[path = "papers/commands.rs"]
mod commands;
#[path = "papers/examples.rs"]
mod examples;
#[path = "papers/safety.rs"]
mod safety;
#[path = "papers/validator.rs"]
mod validator;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use remediator::api::desk::Gauges;
use remediator::config;
use remediator::metrics::Telemetry;
use remediator::reason::{Group, Outcome, Reason};
use remediator::target::{LABEL_ENABLE, LABEL_INSTANCE, LABEL_SERVER, LABEL_SERVICE, PlaybookName};
use remediator::words;

const PAPERS: [&str; 8] = [
    "README.md",
    "RUNBOOK.md",
    "ARCHITECTURE.md",
    "toil-ledger.md",
    "prometheus-rules/README.md",
    "packaging/README.md",
    "docs/SAFETY.md",
    "docs/RELIABILITY.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Headings of a level under a heading of level two; fenced blocks hold none.
fn headings_under(paper: &str, section: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in prose(paper) {
        match line.split_once(' ') {
            Some(("##", title)) => inside = title == section,
            Some(("###", title)) if inside => found.push(title.to_owned()),
            _ => {}
        }
    }
    found
}

fn prose(paper: &str) -> Vec<&str> {
    let mut fenced = false;
    let outside = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    };
    paper.lines().filter(outside).collect()
}

/// What GitHub makes of a heading: lower case, spaces to dashes, only letters, digits, `-` and `_`.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars()
        .filter_map(|c| if c == ' ' { Some('-') } else { (c.is_alphanumeric() || c == '-' || c == '_').then_some(c) })
        .collect()
}

fn anchors(paper: &str) -> BTreeSet<String> {
    let headings = prose(paper).into_iter().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

fn fenced(paper: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for line in paper.lines() {
        let indent = line.len() - line.trim_start().len();
        match (&mut open, line.trim()) {
            (None, fence) if fence == format!("```{language}") => open = Some((indent, String::new())),
            (Some(_), "```") => blocks.extend(open.take().map(|(_, block)| block)),
            (Some((indent, block)), _) => {
                block.push_str(line.get(*indent..).unwrap_or_default());
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks
}

fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yml"))
        .collect();
    assert!(!files.is_empty(), "no files in {folder}");
    files
}

#[test]
fn every_reason_code_has_its_heading_in_its_section_and_no_other_has() {
    let runbook = text("RUNBOOK.md");
    for group in [Group::Detect, Group::Confirm, Group::Match, Group::Decide, Group::Guard, Group::Act, Group::Verify] {
        let codes: Vec<&str> = Reason::ALL.iter().filter(|reason| reason.group() == group).map(|reason| reason.code()).collect();
        assert!(!codes.is_empty(), "{group:?} has no codes");
        assert_eq!(headings_under(&runbook, &format!("{group:?}")), codes, "RUNBOOK.md, ## {group:?}");
    }
    let anchors = anchors(&runbook);
    for reason in Reason::ALL {
        let url = words::runbook_url(*reason);
        let (_, fragment) = url.split_once('#').expect("an anchor");
        assert!(anchors.contains(fragment), "{url} leads nowhere");
    }
}

#[test]
fn every_outcome_has_its_heading() {
    let words: Vec<&str> = Outcome::ALL.iter().map(|outcome| outcome.word()).collect();
    assert_eq!(headings_under(&text("RUNBOOK.md"), "Outcomes"), words);
}

#[test]
fn every_heading_of_the_runbook_has_something_to_say() {
    let runbook = text("RUNBOOK.md");
    let lines: Vec<&str> = runbook.lines().collect();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("### ")) {
        let said = lines[at + 1..].iter().take_while(|line| !line.starts_with('#')).map(|line| line.len()).sum::<usize>();
        assert!(said > 60, "RUNBOOK.md:{}: {line} says nothing", at + 1);
    }
}

#[test]
fn every_alert_has_a_heading_and_every_link_of_the_rules_leads_to_it() {
    let runbook = text("RUNBOOK.md");
    let mut alerts = 0;
    for file in yaml_files("prometheus-rules") {
        let rules = std::fs::read_to_string(&file).expect("readable");
        let named = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
        let links = rules.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: "));
        let (named, links): (Vec<&str>, Vec<&str>) = (named.collect(), links.collect());
        let wanted: Vec<String> = named.iter().map(|name| format!("{}#{}", words::RUNBOOK, anchor(name))).collect();
        assert_eq!(links, wanted, "{}: one link for each alert, to the heading of its name", file.display());
        for name in named {
            assert!(headings_under(&runbook, "Alerts").iter().any(|heading| heading == name), "RUNBOOK.md has no ### {name}");
            alerts += 1;
        }
    }
    assert!(alerts >= 6, "only {alerts} alerts found");
    assert!(headings_under(&runbook, "Alerts").iter().any(|heading| heading == remediator::page::ALERTNAME));
}

#[test]
fn links_between_the_papers_lead_somewhere() {
    let link = regex::Regex::new(r"\]\(([^)\s]+)\)").expect("a pattern");
    for name in PAPERS {
        let paper = text(name);
        let folder = root().join(name).parent().expect("a folder").to_owned();
        for found in link.captures_iter(&paper).filter(|found| !found[1].contains("://")) {
            let (file, fragment) = found[1].split_once('#').unwrap_or((&found[1], ""));
            let target = if file.is_empty() { root().join(name) } else { folder.join(file) };
            let there = std::fs::read_to_string(&target).unwrap_or_else(|error| panic!("{name}: {}: {error}", &found[1]));
            assert!(fragment.is_empty() || anchors(&there).contains(fragment), "{name}: {} leads nowhere", &found[1]);
        }
    }
}

#[test]
fn the_quick_start_can_be_typed_as_it_stands() {
    let blocks = fenced(&text("README.md"), "yaml");
    let block =
        |holds: &str| blocks.iter().find(|block| block.contains(holds)).unwrap_or_else(|| panic!("README.md: no {holds}"));

    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("playbooks")).expect("a folder");
    for file in yaml_files("playbooks") {
        std::fs::copy(&file, folder.path().join("playbooks").join(file.file_name().expect("a name"))).expect("copied");
    }
    let settings = folder.path().join("remediator.yml");
    std::fs::write(&settings, block("state_dir:")).expect("written");
    let config = config::load(&settings).unwrap_or_else(|errors| panic!("README.md's remediator.yml: {errors:?}"));
    assert_eq!(config.warnings, Vec::new());
    assert!(config.playbooks.iter().all(|playbook| playbook.mode == remediator::decide::playbook::Mode::Shadow), "shadow first");

    let labels = block("labels:");
    for label in [LABEL_ENABLE, LABEL_SERVICE, LABEL_INSTANCE, LABEL_SERVER] {
        assert!(labels.contains(&format!("{label}: ")), "README.md's labels lack {label}");
    }
    // The route takes what the playbook claims.
    let route = block("receiver: remediator");
    // Without a route of its own the always-firing alert pages the reader, and remediator says that alerts do not arrive.
    let watchdog = remediator::detect::watchdog::ALERTNAME;
    assert!(route.contains(&format!("matchers: ['alertname=\"{watchdog}\"']")), "README.md's route lacks {watchdog}");
    let matcher = route.lines().find_map(|line| line.split_once("matchers: ['")?.1.split_once('\'')).expect("a matcher").0;
    assert!(text("playbooks/inventory-fd-leak.yml").contains(matcher), "{matcher} is not the playbook's");
}

#[test]
fn the_playbooks_load() {
    for file in yaml_files("playbooks") {
        let (playbooks, warnings) =
            config::load_playbooks(&file).unwrap_or_else(|errors| panic!("{}: {errors:?}", file.display()));
        assert!(!playbooks.is_empty() && warnings.is_empty(), "{}: {warnings:?}", file.display());
    }
}

#[test]
fn metrics_that_the_papers_name_exist() {
    let telemetry = Telemetry::new("0");
    let playbook: PlaybookName = "p".parse().expect("a name");
    telemetry.playbook(&playbook);
    let shown = telemetry.render(&Gauges { head_hash: "a".into(), anchor_seq: 1, ..Gauges::default() });
    let name = regex::Regex::new(r"\bremediator_[a-z_]+\b").expect("a pattern");
    let exported: BTreeSet<&str> =
        shown.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next()).collect();
    let mut seen = 0;
    for paper in PAPERS.map(|paper| (paper, text(paper))) {
        for found in name.find_iter(&paper.1) {
            assert!(exported.contains(found.as_str()), "{}: there is no metric {}", paper.0, found.as_str());
            seen += 1;
        }
    }
    assert!(seen > 0, "no metric is named in any paper");

    // The rules about remediator itself: a metric that is not there never fires.
    let rules = text("prometheus-rules/remediator.yml");
    let in_rules: BTreeSet<&str> = name.find_iter(&rules).map(|found| found.as_str()).collect();
    for metric in in_rules.iter().filter(|metric| !MADE_WITH_EVENTS.contains(metric)) {
        assert!(exported.contains(metric), "prometheus-rules/remediator.yml: there is no metric {metric}");
    }
    assert!(in_rules.len() > 8, "only {in_rules:?}");
}

/// Metrics of the rules that a program which has just started does not show: the first refusal or breaker makes its series.
const MADE_WITH_EVENTS: [&str; 2] = ["remediator_records_closed_total", "remediator_breaker_state"];

/// The last cell of every row of the tables under a heading, as minutes; and the row's first cells, to be told apart.
fn minutes(paper: &str, section: &str) -> Vec<(String, u64)> {
    let mut inside = false;
    let mut rows = Vec::new();
    for line in paper.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            inside = title == section;
        }
        let Some((head, cell)) = line.trim_end_matches('|').rsplit_once('|').filter(|_| inside && line.starts_with('|')) else {
            continue;
        };
        if let Ok(minutes) = cell.trim().trim_matches('*').parse() {
            rows.push((head.to_owned(), minutes));
        }
    }
    rows
}

#[test]
fn the_toil_ledger_adds_up() {
    let ledger = text("toil-ledger.md");
    let total = |section: &str| {
        let rows = minutes(&ledger, section);
        let (sums, parts): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(head, _)| head.contains("**total**"));
        assert!(parts.len() > 1 && sums.len() == 1, "toil-ledger.md, {section}: {sums:?} of {parts:?}");
        assert_eq!(parts.iter().map(|(_, minutes)| minutes).sum::<u64>(), sums[0].1, "toil-ledger.md, {section}");
        sums[0].1
    };
    let (by_hand, with) = (total("A week of restarts by hand"), total("What is left with remediator"));
    let payback: Vec<u64> = minutes(&ledger, "Payback").into_iter().map(|(_, minutes)| minutes).collect();
    let [hand, rest, saved, once] = payback[..] else { panic!("toil-ledger.md, Payback: {payback:?}") };
    assert_eq!((hand, rest, saved), (by_hand, with, by_hand - with));
    let day = format!("on day {} of saving", (once * 7).div_ceil(saved));
    assert!(ledger.contains(&day), "toil-ledger.md does not break even {day}");
}

/// By the program itself, which is what a person would run.
#[test]
fn the_toil_ledger_is_what_the_program_makes_of_its_data_file() {
    let paper = text("toil-ledger.md");
    let (_, rest) = paper.split_once("<!-- remediator toil ").expect("toil-ledger.md: a marker");
    let (words, rest) = rest.split_once(" -->\n").expect("toil-ledger.md: the marker ends");
    let (tables, _) = rest.split_once("<!-- end -->").expect("toil-ledger.md: an end marker");
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_remediator"))
        .arg("toil")
        .args(words.split(' '))
        .current_dir(root())
        .output();
    let made = made.expect("it runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert!(tables == String::from_utf8_lossy(&made.stdout), "toil-ledger.md is not what the program says: run `make generated`");
    // What was not measured must not look as if it were.
    let labelled =
        tables.lines().filter(|line| line.contains("| measured |") || line.contains("| assumed (the lab's example) |"));
    assert!(labelled.count() >= 7 && tables.contains("**An example.**"), "a number has no origin");
}
