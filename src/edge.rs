//! The live outside, one file each: it asks, it reads the answer, and it says so when there was none.
//!
//! No policy lives here. Every question has a time limit and every answer a size limit; what cannot be read is never
//! turned into a zero or an empty list. A call that changes something answers `Failed` only when it is certain that
//! nothing happened: the connection was refused, or the other side said no. After that, silence is `Unknown`.
//! Text from outside is made harmless ([`redact::plain_line`]) before it becomes part of a sentence.

pub mod alertmanager;
pub mod clock;
pub mod docker;
pub mod haproxy;
pub mod host;
pub mod http;
pub mod prometheus;
pub mod promql;
pub mod redact;
pub mod serve;
pub mod socket;
pub mod sqlite;
pub mod systemd;
pub mod textfile;
pub mod tls;

/// An address in the configuration that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{address}` is not an address of {what}: {why}")]
pub struct BadAddress {
    pub what: &'static str,
    /// Without user name and password.
    pub address: String,
    pub why: String,
}

impl BadAddress {
    pub(crate) fn new(what: &'static str, address: &str, why: impl Into<String>) -> Self {
        BadAddress { what, address: redact::plain_line(address, 200), why: why.into() }
    }
}

/// An error and its causes in one line, each said once.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Many libraries print their source as well: `said` would repeat itself.
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        next = cause.source();
    }
    redact::plain_line(&said, 500)
}
