//! The outside of a remediator under load: Prometheus, the Engine behind its two doors, HAProxy and Alertmanager, on
//! loopback, each answering from a text that is ready. What they cost is paid on the same two cores by whatever is measured.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::alerts::{JOB, instance, labels, service};
use crate::wire::{answer, request};

/// What the fakes say, and what they were asked to do.
#[derive(Debug)]
pub struct World {
    /// Replicas that exist: containers, servers, scrape targets.
    pub replicas: usize,
    /// Over which they are spread.
    pub services: usize,
    /// Whether Prometheus lists an alert for each of them.
    pub firing: bool,
    pub restarts: Mutex<Vec<(Instant, String)>>,
    pub pages: AtomicU64,
    /// Since when every replica runs that was not restarted.
    began: Timestamp,
    /// When each replica was restarted last, by its number.
    restarted: Mutex<std::collections::HashMap<usize, Timestamp>>,
    texts: Mutex<(Option<Instant>, Arc<Texts>)>,
}

/// Answers that are the same for a second.
#[derive(Debug, Default)]
struct Texts {
    rules: Vec<u8>,
    targets: Vec<u8>,
    rule: Vec<u8>,
    containers: Vec<u8>,
    stat: Vec<u8>,
    state: Vec<u8>,
}

#[derive(Debug)]
pub struct Outside {
    pub world: Arc<World>,
    pub prometheus: SocketAddr,
    pub read_door: SocketAddr,
    pub restart_door: SocketAddr,
    pub balancer: SocketAddr,
    pub alertmanager: SocketAddr,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// The fakes live in the time of the program that asks them.
fn now() -> Timestamp {
    Timestamp::now()
}

impl Outside {
    /// # Errors
    /// No port on loopback.
    pub async fn start(replicas: usize, firing: bool) -> std::io::Result<Outside> {
        Outside::spread(replicas, 1, firing).await
    }

    /// # Errors
    /// No port on loopback.
    pub async fn spread(replicas: usize, services: usize, firing: bool) -> std::io::Result<Outside> {
        let world = Arc::new(World {
            replicas,
            services,
            firing,
            restarts: Mutex::default(),
            pages: AtomicU64::new(0),
            began: now() - SignedDuration::from_hours(2),
            restarted: Mutex::default(),
            texts: Mutex::default(),
        });
        let mut tasks = Vec::new();
        let mut http = async |say: fn(&World, &str) -> Vec<u8>| serve(&world, say, &mut tasks).await;
        let prometheus = http(prometheus).await?;
        let read_door = http(read_door).await?;
        let restart_door = http(restart).await?;
        let alertmanager = http(alertmanager).await?;
        let balancer = balancer(&world, &mut tasks).await?;
        Ok(Outside { world, prometheus, read_door, restart_door, balancer, alertmanager, tasks })
    }

    pub fn restarts(&self) -> Vec<(Instant, String)> {
        self.world.restarts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(
    world: &Arc<World>,
    say: fn(&World, &str) -> Vec<u8>,
    tasks: &mut Vec<tokio::task::JoinHandle<()>>,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let place = listener.local_addr()?;
    let world = world.clone();
    tasks.push(tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let world = world.clone();
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let mut buffer = Vec::new();
                while let Some(asked) = request(&mut stream, &mut buffer).await {
                    if stream.write_all(&say(&world, &asked)).await.is_err() {
                        return;
                    }
                }
            });
        }
    }));
    Ok(place)
}

/// HAProxy: one line, one answer, closed.
async fn balancer(world: &Arc<World>, tasks: &mut Vec<tokio::task::JoinHandle<()>>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let place = listener.local_addr()?;
    let world = world.clone();
    tasks.push(tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let world = world.clone();
            tokio::spawn(async move {
                let mut line = Vec::new();
                while !line.contains(&b'\n') && stream.read_buf(&mut line).await.is_ok_and(|read| read > 0) {}
                let _ = say_line(&world, &mut stream, &line).await;
            });
        }
    }));
    Ok(place)
}

async fn say_line(world: &World, stream: &mut TcpStream, line: &[u8]) -> std::io::Result<()> {
    let texts = world.texts();
    match line {
        b"show stat\n" => stream.write_all(&texts.stat).await?,
        b"show servers state\n" => stream.write_all(&texts.state).await?,
        _ => {
            world.drained(&String::from_utf8_lossy(line));
            stream.write_all(b"\n").await?;
        }
    }
    stream.shutdown().await
}

impl World {
    fn drained(&self, command: &str) {
        // Only whether it is drained: at most one server is at a time here.
        let drained = command.trim_end().ends_with("drain");
        let server = command.split_whitespace().nth(2).unwrap_or_default().to_owned();
        let number = server.rsplit('-').next().and_then(|n| n.parse().ok());
        let mut cache = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let old = cache.1.clone();
        let drained = number.filter(|_| drained);
        cache.1 = Arc::new(Texts {
            stat: self.stat(drained).into_bytes(),
            state: self.state(drained).into_bytes(),
            rules: old.rules.clone(),
            targets: old.targets.clone(),
            rule: old.rule.clone(),
            containers: old.containers.clone(),
        });
    }

    fn texts(&self) -> Arc<Texts> {
        let mut cache = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.0.is_none_or(|at| at.elapsed().as_millis() > 1000) {
            let (stat, state) = match cache.0 {
                Some(_) => (cache.1.stat.clone(), cache.1.state.clone()),
                None => (self.stat(None).into_bytes(), self.state(None).into_bytes()),
            };
            let texts = Texts {
                rules: success(&self.rules()),
                targets: success(&self.targets()),
                rule: success(&self.rule()),
                containers: answer(200, &self.containers().to_string()),
                stat,
                state,
            };
            *cache = (Some(Instant::now()), Arc::new(texts));
        }
        cache.1.clone()
    }

    fn fires(&self, number: usize) -> bool {
        self.firing && !self.restarted.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&number)
    }

    fn rules(&self) -> Value {
        let at = now();
        let active = at - SignedDuration::from_hours(1);
        let alert = |number: usize| json!({ "labels": labels(number, self.services), "state": "firing", "activeAt": active });
        let alerts: Vec<Value> = (0..self.replicas).filter(|number| self.fires(*number)).map(alert).collect();
        json!({ "groups": [{ "interval": 15, "rules": [{ "type": "alerting", "name": "FdLeakSustained", "query": "leaks > 0",
            "duration": 300, "labels": {}, "health": "ok", "lastEvaluation": at, "alerts": alerts }] }] })
    }

    fn targets(&self) -> Value {
        let at = now();
        let target = |number: usize| {
            json!({ "labels": { "instance": instance(number), "job": JOB }, "lastScrape": at, "scrapeInterval": "15s",
                    "health": "up", "lastError": "" })
        };
        json!({ "activeTargets": (0..self.replicas).map(target).collect::<Vec<_>>() })
    }

    fn rule(&self) -> Value {
        let at = now().as_millisecond() as f64 / 1000.0;
        let series = (0..self.replicas)
            .filter(|number| self.fires(*number))
            .map(|number| json!({ "metric": labels(number, self.services), "value": [at, "0.9"] }));
        json!({ "resultType": "vector", "result": series.collect::<Vec<_>>() })
    }

    fn containers(&self) -> Value {
        let container = |number: usize| {
            json!({ "Id": id(number), "Names": [format!("/inv-{number}")], "Labels": own_labels(number, self.services),
                    "HostConfig": { "NetworkMode": "shop" } })
        };
        Value::from((0..self.replicas).map(container).collect::<Vec<_>>())
    }

    fn stat(&self, drained: Option<usize>) -> String {
        let row = |number: usize| {
            let status = if drained == Some(number) { "DRAIN" } else { "UP" };
            format!("{},inv-{number},0,0,{status},2\n", service(number, self.services))
        };
        format!("# pxname,svname,qcur,scur,status,type\n{}\n", (0..self.replicas).map(row).collect::<String>())
    }

    fn state(&self, drained: Option<usize>) -> String {
        let row = |number: usize| {
            let admin = if drained == Some(number) { 8 } else { 0 };
            format!("3 {} 1 inv-{number} {} 2 {admin} 6 8080\n", service(number, self.services), address(number))
        };
        let head = "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_check_state srv_port";
        format!("1\n{head}\n{}\n", (0..self.replicas).map(row).collect::<String>())
    }
}

fn id(number: usize) -> String {
    format!("{:064x}", number + 1)
}

fn address(number: usize) -> String {
    format!("10.9.{}.{}", number / 250, number % 250 + 1)
}

fn own_labels(number: usize, services: usize) -> Value {
    let service = service(number, services);
    json!({ "remediator.enable": "true", "remediator.service": service, "remediator.instance": instance(number),
            "remediator.server": format!("{service}/inv-{number}") })
}

fn success(data: &Value) -> Vec<u8> {
    answer(200, &json!({ "status": "success", "data": data }).to_string())
}

fn path(asked: &str) -> &str {
    asked.split(' ').nth(1).unwrap_or_default()
}

fn prometheus(world: &World, asked: &str) -> Vec<u8> {
    match path(asked) {
        "/api/v1/rules?type=alert" => world.texts().rules.clone(),
        "/api/v1/targets?state=active" => world.texts().targets.clone(),
        _ if asked.contains("query=leaks+") => world.texts().rule.clone(),
        _ => {
            let at = now().as_millisecond() as f64 / 1000.0;
            let value = if asked.contains("query=timestamp") {
                at
            } else if asked.contains("process_start_time_seconds") {
                at - 0.001
            } else {
                0.1
            };
            success(&json!({ "resultType": "vector", "result": [{ "metric": {}, "value": [at, value.to_string()] }] }))
        }
    }
}

fn read_door(world: &World, asked: &str) -> Vec<u8> {
    if asked.starts_with("POST") {
        return answer(403, "Forbidden");
    }
    let path = path(asked);
    if path == "/_ping" {
        return answer(200, "OK");
    }
    if path.starts_with("/containers/json") {
        return world.texts().containers.clone();
    }
    if path.contains("/logs") {
        return b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec();
    }
    let Some(number) = number_in(path).filter(|number| *number < world.replicas) else {
        return answer(404, r#"{"message":"No such container"}"#);
    };
    let restarted = world.restarted.lock().unwrap_or_else(PoisonError::into_inner).get(&number).copied();
    let started = restarted.unwrap_or(world.began);
    let inspected = json!({
        "Id": id(number), "Name": format!("/inv-{number}"), "Config": { "Image": "shop:1", "Labels": own_labels(number, world.services) },
        "State": { "Status": "running", "Running": true, "StartedAt": started }, "HostConfig": { "NetworkMode": "shop" },
        "NetworkSettings": { "Networks": { "shop": { "IPAddress": address(number) } } },
    });
    answer(200, &inspected.to_string())
}

fn number_in(path: &str) -> Option<usize> {
    let id = path.split('/').nth(2)?;
    usize::from_str_radix(id.trim_start_matches('0'), 16).ok()?.checked_sub(1)
}

fn restart(world: &World, asked: &str) -> Vec<u8> {
    let at = Instant::now();
    let path = path(asked);
    let number = number_in(path).filter(|number| *number < world.replicas);
    match number.filter(|_| asked.starts_with("POST") && path.contains("/restart?")) {
        Some(number) => {
            world.restarts.lock().unwrap_or_else(PoisonError::into_inner).push((at, instance(number)));
            world.restarted.lock().unwrap_or_else(PoisonError::into_inner).insert(number, now());
            b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n".to_vec()
        }
        None => answer(403, "Forbidden"),
    }
}

fn alertmanager(world: &World, asked: &str) -> Vec<u8> {
    if asked.starts_with("GET") {
        return answer(200, "[]");
    }
    world.pages.fetch_add(1, Ordering::Relaxed);
    answer(200, "")
}
