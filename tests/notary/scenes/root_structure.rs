//! Group D: the structure of a root.

use serde_json::{Value, json};

use super::{Cases, Scene};
use crate::forge::{Forge, GUN, Key, root_key, set_role};

pub(super) const SCENES: Cases = &[
    ("no-root-keyids", |_| without_keys("root")),
    ("no-targets-keyids", |_| without_keys("targets")),
    ("no-timestamp-keyids", |_| without_keys("timestamp")),
    ("no-targets-role", |_| without_role("targets")),
    ("no-snapshot-role", |_| without_role("snapshot")),
    ("no-timestamp-role", |_| without_role("timestamp")),
    ("null-snapshot-role", |_| root(|root| root["roles"]["snapshot"] = Value::Null)),
    ("root-keyid-without-key", |_| with_missing_key("root")),
    ("targets-keyid-without-key", |_| with_missing_key("targets")),
    ("snapshot-keyid-without-key", |_| with_missing_key("snapshot")),
    ("timestamp-keyid-without-key", |_| with_missing_key("timestamp")),
    ("extra-role-mirror", |_| root(|root| root["roles"]["mirror"] = json!({"keyids": [root_key().id()], "threshold": 1}))),
    ("extra-unused-keys", |_| root(|root| root["keys"][Key::new("spare").id()] = Key::new("spare").object())),
    ("consistent_snapshot-true", |_| root(|root| root["consistent_snapshot"] = json!(true))),
    ("consistent_snapshot-absent", |_| root(|root| remove(root, "consistent_snapshot"))),
    ("version-0", |_| root(|root| root["version"] = json!(0))),
    ("signed-null", |_| Scene::with("root", |root| root.envelope(|envelope| envelope["signed"] = Value::Null))),
    ("signatures-empty", |_| Scene::with("root", |root| root.signed_by(&[]))),
    ("threshold-2-same-key-two-certs", |_| two_of(&root_key(), &Key::certified("root", "r.test/team/*"))),
    ("threshold-2-duplicate-signature", |_| two_of(&root_key(), &root_key())),
    ("duplicate-keyid-in-role", |_| root(|root| root["roles"]["root"]["keyids"] = json!([root_key().id(), root_key().id()]))),
];

pub(super) fn remove(value: &mut Value, member: &str) {
    value.as_object_mut().unwrap().remove(member).unwrap();
}

fn root(edit: impl Fn(&mut Value) + 'static) -> Scene {
    Scene::with("root", |root| root.before_signing(edit))
}

fn without_keys(role: &'static str) -> Scene {
    root(move |root| root["roles"][role]["keyids"] = json!([]))
}

fn without_role(role: &'static str) -> Scene {
    root(move |root| remove(&mut root["roles"], role))
}

fn with_missing_key(role: &'static str) -> Scene {
    root(move |root| root["roles"][role]["keyids"].as_array_mut().unwrap().push(json!("0".repeat(64))))
}

/// A root that wants two signers, signed by these.
fn two_of(first: &Key, second: &Key) -> Scene {
    let mut forge = Forge::new();
    let other = Key::certified("other root", GUN);
    let listed = if first.id() == second.id() { &other } else { second };
    set_role(&mut forge.root().signed, "root", &[first, listed], 2);
    forge.root().signed_by(&[first, second]);
    Scene::of(forge).also_pinning(&[&other])
}
