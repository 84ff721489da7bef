//! What is drained is readmitted in time: the time in which something keeps us from it does not count, and after it the bound
//! begins anew.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{Invariant, Walk};
use crate::sim::What;
use crate::sim::fault::Fault;
use crate::sim::ledger::{Note, Noted};
use crate::target::ServerPath;

/// Longest that a server stays drained in our name while the program lives and the balancer obeys: every step's bound,
/// a restart that is looked for, and the reconciler.
const DRAINED: SignedDuration = SignedDuration::from_secs(240);

/// What keeps a program from readmitting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hindrance {
    Dead,
    DiskFull,
    DiskUnsynced,
    Clock,
    BalancerDown,
    Refused,
}

/// What is drained in our name, and since when nothing has kept us from readmitting it.
#[derive(Default)]
struct Watch {
    out: BTreeMap<ServerPath, Timestamp>,
    /// In maintenance that leaves our drain standing: to be undone when that is over.
    aside: BTreeSet<ServerPath>,
    /// In such maintenance now.
    tracked: BTreeSet<ServerPath>,
    hindered: BTreeSet<Hindrance>,
    /// The end of the last hindrance, or of a standstill that goes on.
    free_since: Option<Timestamp>,
}

impl Watch {
    fn hinders(&mut self, what: Hindrance, on: bool, at: Timestamp) {
        if on {
            self.hindered.insert(what);
        } else if self.hindered.remove(&what) {
            self.free_since = self.free_since.max(Some(at));
        }
    }

    /// How long each has been drained without a reason.
    fn late(&self, now: Timestamp) -> Vec<(ServerPath, SignedDuration)> {
        if !self.hindered.is_empty() {
            return Vec::new();
        }
        let since = |drained: Timestamp| self.free_since.map_or(drained, |free| free.max(drained));
        let out = self.out.iter().map(|(path, drained)| (path.clone(), now.duration_since(since(*drained))));
        out.filter(|(_, took)| *took > DRAINED).collect()
    }

    fn fault(&mut self, fault: &Fault, at: Timestamp, server: impl Fn(usize) -> Option<ServerPath>) {
        use Hindrance::{BalancerDown, Clock, DiskFull, DiskUnsynced, Refused};
        match fault {
            Fault::Full(on) => self.hinders(DiskFull, *on, at),
            Fault::Unsynced(on) => self.hinders(DiskUnsynced, *on, at),
            Fault::Clock(ahead) => self.hinders(Clock, *ahead != 0, at),
            Fault::BalancerDown(on) => self.hinders(BalancerDown, *on, at),
            Fault::RefusesReady(on) => self.hinders(Refused, *on, at),
            Fault::Still(how_long) => {
                let until = SignedDuration::try_from(*how_long).ok().and_then(|how_long| at.checked_add(how_long).ok());
                self.free_since = self.free_since.max(until);
            }
            // Forgotten by the balancer, or somebody else's from now on.
            Fault::Reload => (self.out, self.aside) = Default::default(),
            Fault::Maintenance(replica, _) => {
                if let Some(path) = server(*replica) {
                    self.out.remove(&path);
                    self.aside.remove(&path);
                }
            }
            Fault::Tracked(replica, true) => {
                if let Some(path) = server(*replica) {
                    self.aside.extend(self.out.remove(&path).map(|_| path.clone()));
                    self.tracked.insert(path);
                }
            }
            Fault::Tracked(replica, false) => {
                if let Some(path) = server(*replica) {
                    self.tracked.remove(&path);
                    self.out.extend(self.aside.remove(&path).then_some((path, at)));
                }
            }
            _ => {}
        }
    }
}

impl Walk<'_> {
    pub(super) fn undone(&mut self, notes: &[Note]) {
        let mut watch = Watch::default();
        for note in notes {
            for (path, took) in watch.late(note.at) {
                watch.out.remove(&path);
                self.broken(Invariant::I8, Some(note.at), format!("{path} stayed drained for {took:#}"));
            }
            match &note.what {
                Noted::Act(act) => match &act.what {
                    What::Drain(path) if watch.tracked.contains(path) => {
                        watch.aside.insert(path.clone());
                    }
                    What::Drain(path) => {
                        watch.out.entry(path.clone()).or_insert(note.at);
                    }
                    What::Ready(path) => {
                        watch.out.remove(path);
                        watch.aside.remove(path);
                    }
                    What::Restart { .. } | What::Asked { .. } => {}
                },
                Noted::Died | Noted::DidNotStart | Noted::Stopped => watch.hinders(Hindrance::Dead, true, note.at),
                Noted::Started => watch.hinders(Hindrance::Dead, false, note.at),
                Noted::Calm => {
                    watch.tracked.clear();
                    watch.out.extend(std::mem::take(&mut watch.aside).into_iter().map(|path| (path, note.at)));
                }
                Noted::Fault(fault) => {
                    let server = |number: usize| self.scenario.replicas.get(number).map(|replica| replica.server.clone());
                    watch.fault(fault, note.at, server);
                }
                _ => {}
            }
        }
    }
}
