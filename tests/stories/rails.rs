//! Each rail by itself, at its edge: one side of the limit passes, the other is refused, and both show the arithmetic. What
//! `GET /guards` tells people is held against the same books.

use std::collections::VecDeque;

use jiff::SignedDuration;
use remediator::alert::LabelSet;
use remediator::decide::decision::{Decision, Plan, decide};
use remediator::decide::evidence::Evidence;
use remediator::decide::playbook::{Budget, HEARTBEAT, Mode, Playbook, Rate, Share, Threshold};
use remediator::event::{Pause, PauseScope, RecordId};
use remediator::guard::breaker::{BreakerState, Gauge};
use remediator::guard::coordinate::{Admission, admit};
use remediator::guard::ledger::{Attempt, Books, Bucket, DrainMark, Drained, Held, Run, RunEnd, breaker_name};
use remediator::guard::permit::Granted;
use remediator::guard::rails::{Limits, Rail, RailCheck, Request, assess};
use remediator::guard::view;
use remediator::period::Period;
use remediator::reason::Reason;
use remediator::target::Target;
use remediator::world::Unanswered;

use crate::core::{at, evidence, well};
use crate::kit::playbook;

/// A request that every rail lets through with empty books, made at `at(0)`.
struct Asked {
    playbook: Playbook,
    limits: Limits,
    evidence: Evidence,
    plan: Plan,
    books: Books,
    /// Since the evidence was seen; what the clock says, if none.
    passed: Option<SignedDuration>,
}

fn asked() -> Asked {
    let playbook = playbook();
    let limits = Limits { fleet: playbook.guards.rate, group: playbook.guards.rate };
    let evidence = evidence(well(at(-3600)));
    let explained = decide(&playbook, &evidence, at(0));
    let Decision::Remediate { plan } = explained.decision else { panic!("{explained:#?}") };
    Asked { playbook, limits, evidence, plan: *plan, books: Books::default(), passed: None }
}

fn id(number: u128) -> RecordId {
    RecordId(uuid::Uuid::from_u128(number))
}

impl Asked {
    fn request(&self) -> Request<'_> {
        let passed = self.passed.unwrap_or_else(|| at(0).duration_since(self.evidence.at).max(SignedDuration::ZERO));
        let Asked { playbook, limits, evidence, plan, .. } = self;
        Request { playbook, limits, evidence, passed, plan }
    }

    fn rail(&self, rail: Rail) -> RailCheck {
        let mut checks = assess(&self.books, &self.request(), at(0)).checks;
        checks.retain(|check| check.rail == rail);
        assert_eq!(checks.len(), 1, "{checks:?}");
        checks.remove(0)
    }

    /// Why the rail refuses, and in how many seconds asking again makes sense; none when it passes.
    fn refusal(&self, rail: Rail) -> Option<(Reason, Option<u64>)> {
        self.rail(rail).refusal.map(|refusal| (refusal.reason, refusal.retry_after_ms.map(|ms| ms / 1000)))
    }

    fn target(&self, number: u8) -> Target {
        Target { instance: format!("10.0.0.{number}:8080").parse().expect("an instance"), ..self.plan.target.clone() }
    }

    /// As `target`, of another service.
    fn elsewhere(&self, number: u8) -> Target {
        Target { service: "checkout".parse().expect("a name"), ..self.target(number) }
    }

    fn attempt(&mut self, record: u128, seconds: i64, target: Target) {
        let attempt = Attempt { at: at(seconds), playbook: self.playbook.name.clone(), target, record: id(record) };
        self.books.live.attempts.push_back(attempt);
    }

    fn hold(&mut self, target: Target) {
        let server = self.plan.server.clone();
        let held = Held { record: id(9), target: target.clone(), playbook: self.playbook.name.clone(), server, since: at(-60) };
        self.books.live.held.insert(target.key(), held);
    }

    fn drained(&mut self, target: Target, seconds: i64) {
        self.books.live.drains.insert(target.key(), DrainMark { target, at: at(seconds) });
    }

    fn runs(&mut self, runs: impl IntoIterator<Item = Run>) {
        let name = breaker_name(&self.playbook.name, &self.playbook.service);
        self.books.live.breakers.entry(name).or_default().runs = runs.into_iter().collect::<VecDeque<_>>();
    }

    /// A run of another replica that ended so many seconds ago; none: in flight.
    fn ran(&self, record: u128, ago: Option<i64>, recovered: bool, probe: bool) -> Run {
        let end = ago.map(|ago| RunEnd { at: at(-ago), recovered });
        Run { record: id(record), target: self.target(3), at: at(-7200), probe, end, recurred_at: None }
    }

    fn now(&self) -> view::PlaybookNow {
        view::playbook(&self.books, &self.playbook, &self.limits, at(0))
    }
}

#[test]
fn with_empty_books_every_rail_passes() {
    let asked = asked();
    let assessment = assess(&asked.books, &asked.request(), at(0));
    assert!(!assessment.refused() && assessment.first().is_none(), "{assessment:#?}");
    let words: Vec<_> = assessment.checks.iter().map(|check| check.rail.word()).collect();
    let order = [
        "pause",
        "episode",
        "cooldown",
        "rate",
        "budget",
        "budget",
        "breaker",
        "min_healthy",
        "max_unhealthy",
        "max_in_flight",
        "blame",
        "clock",
        "evidence",
    ];
    assert_eq!(words.iter().collect::<std::collections::BTreeSet<_>>().len(), 12);
    assert_eq!(words.first(), order.first());
    assert!(words.iter().filter(|word| **word != "budget").eq(order.iter().filter(|word| **word != "budget")), "{words:?}");
}

/// The mode decides the permit's type; shadow has accounts of its own.
#[test]
fn what_is_admitted_is_of_the_playbooks_mode() {
    for mode in [Mode::Live, Mode::Shadow] {
        let mut asked = asked();
        asked.playbook.mode = mode;
        let admission = admit(&asked.books, &asked.request(), id(1), at(0));
        let Admission::Admitted { granted, intent } = admission else { panic!("{admission:?}") };
        assert_eq!((matches!(granted, Granted::Live(_)), intent.mode), (mode == Mode::Live, mode));
        assert_eq!(intent.expires_at, at(0).checked_add(asked.plan.deadline.signed()).expect("in range"));
        // What live spent and holds is nothing to shadow, and the other way round.
        asked.books.shadow.granted.insert(asked.plan.target.key(), at(-1));
        let expected = (mode == Mode::Shadow).then_some((Reason::Cooldown, Some(299)));
        assert_eq!(asked.refusal(Rail::Cooldown), expected);
    }
}

#[test]
fn a_budget_counts_the_attempts_of_its_own_playbook_on_its_own_service() {
    let mut asked = asked();
    asked.playbook.guards.budget = vec![Budget { most: 2, per: Period::from_secs(3600) }];
    let (ours, theirs) = (asked.target(3), asked.elsewhere(3));
    asked.attempt(1, -3000, ours.clone());
    asked.attempt(2, -2000, theirs);
    asked.attempt(3, -1000, ours.clone());
    asked.books.live.attempts[2].playbook = "another".parse().expect("a name");
    assert_eq!(asked.refusal(Rail::Budget), None);
    assert_eq!(asked.rail(Rail::Budget).detail, "1 attempts in the last 1h, at most 2");
    assert_eq!((asked.now().budget[0].spent, asked.now().budget[0].frees_at), (1, None));

    asked.attempt(4, -600, ours);
    assert_eq!(asked.refusal(Rail::Budget), Some((Reason::BudgetSpent, Some(600))));
    let told = asked.now();
    assert_eq!((told.budget[0].spent, told.budget[0].left, told.budget[0].frees_at), (2, 0, Some(at(600))));
    assert_eq!(told.remediations_allowed, 0);
}

#[test]
fn a_bucket_fills_evenly_never_over_its_brim_and_never_backwards() {
    let rate = Rate { per: Period::from_secs(300), burst: 3 };
    let bucket = Bucket { tokens: 1.0, at: at(0) };
    assert_eq!(bucket.level(rate, at(50)), 1.5);
    assert_eq!(bucket.level(rate, at(10_000)), 3.0);
    assert_eq!(bucket.level(rate, at(-10_000)), 1.0, "a clock that went back");
    assert_eq!(bucket.level(Rate { per: Period::ZERO, ..rate }, at(50)), 0.0, "no rate, no tokens");

    let mut asked = asked();
    asked.playbook.guards.rate = rate;
    let scope = format!("playbook {}", asked.playbook.name);
    asked.books.live.buckets.insert(scope.clone(), Bucket { tokens: 0.0, at: at(-100) });
    assert_eq!(asked.refusal(Rail::Rate), None, "exactly one token");
    asked.books.live.buckets.insert(scope, Bucket { tokens: 0.0, at: at(-60) });
    assert_eq!(asked.refusal(Rail::Rate), Some((Reason::RateLimited, Some(40))));
    // The longest wait of those that are short.
    asked.books.live.buckets.insert("fleet".to_owned(), Bucket { tokens: 0.0, at: at(0) });
    let wait = asked.limits.fleet.per.get().as_secs() / u64::from(asked.limits.fleet.burst);
    assert_eq!(asked.refusal(Rail::Rate), Some((Reason::RateLimited, Some(wait.max(40)))));
}

/// Replicas that we hold are not healthy, whatever the balancer says; those of other services are nothing to this one.
#[test]
fn the_blast_radius_counts_what_we_hold_of_this_service() {
    let mut asked = asked();
    let (own, other, elsewhere) = (asked.plan.target.clone(), asked.target(1), asked.elsewhere(1));
    asked.hold(elsewhere.clone());
    asked.attempt(5, -60, elsewhere);
    let shop = "be/checkout".parse().expect("a path");
    asked.books.drained.insert(shop, Drained { record: id(5), since: at(-60) });
    let unknown = "be/nobody".parse().expect("a path");
    asked.books.drained.insert(unknown, Drained { record: id(77), since: at(-60) });
    for rail in [Rail::MinHealthy, Rail::MaxUnhealthy, Rail::MaxInFlight] {
        assert_eq!(asked.refusal(rail), None, "{rail:?}");
    }
    // The target itself is counted once, as the one that goes.
    asked.hold(own);
    assert_eq!(asked.rail(Rail::MaxInFlight).detail, "0 in flight, with this one at most 1");

    // Held and, from an earlier run, still drained: that is one replica.
    asked.hold(other.clone());
    asked.attempt(6, -60, other);
    asked.books.drained.insert("be/one".parse().expect("a path"), Drained { record: id(6), since: at(-60) });
    assert_eq!(asked.refusal(Rail::MaxInFlight), Some((Reason::MaxInFlight, None)));
    assert_eq!(asked.rail(Rail::MaxInFlight).detail, "1 in flight (10.0.0.1:8080), with this one at most 1");
    let told = asked.rail(Rail::MinHealthy).detail;
    assert_eq!(told, "healthy after this restart 1, must be at least 2 (not serving: 10.0.0.1:8080 in remediation)");
}

#[test]
fn without_a_count_of_replicas_nothing_is_touched() {
    let mut asked = asked();
    asked.evidence.siblings = Ok(Vec::new());
    assert_eq!(asked.refusal(Rail::MinHealthy), Some((Reason::MinHealthy, None)));
    assert_eq!(asked.refusal(Rail::MaxUnhealthy), Some((Reason::MaxUnhealthy, None)), "all of none are sick");
    asked.evidence.siblings = Err(Unanswered::new(Reason::DockerUnavailable, "no answer"));
    assert_eq!(asked.refusal(Rail::MinHealthy), Some((Reason::RadiusUnknown, None)));

    for (share, count, all, allowed) in [
        (Share::Count(1), 1, 3, true),
        (Share::Count(1), 2, 3, false),
        (Share::Percent(67), 2, 3, true),
        (Share::Percent(66), 2, 3, false),
        (Share::Percent(0), 0, 3, true),
    ] {
        assert_eq!(share.allows(count, all), allowed, "{count} of {all}, at most {share}");
    }
}

/// What fell ill after our own drain of a sibling is suspected; what was ill before it, long after it, or elsewhere is not.
#[test]
fn blame_falls_on_our_own_recent_drain_of_a_sibling() {
    let blame = asked().playbook.guards.blast_radius.blame.get().as_secs() as i64;
    let suspect = |target: fn(&Asked) -> Target, drained: i64, active: Option<i64>| {
        let mut asked = asked();
        let target = target(&asked);
        asked.drained(target, drained);
        let siblings = asked.evidence.siblings.as_mut().expect("counted");
        let instance = &asked.plan.target.instance;
        siblings.iter_mut().find(|s| s.instance == *instance).expect("itself").active_at = active.map(at);
        (asked.refusal(Rail::Blame), asked.rail(Rail::Blame).detail)
    };
    let sibling: fn(&Asked) -> Target = |asked| asked.target(3);
    let refused = |in_seconds: i64| Some((Reason::SickAfterAction, Some(in_seconds as u64)));
    assert_eq!(suspect(sibling, -60, Some(-30)).0, refused(blame - 60));
    assert_eq!(suspect(sibling, -blame, Some(-30)).0, refused(0), "to its last moment");
    assert_eq!(suspect(sibling, -blame - 1, Some(-30)).0, None, "too long ago");
    assert_eq!(suspect(sibling, -60, Some(-60)).0, None, "the condition was there when we drained");
    let (unknown, detail) = suspect(sibling, -60, None);
    assert_eq!(unknown, refused(blame - 60));
    assert!(detail.starts_with("nobody knows whether the condition began before or after"), "{detail}");
    assert_eq!(suspect(|asked| asked.elsewhere(3), -60, None).0, None, "another service");
    assert_eq!(suspect(|asked| asked.plan.target.clone(), -60, None).0, None, "itself");

    // Nobody listed the replicas: every recent drain is a suspect.
    let mut asked = asked();
    let target = asked.target(3);
    asked.drained(target, -60);
    asked.evidence.siblings = Err(Unanswered::new(Reason::DockerUnavailable, "no answer"));
    assert_eq!(asked.refusal(Rail::Blame), refused(blame - 60));
}

#[test]
fn a_clock_behind_the_journal_and_evidence_past_its_shelf_life_are_refused() {
    let mut asked = asked();
    asked.books.last_at = at(5);
    assert_eq!(asked.refusal(Rail::Clock), None);
    asked.books.last_at = at(6);
    assert_eq!(asked.refusal(Rail::Clock), Some((Reason::ClockUnreliable, Some(6))));
    asked.evidence.at = at(-14);
    assert_eq!(asked.refusal(Rail::Evidence), None);
    asked.evidence.at = at(-15);
    assert_eq!(asked.refusal(Rail::Evidence), Some((Reason::EvidenceStale, None)));
    // Evidence of the future has no age.
    asked.evidence.at = at(5);
    assert_eq!(asked.refusal(Rail::Evidence), None);
    asked.evidence.at = at(6);
    assert_eq!(asked.refusal(Rail::Evidence), Some((Reason::ClockUnreliable, None)));
    // What has really passed counts where the clock went back by a little; one that went ahead makes it old.
    let by_both = |asked: &mut Asked, at_by_the_clock: i64, passed: i64| {
        asked.evidence.at = at(at_by_the_clock);
        asked.passed = Some(SignedDuration::from_secs(passed));
        asked.refusal(Rail::Evidence)
    };
    assert_eq!(by_both(&mut asked, -9, 14), None);
    assert_eq!(by_both(&mut asked, -10, 15), Some((Reason::EvidenceStale, None)));
    assert_eq!(by_both(&mut asked, -100, 10), Some((Reason::EvidenceStale, None)));
    for (by_the_clock, passed) in [(4, 86), (-3, 9), (-10, 100)] {
        assert_eq!(by_both(&mut asked, by_the_clock, passed), Some((Reason::ClockUnreliable, None)));
    }
}

/// Closed, open, half-open, probing; what the rail does and what people are told.
#[test]
fn a_breaker_lets_one_probe_through_and_believes_only_its_verdict() {
    let mut asked = asked();
    let spec = asked.playbook.guards.breaker;
    let (cooldown, recurrence) = (spec.cooldown.get().as_secs() as i64, spec.recurrence.get().as_secs() as i64);
    let failed = |asked: &Asked, ago: i64| [1, 2, 3].map(|record| asked.ran(record, Some(ago), false, false)).to_vec();

    let runs = failed(&asked, 100);
    asked.runs(runs);
    assert_eq!(asked.refusal(Rail::Breaker), Some((Reason::BreakerOpen, Some(cooldown as u64 - 100))));
    let told = asked.now();
    assert_eq!((told.breaker.state.as_str(), told.breaker.failures, told.remediations_allowed), ("open", 3, 0));
    assert_eq!((told.breaker.since, told.breaker.probe_at, told.breaker.probe), (Some(at(-100)), Some(at(cooldown - 100)), None));

    let runs = failed(&asked, cooldown);
    asked.runs(runs.clone());
    assert_eq!(asked.refusal(Rail::Breaker), None);
    assert_eq!((asked.now().breaker.state.as_str(), asked.now().remediations_allowed), ("half_open", 1));

    // The probe is under way: nobody else goes, however long it takes. Another run in flight is no probe.
    let mut probing = runs.clone();
    probing.push(asked.ran(4, None, false, true));
    probing.push(asked.ran(5, None, false, false));
    asked.runs(probing);
    assert_eq!(asked.refusal(Rail::Breaker), Some((Reason::BreakerProbing, None)));
    let told = asked.now();
    assert_eq!((told.breaker.state.as_str(), told.breaker.probe, told.remediations_allowed), ("half_open", Some(id(4)), 0));

    // It helped: closed, and what came before it is forgotten. It did not: open again, counted as many.
    for (helped, count) in [(true, 0), (false, spec.failures)] {
        let mut judged = runs.clone();
        judged.push(asked.ran(4, Some(10), helped, true));
        asked.runs(judged);
        assert_eq!(asked.now().breaker.failures, count, "helped: {helped}");
        assert_eq!(asked.refusal(Rail::Breaker).is_none(), helped);
    }
    // An ordinary run that helped is on trial: it neither counts nor closes.
    let mut on_trial = failed(&asked, 100);
    on_trial.truncate(2);
    on_trial.push(asked.ran(4, Some(10), true, false));
    asked.runs(on_trial.clone());
    assert_eq!((asked.now().breaker.state.as_str(), asked.now().breaker.failures), ("closed", 2));
    // The firing in hand proves it wrong.
    let name = breaker_name(&asked.playbook.name, &asked.playbook.service);
    let gauge = Gauge::read(asked.books.live.breakers.get(&name), spec, &[id(4)], at(0));
    assert_eq!((gauge.state, gauge.count), (BreakerState::Open { since: at(0) }, 3));
    // Quiet for a whole recurrence: two failures are forgotten, and three are not.
    on_trial.truncate(2);
    on_trial.iter_mut().for_each(|run| run.end = Some(RunEnd { at: at(-recurrence - cooldown - 1), recovered: false }));
    asked.runs(on_trial.clone());
    assert_eq!(asked.now().breaker.failures, 0);
    on_trial.iter_mut().for_each(|run| run.end = Some(RunEnd { at: at(-recurrence - cooldown), recovered: false }));
    asked.runs(on_trial);
    assert_eq!(asked.now().breaker.failures, 2);
    let runs = failed(&asked, recurrence + cooldown + 1);
    asked.runs(runs);
    assert_eq!((asked.now().breaker.failures, asked.now().breaker.state.as_str()), (3, "half_open"));
}

/// A run of the same target that recovered and fires again within `recurrence` was no cure; of another target it may be.
#[test]
fn a_target_that_fires_again_makes_its_last_run_no_cure() {
    let mut asked = asked();
    asked.playbook.guards.breaker.failures = 1;
    let recurrence = asked.playbook.guards.breaker.recurrence.get().as_secs() as i64;
    let own = asked.plan.target.clone();
    let run = |asked: &Asked, ago: i64, recovered: bool| Run { target: own.clone(), ..asked.ran(4, Some(ago), recovered, false) };
    let told = run(&asked, recurrence, true);
    asked.runs([told.clone()]);
    assert!(asked.refusal(Rail::Breaker).is_some(), "to its last moment");
    let late = run(&asked, recurrence + 1, true);
    let sibling = asked.ran(4, Some(recurrence), true, false);
    let known = Run { recurred_at: Some(at(-3 * recurrence)), ..told };
    for (case, run) in [("too late", late), ("a sibling's", sibling), ("known, and forgotten since", known)] {
        asked.playbook.guards.breaker.failures = if run.recurred_at.is_some() { 2 } else { 1 };
        asked.runs([run]);
        assert_eq!(asked.refusal(Rail::Breaker), None, "{case}");
    }
}

/// `GET /guards` names a pause exactly while the rail refuses for it; a pause of one target is not the whole playbook's.
#[test]
fn people_are_told_of_a_pause_while_it_holds() {
    let mut asked = asked();
    let own = PauseScope::Playbook(asked.playbook.name.clone());
    let target = PauseScope::Target(asked.plan.target.to_string());
    let other = PauseScope::Playbook("another".parse().expect("a name"));
    let cases = [
        (PauseScope::All, None, true, true),
        (PauseScope::All, Some(1), true, true),
        (PauseScope::All, Some(0), false, false),
        (own.clone(), None, true, true),
        (own, Some(-1), false, false),
        (other, None, false, false),
        (target, None, true, false),
    ];
    for (scope, until, refused, told) in cases {
        let case = format!("{scope} until {until:?}");
        let pause = Pause { scope, actor: "ana".to_owned(), reason: "deploy".to_owned(), until: until.map(at) };
        asked.books.pauses = vec![pause];
        let expected = refused.then_some((Reason::Paused, until.map(|until| until as u64)));
        assert_eq!(asked.refusal(Rail::Pause), expected, "{case}");
        assert_eq!(asked.now().paused, told, "{case}");
        assert_eq!(asked.now().remediations_allowed == 0, told, "{case}");
    }
}

/// Who is cooling down is told by name, as long as a record or a watch tells the name, and only to its own playbook.
#[test]
fn people_are_told_who_is_cooling_down() {
    let mut asked = asked();
    let cooldown = asked.playbook.guards.cooldown.signed();
    let (ours, nameless, theirs, over) = (asked.target(1), asked.target(4), asked.elsewhere(5), asked.target(6));
    for (number, target) in [&ours, &theirs, &over].into_iter().enumerate() {
        asked.attempt(number as u128, -60, target.clone());
    }
    for target in [&ours, &nameless, &theirs] {
        asked.books.live.granted.insert(target.key(), at(-60));
    }
    let ended = at(0).checked_sub(cooldown).expect("in range");
    asked.books.live.granted.insert(over.key(), ended);
    let mut told: Vec<_> = asked.now().cooling.into_iter().map(|cooling| (cooling.target, cooling.until)).collect();
    told.sort();
    let until = at(-60).checked_add(cooldown).expect("in range");
    let mut expected = vec![(ours.to_string(), until), (nameless.key().as_str().to_owned(), until)];
    expected.sort();
    assert_eq!(told, expected);
    assert_eq!(asked.now().in_flight, Vec::<String>::new());
    asked.hold(ours.clone());
    asked.hold(theirs);
    assert_eq!(asked.now().in_flight, [ours.to_string()]);
    assert_eq!(asked.now().remediations_allowed, 0, "one at a time");

    asked.books.live.granted.insert(asked.plan.target.key(), at(-60));
    let left = cooldown - SignedDuration::from_secs(60);
    assert_eq!(asked.refusal(Rail::Cooldown), Some((Reason::Cooldown, Some(left.as_secs() as u64))));
    asked.books.live.granted.insert(asked.plan.target.key(), ended);
    assert_eq!(asked.refusal(Rail::Cooldown), None);
    let own = asked.plan.target.clone();
    asked.hold(own);
    assert_eq!(asked.refusal(Rail::Episode), Some((Reason::EpisodeHeld, None)));
}

/// No playbook gets the heartbeat, and one without matchers gets nothing.
#[test]
fn a_playbook_claims_what_all_its_matchers_match() {
    let mut playbook = playbook();
    let alert = |name: &str| LabelSet::from([("alertname", name), ("service", "inventory")]);
    assert!(playbook.claims(&alert("FdLeakFast")));
    assert!(!playbook.claims(&alert("Other")));
    playbook.matchers = vec!["alertname=~\".*\"".parse().expect("a matcher")];
    assert!(playbook.claims(&alert("Other")) && !playbook.claims(&alert(HEARTBEAT)));
    assert!(playbook.matches(&alert(HEARTBEAT)));
    playbook.matchers.clear();
    assert!(!playbook.claims(&alert("FdLeakFast")));
    for (threshold, below, at, above) in
        [(Threshold::Above(0.5), false, false, true), (Threshold::Below(0.5), true, false, false)]
    {
        assert_eq!([0.4, 0.5, 0.6, f64::NAN].map(|value| threshold.holds(value)), [below, at, above, false]);
    }
}
