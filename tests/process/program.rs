//! One started program, ended with the test.

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tempfile::TempDir;

/// A hang becomes a failure after this long. Nothing is asserted about time.
pub const HANG: Duration = Duration::from_secs(120);

/// A folder with a configuration: a beat a second, and nobody outside.
pub struct Place {
    pub folder: TempDir,
}

/// A running program, what it tells its supervisor, and what it logs.
pub struct Program {
    pub child: Child,
    told: Receiver<String>,
    logged: Receiver<String>,
}

impl Place {
    pub fn new() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let playbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("playbooks/inventory-fd-leak.yml");
        let settings = format!(
            "listen: 127.0.0.1:0\nstate_dir: state\nplaybooks: [{}]\nprometheus: {{ url: 'http://127.0.0.1:1' }}\n\
             alertmanager: {{ urls: ['http://127.0.0.1:1'] }}\ndocker: {{ read: unix:///nowhere/read.sock, restart: unix:///nowhere/restart.sock }}\n\
             haproxy: {{ address: tcp://127.0.0.1:1 }}\nheartbeat: {{ every: 1s, textfile: textfile/remediator.prom }}\n",
            playbook.display()
        );
        std::fs::write(folder.path().join("remediator.yml"), settings).expect("written");
        std::fs::create_dir(folder.path().join("textfile")).expect("a folder");
        Place { folder }
    }

    pub fn listen(&self, addr: &str) {
        let file = self.path("remediator.yml");
        let settings = std::fs::read_to_string(&file).expect("its settings");
        std::fs::write(file, settings.replace("listen: 127.0.0.1:0", &format!("listen: {addr}"))).expect("written");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `serve`, as a shell's child, which lets a write beyond a limit fail instead of killing the process.
    pub fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" serve --config \"$1\"", env!("CARGO_BIN_EXE_remediator")]);
        command.arg(self.path("remediator.yml")).env_remove("NOTIFY_SOCKET").env("RUST_LOG", "info");
        command
    }

    /// Starts it under a supervisor's socket.
    pub fn start(&self) -> Program {
        let (mut program, stderr) = self.start_unheard("info");
        let (log, logged) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("{line}");
                let _ = log.send(line);
            }
        });
        program.logged = logged;
        program
    }

    /// As [`Place::start`], with nobody who reads what it logs at that level.
    pub fn start_unheard(&self, level: &str) -> (Program, ChildStderr) {
        let socket = self.path("notify.sock");
        let supervisor = UnixDatagram::bind(&socket).expect("a socket");
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let mut message = [0; 4096];
            // Ends with the test: nobody receives any more.
            while let Ok(length) = supervisor.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                if !text.lines().all(|line| tell.send(line.to_owned()).is_ok()) {
                    return;
                }
            }
        });
        let mut command = self.command();
        command.env("NOTIFY_SOCKET", socket).env("RUST_LOG", level).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let stderr = child.stderr.take().expect("a pipe");
        (Program { child, told, logged: channel().1 }, stderr)
    }

    /// Runs it without a supervisor, to its end: exit code and what it said.
    pub fn run(&self) -> (Option<i32>, String) {
        let output = self.command().output().expect("a process");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Program {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for an assignment that begins so; answers it whole, and what came before it.
    pub fn told(&self, beginning: &str) -> (String, Vec<String>) {
        let mut before = Vec::new();
        loop {
            match self.told.recv_timeout(HANG) {
                Ok(line) if line.starts_with(beginning) => return (line, before),
                Ok(line) => before.push(line),
                Err(error) => panic!("never told {beginning:?} ({error}), but: {before:#?}"),
            }
        }
    }

    /// The next assignments, so many of them.
    pub fn next(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.told.recv_timeout(HANG).expect("it goes on telling")).collect()
    }

    /// What was told and not looked at yet, of a program that has ended.
    pub fn left(&self) -> Vec<String> {
        std::iter::from_fn(|| self.told.recv_timeout(Duration::from_secs(1)).ok()).collect()
    }

    pub fn logged(&self, part: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.logged.recv_timeout(HANG) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("never logged {part:?} ({error}), but: {seen:#?}"),
            }
        }
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill").success(), "kill -{name}");
    }

    /// Caps the size of every file that it writes: from now on each write to a file fails, as on a full disk.
    pub fn cap_files(&self, bytes: &str) {
        let capped = Command::new("prlimit").args([format!("--pid={}", self.pid()), format!("--fsize={bytes}")]).status();
        assert!(capped.expect("prlimit, of util-linux").success(), "prlimit --fsize={bytes}");
    }

    pub fn ended(&mut self) -> ExitStatus {
        let mut left = HANG;
        let step = Duration::from_millis(20);
        while left > Duration::ZERO {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            std::thread::park_timeout(step);
            left = left.saturating_sub(step);
        }
        panic!("it does not end");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
