//! Names of the configuration that stand for repositories: one, all below a prefix, or all.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString as _};
use core::fmt;
use core::str::FromStr;

use crate::evidence::Gun;
use crate::name::{NameError, RegistryHost, Repository};

/// Names without a host live here; a name that says so itself is written in one of these two ways.
const DEFAULT_HOST: &str = "docker.io";
const WAYS_TO_WRITE_THE_DEFAULT_HOST: [&str; 2] = ["docker.io/", "index.docker.io/"];
/// Stands for any two components, so that a prefix can be read by the rules for whole names. With one component,
/// a name on the default host would be taken for an official image.
const ANY_REPOSITORY: &str = "a/a";

/// Why a text stands for no repositories.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is no repository and no prefix of one.
    #[error("write a repository without tag and digest, or a name that ends in `/*`")]
    Name(#[source] NameError),
    /// A wildcard that would reach into the middle of a name.
    #[error("`*` stands alone, or once at the end and directly after a `/`")]
    Wildcard,
}

/// A repository, every repository below a prefix, or all of them, in canonical form.
///
/// Two patterns that cover one repository are always nested: there is no wildcard but the last component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryPattern {
    /// The repository, or the prefix up to and including its last `/`; empty for all.
    text: String,
    is_prefix: bool,
    host: Option<RegistryHost>,
    host_is_assumed: bool,
}

impl RepositoryPattern {
    /// The registry that the name lies on; none for the name that covers all.
    #[must_use]
    pub const fn host(&self) -> Option<&RegistryHost> {
        self.host.as_ref()
    }

    /// Whether the name was written without a host, and so was read as one on docker.io. Whoever wrote the short name
    /// of a registry of their own did not mean that: say so to them.
    #[must_use]
    pub const fn host_is_assumed(&self) -> bool {
        self.host_is_assumed
    }

    /// Whether the repository is meant. Only whole components count: `reg.test/corp/*` covers `reg.test/corp/app`, and
    /// none of `reg.test/corp-evil/app`.
    #[must_use]
    pub fn covers(&self, gun: &Gun) -> bool {
        self.covers_text(gun.as_str())
    }

    /// Whether everything that this pattern covers is covered by `other`, too.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        if self.is_prefix && !other.is_prefix { false } else { other.covers_text(&self.text) }
    }

    /// Whether more than one repository can be meant.
    #[must_use]
    pub const fn is_prefix(&self) -> bool {
        self.is_prefix
    }

    /// The repository, or the prefix with its last `/`.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn covers_text(&self, text: &str) -> bool {
        if self.is_prefix { text.starts_with(&self.text) } else { text == self.text }
    }

    fn exact(written: &str) -> Result<Self, NameError> {
        let repository: Repository = written.parse()?;
        Ok(Self::on(repository.host(), repository.to_string(), false, written))
    }

    fn prefix(base: &str) -> Result<Self, NameError> {
        let repository: Repository = format!("{base}/{ANY_REPOSITORY}").parse()?;
        let below = repository.to_string();
        let text = below.strip_suffix(ANY_REPOSITORY).unwrap_or(&below);
        Ok(Self::on(repository.host(), text.to_owned(), true, &format!("{base}/")))
    }

    fn on(host: &RegistryHost, text: String, is_prefix: bool, written: &str) -> Self {
        let is_written = WAYS_TO_WRITE_THE_DEFAULT_HOST.iter().any(|way| written.starts_with(way));
        let host_is_assumed = host.as_str() == DEFAULT_HOST && !is_written;
        Self { text, is_prefix, host: Some(host.clone()), host_is_assumed }
    }
}

impl FromStr for RepositoryPattern {
    type Err = PatternError;

    fn from_str(written: &str) -> Result<Self, PatternError> {
        if written == "*" {
            return Ok(Self { text: String::new(), is_prefix: true, host: None, host_is_assumed: false });
        }
        let base = written.strip_suffix("/*");
        if base.unwrap_or(written).contains('*') {
            return Err(PatternError::Wildcard);
        }
        base.map_or_else(|| Self::exact(written), Self::prefix).map_err(PatternError::Name)
    }
}

impl fmt::Display for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if self.is_prefix { f.write_str("*") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> RepositoryPattern {
        text.parse().unwrap()
    }

    fn gun(text: &str) -> Gun {
        Gun::for_repository(&text.parse().unwrap())
    }

    #[test]
    fn a_pattern_covers_whole_components_from_the_first_to_the_last() {
        for (written, repository, covers) in [
            ("r.test/acme/app", "r.test/acme/app", true),
            ("r.test/acme/app", "r.test/acme/app/web", false),
            ("r.test/acme/app", "r.test/acme/app2", false),
            ("r.test/acme/*", "r.test/acme/app", true),
            ("r.test/acme/*", "r.test/acme/team/app", true),
            ("r.test/acme/*", "r.test/acme", false),
            ("r.test/acme/*", "r.test/acme-evil/app", false),
            ("r.test/*", "r.test.evil.test/acme/app", false),
            ("r.test/*", "evil.test/r.test/app", false),
            ("r.test/*", "r.test:5000/acme/app", false),
            ("*", "anything.test/a/b", true),
            ("library/*", "alpine", true),
        ] {
            assert_eq!(pattern(written).covers(&gun(repository)), covers, "{written} and {repository}");
        }
    }

    #[test]
    fn one_pattern_lies_within_another_if_all_that_it_covers_does() {
        for (inner, outer, within) in [
            ("r.test/a/b", "r.test/a/b", true),
            ("r.test/a/b", "r.test/a/*", true),
            ("r.test/a/b/*", "r.test/a/*", true),
            ("r.test/a/*", "r.test/a/*", true),
            ("r.test/a/*", "r.test/a/b", false),
            ("r.test/a/*", "r.test/a/b/*", false),
            ("r.test/a/*", "*", true),
            ("*", "r.test/a/*", false),
            ("*", "*", true),
        ] {
            assert_eq!(pattern(inner).is_within(&pattern(outer)), within, "{inner} in {outer}");
        }
    }
}
