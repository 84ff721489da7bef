//! The HTTP face as its callers meet it: the real router behind the real accept loop, on loopback, with a fake desk.
//!
//! No test here looks at a clock. Where something must end, the test waits until it has ended; a guard far above any
//! sensible time turns a hang into a failure.

mod board;
mod certificates;
mod cli;
mod desk;
mod listening;
mod openapi;
mod orders;
mod overload;
mod reading;
mod reload;
mod remediate;
mod tls;
mod wire;
