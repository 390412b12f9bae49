//! For tests: nodes of a cluster on one store that can be taken away, with signatures that only it can make, and a clock that is set.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_trust::name::Sha256;
use countersign_trust::time::UnixTime;

use super::pin::tests::NOW;
use super::sharing::Sharing;
use super::vouch::Vouching;
use crate::clock::{Clock, ClockError};
use crate::store::{
    After, Changes, EmbeddedStore, Entry, Expected, Key, Lease, Outage, Page, Prefix, Put, Removed, Revision as Moment, Store, StoreError,
    Try,
};

/// The members of a cluster. The signature of a node is a hash with a secret that only this type knows.
#[derive(Debug, Default)]
pub(in crate::resolve) struct Cluster(Mutex<(u64, HashMap<String, u32>)>);

impl Cluster {
    pub(in crate::resolve) fn of(nodes: &[&str]) -> Arc<Self> {
        let cluster = Arc::new(Self::default());
        nodes.iter().for_each(|node| cluster.enroll(node, 1));
        cluster
    }

    pub(in crate::resolve) fn enroll(&self, node: &str, secret: u32) {
        let mut members = self.0.lock().unwrap();
        members.0 += 1;
        members.1.insert(node.to_owned(), secret);
    }

    pub(in crate::resolve) fn remove(&self, node: &str) {
        let mut members = self.0.lock().unwrap();
        members.0 += 1;
        members.1.remove(node);
    }

    pub(in crate::resolve) fn signature(&self, node: &str, statement: &[u8]) -> Option<Vec<u8>> {
        let secret = *self.0.lock().unwrap().1.get(node)?;
        Some(Sha256::of(format!("{node} {secret} {}", Sha256::of(statement).to_hex()).as_bytes()).to_hex().into_bytes())
    }
}

#[derive(Debug)]
pub(in crate::resolve) struct Seat {
    cluster: Arc<Cluster>,
    name: &'static str,
    node: &'static str,
}

impl Vouching for Seat {
    fn cluster(&self) -> &str {
        self.name
    }

    fn node(&self) -> &str {
        self.node
    }

    fn serial(&self) -> u64 {
        self.cluster.0.lock().unwrap().0
    }

    fn vouch(&self, statement: &[u8]) -> Result<Vec<u8>, String> {
        self.cluster.signature(self.node, statement).ok_or_else(|| "not enrolled".to_owned())
    }

    fn check(&self, node: &str, statement: &[u8], signature: &[u8]) -> Result<(), String> {
        let right = self.cluster.signature(node, statement).ok_or_else(|| "no member".to_owned())?;
        if right == signature { Ok(()) } else { Err("not its signature".to_owned()) }
    }
}

/// A clock that is set by hand.
#[derive(Debug, Default)]
pub(in crate::resolve) struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Result<UnixTime, ClockError> {
        Ok(NOW.plus_seconds(self.0.load(Ordering::Relaxed)))
    }
}

/// The store of a cluster, and what is wrong with it.
#[derive(Debug)]
pub(in crate::resolve) struct Reachable {
    pub(in crate::resolve) store: EmbeddedStore,
    can_be_reached: AtomicBool,
    reads: AtomicUsize,
    something_else: Mutex<Option<Key>>,
    has_no_end: AtomicBool,
    answers_no_reads: AtomicBool,
}

impl Reachable {
    fn holding(store: EmbeddedStore) -> Self {
        Self {
            store,
            can_be_reached: AtomicBool::new(true),
            reads: AtomicUsize::new(0),
            something_else: Mutex::default(),
            has_no_end: AtomicBool::default(),
            answers_no_reads: AtomicBool::default(),
        }
    }

    /// Below this key stands what this program has not written.
    pub(in crate::resolve) fn holds_something_else(&self, key: &Key) {
        *self.something_else.lock().unwrap() = Some(key.clone());
    }

    fn refuse_something_else(&self, key: &Key) -> Result<(), StoreError> {
        if self.something_else.lock().unwrap().as_ref() == Some(key) { Err(StoreError::Foreign { key: key.to_string() }) } else { Ok(()) }
    }

    /// After each page of keys there is another one, which takes its time.
    pub(in crate::resolve) fn shows_no_end(&self) {
        self.has_no_end.store(true, Ordering::Relaxed);
    }

    /// It goes away before each read, and is back after it.
    pub(in crate::resolve) fn answers_no_reads(&self) {
        self.answers_no_reads.store(true, Ordering::Relaxed);
    }

    /// How often somebody has read a key.
    pub(in crate::resolve) fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    pub(in crate::resolve) fn ask(&self) -> Result<&EmbeddedStore, StoreError> {
        if self.can_be_reached.load(Ordering::Relaxed) { Ok(&self.store) } else { Err(unreachable_store()) }
    }
}

fn unreachable_store() -> StoreError {
    StoreError::Unreachable { tries: vec![Try { endpoint: "https://etcd.test:2379".into(), why: Outage::Connect }] }
}

#[async_trait::async_trait]
impl Store for Reachable {
    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.refuse_something_else(key)?;
        if self.answers_no_reads.load(Ordering::Relaxed) {
            return Err(unreachable_store());
        }
        self.ask()?.read(key).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&After>, limit: usize) -> Result<Page, StoreError> {
        self.ask()?.list(prefix, after, limit).await
    }

    async fn list_keys(&self, prefix: &Prefix, after: Option<&After>, limit: usize) -> Result<Page, StoreError> {
        if self.has_no_end.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_secs(1)).await;
            return self.ask()?.list_keys(prefix, None, 1).await;
        }
        self.ask()?.list_keys(prefix, after, limit).await
    }

    async fn put(&self, key: &Key, value: bytes::Bytes, expected: Expected, lease: Option<&Lease>) -> Result<Put, StoreError> {
        self.refuse_something_else(key)?;
        self.ask()?.put(key, value, expected, lease).await
    }

    async fn remove(&self, key: &Key, revision: Moment) -> Result<Removed, StoreError> {
        self.ask()?.remove(key, revision).await
    }

    async fn follow(&self, prefix: &Prefix, from: Moment) -> Result<Changes, StoreError> {
        self.ask()?.follow(prefix, from).await
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.ask()?.lease(ttl).await
    }
}

/// A cluster on one store.
pub(in crate::resolve) struct Town {
    folder: tempfile::TempDir,
    pub(in crate::resolve) store: Arc<Reachable>,
    pub(in crate::resolve) cluster: Arc<Cluster>,
    pub(in crate::resolve) clock: Arc<Hand>,
}

impl Town {
    pub(in crate::resolve) fn of(nodes: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&folder.path().join("cluster")).unwrap();
        Self { folder, store: Arc::new(Reachable::holding(store)), cluster: Cluster::of(nodes), clock: Arc::default() }
    }

    /// What a node needs to share, with an own file that outlives it.
    pub(in crate::resolve) fn sharing(&self, cluster: &'static str, node: &'static str) -> Arc<Sharing> {
        let local = Arc::new(EmbeddedStore::open(&self.folder.path().join(node)).unwrap());
        let seat = Seat { cluster: Arc::clone(&self.cluster), name: cluster, node };
        Arc::new(Sharing::new(Arc::new(seat), local, self.clock.clone()))
    }

    pub(in crate::resolve) fn can_be_reached(&self, can: bool) {
        self.store.can_be_reached.store(can, Ordering::Relaxed);
    }

    pub(in crate::resolve) fn passes(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds, Ordering::Relaxed);
    }

    pub(in crate::resolve) fn now(&self) -> UnixTime {
        self.clock.now().unwrap()
    }
}
