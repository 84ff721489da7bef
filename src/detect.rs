//! Is it a real alert of ours? Takes deliveries in, one journal entry per accepted alert, durable before the answer.
//!
//! Promises: an alert that was answered with 2xx is on disk; a firing of an episode that is held or watched folds in; a
//! "resolved" is a hint and never more.
//!
//! Races it accepts: two deliveries at the same moment are ordered by the journal's single writer, so exactly one of
//! them opens the record and the other folds. Even a delivery that adds nothing goes through the writer: the batch
//! that is being written may end its episode, and a journal that is gone must not be answered for from memory.

pub mod caller;
pub mod confirm;
mod lags;
pub mod look;
pub mod payload;
pub mod poll;
pub mod rush;
mod shelf;
mod siblings;
pub mod watchdog;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use crate::alert::{Alert, AlertGroup, AlertStatus, LabelSet};
use crate::api::desk::{Receipt, ReceiptState, Unavailable};
use crate::audit::state::State;
use crate::decide::playbook::{Mode, Playbook};
use crate::event::{Accepted, Draft, Event, Member, RecordId, Trigger};
use crate::mutant::{Mutant, off};
use crate::pipeline::Context;
use crate::reason::Reason;
use crate::target::{EpisodeKey, Instance, PlaybookName, Target};

/// Episodes that may be open or watched at once: each is a task and a page. Above it a delivery is refused with 503 and Alertmanager sends it again.
pub const MAX_OPEN: usize = 10_000;

/// Episodes of alerts that no playbook wants: a few are worth a page, thousands are a wrong route and must not keep
/// ours out.
const MAX_UNCLAIMED: usize = 500;
/// Alerts that are listed as members of one record; later ones are answered and not listed.
const MAX_MEMBERS: usize = 100;

/// One alert of a delivery, matched to a playbook and a target.
struct Claim {
    key: EpisodeKey,
    playbook: Option<PlaybookName>,
    target: Option<Target>,
    mode: Mode,
    alert: Alert,
}

/// What taking in changed: the receipts, and the episodes that have to be looked at now.
pub struct TakenIn {
    pub receipts: Vec<Receipt>,
    pub touched: Vec<EpisodeKey>,
}

/// Writes a delivery down and says what became of each alert.
///
/// # Errors
/// The journal could not be written, or too many records are open.
pub async fn take_in(context: &Context, group: AlertGroup) -> Result<TakenIn, Unavailable> {
    if context.shutdown.is_cancelled() {
        return Err(Unavailable::new(Reason::ShuttingDown, "remediator is stopping"));
    }
    let now = context.world.clock.now();
    let playbooks = context.playbooks();
    let AlertGroup { receiver, group_key, truncated, alerts } = group;
    context.rush.delivered(alerts.len());
    // The dead-man's switch is heard before any playbook is asked, and goes no further.
    let heard: Vec<Option<Receipt>> = alerts.iter().map(|alert| context.watchdog.hear(alert, now)).collect();
    if heard.iter().all(Option::is_some) {
        return Ok(TakenIn { receipts: heard.into_iter().flatten().collect(), touched: Vec::new() });
    }
    // What waits for a disk is in memory, and Alertmanager delivers again.
    if let Some(why) = context.journal.trouble().filter(|_| context.journal.hangs()) {
        return Err(Unavailable::new(Reason::StoreUnavailable, why));
    }
    let others = alerts.into_iter().zip(&heard).filter(|(_, heard)| heard.is_none());
    let claims: Vec<Claim> = others.map(|(alert, _)| claim(&playbooks, alert)).collect();
    let origin = Origin { receiver, group_key, truncated, host: context.host.clone() };
    let clock = context.world.clock.clone();
    let written = context.journal.transact(move |state| match intake(state, &claims, &origin, now, &|| clock.new_record()) {
        Ok((drafts, taken)) => (drafts, Ok(taken)),
        Err(full) => (Vec::new(), Err(full)),
    });
    let TakenIn { receipts, touched } = match written.await {
        Ok((_, taken)) => taken?,
        Err(_) if off(Mutant::Acknowledgement) => TakenIn { receipts: vec![unwritten(context)], touched: Vec::new() },
        Err(error) => return Err(Unavailable::new(Reason::StoreUnavailable, error.to_string())),
    };
    let mut receipts = receipts.into_iter();
    let receipts = heard.into_iter().filter_map(|heard| heard.or_else(|| receipts.next())).collect();
    Ok(TakenIn { receipts, touched })
}

/// As [`take_in`], against a state in hand, with nothing written: for whoever explores what deliveries can lead to. Pure.
///
/// # Errors
/// Too many records are open.
pub fn receive(
    state: &State,
    playbooks: &[Playbook],
    group: AlertGroup,
    host: String,
    now: Timestamp,
    new_record: &dyn Fn() -> RecordId,
) -> Result<(Vec<Draft>, TakenIn), Unavailable> {
    let AlertGroup { receiver, group_key, truncated, alerts } = group;
    let claims: Vec<Claim> = alerts.into_iter().map(|alert| claim(playbooks, alert)).collect();
    intake(state, &claims, &Origin { receiver, group_key, truncated, host }, now, new_record)
}

/// The receipt that a mutant gives for what is not on disk.
fn unwritten(context: &Context) -> Receipt {
    Receipt {
        id: Some(context.world.clock.new_record()),
        alertname: String::new(),
        fingerprint: String::new(),
        status: AlertStatus::Firing,
        target: None,
        playbook: None,
        state: ReceiptState::Accepted,
        reason: None,
        detail: String::new(),
    }
}

/// Where a delivery came from.
struct Origin {
    receiver: String,
    group_key: String,
    truncated: u64,
    host: String,
}

/// A new record's id. Version 7: sorts by time. The rooms ask `world.clock` for one.
#[allow(clippy::disallowed_methods)] // the one place that makes ids
pub fn new_record() -> RecordId {
    RecordId(Uuid::now_v7())
}

/// Name and version of this program, for the audit.
pub fn healer() -> String {
    concat!("remediator/", env!("CARGO_PKG_VERSION")).to_owned()
}

/// The replica that an alert names, if it does so in the playbook's label.
pub fn target_of(playbook: &Playbook, labels: &crate::alert::LabelSet) -> Option<Target> {
    let instance = Instance::try_from(labels.get(&playbook.replica_label)?.to_owned()).ok()?;
    Some(Target { service: playbook.service.clone(), instance })
}

/// An alert that was not delivered: what `explain` is asked about, or what a poll found.
pub fn by_hand(playbook: &Playbook, target: &Target, alert: Alert) -> Accepted {
    let fingerprint = alert.labels.fingerprint().to_string();
    let claim = Claim {
        key: target.key(),
        playbook: Some(playbook.name.clone()),
        target: Some(target.clone()),
        mode: playbook.mode,
        alert,
    };
    let origin = Origin { receiver: String::new(), group_key: String::new(), truncated: 0, host: String::new() };
    accepted(&claim, &fingerprint, &origin)
}

/// The first playbook that claims the alert, and the target that its replica label names.
fn claim(playbooks: &[Playbook], alert: Alert) -> Claim {
    let playbook = playbooks.iter().find(|playbook| playbook.claims(&alert.labels));
    let target = playbook.and_then(|playbook| target_of(playbook, &alert.labels));
    Claim {
        key: match &target {
            Some(target) if !off(Mutant::Folding) => target.key(),
            _ => EpisodeKey::of_unclaimed(&named(&alert)),
        },
        playbook: playbook.map(|playbook| playbook.name.clone()),
        mode: playbook.map_or(Mode::Shadow, |playbook| playbook.mode),
        target,
        alert,
    }
}

/// The labels, and for the mutant that names episodes by it, when the alert began.
fn named(alert: &Alert) -> LabelSet {
    let began = alert.starts_at.filter(|_| off(Mutant::Folding)).map(|at| at.to_string());
    match &began {
        Some(began) => alert.labels.with([("startsAt", began.as_str())]),
        None => alert.labels.clone(),
    }
}

/// What the delivery adds to the journal. Runs in the writer, so `state` is the newest there is.
fn intake(
    state: &State,
    claims: &[Claim],
    origin: &Origin,
    now: Timestamp,
    new_record: &dyn Fn() -> RecordId,
) -> Result<(Vec<Draft>, TakenIn), Unavailable> {
    // What this delivery opens, and what it adds to the records that are open.
    let mut met: BTreeMap<EpisodeKey, (RecordId, Vec<String>)> = BTreeMap::new();
    let mut opened = 0;
    let mut unclaimed = None;
    let mut drafts = Vec::new();
    let mut taken = TakenIn { receipts: Vec::new(), touched: Vec::new() };
    for claim in claims {
        let fingerprint = claim.alert.labels.fingerprint().to_string();
        let watched = state.books.watches.get(&claim.key).map(|watch| watch.record);
        if let Some(record) = state.under_way(&claim.key).filter(|_| !met.contains_key(&claim.key)) {
            let members = record.members.iter().map(|member| &member.fingerprint);
            let known = std::iter::once(&record.accepted.fingerprint).chain(members).cloned().collect();
            met.insert(claim.key.clone(), (record.id, known));
        }
        let held = met.get_mut(&claim.key);
        if held.is_some() || watched.is_some() || claim.alert.status == AlertStatus::Firing {
            taken.touched.push(claim.key.clone());
        }
        let (id, state, detail) = match (claim.alert.status, held, watched) {
            (AlertStatus::Resolved, held, watched) => {
                let id = held.map(|(id, _)| *id).or(watched);
                (id, ReceiptState::Resolved, "a hint: Prometheus is asked before anything counts as over")
            }
            (AlertStatus::Firing, Some((id, known)), _) => {
                if !known.contains(&fingerprint) && known.len() < MAX_MEMBERS {
                    known.push(fingerprint.clone());
                    drafts.push(Draft::of(*id, now, Event::Folded { alert: member(&claim.alert, &fingerprint, origin) }));
                }
                (Some(*id), ReceiptState::Folded, "this episode is under way")
            }
            (AlertStatus::Firing, None, Some(id)) => {
                let accepted = accepted(claim, &fingerprint, origin);
                if state.books.watches.get(&claim.key).is_some_and(|watch| !watch.knows(&accepted)) {
                    drafts.push(Draft::global(now, Event::Joined { accepted: Arc::new(accepted), of: Some(id) }));
                }
                (Some(id), ReceiptState::Folded, "this episode is being watched and is asked about again now")
            }
            (AlertStatus::Firing, None, None)
                if claim.target.is_none() && *unclaimed.get_or_insert_with(|| unclaimed_in(state)) >= MAX_UNCLAIMED =>
            {
                (None, ReceiptState::Folded, "too many alerts that no playbook wants; this one is not written down")
            }
            (AlertStatus::Firing, None, None) => {
                if claim.target.is_none() {
                    unclaimed = unclaimed.map(|count| count + 1);
                }
                if state.open.len() + opened + state.books.watches.len() >= MAX_OPEN {
                    let detail = format!("{MAX_OPEN} episodes are open or watched; deliver again later");
                    return Err(Unavailable::new(Reason::StoreUnavailable, detail));
                }
                let id = new_record();
                drafts.push(Draft::of(id, now, Event::Accepted { accepted: Arc::new(accepted(claim, &fingerprint, origin)) }));
                met.insert(claim.key.clone(), (id, vec![fingerprint.clone()]));
                opened += 1;
                (Some(id), ReceiptState::Accepted, "written down; Prometheus is asked next")
            }
        };
        taken.receipts.push(Receipt {
            id,
            alertname: claim.alert.labels.alertname().to_owned(),
            fingerprint,
            status: claim.alert.status,
            target: claim.target.as_ref().map(ToString::to_string),
            reason: claim.playbook.is_none().then_some(Reason::NoPlaybook),
            playbook: claim.playbook.clone(),
            state,
            detail: detail.to_owned(),
        });
    }
    taken.touched.sort();
    taken.touched.dedup();
    Ok((drafts, taken))
}

/// Watched episodes that no playbook wants.
fn unclaimed_in(state: &State) -> usize {
    state.books.watches.values().filter(|watch| watch.accepted.target.is_none()).count()
}

fn member(alert: &Alert, fingerprint: &str, origin: &Origin) -> Member {
    Member { fingerprint: fingerprint.to_owned(), labels: alert.labels.clone(), group_key: origin.group_key.clone() }
}

fn accepted(claim: &Claim, fingerprint: &str, origin: &Origin) -> Accepted {
    Accepted {
        key: claim.key.clone(),
        alert: claim.alert.clone(),
        fingerprint: fingerprint.to_owned(),
        receiver: origin.receiver.clone(),
        group_key: origin.group_key.clone(),
        truncated: origin.truncated,
        trigger: Trigger::Webhook,
        playbook: claim.playbook.clone(),
        target: claim.target.clone(),
        mode: claim.mode,
        host: origin.host.clone(),
        healer: healer(),
    }
}
