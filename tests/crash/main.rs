//! The real program, killed or failed at every change of a file and at every call to the outside, and again while it recovers.
//!
//! Nothing of the program is replaced and nothing is compiled into it: `tracer` stops it at each of its system calls that changes a
//! file, and the fakes at its doors number what they are asked. An undisturbed run says how many points there are; then each point
//! gets a run of its own for every way in which it can fail. A run whose point was not reached is counted as that, and tried again.
//!
//! `make crash` runs all of it (docs/RELIABILITY.md has the figures); what runs without being asked is a part. One run by its name, as the table gives it:
//! `CRASH_ONLY=journal.db-wal:sync#3/ make crash`.

#![allow(
    clippy::disallowed_methods,
    reason = "it lives in the time of the program that it runs, and is told by its environment what to run"
)]

mod case;
mod fault;
mod hangs;
mod judge;
mod life;
#[path = "../hostile/nasty.rs"]
#[allow(dead_code, reason = "the hostile tests use what is not used here")]
mod nasty;
#[path = "../hostile/outside.rs"]
#[allow(dead_code, reason = "the hostile tests use what is not used here")]
mod outside;
mod runs;
#[path = "../adapters/wire.rs"]
#[allow(dead_code, reason = "the adapters' tests use what is not used here")]
mod wire;
