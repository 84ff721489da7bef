//! While its alert fires, an episode that was left unsettled is asked about again: when its timer runs out, when the
//! rail that refused it frees, when Alertmanager says something about it. It never waits for Alertmanager's
//! `repeat_interval`.
//!
//! A settled episode is watched as well for a while. Alertmanager does not tell twice about an alert that resolved and
//! fired again between two of its flushes, and a cure that lasts ten minutes has to be noticed.
//!
//! A new record is opened only when what there is to say has changed.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::decide::decision::decide;
use crate::decide::evidence::{Evidence, NoReplica, Reading};
use crate::decide::playbook::Mode;
use crate::detect::confirm::{Question, confirm};
use crate::detect::healer;
use crate::event::{Accepted, Draft, Event, Trigger};
use crate::guard::breaker;
use crate::guard::ledger::Watch;
use crate::guard::rails::{Request, assess};
use crate::mutant::{Mutant, off};
use crate::pipeline::{Context, Ending, plan_of};
use crate::reason::{Outcome, Reason};
use crate::verify::recovery::below_now;

/// For how many rounds of asking a cure on trial may be out of sight before that is told: a Prometheus that is restarted is
/// back by then.
const BLIND_FOR: u32 = 3;

/// What asking again came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing new.
    Same,
    /// Nothing to wait for any more, and why.
    Over(String),
    /// Something new: it deserves a record of its own.
    Changed,
}

/// Asks about a watched episode again, and opens a record when the answer is news. Returns true while it is watched.
/// `blind` is since when looks have said nothing; a new process begins anew.
pub async fn ask_again(context: &Context, watch: &Watch, blind: &mut Option<Timestamp>) -> bool {
    if off(Mutant::AskAgain) {
        return true;
    }
    let now = context.world.clock.now();
    let (asked, about) = ask(context, watch, blind, now).await;
    let draft = match asked {
        Asked::Same => return true,
        Asked::Over(detail) => Draft::global(now, Event::WatchEnded { key: watch.key.clone(), detail }),
        Asked::Changed => {
            let trigger = Trigger::AskedAgain { of: watch.record };
            let playbook = context.playbook_today(about);
            let accepted = Accepted {
                trigger,
                mode: playbook.as_ref().map_or(about.mode, |playbook| playbook.mode),
                playbook: playbook.map(|playbook| playbook.name).or_else(|| about.playbook.clone()),
                host: context.host.clone(),
                healer: healer(),
                ..about.clone()
            };
            Draft::of(context.world.clock.new_record(), now, Event::Accepted { accepted: Arc::new(accepted) })
        }
    };
    let over = matches!(draft.event, Event::WatchEnded { .. });
    let seen = watch.clone();
    // A delivery may have come in while we asked; then what it says is asked about first.
    let written = context.journal.transact(move |state| {
        let taken = state.under_way(&seen.key).is_some();
        let unchanged = state.books.watches.get(&seen.key).is_some_and(|watch| **watch == seen);
        (if taken || !unchanged { Vec::new() } else { vec![draft] }, ())
    });
    match written.await {
        Ok((entries, ())) => entries.is_empty() || !over,
        Err(error) => {
            tracing::error!(%error, "an episode that changed could not be written down; it is asked about again");
            true
        }
    }
}

/// Asks about every alert of the episode, and says which of them brings news.
async fn ask<'a>(context: &Context, watch: &'a Watch, blind: &mut Option<Timestamp>, now: Timestamp) -> (Asked, &'a Accepted) {
    let answer = fresh_answer(context, &watch.accepted).await;
    let unseen = match &answer {
        Some((_, Some(answer))) => says_nothing(context, &watch.accepted, answer, now).await,
        _ => false,
    };
    let since = blind.unwrap_or(now);
    *blind = unseen.then_some(since);
    let too_long = now.duration_since(since) >= patience(context);
    let mut asked = match answer {
        Some((_, Some(answer))) if remedied(watch) && !proven(context, watch, &answer, now).await => Asked::Same,
        // A rule that lags behind fires on although the replica is well: its cure is not to be repeated.
        Some((evidence, _)) if lags(context, watch, &watch.accepted, &evidence, now).await => Asked::Same,
        // Nothing else is news while it stands drained in our name; the reconciler goes on trying.
        Some(_) if left_drained(context, watch) => Asked::Same,
        // Act or page, never silently: a cure that nobody can see hold is not yet one, and neither is an alert over that came
        // again.
        Some(_) if doubted(context, watch, now) && unseen && too_long => Asked::Changed,
        Some((evidence, answer)) => compare(context, watch, &evidence, answer.as_ref(), now),
        // What stands drained in our name is told until it does not, whatever became of the playbook.
        None if left_drained(context, watch) => Asked::Same,
        // Its playbook was taken away while something was the matter: that nobody looks after it any more is news, once.
        None if orphaned(watch) => Asked::Changed,
        // Nobody can ask for it: no playbook, or no target. The page stays for its time.
        None if lasted(watch, now) >= context.timing.hold.signed() => Asked::Over("held for its time".to_owned()),
        None => Asked::Same,
    };
    for member in &watch.members {
        if asked == Asked::Changed {
            break;
        }
        let Some((evidence, answer)) = fresh_answer(context, member).await else { continue };
        if left_drained(context, watch) || lags(context, watch, member, &evidence, now).await {
            asked = Asked::Same;
            continue;
        }
        let firing = matches!(evidence.reading, Reading::Firing { .. });
        let acts = answer.is_none() && !(said_in_shadow(context, watch) && member.playbook == watch.accepted.playbook);
        let again = watch.outcome.is_settled() && firing && !answer.as_ref().is_some_and(|answer| waits_quietly(watch, answer));
        // That another alert of the episode is refused for another reason is no news: the two would take turns for ever.
        let unseen = match &answer {
            Some(answer) => says_nothing(context, member, answer, now).await,
            None => false,
        };
        if acts || again || (unseen && too_long && doubted(context, watch, now)) {
            return (Asked::Changed, member);
        }
        *blind = blind.or(unseen.then_some(since));
        if !gone(&evidence) {
            asked = Asked::Same;
        }
    }
    (asked, &watch.accepted)
}

/// Evidence of now, and how the walk would end: `None` inside means that it would act.
async fn fresh_answer(context: &Context, accepted: &Accepted) -> Option<(Evidence, Option<Ending>)> {
    let playbook = context.playbook_today(accepted)?;
    let target = accepted.target.as_ref()?;
    let siblings = context.playbooks();
    let question = Question { accepted, target, playbook: &playbook, siblings: siblings.as_slice() };
    let (evidence, _) = confirm(&context.world, &context.looks, question).await;
    let now = evidence.at;
    let answer = match plan_of(decide(&playbook, &evidence, now)) {
        Err(ending) => Some(ending),
        Ok(plan) => {
            let (limits, passed) = (&context.limits, SignedDuration::ZERO);
            let request = Request { playbook: &playbook, limits, evidence: &evidence, passed, plan: &plan };
            let assessment = context.journal.read(|state| assess(&state.books, &request, now));
            assessment.refused().then(|| Ending::refused(&assessment))
        }
    };
    Some((evidence, answer))
}

fn compare(context: &Context, watch: &Watch, evidence: &Evidence, answer: Option<&Ending>, now: Timestamp) -> Asked {
    let firing = matches!(evidence.reading, Reading::Firing { .. });
    if watch.outcome.is_settled() {
        let trial = recurrence(context, watch).max(context.timing.hold.signed());
        return match answer {
            _ if firing && !answer.is_some_and(|answer| waits_quietly(watch, answer)) => Asked::Changed,
            _ if gone(evidence) && lasted(watch, now) >= trial => Asked::Over("quiet for its time".to_owned()),
            // It was delivered again, and nobody can say whether it is true: that is no longer settled.
            Some(answer) if watch.joined_at.is_some() && blind(answer, evidence) => Asked::Changed,
            _ => Asked::Same,
        };
    }
    match answer {
        // It would act, unless shadow has just said so.
        None if said_in_shadow(context, watch) => Asked::Same,
        None => Asked::Changed,
        // A pause that broke the run off and a pause that refuses the next one are the same news.
        Some(answer) if answer.reason == watch.reason => over_or_same(context, watch, evidence, now),
        // What the page says is no longer so, whatever it is that keeps from acting now.
        Some(_) if resumed(context, watch, now) => Asked::Changed,
        Some(answer) if only_waits(answer) || crate::pipeline::unclear(&evidence.reading) => {
            over_or_same(context, watch, evidence, now)
        }
        Some(answer) if gone(evidence) && answer.outcome != Outcome::ConditionCleared => {
            over_or_same(context, watch, evidence, now)
        }
        Some(_) => Asked::Changed,
    }
}

/// It waits for the end of a pause, and no pause covers it any more.
fn resumed(context: &Context, watch: &Watch, now: Timestamp) -> bool {
    let (Some(playbook), Some(target)) = (context.playbook_today(&watch.accepted), &watch.accepted.target) else { return false };
    let covered = || context.journal.read(|state| state.books.pauses.iter().any(|p| p.covers(&playbook.name, target, now)));
    watch.reason == Reason::Paused && !covered()
}

/// How long a cure is on trial; nothing else is.
fn recurrence(context: &Context, watch: &Watch) -> SignedDuration {
    let playbook = context.playbook_today(&watch.accepted).filter(|_| watch.outcome == Outcome::Recovered);
    playbook.map_or(SignedDuration::ZERO, |playbook| playbook.guards.breaker.recurrence.signed())
}

/// The breaker still waits to see whether this cure holds.
fn on_trial(context: &Context, watch: &Watch, now: Timestamp) -> bool {
    lasted(watch, now) < recurrence(context, watch)
}

/// Settled, and what was said last may no longer be so: a cure on trial, or an alert that was delivered again since.
fn doubted(context: &Context, watch: &Watch, now: Timestamp) -> bool {
    on_trial(context, watch, now) || (watch.outcome.is_settled() && watch.joined_at.is_some())
}

/// Neither sick nor well. That a rule is about to fire says something; and where Prometheus lists an alert whose expression is
/// empty, the recovery query does, if it can.
async fn says_nothing(context: &Context, accepted: &Accepted, answer: &Ending, now: Timestamp) -> bool {
    if answer.outcome != Outcome::UnknownCondition {
        return false;
    }
    match (answer.reason, context.playbook_today(accepted), &accepted.target) {
        (Reason::AlertPending | Reason::RuleLags, ..) => false,
        (Reason::SignalsMixed, Some(playbook), Some(target)) => {
            !below_now(context, &playbook, target, &accepted.alert.labels, now).await
        }
        _ => true,
    }
}

/// Shadow has said what it would do, and the playbook is still in shadow.
fn said_in_shadow(context: &Context, watch: &Watch) -> bool {
    let playbook = context.playbook_today(&watch.accepted);
    watch.outcome == Outcome::Shadow && playbook.is_none_or(|playbook| playbook.mode == Mode::Shadow)
}

/// How long nobody may be able to say how a cure does.
fn patience(context: &Context) -> SignedDuration {
    context.timing.ask_again.signed() * i32::try_from(BLIND_FOR).unwrap_or(i32::MAX)
}

/// It had a playbook and a target, something is the matter, and no playbook is for it any more.
fn orphaned(watch: &Watch) -> bool {
    let had = watch.accepted.playbook.is_some() && watch.accepted.target.is_some();
    had && !watch.outcome.is_settled() && watch.reason != Reason::NoPlaybook
}

/// The rule fires for a replica that was just cured and that its own recovery query calls well. What was said of it since
/// the cure, such as that Prometheus did not answer, takes nothing away from that.
async fn lags(context: &Context, watch: &Watch, accepted: &Accepted, evidence: &Evidence, now: Timestamp) -> bool {
    let (Some(playbook), Some(target)) = (context.playbook_today(accepted), &accepted.target) else { return false };
    let firing = matches!(evidence.reading, Reading::Firing { .. });
    let cured = watch.outcome == Outcome::Recovered
        || context.journal.read(|state| !breaker::recurred(&state.books.live, &playbook, target, now).is_empty());
    cured && firing && below_now(context, &playbook, target, &accepted.alert.labels, now).await
}

/// The container was restarted, and nothing has proven yet that it helped.
fn remedied(watch: &Watch) -> bool {
    matches!(watch.outcome, Outcome::StillFiring | Outcome::VerdictUnknown)
        || matches!(watch.reason, Reason::NotHealthyInTime | Reason::RestartUnknown)
}

/// After a restart the rule's silence proves nothing, because it leaves young processes out: only the recovery query
/// does. And that nobody can say is no news beside that nobody could say whether it helped.
async fn proven(context: &Context, watch: &Watch, answer: &Ending, now: Timestamp) -> bool {
    match answer.outcome {
        Outcome::ConditionCleared => match (context.playbook_today(&watch.accepted), &watch.accepted.target) {
            (Some(playbook), Some(target)) => below_now(context, &playbook, target, &watch.accepted.alert.labels, now).await,
            _ => true,
        },
        outcome => outcome != Outcome::UnknownCondition,
    }
}

/// The server that the watched run drained could not be readmitted.
fn left_drained(context: &Context, watch: &Watch) -> bool {
    context.journal.read(|state| state.books.drained.values().any(|drained| drained.record == watch.record))
}

/// Over once Prometheus no longer lists any alert for the target and the page has stood for its time.
fn over_or_same(context: &Context, watch: &Watch, evidence: &Evidence, now: Timestamp) -> Asked {
    if gone(evidence) && lasted(watch, now) >= context.timing.hold.signed() {
        Asked::Over("Prometheus lists no alert for this target any more".to_owned())
    } else {
        Asked::Same
    }
}

/// Proven to be over: nothing is listed for the target, and it is quiet, or it is no replica of ours any more. That
/// nobody can say ends nothing.
fn gone(evidence: &Evidence) -> bool {
    let over = matches!(evidence.reading, Reading::Quiet { .. }) || matches!(evidence.replica, Err(NoReplica::Unmatched(_)));
    over && evidence.listed.as_ref().is_ok_and(Vec::is_empty)
}

/// Nobody can say, and a moment will not settle it.
fn blind(answer: &Ending, evidence: &Evidence) -> bool {
    answer.outcome == Outcome::UnknownCondition && !crate::pipeline::unclear(&evidence.reading)
}

/// After a cure, a refusal that only asks for patience is waited out without a word. An alert that had cleared by itself
/// and is true now has not been spoken of at all: somebody has to hear of it, even if there is nothing to do but wait.
fn waits_quietly(watch: &Watch, answer: &Ending) -> bool {
    watch.outcome == Outcome::Recovered && only_waits(answer)
}

/// A refusal that only asks for patience is no news beside what is already said.
fn only_waits(ending: &Ending) -> bool {
    matches!(ending.reason, Reason::Cooldown | Reason::EpisodeHeld | Reason::RateLimited | Reason::BreakerProbing)
}

fn lasted(watch: &Watch, now: Timestamp) -> SignedDuration {
    now.duration_since(watch.since)
}
