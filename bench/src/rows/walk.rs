//! From the alert to the restart, and the decision by itself.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{Effort, calibration, medians, ratio, row};
use crate::alerts::notification;
use crate::healers::{self, Webhook};
use crate::load::{median, quantile};
use crate::outside::Outside;
use crate::program::{OPEN_RAILS, Remediator};
use crate::specimen::Specimen;
use crate::table::Table;
use crate::wire::{Asker, post};

const REPLICAS: usize = 60;

/// From the first byte of the POST to the arrival of the restart call, for each replica in turn, in milliseconds.
async fn to_restart(asker: &mut Asker, path: &str, outside: &Outside) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    for number in 0..REPLICAS {
        let request = post(path, &notification(number..number + 1));
        let before = outside.restarts().len();
        let sent = Instant::now();
        asker.ask(&request).await?;
        let at = loop {
            if let Some((at, _)) = outside.restarts().get(before) {
                break *at;
            }
            anyhow::ensure!(sent.elapsed() < Duration::from_secs(20), "{path}: no restart of replica {number}");
            tokio::time::sleep(Duration::from_micros(500)).await;
        };
        took.push(at.duration_since(sent).as_secs_f64() * 1e3);
        // What is left of the run is not to be measured with the next one.
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    Ok(took)
}

/// # Errors
/// Something does not start, or does not restart anything.
pub async fn restarts(table: &mut Table, effort: Effort) -> Result<()> {
    let mut rounds = Vec::new();
    for _ in 0..effort.rounds {
        let disk = calibration(1)?;
        let outside = Outside::start(REPLICAS, true).await?;
        let it = Remediator::start(&outside, OPEN_RAILS).await?;
        // The doors are checked at the start; nothing is done before.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut asker = Asker::connect(it.addr()).await?;
        let ours = to_restart(&mut asker, "/remediate", &outside).await;
        let ours = ours.with_context(|| std::fs::read_to_string(it.folder.join("log")).unwrap_or_default())?;
        drop(it);
        let mut others = Vec::new();
        for hook in ["/hooks/naive", "/hooks/healer"] {
            let outside = Outside::start(REPLICAS, true).await?;
            let it = Webhook::start(&outside).await?;
            let mut asker = Asker::connect(it.process.addr).await?;
            others.push(median(to_restart(&mut asker, hook, &outside).await?));
        }
        let [naive, healer] = others.as_slice() else { continue };
        rounds.push([quantile(ours.clone(), 0.5), quantile(ours, 0.99), *naive, *healer, disk]);
        println!("  restart: {:?}", rounds.last());
    }
    let [p50, p99, naive, healer, disk] = medians(&rounds);
    row(
        table,
        "POST to the Engine's restart call, nothing to drain, local Prometheus",
        format!("p50 {p50:.1} ms, p99 {p99:.1} ms"),
        format!("`webhook` → `curl` {naive:.1} ms; bash healer {healer:.1} ms; fdatasync {disk:.2} ms"),
        format!("{:.2} × the naive one, {:.2} × the bash healer", ratio(&rounds, 0, 2), ratio(&rounds, 0, 3)),
        "p50 < 5 ms, p99 < 15 ms",
        Some(p50 < 5.0 && p99 < 15.0),
    );
    Ok(())
}

/// # Errors
/// The simulated shop has nothing to decide about, or bash is missing.
pub fn decisions(table: &mut Table, effort: Effort) -> Result<()> {
    let specimen = Specimen::collect()?;
    let mut rounds = Vec::new();
    for _ in 0..effort.rounds {
        const TIMES: u32 = 20_000;
        let begun = Instant::now();
        for _ in 0..TIMES {
            anyhow::ensure!(specimen.decide_and_admit(), "it was not admitted");
        }
        let ours = begun.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES);
        let payloads: Vec<String> = (0..40).map(|number| notification(number..number + 1)).collect();
        let theirs = median(healers::decide(&payloads)?.iter().map(|took| took.as_secs_f64() * 1e6).collect());
        rounds.push([ours, theirs]);
        println!("  decision: {:?}", rounds.last());
    }
    let [ours, theirs] = medians(&rounds);
    let times = ratio(&rounds, 1, 0);
    row(
        table,
        "decision + admission",
        format!("{ours:.1} µs"),
        format!("(d) bash healer, asking and restarting left out: {:.1} ms", theirs / 1e3),
        format!("{times:.0} ×"),
        "≥ 500 ×",
        Some(times >= 500.0),
    );
    Ok(())
}
