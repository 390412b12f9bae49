//! Exchanging the configuration while calls are served, and the last one that was good.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use countersign_trust::name::Sha256;

use super::observe::keep_policy;
use super::{StartError, policy};
use crate::admit::{Admit, chain};
use crate::audit::Archive;
use crate::config::{Config, ConfigErrors};

/// The last configuration that was in force, in the state directory.
const LAST_GOOD: &str = "config.last-good.toml";
const UNFINISHED: &str = "config.last-good.toml.new";
/// Only root reads what this node trusts.
const MODE: u32 = 0o600;

/// Why the configuration was not exchanged. The one in force stays.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file is bad.
    #[error("the configuration was not reloaded, and the one in force stays: {0}")]
    Bad(ConfigErrors),
    /// The file says what a running daemon cannot change.
    #[error("the configuration was not reloaded, and the one in force stays: `{0}` cannot change while countersign runs: restart it")]
    NeedsRestart(&'static str),
    /// What the file names cannot be used.
    #[error("the configuration was not reloaded, and the one in force stays: {}", chain(.0))]
    Unusable(StartError),
}

/// The configuration in force, and where the next one is read.
#[derive(Debug)]
pub struct Reloading {
    path: PathBuf,
    admit: Arc<Admit>,
    archive: Option<Arc<Archive>>,
    in_force: Mutex<InForce>,
}

/// What is in force, and whether a restart would find it.
#[derive(Debug)]
struct InForce {
    config: Config,
    is_kept: bool,
}

impl InForce {
    fn new(config: Config) -> Self {
        let is_kept = keep(&config);
        Self { config, is_kept }
    }
}

impl Reloading {
    /// `config`, which was read at `path`, is in force in `admit`. Each that is in force is kept in `archive`, for decisions that
    /// are made under it.
    #[must_use]
    pub fn new(path: PathBuf, config: Config, admit: Arc<Admit>, archive: Option<Arc<Archive>>) -> Self {
        Self { path, admit, archive, in_force: Mutex::new(InForce::new(config)) }
    }

    /// Reads the file again and puts what it says in force, all of it or nothing. Gives back its name. Waits for the disk.
    ///
    /// # Errors
    /// [`ReloadError`].
    pub fn reload(&self) -> Result<Sha256, ReloadError> {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.next(&in_force.config);
        match &next {
            Ok((config, _)) => {
                tracing::info!(policy = %config.digest, mode = %config.policy.mode, before = %in_force.config.digest, "the configuration was reloaded")
            }
            Err(error) => {
                tracing::error!(error = chain(error), policy = %in_force.config.digest, "the configuration was not reloaded");
                // A full disk may have refused it before, and a restart that finds this bad file needs it.
                in_force.is_kept = keep(&in_force.config);
            }
        }
        let (config, policy) = next?;
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        if let Some(archive) = &self.archive {
            keep_policy(archive, &config);
        }
        self.admit.adopt(policy);
        let digest = config.digest;
        *in_force = InForce::new(config);
        Ok(digest)
    }

    /// Keeps the configuration in force, if it is not kept, for a restart that finds a bad file: a full disk may have refused it,
    /// and whoever makes room does not think of a reload. Waits for the disk.
    pub fn keep_again(&self) {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        if in_force.is_kept {
            return;
        }
        // That it could not be kept was said when it was put in force.
        in_force.is_kept = write_or_forget(&in_force.config.state_directory, in_force.config.text()).is_ok();
    }

    fn next(&self, in_force: &Config) -> Result<(Config, crate::admit::Policy), ReloadError> {
        let config = Config::load(&self.path).map_err(ReloadError::Bad)?;
        let fixed = [
            ("listen", config.listen == in_force.listen),
            ("containerd.address", config.containerd.address == in_force.containerd.address),
            ("watch.on-bypass", config.on_bypass == in_force.on_bypass),
            ("state.directory", config.state_directory == in_force.state_directory),
            ("audit", config.audit == in_force.audit),
            ("metrics.listen", config.metrics == in_force.metrics),
            ("store", config.store == in_force.store),
        ];
        if let Some((key, _)) = fixed.into_iter().find(|(_, is_same)| !is_same) {
            return Err(ReloadError::NeedsRestart(key));
        }
        let policy = policy(&config).map_err(ReloadError::Unusable)?;
        Ok((config, policy))
    }
}

/// Keeps the configuration for a restart that finds the file bad, and tells whether it is kept. That it cannot be changes nothing
/// now.
fn keep(config: &Config) -> bool {
    let written = write_or_forget(&config.state_directory, config.text());
    if let Err(error) = &written {
        tracing::warn!(%error, "the configuration in force could not be kept: until it is, a restart needs a good file");
    }
    written.is_ok()
}

/// What cannot be kept does not leave an older one in its place: that may trust whom the operator has taken out since. To
/// remove a file needs no room on the disk.
fn write_or_forget(directory: &Path, text: &str) -> std::io::Result<()> {
    let written = write(directory, text);
    if written.is_err() {
        for name in [LAST_GOOD, UNFINISHED] {
            remove(&directory.join(name))?;
        }
    }
    written
}

fn remove(file: &Path) -> std::io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn write(directory: &Path, text: &str) -> std::io::Result<()> {
    let (kept, unfinished) = (directory.join(LAST_GOOD), directory.join(UNFINISHED));
    if fs::read_to_string(&kept).is_ok_and(|kept| kept == text) {
        return Ok(());
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, &kept)
}

/// The configuration that was in force last, when the file at `path` is bad. It is looked for where that file, as far as it can
/// be read, says that the state is. None: there is none, or it is not good any more.
#[must_use]
pub fn last_good(path: &Path) -> Option<Config> {
    let kept = Config::state_directory_of(path).join(LAST_GOOD);
    let text = crate::config::read_text_file(&kept, crate::config::MAX_CONFIG_BYTES).ok()?;
    Config::parse(&text, path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_kept_leaves_no_older_configuration_to_go_on_with() {
        let folder = tempfile::tempdir().unwrap();
        write_or_forget(folder.path(), "older").unwrap();
        assert_eq!(fs::read_to_string(folder.path().join(LAST_GOOD)).unwrap(), "older");

        // The device that is always full, in place of a disk that is.
        std::os::unix::fs::symlink("/dev/full", folder.path().join(UNFINISHED)).unwrap();
        let full = write_or_forget(folder.path(), "newer").unwrap_err();

        assert_eq!(full.kind(), ErrorKind::StorageFull);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "neither the older one nor half of the newer");
        write_or_forget(folder.path(), "newer").unwrap();
        assert_eq!(fs::read_to_string(folder.path().join(LAST_GOOD)).unwrap(), "newer");
    }
}
