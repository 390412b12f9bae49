//! Images that exist only so that the gate can be tried through its real socket (`src/proof`): judged by the same code as every
//! image, by evidence and a policy of their own.
//!
//! Their name is reserved. Nobody else's pull of it is ever allowed, whatever the configuration says: what may be pulled stands
//! below a random name that only this process knows, exists only while it is tried, and never reaches containerd.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use countersign_trust::evidence::Evidence;
use countersign_trust::known::Known;
use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageReference, RegistryHost};
use countersign_trust::pin::Pins;
use countersign_trust::time::UnixTime;
use countersign_trust::{CanonicalKeyId, Question};

use super::memory::Memory;
use super::policy::{Local, Policy};
use super::refusal::Refusal;
use super::sandbox::SandboxImage;
use super::{Admission, Admit, admitted};
use crate::fetch::TrustServer;
use crate::ledger::Held;

/// The reserved registry. `.invalid` belongs to nobody (RFC 2606), so that no name server can lead it anywhere.
pub const RESERVED_HOST: &str = "self-proof.countersign.invalid";

/// A repository that is tried, and the root key that anchors it.
#[derive(Debug)]
pub struct Rehearsed {
    /// Its trust data.
    pub evidence: Evidence,
    /// The canonical ID of its root key.
    pub root_key: CanonicalKeyId,
}

/// What is tried at the moment.
#[derive(Debug, Default)]
pub(super) struct Stage(RwLock<Option<Arc<Rehearsal>>>);

#[derive(Debug)]
struct Rehearsal {
    policy: Policy,
    memory: Memory,
}

/// What is tried, until it is dropped.
#[derive(Debug)]
pub struct OnStage<'a>(&'a Stage);

impl Drop for OnStage<'_> {
    fn drop(&mut self) {
        *self.0.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Whether nothing but the gate's own trial may go by this name.
pub(super) fn is_reserved(image: &ImageReference) -> bool {
    image.repository().host().as_str() == RESERVED_HOST
}

/// Refuses a reserved name.
pub(super) fn refuse_reserved(image: &ImageReference) -> Result<(), Refusal> {
    if is_reserved(image) { Err(Refusal::Reserved { host: RESERVED_HOST }) } else { Ok(()) }
}

impl Rehearsal {
    fn new(repositories: Vec<Rehearsed>, digest: countersign_trust::name::Sha256) -> Option<Self> {
        let host: RegistryHost = RESERVED_HOST.parse().ok()?;
        let mut pins = Pins::default();
        let mut held = Vec::new();
        for Rehearsed { evidence, root_key } in repositories {
            pins.add_root_keys(evidence.gun().as_str(), [root_key.to_string().as_str()]).ok()?;
            held.push(Held { known: Known::default(), evidence, checked_at: 0, is_own: true });
        }
        let server = TrustServer::of_registry(host.clone(), None).ok()?;
        let trust = countersign_trust::Policy::new(Mode::Enforced, pins);
        let policy = Policy {
            trust,
            servers: [(host, server)].into(),
            expired_serves_for: None,
            node_credentials: None,
            grandfather_for: None,
            superseded_max_age: Duration::ZERO,
            sandbox: SandboxImage::default(),
            refresh_interval: Duration::MAX,
            digest,
            shared_digest: digest,
        };
        Some(Self { policy, memory: Memory::new(held, []) })
    }

    fn judge(&self, question: Question<'_>, now: UnixTime) -> Result<Admission, Refusal> {
        match self.policy.consult_staged(question, now)? {
            Local::Allowed(_) => Err(Refusal::Reserved { host: RESERVED_HOST }),
            Local::Asks => Ok(admitted(question, self.memory.judge(question, &self.policy, now)?, Mode::Enforced)),
        }
    }
}

impl Admit {
    /// Puts repositories below [`RESERVED_HOST`] on the stage, in place of those that are there. None if they cannot be read.
    #[must_use]
    pub fn rehearse(&self, repositories: Vec<Rehearsed>) -> Option<OnStage<'_>> {
        let rehearsal = Rehearsal::new(repositories, self.policy().digest)?;
        *self.stage.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(rehearsal));
        Some(OnStage(&self.stage))
    }

    /// Judges an image below [`RESERVED_HOST`], if it is on the stage.
    pub(super) fn judge_staged(&self, question: Question<'_>) -> Result<Admission, Refusal> {
        let rehearsal = self.rehearsal_of(question.image).ok_or(Refusal::Reserved { host: RESERVED_HOST })?;
        rehearsal.judge(question, self.now()?)
    }

    fn rehearsal_of(&self, image: &ImageReference) -> Option<Arc<Rehearsal>> {
        let rehearsal = self.stage.0.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let gun = countersign_trust::evidence::Gun::for_repository(image.repository());
        rehearsal.policy.trust.pins.anchor_for(&gun).is_some().then_some(rehearsal)
    }

    /// Whether an image is on the stage: only the gate itself knows its name. Its pull ends with the verdict.
    #[must_use]
    pub fn is_on_stage(&self, image: &str) -> bool {
        image.parse::<ImageReference>().is_ok_and(|image| is_reserved(&image) && self.rehearsal_of(&image).is_some())
    }
}

impl Admission {
    /// Whether the image is one that exists only so that the gate can be tried: containerd never hears of it.
    #[must_use]
    pub fn ends_at_the_verdict(&self) -> bool {
        is_reserved(&self.image)
    }
}

/// What the gate's trial of itself has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// What must be refused was, for the right reason, and what must be allowed was.
    Enforced,
    /// Nothing is verified (mode `disabled`), so that there is nothing to try.
    NothingToEnforce,
    /// The trial could not be made, and why.
    NotMade(String),
    /// What must be allowed was refused, or what must be refused was for another reason: which, and what was said.
    WronglyRefused(String),
    /// What must be refused was allowed: which, and what was answered.
    WronglyAllowed(String),
}

/// The newest trial, and the last good one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proofs {
    /// What the newest trial has shown, and when, in seconds since the Unix epoch. None: there was none yet.
    pub newest: Option<(i64, Shown)>,
    /// When enforcement was last proven, in seconds since the Unix epoch.
    pub proven_at: Option<i64>,
    /// How often a trial has shown what, since the daemon began.
    pub trials: Trials,
}

/// How often trials have shown what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trials {
    /// [`Shown::Enforced`].
    pub enforced: u64,
    /// [`Shown::NothingToEnforce`].
    pub nothing_to_enforce: u64,
    /// [`Shown::NotMade`].
    pub not_made: u64,
    /// [`Shown::WronglyRefused`].
    pub wrongly_refused: u64,
    /// [`Shown::WronglyAllowed`].
    pub wrongly_allowed: u64,
}

impl Trials {
    const fn count(&mut self, shown: &Shown) {
        let count = match shown {
            Shown::Enforced => &mut self.enforced,
            Shown::NothingToEnforce => &mut self.nothing_to_enforce,
            Shown::NotMade(_) => &mut self.not_made,
            Shown::WronglyRefused(_) => &mut self.wrongly_refused,
            Shown::WronglyAllowed(_) => &mut self.wrongly_allowed,
        };
        *count = count.saturating_add(1);
    }
}

/// Where the newest trial is kept.
#[derive(Debug, Default)]
pub(super) struct Record(Mutex<Proofs>);

impl Admit {
    /// Keeps what a trial at `now` has shown.
    pub fn keep_proof(&self, now: i64, shown: Shown) {
        let mut proofs = self.proofs.0.lock().unwrap_or_else(PoisonError::into_inner);
        proofs.trials.count(&shown);
        if shown == Shown::Enforced {
            proofs.proven_at = Some(now);
        }
        proofs.newest = Some((now, shown));
    }

    /// What trials have shown.
    #[must_use]
    pub fn proofs(&self) -> Proofs {
        self.proofs.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
