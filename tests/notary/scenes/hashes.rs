//! Group J: hashes and lengths, and bodies that are not what was promised.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::root_structure::remove;
use super::{Cases, Scene};
use crate::forge::Forge;

const MIB: u64 = 1 << 20;
const TARGETS_BY_HASH: &str = "targets.[0-9a-f]*.json";

pub(super) const SCENES: Cases = &[
    ("snapshot-no-root-meta", |_| snapshot(|meta| remove(meta, "root"))),
    ("snapshot-no-targets-meta", |_| snapshot(|meta| remove(meta, "targets"))),
    ("snapshot-length-too-small", |_| snapshot(|meta| lengthen(&mut meta["targets"], -1))),
    ("snapshot-length-too-big", |_| snapshot(|meta| lengthen(&mut meta["targets"], 1))),
    ("timestamp-no-snapshot-meta", |_| timestamp(|meta| remove(meta, "snapshot"))),
    ("timestamp-sha256-31-bytes", |_| timestamp(|meta| meta["snapshot"]["hashes"]["sha256"] = json!(STANDARD.encode([7; 31])))),
    ("timestamp-extra-meta-roles", |_| timestamp(|meta| meta["root"] = meta["snapshot"].clone())),
    ("timestamp-1MiB-padding-content-length", |_| served("timestamp.json", json!({"pad": MIB}))),
    ("timestamp-1MiB-padding-chunked", |_| served("timestamp.json", json!({"pad": MIB, "chunked": true}))),
    ("targets-padded-chunked", |_| served(TARGETS_BY_HASH, json!({"pad": 100, "chunked": true}))),
    ("targets-padded-content-length", |_| served(TARGETS_BY_HASH, json!({"pad": 100}))),
    ("targets-truncated", |_| served(TARGETS_BY_HASH, json!({"truncate": 5}))),
    ("root-110MiB-content-length", |_| served("root.json", json!({"pad": 110 * MIB}))),
    ("root-padded-2MiB-whitespace", |_| served("*root*.json", json!({"pad": 2 * MIB}))),
];

fn snapshot(change: impl Fn(&mut Value) + 'static) -> Scene {
    Scene::with("snapshot", |snapshot| snapshot.before_signing(move |signed| change(&mut signed["meta"])))
}

fn timestamp(change: impl Fn(&mut Value) + 'static) -> Scene {
    Scene::with("timestamp", |timestamp| timestamp.before_signing(move |signed| change(&mut signed["meta"])))
}

fn lengthen(entry: &mut Value, by: i64) {
    entry["length"] = json!(entry["length"].as_i64().unwrap() + by);
}

/// The usual repository, one file of which is sent otherwise.
pub(super) fn served(file: &str, otherwise: Value) -> Scene {
    Scene::sealed([Forge::new().seal().answering(file, otherwise)])
}
