//! What a tag means for a service: what the pin of its revision says, where that can be proven here and now; else what is signed
//! now. A pin admits nothing that the signatures do not admit: it only says which of the digests that they admit is meant.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use countersign_trust::evidence::{Evidence, Gun};
use countersign_trust::name::{EvidenceDigest, ImageReference, ManifestDigest, Selector, Sha256};
use countersign_trust::time::UnixTime;
use countersign_trust::{Question, Reason};

use super::memory::Memory;
use super::refusal::{Refusal, chain};
use super::{Admission, Admit, Origin};
use crate::resolve::{Cause, Kind, Meaning, Pin, Pins, Reach, ResolveError, Revision};

/// For how long a digest that is superseded is used on. A revision that is older means what is signed now, from its next pull on.
pub const SUPERSEDED_SERVES_SECONDS: i64 = 180 * 24 * 60 * 60;
/// For how long a pin is kept that no pod of this node is of: a revision that comes back, by a rollback of its Deployment or on a
/// node that was drained, finds its pin.
const UNUSED_IS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The same where a revision is one pod or one Job, which never comes back. It is not at once: pods wait for their images.
const UNUSED_ONCE_IS_KEPT: Duration = Duration::from_secs(60 * 60);
/// Evidence of pins that is kept in memory. A node runs some hundred services, of which few are superseded.
const MOST_EVIDENCE: usize = 64;

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
    taken: OnceLock<Taken>,
    /// Why there are none though nodes share them, and revisions wait.
    fault: OnceLock<String>,
    evidence: Mutex<HashMap<EvidenceDigest, Arc<Evidence>>>,
    /// Since when no pod is of a revision that has pins.
    unused: Mutex<HashMap<Revision, Instant>>,
}

#[derive(Debug)]
struct Taken {
    pins: Arc<Pins>,
    node: String,
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
        &self,
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
    fn keep_soon(&self, pin: &Arc<Pin>) {
        let Some(pins) = self.pins().filter(|pins| !pins.is_kept(pin)).map(Arc::clone) else { return };
        let pin = Arc::clone(pin);
        self.work.spawn(async move {
            let kept = match pins.evidence(&pin.meaning).await {
                Ok(Some(evidence)) => pins.keep(&pin, &evidence).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = kept {
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
        // Why there is none is in the log; the next create tries again.
        self.work.spawn(async move { admit.begin_pin(&revision, &admission).await });
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
        Some((Meaning { digest: admission.digest, evidence, at, by: node.clone(), cause, voucher: None }, held.evidence.clone()))
    }

    /// Judges a tag by what it was pinned as.
    pub(super) async fn ride(&self, question: Question<'_>, pin: &Pin) -> Result<Admission, Refusal> {
        let (now, policy, meaning) = (self.now()?, self.policy(), &pin.meaning);
        let unproven = |why| Refusal::Trust(countersign_trust::Refusal::of_image(question.image, unproven(meaning.digest, why)));
        if meaning.at.plus_seconds(SUPERSEDED_SERVES_SECONDS) < now || meaning.at > now.plus_seconds(super::time::TOLERANCE_SECONDS) {
            return Err(unproven(Reason::NoTrustData { had_some: true }));
        }
        let read = self.pinned_evidence(meaning).await.map_err(|error| store_refusal(&pin.revision, question.image, chain(&error)))?;
        let evidence = read.ok_or_else(|| unproven(Reason::NoTrustData { had_some: true }))?;
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
        if let Some(evidence) = kept().get(&meaning.evidence) {
            return Ok(Some(Arc::clone(evidence)));
        }
        let Some(pins) = self.pins().map(Arc::clone) else { return Ok(None) };
        let meant = meaning.clone();
        let Some(evidence) = self.at_work(async move { pins.evidence(&meant).await }).await? else { return Ok(None) };
        let evidence = Arc::new(evidence);
        let mut kept = kept();
        if kept.len() >= MOST_EVIDENCE {
            kept.clear();
        }
        kept.insert(meaning.evidence, Arc::clone(&evidence));
        Ok(Some(evidence))
    }

    /// The evidence of a pin, if it was looked at not long ago.
    pub(super) fn evidence_looked_at(&self, name: &EvidenceDigest) -> Option<Arc<Evidence>> {
        self.pinning.evidence.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// A pin that does not verify is as good as absent, and is reported.
    async fn without_pin(
        &self,
        pin: &Pin,
        judged: Result<Admission, Refusal>,
        refusal: &Refusal,
        effect: Effect,
    ) -> Result<Admission, Refusal> {
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
    async fn at_work<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ResolveError>> + Send + 'static,
    ) -> Result<T, ResolveError> {
        let done = self.work.spawn(work).await;
        done.unwrap_or(Err(ResolveError::Internal { what: "the store's task panicked" }))
    }

    /// What was seen unsigned once is never revived: the next time that the tag is signed, it means what it is signed as then.
    async fn end_pin(&self, pin: &Pin, why: &Refusal) {
        let Some(pins) = self.pins() else { return };
        tracing::info!(image = %pin.image, service = %pin.revision.service, pinned = %pin.meaning.digest, reason = %why, "a pin has ended: its tag is not signed any more");
        let outcome = self.withdraw(pins, pin).await;
        if let Err(error) = outcome {
            tracing::warn!(image = %pin.image, service = %pin.revision.service, %error, "an ended pin could not be removed");
        }
    }

    async fn withdraw(&self, pins: &Pins, pin: &Pin) -> Result<(), ResolveError> {
        // First: whoever holds the store could bring the pin back.
        if let Ok(now) = self.now() {
            pins.withdraw(&pin.image, now).await?;
        }
        if pins.end(pin).await? { pins.forget_evidence_of(pin).await } else { Ok(()) }
    }

    /// Ends every pin whose tag is signed no more, of all repositories that are held. For a daemon that was killed before it had.
    pub async fn end_all_unsigned_pins(&self) {
        for gun in self.memory().map(Memory::guns).unwrap_or_default() {
            self.end_unsigned_pins(&gun).await;
        }
    }

    /// Ends every pin of a repository whose tag is signed no more, whoever asked: it may be signed again before anybody asks for
    /// the others. Called whenever other trust data of it is held.
    pub(super) async fn end_unsigned_pins(&self, gun: &Gun) {
        let Some(pins) = self.pins() else { return };
        let of_repository = pins.all().into_iter().filter(|pin| Gun::for_repository(pin.image.repository()) == *gun);
        for pin in of_repository {
            if let Some(refusal) = self.is_unsigned_since(&pin) {
                self.end_pin(&pin, &refusal).await;
            }
        }
    }

    /// That the tag of a pin is signed no more, and was found so after the pin was made. What this node holds may be from before
    /// the tag was signed at all, while another node has pinned it since: that says nothing.
    fn is_unsigned_since(&self, pin: &Pin) -> Option<Refusal> {
        let held = self.memory().ok()?.held(&Gun::for_repository(pin.image.repository()))?;
        let checked_at = UnixTime::from_seconds(i64::try_from(held.checked_at).ok()?);
        let question = Question { image: &pin.image, namespace: Some(&pin.revision.service.namespace) };
        let refusal = self.judge(question).err().filter(says_unsigned)?;
        (checked_at >= pin.meaning.at).then_some(refusal)
    }

    /// Keeps house among the pins, now and then: what is used lives on, and what nothing uses ends. `alive` is every revision that
    /// a pod of this node is of.
    pub async fn keep_pins(self: &Arc<Self>, alive: HashSet<Revision>) {
        let admit = Arc::clone(self);
        let kept = self.at_work(async move { admit.keep_pins_now(&alive).await }).await;
        if let Err(error) = kept {
            tracing::warn!(%error, "the pins of services could not be kept in order");
        }
    }

    async fn keep_pins_now(&self, alive: &HashSet<Revision>) -> Result<(), ResolveError> {
        match self.pinning.taken.get() {
            Some(taken) if taken.pins.is_shared() => self.keep_shared_pins(taken, alive).await,
            Some(taken) => self.end_unused_pins(taken, alive).await,
            None => Ok(()),
        }
    }

    /// Where nodes share them, pins that no node renews end by themselves.
    async fn keep_shared_pins(&self, taken: &Taken, alive: &HashSet<Revision>) -> Result<(), ResolveError> {
        for pin in taken.pins.unkept(|revision| alive.contains(revision)) {
            if let Some(evidence) = self.pinned_evidence(&pin.meaning).await? {
                taken.pins.keep(&pin, &evidence).await?;
            }
        }
        if let Ok(now) = self.now() {
            taken.pins.forget_old(now, now.plus_seconds(-SUPERSEDED_SERVES_SECONDS)).await?;
        }
        if taken.pins.reach() == Reach::Away {
            return Ok(());
        }
        taken.pins.renew(|revision| alive.contains(revision), share_of(&taken.node)).await?;
        taken.pins.remove_ended().await
    }

    /// Ends pins of revisions that no pod has been of for long.
    async fn end_unused_pins(&self, taken: &Taken, alive: &HashSet<Revision>) -> Result<(), ResolveError> {
        for pin in self.pinning.long_unused(&taken.pins.all(), alive, Instant::now()) {
            tracing::debug!(image = %pin.image, service = %pin.revision.service, revision = pin.revision.id, "a pin that nothing uses has ended");
            taken.pins.end(&pin).await?;
            taken.pins.forget_evidence_of(&pin).await?;
        }
        Ok(())
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

impl Pinning {
    /// The pins that have been unused for longer than they are kept.
    fn long_unused(&self, all: &[Arc<Pin>], alive: &HashSet<Revision>, now: Instant) -> Vec<Arc<Pin>> {
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        let has_pins: HashSet<&Revision> = all.iter().map(|pin| &pin.revision).collect();
        unused.retain(|revision, _| has_pins.contains(revision) && !alive.contains(revision));
        let is_over = |pin: &&Arc<Pin>| -> bool {
            if alive.contains(&pin.revision) {
                return false;
            }
            let since = *unused.entry(pin.revision.clone()).or_insert(now);
            now.duration_since(since) > kept_for(pin.revision.service.kind)
        };
        all.iter().filter(is_over).cloned().collect()
    }
}

/// A part of one that is another for each node.
fn share_of(node: &str) -> f64 {
    let hash = Sha256::of(node.as_bytes());
    let first = hash.as_bytes().first().copied().unwrap_or_default();
    f64::from(first) / f64::from(u8::MAX)
}

fn store_refusal(revision: &Revision, image: &ImageReference, what: String) -> Refusal {
    Refusal::Store { image: Box::new(image.clone()), service: revision.service.to_string(), what }
}

const fn kept_for(kind: Kind) -> Duration {
    match kind {
        Kind::Job | Kind::CronJob | Kind::Pod => UNUSED_ONCE_IS_KEPT,
        Kind::Named | Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::Static => UNUSED_IS_KEPT,
    }
}

fn unproven(pinned: ManifestDigest, why: Reason) -> Reason {
    Reason::PinUnproven { pinned, why: Some(Box::new(why)) }
}

/// Whether this says that the tag is not signed, whatever it was signed as before.
fn says_unsigned(refusal: &Refusal) -> bool {
    let Refusal::Trust(refusal) = refusal else { return false };
    matches!(refusal.reason(), Reason::TagNotSigned | Reason::TargetUnusable | Reason::ReleasesRequired)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::Service;

    fn pin(kind: Kind, id: &str) -> Arc<Pin> {
        let service = Service { namespace: "shop".into(), kind, name: "web".into() };
        let meaning = Meaning {
            digest: ManifestDigest::new(Sha256::of(b"old")),
            evidence: EvidenceDigest::of(b"old"),
            at: UnixTime::from_seconds(1_800_000_000),
            by: "node-1".into(),
            cause: Cause::FirstUse,
            voucher: None,
        };
        let now = meaning.at;
        Arc::new(Pin::first(Revision { service, id: id.into() }, "r.test/app:1".parse().unwrap(), meaning, now).unwrap())
    }

    #[test]
    fn a_pin_ends_when_nothing_has_used_it_for_long_and_sooner_if_its_pod_cannot_come_back() {
        let pinning = Pinning::default();
        let all = [pin(Kind::Deployment, "5d4f"), pin(Kind::Deployment, "7c9f"), pin(Kind::Pod, "u-1"), pin(Kind::CronJob, "j-1")];
        let alive: HashSet<Revision> = [all[1].revision.clone()].into();
        let begin = Instant::now();
        let ended = |alive: &HashSet<Revision>, after: Duration| {
            let ended = pinning.long_unused(&all, alive, begin + after);
            ended.iter().map(|pin| pin.revision.id.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ended(&alive, Duration::ZERO), "");
        assert_eq!(ended(&alive, UNUSED_ONCE_IS_KEPT), "");
        assert_eq!(ended(&alive, UNUSED_ONCE_IS_KEPT * 2), "u-1 j-1");
        assert_eq!(ended(&HashSet::from([all[2].revision.clone()]), UNUSED_ONCE_IS_KEPT * 3), "j-1", "a pod that is there again");
        assert_eq!(ended(&alive, UNUSED_ONCE_IS_KEPT * 4), "j-1", "and its time begins anew");
        assert_eq!(ended(&alive, UNUSED_IS_KEPT * 2), "5d4f u-1 j-1");
    }
}
