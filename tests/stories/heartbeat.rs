//! `autoheal_87`: the healer itself hung for days, and nobody knew. And a dead-man's switch that is nothing but that.

use remediator::alert::{Alert, AlertStatus, LabelSet};
use remediator::api::desk::ReceiptState;
use remediator::audit::JournalError;
use remediator::audit::journal::Journal;
use remediator::decide::playbook::HEARTBEAT;
use remediator::event::PauseScope;
use remediator::heartbeat::{Heart, Stopped, overdue};
use remediator::reason::{Outcome, Reason};
use remediator::sim::Point;
use remediator::sim::bench::Bench;
use remediator::sim::shop::inventory;

use crate::kit::*;

pub fn alert(labels: &[(&str, &str)]) -> Alert {
    let labels = labels.iter().copied().collect::<LabelSet>();
    let (annotations, generator_url) = (LabelSet::default(), String::new());
    Alert { status: AlertStatus::Firing, labels, annotations, starts_at: None, generator_url }
}

/// A week of beats beside a leak that is repaired: they are in no record, no book and no entry, and touch nothing.
#[tokio::test(start_paused = true)]
async fn a_heartbeat_walks_and_leaves_no_trace() {
    let bench = bench().await;
    let heart = Heart::new().expect("a heart");
    let before = bench.context.journal.read(|state| (state.books.clone(), state.head.clone()));
    for _ in 0..50 {
        let at = heart.beat(&bench.context).await.expect("complete");
        assert_eq!(at, bench.context.world.clock.now());
        bench.run_for(secs(30)).await;
    }
    assert_eq!(bench.context.journal.read(|state| (state.books.clone(), state.head.clone())), before);
    assert!(bench.records().is_empty());
    untouched(&bench);
    // What beats spend would be missing here: the fleet's bucket, the budget, the breaker.
    is(&one_run(&bench).await, Outcome::Recovered, Reason::RecoveryConfirmed);
    heart.beat(&bench.context).await.expect("complete");
}

/// Whatever the rails say, that they said it is what counts: somebody's pause must not look like a dead program.
#[tokio::test(start_paused = true)]
async fn a_pause_does_not_stop_the_heart() {
    let bench = bench().await;
    bench.pause(PauseScope::All);
    Heart::new().expect("a heart").beat(&bench.context).await.expect("complete");
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_cannot_be_written_stops_the_heart_until_it_can() {
    let bench = bench().await;
    let heart = Heart::new().expect("a heart");
    bench.context.journal.pretend_full(true);
    let stopped = heart.beat(&bench.context).await;
    assert!(matches!(stopped, Err(Stopped::Journal(JournalError::Store(_)))), "{stopped:?}");
    assert!(bench.context.journal.trouble().is_some());
    bench.context.journal.pretend_full(false);
    heart.beat(&bench.context).await.expect("complete");
    assert_eq!(bench.context.journal.trouble(), None, "noticed although nothing else is written");
}

/// A writer that hangs never answers, so neither does the heart; one that is gone says so.
#[tokio::test]
async fn a_writer_that_hangs_or_is_gone_stops_the_heart() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = Journal::open(folder.path()).expect("a journal");
    // Real time here, because the writer is a real thread.
    let bench = Bench::start(inventory(), vec![playbook()]).await.expect("a journal in memory");
    let context = remediator::pipeline::Context { journal: journal.clone(), ..bench.context.clone() };
    let heart = Heart::new().expect("a heart");
    heart.beat(&context).await.expect("complete");

    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let (began, stuck) = tokio::sync::oneshot::channel();
    let hanging = tokio::spawn({
        let journal = journal.clone();
        async move {
            let hang = journal.transact(move |_| {
                let _ = began.send(());
                let _ = held.recv();
                (Vec::new(), ())
            });
            hang.await
        }
    });
    stuck.await.expect("the writer is in it");
    {
        let beat = heart.beat(&context);
        tokio::pin!(beat);
        let come_back = tokio::time::timeout(std::time::Duration::from_millis(300), &mut beat).await;
        assert!(come_back.is_err(), "the heart beat beside a writer that hangs");
        let_go.send(()).expect("somebody hangs");
        beat.await.expect("complete, once the writer is free");
    }
    hanging.await.expect("no panic").expect("done");
    journal.close().await;
    let stopped = heart.beat(&context).await;
    assert!(matches!(stopped, Err(Stopped::Journal(JournalError::Closed))), "{stopped:?}");
}

/// A playbook that matches everything gets neither the heartbeat nor the dead-man's switch.
#[tokio::test(start_paused = true)]
async fn no_playbook_ever_gets_the_reserved_alerts() {
    let mut greedy = playbook();
    greedy.matchers = vec!["service=~\".*\"".parse().expect("a matcher")];
    let bench = bench_with(greedy.clone()).await;
    Heart::new().expect("a heart").beat(&bench.context).await.expect("complete");
    assert!(!greedy.claims(&LabelSet::from([("alertname", HEARTBEAT), ("service", "inventory")])));
    assert!(greedy.claims(&LabelSet::from([("alertname", "Other"), ("service", "inventory")])));

    // Delivered from outside, and dressed up as a replica's: it is nobody's, and nothing is touched.
    let target = instance(&bench.sim, TWO);
    let forged = alert(&[("alertname", HEARTBEAT), ("service", "inventory"), ("instance", &target), ("job", "inventory")]);
    let receipts = bench.deliver(vec![forged]).await.expect("taken in");
    assert_eq!((receipts[0].playbook.as_ref(), receipts[0].reason), (None, Some(Reason::NoPlaybook)));
    is(&finished(&bench).await, Outcome::UnmatchedTarget, Reason::NoPlaybook);
    untouched(&bench);
}

/// Dead man's switch: heard, and that is all. Between other alerts, each keeps its place in the answer.
#[tokio::test(start_paused = true)]
async fn the_watchdog_is_heard_and_nothing_comes_of_it() {
    let bench = bench().await;
    assert_eq!(bench.context.watchdog.heard(), None);
    let target = instance(&bench.sim, TWO);
    let head = bench.context.journal.head();
    let dressed_up = alert(&[("alertname", "Watchdog"), ("service", "inventory"), ("instance", &target), ("job", "inventory")]);
    let asked = bench.sim.calls(Point::Containers);
    let receipts = bench.deliver(vec![dressed_up.clone()]).await.expect("taken in");
    assert_eq!((receipts[0].id, receipts[0].state), (None, ReceiptState::Heard));
    assert!(receipts[0].playbook.is_none() && receipts[0].target.is_none());
    let heard = bench.context.watchdog.heard().expect("heard");
    assert_eq!(heard, bench.context.world.clock.now());
    bench.run_for(mins(5)).await;
    assert_eq!(bench.context.journal.head(), head, "no entry");
    assert_eq!(bench.sim.calls(Point::Containers), asked, "nobody was asked anything");
    untouched(&bench);

    // That it is over is news, and is not hearing it.
    let receipts = bench.deliver_resolved(vec![dressed_up.clone()]).await.expect("taken in");
    assert_eq!((receipts[0].id, receipts[0].state), (None, ReceiptState::Resolved));
    assert_eq!(bench.context.watchdog.heard(), Some(heard));

    let nobodys = alert(&[("alertname", "Odd"), ("service", "other")]);
    let all = [nobodys.clone(), dressed_up, alert(&[("alertname", "Odder"), ("service", "other")])];
    let names: Vec<String> = all.iter().map(|alert| alert.labels.alertname().to_owned()).collect();
    let receipts = bench.deliver(all.to_vec()).await.expect("taken in");
    assert_eq!(receipts.iter().map(|receipt| receipt.alertname.clone()).collect::<Vec<_>>(), names);
    assert_eq!(receipts.iter().map(|receipt| receipt.id.is_some()).collect::<Vec<_>>(), [true, false, true]);
    assert!(bench.context.watchdog.heard() > Some(heard));
}

fn late(bench: &Bench) -> std::time::Duration {
    let now = bench.context.world.clock.now();
    bench.context.journal.read(|state| overdue(state.records(), now)).unsigned_abs()
}

/// The heart beats on while one run hangs: the outside may take for ever, and no code of ours may believe that it cannot.
#[tokio::test(start_paused = true)]
async fn a_run_that_hangs_is_overdue_and_one_that_takes_its_time_is_not() {
    let bench = bench().await;
    leaking(&bench, &[TWO]).await;
    // As long as the playbook allows: the drain takes all of its time, and the verdict its own.
    bench.sim.replica(TWO, |replica, _| replica.empties_in = Some(secs(29)));
    deliver(&bench).await;
    while !bench.idle() {
        assert_eq!(late(&bench), secs(0), "{:#?}", told(&bench.records()));
        bench.run_for(secs(5)).await;
    }

    let bench = crate::kit::bench().await;
    // A process whose calls never come back, and a journal that is none the wiser.
    bench.sim.at(remediator::sim::When::After, Point::Drain, 1, |sim| sim.kill());
    leaking(&bench, &[TWO]).await;
    deliver(&bench).await;
    bench.run_for(mins(30)).await;
    assert!(late(&bench) > mins(15), "{:?}", late(&bench));
    Heart::new().expect("a heart").beat(&bench.context).await.expect("complete all the same");
}
