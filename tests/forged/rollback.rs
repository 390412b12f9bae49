//! Group G: old data, hidden data, and what a node with a history does about it.

use serde_json::json;

use crate::forge::{Forge, Key, alice, bob, root_key, set_role, snapshot_key, targets_key};
use crate::{Client, code, visible};
use countersign_trust::time::UnixTime;

const LISTS: [&str; 5] = ["targets", "targets/releases", "targets/a", "targets/a/b", "targets/b"];

/// A repository with every version at 3, and a node that has seen it.
fn at_three() -> (Forge, Client) {
    let mut forge = Forge::new();
    for document in forge.lists.values_mut() {
        document.set("version", json!(3));
    }
    forge.snapshot.set("version", json!(3));
    forge.timestamp.set("version", json!(3));
    let client = Client::after(&forge.seal());
    (forge, client)
}

#[test]
fn no_role_goes_back() {
    for role in LISTS {
        let (mut forge, mut client) = at_three();
        forge.list(role).set("version", json!(2));
        forge.bump();
        assert_eq!(client.code(&forge.seal()), "CS-ROLLBACK", "{role}");
        forge.list(role).set("version", json!(3));
        assert_eq!(client.code(&forge.seal()), "accept", "{role}: the refusal changed nothing");
    }
    let (mut forge, mut client) = at_three();
    forge.timestamp.set("version", json!(2));
    assert_eq!(client.code(&forge.seal()), "CS-ROLLBACK");
    let (mut forge, mut client) = at_three();
    forge.snapshot.set("version", json!(2));
    forge.timestamp.set("version", json!(4));
    assert_eq!(client.code(&forge.seal()), "CS-ROLLBACK");
}

#[test]
fn a_version_says_the_same_for_ever() {
    for role in LISTS {
        let (mut forge, mut client) = at_three();
        forge.tag(role, "new", b"new");
        forge.bump();
        assert_eq!(client.code(&forge.seal()), "CS-EQUIVOCATION", "{role}");
    }
    let (mut forge, mut client) = at_three();
    forge.timestamp.set("expires", json!("2030-12-31T00:00:00Z"));
    assert_eq!(client.code(&forge.seal()), "CS-EQUIVOCATION");
    let (mut forge, mut client) = at_three();
    forge.snapshot.set("expires", json!("2030-12-31T00:00:00Z"));
    forge.timestamp.set("version", json!(4));
    assert_eq!(client.code(&forge.seal()), "CS-EQUIVOCATION");
}

#[test]
fn signing_the_same_text_again_is_fine() {
    let (mut forge, mut client) = at_three();
    forge.delegate("targets", "targets/b", &[&alice(), &bob()], 1);
    forge.bump_list("targets");
    assert_eq!(client.code(&forge.seal()), "accept");
    forge.list("targets/b").signed_by(&[&alice()]);
    forge.bump();
    assert_eq!(client.code(&forge.seal()), "accept");
}

#[test]
fn a_genuine_old_list_does_not_come_back_while_its_parent_stays() {
    for role in ["targets/releases", "targets/a", "targets/a/b"] {
        let (mut forge, mut client) = at_three();
        let mut lists: std::collections::BTreeMap<_, _> =
            forge.lists.iter().map(|(role, document)| (role.clone(), document.bytes())).collect();
        let old = lists[role].clone();
        forge.tag(role, "new", b"new");
        forge.bump_list(role);
        assert_eq!(client.code(&forge.seal()), "accept");
        forge.bump();
        for (other, document) in &forge.lists {
            lists.insert(other.clone(), document.bytes());
        }
        lists.insert(role.into(), old);
        assert_eq!(client.code(&forge.seal_with(&lists)), "CS-ROLLBACK", "{role}");
        assert_eq!(client.code(&forge.seal_with(&lists)), "CS-ROLLBACK", "{role}: and not at the second attempt either");
    }
}

#[test]
fn versions_may_rise_by_a_million_and_no_more() {
    for (version, expected) in [(1_000_003, "accept"), (1_000_004, "CS-VERSION-JUMP"), ((1_u64 << 53) - 1, "CS-VERSION-JUMP")] {
        let (mut forge, mut client) = at_three();
        forge.list("targets/b").set("version", json!(version));
        forge.bump();
        assert_eq!(client.code(&forge.seal()), expected, "{version}");
        let (mut forge, mut client) = at_three();
        forge.timestamp.set("version", json!(version));
        assert_eq!(client.code(&forge.seal()), expected, "timestamp {version}");
    }
}

#[test]
fn new_keys_for_timestamp_or_snapshot_allow_their_versions_to_restart() {
    let new = Key::new("new");
    for (role, expected) in [("timestamp", "accept"), ("snapshot", "accept"), ("targets", "CS-ROLLBACK")] {
        let (mut forge, mut client) = at_three();
        set_role(&mut forge.rotate(&[&root_key()]).signed, role, &[&new], 1);
        forge.bump();
        let document = match role {
            "timestamp" => &mut forge.timestamp,
            "snapshot" => &mut forge.snapshot,
            _ => forge.list("targets"),
        };
        document.set("version", json!(1)).signed_by(&[&new]);
        assert_eq!(client.code(&forge.seal()), expected, "{role}");
        assert_eq!(client.code(&forge.seal()), expected, "{role}: the same at the second attempt");
    }
}

#[test]
fn the_new_floor_binds_after_a_restart() {
    let new = Key::new("new");
    let (mut forge, mut client) = at_three();
    set_role(&mut forge.rotate(&[&root_key()]).signed, "timestamp", &[&new], 1);
    forge.bump();
    forge.timestamp.set("version", json!(2)).signed_by(&[&new]);
    assert_eq!(client.code(&forge.seal()), "accept");
    forge.timestamp.set("version", json!(1));
    assert_eq!(client.code(&forge.seal()), "CS-ROLLBACK");
}

#[test]
fn a_root_that_leaves_the_keys_of_timestamp_and_snapshot_resets_nothing() {
    for lower_snapshot in [false, true] {
        let (mut forge, mut client) = at_three();
        forge.rotate(&[&root_key()]);
        forge.bump();
        let document = if lower_snapshot { &mut forge.snapshot } else { &mut forge.timestamp };
        document.set("version", json!(2));
        assert_eq!(client.code(&forge.seal()), "CS-ROLLBACK");
    }
}

#[test]
fn a_list_that_was_published_is_not_hidden_from_who_has_seen_it() {
    for role in ["targets/releases", "targets/a", "targets/a/b", "targets/b"] {
        let (mut forge, mut client) = at_three();
        forge.lists.remove(role);
        forge.bump();
        assert_eq!(client.code(&forge.seal()), "CS-ROLE-DISAPPEARED", "{role}");
        assert!(!visible(&mut forge).starts_with("CS-"), "{role}: without history it is no data");
    }
}

#[test]
fn a_list_is_not_hidden_while_its_keys_change() {
    for role in ["targets/releases", "targets/b"] {
        let (mut forge, mut client) = at_three();
        forge.delegate("targets", role, &[&Key::new("new")], 1);
        forge.lists.remove(role);
        forge.bump_list("targets");
        assert_eq!(client.code(&forge.seal()), "CS-ROLE-DISAPPEARED", "{role}");
        assert!(!visible(&mut forge).starts_with("CS-"), "{role}: without history it is no data");
    }
}

#[test]
fn a_list_is_not_hidden_after_its_delegation_was_given_again() {
    let (mut forge, mut client) = at_three();
    let entry = forge.delegation("targets", "targets/releases").clone();
    forge.list("targets").signed["delegations"]["roles"].as_array_mut().unwrap().retain(|role| role["name"] != "targets/releases");
    forge.bump_list("targets");
    assert_eq!(client.code(&forge.seal()), "accept");
    forge.list("targets").signed["delegations"]["roles"].as_array_mut().unwrap().push(entry);
    forge.lists.remove("targets/releases");
    forge.bump_list("targets");
    assert_eq!(client.code(&forge.seal()), "CS-ROLE-DISAPPEARED");
}

#[test]
fn a_list_whose_delegation_went_too_is_not_missed() {
    let (mut forge, mut client) = at_three();
    forge.list("targets").signed["delegations"]["roles"].as_array_mut().unwrap().retain(|role| role["name"] != "targets/b");
    forge.lists.remove("targets/b");
    forge.bump_list("targets");
    assert_eq!(client.code(&forge.seal()), "accept");
}

#[test]
fn a_delegation_that_is_given_again_keeps_its_floor() {
    let (mut forge, mut client) = at_three();
    let removed = forge.lists.remove("targets/b").unwrap();
    let entry = forge.delegation("targets", "targets/b").clone();
    forge.list("targets").signed["delegations"]["roles"].as_array_mut().unwrap().retain(|role| role["name"] != "targets/b");
    forge.bump_list("targets");
    assert_eq!(client.code(&forge.seal()), "accept");
    forge.list("targets").signed["delegations"]["roles"].as_array_mut().unwrap().push(entry);
    forge.lists.insert("targets/b".into(), removed);
    forge.list("targets/b").set("version", json!(2));
    forge.bump_list("targets");
    assert_eq!(client.code(&forge.seal()), "CS-ROLLBACK");
}

#[test]
fn a_new_key_for_a_delegation_does_not_reset_its_floor() {
    let (mut forge, mut client) = at_three();
    let new = Key::new("new");
    forge.delegate("targets", "targets/b", &[&new], 1);
    forge.list("targets/b").set("version", json!(2)).signed_by(&[&new]);
    forge.bump_list("targets");
    assert_eq!(client.code(&forge.seal()), "CS-ROLLBACK");
}

#[test]
fn a_repository_that_is_gone_is_no_outage() {
    let (_, mut client) = at_three();
    let nothing = crate::forge::Sealed { files: std::collections::BTreeMap::new() };
    assert_eq!(client.code(&nothing), "CS-NO-TRUST-DATA");
}

#[test]
fn only_an_outage_is_answered_from_what_is_held() {
    for (status, expected) in [
        (503, "accept"),
        (500, "accept"),
        (429, "accept"),
        (404, "CS-NO-TRUST-DATA"),
        (401, "CS-SERVER-UNAUTHORIZED"),
        (403, "CS-SERVER-FORBIDDEN"),
        (400, "CS-SERVER-STATUS"),
        (302, "CS-SERVER-REDIRECT"),
        (204, "CS-SERVER-STATUS"),
    ] {
        let (mut forge, mut client) = at_three();
        assert_eq!(client.code(&forge.seal().status("timestamp.json", status)), expected, "{status}");
        if status != 404 {
            let fresh = if expected == "accept" { "CS-SERVER-BUSY" } else { expected };
            assert_eq!(Client::new().code(&forge.seal().status("root.json", status)), fresh, "{status} for a fresh node");
        }
    }
}

#[test]
fn what_is_held_runs_out_during_an_outage_too() {
    let (mut forge, mut client) = at_three();
    client.now = UnixTime::parse_rfc3339("2039-01-01T00:00:01Z").unwrap();
    let outcome = client.look(&forge.seal().status("*", 503));
    assert_eq!(code(&outcome), "CS-EXPIRED");
}

#[test]
fn a_newer_timestamp_before_an_outage_is_not_forgotten() {
    let (mut forge, mut client) = at_three();
    forge.tag("targets/releases", "new", b"new");
    forge.bump_list("targets/releases");
    assert_eq!(client.code(&forge.seal().status("snapshot.*", 503)), "CS-SERVER-BUSY");
    assert_eq!(client.code(&forge.seal()), "accept");
}

#[test]
fn a_key_that_a_root_dropped_just_before_the_outage_is_not_used() {
    let (mut forge, mut client) = at_three();
    set_role(&mut forge.rotate(&[&root_key()]).signed, "targets", &[&Key::new("new")], 1);
    forge.bump();
    assert_eq!(client.code(&forge.seal().status("timestamp.json", 503)), "CS-THRESHOLD");
    let (mut forge, mut client) = at_three();
    forge.rotate(&[&root_key()]);
    assert_eq!(client.code(&forge.seal().status("timestamp.json", 503)), "accept", "a root without such a change locks nobody out");
}

#[test]
fn files_of_two_publications_do_not_mix() {
    let (mut forge, mut client) = at_three();
    let old = forge.seal();
    forge.tag("targets/releases", "new", b"new");
    forge.bump_list("targets/releases");
    let new = forge.seal();
    let mut mixed = new.clone();
    let name = |sealed: &crate::forge::Sealed| sealed.files.keys().find(|name| name.starts_with("repo/snapshot.")).unwrap().clone();
    mixed.files.insert(name(&new), old.files[&name(&old)].clone());
    assert!(["CS-CHECKSUM", "CS-LENGTH"].contains(&client.code(&mixed).as_str()));
    assert_eq!(client.code(&new), "accept");
}

#[test]
fn the_keys_of_one_base_role_do_not_sign_for_another() {
    let keys = [("targets", targets_key()), ("snapshot", snapshot_key()), ("timestamp", crate::forge::timestamp_key())];
    for (role, _) in &keys {
        for (other, key) in keys.iter().filter(|(other, _)| other != role) {
            let mut forge = Forge::new();
            let document = match *role {
                "timestamp" => &mut forge.timestamp,
                "snapshot" => &mut forge.snapshot,
                _ => forge.list("targets"),
            };
            document.signed_by(&[key]);
            assert_eq!(crate::fresh(&mut forge), "CS-THRESHOLD", "{role} by {other}");
        }
    }
}
