//! Every invariant can fail: a real run in which all of them hold, with one thing in its ledger or its journal changed,
//! and that very invariant says so.

use jiff::{SignedDuration, Timestamp};
use remediator::audit::Told;
use remediator::event::{Event, Pause, PauseScope, Step};
use remediator::sim::What;
use remediator::sim::fault::Fault;
use remediator::sim::invariants::{Invariant, check};
use remediator::sim::ledger::{Act, Delivery, Note, Noted};
use remediator::sim::run::{Trial, run};

/// The first seed whose run has a restart, and nothing that gives an excuse.
fn sound() -> Trial {
    let fits = |trial: &Trial| {
        let acts = |wanted: fn(&What) -> bool| {
            trial.notes.iter().filter(|note| matches!(&note.what, Noted::Act(act) if wanted(&act.what))).count()
        };
        acts(|what| matches!(what, What::Restart { .. })) == 1
            && acts(|what| matches!(what, What::Drain(_))) == 1
            && trial.notes.iter().all(|note| !matches!(note.what, Noted::Died | Noted::Stopped | Noted::DidNotStart))
    };
    let trial = (0..200).map(|seed| run(seed).expect("it runs").0).find(fits).expect("a seed with one restart");
    assert_eq!(check(&trial), [], "a sound run");
    trial
}

fn broken(trial: &Trial, invariant: Invariant, what: &str) {
    let found = check(trial);
    assert!(found.iter().any(|violation| violation.invariant == invariant), "{what}: {invariant} did not notice: {found:#?}");
}

fn act(trial: &mut Trial, wanted: fn(&What) -> bool) -> (&mut Timestamp, &mut Act) {
    let note = trial.notes.iter_mut().find(|note| matches!(&note.what, Noted::Act(act) if wanted(&act.what)));
    let Note { at, what: Noted::Act(act), .. } = note.expect("an effect") else { panic!("an effect") };
    (at, act)
}

fn restart(what: &What) -> bool {
    matches!(what, What::Restart { .. })
}

fn drain(what: &What) -> bool {
    matches!(what, What::Drain(_))
}

fn noted(trial: &mut Trial, what: Noted) {
    let last = trial.notes.last().expect("a note").clone();
    trial.notes.push(Note { what, ..last });
}

/// One change to an effect, and who must notice.
type Forgery = (&'static str, Invariant, fn(&What) -> bool, fn(&mut Act));

#[test]
fn of_the_world_at_the_moment_of_an_effect() {
    use Invariant::{I1, I3, I5, I8, I9};
    let forgeries: [Forgery; 25] = [
        ("not opted in", I1, drain, |act| act.opted_in = false),
        ("another replica", I1, restart, |act| act.instance = "10.0.0.99:8080".parse().expect("an instance")),
        ("healthy", I1, restart, |act| (act.share, act.mute) = (0.05, false)),
        ("silenced for long", I1, drain, |act| act.silenced = true),
        ("too few others", I3, restart, |act| act.others_serving = 0),
        ("too many at once", I3, drain, |act| act.also_drained = 5),
        ("all sick", I3, drain, |act| act.sick = act.all + 3),
        ("Docker down", I5, restart, |act| act.engine_down = true),
        ("balancer down", I5, restart, |act| act.balancer_down = true),
        ("disk full", I5, drain, |act| act.full = true),
        ("clock ahead", I5, restart, |act| act.clock_ahead = SignedDuration::from_mins(10)),
        ("clock behind", I5, restart, |act| act.clock_ahead = SignedDuration::from_mins(-10)),
        ("Prometheus blind", I5, drain, |act| act.blind_for = SignedDuration::from_mins(10)),
        ("drained by somebody else", I8, drain, |act| act.taken = true),
        ("in maintenance, drained", I8, drain, |act| act.maintenance = true),
        ("in maintenance, restarted", I8, restart, |act| act.maintenance = true),
        ("in maintenance, readmitted", I8, |what| matches!(what, What::Ready(_)), |act| act.maintenance = true),
        ("takes traffic", I8, restart, |act| act.ours = false),
        ("asked for what takes traffic", I8, restart, |act| (act.what, act.ours) = (asked(act), false)),
        ("asked for what is drained no more", I8, restart, |act| (act.what, act.drained) = (asked(act), false)),
        ("asked for a healthy one", I1, restart, |act| (act.what, act.share, act.mute) = (asked(act), 0.05, false)),
        ("another process", I9, restart, |act| act.started_at = act.program_now),
        ("another container", I9, restart, |act| act.container = "f".repeat(64).parse().expect("an id")),
        ("in shadow", I9, restart, |act| act.live.clear()),
        ("permit expired", I9, restart, |act| act.program_now += SignedDuration::from_hours(1)),
    ];
    let sound = sound();
    for (what, invariant, which, change) in forgeries {
        let mut trial = sound.clone();
        if what == "silenced for long" {
            let first = trial.notes.first().expect("a note").clone();
            let all = (0..trial.scenario.services.len()).map(|service| Noted::Fault(Fault::Silenced(service, true)));
            trial.notes.splice(0..0, all.map(|what| Note { what, ..first.clone() }));
        }
        change(act(&mut trial, which).1);
        broken(&trial, invariant, what);
    }
    // By the program's clock, which has gone back since, it is as new as it was.
    let mut late = sound.clone();
    *act(&mut late, drain).0 += SignedDuration::from_mins(1);
    broken(&late, I1, "drained for what was seen a minute ago");
}

/// The same call, which the Engine does not carry out.
fn asked(act: &Act) -> What {
    What::Asked { container: act.container.clone() }
}

#[test]
fn of_the_journal() {
    let sound = sound();
    let without = |wanted: fn(&Event) -> bool| {
        let mut trial = sound.clone();
        trial.entries.retain(|told| !wanted(&told.entry.event));
        trial
    };
    broken(&without(|event| matches!(event, Event::Intent { .. })), Invariant::I1, "no intent");
    broken(
        &without(|event| matches!(event, Event::StepStarted { step: Step::Restart })),
        Invariant::I1,
        "no start of the restart",
    );
    broken(&without(|event| matches!(event, Event::Intent { .. })), Invariant::I6, "a hole in the chain");
    broken(&without(|event| matches!(event, Event::Accepted { .. })), Invariant::I7, "an acknowledged alert is gone");
    let readmit = |event: &Event| {
        matches!(event, Event::StepStarted { step: Step::Readmit } | Event::StepEnded { step: Step::Readmit, .. })
    };
    broken(&without(readmit), Invariant::I8, "no readmit");

    let mut paused = sound.clone();
    let drain = |told: &Told| matches!(told.entry.event, Event::StepStarted { step: Step::Drain });
    let at = paused.entries.iter().position(drain).expect("a drain");
    let mut pause = paused.entries[at].clone();
    let (actor, reason) = ("ana".to_owned(), "stop!".to_owned());
    pause.entry.record = None;
    pause.entry.event = Event::Paused { pause: Pause { scope: PauseScope::All, actor, reason, until: None } };
    paused.entries.insert(at, pause);
    broken(&paused, Invariant::I9, "paused right before the drain");
    let mut judged = sound.clone();
    judged.notes.retain(|note| !matches!(&note.what, Noted::Act(act) if restart(&act.what)));
    broken(&judged, Invariant::I4, "a verdict without a restart");
}

#[test]
fn of_what_was_done_twice() {
    let sound = sound();
    let again = |wanted: fn(&What) -> bool, later: SignedDuration| {
        let mut trial = sound.clone();
        let at = trial.notes.iter().position(|note| matches!(&note.what, Noted::Act(act) if wanted(&act.what))).expect("an act");
        let mut twin = trial.notes[at].clone();
        twin.at += later;
        trial.notes.insert(at + 1, twin);
        trial
    };
    broken(&again(restart, SignedDuration::ZERO), Invariant::I4, "a second restart");
    broken(&again(drain, SignedDuration::from_secs(5)), Invariant::I2, "a second drain within the cooldown");
    let mut many = sound.clone();
    let at = many.notes.iter().position(|note| matches!(&note.what, Noted::Act(act) if drain(&act.what))).expect("a drain");
    for _ in 0..6 {
        let twin = many.notes[at].clone();
        many.notes.insert(at + 1, twin);
    }
    broken(&many, Invariant::I3, "seven drains at once");
}

/// Only a readmit that is refused while the server is drained is an excuse, whenever that began.
#[test]
fn of_a_server_that_stays_drained() {
    let mut late = sound();
    late.notes.retain(|note| !matches!(note.what, Noted::Fault(_)));
    *act(&mut late, |what| matches!(what, What::Ready(_))).0 += SignedDuration::from_mins(10);
    broken(&late, Invariant::I8, "readmitted ten minutes late");

    let refused_before = |orders: &[bool]| {
        let mut trial = late.clone();
        let first = trial.notes.first().expect("a note").clone();
        let notes = orders.iter().map(|on| Note { what: Noted::Fault(Fault::RefusesReady(*on)), ..first.clone() });
        trial.notes.splice(0..0, notes);
        trial
    };
    broken(&refused_before(&[true, false]), Invariant::I8, "refused, but no longer when it was drained");
    let found = check(&refused_before(&[true]));
    assert!(found.iter().all(|violation| violation.invariant != Invariant::I8), "refused since before the drain: {found:#?}");

    // An excuse lasts as long as what excuses: the ten minutes after a disk that was full for a moment have none.
    let mut briefly = late.clone();
    let at = briefly.notes.iter().position(|note| matches!(&note.what, Noted::Act(act) if drain(&act.what))).expect("a drain");
    let drained = briefly.notes[at].clone();
    let notes = [true, false].map(|on| Note { what: Noted::Fault(Fault::Full(on)), ..drained.clone() });
    briefly.notes.splice(at + 1..at + 1, notes);
    broken(&briefly, Invariant::I8, "a full disk that was no longer full");
}

#[test]
fn of_deliveries_and_of_how_it_ends() {
    let sound = sound();
    let delivery = |authentic: bool, after: u64, lost: usize| Delivery {
        from: "somebody".to_owned(),
        authentic,
        status: Some(202),
        before: 1,
        after,
        receipts: Vec::new(),
        told: String::new(),
        lost,
    };
    let with = |what: Noted| {
        let mut trial = sound.clone();
        noted(&mut trial, what);
        trial
    };
    broken(&with(Noted::Delivery(delivery(false, 2, 0))), Invariant::I1, "taken without a token");
    broken(&with(Noted::Delivery(delivery(true, 1, 1))), Invariant::I7, "a receipt for nothing");
    broken(&with(Noted::Silent("nobody heard".to_owned())), Invariant::I12, "silence");
    broken(&with(Noted::Unsaid("nobody paged".to_owned())), Invariant::I5, "a full disk unsaid");
    let ended = |change: fn(&mut Trial)| {
        let mut trial = sound.clone();
        change(&mut trial);
        trial
    };
    broken(&ended(|trial| trial.end.open.push("a record".to_owned())), Invariant::I4, "left open");
    broken(&ended(|trial| trial.end.drained.push("a/b".to_owned())), Invariant::I8, "left drained");
    broken(&ended(|trial| trial.end.same_state = false), Invariant::I10, "another state");
    broken(&ended(|trial| trial.broken.push("the projections differ".to_owned())), Invariant::I10, "projections");
    broken(&ended(|trial| trial.broken.push("its hash is not that of its body".to_owned())), Invariant::I6, "the chain");
    broken(&ended(|trial| trial.end.split.push("it differs".to_owned())), Invariant::I11, "order matters");
    broken(&ended(|trial| trial.end.stale_pages.push("a page".to_owned())), Invariant::I12, "a stale page");
}
