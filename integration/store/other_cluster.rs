//! Two etcds that one configuration names by mistake.

use countersign::store::{Change, EtcdStore, Expected, Store as _, StoreError};

use crate::harness::etcd::EtcdOptions;
use crate::store::etcd;
use crate::store_contract::{expect, key, next_word, prefix, put};

#[tokio::test]
async fn an_endpoint_of_another_etcd_is_not_used_when_the_first_is_away_and_both_are_named() {
    let (_folder, mut first) = etcd("an_endpoint_of_one_etcd", EtcdOptions::OPEN).await;
    let (_other_folder, other) = etcd("an_endpoint_of_another_etcd", EtcdOptions::OPEN).await;
    let mut settings = first.settings("prod");
    settings.endpoints.extend(other.settings("prod").endpoints);
    let store = EtcdStore::new(&settings);
    let a = key(&["a"]);
    let revision = put(&store, &a, "1", Expected::Absent).await;
    let mut changes = store.follow(&prefix(&[]), revision).await.unwrap();
    first.members[0].server.kill();
    let errors =
        [store.read(&a).await.map(drop).unwrap_err(), store.put(&a, "2".into(), Expected::Absent, None).await.map(drop).unwrap_err(), {
            assert_eq!(next_word(&mut changes).await, Change::Interrupted);
            changes.next().await.unwrap().unwrap_err()
        }];
    for error in errors {
        assert!(matches!(error, StoreError::OtherCluster { .. }) && !error.is_outage(), "{error}");
        let text = error.to_string();
        for said in [first.endpoint(0), other.endpoint(0), "store.endpoints".to_owned()] {
            assert!(text.contains(&said), "{said}: {text}");
        }
    }
    assert_eq!(other.ctl(&["get", "--prefix", "--keys-only", "/"]).await, "", "nothing was written there");
    first.members[0].server.start().await;
    first.has_leader().await;
    assert_eq!(store.read(&a).await.unwrap().unwrap().value, "1");
    let mut changes = store.follow(&prefix(&[]), revision).await.unwrap();
    put(&store, &key(&["b"]), "1", Expected::Absent).await;
    expect(&mut changes, &["b=1"]).await;
}

/// Whoever starts while the first is away takes the other for the right one. It notices when it meets the first.
#[tokio::test]
async fn a_node_that_met_the_other_etcd_first_does_not_use_the_first_one_either() {
    let (_folder, mut first) = etcd("a_node_that_met_one", EtcdOptions::OPEN).await;
    let (_other_folder, mut other) = etcd("a_node_that_met_the_other", EtcdOptions::OPEN).await;
    let mut settings = first.settings("prod");
    settings.endpoints.extend(other.settings("prod").endpoints);
    first.members[0].server.kill();
    let store = EtcdStore::new(&settings);
    put(&store, &key(&["a"]), "1", Expected::Absent).await;
    first.members[0].server.start().await;
    first.has_leader().await;
    other.members[0].server.kill();
    let error = store.read(&key(&["a"])).await.unwrap_err();
    let StoreError::OtherCluster { endpoint, first: known, .. } = &error else { panic!("{error}") };
    assert_eq!((endpoint, known), (&first.endpoint(0), &other.endpoint(0)));
}
