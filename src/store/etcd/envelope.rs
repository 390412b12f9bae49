//! How a value stands in the store: a mark by which one of somebody else is noticed, and the number of its write, by which whoever
//! wrote it knows it again when the answer to the write was lost.
//!
//! Neither proves anything: whoever can write to the store can write both.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::store::entry::{Entry, Revision, UnusableValue, refused};
use crate::store::error::StoreError;
use crate::store::key::Key;
use crate::store::limits::MAX_VALUE_BYTES;

/// What every value begins with, and which form it has.
const MARK: &[u8; 4] = b"\xc5cs1";
/// Bytes of a write's number.
const NUMBER_BYTES: usize = 16;
/// What a stored value is longer than its payload.
pub(super) const ENVELOPE_BYTES: usize = MARK.len() + NUMBER_BYTES;

/// The number of one write, unlike that of any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WriteNumber([u8; NUMBER_BYTES]);

impl WriteNumber {
    /// A number that nobody else has.
    pub(super) fn new() -> Result<Self, StoreError> {
        let mut number = [0; NUMBER_BYTES];
        let mut filled = 0;
        while let Some(rest) = number.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(StoreError::Busy { what: format!("the system gives no random numbers ({error})") }),
            }
        }
        Ok(Self(number))
    }
}

/// What the store may have below a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) payload: Bytes,
    pub(super) number: WriteNumber,
}

/// `payload` as it is stored.
pub(super) fn seal(number: WriteNumber, payload: &[u8]) -> Bytes {
    let mut sealed = BytesMut::with_capacity(ENVELOPE_BYTES + payload.len());
    sealed.put_slice(MARK);
    sealed.put_slice(&number.0);
    sealed.put_slice(payload);
    sealed.freeze()
}

/// What was stored.
pub(super) fn open(stored: &Bytes) -> Result<Opened, UnusableValue> {
    if stored.len() > ENVELOPE_BYTES + MAX_VALUE_BYTES {
        return Err(UnusableValue::TooLarge);
    }
    let rest = stored.strip_prefix(MARK).ok_or(UnusableValue::Foreign)?;
    let (number, payload) = rest.split_first_chunk::<NUMBER_BYTES>().ok_or(UnusableValue::Foreign)?;
    // A copy: a slice would keep the whole answer in memory that it came with.
    Ok(Opened { payload: Bytes::copy_from_slice(payload), number: WriteNumber(*number) })
}

/// The entry that is stored below `key`.
pub(super) fn entry(key: &Key, stored: &Bytes, revision: Revision) -> Result<Entry, StoreError> {
    let opened = open(stored).map_err(|why| refused(key, why))?;
    Ok(Entry { value: opened.payload, revision })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_it_was_written_and_known_again_by_its_number() {
        let (number, other) = (WriteNumber::new().unwrap(), WriteNumber::new().unwrap());
        assert_ne!(number, other);
        for payload in [&b""[..], b"x", &vec![7; MAX_VALUE_BYTES]] {
            let opened = open(&seal(number, payload)).unwrap();
            assert_eq!((opened.payload.as_ref(), opened.number), (payload, number));
        }
    }

    #[test]
    fn what_somebody_else_wrote_is_no_value() {
        for foreign in [&b""[..], b"hello", b"\xc5cs1", b"\xc5cs1fifteen bytes..", b"\xc5cs2sixteen bytes....payload"] {
            assert_eq!(open(&Bytes::copy_from_slice(foreign)), Err(UnusableValue::Foreign), "{foreign:?}");
        }
        assert_eq!(open(&Bytes::from(vec![0; MAX_VALUE_BYTES + ENVELOPE_BYTES + 1])), Err(UnusableValue::TooLarge));
    }
}
