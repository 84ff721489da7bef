//! A program under ptrace(2), stopped at every call that changes a file: the caller says what becomes of it.
//!
//! Nothing of the program is changed, so that what dies is what is shipped. Every thread of it stops at every system call; the calls
//! that change files are told with the path they change, all others go on. One thread runs one program from its start to its
//! end, because ptrace knows the tracing thread and not its process. The program dies with the tracer (`PTRACE_O_EXITKILL`).
//!
//! The kernel's interface: ptrace(2), "Syscall-stops" and "PTRACE_SEIZE"; the registers are those of x86-64 Linux.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod raw;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod traced;

use std::path::PathBuf;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use {raw::send, traced::run};

/// A change of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// A file or folder that was not there.
    Create,
    Write,
    Truncate,
    Sync,
    Rename,
    Remove,
}

/// What a thread is about to ask of the kernel.
#[derive(Clone, Debug)]
pub struct Call {
    pub what: What,
    /// The file that is changed; of a rename, the old name.
    pub path: PathBuf,
    /// Bytes of a write.
    pub length: u64,
    /// It was held before, and is asked about again.
    pub held: bool,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Go,
    /// Only so many bytes are written, and the program is told so.
    Short(u64),
    /// It is not done, and answered with this errno.
    Refuse(i32),
    /// SIGKILL instead of the call.
    Die,
    /// The call, and SIGKILL before anybody hears of it.
    GoThenDie,
    /// So many bytes of a write, and then SIGKILL.
    ShortThenDie(u64),
    /// Neither done nor answered for now.
    Hold,
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod elsewhere {
    use super::{Call, Fate};

    /// # Errors
    /// Always.
    pub fn run(
        _: &[std::ffi::OsString],
        _: std::fs::File,
        _: impl FnOnce(i32),
        _: impl FnMut(&Call) -> Fate,
    ) -> std::io::Result<i32> {
        Err(std::io::Error::other("the registers of system calls are only known for x86-64 Linux"))
    }

    pub fn send(_: i32, _: i32) {}
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub use elsewhere::{run, send};
