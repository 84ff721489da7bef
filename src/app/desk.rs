//! The desk behind the HTTP face: takes deliveries in, answers from the journal, writes down what a person orders.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::act::abort::{self, Ordered};
use crate::alert::AlertGroup;
use crate::api::board::{AbortState, Aborting, Board};
use crate::api::desk::{
    AuditFilter, BreakerState, Bygone, ClosedLine, Desk, DeskError, Gauges, PauseOrder, Probe, Receipt, RecordPage, Unavailable,
};
use crate::app::board::board;
use crate::app::pauses;
use crate::audit::JournalError;
use crate::audit::export::line;
use crate::audit::query::{Cursor, Filter, Found};
use crate::detect;
use crate::episodes::Episodes;
use crate::event::{Abort, Draft, Event, Pause, PauseScope, Phase, Record, RecordId, Step};
use crate::guard::breaker::BreakerState as Breaker;
use crate::guard::ledger::{Anchored, breaker_name};
use crate::guard::view;
use crate::heartbeat::overdue;
use crate::pipeline::Context;
use crate::reason::Reason;
use crate::target::{LABEL_INSTANCE, LABEL_SERVICE};
use crate::words;

/// The real desk.
pub struct FrontDesk {
    pub context: Context,
    pub episodes: Episodes,
    pub doors: Arc<watch::Sender<Option<bool>>>,
    /// What readiness said last, and when.
    pub probed: Mutex<Option<(Instant, Vec<Probe>)>>,
}

/// How long a pause of one target waits for Docker to say whether there is such a target.
const PAUSE_ASKS_FOR: Duration = Duration::from_secs(2);
/// How long an answer of readiness is good for.
const PROBE_AGAIN: Duration = Duration::from_secs(1);

fn unavailable(error: JournalError) -> Unavailable {
    Unavailable::new(Reason::StoreUnavailable, error.to_string())
}

/// A record as `audit.jsonl` has it, to the byte.
fn written(found: &Found) -> Result<Box<RawValue>, Unavailable> {
    to_raw_value(&line(found)).map_err(|error| Unavailable::new(Reason::StoreUnavailable, error.to_string()))
}

impl FrontDesk {
    async fn probe(&self) -> Vec<Probe> {
        let world = &self.context.world;
        let nothing = crate::alert::LabelSet::default();
        let (metrics, engine, names, balancer, silences) = tokio::join!(
            world.metrics.instant("vector(1)", world.clock.now()),
            world.engine.ping(),
            world.engine.own_names(),
            world.balancer.servers(),
            world.pager.silences(&nothing),
        );
        let probe = |name: &str, result: Result<String, String>| Probe {
            name: name.to_owned(),
            ok: result.is_ok(),
            detail: result.unwrap_or_else(|why| why),
        };
        let answers = |text: &str| text.to_owned();
        let doors = match *self.doors.borrow() {
            Some(true) => Ok("both doors refuse a forbidden call".to_owned()),
            Some(false) => Err("a door lets a forbidden call through".to_owned()),
            None => Err("not checked yet".to_owned()),
        };
        let store = self.context.journal.trouble().map_or_else(|| Ok("writable".to_owned()), Err);
        vec![
            probe("store", store),
            probe("prometheus", metrics.map(|_| answers("answers")).map_err(|why| why.detail)),
            probe("docker", engine.map(|()| answers("answers")).map_err(|why| why.detail)),
            probe("doors", doors),
            probe("own_names", names.map(|names| format!("{names} looked up")).map_err(|why| why.detail)),
            probe("balancer", balancer.map(|servers| format!("{} servers", servers.len())).map_err(|why| why.detail)),
            probe("alertmanager", silences.map(|_| answers("answers")).map_err(|why| why.detail)),
        ]
    }

    /// A misspelt target must not look like a paused one. When Docker cannot say at once, the pause is taken: it stops too
    /// much rather than too little.
    async fn replica_exists(&self, name: &str) -> Result<(), DeskError> {
        let Some((service, instance)) = name.split_once('/') else { return Ok(()) };
        let listed = tokio::time::timeout(PAUSE_ASKS_FOR, self.context.world.engine.containers()).await;
        let Ok(Ok(containers)) = listed else { return Ok(()) };
        let is = |labels: &std::collections::BTreeMap<String, String>, label: &str, value: &str| {
            labels.get(label).is_some_and(|found| found == value)
        };
        let mut known: Vec<&str> = Vec::new();
        for container in containers.iter().filter(|container| is(&container.labels, LABEL_SERVICE, service)) {
            if is(&container.labels, LABEL_INSTANCE, instance) {
                return Ok(());
            }
            known.extend(container.labels.get(LABEL_INSTANCE).map(String::as_str));
        }
        known.sort_unstable();
        let known = crate::edge::redact::plain_line(&known.join(", "), 500);
        Err(DeskError::NoSuch(format!(
            "no container of {service} is labelled {LABEL_INSTANCE}={instance:?}, so nothing was paused; there are: {known}. \
             For one that is still to come, pause the playbook"
        )))
    }

    async fn order(&self, event: Event) -> Result<(), DeskError> {
        let now = self.context.world.clock.now();
        self.context.journal.append(Draft::global(now, event)).await.map_err(unavailable)?;
        // A rail may have freed.
        self.episodes.look_at(None, None);
        Ok(())
    }
}

#[async_trait]
impl Desk for FrontDesk {
    async fn take_in(&self, group: AlertGroup) -> Result<Vec<Receipt>, Unavailable> {
        // In a task of its own: a caller who hangs up must not leave a record on disk that nobody looks at.
        let (context, episodes) = (self.context.clone(), self.episodes.clone());
        let taken = tokio::spawn(async move {
            let taken = detect::take_in(&context, group).await?;
            for key in &taken.touched {
                episodes.look(key);
            }
            Ok(taken.receipts)
        });
        taken.await.unwrap_or_else(|panicked| Err(Unavailable::new(Reason::StoreUnavailable, panicked.to_string())))
    }

    async fn await_outcome(&self, receipts: &[Receipt], within: Duration) -> Vec<Record> {
        let mut keys = Vec::new();
        for id in receipts.iter().filter_map(|receipt| receipt.id) {
            if let Ok(Some(record)) = self.context.journal.record(id).await {
                keys.push(record.accepted.key.clone());
            }
        }
        keys.sort();
        keys.dedup();
        if !within.is_zero() {
            let settled = keys.iter().map(|key| self.episodes.settled(key, within));
            futures_util::future::join_all(settled).await;
        }
        let mut records = Vec::new();
        for key in keys {
            let filter = Filter { key: Some(key), ..Filter::default() };
            if let Ok(page) = self.context.journal.query(filter, None, 1).await {
                records.extend(page.items.into_iter().map(|found| found.record));
            }
        }
        records
    }

    async fn record(&self, id: RecordId) -> Result<Option<Value>, Unavailable> {
        let Some(record) = self.context.journal.record(id).await.map_err(unavailable)? else { return Ok(None) };
        let story = self.context.journal.story(id).await.map_err(unavailable)?;
        Ok(Some(json!({ "record": record, "entries": story })))
    }

    async fn bygone(&self) -> Option<Bygone> {
        let pruned = |anchored: &Anchored| Bygone { through: anchored.pruned.through, before: anchored.pruned.before };
        self.context.journal.read(|state| state.books.anchored.as_ref().map(pruned))
    }

    async fn records(&self, filter: AuditFilter, cursor: Option<String>, limit: u32) -> Result<RecordPage, DeskError> {
        let cursor: Option<Cursor> = cursor
            .map(|text| text.parse())
            .transpose()
            .map_err(|_| DeskError::BadQuery("cursor: not one that an earlier page gave".to_owned()))?;
        let page = self.context.journal.query(filter, cursor, limit as usize).await.map_err(unavailable)?;
        let lines: Result<_, _> = page.items.iter().map(written).collect();
        Ok(RecordPage { records: lines?, next: page.next.map(|cursor| cursor.to_string()) })
    }

    async fn closed_after(&self, seq: u64, limit: u32) -> Result<Vec<ClosedLine>, Unavailable> {
        let found = self.context.journal.closed_after(seq, limit as usize).await.map_err(unavailable)?;
        found.iter().map(|found| Ok(ClosedLine { seq: found.record.seq, line: written(found)? })).collect()
    }

    fn follow(&self) -> watch::Receiver<u64> {
        self.context.journal.watch_closed()
    }

    async fn pause(&self, order: PauseOrder) -> Result<Pause, DeskError> {
        if let PauseScope::Playbook(name) = &order.scope
            && self.context.playbook(name).is_none()
        {
            return Err(DeskError::NoSuch(format!("there is no playbook {name}")));
        }
        if let PauseScope::Target(name) = &order.scope {
            let known = self.context.playbooks().iter().any(|playbook| name.starts_with(&format!("{}/", playbook.service)));
            if !known {
                return Err(DeskError::NoSuch(format!("no playbook has targets named {name:?}; write service/instance")));
            }
            self.replica_exists(name).await?;
        }
        let until = order.lasting.and_then(|lasting| self.context.world.clock.now().checked_add(lasting.signed()).ok());
        let pause = Pause { scope: order.scope, actor: order.actor, reason: order.reason, until };
        self.order(Event::Paused { pause: pause.clone() }).await?;
        // A reload may have taken the playbook away since it was looked for.
        pauses::widen(&self.context).await.map_err(unavailable)?;
        Ok(pause)
    }

    async fn resume(&self, scope: PauseScope, actor: String, reason: String) -> Result<(), DeskError> {
        let now = self.context.world.clock.now();
        let draft = Draft::global(now, Event::Resumed { scope: scope.clone(), actor, reason });
        let wanted = scope.clone();
        let (entries, ()) = self
            .context
            .journal
            .transact(move |state| {
                let known = state.books.pauses.iter().any(|pause| pause.scope == wanted);
                (if known { vec![draft] } else { Vec::new() }, ())
            })
            .await
            .map_err(unavailable)?;
        if entries.is_empty() {
            return Err(DeskError::NoSuch(format!("there is no pause of {scope}")));
        }
        self.episodes.look_at(None, None);
        Ok(())
    }

    async fn reset_breaker(&self, breaker: String, actor: String, reason: String) -> Result<(), DeskError> {
        let known = self.context.playbooks().iter().any(|p| breaker_name(&p.name, &p.service) == breaker);
        if !known {
            return Err(DeskError::NoSuch(format!("there is no breaker {breaker:?}; their names are playbook/service")));
        }
        self.order(Event::BreakerReset { breaker, actor, reason }).await
    }

    async fn abort(&self, id: RecordId, actor: String, reason: String) -> Result<Aborting, DeskError> {
        let now = self.context.world.clock.now();
        let order = Abort { actor: actor.clone(), reason: reason.clone() };
        let ordered = abort::order(&self.context.journal, now, id, order).await.map_err(unavailable)?;
        let at =
            |phase: Phase, step: Option<Step>| step.map_or_else(|| words::phase(phase).to_owned(), |step| step.word().to_owned());
        match ordered {
            Ordered::Now { phase, step } => {
                let detail = words::abort_ordered(&at(phase, step), step == Some(Step::Drain));
                Ok(Aborting { id, actor, reason, state: AbortState::Ordered, detail })
            }
            Ordered::Before(Abort { actor, reason }) => {
                let detail = "somebody ordered it before; that order stands".to_owned();
                Ok(Aborting { id, actor, reason, state: AbortState::AlreadyOrdered, detail })
            }
            Ordered::TooLate { phase, step } => Err(DeskError::TooLate(words::abort_too_late(&at(phase, step)))),
            Ordered::NotOpen => match self.context.journal.record(id).await.map_err(unavailable)? {
                None => Err(DeskError::NoSuch(format!("there is no record {id}"))),
                Some(record) => {
                    let watched = self.context.journal.read(|state| state.books.watches.contains_key(&record.accepted.key));
                    Err(DeskError::TooLate(words::abort_closed(&record, watched)))
                }
            },
        }
    }

    async fn guards(&self) -> Result<Board, Unavailable> {
        Ok(board(&self.context, &self.episodes))
    }

    async fn readiness(&self) -> Vec<Probe> {
        // Anybody may ask, so asking must not become a load on what it asks about.
        let mut known = self.probed.lock().await;
        if let Some((at, probes)) = known.as_ref()
            && at.elapsed() < PROBE_AGAIN
        {
            return probes.clone();
        }
        let probes = self.probe().await;
        *known = Some((Instant::now(), probes.clone()));
        probes
    }

    async fn gauges(&self) -> Gauges {
        let now = self.context.world.clock.now();
        let playbooks = self.context.playbooks();
        let room = self.context.journal.room().await.unwrap_or_default();
        self.context.journal.read(|state| Gauges {
            pauses: state.books.pauses.iter().filter(|pause| pause.until.is_none_or(|until| now < until)).count() as u64,
            breakers: playbooks
                .iter()
                .map(|playbook| {
                    let state = match view::breaker(&state.books, playbook, now).state {
                        Breaker::Closed => BreakerState::Closed,
                        Breaker::HalfOpen | Breaker::Probing(_) => BreakerState::HalfOpen,
                        Breaker::Open { .. } => BreakerState::Open,
                    };
                    (breaker_name(&playbook.name, &playbook.service), state)
                })
                .collect(),
            drained_servers: state.books.drained.len() as u64,
            watches: state.books.watches.len() as u64,
            open_records: state.open.len() as u64,
            store_writable: self.context.journal.trouble().is_none(),
            overdue_seconds: overdue(state.records(), now).as_secs_f64(),
            watchdog: self.context.watchdog.heard(),
            watchdog_within_seconds: self.context.watchdog.within().as_secs_f64(),
            last_decision: state.books.last_decision,
            head_seq: state.head.seq,
            head_hash: state.head.hash.clone(),
            anchor_seq: state.books.anchored.as_ref().map_or(0, |anchored| anchored.pruned.through),
            anchor_hash: state.books.anchored.as_ref().map_or_else(String::new, |anchored| anchored.pruned.anchor_hash.clone()),
            journal_bytes: room.file,
        })
    }
}
