//! Key pairs, and how they are listed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Signer as _;
use rcgen::PublicKeyData as _;
use serde_json::{Value, json};

use super::certificates::{certificate, leaf};
use super::text::canonical;
use super::{hex, sha256};

#[derive(Clone)]
enum Secret {
    P256(Box<p256::ecdsa::SigningKey>),
    Ed25519(Box<ed25519_dalek::SigningKey>),
    Rsa(Arc<Rsa>, Padding, &'static str),
}

/// An RSA key pair. Nothing makes one from a name, so it is another in each run.
struct Rsa {
    pair: RsaKeyPair,
    certified: rcgen::KeyPair,
}

/// How an RSA key signs.
#[derive(Clone, Copy)]
pub(crate) enum Padding {
    Pss,
    Pkcs1,
}

/// The key pairs of this run, by their bits: making one takes long.
static RSA: Mutex<BTreeMap<usize, Arc<Rsa>>> = Mutex::new(BTreeMap::new());

fn rsa(bits: usize) -> Arc<Rsa> {
    let size = match bits {
        2048 => rcgen::RsaKeySize::_2048,
        3072 => rcgen::RsaKeySize::_3072,
        other => panic!("{other} bits"),
    };
    let new = || {
        let certified = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap();
        Arc::new(Rsa { pair: RsaKeyPair::from_pkcs8(&certified.serialize_der()).unwrap(), certified })
    };
    RSA.lock().unwrap().entry(bits).or_insert_with(new).clone()
}

/// A key pair and how it is listed.
#[derive(Clone)]
pub(crate) struct Key {
    secret: Secret,
    pub(crate) key_type: String,
    /// As it stands in `keyval.public`.
    pub(crate) public: String,
}

impl Key {
    /// A bare P-256 key.
    pub(crate) fn new(name: &str) -> Self {
        let secret = p256::ecdsa::SigningKey::from_slice(&sha256(name.as_bytes())).unwrap();
        let public = STANDARD.encode(spki(&secret));
        Self { secret: Secret::P256(Box::new(secret)), key_type: "ecdsa".into(), public }
    }

    pub(crate) fn ed25519(name: &str) -> Self {
        let secret = ed25519_dalek::SigningKey::from_bytes(&sha256(name.as_bytes()));
        let public = STANDARD.encode(secret.verifying_key().as_bytes());
        Self { secret: Secret::Ed25519(Box::new(secret)), key_type: "ed25519".into(), public }
    }

    /// A bare RSA key that signs as the tools do.
    pub(crate) fn rsa(bits: usize) -> Self {
        let rsa = rsa(bits);
        let public = STANDARD.encode(rsa.certified.subject_public_key_info());
        Self { secret: Secret::Rsa(rsa, Padding::Pss, "rsapss"), key_type: "rsa".into(), public }
    }

    /// An RSA key in a certificate for `common_name`.
    pub(crate) fn certified_rsa(bits: usize, common_name: &str) -> Self {
        let certificate = leaf(common_name).self_signed(&rsa(bits).certified).unwrap();
        Self::rsa(bits).listed_as("rsa-x509", super::pem(certificate.der()).as_bytes())
    }

    /// The same RSA key, signing in another way.
    pub(crate) fn signing_by(self, padding: Padding, method: &'static str) -> Self {
        let Secret::Rsa(rsa, ..) = self.secret else { panic!("{} has one way", self.key_type) };
        Self { secret: Secret::Rsa(rsa, padding, method), ..self }
    }

    /// The P-256 key `name` in a certificate for `common_name`.
    pub(crate) fn certified(name: &str, common_name: &str) -> Self {
        Self::in_certificate(name, &certificate(name, &leaf(common_name)))
    }

    pub(crate) fn in_certificate(name: &str, pem: &str) -> Self {
        Self { key_type: "ecdsa-x509".into(), public: STANDARD.encode(pem), ..Self::new(name) }
    }

    pub(crate) fn listed_as(self, key_type: &str, public: &[u8]) -> Self {
        Self { key_type: key_type.into(), public: STANDARD.encode(public), ..self }
    }

    pub(crate) fn of_type(self, key_type: &str) -> Self {
        Self { key_type: key_type.into(), ..self }
    }

    /// What the public half says.
    pub(crate) fn decoded(&self) -> Vec<u8> {
        STANDARD.decode(&self.public).unwrap()
    }

    pub(crate) fn object(&self) -> Value {
        json!({"keytype": self.key_type, "keyval": {"private": null, "public": self.public}})
    }

    pub(crate) fn id(&self) -> String {
        hex(&sha256(&canonical(&self.object())))
    }

    /// The ID of the same pair as a bare key.
    pub(crate) fn canonical_id(&self) -> String {
        let (key_type, public) = match &self.secret {
            Secret::P256(secret) => ("ecdsa", STANDARD.encode(spki(secret))),
            Secret::Rsa(rsa, ..) => ("rsa", STANDARD.encode(rsa.certified.subject_public_key_info())),
            Secret::Ed25519(_) => return self.id(),
        };
        let object = json!({"keytype": key_type, "keyval": {"private": null, "public": public}});
        hex(&sha256(&canonical(&object)))
    }

    pub(crate) fn signature(&self, payload: &[u8]) -> Value {
        let (method, sig) = match &self.secret {
            Secret::P256(secret) => {
                let signature: p256::ecdsa::Signature = secret.sign(payload);
                ("ecdsa", signature.to_bytes().to_vec())
            }
            Secret::Ed25519(secret) => ("eddsa", secret.sign(payload).to_bytes().to_vec()),
            Secret::Rsa(rsa, padding, method) => (*method, rsa.sign(*padding, payload)),
        };
        json!({"keyid": self.id(), "method": method, "sig": STANDARD.encode(sig)})
    }
}

impl Rsa {
    fn sign(&self, padding: Padding, payload: &[u8]) -> Vec<u8> {
        let padding = match padding {
            Padding::Pss => &RSA_PSS_SHA256,
            Padding::Pkcs1 => &RSA_PKCS1_SHA256,
        };
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(padding, &aws_lc_rs::rand::SystemRandom::new(), payload, &mut signature).unwrap();
        signature
    }
}

fn spki(secret: &p256::ecdsa::SigningKey) -> Vec<u8> {
    const P256_SPKI: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
    [P256_SPKI, secret.verifying_key().to_sec1_point(false).as_bytes()].concat()
}
