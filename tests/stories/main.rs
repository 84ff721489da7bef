//! How other automation got burnt, and what we do instead: STORIES.md, each story a test of the production pipeline on
//! the simulated outside, in virtual time.
//!
//! Told elsewhere, or not yet: `no_credentials` needs HTTP (`tests/http`). `autoheal_87` is here (`heartbeat`) and,
//! with a real supervisor's socket, in `tests/process`. `kured_137` (leases) and `queue_good_healer` (a real Redis queue) need parts that are not built yet; `gce_16007` and
//! `knight_2012` are about canaries and rollbacks, which are not built yet either. Of `weekly_leak` the recurrences are
//! here; that the slow rule sees it a day ahead is proven with promtool (`prometheus-rules/tests`), and the ticket in the
//! fifth week needs tickets.

mod abort;
mod act;
mod aftermath;
mod breaker;
mod chaos;
mod core;
mod crash;
mod deliveries;
mod fold;
mod hangs;
mod heartbeat;
mod infrastructure;
mod kit;
mod observer;
mod pages;
mod poll;
mod radius;
mod rails;
mod reload;
mod stalls;
mod stop;
mod verdicts;
