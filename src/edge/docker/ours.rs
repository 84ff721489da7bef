//! What leads to a container: read out of the Engine's answer, and looked up where the configuration names a host.
//!
//! Mounts and names are compared and dropped; they are no evidence.

use std::net::IpAddr;
use std::time::Duration;

use bollard::models;
use futures_util::future::join_all;

use crate::target::infrastructure::{Infrastructure, Reach};

/// How long a name may take to be looked up. Docker's own resolver answers from memory, and a name that cannot be looked
/// up leads nowhere that we could reach either.
const LOOK_UP: Duration = Duration::from_millis(500);
/// Characters of an id that Docker gives out as a name.
const SHORT_ID: usize = 12;

/// By which names and through which folders the container can be reached.
pub(super) fn reach(answer: &models::ContainerInspectResponse) -> Reach {
    let mut names: Vec<String> = Vec::new();
    names.extend(answer.name.as_ref().map(|name| name.trim_start_matches('/').to_owned()));
    names.extend(answer.id.as_ref().and_then(|id| id.get(..SHORT_ID)).map(str::to_owned));
    names.extend(answer.config.as_ref().and_then(|config| config.hostname.clone()).filter(|_| !on_the_host(answer)));
    let networks = answer.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let mut qualified = Vec::new();
    for (network, endpoint) in networks.into_iter().flatten() {
        names.extend(endpoint.aliases.iter().flatten().chain(endpoint.dns_names.iter().flatten()).cloned());
        // Docker's resolver takes `name.network` as well.
        qualified.extend(names.iter().map(|name| format!("{name}.{network}")));
    }
    names.extend(qualified);
    names.retain(|name| !name.is_empty());
    let mounts = answer.mounts.iter().flatten().flat_map(|mount| [mount.source.clone(), mount.destination.clone()]);
    Reach { names, mounts: mounts.flatten().filter(|path| !path.is_empty()).collect(), looked_up: Vec::new() }
}

/// Then its host name is the host's, which names everything there.
fn on_the_host(answer: &models::ContainerInspectResponse) -> bool {
    answer.host_config.as_ref().and_then(|config| config.network_mode.as_deref()) == Some("host")
}

/// Where the configuration's names lead now.
pub(super) async fn look_up(ours: &Infrastructure) -> Vec<(String, IpAddr)> {
    let found = join_all(ours.host_names().into_iter().map(|name| async move {
        let looked_up = tokio::time::timeout(LOOK_UP, tokio::net::lookup_host((name, 0))).await;
        let addresses = looked_up.ok().and_then(Result::ok).into_iter().flatten();
        addresses.map(|address| (name.to_owned(), address.ip())).collect::<Vec<_>>()
    }));
    found.await.into_iter().flatten().collect()
}
