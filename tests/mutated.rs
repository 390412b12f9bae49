//! Damaged repositories: whatever is done to the bytes, nothing panics, and nothing but the honest digests is released.
//!
//! The captured repositories are damaged as they are; made ones are damaged below the snapshot and sealed again, as a
//! server with the keys of timestamp and snapshot can.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "notary/archive.rs"]
mod archive;
#[allow(dead_code)]
#[path = "notary/forge.rs"]
mod forge;
#[path = "notary/node.rs"]
mod node;
#[path = "notary/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use countersign_trust::evidence::Gun;
use countersign_trust::name::{ImageReference, ManifestDigest, Repository};
use countersign_trust::pin::Pins;
use countersign_trust::time::UnixTime;
use forge::{Forge, Key, root_key};
use node::{Node, Outcome};
use proptest::prelude::*;
use proptest::sample::Index;
use server::Tree;

/// What is done to a file.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Delete(Index, Index),
    /// A piece of the file stands in another place too.
    Repeat(Index, Index, Index),
    /// A piece of one file becomes a file.
    Swap(Index),
    Remove,
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>, others: &[Vec<u8>]) -> bool {
        let place = |index: &Index, bytes: &[u8]| if bytes.is_empty() { 0 } else { index.index(bytes.len()) };
        match self {
            Self::Flip(at, with) => {
                let at = place(at, bytes);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= with);
            }
            Self::Insert(at, piece) => {
                let at = place(at, bytes);
                drop(bytes.splice(at..at, piece.iter().copied()));
            }
            Self::Delete(from, count) => {
                let from = place(from, bytes);
                let until = (from + count.index(20)).min(bytes.len());
                drop(bytes.drain(from..until));
            }
            Self::Repeat(from, count, at) => {
                let from = place(from, bytes);
                let piece = bytes[from..(from + count.index(80)).min(bytes.len())].to_vec();
                let at = place(at, bytes);
                drop(bytes.splice(at..at, piece));
            }
            Self::Swap(with) => *bytes = others[with.index(others.len())].clone(),
            Self::Remove => return false,
        }
        true
    }
}

fn damages() -> impl Strategy<Value = Damage> {
    let pieces: Vec<&'static str> =
        vec!["\"", "{", "}", "[", ",", "null", "0", "-1", "1e3", "\\u003c", "\\ud800", "\"version\":9,", "=", "\n", " ", "A"];
    let index = any::<Index>;
    prop_oneof![
        4 => (index(), 1..=255_u8).prop_map(|(at, with)| Damage::Flip(at, with)),
        2 => (index(), prop::sample::select(pieces)).prop_map(|(at, piece)| Damage::Insert(at, piece.as_bytes().to_vec())),
        2 => (index(), index()).prop_map(|(from, count)| Damage::Delete(from, count)),
        1 => (index(), index(), index()).prop_map(|(from, count, at)| Damage::Repeat(from, count, at)),
        1 => index().prop_map(Damage::Swap),
        1 => Just(Damage::Remove),
    ]
}

/// What a repository releases: the digest of each tag.
type Released = BTreeMap<String, ManifestDigest>;

fn released(outcome: &Outcome, gun: &str, tags: &[&str]) -> Released {
    let Ok(trusted) = outcome else { return Released::new() };
    let judge = |tag: &str| trusted.judge(&format!("{gun}:{tag}").parse::<ImageReference>().unwrap()).ok();
    tags.iter().filter_map(|tag| Some(((*tag).to_owned(), judge(tag)?.digest))).collect()
}

/// A damaged repository may release less, and never something else.
fn is_honest(found: &Released, honest: &Released) -> bool {
    found.iter().all(|(tag, digest)| honest.get(tag) == Some(digest))
}

struct Captured {
    directory: &'static str,
    before: &'static str,
    gun: &'static str,
    root_keys: &'static [&'static str],
    now: &'static str,
    tags: &'static [&'static str],
}

const CAPTURED: [Captured; 2] = [
    Captured {
        directory: "team-app--12-conflicting-digests",
        before: "team-app--05-targets-key-rotated",
        gun: "localhost:15000/team/app",
        root_keys: &[
            "0c37ee250bc8184b398d8ea706caaf924670560ca0359e17cd6c7314cd999310",
            "1548055c1603f3a2ff92494fe625716da14859ef868a92da4b25a521614494c4",
        ],
        now: "2026-11-22T06:00:00Z",
        tags: &["v1", "v2", "v3", "release-1"],
    },
    Captured {
        directory: "trustdemo--04-erin-signs-2",
        before: "trustdemo--03-cosigned",
        gun: "msr.example.com/admin/trustdemo",
        root_keys: &["7d6b4b30239c4233054127dc48c51b7c1dfd4525130d1af52348e763766c2fb7"],
        now: "2026-11-22T06:00:00Z",
        tags: &["1", "2", "3"],
    },
];

fn files() -> &'static BTreeMap<String, Vec<u8>> {
    static FILES: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(|| archive::files("live.tar.xz"))
}

impl Captured {
    fn refresh(&self, node: &mut Node, files: &BTreeMap<String, Vec<u8>>, directory: &str) -> Outcome {
        let mut pins = Pins::default();
        pins.add_root_keys(self.gun, self.root_keys.iter().copied()).unwrap();
        let gun = Gun::for_repository(&self.gun.parse::<Repository>().unwrap());
        let now = UnixTime::parse_rfc3339(self.now).unwrap();
        node.refresh(&gun, &pins, now, &Tree::captured(files, &format!("live/{directory}")))
    }

    /// The files that a reader of this repository asks for.
    fn names(&self) -> Vec<&'static String> {
        let prefix = format!("live/{}/", self.directory);
        files().keys().filter(|name| name.strip_prefix(&prefix).is_some_and(|name| !name.starts_with("current/targets"))).collect()
    }
}

fn sample() -> (Forge, Released) {
    let mut forge = Forge::new();
    // Files of two roles with one signer can be exchanged, and nobody can tell (13.2).
    let carol = Key::certified("carol", "carol");
    forge.delegate("targets", "targets/a", &[&carol], 1);
    forge.list("targets/a").signed_by(&[&carol]);
    forge.tag("targets", "both", b"old");
    forge.tag("targets/releases", "both", b"new");
    forge.tag("targets/a", "both", b"other");
    let outcome = look(&mut Node::default(), &forge.seal());
    let honest = released(&outcome, forge::GUN, &TAGS);
    assert_eq!(honest.len(), 3);
    (forge, honest)
}

const TAGS: [&str; 6] = ["t0", "rel", "both", "ta", "tab", "tb"];

fn look(node: &mut Node, sealed: &forge::Sealed) -> Outcome {
    let mut pins = Pins::default();
    pins.add_root_keys(forge::GUN, [root_key().canonical_id().as_str()]).unwrap();
    let gun = Gun::for_repository(&forge::GUN.parse().unwrap());
    node.refresh(&gun, &pins, UnixTime::parse_rfc3339(forge::NOW).unwrap(), &Tree::new(&sealed.files, "repo"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_capture_releases_nothing_else(which in 0..2_usize, file in any::<Index>(), damages in prop::collection::vec(damages(), 1..4)) {
        let captured = &CAPTURED[which];
        let honest = released(&captured.refresh(&mut Node::default(), files(), captured.directory), captured.gun, captured.tags);
        prop_assert!(honest.len() >= 2);
        let name = file.get(&captured.names()).to_owned();
        let mut changed = files().clone();
        let others: Vec<Vec<u8>> = captured.names().into_iter().map(|name| changed[name].clone()).collect();
        let mut bytes = changed[name].clone();
        if damages.iter().all(|damage| damage.apply(&mut bytes, &others)) {
            changed.insert(name.clone(), bytes);
        } else {
            changed.remove(name);
        }
        let mut with_history = Node::default();
        prop_assert!(captured.refresh(&mut with_history, files(), captured.before).is_ok());
        for mut node in [Node::default(), with_history] {
            let outcome = captured.refresh(&mut node, &changed, captured.directory);
            prop_assert!(is_honest(&released(&outcome, captured.gun, captured.tags), &honest), "{name}");
            let after = captured.refresh(&mut node, files(), captured.directory);
            prop_assert_eq!(released(&after, captured.gun, captured.tags), honest.clone(), "the honest files are good afterwards");
        }
    }

    #[test]
    fn a_damaged_list_sealed_again_releases_nothing_else(role in 0..5_usize, damages in prop::collection::vec(damages(), 1..4)) {
        let (mut forge, honest) = sample();
        let mut node = Node::default();
        prop_assert!(look(&mut node, &forge.seal()).is_ok());
        let mut lists: BTreeMap<String, Vec<u8>> = forge.lists.iter().map(|(role, document)| (role.clone(), document.bytes())).collect();
        let others: Vec<Vec<u8>> = lists.values().cloned().collect();
        let role = lists.keys().nth(role).unwrap().clone();
        let bytes = lists.get_mut(&role).unwrap();
        let is_there = damages.iter().all(|damage| damage.apply(bytes, &others));
        if !is_there {
            lists.remove(&role);
        }
        forge.bump();
        // Without history, a list that is left out of the snapshot is no data (13.3); every other change is found.
        let hidden = !is_there && role == "targets/releases";
        if role != "targets" || is_there {
            let sealed = forge.seal_with(&lists);
            let fresh = released(&look(&mut Node::default(), &sealed), forge::GUN, &TAGS);
            prop_assert!(hidden || is_honest(&fresh, &honest), "{role}: {fresh:?}");
            prop_assert!(is_honest(&released(&look(&mut node, &sealed), forge::GUN, &TAGS), &honest), "{role}");
        }
    }

    #[test]
    fn a_list_changed_by_one_who_may_not_sign_releases_nothing_else(role in 0..5_usize, tag in 0..6_usize, key in 0..3_usize) {
        let (mut forge, honest) = sample();
        let role = forge.lists.keys().nth(role).unwrap().clone();
        forge.tag(&role, TAGS[tag], b"evil");
        forge.list(&role).signed_by(&[&[Key::new("mallory"), forge::snapshot_key(), forge::timestamp_key()][key]]);
        forge.bump_list(&role);
        prop_assert!(is_honest(&released(&look(&mut Node::default(), &forge.seal()), forge::GUN, &TAGS), &honest));
    }

    #[test]
    fn a_signer_of_one_list_changes_nothing_that_another_releases(tag in 0..6_usize) {
        let (mut forge, honest) = sample();
        forge.tag("targets/a", TAGS[tag], b"evil");
        forge.tag("targets/a/b", TAGS[tag], b"evil");
        forge.bump_list("targets/a");
        prop_assert_eq!(released(&look(&mut Node::default(), &forge.seal()), forge::GUN, &TAGS), honest);
    }
}
