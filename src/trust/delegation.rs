//! Delegations: loading them by their parents' word (`docs/notary-v1.md`, 11).

use alloc::collections::BTreeSet;
use alloc::string::ToString as _;
use alloc::vec::Vec;

use crate::document::{Delegation, FileEntry, Kind, Targets};
use crate::evidence::{Answer, FileName, Want};
use crate::fields::DocumentError;
use crate::known::{Floor, MAX_FLOORS};
use crate::paths::Paths;
use crate::policy::{Policy, SignerCertificates};
use crate::refusal::{Reason, RoleFault};
use crate::role::RoleName;
use crate::signers::{Discount, Tally};
use crate::time::UnixTime;
use crate::trusted::{TrustedRepository, TrustedRole};
use crate::update::{Evaluation, FloorRule, Halt, MAX_TARGETS_BYTES, Verified, document_fault};

/// More delegations than any repository loads (`docs/notary-v1.md`, 2.2).
pub(crate) const MAX_ROLES: usize = 1024;
/// Deeper than anybody delegates.
pub(crate) const MAX_DEPTH: usize = 16;

/// A role that delegates: its name, its list, and the paths that it may hand on.
struct Parent<'a> {
    role: RoleName,
    targets: &'a Targets,
    paths: &'a Paths,
    depth: usize,
}

/// What came of one delegation.
enum Loaded {
    /// Nothing was published for it, or it may sign nothing.
    NoData,
    Usable(TrustedRole),
    /// With its file, if that could be read.
    Unusable(RoleFault, Option<Verified>),
}

impl Evaluation<'_> {
    /// Loads every delegation that can be reached, children before siblings. What is missing is wanted all at once.
    pub(crate) fn load_delegations(&mut self, repository: &mut TrustedRepository) -> Result<(), Halt> {
        let snapshot = repository.snapshot();
        let (_, listed) = snapshot.snapshot().map_err(document_fault(&RoleName::Snapshot))?;
        let mut wants = Vec::new();
        let top = repository.targets_role().clone();
        let (_, targets) = top.envelope().targets().map_err(document_fault(&RoleName::Targets))?;
        let parent = Parent { role: RoleName::Targets, targets, paths: top.paths(), depth: 0 };
        self.load_children(&parent, listed, repository, &mut wants)?;
        if wants.is_empty() { Ok(()) } else { Err(Halt::Wanting(wants)) }
    }

    fn load_children(
        &mut self,
        parent: &Parent<'_>,
        listed: &crate::document::Snapshot,
        repository: &mut TrustedRepository,
        wants: &mut Vec<Want>,
    ) -> Result<(), Halt> {
        refuse_invalid_names(parent)?;
        for delegation in &parent.targets.delegations {
            let name = RoleName::Delegation(delegation.role.clone());
            let loaded = match self.load(delegation, parent, listed, repository) {
                Err(Halt::Wanting(more)) => {
                    wants.extend(more);
                    continue;
                }
                other => other?,
            };
            match loaded {
                Loaded::NoData => {}
                Loaded::Unusable(fault, file) => self.record_unusable(delegation, parent, (fault, file), repository)?,
                Loaded::Usable(role) => {
                    repository.add(role.clone());
                    let (_, targets) = role.envelope().targets().map_err(document_fault(&name))?;
                    let next = Parent { role: name, targets, paths: role.paths(), depth: parent.depth.saturating_add(1) };
                    self.load_children(&next, listed, repository, wants)?;
                }
            }
        }
        Ok(())
    }

    fn load(
        &mut self,
        delegation: &Delegation,
        parent: &Parent<'_>,
        listed: &crate::document::Snapshot,
        repository: &mut TrustedRepository,
    ) -> Result<Loaded, Halt> {
        let Some(entry) = listed.files.get(delegation.role.as_str()) else {
            self.refuse_hidden(delegation)?;
            return Ok(Loaded::NoData);
        };
        let paths = parent.paths.within(&delegation.paths);
        if paths.is_empty() {
            return Ok(Loaded::NoData);
        }
        self.take_role(parent)?;
        let name = RoleName::Delegation(delegation.role.clone());
        if !repository.known_mut().has_room_for(&name) {
            return Err(Reason::TooManyFloors { limit: MAX_FLOORS }.into());
        }
        repository.known_mut().published.insert(delegation.role.to_string());
        if entry.sha256.is_none() {
            return Ok(Loaded::Unusable(RoleFault::NoSha256, None));
        }
        self.load_file(delegation, parent, entry, paths, repository)
    }

    /// Counts a role whether or not its file is at hand, so that no more are asked for than may be loaded.
    fn take_role(&mut self, parent: &Parent<'_>) -> Result<(), Reason> {
        let left = self.roles_left.checked_sub(1).filter(|_| parent.depth < MAX_DEPTH);
        self.roles_left = left.ok_or(Reason::TooManyRoles { limit: MAX_ROLES })?;
        Ok(())
    }

    fn load_file(
        &mut self,
        delegation: &Delegation,
        parent: &Parent<'_>,
        entry: &FileEntry,
        paths: Paths,
        repository: &mut TrustedRepository,
    ) -> Result<Loaded, Halt> {
        let name = RoleName::Delegation(delegation.role.clone());
        let body = self.promised(&name, entry, MAX_TARGETS_BYTES)?;
        let envelope = self.read(Kind::Targets, &name, &body)?;
        let certificates_at = certificates_moment(self.terms.policy, self.moment());
        let tally = self.tally(&envelope, &delegation.authority, &parent.targets.keys, certificates_at);
        repository.keep(FileName::ByHash(name.clone(), *body.hash()), Answer::Found(body));
        if let Some(fault) = too_few(&tally, delegation.authority.threshold) {
            return Ok(Loaded::Unusable(fault, Some(Verified { envelope, tally })));
        }
        let (document, _) = envelope.targets().map_err(document_fault(&name))?;
        self.refuse_rollback(&name, document.version, &envelope.payload_hash, FloorRule::Full)?;
        if self.has_expired(document) {
            let fault = RoleFault::Expired(document.expires);
            return Ok(Loaded::Unusable(fault, Some(Verified { envelope, tally })));
        }
        repository.trust_until(document.expires);
        repository.known_mut().raise(&name, Floor { version: document.version, signed: envelope.payload_hash });
        Ok(Loaded::Usable(TrustedRole::new(name, paths, Verified { envelope, tally })))
    }

    /// A server that holds the snapshot key can leave a delegation out, most of all the one whose keys were just changed: then
    /// an older digest in `targets` would count again. Whoever has seen it listed refuses, whoever may sign it now
    /// (`docs/notary-v1.md`, 10.4): the real server goes on listing even a delegation that was taken away and given again. The
    /// reference client does not when it keeps the snapshot key itself, which looks the same; nor can it publish that role again.
    fn refuse_hidden(&self, delegation: &Delegation) -> Result<(), Reason> {
        if self.known.published.contains(delegation.role.as_str()) {
            return Err(Reason::RoleDisappeared(delegation.role.clone()));
        }
        Ok(())
    }

    /// An unusable role is left out, but for the one that releases tags: without it, readers would quietly fall back to
    /// an older digest in `targets`.
    fn record_unusable(
        &self,
        delegation: &Delegation,
        parent: &Parent<'_>,
        (fault, file): (RoleFault, Option<Verified>),
        repository: &mut TrustedRepository,
    ) -> Result<(), Halt> {
        let role = delegation.role.clone();
        if role.is_releases() {
            let was_usable = self.known.floors.contains_key(role.as_str());
            return Err(Reason::ReleasesUnusable { role, fault, was_usable }.into());
        }
        repository.add_unusable(role, (fault, file), parent.paths.within(&delegation.paths));
        Ok(())
    }
}

/// The moment at which the certificates of those who sign delegations must be valid, if any; `now` is the moment that is asked
/// about, if expiry matters.
pub(crate) const fn certificates_moment(policy: &Policy, now: Option<UnixTime>) -> Option<UnixTime> {
    match policy.signer_certificates {
        SignerCertificates::Warn => None,
        SignerCertificates::Enforce => now,
    }
}

/// Why too few signatures count, if they do.
fn too_few(tally: &Tally, needed: u64) -> Option<RoleFault> {
    let valid = tally.valid();
    if valid >= needed {
        return None;
    }
    if tally.fails_for(Discount::Revoked, needed) {
        return Some(RoleFault::KeyRevoked(tally.discounted_for(Discount::Revoked).collect()));
    }
    if tally.fails_for(Discount::Certificate, needed) {
        return Some(RoleFault::CertificateEnded(tally.discounted_for(Discount::Certificate).collect()));
    }
    Some(RoleFault::Threshold { valid, needed })
}

/// Every name in a parent's list is that of a direct child, once; else the parent is invalid.
fn refuse_invalid_names(parent: &Parent<'_>) -> Result<(), Reason> {
    let mut names = BTreeSet::new();
    for delegation in &parent.targets.delegations {
        let role = &delegation.role;
        if !role.is_direct_child_of(parent.role.as_str()) || !names.insert(role) {
            let error = DocumentError::Delegation(crate::name::shown(role.as_str()));
            return Err(Reason::Document { role: parent.role.clone(), error });
        }
    }
    Ok(())
}
