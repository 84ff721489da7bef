//! Where a byte stream leads to: a Unix socket or a TCP address, as the configuration writes it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::BadAddress;

/// `unix:///run/x.sock`, or `tcp://host:port` (`http://host:port` is the same).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    /// `host:port`; the name is looked up anew for every connection.
    Tcp(String),
}

pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

impl Address {
    /// # Errors
    /// Anything but the two forms above; `what` names the thing at that address in the error.
    pub fn parse(what: &'static str, text: &str) -> Result<Self, BadAddress> {
        const FORM: &str = "write unix:///path/to/socket or tcp://host:port";
        let bad = || BadAddress::new(what, text, FORM);
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') && path.len() > 1 { Ok(Address::Unix(path.into())) } else { Err(bad()) };
        }
        let tcp = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://")).ok_or_else(bad)?;
        let tcp = tcp.strip_suffix('/').unwrap_or(tcp);
        let (host, port) = tcp.rsplit_once(':').ok_or_else(bad)?;
        // A bare IPv6 address would take its last group for the port.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let six =
            host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok());
        match port.parse::<u16>() {
            Ok(1..) if six || (!host.is_empty() && host.chars().all(plain)) => Ok(Address::Tcp(tcp.to_owned())),
            _ => Err(bad()),
        }
    }

    /// A new connection. An error proves that nothing was sent.
    pub async fn connect(&self) -> io::Result<(Reader, Writer)> {
        match self {
            Address::Unix(path) => {
                let (reader, writer) = UnixStream::connect(path).await?.into_split();
                Ok((Box::new(reader), Box::new(writer)))
            }
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let (reader, writer) = stream.into_split();
                Ok((Box::new(reader), Box::new(writer)))
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Reads at most so many bytes, then fails. An answer that was cut silently would look like a short one.
pub(crate) struct Capped {
    inner: Reader,
    cap: usize,
    left: usize,
}

impl Capped {
    pub(crate) fn new(inner: Reader, cap: usize) -> Self {
        Capped { inner, cap, left: cap }
    }
}

impl AsyncRead for Capped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        match self.left.checked_sub(buf.filled().len() - before) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Ok(()))
            }
            None => {
                // A reader that fails must not have read anything; tokio's own adapters panic otherwise.
                buf.set_filled(before);
                let text = format!("the answer is larger than {} bytes", self.cap);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_strictly() {
        let read = |text| Address::parse("a test", text);
        assert_eq!(read("unix:///run/d.sock"), Ok(Address::Unix("/run/d.sock".into())));
        assert_eq!(read("tcp://10.0.0.1:2375"), Ok(Address::Tcp("10.0.0.1:2375".into())));
        assert_eq!(read("http://door-read:2375/"), Ok(Address::Tcp("door-read:2375".into())));
        assert_eq!(read("tcp://[::1]:99"), Ok(Address::Tcp("[::1]:99".into())));
        for bad in [
            "",
            "/run/d.sock",
            "unix://",
            "unix://d.sock",
            "tcp://host",
            "tcp://:1",
            "tcp://h:0",
            "tcp://h:70000",
            "tcp://::1:99",
            "tcp://a/b:1",
            "https://h:1",
            "tcp://u:p@h:1",
        ] {
            let error = read(bad).expect_err(bad);
            assert!(error.to_string().contains("unix:///path/to/socket"), "{error}");
        }
    }
}
