//! Prometheus, the Engine behind its two doors, the balancer and Alertmanager, as far as one walk needs them. Each keeps
//! every byte that it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use promql_parser::parser::{Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use remediator::edge::clock::SystemClock;
use remediator::world::Clock as _;
use reqwest::Url;
use serde_json::{Value, json};

use crate::nasty::may_name_a_replica;
use crate::wire::{Act, Fake, Framing, http};

/// One replica that leaks, and the alert that says so.
#[derive(Clone, Debug)]
pub struct Replica {
    pub number: usize,
    pub instance: String,
    /// Of the alert; `instance` and `job` name the target to Prometheus.
    pub labels: BTreeMap<String, String>,
    pub started_at: Timestamp,
    pub leaks: bool,
    pub drained: bool,
    /// How often the Engine was made to restart it.
    pub restarts: u32,
    /// What Prometheus says instead of evaluating the rule.
    pub refusal: Option<String>,
    /// Why its last scrape failed, if it did.
    pub scrape_error: String,
}

/// What the Engine says of every container besides who it is.
#[derive(Clone, Debug, Default)]
pub struct Inside {
    pub config: Value,
    pub health: Value,
    pub logs: String,
}

pub struct Outside {
    pub prometheus: Fake,
    pub read_door: Fake,
    pub restart_door: Fake,
    pub balancer: Fake,
    pub alertmanager: Fake,
    shop: Shop,
}

/// Stands at the doors, and may break what passes.
pub trait Keeper: Send + Sync {
    /// Instead of doing what is asked.
    fn before(&self, door: &'static str, request: &str) -> Option<Act>;
    /// Instead of the answer to what was done.
    fn after(&self, door: &'static str, request: &str) -> Option<Act>;
}

/// Nobody stands there.
struct Open;

impl Keeper for Open {
    fn before(&self, _: &'static str, _: &str) -> Option<Act> {
        None
    }

    fn after(&self, _: &'static str, _: &str) -> Option<Act> {
        None
    }
}

fn kept(
    door: &'static str,
    keeper: Arc<dyn Keeper>,
    answer: impl Fn(&str) -> Vec<u8> + Send + Sync,
) -> impl Fn(&str) -> Act + Send + Sync {
    move |request| {
        keeper.before(door, request).unwrap_or_else(|| {
            let answer = answer(request);
            keeper.after(door, request).unwrap_or(Act::Say(answer))
        })
    }
}

type Shop = Arc<Mutex<Vec<Replica>>>;

impl Replica {
    pub fn new(number: usize, instance: &str, labels: BTreeMap<String, String>) -> Replica {
        let started_at = clock() - SignedDuration::from_hours(2);
        let (leaks, drained, refusal, scrape_error) = (true, false, None, String::new());
        let instance = instance.to_owned();
        Replica { number, instance, labels, started_at, leaks, drained, restarts: 0, refusal, scrape_error }
    }

    fn id(&self) -> String {
        format!("{:064x}", self.number)
    }

    fn name(&self) -> String {
        format!("inv-{}", self.number)
    }

    fn address(&self) -> String {
        format!("10.9.0.{}", self.number)
    }

    fn rule(&self) -> String {
        format!("rule_{} > 0", self.number)
    }

    fn job(&self) -> &str {
        self.labels.get("job").map_or("", String::as_str)
    }
}

impl Outside {
    pub async fn new(replicas: Vec<Replica>, inside: Inside) -> Outside {
        Outside::guarded(replicas, inside, Arc::new(Open)).await
    }

    /// With somebody at every door.
    pub async fn guarded(replicas: Vec<Replica>, inside: Inside, keeper: Arc<dyn Keeper>) -> Outside {
        let shop: Shop = Arc::new(Mutex::new(replicas));
        let with = |door, answer: fn(&[Replica], &Inside, &str) -> Vec<u8>| {
            let (shop, inside) = (shop.clone(), inside.clone());
            kept(door, keeper.clone(), move |request| answer(&shop.lock().expect("no panic"), &inside, request))
        };
        let (drains, restarts) = (shop.clone(), shop.clone());
        let restart = move |request: &str| restart(&mut restarts.lock().expect("no panic"), request);
        let balance = move |command: &str| balance(&mut drains.lock().expect("no panic"), command);
        let take = |request: &str| http(200, if request.starts_with("GET") { "[]" } else { "" });
        Outside {
            prometheus: Fake::tcp(Framing::Http, with("prometheus", prometheus)).await,
            read_door: Fake::tcp(Framing::Http, with("engine", read_door)).await,
            restart_door: Fake::tcp(Framing::Http, kept("restart door", keeper.clone(), restart)).await,
            balancer: Fake::tcp(Framing::Line, kept("balancer", keeper.clone(), balance)).await,
            alertmanager: Fake::tcp(Framing::Http, kept("alertmanager", keeper, take)).await,
            shop,
        }
    }

    /// How everything stands.
    pub fn shop(&self) -> Vec<Replica> {
        self.shop.lock().expect("no panic").clone()
    }

    /// Every PromQL text that Prometheus was sent, but for the rules' own.
    pub fn queries(&self) -> Vec<String> {
        let texts = self.prometheus.requests().into_iter().filter(|request| request.starts_with("POST /api/v1/query "));
        texts.map(|request| query_in(&request)).filter(|query| !query.starts_with("rule_") && query != "vector(1)").collect()
    }

    /// Every alert that Alertmanager was sent.
    pub fn pages(&self) -> Vec<Value> {
        let posts = self.alertmanager.requests().into_iter().filter(|request| request.starts_with("POST /api/v2/alerts "));
        let alerts = posts.map(|request| serde_json::from_str::<Vec<Value>>(body(&request)).expect("a list of alerts"));
        alerts.flatten().collect()
    }
}

/// The fakes live in the time of the program that asks them.
fn clock() -> Timestamp {
    SystemClock.now()
}

fn body(request: &str) -> &str {
    request.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

fn query_in(request: &str) -> String {
    let url = Url::parse(&format!("http://x/?{}", body(request))).expect("a form");
    url.query_pairs().find(|(name, _)| name == "query").map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// The selectors of a query.
pub fn selectors(query: &str) -> Vec<VectorSelector> {
    struct Found(Vec<VectorSelector>);
    impl ExprVisitor for Found {
        type Error = ();
        fn pre_visit(&mut self, expr: &Expr) -> Result<bool, ()> {
            if let Expr::VectorSelector(selector) = expr {
                self.0.push(selector.clone());
            }
            Ok(true)
        }
    }
    let expr = promql_parser::parser::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let mut found = Found(Vec::new());
    walk_expr(&mut found, &expr).expect("nothing stops it");
    found.0
}

fn prometheus(shop: &[Replica], _: &Inside, request: &str) -> Vec<u8> {
    let now = clock();
    let data = match request.split(' ').nth(1).unwrap_or_default() {
        "/api/v1/rules?type=alert" => {
            let rule = |replica: &Replica| {
                let alert =
                    json!({ "labels": replica.labels, "state": "firing", "activeAt": now - SignedDuration::from_hours(1) });
                let alerts = if replica.leaks && replica.scrape_error.is_empty() { vec![alert] } else { Vec::new() };
                json!({ "type": "alerting", "name": replica.labels["alertname"], "query": replica.rule(), "duration": 60,
                        "labels": {}, "health": "ok", "lastEvaluation": now, "alerts": alerts })
            };
            json!({ "groups": [{ "interval": 1, "rules": shop.iter().map(rule).collect::<Vec<_>>() }] })
        }
        "/api/v1/targets?state=active" => {
            let target = |replica: &Replica| {
                json!({ "labels": { "instance": replica.instance, "job": replica.job() }, "lastScrape": now, "scrapeInterval": "1s",
                        "health": if replica.scrape_error.is_empty() { "up" } else { "down" }, "lastError": replica.scrape_error })
            };
            json!({ "activeTargets": shop.iter().map(target).collect::<Vec<_>>() })
        }
        _ => {
            let query = query_in(request);
            if let Some(replica) = shop.iter().find(|replica| replica.rule() == query) {
                if let Some(error) = &replica.refusal {
                    return http(422, &json!({ "status": "error", "errorType": "execution", "error": error }).to_string());
                }
                let firing = replica.leaks && replica.scrape_error.is_empty();
                vector(firing.then(|| (json!(replica.labels), 0.9)))
            } else if query == "vector(1)" {
                vector(Some((json!({}), 1.0)))
            } else {
                vector(answer(shop, &query, now).map(|value| (json!({}), value)))
            }
        }
    };
    http(200, &json!({ "status": "success", "data": data }).to_string())
}

fn vector(series: Option<(Value, f64)>) -> Value {
    let now = clock().as_millisecond() as f64 / 1000.0;
    let series: Vec<Value> =
        series.into_iter().map(|(metric, value)| json!({ "metric": metric, "value": [now, value.to_string()] })).collect();
    json!({ "resultType": "vector", "result": series })
}

/// The value of a query about exactly one of the replicas.
fn answer(shop: &[Replica], query: &str, now: Timestamp) -> Option<f64> {
    let selector = selectors(query).into_iter().next()?;
    let wanted = |name: &str| selector.matchers.matchers.iter().find(|m| m.name == name).map_or("", |m| m.value.as_str());
    let replica = shop.iter().find(|r| r.instance == wanted("instance") && r.job() == wanted("job"))?;
    let seconds = |at: Timestamp| at.as_millisecond() as f64 / 1000.0;
    Some(match (query.starts_with("timestamp("), selector.name.as_deref()) {
        (true, _) => seconds(now),
        (_, Some("process_start_time_seconds")) => seconds(replica.started_at),
        _ if replica.leaks => 0.9,
        _ => 0.1,
    })
}

fn read_door(shop: &[Replica], inside: &Inside, request: &str) -> Vec<u8> {
    let path = request.split(' ').nth(1).unwrap_or_default();
    if request.starts_with("POST") {
        return http(403, "Forbidden");
    }
    if path == "/_ping" {
        return http(200, "OK");
    }
    // Who labels containers is no attacker: a label that cannot name a replica is a mistake that stops everything.
    let named = |replica: &Replica| match may_name_a_replica(&replica.instance) {
        true => replica.instance.clone(),
        false => format!("unnamed-{}", replica.number),
    };
    let labels = |replica: &Replica| {
        json!({ "remediator.enable": "true", "remediator.service": "inventory", "remediator.instance": named(replica),
                "remediator.server": format!("inventory/{}", replica.name()), "com.example.password": "planted-in-a-label" })
    };
    if path.starts_with("/containers/json") {
        let listed = |replica: &Replica| {
            json!({ "Id": replica.id(), "Names": [format!("/{}", replica.name())], "Labels": labels(replica),
                    "HostConfig": { "NetworkMode": "shop" } })
        };
        return http(200, &Value::from(shop.iter().map(listed).collect::<Vec<_>>()).to_string());
    }
    let Some(replica) = shop.iter().find(|replica| path.contains(&replica.id())) else {
        return http(404, r#"{"message":"No such container"}"#);
    };
    if path.contains("/logs") {
        let length = u32::try_from(inside.logs.len()).expect("short").to_be_bytes();
        let frame = [&[1, 0, 0, 0], length.as_slice(), inside.logs.as_bytes()].concat();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", frame.len());
        return [head.into_bytes(), frame].concat();
    }
    let mut config = inside.config.clone();
    config["Image"] = json!("shop:1");
    config["Labels"] = labels(replica);
    let mut state = json!({ "Status": "running", "Running": true, "StartedAt": replica.started_at });
    if !inside.health.is_null() {
        state["Health"] = inside.health.clone();
    }
    let inspected = json!({
        "Id": replica.id(), "Name": format!("/{}", replica.name()), "Config": config, "State": state,
        "HostConfig": { "NetworkMode": "shop" }, "NetworkSettings": { "Networks": { "shop": { "IPAddress": replica.address() } } },
    });
    http(200, &inspected.to_string())
}

fn restart(shop: &mut [Replica], request: &str) -> Vec<u8> {
    let path = request.split(' ').nth(1).unwrap_or_default();
    match shop.iter_mut().find(|replica| path.starts_with(&format!("/containers/{}/restart?", replica.id()))) {
        Some(replica) if request.starts_with("POST") => {
            (replica.started_at, replica.leaks, replica.restarts) = (clock(), false, replica.restarts + 1);
            b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()
        }
        _ => http(403, "Forbidden"),
    }
}

fn balance(shop: &mut [Replica], command: &str) -> Vec<u8> {
    let rows = |row: &dyn Fn(&Replica) -> String| shop.iter().map(row).collect::<String>();
    let text = match command.trim_end() {
        "show stat" => {
            let row = |replica: &Replica| {
                format!("inventory,{},0,0,{},2\n", replica.name(), if replica.drained { "DRAIN" } else { "UP" })
            };
            format!("# pxname,svname,qcur,scur,status,type\n{}\n", rows(&row))
        }
        "show servers state" => {
            let row = |replica: &Replica| {
                format!(
                    "3 inventory 1 {} {} 2 {} 6 8080\n",
                    replica.name(),
                    replica.address(),
                    if replica.drained { 8 } else { 0 }
                )
            };
            format!(
                "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_check_state srv_port\n{}\n",
                rows(&row)
            )
        }
        other => {
            let words: Vec<&str> = other.split(' ').collect();
            let named = |replica: &&mut Replica| words.get(2) == Some(&format!("inventory/{}", replica.name()).as_str());
            match shop.iter_mut().find(named) {
                Some(replica) => replica.drained = words.last() == Some(&"drain"),
                None => return b"No such server.\n\n".to_vec(),
            }
            "\n".to_owned()
        }
    };
    text.into_bytes()
}
