//! One run: the webhook, the deaths, the webhook again, and what is left.

use std::time::{Duration, Instant};

use crate::fault::{Counts, Fault};
use crate::judge;
use crate::life::{HANG, World};

/// Several heartbeats, of which there is one a second.
const BEATS: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// What one run came to.
pub struct Told {
    /// Whether each of its faults was come to.
    pub hits: Vec<bool>,
    /// What was counted in each life.
    pub counts: Vec<Counts>,
    /// How many commits each life made before it asked anything of the outside.
    pub opened: Vec<u32>,
    pub violations: Vec<String>,
    /// Pages that had to be there, and were.
    pub pages: usize,
    pub log: String,
}

/// `plan`: what is to break in the first life, in the second, and so on.
pub async fn run(plan: Vec<Fault>) -> Told {
    let faults = plan.len();
    let mut world = World::new(plan.into_iter().map(Some).collect()).await;
    let mut acknowledged = Vec::new();
    let went = drive(&mut world, faults, &mut acknowledged).await;
    let hits = (0..faults).map(|n| world.lives.get(n).is_some_and(|life| life.breaker.hit().is_some())).collect();
    let counts = world.lives.iter().map(|life| life.breaker.counts()).collect();
    let opened = world.lives.iter().map(|life| life.breaker.opened()).collect();
    let (mut violations, mut pages) = (Vec::new(), 0);
    match went {
        Err(why) => violations.push(why),
        Ok(()) => pages = judge::judge(&world, &acknowledged, &mut violations).await,
    }
    let log = if violations.is_empty() { String::new() } else { world.log() };
    Told { hits, counts, opened, violations, pages, log }
}

async fn drive(world: &mut World, faults: usize, acknowledged: &mut Vec<String>) -> Result<(), String> {
    deliver(world, acknowledged).await?;
    settled(world).await?;
    deliver(world, acknowledged).await?;
    settled(world).await?;
    counted(world).await?;
    // What its last fault let live may die after it.
    let survived = world.lives.len() == faults && world.lives.last().is_some_and(|life| life.breaker.hit().is_some());
    if survived {
        world.kill().await?;
        deliver(world, acknowledged).await?;
        settled(world).await?;
        counted(world).await?;
    }
    // One whose disk hung at the stop had to leave its last lines to the next.
    while world.stop().await? != 0 || world.lives.last().is_some_and(|life| life.breaker.hangs()) {
        world.alive()?;
        settled(world).await?;
    }
    Ok(())
}

/// As Alertmanager does: until somebody answers with 2xx.
async fn deliver(world: &mut World, acknowledged: &mut Vec<String>) -> Result<(), String> {
    let until = Instant::now() + HANG;
    let mut last = None;
    while Instant::now() < until {
        world.alive()?;
        match world.deliver().await {
            Some((202, ids)) if ids.is_empty() => return Err("202 without a record".to_owned()),
            Some((202, ids)) => {
                acknowledged.extend(ids);
                return Ok(());
            }
            Some((503, _)) | None => {}
            Some((status, _)) => return Err(format!("the webhook was answered with {status}")),
        }
        last = world.ended();
        tokio::time::sleep(LOOK).await;
    }
    Err(format!("the webhook is not taken, last end {last:?}"))
}

/// The textfile is there. Each heartbeat writes it, so that one which could not be written is made good by the next.
async fn counted(world: &mut World) -> Result<(), String> {
    let until = Instant::now() + BEATS;
    while Instant::now() < until {
        world.alive()?;
        if world.folder.path().join("text/remediator.prom").exists() {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err("no textfile is written".to_owned())
}

/// The sick replica was restarted, everybody serves, and no record is open.
async fn settled(world: &mut World) -> Result<(), String> {
    let until = Instant::now() + HANG;
    let mut left = String::new();
    while Instant::now() < until {
        world.alive()?;
        if let Some(records) = world.records().await {
            let open = records.iter().filter(|record| record["outcome"].is_null()).count();
            let shop = world.outside.shop();
            let drained = shop.iter().filter(|replica| replica.drained).count();
            if open == 0 && drained == 0 && shop[0].restarts > 0 && !records.is_empty() {
                return Ok(());
            }
            let said: Vec<String> = records.iter().map(|r| format!("{} {}", r["outcome"], r["reason_code"])).collect();
            left = format!("{open} open, {drained} drained, {} restarts, {said:?}", shop[0].restarts);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(format!("it does not come to rest: {left}"))
}
