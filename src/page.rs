//! Act or page, never silently: what is left unsettled is an alert at Alertmanager, so that the team's own routes,
//! silences and pagers apply.
//!
//! The pages are a view of the books' watches: one per episode, with the outcome and reason of its newest record. What is
//! new is sent at once, and what ended; all that stand are sent again every `page_every`, because an alert without news ends
//! by itself, by Alertmanager's clock. Nothing blocks a page, not a pause and not the journal; a rush of alerts delays it by a
//! second at most.
//!
//! A page is made once, when its record becomes the newest of its episode: thousands may stand, and reading each record and
//! its history again at each change of the journal would cost the square of a storm.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::alert::LabelSet;
use crate::audit::query::Filter;
use crate::edge::redact::plain_line;
use crate::event::{Record, RecordId};
use crate::guard::ledger::Watch;
use crate::metrics::Telemetry;
use crate::mutant::{Mutant, off};
use crate::pipeline::Context;
use crate::reason::{Outcome, Reason};
use crate::target::EpisodeKey;
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

/// Most alerts in one request: one page is a few kilobytes, and thousands may stand.
const TOGETHER: usize = 500;

/// What Alertmanager should know, and what of it is still to be told. Thousands may stand: pages are shared.
#[derive(Default)]
struct Pages {
    /// For each episode, what its page is about and what it is known by.
    about: BTreeMap<EpisodeKey, (About, LabelSet)>,
    /// All that stand, by their labels.
    up: BTreeMap<LabelSet, Arc<PageAlert>>,
    /// New, or over, since anybody was told.
    news: BTreeMap<LabelSet, Arc<PageAlert>>,
}

/// A page says the same as long as this is the same.
#[derive(Clone, Copy, PartialEq, Eq)]
struct About {
    record: RecordId,
    since: Timestamp,
    outcome: Outcome,
    reason: Reason,
}

/// Keeps Alertmanager's picture of what is unsettled the same as the journal's, until `end` and one last time then.
pub async fn keep_paging(context: Context, external_url: String, telemetry: Arc<Telemetry>, end: CancellationToken) {
    let (clock, every) = (context.world.clock.clone(), context.timing.page_every.get());
    let mut journal = context.journal.watch();
    let mut pages = Pages::default();
    let mut renewal = clock.sleep(every);
    let mut renew = true;
    loop {
        let sent = send(&context, &external_url, &mut pages, renew).await;
        if let Some(taken) = sent {
            telemetry.page(taken);
        }
        let taken = sent.unwrap_or(true);
        if renew {
            renewal = clock.sleep(every);
        }
        // What was refused may have taken what stands with it: then all is told again.
        renew = !taken;
        let wait = async {
            match taken {
                true => renewal.as_mut().await,
                false => clock.sleep(RETRY.min(every)).await,
            }
        };
        // In this order, so that the same run is the same twice.
        tokio::select! {
            biased;
            () = wait => renew = true,
            changed = journal.changed() => {
                if changed.is_err() {
                    return;
                }
                clock.sleep(GATHER).await;
                context.rush.passed().await;
            }
            () = end.cancelled() => {
                // What the stop broke off is news.
                send(&context, &external_url, &mut pages, true).await;
                return;
            }
        }
    }
}

/// One round, for a process that cannot start.
pub async fn send_once(context: &Context, external_url: &str) {
    send(context, external_url, &mut Pages::default(), true).await;
}

/// Sends what is new and what is over; with `renew` all that stand as well. None: there was nothing to say. False: of
/// something no Alertmanager took it, and it is still to be told.
async fn send(context: &Context, external_url: &str, pages: &mut Pages, renew: bool) -> Option<bool> {
    if off(Mutant::Pages) {
        return None;
    }
    let now = context.world.clock.now();
    let head = pages.look(context, external_url, now).await;
    let news: Vec<Arc<PageAlert>> = pages.news.values().cloned().collect();
    let standing = pages.up.iter().filter(|(labels, _)| renew && !pages.news.contains_key(*labels));
    let standing: Vec<Arc<PageAlert>> = standing.map(|(_, page)| Arc::clone(page)).collect();
    let news = news.chunks(TOGETHER).map(|some| some.iter().map(|page| (**page).clone()).collect());
    let standing = standing.chunks(TOGETHER).map(|some| some.iter().map(|page| renewed(page, &head)).collect());
    let mut sent = None;
    // What is new first; and one that is refused keeps none of the others back.
    for some in news.chain(standing) {
        let some: Vec<PageAlert> = some;
        match context.world.pager.raise(&some).await {
            Ok(()) => {
                some.iter().for_each(|page| drop(pages.news.remove(&page.labels)));
                sent.get_or_insert(true);
            }
            Err(why) => {
                tracing::error!(pages = some.len(), error = %why, "no Alertmanager took the pages; they are sent again");
                sent = Some(false);
            }
        }
    }
    sent
}

impl Pages {
    /// Holds what stands against the books, and answers with the journal's head.
    async fn look(&mut self, context: &Context, external_url: &str, now: Timestamp) -> String {
        let about = &self.about;
        let (changed, over, head) = context.journal.read(|state| {
            let unsettled = |watch: &&Arc<Watch>| !watch.outcome.is_settled();
            let told = |watch: &Watch| about.get(&watch.key).is_some_and(|(told, _)| *told == About::of(watch));
            let watches = &state.books.watches;
            let changed: Vec<Arc<Watch>> = watches.values().filter(unsettled).filter(|watch| !told(watch)).cloned().collect();
            let stands = |key: &EpisodeKey| watches.get(key).as_ref().is_some_and(unsettled);
            let over: Vec<EpisodeKey> = about.keys().filter(|key| !stands(key)).cloned().collect();
            (changed, over, state.head.hash.clone())
        });
        for key in over {
            if let Some((_, labels)) = self.about.remove(&key) {
                self.end(&labels, now);
            }
        }
        for watch in changed {
            let page = page(context, external_url, &watch, &head).await;
            let labels = self.raise(page);
            match self.about.insert(watch.key.clone(), (About::of(&watch), labels.clone())) {
                Some((_, before)) if before != labels => self.end(&before, now),
                _ => {}
            }
        }
        let troubled = context.journal.trouble().filter(|_| !off(Mutant::StorePage));
        let page = store_trouble(&context.host, troubled.as_deref().unwrap_or_default(), now);
        match (troubled, self.up.get(&page.labels)) {
            (Some(_), None) => drop(self.raise(page)),
            (Some(_), Some(up)) if up.annotations != page.annotations => {
                let starts_at = up.starts_at;
                self.raise(PageAlert { starts_at, ..page });
            }
            (None, Some(_)) => self.end(&page.labels, now),
            _ => {}
        }
        head
    }

    /// Answers what it is known by.
    fn raise(&mut self, page: PageAlert) -> LabelSet {
        let (labels, page) = (page.labels.clone(), Arc::new(page));
        self.news.insert(labels.clone(), Arc::clone(&page));
        self.up.insert(labels.clone(), page);
        labels
    }

    fn end(&mut self, labels: &LabelSet, now: Timestamp) {
        if let Some((labels, page)) = self.up.remove_entry(labels) {
            let page = Arc::unwrap_or_clone(page);
            self.news.insert(labels, Arc::new(PageAlert { ends_at: Some(now), ..page }));
        }
    }
}

impl About {
    fn of(watch: &Watch) -> About {
        About { record: watch.record, since: watch.since, outcome: watch.outcome, reason: watch.reason }
    }
}

fn renewed(page: &PageAlert, head: &str) -> PageAlert {
    let mut page = page.clone();
    page.annotations = page.annotations.with([("journal_head", head)]);
    page
}

fn link(external_url: &str, watch: &Watch) -> String {
    format!("{}/audit/{}", external_url.trim_end_matches('/'), watch.record)
}

async fn page(context: &Context, external_url: &str, watch: &Watch, head: &str) -> PageAlert {
    let filter = Filter { key: Some(watch.key.clone()), ..Filter::default() };
    let history = context.journal.query(filter, None, HISTORY).await.map(|page| page.items).unwrap_or_default();
    let history: Vec<Record> = history.into_iter().map(|found| found.record).collect();
    let record = match history.iter().find(|record| record.id == watch.record) {
        Some(record) => Some(record.clone()),
        None => context.journal.record(watch.record).await.ok().flatten(),
    };
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
    let known = LabelSet::from([
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
    // Without a target the alert's own name says best what it is about.
    let alertname = target.is_none().then(|| alert.alertname().to_owned());
    let names = [("service", service), ("instance", instance), ("playbook", playbook), ("alert", alertname)];
    let shown = names.map(|(name, value)| (name, value.map(|value| plain_line(&value, MAX_VALUE))));
    known.with(shown.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))))
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
