//! The `tls` block: three PEM files, read and tried when the configuration is read, so that nothing starts with, and no
//! reload takes, a certificate that could not be served with.

use std::path::{Path, PathBuf};

use super::settings::typed::TlsTyped;
use super::sheet::Sheet;
use crate::edge::tls::{Identity, Part, TlsError, world_readable};

/// TLS for our own listener.
#[derive(Clone, Debug)]
pub struct Tls {
    pub identity: Identity,
    /// Where it was read from, for the log.
    pub certificate: PathBuf,
    /// Clients have to show a certificate, too.
    pub mutual: bool,
}

pub(super) fn read(sheet: &mut Sheet, typed: Option<&TlsTyped>) -> Option<Tls> {
    let typed = typed?;
    let file = |name: &str| sheet.folder.join(name);
    let (certificate, key) = (file(&typed.certificate.value), file(&typed.key.value));
    let client_ca = typed.client_ca.as_ref().map(|at| file(&at.value));
    match Identity::read(&certificate, &key, client_ca.as_deref()) {
        Ok(identity) => {
            private(sheet, typed, &key);
            Some(Tls { identity, certificate, mutual: client_ca.is_some() })
        }
        Err(error) => {
            wrong(sheet, typed, &error);
            None
        }
    }
}

fn wrong(sheet: &mut Sheet, typed: &TlsTyped, error: &TlsError) {
    let at = match (error.part(), &typed.client_ca) {
        (Part::ClientCa, Some(client_ca)) => client_ca,
        (Part::Key, _) => &typed.key,
        (Part::Certificate | Part::ClientCa, _) => &typed.certificate,
    };
    sheet.wrong(at.referenced, format!("tls: {error}"), error.help());
}

fn private(sheet: &mut Sheet, typed: &TlsTyped, key: &Path) {
    if world_readable(key) {
        let sentence =
            format!("every user of this machine may read the key {}; chmod 640 it, with remediator's group", key.display());
        sheet.warn(typed.key.referenced, sentence);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;

    use crate::config::tests::{SETTINGS, SKETCH, folder, loaded};

    /// A folder with a fitting pair, a key of somebody else, and files that are neither.
    fn pem_folder(tls: &str) -> TempDir {
        let folder = folder(&format!("{SETTINGS}tls: {tls}\n"), &[("x.yml", SKETCH)]);
        let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let other = rcgen::KeyPair::generate().expect("a key");
        for (name, text) in [
            ("crt", issued.cert.pem()),
            ("key", issued.signing_key.serialize_pem()),
            ("other.key", other.serialize_pem()),
            ("empty", String::new()),
            ("broken", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n".to_owned()),
            ("nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned()),
        ] {
            fs::write(folder.path().join(name), text).expect("written");
        }
        for key in ["key", "other.key"] {
            fs::set_permissions(folder.path().join(key), fs::Permissions::from_mode(0o640)).expect("ours");
        }
        folder
    }

    #[test]
    fn with_a_certificate_links_are_https_and_a_client_ca_is_optional() {
        for (tls, mutual) in [("{ certificate: crt, key: key }", false), ("{ certificate: crt, key: key, client_ca: crt }", true)]
        {
            let config = loaded(pem_folder(tls).path()).expect("good");
            assert_eq!(config.settings.tls.map(|tls| tls.mutual), Some(mutual));
            assert_eq!(config.settings.external_url, "https://127.0.0.1:8090");
            assert_eq!(config.warnings, []);
        }
    }

    #[test]
    fn a_certificate_does_not_replace_tokens() {
        let folder = pem_folder("{ certificate: crt, key: key, client_ca: crt }\nlisten: 0.0.0.0:8090");
        let refused = loaded(folder.path()).expect_err("must be refused");
        assert!(refused.iter().any(|line| line.contains("no tokens are configured")), "{refused:?}");
    }

    #[test]
    fn files_that_cannot_be_served_with_are_told_with_what_to_do() {
        for (tls, sentence) in [
            (
                "{ certificate: none, key: key }",
                "7:21: tls: none cannot be read: No such file or directory (os error 2). Create it, readable by remediator.",
            ),
            (
                "{ certificate: empty, key: key }",
                "7:21: tls: empty holds no certificate. Name a PEM file with the certificate first and its chain after it.",
            ),
            (
                "{ certificate: key, key: key }",
                "7:21: tls: key holds no certificate. Name a PEM file with the certificate first and its chain after it.",
            ),
            (
                "{ certificate: crt, key: crt }",
                "7:31: tls: crt holds no private key. Name the PEM file with the key that the certificate was made for.",
            ),
            (
                "{ certificate: crt, key: other.key }",
                "7:31: tls: the key other.key does not belong to the certificate crt. Renew both together: the first certificate of the file must be the key's own.",
            ),
            (
                "{ certificate: crt, key: key, client_ca: empty }",
                "7:47: tls: empty holds no certificate. Name a PEM file with the certificate first and its chain after it.",
            ),
        ] {
            let refused = loaded(pem_folder(tls).path()).expect_err(tls);
            assert_eq!(refused, [format!("remediator.yml:{sentence}")], "{tls}");
        }
        for (tls, part) in [
            ("{ certificate: broken, key: key }", "broken is not PEM"),
            ("{ certificate: nonsense, key: key }", "nonsense is not a certificate that can be used"),
            ("{ certificate: crt, key: key, client_ca: nonsense }", "nonsense is not a certificate that can be used"),
            ("{ certificate: crt }", "field `key` is missing"),
            ("{ certificate: crt, key: key, ca: crt }", "unknown field `ca`. Known here: certificate, key, client_ca"),
        ] {
            let refused = loaded(pem_folder(tls).path()).expect_err(tls);
            assert!(refused.len() == 1 && refused[0].contains(part), "{tls}: {refused:?}");
        }
    }

    #[test]
    fn a_key_that_everybody_may_read_is_a_warning() {
        let folder = pem_folder("{ certificate: crt, key: key }");
        fs::set_permissions(folder.path().join("key"), fs::Permissions::from_mode(0o644)).expect("ours");
        let warnings = loaded(folder.path()).expect("allowed").warnings;
        assert!(
            warnings.len() == 1 && warnings[0].sentence.contains("every user of this machine may read the key"),
            "{warnings:?}"
        );
    }
}
