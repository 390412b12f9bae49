//! A test's own folder: everything its servers write lies in it, and it goes when the test ends.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::{env, io, process, thread};

use super::{Must, leftovers};

/// Beginning of the names of all test folders, below the system's temporary folder. Short, because the path of a unix socket may have 107 bytes only.
const PREFIX: &str = "csn-it-";
/// Beginning of the name while a folder is not yet locked.
const UNLOCKED_PREFIX: &str = "csn-new-";
/// Held locked by the process that owns the folder.
const LOCK_FILE: &str = "owner.lock";
/// What is kept of a test that failed.
const KEPT: [&str; 2] = ["logs", "etc"];

/// A temporary folder with sub-folders for logs and configurations.
///
/// When it is dropped, what still runs, is mounted or lies below it is removed. The logs of a test that failed are
/// copied to `integration-logs/<test name>` in cargo's target folder first; those of one that passed are removed.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    test: String,
    failed: bool,
    _lock: File,
}

impl Folder {
    /// Makes the folder of the test `test`, after removing what tests that were killed have left behind.
    pub fn new(test: &str) -> Self {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let (path, lock) = locked_folder().must("making a temporary folder");
        let folder = Self { path, test: file_name_of(test), failed: false, _lock: lock };
        for name in KEPT {
            folder.sub(name);
        }
        folder
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a sub-folder, which is made when it is missing.
    pub fn sub(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir_all(&path).must(format_args!("making {}", path.display()));
        path
    }

    /// Where servers and containers log.
    pub fn logs(&self) -> PathBuf {
        self.sub("logs")
    }

    /// Writes a configuration file and returns its path.
    pub fn configuration(&self, name: &str, content: &str) -> PathBuf {
        let path = self.sub("etc").join(name);
        fs::write(&path, content).must(format_args!("writing {}", path.display()));
        path
    }

    /// Keeps the logs although nothing panicked: for a test that reports its failure in another way.
    pub fn failed(&mut self) {
        self.failed = true;
    }

    fn keep_logs(&self, kept: &Path) -> io::Result<()> {
        for name in KEPT {
            copy_files(&self.path.join(name), &kept.join(name))?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let kept = kept_logs_folder().join(&self.test);
        let _ = fs::remove_dir_all(&kept);
        if self.failed || thread::panicking() {
            match self.keep_logs(&kept) {
                Ok(()) => eprintln!("the logs of `{}` are kept in {}", self.test, kept.display()),
                Err(error) => eprintln!("the logs of `{}` could not be kept: {error}", self.test),
            }
        }
        leftovers::remove(&self.path);
    }
}

/// Where the logs of failed tests are: in cargo's target folder.
pub fn kept_logs_folder() -> PathBuf {
    target_folder().join("integration-logs")
}

/// cargo's target folder, which outlives the tests.
pub fn target_folder() -> PathBuf {
    let target = option_env!("CARGO_TARGET_TMPDIR").and_then(|folder| Path::new(folder).parent()).map(Path::to_owned);
    let target = target.or_else(|| env::var_os("CARGO_TARGET_DIR").map(PathBuf::from));
    target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"))
}

/// The folder gets the name that [`sweep`] looks for only when it is locked, so no other process can take it for an abandoned one.
fn locked_folder() -> io::Result<(PathBuf, File)> {
    let unlocked = tempfile::Builder::new().prefix(UNLOCKED_PREFIX).tempdir()?.keep();
    let lock = File::create(unlocked.join(LOCK_FILE))?;
    lock.try_lock()?;
    fs::write(unlocked.join("owner.pid"), process::id().to_string())?;
    let unique = unlocked.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(UNLOCKED_PREFIX));
    let path = env::temp_dir().join(format!("{PREFIX}{}", unique.unwrap_or_default()));
    fs::rename(&unlocked, &path)?;
    Ok((path, lock))
}

/// Removes what tests left behind that could not clean up: their process was killed, so nobody holds their lock.
/// Their servers died with them, but containers outlive containerd by design.
pub fn sweep() {
    let Ok(entries) = fs::read_dir(env::temp_dir()) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let ours = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX));
        let Some(lock) = ours.then(|| File::open(path.join(LOCK_FILE)).ok()).flatten() else { continue };
        if lock.try_lock().is_ok() {
            leftovers::remove(&path);
        }
    }
}

fn file_name_of(test: &str) -> String {
    test.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect()
}

/// Copies regular files only: sockets and pipes have nothing to keep.
fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)?.flatten() {
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_files(&entry.path(), &to.join(entry.file_name()))?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
