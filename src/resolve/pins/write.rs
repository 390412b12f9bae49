//! What a node writes: the first pin of a revision, what it means next, and its end.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use countersign_trust::evidence::Evidence;
use countersign_trust::name::EvidenceDigest;

use super::super::error::ResolveError;
use super::super::held::{Standing, standing};
use super::super::pieces::{self, Packed, Use};
use super::super::pin::{Meaning, Pin, PinFault};
use super::super::sharing::Sharing;
use super::{Pins, is_outage, key_of, tell_disagreement};
use crate::store::{Expected, Key, Put, Removed, Revision as Moment};

/// Nodes whose pins have to be from the future before a node takes its own clock to be behind.
const NODES_THAT_BEAR_OUT_A_CLOCK: usize = 2;
/// How often a write is tried again because somebody else has written meanwhile.
const TRIES: usize = 8;

/// What a pin rests on, as it is written.
pub(super) enum Ground {
    /// It was seen in the store not long ago.
    Seen { name: EvidenceDigest, bytes: u64 },
    /// It has to be there before the pin is.
    Packed(Packed),
}

impl Ground {
    pub(super) const fn name(&self) -> EvidenceDigest {
        match self {
            Self::Seen { name, .. } => *name,
            Self::Packed(packed) => packed.name(),
        }
    }

    pub(super) const fn size(&self) -> u64 {
        match self {
            Self::Seen { bytes, .. } => *bytes,
            Self::Packed(packed) => packed.size(),
        }
    }
}

impl Pins {
    /// Tells the others of pins that were made while the store was away. Where another node was first, its pin stands, and the
    /// disagreement is reported.
    pub(super) async fn share_what_is_unshared(&self) {
        let Some(sharing) = &self.sharing else { return };
        for own in self.standings().into_iter().filter(|own| own.is_unshared) {
            let told = self.share(sharing, &own).await;
            if let Err(error) = &told {
                tracing::warn!(key = %own.key, %error, "what was pinned while the store was away could not be shared yet");
            }
            if is_outage(&told) {
                return;
            }
        }
    }

    async fn share(&self, sharing: &Sharing, own: &Standing) -> Result<(), ResolveError> {
        let key = &own.key;
        // Its tag may have been seen unsigned since, or it may have ended: then it is no news for anybody.
        let stands = if self.counts(own) { Some(self.take_place_with_evidence(sharing, own).await?) } else { None };
        sharing.local.forget(key).await?;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        match stands {
            Some(stands) => {
                tell_disagreement(&own.pin, &stands.pin);
                held.put(Arc::new(stands));
            }
            None => held.remove(key),
        }
        Ok(())
    }

    async fn take_place_with_evidence(&self, sharing: &Sharing, own: &Standing) -> Result<Standing, ResolveError> {
        if let Some(evidence) = sharing.local.evidence(own.pin.meaning.evidence).await? {
            self.restore(&evidence).await?;
        }
        self.take_place(&own.key, &own.pin).await
    }

    /// Makes the first pin of an image for a revision, with the evidence that shows what it means, and gives back the pin that
    /// stands: whoever comes first says what it is.
    ///
    /// # Errors
    /// [`ResolveError::Quota`] and the like, [`ResolveError::NotMember`], or why the store does not take it.
    pub async fn begin(&self, pin: Pin, evidence: &Evidence) -> Result<Arc<Pin>, ResolveError> {
        let ground = self.ground(evidence)?;
        self.refuse_over_quota(&pin.revision.service.namespace, &ground)?;
        let key = key_of(&pin)?;
        let pin = Arc::new(self.sealed(resting_on(self.above_floor(&key, pin), &ground))?);
        self.refuse_bytes_over_quota(&key, &pin)?;
        self.lay(&ground).await?;
        let stands = self.take_place(&key, &pin).await?;
        let stands = self.keep_newer(stands);
        self.saw(ground.name());
        Ok(stands)
    }

    /// What a pin is to rest on: whoever waits for the first pin of a revision does not wait for what was seen in the store just now.
    fn ground(&self, evidence: &Evidence) -> Result<Ground, ResolveError> {
        let name = evidence.digest();
        match self.held.read().unwrap_or_else(PoisonError::into_inner).seen_lately(name) {
            Some(bytes) => Ok(Ground::Seen { name, bytes }),
            None => Packed::of(evidence).map(Ground::Packed),
        }
    }

    async fn lay(&self, ground: &Ground) -> Result<(), ResolveError> {
        match ground {
            Ground::Seen { .. } => Ok(()),
            Ground::Packed(packed) if self.rests_on(packed.name()) => pieces::write(&*self.store, Use::Pinned, packed).await,
            // No other pin is known to rest on it, so it is hardly there.
            Ground::Packed(packed) => pieces::put(&*self.store, Use::Pinned, packed).await,
        }
    }

    /// That this evidence is in the store.
    pub(super) fn saw(&self, name: EvidenceDigest) {
        self.held.write().unwrap_or_else(PoisonError::into_inner).saw(name);
    }

    /// Writes a pin where none stands, and gives back what stands then.
    async fn take_place(&self, key: &Key, pin: &Arc<Pin>) -> Result<Standing, ResolveError> {
        let (mut expected, mut void) = (Expected::Absent, None);
        for _ in 0..TRIES {
            match self.put(key, pin, expected).await? {
                Put::Done(moment) => {
                    self.forget_evidence_of_replaced(key, void, pin).await?;
                    return Ok(Standing::new(key.clone(), Arc::clone(pin), moment));
                }
                Put::Lost(Some(entry)) => {
                    let found = standing(key, &entry);
                    match found {
                        Some(winner) if self.counts(&winner) => return Ok(winner),
                        Some(void) if self.is_clock_behind(&void) => return Err(ResolveError::ClockBehind { key: key.to_string() }),
                        // What does not count is as good as absent.
                        found => (expected, void) = (Expected::Revision(entry.revision), found.map(|void| void.pin)),
                    }
                }
                Put::Lost(None) => (expected, void) = (Expected::Absent, None),
            }
        }
        Err(ResolveError::Contended { key: key.to_string() })
    }

    /// Whether it is this node's clock that is wrong where a pin is from the future: that of several others agree. One alone has to
    /// give way, or it would lock out all the others with its number.
    fn is_clock_behind(&self, void: &Standing) -> bool {
        let Some(sharing) = &self.sharing else { return false };
        let is_future = |own: &Standing| sharing.refuse_untimely(&own.key, &own.pin) == Err(PinFault::Future) && self.is_vouched(own);
        if !is_future(void) {
            return false;
        }
        let standings = self.standings();
        let ahead = standings.iter().map(|own| &**own).chain([void]).filter(|own| is_future(own));
        let nodes: HashSet<&str> = ahead.filter_map(|own| Some(own.pin.voucher.as_ref()?.node.as_str())).collect();
        nodes.len() >= NODES_THAT_BEAR_OUT_A_CLOCK
    }

    async fn forget_evidence_of_replaced(&self, key: &Key, replaced: Option<Arc<Pin>>, by: &Pin) -> Result<(), ResolveError> {
        let Some(replaced) = replaced else { return Ok(()) };
        for name in replaced.evidence().filter(|name| by.evidence().all(|used| used != *name)) {
            if !self.held.read().unwrap_or_else(PoisonError::into_inner).rests_elsewhere(name, key) {
                pieces::remove(&*self.store, Use::Pinned, name).await?;
            }
        }
        Ok(())
    }

    /// Makes the first pin of an image for a revision for this node alone, until the store is there again.
    ///
    /// # Errors
    /// As [`Pins::begin`], of this node's own file.
    pub async fn begin_unshared(&self, pin: Pin, evidence: &Evidence) -> Result<Arc<Pin>, ResolveError> {
        let packed = Packed::of(evidence)?;
        let ground = Ground::Seen { name: packed.name(), bytes: packed.size() };
        self.refuse_over_quota(&pin.revision.service.namespace, &ground)?;
        let key = key_of(&pin)?;
        let pin = self.sealed(resting_on(self.above_floor(&key, pin), &ground))?;
        self.refuse_bytes_over_quota(&key, &pin)?;
        if let Some(sharing) = &self.sharing {
            sharing.local.keep(&key, &pin, &packed, true).await?;
        }
        Ok(self.keep_newer(Standing::kept(key, Arc::new(pin), true)))
    }

    /// Says that a pin means something else from now on. None if it is not `before` that stands any more: whoever has changed it
    /// meanwhile was first.
    ///
    /// # Errors
    /// [`ResolveError::EvidenceQuota`] and the like, or why the store does not take it.
    pub async fn succeed(&self, before: &Pin, after: Pin, evidence: &Evidence) -> Result<Option<Arc<Pin>>, ResolveError> {
        let (ground, namespace) = (self.ground(evidence)?, &after.revision.service.namespace);
        self.refuse_evidence_over_quota(&self.of_namespace(namespace), namespace, &ground)?;
        self.refuse_bytes_over_quota(&key_of(&after)?, &after)?;
        self.lay(&ground).await?;
        let stands = self.rewrite(before, resting_on(after, &ground)).await?;
        self.saw(ground.name());
        Ok(stands)
    }

    /// As [`Pins::succeed`], of what rests on evidence that `before` rests on, too.
    ///
    /// # Errors
    /// Why the store does not take it.
    pub async fn rewrite(&self, before: &Pin, after: Pin) -> Result<Option<Arc<Pin>>, ResolveError> {
        let key = key_of(before)?;
        let Some(moment) = self.moment_of(&key, before) else { return Ok(None) };
        let pin = Arc::new(self.sealed(after)?);
        match self.put(&key, &pin, Expected::Revision(moment)).await? {
            Put::Done(moment) => Ok(Some(self.keep_newer(Standing::new(key, pin, moment)))),
            Put::Lost(Some(entry)) => {
                if let Some(winner) = standing(&key, &entry) {
                    self.counts(&winner);
                    self.keep_newer(winner);
                }
                Ok(None)
            }
            Put::Lost(None) => {
                self.held.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
                Ok(None)
            }
        }
    }

    /// Writes evidence that a pin rests on and that is not there: another node that did not know of the pin yet may have removed it.
    ///
    /// # Errors
    /// Why the store does not take it.
    pub async fn restore(&self, evidence: &Evidence) -> Result<(), ResolveError> {
        pieces::write(&*self.store, Use::Pinned, &Packed::of(evidence)?).await
    }

    /// A node whose clock is ahead may have written one that was used here and has ended: this one is later.
    fn above_floor(&self, key: &Key, pin: Pin) -> Pin {
        let floor = self.sharing.as_ref().map_or(0, |sharing| sharing.local.floor(key));
        Pin { generation: pin.generation.max(floor.saturating_add(1)), ..pin }
    }

    fn sealed(&self, pin: Pin) -> Result<Pin, ResolveError> {
        match &self.sharing {
            Some(sharing) => sharing.sealed(pin),
            None => Ok(pin),
        }
    }

    /// Removes a pin, if it is `pin` that stands: nothing uses it any more, or its tag is signed no longer. False if another
    /// stands.
    ///
    /// # Errors
    /// Why the store does not take it.
    pub async fn end(&self, pin: &Pin) -> Result<bool, ResolveError> {
        let key = key_of(pin)?;
        if let Some(sharing) = &self.sharing {
            sharing.local.forget(&key).await?;
        }
        let Some(moment) = self.moment_of(&key, pin) else { return Ok(false) };
        match self.store.remove(&key, moment).await? {
            Removed::Done => {
                let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
                if held.of(&key).is_some_and(|own| own.moment == moment) {
                    held.remove(&key);
                }
                Ok(true)
            }
            Removed::Lost(_) => Ok(false),
        }
    }

    /// Removes the evidence of `ended` that no pin rests on any more.
    ///
    /// # Errors
    /// Why the store does not take it.
    pub async fn forget_evidence_of(&self, ended: &Pin) -> Result<(), ResolveError> {
        for name in ended.evidence() {
            if self.rests_on(name) {
                continue;
            }
            pieces::remove(&*self.store, Use::Pinned, name).await?;
            if let Some(sharing) = &self.sharing {
                sharing.local.forget_evidence(name).await?;
            }
        }
        Ok(())
    }

    async fn put(&self, key: &Key, pin: &Pin, expected: Expected) -> Result<Put, ResolveError> {
        let bytes = pin.encode().ok_or(ResolveError::Internal { what: "a pin that cannot be written" })?;
        Ok(self.store.put(key, bytes.into(), expected, None).await?)
    }

    /// Which write of the store a pin is, if it is the one that is held.
    fn moment_of(&self, key: &Key, pin: &Pin) -> Option<Moment> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.of(key).filter(|standing| *standing.pin == *pin).map(|standing| standing.moment)
    }
}

/// The pin, which says how much it rests on.
fn resting_on(pin: Pin, ground: &Ground) -> Pin {
    Pin { meaning: Meaning { evidence_bytes: ground.size(), ..pin.meaning }, ..pin }
}
