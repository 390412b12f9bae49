//! Why an image may not be used: a stable code, and a sentence that says what to do.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::certificate::CertificateError;
use crate::delegation::MAX_DEPTH;
use crate::evidence::{FileName, Gun};
use crate::fields::DocumentError;
use crate::key::{CanonicalKeyId, KeyFault, KeyId, listed};
use crate::name::{ImageReference, ManifestDigest, Tag};
use crate::role::{DelegationRole, RoleName};
use crate::time::UnixTime;

/// A root key that is not believed, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRootKey {
    /// Its certificate ID.
    pub id: KeyId,
    /// Its canonical ID, if the key can be read.
    pub canonical_id: Option<CanonicalKeyId>,
    /// What is wrong with it.
    pub why: RootKeyFault,
}

impl fmt::Display for RejectedRootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate ID {}", self.id)?;
        if let Some(canonical) = &self.canonical_id {
            write!(f, " (root key ID {canonical})")?;
        }
        write!(f, ": {}", self.why)
    }
}

/// Why a key of the root role cannot vouch for a repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RootKeyFault {
    /// The key cannot be used at all.
    #[error("{0}")]
    Unusable(KeyFault),
    /// Root keys must come in a certificate.
    #[error("it has no certificate")]
    NoCertificate,
    /// The certificate does not fit.
    #[error("{0}")]
    Certificate(CertificateError),
}

/// Why the signatures do not allow an image. Each has a stable code ([`Reason::code`]).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// No pin of the configuration covers the repository.
    NotPinned,
    /// The evidence is about another repository.
    OtherRepository(Gun),
    /// The server has no trust data for the repository.
    NoTrustData {
        /// Whether this node has verified some of it before.
        had_some: bool,
    },
    /// The tag is not signed, or only in a role that does not release it.
    TagNotSigned,
    /// No tag is signed as this digest.
    DigestNotSigned,
    /// The reference names a digest that is not the signed one of its tag.
    DigestDiffers {
        /// What the tag is signed as.
        signed: ManifestDigest,
    },
    /// The tag's entry has no usable digest.
    TargetUnusable,
    /// A file that other trust data promises is not there.
    FileMissing(FileName),
    /// A file is longer than promised, or than any file of its kind may be.
    TooLong {
        /// Which.
        file: FileName,
        /// The limit in bytes.
        limit: u64,
    },
    /// A file has another length than promised.
    Length {
        /// Of which role.
        role: RoleName,
        /// In bytes.
        promised: u64,
        /// In bytes.
        found: u64,
    },
    /// A file is not the promised one.
    Checksum {
        /// Of which role.
        role: RoleName,
    },
    /// A file cannot be read strictly.
    Document {
        /// Of which role.
        role: RoleName,
        /// What is wrong.
        error: DocumentError,
    },
    /// Too few keys of the role have signed.
    Threshold {
        /// Which role.
        role: RoleName,
        /// Distinct keys with a good signature.
        valid: u64,
        /// How many are needed.
        needed: u64,
    },
    /// No root key has a certificate that is valid for this repository.
    RootCertificates(Vec<RejectedRootKey>),
    /// The repository's root is not the pinned one.
    RootNotPinned {
        /// The root's keys: certificate ID and canonical ID.
        found: Vec<(KeyId, CanonicalKeyId)>,
    },
    /// A new root is not signed by the one before it.
    RootRotation {
        /// Version of the root that is trusted.
        from: u64,
    },
    /// A root file holds another version than its name or place says.
    RootVersion {
        /// What it must be.
        expected: u64,
        /// What it says.
        found: u64,
    },
    /// The server's root is not the one that was trusted here, nor its successor.
    RootReplaced {
        /// Version of the trusted root.
        trusted: u64,
        /// Version of the offered one.
        offered: u64,
    },
    /// More root versions than anybody rotates.
    TooManyRoots {
        /// The limit.
        limit: u64,
    },
    /// The snapshot was made for another root.
    RootMismatch,
    /// A document has run out.
    Expired {
        /// Of which role.
        role: RoleName,
        /// When.
        at: UnixTime,
    },
    /// A version lower than one seen before.
    Rollback {
        /// Of which role.
        role: RoleName,
        /// The version seen before.
        seen: u64,
        /// The offered one.
        offered: u64,
    },
    /// A version seen before says something else now.
    Equivocation {
        /// Of which role.
        role: RoleName,
        /// The version.
        version: u64,
    },
    /// A version so much higher that it could only lock the role.
    VersionJump {
        /// Of which role.
        role: RoleName,
        /// The version seen before.
        seen: u64,
        /// The offered one.
        offered: u64,
    },
    /// A delegation that was published is not listed any more.
    RoleDisappeared(DelegationRole),
    /// A role that releases tags, or that could say otherwise before `targets` does, is listed but cannot be used.
    ReleasesUnusable {
        /// `targets/releases`, or a role below it.
        role: DelegationRole,
        /// What is wrong with it.
        fault: RoleFault,
        /// Whether this node has trusted it before: then it is no forgotten signature.
        was_usable: bool,
    },
    /// More delegations than any repository has, or deeper ones.
    TooManyRoles {
        /// The limit.
        limit: usize,
    },
    /// More signatures than any repository has: each costs time to verify.
    TooManySignatures {
        /// The limit.
        limit: u32,
    },
    /// More delegations came and went than are remembered.
    TooManyFloors {
        /// The limit.
        limit: usize,
    },
    /// All files together are larger than any repository's.
    TooMuchData {
        /// The limit in bytes.
        limit: u64,
    },
    /// What this node had proven of the repository cannot be read.
    KnownUnreadable(DocumentError),
    /// The evidence lacks a file that is needed to judge it.
    Incomplete(FileName),
}

/// Why a delegation's file counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoleFault {
    /// Too few of its keys have signed the file.
    #[error("valid signatures did not meet threshold: {valid} of {needed}")]
    Threshold {
        /// Distinct keys with a good signature.
        valid: u64,
        /// How many are needed.
        needed: u64,
    },
    /// The file has run out.
    #[error("it expired at {0}")]
    Expired(UnixTime),
    /// It is listed without a sha256.
    #[error("it is listed without a sha256")]
    NoSha256,
}

impl Reason {
    /// The stable code of this reason, the same in every version.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotPinned => "CS-NOT-PINNED",
            Self::OtherRepository(_) => "CS-OTHER-REPOSITORY",
            Self::NoTrustData { .. } => "CS-NO-TRUST-DATA",
            Self::TagNotSigned => "CS-TAG-NOT-SIGNED",
            Self::DigestNotSigned => "CS-DIGEST-NOT-SIGNED",
            Self::DigestDiffers { .. } => "CS-DIGEST-DIFFERS",
            Self::TargetUnusable => "CS-TARGET-UNUSABLE",
            Self::FileMissing(_) => "CS-FILE-MISSING",
            Self::TooLong { .. } => "CS-FILE-TOO-LONG",
            Self::Length { .. } => "CS-LENGTH",
            Self::Checksum { .. } => "CS-CHECKSUM",
            Self::Document { error, .. } => document_code(error),
            Self::Threshold { .. } => "CS-THRESHOLD",
            Self::RootCertificates(_) => "CS-ROOT-CERTIFICATE",
            Self::RootNotPinned { .. } => "CS-ROOT-NOT-PINNED",
            Self::RootRotation { .. } => "CS-ROOT-ROTATION",
            Self::RootVersion { .. } => "CS-ROOT-VERSION",
            Self::RootReplaced { .. } => "CS-ROOT-REPLACED",
            Self::TooManyRoots { .. } => "CS-TOO-MANY-ROOTS",
            Self::RootMismatch => "CS-ROOT-MISMATCH",
            Self::Expired { .. } => "CS-EXPIRED",
            Self::Rollback { .. } => "CS-ROLLBACK",
            Self::Equivocation { .. } => "CS-EQUIVOCATION",
            Self::VersionJump { .. } => "CS-VERSION-JUMP",
            Self::RoleDisappeared(_) => "CS-ROLE-DISAPPEARED",
            Self::ReleasesUnusable { .. } => "CS-RELEASES-UNUSABLE",
            Self::TooManyRoles { .. } => "CS-TOO-MANY-ROLES",
            Self::TooManySignatures { .. } => "CS-TOO-MANY-SIGNATURES",
            Self::TooManyFloors { .. } => "CS-TOO-MANY-FLOORS",
            Self::TooMuchData { .. } => "CS-TOO-MUCH-DATA",
            Self::KnownUnreadable(_) => "CS-KNOWN-UNREADABLE",
            Self::Incomplete(_) => "CS-EVIDENCE-INCOMPLETE",
        }
    }

    /// The sentence for `gun`, or for the image that was asked about: what is wrong, and what to do.
    fn sentence(&self, gun: &Gun, image: Option<&ImageReference>) -> String {
        let subject = image.map_or_else(|| format!("{gun}"), |image| format!("{image}"));
        let mismatch = |detail: String| format!("potential malicious behavior - trust data mismatch for repository {gun}: {detail}");
        match self {
            Self::NotPinned => format!("no pin covers {gun}: add its root to trust-pinning (root-keys or cert-ids) if you trust it"),
            Self::OtherRepository(other) => format!("the trust data at hand is that of {other}, not of {gun}; fetch that of {gun}"),
            Self::NoTrustData { had_some } => {
                let advice = if *had_some {
                    "it had some, which this node has verified: see that it is the right server and has kept its data"
                } else {
                    "sign the image"
                };
                format!("image or trust data does not exist for {subject}: the trust server has no trust data for {gun}; {advice}")
            }
            Self::TagNotSigned => {
                let tag = image.and_then(ImageReference::tag).map_or("", Tag::as_str);
                format!(
                    "image or trust data does not exist for {subject}: the tag `{tag}` is not signed in targets/releases or targets; sign it"
                )
            }
            Self::DigestNotSigned => {
                format!("no trust signature found for {subject}: no signed tag of {gun} has this digest; use a signed image, or sign it")
            }
            Self::DigestDiffers { signed } => {
                format!(
                    "signed image for {subject} does not match provided digest: the tag is signed as {signed}; use that digest, or sign the tag again"
                )
            }
            Self::TargetUnusable => {
                let tag = image.and_then(ImageReference::tag).map_or("", Tag::as_str);
                format!(
                    "trust data has no valid digest for {tag}: its entry in {gun} has no sha256 of 32 bytes or no valid length; sign it again"
                )
            }
            Self::FileMissing(file) => mismatch(format!("the trust server does not have {file}, which its own trust data promises")),
            Self::TooLong { file, limit } => mismatch(format!("{file} is longer than {limit} bytes")),
            Self::Length { role, promised, found } => {
                mismatch(format!("the length of {role} is {found} bytes, not the promised {promised}"))
            }
            Self::Checksum { role } => mismatch(format!("the checksum of {role} did not match")),
            Self::Document { role, error } => mismatch(format!("{role} cannot be read: {}", described(error))),
            Self::Threshold { role, valid, needed } => format!(
                "potential malicious behavior - trust data has insufficient signatures for remote repository {gun}: valid signatures did not meet threshold for {role}: {valid} of {needed}"
            ),
            Self::RootCertificates(keys) if keys.is_empty() => {
                format!("could not validate the path to a trusted root: the root of {gun} names no root key")
            }
            Self::RootCertificates(keys) => {
                format!(
                    "could not validate the path to a trusted root: no certificate of the root of {gun} is valid for it: {}",
                    listed(keys.iter())
                )
            }
            Self::RootNotPinned { found } => {
                let found = found.iter().map(|(id, canonical)| format!("certificate ID {id} (root key ID {canonical})"));
                format!(
                    "could not validate the path to a trusted root: unable to match any certificates to trust-pinning: the root of {gun} carries {}; if the root was changed on purpose, pin one of these",
                    listed(found)
                )
            }
            Self::RootRotation { from } => format!(
                "could not rotate trust to a new trusted root: failed to validate data with current trusted certificates: root {} of {gun} is not signed by root {from}",
                from.saturating_add(1)
            ),
            Self::RootVersion { expected, found } => mismatch(format!("root {expected} was asked for and says that it is version {found}")),
            Self::RootReplaced { trusted, offered } => mismatch(format!(
                "root {offered} does not follow root {trusted}, which was trusted here: the repository was re-created or the server is dishonest; an operator must reset the trust state of {gun}"
            )),
            Self::TooManyRoots { limit } => mismatch(format!("more than {limit} new versions of its root")),
            Self::RootMismatch => mismatch(String::from("its snapshot was made for another root")),
            Self::Expired { role, at } => {
                format!("remote repository {gun} out-of-date: {role} expired at {at}; whoever signs {gun} must publish it again")
            }
            Self::Rollback { role, seen, offered } => {
                lower_version(gun, &format!("{role} version {offered} is lower than {seen}, which was seen before"))
            }
            Self::Equivocation { role, version } => mismatch(format!("{role} version {version} says something else than it did before")),
            Self::VersionJump { role, seen, offered } => mismatch(format!("{role} jumps from version {seen} to {offered}")),
            Self::RoleDisappeared(role) => {
                mismatch(format!("{role}, which was published before and is still delegated, is not listed any more"))
            }
            Self::ReleasesUnusable { role, fault, was_usable } => releases_unusable(gun, &subject, role, fault, *was_usable),
            Self::TooManyRoles { limit } => {
                mismatch(format!("more than {limit} delegations, or delegations deeper than {MAX_DEPTH} levels"))
            }
            Self::TooManySignatures { limit } => mismatch(format!("more than {limit} signatures to verify")),
            Self::TooManyFloors { limit } => {
                mismatch(format!("more than {limit} delegations came and went; an operator must reset the trust state of {gun}"))
            }
            Self::TooMuchData { limit } => mismatch(format!("more than {limit} bytes of trust data")),
            Self::KnownUnreadable(error) => format!("what this node had proven of {gun} cannot be read: {}", described(error)),
            Self::Incomplete(file) => format!("the evidence for {gun} has no answer for {file}; fetch it again"),
        }
    }
}

/// A role that lost its last signer reads like a forgotten signature, unless it is known to have been good.
fn releases_unusable(gun: &Gun, subject: &str, role: &DelegationRole, fault: &RoleFault, was_usable: bool) -> String {
    let advice = format!("a signer of {role} must publish it again");
    match fault {
        RoleFault::Expired(at) => format!("remote repository {gun} out-of-date: {role} expired at {at}; {advice}"),
        RoleFault::Threshold { .. } | RoleFault::NoSha256 if was_usable => format!(
            "potential malicious behavior - trust data has insufficient signatures for remote repository {gun}: {role} cannot be used: {fault}; {advice}"
        ),
        RoleFault::Threshold { .. } | RoleFault::NoSha256 => {
            format!("image or trust data does not exist for {subject}: {role} of {gun} cannot be used: {fault}; {advice}")
        }
    }
}

fn lower_version(gun: &Gun, detail: &str) -> String {
    format!("potential malicious behavior - trust data version is lower than expected for remote repository {gun}: {detail}")
}

/// A document error with its cause: the one place where the chain is printed.
fn described(error: &DocumentError) -> String {
    use core::error::Error as _;
    error.source().map_or_else(|| format!("{error}"), |cause| format!("{error}: {cause}"))
}

const fn document_code(error: &DocumentError) -> &'static str {
    use crate::json::JsonError;
    match error {
        DocumentError::Json(JsonError::Duplicate { .. }) => "CS-JSON-DUPLICATE",
        DocumentError::Json(JsonError::Number { .. }) => "CS-JSON-NUMBER",
        DocumentError::Json(
            JsonError::Syntax { .. } | JsonError::Utf8 | JsonError::LoneSurrogate { .. } | JsonError::Depth | JsonError::TooMany,
        ) => "CS-JSON",
        DocumentError::NotCanonical => "CS-JSON-NOT-CANONICAL",
        DocumentError::CaseVariant { .. } => "CS-JSON-CASE",
        DocumentError::Base64 { .. } => "CS-BASE64",
        DocumentError::Member { .. } => "CS-DOCUMENT",
        DocumentError::Type { .. } => "CS-DOCUMENT-TYPE",
        DocumentError::Version => "CS-DOCUMENT-VERSION",
        DocumentError::Expires { .. } => "CS-DOCUMENT-EXPIRES",
        DocumentError::RoleMissing { .. } => "CS-ROLE-MISSING",
        DocumentError::Threshold { .. } => "CS-ROLE-THRESHOLD",
        DocumentError::KeyMissing { .. } => "CS-KEY-MISSING",
        DocumentError::KeyId { .. } => "CS-KEY-ID",
        DocumentError::PrivateKey(_) => "CS-KEY-PRIVATE",
        DocumentError::Checksum { .. } => "CS-NO-CHECKSUM",
        DocumentError::Delegation(_) => "CS-DELEGATION",
        DocumentError::TooMany { .. } => "CS-DOCUMENT-TOO-MANY",
    }
}

/// A refusal of a repository or of one of its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    gun: Gun,
    image: Option<Box<ImageReference>>,
    reason: Box<Reason>,
}

impl Refusal {
    /// Refuses the repository, whichever image is asked about.
    #[must_use]
    pub fn of_repository(gun: Gun, reason: Reason) -> Self {
        Self { gun, image: None, reason: Box::new(reason) }
    }

    /// Refuses one image.
    #[must_use]
    pub fn of_image(image: &ImageReference, reason: Reason) -> Self {
        Self { gun: Gun::for_repository(image.repository()), image: Some(Box::new(image.clone())), reason: Box::new(reason) }
    }

    /// The same refusal, said of `image`.
    #[must_use]
    pub fn about(self, image: &ImageReference) -> Self {
        Self { image: Some(Box::new(image.clone())), ..self }
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.reason.code()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason.sentence(&self.gun, self.image.as_deref()))
    }
}

impl core::error::Error for Refusal {}
