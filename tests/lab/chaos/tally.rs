//! The sums, taken from three places that know nothing of each other, and what does not add up.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::Log;
use crate::faults::Delivery;
use crate::lab::{Lab, eventually, replica};
use crate::remediator::{CONFIG, text};

/// How long after a fault of the balancer customers may still be turned away for it: checkout waits, and so do they.
const AFTERMATH: SignedDuration = SignedDuration::from_secs(10);

/// Restarts of one replica, counted three ways.
#[derive(Default)]
struct Account {
    docker: usize,
    journal: usize,
    audit: usize,
    /// Steps whose outcome could not be found out, says the journal: Docker was out of reach for longer than it is looked for.
    unknown: usize,
}

/// The accounts by replica, and every step that began and is not `done`.
struct Restarts {
    accounts: BTreeMap<String, Account>,
    other: Vec<String>,
}

impl Restarts {
    fn sum(&self, of: fn(&Account) -> usize) -> usize {
        self.accounts.values().map(of).sum()
    }
}

/// Prints the table; answers with every violation.
pub async fn tell(lab: &Lab, begun: Timestamp, seed: u64, minutes: u64, log: &Log) -> Vec<String> {
    let mut violations = Vec::new();
    let records = records(lab, begun).await.expect("the audit answers");
    let lines = lines(lab, &records).await;
    let restarts = restarts(lab, begun, &records, &lines, &mut violations).await;
    let deliveries = lab.deliveries(0).await;
    let answered = judge(&deliveries, &records, &mut violations);
    let unexplained = customers(log, &mut violations);
    let (sound, said) = lab.remediator(&["audit", "--config", CONFIG, "verify"]);
    if !sound || !said.starts_with("ok: ") {
        violations.push(format!("the chain: {said}"));
    }
    let output = lab.docker(&["logs", &lab.container("remediator")]);
    let said_before = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    violations.extend(said_before.lines().filter(|line| line.contains("panicked at")).map(|line| format!("a panic: {line}")));

    println!("\n| what | count |\n|---|---|");
    println!("| seed, minutes | {seed}, {minutes} |");
    let heard =
        deliveries.iter().filter(|delivery| delivery.alerts.iter().all(|alert| alert["labels"]["alertname"] == "Watchdog"));
    let heard = heard.count();
    println!("| deliveries, without the Watchdog's {heard} | {} |", deliveries.len() - heard);
    let mut by_status = BTreeMap::<u16, usize>::new();
    deliveries.iter().for_each(|delivery| *by_status.entry(delivery.status).or_default() += 1);
    println!("| by answer (0: none) | {by_status:?} |");
    let mut by_peer = BTreeMap::<&str, usize>::new();
    deliveries.iter().for_each(|delivery| *by_peer.entry(&delivery.peer).or_default() += 1);
    println!("| by Alertmanager | {by_peer:?} |");
    println!("| firing alerts acknowledged: opened a record, folded | {}, {} |", answered.0, answered.1);
    println!("| records | {} |", records.len());
    let mut outcomes = BTreeMap::<String, usize>::new();
    records
        .iter()
        .for_each(|r| *outcomes.entry(format!("{} {}", text(&r["outcome"]), text(&r["reason_code"]))).or_default() += 1);
    println!("| by outcome and reason | {outcomes:?} |");
    println!("| leaks | {} |", log.leaks);
    let mut kinds = BTreeMap::<&str, usize>::new();
    log.faults.iter().for_each(|fault| *kinds.entry(fault.what).or_default() += 1);
    println!("| faults | {} |", log.faults.len());
    kinds.iter().for_each(|(kind, count)| println!("| {kind} | {count} |"));
    println!("| restarts in Docker's events | {} |", restarts.sum(|account| account.docker));
    println!("| restarts done in the journal | {} |", restarts.sum(|account| account.journal));
    println!("| restarts done in audit.jsonl | {} |", restarts.sum(|account| account.audit));
    println!("| restarts of unknown outcome in the journal | {} |", restarts.sum(|account| account.unknown));
    println!("| restarts begun and not done | {:?} |", restarts.other);
    let turned_away: u64 = log.turned_away.iter().map(|(_, count)| count).sum();
    println!("| customers turned away, of these without a fault of HAProxy | {turned_away}, {unexplained} |");
    println!("| violations | {} |\n", violations.len());
    violations
}

/// All records since then, as lines of `GET /audit`.
pub async fn records(lab: &Lab, since: Timestamp) -> Result<Vec<Value>, String> {
    let mut records = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = lab.read(&format!("/audit?limit=500&since={since}{cursor}")).await?;
        records.extend(page["records"].as_array().ok_or("no records")?.iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(records),
        }
    }
}

/// `audit.jsonl`, once it has a line for each record; the record that was closed last may take a moment.
async fn lines(lab: &Lab, records: &[Value]) -> Vec<Value> {
    let ids = |records: &[Value]| {
        let mut ids: Vec<String> = records.iter().map(|record| text(&record["id"])).collect();
        ids.sort();
        ids
    };
    let wanted = ids(records);
    eventually("audit.jsonl to have exactly one line for each record", 30, async || {
        let lines = lab.audit_lines()?;
        let found = ids(&lines);
        (found == wanted).then_some(lines).ok_or_else(|| {
            let (found, wanted): (BTreeSet<_>, BTreeSet<_>) = (found.into_iter().collect(), wanted.iter().cloned().collect());
            format!("missing {:?}, too many {:?}", wanted.difference(&found), found.difference(&wanted))
        })
    })
    .await
}

async fn restarts(lab: &Lab, begun: Timestamp, records: &[Value], lines: &[Value], violations: &mut Vec<String>) -> Restarts {
    let mut restarts = Restarts { accounts: BTreeMap::new(), other: Vec::new() };
    let touches = lab.events.touches(begun).await;
    for n in 1..=3 {
        let service = format!("inventory-{n}");
        let of = |action: &str| touches.iter().filter(|event| event.service == service && event.action == action).count();
        let (restart, die, start) = (of("restart"), of("die"), of("start"));
        if (die, start) != (restart, restart) || of("pause") + of("destroy") > 0 {
            violations.push(format!("{service}: {restart} restarts, {die} ends, {start} starts"));
        }
        let account = Account { docker: restart, ..Account::default() };
        restarts.accounts.insert(format!("inventory/{}", replica(n)), account);
    }
    for record in records.iter().filter(|record| !record["steps"].as_array().is_none_or(Vec::is_empty)) {
        let id = text(&record["id"]);
        let story = lab.read(&format!("/audit/{id}")).await.expect("the story");
        let ended = story["entries"].as_array().expect("entries").iter().filter(|entry| entry["event"] == "step_ended");
        let ended: Vec<&Value> = ended.filter(|entry| entry["step"] == "restart").map(|entry| &entry["call"]).collect();
        if ended.len() > 1 {
            violations.push(format!("record {id} ended its restart {} times", ended.len()));
        }
        let account = restarts.accounts.entry(text(&record["target"])).or_default();
        for call in ended {
            account.journal += usize::from(call["result"] == "done");
            account.unknown += usize::from(call["result"] == "unknown");
            if call["result"] != "done" {
                restarts.other.push(format!("{id}: {} {}", text(&call["result"]), call["detail"]));
            }
        }
    }
    for line in lines {
        let steps = line["steps"].as_array().into_iter().flatten();
        let done = steps.filter(|run| run["step"] == "restart" && run["call"]["result"] == "done").count();
        restarts.accounts.entry(text(&line["target"])).or_default().audit += done;
    }
    for (target, Account { docker, journal, audit, unknown }) in &restarts.accounts {
        // What is unknown may have happened; what is known must have, and nothing else may.
        if journal != audit || !(*journal..=journal + unknown).contains(docker) {
            violations.push(format!("{target}: Docker {docker}, journal {journal} and {unknown} unknown, audit {audit}"));
        }
    }
    restarts
}

/// Each firing alert that was acknowledged has its record. How many opened one, and how many joined one.
fn judge(deliveries: &[Delivery], records: &[Value], violations: &mut Vec<String>) -> (usize, usize) {
    let known: BTreeSet<String> = records.iter().map(|record| text(&record["id"])).collect();
    let (mut opened, mut folded) = (BTreeSet::new(), 0);
    for delivery in deliveries.iter().filter(|delivery| delivery.answered()) {
        if delivery.results.len() != delivery.alerts.len() {
            violations.push(format!(
                "{} alerts and {} results at {}",
                delivery.alerts.len(),
                delivery.results.len(),
                delivery.at
            ));
        }
        for result in delivery.results.iter().filter(|result| result["status"] == "firing" && result["state"] != "heard") {
            let id = text(&result["id"]);
            if !known.contains(&id) {
                violations.push(format!("acknowledged at {} and in no record: {result}", delivery.at));
            }
            match result["state"].as_str() {
                Some("accepted") => drop(opened.insert(id)),
                Some("folded") => folded += 1,
                _ => violations.push(format!("a firing alert is neither accepted nor folded: {result}")),
            }
        }
    }
    (opened.len(), folded)
}

/// Customers turned away while nothing was wrong with the balancer.
fn customers(log: &Log, violations: &mut Vec<String>) -> u64 {
    let explained = |at: Timestamp| {
        log.faults.iter().any(|fault| fault.what == "HAProxy restarted" && fault.from <= at && at <= fault.to + AFTERMATH)
    };
    let unexplained: Vec<_> = log.turned_away.iter().filter(|(at, _)| !explained(*at)).collect();
    violations.extend(
        unexplained.iter().map(|(at, count)| format!("{count} customers turned away at {at} without a fault of HAProxy")),
    );
    unexplained.iter().map(|(_, count)| count).sum()
}
