//! The ledger: what this node has verified, on disk.
//!
//! It holds, for each repository, the trusted root, the floors and the evidence of the last accepted refresh, and
//! every image that was verified. Floors are what stops a rollback, so three rules are kept here: what cannot be
//! read is never "absent"; a floor is never evicted; and a write that was answered with `Ok` is on the disk.
//!
//! Every call blocks on the disk: call from a blocking thread.

mod error;
mod file;
mod grandfathered;
mod overlay;
mod record;
mod store;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use countersign_trust::evidence::{Evidence, Gun};
use countersign_trust::known::Known;
use countersign_trust::name::{ChainId, ImageId, ManifestDigest, Repository};

pub use error::LedgerError;
use file::Files;
pub use grandfathered::{Grandfathered, MAX_GRANDFATHERED, MAX_MODES, MAX_RAN_VOLUMES, RanContent, RanVolume, Workload};
pub use store::{
    MAX_ACTS, MAX_IMAGES, MAX_IMAGES_PER_REPOSITORY, MAX_REPOSITORIES, MAX_REPOSITORY_BYTES, MAX_SHARED_BYTES, MAX_TOTAL_BYTES,
};
use store::{Purpose, Store};

/// What is held for one repository since its last accepted refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The trusted root and the floors.
    pub known: Known,
    /// What was fetched. It names the repository.
    pub evidence: Evidence,
    /// When the refresh was accepted, in seconds since the Unix epoch.
    pub checked_at: u64,
    /// Whether this node had it from the repository's server, or from its operator; else another node of the cluster had.
    pub is_own: bool,
}

impl Held {
    /// As bytes that are read only whole, unchanged and for the same repository ([`Held::unseal`]).
    #[must_use]
    pub fn seal(&self) -> Vec<u8> {
        record::seal(self.evidence.gun().as_str().as_bytes(), &record::encode_held(self))
    }

    /// Reads [`Held::seal`]'s bytes; None for anything else.
    #[must_use]
    pub fn unseal(gun: &Gun, sealed: &[u8]) -> Option<Self> {
        let payload = record::open(gun.as_str().as_bytes(), sealed).ok()?;
        record::decode_held(gun.as_str(), payload).ok()
    }
}

/// An image that was verified here: what a signature names, and what it means on a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerifiedImage {
    /// The repository whose signature names it.
    pub repository: Repository,
    /// The digest that the signature names: of an index or of a manifest.
    pub digest: ManifestDigest,
    /// The digest of its config: containerd's image ID.
    pub image_id: ImageId,
    /// The root file system that it has: the chain ID of its layers.
    pub chain_id: ChainId,
}

/// Something that an operator has made this node forget. It stays on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// When, in seconds since the Unix epoch.
    pub at: u64,
    /// Who, as far as the system knows.
    pub by: String,
    /// What was forgotten.
    pub what: String,
    /// Why, in the operator's words.
    pub reason: String,
}

/// What an act does.
#[derive(Debug)]
pub enum Effect {
    /// These containers may be made again by their pods. One of the same workload is replaced.
    Admit(Vec<Grandfathered>),
    /// These workloads may not be made again any more.
    End(Vec<Workload>),
    /// Nothing is known of this repository any more.
    Forget(Gun),
    /// This is known of the repository from now on.
    Replace(Arc<Held>),
    /// Nothing was found good later than at this moment, in seconds since the Unix epoch.
    ClockNotAfter(u64),
}

/// The ledger of this node. Clones share one open file; every method may be called from any thread.
#[derive(Debug, Clone)]
pub struct Ledger(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    files: Arc<Files>,
    purpose: Purpose,
    /// None after the disk failed: the next call opens the file anew, since redb refuses every call after an I/O error.
    store: RwLock<Option<Store>>,
}

impl Ledger {
    /// Opens the ledger in `directory`, which must exist; on first use the ledger is created in it. The directory
    /// holds nothing else.
    ///
    /// # Errors
    /// [`LedgerError`]: the directory is missing, another process has the ledger open, it is not what was written
    /// (an empty file too), or the disk failed.
    pub fn open(directory: &Path) -> Result<Self, LedgerError> {
        Self::open_for(Purpose::Keep, directory)
    }

    /// Opens the ledger for a command that mostly finds there what it needs: as [`Ledger::open`], but on the disk nothing is
    /// written, or waited for, before there is something to record. What only a write can find out is found out then.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub fn open_to_look(directory: &Path) -> Result<Self, LedgerError> {
        Self::open_for(Purpose::Look, directory)
    }

    fn open_for(purpose: Purpose, directory: &Path) -> Result<Self, LedgerError> {
        let files = Arc::new(Files::lock(directory)?);
        files.remove_leftover()?;
        let store = Store::open(&files, purpose)?;
        Ok(Self(Arc::new(Shared { files, purpose, store: RwLock::new(Some(store)) })))
    }

    /// What is held for `gun`; None if this node has never accepted anything for it.
    ///
    /// # Errors
    /// [`LedgerError::Unreadable`], naming the repository, if its entry is not what was written.
    pub fn repository(&self, gun: &Gun) -> Result<Option<Held>, LedgerError> {
        self.0.read(|store| store.repository(gun.as_str()))
    }

    /// Everything that is held, for warming at start. In the order of names.
    ///
    /// # Errors
    /// [`LedgerError::Unreadable`] for the first entry that is not what was written.
    pub fn repositories(&self) -> Result<Vec<(Gun, Held)>, LedgerError> {
        self.0.read(Store::repositories)
    }

    /// Records an accepted refresh: known state, evidence and time, in one transaction, for the repository that the
    /// evidence names. `shares` tells which others have the same pin: they have a limit of their own together.
    ///
    /// # Errors
    /// [`LedgerError::Write`] if the disk did not take it, [`LedgerError::Full`] if a limit would be passed.
    pub fn store_repository(&self, held: &Held, shares: &dyn Fn(&str) -> bool) -> Result<(), LedgerError> {
        self.0.write(|store| store.store_repository(held, shares))
    }

    /// Records an operator's act and does what it says, in one transaction.
    ///
    /// # Errors
    /// [`LedgerError::Write`] if the disk did not take it; then nothing was done.
    pub fn store_act(&self, act: &Act, effect: &Effect) -> Result<(), LedgerError> {
        self.0.write(|store| store.store_act(act, effect))
    }

    /// Every act on record, oldest first.
    ///
    /// # Errors
    /// [`LedgerError::Unreadable`] for the first entry that is not what was written.
    pub fn acts(&self) -> Result<Vec<Act>, LedgerError> {
        Ok(self.0.read(Store::acts)?.into_iter().map(|(_, act)| act).collect())
    }

    /// Every container that may be made again since it ran before its image was enforced.
    ///
    /// # Errors
    /// [`LedgerError::Unreadable`] for the first entry that is not what was written.
    pub fn grandfathered(&self) -> Result<Vec<Grandfathered>, LedgerError> {
        self.0.read(Store::grandfathered)
    }

    /// What every configuration that was in force here said of modes, as [`Ledger::store_modes`] was given it.
    ///
    /// # Errors
    /// [`LedgerError::Unreadable`] for the first entry that is not what was written.
    pub fn modes(&self) -> Result<Vec<String>, LedgerError> {
        self.0.read(Store::modes)
    }

    /// Records what the configuration in force says of modes, and the containers that may be made again though it enforces their
    /// images, in one transaction.
    ///
    /// # Errors
    /// [`LedgerError::Write`] if the disk did not take it, [`LedgerError::Full`] if a limit would be passed.
    pub fn store_modes(&self, modes: &str, grandfathered: &[Grandfathered]) -> Result<(), LedgerError> {
        self.0.write(|store| store.store_modes(modes, grandfathered))
    }

    /// Every verified image on record, oldest first.
    ///
    /// # Errors
    /// [`LedgerError::Read`] if the file had to be opened anew and could not be.
    pub fn images(&self) -> Result<Vec<VerifiedImage>, LedgerError> {
        self.0.read(|store| Ok(store.images()))
    }

    /// Records a verified image. False, and nothing is written, if it is already on record. At the limits the
    /// oldest record makes room: an image without a record is verified again when it is next used.
    ///
    /// # Errors
    /// [`LedgerError::Write`] if the disk did not take it.
    pub fn store_image(&self, image: &VerifiedImage) -> Result<bool, LedgerError> {
        if self.0.read(|store| Ok(store.has_image(image)))? {
            return Ok(false);
        }
        self.0.write(|store| store.store_image(image))
    }
}

impl Shared {
    fn read<T>(&self, call: impl Fn(&Store) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let answer = self.shared_guard().as_ref().map(&call);
        match answer {
            Some(Err(error)) if error.needs_reopening() => {
                *self.guard() = None;
                Err(error)
            }
            Some(answer) => answer,
            None => self.write(|store| call(store)),
        }
    }

    fn write<T>(&self, call: impl FnOnce(&mut Store) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let mut guard = self.guard();
        let store = match guard.as_mut() {
            Some(store) => store,
            None => guard.insert(Store::open_existing(&self.files, self.purpose)?),
        };
        let answer = call(store);
        if store.is_spent(answer.as_ref().map(|_| ())) {
            *guard = None;
        }
        answer
    }

    fn shared_guard(&self) -> RwLockReadGuard<'_, Option<Store>> {
        if self.store.is_poisoned() {
            drop(self.guard());
        }
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic in the middle of a call leaves what is in memory in doubt, so the file is opened anew.
    fn guard(&self) -> RwLockWriteGuard<'_, Option<Store>> {
        self.store.write().unwrap_or_else(|poisoned| {
            let mut guard = poisoned.into_inner();
            *guard = None;
            self.store.clear_poison();
            guard
        })
    }
}
