//! Nodes that cannot reach etcd or each other, whose clocks differ, and whose store is flooded: afterwards all agree, and nothing
//! ran that is not signed.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::gate::binary;
use crate::harness::containerd::Version;
use crate::harness::etcd::EtcdOptions;
use crate::harness::town::{At, CLUSTER, One, Town, Two};
use crate::harness::wire::Carries;

/// A lease that was lost is found out about when it would be renewed.
const LEASE_IS_BACK: Duration = Duration::from_secs(60);
/// What a flood may make a daemon grow by, in KiB: far less than is written, and more than is noise.
const GROWS_KIB: u64 = 48 * 1024;

/// The digests and generations that a node knows, as it tells operators.
async fn pins(town: &Town, at: At) -> Value {
    let (_, listed, _) = town.at(at, &["pin", "ls", "--output", "json"]).await;
    let mut listed: Value = serde_json::from_str(&listed).unwrap();
    listed["pins"].take()
}

async fn both_know_the_same(town: &Town) {
    town.until(Two, async || pins(town, One).await == pins(town, Two).await).await;
}

async fn nothing_unverified_runs(town: &Town) {
    for at in [One, Two] {
        let (_, status, _) = town.at(at, &["status", "--output", "json"]).await;
        let status: Value = serde_json::from_str(&status).unwrap();
        assert_eq!((&status["inventory"]["unverified"], &status["bypasses-seen"]), (&0.into(), &0.into()), "{status:#}");
    }
}

async fn is_cut_off_and_comes_back(test: &str, how: Carries) {
    let town = Town::on_wires(binary(), test).await;
    for at in [One, Two] {
        assert_eq!(town.prints(at, "5d4f").await, "old\n");
    }
    town.wire_carries(Two, how);
    town.tag_moves_to(&town.new).await;
    let (code, said, complaint) = town.at(One, &["service", "update", "shop/deployment/web"]).await;
    assert_eq!(code, Some(0), "{said}{complaint}");
    assert_eq!(town.prints(One, "7c9f").await, "new\n");
    // It goes by what it knows, and begins nothing that others may have begun otherwise.
    assert_eq!(town.prints(Two, "5d4f").await, "old\n");
    let said = town.is_refused(Two, town.pod(Two, "web", "7c9f"), "(CS-STORE)").await;
    assert!(said.starts_with("RegistryUnavailable: "), "{said}");
    // What it missed is forgotten by etcd: it has to list anew.
    town.etcd.compact().await;
    town.wire_carries(Two, Carries::Everything);
    town.until(Two, async || town.runs(Two, town.pod(Two, "web", "7c9f")).await.is_ok_and(|ran| ran.output == "new\n")).await;
    town.until(Two, async || town.prints(Two, "5d4f").await == "new\n").await;
    both_know_the_same(&town).await;
    nothing_unverified_runs(&town).await;
}

#[tokio::test]
async fn a_node_that_is_cut_off_goes_by_what_it_knows_and_agrees_after_a_compaction() {
    is_cut_off_and_comes_back("a_node_that_is_cut_off", Carries::Nothing).await;
}

#[tokio::test]
async fn a_node_whose_packets_are_dropped_goes_by_what_it_knows_and_agrees_after_a_compaction() {
    is_cut_off_and_comes_back("packets_are_dropped", Carries::Silence).await;
}

#[tokio::test]
async fn a_node_whose_lease_is_revoked_tells_of_itself_again() {
    let town = Town::on_wires(binary(), "lease_is_revoked").await;
    let tells = async |count: usize| {
        let (_, status) = town.status_at(One).await;
        status["nodes"].as_array().is_some_and(|nodes| nodes.len() == count)
    };
    town.until(One, async || tells(2).await).await;
    let listed = town.etcd.ctl(&["lease", "list"]).await;
    let leases: Vec<&str> = listed.lines().filter(|line| line.len() >= 16 && line.bytes().all(|byte| byte.is_ascii_hexdigit())).collect();
    assert_eq!(leases.len(), 2, "{listed}");
    for lease in leases {
        town.etcd.ctl(&["lease", "revoke", lease]).await;
    }
    assert!(tells(0).await);
    let deadline = Instant::now() + LEASE_IS_BACK;
    while !tells(2).await {
        assert!(Instant::now() < deadline, "{}", town.gate(Two).log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(town.prints(Two, "5d4f").await, "old\n");
}

#[cfg(feature = "crash-points")]
#[tokio::test]
async fn nodes_whose_clocks_differ_a_little_agree_and_one_that_is_far_ahead_is_named() {
    let mut town = Town::on_wires(binary(), "clocks_differ").await;
    let set = async |town: &mut Town, seconds: Option<i64>| {
        let gate = town.gate_mut(Two);
        gate.kill();
        match seconds {
            Some(seconds) => gate.server.set_env("COUNTERSIGN_CLOCK_OFFSET", seconds.to_string()),
            None => gate.server.unset_env("COUNTERSIGN_CLOCK_OFFSET"),
        }
        gate.start_again().await;
    };
    set(&mut town, Some(200)).await;
    assert_eq!(town.prints(Two, "5d4f").await, "old\n");
    town.tag_moves_to(&town.new).await;
    assert_eq!(town.prints(One, "5d4f").await, "old\n", "a pin from a little ahead counts");
    assert_eq!(town.prints(One, "7c9f").await, "new\n");
    assert_eq!(town.prints(Two, "7c9f").await, "new\n");
    both_know_the_same(&town).await;

    set(&mut town, Some(1000)).await;
    for at in [Two, One] {
        assert_eq!(town.prints(at, "8a8a").await, "new\n");
    }
    town.until(One, async || {
        let (code, status) = town.status_at(One).await;
        let findings = status["findings"].as_array().cloned().unwrap_or_default();
        code == Some(1) && findings.iter().any(|finding| finding["kind"] == "clock-ahead" && finding["node"] == "node-2")
    })
    .await;
    nothing_unverified_runs(&town).await;

    set(&mut town, None).await;
    let (code, said, complaint) = town.at(Two, &["reset", "--clock", "--reason", "it was ahead"]).await;
    assert_eq!(code, Some(0), "{said}{complaint}");
    for at in [Two, One] {
        assert_eq!(town.prints(at, "9f9f").await, "new\n", "a revision that began afterwards");
    }
    let of = |pins: Value| pins.as_array().unwrap().iter().find(|pin| pin["revision"] == "9f9f").cloned();
    town.until(Two, async || {
        let (own, other) = (of(pins(&town, Two).await), of(pins(&town, One).await));
        own.is_some() && own == other
    })
    .await;
}

/// Whoever can write the store fills it with what is none of ours, and writes without a pause.
#[tokio::test]
async fn a_flood_of_nonsense_and_giants_in_the_store_stops_no_node_and_fills_no_memory() {
    use countersign::store::{Expected, Key, Put, Store as _};
    let town = Town::new(binary(), Version::default(), "a_flood_of_nonsense", EtcdOptions::OPEN, ["deny", "deny"]).await;
    for at in [One, Two] {
        assert_eq!(town.prints(at, "5d4f").await, "old\n");
    }
    let before = [One, Two].map(|at| resident_kib(&town, at));
    let giant = vec![b'x'; 1_400_000];
    let prefix = format!("/countersign/{CLUSTER}/k");
    for area in ["pins", "confirmed", "members", "nodes", "evidence"] {
        town.etcd.put_file(&format!("{prefix}/{area}/giant"), &giant).await;
        town.etcd.put_file(&format!("{prefix}/{area}/shop/deployment/web/{}/x", "y".repeat(2000)), b"nonsense").await;
    }
    let store = town.etcd.store(CLUSTER);
    let large = bytes::Bytes::from(vec![b'{'; 400_000]);
    for number in 0..100 {
        let key = Key::new(["pins", "shop", "deployment", "web", &format!("{number}"), "r.test/app:1"]).unwrap();
        store.put(&key, large.clone(), Expected::Absent, None).await.unwrap();
    }
    // One key, thousands of times.
    let key = Key::new(["pins", "shop", "deployment", "web", "flood", "r.test/app:1"]).unwrap();
    let mut expected = Expected::Absent;
    for number in 0..3000 {
        match store.put(&key, format!("{number}").into(), expected, None).await.unwrap() {
            Put::Done(revision) => expected = Expected::Revision(revision),
            Put::Lost(_) => panic!("nobody else writes there"),
        }
    }
    town.tag_moves_to(&town.new).await;
    for at in [One, Two] {
        town.until(at, async || town.runs(at, town.pod(at, "web", "7c9f")).await.is_ok_and(|ran| ran.output == "new\n")).await;
        assert_eq!(town.prints(at, "5d4f").await, "old\n");
        assert!(town.gate(at).log().contains("what stands in the store for a pin does not count"), "{}", town.gate(at).log());
    }
    for (at, before) in [One, Two].into_iter().zip(before) {
        let grown = resident_kib(&town, at).saturating_sub(before);
        assert!(grown < GROWS_KIB, "{} grew by {grown} KiB", at.name());
    }
    both_know_the_same(&town).await;
    nothing_unverified_runs(&town).await;
}

fn resident_kib(town: &Town, at: At) -> u64 {
    let pid = town.gate(at).server.pid().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What the nodes tell of themselves: where they differ, what can be updated, and what runs otherwise than it is pinned.
#[tokio::test]
async fn where_nodes_differ_and_what_is_to_come_is_told_on_each_of_them() {
    let town = Town::on_wires(binary(), "where_nodes_differ").await;
    for at in [One, Two] {
        assert_eq!(town.prints(at, "5d4f").await, "old\n");
    }
    let kinds = |status: &Value| -> Vec<String> {
        let findings = status["findings"].as_array().cloned().unwrap_or_default();
        findings.iter().map(|finding| finding["kind"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let tells = async |town: &Town, at: At, kind: &str| {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let (ended, status) = town.status_at(at).await;
            let kinds = kinds(&status);
            let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
            let counted = nodes.iter().all(|node| node["containers"].as_u64() > Some(0));
            let fits = kinds.iter().any(|told| told == kind);
            if ended == Some(1) && nodes.len() == 2 && counted && fits {
                return status;
            }
            assert!(Instant::now() < deadline, "{kind} is not told on {}: {ended:?} {status:#}", at.name());
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    // Their sockets have other paths, since both are on one machine.
    let status = tells(&town, One, "other-configuration").await;
    assert_eq!(kinds(&status), ["other-configuration"], "{status:#}");
    town.tag_moves_to(&town.new).await;
    // A revision that begins tells this node what is signed now.
    assert_eq!(town.prints(One, "7c9f").await, "new\n");
    let status = tells(&town, One, "update-available").await;
    let finding = status["findings"].as_array().unwrap().iter().find(|finding| finding["kind"] == "update-available").unwrap();
    assert_eq!((&finding["is-disagreement"], &finding["revision"]), (&false.into(), &"5d4f".into()), "{status:#}");
    let (code, said, _) = town.at(One, &["service", "update", "shop/deployment/web", "--revision", "5d4f"]).await;
    assert_eq!(code, Some(0), "{said}");
    for at in [One, Two] {
        let status = tells(&town, at, "runs-other-digest").await;
        assert!(!kinds(&status).contains(&"revision-apart".to_owned()), "{status:#}");
    }
}
