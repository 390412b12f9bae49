//! Why a pin could not be made or found.

use countersign_trust::name::EvidenceDigest;

use crate::store::StoreError;

/// Why a pin could not be made or found.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The store cannot be asked.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The trust data of a repository is more than is handed on.
    #[error("evidence {name} has more than {limit} bytes when it is packed, which is not shared")]
    EvidenceTooLarge {
        /// Which.
        name: EvidenceDigest,
        /// In bytes.
        limit: usize,
    },
    /// Others write the same key again and again.
    #[error("others are writing {key} in the store without a pause; find out who writes there")]
    Contended {
        /// The key.
        key: String,
    },
    /// A namespace has as many pins as it may.
    #[error("namespace `{namespace}` has {limit} pins, which is all it may; remove services that nobody needs")]
    Quota {
        /// The namespace, escaped.
        namespace: String,
        /// How many it may have.
        limit: usize,
    },
    /// Something that cannot be.
    #[error("{what}")]
    Internal {
        /// What.
        what: &'static str,
    },
}
