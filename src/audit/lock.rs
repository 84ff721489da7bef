//! One process at a time has a state directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use crate::audit::JournalError;

/// Locked while a remediator uses the state directory; holds its pid.
const LOCK: &str = "lock";

/// The state directory is ours while this lives.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the state directory, making it if need be. The kernel lets go when the process ends, however it ends.
    ///
    /// # Errors
    /// [`JournalError::Locked`] names the process that has it.
    pub fn take(dir: &Path) -> Result<Lock, JournalError> {
        let failed = |source| JournalError::Directory { dir: dir.to_owned(), source: Arc::new(source) };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let path = dir.join(LOCK);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Empty for the instant between the other's lock and its line.
                let _ = file.read_to_string(&mut holder);
                return Err(JournalError::Locked { pid: holder.trim().parse().ok(), dir: dir.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let write_pid = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        // The lock holds without it: on a full disk there is nobody to name, and still somebody to page and to readmit.
        let _ = write_pid(&mut file);
        Ok(Lock { _file: file })
    }
}
