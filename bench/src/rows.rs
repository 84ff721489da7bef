//! The rows of the table, a group of them in each file. Both sides of a ratio take turns, round by round; what stands in the
//! table is the median of the rounds.

pub mod acceptance;
pub mod size;
pub mod storm;
pub mod walk;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rusqlite::Connection;

use crate::alerts::{notification, notification_of};
use crate::disk::fdatasync;
use crate::load::median;
use crate::table::{Row, Table};
use crate::wire::post;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub rounds: usize,
    /// Episodes of one round, below the 10,000 that a remediator holds at once.
    pub episodes: usize,
}

/// One request per `per` alerts, each alert of a replica of its own.
pub fn requests(path: &str, alerts: usize, per: usize) -> Arc<Vec<Vec<u8>>> {
    requests_of(path, 0..alerts, per, 1)
}

/// As [`requests`], of the replicas of these numbers, which are spread over so many services.
pub fn requests_of(path: &str, replicas: Range<usize>, per: usize, services: usize) -> Arc<Vec<Vec<u8>>> {
    let one = |first: usize| post(path, &notification_of(first..(first + per).min(replicas.end), services));
    Arc::new(replicas.clone().step_by(per).map(one).collect())
}

/// Waits until every record of a journal has an outcome, but not for ever.
///
/// # Errors
/// It cannot be read.
pub async fn settle(journal: &Connection) -> Result<()> {
    const LONGEST: Duration = Duration::from_secs(600);
    let begun = Instant::now();
    let open = || journal.query_row("SELECT count(*) FROM records WHERE closed_at IS NULL", (), |row| row.get::<_, usize>(0));
    while open()? > 0 && begun.elapsed() < LONGEST {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// The calibration that stands beside a durable figure: one write and sync of a notification with so many alerts, in milliseconds.
///
/// # Errors
/// The disk refuses.
pub fn calibration(alerts: usize) -> Result<f64> {
    Ok(fdatasync(notification(0..alerts).len(), 100)?)
}

/// Medians of the columns of several rounds.
pub fn medians<const N: usize>(rounds: &[[f64; N]]) -> [f64; N] {
    std::array::from_fn(|column| median(rounds.iter().filter_map(|round| round.get(column).copied()).collect()))
}

/// Median of the ratios of two columns, round by round.
pub fn ratio<const N: usize>(rounds: &[[f64; N]], over: usize, under: usize) -> f64 {
    median(rounds.iter().filter_map(|round| Some(round.get(over)? / round.get(under)?)).collect())
}

pub fn row(table: &mut Table, what: &str, measured: String, beside: String, ratio: String, goal: &str, met: Option<bool>) {
    table.add(Row { what: what.to_owned(), measured, beside, ratio, goal: goal.to_owned(), met });
}
