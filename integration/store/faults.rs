//! Members that die, hang and forget.

use std::time::Duration;

use countersign::store::limits::{CALL_DEADLINE, MIN_LEASE};
use countersign::store::{Change, EtcdStore, Expected, Outage, Put, Store as _, StoreError};

use crate::harness::etcd::EtcdOptions;
use crate::harness::process::Port;
use crate::store::etcd;
use crate::store_contract::{expect, key, next_word, prefix, put};

/// Far longer than the deadline: on a busy machine nothing is punctual, and without a deadline it would be for ever.
const BOUNDED: Duration = CALL_DEADLINE.saturating_mul(6);

async fn bounded<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUNDED, call).await.expect("the call does not end")
}

#[tokio::test]
async fn without_a_quorum_every_call_ends_as_an_outage_that_names_the_endpoints_and_goes_on_after_it() {
    let (_folder, mut etcd) = etcd("without_a_quorum", EtcdOptions::THREE).await;
    let store = etcd.store("prod");
    let a = key(&["a"]);
    let revision = put(&store, &a, "1", Expected::Absent).await;
    for at in [0, 1] {
        etcd.members[at].server.kill();
    }
    let endpoints: Vec<String> = (0..3).map(|at| etcd.endpoint(at)).collect();
    let errors = [
        bounded(store.read(&a)).await.map(drop).unwrap_err(),
        bounded(store.list(&prefix(&[]), None, 1)).await.map(drop).unwrap_err(),
        bounded(store.put(&a, "2".into(), Expected::Revision(revision), None)).await.map(drop).unwrap_err(),
        bounded(store.lease(MIN_LEASE)).await.map(drop).unwrap_err(),
        bounded(etcd.store("prod").follow(&prefix(&[]), revision)).await.map(drop).unwrap_err(),
    ];
    for error in errors {
        let StoreError::Unreachable { tries } = &error else { panic!("{error}") };
        assert!(error.is_outage() && endpoints.iter().all(|endpoint| error.to_string().contains(endpoint)), "{error}");
        assert!(tries.iter().any(|tried| matches!(tried.why, Outage::Timeout | Outage::Said(_))), "the third one is there: {error}");
    }
    etcd.members[0].server.start().await;
    etcd.has_leader().await;
    let there = bounded(store.read(&a)).await.unwrap().unwrap();
    // The lost write may have been done, and then as it was wanted.
    assert!(there.value == "1" || there.value == "2", "{there:?}");
}

#[tokio::test]
async fn a_member_that_dies_while_it_is_watched_loses_no_change() {
    let (_folder, mut etcd) = etcd("a_member_that_dies", EtcdOptions::THREE).await;
    let (store, writer) = (etcd.store("prod"), etcd.store("prod"));
    let revision = put(&store, &key(&["w", "0"]), "0", Expected::Absent).await;
    let mut changes = store.follow(&prefix(&["w"]), revision).await.unwrap();
    put(&store, &key(&["w", "1"]), "1", Expected::Absent).await;
    expect(&mut changes, &["w/1=1"]).await;
    // Both are at the first member.
    etcd.members[0].server.kill();
    for number in 2..10 {
        put(&writer, &key(&["w", &number.to_string()]), "v", Expected::Absent).await;
    }
    for word in [Change::Interrupted, Change::Resumed] {
        assert_eq!(next_word(&mut changes).await, word);
    }
    let expected: Vec<String> = (2..10).map(|number| format!("w/{number}=v")).collect();
    expect(&mut changes, &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    etcd.members[0].server.start().await;
    etcd.has_leader().await;
    let leader = etcd.leader().await;
    etcd.members[leader].server.kill();
    put(&writer, &key(&["w", "x"]), "v", Expected::Absent).await;
    expect(&mut changes, &["w/x=v"]).await;
}

/// A member that is stopped keeps its connections: only signs of life tell.
#[tokio::test]
async fn a_member_that_hangs_is_left_for_another_by_calls_and_watches() {
    let (_folder, etcd) = etcd("a_member_that_hangs", EtcdOptions::THREE).await;
    let store = etcd.store("prod");
    let revision = put(&store, &key(&["h", "0"]), "0", Expected::Absent).await;
    let mut changes = store.follow(&prefix(&["h"]), revision).await.unwrap();
    etcd.members[0].server.pause();
    bounded(put(&store, &key(&["h", "1"]), "1", Expected::Absent)).await;
    bounded(expect(&mut changes, &["h/1=1"])).await;
    etcd.members[0].server.resume();
}

#[tokio::test]
async fn an_endpoint_where_nobody_listens_or_answers_is_passed_over() {
    let (_folder, etcd) = etcd("an_endpoint_where_nobody_listens", EtcdOptions::OPEN).await;
    let unused = Port::free();
    // It takes connections, and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = etcd.settings("prod");
    for port in [unused.number(), silent.local_addr().unwrap().port()] {
        settings.endpoints.insert(0, format!("http://127.0.0.1:{port}").parse().unwrap());
    }
    settings.endpoints.insert(0, "http://no-such-host.invalid:2379".parse().unwrap());
    let store = EtcdStore::new(&settings);
    bounded(put(&store, &key(&["a"]), "v", Expected::Absent)).await;
    settings.endpoints.pop();
    let error = bounded(EtcdStore::new(&settings).read(&key(&["a"]))).await.unwrap_err();
    let StoreError::Unreachable { tries } = &error else { panic!("{error}") };
    assert_eq!(tries.iter().map(|tried| &tried.why).collect::<Vec<_>>(), [&Outage::Name, &Outage::Timeout, &Outage::Connect], "{error}");
}

#[tokio::test]
async fn after_a_compaction_whoever_follows_from_before_it_is_told_to_list_again() {
    let (_folder, mut etcd) = etcd("after_a_compaction", EtcdOptions::OPEN).await;
    let (store, writer) = (etcd.store("prod"), etcd.store("prod"));
    let first = put(&store, &key(&["c"]), "1", Expected::Absent).await;
    let mut live = store.follow(&prefix(&[]), first).await.unwrap();
    let mut revision = put(&store, &key(&["c"]), "2", Expected::Revision(first)).await;
    expect(&mut live, &["c=2"]).await;
    revision = put(&store, &key(&["c"]), "3", Expected::Revision(revision)).await;
    etcd.compact().await;
    let told = match store.follow(&prefix(&[]), first).await {
        Ok(mut changes) => bounded(changes.next()).await.unwrap().unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(told, StoreError::Compacted { from: first.number() });
    // One that has kept up is not concerned.
    expect(&mut live, &["c=3"]).await;
    // Nor when it is cut off after that.
    etcd.members[0].server.kill();
    etcd.members[0].server.start().await;
    etcd.has_leader().await;
    revision = put(&writer, &key(&["c"]), "4", Expected::Revision(revision)).await;
    expect(&mut live, &["c=4"]).await;
    let page = store.list(&prefix(&[]), None, 10).await.unwrap();
    let mut again = store.follow(&prefix(&[]), page.revision).await.unwrap();
    put(&writer, &key(&["c"]), "5", Expected::Revision(revision)).await;
    expect(&mut again, &["c=5"]).await;
}

#[tokio::test]
async fn a_watch_that_was_cut_off_while_changes_were_forgotten_says_so() {
    let (_folder, mut etcd) = etcd("a_watch_that_was_cut_off", EtcdOptions::THREE).await;
    // The watch knows the first member alone, and the others go on without it.
    let mut settings = etcd.settings("prod");
    settings.endpoints.truncate(1);
    let (store, writer) = (EtcdStore::new(&settings), etcd.store("prod"));
    let mut revision = put(&store, &key(&["c"]), "1", Expected::Absent).await;
    let mut changes = store.follow(&prefix(&[]), revision).await.unwrap();
    let seen = revision.number();
    etcd.members[0].server.kill();
    for value in ["2", "3", "4"] {
        revision = put(&writer, &key(&["c"]), value, Expected::Revision(revision)).await;
    }
    let status = etcd.ctl(&["get", "x", "--write-out=json"]).await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    etcd.ctl(&["compact", &status["header"]["revision"].to_string()]).await;
    etcd.members[0].server.start().await;
    etcd.has_leader().await;
    assert_eq!(bounded(changes.next()).await, Some(Ok(Change::Interrupted)), "what is held may be out of date from here on");
    let mut told = bounded(changes.next()).await;
    if told == Some(Ok(Change::Resumed)) {
        // etcd may take the watch before it says what became of it.
        told = bounded(changes.next()).await;
    }
    assert_eq!(told, Some(Err(StoreError::Compacted { from: seen })));
    assert_eq!(changes.next().await, None, "an error is the end");
}

#[tokio::test]
async fn a_lease_that_cannot_be_renewed_is_lost_and_what_stood_under_it_goes() {
    let (_folder, etcd) = etcd("a_lease_that_cannot_be_renewed", EtcdOptions::OPEN).await;
    let (store, other) = (etcd.store("prod"), etcd.store("prod"));
    let held = key(&["held"]);
    let lease = store.lease(MIN_LEASE).await.unwrap();
    let Ok(Put::Done(_)) = store.put(&held, "h".into(), Expected::Absent, Some(&lease)).await else { panic!("not written") };
    // Longer than a life: it is renewed.
    tokio::time::sleep(MIN_LEASE + Duration::from_secs(2)).await;
    assert!(!lease.is_lost() && other.read(&held).await.unwrap().is_some());
    etcd.members[0].server.pause();
    bounded(lease.lost()).await;
    assert!(lease.is_lost());
    etcd.members[0].server.resume();
    etcd.has_leader().await;
    let error = store.put(&key(&["more"]), "v".into(), Expected::Absent, Some(&lease)).await.unwrap_err();
    assert_eq!(error, StoreError::LeaseLost);
    let gone = async {
        while other.read(&held).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    bounded(gone).await;
}

#[tokio::test]
async fn a_lease_that_an_operator_takes_away_is_lost() {
    let (_folder, etcd) = etcd("a_lease_that_an_operator_takes_away", EtcdOptions::OPEN).await;
    let store = etcd.store("prod");
    let lease = store.lease(MIN_LEASE).await.unwrap();
    let listed = etcd.ctl(&["lease", "list"]).await;
    let number = listed.lines().last().unwrap().trim();
    etcd.ctl(&["lease", "revoke", number]).await;
    let error = store.put(&key(&["a"]), "v".into(), Expected::Absent, Some(&lease)).await.unwrap_err();
    assert_eq!(error, StoreError::LeaseLost, "etcd says so before the renewal does");
    bounded(lease.lost()).await;
}
