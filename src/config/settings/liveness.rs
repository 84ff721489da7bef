//! `heartbeat:` and `watchdog:`: how somebody else notices that we are dead, and we that nobody reaches us.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::alert::{LabelSet, MatchOp};
use crate::config::schema::Duration;
use crate::config::sheet::{At, Sheet};
use crate::config::{ConfigError, Finding, Origin, Severity};
use crate::decide::playbook::{HEARTBEAT, Playbook};
use crate::detect::watchdog::{ALERTNAME, WITHIN};
use crate::heartbeat::{EVERY, SLOWEST};
use crate::period::Period;

/// The synthetic alert's walk.
#[derive(Debug, PartialEq)]
pub struct Heartbeat {
    pub every: Period,
    /// The file for node_exporter's textfile collector; its name ends in `.prom`.
    pub textfile: Option<PathBuf>,
}

/// The dead-man's switch.
#[derive(Debug, PartialEq)]
pub struct Watchdog {
    /// The always-firing alert's name; none when nothing is listened for.
    pub alertname: Option<String>,
    /// How long its absence is no news.
    pub within: Period,
}

/// The synthetic alert that proves that the pipeline decides.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeartbeatTyped {
    /// How often it walks. Default: 30s; at most 45s, for the sake of systemd's watchdog.
    #[schemars(with = "Option<Duration>")]
    pub every: Option<At<String>>,
    /// A file for node_exporter's textfile collector, written anew at each walk; its name ends in .prom. Default: none.
    #[schemars(regex(pattern = r"\.prom$"))]
    pub textfile: Option<At<String>>,
}

/// The always-firing alert that proves that alerts reach us.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WatchdogTyped {
    /// Its name; an empty one turns it off. Default: Watchdog.
    ///
    /// WARNING: an alert of this name is heard and nothing more: never give it the name of an alert that somebody must act on.
    pub alertname: Option<At<String>>,
    /// How long its absence is no news. Default: 10m.
    #[schemars(with = "Option<Duration>")]
    pub within: Option<At<String>>,
}

pub fn heartbeat(sheet: &mut Sheet, typed: &HeartbeatTyped) -> Heartbeat {
    let every = sheet.some_period("heartbeat.every", typed.every.as_ref(), EVERY);
    if let Some(at) = typed.every.as_ref()
        && every > SLOWEST
    {
        let what = format!("heartbeat.every is {every}, and a single one lost would be too many for systemd's watchdog of 2m");
        sheet.wrong(at.referenced, what, format!("Write {SLOWEST} or less"));
    }
    let textfile = typed.textfile.as_ref().map(|at| {
        let path = sheet.folder.join(&at.value);
        if path.extension().is_none_or(|extension| extension != "prom") || path.file_stem().is_none() {
            let what = format!("`{}` is no file that node_exporter reads", crate::edge::redact::plain_line(&at.value, 200));
            sheet.wrong(at.referenced, what, "Name a file that ends in .prom, in the folder of its textfile collector");
        }
        path
    });
    Heartbeat { every, textfile }
}

/// Set to the empty name it is off.
pub fn watchdog(sheet: &mut Sheet, typed: &WatchdogTyped) -> Watchdog {
    let within = sheet.some_period("watchdog.within", typed.within.as_ref(), WITHIN);
    if let Some(at) = typed.alertname.as_ref().filter(|at| at.value == HEARTBEAT) {
        sheet.wrong(at.referenced, format!("{HEARTBEAT} is the name of our own heartbeat"), "Name the always-firing alert");
    }
    let alertname = typed.alertname.as_ref().map_or(ALERTNAME, |at| at.value.as_str());
    Watchdog { alertname: Some(alertname.to_owned()).filter(|name| !name.is_empty()), within }
}

/// What a playbook may not be written for: these alerts never reach one.
pub fn reserved(watchdog: &Watchdog, playbook: &Playbook, origin: &Origin) -> (Option<ConfigError>, Option<Finding>) {
    let names = [Some(HEARTBEAT), watchdog.alertname.as_deref()].into_iter().flatten();
    for name in names {
        let labels = LabelSet::from([("alertname", name)]);
        let mut by_name = playbook.matchers.iter().filter(|matcher| matcher.name == "alertname" && matcher.matches(&labels));
        let what = || format!("playbook {} matches {name}, which no playbook ever gets", playbook.name);
        match by_name.next().map(|matcher| matcher.op) {
            Some(MatchOp::Equal) => {
                let help = "That name is the heartbeat's, or the one of `watchdog.alertname` in the settings; name another alert";
                let (file, place) = (origin.file.clone(), Some(origin.matchers));
                return (Some(ConfigError { file, place, what: what(), help: help.to_owned() }), None);
            }
            Some(_) => {
                let (file, place) = (origin.file.clone(), Some(origin.matchers));
                return (None, Some(Finding { severity: Severity::Warning, file, place, sentence: what() }));
            }
            None => {}
        }
    }
    (None, None)
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{SETTINGS, SKETCH, folder, loaded};

    /// Settings with these lines more; the playbook with this matcher.
    fn said(lines: &str, matcher: &str) -> Result<(crate::config::Config, Vec<String>), Vec<String>> {
        let playbook = SKETCH.replace("'alertname=~\"FdLeakFast|FdLeakSustained|FdLeakSlow|FdExhausted\"'", matcher);
        assert!(playbook.contains(matcher));
        let folder = folder(&format!("{SETTINGS}{lines}"), &[("x.yml", &playbook)]);
        let config = loaded(folder.path())?;
        let warnings = config.warnings.iter().map(|finding| finding.sentence.clone()).collect();
        Ok((config, warnings))
    }

    #[test]
    fn what_is_written_is_taken() {
        let lines = "heartbeat: { every: 4s, textfile: beats/r.prom }\nwatchdog: { alertname: AlwaysOn, within: 80s }\n";
        let (config, warnings) = said(lines, "'alertname=\"FdLeakFast\"'").expect("good");
        let (heartbeat, watchdog) = (config.settings.heartbeat, config.settings.watchdog);
        assert_eq!(heartbeat.every.to_string(), "4s");
        assert!(heartbeat.textfile.is_some_and(|file| file.is_absolute() && file.ends_with("beats/r.prom")));
        assert_eq!((watchdog.alertname.as_deref(), watchdog.within.to_string().as_str()), (Some("AlwaysOn"), "1m20s"));
        assert!(warnings.is_empty(), "{warnings:?}");
        let (config, _) = said("watchdog: { alertname: '' }\n", "'alertname=\"Watchdog\"'").expect("off, so the name is free");
        assert_eq!(config.settings.watchdog.alertname, None);
    }

    #[test]
    fn what_would_not_work_is_refused() {
        let fine = "'alertname=\"FdLeakFast\"'";
        for (lines, matcher, want) in [
            ("heartbeat: { every: 46s }\n", fine, "remediator.yml:7:21: heartbeat.every is 46s"),
            ("heartbeat: { every: 0s }\n", fine, "heartbeat.every is 0"),
            ("heartbeat: { textfile: /x/remediator.txt }\n", fine, "is no file that node_exporter reads"),
            ("watchdog: { within: 0s }\n", fine, "watchdog.within is 0"),
            ("watchdog: { alertname: RemediatorHeartbeat }\n", fine, "our own heartbeat"),
            (
                "",
                "'alertname=\"Watchdog\"'",
                "playbooks/x.yml:2:8: playbook inventory-fd-leak matches Watchdog, which no playbook ever gets",
            ),
            ("", "'alertname=\"RemediatorHeartbeat\"'", "matches RemediatorHeartbeat"),
        ] {
            let errors = said(lines, matcher).expect_err(lines).join("\n");
            assert!(errors.contains(want), "{errors}");
        }
        let (_, warnings) = said("", "'alertname=~\".+\"'").expect("broad, and allowed");
        assert!(warnings[0].contains("which no playbook ever gets"), "{warnings:?}");
    }
}
