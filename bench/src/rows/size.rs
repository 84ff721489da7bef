//! What it takes when nothing happens.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rusqlite::{Connection, OpenFlags};

use super::acceptance::hundreds_behind;
use super::{Effort, row};
use crate::alerts::notification;
use crate::load::{median, quantile};
use crate::outside::Outside;
use crate::program::{RAILS, Remediator, binary};
use crate::store::{began, journal};
use crate::table::Table;
use crate::wire::{Asker, get, post};

/// # Errors
/// It does not start.
pub async fn idle(table: &mut Table) -> Result<()> {
    const WATCHED: Duration = Duration::from_secs(60);
    let outside = Outside::start(8, false).await?;
    let it = Remediator::start(&outside, RAILS).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = it.process.processor();
    tokio::time::sleep(WATCHED).await;
    let share = (it.process.processor() - before) / WATCHED.as_secs_f64() * 100.0;
    let (now, _) = it.process.memory();
    row(
        table,
        "idle for a minute",
        format!("RSS {now:.1} MiB, {share:.2} % of a processor"),
        String::new(),
        String::new(),
        "< 20 MiB, < 0.1 %",
        Some(now < 20.0 && share < 0.1),
    );
    let size = std::fs::metadata(binary()?)?.len() as f64 / 1024.0 / 1024.0;
    row(
        table,
        "binary, static and stripped",
        format!("{size:.1} MiB"),
        String::new(),
        String::new(),
        "< 15 MiB",
        Some(size < 15.0),
    );
    Ok(())
}

/// A journal with many records: the start, a page by each filter, and more alerts into it.
///
/// # Errors
/// The disk is full, most likely.
pub async fn store(table: &mut Table, effort: Effort, records: u64) -> Result<()> {
    let folder = tokio::task::spawn_blocking(move || journal(records)).await??;
    let millions = records as f64 / 1e6;
    let outside = Outside::start(8, false).await?;
    let mut ready = Vec::new();
    let mut memory = 0.0;
    for round in 0..effort.rounds {
        let begun = Instant::now();
        let it = Remediator::start_in(&outside, RAILS, folder.path()).await?;
        let mut asker = Asker::connect(it.addr()).await?;
        // Ready is who takes an alert: this one folds from the second round on, or is new.
        let status = asker.ask(&post("/remediate", &notification(20_000 + round..20_001 + round))).await?;
        anyhow::ensure!(status == 202, "{status}: {}", asker.body());
        ready.push(begun.elapsed().as_secs_f64() * 1e3);
        memory = it.process.memory().1;
    }
    let start = median(ready);
    row(
        table,
        &format!("start to ready with {millions} million records"),
        format!("{start:.0} ms, RSS {memory:.0} MiB"),
        String::new(),
        String::new(),
        "< 200 ms with 1 million",
        Some(start < 200.0),
    );
    pages(table, effort, folder.path(), &outside, millions).await?;
    hundreds_behind(table, effort, folder.path(), millions).await
}

/// Each round asks by every filter, and then bare SQLite; medians of the rounds.
async fn pages(table: &mut Table, effort: Effort, folder: &Path, outside: &Outside, millions: f64) -> Result<()> {
    let it = Remediator::start_in(outside, RAILS, folder).await?;
    let bare = Connection::open_with_flags(it.database(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let target = "inventory/inventory-77:8080".to_owned();
    let group = "%7B%7D%3A%7Bzone%3D%223%22%7D";
    let middle = began() + jiff::SignedDuration::from_millis((millions * 1e6 * 250.0) as i64);
    let late = began() + jiff::SignedDuration::from_millis((millions * 1e6 * 500.0) as i64 - 10_000);
    let early = began() + jiff::SignedDuration::from_secs(600);
    let filters = [
        ("none", String::new()),
        ("none, the page after it", format!("cursor={}", next(it.addr()).await?)),
        ("outcome", "outcome=condition_cleared".to_owned()),
        ("outcome, one in a thousand", "outcome=refused".to_owned()),
        ("reason", "reason=cooldown".to_owned()),
        ("playbook", "playbook=other".to_owned()),
        ("target", format!("target={target}")),
        ("fingerprint", format!("fingerprint={:016x}", 77)),
        ("groupKey", format!("groupKey={group}")),
        ("since, half of all", format!("since={middle}")),
        ("since, the last ten seconds", format!("since={late}")),
        ("until, half of all", format!("until={middle}")),
        ("until, the first ten minutes", format!("until={early}")),
    ];
    let mut seen: Vec<Vec<(f64, f64)>> = vec![Vec::new(); filters.len()];
    let mut plain = Vec::new();
    for _ in 0..effort.rounds {
        for ((_, query), seen) in filters.iter().zip(&mut seen) {
            seen.push(page_of(it.addr(), query).await?);
        }
        plain.push(bare_page(&bare)?);
    }
    let plain = median(plain);
    let mut worst: Option<(f64, String)> = None;
    let mut told = Vec::new();
    for ((name, _), seen) in filters.iter().zip(seen) {
        let (p50, p99): (Vec<f64>, Vec<f64>) = seen.into_iter().unzip();
        println!("  /audit {name}: p50 {p50:.2?} ms, p99 {p99:.2?} ms");
        let (p50, p99) = (median(p50), median(p99));
        told.push(format!("{name} {p50:.2} / {p99:.2}"));
        if worst.as_ref().is_none_or(|(most, _)| p99 > *most) {
            worst = Some((p99, (*name).to_owned()));
        }
    }
    let (p99, name) = worst.unwrap_or_default();
    row(
        table,
        &format!("`/audit` page of 50 over {millions} million records, warm: p50 / p99 in ms by filter"),
        told.join("; "),
        format!("bare SQLite, rows by index, nothing parsed: p99 {plain:.2} ms"),
        format!("worst p99 {p99:.2} ms ({name})"),
        "p99 < 3 ms",
        Some(p99 < 3.0),
    );
    Ok(())
}

/// 200 warm pages by one filter, on a connection of their own: p50 and p99, in milliseconds.
async fn page_of(to: SocketAddr, query: &str) -> Result<(f64, f64)> {
    let mut asker = Asker::connect(to).await?;
    let request = get(&format!("/audit?limit=50&{query}"));
    let mut took = Vec::new();
    for number in 0..220 {
        let begun = Instant::now();
        let status = asker.ask(&request).await?;
        anyhow::ensure!(status == 200, "{query}: {status} {}", asker.body());
        // The first ones warm it.
        if number >= 20 {
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        if begun.elapsed() > Duration::from_secs(1) && number > 3 {
            took.push(begun.elapsed().as_secs_f64() * 1e3);
            break;
        }
    }
    Ok((quantile(took.clone(), 0.5), quantile(took, 0.99)))
}

/// The cursor of the page after the first.
async fn next(addr: SocketAddr) -> Result<String> {
    let mut asker = Asker::connect(addr).await?;
    asker.ask(&get("/audit?limit=50")).await?;
    let page: serde_json::Value = serde_json::from_str(&asker.body())?;
    Ok(page.get("next").and_then(serde_json::Value::as_str).context("a page after the first")?.to_owned())
}

/// The same rows read by the right index, in this process, without a server.
fn bare_page(conn: &Connection) -> Result<f64> {
    let sql = "SELECT r.body, e.hash FROM records r JOIN entries e ON e.seq = r.seq WHERE r.outcome = ? ORDER BY r.opened_seq DESC LIMIT 50";
    let mut took = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        let mut statement = conn.prepare_cached(sql)?;
        let bytes: usize = statement
            .query_map(["refused"], |row| Ok(row.get::<_, String>(0)?.len()))?
            .collect::<rusqlite::Result<Vec<_>>>()?
            .len();
        anyhow::ensure!(bytes > 0, "no rows");
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(quantile(took, 0.99))
}
