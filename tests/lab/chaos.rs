//! `make chaos`: a quarter of an hour of real deliveries under faults drawn from a seed, and then the sums. What Docker saw, what the
//! journal says and what the audit says must be the same number of restarts; every delivery that was answered must be in a
//! record; nobody may be left drained; and customers may only have been turned away where a fault of the balancer explains it.
//!
//! Leaks come and go, alerts nobody can believe are raised in Alertmanager by hand, and the faults go on meanwhile, many of them
//! in the middle of a run. SEED and MINUTES choose another run. A seed decides what is done and in which order; the machine
//! decides when exactly, so that the same seed is the same plan and not the same run.

mod faults;
mod tally;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use remediator::sim::dice::Dice;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::FLOOD;
use crate::lab::{Lab, eventually, replica};

/// More than half of 1024: it fell sick and was not restarted since.
const SICK: f64 = 512.0;

/// What was done, for the sums.
#[derive(Default)]
pub struct Log {
    pub leaks: usize,
    pub faults: Vec<Struck>,
    /// When customers were turned away, and how many at once.
    pub turned_away: Vec<(Timestamp, u64)>,
}

pub struct Struck {
    pub what: &'static str,
    pub from: Timestamp,
    pub to: Timestamp,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a quarter of an hour: make chaos"]
async fn the_lab_under_faults() {
    let seed = number("SEED").unwrap_or_else(|| Timestamp::now().as_second().unsigned_abs());
    let minutes = number("MINUTES").unwrap_or(12);
    println!("seed {seed}, {minutes} minutes");
    let lab = Lab::under_faults("chaos").await;
    hurry(&lab).await;
    let begun = Timestamp::now();
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    let log = RefCell::new(Log::default());
    let customers = watch_customers(&lab, &log);
    let trouble = async {
        tokio::join!(
            leaks(&lab, Dice::new(seed, 1), end, &log),
            liars(&lab, Dice::new(seed, 2), end),
            faults::strike(&lab, Dice::new(seed, 3), end, &log),
        );
        settled(&lab, begun).await;
    };
    tokio::select! {
        () = trouble => {}
        () = customers => {}
    }
    let violations = tally::tell(&lab, begun, seed, minutes, &log.into_inner()).await;
    assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
    lab.stop().await;
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name} is {text:?}: {error}")))
}

/// Deliveries each second, and as many runs as there are leaks: budgets and breakers have tests of their own.
async fn hurry(lab: &Lab) {
    lab.rewrite_playbook(&[
        ("cooldown: 40s", "cooldown: 5s"),
        ("start_grace: 16s", "start_grace: 4s"),
        ("failures: 3", "failures: 64"),
        ("recurrence: 8m", "recurrence: 10s"),
        ("burst: 3", "burst: 100"),
        ("[6 per 8m, 12 per 192m]", "[1000 per 1h]"),
        ("blame: 80s", "blame: 2s"),
    ])
    .await;
    let file = lab.dir().join("alertmanager/alertmanager.yml");
    let text = std::fs::read_to_string(&file).expect("Alertmanager's configuration can be read");
    let (before, leaks) = text.split_once("alertname=~\"FdLeakFast").expect("a route for the leaks");
    let (leaks, after) = leaks.split_once("\n\n").expect("more routes");
    let second = |line: &str| match line.split_once(": ") {
        Some((name, _)) if ["group_wait", "group_interval", "repeat_interval"].contains(&name.trim()) => format!("{name}: 1s"),
        _ => line.to_owned(),
    };
    let leaks = leaks.lines().map(second).collect::<Vec<_>>().join("\n");
    std::fs::write(&file, format!("{before}alertname=~\"FdLeakFast{leaks}\n\n{after}")).expect("it can be written");
    for service in ["alertmanager", "alertmanager-2"] {
        lab.docker_ok(&["kill", "--signal", "HUP", &lab.container(service)]);
    }
}

/// Replicas fall sick, at most two at a time: with all three, nothing would be repaired any more without a human.
async fn leaks(lab: &Lab, mut dice: Dice, end: Instant, log: &RefCell<Log>) {
    while Instant::now() < end {
        let n = 1 + dice.index(3);
        let pause = dice.seconds(4, 12);
        let open = descriptors(lab).await;
        if open.len() == 3 && open.values().filter(|open| **open > SICK).count() < 2 && open[&n] < SICK {
            let request = lab.http.post(format!("{}/leak?{FLOOD}", lab.base(&format!("INVENTORY_{n}"))));
            if request.timeout(Duration::from_secs(2)).send().await.is_ok() {
                log.borrow_mut().leaks += 1;
            }
        }
        sleep(pause).await;
    }
}

/// Open descriptors of the replicas that answer, by the replicas' own word.
async fn descriptors(lab: &Lab) -> BTreeMap<usize, f64> {
    let mut open = BTreeMap::new();
    for n in 1..=3 {
        let request = lab.http.get(lab.base(&format!("INVENTORY_{n}")) + "/metrics").timeout(Duration::from_secs(2));
        let Ok(answer) = request.send().await else { continue };
        let Ok(text) = answer.text().await else { continue };
        let value = text.lines().find_map(|line| line.strip_prefix("process_open_fds ")?.trim().parse().ok());
        open.extend(value.map(|value| (n, value)));
    }
    open
}

/// Alerts raised in both Alertmanagers by hand, each with a beginning of its own: one all the time about a replica that nobody knows,
/// others now and then about replicas that may be well.
async fn liars(lab: &Lab, mut dice: Dice, end: Instant) {
    while Instant::now() < end {
        let mut about = vec![9];
        about.extend((1..=3).filter(|_| dice.one_in(2)));
        for service in ["alertmanager", "alertmanager-2"] {
            let now = Timestamp::now();
            let begun = now - SignedDuration::from_secs(dice.between(5, 90).cast_signed());
            let alert = |n: &usize| {
                let labels = json!({
                    "alertname": "FdLeakFast", "cluster": "lab", "instance": replica(*n), "job": "inventory",
                    "service": "inventory", "severity": "page",
                });
                json!({ "labels": labels, "startsAt": begun.to_string(), "endsAt": (now + SignedDuration::from_secs(9)).to_string() })
            };
            let alerts: Vec<_> = about.iter().map(alert).collect();
            // It may be down just now.
            let port = lab.docker(&["port", &lab.container(service), "9093"]).stdout;
            let address = String::from_utf8_lossy(&port).lines().next().unwrap_or_default().to_owned();
            let request = lab.http.post(format!("http://{address}/api/v2/alerts")).timeout(Duration::from_secs(2));
            let _ = request.json(&alerts).send().await;
        }
        sleep(Duration::from_secs(6)).await;
    }
}

/// Once a second: how many customers were turned away since the last look.
async fn watch_customers(lab: &Lab, log: &RefCell<Log>) {
    lab.watch_customers().await;
    let mut before = 0;
    loop {
        if let Ok(report) = lab.get("LOAD", "/report").await {
            let failed = report["failed"].as_u64().unwrap_or(before);
            if failed > before {
                println!("{} customers turned away: {}", failed - before, report["last_error"]);
                log.borrow_mut().turned_away.push((Timestamp::now(), failed - before));
            }
            before = failed;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Everything is put right, and some time later nothing may be left of it.
async fn settled(lab: &Lab, begun: Timestamp) {
    lab.ready().await;
    eventually("every replica to be well, and every record to be closed", 240, async || {
        let open = descriptors(lab).await;
        let well = open.values().filter(|open| **open < SICK).count();
        let records = tally::records(lab, begun).await?;
        let still = records.iter().filter(|record| record["outcome"].is_null()).count();
        (well == 3 && still == 0).then_some(()).ok_or_else(|| format!("{well} of 3 well ({open:?}), {still} records open"))
    })
    .await;
    lab.assert_none_drained().await;
}
