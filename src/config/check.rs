//! The configuration held against the world: what `remediator check` adds to reading the files.
//!
//! What it promises: whoever passes has playbooks that *can* work here. Prometheus has the rules they wait for and
//! scrapes fast enough for them; the service has opted-in containers, each exactly one server that the balancer checks;
//! both doors to the Engine answer, and the restart door refuses what it must; somebody can be paged. Only asks, never
//! changes anything, and tells all findings, not the first.
//!
//! What it cannot see: a rule whose windows grow with a variable, samples that a scrape loses, tomorrow's containers.

use std::collections::BTreeSet;
use std::fmt;

use super::{Config, Origin, Place};
use crate::alert::{LabelSet, MatchOp, Matcher};
use crate::decide::playbook::{Confirm, Playbook};
use crate::edge::promql;
use crate::period::Period;
use crate::target::{self, Instance, LABEL_ENABLE, LABEL_INSTANCE, LABEL_SERVICE, Target};
use crate::words;
use crate::world::{AlertingRule, ContainerSummary, ScrapeTarget, Server, World};

/// How bad a finding is: an error refuses, a warning tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// One thing found. Prints as `error: playbooks/x.yml:12:7: <sentence>.`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub file: String,
    /// None when no line of the file is to blame.
    pub place: Option<Place>,
    pub sentence: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{word}: ")?;
        super::visible(f, &self.file)?;
        if let Some(place) = self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        f.write_str(": ")?;
        super::visible(f, &self.sentence)?;
        f.write_str(".")
    }
}

/// What the world answered, once for all playbooks. None: it did not, which is a finding already.
struct Seen {
    rules: Option<Vec<AlertingRule>>,
    scrapes: Option<Vec<ScrapeTarget>>,
    containers: Option<Vec<ContainerSummary>>,
    servers: Option<Vec<Server>>,
}

/// Findings about one playbook, at its places.
struct Notes<'a> {
    origin: &'a Origin,
    found: Vec<Finding>,
}

/// Holds the configuration against the world. `file` is the settings file, for what is found there.
pub async fn check_against(world: &World, file: &str, config: &Config) -> Vec<Finding> {
    let (seen, mut found) = look(world, file).await;
    for (playbook, origin) in config.playbooks.iter().zip(&config.origins) {
        let mut notes = Notes { origin, found: Vec::new() };
        let instances = check_replicas(world, playbook, &seen, &mut notes).await;
        check_rules(playbook, &seen, instances.as_ref(), &mut notes);
        found.extend(notes.found);
    }
    found.sort_by_key(|finding| finding.severity);
    found
}

async fn look(world: &World, file: &str) -> (Seen, Vec<Finding>) {
    let mut found = Vec::new();
    let mut wrong = |sentence: String| {
        found.push(Finding { severity: Severity::Error, file: file.to_owned(), place: None, sentence });
    };
    let rules = world.metrics.alerting_rules().await;
    let rules = rules.map_err(|why| wrong(format!("Prometheus does not list its rules: {why}"))).ok();
    let scrapes = world.metrics.scrape_targets().await;
    let scrapes = scrapes.map_err(|why| wrong(format!("Prometheus does not list its targets: {why}"))).ok();
    let containers = match world.engine.ping().await {
        Err(why) => Err(why),
        Ok(()) => world.engine.containers().await,
    };
    let containers = containers.map_err(|why| wrong(format!("Docker does not answer at the read door: {why}"))).ok();
    match world.engine.forbidden_call_is_refused().await {
        Ok(true) => {}
        Ok(false) => {
            wrong("Docker's restart door passes a call that it must refuse, so whoever reaches it is root on the host".to_owned())
        }
        Err(why) => wrong(format!("Docker's restart door could not be tried with a forbidden call: {why}")),
    }
    let servers = world.balancer.servers().await;
    let servers = servers.map_err(|why| wrong(format!("HAProxy does not list its servers: {why}"))).ok();
    if let Err(why) = world.pager.silences(&LabelSet::default()).await {
        wrong(format!("no Alertmanager answers, so nobody could be paged: {why}"));
    }
    (Seen { rules, scrapes, containers, servers }, found)
}

/// Every opted-in container must be one replica. Returns the instances found, if Docker could be asked.
async fn check_replicas(world: &World, playbook: &Playbook, seen: &Seen, notes: &mut Notes<'_>) -> Option<BTreeSet<String>> {
    let all = seen.containers.as_ref()?;
    let service = &playbook.service;
    let place = notes.origin.service;
    let ours = target::of_service(all, service);
    if ours.is_empty() {
        notes.error(
            place,
            format!(
                "no container is labelled {LABEL_ENABLE}=true and {LABEL_SERVICE}={service}, \
                 and an empty selector selects nothing"
            ),
        );
    }
    let mut instances = BTreeSet::new();
    for summary in &ours {
        let Some(instance) = summary.labels.get(LABEL_INSTANCE) else {
            notes.error(place, format!("container {} has no label {LABEL_INSTANCE}, so no alert can name it", summary.name));
            continue;
        };
        let target = match instance.parse::<Instance>() {
            Ok(instance) => Target { service: service.clone(), instance },
            Err(why) => {
                notes.error(place, format!("label {LABEL_INSTANCE} of container {}: {why}", summary.name));
                continue;
            }
        };
        if !instances.insert(instance.clone()) {
            let many = target::pick(all, &target).err().map(|why| why.to_string()).unwrap_or_default();
            notes.error(place, format!("{many}; remove those that should not be there, or say with docker.only which are ours"));
            continue;
        }
        check_replica(world, playbook, &target, summary, seen, notes).await;
    }
    check_radius(playbook, ours.len(), notes);
    Some(instances)
}

async fn check_replica(
    world: &World,
    playbook: &Playbook,
    target: &Target,
    summary: &ContainerSummary,
    seen: &Seen,
    notes: &mut Notes<'_>,
) {
    let place = notes.origin.service;
    let (Some(all), Some(servers)) = (&seen.containers, &seen.servers) else { return };
    let container = match world.engine.inspect(&summary.id).await {
        Ok(container) => container,
        Err(why) => return notes.error(place, format!("container {} could not be inspected: {why}", summary.name)),
    };
    if !container.running {
        // Its addresses are gone with its network, so nothing can be said about the balancer's.
        return notes
            .warning(place, format!("container {} is {}, so its server could not be checked", container.name, container.status));
    }
    let resolve = if playbook.infrastructure { target::resolve_any } else { target::resolve };
    match resolve(target, &container, all, servers) {
        Err(why) => notes.error(place, why.to_string()),
        Ok(replica) if !replica.server.checked => notes.error(
            place,
            format!(
                "the balancer does not check the health of {}, so readmitting it would be a guess; \
                 add `check` to its server line",
                replica.server.path
            ),
        ),
        Ok(_) => {}
    }
}

/// A limit that can never be met makes a playbook that never acts.
fn check_radius(playbook: &Playbook, replicas: usize, notes: &mut Notes<'_>) {
    let radius = &playbook.guards.blast_radius;
    let place = notes.origin.blast_radius;
    let service = &playbook.service;
    if replicas == 0 {
        return;
    }
    if radius.min_healthy as usize >= replicas {
        notes.warning(
            place,
            format!(
                "{service} has {replicas} replicas, so at most {} others can serve while one is out \
                 and min_healthy {} refuses every time",
                replicas - 1,
                radius.min_healthy
            ),
        );
    }
    if !radius.max_unhealthy.allows(1, replicas) {
        notes.warning(
            place,
            format!(
                "one sick replica of {replicas} is more than max_unhealthy {}, so it refuses every time",
                radius.max_unhealthy
            ),
        );
    }
}

/// The rules exist, and the scrape is fast enough for them and for the recovery query.
fn check_rules(playbook: &Playbook, seen: &Seen, instances: Option<&BTreeSet<String>>, notes: &mut Notes<'_>) {
    let slowest = seen.scrapes.as_ref().and_then(|scrapes| slowest_scrape(playbook, scrapes, instances, notes));
    if let Some(rules) = &seen.rules {
        for rule in matched_rules(playbook, rules, notes) {
            if rule.health == "err" {
                notes.warning(notes.origin.matchers, format!("Prometheus could not evaluate rule {} last time", rule.name));
            }
            let Some(interval) = slowest else { continue };
            for (window, samples) in promql::sample_demands(&rule.query) {
                // A range is left-open, so this many samples are in it at the least; the allowance is for 0.6 / 0.2.
                if (window / interval + 1e-6).floor() < samples {
                    notes.error(
                        notes.origin.matchers,
                        format!(
                            "Prometheus scrapes {} every {}; rule {} needs {samples} samples in {}, \
                             i.e. a scrape of {} or faster",
                            playbook.service,
                            seconds(interval),
                            rule.name,
                            seconds(window),
                            seconds(window / samples),
                        ),
                    );
                }
            }
        }
    }
    if let Some(interval) = slowest {
        let spec = &playbook.recovered;
        let needed = spec.settle.as_secs_f64() + (f64::from(spec.looks) + 1.0) * interval;
        if spec.within.as_secs_f64() < needed {
            notes.error(
                notes.origin.within,
                format!(
                    "recovered.within ({}) is too short: settle {} and {} looks, with one scrape to spare, \
                     at a scrape of {} take {}",
                    spec.within,
                    spec.settle,
                    spec.looks,
                    seconds(interval),
                    seconds(needed),
                ),
            );
        }
    }
}

/// The slowest scrape interval of the service's replicas, in seconds.
fn slowest_scrape(
    playbook: &Playbook,
    scrapes: &[ScrapeTarget],
    instances: Option<&BTreeSet<String>>,
    notes: &mut Notes<'_>,
) -> Option<f64> {
    let instances = instances.filter(|instances| !instances.is_empty())?;
    let label = &playbook.replica_label;
    let of = |instance: &str| {
        let instance = instance.to_owned();
        scrapes.iter().filter(move |scrape| scrape.labels.get(label) == Some(&instance))
    };
    let unseen: Vec<&str> = instances.iter().map(String::as_str).filter(|instance| of(instance).next().is_none()).collect();
    if unseen.len() == instances.len() {
        notes.error(
            notes.origin.service,
            format!(
                "Prometheus scrapes no target whose label {label} is the {LABEL_INSTANCE} of a container of {}",
                playbook.service
            ),
        );
    } else if !unseen.is_empty() {
        notes.warning(
            notes.origin.service,
            format!(
                "Prometheus does not scrape {} of {}, so nothing could be confirmed there",
                unseen.join(", "),
                playbook.service
            ),
        );
    }
    instances.iter().flat_map(|instance| of(instance)).map(|scrape| scrape.interval_seconds).filter(|s| *s > 0.0).reduce(f64::max)
}

/// The alerting rules that the playbook's `alertname` matchers name, and a finding for those that they name in vain.
fn matched_rules<'r>(playbook: &Playbook, rules: &'r [AlertingRule], notes: &mut Notes<'_>) -> Vec<&'r AlertingRule> {
    let place = notes.origin.matchers;
    let names: Vec<&Matcher> = playbook.matchers.iter().filter(|matcher| matcher.name == "alertname").collect();
    if names.is_empty() {
        notes.warning(place, "no matcher names an alert, so the rules behind this playbook cannot be checked".to_owned());
        return Vec::new();
    }
    let named = |rule: &AlertingRule| {
        let labels = LabelSet::from([("alertname", rule.name.as_str())]);
        names.iter().all(|matcher| matcher.matches(&labels))
    };
    let found: Vec<&AlertingRule> = rules.iter().filter(|rule| named(rule)).collect();
    let shown = names.iter().map(|matcher| matcher.to_string()).collect::<Vec<_>>().join(", ");
    match (found.is_empty(), &playbook.confirm) {
        (true, Confirm::Rule { .. }) => notes.error(place, format!("Prometheus has no alerting rule that matches {shown}")),
        (true, Confirm::Query { .. }) => notes.warning(place, format!("Prometheus has no alerting rule that matches {shown}")),
        (false, _) => {
            for name in names.iter().flat_map(|matcher| alternatives(matcher)) {
                if !rules.iter().any(|rule| rule.name == name) {
                    notes.warning(place, format!("Prometheus has no alerting rule {name}"));
                }
            }
        }
    }
    found
}

/// The names in `alertname="A"` and `alertname=~"A|B|C"`; none when the expression says more than that.
fn alternatives(matcher: &Matcher) -> Vec<&str> {
    match matcher.op {
        MatchOp::Equal => vec![&matcher.value],
        MatchOp::Regex if matcher.value.chars().all(|c| promql::word(c) || c == '|') => matcher.value.split('|').collect(),
        _ => Vec::new(),
    }
}

fn seconds(seconds: f64) -> String {
    let millis = (seconds * 1000.0).floor().max(0.0) as u64;
    if millis.is_multiple_of(1000) {
        Period::from_millis(millis).to_string()
    } else {
        format!("{}s", words::number(millis as f64 / 1000.0))
    }
}

impl Notes<'_> {
    fn error(&mut self, place: Place, sentence: String) {
        self.push(Severity::Error, place, sentence);
    }

    fn warning(&mut self, place: Place, sentence: String) {
        self.push(Severity::Warning, place, sentence);
    }

    fn push(&mut self, severity: Severity, place: Place, sentence: String) {
        self.found.push(Finding { severity, file: self.origin.file.clone(), place: Some(place), sentence });
    }
}

#[cfg(test)]
mod tests;
