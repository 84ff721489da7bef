//! Text from outside, made fit to be kept and shown: obvious secrets out, control characters visible, length bounded.
//!
//! Pure. This is a net with holes, not a promise: a secret that does not look like one stays. What must never be
//! read at all (a container's environment) is not read in the first place.

use std::sync::LazyLock;

use regex::Regex;

/// What stands in for a secret.
pub const REDACTED: &str = "[redacted]";

/// Longest text searched for secrets, in bytes; the Engine cuts log lines at 16 KiB, and nothing longer is kept.
const MAX_SEARCHED: usize = 64 * 1024;

/// What a secret looks like, and what is written instead. Order matters: whole headers go first, so that the later
/// and narrower patterns do not leave half of one behind.
static SECRETS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    // A quoted value ends at its quote; an unquoted one at the first character that could end a parameter.
    const QUOTED: &str = r#""(?:[^"\\]|\\.)*"?|'[^']*'?"#;
    let word = r#"[^\s&,;"'<>(){}\[\]]+"#;
    let name = "(?:password|passwd|passphrase|pwd|token|secret|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)";
    [
        // The parameters of `Digest username="x", response="y"` are quoted one by one.
        (r#"(?i)\b(digest)\s+[a-z]+="[^\r\n]*"#.to_owned(), "${1} [redacted]"),
        // `Authorization: Bearer x`, `"authorization":"Basic x"`, `Cookie: a=b; c=d`: everything up to the end.
        (
            format!(r#"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie|x-[a-z-]*(?:key|token))(\\?["']?\s*[:=]\s*)(?:{QUOTED}|\\"[^"\\]*|[^\r\n"']+)"#),
            "${1}${2}[redacted]",
        ),
        (r"(?i)\b(bearer)\s+[A-Za-z0-9._~+/=-]{16,}".to_owned(), "${1} [redacted]"),
        // A JSON web token, wherever it stands.
        (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?".to_owned(), "[redacted]"),
        // Keys that say by their beginning whose they are: AWS, GitHub, Slack.
        (
            r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,}|xox[abprs]-[A-Za-z0-9-]{10,})".to_owned(),
            "[redacted]",
        ),
        // User name and password in a URL; greedy, because a password may hold an `@`.
        (r#"([A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s"'<>]+@"#.to_owned(), "${1}[redacted]@"),
        // `--password hunter2`.
        (format!(r"(?i)(--[a-z-]*{name})(\s+){word}"), "${1}${2}[redacted]"),
        // `password=x`, `"db_password": "x"`, `client_secret: x`.
        (format!(r#"(?i)([A-Za-z0-9_.-]*{name})(\\?["']?\s*[:=]\s*)(?:{QUOTED}|\\"[^"\\]*|{word})"#), "${1}${2}[redacted]"),
    ]
    .into_iter()
    .map(|(pattern, instead)| (Regex::new(&pattern).expect("a constant pattern, compiled by every test run"), instead))
    .collect()
});

/// `text` without what looks like a secret. Linear in the length of `text`, which is cut at 64 KiB first.
pub fn redact(text: &str) -> String {
    let mut text = cut(text, MAX_SEARCHED).to_owned();
    for (pattern, instead) in SECRETS.iter() {
        if let std::borrow::Cow::Owned(changed) = pattern.replace_all(&text, *instead) {
            text = changed;
        }
    }
    text
}

/// One line of text from outside: redacted, without anything that moves a cursor or reverses the reading direction,
/// at most `max` bytes (a cut line ends in `…`, counted). Redacted before it is cut, so that no half secret remains.
pub fn plain_line(text: &str, max: usize) -> String {
    const MARK: &str = "…";
    let mut out = String::new();
    for c in redact(text).trim_end_matches(['\r', '\n']).chars() {
        if steers(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        if out.len() > max {
            let kept = cut(&out, max.saturating_sub(MARK.len())).len();
            out.truncate(kept);
            out.push_str(MARK);
            break;
        }
    }
    out
}

/// Characters that steer a terminal or a reader's eye: control characters, and those that are invisible and still make a
/// line read as something else.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{2069}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The longest prefix of `text` of at most `max` bytes that ends between characters.
fn cut(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn obvious_secrets_go_and_the_rest_stays() {
        for (before, after) in [
            ("GET /x Authorization: Bearer abc.def", "GET /x Authorization: [redacted]"),
            (r#"{"authorization":"Basic dXNlcjpwYXNz","level":"warn"}"#, r#"{"authorization":[redacted],"level":"warn"}"#),
            (r#"Authorization: Digest username="bob", response="deadbeef""#, "Authorization: [redacted]"),
            (
                r#"{"m":"{\"authorization\":\"Basic dXNlcjpwYXNz\",\"n\":1}"}"#,
                r#"{"m":"{\"authorization\":[redacted]\",\"n\":1}"}"#,
            ),
            ("Set-Cookie: sid=1; Path=/", "Set-Cookie: [redacted]"),
            ("x-api-key: 12345", "x-api-key: [redacted]"),
            ("got bearer 0123456789abcdef0123 from peer", "got bearer [redacted] from peer"),
            ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln ok", "jwt [redacted] ok"),
            ("using AKIAIOSFODNN7EXAMPLE now", "using [redacted] now"),
            ("aws_secret_access_key = wJalr/K7+x", "aws_secret_access_key = [redacted]"),
            ("connect postgres://shop:hunter2@db:5432/x", "connect postgres://[redacted]@db:5432/x"),
            ("amqp://u:p@ss@host/v", "amqp://[redacted]@host/v"),
            ("login?user=a&password=hunter2&next=/", "login?user=a&password=[redacted]&next=/"),
            ("DB_PASSWORD='a b c' token=xyz, done", "DB_PASSWORD=[redacted] token=[redacted], done"),
            (r#"{"client_secret": "s\"x", "id": 7}"#, r#"{"client_secret": [redacted], "id": 7}"#),
            (r#"{\"password\":\"hunter2\"}"#, r#"{\"password\":[redacted]\"}"#),
            ("run --db-password hunter2 --port 1", "run --db-password [redacted] --port 1"),
        ] {
            assert_eq!(redact(before), after);
        }
        for same in ["accept: too many open files", "max_tokens=5", "http://host/a?x=y@z", "Bearer authentication needed"] {
            assert_eq!(redact(same), same);
        }
    }

    #[test]
    fn a_line_is_one_line() {
        assert_eq!(plain_line("a\u{1b}[2Jb\r\n", 100), "a\\u{1b}[2Jb");
        assert_eq!(plain_line("x\u{202e}y\nz", 100), "x\\u{202e}y\\nz");
        assert_eq!(plain_line("ééééé", 8), "éé…");
        assert_eq!(plain_line("token=abcdefghijklmnopqrstuvwxyz", 12), "token=[re…");
    }

    proptest! {
        #[test]
        fn any_text_becomes_a_bounded_line(text in any::<String>(), max in 0usize..200) {
            let line = plain_line(&text, max);
            prop_assert!(line.len() <= max.max("…".len()));
            prop_assert!(!line.chars().any(char::is_control));
        }

        #[test]
        fn a_password_never_survives(secret in "[A-Za-z0-9!$*+._~-]{6,40}", before in "[a-z ]{0,20}") {
            for text in [format!("{before} password={secret}"), format!("{before} \"token\": \"{secret}\""), format!("{before} http://u:{secret}@h/")] {
                prop_assert!(!redact(&text).contains(&secret), "{}", redact(&text));
            }
        }
    }
}
