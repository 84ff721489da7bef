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

    /// Of what the books have as drained, what has to be readmitted, and may be. The rest of what was over is forgotten.
    pub fn left(&self, drained: Vec<(ServerPath, RecordId)>) -> Vec<(ServerPath, RecordId)> {
        let mut known = self.known();
        let books: BTreeSet<_> = drained.iter().cloned().collect();
        known.over.retain(|over| books.contains(over));
        drained.into_iter().filter(|one| !known.over.contains(one) && !known.restarting.contains(&one.0)).collect()
    }
}

impl Drop for Restarting {
    fn drop(&mut self) {
        self.hands.known().restarting.remove(&self.server);
    }
}
