//! Callers: as many as are asked for, each as fast as it is answered, or all together at a rate that does not wait.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::Mutex;
use tokio::time::{Instant as Tick, sleep_until};

use crate::wire::Asker;

/// One request's end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Which of the requests.
    pub index: usize,
    /// 0: the connection broke.
    pub status: u16,
    pub took: Duration,
    pub body: String,
}

#[derive(Debug)]
pub struct Run {
    pub answers: Vec<Answer>,
    pub elapsed: Duration,
}

impl Run {
    /// Those that were taken.
    pub fn taken(&self) -> impl Iterator<Item = &Answer> {
        self.answers.iter().filter(|answer| (200..300).contains(&answer.status))
    }

    /// Taken per second.
    pub fn rate(&self) -> f64 {
        self.taken().count() as f64 / self.elapsed.as_secs_f64()
    }

    /// Of those that were taken, in milliseconds.
    pub fn quantile(&self, q: f64) -> f64 {
        quantile(self.taken().map(|answer| answer.took.as_secs_f64() * 1e3).collect(), q)
    }
}

/// A value such that the share `q` of all is not above it.
pub fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (q * values.len() as f64).ceil() as usize;
    values.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

pub fn median(values: Vec<f64>) -> f64 {
    quantile(values, 0.5)
}

/// Sends every request once over `connections`, each as soon as the one before it on the same connection is answered. A
/// connection that breaks is not opened again.
///
/// # Errors
/// Nobody listens.
pub async fn closed(to: SocketAddr, connections: usize, requests: Arc<Vec<Vec<u8>>>) -> Result<Run> {
    closed_counted(to, connections, requests, Arc::default()).await
}

/// As [`closed`], and tells how many have been answered by now.
///
/// # Errors
/// Nobody listens.
pub async fn closed_counted(
    to: SocketAddr,
    connections: usize,
    requests: Arc<Vec<Vec<u8>>>,
    answered: Arc<AtomicUsize>,
) -> Result<Run> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut askers = Vec::new();
    for _ in 0..connections {
        askers.push(Asker::connect(to).await?);
    }
    let begun = Instant::now();
    let callers = askers.into_iter().map(|mut asker| {
        let (next, requests, answered) = (next.clone(), requests.clone(), answered.clone());
        tokio::spawn(async move {
            let mut answers = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(request) = requests.get(index) else { return answers };
                let sent = Instant::now();
                let status = asker.ask(request).await.unwrap_or(0);
                answered.fetch_add(1, Ordering::Relaxed);
                let body = if status == 0 { String::new() } else { asker.body() };
                answers.push(Answer { index, status, took: sent.elapsed(), body });
                if status == 0 {
                    return answers;
                }
            }
        })
    });
    let mut answers = Vec::new();
    for caller in callers.collect::<Vec<_>>() {
        answers.extend(caller.await?);
    }
    Ok(Run { answers, elapsed: begun.elapsed() })
}

/// Sends request n at n / `rate` seconds, whatever has become of those before; an answer's time counts from then, so that
/// waiting for a connection counts, too.
///
/// # Errors
/// Nobody listens.
pub async fn open(to: SocketAddr, connections: usize, rate: f64, requests: Arc<Vec<Vec<u8>>>) -> Result<Run> {
    let mut askers = Vec::new();
    for _ in 0..connections {
        askers.push(Asker::connect(to).await?);
    }
    let next = Arc::new(Mutex::new(0_usize));
    let begun = Tick::now();
    let callers = askers.into_iter().map(|mut asker| {
        let (next, requests) = (next.clone(), requests.clone());
        tokio::spawn(async move {
            let mut answers = Vec::new();
            loop {
                let index = {
                    let mut next = next.lock().await;
                    *next += 1;
                    *next - 1
                };
                let Some(request) = requests.get(index) else { return answers };
                let due = begun + Duration::from_secs_f64(index as f64 / rate);
                sleep_until(due).await;
                let status = asker.ask(request).await.unwrap_or(0);
                answers.push(Answer { index, status, took: due.elapsed(), body: asker.body() });
                if status == 0 {
                    match Asker::connect(to).await {
                        Ok(again) => asker = again,
                        Err(_) => return answers,
                    }
                }
            }
        })
    });
    let mut answers = Vec::new();
    for caller in callers.collect::<Vec<_>>() {
        answers.extend(caller.await?);
    }
    Ok(Run { answers, elapsed: begun.elapsed() })
}
