//! What a trusted repository says of itself, for those who look at it. Nothing here decides anything: all of it was decided by
//! the evaluation that found the repository good.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use crate::document::{Authority, Delegation, Envelope, Keys, Target};
use crate::key::{CanonicalKeyId, Key, KeyFault, KeyId};
use crate::name::{ManifestDigest, Tag, shown};
use crate::refusal::{Reason, RoleFault};
use crate::role::RoleName;
use crate::signers::{Discount, Tally};
use crate::time::UnixTime;
use crate::trusted::{Release, TrustedRepository, TrustedRole};

/// The timestamp, the snapshot and `targets`.
const BASE_ROLES: usize = 3;

/// What a certificate says of the key in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCertificate {
    /// Its common name, escaped; none if it has none.
    pub common_name: Option<String>,
    /// From when on it is valid.
    pub not_before: UnixTime,
    /// Until when.
    pub not_after: UnixTime,
}

impl KeyCertificate {
    /// The certificate that a usable key came in.
    pub(crate) fn of(key: &Key) -> Option<Self> {
        let leaf = key.usable.as_ref().ok()?.bundle.as_ref()?.leaf();
        let common_name = leaf.common_name.as_deref().map(shown);
        Some(Self { common_name, not_before: leaf.not_before, not_after: leaf.not_after })
    }
}

/// What became of a key's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has signed, and counts.
    Counts,
    /// It has signed, and is revoked.
    Revoked,
    /// It has signed, its certificate was not valid at that moment, and the policy wants it to be.
    CertificateEnded,
    /// It has not signed.
    NotSigned,
}

impl Standing {
    fn of(key: Option<CanonicalKeyId>, tally: Option<&Tally>) -> Self {
        let Some((key, tally)) = key.zip(tally) else { return Self::NotSigned };
        match (tally.signers.contains_key(&key), tally.discounted.get(&key)) {
            (true, _) => Self::Counts,
            (false, Some(discount)) => (*discount).into(),
            (false, None) => Self::NotSigned,
        }
    }
}

impl From<Discount> for Standing {
    fn from(discount: Discount) -> Self {
        match discount {
            Discount::Revoked => Self::Revoked,
            Discount::Certificate => Self::CertificateEnded,
        }
    }
}

/// A key that may sign for a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// Its name with its certificate.
    pub id: KeyId,
    /// Its name without, or why it never verifies anything.
    pub canonical_id: Result<CanonicalKeyId, KeyFault>,
    /// The certificate that it came in; none for a bare key.
    pub certificate: Option<KeyCertificate>,
    /// Whether it has signed the role's present file.
    pub standing: Standing,
}

/// The present file of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleFile {
    /// Its version.
    pub version: u64,
    /// When it runs out.
    pub expires: UnixTime,
    /// Tags that it lists, whether or not the role may speak of them.
    pub tags: usize,
}

/// Whether a role's file counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleState {
    /// It does.
    Usable,
    /// It does not.
    Unusable(RoleFault),
    /// There is none, or the role may speak of no tag.
    NothingPublished,
}

/// A role, and who may sign for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleView {
    /// Its name.
    pub name: RoleName,
    /// Its file; none if there is none, or it cannot be read.
    pub file: Option<RoleFile>,
    /// Whether that counts.
    pub state: RoleState,
    /// How many keys must have signed.
    pub threshold: u64,
    /// Beginnings of the tags that a delegation may speak of, escaped. An empty one stands for all.
    pub paths: Vec<String>,
    /// Who may sign.
    pub keys: Vec<ListedKey>,
}

/// What becomes of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagState {
    /// It is released.
    Released(Release),
    /// It is listed, and not released.
    NotReleased(Reason),
    /// It is listed, and no image has such a tag.
    NoTag,
}

/// A tag, and who lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagView {
    /// The tag, escaped.
    pub tag: String,
    /// What becomes of it.
    pub state: TagState,
    /// Every role that lists it, with the digest that it gives; none if that is no digest.
    pub listed: Vec<(RoleName, Option<ManifestDigest>)>,
}

impl TrustedRepository {
    /// The timestamp, the snapshot, `targets`, then every delegation that one of the trusted lists names. The root stands in the
    /// evidence: [`crate::offered::OfferedRoot`] shows it.
    pub fn roles(&self) -> impl Iterator<Item = RoleView> {
        let delegations = self.trusted_roles().iter().flat_map(move |parent| {
            let listed = parent.envelope().targets().ok().map(|(_, targets)| targets);
            let named = move |targets| move |delegation| self.delegation(delegation, targets);
            listed.into_iter().flat_map(move |targets| targets.delegations.iter().map(named(&targets.keys)))
        });
        self.base_roles().into_iter().chain(delegations)
    }

    /// How many [`Self::roles`] there are.
    #[must_use]
    pub fn number_of_roles(&self) -> usize {
        let lists = self.trusted_roles().iter().filter_map(|parent| parent.envelope().targets().ok());
        lists.fold(BASE_ROLES, |sum, (_, targets)| sum.saturating_add(targets.delegations.len()))
    }

    fn base_roles(&self) -> Vec<RoleView> {
        let base = self.base();
        let Ok((_, root)) = base.root.root() else { return Vec::new() };
        let view = |name, envelope: &Envelope, tally, authority: &Authority| RoleView {
            name,
            file: file_of(envelope),
            state: RoleState::Usable,
            threshold: authority.threshold,
            paths: Vec::new(),
            keys: keys_of(authority, &root.keys, Some(tally)),
        };
        let targets = self.targets_role();
        [
            view(RoleName::Timestamp, &base.timestamp.envelope, &base.timestamp.tally, &root.timestamp),
            view(RoleName::Snapshot, &base.snapshot.envelope, &base.snapshot.tally, &root.snapshot),
            view(RoleName::Targets, targets.envelope(), targets.tally(), &root.targets),
        ]
        .into()
    }

    fn delegation(&self, delegation: &Delegation, keys: &Keys) -> RoleView {
        let name = RoleName::Delegation(delegation.role.clone());
        let usable = self.trusted_roles().iter().find(|role| *role.name() == name);
        let unusable = self.unusable_roles().iter().find(|(role, _)| *role == delegation.role);
        let (state, envelope, tally) = match (usable, unusable) {
            (Some(role), _) => (RoleState::Usable, Some(role.envelope()), Some(role.tally())),
            (None, Some((role, fault))) => {
                let file = self.unusable_file(role);
                (RoleState::Unusable(fault.clone()), file.map(|file| &*file.envelope), file.map(|file| &file.tally))
            }
            (None, None) => (RoleState::NothingPublished, None, None),
        };
        RoleView {
            file: envelope.and_then(file_of),
            state,
            threshold: delegation.authority.threshold,
            paths: delegation.paths.iter().map(|path| shown(path)).collect(),
            keys: keys_of(&delegation.authority, keys, tally),
            name,
        }
    }

    /// One role that is trusted or unusable.
    pub(crate) fn view_of(&self, name: &RoleName) -> Option<RoleView> {
        let RoleName::Delegation(role) = name else { return self.base_roles().into_iter().find(|view| view.name == *name) };
        let (above, _) = role.as_str().rsplit_once('/')?;
        let parent = self.trusted_roles().iter().find(|parent| parent.name().as_str() == above)?;
        let (_, targets) = parent.envelope().targets().ok()?;
        let delegation = targets.delegations.iter().find(|delegation| delegation.role == *role)?;
        Some(self.delegation(delegation, &targets.keys))
    }

    /// Every key that may sign in a list of a person's or a team's own.
    pub(crate) fn personal_keys(&self) -> BTreeSet<CanonicalKeyId> {
        let lists = self.trusted_roles().iter().filter_map(|parent| parent.envelope().targets().ok());
        let delegations = lists.flat_map(|(_, targets)| targets.delegations.iter().map(|delegation| (delegation, &targets.keys)));
        let personal = delegations.filter(|(delegation, _)| !delegation.role.is_within_releases());
        let keys = personal.flat_map(|(delegation, keys)| delegation.authority.key_ids.iter().filter_map(|id| keys.get(id)));
        keys.filter_map(|key| Some(key.usable.as_ref().ok()?.canonical_id)).collect()
    }

    /// Every tag that a trusted role lists and may speak of, each once, in order.
    #[must_use]
    pub fn tags(&self) -> BTreeSet<&str> {
        self.trusted_roles().iter().flat_map(|role| role.tags().filter(|tag| role.target(tag).is_some())).collect()
    }

    /// What becomes of a tag that some role lists.
    #[must_use]
    pub fn tag(&self, tag: &str) -> TagView {
        let state = tag.parse::<Tag>().map_or(TagState::NoTag, |tag| match self.released(&tag) {
            Ok(release) => TagState::Released(release),
            Err(reason) => TagState::NotReleased(reason),
        });
        let listed = self.listing(tag).map(|(role, target)| (role.name().clone(), digest_of(target))).collect();
        TagView { tag: shown(tag), state, listed }
    }

    /// Every trusted role that lists a tag, with what it says.
    pub(crate) fn listing<'a>(&'a self, tag: &'a str) -> impl Iterator<Item = (&'a TrustedRole, &'a Target)> {
        self.trusted_roles().iter().filter_map(move |role| Some((role, role.target(tag)?)))
    }
}

/// What a list says of a tag, if it is a digest.
pub(crate) const fn digest_of(target: &Target) -> Option<ManifestDigest> {
    match target {
        Target::Image { digest, .. } => Some(*digest),
        Target::Unusable => None,
    }
}

/// What the file of a role says of itself.
pub(crate) fn file_of(envelope: &Envelope) -> Option<RoleFile> {
    let body = envelope.body.as_ref().ok()?;
    let tags = envelope.targets().map_or(0, |(_, targets)| targets.targets.len());
    Some(RoleFile { version: body.version, expires: body.expires, tags })
}

fn keys_of(authority: &Authority, keys: &Keys, tally: Option<&Tally>) -> Vec<ListedKey> {
    let listed = |key: &Key| {
        let canonical_id = key.usable.as_ref().map(|usable| usable.canonical_id).map_err(Clone::clone);
        let standing = Standing::of(canonical_id.as_ref().ok().copied(), tally);
        ListedKey { id: key.id, canonical_id, certificate: KeyCertificate::of(key), standing }
    };
    authority.key_ids.iter().filter_map(|id| keys.get(id)).map(listed).collect()
}

impl core::fmt::Display for Standing {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Counts => "counts",
            Self::Revoked => "revoked",
            Self::CertificateEnded => "certificate ended",
            Self::NotSigned => "not signed",
        })
    }
}
