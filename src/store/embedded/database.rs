//! The open database: its tables, its limits, and each call as one transaction.

use std::ops::Bound;

use bytes::Bytes;
use redb::{ReadableDatabase as _, TableDefinition, TableError};

use super::file::StoreFile;
use super::record::Record;
use crate::store::entry::{After, Entry, Expected, Page, Put, Removed, Revision};
use crate::store::error::StoreError;
use crate::store::key::{Key, Prefix};
use crate::store::limits::{MAX_EMBEDDED_BYTES, MAX_EMBEDDED_ENTRIES};

/// The format and the newest revision. Without this table a redb file is somebody else's.
const ABOUT: TableDefinition<'static, &str, u64> = TableDefinition::new("countersign-store");
const ENTRIES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("entries");
const FORMAT_KEY: &str = "format";
const REVISION_KEY: &str = "revision";
/// The only format that this program reads.
const FORMAT: u64 = 1;

/// What a write did.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) key: Key,
    pub(super) revision: u64,
    /// None: it was removed.
    pub(super) value: Option<Bytes>,
}

/// An open store.
#[derive(Debug)]
pub(super) struct Database {
    database: redb::Database,
    file: StoreFile,
    revision: u64,
    entries: u64,
    bytes: u64,
}

fn initialise(database: &redb::Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut about = transaction.open_table(ABOUT)?;
        about.insert(FORMAT_KEY, FORMAT)?;
        about.insert(REVISION_KEY, 0)?;
        transaction.open_table(ENTRIES)?;
    }
    transaction.commit()?;
    Ok(())
}

impl Database {
    /// Opens and checks the database, which is made on first use, and removes what stood under leases: none has outlived the
    /// process that held it.
    pub(super) fn open(file: &StoreFile) -> Result<Self, StoreError> {
        let database = file.open(initialise)?;
        let mut opened = Self { database, file: file.clone(), revision: 0, entries: 0, bytes: 0 };
        opened.load_about()?;
        for (key, _) in opened.load_entries()?.into_iter().filter(|(_, lease)| *lease != 0) {
            opened.write(&key, None)?;
        }
        Ok(opened)
    }

    /// The newest revision.
    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    fn load_about(&mut self) -> Result<(), StoreError> {
        let read = || -> Result<_, redb::Error> {
            let table = match self.database.begin_read()?.open_table(ABOUT) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                opened => opened?,
            };
            Ok(Some((table.get(FORMAT_KEY)?.map(|value| value.value()), table.get(REVISION_KEY)?.map(|value| value.value()))))
        };
        match read().map_err(|error| self.file.failure(&error))? {
            Some((Some(FORMAT), Some(revision))) => {
                self.revision = revision;
                Ok(())
            }
            Some((Some(FORMAT), None)) => Err(self.file.damaged("it has no revision")),
            Some((Some(other), _)) => Err(self.file.damaged(format!("it has format {other}, which this program does not know"))),
            Some((None, _)) | None => Err(self.file.damaged("it is a database of another kind")),
        }
    }

    /// Every key with its lease. Counts the entries.
    fn load_entries(&mut self) -> Result<Vec<(Key, i64)>, StoreError> {
        let mut all = Vec::new();
        let mut bytes = 0;
        self.each(Bound::Unbounded, |key, record| {
            bytes += size(&key, &record.entry.value);
            all.push((key, record.lease));
            true
        })?;
        (self.entries, self.bytes) = (all.len() as u64, bytes);
        Ok(all)
    }

    /// What stands below `key`.
    pub(super) fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.record(key)?.map(|record| record.entry))
    }

    fn record(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(ENTRIES)?;
            Ok(table.get(key.as_str())?.map(|sealed| Record::open(key.as_str(), sealed.value())))
        };
        match read().map_err(|error| self.file.failure(&error))? {
            None => Ok(None),
            Some(Some(record)) => Ok(Some(record)),
            Some(None) => Err(self.file.damaged(format!("the entry of `{key}`"))),
        }
    }

    /// The first entries below `prefix`, or those after a page.
    pub(super) fn list(&self, prefix: &Prefix, after: Option<&After>, limit: usize) -> Result<Page, StoreError> {
        let begin = match after.and_then(|after| std::str::from_utf8(&after.0).ok()) {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix.as_str()),
        };
        let mut entries: Vec<(Key, Entry)> = Vec::new();
        let mut is_more = false;
        self.each(begin, |key, record| {
            let is_below = prefix.contains(&key);
            is_more = is_below && entries.len() == limit;
            let goes_on = is_below && !is_more;
            if goes_on {
                entries.push((key, record.entry));
            }
            goes_on
        })?;
        let last = entries.last().filter(|_| is_more);
        let next = last.map(|(key, _)| After(Bytes::copy_from_slice(key.as_str().as_bytes())));
        Ok(Page { entries, unusable: Vec::new(), next, revision: Revision::new(self.revision) })
    }

    /// Calls `visit` with each entry from `begin` on, until it says that it has seen enough.
    fn each(&self, begin: Bound<&str>, mut visit: impl FnMut(Key, Record) -> bool) -> Result<(), StoreError> {
        let failed = |error: redb::Error| self.file.failure(&error);
        let open = || -> Result<_, redb::Error> { Ok(self.database.begin_read()?.open_table(ENTRIES)?) };
        let table = open().map_err(failed)?;
        for item in table.range::<&str>((begin, Bound::Unbounded)).map_err(|error| failed(error.into()))? {
            let (key, sealed) = item.map_err(|error| failed(error.into()))?;
            let damaged = || self.file.damaged(format!("the entry of `{}`", countersign_trust::name::shown(key.value())));
            let record = Record::open(key.value(), sealed.value()).ok_or_else(damaged)?;
            let key = Key::from_written(key.value().as_bytes()).ok_or_else(damaged)?;
            if !visit(key, record) {
                break;
            }
        }
        Ok(())
    }

    /// Writes `value` below `key` if there is what is expected; `told` hears of it.
    pub(super) fn put(
        &mut self,
        key: &Key,
        value: Bytes,
        expected: Expected,
        lease: i64,
        told: impl FnOnce(Write),
    ) -> Result<Put, StoreError> {
        let there = self.read(key)?;
        let is_expected = match (expected, &there) {
            (Expected::Absent, None) => true,
            (Expected::Revision(revision), Some(entry)) => entry.revision == revision,
            (Expected::Absent, Some(_)) | (Expected::Revision(_), None) => false,
        };
        if !is_expected {
            return Ok(Put::Lost(there));
        }
        let replaced = there.as_ref().map_or(0, |entry| size(key, &entry.value));
        self.refuse_over_limits(replaced, size(key, &value), there.is_none())?;
        let write = self.write(key, Some((value, lease)))?;
        let revision = Revision::new(write.revision);
        told(write);
        Ok(Put::Done(revision))
    }

    /// Removes what stands below `key` if it is of `revision`; `told` hears of it.
    pub(super) fn remove(&mut self, key: &Key, revision: Revision, told: impl FnOnce(Write)) -> Result<Removed, StoreError> {
        match self.read(key)? {
            None => Ok(Removed::Done),
            Some(entry) if entry.revision != revision => Ok(Removed::Lost(entry.revision)),
            Some(_) => {
                told(self.write(key, None)?);
                Ok(Removed::Done)
            }
        }
    }

    /// Removes what was written under `lease`; `told` hears of each.
    pub(super) fn end_lease(&mut self, lease: i64, mut told: impl FnMut(Write)) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        self.each(Bound::Unbounded, |key, record| {
            if record.lease == lease {
                keys.push(key);
            }
            true
        })?;
        for key in keys {
            told(self.write(&key, None)?);
        }
        Ok(())
    }

    fn refuse_over_limits(&self, replaced: u64, new: u64, is_more: bool) -> Result<(), StoreError> {
        let entries = self.entries + u64::from(is_more);
        let bytes = self.bytes.saturating_sub(replaced) + new;
        let limits = [("entries", entries, MAX_EMBEDDED_ENTRIES), ("bytes", bytes, MAX_EMBEDDED_BYTES)];
        match limits.into_iter().find(|(_, count, limit)| count > limit) {
            Some((what, count, limit)) => {
                Err(StoreError::Busy { what: format!("it would hold {count} {what}, and the limit is {limit}; remove what is not needed") })
            }
            None => Ok(()),
        }
    }

    /// Writes or removes, as a new revision, with redb's immediate durability.
    fn write(&mut self, key: &Key, new: Option<(Bytes, i64)>) -> Result<Write, StoreError> {
        let number = self.revision + 1;
        let record = new.map(|(value, lease)| Record { entry: Entry { value, revision: Revision::new(number) }, lease });
        let write = || -> Result<u64, redb::Error> {
            let transaction = self.database.begin_write()?;
            let replaced = {
                transaction.open_table(ABOUT)?.insert(REVISION_KEY, number)?;
                let mut table = transaction.open_table(ENTRIES)?;
                let replaced = match &record {
                    Some(record) => table.insert(key.as_str(), record.seal(key.as_str()).as_slice())?,
                    None => table.remove(key.as_str())?,
                };
                replaced.and_then(|sealed| Record::open(key.as_str(), sealed.value())).map(|old| size(key, &old.entry.value))
            };
            transaction.commit()?;
            Ok(replaced.unwrap_or(0))
        };
        let replaced = write().map_err(|error| self.file.failure(&error))?;
        self.revision = number;
        self.entries = self.entries.saturating_sub(u64::from(replaced != 0)) + u64::from(record.is_some());
        let value = record.map(|record| record.entry.value);
        self.bytes = self.bytes.saturating_sub(replaced) + value.as_ref().map_or(0, |value| size(key, value));
        Ok(Write { key: key.clone(), revision: number, value })
    }
}

/// What an entry counts for. Never 0, since a key has a byte at least.
fn size(key: &Key, value: &Bytes) -> u64 {
    (key.as_str().len() + value.len()) as u64
}
