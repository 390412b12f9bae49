//! Coming from elsewhere: what other programs were told to trust, as a configuration of countersign.
//!
//! Text in, text out: nothing here reads a file or a clock. What cannot be carried over is told and never guessed. Nothing is
//! trusted with other keys or on fewer signatures than before; where there is no way to write that, there is an error.

mod address;
mod diagnosis;
mod docker;
mod fault;
mod json;
mod mke;
mod object;
mod pem;
mod pins;
mod registry;
mod told;
mod written;

use std::path::Path;

use countersign_trust::name::shown;

pub use docker::{CertsFolder, docker};
pub use fault::{Fault, ImportErrors};
pub use mke::mke;
pub use pem::{PemError, PemRemark};
pub use registry::registry;
pub use told::Told;

use crate::config::{At, Located, Source, locate, name_of};
use written::Written;

/// No file to import is longer: a configuration of MKE with the CAs of its registries has some ten kilobytes.
pub const MAX_IMPORT_BYTES: u64 = 1024 * 1024;
/// So many names of a list are told.
const NAMES_TOLD: usize = 5;
/// PEM text where a name should be is not repeated: it may be a key.
const PEM_MARK: &str = "-----BEGIN ";

/// Something about an imported file, with its place there.
pub type Note = Located<Told>;

/// What a file becomes.
#[derive(Debug)]
pub struct Imported {
    /// The configuration: TOML, with what is to be known and to be filled in as comments.
    pub toml: String,
    /// What could not be carried over, and what means something else here, in the order of the file.
    pub notes: Vec<Note>,
}

/// What is to be said about a file while it is read.
#[derive(Debug, Default)]
struct Notes {
    faults: Vec<At<Fault>>,
    told: Vec<At<Told>>,
}

impl Notes {
    fn fault(&mut self, at: usize, fault: Fault) {
        self.faults.push(At::new(fault, at));
    }

    fn tell(&mut self, at: usize, told: Told) {
        self.told.push(At::new(told, at));
    }

    /// What was read without a fault; a fault is noted.
    fn good<T>(&mut self, read: Result<T, At<Fault>>) -> Option<T> {
        read.map_err(|fault| self.faults.push(fault)).ok()
    }
}

/// A file that is being imported, and how its configuration is introduced.
struct Import<'t> {
    file: &'t Path,
    text: &'t str,
    /// The command, as the reader typed it.
    command: &'static str,
    /// What to do with the output before it is checked.
    what_to_do: &'static str,
}

impl Import<'_> {
    /// Reads with `read`, and writes with `write` what came of it, unless there was a fault.
    fn run<T>(&self, read: impl FnOnce(&mut Notes) -> Option<T>, write: impl FnOnce(&T, &mut Written)) -> Result<Imported, ImportErrors> {
        let source = Source::new(self.file, self.text);
        let mut notes = Notes::default();
        let read = read(&mut notes);
        let Some(read) = read.filter(|_| notes.faults.is_empty()) else { return Err(ImportErrors::new(&source, notes.faults)) };
        let notes = locate(&source, notes.told, usize::MAX);
        let mut written = Written::default();
        written.comment(format_args!("From {} by `countersign import {}`. {}:", name_of(self.file), self.command, self.what_to_do));
        written.form("  countersign config check /etc/countersign/config.toml");
        if !notes.is_empty() {
            written.blank();
            written.comment("To be known before this is used:");
            notes.iter().for_each(|note| written.comment_item(note));
        }
        write(&read, &mut written);
        Ok(Imported { toml: written.text(), notes })
    }
}

/// A name from the file, as it stands in messages.
fn named(text: &str) -> String {
    if text.contains(PEM_MARK) { "PEM text".to_owned() } else { shown(text) }
}

/// Names from the file, as they stand in messages.
fn named_all<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(NAMES_TOLD);
    let mut told: Vec<String> = names.take(NAMES_TOLD).map(|name| format!("`{}`", named(name))).collect();
    if more > 0 {
        told.push(format!("{more} more"));
    }
    if told.is_empty() { "empty".to_owned() } else { told.join(", ") }
}

#[cfg(test)]
mod tests;
