//! Looks without having been told, for signals that nobody wrote an alert for: a playbook with `every` has its query
//! asked for each opted-in replica, and what is true walks the same road as an alert, from Confirm.
//!
//! An episode that is under way or watched is left to its own timer. A replica that cannot be judged several times in
//! a row is walked as well, so that a blind poll ends in a page and not in silence.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio_util::task::TaskTracker;

use crate::alert::{Alert, AlertStatus, LabelSet};
use crate::decide::evidence::Reading;
use crate::decide::playbook::Playbook;
use crate::detect::by_hand;
use crate::detect::confirm::{Question, confirm};
use crate::episodes::Episodes;
use crate::event::{Accepted, Draft, Event, Trigger};
use crate::period::Period;
use crate::pipeline::Context;
use crate::target::{Instance, LABEL_INSTANCE, PlaybookName, Target, of_service};

/// Answers in a row that say nothing before a replica counts as not judged.
const BLIND_AFTER: u32 = 3;

/// Starts one loop for each playbook that polls.
pub fn start(context: &Context, episodes: &Episodes, tracker: &TaskTracker) {
    for playbook in context.playbooks().iter() {
        if let Some(every) = playbook.every {
            tracker.spawn(keep_polling(context.clone(), episodes.clone(), playbook.name.clone(), every));
        }
    }
}

async fn keep_polling(context: Context, episodes: Episodes, name: PlaybookName, every: Period) {
    let mut blind: BTreeMap<Target, u32> = BTreeMap::new();
    // When Docker cannot be asked, the replicas known from the last time cannot be judged, and that is not silent.
    let mut known: Vec<Target> = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = context.world.clock.sleep(every.get()) => {}
            () = context.shutdown.cancelled() => return,
        }
        // As it is written today.
        let Some(playbook) = context.playbook(&name).filter(|playbook| playbook.every.is_some()) else { return };
        if let Some(listed) = listed(&context, &playbook).await {
            known = listed;
        }
        for target in known.iter().filter(|target| !taken(&context, target)) {
            look(&context, &episodes, &playbook, target, &mut blind).await;
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
    context
        .journal
        .read(|state| state.books.watches.contains_key(&key) || state.open.values().any(|record| record.accepted.key == key))
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
    let evidence = confirm(&context.world, question, now).await;
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
    let draft = Draft::of(context.world.clock.new_record(), now, Event::Accepted { accepted: Box::new(accepted) });
    let wanted = key.clone();
    let written = context.journal.transact(move |state| {
        // A delivery may have been quicker.
        let taken = state.books.watches.contains_key(&wanted) || state.open.values().any(|r| r.accepted.key == wanted);
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
