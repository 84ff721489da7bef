//! What a command prints as a whole.

use std::io::{ErrorKind, Write as _};

use crate::cli::Exit;

/// Prints to stdout. `remediator toil ... | head` is no failure.
///
/// # Errors
/// stdout cannot be written.
pub fn print(text: &str) -> anyhow::Result<Exit> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Exit::Fine),
    }
}
