//! The fold: a record takes what the walk can do and nothing else, and entries that say nothing change nothing.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use remediator::decide::decision::{Explained, decide};
use remediator::decide::evidence::Evidence;
use remediator::decide::playbook::Mode;
use remediator::event::{Abort, Accepted, Draft, Entry, Event, Intent, Member, Pause, PauseScope, Phase, Record, RecordId, Step};
use remediator::guard::coordinate::{Admission, admit};
use remediator::guard::ledger::{Books, Watch};
use remediator::guard::rails::{Limits, Request};
use remediator::reason::{Outcome, Reason};
use remediator::verify::{Judgement, Verdict};
use remediator::world::Call;

use crate::core::{accepted, at, evidence, well};
use crate::kit::playbook;

/// What one remediation writes, part by part.
struct Parts {
    evidence: Evidence,
    decision: Explained,
    intent: Arc<Intent>,
    accepted: Accepted,
}

const ID: RecordId = RecordId(uuid::Uuid::from_u128(7));

fn parts(mode: Mode) -> Parts {
    let mut playbook = playbook();
    playbook.mode = mode;
    let evidence = evidence(well(at(-3600)));
    let decision = decide(&playbook, &evidence, at(0));
    let remediator::decide::decision::Decision::Remediate { plan } = &decision.decision else { panic!("{decision:#?}") };
    let limits = Limits { fleet: playbook.guards.rate, group: playbook.guards.rate };
    let request = Request { playbook: &playbook, limits: &limits, evidence: &evidence, passed: jiff::SignedDuration::ZERO, plan };
    let admission = admit(&Books::default(), &request, ID, at(0));
    let Admission::Admitted { intent, .. } = admission else { panic!("{admission:#?}") };
    let accepted = accepted(&evidence, &playbook.name);
    Parts { evidence, decision, intent, accepted }
}

impl Parts {
    fn event(&self, word: &str) -> Event {
        let step = |word: &str| Step::ALL.into_iter().find(|step| step.word() == word).expect("a step");
        let (actor, reason) = ("ana".to_owned(), "why".to_owned());
        match word.split_once(' ').unwrap_or((word, "")) {
            ("accepted", _) => Event::Accepted { accepted: Arc::new(self.accepted.clone()) },
            ("folded", _) => {
                let labels = self.accepted.alert.labels.clone();
                Event::Folded { alert: Member { fingerprint: "f".to_owned(), labels, group_key: String::new() } }
            }
            ("confirmed", _) => Event::Confirmed { evidence: Arc::new(self.evidence.clone()) },
            ("decided", _) => Event::Decided { decision: self.decision.clone() },
            ("refused", _) => Event::Refused { guards: Vec::new(), recurred: Vec::new() },
            ("intent", _) => Event::Intent { intent: self.intent.clone() },
            ("begin", name) => Event::StepStarted { step: step(name) },
            ("end", name) => Event::StepEnded { step: step(name), call: Call::Done, note: serde_json::Value::Null },
            ("fail", name) => {
                Event::StepEnded { step: step(name), call: Call::Failed("no".to_owned()), note: serde_json::Value::Null }
            }
            ("judged", _) => Event::Judged {
                judgement: Judgement {
                    verdict: Verdict::Recovered,
                    reason: Reason::RecoveryConfirmed,
                    detail: String::new(),
                    looks: Vec::new(),
                },
            },
            ("abort", _) => Event::AbortOrdered { abort: Abort { actor, reason } },
            ("closed", _) => {
                Event::Closed { outcome: Outcome::Recovered, reason: Reason::RecoveryConfirmed, detail: String::new() }
            }
            ("paused", _) => Event::Paused { pause: Pause { scope: PauseScope::All, actor, reason, until: None } },
            _ => panic!("no event is called {word}"),
        }
    }

    /// The record after these events, each a second after the one before it.
    fn after(&self, walk: &[&str]) -> Record {
        let mut record = Record::open(&entry(Some(ID), 0, self.event("accepted"))).expect("it opens");
        for (number, word) in walk.iter().enumerate() {
            record
                .apply(&entry(Some(ID), number as i64 + 1, self.event(word)))
                .unwrap_or_else(|error| panic!("{walk:?}: {error}"));
        }
        record
    }
}

fn entry(record: Option<RecordId>, seconds: i64, event: Event) -> Entry {
    let Draft { at, record, event } = Draft { at: at(seconds), record, event };
    Entry { seq: 100 + seconds as u64, at, record, event }
}

/// Every event that there is for a record, at every place of the walk: what is not in this table is refused, by name, and
/// leaves the record as it was.
#[test]
fn a_record_takes_what_the_walk_can_do_and_nothing_else() {
    const BEFORE: [&str; 3] = ["confirmed", "decided", "intent"];
    let live: [(&[&str], &[&str]); 17] = [
        (&[], &["folded", "confirmed", "abort", "closed"]),
        (&["confirmed"], &["folded", "confirmed", "decided", "abort", "closed"]),
        (&["confirmed", "decided"], &["folded", "confirmed", "refused", "intent", "abort", "closed"]),
        (&["confirmed", "decided", "abort"], &["folded", "confirmed", "refused", "closed"]),
        (&["confirmed", "decided", "refused"], &["folded", "closed"]),
        (
            &["confirmed", "decided", "intent"],
            &[
                "folded",
                "begin capture_evidence",
                "begin drain",
                "begin restart",
                "begin await_healthy",
                "begin readmit",
                "abort",
                "closed",
            ],
        ),
        (&["begin capture_evidence"], &["folded", "end capture_evidence", "fail capture_evidence", "abort"]),
        (&["begin drain"], &["folded", "end drain", "fail drain", "abort"]),
        (&["begin drain", "end drain"], &["folded", "begin restart", "begin await_healthy", "begin readmit", "abort", "closed"]),
        (&["begin drain", "end drain", "abort"], &["folded", "begin readmit", "closed"]),
        (&["begin restart"], &["folded", "end restart", "fail restart"]),
        (&["begin restart", "end restart"], &["folded", "begin await_healthy", "begin readmit", "judged", "closed"]),
        (&["begin restart", "fail restart", "begin readmit"], &["folded", "end readmit", "fail readmit"]),
        (&["begin restart", "end restart", "begin readmit", "fail readmit"], &["folded", "begin readmit", "judged", "closed"]),
        (&["begin drain", "end drain", "begin readmit", "end readmit"], &["folded", "closed"]),
        (&["begin restart", "end restart", "judged"], &["folded", "closed"]),
        (&["begin restart", "end restart", "judged", "closed"], &[]),
    ];
    for (walk, legal) in live {
        let early = walk.first().is_none_or(|first| BEFORE.contains(first));
        let walk: Vec<&str> = if early { walk.to_vec() } else { [&BEFORE, walk].concat() };
        takes_only(&parts(Mode::Live), &walk, legal);
    }
    // In shadow nothing is ever begun.
    takes_only(&parts(Mode::Shadow), &BEFORE, &["folded", "abort", "closed"]);
}

fn takes_only(parts: &Parts, walk: &[&str], legal: &[&str]) {
    let whole = ["accepted", "folded", "confirmed", "decided", "refused", "intent", "judged", "abort", "closed", "paused"];
    let steps = Step::ALL.into_iter().flat_map(|step| ["begin", "end", "fail"].map(|verb| format!("{verb} {}", step.word())));
    let words = whole.map(str::to_owned).into_iter().chain(steps);
    let before = parts.after(walk);
    let mut taken = Vec::new();
    for word in words {
        let mut record = before.clone();
        let next = entry(Some(ID), 50, parts.event(&word));
        match record.apply(&next) {
            Ok(()) => {
                assert_ne!(record, before, "{walk:?}: {word} was taken and says nothing");
                assert_eq!(record.seq, next.seq);
                taken.push(word);
            }
            Err(error) => {
                assert_eq!(record, before, "{walk:?}: {word} was refused and changed the record");
                assert_eq!((error.seq, error.event), (next.seq, next.event.kind()));
                assert_eq!(error.record, ID.to_string());
            }
        }
    }
    let mut legal: Vec<_> = legal.iter().map(|word| (*word).to_owned()).collect();
    legal.sort();
    taken.sort();
    assert_eq!(taken, legal, "after {walk:?}");
}

#[test]
fn only_an_alert_that_was_taken_in_opens_a_record() {
    let parts = parts(Mode::Live);
    for (id, word) in [(None, "accepted"), (Some(ID), "confirmed"), (Some(ID), "closed"), (None, "paused")] {
        let error = Record::open(&entry(id, 3, parts.event(word))).expect_err(word);
        assert_eq!((error.seq, error.phase.as_str()), (103, "nothing"), "{word}");
        assert_eq!(error.record, id.map(|id| id.to_string()).unwrap_or_default());
    }
    let record = parts.after(&["confirmed", "decided", "intent", "begin drain"]);
    assert_eq!((record.phase, record.opened_at, record.duration()), (Phase::Admitted, at(0), None));
    assert_eq!((record.running(), record.done(Step::Drain), record.began(Step::Drain)), (Some(Step::Drain), false, true));
    let closed = parts.after(&["closed"]);
    assert_eq!(closed.duration().map(|took| took.get()), Some(std::time::Duration::from_secs(1)));
}

/// An id of version 7 says when its record was opened; any other id says nothing.
#[test]
fn an_id_tells_its_time_only_if_it_has_one() {
    let moment = uuid::Timestamp::from_unix(uuid::NoContext, 1_767_600_000, 0);
    assert_eq!(RecordId(uuid::Uuid::new_v7(moment)).opened_at(), Some(at(0)));
    for told in ["00000000-0000-0000-0000-000000000007", "c232ab00-9414-11ec-b3c8-9f6bdeced846"] {
        let id: RecordId = told.parse().expect("a uuid");
        assert_eq!(id.opened_at(), None, "{id}");
    }
    assert!("7".parse::<RecordId>().is_err());
}

/// The journal refuses such entries; were one there all the same, it would take nothing away from the books.
#[test]
fn what_is_said_of_nobody_moves_only_the_clock() {
    let parts = parts(Mode::Live);
    let undecided = parts.after(&["confirmed"]);
    let joined = Event::Joined { accepted: Arc::new(parts.accepted.clone()), of: None };
    let cases = [
        (None, None, parts.event("intent")),
        (None, None, parts.event("end readmit")),
        (None, None, parts.event("abort")),
        (None, None, parts.event("closed")),
        (Some(ID), None, parts.event("closed")),
        (None, Some(&undecided), parts.event("closed")),
        (Some(ID), None, parts.event("begin drain")),
        (Some(ID), Some(&undecided), parts.event("begin drain")),
        (None, None, joined),
    ];
    let mut books = Books::default();
    books.apply(&entry(Some(ID), 1, parts.event("intent")), None);
    for (id, record, event) in cases {
        let told = entry(id, 60, event);
        let mut after = books.clone();
        after.apply(&told, record);
        let expected = Books { last_at: at(60), ..books.clone() };
        assert_eq!(after, expected, "{:?}", told.event);
    }
}

/// A drain is ours from its start to its readmit, whatever else is drained.
#[test]
fn a_readmit_is_of_its_own_record_only() {
    let parts = parts(Mode::Live);
    let other = RecordId(uuid::Uuid::from_u128(8));
    let mut books = Books::default();
    let record = parts.after(&["confirmed", "decided", "intent", "begin drain"]);
    books.apply(&entry(Some(ID), 1, parts.event("begin drain")), Some(&record));
    let ours = books.drained.get(&parts.intent.plan.server).expect("drained").clone();
    assert_eq!((ours.record, ours.since), (ID, at(1)));
    books.apply(&entry(Some(other), 2, parts.event("end readmit")), None);
    books.apply(&entry(Some(ID), 3, parts.event("fail readmit")), None);
    assert_eq!(books.drained.len(), 1, "another record's, or one that failed");
    books.apply(&entry(Some(ID), 4, parts.event("end readmit")), None);
    assert!(books.drained.is_empty());
}

/// A watch knows its own alert and the newest eight others; a repeat only counts as news when it says something else.
#[test]
fn a_watch_remembers_a_bounded_number_of_alerts() {
    let parts = parts(Mode::Live);
    let mut books = Books::default();
    let watch = Watch {
        key: parts.accepted.key.clone(),
        accepted: Arc::new(parts.accepted.clone()),
        record: ID,
        outcome: Outcome::Refused,
        reason: Reason::Cooldown,
        detail: String::new(),
        since: at(0),
        retry_after_ms: None,
        members: Vec::new(),
        joined_at: None,
    };
    books.watches.insert(watch.key.clone(), std::sync::Arc::new(watch.clone()));
    let another = |number: u32| Accepted { fingerprint: format!("{number:016x}"), ..parts.accepted.clone() };
    let mut tell = |accepted: &Accepted, seconds: i64| {
        books.apply(&entry(None, seconds, Event::Joined { accepted: Arc::new(accepted.clone()), of: Some(ID) }), None);
        books.watches[&watch.key].clone()
    };
    for number in 1..=20 {
        assert!(!tell(&another(0), 1).knows(&another(number)));
        let told = tell(&another(number), i64::from(number));
        assert!(told.knows(&another(number)) && told.knows(&parts.accepted), "{number}");
        assert!(told.members.len() <= 8);
    }
    let told = tell(&another(20), 30);
    assert_eq!((told.members.len(), told.joined_at), (8, Some(at(30))), "told again, it takes no second place");
    assert!(told.knows(&another(20)) && !told.knows(&another(12)), "the oldest gave way");

    // Its own alert, cut off now: that is news, and stays where it is.
    let cut = Accepted { truncated: 3, ..parts.accepted.clone() };
    assert!(!told.knows(&cut));
    let told = tell(&cut, 31);
    assert!(told.knows(&cut) && !told.knows(&parts.accepted));
    assert_eq!((told.accepted.truncated, told.members.len()), (3, 8));
}

/// A pause covers what it names, until its end and not at it.
#[test]
fn a_pause_covers_what_it_names_until_it_ends() {
    let parts = parts(Mode::Live);
    let (playbook, target) = (&parts.intent.playbook, &parts.intent.plan.target);
    let end = at(10);
    let covers = |scope: PauseScope, now: Timestamp| {
        let pause = Pause { scope, actor: "ana".to_owned(), reason: "deploy".to_owned(), until: Some(end) };
        pause.covers(playbook, target, now)
    };
    let just_before = end.checked_sub(SignedDuration::from_nanos(1)).expect("in range");
    let other = "other".parse().expect("a name");
    for (scope, ours) in [
        (PauseScope::All, true),
        (PauseScope::Playbook(playbook.clone()), true),
        (PauseScope::Playbook(other), false),
        (PauseScope::Target(target.to_string()), true),
        (PauseScope::Target("inventory/elsewhere:1".to_owned()), false),
    ] {
        assert_eq!(covers(scope.clone(), just_before), ours, "{scope}");
        assert!(!covers(scope.clone(), end), "{scope}");
    }
}
