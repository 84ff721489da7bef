//! A storm: all 5,000 replicas of 100 services fire at once, told as one body and as 5,000. Nothing may be restarted of a service
//! that is sick as a whole.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rusqlite::{Connection, OpenFlags};

use super::{Effort, calibration, requests_of, row, settle};
use crate::load::{Run, closed, median};
use crate::outside::Outside;
use crate::program::{RAILS, Remediator};
use crate::table::Table;

const STORM: usize = 5_000;
/// Fifty replicas each.
const SERVICES: usize = 100;

struct Storm {
    run: Run,
    restarts: usize,
    records: usize,
    settled: Duration,
    acknowledging: f64,
    peak: f64,
}

async fn storm(per: usize) -> Result<Storm> {
    let outside = Outside::spread(STORM, SERVICES, true).await?;
    let it = Remediator::start(&outside, RAILS).await?;
    let begun = Instant::now();
    let run = closed(it.addr(), 64, requests_of("/remediate", 0..STORM, per, SERVICES)).await?;
    let acknowledging = it.process.memory().1;
    let conn = Connection::open_with_flags(it.database(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let count = |sql: &str| conn.query_row(sql, (), |row| row.get::<_, usize>(0));
    settle(&conn).await?;
    // One record for each; whoever is asked again says the same, and that is no record.
    let records = count("SELECT count(*) FROM records")?;
    ensure!(count("SELECT count(DISTINCT key) FROM records")? == STORM, "an alert of the storm has no record");
    let (_, peak) = it.process.memory();
    Ok(Storm { run, restarts: outside.restarts().len(), records, settled: begun.elapsed(), acknowledging, peak })
}

/// # Errors
/// Something does not start, or an alert has no record.
pub async fn storms(table: &mut Table, effort: Effort) -> Result<()> {
    for (what, per) in [("as one body", STORM), ("as 5,000 bodies", 1)] {
        let (mut rounds, mut disks) = (Vec::new(), Vec::new());
        for _ in 0..effort.rounds {
            let disk = calibration(per)?;
            let storm = storm(per).await?;
            println!(
                "  storm {what}: p99 {:.0} ms, {} restarts, {} records, settled in {:.1} s, RSS {:.0} then {:.0} MiB",
                storm.run.quantile(0.99),
                storm.restarts,
                storm.records,
                storm.settled.as_secs_f64(),
                storm.acknowledging,
                storm.peak
            );
            rounds.push(storm);
            disks.push(disk);
        }
        let column = |of: fn(&Storm) -> f64| median(rounds.iter().map(of).collect());
        let p99 = column(|storm| storm.run.quantile(0.99));
        let peak = column(|storm| storm.peak);
        let restarts = rounds.iter().map(|storm| storm.restarts).max().unwrap_or(0);
        let most = rounds.iter().map(|storm| storm.records).max().unwrap_or(0);
        row(
            table,
            &format!("storm of 5,000 alerts, {what}"),
            format!(
                "at most {restarts} actions, {most} records, acknowledged p99 {p99:.0} ms, all settled in {:.0} s, RSS at its highest {peak:.0} MiB",
                column(|storm| storm.settled.as_secs_f64())
            ),
            format!("fdatasync {:.2} ms", median(disks)),
            String::new(),
            "≤ 1 action, p99 < 1 s, RSS < 64 MiB",
            Some(restarts <= 1 && p99 < 1_000.0 && peak < 64.0),
        );
    }
    Ok(())
}
