//! Guards that can be switched off one at a time, in a build that exists only for that (`--features mutants`): whoever
//! claims that a simulation proves something has to show that it fails when the thing is taken away.
//!
//! In every other build [`off`] is a constant `false`, so that nothing of this is left in the program.

/// One list: each guard, and what its mutant lives without.
macro_rules! mutants {
    ($($name:ident: $without:literal,)*) => {
        /// A guard that a mutant lives without.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $(#[doc = $without] $name,)*
        }

        impl Mutant {
            pub const ALL: &[Mutant] = &[$(Mutant::$name,)*];

            /// What is taken away.
            pub fn without(self) -> &'static str {
                match self {
                    $(Mutant::$name => $without,)*
                }
            }
        }
    };
}

mutants! {
    Token: "anybody may deliver",
    Folding: "an episode is named by its alert and startsAt, not by its target",
    Acknowledgement: "2xx although the delivery is not on disk",
    OptIn: "containers need not be opted in",
    Condition: "an alert is believed without a word from Prometheus",
    Freshness: "how old scrapes and evaluations are does not matter",
    Silence: "a silence does not hold",
    Truncation: "a cut notification is as good as a whole one",
    StartGrace: "a container may be of any age",
    PauseRail: "admission does not look at pauses",
    CooldownRail: "admission does not look at the cooldown",
    RateRail: "admission does not look at the token buckets",
    BudgetRail: "admission does not look at the budgets",
    BreakerRail: "admission does not look at the breaker",
    Recurrence: "a cure counts as one although the target fires again",
    MinHealthyRail: "admission does not look at min_healthy",
    MaxUnhealthyRail: "admission does not look at max_unhealthy",
    MaxInFlightRail: "admission does not look at max_in_flight",
    BlameRail: "admission does not ask whether our own drain is to blame",
    ClockRail: "admission does not look at the clock",
    ShelfLife: "admission does not look at the evidence's age",
    SteadyAge: "how old the evidence is by a clock that does not jump is not asked",
    Intent: "a step begins although its start is not on disk",
    LastLookPause: "no look at pauses before drain and restart",
    LastLookMode: "no look at the mode before drain and restart",
    LastLookPermit: "no look at the permit before drain and restart",
    LastLookClock: "no look at the clock before drain and restart",
    LastLookIdentity: "no look at the container before drain and restart",
    LastLookDrained: "no look at the drain before restart",
    LastLookSiblings: "no look at the siblings before drain and restart",
    LastLookFresh: "a look before drain and restart may be as old as it likes",
    StepStall: "nothing is asked once more when the disk took its time for a step's start",
    OutcomeLookup: "a restart without an answer is repeated, not looked at",
    ReadmitOnExit: "a run that ends early does not readmit",
    Reconcile: "nobody compares the balancer with the journal",
    TheirDrain: "what somebody else drained is drained and readmitted all the same",
    TheirMaintenance: "what somebody put in maintenance is drained, restarted and readmitted all the same",
    TakeUp: "the next process does not take up what a dead one began",
    AskAgain: "nobody asks about an unsettled episode again",
    Pages: "no pages",
    StorePage: "no page about a journal that cannot be written",
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
