//! Reports as they stand in the store: compressed, and never unpacked to more than a report has.

use std::io::Read as _;

use flate2::Compression;
use flate2::read::{DeflateDecoder, DeflateEncoder};

use crate::store::limits::MAX_VALUE_BYTES;

/// Bytes of a report as it stands in the store. A node with a hundred pods has some 10 KiB; a thousand nodes that read each other's
/// must not be made to fetch much more.
pub(super) const MAX_PACKED_BYTES: usize = 256 * 1024;
/// Bytes of a report when it is unpacked: [`super::MAX_IN_USE`] pins with names of Kubernetes' usual lengths, several times over.
pub(super) const MAX_REPORT_BYTES: usize = 2 * 1024 * 1024;

const _: () = assert!(MAX_PACKED_BYTES <= MAX_VALUE_BYTES);

/// None for what is longer than a report may be, packed or not.
pub(super) fn pack(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() > MAX_REPORT_BYTES {
        return None;
    }
    let mut packed = Vec::new();
    let limit = MAX_PACKED_BYTES as u64;
    DeflateEncoder::new(bytes, Compression::default()).take(limit + 1).read_to_end(&mut packed).ok()?;
    (packed.len() <= MAX_PACKED_BYTES).then_some(packed)
}

/// A few bytes can unpack to gigabytes, so no more is unpacked than a report has. None for what is longer, or not compressed.
pub(super) fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    if packed.len() > MAX_PACKED_BYTES {
        return None;
    }
    let mut bytes = Vec::new();
    DeflateDecoder::new(packed).take(MAX_REPORT_BYTES as u64 + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() <= MAX_REPORT_BYTES).then_some(bytes)
}
