//! What a tag means for a service: what the pin of its revision says, where that can be proven here and now; else what is signed
//! now. A pin admits nothing that the signatures do not admit: it only says which of the digests that they admit is meant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use countersign_trust::evidence::{Evidence, Gun};
use countersign_trust::name::{EvidenceDigest, ImageReference, ManifestDigest, Selector, shown};
use countersign_trust::time::UnixTime;
use countersign_trust::{Question, Reason};

use super::refusal::{Frozen, Refusal, chain};
use super::{Admission, Admit, Origin};
use crate::resolve::{Cause, Kind, Meaning, Pin, Pins, Reach, ResolveError, Revision};

/// Bytes of the evidence of pins that is kept in memory, as it is encoded. A node runs some hundred services, of which few are
/// superseded, and most evidence has some ten KiB.
const MOST_EVIDENCE_BYTES: usize = 8 << 20;

/// For whom an image is sought, as far as that is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asker<'a> {
    /// The pod's namespace.
    pub namespace: Option<&'a str>,
    /// The revision of the service that the pod is of.
    pub revision: Option<&'a Revision>,
}

/// An image that is sought, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Sought<'a> {
    /// The image.
    pub image: &'a ImageReference,
    /// Who asks.
    pub asker: Asker<'a>,
}

impl<'a> Sought<'a> {
    /// The question, without the service.
    #[must_use]
    pub const fn question(self) -> Question<'a> {
        Question { image: self.image, namespace: self.asker.namespace }
    }

    /// The revision that may have a pin of this, if `judged` is what is signed now: a digest, and what a rule lists, means one
    /// thing already.
    fn pinnable_for(self, judged: &Result<Admission, Refusal>) -> Option<&'a Revision> {
        let is_listed = judged.as_ref().is_ok_and(|admission| admission.origin == Origin::Rule);
        let is_tag = matches!(self.image.selector(), Selector::Tag(_));
        self.asker.revision.filter(|_| is_tag && !is_listed)
    }
}

impl<'a> From<Question<'a>> for Sought<'a> {
    fn from(Question { image, namespace }: Question<'a>) -> Self {
        Self { image, asker: Asker { namespace, revision: None } }
    }
}

/// Whether pins may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// A pull waits for a network anyway.
    Pins,
    /// Nothing durable belongs on the way of a create.
    Looks,
}

/// What becomes of a revision that has no pin while the store that nodes share cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutStore {
    /// It has to wait: another node may have pinned something else.
    Deny,
    /// This node answers by itself, and compares later.
    Local,
}

/// The pins, once there is a store that can be used, and who writes them.
#[derive(Debug, Default)]
pub(super) struct Pinning {
    pub(super) taken: OnceLock<Taken>,
    /// Why there are none though nodes share them, and revisions wait.
    fault: OnceLock<String>,
    evidence: Mutex<Looked>,
    /// Since when no pod is of a revision that has pins.
    pub(super) unused: Mutex<HashMap<Revision, Instant>>,
}

/// Evidence of pins that was looked at, up to [`MOST_EVIDENCE_BYTES`].
#[derive(Debug, Default)]
struct Looked {
    evidence: HashMap<EvidenceDigest, Arc<Evidence>>,
    bytes: usize,
}

impl Looked {
    /// Keeps it if there is room, and makes room by keeping nothing else.
    fn keep(&mut self, name: EvidenceDigest, evidence: Arc<Evidence>) {
        let bytes = evidence.encode().len();
        if bytes > MOST_EVIDENCE_BYTES {
            return;
        }
        if self.bytes + bytes > MOST_EVIDENCE_BYTES {
            *self = Self::default();
        }
        if self.evidence.insert(name, evidence).is_none() {
            self.bytes += bytes;
        }
    }
}

#[derive(Debug)]
pub(super) struct Taken {
    pub(super) pins: Arc<Pins>,
    pub(super) node: String,
    without_store: WithoutStore,
}

impl Admit {
    /// Takes the pins of services. Before, and without them, each tag means what is signed now. `node` is the name that this node
    /// writes them under.
    pub fn take_pins(&self, pins: Arc<Pins>, node: String, without_store: WithoutStore) {
        drop(self.pinning.taken.set(Taken { pins, node, without_store }));
    }

    /// There are no pins though nodes share them: each revision waits until that is mended, and the daemon is started again.
    pub fn wait_without_pins(&self, why: String) {
        drop(self.pinning.fault.set(why));
    }

    /// The pins of services.
    #[must_use]
    pub fn pins(&self) -> Option<&Arc<Pins>> {
        self.pinning.taken.get().map(|taken| &taken.pins)
    }

    /// Whether it is decided what the tag means for the service that seeks it.
    pub(super) fn has_pin(&self, sought: Sought<'_>) -> bool {
        let of = |pins: &Arc<Pins>| sought.asker.revision.and_then(|revision| pins.of(revision, sought.image));
        self.pins().and_then(of).is_some()
    }

    /// What the tag means for the service that seeks it, if `judged` is what is signed now.
    ///
    /// # Errors
    /// What is wrong with what is signed now, if no pin says something else.
    pub(super) async fn for_service(
        self: &Arc<Self>,
        sought: Sought<'_>,
        judged: Result<Admission, Refusal>,
        effect: Effect,
    ) -> Result<Admission, Refusal> {
        let Some(revision) = sought.pinnable_for(&judged) else { return judged };
        if let Some(why) = self.pinning.fault.get().filter(|_| judged.is_ok() && revision.service.kind != Kind::Static) {
            return Err(store_refusal(revision, sought.image, why.clone()));
        }
        let Some(pins) = self.pins() else { return judged };
        let begun = match (pins.of(revision, sought.image), &judged) {
            (Some(pin), _) => Some(pin),
            (None, Ok(admission)) => self.begin_or_wait(revision, admission, effect).await?,
            (None, Err(_)) => None,
        };
        let Some(pin) = begun else { return judged };
        if effect == Effect::Pins {
            self.keep_soon(&pin);
        }
        if judged.as_ref().is_ok_and(|admission| admission.digest == pin.meaning.digest) {
            return judged;
        }
        match self.ride(sought.question(), &pin).await {
            Ok(admission) => Ok(admission),
            // Whether it counts is not known now, and what is signed now is something else.
            Err(refusal @ Refusal::Store { .. }) if self.waits_for_store(revision) => Err(refusal),
            Err(refusal) => self.without_pin(&pin, judged, &refusal, effect).await,
        }
    }

    /// Keeps a copy of a pin that is used here, for when the store is away, where nobody waits for it.
    fn keep_soon(self: &Arc<Self>, pin: &Arc<Pin>) {
        let Some(pins) = self.pins().filter(|pins| !pins.is_kept(pin)).map(Arc::clone) else { return };
        let (admit, pin) = (Arc::clone(self), Arc::clone(pin));
        self.work.spawn(async move {
            if let Err(error) = admit.keep_pin(&pins, &pin).await {
                tracing::warn!(image = %pin.image, service = %pin.revision.service, %error, "this node's own copy of a pin could not be made");
            }
        });
    }

    /// The pin of a revision that has none yet, written where nobody waits for it.
    pub(super) fn pin_later(self: &Arc<Self>, sought: Sought<'_>, judged: &Result<Admission, Refusal>) {
        let (Some((pins, revision)), Ok(admission)) = (self.pins().zip(sought.pinnable_for(judged)), judged) else { return };
        if pins.of(revision, sought.image).is_some() {
            return;
        }
        let (admit, revision, admission) = (Arc::clone(self), revision.clone(), admission.clone());
        self.work.spawn(async move {
            if let Err(refusal) = admit.begin_pin(&revision, &admission).await {
                tracing::warn!(image = %admission.image, service = %revision.service, code = refusal.code(), reason = %refusal, "the image of a container could not be pinned; the next create tries again");
            }
        });
    }

    async fn begin_or_wait(&self, revision: &Revision, admission: &Admission, effect: Effect) -> Result<Option<Arc<Pin>>, Refusal> {
        if effect == Effect::Pins {
            return self.begin_pin(revision, admission).await;
        }
        // Others may have pinned what this node cannot see.
        let is_blind = self.pins().is_some_and(|pins| pins.is_shared() && pins.reach() == Reach::Away);
        if is_blind && self.waits_for_store(revision) {
            return Err(store_refusal(
                revision,
                &admission.image,
                "it was not reached when it was tried last; see countersign's log".to_owned(),
            ));
        }
        Ok(None)
    }

    /// Whether a revision without a pin has to wait while the store cannot be asked. A static pod is this node's own, and may be
    /// what the store needs to come back.
    fn waits_for_store(&self, revision: &Revision) -> bool {
        let denies = self.pinning.taken.get().is_some_and(|taken| taken.pins.is_shared() && taken.without_store == WithoutStore::Deny);
        denies && revision.service.kind != Kind::Static
    }

    /// The pin that stands after this node has tried to be the first. None where there is none, and what is signed now goes on.
    ///
    /// # Errors
    /// [`Refusal::Store`] where a revision without a pin has to wait.
    async fn begin_pin(&self, revision: &Revision, admission: &Admission) -> Result<Option<Arc<Pin>>, Refusal> {
        let Some(taken) = self.pinning.taken.get() else { return Ok(None) };
        let Some((meaning, evidence)) = self.meaning_of(admission, Cause::FirstUse) else { return Ok(None) };
        let digest = meaning.digest;
        let (image, service) = (&admission.image, &revision.service);
        let Some(first) = Pin::first(revision.clone(), image.clone(), meaning, self.now()?) else { return Ok(None) };
        let (pins, pin, shown) = (Arc::clone(&taken.pins), first.clone(), evidence.clone());
        let begun = match self.at_work(async move { pins.begin(pin, &shown).await }).await {
            Ok(pin) => Some(pin),
            Err(error) => self.without_store(taken, first, &evidence, error).await?,
        };
        let Some(pin) = begun else { return Ok(None) };
        if pin.meaning.digest != digest {
            tracing::info!(%image, %service, digest = %pin.meaning.digest, by = pin.meaning.by, "another node had pinned the image for this service");
        }
        // The tag may have been unsigned since it was judged, and all pins that stood then have ended.
        let Some(refusal) = self.is_unsigned_since(&pin) else { return Ok(Some(pin)) };
        self.end_pin(&pin, &refusal).await;
        Ok(None)
    }

    /// What is done about a pin that could not be made.
    async fn without_store(
        &self,
        taken: &Taken,
        first: Pin,
        evidence: &Evidence,
        error: ResolveError,
    ) -> Result<Option<Arc<Pin>>, Refusal> {
        let (image, service) = (first.image.clone(), first.revision.service.clone());
        if error.is_of_store() && self.waits_for_store(&first.revision) {
            return Err(store_refusal(&first.revision, &first.image, chain(&error)));
        }
        tracing::warn!(%image, %service, %error, "the image could not be pinned for its service; it is what is signed now");
        if !taken.pins.is_shared() || !error.is_of_store() {
            return Ok(None);
        }
        let (pins, evidence) = (Arc::clone(&taken.pins), evidence.clone());
        let begun = self.at_work(async move { pins.begin_unshared(first, &evidence).await }).await;
        Ok(begun.inspect_err(|error| tracing::warn!(%image, %service, %error, "nor for this node alone")).ok())
    }

    /// What an admission says that the tag means now, with the evidence that shows it and the moment at which its server last
    /// confirmed that. None if the server did not answer when it was asked last: what is held then serves, and is no proof of what
    /// is current. Else whoever keeps a node from its server while a revision begins would keep the revision at an old digest.
    pub(super) fn meaning_of(&self, admission: &Admission, cause: Cause) -> Option<(Meaning, Evidence)> {
        let node = &self.pinning.taken.get()?.node;
        let held = self.memory().ok()?.confirmed(&Gun::for_repository(admission.image.repository()))?;
        let evidence = admission.evidence.filter(|name| held.evidence.digest() == *name)?;
        let at = UnixTime::from_seconds(i64::try_from(held.checked_at).ok()?);
        // Its size is said when it is written.
        let meaning = Meaning { digest: admission.digest, evidence, evidence_bytes: 0, at, by: node.clone(), cause, voucher: None };
        Some((meaning, held.evidence.clone()))
    }

    /// Judges a tag by what it was pinned as.
    pub(super) async fn ride(&self, question: Question<'_>, pin: &Pin) -> Result<Admission, Refusal> {
        let (now, policy, meaning) = (self.now()?, self.policy(), &pin.meaning);
        let gone = || evidence_gone(&Pin { image: question.image.clone(), ..pin.clone() });
        if policy.superseded_serves_until(meaning.at) < now || meaning.at > now.plus_seconds(super::time::TOLERANCE_SECONDS) {
            return Err(gone());
        }
        let read = self.pinned_evidence(meaning).await.map_err(|error| store_refusal(&pin.revision, question.image, chain(&error)))?;
        let evidence = read.ok_or_else(gone)?;
        let pinned = countersign_trust::Pinned { digest: meaning.digest, evidence: &evidence, at: meaning.at };
        let judged = self.memory()?.judge_pinned(question, pinned, &policy, now)?;
        let mode = policy.trust.mode_for(question, now);
        let digest = judged.approval.digest;
        Ok(Admission {
            image: question.image.clone(),
            approval: judged.approval,
            digest,
            origin: judged.origin,
            evidence: Some(meaning.evidence),
            mode,
            pinned_at: Some(meaning.at),
        })
    }

    /// The evidence of a pin. None if it is nowhere as it was.
    ///
    /// # Errors
    /// Why the store cannot be asked.
    pub(super) async fn pinned_evidence(&self, meaning: &Meaning) -> Result<Option<Arc<Evidence>>, ResolveError> {
        let kept = || self.pinning.evidence.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(evidence) = kept().evidence.get(&meaning.evidence) {
            return Ok(Some(Arc::clone(evidence)));
        }
        let Some(pins) = self.pins().map(Arc::clone) else { return Ok(None) };
        let meant = meaning.clone();
        let Some(evidence) = self.at_work(async move { pins.evidence(&meant).await }).await? else { return Ok(None) };
        let evidence = Arc::new(evidence);
        kept().keep(meaning.evidence, Arc::clone(&evidence));
        Ok(Some(evidence))
    }

    /// The evidence of a pin, if it was looked at not long ago.
    pub(super) fn evidence_looked_at(&self, name: &EvidenceDigest) -> Option<Arc<Evidence>> {
        self.pinning.evidence.lock().unwrap_or_else(PoisonError::into_inner).evidence.get(name).cloned()
    }

    /// A pin that does not verify is as good as absent, and is reported. One that is frozen means what it says or nothing.
    async fn without_pin(
        &self,
        pin: &Pin,
        judged: Result<Admission, Refusal>,
        refusal: &Refusal,
        effect: Effect,
    ) -> Result<Admission, Refusal> {
        if let (Ok(admission), Some(freeze)) = (&judged, &pin.frozen) {
            return Err(Refusal::Frozen(Box::new(Frozen {
                image: admission.image.clone(),
                service: pin.revision.service.to_string(),
                pinned: pin.meaning.digest,
                by: shown(&freeze.by),
                at: freeze.at,
                why: refusal.to_string(),
            })));
        }
        if let Ok(admission) = &judged {
            tracing::warn!(
                image = %pin.image, service = %pin.revision.service, pinned = %pin.meaning.digest, digest = %admission.digest,
                code = refusal.code(), reason = %refusal, "a pin does not count; the service gets what is signed now"
            );
            if effect == Effect::Pins {
                self.replace_pin(pin, admission).await;
            }
        }
        judged
    }

    async fn replace_pin(&self, pin: &Pin, admission: &Admission) {
        let (Some(pins), Some((meaning, evidence)), Ok(now)) = (self.pins(), self.meaning_of(admission, Cause::Replaced), self.now())
        else {
            return;
        };
        let (pins, before) = (Arc::clone(pins), pin.clone());
        let replaced = self.at_work(async move { pins.succeed(&before, before.succeeded_by(meaning, now), &evidence).await }).await;
        if let Err(error) = replaced {
            tracing::warn!(image = %pin.image, service = %pin.revision.service, %error, "the pin could not be replaced");
        }
    }

    /// Signs, packs and asks the store where that holds up no call that is only passed on.
    pub(super) async fn at_work<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ResolveError>> + Send + 'static,
    ) -> Result<T, ResolveError> {
        let done = self.work.spawn(work).await;
        done.unwrap_or(Err(ResolveError::Internal { what: "the store's task panicked" }))
    }

    /// A digest of an image that a revision has pinned as it, under a tag that is signed as another by now.
    pub(super) async fn pinned_as(&self, digest: ManifestDigest, sought: Sought<'_>) -> Option<Admission> {
        let (pins, revision) = self.pins().zip(sought.asker.revision)?;
        self.first_that_rides(pins.of_revision(revision), digest, sought.image).await
    }

    /// A digest that a revision had pinned before an operator pinned it anew: what runs, runs on.
    pub(super) async fn pinned_before(&self, digest: ManifestDigest, sought: Sought<'_>) -> Option<Admission> {
        let (pins, revision) = self.pins().zip(sought.asker.revision)?;
        let pin = pins.of(revision, sought.image)?;
        self.first_that_rides(pins.before(&pin, digest), digest, sought.image).await
    }

    /// Whether some service keeps this digest of an image, or kept it, under a tag that is signed as another by now.
    pub(super) async fn is_kept_by_a_service(&self, digest: ManifestDigest, image: &ImageReference) -> bool {
        let pins = self.pins().map(|pins| pins.ever_of_digest(digest)).unwrap_or_default();
        self.first_that_rides(pins, digest, image).await.is_some()
    }

    async fn first_that_rides(&self, pins: Vec<Arc<Pin>>, digest: ManifestDigest, image: &ImageReference) -> Option<Admission> {
        let is_meant = |pin: &&Arc<Pin>| pin.meaning.digest == digest && pin.image.repository() == image.repository();
        for pin in pins.iter().filter(is_meant) {
            let question = Question { image: &pin.image, namespace: Some(&pin.revision.service.namespace) };
            if let Ok(admission) = self.ride(question, pin).await {
                return Some(admission);
            }
        }
        None
    }
}

fn store_refusal(revision: &Revision, image: &ImageReference, what: String) -> Refusal {
    Refusal::Store { image: Box::new(image.clone()), service: revision.service.to_string(), what }
}

/// What a pin rests on is nowhere any more, or too old.
pub(super) fn evidence_gone(pin: &Pin) -> Refusal {
    let why = Some(Box::new(Reason::NoTrustData { had_some: true }));
    Refusal::Trust(countersign_trust::Refusal::of_image(&pin.image, Reason::PinUnproven { pinned: pin.meaning.digest, why }))
}

#[cfg(test)]
mod tests {
    use countersign_trust::evidence::{Answer, FileName};

    use super::*;

    #[test]
    fn evidence_that_was_looked_at_takes_no_more_memory_than_it_may() {
        let of = |bytes: usize, number: u8| {
            let mut evidence = Evidence::new(Gun::for_repository(&"r.test/app".parse().unwrap()), "https://r.test".into());
            evidence.add(FileName::Timestamp, Answer::Found(vec![number; bytes].into()));
            (evidence.digest(), Arc::new(evidence))
        };
        let mut looked = Looked::default();
        for number in 0..20 {
            let (name, evidence) = of(1 << 20, number);
            looked.keep(name, Arc::clone(&evidence));
            looked.keep(name, evidence);
            assert!(looked.evidence.contains_key(&name));
            assert!(looked.bytes <= MOST_EVIDENCE_BYTES && looked.bytes >= looked.evidence.len() << 20, "{number}: {}", looked.bytes);
        }
        assert!(looked.evidence.len() > 1);
        let (name, giant) = of(MOST_EVIDENCE_BYTES, 21);
        looked.keep(name, giant);
        assert!(!looked.evidence.contains_key(&name), "it is read again when it is needed");
    }
}
