//! Playbook files: as typed, then checked into [`Playbook`].
//!
//! The schema is DESIGN §6's. `steps` may only be drain, restart, healthy, readmit, in this order: a plan leaves no
//! choice, and the list is written out so that a reader sees what will happen. Blast radius, rate and breaker have no
//! defaults, because nobody should run with limits that nobody has thought about.

mod typed;

use serde_saphyr::Location;

use super::Origin;
use super::sheet::{At, Sheet, place};
use crate::alert::{LabelSet, Matcher};
use crate::decide::playbook::{
    BlastRadius, BreakerSpec, Budget, Confirm, DrainSpec, EvidenceSpec, Guards, Mode, OnTimeout, Playbook, RecoverySpec, Share,
    Threshold,
};
use crate::edge::promql::{self, Template};
use crate::guard::ledger::MAX_RUNS;
use crate::period::Period;
use typed::{ConfirmTyped, EvidenceTyped, GuardsTyped, RadiusTyped, RecoveredTyped, StepTyped};

pub(super) use typed::Typed;

/// The restart door passes `t` of up to three digits.
const MAX_GRACE: Period = Period::from_secs(999);

/// Prometheus learns nothing new between two scrapes; one second is the shortest scrape that anybody uses.
const SHORTEST_POLL: Period = Period::from_secs(1);

/// Most log lines kept as evidence: at 2,000 bytes a line this is 2 MB in a record.
const MAX_LOGS: u32 = 1_000;

/// The playbooks of a file; what is wrong goes into the sheet.
pub(super) fn read(sheet: &mut Sheet) -> Vec<(Playbook, Origin)> {
    let documents = sheet.documents::<Typed>();
    if documents.is_empty() && sheet.errors.is_empty() {
        sheet.wrong_file("holds no playbook", "Write one, or take the file out of `playbooks`");
    }
    documents.into_iter().filter_map(|typed| checked(sheet, &typed)).collect()
}

fn checked(sheet: &mut Sheet, document: &At<Typed>) -> Option<(Playbook, Origin)> {
    let (typed, at) = (&document.value, document.value.playbook.referenced);
    let name = sheet.parsed(&typed.playbook);
    let every = typed.every.as_ref().map(|text| sheet.some_period("every", Some(text), SHORTEST_POLL));
    let matchers = match (&typed.matchers, every) {
        // Nobody wrote an alert for it: it is looked for, not delivered.
        (None, Some(_)) => Some((Vec::new(), at)),
        (list, _) => sheet
            .required(at, list, "match", "Say which alerts it is for, or with `every` how often to look")
            .map(|list| (matchers(sheet, list), list.referenced)),
    };
    let target = sheet.required(at, &typed.target, "target", "Say which service it is for").map(|typed| {
        let replica = typed.replica.as_ref().map_or("instance", |at| at.value.as_str());
        if let Some(at) = &typed.replica {
            let checked = promql::check_label(replica);
            sheet.query(at, checked);
        }
        (sheet.parsed(&typed.service), replica.to_owned(), typed.service.referenced)
    });
    let infrastructure = infrastructure(sheet, typed);
    let confirm = sheet
        .required(at, &typed.confirm, "confirm", "Write at least confirm: { inputs: [the metrics that the rule reads] }")
        .map(|typed| confirm(sheet, typed));
    let steps = sheet.required(at, &typed.steps, "steps", ORDER).map(|list| steps(sheet, list));
    let recovered = sheet
        .required(at, &typed.recovered, "recovered", "A rule that turns false proves nothing; write a recovery query")
        .map(|typed| (recovered(sheet, typed), typed.within.referenced));
    let guards = sheet
        .required(at, &typed.guards, "guards", "Every playbook must declare blast_radius, rate and breaker")
        .map(|typed| guards(sheet, typed));
    let evidence = evidence(sheet, &typed.evidence);
    poll(sheet, typed, every);

    let (matchers, matchers_at) = matchers?;
    let (service, replica_label, service_at) = target?;
    let (confirm, veto) = confirm?;
    let (drain, restart_grace_seconds, healthy_within) = steps??;
    let (recovered, within_at) = recovered?;
    let (guards, radius_at) = guards??;
    let origin = Origin {
        file: sheet.file.clone(),
        name: place(at),
        matchers: place(matchers_at),
        service: place(service_at),
        within: place(within_at),
        blast_radius: place(radius_at),
    };
    let playbook = Playbook {
        name: name?,
        matchers,
        every,
        service: service?,
        replica_label,
        infrastructure,
        confirm: confirm?,
        veto,
        evidence,
        drain,
        restart_grace_seconds,
        healthy_within,
        recovered,
        guards,
        mode: typed.mode.unwrap_or(Mode::Shadow),
    };
    Some((playbook, origin))
}

/// Nobody restarts Prometheus or remediator itself by a slip: it takes this word, and every check says so again.
fn infrastructure(sheet: &mut Sheet, typed: &Typed) -> bool {
    let said = typed.target.as_ref().and_then(|target| target.infrastructure.as_ref()).filter(|said| said.value);
    if let Some(said) = said {
        let sentence = "infrastructure is true: parts of what remediator stands on (itself, Prometheus, Alertmanager, the \
                        balancer, a door to Docker) may be restarted by this playbook";
        sheet.warn(said.referenced, sentence);
    }
    said.is_some()
}

/// Without an alert there is no rule to ask again, so that a playbook with `every` needs a query of its own.
fn poll(sheet: &mut Sheet, typed: &Typed, every: Option<Period>) {
    let (Some(text), Some(every)) = (&typed.every, every) else { return };
    if every < SHORTEST_POLL && every > Period::ZERO {
        sheet.wrong(text.referenced, format!("every is {every}"), format!("Write at least {SHORTEST_POLL}"));
    }
    if typed.confirm.as_ref().is_some_and(|confirm| confirm.value.query.is_none()) {
        let help = "Write confirm: { query, above } (or below)";
        sheet.wrong(text.referenced, "a playbook with `every` has no alert whose rule could be asked", help);
    }
}

/// A breaker that remembers fewer runs than it wants to see fail would never open.
fn failures(sheet: &mut Sheet, typed: &At<u32>) -> u32 {
    if typed.value as usize > MAX_RUNS {
        let what = format!("breaker.failures is {}, and {MAX_RUNS} runs are remembered", typed.value);
        sheet.wrong(typed.referenced, what, "Write a small number, such as 3");
    }
    sheet.some_count("breaker.failures", typed, "so the breaker would never close")
}

/// All must match, and at least one must ask for something: a set that also matches an alert without labels matches
/// everything (the story `diskerase`).
fn matchers(sheet: &mut Sheet, list: &At<Vec<At<String>>>) -> Vec<Matcher> {
    let found: Vec<Matcher> = list.value.iter().filter_map(|text| sheet.parsed(text)).collect();
    if list.value.is_empty() {
        sheet.wrong(
            list.referenced,
            "`match` is empty, and an empty selector selects nothing",
            "Name the alerts, such as alertname=\"FdLeakFast\"",
        );
    } else if found.len() == list.value.len() && found.iter().all(|matcher| matcher.matches(&LabelSet::default())) {
        sheet.wrong(
            list.referenced,
            "`match` matches every alert, even one without labels",
            "Name the alerts, such as alertname=\"FdLeakFast\"",
        );
    }
    found
}

fn confirm(sheet: &mut Sheet, typed: &At<ConfirmTyped>) -> (Option<Confirm>, Vec<String>) {
    let ConfirmTyped { inputs, query, above, below, veto } = &typed.value;
    for text in veto {
        let checked = Template::parse_veto(&text.value);
        sheet.query(text, checked);
    }
    let vetoes = veto.iter().map(|text| text.value.clone()).collect();
    let confirm = match (inputs, query) {
        (Some(_), Some(query)) => {
            sheet.wrong(
                query.referenced,
                "confirm has both `inputs` and `query`",
                "Keep `inputs` to ask the alert's own rule, or `query` to ask this query",
            );
            None
        }
        (None, None) => {
            sheet.wrong(
                typed.referenced,
                "confirm has neither `inputs` nor `query`",
                "List the metrics that the alert's rule reads under `inputs`",
            );
            None
        }
        (Some(inputs), None) => {
            if let Some(stray) = above.as_ref().or(below.as_ref()) {
                sheet.wrong(stray.referenced, "a threshold without a query", "The rule has its own; remove this one");
            }
            if inputs.value.is_empty() {
                sheet.wrong(
                    inputs.referenced,
                    "`inputs` is empty, so silence of the rule would prove nothing",
                    "List the scraped metrics that the rule reads",
                );
            }
            for name in &inputs.value {
                let checked = promql::check_metric(&name.value);
                sheet.query(name, checked);
            }
            Some(Confirm::Rule { inputs: inputs.value.iter().map(|name| name.value.clone()).collect() })
        }
        (None, Some(query)) => {
            let checked = Template::parse(&query.value);
            sheet.query(query, checked);
            let threshold = match (above, below) {
                (Some(above), None) => Some(Threshold::Above(finite(sheet, above))),
                (None, Some(below)) => Some(Threshold::Below(finite(sheet, below))),
                _ => {
                    sheet.wrong(
                        query.referenced,
                        "confirm needs exactly one of `above` and `below`",
                        "Write the value beyond which the target is sick",
                    );
                    None
                }
            };
            threshold.map(|threshold| Confirm::Query { query: query.value.clone(), threshold })
        }
    };
    (confirm, vetoes)
}

fn finite(sheet: &mut Sheet, at: &At<f64>) -> f64 {
    if !at.value.is_finite() {
        sheet.wrong(at.referenced, format!("{} is not a threshold", at.value), "Write a finite number");
    }
    at.value
}

fn evidence(sheet: &mut Sheet, typed: &EvidenceTyped) -> EvidenceSpec {
    if let Some(at) = typed.logs.as_ref().filter(|at| at.value > MAX_LOGS) {
        sheet.wrong(at.referenced, format!("evidence.logs is {}", at.value), format!("Write at most {MAX_LOGS}"));
    }
    EvidenceSpec { logs: typed.logs.as_ref().map_or(100, |at| at.value), required: typed.required.unwrap_or(true) }
}

/// What `steps` must be.
const ORDER: &str = "Write drain, restart, healthy, readmit, in this order";

fn steps(sheet: &mut Sheet, list: &At<Vec<At<StepTyped>>>) -> Option<(DrainSpec, u32, Period)> {
    use StepTyped::{Drain, Healthy, Readmit, Restart};
    let written: Vec<&StepTyped> = list.value.iter().map(|step| &step.value).collect();
    let [Drain(drain), Restart(restart), Healthy(healthy), Readmit] = written.as_slice() else {
        let name = |step: &StepTyped| match step {
            Drain(_) => "drain",
            Restart(_) => "restart",
            Healthy(_) => "healthy",
            Readmit => "readmit",
        };
        let names: Vec<_> = written.iter().map(|step| name(step)).collect();
        let wrong = (0..4).find(|i| names.get(*i) != ["drain", "restart", "healthy", "readmit"].get(*i)).unwrap_or(4);
        let at = list.value.get(wrong).map_or(list.referenced, |step| step.referenced);
        sheet.wrong(at, format!("the steps are [{}], and a plan leaves no choice", names.join(", ")), ORDER);
        return None;
    };
    let within = sheet.some_period("drain.within", Some(&drain.within), Period::ZERO);
    let grace = sheet.period(Some(&restart.grace), Period::ZERO);
    if grace > MAX_GRACE {
        sheet.wrong(
            restart.grace.referenced,
            format!("restart.grace is {grace}"),
            format!("The restart door passes at most {}s", MAX_GRACE.as_secs_f64()),
        );
    }
    // Docker takes whole seconds, and 0 would kill at once.
    let seconds = u32::try_from(grace.get().as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1);
    let healthy = sheet.some_period("healthy.within", Some(&healthy.within), Period::ZERO);
    Some((DrainSpec { within, on_timeout: drain.on_timeout.unwrap_or(OnTimeout::Abort) }, seconds, healthy))
}

fn recovered(sheet: &mut Sheet, typed: &RecoveredTyped) -> RecoverySpec {
    let checked = Template::parse(&typed.query.value);
    sheet.query(&typed.query, checked);
    let settle = sheet.period(Some(&typed.settle), Period::ZERO);
    let looks = sheet.some_count("recovered.looks", &typed.looks, "so nothing would prove a recovery");
    let within = sheet.some_period("recovered.within", Some(&typed.within), Period::ZERO);
    if within <= settle && within != Period::ZERO {
        sheet.wrong(
            typed.within.referenced,
            format!("recovered.within ({within}) leaves no time after settle ({settle})"),
            "Make it at least settle and one scrape more than looks",
        );
    }
    RecoverySpec { query: typed.query.value.clone(), below: finite(sheet, &typed.below), settle, looks, within }
}

fn guards(sheet: &mut Sheet, typed: &At<GuardsTyped>) -> Option<(Guards, Location)> {
    const ALL: &str = "Every playbook must declare blast_radius, rate and breaker";
    let (at, typed) = (typed.referenced, &typed.value);
    let rate = sheet.required(at, &typed.rate, "guards.rate", ALL).map(|rate| sheet.rate("rate", rate));
    let breaker = sheet.required(at, &typed.breaker, "guards.breaker", ALL).map(|typed| BreakerSpec {
        failures: failures(sheet, &typed.failures),
        recurrence: {
            let recurrence = sheet.some_period("breaker.recurrence", Some(&typed.recurrence), Period::ZERO);
            sheet.remembered("breaker.recurrence", Some(&typed.recurrence), recurrence)
        },
        cooldown: sheet.some_period("breaker.cooldown", Some(&typed.cooldown), Period::ZERO),
    });
    let radius =
        sheet.required(at, &typed.blast_radius, "guards.blast_radius", ALL).map(|typed| (radius(sheet, typed), typed.referenced));
    let budget = typed.budget.iter().filter_map(|text| budget(sheet, text)).collect();
    let start_grace = sheet.period(typed.start_grace.as_ref(), Period::from_secs(120));
    let cooldown = sheet.period(typed.cooldown.as_ref(), Period::from_secs(300));
    let cooldown = sheet.remembered("cooldown", typed.cooldown.as_ref(), cooldown);
    let (blast_radius, radius_at) = radius?;
    Some((Guards { start_grace, cooldown, rate: rate?, budget, breaker: breaker?, blast_radius }, radius_at))
}

fn radius(sheet: &mut Sheet, typed: &At<RadiusTyped>) -> BlastRadius {
    let typed = &typed.value;
    if typed.min_healthy.value == 0 {
        sheet.warn(typed.min_healthy.referenced, "min_healthy is 0: the last replica that serves may be restarted, too");
    }
    let text = &typed.max_unhealthy;
    let share = match text.value.strip_suffix('%') {
        Some(percent) => percent.trim().parse().ok().filter(|percent| (1..=100).contains(percent)).map(Share::Percent),
        None => text.value.parse().ok().filter(|count| *count > 0).map(Share::Count),
    };
    if share.is_none() {
        sheet.wrong(
            text.referenced,
            format!("max_unhealthy `{}` is neither a percentage from 1% to 100% nor a count from 1", text.value),
            "Write how many replicas may be sick at once, such as 67% or 2",
        );
    }
    let blame = sheet.some_period("blame", typed.blame.as_ref(), Period::from_secs(600));
    let blame = sheet.remembered("blame", typed.blame.as_ref(), blame);
    BlastRadius {
        min_healthy: typed.min_healthy.value,
        max_unhealthy: share.unwrap_or(Share::Count(1)),
        max_in_flight: typed
            .max_in_flight
            .as_ref()
            .map_or(1, |at| sheet.some_count("max_in_flight", at, "so nothing would ever be remediated")),
        blame,
    }
}

/// `6 per 1h`.
fn budget(sheet: &mut Sheet, text: &At<String>) -> Option<Budget> {
    let parsed = text.value.split_once(" per ").and_then(|(most, per)| {
        let budget = Budget { most: most.trim().parse().ok()?, per: per.trim().parse().ok()? };
        (budget.most > 0 && budget.per > Period::ZERO).then_some(budget)
    });
    if parsed.is_none() {
        sheet.wrong(
            text.referenced,
            format!("`{}` is not a budget", text.value),
            "Write how many attempts in which time, such as 6 per 1h; neither may be 0",
        );
    }
    if let Some(budget) = &parsed {
        sheet.remembered("a budget's window", Some(text), budget.per);
    }
    parsed
}
