//! The embedded store's file: created whole or not at all, for its owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::DatabaseError;
use redb::backends::FileBackend;
use rustix::fs::OFlags;

use crate::store::error::StoreError;

const DATABASE: &str = "store.redb";
/// The database while it is being created.
const UNFINISHED: &str = "store.redb.new";
/// What the store holds is no secret, but nobody else has to write there.
const MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// What every redb file begins with (redb `docs/design.md`, "Database header").
const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";
/// How often a lock is tried that somebody else has: a process that this one is just starting (a credential helper) has a copy of
/// it until its program begins.
const LOCK_TRIES: u32 = 5;
const LOCK_TRIED_EVERY: Duration = Duration::from_millis(10);
/// Memory for redb's page cache: what is used is kept elsewhere, once it is verified.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Where an embedded store is.
#[derive(Debug, Clone)]
pub(super) struct StoreFile {
    directory: PathBuf,
    path: PathBuf,
}

impl StoreFile {
    /// In `directory`, which is made if there is none.
    pub(super) fn prepare(directory: &Path) -> Result<Self, StoreError> {
        let made = fs::DirBuilder::new().mode(DIRECTORY_MODE).create(directory);
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(refused(directory, &error)),
            Ok(()) | Err(_) => Ok(Self { directory: directory.to_owned(), path: directory.join(DATABASE) }),
        }
    }

    /// Opens the database. On first use it is created: whole under another name, on the disk, and only then under its own.
    pub(super) fn open(&self, initialise: impl FnOnce(&redb::Database) -> Result<(), redb::Error>) -> Result<redb::Database, StoreError> {
        match fs::symlink_metadata(&self.path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(initialise)?,
            Err(error) => return Err(refused(&self.path, &error)),
        }
        self.refuse_what_is_no_database()?;
        for _ in 1..LOCK_TRIES {
            match self.open_existing() {
                Err(StoreError::InUse { .. }) => std::thread::sleep(LOCK_TRIED_EVERY),
                other => return other,
            }
        }
        self.open_existing()
    }

    /// redb verifies the checksum of every page.
    fn open_existing(&self) -> Result<redb::Database, StoreError> {
        let opened = builder().set_check_integrity_on_open(true).open(&self.path);
        opened.map_err(|error| {
            if matches!(error, DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch) {
                return StoreError::InUse { path: self.path.clone() };
            }
            self.failure(&error.into())
        })
    }

    fn create(&self, initialise: impl FnOnce(&redb::Database) -> Result<(), redb::Error>) -> Result<(), StoreError> {
        let unfinished = self.directory.join(UNFINISHED);
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(&unfinished, &error)),
            Ok(()) | Err(_) => {}
        }
        let failed = |error: io::Error| self.failure(&redb::Error::Io(error));
        let file = own_file().create_new(true).open(&unfinished).map_err(|error| {
            let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            if is_full { failed(error) } else { refused(&unfinished, &error) }
        })?;
        let database = FileBackend::new(file).and_then(|backend| builder().create_with_backend(backend));
        let database = database.map_err(|error| self.failure(&error.into()))?;
        initialise(&database).map_err(|error| self.failure(&error))?;
        drop(database);
        File::open(&unfinished).and_then(|file| file.sync_all()).map_err(failed)?;
        fs::rename(&unfinished, &self.path).map_err(failed)?;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(failed)
    }

    /// redb takes an empty file for a new database and may not survive one that is no database at all.
    fn refuse_what_is_no_database(&self) -> Result<(), StoreError> {
        let metadata = fs::symlink_metadata(&self.path).map_err(|error| refused(&self.path, &error))?;
        if !metadata.is_file() {
            return Err(self.damaged("it is not a regular file"));
        }
        let mut begin = [0; MAGIC.len()];
        let read = own_file().open(&self.path).and_then(|mut file| file.read_exact(&mut begin));
        match read {
            Ok(()) if begin == MAGIC => Ok(()),
            Ok(()) => Err(self.damaged("it is a file of another kind")),
            Err(error) => Err(self.failure(&redb::Error::Io(error))),
        }
    }

    /// What is in the file is not what was written.
    pub(super) fn damaged(&self, what: impl Into<String>) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), what: what.into() }
    }

    /// The disk did not do what it should.
    pub(super) fn failed(&self, what: impl Into<String>) -> StoreError {
        StoreError::Disk { path: self.path.clone(), what: what.into() }
    }

    /// Whether the disk failed, or the database is damaged. A read that ends early is damage: the file was cut short.
    pub(super) fn failure(&self, error: &redb::Error) -> StoreError {
        if let redb::Error::Io(error) = error {
            let is_damage = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData);
            return if is_damage { self.damaged("it is cut short") } else { self.failed(error.to_string()) };
        }
        if matches!(error, redb::Error::PreviousIo | redb::Error::DatabaseClosed | redb::Error::LockPoisoned(_)) {
            return self.failed("an earlier call failed");
        }
        self.damaged(error.to_string())
    }
}

fn refused(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Directory { path: path.to_owned(), what: error.to_string() }
}

/// For its owner alone, and never through a symbolic link.
fn own_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(MODE).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

fn builder() -> redb::Builder {
    let mut builder = redb::Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}
