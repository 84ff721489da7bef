//! What the log says of calls that are turned away: the first from a host at once, and then one sum a minute.
//!
//! Promise: at most one line per host, status and minute, however many calls come; every call is in exactly one line, and in
//! the metric at once. Bounded: above [`MOST`] pairs at a time all further hosts are one.
//!
//! The sums are said by whoever calls next, after their minute; Prometheus' scrape of `/metrics` is a call, too.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Hosts and statuses told apart at a time.
const MOST: usize = 256;
/// For how long calls are summed up.
const MINUTE: Duration = Duration::from_secs(60);

/// Who was turned away lately. None: one of those that are too many to be told apart.
#[derive(Debug, Default)]
pub struct TurnedAway {
    lately: Mutex<BTreeMap<(Option<IpAddr>, u16), Lately>>,
}

#[derive(Debug)]
struct Lately {
    since: Instant,
    /// Turned away since the last line.
    untold: u64,
}

/// Calls of one minute that no line has told of yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    pub host: Option<IpAddr>,
    pub status: u16,
    pub calls: u64,
}

impl TurnedAway {
    /// One more was turned away. True: it deserves a line of its own.
    pub fn one(&self, host: Option<IpAddr>, status: u16, now: Instant) -> bool {
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        let known = host.filter(|_| lately.len() < MOST || lately.contains_key(&(host, status)));
        match lately.get_mut(&(known, status)) {
            Some(lately) => {
                lately.untold += 1;
                false
            }
            None => {
                lately.insert((known, status), Lately { since: now, untold: 0 });
                true
            }
        }
    }

    /// The sums whose minute is over. Who was quiet for a whole minute is forgotten.
    pub fn due(&self, now: Instant) -> Vec<Sum> {
        let mut sums = Vec::new();
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        lately.retain(|(host, status), lately| {
            if now.duration_since(lately.since) < MINUTE {
                return true;
            }
            let calls = std::mem::take(&mut lately.untold);
            lately.since = now;
            if calls > 0 {
                sums.push(Sum { host: *host, status: *status, calls });
            }
            calls > 0
        });
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u16) -> Option<IpAddr> {
        let [high, low] = last.to_be_bytes();
        Some(IpAddr::from([10, 0, high, low]))
    }

    #[test]
    fn a_flood_is_one_line_a_minute_and_every_call_is_in_one() {
        let (calls, began) = (TurnedAway::default(), Instant::now());
        let (mut lines, mut told) = (0, 0);
        // Two calls a second for ten minutes, and a scrape every 15 s.
        for half in 0..1_200_u32 {
            let now = began + Duration::from_millis(500) * half;
            if half % 30 == 0 {
                let sums = calls.due(now);
                lines += sums.len() as u64;
                told += sums.iter().map(|sum| sum.calls).sum::<u64>();
            }
            if calls.one(host(1), 401, now) {
                (lines, told) = (lines + 1, told + 1);
            }
        }
        let sums = calls.due(began + MINUTE * 12);
        assert_eq!((lines + 1, told + sums[0].calls), (11, 1_200));
        assert!(calls.one(host(1), 403, began), "another answer is another matter");
        assert_eq!(calls.due(began + MINUTE * 14), [], "and quiet is quiet");
        assert!(calls.one(host(1), 401, began + MINUTE * 14), "who comes again is told at once");
    }

    #[test]
    fn hosts_without_number_are_told_together() {
        let (calls, began) = (TurnedAway::default(), Instant::now());
        let lines = (0..10_000).filter(|last| calls.one(host(*last), 401, began)).count();
        assert_eq!(lines, MOST + 1);
        assert_eq!(calls.due(began + MINUTE), [Sum { host: None, status: 401, calls: 10_000 - MOST as u64 - 1 }]);
        assert_eq!(calls.due(began + MINUTE * 2), []);
        assert!(calls.one(host(1), 401, began + MINUTE * 2));
    }
}
