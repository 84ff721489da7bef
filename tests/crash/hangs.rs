//! A disk that hangs under the real program: no write fails, and none comes to its end. What must not wait for it is done all the same,
//! and only then is the disk mended.

use std::sync::atomic::Ordering;
use std::time::Duration;

use remediator::edge::clock::SystemClock;
use remediator::world::Clock as _;

use crate::case::{self, Told};
use crate::fault::{Fault, Kind, Mode, Point};
use crate::life::{SIGTERM, World};
use crate::runs;

/// Within 50 s it says that the disk hangs, and soon after that everybody is readmitted; a stop may take longer than anything else.
const PATIENCE: Duration = Duration::from_secs(150);
/// They wait, and need next to no processor.
const AT_A_TIME: usize = 30;

/// Looks at what the newest life does while its disk hangs.
///
/// # Errors
/// Somebody was left drained, or nobody was told.
pub fn watch(world: &mut World) -> Result<(), String> {
    let Some(life) = world.lives.last() else { return Ok(()) };
    let breaker = life.breaker.clone();
    if !breaker.hangs() {
        return Ok(());
    }
    let drained = world.outside.shop().iter().any(|replica| replica.drained);
    if world.ended().is_some() {
        world.mended = Some(SystemClock.now());
        breaker.mend();
        return if drained { Err("it ended, and left somebody drained".to_owned()) } else { Ok(()) };
    }
    if breaker.mode() == Some(Mode::HangsAtStop) {
        breaker.once(|| tracer::send(breaker.pid.load(Ordering::SeqCst), SIGTERM));
    }
    let told = world.outside.pages().iter().any(|page| page["labels"]["reason"] == "store_unavailable");
    let long = breaker.hit().is_some_and(|at| at.elapsed() > PATIENCE);
    // One that was asked to stop has to end while the disk hangs.
    let may_go_on = told && !drained && breaker.mode() == Some(Mode::Hangs);
    if may_go_on || long {
        world.mended = Some(SystemClock.now());
        breaker.mend();
    }
    match may_go_on || !long {
        true => Ok(()),
        false => Err(format!("the disk hung: somebody is drained: {drained}, somebody was told: {told}")),
    }
}

/// Each commit that a life of the program makes, from its first words on.
fn commits(told: &Told, life: usize, mode: Mode) -> Vec<Fault> {
    let count = told.counts[life].get(&Kind::COMMIT).copied().unwrap_or(0);
    let first = told.opened[life];
    assert!((1..count).contains(&first), "life {life}: {count} commits, {first} before it asked anything");
    (first..=count).map(|n| Fault { point: Point { kind: Kind::COMMIT, n }, mode }).collect()
}

/// It hangs at each commit of a life, of one that is asked to stop at this very moment, and of one that finds a server drained. Not while
/// the journal is opened: then nothing is done before the disk answers (docs/SAFETY.md).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_at_each_commit() {
    let undisturbed = case::run(Vec::new()).await;
    let drain = Point { kind: Kind::Door("balancer", "drain".to_owned()), n: 1 };
    let dies = Fault { point: drain, mode: Mode::KillAfter };
    let died = case::run(vec![dies.clone()]).await;
    let first = [Mode::Hangs, Mode::HangsAtStop].into_iter().flat_map(|mode| commits(&undisturbed, 0, mode));
    let second = commits(&died, 1, Mode::Hangs).into_iter().map(|fault| vec![dies.clone(), fault]);
    let plans: Vec<Vec<Fault>> = first.map(|fault| vec![fault]).chain(second).collect();
    let expected = plans.len();
    let done = runs::some_at_a_time(AT_A_TIME, plans).await;
    assert_eq!(runs::table(&undisturbed.counts[0], &done), 0);
    let hit = done.iter().filter(|(_, told)| !told.hits.contains(&false)).count();
    assert!(hit * 10 >= expected * 8, "only {hit} of {expected} points were come to");
}
