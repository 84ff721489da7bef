//! What a completed heartbeat sets off, and nothing else does: the metric, the `.prom` file, and the word to systemd that
//! keeps its watchdog away.
//!
//! Promise: `READY=1` comes with the first completed beat, so only when the program listens, the journal has taken a
//! commit, and what an earlier process left has been taken up. It does not wait for Prometheus, Docker or HAProxy: a
//! remediator that is up pages for what it cannot do, and one that systemd killed for its start time pages for nothing.
//! What is missing stands in `STATUS=` and on `/readyz`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinHandle;

use crate::api::desk::Desk;
use crate::audit::JournalError;
use crate::edge::{causes, systemd, textfile};
use crate::heartbeat::{Heart, Stopped};
use crate::metrics::Telemetry;
use crate::pipeline::Context;

/// How soon a beat that was not completed is followed by the next one.
const RETRY: Duration = Duration::from_secs(5);
/// How long the outside may take to say whether it is there. The watchdog does not wait for it.
const ASK_WITHIN: Duration = Duration::from_secs(15);

/// The heart of a running program.
pub struct Pulse {
    pub context: Context,
    pub heart: Heart,
    pub every: Duration,
    pub textfile: Option<PathBuf>,
    pub telemetry: Arc<Telemetry>,
    pub desk: Arc<dyn Desk>,
}

/// What was said last, so that the log says it once.
#[derive(Default)]
struct Said {
    ready: bool,
    beat: Option<Timestamp>,
    trouble: Option<String>,
    unheard: bool,
    file: Option<JoinHandle<Option<String>>>,
    file_trouble: Option<String>,
}

impl Pulse {
    /// Beats until the program is to stop.
    pub async fn keep_beating(self) {
        let shutdown = self.context.shutdown.clone();
        tokio::select! {
            () = self.beat_on() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn beat_on(self) {
        let began = self.context.world.clock.now();
        let mut said = Said::default();
        loop {
            let rest = match self.beat(&said).await {
                Ok(at) => {
                    self.completed(at, &mut said).await;
                    self.every
                }
                Err(stopped) => {
                    let why = causes(&stopped);
                    if answered(&stopped) {
                        systemd::alive();
                    }
                    systemd::status(&format!("no heartbeat: {why}"));
                    if said.trouble.as_ref() != Some(&why) {
                        tracing::error!(why, "the heartbeat did not get through: nothing is remediated while that is so");
                        said.trouble = Some(why);
                    }
                    self.every.min(RETRY)
                }
            };
            self.listen(began, &mut said);
            self.context.world.clock.sleep(rest).await;
        }
    }

    /// One beat; while it does not come back, that is said from time to time.
    async fn beat(&self, said: &Said) -> Result<Timestamp, Stopped> {
        let beat = self.heart.beat(&self.context);
        tokio::pin!(beat);
        loop {
            tokio::select! {
                beat = &mut beat => return beat,
                () = self.context.world.clock.sleep(self.every.max(RETRY)) => {
                    let last = said.beat.map_or_else(|| "never".to_owned(), |at| at.to_string());
                    tracing::error!(last, "the heartbeat does not come back: a part of the pipeline hangs");
                    systemd::status(&format!("the heartbeat does not come back; the last was completed {last}"));
                }
            }
        }
    }

    async fn completed(&self, at: Timestamp, said: &mut Said) {
        self.telemetry.heartbeat(at);
        if !said.ready {
            said.ready = true;
            systemd::ready("up");
        }
        systemd::alive();
        said.beat = Some(at);
        if said.trouble.take().is_some() {
            tracing::info!("the heartbeat gets through again");
        }
        self.write(at, said).await;
        systemd::status(&self.status(at).await);
    }

    /// In a thread of its own, one at a time: a folder that hangs must cost the file and not the heart.
    async fn write(&self, at: Timestamp, said: &mut Said) {
        let Some(path) = self.textfile.clone() else { return };
        if let Some(file) = said.file.take() {
            if !file.is_finished() {
                said.file = Some(file);
                return;
            }
            let trouble = file.await.unwrap_or_else(|error| Some(error.to_string()));
            if let Some(why) = trouble.as_ref().filter(|_| said.file_trouble != trouble) {
                tracing::warn!(file = %path.display(), why, "the heartbeat's file could not be written");
            }
            said.file_trouble = trouble;
        }
        let text = exposition(at, self.context.journal.trouble().is_none());
        said.file =
            Some(tokio::task::spawn_blocking(move || textfile::replace(&path, &text).err().map(|error| error.to_string())));
    }

    /// One line: what is missing, what is under way, and when the heart last beat.
    async fn status(&self, at: Timestamp) -> String {
        let open = self.context.journal.read(|state| state.open.len());
        let missing = match tokio::time::timeout(ASK_WITHIN, self.desk.readiness()).await {
            // Names: it is one line. `/readyz` has the reasons.
            Ok(probes) => probes.into_iter().filter(|probe| !probe.ok).map(|probe| probe.name).collect::<Vec<_>>(),
            Err(_) => vec!["anybody's answer".to_owned()],
        };
        let ready =
            if missing.is_empty() { "ready".to_owned() } else { format!("up, and cannot act without {}", missing.join(", ")) };
        format!("{open} open; last heartbeat {}; {ready}", at.strftime("%H:%M:%SZ"))
    }

    /// Says once that the dead-man's switch is not heard, and once that it is again. The metric is what alerts.
    fn listen(&self, began: Timestamp, said: &mut Said) {
        let watchdog = &self.context.watchdog;
        let since = watchdog.heard().unwrap_or(began);
        let silent = self.context.world.clock.now().duration_since(since);
        let unheard = watchdog.within().signed() > jiff::SignedDuration::ZERO && silent > watchdog.within().signed();
        if unheard && !said.unheard {
            tracing::warn!(%since, "the always-firing alert is not delivered: Prometheus or Alertmanager does not reach us");
        } else if said.unheard && !unheard {
            tracing::info!("the always-firing alert is delivered again");
        }
        said.unheard = unheard;
    }
}

/// What the `.prom` file says: the same names as on `/metrics`.
fn exposition(at: Timestamp, writable: bool) -> String {
    let (seconds, writable, version) = (at.as_duration().as_secs_f64(), u8::from(writable), env!("CARGO_PKG_VERSION"));
    format!(
        "# HELP remediator_heartbeat_timestamp_seconds When a synthetic alert last walked from Detect to Guard and into a commit\n\
         # TYPE remediator_heartbeat_timestamp_seconds gauge\n\
         remediator_heartbeat_timestamp_seconds {seconds:.3}\n\
         # HELP remediator_store_writable 1 when the journal's last commit went well, else 0\n\
         # TYPE remediator_store_writable gauge\n\
         remediator_store_writable {writable}\n\
         # HELP remediator_build_info Always 1; the version of this program\n\
         # TYPE remediator_build_info gauge\n\
         remediator_build_info{{version=\"{version}\"}} 1\n"
    )
}

/// The pipeline did all of its part and the disk said no. Such a process still pages, puts back what is drained and answers
/// with 503; starting it anew makes no room on the disk, and takes those away.
fn answered(stopped: &Stopped) -> bool {
    matches!(stopped, Stopped::Journal(JournalError::Store(_)))
}
