//! `remediator probe`: one question to a running remediator, for a container's health check.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Certificate, Identity, Url};

use crate::cli::Exit;

/// A health check that takes longer says no anyway.
const TIMEOUT: Duration = Duration::from_secs(4);

#[derive(clap::Args, Debug)]
pub struct ProbeArgs {
    /// What to ask; `/readyz` for "can it act", `/healthz` for "is it alive".
    #[arg(default_value = "http://127.0.0.1:8090/healthz")]
    url: String,
    /// For https: the CA (or the very certificate) that the answer must be signed by, as PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// For https: believe any certificate. Only on loopback, where nobody can come between.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// For a listener with `client_ca`: our certificate, as PEM.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The key of `--cert`, as PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

/// `Exit::Fine` on any 2xx.
///
/// # Errors
/// It could not be asked.
pub async fn probe(args: ProbeArgs) -> anyhow::Result<Exit> {
    let answer = client(&args)?.get(&args.url).send().await.with_context(|| args.url.clone())?;
    let ok = answer.status().is_success();
    if !ok {
        println!("{}", answer.text().await.unwrap_or_default());
    }
    Ok(if ok { Exit::Fine } else { Exit::No })
}

fn client(args: &ProbeArgs) -> anyhow::Result<reqwest::Client> {
    let url = Url::parse(&args.url).with_context(|| args.url.clone())?;
    // An image from scratch has no certificates, so none of the system's are asked for.
    let roots = match &args.ca {
        Some(path) => Certificate::from_pem_bundle(&read(path)?).with_context(|| path.display().to_string())?,
        None => Vec::new(),
    };
    let believes = args.insecure || !roots.is_empty();
    anyhow::ensure!(url.scheme() != "https" || believes, "{url} needs --ca FILE, or --insecure on loopback");
    anyhow::ensure!(!args.insecure || loopback(&url), "--insecure is for a loopback address only; name the CA with --ca");
    let builder = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().tls_certs_only(roots);
    let builder = builder.tls_danger_accept_invalid_certs(args.insecure);
    let builder = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => {
            let both = [read(cert)?, b"\n".to_vec(), read(key)?].concat();
            builder.identity(Identity::from_pem(&both).with_context(|| cert.display().to_string())?)
        }
        _ => builder,
    };
    builder.build().context("no client")
}

/// `localhost` is a name that can be made to mean something else, and still is what everybody writes.
fn loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(url: &str, insecure: bool) -> ProbeArgs {
        ProbeArgs { url: url.to_owned(), ca: None, insecure, cert: None, key: None }
    }

    #[test]
    fn any_certificate_is_believed_on_loopback_only() {
        for url in ["https://127.0.0.1:8090/healthz", "https://[::1]:8090/healthz", "https://localhost:8090/healthz"] {
            assert!(client(&args(url, true)).is_ok(), "{url}");
            let error = client(&args(url, false)).expect_err(url).to_string();
            assert!(error.contains("--ca FILE"), "{error}");
        }
        for url in ["https://10.0.0.1:8090/healthz", "https://remediator.example/healthz", "https://127.0.0.1.example/"] {
            let error = client(&args(url, true)).expect_err(url).to_string();
            assert!(error.contains("loopback"), "{error}");
        }
        assert!(client(&args("http://10.0.0.1:8090/healthz", false)).is_ok());
    }
}
