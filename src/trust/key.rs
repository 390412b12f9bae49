//! Public keys as Notary lists them, and their two names.
//!
//! A key that cannot be used (unknown type, odd curve, short modulus, broken certificate) is still a listed key with
//! an ID; it just never verifies anything. So one signer's broken key cannot take a whole repository down.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;

use spki::der::{Decode as _, Encode as _};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use crate::base64;
use crate::certificate::{Bundle, CertificateError};
use crate::json::write_string;
use crate::name::{Sha256, hash_type};

pub(crate) const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
pub(crate) const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
pub(crate) const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
pub(crate) const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
/// First byte of an uncompressed curve point. Compressed ones would give one key two encodings.
const UNCOMPRESSED: u8 = 0x04;
/// Shorter keys never verify (notary `tuf/utils/x509.go`).
const MIN_RSA_BITS: usize = 2048;
/// More keys than anybody reads of in a message.
const MOST_LISTED: usize = 5;
/// Longer keys only cost time; the reference has no bound.
const MAX_RSA_BITS: usize = 8192;
/// Smaller ones are weak; a larger one makes checking a signature as slow as making one.
const RSA_EXPONENTS: RangeInclusive<u64> = 65_537..=(1 << 33) - 1;

hash_type! {
    /// The name of a key as it is listed, with its certificate if it has one (`docs/notary-v1.md`, 4.1). For root keys
    /// this is the *certificate ID* of `cert-ids`.
    KeyId, "{}"
}
hash_type! {
    /// The name that a key pair has as a bare key, whatever certificate it is wrapped in (`docs/notary-v1.md`,
    /// 4.2). Signers are counted, and `root-keys` are pinned, by it.
    CanonicalKeyId, "{}"
}

/// Why a listed key never verifies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// A key type that this version does not know, or that is spelled otherwise.
    #[error("its type is unknown")]
    UnknownType,
    /// The public key cannot be read in its plain form.
    #[error("its public key is malformed")]
    Malformed,
    /// A curve other than P-256, P-384 and P-521.
    #[error("its curve is not supported")]
    Curve,
    /// An RSA key outside 2048 to 8192 bits or with a small or even exponent.
    #[error("its RSA modulus or exponent is out of range")]
    RsaSize,
    /// The certificate's key is of another algorithm than the listed type.
    #[error("its type differs from its certificate's key")]
    TypeDiffers,
    /// The certificate is unusable.
    #[error("its certificate is unusable")]
    Certificate(#[source] CertificateError),
}

/// A key that can verify signatures.
#[derive(Debug, Clone)]
pub(crate) enum Material {
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
    P521(p521::ecdsa::VerifyingKey),
    Rsa(RsaKey),
    Ed25519(ed25519_dalek::VerifyingKey),
}

/// An RSA key as it is listed. Getting it ready costs more than checking a signature with it, and a file can list thousands
/// of keys that nobody uses: so that is done when there is a signature.
#[derive(Debug, Clone)]
pub(crate) struct RsaKey {
    /// `RSAPublicKey` of PKCS #1, DER.
    numbers: Vec<u8>,
    modulus_bytes: usize,
}

impl RsaKey {
    /// How long its signatures are.
    pub(crate) const fn signature_bytes(&self) -> usize {
        self.modulus_bytes
    }

    /// The key, ready to check signatures with.
    pub(crate) fn ready(&self) -> Option<rsa::RsaPublicKey> {
        use rsa::pkcs1::DecodeRsaPublicKey as _;
        rsa::RsaPublicKey::from_pkcs1_der(&self.numbers).ok()
    }
}

/// A key that can be used: its material, its name as a bare key, and the certificate it came in.
#[derive(Debug, Clone)]
pub(crate) struct UsableKey {
    pub(crate) material: Material,
    pub(crate) canonical_id: CanonicalKeyId,
    pub(crate) bundle: Option<Bundle>,
}

/// A listed key.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) id: KeyId,
    pub(crate) usable: Result<UsableKey, KeyFault>,
}

impl Key {
    /// Reads a key object's two texts. `public` is base64 that was checked to be canonical, and `decoded` what it says.
    pub(crate) fn read(key_type: &str, public: &str, decoded: &[u8]) -> Self {
        Self { id: KeyId(id_of(key_type, public)), usable: usable(key_type, decoded) }
    }
}

/// The hash of a key object's canonical text with an empty private half (`docs/notary-v1.md`, 4.1).
fn id_of(key_type: &str, public: &str) -> Sha256 {
    let mut text = Vec::new();
    text.extend_from_slice(b"{\"keytype\":");
    write_string(&mut text, key_type);
    text.extend_from_slice(b",\"keyval\":{\"private\":null,\"public\":");
    write_string(&mut text, public);
    text.extend_from_slice(b"}}");
    Sha256::of(&text)
}

fn usable(key_type: &str, decoded: &[u8]) -> Result<UsableKey, KeyFault> {
    match key_type {
        "ecdsa" => bare(decoded, "ecdsa"),
        "rsa" => bare(decoded, "rsa"),
        "ecdsa-x509" => certified(decoded, "ecdsa"),
        "rsa-x509" => certified(decoded, "rsa"),
        "ed25519" => ed25519(decoded),
        _ => Err(KeyFault::UnknownType),
    }
}

/// The canonical ID of a public key, `SubjectPublicKeyInfo` in DER.
pub(crate) fn canonical_id_of(spki: &[u8]) -> Result<CanonicalKeyId, KeyFault> {
    let (material, plain) = read_spki(spki)?;
    Ok(CanonicalKeyId(id_of(material.bare_type(), &base64::encode(&plain))))
}

fn bare(spki: &[u8], bare_type: &'static str) -> Result<UsableKey, KeyFault> {
    let (material, plain) = read_spki(spki)?;
    if material.bare_type() != bare_type {
        return Err(KeyFault::TypeDiffers);
    }
    let canonical_id = CanonicalKeyId(id_of(bare_type, &base64::encode(&plain)));
    Ok(UsableKey { material, canonical_id, bundle: None })
}

fn certified(pem: &[u8], bare_type: &'static str) -> Result<UsableKey, KeyFault> {
    let bundle = Bundle::read(pem).map_err(KeyFault::Certificate)?;
    let mut key = bare(&bundle.leaf().public_key, bare_type)?;
    key.bundle = Some(bundle);
    Ok(key)
}

fn ed25519(raw: &[u8]) -> Result<UsableKey, KeyFault> {
    let bytes: &[u8; 32] = raw.try_into().map_err(|_| KeyFault::Malformed)?;
    let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| KeyFault::Malformed)?;
    let canonical_id = CanonicalKeyId(id_of("ed25519", &base64::encode(raw)));
    Ok(UsableKey { material: Material::Ed25519(key), canonical_id, bundle: None })
}

impl Material {
    /// The type that this key has when it is listed without a certificate.
    const fn bare_type(&self) -> &'static str {
        match self {
            Self::P256(_) | Self::P384(_) | Self::P521(_) => "ecdsa",
            Self::Rsa(_) => "rsa",
            Self::Ed25519(_) => "ed25519",
        }
    }
}

/// Reads a `SubjectPublicKeyInfo` and gives it back in its plain form. What is not in plain form already (explicit
/// curve, compressed point, RSASSA-PSS OID) is refused, so that a key pair has one canonical ID.
fn read_spki(der: &[u8]) -> Result<(Material, Vec<u8>), KeyFault> {
    let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| KeyFault::Malformed)?;
    let plain = spki.to_der().map_err(|_| KeyFault::Malformed)?;
    let material = match spki.algorithm.oid {
        EC_PUBLIC_KEY => elliptic(&spki)?,
        RSA_ENCRYPTION => rsa_key(&spki)?,
        _ => return Err(KeyFault::UnknownType),
    };
    Ok((material, plain))
}

fn elliptic(spki: &SubjectPublicKeyInfoRef<'_>) -> Result<Material, KeyFault> {
    let curve = spki.algorithm.parameters_oid().map_err(|_| KeyFault::Curve)?;
    let point = spki.subject_public_key.as_bytes().ok_or(KeyFault::Malformed)?;
    if point.first() != Some(&UNCOMPRESSED) {
        return Err(KeyFault::Malformed);
    }
    let malformed = |_| KeyFault::Malformed;
    match curve {
        P256 => p256::ecdsa::VerifyingKey::from_sec1_bytes(point).map(Material::P256).map_err(malformed),
        P384 => p384::ecdsa::VerifyingKey::from_sec1_bytes(point).map(Material::P384).map_err(malformed),
        P521 => p521::ecdsa::VerifyingKey::from_sec1_bytes(point).map(Material::P521).map_err(malformed),
        _ => Err(KeyFault::Curve),
    }
}

fn rsa_key(spki: &SubjectPublicKeyInfoRef<'_>) -> Result<Material, KeyFault> {
    // Its parameters are NULL and nothing else.
    let numbers = spki.subject_public_key.as_bytes().filter(|_| spki.algorithm == rsa::pkcs1::ALGORITHM_ID);
    let numbers = numbers.ok_or(KeyFault::Malformed)?;
    let key = rsa::pkcs1::RsaPublicKeyRef::try_from(numbers).map_err(|_| KeyFault::Malformed)?;
    let (modulus, exponent) = (key.modulus.as_bytes(), key.public_exponent.as_bytes());
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
    let bits = modulus.len().saturating_mul(8).saturating_sub(modulus.first().map_or(0, |byte| byte.leading_zeros() as usize));
    let exponent_value = exponent.iter().fold(0, |value: u64, byte| value.saturating_mul(256).saturating_add(u64::from(*byte)));
    let in_range = (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) && RSA_EXPONENTS.contains(&exponent_value);
    if in_range && is_odd(modulus) && is_odd(exponent) {
        Ok(Material::Rsa(RsaKey { numbers: numbers.to_vec(), modulus_bytes: modulus.len() }))
    } else {
        Err(KeyFault::RsaSize)
    }
}

/// A key's identity for people: the canonical ID, or what is wrong with it.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.usable {
            Ok(usable) => write!(f, "{} (canonical {})", self.id, usable.canonical_id),
            Err(fault) => write!(f, "{} ({fault})", self.id),
        }
    }
}

/// Reads 64 hexadecimal digits in lower case, as key IDs stand in documents. Any other text names no key.
pub(crate) fn read_id(text: &str) -> Option<KeyId> {
    Sha256::from_hex(text).ok().map(KeyId)
}

/// Names of keys, for messages: the first few. Messages travel in headers, and a root can list thousands.
pub(crate) fn listed<T: fmt::Display>(ids: impl ExactSizeIterator<Item = T>) -> String {
    let more = ids.len().saturating_sub(MOST_LISTED);
    let mut names: Vec<String> = ids.take(MOST_LISTED).map(|id| alloc::format!("{id}")).collect();
    if more > 0 {
        names.push(alloc::format!("and {more} more"));
    }
    names.join(", ")
}
