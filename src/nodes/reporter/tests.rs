use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use countersign_trust::mode::Mode;
use tokio::task::JoinHandle;

use super::super::report::tests::report;
use super::*;
use crate::store::limits::MIN_LEASE;
use crate::store::{After, Changes, EmbeddedStore, Entry, Outage, Page, Prefix, Removed, Try};

/// A store that counts what is written, and can be away.
#[derive(Debug)]
struct Watched {
    store: EmbeddedStore,
    is_away: AtomicBool,
    writes: AtomicUsize,
    leases: AtomicUsize,
}

impl Watched {
    fn refuse_while_away(&self) -> Result<(), StoreError> {
        if self.is_away.load(Ordering::SeqCst) {
            Err(StoreError::Unreachable { tries: vec![Try { endpoint: "https://etcd.test:2379".into(), why: Outage::Connect }] })
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl Store for Watched {
    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.store.read(key).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&After>, limit: usize) -> Result<Page, StoreError> {
        self.store.list(prefix, after, limit).await
    }

    async fn list_keys(&self, prefix: &Prefix, after: Option<&After>, limit: usize) -> Result<Page, StoreError> {
        self.store.list_keys(prefix, after, limit).await
    }

    async fn put(&self, key: &Key, value: Bytes, expected: Expected, lease: Option<&Lease>) -> Result<Put, StoreError> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.refuse_while_away()?;
        self.store.put(key, value, expected, lease).await
    }

    async fn remove(&self, key: &Key, revision: Revision) -> Result<Removed, StoreError> {
        self.store.remove(key, revision).await
    }

    async fn follow(&self, prefix: &Prefix, from: Revision) -> Result<Changes, StoreError> {
        self.store.follow(prefix, from).await
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.leases.fetch_add(1, Ordering::SeqCst);
        self.refuse_while_away()?;
        self.store.lease(ttl).await
    }
}

struct Bench {
    _folder: tempfile::TempDir,
    store: Arc<Watched>,
    says: Arc<Mutex<Option<Report>>>,
    running: JoinHandle<()>,
}

fn bench(says: Option<Report>, is_away: bool) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&folder.path().join("store")).unwrap();
    let (is_away, writes, leases) = (AtomicBool::new(is_away), AtomicUsize::new(0), AtomicUsize::new(0));
    let store = Arc::new(Watched { store, is_away, writes, leases });
    let says = Arc::new(Mutex::new(says));
    let told = Arc::clone(&says);
    let pace = Pace { life: MIN_LEASE, look_every: Duration::from_millis(5) };
    let reporter = Reporter::new(store.clone(), Arc::new(move || told.lock().unwrap().clone()), pace);
    Bench { _folder: folder, store, says, running: tokio::spawn(reporter.run()) }
}

impl Bench {
    async fn there(&self) -> Option<Report> {
        let key = Report::key("node-1").unwrap();
        let entry = self.store.read(&key).await.unwrap()?;
        Report::decode(&key, &entry.value).ok().map(|(report, _)| report)
    }

    async fn until(&self, wanted: Option<&Report>) {
        for _ in 0..5000 {
            if self.there().await.as_ref() == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("it never came");
    }
}

#[tokio::test]
async fn a_report_is_written_when_it_says_something_else_and_not_before() {
    let bench = bench(None, false);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(bench.store.leases.load(Ordering::SeqCst), 0, "nothing is known yet");
    let first = report("node-1");
    *bench.says.lock().unwrap() = Some(first.clone());
    bench.until(Some(&first)).await;
    *bench.says.lock().unwrap() = Some(Report { since: countersign_trust::time::UnixTime::from_seconds(1_900_000_000), ..first.clone() });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bench.store.writes.load(Ordering::SeqCst), 1, "only the moment is another");
    let second = Report { mode: Mode::Permissive, ..first };
    *bench.says.lock().unwrap() = Some(second.clone());
    bench.until(Some(&second)).await;
    assert_eq!((bench.store.writes.load(Ordering::SeqCst), bench.store.leases.load(Ordering::SeqCst)), (2, 1));
}

#[tokio::test]
async fn the_report_of_a_node_that_ends_is_gone() {
    let bench = bench(Some(report("node-1")), false);
    bench.until(Some(&report("node-1"))).await;
    bench.running.abort();
    bench.until(None).await;
}

#[tokio::test]
async fn a_node_whose_store_was_away_tells_afterwards_and_does_not_ask_without_a_pause() {
    let bench = bench(Some(report("node-1")), true);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.store.leases.load(Ordering::SeqCst), 1, "the first wait is a second");
    bench.store.is_away.store(false, Ordering::SeqCst);
    bench.until(Some(&report("node-1"))).await;
    bench.store.is_away.store(true, Ordering::SeqCst);
    let other = Report { mode: Mode::Permissive, ..report("node-1") };
    *bench.says.lock().unwrap() = Some(other.clone());
    tokio::time::sleep(Duration::from_millis(100)).await;
    bench.store.is_away.store(false, Ordering::SeqCst);
    bench.until(Some(&other)).await;
    assert_eq!(bench.store.leases.load(Ordering::SeqCst), 2, "the lease was not lost by it");
}

#[tokio::test]
async fn what_stands_in_the_place_of_a_report_is_replaced_before_and_after() {
    let bench = bench(None, false);
    let key = Report::key("node-1").unwrap();
    bench.store.store.put(&key, "of before a restart".into(), Expected::Absent, None).await.unwrap();
    *bench.says.lock().unwrap() = Some(report("node-1"));
    bench.until(Some(&report("node-1"))).await;
    let there = bench.store.read(&key).await.unwrap().unwrap();
    bench.store.store.put(&key, "of a node of the same name".into(), Expected::Revision(there.revision), None).await.unwrap();
    let other = Report { mode: Mode::Permissive, ..report("node-1") };
    *bench.says.lock().unwrap() = Some(other.clone());
    bench.until(Some(&other)).await;
}

#[test]
fn waits_differ_by_a_quarter_at_most() {
    let wait = Duration::from_secs(8);
    let waits: Vec<Duration> = (0..100).map(|_| with_jitter(wait)).collect();
    assert!(waits.iter().all(|one| (Duration::from_secs(6)..=wait).contains(one)), "{waits:?}");
    assert!(waits.iter().any(|one| *one != waits[0]));
}

#[test]
fn an_idle_node_asks_the_store_for_little() {
    use crate::store::limits::RENEWALS_PER_LIFE;
    assert!(Pace::default().life / RENEWALS_PER_LIFE >= Duration::from_secs(10));
}
