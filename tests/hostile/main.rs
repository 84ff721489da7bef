//! The real program between fakes of everything around it, fed with what an attacker or a mistake may send: what reaches
//! each door, and what stays behind in journal, log, page and answer. Byte by byte; nothing of the program is replaced.

mod doors;
mod nasty;
mod outside;
mod program;
mod secrets;
#[allow(dead_code, reason = "the adapters' tests use what is not used here")]
#[path = "../adapters/wire.rs"]
mod wire;
