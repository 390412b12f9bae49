//! Counting signatures: the one place, for roots, base roles and delegations alike.

use alloc::collections::BTreeMap;

use crate::document::Envelope;
use crate::facts::Facts;
use crate::key::{CanonicalKeyId, Key};
use crate::time::UnixTime;

/// A key that has signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signer {
    /// When the certificate that the key was listed with ends, if it has one.
    pub(crate) certificate_ends: Option<UnixTime>,
}

/// Who has signed a document, each once.
pub(crate) type Signers = BTreeMap<CanonicalKeyId, Signer>;

/// The distinct keys among `keys` that have signed `envelope`.
///
/// Counted by canonical ID: one key under two certificates has two key IDs, and would let one signer meet a threshold
/// of two (`notary-v1.md`, "Threshold rule"; the reference counts key IDs).
pub(crate) fn signers<'k>(envelope: &Envelope, keys: impl Iterator<Item = &'k Key>, facts: &mut Facts) -> Signers {
    let mut signers = Signers::new();
    for key in keys {
        let Ok(usable) = &key.usable else { continue };
        let has_signed = envelope
            .signatures
            .iter()
            .filter(|signature| signature.key_id == Some(key.id))
            .any(|signature| facts.verifies(usable, &signature.method, &envelope.payload, &envelope.payload_hash, &signature.value));
        if has_signed {
            let certificate_ends = usable.bundle.as_ref().map(|bundle| bundle.leaf().not_after);
            signers.insert(usable.canonical_id, Signer { certificate_ends });
        }
    }
    signers
}
