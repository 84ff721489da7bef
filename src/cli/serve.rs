//! `remediator serve`: run until told to stop.

use std::path::PathBuf;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{App, live_world};
use crate::cli::Exit;
use crate::config::{self, Config};

#[derive(clap::Args, Debug)]
pub struct ServeArgs {
    /// The configuration file.
    #[arg(long, env = "REMEDIATOR_CONFIG", default_value = "/etc/remediator/remediator.yml")]
    config: PathBuf,
}

/// Runs until SIGTERM or SIGINT, then stops at a safe point. SIGHUP opens `audit.jsonl` anew, for logrotate, and takes
/// changed playbooks, tokens and certificates over.
///
/// # Errors
/// Anything that keeps it from starting.
pub async fn serve(args: ServeArgs) -> anyhow::Result<Exit> {
    let config = load(&args.config)?;
    super::log::start(&config.settings.log);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let world = live_world(&config)?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
    let app = App::start(config, world).await?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break tracing::info!("SIGTERM: stopping at a safe point"),
            _ = interrupt.recv() => break tracing::info!("SIGINT: stopping at a safe point"),
            _ = hangup.recv() => {
                tracing::info!("SIGHUP: opening audit.jsonl anew and reading the configuration again");
                app.reopen();
                app.reload(&args.config).await;
            }
        }
    }
    app.stop().await;
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
