//! The open database: its tables, its limits, and what is kept of it in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use countersign_trust::evidence::Gun;
use countersign_trust::name::{Repository, shown};
use countersign_trust::{MAX_EVIDENCE_BYTES, MAX_ROOT_BYTES};
use redb::{Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableHandle as _, WriteTransaction};

use super::file::{Files, failed_read};
use super::record::{self, RecordError};
use super::{Act, Effect, Held, LedgerError, VerifiedImage, grandfathered};
use crate::crash::Step;

/// Which encoding the whole ledger has. Without this table a redb file is somebody else's.
const VERSION: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("countersign-ledger-version");
/// What is held for each repository, by its GUN.
const REPOSITORIES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("repositories");
/// Verified images, by the number of their recording, so that the oldest comes first.
const IMAGES: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("images");
/// What operators have reset, by the number of the act.
const ACTS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("acts");
/// The only key of [`VERSION`].
const VERSION_KEY: &str = "ledger";
/// The only value of [`VERSION`] that this program reads.
const LEDGER_VERSION: &[u8] = b"2";

/// More repositories than one node can run images of. Floors are never evicted, so at the limit new ones are refused.
pub const MAX_REPOSITORIES: u64 = 16_384;
/// Bytes of one repository's entry: what one update may have, the trusted root, and the floors. What is good is never too large.
pub const MAX_REPOSITORY_BYTES: u64 = 52 * 1024 * 1024;
const _: () = assert!(MAX_EVIDENCE_BYTES + MAX_ROOT_BYTES + MAX_FLOORS_BYTES <= MAX_REPOSITORY_BYTES);
/// As many floors as there may be, each of a role with the longest name, and as many names of roles that were published.
const MAX_FLOORS_BYTES: u64 = 10 * 1024 * 1024;
/// Bytes of all repositories' entries together, so that the ledger fills neither the node's disk nor its memory, of which what is
/// held takes three to four times as much. A node runs images of some hundred repositories with some 50 KiB each.
pub const MAX_TOTAL_BYTES: u64 = 256 * 1024 * 1024;
/// Bytes of those that share a pin: half, so that whoever may sign below one does not take the place of all others.
pub const MAX_SHARED_BYTES: u64 = MAX_TOTAL_BYTES / 2;
/// Acts of operators on record; the oldest makes room. Nobody resets a thousand repositories by hand.
pub const MAX_ACTS: usize = 1024;
/// Verified images on record. Kubelet's own image garbage collection keeps far fewer on a node.
pub const MAX_IMAGES: usize = 16_384;
/// Verified images of one repository, so that whoever may push to one cannot evict the records of all others.
pub const MAX_IMAGES_PER_REPOSITORY: usize = 1024;

/// Writes the tables of a new ledger, and what `write` puts into them.
fn initialise(database: &Database, write: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut version = transaction.open_table(VERSION)?;
        version.insert(VERSION_KEY, record::seal(VERSION_KEY.as_bytes(), LEDGER_VERSION).as_slice())?;
        transaction.open_table(REPOSITORIES)?;
        transaction.open_table(IMAGES)?;
        transaction.open_table(ACTS)?;
    }
    write(&transaction)?;
    transaction.commit()?;
    Ok(())
}

fn full(what: &'static str, size: u64, limit: u64, largest: Option<String>) -> LedgerError {
    LedgerError::Full { what, size, limit, largest }
}

/// What a ledger is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be written soon and often: what stands in the way of a write is known at once.
    Keep,
    /// To be looked at, and mostly not written: the disk is touched by the first write.
    Look,
}

/// Where the open database is.
#[derive(Debug)]
enum Place {
    /// There is none yet; the first write creates it.
    Nowhere,
    /// The file, with what redb would write to it in memory.
    Overlay(Database),
    /// The file.
    Disk(Database),
    /// The file, which is not open. It is there, so that nothing may be taken for absent.
    Closed,
}

/// A repository with its new entry, or with none from now on.
type Change = (String, Option<Vec<u8>>);

/// An open ledger.
#[derive(Debug)]
pub(super) struct Store {
    files: Arc<Files>,
    place: Place,
    /// Every repository on record with the bytes of its entry. A name that stands here and is not found on disk is
    /// damage, not a first contact.
    pub(super) sizes: BTreeMap<String, u64>,
    images: BTreeMap<u64, VerifiedImage>,
    numbers: HashMap<VerifiedImage, u64>,
}

impl Store {
    /// Opens the ledger. On first use there is none: it is created now, or by the first write.
    pub(super) fn open(files: &Arc<Files>, purpose: Purpose) -> Result<Self, LedgerError> {
        match (purpose, files.is_first_use()?) {
            (Purpose::Look, true) => return Ok(Self::new(files, Place::Nowhere)),
            (Purpose::Keep, true) => files.create(|database| initialise(database, |_| Ok(())))?,
            (Purpose::Look | Purpose::Keep, false) => {}
        }
        Self::open_existing(files, purpose)
    }

    /// Opens and checks the database, which exists, and reads what is kept in memory.
    pub(super) fn open_existing(files: &Arc<Files>, purpose: Purpose) -> Result<Self, LedgerError> {
        let place = match purpose {
            Purpose::Look => Place::Overlay(files.open_to_look()?),
            Purpose::Keep => Place::Disk(files.open()?),
        };
        let mut store = Self::new(files, place);
        store.refuse_other_versions()?;
        store.load_sizes()?;
        store.load_images()?;
        Ok(store)
    }

    fn new(files: &Arc<Files>, place: Place) -> Self {
        Self { files: Arc::clone(files), place, sizes: BTreeMap::new(), images: BTreeMap::new(), numbers: HashMap::new() }
    }

    /// Whether it must be opened anew to be used again, after a call that ended so.
    pub(super) fn is_spent(&self, ended: Result<(), &LedgerError>) -> bool {
        match self.place {
            // What was not created yet has nothing to be opened anew.
            Place::Nowhere => false,
            Place::Closed => true,
            Place::Overlay(_) | Place::Disk(_) => ended.is_err_and(LedgerError::needs_reopening),
        }
    }

    fn refuse_other_versions(&self) -> Result<(), LedgerError> {
        let found = self.lookup(VERSION, VERSION_KEY)?;
        let Some(sealed) = found else { return Err(self.unreadable("it has no version", None)) };
        let version = record::open(VERSION_KEY.as_bytes(), &sealed).map_err(|why| self.damaged("the version", &why))?;
        if version == LEDGER_VERSION {
            return Ok(());
        }
        let version = shown(&String::from_utf8_lossy(version));
        Err(self.unreadable(format!("it is of version {version}, which this program does not know"), None))
    }

    fn load_sizes(&mut self) -> Result<(), LedgerError> {
        let mut sizes = BTreeMap::new();
        self.each(REPOSITORIES, |gun, sealed| {
            sizes.insert(gun.to_owned(), sealed.len() as u64);
            Ok(())
        })?;
        self.sizes = sizes;
        Ok(())
    }

    fn load_images(&mut self) -> Result<(), LedgerError> {
        let mut images = BTreeMap::new();
        self.each(IMAGES, |number, sealed| {
            let image = record::open(&number.to_be_bytes(), sealed).and_then(record::decode_image);
            images.insert(number, image.map_err(|why| self.damaged(&format!("verified image {number}"), &why))?);
            Ok(())
        })?;
        self.numbers = images.iter().map(|(number, image)| (image.clone(), *number)).collect();
        self.images = images;
        Ok(())
    }

    /// What is held for `gun`.
    pub(super) fn repository(&self, gun: &str) -> Result<Option<Held>, LedgerError> {
        if !self.sizes.contains_key(gun) {
            return Ok(None);
        }
        match self.lookup(REPOSITORIES, gun)? {
            Some(sealed) => self.held(gun, &sealed).map(Some),
            None => Err(self.unreadable(format!("the entry of repository `{}` is gone", shown(gun)), None)),
        }
    }

    /// Everything that is held.
    pub(super) fn repositories(&self) -> Result<Vec<(Gun, Held)>, LedgerError> {
        let mut all = Vec::with_capacity(self.sizes.len());
        self.each(REPOSITORIES, |gun, sealed| {
            let held = self.held(gun, sealed)?;
            all.push((held.evidence.gun().clone(), held));
            Ok(())
        })?;
        if all.len() == self.sizes.len() { Ok(all) } else { Err(self.unreadable("entries of repositories are gone", None)) }
    }

    fn held(&self, gun: &str, sealed: &[u8]) -> Result<Held, LedgerError> {
        record::open(gun.as_bytes(), sealed)
            .and_then(|payload| record::decode_held(gun, payload))
            .map_err(|why| self.damaged(&format!("the entry of repository `{}`", shown(gun)), &why))
    }

    /// Records an accepted refresh, of a repository that shares its pin with those that `shares` says.
    pub(super) fn store_repository(&mut self, held: &Held, shares: &dyn Fn(&str) -> bool) -> Result<(), LedgerError> {
        let gun = held.evidence.gun().as_str();
        let payload = record::encode_held(held);
        let size = (payload.len() + record::SEAL_BYTES) as u64;
        self.refuse_over_limits(gun, size, shares)?;
        let sealed = record::seal(gun.as_bytes(), &payload);
        self.commit(Step::RefreshCommitted, |transaction| {
            transaction.open_table(REPOSITORIES)?.insert(gun, sealed.as_slice())?;
            Ok(())
        })?;
        self.sizes.insert(gun.to_owned(), size);
        Ok(())
    }

    /// Records an operator's act together with what it does.
    pub(super) fn store_act(&mut self, act: &Act, effect: &Effect) -> Result<(), LedgerError> {
        let acts = self.acts()?;
        let number = acts.last().map_or(0, |(last, _)| last.saturating_add(1));
        let evicted = (acts.len() >= MAX_ACTS).then(|| acts.first().map(|(first, _)| *first)).flatten();
        let sealed = record::seal(&number.to_be_bytes(), &record::encode_act(act));
        let changes = self.changes(effect)?;
        self.refuse_too_many_grandfathered(effect)?;
        self.commit(Step::RefreshCommitted, |transaction| {
            grandfathered::write(transaction, effect)?;
            let mut table = transaction.open_table(ACTS)?;
            table.insert(number, sealed.as_slice())?;
            if let Some(evicted) = evicted {
                table.remove(evicted)?;
            }
            let mut repositories = transaction.open_table(REPOSITORIES)?;
            for (gun, entry) in &changes {
                match entry {
                    Some(sealed) => drop(repositories.insert(gun.as_str(), sealed.as_slice())?),
                    None => drop(repositories.remove(gun.as_str())?),
                }
            }
            Ok(())
        })?;
        for (gun, entry) in changes {
            match entry {
                Some(sealed) => drop(self.sizes.insert(gun, sealed.len() as u64)),
                None => drop(self.sizes.remove(&gun)),
            }
        }
        Ok(())
    }

    /// What an act changes: repositories with their new entries, or none.
    fn changes(&self, effect: &Effect) -> Result<Vec<Change>, LedgerError> {
        let sealed = |held: &Held| record::seal(held.evidence.gun().as_str().as_bytes(), &record::encode_held(held));
        Ok(match effect {
            Effect::Admit(_) | Effect::End(_) => Vec::new(),
            Effect::Forget(gun) => vec![(gun.as_str().to_owned(), None)],
            Effect::Replace(held) => vec![(held.evidence.gun().as_str().to_owned(), Some(sealed(held)))],
            Effect::ClockNotAfter(moment) => {
                let later = self.repositories()?.into_iter().filter(|(_, held)| held.checked_at > *moment);
                later.map(|(gun, held)| (gun.as_str().to_owned(), Some(sealed(&Held { checked_at: *moment, ..held })))).collect()
            }
        })
    }

    /// Every act on record with its number, oldest first.
    pub(super) fn acts(&self) -> Result<Vec<(u64, Act)>, LedgerError> {
        let mut acts = Vec::new();
        self.each(ACTS, |number, sealed| {
            let act = record::open(&number.to_be_bytes(), sealed).and_then(record::decode_act);
            acts.push((number, act.map_err(|why| self.damaged(&format!("act {number}"), &why))?));
            Ok(())
        })?;
        Ok(acts)
    }

    fn refuse_over_limits(&self, gun: &str, size: u64, shares: &dyn Fn(&str) -> bool) -> Result<(), LedgerError> {
        let others = || self.sizes.iter().filter(|(other, _)| *other != gun);
        let count = others().count() as u64 + 1;
        let total = others().map(|(_, size)| size).sum::<u64>().saturating_add(size);
        // Who shares a pin is looked at only where it can matter.
        let sharing = || others().filter(|(other, _)| shares(other));
        let shared = if total > MAX_SHARED_BYTES { sharing().map(|(_, size)| size).sum::<u64>().saturating_add(size) } else { size };
        let largest = |(gun, _): (&String, &u64)| gun.clone();
        if size > MAX_REPOSITORY_BYTES {
            return Err(full("the bytes held for this repository", size, MAX_REPOSITORY_BYTES, None));
        }
        // What takes no more room than before is always taken: it may say that something was taken back.
        if self.sizes.get(gun).is_some_and(|before| size <= *before) {
            return Ok(());
        }
        if count > MAX_REPOSITORIES {
            return Err(full("the number of repositories", count, MAX_REPOSITORIES, others().max_by_key(|(_, size)| **size).map(largest)));
        }
        if shared > MAX_SHARED_BYTES {
            let largest = sharing().max_by_key(|(_, size)| **size).map(largest);
            return Err(full("the bytes held for all repositories below one pin", shared, MAX_SHARED_BYTES, largest));
        }
        if total > MAX_TOTAL_BYTES {
            let largest = others().max_by_key(|(_, size)| **size).map(largest);
            return Err(full("the bytes held for all repositories", total, MAX_TOTAL_BYTES, largest));
        }
        Ok(())
    }

    /// Whether exactly this image is on record.
    pub(super) fn has_image(&self, image: &VerifiedImage) -> bool {
        self.numbers.contains_key(image)
    }

    /// Every image on record, oldest first.
    pub(super) fn images(&self) -> Vec<VerifiedImage> {
        self.images.values().cloned().collect()
    }

    /// Records a verified image; false if it is already on record.
    pub(super) fn store_image(&mut self, image: &VerifiedImage) -> Result<bool, LedgerError> {
        if self.has_image(image) {
            return Ok(false);
        }
        let number = self.images.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
        let evicted = self.evicted_for(&image.repository);
        let sealed = record::seal(&number.to_be_bytes(), &record::encode_image(image));
        self.commit(Step::PullImageCommitted, |transaction| {
            let mut table = transaction.open_table(IMAGES)?;
            table.insert(number, sealed.as_slice())?;
            if let Some(evicted) = evicted {
                table.remove(evicted)?;
            }
            Ok(())
        })?;
        self.remember(number, image);
        if let Some(gone) = evicted.and_then(|evicted| self.images.remove(&evicted)) {
            self.numbers.remove(&gone);
        }
        Ok(true)
    }

    /// Keeps in memory what is on disk.
    pub(super) fn remember(&mut self, number: u64, image: &VerifiedImage) {
        self.images.insert(number, image.clone());
        self.numbers.insert(image.clone(), number);
    }

    /// The record that makes room for one more of `repository`: its own oldest if it has its share.
    fn evicted_for(&self, repository: &Repository) -> Option<u64> {
        let mut own = self.images.iter().filter(|(_, image)| image.repository == *repository).map(|(number, _)| *number);
        let oldest = own.next();
        if own.count() + 1 >= MAX_IMAGES_PER_REPOSITORY {
            return oldest;
        }
        let is_full = self.images.len() >= MAX_IMAGES;
        if is_full { self.images.first_key_value().map(|(number, _)| *number) } else { None }
    }

    /// Commits what `write` does, with redb's immediate durability, and then once more with nothing in it.
    ///
    /// redb keeps two commits in the file and takes the older one when the newer is damaged. After the second
    /// commit both hold what was just written, so whichever is taken, no floor is rolled back. `between` is reached
    /// after the first.
    pub(super) fn commit(
        &mut self,
        between: Step,
        write: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), LedgerError> {
        let database = match &self.place {
            Place::Disk(database) => database,
            Place::Nowhere => return self.create(write),
            Place::Overlay(_) | Place::Closed => {
                self.place = Place::Closed;
                *self = Self::open_existing(&self.files, Purpose::Keep)?;
                return self.commit(between, write);
            }
        };
        let committed = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            write(&transaction)?;
            transaction.commit()?;
            between.reached();
            database.begin_write()?.commit()?;
            Ok(())
        };
        committed().map_err(|error| {
            if matches!(error, redb::Error::Corrupted(_)) {
                return failed_read(self.files.path(), error);
            }
            LedgerError::Write { path: self.files.path().to_owned(), source: Box::new(error) }
        })
    }

    /// Commits what `write` does as the first thing of a new ledger, which has no older commit.
    fn create(&mut self, write: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>) -> Result<(), LedgerError> {
        self.files.create(|database| initialise(database, write))?;
        self.place = Place::Closed;
        Ok(())
    }

    /// None if there is no database yet.
    fn begin_read(&self) -> Result<Option<ReadTransaction>, redb::Error> {
        match &self.place {
            Place::Nowhere => Ok(None),
            Place::Overlay(database) | Place::Disk(database) => Ok(Some(database.begin_read()?)),
            Place::Closed => Err(redb::Error::DatabaseClosed),
        }
    }

    fn lookup(&self, table: TableDefinition<'static, &str, &[u8]>, key: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        let found = || -> Result<Option<Vec<u8>>, redb::Error> {
            let Some(transaction) = self.begin_read()? else { return Ok(None) };
            let table = transaction.open_table(table)?;
            Ok(table.get(key)?.map(|value| value.value().to_owned()))
        };
        found().map_err(|error| self.failed_read(error))
    }

    /// Calls `visit` with every entry of `table`, in the order of keys.
    fn each<K: redb::Key + 'static>(
        &self,
        table: TableDefinition<'static, K, &'static [u8]>,
        visit: impl FnMut(K::SelfType<'_>, &[u8]) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        self.each_unless(|_| false, table, visit)
    }

    /// As [`Self::each`], of a table that a ledger may not have yet.
    pub(super) fn each_if_any<K: redb::Key + 'static>(
        &self,
        table: TableDefinition<'static, K, &'static [u8]>,
        visit: impl FnMut(K::SelfType<'_>, &[u8]) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        self.each_unless(|error| matches!(error, redb::TableError::TableDoesNotExist(_)), table, visit)
    }

    fn each_unless<K: redb::Key + 'static>(
        &self,
        is_empty: impl Fn(&redb::TableError) -> bool,
        table: TableDefinition<'static, K, &'static [u8]>,
        mut visit: impl FnMut(K::SelfType<'_>, &[u8]) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let opened = || -> Result<_, redb::Error> {
            let Some(transaction) = self.begin_read()? else { return Ok(None) };
            match transaction.open_table(table) {
                Err(error) if is_empty(&error) => Ok(None),
                opened => Ok(Some(opened?)),
            }
        };
        let Some(table) = opened().map_err(|error| self.failed_read(error))? else { return Ok(()) };
        let entries = table.iter().map_err(|error| self.failed_read(error.into()))?;
        for entry in entries {
            let (key, value) = entry.map_err(|error| self.failed_read(error.into()))?;
            visit(key.value(), value.value())?;
        }
        Ok(())
    }

    fn failed_read(&self, error: redb::Error) -> LedgerError {
        if matches!(&error, redb::Error::TableDoesNotExist(table) if table == VERSION.name()) {
            return self.unreadable("it is a database of another kind", Some(error));
        }
        failed_read(self.files.path(), error)
    }

    pub(super) fn damaged(&self, entry: &str, why: &RecordError) -> LedgerError {
        self.unreadable(format!("{entry}: {why}"), None)
    }

    fn unreadable(&self, what: impl Into<String>, source: Option<redb::Error>) -> LedgerError {
        LedgerError::Unreadable { path: self.files.path().to_owned(), what: what.into(), source: source.map(Box::new) }
    }
}
