//! Things of one look, found by what they are called, so that whoever asks about one replica need not go through those
//! of all others. In a storm of thousands everybody asks, and reading all for each of them would cost its square.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::world::{AlertingRule, ContainerSummary, RuleAlert, Sample, ScrapeTarget, Server};

/// What has names to be found by.
pub trait Named {
    /// The value of the label `label`, or of what stands for one.
    fn value(&self, label: &str) -> Option<Cow<'_, str>>;
}

/// Things in the order in which they came. An index of a label is made when it is first asked for.
pub struct Shelf<T> {
    all: Vec<T>,
    by_label: Mutex<HashMap<String, Places>>,
}

/// Where on the shelf each value is.
type Places = Arc<HashMap<String, Vec<usize>>>;

impl<T: Named> Shelf<T> {
    pub fn new(all: Vec<T>) -> Self {
        Shelf { all, by_label: Mutex::default() }
    }

    pub fn all(&self) -> &[T] {
        &self.all
    }

    /// Everything that has this value in this label, in the order in which it came.
    pub fn find(&self, label: &str, value: &str) -> Vec<&T> {
        let places = {
            let mut by_label = self.by_label.lock().unwrap_or_else(PoisonError::into_inner);
            match by_label.get(label) {
                Some(places) => Arc::clone(places),
                None => Arc::clone(by_label.entry(label.to_owned()).or_insert(self.places(label))),
            }
        };
        places.get(value).into_iter().flatten().filter_map(|place| self.all.get(*place)).collect()
    }

    fn places(&self, label: &str) -> Places {
        let mut places: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, thing) in self.all.iter().enumerate() {
            if let Some(value) = thing.value(label) {
                places.entry(value.into_owned()).or_default().push(place);
            }
        }
        Arc::new(places)
    }
}

impl Named for Sample {
    fn value(&self, label: &str) -> Option<Cow<'_, str>> {
        self.labels.get(label).map(Cow::Borrowed)
    }
}

impl Named for ScrapeTarget {
    fn value(&self, label: &str) -> Option<Cow<'_, str>> {
        self.labels.get(label).map(Cow::Borrowed)
    }
}

impl Named for ContainerSummary {
    fn value(&self, label: &str) -> Option<Cow<'_, str>> {
        self.labels.get(label).map(|value| Cow::Borrowed(value.as_str()))
    }
}

/// A server has one name, `backend/server`, under whatever label it is asked for.
impl Named for Server {
    fn value(&self, _label: &str) -> Option<Cow<'_, str>> {
        Some(Cow::Owned(self.path.to_string()))
    }
}

/// An alert, and the place of the rule that lists it.
struct Listed {
    rule: usize,
    alert: RuleAlert,
}

impl Named for Listed {
    fn value(&self, label: &str) -> Option<Cow<'_, str>> {
        self.alert.labels.get(label).map(Cow::Borrowed)
    }
}

/// Prometheus' alerting rules, with their alerts on a shelf.
pub struct Rules {
    /// Without their alerts.
    rules: Vec<AlertingRule>,
    alerts: Shelf<Listed>,
}

impl Rules {
    pub fn new(mut rules: Vec<AlertingRule>) -> Self {
        let of = |(rule, listing): (usize, &mut AlertingRule)| {
            std::mem::take(&mut listing.alerts).into_iter().map(move |alert| Listed { rule, alert })
        };
        let alerts = rules.iter_mut().enumerate().flat_map(of).collect();
        Rules { rules, alerts: Shelf::new(alerts) }
    }

    /// Every rule; what it lists is found by [`Rules::alerts`].
    pub fn iter(&self) -> impl Iterator<Item = &AlertingRule> {
        self.rules.iter()
    }

    /// Every pending or firing alert that has this value in this label, with its rule.
    pub fn alerts(&self, label: &str, value: &str) -> impl Iterator<Item = (&AlertingRule, &RuleAlert)> {
        let found = self.alerts.find(label, value);
        found.into_iter().filter_map(|listed| Some((self.rules.get(listed.rule)?, &listed.alert)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::LabelSet;
    use crate::world::RuleAlertState;

    fn sample(labels: &[(&str, &str)], value: f64) -> Sample {
        Sample { labels: labels.iter().copied().collect(), value }
    }

    proptest::proptest! {
        /// Found is what a search from end to end would find, in the same order.
        #[test]
        fn a_shelf_finds_what_a_search_finds(
            labels in proptest::collection::vec(proptest::collection::btree_map("[ab]", "[xy]?", 0..3), 0..12),
            label in "[abc]",
            value in "[xyz]?",
        ) {
            let all: Vec<Sample> = labels.into_iter().map(|labels| Sample { labels: labels.into_iter().collect(), value: 1.0 }).collect();
            let searched: Vec<Sample> = all.iter().filter(|sample| sample.labels.get(&label) == Some(&*value)).cloned().collect();
            let shelf = Shelf::new(all);
            for _ in 0..2 {
                let found: Vec<Sample> = shelf.find(&label, &value).into_iter().cloned().collect();
                proptest::prop_assert_eq!(&found, &searched);
            }
        }
    }

    #[test]
    fn an_alert_is_found_with_the_rule_that_lists_it() {
        let alert = |instance| RuleAlert {
            labels: sample(&[("instance", instance)], 0.0).labels,
            state: RuleAlertState::Firing,
            active_at: None,
        };
        let rule = |name: &str, alerts| AlertingRule {
            name: name.to_owned(),
            query: String::new(),
            labels: LabelSet::default(),
            for_seconds: 0.0,
            interval_seconds: 15.0,
            last_evaluation: None,
            health: "ok".to_owned(),
            alerts,
        };
        let rules = Rules::new(vec![
            rule("leaks", vec![alert("a"), alert("b")]),
            rule("sleeps", vec![]),
            rule("exhausted", vec![alert("b")]),
        ]);
        let of = |instance: &str| rules.alerts("instance", instance).map(|(rule, _)| rule.name.clone()).collect::<Vec<_>>();
        assert_eq!((of("a"), of("b"), of("c")), (vec!["leaks".into()], vec!["leaks".into(), "exhausted".into()], vec![]));
        assert_eq!(rules.iter().count(), 3);
    }
}
