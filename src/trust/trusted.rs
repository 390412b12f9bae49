//! A repository whose trust data is good, and which image it means (`docs/notary-v1.md`, 12.2 and 12.3).

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use crate::document::{Envelope, Target};
use crate::evidence::{Answer, Evidence, FileName, Gun};
use crate::key::CanonicalKeyId;
use crate::known::Known;
use crate::name::{ImageReference, ManifestDigest, Selector, Tag};
use crate::paths::Paths;
use crate::policy::people::SignerName;
use crate::policy::{Approval, Demand};
use crate::refusal::{Reason, Refusal, RoleFault};
use crate::role::{DelegationRole, RoleName};
use crate::signers::{Signer, Tally};
use crate::time::UnixTime;
use crate::update::Verified;

/// A verified list of tags.
#[derive(Debug, Clone)]
pub(crate) struct TrustedRole {
    name: RoleName,
    paths: Paths,
    envelope: Arc<Envelope>,
    tally: Tally,
}

impl TrustedRole {
    pub(crate) fn new(name: RoleName, paths: Paths, verified: Verified) -> Self {
        Self { name, paths, envelope: verified.envelope, tally: verified.tally }
    }

    pub(crate) const fn name(&self) -> &RoleName {
        &self.name
    }

    pub(crate) const fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) const fn paths(&self) -> &Paths {
        &self.paths
    }

    pub(crate) fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// What the role says of a tag that it may speak of.
    pub(crate) fn target(&self, tag: &str) -> Option<&Target> {
        let (_, targets) = self.envelope.targets().ok()?;
        targets.targets.get(tag).filter(|_| self.paths.cover(tag))
    }

    pub(crate) fn tags(&self) -> impl Iterator<Item = &str> {
        let targets = self.envelope.targets().ok().map(|(_, targets)| &targets.targets);
        targets.into_iter().flat_map(BTreeMap::keys).map(String::as_str)
    }

    fn is_releases(&self) -> bool {
        self.name.as_str() == DelegationRole::RELEASES
    }

    fn is_within_releases(&self) -> bool {
        self.name.is_within_releases()
    }
}

/// Who signed an image, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBy {
    /// The role whose list names the digest for the tag.
    pub role: RoleName,
    /// The key that signed that list.
    pub key: CanonicalKeyId,
    /// The user whose key it is, if the policy knows one.
    pub signer: Option<SignerName>,
    /// When the key's certificate ends, if it has one.
    pub certificate_ends: Option<UnixTime>,
}

/// A tag with the digest that it is released as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// What is signed: the digest of an index or of a manifest.
    pub digest: ManifestDigest,
    /// The tag that is signed as this digest.
    pub tag: Tag,
    /// The role that released it: `targets/releases` or `targets`.
    pub released_by: RoleName,
    /// Everybody who signed a list that names this digest for this tag.
    pub signed_by: Vec<SignedBy>,
    /// From when on the trust data that this rests on is out of date.
    pub valid_until: UnixTime,
}

impl Release {
    /// Who signed a list of a person's or a team's own. The repository's list is signed by its key, and the released one by
    /// whoever touched it last (`docs/notary-v1.md`, 12.5, point 3).
    pub fn personal(&self) -> impl Iterator<Item = &SignedBy> {
        self.signed_by.iter().filter(|by| by.role.is_personal())
    }
}

/// What the lists of tags hang on.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) root: Arc<Envelope>,
    pub(crate) timestamp: Verified,
    pub(crate) snapshot: Verified,
}

/// A repository whose trust data was evaluated and is good.
#[derive(Debug, Clone)]
pub struct TrustedRepository {
    evidence: Evidence,
    known: Known,
    valid_until: UnixTime,
    base: Base,
    /// `targets` first, then delegations, children before siblings.
    roles: Vec<TrustedRole>,
    unusable: Vec<(DelegationRole, RoleFault)>,
    /// Those of them that would have been asked before `targets`, and what they may speak of.
    unheard: Vec<(DelegationRole, RoleFault, Paths)>,
    /// The files of unusable roles, as far as they could be read: only to be shown.
    unusable_files: BTreeMap<DelegationRole, Verified>,
    /// Tags that `targets` alone lists are not released.
    only_releases_count: bool,
}

impl TrustedRepository {
    pub(crate) fn new(evidence: Evidence, known: Known, valid_until: UnixTime, base: Base, targets: TrustedRole) -> Self {
        Self {
            evidence,
            known,
            valid_until,
            base,
            roles: vec![targets],
            unusable: Vec::new(),
            unheard: Vec::new(),
            unusable_files: BTreeMap::new(),
            only_releases_count: false,
        }
    }

    /// From now on only `targets/releases` releases tags, and it must be there.
    pub(crate) fn require_releases(&mut self) -> Result<(), Reason> {
        self.only_releases_count = true;
        if self.roles.iter().any(TrustedRole::is_releases) { Ok(()) } else { Err(Reason::ReleasesRequired) }
    }

    pub(crate) fn targets_role(&self) -> &TrustedRole {
        // `new` puts it there and nothing removes roles.
        #[allow(clippy::indexing_slicing)]
        &self.roles[0]
    }

    pub(crate) const fn base(&self) -> &Base {
        &self.base
    }

    /// `targets` first, then delegations, children before siblings.
    pub(crate) fn trusted_roles(&self) -> &[TrustedRole] {
        &self.roles
    }

    pub(crate) fn unusable_file(&self, role: &DelegationRole) -> Option<&Verified> {
        self.unusable_files.get(role)
    }

    pub(crate) fn add(&mut self, role: TrustedRole) {
        self.roles.push(role);
    }

    pub(crate) fn add_unusable(&mut self, role: DelegationRole, (fault, file): (RoleFault, Option<Verified>), paths: Paths) {
        if role.is_within_releases() {
            self.unheard.push((role.clone(), fault.clone(), paths));
        }
        self.unusable_files.extend(file.map(|file| (role.clone(), file)));
        self.unusable.push((role, fault));
    }

    pub(crate) fn snapshot(&self) -> Arc<Envelope> {
        Arc::clone(&self.base.snapshot.envelope)
    }

    pub(crate) fn keep(&mut self, file: FileName, answer: Answer) {
        self.evidence.add(file, answer);
    }

    pub(crate) fn trust_until(&mut self, end: UnixTime) {
        self.valid_until = self.valid_until.min(end);
    }

    pub(crate) const fn known_mut(&mut self) -> &mut Known {
        &mut self.known
    }

    /// The repository's name in Notary.
    #[must_use]
    pub const fn gun(&self) -> &Gun {
        self.evidence.gun()
    }

    /// What is worth keeping of the evidence: all that judging it again needs, and nothing else.
    #[must_use]
    pub const fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// What is known of the repository from now on. To be stored only when the evidence was fetched from its server.
    #[must_use]
    pub const fn known(&self) -> &Known {
        &self.known
    }

    /// As [`Self::known`], for those who need nothing else any more.
    #[must_use]
    pub fn into_known(self) -> Known {
        self.known
    }

    /// From when on some of the trust data is out of date.
    #[must_use]
    pub const fn valid_until(&self) -> UnixTime {
        self.valid_until
    }

    /// Delegations whose files count for nothing, and why.
    #[must_use]
    pub fn unusable_roles(&self) -> &[(DelegationRole, RoleFault)] {
        &self.unusable
    }

    /// Every tag that a trusted role lists with a usable digest, and that role.
    pub fn listed(&self) -> impl Iterator<Item = (&RoleName, &str, ManifestDigest)> {
        self.roles.iter().flat_map(|role| {
            role.tags().filter_map(|tag| match role.target(tag)? {
                Target::Image { digest, .. } => Some((&role.name, tag, *digest)),
                Target::Unusable => None,
            })
        })
    }

    /// Every tag that is released, each once, with what it is released as.
    pub fn released_tags(&self) -> impl Iterator<Item = (&str, ManifestDigest)> {
        let releasing = self.roles.iter().filter(|role| role.is_releases() || role.name == RoleName::Targets);
        let mut tags: Vec<&str> = releasing.flat_map(TrustedRole::tags).collect();
        tags.sort_unstable();
        tags.dedup();
        tags.into_iter().filter_map(|tag| Some((tag, self.release(tag).ok()?.1)))
    }

    /// What `image` is released as, by whomever.
    ///
    /// # Errors
    /// A [`Refusal`] of the image.
    pub fn judge(&self, image: &ImageReference) -> Result<Release, Refusal> {
        self.first_release(image, Ok).map_err(|reason| Refusal::of_image(image, reason))
    }

    /// Whether the signatures of `image` are what is demanded of it.
    ///
    /// # Errors
    /// A [`Refusal`] of the image.
    pub fn approve(&self, image: &ImageReference, demand: &Demand<'_>) -> Result<Approval, Refusal> {
        self.first_release(image, |release| demand.approve(release)).map_err(|reason| Refusal::of_image(image, reason))
    }

    /// The first release of `image` that `is_enough`; else why the first one is not.
    fn first_release<T>(&self, image: &ImageReference, is_enough: impl Fn(Release) -> Result<T, Reason>) -> Result<T, Reason> {
        if Gun::for_repository(image.repository()) != *self.gun() {
            return Err(Reason::OtherRepository(self.gun().clone()));
        }
        match image.selector() {
            Selector::Tag(tag) => is_enough(self.released(tag)?),
            Selector::TagAndDigest(tag, digest) => is_enough(self.released_as(tag, *digest)?),
            Selector::Digest(digest) => self.released_under_any_tag(*digest, is_enough),
        }
    }

    pub(crate) fn released(&self, tag: &Tag) -> Result<Release, Reason> {
        let (role, digest) = self.release(tag.as_str())?;
        Ok(self.release_of(tag, digest, role))
    }

    fn released_as(&self, tag: &Tag, digest: ManifestDigest) -> Result<Release, Reason> {
        let release = self.released(tag)?;
        if release.digest == digest { Ok(release) } else { Err(Reason::DigestDiffers { signed: release.digest }) }
    }

    /// A digest alone is as good as the tags that are released as it: content trust is not left out for it.
    fn released_under_any_tag<T>(&self, digest: ManifestDigest, is_enough: impl Fn(Release) -> Result<T, Reason>) -> Result<T, Reason> {
        let releasing = self.roles.iter().filter(|role| role.is_releases() || role.name == RoleName::Targets);
        let tags = releasing.flat_map(|role| role.tags().filter(move |tag| is_image(role.target(tag), digest)));
        let released = tags.filter_map(|tag| match self.release(tag) {
            Ok((role, released)) if released == digest => Some(self.release_of(&tag.parse().ok()?, digest, role)),
            Ok(_) | Err(_) => None,
        });
        let mut first_reason = None;
        for release in released {
            match is_enough(release) {
                Ok(enough) => return Ok(enough),
                Err(reason) => first_reason = first_reason.or(Some(reason)),
            }
        }
        Err(first_reason.unwrap_or(Reason::DigestNotSigned))
    }

    /// What `docker pull` would take, and whose word that is: the first hit in `targets/releases`, its subtree, `targets`,
    /// then every other role. A hit ends the search, and counts only in the first and third.
    fn release(&self, tag: &str) -> Result<(&TrustedRole, ManifestDigest), Reason> {
        let hit = self.search_order().find_map(|role| Some((role, role.target(tag)?)));
        let Some((role, target)) = hit else { return Err(Reason::TagNotSigned) };
        if !role.is_releases() && role.name != RoleName::Targets {
            return Err(Reason::TagNotSigned);
        }
        if self.only_releases_count && !role.is_releases() {
            return Err(Reason::ReleasesRequired);
        }
        if !role.is_releases() {
            self.refuse_unheard(tag)?;
        }
        match target {
            Target::Image { digest, .. } => Ok((role, *digest)),
            Target::Unusable => Err(Reason::TargetUnusable),
        }
    }

    /// A role below `targets/releases` that has the tag ends the search before `targets` is asked. If such a role cannot be
    /// used, it may have had it: whoever holds the snapshot key could spoil it to bring an older digest of `targets` back.
    fn refuse_unheard(&self, tag: &str) -> Result<(), Reason> {
        let Some((role, fault, _)) = self.unheard.iter().find(|(_, _, paths)| paths.cover(tag)) else { return Ok(()) };
        let was_usable = self.known.floors.contains_key(role.as_str());
        Err(Reason::ReleasesUnusable { role: role.clone(), fault: fault.clone(), was_usable })
    }

    fn search_order(&self) -> impl Iterator<Item = &TrustedRole> {
        let within = self.roles.iter().filter(|role| role.is_within_releases());
        within.chain(self.roles.iter().filter(|role| !role.is_within_releases()))
    }

    fn release_of(&self, tag: &Tag, digest: ManifestDigest, released_by: &TrustedRole) -> Release {
        let agreeing = self.roles.iter().filter(|role| is_image(role.target(tag.as_str()), digest));
        let signed_by = agreeing.flat_map(|role| role.tally.signers.iter().map(|(key, signer)| signed_by(role, *key, *signer))).collect();
        Release { digest, tag: tag.clone(), released_by: released_by.name.clone(), signed_by, valid_until: self.valid_until }
    }
}

fn signed_by(role: &TrustedRole, key: CanonicalKeyId, signer: Signer) -> SignedBy {
    SignedBy { role: role.name.clone(), key, signer: None, certificate_ends: signer.certificate_ends }
}

fn is_image(target: Option<&Target>, wanted: ManifestDigest) -> bool {
    match target {
        Some(Target::Image { digest, .. }) => *digest == wanted,
        Some(Target::Unusable) | None => false,
    }
}
