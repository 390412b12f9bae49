//! Counting signatures: the one place, for roots, base roles and delegations alike.

use alloc::collections::BTreeMap;

use crate::certificate::Bundle;
use crate::document::Envelope;
use crate::facts::Facts;
use crate::key::{CanonicalKeyId, Key, UsableKey};
use crate::time::UnixTime;

/// A key that has signed. One that signed under several certificates is good until the last of them ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signer {
    /// When the certificate that the key was listed with ends; none: it was listed without one.
    pub(crate) certificate_ends: Option<UnixTime>,
    /// When the first of that certificate and of those that came with it ends.
    pub(crate) bundle_ends: Option<UnixTime>,
}

impl Signer {
    fn of(key: &UsableKey) -> Self {
        let bundle = key.bundle.as_ref();
        Self { certificate_ends: bundle.map(|bundle| bundle.leaf().not_after), bundle_ends: bundle.map(Bundle::ends) }
    }

    fn or(self, other: Self) -> Self {
        let later = |a: Option<UnixTime>, b: Option<UnixTime>| a.zip(b).map(|(a, b)| a.max(b));
        Self {
            certificate_ends: later(self.certificate_ends, other.certificate_ends),
            bundle_ends: later(self.bundle_ends, other.bundle_ends),
        }
    }
}

/// Who has signed a document, each once.
pub(crate) type Signers = BTreeMap<CanonicalKeyId, Signer>;

/// The distinct keys among `keys` that have signed `envelope`.
///
/// Counted by canonical ID: one key under two certificates has two key IDs, and would let one signer meet a threshold
/// of two (`docs/notary-v1.md`, 5; the reference counts key IDs).
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
            let signer = Signer::of(usable);
            signers.entry(usable.canonical_id).and_modify(|other| *other = other.or(signer)).or_insert(signer);
        }
    }
    signers
}
