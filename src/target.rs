//! The only way to name a thing we may touch.
//!
//! A label value from an alert is data. It becomes a [`Target`] by validation, and a [`Target`] becomes a
//! [`Replica`] (one container id, one server at the balancer) only by [`resolve`], which compares it with the labels
//! that the operator wrote on the containers. Restarting the wrong replica is the worst bug this program can have, so
//! anything short of exactly one match in both places is an [`Unmatched`]. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::mutant::{Mutant, off};
use crate::reason::Reason;
use crate::world::{Container, ContainerSummary, Server};

pub mod infrastructure;

/// What all of our container labels begin with.
pub const LABEL_PREFIX: &str = "remediator.";
/// Container label that opts a container in: `remediator.enable=true`.
pub const LABEL_ENABLE: &str = "remediator.enable";
/// Container label with the service's name.
pub const LABEL_SERVICE: &str = "remediator.service";
/// Container label with the value that Prometheus gives the replica (usually its `instance`).
pub const LABEL_INSTANCE: &str = "remediator.instance";
/// Container label with the replica's name at the balancer, `backend/server`.
pub const LABEL_SERVER: &str = "remediator.server";

/// Container label that makes a container a part of ours, whatever its value: it is no target of any playbook that does
/// not say `infrastructure: true`.
pub const LABEL_ROLE: &str = "remediator.role";

/// Longest value taken as an instance; Prometheus itself has no limit.
pub const MAX_INSTANCE: usize = 256;

/// Why a text is not a name of the kind it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not a valid {kind}: {rule}")]
pub struct NameError {
    pub kind: &'static str,
    pub value: String,
    pub rule: &'static str,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(value: String) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(&value) {
                    Ok($name(value))
                } else {
                    let shown = value.chars().take(80).flat_map(char::escape_default).collect();
                    Err(NameError { kind: $kind, value: shown, rule: $rule })
                }
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(value: &str) -> Result<Self, NameError> {
                $name::try_from(value.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// Docker's grammar for names, which is also safe in HAProxy's: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
fn plain_name(value: &str) -> bool {
    value.len() <= 128
        && value.starts_with(|c: char| c.is_ascii_alphanumeric())
        && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

name_type!(
    /// A service: several replicas behind one backend of the balancer.
    ServiceName, "service name", "letters, digits, `_`, `.` and `-`, starting with a letter or digit", plain_name
);
name_type!(
    /// A container's name as Docker knows it; for people to read, never to act by.
    ContainerName, "container name", "letters, digits, `_`, `.` and `-`, starting with a letter or digit", plain_name
);
name_type!(
    /// A container's full id; the only thing that reaches the Engine's restart call.
    ContainerId, "container id", "64 lower-case hexadecimal digits", |v| v.len() == 64
        && v.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
);
name_type!(
    /// What Prometheus calls one replica: the value of the playbook's replica label. Any text without control
    /// characters; it is only ever compared, or sent as an escaped exact matcher.
    Instance, "instance", "1 to 256 characters, no control characters", |v| !v.is_empty()
        && v.chars().count() <= MAX_INSTANCE
        && !v.chars().any(char::is_control)
);
name_type!(
    /// A playbook's name.
    PlaybookName, "playbook name", "letters, digits, `_`, `.` and `-`, starting with a letter or digit", plain_name
);

/// A server at the balancer: `backend/server`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerPath {
    backend: String,
    server: String,
}

/// One replica of one service, as the operator's configuration names it. Says nothing yet about a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target {
    pub service: ServiceName,
    pub instance: Instance,
}

/// The idempotency key of an episode: SHA-256 of the target's service and instance, 64 hex digits.
/// Never made of `startsAt`, `groupKey`, `externalURL` or the alert's labels: those differ between peers and between
/// rules about the same sick replica.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EpisodeKey(Arc<str>);

/// A [`Target`] found as exactly one container and exactly one server with the container's address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replica {
    pub target: Target,
    pub container: Container,
    pub server: Server,
}

/// Why a target is not exactly one container and one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Unmatched {
    pub reason: Reason,
    pub detail: String,
}

impl ServerPath {
    pub fn backend(&self) -> &str {
        &self.backend
    }

    pub fn server(&self) -> &str {
        &self.server
    }
}

impl TryFrom<String> for ServerPath {
    type Error = NameError;

    fn try_from(value: String) -> Result<Self, NameError> {
        match value.split_once('/') {
            Some((backend, server)) if plain_name(backend) && plain_name(server) => {
                Ok(ServerPath { backend: backend.to_owned(), server: server.to_owned() })
            }
            _ => Err(NameError {
                kind: "server at the balancer",
                value: value.chars().take(80).flat_map(char::escape_default).collect(),
                rule: "backend/server, each of letters, digits, `_`, `.` and `-`",
            }),
        }
    }
}

impl FromStr for ServerPath {
    type Err = NameError;
    fn from_str(value: &str) -> Result<Self, NameError> {
        ServerPath::try_from(value.to_owned())
    }
}

impl From<ServerPath> for String {
    fn from(path: ServerPath) -> String {
        path.to_string()
    }
}

impl fmt::Display for ServerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.backend, self.server)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.instance)
    }
}

impl Target {
    pub fn key(&self) -> EpisodeKey {
        // The length prefix keeps ("a", "bc") and ("ab", "c") apart.
        let service = self.service.as_str();
        let mut hash = Sha256::new();
        hash.update((service.len() as u64).to_be_bytes());
        hash.update(service.as_bytes());
        hash.update(self.instance.as_str().as_bytes());
        EpisodeKey(hex(&hash.finalize()).into())
    }
}

impl EpisodeKey {
    /// The key of an alert that no playbook wants: it has no target, so its labels stand in for one.
    pub fn of_unclaimed(labels: &crate::alert::LabelSet) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"unclaimed\0");
        for (name, value) in labels.iter() {
            for part in [name, value] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part.as_bytes());
            }
        }
        EpisodeKey(hex(&hash.finalize()).into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EpisodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The containers of `service` that are opted in. A container without `remediator.enable=true` does not exist for us.
pub fn of_service<'a>(all: impl IntoIterator<Item = &'a ContainerSummary>, service: &ServiceName) -> Vec<&'a ContainerSummary> {
    all.into_iter()
        .filter(|c| label(&c.labels, LABEL_ENABLE) == Some("true") || off(Mutant::OptIn))
        .filter(|c| label(&c.labels, LABEL_SERVICE) == Some(service.as_str()))
        .collect()
}

/// The one container whose `remediator.instance` is the target's. Every other count is an [`Unmatched`].
pub fn pick<'a>(all: impl IntoIterator<Item = &'a ContainerSummary>, target: &Target) -> Result<&'a ContainerSummary, Unmatched> {
    let ours = |c: &&ContainerSummary| label(&c.labels, LABEL_INSTANCE) == Some(target.instance.as_str());
    let named: Vec<_> = all.into_iter().filter(ours).collect();
    let ours = of_service(named.iter().copied(), &target.service);
    match (ours.as_slice(), named.as_slice()) {
        ([one], _) => Ok(one),
        ([], []) => Err(unmatched(
            Reason::ContainerMissing,
            format!("no container is labelled {LABEL_INSTANCE}={} for service {}", target.instance, target.service),
        )),
        ([], [other, ..]) => Err(unmatched(
            Reason::NotEnabled,
            format!(
                "container {} is labelled {LABEL_INSTANCE}={} but is not opted in for service {} ({LABEL_ENABLE}={}, {LABEL_SERVICE}={})",
                other.name,
                target.instance,
                target.service,
                label(&other.labels, LABEL_ENABLE).unwrap_or("absent"),
                label(&other.labels, LABEL_SERVICE).unwrap_or("absent"),
            ),
        )),
        (many, _) => Err(unmatched(
            Reason::ContainerAmbiguous,
            format!("{} containers are labelled {LABEL_INSTANCE}={}: {}", many.len(), target.instance, names(many)),
        )),
    }
}

/// The inspected container together with its server at the balancer, if the two are provably the same replica, and if it
/// is no part of what this program stands on.
///
/// # Errors
/// A part of our own infrastructure, one of which nobody can say, and whatever [`resolve_any`] refuses.
pub fn resolve(
    target: &Target,
    container: &Container,
    all: &[ContainerSummary],
    servers: &[Server],
) -> Result<Replica, Unmatched> {
    let role = label(&container.labels, LABEL_ROLE).map(|role| format!("it is labelled {LABEL_ROLE}={role:?}"));
    if let Some(why) = container.infrastructure.clone().or(role) {
        let detail = format!("container {} is no target: {why}", container.name);
        return Err(unmatched(Reason::OwnInfrastructure, detail));
    }
    if let Some(why) = &container.infrastructure_unknown {
        let detail = format!("container {} may be a part of what remediator stands on: {why}", container.name);
        return Err(unmatched(Reason::OwnInfrastructureUnknown, detail));
    }
    resolve_any(target, container, all, servers)
}

/// As [`resolve`], for a playbook that says `infrastructure: true`.
///
/// # Errors
/// No `remediator.server` label or a malformed one, a server the balancer does not know, an address that is not the
/// container's own, and a network namespace shared with other containers (restarting it would take them down too).
pub fn resolve_any(
    target: &Target,
    container: &Container,
    all: &[ContainerSummary],
    servers: &[Server],
) -> Result<Replica, Unmatched> {
    let path: ServerPath = label(&container.labels, LABEL_SERVER)
        .ok_or_else(|| unmatched(Reason::ServerMissing, format!("container {} has no label {LABEL_SERVER}", container.name)))?
        .parse()
        .map_err(|error: NameError| unmatched(Reason::ServerMissing, error.to_string()))?;
    let server = servers
        .iter()
        .find(|server| server.path == path)
        .ok_or_else(|| unmatched(Reason::ServerMissing, format!("the balancer has no server {path}")))?;
    let address =
        server.address.ok_or_else(|| unmatched(Reason::AddressMismatch, format!("the balancer has no address for {path}")))?;
    if !owns(container, address) {
        return Err(unmatched(
            Reason::AddressMismatch,
            format!("the balancer sends {path} to {address}, which is not an address of container {}", container.name),
        ));
    }
    let paths: Vec<String> =
        servers.iter().filter(|s| s.address.is_some_and(|a| owns(container, a))).map(|s| s.path.to_string()).collect();
    if paths.len() > 1 {
        // Only one of them would be drained; the others would lose the container under load.
        let detail = format!("container {} is behind {} servers: {}", container.name, paths.len(), paths.join(", "));
        return Err(unmatched(Reason::AddressMismatch, detail));
    }
    if let Some(reason) = shared_network(container, all) {
        return Err(unmatched(Reason::SharedNetwork, reason));
    }
    Ok(Replica { target: target.clone(), container: container.clone(), server: server.clone() })
}

fn owns(container: &Container, address: SocketAddr) -> bool {
    container.addresses.contains(&address.ip())
        || container.published.iter().any(|published| {
            // Published on every address of its host: from here only loopback is surely an address of that host.
            let here = published.ip() == address.ip() || (published.ip().is_unspecified() && address.ip().is_loopback());
            published.port() == address.port() && here
        })
}

/// Says which containers live in this one's network namespace, or in whose namespace this one lives.
fn shared_network(container: &Container, all: &[ContainerSummary]) -> Option<String> {
    if container.network_mode.starts_with("container:") {
        return Some(format!("container {} runs in another container's network namespace", container.name));
    }
    let by_id = format!("container:{}", container.id);
    let by_name = format!("container:{}", container.name);
    let guests: Vec<_> = all.iter().filter(|c| c.network_mode == by_id || c.network_mode == by_name).collect();
    if guests.is_empty() {
        None
    } else {
        Some(format!("container {} lends its network namespace to {}", container.name, names(&guests)))
    }
}

fn names(containers: &[&ContainerSummary]) -> String {
    containers.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn label<'a>(labels: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    labels.get(name).map(String::as_str)
}

fn unmatched(reason: Reason, detail: String) -> Unmatched {
    Unmatched { reason, detail }
}
