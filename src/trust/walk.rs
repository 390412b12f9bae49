//! From the root that is known to the newest that is proven (`docs/notary-v1.md`, 8.2), and back to it from the snapshot.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::document::{Envelope, FileEntry, Kind};
use crate::evidence::{Answer, Body, FileName};
use crate::refusal::Reason;
use crate::role::RoleName;
use crate::root::{RootChain, step};
use crate::time::UnixTime;
use crate::update::{Evaluation, FloorRule, Freshness, Halt, Verified, content, document_fault};

/// Bytes of one root. It holds a handful of keys; real ones have 3 to 10 KiB (`docs/notary-v1.md`, 2.2).
pub const MAX_ROOT_BYTES: u64 = 4 << 20;
/// Nobody rotates a root so often; a signed version 1,000,000 makes the reference loop.
const MAX_ROOT_STEPS: u64 = 1024;

impl Evaluation<'_> {
    /// Where the chain of roots begins: at the known root, or else at the server's newest.
    pub(crate) fn first_root(&mut self) -> Result<RootChain, Halt> {
        let fault = document_fault(&RoleName::Root);
        let Some(known) = &self.known.root else {
            let (body, envelope) = self.newest_root()?;
            return RootChain::at_newest(body, envelope).map_err(|error| fault(error).into());
        };
        let unreadable = |error| Halt::Refused(Reason::KnownUnreadable(error));
        let envelope = self.read_document(Kind::Root, known).map_err(unreadable)?;
        let chain = RootChain::at_known(known.clone(), envelope).map_err(unreadable)?;
        if !chain.is_revoked(self.evidence.gun(), self.terms.policy).map_err(unreadable)? {
            return Ok(chain);
        }
        // A stolen key that is revoked must not keep nodes from the root that replaced it. The pin vouches for the newest root
        // as it does at first contact; what was seen before binds it all the same.
        let (body, envelope) = self.newest_root()?;
        let version = envelope.root().map_err(&fault)?.0.version;
        self.refuse_rollback(&RoleName::Root, version, &envelope.payload_hash, FloorRule::Full)?;
        RootChain::instead_of(&chain, body, envelope).map_err(|error| fault(error).into())
    }

    fn newest_root(&mut self) -> Result<(Body, Arc<Envelope>), Halt> {
        let had_some = self.known.root.is_some();
        let body = self.found(&FileName::NewestRoot, MAX_ROOT_BYTES)?.ok_or(Reason::NoTrustData { had_some })?;
        let envelope = self.read(Kind::Root, &RoleName::Root, &body)?;
        Ok((body, envelope))
    }

    /// Walks from a known root to the newest that is proven. The server's newest root is where a walk ends.
    pub(crate) fn walk(&mut self, chain: &mut RootChain) -> Result<(), Halt> {
        while chain.is_walked() {
            let next = FileName::Root(chain.version().saturating_add(1));
            let body = match (self.evidence.answer(&next), self.terms.freshness) {
                (None, Freshness::Fetching) => return Err(self.wanting(next, MAX_ROOT_BYTES)),
                (None, Freshness::Held { .. }) | (Some(Answer::NotFound), _) => return Ok(()),
                (Some(Answer::Found(body)), _) => body.clone(),
            };
            if chain.steps() >= MAX_ROOT_STEPS {
                return Err(Reason::TooManyRoots { limit: MAX_ROOT_STEPS }.into());
            }
            self.spend(body.bytes().len() as u64)?;
            self.step(chain, body)?;
        }
        Ok(())
    }

    fn step(&mut self, chain: &mut RootChain, body: Body) -> Result<(), Halt> {
        let envelope = self.read(Kind::Root, &RoleName::Root, &body)?;
        Ok(step(chain, body, envelope, (self.evidence.gun(), self.terms.policy), self.facts)?)
    }

    /// Tells when the root's certificates end.
    pub(crate) fn final_root_checks(&mut self, chain: &RootChain) -> Result<UnixTime, Halt> {
        let trusted = (self.terms.anchor, self.terms.policy);
        let certificates_end = crate::root::final_checks(chain.newest(), self.evidence.gun(), trusted, self.moment(), self.facts)?;
        let (body, _) = chain.newest().root().map_err(document_fault(&RoleName::Root))?;
        self.refuse_expired(&RoleName::Root, body)?;
        Ok(certificates_end)
    }

    /// Closes the circle from snapshot to root, and serves old servers without versioned roots: there the snapshot
    /// names the next root (`docs/notary-v1.md`, 8.2 and 9.2, step 4).
    pub(crate) fn newer_root_by_hash(&mut self, chain: &RootChain, snapshot: &Verified) -> Result<Option<RootChain>, Halt> {
        let entry = content(snapshot, Envelope::snapshot, &RoleName::Snapshot)?.1.root.clone();
        if self.is_listed_root(chain, &entry) {
            return Ok(None);
        }
        if !chain.is_walked() || self.terms.freshness != Freshness::Fetching {
            return Err(Reason::RootMismatch.into());
        }
        let Some(hash) = entry.sha256 else { return Err(Reason::RootMismatch.into()) };
        let file = FileName::ByHash(RoleName::Root, hash);
        let body = self.found(&file, MAX_ROOT_BYTES)?.ok_or(Reason::RootMismatch)?;
        self.spend(body.bytes().len() as u64)?;
        self.refuse_other_content(&RoleName::Root, &entry, &body)?;
        let envelope = self.read(Kind::Root, &RoleName::Root, &body)?;
        let offered = envelope.root().map_err(document_fault(&RoleName::Root))?.0.version;
        if offered != chain.version().saturating_add(1) {
            return Err(Reason::RootReplaced { trusted: chain.version(), offered }.into());
        }
        let mut newer = chain.clone();
        self.step(&mut newer, body)?;
        Ok(Some(newer))
    }

    /// A foreign signature on the files of a repository that is known here is an attack, or the repository was created
    /// anew and all its keys with it. The server's newest root tells: an operator can do something about the second
    /// (`docs/notary-v1.md`, 8.2, last point).
    pub(crate) fn told_from_another_root(&mut self, chain: &RootChain, reason: Reason) -> Halt {
        if !chain.is_walked() || self.terms.freshness != Freshness::Fetching {
            return reason.into();
        }
        let body = match self.found(&FileName::NewestRoot, MAX_ROOT_BYTES) {
            Ok(Some(body)) => body,
            Ok(None) => return reason.into(),
            Err(halt) => return halt,
        };
        let Ok(envelope) = self.read_document(Kind::Root, &body) else { return reason.into() };
        let Ok((document, _)) = envelope.root() else { return reason.into() };
        let (trusted, offered) = (chain.version(), document.version);
        let follows = offered == trusted.saturating_add(1);
        let is_trusted = offered == trusted && envelope.payload_hash == chain.newest().payload_hash;
        if is_trusted || follows { reason.into() } else { Reason::RootReplaced { trusted, offered }.into() }
    }

    pub(crate) fn refuse_other_root(&mut self, chain: &RootChain, snapshot: &Verified) -> Result<(), Halt> {
        let entry = &content(snapshot, Envelope::snapshot, &RoleName::Snapshot)?.1.root;
        if self.is_listed_root(chain, entry) { Ok(()) } else { Err(Reason::RootMismatch.into()) }
    }

    /// While fetching, the snapshot must name the newest root. Held snapshots may name an earlier root of the same
    /// proven chain, so that an outage right after a root rotation locks nobody out (`docs/notary-v1.md`, 10.3).
    fn is_listed_root(&mut self, chain: &RootChain, entry: &FileEntry) -> bool {
        let candidates = match self.terms.freshness {
            Freshness::Fetching => chain.bodies().last().into_iter().collect::<Vec<_>>(),
            Freshness::Held { .. } => chain.bodies().iter().collect(),
        };
        candidates.into_iter().any(|body| self.refuse_other_content(&RoleName::Root, entry, body).is_ok())
    }
}
