//! Guards that can be switched off one at a time, in a build that exists only for that (`--features mutants`): whoever
//! claims that a simulation proves something has to show that it fails when the thing is taken away.
//!
//! In every other build [`off`] is a constant `false`, so that nothing of this is left in the program.

/// A guard that a mutant lives without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutant {
    Token,
    Folding,
    Acknowledgement,
    OptIn,
    Freshness,
    Silence,
    Truncation,
    StartGrace,
    PauseRail,
    CooldownRail,
    RateRail,
    BudgetRail,
    BreakerRail,
    MinHealthyRail,
    MaxUnhealthyRail,
    MaxInFlightRail,
    BlameRail,
    ClockRail,
    ShelfLife,
    Intent,
    LastLookPause,
    LastLookMode,
    LastLookPermit,
    LastLookClock,
    LastLookIdentity,
    LastLookDrained,
    LastLookSiblings,
    OutcomeLookup,
    ReadmitOnExit,
    Reconcile,
    TakeUp,
    AskAgain,
    Pages,
    StorePage,
}

impl Mutant {
    pub const ALL: [Mutant; 34] = {
        use Mutant::*;
        [
            Token,
            Folding,
            Acknowledgement,
            OptIn,
            Freshness,
            Silence,
            Truncation,
            StartGrace,
            PauseRail,
            CooldownRail,
            RateRail,
            BudgetRail,
            BreakerRail,
            MinHealthyRail,
            MaxUnhealthyRail,
            MaxInFlightRail,
            BlameRail,
            ClockRail,
            ShelfLife,
            Intent,
            LastLookPause,
            LastLookMode,
            LastLookPermit,
            LastLookClock,
            LastLookIdentity,
            LastLookDrained,
            LastLookSiblings,
            OutcomeLookup,
            ReadmitOnExit,
            Reconcile,
            TakeUp,
            AskAgain,
            Pages,
            StorePage,
        ]
    };

    /// What is taken away.
    pub fn without(self) -> &'static str {
        match self {
            Mutant::Token => "anybody may deliver",
            Mutant::Folding => "an episode is named by its alert and startsAt, not by its target",
            Mutant::Acknowledgement => "2xx although the delivery is not on disk",
            Mutant::OptIn => "containers need not be opted in",
            Mutant::Freshness => "how old scrapes and evaluations are does not matter",
            Mutant::Silence => "a silence does not hold",
            Mutant::Truncation => "a cut notification is as good as a whole one",
            Mutant::StartGrace => "a container may be of any age",
            Mutant::PauseRail => "admission does not look at pauses",
            Mutant::CooldownRail => "admission does not look at the cooldown",
            Mutant::RateRail => "admission does not look at the token buckets",
            Mutant::BudgetRail => "admission does not look at the budgets",
            Mutant::BreakerRail => "admission does not look at the breaker",
            Mutant::MinHealthyRail => "admission does not look at min_healthy",
            Mutant::MaxUnhealthyRail => "admission does not look at max_unhealthy",
            Mutant::MaxInFlightRail => "admission does not look at max_in_flight",
            Mutant::BlameRail => "admission does not ask whether our own drain is to blame",
            Mutant::ClockRail => "admission does not look at the clock",
            Mutant::ShelfLife => "admission does not look at the evidence's age",
            Mutant::Intent => "a step begins although its start is not on disk",
            Mutant::LastLookPause => "no look at pauses before drain and restart",
            Mutant::LastLookMode => "no look at the mode before drain and restart",
            Mutant::LastLookPermit => "no look at the permit before drain and restart",
            Mutant::LastLookClock => "no look at the clock before drain and restart",
            Mutant::LastLookIdentity => "no look at the container before drain and restart",
            Mutant::LastLookDrained => "no look at the drain before restart",
            Mutant::LastLookSiblings => "no look at the siblings before drain and restart",
            Mutant::OutcomeLookup => "a restart without an answer is repeated, not looked at",
            Mutant::ReadmitOnExit => "a run that ends early does not readmit",
            Mutant::Reconcile => "nobody compares the balancer with the journal",
            Mutant::TakeUp => "the next process does not take up what a dead one began",
            Mutant::AskAgain => "nobody asks about an unsettled episode again",
            Mutant::Pages => "no pages",
            Mutant::StorePage => "no page about a journal that cannot be written",
        }
    }
}

/// True when this guard is switched off, which it never is outside the build for mutants.
#[cfg(not(feature = "mutants"))]
pub const fn off(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use switched::{off, switch_off};

#[cfg(feature = "mutants")]
mod switched {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        // A seed runs on one thread from its beginning to its end.
        static OFF: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    pub fn off(which: Mutant) -> bool {
        OFF.get() == Some(which)
    }

    /// Switches one guard of everything that this thread runs off, and all others on.
    pub fn switch_off(which: Option<Mutant>) {
        OFF.set(which);
    }
}
