//! The few calls to the kernel, each made safe: they take numbers and owned memory, and no pointer outlives its call.

use std::io;

use libc::c_long;

/// How a traced thread stopped.
pub enum Stop {
    Syscall,
    /// A new thread, a new program, or one of our own interruptions.
    Event,
    /// A signal that it is to be given.
    Signal(i32),
    /// An exit code, or the number of a signal, negative.
    Ended(i32),
}

/// Of a thread that stopped.
pub struct Registers(libc::user_regs_struct);

impl Registers {
    /// Before the call: the kernel has put -ENOSYS in the answer's place (x86-64's entry code), which no call that we know answers.
    pub fn entering(&self) -> bool {
        self.0.rax == errno(libc::ENOSYS)
    }

    pub fn number(&self) -> c_long {
        self.0.orig_rax as c_long
    }

    pub fn arguments(&self) -> [u64; 3] {
        [self.0.rdi, self.0.rsi, self.0.rdx]
    }

    /// The third argument: how many bytes.
    pub fn shorten(&mut self, length: u64) {
        self.0.rdx = length;
    }

    /// No call has this number, so nothing is done.
    pub fn skip(&mut self) {
        self.0.orig_rax = u64::MAX;
    }

    pub fn answer(&mut self, number: i32) {
        self.0.rax = errno(number);
    }
}

fn errno(number: i32) -> u64 {
    i64::from(-number) as u64
}

fn told(answer: c_long) -> io::Result<()> {
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub fn seize(pid: i32) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_EXITKILL;
    // SAFETY: takes numbers only.
    told(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0usize, options as usize) })
}

pub fn interrupt(pid: i32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    told(unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0usize, 0usize) })
}

/// On to the next system call. A thread that was killed meanwhile cannot go on, which its end tells.
pub fn resume(thread: i32, signal: i32) {
    // SAFETY: takes numbers only.
    let _ = unsafe { libc::ptrace(libc::PTRACE_SYSCALL, thread, 0usize, signal as usize) };
}

pub fn registers(thread: i32) -> io::Result<Registers> {
    let mut registers = std::mem::MaybeUninit::<libc::user_regs_struct>::zeroed();
    // SAFETY: the kernel writes one such structure to the address, which has room for it and lives through the call.
    told(unsafe { libc::ptrace(libc::PTRACE_GETREGS, thread, 0usize, registers.as_mut_ptr()) })?;
    // SAFETY: plain numbers, of which every pattern of bits is one; it was zeroed, and filled by the call.
    Ok(Registers(unsafe { registers.assume_init() }))
}

pub fn set(thread: i32, registers: &Registers) -> io::Result<()> {
    // SAFETY: the kernel reads one such structure from the address, which lives through the call.
    told(unsafe { libc::ptrace(libc::PTRACE_SETREGS, thread, 0usize, &raw const registers.0) })
}

/// The next stop of whatever this thread traces; with `only_look`, none when there is none now.
pub fn wait(only_look: bool) -> io::Result<Option<(i32, Stop)>> {
    let mut status = 0;
    let patience = if only_look { libc::WNOHANG } else { 0 };
    loop {
        // SAFETY: the kernel writes one number to the address, which lives through the call.
        let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD | patience) };
        if thread == 0 {
            return Ok(None);
        }
        if thread == -1 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        let stop = if libc::WIFEXITED(status) {
            Stop::Ended(libc::WEXITSTATUS(status))
        } else if libc::WIFSIGNALED(status) {
            Stop::Ended(-libc::WTERMSIG(status))
        } else if status >> 16 != 0 {
            Stop::Event
        } else if libc::WSTOPSIG(status) == libc::SIGTRAP | 0x80 {
            Stop::Syscall
        } else {
            Stop::Signal(libc::WSTOPSIG(status))
        };
        return Ok(Some((thread, stop)));
    }
}

/// A signal for a process that we started. One that is gone gets none.
pub fn send(pid: i32, signal: i32) {
    // SAFETY: takes numbers only.
    let _ = unsafe { libc::kill(pid, signal) };
}
