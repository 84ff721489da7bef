//! TLS for the listening side: certificates out of files, and a [`Tls`] whose certificates may be replaced while it is
//! in use.
//!
//! Promise: what is in use is always a whole and fitting set, because [`Identity::read`] takes nothing that could not be
//! served with; a set that is replaced serves no new connection, and none of its sessions is resumed. With a client CA a
//! connection without a certificate that the CA signed is ended before a byte of HTTP is read. It says who may talk to
//! us at all; what a caller may do stays a matter of tokens.
//!
//! TLS 1.2 and 1.3, HTTP/1.1 only, with the one crypto provider of this program (aws-lc-rs).
//!
//! Race accepted: a connection that was open when its certificate was replaced goes on until it is idle.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

/// Largest PEM file read, in bytes. A chain has a few kilobytes, a bundle of every public CA 250.
const MAX_PEM: u64 = 1 << 20;

/// A certificate with its key, and whose clients' certificates are taken. Ready to serve with.
#[derive(Clone)]
pub struct Identity {
    config: Arc<ServerConfig>,
}

/// What new connections are served with.
#[derive(Debug)]
pub struct Tls {
    current: RwLock<Identity>,
}

/// Which of the files is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Certificate,
    Key,
    ClientCa,
}

/// Why files cannot be served with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable { part: Part, path: PathBuf, source: std::io::Error },
    #[error("{} is larger than {MAX_PEM} bytes", path.display())]
    TooLarge { part: Part, path: PathBuf },
    #[error("{} is not PEM: {why}", path.display())]
    NotPem { part: Part, path: PathBuf, why: String },
    #[error("{} holds no {}", path.display(), part.holds())]
    Empty { part: Part, path: PathBuf },
    #[error("{} is not a certificate that can be used: {source}", path.display())]
    Unusable { part: Part, path: PathBuf, source: rustls::Error },
    #[error("{} cannot be used to check clients: {why}", path.display())]
    BadClientCa { path: PathBuf, why: String },
    #[error("the key {} does not belong to the certificate {}", key.display(), certificate.display())]
    Mismatch { key: PathBuf, certificate: PathBuf },
    #[error("the key {} cannot be used: {source}", key.display())]
    BadKey { key: PathBuf, source: rustls::Error },
    #[error("no TLS version can be served")]
    Versions(#[source] rustls::Error),
}

impl Part {
    fn holds(self) -> &'static str {
        match self {
            Part::Certificate | Part::ClientCa => "certificate",
            Part::Key => "private key",
        }
    }
}

impl TlsError {
    /// The file to look at first.
    pub fn part(&self) -> Part {
        match self {
            TlsError::Unreadable { part, .. }
            | TlsError::TooLarge { part, .. }
            | TlsError::NotPem { part, .. }
            | TlsError::Empty { part, .. }
            | TlsError::Unusable { part, .. } => *part,
            TlsError::BadClientCa { .. } => Part::ClientCa,
            TlsError::Mismatch { .. } | TlsError::BadKey { .. } => Part::Key,
            TlsError::Versions(_) => Part::Certificate,
        }
    }

    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            TlsError::Unreadable { .. } => "Create it, readable by remediator",
            TlsError::TooLarge { .. } | TlsError::NotPem { .. } => "Name a PEM file (-----BEGIN ...-----)",
            TlsError::Empty { part: Part::Key, .. } => "Name the PEM file with the key that the certificate was made for",
            TlsError::Empty { .. } | TlsError::Unusable { .. } => {
                "Name a PEM file with the certificate first and its chain after it"
            }
            TlsError::BadClientCa { .. } => "Name a PEM file with the CA that signed the clients' certificates",
            TlsError::Mismatch { .. } => "Renew both together: the first certificate of the file must be the key's own",
            TlsError::BadKey { .. } => "Make an ECDSA, Ed25519 or RSA key (2048 bits or more)",
            TlsError::Versions(_) => "",
        }
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    /// Reads PEM files: a certificate with its chain, its key, and the CAs that a client's certificate must come from.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn read(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Identity, TlsError> {
        let chain = certificates(Part::Certificate, certificate)?;
        let private = private_key(key)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Versions)?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(roots(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                let bad = |error: VerifierBuilderError| TlsError::BadClientCa { path: path.to_owned(), why: error.to_string() };
                builder.with_client_cert_verifier(verifier.map_err(bad)?)
            }
        };
        let mut config = builder.with_single_cert(chain, private).map_err(|source| match source {
            rustls::Error::InconsistentKeys(_) => TlsError::Mismatch { key: key.to_owned(), certificate: certificate.to_owned() },
            rustls::Error::InvalidCertificate(_) => {
                TlsError::Unusable { part: Part::Certificate, path: certificate.to_owned(), source }
            }
            source => TlsError::BadKey { key: key.to_owned(), source },
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Identity { config: Arc::new(config) })
    }
}

impl Tls {
    pub fn new(identity: Identity) -> Tls {
        Tls { current: RwLock::new(identity) }
    }

    /// What the next connection is served with.
    pub fn replace(&self, identity: Identity) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).config))
    }
}

/// True when others than its owner and its group may read the file: a key should be nobody else's.
pub fn world_readable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
}

fn bytes(part: Part, path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { part, path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_PEM {
        return Err(TlsError::TooLarge { part, path: path.to_owned() });
    }
    std::fs::read(path).map_err(unreadable)
}

fn certificates(part: Part, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = bytes(part, path)?;
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::Empty { part, path: path.to_owned() }),
        Ok(found) => Ok(found),
        Err(error) => Err(TlsError::NotPem { part, path: path.to_owned(), why: error.to_string() }),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let (part, text) = (Part::Key, bytes(Part::Key, path)?);
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::Empty { part, path: path.to_owned() },
        error => TlsError::NotPem { part, path: path.to_owned(), why: error.to_string() },
    })
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(Part::ClientCa, path)? {
        roots.add(certificate).map_err(|source| TlsError::Unusable { part: Part::ClientCa, path: path.to_owned(), source })?;
    }
    Ok(roots)
}
