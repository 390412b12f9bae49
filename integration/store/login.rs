//! Users of etcd's authentication.

use countersign::store::{EtcdStore, Expected, LoginFault, Store as _, StoreError};

use crate::harness::etcd::EtcdOptions;
use crate::store::etcd;
use crate::store_contract::{expect, key, prefix, put};

#[tokio::test]
async fn a_user_gets_in_with_the_right_password_only_and_into_its_own_key_space_only() {
    let (_folder, etcd) = etcd("a_user_gets_in", EtcdOptions::OPEN).await;
    etcd.demand_users("prod").await;
    let a = key(&["a"]);
    let store = EtcdStore::new(&etcd.settings_of("prod", "node", "node-secret"));
    put(&store, &a, "v", Expected::Absent).await;
    assert_eq!(store.read(&a).await.unwrap().unwrap().value, "v");

    let login = |why| StoreError::Login { why };
    for (user, password) in [("node", "guessed-secret"), ("nobody", "node-secret")] {
        let error = EtcdStore::new(&etcd.settings_of("prod", user, password)).read(&a).await.unwrap_err();
        assert_eq!(error, login(LoginFault::Refused), "{user}");
        assert!(!error.is_outage() && !error.to_string().contains(password), "{error}");
    }
    assert_eq!(etcd.store("prod").read(&a).await, Err(login(LoginFault::UserWanted)));
    let of_others = EtcdStore::new(&etcd.settings_of("other", "node", "node-secret"));
    assert_eq!(of_others.read(&a).await, Err(StoreError::Forbidden { prefix: "/countersign/other/".to_owned() }));
}

#[tokio::test]
async fn a_user_where_none_is_demanded_is_told_since_anybody_could_write() {
    let (_folder, etcd) = etcd("a_user_where_none_is_demanded", EtcdOptions::OPEN).await;
    let error = EtcdStore::new(&etcd.settings_of("prod", "node", "node-secret")).read(&key(&["a"])).await.unwrap_err();
    assert_eq!(error, StoreError::Login { why: LoginFault::NotEnabled });
}

/// etcd forgets its tokens when it ends.
#[tokio::test]
async fn a_token_that_has_run_out_is_renewed_with_the_password_that_the_file_has_then() {
    let (_folder, mut etcd) = etcd("a_token_that_has_run_out", EtcdOptions::OPEN).await;
    etcd.demand_users("prod").await;
    let store = EtcdStore::new(&etcd.settings_of("prod", "node", "node-secret"));
    let revision = put(&store, &key(&["a"]), "1", Expected::Absent).await;
    let mut changes = store.follow(&prefix(&[]), revision).await.unwrap();
    etcd.members[0].server.kill();
    etcd.members[0].server.start().await;
    etcd.has_leader().await;
    let second = put(&store, &key(&["a"]), "2", Expected::Revision(revision)).await;
    expect(&mut changes, &["a=2"]).await;
    // The user is another one with the same name: its old tokens are worth nothing.
    etcd.ctl_as_root(&["user", "delete", "node"]).await;
    etcd.ctl_as_root(&["user", "add", "node:new-secret"]).await;
    etcd.ctl_as_root(&["user", "grant-role", "node", "countersign"]).await;
    assert_eq!(store.read(&key(&["a"])).await, Err(StoreError::Login { why: LoginFault::Refused }));
    etcd.settings_of("prod", "node", "new-secret");
    put(&store, &key(&["a"]), "3", Expected::Revision(second)).await;
}
