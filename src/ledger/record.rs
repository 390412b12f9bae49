//! How an entry stands on disk: a version, a hash of where it belongs and what it says, and what it says.

use countersign_trust::evidence::{CodecError, Evidence};
use countersign_trust::known::Known;
use countersign_trust::name::{ChainId, ImageId, ManifestDigest, NameError, Sha256};

use super::grandfathered::{RanContent, RanVolume};
use super::{Act, Grandfathered, Held, VerifiedImage, Workload};

/// The first byte of every value. A change of any encoding below changes it, unless what was written before reads as it did.
const VALUE_VERSION: u8 = 2;
/// Bytes of a SHA-256 hash.
const HASH_BYTES: usize = 32;
/// What a sealed value is longer than its payload.
pub(super) const SEAL_BYTES: usize = 1 + HASH_BYTES;

/// Why stored bytes are not an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("it ends too early")]
    Truncated,
    #[error("it is of version {0}, which this program does not know")]
    Version(u8),
    #[error("its hash does not match")]
    Hash,
    #[error("it belongs to another repository")]
    Misplaced,
    #[error("{0}")]
    Encoding(#[from] CodecError),
    #[error("its text is not UTF-8")]
    Text,
    #[error("{0}")]
    Name(#[from] NameError),
}

/// The key is part of what is hashed, so that a value found under another key is noticed.
fn hash(key: &[u8], payload: &[u8]) -> Sha256 {
    let mut hashed = Vec::with_capacity(9 + key.len() + payload.len());
    hashed.push(VALUE_VERSION);
    hashed.extend_from_slice(&(key.len() as u64).to_be_bytes());
    hashed.extend_from_slice(key);
    hashed.extend_from_slice(payload);
    Sha256::of(&hashed)
}

/// The bytes to store for `payload` under `key`.
pub(super) fn seal(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(SEAL_BYTES + payload.len());
    sealed.push(VALUE_VERSION);
    sealed.extend_from_slice(hash(key, payload).as_bytes());
    sealed.extend_from_slice(payload);
    sealed
}

/// The payload of bytes that were stored under `key`.
pub(super) fn open<'a>(key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], RecordError> {
    let (version, rest) = sealed.split_first().ok_or(RecordError::Truncated)?;
    if *version != VALUE_VERSION {
        return Err(RecordError::Version(*version));
    }
    let (stated, payload) = rest.split_first_chunk::<HASH_BYTES>().ok_or(RecordError::Truncated)?;
    if hash(key, payload).as_bytes() == stated { Ok(payload) } else { Err(RecordError::Hash) }
}

pub(super) fn encode_held(held: &Held) -> Vec<u8> {
    let known = held.known.encode();
    let evidence = held.evidence.encode();
    let mut payload = Vec::with_capacity(17 + known.len() + evidence.len());
    payload.push(u8::from(held.is_own));
    payload.extend_from_slice(&held.checked_at.to_be_bytes());
    payload.extend_from_slice(&(known.len() as u64).to_be_bytes());
    payload.extend_from_slice(&known);
    payload.extend_from_slice(&evidence);
    payload
}

/// Reads what is held for the repository named `gun`.
pub(super) fn decode_held(gun: &str, payload: &[u8]) -> Result<Held, RecordError> {
    let (is_own, rest) = payload.split_first().ok_or(RecordError::Truncated)?;
    let (checked_at, rest) = rest.split_first_chunk::<8>().ok_or(RecordError::Truncated)?;
    let (length, rest) = rest.split_first_chunk::<8>().ok_or(RecordError::Truncated)?;
    let length = usize::try_from(u64::from_be_bytes(*length)).map_err(|_| RecordError::Truncated)?;
    let (known, evidence) = rest.split_at_checked(length).ok_or(RecordError::Truncated)?;
    let (known, evidence) = (Known::decode(known)?, Evidence::decode(evidence)?);
    let held = Held { known, evidence, checked_at: u64::from_be_bytes(*checked_at), is_own: *is_own == 1 };
    if held.evidence.gun().as_str() == gun { Ok(held) } else { Err(RecordError::Misplaced) }
}

/// Each text with its length.
fn push_texts<'t>(payload: &mut Vec<u8>, texts: impl IntoIterator<Item = &'t String>) {
    for text in texts {
        payload.extend_from_slice(&(text.len() as u64).to_be_bytes());
        payload.extend_from_slice(text.as_bytes());
    }
}

/// As many texts as are wanted, and nothing after them.
fn texts<const N: usize>(rest: &[u8]) -> Result<[String; N], RecordError> {
    let (texts, rest) = split_texts(rest)?;
    if rest.is_empty() { Ok(texts) } else { Err(RecordError::Truncated) }
}

/// As many texts as are wanted, and what comes after them.
fn split_texts<const N: usize>(mut rest: &[u8]) -> Result<([String; N], &[u8]), RecordError> {
    let mut texts = [const { String::new() }; N];
    for text in &mut texts {
        let (length, after) = rest.split_first_chunk::<8>().ok_or(RecordError::Truncated)?;
        let length = usize::try_from(u64::from_be_bytes(*length)).map_err(|_| RecordError::Truncated)?;
        let (bytes, after) = after.split_at_checked(length).ok_or(RecordError::Truncated)?;
        rest = after;
        *text = str::from_utf8(bytes).map_err(|_| RecordError::Text)?.to_owned();
    }
    Ok((texts, rest))
}

/// Time, then each text.
pub(super) fn encode_act(act: &Act) -> Vec<u8> {
    let mut payload = act.at.to_be_bytes().to_vec();
    push_texts(&mut payload, [&act.by, &act.what, &act.reason]);
    payload
}

pub(super) fn decode_act(payload: &[u8]) -> Result<Act, RecordError> {
    let (at, rest) = payload.split_first_chunk::<8>().ok_or(RecordError::Truncated)?;
    let [by, what, reason] = texts(rest)?;
    Ok(Act { at: u64::from_be_bytes(*at), by, what, reason })
}

/// Times, then digests, then each text; where there are volumes, then whether the image was verified, and of each volume its digests
/// and its name. What was written before there were volumes reads as of none.
pub(super) fn encode_grandfathered(grandfathered: &Grandfathered) -> Vec<u8> {
    let Grandfathered { workload, namespace, pod, image, content, is_verified, volumes, taken_at, until, by } = grandfathered;
    let mut payload = [taken_at.to_be_bytes(), until.to_be_bytes()].concat();
    push_content(&mut payload, content);
    push_texts(&mut payload, [&workload.pod_uid, &workload.container, namespace, pod, image, by]);
    if *is_verified || !volumes.is_empty() {
        payload.push(u8::from(*is_verified));
    }
    for RanVolume { image, content } in volumes {
        push_content(&mut payload, content);
        push_texts(&mut payload, [image]);
    }
    payload
}

fn push_content(payload: &mut Vec<u8>, RanContent { target, manifest, image_id, chain_id }: &RanContent) {
    for hash in [target.hash(), manifest.hash(), image_id.hash(), chain_id.hash()] {
        payload.extend_from_slice(hash.as_bytes());
    }
}

pub(super) fn decode_grandfathered(payload: &[u8]) -> Result<Grandfathered, RecordError> {
    let (taken_at, rest) = payload.split_first_chunk::<8>().ok_or(RecordError::Truncated)?;
    let (until, rest) = rest.split_first_chunk::<8>().ok_or(RecordError::Truncated)?;
    let (content, rest) = split_content(rest)?;
    let ([pod_uid, container, namespace, pod, image, by], rest) = split_texts(rest)?;
    let (is_verified, mut rest) = rest.split_first().map_or((false, rest), |(flag, rest)| (*flag == 1, rest));
    let mut volumes = Vec::new();
    while !rest.is_empty() {
        let (content, after) = split_content(rest)?;
        let ([image], after) = split_texts(after)?;
        volumes.push(RanVolume { image, content });
        rest = after;
    }
    Ok(Grandfathered {
        workload: Workload { pod_uid, container },
        namespace,
        pod,
        image,
        content,
        is_verified,
        volumes,
        taken_at: i64::from_be_bytes(*taken_at),
        until: i64::from_be_bytes(*until),
        by,
    })
}

fn split_content(mut rest: &[u8]) -> Result<(RanContent, &[u8]), RecordError> {
    let mut hashes = [Sha256::from_bytes([0; HASH_BYTES]); 4];
    for hash in &mut hashes {
        let (bytes, after) = rest.split_first_chunk::<HASH_BYTES>().ok_or(RecordError::Truncated)?;
        (*hash, rest) = (Sha256::from_bytes(*bytes), after);
    }
    let [target, manifest, image_id, chain_id] = hashes;
    let content = RanContent {
        target: ManifestDigest::new(target),
        manifest: ManifestDigest::new(manifest),
        image_id: ImageId::new(image_id),
        chain_id: ChainId::new(chain_id),
    };
    Ok((content, rest))
}

pub(super) fn decode_text(payload: &[u8]) -> Result<String, RecordError> {
    str::from_utf8(payload).map(str::to_owned).map_err(|_| RecordError::Text)
}

pub(super) fn encode_image(image: &VerifiedImage) -> Vec<u8> {
    let mut payload = Vec::with_capacity(3 * HASH_BYTES + 64);
    payload.extend_from_slice(image.digest.hash().as_bytes());
    payload.extend_from_slice(image.image_id.hash().as_bytes());
    payload.extend_from_slice(image.chain_id.hash().as_bytes());
    payload.extend_from_slice(image.repository.to_string().as_bytes());
    payload
}

pub(super) fn decode_image(payload: &[u8]) -> Result<VerifiedImage, RecordError> {
    let (digest, rest) = payload.split_first_chunk::<HASH_BYTES>().ok_or(RecordError::Truncated)?;
    let (image_id, rest) = rest.split_first_chunk::<HASH_BYTES>().ok_or(RecordError::Truncated)?;
    let (chain_id, repository) = rest.split_first_chunk::<HASH_BYTES>().ok_or(RecordError::Truncated)?;
    let repository = str::from_utf8(repository).map_err(|_| RecordError::Text)?;
    Ok(VerifiedImage {
        repository: repository.parse()?,
        digest: ManifestDigest::new(Sha256::from_bytes(*digest)),
        image_id: ImageId::new(Sha256::from_bytes(*image_id)),
        chain_id: ChainId::new(Sha256::from_bytes(*chain_id)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_is_read_only_whole_unchanged_and_under_its_own_key() {
        let sealed = seal(b"key", b"payload");
        assert_eq!(open(b"key", &sealed), Ok(b"payload".as_slice()));
        assert_eq!(open(b"kez", &sealed), Err(RecordError::Hash));
        for at in 1..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert_eq!(open(b"key", &flipped), Err(RecordError::Hash), "{at}");
        }
        assert_eq!(open(b"key", &[]), Err(RecordError::Truncated));
        assert_eq!(open(b"key", &sealed[..20]), Err(RecordError::Truncated));
        let mut newer = sealed;
        newer[0] = VALUE_VERSION + 1;
        assert_eq!(open(b"key", &newer), Err(RecordError::Version(VALUE_VERSION + 1)));
    }
}
