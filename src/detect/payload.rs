//! Alertmanager's webhook payload, version "4", to an [`AlertGroup`].
//!
//! Promise: tolerant of what other versions add or leave out, strict about what a decision stands on. Unknown fields, any
//! order of keys and missing ornaments are taken; `alerts`, `labels`, `status`, `version` and `truncatedAlerts` must be
//! what they should be, or the error names the place (`alerts[3].labels["instance"]`) and what was found there.
//!
//! How: read in one pass without building a tree, so that 8 MiB of `[0,0,0,…` cost no more memory than they are long and
//! a limit ends the reading where it is passed. A label that comes twice is refused: which one counts would depend on
//! who reads it. Fingerprints are computed from the labels; the payload's own may be forged. URLs are kept, never
//! fetched. The same by curl is `{"alerts":[{"labels":{…}}]}`: an alert without a status has its group's, and a group
//! without one fires.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use self::json::{Scalar, node};
use crate::alert::{Alert, AlertGroup, AlertStatus, LabelSet};
use crate::edge::redact::redact;

mod json;

/// The one version of the payload there has been since 2016.
const VERSION: &str = "4";
/// Brackets inside each other. The payload itself needs four; JSON of ours is never deeper.
const MAX_DEPTH: usize = 32;
/// Labels of one alert. Prometheus' own default limit for series is none; sixty-four is several times what rules carry.
const MAX_LABELS: usize = 64;
/// Bytes of a label's value or name.
const MAX_LABEL: usize = 4096;
/// Bytes kept of a text that nothing is decided from (an annotation, a URL, a group key); the rest is cut off.
const MAX_ORNAMENT: usize = 16 * 1024;
/// Annotations kept of one alert; those after it are left out.
const MAX_ANNOTATIONS: usize = 64;
/// Characters of a foreign text that an error repeats.
const SHOWN: usize = 80;

/// Why a body is not a payload, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error("the body is not UTF-8 at byte {at}")]
    NotUtf8 { at: usize },
    #[error("the body is not JSON: {cause}")]
    NotJson { cause: String },
    #[error("brackets are nested deeper than {MAX_DEPTH} at byte {at}")]
    TooDeep { at: usize },
    #[error("{place} is {found}, must be {must}")]
    WrongKind { place: String, found: &'static str, must: &'static str },
    #[error("{place} is missing")]
    Missing { place: String },
    #[error("{place} is there twice")]
    Twice { place: String },
    #[error("version is \"{found}\", must be \"{VERSION}\"")]
    Version { found: String },
    #[error("{place} is \"{found}\", must be firing or resolved")]
    Status { place: String, found: String },
    #[error("more than {most} alerts in one delivery; group them into smaller notifications, or raise limits.alerts")]
    TooManyAlerts { most: usize },
    #[error("{place} has more than {MAX_LABELS} entries")]
    TooManyLabels { place: String },
    #[error("{place} has {bytes} bytes, at most {MAX_LABEL}")]
    TooLong { place: String, bytes: usize },
}

impl PayloadError {
    /// The error's code in a problem document.
    pub fn code(&self) -> &'static str {
        match self {
            PayloadError::NotUtf8 { .. } => "payload_not_utf8",
            PayloadError::NotJson { .. } => "payload_not_json",
            PayloadError::TooDeep { .. } => "payload_too_deep",
            PayloadError::WrongKind { .. } => "payload_wrong_kind",
            PayloadError::Missing { .. } => "payload_missing",
            PayloadError::Twice { .. } => "payload_twice",
            PayloadError::Version { .. } => "payload_version",
            PayloadError::Status { .. } => "payload_status",
            PayloadError::TooManyAlerts { .. } => "payload_too_many_alerts",
            PayloadError::TooManyLabels { .. } => "payload_too_many_labels",
            PayloadError::TooLong { .. } => "payload_too_long",
        }
    }
}

/// Reads a delivery of at most `max_alerts` alerts. The caller caps the body.
///
/// # Errors
/// The first thing in it that is not as it must be.
pub fn parse(body: &[u8], max_alerts: usize) -> Result<AlertGroup, PayloadError> {
    let text = std::str::from_utf8(body).map_err(|error| PayloadError::NotUtf8 { at: error.valid_up_to() })?;
    if let Some(at) = too_deep(body) {
        return Err(PayloadError::TooDeep { at });
    }
    let reading = Reading { max_alerts, fault: RefCell::new(None) };
    let mut json = serde_json::Deserializer::from_str(text);
    let group = Group(&reading).deserialize(&mut json);
    group.and_then(|group| json.end().map(|()| group)).map_err(|error| {
        let fault = reading.fault.borrow_mut().take();
        fault.unwrap_or_else(|| PayloadError::NotJson { cause: shown(&error.to_string()) })
    })
}

/// Where brackets are nested too deeply, if they are.
fn too_deep(json: &[u8]) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in json.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Some(at);
        }
    }
    None
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).flat_map(char::escape_debug).collect()
}

/// Without what looks like a secret, and cut to at most [`MAX_ORNAMENT`] bytes, at a character. Nothing is decided from
/// it, and it is kept for years; labels are what an alert is known by, so they stay as they are.
fn ornament(text: &str) -> String {
    let mut text = redact(text);
    text.truncate(text.floor_char_boundary(MAX_ORNAMENT));
    text
}

/// One reading of one body: serde's errors are sentences, so the typed one is left here on the way out.
struct Reading {
    max_alerts: usize,
    fault: RefCell<Option<PayloadError>>,
}

impl Reading {
    fn fault<E: de::Error>(&self, fault: PayloadError) -> E {
        *self.fault.borrow_mut() = Some(fault);
        E::custom("refused")
    }

    fn once<E: de::Error, T>(&self, slot: &mut Option<T>, value: T, place: impl fmt::Display) -> Result<(), E> {
        match slot.replace(value) {
            None => Ok(()),
            Some(_) => Err(self.fault(PayloadError::Twice { place: place.to_string() })),
        }
    }

    fn text<E: de::Error>(&self, value: Scalar, place: impl fmt::Display) -> Result<String, E> {
        match value {
            Scalar::Text(text) => Ok(text),
            other => Err(self.fault(PayloadError::WrongKind { place: place.to_string(), found: other.kind(), must: "a string" })),
        }
    }

    fn status<E: de::Error>(&self, value: Scalar, place: &str) -> Result<AlertStatus, E> {
        match self.text::<E>(value, place)?.as_str() {
            "firing" => Ok(AlertStatus::Firing),
            "resolved" => Ok(AlertStatus::Resolved),
            other => Err(self.fault(PayloadError::Status { place: place.to_owned(), found: shown(other) })),
        }
    }

    fn short<E: de::Error>(&self, text: &str, place: impl fmt::Display) -> Result<(), E> {
        if text.len() <= MAX_LABEL {
            return Ok(());
        }
        Err(self.fault(PayloadError::TooLong { place: place.to_string(), bytes: text.len() }))
    }
}

/// The whole body.
struct Group<'r>(&'r Reading);
/// `alerts`, each with the status that it names itself, if it names one.
struct Alerts<'r>(&'r Reading);
/// `alerts[i]`
struct OneAlert<'r>(&'r Reading, usize);
/// `alerts[i].labels`
struct Labels<'r>(&'r Reading, usize);
/// `alerts[i].annotations`
struct Annotations<'r>(&'r Reading, usize);

node!(Group, "an object", |_it| "the body".to_owned(), visit_map(MapAccess) -> AlertGroup, not visit_seq(SeqAccess) "an array");
node!(Alerts, "an array", |_it| "alerts".to_owned(), visit_seq(SeqAccess) -> Vec<(Option<AlertStatus>, Alert)>, not visit_map(MapAccess) "an object");
node!(OneAlert, "an object", |it| format!("alerts[{}]", it.1), visit_map(MapAccess) -> (Option<AlertStatus>, Alert), not visit_seq(SeqAccess) "an array");
node!(Labels, "an object", |it| format!("alerts[{}].labels", it.1), visit_map(MapAccess) -> LabelSet, not visit_seq(SeqAccess) "an array");
node!(Annotations, "an object", |it| format!("alerts[{}].annotations", it.1), visit_map(MapAccess) -> LabelSet, not visit_seq(SeqAccess) "an array");

impl Group<'_> {
    fn read<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<AlertGroup, A::Error> {
        let reading = self.0;
        let (mut alerts, mut status, mut truncated, mut version) = (None, None, None, None);
        let (mut receiver, mut group_key) = (String::new(), String::new());
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "alerts" => reading.once(&mut alerts, map.next_value_seed(Alerts(reading))?, "alerts")?,
                "status" => reading.once(&mut status, reading.status(map.next_value()?, "status")?, "status")?,
                "version" => reading.once(&mut version, reading.text(map.next_value()?, "version")?, "version")?,
                "truncatedAlerts" => {
                    let cut = match map.next_value()? {
                        Scalar::Count(cut) => cut,
                        other => {
                            let (place, must) = ("truncatedAlerts".to_owned(), "a whole number from 0");
                            return Err(reading.fault(PayloadError::WrongKind { place, found: other.kind(), must }));
                        }
                    };
                    reading.once(&mut truncated, cut, "truncatedAlerts")?;
                }
                "receiver" => receiver = map.next_value::<Scalar>()?.ornament(),
                "groupKey" => group_key = map.next_value::<Scalar>()?.searched(),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if let Some(found) = version.filter(|version| version != VERSION) {
            return Err(reading.fault(PayloadError::Version { found: shown(&found) }));
        }
        let Some(alerts) = alerts else {
            return Err(reading.fault(PayloadError::Missing { place: "alerts".to_owned() }));
        };
        let fallback = status.unwrap_or(AlertStatus::Firing);
        let with_status = |(own, alert): (Option<AlertStatus>, Alert)| Alert { status: own.unwrap_or(fallback), ..alert };
        let alerts = alerts.into_iter().map(with_status).collect();
        Ok(AlertGroup { receiver, group_key, truncated: truncated.unwrap_or(0), alerts })
    }
}

impl Alerts<'_> {
    fn read<'de, A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<(Option<AlertStatus>, Alert)>, A::Error> {
        let mut alerts = Vec::new();
        while let Some(alert) = seq.next_element_seed(OneAlert(self.0, alerts.len()))? {
            if alerts.len() == self.0.max_alerts {
                return Err(self.0.fault(PayloadError::TooManyAlerts { most: self.0.max_alerts }));
            }
            alerts.push(alert);
        }
        Ok(alerts)
    }
}

impl OneAlert<'_> {
    fn read<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<(Option<AlertStatus>, Alert), A::Error> {
        let OneAlert(reading, index) = self;
        let place = |field: &str| format!("alerts[{index}].{field}");
        let (mut labels, mut status) = (None, None);
        let (mut annotations, mut starts_at, mut generator_url) = (LabelSet::default(), None, String::new());
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "labels" => reading.once(&mut labels, map.next_value_seed(Labels(reading, index))?, place("labels"))?,
                "status" => {
                    let value = reading.status(map.next_value()?, &place("status"))?;
                    reading.once(&mut status, value, place("status"))?;
                }
                "annotations" => annotations = map.next_value_seed(Annotations(reading, index))?,
                "startsAt" => starts_at = instant(&map.next_value::<Scalar>()?.ornament()),
                "generatorURL" => generator_url = map.next_value::<Scalar>()?.ornament(),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        // Alertmanager takes no alert without labels either: it would name nothing.
        let Some(labels) = labels.filter(|labels: &LabelSet| !labels.is_empty()) else {
            return Err(reading.fault(PayloadError::Missing { place: place("labels") }));
        };
        Ok((status, Alert { status: AlertStatus::Firing, labels, annotations, starts_at, generator_url }))
    }
}

/// Go's zero time means "none", and so does what is not a time: nothing is decided from it.
fn instant(text: &str) -> Option<Timestamp> {
    text.parse().ok().filter(|at: &Timestamp| *at > Timestamp::UNIX_EPOCH)
}

impl Labels<'_> {
    fn read<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<LabelSet, A::Error> {
        let Labels(reading, index) = self;
        let mut labels = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let place = || format!("alerts[{index}].labels[\"{}\"]", shown(&name));
            if labels.len() == MAX_LABELS {
                return Err(reading.fault(PayloadError::TooManyLabels { place: format!("alerts[{index}].labels") }));
            }
            reading.short(&name, place())?;
            let value = reading.text(map.next_value()?, place())?;
            reading.short(&value, place())?;
            if labels.contains_key(&name) {
                return Err(reading.fault(PayloadError::Twice { place: place() }));
            }
            labels.insert(name, value);
        }
        Ok(labels.into_iter().collect())
    }
}

impl Annotations<'_> {
    fn read<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<LabelSet, A::Error> {
        let mut annotations = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, Scalar>()? {
            if let Scalar::Text(value) = value
                && annotations.len() < MAX_ANNOTATIONS
                && name.len() <= MAX_LABEL
            {
                annotations.insert(name, ornament(&value));
            }
        }
        Ok(annotations.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
