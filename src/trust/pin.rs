//! Trust pinning: which root keys or root certificates anchor the trust in a repository.
//!
//! A repository that no pin covers is not trusted; there is no trust on first use (`docs/notary-v1.md`, 7.3).

mod official;

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::evidence::Gun;
use crate::key::{CanonicalKeyId, KeyId};
use crate::name::{NameError, Sha256, shown};
use crate::pattern::{PatternError, RepositoryPattern};

pub use official::{OfficialKeys, OfficialKeysError};

/// What the root of a repository must carry to be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchor {
    /// Key IDs of the root's certificates as `docker trust inspect` shows them. A new certificate needs a new entry.
    CertificateIds(BTreeSet<Sha256>),
    /// Canonical IDs of the root's public keys. A new certificate for the same key needs no new entry.
    RootKeys(BTreeSet<Sha256>),
}

impl Anchor {
    /// The IDs, whichever kind they are of.
    #[must_use]
    pub const fn ids(&self) -> &BTreeSet<Sha256> {
        match self {
            Self::CertificateIds(ids) | Self::RootKeys(ids) => ids,
        }
    }

    /// Whether a root key is one of these: by its certificate's ID, or by its own.
    #[must_use]
    pub fn names(&self, certificate_id: &KeyId, canonical_id: Option<&CanonicalKeyId>) -> bool {
        match self {
            Self::CertificateIds(ids) => ids.contains(certificate_id.hash()),
            Self::RootKeys(ids) => canonical_id.is_some_and(|id| ids.contains(id.hash())),
        }
    }
}

/// Which of the two lists of the configuration is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinList {
    /// `cert-ids`.
    CertificateIds,
    /// `root-keys`.
    RootKeys,
}

impl PinList {
    const fn what_it_holds(self) -> &'static str {
        match self {
            Self::CertificateIds => "certificate",
            Self::RootKeys => "root key",
        }
    }
}

impl fmt::Display for PinList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CertificateIds => "cert-ids",
            Self::RootKeys => "root-keys",
        })
    }
}

/// Why an entry of the trust pinning cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// The name is no repository and no prefix of one.
    #[error("`{name}` cannot be pinned: a pin names a repository, without tag and digest")]
    Name {
        /// The name as it was written.
        name: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// A wildcard that would reach into the middle of a name.
    #[error("`{name}` cannot be pinned: `*` stands alone, or once at the end and directly after a `/`")]
    Wildcard {
        /// The name as it was written.
        name: String,
    },
    /// A wildcard where names are exact.
    #[error("`{name}` cannot be pinned in `cert-ids`: certificate IDs belong to one repository; a name with `*` goes into `root-keys`")]
    WildcardInCertificateIds {
        /// The name as it was written.
        name: String,
    },
    /// No ID. The words before the colon are the Docker Engine's.
    #[error("invalid content trust configuration - {} lists cannot be empty: `{name}` has none", list.what_it_holds())]
    EmptyList {
        /// The list.
        list: PinList,
        /// The name as it was written.
        name: String,
    },
    /// An ID that is not a SHA-256 hash.
    #[error("`{id}`, pinned for `{name}`, is no {} ID: that has 64 hexadecimal digits", list.what_it_holds())]
    Id {
        /// The list.
        list: PinList,
        /// The name as it was written.
        name: String,
        /// The ID as it was written.
        id: String,
        /// Where in the list it stands, from 0.
        position: usize,
    },
    /// Two entries of one list for the same repositories.
    #[error("`{name}` is pinned twice in `{list}`: another entry is read as `{canonical}` too")]
    Twice {
        /// The list.
        list: PinList,
        /// The name as it was written.
        name: String,
        /// How both are read.
        canonical: RepositoryPattern,
    },
}

/// Where in the configuration a pin stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinSource {
    /// In one of the two lists.
    List(PinList),
    /// In neither: `official-library-images` brings it.
    OfficialLibrary,
}

impl fmt::Display for PinSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(list) => list.fmt(f),
            Self::OfficialLibrary => f.write_str("official-library-images"),
        }
    }
}

/// The pin that answers for a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Where it stands.
    pub source: PinSource,
    /// The name that it is for, in canonical form: a repository, or a prefix that ends in `*`.
    pub name: String,
    /// What it pins.
    pub anchor: Anchor,
}

/// All pins of a configuration. Without any, no repository is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pins {
    certificate_ids: BTreeMap<String, Anchor>,
    root_keys: BTreeMap<String, Anchor>,
    root_key_prefixes: BTreeMap<String, Anchor>,
    /// The entry for official images is not of the operator's own.
    official_is_ours: bool,
}

impl Pins {
    /// Pins one repository to the IDs of its root certificates, and tells how the name was read.
    ///
    /// # Errors
    /// Everything that is wrong with the entry; then nothing is pinned.
    pub fn add_certificate_ids<'a>(
        &mut self,
        name: &str,
        ids: impl IntoIterator<Item = &'a str>,
    ) -> Result<RepositoryPattern, Vec<PinError>> {
        let list = PinList::CertificateIds;
        let (name, ids) = read_entry(list, name, ids)?;
        insert(&mut self.certificate_ids, list, name, Anchor::CertificateIds(ids))
    }

    /// Pins a repository, or all repositories below a name that ends in `/*`, or all with `*`, to canonical IDs of root
    /// keys, and tells how the name was read.
    ///
    /// # Errors
    /// Everything that is wrong with the entry; then nothing is pinned.
    pub fn add_root_keys<'a>(&mut self, name: &str, ids: impl IntoIterator<Item = &'a str>) -> Result<RepositoryPattern, Vec<PinError>> {
        let list = PinList::RootKeys;
        let (name, ids) = read_entry(list, name, ids)?;
        let known = if name.read.is_prefix() { &mut self.root_key_prefixes } else { &mut self.root_keys };
        insert(known, list, name, Anchor::RootKeys(ids))
    }

    /// Whether nothing is pinned at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.certificate_ids.is_empty() && self.root_keys.is_empty() && self.root_key_prefixes.is_empty()
    }

    /// What anchors the trust in `gun`; none means that the repository is not trusted.
    ///
    /// The first that matches decides, and its failure is final: exact `cert-ids`, exact `root-keys`, the longest prefix
    /// in `root-keys` (`docs/notary-v1.md`, 7.3).
    #[must_use]
    pub fn anchor_for(&self, gun: &Gun) -> Option<&Anchor> {
        self.entry_for(gun).map(|entry| entry.anchor)
    }

    /// The pin that answers for `gun`, as [`Self::anchor_for`] chooses it, with where it stands.
    #[must_use]
    pub fn pin_for(&self, gun: &Gun) -> Option<Pin> {
        let Entry { source, name, anchor } = self.entry_for(gun)?;
        let is_prefix = name != gun.as_str();
        Some(Pin { source, name: if is_prefix { format!("{name}*") } else { name.to_owned() }, anchor: anchor.clone() })
    }

    fn entry_for(&self, gun: &Gun) -> Option<Entry<'_>> {
        let exact = |list, entries| Entry::of(PinSource::List(list), entries, gun.as_str());
        let by_certificate = exact(PinList::CertificateIds, &self.certificate_ids);
        let by_key = || exact(PinList::RootKeys, &self.root_keys);
        let by_prefix = || prefixes(gun.as_str()).find_map(|prefix| self.prefix_entry(prefix));
        by_certificate.or_else(by_key).or_else(by_prefix)
    }

    fn prefix_entry(&self, prefix: &str) -> Option<Entry<'_>> {
        let is_ours = self.official_is_ours && prefix == official::PREFIX;
        let source = if is_ours { PinSource::OfficialLibrary } else { PinSource::List(PinList::RootKeys) };
        Entry::of(source, &self.root_key_prefixes, prefix)
    }
}

/// A pin as it is found.
struct Entry<'a> {
    source: PinSource,
    name: &'a str,
    anchor: &'a Anchor,
}

impl<'a> Entry<'a> {
    fn of(source: PinSource, entries: &'a BTreeMap<String, Anchor>, name: &str) -> Option<Self> {
        let (name, anchor) = entries.get_key_value(name)?;
        Some(Self { source, name, anchor })
    }
}

/// What `gun` lies below, the longest first and the empty name of everything last. Only whole components count:
/// `reg.test/corp/` is a prefix of `reg.test/corp/app` and none of `reg.test/corp-evil/app`.
fn prefixes(gun: &str) -> impl Iterator<Item = &str> {
    let below = gun.rmatch_indices('/').filter_map(|(slash, _)| gun.get(..=slash));
    below.chain(core::iter::once(""))
}

/// A name, as it was written and as it is read.
struct NameOfEntry {
    written: String,
    read: RepositoryPattern,
}

fn read_entry<'a>(
    list: PinList,
    name: &str,
    ids: impl IntoIterator<Item = &'a str>,
) -> Result<(NameOfEntry, BTreeSet<Sha256>), Vec<PinError>> {
    let mut problems = Vec::new();
    let read = read_name(list, name).map_err(|error| problems.push(error)).ok();
    let mut good = BTreeSet::new();
    for (position, id) in ids.into_iter().enumerate() {
        match Sha256::from_hex(&id.to_ascii_lowercase()) {
            Ok(hash) => drop(good.insert(hash)),
            Err(_) => problems.push(PinError::Id { list, name: shown(name), id: shown(id), position }),
        }
    }
    if good.is_empty() && !problems.iter().any(|problem| matches!(problem, PinError::Id { .. })) {
        problems.push(PinError::EmptyList { list, name: shown(name) });
    }
    match read {
        Some(read) if problems.is_empty() => Ok((NameOfEntry { written: name.to_owned(), read }, good)),
        Some(_) | None => Err(problems),
    }
}

fn read_name(list: PinList, written: &str) -> Result<RepositoryPattern, PinError> {
    let wildcard = || PinError::WildcardInCertificateIds { name: shown(written) };
    match list {
        PinList::CertificateIds if written.contains('*') => Err(wildcard()),
        PinList::CertificateIds | PinList::RootKeys => written.parse().map_err(|error| match error {
            PatternError::Name(source) => PinError::Name { name: shown(written), source },
            PatternError::Wildcard => PinError::Wildcard { name: shown(written) },
        }),
    }
}

fn insert(
    known: &mut BTreeMap<String, Anchor>,
    list: PinList,
    name: NameOfEntry,
    anchor: Anchor,
) -> Result<RepositoryPattern, Vec<PinError>> {
    if known.contains_key(name.read.text()) {
        return Err([PinError::Twice { list, name: shown(&name.written), canonical: name.read }].into());
    }
    known.insert(name.read.text().to_owned(), anchor);
    Ok(name.read)
}

#[cfg(test)]
mod tests;
