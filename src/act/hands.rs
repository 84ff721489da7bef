//! What this process does to servers, and has done, and the journal does not say yet. In memory: for whoever has to act while the
//! journal hangs, when the books are as old as the hang.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event::RecordId;
use crate::target::ServerPath;

/// Clones share what they know.
#[derive(Clone, Default)]
pub struct Hands(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    restarting: BTreeSet<ServerPath>,
    /// Drains that are ours no more, or never were, whatever the books say.
    over: BTreeSet<(ServerPath, RecordId)>,
    /// Drains that their run could not undo, and does not try to any more.
    given_up: BTreeSet<(ServerPath, RecordId)>,
}

/// A restart call is under way for as long as this lives, or what became of it is being looked up.
pub struct Restarting {
    hands: Hands,
    server: ServerPath,
}

impl Hands {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before the order is given: until then a server that is readmitted is seen by the last look, and from then on it
    /// must not take traffic.
    pub fn restarting(&self, server: &ServerPath) -> Restarting {
        self.known().restarting.insert(server.clone());
        Restarting { hands: self.clone(), server: server.clone() }
    }

    /// This record's drain of the server is undone, or was never ordered.
    pub fn drain_is_over(&self, server: &ServerPath, record: RecordId) {
        self.known().over.insert((server.clone(), record));
    }

    pub fn is_over(&self, server: &ServerPath, record: RecordId) -> bool {
        self.known().over.contains(&(server.clone(), record))
    }

    /// The record's run has tried to readmit the server for long enough.
    pub fn give_up(&self, server: &ServerPath, record: RecordId) {
        self.known().given_up.insert((server.clone(), record));
    }

    pub fn has_given_up(&self, server: &ServerPath, record: RecordId) -> bool {
        self.known().given_up.contains(&(server.clone(), record))
    }

    /// Of what the books have as drained, what has to be readmitted, and may be.
    pub fn left(&self, drained: Vec<(ServerPath, RecordId)>) -> Vec<(ServerPath, RecordId)> {
        let known = self.known();
        drained.into_iter().filter(|one| !known.over.contains(one) && !known.restarting.contains(&one.0)).collect()
    }

    /// Forgets what the books know by now.
    pub fn forget_all_but(&self, drained: &[(ServerPath, RecordId)]) {
        let mut known = self.known();
        known.over.retain(|one| drained.contains(one));
        known.given_up.retain(|one| drained.contains(one));
    }
}

impl Drop for Restarting {
    fn drop(&mut self) {
        self.hands.known().restarting.remove(&self.server);
    }
}
