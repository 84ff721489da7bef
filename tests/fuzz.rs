//! A short run of every door of `fuzz/` on an ordinary build: the whole committed corpus, then mutations of it.
//!
//! libFuzzer looks deeper, because it sees which branches it reaches (`make fuzz`); this holds what it found, on every
//! machine, in seconds. The mutations are the same in every run, so that a failure is one for ever.

use std::path::Path;

use remediator::fuzzing::{DOORS, Door};

/// Mutations of each file of the corpus, and how many at most for each door. The journal's door writes files.
const EACH: usize = 400;
const MOST: usize = 20_000;
const MOST_JOURNALS: usize = 300;
/// Longest input made.
const LONGEST: usize = 64 * 1024;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((x ^ (x >> 31)) % n.max(1) as u64).expect("small")
    }
}

fn corpus(door: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(door);
    let listed = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = listed.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    assert!(paths.len() >= 3, "{} has no corpus", folder.display());
    paths.iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

/// One or a few changes of the kinds that libFuzzer makes.
fn mutate(dice: &mut Dice, seed: &[u8], other: &[u8]) -> Vec<u8> {
    const WORDS: [&[u8]; 14] = [
        b"\0",
        b"\xff\xff\xff\xff",
        b"\"",
        b"\\u0000",
        b"{",
        b"[[[[",
        b"\n",
        b"-1",
        b"1e999",
        b"NaN",
        b"$target",
        b"null",
        b"\xe2\x80\xae",
        b"9223372036854775808",
    ];
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        match dice.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 => drop(bytes.splice(at..at, WORDS[dice.below(WORDS.len())].iter().copied())),
            2 => bytes.truncate(at),
            3 => {
                let end = (at + dice.below(32)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let end = (at + dice.below(64)).min(bytes.len());
                let twice = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, twice));
            }
            _ => {
                let from = dice.below(other.len() + 1);
                let upto = (from + dice.below(64)).min(other.len());
                drop(bytes.splice(at..at, other[from..upto].iter().copied()));
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

fn short_run(name: &str, most: usize) {
    let door: Door = DOORS.iter().find(|(known, _)| *known == name).expect("a door").1;
    let corpus = corpus(name);
    corpus.iter().for_each(|bytes| door(bytes));
    let mut dice = Dice(1);
    let runs = (corpus.len() * EACH).min(most);
    for _ in 0..runs {
        let (seed, other) = (&corpus[dice.below(corpus.len())], &corpus[dice.below(corpus.len())]);
        let bytes = mutate(&mut dice, seed, other);
        if let Err(panic) = std::panic::catch_unwind(|| door(&bytes)) {
            eprintln!("{name} broke on {bytes:?}: {}", String::from_utf8_lossy(&bytes));
            std::panic::resume_unwind(panic);
        }
    }
    println!("{name}: {} files of the corpus, {runs} mutations", corpus.len());
}

#[test]
fn payload() {
    short_run("payload", MOST);
}

#[test]
fn promql() {
    short_run("promql", MOST);
}

#[test]
fn haproxy() {
    short_run("haproxy", MOST);
}

#[test]
fn engine() {
    short_run("engine", MOST);
}

#[test]
fn prometheus() {
    short_run("prometheus", MOST);
}

#[test]
fn config() {
    short_run("config", MOST);
}

#[test]
fn journal() {
    short_run("journal", MOST_JOURNALS);
}
