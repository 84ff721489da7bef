//! Where log lines go: standard error, for people or as JSON, a field for everything one would search by.
//!
//! They are written by a thread of their own. Whoever reads them may stop doing so (Docker's log driver, when the Engine hangs), and
//! that must not stop what readmits and pages: lines that find no room are dropped then.

use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::cli::lines::{Lines, Style};
use crate::config::settings::{Log, LogFormat};

/// Libraries that log what they read.
const QUIET: [&str; 1] = ["bollard=warn"];

/// Lines that may wait for whoever reads them.
const ROOM: usize = 8192;

/// Starts logging. `RUST_LOG` wins over the configuration. What waits is written when the guard is dropped, for a second at most.
#[must_use = "without it the last lines are lost"]
pub fn start(log: &Log) -> WorkerGuard {
    let level = log.level.clone().unwrap_or_else(|| "info".to_owned());
    #[allow(clippy::disallowed_methods, reason = "RUST_LOG is the convention of every program that logs with tracing")]
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|asked| !asked.is_empty()).map(|asked| unquieted(&asked));
    let asked = asked.and_then(|asked| EnvFilter::try_new(asked).ok());
    let filter = asked.or_else(|| EnvFilter::try_new(unquieted(&level)).ok()).unwrap_or_else(|| EnvFilter::new("info"));
    // What the Engine answers goes through bollard's own debug lines, environments of containers included. No level that
    // anybody asks for may bring those into a log.
    let filter = QUIET.iter().filter_map(|directive| directive.parse().ok()).fold(filter, EnvFilter::add_directive);
    let colour = std::io::stderr().is_terminal();
    let style = match log.format {
        LogFormat::Json => Style::Json,
        LogFormat::Human if colour => Style::Coloured,
        LogFormat::Human => Style::Plain,
    };
    let (out, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(ROOM).lossy(true).thread_name("log").finish(std::io::stderr());
    let writer = move || Lines::new(out.clone(), style);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let started = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        // The journal has a time of its own beside each line.
        LogFormat::Human if to_the_journal() => builder.without_time().with_ansi(false).try_init(),
        LogFormat::Human => builder.with_ansi(colour).try_init(),
    };
    if let Err(error) = started {
        eprintln!("remediator: logging could not be started: {error}");
    }
    // The usual way is to write to standard error at once, and to wait for whoever reads it.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    guard
}

/// Without what is said of the quiet ones: a directive for one of their modules would win over ours for the whole.
fn unquieted(directives: &str) -> String {
    let loud = |directive: &&str| !QUIET.iter().any(|quiet| directive.contains(quiet.trim_end_matches("=warn")));
    directives.split(',').filter(loud).collect::<Vec<_>>().join(",")
}

/// systemd names the journal's stream as `device:inode` (systemd.exec(5)); a child whose standard error leads elsewhere inherits
/// the name too.
fn to_the_journal() -> bool {
    #[allow(clippy::disallowed_methods, reason = "JOURNAL_STREAM is how systemd tells a program where its output goes")]
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}
