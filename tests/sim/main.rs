//! The production program on simulated worlds in which everything goes wrong: every invariant holds in every seed, the
//! same seed is the same story, and every invariant can fail.
//!
//! Two thousand seeds, in pieces that a test runner spreads over the processors. A seed that ever failed stays in
//! `seeds.txt`.

mod forged;
mod model;

use remediator::sim::run::run;
use remediator::sim::story;

/// Seeds of one test.
const PIECE: u64 = 250;

fn holds(seed: u64) {
    let (trial, outcome) = run(seed).expect("it runs");
    let found: Vec<String> = outcome.violations.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "seed {seed}: {found:#?}\nreplay: remediator sim --seed {seed}\n{}", story::tell(&trial, &outcome));
}

macro_rules! pieces {
    ($($name:ident: $number:literal;)*) => {
        $(#[test]
        fn $name() {
            ($number * PIECE..($number + 1) * PIECE).for_each(holds);
        })*
    };
}

pieces! {
    seeds_0_to_249: 0;
    seeds_250_to_499: 1;
    seeds_500_to_749: 2;
    seeds_750_to_999: 3;
    seeds_1000_to_1249: 4;
    seeds_1250_to_1499: 5;
    seeds_1500_to_1749: 6;
    seeds_1750_to_1999: 7;
}

#[test]
fn seeds_that_failed_once() {
    let seeds = include_str!("seeds.txt").lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let seeds: Vec<u64> = seeds.filter(|line| !line.is_empty()).map(|line| line.parse().expect("a seed")).collect();
    assert!(!seeds.is_empty(), "seeds.txt names no seed");
    seeds.into_iter().for_each(holds);
}

/// One seed decides everything: the clock, the ids, the order of whatever happens at the same moment.
#[test]
fn the_same_seed_is_the_same_story() {
    for seed in [3, 14, 159, 2653] {
        let told = || {
            let (trial, outcome) = run(seed).expect("it runs");
            (story::tell(&trial, &outcome), outcome.hash)
        };
        let (first, second) = (told(), told());
        assert_eq!(first, second, "seed {seed}");
    }
}

/// The worlds are worth being lived in: things go wrong in them, and remediator acts, refuses, dies and pages.
#[test]
fn enough_happens() {
    let outcomes: Vec<_> = (0..40).map(|seed| run(seed).expect("it runs").1).collect();
    let sum = |of: fn(&remediator::sim::run::Outcome) -> usize| outcomes.iter().map(of).sum::<usize>();
    assert!(sum(|outcome| outcome.restarts) > 40, "too few restarts");
    assert!(sum(|outcome| outcome.drains) > sum(|outcome| outcome.restarts), "no drain was ever given up");
    assert!(sum(|outcome| outcome.pages) > 40, "too few pages");
    assert!(outcomes.iter().map(|outcome| outcome.deaths).sum::<u64>() > 5, "too few deaths");
    assert!(sum(|outcome| outcome.deliveries) > 300, "too few deliveries");
}
