//! The ledger's files: a lock that lives as long as the ledger, and a database that is created whole or not at all.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageBackend, StorageError};
use rustix::fs::OFlags;

use super::LedgerError;
use super::overlay::Overlay;
use crate::crash::Step;

/// The database.
const DATABASE: &str = "ledger.redb";
/// The database while it is being created.
const UNFINISHED: &str = "ledger.redb.new";
/// Held locked for as long as the ledger is open, so that nobody comes between closing and reopening the database,
/// or takes a creation that is under way for a leftover.
const LOCK: &str = "ledger.lock";
/// Only root reads or writes what this node trusts.
const MODE: u32 = 0o600;
/// What every redb file begins with (redb `docs/design.md`, "Database header").
const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";
/// How often a lock is tried that somebody else has, and how long is waited in between.
const LOCK_TRIES: u32 = 5;
const LOCK_TRIED_EVERY: Duration = Duration::from_millis(10);
/// Memory for redb's page cache. Verdicts are made from what is kept in memory; the ledger is read at start.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// The places of a ledger that this process has locked.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    database: PathBuf,
    unfinished: PathBuf,
    /// Unlocked by the system when this is dropped, or when the process dies.
    _lock: File,
}

impl Files {
    /// Locks the ledger of `directory` for this process.
    pub(super) fn lock(directory: &Path) -> Result<Self, LedgerError> {
        let refused = |source| LedgerError::Directory { directory: directory.to_owned(), source };
        let database = directory.join(DATABASE);
        let lock = own_file().create(true).truncate(false).open(directory.join(LOCK)).map_err(refused)?;
        patiently(|| match lock.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(LedgerError::InUse { path: database.clone() }),
            Err(TryLockError::Error(source)) => Err(refused(source)),
        })?;
        Ok(Self { directory: directory.to_owned(), unfinished: directory.join(UNFINISHED), database, _lock: lock })
    }

    /// The database's path, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.database
    }

    /// Removes what an interrupted or failed creation left. The lock is held, so nobody is creating now.
    pub(super) fn remove_leftover(&self) -> Result<(), LedgerError> {
        match fs::remove_file(&self.unfinished) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(LedgerError::Directory { directory: self.directory.clone(), source }),
        }
    }

    /// Whether there is no database of any kind yet: not an empty one, and not a dangling link.
    pub(super) fn is_first_use(&self) -> Result<bool, LedgerError> {
        match fs::symlink_metadata(&self.database) {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(source) => Err(LedgerError::Directory { directory: self.directory.clone(), source }),
        }
    }

    /// Creates the database: whole under another name, on the disk, and only then under its own name.
    pub(super) fn create(&self, initialise: impl FnOnce(&Database) -> Result<(), redb::Error>) -> Result<(), LedgerError> {
        self.remove_leftover()?;
        let failed = |source| LedgerError::Write { path: self.unfinished.clone(), source: Box::new(source) };
        let failed_io = |source: io::Error| failed(redb::Error::from(StorageError::Io(source)));
        let file = own_file().create_new(true).open(&self.unfinished).map_err(failed_io)?;
        Step::LedgerBegun.reached();
        let backend = file.try_clone().map_err(failed_io).and_then(|file| FileBackend::new(file).map_err(|error| failed(error.into())))?;
        let database = builder().create_with_backend(Unfinished(backend)).map_err(|error| failed(error.into()))?;
        initialise(&database).map_err(failed)?;
        database.close().map_err(|error| failed(error.into()))?;
        file.sync_all().map_err(failed_io)?;
        Step::LedgerWritten.reached();
        // The lock keeps other processes off, and not an operator who puts a backup back.
        if !self.is_first_use()? {
            self.remove_leftover()?;
            return Err(LedgerError::Appeared { path: self.database.clone() });
        }
        fs::rename(&self.unfinished, &self.database).map_err(failed_io)?;
        Step::LedgerRenamed.reached();
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(failed_io)
    }

    /// Opens the database, which exists. redb verifies the checksum of every page while it does.
    pub(super) fn open(&self) -> Result<Database, LedgerError> {
        self.refuse_what_is_no_database()?;
        let open = || builder().set_check_integrity_on_open(true).open(&self.database);
        patiently(|| {
            open().map_err(|error| {
                if matches!(error, DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch) {
                    return LedgerError::InUse { path: self.database.clone() };
                }
                failed_read(&self.database, error.into())
            })
        })
    }

    /// Opens the database, which exists, to look at it: verified and, after a crash, repaired as by [`Files::open`], but what
    /// redb writes for that, if only that the file is open, stays in memory.
    pub(super) fn open_to_look(&self) -> Result<Database, LedgerError> {
        let file = self.refuse_what_is_no_database()?;
        patiently(|| match file.try_lock_shared() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(LedgerError::InUse { path: self.database.clone() }),
            Err(TryLockError::Error(error)) => Err(failed_read(&self.database, redb::Error::Io(error))),
        })?;
        let database = Overlay::new(file).map_err(redb::Error::Io).and_then(|overlay| {
            let opened = builder().set_check_integrity_on_open(true).create_with_backend(overlay);
            opened.map_err(redb::Error::from)
        });
        database.map_err(|error| failed_read(&self.database, error))
    }

    /// redb takes an empty file for a new database and may not survive one that is no database at all.
    fn refuse_what_is_no_database(&self) -> Result<File, LedgerError> {
        let failed = |error: io::Error| failed_read(&self.database, redb::Error::Io(error));
        let metadata = fs::symlink_metadata(&self.database).map_err(failed)?;
        if !metadata.is_file() {
            return Err(self.unreadable("it is not a regular file"));
        }
        if metadata.len() == 0 {
            return Err(self.unreadable("the file is empty"));
        }
        let mut file = own_file().open(&self.database).map_err(failed)?;
        let mut begin = [0; MAGIC.len()];
        match file.read_exact(&mut begin) {
            Ok(()) if begin == MAGIC => {}
            Ok(()) => return Err(self.unreadable("it is a file of another kind")),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(self.unreadable("it is cut short")),
            Err(error) => return Err(failed(error)),
        }
        if metadata.permissions().mode() & 0o777 != MODE {
            file.set_permissions(fs::Permissions::from_mode(MODE)).map_err(failed)?;
        }
        Ok(file)
    }

    fn unreadable(&self, what: &str) -> LedgerError {
        LedgerError::Unreadable { path: self.database.clone(), what: what.to_owned(), source: None }
    }
}

/// Tries again when somebody else has the file, for a moment: a process that this one is just starting (a credential helper)
/// has a copy of every lock until its program begins.
fn patiently<T>(attempt: impl Fn() -> Result<T, LedgerError>) -> Result<T, LedgerError> {
    for _ in 1..LOCK_TRIES {
        match attempt() {
            Err(LedgerError::InUse { .. }) => std::thread::sleep(LOCK_TRIED_EVERY),
            other => return other,
        }
    }
    attempt()
}

/// A database that is being created. redb waits for the disk at every step; here it is waited for once, when all is
/// written, since nobody reads the file before it has its own name.
#[derive(Debug)]
struct Unfinished(FileBackend);

impl StorageBackend for Unfinished {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

/// Whether the disk failed, or the database is damaged. A read that ends early is damage: the file was cut short.
pub(super) fn failed_read(path: &Path, error: redb::Error) -> LedgerError {
    let path = path.to_owned();
    let source = Box::new(error);
    if let redb::Error::Io(error) = source.as_ref() {
        let is_damage = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData);
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if is_full {
            return LedgerError::Write { path, source };
        }
        if !is_damage {
            return LedgerError::Read { path, source };
        }
    }
    if matches!(*source, redb::Error::PreviousIo | redb::Error::DatabaseClosed | redb::Error::LockPoisoned(_)) {
        return LedgerError::Read { path, source };
    }
    LedgerError::Unreadable { path, what: "redb reports damage".to_owned(), source: Some(source) }
}

/// How every file of the ledger is opened: for its owner alone, and never through a symbolic link.
fn own_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(MODE).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}
