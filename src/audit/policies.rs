//! The configurations that were in force: what a decision was made under is needed to make it again.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use countersign_trust::name::Sha256;
use serde::{Deserialize, Serialize};

use super::store::{Limits, Store, Tenant};

/// All configurations are one tenant's.
const TENANT: &str = "policy";
/// A configuration has 1 MiB at most, and the files that it names, each 64 KiB at most, rarely as much again. So many changes
/// are more than the log that refers to them goes back.
pub(super) const LIMITS: Limits =
    Limits { bytes: 16 << 20, bytes_of_tenant: 16 << 20, count: 64, count_of_tenant: 64, bytes_of_one: 4 << 20 };

/// A configuration with every file that it names for its policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPolicy {
    /// Where the configuration was.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// The files' texts by their paths.
    pub files: BTreeMap<PathBuf, String>,
}

pub(super) fn keep(store: &Store, digest: Sha256, policy: &KeptPolicy) -> io::Result<()> {
    store.keep_as_newest(&Tenant::of(TENANT), digest, &serde_json::to_vec(policy)?)
}

/// None also if what is there is not what was written: whoever reads it finds out by its digest.
pub(super) fn get(store: &Store, digest: &Sha256) -> io::Result<Option<KeptPolicy>> {
    Ok(store.get(digest)?.and_then(|content| serde_json::from_slice(&content).ok()))
}
