//! Things kept by the hash of what they say, for a while: a folder with a bound, and a share of it for each tenant.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use countersign_trust::name::Sha256;
use rustix::fs::OFlags;

/// Only root reads it.
const MODE: u32 = 0o600;
/// What is being written has this name until it is whole.
const UNFINISHED: &str = "unfinished";
/// Things that are listed at the start. More than any limit allows, so that somebody else's folder is not read for ever.
const MOST_LISTED: usize = 65_536;

/// Names of too long things that are kept in mind.
const MOST_TOO_LONG: usize = 1024;

/// What a store may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of all.
    pub(super) bytes: u64,
    /// Bytes of one tenant's.
    pub(super) bytes_of_tenant: u64,
    /// Number of all.
    pub(super) count: usize,
    /// Number of one tenant's.
    pub(super) count_of_tenant: usize,
    /// Bytes of one thing. What is longer is not kept.
    pub(super) bytes_of_one: u64,
}

/// Whose a thing is, as part of its file's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Tenant(String);

impl Tenant {
    /// Hexadecimal digits of the name's hash: enough that nobody is another's by chance, and no more is lost than a share.
    const DIGITS: usize = 16;

    pub(super) fn of(name: &str) -> Self {
        Self(Sha256::of(name.as_bytes()).to_hex().chars().take(Self::DIGITS).collect())
    }
}

#[derive(Debug, Clone)]
struct Kept {
    tenant: Tenant,
    hash: Sha256,
    bytes: u64,
}

/// What is in the folder, oldest first by number.
#[derive(Debug, Default)]
struct Index {
    kept: BTreeMap<u64, Kept>,
    numbers: HashMap<Sha256, u64>,
    bytes: u64,
    /// What is too long to be kept, so that nobody tries again and again.
    too_long: BTreeSet<Sha256>,
}

/// A folder of things.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    limits: Limits,
    index: Mutex<Index>,
}

impl Store {
    /// Takes up what is in `directory`, which must exist.
    pub(super) fn open(directory: PathBuf, limits: Limits) -> io::Result<Self> {
        let mut found: Vec<(SystemTime, Kept)> = Vec::new();
        for entry in fs::read_dir(&directory)?.take(MOST_LISTED) {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let Some((tenant, hash)) = entry.file_name().to_str().and_then(read_name) else { continue };
            found.push((metadata.modified()?, Kept { tenant, hash, bytes: metadata.len() }));
        }
        found.sort_by_key(|(modified, kept)| (*modified, kept.hash));
        let mut index = Index::default();
        found.into_iter().for_each(|(_, kept)| index.add(kept));
        let store = Self { directory, limits, index: Mutex::new(index) };
        store.make_room(&mut store.index());
        Ok(store)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn has(&self, hash: &Sha256) -> bool {
        self.index().numbers.contains_key(hash)
    }

    /// Whether there is nothing to be done for what is named so: it is kept, or is known to be too long.
    pub(super) fn is_settled(&self, hash: &Sha256) -> bool {
        let index = self.index();
        index.numbers.contains_key(hash) || index.too_long.contains(hash)
    }

    /// Keeps `content` under `hash`, which is the caller's name for it. Nothing happens if it is kept already, or too long.
    pub(super) fn keep(&self, tenant: &Tenant, hash: Sha256, content: &[u8]) -> io::Result<()> {
        let bytes = content.len() as u64;
        let mut index = self.index();
        if bytes > self.limits.bytes_of_one {
            if index.too_long.len() >= MOST_TOO_LONG {
                index.too_long.clear();
            }
            index.too_long.insert(hash);
            return Ok(());
        }
        if index.numbers.contains_key(&hash) {
            return Ok(());
        }
        let unfinished = self.directory.join(UNFINISHED);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(MODE).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let written = options.open(&unfinished).and_then(|mut file| file.write_all(content));
        // No `fsync`: what a power cut leaves of it is noticed when it is read, by its hash.
        let written = written.and_then(|()| fs::rename(&unfinished, self.path(tenant, &hash)));
        if let Err(error) = written {
            // On a full disk the half of it would stay in the way.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        index.add(Kept { tenant: tenant.clone(), hash, bytes });
        self.make_room(&mut index);
        Ok(())
    }

    /// What is kept under `hash`, as it was written or as the disk gives it now: the caller compares.
    pub(super) fn get(&self, hash: &Sha256) -> io::Result<Option<Vec<u8>>> {
        let path = {
            let index = self.index();
            let Some(kept) = index.numbers.get(hash).and_then(|number| index.kept.get(number)) else { return Ok(None) };
            self.path(&kept.tenant, hash)
        };
        let mut content = Vec::new();
        match File::open(path) {
            Ok(file) => file.take(self.limits.bytes_of_one).read_to_end(&mut content)?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(content))
    }

    /// Keeps `content` as the newest, whether it was kept before or not.
    pub(super) fn keep_as_newest(&self, tenant: &Tenant, hash: Sha256, content: &[u8]) -> io::Result<()> {
        {
            let mut index = self.index();
            let number = index.numbers.get(&hash).copied();
            number.and_then(|number| index.remove(number));
        }
        self.keep(tenant, hash, content)
    }

    fn path(&self, tenant: &Tenant, hash: &Sha256) -> PathBuf {
        self.directory.join(format!("{}-{hash}", tenant.0))
    }

    /// Lets go of the oldest of a tenant that has more than its share; then of the oldest of whoever has most.
    fn make_room(&self, index: &mut Index) {
        while let Some(number) = index.too_much(&self.limits) {
            if let Some(kept) = index.remove(number) {
                let _ = fs::remove_file(self.path(&kept.tenant, &kept.hash));
            }
        }
    }
}

impl Index {
    fn add(&mut self, kept: Kept) {
        let number = self.kept.last_key_value().map_or(0, |(number, _)| number + 1);
        self.bytes = self.bytes.saturating_add(kept.bytes);
        self.numbers.insert(kept.hash, number);
        self.kept.insert(number, kept);
    }

    fn remove(&mut self, number: u64) -> Option<Kept> {
        let kept = self.kept.remove(&number)?;
        self.bytes = self.bytes.saturating_sub(kept.bytes);
        self.numbers.remove(&kept.hash);
        Some(kept)
    }

    /// The number of what must go, if anything must.
    fn too_much(&self, limits: &Limits) -> Option<u64> {
        let mut shares: BTreeMap<&Tenant, (u64, usize)> = BTreeMap::new();
        for kept in self.kept.values() {
            let (bytes, count) = shares.entry(&kept.tenant).or_default();
            *bytes = bytes.saturating_add(kept.bytes);
            *count = count.saturating_add(1);
        }
        let over = |(bytes, count): &(u64, usize)| *bytes > limits.bytes_of_tenant || *count > limits.count_of_tenant;
        let greedy = shares.iter().find(|(_, share)| over(share)).or_else(|| {
            let is_full = self.bytes > limits.bytes || self.kept.len() > limits.count;
            if is_full { shares.iter().max_by_key(|(_, share)| **share) } else { None }
        });
        let (tenant, _) = greedy?;
        self.kept.iter().find(|(_, kept)| kept.tenant == **tenant).map(|(number, _)| *number)
    }
}

fn read_name(name: &str) -> Option<(Tenant, Sha256)> {
    let (tenant, hash) = name.split_once('-')?;
    let is_tenant = tenant.len() == Tenant::DIGITS && tenant.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_tenant { Some((Tenant(tenant.to_owned()), Sha256::from_hex(hash).ok()?)) } else { None }
}

/// Makes a folder of our own.
pub(super) fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 100, bytes_of_tenant: 40, count: 20, count_of_tenant: 6, bytes_of_one: 30 };

    fn content(number: u8, bytes: usize) -> (Sha256, Vec<u8>) {
        let content = vec![number; bytes];
        (Sha256::of(&content), content)
    }

    fn keep(store: &Store, tenant: &str, number: u8, bytes: usize) -> Sha256 {
        let (hash, content) = content(number, bytes);
        store.keep(&Tenant::of(tenant), hash, &content).unwrap();
        hash
    }

    #[test]
    fn what_is_kept_is_found_again_also_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_owned(), LIMITS).unwrap();
        let hash = keep(&store, "a", 1, 10);
        fs::write(directory.path().join("somebody-elses"), "x").unwrap();
        for store in [store, Store::open(directory.path().to_owned(), LIMITS).unwrap()] {
            assert!(store.has(&hash));
            assert_eq!(store.get(&hash).unwrap(), Some(vec![1; 10]));
            assert_eq!(store.get(&Sha256::of(b"other")).unwrap(), None);
        }
    }

    #[test]
    fn what_is_too_long_is_not_kept_and_what_is_gone_is_absent() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_owned(), LIMITS).unwrap();
        let long = keep(&store, "a", 1, 31);
        assert!(!store.has(&long) && store.is_settled(&long), "and nobody tries again");
        let hash = keep(&store, "a", 2, 10);
        for entry in fs::read_dir(directory.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        assert_eq!(store.get(&hash).unwrap(), None);
    }

    #[test]
    fn one_tenant_cannot_push_out_what_others_have() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_owned(), LIMITS).unwrap();
        let quiet = keep(&store, "quiet", 1, 20);
        let loud: Vec<Sha256> = (2..30).map(|number| keep(&store, "loud", number, 10)).collect();
        assert!(store.has(&quiet), "somebody else's evidence is still there");
        let left: Vec<&Sha256> = loud.iter().filter(|hash| store.has(hash)).collect();
        assert_eq!(left, loud.iter().rev().take(4).rev().collect::<Vec<_>>(), "the newest of a share of forty bytes");
    }

    #[test]
    fn when_all_is_full_whoever_has_most_lets_go_of_the_oldest() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_owned(), LIMITS).unwrap();
        let small: Vec<Sha256> = (0..3).map(|number| keep(&store, &format!("small-{number}"), number, 20)).collect();
        let big = [keep(&store, "big", 10, 20), keep(&store, "big", 11, 20)];
        let newcomer = keep(&store, "new", 12, 10);
        assert!(small.iter().all(|hash| store.has(hash)) && store.has(&newcomer));
        assert_eq!((store.has(&big[0]), store.has(&big[1])), (false, true));
        let files = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(files, 5, "and its file is gone");
    }

    #[test]
    fn a_disk_that_takes_nothing_leaves_the_store_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_owned(), LIMITS).unwrap();
        let hash = keep(&store, "a", 1, 10);
        fs::create_dir(directory.path().join(UNFINISHED)).unwrap();
        let (other, content) = content(2, 10);
        store.keep(&Tenant::of("a"), other, &content).unwrap_err();
        assert_eq!((store.has(&hash), store.has(&other)), (true, false));
    }
}
