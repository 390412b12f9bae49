//! Why a pin could not be made or found.

use countersign_trust::name::EvidenceDigest;

use crate::store::StoreError;

/// Why a pin could not be made or found.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The store cannot be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The trust data of a repository is more than is handed on.
    #[error("evidence {name} has more than {limit} bytes when it is packed, which is not shared")]
    EvidenceTooLarge {
        /// Which.
        name: EvidenceDigest,
        /// In bytes.
        limit: usize,
    },
    /// The store takes too long for what it has to hand out.
    #[error("the store did not hand out evidence {name} within {seconds} s; see how etcd is (etcdctl endpoint status)")]
    Slow {
        /// Which.
        name: EvidenceDigest,
        /// The deadline.
        seconds: u64,
    },
    /// Others write the same key again and again.
    #[error("others are writing {key} in the store without a pause; find out who writes there")]
    Contended {
        /// The key.
        key: String,
    },
    /// Several nodes have made pins that are from the future here.
    #[error(
        "this node's clock is more than 5 minutes behind those of several others: {key} stands in the store and is from the future \
         here; set the clock right (timedatectl), then try again"
    )]
    ClockBehind {
        /// The key of the pin.
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
    /// The pins of a namespace take as much of the store as they may.
    #[error(
        "the pins of namespace `{namespace}` would take more than {limit} bytes of the store, which is all they may; \
         remove services that nobody needs, or give them shorter names"
    )]
    QuotaBytes {
        /// The namespace, escaped.
        namespace: String,
        /// In bytes.
        limit: u64,
    },
    /// All pins take as much of the store as they may.
    #[error("all pins would take more than {limit} bytes of the store, which is all they may; remove services that nobody needs")]
    FullBytes {
        /// In bytes.
        limit: u64,
    },
    /// The pins of a namespace rest on as much evidence as they may.
    #[error(
        "the evidence of the pins of namespace `{namespace}` would have more than {limit} bytes, which is all it may; \
         remove services that nobody needs, or sign less in one repository"
    )]
    EvidenceQuota {
        /// The namespace, escaped.
        namespace: String,
        /// In bytes, as it is packed.
        limit: u64,
    },
    /// All pins rest on as much evidence as they may.
    #[error("the evidence of all pins would have more than {limit} bytes, which is all it may; remove services that nobody needs")]
    EvidenceFull {
        /// In bytes, as it is packed.
        limit: u64,
    },
    /// The cluster has as many pins as it may.
    #[error("the cluster has {limit} pins, which is all it may; remove services that nobody needs")]
    Full {
        /// How many it may have.
        limit: usize,
    },
    /// The word of this node does not count in its cluster.
    #[error("{what}")]
    NotMember {
        /// Why, and what to do.
        what: String,
    },
    /// Something that cannot be.
    #[error("{what}")]
    Internal {
        /// What.
        what: &'static str,
    },
}

impl ResolveError {
    /// Whether the store that others write, too, could not be asked, or does not take this node's word: they may know better.
    #[must_use]
    pub const fn is_of_store(&self) -> bool {
        match self {
            Self::Store(_) | Self::Slow { .. } | Self::NotMember { .. } | Self::ClockBehind { .. } => true,
            Self::EvidenceTooLarge { .. }
            | Self::EvidenceQuota { .. }
            | Self::EvidenceFull { .. }
            | Self::Contended { .. }
            | Self::Quota { .. }
            | Self::QuotaBytes { .. }
            | Self::FullBytes { .. }
            | Self::Full { .. }
            | Self::Internal { .. } => false,
        }
    }
}
