//! The proof that the pipeline still decides: a synthetic alert that walks from Detect to Guard, and no further.
//!
//! Promises:
//! - A beat is complete only when the payload was read, the alert was claimed, `decide` made a plan, every rail was asked
//!   inside the journal's writer, and a commit has reached the disk after that. A stuck writer, a full disk, a poisoned
//!   lock, a queue that nobody empties: each stops the heart, where a timer beside the pipeline would beat on.
//! - It never touches anything. Only `guard::coordinate` makes a permit, and nothing here calls it; the playbook is in
//!   shadow besides; the target is one that no container is labelled with.
//! - It leaves no trace in the audit, in the books or in the chain, and spends no token.
//!
//! Why not the time of the last real decision: with one leak a week that is a week old, and proves nothing.
//!
//! What it does not prove: that the outside answers (`/readyz` asks that), and that one particular record gets on:
//! [`overdue`] is for that. A beat takes no turn among the episodes, because a storm that is walked turn by turn for
//! minutes is work and no standstill, and must not get the process killed.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::alert::{Alert, Matcher};
use crate::audit::JournalError;
use crate::audit::state::State;
use crate::decide::decision::{Plan, decide};
use crate::decide::evidence::{Evidence, Reading, Sibling};
use crate::decide::playbook::{
    BlastRadius, BreakerSpec, Budget, Confirm, DrainSpec, EvidenceSpec, Guards, HEARTBEAT, Mode, OnTimeout, Playbook, Rate,
    RecoverySpec, Share,
};
use crate::detect::payload::{self, PayloadError};
use crate::detect::target_of;
use crate::event::Record;
use crate::guard::rails::{Rail, Request, assess};
use crate::period::Period;
use crate::pipeline::{Context, plan_of};
use crate::target::{NameError, PlaybookName, Replica, ServiceName, Target};
use crate::world::{Container, Health, Server, ServerStatus};

/// How often it beats when the settings do not say: four beats fit into systemd's `WatchdogSec=120`.
pub const EVERY: Period = Period::from_secs(30);
/// The slowest beat that the settings may ask for: one may be lost, and the next still comes before the watchdog.
pub const SLOWEST: Period = Period::from_secs(45);
/// Rails that must have had their say.
const RAILS: [Rail; 12] = [
    Rail::Pause,
    Rail::Episode,
    Rail::Cooldown,
    Rail::Rate,
    Rail::Budget,
    Rail::Breaker,
    Rail::MinHealthy,
    Rail::MaxUnhealthy,
    Rail::MaxInFlight,
    Rail::Blame,
    Rail::Clock,
    Rail::Evidence,
];
/// How long a record may be confirmed, decided and guarded: a few rounds of questions at their time-outs, and a turn.
const ADMITTED_WITHIN: SignedDuration = SignedDuration::from_mins(5);
/// For what the plan's own bounds do not count: reading the outcome of a lost call, readmitting, writing it all down.
const SLACK: SignedDuration = SignedDuration::from_mins(2);

/// What every beat walks with; made once, so that a mistake in it shows at the start.
#[derive(Debug)]
pub struct Heart {
    playbook: Playbook,
    replica: Replica,
}

/// Where the walk ended that should not have.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    #[error("the heartbeat's own alert or playbook is wrong: {0}")]
    Made(String),
    #[error("detect: the alert could not be read")]
    Read(#[from] PayloadError),
    #[error("detect: {0}")]
    Claim(String),
    #[error("decide: no plan was made: {0}")]
    Decide(String),
    #[error("guard: the rail {} was not asked", .0.word())]
    Guard(Rail),
    #[error("journal: no commit")]
    Journal(#[from] JournalError),
}

impl Heart {
    /// # Errors
    /// [`Stopped::Made`], which is a bug of ours.
    pub fn new() -> Result<Heart, Stopped> {
        let made = |error: NameError| Stopped::Made(error.to_string());
        let target = Target { service: "remediator".parse().map_err(made)?, instance: "heartbeat".parse().map_err(made)? };
        let container = Container {
            id: "0".repeat(64).parse().map_err(made)?,
            name: "heartbeat".parse().map_err(made)?,
            image: String::new(),
            labels: std::collections::BTreeMap::new(),
            running: true,
            status: "running".to_owned(),
            started_at: Some(Timestamp::UNIX_EPOCH),
            health: Health::None,
            health_log: Vec::new(),
            network_mode: String::new(),
            addresses: Vec::new(),
            published: Vec::new(),
            restart_count: 0,
            infrastructure: None,
            infrastructure_unknown: None,
        };
        let server = Server {
            path: "remediator/heartbeat".parse().map_err(made)?,
            address: None,
            status: ServerStatus::Up,
            drained: false,
            maintenance: false,
            checked: true,
            sessions: 0,
            queued: 0,
        };
        let matcher =
            format!("alertname=\"{HEARTBEAT}\"").parse::<Matcher>().map_err(|error| Stopped::Made(error.to_string()))?;
        let name = "remediator-heartbeat".parse().map_err(made)?;
        let playbook = playbook(name, target.service.clone(), vec![matcher]);
        Ok(Heart { playbook, replica: Replica { target, container, server } })
    }

    /// One beat: the whole walk, or where it stopped. Answers when it was complete.
    ///
    /// # Errors
    /// The part of the pipeline that did not do its work. It may also never answer, if that part hangs.
    pub async fn beat(&self, context: &Context) -> Result<Timestamp, Stopped> {
        let now = context.world.clock.now();
        let alert = self.detected(now)?;
        self.claimed(context, &alert)?;
        let evidence = self.evidence(&alert, now);
        let plan = self.decided(&evidence, now)?;
        let (playbook, limits, clock) = (self.playbook.clone(), context.limits, context.world.clock.clone());
        let assessment = context.journal.beat(now, move |state: &State| {
            let passed = SignedDuration::ZERO;
            let request = Request { playbook: &playbook, limits: &limits, evidence: &evidence, passed, plan: &plan };
            assess(&state.books, &request, clock.now())
        });
        let checks = assessment.await?.checks;
        // What they say is the books' business: a pause is no illness. That they were asked is ours.
        match RAILS.into_iter().find(|rail| !checks.iter().any(|check| check.rail == *rail)) {
            Some(silent) => Err(Stopped::Guard(silent)),
            None => Ok(context.world.clock.now()),
        }
    }

    /// The alert as a webhook would bring it, read as every delivery is.
    fn detected(&self, now: Timestamp) -> Result<Alert, Stopped> {
        let Target { service, instance } = &self.replica.target;
        let body = json!({ "version": "4", "status": "firing", "receiver": "remediator", "groupKey": "{}:{}", "truncatedAlerts": 0,
            "alerts": [{ "status": "firing", "startsAt": now.to_string(),
                "labels": { "alertname": HEARTBEAT, "service": service, "instance": instance } }] });
        let group = payload::parse(body.to_string().as_bytes(), 1)?;
        group.alerts.into_iter().next().ok_or_else(|| Stopped::Claim("the delivery came out empty".to_owned()))
    }

    /// By the one playbook that it is for, and by none of the others.
    fn claimed(&self, context: &Context, alert: &Alert) -> Result<(), Stopped> {
        if let Some(thief) = context.playbooks().iter().find(|playbook| playbook.claims(&alert.labels)) {
            return Err(Stopped::Claim(format!("playbook {} claims the heartbeat", thief.name)));
        }
        let target = target_of(&self.playbook, &alert.labels).filter(|_| self.playbook.matches(&alert.labels));
        if target.as_ref() == Some(&self.replica.target) {
            return Ok(());
        }
        Err(Stopped::Claim("the alert was not recognised".to_owned()))
    }

    fn decided(&self, evidence: &Evidence, now: Timestamp) -> Result<Plan, Stopped> {
        plan_of(decide(&self.playbook, evidence, now)).map_err(|ending| Stopped::Decide(ending.detail))
    }

    /// What Confirm would find out if it were true.
    fn evidence(&self, alert: &Alert, at: Timestamp) -> Evidence {
        let target = self.replica.target.clone();
        let sibling = Sibling {
            instance: target.instance.clone(),
            server: Some(self.replica.server.path.clone()),
            serving: true,
            state: "up".to_owned(),
            sick: true,
            alerts: vec![HEARTBEAT.to_owned()],
            active_at: Some(at),
        };
        Evidence {
            at,
            labels: alert.labels.clone(),
            target,
            truncated: 0,
            reading: Reading::Firing { value: 1.0, query: String::new() },
            replica: Ok(self.replica.clone()),
            siblings: Ok(vec![sibling]),
            listed: Ok(vec![HEARTBEAT.to_owned()]),
            silences: Ok(Vec::new()),
            vetoes: Vec::new(),
        }
    }
}

/// Something in every field, so that every rail has something to look at.
fn playbook(name: PlaybookName, service: ServiceName, matchers: Vec<Matcher>) -> Playbook {
    let second = Period::from_secs(1);
    let guards = Guards {
        start_grace: second,
        cooldown: second,
        rate: Rate { per: second, burst: 1 },
        budget: vec![Budget { most: 1, per: second }],
        breaker: BreakerSpec { failures: 1, recurrence: second, cooldown: second },
        blast_radius: BlastRadius { min_healthy: 0, max_unhealthy: Share::Count(1), max_in_flight: 1, blame: second },
    };
    Playbook {
        name,
        service,
        matchers,
        every: None,
        replica_label: "instance".to_owned(),
        infrastructure: false,
        confirm: Confirm::Rule { inputs: Vec::new() },
        veto: Vec::new(),
        evidence: EvidenceSpec { logs: 0, required: true },
        drain: DrainSpec { within: second, on_timeout: OnTimeout::Abort },
        restart_grace_seconds: 1,
        healthy_within: second,
        recovered: RecoverySpec { query: String::new(), below: 0.0, settle: second, looks: 1, within: second },
        guards,
        mode: Mode::Shadow,
    }
}

/// By how much the most overdue of the open records is late, if any is: for longer than all bounds of its own plan
/// together nobody has got it on.
pub fn overdue<'a>(open: impl IntoIterator<Item = &'a Record>, now: Timestamp) -> SignedDuration {
    let late = open.into_iter().map(|record| now.duration_since(due(record)));
    late.max().unwrap_or_default().max(SignedDuration::ZERO)
}

/// When a record should be closed at the latest.
fn due(record: &Record) -> Timestamp {
    let due = match &record.intent {
        None => record.opened_at.saturating_add(ADMITTED_WITHIN),
        Some(intent) => {
            let recovery = &intent.plan.recovery;
            intent.expires_at.saturating_add(recovery.settle.signed() + recovery.within.signed() + SLACK)
        }
    };
    due.unwrap_or(Timestamp::MAX)
}
