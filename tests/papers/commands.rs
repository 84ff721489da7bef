//! What the papers tell a reader to type is taken by the program: its commands by its own parser, its routes by openapi.json,
//! with a token wherever one is needed.

use clap::Parser as _;
use clap::error::ErrorKind;
use remediator::cli::Cli;

use super::{PAPERS, text};

/// What stands for a reader's own value, and a value that will do.
const PLACEHOLDERS: [(&str, &str); 4] = [
    ("ID", "01a2009e-dbb0-713e-8c86-441b2d311fa3"),
    ("HASH", "0000000000000000000000000000000000000000000000000000000000000000"),
    ("SERVICE/INSTANCE", "inventory/inventory-2:8080"),
    ("2h]", "2h"),
];

/// Pieces of a paper that a reader may type: lines of blocks, and what stands between backticks in prose.
fn typed(paper: &str) -> Vec<String> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in paper.lines() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("```") {
            fenced = !fenced;
        } else if fenced || line.starts_with("    ") && !trimmed.starts_with(['|', '-', '*']) && !trimmed.contains('`') {
            found.push(trimmed.trim_start_matches("$ ").to_owned());
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// The words of one command as a shell would cut them, up to what belongs to the shell: a comment, a pipe, the next command.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { return words };
        if matches!(first, '#' | '|' | '>' | '&' | ';') {
            return words;
        }
        let (word, after) = match first {
            '\'' | '"' => rest[1..].split_once(first).unwrap_or_else(|| panic!("{line}: a quote is left open")),
            _ => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
        };
        rest = after;
        let own = PLACEHOLDERS.iter().find(|(name, _)| *name == word);
        words.push(own.map_or(word, |(_, value)| value).trim_end_matches(';').to_owned());
    }
}

#[test]
fn every_command_that_a_paper_types_is_one_of_the_program() {
    let mut taken = 0;
    for name in PAPERS {
        for line in typed(&text(name)).iter().filter(|line| line.starts_with("remediator ")) {
            // `remediator ... --url URL` leaves something to the reader; choices in brackets are no command line.
            if line.starts_with("remediator ...") || line.contains('[') {
                continue;
            }
            let words = words(line);
            // Prose names a command without what it needs; one that does not exist is another kind of error.
            let only_named = words.len() <= 3 && !line.contains('-');
            match Cli::try_parse_from(words) {
                Ok(_) => taken += 1,
                Err(error) if only_named && error.kind() == ErrorKind::MissingRequiredArgument => taken += 1,
                Err(error) => panic!("{name}: `{line}`: {error}"),
            }
        }
    }
    assert!(taken >= 60, "only {taken} commands found");
}

#[test]
fn every_route_that_a_paper_asks_is_there_and_is_asked_with_a_token_where_it_wants_one() {
    let api: serde_json::Value = serde_json::from_str(&text("openapi.json")).expect("openapi.json");
    let mut asked = 0;
    for name in PAPERS {
        for line in typed(&text(name)).iter().filter(|line| line.starts_with("curl ")) {
            let Some((_, route)) = line.split_once("$R/") else { continue };
            let end = route.find(['?', '"', ' ', '\'']).unwrap_or(route.len());
            let route = format!("/{}", route[..end].replace("ID", "{id}"));
            let method = if line.contains("-X POST") { "post" } else { "get" };
            let operation = &api["paths"][&route][method];
            assert!(operation.is_object(), "{name}: `{line}`: there is no {method} {route}");
            let open = operation["security"].as_array().is_none_or(|ways| ways.iter().any(|way| way == &serde_json::json!({})));
            assert!(open || line.contains("Authorization: Bearer"), "{name}: `{line}`: {route} wants a token");
            asked += 1;
        }
    }
    assert!(asked >= 15, "only {asked} calls found");
}

/// `--help` of all three: 2 when "it could not be asked: wrong usage, an unreadable file, nobody answers".
#[test]
fn a_file_that_cannot_be_read_is_no_answer() {
    for words in [&["check", "--config", "none.yml"][..], &["serve", "--config", "none.yml"], &["toil", "none.yml"]] {
        let asked = std::process::Command::new(env!("CARGO_BIN_EXE_remediator")).args(words).output().expect("it runs");
        let told = String::from_utf8_lossy(&asked.stderr);
        assert_eq!(asked.status.code(), Some(2), "{words:?}: {told}");
        assert!(told.contains("none.yml") && told.contains("cannot be read"), "{words:?}: {told}");
    }
}
