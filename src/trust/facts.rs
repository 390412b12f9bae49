//! Cryptographic facts and readings, remembered by hash.
//!
//! They are functions of bytes alone, so remembering them changes no verdict; it only makes a repeated evaluation of
//! the same evidence cost microseconds instead of milliseconds. Policy, clock and floors are looked at every time.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use signature::hazmat::PrehashVerifier as _;

use crate::document::{Kind, Reading};
use crate::evidence::Body;
use crate::key::{Material, RsaKey, UsableKey};
use crate::name::Sha256;
use crate::policy::JsonForm;

/// Signatures that one evaluation verifies, remembered or not: four for each of the 1,024 roles that it may load. A
/// server may put 256 bad ones into each file, and each costs up to a millisecond.
pub(crate) const MAX_SIGNATURE_CHECKS: u32 = 4096;

/// What was found out about bytes in earlier evaluations.
#[derive(Debug, Default)]
// A fuzzer begins each of its runs with what is true of the undamaged files.
#[cfg_attr(fuzzing, derive(Clone))]
pub struct Facts {
    round: u64,
    signature_checks: u32,
    signatures: BTreeMap<Sha256, Remembered<bool>>,
    readings: BTreeMap<((Kind, JsonForm), Sha256), Remembered<Reading>>,
    sha512: BTreeMap<Sha256, Remembered<Vec<u8>>>,
}

#[derive(Debug)]
#[cfg_attr(fuzzing, derive(Clone))]
struct Remembered<T> {
    fact: T,
    last_used: u64,
}

impl Facts {
    /// Begins an evaluation.
    pub(crate) fn begin(&mut self) {
        self.round = self.round.wrapping_add(1);
        self.signature_checks = 0;
    }

    /// Whether this evaluation has met more signatures than it may verify; the others counted as bad.
    pub(crate) const fn is_exhausted(&self) -> bool {
        self.signature_checks > MAX_SIGNATURE_CHECKS
    }

    /// Ends an evaluation: what it did not use is forgotten, so that the memory is that of one repository's state.
    pub(crate) fn end(&mut self) {
        let round = self.round;
        self.signatures.retain(|_, remembered| remembered.last_used == round);
        self.readings.retain(|_, remembered| remembered.last_used == round);
        self.sha512.retain(|_, remembered| remembered.last_used == round);
    }

    /// The reading of a file with this hash as this kind, in this form; `read` is called when it is not known yet.
    pub(crate) fn reading(&mut self, kind: (Kind, JsonForm), hash: Sha256, read: impl FnOnce() -> Reading) -> Reading {
        let round = self.round;
        let remembered = self.readings.entry((kind, hash)).or_insert_with(|| Remembered { fact: read(), last_used: round });
        remembered.last_used = round;
        remembered.fact.clone()
    }

    /// The SHA-512 of a file, known by its SHA-256.
    pub(crate) fn sha512(&mut self, body: &Body) -> Vec<u8> {
        use sha2::Digest as _;
        let round = self.round;
        let hash = || Remembered { fact: sha2::Sha512::digest(body.bytes()).to_vec(), last_used: round };
        let remembered = self.sha512.entry(*body.hash()).or_insert_with(hash);
        remembered.last_used = round;
        remembered.fact.clone()
    }

    /// Whether `signature` by `method` is `key`'s over `payload`, whose hash is `payload_hash`. Counted even when it is
    /// remembered, so that a verdict does not depend on what is.
    pub(crate) fn verifies(&mut self, key: &UsableKey, method: &str, payload: &[u8], payload_hash: &Sha256, signature: &[u8]) -> bool {
        self.signature_checks = self.signature_checks.saturating_add(1);
        if self.is_exhausted() {
            return false;
        }
        let name = fact_name(key, method, payload_hash, signature);
        let round = self.round;
        let verify = || Remembered { fact: verifies(&key.material, method, payload, payload_hash, signature), last_used: round };
        let remembered = self.signatures.entry(name).or_insert_with(verify);
        remembered.last_used = round;
        remembered.fact
    }
}

/// A hash over everything that the fact depends on, each part with its length.
fn fact_name(key: &UsableKey, method: &str, payload_hash: &Sha256, signature: &[u8]) -> Sha256 {
    use sha2::Digest as _;
    let mut hasher = sha2::Sha256::new();
    for part in [key.canonical_id.hash().as_bytes().as_slice(), method.as_bytes(), payload_hash.as_bytes(), signature] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    Sha256::from_bytes(hasher.finalize().into())
}

/// The only place where a signature is verified. The key chooses the algorithm; a `method` that does not fit it is no
/// signature, and there is no fallback (`docs/notary-v1.md`, 5).
fn verifies(key: &Material, method: &str, payload: &[u8], payload_hash: &Sha256, signature: &[u8]) -> bool {
    let prehash = payload_hash.as_bytes();
    match (key, method) {
        (Material::P256(key), "ecdsa") => ecdsa_p256(key, prehash, signature),
        (Material::P384(key), "ecdsa") => {
            p384::ecdsa::Signature::from_slice(signature).is_ok_and(|signature| key.verify_prehash(prehash, &signature).is_ok())
        }
        (Material::P521(key), "ecdsa") => {
            // p521 wants a prehash of at least half the field's size; leading zeros leave the number unchanged.
            let mut padded = [0_u8; 66];
            let (_, tail) = padded.split_at_mut(34);
            tail.copy_from_slice(prehash);
            p521::ecdsa::Signature::from_slice(signature).is_ok_and(|signature| key.verify_prehash(&padded, &signature).is_ok())
        }
        (Material::Rsa(key), "rsapss") => rsa_pss(key, prehash, signature),
        (Material::Ed25519(key), "eddsa") => {
            ed25519_dalek::Signature::from_slice(signature).is_ok_and(|signature| key.verify_strict(payload, &signature).is_ok())
        }
        _ => false,
    }
}

/// ECDSA on P-256: every key that Notary makes itself, so this is most of what a verdict costs. AWS-LC takes a fifth of the time that
/// `p256` takes.
fn ecdsa_p256(key: &p256::ecdsa::VerifyingKey, prehash: &[u8; 32], signature: &[u8]) -> bool {
    let Ok(digest) = Digest::import_less_safe(prehash, &SHA256) else { return false };
    let point = key.to_sec1_point(false);
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point.as_bytes()).verify_digest(&digest, signature).is_ok()
}

/// RSASSA-PSS with SHA-256, MGF1-SHA-256 and a salt of exactly 32 bytes.
fn rsa_pss(key: &RsaKey, prehash: &[u8; 32], signature: &[u8]) -> bool {
    if signature.len() != key.signature_bytes() {
        return false;
    }
    let Some(key) = key.ready() else { return false };
    let verifying_key = rsa::pss::VerifyingKey::<sha2::Sha256>::new(key);
    rsa::pss::Signature::try_from(signature).is_ok_and(|signature| verifying_key.verify_prehash(prehash, &signature).is_ok())
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
    use proptest::prelude::*;
    use signature::hazmat::PrehashSigner as _;

    use super::*;

    /// The order of the group of P-256, big-endian.
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17,
        0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];

    /// Another implementation of the same.
    fn second_opinion(key: &VerifyingKey, prehash: &[u8; 32], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| key.verify_prehash(prehash, &signature).is_ok())
    }

    fn signed(secret: u8, prehash: [u8; 32]) -> (VerifyingKey, Vec<u8>) {
        let key = SigningKey::from_slice(&[secret; 32]).unwrap();
        let signature: Signature = key.sign_prehash(&prehash).unwrap();
        (*key.verifying_key(), signature.to_bytes().to_vec())
    }

    #[test]
    fn the_two_numbers_of_a_signature_are_in_range_and_stand_in_64_bytes() {
        let prehash = [7; 32];
        let (key, good) = signed(1, prehash);
        assert!(ecdsa_p256(&key, &prehash, &good));
        let (r, s) = good.split_at(32);
        let other = Signature::from_slice(&good).unwrap();
        let mirrored = Signature::from_scalars(other.r().to_bytes(), (-*other.s()).to_bytes()).unwrap().to_bytes().to_vec();
        assert!(ecdsa_p256(&key, &prehash, &mirrored), "the reference takes both");
        let der = other.to_der().as_bytes().to_vec();
        let (zero, padded): ([u8; 32], Vec<u8>) = ([0; 32], [&[0_u8], r, &[0_u8], s].concat());
        for (what, bad) in [
            ("nothing", Vec::new()),
            ("no r", [&zero, s].concat()),
            ("no s", [r, &zero].concat()),
            ("neither", [zero, zero].concat()),
            ("r is the order", [&ORDER, s].concat()),
            ("s is the order", [r, &ORDER].concat()),
            ("the largest numbers", [0xff; 64].to_vec()),
            ("the numbers changed round", [s, r].concat()),
            ("a byte too few", good.iter().take(63).copied().collect()),
            ("a byte too many", [good.as_slice(), &[0]].concat()),
            ("a zero before each number", padded),
            ("DER", der),
        ] {
            assert_eq!((ecdsa_p256(&key, &prehash, &bad), second_opinion(&key, &prehash, &bad)), (false, false), "{what}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_signature_is_judged_as_another_implementation_judges_it(
            secret in 1..=254_u8, prehash: [u8; 32], signed_over: Option<[u8; 32]>, changes in prop::collection::vec((0..64_usize, any::<u8>()), 0..3),
        ) {
            let (key, mut signature) = signed(secret, signed_over.unwrap_or(prehash));
            for (place, byte) in changes {
                signature[place] = byte;
            }
            prop_assert_eq!(ecdsa_p256(&key, &prehash, &signature), second_opinion(&key, &prehash, &signature));
        }
    }
}
