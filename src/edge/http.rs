//! One question over HTTP, with a limit on everything: no redirects, no proxy from the environment, one connection
//! per question, one time limit from the first packet to the last, one size limit read chunk by chunk.
//!
//! A connection of its own for every question costs a millisecond and saves a class of false alarms: a kept-alive
//! connection that the server closed meanwhile looks exactly like a server that died.

use std::time::Duration;

use reqwest::{Client, Method, Url, redirect};

use super::{BadAddress, causes};

/// Largest answer read. Prometheus' rules with 10,000 active alerts are about 8 MiB; beyond that nobody is served by
/// waiting, and the memory is ours.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// One HTTP server that we ask questions.
#[derive(Clone, Debug)]
pub struct Peer {
    client: Client,
    base: Url,
    shown: String,
    timeout: Duration,
}

/// What a question carries.
pub enum Body<'a> {
    None,
    /// `application/x-www-form-urlencoded`.
    Form(&'a [(&'a str, &'a str)]),
    Json(Vec<u8>),
}

/// An answer of any status.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Why there is no answer. The text names the server and the path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReply {
    /// No connection, or it broke before the answer was complete.
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Timeout(String),
    /// What came is not HTTP, or too much of it.
    #[error("{0}")]
    Unreadable(String),
}

impl Peer {
    /// # Errors
    /// Not an `http://` or `https://` URL, or (for `https://`) no certificates to check the other side with.
    pub fn new(what: &'static str, url: &str, timeout: Duration) -> Result<Self, BadAddress> {
        let bad = |why: String| BadAddress::new(what, url, why);
        let mut base = Url::parse(url).map_err(|error| bad(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(bad("write http://host:port or https://host:port".to_owned()));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(bad("it must not carry a query or a fragment".to_owned()));
        }
        // `join` would drop the last segment of a prefix such as `/prometheus`.
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let mut client = Client::builder()
            .user_agent(concat!("remediator/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(timeout);
        if base.scheme() == "http" {
            // Otherwise building the client fails on a machine without CA certificates, such as our own image.
            client = client.tls_certs_only([]);
        }
        let client = client.build().map_err(|error| bad(causes(&error)))?;
        let shown = shown(&base);
        Ok(Peer { client, base, shown, timeout })
    }

    /// The address as people may see it: without user name and password.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Asks once. `path` is relative to the base (`api/v1/query`) and never comes from outside.
    pub async fn ask(&self, method: Method, path: &str, body: Body<'_>) -> Result<Reply, NoReply> {
        let url = self.base.join(path).map_err(|error| NoReply::Unreadable(format!("{path}: {error}")))?;
        let mut request = self.client.request(method, url);
        request = match body {
            Body::None => request,
            Body::Form(fields) => request.header("content-type", "application/x-www-form-urlencoded").body(form(fields)),
            Body::Json(json) => request.header("content-type", "application/json").body(json),
        };
        // reqwest's own time limit covers the body as well; ours makes sure of it.
        match tokio::time::timeout(self.timeout, self.exchange(request, path)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.too_late(path)),
        }
    }

    async fn exchange(&self, request: reqwest::RequestBuilder, path: &str) -> Result<Reply, NoReply> {
        let mut response = request.send().await.map_err(|error| self.no_reply(path, error))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.no_reply(path, error))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(NoReply::Unreadable(format!(
                    "{}{path} answered with more than {MAX_ANSWER} bytes (HTTP {status})",
                    self.shown
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status, body })
    }

    fn too_late(&self, path: &str) -> NoReply {
        NoReply::Timeout(format!("{}{path} did not answer within {:?}", self.shown, self.timeout))
    }

    fn no_reply(&self, path: &str, error: reqwest::Error) -> NoReply {
        if error.is_timeout() {
            return self.too_late(path);
        }
        // Without the URL: it may carry a password, and `shown` says where.
        let error = error.without_url();
        let detail = format!("{}{path}: {}", self.shown, causes(&error));
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(cause) = next {
            if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
                return NoReply::Unreadable(detail);
            }
            next = cause.source();
        }
        NoReply::Unreachable(detail)
    }
}

fn shown(base: &Url) -> String {
    let mut url = base.clone();
    // Both fail only for URLs that cannot have them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// `a=1&b=2`, percent-encoded. Borrowed from the URL type, which has the one encoder that reqwest exposes.
fn form(fields: &[(&str, &str)]) -> String {
    Url::parse_with_params("http://form/", fields).ok().and_then(|url| url.query().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_carries_any_value() {
        assert_eq!(form(&[("query", "a{b=\"c&d\"} + 1\n"), ("time", "1")]), "query=a%7Bb%3D%22c%26d%22%7D+%2B+1%0A&time=1");
    }

    #[test]
    fn a_password_in_the_address_is_never_shown() {
        let peer = Peer::new("Prometheus", "http://me:hunter2@prom:9090/p", Duration::from_secs(1)).expect("address");
        assert_eq!(peer.shown(), "http://prom:9090/p/");
        for bad in ["prom:9090", "ftp://x", "http://", "http://me:hunter2@x:99999/", "http://me:hunter2@x/?q=1", "unix:///x"] {
            let error = Peer::new("Prometheus", bad, Duration::from_secs(1)).expect_err(bad).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
