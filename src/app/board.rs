//! What is true now, gathered for whoever asks: the books, the open records, and when each episode is looked at next.

use jiff::Timestamp;

use crate::api::board::{Board, DrainedNow, HeadNow, HeldNow, OpenNow, WatchNow};
use crate::audit::state::State;
use crate::decide::playbook::Mode;
use crate::detect::healer;
use crate::episodes::Episodes;
use crate::event::{Phase, Record};
use crate::guard::ledger::{Held, Watch};
use crate::guard::view;
use crate::pipeline::Context;

/// One look at everything.
pub fn board(context: &Context, episodes: &Episodes) -> Board {
    let now = context.world.clock.now();
    let playbooks = context.playbooks();
    let next = episodes.next_looks();
    context.journal.read(|state| {
        let books = &state.books;
        let of = |playbook| view::playbook(books, playbook, &context.limits, now);
        let playbooks: Vec<_> = playbooks.iter().map(of).collect();
        let live = playbooks.iter().filter(|playbook| playbook.mode == Mode::Live);
        let fleet = books
            .live
            .buckets
            .get("fleet")
            .map_or(f64::from(context.limits.fleet.burst), |bucket| bucket.level(context.limits.fleet, now));
        let allowed: u64 = live.map(|playbook| playbook.remediations_allowed).sum();
        Board {
            at: now,
            host: context.host.clone(),
            healer: healer(),
            remediations_allowed: allowed.min(fleet.floor() as u64),
            pauses: books.pauses.iter().filter(|pause| pause.until.is_none_or(|until| now < until)).cloned().collect(),
            playbooks,
            open: state.records().map(open).collect(),
            in_flight: books.live.held.values().map(held).collect(),
            drained: drained(state),
            watches: books.watches.values().map(|watch| watched(watch, next.get(&watch.key).copied())).collect(),
            head: HeadNow { seq: state.head.seq, hash: state.head.hash.clone() },
        }
    })
}

fn open(record: &Record) -> OpenNow {
    let accepted = &record.accepted;
    let last = record.steps.last();
    let judged = record.phase == Phase::Judged;
    let step = last.filter(|_| !judged);
    OpenNow {
        id: record.id,
        alertname: accepted.alert.labels.alertname().to_owned(),
        target: accepted.target.as_ref().map(ToString::to_string),
        playbook: accepted.playbook.clone(),
        mode: accepted.mode,
        opened_at: record.opened_at,
        phase: record.phase,
        step: step.map(|run| run.step),
        running: record.running().is_some(),
        since: step.map_or(record.opened_at, |run| run.ended_at.unwrap_or(run.started_at)),
        abort: record.abort.clone(),
    }
}

fn held(held: &Held) -> HeldNow {
    HeldNow {
        record: held.record,
        target: held.target.clone(),
        playbook: held.playbook.clone(),
        server: held.server.to_string(),
        since: held.since,
    }
}

fn drained(state: &State) -> std::collections::BTreeMap<String, DrainedNow> {
    let all = state.books.drained.iter();
    all.map(|(server, drained)| (server.to_string(), DrainedNow { record: drained.record, since: drained.since })).collect()
}

fn watched(watch: &Watch, next_look: Option<Timestamp>) -> WatchNow {
    let accepted = &watch.accepted;
    WatchNow {
        key: watch.key.as_str().to_owned(),
        alertname: accepted.alert.labels.alertname().to_owned(),
        target: accepted.target.as_ref().map(ToString::to_string),
        playbook: accepted.playbook.clone(),
        record: watch.record,
        outcome: watch.outcome,
        reason: watch.reason,
        detail: watch.detail.clone(),
        since: watch.since,
        next_look,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::{Mutex, watch};

    use super::*;
    use crate::api::board::AbortState;
    use crate::api::desk::{Desk as _, DeskError, PauseOrder};
    use crate::app::desk::FrontDesk;
    use crate::event::{PauseScope, RecordId, Step};
    use crate::reason::{Outcome, Reason};
    use crate::sim::bench::Bench;
    use crate::sim::shop::inventory;

    async fn bench() -> Bench {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("playbooks/inventory-fd-leak.yml");
        let (mut playbooks, _) = crate::config::load_playbooks(&path).expect("the shipped playbook");
        let (mut playbook, _) = playbooks.remove(0);
        playbook.mode = Mode::Live;
        let bench = Bench::start(inventory(), vec![playbook]).await.expect("a journal in memory");
        bench.run_for(Duration::from_secs(120)).await;
        bench
    }

    async fn until(bench: &Bench, so: impl Fn(&Board) -> bool) -> Board {
        let seen = bench.until(Duration::from_secs(900), |bench| so(&board(&bench.context, &bench.episodes))).await;
        assert!(seen, "{:#?}", board(&bench.context, &bench.episodes));
        board(&bench.context, &bench.episodes)
    }

    fn desk(bench: &Bench) -> FrontDesk {
        let (context, episodes) = (bench.context.clone(), bench.episodes.clone());
        FrontDesk { context, episodes, doors: Arc::new(watch::Sender::new(None)), probed: Mutex::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_misspelt_target_is_not_paused_and_what_docker_cannot_say_is() {
        let bench = bench().await;
        let known: Vec<String> =
            bench.sim.with(|state| state.replicas.iter().map(|replica| replica.instance.to_string()).collect());
        let order = |name: String| PauseOrder {
            scope: PauseScope::Target(name),
            actor: "ada".to_owned(),
            reason: "mine".to_owned(),
            lasting: None,
        };
        let error = desk(&bench).pause(order("inventory/inventory-22:8080".to_owned())).await.expect_err("misspelt");
        assert!(matches!(&error, DeskError::NoSuch(said) if said.contains(&known[1])), "{error}");
        assert!(bench.context.journal.read(|state| state.books.pauses.is_empty()));
        desk(&bench).pause(order(format!("inventory/{}", known[1]))).await.expect("paused");
        bench.sim.with(|state| state.engine.down = true);
        desk(&bench).pause(order("inventory/inventory-22:8080".to_owned())).await.expect("taken, because nobody can say");
        assert_eq!(bench.context.journal.read(|state| state.books.pauses.len()), 2);
    }

    /// One replica leaks, and its server never empties.
    async fn draining() -> (Bench, Board) {
        let bench = bench().await;
        bench.sim.replica("inventory-2", |replica, _| replica.empties_in = None);
        bench.sim.leak("inventory-2");
        let fires = |bench: &Bench| !bench.sim.with(|state| state.prometheus.firing()).is_empty();
        assert!(bench.until(Duration::from_secs(900), fires).await);
        bench.deliver_firing().await.expect("durable");
        let seen = until(&bench, |board| board.open.iter().any(|open| open.step == Some(Step::Drain) && open.running)).await;
        (bench, seen)
    }

    #[tokio::test(start_paused = true)]
    async fn it_says_what_is_under_way_and_what_would_be_allowed() {
        let quiet = bench().await;
        let seen = board(&quiet.context, &quiet.episodes);
        assert_eq!((seen.remediations_allowed, seen.playbooks[0].budget[0].left), (1, 6), "max_in_flight is 1");
        assert!(seen.open.is_empty() && seen.watches.is_empty() && seen.drained.is_empty());

        let (bench, seen) = draining().await;
        assert_eq!(seen.remediations_allowed, 0, "one is in flight");
        assert_eq!(seen.playbooks[0].in_flight, ["inventory/10.0.0.2:8080"]);
        assert_eq!(seen.playbooks[0].budget[0].spent, 1);
        assert_eq!(seen.playbooks[0].cooling[0].target, "inventory/10.0.0.2:8080");
        assert!(seen.playbooks[0].cooling[0].until > seen.at);
        assert_eq!(seen.drained.keys().collect::<Vec<_>>(), ["inventory/inventory-2"]);
        assert_eq!(seen.head.hash, bench.context.journal.head().hash);
        assert!(seen.open[0].since <= seen.at && seen.open[0].since >= seen.open[0].opened_at);
        let sent: Board = serde_json::from_value(serde_json::json!(seen)).expect("it reads what it writes");
        assert_eq!(sent, seen);

        let seen = until(&bench, |board| board.watches.iter().any(|watch| watch.next_look.is_some())).await;
        assert_eq!((seen.watches[0].outcome, seen.watches[0].reason), (Outcome::ActionFailed, Reason::DrainTimeout));
        assert!(seen.watches[0].next_look > Some(seen.at), "{:?}", seen.watches[0]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_abort_is_answered_with_what_becomes_of_it() {
        let (bench, seen) = draining().await;
        let (desk, id) = (desk(&bench), seen.open[0].id);
        let abort = async |id: RecordId| desk.abort(id, "ana".to_owned(), "wrong replica".to_owned()).await;
        let ordered = abort(id).await.expect("in time");
        assert_eq!(ordered.state, AbortState::Ordered);
        assert!(ordered.detail.contains("drain; the server is put back"), "{}", ordered.detail);
        assert_eq!(abort(id).await.expect("still open").state, AbortState::AlreadyOrdered);
        until(&bench, |board| board.open.is_empty()).await;
        match abort(id).await {
            Err(DeskError::TooLate(why)) => assert!(
                why.contains("closed already (interrupted)") && why.contains("pause the target inventory/10.0.0.2:8080"),
                "{why}"
            ),
            other => panic!("{other:?}"),
        }
        let nobody = RecordId(uuid::Uuid::from_u128(7));
        assert!(matches!(abort(nobody).await, Err(DeskError::NoSuch(_))));
    }
}
