//! Act or page, never silently: what is left unsettled is an alert at Alertmanager, so that the team's own routes,
//! silences and pagers apply.
//!
//! The pages are a view of the books' watches: one per episode, with the outcome and reason of its newest record. They
//! are sent at once when they change, and again every `page_every`, because an alert without news ends by itself, by
//! Alertmanager's clock. A page whose watch is gone is ended. Nothing blocks a page: not a pause, not the journal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::alert::LabelSet;
use crate::audit::query::Filter;
use crate::edge::redact::plain_line;
use crate::event::Record;
use crate::guard::ledger::Watch;
use crate::metrics::Telemetry;
use crate::mutant::{Mutant, off};
use crate::pipeline::Context;
use crate::reason::Reason;
use crate::words;
use crate::world::PageAlert;

/// The alert's name; `alertmanager.yml` routes it and inhibits `FdLeakUnattended` with it.
pub const ALERTNAME: &str = "RemediationEscalated";
/// Earlier records told in a page.
const HISTORY: usize = 10;
/// Longest label value, in bytes: names that an alert brought reach pagers and chats, which cut or break at less.
const MAX_VALUE: usize = 256;
/// Hexadecimal digits of an episode's key in a page: enough to tell any two apart.
const SHORT_KEY: usize = 12;
/// Longest sentence, in bytes.
const MAX_SENTENCE: usize = 2_000;
/// Changes that come together are sent together.
const GATHER: Duration = Duration::from_millis(200);
/// How soon a page that no Alertmanager took is sent again.
const RETRY: Duration = Duration::from_secs(5);

/// Pages that are up, by their labels.
type Up = BTreeMap<LabelSet, PageAlert>;

/// Keeps Alertmanager's picture of what is unsettled the same as the journal's, until `end` and one last time then.
pub async fn keep_paging(context: Context, external_url: String, telemetry: Arc<Telemetry>, end: CancellationToken) {
    let mut journal = context.journal.watch();
    let mut up = Up::new();
    loop {
        let taken = send(&context, &external_url, &mut up).await;
        if !up.is_empty() {
            telemetry.page(taken);
        }
        let wait = if taken { context.timing.page_every.get() } else { RETRY.min(context.timing.page_every.get()) };
        // In this order, so that the same run is the same twice.
        tokio::select! {
            biased;
            () = context.world.clock.sleep(wait) => {}
            changed = journal.changed() => {
                if changed.is_err() {
                    return;
                }
                context.world.clock.sleep(GATHER).await;
            }
            () = end.cancelled() => {
                // What the stop broke off is news.
                send(&context, &external_url, &mut up).await;
                return;
            }
        }
    }
}

/// One round, for a process that cannot start.
pub async fn send_once(context: &Context, external_url: &str) {
    send(context, external_url, &mut Up::new()).await;
}

/// Sends every page that is up and ends those that no longer are. False when no Alertmanager took them.
async fn send(context: &Context, external_url: &str, up: &mut Up) -> bool {
    if off(Mutant::Pages) {
        return true;
    }
    let now = context.world.clock.now();
    let mut wanted = Up::new();
    let (watches, head) = context.journal.read(|state| {
        let unsettled = state.books.watches.values().filter(|watch| !watch.outcome.is_settled());
        (unsettled.cloned().collect::<Vec<_>>(), state.head.hash.clone())
    });
    for watch in watches {
        let page = match still(up, external_url, &watch) {
            Some(page) => renewed(page, &head),
            None => page(context, external_url, &watch, &head).await,
        };
        wanted.insert(page.labels.clone(), page);
    }
    if let Some(why) = context.journal.trouble().filter(|_| !off(Mutant::StorePage)) {
        let page = store_trouble(&context.host, &why, now);
        wanted.insert(page.labels.clone(), page);
    }
    let over = up.iter().filter(|(labels, _)| !wanted.contains_key(*labels));
    let over = over.map(|(_, page)| PageAlert { ends_at: Some(now), ..page.clone() });
    let alerts: Vec<PageAlert> = wanted.values().cloned().chain(over).collect();
    if alerts.is_empty() {
        return true;
    }
    match context.world.pager.raise(&alerts).await {
        Ok(()) => {
            *up = wanted;
            true
        }
        Err(why) => {
            tracing::error!(pages = alerts.len(), error = %why, "no Alertmanager took the pages; they are sent again");
            // What was up and is not wanted any more still has to be ended once somebody answers.
            up.extend(wanted);
            false
        }
    }
}

/// The page that is up for this very record. Reading the record and its history again would cost the same for each page
/// at each change of the journal, and say the same.
fn still<'a>(up: &'a Up, external_url: &str, watch: &Watch) -> Option<&'a PageAlert> {
    let page = up.get(&labels(watch))?;
    let same = page.annotations.get("record") == Some(link(external_url, watch).as_str()) && page.starts_at == watch.since;
    same.then_some(page)
}

fn renewed(page: &PageAlert, head: &str) -> PageAlert {
    let mut page = page.clone();
    page.annotations.0.insert("journal_head".to_owned(), head.to_owned());
    page
}

fn link(external_url: &str, watch: &Watch) -> String {
    format!("{}/audit/{}", external_url.trim_end_matches('/'), watch.record)
}

async fn page(context: &Context, external_url: &str, watch: &Watch, head: &str) -> PageAlert {
    let record = context.journal.record(watch.record).await.ok().flatten();
    let filter = Filter { key: Some(watch.key.clone()), ..Filter::default() };
    let history = context.journal.query(filter, None, HISTORY).await.map(|page| page.items).unwrap_or_default();
    let history: Vec<Record> = history.into_iter().map(|found| found.record).collect();
    PageAlert {
        labels: labels(watch),
        annotations: annotations(external_url, watch, record.as_ref(), &history, head),
        starts_at: watch.since,
        ends_at: None,
    }
}

/// An alert is its labels, to Alertmanager and to us. What is shown of names is cut and redacted, so that two targets may
/// look alike there: the episode's key keeps their pages apart.
fn labels(watch: &Watch) -> LabelSet {
    let key = watch.key.as_str();
    let mut labels = LabelSet::from([
        ("alertname", ALERTNAME),
        ("severity", "page"),
        ("outcome", watch.outcome.word()),
        ("reason", watch.reason.code()),
        ("episode", key.get(..SHORT_KEY).unwrap_or(key)),
    ]);
    let alert = &watch.accepted.alert.labels;
    let target = watch.accepted.target.as_ref();
    let service = target.map(|t| t.service.to_string()).or_else(|| alert.get("service").map(str::to_owned));
    let instance = target.map(|t| t.instance.to_string()).or_else(|| alert.get("instance").map(str::to_owned));
    let playbook = watch.accepted.playbook.as_ref().map(ToString::to_string);
    for (name, value) in [("service", service), ("instance", instance), ("playbook", playbook)] {
        if let Some(value) = value {
            labels.0.insert(name.to_owned(), plain_line(&value, MAX_VALUE));
        }
    }
    // Without a target the alert's own name says best what it is about.
    if target.is_none() {
        labels.0.insert("alert".to_owned(), plain_line(alert.alertname(), MAX_VALUE));
    }
    labels
}

fn annotations(external_url: &str, watch: &Watch, record: Option<&Record>, history: &[Record], head: &str) -> LabelSet {
    LabelSet::from([
        ("summary", plain_line(&words::page_summary(watch), MAX_SENTENCE).as_str()),
        ("description", plain_line(&watch.detail, MAX_SENTENCE).as_str()),
        ("record", link(external_url, watch).as_str()),
        ("history", words::history(history).as_str()),
        ("commands", words::manual_commands(watch, record).as_str()),
        ("runbook_url", words::runbook_url(watch.reason).as_str()),
        ("journal_head", head),
    ])
}

/// The journal itself is in trouble: nothing new is done, and somebody has to know.
fn store_trouble(host: &str, why: &str, now: Timestamp) -> PageAlert {
    PageAlert {
        labels: LabelSet::from([
            ("alertname", ALERTNAME),
            ("severity", "page"),
            ("outcome", "refused"),
            ("reason", Reason::StoreUnavailable.code()),
            ("host", host),
        ]),
        annotations: LabelSet::from([
            ("summary", "remediator cannot write its journal, so it does nothing"),
            ("description", plain_line(why, MAX_SENTENCE).as_str()),
            ("runbook_url", words::runbook_url(Reason::StoreUnavailable).as_str()),
        ]),
        starts_at: now,
        ends_at: None,
    }
}
