//! What it costs: a load program and the functions under criterion, with references in the same run. `make bench` runs both and
//! writes docs/BENCHMARKS.md.
//!
//! Everything is on loopback and on one disk. The load program, the fakes of the outside and what is measured share the
//! processor, so that only ratios say anything: both sides of one take turns, and stand beside what the disk did in the
//! same minute.

#![allow(clippy::disallowed_methods, reason = "what is measured is real time, and the environment says what to measure")]

pub mod alerts;
pub mod disk;
pub mod healers;
pub mod load;
pub mod outside;
pub mod plain;
pub mod program;
pub mod rows;
pub mod specimen;
pub mod store;
pub mod table;
pub mod wire;
