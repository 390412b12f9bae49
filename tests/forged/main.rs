//! Repositories that no archive holds, made here: the rest of the hostile cases of `docs/notary-v1.md`, 14, and attacks of
//! our own.
//!
//! A module for each group of the matrix. Every case says the code that it must be refused with.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "../notary/archive.rs"]
mod archive;
#[allow(dead_code)]
#[path = "../notary/forge.rs"]
mod forge;
#[path = "../notary/node.rs"]
mod node;
#[allow(dead_code)]
#[path = "../notary/scenes.rs"]
mod scenes;
#[path = "../notary/server.rs"]
mod server;
#[allow(dead_code)]
#[path = "../notary/table.rs"]
mod table;

mod attacks;
mod budgets;
mod certificates;
mod delegations;
mod encoding;
mod hashes;
mod history;
mod judgement;
mod matrix;
mod names;
mod offered;
mod pinned;
mod pinning;
mod policy;
mod rollback;
mod root_structure;
mod rotation;

use std::collections::BTreeSet;

use countersign_trust::evidence::Gun;
use countersign_trust::pin::Pins;
use countersign_trust::time::UnixTime;
use forge::{Forge, GUN, Key, NOW, Sealed, root_key};
use node::{Node, Outcome};
use server::Tree;

pub(crate) fn gun() -> Gun {
    Gun::for_repository(&GUN.parse().unwrap())
}

pub(crate) fn now() -> UnixTime {
    UnixTime::parse_rfc3339(NOW).unwrap()
}

/// Pins by public key.
pub(crate) fn pins(roots: &[&Key]) -> Pins {
    let ids: Vec<String> = roots.iter().map(|key| key.canonical_id()).collect();
    let mut pins = Pins::default();
    pins.add_root_keys(GUN, ids.iter().map(String::as_str)).unwrap();
    pins
}

/// A node that looks at a repository again and again.
pub(crate) struct Client {
    pub(crate) node: Node,
    pub(crate) pins: Pins,
    pub(crate) now: UnixTime,
}

impl Client {
    pub(crate) fn new() -> Self {
        Self::pinning(&[&root_key()])
    }

    pub(crate) fn pinning(roots: &[&Key]) -> Self {
        Self { node: Node::default(), pins: pins(roots), now: now() }
    }

    pub(crate) fn look(&mut self, sealed: &Sealed) -> Outcome {
        self.node.refresh(&gun(), &self.pins, self.now, &Tree::new(&sealed.files, "repo"))
    }

    pub(crate) fn code(&mut self, sealed: &Sealed) -> String {
        code(&self.look(sealed))
    }

    /// Looks at a repository that must be good.
    pub(crate) fn after(sealed: &Sealed) -> Self {
        let mut client = Self::new();
        assert_eq!(client.code(sealed), "accept");
        client
    }
}

/// `accept`, or the code of the refusal.
pub(crate) fn code(outcome: &Outcome) -> String {
    outcome.as_ref().map_or_else(Clone::clone, |_| "accept".to_owned())
}

/// What a node that knows nothing says of a repository.
pub(crate) fn fresh(forge: &mut Forge) -> String {
    Client::new().code(&forge.seal())
}

/// The tags that a node that knows nothing may use, or why none.
pub(crate) fn visible(forge: &mut Forge) -> String {
    match Client::new().look(&forge.seal()) {
        Err(code) => code,
        Ok(trusted) => trusted.listed().map(|(_, tag, _)| tag).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" "),
    }
}

pub(crate) const ALL_TAGS: &str = "rel t0 ta tab tb";

#[test]
fn an_honest_repository_is_good() {
    assert_eq!(visible(&mut Forge::new()), ALL_TAGS);
    assert_eq!(fresh(&mut Forge::bare()), "accept");
}
