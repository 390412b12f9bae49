//! Certificates that keys are wrapped in.
//!
//! Notary's certificates are name tags, not links of a PKI: their own signature is not checked, nor key usage
//! (`docs/notary-v1.md`, 7.1).

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use spki::ObjectIdentifier;
use spki::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::BasicConstraints;
use x509_cert::ext::pkix::name::DirectoryString;

use crate::base64;
use crate::time::UnixTime;

/// More certificates than any chain has.
const MAX_CERTIFICATES: usize = 16;
/// A certificate may begin this long after `now`: clocks of signers run ahead (notary `tuf/utils/x509.go`).
const NOT_BEFORE_LEEWAY_SECONDS: i64 = 24 * 60 * 60;
const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----\n";
const PEM_END: &str = "-----END CERTIFICATE-----\n";
const PEM_COLUMNS: usize = 64;
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// Signature algorithms by MD2, MD5 and SHA-1.
const BROKEN_ALGORITHMS: [ObjectIdentifier; 7] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.2"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"),
    ObjectIdentifier::new_unwrap("1.3.14.3.2.29"),
    ObjectIdentifier::new_unwrap("1.3.14.3.2.27"),
    ObjectIdentifier::new_unwrap("1.2.840.10040.4.3"),
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"),
];

/// Why a certificate is unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Not exactly the PEM that Go writes.
    #[error("its PEM text is not in canonical form")]
    Pem,
    /// Not X.509.
    #[error("it is not an X.509 certificate")]
    Malformed,
    /// Signed with a hash that is broken.
    #[error("it is signed with SHA-1 or older")]
    BrokenHash,
    /// The bundle does not begin with its only leaf.
    #[error("the bundle must hold exactly one leaf certificate, and that first")]
    NotOneLeaf,
    /// The common name is not the repository's.
    #[error("its common name `{found}` does not cover the repository")]
    CommonName {
        /// The name, cut and escaped.
        found: String,
    },
    /// It begins later than a day from now, or ends before it begins.
    #[error("it is not valid before {0}")]
    NotYetValid(UnixTime),
    /// It has ended.
    #[error("it ended at {0}")]
    Expired(UnixTime),
}

/// What is used of a certificate.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub(crate) common_name: Option<String>,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    pub(crate) is_authority: bool,
    pub(crate) has_broken_hash: bool,
    /// `SubjectPublicKeyInfo`, DER.
    pub(crate) public_key: Vec<u8>,
}

/// A leaf certificate and what came with it.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    leaf: Certificate,
    others: Vec<Certificate>,
}

impl Bundle {
    /// Reads certificates in exactly the PEM form that Go writes: other spellings of one certificate would give a key
    /// other IDs.
    pub(crate) fn read(pem: &[u8]) -> Result<Self, CertificateError> {
        let mut rest = core::str::from_utf8(pem).map_err(|_| CertificateError::Pem)?;
        let mut certificates = Vec::new();
        while !rest.is_empty() {
            let (der, after) = pem_block(rest).ok_or(CertificateError::Pem)?;
            certificates.push(Certificate::read(&der)?);
            rest = after;
            if certificates.len() > MAX_CERTIFICATES {
                return Err(CertificateError::Malformed);
            }
        }
        let mut certificates = certificates.into_iter();
        let leaf = certificates.next().ok_or(CertificateError::Pem)?;
        if leaf.has_broken_hash {
            return Err(CertificateError::BrokenHash);
        }
        Ok(Self { leaf, others: certificates.collect() })
    }

    pub(crate) const fn leaf(&self) -> &Certificate {
        &self.leaf
    }

    /// The checks on a root key's certificates that hold at any time (`docs/notary-v1.md`, 7.1, points 2, 3 and 5).
    pub(crate) fn fits_root_of(&self, gun: &str) -> Result<(), CertificateError> {
        if self.leaf.is_authority || self.others.iter().any(|other| !other.is_authority) {
            return Err(CertificateError::NotOneLeaf);
        }
        if self.others.iter().any(|other| other.has_broken_hash) {
            return Err(CertificateError::BrokenHash);
        }
        let name = self.leaf.common_name.as_deref().unwrap_or_default();
        if common_name_covers(name, gun) { Ok(()) } else { Err(CertificateError::CommonName { found: crate::name::shown(name) }) }
    }

    /// When the first certificate of the bundle ends.
    pub(crate) fn ends(&self) -> UnixTime {
        self.others.iter().fold(self.leaf.not_after, |end, other| end.min(other.not_after))
    }

    /// Whether every certificate of the bundle is valid at `now` (`docs/notary-v1.md`, 7.1, point 4).
    pub(crate) fn is_valid_at(&self, now: UnixTime) -> Result<(), CertificateError> {
        core::iter::once(&self.leaf).chain(&self.others).try_for_each(|certificate| certificate.is_valid_at(now))
    }
}

/// The name itself, or a wildcard directly after a slash. The reference also takes `h.exa*` and a bare `*`, with which
/// one certificate speaks for repositories of other owners.
fn common_name_covers(name: &str, gun: &str) -> bool {
    let prefix = name.trim_end_matches('*');
    if prefix.len() == name.len() { name == gun } else { prefix.ends_with('/') && gun.starts_with(prefix) }
}

/// One certificate block at the start of `text`, and what follows it.
fn pem_block(text: &str) -> Option<(Vec<u8>, &str)> {
    let body = text.strip_prefix(PEM_BEGIN)?;
    let (lines, after) = body.split_once(PEM_END)?;
    let encoded: String = lines.split_terminator('\n').collect();
    let der = base64::decode(&encoded)?;
    (lines == pem_lines(&encoded)).then_some((der, after))
}

fn pem_lines(encoded: &str) -> String {
    let mut lines = String::with_capacity(encoded.len() + encoded.len() / PEM_COLUMNS + 1);
    for (at, character) in encoded.chars().enumerate() {
        if at > 0 && at % PEM_COLUMNS == 0 {
            lines.push('\n');
        }
        lines.push(character);
    }
    lines.push('\n');
    lines
}

impl Certificate {
    pub(crate) fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let malformed = |_| CertificateError::Malformed;
        let certificate = x509_cert::Certificate::from_der(der).map_err(malformed)?;
        let body = certificate.tbs_certificate();
        let constraints = body.get_extension::<BasicConstraints>().map_err(|_| CertificateError::Malformed)?;
        Ok(Self {
            common_name: common_name(body)?,
            not_before: moment(body.validity().not_before)?,
            not_after: moment(body.validity().not_after)?,
            is_authority: constraints.is_some_and(|(_, constraints)| constraints.ca),
            has_broken_hash: BROKEN_ALGORITHMS.contains(&certificate.signature_algorithm().oid),
            public_key: body.subject_public_key_info().to_der().map_err(malformed)?,
        })
    }

    /// Whether `now` lies within the certificate's validity, with a day's leeway at its start.
    pub(crate) fn is_valid_at(&self, now: UnixTime) -> Result<(), CertificateError> {
        if self.not_before > now.plus_seconds(NOT_BEFORE_LEEWAY_SECONDS) || self.not_before > self.not_after {
            return Err(CertificateError::NotYetValid(self.not_before));
        }
        if self.not_after < now { Err(CertificateError::Expired(self.not_after)) } else { Ok(()) }
    }
}

/// The subject's common name. Several would leave open which one speaks.
fn common_name(body: &x509_cert::TbsCertificate) -> Result<Option<String>, CertificateError> {
    let mut names = body.subject().iter().filter(|attribute| attribute.oid == COMMON_NAME);
    let Some(first) = names.next() else { return Ok(None) };
    if names.next().is_some() {
        return Err(CertificateError::Malformed);
    }
    let text = first.value.decode_as::<DirectoryString>().map_err(|_| CertificateError::Malformed)?;
    Ok(Some(text.value().to_string()))
}

fn moment(time: x509_cert::time::Time) -> Result<UnixTime, CertificateError> {
    let seconds = i64::try_from(time.to_unix_duration().as_secs()).map_err(|_| CertificateError::Malformed)?;
    Ok(UnixTime::from_seconds(seconds))
}

#[cfg(test)]
mod tests {
    use super::common_name_covers;

    #[test]
    fn a_wildcard_common_name_stands_only_after_a_slash() {
        for (name, covers) in [
            ("h.example/team/app", true),
            ("h.example/team/*", true),
            ("h.example/team/**", true),
            ("h.example/team/a*", false),
            ("h.exa*", false),
            ("*", false),
            ("h.example/team", false),
            ("h.example/*/app", false),
            ("h.example/team/app/", false),
        ] {
            assert_eq!(common_name_covers(name, "h.example/team/app"), covers, "{name}");
        }
        assert!(!common_name_covers("h.example/team/*", "h.example/team-evil/app"));
    }
}
