//! One file of configuration on the table: its text, and what is found wrong with it.
//!
//! Values are taken as [`At`] (a value and where it stands), and each check reports into the sheet and carries on with
//! a stand-in, so that one reading finds everything. Stand-ins never get out: a sheet with errors yields no values.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_saphyr::{Error, Location, Spanned};

use super::schema::Duration;
use super::{ConfigError, Finding, Place, Severity};
use crate::decide::playbook::Rate;
use crate::edge::promql::PromqlError;
use crate::guard::ledger::LONGEST_WINDOW;
use crate::period::Period;

/// A value and where it stands. A type of our own around the reader's, so that it can have a schema: the value's.
pub struct At<T> {
    pub value: T,
    pub referenced: Location,
}

/// Largest file taken. A thousand playbooks fit; a log file named by mistake does not.
pub const MAX_FILE: u64 = 1 << 20;

/// One file: its text and the findings so far.
pub struct Sheet {
    pub file: String,
    pub folder: PathBuf,
    text: String,
    pub errors: Vec<ConfigError>,
    pub warnings: Vec<Finding>,
}

/// A token bucket, as typed: `burst` remediations at once, refilled evenly.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateTyped {
    /// In this time an empty bucket is full again, such as 1m. Required, not 0.
    #[schemars(with = "Duration")]
    per: At<String>,
    /// How many remediations the full bucket allows at once; attempts count, not successes. Required, 1 or more.
    ///
    /// WARNING: this is how many restarts one storm of alerts may cause before anything slows it down.
    #[schemars(range(min = 1))]
    burst: At<u32>,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(|Spanned { value, referenced, .. }| At { value, referenced })
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl Sheet {
    /// # Errors
    /// The file cannot be read, is larger than [`MAX_FILE`] or is not UTF-8.
    pub fn read(path: &Path) -> Result<Sheet, ConfigError> {
        let file = path.display().to_string();
        let error = |what: String, help: &str| ConfigError { file: file.clone(), place: None, what, help: help.to_owned() };
        let unread = |cause: std::io::Error| error(format!("cannot be read: {cause}"), "");
        // Not by its size alone: a device has none and never ends.
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text)).map_err(unread)?;
        if read as u64 > MAX_FILE {
            return Err(error(format!("is longer than {MAX_FILE} bytes"), "Name a file of configuration"));
        }
        Ok(Sheet::of(path, text))
    }

    /// A text as if it were this file's.
    pub fn of(path: &Path, text: String) -> Sheet {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Sheet { file: path.display().to_string(), folder, text, errors: Vec::new(), warnings: Vec::new() }
    }

    /// The documents of the file; on an error it is reported and there are none.
    pub fn documents<T: DeserializeOwned>(&mut self) -> Vec<At<T>> {
        let options = serde_saphyr::options! { with_snippet: false };
        match serde_saphyr::from_multiple_with_options(&self.text, options) {
            Ok(documents) => documents,
            Err(error) => {
                let (what, help) = sentence(&error);
                match error.location() {
                    Some(at) => self.wrong(at, what, help),
                    None => self.wrong_file(what, help),
                }
                Vec::new()
            }
        }
    }

    /// Errors and warnings, each in the order of the file.
    pub fn into_findings(mut self) -> (Vec<ConfigError>, Vec<Finding>) {
        let order = |place: Option<Place>| place.map(|place| (place.line, place.column));
        self.errors.sort_by_key(|error| order(error.place));
        self.warnings.sort_by_key(|finding| order(finding.place));
        (self.errors, self.warnings)
    }

    pub fn wrong(&mut self, at: Location, what: impl Into<String>, help: impl Into<String>) {
        self.wrong_at(place(at), what, help);
    }

    pub fn wrong_file(&mut self, what: impl Into<String>, help: impl Into<String>) {
        self.errors.push(ConfigError { file: self.file.clone(), place: None, what: what.into(), help: help.into() });
    }

    fn wrong_at(&mut self, place: Place, what: impl Into<String>, help: impl Into<String>) {
        self.errors.push(ConfigError { file: self.file.clone(), place: Some(place), what: what.into(), help: help.into() });
    }

    pub fn warn(&mut self, at: Location, sentence: impl Into<String>) {
        self.warnings.push(Finding {
            severity: Severity::Warning,
            file: self.file.clone(),
            place: Some(place(at)),
            sentence: sentence.into(),
        });
    }

    /// A part that has no default.
    pub fn required<'a, T>(&mut self, at: Location, part: &'a Option<T>, name: &str, help: &str) -> Option<&'a T> {
        if part.is_none() {
            self.wrong(at, format!("`{name}` is missing"), help);
        }
        part.as_ref()
    }

    /// A value of a type that says itself what is wrong with a text.
    pub fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self, text: &At<String>) -> Option<T> {
        text.value.parse().map_err(|error: T::Err| self.wrong(text.referenced, one_line(&error.to_string()), "")).ok()
    }

    /// A period; the default when it is not written.
    pub fn period(&mut self, text: Option<&At<String>>, default: Period) -> Period {
        text.map_or(default, |text| self.parsed(text).unwrap_or(default))
    }

    /// A period that must not be zero.
    pub fn some_period(&mut self, name: &str, text: Option<&At<String>>, default: Period) -> Period {
        let period = self.period(text, default);
        if let Some(text) = text
            && period == Period::ZERO
        {
            self.wrong(text.referenced, format!("{name} is 0"), "Write a duration such as 30s or 5m");
        }
        period
    }

    /// A period that a guardrail looks back on: the books forget what is older than they remember.
    pub fn remembered(&mut self, name: &str, text: Option<&At<String>>, period: Period) -> Period {
        if let Some(text) = text
            && period.signed() > LONGEST_WINDOW
        {
            let days = LONGEST_WINDOW.as_hours() / 24;
            let what = format!("{name} is {period}, and attempts are remembered for {days}d");
            self.wrong(text.referenced, what, format!("Write at most {days}d"));
        }
        period
    }

    /// A count that must not be zero.
    pub fn some_count(&mut self, name: &str, count: &At<u32>, why: &str) -> u32 {
        if count.value == 0 {
            self.wrong(count.referenced, format!("{name} is 0, {why}"), "Write 1 or more");
        }
        count.value
    }

    pub fn rate(&mut self, name: &str, rate: &RateTyped) -> Rate {
        let per = self.some_period(&format!("{name}.per"), Some(&rate.per), Period::ZERO);
        let per = self.remembered(&format!("{name}.per"), Some(&rate.per), per);
        let burst = self.some_count(&format!("{name}.burst"), &rate.burst, "so nothing would ever be remediated");
        Rate { per, burst }
    }

    /// What a query check says, at the very character where that can be told.
    pub fn query<T>(&mut self, text: &At<String>, checked: Result<T, PromqlError>) -> Option<T> {
        checked
            .map_err(|error| {
                let help = match &error {
                    PromqlError::Unbound { selector, .. } => format!("Write {selector}{{$target}}"),
                    PromqlError::Misplaced { .. } => "Write metric{$target}".to_owned(),
                    PromqlError::NoSelector => "Write a query about the target, such as metric{$target}".to_owned(),
                    PromqlError::NoMetric { .. } => "Write metric{$target}".to_owned(),
                    PromqlError::Ambiguous { .. } => "Write it without".to_owned(),
                    _ => String::new(),
                };
                let place = error.offset().map_or(place(text.referenced), |offset| self.place_in(text, offset));
                self.wrong_at(place, error.to_string(), help);
            })
            .ok()
    }

    /// Where byte `offset` of a value stands: exact when the value is written on one line without escapes, else the
    /// value's beginning.
    fn place_in(&self, text: &At<String>, offset: usize) -> Place {
        let Place { line, column } = place(text.referenced);
        let start = Place { line, column };
        let Some(written) = self.text.lines().nth(usize::try_from(line).unwrap_or(0).saturating_sub(1)) else { return start };
        let rest: String = written.chars().skip(usize::try_from(column).unwrap_or(0).saturating_sub(1)).collect();
        for quote in ["", "'", "\""] {
            if rest.strip_prefix(quote).is_some_and(|rest| rest.starts_with(&text.value)) {
                let before = text.value.get(..offset).unwrap_or_default().chars().count() + quote.len();
                return Place { line, column: column + before as u64 };
            }
        }
        start
    }
}

pub fn place(at: Location) -> Place {
    Place { line: at.line(), column: at.column() }
}

/// A sentence of several lines without its drawing: the regex crate paints the place in between.
fn one_line(text: &str) -> String {
    match (text.lines().next(), text.lines().next_back()) {
        (Some(first), Some(last)) if first != last => format!("{first} {}", last.trim_start_matches("error: ")),
        _ => text.to_owned(),
    }
}

/// The YAML reader's error in our words.
fn sentence(error: &Error) -> (String, String) {
    let list = |names: &[&str]| names.join(", ");
    match error.without_snippet() {
        Error::SerdeUnknownField { field, expected, .. } => {
            (format!("unknown field `{field}`"), format!("Known here: {}", list(expected)))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            (format!("`{variant}` is not known here"), format!("Write one of: {}", list(expected)))
        }
        Error::SerdeMissingField { field, .. } => (format!("field `{field}` is missing"), "Add it".to_owned()),
        Error::InvalidScalar { ty, .. } if ty.starts_with('u') => ("this is not a whole number from 0".to_owned(), String::new()),
        Error::InvalidScalar { ty, .. } if ty.starts_with('f') => ("this is not a number".to_owned(), String::new()),
        other => {
            // The reader puts the place into its text, too; ours stands in front already.
            let text = other.render_with_formatter(&serde_saphyr::UserMessageFormatter);
            let text = text.lines().next().unwrap_or_default();
            let text = text.strip_prefix("error: ").unwrap_or(text);
            let cut = text.find(" at line ").unwrap_or(text.len());
            (text[..cut].trim_end_matches('.').to_owned(), String::new())
        }
    }
}
