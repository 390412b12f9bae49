//! The one use case: may this image be used on this node?
//!
//! A pull brings what is held of the repository up to date and judges it. A container is judged by what is held alone,
//! without a packet. Both go through the same pure evaluation, and so does `countersign verify`.

mod container;
mod credential;
mod keyed;
mod memory;
mod policy;
mod refresh;
mod refusal;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use countersign_trust::Approval;
use countersign_trust::evidence::Gun;
use countersign_trust::mode::Mode;
use countersign_trust::name::{EvidenceDigest, ImageId, ImageReference, Sha256};
use countersign_trust::{Facts, SignedBy};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

pub use container::{RecordsRead, Subject};
pub use credential::ANSWER_DEADLINE;
pub use keyed::{KeyGuard, KeyedLocks};
use memory::Memory;
pub use policy::Policy;
use refresh::Refresh;
pub use refresh::UPDATE_DEADLINE;
pub use refusal::{HeldData, Refusal, Standing, chain};

use crate::clock::Clock;
use crate::containerd::Containerd;
use crate::crash::Step;
use crate::fetch::{Credential, NotaryClient};
use crate::ledger::{Held, Ledger, LedgerError, VerifiedImage};

/// Where the trust data that a verdict rests on came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The trust server confirmed it just now.
    Server,
    /// The server could not be reached; what this node holds is still valid.
    Held,
}

/// An image that may be used.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The image that was asked about.
    pub image: ImageReference,
    /// What the signatures allow.
    pub approval: Approval,
    /// Where the trust data came from.
    pub origin: Origin,
    /// Names the evidence.
    pub evidence: EvidenceDigest,
}

impl Admission {
    /// Everybody who signed, as text, for logs.
    #[must_use]
    pub fn signers(&self) -> String {
        let signers: Vec<String> = self.approval.signed_by.iter().map(|SignedBy { role, key, .. }| format!("{role}:{key}")).collect();
        signers.join(" ")
    }
}

/// What one refresh is shared by: nobody gets an answer that another credential, namespace or policy earned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FlightKey {
    gun: Gun,
    namespace: String,
    credential: Option<Sha256>,
    policy: Sha256,
}

type Flight = Shared<BoxFuture<'static, Result<Origin, Refusal>>>;

/// Judges images. One for each process; shared by all who ask.
#[derive(Debug)]
pub struct Admit {
    policy: Policy,
    clock: Arc<dyn Clock>,
    notary: NotaryClient,
    containerd: Containerd,
    /// Set once there is one that can be used.
    ledger: OnceLock<(Ledger, Memory)>,
    /// Why there is none yet.
    ledger_fault: RwLock<Option<Arc<LedgerError>>>,
    /// Where refreshes run, so that cryptography and TLS never hold up the calls that are only passed on.
    work: tokio::runtime::Handle,
    refreshes: KeyedLocks<Gun>,
    flights: Flights,
    /// Held alone while an image's tag record is written, shared while a container is created from it: a create that takes
    /// long, or that containerd never answers, holds up no other.
    pub image_locks: KeyedLocks<ImageId>,
}

#[derive(Default)]
struct Flights(Mutex<HashMap<FlightKey, Flight>>);

impl std::fmt::Debug for Flights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flights")
    }
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
            policy,
            clock,
            notary: NotaryClient::new(),
            containerd,
            ledger: OnceLock::new(),
            ledger_fault: RwLock::default(),
            work,
            refreshes: KeyedLocks::default(),
            flights: Flights::default(),
            image_locks: KeyedLocks::default(),
        };
        admit.take_ledger(ledger);
        admit
    }

    /// Takes a ledger that could not be opened before, or the newest reason why it cannot be. The first that can be used stays.
    pub fn take_ledger(&self, ledger: Result<Ledger, LedgerError>) {
        let taken = ledger.and_then(|ledger| {
            let repositories = ledger.repositories()?.into_iter().map(|(_, held)| held);
            let memory = Memory::new(repositories, ledger.images()?);
            Ok((ledger, memory))
        });
        match taken {
            Ok(taken) => drop(self.ledger.set(taken)),
            Err(error) => *self.ledger_fault.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(error)),
        }
    }

    /// Whether failures deny.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.policy.mode
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
        memory.warm(&self.policy.pins, now)
    }

    /// Judges an image that is about to be pulled, with trust data that is brought up to date first. `credential` is the
    /// pull's own; without one, this node's is used, and for the trust server alone.
    ///
    /// Dropping the returned future abandons the wait, never the refresh.
    ///
    /// # Errors
    /// A [`Refusal`]; see [`Refusal::standing`].
    pub async fn pull(
        self: &Arc<Self>,
        image: &ImageReference,
        namespace: &str,
        credential: Option<Credential>,
    ) -> Result<Admission, Refusal> {
        self.policy.source_of(image)?;
        self.clock.now()?;
        let credential = self.credential_for(image.repository(), credential).await?;
        let key = FlightKey {
            gun: Gun::for_repository(image.repository()),
            namespace: namespace.to_owned(),
            credential: credential.as_ref().map(Credential::fingerprint),
            policy: self.policy.digest,
        };
        let origin = self.join(key, image, credential).await?;
        self.judge(image).map(|admission| Admission { origin, ..admission })
    }

    /// Joins the refresh that is under way for this key, or starts one.
    fn join(self: &Arc<Self>, key: FlightKey, image: &ImageReference, credential: Option<Credential>) -> Flight {
        let mut flights = self.flights.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || {
            let (admit, image, key) = (Arc::clone(self), image.clone(), key.clone());
            let task = self.work.spawn(async move {
                let outcome = admit.refresh(&image, credential.as_ref()).await;
                admit.flights.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                outcome
            });
            task.map(|joined| joined.unwrap_or(Err(Refusal::Internal { what: "the refresh panicked" }))).boxed().shared()
        };
        // A flight that has landed without removing itself has panicked; it is no answer for those who come later.
        match flights.get(&key).filter(|flight| flight.peek().is_none()) {
            Some(flight) => flight.clone(),
            None => {
                let flight = start();
                flights.insert(key.clone(), flight.clone());
                flight
            }
        }
    }

    async fn refresh(&self, image: &ImageReference, credential: Option<&Credential>) -> Result<Origin, Refusal> {
        let _turn = self.refreshes.lock(Gun::for_repository(image.repository())).await;
        let (server, anchor) = self.policy.source_of(image)?;
        Refresh { admit: self, image, anchor, now: self.clock.now()? }.run(server, credential).await
    }

    /// Judges an image by what is held, at this moment and under today's policy. No packet is sent.
    ///
    /// # Errors
    /// A [`Refusal`]; [`Refusal::NotHeld`] if the image's repository was never accepted here.
    pub fn judge(&self, image: &ImageReference) -> Result<Admission, Refusal> {
        self.policy.source_of(image)?;
        let (approval, evidence) = self.memory()?.judge(image, &self.policy.pins, self.clock.now()?)?;
        Ok(Admission { image: image.clone(), approval, origin: Origin::Held, evidence })
    }

    /// Records, on disk first, that an image was verified and what it is on this node. An image that is on record costs
    /// no write.
    ///
    /// # Errors
    /// [`Refusal::Ledger`].
    pub async fn record_image(&self, image: VerifiedImage) -> Result<(), Refusal> {
        let (ledger, memory) = self.ledger()?;
        let (ledger, record) = (ledger.clone(), image.clone());
        blocking(move || ledger.store_image(&record)).await??;
        memory.remember_image(&image);
        Ok(())
    }

    async fn hold(&self, held: Held, facts: Facts) -> Result<Arc<Held>, Refusal> {
        let (ledger, memory) = self.ledger()?;
        let held = Arc::new(held);
        let (ledger, record) = (ledger.clone(), Arc::clone(&held));
        Step::RefreshFetched.reached();
        blocking(move || ledger.store_repository(&record)).await??;
        Step::RefreshRecorded.reached();
        memory.hold(Arc::clone(&held), facts);
        Ok(held)
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

/// Runs what waits for the disk where it holds up nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Refusal::Internal { what: "the ledger's task panicked" })
}
