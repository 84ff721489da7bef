//! From a seed to a world: services and replicas, playbooks and limits, Alertmanagers, and a script of what goes wrong.

mod later;

use std::time::Duration;

use crate::decide::playbook::{
    BlastRadius, BreakerSpec, Budget, Confirm, DrainSpec, EvidenceSpec, Guards, Mode, OnTimeout, Playbook, Rate, RecoverySpec,
    Share, Threshold,
};
use crate::guard::rails::Limits;
use crate::period::Period;
use crate::pipeline::Timing;
use crate::sim::alertmanager::PeerSpec;
use crate::sim::dice::Dice;
use crate::sim::docker::RestartFault;
use crate::sim::fault::Fault;
use crate::sim::prometheus::{Condition, Prometheus, Rule, Trouble};
use crate::sim::shop::Replica;
use crate::sim::{Point, Sim, When};

const SERVICES: [&str; 3] = ["inventory", "orders", "search"];
const SHARE: &str = "process_open_fds{$target} / process_max_fds{$target}";
/// Before anything goes wrong: a few scrapes of a healthy shop.
const QUIET: u64 = 90;
/// After everything was put right: longer than any cooldown, budget's refill and page's hold in a scenario.
const TAIL: Duration = Duration::from_secs(38 * 60);
/// In a `Fault` under `Then`: the replica whose drain is the newest.
pub const NEWEST: usize = usize::MAX;

/// A world and what happens to it.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub replicas: Vec<Replica>,
    /// The places of each service's replicas.
    pub services: Vec<Vec<usize>>,
    pub playbooks: Vec<Playbook>,
    pub limits: Limits,
    pub timing: Timing,
    pub scrape: Duration,
    pub peers: Vec<PeerSpec>,
    /// In the order of time.
    pub script: Vec<(Duration, Fault)>,
    /// When everything is put right.
    pub calm_at: Duration,
    pub end: Duration,
}

impl Scenario {
    pub fn draw(seed: u64) -> Scenario {
        let mut dice = Dice::new(seed, 1);
        let count = dice.of(&[1, 1, 1, 2, 2, 3]);
        let (mut replicas, mut services, mut playbooks) = (Vec::new(), Vec::new(), Vec::new());
        for (number, name) in SERVICES.iter().enumerate().take(count) {
            let Ok(service) = name.parse() else { continue };
            let most = if count == 1 { 6 } else { 4 };
            let size = dice.between(2, most);
            let from = replicas.len();
            let first = number as u64 * 10 + 1;
            replicas.extend((first..first + size).filter_map(|n| Replica::new(&service, u8::try_from(n).ok()?)));
            services.push((from..replicas.len()).collect());
            playbooks.extend(books(&mut dice, name, replicas.len() - from));
        }
        let minutes = dice.between(20, 45);
        let calm_at = Duration::from_secs(QUIET + 60 * minutes);
        let mut scenario = Scenario {
            seed,
            replicas,
            services,
            playbooks,
            limits: limits(&mut dice),
            timing: Timing {
                ask_again: Period::from_secs(dice.of(&[30, 60, 60, 60])),
                hold: Period::from_secs(600),
                page_every: Period::from_secs(60),
            },
            scrape: Duration::from_secs(15),
            peers: (0..dice.of(&[1, 1, 2])).map(|_| PeerSpec::draw(&mut dice)).collect(),
            script: Vec::new(),
            calm_at,
            end: calm_at + TAIL,
        };
        scenario.script = script(&mut dice, &scenario);
        scenario.more();
        scenario.still();
        scenario.besides();
        scenario.lately();
        scenario
    }

    /// The world at its beginning.
    pub fn world(&self) -> Sim {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let rules = vec![
            Rule::new("FdLeakSustained", Condition::Leaking { above: 0.5, older_than: minutes(15) }, minutes(5)),
            Rule::new("FdLeakFast", Condition::Leaking { above: 0.5, older_than: minutes(5) }, minutes(1)),
            Rule::new("FdExhausted", Condition::Exhausted, minutes(2)),
        ];
        Sim::new(self.replicas.clone(), Prometheus::new(self.scrape, rules))
    }

    /// The playbooks of a service, by its place.
    pub fn playbooks_of(&self, service: usize) -> impl Iterator<Item = (usize, &Playbook)> {
        let name = SERVICES[service];
        self.playbooks.iter().enumerate().filter(move |(_, playbook)| playbook.service.as_str() == name)
    }
}

fn limits(dice: &mut Dice) -> Limits {
    let minutes = |dice: &mut Dice| Period::from_secs(60 * dice.of(&[1, 1, 5]));
    Limits {
        fleet: Rate { per: minutes(dice), burst: dice.of(&[2, 5, 5]) as u32 },
        group: Rate { per: minutes(dice), burst: dice.of(&[1, 3, 3]) as u32 },
    }
}

/// One playbook for all alerts of a service, or one for the leak and one for the exhaustion.
fn books(dice: &mut Dice, service: &str, replicas: usize) -> Vec<Playbook> {
    let mode = if dice.one_in(6) { Mode::Shadow } else { Mode::Live };
    let guards = guards(dice, replicas);
    let named = |suffix: &str, alerts: &str, confirm: Confirm, dice: &mut Dice| {
        Some(Playbook {
            name: format!("{service}-{suffix}").parse().ok()?,
            matchers: vec![format!("alertname=~\"{alerts}\"").parse().ok()?, format!("service=\"{service}\"").parse().ok()?],
            every: None,
            service: service.parse().ok()?,
            replica_label: "instance".to_owned(),
            infrastructure: false,
            confirm,
            veto: Vec::new(),
            evidence: EvidenceSpec { logs: 2, required: dice.one_in(2) },
            drain: DrainSpec {
                within: Period::from_secs(dice.of(&[10, 30])),
                on_timeout: dice.of(&[OnTimeout::Abort, OnTimeout::Proceed]),
            },
            restart_grace_seconds: 10,
            healthy_within: Period::from_secs(dice.of(&[30, 60])),
            recovered: RecoverySpec {
                query: SHARE.to_owned(),
                below: 0.3,
                settle: Period::from_secs(10),
                looks: 2,
                within: Period::from_secs(90),
            },
            guards: guards.clone(),
            mode,
        })
    };
    let by_rule = || Confirm::Rule { inputs: ["process_open_fds", "process_max_fds", "up"].map(str::to_owned).to_vec() };
    let by_query = || Confirm::Query { query: SHARE.to_owned(), threshold: Threshold::Above(0.5) };
    let books = match dice.below(4) {
        0 => vec![
            named("leak", "FdLeakFast|FdLeakSustained", by_query(), dice),
            named("exhausted", "FdExhausted", by_rule(), dice),
        ],
        1 => {
            vec![named("leak", "FdLeakFast|FdLeakSustained", by_rule(), dice), named("exhausted", "FdExhausted", by_rule(), dice)]
        }
        _ => vec![named("leak", "FdLeakFast|FdLeakSustained|FdExhausted", by_rule(), dice)],
    };
    books.into_iter().flatten().collect()
}

fn guards(dice: &mut Dice, replicas: usize) -> Guards {
    let minutes = |dice: &mut Dice, of: &[u64]| Period::from_secs(60 * dice.of(of));
    let small = |n: u64| u32::try_from(n).unwrap_or(1);
    let max_unhealthy = match dice.below(3) {
        0 => Share::Count(small(dice.between(1, replicas as u64 - 1))),
        _ => Share::Percent(dice.of(&[34, 50, 67])),
    };
    Guards {
        start_grace: Period::from_secs(120),
        cooldown: minutes(dice, &[2, 5, 10]),
        rate: Rate { per: minutes(dice, &[1, 5, 10]), burst: dice.of(&[1, 2, 3]) },
        budget: vec![
            Budget { most: dice.of(&[1, 2, 3]), per: minutes(dice, &[20, 30]) },
            Budget { most: 4, per: Period::from_secs(3600) },
        ],
        breaker: BreakerSpec {
            failures: dice.of(&[1, 2, 3]),
            recurrence: minutes(dice, &[10, 15]),
            cooldown: minutes(dice, &[5, 10]),
        },
        blast_radius: BlastRadius {
            min_healthy: small(dice.between(1, (replicas as u64 - 1).min(3))),
            max_unhealthy,
            max_in_flight: dice.of(&[1, 1, 2]),
            blame: minutes(dice, &[5, 10]),
        },
    }
}

fn script(dice: &mut Dice, scenario: &Scenario) -> Vec<(Duration, Fault)> {
    let last = scenario.calm_at.as_secs() - 60;
    let mut script = Vec::new();
    // Something to do in every world: the leaks come first, what goes wrong with them comes where they are.
    for _ in 0..dice.between(1, 4) {
        let at = dice.seconds(QUIET, last.saturating_sub(300));
        let sick = sickness(dice, scenario);
        if let Fault::Leaks(who) = sick {
            script.extend(company(dice, scenario, who).into_iter().map(|(later, fault)| (at + later, fault)));
        }
        script.push((at, sick));
        if dice.one_in(3) {
            script.push((
                at,
                Fault::Then(dice.of(&[Point::Drain, Point::Drain, Point::Logs]), Box::new(meanwhile(dice, scenario))),
            ));
        }
    }
    for _ in 0..dice.between(1, 6) {
        let at = dice.seconds(QUIET, last);
        let (fault, end) = trouble(dice, scenario);
        script.push((at, fault));
        if let Some(end) = end {
            let until = at + dice.seconds(10, 600);
            script.push((until.min(Duration::from_secs(last)), end));
        }
    }
    script.sort_by_key(|(at, _)| *at);
    script
}

fn replica(dice: &mut Dice, scenario: &Scenario) -> usize {
    dice.index(scenario.replicas.len())
}

fn service(dice: &mut Dice, scenario: &Scenario) -> usize {
    dice.index(scenario.services.len())
}

fn sickness(dice: &mut Dice, scenario: &Scenario) -> Fault {
    let who = replica(dice, scenario);
    match dice.below(12) {
        0 => Fault::Incurable(who),
        1 | 2 => Fault::LeaksAgain(who, dice.seconds(0, 400)),
        3 => Fault::Shared(service(dice, scenario)),
        4 => Fault::Flat(who),
        _ => Fault::Leaks(who),
    }
}

/// What comes with a leak, at the moments when it matters: around its alert's first delivery.
fn company(dice: &mut Dice, scenario: &Scenario, who: usize) -> Vec<(Duration, Fault)> {
    let trouble = |from: Duration, trouble: Trouble| {
        vec![(from, Fault::Prometheus(trouble)), (from + Duration::from_secs(200), Fault::Prometheus(Trouble::None))]
    };
    match dice.below(12) {
        0 => trouble(dice.seconds(50, 90), Trouble::Frozen),
        1 => trouble(dice.seconds(60, 90), Trouble::Lagging),
        2 => {
            let peer = dice.index(scenario.peers.len());
            let until = Duration::from_secs(300);
            vec![(Duration::ZERO, Fault::Truncates(peer, true)), (until, Fault::Truncates(peer, false))]
        }
        // Exhausted, restarted by somebody else, and slow to come up: its alert fires for a young process.
        3 => vec![
            (Duration::from_secs(1), Fault::Exhausted(who)),
            (Duration::from_secs(2), Fault::Slow(who, Duration::from_secs(110))),
            (dice.seconds(110, 145), Fault::ForeignRestart(who)),
            (Duration::from_secs(400), Fault::Slow(who, Duration::from_secs(2))),
        ],
        _ => Vec::new(),
    }
}

/// What happens while we are in the middle of a run.
fn meanwhile(dice: &mut Dice, scenario: &Scenario) -> Fault {
    match dice.below(16) {
        0 | 1 => Fault::ForeignRestart(NEWEST),
        2 => Fault::Recreated(NEWEST),
        3 | 4 => Fault::Reload,
        5 => Fault::Pause(None),
        6 => Fault::Mode(dice.index(scenario.playbooks.len()), Mode::Shadow),
        7 | 8 => Fault::Maintenance(replica(dice, scenario), true),
        9 => Fault::Hangs(replica(dice, scenario), true),
        10 => Fault::Clock(dice.of(&[300, 600, -600])),
        11 | 12 => Fault::Full(true),
        13 => Fault::Sympathy(service(dice, scenario)),
        14 => Fault::KillAfter(dice.below(6)),
        _ => Fault::Stop,
    }
}

fn trouble(dice: &mut Dice, scenario: &Scenario) -> (Fault, Option<Fault>) {
    let who = replica(dice, scenario);
    let pair = |make: &dyn Fn(bool) -> Fault| (make(true), Some(make(false)));
    match dice.below(48) {
        0 | 1 => pair(&|on| Fault::Hangs(who, on)),
        2 => pair(&|on| Fault::Stopped(who, on)),
        3 | 4 => (Fault::Slow(who, dice.seconds(5, 200)), Some(Fault::Slow(who, Duration::from_secs(2)))),
        5 | 6 => {
            let within = dice.of(&[None, Some(Duration::from_secs(20)), Some(Duration::from_secs(40))]);
            (Fault::Empties(who, within), Some(Fault::Empties(who, Some(Duration::from_secs(2)))))
        }
        7 => (Fault::ForeignRestart(who), None),
        8 => (Fault::Recreated(who), None),
        9 => pair(&|on| Fault::Lost(who, on)),
        10 | 11 => pair(&|on| Fault::OptedOut(who, on)),
        12 => pair(&|on| Fault::ForeignDrain(who, on)),
        13 => pair(&|on| Fault::Maintenance(who, on)),
        14 => pair(&|on| Fault::Unscraped(who, on)),
        15..=20 => {
            use Trouble::{Down, Frozen, Lagging, Nan, NoTargets, Slow, Warnings};
            let trouble = dice.of(&[Down, Slow, Lagging, Lagging, Warnings, Nan, Frozen, Frozen, Frozen, NoTargets]);
            (Fault::Prometheus(trouble), Some(Fault::Prometheus(Trouble::None)))
        }
        21 => pair(&Fault::EngineDown),
        22..=25 => {
            let fault = dice.of(&[RestartFault::Refused, RestartFault::SilentDone, RestartFault::SilentUndone]);
            (Fault::Restarts(fault), Some(Fault::Restarts(RestartFault::None)))
        }
        26 => pair(&Fault::Mute),
        27 => pair(&Fault::BalancerDown),
        28 => pair(&Fault::RefusesDrain),
        29 => pair(&Fault::DrainsSilently),
        30 | 31 => pair(&Fault::RefusesReady),
        32 => (Fault::Reload, None),
        33 => pair(&Fault::PagerDown),
        34 | 35 => {
            let service = service(dice, scenario);
            pair(&|on| Fault::Silenced(service, on))
        }
        36 | 37 => pair(&Fault::Full),
        38 => {
            let ahead = dice.of(&[3, 20, 120, 600, -3, -20, -120, -600, -1800]);
            (Fault::Clock(ahead), Some(Fault::Clock(0)))
        }
        39 => (Fault::Kill, None),
        40 | 41 => {
            let point = dice.of(&[Point::Drain, Point::Restart, Point::Ready, Point::Inspect, Point::Servers, Point::Raise]);
            (Fault::KillAt(point, dice.of(&[When::Before, When::After]), dice.between(1, 3)), None)
        }
        42 => (Fault::KillAfter(dice.between(1, 30)), None),
        43 => (Fault::Stop, None),
        44 => {
            let number = dice.index(scenario.playbooks.len());
            let scope = dice.of(&[None, Some(number)]);
            (Fault::Pause(scope), Some(Fault::Resume(scope)))
        }
        45 if dice.one_in(2) => (Fault::Intruder(who), None),
        45 => (Fault::Liar(who), None),
        46 => {
            let peer = dice.index(scenario.peers.len());
            pair(&|on| Fault::PeerDown(peer, on))
        }
        _ => {
            let peer = dice.index(scenario.peers.len());
            pair(&|on| Fault::Truncates(peer, on))
        }
    }
}
