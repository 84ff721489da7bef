//! config/example.yml, the playbooks that we ship and the schemas say what the program says: every field, no other, each
//! explained, and a warning beside each dangerous one.

use std::collections::{BTreeMap, BTreeSet};

use remediator::config::{self, schema};
use serde_json::Value;

use super::validator::wrong;
use super::{root, text, yaml_files};

const EXAMPLE: &str = "config/example.yml";
const PLAYBOOK: &str = "playbooks/inventory-fd-leak.yml";

/// Fields that a playbook has instead of others: named in a comment.
const INSTEAD: [&str; 4] = ["every", "confirm.query", "confirm.above", "confirm.below"];

/// A field of a schema, or of a file.
#[derive(Debug, Default)]
struct Field {
    description: String,
    /// The comment lines right above it, in a file.
    comment: Vec<String>,
}

type Fields = BTreeMap<String, Field>;

/// Every field of a schema by its path, such as `guards.rate.per`; lists and choices are looked through.
fn fields_of(schema: &Value) -> Fields {
    fn walk(schema: &Value, path: &str, found: &mut Fields) {
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let description = schema["description"].as_str().unwrap_or_default().to_owned();
            found.insert(path.clone(), Field { description, ..Field::default() });
            walk(schema, &path, found);
        }
        if schema["items"].is_object() {
            walk(&schema["items"], path, found);
        }
        schema["oneOf"].as_array().into_iter().flatten().for_each(|choice| walk(choice, path, found));
    }
    let mut found = Fields::new();
    walk(schema, "", &mut found);
    found
}

/// Every field that a parsed file has, by the same paths.
fn paths_of(value: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        for (name, value) in value.as_object().into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            found.insert(path.clone());
            walk(value, &path, found);
        }
        value.as_array().into_iter().flatten().for_each(|value| walk(value, path, found));
    }
    let mut found = BTreeSet::new();
    walk(value, "", &mut found);
    found
}

/// Every field that a file has, with the comment right above it. Block style only, which our files keep to.
fn commented(text: &str) -> Fields {
    let key = regex::Regex::new(r"^( *)(- )?([a-z_]+):( |$)").expect("a pattern");
    let (mut open, mut comment, mut found) = (Vec::<(usize, String)>::new(), Vec::new(), Fields::new());
    for line in text.lines() {
        if let Some(remark) = line.trim().strip_prefix('#') {
            comment.push(remark.trim().to_owned());
            continue;
        }
        if let Some(key) = key.captures(line) {
            let indent = key[1].len() + key.get(2).map_or(0, |dash| dash.len());
            open.retain(|(outer, _)| *outer < indent);
            open.push((indent, key[3].to_owned()));
            let path: Vec<&str> = open.iter().map(|(_, name)| name.as_str()).collect();
            found.insert(path.join("."), Field { comment: comment.clone(), ..Field::default() });
        }
        comment.clear();
    }
    found
}

/// The example with everything switched on: `#name: value` becomes `name: value`.
fn switched_on(text: &str) -> String {
    let off = regex::Regex::new(r"(?m)^( *)#([a-z_]+:)").expect("a pattern");
    off.replace_all(text, "$1$2").into_owned()
}

fn yaml(what: &str, text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn names(fields: &Fields) -> BTreeSet<&str> {
    fields.keys().map(String::as_str).collect()
}

#[test]
fn the_schemas_are_those_of_the_program() {
    for (file, which, made) in [
        ("schema/playbook.schema.json", "playbook", schema::of_playbook()),
        ("schema/remediator.schema.json", "settings", schema::of_settings()),
    ] {
        assert!(text(file) == schema::text(&made), "{file} is not what the program says: remediator schema {which} > {file}");
    }
}

#[test]
fn every_field_of_a_schema_is_explained() {
    for schema in [schema::of_playbook(), schema::of_settings()] {
        for (path, field) in fields_of(&schema) {
            assert!(field.description.len() > 15, "{path}: write a doc comment on the typed field: editors show it");
        }
    }
}

#[test]
fn the_example_names_every_setting_and_no_other() {
    let on = switched_on(&text(EXAMPLE));
    let (schema, written) = (fields_of(&schema::of_settings()), commented(&on));
    assert_eq!(paths_of(&yaml(EXAMPLE, &on)), written.keys().cloned().collect(), "{EXAMPLE}: write it in block style");
    let (schema, written) = (names(&schema), names(&written));
    let missing: Vec<_> = schema.difference(&written).collect();
    let sentence = "add each, with a comment: default, unit, what happens when it is wrong";
    assert!(missing.is_empty(), "{EXAMPLE} does not show the settings {missing:?}: {sentence}");
    let unknown: Vec<_> = written.difference(&schema).collect();
    assert!(unknown.is_empty(), "{EXAMPLE} shows {unknown:?}, which are no settings");
}

#[test]
fn the_shipped_playbook_names_every_field_and_no_other() {
    let shipped = text(PLAYBOOK);
    let (schema, written) = (fields_of(&schema::of_playbook()), commented(&shipped));
    let comments: String = shipped.lines().filter(|line| line.trim().starts_with('#')).collect();
    for path in names(&schema).difference(&names(&written)) {
        let name = path.rsplit('.').next().expect("a name");
        let mentioned = comments.contains(&format!("{name}:")) || comments.contains(&format!("`{name}`"));
        assert!(INSTEAD.contains(path) && mentioned, "{PLAYBOOK} does not show {path}: add it, with a comment");
    }
    for path in paths_of(&yaml(PLAYBOOK, &shipped)) {
        assert!(schema.contains_key(&path), "{PLAYBOOK} shows {path}, which no playbook has");
        assert!(path == "steps.readmit" || written.contains_key(&path), "{PLAYBOOK}: write {path} in block style");
    }
}

#[test]
fn a_warning_stands_above_every_dangerous_field_and_a_comment_above_every_other() {
    let mut warned = 0;
    for (file, schema, written) in [
        (EXAMPLE, schema::of_settings(), commented(&switched_on(&text(EXAMPLE)))),
        (PLAYBOOK, schema::of_playbook(), commented(&text(PLAYBOOK))),
    ] {
        let schema = fields_of(&schema);
        for (path, field) in &written {
            let dangerous = schema.get(path).unwrap_or_else(|| panic!("{file}: {path}")).description.contains("\n\nWARNING: ");
            let warns = field.comment.iter().any(|line| line.starts_with("WARNING: "));
            assert!(warns || !dangerous, "{file}: {path} is dangerous: put a line `# WARNING: ...` into the comment above it");
            assert!(dangerous || !warns, "{file}: {path} has a warning that its doc comment in typed.rs has not");
            warned += usize::from(warns);
            let inner = written.keys().any(|other| other.starts_with(&format!("{path}.")));
            assert!(inner || path == "recovered.query" || !field.comment.is_empty(), "{file}: {path} has no comment");
        }
    }
    assert!(warned > 25, "only {warned} warnings");
    // What an on-call engineer would call dangerous without having read our sources.
    let (settings, playbook) = (fields_of(&schema::of_settings()), fields_of(&schema::of_playbook()));
    for path in ["listen", "docker.restart", "limits.fleet", "limits.fleet.burst", "start_paused", "tokens.operator"] {
        assert!(settings[path].description.contains("WARNING"), "{path} needs a warning");
    }
    for path in [
        "mode",
        "guards.blast_radius.min_healthy",
        "guards.blast_radius.max_unhealthy",
        "guards.blast_radius.max_in_flight",
        "guards.cooldown",
        "guards.start_grace",
        "guards.breaker.failures",
        "steps.drain.on_timeout",
        "evidence.required",
        "recovered.below",
    ] {
        assert!(playbook[path].description.contains("WARNING"), "{path} needs a warning");
    }
}

#[test]
fn the_example_loads_as_it_stands_and_with_everything_switched_on() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("playbooks")).expect("a folder");
    for file in yaml_files("playbooks") {
        std::fs::copy(&file, folder.path().join("playbooks").join(file.file_name().expect("a name"))).expect("copied");
    }
    let load = |text: &str| {
        let file = folder.path().join("remediator.yml");
        std::fs::write(&file, text).expect("written");
        config::load(&file)
    };
    let config = load(&text(EXAMPLE)).unwrap_or_else(|errors| panic!("{EXAMPLE}: {errors:?}"));
    assert_eq!(config.warnings, Vec::new());
    assert!(config.settings.listen.ip().is_loopback() && !config.settings.start_paused);

    let errors = load(&switched_on(&text(EXAMPLE))).err().unwrap_or_default();
    for error in &errors {
        assert!(error.what.contains("cannot be read"), "{EXAMPLE}, switched on: {error}");
    }
    // A default that the example shows is the program's: switched on, nothing changes but what has none.
    let needs_files = [
        "#tokens:",
        "  #receiver:",
        "  #reader:",
        "  #operator:",
        "#tls:",
        "  #certificate:",
        "  #key:",
        "  #client_ca:",
        "  #textfile:",
    ];
    let fileless = needs_files.iter().fold(text(EXAMPLE), |text, line| {
        assert!(text.contains(line), "{EXAMPLE} has no {line}");
        text.replace(line, &line.replace('#', "# "))
    });
    let on = load(&switched_on(&fileless)).unwrap_or_else(|errors| panic!("{EXAMPLE}, switched on: {errors:?}")).settings;
    let off = config.settings;
    assert_eq!(format!("{:?}", on.limits), format!("{:?}", off.limits));
    assert_eq!(format!("{:?}", on.pages), format!("{:?}", off.pages));
    assert_eq!((&on.retention, &on.heartbeat, &on.watchdog), (&off.retention, &off.heartbeat, &off.watchdog));
    assert_eq!(
        (on.listen, on.external_url, on.start_paused, on.log.format),
        (off.listen, off.external_url, off.start_paused, off.log.format)
    );
    assert_eq!(
        (on.prometheus.timeout, on.alertmanager.timeout, on.docker.timeout, on.haproxy.timeout),
        (off.prometheus.timeout, off.alertmanager.timeout, off.docker.timeout, off.haproxy.timeout)
    );
}

#[test]
fn editors_find_the_schema_in_the_first_line() {
    let mut files: Vec<(String, &str)> = vec![(EXAMPLE.to_owned(), "schema/remediator.schema.json")];
    files.extend(
        yaml_files("playbooks")
            .iter()
            .map(|file| (file.strip_prefix(root()).expect("ours").display().to_string(), "schema/playbook.schema.json")),
    );
    for (file, schema) in files {
        let text = text(&file);
        let named = text.lines().next().and_then(|line| line.strip_prefix("# yaml-language-server: $schema="));
        let named = named.unwrap_or_else(|| panic!("{file}: the first line names no schema"));
        let there = root().join(&file).parent().expect("a folder").join(named).canonicalize();
        assert_eq!(there.ok(), root().join(schema).canonicalize().ok(), "{file}: {named}");
    }
}

#[test]
fn what_we_ship_is_valid() {
    let settings = schema::of_settings();
    for (what, text) in [
        (EXAMPLE, text(EXAMPLE)),
        ("switched on", switched_on(&text(EXAMPLE))),
        ("lab/remediator.yml", text("lab/remediator.yml")),
    ] {
        assert_eq!(wrong(&settings, &yaml(what, &text)), Vec::<String>::new(), "{what}");
    }
    for file in yaml_files("playbooks") {
        let text = std::fs::read_to_string(&file).expect("readable");
        assert_eq!(wrong(&schema::of_playbook(), &yaml("a playbook", &text)), Vec::<String>::new(), "{}", file.display());
    }
}

/// The shipped playbook with one change.
fn changed(before: &str, after: &str) -> String {
    let shipped = text(PLAYBOOK);
    assert!(shipped.contains(before), "{before} is not in {PLAYBOOK}");
    shipped.replace(before, after)
}

fn is_taken(playbook: &str) -> bool {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), playbook).expect("written");
    config::load_playbooks(file.path()).is_ok()
}

#[test]
fn what_the_program_refuses_is_underlined() {
    let schema = schema::of_playbook();
    for (before, after, want) in [
        ("\nmode: shadow", "\nmode: shadow\ncolour: red", "unknown field colour"),
        ("    failures: 3", "    failures: 3\n    after: 1", "unknown field after"),
        ("failures: 3", "failures: three", "is not of type"),
        ("failures: 3", "failures: 65", "65 is over 64"),
        ("min_healthy: 2", "min_healthy: -1", "-1 is under 0"),
        ("burst: 3", "burst: 0", "0 is under 1"),
        ("max_unhealthy: 67%", "max_unhealthy: 101%", "does not match"),
        ("max_unhealthy: 67%", "max_unhealthy: 0", "0 is under 1"),
        ("cooldown: 5m", "cooldown: 5", "5 is over 0"),
        ("cooldown: 5m", "cooldown: 5 minutes", "does not match"),
        ("6 per 1h", "often", "does not match"),
        ("logs: 100", "logs: 1001", "1001 is over 1000"),
        ("required: true", "required: 1", "is not of type"),
        ("on_timeout: abort", "on_timeout: panic", "does not fit exactly one"),
        ("\nmode: shadow", "\nmode: on", "does not fit exactly one"),
        ("  - readmit\n", "", "has too few"),
        ("  - readmit\n", "  - reboot\n", "does not fit"),
        ("service: inventory\n", "service: [inventory]\n", "is not of type"),
        ("match: ['", "matches: ['", "fits none of the choices"),
        ("inputs: [process_open_fds, process_max_fds, up]", "above: 1", "does not fit exactly one"),
        ("  veto: []", "  query: up{$target}", "does not fit exactly one"),
        ("  blast_radius:", "  radius:", "blast_radius is missing"),
        ("  breaker:", "  fuse:", "breaker is missing"),
        ("  rate:", "  pace:", "rate is missing"),
        ("recovered:", "after:", "recovered is missing"),
    ] {
        let playbook = changed(before, after);
        let found = wrong(&schema, &yaml(after, &playbook));
        assert!(found.iter().any(|found| found.contains(want)), "{after}: {found:?}");
        assert!(!is_taken(&playbook), "{after}: underlined, and taken by the program");
    }
}

#[test]
fn what_the_program_takes_is_not_underlined() {
    let schema = schema::of_playbook();
    for (before, after) in [
        ("failures: 3", "failures: 64"),
        ("min_healthy: 2", "min_healthy: 0"),
        ("max_unhealthy: 67%", "max_unhealthy: 2"),
        ("max_unhealthy: 67%", "max_unhealthy: '2'"),
        ("max_unhealthy: 67%", "max_unhealthy: 100%"),
        ("max_unhealthy: 67%", "max_unhealthy: 7 %"),
        ("cooldown: 5m", "cooldown: 0"),
        ("cooldown: 5m", "cooldown: 1h30m"),
        ("settle: 10s", "settle: 1333ms"),
        ("[6 per 1h, 12 per 1d]", "[]"),
        ("[6 per 1h, 12 per 1d]", "['10 per 1h30m']"),
        ("below: 0.3", "below: 1"),
        ("\nmode: shadow", "\nmode: live"),
        ("\nmode: shadow", ""),
        ("  replica: instance", "  # nothing"),
        ("match: ['", "every: 60s\n# ['"),
        ("inputs: [process_open_fds, process_max_fds, up]", "query: up{$target}\n  below: 1"),
    ] {
        let mut playbook = changed(before, after);
        if after.starts_with("every") {
            playbook = playbook.replace("inputs: [process_open_fds, process_max_fds, up]", "query: up{$target}\n  below: 1");
        }
        assert!(is_taken(&playbook), "{after}: the program does not take it");
        assert_eq!(wrong(&schema, &yaml(after, &playbook)), Vec::<String>::new(), "{after}");
    }
    // The one exception: a field without a value is a default to the program, and nobody means it.
    for (before, after) in [("  - readmit\n", "  - readmit:\n"), ("cooldown: 5m", "cooldown:"), ("\nmode: shadow", "\nmode:")] {
        let playbook = changed(before, after);
        assert!(is_taken(&playbook) && !wrong(&schema, &yaml(after, &playbook)).is_empty(), "{after}");
    }
}
