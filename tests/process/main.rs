//! The real program as its supervisor meets it: systemd's notify protocol over a real socket, signals, exit codes, and a
//! second one on the same state directory.
//!
//! The outside is addresses where nobody listens: what is told here must hold without Prometheus, Docker and HAProxy.
//! No test looks at a clock; a guard far above any sensible time turns a hang into a failure.

mod notify;
mod program;
