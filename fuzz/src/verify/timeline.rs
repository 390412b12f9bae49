//! A repository that is forged, so that its keys are at hand: as its owners publish it, and at their rotations.

use serde_json::json;

use crate::forge::{Document, Forge, GUN, Key, Sealed, alice, bob, root, root_key, set_role, snapshot_key, targets_key, timestamp_key};

/// The name that the attacker's own repository has; the owner of both roots has signed its root, too.
const OTHER_GUN: &str = "r.test/team/other";

/// Lists that carol signs, alone or with others.
pub(super) const ROLES_OF_CAROL: [&str; 2] = ["targets/a", "targets/two"];

/// Who signs for nothing that releases tags.
pub(super) fn bystanders() -> Vec<Key> {
    vec![bob(), carol(), dave()]
}

/// The server's keys, those that were rotated away too.
pub(super) fn server_keys() -> Vec<Key> {
    vec![snapshot_key(), timestamp_key(), second_snapshot_key(), second_timestamp_key()]
}

/// Keys that the newest root and the newest lists do not name any more.
pub(super) fn revoked_keys() -> Vec<Key> {
    vec![root_key(), targets_key(), alice()]
}

/// The attacker's own keys, one of them in a certificate for the repository: anybody can make one.
pub(super) fn own_keys() -> Vec<Key> {
    vec![mallory(), Key::certified("mallory", GUN)]
}

/// The keys that may be pinned: one for each root that was ever valid.
pub(super) fn root_keys() -> Vec<Key> {
    vec![root_key(), second_root_key()]
}

fn mallory() -> Key {
    Key::new("mallory")
}
pub(super) fn carol() -> Key {
    Key::certified("carol", "carol")
}
fn dave() -> Key {
    Key::new("dave")
}
fn second_root_key() -> Key {
    Key::certified("second root", GUN)
}
fn second_targets_key() -> Key {
    Key::new("second targets")
}
fn second_snapshot_key() -> Key {
    Key::ed25519("second snapshot")
}
fn second_timestamp_key() -> Key {
    Key::new("second timestamp")
}
fn second_alice() -> Key {
    Key::certified("second alice", "alice")
}

/// What the repository was, oldest first.
pub(super) fn states() -> Vec<Sealed> {
    let mut forge = first();
    let mut states = vec![forge.seal()];
    forge.tag("targets/releases", "rel", b"rel, second");
    forge.tag("targets/releases", "both", b"newer");
    forge.bump_list("targets/releases");
    states.push(forge.seal());
    rotate_keys(&mut forge);
    states.push(forge.seal());
    rotate_root(&mut forge);
    states.push(forge.seal());
    forge.tag("targets", "t0", b"t0, second");
    forge.bump_list("targets");
    states.push(forge.seal());
    states
}

/// `targets` and `targets/releases` disagree about a tag, other roles speak of it as well, one of them below
/// `targets/releases`, and one needs two signers. No key signs for two roles: their files could be exchanged.
fn first() -> Forge {
    let mut forge = Forge::new();
    forge.delegate("targets", "targets/a", &[&carol()], 1);
    forge.list("targets/a").signed_by(&[&carol()]);
    forge.delegate("targets", "targets/two", &[&bob(), &carol()], 2);
    forge.publish("targets/two", &[&bob(), &carol()]);
    forge.delegate("targets/releases", "targets/releases/sub", &[&dave()], 1);
    forge.publish("targets/releases/sub", &[&dave()]);
    for (role, manifest) in [("targets", "old"), ("targets/releases", "new"), ("targets/a", "other"), ("targets/two", "two")] {
        forge.tag(role, "both", manifest.as_bytes());
    }
    // A hit below `targets/releases` ends the search: `targets` does not release the tag, and would if nobody spoke of it.
    forge.tag("targets/releases/sub", "sub", b"sub");
    forge.tag("targets", "sub", b"overruled");
    for role in ["targets/releases", "targets/a"] {
        forge.tag(role, "agreed", b"agreed");
    }
    forge.tag("targets/two", "two", b"two");
    forge
}

/// New keys for everything but the root.
fn rotate_keys(forge: &mut Forge) {
    let new_root = forge.rotate(&[&root_key()]);
    set_role(&mut new_root.signed, "targets", &[&second_targets_key()], 1);
    set_role(&mut new_root.signed, "snapshot", &[&second_snapshot_key()], 1);
    set_role(&mut new_root.signed, "timestamp", &[&second_timestamp_key()], 1);
    forge.snapshot.signed_by(&[&second_snapshot_key()]);
    forge.timestamp.signed_by(&[&second_timestamp_key()]);
    forge.delegate("targets", "targets/releases", &[&second_alice()], 1);
    forge.list("targets").signed_by(&[&second_targets_key()]);
    forge.list("targets/releases").signed_by(&[&second_alice()]);
    forge.tag("targets/releases", "rel", b"rel, third");
    forge.bump_list("targets");
    forge.bump_list("targets/releases");
}

/// A new root key, and a delegation less.
fn rotate_root(forge: &mut Forge) {
    let new_root = forge.rotate(&[&root_key(), &second_root_key()]);
    set_role(&mut new_root.signed, "root", &[&second_root_key()], 1);
    let roles = forge.list("targets").signed["delegations"]["roles"].as_array_mut().unwrap();
    roles.retain(|role| role["name"] != "targets/b");
    forge.lists.remove("targets/b");
    forge.tag("targets/releases", "rel", b"rel, fourth");
    forge.bump_list("targets");
    forge.bump_list("targets/releases");
}

/// What the attacker has: a repository of another name, given by the owner of the first root; and one of this name, with
/// a root of the attacker's own.
pub(super) fn other_repositories() -> Vec<Sealed> {
    vec![of_mallory(&Key::certified("root", OTHER_GUN)), of_mallory(&Key::certified("mallory", GUN))]
}

fn of_mallory(root_key: &Key) -> Sealed {
    let mut forge = Forge::bare();
    let mallory = mallory();
    let mut document = Document::default();
    document.signed_by(&[root_key]).signed = root(1, &[root_key], &mallory, &mallory, &mallory);
    forge.roots = vec![document];
    forge.snapshot.signed_by(&[&mallory]);
    forge.timestamp.signed_by(&[&mallory]);
    forge.tag("targets", "t0", b"evil");
    forge.list("targets").signed_by(&[&mallory]).set("version", json!(9));
    forge.seal()
}
