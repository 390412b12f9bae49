//! What stands in a store, and what became of writing it.

use std::fmt;

use bytes::Bytes;

use super::error::StoreError;
use super::key::Key;
use super::limits::MAX_VALUE_BYTES;

/// A moment of the store. It grows with every write to any key; an entry has that of its last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// The revision with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What stands below a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was written.
    pub value: Bytes,
    /// Its last write.
    pub revision: Revision,
}

/// What must be there for a write to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Absent,
    /// The entry of this revision.
    Revision(Revision),
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// It was done, and made this revision.
    Done(Revision),
    /// What is there is not what was expected, so nothing was written. This is what there was at that moment.
    Lost(Option<Entry>),
}

/// What became of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// The entry is gone: by this call, or before it.
    Done,
    /// There is an entry of this revision instead, which stays.
    Lost(Revision),
}

/// Where a page ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After(pub(super) Bytes);

/// Some entries, as they were at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries, in the order of their written keys.
    pub entries: Vec<(Key, Entry)>,
    /// What stands there and is no entry of this program.
    pub unusable: Vec<Unusable>,
    /// Where the next page begins; None if there was nothing more.
    pub next: Option<After>,
    /// The moment.
    pub revision: Revision,
}

/// Something below a prefix that is no entry of this program. It takes nothing away from the entries beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// The key, as it stands in the store; escaped if it is no key.
    pub key: String,
    /// Its last write; with a key of ours, it can be removed.
    pub revision: Revision,
    /// What is wrong with it.
    pub why: UnusableValue,
}

/// Why something in the store is no entry of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnusableValue {
    /// No segments are written as this key.
    #[error("its key was not written by this program")]
    Key,
    /// This program has not written the value.
    #[error("its value was not written by this program")]
    Foreign,
    /// The value is longer than a value may be.
    #[error("its value is longer than a value may be")]
    TooLarge,
}

/// The error for what is stored below `key`.
pub(super) fn refused(key: &Key, why: UnusableValue) -> StoreError {
    let key = key.to_string();
    match why {
        UnusableValue::TooLarge => StoreError::TooLarge { key, limit: MAX_VALUE_BYTES },
        UnusableValue::Key | UnusableValue::Foreign => StoreError::Foreign { key },
    }
}

/// Refuses to write a value that is too long.
pub(super) fn refuse_long(key: &Key, value: &[u8]) -> Result<(), StoreError> {
    if value.len() > MAX_VALUE_BYTES { Err(refused(key, UnusableValue::TooLarge)) } else { Ok(()) }
}
