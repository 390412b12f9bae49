//! Nodes on one etcd: each a gate with a containerd of its own. A tag means one digest for each revision on all of them.

mod apart;

use std::time::Duration;

use serde_json::Value;

use super::gate::binary;
use super::harness::containerd::Version;
use super::harness::etcd::EtcdOptions;
use super::harness::town::{CLUSTER, One, REPOSITORY, SOON, Town, Two};

on_every_containerd! {
    a_tag_that_moves_during_a_rollout_means_one_digest_for_each_revision_on_all_nodes,
}

async fn a_tag_that_moves_during_a_rollout_means_one_digest_for_each_revision_on_all_nodes(containerd: Version) {
    let mut town = Town::new(binary(), containerd, "a_tag_that_moves", EtcdOptions::OPEN, ["deny", "deny"]).await;
    assert_eq!(town.prints(One, "5d4f").await, "old\n");
    town.tag_moves_to(&town.new).await;
    assert_eq!(town.prints(Two, "5d4f").await, "old\n", "a replica on a node that has never seen the old one");
    assert_eq!(town.prints(Two, "7c9f").await, "new\n", "the next revision");
    assert_eq!(town.prints(One, "7c9f").await, "new\n");
    assert_eq!(town.prints(One, "5d4f").await, "old\n");

    // One operator, on any node, for all.
    let (code, said, complaint) = town.at(Two, &["service", "update", "shop/deployment/web", "--revision", "5d4f"]).await;
    assert_eq!(code, Some(0), "{said}{complaint}");
    for at in [One, Two] {
        town.until(at, async || town.prints(at, "5d4f").await == "new\n").await;
    }
    let (code, said, complaint) = town.at(One, &["service", "rollback", "shop/deployment/web", "--revision", "5d4f"]).await;
    assert_eq!(code, Some(0), "{said}{complaint}");
    for at in [One, Two] {
        town.until(at, async || town.prints(at, "5d4f").await == "old\n").await;
    }

    // A node that comes back knows what it used, also while etcd is away.
    town.stops_etcd();
    town.gate_mut(Two).restart().await;
    assert_eq!(town.prints(Two, "5d4f").await, "old\n");
    let said = town.is_refused(Two, town.pod(Two, "web", "9f9f"), "(CS-STORE)").await;
    assert!(said.starts_with("RegistryUnavailable: ") && said.contains(&town.etcd.endpoint(0)), "{said}");
    town.starts_etcd().await;
    town.until(Two, async || town.runs(Two, town.pod(Two, "web", "9f9f")).await.is_ok_and(|ran| ran.output == "new\n")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_first_pulls_on_two_nodes_one_says_what_the_tag_means() {
    let town = Town::new(binary(), Version::default(), "a_hundred_first_pulls", EtcdOptions::OPEN, ["deny", "deny"]).await;
    let (first, second) = (town.cri(One).clone(), town.cri(Two).clone());
    let mut pulls = tokio::task::JoinSet::new();
    for number in 0..100 {
        let (cri, at) = if number % 2 == 0 { (first.clone(), One) } else { (second.clone(), Two) };
        let (name, config) = (town.name.clone(), town.pod(at, "web", "5d4f"));
        pulls.spawn(async move { cri.pull_with(&name, None, Some(&config)).await });
        if number == 50 {
            town.tag_moves_to(&town.new).await;
        }
    }
    let found: Vec<String> = pulls.join_all().await.into_iter().map(Result::unwrap).collect();
    assert!(found.iter().all(|image| *image == found[0]), "{found:?}");
    let listed = town.etcd.ctl(&["get", "--prefix", "--keys-only", "/countersign/prod/k/pins/"]).await;
    assert_eq!(listed.lines().filter(|line| !line.is_empty()).count(), 1, "{listed}");
}

#[tokio::test]
async fn what_a_node_pinned_is_void_when_it_is_removed_and_it_pins_nothing_more() {
    let town = Town::new(binary(), Version::default(), "a_node_that_is_removed", EtcdOptions::OPEN, ["deny", "deny"]).await;
    assert_eq!(town.prints(Two, "5d4f").await, "old\n");
    town.tag_moves_to(&town.new).await;
    town.until(One, async || town.prints(One, "5d4f").await == "old\n").await;
    town.removes(Two).await;
    let (code, status) = town.status_at(One).await;
    let void = status["findings"].as_array().unwrap().iter().find(|finding| finding["kind"] == "pin-void").cloned().unwrap_or_default();
    assert!(code == Some(1) && void["sentence"].as_str().unwrap_or_default().contains("the word of node `node-2`"), "{status:#}");
    assert_eq!(town.prints(One, "5d4f").await, "new\n", "its word counts no more");
    town.until(Two, async || town.at(Two, &["cluster", "members"]).await.0 == Some(1)).await;
    let said = town.is_refused(Two, town.pod(Two, "api", "1"), "(CS-STORE)").await;
    assert!(said.contains("countersign cluster enroll"), "{said}");
    town.enrolls(Two).await;
    town.until(Two, async || town.runs(Two, town.pod(Two, "api", "1")).await.is_ok()).await;
}

#[tokio::test]
async fn a_node_that_answers_alone_while_etcd_is_away_gives_way_and_says_so() {
    let mut town = Town::new(binary(), Version::default(), "a_node_alone", EtcdOptions::OPEN, ["local", "deny"]).await;
    assert_eq!(town.prints(One, "5d4f").await, "old\n");
    town.stops_etcd();
    assert_eq!(town.prints(One, "7c9f").await, "old\n", "it answers by itself");
    town.tag_moves_to(&town.new).await;
    assert_eq!(town.prints(One, "7c9f").await, "old\n", "and keeps to it");
    // Kept from hearing of it, the other node is the first in the store.
    town.gate_mut(One).kill();
    town.starts_etcd().await;
    town.until(Two, async || town.runs(Two, town.pod(Two, "web", "7c9f")).await.is_ok_and(|ran| ran.output == "new\n")).await;
    town.gate_mut(One).start_again().await;
    let told = town.gate(One).logged("this node pinned another digest than the cluster", SOON).await;
    assert!(told.is_some(), "{}", town.gate(One).log());
    town.until(One, async || town.prints(One, "7c9f").await == "new\n").await;
}

#[tokio::test]
async fn with_one_of_three_members_killed_all_goes_on_and_without_most_of_them_new_revisions_wait() {
    let mut town = Town::new(binary(), Version::default(), "three_members", EtcdOptions::THREE, ["deny", "deny"]).await;
    assert_eq!(town.prints(One, "5d4f").await, "old\n");
    let leader = town.etcd.leader().await;
    town.etcd.members[leader].server.kill();
    town.tag_moves_to(&town.new).await;
    for (at, hash) in [(Two, "7c9f"), (One, "8a8a")] {
        town.until(at, async || town.runs(at, town.pod(at, "web", hash)).await.is_ok_and(|ran| ran.output == "new\n")).await;
    }
    assert_eq!(town.prints(Two, "5d4f").await, "old\n");
    let next = (leader + 1) % 3;
    town.etcd.members[next].server.kill();
    town.is_refused(One, town.pod(One, "web", "9f9f"), "(CS-STORE)").await;
    for at in [One, Two] {
        assert_eq!(town.prints(at, "5d4f").await, "old\n", "what is pinned goes on");
    }
    for member in [leader, next] {
        town.etcd.members[member].server.start().await;
    }
    town.etcd.has_leader().await;
    for at in [One, Two] {
        town.until(at, async || town.runs(at, town.pod(at, "web", "9f9f")).await.is_ok_and(|ran| ran.output == "new\n")).await;
    }
}

/// A tag that is unknown to what a node holds was not withdrawn: it may have been signed since.
#[tokio::test]
async fn a_node_that_has_heard_less_ends_no_pin_of_another() {
    let mut town = Town::new(binary(), Version::default(), "a_node_that_has_heard_less", EtcdOptions::OPEN, ["deny", "deny"]).await;
    assert_eq!(town.prints(Two, "5d4f").await, "old\n");
    let name = town.world.push(&town.new, REPOSITORY, "2").await;
    town.world.notary.signer("admin").sign(&town.world.gun(REPOSITORY), "2", &town.new).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ran = town.runs_of(One, town.pod(One, "api", "1"), &name).await.unwrap();
    assert_eq!(ran.output, "new\n");
    town.gate_mut(Two).restart().await;
    town.gate(Two).logged("held trust data was read", SOON).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let log = town.gate(Two).log();
    assert!(!log.contains("a pin has ended"), "{log}");
    let (_, listed, _) = town.at(Two, &["service", "ls"]).await;
    assert!(listed.contains("shop/deployment/api"), "{listed}");
    assert_eq!(town.runs_of(Two, town.pod(Two, "api", "1"), &name).await.unwrap().output, "new\n");
    // And both are seen by either.
    for at in [One, Two] {
        town.until(at, async || {
            let (_, status, _) = town.at(at, &["cluster", "status", "--output", "json"]).await;
            let status: serde_json::Value = serde_json::from_str(&status).unwrap();
            status["nodes"].as_array().is_some_and(|nodes| nodes.len() == 2)
        })
        .await;
    }
}

/// Whoever holds the store puts back what it has seen, and what it likes.
#[tokio::test]
async fn whoever_holds_the_store_brings_nothing_back() {
    let town = Town::new(binary(), Version::default(), "whoever_holds_the_store", EtcdOptions::OPEN, ["deny", "deny"]).await;
    let store = town.etcd.store(CLUSTER);
    assert_eq!(town.prints(One, "5d4f").await, "old\n");
    let (pins, evidence) = (kept_by(&store, "pins").await, kept_by(&store, "evidence").await);
    is_withdrawn_and_signed_anew(&town).await;
    put_back(&store, &evidence).await;
    put_back(&store, &pins).await;
    town.until(One, async || town.at(One, &["service", "ls"]).await.1.contains("no service")).await;
    assert_eq!(town.prints(One, "5d4f").await, "new\n", "the genuine pin of then, with its genuine evidence");

    // The pin of one revision in another's place, one of nobody, and nonsense.
    let (key, value) = &pins[0];
    let elsewhere = countersign::store::Key::from_written(key.as_str().replace("/5d4f/", "/7c9f/").as_bytes()).unwrap();
    let moved = String::from_utf8(value.to_vec()).unwrap().replace("\"5d4f\"", "\"7c9f\"");
    for forged in [value.clone(), moved.into_bytes().into(), b"nonsense".as_slice().into(), vec![b'x'; 500_000].into()] {
        put_back(&store, &[(elsewhere.clone(), forged)]).await;
        assert_eq!(town.prints(Two, "7c9f").await, "new\n");
    }
}

/// The store hides a pin for as long as its tag is withdrawn: no node knows then that there is one.
#[tokio::test]
async fn a_pin_that_the_store_hid_while_its_tag_was_withdrawn_does_not_come_back() {
    let town = Town::new(binary(), Version::default(), "a_pin_that_was_hidden", EtcdOptions::OPEN, ["deny", "deny"]).await;
    let store = town.etcd.store(CLUSTER);
    assert_eq!(town.prints(One, "5d4f").await, "old\n");
    let (pins, evidence) = (kept_by(&store, "pins").await, kept_by(&store, "evidence").await);
    put_back(&store, &[(pins[0].0.clone(), b"nonsense".as_slice().into())]).await;
    town.until(One, async || town.at(One, &["service", "ls"]).await.1.contains("no service")).await;
    is_withdrawn_and_signed_anew(&town).await;
    put_back(&store, &evidence).await;
    put_back(&store, &pins).await;
    // The genuine pin is there again, and counts for nothing.
    town.until(One, async || {
        let (_, status) = town.status_at(One).await;
        let findings = status["findings"].as_array().cloned().unwrap_or_default();
        let sentence = |finding: &Value| finding["sentence"].as_str().unwrap_or_default().contains("its tag was not signed at");
        findings.iter().any(|finding| finding["kind"] == "pin-void" && sentence(finding))
    })
    .await;
    assert_eq!(town.prints(One, "5d4f").await, "new\n");
}

/// The tag is withdrawn, which the first node alone sees, and signed as another image.
async fn is_withdrawn_and_signed_anew(town: &Town) {
    town.world.notary.signer("admin").remove_tag(&town.world.gun(REPOSITORY), "1").await;
    // Of no revision, so that the server is asked.
    let refused = town.cri(One).pull(&town.name).await.unwrap_err();
    assert!(refused.message().contains("(CS-TAG-NOT-SIGNED)"), "{refused:?}");
    town.tag_moves_to(&town.new).await;
}

type Kept = Vec<(countersign::store::Key, bytes::Bytes)>;

async fn kept_by(store: &dyn countersign::store::Store, area: &str) -> Kept {
    let prefix = countersign::store::Prefix::new([area]).unwrap();
    let listing = countersign::store::list_all(store, &prefix).await.unwrap();
    listing.entries.into_iter().map(|(key, entry)| (key, entry.value)).collect()
}

async fn put_back(store: &dyn countersign::store::Store, kept: &[(countersign::store::Key, bytes::Bytes)]) {
    use countersign::store::Expected;
    for (key, value) in kept {
        let there = store.read(key).await.unwrap();
        let expected = there.map_or(Expected::Absent, |entry| Expected::Revision(entry.revision));
        store.put(key, value.clone(), expected, None).await.unwrap();
    }
}
