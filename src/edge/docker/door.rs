//! One door to the Engine: a connection of our own under bollard, opened for one call and then gone.
//!
//! That gives three things that bollard's own connections do not: an error while connecting is known to be one
//! (nothing was sent), an answer has a largest size, and the time limit covers the body too. A socket that appears
//! later, or again, is found without starting anew.

use std::sync::Mutex;
use std::time::Duration;

use bollard::errors::Error;
use hyper::header::{HOST, HeaderValue};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;

use crate::edge::causes;
use crate::edge::redact::plain_line;
use crate::edge::socket::{Address, Capped};

/// Largest answer read: thousands of listed containers, or a thousand log lines of the Engine's greatest length.
pub(super) const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Where calls to the Engine go through, and what for.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) name: &'static str,
    pub(super) address: Address,
}

/// Why a call has no result, told apart by whether the Engine may have seen it.
pub(super) enum Trouble {
    NotSent(String),
    Timeout(String),
    /// The other side's status and words.
    Said(u16, String),
    /// An answer came, but not one that can be read.
    Misread(String),
    Broken(String),
}

impl Door {
    /// Opens a connection, lets `call` use it once, and waits for both no longer than said.
    pub(super) async fn call<T, F>(
        &self,
        connect: Duration,
        within: Duration,
        call: impl FnOnce(bollard::Docker) -> F + Send,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let engine = match tokio::time::timeout(connect, self.open(within)).await {
            Err(_) => return Err(Trouble::NotSent(format!("no connection within {connect:?}"))),
            Ok(opened) => opened.map_err(Trouble::NotSent)?,
        };
        match tokio::time::timeout(within, call(engine)).await {
            Err(_) => Err(Trouble::Timeout(format!("no answer within {within:?}"))),
            Ok(outcome) => outcome.map_err(Trouble::from),
        }
    }

    async fn open(&self, within: Duration) -> Result<bollard::Docker, String> {
        let (reader, writer) = self.address.connect().await.map_err(|error| error.to_string())?;
        let stream = TokioIo::new(tokio::io::join(Capped::new(reader, MAX_ANSWER), writer));
        let (sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(|error| causes(&error))?;
        // Ends with the call: when the answer was read, or when the caller gave up and dropped its half.
        // What goes wrong here is told to the caller by its own half.
        tokio::spawn(async move { drop(connection.await) });
        let host = HeaderValue::from_str(&self.host()).map_err(|error| error.to_string())?;
        let once = Mutex::new(Some(sender));
        let transport = move |mut request: bollard::BollardRequest| {
            let sender = once.lock().ok().and_then(|mut slot| slot.take());
            let host = host.clone();
            async move {
                let spent = || Error::from(std::io::Error::other("one connection serves one call"));
                let mut sender = sender.ok_or_else(spent)?;
                if let Some(path) = request.uri().path_and_query().cloned() {
                    *request.uri_mut() = path.into();
                }
                request.headers_mut().insert(HOST, host);
                let changes_something = request.method() == Method::POST;
                let response = sender.send_request(request).await?;
                // bollard would take any 2xx and 304 for a yes; the Engine says 204, and whoever says 200 is not it.
                if changes_something && response.status().as_u16() < 400 && response.status() != StatusCode::NO_CONTENT {
                    let message = "the Engine says 204 after a restart; this is somebody else".to_owned();
                    return Err(Error::DockerResponseServerError { status_code: response.status().as_u16(), message });
                }
                Ok(response)
            }
        };
        // bollard's own limit stops at the headers; ours is around the whole call, so this one only must not be shorter.
        let limit = within.as_secs().saturating_add(60);
        bollard::Docker::connect_with_custom_transport(transport, Some("http://engine"), limit, bollard::API_DEFAULT_VERSION)
            .map_err(|error| causes(&error))
    }

    fn host(&self) -> String {
        match &self.address {
            Address::Unix(_) => "localhost".to_owned(),
            Address::Tcp(address) => address.clone(),
        }
    }
}

impl std::fmt::Display for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Docker's {} ({})", self.name, self.address)
    }
}

impl Trouble {
    pub(super) fn text(&self) -> String {
        match self {
            Trouble::NotSent(text) | Trouble::Timeout(text) | Trouble::Misread(text) | Trouble::Broken(text) => text.clone(),
            Trouble::Said(status, text) => format!("HTTP {status}: {text}"),
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                Trouble::Said(status_code, plain_line(message.trim(), 300))
            }
            other @ (Error::JsonDataError { .. } | Error::JsonSerdeError { .. }) => Trouble::Misread(causes(&other)),
            other => Trouble::Broken(causes(&other)),
        }
    }
}
