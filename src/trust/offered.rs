//! A root as a server offers it, to be shown. Reading it trusts nothing: whoever pins decides, and has asked elsewhere.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::document::{self, Envelope, Kind, Root};
use crate::evidence::{Body, FileName, Gun, Want};
use crate::facts::Facts;
use crate::key::{CanonicalKeyId, Key, KeyId};
use crate::pin::Anchor;
use crate::policy::Policy;
use crate::refusal::{Reason, Refusal, RootKeyFault};
use crate::role::RoleName;
use crate::root::{fault_of, final_checks, revoked, root_keys};
use crate::signers::{Scrutiny, tally};
use crate::time::UnixTime;
use crate::update::document_fault;
use crate::view::KeyCertificate;
use crate::walk::MAX_ROOT_BYTES;

/// A key of a root's own role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootKey {
    /// Its name with its certificate: what `cert-ids` holds.
    pub id: KeyId,
    /// Its name without: what `root-keys` holds. None if the key cannot be used.
    pub canonical_id: Option<CanonicalKeyId>,
    /// Its certificate, if it has one that can be read.
    pub certificate: Option<KeyCertificate>,
    /// Why it cannot vouch for the repository.
    pub fault: Option<RootKeyFault>,
    /// Whether it has signed this root.
    pub has_signed: bool,
}

impl RootKey {
    /// Whether it does vouch for this root.
    #[must_use]
    pub const fn vouches(&self) -> bool {
        self.fault.is_none() && self.has_signed
    }
}

/// A root as a server offers it.
#[derive(Debug, Clone)]
pub struct OfferedRoot {
    /// Its version.
    pub version: u64,
    /// When it runs out.
    pub expires: UnixTime,
    /// How many of its keys must have signed.
    pub threshold: u64,
    /// All keys of the root role.
    pub keys: Vec<RootKey>,
    gun: Gun,
    envelope: Arc<Envelope>,
}

impl OfferedRoot {
    /// The file to ask a server for.
    #[must_use]
    pub const fn wanted() -> Want {
        Want { file: FileName::NewestRoot, limit: MAX_ROOT_BYTES }
    }

    /// Reads a root of `gun` as strictly as one that is to be trusted, and looks at each of its keys at the moment `now`.
    ///
    /// # Errors
    /// A [`Refusal`] of the repository if the file cannot be read.
    pub fn read(body: &Body, gun: &Gun, policy: &Policy, now: UnixTime) -> Result<Self, Refusal> {
        let refused = |error| Refusal::of_repository(gun.clone(), document_fault(&RoleName::Root)(error));
        let envelope = document::read(Kind::Root, policy.json_form, body.bytes()).map_err(refused)?;
        let (document, root) = envelope.root().map_err(refused)?;
        let (version, expires, threshold) = (document.version, document.expires, root.root.threshold);
        let keys = keys_of(&envelope, root, gun, (policy, now));
        Ok(Self { version, expires, threshold, keys, gun: gun.clone(), envelope })
    }

    /// Whether a node that knows nothing of the repository would accept this root if `anchor` were pinned for it.
    ///
    /// # Errors
    /// A [`Refusal`] of the repository.
    pub fn refuse_unless_anchored_in(&self, anchor: &Anchor, policy: &Policy, now: UnixTime) -> Result<(), Refusal> {
        let checked = final_checks(&self.envelope, &self.gun, (anchor, policy), Some(now), &mut Facts::default());
        let checked = checked.and_then(|_| {
            let is_valid = self.expires >= now;
            if is_valid { Ok(()) } else { Err(Reason::Expired { role: RoleName::Root, at: self.expires }) }
        });
        checked.map_err(|reason| Refusal::of_repository(self.gun.clone(), reason))
    }

    /// Whether any pin at all could make it trusted.
    ///
    /// # Errors
    /// A [`Refusal`] of the repository.
    pub fn refuse_unusable(&self, policy: &Policy, now: UnixTime) -> Result<(), Refusal> {
        self.refuse_unless_anchored_in(&self.own_anchor(), policy, now)
    }

    /// Pins this root to itself, which is trust on first use: for looking at a repository that nobody has pinned. Nothing that is
    /// evaluated under it may be kept, or allow anything.
    #[must_use]
    pub fn own_anchor(&self) -> Anchor {
        let ids: BTreeSet<_> = self.keys.iter().filter_map(|key| key.canonical_id).map(|id| *id.hash()).collect();
        Anchor::RootKeys(ids)
    }
}

fn keys_of(envelope: &Envelope, root: &Root, gun: &Gun, (policy, now): (&Policy, UnixTime)) -> Vec<RootKey> {
    let mut facts = Facts::default();
    let all = Scrutiny { revoked: &BTreeSet::new(), certificates_at: None };
    let mut read = |key: &Key| RootKey {
        id: key.id,
        canonical_id: key.usable.as_ref().ok().map(|usable| usable.canonical_id),
        certificate: KeyCertificate::of(key),
        fault: fault_of(key, gun, Some(now)).or_else(|| revoked(key, policy)),
        has_signed: tally(envelope, core::iter::once(key), all, &mut facts).valid() > 0,
    };
    root_keys(root).map(&mut read).collect()
}
