//! `remediator.yml`: where the world is, who may call, and how much of anything is taken.

pub mod liveness;
mod retention;
pub(super) mod typed;

use std::net::SocketAddr;
use std::path::PathBuf;

use reqwest::Url;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use super::files::{playbook_files, token_files};
use super::sheet::{At, RateTyped, Sheet};
use super::tls::{self, Tls};
use crate::decide::playbook::Rate;
use crate::edge::redact::plain_line;
use crate::edge::socket::Address;
use crate::period::Period;
pub use retention::Retention;
use typed::{AlertmanagerTyped, DockerTyped, HaproxyTyped, LimitsTyped, PagesTyped, PrometheusTyped};

pub(super) use typed::Typed;

/// Checked settings.
#[derive(Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    /// Without a slash at the end; used in the links of pages.
    pub external_url: String,
    pub state_dir: PathBuf,
    /// The playbook files found, sorted; never empty.
    pub playbooks: Vec<PathBuf>,
    pub prometheus: Prometheus,
    pub alertmanager: Alertmanager,
    pub docker: Docker,
    pub haproxy: Haproxy,
    pub tokens: Tokens,
    /// None: plain HTTP.
    pub tls: Option<Tls>,
    pub limits: Limits,
    pub pages: Pages,
    pub retention: Retention,
    pub heartbeat: liveness::Heartbeat,
    pub watchdog: liveness::Watchdog,
    pub start_paused: bool,
    pub log: Log,
}

#[derive(Debug, PartialEq)]
pub struct Prometheus {
    /// A base URL.
    pub url: String,
    pub timeout: Period,
}

#[derive(Debug, PartialEq)]
pub struct Alertmanager {
    /// Base URLs, at least one.
    pub urls: Vec<String>,
    pub timeout: Period,
}

/// The two doors to the Engine: addresses that [`Address::parse`] takes.
#[derive(Debug, PartialEq)]
pub struct Docker {
    pub read: String,
    pub restart: String,
    pub timeout: Period,
    /// Labels, as name and value, that a container must carry to be ours.
    pub only: Vec<(String, String)>,
}

#[derive(Debug, PartialEq)]
pub struct Haproxy {
    /// An address that [`Address::parse`] takes.
    pub address: String,
    pub timeout: Period,
}

/// Bearer tokens by role; two each while one is being replaced.
#[derive(Debug, Default)]
pub struct Tokens {
    pub receiver: Vec<SecretString>,
    pub reader: Vec<SecretString>,
    pub operator: Vec<SecretString>,
}

#[derive(Debug, PartialEq)]
pub struct Limits {
    /// Over all playbooks.
    pub fleet: Rate,
    /// Over all playbooks of one service.
    pub group: Rate,
    /// Largest body of a webhook, in bytes.
    pub body: usize,
    /// Most alerts in one webhook.
    pub alerts: usize,
}

#[derive(Debug, PartialEq)]
pub struct Pages {
    /// How often a page is sent again.
    pub every: Period,
    /// How long a page stays at least.
    pub hold: Period,
    /// How often a refused condition is asked again.
    pub ask_again: Period,
}

#[derive(Debug, PartialEq)]
pub struct Log {
    pub format: LogFormat,
    pub level: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Human,
    Json,
}

/// Largest webhook body that may be asked for. 5,000 alerts are 4 MB, and the body is held in memory.
const MAX_BODY: usize = 256 << 20;

/// How long an answer may take: half of what Prometheus itself allows a scrape.
const TIMEOUT: Period = Period::from_secs(5);

/// HAProxy answers from memory.
const HAPROXY_TIMEOUT: Period = Period::from_secs(2);

/// The settings; what is wrong goes into the sheet.
pub(super) fn read(sheet: &mut Sheet) -> Option<Settings> {
    let documents = sheet.documents::<Typed>();
    match documents.as_slice() {
        [] if sheet.errors.is_empty() => {
            sheet.wrong_file("is empty", "Write at least state_dir, prometheus, alertmanager, docker and haproxy");
        }
        [_, second, ..] => sheet.wrong(second.referenced, "a second document", "Write one document"),
        _ => {}
    }
    let At { value: typed, referenced: at, .. } = documents.into_iter().next()?;

    let listen = match &typed.listen {
        Some(text) => address(sheet, text),
        None => Some(SocketAddr::from(([127, 0, 0, 1], 8090))),
    };
    let tokens = Tokens {
        receiver: token_files(sheet, "receiver", &typed.tokens.receiver),
        reader: token_files(sheet, "reader", &typed.tokens.reader),
        operator: token_files(sheet, "operator", &typed.tokens.operator),
    };
    guarded_door(sheet, &typed, listen);
    let tls = tls::read(sheet, typed.tls.as_ref());
    let external_url = external_url(sheet, &typed, listen);
    let state_dir = sheet.required(at, &typed.state_dir, "state_dir", "Name the folder for the journal").map(|text| {
        if text.value.is_empty() {
            sheet.wrong(text.referenced, "state_dir is empty", "Name the folder for the journal");
        }
        sheet.folder.join(&text.value)
    });
    let playbooks = playbook_files(sheet, typed.playbooks.as_ref());
    let prometheus = sheet.required(at, &typed.prometheus, "prometheus", "Write prometheus: { url: ... }");
    let prometheus = prometheus.map(|typed| self::prometheus(sheet, typed));
    let alertmanager = sheet.required(at, &typed.alertmanager, "alertmanager", "Write alertmanager: { urls: [...] }");
    let alertmanager = alertmanager.map(|typed| self::alertmanager(sheet, typed));
    let docker = sheet.required(at, &typed.docker, "docker", "Write docker: { read: unix://..., restart: unix://... }");
    let docker = docker.map(|typed| self::docker(sheet, typed));
    let haproxy = sheet.required(at, &typed.haproxy, "haproxy", "Write haproxy: { address: unix://... }");
    let haproxy = haproxy.map(|typed| self::haproxy(sheet, typed));
    let (limits, pages) = (limits(sheet, &typed.limits), pages(sheet, &typed.pages));
    let retention = retention::read(sheet, &typed.retention);
    let (heartbeat, watchdog) = (liveness::heartbeat(sheet, &typed.heartbeat), liveness::watchdog(sheet, &typed.watchdog));
    Some(Settings {
        listen: listen?,
        external_url: external_url?,
        state_dir: state_dir?,
        playbooks,
        prometheus: prometheus??,
        alertmanager: alertmanager?,
        docker: docker??,
        haproxy: haproxy??,
        tokens,
        tls,
        limits,
        pages,
        retention,
        heartbeat,
        watchdog,
        start_paused: typed.start_paused,
        log: Log { format: typed.log.format, level: typed.log.level },
    })
}

fn external_url(sheet: &mut Sheet, typed: &Typed, listen: Option<SocketAddr>) -> Option<String> {
    if let Some(text) = &typed.external_url {
        let url = url(sheet, text)?;
        if Url::parse(&url).is_ok_and(|url| !url.username().is_empty() || url.password().is_some()) {
            let sentence = "external_url holds a user name or password, which would go out with every page";
            sheet.wrong(text.referenced, sentence, "Leave it out; whoever follows a link has their own");
        }
        return Some(url);
    }
    let listen = listen?;
    let scheme = if typed.tls.is_some() { "https" } else { "http" };
    if let Some(text) = typed.listen.as_ref().filter(|_| listen.ip().is_unspecified()) {
        let sentence =
            format!("external_url is not set, so links in pages will lead to {scheme}://{listen}, which is no address to go to");
        sheet.warn(text.referenced, sentence);
    }
    Some(format!("{scheme}://{listen}"))
}

fn prometheus(sheet: &mut Sheet, typed: &PrometheusTyped) -> Option<Prometheus> {
    let timeout = sheet.some_period("prometheus.timeout", typed.timeout.as_ref(), TIMEOUT);
    Some(Prometheus { url: url(sheet, &typed.url)?, timeout })
}

fn alertmanager(sheet: &mut Sheet, typed: &AlertmanagerTyped) -> Alertmanager {
    let timeout = sheet.some_period("alertmanager.timeout", typed.timeout.as_ref(), TIMEOUT);
    if typed.urls.value.is_empty() {
        let help = "Name at least one Alertmanager";
        sheet.wrong(typed.urls.referenced, "alertmanager.urls is empty, so nobody could be paged", help);
    }
    Alertmanager { urls: typed.urls.value.iter().filter_map(|text| url(sheet, text)).collect(), timeout }
}

fn docker(sheet: &mut Sheet, typed: &DockerTyped) -> Option<Docker> {
    let timeout = sheet.some_period("docker.timeout", typed.timeout.as_ref(), TIMEOUT);
    let read = endpoint(sheet, "Docker's read door", &typed.read);
    let restart = endpoint(sheet, "Docker's restart door", &typed.restart);
    let only = typed.only.iter().filter_map(|text| label(sheet, text)).collect();
    Some(Docker { read: read?, restart: restart?, timeout, only })
}

/// `name=value`, as Docker's own filters have it.
fn label(sheet: &mut Sheet, text: &At<String>) -> Option<(String, String)> {
    let parts = text.value.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty());
    if parts.is_none() {
        let shown = plain_line(&text.value, 100);
        let help = "Write name=value, such as com.docker.compose.project=shop";
        sheet.wrong(text.referenced, format!("`{shown}` is not a label with its value"), help);
    }
    parts.map(|(name, value)| (name.to_owned(), value.to_owned()))
}

fn haproxy(sheet: &mut Sheet, typed: &HaproxyTyped) -> Option<Haproxy> {
    let timeout = sheet.some_period("haproxy.timeout", typed.timeout.as_ref(), HAPROXY_TIMEOUT);
    Some(Haproxy { address: endpoint(sheet, "HAProxy's runtime API", &typed.address)?, timeout })
}

/// Without any token whoever reaches the port may start a drain (the story `no_credentials`).
fn guarded_door(sheet: &mut Sheet, typed: &Typed, listen: Option<SocketAddr>) {
    let none = typed.tokens.receiver.is_empty() && typed.tokens.reader.is_empty() && typed.tokens.operator.is_empty();
    if let (Some(text), Some(listen), true) = (&typed.listen, listen, none)
        && !listen.ip().is_loopback()
    {
        sheet.wrong(
            text.referenced,
            format!(
                "{listen} can be reached from other machines and no tokens are configured, \
                 so anyone could have a container restarted"
            ),
            "Listen on 127.0.0.1, or name token files under `tokens`",
        );
    }
}

fn limits(sheet: &mut Sheet, typed: &LimitsTyped) -> Limits {
    let minute = Period::from_secs(60);
    let rate = |sheet: &mut Sheet, name: &str, typed: &Option<RateTyped>, burst| match typed {
        Some(typed) => sheet.rate(name, typed),
        None => Rate { per: minute, burst },
    };
    let size = |sheet: &mut Sheet, name: &str, typed: &Option<At<usize>>, default: usize, most: usize| match typed {
        Some(at) if at.value == 0 || at.value > most => {
            sheet.wrong(at.referenced, format!("{name} is {}", at.value), format!("Write a number from 1 to {most}"));
            default
        }
        Some(at) => at.value,
        None => default,
    };
    Limits {
        fleet: rate(sheet, "limits.fleet", &typed.fleet, 5),
        group: rate(sheet, "limits.group", &typed.group, 3),
        // One group of 5,000 alerts is 3.95 MB (measured); refusing it would bring the same body back for ever.
        body: size(sheet, "limits.body", &typed.body, 8 << 20, MAX_BODY),
        alerts: size(sheet, "limits.alerts", &typed.alerts, 10_000, 1_000_000),
    }
}

/// Twice within Alertmanager's default `resolve_timeout`, with room for one that was lost.
const RAREST_PAGE: Period = Period::from_secs(120);

fn pages(sheet: &mut Sheet, typed: &PagesTyped) -> Pages {
    let every = sheet.some_period("pages.every", typed.every.as_ref(), Period::from_secs(60));
    let hold = sheet.some_period("pages.hold", typed.hold.as_ref(), Period::from_secs(600));
    let ask_again = sheet.some_period("pages.ask_again", typed.ask_again.as_ref(), Period::from_secs(30));
    if let Some(at) = typed.hold.as_ref().or(typed.every.as_ref())
        && hold < every
    {
        sheet.wrong(
            at.referenced,
            format!("pages.hold ({hold}) is shorter than pages.every ({every}), so a page would end before it is sent again"),
            "Make hold at least as long as every",
        );
    } else if let Some(at) = typed.every.as_ref().filter(|_| every > RAREST_PAGE) {
        let sentence =
            format!("pages.every is {every}: Alertmanager ends what it is not told of for its resolve_timeout, 5m if not set");
        sheet.wrong(at.referenced, sentence, format!("Write at most {RAREST_PAGE}"));
    }
    Pages { every, hold, ask_again }
}

fn address(sheet: &mut Sheet, text: &At<String>) -> Option<SocketAddr> {
    let parsed = text.value.parse().ok();
    if parsed.is_none() {
        sheet.wrong(
            text.referenced,
            format!("`{}` is not an address to listen on", text.value),
            "Write an IP address and a port, such as 127.0.0.1:8090",
        );
    }
    parsed
}

/// A base URL, without a slash at the end.
fn url(sheet: &mut Sheet, text: &At<String>) -> Option<String> {
    let base = |url: &Url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none() && url.fragment().is_none()
    };
    if !Url::parse(&text.value).is_ok_and(|url| base(&url)) {
        let shown = plain_line(&text.value, 200);
        sheet.wrong(
            text.referenced,
            format!("`{shown}` is not a base URL"),
            "Write one such as http://127.0.0.1:9090, without ? or #",
        );
        return None;
    }
    Some(text.value.trim_end_matches('/').to_owned())
}

fn endpoint(sheet: &mut Sheet, what: &'static str, text: &At<String>) -> Option<String> {
    let checked = Address::parse(what, &text.value);
    checked.map_err(|error| sheet.wrong(text.referenced, error.to_string(), "")).ok().map(|_| text.value.clone())
}
