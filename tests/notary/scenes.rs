//! The cases of the hostile matrix (`tests/hostile/matrix.tsv`) that are made here, by the names of its rows.
//!
//! `tests/forged` shows each to the trust core, `tests/transport.rs` some over TLS to the daemon's own client, and
//! `integration/differential.rs` some to the real `notary`.

#[path = "scenes/certificates.rs"]
mod certificates;
#[path = "scenes/corruption.rs"]
mod corruption;
#[path = "scenes/delegations.rs"]
mod delegations;
#[path = "scenes/encoding.rs"]
mod encoding;
#[path = "scenes/hashes.rs"]
mod hashes;
#[path = "scenes/pinning.rs"]
mod pinning;
#[path = "scenes/rollback.rs"]
mod rollback;
#[path = "scenes/root_structure.rs"]
mod root_structure;
#[path = "scenes/rotation.rs"]
mod rotation;
#[path = "scenes/signatures.rs"]
mod signatures;
#[path = "scenes/transport.rs"]
mod transport;

use countersign_trust::pin::Pins;
use countersign_trust::time::UnixTime;

use crate::forge::{Document, Forge, GUN, Key, Sealed, root_key};

/// What one client meets, a repository after the other.
pub(crate) struct Scene {
    pub(crate) phases: Vec<Phase>,
    /// Root keys of the repository besides the usual one.
    roots: Vec<Key>,
    /// What the client is told to trust in the last phase; every root key of the repository, if nothing is said.
    pub(crate) pinning: Option<Pinning>,
}

pub(crate) struct Phase {
    pub(crate) sealed: Sealed,
    /// How long after the beginning it is met. The real client, which has its own clock, cannot be shown such a phase.
    pub(crate) seconds_later: i64,
}

/// What the reference client has as `trust_pinning`.
#[derive(Default)]
pub(crate) struct Pinning {
    /// Names and IDs of certificates.
    pub(crate) certificates: Vec<(String, Vec<String>)>,
    /// Names and the PEM text of an authority.
    pub(crate) authorities: Vec<(String, String)>,
    pub(crate) disable_tofu: bool,
}

/// Every tag of the repository that all scenes begin with.
pub(crate) const TAGS: [&str; 5] = ["rel", "t0", "ta", "tab", "tb"];

/// Makes a scene that is met at the given moment first.
type Make = fn(UnixTime) -> Scene;

/// Cases of one file, by name.
type Cases = &'static [(&'static str, Make)];

const GROUPS: [(&str, &[Cases]); 9] = [
    ("D-root-structure", &[root_structure::SCENES]),
    ("E-root-certificate", &[certificates::SCENES]),
    ("F-root-rotation", &[rotation::SCENES]),
    ("G-rollback", &[rollback::SCENES]),
    ("H-delegations", &[delegations::SCENES]),
    ("I-encoding", &[encoding::SCENES, signatures::SCENES]),
    ("J-hash-size", &[hashes::SCENES]),
    ("K-transport", &[transport::SCENES]),
    ("L-trust-pinning", &[pinning::SCENES]),
];

/// The rows that are made here.
pub(crate) fn rows() -> Vec<String> {
    let others = GROUPS.iter().flat_map(|(group, tables)| tables.iter().copied().flatten().map(move |(case, _)| format!("{group}/{case}")));
    corruption::rows().into_iter().chain(others).collect()
}

/// The scene of a row.
pub(crate) fn scene(row: &str, now: UnixTime) -> Option<Scene> {
    let (group, case) = row.split_once('/')?;
    let other = || {
        let (_, tables) = GROUPS.iter().find(|(name, _)| *name == group)?;
        let (_, make) = tables.iter().copied().flatten().find(|(name, _)| *name == case)?;
        Some(make(now))
    };
    corruption::scene(group, case).or_else(other)
}

impl Scene {
    /// A client meets one repository.
    fn of(mut forge: Forge) -> Self {
        Self::sealed([forge.seal()])
    }

    /// A client meets what is served, one after the other.
    fn sealed(phases: impl IntoIterator<Item = Sealed>) -> Self {
        let phases = phases.into_iter().map(|sealed| Phase { sealed, seconds_later: 0 }).collect();
        Self { phases, roots: Vec::new(), pinning: None }
    }

    /// The usual repository, after a change.
    fn changed(change: impl FnOnce(&mut Forge)) -> Self {
        let mut forge = Forge::new();
        change(&mut forge);
        Self::of(forge)
    }

    /// The usual repository with one document changed.
    fn with(role: &str, change: impl FnOnce(&mut Document) -> &mut Document) -> Self {
        Self::changed(|forge| {
            change(forge.document(role));
        })
    }

    fn also_pinning(mut self, roots: &[&Key]) -> Self {
        self.roots.extend(roots.iter().map(|key| (*key).clone()));
        self
    }

    fn told(mut self, pinning: Pinning) -> Self {
        self.pinning = Some(pinning);
        self
    }

    /// The pins of a node in a phase.
    pub(crate) fn pinned(&self, is_last_phase: bool) -> Pinned {
        match &self.pinning {
            Some(pinning) if is_last_phase => pinning.pinned(),
            Some(_) | None => {
                let ids = self.roots.iter().chain([&root_key()]).map(Key::canonical_id).collect();
                Pinned { root_keys: vec![(GUN.to_owned(), ids)], certificate_ids: Vec::new() }
            }
        }
    }
}

/// Entries of countersign's trust pinning: names and IDs.
pub(crate) struct Pinned {
    pub(crate) root_keys: Vec<(String, Vec<String>)>,
    pub(crate) certificate_ids: Vec<(String, Vec<String>)>,
}

impl Pinned {
    /// The pins, or `None` for a configuration that is refused.
    pub(crate) fn pins(&self) -> Option<Pins> {
        let mut pins = Pins::default();
        for (name, ids) in &self.root_keys {
            pins.add_root_keys(name, ids.iter().map(String::as_str)).ok()?;
        }
        for (name, ids) in &self.certificate_ids {
            pins.add_certificate_ids(name, ids.iter().map(String::as_str)).ok()?;
        }
        Some(pins)
    }
}

impl Pinning {
    /// The same for countersign, which has wildcards in `root-keys` alone.
    fn pinned(&self) -> Pinned {
        let (root_keys, certificate_ids) = self.certificates.iter().cloned().partition(|(name, _)| name.ends_with("/*"));
        Pinned { root_keys, certificate_ids }
    }
}
