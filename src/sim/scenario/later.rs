//! Troubles that were thought of later. Each lot has dice of its own, so that every other world stays what it was.

use std::time::Duration;

use super::{NEWEST, QUIET, Scenario, replica, service};
use crate::sim::dice::Dice;
use crate::sim::docker::RestartFault;
use crate::sim::fault::Fault;
use crate::sim::prometheus::Trouble;
use crate::sim::{Point, When};

impl Scenario {
    /// When which replica begins to leak.
    fn leaks(&self) -> Vec<(Duration, usize)> {
        let leak = |(at, fault): &(Duration, Fault)| match fault {
            Fault::Leaks(who) => Some((*at, *who)),
            _ => None,
        };
        self.script.iter().filter_map(leak).collect()
    }

    /// Troubles that were thought of later, from dice of their own: every other world is as it was without them.
    pub(super) fn more(&mut self) {
        let mut dice = Dice::new(self.seed, 6);
        if dice.one_in(2) {
            return;
        }
        let last = self.calm_at.as_secs() - 60;
        for _ in 0..dice.between(1, 3) {
            let at = dice.seconds(QUIET, last);
            let (fault, end) = later_trouble(&mut dice, self);
            // Around a leak's first delivery, half of the time: what goes wrong matters there.
            let leaks = self.leaks();
            let at = if leaks.is_empty() || dice.one_in(2) { at } else { dice.of(&leaks).0 + dice.seconds(40, 95) };
            self.script.push((at, fault));
            if let Some(end) = end {
                self.script.push(((at + dice.seconds(10, 600)).min(Duration::from_secs(last)).max(at), end));
            }
        }
        for peer in &mut self.peers {
            peer.late = dice.one_in(2);
        }
        self.script.sort_by_key(|(at, _)| *at);
    }

    /// A process that stands still in the middle of a run, longer than some permits live, and what happens meanwhile: from
    /// dice of their own, too.
    pub(super) fn still(&mut self) {
        let mut dice = Dice::new(self.seed, 7);
        if !dice.one_in(4) {
            return;
        }
        let leaks = self.leaks();
        if leaks.is_empty() {
            return;
        }
        let at = dice.of(&leaks).0 + dice.seconds(0, 60);
        // Once it drains, the container is looked at next right before the restart.
        let last_look = |fault| Fault::Then(Point::Drain, Box::new(Fault::Then(Point::Inspect, Box::new(fault))));
        let still = Fault::Still(dice.seconds(20, 240));
        if dice.one_in(2) {
            let meanwhile = match dice.below(3) {
                0 => Fault::ForeignRestart(NEWEST),
                1 => Fault::Reload,
                _ => Fault::Hangs(replica(&mut dice, self), true),
            };
            self.script.push((at, last_look(still)));
            self.script.push((at, last_look(meanwhile)));
        } else {
            let point = dice.of(&[Point::Drain, Point::Logs, Point::Servers, Point::Silences]);
            self.script.push((at, Fault::Then(point, Box::new(still))));
        }
        self.script.sort_by_key(|(at, _)| *at);
    }

    /// What came next, from dice of its own again: a ramp of load, a process that dies at a question, and somebody who drains
    /// what is about to leak.
    pub(super) fn besides(&mut self) {
        let mut dice = Dice::new(self.seed, 8);
        let last = self.calm_at.as_secs() - 60;
        if dice.one_in(6) {
            let at = dice.seconds(QUIET, last);
            self.script.push((at, Fault::Ramp(service(&mut dice, self), dice.seconds(240, 600))));
        }
        if dice.one_in(6) {
            use Point::{Containers, Instant, Logs, Rules, Silences, Targets};
            let at = dice.seconds(QUIET, last);
            let point = dice.of(&[Containers, Instant, Logs, Rules, Silences, Targets]);
            self.script.push((at, Fault::KillAt(point, dice.of(&[When::Before, When::After]), dice.between(1, 3))));
        }
        let leaks = self.leaks();
        if !leaks.is_empty() && dice.one_in(8) {
            let (at, who) = dice.of(&leaks);
            self.script.push((at, Fault::ForeignDrain(who, true)));
            self.script.push((at + dice.seconds(60, 400), Fault::ForeignDrain(who, false)));
        }
        self.script.sort_by_key(|(at, _)| *at);
    }

    /// What came last, once more from dice of its own: maintenance that leaves a drain standing, a clock that goes back by about as
    /// much as the process stands still, a disk that fills up under an answer, and one that stalls.
    pub(super) fn lately(&mut self) {
        let mut dice = Dice::new(self.seed, 9);
        let last = Duration::from_secs(self.calm_at.as_secs() - 60);
        let leaks = self.leaks();
        if leaks.is_empty() {
            return;
        }
        // A leak's alert is delivered, and its replica drained, within two minutes and a half.
        let until = |dice: &mut Dice, at: Duration| (at + dice.seconds(160, 500)).min(last).max(at);
        if dice.one_in(6) {
            let (at, who) = dice.of(&leaks);
            let tracked = Fault::Tracked(who, true);
            let (from, point) = (at + dice.seconds(30, 90), dice.of(&[Point::Drain, Point::Inspect, Point::Restart]));
            let tracked = if dice.one_in(2) { tracked } else { Fault::Then(point, Box::new(tracked)) };
            self.script.push((from, tracked));
            self.script.push((until(&mut dice, at), Fault::Tracked(who, false)));
        }
        if dice.one_in(6) {
            let (at, _) = dice.of(&leaks);
            // Not by just as much: two looks would be of the same instant by such a clock.
            let (still, off) = (dice.between(20, 120), dice.of(&[-6, -5, -3, -1, 1, 3, 5, 6]));
            let back = i64::try_from(still).unwrap_or_default() + off;
            let point = dice.of(&[Point::Rules, Point::Instant, Point::Silences, Point::Logs]);
            for fault in [Fault::Still(Duration::from_secs(still)), Fault::Clock(-back)] {
                self.script.push((at + Duration::from_secs(40), Fault::Then(point, Box::new(fault))));
            }
            self.script.push((until(&mut dice, at), Fault::Clock(0)));
        }
        if dice.one_in(6) {
            let (at, _) = dice.of(&leaks);
            let from = at + dice.seconds(0, 60);
            self.script.push((from, Fault::Then(Point::Silences, Box::new(Fault::Full(true)))));
            self.script.push((until(&mut dice, at), Fault::Full(false)));
        }
        // A disk that stalls when a step begins, right after the last look, and what happens meanwhile.
        if dice.one_in(6) {
            let at = dice.of(&leaks).0 + dice.seconds(0, 60);
            let from = dice.of(&[Point::Drain, Point::Drain, Point::Logs]);
            let last_look = |fault| Fault::Then(from, Box::new(Fault::Then(Point::Inspect, Box::new(fault))));
            // What others do within a moment goes unseen, but no pause does.
            let (stalled, moment) = (dice.between(50, 60_000), 300);
            let meanwhile = match dice.below(4) {
                _ if stalled <= moment => Fault::Pause(None),
                0 => Fault::ForeignRestart(NEWEST),
                1 => Fault::Reload,
                2 => Fault::Pause(None),
                _ => Fault::Hangs(replica(&mut dice, self), true),
            };
            self.script.push((at, last_look(Fault::Stalled(Duration::from_millis(stalled)))));
            // Somebody sleeps at any time; who begins the step does not.
            self.script.push((at, last_look(Fault::Then(Point::Sleep, Box::new(meanwhile)))));
        }
        self.script.sort_by_key(|(at, _)| *at);
    }
}

fn later_trouble(dice: &mut Dice, scenario: &Scenario) -> (Fault, Option<Fault>) {
    let who = replica(dice, scenario);
    let pair = |make: &dyn Fn(bool) -> Fault| (make(true), Some(make(false)));
    match dice.below(12) {
        0 | 1 => pair(&Fault::Unsynced),
        2 => (
            Fault::Then(dice.of(&[Point::Drain, Point::Logs, Point::Silences]), Box::new(Fault::Unsynced(true))),
            Some(Fault::Unsynced(false)),
        ),
        3 | 4 => (Fault::Prometheus(dice.of(&[Trouble::Partial, Trouble::Stalled])), Some(Fault::Prometheus(Trouble::None))),
        5 | 6 => {
            let fault = dice.of(&[RestartFault::SaidUndone, RestartFault::LeftStopped, RestartFault::NewId]);
            (Fault::Restarts(fault), Some(Fault::Restarts(RestartFault::None)))
        }
        7 => pair(&Fault::EngineSlow),
        8 => pair(&|on| Fault::CrashLoops(who, on)),
        9 => (Fault::BadDeploy(service(dice, scenario)), None),
        10 => {
            let ahead = dice.of(&[20, 90, 240, 600, -20, -90, -240, -600]);
            (Fault::Clock(ahead), Some(Fault::Clock(0)))
        }
        _ => (
            Fault::Then(dice.of(&[Point::Restart, Point::Ready, Point::Inspect]), Box::new(Fault::KillAfter(dice.below(4)))),
            None,
        ),
    }
}
