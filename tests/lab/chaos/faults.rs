//! The faults: what is struck, for how long, and how it is put right.

use std::cell::RefCell;
use std::time::Duration;

use jiff::Timestamp;
use remediator::sim::dice::Dice;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{Log, Struck};
use crate::lab::Lab;
use crate::remediator::steps;

/// Longest wait for a run to strike into.
const PATIENCE: Duration = Duration::from_secs(15);
const STEPS: [&str; 5] = ["capture_evidence", "drain", "restart", "await_healthy", "readmit"];

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Killed,
    Stopped,
    StoodStill,
    Doors,
    Balancer,
    Prometheus,
    CutOff,
    DiskFull,
    SlowReceiver,
    Alertmanager(&'static str),
}

const ALL: [Fault; 14] = [
    Fault::Killed,
    Fault::Killed,
    Fault::Killed,
    Fault::Stopped,
    Fault::StoodStill,
    Fault::Doors,
    Fault::Doors,
    Fault::Balancer,
    Fault::Prometheus,
    Fault::CutOff,
    Fault::DiskFull,
    Fault::SlowReceiver,
    Fault::Alertmanager("alertmanager"),
    Fault::Alertmanager("alertmanager-2"),
];

impl Fault {
    pub fn word(self) -> &'static str {
        match self {
            Fault::Killed => "remediator killed",
            Fault::Stopped => "remediator stopped (SIGTERM)",
            Fault::StoodStill => "remediator's container paused",
            Fault::Doors => "doors to Docker stopped",
            Fault::Balancer => "HAProxy restarted",
            Fault::Prometheus => "Prometheus killed",
            Fault::CutOff => "cut off from Prometheus",
            Fault::DiskFull => "disk full",
            Fault::SlowReceiver => "receiver slow",
            Fault::Alertmanager(_) => "an Alertmanager killed",
        }
    }

    async fn begin(self, lab: &Lab, dice: &mut Dice) {
        let kill = |service: &str| lab.docker_ok(&["kill", "--signal", "KILL", &lab.container(service)]);
        match self {
            Fault::Killed => drop(kill("remediator")),
            Fault::Stopped => drop(lab.docker_ok(&["stop", "--time", "60", &lab.container("remediator")])),
            Fault::StoodStill => drop(lab.docker_ok(&["pause", &lab.container("remediator")])),
            Fault::Doors => drop(kill("doors")),
            Fault::Balancer => drop(kill("haproxy")),
            Fault::Prometheus => drop(kill("prometheus")),
            Fault::CutOff => lab.cut_questions(),
            Fault::DiskFull => lab.fill_disk(),
            Fault::SlowReceiver => lab.slow_receiver(dice.seconds(3, 12)).await,
            Fault::Alertmanager(service) => drop(kill(service)),
        }
    }

    fn lasts(self, dice: &mut Dice) -> Duration {
        match self {
            // Customers have no other way in.
            Fault::Balancer => Duration::ZERO,
            Fault::Killed | Fault::Stopped => dice.seconds(0, 5),
            Fault::StoodStill if dice.one_in(2) => Duration::from_secs(60),
            Fault::StoodStill => dice.seconds(3, 25),
            Fault::Doors | Fault::Prometheus | Fault::Alertmanager(_) => dice.seconds(0, 8),
            Fault::CutOff | Fault::DiskFull | Fault::SlowReceiver => dice.seconds(5, 20),
        }
    }

    async fn end(self, lab: &Lab) {
        let start = |service: &str| lab.docker_ok(&["start", &lab.container(service)]);
        match self {
            Fault::Killed | Fault::Stopped => drop(start("remediator")),
            Fault::StoodStill => drop(lab.docker_ok(&["unpause", &lab.container("remediator")])),
            Fault::Doors => drop(start("doors")),
            Fault::Balancer => drop(start("haproxy")),
            Fault::Prometheus => drop(start("prometheus")),
            Fault::CutOff => lab.mend_questions(),
            Fault::DiskFull => lab.free_disk(),
            Fault::SlowReceiver => lab.slow_receiver(Duration::ZERO).await,
            Fault::Alertmanager(service) => drop(start(service)),
        }
    }

    /// Two faults that are done to one container cannot be done at once.
    fn meets(self, other: Fault) -> bool {
        let hits_remediator = |fault| matches!(fault, Fault::Killed | Fault::Stopped | Fault::StoodStill);
        let hits_prometheus = |fault| matches!(fault, Fault::Prometheus | Fault::CutOff);
        self.word() == other.word()
            || (hits_remediator(self) && hits_remediator(other))
            || (hits_prometheus(self) && hits_prometheus(other))
    }
}

/// One fault after the other, most of them in the middle of a run, every third together with another one.
pub async fn strike(lab: &Lab, mut dice: Dice, end: Instant, log: &RefCell<Log>) {
    while Instant::now() < end {
        let fault = dice.of(&ALL);
        let second = Some(dice.of(&ALL)).filter(|second| dice.one_in(3) && !second.meets(fault));
        let step = dice.of(&STEPS);
        let midst = !dice.one_in(4);
        let lasts = fault.lasts(&mut dice);
        let sessions = match midst && dice.one_in(2) {
            true => lab.try_sessions().await,
            false => None,
        };
        if midst && timeout(PATIENCE, under_way(lab, step)).await.is_err() {
            println!("no run was seen at {step}");
        }
        let from = Timestamp::now();
        for fault in [Some(fault), second].into_iter().flatten() {
            fault.begin(lab, &mut dice).await;
        }
        drop(sessions);
        sleep(lasts).await;
        for fault in [second, Some(fault)].into_iter().flatten() {
            fault.end(lab).await;
            let struck = Struck { what: fault.word(), from, to: Timestamp::now() };
            println!("{from} {} for {:.1}", struck.what, struck.to.duration_since(from).as_secs_f64());
            log.borrow_mut().faults.push(struck);
        }
        sleep(dice.seconds(1, 6)).await;
    }
}

/// Waits until a run is at this step.
async fn under_way(lab: &Lab, step: &str) {
    loop {
        let answer = lab.read("/audit?limit=10").await.unwrap_or(Value::Null);
        let records = answer["records"].as_array().cloned().unwrap_or_default();
        let at = |record: &Value| {
            record["outcome"].is_null() && steps(record).last().is_some_and(|(last, call)| last == step && call == "under way")
        };
        if records.iter().any(at) {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}
