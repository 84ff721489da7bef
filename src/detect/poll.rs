//! Looks without having been told, for signals that nobody wrote an alert for: a playbook with `every` has its query
//! asked for each opted-in replica, and what is true walks the same road as an alert, from Confirm.
//!
//! An episode that is under way or watched is left to its own timer. A replica that cannot be judged several times in
//! a row is walked as well, so that a blind poll ends in a page and not in silence.
//!
//! There is one loop for each playbook that polls, and never two: [`Polls::follow`] starts those that a reload brought,
//! and wakes the others to read again how often they are to look, and whether at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::alert::{Alert, AlertStatus, LabelSet};
use crate::decide::evidence::Reading;
use crate::decide::playbook::Playbook;
use crate::detect::by_hand;
use crate::detect::confirm::{Question, confirm};
use crate::episodes::Episodes;
use crate::event::{Accepted, Draft, Event, Trigger};
use crate::kept::kept;
use crate::period::Period;
use crate::pipeline::Context;
use crate::target::{Instance, LABEL_INSTANCE, PlaybookName, Target, of_service};

/// Answers in a row that say nothing before a replica counts as not judged.
const BLIND_AFTER: u32 = 3;

/// The loops that run. Cheap to clone.
#[derive(Clone)]
pub struct Polls {
    context: Context,
    episodes: Episodes,
    tracker: TaskTracker,
    running: Arc<Mutex<BTreeSet<PlaybookName>>>,
    /// Counts the reloads.
    reloads: Arc<watch::Sender<u64>>,
}

/// Starts one loop for each playbook that polls.
pub fn start(context: &Context, episodes: &Episodes, tracker: &TaskTracker) -> Polls {
    let polls = Polls {
        context: context.clone(),
        episodes: episodes.clone(),
        tracker: tracker.clone(),
        running: Arc::default(),
        reloads: Arc::new(watch::Sender::new(0)),
    };
    polls.follow();
    polls
}

impl Polls {
    /// The playbooks have changed: starts what is new, wakes what runs.
    pub fn follow(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for playbook in self.context.playbooks().iter().filter(|playbook| playbook.every.is_some()) {
            if running.insert(playbook.name.clone()) {
                let (polls, name) = (self.clone(), playbook.name.clone());
                let polling = move || keep_polling(polls.clone(), name.clone());
                self.tracker.spawn(kept("polling", Arc::clone(&self.context.world.clock), polling));
            }
        }
        self.reloads.send_modify(|reloads| *reloads += 1);
    }

    /// How often to look, as it is written today. Without an answer the loop is over, and counts as ended: under the
    /// lock, so that [`Polls::follow`] either finds it still running or starts another one.
    fn every(&self, name: &PlaybookName) -> Option<Duration> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let every = self.context.playbook(name).and_then(|playbook| playbook.every).map(Period::get);
        if every.is_none() {
            running.remove(name);
        }
        every
    }

    /// Waits until the playbook's next look is due, also when `every` is changed meanwhile. False: it polls no more.
    async fn due(&self, name: &PlaybookName) -> bool {
        let context = &self.context;
        let mut reloads = self.reloads.subscribe();
        let looked = context.world.clock.now();
        loop {
            // Seen before it is read: a reload in between wakes the wait below.
            reloads.borrow_and_update();
            let Some(every) = self.every(name) else { return false };
            // Counted from the last look, so that reloads cannot put it off.
            let waited = Duration::try_from(context.world.clock.now().duration_since(looked)).unwrap_or_default();
            tokio::select! {
                biased;
                () = context.world.clock.sleep(every.saturating_sub(waited)) => return true,
                _ = reloads.changed() => {}
                () = context.shutdown.cancelled() => return false,
            }
        }
    }
}

async fn keep_polling(polls: Polls, name: PlaybookName) {
    let (context, episodes) = (&polls.context, &polls.episodes);
    let mut blind: BTreeMap<Target, u32> = BTreeMap::new();
    // When Docker cannot be asked, the replicas known from the last time cannot be judged, and that is not silent.
    let mut known: Vec<Target> = Vec::new();
    while polls.due(&name).await {
        // As it is written today; one that was taken away this very moment is found out by `due`.
        let Some(playbook) = context.playbook(&name).filter(|playbook| playbook.every.is_some()) else { continue };
        // It may have become another service's meanwhile.
        known.retain(|target| target.service == playbook.service);
        let round = async {
            if let Some(listed) = listed(context, &playbook).await {
                known = listed;
            }
            for target in known.iter().filter(|target| !taken(context, target)) {
                look(context, episodes, &playbook, target, &mut blind).await;
            }
        };
        tokio::select! {
            biased;
            () = round => {}
            () = context.shutdown.cancelled() => return,
        }
    }
}

/// Every opted-in replica of the playbook's service, or nothing when Docker cannot be asked.
async fn listed(context: &Context, playbook: &Playbook) -> Option<Vec<Target>> {
    let containers = match context.world.engine.containers().await {
        Ok(containers) => containers,
        Err(why) => {
            tracing::warn!(playbook = %playbook.name, error = %why, "the replicas to poll cannot be listed");
            return None;
        }
    };
    let named = of_service(&containers, &playbook.service).into_iter().filter_map(|c| c.labels.get(LABEL_INSTANCE));
    let instances = named.filter_map(|name| Instance::try_from(name.clone()).ok());
    Some(instances.map(|instance| Target { service: playbook.service.clone(), instance }).collect())
}

/// Under way or watched: then it has a timer of its own.
fn taken(context: &Context, target: &Target) -> bool {
    let key = target.key();
    context.journal.read(|state| state.books.watches.contains_key(&key) || state.under_way(&key).is_some())
}

async fn look(context: &Context, episodes: &Episodes, playbook: &Playbook, target: &Target, blind: &mut BTreeMap<Target, u32>) {
    let now = context.world.clock.now();
    let accepted = Accepted {
        trigger: Trigger::Poll,
        host: context.host.clone(),
        ..by_hand(playbook, target, alert(playbook, target, now))
    };
    let siblings = context.playbooks();
    let question = Question { accepted: &accepted, target, playbook, siblings: siblings.as_slice() };
    let (evidence, _) = confirm(&context.world, &context.looks, question).await;
    let worth_a_walk = match evidence.reading {
        Reading::Firing { .. } => true,
        Reading::Quiet { .. } if evidence.replica.is_ok() => {
            blind.remove(target);
            false
        }
        Reading::Quiet { .. } | Reading::Unknown { .. } => {
            let count = blind.entry(target.clone()).or_default();
            *count += 1;
            *count >= BLIND_AFTER
        }
    };
    if !worth_a_walk {
        return;
    }
    blind.remove(target);
    let key = target.key();
    let draft = Draft::of(context.world.clock.new_record(), now, Event::Accepted { accepted: Arc::new(accepted) });
    let wanted = key.clone();
    let written = context.journal.transact(move |state| {
        // A delivery may have been quicker.
        let taken = state.books.watches.contains_key(&wanted) || state.under_way(&wanted).is_some();
        (if taken { Vec::new() } else { vec![draft] }, ())
    });
    match written.await {
        Ok(_) => episodes.look(&key),
        Err(error) => tracing::error!(%target, %error, "what a poll found could not be written down; it looks again"),
    }
}

/// The alert that nobody wrote, named after the playbook.
fn alert(playbook: &Playbook, target: &Target, now: Timestamp) -> Alert {
    Alert {
        status: AlertStatus::Firing,
        labels: LabelSet::from([
            ("alertname", playbook.name.as_str()),
            ("service", target.service.as_str()),
            (playbook.replica_label.as_str(), target.instance.as_str()),
        ]),
        annotations: LabelSet::default(),
        starts_at: Some(now),
        generator_url: String::new(),
    }
}
