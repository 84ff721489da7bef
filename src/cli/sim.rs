//! `remediator sim`: the production program on a simulated world, with everything going wrong, by seeds.

#[cfg(feature = "mutants")]
mod mutants;

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::cli::Exit;
use crate::sim::run::{Outcome, run};
use crate::sim::story::{self, COMMIT};

#[derive(Debug, Args)]
pub struct SimArgs {
    /// Run this one seed and tell its whole story
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Run so many seeds and count
    #[arg(long, value_name = "M", default_value_t = 100)]
    seeds: u64,
    /// The first of them
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
    /// Seeds at a time; as many as there are processors, if not said
    #[arg(long, value_name = "J")]
    jobs: Option<usize>,
    /// Switch every guard off in turn, and say how many seeds it takes to notice
    #[cfg(feature = "mutants")]
    #[arg(long, conflicts_with = "seed")]
    mutants: bool,
    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

/// What all seeds came to.
#[derive(Default)]
struct Totals {
    seeds: u64,
    world_time: Duration,
    faults: usize,
    deliveries: usize,
    drains: usize,
    restarts: usize,
    pages: usize,
    deaths: u64,
    entries: usize,
    failed: Vec<Outcome>,
}

/// `Exit::No`: an invariant was broken.
///
/// # Errors
/// A seed could not be run at all.
pub fn sim(args: &SimArgs) -> anyhow::Result<Exit> {
    #[cfg(feature = "mutants")]
    if args.mutants {
        return mutants::mutants(args.seeds, args.from, jobs(args));
    }
    match args.seed {
        Some(seed) => one(seed, args.json),
        None => many(args),
    }
}

fn one(seed: u64, as_json: bool) -> anyhow::Result<Exit> {
    let (trial, outcome) = run(seed)?;
    if as_json {
        println!("{}", told(&outcome));
    } else {
        print!("{}", story::tell(&trial, &outcome));
    }
    Ok(if outcome.violations.is_empty() { Exit::Fine } else { Exit::No })
}

fn told(outcome: &Outcome) -> serde_json::Value {
    json!({
        "seed": outcome.seed, "commit": COMMIT, "world_seconds": outcome.world_time.as_secs(), "faults": outcome.faults,
        "deliveries": outcome.deliveries, "drains": outcome.drains, "restarts": outcome.restarts, "pages": outcome.pages,
        "deaths": outcome.deaths, "entries": outcome.entries, "hash": outcome.hash,
        "violations": outcome.violations.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// How a run of many seeds says how far it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    None,
    /// One line, on a terminal.
    InPlace,
    /// A line now and then, in a log.
    Lines,
}

fn jobs(args: &SimArgs) -> usize {
    args.jobs.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1).max(1)
}

fn many(args: &SimArgs) -> anyhow::Result<Exit> {
    let jobs = jobs(args);
    let (next, stop) = (AtomicU64::new(args.from), AtomicBool::new(false));
    let (totals, trouble) = (Mutex::new(Totals::default()), Mutex::new(None));
    let progress = match std::io::stderr().is_terminal() {
        _ if args.json => Progress::None,
        true => Progress::InPlace,
        false => Progress::Lines,
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.from.saturating_add(args.seeds) {
                        return;
                    }
                    match run(seed) {
                        Ok((_, outcome)) => totals.lock().unwrap_or_else(PoisonError::into_inner).add(outcome, progress, args),
                        Err(error) => {
                            stop.store(true, Ordering::Relaxed);
                            *trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = trouble.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    if progress == Progress::InPlace {
        eprintln!();
    }
    totals.print(args.json);
    Ok(if totals.failed.is_empty() { Exit::Fine } else { Exit::No })
}

/// For an outcome with a violation.
fn broke(outcome: &Outcome) -> String {
    format!("seed {} broke {}", outcome.seed, outcome.violations[0])
}

impl Totals {
    fn add(&mut self, outcome: Outcome, progress: Progress, args: &SimArgs) {
        self.seeds += 1;
        self.world_time += outcome.world_time;
        self.faults += outcome.faults;
        self.deliveries += outcome.deliveries;
        self.drains += outcome.drains;
        self.restarts += outcome.restarts;
        self.pages += outcome.pages;
        self.deaths += outcome.deaths;
        self.entries += outcome.entries;
        if !outcome.violations.is_empty() {
            // At once: a long run may be broken off for it.
            match progress {
                Progress::None => {}
                Progress::InPlace => eprintln!("\r{}", broke(&outcome)),
                Progress::Lines => eprintln!("{}", broke(&outcome)),
            }
            self.failed.push(outcome);
        }
        let so_far = || format!("{} of {} seeds, {} violations", self.seeds, args.seeds, self.failed.len());
        match progress {
            Progress::None => {}
            Progress::InPlace if self.seeds.is_multiple_of(10) => {
                eprint!("\r{}", so_far());
                let _ = std::io::stderr().flush();
            }
            Progress::Lines if self.seeds.is_multiple_of(1_000) => eprintln!("{}", so_far()),
            Progress::InPlace | Progress::Lines => {}
        }
    }

    fn print(&self, as_json: bool) {
        let hours = self.world_time.as_secs_f64() / 3600.0;
        if as_json {
            let failed: Vec<_> = self.failed.iter().map(told).collect();
            println!(
                "{}",
                json!({
                    "commit": COMMIT, "seeds": self.seeds, "world_hours": hours.round(), "faults": self.faults,
                    "deliveries": self.deliveries, "drains": self.drains, "restarts": self.restarts, "pages": self.pages,
                    "deaths": self.deaths, "entries": self.entries, "failed": failed,
                })
            );
            return;
        }
        println!(
            "commit {COMMIT}: {} seeds, {hours:.0} hours of world, {} faults, {} deliveries, {} drains, {} restarts, {} pages, {} deaths, {} entries",
            self.seeds, self.faults, self.deliveries, self.drains, self.restarts, self.pages, self.deaths, self.entries
        );
        for outcome in &self.failed {
            println!("{}", broke(outcome));
            println!("    replay: remediator sim --seed {}", outcome.seed);
        }
        let verdict = if self.failed.is_empty() { "every invariant held in every seed" } else { "an invariant was broken" };
        println!("{verdict}");
    }
}
