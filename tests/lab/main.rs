//! End to end, on real parts: Prometheus, Alertmanager, HAProxy, the Docker Engine behind its two doors, three replicas
//! that really leak, customers, a pager, and remediator in its container.
//!
//! Each test has a lab of its own (`lab/lab up` with its own project name, ports and network), removed when the test
//! ends, also by a panic; then what the lab had to say is printed first. At most two labs are up at a time. Nothing is
//! skipped: without Docker or without images a test fails with the sentence that says what to start.
//!
//! Replicas fall sick in three ways. `LEAK` is a leak as the rules expect one, seen by `FdLeakFast` after about 35 s.
//! `FLOOD` leaves a replica at 98 % of its descriptors: it still serves, and `FdExhausted` fires after about 18 s. `BURST`
//! exhausts it before any rule could warn.
//!
//! What of this is about faults has a lab with more parts (`lab/faults.yml`): `killed`, `outside` and `peers` are part of
//! `make test`; `chaos` draws faults from a seed for a quarter of an hour and is `make chaos`.
//!
//! No test asserts how long something took; every wait is bounded and says what it saw last.

#![expect(clippy::disallowed_methods, reason = "the clock here is the lab's own: events are compared by when they happened")]

mod breaker;
mod chaos;
mod crash;
mod deliveries;
mod docker;
mod faults;
mod killed;
mod lab;
mod leak;
mod outside;
mod peers;
mod radius;
mod remediator;
mod sight;
mod slots;

/// Half full at once, then six a second: `FdLeakFast` needs 24 s of growth without a jump, and 8 s of patience.
const LEAK: &str = "once=450&per_second=6";
/// 1007 of 1024, with what a replica has open anyway.
const FLOOD: &str = "once=995";
/// Full after 26 s.
const BURST: &str = "per_second=40";
