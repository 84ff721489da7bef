//! A pause of a playbook holds by the playbook's name. It must not lose its object to a file that was renamed or removed.
//!
//! Promise: while a playbook is paused, a reload that would take it away is refused as a whole. A start reads the files whatever
//! is paused: there the pause grows to everything, which stops too much rather than too little, and says so in the journal, in
//! the log and in each page that it makes.

use jiff::Timestamp;

use crate::audit::JournalError;
use crate::decide::playbook::Playbook;
use crate::event::{Draft, Event, Pause, PauseScope};
use crate::pipeline::Context;
use crate::words;

/// Who is said to have ordered it.
const ACTOR: &str = "remediator";

/// Pauses in force of playbooks that are not among these.
pub fn orphans(pauses: &[Pause], playbooks: &[Playbook], now: Timestamp) -> Vec<Pause> {
    let gone = |pause: &&Pause| match &pause.scope {
        PauseScope::Playbook(name) => playbooks.iter().all(|playbook| playbook.name != *name),
        PauseScope::All | PauseScope::Target(_) => false,
    };
    pauses.iter().filter(|pause| pause.until.is_none_or(|until| now < until)).filter(gone).cloned().collect()
}

/// Lets every pause whose playbook is gone hold everything instead.
///
/// # Errors
/// The journal cannot be written.
pub async fn widen(context: &Context) -> Result<(), JournalError> {
    let (now, playbooks) = (context.world.clock.now(), context.playbooks());
    if context.journal.read(|state| orphans(&state.books.pauses, &playbooks, now).is_empty()) {
        return Ok(());
    }
    let widened = context.journal.transact(move |state| {
        let lost = orphans(&state.books.pauses, &playbooks, now);
        let drafts = lost.iter().flat_map(|pause| {
            let reason = words::pause_widened(pause);
            let wider = Pause { scope: PauseScope::All, actor: ACTOR.to_owned(), reason: reason.clone(), until: pause.until };
            let resumed = Event::Resumed { scope: pause.scope.clone(), actor: ACTOR.to_owned(), reason };
            [resumed, Event::Paused { pause: wider }].map(|event| Draft::global(now, event))
        });
        (drafts.collect(), lost)
    });
    for pause in widened.await?.1 {
        tracing::warn!(scope = %pause.scope, actor = pause.actor, "everything is paused: {}", words::pause_widened(&pause));
    }
    Ok(())
}
