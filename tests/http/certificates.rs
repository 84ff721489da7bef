//! Certificates for tests: an authority of our own, and what it signs.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use remediator::edge::tls::Identity;

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        Authority { issuer: CertifiedIssuer::self_signed(params, key).expect("signed") }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub fn issue(&self, name: &str) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Issued {
    /// Both files, in a folder.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        std::fs::write(&certificate, &self.certificate).expect("written");
        std::fs::write(&key, &self.key).expect("written");
        (certificate, key)
    }

    /// As a server serves with it, and whose clients it takes.
    pub fn identity(&self, client_ca: Option<&Authority>) -> Identity {
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate, key) = self.write(folder.path(), "server");
        let ca = client_ca.map(|ca| {
            let path = folder.path().join("ca.crt");
            std::fs::write(&path, ca.pem()).expect("written");
            path
        });
        Identity::read(&certificate, &key, ca.as_deref()).expect("fitting files")
    }

    /// As a client shows it.
    pub fn shown(&self) -> reqwest::Identity {
        reqwest::Identity::from_pem(format!("{}{}", self.certificate, self.key).as_bytes()).expect("fitting PEM")
    }
}

/// A client that trusts this authority and nobody else, and keeps no connection.
pub fn client(trusts: &Authority, shows: Option<&Issued>) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(trusts.pem().as_bytes()).expect("PEM");
    let builder = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).tls_certs_only([root]);
    let builder = match shows {
        Some(issued) => builder.identity(issued.shown()),
        None => builder,
    };
    builder.build().expect("a client")
}
