//! One program from its start to its end.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::raw::{self, Registers, Stop, send};
use crate::{Call, Fate, What};

/// What is to be done when a call comes back.
enum Then {
    Nothing,
    Answer(i32),
    Die,
}

/// Between two questions about what is held.
const LOOK: Duration = Duration::from_millis(10);

/// Runs a program to its end. `started` is told its pid before it runs, `judge` every change of a file before it is made, and one that it
/// holds again and again. Answers how it ended, as wait(2) has it: an exit code, or the number of a signal, negative.
///
/// # Errors
/// It cannot be started, or ptrace is not permitted here.
pub fn run(
    program: &[OsString],
    stderr: File,
    started: impl FnOnce(i32),
    mut judge: impl FnMut(&Call) -> Fate,
) -> io::Result<i32> {
    // Waits for a line, so that it is traced before its first instruction.
    let mut child = Command::new("/bin/sh")
        .args(["-c", "read line; exec \"$@\" </dev/null", "sh"])
        .args(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let traced = raw::seize(pid).and_then(|()| raw::interrupt(pid));
    if let Err(error) = traced {
        let _ = child.kill();
        let _ = child.wait();
        return Err(io::Error::new(error.kind(), format!("ptrace is not permitted here: {error}")));
    }
    started(pid);
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(b"go\n")?;
    }
    let mut traced = Traced { pid, back: HashMap::new(), held: HashMap::new() };
    loop {
        let Some((thread, stop)) = raw::wait(!traced.held.is_empty())? else {
            wait_a_moment();
            for (thread, call) in std::mem::take(&mut traced.held) {
                traced.begins(thread, call, &mut judge);
            }
            continue;
        };
        match stop {
            Stop::Ended(code) if thread == pid => return Ok(code),
            Stop::Ended(_) => {
                traced.back.remove(&thread);
                traced.held.remove(&thread);
            }
            Stop::Signal(signal) => raw::resume(thread, signal),
            Stop::Event => raw::resume(thread, 0),
            Stop::Syscall => traced.at_syscall(thread, &mut judge),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a thread of its own, in the time of the program that it traces")]
fn wait_a_moment() {
    std::thread::sleep(LOOK);
}

struct Traced {
    pid: i32,
    /// Threads in a call whose coming back is waited for.
    back: HashMap<i32, Then>,
    /// Threads that stand before their call.
    held: HashMap<i32, Call>,
}

impl Traced {
    fn at_syscall(&mut self, thread: i32, judge: &mut impl FnMut(&Call) -> Fate) {
        // A thread that is dying has no registers any more; its end is told next.
        let Ok(mut registers) = raw::registers(thread) else { return raw::resume(thread, 0) };
        // A call that is skipped comes back with what it began with, so that the registers alone do not tell the two apart.
        let then = self.back.remove(&thread);
        if then.is_some() || !registers.entering() {
            match then.unwrap_or(Then::Nothing) {
                Then::Nothing => {}
                Then::Answer(errno) => {
                    registers.answer(errno);
                    let _ = raw::set(thread, &registers);
                }
                Then::Die => return send(self.pid, libc::SIGKILL),
            }
            return raw::resume(thread, 0);
        }
        match change(self.pid, &registers) {
            Some(call) => self.begins(thread, call, judge),
            None => raw::resume(thread, 0),
        }
    }

    fn begins(&mut self, thread: i32, call: Call, judge: &mut impl FnMut(&Call) -> Fate) {
        let Ok(mut registers) = raw::registers(thread) else { return raw::resume(thread, 0) };
        let then = match judge(&call) {
            Fate::Go => Then::Nothing,
            Fate::Die => return send(self.pid, libc::SIGKILL),
            Fate::GoThenDie => Then::Die,
            Fate::Short(length) => {
                registers.shorten(length);
                Then::Nothing
            }
            Fate::ShortThenDie(length) => {
                registers.shorten(length);
                Then::Die
            }
            Fate::Refuse(errno) => {
                registers.skip();
                Then::Answer(errno)
            }
            Fate::Hold => {
                self.held.insert(thread, Call { held: true, ..call });
                return;
            }
        };
        let _ = raw::set(thread, &registers);
        self.back.insert(thread, then);
        raw::resume(thread, 0);
    }
}

/// The change of a file that a call asks for; none for all other calls.
fn change(pid: i32, registers: &Registers) -> Option<Call> {
    let [first, second, third] = registers.arguments();
    let by_number = |what, length| Some(Call { what, path: open_file(pid, first)?, length, held: false });
    let by_name = |what, at| Some(Call { what, path: text(pid, at)?, length: 0, held: false });
    let absent = |call: Option<Call>| call.filter(|call| !call.path.exists());
    match registers.number() {
        libc::SYS_write | libc::SYS_pwrite64 => by_number(What::Write, third),
        // Of a vector only the whole is counted; who uses it here does so for sockets and standard error.
        libc::SYS_writev | libc::SYS_pwritev => by_number(What::Write, 0),
        libc::SYS_fsync | libc::SYS_fdatasync => by_number(What::Sync, 0),
        libc::SYS_ftruncate | libc::SYS_fallocate => by_number(What::Truncate, 0),
        libc::SYS_rename => by_name(What::Rename, first),
        libc::SYS_renameat | libc::SYS_renameat2 => by_name(What::Rename, second),
        libc::SYS_unlink | libc::SYS_rmdir => by_name(What::Remove, first).filter(|call| call.path.exists()),
        libc::SYS_unlinkat => by_name(What::Remove, second).filter(|call| call.path.exists()),
        libc::SYS_mkdir => absent(by_name(What::Create, first)),
        libc::SYS_mkdirat => absent(by_name(What::Create, second)),
        libc::SYS_openat if third & libc::O_CREAT as u64 != 0 => absent(by_name(What::Create, second)),
        _ => None,
    }
}

fn open_file(pid: i32, number: u64) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/fd/{number}")).ok()
}

/// A path in the program's memory.
fn text(pid: i32, at: u64) -> Option<PathBuf> {
    let mut bytes = vec![0; libc::PATH_MAX as usize];
    // Less than asked for at the end of what is mapped.
    let length = File::open(format!("/proc/{pid}/mem")).and_then(|memory| memory.read_at(&mut bytes, at)).ok()?;
    bytes.truncate(bytes[..length].iter().position(|byte| *byte == 0)?);
    Some(OsString::from_vec(bytes).into())
}
