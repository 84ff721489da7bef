//! How a command finds the running remediator, and asks it one thing.
//!
//! Where: `--url`, else what the configuration file says about `listen`, else http://127.0.0.1:8090. With which token:
//! `--token-file`, else the first file that the configuration names for the role and that can be read. The configuration
//! is read for these few things only, so that a broken one does not keep anybody from stopping a remediator.
//!
//! Promise: every way in which it cannot be asked is one sentence with what, where and what to do. The token is sent to
//! no other address (redirects are not followed, proxies are not asked) and never printed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Certificate, Client, Identity, Method, Response, StatusCode, Url, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use crate::cli::Exit;
use crate::config::whereabouts::{DEFAULT_FILE, Whereabouts};
use crate::edge::causes;
use crate::edge::http::MAX_ANSWER;
use crate::edge::redact::plain_line;
use crate::period::Period;

/// Largest token file read, in bytes.
const MAX_TOKEN: u64 = 4096;

/// Which remediator.
#[derive(clap::Args, Clone, Debug)]
pub struct Remote {
    /// Where it listens, such as http://127.0.0.1:8090; by default what the configuration file says
    #[arg(long, global = true, env = "REMEDIATOR_URL", value_name = "URL", help_heading = "Which remediator")]
    pub url: Option<String>,
    /// A file with the token; by default the first of the role's that the configuration file names
    #[arg(long, global = true, env = "REMEDIATOR_TOKEN_FILE", value_name = "FILE", help_heading = "Which remediator")]
    pub token_file: Option<PathBuf>,
    /// The configuration file [default: /etc/remediator/remediator.yml]
    #[arg(long, global = true, env = "REMEDIATOR_CONFIG", value_name = "FILE", help_heading = "Which remediator")]
    pub config: Option<PathBuf>,
    /// Certificates (PEM) to check an https:// address with, instead of this machine's
    #[arg(long, global = true, value_name = "FILE", help_heading = "Which remediator")]
    pub ca: Option<PathBuf>,
    /// For a listener with `client_ca`: our certificate, as PEM
    #[arg(long, global = true, value_name = "FILE", requires = "client_key", help_heading = "Which remediator")]
    pub client_cert: Option<PathBuf>,
    /// The key of `--client-cert`, as PEM
    #[arg(long, global = true, value_name = "FILE", requires = "client_cert", help_heading = "Which remediator")]
    pub client_key: Option<PathBuf>,
    /// How long to wait for an answer
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", help_heading = "Which remediator")]
    pub timeout: Period,
}

/// What a command is about to do; decides which token is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Read,
    Order,
}

/// A remediator that can be asked.
pub struct Asker {
    client: Client,
    base: Url,
    token: Option<SecretString>,
    timeout: Duration,
    /// Where its state is, if the configuration says so.
    pub state_dir: Option<PathBuf>,
    /// Named by `--url` or found by the configuration.
    pub named: bool,
}

/// Why there is no answer, or not the one that was wanted.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(
        "no remediator answers at {url} (connection refused); is it running? Look with: systemctl status remediator, or docker ps"
    )]
    NotRunning { url: String },
    #[error("{url} did not answer within {within}; it may hang or be overloaded, or the address is wrong")]
    Timeout { url: String, within: Period },
    #[error("{url} cannot be asked: {why}")]
    Broken { url: String, why: String },
    #[error("{url} does not answer as a remediator does (HTTP {status}); check the address")]
    Foreign { url: String, status: u16 },
    #[error(
        "{detail} (HTTP {status} from {url}); name the right token with --token-file FILE, or run this as a user who may read it"
    )]
    Denied { url: String, status: u16, detail: String },
    /// Asked and answered: no.
    #[error("{detail}")]
    Refused { detail: String, document: Value },
    #[error("{url} cannot do that now: {detail}")]
    Unavailable { url: String, detail: String, document: Value },
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Failure::Refused { .. } => Exit::No,
            _ => Exit::Failed,
        }
    }

    /// It could not be asked at all, so that asking its files instead makes sense.
    pub fn unreachable(&self) -> bool {
        matches!(self, Failure::NotRunning { .. } | Failure::Denied { .. })
    }

    /// Says it: a sentence on standard error, and with `--json` the problem document on standard output.
    pub fn tell(&self, json: bool) -> Exit {
        if let (true, Failure::Refused { document, .. } | Failure::Unavailable { document, .. }) = (json, self) {
            println!("{document}");
        }
        eprintln!("remediator: {self}");
        self.exit()
    }
}

/// What the configuration file says; what nobody says, when there is none where it usually is.
///
/// # Errors
/// The file that was named cannot be read.
pub fn whereabouts(config: Option<&Path>) -> anyhow::Result<Whereabouts> {
    match Whereabouts::read(config.unwrap_or(Path::new(DEFAULT_FILE))) {
        Ok(found) => Ok(found),
        Err(error) if config.is_none() && error.kind() == ErrorKind::NotFound => Ok(Whereabouts::default()),
        Err(error) => {
            let file = config.unwrap_or(Path::new(DEFAULT_FILE)).display();
            Err(anyhow::anyhow!("{file} cannot be read: {error}; name another with --config FILE, or the address with --url URL"))
        }
    }
}

impl Remote {
    /// # Errors
    /// The configuration or the token cannot be read, or the address cannot be one.
    pub fn asker(&self, need: Need) -> anyhow::Result<Asker> {
        // With an address and a token, a configuration that cannot be read is nobody's business.
        let settled = self.url.is_some() && self.config.is_none();
        let found = match whereabouts(self.config.as_deref()) {
            Ok(found) => found,
            Err(_) if settled => Whereabouts::default(),
            Err(error) => return Err(error),
        };
        let text = self.url.as_deref().unwrap_or(&found.url);
        let mut base = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if let Some(base) = base.as_mut().filter(|base| !base.path().ends_with('/')) {
            base.set_path(&format!("{}/", base.path()));
        }
        let shown = plain_line(text, 200);
        let base = base.with_context(|| format!("`{shown}` is no address; write one such as http://127.0.0.1:8090"))?;
        let token = match &self.token_file {
            Some(file) => Some(token(file).map_err(|why| anyhow::anyhow!("token file {}: {why}", file.display()))?),
            // A token of this machine's configuration is for this machine's remediator.
            None if self.url.is_some() && !loopback(&base) && self.config.is_none() => None,
            None => configured_token(&found, need)?,
        };
        let client = client(&base, self)?;
        Ok(Asker { client, base, token, timeout: self.timeout.get(), state_dir: found.state_dir, named: self.url.is_some() })
    }
}

fn loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn client(base: &Url, remote: &Remote) -> anyhow::Result<Client> {
    let mut builder = Client::builder()
        .user_agent(concat!("remediator/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(0);
    let read = |file: &Path| std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()));
    if let (Some(cert), Some(key)) = (&remote.client_cert, &remote.client_key) {
        let both = [read(cert)?, b"\n".to_vec(), read(key)?].concat();
        let identity = Identity::from_pem(&both);
        builder = builder.identity(identity.with_context(|| format!("{}: no certificate with its key", cert.display()))?);
    }
    if let Some(file) = &remote.ca {
        let pem = read(file)?;
        let certificates = Certificate::from_pem_bundle(&pem).with_context(|| format!("{}: no certificate", file.display()))?;
        anyhow::ensure!(!certificates.is_empty(), "{}: no certificate in it; it must be PEM", file.display());
        builder = builder.tls_certs_only(certificates);
    } else if remote.url.is_none() && loopback(base) {
        // Our own configuration says where on this machine we listen, and nobody can come between: a certificate that is
        // made out to another name must not keep anybody from pausing.
        builder = builder.tls_certs_only([]).tls_danger_accept_invalid_certs(true);
    } else if base.scheme() == "http" {
        // Otherwise building the client fails on a machine without CA certificates, such as our own image.
        builder = builder.tls_certs_only([]);
    }
    builder.build().context("no HTTP client can be made")
}

/// The first token that can be read, of the role that is needed.
fn configured_token(found: &Whereabouts, need: Need) -> anyhow::Result<Option<SecretString>> {
    let reader: &[PathBuf] = if need == Need::Read { &found.reader } else { &[] };
    let files: Vec<&PathBuf> = found.operator.iter().chain(reader).collect();
    let mut why = String::new();
    for file in &files {
        match token(file) {
            Ok(token) => return Ok(Some(token)),
            Err(error) => why = format!("{}: {error}", file.display()),
        }
    }
    if files.is_empty() {
        return Ok(None);
    }
    anyhow::bail!(
        "the configured token cannot be read ({why}); run this as root or as remediator's user, or name a token with --token-file FILE"
    )
}

fn token(file: &Path) -> Result<SecretString, String> {
    let told = |error: std::io::Error| error.to_string();
    if std::fs::metadata(file).map_err(told)?.len() > MAX_TOKEN {
        return Err(format!("larger than {MAX_TOKEN} bytes"));
    }
    let text = std::fs::read_to_string(file).map_err(told)?;
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        token => Ok(SecretString::from(token)),
    }
}

impl Asker {
    /// The address as people may see it: without user name and password.
    pub fn shown(&self) -> String {
        let mut url = self.base.clone();
        // Both fail only for addresses that cannot have them.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.as_str().trim_end_matches('/').to_owned()
    }

    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        self.ask(Method::GET, path, query, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::POST, path, &[], Some(body)).await
    }

    /// An answer that goes on for as long as the other side likes. Only its head is waited for.
    ///
    /// # Errors
    /// As [`Asker::get`].
    pub async fn open(&self, path: &str, query: &[(&str, String)]) -> Result<Response, Failure> {
        let request = self.request(Method::GET, path, query)?;
        let sent = tokio::time::timeout(self.timeout, request.send()).await.map_err(|_| self.too_late())?;
        let response = sent.map_err(|error| self.no_answer(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = tokio::time::timeout(self.timeout, self.body(response)).await.map_err(|_| self.too_late())??;
        Err(self.refusal(status, &body))
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, String)]) -> Result<reqwest::RequestBuilder, Failure> {
        let url = self.base.join(path).map_err(|error| Failure::Broken { url: self.shown(), why: error.to_string() })?;
        let request = self.client.request(method, url).query(query);
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        })
    }

    async fn ask(&self, method: Method, path: &str, query: &[(&str, String)], body: Option<&Value>) -> Result<Value, Failure> {
        let request = self.request(method, path, query)?;
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let exchange = async {
            let response = request.send().await.map_err(|error| self.no_answer(error))?;
            let status = response.status();
            Ok((status, self.body(response).await?))
        };
        let (status, body) = tokio::time::timeout(self.timeout, exchange).await.map_err(|_| self.too_late())??;
        // `/readyz` answers 503 with what is missing: that is an answer.
        if status.is_success() || (status == StatusCode::SERVICE_UNAVAILABLE && path == "readyz") {
            return serde_json::from_slice(&body).map_err(|_| self.foreign(status));
        }
        Err(self.refusal(status, &body))
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.no_answer(error))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(Failure::Broken { url: self.shown(), why: format!("more than {MAX_ANSWER} bytes") });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> Failure {
        let url = self.shown();
        let document: Value = serde_json::from_slice(body).unwrap_or_default();
        let Some(detail) = document["detail"].as_str().filter(|_| document["code"].is_string()) else {
            return self.foreign(status);
        };
        let detail = plain_line(detail, 2_000);
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Denied { url, status: status.as_u16(), detail },
            status if status.is_client_error() => Failure::Refused { detail, document },
            _ => Failure::Unavailable { url, detail, document },
        }
    }

    fn foreign(&self, status: StatusCode) -> Failure {
        Failure::Foreign { url: self.shown(), status: status.as_u16() }
    }

    fn too_late(&self) -> Failure {
        Failure::Timeout { url: self.shown(), within: self.timeout.into() }
    }

    fn no_answer(&self, error: reqwest::Error) -> Failure {
        if error.is_timeout() {
            return self.too_late();
        }
        // Without the URL: it may carry a password, and `shown` says where.
        let error = error.without_url();
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(cause) = next {
            if cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
                return Failure::NotRunning { url: self.shown() };
            }
            next = cause.source();
        }
        Failure::Broken { url: self.shown(), why: causes(&error) }
    }
}
