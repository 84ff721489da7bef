//! Which runs there are, many at a time, and the table of what they came to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracer::What;

use crate::case::{self, Told};
use crate::fault::{Counts, Fault, Kind, Mode, Point};

/// Undisturbed runs that the points are counted in: threads and timers make one longer than the other.
const BASELINES: usize = 3;

#[derive(Default)]
struct Row {
    points: u32,
    runs: u32,
    hits: u32,
    missed: u32,
    violations: u32,
}

async fn undisturbed() -> Counts {
    let mut most = Counts::new();
    for _ in 0..BASELINES {
        let told = case::run(Vec::new()).await;
        assert!(told.violations.is_empty(), "undisturbed: {:?}\n{}", told.violations, told.log);
        for (kind, count) in told.counts.into_iter().flatten() {
            let known = most.entry(kind).or_default();
            *known = count.max(*known);
        }
    }
    most
}

fn faults(counts: &Counts) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (kind, count) in counts {
        for n in 1..=*count {
            for mode in kind.modes() {
                faults.push(Fault { point: Point { kind: kind.clone(), n }, mode: *mode });
            }
        }
    }
    faults
}

/// Runs all plans, `CRASH_JOBS` at a time.
async fn all(plans: Vec<Vec<Fault>>) -> Vec<(Vec<Fault>, Told)> {
    let jobs = std::env::var("CRASH_JOBS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    some_at_a_time(jobs, plans).await
}

pub async fn some_at_a_time(jobs: usize, plans: Vec<Vec<Fault>>) -> Vec<(Vec<Fault>, Told)> {
    let places = Arc::new(Semaphore::new(jobs));
    let mut running = JoinSet::new();
    let mut done = Vec::new();
    let total = plans.len();
    for plan in plans {
        let place = places.clone().acquire_owned().await.expect("never closed");
        running.spawn(async move {
            let _place = place;
            let mut told = case::run(plan.clone()).await;
            if told.violations.is_empty() && told.hits.contains(&false) {
                // Threads may number otherwise the next time.
                told = case::run(plan.clone()).await;
            }
            (plan, told)
        });
        while let Some(one) = running.try_join_next() {
            note(&mut done, one.expect("no panic"), total);
        }
    }
    while let Some(one) = running.join_next().await {
        note(&mut done, one.expect("no panic"), total);
    }
    done
}

fn name(plan: &[Fault]) -> String {
    plan.iter().map(ToString::to_string).collect::<Vec<_>>().join(" then ")
}

fn note(done: &mut Vec<(Vec<Fault>, Told)>, (plan, told): (Vec<Fault>, Told), total: usize) {
    if !told.violations.is_empty() {
        println!("VIOLATION {}: {:?}\n{}", name(&plan), told.violations, told.log);
    }
    done.push((plan, told));
    if done.len().is_multiple_of(100) {
        println!("{} of {total}", done.len());
    }
}

pub fn table(counts: &Counts, done: &[(Vec<Fault>, Told)]) -> u32 {
    let mut rows: BTreeMap<Kind, Row> = BTreeMap::new();
    let mut missed: BTreeMap<String, u32> = BTreeMap::new();
    for (plan, told) in done {
        let Some(last) = plan.last() else { continue };
        let row = rows.entry(last.point.kind.clone()).or_default();
        row.points = counts.get(&last.point.kind).copied().unwrap_or(0);
        row.runs += 1;
        let hit = told.hits.iter().all(|hit| *hit);
        row.hits += u32::from(hit);
        row.missed += u32::from(!hit);
        row.violations += u32::from(!told.violations.is_empty());
        if !hit {
            *missed.entry(name(plan)).or_default() += 1;
        }
    }
    println!("| point | points | ways | runs | reached | not reached | violations |\n|---|---|---|---|---|---|---|");
    let mut sum = Row::default();
    for (kind, row) in &rows {
        println!(
            "| {kind} | {} | {} | {} | {} | {} | {} |",
            row.points,
            kind.modes().len(),
            row.runs,
            row.hits,
            row.missed,
            row.violations
        );
        sum.points += row.points;
        sum.runs += row.runs;
        sum.hits += row.hits;
        sum.missed += row.missed;
        sum.violations += row.violations;
    }
    println!("| all | {} | | {} | {} | {} | {} |", sum.points, sum.runs, sum.hits, sum.missed, sum.violations);
    let pages: usize = done.iter().map(|(_, told)| told.pages).sum();
    println!("pages that were due and there: {pages}");
    println!("not reached: {:?}", missed.keys().collect::<Vec<_>>());
    sum.violations
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "ten minutes: make crash"]
async fn every_crash() {
    let begun = Instant::now();
    let only = std::env::var("CRASH_ONLY").unwrap_or_default();
    let counts = undisturbed().await;
    println!("undisturbed, {:?}: {counts:#?}", begun.elapsed());
    let plans = faults(&counts).into_iter().map(|fault| vec![fault]).filter(|plan| name(plan).contains(&only)).collect();
    let done = all(plans).await;
    let violations = table(&counts, &done);
    println!("{:?}", begun.elapsed());
    assert_eq!(violations, 0);
}

/// Once and again: dies after each sync of the journal and at each call that changes something outside, and in the life that follows dies
/// or fails at each of these.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "twenty minutes: make crash"]
async fn every_second_crash() {
    let begun = Instant::now();
    let only = std::env::var("CRASH_ONLY").unwrap_or_default();
    if !only.is_empty() && !only.contains(" then ") {
        return println!("{only} names no pair");
    }
    let first = firsts(&undisturbed().await);
    let lives = all(first.iter().map(|fault| vec![fault.clone()]).collect()).await;
    let mut plans = Vec::new();
    let mut most = Counts::new();
    for (plan, told) in &lives {
        let Some(second) = told.counts.get(1) else { continue };
        for (kind, count) in second {
            let known = most.entry(kind.clone()).or_default();
            *known = (*count).max(*known);
        }
        plans.extend(seconds(second).map(|fault| vec![plan[0].clone(), fault]));
    }
    plans.retain(|plan| name(plan).contains(&only));
    println!("{} first deaths, {} pairs", lives.len(), plans.len());
    let done = all(plans).await;
    let violations = table(&most, &done) + lives.iter().map(|(_, told)| u32::from(!told.violations.is_empty())).sum::<u32>();
    println!("{:?}", begun.elapsed());
    assert_eq!(violations, 0);
}

/// The deaths that leave different things behind: a commit on the disk or not, a call done or not.
fn firsts(counts: &Counts) -> Vec<Fault> {
    let differs = |fault: &Fault| match (&fault.point.kind, fault.mode) {
        (&Kind::COMMIT, Mode::KillAfter) => true,
        (kind @ Kind::Door(..), Mode::KillBefore | Mode::KillAfter) => kind.changes_something(),
        _ => false,
    };
    faults(counts).into_iter().filter(differs).collect()
}

/// In the life after: each commit on the disk or not, or refused by the disk, each line of the audit, and each call that changes something,
/// in every way.
fn seconds(counts: &Counts) -> impl Iterator<Item = Fault> {
    let differs = |fault: &Fault| match (&fault.point.kind, fault.mode) {
        (Kind::File("journal.db-wal" | "audit.jsonl" | "audit.jsonl.position", What::Sync), Mode::KillBefore) => true,
        (&Kind::COMMIT, Mode::NoSpace | Mode::IoError | Mode::Broken) => true,
        (kind @ Kind::Door(..), _) => kind.changes_something(),
        _ => false,
    };
    faults(counts).into_iter().filter(differs)
}

/// A part that takes about a minute, for every run of the tests: kill -9 after each sync of the journal and EIO at it, and each way to
/// fail at each call that changes something outside, but for the silences that take long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_the_crashes() {
    let counts = undisturbed().await;
    let part = |fault: &Fault| match (&fault.point.kind, fault.mode) {
        (_, Mode::Silent | Mode::DoneSilent) => false,
        (&Kind::COMMIT, mode) => matches!(mode, Mode::KillAfter | Mode::IoError),
        (kind, _) => kind.changes_something(),
    };
    let plans: Vec<_> = faults(&counts).into_iter().filter(part).map(|fault| vec![fault]).collect();
    let expected = plans.len();
    let done = all(plans).await;
    assert_eq!(table(&counts, &done), 0);
    let hit = done.iter().filter(|(_, told)| !told.hits.contains(&false)).count();
    assert!(hit * 10 >= expected * 8, "only {hit} of {expected} points were come to");
}
