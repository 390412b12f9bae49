//! What an operator reads: what is wrong, and what to do about it.

use alloc::format;
use alloc::string::{String, ToString};

use super::{Reason, RoleFault, Unsigned};
use crate::delegation::MAX_DEPTH;
use crate::evidence::Gun;
use crate::fields::DocumentError;
use crate::key::listed;
use crate::name::{ImageReference, Tag};
use crate::role::DelegationRole;

impl Reason {
    /// The sentence for `gun`, or for the image that was asked about: what is wrong, and what to do.
    pub(super) fn sentence(&self, gun: &Gun, image: Option<&ImageReference>) -> String {
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
            Self::ReleasesUnusable { role, fault, was_usable } => releases_unusable(gun, &subject, (role, fault), *was_usable),
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
            Self::KeyRevoked { role, keys } => format!(
                "{role} of {gun} is signed with a revoked key ({}): have it signed with another key, or take the key out of `revoked-keys`",
                listed(keys.iter())
            ),
            Self::DigestDenied { digest } => {
                format!("{subject}: sha256:{digest} is denied by `deny-digests`; use another image")
            }
            Self::DeniedByRule { rule } => format!("{subject} is denied by rule `{rule}`; use another image, or change the rule"),
            Self::RulesAmbiguous { first, second } => format!(
                "{subject}: rules `{first}` and `{second}` both answer for it and neither is more specific; give one of them a narrower name or namespaces"
            ),
            Self::ReleasesRequired => format!(
                "image or trust data does not exist for {subject}: only targets/releases releases tags of {gun} (require-releases-role), and it does not list this one; sign it there"
            ),
            Self::SigningPolicy(unsigned) => signing_policy(&subject, unsigned),
            Self::PinUnproven { pinned, why: None } => {
                format!("{subject} is no tag alone, so that it cannot have been pinned as {pinned}; name the tag")
            }
            Self::PinUnproven { pinned, why: Some(why) } => format!(
                "the trust data that {subject} was pinned by does not show that it was signed as {pinned} then ({}); update the service, so that it is pinned anew",
                why.sentence(gun, image)
            ),
            Self::PinRevoked { pinned, role } => format!(
                "{subject} was pinned as {pinned}, and who signed {role} for that may not sign it any more; update the service, so that it is pinned as what is signed now"
            ),
        }
    }
}

/// A role that lost its last signer reads like a forgotten signature, unless it is known to have been good.
fn releases_unusable(gun: &Gun, subject: &str, (role, fault): (&DelegationRole, &RoleFault), was_usable: bool) -> String {
    let advice = format!("a signer of {role} must publish it again");
    match fault {
        RoleFault::Expired(at) => format!("remote repository {gun} out-of-date: {role} expired at {at}; {advice}"),
        RoleFault::Threshold { .. } | RoleFault::NoSha256 if was_usable => format!(
            "potential malicious behavior - trust data has insufficient signatures for remote repository {gun}: {role} cannot be used: {fault}; {advice}"
        ),
        RoleFault::KeyRevoked(_) | RoleFault::CertificateEnded(_) => {
            format!("{role} of {gun} cannot be used: {fault}; {advice}, with another key")
        }
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

/// The words before the colon are those of MKE.
fn signing_policy(subject: &str, unsigned: &Unsigned) -> String {
    let Unsigned { tag, digest, missing, signed_by } = unsigned;
    let signers = signed_by.iter().map(|(key, signer)| signer.as_ref().map_or_else(|| format!("key {key}"), ToString::to_string));
    let signers = if signed_by.is_empty() { String::from("nobody with a list of their own") } else { listed(signers) };
    format!(
        "{subject}: image did not meet required signing policy: {digest} is signed for the tag `{tag}` by {signers}, and by no member of {}; a member of each must sign this tag",
        listed(missing.iter())
    )
}
