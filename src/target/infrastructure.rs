//! What must never be a target: remediator itself, Prometheus, Alertmanager, the balancer, the doors to the Engine.
//!
//! Promise: a container that serves an address of our own configuration is known as such, whatever its labels say, and so
//! is the container that this process runs in. Restarting one of them would take away the eyes, the hands or the voice
//! with which a restart is made safe.
//!
//! How: an endpoint of the configuration is compared with everything that leads to a container: its names in Docker's
//! networks, its addresses, its published ports, and the folders that it mounts, because a socket is shared by its
//! folder. In doubt it is a part of ours: a port published on every address counts wherever the endpoint's name leads. A name
//! that cannot be looked up may lead anywhere, so that of every other container nobody can say ([`Infrastructure::doubt`]).
//! Parts that no address names, such as a proxy in front of Prometheus, are told by the label `remediator.role`. Pure: looking
//! names up is `edge::docker`'s business.
//!
//! What remains: a part behind something that hides it, such as a name that leads to a proxy. That needs the label.

use std::net::IpAddr;
use std::path::Path;

use reqwest::Url;

use crate::edge::redact::plain_line;
use crate::world::Container;

/// Shortest beginning of a container's id that Docker itself gives out, as a host name.
const SHORT_ID: usize = 12;
/// Longest address repeated in a sentence, in bytes.
const MAX_SHOWN: usize = 200;

/// The addresses of the configuration, and the container that this process runs in.
#[derive(Clone, Debug, Default)]
pub struct Infrastructure {
    endpoints: Vec<Endpoint>,
    /// Ids, or the beginnings of ids.
    own: Vec<String>,
}

/// One address of the configuration.
#[derive(Clone, Debug)]
struct Endpoint {
    /// The setting, as in `prometheus.url`.
    setting: &'static str,
    shown: String,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Tcp { host: String, port: Option<u16> },
    Socket(String),
}

/// What leads to a container, besides what a [`Container`] keeps.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Its names in Docker's networks.
    pub names: Vec<String>,
    /// Both sides of every mount.
    pub mounts: Vec<String>,
    /// Where the endpoints' names lead now.
    pub looked_up: Vec<(String, IpAddr)>,
    /// Names that could not be looked up, and why.
    pub unknown: Vec<(String, String)>,
}

impl Infrastructure {
    /// `setting` names the address for people. An address that cannot be read leads nowhere; the configuration's own
    /// check refuses it.
    pub fn endpoint(&mut self, setting: &'static str, address: &str) {
        let place = match address.strip_prefix("unix://") {
            Some(path) => Some(Place::Socket(unlinked(path))),
            None => Url::parse(address).ok().and_then(|url| {
                let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']');
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                Some(Place::Tcp { host, port: url.port_or_known_default() })
            }),
        };
        if let Some(place) = place {
            self.endpoints.push(Endpoint { setting, shown: plain_line(address, MAX_SHOWN), place });
        }
    }

    /// The container that this process runs in, by its id or the beginning of it. Anything else says nothing.
    pub fn own(&mut self, id: &str) {
        if id.len() >= SHORT_ID && id.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')) {
            self.own.push(id.to_owned());
        }
    }

    /// Host names that must be looked up to know where they lead.
    pub fn host_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .endpoints
            .iter()
            .filter_map(|endpoint| match &endpoint.place {
                Place::Tcp { host, .. } if host.parse::<IpAddr>().is_err() => Some(host.as_str()),
                Place::Tcp { .. } | Place::Socket(_) => None,
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Which part of ours the container is, as a sentence; none if it is none.
    pub fn part(&self, container: &Container, reach: &Reach) -> Option<String> {
        if self.own.iter().any(|own| container.id.as_str().starts_with(own)) {
            return Some("remediator itself runs in it".to_owned());
        }
        let leads = |endpoint: &&Endpoint| match &endpoint.place {
            Place::Tcp { host, port } => serves(container, reach, host, *port),
            Place::Socket(path) => reach.mounts.iter().any(|mount| holds(mount, path)),
        };
        let endpoint = self.endpoints.iter().find(leads)?;
        let how = match endpoint.place {
            Place::Tcp { .. } => "leads to it",
            Place::Socket(_) => "is in a folder that it mounts",
        };
        Some(format!("{} ({}) {how}", endpoint.setting, endpoint.shown))
    }

    /// Why nobody can say whether a container that is not known as a part of ours is one; none if somebody can.
    pub fn doubt(&self, unknown: &[(String, String)]) -> Option<String> {
        self.endpoints.iter().find_map(|endpoint| {
            let Place::Tcp { host, .. } = &endpoint.place else { return None };
            let (_, why) = unknown.iter().find(|(name, _)| name == host)?;
            Some(format!("nobody can say where {} ({}) leads: {why}", endpoint.setting, endpoint.shown))
        })
    }
}

fn serves(container: &Container, reach: &Reach, host: &str, port: Option<u16>) -> bool {
    if reach.names.iter().any(|name| name.eq_ignore_ascii_case(host)) {
        return true;
    }
    let mut addresses: Vec<IpAddr> = reach.looked_up.iter().filter(|(name, _)| name == host).map(|(_, ip)| *ip).collect();
    addresses.extend(host.parse::<IpAddr>());
    container.addresses.iter().any(|own| addresses.contains(own))
        || container.published.iter().any(|published| {
            Some(published.port()) == port && (published.ip().is_unspecified() || addresses.contains(&published.ip()))
        })
}

/// The mount is the socket, or a folder that it is in. The whole file system is in nobody's folder.
fn holds(mount: &str, socket: &str) -> bool {
    let mount = unlinked(mount);
    mount.len() > 1 && Path::new(socket).starts_with(&mount)
}

/// `/var/run` is `/run` on every system with a socket worth the name.
fn unlinked(path: &str) -> String {
    match path.strip_prefix("/var/run") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("/run{rest}"),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Health;

    fn container() -> Container {
        Container {
            id: "0123456789abcdef".repeat(4).parse().expect("an id"),
            name: "shop-1".parse().expect("a name"),
            image: String::new(),
            labels: Default::default(),
            running: true,
            status: String::new(),
            started_at: None,
            health: Health::None,
            health_log: Vec::new(),
            network_mode: "lab".to_owned(),
            addresses: vec!["10.0.0.7".parse().expect("an address"), "fd00::7".parse().expect("an address")],
            published: vec!["127.0.0.1:9093".parse().expect("an address"), "0.0.0.0:18080".parse().expect("an address")],
            restart_count: 0,
            infrastructure: None,
            infrastructure_unknown: None,
        }
    }

    fn reach() -> Reach {
        let own = |text: &str| text.to_owned();
        Reach {
            names: vec![own("shop-1"), own("Prom"), own("prom.lab")],
            mounts: vec![own("/"), own("/var/run/haproxy"), own("/data")],
            looked_up: vec![(own("am.example"), "10.0.0.7".parse().expect("an address"))],
            ..Reach::default()
        }
    }

    fn known(setting: &'static str, address: &str) -> Option<String> {
        let mut ours = Infrastructure::default();
        ours.endpoint(setting, address);
        ours.part(&container(), &reach())
    }

    #[test]
    fn whatever_leads_to_a_container_gives_it_away() {
        for address in [
            "http://prom:9090",
            "https://PROM.lab./prometheus",
            "tcp://shop-1:2375",
            "http://10.0.0.7:9090",
            "http://[fd00::7]",
            "http://me:hunter2@am.example:9093",
            "http://127.0.0.1:9093",
            "http://somewhere.else:18080",
            "unix:///run/haproxy/runtime.sock",
            "unix:///var/run/haproxy/x/runtime.sock",
        ] {
            let said = known("x.url", address).unwrap_or_else(|| panic!("{address} leads nowhere"));
            assert!(said.starts_with("x.url (") && !said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn what_leads_elsewhere_says_nothing() {
        for address in [
            "http://prometheus:9090",
            "http://10.0.0.8:9090",
            "http://10.0.0.8:9093",
            "http://other.example:9093",
            "http://prom.lab.example",
            "unix:///run/haproxy2/runtime.sock",
            "unix:///var/running/haproxy",
            "not an address",
        ] {
            assert_eq!(known("x.url", address), None, "{address}");
        }
    }

    #[test]
    fn the_process_knows_its_own_container() {
        for (own, is) in [("0123456789ab", true), ("0123456789ac", false), ("0123456789a", false), ("db-1", false), ("", false)] {
            let mut ours = Infrastructure::default();
            ours.own(own);
            assert_eq!(ours.part(&container(), &Reach::default()).is_some(), is, "{own}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_looked_up_leaves_a_doubt() {
        let mut ours = Infrastructure::default();
        ours.endpoint("prometheus.url", "http://10.0.0.8:9090");
        ours.endpoint("haproxy.address", "unix:///run/haproxy/runtime.sock");
        ours.endpoint("alertmanager.urls", "http://me:hunter2@AM.example.:9093");
        let unknown = |name: &str| vec![(name.to_owned(), "no such name".to_owned())];
        assert_eq!(ours.doubt(&[]), None);
        assert_eq!(ours.doubt(&unknown("elsewhere")), None);
        let said = ours.doubt(&unknown("am.example")).expect("a doubt");
        assert!(said.contains("alertmanager.urls") && said.contains("no such name") && !said.contains("hunter2"), "{said}");
    }
}
