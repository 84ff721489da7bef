//! The adapters of `edge` against fakes at the level of the wire: what each promises when the other side errs, hangs,
//! hangs up, says too much or says it wrong. No real part is needed here; the lab's tests use those.

mod alertmanager;
mod docker;
mod haproxy;
mod prometheus;
mod wire;
