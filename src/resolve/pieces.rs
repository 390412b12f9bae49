//! Evidence in the store: compressed, named by its own hash, in pieces that the store takes. Whoever reads it verifies it again,
//! and what is not what its name says is as good as absent.

use std::io::Read as _;
use std::time::Duration;

use bytes::Bytes;
use countersign_trust::evidence::Evidence;
use countersign_trust::name::EvidenceDigest;
use flate2::Compression;
use flate2::read::{DeflateDecoder, DeflateEncoder};
use serde::{Deserialize, Serialize};

use super::error::ResolveError;
use crate::store::limits::MAX_VALUE_BYTES;
use crate::store::{Expected, Key, Put, Removed, Store, StoreError};

/// What evidence is kept for: it goes with the last that needs it, and nobody else has to be asked for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Pins rest on it.
    Pinned,
    /// A server has confirmed it.
    Confirmed,
}

impl Use {
    /// The first segment of the keys.
    const fn area(self) -> &'static str {
        match self {
            Self::Pinned => "evidence",
            Self::Confirmed => "confirmed-evidence",
        }
    }
}

/// The last segment of the key that says how many pieces there are. It is written last.
const INDEX: &str = "index";
/// The form of what is written.
const VERSION: u32 = 1;
/// Bytes of evidence as it is encoded: what one update may have (`docs/notary-v1.md`, 2.2), with some room for its names.
const MAX_BYTES: usize = 65 << 20;
/// Bytes of it when it is packed. Real repositories have some ten KiB; a thousand nodes must not be made to fetch more than this.
const MAX_PACKED_BYTES: usize = 16 << 20;
/// Bytes of one piece.
const PIECE_BYTES: usize = MAX_VALUE_BYTES;
/// All of it is read within this time, or it is not read: a pull waits for it, and what stands in its way is nobody's evidence.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// Another writer of the same pieces writes the same; who writes something else is overwritten as often.
const TRIES: usize = 4;

/// How much there is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    version: u32,
    pieces: usize,
    packed_bytes: usize,
}

/// Writes evidence, unless it is there.
///
/// # Errors
/// [`ResolveError::EvidenceTooLarge`], or why the store does not take it.
pub(super) async fn write(store: &dyn Store, used: Use, evidence: &Evidence) -> Result<EvidenceDigest, ResolveError> {
    let encoded = evidence.encode();
    let name = EvidenceDigest::of(&encoded);
    if let Ok(Some(found)) = read(store, used, name).await
        && found == *evidence
    {
        return Ok(name);
    }
    let packed = pack(&encoded).ok_or(ResolveError::EvidenceTooLarge { name, limit: MAX_PACKED_BYTES })?;
    let pieces: Vec<Bytes> = packed.chunks(PIECE_BYTES).map(Bytes::copy_from_slice).collect();
    let index = Index { version: VERSION, pieces: pieces.len(), packed_bytes: packed.len() };
    for (number, piece) in pieces.into_iter().enumerate() {
        overwrite(store, &key(used, name, &number.to_string())?, piece).await?;
    }
    let index = serde_json::to_vec(&index).map_err(|_| ResolveError::Internal { what: "an index that cannot be written" })?;
    overwrite(store, &key(used, name, INDEX)?, index.into()).await?;
    Ok(name)
}

/// Evidence by its name. None if it is not there whole, or is not what its name says.
///
/// # Errors
/// Why the store cannot be asked.
pub(super) async fn read(store: &dyn Store, used: Use, name: EvidenceDigest) -> Result<Option<Evidence>, ResolveError> {
    let read = tokio::time::timeout(READ_DEADLINE, read_slowly(store, used, name)).await;
    read.unwrap_or(Err(ResolveError::Slow { name, seconds: READ_DEADLINE.as_secs() }))
}

async fn read_slowly(store: &dyn Store, used: Use, name: EvidenceDigest) -> Result<Option<Evidence>, ResolveError> {
    let Some(index) = entry(store, &key(used, name, INDEX)?).await? else { return Ok(None) };
    let Some(index) = read_index(&index) else { return Ok(None) };
    let mut packed = Vec::with_capacity(index.packed_bytes);
    for number in 0..index.pieces {
        let Some(piece) = entry(store, &key(used, name, &number.to_string())?).await? else { return Ok(None) };
        if packed.len() + piece.len() > index.packed_bytes {
            return Ok(None);
        }
        packed.extend_from_slice(&piece);
    }
    let Some(encoded) = unpack(&packed) else { return Ok(None) };
    let is_named = EvidenceDigest::of(&encoded) == name;
    Ok(Evidence::decode(&encoded).ok().filter(|_| is_named))
}

/// Removes evidence that nothing rests on. The index goes first, so that nobody finds half of it.
///
/// # Errors
/// Why the store cannot be asked.
pub(super) async fn remove(store: &dyn Store, used: Use, name: EvidenceDigest) -> Result<(), ResolveError> {
    let index = key(used, name, INDEX)?;
    let pieces = entry(store, &index).await?.and_then(|index| read_index(&index)).map_or(0, |index| index.pieces);
    remove_one(store, &index).await?;
    for number in 0..pieces {
        remove_one(store, &key(used, name, &number.to_string())?).await?;
    }
    Ok(())
}

/// Removes what stands there, whatever it is.
pub(super) async fn remove_one(store: &dyn Store, key: &Key) -> Result<(), ResolveError> {
    for _ in 0..TRIES {
        let Some(entry) = store.read(key).await? else { return Ok(()) };
        match store.remove(key, entry.revision).await? {
            Removed::Done => return Ok(()),
            Removed::Lost(_) => {}
        }
    }
    Ok(())
}

/// What stands there; None also for what no version of this program has written.
async fn entry(store: &dyn Store, key: &Key) -> Result<Option<Bytes>, ResolveError> {
    match store.read(key).await {
        Ok(entry) => Ok(entry.map(|entry| entry.value)),
        // It is of no use, and in nobody's way but the writer's.
        Err(StoreError::Foreign { .. } | StoreError::TooLarge { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes what is right there whatever anybody else has written: what is named by its hash, or what only this node writes.
pub(super) async fn overwrite(store: &dyn Store, key: &Key, value: Bytes) -> Result<(), ResolveError> {
    let mut expected = Expected::Absent;
    for _ in 0..TRIES {
        match store.put(key, value.clone(), expected, None).await? {
            Put::Done(_) => return Ok(()),
            Put::Lost(Some(there)) if there.value == value => return Ok(()),
            Put::Lost(Some(there)) => expected = Expected::Revision(there.revision),
            Put::Lost(None) => expected = Expected::Absent,
        }
    }
    Err(ResolveError::Contended { key: key.to_string() })
}

fn key(used: Use, name: EvidenceDigest, part: &str) -> Result<Key, ResolveError> {
    let hash = name.hash().to_hex();
    Key::new([used.area(), &hash, part]).map_err(|_| ResolveError::Internal { what: "a key of evidence that is none" })
}

fn read_index(bytes: &[u8]) -> Option<Index> {
    let index: Index = serde_json::from_slice(bytes).ok()?;
    let is_usual =
        index.version == VERSION && index.packed_bytes <= MAX_PACKED_BYTES && index.pieces == index.packed_bytes.div_ceil(PIECE_BYTES);
    is_usual.then_some(index)
}

fn pack(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() > MAX_BYTES {
        return None;
    }
    let mut packed = Vec::new();
    let limit = MAX_PACKED_BYTES as u64;
    DeflateEncoder::new(bytes, Compression::default()).take(limit + 1).read_to_end(&mut packed).ok()?;
    (packed.len() <= MAX_PACKED_BYTES).then_some(packed)
}

/// A few bytes can unpack to gigabytes, so no more is unpacked than evidence has.
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    DeflateDecoder::new(packed).take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() <= MAX_BYTES).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use countersign_trust::evidence::{Answer, FileName, Gun};

    use super::*;
    use crate::store::EmbeddedStore;

    fn store() -> (tempfile::TempDir, EmbeddedStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&folder.path().join("store")).unwrap();
        (folder, store)
    }

    fn evidence(bytes: Vec<u8>) -> Evidence {
        let mut evidence = Evidence::new(Gun::for_repository(&"r.test/app".parse().unwrap()), "https://r.test".into());
        evidence.add(FileName::Timestamp, Answer::Found(bytes.into()));
        evidence
    }

    /// Bytes that do not get shorter.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        (0..length).map(next).collect()
    }

    #[tokio::test]
    async fn evidence_of_any_usual_size_is_found_by_its_name() {
        let (_folder, store) = store();
        for length in [0, 1000, PIECE_BYTES, 3 * PIECE_BYTES] {
            let evidence = evidence(noise(length));
            let name = write(&store, Use::Pinned, &evidence).await.unwrap();
            assert_eq!(name, evidence.digest());
            assert_eq!(read(&store, Use::Pinned, name).await.unwrap(), Some(evidence.clone()), "{length}");
            assert_eq!(write(&store, Use::Pinned, &evidence).await.unwrap(), name, "and is not written twice");
            remove(&store, Use::Pinned, name).await.unwrap();
            assert_eq!(read(&store, Use::Pinned, name).await.unwrap(), None);
        }
        let left = store.list(&crate::store::Prefix::all(), None, 10).await.unwrap();
        assert_eq!(left.entries, []);
    }

    #[tokio::test]
    async fn evidence_that_is_too_large_is_not_written() {
        let (_folder, store) = store();
        let refused = write(&store, Use::Pinned, &evidence(noise(MAX_PACKED_BYTES + PIECE_BYTES))).await.unwrap_err();
        assert!(matches!(refused, ResolveError::EvidenceTooLarge { .. }), "{refused:?}");
    }

    #[tokio::test]
    async fn evidence_that_is_not_what_its_name_says_is_absent_and_is_mended_by_the_next_writer() {
        let (_folder, store) = store();
        let good = evidence(noise(1000));
        let other = pack(&evidence(noise(2000)).encode()).unwrap();
        let name = write(&store, Use::Pinned, &good).await.unwrap();
        let bomb = pack(&vec![0; MAX_BYTES]).unwrap();
        let giant = serde_json::json!({"version": 1, "pieces": 4_000_000, "packed_bytes": 2_000_000_000_000_u64});
        let attacks: [(&str, Vec<u8>); 6] = [
            ("0", other),
            ("0", b"nonsense".to_vec()),
            ("0", bomb),
            ("0", Vec::new()),
            (INDEX, giant.to_string().into_bytes()),
            (INDEX, b"{}".to_vec()),
        ];
        for (part, bytes) in attacks {
            let key = key(Use::Pinned, name, part).unwrap();
            let there = store.read(&key).await.unwrap().unwrap();
            store.put(&key, bytes.into(), Expected::Revision(there.revision), None).await.unwrap();
            assert_eq!(read(&store, Use::Pinned, name).await.unwrap(), None, "{part}");
            write(&store, Use::Pinned, &good).await.unwrap();
            assert_eq!(read(&store, Use::Pinned, name).await.unwrap(), Some(good.clone()), "{part}");
        }
    }
}
