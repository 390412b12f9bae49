//! Locks by key: one for each repository that is refreshed, one for each image that is written or used.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

type Locks<K> = Arc<Mutex<HashMap<K, Arc<RwLock<()>>>>>;

/// A lock for each key that somebody holds or waits for. A key nobody holds costs nothing.
#[derive(Debug)]
pub struct KeyedLocks<K>(Locks<K>);

impl<K> Default for KeyedLocks<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// Holds the lock of a key until it is dropped.
#[derive(Debug)]
pub struct KeyGuard<K: Eq + Hash> {
    locks: Locks<K>,
    key: K,
    held: Option<Held>,
}

#[derive(Debug)]
enum Held {
    Alone { _guard: OwnedRwLockWriteGuard<()> },
    Shared { _guard: OwnedRwLockReadGuard<()> },
}

impl<K: Clone + Eq + Hash> KeyedLocks<K> {
    /// Waits until nobody else holds the lock of `key`.
    pub async fn lock(&self, key: K) -> KeyGuard<K> {
        let (lock, mut guard) = self.entry(key);
        guard.held = Some(Held::Alone { _guard: lock.write_owned().await });
        guard
    }

    /// Waits until nobody holds the lock of `key` alone, or has waited for that for longer.
    pub async fn share(&self, key: K) -> KeyGuard<K> {
        let (lock, mut guard) = self.entry(key);
        guard.held = Some(Held::Shared { _guard: lock.read_owned().await });
        guard
    }

    fn entry(&self, key: K) -> (Arc<RwLock<()>>, KeyGuard<K>) {
        let lock = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default());
        (lock, KeyGuard { locks: Arc::clone(&self.0), key, held: None })
    }

    /// Waits for the locks of all of `keys`, in one order for everybody, so that no two wait for each other.
    pub async fn lock_all(&self, keys: impl IntoIterator<Item = K>) -> Vec<KeyGuard<K>>
    where
        K: Ord,
    {
        let ordered: std::collections::BTreeSet<K> = keys.into_iter().collect();
        let mut guards = Vec::with_capacity(ordered.len());
        for key in ordered {
            guards.push(self.lock(key).await);
        }
        guards
    }
}

impl<K: Clone + Eq + Hash + Ord> KeyedLocks<K> {
    /// Waits until the locks of all of `keys` can be shared, in the order of [`KeyedLocks::lock_all`].
    pub async fn share_all(&self, keys: impl IntoIterator<Item = K>) -> Vec<KeyGuard<K>> {
        let ordered: std::collections::BTreeSet<K> = keys.into_iter().collect();
        let mut guards = Vec::with_capacity(ordered.len());
        for key in ordered {
            guards.push(self.share(key).await);
        }
        guards
    }
}

impl<K: Eq + Hash> Drop for KeyGuard<K> {
    fn drop(&mut self) {
        self.held = None;
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's own reference is the last one: nobody holds the lock or waits for it.
        if locks.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn one_key_waits_and_another_does_not() {
        let locks = KeyedLocks::default();
        let first = locks.lock(1).await;
        assert!(tokio::time::timeout(Duration::from_secs(1), locks.lock(1)).await.is_err());
        assert!(tokio::time::timeout(Duration::from_secs(1), locks.lock(2)).await.is_ok());
        drop(first);
        assert!(tokio::time::timeout(Duration::from_secs(1), locks.lock(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_share_a_key_wait_only_for_whom_has_it_alone() {
        let locks = KeyedLocks::default();
        let waits = Duration::from_secs(1);
        let shared = [locks.share(1).await, locks.share(1).await];
        assert!(tokio::time::timeout(waits, locks.lock(1)).await.is_err());
        drop(shared);
        let alone = locks.lock(1).await;
        assert!(tokio::time::timeout(waits, locks.share(1)).await.is_err());
        drop(alone);
        assert!(tokio::time::timeout(waits, locks.share(1)).await.is_ok());
        assert!(locks.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_key_that_nobody_holds_is_forgotten() {
        let locks = KeyedLocks::default();
        drop(locks.lock_all([3, 1, 2, 1]).await);
        assert!(locks.0.lock().unwrap().is_empty());
    }
}
