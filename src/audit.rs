//! What happened, and why: the journal, and everything that reads it.
//!
//! Promises: what was answered is on the disk; an entry is never changed or taken away without that being noticed; the
//! records, the books and the file `audit.jsonl` are nothing but folds of the entries, so that they can be thrown away
//! and made again.
//!
//! [`journal`] is the one writer, [`state`] what it knows, [`chain`] the hashes, `projection` the tables that make
//! reading cheap, [`query`] the questions, [`export`] the lines that log shippers read. [`prune`] bounds the journal, and
//! [`anchor`] is what it leaves in the place of the entries it takes out.

pub mod anchor;
#[doc(hidden)]
pub mod bulk;
pub mod canonical;
pub mod chain;
mod commit;
pub mod export;
pub mod journal;
mod lock;
pub mod patrol;
mod projection;
pub mod prune;
mod pulse;
pub mod query;
mod readers;
pub mod state;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod walks;

use std::path::PathBuf;
use std::sync::Arc;

use crate::edge::sqlite::StoreError;
use crate::event::IllegalTransition;

pub use chain::{Broken, Head};
pub use journal::Journal;
pub use query::{Cursor, Filter, Found, Page, Told};
pub use state::State;

/// Why the journal did not do what it was asked. Whatever the variant, nothing of the transaction happened.
///
/// `Clone`, because one failed commit answers every caller of its batch.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    #[error("another remediator ({}) uses {}", pid.map_or("pid unknown".to_owned(), |pid| format!("pid {pid}")), dir.display())]
    Locked { pid: Option<u32>, dir: PathBuf },
    #[error("the state directory {} cannot be used", dir.display())]
    Directory { dir: PathBuf, source: Arc<std::io::Error> },
    #[error("the journal cannot be opened")]
    Open(#[source] Arc<StoreError>),
    #[error("{} was removed or replaced while it was in use; start remediator again (RUNBOOK.md, Restore from a lost disk)", file.display())]
    Gone { file: PathBuf },
    #[error("the journal could not be read or written")]
    Store(#[source] Arc<rusqlite::Error>),
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    #[error("an entry `{kind}` cannot be written down: {why}")]
    Unwritable { kind: &'static str, why: String },
    #[error("the journal's queue is full")]
    Overloaded,
    #[error("the journal is closed")]
    Closed,
    #[error("the journal was pruned meanwhile")]
    Outdated,
    #[error("a transaction's own code panicked")]
    Panicked,
    #[error("`{0}` is not a cursor that this journal gave")]
    Cursor(String),
}

impl From<rusqlite::Error> for JournalError {
    fn from(error: rusqlite::Error) -> Self {
        JournalError::Store(Arc::new(error))
    }
}

impl From<StoreError> for JournalError {
    fn from(error: StoreError) -> Self {
        JournalError::Open(Arc::new(error))
    }
}
