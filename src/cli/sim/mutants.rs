//! The simulation must be able to fail: every guard is switched off in turn, and the seeds run until one notices.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::cli::Exit;
use crate::mutant::{Mutant, switch_off};
use crate::sim::run::run;
use crate::sim::story::COMMIT;

/// How a mutant fared.
struct Fate {
    mutant: Mutant,
    /// The seed that noticed, how many it took, and by what.
    caught: Option<(u64, u64, String)>,
}

/// Prints the table. `Exit::No`: a mutant survived.
///
/// # Errors
/// A seed could not be run at all.
pub fn mutants(seeds: u64, from: u64, jobs: usize) -> anyhow::Result<Exit> {
    let (next, fates) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(mutant) = Mutant::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    switch_off(Some(*mutant));
                    let fate = hunt(*mutant, seeds, from);
                    eprintln!("{mutant:?}: {}", if fate.caught.is_some() { "caught" } else { "SURVIVED" });
                    fates.lock().unwrap_or_else(PoisonError::into_inner).push(fate);
                }
            });
        }
    });
    let mut fates = fates.into_inner().unwrap_or_else(PoisonError::into_inner);
    fates.sort_by_key(|fate| fate.mutant);
    println!("commit {COMMIT}, at most {seeds} seeds each\n");
    println!("| mutant | what it lives without | caught by | seeds needed | first seed |\n|---|---|---|---|---|");
    for fate in &fates {
        let name = format!("{:?}", fate.mutant);
        match &fate.caught {
            Some((seed, needed, by)) => println!("| {name} | {} | {by} | {needed} | {seed} |", fate.mutant.without()),
            None => println!("| {name} | {} | **survived** | | |", fate.mutant.without()),
        }
    }
    let survivors = fates.iter().filter(|fate| fate.caught.is_none()).count();
    println!("\n{} of {} mutants caught", fates.len() - survivors, fates.len());
    Ok(if survivors == 0 { Exit::Fine } else { Exit::No })
}

/// The seed has nothing to say against the program as it is.
fn sound(mutant: Mutant, seed: u64) -> bool {
    switch_off(None);
    let sound = run(seed).is_ok_and(|(_, outcome)| outcome.violations.is_empty());
    switch_off(Some(mutant));
    sound
}

fn hunt(mutant: Mutant, seeds: u64, from: u64) -> Fate {
    for seed in from..from.saturating_add(seeds) {
        let Ok((_, outcome)) = run(seed) else { continue };
        if let Some(first) = outcome.violations.first()
            && sound(mutant, seed)
        {
            return Fate { mutant, caught: Some((seed, seed - from + 1, first.invariant.to_string())) };
        }
    }
    Fate { mutant, caught: None }
}
