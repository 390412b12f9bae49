//! The root keys of Docker Official Images.

use alloc::collections::BTreeSet;
use alloc::collections::btree_map::Entry;
use alloc::string::String;

use super::{Anchor, Pins};
use crate::name::{Sha256, shown};

/// What `official-library-images` pins: as if it stood in `root-keys` (`docs/notary-v1.md`, 7.3).
pub(super) const PREFIX: &str = "docker.io/library/";
/// The keys that this version was built with.
const BUILT_IN: &str = include_str!("../official-root-keys.txt");

/// A line of a list of official root keys that is no ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: `{found}` is no root key ID: that has 64 hexadecimal digits")]
pub struct OfficialKeysError {
    /// The line, from 1.
    pub line: usize,
    /// What stands there, escaped.
    pub found: String,
}

/// Canonical IDs of the root keys of Docker Official Images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfficialKeys(BTreeSet<Sha256>);

impl OfficialKeys {
    /// The keys that this version was built with.
    #[must_use]
    pub fn built_in() -> Self {
        // A test reads it, and an empty set trusts nothing.
        Self::read(BUILT_IN).unwrap_or(Self(BTreeSet::new()))
    }

    /// Reads one ID on a line; what follows a `#` is no part of it.
    ///
    /// # Errors
    /// [`OfficialKeysError`] for the first line that is no ID. An empty list is none: nothing is trusted by it.
    pub fn read(text: &str) -> Result<Self, OfficialKeysError> {
        let mut keys = BTreeSet::new();
        for (line, content) in (1..).zip(text.lines()) {
            let id = content.split('#').next().unwrap_or_default().trim().to_ascii_lowercase();
            if !id.is_empty() {
                keys.insert(Sha256::from_hex(&id).map_err(|_| OfficialKeysError { line, found: shown(&id) })?);
            }
        }
        Ok(Self(keys))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Pins {
    /// Pins Docker Official Images, unless `docker.io/library/*` is pinned already: the operator's own list replaces ours.
    pub fn add_official_library(&mut self, keys: OfficialKeys) {
        if let Entry::Vacant(vacant) = self.root_key_prefixes.entry(PREFIX.into()) {
            vacant.insert(Anchor::RootKeys(keys.0));
            self.official_is_ours = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Gun;

    const HUB_2018: &str = "c15164663f80d58bf3d8d5a0cd08b8086cba02065feb00421fc2a5436c563210";
    const OWN: &str = "1111111111111111111111111111111111111111111111111111111111111111";

    fn anchor(pins: &Pins, repository: &str) -> Option<Anchor> {
        pins.anchor_for(&Gun::for_repository(&repository.parse().unwrap())).cloned()
    }

    #[test]
    fn the_built_in_list_has_the_keys_of_the_engine() {
        let Anchor::RootKeys(keys) = Anchor::RootKeys(OfficialKeys::built_in().0) else { panic!("root keys") };
        assert_eq!(keys.len(), 19);
        assert!(keys.contains(&Sha256::from_hex(HUB_2018).unwrap()));
    }

    #[test]
    fn official_images_are_those_of_docker_hubs_library_alone() {
        let mut pins = Pins::default();
        pins.add_official_library(OfficialKeys::built_in());
        assert!(anchor(&pins, "alpine").is_some());
        assert!(anchor(&pins, "docker.io/library/alpine").is_some());
        for other in ["docker.io/bob/app", "r.test/library/alpine", "docker.io/libraryevil/x"] {
            assert_eq!(anchor(&pins, other), None, "{other}");
        }
    }

    #[test]
    fn an_entry_of_the_operators_own_for_the_library_replaces_the_list_and_a_wider_one_does_not() {
        let own = || Some(Anchor::RootKeys([Sha256::from_hex(OWN).unwrap()].into()));
        let mut replaced = Pins::default();
        replaced.add_root_keys("docker.io/library/*", [OWN]).unwrap();
        replaced.add_official_library(OfficialKeys::built_in());
        assert_eq!(anchor(&replaced, "alpine"), own());
        let mut wider = Pins::default();
        wider.add_root_keys("docker.io/*", [OWN]).unwrap();
        wider.add_official_library(OfficialKeys::built_in());
        assert_ne!(anchor(&wider, "alpine"), own());
        assert_eq!(anchor(&wider, "docker.io/bob/app"), own());
    }

    #[test]
    fn a_list_is_read_with_its_remarks_and_refused_with_the_line_that_is_no_id() {
        let list = alloc::format!("# keys\n\n{} # alpine\r\n", OWN.to_ascii_uppercase());
        assert_eq!(OfficialKeys::read(&list).map(|keys| keys.0.len()), Ok(1));
        let error = OfficialKeys::read("# one\n0123\n").unwrap_err();
        assert_eq!(error, OfficialKeysError { line: 2, found: "0123".into() });
        assert!(OfficialKeys::read("").is_ok_and(|keys| keys.is_empty()));
    }
}
