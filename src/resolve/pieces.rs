//! Evidence in the store: compressed, named by its own hash, in pieces that the store takes. Whoever reads it verifies it again,
//! and what is not what its name says is as good as absent.

use std::io::Read as _;
use std::time::Duration;

use bytes::Bytes;
use countersign_trust::MAX_EVIDENCE_BYTES;
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
    pub(super) const fn area(self) -> &'static str {
        match self {
            Self::Pinned => "evidence",
            Self::Confirmed => "confirmed-evidence",
        }
    }
}

/// The last segment of the key of the head: how much there is, and the first piece of it. It is written last.
const HEAD: &str = "head";
/// The form of what is written.
const VERSION: u32 = 2;
/// Bytes of evidence as it is encoded: what one update may have.
const MAX_BYTES: usize = MAX_EVIDENCE_BYTES as usize;
/// Bytes of it when it is packed. Real repositories have some ten KiB; a thousand nodes must not be made to fetch more than this.
pub(super) const MAX_PACKED_BYTES: usize = 16 << 20;
/// Bytes that a head has beside its piece, at most.
const MAX_INDEX_BYTES: usize = 256;
/// Bytes of one piece. Real evidence is one, so that it is written and read at once.
const PIECE_BYTES: usize = MAX_VALUE_BYTES - MAX_INDEX_BYTES;
/// All of it is read within this time, or it is not read: a pull waits for it, and what stands in its way is nobody's evidence.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// Another writer of the same pieces writes the same; who writes something else is overwritten as often.
const TRIES: usize = 4;

/// How much there is. It stands before the first piece, with a line break between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    version: u32,
    pieces: usize,
    packed_bytes: usize,
}

/// Evidence as it is handed on.
pub(super) struct Packed {
    name: EvidenceDigest,
    bytes: Vec<u8>,
}

impl Packed {
    /// # Errors
    /// [`ResolveError::EvidenceTooLarge`].
    pub(super) fn of(evidence: &Evidence) -> Result<Self, ResolveError> {
        let encoded = evidence.encode();
        let name = EvidenceDigest::of(&encoded);
        let bytes = pack(&encoded).ok_or(ResolveError::EvidenceTooLarge { name, limit: MAX_PACKED_BYTES })?;
        Ok(Self { name, bytes })
    }

    pub(super) const fn name(&self) -> EvidenceDigest {
        self.name
    }

    /// How many bytes it takes in the store.
    pub(super) const fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Writes evidence, unless it is there.
///
/// # Errors
/// Why the store does not take it.
pub(super) async fn write(store: &dyn Store, used: Use, packed: &Packed) -> Result<(), ResolveError> {
    if let Ok(Some(_)) = read(store, used, packed.name).await {
        return Ok(());
    }
    put(store, used, packed).await
}

/// Writes evidence that is hardly there yet: it is not looked for first.
///
/// # Errors
/// Why the store does not take it.
pub(super) async fn put(store: &dyn Store, used: Use, packed: &Packed) -> Result<(), ResolveError> {
    let mut pieces = packed.bytes.chunks(PIECE_BYTES);
    let first = pieces.next().unwrap_or_default();
    let index = Index { version: VERSION, pieces: pieces.len() + 1, packed_bytes: packed.bytes.len() };
    for (number, piece) in (1..).zip(pieces) {
        overwrite(store, &key(used, packed.name, &number.to_string())?, Bytes::copy_from_slice(piece)).await?;
    }
    let mut head = serde_json::to_vec(&index).map_err(|_| ResolveError::Internal { what: "an index that cannot be written" })?;
    head.push(b'\n');
    head.extend_from_slice(first);
    overwrite(store, &key(used, packed.name, HEAD)?, head.into()).await
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
    let Some(head) = entry(store, &key(used, name, HEAD)?).await? else { return Ok(None) };
    let Some((index, first)) = read_head(&head) else { return Ok(None) };
    let mut packed = Vec::with_capacity(index.packed_bytes);
    packed.extend_from_slice(first);
    for number in 1..index.pieces {
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

/// Removes evidence that nothing rests on. The head goes first, so that nobody finds half of it.
///
/// # Errors
/// Why the store cannot be asked.
pub(super) async fn remove(store: &dyn Store, used: Use, name: EvidenceDigest) -> Result<(), ResolveError> {
    let head = key(used, name, HEAD)?;
    let pieces = entry(store, &head).await?.and_then(|head| read_head(&head).map(|(index, _)| index.pieces)).unwrap_or_default();
    remove_one(store, &head).await?;
    for number in 1..pieces {
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

/// How much there is, and the first piece.
fn read_head(bytes: &[u8]) -> Option<(Index, &[u8])> {
    let end = bytes.iter().take(MAX_INDEX_BYTES).position(|byte| *byte == b'\n')?;
    let (index, first) = (bytes.get(..end)?, bytes.get(end + 1..)?);
    let index: Index = serde_json::from_slice(index).ok()?;
    let pieces = index.packed_bytes.div_ceil(PIECE_BYTES).max(1);
    let is_usual = index.version == VERSION && index.packed_bytes <= MAX_PACKED_BYTES && index.pieces == pieces;
    (is_usual && first.len() == index.packed_bytes.min(PIECE_BYTES)).then_some((index, first))
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
            let packed = Packed::of(&evidence).unwrap();
            let name = packed.name();
            assert_eq!(name, evidence.digest());
            put(&store, Use::Pinned, &packed).await.unwrap();
            assert_eq!(read(&store, Use::Pinned, name).await.unwrap(), Some(evidence.clone()), "{length}");
            let keys = store.list(&crate::store::Prefix::all(), None, 10).await.unwrap();
            assert_eq!(keys.entries.len(), length.div_ceil(PIECE_BYTES).max(1) + usize::from(length >= PIECE_BYTES), "{length}");
            write(&store, Use::Pinned, &packed).await.unwrap();
            put(&store, Use::Pinned, &packed).await.unwrap();
            assert_eq!(store.list(&crate::store::Prefix::all(), None, 10).await.unwrap(), keys, "and is not written twice");
            remove(&store, Use::Pinned, name).await.unwrap();
            assert_eq!(read(&store, Use::Pinned, name).await.unwrap(), None);
        }
        let left = store.list(&crate::store::Prefix::all(), None, 10).await.unwrap();
        assert_eq!(left.entries, []);
    }

    #[test]
    fn evidence_that_is_too_large_is_not_handed_on() {
        let refused = Packed::of(&evidence(noise(MAX_PACKED_BYTES + PIECE_BYTES))).err();
        assert!(matches!(refused, Some(ResolveError::EvidenceTooLarge { .. })), "{refused:?}");
    }

    #[tokio::test]
    async fn evidence_that_is_not_what_its_name_says_is_absent_and_is_mended_by_the_next_writer() {
        let (_folder, store) = store();
        let good = Packed::of(&evidence(noise(2 * PIECE_BYTES))).unwrap();
        let (name, whole) = (good.name(), evidence(noise(2 * PIECE_BYTES)));
        put(&store, Use::Pinned, &good).await.unwrap();
        let head = store.read(&key(Use::Pinned, name, HEAD).unwrap()).await.unwrap().unwrap().value;
        let other = pack(&evidence(noise(2000)).encode()).unwrap();
        let bomb = pack(&vec![0; MAX_BYTES]).unwrap();
        let says = |version: u32, pieces: u64, packed_bytes: u64, first: &[u8]| {
            let index = serde_json::json!({"version": version, "pieces": pieces, "packed_bytes": packed_bytes});
            [format!("{index}\n").as_bytes(), first].concat()
        };
        let attacks: [(&str, Vec<u8>); 13] = [
            ("1", other.clone()),
            ("1", b"nonsense".to_vec()),
            ("1", bomb.clone()),
            ("1", Vec::new()),
            (HEAD, says(2, 1, other.len() as u64, &other)),
            (HEAD, says(2, 1, bomb.len() as u64, &bomb)),
            (HEAD, says(2, 4_000_000, 2_000_000_000_000, b"x")),
            (HEAD, says(2, u64::MAX, u64::MAX, b"x")),
            (HEAD, says(1, 1, 1, b"x")),
            (HEAD, says(2, 1, 0, b"")),
            (HEAD, vec![b'{'; MAX_VALUE_BYTES]),
            (HEAD, head.get(..head.len() - 1).unwrap().to_vec()),
            (HEAD, b"{}".to_vec()),
        ];
        for (number, (part, bytes)) in attacks.into_iter().enumerate() {
            let key = key(Use::Pinned, name, part).unwrap();
            let there = store.read(&key).await.unwrap().unwrap();
            store.put(&key, bytes.into(), Expected::Revision(there.revision), None).await.unwrap();
            assert_eq!(read(&store, Use::Pinned, name).await.unwrap(), None, "{number} {part}");
            write(&store, Use::Pinned, &good).await.unwrap();
            assert_eq!(read(&store, Use::Pinned, name).await.unwrap(), Some(whole.clone()), "{number} {part}");
        }
    }
}
