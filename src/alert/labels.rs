//! Label sets. Thousands are held at a time, and each goes from room to room: one is a single block of memory, which its
//! copies share. Short names and values, nearly all of them, stand in the block itself.

use std::fmt;
use std::sync::Arc;

use compact_str::CompactString;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// Labels by name, sorted, as Prometheus and Alertmanager compare them.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSet(Arc<[(CompactString, CompactString)]>);

/// Something that has labels to be matched.
pub trait Labelled {
    fn label(&self, name: &str) -> Option<&str>;
}

/// Labels laid over others: as if `over` had been written into a copy of `under`, without the copy.
#[derive(Clone, Copy)]
pub struct Overlaid<'a> {
    pub over: &'a LabelSet,
    pub under: &'a LabelSet,
}

impl LabelSet {
    pub fn get(&self, name: &str) -> Option<&str> {
        let place = self.0.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok()?;
        self.0.get(place).map(|(_, value)| value.as_str())
    }

    /// Names and values in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same with these labels besides, which take the place of those that have their names.
    #[must_use]
    pub fn with<'a>(&'a self, more: impl IntoIterator<Item = (&'a str, &'a str)>) -> LabelSet {
        self.iter().chain(more).collect()
    }

    /// The alert's name, or the empty string: Alertmanager does not insist on one.
    pub fn alertname(&self) -> &str {
        self.get("alertname").unwrap_or_default()
    }
}

/// Of several with the same name the last one counts.
impl<N: Into<CompactString>, V: Into<CompactString>> FromIterator<(N, V)> for LabelSet {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut pairs: Vec<(CompactString, CompactString)> =
            pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        // Stable, so that the last of a name stays the last.
        pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
        pairs.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        LabelSet(pairs.into())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for LabelSet {
    fn from(pairs: [(&str, &str); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl fmt::Debug for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for LabelSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for LabelSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Labels;
        impl<'de> Visitor<'de> for Labels {
            type Value = LabelSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LabelSet, A::Error> {
                let mut pairs: Vec<(CompactString, CompactString)> = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs.into_iter().collect())
            }
        }
        deserializer.deserialize_map(Labels)
    }
}

impl Labelled for LabelSet {
    fn label(&self, name: &str) -> Option<&str> {
        self.get(name)
    }
}

impl Labelled for Overlaid<'_> {
    fn label(&self, name: &str) -> Option<&str> {
        self.over.get(name).or_else(|| self.under.get(name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    proptest::proptest! {
        /// It is what a sorted map is: in what it holds, in its order among others, and in what is written of it.
        #[test]
        fn a_label_set_is_a_sorted_map(
            pairs in proptest::collection::vec(("[a-c]{0,2}", "\\PC{0,30}"), 0..8),
            others in proptest::collection::vec(("[a-c]{0,2}", "[ab]?"), 0..8),
        ) {
            let map = |pairs: &[(String, String)]| pairs.iter().cloned().collect::<BTreeMap<String, String>>();
            let set = |pairs: &[(String, String)]| pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<LabelSet>();
            let (known, labels) = (map(&pairs), set(&pairs));
            proptest::prop_assert_eq!(serde_json::to_string(&labels).expect("text"), serde_json::to_string(&known).expect("text"));
            let read: LabelSet = serde_json::from_str(&serde_json::to_string(&known).expect("text")).expect("labels");
            proptest::prop_assert_eq!(&read, &labels);
            proptest::prop_assert_eq!(labels.cmp(&set(&others)), known.cmp(&map(&others)));
            let mut both = known.clone();
            both.extend(map(&others));
            proptest::prop_assert_eq!(labels.with(set(&others).iter()), both.clone().into_iter().collect::<LabelSet>());
            let (over, under) = (set(&others), labels);
            let laid = Overlaid { over: &over, under: &under };
            for name in both.keys().chain([&"zz".to_owned()]) {
                proptest::prop_assert_eq!(laid.label(name), both.get(name).map(String::as_str));
            }
        }
    }

    #[test]
    fn of_a_name_that_comes_twice_the_last_counts() {
        let read: LabelSet = serde_json::from_str(r#"{"b":"1","a":"2","b":"3"}"#).expect("labels");
        assert_eq!(read, LabelSet::from([("a", "2"), ("b", "3")]));
        assert!(serde_json::from_str::<LabelSet>(r#"{"a":1}"#).is_err() && serde_json::from_str::<LabelSet>("[]").is_err());
    }
}
