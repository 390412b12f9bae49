//! The paths of a delegation: prefixes of the names that it may speak of (`docs/notary-v1.md`, 11.1).

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// Prefixes in order, none of them a prefix of another, so that one look decides: a hundred thousand paths in a hundred
/// thousand more must not cost ten thousand million comparisons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paths(Vec<String>);

impl Paths {
    /// Covers every name, as `targets` does.
    pub(crate) fn all() -> Self {
        Self(vec![String::new()])
    }

    /// The paths that `listed` names and `self` may hand on.
    pub(crate) fn within(&self, listed: &[String]) -> Self {
        let mut inner: Vec<&str> = listed.iter().map(String::as_str).filter(|path| self.cover(path)).collect();
        inner.sort_unstable();
        let mut kept: Vec<String> = Vec::new();
        for path in inner {
            if !kept.last().is_some_and(|shorter| path.starts_with(shorter.as_str())) {
                kept.push(path.to_owned());
            }
        }
        Self(kept)
    }

    /// Whether no name is covered.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `name` begins with one of the paths: then it is the last one that does not sort after it.
    pub(crate) fn cover(&self, name: &str) -> bool {
        let after = self.0.partition_point(|path| path.as_str() <= name);
        let candidate = after.checked_sub(1).and_then(|at| self.0.get(at));
        candidate.is_some_and(|path| name.starts_with(path.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_one_look_agrees_with_the_rule(
            outer in prop::collection::vec("[ab]{0,3}", 0..6),
            inner in prop::collection::vec("[ab]{0,4}", 0..6),
            name in "[ab]{0,5}",
        ) {
            let parent = Paths::all().within(&outer);
            prop_assert_eq!(parent.cover(&name), outer.iter().any(|path| name.starts_with(path.as_str())));
            let child = parent.within(&inner);
            let may = inner.iter().any(|path| name.starts_with(path.as_str()) && outer.iter().any(|o| path.starts_with(o.as_str())));
            prop_assert_eq!(child.cover(&name), may);
            prop_assert_eq!(child.is_empty(), !inner.iter().any(|path| outer.iter().any(|o| path.starts_with(o.as_str()))));
        }
    }

    #[test]
    fn a_list_of_no_paths_covers_nothing_and_the_empty_path_everything() {
        assert!(Paths::all().within(&[]).is_empty());
        assert!(!Paths::all().within(&[]).cover(""));
        assert!(Paths::all().cover(""));
        assert!(Paths::all().cover("v1"));
    }
}
