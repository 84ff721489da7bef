//! `remediator.yml` as it is typed. What has no default is optional here, so that everything missing can be told at once.
//!
//! The doc comments are what an editor shows beside a field (`schema/remediator.schema.json`). One that ends in a
//! paragraph `WARNING: ...` makes its field a dangerous one: config/example.yml must warn, too, and a test sees to it.

use schemars::JsonSchema;
use serde::Deserialize;

use super::LogFormat;
use super::liveness::{HeartbeatTyped, WatchdogTyped};
use crate::config::schema::{Bytes, Duration};
use crate::config::sheet::{At, RateTyped};

/// Where the world is, who may call, and how much of anything is taken.
#[derive(Deserialize, JsonSchema)]
#[schemars(title = "remediator.yml")]
#[serde(deny_unknown_fields)]
pub struct Typed {
    /// IP address and port to listen on. Default: 127.0.0.1:8090.
    ///
    /// WARNING: beyond loopback whoever reaches the port may ask for a drain and a restart; it refuses to start there without tokens.
    #[schemars(regex(pattern = r"^[0-9A-Fa-f.:\[\]]+:[0-9]{1,5}$"))]
    pub listen: Option<At<String>>,
    /// Base URL under which people reach remediator; used in the links of pages. Default: http:// and the address of `listen`.
    #[schemars(regex(pattern = r"^https?://"))]
    pub external_url: Option<At<String>>,
    /// Folder for the journal, from this file's folder on. Required.
    ///
    /// WARNING: the journal is the memory of every cooldown, budget and breaker. Another or a fresh folder forgets them all.
    #[schemars(required, length(min = 1))]
    pub state_dir: Option<At<String>>,
    /// Playbook files; `*` may stand in the file's name. Default: /etc/remediator/playbooks/*.yml. Matching nothing is an error.
    ///
    /// WARNING: every file that matches counts at the next start, a forgotten copy that says `mode: live`, too.
    #[schemars(length(min = 1))]
    pub playbooks: Option<At<Vec<At<String>>>>,
    /// The Prometheus that evaluates the alerts' rules. Required.
    #[schemars(required)]
    pub prometheus: Option<PrometheusTyped>,
    /// Where silences are asked for and pages are raised. Required.
    #[schemars(required)]
    pub alertmanager: Option<AlertmanagerTyped>,
    /// The two doors to the Docker Engine. Required.
    #[schemars(required)]
    pub docker: Option<DockerTyped>,
    /// The load balancer. Required.
    #[schemars(required)]
    pub haproxy: Option<HaproxyTyped>,
    /// Files with bearer tokens, by role. Default: none, which is allowed on loopback only.
    #[serde(default)]
    pub tokens: TokensTyped,
    /// A certificate for the listener. Default: none, which is plain HTTP.
    pub tls: Option<TlsTyped>,
    /// How much of anything is taken, over all playbooks.
    #[serde(default)]
    pub limits: LimitsTyped,
    /// How pages are kept up, and how often something refused is asked again.
    #[serde(default)]
    pub pages: PagesTyped,
    /// How long the journal and audit.jsonl are kept.
    #[serde(default)]
    pub retention: RetentionTyped,
    /// The synthetic alert that proves that the pipeline decides.
    #[serde(default)]
    pub heartbeat: HeartbeatTyped,
    /// The always-firing alert that proves that alerts reach us.
    #[serde(default)]
    pub watchdog: WatchdogTyped,
    /// true: pause everything at each start, until an operator resumes. Default: false.
    ///
    /// WARNING: while it is paused nothing is remediated, and everything that fires pages a human.
    #[serde(default)]
    pub start_paused: bool,
    /// What goes to stderr.
    #[serde(default)]
    pub log: LogTyped,
}

/// The Prometheus that evaluates the alerts' rules.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrometheusTyped {
    /// Base URL, such as http://127.0.0.1:9090. Required.
    ///
    /// WARNING: it decides what is true. Name the one whose rules raise the alerts and that scrapes the replicas itself.
    #[schemars(regex(pattern = r"^https?://"))]
    pub url: At<String>,
    /// How long an answer may take. Default: 5s. Too short: everything ends as unknown, and pages.
    #[schemars(with = "Option<Duration>")]
    pub timeout: Option<At<String>>,
}

/// Where silences are asked for and pages are raised.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertmanagerTyped {
    /// Base URLs of every peer of one cluster. Required, at least one.
    ///
    /// WARNING: this is the only way to reach a human. A wrong address here means silence.
    #[schemars(length(min = 1), inner(regex(pattern = r"^https?://")))]
    pub urls: At<Vec<At<String>>>,
    /// How long an answer may take. Default: 5s.
    #[schemars(with = "Option<Duration>")]
    pub timeout: Option<At<String>>,
}

/// The two doors to the Docker Engine.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DockerTyped {
    /// The door that only reads: unix:///path or tcp://host:port. Required.
    ///
    /// WARNING: it shows the environment of every container of the host, secrets in it included.
    #[schemars(regex(pattern = r"^(unix:///|tcp://)"))]
    pub read: At<String>,
    /// The door that passes nothing but a restart: unix:///path or tcp://host:port. Required.
    ///
    /// WARNING: never the Engine's own socket: whoever holds that is root on the host. The door restarts any container of the host.
    #[schemars(regex(pattern = r"^(unix:///|tcp://)"))]
    pub restart: At<String>,
    /// How long an answer may take; a restart has its `grace` on top. Default: 5s.
    #[schemars(with = "Option<Duration>")]
    pub timeout: Option<At<String>>,
    /// Labels `name=value` that a container must carry besides remediator.enable=true. Default: none.
    ///
    /// WARNING: without it two projects on one Engine that use the same names are taken for one service.
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"^[^=]+=.+$")))]
    pub only: Vec<At<String>>,
}

/// The load balancer.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HaproxyTyped {
    /// HAProxy's runtime API (`stats socket ... level admin`): unix:///path or tcp://host:port. Required.
    ///
    /// WARNING: whoever reaches a socket of level admin can drain every server. Keep it a unix socket, of remediator's group.
    #[schemars(regex(pattern = r"^(unix:///|tcp://)"))]
    pub address: At<String>,
    /// How long an answer may take. Default: 2s.
    #[schemars(with = "Option<Duration>")]
    pub timeout: Option<At<String>>,
}

/// Files with bearer tokens, by role: one token of 16 to 4096 bytes each; two files while one is being replaced.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokensTyped {
    /// May deliver alerts: Alertmanager. Default: none.
    #[schemars(length(max = 2))]
    pub receiver: Vec<At<String>>,
    /// May read records and guards. Default: none.
    #[schemars(length(max = 2))]
    pub reader: Vec<At<String>>,
    /// May pause, resume and reset a breaker. Default: none.
    ///
    /// WARNING: an operator can resume what a colleague paused, and close an open breaker. Give it to people, not to programs.
    #[schemars(length(max = 2))]
    pub operator: Vec<At<String>>,
}

/// PEM files; relative names start at this file's folder. Read again on SIGHUP.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsTyped {
    /// The certificate and those that it was signed with, ours first. Required.
    pub certificate: At<String>,
    /// The private key of the certificate. Required.
    ///
    /// WARNING: whoever can read it can pose as remediator; make it readable by remediator only.
    pub key: At<String>,
    /// Certificates that a caller's own must be signed with. Default: none, and no certificate is asked of anybody.
    ///
    /// WARNING: with it a caller without a certificate gets no answer at all, Prometheus' scrape and `probe` included. It replaces no token.
    pub client_ca: Option<At<String>>,
}

/// How much of anything is taken, over all playbooks.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsTyped {
    /// Remediations over all playbooks. Default: 5 at once, per 1m.
    ///
    /// WARNING: the last limit that knows of everything. With a large one, a mistake in many playbooks is one large mistake.
    pub fleet: Option<RateTyped>,
    /// Remediations over all playbooks of one service. Default: 3 at once, per 1m.
    ///
    /// WARNING: raising it lets a storm restart more replicas of one service at the same time.
    pub group: Option<RateTyped>,
    /// Largest body of a webhook, in bytes. Default: 8388608 (8 MiB); at most 268435456.
    ///
    /// WARNING: a larger body is refused with all of its alerts, each time it comes. 5,000 alerts are 4 MB; the body is held in memory.
    #[schemars(range(min = 1, max = 268_435_456))]
    pub body: Option<At<usize>>,
    /// Most alerts in one webhook. Default: 10000; at most 1000000.
    ///
    /// WARNING: a webhook with more is refused with all of its alerts, each time it comes.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub alerts: Option<At<usize>>,
}

/// How pages are kept up, and how often something refused is asked again.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PagesTyped {
    /// How often a page is sent to Alertmanager again: at most 2m, and twice within its `resolve_timeout`. Default: 1m.
    #[schemars(with = "Option<Duration>")]
    pub every: Option<At<String>>,
    /// How long a page stays at least; not shorter than `every`. Default: 10m.
    #[schemars(with = "Option<Duration>")]
    pub hold: Option<At<String>>,
    /// How often a condition that was refused is asked again while its alert fires. Default: 30s.
    #[schemars(with = "Option<Duration>")]
    pub ask_again: Option<At<String>>,
}

/// How long the journal and audit.jsonl are kept.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionTyped {
    /// Journal entries older than this are pruned, a day late at the most. Default: 400d; at least 31d.
    ///
    /// WARNING: what is pruned cannot be asked for any more; `audit.jsonl` and its rotated files are what is left of it.
    #[schemars(with = "Option<Duration>")]
    pub age: Option<At<String>>,
    /// Room for the journal on the disk; beyond it the oldest entries are pruned. Default: 1GiB; at least 16MiB.
    #[schemars(with = "Option<Bytes>")]
    pub size: Option<At<String>>,
    /// How often it is looked whether something has to go. Default: 1h; at most 1d.
    #[schemars(with = "Option<Duration>")]
    pub check_every: Option<At<String>>,
    /// When audit.jsonl is rotated, and how many rotated files are kept.
    pub audit_jsonl: AuditJsonlTyped,
}

/// When audit.jsonl is rotated, and how many rotated files are kept.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditJsonlTyped {
    /// The file is rotated when it is larger. Default: 100MiB; at least 1MiB.
    #[schemars(with = "Option<Bytes>")]
    pub size: Option<At<String>>,
    /// The file is rotated when its first line is older. Default: 31d.
    #[schemars(with = "Option<Duration>")]
    pub age: Option<At<String>>,
    /// Rotated files kept; 0 leaves rotation to somebody else, such as logrotate. Default: 13; at most 10000.
    ///
    /// WARNING: the oldest file beyond this number is deleted; ship it first if you must keep it.
    #[schemars(range(min = 0, max = 10_000))]
    pub keep: Option<At<usize>>,
}

/// What goes to stderr.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogTyped {
    /// human or json. Default: human.
    pub format: LogFormat,
    /// error, warn, info, debug or trace, or a filter such as remediator=debug. Default: info.
    pub level: Option<String>,
}
