//! The only place that builds a query string.
//!
//! What it promises: a query that leaves here with a target in it selects that target and nothing else, whatever the
//! label values contain. A [`Template`] is accepted only if *every* selector in it carries `$target`; binding writes
//! exact matchers with values escaped by us, parses the result, and gives it out only if the matchers found there are
//! the labels that went in. An empty label set, an empty value and an unusual label name are errors, because each of
//! them would widen the selection.
//!
//! How: promql-parser reads, we write. Its printer is not faithful (`a @ -1.5` prints as `@ 0.000`), so the text that is
//! sent is always the text that was checked, never a rendering of the parse. Where the parser is known to read a text
//! otherwise than Prometheus does (`or` between matchers, backslashes in back-quoted strings), the text is refused.
//!
//! Pure: no IO, no clock.

mod read;

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::VectorSelector;

use read::{Code, parse, selectors};
pub use read::{check_expression, sample_demands, word};

/// What stands for the target in a query that an operator wrote.
pub const TARGET: &str = "$target";

/// Stands in for [`TARGET`] while a template is checked. No one names a label like this.
const PLACEHOLDER: &str = "__remediator_target__";

/// A checked query text in which every selector carries [`TARGET`].
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    text: String,
    metrics: Vec<String>,
    /// With a placeholder where the target belongs. Empty only for a veto that is not about the target at all.
    selectors: Vec<VectorSelector>,
}

/// Why a text is not a query that we would send. Offsets are in bytes from the start of the query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromqlError {
    #[error("the query does not parse: {0}")]
    Syntax(String),
    #[error("the query is {length} bytes long; the longest taken is {}", read::MAX_QUERY)]
    TooLong { length: usize },
    #[error("the query nests deeper than {} levels", read::MAX_DEPTH)]
    TooDeep,
    #[error("the query selects no series, so it says nothing about the target")]
    NoSelector,
    #[error("selector `{selector}` does not bind the target, so it would read every replica")]
    Unbound { selector: String, offset: usize },
    #[error("$target stands outside the braces of a selector")]
    Misplaced { offset: usize },
    #[error("the query has a variable that is not $target")]
    Variable { offset: usize },
    #[error("selector `{selector}` does not name its metric exactly")]
    NoMetric { selector: String, offset: usize },
    #[error("the query uses {what}, which Prometheus does not read as our parser does")]
    Ambiguous { what: &'static str, offset: usize },
    #[error("`{0}` is not a metric name: letters, digits, `_` and `:`, not starting with a digit")]
    MetricName(String),
    #[error("`{0}` is not a label name that can be matched: letters, digits and `_`, not starting with a digit, not __name__")]
    LabelName(String),
    #[error("label {0} is empty; an empty matcher selects the series that lack the label")]
    EmptyValue(String),
    #[error("label {0} is given twice")]
    LabelTwice(String),
    #[error("no labels to select the target by")]
    NoLabels,
    #[error("the bound query does not parse back to the labels that it was made of")]
    NotProven,
}

impl PromqlError {
    /// Where in the query it is, in bytes, when it is somewhere.
    pub fn offset(&self) -> Option<usize> {
        match self {
            PromqlError::Unbound { offset, .. }
            | PromqlError::Misplaced { offset }
            | PromqlError::Variable { offset }
            | PromqlError::NoMetric { offset, .. }
            | PromqlError::Ambiguous { offset, .. } => Some(*offset),
            _ => None,
        }
    }
}

impl Template {
    /// Checks a query with `$target`.
    ///
    /// # Errors
    /// It does not parse, a selector does not carry `$target` inside its braces or does not name its metric, `$target`
    /// stands anywhere else, or our parser is known to read something in it otherwise than Prometheus does.
    pub fn parse(text: &str) -> Result<Template, PromqlError> {
        let code = Code::of(text);
        if let Some(offset) = text.find('`') {
            return Err(PromqlError::Ambiguous { what: "a back-quoted string", offset });
        }
        let ours = |at: usize| text[at..].strip_prefix(TARGET).is_some_and(|rest| !rest.starts_with(word));
        if let Some((offset, _)) = text.match_indices('$').find(|(at, _)| code.is_code(*at) && !ours(*at)) {
            return Err(PromqlError::Variable { offset });
        }
        let places: Vec<usize> = text.match_indices(TARGET).map(|(at, _)| at).collect();
        if let Some(&offset) = places.iter().find(|at| !code.in_braces(**at)) {
            return Err(PromqlError::Misplaced { offset });
        }
        if text.contains(PLACEHOLDER) {
            return Err(PromqlError::LabelName(PLACEHOLDER.to_owned()));
        }
        let expr = parse(&text.replace(TARGET, &matcher(PLACEHOLDER, "0")))?;
        let found = selectors(&expr);
        if found.is_empty() {
            return Err(PromqlError::NoSelector);
        }
        let mut metrics = Vec::new();
        for selector in &found {
            let name = metric_of(selector);
            let offset = || code.unbound_selector(name.as_deref());
            if !selector.matchers.or_matchers.is_empty() {
                return Err(PromqlError::Ambiguous { what: "`or` between matchers", offset: offset() });
            }
            let told = || name.as_deref().map_or_else(|| "{...}".to_owned(), shown);
            if !selector.matchers.matchers.iter().any(|m| m.name == PLACEHOLDER) {
                return Err(PromqlError::Unbound { selector: told(), offset: offset() });
            }
            match &name {
                Some(name) if !metrics.contains(name) => metrics.push(name.clone()),
                Some(_) => {}
                None => return Err(PromqlError::NoMetric { selector: told(), offset: places[0] }),
            }
        }
        Ok(Template { text: text.to_owned(), metrics, selectors: found.into_iter().cloned().collect() })
    }

    /// Checks a veto: either a query with `$target`, or one that is not about the target at all and is sent as it stands.
    ///
    /// # Errors
    /// As [`Template::parse`] when `$target` occurs, else as [`check_expression`].
    pub fn parse_veto(text: &str) -> Result<Template, PromqlError> {
        if text.contains(TARGET) {
            return Template::parse(text);
        }
        let expr = parse(text)?;
        let metrics = selectors(&expr).into_iter().filter_map(metric_of).collect();
        Ok(Template { text: text.to_owned(), metrics, selectors: Vec::new() })
    }

    /// The query for one target: `$target` becomes `a="b",c="d"`, escaped, proven by parsing the result.
    ///
    /// # Errors
    /// No labels, a label name outside `[a-zA-Z_][a-zA-Z0-9_]*`, an empty value, a name given twice.
    pub fn bind(&self, labels: &[(&str, &str)]) -> Result<String, PromqlError> {
        if self.selectors.is_empty() {
            return Ok(self.text.clone());
        }
        let bound = self.text.replace(TARGET, &matchers(labels)?);
        // Proof: the same selectors as in the template, each with exactly these matchers where the placeholder was.
        let got = parse(&bound)?;
        let (wanted, got) = (&self.selectors, selectors(&got));
        let same = wanted.len() == got.len() && wanted.iter().zip(&got).all(|(w, g)| proves(w, g, labels));
        if same { Ok(bound) } else { Err(PromqlError::NotProven) }
    }

    /// Names of all metrics that the query selects, each once, in the order of the text.
    pub fn metrics(&self) -> Vec<String> {
        self.metrics.clone()
    }
}

/// `metric{a="b",c="d"}`.
///
/// # Errors
/// As [`Template::bind`], and for a name that is not a metric's.
pub fn exact(metric: &str, labels: &[(&str, &str)]) -> Result<String, PromqlError> {
    check_metric(metric)?;
    Template::parse(&format!("{metric}{{{TARGET}}}"))?.bind(labels)
}

/// `timestamp(metric{a="b"})`: when the newest sample was scraped, not when the query was evaluated.
///
/// # Errors
/// As [`exact`].
pub fn timestamp_of(metric: &str, labels: &[(&str, &str)]) -> Result<String, PromqlError> {
    check_metric(metric)?;
    Template::parse(&format!("timestamp({metric}{{{TARGET}}})"))?.bind(labels)
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`, which leaves out names that newer Prometheus versions would take in quotes.
///
/// # Errors
/// Anything else.
pub fn check_metric(name: &str) -> Result<(), PromqlError> {
    let well_named = name.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | ':'))
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'));
    if well_named { Ok(()) } else { Err(PromqlError::MetricName(shown(name))) }
}

/// `[a-zA-Z_][a-zA-Z0-9_]*` and not `__name__`.
///
/// # Errors
/// Anything else; newer Prometheus versions would take it in quotes, older ones would not parse it.
pub fn check_label(name: &str) -> Result<(), PromqlError> {
    let well_named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name != "__name__";
    if well_named { Ok(()) } else { Err(PromqlError::LabelName(shown(name))) }
}

fn matchers(labels: &[(&str, &str)]) -> Result<String, PromqlError> {
    if labels.is_empty() {
        return Err(PromqlError::NoLabels);
    }
    for (i, (name, value)) in labels.iter().enumerate() {
        check_label(name)?;
        if value.is_empty() {
            return Err(PromqlError::EmptyValue((*name).to_owned()));
        }
        if labels[..i].iter().any(|(other, _)| other == name) {
            return Err(PromqlError::LabelTwice((*name).to_owned()));
        }
    }
    Ok(labels.iter().map(|(name, value)| matcher(name, value)).collect::<Vec<_>>().join(","))
}

/// Escapes everything but ASCII's printable characters and Unicode's letters and digits. Prometheus refuses a raw newline
/// and U+FFFD in a string, and what is invisible or turns the direction of writing must not fool the reader of an audit.
fn matcher(name: &str, value: &str) -> String {
    use std::fmt::Write as _;
    let mut out = format!("{name}=\"");
    for c in value.chars() {
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            '\n' => write!(out, "\\n"),
            c if c == ' ' || c.is_ascii_graphic() || (!c.is_ascii() && c.is_alphanumeric()) => write!(out, "{c}"),
            c if u32::from(c) <= 0xffff => write!(out, "\\u{:04x}", u32::from(c)),
            c => write!(out, "\\U{:08x}", u32::from(c)),
        };
    }
    out.push('"');
    out
}

/// True when `got` is `wanted` with the placeholder replaced by exactly these labels.
fn proves(wanted: &VectorSelector, got: &VectorSelector, labels: &[(&str, &str)]) -> bool {
    let mut expected: Vec<Matcher> = Vec::new();
    for m in &wanted.matchers.matchers {
        if m.name == PLACEHOLDER {
            expected.extend(labels.iter().map(|(name, value)| Matcher::new(MatchOp::Equal, name, value)));
        } else {
            expected.push(m.clone());
        }
    }
    wanted.name == got.name
        && got.matchers.matchers == expected
        && got.matchers.or_matchers.is_empty()
        && (&wanted.at, &wanted.offset) == (&got.at, &got.offset)
}

/// The metric that a selector names, by prefix or by an exact `__name__` matcher.
fn metric_of(selector: &VectorSelector) -> Option<String> {
    selector.name.clone().or_else(|| {
        let named = |m: &&Matcher| m.name == "__name__" && m.op == MatchOp::Equal;
        selector.matchers.matchers.iter().find(named).map(|m| m.value.clone())
    })
}

fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests;
