//! Where things stand: a byte of the text as line and column, and a relative path beside the configuration file.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use countersign_trust::name::shown;

use super::text_file::{self, TextFileError};

/// A place in the text, both counted from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The text of a file with the name that messages give it.
pub(crate) struct Source<'t> {
    name: String,
    text: &'t str,
    line_starts: Vec<usize>,
}

impl<'t> Source<'t> {
    pub(crate) fn new(path: &Path, text: &'t str) -> Self {
        let after_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { name: name_of(path), text, line_starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) const fn text(&self) -> &'t str {
        self.text
    }

    /// The number of the line that byte `at` lies in, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at)
    }

    pub(crate) fn position(&self, at: usize) -> Position {
        let line = self.line(at);
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or_default();
        let before = self.text.get(start..at).map_or(0, |before| before.chars().count());
        Position { line, column: before + 1 }
    }
}

/// How messages name a file.
pub(crate) fn name_of(path: &Path) -> String {
    shown(&path.to_string_lossy())
}

/// The directory that relative paths of the configuration start from: the one that its file lies in. And where the files are
/// read that the configuration names: from the disk, or from what was kept of an earlier day.
#[derive(Debug)]
pub(super) struct Place {
    directory: PathBuf,
    kept: Option<BTreeMap<PathBuf, String>>,
    /// What was read for the policy.
    read: RefCell<BTreeMap<PathBuf, String>>,
}

impl Place {
    pub(super) fn of(config_file: &Path) -> Self {
        let directory = config_file.parent().unwrap_or(config_file).to_owned();
        Self { directory, kept: None, read: RefCell::default() }
    }

    /// Files are what `kept` has of them, and what the disk has now is not looked at.
    pub(super) fn of_kept(config_file: &Path, kept: BTreeMap<PathBuf, String>) -> Self {
        Self { kept: Some(kept), ..Self::of(config_file) }
    }

    /// Whether the configuration is one of an earlier day. What is no part of its policy is not kept with it.
    pub(super) const fn is_of_earlier(&self) -> bool {
        self.kept.is_some()
    }

    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    /// Reads a file that is part of the policy.
    pub(super) fn read(&self, path: &Path, limit: u64) -> Result<String, TextFileError> {
        let text = match &self.kept {
            None => text_file::read(path, limit)?,
            Some(kept) => kept.get(path).cloned().ok_or_else(|| TextFileError::Io(std::io::ErrorKind::NotFound.into()))?,
        };
        self.read.borrow_mut().insert(path.to_owned(), text.clone());
        Ok(text)
    }

    /// Every file that was read for the policy.
    pub(super) fn policy_files(&self) -> BTreeMap<PathBuf, String> {
        self.read.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_not_bytes() {
        let text = "a = 1\nä = \"ö\" # x\n\n";
        let source = Source::new(Path::new("c.toml"), text);
        let position = |what: &str| source.position(text.find(what).unwrap()).to_string();
        assert_eq!([position("a"), position("1"), position("ä"), position("# x")], ["1:1", "1:5", "2:1", "2:9"]);
        assert_eq!(source.position(text.len()).to_string(), "4:1");
    }

    #[test]
    fn a_byte_beyond_the_text_or_within_a_character_is_a_place_too() {
        let source = Source::new(Path::new("c.toml"), "ä");
        assert_eq!(source.position(1).to_string(), "1:1");
        assert_eq!(source.position(999).to_string(), "1:1");
    }

    #[test]
    fn relative_paths_start_beside_the_configuration_file() {
        let place = Place::of(Path::new("/etc/countersign/config.toml"));
        assert_eq!(place.resolve("ca.pem"), Path::new("/etc/countersign/ca.pem"));
        assert_eq!(place.resolve("/x/ca.pem"), Path::new("/x/ca.pem"));
        assert_eq!(Place::of(Path::new("config.toml")).resolve("ca.pem"), Path::new("ca.pem"));
    }
}
