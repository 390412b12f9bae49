//! The operator's hand on pins: what a service's tags mean is looked up anew, or goes back to what it was. Nothing is pinned that
//! the signatures do not admit today.

use std::sync::Arc;

use countersign_trust::Question;
use countersign_trust::evidence::Evidence;
use countersign_trust::name::ImageReference;

use super::cluster::Asks;
use super::refusal::Refusal;
use super::{Admit, Origin};
use crate::resolve::{Cause, Meaning, Pin, PinFault, ResolveError, Service};

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

/// What became of a pin.
#[derive(Debug)]
pub enum Repinned {
    /// It means something else now.
    Changed(Arc<Pin>),
    /// It means what it meant.
    Unchanged,
    /// There is nothing to go back to.
    NoPast,
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

impl Admit {
    /// Looks up anew what the tags of a service mean, as Swarm's `service update` does, for pods that are made from now on. Each
    /// pin that is meant, with what became of it.
    pub async fn update_pins(self: &Arc<Self>, meant: &Meant, by: &str) -> Vec<(Arc<Pin>, Repinned)> {
        let mut outcomes = Vec::new();
        for pin in self.meant(meant) {
            let outcome = self.update_pin(&pin, by).await;
            outcomes.push((pin, outcome));
        }
        outcomes
    }

    /// Goes back to what the tags of a service meant before, where that can still be proven, as Swarm's `service rollback` does.
    pub async fn roll_pins_back(self: &Arc<Self>, meant: &Meant, by: &str) -> Vec<(Arc<Pin>, Repinned)> {
        let mut outcomes = Vec::new();
        for pin in self.meant(meant) {
            let outcome = self.roll_pin_back(&pin, by).await;
            outcomes.push((pin, outcome));
        }
        outcomes
    }

    fn meant(&self, meant: &Meant) -> Vec<Arc<Pin>> {
        let mut pins: Vec<_> = self.pins().map(|pins| pins.all()).unwrap_or_default().into_iter().filter(|pin| meant.is(pin)).collect();
        pins.sort_by(|a, b| (&a.revision, &a.image.to_string()).cmp(&(&b.revision, &b.image.to_string())));
        pins
    }

    async fn update_pin(self: &Arc<Self>, pin: &Pin, by: &str) -> Repinned {
        match self.refresh_by_node(&pin.image, Asks::Server).await {
            Ok((Origin::Server, _)) => {}
            Ok((Origin::Cluster | Origin::Held | Origin::Expired | Origin::Rule, _)) => return Repinned::Unconfirmed,
            Err(refusal) => return Repinned::Refused(refusal),
        }
        let question = Question { image: &pin.image, namespace: Some(&pin.revision.service.namespace) };
        let admission = match self.judge(question) {
            Ok(admission) => admission,
            Err(refusal) => return Repinned::Refused(refusal),
        };
        if admission.digest == pin.meaning.digest {
            return Repinned::Unchanged;
        }
        // Somebody else may have asked the server meanwhile, in vain.
        let Some((meaning, evidence)) = self.meaning_of(&admission, Cause::Update) else { return Repinned::Unconfirmed };
        self.repin(pin, Meaning { by: by.to_owned(), ..meaning }, &evidence).await
    }

    async fn roll_pin_back(&self, pin: &Pin, by: &str) -> Repinned {
        let Some(before) = pin.past.iter().find(|past| past.digest != pin.meaning.digest) else { return Repinned::NoPast };
        let meaning = Meaning { cause: Cause::Rollback, by: by.to_owned(), ..before.clone() };
        let back = Pin { meaning: meaning.clone(), ..pin.clone() };
        let question = Question { image: &pin.image, namespace: Some(&pin.revision.service.namespace) };
        if let Err(fault) = self.pins().map_or(Ok(()), |pins| pins.refuse_past(pin, before)) {
            return Repinned::Void(fault);
        }
        if let Err(refusal) = self.ride(question, &back).await {
            return Repinned::Refused(refusal);
        }
        match self.pinned_evidence(&meaning).await {
            Ok(Some(evidence)) => self.repin(pin, meaning, &evidence).await,
            Ok(None) => Repinned::NoPast,
            Err(error) => Repinned::Store(error),
        }
    }

    async fn repin(&self, pin: &Pin, meaning: Meaning, evidence: &Evidence) -> Repinned {
        let Some(pins) = self.pins() else { return Repinned::Raced };
        let now = match self.now() {
            Ok(now) => now,
            Err(refusal) => return Repinned::Refused(refusal),
        };
        match pins.succeed(pin, pin.succeeded_by(meaning, now), evidence).await {
            Ok(Some(pin)) => {
                tracing::info!(
                    image = %pin.image, service = %pin.revision.service, revision = pin.revision.id, digest = %pin.meaning.digest,
                    cause = ?pin.meaning.cause, by = pin.meaning.by, generation = pin.generation, "an operator has pinned an image anew"
                );
                Repinned::Changed(pin)
            }
            Ok(None) => Repinned::Raced,
            Err(error) => Repinned::Store(error),
        }
    }
}
