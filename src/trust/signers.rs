//! Counting signatures: the one place, for roots, base roles and delegations alike.

use alloc::collections::{BTreeMap, BTreeSet};

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

/// Why a key that has signed does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Discount {
    /// The policy revokes it.
    Revoked,
    /// Its certificate is not valid at the moment, and the policy wants it to be.
    Certificate,
}

/// Whose signatures do not count, good as they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scrutiny<'a> {
    /// Keys that count nowhere.
    pub(crate) revoked: &'a BTreeSet<CanonicalKeyId>,
    /// The moment at which keys that came with a certificate must be valid; none: at no moment.
    pub(crate) certificates_at: Option<UnixTime>,
}

impl Scrutiny<'_> {
    fn discounts(self, key: &UsableKey) -> Option<Discount> {
        if self.revoked.contains(&key.canonical_id) {
            return Some(Discount::Revoked);
        }
        let (moment, bundle) = self.certificates_at.zip(key.bundle.as_ref())?;
        bundle.leaf().is_valid_at(moment).is_err().then_some(Discount::Certificate)
    }
}

/// The signatures of a document, counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) signers: Signers,
    /// Keys that have signed and do not count.
    pub(crate) discounted: BTreeMap<CanonicalKeyId, Discount>,
}

impl Tally {
    /// How many count.
    pub(crate) fn valid(&self) -> u64 {
        self.signers.len() as u64
    }

    /// Whether too few count, which would have been enough without this discount.
    pub(crate) fn fails_for(&self, discount: Discount, needed: u64) -> bool {
        let discounted = self.discounted_for(discount).count() as u64;
        self.valid() < needed && self.valid().saturating_add(discounted) >= needed
    }

    /// The keys that do not count for this reason.
    pub(crate) fn discounted_for(&self, discount: Discount) -> impl Iterator<Item = CanonicalKeyId> {
        self.discounted.iter().filter(move |(_, why)| **why == discount).map(|(key, _)| *key)
    }
}

/// Counts the distinct keys among `keys` that have signed `envelope`.
///
/// Counted by canonical ID: one key under two certificates has two key IDs, and would let one signer meet a threshold
/// of two (`docs/notary-v1.md`, 5; the reference counts key IDs).
pub(crate) fn tally<'k>(envelope: &Envelope, keys: impl Iterator<Item = &'k Key>, scrutiny: Scrutiny<'_>, facts: &mut Facts) -> Tally {
    let mut tally = Tally::default();
    for key in keys {
        let Ok(usable) = &key.usable else { continue };
        let has_signed = envelope
            .signatures
            .iter()
            .filter(|signature| signature.key_id == Some(key.id))
            .any(|signature| facts.verifies(usable, &signature.method, &envelope.payload, &envelope.payload_hash, &signature.value));
        if !has_signed {
            continue;
        }
        if let Some(discount) = scrutiny.discounts(usable) {
            tally.discounted.insert(usable.canonical_id, discount);
            continue;
        }
        let signer = Signer::of(usable);
        tally.signers.entry(usable.canonical_id).and_modify(|other| *other = other.or(signer)).or_insert(signer);
    }
    // One that signed under an ended and a valid certificate counts.
    tally.discounted.retain(|key, _| !tally.signers.contains_key(key));
    tally
}
