//! Files that the settings name: tokens and playbooks. Relative names start at the settings' own folder.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::ConfigError;
use super::sheet::{At, Sheet, place};

/// Where playbooks are looked for when the settings do not say.
const PLAYBOOKS: &str = "/etc/remediator/playbooks/*.yml";

/// Shortest token taken, in bytes: 16 random bytes cannot be guessed, 16 characters of a password perhaps.
const MIN_TOKEN: usize = 16;

/// Largest token file read, in bytes: a token is a line.
const MAX_TOKEN: u64 = 4096;

/// The tokens of one role, one in each file.
pub(super) fn token_files(sheet: &mut Sheet, role: &str, files: &[At<String>]) -> Vec<SecretString> {
    if let Some(third) = files.get(2) {
        sheet.wrong(
            third.referenced,
            format!("more than two token files for {role}"),
            "Two are for replacing a token; remove the old one",
        );
    }
    let mut tokens = Vec::new();
    for at in files {
        let path = sheet.folder.join(&at.value);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_TOKEN + 1).read_to_string(&mut text)).map(|_| text);
        match read {
            Err(cause) => sheet.wrong(
                at.referenced,
                format!("token file {} cannot be read: {cause}", path.display()),
                "Create it, readable by remediator only",
            ),
            Ok(text)
                if text.len() as u64 > MAX_TOKEN
                    || text.trim().len() < MIN_TOKEN
                    || text.trim().contains(char::is_whitespace) =>
            {
                sheet.wrong(
                    at.referenced,
                    format!("token file {} does not hold one token of {MIN_TOKEN} to {MAX_TOKEN} bytes", path.display()),
                    "Make one with: openssl rand -hex 32",
                )
            }
            Ok(text) => tokens.push(SecretString::from(text.trim())),
        }
    }
    tokens
}

/// The files that the patterns name. An empty selector is an error, not "none" (the story `diskerase`).
pub(super) fn playbook_files(sheet: &mut Sheet, typed: Option<&At<Vec<At<String>>>>) -> Vec<PathBuf> {
    const HELP: &str = "Name at least one playbook file; `*` may stand in the file's name";
    let mut files = Vec::new();
    let Some(typed) = typed else {
        let pattern = Path::new(PLAYBOOKS);
        match matching(pattern) {
            Ok(found) => files.extend(found),
            Err(cause) => sheet.wrong_file(format!("playbooks is not set, and {} {cause}", pattern.display()), HELP),
        }
        return files;
    };
    if typed.value.is_empty() {
        sheet.wrong(typed.referenced, "playbooks is empty, so nothing would ever be remediated", HELP);
    }
    for at in &typed.value {
        let pattern = sheet.folder.join(&at.value);
        match matching(&pattern) {
            Ok(found) => files.extend(found),
            Err(cause) => sheet.errors.push(ConfigError {
                file: sheet.file.clone(),
                place: Some(place(at.referenced)),
                what: format!("{} {cause}", pattern.display()),
                help: HELP.to_owned(),
            }),
        }
    }
    files.sort();
    files.dedup();
    files
}

/// Files of one folder by a pattern in which `*` stands for any part of the file's name. Hidden files do not match.
fn matching(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let name = pattern.file_name().and_then(|name| name.to_str()).ok_or("names no file")?;
    let folder = pattern.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.to_string_lossy().contains('*') {
        return Err("has a `*` in the folder".to_owned());
    }
    if !name.contains('*') {
        return if pattern.is_file() { Ok(vec![pattern.to_owned()]) } else { Err("is not a file".to_owned()) };
    }
    let entries = std::fs::read_dir(folder).map_err(|cause| format!("cannot be listed: {cause}"))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|cause| format!("cannot be listed: {cause}"))?;
        let file = entry.file_name();
        let file = file.to_string_lossy();
        if !file.starts_with('.') && like(&file, name) && entry.path().is_file() {
            found.push(pattern.with_file_name(&*file));
        }
    }
    if found.is_empty() { Err("matches no file".to_owned()) } else { Ok(found) }
}

/// True when `name` is `pattern` with each `*` replaced by some text.
fn like(name: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}
