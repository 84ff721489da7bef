use std::collections::BTreeSet;
use std::ffi::OsStr;

use clap::{CommandFactory as _, Parser as _, ValueEnum as _};

use super::notes::NOTES;
use super::*;
use crate::cli::Cli;

/// Every visible command by its words, the program itself first.
fn visible(command: &Command, words: &str) -> Vec<String> {
    let mut all = vec![words.to_owned()];
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        all.extend(visible(inner, &join(words, inner.get_name())));
    }
    all
}

fn find<'a>(command: &'a Command, words: &str) -> Option<&'a Command> {
    words.split_whitespace().try_fold(command, |command, name| command.find_subcommand(name))
}

fn written(command: Command) -> Vec<(String, String)> {
    let dir = tempfile::tempdir().expect("a folder");
    man(command, &ManArgs { dir: dir.path().to_owned() }).expect("pages");
    let entries = std::fs::read_dir(dir.path()).expect("listed").map(|entry| entry.expect("an entry").path());
    let named = entries.map(|path| {
        let name = path.file_name().and_then(OsStr::to_str).expect("a name").to_owned();
        (name, std::fs::read_to_string(&path).expect("a page"))
    });
    named.collect()
}

#[test]
fn every_example_is_taken_by_the_command_that_shows_it() {
    for (words, notes) in NOTES {
        for (_, line) in notes.examples {
            let typed: Vec<&str> = line.split_whitespace().take_while(|word| *word != "|" && *word != ">").collect();
            let shows = words.is_empty() || line.starts_with(&format!("remediator {words}"));
            assert!(shows, "an example of `{words}` shows another command: {line}");
            if let Err(error) = Cli::try_parse_from(typed) {
                panic!("{line}\n{error}");
            }
        }
    }
}

#[test]
fn notes_are_only_about_commands_that_exist() {
    for (words, _) in NOTES {
        assert!(find(&Cli::command(), words).is_some(), "there is no command `{words}`");
    }
}

#[test]
fn every_help_says_what_the_exit_codes_mean() {
    let command = with_notes(Cli::command());
    for words in visible(&Cli::command(), "") {
        let help = find(&command, &words).expect("the command").clone().render_long_help().to_string();
        let (_, codes) = help.rsplit_once("Exit codes:").unwrap_or_else(|| panic!("`{words}` says nothing: {help}"));
        for code in ["\n  0  ", "\n  1  ", "\n  2  "] {
            assert!(codes.contains(code), "`{words}`: {codes}");
        }
    }
}

#[test]
fn the_first_help_says_where_the_configuration_is_looked_for() {
    let help = with_notes(Cli::command()).render_help().to_string();
    assert!(help.contains("REMEDIATOR_CONFIG") && help.contains("/etc/remediator/remediator.yml"), "{help}");
}

#[test]
fn what_a_command_says_by_itself_stays() {
    let own = Command::new("x").subcommand(Command::new("y").after_help("mind the gap").after_long_help("mind it well"));
    let mut noted = with_notes(own);
    let inner = noted.find_subcommand_mut("y").expect("y");
    let (short, long) = (inner.render_help().to_string(), inner.render_long_help().to_string());
    assert!(short.contains("mind the gap\n\nExit codes:"), "{short}");
    assert!(long.contains("mind it well\n\nExit codes:"), "{long}");
}

#[test]
fn there_is_a_page_for_each_visible_command_and_for_no_hidden_one() {
    let pages: BTreeSet<String> = written(Cli::command()).into_iter().map(|(name, _)| name).collect();
    let named = |words: &String| format!("{}.1", format!("remediator {words}").trim_end().replace(' ', "-"));
    let expected: BTreeSet<String> = visible(&Cli::command(), "").iter().map(named).collect();
    assert_eq!(pages, expected);
    assert!(pages.contains("remediator-audit-verify.1"), "{pages:?}");
    assert!(!pages.contains("remediator-man.1"), "{pages:?}");
}

#[test]
fn a_new_command_is_on_a_page_without_a_word_here() {
    let command = Cli::command()
        .subcommand(Command::new("sing").about("Sing a song").arg(clap::Arg::new("tune").long("tune").env("REMEDIATOR_TUNE")));
    let pages = written(command);
    let (_, page) = pages.iter().find(|(name, _)| name == "remediator-sing.1").expect("its page");
    for part in ["Sing a song", "EXIT STATUS", "REMEDIATOR_TUNE", "SEE ALSO"] {
        assert!(page.contains(part), "{part} is missing:\n{page}");
    }
}

#[test]
fn the_first_page_has_what_people_look_for() {
    let pages = written(Cli::command());
    let (_, page) = pages.iter().find(|(name, _)| name == "remediator.1").expect("the first page");
    for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "\"EXIT STATUS\"", "ENVIRONMENT", "FILES", "EXAMPLES", "\"SEE ALSO\""] {
        assert!(page.contains(&format!(".SH {section}\n")), "{section} is missing:\n{page}");
    }
}

#[test]
fn every_shell_completes_every_visible_command() {
    for shell in Shell::value_variants() {
        let mut script = Vec::new();
        clap_complete::generate(*shell, &mut Cli::command(), "remediator", &mut script);
        let script = String::from_utf8(script).expect("text");
        for words in visible(&Cli::command(), "") {
            let last = words.rsplit(' ').next().unwrap_or_default();
            assert!(script.contains(last), "{shell} does not know `{words}`");
        }
    }
}
