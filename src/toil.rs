//! What a page costs, and whether taking it off the pager pays.
//!
//! What it promises: every number is either in the data file, with where it comes from (`measured` or `assumed`), or
//! counted from an audit log, or worked out here from those two; nothing is made up on the way, and doubt counts against
//! remediator. What it did not settle saves nothing, what it rehearsed saves nothing, and what it broke costs.
//!
//! How: [`ledger`] reads the data file strictly, [`tally`] counts audit lines, [`table`] writes both down as Markdown.
//! All of it is whole seconds, so that sums are exact; all of it is UTC, so that a day has 24 hours. Pure; reading files
//! and asking for the time are `cli::toil`'s.

pub mod ledger;
pub mod table;
pub mod tally;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;

/// A week in seconds.
pub const WEEK: i64 = 7 * DAY;

/// A day in seconds: UTC has no other.
pub const DAY: i64 = 86_400;

/// Break-even dates further away than this are none: nobody plans for longer, and the software will not live as long.
pub const HORIZON_DAYS: i64 = 20 * 365;

/// The data file: a week by hand, and what is measured or assumed about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ledger {
    pub name: String,
    pub service: String,
    /// First day of the week, in UTC.
    pub week: Date,
    /// True: made up for illustration, which every table says.
    pub example: bool,
    /// In the order of time.
    pub events: Vec<ByHand>,
    pub figures: Figures,
    /// From this day on it saves.
    pub live: Date,
    pub currency: String,
}

/// One time that somebody did it by hand.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ByHand {
    pub at: Timestamp,
    /// A role, not a name.
    pub who: String,
    pub replica: String,
    pub what: String,
    /// From the page until that person was back at what the page broke off.
    pub minutes: u32,
    /// It broke somebody's night, wherever that person sleeps.
    pub night: bool,
    /// There was nothing to do.
    pub false_alarm: bool,
}

/// What the arithmetic needs besides the events.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// The three commands themselves, in seconds. For information: the events' minutes include them.
    pub commands: Figure,
    /// Reading the audit log, per week.
    pub review: Figure,
    /// Keeping remediator itself, per week.
    pub run: Figure,
    /// Pages that are left, per week.
    pub pages: Figure,
    /// One page that is left, or one look after a remediation that went wrong.
    pub page: Figure,
    /// Building it in, once.
    pub build: Figure,
    /// Money for an hour of a person.
    pub money_per_hour: Option<Figure>,
}

/// A number and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// In the unit that the field's name says; of several samples their median.
    pub value: f64,
    pub unit: Unit,
    pub basis: Basis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Seconds,
    Minutes,
    Hours,
    Count,
    Money,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    Assumed {
        why: String,
    },
    Measured {
        how: String,
        on: Date,
        /// All of them, ascending; one when only the value was written down.
        samples: Vec<f64>,
    },
}

/// A week by hand, a week with remediator, and what is between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Week {
    pub by_hand: i64,
    pub with: i64,
}

/// When what is saved has paid for what was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "payback", rename_all = "snake_case")]
pub enum Payback {
    /// At the end of this day of saving, counted from the first; 0 when nothing was spent.
    After { days: i64, on: Date },
    /// It saves nothing, or so little that [`HORIZON_DAYS`] are not enough.
    Never,
    /// Less than a week was observed, which is no rate.
    TooEarly,
}

impl Figure {
    /// In seconds; a count is multiplied by nothing, and money has none.
    pub fn seconds(&self) -> i64 {
        let factor = match self.unit {
            Unit::Seconds => 1.0,
            Unit::Minutes => 60.0,
            Unit::Hours => 3600.0,
            Unit::Count | Unit::Money => return 0,
        };
        whole(self.value * factor)
    }

    /// So many times a length of time, in whole seconds.
    pub fn times(&self, length: &Figure) -> i64 {
        whole(self.value * length.seconds() as f64)
    }
}

/// Rounded; the limits of the data file keep it far inside.
fn whole(value: f64) -> i64 {
    value.round() as i64
}

impl Ledger {
    /// What the events of the week cost together.
    pub fn by_hand(&self) -> i64 {
        self.events.iter().map(|event| i64::from(event.minutes) * 60).sum()
    }

    /// What one restart by hand costs on average; none when nobody did one.
    pub fn restart(&self) -> Option<i64> {
        mean(self.events.iter().filter(|event| !event.false_alarm))
    }

    /// What one false alarm costs on average; none when there was none.
    pub fn false_alarm(&self) -> Option<i64> {
        mean(self.events.iter().filter(|event| event.false_alarm))
    }

    /// The week as the events have it, and as it would be.
    pub fn week(&self) -> Week {
        let figures = &self.figures;
        let with = figures.review.seconds() + figures.run.seconds() + figures.pages.times(&figures.page);
        Week { by_hand: self.by_hand(), with }
    }

    pub fn payback(&self) -> Payback {
        payback(self.week().saved(), WEEK, self.figures.build.seconds(), self.live)
    }
}

/// In whole seconds, rounded down: doubt counts against what is saved.
fn mean<'a>(events: impl Iterator<Item = &'a ByHand>) -> Option<i64> {
    let (sum, count) = events.fold((0, 0), |(sum, count), event| (sum + i64::from(event.minutes) * 60, count + 1));
    (count > 0).then(|| sum / count)
}

impl Week {
    /// Negative when it costs more than it saves.
    pub fn saved(self) -> i64 {
        self.by_hand - self.with
    }
}

/// The first day at whose end what is saved, at the rate of `saved` seconds in `span` seconds, is no less than `build`.
pub fn payback(saved: i64, span: i64, build: i64, from: Date) -> Payback {
    if span < WEEK {
        return Payback::TooEarly;
    }
    if saved <= 0 && build > 0 || saved < 0 {
        return Payback::Never;
    }
    if build <= 0 {
        return Payback::After { days: 0, on: from };
    }
    // build / (saved per day), rounded up; in 128 bits, because both factors may be large.
    let (build, span, per_day) = (i128::from(build), i128::from(span), i128::from(saved) * i128::from(DAY));
    let days = (build * span + per_day - 1) / per_day;
    let date = i64::try_from(days).ok().filter(|days| *days <= HORIZON_DAYS).and_then(|days| {
        let on = from.checked_add(jiff::Span::new().try_days(days - 1).ok()?).ok()?;
        Some(Payback::After { days, on })
    });
    date.unwrap_or(Payback::Never)
}

#[cfg(test)]
mod tests;
