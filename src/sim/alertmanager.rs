//! The simulated Alertmanagers as they deliver: one or two peers that group, wait, repeat, retry what was not taken, tell
//! the same twice with another `startsAt`, cut groups off, and lose a "resolved".
//!
//! The rules are Alertmanager's (`notify/notify.go`, `needsUpdate`): a group is told `group_wait` after its first alert,
//! then at most every `group_interval`, when something fires that was not told, when something told is over, or after
//! `repeat_interval`. A 5xx or no answer is tried again, a 4xx is not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::alert::Alert;
use crate::sim::dice::Dice;

/// How long an alert lives that Prometheus no longer sends: four times its resend delay of a minute.
const LIVES: SignedDuration = SignedDuration::from_secs(240);
/// How long the second peer leaves the first the go.
const PEER_TIMEOUT: SignedDuration = SignedDuration::from_secs(15);

#[derive(Clone, Debug)]
pub struct PeerSpec {
    pub group_wait: SignedDuration,
    pub group_interval: SignedDuration,
    pub repeat_interval: SignedDuration,
    /// One group per service, or one per alert and service.
    pub by_service: bool,
    /// The network holds a notification back now and then, so that a later one comes before it.
    pub late: bool,
}

/// All peers, and what they tell each other.
pub struct Cluster {
    peers: Vec<Peer>,
    dice: Dice,
    /// What was told last of a group, whoever told it.
    told: BTreeMap<String, Told>,
    /// What the network holds back, and until when.
    held: Vec<(Timestamp, Post)>,
}

struct Peer {
    spec: PeerSpec,
    groups: BTreeMap<String, Group>,
    down: bool,
    truncates: bool,
}

#[derive(Default)]
struct Group {
    alerts: BTreeMap<String, Known>,
    first: Option<Timestamp>,
    flushed: Option<Timestamp>,
    /// The last notification was not taken.
    again: bool,
}

struct Known {
    alert: Alert,
    seen: Timestamp,
    since: Timestamp,
}

#[derive(Clone)]
struct Told {
    at: Timestamp,
    firing: BTreeSet<String>,
}

/// A webhook to be posted.
#[derive(Clone, Debug)]
pub struct Post {
    pub peer: usize,
    pub group: String,
    pub body: Vec<u8>,
    pub firing: BTreeSet<String>,
    pub told: String,
}

impl PeerSpec {
    pub fn draw(dice: &mut Dice) -> PeerSpec {
        let seconds = SignedDuration::from_secs;
        PeerSpec {
            group_wait: seconds(dice.of(&[0, 10, 30])),
            group_interval: seconds(dice.of(&[60, 60, 120])),
            repeat_interval: seconds(dice.of(&[300, 1200, 14_400])),
            by_service: dice.one_in(2),
            late: false,
        }
    }
}

impl Cluster {
    pub fn new(seed: u64, specs: &[PeerSpec]) -> Cluster {
        let peer = |spec: &PeerSpec| Peer { spec: spec.clone(), groups: BTreeMap::new(), down: false, truncates: false };
        Cluster { peers: specs.iter().map(peer).collect(), dice: Dice::new(seed, 2), told: BTreeMap::new(), held: Vec::new() }
    }

    pub fn down(&mut self, peer: usize, down: bool) {
        // A peer that comes back has forgotten, and takes its alerts from Prometheus again, with another `startsAt`.
        self.peers[peer].down = down;
        self.peers[peer].groups.clear();
    }

    pub fn truncates(&mut self, peer: usize, truncates: bool) {
        self.peers[peer].truncates = truncates;
    }

    pub fn put_right(&mut self) {
        for peer in &mut self.peers {
            (peer.down, peer.truncates) = (false, false);
        }
    }

    /// What is due now. `firing`: what Prometheus sends; none when it is down.
    pub fn tick(&mut self, now: Timestamp, firing: Option<&[Alert]>) -> Vec<Post> {
        let mut posts = Vec::new();
        for number in 0..self.peers.len() {
            if self.peers[number].down {
                continue;
            }
            self.peers[number].hear(now, firing, number);
            let due = self.peers[number].due(now);
            for key in due {
                if let Some(post) = self.flush(number, &key, now) {
                    posts.push(post);
                }
            }
        }
        let mut arriving: Vec<Post> = self.held.extract_if(.., |(until, _)| *until <= now).map(|(_, post)| post).collect();
        for post in posts.into_iter().flat_map(|post| self.mischief(post)).collect::<Vec<_>>() {
            if self.peers[post.peer].spec.late && self.dice.one_in(6) {
                // The copy that is late; the peer itself has its answer, as when a proxy between has kept a second one.
                let until = now.saturating_add(SignedDuration::from_secs(self.dice.between(10, 90) as i64)).unwrap_or(now);
                self.held.push((until, Post { told: format!("late: {}", post.told), ..post.clone() }));
            }
            arriving.push(post);
        }
        arriving
    }

    /// What became of a post.
    pub fn answered(&mut self, post: &Post, status: Option<u16>, now: Timestamp) {
        let retry = status.is_none_or(|status| status >= 500);
        if let Some(group) = self.peers[post.peer].groups.get_mut(&post.group) {
            group.again = retry;
        }
        if !retry {
            self.told.insert(post.group.clone(), Told { at: now, firing: post.firing.clone() });
        }
    }

    fn flush(&mut self, number: usize, key: &str, now: Timestamp) -> Option<Post> {
        let (peer, dice) = (&mut self.peers[number], &mut self.dice);
        let (spec, truncates) = (peer.spec.clone(), peer.truncates);
        let group = peer.groups.get_mut(key)?;
        let again = group.again;
        if !again {
            group.flushed = Some(now);
        }
        let alive = |known: &Known| now.duration_since(known.seen) < LIVES;
        let firing: BTreeSet<String> =
            group.alerts.iter().filter(|(_, known)| alive(known)).map(|(name, _)| name.clone()).collect();
        let told = self.told.get(key);
        // The peers' gossip is lost now and then.
        let told = told.filter(|told| number == 0 || now.duration_since(told.at) > PEER_TIMEOUT || !dice.one_in(3));
        let over: BTreeSet<String> = told.map(|told| told.firing.difference(&firing).cloned().collect()).unwrap_or_default();
        let news = told.is_none_or(|told| !firing.is_subset(&told.firing));
        let repeat = told.is_some_and(|told| now.duration_since(told.at) >= spec.repeat_interval);
        group.alerts.retain(|name, known| alive(known) || over.contains(name));
        if firing.is_empty() && over.is_empty() || !(news || repeat || again || !over.is_empty()) {
            return None;
        }
        if firing.is_empty() && dice.one_in(4) {
            // The "resolved" is lost on the way.
            self.told.remove(key);
            return None;
        }
        let mut names: Vec<&String> = firing.iter().chain(over.iter().filter(|name| !firing.contains(*name))).collect();
        dice.shuffle(&mut names);
        // At least one is told, and of at least one more it is told that it was cut.
        let cut = if truncates { names.len().saturating_sub(1).max(1) } else { 0 };
        if truncates {
            names.truncate(1);
        }
        let alerts: Vec<_> = names
            .iter()
            .filter_map(|name| group.alerts.get(*name).map(|known| wire(&known.alert, known.since, firing.contains(*name))))
            .collect();
        let words = format!("{} firing, {} over, {cut} cut", firing.len(), over.len());
        Some(Post { peer: number, group: key.to_owned(), body: body(key, &alerts, cut), firing, told: words })
    }

    /// The same in another shape: twice, or each alert for itself, or an alert twice in one.
    fn mischief(&mut self, post: Post) -> Vec<Post> {
        let Ok(payload) = serde_json::from_slice::<serde_json::Value>(&post.body) else { return vec![post] };
        let alerts: Vec<_> = payload["alerts"].as_array().cloned().unwrap_or_default();
        let cut = payload["truncatedAlerts"].as_u64().unwrap_or(0) as usize;
        match self.dice.below(8) {
            0 => vec![post.clone(), Post { told: "the same again".to_owned(), ..post }],
            1 if alerts.len() > 1 => {
                let one = |alert: &serde_json::Value| body(&post.group, std::slice::from_ref(alert), cut);
                alerts.iter().map(|alert| Post { body: one(alert), ..post.clone() }).collect()
            }
            2 => {
                let twice: Vec<_> = alerts.iter().chain(&alerts).cloned().collect();
                vec![Post { body: body(&post.group, &twice, cut), ..post }]
            }
            _ => vec![post],
        }
    }
}

impl Peer {
    fn hear(&mut self, now: Timestamp, firing: Option<&[Alert]>, number: usize) {
        let Some(firing) = firing else { return };
        for known in self.groups.values_mut().flat_map(|group| group.alerts.values_mut()) {
            // Prometheus says itself that an alert is over.
            if !firing.iter().any(|alert| alert.labels == known.alert.labels) {
                known.seen = Timestamp::MIN;
            }
        }
        for alert in firing {
            let service = alert.labels.get("service").unwrap_or_default();
            let key = match self.spec.by_service {
                true => format!("{{}}:{{service=\"{service}\"}}"),
                false => format!("{{}}:{{alertname=\"{}\", service=\"{service}\"}}", alert.labels.alertname()),
            };
            let group = self.groups.entry(key).or_default();
            group.first.get_or_insert(now);
            // Each peer has its own idea of when it began.
            let offset = SignedDuration::from_secs(number as i64 * 7);
            let since = alert.starts_at.unwrap_or(now).saturating_add(offset).unwrap_or(now);
            let known = Known { alert: alert.clone(), seen: now, since };
            let name = alert.labels.fingerprint().to_string();
            group.alerts.entry(name).and_modify(|old| old.seen = now).or_insert(known);
        }
    }

    fn due(&mut self, now: Timestamp) -> Vec<String> {
        let spec = &self.spec;
        self.groups.retain(|_, group| !group.alerts.is_empty());
        let due = |group: &Group| match (group.again, group.flushed, group.first) {
            (true, _, _) => true,
            (_, Some(flushed), _) => now.duration_since(flushed) >= spec.group_interval,
            (_, None, Some(first)) => now.duration_since(first) >= spec.group_wait,
            (_, None, None) => false,
        };
        self.groups.iter().filter(|(_, group)| due(group)).map(|(key, _)| key.clone()).collect()
    }
}

/// One alert as the webhook has it.
pub fn wire(alert: &Alert, since: Timestamp, firing: bool) -> serde_json::Value {
    json!({
        "status": if firing { "firing" } else { "resolved" },
        "labels": alert.labels,
        "annotations": {},
        "startsAt": since,
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": alert.labels.fingerprint().to_string(),
    })
}

/// A notification as the webhook has it.
pub fn body(group: &str, alerts: &[serde_json::Value], cut: usize) -> Vec<u8> {
    let payload = json!({
        "version": "4",
        "groupKey": group,
        "truncatedAlerts": cut,
        "status": "firing",
        "receiver": "remediator",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager",
        "alerts": alerts,
    });
    payload.to_string().into_bytes()
}

/// How often the cluster is looked at.
pub const TICK: Duration = Duration::from_secs(10);
