//! What must hold after every run, read from what is left on the disk and at the doors.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use jiff::Timestamp;
use remediator::audit::journal::Journal;
use remediator::audit::query::Told;
use remediator::event::{Event, Step};
use serde_json::Value;

use crate::life::World;

/// A page is due for what stays unsettled that long: pages gather 200 ms, and a machine may be busy.
const PAGE_DUE_MS: i64 = 2_500;

/// Adds what does not hold, and answers how many pages had to be there and were.
pub async fn judge(world: &World, acknowledged: &[String], violations: &mut Vec<String>) -> usize {
    let mut must = |holds: bool, what: String| {
        if !holds {
            violations.push(what);
        }
    };
    let shop = world.outside.shop();
    must(shop[0].restarts == 1, format!("{} restarts of the sick replica", shop[0].restarts));
    must(shop[1].restarts == 0, format!("{} restarts of the well one", shop[1].restarts));
    must(!shop.iter().any(|replica| replica.drained), "somebody is left drained".to_owned());

    let verified = Command::new(env!("CARGO_BIN_EXE_remediator"))
        .args(["audit", "verify", "--state-dir"])
        .arg(world.state())
        .output()
        .expect("it runs");
    must(verified.status.success(), format!("audit verify: {verified:?}"));

    let journal = match Journal::open(&world.state()) {
        Ok(journal) => journal,
        Err(error) => {
            must(false, format!("the journal cannot be opened: {error}"));
            return 0;
        }
    };
    let mut entries: Vec<Told> = Vec::new();
    loop {
        let from = entries.last().map_or(0, |told| told.entry.seq);
        match journal.entries_after(from, 500).await {
            Ok(more) if more.is_empty() => break,
            Ok(more) => entries.extend(more),
            Err(error) => {
                must(false, format!("the journal cannot be read: {error}"));
                return 0;
            }
        }
    }
    journal.close().await;
    let records = by_record(&entries);
    for (id, story) in &records {
        let count = |of: &dyn Fn(&Event) -> bool| story.iter().filter(|told| of(&told.entry.event)).count();
        let closed = count(&|event| matches!(event, Event::Closed { .. }));
        must(closed == 1, format!("record {id} has {closed} outcomes"));
        let intents = count(&|event| matches!(event, Event::Intent { .. }));
        let restarts = count(&|event| matches!(event, Event::StepStarted { step: Step::Restart }));
        must(intents <= 1 && restarts <= intents, format!("record {id}: {intents} intents, {restarts} restarts"));
    }
    for id in acknowledged {
        must(records.contains_key(id), format!("record {id} was acknowledged and is gone"));
    }
    lines(world, &records, &mut must);
    torn_line(world, &mut must);
    textfile(world, &mut must);
    store_page(world, &mut must);
    pages(world, &records, &entries, &mut must)
}

type Records<'a> = BTreeMap<String, Vec<&'a Told>>;

fn by_record(entries: &[Told]) -> Records<'_> {
    let mut records = Records::new();
    for told in entries {
        if let Some(id) = told.entry.record {
            records.entry(id.to_string()).or_default().push(told);
        }
    }
    records
}

/// audit.jsonl has each closed record exactly once, in the order of closing.
fn lines(world: &World, records: &Records<'_>, must: &mut impl FnMut(bool, String)) {
    let text = std::fs::read_to_string(world.state().join("audit.jsonl")).unwrap_or_default();
    must(text.ends_with('\n'), "audit.jsonl ends in the middle of a line".to_owned());
    let mut written = Vec::new();
    for line in text.lines() {
        match serde_json::from_str::<Value>(line) {
            Ok(line) => written.push((line["seq"].as_u64(), line["id"].as_str().unwrap_or_default().to_owned())),
            Err(error) => must(false, format!("audit.jsonl: {error}: {line:.200}")),
        }
    }
    must(written.is_sorted(), format!("audit.jsonl is out of order: {written:?}"));
    let ids: Vec<&String> = written.iter().map(|(_, id)| id).collect();
    let unique: BTreeSet<&String> = ids.iter().copied().collect();
    must(unique.len() == ids.len(), format!("audit.jsonl has a record twice: {written:?}"));
    let closed: BTreeSet<&String> = records.keys().collect();
    must(unique == closed, format!("audit.jsonl has {unique:?}, closed are {closed:?}"));
}

/// A line that a death tore was cut off, and that was said.
fn torn_line(world: &World, must: &mut impl FnMut(bool, String)) {
    let said = !world.torn_line || world.log().contains("audit.jsonl ended in the middle of a line");
    must(said, "a line of audit.jsonl was torn, and nobody said so".to_owned());
}

/// Whoever reads the textfile finds a whole one: after each death, and in the end.
fn textfile(world: &World, must: &mut impl FnMut(bool, String)) {
    let torn = crate::life::torn_textfile(world.folder.path());
    world.torn.iter().chain(&torn).for_each(|what| must(false, what.clone()));
    must(world.folder.path().join("text/remediator.prom").exists(), "no textfile".to_owned());
}

/// A journal that a living program could not write was told of: the trouble lasts until the next commit.
fn store_page(world: &World, must: &mut impl FnMut(bool, String)) {
    let lived = world.lives.iter().any(|life| life.listened && life.breaker.lasted());
    let log = world.log();
    if lived && log.contains("commit failed") || log.contains("the journal's writer does not answer") {
        let told = world.outside.pages().iter().any(|page| page["labels"]["reason"] == "store_unavailable");
        must(told, "the journal could not be written for a while, and nobody was paged".to_owned());
    }
}

/// When the last of what had waited for the journal was written, as the log says it.
fn written_late(world: &World, id: &str) -> Option<Timestamp> {
    let ends = format!("what waited is in the journal record={id}");
    let log = world.log();
    log.lines().filter(|line| line.ends_with(&ends)).filter_map(|line| line.split(' ').next()?.parse().ok()).next_back()
}

/// What stayed unsettled for a while was paged for, with its record.
fn pages(world: &World, records: &Records<'_>, entries: &[Told], must: &mut impl FnMut(bool, String)) -> usize {
    let pages = world.outside.pages();
    let last = entries.last().map(|told| told.entry.at);
    let mut due = 0;
    for (id, story) in records {
        let closed = story.iter().find_map(|told| match &told.entry.event {
            Event::Closed { outcome, .. } if !outcome.is_settled() => Some(told.entry.clone()),
            _ => None,
        });
        let Some(closed) = closed else { continue };
        let next = entries.iter().filter(|told| told.entry.seq > closed.seq);
        let next = next.filter(|told| matches!(told.entry.event, Event::Accepted { .. } | Event::WatchEnded { .. }));
        let until = next.map(|told| told.entry.at).next().or(last).unwrap_or(closed.at);
        // An entry that waited for the journal says when it happened, not when it was on the disk; until then the record was open.
        let since = written_late(world, id).max(world.mended).map_or(closed.at, |late| late.max(closed.at));
        if until.duration_since(since).as_millis() < i128::from(PAGE_DUE_MS) {
            continue;
        }
        due += 1;
        let paged =
            pages.iter().any(|page| page["annotations"]["record"].as_str().is_some_and(|link| link.ends_with(id.as_str())));
        must(paged, format!("record {id} stayed unsettled and nobody was paged"));
    }
    due
}
