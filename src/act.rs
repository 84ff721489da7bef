//! Drain, restart, readmit: the only room that changes anything outside.
//!
//! Promises:
//! - Every step's start is on disk before its call, and its end before the next call that changes anything.
//!   When the journal cannot be written, drain and restart do not happen; readmit does, and is written down later.
//! - Right before drain and right before restart everything that may have changed is read again: pause, mode, permit,
//!   the container's id and start, and before the restart also that the server is still drained. Then the step's start is
//!   written, and a pause, an abort, the mode, the permit and the clock are asked once more; if the disk took more than a
//!   quarter of a second, everything is.
//! - A person's abort ends a run that has not begun its restart, promptly while it drains (`abort`).
//! - Readmit happens on every way out once a drain may have happened, also after a crash (`recover`).
//! - A call whose result is unknown is looked at, never repeated.
//!
//! Races it accepts: between the last look and the Engine's receipt of the restart lies the commit of the step's start,
//! milliseconds as a rule and a quarter of a second at most, in which somebody else may restart the container; Docker has no
//! fence against that. The harm is one restart more.

pub mod abort;
pub mod hands;
pub mod last_look;
pub mod recover;
pub mod scribe;
pub mod steps;

use jiff::Timestamp;

use crate::act::scribe::Scribe;
use crate::act::steps::Steps;
use crate::decide::decision::Plan;
use crate::event::Step;
use crate::guard::permit::{Live, Permit};
use crate::moment::Moment;
use crate::mutant::{Mutant, off};
use crate::pipeline::{Context, Ending};

/// The container runs again and its server takes traffic: what Verify starts from.
#[derive(Clone, Debug, PartialEq)]
pub struct Acted {
    pub plan: Plan,
    /// When the restart was begun; a sample or a process older than this proves nothing.
    pub acted_at: Timestamp,
}

/// Carries out a plan. The permit is consumed, whatever happens; `seen` is the moment of the evidence it was given for.
///
/// # Errors
/// The ending that the record is to be closed with; by then the server has been readmitted, or readmitting it has
/// failed and the reconciler goes on trying.
pub async fn carry_out(context: &Context, scribe: &mut Scribe, permit: Permit<Live>, seen: Moment) -> Result<Acted, Ending> {
    let mut steps = Steps { context, scribe, plan: permit.plan().clone(), drain_unknown: false };
    let restarted = async {
        steps.capture_evidence().await?;
        let leave = last_look::before_drain(context, &permit, seen).await?;
        steps.drain(leave).await?;
        let leave = last_look::before_restart(context, &permit, seen).await?;
        let acted_at = steps.restart(leave).await?;
        steps.await_healthy(acted_at).await?;
        Ok(acted_at)
    }
    .await;
    let readmitted = match steps.scribe.began(Step::Drain) && (restarted.is_ok() || !off(Mutant::ReadmitOnExit)) {
        true => steps.readmit().await,
        false => Ok(()),
    };
    // A server that stays drained is the more urgent news; the first reason is told beside it.
    let acted_at = match (restarted, readmitted) {
        (Ok(acted_at), Ok(())) => acted_at,
        (Err(first), Err(last)) => {
            return Err(Ending { detail: format!("{}; before that {}: {}", last.detail, first.reason, first.detail), ..last });
        }
        (Err(ending), Ok(())) | (Ok(_), Err(ending)) => return Err(ending),
    };
    Ok(Acted { plan: permit.plan().clone(), acted_at })
}
