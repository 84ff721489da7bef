//! A steady stream of customers. What they could not buy is the lab's measure of harm.
//!
//! `GET /report` tells what was sent and what failed since the last `POST /report/reset`.
//! Requests start on a clock and not when the last one ended, so that a slow shop is not spared.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::metrics::Page;
use crate::outbound::{self, innermost};
use crate::serve::{self, Connections};

/// Longer than checkout's own patience, so that its answer is seen.
const PATIENCE: Duration = Duration::from_secs(8);
/// More would only measure this machine; a customer turned away here counts as failed.
const IN_FLIGHT: usize = 200;
/// How many failures are remembered word by word.
const REMEMBERED: usize = 20;

#[derive(Clone, Serialize)]
struct Report {
    /// Unix seconds of the last reset.
    since: f64,
    sent: u64,
    ok: u64,
    failed: u64,
    slowest_ms: u64,
    last_error: Option<String>,
    failures: VecDeque<Failure>,
}

#[derive(Clone, Serialize)]
struct Failure {
    at: f64,
    error: String,
}

impl Report {
    fn fresh() -> Report {
        Report { since: unix_now(), sent: 0, ok: 0, failed: 0, slowest_ms: 0, last_error: None, failures: VecDeque::new() }
    }

    fn record(&mut self, took: Duration, outcome: Result<(), String>) {
        self.slowest_ms = self.slowest_ms.max(took.as_millis() as u64);
        match outcome {
            Ok(()) => self.ok += 1,
            Err(error) => {
                self.failed += 1;
                self.last_error = Some(error.clone());
                if self.failures.len() == REMEMBERED {
                    self.failures.pop_front();
                }
                self.failures.push_back(Failure { at: unix_now(), error });
            }
        }
    }
}

/// The report is set back by hand; the totals only grow, as counters must.
struct Load {
    report: Mutex<Report>,
    totals: Mutex<(u64, u64)>,
}

impl Load {
    fn record(&self, took: Duration, outcome: Result<(), String>) {
        {
            let mut totals = self.totals.lock().expect("no panic while counting");
            match outcome {
                Ok(()) => totals.0 += 1,
                Err(_) => totals.1 += 1,
            }
        }
        self.report.lock().expect("no panic while counting").record(took, outcome);
    }
}

pub async fn run(listen: SocketAddr, target: String, rate: u32) -> anyhow::Result<()> {
    let load = Arc::new(Load { report: Mutex::new(Report::fresh()), totals: Mutex::default() });
    let client = outbound::client(PATIENCE)?;
    tokio::spawn(send_steadily(load.clone(), client, target, rate));
    let app = Router::new()
        .route("/report", get(report))
        .route("/report/reset", post(reset))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(expose))
        .with_state(load);
    serve::until_signal(listen, Connections::default(), app).await
}

async fn send_steadily(load: Arc<Load>, client: reqwest::Client, target: String, rate: u32) {
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut clock = tokio::time::interval(Duration::from_secs(1) / rate);
    loop {
        clock.tick().await;
        load.report.lock().expect("no panic while counting").sent += 1;
        let Ok(place) = room.clone().try_acquire_owned() else {
            load.record(Duration::ZERO, Err(format!("{IN_FLIGHT} requests are already waiting")));
            continue;
        };
        let (load, request) = (load.clone(), client.get(&target).send());
        tokio::spawn(async move {
            let _place = place;
            let begun = Instant::now();
            let outcome = match request.await {
                Ok(answer) if answer.status().is_success() => Ok(()),
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    Err(format!("{status}: {}", answer.text().await.unwrap_or_default().trim()))
                }
                Err(error) => Err(format!("checkout does not answer: {}", innermost(&error))),
            };
            if let Err(error) = &outcome {
                tracing::warn!(%error, "a customer was turned away");
            }
            load.record(begun.elapsed(), outcome);
        });
    }
}

async fn report(State(load): State<Arc<Load>>) -> Json<Report> {
    Json(load.report.lock().expect("no panic while counting").clone())
}

/// Answers with the report that ends here.
async fn reset(State(load): State<Arc<Load>>) -> Json<Report> {
    Json(std::mem::replace(&mut *load.report.lock().expect("no panic while counting"), Report::fresh()))
}

async fn expose(State(load): State<Arc<Load>>) -> Page {
    let mut page = Page::default();
    page.process();
    let (ok, failed) = *load.totals.lock().expect("no panic while counting");
    page.family("load_requests_total", "counter", "Requests of customers, by how they ended.");
    page.sample("load_requests_total", "outcome=\"ok\"", ok);
    page.sample("load_requests_total", "outcome=\"failed\"", failed);
    page
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_keeps_the_last_failures_and_counts_all() {
        let mut report = Report::fresh();
        report.record(Duration::from_millis(3), Ok(()));
        for n in 0..REMEMBERED + 5 {
            report.record(Duration::from_millis(7), Err(format!("error {n}")));
        }
        assert_eq!((report.ok, report.failed, report.slowest_ms), (1, 25, 7));
        assert_eq!(report.failures.len(), REMEMBERED);
        assert_eq!(report.last_error.as_deref(), Some("error 24"));
        assert_eq!(report.failures[0].error, "error 5");
    }
}
