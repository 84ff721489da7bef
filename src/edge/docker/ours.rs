//! What leads to a container: read out of the Engine's answer, and looked up where the configuration names a host.
//!
//! Mounts and names are compared and dropped; they are no evidence.

use std::net::IpAddr;
use std::time::Duration;

use bollard::models;
use futures_util::future::join_all;

use crate::edge::redact::plain_line;
use crate::target::infrastructure::{Infrastructure, Reach};

/// How long a name may take to be looked up. Docker's own resolver answers from memory.
const LOOK_UP: Duration = Duration::from_millis(500);
/// Longest reason of a failure that is told, in bytes.
const MAX_WHY: usize = 200;
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
    Reach { names, mounts: mounts.flatten().filter(|path| !path.is_empty()).collect(), ..Reach::default() }
}

/// Then its host name is the host's, which names everything there.
fn on_the_host(answer: &models::ContainerInspectResponse) -> bool {
    answer.host_config.as_ref().and_then(|config| config.network_mode.as_deref()) == Some("host")
}

/// Where the configuration's names lead now, into `reach`.
pub(super) async fn look_up(ours: &Infrastructure, reach: &mut Reach) {
    let found = join_all(ours.host_names().into_iter().map(|name| async move {
        let looked_up = tokio::time::timeout(LOOK_UP, tokio::net::lookup_host((name, 0))).await;
        let why = match looked_up {
            Ok(Ok(addresses)) => {
                let addresses: Vec<IpAddr> = addresses.map(|address| address.ip()).collect();
                if !addresses.is_empty() {
                    return (name, Ok(addresses));
                }
                "it has no address".to_owned()
            }
            Ok(Err(error)) => plain_line(&error.to_string(), MAX_WHY),
            Err(_) => format!("looking it up took more than {} ms", LOOK_UP.as_millis()),
        };
        (name, Err(why))
    }));
    for (name, found) in found.await {
        match found {
            Ok(addresses) => reach.looked_up.extend(addresses.into_iter().map(|address| (name.to_owned(), address))),
            Err(why) => reach.unknown.push((name.to_owned(), why)),
        }
    }
}
