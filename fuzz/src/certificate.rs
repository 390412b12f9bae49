//! Keys as they are listed, bare and in certificates.
//!
//! A key's ID is the hash of its listed text. One pair has one canonical ID: only the plain encoding of a public key is
//! read, bare or in a certificate, and the ID is that of the bare key. One certificate has one PEM text. No certificate is
//! for the roots of two owners.

use std::str::FromStr as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_trust::evidence::Gun;
use countersign_trust::fuzzing::{self, ListedKey};
use countersign_trust::name::Repository;
use countersign_trust::time::UnixTime;
use serde_json::json;

use crate::choices::Choices;
use crate::forge;

/// Key types that are known, and one that is not.
const TYPES: [&str; 6] = ["ecdsa", "rsa", "ecdsa-x509", "rsa-x509", "ed25519", "Ecdsa"];
const METHODS: [&str; 3] = ["ecdsa", "rsapss", "eddsa"];
/// Of the three curves, and of RSA with 2048 and 4096 bits.
const SIGNATURE_BYTES: [usize; 5] = [64, 96, 132, 256, 512];

/// The first byte chooses the type and whether signatures are tried, the second what the rest is: what `public` decodes
/// to, the DER of a certificate, or that of two.
pub fn check(data: &[u8]) {
    let mut choices = Choices::new(data);
    let first = choices.byte();
    let key_type = TYPES[usize::from(first & 0x3f) % TYPES.len()];
    let decoded = match choices.byte() % 3 {
        0 => choices.clone().rest().to_vec(),
        1 => forge::pem(choices.clone().rest()).into_bytes(),
        _ => {
            let length = choices.number();
            let leaf = choices.bytes(length.into());
            [forge::pem(leaf), forge::pem(choices.clone().rest())].concat().into_bytes()
        }
    };
    let key = fuzzing::key(key_type, &decoded);
    let object = json!({"keytype": key_type, "keyval": {"private": null, "public": STANDARD.encode(&decoded)}});
    assert_eq!(key.id().to_string(), forge::hex(&forge::sha256(&forge::canonical(&object))));
    match key.canonical_id() {
        Ok(_) => check_usable(key_type, &key, &decoded),
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
    if first & 0x80 != 0 {
        try_signatures(&key, choices.rest());
    }
}

fn check_usable(key_type: &str, key: &ListedKey, decoded: &[u8]) {
    assert_ne!(key_type, "Ecdsa", "a key of an unknown type can be used");
    let Some(certified) = key.certified_key() else {
        assert!(!key_type.ends_with("-x509"));
        assert_eq!(key.canonical_id().ok().map(|id| *id.hash()), Some(*key.id().hash()), "a bare key has one ID");
        assert_eq!(key.plain_encoding().as_deref(), Some(decoded), "another encoding than the plain one is read");
        return;
    };
    let bare_type = key_type.strip_suffix("-x509").expect("only a key of such a type has a certificate");
    let bare = fuzzing::key(bare_type, &certified);
    assert_eq!(bare.canonical_id(), key.canonical_id(), "the certificate changes the canonical ID");
    check_usable(bare_type, &bare, &certified);
    check_text(decoded);
    check_certificates(key);
}

/// The PEM text is the one that its certificates have.
fn check_text(pem: &[u8]) {
    let text = std::str::from_utf8(pem).expect("it was read as PEM");
    let blocks = text.split("-----END CERTIFICATE-----\n").filter(|block| !block.is_empty());
    let again: String = blocks
        .map(|block| {
            let lines = block.strip_prefix("-----BEGIN CERTIFICATE-----\n").expect("a certificate begins so");
            forge::pem(&STANDARD.decode(lines.replace('\n', "")).expect("base64"))
        })
        .collect();
    assert_eq!(again, text);
}

fn check_certificates(key: &ListedKey) {
    let moments = [i64::MIN, 0, 1_893_456_000, i64::MAX].map(UnixTime::from_seconds);
    let guns = ["r.test/team/app", "other.test/team/app"].map(|name| Gun::for_repository(&Repository::from_str(name).unwrap()));
    for now in moments {
        let fits = guns.each_ref().map(|gun| key.fits_root_of(gun, now).is_some_and(|fits| fits.is_ok()));
        assert_ne!(fits, [true; 2], "a certificate for the roots of two owners");
        assert!(fits == [false; 2] || key.ends().is_some_and(|end| end >= now), "a certificate that has ended fits");
    }
}

/// Whatever stands in a signature, it is looked at and no more; a key has one method.
fn try_signatures(key: &ListedKey, bytes: &[u8]) {
    let payload = &bytes[..bytes.len().min(64)];
    for length in SIGNATURE_BYTES {
        let signature: Vec<u8> = bytes.iter().rev().copied().chain(std::iter::repeat(0)).take(length).collect();
        let methods = METHODS.iter().filter(|method| key.verifies(method, payload, &signature));
        assert!(methods.count() <= 1, "the method chooses the algorithm");
    }
}
