//! Reading queries: parse, walk, and find places in the text, which the parser's tree does not keep.

use promql_parser::parser::token::{T_GTE, T_GTR, T_LSS, T_LTE};
use promql_parser::parser::{BinaryExpr, Expr, VectorSelector};

use super::super::redact::plain_line;
use super::{PromqlError, TARGET};

/// Longest query taken, in bytes. The longest rule of ours has about 3,000.
pub const MAX_QUERY: usize = 16 * 1024;

/// Deepest nesting of parentheses taken; keeps a hostile or generated rule from exhausting the stack.
pub const MAX_DEPTH: usize = 100;

/// Longest piece of the parser's own words quoted in an error, in bytes.
const MAX_QUOTED: usize = 300;

/// Which bytes of a query are code, and which are inside strings, comments and braces.
pub struct Code<'a> {
    text: &'a str,
    kinds: Vec<Kind>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Braces,
    /// A string or a comment.
    Inert,
}

/// Checks that a rule's expression parses.
///
/// # Errors
/// It does not, or it is beyond our limits.
pub fn check_expression(text: &str) -> Result<(), PromqlError> {
    parse(text).map(drop)
}

/// What a rule's expression asks of the scrape: `(window in seconds, samples needed in it)` for each comparison of
/// `count_over_time(x[window])` with a number. Nothing for an expression that does not parse.
pub fn sample_demands(text: &str) -> Vec<(f64, f64)> {
    let Ok(expr) = parse(text) else { return Vec::new() };
    let mut found = Vec::new();
    walk(&expr, &mut |expr| {
        if let Expr::Binary(binary) = expr
            && let Some(demand) = demand(binary)
        {
            found.push(demand);
        }
    });
    found
}

fn demand(binary: &BinaryExpr) -> Option<(f64, f64)> {
    let op = binary.op.id();
    let (window, count, strict) = match (counted(&binary.lhs), number(&binary.rhs), counted(&binary.rhs), number(&binary.lhs)) {
        (Some(window), Some(count), _, _) if op == T_GTE || op == T_GTR => (window, count, op == T_GTR),
        (_, _, Some(window), Some(count)) if op == T_LTE || op == T_LSS => (window, count, op == T_LSS),
        _ => return None,
    };
    let needed = if strict { count.floor() + 1.0 } else { count.ceil() };
    (needed > 0.0).then_some((window, needed))
}

/// The window of `count_over_time(x[window])`. A subquery's samples depend on its step, not on the scrape.
fn counted(expr: &Expr) -> Option<f64> {
    match bare(expr) {
        Expr::Call(call) if call.func.name == "count_over_time" => match call.args.args.first().map(|arg| bare(arg)) {
            Some(Expr::MatrixSelector(matrix)) => Some(matrix.range.as_secs_f64()),
            _ => None,
        },
        _ => None,
    }
}

fn number(expr: &Expr) -> Option<f64> {
    match bare(expr) {
        Expr::NumberLiteral(literal) => Some(literal.val),
        _ => None,
    }
}

fn bare(mut expr: &Expr) -> &Expr {
    while let Expr::Paren(paren) = expr {
        expr = &paren.expr;
    }
    expr
}

/// What names of metrics and labels are made of.
pub fn word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | ':')
}

/// Parses within our limits.
pub fn parse(text: &str) -> Result<Expr, PromqlError> {
    if text.len() > MAX_QUERY {
        return Err(PromqlError::TooLong { length: text.len() });
    }
    if Code::of(text).depth() > MAX_DEPTH {
        return Err(PromqlError::TooDeep);
    }
    // promql-parser panics on some durations (`x[1e30]`); a query is data, and data must not end the program.
    let parsed = std::panic::catch_unwind(|| promql_parser::parser::parse(text));
    let parsed = parsed.unwrap_or_else(|_| Err("a number in it is out of range".to_owned()));
    // The parser quotes the text as it is, control characters and all.
    parsed.map_err(|why| PromqlError::Syntax(plain_line(&why, MAX_QUOTED)))
}

/// Every selector, in the order of the text.
pub fn selectors(expr: &Expr) -> Vec<&VectorSelector> {
    let mut found = Vec::new();
    walk(expr, &mut |expr| match expr {
        Expr::VectorSelector(selector) => found.push(selector),
        Expr::MatrixSelector(matrix) => found.push(&matrix.vs),
        _ => {}
    });
    found
}

/// Visits every node. The parser's own walker leaves out the parameter of an aggregation, which may select series too.
fn walk<'a>(expr: &'a Expr, visit: &mut impl FnMut(&'a Expr)) {
    visit(expr);
    match expr {
        Expr::Aggregate(aggregate) => {
            if let Some(parameter) = &aggregate.param {
                walk(parameter, visit);
            }
            walk(&aggregate.expr, visit);
        }
        Expr::Unary(unary) => walk(&unary.expr, visit),
        Expr::Binary(binary) => {
            walk(&binary.lhs, visit);
            walk(&binary.rhs, visit);
        }
        Expr::Paren(paren) => walk(&paren.expr, visit),
        Expr::Subquery(subquery) => walk(&subquery.expr, visit),
        Expr::Call(call) => call.args.args.iter().for_each(|arg| walk(arg, visit)),
        // The parser makes no extensions by itself.
        Expr::NumberLiteral(_)
        | Expr::StringLiteral(_)
        | Expr::VectorSelector(_)
        | Expr::MatrixSelector(_)
        | Expr::Extension(_) => {}
    }
}

impl<'a> Code<'a> {
    pub fn of(text: &'a str) -> Self {
        let mut kinds = Vec::with_capacity(text.len());
        let (mut braces, mut quote, mut escaped) = (false, None, false);
        for c in text.chars() {
            let kind = match quote {
                Some('#') => {
                    if matches!(c, '\n' | '\r') {
                        quote = None;
                    }
                    Kind::Inert
                }
                Some(open) => {
                    if !escaped && c == open {
                        quote = None;
                    }
                    escaped = !escaped && c == '\\';
                    Kind::Inert
                }
                None => {
                    if matches!(c, '"' | '\'' | '`' | '#') {
                        quote = Some(c);
                    }
                    match c {
                        '"' | '\'' | '`' | '#' => Kind::Inert,
                        '{' | '}' => {
                            braces = c == '{';
                            Kind::Code
                        }
                        _ if braces => Kind::Braces,
                        _ => Kind::Code,
                    }
                }
            };
            kinds.extend(std::iter::repeat_n(kind, c.len_utf8()));
        }
        Code { text, kinds }
    }

    /// True when the byte is neither in a string nor in a comment.
    pub fn is_code(&self, at: usize) -> bool {
        self.kinds[at] != Kind::Inert
    }

    pub fn in_braces(&self, at: usize) -> bool {
        self.kinds[at] == Kind::Braces
    }

    /// How deep the parentheses go.
    fn depth(&self) -> usize {
        let (mut open, mut deepest) = (0_usize, 0);
        for (byte, _) in self.text.bytes().zip(&self.kinds).filter(|(_, kind)| **kind == Kind::Code) {
            match byte {
                b'(' => open += 1,
                b')' => open = open.saturating_sub(1),
                _ => {}
            }
            deepest = deepest.max(open);
        }
        deepest
    }

    /// Where the first selector of this metric (or the first that only has braces) lacks `$target`; the start of the
    /// query if it cannot be told. For people, not for deciding.
    pub fn unbound_selector(&self, metric: Option<&str>) -> usize {
        let lacks = |after: usize| {
            let rest = self.text[after..].trim_start();
            match rest.strip_prefix('{') {
                Some(_) => {
                    let open = self.text.len() - rest.len();
                    let close =
                        (open..self.text.len()).find(|at| self.kinds[*at] == Kind::Code && self.text.as_bytes()[*at] == b'}');
                    !self.text[open..close.unwrap_or(self.text.len())].contains(TARGET)
                }
                None => !rest.starts_with('('),
            }
        };
        let candidates: Vec<(usize, usize)> = match metric {
            Some(name) => self.text.match_indices(name).map(|(at, _)| (at, at + name.len())).collect(),
            None => self.text.match_indices('{').map(|(at, _)| (at, at)).collect(),
        };
        let whole = |at: usize, end: usize| {
            self.kinds[at] == Kind::Code
                && !self.text[..at].ends_with(word)
                && (metric.is_none() || !self.text[end..].starts_with(word))
                && !self.in_label_list(at)
        };
        candidates.into_iter().find(|(at, end)| whole(*at, *end) && lacks(*end)).map_or(0, |(at, _)| at)
    }

    /// True inside the parentheses of `by (...)` and its kin, where names are labels.
    fn in_label_list(&self, at: usize) -> bool {
        let before = &self.text[..at];
        let Some(open) = before.rfind('(').filter(|open| before.rfind(')').is_none_or(|close| close < *open)) else {
            return false;
        };
        let keyword = before[..open].trim_end().rsplit(|c| !word(c)).next().unwrap_or_default().to_ascii_lowercase();
        matches!(keyword.as_str(), "by" | "without" | "on" | "ignoring" | "group_left" | "group_right")
    }
}
