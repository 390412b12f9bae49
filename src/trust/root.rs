//! Roots: the walk from one to the next, and what the newest must satisfy (`docs/notary-v1.md`, 7 and 8).

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use crate::document::{Envelope, Root};
use crate::evidence::{Body, Gun};
use crate::facts::Facts;
use crate::fields::DocumentError;
use crate::key::{CanonicalKeyId, Key};
use crate::pin::Anchor;
use crate::policy::Policy;
use crate::refusal::{Reason, RejectedRootKey, RootKeyFault};
use crate::role::RoleName;
use crate::signers::{Scrutiny, tally};
use crate::time::UnixTime;
use crate::update::{FloorRule, document_fault, refuse_too_few};

/// Roots that prove each other, oldest first.
#[derive(Debug, Clone)]
pub(crate) struct RootChain {
    bodies: Vec<Body>,
    newest: Arc<Envelope>,
    version: u64,
    /// Whether roots may follow that the first one vouches for. Else the pin vouches for the first, which is the newest.
    is_walked: bool,
    timestamp_changed: bool,
    snapshot_changed: bool,
}

impl RootChain {
    /// Begins at a root that was proven here before.
    pub(crate) fn at_known(body: Body, envelope: Arc<Envelope>) -> Result<Self, DocumentError> {
        Self::begin(body, envelope, true)
    }

    /// Begins at the newest root of a server, of which nothing is known here.
    pub(crate) fn at_newest(body: Body, envelope: Arc<Envelope>) -> Result<Self, DocumentError> {
        Self::begin(body, envelope, false)
    }

    /// Begins at the newest root of a server, in place of a known one that cannot vouch for it any more. Whoever may sign for
    /// the timestamp and the snapshot may have changed in between.
    pub(crate) fn instead_of(known: &Self, body: Body, envelope: Arc<Envelope>) -> Result<Self, DocumentError> {
        let (_, before) = known.newest.root()?;
        let (_, now) = envelope.root()?;
        let (timestamp_changed, snapshot_changed) = (now.timestamp != before.timestamp, now.snapshot != before.snapshot);
        Ok(Self { timestamp_changed, snapshot_changed, ..Self::begin(body, Arc::clone(&envelope), false)? })
    }

    fn begin(body: Body, envelope: Arc<Envelope>, is_walked: bool) -> Result<Self, DocumentError> {
        let version = envelope.root()?.0.version;
        Ok(Self { bodies: vec![body], newest: envelope, version, is_walked, timestamp_changed: false, snapshot_changed: false })
    }

    pub(crate) const fn is_walked(&self) -> bool {
        self.is_walked
    }

    /// Whether so many of the newest root's keys are revoked that the others cannot vouch for a next root.
    pub(crate) fn is_revoked(&self, gun: &Gun, policy: &Policy) -> Result<bool, DocumentError> {
        let (_, root) = self.newest.root()?;
        let keys: BTreeSet<_> = fitting_keys(root, gun).filter_map(canonical_id).collect();
        let left = keys.difference(&policy.revoked_keys).count() as u64;
        Ok(left < root.root.threshold && keys.len() as u64 >= root.root.threshold)
    }

    pub(crate) fn newest(&self) -> &Envelope {
        &self.newest
    }

    pub(crate) fn newest_envelope(&self) -> Arc<Envelope> {
        Arc::clone(&self.newest)
    }

    pub(crate) fn bodies(&self) -> &[Body] {
        &self.bodies
    }

    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn steps(&self) -> u64 {
        (self.bodies.len() as u64).saturating_sub(1)
    }

    /// How the floor of the timestamp binds after this walk.
    pub(crate) const fn timestamp_floor(&self) -> FloorRule {
        self.floor_rule(self.timestamp_changed)
    }

    /// How the floor of the snapshot binds after this walk.
    pub(crate) const fn snapshot_floor(&self) -> FloorRule {
        self.floor_rule(self.snapshot_changed)
    }

    const fn floor_rule(&self, signers_changed: bool) -> FloorRule {
        match (signers_changed, self.bodies.len()) {
            (true, _) => FloorRule::Reset,
            (false, 0 | 1) => FloorRule::Full,
            (false, _) => FloorRule::Version,
        }
    }
}

/// Accepts `body` as the next root of `chain`, or says why not and leaves it as it was. Expiry is no matter here: a root
/// on the way may have run out.
pub(crate) fn step(
    chain: &mut RootChain,
    body: Body,
    envelope: Arc<Envelope>,
    (gun, policy): (&Gun, &Policy),
    facts: &mut Facts,
) -> Result<(), Reason> {
    let fault = document_fault(&RoleName::Root);
    let (document, next) = envelope.root().map_err(&fault)?;
    let (_, current) = chain.newest.root().map_err(&fault)?;
    let expected = chain.version.saturating_add(1);
    if document.version != expected {
        return Err(Reason::RootVersion { expected, found: document.version });
    }
    let scrutiny = scrutiny(policy);
    let by_current = tally(&envelope, fitting_keys(current, gun), scrutiny, facts);
    let too_few = refuse_too_few(&RoleName::Root, &by_current, current.root.threshold);
    let is_unsigned = matches!(too_few, Err(Reason::Threshold { .. }));
    if is_unsigned { Err(Reason::RootRotation { from: chain.version }) } else { too_few }?;
    let by_itself = tally(&envelope, fitting_keys(next, gun), scrutiny, facts);
    refuse_too_few(&RoleName::Root, &by_itself, next.root.threshold)?;
    chain.timestamp_changed |= next.timestamp != current.timestamp;
    chain.snapshot_changed |= next.snapshot != current.snapshot;
    chain.bodies.push(body);
    chain.version = expected;
    chain.newest = envelope;
    Ok(())
}

/// What the newest root must satisfy on every decision: its threshold of distinct, pinned keys whose certificates are
/// valid for this repository at `moment` (`None`: at any time). Tells when too few of their certificates will be left.
pub(crate) fn final_checks(
    envelope: &Envelope,
    gun: &Gun,
    (anchor, policy): (&Anchor, &Policy),
    moment: Option<UnixTime>,
    facts: &mut Facts,
) -> Result<UnixTime, Reason> {
    let (_, root) = envelope.root().map_err(document_fault(&RoleName::Root))?;
    let mut eligible = Vec::new();
    let mut rejected = Vec::new();
    for key in root_keys(root) {
        match fault_of(key, gun, moment).or_else(|| revoked(key, policy)) {
            None => eligible.push(key),
            Some(why) => rejected.push(RejectedRootKey { id: key.id, canonical_id: canonical_id(key), why }),
        }
    }
    let pinned: Vec<&Key> = eligible.iter().copied().filter(|key| anchor.names(&key.id, canonical_id(key).as_ref())).collect();
    let revoked: Vec<_> = rejected.iter().filter(|key| key.why == RootKeyFault::Revoked).filter_map(|key| key.canonical_id).collect();
    if pinned.is_empty() && !revoked.is_empty() {
        return Err(Reason::KeyRevoked { role: RoleName::Root, keys: revoked });
    }
    if eligible.is_empty() {
        return Err(Reason::RootCertificates(rejected));
    }
    if pinned.is_empty() {
        let found = eligible.iter().filter_map(|key| Some((key.id, canonical_id(key)?))).collect();
        return Err(Reason::RootNotPinned { found });
    }
    let tally = tally(envelope, pinned.into_iter(), scrutiny(policy), facts);
    let needed = root.root.threshold;
    refuse_too_few(&RoleName::Root, &tally, needed)?;
    Ok(end_of_threshold(tally.signers.values().filter_map(|signer| signer.bundle_ends), tally.valid().saturating_sub(needed)))
}

/// The validity of root certificates is looked at key by key.
const fn scrutiny(policy: &Policy) -> Scrutiny<'_> {
    Scrutiny { revoked: &policy.revoked_keys, certificates_at: None }
}

pub(crate) fn revoked(key: &Key, policy: &Policy) -> Option<RootKeyFault> {
    let is_revoked = canonical_id(key).is_some_and(|id| policy.revoked_keys.contains(&id));
    is_revoked.then_some(RootKeyFault::Revoked)
}

/// When certificates with these ends become one too few, if `spare` of them may go.
fn end_of_threshold(ends: impl Iterator<Item = UnixTime>, spare: u64) -> UnixTime {
    let mut ends: Vec<UnixTime> = ends.collect();
    ends.sort_unstable();
    let last = usize::try_from(spare).ok().and_then(|spare| ends.get(spare));
    last.copied().unwrap_or(UnixTime::NEVER)
}

pub(crate) fn root_keys(root: &Root) -> impl Iterator<Item = &Key> {
    root.root.key_ids.iter().filter_map(|id| root.keys.get(id))
}

/// Root keys whose certificates are for this repository, whether or not they have ended: an ended certificate of the
/// *previous* root must not lock a repository for ever.
fn fitting_keys<'a>(root: &'a Root, gun: &'a Gun) -> impl Iterator<Item = &'a Key> {
    root_keys(root).filter(|key| fault_of(key, gun, None).is_none())
}

pub(crate) fn fault_of(key: &Key, gun: &Gun, moment: Option<UnixTime>) -> Option<RootKeyFault> {
    let usable = match &key.usable {
        Ok(usable) => usable,
        Err(fault) => return Some(RootKeyFault::Unusable(fault.clone())),
    };
    let Some(bundle) = &usable.bundle else { return Some(RootKeyFault::NoCertificate) };
    let fits = bundle.fits_root_of(gun.as_str()).and_then(|()| moment.map_or(Ok(()), |now| bundle.is_valid_at(now)));
    fits.err().map(RootKeyFault::Certificate)
}

fn canonical_id(key: &Key) -> Option<CanonicalKeyId> {
    key.usable.as_ref().ok().map(|usable| usable.canonical_id)
}
