//! The Engine as the test sees it: the event stream, container starts, and the orders that a person would give.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::Value;

use crate::lab::{Lab, eventually};

/// What happens to a container when it is restarted, and to no other.
const TOUCHES: [&str; 7] = ["kill", "die", "stop", "start", "restart", "pause", "destroy"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: Timestamp,
    pub action: String,
    pub service: String,
}

/// Everything that happened to the project's containers, from before the first was started.
pub struct Events {
    child: Child,
    seen: Arc<Mutex<Vec<Event>>>,
}

impl Events {
    pub fn follow(project: &str) -> Events {
        let mut child = Command::new("docker")
            .args(["events", "--since", &Timestamp::now().as_second().to_string(), "--filter", "type=container"])
            .args(["--filter", &format!("label=com.docker.compose.project={project}"), "--format", "{{json .}}"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the docker command is there: run 'make setup'");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let ours = Arc::clone(&seen);
        std::thread::spawn(move || {
            for event in lines.map_while(Result::ok).filter_map(|line| event(&line)) {
                ours.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            }
        });
        Events { child, seen }
    }

    /// Every touch of a replica, oldest first; complete up to now.
    pub async fn touches(&self, since: Timestamp) -> Vec<Event> {
        // The replicas' health checks are events too, one a second each: whatever came before one of them has come.
        let now = Timestamp::now();
        eventually("the event stream to come up to now", 30, async || {
            let last = self.all().last().map(|event| event.at);
            last.filter(|at| *at > now).ok_or_else(|| format!("{last:?}"))
        })
        .await;
        let touch = |event: &Event| {
            event.at >= since && event.service.starts_with("inventory-") && TOUCHES.contains(&event.action.as_str())
        };
        self.all().into_iter().filter(touch).collect()
    }

    pub fn all(&self) -> Vec<Event> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn event(line: &str) -> Option<Event> {
    let event: Value = serde_json::from_str(line).ok()?;
    Some(Event {
        at: Timestamp::from_nanosecond(event["timeNano"].as_i64()?.into()).ok()?,
        action: event["Action"].as_str()?.to_owned(),
        service: event["Actor"]["Attributes"]["com.docker.compose.service"].as_str()?.to_owned(),
    })
}

impl Lab {
    /// Each replica was restarted exactly as often as said, and nothing else was done to any of them.
    pub async fn assert_restarts(&self, since: Timestamp, expected: [usize; 3]) {
        let touches = self.events.touches(since).await;
        for (n, times) in (1..).zip(expected) {
            let of =
                |action: &str| touches.iter().filter(|e| e.service == format!("inventory-{n}") && e.action == action).count();
            let counted = [of("die"), of("start"), of("restart"), of("pause"), of("destroy")];
            assert_eq!(
                counted,
                [times, times, times, 0, 0],
                "die, start, restart, pause, destroy of inventory-{n}: {touches:#?}"
            );
        }
    }

    /// When a replica was told to stop and when it was started again, for each of its restarts.
    pub async fn restarts(&self, n: usize, since: Timestamp) -> Vec<(Timestamp, Timestamp)> {
        let touches = self.events.touches(since).await;
        let times = |action: &str| {
            let of = touches.iter().filter(|e| e.service == format!("inventory-{n}") && e.action == action);
            of.map(|event| event.at).collect::<Vec<_>>()
        };
        times("die").into_iter().zip(times("start")).collect()
    }

    pub fn docker(&self, arguments: &[&str]) -> Output {
        Command::new("docker").args(arguments).output().expect("the docker command can be run")
    }

    /// Runs it and wants it to work; answers with what it printed.
    pub fn docker_ok(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "docker {arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    /// The id of a service's container.
    pub fn container(&self, service: &str) -> String {
        let id = String::from_utf8_lossy(&self.script(&["container", service]).stdout).trim().to_owned();
        assert!(!id.is_empty(), "there is no container of {service}");
        id
    }

    pub fn inspect(&self, service: &str, format: &str) -> String {
        self.docker_ok(&["inspect", "--format", format, &self.container(service)]).trim().to_owned()
    }

    /// Starts of the three replicas' containers.
    pub fn starts(&self) -> [String; 3] {
        [1, 2, 3].map(|n| self.inspect(&format!("inventory-{n}"), "{{.Id}} {{.State.StartedAt}}"))
    }
}
