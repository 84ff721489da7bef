//! The books stay small, and forgetting changes no answer.

use super::*;
use crate::audit::State;
use crate::audit::walks::{episode, start};
use crate::decide::playbook::BreakerSpec;
use crate::event::Draft;
use crate::guard::breaker::Gauge;
use crate::period::Period;

fn hours(hours: i64) -> Timestamp {
    start().checked_add(SignedDuration::from_hours(hours)).expect("in range")
}

fn fold(state: &mut State, drafts: Vec<Draft>) {
    for Draft { at, record, event } in drafts {
        let entry = Entry { seq: state.head.seq + 1, at, record, event };
        state.apply(&entry).expect("legal");
    }
}

/// A year of an hourly remediation, each of another replica.
#[test]
fn a_year_of_replicas_that_come_and_go_leaves_small_books() {
    let mut state = State::default();
    let size = |state: &State| serde_json::to_string(&state.books).expect("json").len();
    let mut after_a_month = 0;
    for hour in 0..365 * 24 {
        fold(&mut state, episode(hour as u128 + 1, hours(hour), Outcome::Recovered));
        if hour == 32 * 24 {
            after_a_month = size(&state);
        }
    }
    let live = &state.books.live;
    let window = LONGEST_WINDOW.as_hours() as usize + 1;
    assert_eq!((live.attempts.len(), live.granted.len(), live.drains.len()), (window, window, window));
    assert!(live.buckets.len() <= 3, "those of the services of the last month: {:?}", live.buckets.keys());
    assert_eq!(live.breakers.values().map(|breaker| breaker.runs.len()).collect::<Vec<_>>(), [MAX_RUNS]);
    assert!((live.held.len(), state.books.drained.len(), state.books.watches.len(), state.open.len()) == (0, 0, 0, 0));
    assert!(size(&state) < after_a_month * 11 / 10, "{} bytes, {after_a_month} after the first month", size(&state));
    // What is older is forgotten with the next permit, whoever asks for it.
    fold(&mut state, episode(1_000_000, hours(366 * 24 + 24 * 31), Outcome::Recovered));
    let live = &state.books.live;
    assert_eq!((live.attempts.len(), live.granted.len(), live.drains.len(), live.buckets.len()), (1, 1, 1, 2));
    assert_eq!(
        live.breakers.values().map(|breaker| breaker.runs.len()).collect::<Vec<_>>(),
        [1],
        "cures that held are forgotten"
    );
}

#[test]
fn a_breaker_that_is_open_stays_open_however_long_nobody_tries() {
    let spec = BreakerSpec { failures: 3, recurrence: Period::from_secs(3600), cooldown: Period::from_secs(600) };
    let mut state = State::default();
    let outcomes = [Outcome::Recovered, Outcome::StillFiring, Outcome::StillFiring, Outcome::StillFiring];
    for (number, outcome) in outcomes.into_iter().enumerate() {
        fold(&mut state, episode(number as u128 + 1, hours(number as i64), outcome));
    }
    let gauge = |state: &State, now: Timestamp| Gauge::read(state.books.live.breakers.values().next(), spec, &[], now).count;
    let later = hours(200 * 24);
    assert_eq!(gauge(&state, later), 3);
    let mut accounts = state.books.live.clone();
    accounts.forget(later);
    let breaker = accounts.breakers.values().next().expect("it is kept");
    assert_eq!(breaker.runs.len(), 3, "the cure before the failures is forgotten, and they are not");
    assert_eq!(
        Gauge::read(Some(breaker), spec, &[], later),
        Gauge::read(state.books.live.breakers.values().next(), spec, &[], later)
    );
}

#[test]
fn the_same_pause_ordered_every_hour_is_one() {
    let mut state = State::default();
    let scope = crate::event::PauseScope::All;
    let pause = Pause { scope, actor: "cron".to_owned(), reason: "night".to_owned(), until: None };
    for hour in 0..100 {
        fold(&mut state, vec![Draft::global(hours(hour), Event::Paused { pause: pause.clone() })]);
    }
    let other = Pause { actor: "ann".to_owned(), ..pause.clone() };
    fold(&mut state, vec![Draft::global(hours(100), Event::Paused { pause: other.clone() })]);
    assert_eq!(state.books.pauses, [pause, other]);
}
