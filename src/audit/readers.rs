//! Connections to the journal that only read. A few are kept open between questions.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use crate::audit::JournalError;
use crate::audit::projection::MIGRATIONS;
use crate::edge::sqlite;

/// Connections kept open between questions.
const IDLE: usize = 4;

/// The readers of one database.
pub struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    /// None is open yet.
    pub fn of(path: PathBuf) -> Readers {
        Readers { path, idle: Mutex::default() }
    }

    /// Asks one connection, on the caller's thread.
    ///
    /// # Errors
    /// The database cannot be opened, or the question's own.
    pub fn ask<T>(&self, question: impl FnOnce(&Connection) -> Result<T, JournalError>) -> Result<T, JournalError> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle().pop();
        let conn = match kept {
            Some(conn) => conn,
            None => sqlite::reader(&self.path, MIGRATIONS.len())?,
        };
        // A connection whose question failed is not kept: the next one opens the file afresh.
        let answer = question(&conn)?;
        let mut idle = idle();
        if idle.len() < IDLE {
            idle.push(conn);
        }
        Ok(answer)
    }

    /// The WAL that SQLite keeps beside the database.
    pub fn wal(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push("-wal");
        PathBuf::from(name)
    }
}
