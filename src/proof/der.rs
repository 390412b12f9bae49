//! A certificate for a P-256 key, as small as Notary takes one (RFC 5280; `docs/notary-v1.md`, 7.1): a name tag.

/// Bytes of a P-256 public key in its plain form.
pub(super) const SPKI_BYTES: usize = SPKI_HEAD.len() + POINT_BYTES;
/// Bytes of an uncompressed point.
const POINT_BYTES: usize = 65;
/// `SubjectPublicKeyInfo` of an uncompressed P-256 point, up to the point (RFC 5480).
const SPKI_HEAD: [u8; 26] = *b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
/// `ecdsa-with-SHA256` (RFC 5758), as an `AlgorithmIdentifier`.
const ECDSA_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
/// The attribute type `commonName`.
const COMMON_NAME: &[u8] = b"\x06\x03\x55\x04\x03";
/// Version 3, and the serial number 1.
const VERSION_AND_SERIAL: &[u8] = b"\xa0\x03\x02\x01\x02\x02\x01\x01";
/// What is signed with it is valid for an hour; the certificate itself is thrown away with the key.
const VALIDITY: &[u8] = b"\x30\x1e\x17\x0d000101000000Z\x17\x0d491231235959Z";

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const BIT_STRING: u8 = 0x03;
const UTF8_STRING: u8 = 0x0c;

/// A public key in its plain form. A point that is no uncompressed P-256 point gives bytes that are no key.
pub(super) fn p256_spki(point: &[u8]) -> [u8; SPKI_BYTES] {
    let mut bytes = [0; SPKI_BYTES];
    for (place, byte) in bytes.iter_mut().zip(SPKI_HEAD.iter().chain(point)) {
        *place = *byte;
    }
    bytes
}

/// A certificate for `common_name` over the key `spki`, signed by `sign`.
pub(super) fn certificate(common_name: &str, spki: &[u8], sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let attribute = tlv(SEQUENCE, &[COMMON_NAME, &tlv(UTF8_STRING, &[common_name.as_bytes()])]);
    let name = tlv(SEQUENCE, &[&tlv(SET, &[&attribute])]);
    let body = tlv(SEQUENCE, &[VERSION_AND_SERIAL, ECDSA_SHA256, &name, VALIDITY, &name, spki]);
    let signature = sign(&body);
    tlv(SEQUENCE, &[&body, ECDSA_SHA256, &tlv(BIT_STRING, &[&[0], &signature])])
}

/// One value with its tag and its length.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [.., high, low] = content.len().to_be_bytes();
    let mut bytes = vec![tag];
    match content.len() {
        0..=0x7f => bytes.push(low),
        0x80..=0xff => bytes.extend([0x81, low]),
        _ => bytes.extend([0x82, high, low]),
    }
    bytes.extend(content);
    bytes
}
