//! Every pin, as this node holds it: a mirror of what stands in the store, so that what is known here is answered without asking.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use countersign_trust::evidence::Evidence;
use countersign_trust::name::{ImageReference, shown};

use super::error::ResolveError;
use super::pieces;
use super::pin::{Meaning, PINS, Pin};
use super::service::Revision;
use crate::store::{Change, Entry, Expected, Key, Prefix, Put, Removed, Revision as Moment, Store, StoreError, list_all};

/// Pins of one namespace: what a tenant can make by making pods. A namespace with so many revisions alive at once is none.
pub const MAX_PINS_OF_A_NAMESPACE: usize = 4096;
/// How often a write is tried again because somebody else has written meanwhile.
const TRIES: usize = 8;
/// After the changes could not be followed: first wait before everything is listed again, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A pin, and which write of the store it is.
#[derive(Debug, Clone)]
struct Standing {
    pin: Arc<Pin>,
    moment: Moment,
}

/// The pins of the whole cluster.
#[derive(Debug)]
pub struct Pins {
    store: Arc<dyn Store>,
    held: RwLock<HashMap<Key, Standing>>,
}

impl Pins {
    /// The pins that stand in `store`. None are held before [`Pins::load`].
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, held: RwLock::default() }
    }

    /// Takes every pin of the store into memory, and gives back the moment from which changes are to be followed.
    ///
    /// # Errors
    /// Why the store cannot be asked.
    pub async fn load(&self) -> Result<Moment, StoreError> {
        let listing = list_all(&*self.store, &all()).await?;
        for unusable in &listing.unusable {
            tracing::warn!(key = shown(&unusable.key), why = %unusable.why, "something in the store that is no pin is left alone");
        }
        let read = listing.entries.into_iter().filter_map(|(key, entry)| Some((key.clone(), standing(&key, &entry)?)));
        let listed: HashMap<Key, Standing> = read.collect();
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        // What was written here since the listing began is newer than it.
        held.retain(|key, own| own.moment > listing.revision || listed.contains_key(key));
        for (key, standing) in listed {
            keep_newer(&mut held, key, standing);
        }
        Ok(listing.revision)
    }

    /// Follows what others write, until the process ends. What is held stays while the store cannot be asked.
    pub async fn follow(self: Arc<Self>) {
        let mut wait = FIRST_WAIT;
        loop {
            match self.follow_once().await {
                Ok(()) | Err(StoreError::Compacted { .. }) => wait = FIRST_WAIT,
                Err(error) => {
                    tracing::warn!(%error, "the pins of other nodes cannot be followed; what is held goes on");
                    wait = wait.saturating_mul(2).min(LONGEST_WAIT);
                }
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn follow_once(&self) -> Result<(), StoreError> {
        let from = self.load().await?;
        let mut changes = self.store.follow(&all(), from).await?;
        while let Some(change) = changes.next().await {
            self.apply(change?);
        }
        Ok(())
    }

    fn apply(&self, change: Change) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Put { key, entry } => match standing(&key, &entry) {
                Some(standing) => keep_newer(&mut held, key, standing),
                // It took the place of a pin: there is none any more.
                None => drop(held.remove(&key)),
            },
            Change::Removed { key, revision } => {
                if held.get(&key).is_some_and(|own| own.moment <= revision) {
                    held.remove(&key);
                }
            }
            Change::Unusable(unusable) => {
                tracing::warn!(key = shown(&unusable.key), why = %unusable.why, "something was written to the store that is no pin");
            }
        }
    }

    /// What the tag of `image` means for a revision, as far as it is held here.
    #[must_use]
    pub fn of(&self, revision: &Revision, image: &ImageReference) -> Option<Arc<Pin>> {
        let key = Pin::key(revision, image)?;
        self.held.read().unwrap_or_else(PoisonError::into_inner).get(&key).map(|standing| Arc::clone(&standing.pin))
    }

    /// Every pin of a revision that is held here.
    #[must_use]
    pub fn of_revision(&self, revision: &Revision) -> Vec<Arc<Pin>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.values().filter(|standing| standing.pin.revision == *revision).map(|standing| Arc::clone(&standing.pin)).collect()
    }

    /// Every pin that is held here.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Pin>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).values().map(|standing| Arc::clone(&standing.pin)).collect()
    }

    /// Makes the first pin of an image for a revision, with the evidence that shows what it means, and gives back the pin that
    /// stands: whoever comes first says what it is.
    ///
    /// # Errors
    /// [`ResolveError::Quota`], or why the store does not take it.
    pub async fn begin(&self, pin: Pin, evidence: &Evidence) -> Result<Arc<Pin>, ResolveError> {
        self.refuse_over_quota(&pin.revision.service.namespace)?;
        let key = key_of(&pin)?;
        pieces::write(&*self.store, evidence).await?;
        let pin = Arc::new(pin);
        let mut expected = Expected::Absent;
        for _ in 0..TRIES {
            match self.put(&key, &pin, expected).await? {
                Put::Done(moment) => return Ok(self.hold(key, Standing { pin, moment })),
                Put::Lost(Some(entry)) => match standing(&key, &entry) {
                    Some(winner) => return Ok(self.hold(key, winner)),
                    None => expected = Expected::Revision(entry.revision),
                },
                Put::Lost(None) => expected = Expected::Absent,
            }
        }
        Err(ResolveError::Contended { key: key.to_string() })
    }

    /// Says that a pin means something else from now on. None if it is not `before` that stands any more: whoever has changed it
    /// meanwhile was first.
    ///
    /// # Errors
    /// Why the store does not take it.
    pub async fn succeed(&self, before: &Pin, meaning: Meaning, evidence: &Evidence) -> Result<Option<Arc<Pin>>, ResolveError> {
        let key = key_of(before)?;
        let Some(moment) = self.moment_of(&key, before) else { return Ok(None) };
        pieces::write(&*self.store, evidence).await?;
        let pin = Arc::new(before.succeeded_by(meaning));
        match self.put(&key, &pin, Expected::Revision(moment)).await? {
            Put::Done(moment) => Ok(Some(self.hold(key, Standing { pin, moment }))),
            Put::Lost(Some(entry)) => {
                if let Some(winner) = standing(&key, &entry) {
                    self.hold(key, winner);
                }
                Ok(None)
            }
            Put::Lost(None) => {
                self.held.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
                Ok(None)
            }
        }
    }

    /// Removes a pin, if it is `pin` that stands: nothing uses it any more, or its tag is signed no longer. False if another
    /// stands.
    ///
    /// # Errors
    /// Why the store does not take it.
    pub async fn end(&self, pin: &Pin) -> Result<bool, ResolveError> {
        let key = key_of(pin)?;
        let Some(moment) = self.moment_of(&key, pin) else { return Ok(false) };
        match self.store.remove(&key, moment).await? {
            Removed::Done => {
                let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
                if held.get(&key).is_some_and(|own| own.moment == moment) {
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
        pieces::read(&*self.store, meaning.evidence).await
    }

    /// Removes the evidence of `ended` that no pin rests on any more.
    ///
    /// # Errors
    /// Why the store does not take it.
    pub async fn forget_evidence_of(&self, ended: &Pin) -> Result<(), ResolveError> {
        for name in ended.evidence() {
            let is_used = self.all().iter().any(|pin| pin.evidence().any(|other| other == name));
            if !is_used {
                pieces::remove(&*self.store, name).await?;
            }
        }
        Ok(())
    }

    fn refuse_over_quota(&self, namespace: &str) -> Result<(), ResolveError> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let count = held.values().filter(|standing| standing.pin.revision.service.namespace == namespace).count();
        if count < MAX_PINS_OF_A_NAMESPACE {
            return Ok(());
        }
        Err(ResolveError::Quota { namespace: shown(namespace), limit: MAX_PINS_OF_A_NAMESPACE })
    }

    async fn put(&self, key: &Key, pin: &Pin, expected: Expected) -> Result<Put, ResolveError> {
        let bytes = pin.encode().ok_or(ResolveError::Internal { what: "a pin that cannot be written" })?;
        Ok(self.store.put(key, bytes.into(), expected, None).await?)
    }

    fn hold(&self, key: Key, standing: Standing) -> Arc<Pin> {
        let pin = Arc::clone(&standing.pin);
        keep_newer(&mut self.held.write().unwrap_or_else(PoisonError::into_inner), key, standing);
        pin
    }

    /// Which write of the store a pin is, if it is the one that is held.
    fn moment_of(&self, key: &Key, pin: &Pin) -> Option<Moment> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.get(key).filter(|standing| *standing.pin == *pin).map(|standing| standing.moment)
    }
}

fn all() -> Prefix {
    // One segment is never too many.
    Prefix::new([PINS]).unwrap_or_else(|_| Prefix::all())
}

fn key_of(pin: &Pin) -> Result<Key, ResolveError> {
    Pin::key(&pin.revision, &pin.image).ok_or(ResolveError::Internal { what: "a key of a pin that is none" })
}

/// What an entry says. None for what is no pin, which is as good as absent.
fn standing(key: &Key, entry: &Entry) -> Option<Standing> {
    match Pin::decode(key, &entry.value) {
        Ok(pin) => Some(Standing { pin: Arc::new(pin), moment: entry.revision }),
        Err(fault) => {
            tracing::warn!(key = shown(&key.to_string()), %fault, "what stands in the store for a pin does not count");
            None
        }
    }
}

/// Changes may be heard of twice, and after what was written here.
fn keep_newer(held: &mut HashMap<Key, Standing>, key: Key, standing: Standing) {
    match held.get(&key) {
        Some(own) if own.moment >= standing.moment => {}
        Some(_) | None => drop(held.insert(key, standing)),
    }
}

#[cfg(test)]
mod tests {
    use countersign_trust::evidence::{Answer, FileName, Gun};
    use countersign_trust::name::EvidenceDigest;

    use super::super::pin::Cause;
    use super::super::pin::tests::{image, meaning, revision};
    use super::*;
    use crate::store::EmbeddedStore;

    fn evidence(text: &str) -> Evidence {
        let mut evidence = Evidence::new(Gun::for_repository(&"r.test/team/app".parse().unwrap()), "https://r.test".into());
        evidence.add(FileName::Timestamp, Answer::Found(text.as_bytes().into()));
        evidence
    }

    fn pin(digest: &str) -> (Pin, Evidence) {
        let evidence = evidence(digest);
        let meaning = Meaning { evidence: evidence.digest(), ..meaning(digest, b"") };
        (Pin::first(revision("web", "5d4f"), image(), meaning).unwrap(), evidence)
    }

    fn store() -> (tempfile::TempDir, Arc<EmbeddedStore>) {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&folder.path().join("store")).unwrap();
        (folder, Arc::new(store))
    }

    async fn until(what: impl Fn() -> bool) {
        for _ in 0..5000 {
            if what() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("it never came");
    }

    #[tokio::test]
    async fn of_a_hundred_first_pulls_on_many_nodes_one_says_what_the_tag_means() {
        let (_folder, store) = store();
        let nodes: Vec<Arc<Pins>> = (0..10).map(|_| Arc::new(Pins::new(store.clone()))).collect();
        let mut pulls = tokio::task::JoinSet::new();
        for pull in 0..100 {
            let node = Arc::clone(&nodes[pull % nodes.len()]);
            pulls.spawn(async move {
                let (pin, evidence) = pin(&format!("digest {pull}"));
                node.begin(pin, &evidence).await.unwrap().meaning.digest
            });
        }
        let found = pulls.join_all().await;
        assert!(found.iter().all(|digest| *digest == found[0]), "{found:?}");
        for node in &nodes {
            assert_eq!(node.of(&revision("web", "5d4f"), &image()).unwrap().meaning.digest, found[0]);
        }
        assert_eq!(list_all(&*store, &all()).await.unwrap().entries.len(), 1);
    }

    #[tokio::test]
    async fn what_one_node_says_is_known_on_another_and_after_a_restart() {
        let (folder, store) = store();
        let (one, other) = (Pins::new(store.clone()), Arc::new(Pins::new(store.clone())));
        let following = tokio::spawn(Arc::clone(&other).follow());
        let (first, evidence_of_first) = pin("old");
        let first = one.begin(first, &evidence_of_first).await.unwrap();
        let known = || other.of(&first.revision, &first.image);
        until(|| known().is_some()).await;
        assert_eq!(other.evidence(&first.meaning).await.unwrap(), Some(evidence_of_first));

        let newer = evidence("new");
        let meaning = Meaning { evidence: newer.digest(), cause: Cause::Update, ..meaning("new", b"") };
        let second = one.succeed(&first, meaning, &newer).await.unwrap().unwrap();
        until(|| known().is_some_and(|pin| pin == second)).await;
        assert_eq!((second.generation, second.past.as_slice()), (2, [first.meaning.clone()].as_slice()));

        following.abort();
        drop(following.await);
        drop((one, other, store));
        let again = Pins::new(Arc::new(EmbeddedStore::open(&folder.path().join("store")).unwrap()));
        assert_eq!(again.all(), [], "nothing before it is loaded");
        again.load().await.unwrap();
        assert_eq!(again.all(), [second]);
    }

    #[tokio::test]
    async fn a_pin_that_somebody_else_has_changed_is_neither_changed_nor_ended() {
        let (_folder, store) = store();
        let (one, other) = (Pins::new(store.clone()), Pins::new(store.clone()));
        let (first, evidence_of_first) = pin("old");
        let first = one.begin(first, &evidence_of_first).await.unwrap();
        other.load().await.unwrap();
        let newer = evidence("new");
        let meaning = |digest| Meaning { evidence: newer.digest(), ..meaning(digest, b"") };
        let second = other.succeed(&first, meaning("new"), &newer).await.unwrap().unwrap();
        assert_eq!(one.succeed(&first, meaning("mine"), &newer).await.unwrap(), None);
        assert_eq!(one.of(&first.revision, &first.image), Some(second.clone()), "and it takes the winner's");
        assert!(!one.end(&first).await.unwrap());
        assert!(one.end(&second).await.unwrap());
        assert_eq!(one.of(&first.revision, &first.image), None);
        assert_eq!(other.succeed(&second, meaning("late"), &newer).await.unwrap(), None, "it has ended");
    }

    #[tokio::test]
    async fn evidence_goes_with_the_last_pin_that_rests_on_it() {
        let (_folder, store) = store();
        let pins = Pins::new(store.clone());
        let (first, shared) = pin("old");
        let second = Pin { revision: revision("api", "1"), ..first.clone() };
        let (first, second) = (pins.begin(first, &shared).await.unwrap(), pins.begin(second, &shared).await.unwrap());
        assert!(pins.end(&first).await.unwrap());
        pins.forget_evidence_of(&first).await.unwrap();
        assert_eq!(pins.evidence(&second.meaning).await.unwrap(), Some(shared));
        assert!(pins.end(&second).await.unwrap());
        pins.forget_evidence_of(&second).await.unwrap();
        assert_eq!(pins.evidence(&second.meaning).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_a_hostile_store_offers_for_a_pin_is_as_good_as_absent() {
        let (_folder, store) = store();
        let (wanted, evidence) = pin("old");
        let key = key_of(&wanted).unwrap();
        let elsewhere = Pin { revision: revision("web", "7c9f"), ..wanted.clone() }.encode().unwrap();
        for forged in [b"nonsense".to_vec(), elsewhere, vec![b'x'; 500_000]] {
            let expected = store.read(&key).await.unwrap().map_or(Expected::Absent, |entry| Expected::Revision(entry.revision));
            store.put(&key, forged.into(), expected, None).await.unwrap();
            let pins = Pins::new(store.clone());
            pins.load().await.unwrap();
            assert_eq!(pins.of(&wanted.revision, &wanted.image), None);
            let made = pins.begin(wanted.clone(), &evidence).await.unwrap();
            assert_eq!(*made, wanted, "and it takes its place");
        }
        // A pin that is spoiled while others follow is gone for them.
        let follower = Arc::new(Pins::new(store.clone()));
        let following = tokio::spawn(Arc::clone(&follower).follow());
        until(|| follower.of(&wanted.revision, &wanted.image).is_some()).await;
        let there = store.read(&key).await.unwrap().unwrap();
        store.put(&key, b"{}".as_slice().into(), Expected::Revision(there.revision), None).await.unwrap();
        until(|| follower.of(&wanted.revision, &wanted.image).is_none()).await;
        following.abort();
        assert_eq!(follower.evidence(&Meaning { evidence: EvidenceDigest::of(b"none"), ..wanted.meaning }).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_namespace_has_no_more_pins_than_its_quota() {
        let (_folder, store) = store();
        let pins = Pins::new(store);
        let (pin, evidence) = pin("old");
        for number in 0..MAX_PINS_OF_A_NAMESPACE as u64 {
            let pin = Arc::new(Pin { revision: revision("web", &number.to_string()), ..pin.clone() });
            pins.hold(key_of(&pin).unwrap(), Standing { pin, moment: Moment::new(number) });
        }
        let refused = pins.begin(Pin { revision: revision("one", "more"), ..pin.clone() }, &evidence).await.unwrap_err();
        assert!(matches!(refused, ResolveError::Quota { .. }), "{refused:?}");
        let mut elsewhere = Pin { revision: revision("one", "more"), ..pin };
        elsewhere.revision.service.namespace = "bank".into();
        pins.begin(elsewhere, &evidence).await.unwrap();
    }
}
