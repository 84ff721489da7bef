//! The simulated Alertmanager as remediator uses it: it takes pages, lets them end by themselves, and knows silences.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use crate::alert::{LabelSet, Matcher};
use crate::reason::Reason;
use crate::sim::{Point, Ports, State};
use crate::world::{Answer, PageAlert, Pager, Silence, Unanswered};

/// How long an alert lives that nobody sends again: Alertmanager's default.
const RESOLVE_TIMEOUT: SignedDuration = SignedDuration::from_mins(5);

#[derive(Clone, Debug, Default)]
pub struct PagerState {
    pub down: bool,
    pub silences: Vec<(Vec<Matcher>, Silence)>,
    /// Everything that was sent, oldest first, with the time of its arrival.
    pub sent: Vec<(Timestamp, PageAlert)>,
}

impl State {
    /// Pages that are up now: the newest word on each, unless that has ended.
    pub fn pages(&self) -> Vec<PageAlert> {
        let mut up: Vec<PageAlert> = self.up().into_iter().cloned().collect();
        up.reverse();
        up
    }

    /// As [`State::pages`], the newest first.
    pub fn up(&self) -> Vec<&PageAlert> {
        let mut seen = BTreeSet::new();
        let lately = self.pager.sent.iter().rev().take_while(|(at, _)| self.now.duration_since(*at) < RESOLVE_TIMEOUT);
        let newest = lately.filter(|(_, page)| seen.insert(&page.labels));
        newest.filter(|(_, page)| page.ends_at.is_none_or(|ends_at| ends_at > self.now)).map(|(_, page)| page).collect()
    }

    /// Every page that was ever raised, once, with its newest word.
    pub fn distinct_pages(&self) -> Vec<PageAlert> {
        let (mut newest, mut places): (Vec<&PageAlert>, BTreeMap<&LabelSet, usize>) = Default::default();
        for (_, page) in &self.pager.sent {
            match places.get(&page.labels) {
                Some(place) => newest[*place] = page,
                None => {
                    places.insert(&page.labels, newest.len());
                    newest.push(page);
                }
            }
        }
        newest.into_iter().cloned().collect()
    }
}

#[async_trait]
impl Pager for Ports {
    async fn raise(&self, alerts: &[PageAlert]) -> Answer<()> {
        self.enter(Point::Raise).await;
        let answer = self.sim.with(|state| {
            state.pager.check()?;
            let now = state.now;
            state.pager.sent.extend(alerts.iter().map(|alert| (now, alert.clone())));
            Ok(())
        });
        self.leave(Point::Raise).await;
        answer
    }

    async fn silences(&self, labels: &LabelSet) -> Answer<Vec<Silence>> {
        self.enter(Point::Silences).await;
        let answer = self.sim.with(|state| {
            state.pager.check()?;
            let holds = |matchers: &[Matcher]| matchers.iter().all(|matcher| matcher.matches(labels));
            let active = |silence: &Silence| silence.ends_at.is_none_or(|ends_at| state.now < ends_at);
            let silences = state.pager.silences.iter().filter(|(matchers, silence)| holds(matchers) && active(silence));
            Ok(silences.map(|(_, silence)| silence.clone()).collect())
        });
        self.leave(Point::Silences).await;
        answer
    }
}

impl PagerState {
    fn check(&self) -> Answer<()> {
        if self.down {
            return Err(Unanswered::new(Reason::AlertmanagerUnavailable, "the simulated Alertmanager is down"));
        }
        Ok(())
    }
}
