//! I11: the same alerts at the same moments, told in order and at once, or shuffled, split, repeated and with another
//! `startsAt`, come to the same. Nothing else goes wrong here, so that every difference is one of telling.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use crate::act::hands::Hands;
use crate::alert::Alert;
use crate::audit::JournalError;
use crate::audit::journal::Journal;
use crate::detect::look::Looks;
use crate::detect::rush::Rush;
use crate::detect::watchdog::Watchdog;
use crate::period::Period;
use crate::pipeline::Context;
use crate::sim::What;
use crate::sim::bench::Bench;
use crate::sim::dice::Dice;
use crate::sim::scenario::Scenario;

const LOOK: Duration = Duration::from_secs(30);
const LOOKS: u32 = 70;

/// What a service came to: how often its replicas were restarted, and how its episodes stand.
type Account = BTreeMap<String, (usize, Vec<String>)>;

/// Every difference between the two ways of telling.
///
/// # Errors
/// A journal in memory cannot be made.
pub async fn differences(seed: u64) -> Result<Vec<String>, JournalError> {
    Ok(compare(&tell(seed, false).await?, &tell(seed, true).await?))
}

fn compare(plain: &Account, other: &Account) -> Vec<String> {
    let differ = plain.iter().filter(|(service, account)| other.get(*service) != Some(account));
    let differ =
        differ.map(|(service, account)| format!("{service}: {account:?} told plainly, {:?} otherwise", other.get(service)));
    differ.collect()
}

async fn tell(seed: u64, otherwise: bool) -> Result<Account, JournalError> {
    let scenario = Scenario::draw(seed);
    let sim = scenario.world();
    let context = Context {
        world: sim.world(),
        looks: Looks::default(),
        rush: Rush::default(),
        hands: Hands::default(),
        journal: Journal::in_memory()?,
        playbooks: Arc::new(RwLock::new(Arc::new(scenario.playbooks.clone()))),
        watchdog: Arc::new(Watchdog::new(None, Period::from_secs(600))),
        limits: scenario.limits,
        timing: scenario.timing,
        host: "sim".to_owned(),
        shutdown: CancellationToken::new(),
    };
    let bench = Bench::process(sim.clone(), context).await?;
    let (mut world, mut dice) = (Dice::new(seed, 4), Dice::new(seed, 5));
    bench.run_for(Duration::from_secs(90)).await;
    for _ in 0..world.between(1, 3) {
        let who = world.index(scenario.replicas.len());
        sim.with(|state| {
            let now = state.now;
            state.replicas[who].leaks(now, 600.0, 0.5);
        });
    }
    for _ in 0..LOOKS {
        let firing = sim.with(|state| state.prometheus.firing());
        for group in groups(firing, otherwise.then_some(&mut dice)) {
            // Nothing keeps the journal from taking it.
            let _ = bench.deliver(group).await;
        }
        bench.run_for(LOOK).await;
    }
    let account = account(&bench, &scenario);
    sim.kill();
    bench.bury();
    Ok(account)
}

fn groups(firing: Vec<Alert>, otherwise: Option<&mut Dice>) -> Vec<Vec<Alert>> {
    let Some(dice) = otherwise else { return if firing.is_empty() { Vec::new() } else { vec![firing] } };
    let mut told: Vec<Alert> = firing.iter().filter(|_| dice.one_in(2)).cloned().collect();
    for alert in &mut told {
        alert.starts_at = alert.starts_at.and_then(|at| at.saturating_add(SignedDuration::from_secs(7)).ok());
    }
    told.extend(firing);
    dice.shuffle(&mut told);
    let size = dice.between(1, 3) as usize;
    told.chunks(size).map(<[Alert]>::to_vec).collect()
}

fn account(bench: &Bench, scenario: &Scenario) -> Account {
    let mut account = Account::new();
    for places in &scenario.services {
        let Some(service) = places.first().map(|i| scenario.replicas[*i].service.clone()) else { continue };
        let restarts = bench.sim.with(|state| {
            let ours = |effect: &&crate::sim::Effect| match &effect.what {
                What::Restart { name, .. } => name.starts_with(&format!("{service}-")),
                What::Drain(_) | What::Ready(_) | What::Asked { .. } => false,
            };
            state.effects.iter().filter(ours).count()
        });
        let mut stand: Vec<String> = bench.context.journal.read(|state| {
            let ours =
                state.books.watches.values().filter(|watch| watch.accepted.target.as_ref().is_some_and(|t| t.service == service));
            ours.map(|watch| watch.outcome.to_string()).collect()
        });
        stand.sort();
        account.insert(service.to_string(), (restarts, stand));
    }
    account
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_restart_more_or_another_standing_is_a_difference() {
        let mut plain = Account::new();
        for seed in 0..50 {
            plain = tell(seed, false).await.expect("a journal");
            if plain.values().any(|(restarts, _)| *restarts > 0) {
                break;
            }
        }
        assert!(plain.values().any(|(restarts, _)| *restarts > 0), "nothing happens in fifty worlds");
        assert_eq!(compare(&plain, &plain), Vec::<String>::new());
        let changed = |change: fn(&mut (usize, Vec<String>))| {
            let mut other = plain.clone();
            other.values_mut().for_each(change);
            compare(&plain, &other).len()
        };
        assert_eq!(changed(|(restarts, _)| *restarts += 1), plain.len());
        assert_eq!(changed(|(_, stand)| stand.push("shadow".to_owned())), plain.len());
    }
}
