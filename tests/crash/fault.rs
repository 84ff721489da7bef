//! Where a run is broken, and how.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracer::{Call, Fate, What};

use crate::outside::Keeper;
use crate::wire::Act;

/// How long a disk stays full or broken.
const A_WHILE: Duration = Duration::from_secs(2);
const ENOSPC: i32 = 28;
const EIO: i32 = 5;
pub const SIGKILL: i32 = 9;

/// A kind of point.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A change of one of the program's files.
    File(&'static str, What),
    /// A request at a door.
    Door(&'static str, String),
}

/// The n-th point of a kind in one life of the program, from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point {
    pub kind: Kind,
    pub n: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// SIGKILL instead of it.
    KillBefore,
    /// It is done, and SIGKILL before the program hears of it.
    KillAfter,
    /// Half of the bytes, then SIGKILL.
    Torn,
    /// ENOSPC, once.
    NoSpace,
    /// Half of the bytes, then ENOSPC for every file, for a while.
    Full,
    /// EIO, once.
    IoError,
    /// EIO for every write and sync, for a while.
    Broken,
    /// Neither done nor answered, and so is every other change of a file, until the disk is mended.
    Hangs,
    /// As `Hangs`, and the program is asked to stop.
    HangsAtStop,
    /// The door says no.
    Refused,
    /// It is not done, and nothing is answered.
    Silent,
    /// It is done, and nothing is answered.
    DoneSilent,
    /// It is done, and the connection ends without an answer.
    DoneCut,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fault {
    pub point: Point,
    pub mode: Mode,
}

/// What was counted in one life of the program.
pub type Counts = BTreeMap<Kind, u32>;

impl Kind {
    pub const COMMIT: Kind = Kind::File("journal.db-wal", What::Sync);

    pub fn modes(&self) -> &'static [Mode] {
        use Mode::*;
        match self {
            Kind::File(_, What::Write) => &[KillBefore, Torn, KillAfter, NoSpace, Full, IoError],
            Kind::File(_, What::Sync) => &[KillBefore, KillAfter, NoSpace, IoError, Broken],
            Kind::File(_, What::Create | What::Truncate | What::Rename) => &[KillBefore, KillAfter, NoSpace, IoError],
            Kind::File(_, What::Remove) => &[KillBefore, KillAfter, IoError],
            Kind::Door(..) if self.changes_something() => &[KillBefore, KillAfter, Refused, Silent, DoneSilent, DoneCut],
            Kind::Door(..) => &[KillBefore, KillAfter, Refused, Silent],
        }
    }

    pub fn changes_something(&self) -> bool {
        let Kind::Door(door, request) = self else { return false };
        matches!(
            (*door, request.as_str()),
            ("restart door", "restart") | ("balancer", "drain" | "ready") | ("alertmanager", "page")
        )
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kind::File(file, what) => write!(f, "{file}:{}", format!("{what:?}").to_lowercase()),
            Kind::Door(door, request) => write!(f, "{door}:{request}"),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}/{:?}", self.point.kind, self.point.n, self.mode)
    }
}

/// Counts the points of one life and breaks one of them.
pub struct Breaker {
    fault: Option<Fault>,
    counts: Mutex<Counts>,
    hit: Mutex<Option<Instant>>,
    opened: Mutex<Option<u32>>,
    mended: AtomicBool,
    asked: AtomicBool,
    pub pid: AtomicI32,
}

impl Breaker {
    pub fn new(fault: Option<Fault>) -> Arc<Breaker> {
        let (mended, asked, pid) = (AtomicBool::new(false), AtomicBool::new(false), AtomicI32::new(0));
        let (counts, hit, opened) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Breaker { fault, counts, hit, opened, mended, asked, pid })
    }

    pub fn counts(&self) -> Counts {
        self.counts.lock().expect("no panic").clone()
    }

    pub fn hit(&self) -> Option<Instant> {
        *self.hit.lock().expect("no panic")
    }

    /// It was come to, and it was no matter of a moment.
    pub fn lasted(&self) -> bool {
        let lasts = self.fault.as_ref().is_some_and(|fault| matches!(fault.mode, Mode::Full | Mode::Broken));
        lasts && self.hit().is_some_and(|at| at.elapsed() > A_WHILE)
    }

    /// How many commits came before anything was asked of the outside: those of the journal while it is opened, and the first words.
    pub fn opened(&self) -> u32 {
        self.opened.lock().expect("no panic").unwrap_or(0)
    }

    /// The disk hangs, and will until it is mended.
    pub fn hangs(&self) -> bool {
        let hangs = matches!(self.mode(), Some(Mode::Hangs | Mode::HangsAtStop));
        hangs && self.hit().is_some() && !self.mended.load(Ordering::SeqCst)
    }

    /// In one life.
    pub fn once(&self, what: impl FnOnce()) {
        if !self.asked.swap(true, Ordering::SeqCst) {
            what();
        }
    }

    pub fn mode(&self) -> Option<Mode> {
        self.fault.as_ref().map(|fault| fault.mode)
    }

    pub fn mend(&self) {
        self.mended.store(true, Ordering::SeqCst);
    }

    /// Counts a point; the mode if it is the one to be broken.
    fn comes_to(&self, kind: Kind) -> Option<Mode> {
        let mut counts = self.counts.lock().expect("no panic");
        if matches!(kind, Kind::Door(..)) {
            self.opened.lock().expect("no panic").get_or_insert(counts.get(&Kind::COMMIT).copied().unwrap_or(0));
        }
        let n = counts.entry(kind.clone()).or_default();
        *n += 1;
        let fault = self.fault.as_ref().filter(|fault| fault.point.kind == kind && fault.point.n == *n)?;
        *self.hit.lock().expect("no panic") = Some(Instant::now());
        Some(fault.mode)
    }

    /// What becomes of a change of a file. Files that are not the program's own go their way.
    pub fn judge(&self, folder: &Path, call: &Call) -> Fate {
        let Some(file) = file(folder, &call.path) else { return Fate::Go };
        if call.held {
            return if self.hangs() { Fate::Hold } else { Fate::Go };
        }
        match self.comes_to(Kind::File(file, call.what)) {
            Some(Mode::KillBefore) => Fate::Die,
            Some(Mode::KillAfter) => Fate::GoThenDie,
            Some(Mode::Torn) => Fate::ShortThenDie(call.length / 2),
            Some(Mode::NoSpace) => Fate::Refuse(ENOSPC),
            Some(Mode::Full) if call.length > 1 => Fate::Short(call.length / 2),
            Some(Mode::Full) => Fate::Refuse(ENOSPC),
            Some(Mode::IoError | Mode::Broken) => Fate::Refuse(EIO),
            Some(Mode::Hangs | Mode::HangsAtStop) => Fate::Hold,
            Some(Mode::Refused | Mode::Silent | Mode::DoneSilent | Mode::DoneCut) => Fate::Go,
            None => self.aftermath(call.what),
        }
    }

    fn aftermath(&self, what: What) -> Fate {
        let lasts = self.hit().is_some_and(|at| at.elapsed() < A_WHILE);
        match self.mode() {
            Some(Mode::Full) if lasts && matches!(what, What::Write | What::Create | What::Truncate) => Fate::Refuse(ENOSPC),
            Some(Mode::Broken) if lasts && matches!(what, What::Write | What::Sync) => Fate::Refuse(EIO),
            Some(Mode::Hangs | Mode::HangsAtStop) if self.hangs() => Fate::Hold,
            _ => Fate::Go,
        }
    }

    fn kill(&self) -> Option<Act> {
        tracer::send(self.pid.load(Ordering::SeqCst), SIGKILL);
        Some(Act::Say(Vec::new()))
    }
}

/// The doors' keeper lives as long as the doors; the program has several lives.
#[derive(Default)]
pub struct Doorman {
    pub breaker: Mutex<Option<Arc<Breaker>>>,
    /// Decided before a request is done, and to be carried out after it.
    pending: Mutex<BTreeMap<(&'static str, String), Mode>>,
}

impl Keeper for Doorman {
    fn before(&self, door: &'static str, request: &str) -> Option<Act> {
        let breaker = self.breaker.lock().expect("no panic").clone()?;
        let mode = breaker.comes_to(Kind::Door(door, asked(request)))?;
        match mode {
            Mode::KillBefore => breaker.kill(),
            Mode::Refused => Some(Act::Say(no(door))),
            Mode::Silent => Some(Act::SayThenHang(Vec::new())),
            done => {
                self.pending.lock().expect("no panic").insert((door, request.to_owned()), done);
                None
            }
        }
    }

    fn after(&self, door: &'static str, request: &str) -> Option<Act> {
        match self.pending.lock().expect("no panic").remove(&(door, request.to_owned()))? {
            Mode::KillAfter => self.breaker.lock().expect("no panic").as_ref()?.kill(),
            Mode::DoneSilent => Some(Act::SayThenHang(Vec::new())),
            _ => Some(Act::Say(Vec::new())),
        }
    }
}

fn no(door: &str) -> Vec<u8> {
    match door {
        "balancer" => b"Permission denied\n\n".to_vec(),
        _ => crate::wire::http(500, r#"{"message":"no"}"#),
    }
}

/// What a request asks for, without what differs from one to the next.
fn asked(request: &str) -> String {
    let line = request.lines().next().unwrap_or_default().trim();
    let mut words = line.split(' ');
    let (method, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = rest.split('?').next().unwrap_or_default();
    match method {
        "set" => line.rsplit(' ').next().unwrap_or_default().to_owned(),
        "show" => line.to_owned(),
        "POST" if path.ends_with("/alerts") => "page".to_owned(),
        _ => path.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default().trim_start_matches('_').to_owned(),
    }
}

/// Which of the program's files a path is.
fn file(folder: &Path, path: &Path) -> Option<&'static str> {
    let name = path.strip_prefix(folder).ok()?.to_str()?;
    Some(match name {
        "state" => "state/",
        "state/journal.db" => "journal.db",
        "state/journal.db-wal" => "journal.db-wal",
        "state/journal.db-shm" => "journal.db-shm",
        "state/journal.db-journal" => "journal.db-journal",
        "state/audit.jsonl" => "audit.jsonl",
        "state/audit.jsonl.position.new" | "state/audit.jsonl.position" => "audit.jsonl.position",
        "state/lock" => "lock",
        _ if name.starts_with("text/") => "textfile",
        _ if name.starts_with("state/") => "state/*",
        _ => return None,
    })
}
