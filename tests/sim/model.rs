//! All interleavings of a small world, by the production functions that decide: two Alertmanagers tell of one sick
//! replica, each with its own `startsAt`, over a network that loses and repeats; two tasks of the program take the next
//! step of whatever is open, and what is watched is asked about again; the process may die between any two entries of
//! its journal, and time passes or does not.
//!
//! Explored breadth-first with every state remembered, so that "never" is a count and not a hope. What decides is
//! `detect::receive`, `decide`, `guard::coordinate::admit` and `State::apply`; what is modelled is who does what when.

use std::collections::{BTreeMap, HashSet, VecDeque};

use jiff::{SignedDuration, Timestamp};
use remediator::alert::{Alert, AlertGroup, AlertStatus, LabelSet};
use remediator::audit::state::State;
use remediator::decide::decision::{Decision, decide};
use remediator::decide::evidence::{Evidence, Reading, Sibling};
use remediator::decide::playbook::{Playbook, Rate};
use remediator::detect::receive;
use remediator::event::{Accepted, Draft, Entry, Event, Phase, RecordId, Trigger};
use remediator::guard::coordinate::{Admission, admit};
use remediator::guard::rails::{Limits, Request};
use remediator::period::Period;
use remediator::reason::{Outcome, Reason};
use remediator::sim::scenario::Scenario;
use remediator::target::{Replica, Target};
use uuid::Uuid;

/// Steps of time: within the cooldown, and beyond it.
const STEPS: [i64; 2] = [10, 300];
/// How often time may pass.
const TICKS: u8 = 2;
/// Copies of one notification that the network may hold.
const COPIES: u8 = 1;
/// How often the process may die.
const DEATHS: u8 = 1;
/// Records that may ever be opened: the first, and those of asking again.
const RECORDS: u128 = 2;

/// Where everybody stands.
#[derive(Clone, Debug)]
struct World {
    state: State,
    now: i64,
    ticks: u8,
    deaths: u8,
    /// Per peer: copies on their way, and whether it was answered.
    copies: [u8; 2],
    answered: [bool; 2],
    /// Per task: the admission that it is about to use, which is not durable knowledge.
    permits: [Option<RecordId>; 2],
    /// Restarts, by the time of their leave.
    restarts: Vec<i64>,
    /// Records whose restart was carried out.
    done: Vec<RecordId>,
    ids: u128,
}

struct Small {
    playbook: Playbook,
    target: Target,
    replica: Replica,
    limits: Limits,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_600_000 + seconds).expect("a time")
}

fn small() -> Small {
    let seed = (0..).find(|seed| Scenario::draw(*seed).playbooks.len() == 1).expect("a seed with one playbook");
    let mut playbook = Scenario::draw(seed).playbooks.remove(0);
    playbook.mode = remediator::decide::playbook::Mode::Live;
    playbook.guards.cooldown = Period::from_secs(240);
    playbook.guards.breaker.failures = 3;
    playbook.guards.blast_radius.min_healthy = 1;
    playbook.guards.blast_radius.max_unhealthy = remediator::decide::playbook::Share::Percent(67);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let replica = runtime.block_on(async {
        let sim = Scenario::draw(seed).world();
        let world = sim.world();
        let target = sim.with(|state| state.replicas[0].target());
        let containers = world.engine.containers().await.expect("containers");
        let id = remediator::target::pick(&containers, &target).expect("one").id.clone();
        let mut container = world.engine.inspect(&id).await.expect("inspected");
        container.started_at = Some(at(-86_400));
        let servers = world.balancer.servers().await.expect("servers");
        remediator::target::resolve(&target, &container, &containers, &servers).expect("matched")
    });
    let generous = Rate { per: Period::from_secs(1), burst: 1000 };
    Small { playbook, target: replica.target.clone(), replica, limits: Limits { fleet: generous, group: generous } }
}

impl Small {
    fn alert(&self, peer: usize) -> Alert {
        Alert {
            status: AlertStatus::Firing,
            labels: LabelSet::from([
                ("alertname", "FdLeakFast"),
                ("instance", self.target.instance.as_str()),
                ("service", self.target.service.as_str()),
            ]),
            annotations: LabelSet::default(),
            starts_at: Some(at(-100 - peer as i64)),
            generator_url: String::new(),
        }
    }

    fn group(&self, peer: usize) -> AlertGroup {
        AlertGroup {
            receiver: format!("peer-{peer}"),
            group_key: "{}:{}".to_owned(),
            truncated: 0,
            alerts: vec![self.alert(peer)],
        }
    }

    fn evidence(&self, now: i64) -> Evidence {
        let sibling = |instance: &str, sick: bool| Sibling {
            instance: instance.parse().expect("an instance"),
            server: None,
            serving: !sick,
            state: "up".to_owned(),
            sick,
            alerts: Vec::new(),
            active_at: Some(at(-100)),
        };
        Evidence {
            at: at(now),
            labels: self.alert(0).labels,
            target: self.target.clone(),
            truncated: 0,
            reading: Reading::Firing { value: 0.7, query: "q".to_owned() },
            replica: Ok(self.replica.clone()),
            siblings: Ok(vec![
                sibling(self.target.instance.as_str(), true),
                sibling("10.9.9.8:8080", false),
                sibling("10.9.9.9:8080", false),
            ]),
            listed: Ok(vec!["FdLeakFast".to_owned()]),
            silences: Ok(Vec::new()),
            vetoes: Vec::new(),
        }
    }
}

impl World {
    fn new() -> World {
        World {
            state: State::default(),
            now: 0,
            ticks: 0,
            deaths: 0,
            copies: [1, 1],
            answered: [false, false],
            permits: [None, None],
            restarts: Vec::new(),
            done: Vec::new(),
            ids: 0,
        }
    }

    fn write(&mut self, drafts: Vec<Draft>) {
        for Draft { at, record, event } in drafts {
            let entry = Entry { seq: self.state.head.seq + 1, at, record, event };
            self.state.apply(&entry).expect("a legal transition");
        }
    }

    /// Everything that may happen next.
    fn next(&self, small: &Small) -> Vec<World> {
        let mut worlds = Vec::new();
        for peer in 0..2 {
            worlds.extend(self.network(small, peer));
            worlds.extend(self.task(small, peer));
        }
        worlds.extend(self.asked_again());
        if self.ticks < TICKS {
            worlds.extend(STEPS.map(|step| World { now: self.now + step, ticks: self.ticks + 1, ..self.clone() }));
        }
        if self.deaths < DEATHS {
            worlds.push(World { deaths: self.deaths + 1, permits: [None, None], ..self.clone() });
        }
        worlds
    }

    /// A copy arrives and is answered, or the answer is lost; a copy is lost, or made, or sent again.
    fn network(&self, small: &Small, peer: usize) -> Vec<World> {
        let mut worlds = Vec::new();
        if self.copies[peer] > 0 {
            let mut lost = self.clone();
            lost.copies[peer] -= 1;
            let mut taken = lost.clone();
            let first = taken.ids;
            let ids = std::cell::Cell::new(first);
            let new_record = || {
                ids.set(ids.get() + 1);
                RecordId(Uuid::from_u128(ids.get()))
            };
            let books = std::slice::from_ref(&small.playbook);
            let received = receive(&taken.state, books, small.group(peer), "model".to_owned(), at(self.now), &new_record);
            let (drafts, receipts) = received.expect("there is room");
            assert!(receipts.receipts.iter().all(|receipt| receipt.id.is_some()), "I7: a receipt names a record");
            taken.ids = ids.get();
            taken.write(drafts);
            let mut answered = taken.clone();
            answered.answered[peer] = true;
            worlds.extend([lost, taken, answered]);
        }
        if self.copies[peer] < COPIES && !self.answered[peer] {
            let mut again = self.clone();
            again.copies[peer] += 1;
            worlds.push(again);
        }
        worlds
    }

    /// A watched episode is asked about again, whatever there is to say: production does so only when there is news.
    fn asked_again(&self) -> Option<World> {
        let watch = self.state.books.watches.values().next().filter(|_| self.state.open.is_empty() && self.ids < RECORDS)?;
        let mut world = self.clone();
        world.ids += 1;
        let accepted = Accepted { trigger: Trigger::AskedAgain { of: watch.record }, ..watch.accepted.clone() };
        let id = RecordId(Uuid::from_u128(world.ids));
        world.write(vec![Draft::of(id, at(self.now), Event::Accepted { accepted: Box::new(accepted) })]);
        Some(world)
    }

    /// One of two tasks takes the next step of whatever is open: each step is a transaction of its own.
    fn task(&self, small: &Small, task: usize) -> Option<World> {
        let mut world = self.clone();
        let now = at(self.now);
        if let Some(id) = world.permits[task].take() {
            // The step is on disk already; this is the call.
            world.done.push(id);
            return Some(world);
        }
        let record = self.state.open.values().next()?.clone();
        let id = record.id;
        let drafts = match record.phase {
            Phase::Accepted => vec![Event::Confirmed { evidence: Box::new(small.evidence(self.now)) }],
            Phase::Confirmed => {
                let evidence = record.evidence.as_ref().expect("confirmed");
                vec![Event::Decided { decision: decide(&small.playbook, evidence, now) }]
            }
            Phase::Decided => {
                let decision = record.decision.as_ref().expect("decided");
                let evidence = record.evidence.as_ref().expect("confirmed");
                let Decision::Remediate { plan } = &decision.decision else { panic!("{decision:#?}") };
                let request = Request { playbook: &small.playbook, limits: &small.limits, evidence, plan };
                match admit(&self.state.books, &request, id, now) {
                    Admission::Admitted { intent, .. } => {
                        world.restarts.push(self.now);
                        world.permits[task] = Some(id);
                        vec![Event::Intent { intent }]
                    }
                    Admission::Refused(assessment) => {
                        vec![Event::Refused { guards: assessment.checks, recurred: assessment.recurred }]
                    }
                }
            }
            Phase::Refused => vec![closed(Outcome::Refused, Reason::Cooldown)],
            // Whoever has the permit acts first; without one, the process that had it is dead.
            Phase::Admitted if self.permits.contains(&Some(id)) => return None,
            Phase::Admitted if self.done.contains(&id) => vec![closed(Outcome::Recovered, Reason::RecoveryConfirmed)],
            Phase::Admitted => vec![closed(Outcome::Interrupted, Reason::Crashed)],
            Phase::Judged | Phase::Closed => unreachable!("not modelled"),
        };
        world.write(drafts.into_iter().map(|event| Draft::of(id, now, event)).collect());
        Some(world)
    }

    /// What must hold everywhere.
    fn holds(&self, small: &Small) {
        assert!(self.state.open.len() <= 1, "I2: two records about one target: {:#?}", self.state.open.keys());
        assert!(self.state.books.live.held.len() <= 1);
        for pair in self.restarts.windows(2) {
            let apart = SignedDuration::from_secs(pair[1] - pair[0]);
            assert!(apart >= small.playbook.guards.cooldown.signed(), "I2: leave twice within the cooldown: {:?}", self.restarts);
        }
        let twice = self.done.iter().filter(|id| self.done.iter().filter(|other| other == id).count() > 1).count();
        assert_eq!(twice, 0, "I4: a restart was carried out twice");
        assert!(self.done.len() <= self.restarts.len(), "I1: more restarts than leave");
    }

    /// Two worlds with the same print go on in the same way.
    fn print(&self) -> String {
        let times: BTreeMap<&str, String> = [
            ("books", serde_json::to_string(&self.state.books).expect("books")),
            ("open", serde_json::to_string(&self.state.open.values().collect::<Vec<_>>()).expect("records")),
        ]
        .into();
        format!(
            "{times:?} {} {} {} {:?} {:?} {:?} {:?} {:?}",
            self.now, self.ticks, self.deaths, self.copies, self.answered, self.permits, self.restarts, self.done
        )
    }
}

fn closed(outcome: Outcome, reason: Reason) -> Event {
    Event::Closed { outcome, reason, detail: String::new() }
}

#[test]
fn no_interleaving_of_deliveries_crashes_and_admissions_acts_twice() {
    use sha2::Digest as _;
    let small = small();
    let (mut seen, mut queue) = (HashSet::new(), VecDeque::from([World::new()]));
    let (mut steps, mut acted, mut ended) = (0_u64, 0_u64, 0_u64);
    while let Some(world) = queue.pop_front() {
        world.holds(&small);
        acted += u64::from(!world.done.is_empty());
        let next = world.next(&small);
        ended += u64::from(next.is_empty());
        for next in next {
            steps += 1;
            let print: [u8; 32] = sha2::Sha256::digest(next.print().as_bytes()).into();
            if seen.insert(print) {
                queue.push_back(next);
            }
        }
    }
    println!("{} states, {steps} transitions, {acted} states after a restart, {ended} ends", seen.len());
    assert!(seen.len() > 1_000, "only {} states: the world is too small to prove anything", seen.len());
    assert!(acted > 100 && acted < seen.len() as u64);
}
