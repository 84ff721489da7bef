//! `remediator serve`: run until told to stop.

use std::path::PathBuf;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{App, live_world};
use crate::audit::JournalError;
use crate::cli::Exit;
use crate::config::{self, Config};
use crate::edge::systemd;

#[derive(clap::Args, Debug)]
pub struct ServeArgs {
    /// The configuration file.
    #[arg(long, env = "REMEDIATOR_CONFIG", default_value = "/etc/remediator/remediator.yml")]
    config: PathBuf,
}

/// Runs until SIGTERM or SIGINT, then stops at a safe point, within [`App::stop_within`] and whatever signals follow. SIGHUP opens
/// `audit.jsonl` anew, for logrotate, and takes changed playbooks, tokens and certificates over.
///
/// # Errors
/// Anything that keeps it from starting.
pub async fn serve(args: ServeArgs) -> anyhow::Result<Exit> {
    // A guard that can be switched off has no business beside production.
    anyhow::ensure!(!cfg!(feature = "mutants"), "this build is for `sim --mutants` only and does not serve");
    let config = load(&args.config)?;
    let _lines = super::log::start(&config.settings.log);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let world = live_world(&config)?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
    let app = match App::start(config, world).await {
        Ok(app) => app,
        // Not a failure: there is one already, and it says which.
        Err(error) if matches!(error.downcast_ref(), Some(JournalError::Locked { .. })) => {
            eprintln!("remediator: {error:#}");
            return Ok(Exit::No);
        }
        Err(error) => return Err(error),
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => break tracing::info!("SIGTERM: stopping at a safe point"),
            _ = interrupt.recv() => break tracing::info!("SIGINT: stopping at a safe point"),
            _ = hangup.recv() => {
                tracing::info!("SIGHUP: opening audit.jsonl anew and reading the configuration again");
                systemd::reloading();
                app.reopen();
                // Reading changes nothing, so it may be broken off: a file system that hangs must not keep it from stopping.
                tokio::select! {
                    _ = app.reload(&args.config) => {}
                    _ = terminate.recv() => break tracing::info!("SIGTERM: stopping at a safe point"),
                    _ = interrupt.recv() => break tracing::info!("SIGINT: stopping at a safe point"),
                }
                systemd::ready("audit.jsonl was opened anew, and the configuration read again");
            }
        }
    }
    let within = app.stop_within();
    systemd::stopping(within, "stopping at a safe point");
    let stopping = app.stop();
    tokio::pin!(stopping);
    loop {
        // Being asked again is no reason to leave a server drained.
        tokio::select! {
            () = &mut stopping => break,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("already stopping, which takes {} s at most", within.as_secs());
    }
    Ok(Exit::Fine)
}

/// The configuration, or every error in it, a line each.
///
/// # Errors
/// As [`config::load`].
pub fn load(path: &std::path::Path) -> anyhow::Result<Config> {
    config::load(path).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("\n"))
    })
}
