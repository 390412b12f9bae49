//! How an entry stands on disk: a hash of where it belongs and what it says, then revision, lease and value.

use bytes::Bytes;
use countersign_trust::name::Sha256;

use crate::store::entry::{Entry, Revision};

const HASH_BYTES: usize = 32;

/// An entry with the lease that it ends with; 0 for none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) entry: Entry,
    pub(super) lease: i64,
}

impl Record {
    /// The bytes to store below `key`. The key is part of what is hashed, so that a value found below another is noticed.
    pub(super) fn seal(&self, key: &str) -> Vec<u8> {
        let mut payload = Vec::with_capacity(HASH_BYTES + 16 + self.entry.value.len());
        payload.extend_from_slice(&self.entry.revision.number().to_be_bytes());
        payload.extend_from_slice(&self.lease.to_be_bytes());
        payload.extend_from_slice(&self.entry.value);
        let hash = hash(key, &payload);
        payload.splice(..0, *hash.as_bytes());
        payload
    }

    /// What was stored below `key`; None for anything else.
    pub(super) fn open(key: &str, sealed: &[u8]) -> Option<Self> {
        let (stated, payload) = sealed.split_first_chunk::<HASH_BYTES>()?;
        if hash(key, payload).as_bytes() != stated {
            return None;
        }
        let (revision, rest) = payload.split_first_chunk::<8>()?;
        let (lease, value) = rest.split_first_chunk::<8>()?;
        let entry = Entry { value: Bytes::copy_from_slice(value), revision: Revision::new(u64::from_be_bytes(*revision)) };
        Some(Self { entry, lease: i64::from_be_bytes(*lease) })
    }
}

fn hash(key: &str, payload: &[u8]) -> Sha256 {
    Sha256::of(&[Sha256::of(key.as_bytes()).as_bytes(), payload].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_below_its_own_key_and_unchanged_only() {
        let record = Record { entry: Entry { value: Bytes::from_static(b"v"), revision: Revision::new(7) }, lease: 3 };
        let sealed = record.seal("a/b");
        assert_eq!(Record::open("a/b", &sealed), Some(record));
        assert_eq!(Record::open("a/c", &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(Record::open("a/b", &changed), None, "byte {at}");
            assert_eq!(Record::open("a/b", &sealed[..at]), None, "cut at {at}");
        }
    }
}
