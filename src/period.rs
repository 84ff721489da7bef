//! A length of time as Prometheus and Alertmanager write it: `30s`, `1h30m`, `2667ms`.
//!
//! Playbooks, rules and Alertmanager's configuration stand side by side, so all of them use one notation
//! (grammar: Prometheus documentation, "Time durations": units `ms s m h d w y`, largest first, whole numbers).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A non-negative length of time in whole milliseconds; reads and prints Prometheus' notation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(Duration);

/// Why a text is not a [`Period`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration: write whole numbers with units, largest first, such as 30s, 5m or 1h30m")]
pub struct NotAPeriod(String);

const UNITS: [(&str, u64); 7] =
    [("y", 31_536_000_000), ("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Period {
    pub const ZERO: Period = Period(Duration::ZERO);

    pub const fn from_secs(secs: u64) -> Self {
        Period(Duration::from_secs(secs))
    }

    pub const fn from_millis(millis: u64) -> Self {
        Period(Duration::from_millis(millis))
    }

    pub const fn get(self) -> Duration {
        self.0
    }

    pub fn as_secs_f64(self) -> f64 {
        self.0.as_secs_f64()
    }

    /// As jiff's signed duration, for arithmetic with timestamps. Periods are far below jiff's limit.
    pub fn signed(self) -> jiff::SignedDuration {
        jiff::SignedDuration::try_from(self.0).unwrap_or(jiff::SignedDuration::MAX)
    }

    pub fn times(self, n: u32) -> Self {
        Period(self.0.saturating_mul(n))
    }
}

impl From<Duration> for Period {
    /// Rounds down to whole milliseconds.
    fn from(value: Duration) -> Self {
        Period(Duration::from_millis(u64::try_from(value.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl std::ops::Add for Period {
    type Output = Period;
    fn add(self, other: Period) -> Period {
        Period(self.0.saturating_add(other.0))
    }
}

impl FromStr for Period {
    type Err = NotAPeriod;

    fn from_str(text: &str) -> Result<Self, NotAPeriod> {
        let bad = || NotAPeriod(text.chars().take(40).collect());
        if text == "0" {
            return Ok(Period::ZERO);
        }
        let mut rest = text;
        let mut millis: u64 = 0;
        let mut units = UNITS.iter();
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
            let after = &rest[digits..];
            let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let unit = &after[..end];
            // `units` only moves forward, which is what enforces "largest first, each once".
            let (_, factor) = units.by_ref().find(|(name, _)| *name == unit).ok_or_else(bad)?;
            millis = number.checked_mul(*factor).and_then(|m| millis.checked_add(m)).ok_or_else(bad)?;
            rest = &after[end..];
        }
        if text.is_empty() { Err(bad()) } else { Ok(Period::from_millis(millis)) }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if left == 0 {
            return f.write_str("0s");
        }
        for (name, factor) in UNITS.iter().filter(|(name, _)| !matches!(*name, "y" | "w")) {
            if left >= *factor {
                write!(f, "{}{name}", left / factor)?;
                left %= factor;
            }
        }
        Ok(())
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_prometheus_reads_and_prints_it_back() {
        for (text, millis) in [("30s", 30_000), ("1h30m", 5_400_000), ("2667ms", 2_667), ("1d", 86_400_000), ("1m500ms", 60_500)]
        {
            let period: Period = text.parse().expect(text);
            assert_eq!(period, Period::from_millis(millis));
            assert_eq!(period.to_string().parse::<Period>().expect("own print"), period);
        }
    }

    #[test]
    fn refuses_what_prometheus_refuses() {
        for text in ["", "5", "s", "5x", "-5s", "1.5s", "5s1h", "1m1m", "99999999999999999999s"] {
            assert!(text.parse::<Period>().is_err(), "{text} was taken");
        }
    }
}
