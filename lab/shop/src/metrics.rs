//! Prometheus' text format, and the three process metrics that every client library exposes.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::fs;
use std::sync::Mutex;

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// The kernel reports start times in ticks of 1/100 s on every Linux that Docker runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A page of metrics being written.
#[derive(Default)]
pub struct Page(String);

impl Page {
    /// Writes one family of one series.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }

    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// `labels` as they stand between the braces; empty for none.
    pub fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            _ => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    /// Descriptors and start time of this process, each only if it can be read.
    ///
    /// Reading /proc needs a descriptor, so a process that has none left exposes none of the three. Go's and Python's
    /// client libraries behave exactly so, and rules have to live with it.
    pub fn process(&mut self) {
        if let Some(open) = open_fds() {
            self.single("process_open_fds", "gauge", "Number of open file descriptors.", open);
        }
        if let Some(max) = max_fds() {
            self.single("process_max_fds", "gauge", "Maximum number of open file descriptors.", max);
        }
        if let Some(start) = start_time() {
            self.single("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", start);
        }
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], self.0).into_response()
    }
}

/// Requests answered, by status code.
#[derive(Default)]
pub struct Requests(Mutex<BTreeMap<u16, u64>>);

impl Requests {
    pub fn count(&self, code: u16) {
        *self.0.lock().expect("no panic while counting").entry(code).or_default() += 1;
    }

    pub fn write(&self, page: &mut Page) {
        page.family("http_requests_total", "counter", "Requests of customers answered, by status code.");
        for (code, count) in self.0.lock().expect("no panic while counting").iter() {
            page.sample("http_requests_total", &format!("code=\"{code}\""), count);
        }
    }
}

pub fn open_fds() -> Option<usize> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count())
}

fn max_fds() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn start_time() -> Option<f64> {
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()?;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The command name, in parentheses, may contain spaces; the 22nd field is the 20th after it.
    let ticks: f64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    Some(boot + ticks / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_healthy_process_exposes_all_three() {
        let mut page = Page::default();
        page.process();
        for name in ["process_open_fds ", "process_max_fds ", "process_start_time_seconds "] {
            assert!(page.0.lines().any(|line| line.starts_with(name)), "{name} is missing in\n{}", page.0);
        }
    }

    #[test]
    fn the_start_time_is_in_the_last_minutes() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - start_time().unwrap();
        assert!((-2.0..600.0).contains(&age), "the process seems {age} s old");
    }

    #[test]
    fn samples_are_in_the_text_format() {
        let mut page = Page::default();
        let requests = Requests::default();
        requests.count(200);
        requests.count(500);
        requests.count(200);
        requests.write(&mut page);
        page.single("up_for_sale", "gauge", "Shops.", 1);
        assert_eq!(
            page.0,
            "# HELP http_requests_total Requests of customers answered, by status code.\n\
             # TYPE http_requests_total counter\n\
             http_requests_total{code=\"200\"} 2\n\
             http_requests_total{code=\"500\"} 1\n\
             # HELP up_for_sale Shops.\n\
             # TYPE up_for_sale gauge\n\
             up_for_sale 1\n"
        );
    }
}
