//! The few lines of `remediator.yml` that say where a running remediator is found, and with which token.
//!
//! Promise: a person at 3 am can stop it although something else in the configuration is broken. So this reads what it
//! needs and ignores all the rest; `config::load` is the strict reader, and the only one that anything starts on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Where `remediator.yml` is when nobody says.
pub const DEFAULT_FILE: &str = "/etc/remediator/remediator.yml";
/// Where it listens when the configuration does not say.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8090);
/// Largest configuration file read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What the file says of it. Paths are ready to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// The address as it is reached from this machine.
    pub url: String,
    pub state_dir: Option<PathBuf>,
    pub operator: Vec<PathBuf>,
    pub reader: Vec<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Typed {
    listen: Option<String>,
    state_dir: Option<String>,
    tokens: Tokens,
    tls: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tokens {
    reader: Vec<String>,
    operator: Vec<String>,
}

impl Default for Whereabouts {
    /// As a configuration that says nothing.
    fn default() -> Self {
        Whereabouts { url: url(DEFAULT_LISTEN, false), state_dir: None, operator: Vec::new(), reader: Vec::new() }
    }
}

impl Whereabouts {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be opened, or is not YAML.
    pub fn read(file: &Path) -> std::io::Result<Whereabouts> {
        if std::fs::metadata(file)?.len() > MAX_FILE {
            return Err(std::io::Error::other(format!("larger than {MAX_FILE} bytes")));
        }
        let text = std::fs::read_to_string(file)?;
        Whereabouts::parse(&text, file.parent().unwrap_or(Path::new("."))).map_err(std::io::Error::other)
    }

    fn parse(text: &str, folder: &Path) -> Result<Whereabouts, String> {
        let typed: Typed =
            serde_saphyr::from_str(text).map_err(|error| crate::edge::redact::plain_line(&error.to_string(), 200))?;
        let listen = match &typed.listen {
            Some(text) => text.parse().map_err(|_| format!("listen: `{text}` is not an address"))?,
            None => DEFAULT_LISTEN,
        };
        let paths = |names: &[String]| names.iter().map(|name| folder.join(name)).collect();
        Ok(Whereabouts {
            url: url(listen, typed.tls.is_some()),
            state_dir: typed.state_dir.map(|dir| folder.join(dir)),
            operator: paths(&typed.tokens.operator),
            reader: paths(&typed.tokens.reader),
        })
    }
}

/// Whoever listens everywhere is reached on loopback.
fn url(listen: SocketAddr, tls: bool) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{}", SocketAddr::new(ip, listen.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Whereabouts, String> {
        Whereabouts::parse(text, Path::new("/etc/remediator"))
    }

    #[test]
    fn what_is_needed_is_read_and_the_rest_may_be_broken() {
        let found = read(
            "listen: 0.0.0.0:9999\nstate_dir: state\nprometheus: 7\nno_such_field: [\"x\"]\ntokens: { operator: [a, /b], receiver: [c] }",
        );
        let want = Whereabouts {
            url: "http://127.0.0.1:9999".to_owned(),
            state_dir: Some("/etc/remediator/state".into()),
            operator: vec!["/etc/remediator/a".into(), "/b".into()],
            reader: vec![],
        };
        assert_eq!(found, Ok(want));
    }

    #[test]
    fn an_address_becomes_one_to_go_to() {
        for (listen, url) in [
            ("127.0.0.1:1", "http://127.0.0.1:1"),
            ("10.1.2.3:80", "http://10.1.2.3:80"),
            ("'[::]:80'", "http://[::1]:80"),
            ("'[::1]:80'\ntls: { certificate: c, key: k }", "https://[::1]:80"),
        ] {
            assert_eq!(read(&format!("listen: {listen}")).map(|found| found.url), Ok(url.to_owned()));
        }
        assert_eq!(read("{}"), Ok(Whereabouts::default()));
        assert!(read("listen: everywhere").is_err_and(|why| why.contains("everywhere")));
        assert!(read("listen: [").is_err());
    }
}
