//! The key of a signer, as it is found in a client bundle: `cert.pem`, or a public key.

use alloc::string::String;
use alloc::vec::Vec;

use crate::base64;
use crate::certificate::{Certificate, CertificateError};
use crate::key::{CanonicalKeyId, KeyFault, canonical_id_of};
use crate::name::shown;
use crate::time::UnixTime;

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";
const CERTIFICATE: &str = "CERTIFICATE";
const PUBLIC_KEY: &str = "PUBLIC KEY";
/// Part of the label of every kind of private key.
const PRIVATE: &str = "PRIVATE KEY";

/// A signer's key, and how long the certificate that it came in is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignerKey {
    /// The key, whatever it is wrapped in.
    pub id: CanonicalKeyId,
    /// From when on and until when the certificate is valid; none for a bare key.
    pub validity: Option<(UnixTime, UnixTime)>,
}

/// Why a text is not the key of a signer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignerKeyError {
    /// The text has no PEM block, or its first one is cut or not base64.
    #[error("it is not PEM text: it must have `-----BEGIN CERTIFICATE-----` or `-----BEGIN PUBLIC KEY-----`")]
    NotPem,
    /// A private key is nowhere needed here.
    #[error(
        "it holds a private key, which must stay with the signer: give the certificate (cert.pem) or the public key, and replace the key if others could read this file"
    )]
    PrivateKey,
    /// A block of another kind.
    #[error("it holds `{0}`, which is neither a certificate nor a public key")]
    Label(String),
    /// The certificate cannot be read.
    #[error("its certificate cannot be used: {0}")]
    Certificate(CertificateError),
    /// The key cannot be used.
    #[error("its key cannot be used: {0}")]
    Key(KeyFault),
}

impl SignerKey {
    /// Reads PEM text whose first block is the signer's certificate or public key. Certificates that follow are those of
    /// authorities, and say nothing here: a signer is known by the key.
    ///
    /// # Errors
    /// [`SignerKeyError`]; no message holds anything of the text but a label.
    pub fn read(pem: &str) -> Result<Self, SignerKeyError> {
        if pem.contains(PRIVATE) {
            return Err(SignerKeyError::PrivateKey);
        }
        let (label, der) = first_block(pem).ok_or(SignerKeyError::NotPem)?;
        match label {
            CERTIFICATE => {
                let certificate = Certificate::read(&der).map_err(SignerKeyError::Certificate)?;
                let id = canonical_id_of(&certificate.public_key).map_err(SignerKeyError::Key)?;
                Ok(Self { id, validity: Some((certificate.not_before, certificate.not_after)) })
            }
            PUBLIC_KEY => Ok(Self { id: canonical_id_of(&der).map_err(SignerKeyError::Key)?, validity: None }),
            other => Err(SignerKeyError::Label(shown(other))),
        }
    }
}

/// The label and the content of the first block. Unlike in trust data, lines may have any length and end: a person's editor
/// may have been at it, and nothing is named by this text.
fn first_block(pem: &str) -> Option<(&str, Vec<u8>)> {
    let (_, after) = pem.split_once(BEGIN)?;
    let (label, body) = after.split_once(DASHES)?;
    let (body, end) = body.split_once("-----END ")?;
    if end.strip_prefix(label).is_none_or(|rest| !rest.starts_with(DASHES)) {
        return None;
    }
    let encoded: String = body.split_ascii_whitespace().collect();
    Some((label, base64::decode(&encoded)?))
}
