//! A journal of any length: a valid chain, made under `target/bench`.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use remediator::audit::bulk::Bulk;
use remediator::event::{Accepted, Draft, Event, RecordId};
use remediator::reason::{Outcome, Reason};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Builder;

use crate::program::folder;

/// Replicas that the records are about, in turn.
pub const TARGETS: u64 = 5_000;
/// Groups that the alerts came in.
pub const GROUPS: u64 = 10;
const CHUNK: u64 = 10_000;

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    Ok(serde_json::from_value(value)?)
}

/// The folder of a new journal with so many records, half a second apart, the last of them a while ago.
///
/// # Errors
/// The disk is full, most likely.
pub fn journal(records: u64) -> Result<TempDir> {
    let dir = folder()?;
    let state = dir.path().join("state");
    std::fs::create_dir(&state)?;
    make(&state, records)?;
    Ok(dir)
}

pub fn began() -> Timestamp {
    Timestamp::from_second(1_767_225_600).unwrap_or_default()
}

fn make(dir: &Path, records: u64) -> Result<()> {
    let mut bulk = Bulk::begin(dir)?;
    let accepted = (0..TARGETS).map(accepted).collect::<Result<Vec<_>>>()?;
    let mut last = began();
    for first in (0..records).step_by(usize::try_from(CHUNK)?) {
        let mut drafts = Vec::new();
        for number in first..(first + CHUNK).min(records) {
            let at = began() + SignedDuration::from_millis(i64::try_from(number * 500)?);
            let id = id(at, number);
            let of = accepted.get(usize::try_from(number % TARGETS)?).context("a target")?.clone();
            drafts.push(Draft::of(id, at, Event::Accepted { accepted: Arc::new(of) }));
            let (outcome, reason) = match number % 1_000 {
                0 => (Outcome::Refused, Reason::Cooldown),
                1..100 => (Outcome::UnknownCondition, Reason::InputMissing),
                _ => (Outcome::ConditionCleared, Reason::ConditionQuiet),
            };
            drafts.push(Draft::of(id, at, Event::Closed { outcome, reason, detail: "made for a measurement".to_owned() }));
            last = at;
        }
        bulk.append(drafts)?;
    }
    // Nothing is watched any more, so that a start has nothing to take up.
    let over = accepted.into_iter().map(|of| Draft::global(last, Event::WatchEnded { key: of.key, detail: "quiet".to_owned() }));
    bulk.append(over.collect())?;
    bulk.finish()?;
    Ok(())
}

fn id(at: Timestamp, number: u64) -> RecordId {
    let millis = u64::try_from(at.as_millisecond()).unwrap_or(0);
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    RecordId(Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
}

pub fn instance(target: u64) -> String {
    format!("inventory-{target}:8080")
}

fn accepted(target: u64) -> Result<Accepted> {
    let named: remediator::target::Target = typed(json!({ "service": "inventory", "instance": instance(target) }))?;
    let labels = json!({ "alertname": "FdLeakSustained", "instance": named.instance, "job": "shop", "team": "shop" });
    typed(json!({
        "key": named.key(), "target": named, "fingerprint": format!("{target:016x}"), "receiver": "remediator",
        "alert": { "status": "firing", "labels": labels }, "group_key": format!("{{}}:{{zone=\"{}\"}}", target % GROUPS),
        "truncated": 0, "trigger": { "kind": "webhook" }, "playbook": if target.is_multiple_of(4) { "other" } else { "inventory" },
        "mode": "live", "host": "h", "healer": "remediator 0.1.0",
    }))
}
