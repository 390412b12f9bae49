//! Superseded is not revoked: an image that was pinned while its tag was signed as it may be used on, though the tag is signed
//! as another by now. An old digest is exactly what a rollback brings, so that the proof of then is judged by today's keys.

use alloc::boxed::Box;

use crate::delegation::certificates_moment;
use crate::document::{Authority, Keys};
use crate::evidence::{Evidence, Gun};
use crate::facts::Facts;
use crate::known::Known;
use crate::name::{ImageReference, ManifestDigest, Selector, Tag};
use crate::policy::{Approval, Consulted, Demand, Policy, Question};
use crate::refusal::{Reason, Refusal};
use crate::role::RoleName;
use crate::signers::{Scrutiny, tally};
use crate::time::UnixTime;
use crate::trusted::{TrustedRepository, TrustedRole};
use crate::update::{Freshness, Progress, Terms, evaluate};
use crate::verdict::{Holding, current};

/// What a tag was signed as when it was pinned.
#[derive(Debug, Clone, Copy)]
pub struct Pinned<'a> {
    /// The digest.
    pub digest: ManifestDigest,
    /// The evidence of then, complete.
    pub evidence: &'a Evidence,
    /// The moment at which it was current.
    pub at: UnixTime,
}

/// Judges an image by the digest that its tag was pinned as, which the tag may be signed as no longer.
///
/// It passes if its tag is released today, as whatever; if the evidence of then shows, for that moment and under today's pins,
/// rules and revocations, that the tag was released as the pinned digest; and if the roots and lists that show it would be
/// accepted from the keys that may sign today. `held` is what is held of the repository today.
///
/// Whether the pin itself can be believed (that this evidence was current at that moment, for this service) is for the caller
/// to know.
///
/// # Errors
/// A [`Refusal`] of the image: what is refused today whatever was pinned, or why the pin does not count
/// ([`Reason::PinUnproven`], [`Reason::PinRevoked`]).
pub fn verify_pinned(
    question: Question<'_>,
    pinned: Pinned<'_>,
    held: Holding<'_>,
    policy: &Policy,
    now: UnixTime,
    facts: &mut Facts,
) -> Result<Approval, Refusal> {
    let refused = |reason| Refusal::of_image(question.image, reason);
    let Selector::Tag(tag) = question.image.selector() else {
        return Err(refused(Reason::PinUnproven { pinned: pinned.digest, why: None }));
    };
    let demand = match policy.consult(question, now)? {
        // A rule names digests and no tags.
        Consulted::Allowed(_) => return Err(refused(Reason::PinUnproven { pinned: pinned.digest, why: None })),
        Consulted::Signatures { demand, .. } => demand,
    };
    let today = current(question, held, policy, now, facts)?;
    today.released(tag).map_err(refused)?;
    let then = evidence_of_then(question.image, pinned, policy, facts)?;
    approve((tag, pinned.digest), &then, &today, &demand, (policy, now), facts).map_err(refused)
}

/// The repository as it was when it was pinned, under today's policy.
fn evidence_of_then(
    image: &ImageReference,
    pinned: Pinned<'_>,
    policy: &Policy,
    facts: &mut Facts,
) -> Result<Box<TrustedRepository>, Refusal> {
    let unproven = |why: Option<Reason>| Refusal::of_image(image, Reason::PinUnproven { pinned: pinned.digest, why: why.map(Box::new) });
    let gun = Gun::for_repository(image.repository());
    if gun != *pinned.evidence.gun() {
        return Err(unproven(Some(Reason::OtherRepository(pinned.evidence.gun().clone()))));
    }
    let anchor = policy.pins.anchor_for(&gun).ok_or_else(|| Refusal::of_image(image, Reason::NotPinned))?;
    let terms = Terms { anchor, policy, now: pinned.at, freshness: Freshness::Held { allow_expired: false } };
    match evaluate(pinned.evidence, &Known::default(), terms, facts) {
        Ok(Progress::Trusted(then)) => Ok(then),
        Ok(Progress::Wanting(wants)) => Err(unproven(wants.into_iter().next().map(|want| Reason::Incomplete(want.file)))),
        Err(refusal) => Err(unproven(Some(refusal.reason().clone()))),
    }
}

fn approve(
    (tag, digest): (&Tag, ManifestDigest),
    then: &TrustedRepository,
    today: &TrustedRepository,
    demand: &Demand<'_>,
    (policy, now): (&Policy, UnixTime),
    facts: &mut Facts,
) -> Result<Approval, Reason> {
    let mut release = then.released(tag).map_err(|why| Reason::PinUnproven { pinned: digest, why: Some(Box::new(why)) })?;
    if release.digest != digest {
        return Err(Reason::PinUnproven { pinned: digest, why: Some(Box::new(Reason::DigestDiffers { signed: release.digest })) });
    }
    let mut keys_of_today = KeysOfToday { today, policy, now, facts };
    let revoked = |role: &RoleName| Reason::PinRevoked { pinned: digest, role: role.clone() };
    if !keys_of_today.accept_root_of(then) {
        return Err(revoked(&RoleName::Root));
    }
    release.signed_by.retain(|by| keys_of_today.accept(then, &by.role, tag).is_some_and(|keys| keys.contains(&by.key)));
    if !release.signed_by.iter().any(|by| by.role == release.released_by) {
        return Err(revoked(&release.released_by));
    }
    // What is held today is what says that the tag is still released.
    release.valid_until = today.valid_until();
    demand.approve(release)
}

/// Whose signatures count today.
struct KeysOfToday<'a> {
    today: &'a TrustedRepository,
    policy: &'a Policy,
    now: UnixTime,
    facts: &'a mut Facts,
}

impl KeysOfToday<'_> {
    /// Whether those who may sign a root today have signed the root of then.
    fn accept_root_of(&mut self, then: &TrustedRepository) -> bool {
        let Ok((_, root)) = self.today.base().root.root() else { return false };
        let scrutiny = Scrutiny { revoked: &self.policy.revoked_keys, certificates_at: None };
        let keys = root.root.key_ids.iter().filter_map(|id| root.keys.get(id));
        tally(&then.base().root, keys, scrutiny, self.facts).valid() >= root.root.threshold
    }

    /// The keys that have signed a role's list of then, if they are enough of those that may sign it today, and if it may speak of
    /// the tag today.
    fn accept(&mut self, then: &TrustedRepository, role: &RoleName, tag: &Tag) -> Option<alloc::vec::Vec<crate::key::CanonicalKeyId>> {
        let list = role_of(then, role)?;
        role_of(self.today, role).filter(|of_today| of_today.paths().cover(tag.as_str()))?;
        let (keys, authority) = authority_over(self.today, role)?;
        let certificates_at = match role {
            RoleName::Delegation(_) => certificates_moment(self.policy, Some(self.now)),
            RoleName::Root | RoleName::Timestamp | RoleName::Snapshot | RoleName::Targets => None,
        };
        let scrutiny = Scrutiny { revoked: &self.policy.revoked_keys, certificates_at };
        let tally = tally(list.envelope(), authority.key_ids.iter().filter_map(|id| keys.get(id)), scrutiny, self.facts);
        (tally.valid() >= authority.threshold).then(|| tally.signers.into_keys().collect())
    }
}

fn role_of<'r>(repository: &'r TrustedRepository, role: &RoleName) -> Option<&'r TrustedRole> {
    repository.trusted_roles().iter().find(|trusted| trusted.name() == role)
}

/// Who may sign a role's list: by the root, or by the list of the role that delegates to it.
fn authority_over<'r>(repository: &'r TrustedRepository, role: &RoleName) -> Option<(&'r Keys, &'r Authority)> {
    match role {
        RoleName::Targets => {
            let (_, root) = repository.base().root.root().ok()?;
            Some((&root.keys, &root.targets))
        }
        RoleName::Delegation(name) => repository.trusted_roles().iter().find_map(|parent| {
            let (_, targets) = parent.envelope().targets().ok()?;
            let delegation = targets.delegations.iter().find(|delegation| delegation.role == *name)?;
            name.is_direct_child_of(parent.name().as_str()).then_some((&targets.keys, &delegation.authority))
        }),
        RoleName::Root | RoleName::Timestamp | RoleName::Snapshot => None,
    }
}
