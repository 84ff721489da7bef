//! Processes that are measured: remediator itself, the references, what they use of memory and processor.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::alerts::service;
use crate::outside::Outside;
use crate::wire::{Asker, get};

/// As the service and the image set it: fewer arenas, and large blocks go back to the system at once.
const ALLOCATOR: &str = "glibc.malloc.arena_max=2:glibc.malloc.mmap_threshold=131072";
/// Longest wait for a process to answer; a guard against hanging, nothing more.
const HANG: Duration = Duration::from_secs(120);
/// Ticks of `/proc/PID/stat` in a second, on every Linux of today.
const TICKS: f64 = 100.0;

/// Rails that let everything through: what is measured is the road, not the refusals.
pub const OPEN_RAILS: &str = "guards:
  start_grace: 1m
  cooldown: 1m
  rate: { per: 1m, burst: 1000 }
  breaker: { failures: 60, recurrence: 1h, cooldown: 10m }
  blast_radius: { min_healthy: 0, max_unhealthy: 100%, max_in_flight: 200 }
";
/// Rails as in production.
pub const RAILS: &str = "guards:
  rate: { per: 1h, burst: 3 }
  breaker: { failures: 3, recurrence: 1h, cooldown: 1h }
  blast_radius: { min_healthy: 2, max_unhealthy: 30%, max_in_flight: 1 }
";

const PLAYBOOK: &str = "playbook: SERVICE
match: ['service=\"SERVICE\"']
target: { service: SERVICE }
confirm: { inputs: [process_open_fds] }
steps: [{ drain: { within: 60s } }, { restart: { grace: 1s } }, { healthy: { within: 60s } }, readmit]
recovered: { query: 'process_open_fds{$target} / process_max_fds{$target}', below: 0.3, settle: 0s, looks: 1, within: 60s }
mode: live
";

/// A child that is killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pub addr: SocketAddr,
}

/// A remediator with a folder of its own.
#[derive(Debug)]
pub struct Remediator {
    pub process: Process,
    pub folder: PathBuf,
    _own: Option<TempDir>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where measurements write: on the disk of the build, because `/tmp` may be memory.
///
/// # Errors
/// It cannot be made.
fn scratch() -> io::Result<PathBuf> {
    let dir = std::env::var_os("BENCH_DIR").map_or_else(|| PathBuf::from("target/bench"), PathBuf::from);
    std::fs::create_dir_all(&dir)?;
    dir.canonicalize()
}

/// # Errors
/// It cannot be made.
pub fn folder() -> io::Result<TempDir> {
    TempDir::new_in(scratch()?)
}

/// The binary that is measured.
///
/// # Errors
/// `REMEDIATOR` does not name a file.
pub fn binary() -> Result<PathBuf> {
    let path = PathBuf::from(std::env::var_os("REMEDIATOR").context("REMEDIATOR must name the program that is measured")?);
    path.canonicalize().with_context(|| format!("{} is not there; `make bench` builds it", path.display()))
}

/// A free port on loopback.
///
/// # Errors
/// There is none.
pub fn nobody() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()
}

impl Process {
    /// Starts it, and waits until `path` answers.
    ///
    /// # Errors
    /// It does not start, or does not answer.
    pub async fn start(command: &mut Command, addr: SocketAddr, path: &str) -> Result<Process> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().with_context(|| format!("{command:?}"))?;
        let mut process = Process { child, addr };
        let begun = Instant::now();
        loop {
            if let Ok(mut asker) = Asker::connect(addr).await
                && asker.ask(&get(path)).await.is_ok()
            {
                return Ok(process);
            }
            if let Some(status) = process.child.try_wait()? {
                bail!("{command:?} ended: {status}");
            }
            if begun.elapsed() > HANG {
                bail!("{command:?} does not answer");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// `kill -9`, and gone when this returns.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap_or_default()
    }

    /// Resident memory now and at its highest, in MiB.
    pub fn memory(&self) -> (f64, f64) {
        let status = self.proc("status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|n| n.parse::<f64>().ok());
            kib.unwrap_or(f64::NAN) / 1024.0
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// Processor time so far, in seconds.
    pub fn processor(&self) -> f64 {
        let stat = self.proc("stat");
        let after = stat.rsplit(") ").next().unwrap_or_default();
        let ticks = after.split(' ').skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum::<f64>();
        ticks / TICKS
    }
}

impl Remediator {
    /// On a folder that is thrown away afterwards.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(outside: &Outside, rails: &str) -> Result<Remediator> {
        let own = folder()?;
        let mut started = Remediator::start_in(outside, rails, own.path()).await?;
        started._own = Some(own);
        Ok(started)
    }

    /// On a folder that may hold a journal already.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_in(outside: &Outside, rails: &str, dir: &Path) -> Result<Remediator> {
        let listen = nobody()?;
        let settings = format!(
            "listen: {listen}\nstate_dir: state\nplaybooks: [playbook.yml]\n\
             prometheus: {{ url: 'http://{}' }}\nalertmanager: {{ urls: ['http://{}'] }}\n\
             docker: {{ read: 'tcp://{}', restart: 'tcp://{}' }}\nhaproxy: {{ address: 'tcp://{}' }}\n\
             limits: {{ fleet: {{ per: 1m, burst: 1000 }}, group: {{ per: 1m, burst: 1000 }} }}\n",
            outside.prometheus, outside.alertmanager, outside.read_door, outside.restart_door, outside.balancer,
        );
        std::fs::write(dir.join("remediator.yml"), settings)?;
        let services = outside.world.services;
        let playbook = |number: usize| format!("{PLAYBOOK}{rails}").replace("SERVICE", &service(number, services));
        std::fs::write(dir.join("playbook.yml"), (0..services).map(playbook).collect::<Vec<_>>().join("---\n"))?;
        let log = std::fs::File::create(dir.join("log"))?;
        let mut command = Command::new(binary()?);
        command.env("GLIBC_TUNABLES", ALLOCATOR);
        command.args(["serve", "--config"]).arg(dir.join("remediator.yml")).env_remove("RUST_LOG").stderr(log);
        let process = Process::start(&mut command, listen, "/healthz").await;
        let process = process.with_context(|| std::fs::read_to_string(dir.join("log")).unwrap_or_default())?;
        Ok(Remediator { process, folder: dir.to_owned(), _own: None })
    }

    pub fn addr(&self) -> SocketAddr {
        self.process.addr
    }

    /// The journal's file.
    pub fn database(&self) -> PathBuf {
        self.folder.join("state/journal.db")
    }
}
