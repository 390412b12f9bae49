//! The update procedure (`docs/notary-v1.md`, 9), as a pure function of what was fetched.
//!
//! It is called again with more files until it wants no more. Nothing of a file is used before its signatures are
//! verified; what comes out is a repository whose every used document hangs together, or one reason why not.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use crate::delegation::MAX_ROLES;
use crate::document::{self, Authority, Body as DocumentBody, Envelope, FileEntry, Keys, Kind, Snapshot};
use crate::evidence::{Answer, Body, Evidence, FileName, Want};
use crate::facts::{Facts, MAX_SIGNATURE_CHECKS};
use crate::fields::DocumentError;
use crate::known::{Floor, Known};
use crate::name::Sha256;
use crate::paths::Paths;
use crate::pin::Anchor;
use crate::policy::Policy;
use crate::refusal::{Reason, Refusal};
use crate::role::RoleName;
use crate::root::RootChain;
use crate::signers::{Discount, Scrutiny, Tally, tally};
use crate::time::UnixTime;
use crate::trusted::{Base, TrustedRepository, TrustedRole};
use crate::walk::MAX_ROOT_BYTES;

/// The reference's own limit; real ones have 500 bytes.
pub(crate) const MAX_TIMESTAMP_BYTES: u64 = 1 << 20;
/// The reference's tests need 7.3 MB.
pub(crate) const MAX_SNAPSHOT_BYTES: u64 = 16 << 20;
/// The reference's tests need 6.5 MB.
pub(crate) const MAX_TARGETS_BYTES: u64 = 16 << 20;
/// Every root on the way and every file by hash of one update together. The reference's tests need 14 MB, and a node keeps all of
/// it for each repository.
pub(crate) const MAX_UPDATE_BYTES: u64 = 32 << 20;
/// All files of one update, as [`Evidence::encode`](crate::evidence::Evidence::encode) writes them with their names.
pub const MAX_EVIDENCE_BYTES: u64 = MAX_UPDATE_BYTES + MAX_ROOT_BYTES + MAX_TIMESTAMP_BYTES + (1 << 20);
/// A version this much higher than the last seen would only lock the role for ever.
pub(crate) const MAX_VERSION_JUMP: u64 = 1_000_000;

/// Where the evidence stands in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It is being fetched: what is missing is wanted.
    Fetching,
    /// It is all there is: nothing more can be asked for.
    Held {
        /// Whether expiry is ignored (`allow-expired-cached-trust-data`). Signatures, hashes, floors and pins never are.
        allow_expired: bool,
    },
}

/// Under which terms evidence is evaluated.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// What the configuration pins for this repository.
    pub anchor: &'a Anchor,
    /// Whose signatures count, and how trust data is read.
    pub policy: &'a Policy,
    /// The moment that is asked about.
    pub now: UnixTime,
    /// Whether more can be fetched.
    pub freshness: Freshness,
}

/// How far an evaluation came.
#[derive(Debug)]
pub enum Progress {
    /// These files are needed; they may be fetched in parallel.
    Wanting(Vec<Want>),
    /// The repository's trust data is good.
    Trusted(Box<TrustedRepository>),
}

/// Why an evaluation went no further.
pub(crate) enum Halt {
    Wanting(Vec<Want>),
    Refused(Reason),
}

impl From<Reason> for Halt {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

/// Evaluates the trust data of the repository that `evidence` is about.
///
/// # Errors
/// A [`Refusal`] of the repository, with the first fault that was met.
pub fn evaluate(evidence: &Evidence, known: &Known, terms: Terms<'_>, facts: &mut Facts) -> Result<Progress, Refusal> {
    facts.begin();
    let outcome = Evaluation::new(evidence, known, terms, facts).run();
    facts.end();
    if facts.is_exhausted() {
        let reason = Reason::TooManySignatures { limit: MAX_SIGNATURE_CHECKS };
        return Err(Refusal::of_repository(evidence.gun().clone(), reason));
    }
    match outcome {
        Ok(trusted) => Ok(Progress::Trusted(Box::new(trusted))),
        Err(Halt::Wanting(wants)) => Ok(Progress::Wanting(wants)),
        Err(Halt::Refused(reason)) => Err(Refusal::of_repository(evidence.gun().clone(), reason)),
    }
}

/// How many new roots `evidence` proves beyond the known one, whatever becomes of the rest.
///
/// A key that a proven new root has revoked must not be used again, even when the update that brought the root failed.
#[must_use]
pub fn proven_root_steps(evidence: &Evidence, known: &Known, terms: Terms<'_>, facts: &mut Facts) -> u64 {
    let terms = Terms { freshness: Freshness::Held { allow_expired: true }, ..terms };
    facts.begin();
    let mut evaluation = Evaluation::new(evidence, known, terms, facts);
    let Ok(mut chain) = evaluation.first_root() else { return 0 };
    // The walk ends where it fails, and what was proven before that stays proven.
    drop(evaluation.walk(&mut chain));
    chain.steps()
}

pub(crate) struct Evaluation<'a> {
    pub(crate) evidence: &'a Evidence,
    pub(crate) known: &'a Known,
    pub(crate) terms: Terms<'a>,
    pub(crate) facts: &'a mut Facts,
    bytes_left: u64,
    pub(crate) roles_left: usize,
}

/// How the floor of a role binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FloorRule {
    /// No lower version, and the same version says the same.
    Full,
    /// No lower version. A new root forces a new text on the snapshot, which names it, and on the timestamp.
    Version,
    /// None: a new root has changed who signs, so that a version pushed absurdly high by a stolen key can be recovered
    /// from.
    Reset,
}

/// A document whose signatures were counted.
#[derive(Debug, Clone)]
pub(crate) struct Verified {
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) tally: Tally,
}

impl<'a> Evaluation<'a> {
    fn new(evidence: &'a Evidence, known: &'a Known, terms: Terms<'a>, facts: &'a mut Facts) -> Self {
        Self { evidence, known, terms, facts, bytes_left: MAX_UPDATE_BYTES, roles_left: MAX_ROLES }
    }

    fn run(&mut self) -> Result<TrustedRepository, Halt> {
        let mut chain = self.first_root()?;
        self.walk(&mut chain)?;
        let mut valid_until = self.final_root_checks(&chain)?;
        let (timestamp, snapshot) = match self.timestamp_and_snapshot(&chain) {
            Err(Halt::Refused(reason @ Reason::Threshold { .. })) => return Err(self.told_from_another_root(&chain, reason)),
            other => other?,
        };
        let (timestamp, snapshot) = match self.newer_root_by_hash(&chain, &snapshot)? {
            None => (timestamp, snapshot),
            Some(newer) => {
                valid_until = self.final_root_checks(&newer)?;
                chain = newer;
                let again = self.timestamp_and_snapshot(&chain)?;
                self.refuse_other_root(&chain, &again.1)?;
                again
            }
        };
        let (_, root) = chain.newest().root().map_err(document_fault(&RoleName::Root))?;
        let entry = content(&snapshot, Envelope::snapshot, &RoleName::Snapshot)?.1.targets.clone();
        let targets = self.role_file(&RoleName::Targets, &entry, MAX_TARGETS_BYTES, (&root.keys, &root.targets), FloorRule::Full)?;
        let mut repository = self.begin_result(&chain, Base { root: chain.newest_envelope(), timestamp, snapshot }, targets)?;
        repository.trust_until(valid_until);
        self.load_delegations(&mut repository)?;
        if self.terms.policy.requires_releases(self.evidence.gun()) {
            repository.require_releases()?;
        }
        Ok(repository)
    }

    // === timestamp, snapshot, targets ===

    fn timestamp_and_snapshot(&mut self, chain: &RootChain) -> Result<(Verified, Verified), Halt> {
        let (_, root) = chain.newest().root().map_err(document_fault(&RoleName::Root))?;
        let had_some = self.known.root.is_some();
        let body = self.found(&FileName::Timestamp, MAX_TIMESTAMP_BYTES)?.ok_or(Reason::NoTrustData { had_some })?;
        let timestamp = self.verify(&RoleName::Timestamp, &body, (&root.keys, &root.timestamp), chain.timestamp_floor())?;
        let entry = content(&timestamp, Envelope::timestamp, &RoleName::Timestamp)?.1.clone();
        let authority = (&root.keys, &root.snapshot);
        let snapshot = self.role_file(&RoleName::Snapshot, &entry, MAX_SNAPSHOT_BYTES, authority, chain.snapshot_floor())?;
        Ok((timestamp, snapshot))
    }

    /// The file that `entry` promises for `role`, verified.
    fn role_file(
        &mut self,
        role: &RoleName,
        entry: &FileEntry,
        cap: u64,
        signed_by: (&Keys, &Authority),
        floor: FloorRule,
    ) -> Result<Verified, Halt> {
        let body = self.promised(role, entry, cap)?;
        self.verify(role, &body, signed_by, floor)
    }

    /// The file that `entry` promises for `role`, with exactly the promised content (`docs/notary-v1.md`, 6.5).
    pub(crate) fn promised(&mut self, role: &RoleName, entry: &FileEntry, cap: u64) -> Result<Body, Halt> {
        let Some(hash) = entry.sha256 else { return Err(Reason::Checksum { role: role.clone() }.into()) };
        let file = FileName::ByHash(role.clone(), hash);
        if entry.length > cap {
            return Err(Reason::TooLong { file, limit: cap }.into());
        }
        self.spend(entry.length)?;
        let body = self.found(&file, entry.length)?.ok_or(Reason::FileMissing(file))?;
        self.refuse_other_content(role, entry, &body)?;
        Ok(body)
    }

    pub(crate) fn spend(&mut self, bytes: u64) -> Result<(), Reason> {
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(Reason::TooMuchData { limit: MAX_UPDATE_BYTES })?;
        Ok(())
    }

    pub(crate) fn refuse_other_content(&mut self, role: &RoleName, entry: &FileEntry, body: &Body) -> Result<(), Reason> {
        let found = body.bytes().len() as u64;
        if found != entry.length {
            return Err(Reason::Length { role: role.clone(), promised: entry.length, found });
        }
        let is_sha256 = entry.sha256.as_ref() == Some(body.hash());
        let is_sha512 = entry.sha512.as_ref().is_none_or(|promised| self.facts.sha512(body) == *promised);
        if is_sha256 && is_sha512 { Ok(()) } else { Err(Reason::Checksum { role: role.clone() }) }
    }

    /// Every check on one document, in the order of `docs/notary-v1.md`, 9.2: strict JSON, signatures, structure, version,
    /// expiry.
    fn verify(&mut self, role: &RoleName, body: &Body, signed_by: (&Keys, &Authority), floor: FloorRule) -> Result<Verified, Halt> {
        let envelope = self.read(kind_of(role), role, body)?;
        let (keys, authority) = signed_by;
        let tally = self.tally(&envelope, authority, keys, None);
        refuse_too_few(role, &tally, authority.threshold)?;
        let document = envelope.body.as_ref().map_err(|error| document_fault(role)(error.clone()))?;
        self.refuse_rollback(role, document.version, &envelope.payload_hash, floor)?;
        self.refuse_expired(role, document)?;
        Ok(Verified { envelope, tally })
    }

    /// Counts who of `authority` has signed. Keys with certificates must be valid at the moment `certificates_at`, if one is
    /// given.
    pub(crate) fn tally(&mut self, envelope: &Envelope, authority: &Authority, keys: &Keys, certificates_at: Option<UnixTime>) -> Tally {
        let scrutiny = Scrutiny { revoked: &self.terms.policy.revoked_keys, certificates_at };
        tally(envelope, authority.key_ids.iter().filter_map(|id| keys.get(id)), scrutiny, self.facts)
    }

    /// `docs/notary-v1.md`, 10.4. The same version must say the same; re-signing it is fine.
    pub(crate) fn refuse_rollback(&self, role: &RoleName, offered: u64, signed: &Sha256, rule: FloorRule) -> Result<(), Reason> {
        let Some(floor) = self.known.floor(role).filter(|_| rule != FloorRule::Reset) else { return Ok(()) };
        let (role, seen) = (role.clone(), floor.version);
        if offered < seen {
            return Err(Reason::Rollback { role, seen, offered });
        }
        if offered == seen && floor.signed != *signed && rule == FloorRule::Full {
            return Err(Reason::Equivocation { role, version: offered });
        }
        if offered - seen > MAX_VERSION_JUMP { Err(Reason::VersionJump { role, seen, offered }) } else { Ok(()) }
    }

    pub(crate) fn refuse_expired(&self, role: &RoleName, document: &DocumentBody) -> Result<(), Halt> {
        if self.has_expired(document) { Err(Reason::Expired { role: role.clone(), at: document.expires }.into()) } else { Ok(()) }
    }

    /// The moment at which certificates must be valid; none when expiry is ignored.
    pub(crate) fn moment(&self) -> Option<UnixTime> {
        match self.terms.freshness {
            Freshness::Held { allow_expired: true } => None,
            Freshness::Held { allow_expired: false } | Freshness::Fetching => Some(self.terms.now),
        }
    }

    pub(crate) fn has_expired(&self, document: &DocumentBody) -> bool {
        self.moment().is_some_and(|now| document.expires < now)
    }

    // === files ===

    /// The answer for a file: its body, or `None` when the server has no such file.
    pub(crate) fn found(&self, file: &FileName, limit: u64) -> Result<Option<Body>, Halt> {
        match (self.evidence.answer(file), self.terms.freshness) {
            (Some(Answer::Found(body)), _) if body.bytes().len() as u64 > limit => {
                Err(Reason::TooLong { file: file.clone(), limit }.into())
            }
            (Some(Answer::Found(body)), _) => Ok(Some(body.clone())),
            (Some(Answer::NotFound), _) => Ok(None),
            (None, Freshness::Fetching) => Err(self.wanting(file.clone(), limit)),
            (None, Freshness::Held { .. }) => Err(Reason::Incomplete(file.clone()).into()),
        }
    }

    /// The timestamp depends on nothing, so it is asked for together with whatever is wanted first.
    pub(crate) fn wanting(&self, file: FileName, limit: u64) -> Halt {
        let mut wants = vec![Want { file, limit }];
        let has_timestamp =
            self.evidence.answer(&FileName::Timestamp).is_some() || wants.iter().any(|want| want.file == FileName::Timestamp);
        if !has_timestamp {
            wants.push(Want { file: FileName::Timestamp, limit: MAX_TIMESTAMP_BYTES });
        }
        Halt::Wanting(wants)
    }

    pub(crate) fn read(&mut self, kind: Kind, role: &RoleName, body: &Body) -> Result<Arc<Envelope>, Halt> {
        self.read_document(kind, body).map_err(|error| document_fault(role)(error).into())
    }

    pub(crate) fn read_document(&mut self, kind: Kind, body: &Body) -> Result<Arc<Envelope>, DocumentError> {
        let form = self.terms.policy.json_form;
        self.facts.reading((kind, form), *body.hash(), || document::read(kind, form, body.bytes()))
    }

    // === result ===

    fn begin_result(&self, chain: &RootChain, base: Base, targets: Verified) -> Result<TrustedRepository, Halt> {
        let Base { timestamp, snapshot, .. } = &base;
        let mut known = self.known.clone();
        known.root = chain.bodies().last().cloned();
        let mut evidence = Evidence::new(self.evidence.gun().clone(), self.evidence.server().into());
        let mut valid_until = UnixTime::NEVER;
        for (role, envelope) in [
            (RoleName::Root, &*base.root),
            (RoleName::Timestamp, &*timestamp.envelope),
            (RoleName::Snapshot, &*snapshot.envelope),
            (RoleName::Targets, &*targets.envelope),
        ] {
            let document = envelope.body.as_ref().map_err(|error| document_fault(&role)(error.clone()))?;
            known.raise(&role, Floor { version: document.version, signed: envelope.payload_hash });
            valid_until = valid_until.min(document.expires);
        }
        let (_, promise) = content(timestamp, Envelope::timestamp, &RoleName::Timestamp)?;
        let (_, listed) = content(snapshot, Envelope::snapshot, &RoleName::Snapshot)?;
        self.keep_base_files(&mut evidence, chain, promise, listed);
        let targets = TrustedRole::new(RoleName::Targets, Paths::all(), targets);
        Ok(TrustedRepository::new(evidence, known, valid_until, base, targets))
    }

    /// What must be kept to judge the repository again: the newest root and the files that hang together with it.
    fn keep_base_files(&self, evidence: &mut Evidence, chain: &RootChain, promise: &FileEntry, listed: &Snapshot) {
        if let Some(root) = chain.bodies().last() {
            evidence.add(FileName::NewestRoot, Answer::Found(root.clone()));
        }
        let by_hash = [(RoleName::Snapshot, promise), (RoleName::Targets, &listed.targets)];
        let by_hash = by_hash.into_iter().filter_map(|(role, entry)| Some(FileName::ByHash(role, entry.sha256?)));
        for file in by_hash.chain([FileName::Timestamp]) {
            if let Some(answer) = self.evidence.answer(&file) {
                evidence.add(file, answer.clone());
            }
        }
    }
}

/// A document needs its threshold of distinct keys that count.
pub(crate) fn refuse_too_few(role: &RoleName, tally: &Tally, needed: u64) -> Result<(), Reason> {
    if tally.valid() >= needed {
        return Ok(());
    }
    if tally.fails_for(Discount::Revoked, needed) {
        return Err(Reason::KeyRevoked { role: role.clone(), keys: tally.discounted_for(Discount::Revoked).collect() });
    }
    Err(Reason::Threshold { role: role.clone(), valid: tally.valid(), needed })
}

const fn kind_of(role: &RoleName) -> Kind {
    match role {
        RoleName::Root => Kind::Root,
        RoleName::Timestamp => Kind::Timestamp,
        RoleName::Snapshot => Kind::Snapshot,
        RoleName::Targets | RoleName::Delegation(_) => Kind::Targets,
    }
}

pub(crate) fn document_fault(role: &RoleName) -> impl Fn(DocumentError) -> Reason {
    let role = role.clone();
    move |error| Reason::Document { role: role.clone(), error }
}

pub(crate) fn content<'a, T>(
    verified: &'a Verified,
    pick: impl Fn(&'a Envelope) -> Result<(&'a DocumentBody, &'a T), DocumentError>,
    role: &RoleName,
) -> Result<(&'a DocumentBody, &'a T), Halt> {
    pick(&verified.envelope).map_err(|error| document_fault(role)(error).into())
}
