//! A person aborts a run: at every step, twice, too late, and before a crash. What was promised is what happens.

use futures_util::FutureExt as _;
use remediator::act::abort::{self, Ordered};
use remediator::audit::Journal;
use remediator::event::{Abort, Draft, Event, Phase, Record, RecordId, Step};
use remediator::reason::{Outcome, Reason};
use remediator::sim::bench::{Bench, write_now};
use remediator::sim::prometheus::Trouble;
use remediator::sim::{Point, Sim, When};

use crate::kit::*;

fn by(actor: &str) -> Abort {
    Abort { actor: actor.to_owned(), reason: "wrong replica".to_owned() }
}

/// The journal without a thread answers at once.
fn order(journal: &Journal, sim: &Sim, id: RecordId, actor: &str) -> Ordered {
    let ordered = abort::order(journal, sim.now(), id, by(actor)).now_or_never();
    ordered.expect("at once").expect("durable")
}

fn only_open(journal: &Journal) -> RecordId {
    journal.read(|state| {
        assert_eq!(state.open.len(), 1, "one record is open");
        state.open.keys().copied().next().expect("it")
    })
}

/// Aborts the run that is under way at this call, and leaves what became of it where the test finds it.
fn aborts_at(bench: &Bench, when: When, point: Point) -> std::sync::Arc<std::sync::Mutex<Vec<Ordered>>> {
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (journal, tell) = (bench.context.journal.clone(), told.clone());
    bench.sim.at(when, point, 1, move |sim| {
        let ordered = order(&journal, sim, only_open(&journal), "ana");
        tell.lock().expect("no panic").push(ordered);
    });
    told
}

fn aborted(record: &Record) {
    is(record, Outcome::Interrupted, Reason::Aborted);
    assert_eq!(record.detail, "aborted by ana: wrong replica");
    assert_eq!(record.abort, Some(by("ana")));
}

async fn orders_written(bench: &Bench) -> usize {
    let entries = bench.entries().await.expect("readable");
    entries.iter().filter(|told| matches!(told.entry.event, Event::AbortOrdered { .. })).count()
}

#[tokio::test(start_paused = true)]
async fn while_it_is_confirmed_nothing_is_touched_and_it_does_not_begin_anew_at_once() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    let told = aborts_at(&bench, When::Before, Point::Instant);
    deliver(&bench).await;
    let record = finished(&bench).await;
    aborted(&record);
    assert!(record.intent.is_none());
    assert_eq!(*told.lock().expect("no panic"), [Ordered::Now { phase: Phase::Accepted, step: None }]);
    // As long as the playbook's cooldown, which counts from the order.
    bench.run_with_feed(mins(4), mins(1)).await;
    untouched(&bench);
    assert_eq!(up(&bench), ["aborted"], "{:#?}", self::told(&bench.records()));
    bench.run_with_feed(mins(8), mins(1)).await;
    assert_eq!(restarts(&bench), [TWO], "an abort is for one run; a pause is for all of them");
    all_serve(&bench);
}

/// Prometheus keeps it waiting, and nobody needs the answer any more.
#[tokio::test(start_paused = true)]
async fn while_it_waits_for_prometheus_it_ends_at_once() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    bench.sim.with(|state| state.prometheus.trouble = Trouble::Slow);
    deliver(&bench).await;
    bench.run_for(secs(1)).await;
    let id = only_open(&bench.context.journal);
    assert_eq!(order(&bench.context.journal, &bench.sim, id, "ana"), Ordered::Now { phase: Phase::Accepted, step: None });
    bench.run_for(secs(1)).await;
    aborted(&bench.records()[0]);
    untouched(&bench);
}

#[tokio::test(start_paused = true)]
async fn before_the_drain_nothing_is_touched() {
    for when in [When::Before, When::After] {
        let bench = bench().await;
        let told = aborts_at(&bench, when, Point::Logs);
        aborted(&one_run(&bench).await);
        assert_eq!(*told.lock().expect("no panic"), [Ordered::Now { phase: Phase::Admitted, step: Some(Step::CaptureEvidence) }]);
        untouched(&bench);
    }
}

#[tokio::test(start_paused = true)]
async fn while_it_drains_the_wait_is_broken_off_and_the_server_put_back() {
    for when in [When::Before, When::After] {
        let bench = bench().await;
        // It would never be empty.
        bench.sim.replica(TWO, |replica, _| replica.empties_in = None);
        aborts_at(&bench, when, Point::Drain);
        let record = one_run(&bench).await;
        aborted(&record);
        let drain = record.steps.iter().find(|run| run.step == Step::Drain).expect("it was begun");
        assert_eq!(drain.ended_at, Some(drain.started_at), "{when:?}: not a moment was waited");
        assert_eq!(record.steps.last().map(|run| run.step), Some(Step::Readmit));
        assert!(restarts(&bench).is_empty());
        all_serve(&bench);
        bench.run_for(secs(5)).await;
        assert_eq!(up(&bench), ["aborted"]);
        let page = paged(&bench, Reason::Aborted).pop().expect("a page");
        assert_eq!(page.annotations.get("description"), Some("aborted by ana: wrong replica"));
    }
}

#[tokio::test(start_paused = true)]
async fn between_drain_and_restart_the_server_is_put_back() {
    let bench = bench().await;
    // The look that sees it empty is over; the last look before the restart asks for the servers and the container.
    bench.sim.replica(TWO, |replica, _| replica.sessions = 0);
    let (journal, clock) = (bench.context.journal.clone(), bench.context.world.clock.clone());
    bench.sim.at(When::After, Point::Drain, 1, move |sim| {
        let journal = journal.clone();
        sim.at(When::Before, Point::Inspect, 1, move |sim| {
            let id = only_open(&journal);
            assert!(matches!(order(&journal, sim, id, "ana"), Ordered::Now { step: Some(Step::Drain), .. }));
            // Whatever looked before the order was written: the journal itself takes no restart after it.
            for step in [Step::Restart, Step::AwaitHealthy] {
                assert!(!write_now(&journal, Draft::of(id, clock.now(), Event::StepStarted { step })), "{step:?}");
            }
        });
    });
    aborted(&one_run(&bench).await);
    assert!(restarts(&bench).is_empty());
    all_serve(&bench);
}

/// Nothing can be taken back any more: whoever orders it is told so, and the run goes on to its verdict.
#[tokio::test(start_paused = true)]
async fn from_the_restart_on_it_is_too_late() {
    for (when, point) in [(When::Before, Point::Restart), (When::After, Point::Restart), (When::After, Point::Ready)] {
        let bench = bench().await;
        let told = aborts_at(&bench, when, point);
        let record = one_run(&bench).await;
        is(&record, Outcome::Recovered, Reason::RecoveryConfirmed);
        let told = told.lock().expect("no panic").clone();
        assert!(matches!(told[..], [Ordered::TooLate { phase: Phase::Admitted, .. }]), "{when:?} {point:?}: {told:?}");
        assert_eq!(orders_written(&bench).await, 0, "an order that is not obeyed is not in the journal");
        assert_eq!(record.abort, None);
        all_serve(&bench);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_of_two_counts_and_the_second_is_told() {
    let bench = bench().await;
    let journal = bench.context.journal.clone();
    bench.sim.at(When::After, Point::Drain, 1, move |sim| {
        let id = only_open(&journal);
        assert!(matches!(order(&journal, sim, id, "ana"), Ordered::Now { .. }));
        assert_eq!(order(&journal, sim, id, "ben"), Ordered::Before(by("ana")));
    });
    aborted(&one_run(&bench).await);
    assert_eq!(orders_written(&bench).await, 1);
    all_serve(&bench);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_open_is_not_aborted() {
    let bench = bench().await;
    let record = one_run(&bench).await;
    let journal = &bench.context.journal;
    for id in [record.id, RecordId(uuid::Uuid::from_u128(7))] {
        assert_eq!(order(journal, &bench.sim, id, "ana"), Ordered::NotOpen);
    }
    assert_eq!(orders_written(&bench).await, 0);
}

/// The order is on disk, and the process that took it is gone.
#[tokio::test(start_paused = true)]
async fn the_next_process_obeys_it() {
    for (when, point) in
        [(When::Before, Point::Instant), (When::After, Point::Logs), (When::Before, Point::Drain), (When::After, Point::Drain)]
    {
        let bench = bench().await;
        bench.sim.replica(TWO, |replica, _| replica.empties_in = None);
        leaking(&bench, &[TWO]).await;
        let journal = bench.context.journal.clone();
        bench.sim.at(when, point, 1, move |sim| {
            let id = only_open(&journal);
            assert!(matches!(order(&journal, sim, id, "ana"), Ordered::Now { .. }));
            sim.kill();
        });
        deliver(&bench).await;
        assert!(bench.until(mins(5), |bench| bench.sim.deaths() == 1).await, "no call of {point:?}");
        let bench = bench.crash_and_restart(None, secs(20)).await.expect("starts again");
        bench.run_for(secs(30)).await;
        aborted(&bench.records()[0]);
        assert!(restarts(&bench).is_empty(), "{when:?} {point:?}");
        all_serve(&bench);
        assert_eq!(up(&bench), ["aborted"], "{when:?} {point:?}");
    }
}
