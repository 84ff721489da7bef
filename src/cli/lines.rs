//! One event, one line: what log lines promise to whoever reads them with `grep`, and to the terminal they end up on.
//!
//! An event's fields may hold text of other people (an alert's name, an answer of Prometheus). Whatever a field was
//! formatted with, no line that leaves here is broken in two, moves a cursor or turns the direction of reading: such
//! characters are written as escapes, in JSON as JSON's own.

use std::io;

use crate::edge::redact::steers;

/// How an event was formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    /// With colours, hence with escape sequences of our own; the formatter itself escapes those of other people.
    Coloured,
    Json,
}

/// A writer that is given one whole event at a time.
pub struct Lines<W> {
    into: W,
    style: Style,
}

impl<W> Lines<W> {
    pub fn new(into: W, style: Style) -> Self {
        Lines { into, style }
    }
}

impl<W: io::Write> io::Write for Lines<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = one_line(text.strip_suffix('\n').unwrap_or(&text), self.style);
        self.into.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}

fn one_line(text: &str, style: Style) -> String {
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        match style {
            _ if !steers(c) => line.push(c),
            Style::Coloured if c == '\u{1b}' => line.push(c),
            Style::Json => line.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}"))),
            Style::Plain | Style::Coloured => line.extend(c.escape_default()),
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_its_style() {
        let hostile = "a\nb\r\u{1b}[2J\u{9b}\u{202e}\u{e0041}é\u{7f}\t";
        assert_eq!(one_line(hostile, Style::Plain), "a\\nb\\r\\u{1b}[2J\\u{9b}\\u{202e}\\u{e0041}é\\u{7f}\\t\n");
        assert!(one_line(hostile, Style::Coloured).contains('\u{1b}'));
        let json = one_line(&format!("\"{hostile}\""), Style::Json);
        assert_eq!(json.lines().count(), 1);
        assert_eq!(serde_json::from_str::<String>(&json).expect("still JSON"), hostile);
    }
}
