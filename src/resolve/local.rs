//! What this node keeps for itself of pins that are shared: those that it uses, so that it knows them while the store is away, and
//! what it has seen, so that the store cannot take it back there.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use countersign_trust::evidence::Evidence;
use countersign_trust::name::{EvidenceDigest, ImageReference, Repository};
use countersign_trust::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::error::ResolveError;
use super::pieces::{self, Packed, Use};
use super::pin::{PINS, Pin};
use super::service::Kind;
use super::sharing::lives;
use crate::store::{Entry, Key, Prefix, Store, StoreError, list_all};

/// The first segments of the keys of what is kept beside the pins themselves.
const FLOORS: &str = "floors";
const WITHDRAWN: &str = "withdrawn";
const UNSHARED: &str = "unshared";
/// Which segment of the key of a pin is the kind of its service.
const KIND_SEGMENT: usize = 2;
/// For how long a floor is kept after every pin from before it has ended by itself: room for clocks that differ. One that is longer
/// would fill this node's file: a CronJob leaves one each minute.
const FLOOR_STAYS_SECONDS: i64 = 24 * 60 * 60;

/// Tags of one repository that are remembered one by one as seen unsigned. Where there are more, no pin of the whole repository from
/// before counts: whoever signs could else go on for ever, a few hundred tags with each signature.
const MOST_WITHDRAWN_OF_A_REPOSITORY: usize = 256;
/// The same of all repositories together: this node's file has room for eight times as many entries, of whatever kind.
const MOST_WITHDRAWN: usize = 8192;

/// A pin that this node keeps a copy of.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) key: Key,
    pub(super) pin: Arc<Pin>,
    /// It was made while the store was away, and stands nowhere else.
    pub(super) is_unshared: bool,
}

/// This node's own store, in a file that nobody else writes.
#[derive(Debug)]
pub(super) struct Local {
    store: Arc<dyn Store>,
    /// The highest generation that was seen of pins that this node uses.
    floors: RwLock<HashMap<Key, u64>>,
    /// When a tag was last seen unsigned; and a repository, of which many were at once.
    withdrawn: RwLock<HashMap<String, UnixTime>>,
    /// The copies that there are.
    copies: RwLock<HashMap<Key, Arc<Pin>>>,
}

impl Local {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, floors: RwLock::default(), withdrawn: RwLock::default(), copies: RwLock::default() }
    }

    #[cfg(test)]
    pub(super) fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// Reads what is kept. Pins that no longer read as such are left out.
    pub(super) async fn load(&self) -> Result<Vec<Copy>, StoreError> {
        let mut copies = Vec::new();
        // Not evidence, which is far more than all else and is read when it is needed.
        for kept in [PINS, UNSHARED] {
            copies.extend(self.entries(kept).await?.iter().filter_map(|(key, entry)| copy(key, &entry.value)));
        }
        for (key, entry) in self.entries(FLOORS).await? {
            self.floors().extend(read_floor(&key, &entry.value));
        }
        for (_, entry) in self.entries(WITHDRAWN).await? {
            self.withdrawn().extend(read_withdrawn(&entry.value));
        }
        for Copy { key, pin, .. } in &copies {
            self.copies().insert(key.clone(), Arc::clone(pin));
        }
        Ok(copies)
    }

    async fn entries(&self, area: &str) -> Result<Vec<(Key, Entry)>, StoreError> {
        // One segment is never too many.
        let prefix = Prefix::new([area]).unwrap_or_else(|_| Prefix::all());
        Ok(list_all(&*self.store, &prefix).await?.entries)
    }

    /// Whether there is a copy of the pin as it is.
    pub(super) fn has(&self, key: &Key, pin: &Pin) -> bool {
        self.copies.read().unwrap_or_else(PoisonError::into_inner).get(key).is_some_and(|copy| **copy == *pin)
    }

    /// Where the pins stand of which there are copies.
    pub(super) fn kept(&self) -> Vec<Key> {
        self.copies.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Keeps a pin with what it rests on.
    pub(super) async fn keep(&self, key: &Key, pin: &Pin, packed: &Packed, is_unshared: bool) -> Result<(), ResolveError> {
        self.raise_floor(key, pin.generation).await?;
        pieces::write(&*self.store, Use::Pinned, packed).await?;
        let bytes = pin.encode().ok_or(ResolveError::Internal { what: "a pin that cannot be written" })?;
        let area = if is_unshared { UNSHARED } else { PINS };
        pieces::overwrite(&*self.store, &in_area(area, key)?, bytes.into()).await?;
        self.copies().insert(key.clone(), Arc::new(pin.clone()));
        Ok(())
    }

    /// Forgets the copy of a pin with what no other one rests on, never its floor.
    pub(super) async fn forget(&self, key: &Key) -> Result<(), ResolveError> {
        for area in [PINS, UNSHARED] {
            pieces::remove_one(&*self.store, &in_area(area, key)?).await?;
        }
        let Some(gone) = self.copies().remove(key) else { return Ok(()) };
        for name in gone.evidence().filter(|name| !self.rests_on(*name)) {
            self.forget_evidence(name).await?;
        }
        Ok(())
    }

    pub(super) async fn forget_evidence(&self, name: EvidenceDigest) -> Result<(), ResolveError> {
        pieces::remove(&*self.store, Use::Pinned, name).await
    }

    fn rests_on(&self, name: EvidenceDigest) -> bool {
        let copies = self.copies.read().unwrap_or_else(PoisonError::into_inner);
        copies.values().any(|copy| copy.evidence().any(|other| other == name))
    }

    /// Evidence that a copy of a pin rests on: there is no other, and a file is not opened to find that out.
    pub(super) async fn evidence(&self, name: EvidenceDigest) -> Result<Option<Evidence>, ResolveError> {
        if !self.rests_on(name) {
            return Ok(None);
        }
        pieces::read(&*self.store, Use::Pinned, name).await
    }

    /// The lowest generation that counts.
    pub(super) fn floor(&self, key: &Key) -> u64 {
        self.floors.read().unwrap_or_else(PoisonError::into_inner).get(key).copied().unwrap_or_default()
    }

    /// No pin of this place counts that is older than one of this generation.
    pub(super) async fn raise_floor(&self, key: &Key, generation: u64) -> Result<(), ResolveError> {
        if self.floor(key) >= generation {
            return Ok(());
        }
        pieces::overwrite(&*self.store, &in_area(FLOORS, key)?, generation.to_string().into()).await?;
        self.floors().insert(key.clone(), generation);
        Ok(())
    }

    /// When the tag of an image was last seen unsigned, if it was.
    pub(super) fn withdrawn_at(&self, image: &ImageReference) -> Option<UnixTime> {
        let withdrawn = self.withdrawn.read().unwrap_or_else(PoisonError::into_inner);
        let (tag, all) = (withdrawn.get(&image.to_string()), withdrawn.get(&image.repository().to_string()));
        tag.max(all).copied()
    }

    /// No pin of this tag counts that was made before `at`.
    pub(super) async fn withdraw(&self, image: &ImageReference, at: UnixTime) -> Result<(), ResolveError> {
        let (named, repository) = (image.to_string(), image.repository());
        if self.has_room_for_withdrawal(&named, &repository.to_string()) {
            return self.withdraw_named(named, at).await;
        }
        self.withdraw_all(repository, at).await
    }

    fn has_room_for_withdrawal(&self, image: &str, repository: &str) -> bool {
        let withdrawn = self.withdrawn();
        let of_repository = withdrawn.keys().filter(|other| is_tag_of(other, repository)).count();
        let has_room = of_repository < MOST_WITHDRAWN_OF_A_REPOSITORY && withdrawn.len() < MOST_WITHDRAWN;
        has_room || withdrawn.contains_key(image)
    }

    /// No pin of any tag of this repository counts that was made before `at`.
    pub(super) async fn withdraw_all(&self, repository: &Repository, at: UnixTime) -> Result<(), ResolveError> {
        let repository = repository.to_string();
        let within: Vec<(String, UnixTime)> = {
            let withdrawn = self.withdrawn();
            withdrawn.iter().filter(|(image, _)| is_tag_of(image, &repository)).map(|(image, at)| (image.clone(), *at)).collect()
        };
        let latest = within.iter().map(|(_, at)| *at).fold(at, UnixTime::max);
        self.withdraw_named(repository, latest).await?;
        // What is said of all of them need not be said of each.
        for (image, _) in within {
            self.forget_withdrawal(&image).await?;
        }
        Ok(())
    }

    async fn forget_withdrawal(&self, image: &str) -> Result<(), ResolveError> {
        pieces::remove_one(&*self.store, &withdrawn_key(image)?).await?;
        self.withdrawn().remove(image);
        Ok(())
    }

    async fn withdraw_named(&self, image: String, at: UnixTime) -> Result<(), ResolveError> {
        let at = self.withdrawn().get(&image).copied().max(Some(at)).unwrap_or(at);
        self.withdrawn().insert(image.clone(), at);
        let key = withdrawn_key(&image)?;
        let said = serde_json::to_vec(&Withdrawn { image, at: at.seconds() });
        let said = said.map_err(|_| ResolveError::Internal { what: "a withdrawal that cannot be written" })?;
        pieces::overwrite(&*self.store, &key, said.into()).await
    }

    /// Forgets what no pin can be held against any more: `oldest` is the moment before which every claim is too old to serve.
    pub(super) async fn forget_old(&self, now: UnixTime, oldest: UnixTime) -> Result<(), ResolveError> {
        let is_over = |key: &Key, floor: u64| {
            let kept_for = lives(kind_in(key)).saturating_add(FLOOR_STAYS_SECONDS);
            i64::try_from(floor).is_ok_and(|floor| floor.saturating_add(kept_for) < now.seconds())
        };
        let floors: Vec<Key> = self.floors().iter().filter(|(key, floor)| is_over(key, **floor)).map(|(key, _)| key.clone()).collect();
        for key in floors {
            pieces::remove_one(&*self.store, &in_area(FLOORS, &key)?).await?;
            self.floors().remove(&key);
        }
        let withdrawn: Vec<String> = self.withdrawn().iter().filter(|(_, at)| **at < oldest).map(|(image, _)| image.clone()).collect();
        for image in withdrawn {
            self.forget_withdrawal(&image).await?;
        }
        Ok(())
    }

    fn floors(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<Key, u64>> {
        self.floors.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn copies(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<Key, Arc<Pin>>> {
        self.copies.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn withdrawn(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<String, UnixTime>> {
        self.withdrawn.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tag, or a repository, that was seen unsigned, as it is written: a key may have no more than the hash of a long name.
#[derive(Serialize, Deserialize)]
struct Withdrawn {
    image: String,
    at: i64,
}

fn read_withdrawn(bytes: &[u8]) -> Option<(String, UnixTime)> {
    let Withdrawn { image, at } = serde_json::from_slice(bytes).ok()?;
    Some((image, UnixTime::from_seconds(at)))
}

fn withdrawn_key(image: &str) -> Result<Key, ResolveError> {
    Key::new([WITHDRAWN, image]).map_err(|_| ResolveError::Internal { what: "a key of a withdrawal that is none" })
}

fn is_tag_of(image: &str, repository: &str) -> bool {
    image.strip_prefix(repository).is_some_and(|rest| rest.starts_with(':'))
}

fn read_floor(key: &Key, bytes: &[u8]) -> Option<(Key, u64)> {
    let floor = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    Some((in_area(PINS, key).ok()?, floor))
}

fn copy(key: &Key, bytes: &[u8]) -> Option<Copy> {
    let is_unshared = area(key) == UNSHARED;
    let key = in_area(PINS, key).ok()?;
    let pin = Arc::new(Pin::decode(&key, bytes).ok()?);
    Some(Copy { key, pin, is_unshared })
}

/// Of what kind the service of a pin is. A key that says none is kept for longest.
fn kind_in(key: &Key) -> Kind {
    key.as_str().split('/').nth(KIND_SEGMENT).and_then(Kind::read).unwrap_or(Kind::Named)
}

/// The first segment of a key.
fn area(key: &Key) -> &str {
    key.as_str().split('/').next().unwrap_or_default()
}

/// The key with the same segments but the first.
fn in_area(area: &str, key: &Key) -> Result<Key, ResolveError> {
    let rest = key.as_str().split_once('/').map_or("", |(_, rest)| rest);
    let key = Key::from_written(format!("{area}/{rest}").as_bytes());
    key.ok_or(ResolveError::Internal { what: "a key of a copy that is none" })
}
