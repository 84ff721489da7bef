//! The papers that come with the program: completions for shells, man pages, and the end of every `--help`.
//!
//! All of it is made from the arguments as they are parsed, so a new command is in all of it without a word here. What
//! arguments cannot say (examples, exit codes, files) is in [`notes`], and is the same text in `--help` and on the page.

pub mod notes;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::cli::Exit;
use notes::{ENVIRONMENT, FILES, Notes, SIGNALS, WHERE};

#[derive(clap::Args, Debug)]
pub struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

#[derive(clap::Args, Debug)]
pub struct ManArgs {
    /// Where to write the pages, one for each command; the folder must exist
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// The command with notes at the end of its help and of each subcommand's.
pub fn with_notes(command: Command) -> Command {
    noted(command.after_help(WHERE), "")
}

fn noted(command: Command, words: &str) -> Command {
    let text = Notes::of(words).text();
    // What a command says by itself stays, and stays first.
    let joined = |own: Option<String>| own.map_or_else(|| text.clone(), |own| format!("{own}\n\n{text}"));
    let short = joined(command.get_after_help().map(ToString::to_string));
    let long = command.get_after_long_help().map(|own| joined(Some(own.to_string())));
    let command = command.after_help(short);
    let command = match long {
        Some(long) => command.after_long_help(long),
        None => command,
    };
    let words = words.to_owned();
    command.mut_subcommands(move |inner| {
        let words = join(&words, inner.get_name());
        noted(inner, &words)
    })
}

fn join(words: &str, name: &str) -> String {
    format!("{words} {name}").trim_start().to_owned()
}

/// Prints the completions of `command`.
///
/// # Errors
/// Standard output cannot be written.
pub fn completions(mut command: Command, args: &CompletionsArgs) -> anyhow::Result<Exit> {
    let name = command.get_name().to_owned();
    // Into memory first: the generator panics when it cannot write, and a closed pipe is no reason to.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    match std::io::stdout().write_all(&script) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Exit::Fine),
        written => written.map(|()| Exit::Fine).context("the completions cannot be written"),
    }
}

/// Writes a page for `command` and one for each visible subcommand.
///
/// # Errors
/// The folder cannot be written.
pub fn man(command: Command, args: &ManArgs) -> anyhow::Result<Exit> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    pages(&command, "", &args.dir).with_context(|| format!("the pages cannot be written to {}", args.dir.display()))?;
    Ok(Exit::Fine)
}

fn pages(command: &Command, words: &str, dir: &Path) -> std::io::Result<()> {
    let man = Man::new(command.clone()).manual("remediator");
    std::fs::write(dir.join(man.get_filename()), page(command, words, &man)?)?;
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        pages(inner, &join(words, inner.get_name()), dir)?;
    }
    Ok(())
}

/// One page, in the order that man-pages(7) asks for.
fn page(command: &Command, words: &str, man: &Man) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    if command.get_arguments().any(|arg| !arg.is_hide_set()) {
        man.render_options_section(&mut out)?;
    }
    if command.get_subcommands().any(|inner| !inner.is_hide_set()) {
        man.render_subcommands_section(&mut out)?;
    }
    let mut rest = Roff::new();
    let own = command.get_after_long_help().or(command.get_after_help());
    if let Some(own) = own {
        rest.control("SH", ["NOTES"]);
        plain(&mut rest, &own.to_string());
    }
    let notes = Notes::of(words);
    if words == "serve" {
        rest.control("SH", ["SIGNALS"]);
        terms(&mut rest, SIGNALS.iter().copied());
    }
    rest.control("SH", ["EXIT STATUS"]);
    let codes = notes.codes;
    terms(&mut rest, ["0", "1", "2"].into_iter().zip(codes));
    environment(&mut rest, command, words);
    if words.is_empty() || words == "serve" {
        rest.control("SH", ["FILES"]);
        terms(&mut rest, FILES.iter().copied());
    }
    if !notes.examples.is_empty() {
        rest.control("SH", ["EXAMPLES"]);
        for (what, line) in notes.examples {
            rest.control("TP", []).text([roman(format!("{what}:"))]).text([bold(*line)]);
        }
    }
    see_also(&mut rest, command, words);
    rest.to_writer(&mut out)?;
    Ok(out)
}

/// The variables that options read, and the few that are no option.
fn environment(roff: &mut Roff, command: &Command, words: &str) {
    let mut known: Vec<(String, String)> = Vec::new();
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let (Some(name), Some(option)) = (arg.get_env(), arg.get_long()) else { continue };
        known.push((name.to_string_lossy().into_owned(), format!("instead of --{option}, which wins when both are given")));
    }
    if words.is_empty() {
        known.push(("REMEDIATOR_CONFIG".to_owned(), "the configuration, for commands that take --config".to_owned()));
        known.extend(ENVIRONMENT.iter().map(|(name, what)| ((*name).to_owned(), (*what).to_owned())));
    }
    if !known.is_empty() {
        roff.control("SH", ["ENVIRONMENT"]);
        terms(roff, known.iter().map(|(name, what)| (name.as_str(), what.as_str())));
    }
}

/// The page above, and the pages below.
fn see_also(roff: &mut Roff, command: &Command, words: &str) {
    let page = |words: &str| format!("remediator {words}").trim_end().replace(' ', "-");
    let mut others: Vec<String> = Vec::new();
    if let Some((above, _)) = words.rsplit_once(' ') {
        others.push(page(above));
    } else if !words.is_empty() {
        others.push(page(""));
    }
    let below = command.get_subcommands().filter(|inner| !inner.is_hide_set());
    others.extend(below.map(|inner| page(&join(words, inner.get_name()))));
    roff.control("SH", ["SEE ALSO"]);
    let mut line: Vec<Inline> = Vec::new();
    for other in others {
        line.extend([bold(other), roman("(1), ")]);
    }
    line.push(italic("/usr/share/doc/remediator/RUNBOOK.md"));
    roff.text(line);
}

fn terms<'a>(roff: &mut Roff, terms: impl IntoIterator<Item = (&'a str, &'a str)>) {
    for (term, meaning) in terms {
        roff.control("TP", []).text([bold(term)]).text([roman(meaning)]);
    }
}

/// Lines as they are.
fn plain(roff: &mut Roff, text: &str) {
    roff.control("nf", []);
    for line in text.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
}

#[cfg(test)]
mod tests;
