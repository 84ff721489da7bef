//! The pure core, on evidence and histories that nobody would think of.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use remediator::alert::{Alert, AlertStatus, LabelSet};
use remediator::audit::state::State;
use remediator::decide::decision::{Decision, Plan, decide};
use remediator::decide::evidence::{Evidence, NoReplica, Reading, Sibling, Veto};
use remediator::decide::playbook::{Budget, Mode, Playbook, Rate};
use remediator::event::{Accepted, Draft, Entry, Event, Intent, RecordId, Trigger};
use remediator::guard::coordinate::{Admission, admit};
use remediator::guard::rails::{Limits, Request};
use remediator::period::Period;
use remediator::reason::{Outcome, Reason};
use remediator::sim::shop::inventory;
use remediator::target::{PlaybookName, Replica, Target, Unmatched};
use remediator::world::{Answer, Silence, Unanswered};

use crate::kit::{TWO, playbook};

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_600_000 + seconds).expect("a time")
}

fn unanswered() -> impl Strategy<Value = Unanswered> {
    prop::sample::select(Reason::ALL).prop_map(|reason| Unanswered::new(reason, "no"))
}

fn answer<T: std::fmt::Debug + Clone + 'static>(good: impl Strategy<Value = T> + 'static) -> impl Strategy<Value = Answer<T>> {
    prop_oneof![4 => good.prop_map(Ok), 1 => unanswered().prop_map(Err)]
}

fn reading() -> impl Strategy<Value = Reading> {
    prop_oneof![
        5 => any::<f64>().prop_map(|value| Reading::Firing { value, query: "q".to_owned() }),
        1 => Just(Reading::Quiet { query: "q".to_owned() }),
        1 => unanswered().prop_map(|why| Reading::Unknown { why }),
    ]
}

fn silence() -> Silence {
    Silence { id: "s".to_owned(), comment: String::new(), created_by: String::new(), ends_at: None }
}

/// The shop's second replica as Docker and the balancer show it when all is well.
pub fn well(started_at: Timestamp) -> Replica {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let sim = inventory();
        let world = sim.world();
        let target = sim.replica(TWO, |replica, _| replica.target()).expect("a replica");
        let containers = world.engine.containers().await.expect("containers");
        let id = remediator::target::pick(&containers, &target).expect("one").id.clone();
        let mut container = world.engine.inspect(&id).await.expect("inspected");
        container.started_at = Some(started_at);
        let servers = world.balancer.servers().await.expect("servers");
        remediator::target::resolve(&target, &container, &containers, &servers).expect("matched")
    })
}

pub fn evidence(replica: Replica) -> Evidence {
    let target = replica.target.clone();
    let sibling = |number: u8| Sibling {
        instance: format!("10.0.0.{number}:8080").parse().expect("an instance"),
        server: None,
        serving: true,
        state: "up".to_owned(),
        sick: false,
        alerts: Vec::new(),
        active_at: None,
    };
    Evidence {
        at: at(0),
        labels: LabelSet::from([("alertname", "FdLeakFast"), ("service", "inventory")]),
        target,
        truncated: 0,
        reading: Reading::Firing { value: 0.7, query: "q".to_owned() },
        replica: Ok(replica),
        siblings: Ok((1..=3).map(sibling).collect()),
        listed: Ok(vec!["FdLeakFast".to_owned()]),
        silences: Ok(Vec::new()),
        vetoes: Vec::new(),
    }
}

prop_compose! {
    fn any_evidence()(
        reading in reading(),
        matched in prop_oneof![4 => Just(true), 1 => Just(false)],
        why in unanswered(),
        running in prop_oneof![4 => Just(true), 1 => Just(false)],
        age in prop_oneof![1 => Just(None), 4 => (-100_i64..1000).prop_map(Some)],
        server in (prop::bool::weighted(0.1), prop::bool::weighted(0.1), prop::bool::weighted(0.9)),
        truncated in prop_oneof![4 => Just(0_u64), 1 => any::<u64>()],
        silences in answer(prop_oneof![4 => Just(Vec::new()), 1 => Just(vec![silence()])]),
        vetoes in prop::collection::vec(answer(prop_oneof![4 => Just(0_usize), 1 => any::<usize>()]), 0..3),
    ) -> Evidence {
        let mut evidence = evidence(well(at(0)));
        evidence.reading = reading;
        evidence.truncated = truncated;
        evidence.silences = silences;
        evidence.vetoes = vetoes.into_iter().map(|series| Veto { query: "v".to_owned(), series }).collect();
        if let Ok(replica) = &mut evidence.replica {
            replica.container.running = running;
            replica.container.started_at = age.map(|age| at(-age));
            (replica.server.drained, replica.server.maintenance, replica.server.checked) = server;
        }
        if !matched {
            let unmatched = Unmatched { reason: why.reason, detail: why.detail.clone() };
            evidence.replica = Err(if truncated % 2 == 0 { NoReplica::Unmatched(unmatched) } else { NoReplica::Unanswered(why) });
        }
        evidence
    }
}

/// What a human is told of evidence that speaks against acting: who is meant first, then what Prometheus says.
fn escalated(evidence: &Evidence) -> Outcome {
    match (&evidence.replica, &evidence.reading) {
        (Err(NoReplica::Unmatched(_)), _) => Outcome::UnmatchedTarget,
        (_, Reading::Unknown { .. }) => Outcome::UnknownCondition,
        _ => Outcome::Refused,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// `decide` is total, explains itself, and acts only when nothing at all speaks against it.
    #[test]
    fn decide_acts_only_when_nothing_speaks_against_it(evidence in any_evidence()) {
        let explained = decide(&playbook(), &evidence, at(0));
        let held = |replica: &Replica| {
            let old = replica.container.started_at.is_some_and(|started| at(0).duration_since(started) >= SignedDuration::from_mins(2));
            let server = &replica.server;
            replica.container.running && old && !server.drained && !server.maintenance && server.checked
        };
        let may = matches!(evidence.reading, Reading::Firing { .. })
            && evidence.replica.as_ref().is_ok_and(held)
            && evidence.silences.as_ref().is_ok_and(Vec::is_empty)
            && evidence.vetoes.iter().all(|veto| veto.series == Ok(0))
            && evidence.truncated == 0;
        match &explained.decision {
            Decision::Remediate { plan } => {
                prop_assert!(may, "acts on {evidence:#?}");
                let replica = evidence.replica.as_ref().expect("matched");
                prop_assert_eq!(&plan.container, &replica.container.id);
                prop_assert_eq!(Some(plan.started_at), replica.container.started_at);
                prop_assert_eq!(&plan.server, &replica.server.path);
            }
            Decision::Escalate { finding } => {
                prop_assert!(!may, "does not act on {evidence:#?}");
                prop_assert!(!finding.outcome.is_settled(), "somebody hears of it");
                prop_assert_eq!(finding.outcome, escalated(&evidence), "{:?}", finding);
            }
            Decision::Ignore { finding } => {
                prop_assert!(!may && matches!(evidence.reading, Reading::Quiet { .. }), "{finding:?}");
            }
        }
        prop_assert!(explained.checks.iter().all(|check| check.ok || !check.would_act_if.is_empty()));
    }

    /// However requests come and whatever becomes of them: rate, budget and breaker hold.
    #[test]
    fn rails_hold_whatever_comes(
        burst in 1_u32..4,
        most in 1_u32..5,
        failures in 1_u32..4,
        steps in prop::collection::vec((0_i64..400, prop::bool::weighted(0.4)), 1..60),
    ) {
        let mut playbook = playbook();
        playbook.guards.cooldown = Period::ZERO;
        playbook.guards.rate = Rate { per: Period::from_secs(300), burst };
        playbook.guards.budget = vec![Budget { most, per: Period::from_secs(3600) }];
        playbook.guards.breaker.failures = failures;
        let admitted = history(&playbook, &steps);
        for (i, (first, _)) in admitted.iter().enumerate() {
            for (j, (last, _)) in admitted.iter().enumerate().skip(i) {
                let (count, passed) = ((j - i + 1) as f64, (last - first) as f64);
                prop_assert!(count <= f64::from(burst) * (1.0 + passed / 300.0) + 1e-6, "rate: {admitted:?}");
                prop_assert!(last - first >= 3600 || j - i < most as usize, "budget: {admitted:?}");
            }
        }
        // `failures` in a row that did not help, the last of them less than a cooldown ago, let nothing through.
        let needed = failures as usize;
        for window in admitted.windows(needed + 1) {
            let (failed, next) = window.split_at(needed);
            if failed.iter().all(|(_, helped)| !helped) {
                let cooled = next[0].0 - failed[needed - 1].0 >= 600;
                prop_assert!(cooled, "breaker: {admitted:?}");
            }
        }
    }
}

/// Asks for admission again and again, and closes every admitted run at once. When each was admitted, and whether it helped.
fn history(playbook: &Playbook, steps: &[(i64, bool)]) -> Vec<(i64, bool)> {
    let generous = Rate { per: Period::from_secs(1), burst: 1000 };
    let limits = Limits { fleet: generous, group: generous };
    let mut state = State::default();
    let mut now = 0;
    let mut admitted = Vec::new();
    let template = evidence(well(at(-100_000)));
    for (number, (passed, helped)) in steps.iter().enumerate() {
        now += passed;
        // A replica of its own each time: the same one firing again would make a run that helped into one that did not.
        let target =
            Target { instance: format!("10.1.0.{number}:8080").parse().expect("an instance"), ..template.target.clone() };
        let mut evidence = template.clone();
        evidence.target = target.clone();
        if let Ok(replica) = &mut evidence.replica {
            replica.target = target.clone();
        }
        let explained = decide(playbook, &evidence, at(now));
        let Decision::Remediate { plan } = &explained.decision else { panic!("{explained:#?}") };
        let plan: &Plan = plan;
        let id = RecordId(uuid::Uuid::from_u128(number as u128 + 1));
        let request = Request { playbook, limits: &limits, evidence: &evidence, passed: jiff::SignedDuration::ZERO, plan };
        let Admission::Admitted { intent, .. } = admit(&state.books, &request, id, at(now)) else { continue };
        run(&mut state, id, at(now), &evidence, explained.clone(), intent, *helped);
        admitted.push((now, *helped));
    }
    admitted
}

fn run(
    state: &mut State,
    id: RecordId,
    now: Timestamp,
    evidence: &Evidence,
    decision: remediator::decide::decision::Explained,
    intent: Arc<Intent>,
    helped: bool,
) {
    let (outcome, reason) =
        if helped { (Outcome::Recovered, Reason::RecoveryConfirmed) } else { (Outcome::StillFiring, Reason::RecoveryAbove) };
    let accepted = accepted(evidence, &intent.playbook);
    let events = [
        Event::Accepted { accepted: Arc::new(accepted) },
        Event::Confirmed { evidence: Arc::new(evidence.clone()) },
        Event::Decided { decision },
        Event::Intent { intent },
        Event::Closed { outcome, reason, detail: String::new() },
    ];
    for event in events {
        let Draft { at, record, event } = Draft::of(id, now, event);
        let entry = Entry { seq: state.head.seq + 1, at, record, event };
        state.apply(&entry).expect("a legal transition");
    }
}

/// What Detect writes down of an alert for this target.
pub fn accepted(evidence: &Evidence, playbook: &PlaybookName) -> Accepted {
    let alert = Alert {
        status: AlertStatus::Firing,
        labels: evidence.labels.clone(),
        annotations: LabelSet::default(),
        starts_at: None,
        generator_url: String::new(),
    };
    Accepted {
        key: evidence.target.key(),
        fingerprint: alert.labels.fingerprint().to_string(),
        alert,
        receiver: String::new(),
        group_key: String::new(),
        truncated: 0,
        trigger: Trigger::Webhook,
        playbook: Some(playbook.clone()),
        target: Some(evidence.target.clone()),
        mode: Mode::Live,
        host: String::new(),
        healer: String::new(),
    }
}

/// Long enough to fill a bucket, and the reason why the durations above are what they are.
#[test]
fn the_shipped_limits_are_what_the_stories_assume() {
    let guards = playbook().guards;
    assert_eq!((guards.breaker.failures, guards.breaker.cooldown.get()), (3, Duration::from_secs(600)));
    assert_eq!((guards.rate.burst, guards.cooldown.get()), (3, Duration::from_secs(300)));
    assert_eq!(guards.blast_radius.min_healthy, 2);
}

/// `remediator explain` says the decision, its arithmetic, and what would have had to differ.
#[test]
fn explain_tells_why_and_what_would_change_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
    let playbooks = concat!(env!("CARGO_MANIFEST_DIR"), "/playbooks/inventory-fd-leak.yml");
    write(
        "remediator.yml",
        &format!(
            "state_dir: state\nplaybooks: [{playbooks}]\nprometheus: {{ url: http://127.0.0.1:1 }}\n\
             alertmanager: {{ urls: [http://127.0.0.1:1] }}\nhaproxy: {{ address: unix:///nowhere }}\n\
             docker: {{ read: unix:///nowhere, restart: unix:///nowhere }}\n"
        ),
    );
    write("alert.json", r#"{"alerts":[{"labels":{"alertname":"FdLeakFast","service":"inventory","instance":"10.0.0.2:8080"}}]}"#);
    let explain = |evidence: &Evidence| {
        write("evidence.json", &serde_json::to_string(evidence).expect("evidence"));
        let file = |name: &str| dir.path().join(name).into_os_string();
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_remediator"))
            .args(["explain".into(), "--config".into(), file("remediator.yml"), "--alert".into(), file("alert.json")])
            .args(["--evidence".into(), file("evidence.json")])
            .output()
            .expect("it runs");
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
    };
    let mut evidence = evidence(well(at(-3600)));
    let (code, told) = explain(&evidence);
    assert_eq!(code, Some(0), "{told}");
    for part in ["decision: restart inventory/", "must be at least 2m", "healthy after this restart 2, must be at least 2"] {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    evidence.silences = Ok(vec![silence()]);
    let (code, told) = explain(&evidence);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("would act if the silence were expired") && told.contains("refused, silenced"), "{told}");
}
