//! What a tag means for a service: what the pin of its revision says, where that can be proven here and now; else what is signed
//! now. A pin admits nothing that the signatures do not admit: it only says which of the digests that they admit is meant.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use countersign_trust::evidence::{Evidence, Gun};
use countersign_trust::name::{EvidenceDigest, ImageReference, ManifestDigest, Selector};
use countersign_trust::{Question, Reason};

use super::refusal::Refusal;
use super::{Admission, Admit, Origin};
use crate::resolve::{Cause, Kind, Meaning, Pin, Pins, ResolveError, Revision};

/// For how long a digest that is superseded is used on. A revision that is older means what is signed now, from its next pull on.
pub const SUPERSEDED_SERVES_SECONDS: i64 = 180 * 24 * 60 * 60;
/// For how long a pin is kept that no pod of this node is of: a revision that comes back, by a rollback of its Deployment or on a
/// node that was drained, finds its pin.
const UNUSED_IS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The same where a revision is one pod or one Job, which never comes back. It is not at once: pods wait for their images.
const UNUSED_ONCE_IS_KEPT: Duration = Duration::from_secs(60 * 60);
/// Evidence of pins that is kept in memory. A node runs some hundred services, of which few are superseded.
const MOST_EVIDENCE: usize = 64;

/// An image that is sought, and for which revision of which service.
#[derive(Debug, Clone, Copy)]
pub struct Sought<'a> {
    /// The image, and the namespace.
    pub question: Question<'a>,
    /// The revision of the service that asks, if it is known.
    pub revision: Option<&'a Revision>,
}

impl<'a> From<Question<'a>> for Sought<'a> {
    fn from(question: Question<'a>) -> Self {
        Self { question, revision: None }
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

/// The pins, once there is a store that can be used, and who writes them.
#[derive(Debug, Default)]
pub(super) struct Pinning {
    taken: OnceLock<(Arc<Pins>, String)>,
    evidence: Mutex<HashMap<EvidenceDigest, Arc<Evidence>>>,
    /// Since when no pod is of a revision that has pins.
    unused: Mutex<HashMap<Revision, Instant>>,
}

impl Admit {
    /// Takes the pins of services. Before, and without them, each tag means what is signed now. `node` is the name that this node
    /// writes them under.
    pub fn take_pins(&self, pins: Arc<Pins>, node: String) {
        drop(self.pinning.taken.set((pins, node)));
    }

    /// The pins of services.
    #[must_use]
    pub fn pins(&self) -> Option<&Arc<Pins>> {
        self.pinning.taken.get().map(|(pins, _)| pins)
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
        let Some((pins, revision)) = self.pins().zip(sought.revision) else { return judged };
        let image = sought.question.image;
        let is_listed = judged.as_ref().is_ok_and(|admission| admission.origin == Origin::Rule);
        if is_listed || !matches!(image.selector(), Selector::Tag(_)) {
            return judged;
        }
        let pin = match (pins.of(revision, image), &judged) {
            (Some(pin), _) => pin,
            (None, Ok(admission)) if effect == Effect::Pins => match self.begin_pin(revision, admission).await {
                Ok(pin) => pin,
                Err(error) => {
                    tracing::warn!(%image, service = %revision.service, %error, "the image could not be pinned for its service; it is what is signed now");
                    return judged;
                }
            },
            (None, _) => return judged,
        };
        if judged.as_ref().is_ok_and(|admission| admission.digest == pin.meaning.digest) {
            return judged;
        }
        match self.ride(sought.question, &pin).await {
            Ok(admission) => Ok(admission),
            Err(refusal) => self.without_pin(&pin, judged, &refusal, effect).await,
        }
    }

    /// The pin of a revision that has none yet, written where nobody waits for it.
    pub(super) fn pin_later(self: &Arc<Self>, sought: Sought<'_>, judged: &Result<Admission, Refusal>) {
        let (Some(pins), Some(revision), Ok(admission)) = (self.pins(), sought.revision, judged) else { return };
        let is_pinned = pins.of(revision, sought.question.image).is_some();
        if is_pinned || admission.origin == Origin::Rule || !matches!(sought.question.image.selector(), Selector::Tag(_)) {
            return;
        }
        let (admit, revision, admission) = (Arc::clone(self), revision.clone(), admission.clone());
        self.work.spawn(async move {
            if let Err(error) = admit.begin_pin(&revision, &admission).await {
                tracing::warn!(image = %admission.image, service = %revision.service, %error, "the image could not be pinned for its service");
            }
        });
    }

    async fn begin_pin(&self, revision: &Revision, admission: &Admission) -> Result<Arc<Pin>, ResolveError> {
        let internal = |what| ResolveError::Internal { what };
        let (pins, _) = self.pinning.taken.get().ok_or_else(|| internal("there are no pins"))?;
        let (meaning, evidence) =
            self.meaning_of(admission, Cause::FirstUse).ok_or_else(|| internal("its evidence is not held any more"))?;
        let digest = meaning.digest;
        let pin = Pin::first(revision.clone(), admission.image.clone(), meaning).ok_or_else(|| internal("it names no tag"))?;
        let pin = pins.begin(pin, &evidence).await?;
        if pin.meaning.digest != digest {
            tracing::info!(image = %admission.image, service = %revision.service, digest = %pin.meaning.digest, by = pin.meaning.by, "another node had pinned the image for this service");
        }
        Ok(pin)
    }

    /// What an admission says that the tag means now, with the evidence that shows it.
    pub(super) fn meaning_of(&self, admission: &Admission, cause: Cause) -> Option<(Meaning, Evidence)> {
        let (_, node) = self.pinning.taken.get()?;
        let held = self.memory().ok()?.held(&Gun::for_repository(admission.image.repository()))?;
        let evidence = admission.evidence.filter(|name| held.evidence.digest() == *name)?;
        let meaning = Meaning { digest: admission.digest, evidence, at: self.now().ok()?, by: node.clone(), cause };
        Some((meaning, held.evidence.clone()))
    }

    /// Judges a tag by what it was pinned as.
    pub(super) async fn ride(&self, question: Question<'_>, pin: &Pin) -> Result<Admission, Refusal> {
        let (now, policy, meaning) = (self.now()?, self.policy(), &pin.meaning);
        let unproven = |why| Refusal::Trust(countersign_trust::Refusal::of_image(question.image, unproven(meaning.digest, why)));
        if meaning.at.plus_seconds(SUPERSEDED_SERVES_SECONDS) < now || meaning.at > now.plus_seconds(super::time::TOLERANCE_SECONDS) {
            return Err(unproven(Reason::NoTrustData { had_some: true }));
        }
        let evidence = self.pinned_evidence(meaning).await.ok_or_else(|| unproven(Reason::NoTrustData { had_some: true }))?;
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

    pub(super) async fn pinned_evidence(&self, meaning: &Meaning) -> Option<Arc<Evidence>> {
        let kept = || self.pinning.evidence.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(evidence) = kept().get(&meaning.evidence) {
            return Some(Arc::clone(evidence));
        }
        let read = self.pins()?.evidence(meaning).await;
        let evidence =
            read.inspect_err(|error| tracing::warn!(%error, evidence = %meaning.evidence, "evidence of a pin cannot be read")).ok()??;
        let evidence = Arc::new(evidence);
        let mut kept = kept();
        if kept.len() >= MOST_EVIDENCE {
            kept.clear();
        }
        kept.insert(meaning.evidence, Arc::clone(&evidence));
        Some(evidence)
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
        match &judged {
            Ok(admission) => {
                tracing::warn!(
                    image = %pin.image, service = %pin.revision.service, pinned = %pin.meaning.digest, digest = %admission.digest,
                    code = refusal.code(), reason = %refusal, "a pin does not count; the service gets what is signed now"
                );
                if effect == Effect::Pins {
                    self.replace_pin(pin, admission).await;
                }
            }
            Err(now) if says_unsigned(now) => self.end_pin(pin, now).await,
            Err(_) => {}
        }
        judged
    }

    async fn replace_pin(&self, pin: &Pin, admission: &Admission) {
        let Some(((pins, _), (meaning, evidence))) = self.pinning.taken.get().zip(self.meaning_of(admission, Cause::Replaced)) else {
            return;
        };
        if let Err(error) = pins.succeed(pin, meaning, &evidence).await {
            tracing::warn!(image = %pin.image, service = %pin.revision.service, %error, "the pin could not be replaced");
        }
    }

    /// What was seen unsigned once is never revived: the next time that the tag is signed, it means what it is signed as then.
    async fn end_pin(&self, pin: &Pin, why: &Refusal) {
        let Some(pins) = self.pins() else { return };
        tracing::info!(image = %pin.image, service = %pin.revision.service, pinned = %pin.meaning.digest, reason = %why, "a pin has ended: its tag is not signed any more");
        let ended = pins.end(pin).await;
        let outcome = match ended {
            Ok(true) => pins.forget_evidence_of(pin).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            tracing::warn!(image = %pin.image, service = %pin.revision.service, %error, "an ended pin could not be removed");
        }
    }

    /// Ends every pin of a repository whose tag is signed no more. Called when its trust data was brought up to date, since nobody
    /// may ask for the tag before it is signed again.
    pub(super) async fn end_unsigned_pins(&self, gun: &Gun) {
        let Some(pins) = self.pins() else { return };
        let of_repository = pins.all().into_iter().filter(|pin| Gun::for_repository(pin.image.repository()) == *gun);
        for pin in of_repository {
            let question = Question { image: &pin.image, namespace: Some(&pin.revision.service.namespace) };
            if let Err(refusal) = self.judge(question)
                && says_unsigned(&refusal)
            {
                self.end_pin(&pin, &refusal).await;
            }
        }
    }

    /// Ends pins of revisions that no pod has been of for long. `alive` is every revision that a pod of this node is of.
    pub async fn end_unused_pins(&self, alive: &HashSet<Revision>) {
        let Some(pins) = self.pins() else { return };
        let all = pins.all();
        for pin in self.pinning.long_unused(&all, alive, Instant::now()) {
            tracing::debug!(image = %pin.image, service = %pin.revision.service, revision = pin.revision.id, "a pin that nothing uses has ended");
            let ended = pins.end(&pin).await;
            if let Err(error) = ended {
                return tracing::warn!(%error, "pins that nothing uses could not be removed");
            }
            if let Err(error) = pins.forget_evidence_of(&pin).await {
                return tracing::warn!(%error, "evidence that nothing uses could not be removed");
            }
        }
    }

    /// A digest of an image that a revision has pinned as it, under a tag that is signed as another by now.
    pub(super) async fn pinned_as(&self, digest: ManifestDigest, image: &ImageReference, sought: Sought<'_>) -> Option<Admission> {
        let (pins, revision) = self.pins().zip(sought.revision)?;
        self.first_that_rides(pins.of_revision(revision), digest, image).await
    }

    /// Whether some service keeps this digest of an image, under a tag that is signed as another by now.
    pub(super) async fn is_kept_by_a_service(&self, digest: ManifestDigest, image: &ImageReference) -> bool {
        let pins = self.pins().map(|pins| pins.all()).unwrap_or_default();
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
    use countersign_trust::name::Sha256;
    use countersign_trust::time::UnixTime;

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
        };
        Arc::new(Pin::first(Revision { service, id: id.into() }, "r.test/app:1".parse().unwrap(), meaning).unwrap())
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
