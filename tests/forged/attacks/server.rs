//! Whoever holds the keys of timestamp and snapshot: the server.

use serde_json::json;

use super::lists;
use crate::forge::{Forge, GUN, Key, alice, root_key, set_role, timestamp_key};
use crate::{Client, fresh, pins};

/// alice signs her own list and the releases. The two cannot be told apart (`docs/notary-v1.md`, 13), but by versions.
#[test]
fn a_personal_list_does_not_pass_for_the_releases_where_versions_tell() {
    for (version, expected) in [(1, "CS-ROLLBACK"), (2, "CS-EQUIVOCATION"), (3, "accept")] {
        let mut forge = Forge::new();
        forge.delegate("targets", "targets/alice", &[&alice()], 1);
        forge.publish("targets/alice", &[&alice()]);
        forge.tag("targets/alice", "draft", b"evil");
        forge.list("targets/releases").set("version", json!(2));
        forge.list("targets/alice").set("version", json!(version));
        let mut client = Client::after(&forge.seal());
        let mut swapped = lists(&forge);
        swapped.insert("targets/releases".into(), swapped["targets/alice"].clone());
        forge.bump();
        assert_eq!(client.code(&forge.seal_with(&swapped)), expected, "version {version}");
    }
}

#[test]
fn a_list_that_delegates_passes_for_no_other() {
    let mut forge = Forge::new();
    let mut swapped = lists(&forge);
    swapped.insert("targets/releases".into(), swapped["targets/a"].clone());
    assert_eq!(Client::new().code(&forge.seal_with(&swapped)), "CS-DELEGATION");
}

#[test]
fn a_snapshot_of_another_repository_is_none_of_this_one() {
    let mut other = Forge::new();
    set_role(&mut other.root().signed, "root", &[&Key::certified("other root", "r.test/team/other")], 1);
    other.root().signed_by(&[&Key::certified("other root", "r.test/team/other")]);
    let theirs = other.seal();
    let mut ours = Forge::new().seal();
    let mut mixed = theirs.clone();
    for name in ["repo/root.json", "repo/1.root.json"] {
        mixed.files.insert(name.into(), ours.files.remove(name).unwrap());
    }
    assert_eq!(Client::new().code(&mixed), "CS-ROOT-MISMATCH");
}

#[test]
fn a_promise_in_another_spelling_is_no_promise() {
    for spelling in ["targets/Releases", "Targets/releases", "targets//releases", "targets/releases/", "targets/releases "] {
        let mut forge = Forge::new();
        let mut client = Client::after(&forge.seal());
        forge.bump();
        forge.snapshot.before_signing(move |snapshot| {
            let meta = snapshot["meta"].as_object_mut().unwrap();
            let promise = meta.remove("targets/releases").unwrap();
            meta.insert(spelling.into(), promise);
        });
        assert_eq!(client.code(&forge.seal()), "CS-ROLE-DISAPPEARED", "{spelling}");
    }
}

#[test]
fn a_timestamp_of_a_refused_update_leaves_no_floor() {
    let mut forge = Forge::new();
    let mut client = Client::after(&forge.seal());
    let mut forged = Forge::new();
    forged.timestamp.set("version", json!(900_000));
    forged.snapshot.set("version", json!(900_000));
    forged.list("targets").signed_by(&[&Key::new("mallory")]);
    assert_eq!(client.code(&forged.seal()), "CS-THRESHOLD");
    forge.bump();
    assert_eq!(client.code(&forge.seal()), "accept", "version 2 is no rollback from what was never trusted");
}

#[test]
fn versions_that_were_pushed_to_the_top_are_recovered_from_by_new_keys() {
    const TOP: u64 = (1 << 53) - 1;
    let mut forge = Forge::new();
    forge.timestamp.set("version", json!(TOP));
    forge.snapshot.set("version", json!(TOP));
    let mut client = Client::after(&forge.seal());
    forge.timestamp.set("version", json!(2));
    assert_eq!(client.code(&forge.seal()), "CS-ROLLBACK", "without a new root there is no way back");
    let (timestamp, snapshot) = (Key::ed25519("new timestamp"), Key::new("new snapshot"));
    let root = forge.rotate(&[&root_key()]);
    set_role(&mut root.signed, "timestamp", &[&timestamp], 1);
    set_role(&mut root.signed, "snapshot", &[&snapshot], 1);
    forge.timestamp.set("version", json!(1)).signed_by(&[&timestamp]);
    forge.snapshot.set("version", json!(1)).signed_by(&[&snapshot]);
    assert_eq!(client.code(&forge.seal()), "accept");
    forge.timestamp.set("version", json!(TOP)).signed_by(&[&timestamp_key()]);
    assert_eq!(client.code(&forge.seal()), "CS-THRESHOLD", "the stolen key signs nothing more");
}

#[test]
fn freezing_a_node_ends_with_the_timestamp() {
    let mut forge = Forge::new();
    forge.timestamp.set("expires", json!("2030-01-15T00:00:00Z"));
    let sealed = forge.seal();
    let mut client = Client::after(&sealed);
    for (days, expected) in [(13, "accept"), (15, "CS-EXPIRED")] {
        client.now = crate::now().plus_seconds(days * 24 * 3600);
        assert_eq!(client.code(&sealed), expected, "day {days}");
        assert_eq!(client.code(&sealed.clone().status("*", 503)), expected, "day {days}, silent");
    }
}

#[test]
fn newer_files_below_an_older_timestamp_are_not_taken() {
    let mut forge = Forge::new();
    let old = forge.seal();
    forge.tag("targets/releases", "rel", b"new");
    forge.bump_list("targets/releases");
    let new = forge.seal();
    let mut client = Client::after(&new);
    let mut mixed = old.clone();
    mixed.files.extend(new.files.into_iter().filter(|(name, _)| name != "repo/timestamp.json"));
    assert_eq!(client.code(&mixed), "CS-ROLLBACK");
}

#[test]
fn a_root_that_only_a_snapshot_names_needs_the_last_roots_signature() {
    let mallory = Key::certified("mallory", GUN);
    for (signers, expected) in [(vec![&mallory], "CS-ROOT-ROTATION"), (vec![], "CS-ROOT-ROTATION")] as [(Vec<&Key>, &str); 2] {
        let mut forge = Forge::new();
        let mut client = Client::after(&forge.seal());
        client.pins = pins(&[&root_key(), &mallory]);
        set_role(&mut forge.rotate(&signers).signed, "root", &[&mallory], 1);
        forge.bump();
        assert_eq!(client.code(&forge.seal().without("2.root.json")), expected);
    }
}

#[test]
fn a_node_that_knows_nothing_takes_no_second_root_from_a_snapshot() {
    let mut forge = Forge::new();
    let first = forge.root().bytes();
    forge.rotate(&[&root_key()]);
    let mut sealed = forge.seal();
    sealed.files.insert("repo/root.json".into(), first);
    assert_eq!(Client::new().code(&sealed), "CS-ROOT-MISMATCH", "an old root under a new snapshot");
}

#[test]
fn lengths_that_lie_cost_no_byte() {
    for (length, expected) in [(1_u64 << 30, "CS-FILE-TOO-LONG"), ((1 << 53) - 1, "CS-FILE-TOO-LONG"), (0, "CS-BODY-TOO-LARGE")] {
        let mut forge = Forge::new();
        forge.snapshot.before_signing(move |snapshot| snapshot["meta"]["targets/b"]["length"] = json!(length));
        assert_eq!(fresh(&mut forge), expected, "{length}");
    }
}
