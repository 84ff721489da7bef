//! Keeps the journal within its bounds, and says what it took out and what keeps it from doing so.

use std::time::Duration;

use crate::audit::export::Written;
use crate::audit::prune::{self, Bounds, Ran};
use crate::pipeline::Context;

/// The first look comes soon after the start, so that a program that is restarted every hour prunes as well.
const FIRST_LOOK: Duration = Duration::from_secs(60);

/// Looks every so often, until the program stops.
pub async fn keep(context: Context, bounds: Bounds, every: Duration, written: Written) {
    let mut wait = FIRST_LOOK.min(every);
    let mut said = Ran::default();
    loop {
        tokio::select! {
            () = context.world.clock.sleep(wait) => {}
            () = context.shutdown.cancelled() => return,
        }
        wait = every;
        let run = prune::run(&context.journal, context.world.clock.as_ref(), bounds, written.seq());
        let ran = tokio::select! {
            ran = run => ran,
            // A step that is under way is carried out or not; the next process goes on.
            () = context.shutdown.cancelled() => return,
        };
        match ran {
            Ok(ran) => {
                if ran.steps > 0 {
                    tell(&context);
                }
                warn(&ran, &said);
                said = ran;
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, cause, "the journal was not pruned; `remediator audit verify` says more");
            }
        }
    }
}

/// The anchor leaves the machine with the log, so that one who rewrites what is before it is noticed.
fn tell(context: &Context) {
    let Some(anchored) = context.journal.read(|state| state.books.anchored.clone()) else { return };
    tracing::info!(
        through = anchored.pruned.through,
        before = %anchored.pruned.before,
        anchor = anchored.pruned.anchor_hash,
        "the oldest entries of the journal were pruned"
    );
}

/// Said once, until it changes.
fn warn(ran: &Ran, said: &Ran) {
    if let Some(seq) = ran.held_at.filter(|_| ran.held_at != said.held_at) {
        tracing::warn!(
            entry = seq,
            "older entries would be pruned, but somebody still needs this one: a record that is open, or one that audit.jsonl has not got"
        );
    }
    if ran.still_crowded && !said.still_crowded {
        tracing::warn!("the journal is larger than retention.size, and everything in it is too young or still needed");
    }
    if ran.clock_behind && !said.clock_behind {
        tracing::warn!("the clock is behind the journal's newest entry, so that nobody can say what is old: nothing is pruned");
    }
}
