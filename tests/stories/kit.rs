//! What every story needs: the shipped playbook, a shop, and short questions about what happened.

use std::path::Path;
use std::time::Duration;

use remediator::decide::playbook::{Mode, Playbook};
use remediator::event::Record;
use remediator::reason::{Outcome, Reason};
use remediator::sim::Sim;
use remediator::sim::bench::Bench;
use remediator::sim::shop::inventory;
use remediator::world::{PageAlert, RuleAlertState};

pub const ONE: &str = "inventory-1";
pub const TWO: &str = "inventory-2";
pub const THREE: &str = "inventory-3";
pub const ALL: [&str; 3] = [ONE, TWO, THREE];

pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub const fn mins(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

pub const fn hours(n: u64) -> Duration {
    Duration::from_secs(3600 * n)
}

/// The playbook that this repository ships, switched to live.
pub fn playbook() -> Playbook {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("playbooks/inventory-fd-leak.yml");
    let (mut playbooks, _) = remediator::config::load_playbooks(&path).expect("the shipped playbook is valid");
    let (mut playbook, _) = playbooks.remove(0);
    assert_eq!(playbook.mode, Mode::Shadow, "shipped in shadow");
    playbook.mode = Mode::Live;
    playbook
}

pub async fn bench_with(playbook: Playbook) -> Bench {
    let bench = Bench::start(inventory(), vec![playbook]).await.expect("a journal in memory");
    // A few scrapes of the healthy shop.
    bench.run_for(mins(2)).await;
    bench
}

/// A live remediator and a healthy shop.
pub async fn bench() -> Bench {
    bench_with(playbook()).await
}

/// Lets replicas leak, until `FdLeakFast` fires for each of them.
pub async fn leaking(bench: &Bench, names: &[&str]) {
    names.iter().for_each(|name| bench.sim.leak(name));
    firing(bench, names).await;
}

pub async fn firing(bench: &Bench, names: &[&str]) {
    let wanted: Vec<String> = names.iter().map(|name| instance(&bench.sim, name)).collect();
    let fires = |bench: &Bench| {
        let listed = bench.sim.with(|state| state.prometheus.listed(RuleAlertState::Firing));
        wanted.iter().all(|wanted| listed.iter().any(|(_, instance)| instance == wanted))
    };
    assert!(bench.until(mins(15), fires).await, "no rule fired for {names:?}");
}

pub fn instance(sim: &Sim, name: &str) -> String {
    sim.replica(name, |replica, _| replica.instance.to_string()).expect("a replica of this name")
}

/// Delivers what fires, once.
pub async fn deliver(bench: &Bench) {
    let receipts = bench.deliver_firing().await.expect("durable");
    assert!(!receipts.is_empty(), "nothing fires, so nothing was delivered");
}

/// One replica leaks, its alert is delivered once, and the record is closed.
pub async fn one_run(bench: &Bench) -> Record {
    leaking(bench, &[TWO]).await;
    deliver(bench).await;
    finished(bench).await
}

/// Waits until every record that is there is closed, and answers the newest of those.
pub async fn finished(bench: &Bench) -> Record {
    let count = bench.records().len();
    let closed = |bench: &Bench| bench.records()[..count].iter().all(Record::is_closed);
    assert!(bench.until(mins(10), closed).await, "a record stayed open: {:#?}", told(&bench.records()));
    bench.records().swap_remove(count - 1)
}

pub fn restarts(bench: &Bench) -> Vec<String> {
    bench.sim.with(|state| state.restarts())
}

/// Nothing was drained, restarted or readmitted.
pub fn untouched(bench: &Bench) {
    let effects = bench.sim.with(|state| state.effects.clone());
    assert!(effects.is_empty(), "{effects:?}");
}

/// Every replica is UP at the balancer and takes traffic, and the journal agrees.
pub fn all_serve(bench: &Bench) {
    for name in ALL {
        let drained = bench.sim.replica(name, |replica, _| replica.drained_since.is_some());
        assert_eq!(drained, Some(false), "{name} is left drained");
    }
    let drained = bench.context.journal.read(|state| state.books.drained.clone());
    assert!(drained.is_empty(), "the journal thinks that {drained:?} is drained");
}

pub fn ended(record: &Record) -> (Option<Outcome>, Option<Reason>) {
    (record.outcome, record.reason)
}

pub fn is(record: &Record, outcome: Outcome, reason: Reason) {
    assert_eq!(ended(record), (Some(outcome), Some(reason)), "{}: {}", record.id, record.detail);
}

/// Records as one reads them: target, outcome, reason, detail.
pub fn told(records: &[Record]) -> Vec<String> {
    let line = |record: &Record| {
        let target = record.accepted.target.as_ref().map(ToString::to_string).unwrap_or_default();
        let alert = record.accepted.alert.labels.alertname();
        let end = record.outcome.map_or("open", Outcome::word);
        let reason = record.reason.map_or("", Reason::code);
        format!("{} {target} {alert} {end} {reason}: {}", record.opened_at, record.detail)
    };
    // The beginning of a long story is enough.
    records.iter().take(25).map(line).collect()
}

/// Records of one replica.
pub fn of(bench: &Bench, name: &str) -> Vec<Record> {
    let instance = instance(&bench.sim, name);
    let named = |record: &Record| record.accepted.target.as_ref().is_some_and(|target| target.instance.as_str() == instance);
    bench.records().into_iter().filter(named).collect()
}

/// Distinct pages with this reason, ever raised.
pub fn paged(bench: &Bench, reason: Reason) -> Vec<PageAlert> {
    let pages = bench.sim.with(|state| state.distinct_pages());
    pages.into_iter().filter(|page| page.labels.get("reason") == Some(reason.code())).collect()
}

/// Reasons of the pages that are up now.
pub fn up(bench: &Bench) -> Vec<String> {
    bench.pages().iter().filter_map(|page| page.labels.get("reason").map(str::to_owned)).collect()
}
