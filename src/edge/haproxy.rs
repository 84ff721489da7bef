//! HAProxy's runtime API over a Unix socket or TCP: what the servers are doing, drain one, readmit one.
//!
//! One connection per command: HAProxy answers, then closes. Replies are text, and a refusal is a sentence where data
//! or an empty line was expected, so everything is read by the header line that HAProxy writes and nothing by position.
//! `show stat` (CSV) knows health, sessions and queue; `show servers state` knows addresses and what an operator set.
//! They are two moments, not one: a server that is in only one of them was added or removed in between, and the
//! answer is "cannot say". Whether a drain took hold is for the caller to look at; here a blank line means "accepted".
//! Formats: HAProxy management guide, 9.1 "CSV format" and 9.3 "Unix Socket commands"; bits: `enum srv_admin` in
//! `include/haproxy/server-t.h`. Compared with the replies of HAProxy 2.6.12 and 3.0.11.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::BadAddress;
use super::redact::plain_line;
use super::socket::{Address, Capped};
use crate::reason::Reason;
use crate::target::ServerPath;
use crate::world::{Answer, Balancer, Call, Server, ServerStatus, Unanswered};

/// Largest reply read: thousands of servers, at a few hundred bytes a row.
const MAX_REPLY: usize = 4 * 1024 * 1024;

/// Longest piece of HAProxy's own words quoted in a detail, in bytes.
const MAX_QUOTED: usize = 300;

/// `SRV_ADMF_MAINT`: forced, inherited from a tracked server, or no address. Not 0x04, which only remembers that the
/// configuration says `disabled`, and not 0x40, which marks a host name set at run time.
const ADMIN_MAINTENANCE: u32 = 0x23;
/// `SRV_ADMF_DRAIN`: forced, or inherited from a tracked server.
const ADMIN_DRAIN: u32 = 0x18;

/// `CHK_ST_CONFIGURED` and `CHK_ST_ENABLED`: a check exists and nobody switched it off. In maintenance it is paused, and
/// `show stat` then shows no check at all, so only `srv_check_state` tells a checked server from an unchecked one.
const CHECK_RUNS: u32 = 0x06;

/// In `show stat`, column `type`: 0 frontend, 1 backend, 2 server, 3 listener.
const TYPE_SERVER: &str = "2";

const STAT: &str = "show stat";
const STATE: &str = "show servers state";
/// First line of `show servers state`: the only version of its format so far.
const STATE_VERSION: &str = "1";

/// One HAProxy process.
#[derive(Clone, Debug)]
pub struct HaProxy {
    address: Address,
    timeout: Duration,
}

/// Why a command has no reply, told apart by whether HAProxy may have seen the command.
#[derive(Debug)]
enum NoReply {
    NotSent(String),
    MaybeSent(String),
}

/// What `show servers state` knows of a server.
struct Admin {
    address: Option<SocketAddr>,
    flags: u32,
    checked: bool,
}

/// A table whose first line names its columns.
struct Table {
    command: &'static str,
    columns: HashMap<String, usize>,
    rows: Vec<Vec<String>>,
}

impl HaProxy {
    /// `address` is `unix:///path` or `tcp://host:port`. `timeout` bounds each command as a whole.
    ///
    /// # Errors
    /// Not such an address.
    pub fn new(address: &str, timeout: Duration) -> Result<Self, BadAddress> {
        Ok(HaProxy { address: Address::parse("HAProxy's runtime API", address)?, timeout })
    }

    /// Sends one command and reads to the end.
    async fn command(&self, command: &str) -> Result<String, NoReply> {
        let place = format!("{}, `{command}`", self.address);
        let (reader, mut writer) = match tokio::time::timeout(self.timeout, self.address.connect()).await {
            Err(_) => return Err(NoReply::NotSent(format!("{place}: no connection within {:?}", self.timeout))),
            Ok(Err(error)) => return Err(NoReply::NotSent(format!("{place}: {error}"))),
            Ok(Ok(connection)) => connection,
        };
        let exchange = async {
            writer.write_all(format!("{command}\n").as_bytes()).await?;
            let mut reply = Vec::new();
            Capped::new(reader, MAX_REPLY).read_to_end(&mut reply).await?;
            Ok::<_, std::io::Error>(reply)
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Err(_) => Err(NoReply::MaybeSent(format!("{place}: no answer within {:?}", self.timeout))),
            Ok(Err(error)) => Err(NoReply::MaybeSent(format!("{place}: {error}"))),
            // Even the shortest reply is an empty line: without one, nobody answered.
            Ok(Ok(reply)) if reply.is_empty() => Err(NoReply::MaybeSent(format!("{place}: closed without an answer"))),
            Ok(Ok(reply)) => Ok(String::from_utf8_lossy(&reply).into_owned()),
        }
    }

    async fn ask(&self, command: &str) -> Answer<String> {
        self.command(command).await.map_err(|why| match why {
            NoReply::NotSent(detail) | NoReply::MaybeSent(detail) => unavailable(detail),
        })
    }

    async fn set_state(&self, server: &ServerPath, state: &str) -> Call {
        match self.command(&format!("set server {server} state {state}")).await {
            Ok(reply) if reply.trim().is_empty() => Call::Done,
            Ok(reply) => Call::Failed(format!("{}, {server}: {}", self.address, plain_line(reply.trim(), MAX_QUOTED))),
            Err(NoReply::NotSent(detail)) => Call::Failed(detail),
            Err(NoReply::MaybeSent(detail)) => Call::Unknown(detail),
        }
    }
}

#[async_trait]
impl Balancer for HaProxy {
    async fn servers(&self) -> Answer<Vec<Server>> {
        let stat = self.ask(STAT).await?;
        let state = self.ask(STATE).await?;
        read_servers(&stat, &state).map_err(|why| unavailable(format!("{}: {why}", self.address)))
    }

    async fn drain(&self, server: &ServerPath) -> Call {
        self.set_state(server, "drain").await
    }

    async fn ready(&self, server: &ServerPath) -> Call {
        self.set_state(server, "ready").await
    }
}

/// Merges the replies to `show stat` and `show servers state`.
///
/// Servers whose names are not of the kind that [`ServerPath`] takes are left out: no container's label can name
/// them, so we can neither act on them nor count them.
///
/// # Errors
/// A reply that is not the table expected (the sentence that came instead is quoted), a number that is none, a server
/// that is in one table only or twice.
pub fn read_servers(stat: &str, state: &str) -> Result<Vec<Server>, String> {
    let mut admins = read_admin(state)?;
    let table = Table::stat(stat)?;
    let [backend, name, kind, status, sessions, queued] = table.find(["pxname", "svname", "type", "status", "scur", "qcur"])?;
    let mut out = Vec::new();
    for row in &table.rows {
        let cell = |at: usize| row.get(at).map(String::as_str).unwrap_or_default();
        if cell(kind) != TYPE_SERVER {
            continue;
        }
        let Ok(path) = format!("{}/{}", cell(backend), cell(name)).parse::<ServerPath>() else { continue };
        let count = |column: &str, at: usize| {
            cell(at)
                .parse::<u64>()
                .map_err(|_| format!("{STAT}: {path}: {column} `{}` is not a number", plain_line(cell(at), 40)))
        };
        let admin = admins.remove(&path).ok_or_else(|| format!("{path} is in `show stat` but not in `show servers state`"))?;
        let word = server_status(cell(status));
        out.push(Server {
            address: admin.address,
            status: word,
            // A weight of 0 drains as well, and shows only here.
            drained: admin.flags & ADMIN_DRAIN != 0 || word == ServerStatus::Drain,
            maintenance: admin.flags & ADMIN_MAINTENANCE != 0 || word == ServerStatus::Maintenance,
            checked: admin.checked && word != ServerStatus::NoCheck,
            sessions: count("scur", sessions)?,
            queued: count("qcur", queued)?,
            path,
        });
    }
    match admins.into_keys().next() {
        None => Ok(out),
        Some(path) => Err(format!("{path} is in `show servers state` but not in `show stat`, or twice")),
    }
}

fn read_admin(state: &str) -> Result<HashMap<ServerPath, Admin>, String> {
    let table = Table::state(state)?;
    let [backend, name, ip, port, flags, check] =
        table.find(["be_name", "srv_name", "srv_addr", "srv_port", "srv_admin_state", "srv_check_state"])?;
    let mut out = HashMap::new();
    for row in &table.rows {
        let cell = |at: usize| row.get(at).map(String::as_str).unwrap_or_default();
        let Ok(path) = format!("{}/{}", cell(backend), cell(name)).parse::<ServerPath>() else { continue };
        let bits = |column: &str, at: usize| {
            let text = cell(at);
            text.parse::<u32>()
                .map_err(|_| format!("{}: {path}: {column} `{}` is not a number", table.command, plain_line(text, 40)))
        };
        // `-` stands for "no address yet" and for a server on a Unix socket.
        let address = match (cell(ip).parse(), cell(port).parse::<u16>()) {
            (Ok(ip), Ok(port @ 1..)) => Some(SocketAddr::new(ip, port)),
            _ => None,
        };
        let checked = bits("srv_check_state", check)? & CHECK_RUNS == CHECK_RUNS;
        let admin = Admin { address, flags: bits("srv_admin_state", flags)?, checked };
        if out.insert(path.clone(), admin).is_some() {
            return Err(format!("{}: {path} is listed twice", table.command));
        }
    }
    Ok(out)
}

/// HAProxy's words: `UP`, `UP 1/3` (failing checks, still used), `DOWN 1/2` (passing checks, not yet used),
/// `DOWN (agent)`, `MAINT (via b/s)`, `MAINT (resolution)`, `DRAIN`, `DRAIN 1/2`, `NOLB`, `no check`.
fn server_status(text: &str) -> ServerStatus {
    match text.split_once(' ').map_or(text, |(word, _)| word) {
        "UP" => ServerStatus::Up,
        "DOWN" => ServerStatus::Down,
        "DRAIN" => ServerStatus::Drain,
        "MAINT" => ServerStatus::Maintenance,
        "no" if text == "no check" => ServerStatus::NoCheck,
        _ => ServerStatus::Other,
    }
}

impl Table {
    /// `# pxname,svname,...`, then rows of CSV, in which a quoted cell may hold commas, line breaks and `""`.
    fn stat(text: &str) -> Result<Table, String> {
        let wrong = || not_a_table(STAT, text);
        let mut rows = csv_rows(whole(STAT, text)?.strip_prefix("# ").ok_or_else(wrong)?).into_iter();
        Ok(Table::new(STAT, rows.next().unwrap_or_default(), rows.collect()))
    }

    /// A line with the format's version, `# be_id be_name ...`, then rows of words.
    fn state(text: &str) -> Result<Table, String> {
        let wrong = || not_a_table(STATE, text);
        let mut lines = whole(STATE, text)?.lines();
        if lines.next() != Some(STATE_VERSION) {
            return Err(wrong());
        }
        let header = lines.next().and_then(|line| line.strip_prefix("# ")).ok_or_else(wrong)?;
        let words = |line: &str| line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
        Ok(Table::new(STATE, words(header), lines.filter(|line| !line.trim().is_empty()).map(words).collect()))
    }

    fn new(command: &'static str, header: Vec<String>, rows: Vec<Vec<String>>) -> Table {
        Table { command, columns: header.into_iter().enumerate().map(|(at, name)| (name, at)).collect(), rows }
    }

    fn find<const N: usize>(&self, names: [&str; N]) -> Result<[usize; N], String> {
        let mut out = [0; N];
        for (at, name) in out.iter_mut().zip(names) {
            *at = *self.columns.get(name).ok_or_else(|| format!("{}: no column {name}", self.command))?;
        }
        Ok(out)
    }
}

/// Every reply ends in an empty line; one that does not was cut, and its last row may be half a row.
fn whole<'a>(command: &str, text: &'a str) -> Result<&'a str, String> {
    if text.ends_with("\n\n") { Ok(text) } else { Err(format!("{command}: the reply is cut: {}", first_line(text))) }
}

fn not_a_table(command: &str, text: &str) -> String {
    format!("{command}: not a table: {}", first_line(text))
}

fn csv_rows(text: &str) -> Vec<Vec<String>> {
    let mut rows = vec![vec![String::new()]];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let row = rows.last_mut().expect("starts with one row and only grows");
        let cell = row.last_mut().expect("every row starts with one cell");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(String::new()),
            '\n' if !quoted => rows.push(vec![String::new()]),
            other => cell.push(other),
        }
    }
    rows.retain(|row| row.len() > 1);
    rows
}

fn first_line(text: &str) -> String {
    format!("`{}`", plain_line(text.trim().lines().next().unwrap_or_default(), MAX_QUOTED))
}

fn unavailable(detail: impl Into<String>) -> Unanswered {
    Unanswered::new(Reason::BalancerUnavailable, detail)
}
