//! What others may have written into etcd.

use bytes::Bytes;
use countersign::store::limits::{MAX_PAGE_ENTRIES, MAX_VALUE_BYTES};
use countersign::store::{Change, Expected, Removed, Store as _, StoreError, UnusableValue, list_all};

use crate::harness::etcd::EtcdOptions;
use crate::store::etcd;
use crate::store_contract::{expect, key, next, prefix, put};

/// As much as etcd takes by default.
const GIANT: usize = 1_500_000;

#[tokio::test]
async fn a_giant_value_is_named_and_hides_nothing_beside_it() {
    let (_folder, etcd) = etcd("a_giant_value", EtcdOptions::OPEN).await;
    let store = etcd.store("prod");
    let revision = put(&store, &key(&["pins", "a"]), "v", Expected::Absent).await;
    let mut changes = store.follow(&prefix(&["pins"]), revision).await.unwrap();
    // Together they are longer than an answer may be.
    for number in 0..8 {
        etcd.put_file(&format!("/countersign/prod/k/pins/giant{number}"), &vec![b'g'; GIANT]).await;
    }
    put(&store, &key(&["pins", "z"]), "v", Expected::Absent).await;

    let giant = key(&["pins", "giant0"]);
    let too_large = StoreError::TooLarge { key: "pins/giant0".into(), limit: MAX_VALUE_BYTES };
    assert_eq!(store.read(&giant).await, Err(too_large.clone()));
    assert_eq!(store.put(&giant, "mine".into(), Expected::Absent, None).await, Err(too_large), "it is not overwritten");
    let listing = list_all(&store, &prefix(&["pins"])).await.unwrap();
    assert_eq!(listing.entries.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>(), ["pins/a", "pins/z"]);
    assert_eq!(listing.unusable.len(), 8);
    assert!(listing.unusable.iter().all(|unusable| unusable.why == UnusableValue::TooLarge), "{:?}", listing.unusable);
    for _ in 0..8 {
        let Change::Unusable(unusable) = next(&mut changes).await else { panic!("a giant was expected") };
        assert_eq!(unusable.why, UnusableValue::TooLarge);
    }
    expect(&mut changes, &["pins/z=v"]).await;
    // Whoever may write can remove it by its revision.
    assert_eq!(store.remove(&giant, listing.unusable[0].revision).await, Ok(Removed::Done));
    assert_eq!(store.read(&giant).await, Ok(None));
}

#[tokio::test]
async fn what_this_program_did_not_write_is_an_error_and_is_not_overwritten() {
    let (_folder, etcd) = etcd("what_this_program_did_not_write", EtcdOptions::OPEN).await;
    let store = etcd.store("prod");
    let revision = put(&store, &key(&["a"]), "v", Expected::Absent).await;
    let mut changes = store.follow(&prefix(&[]), revision).await.unwrap();
    etcd.ctl(&["put", "/countersign/prod/k/a", "hijacked"]).await;
    etcd.ctl(&["put", "/countersign/prod/k/b c", "no key"]).await;
    let a = key(&["a"]);
    assert_eq!(store.read(&a).await, Err(StoreError::Foreign { key: "a".into() }));
    for expected in [Expected::Absent, Expected::Revision(revision)] {
        assert_eq!(store.put(&a, "mine".into(), expected, None).await, Err(StoreError::Foreign { key: "a".into() }));
    }
    assert_eq!(etcd.ctl(&["get", "--print-value-only", "/countersign/prod/k/a"]).await, "hijacked\n");
    let listing = list_all(&store, &prefix(&[])).await.unwrap();
    assert!(listing.entries.is_empty());
    assert_eq!(
        listing.unusable.iter().map(|one| (one.key.as_str(), one.why)).collect::<Vec<_>>(),
        [("a", UnusableValue::Foreign), ("b c", UnusableValue::Key),]
    );
    expect(&mut changes, &["!a", "!b c"]).await;
}

#[tokio::test]
async fn a_key_space_that_holds_something_else_is_refused_and_left_as_it_is() {
    let (_folder, etcd) = etcd("a_key_space_that_holds_something_else", EtcdOptions::OPEN).await;
    etcd.ctl(&["put", "/countersign/taken/somebody", "else"]).await;
    etcd.ctl(&["put", "/countersign/newer/format", "countersign store 2 newer"]).await;
    let a = key(&["a"]);
    for (cluster, found) in [("taken", "/countersign/taken/somebody"), ("newer", "countersign store 2 newer")] {
        let error = etcd.store(cluster).put(&a, "v".into(), Expected::Absent, None).await.unwrap_err();
        assert!(matches!(error, StoreError::KeySpace { .. }) && !error.is_outage(), "{error}");
        assert!(error.to_string().contains(found) && error.to_string().contains("store.cluster"), "{error}");
    }
    let keys = etcd.ctl(&["get", "--prefix", "--keys-only", "/"]).await;
    assert_eq!(keys.split_whitespace().collect::<Vec<_>>(), ["/countersign/newer/format", "/countersign/taken/somebody"]);
    // An empty one becomes ours, also when many claim it at once.
    let claims: Vec<_> =
        (0..20).map(|_| etcd.store("free")).map(|store| tokio::spawn(async move { store.read(&key(&["a"])).await })).collect();
    for claim in claims {
        assert_eq!(claim.await.unwrap(), Ok(None));
    }
    assert_eq!(etcd.ctl(&["get", "--print-value-only", "/countersign/free/format"]).await, "countersign store 1 free\n");
}

#[tokio::test]
async fn clusters_and_other_tenants_of_one_etcd_do_not_see_each_other() {
    let (_folder, etcd) = etcd("clusters_and_other_tenants", EtcdOptions::OPEN).await;
    let (prod, prod2) = (etcd.store("prod"), etcd.store("prod2"));
    let revision = put(&prod, &key(&["a"]), "of prod", Expected::Absent).await;
    let mut changes = prod.follow(&prefix(&[]), revision).await.unwrap();
    put(&prod2, &key(&["a"]), "of prod2", Expected::Absent).await;
    etcd.ctl(&["put", "/countersign/prod", "x"]).await;
    etcd.ctl(&["put", "/countersign/prod/l", "x"]).await;
    etcd.ctl(&["put", "/registry/pods/a", "x"]).await;
    put(&prod, &key(&["b"]), "v", Expected::Absent).await;
    expect(&mut changes, &["b=v"]).await;
    let listing = list_all(&prod, &prefix(&[])).await.unwrap();
    assert_eq!((listing.entries.len(), listing.unusable.len()), (2, 0));
    assert_eq!(prod2.read(&key(&["a"])).await.unwrap().unwrap().value, "of prod2");
}

#[tokio::test]
async fn many_long_values_come_in_more_pages() {
    let (_folder, etcd) = etcd("many_long_values", EtcdOptions::OPEN).await;
    let store = etcd.store("prod");
    for number in 0..40 {
        let key = key(&["long", &format!("{number:02}")]);
        store.put(&key, Bytes::from(vec![1; MAX_VALUE_BYTES]), Expected::Absent, None).await.unwrap();
    }
    let page = store.list(&prefix(&["long"]), None, MAX_PAGE_ENTRIES).await.unwrap();
    assert!(!page.entries.is_empty() && page.entries.len() < 16 && page.next.is_some(), "{} entries", page.entries.len());
    assert_eq!(list_all(&store, &prefix(&["long"])).await.unwrap().entries.len(), 40);
}
