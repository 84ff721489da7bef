//! Takes a changed configuration over without a restart: playbooks, tokens and certificates.
//!
//! Promise: all or nothing. The files are read and checked as a start would check them; if anything is wrong everything
//! stays as it was, the log names every finding, and `remediator_config_last_reload_successful` is 0 until a reload
//! succeeds. What cannot change while it runs is named, and keeps its old value. A playbook that is paused cannot be taken
//! away (`pauses`).
//!
//! A run that is under way keeps its plan, whatever becomes of its playbook. One that has not restarted anything yet
//! sees at its last look that the playbook is no longer live, readmits and gives up; one that has goes on to the end of
//! its verification.
//!
//! Race accepted: an alert that comes in during the exchange may be matched with the old playbooks and admitted with the
//! old tokens.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use tokio::sync::Mutex;

use super::{App, pauses};
use crate::config::{self, Config, Settings};
use crate::decide::playbook::Playbook;
use crate::detect::caller::Gate;
use crate::detect::poll::Polls;
use crate::edge::tls::Tls;
use crate::metrics::Telemetry;
use crate::words;

/// What a reload reaches.
pub(super) struct Reloads {
    /// What everything but playbooks, tokens and certificates was built with. Held during a reload, so that there is one at a time.
    pub in_force: Mutex<Settings>,
    pub gate: Arc<Gate>,
    pub tls: Option<Arc<Tls>>,
    pub telemetry: Arc<Telemetry>,
    pub polls: Polls,
}

/// What a reload came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// Everything that may change is in force. These settings differ and wait for a restart.
    Taken { standing: Vec<&'static str> },
    /// Nothing has changed, for these reasons.
    Kept { findings: Vec<String> },
}

impl App {
    /// Reads the configuration again and takes over what may change. Says in the log what came of it.
    pub async fn reload(&self, path: &Path) -> Reloaded {
        let in_force = self.reloads.in_force.lock().await;
        let reloaded = match read(path.to_owned()).await {
            Ok(config) => self.take_over(&in_force, config),
            Err(findings) => Err(findings),
        };
        match reloaded {
            Ok(standing) => {
                // For a pause that was ordered during the exchange.
                if let Err(error) = pauses::widen(&self.context).await {
                    tracing::error!(%error, "a pause lost its playbook during the reload, and could not be widened");
                }
                self.reloads.telemetry.config_taken(self.context.world.clock.now());
                for setting in &standing {
                    tracing::warn!(setting, "this setting was changed, and needs a restart; it stays as it was");
                }
                Reloaded::Taken { standing }
            }
            Err(findings) => {
                self.reloads.telemetry.config_refused();
                for finding in &findings {
                    tracing::error!(finding, "the configuration is wrong");
                }
                let (findings_count, file) = (findings.len(), path.display());
                tracing::error!(%file, findings = findings_count, "the configuration was NOT taken over: playbooks, tokens and certificates stay as they were");
                Reloaded::Kept { findings }
            }
        }
    }

    /// The steps that can fail come first, so that it is all or nothing.
    fn take_over(&self, in_force: &Settings, config: Config) -> Result<Vec<&'static str>, Vec<String>> {
        let Config { settings, playbooks, warnings, .. } = config;
        let Reloads { gate, tls, telemetry, polls, .. } = &self.reloads;
        let now = self.context.world.clock.now();
        let lost = self.context.journal.read(|state| pauses::orphans(&state.books.pauses, &playbooks, now));
        if !lost.is_empty() {
            return Err(lost.iter().map(words::pause_would_be_lost).collect());
        }
        let tokens = &settings.tokens;
        gate.replace(&tokens.receiver, &tokens.reader, &tokens.operator).map_err(|error| vec![format!("tokens: {error}")])?;
        if let (Some(tls), Some(fresh)) = (tls, &settings.tls) {
            tls.replace(fresh.identity.clone());
        }
        for playbook in &playbooks {
            telemetry.playbook(&playbook.name);
        }
        let before =
            std::mem::replace(&mut *self.context.playbooks.write().unwrap_or_else(PoisonError::into_inner), Arc::new(playbooks));
        let now = self.context.playbooks();
        polls.follow();
        // A mode or a limit that refused may have changed: whatever waits is asked again at once.
        self.episodes.look_at(None, None);
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let playbooks = now.len();
        let changes = changes(&before, &now);
        let changes = if changes.is_empty() { "none".to_owned() } else { changes.join(", ") };
        tracing::info!(playbooks, changes, "the configuration was read again: playbooks, tokens and certificates are in force");
        Ok(settings.standing(in_force))
    }
}

/// Files are read off the loop that answers: a network file system may take its time.
async fn read(path: PathBuf) -> Result<Config, Vec<String>> {
    match tokio::task::spawn_blocking(move || config::load(&path)).await {
        Ok(Ok(config)) => Ok(config),
        Ok(Err(errors)) => Err(errors.iter().map(ToString::to_string).collect()),
        Err(panicked) => Err(vec![format!("reading the configuration ended badly: {panicked}")]),
    }
}

/// What happened to the playbooks, for the log.
fn changes(before: &[Playbook], now: &[Playbook]) -> Vec<String> {
    let find = |among: &[Playbook], wanted: &Playbook| among.iter().find(|playbook| playbook.name == wanted.name).cloned();
    let mut changes = Vec::new();
    for playbook in now {
        match find(before, playbook) {
            None => changes.push(format!("{} added ({})", playbook.name, playbook.mode.word())),
            Some(old) if old.mode != playbook.mode => {
                changes.push(format!("{} from {} to {}", playbook.name, old.mode.word(), playbook.mode.word()));
            }
            // Playbooks are plain values: what they say of themselves tells two of them apart.
            Some(old) if format!("{old:?}") != format!("{playbook:?}") => changes.push(format!("{} changed", playbook.name)),
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|playbook| find(now, playbook).is_none());
    changes.extend(gone.map(|playbook| format!("{} removed", playbook.name)));
    changes
}
