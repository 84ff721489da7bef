//! docs/SAFETY.md claims nothing without a test or a type, and the tests that it names exist.

use std::path::Path;

use super::{root, text};

/// The text of every source file below a folder.
fn sources(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(&path).expect("readable"));
        }
    }
}

#[test]
fn every_limit_names_a_test_or_a_type_that_exists() {
    let mut code = String::new();
    for folder in ["src", "tests"] {
        sources(&root().join(folder), &mut code);
    }
    let paper = text("docs/SAFETY.md");
    let name = regex::Regex::new("`([a-z0-9_]+)`").expect("a pattern");
    let (_, limits) = paper.split_once("## The limits").expect("docs/SAFETY.md: ## The limits");
    let (limits, _) = limits.split_once("\n## ").expect("docs/SAFETY.md: a section after the limits");
    let rows: Vec<&str> = limits.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 15, "{rows:?}");
    for row in rows {
        let proof = row.trim_end_matches('|').rsplit('|').next().expect("a cell");
        assert!(name.is_match(proof), "docs/SAFETY.md claims without naming a test: {row}");
        for found in name.captures_iter(proof) {
            assert!(code.contains(&format!("fn {}(", &found[1])), "docs/SAFETY.md: there is no test {}", &found[1]);
        }
    }
    let (_, section) = paper.split_once("## What it can never do").expect("docs/SAFETY.md: ## What it can never do");
    let (section, _) = section.split_once("\n## ").expect("docs/SAFETY.md: a section after it");
    let claims: Vec<&str> = section.lines().filter(|line| line.starts_with("- ")).collect();
    assert!(claims.len() > 4 && claims.iter().all(|line| line.contains("never")), "{claims:?}");
    // A test has a long name; what has none is a type or a function, named with its room.
    let test = regex::Regex::new("`([a-z0-9]+(?:_[a-z0-9]+){2,})`").expect("a pattern");
    for found in test.captures_iter(&paper) {
        assert!(code.contains(&format!("fn {}(", &found[1])), "docs/SAFETY.md: there is no test {}", &found[1]);
    }
    for claim in claims {
        assert!(test.is_match(claim) || claim.contains("::"), "docs/SAFETY.md claims without a test or a type: {claim}");
    }
    let told = paper.lines().filter(|line| !line.starts_with('#') && line.contains("never") && !line.contains('`'));
    assert_eq!(told.collect::<Vec<_>>(), Vec::<&str>::new(), "`never` without a test or a type beside it");
}
