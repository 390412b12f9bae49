//! The embedded store: the contract that every store keeps, and what a file may suffer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "store/contract.rs"]
mod contract;

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use contract::{expect, key, prefix, put};
use countersign::store::limits::{HISTORY_ENTRIES, MAX_VALUE_BYTES, MIN_LEASE};
use countersign::store::{Changes, EmbeddedStore, Expected, Prefix, Put, Revision, Store, StoreError, list_all};

fn open(directory: &Path) -> EmbeddedStore {
    EmbeddedStore::open(directory).unwrap()
}

/// Opens it when the calls of the one before have ended.
async fn reopen(directory: &Path) -> EmbeddedStore {
    loop {
        match EmbeddedStore::open(directory) {
            Ok(store) => return store,
            Err(StoreError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn end_of(mut changes: Changes) -> Option<StoreError> {
    loop {
        match changes.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Some(error),
            None => return None,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    contract::is_kept_by(Arc::new(open(&directory.path().join("store")))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store_keeps_the_contract_after_it_was_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("store");
    let revision = put(&open(&place), &key(&["before"]), "v", Expected::Absent).await;
    let store = reopen(&place).await;
    assert!(put(&store, &key(&["after"]), "v", Expected::Absent).await > revision);
    contract::is_kept_by(Arc::new(store)).await;
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart_and_what_stood_under_a_lease_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("store");
    let store = open(&place);
    let lease = store.lease(MIN_LEASE).await.unwrap();
    let kept = put(&store, &key(&["kept"]), "v", Expected::Absent).await;
    let Ok(Put::Done(held)) = store.put(&key(&["held"]), "v".into(), Expected::Absent, Some(&lease)).await else { panic!("not written") };
    // As a crash leaves it: the lease is not given back.
    std::mem::forget(lease);
    drop(store);
    let store = reopen(&place).await;
    let listing = list_all(&store, &Prefix::all()).await.unwrap();
    let [(only, entry)] = &listing.entries[..] else { panic!("{listing:?}") };
    assert_eq!((only, entry.revision), (&key(&["kept"]), kept));
    assert!(listing.revision > held, "its removal is a revision, too");
    let before = store.follow(&Prefix::all(), held).await;
    assert!(matches!(before, Err(StoreError::Compacted { .. })), "nothing is remembered of the time before: {before:?}");
    assert!(store.follow(&Prefix::all(), listing.revision).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_falls_behind_the_remembered_changes_is_told_to_list_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("store"));
    let mut revision = put(&store, &key(&["a"]), "v", Expected::Absent).await;
    let slow = store.follow(&Prefix::all(), revision).await.unwrap();
    // Not below its prefix: it is never behind.
    let mut quick = store.follow(&prefix(&["other"]), revision).await.unwrap();
    let begin = revision;
    for _ in 0..HISTORY_ENTRIES + 8 {
        revision = put(&store, &key(&["a"]), "v", Expected::Revision(revision)).await;
    }
    assert!(matches!(end_of(slow).await, Some(StoreError::Compacted { .. })));
    assert!(matches!(store.follow(&Prefix::all(), begin).await, Err(StoreError::Compacted { .. })));
    put(&store, &key(&["other", "x"]), "v", Expected::Absent).await;
    expect(&mut quick, &["other/x=v"]).await;
}

#[tokio::test]
async fn a_store_that_goes_ends_its_watches_and_leases() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("store"));
    let changes = store.follow(&Prefix::all(), Revision::new(0)).await.unwrap();
    let lease = store.lease(MIN_LEASE).await.unwrap();
    drop(store);
    assert_eq!(end_of(changes).await, None);
    lease.lost().await;
    assert!(lease.is_lost());
}

#[test]
fn only_its_owner_may_read_it_and_only_one_process_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("store");
    let store = open(&place);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&place), mode(&place.join("store.redb"))), (0o700, 0o600));
    let error = EmbeddedStore::open(&place).unwrap_err();
    assert_eq!(error, StoreError::InUse { path: place.join("store.redb") });
    drop(store);
    fs::write(place.join("store.redb.new"), "left by a crash").unwrap();
    open(&place);
    let missing = EmbeddedStore::open(&place.join("no/where")).unwrap_err();
    assert!(matches!(missing, StoreError::Directory { .. }), "{missing}");
}

#[tokio::test]
async fn a_file_that_is_not_what_was_written_is_an_error_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("store");
    let file = place.join("store.redb");
    let revision = put(&open(&place), &key(&["a"]), &"v".repeat(3000), Expected::Absent).await;
    assert_eq!(revision, Revision::new(1));
    drop(reopen(&place).await);
    let good = fs::read(&file).unwrap();
    let mut flipped = good.clone();
    let at = good.windows(64).position(|window| window == [b'v'; 64]).unwrap();
    flipped[at] ^= 1;
    for (what, bytes) in [("empty", &b""[..]), ("cut", &good[..good.len() / 2]), ("text", b"this is no database"), ("flipped", &flipped)] {
        fs::write(&file, bytes).unwrap();
        let error = EmbeddedStore::open(&place).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }) && error.to_string().contains("move it away"), "{what}: {error}");
        assert!(!error.is_outage(), "{what}");
        assert_eq!(fs::read(&file).unwrap(), bytes, "{what}: nothing was made of it");
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(open(&place).read(&key(&["a"])).await, Ok(None), "a new one can be made");
}

/// A disk that fails, for once: what is in the file may not be what was told.
#[tokio::test]
async fn a_file_that_is_damaged_while_it_is_open_is_noticed_and_ends_what_follows_it() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("store");
    let (file, other) = (place.join("store.redb"), directory.path().join("other"));
    let store = open(&place);
    let big = Bytes::from(vec![b'v'; MAX_VALUE_BYTES]);
    for number in 0..40 {
        store.put(&key(&["big", &number.to_string()]), big.clone(), Expected::Absent, None).await.unwrap();
    }
    let revision = put(&store, &key(&["a"]), "v", Expected::Absent).await;
    let changes = store.follow(&Prefix::all(), revision).await.unwrap();
    // More than redb keeps in memory, so that it has to look.
    let zeros = vec![0; fs::metadata(&file).unwrap().len() as usize - 8192];
    fs::OpenOptions::new().write(true).open(&file).unwrap().write_all_at(&zeros, 8192).unwrap();
    let mut errors = Vec::new();
    for number in 0..40 {
        errors.extend(store.read(&key(&["big", &number.to_string()])).await.err());
    }
    // redb may give up in the middle of a call.
    let is_told = |error: &StoreError| matches!(error, StoreError::Damaged { .. } | StoreError::Disk { .. });
    assert!(!errors.is_empty() && errors.iter().all(is_told), "{errors:?}");
    let error = store.read(&key(&["a"])).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "it is not taken for an empty one: {error}");
    // An operator moves it away. It is not looked at with every call, since each look reads all of it.
    fs::rename(&file, &other).unwrap();
    let mended = async {
        while store.read(&key(&["a"])).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), mended).await.expect("a new one is made");
    assert_eq!(store.read(&key(&["a"])).await, Ok(None));
    assert_eq!(end_of(changes).await, Some(StoreError::Compacted { from: revision.number() }));
    put(&store, &key(&["a"]), "v", Expected::Absent).await;
}

#[tokio::test]
async fn a_database_of_another_kind_or_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store.redb");
    let table: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("countersign-store");
    for (rows, said) in [(&[][..], "another kind"), (&[("format", 2)], "format 2"), (&[("format", 1)], "no revision")] {
        let _ = fs::remove_file(&file);
        let database = redb::Database::create(&file).unwrap();
        let transaction = database.begin_write().unwrap();
        for (key, value) in rows {
            transaction.open_table(table).unwrap().insert(key, value).unwrap();
        }
        transaction.commit().unwrap();
        drop(database);
        let error = EmbeddedStore::open(directory.path()).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }) && error.to_string().contains(said), "{error}");
    }
}
