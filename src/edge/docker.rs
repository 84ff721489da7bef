//! The Docker Engine through its two doors: one that reads, one that passes nothing but a restart.
//!
//! bollard speaks the API over a connection of ours (`door`). Requests carry no API version (bollard 0.21 joins the
//! path to the version prefix, which drops it), which is what the doors expect; a test pins it.
//!
//! Only a [`ContainerId`] reaches a path, and nothing of a container's environment is taken out of an answer.
//! What remains: between the caller's last look and a restart another container cannot take the id, but this one can
//! be restarted by somebody else; Docker has no fencing.

mod door;
mod ours;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{self, ContainerStateStatusEnum, HealthStatusEnum};
use bollard::query_parameters::{ListContainersOptions, LogsOptions, RestartContainerOptions};
use futures_util::TryStreamExt;
use jiff::Timestamp;

use self::door::{Door, Trouble};
use super::BadAddress;
use super::redact::plain_line;
use super::socket::Address;
use crate::reason::Reason;
use crate::target::infrastructure::{Infrastructure, Reach};
use crate::target::{ContainerId, ContainerName, LABEL_ENABLE, LABEL_PREFIX};
use crate::world::{Answer, Call, Container, ContainerSummary, Engine, Health, MAX_LOG_LINE, Unanswered};

/// Most log lines asked for: the Engine cuts a line at 16 KiB, so these fit into `door::MAX_ANSWER`.
const MAX_LOG_TAIL: u32 = 1_000;

/// How many answers of the health check are kept; the Engine itself keeps five.
const HEALTH_LOG: usize = 5;

/// Longest answer of the health check kept, in bytes.
const MAX_HEALTH_LINE: usize = 500;

/// The restart door passes `t` of one to three digits.
const MAX_GRACE: u32 = 999;

/// Nobody's id: harmless should a door let the call through.
const NO_CONTAINER: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The Engine of one host.
#[derive(Clone, Debug)]
pub struct Docker {
    read: Door,
    restart: Door,
    timeout: Duration,
    /// Labels that a container must carry to be ours.
    only: Vec<(String, String)>,
    /// What we stand on ourselves.
    ours: Infrastructure,
}

impl Docker {
    /// Addresses are `unix:///path` or `tcp://host:port`. `timeout` bounds every call but the restart, which brings its
    /// own; nothing is connected yet.
    ///
    /// # Errors
    /// Not such an address.
    pub fn new(read: &str, restart: &str, timeout: Duration) -> Result<Self, BadAddress> {
        Ok(Docker {
            read: Door { name: "read door", address: Address::parse("Docker's read door", read)? },
            restart: Door { name: "restart door", address: Address::parse("Docker's restart door", restart)? },
            timeout,
            only: Vec::new(),
            ours: Infrastructure::default(),
        })
    }

    /// Only containers that carry all of these labels can be replicas. Two environments on one Engine may use the same
    /// names for their replicas.
    #[must_use]
    pub fn only(self, labels: Vec<(String, String)>) -> Self {
        Docker { only: labels, ..self }
    }

    /// Containers that are a part of this are told as such when they are inspected.
    #[must_use]
    pub fn ours(self, ours: Infrastructure) -> Self {
        Docker { ours, ..self }
    }

    async fn ask<T, F>(&self, what: &str, call: impl FnOnce(bollard::Docker) -> F + Send) -> Answer<T>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let outcome = self.read.call(self.timeout, self.timeout, call).await;
        outcome.map_err(|trouble| unavailable(format!("{what} at {}: {}", self.read, trouble.text())))
    }
}

#[async_trait]
impl Engine for Docker {
    async fn ping(&self) -> Answer<()> {
        let said = self.ask("ping", |engine| async move { engine.ping().await }).await?;
        if said.trim() == "OK" {
            return Ok(());
        }
        Err(unavailable(format!("ping at {}: answered `{}`, not OK", self.read, plain_line(said.trim(), 100))))
    }

    async fn containers(&self) -> Answer<Vec<ContainerSummary>> {
        let options = ListContainersOptions { all: true, ..Default::default() };
        let listed = self.ask("list containers", |engine| async move { engine.list_containers(Some(options)).await }).await?;
        let read = listed.into_iter().filter_map(|one| summary(one, &self.only).transpose()).collect::<Result<_, _>>();
        read.map_err(|why: String| unavailable(format!("list containers at {}: {why}", self.read)))
    }

    async fn inspect(&self, id: &ContainerId) -> Answer<Container> {
        let what = format!("inspect container {id}");
        let answer = self.ask(&what, |engine| async move { engine.inspect_container(id.as_str(), None).await }).await?;
        let mut reach = ours::reach(&answer);
        let mut read = container(answer, id).map_err(|why| unavailable(format!("{what} at {}: {why}", self.read)))?;
        ours::look_up(&self.ours, &mut reach).await;
        read.infrastructure = self.ours.part(&read, &reach);
        // What is known as ours by other ways is no doubt.
        read.infrastructure_unknown = self.ours.doubt(&reach.unknown).filter(|_| read.infrastructure.is_none());
        Ok(read)
    }

    async fn own_names(&self) -> Answer<usize> {
        let mut reach = Reach::default();
        ours::look_up(&self.ours, &mut reach).await;
        match self.ours.doubt(&reach.unknown) {
            None => Ok(self.ours.host_names().len()),
            Some(why) => Err(Unanswered::new(Reason::OwnInfrastructureUnknown, why)),
        }
    }

    async fn logs(&self, id: &ContainerId, tail: u32) -> Answer<Vec<String>> {
        let tail = tail.min(MAX_LOG_TAIL);
        let options = LogsOptions { stdout: true, stderr: true, tail: tail.to_string(), ..Default::default() };
        let read = |engine: bollard::Docker| async move {
            let mut lines = LogLines::new(tail as usize);
            let mut frames = std::pin::pin!(engine.logs(id.as_str(), Some(options)));
            while let Some(frame) = frames.try_next().await? {
                lines.take(&frame);
            }
            Ok(lines.finish())
        };
        self.ask(&format!("logs of container {id}"), read).await
    }

    async fn restart(&self, id: &ContainerId, grace_seconds: u32, within: Duration) -> Call {
        let what = format!("restart of container {id} at {}", self.restart);
        if grace_seconds > MAX_GRACE {
            return Call::Failed(format!("{what}: a grace of {grace_seconds} s is more than the door passes ({MAX_GRACE} s)"));
        }
        let options = RestartContainerOptions { t: i32::try_from(grace_seconds).ok(), signal: None };
        let call = |engine: bollard::Docker| async move { engine.restart_container(id.as_str(), Some(options)).await };
        match self.restart.call(self.timeout, within, call).await {
            Ok(()) => Call::Done,
            // The door or the Engine refused it before anything was stopped. From 500 on the Engine was at work.
            Err(trouble @ (Trouble::NotSent(_) | Trouble::Said(400..500, _))) => {
                Call::Failed(format!("{what}: {}", trouble.text()))
            }
            Err(trouble) => Call::Unknown(format!("{what}: {}", trouble.text())),
        }
    }

    async fn forbidden_call_is_refused(&self) -> Answer<bool> {
        let reading = self.restart.call(self.timeout, self.timeout, |engine| async move { engine.list_containers(None).await });
        let listed = refused(&self.restart, reading.await.map(drop))?;
        let options = RestartContainerOptions { t: Some(0), signal: None };
        let restarting = self.read.call(self.timeout, self.timeout, |engine| async move {
            engine.restart_container(NO_CONTAINER, Some(options)).await
        });
        let restarted = refused(&self.read, restarting.await)?;
        Ok(listed && restarted)
    }
}

/// Only the filter's own 403 is a refusal: any other status came from behind the door.
fn refused(door: &Door, outcome: Result<(), Trouble>) -> Answer<bool> {
    match outcome {
        Err(Trouble::Said(403, _)) => Ok(true),
        Ok(()) | Err(Trouble::Said(..) | Trouble::Misread(_)) => Ok(false),
        Err(trouble) => Err(unavailable(format!("a forbidden call at {door}: {}", trouble.text()))),
    }
}

/// One listed container.
///
/// An entry that cannot be read is left out if it cannot concern us, and an error if it can: if it is labelled
/// `remediator.enable`, or lives in another container's network namespace (it may be the guest of one of ours).
fn summary(listed: models::ContainerSummary, only: &[(String, String)]) -> Result<Option<ContainerSummary>, String> {
    let mut labels: BTreeMap<String, String> = listed.labels.unwrap_or_default().into_iter().collect();
    // Somebody else's container stays in the list, because it may live in the network of one of ours; but it is no replica.
    if !only.iter().all(|(name, value)| labels.get(name) == Some(value)) {
        labels.retain(|name, _| !name.starts_with(LABEL_PREFIX));
    }
    let network_mode = listed.host_config.and_then(|config| config.network_mode);
    let concerns_us = labels.contains_key(LABEL_ENABLE) || network_mode.as_ref().is_some_and(|m| m.starts_with("container:"));
    let read = || -> Result<ContainerSummary, String> {
        let id = listed.id.unwrap_or_default().parse::<ContainerId>().map_err(|error| error.to_string())?;
        // Links show up as further names, `/other/alias`.
        let names = listed.names.unwrap_or_default();
        let own = names.iter().filter_map(|name| name.strip_prefix('/')).find(|name| !name.contains('/'));
        let own = own.ok_or_else(|| format!("container {id} has no name of its own"))?;
        let name = own.parse::<ContainerName>().map_err(|error| format!("container {id}: {error}"))?;
        let network_mode = network_mode.ok_or_else(|| format!("container {id} has no network mode"))?;
        Ok(ContainerSummary { id, name, labels, network_mode })
    };
    match read() {
        Ok(summary) => Ok(Some(summary)),
        Err(why) if concerns_us => Err(why),
        Err(_) => Ok(None),
    }
}

/// One inspected container. The environment, the command line and the mounts stay where they are, and so do labels of
/// other programs, which may hold passwords.
fn container(answer: models::ContainerInspectResponse, asked: &ContainerId) -> Result<Container, String> {
    let id: ContainerId = answer.id.unwrap_or_default().parse().map_err(|error: crate::target::NameError| error.to_string())?;
    if id != *asked {
        return Err(format!("the answer is about container {id}"));
    }
    let name = answer.name.unwrap_or_default();
    let name: ContainerName =
        name.strip_prefix('/').unwrap_or(&name).parse().map_err(|error: crate::target::NameError| error.to_string())?;
    let config = answer.config.ok_or("the answer has no Config")?;
    let state = answer.state.ok_or("the answer has no State")?;
    let network_mode = answer.host_config.and_then(|config| config.network_mode).ok_or("the answer has no network mode")?;
    let network = answer.network_settings.unwrap_or_default();
    let health = state.health.unwrap_or_default();
    let log = health.log.unwrap_or_default();
    let health_log = log.iter().skip(log.len().saturating_sub(HEALTH_LOG)).map(|entry| {
        let said = entry.output.as_deref().unwrap_or_default();
        plain_line(&format!("exit {}: {}", entry.exit_code.unwrap_or_default(), said.trim()), MAX_HEALTH_LINE)
    });
    let endpoints = network.networks.unwrap_or_default().into_values();
    let mut addresses: Vec<IpAddr> = endpoints
        .flat_map(|endpoint| [endpoint.ip_address, endpoint.global_ipv6_address])
        .filter_map(|text| text?.parse().ok())
        .collect();
    addresses.sort();
    let ports = network.ports.unwrap_or_default().into_values().flatten().flatten();
    let mut published: Vec<SocketAddr> = ports.filter_map(published_at).collect();
    published.sort();
    Ok(Container {
        id,
        name,
        image: config.image.or(answer.image).unwrap_or_default(),
        labels: config.labels.unwrap_or_default().into_iter().filter(|(name, _)| name.starts_with(LABEL_PREFIX)).collect(),
        // The Engine says of one that is paused or about to be started again that it runs.
        running: state.running == Some(true)
            && matches!(state.status, None | Some(ContainerStateStatusEnum::EMPTY | ContainerStateStatusEnum::RUNNING)),
        status: state.status.map(|status| status.to_string()).unwrap_or_default(),
        started_at: started_at(state.started_at.as_deref())?,
        health: match health.status {
            None | Some(HealthStatusEnum::EMPTY | HealthStatusEnum::NONE) => Health::None,
            Some(HealthStatusEnum::STARTING) => Health::Starting,
            Some(HealthStatusEnum::HEALTHY) => Health::Healthy,
            Some(HealthStatusEnum::UNHEALTHY) => Health::Unhealthy,
        },
        health_log: health_log.collect(),
        network_mode,
        addresses,
        published,
        restart_count: answer.restart_count.unwrap_or_default(),
        infrastructure: None,
        infrastructure_unknown: None,
    })
}

/// A list as its bytes; none when they are not the Engine's JSON. For fuzzing.
pub(crate) fn read_list(body: &[u8], only: &[(String, String)]) -> Option<Result<Vec<ContainerSummary>, String>> {
    let listed: Vec<models::ContainerSummary> = serde_json::from_slice(body).ok()?;
    Some(listed.into_iter().filter_map(|listed| summary(listed, only).transpose()).collect())
}

/// An inspected container as its bytes; none when they are not the Engine's JSON. For fuzzing.
pub(crate) fn read_inspected(body: &[u8], asked: &ContainerId) -> Option<Result<Container, String>> {
    Some(container(serde_json::from_slice(body).ok()?, asked))
}

/// A log of frames of eight bytes; for fuzzing.
pub(crate) fn read_logs(body: &[u8], keep: usize) -> Vec<String> {
    let mut lines = LogLines::new(keep);
    for frame in body.chunks(8) {
        let message = frame.to_vec().into();
        let odd = frame.first().is_some_and(|byte| byte % 2 == 1);
        lines.take(&if odd { LogOutput::StdErr { message } } else { LogOutput::StdOut { message } });
    }
    lines.finish()
}

fn published_at(binding: models::PortBinding) -> Option<SocketAddr> {
    let port = binding.host_port?.parse().ok()?;
    let ip = match binding.host_ip.as_deref() {
        None | Some("") => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(text) => text.parse().ok()?,
    };
    Some(SocketAddr::new(ip, port))
}

/// Go's zero time stands for "never".
fn started_at(text: Option<&str>) -> Result<Option<Timestamp>, String> {
    match text {
        None | Some("") => Ok(None),
        Some(text) if text.starts_with("0001-01-01T") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| format!("StartedAt `{}` is not a time", plain_line(text, 40))),
    }
}

/// Puts frames together to lines, each stream by itself, and keeps the last ones.
struct LogLines {
    keep: usize,
    lines: VecDeque<String>,
    /// Unfinished lines: of standard output (or a terminal), and of standard error.
    open: [Vec<u8>; 2],
}

impl LogLines {
    fn new(keep: usize) -> Self {
        LogLines { keep, lines: VecDeque::new(), open: [Vec::new(), Vec::new()] }
    }

    fn take(&mut self, frame: &LogOutput) {
        let stream = usize::from(matches!(frame, LogOutput::StdErr { .. }));
        for piece in frame.as_ref().split_inclusive(|byte| *byte == b'\n') {
            self.open[stream].extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.close(stream);
            }
        }
    }

    fn close(&mut self, stream: usize) {
        let line = std::mem::take(&mut self.open[stream]);
        if line.is_empty() {
            return;
        }
        self.lines.push_back(plain_line(&String::from_utf8_lossy(&line), MAX_LOG_LINE));
        if self.lines.len() > self.keep {
            self.lines.pop_front();
        }
    }

    fn finish(mut self) -> Vec<String> {
        self.close(0);
        self.close(1);
        self.lines.into()
    }
}

fn unavailable(detail: impl Into<String>) -> Unanswered {
    Unanswered::new(Reason::DockerUnavailable, detail)
}
