//! What the operator wrote, read strictly and checked.
//!
//! What it promises: nothing starts on a configuration that was understood by halves. An unknown field, an empty
//! selector, a query that does not bind its target, a limit that limits nothing: each is an error with file, line,
//! column, a sentence and what to do about it, and a file's errors are told together where the YAML itself can be read.
//! What comes out of here is typed and needs no second look: [`Settings`] and [`Playbook`]s.
//!
//! How: `settings` and `playbook` hold the files as typed (serde, unknown fields denied) and turn them into checked
//! values; [`check`] compares them with the world, which is what `remediator check` adds to a start.

pub mod check;
mod files;
pub mod playbook;
pub mod schema;
pub mod settings;
pub(crate) mod sheet;
mod standing;
pub mod tls;
pub mod whereabouts;

use std::fmt;
use std::path::Path;

pub use check::{Finding, Severity, check_against};
pub use settings::Settings;
use sheet::Sheet;

use crate::decide::playbook::Playbook;

/// Everything that `remediator.yml` and the files it names say.
#[derive(Debug)]
pub struct Config {
    pub settings: Settings,
    /// At least one.
    pub playbooks: Vec<Playbook>,
    /// Where each playbook was written, in the same order.
    pub origins: Vec<Origin>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Finding>,
}

/// Where a playbook says what it says, for findings that only the outside world can reveal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub file: String,
    pub name: Place,
    pub matchers: Place,
    pub service: Place,
    /// `recovered.within`.
    pub within: Place,
    pub blast_radius: Place,
}

/// Line and column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub line: u64,
    pub column: u64,
}

/// Something in a file that must be put right before anything starts.
/// Prints as `playbooks/x.yml:12:7: <sentence>. <What to do>.`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub file: String,
    /// None when the file as a whole is meant.
    pub place: Option<Place>,
    pub what: String,
    /// What to do about it; may be empty when the sentence says so itself.
    pub help: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        visible(f, &self.file)?;
        if let Some(place) = self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        f.write_str(": ")?;
        visible(f, &self.what)?;
        f.write_str(".")?;
        if self.help.is_empty() {
            return Ok(());
        }
        f.write_str(" ")?;
        visible(f, &self.help)?;
        f.write_str(".")
    }
}

/// What an error quotes of a file, or of a file's name, stays one line that a terminal shows as it is.
fn visible(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    use fmt::Write as _;
    text.chars().try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) })
}

impl std::error::Error for ConfigError {}

/// Reads `remediator.yml`, the token files, the certificates and every playbook it names. Relative paths start at the folder of the file
/// that they are written in.
///
/// # Errors
/// All that is wrong, in the order of the files; never empty.
pub fn load(path: &Path) -> Result<Config, Vec<ConfigError>> {
    let mut sheet = Sheet::read(path).map_err(|error| vec![error])?;
    let settings = settings::read(&mut sheet);
    let (mut errors, mut warnings) = sheet.into_findings();
    let (mut playbooks, mut origins) = (Vec::new(), Vec::<Origin>::new());
    for file in settings.iter().flat_map(|settings| &settings.playbooks) {
        match load_playbooks(file) {
            Ok((found, more)) => {
                for (playbook, origin) in found {
                    let twin = playbooks.iter().position(|other: &Playbook| other.name == playbook.name);
                    if let Some(twin) = twin.map(|at| &origins[at]) {
                        errors.push(ConfigError {
                            what: format!("playbook {} is already written at {}:{}", playbook.name, twin.file, twin.name.line),
                            help: "Give each playbook a name of its own".to_owned(),
                            file: origin.file.clone(),
                            place: Some(origin.name),
                        });
                    }
                    if let Some(settings) = &settings {
                        let (error, warning) = settings::liveness::reserved(&settings.watchdog, &playbook, &origin);
                        errors.extend(error);
                        warnings.extend(warning);
                    }
                    playbooks.push(playbook);
                    origins.push(origin);
                }
                warnings.extend(more);
            }
            Err(found) => errors.extend(found),
        }
    }
    match settings {
        Some(settings) if errors.is_empty() => Ok(Config { settings, playbooks, origins, warnings }),
        _ => Err(errors),
    }
}

/// What is wrong with a text as a playbook file; for fuzzing.
pub(crate) fn playbooks_of(text: &str) -> Vec<ConfigError> {
    let mut sheet = Sheet::of(Path::new("fuzz.yml"), text.to_owned());
    playbook::read(&mut sheet);
    sheet.into_findings().0
}

/// What is wrong with a text as `remediator.yml`; for fuzzing.
pub(crate) fn settings_of(text: &str) -> Vec<ConfigError> {
    let mut sheet = Sheet::of(Path::new("fuzz.yml"), text.to_owned());
    settings::read(&mut sheet);
    sheet.into_findings().0
}

/// A file's playbooks, with its warnings.
type Loaded = (Vec<(Playbook, Origin)>, Vec<Finding>);

/// Reads one playbook file: one playbook, or several separated by `---`.
///
/// # Errors
/// All that is wrong with it; a file without a playbook is wrong, too.
pub fn load_playbooks(path: &Path) -> Result<Loaded, Vec<ConfigError>> {
    let mut sheet = Sheet::read(path).map_err(|error| vec![error])?;
    let found = playbook::read(&mut sheet);
    let (errors, warnings) = sheet.into_findings();
    if errors.is_empty() { Ok((found, warnings)) } else { Err(errors) }
}

#[cfg(test)]
pub(crate) mod tests;
