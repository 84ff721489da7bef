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
            open: state.open.values().map(open).collect(),
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
