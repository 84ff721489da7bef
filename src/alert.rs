//! Prometheus' own words: label sets, matchers, alerts and groups of alerts, and how an alert is fingerprinted.
//!
//! Pure: no IO, no clock. Everything here came from outside and is data; a label value never becomes part of a
//! command or a query except through `target` and `edge::promql`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod labels;

pub use labels::{LabelSet, Labelled, Overlaid};

/// Alertmanager's fingerprint of a label set: FNV-1a 64 over sorted `name 0xff value 0xff`, 16 hex digits.
/// Not cryptographic: good for finding a record, never for telling two alerts apart safely.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(u64);

/// Whether an alert fires; decided per alert, never from the status of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertStatus {
    Firing,
    Resolved,
}

/// One alert of a notification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    pub status: AlertStatus,
    pub labels: LabelSet,
    #[serde(default)]
    pub annotations: LabelSet,
    /// Not stable: differs between peers and after a restart of Prometheus. Kept for the reader of the record only.
    pub starts_at: Option<Timestamp>,
    #[serde(default)]
    pub generator_url: String,
}

/// One notification: a group of alerts as Alertmanager's webhook sends it (version "4").
#[derive(Clone, Debug, PartialEq)]
pub struct AlertGroup {
    pub receiver: String,
    pub group_key: String,
    /// How many alerts `max_alerts` cut off: those are never seen, so the blast radius is unknown when it is not 0.
    pub truncated: u64,
    pub alerts: Vec<Alert>,
}

/// One comparison in Alertmanager's matcher syntax: `alertname=~"FdLeak.*"`.
#[derive(Clone, Debug)]
pub struct Matcher {
    pub name: String,
    pub op: MatchOp,
    pub value: String,
    /// Shared, because a copy of a regular expression begins without the memory that makes it quick.
    regex: Option<Arc<regex::Regex>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchOp {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

/// Why a text is not a [`Matcher`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    #[error("`{0}` is not a matcher: write name=\"value\", name!=\"value\", name=~\"regex\" or name!~\"regex\"")]
    Syntax(String),
    #[error("the regular expression of `{matcher}` does not compile: {cause}")]
    Regex { matcher: String, cause: String },
}

impl LabelSet {
    pub fn fingerprint(&self) -> Fingerprint {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let mut hash = OFFSET;
        let mut feed = |bytes: &[u8]| {
            for byte in bytes.iter().chain(&[0xff]) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
            }
        };
        for (name, value) in self.iter() {
            feed(name.as_bytes());
            feed(value.as_bytes());
        }
        Fingerprint(hash)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Matcher {
    /// True when `labels` satisfy this matcher; a label that is not there counts as the empty string.
    pub fn matches(&self, labels: &impl Labelled) -> bool {
        let have = labels.label(&self.name).unwrap_or_default();
        let regex_matches = || self.regex.as_ref().is_some_and(|regex| regex.is_match(have));
        match self.op {
            MatchOp::Equal => have == self.value,
            MatchOp::NotEqual => have != self.value,
            MatchOp::Regex => regex_matches(),
            MatchOp::NotRegex => !regex_matches(),
        }
    }

    /// A matcher from its parts, as Alertmanager's silences carry them. Regular expressions are anchored at both ends.
    pub fn new(name: &str, op: MatchOp, value: &str) -> Result<Self, MatcherError> {
        let regex = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => {
                let built = regex::RegexBuilder::new(&format!("^(?:{value})$")).size_limit(1 << 20).build();
                Some(Arc::new(built.map_err(|cause| MatcherError::Regex {
                    matcher: format!("{name}{}\"{value}\"", op.sign()),
                    cause: cause.to_string(),
                })?))
            }
        };
        Ok(Matcher { name: name.to_owned(), op, value: value.to_owned(), regex })
    }
}

impl MatchOp {
    pub fn sign(self) -> &'static str {
        match self {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op.sign(), self.value)
    }
}

impl FromStr for Matcher {
    type Err = MatcherError;

    fn from_str(text: &str) -> Result<Self, MatcherError> {
        let syntax = || MatcherError::Syntax(text.chars().take(80).collect());
        let at = text.find(['=', '!']).ok_or_else(syntax)?;
        let name = text[..at].trim();
        // Two-character operators first: `=~` must not be read as `=` and a value that starts with `~`.
        let (op, rest) = [MatchOp::Regex, MatchOp::NotRegex, MatchOp::NotEqual, MatchOp::Equal]
            .into_iter()
            .find_map(|op| text[at..].strip_prefix(op.sign()).map(|rest| (op, rest.trim())))
            .ok_or_else(syntax)?;
        let well_named = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !well_named {
            return Err(syntax());
        }
        let value = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted.strip_suffix('"').ok_or_else(syntax)?).ok_or_else(syntax)?,
            None if rest.contains(['"', '{', '}', ',', ' ']) => return Err(syntax()),
            None => rest.to_owned(),
        };
        Matcher::new(name, op, &value)
    }
}

/// Undoes `\"`, `\\` and `\n`; a lone quote or backslash inside is refused.
fn unquote(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return None,
            // Alertmanager leaves unknown escapes as they are, which is what makes `\d` in a regex work.
            '\\' => match chars.next()? {
                '"' => out.push('"'),
                '\\' => out.push('\\'),
                'n' => out.push('\n'),
                other => out.extend(['\\', other]),
            },
            other => out.push(other),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_is_alertmanagers() {
        let labels = LabelSet::from([("alertname", "OK"), ("instance", "i0"), ("q", "a\"b\\c\n{}"), ("t", "ok")]);
        assert_eq!(labels.fingerprint().to_string(), "678850d779bda26b");
    }

    #[test]
    fn matchers_follow_alertmanagers_syntax() {
        let labels = LabelSet::from([("alertname", "FdLeakFast"), ("service", "inventory")]);
        for (text, want) in [
            ("alertname=FdLeakFast", true),
            ("alertname=~\"FdLeakFast|FdLeakSlow\"", true),
            ("alertname=~\"FdLeak\"", false),
            ("service!=\"inventory\"", false),
            ("service !~ \"check.*\"", true),
            ("absent=\"\"", true),
        ] {
            assert_eq!(text.parse::<Matcher>().expect(text).matches(&labels), want, "{text}");
        }
        for text in ["", "alertname", "=x", "a=\"b", "a=\"b\"c\"", "a=~\"(\"", "a b=c", "a=b,c=d"] {
            assert!(text.parse::<Matcher>().is_err(), "{text} was taken");
        }
    }
}
