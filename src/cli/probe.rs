//! `remediator probe`: one question to a running remediator, for a container's health check.

use std::time::Duration;

use anyhow::Context as _;

use crate::cli::Exit;

/// A health check that takes longer says no anyway.
const TIMEOUT: Duration = Duration::from_secs(4);

#[derive(clap::Args, Debug)]
pub struct ProbeArgs {
    /// What to ask; `/readyz` for "can it act", `/healthz` for "is it alive".
    #[arg(default_value = "http://127.0.0.1:8090/healthz")]
    url: String,
}

/// `Exit::Fine` on any 2xx.
///
/// # Errors
/// It could not be asked.
pub async fn probe(args: ProbeArgs) -> anyhow::Result<Exit> {
    // Plain HTTP to this very machine: no certificates are needed, and an image from scratch has none.
    let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().tls_certs_only([]).build().context("no client")?;
    let answer = client.get(&args.url).send().await.with_context(|| args.url.clone())?;
    let ok = answer.status().is_success();
    if !ok {
        println!("{}", answer.text().await.unwrap_or_default());
    }
    Ok(if ok { Exit::Fine } else { Exit::No })
}
