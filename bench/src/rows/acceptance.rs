//! Taking alerts in: how many, how soon, and what happens when it is too many.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::{Effort, calibration, medians, ratio, requests, requests_of, row, settle};
use crate::healers::Webhook;
use crate::load::{Run, closed, closed_counted, open};
use crate::outside::Outside;
use crate::program::{OPEN_RAILS, Process, RAILS, Remediator, folder, nobody};
use crate::table::Table;

const CONNECTIONS: usize = 64;
/// Replicas that exist. The alerts are about others: each walk asks Prometheus, hears that it does not scrape the target, and pages.
const REPLICAS: usize = 8;

/// Reference (b), on a folder of its own.
pub struct Plain {
    pub process: Process,
    _dir: tempfile::TempDir,
}

impl Plain {
    /// # Errors
    /// It does not start.
    pub async fn start() -> Result<Plain> {
        let dir = folder()?;
        let addr = nobody()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["plain", &addr.to_string()]).arg(dir.path().join("plain.db"));
        Ok(Plain { process: Process::start(&mut command, addr, "/").await?, _dir: dir })
    }
}

/// One alert per notification, 64 connections; and one alert at a time.
///
/// # Errors
/// Something does not start.
pub async fn single(table: &mut Table, effort: Effort) -> Result<()> {
    let (mut rounds, mut ones) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let outside = Outside::start(REPLICAS, false).await?;
        let disk = calibration(1)?;
        let ours = {
            let it = Remediator::start(&outside, OPEN_RAILS).await?;
            closed(it.addr(), CONNECTIONS, requests("/remediate", effort.episodes, 1)).await?
        };
        let plain = {
            let it = Plain::start().await?;
            closed(it.process.addr, CONNECTIONS, requests("/store", effort.episodes, 1)).await?
        };
        let hook = {
            let it = Webhook::start(&outside).await?;
            closed(it.process.addr, CONNECTIONS, requests("/hooks/nothing", effort.episodes, 1)).await?
        };
        rounds.push([ours.rate(), plain.rate(), hook.rate(), disk]);
        // The calibration right before, and right after.
        let it = Remediator::start(&outside, OPEN_RAILS).await?;
        let before = calibration(1)?;
        let one = closed(it.addr(), 1, requests("/remediate", 500, 1)).await?;
        let after = calibration(1)?;
        drop(it);
        let it = Plain::start().await?;
        let plain = closed(it.process.addr, 1, requests("/store", 500, 1)).await?;
        ones.push([one.quantile(0.5), (before + after) / 2.0, plain.quantile(0.5)]);
        println!("  single: {:?} {:?}", rounds.last(), ones.last());
    }
    let [ours, plain, hook, disk] = medians(&rounds);
    let (to_plain, to_hook) = (ratio(&rounds, 0, 1), ratio(&rounds, 0, 2));
    row(
        table,
        "one-alert notifications accepted durably, 64 connections",
        format!("{ours:.0}/s"),
        format!("(b) {plain:.0}/s; (c) {hook:.0}/s; fdatasync {disk:.2} ms"),
        format!("{to_plain:.2} × (b), {to_hook:.2} × (c)"),
        "≥ 0.7 × (b), > (c)",
        Some(to_plain >= 0.7 && to_hook > 1.0),
    );
    let [one, disk, plain] = medians(&ones);
    let to_disk = ratio(&ones, 0, 1);
    row(
        table,
        "one connection, one alert at a time, p50",
        format!("{one:.2} ms"),
        format!("(a) fdatasync {disk:.2} ms; (b) {plain:.2} ms"),
        format!("{to_disk:.2} × (a)"),
        "≤ 2 × (a)",
        Some(to_disk <= 2.0),
    );
    Ok(())
}

/// Alerts that were taken per second, a hundred in each notification.
fn per_second(run: &Run) -> f64 {
    run.rate() * 100.0
}

/// 100 alerts in a notification.
///
/// # Errors
/// Something does not start.
pub async fn hundreds(table: &mut Table, effort: Effort) -> Result<()> {
    let mut rounds = Vec::new();
    for _ in 0..effort.rounds {
        let outside = Outside::start(REPLICAS, false).await?;
        let disk = calibration(100)?;
        let ours = {
            let it = Remediator::start(&outside, OPEN_RAILS).await?;
            closed(it.addr(), 8, requests("/remediate", effort.episodes, 100)).await?
        };
        let plain = {
            let it = Plain::start().await?;
            closed(it.process.addr, 8, requests("/store", effort.episodes, 100)).await?
        };
        rounds.push([per_second(&ours), per_second(&plain), disk]);
        println!("  hundreds: {:?}", rounds.last());
    }
    let [ours, plain, disk] = medians(&rounds);
    let to_plain = ratio(&rounds, 0, 1);
    row(
        table,
        "100-alert notifications, alerts made durable, empty journal",
        format!("{ours:.0}/s"),
        format!("(b) {plain:.0}/s; fdatasync {disk:.2} ms"),
        format!("{to_plain:.2} × (b)"),
        "≥ 0.6 × (b)",
        Some(to_plain >= 0.6),
    );
    Ok(())
}

/// As [`hundreds`], to a journal with many records behind, many of them about the same replicas, and to an empty one.
///
/// # Errors
/// Something does not start.
pub async fn hundreds_behind(table: &mut Table, effort: Effort, behind: &Path, millions: f64) -> Result<()> {
    // One process holds them all, and 10,000 at most.
    let episodes = 9_000 / effort.rounds.max(1);
    let outside = Outside::start(REPLICAS, false).await?;
    let full = Remediator::start_in(&outside, OPEN_RAILS, behind).await?;
    let journal = Connection::open_with_flags(full.database(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut rounds = Vec::new();
    for round in 0..effort.rounds {
        let replicas = round * episodes..(round + 1) * episodes;
        let requests = requests_of("/remediate", replicas, 100, 1);
        let disk = calibration(100)?;
        let empty = {
            let it = Remediator::start(&outside, OPEN_RAILS).await?;
            closed(it.addr(), 8, requests.clone()).await?
        };
        let full = closed(full.addr(), 8, requests).await?;
        let taken = (empty.taken().count(), full.taken().count());
        anyhow::ensure!(taken == (empty.answers.len(), full.answers.len()), "not all were taken: {taken:?}");
        rounds.push([per_second(&full), per_second(&empty), disk]);
        println!("  hundreds with {millions} million behind: {:?}", rounds.last());
        // Its walks are over before the next round.
        settle(&journal).await?;
    }
    let [full, empty, disk] = medians(&rounds);
    let to_empty = ratio(&rounds, 0, 1);
    row(
        table,
        &format!("100-alert notifications, alerts made durable, {millions} million records behind"),
        format!("{full:.0}/s"),
        format!("the same {episodes} alerts into an empty journal {empty:.0}/s; fdatasync {disk:.2} ms"),
        format!("{to_empty:.2} × empty"),
        "stated and bounded; ours: ≥ 0.5 × empty",
        Some(to_empty >= 0.5),
    );
    Ok(())
}

/// Firings of episodes that are held already.
///
/// # Errors
/// Something does not start.
pub async fn folds(table: &mut Table, effort: Effort) -> Result<()> {
    let mut rounds = Vec::new();
    for _ in 0..effort.rounds {
        let outside = Outside::start(REPLICAS, false).await?;
        let it = Remediator::start(&outside, OPEN_RAILS).await?;
        // A hundred episodes, each told a hundred times.
        closed(it.addr(), 8, requests("/remediate", 100, 1)).await?;
        tokio::time::sleep(Duration::from_secs(4)).await;
        let again = |path: &str| {
            let once = requests(path, 100, 1);
            Arc::new(once.iter().cycle().take(effort.episodes * 2).cloned().collect::<Vec<_>>())
        };
        let ours = closed(it.addr(), CONNECTIONS, again("/remediate")).await?;
        drop(it);
        let it = Plain::start().await?;
        let plain = closed(it.process.addr, CONNECTIONS, again("/parse")).await?;
        rounds.push([ours.rate(), plain.rate()]);
        println!("  folds: {:?}", rounds.last());
    }
    let [ours, plain] = medians(&rounds);
    let to_plain = ratio(&rounds, 0, 1);
    row(
        table,
        "firing that folds into an episode already held, answered",
        format!("{ours:.0}/s"),
        format!("bare axum that parses the same body {plain:.0}/s"),
        format!("{to_plain:.2} × axum"),
        "≥ 0.5 ×",
        Some(to_plain >= 0.5),
    );
    Ok(())
}

/// 10,000 alerts a second, whether it keeps up or not, ten to a notification; then twice as many single ones as it takes from
/// callers that wait for their answers.
///
/// # Errors
/// Something does not start.
pub async fn offered(table: &mut Table, effort: Effort) -> Result<()> {
    let (mut rounds, mut twice) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let outside = Outside::start(REPLICAS, false).await?;
        let disk = calibration(10)?;
        let it = Remediator::start(&outside, OPEN_RAILS).await?;
        let run = open(it.addr(), CONNECTIONS, 1_000.0, requests("/remediate", 9_500, 10)).await?;
        let taken = run.taken().count() as f64 / run.answers.len() as f64;
        rounds.push([run.quantile(0.99), run.quantile(0.5), taken, it.process.memory().1, disk]);
        drop(it);
        let most = {
            let it = Remediator::start(&outside, OPEN_RAILS).await?;
            closed(it.addr(), CONNECTIONS, requests("/remediate", effort.episodes, 1)).await?.rate()
        };
        // Above the 10,000 episodes that it holds: what is beyond gets 503, at the latest.
        let before = calibration(1)?;
        let it = Remediator::start(&outside, OPEN_RAILS).await?;
        let run = open(it.addr(), 120, 2.0 * most, requests("/remediate", 20_000, 1)).await?;
        let refused = run.answers.iter().filter(|answer| answer.status == 503).count();
        let (_, peak) = it.process.memory();
        let lost = lost(&run, &it.database())?;
        twice.push([peak, refused as f64 / run.answers.len() as f64, lost as f64, run.quantile(0.99), most, before]);
        println!("  offered: {:?} {:?}", rounds.last(), twice.last());
    }
    let [p99, p50, taken, peak, disk] = medians(&rounds);
    row(
        table,
        "acknowledgement at 10,000 alerts/s offered (1,000 notifications/s of ten), open loop, p99",
        format!("{p99:.1} ms (p50 {p50:.1} ms), {:.1} % taken, RSS {peak:.0} MiB", taken * 100.0),
        format!("fdatasync {disk:.2} ms"),
        String::new(),
        "≤ 15 ms",
        Some(p99 <= 15.0 && taken > 0.999),
    );
    let [peak, refused, lost, p99, most, disk] = medians(&twice);
    row(
        table,
        "20,000 single alerts at twice the rate that it takes, open loop",
        format!(
            "RSS at its highest {peak:.0} MiB, {:.0} % answered 503 (it holds 10,000 episodes), {lost:.0} acknowledged and lost, p99 {p99:.0} ms",
            refused * 100.0
        ),
        format!("64 callers that wait: {most:.0}/s; fdatasync {disk:.2} ms"),
        String::new(),
        "RSS ≤ 64 MiB, nothing acknowledged is lost",
        Some(peak <= 64.0 && lost == 0.0),
    );
    Ok(())
}

/// New episodes for ten seconds, slowly enough for all to be held: what a burst does not show, that walks and pages go on beside.
///
/// # Errors
/// Something does not start.
pub async fn sustained(table: &mut Table, effort: Effort) -> Result<()> {
    const EPISODES: usize = 9_000;
    let mut rounds = Vec::new();
    for _ in 0..effort.rounds {
        let outside = Outside::start(REPLICAS, false).await?;
        let disk = calibration(1)?;
        let it = Remediator::start(&outside, OPEN_RAILS).await?;
        let run = open(it.addr(), CONNECTIONS, EPISODES as f64 / 10.0, requests("/remediate", EPISODES, 1)).await?;
        let journal = Connection::open_with_flags(it.database(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let walked: f64 = journal.query_row("SELECT count(*) FROM records WHERE closed_at IS NOT NULL", (), |row| row.get(0))?;
        let taken = run.taken().count() as f64 / run.answers.len() as f64;
        rounds.push([run.quantile(0.99), run.quantile(0.5), taken, walked / EPISODES as f64, it.process.memory().1, disk]);
        println!("  sustained: {:?}", rounds.last());
    }
    let [p99, p50, taken, walked, peak, disk] = medians(&rounds);
    row(
        table,
        "900 new episodes a second for ten seconds, one to a notification, open loop, p99",
        format!(
            "{p99:.1} ms (p50 {p50:.1} ms), {:.1} % taken, {:.0} % walked and told of by the end, RSS {peak:.0} MiB",
            taken * 100.0,
            walked * 100.0
        ),
        format!("fdatasync {disk:.2} ms"),
        String::new(),
        "",
        None,
    );
    Ok(())
}

/// Killed with -9 somewhere in 4,000 acceptances; what was acknowledged is looked for after a restart.
///
/// # Errors
/// Something does not start.
pub async fn killed(table: &mut Table, effort: Effort) -> Result<()> {
    let (mut acknowledged, mut gone) = (0, 0);
    let mut webhooks = Vec::new();
    for round in 0..effort.rounds {
        let outside = Outside::start(REPLICAS, false).await?;
        let dir = folder()?;
        let mut it = Remediator::start_in(&outside, RAILS, dir.path()).await?;
        let answered = Arc::new(AtomicUsize::new(0));
        let run = tokio::spawn(closed_counted(it.addr(), CONNECTIONS, requests("/remediate", 4_000, 1), answered.clone()));
        reached(&answered, 4_000 * (round + 1) / (effort.rounds + 1)).await?;
        it.process.kill();
        let run = run.await??;
        anyhow::ensure!(run.taken().count() < 4_000, "the kill came after the last answer");
        let it = Remediator::start_in(&outside, RAILS, dir.path()).await.context("after kill -9")?;
        acknowledged += run.taken().count();
        gone += lost(&run, &it.database())?;
        webhooks.push(webhook_loses(&outside, 400 * (round + 1) / (effort.rounds + 1)).await?);
        println!(
            "  killed: {acknowledged} acknowledged so far, {gone} lost; webhook loses {:.2}",
            webhooks.last().copied().unwrap_or(0.0)
        );
    }
    row(
        table,
        "acknowledged notifications lost to kill -9 while 4,000 are being accepted",
        format!("{gone} of {acknowledged}, in {} kills", effort.rounds),
        format!(
            "(c) with the bash healer behind it, killed together as in a reboot, loses {:.0} %",
            crate::load::median(webhooks) * 100.0
        ),
        String::new(),
        "0",
        Some(gone == 0 && acknowledged > 0),
    );
    Ok(())
}

/// Waits until so many have been answered.
async fn reached(answered: &AtomicUsize, count: usize) -> Result<()> {
    let begun = Instant::now();
    while answered.load(Ordering::Relaxed) < count {
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(60), "{count} answers do not come");
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    Ok(())
}

/// The share of what `webhook` acknowledged that its healer never wrote down, when both are killed.
async fn webhook_loses(outside: &Outside, after: usize) -> Result<f64> {
    let mut it = Webhook::start(outside).await?;
    let answered = Arc::new(AtomicUsize::new(0));
    let run = tokio::spawn(closed_counted(it.process.addr, CONNECTIONS, requests("/hooks/healer", 400, 1), answered.clone()));
    reached(&answered, after).await?;
    it.process.kill();
    it.kill_healers();
    let run = run.await??;
    let acknowledged = run.taken().count();
    let written = it.audited();
    Ok(if acknowledged == 0 { 0.0 } else { 1.0 - (written.min(acknowledged) as f64 / acknowledged as f64) })
}

/// How many records that were answered are not in the journal.
fn lost(run: &Run, database: &Path) -> Result<usize> {
    let mut answered = HashSet::new();
    for answer in run.taken() {
        let body: Value = serde_json::from_str(&answer.body)?;
        let results = body.get("results").and_then(Value::as_array);
        answered.extend(results.into_iter().flatten().filter_map(|receipt| receipt.get("id")?.as_str().map(str::to_owned)));
    }
    let conn = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = conn.prepare("SELECT record FROM entries WHERE kind = 'accepted'")?;
    let written: HashSet<String> = statement.query_map((), |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(answered.difference(&written).count())
}
