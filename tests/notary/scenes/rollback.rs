//! Group G: old data, and a server that is not there.

use serde_json::json;

use super::{Cases, Phase, Scene};
use crate::forge::{Forge, Key, Sealed, root_key, set_role};

const DAYS: i64 = 24 * 3600;

pub(super) const SCENES: Cases = &[
    ("targets_releases-version-3-to-2", |_| {
        from_three(|forge| {
            // With a newer parent: below one that has not changed the reference lets it pass.
            forge.bump_list("targets");
            forge.list("targets/releases").set("version", json!(2));
        })
    }),
    ("all-versions-equal-new-content", |_| {
        from_three(|forge| {
            for role in ["targets", "targets/releases", "targets/a", "targets/a/b", "targets/b", "snapshot", "timestamp"] {
                forge.document(role).set("expires", json!("2038-01-01T00:00:00Z"));
            }
        })
    }),
    ("offline-cached-timestamp-expired", |_| {
        let mut forge = at_three();
        forge.timestamp.set("expires", json!("2030-01-15T00:00:00Z"));
        let sealed = forge.seal();
        let mut scene = Scene::sealed([sealed.clone()]);
        scene.phases.push(Phase { sealed: sealed.status("*", 503), seconds_later: 15 * DAYS });
        scene
    }),
    ("repository-deleted-on-server-cache-present", |_| {
        Scene::sealed([at_three().seal(), Sealed { files: std::collections::BTreeMap::new() }])
    }),
    ("genuine-old-delegation-replayed-parent-unchanged", |_| {
        let mut forge = at_three();
        forge.list("targets/a").set("version", json!(2));
        let old = forge.list("targets/a").bytes();
        forge.list("targets/a").set("version", json!(3));
        forge.tag("targets/a", "ta", b"newer");
        let seen = forge.seal();
        forge.bump();
        let mut lists: std::collections::BTreeMap<_, _> = forge.lists.iter().map(|(role, list)| (role.clone(), list.bytes())).collect();
        lists.insert("targets/a".into(), old);
        Scene::sealed([seen, forge.seal_with(&lists)])
    }),
    ("timestamp-key-rotated-and-version-restarts-at-1", |_| {
        from_three(|forge| {
            let new = Key::ed25519("new timestamp");
            set_role(&mut forge.rotate(&[&root_key()]).signed, "timestamp", &[&new], 1);
            forge.bump();
            forge.timestamp.set("version", json!(1)).signed_by(&[&new]);
        })
    }),
    ("server-401-cache-present", |_| {
        let sealed = at_three().seal();
        Scene::sealed([sealed.clone(), sealed.status("*", 401)])
    }),
];

/// The usual repository with every version at 3.
fn at_three() -> Forge {
    let mut forge = Forge::new();
    for role in ["targets", "targets/releases", "targets/a", "targets/a/b", "targets/b", "snapshot", "timestamp"] {
        forge.document(role).set("version", json!(3));
    }
    forge
}

/// A client that knows every version 3 meets what `change` made of the repository.
fn from_three(change: impl FnOnce(&mut Forge)) -> Scene {
    let mut forge = at_three();
    let seen = forge.seal();
    change(&mut forge);
    Scene::sealed([seen, forge.seal()])
}
