//! The operator's hand on pins: what a service's tags mean is looked up anew, chosen, or goes back to what it was; and stays so while
//! it is frozen. Nothing is pinned that the signatures do not admit today.

use std::sync::Arc;

use countersign_trust::Question;
use countersign_trust::evidence::Evidence;
use countersign_trust::name::{ImageReference, ManifestDigest};

use super::cluster::Asks;
use super::pinned::evidence_gone;
use super::refusal::{Refusal, Standing, chain};
use super::{Admission, Admit, Origin};
use crate::resolve::{Cause, Freeze, Meaning, Pin, PinFault, ResolveError, Service};

/// Which pins are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meant {
    /// Of which service.
    pub service: Service,
    /// Only of this revision.
    pub revision: Option<String>,
    /// Only of this image.
    pub image: Option<ImageReference>,
}

impl Meant {
    fn is(&self, pin: &Pin) -> bool {
        pin.revision.service == self.service
            && self.revision.as_ref().is_none_or(|id| pin.revision.id == *id)
            && self.image.as_ref().is_none_or(|image| pin.image == *image)
    }
}

/// What an operator wants of pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repin {
    /// They mean what is signed now, as after Swarm's `service update`.
    Update,
    /// They mean what they meant before, where that can still be proven, as after Swarm's `service rollback`.
    Rollback,
    /// They mean this: what is signed now, or what they meant before and can still be proven.
    Set(ManifestDigest),
    /// They mean what they mean or nothing, until they are released.
    Freeze,
    /// They are frozen no more.
    Release,
}

impl Repin {
    /// As it stands in the audit log.
    #[must_use]
    pub const fn as_method(self) -> &'static str {
        match self {
            Self::Update => "ServiceUpdate",
            Self::Rollback => "ServiceRollback",
            Self::Set(_) => "PinSet",
            Self::Freeze => "PinFreeze",
            Self::Release => "PinRelease",
        }
    }
}

/// What became of a pin.
#[derive(Debug)]
pub enum Repinned {
    /// It is as it was wanted.
    Changed(Arc<Pin>),
    /// It was so already.
    Unchanged,
    /// There is nothing to go back to.
    NoPast,
    /// The digest is neither what is signed now nor what the pin meant before.
    Unknown,
    /// It is frozen.
    Frozen,
    /// What it would mean is not admitted.
    Refused(Refusal),
    /// No node whose word counts has seen as current what it meant before.
    Void(PinFault),
    /// Its trust server could not be reached, so that it is not known what is signed now.
    Unconfirmed,
    /// Somebody else has changed it meanwhile; that stands.
    Raced,
    /// The store does not take it.
    Store(ResolveError),
}

impl Repinned {
    /// Why the pin is as it was. None where it is as it was wanted.
    #[must_use]
    pub fn why_not(&self) -> Option<String> {
        let text = match self {
            Self::Changed(_) | Self::Unchanged => return None,
            Self::NoPast => "there is nothing to go back to",
            Self::Unknown => "that digest is neither what the tag is signed as now nor what it meant before",
            Self::Frozen => "it is frozen; `countersign pin release` comes first",
            Self::Unconfirmed => "its trust server could not be reached",
            Self::Raced => "somebody else has changed it meanwhile, which stands",
            Self::Refused(refusal) => return Some(refusal.to_string()),
            Self::Void(fault) => return Some(fault.to_string()),
            Self::Store(error) => return Some(chain(error)),
        };
        Some(text.to_owned())
    }

    /// Whether another try may end otherwise, where it is not as it was wanted.
    #[must_use]
    pub fn cannot_tell_now(&self) -> bool {
        match self {
            Self::Unconfirmed | Self::Raced | Self::Store(_) => true,
            Self::Refused(refusal) => refusal.standing() != Standing::Denied,
            Self::Changed(_) | Self::Unchanged | Self::NoPast | Self::Unknown | Self::Frozen | Self::Void(_) => false,
        }
    }
}

impl Admit {
    /// The pins that are meant, by revision and image.
    #[must_use]
    pub fn meant(&self, meant: &Meant) -> Vec<Arc<Pin>> {
        let mut pins: Vec<_> = self.pins().map(|pins| pins.all()).unwrap_or_default().into_iter().filter(|pin| meant.is(pin)).collect();
        pins.sort_by(|a, b| (&a.revision, &a.image.to_string()).cmp(&(&b.revision, &b.image.to_string())));
        pins
    }

    /// Does to a pin what an operator wants, for pods that are made from now on; what runs, runs on.
    pub async fn repin(self: &Arc<Self>, pin: &Pin, repin: Repin, by: &str) -> Repinned {
        match repin {
            Repin::Update | Repin::Rollback | Repin::Set(_) if pin.frozen.is_some() => Repinned::Frozen,
            Repin::Update => self.update_pin(pin, by).await,
            Repin::Rollback => self.roll_pin_back(pin, by).await,
            Repin::Set(digest) => self.set_pin(pin, digest, by).await,
            Repin::Freeze => self.freeze_pin(pin, by).await,
            Repin::Release => self.release_pin(pin).await,
        }
    }

    async fn update_pin(self: &Arc<Self>, pin: &Pin, by: &str) -> Repinned {
        match self.signed_now(pin).await {
            Ok(admission) => self.pin_as_signed_now(pin, &admission, Cause::Update, by).await,
            Err(outcome) => outcome,
        }
    }

    /// What the tag of a pin is signed as, by the word of its trust server now.
    async fn signed_now(self: &Arc<Self>, pin: &Pin) -> Result<Admission, Repinned> {
        match self.refresh_by_node(&pin.image, Asks::Server).await {
            Ok((Origin::Server, _)) => {}
            Ok((Origin::Cluster | Origin::Held | Origin::Expired | Origin::Rule, _)) => return Err(Repinned::Unconfirmed),
            Err(refusal) => return Err(Repinned::Refused(refusal)),
        }
        let question = Question { image: &pin.image, namespace: Some(&pin.revision.service.namespace) };
        self.judge(question).map_err(Repinned::Refused)
    }

    async fn pin_as_signed_now(&self, pin: &Pin, admission: &Admission, cause: Cause, by: &str) -> Repinned {
        if admission.digest == pin.meaning.digest {
            return Repinned::Unchanged;
        }
        // Somebody else may have asked the server meanwhile, in vain.
        let Some((meaning, evidence)) = self.meaning_of(admission, cause) else { return Repinned::Unconfirmed };
        self.pin_anew(pin, Meaning { by: by.to_owned(), ..meaning }, &evidence).await
    }

    async fn roll_pin_back(&self, pin: &Pin, by: &str) -> Repinned {
        let Some(before) = pin.past.iter().find(|past| past.digest != pin.meaning.digest) else { return Repinned::NoPast };
        self.pin_as_before(pin, before, Cause::Rollback, by).await
    }

    /// Makes a pin mean what it meant before, where that can still be proven.
    async fn pin_as_before(&self, pin: &Pin, before: &Meaning, cause: Cause, by: &str) -> Repinned {
        let meaning = Meaning { cause, by: by.to_owned(), ..before.clone() };
        let back = Pin { meaning: meaning.clone(), ..pin.clone() };
        let question = Question { image: &pin.image, namespace: Some(&pin.revision.service.namespace) };
        if let Err(fault) = self.pins().map_or(Ok(()), |pins| pins.refuse_past(pin, before)) {
            return Repinned::Void(fault);
        }
        if let Err(refusal) = self.ride(question, &back).await {
            return Repinned::Refused(refusal);
        }
        match self.pinned_evidence(&meaning).await {
            Ok(Some(evidence)) => self.pin_anew(pin, meaning, &evidence).await,
            Ok(None) => Repinned::Refused(evidence_gone(&back)),
            Err(error) => Repinned::Store(error),
        }
    }

    async fn set_pin(self: &Arc<Self>, pin: &Pin, digest: ManifestDigest, by: &str) -> Repinned {
        if pin.meaning.digest == digest {
            return Repinned::Unchanged;
        }
        // What it meant before may be proven without its server; what it is signed as now is, also where that can be no more.
        let mut outcome = None;
        for before in pin.past.iter().filter(|past| past.digest == digest) {
            let set = self.pin_as_before(pin, before, Cause::Set, by).await;
            if !matches!(set, Repinned::Refused(_) | Repinned::Void(_)) {
                return set;
            }
            outcome = outcome.or(Some(set));
        }
        match self.signed_now(pin).await {
            Ok(admission) if admission.digest == digest => self.pin_as_signed_now(pin, &admission, Cause::Set, by).await,
            Ok(_) => outcome.unwrap_or(Repinned::Unknown),
            Err(unknown) => outcome.unwrap_or(unknown),
        }
    }

    /// What cannot be used now would only lock the service out. What is signed now is proven by today's evidence from then on.
    async fn freeze_pin(&self, pin: &Pin, by: &str) -> Repinned {
        if pin.frozen.is_some() {
            return Repinned::Unchanged;
        }
        let now = match self.now() {
            Ok(now) => now,
            Err(refusal) => return Repinned::Refused(refusal),
        };
        let frozen = pin.frozen_as(Some(Freeze { at: now, by: by.to_owned() }), now);
        let question = Question { image: &pin.image, namespace: Some(&pin.revision.service.namespace) };
        let signed_now = self.judge(question).ok().filter(|admission| admission.digest == pin.meaning.digest);
        if let Some((today, evidence)) = signed_now.and_then(|admission| self.meaning_of(&admission, pin.meaning.cause)) {
            let meaning = Meaning { by: pin.meaning.by.clone(), ..today };
            let outcome = self.succeed(pin, Pin { meaning, ..frozen }, &evidence).await;
            self.forget_evidence_of(pin, &outcome).await;
            return outcome;
        }
        match self.ride(question, pin).await {
            Ok(_) => self.rewrite(pin, frozen).await,
            Err(refusal) => Repinned::Refused(refusal),
        }
    }

    /// Also where what it rests on is gone: that is when it is needed most.
    async fn release_pin(&self, pin: &Pin) -> Repinned {
        if pin.frozen.is_none() {
            return Repinned::Unchanged;
        }
        match self.now() {
            Ok(now) => self.rewrite(pin, pin.frozen_as(None, now)).await,
            Err(refusal) => Repinned::Refused(refusal),
        }
    }

    async fn pin_anew(&self, pin: &Pin, meaning: Meaning, evidence: &Evidence) -> Repinned {
        match self.now() {
            Ok(now) => self.succeed(pin, pin.succeeded_by(meaning, now), evidence).await,
            Err(refusal) => Repinned::Refused(refusal),
        }
    }

    async fn succeed(&self, pin: &Pin, after: Pin, evidence: &Evidence) -> Repinned {
        let Some(pins) = self.pins() else { return Repinned::Raced };
        outcome(pins.succeed(pin, after, evidence).await)
    }

    /// Nothing may rest any more on what the pin rested on.
    async fn forget_evidence_of(&self, pin: &Pin, outcome: &Repinned) {
        let (Some(pins), Repinned::Changed(_)) = (self.pins(), outcome) else { return };
        if let Err(error) = pins.forget_evidence_of(pin).await {
            tracing::debug!(image = %pin.image, %error, "evidence that nothing rests on could not be removed");
        }
    }

    async fn rewrite(&self, pin: &Pin, after: Pin) -> Repinned {
        let Some(pins) = self.pins() else { return Repinned::Raced };
        outcome(pins.rewrite(pin, after).await)
    }
}

fn outcome(written: Result<Option<Arc<Pin>>, ResolveError>) -> Repinned {
    match written {
        Ok(Some(pin)) => Repinned::Changed(pin),
        Ok(None) => Repinned::Raced,
        Err(error) => Repinned::Store(error),
    }
}
