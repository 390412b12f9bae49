//! The pins that are held here, by where they stand, and what evidence they rest on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use countersign_trust::name::{EvidenceDigest, shown};

use super::pin::Pin;
use crate::store::limits::MAX_LISTED_ENTRIES;
use crate::store::{Complaints, Entry, Key, Revision as Moment};

/// What of the store is held here: what can be listed. A store that shows more keeps this node from nothing else.
const MOST_HELD: usize = MAX_LISTED_ENTRIES;

/// For how long evidence is taken to be in the store that was there, while a pin rests on it. Whoever takes it away all the same makes
/// pins void, and it is put back by those who hold it.
const IS_THERE: Duration = Duration::from_secs(60);

/// Lines about what stands in the store for a pin and does not count.
pub(super) static COMPLAINTS: Complaints = Complaints::new();

/// A pin, and which write of the store it is.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) key: Key,
    pub(super) pin: Arc<Pin>,
    pub(super) moment: Moment,
    /// How many bytes it takes among what is listed.
    pub(super) bytes: u64,
    /// Made while the store was away: it stands here alone.
    pub(super) is_unshared: bool,
    pub(super) vouched: Vouched,
}

/// What was found out about the signatures of a pin or a confirmation, and for which state of the members. Signatures cost more than all else, and a
/// hostile store could offer many that are wrong.
#[derive(Debug)]
pub(super) struct Vouched(AtomicU64);

impl Vouched {
    pub(super) const fn not_checked() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }

    /// Whether they are good, if the members are those of `serial`.
    pub(super) fn or_check(&self, serial: u64, check: impl FnOnce() -> bool) -> bool {
        let state = serial.wrapping_mul(2);
        let found = self.0.load(Ordering::Relaxed);
        if found == state || found == state.wrapping_add(1) {
            return found != state;
        }
        let is_good = check();
        self.0.store(state.wrapping_add(u64::from(is_good)), Ordering::Relaxed);
        is_good
    }

    /// Whether they were looked at and found wrong.
    pub(super) fn is_refused(&self) -> bool {
        self.0.load(Ordering::Relaxed).is_multiple_of(2)
    }
}

impl Standing {
    pub(super) fn new(key: Key, pin: Arc<Pin>, moment: Moment) -> Self {
        let bytes = bytes_of(&key, &pin);
        Self { key, pin, moment, bytes, is_unshared: false, vouched: Vouched::not_checked() }
    }

    /// A copy that this node kept: whatever the store has is newer.
    pub(super) fn kept(key: Key, pin: Arc<Pin>, is_unshared: bool) -> Self {
        Self { is_unshared, ..Self::new(key, pin, Moment::new(0)) }
    }
}

/// How many bytes a pin takes where it is listed, with its key.
pub(super) fn bytes_of(key: &Key, pin: &Pin) -> u64 {
    let written = pin.encode().map_or(0, |bytes| bytes.len());
    (key.as_str().len() + written) as u64
}

/// What an entry says. None for what is no pin, which is as good as absent.
pub(super) fn standing(key: &Key, entry: &Entry) -> Option<Standing> {
    match Pin::decode(key, &entry.value) {
        Ok(pin) => Some(Standing::new(key.clone(), Arc::new(pin), entry.revision)),
        Err(fault) => {
            COMPLAINTS.say(|| tracing::warn!(key = shown(&key.to_string()), %fault, "what stands in the store for a pin does not count"));
            None
        }
    }
}

/// Pins, each with how many of them rest on the same evidence.
#[derive(Debug, Default)]
pub(super) struct Held {
    pins: HashMap<Key, Arc<Standing>>,
    evidence: HashMap<EvidenceDigest, Rests>,
}

/// How much rests on some evidence.
#[derive(Debug, Default)]
struct Rests {
    pins: usize,
    bytes: u64,
    /// When this node last wrote it to the store, or read it there.
    seen: Option<Instant>,
}

impl Held {
    /// How many pins there are, without those that nobody who counts has signed.
    pub(super) fn vouched_pins(&self) -> usize {
        self.vouched().count()
    }

    /// How many bytes they take.
    pub(super) fn bytes(&self) -> u64 {
        self.vouched().map(|standing| standing.bytes).sum()
    }

    /// The same of one namespace.
    pub(super) fn bytes_of_namespace(&self, namespace: &str) -> u64 {
        self.vouched().filter(|standing| standing.pin.revision.service.namespace == namespace).map(|standing| standing.bytes).sum()
    }

    fn vouched(&self) -> impl Iterator<Item = &Arc<Standing>> {
        self.pins.values().filter(|standing| !standing.vouched.is_refused())
    }

    /// Whether none had to be left out.
    pub(super) fn has_room(&self) -> bool {
        self.pins.len() < MOST_HELD
    }

    pub(super) fn of(&self, key: &Key) -> Option<&Arc<Standing>> {
        self.pins.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Standing>> {
        self.pins.values()
    }

    /// Whether any pin rests on this evidence, also one that does not count here: it may on another node.
    pub(super) fn rests_on(&self, name: EvidenceDigest) -> bool {
        self.evidence.contains_key(&name)
    }

    /// The same, but for the pin that stands at `key`.
    pub(super) fn rests_elsewhere(&self, name: EvidenceDigest, key: &Key) -> bool {
        let here = self.pins.get(key).is_some_and(|own| own.pin.evidence().any(|other| other == name));
        self.evidence.get(&name).is_some_and(|rests| rests.pins > usize::from(here))
    }

    /// How many bytes evidence takes that a pin rests on and that was in the store not long ago.
    pub(super) fn seen_lately(&self, name: EvidenceDigest) -> Option<u64> {
        let is_new = |rests: &&Rests| rests.seen.is_some_and(|seen| seen.elapsed() < IS_THERE);
        // Of what only pins rest on that did not count when they were heard of, nobody has said how much it is.
        self.evidence.get(&name).filter(is_new).map(|rests| rests.bytes).filter(|bytes| *bytes > 0)
    }

    /// Evidence is in the store now.
    pub(super) fn saw(&mut self, name: EvidenceDigest) {
        if let Some(rests) = self.evidence.get_mut(&name) {
            rests.seen = Some(Instant::now());
        }
    }

    /// How many bytes all the evidence takes in the store.
    pub(super) fn evidence_bytes(&self) -> u64 {
        self.evidence.values().map(|rests| rests.bytes).sum()
    }

    /// Changes may be heard of twice, and after what was written here.
    pub(super) fn keep_newer(&mut self, standing: Arc<Standing>) {
        match self.pins.get(&standing.key) {
            Some(own) if own.moment >= standing.moment => {}
            None if self.pins.len() >= MOST_HELD => {
                COMPLAINTS.say(|| tracing::warn!(key = %standing.key, limit = MOST_HELD, "there are too many pins: one is left out"));
            }
            Some(_) | None => self.put(standing),
        }
    }

    /// Whatever was there before.
    pub(super) fn put(&mut self, standing: Arc<Standing>) {
        self.remove(&standing.key);
        let is_refused = standing.vouched.is_refused();
        for (name, bytes) in evidence_of(&standing) {
            let rests = self.evidence.entry(name).or_default();
            // The number of somebody who is nobody would use up what all may have.
            let bytes = if is_refused { 0 } else { bytes };
            (rests.pins, rests.bytes) = (rests.pins + 1, rests.bytes.max(bytes));
        }
        self.pins.insert(standing.key.clone(), standing);
    }

    pub(super) fn remove(&mut self, key: &Key) {
        let Some(standing) = self.pins.remove(key) else { return };
        for (name, _) in evidence_of(&standing) {
            let Some(rests) = self.evidence.get_mut(&name) else { continue };
            rests.pins = rests.pins.saturating_sub(1);
            if rests.pins == 0 {
                self.evidence.remove(&name);
            }
        }
    }

    pub(super) fn remove_older(&mut self, key: &Key, revision: Moment) {
        if self.pins.get(key).is_some_and(|own| own.moment <= revision) {
            self.remove(key);
        }
    }

    pub(super) fn retain(&mut self, stays: impl Fn(&Standing) -> bool) {
        let gone: Vec<Key> = self.pins.values().filter(|own| !stays(own)).map(|own| own.key.clone()).collect();
        for key in gone {
            self.remove(&key);
        }
    }
}

/// Each evidence that a pin rests on, once.
fn evidence_of(standing: &Standing) -> HashMap<EvidenceDigest, u64> {
    standing.pin.evidence_sizes().collect()
}
