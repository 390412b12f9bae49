//! The log's files: lines are added to the newest, and the oldest goes when it is the turn of a new one.
//!
//! A line is given to the kernel with one write before the call is answered, so a process that dies loses none that was
//! answered. Nothing waits for the disk itself (no `fsync`): that takes milliseconds, and would make every container of the
//! node wait for them to keep a report. A power cut can lose what the kernel had not written back yet, some 30 seconds. What
//! must not be lost, the ledger, has its own file and waits.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::store::make_private;

/// Files of one log. With more of them less is lost when the oldest goes, and more must be renamed when it does.
pub const FILES: u32 = 8;
/// Only root reads who ran what.
const MODE: u32 = 0o600;

/// Where the log is, and how long it may get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// The newest file. Those before it have `.1`, `.2` and so on behind its name.
    pub path: PathBuf,
    /// Bytes of all files together.
    pub max_bytes: u64,
    /// Whether its directory is made if it is absent.
    pub makes_directory: bool,
}

impl LogSettings {
    /// The file that is `age` files older than the newest.
    pub(super) fn file(&self, age: u32) -> PathBuf {
        if age == 0 {
            return self.path.clone();
        }
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{age}"));
        name.into()
    }

    const fn bytes_of_one(&self) -> u64 {
        self.max_bytes / FILES as u64
    }
}

/// The log as its one writer has it.
#[derive(Debug)]
pub(super) struct LogFile {
    settings: LogSettings,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
    /// The last line has no end: the next one begins with that.
    is_torn: bool,
}

impl LogFile {
    /// Nothing is opened before the first line.
    pub(super) const fn new(settings: LogSettings) -> Self {
        Self { settings, open: None }
    }

    pub(super) const fn settings(&self) -> &LogSettings {
        &self.settings
    }

    /// Adds a line, which has no line feed in it. After an error nothing of it stands in the log, or a torn line does, and the
    /// next call tries anew.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let added = self.try_append(line);
        // On a full disk the file is as good as before. After anything else it is not known what it is.
        if added.as_ref().is_err_and(|error| !is_full(error)) {
            self.open = None;
        }
        added
    }

    fn try_append(&mut self, line: &[u8]) -> io::Result<()> {
        let limit = self.settings.bytes_of_one();
        let open = self.opened()?;
        let has_room = open.bytes == 0 || open.bytes.saturating_add(line.len() as u64 + 2) <= limit;
        if has_room {
            return open.append(line);
        }
        self.rotate()?;
        self.opened()?.append(line)
    }

    /// The newest file; opened anew if somebody has removed it.
    fn opened(&mut self) -> io::Result<&mut Open> {
        let is_there = self.open.as_ref().is_some_and(|open| open.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0));
        if !is_there {
            self.open = None;
        }
        match &mut self.open {
            Some(open) => Ok(open),
            none => Ok(none.insert(Open::with(&self.settings)?)),
        }
    }

    /// Makes every file one older, the oldest first, so that a crash in between loses none but the oldest.
    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        for age in (0..FILES.saturating_sub(1)).rev() {
            match fs::rename(self.settings.file(age), self.settings.file(age + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

impl Open {
    fn with(settings: &LogSettings) -> io::Result<Self> {
        let directory = settings.path.parent().filter(|_| settings.makes_directory);
        match (Self::new(&settings.path), directory) {
            (Err(error), Some(directory)) if error.kind() == ErrorKind::NotFound => {
                make_private(directory)?;
                Self::new(&settings.path)
            }
            (opened, _) => opened,
        }
    }

    fn new(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(MODE).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
        let file = options.open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let bytes = metadata.len();
        let mut last = [b'\n'];
        if let Some(before) = bytes.checked_sub(1) {
            file.read_exact_at(&mut last, before)?;
        }
        let is_torn = last != *b"\n";
        if is_torn {
            tracing::warn!(file = %path.display(), "the last line of the audit log was cut off by a crash or a full disk; it cannot be read");
        }
        Ok(Self { file, bytes, is_torn })
    }

    /// One write: what comes of it is a whole line, or one that is recognised as torn.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(line.len() + 2);
        bytes.extend(self.is_torn.then_some(b'\n'));
        bytes.extend_from_slice(line);
        bytes.push(b'\n');
        let written = loop {
            match self.file.write(&bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                written => break written?,
            }
        };
        if written == bytes.len() {
            self.bytes = self.bytes.saturating_add(written as u64);
            self.is_torn = false;
            return Ok(());
        }
        if self.file.set_len(self.bytes).is_err() {
            self.bytes = self.bytes.saturating_add(written as u64);
            self.is_torn = true;
        }
        Err(ErrorKind::StorageFull.into())
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn log(directory: &Path, max_bytes: u64) -> LogFile {
        LogFile::new(LogSettings { path: directory.join("log"), max_bytes, makes_directory: false })
    }

    fn content(log: &LogFile, age: u32) -> Option<String> {
        fs::read_to_string(log.settings.file(age)).ok()
    }

    #[test]
    fn a_line_is_in_the_file_when_the_call_returns_and_nobody_else_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(directory.path(), 1 << 20);
        log.append(b"one").unwrap();
        assert_eq!(content(&log, 0).unwrap(), "one\n");
        log.append(b"two").unwrap();
        assert_eq!(content(&log, 0).unwrap(), "one\ntwo\n");
        let mode = fs::metadata(&log.settings.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_oldest_lines_go_when_the_limit_is_reached_and_the_newest_stay() {
        let directory = tempfile::tempdir().unwrap();
        // Ten bytes for each file: one line of nine.
        let mut log = log(directory.path(), 10 * u64::from(FILES));
        for number in 0..30 {
            log.append(format!("line {number:03}").as_bytes()).unwrap();
        }
        let found: Vec<String> = (0..=FILES).filter_map(|age| content(&log, age)).collect();
        let expected: Vec<String> = (30 - FILES..30).rev().map(|number| format!("line {number:03}\n")).collect();
        assert_eq!(found, expected);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), FILES as usize);
    }

    #[test]
    fn a_line_that_is_longer_than_a_file_may_be_is_written_alone() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(directory.path(), u64::from(FILES));
        log.append(b"longer").unwrap();
        log.append(b"and another").unwrap();
        assert_eq!((content(&log, 1).unwrap(), content(&log, 0).unwrap()), ("longer\n".into(), "and another\n".into()));
    }

    #[test]
    fn a_torn_line_does_not_spoil_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(directory.path(), 1 << 20);
        fs::write(&log.settings.path, "whole\n{\"id\":\"to").unwrap();
        log.append(b"next").unwrap();
        log.append(b"last").unwrap();
        assert_eq!(content(&log, 0).unwrap(), "whole\n{\"id\":\"to\nnext\nlast\n");
    }

    #[test]
    fn a_crash_in_the_middle_of_a_rotation_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(directory.path(), 10 * u64::from(FILES));
        log.append(b"line 000").unwrap();
        // The newest was moved, and no new one was made.
        fs::rename(log.settings.file(0), log.settings.file(1)).unwrap();
        let mut again = self::log(directory.path(), 10 * u64::from(FILES));
        for number in 1..4 {
            again.append(format!("line {number:03}").as_bytes()).unwrap();
        }
        assert_eq!(content(&again, 3).unwrap(), "line 000\n");
        assert_eq!(content(&again, 0).unwrap(), "line 003\n");
    }

    #[test]
    fn a_directory_of_our_own_is_made_when_it_is_needed_and_no_other_is() {
        let directory = tempfile::tempdir().unwrap();
        let settings = LogSettings { path: directory.path().join("audit/log"), max_bytes: 1 << 20, makes_directory: false };
        LogFile::new(settings.clone()).append(b"one").unwrap_err();
        LogFile::new(LogSettings { makes_directory: true, ..settings }).append(b"one").unwrap();
        assert_eq!(fs::metadata(directory.path().join("audit")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_log_that_somebody_removed_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(directory.path(), 1 << 20);
        log.append(b"one").unwrap();
        fs::remove_file(&log.settings.path).unwrap();
        log.append(b"two").unwrap();
        assert_eq!(content(&log, 0).unwrap(), "two\n");
    }

    #[test]
    fn what_is_no_file_of_our_own_is_not_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(directory.path(), 1 << 20);
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), &log.settings.path).unwrap();
        log.append(b"one").unwrap_err();
        assert!(!directory.path().join("elsewhere").exists());
        fs::remove_file(&log.settings.path).unwrap();
        fs::create_dir(&log.settings.path).unwrap();
        log.append(b"one").unwrap_err();
        fs::remove_dir(&log.settings.path).unwrap();
        log.append(b"one").unwrap();
        assert_eq!(content(&log, 0).unwrap(), "one\n", "as soon as it can be");
    }
}
