//! SQLite as the journal needs it: one file, one writing connection, any number of reading ones.
//!
//! Promise: a commit that returned is on the disk (`journal_mode=WAL`, `synchronous=FULL`; WAL with `NORMAL` would not
//! sync on commit), and a database is never opened by a program that is older than its schema.
//!
//! How: [`writer`] sets the pragmas and brings the schema up to date, each migration in one transaction together with
//! `user_version`. Every write goes through [`write`], which begins `IMMEDIATE`: a deferred transaction that turns into
//! a writer half-way fails with `SQLITE_BUSY` no matter how patient its timeout is.
//!
//! The WAL is brought into the database in quiet moments ([`catch_up`]). SQLite would do it within a commit, every thousand
//! pages: with a million records behind, a hundred alerts touch 800 pages of the indexes, and each second commit paid for it.
//!
//! Race accepted: when the sync of a commit fails, the frames may still be in the WAL, and a crash before the next
//! commit brings them back. The caller was told "not durable" and nothing was done; what comes back is at most an entry
//! whose effect never happened, which recovery after a crash must expect anyway.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Row, Transaction, TransactionBehavior};

/// How long to wait for somebody else's lock. Only `audit rebuild` and a person's `sqlite3` can hold one: writers are
/// kept apart by the state directory's lock, and WAL readers block nobody.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// What the WAL is cut back to after a checkpoint, so that one burst does not occupy the disk for ever.
const WAL_LIMIT_BYTES: i64 = 64 << 20;
/// Pages of the WAL (32 MiB) at which a commit brings them into the database after all, because the writer never had a quiet
/// moment for it ([`catch_up`]).
pub const WAL_PAGES: i64 = 8192;
/// Statements kept prepared; the journal uses about twenty.
const STATEMENT_CACHE: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open {path}")]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error("cannot prepare {path}")]
    Pragma { path: String, source: rusqlite::Error },
    #[error("cannot bring the database from schema {from} to {to}")]
    Migrate { from: usize, to: usize, source: rusqlite::Error },
    #[error("the database has schema {found}, this program knows {known}: it was written by a newer remediator")]
    Newer { found: usize, known: usize },
}

/// Opens (and, unless it is there, makes) the database for writing, with the schema of `migrations`.
/// `migrations[n]` leads from version n to n + 1; a published one is never changed.
///
/// # Errors
/// The file cannot be opened or prepared, or has a newer schema.
pub fn writer(path: &Path, migrations: &[&str]) -> Result<Connection, StoreError> {
    let conn = Connection::open(path).map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
    prepare(conn, migrations)
}

/// A database that lives as long as its one connection.
///
/// # Errors
/// As [`writer`].
pub fn in_memory(migrations: &[&str]) -> Result<Connection, StoreError> {
    let conn = Connection::open_in_memory().map_err(|source| StoreError::Open { path: PathBuf::from(":memory:"), source })?;
    prepare(conn, migrations)
}

/// Opens an existing database for reading only. It sees what is committed, and blocks nobody.
///
/// # Errors
/// There is no such file, or it has another schema than `version`: reading needs all of it and must not migrate.
pub fn reader(path: &Path, version: usize) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = |source| StoreError::Open { path: path.to_owned(), source };
    let conn = Connection::open_with_flags(path, flags).map_err(open)?;
    conn.busy_timeout(BUSY_TIMEOUT).map_err(|source| unprepared(&conn, source))?;
    conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    no_temporary_files(&conn).map_err(|source| unprepared(&conn, source))?;
    // The first touch of the file: "not a database" shows here.
    let found = schema_version(&conn).map_err(open)?;
    match found.cmp(&version) {
        std::cmp::Ordering::Equal => Ok(conn),
        std::cmp::Ordering::Greater => Err(StoreError::Newer { found, known: version }),
        std::cmp::Ordering::Less => {
            let source = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY), None);
            Err(StoreError::Migrate { from: found, to: version, source })
        }
    }
}

/// Runs `body` in one `IMMEDIATE` transaction: all of it is on the disk when this returns `Ok`, none of it otherwise.
///
/// # Errors
/// What `body` answered, or why SQLite could not begin or commit.
pub fn write<T, E: From<rusqlite::Error>>(
    conn: &mut Connection,
    body: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = body(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

/// A count as SQLite's signed integer. What does not fit (nothing that counts from one does) becomes the largest.
pub fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A count that [`integer`] wrote.
///
/// # Errors
/// It is missing or negative.
pub fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

/// Which file it is, whatever its name: device and inode.
pub type Identity = (u64, u64);

/// The file that now has the name under which `conn` opened its own; none when there is none, or in memory.
pub fn identity(conn: &Connection) -> Option<Identity> {
    let found = std::fs::metadata(conn.path().filter(|path| !path.is_empty())?).ok()?;
    Some((found.dev(), found.ino()))
}

/// How much room a database takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Of the file and of what waits beside it in the WAL.
    pub file: u64,
    /// Of that, what holds data: pages that are not free.
    pub live: u64,
}

/// How much room the database takes that `conn` has open; `wal` is the file beside it, if there is one.
///
/// # Errors
/// The database cannot be read.
pub fn room(conn: &Connection, wal: &Path) -> rusqlite::Result<Room> {
    let number = |name: &str| conn.pragma_query_value(None, name, |row| count(row, 0));
    let (size, pages, free) = (number("page_size")?, number("page_count")?, number("freelist_count")?);
    let wal = std::fs::metadata(wal).map_or(0, |found| found.len());
    Ok(Room { file: pages * size + wal, live: pages.saturating_sub(free) * size })
}

/// Gives up to `pages` free pages back to the file system, in one commit. Answers how many are still free; they stay so
/// in a database that was made without incremental vacuum.
///
/// # Errors
/// Whatever SQLite says.
pub fn shrink(conn: &Connection, pages: u32) -> rusqlite::Result<u64> {
    // A row for each page: it must be read to the end, or only the first is given back.
    conn.pragma(None, "incremental_vacuum", pages, |_| Ok(()))?;
    conn.pragma_query_value(None, "freelist_count", |row| count(row, 0))
}

/// Brings the WAL into the database as far as readers let it, and waits for nobody.
///
/// # Errors
/// Whatever SQLite says.
pub fn catch_up(conn: &Connection) -> rusqlite::Result<()> {
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()))
}

/// Brings the WAL into the database and cuts it to nothing, unless somebody is reading from it: waits for nobody.
/// Answers whether it was cut.
///
/// # Errors
/// Whatever SQLite says.
pub fn empty_wal(conn: &Connection) -> rusqlite::Result<bool> {
    conn.busy_timeout(Duration::ZERO)?;
    let busy = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get::<_, i64>(0));
    conn.busy_timeout(BUSY_TIMEOUT)?;
    match busy {
        Ok(busy) => Ok(busy == 0),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Ok(false),
        Err(error) => Err(error),
    }
}

fn unprepared(conn: &Connection, source: rusqlite::Error) -> StoreError {
    StoreError::Pragma { path: conn.path().unwrap_or_default().to_owned(), source }
}

fn prepare(mut conn: Connection, migrations: &[&str]) -> Result<Connection, StoreError> {
    pragmas(&conn).map_err(|source| unprepared(&conn, source))?;
    migrate(&mut conn, migrations)?;
    Ok(conn)
}

fn pragmas(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    // Before the first page is written; a database that is there already keeps what it has (only VACUUM changes that), and
    // reuses its free pages instead of giving them back.
    conn.pragma_update(None, "auto_vacuum", "incremental")?;
    // Answers with the mode it took; an in-memory database stays "memory".
    conn.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update_and_check(None, "wal_autocheckpoint", WAL_PAGES, |_| Ok(()))?;
    no_temporary_files(conn)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update_and_check(None, "journal_size_limit", WAL_LIMIT_BYTES, |_| Ok(()))?;
    conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    Ok(())
}

/// What SQLite would put into temporary files (a statement's own undo, a large sort) stays in memory: an empty image with a
/// read-only root has no place for them.
fn no_temporary_files(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update(None, "temp_store", "memory")
}

fn schema_version(conn: &Connection) -> rusqlite::Result<usize> {
    conn.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).map(|v| usize::try_from(v).unwrap_or(usize::MAX))
}

fn migrate(conn: &mut Connection, migrations: &[&str]) -> Result<(), StoreError> {
    let to = migrations.len();
    let from = schema_version(conn).map_err(|source| unprepared(conn, source))?;
    if from > to {
        return Err(StoreError::Newer { found: from, known: to });
    }
    for (version, sql) in migrations.iter().enumerate().skip(from) {
        let step = |transaction: &Transaction<'_>| {
            transaction.execute_batch(sql)?;
            transaction.pragma_update(None, "user_version", i64::try_from(version + 1).unwrap_or(i64::MAX))
        };
        write(conn, step).map_err(|source: rusqlite::Error| StoreError::Migrate { from, to, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrates_step_by_step_and_refuses_a_newer_schema() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.db");
        drop(writer(&path, &["CREATE TABLE a(x)"]).expect("new"));
        assert!(reader(&path, 2).is_err(), "a reader must not migrate");
        let conn = writer(&path, &["CREATE TABLE a(x)", "CREATE TABLE b(x)"]).expect("one step on");
        conn.execute_batch("INSERT INTO b VALUES (1)").expect("the second table is there");
        drop(conn);
        assert!(matches!(writer(&path, &["CREATE TABLE a(x)"]), Err(StoreError::Newer { found: 2, known: 1 })));
    }

    #[test]
    fn a_commit_is_synced_and_a_migration_that_fails_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.db");
        assert!(writer(&path, &["CREATE TABLE a(x); CREATE TABLE a(x)"]).is_err());
        let conn = writer(&path, &["CREATE TABLE a(x)"]).expect("the failed one left no table");
        let mode: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0)).expect("mode");
        let sync: i64 = conn.pragma_query_value(None, "synchronous", |row| row.get(0)).expect("synchronous");
        assert_eq!((mode.as_str(), sync), ("wal", 2));
        let reading = reader(&path, 1).expect("it is there");
        for conn in [&conn, &reading] {
            let temporary: i64 = conn.pragma_query_value(None, "temp_store", |row| row.get(0)).expect("temp_store");
            assert_eq!(temporary, 2, "in an image without /tmp a temporary file is an I/O error");
        }
    }
}
