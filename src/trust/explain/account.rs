//! What the trust data of one repository says of one image.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::{DataAnswer, Member, RoleAnswer, SignatureAnswer, TeamAnswer, UnusableRole};
use crate::key::CanonicalKeyId;
use crate::name::{ManifestDigest, Selector, Tag};
use crate::policy::people::{People, SignerName, TeamName};
use crate::policy::{Demand, Policy, Question, SignerCertificates};
use crate::refusal::{Reason, RoleFault};
use crate::role::{DelegationRole, RoleName};
use crate::time::UnixTime;
use crate::trusted::{Release, TrustedRepository};
use crate::verdict::Verdict;
use crate::view::{ListedKey, RoleView, Standing, digest_of};

/// What one repository says of one image.
pub(super) struct Account<'a> {
    pub(super) repository: &'a TrustedRepository,
    pub(super) policy: &'a Policy,
    pub(super) demand: Demand<'a>,
    pub(super) now: UnixTime,
    /// The repository was refused because it has run out.
    pub(super) ignores_expiry: bool,
}

impl Account<'_> {
    pub(super) fn of(&self, question: Question<'_>, verdict: Option<&Verdict>) -> DataAnswer {
        let tag = tag_of(question, verdict).or_else(|| self.first_tag(question));
        let release = tag.as_ref().and_then(|tag| self.repository.released(tag).ok());
        DataAnswer {
            ignores_expiry: self.ignores_expiry,
            valid_until: self.repository.valid_until(),
            roles: tag.as_ref().map(|tag| self.roles(tag, release.as_ref())).unwrap_or_default(),
            teams: release.as_ref().map(|release| self.teams(release)).unwrap_or_default(),
            unusable: self.unusable(),
            released: release.map(|release| release.digest),
            tag,
        }
    }

    /// A tag that is released as the digest which the image is named by.
    fn first_tag(&self, question: Question<'_>) -> Option<Tag> {
        self.repository.judge(question.image).ok().map(|release| release.tag)
    }

    fn roles(&self, tag: &Tag, release: Option<&Release>) -> Vec<RoleAnswer> {
        let listing = self.repository.listing(tag.as_str());
        let answer = |(role, digest): (RoleName, Option<ManifestDigest>)| {
            let view = self.repository.view_of(&role)?;
            let file = view.file?;
            Some(RoleAnswer {
                version: file.version,
                expires: file.expires,
                digest,
                agrees: release.is_some_and(|release| digest == Some(release.digest)),
                releases: release.is_some_and(|release| release.released_by == role),
                is_personal: role.is_personal(),
                signatures: self.signatures(&view),
                role,
            })
        };
        listing.map(|(role, target)| (role.name().clone(), digest_of(target))).filter_map(answer).collect()
    }

    fn signatures(&self, view: &RoleView) -> Vec<SignatureAnswer> {
        let mut signatures: BTreeMap<CanonicalKeyId, SignatureAnswer> = BTreeMap::new();
        for key in view.keys.iter().filter(|key| key.standing != Standing::NotSigned) {
            let Ok(id) = key.canonical_id else { continue };
            let ends = certificate_ends(key);
            // A key that is listed with two certificates is good until the later one ends.
            let known = signatures.entry(id).or_insert_with(|| self.signature(id, ends, key.standing));
            known.certificate_ends = known.certificate_ends.zip(ends).map(|(a, b)| a.max(b));
        }
        signatures.into_values().map(|signature| self.with_expiry(signature)).collect()
    }

    /// What is shown as if it had not run out was refused: a certificate that must be valid and is not does not count all the same.
    fn with_expiry(&self, signature: SignatureAnswer) -> SignatureAnswer {
        let must_be_valid = self.ignores_expiry && self.policy.signer_certificates == SignerCertificates::Enforce;
        let has_ended = signature.certificate_ends.is_some_and(|end| end < self.now);
        let counted = signature.standing == Standing::Counts;
        let standing = if must_be_valid && has_ended && counted { Standing::CertificateEnded } else { signature.standing };
        SignatureAnswer { standing, ..signature }
    }

    fn signature(&self, key: CanonicalKeyId, certificate_ends: Option<UnixTime>, standing: Standing) -> SignatureAnswer {
        let people = &self.policy.people;
        let signer = people.owner_of(&key);
        let teams = signer.map(|signer| people.teams_of(signer).cloned().collect()).unwrap_or_default();
        SignatureAnswer { key, signer: signer.cloned(), teams, certificate_ends, standing }
    }

    fn teams(&self, release: &Release) -> Vec<TeamAnswer> {
        let answer = |(team, key): (&TeamName, Option<CanonicalKeyId>)| {
            let signed_by = key.and_then(|key| {
                let by = release.personal().find(|by| by.key == key)?;
                Some((self.policy.people.owner_of(&key)?.clone(), by.role.clone()))
            });
            let members = if key.is_some() { Vec::new() } else { self.members(team, release) };
            TeamAnswer { team: team.clone(), signed_by, members }
        };
        self.demand.teams(release).into_iter().map(answer).collect()
    }

    fn members(&self, team: &TeamName, release: &Release) -> Vec<Member> {
        let listed = self.repository.personal_keys();
        let others = self.signed_otherwise(release);
        let members = self.policy.people.members(team).into_iter().flatten();
        let member = |signer: &SignerName| {
            let keys = keys_of(&self.policy.people, signer);
            let (revoked, good): (BTreeSet<_>, BTreeSet<_>) =
                keys.intersection(&listed).copied().partition(|key| self.policy.revoked_keys.contains(key));
            Member {
                signer: signer.clone(),
                can_sign: !good.is_empty(),
                is_revoked: good.is_empty() && !revoked.is_empty(),
                signed_other: keys.iter().find_map(|key| others.get(key).copied()),
            }
        };
        members.map(member).collect()
    }

    /// Keys that have signed another digest for the tag in a list of their own.
    fn signed_otherwise(&self, release: &Release) -> BTreeMap<CanonicalKeyId, ManifestDigest> {
        let listing = self.repository.listing(release.tag.as_str()).filter(|(role, _)| role.name().is_personal());
        let others = listing.filter_map(|(role, target)| Some((role, digest_of(target).filter(|digest| *digest != release.digest)?)));
        others.flat_map(|(role, digest)| role.tally().signers.keys().map(move |key| (*key, digest))).collect()
    }

    fn unusable(&self) -> Vec<UnusableRole> {
        let answer = |(role, fault): &(DelegationRole, RoleFault)| {
            let view = self.repository.view_of(&RoleName::Delegation(role.clone()));
            let signatures = view.map(|view| self.signatures(&view)).unwrap_or_default();
            UnusableRole { role: role.clone(), fault: fault.clone(), signatures }
        };
        self.repository.unusable_roles().iter().map(answer).collect()
    }
}

/// The tag that a verdict is about, or that the image is named by.
fn tag_of(question: Question<'_>, verdict: Option<&Verdict>) -> Option<Tag> {
    let judged = match verdict? {
        Verdict::Allow(approval) => approval.release().map(|release| release.tag.clone()),
        Verdict::Deny(refusal) => {
            if let Reason::SigningPolicy(unsigned) = refusal.reason() {
                Some(unsigned.tag.clone())
            } else {
                None
            }
        }
    };
    judged.or_else(|| match question.image.selector() {
        Selector::Tag(tag) | Selector::TagAndDigest(tag, _) => Some(tag.clone()),
        Selector::Digest(_) => None,
    })
}

fn certificate_ends(key: &ListedKey) -> Option<UnixTime> {
    key.certificate.as_ref().map(|certificate| certificate.not_after)
}

fn keys_of(people: &People, signer: &SignerName) -> BTreeSet<CanonicalKeyId> {
    people.signers().find(|(name, _)| *name == signer).map(|(_, keys)| keys.clone()).unwrap_or_default()
}
