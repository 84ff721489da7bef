//! A run, told so that a person can follow it: what happened in the world, what was delivered, what the program wrote
//! down, what it did, and the verdict. Pure.

use std::fmt::Write as _;

use crate::audit::Told;
use crate::cli::audit::story::line;
use crate::sim::What;
use crate::sim::fault::Fault;
use crate::sim::ledger::{Act, Note, Noted};
use crate::sim::run::{Outcome, Trial};
use crate::sim::scenario::{NEWEST, Scenario};

/// The commit that this program was built from, as far as the build was told (`build.rs`).
pub const COMMIT: &str = match option_env!("REMEDIATOR_COMMIT") {
    Some(commit) => commit,
    None => "unknown (a build for development; make sim knows it)",
};

/// The whole story.
pub fn tell(trial: &Trial, outcome: &Outcome) -> String {
    let mut out = String::new();
    head(&mut out, &trial.scenario);
    let mut entries = trial.entries.iter().peekable();
    for note in &trial.notes {
        while let Some(told) = entries.next_if(|told| told.entry.seq <= note.seq) {
            entry(&mut out, told);
        }
        noted(&mut out, &trial.scenario, note);
    }
    entries.for_each(|told| entry(&mut out, told));
    let _ = writeln!(out);
    foot(&mut out, outcome);
    out
}

fn head(out: &mut String, scenario: &Scenario) {
    let _ = writeln!(out, "seed {}, commit {COMMIT}", scenario.seed);
    for (number, places) in scenario.services.iter().enumerate() {
        let names: Vec<&str> = places.iter().map(|i| scenario.replicas[*i].name.as_str()).collect();
        let _ = writeln!(out, "  {}", names.join(", "));
        for (_, playbook) in scenario.playbooks_of(number) {
            let g = &playbook.guards;
            let radius = &g.blast_radius;
            let _ = writeln!(
                out,
                "    {} ({}): cooldown {}, rate {} per {}, budget {}, breaker {} (recurrence {}, cooldown {}), min_healthy {}, max_unhealthy {}, max_in_flight {}, blame {}",
                playbook.name,
                playbook.mode.word(),
                g.cooldown,
                g.rate.burst,
                g.rate.per,
                g.budget.iter().map(|b| format!("{} per {}", b.most, b.per)).collect::<Vec<_>>().join(", "),
                g.breaker.failures,
                g.breaker.recurrence,
                g.breaker.cooldown,
                radius.min_healthy,
                radius.max_unhealthy,
                radius.max_in_flight,
                radius.blame,
            );
        }
    }
    let _ = writeln!(out);
}

fn entry(out: &mut String, told: &Told) {
    let target = told.entry.record.map_or_else(String::new, |id| format!("{:.13} ", id.to_string()));
    let _ = writeln!(
        out,
        "{:.0}  {:>4}  {target}{} {}",
        told.entry.at,
        told.entry.seq,
        told.entry.event.kind(),
        line(&told.entry.event)
    );
}

fn noted(out: &mut String, scenario: &Scenario, note: &Note) {
    let text = match &note.what {
        Noted::Fault(fault) => format!("world: {}", self::fault(fault, scenario)),
        Noted::Act(act) => format!("EFFECT: {}", effect(act)),
        Noted::Delivery(delivery) => {
            let status = delivery.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
            format!("{} -> {status}: {}", delivery.from, delivery.told)
        }
        Noted::Started => "remediator started".to_owned(),
        Noted::DidNotStart => "remediator could not start".to_owned(),
        Noted::Died => "remediator is dead".to_owned(),
        Noted::Stopped => "remediator stopped".to_owned(),
        Noted::Calm => "world: everything is put right".to_owned(),
        Noted::Silent(why) | Noted::Unsaid(why) => format!("SILENT: {why}"),
    };
    let _ = writeln!(out, "{:.0}        {text}", note.at);
}

fn effect(act: &Act) -> String {
    match &act.what {
        What::Drain(path) => format!("drain {path}, {} others serve", act.others_serving),
        What::Ready(path) => format!("readmit {path}"),
        What::Asked { .. } => format!("asked to restart {}, which is not done", act.server),
        What::Restart { name, drained, .. } => {
            format!("restart {name}, {}drained, {} others serve", if *drained { "" } else { "NOT " }, act.others_serving)
        }
    }
}

fn fault(fault: &Fault, scenario: &Scenario) -> String {
    let name = |i: &usize| {
        if *i == NEWEST { "the one being drained" } else { scenario.replicas.get(*i).map_or("nobody", |r| r.name.as_str()) }
            .to_owned()
    };
    match fault {
        Fault::Leaks(i) => format!("{} leaks", name(i)),
        Fault::Flat(i) => format!("{} has a large pool", name(i)),
        Fault::Incurable(i) => format!("{} leaks, and so will every process after it", name(i)),
        Fault::LeaksAgain(i, after) => format!("{} leaks, and every process after it will after {}s", name(i), after.as_secs()),
        Fault::Hangs(i, on) => format!("{} {}", name(i), if *on { "hangs" } else { "answers again" }),
        Fault::CrashLoops(i, on) => format!("{} {}", name(i), if *on { "crashes again and again" } else { "crashes no more" }),
        Fault::Stopped(i, on) => format!("{} {}", name(i), if *on { "stopped" } else { "runs again" }),
        Fault::ForeignRestart(i) => format!("somebody else restarts {}", name(i)),
        Fault::Recreated(i) => format!("{} is another container now", name(i)),
        Fault::Lost(i, on) => format!("the container of {} {}", name(i), if *on { "is gone" } else { "is back" }),
        Fault::OptedOut(i, on) => format!("{} opts {}", name(i), if *on { "out" } else { "in" }),
        Fault::ForeignDrain(i, on) => format!("somebody else {} {}", if *on { "drains" } else { "readmits" }, name(i)),
        Fault::Tracked(i, on) => {
            format!("{} {} maintenance with the server that it tracks", name(i), if *on { "goes into" } else { "comes out of" })
        }
        Fault::Maintenance(i, on) => format!("{} {} maintenance", name(i), if *on { "goes into" } else { "comes out of" }),
        Fault::Still(how_long) => format!("the process stands still for {}s", how_long.as_secs()),
        Fault::Then(point, inner) => format!("at the next {point:?}: {}", self::fault(inner, scenario)),
        other => other.to_string(),
    }
}

fn foot(out: &mut String, outcome: &Outcome) {
    let _ = writeln!(
        out,
        "{} minutes of world, {} faults, {} deliveries, {} drains, {} restarts, {} pages, {} deaths, {} entries, facts {:.16}",
        outcome.world_time.as_secs() / 60,
        outcome.faults,
        outcome.deliveries,
        outcome.drains,
        outcome.restarts,
        outcome.pages,
        outcome.deaths,
        outcome.entries,
        outcome.hash,
    );
    for violation in &outcome.violations {
        let _ = writeln!(out, "VIOLATION {violation}");
    }
    let verdict = if outcome.violations.is_empty() { "every invariant held" } else { "an invariant was broken" };
    let _ = writeln!(out, "seed {}: {verdict}", outcome.seed);
}
