//! How answers look to a person: colour only on a terminal, aligned columns, times as one says them.
//!
//! Promise: text of other people (labels, reasons, details) never steers the terminal: whatever is written through
//! here is one harmless line. What is piped into something has no colour and is not wrapped.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table};
use jiff::{SignedDuration, Timestamp};

use crate::edge::redact::plain_line;

/// Longest text of others shown, in bytes.
const MAX_TEXT: usize = 2_000;
/// Room for the names at the left of facts.
const NAME: usize = 12;

/// The heading of the one column that may be wrapped.
const PROSE: &str = "DETAIL";

/// How a piece of text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    Bold,
    Dim,
    Good,
    Wait,
    Bad,
}

/// What is going to be printed, line by line.
pub struct Screen {
    text: String,
    colour: bool,
    /// Long cells are wrapped to the terminal's width.
    wrap: bool,
}

/// True when standard output is a terminal whose owner wants colour.
pub fn colour() -> bool {
    #[allow(clippy::disallowed_methods, reason = "NO_COLOR is the convention for every program on a terminal")]
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !refused
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Style::Plain => "",
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Good => "32",
            Style::Wait => "33",
            Style::Bad => "31",
        }
    }

    fn cell(self, text: &str) -> Cell {
        let cell = Cell::new(plain_line(text, MAX_TEXT));
        match self {
            Style::Plain => cell,
            Style::Bold => cell.add_attribute(Attribute::Bold),
            Style::Dim => cell.add_attribute(Attribute::Dim),
            Style::Good => cell.fg(Color::DarkGreen),
            Style::Wait => cell.fg(Color::DarkYellow),
            Style::Bad => cell.fg(Color::DarkRed),
        }
    }
}

impl Screen {
    pub fn new() -> Screen {
        Screen { text: String::new(), colour: colour(), wrap: std::io::stdout().is_terminal() }
    }

    #[cfg(test)]
    pub fn plain(colour: bool) -> Screen {
        Screen { text: String::new(), colour, wrap: false }
    }

    pub fn paint(&self, style: Style, text: &str) -> String {
        let text = plain_line(text, MAX_TEXT);
        if self.colour && style != Style::Plain { format!("\x1b[{}m{text}\x1b[0m", style.code()) } else { text }
    }

    /// One line, in one style.
    pub fn line(&mut self, style: Style, text: &str) {
        let text = self.paint(style, text);
        self.raw(&text);
    }

    pub fn blank(&mut self) {
        self.text.push('\n');
    }

    /// A title above a table.
    pub fn title(&mut self, text: &str) {
        self.blank();
        self.line(Style::Bold, text);
    }

    /// A name at the left, what there is to say at the right; the name is left out on further lines of the same.
    pub fn fact(&mut self, name: &str, style: Style, text: &str) {
        let name = self.paint(Style::Dim, &format!("{name:>NAME$}"));
        let text = self.paint(style, text);
        self.raw(&format!("{name}  {text}"));
    }

    /// Aligned columns.
    pub fn table(&mut self, header: &[&str], rows: Vec<Vec<(Style, String)>>) {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        if self.wrap {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        if self.colour {
            table.enforce_styling();
        } else if !self.wrap {
            table.force_no_tty();
        }
        if !header.is_empty() {
            table.set_header(header.iter().map(|name| if self.colour { Style::Dim.cell(name) } else { Cell::new(name) }));
        }
        for row in rows {
            let style = |style| if self.colour { style } else { Style::Plain };
            table.add_row(row.into_iter().map(|(styled, text)| style(styled).cell(&text)).collect::<Vec<_>>());
        }
        // Names and ids are for copying, so only what is prose is wrapped.
        for (at, _) in header.iter().enumerate().filter(|(_, name)| **name != PROSE) {
            if let Some(column) = table.column_mut(at) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        for line in table.lines() {
            self.raw(&line);
        }
    }

    /// A line that is made of pieces of [`Screen::paint`].
    pub fn already_painted(&mut self, line: &str) {
        self.raw(line);
    }

    pub fn text(self) -> String {
        self.text
    }

    fn raw(&mut self, line: &str) {
        let _ = writeln!(self.text, "{}", line.trim_end());
    }
}

/// `3 min ago`, `in 27 s`, `now`.
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    let apart = at.duration_since(now);
    match apart.as_secs() {
        0 => "now".to_owned(),
        secs if secs < 0 => format!("{} ago", span(-apart)),
        _ => format!("in {}", span(apart)),
    }
}

/// A length of time in one unit, or in two where one would be rough: `27 s`, `3 min`, `2 h 05 min`, `3 d 4 h`.
pub fn span(length: SignedDuration) -> String {
    let secs = length.as_secs().max(0);
    match secs {
        0..=119 => format!("{secs} s"),
        120..=7_199 => format!("{} min", secs / 60),
        7_200..=172_799 => format!("{} h {:02} min", secs / 3_600, secs % 3_600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3_600),
    }
}

/// `2026-03-01 02:10:00Z`.
pub fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_as_people_say_them() {
        let now: Timestamp = "2026-03-01T02:10:00Z".parse().expect("a time");
        for (secs, said) in [
            (0, "now"),
            (27, "in 27 s"),
            (-119, "119 s ago"),
            (-180, "3 min ago"),
            (7_500, "in 2 h 05 min"),
            (-273_600, "3 d 4 h ago"),
        ] {
            assert_eq!(relative(now + SignedDuration::from_secs(secs), now), said);
        }
    }

    #[test]
    fn text_of_others_does_not_steer_the_terminal() {
        for colour in [false, true] {
            let mut screen = Screen::plain(colour);
            let evil = "a\u{1b}[2J\u{7}\nb\u{202e}c";
            screen.line(Style::Bad, evil);
            screen.fact("x", Style::Plain, evil);
            screen.table(&["T"], vec![vec![(Style::Good, evil.to_owned())]]);
            let text = screen.text();
            assert!(!text.contains("\u{1b}[2J") && !text.contains(['\u{7}', '\u{202e}']), "{text:?}");
            assert_eq!(text.contains('\u{1b}'), colour, "{text:?}");
            assert_eq!(text.lines().count(), 4, "{text:?}");
        }
    }
}
