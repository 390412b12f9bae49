//! Roles of a Notary v1 repository.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use crate::name::shown;

/// A delegation's name is no longer than this (notary `tuf/data/roles.go`).
const MAX_ROLE_BYTES: usize = 255;

/// The text is not the name of a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("delegation role `{0}` is invalid")]
pub struct RoleNameError(String);

/// A delegation: `targets/` and one or more components.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DelegationRole(String);

impl DelegationRole {
    /// The delegation that docker's tools write by convention.
    pub const RELEASES: &'static str = "targets/releases";

    /// The whole name, `targets/releases`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the role that `docker pull` looks at first.
    #[must_use]
    pub fn is_releases(&self) -> bool {
        self.0 == Self::RELEASES
    }

    /// Whether this is that role or lies below it: these are asked before `targets` is.
    #[must_use]
    pub fn is_within_releases(&self) -> bool {
        self.0.strip_prefix(Self::RELEASES).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether this role lies one level below `parent`, given by its whole name.
    #[must_use]
    pub fn is_direct_child_of(&self, parent: &str) -> bool {
        let below = self.0.strip_prefix(parent).and_then(|rest| rest.strip_prefix('/'));
        below.is_some_and(|rest| !rest.contains('/'))
    }
}

impl FromStr for DelegationRole {
    type Err = RoleNameError;

    fn from_str(text: &str) -> Result<Self, RoleNameError> {
        let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'/');
        let rest = text.strip_prefix("targets/").unwrap_or_default();
        let fits = text.len() <= MAX_ROLE_BYTES
            && !rest.is_empty()
            && rest.bytes().all(is_allowed)
            && rest.split('/').all(|part| !part.is_empty());
        if fits { Ok(Self(text.to_owned())) } else { Err(RoleNameError(shown(text))) }
    }
}

impl fmt::Display for DelegationRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DelegationRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A role that has a file of its own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleName {
    /// Names all base roles' keys.
    Root,
    /// Names the newest snapshot.
    Timestamp,
    /// Names the newest file of every other role.
    Snapshot,
    /// The repository's own list of tags and delegations.
    Targets,
    /// A list of tags that the repository has delegated.
    Delegation(DelegationRole),
}

impl RoleName {
    /// Whether its list is a person's or a team's own: neither the repository's, nor a released one.
    #[must_use]
    pub fn is_personal(&self) -> bool {
        match self {
            Self::Delegation(role) => !role.is_within_releases(),
            Self::Root | Self::Timestamp | Self::Snapshot | Self::Targets => false,
        }
    }

    /// Whether this is `targets/releases` or lies below it.
    #[must_use]
    pub fn is_within_releases(&self) -> bool {
        match self {
            Self::Delegation(role) => role.is_within_releases(),
            Self::Root | Self::Timestamp | Self::Snapshot | Self::Targets => false,
        }
    }

    /// The name as it stands in file names and in a snapshot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Root => "root",
            Self::Timestamp => "timestamp",
            Self::Snapshot => "snapshot",
            Self::Targets => "targets",
            Self::Delegation(role) => role.as_str(),
        }
    }
}

impl FromStr for RoleName {
    type Err = RoleNameError;

    fn from_str(text: &str) -> Result<Self, RoleNameError> {
        match text {
            "root" => Ok(Self::Root),
            "timestamp" => Ok(Self::Timestamp),
            "snapshot" => Ok(Self::Snapshot),
            "targets" => Ok(Self::Targets),
            other => other.parse().map(Self::Delegation),
        }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn delegations_are_lower_case_paths_below_targets() {
        for good in ["targets/a", "targets/level1/level2/under_score", "targets/hyphen-hyphen"] {
            assert!(good.parse::<DelegationRole>().is_ok(), "{good}");
        }
        let long = format!("targets/{}", "a".repeat(248));
        for bad in
            ["targets", "targets/", "targets/A", "targets/a/", "targets//a", "targets/../a", "targets/a b", "root", "xtargets/a", &long]
        {
            assert!(bad.parse::<DelegationRole>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_next_level_is_a_direct_child() {
        let child: DelegationRole = "targets/a/b".parse().unwrap();
        assert!(child.is_direct_child_of("targets/a"));
        assert!(!child.is_direct_child_of("targets"));
        assert!(!child.is_direct_child_of("targets/a/b"));
        assert!(!"targets/ab".parse::<DelegationRole>().unwrap().is_direct_child_of("targets/a"));
    }
}
