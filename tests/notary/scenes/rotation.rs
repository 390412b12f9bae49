//! Group F: from one root to the next.

use serde_json::json;

use super::corruption::flip_bit;
use super::{Cases, Scene};
use crate::forge::{Forge, GUN, Key, LONG_AGO, Sealed, root_key, set_role};

pub(super) const SCENES: Cases = &[
    ("v1-v2-new-key-only", |_| from_first(|forge| to(forge, &second(), &[&second()]))),
    ("v1-v2-old-key-only", |_| from_first(|forge| to(forge, &second(), &[&root_key()]))),
    ("v1-v3-2.root-bad-signature", |_| {
        from_first(|forge| {
            to(forge, &second(), &[&root_key(), &second()]);
            forge.root().envelope(flip_bit);
            to(forge, &third(), &[&second(), &third()]);
        })
    }),
    ("v1-v3-2.root-serves-v1", |_| with_files(|sealed| serve(sealed, 1, 2))),
    // The same key all along: else the reference refuses for another reason.
    ("v1-v3-2.root-serves-v3", |_| {
        let mut scene = from_first(|forge| {
            forge.rotate(&[&root_key()]);
            forge.rotate(&[&root_key()]);
        });
        serve(&mut scene.phases[1].sealed, 3, 2);
        scene
    }),
    ("v1-v2-final-expired", |_| {
        from_first(|forge| {
            to(forge, &second(), &[&root_key(), &second()]);
            forge.root().set("expires", json!(LONG_AGO));
        })
    }),
    ("root-version-rollback-5-to-4", |_| {
        let mut forge = Forge::new();
        for _ in 2..=5 {
            forge.rotate(&[&root_key()]);
        }
        let newest = forge.seal();
        forge.roots.pop();
        forge.bump();
        Scene::sealed([newest, forge.seal()])
    }),
    ("same-root-version-different-bytes", |_| {
        from_first(|forge| {
            forge.root().set("expires", json!("2038-01-01T00:00:00Z"));
        })
    }),
    ("root-jumps-to-version-1000000-same-key", |_| {
        from_first(|forge| {
            forge.rotate(&[&root_key()]).set("version", json!(1_000_000));
        })
    }),
];

fn second() -> Key {
    Key::certified("second root", GUN)
}

fn third() -> Key {
    Key::certified("third root", GUN)
}

/// The next root, for another root key.
fn to(forge: &mut Forge, key: &Key, signers: &[&Key]) {
    set_role(&mut forge.rotate(signers).signed, "root", &[key], 1);
}

/// A client that knows version 1 meets what `change` made of the repository.
fn from_first(change: impl FnOnce(&mut Forge)) -> Scene {
    let mut forge = Forge::new();
    let first = forge.seal();
    forge.bump();
    change(&mut forge);
    Scene::sealed([first, forge.seal()]).also_pinning(&[&second(), &third()])
}

/// A client that knows version 1 meets an honest chain of three whose files are `change`d.
fn with_files(change: impl FnOnce(&mut Sealed)) -> Scene {
    let mut scene = from_first(|forge| {
        to(forge, &second(), &[&root_key(), &second()]);
        to(forge, &third(), &[&second(), &third()]);
    });
    change(&mut scene.phases[1].sealed);
    scene
}

fn serve(sealed: &mut Sealed, version: u64, as_version: u64) {
    let bytes = sealed.files[&format!("repo/{version}.root.json")].clone();
    sealed.files.insert(format!("repo/{as_version}.root.json"), bytes);
}
