//! Why an image may not be used: a stable code, and a sentence that says what to do.

mod sentence;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::certificate::CertificateError;
use crate::evidence::{FileName, Gun};
use crate::fields::DocumentError;
use crate::key::{CanonicalKeyId, KeyFault, KeyId, listed};
use crate::name::{ImageReference, ManifestDigest, Sha256, Tag};
use crate::policy::people::{SignerName, TeamName};
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
    /// The policy revokes the key.
    #[error("it is revoked")]
    Revoked,
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
    /// Too few keys of the role count, because one that has signed is revoked.
    KeyRevoked {
        /// Which role.
        role: RoleName,
        /// The revoked keys that have signed.
        keys: Vec<CanonicalKeyId>,
    },
    /// The digest of an index, manifest or config that must never be used.
    DigestDenied {
        /// Which.
        digest: Sha256,
    },
    /// A rule denies the image.
    DeniedByRule {
        /// The rule's name.
        rule: String,
    },
    /// Two rules claim the image and neither is more specific.
    RulesAmbiguous {
        /// The first rule's name.
        first: String,
        /// The second rule's name.
        second: String,
    },
    /// Only `targets/releases` releases tags of this repository, and it does not list the image or is not there.
    ReleasesRequired,
    /// The image is signed, and not by everybody who must sign it.
    SigningPolicy(Unsigned),
    /// The evidence that a tag was pinned by does not show that it was signed as the pinned digest.
    PinUnproven {
        /// The pinned digest.
        pinned: ManifestDigest,
        /// What the evidence says instead, or what is wrong with it. None: the reference names no tag alone.
        why: Option<Box<Reason>>,
    },
    /// Who signed the pinned digest may not sign it today.
    PinRevoked {
        /// The pinned digest.
        pinned: ManifestDigest,
        /// The role that today's keys would not accept any more.
        role: RoleName,
    },
}

/// What the signatures of an image lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsigned {
    /// The tag that is released.
    pub tag: Tag,
    /// What it is released as.
    pub digest: ManifestDigest,
    /// Teams of which no member has signed that.
    pub missing: Vec<TeamName>,
    /// Who has, with a list of their own: the key, and whose it is.
    pub signed_by: Vec<(CanonicalKeyId, Option<SignerName>)>,
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
    /// Too few of its keys count, because one that has signed it is revoked.
    #[error("it is signed with a revoked key: {}", listed(.0.iter()))]
    KeyRevoked(Vec<CanonicalKeyId>),
    /// Too few of its keys count, because the certificate of one that has signed it has ended.
    #[error("the certificate of a key that signed it is not valid any more: {}", listed(.0.iter()))]
    CertificateEnded(Vec<CanonicalKeyId>),
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
            Self::KeyRevoked { .. } => "CS-KEY-REVOKED",
            Self::DigestDenied { .. } => "CS-DIGEST-DENIED",
            Self::DeniedByRule { .. } => "CS-DENIED-BY-RULE",
            Self::RulesAmbiguous { .. } => "CS-RULES-AMBIGUOUS",
            Self::ReleasesRequired => "CS-RELEASES-REQUIRED",
            Self::SigningPolicy(_) => "CS-SIGNING-POLICY",
            Self::PinUnproven { .. } => "CS-PIN-UNPROVEN",
            Self::PinRevoked { .. } => "CS-PIN-REVOKED",
        }
    }
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

    /// The image that it is about; none where it is about the whole repository.
    #[must_use]
    pub fn image(&self) -> Option<&ImageReference> {
        self.image.as_deref()
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
