//! The store on a real etcd: the contract, and what a network, an operator and an attacker may do to it.

mod faults;
mod hostile;
mod login;
mod nodes;
mod other_cluster;
mod tls;

use std::sync::Arc;

use super::harness::etcd::{Etcd, EtcdOptions};
use super::harness::folder::Folder;
use super::store_contract as contract;

/// A test's folder, and an etcd in it.
async fn etcd(test: &str, options: EtcdOptions) -> (Folder, Etcd) {
    let folder = Folder::new(test);
    let etcd = Etcd::start(&folder, options).await;
    (folder, etcd)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_etcd_keeps_the_contract() {
    let (_folder, etcd) = etcd("one_etcd_keeps_the_contract", EtcdOptions::OPEN).await;
    contract::is_kept_by(Arc::new(etcd.store("prod"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_with_tls_and_client_certificates_keep_the_contract() {
    let (_folder, etcd) = etcd("three_members_keep_the_contract", EtcdOptions::THREE).await;
    contract::is_kept_by(Arc::new(etcd.store("prod"))).await;
}

/// Each writer is a node of its own, with connections of its own.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_nodes_that_write_one_key_at_once_one_wins_and_all_learn_who() {
    use bytes::Bytes;
    use countersign::store::{Expected, Put, Store as _};
    let (_folder, etcd) = etcd("a_hundred_nodes", EtcdOptions::THREE).await;
    let key = contract::key(&["race", "of", "nodes"]);
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            let (store, key) = (etcd.store("prod"), key.clone());
            tokio::spawn(async move { (number, store.put(&key, Bytes::from(format!("{number}")), Expected::Absent, None).await.unwrap()) })
        })
        .collect();
    let (mut winners, mut told) = (Vec::new(), Vec::new());
    for task in tasks {
        match task.await.unwrap() {
            (number, Put::Done(_)) => winners.push(number.to_string()),
            (_, Put::Lost(there)) => told.push(there.unwrap().value),
        }
    }
    assert_eq!((winners.len(), told.len()), (1, 99));
    assert!(told.iter().all(|value| *value == winners[0]), "{told:?}");
}
