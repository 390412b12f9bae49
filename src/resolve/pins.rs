//! Every pin, as this node holds it: a mirror of what stands in the store, so that what is known here is answered without asking.

mod quota;
mod upkeep;
mod write;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use countersign_trust::evidence::Evidence;
use countersign_trust::name::{EvidenceDigest, ImageReference, ManifestDigest, Repository, shown};

use super::error::ResolveError;
use super::held::{COMPLAINTS, Held, Standing, standing};
use super::local::Copy;
use super::pieces::{self, Use};
use super::pin::{Meaning, PINS, Pin, PinFault};
use super::service::Revision;
use super::sharing::Sharing;
use crate::store::{Change, Key, Mirror, Prefix, Revision as Moment, Store, StoreError, follow, list_all};

pub use quota::MAX_PINS_OF_A_NAMESPACE;

/// What of a write can be known at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// What is held here is what stands in the store, but for what is on its way.
    Followed,
    /// The store cannot be followed: others may have written since.
    Away,
}

/// The pins of the whole cluster, or of a node that shares with nobody.
#[derive(Debug)]
pub struct Pins {
    store: Arc<dyn Store>,
    /// None where the store is a file of this node's own, which nobody else can write.
    sharing: Option<Arc<Sharing>>,
    held: RwLock<Held>,
    is_followed: AtomicBool,
}

impl Mirror for Pins {
    fn prefix(&self) -> Prefix {
        all()
    }

    async fn load(&self) -> Result<Moment, StoreError> {
        self.load().await
    }

    async fn apply(&self, change: Change) {
        let is_back = change == Change::Resumed;
        self.put_and_others(change);
        if is_back {
            self.share_what_is_unshared().await;
        }
    }
}

impl Pins {
    /// The pins of a node that shares with nobody, in a file of its own. None are held before [`Pins::load`].
    #[must_use]
    pub fn own(store: Arc<dyn Store>) -> Self {
        Self { store, sharing: None, held: RwLock::default(), is_followed: AtomicBool::new(false) }
    }

    /// The pins of a cluster.
    #[must_use]
    pub fn shared(store: Arc<dyn Store>, sharing: Arc<Sharing>) -> Self {
        Self { sharing: Some(sharing), ..Self::own(store) }
    }

    /// Whether others can write where the pins are.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.sharing.is_some()
    }

    /// Whether what is held here is what stands in the store.
    #[must_use]
    pub fn reach(&self) -> Reach {
        if self.is_followed.load(Ordering::Acquire) { Reach::Followed } else { Reach::Away }
    }

    /// Takes the pins that this node kept for itself into memory, so that it knows them before the store answers.
    ///
    /// # Errors
    /// Why its own file cannot be read.
    pub async fn load_kept(&self) -> Result<(), StoreError> {
        let Some(sharing) = &self.sharing else { return Ok(()) };
        for Copy { key, pin, is_unshared } in sharing.local.load().await? {
            self.keep_newer(Standing::kept(key, pin, is_unshared));
        }
        Ok(())
    }

    /// Takes every pin of the store into memory, and gives back the moment from which changes are to be followed.
    ///
    /// # Errors
    /// Why the store cannot be asked.
    pub async fn load(&self) -> Result<Moment, StoreError> {
        let newest = self.standings().iter().map(|own| own.moment).max();
        let listing = list_all(&*self.store, &all()).await?;
        if !listing.unusable.is_empty() {
            let first = listing.unusable.first().map(|unusable| shown(&unusable.key));
            tracing::warn!(count = listing.unusable.len(), first, "what stands in the store and is no pin is left alone");
        }
        let read = listing.entries.iter().filter_map(|(key, entry)| standing(key, entry));
        let listed: HashMap<Key, Arc<Standing>> = read.map(|standing| (standing.key.clone(), Arc::new(standing))).collect();
        // Here nobody waits for signatures.
        for standing in listed.values() {
            self.counts(standing);
        }
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        // An older state of the store, from a backup: nothing that was known of it is newer.
        let went_back = newest.is_some_and(|newest| newest > listing.revision);
        // What was written here since the listing began is newer than it; and what others could not see yet is told to them.
        held.retain(|own| own.is_unshared || (!went_back && (own.moment > listing.revision || listed.contains_key(&own.key))));
        for (key, standing) in listed {
            // What was pinned here while the store was away gives way where that is reported.
            if !held.of(&key).is_some_and(|own| own.is_unshared) {
                held.keep_newer(standing);
            }
        }
        Ok(listing.revision)
    }

    /// Follows what others write, until the process ends. What is held stays while the store cannot be asked.
    pub async fn follow(self: Arc<Self>) {
        follow(&*self, &*self.store, "the pins of other nodes cannot be followed; what is held goes on").await;
    }

    fn put_and_others(&self, change: Change) {
        let put = if let Change::Put { key, entry } = &change { standing(key, entry).map(Arc::new) } else { None };
        if let Some(put) = &put {
            // Before the lock is taken.
            self.counts(put);
        }
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Put { key, entry } => match put {
                Some(standing) => {
                    if let Some(own) = held.of(&key).filter(|own| own.is_unshared) {
                        tell_disagreement(&own.pin, &standing.pin);
                    }
                    held.keep_newer(standing);
                }
                // It took the place of a pin: there is none any more.
                None => held.remove_older(&key, entry.revision),
            },
            Change::Removed { key, revision } => held.remove_older(&key, revision),
            Change::Unusable(unusable) => {
                let (key, why) = (shown(&unusable.key), unusable.why);
                COMPLAINTS.say(|| tracing::warn!(key, %why, "something was written to the store that is no pin"));
            }
            Change::Interrupted => self.is_followed.store(false, Ordering::Release),
            Change::Resumed => self.is_followed.store(true, Ordering::Release),
        }
    }

    /// Everything that is held, to be looked at without the lock.
    fn standings(&self) -> Vec<Arc<Standing>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn standing(&self, key: &Key) -> Option<Arc<Standing>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).of(key).cloned()
    }

    fn keep_newer(&self, standing: Standing) -> Arc<Pin> {
        let pin = Arc::clone(&standing.pin);
        self.held.write().unwrap_or_else(PoisonError::into_inner).keep_newer(Arc::new(standing));
        pin
    }

    /// What the tag of `image` means for a revision, as far as it is held here and counts.
    #[must_use]
    pub fn of(&self, revision: &Revision, image: &ImageReference) -> Option<Arc<Pin>> {
        let standing = self.standing(&Pin::key(revision, image)?)?;
        self.counts(&standing).then(|| Arc::clone(&standing.pin))
    }

    /// Every pin of a revision that is held here and counts.
    #[must_use]
    pub fn of_revision(&self, revision: &Revision) -> Vec<Arc<Pin>> {
        self.counting(|pin| pin.revision == *revision)
    }

    /// Every pin that is held here and counts and means this digest, or meant it before; as it stands or stood while it did.
    #[must_use]
    pub fn ever_of_digest(&self, digest: ManifestDigest) -> Vec<Arc<Pin>> {
        let named = |pin: &Pin| std::iter::once(&pin.meaning).chain(&pin.past).any(|meaning| meaning.digest == digest);
        let as_it_was = |pin: Arc<Pin>| if pin.meaning.digest == digest { vec![pin] } else { self.before(&pin, digest) };
        self.counting(named).into_iter().flat_map(as_it_was).collect()
    }

    /// Every pin that is held here and counts.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Pin>> {
        self.counting(|_| true)
    }

    /// Every pin of an image of this repository that is held here and counts.
    #[must_use]
    pub fn of_repository(&self, repository: &Repository) -> Vec<Arc<Pin>> {
        self.counting(|pin| pin.image.repository() == repository)
    }

    /// Signatures are looked at without the lock, which whoever follows the store waits for.
    fn counting(&self, is_meant: impl Fn(&Pin) -> bool) -> Vec<Arc<Pin>> {
        let meant: Vec<Arc<Standing>> = {
            let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
            held.iter().filter(|standing| is_meant(&standing.pin)).cloned().collect()
        };
        meant.into_iter().filter(|standing| self.counts(standing)).map(|standing| Arc::clone(&standing.pin)).collect()
    }

    /// Every pin that is held here and does not count, with the reason.
    #[must_use]
    pub fn void(&self) -> Vec<(Arc<Pin>, PinFault)> {
        let Some(sharing) = &self.sharing else { return Vec::new() };
        let void = self.standings().into_iter().filter(|standing| !self.counts(standing));
        void.filter_map(|standing| Some((Arc::clone(&standing.pin), sharing.refuse(&standing.key, &standing.pin).err()?))).collect()
    }

    /// Whether a pin counts here and now.
    fn counts(&self, standing: &Standing) -> bool {
        let Some(sharing) = &self.sharing else { return true };
        self.is_vouched(standing) && sharing.refuse_untimely(&standing.key, &standing.pin).is_ok()
    }

    /// Whether members have signed a pin. That is looked at once, and again when the members have changed.
    fn is_vouched(&self, standing: &Standing) -> bool {
        let Some(sharing) = &self.sharing else { return true };
        let check = || match sharing.refuse_unvouched(&standing.pin) {
            Ok(()) => true,
            Err(fault) => {
                COMPLAINTS.say(|| tracing::warn!(key = %standing.key, %fault, "a pin of the store does not count"));
                false
            }
        };
        standing.vouched.or_check(sharing.members.serial(), check)
    }

    /// The pin as it stood while it meant this digest, as far as a node that counts has seen it as current.
    #[must_use]
    pub fn before(&self, pin: &Pin, digest: ManifestDigest) -> Vec<Arc<Pin>> {
        let counts = |past: &&Meaning| past.digest == digest && self.refuse_past(pin, past).is_ok();
        pin.past.iter().filter(counts).map(|past| Arc::new(Pin { meaning: past.clone(), ..pin.clone() })).collect()
    }

    /// Refuses what the pin meant before, where no node that counts has seen it as current.
    ///
    /// # Errors
    /// [`PinFault`].
    pub fn refuse_past(&self, pin: &Pin, past: &Meaning) -> Result<(), PinFault> {
        self.sharing.as_ref().map_or(Ok(()), |sharing| sharing.refuse_unclaimed(pin, past))
    }

    /// The evidence that a pin rests on, or has rested on. None if the store does not have it as it was.
    ///
    /// # Errors
    /// Why the store cannot be asked.
    pub async fn evidence(&self, meaning: &Meaning) -> Result<Option<Evidence>, ResolveError> {
        if let Some(sharing) = &self.sharing
            && let Some(evidence) = sharing.local.evidence(meaning.evidence).await?
        {
            return Ok(Some(evidence));
        }
        let read = pieces::read(&*self.store, Use::Pinned, meaning.evidence).await?;
        if read.is_some() {
            self.saw(meaning.evidence);
        }
        Ok(read)
    }

    /// Whether any pin rests on this evidence, also one that does not count here: it may on another node.
    pub(super) fn rests_on(&self, name: EvidenceDigest) -> bool {
        self.held.read().unwrap_or_else(PoisonError::into_inner).rests_on(name)
    }
}

fn all() -> Prefix {
    // One segment is never too many.
    Prefix::new([PINS]).unwrap_or_else(|_| Prefix::all())
}

fn key_of(pin: &Pin) -> Result<Key, ResolveError> {
    Pin::key(&pin.revision, &pin.image).ok_or(ResolveError::Internal { what: "a key of a pin that is none" })
}

/// Whether trying the same with another pin would be in vain.
fn is_outage(outcome: &Result<(), ResolveError>) -> bool {
    matches!(outcome, Err(ResolveError::Store(error)) if error.is_outage())
}

fn tell_disagreement(own: &Pin, stands: &Pin) {
    if own.meaning.digest == stands.meaning.digest {
        return;
    }
    tracing::warn!(
        image = %own.image, service = %own.revision.service, revision = own.revision.id, here = %own.meaning.digest,
        elsewhere = %stands.meaning.digest, by = shown(&stands.meaning.by),
        "while the store was away this node pinned another digest than the cluster; pods that are made from now on get the cluster's"
    );
}

#[cfg(test)]
mod shared_tests;
#[cfg(test)]
mod tests;
