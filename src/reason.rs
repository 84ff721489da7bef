//! The closed list of reason codes and outcomes: the same word in the enum, the metric label, the audit, the API, the
//! page and RUNBOOK.md (a test compares the list here with the runbook's).
//!
//! Codes are stable: one may be added, none may change its meaning.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident => $code:literal, $group:ident, $meaning:literal;)*) => {
        /// Why something was decided, refused, interrupted, failed or left unknown.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason {
            $($(#[$doc])* #[serde(rename = $code)] $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of the walk.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The stable code.
            pub fn code(self) -> &'static str {
                match self { $(Reason::$variant => $code,)* }
            }

            /// Which step of the walk gives this reason.
            pub fn group(self) -> Group {
                match self { $(Reason::$variant => Group::$group,)* }
            }

            /// What it means, in one sentence for the person on call.
            pub fn meaning(self) -> &'static str {
                match self { $(Reason::$variant => $meaning,)* }
            }
        }
    };
}

/// The step of the walk that a reason belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Detect,
    Confirm,
    Match,
    Decide,
    Guard,
    Act,
    Verify,
}

reasons! {
    NoPlaybook => "no_playbook", Detect, "no playbook matches this alert";
    TargetUnnamed => "target_unnamed", Detect, "the alert does not carry a usable value in the label that names the replica";

    ConditionQuiet => "condition_quiet", Confirm, "Prometheus proves that the condition does not hold now";
    PrometheusUnreachable => "prometheus_unreachable", Confirm, "Prometheus could not be reached";
    PrometheusTimeout => "prometheus_timeout", Confirm, "Prometheus did not answer in time";
    PrometheusRefused => "prometheus_refused", Confirm, "Prometheus answered with an error";
    PrometheusWarnings => "prometheus_warnings", Confirm, "Prometheus answered with warnings, so the data may be partial";
    PrometheusMalformed => "prometheus_malformed", Confirm, "Prometheus' answer could not be read";
    PrometheusBlind => "prometheus_blind", Confirm, "Prometheus does not see its targets: the observer is blind";
    RuleMissing => "rule_missing", Confirm, "Prometheus has no alerting rule of this name";
    RuleStale => "rule_stale", Confirm, "Prometheus has not evaluated the alert's rule lately";
    RuleLags => "rule_lags", Confirm, "the rule began to fire before the container started, and the recovery query calls the replica well";
    AlertPending => "alert_pending", Confirm, "the condition holds but has not lasted for the rule's `for`";
    SignalsMixed => "signals_mixed", Confirm, "the rule's listing and its expression disagree";
    InputMissing => "input_missing", Confirm, "a series that the decision needs is missing";
    InputAmbiguous => "input_ambiguous", Confirm, "more than one series answers for this target";
    InputStale => "input_stale", Confirm, "a series that the decision needs has no sample younger than two scrapes";
    InputNotFinite => "input_not_finite", Confirm, "a value that the decision needs is NaN or infinite";
    TargetNotScraped => "target_not_scraped", Confirm, "Prometheus does not scrape this target";
    TargetDown => "target_down", Confirm, "Prometheus' last scrape of this target failed";

    ContainerMissing => "container_missing", Match, "no container carries the target's name";
    ContainerAmbiguous => "container_ambiguous", Match, "several containers carry the target's name";
    NotEnabled => "not_enabled", Match, "the container is not opted in with remediator.enable=true";
    ServerMissing => "server_missing", Match, "the container's server is not known at the balancer";
    AddressMismatch => "address_mismatch", Match, "the balancer's address for the server is not the container's";
    SharedNetwork => "shared_network", Match, "the container shares its network namespace with others";
    OwnInfrastructure => "own_infrastructure", Match, "the container is a part of what remediator stands on";

    DockerUnavailable => "docker_unavailable", Decide, "the Docker Engine could not be asked";
    BalancerUnavailable => "balancer_unavailable", Decide, "the balancer could not be asked";
    AlertmanagerUnavailable => "alertmanager_unavailable", Decide, "Alertmanager could not be asked about silences";
    OwnInfrastructureUnknown => "own_infrastructure_unknown", Decide, "nobody can say whether the container is a part of what remediator stands on";
    ContainerNotRunning => "container_not_running", Decide, "the container is not running; a restart is not a cure for that";
    StartGrace => "start_grace", Decide, "the container is younger than its start grace";
    Silenced => "silenced", Decide, "a silence matches the alert, and a silence means hold";
    Vetoed => "vetoed", Decide, "a veto query of the playbook returned data";
    VetoUnknown => "veto_unknown", Decide, "a veto query of the playbook could not be answered";
    ServerDrained => "server_drained", Decide, "somebody else drained the server";
    ServerMaintenance => "server_maintenance", Decide, "the server is in maintenance";
    NoHealthCheck => "no_health_check", Decide, "the balancer does not check the server's health, so readmitting it would be a guess";
    AlertsTruncated => "alerts_truncated", Decide, "Alertmanager cut the group, so the blast radius is unknown";

    Paused => "paused", Guard, "remediator is paused";
    EpisodeHeld => "episode_held", Guard, "a remediation of this target is under way";
    Cooldown => "cooldown", Guard, "the target was remediated a short while ago";
    RateLimited => "rate_limited", Guard, "the token bucket is empty";
    BudgetSpent => "budget_spent", Guard, "the budget of remediations is spent: there is a deeper problem";
    BreakerOpen => "breaker_open", Guard, "the remedy failed repeatedly, so it is not tried again for now";
    BreakerProbing => "breaker_probing", Guard, "one probe is under way, and only its verdict closes the breaker";
    MinHealthy => "min_healthy", Guard, "too few other replicas would be serving";
    MaxUnhealthy => "max_unhealthy", Guard, "so many replicas are sick that the cause is shared";
    MaxInFlight => "max_in_flight", Guard, "enough replicas are being remediated already";
    SickAfterAction => "sick_after_action", Guard, "the target became sick after a sibling was drained: the remedy may be the cause";
    RadiusUnknown => "radius_unknown", Guard, "the blast radius could not be worked out";
    StoreUnavailable => "store_unavailable", Guard, "the journal could not be written";
    ClockUnreliable => "clock_unreliable", Guard, "the clock jumped, or is behind Prometheus' own";
    EvidenceStale => "evidence_stale", Guard, "too much time passed between looking and acting";
    WouldRemediate => "would_remediate", Guard, "shadow mode: everything but the side effects";

    EvidenceMissing => "evidence_missing", Act, "the evidence could not be captured, and the playbook requires it";
    DrainFailed => "drain_failed", Act, "the balancer refused the drain or its answer is unknown";
    DrainTimeout => "drain_timeout", Act, "the server did not empty in time";
    DrainLost => "drain_lost", Act, "the server was no longer drained before the restart";
    PermitExpired => "permit_expired", Act, "the permit expired before the step";
    ContainerChanged => "container_changed", Act, "the container is not the one that the permit was given for";
    ModeChanged => "mode_changed", Act, "the playbook's mode changed during the run";
    RestartFailed => "restart_failed", Act, "the Engine refused the restart";
    RestartUnknown => "restart_unknown", Act, "it could not be found out whether the container restarted";
    NotHealthyInTime => "not_healthy_in_time", Act, "the container was not healthy in time after the restart";
    ReadmitFailed => "readmit_failed", Act, "the balancer could not be told to readmit the server";
    Crashed => "crashed", Act, "remediator stopped in the middle of the run";
    ShuttingDown => "shutting_down", Act, "remediator was asked to stop";
    Aborted => "aborted", Act, "a person aborted the run";

    RecoveryConfirmed => "recovery_confirmed", Verify, "the recovery query stayed below its threshold on fresh samples";
    RecoveryAbove => "recovery_above", Verify, "the recovery query is still above its threshold";
    RecoveryUnseen => "recovery_unseen", Verify, "not enough fresh samples to judge the recovery in time";
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

/// How a record ended. Every record has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Restarted, and the recovery query proves that it helped.
    Recovered,
    /// Restarted, and the recovery query proves that it did not help.
    StillFiring,
    /// Restarted, and nothing proves either.
    VerdictUnknown,
    /// A step failed, so the remediation was not completed.
    ActionFailed,
    /// Broken off at a safe point.
    Interrupted,
    /// A guardrail or a hold said no.
    Refused,
    /// Prometheus proves that there is nothing to do.
    ConditionCleared,
    /// Prometheus cannot say.
    UnknownCondition,
    /// The alert does not name exactly one replica that we may touch.
    UnmatchedTarget,
    /// Shadow mode would have acted.
    Shadow,
}

impl Outcome {
    pub const ALL: &'static [Outcome] = &[
        Outcome::Recovered,
        Outcome::StillFiring,
        Outcome::VerdictUnknown,
        Outcome::ActionFailed,
        Outcome::Interrupted,
        Outcome::Refused,
        Outcome::ConditionCleared,
        Outcome::UnknownCondition,
        Outcome::UnmatchedTarget,
        Outcome::Shadow,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Outcome::Recovered => "recovered",
            Outcome::StillFiring => "still_firing",
            Outcome::VerdictUnknown => "verdict_unknown",
            Outcome::ActionFailed => "action_failed",
            Outcome::Interrupted => "interrupted",
            Outcome::Refused => "refused",
            Outcome::ConditionCleared => "condition_cleared",
            Outcome::UnknownCondition => "unknown_condition",
            Outcome::UnmatchedTarget => "unmatched_target",
            Outcome::Shadow => "shadow",
        }
    }

    /// Every other outcome pages: taking the alert off the pager must never mean that nobody hears of it.
    pub fn is_settled(self) -> bool {
        matches!(self, Outcome::Recovered | Outcome::ConditionCleared)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}
