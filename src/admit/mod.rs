//! The one use case: may this image be used on this node?
//!
//! A pull brings what is held of the repository up to date and judges it. A container is judged by what is held alone,
//! without a packet. Both go through the same pure evaluation, and so does `countersign verify`.

mod again;
mod allowance;
mod background;
mod basis;
mod cluster;
mod container;
mod credential;
mod early;
mod ends;
mod evidence;
mod explain;
mod fence;
mod flight;
mod grandfather;
mod inspect;
mod keyed;
mod memory;
mod modes;
mod offered;
mod on_demand;
mod passage;
mod patience;
mod pinned;
mod platform;
mod policy;
mod prospects;
mod record;
mod refresh;
mod refusal;
mod rehearsal;
mod repinned;
mod reset;
mod running;
mod sandbox;
mod time;
mod unpinned;
mod upkeep;
mod volume;

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use countersign_trust::evidence::Gun;
use countersign_trust::mode::Mode;
use countersign_trust::name::{EvidenceDigest, ImageId, ImageReference, ManifestDigest, Sha256};
use countersign_trust::{Approval, Question, SignedBy};
use tokio::time::Instant;

pub use crate::containerd::Record as ImageRecord;
pub use crate::containerd::chain::ImageContent;
use allowance::Allowance;
use basis::RefusedFetches;
pub use basis::{Basis, Looked};
use cluster::{Asks, Cluster};
pub use container::{Asked, AskedVolume, Pod, RecordsRead, Subject, is_whole_id};
pub use credential::ANSWER_DEADLINE;
pub use early::Awaiting;
use early::EarlyLooks;
pub use ends::TrustEnd;
pub use evidence::{Imported, MAX_EVIDENCE_FILE_BYTES};
pub use explain::{Explained, TrustData};
pub use fence::MayPull;
use flight::Flights;
use grandfather::OnRecord;
pub use grandfather::{GoesOn, Ran};
pub use inspect::Inspected;
pub use keyed::{KeyGuard, KeyedLocks};
use memory::{Judged, Memory};
pub use offered::{OfferFault, Offering};
use on_demand::InVain;
use passage::Passages;
pub use passage::{Creating, Starting};
use patience::Patience;
pub use pinned::{Asker, Sought, WithoutStore};
use pinned::{Effect, Pinning};
use policy::Local;
pub use policy::Policy;
pub use prospects::Prospect;
use record::NoRoom;
pub use refresh::UPDATE_DEADLINE;
pub use refusal::{Frozen, HeldData, Refusal, Standing, chain};
pub use rehearsal::{OnStage, Proofs, RESERVED_HOST, Rehearsed, Shown, Trials};
use rehearsal::{Record, Stage, is_reserved};
pub use repinned::{Meant, Repin, Repinned};
pub use reset::Reset;
pub use sandbox::{SandboxImage, record_name};
use time::Latest;
pub use volume::Volume;

use crate::clock::Clock;
use crate::containerd::Containerd;
use crate::fetch::{Credential, NotaryClient};
pub use crate::ledger::{Act, Grandfathered, Workload};
use crate::ledger::{Held, Ledger, LedgerError};
pub use crate::resolve::Pin;
use countersign_trust::time::UnixTime;

/// Where the trust data that a verdict rests on came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The trust server confirmed it just now.
    Server,
    /// The trust server confirmed it to another node of the cluster, so lately that it was not asked again.
    Cluster,
    /// The server could not be reached, or was not asked; what this node holds is still valid.
    Held,
    /// The server could not be reached and what this node holds has expired, which is allowed.
    Expired,
    /// No trust data was needed: a rule names the digest.
    Rule,
}

/// An image that may be used.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The image that was asked about.
    pub image: ImageReference,
    /// What the policy allows.
    pub approval: Approval,
    /// The digest that is pulled: the approved one, or that of a platform's manifest in the approved index.
    pub digest: ManifestDigest,
    /// Where the trust data came from.
    pub origin: Origin,
    /// Names the evidence, if any was needed.
    pub evidence: Option<EvidenceDigest>,
    /// What becomes of the image if something else is wrong with it.
    pub mode: Mode,
    /// When the evidence was current, if the tag is signed as another digest by now and its service keeps this one.
    pub pinned_at: Option<UnixTime>,
}

impl Admission {
    /// Everybody who signed, as text, for logs.
    #[must_use]
    pub fn signers(&self) -> String {
        let signed_by = self.approval.release().map(|release| release.signed_by.as_slice()).unwrap_or_default();
        let signers: Vec<String> = signed_by.iter().map(signer).collect();
        signers.join(" ")
    }

    /// Signers whose certificate had ended at `now`. Unless that is enforced, they count all the same.
    fn ended_certificates(&self, now: UnixTime) -> impl Iterator<Item = &SignedBy> {
        let signed_by = self.approval.release().map(|release| release.signed_by.as_slice()).unwrap_or_default();
        signed_by.iter().filter(move |by| by.certificate_ends.is_some_and(|end| end < now))
    }
}

fn signer(by: &SignedBy) -> String {
    let SignedBy { role, key, .. } = by;
    by.signer.as_ref().map_or_else(|| format!("{role}:{key}"), |signer| format!("{role}:{key}({signer})"))
}

/// How far an image is before it is judged.
enum Prepared {
    /// A rule lists it.
    Listed(Box<Admission>),
    /// What is held of its repository is up to date, or serves.
    Refreshed(Origin),
}

/// Judges images. One for each process; shared by all who ask.
#[derive(Debug)]
pub struct Admit {
    /// Exchanged as a whole. Whoever asks twice may see two; each question is answered by one.
    policy: RwLock<Arc<Policy>>,
    policy_changes: tokio::sync::Notify,
    proof_is_due: tokio::sync::Notify,
    clock: Arc<dyn Clock>,
    /// When trust data was last found good.
    latest: Latest,
    notary: NotaryClient,
    patience: Patience,
    in_vain: InVain,
    allowance: Allowance,
    containerd: Containerd,
    /// Set once there is one that can be used.
    ledger: OnceLock<(Ledger, Memory)>,
    /// Why there is none yet.
    ledger_fault: RwLock<Option<Arc<LedgerError>>>,
    no_room: NoRoom,
    /// Where refreshes run, so that cryptography and TLS never hold up the calls that are only passed on.
    work: tokio::runtime::Handle,
    refreshes: KeyedLocks<Gun>,
    flights: Flights,
    passages: Passages,
    early_looks: EarlyLooks,
    stage: Stage,
    proofs: Record,
    /// Services that go on though their images are enforced.
    on_record: RwLock<OnRecord>,
    refused_fetches: RefusedFetches,
    pinning: Pinning,
    cluster: Cluster,
    /// Held alone while an image's tag record is written, shared while a container is created from it: a create that takes
    /// long, or that containerd never answers, holds up no other.
    pub image_locks: KeyedLocks<ImageId>,
}

impl Admit {
    /// Takes what the ledger holds into memory. While it cannot be used, why is the reason for every denial.
    #[must_use]
    pub fn new(
        policy: Policy,
        clock: Arc<dyn Clock>,
        containerd: Containerd,
        ledger: Result<Ledger, LedgerError>,
        work: tokio::runtime::Handle,
    ) -> Self {
        let admit = Self {
            policy: RwLock::new(Arc::new(policy)),
            policy_changes: tokio::sync::Notify::new(),
            proof_is_due: tokio::sync::Notify::new(),
            clock,
            latest: Latest::default(),
            notary: NotaryClient::new(),
            patience: Patience::default(),
            in_vain: InVain::default(),
            allowance: Allowance::default(),
            containerd,
            ledger: OnceLock::new(),
            ledger_fault: RwLock::default(),
            no_room: NoRoom::default(),
            work,
            refreshes: KeyedLocks::default(),
            flights: Flights::default(),
            passages: Passages::default(),
            early_looks: EarlyLooks::default(),
            stage: Stage::default(),
            proofs: Record::default(),
            on_record: RwLock::default(),
            refused_fetches: RefusedFetches::default(),
            pinning: Pinning::default(),
            cluster: Cluster::default(),
            image_locks: KeyedLocks::default(),
        };
        admit.take_ledger(ledger);
        admit
    }

    /// Takes a ledger that could not be opened before, or the newest reason why it cannot be. The first that can be used stays.
    pub fn take_ledger(&self, ledger: Result<Ledger, LedgerError>) {
        let taken = ledger.and_then(|ledger| {
            let repositories: Vec<Held> = ledger.repositories()?.into_iter().map(|(_, held)| held).collect();
            self.latest.begin_at(repositories.iter().map(|held| held.checked_at).max());
            let memory = Memory::new(repositories, ledger.images()?);
            *self.on_record.write().unwrap_or_else(PoisonError::into_inner) = OnRecord::read(&ledger)?;
            Ok((ledger, memory))
        });
        match taken {
            Ok(taken) => drop(self.ledger.set(taken)),
            Err(error) => *self.ledger_fault.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(error)),
        }
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another policy in force, for every question that is asked from now on. What was asked of servers in vain under the
    /// old one is asked again.
    pub fn adopt(&self, policy: Policy) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        self.in_vain.forget_all();
        self.policy_changes.notify_one();
        self.proof_is_due.notify_one();
    }

    /// Waits until another policy is put in force than the one that was there when this was last waited for. For one who waits.
    pub async fn policy_changes(&self) {
        self.policy_changes.notified().await;
    }

    /// Waits until what was proven of enforcement was proven under another policy than that in force. For one who waits.
    pub async fn proof_is_due(&self) {
        self.proof_is_due.notified().await;
    }

    /// What becomes of images that are refused, where no rule says otherwise.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.policy().trust.mode
    }

    /// Whether any image is verified.
    #[must_use]
    pub fn verifies(&self) -> bool {
        self.policy().trust.verifies()
    }

    /// What becomes of an image if it is refused. Of what has no image name no rule says anything; and without a clock it
    /// cannot be told which exceptions still hold.
    #[must_use]
    pub fn mode_of(&self, image: &str, namespace: Option<&str>) -> Mode {
        self.mode_of_name(image.parse().ok().as_ref(), namespace)
    }

    fn mode_of_name(&self, name: Option<&ImageReference>, namespace: Option<&str>) -> Mode {
        modes::mode_of(&self.policy().trust, name, namespace, self.now().ok())
    }

    /// What becomes of an image that is refused for this reason, if its rule says `mode`.
    #[must_use]
    pub fn mode_after(&self, mode: Mode, refusal: &Refusal) -> Mode {
        self.policy().mode_after(mode, refusal)
    }

    /// As [`Admit::mode_of`], of the images that a container was made of: the strictest.
    #[must_use]
    pub fn mode_of_asked(&self, asked: &Asked) -> Mode {
        modes::strictest_of(&self.policy().trust, asked, self.now().ok())
    }

    /// What becomes of something of which it is not known what it is: the strictest that any rule says.
    #[must_use]
    pub fn strictest_mode(&self) -> Mode {
        modes::strictest(&self.policy().trust)
    }

    /// Says whose certificate has ended, of those who signed an image that is admitted (`signer-cert-expiry = "warn"`).
    pub fn warn_of_ended_certificates(&self, admission: &Admission) {
        let Ok(now) = self.now() else { return };
        for SignedBy { role, key, certificate_ends, .. } in admission.ended_certificates(now) {
            let ended = certificate_ends.map(tracing::field::display);
            tracing::warn!(image = %admission.image, %role, %key, ended, "the certificate of a signer has ended; its key counts all the same");
        }
    }

    /// Refuses what must never be used, whatever a rule says: an image by its ID, or a digest that it goes by.
    ///
    /// # Errors
    /// [`Refusal::Trust`].
    fn refuse_denied<'h>(&self, image: &ImageReference, digests: impl IntoIterator<Item = &'h Sha256>) -> Result<(), Refusal> {
        let denied = digests.into_iter().try_for_each(|digest| self.policy().trust.refuse_denied(digest));
        denied.map_err(|reason| Refusal::Trust(countersign_trust::Refusal::of_image(image, reason)))
    }

    /// Whether anything at all must never be used.
    #[must_use]
    pub fn has_denied_digests(&self) -> bool {
        !self.policy().trust.denied_digests.is_empty()
    }

    /// containerd, as the judge of content sees it.
    #[must_use]
    pub const fn containerd(&self) -> &Containerd {
        &self.containerd
    }

    /// Why the ledger cannot be used, if it cannot.
    #[must_use]
    pub fn ledger_fault(&self) -> Option<Arc<LedgerError>> {
        if self.ledger.get().is_some() {
            return None;
        }
        self.ledger_fault.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Evaluates everything that is held once, so that what is found out about its bytes is remembered. Gives back the
    /// number of repositories.
    pub fn warm(&self) -> usize {
        let (Ok(memory), Ok(now)) = (self.memory(), self.clock.now()) else { return 0 };
        memory.warm(&self.policy().trust, now)
    }

    /// Judges an image that is about to be pulled, with trust data that is brought up to date first. `credential` is the
    /// pull's own; without one, this node's is used, and for the trust server alone.
    ///
    /// Dropping the returned future abandons the wait, never the refresh.
    ///
    /// # Errors
    /// A [`Refusal`]; see [`Refusal::standing`].
    pub async fn pull(self: &Arc<Self>, sought: Sought<'_>, credential: Option<Credential>) -> Result<Admission, Refusal> {
        let question = sought.question();
        if is_reserved(question.image) {
            return self.judge_staged(question);
        }
        let asks = if self.has_pin(sought) { Asks::Seldom } else { Asks::OneForAll };
        match self.prepare(question, credential.clone(), asks).await? {
            Prepared::Listed(admission) => Ok(*admission),
            // Signing again must help at once, whatever others heard before.
            Prepared::Refreshed(Origin::Cluster) if self.judge(question).is_err() => {
                self.prepare(question, credential, Asks::Server).await?;
                self.decide(sought, Origin::Server).await
            }
            Prepared::Refreshed(origin) => self.decide(sought, origin).await,
        }
    }

    /// What the tag means by what is held now.
    async fn decide(self: &Arc<Self>, sought: Sought<'_>, origin: Origin) -> Result<Admission, Refusal> {
        let question = sought.question();
        let admission = match self.for_service(sought, self.judge(question), Effect::Pins).await {
            Ok(admission) => admission,
            Err(refusal @ Refusal::Store { .. }) => return Err(refusal),
            Err(refusal) => self.platform_of_signed(question, refusal).await?,
        };
        Ok(Admission { origin, ..admission })
    }

    /// Everything before the judgement: what needs no trust data, and bringing that up to date.
    async fn prepare(self: &Arc<Self>, question: Question<'_>, credential: Option<Credential>, asks: Asks) -> Result<Prepared, Refusal> {
        let now = self.now()?;
        if let Local::Allowed(approval) = self.policy().consult(question, now)? {
            return Ok(Prepared::Listed(Box::new(self.listed(question, approval))));
        }
        let is_new = !self.memory()?.holds(&Gun::for_repository(question.image.repository()));
        let work = async {
            let credential = self.credential_for(question.image.repository(), credential).await?;
            self.join(question, credential, asks).await
        };
        match self.on_account(question, is_new, work).await {
            Ok(refreshed) => refreshed.map(Prepared::Refreshed).map_err(|refusal| refusal.about(question.image)),
            // What is held serves as it does when the server is away.
            Err(_) if self.judge(question).is_ok() => Ok(Prepared::Refreshed(Origin::Held)),
            Err(refusal) => Err(refusal),
        }
    }

    /// Asks a trust server on the account of the pod's namespace.
    ///
    /// # Errors
    /// Why nobody is asked for this namespace; `work` was not begun then.
    async fn on_account<T>(
        &self,
        question: Question<'_>,
        is_new: bool,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<Result<T, Refusal>, Refusal> {
        let namespace = question.namespace.unwrap_or_default();
        if let Some(refusal) = self.refuse_over_allowance(question, namespace, is_new) {
            return Err(refusal);
        }
        let began = Instant::now();
        let outcome = work.await;
        match &outcome {
            Ok(_) => self.allowance.answered(namespace, is_new),
            Err(refusal) if refusal.standing() == Standing::CannotTellNow => self.allowance.waited(namespace, began),
            Err(_) => {}
        }
        Ok(outcome)
    }

    /// A namespace that has cost enough for now.
    fn refuse_over_allowance(&self, question: Question<'_>, namespace: &str, is_new: bool) -> Option<Refusal> {
        let (image, told) = (Box::new(question.image.clone()), countersign_trust::name::shown(namespace));
        if !self.allowance.may_ask(namespace) {
            tracing::warn!(image = %image, namespace = told, "the namespace has waited too long for trust servers that did not answer");
            return Some(Refusal::NamespaceWaited { image, namespace: told, minutes: allowance::WAITING.as_secs() / 60 });
        }
        let is_full = is_new && !self.allowance.may_bring(namespace);
        is_full.then_some(Refusal::NamespaceFull { image, namespace: told, limit: allowance::REPOSITORIES })
    }

    /// An image that a rule lists by its digest.
    fn listed(&self, question: Question<'_>, approval: Approval) -> Admission {
        let mode = self.mode_of_name(Some(question.image), question.namespace);
        let digest = approval.digest;
        Admission { image: question.image.clone(), approval, digest, origin: Origin::Rule, evidence: None, mode, pinned_at: None }
    }

    /// Judges an image by what is held, at this moment and under today's policy. No packet is sent.
    ///
    /// # Errors
    /// A [`Refusal`]; [`Refusal::NotHeld`] if the image's repository was never accepted here.
    pub fn judge(&self, question: Question<'_>) -> Result<Admission, Refusal> {
        let now = self.now()?;
        match self.policy().consult(question, now)? {
            Local::Allowed(approval) => Ok(self.listed(question, approval)),
            Local::Asks => {
                let mode = self.policy().trust.mode_for(question, now);
                let judged = self.memory()?.judge(question, &self.policy(), now)?;
                Ok(admitted(question, judged, mode))
            }
        }
    }

    fn ledger(&self) -> Result<&(Ledger, Memory), Refusal> {
        if let Some(taken) = self.ledger.get() {
            return Ok(taken);
        }
        let fault = self.ledger_fault.read().unwrap_or_else(PoisonError::into_inner).clone();
        Err(fault.map_or(Refusal::Internal { what: "no ledger was taken" }, |error| Refusal::Ledger { error }))
    }

    fn memory(&self) -> Result<&Memory, Refusal> {
        self.ledger().map(|(_, memory)| memory)
    }
}

/// An image that what is held allows.
fn admitted(question: Question<'_>, judged: Judged, mode: Mode) -> Admission {
    let Judged { approval, evidence, origin } = judged;
    let digest = approval.digest;
    Admission { image: question.image.clone(), approval, digest, origin, evidence: Some(evidence), mode, pinned_at: None }
}

/// Runs what waits for the disk where it holds up nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Refusal::Internal { what: "the ledger's task panicked" })
}
