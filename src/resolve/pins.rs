//! Every pin, as this node holds it: a mirror of what stands in the store, so that what is known here is answered without asking.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use countersign_trust::evidence::Evidence;
use countersign_trust::name::{EvidenceDigest, ImageReference, ManifestDigest, Repository, shown};
use countersign_trust::time::UnixTime;

use super::error::ResolveError;
use super::held::{COMPLAINTS, Held, Standing, bytes_of, standing};
use super::local::Copy;
use super::pieces::{self, Packed, Use};
use super::pin::{Meaning, PINS, Pin, PinFault};
use super::service::Revision;
use super::sharing::{LIVES_ONCE_SECONDS, LIVES_SECONDS, Sharing};
use crate::store::limits::MAX_LISTED_BYTES;
use crate::store::{Change, Expected, Key, Mirror, Prefix, Put, Removed, Revision as Moment, Store, StoreError, follow, list_all};

/// Pins of one namespace: what a tenant can make by making pods. A namespace with so many revisions alive at once is none.
pub const MAX_PINS_OF_A_NAMESPACE: usize = 4096;
/// Bytes of the evidence that the pins of one namespace rest on, as it is packed: what its services share is counted once. That
/// is thousands of usual size; whoever signs ever more of the largest is stopped before he fills the store of all.
const MAX_EVIDENCE_BYTES_OF_A_NAMESPACE: u64 = 64 << 20;
/// Bytes of the evidence of all pins: half of what etcd takes by default (`--quota-backend-bytes`), beyond which it takes nothing
/// from anybody.
const MAX_EVIDENCE_BYTES: u64 = 1 << 30;
/// Pins of a cluster: fewer than the store lists, so that no tenant keeps a node from listing them.
const MAX_PINS: usize = 49_152;
/// Bytes of all pins, with their keys: fewer than the store lists ([`MAX_LISTED_BYTES`]), with room for what nodes write that do
/// not know of each other's yet. Most have one KiB; names and a past of other meanings make some of ten.
const MAX_BYTES: u64 = 48 << 20;
const _: () = assert!(MAX_BYTES < MAX_LISTED_BYTES as u64);
/// Bytes of the pins of one namespace: twice what as many as it may have take mostly.
const MAX_BYTES_OF_A_NAMESPACE: u64 = 8 << 20;
/// Nodes whose pins have to be from the future before a node takes its own clock to be behind.
const NODES_THAT_BEAR_OUT_A_CLOCK: usize = 2;
/// How often a write is tried again because somebody else has written meanwhile.
const TRIES: usize = 8;

/// What a pin rests on, as it is written.
enum Ground {
    /// It was seen in the store not long ago.
    Seen { name: EvidenceDigest, bytes: u64 },
    /// It has to be there before the pin is.
    Packed(Packed),
}

impl Ground {
    const fn name(&self) -> EvidenceDigest {
        match self {
            Self::Seen { name, .. } => *name,
            Self::Packed(packed) => packed.name(),
        }
    }

    const fn size(&self) -> u64 {
        match self {
            Self::Seen { bytes, .. } => *bytes,
            Self::Packed(packed) => packed.size(),
        }
    }
}

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

    /// Tells the others of pins that were made while the store was away. Where another node was first, its pin stands, and the
    /// disagreement is reported.
    async fn share_what_is_unshared(&self) {
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
    fn saw(&self, name: EvidenceDigest) {
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

    /// Keeps what this node uses: its copy of the pin, and the floor that no other may go below.
    ///
    /// # Errors
    /// Why this node's own file does not take it.
    pub async fn keep(&self, pin: &Pin, evidence: &Evidence) -> Result<(), ResolveError> {
        let Some(sharing) = &self.sharing else { return Ok(()) };
        sharing.local.keep(&key_of(pin)?, pin, &Packed::of(evidence)?, false).await
    }

    /// From now on no older pin of the same place counts here than one that was used.
    ///
    /// # Errors
    /// Why this node's own file does not take it.
    pub async fn raise_floor(&self, pin: &Pin) -> Result<(), ResolveError> {
        let Some(sharing) = &self.sharing else { return Ok(()) };
        sharing.local.raise_floor(&key_of(pin)?, pin.generation).await
    }

    /// Pins that are used here, and of which this node has no copy as they stand now.
    #[must_use]
    pub fn unkept(&self, is_used: impl Fn(&Revision) -> bool) -> Vec<Arc<Pin>> {
        if !self.is_shared() {
            return Vec::new();
        }
        self.all().into_iter().filter(|pin| is_used(&pin.revision) && !self.is_kept(pin)).collect()
    }

    /// Whether a pin needs no copy: there is one as it stands now, or the store is this node's own.
    #[must_use]
    pub fn is_kept(&self, pin: &Pin) -> bool {
        let Some(sharing) = &self.sharing else { return true };
        Pin::key(&pin.revision, &pin.image).is_some_and(|key| sharing.local.has(&key, pin))
    }

    /// Renews the pins of revisions that pods of this node are of, and those that are frozen, where they end soon. `share` is from 0 to 1, another for each
    /// node.
    ///
    /// # Errors
    /// Why the store does not take it.
    pub async fn renew(&self, is_used: impl Fn(&Revision) -> bool, share: f64) -> Result<(), ResolveError> {
        let Some(sharing) = &self.sharing else { return Ok(()) };
        // A frozen one waits for its revision to come back, also where nothing is of it now.
        let is_wanted = |pin: &Pin| pin.frozen.is_some() || is_used(&pin.revision);
        let mut outcome = Ok(());
        for pin in self.all().into_iter().filter(|pin| is_wanted(pin) && sharing.should_renew(pin, share)) {
            // What somebody has put in the place of one pin keeps no other from being renewed.
            let renewed = self.renew_one(&pin).await;
            if is_outage(&renewed) {
                return renewed;
            }
            outcome = outcome.and(renewed);
        }
        outcome
    }

    async fn renew_one(&self, pin: &Pin) -> Result<(), ResolveError> {
        let renewed = Pin { ends: None, voucher: None, ..pin.clone() };
        match self.evidence(&pin.meaning).await? {
            Some(evidence) => self.succeed(pin, renewed, &evidence).await.map(drop),
            // It means this or nothing, for as long as it is frozen.
            None if pin.frozen.is_some() => self.rewrite(pin, renewed).await.map(drop),
            None => Ok(()),
        }
    }

    /// Removes the pins that are over, and what nothing rests on any more. None of them counts anywhere.
    ///
    /// # Errors
    /// Why the store does not take it.
    pub async fn remove_ended(&self) -> Result<(), ResolveError> {
        let Some(sharing) = &self.sharing else { return Ok(()) };
        // A CronJob leaves a pin each minute: where the clock can hardly be ahead, it does not stay for a week.
        let is_close = self.is_clock_borne_out_within(LIVES_ONCE_SECONDS);
        let ahead = if is_close { LIVES_ONCE_SECONDS } else { LIVES_SECONDS };
        let over = self.standings().into_iter().filter(|own| sharing.is_over(&own.pin, ahead));
        let mut outcome = Ok(());
        for own in over.collect::<Vec<_>>() {
            let ended = self.end_with_evidence(&own.pin).await;
            if is_outage(&ended) {
                return ended;
            }
            outcome = outcome.and(ended);
        }
        for key in sharing.local.kept() {
            if self.standing(&key).is_none() {
                sharing.local.forget(&key).await?;
            }
        }
        outcome
    }

    async fn end_with_evidence(&self, pin: &Pin) -> Result<(), ResolveError> {
        if self.end(pin).await? { self.forget_evidence_of(pin).await } else { Ok(()) }
    }

    /// Whether none was left out for want of room.
    pub(super) fn are_all_held(&self) -> bool {
        self.held.read().unwrap_or_else(PoisonError::into_inner).has_room()
    }

    /// Whether this node's clock can be right, by the word of another: else nothing that others need is taken away by it. Where all
    /// pins are this node's own, there is nobody else.
    #[must_use]
    pub fn is_clock_borne_out(&self) -> bool {
        self.is_clock_borne_out_within(LIVES_SECONDS)
    }

    /// Whether this node's clock can be ahead by no more than so many seconds.
    fn is_clock_borne_out_within(&self, ahead: i64) -> bool {
        let Some(sharing) = &self.sharing else { return true };
        let of_others: Vec<_> = self.standings().into_iter().filter(|own| sharing.is_of_another(&own.pin)).collect();
        if of_others.is_empty() {
            return true;
        }
        // Of nodes that are members no more, or never were, nobody has to be heard; one that knows of no members hears nobody.
        let of_members: Vec<_> = of_others.into_iter().filter(|own| self.is_vouched(own)).collect();
        let is_alone = of_members.is_empty() && sharing.refuse_to_speak().is_ok();
        is_alone || of_members.iter().any(|own| sharing.bears_out_clock(&own.pin, ahead))
    }

    /// No pin of this tag counts on this node that was made until `now`: it was seen unsigned.
    ///
    /// # Errors
    /// Why this node's own file does not take it.
    pub async fn withdraw(&self, image: &ImageReference, now: UnixTime) -> Result<(), ResolveError> {
        let Some(sharing) = &self.sharing else { return Ok(()) };
        sharing.local.withdraw(image, now).await
    }

    /// The same of every tag of a repository.
    ///
    /// # Errors
    /// Why this node's own file does not take it.
    pub async fn withdraw_all(&self, repository: &Repository, now: UnixTime) -> Result<(), ResolveError> {
        let Some(sharing) = &self.sharing else { return Ok(()) };
        sharing.local.withdraw_all(repository, now).await
    }

    /// Forgets what was seen before, where no pin can be held against it any more.
    ///
    /// # Errors
    /// Why this node's own file does not take it.
    pub async fn forget_old(&self, now: UnixTime, oldest: UnixTime) -> Result<(), ResolveError> {
        let Some(sharing) = &self.sharing else { return Ok(()) };
        sharing.local.forget_old(now, oldest).await
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

    /// Whether any pin rests on this evidence, also one that does not count here: it may on another node.
    pub(super) fn rests_on(&self, name: EvidenceDigest) -> bool {
        self.held.read().unwrap_or_else(PoisonError::into_inner).rests_on(name)
    }

    fn refuse_over_quota(&self, namespace: &str, ground: &Ground) -> Result<(), ResolveError> {
        let of_namespace = self.of_namespace(namespace);
        if self.held.read().unwrap_or_else(PoisonError::into_inner).vouched_pins() >= MAX_PINS {
            return Err(ResolveError::Full { limit: MAX_PINS });
        }
        if of_namespace.len() >= MAX_PINS_OF_A_NAMESPACE {
            return Err(ResolveError::Quota { namespace: shown(namespace), limit: MAX_PINS_OF_A_NAMESPACE });
        }
        self.refuse_evidence_over_quota(&of_namespace, namespace, ground)
    }

    /// A pin that takes no more than before can always be renewed.
    fn refuse_bytes_over_quota(&self, key: &Key, pin: &Pin) -> Result<(), ResolveError> {
        let (held, namespace) = (self.held.read().unwrap_or_else(PoisonError::into_inner), &pin.revision.service.namespace);
        let more = bytes_of(key, pin).saturating_sub(held.of(key).map_or(0, |own| own.bytes));
        if more > 0 && held.bytes_of_namespace(namespace) + more > MAX_BYTES_OF_A_NAMESPACE {
            return Err(ResolveError::QuotaBytes { namespace: shown(namespace), limit: MAX_BYTES_OF_A_NAMESPACE });
        }
        let is_full = more > 0 && held.bytes() + more > MAX_BYTES;
        if is_full { Err(ResolveError::FullBytes { limit: MAX_BYTES }) } else { Ok(()) }
    }

    /// What many pins rest on is counted once.
    fn refuse_evidence_over_quota(&self, of_namespace: &[Arc<Pin>], namespace: &str, ground: &Ground) -> Result<(), ResolveError> {
        let mut sizes: HashMap<EvidenceDigest, u64> = of_namespace.iter().flat_map(|pin| pin.evidence_sizes()).collect();
        if sizes.insert(ground.name(), ground.size()).is_some() {
            return Ok(());
        }
        if sizes.values().sum::<u64>() > MAX_EVIDENCE_BYTES_OF_A_NAMESPACE {
            return Err(ResolveError::EvidenceQuota { namespace: shown(namespace), limit: MAX_EVIDENCE_BYTES_OF_A_NAMESPACE });
        }
        let all = self.held.read().unwrap_or_else(PoisonError::into_inner).evidence_bytes();
        let is_full = all.saturating_add(ground.size()) > MAX_EVIDENCE_BYTES;
        if is_full { Err(ResolveError::EvidenceFull { limit: MAX_EVIDENCE_BYTES }) } else { Ok(()) }
    }

    /// Every pin of a namespace that counts: nobody uses up what another may have.
    fn of_namespace(&self, namespace: &str) -> Vec<Arc<Pin>> {
        self.counting(|pin| pin.revision.service.namespace == namespace)
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

/// The pin, which says how much it rests on.
fn resting_on(pin: Pin, ground: &Ground) -> Pin {
    Pin { meaning: Meaning { evidence_bytes: ground.size(), ..pin.meaning }, ..pin }
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
