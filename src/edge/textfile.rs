//! A `.prom` file for node_exporter's textfile collector, for those who cannot scrape us, or want a second opinion.
//!
//! Promise: whoever opens the file finds a whole one, the old or the new. It is written beside its place, synced, and
//! renamed over it; what is left of a write that failed does not end in `.prom`, so nobody reads it.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// node_exporter is another user than we are.
const READABLE: u32 = 0o644;

/// Puts `text` in the place of the file.
///
/// # Errors
/// The folder is not there or not ours, or the disk is full; the old file stays.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?.to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(Permissions::from_mode(READABLE))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).expect("a directory");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_reader_of_the_old_file_keeps_it_whole_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("remediator.prom");
        replace(&path, "old 1\n").expect("written");
        let mut reader = File::open(&path).expect("readable");
        replace(&path, "new 22\n").expect("written");
        // Writing over it in place would show here.
        assert_eq!(io::read_to_string(&mut reader).expect("readable"), "old 1\n");
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), "new 22\n");
        assert_eq!(names(dir.path()), ["remediator.prom"]);
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, READABLE);
    }

    #[test]
    fn what_cannot_be_put_in_place_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("remediator.prom");
        std::fs::create_dir(&path).expect("a folder in its place");
        assert!(replace(&path, "new\n").is_err());
        assert_eq!(names(dir.path()), ["remediator.prom"]);
        assert!(replace(&dir.path().join("nowhere/x.prom"), "new\n").is_err());
    }
}
