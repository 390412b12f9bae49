//! Key pairs, and how they are listed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Signer as _;
use serde_json::{Value, json};

use super::certificates::{certificate, leaf};
use super::text::canonical;
use super::{hex, sha256};

#[derive(Clone)]
enum Secret {
    P256(Box<p256::ecdsa::SigningKey>),
    Ed25519(Box<ed25519_dalek::SigningKey>),
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
        match &self.secret {
            Secret::P256(secret) => {
                let object = json!({"keytype": "ecdsa", "keyval": {"private": null, "public": STANDARD.encode(spki(secret))}});
                hex(&sha256(&canonical(&object)))
            }
            Secret::Ed25519(_) => self.id(),
        }
    }

    pub(crate) fn signature(&self, payload: &[u8]) -> Value {
        let (method, sig) = match &self.secret {
            Secret::P256(secret) => {
                let signature: p256::ecdsa::Signature = secret.sign(payload);
                ("ecdsa", signature.to_bytes().to_vec())
            }
            Secret::Ed25519(secret) => ("eddsa", secret.sign(payload).to_bytes().to_vec()),
        };
        json!({"keyid": self.id(), "method": method, "sig": STANDARD.encode(sig)})
    }
}

fn spki(secret: &p256::ecdsa::SigningKey) -> Vec<u8> {
    const P256_SPKI: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
    [P256_SPKI, secret.verifying_key().to_sec1_point(false).as_bytes()].concat()
}
