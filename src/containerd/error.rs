//! What can go wrong between us and containerd, and what can be wrong with content.

use std::path::PathBuf;
use std::time::Duration;

use countersign_trust::name::{ImageId, Sha256, shown};

/// Why containerd gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerdError {
    /// No connection, or it broke before the answer.
    #[error("containerd at {} could not be reached for {call}: {}; see `systemctl status containerd`", socket.display(), shown(status.message()))]
    Unreachable {
        /// containerd's socket.
        socket: PathBuf,
        /// The call, as `Service.Method`.
        call: &'static str,
        /// What the connection said. Not the error's source: it prints its own causes, as nobody wants to read them.
        status: Box<tonic::Status>,
    },
    /// No answer in time.
    #[error("containerd at {} did not answer {call} within {} s", socket.display(), limit.as_secs())]
    Deadline {
        /// containerd's socket.
        socket: PathBuf,
        /// The call, as `Service.Method`.
        call: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// containerd answered with an error.
    #[error("containerd refused {call} with {code:?}: {message}")]
    Refused {
        /// The call, as `Service.Method`.
        call: &'static str,
        /// The gRPC code.
        code: tonic::Code,
        /// containerd's words, escaped and cut.
        message: String,
    },
    /// containerd answered with something that its API does not have.
    #[error("containerd's answer to {call} has no usable {what}")]
    Malformed {
        /// The call, as `Service.Method`.
        call: &'static str,
        /// What is missing or malformed.
        what: &'static str,
    },
    /// More names than one question may have.
    #[error("{count} image names are asked for at once, and the limit is {limit}")]
    TooManyNames {
        /// How many.
        count: usize,
        /// The most that may be.
        limit: usize,
    },
    /// The content is longer than its kind may be.
    #[error("content sha256:{digest} is larger than {limit} bytes")]
    TooLarge {
        /// The content's name.
        digest: Sha256,
        /// The limit in bytes.
        limit: u64,
    },
    /// The content store holds other bytes than it says.
    #[error(
        "containerd's content store holds other bytes as sha256:{digest} (they hash to sha256:{found}): remove the image and pull it again"
    )]
    Mismatch {
        /// The content's name.
        digest: Sha256,
        /// What its bytes hash to.
        found: Sha256,
    },
}

impl ContainerdError {
    /// Whether containerd is not there, or does not answer.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Deadline { .. } => true,
            Self::Refused { .. } | Self::Malformed { .. } | Self::TooManyNames { .. } | Self::TooLarge { .. } | Self::Mismatch { .. } => {
                false
            }
        }
    }
}

/// Which of three things a failure is. They are never merged: only the first says something about the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The content itself is refused. It stays so.
    Bad,
    /// The content is not on this node. A pull brings it.
    Absent,
    /// containerd gave no answer. The next try may.
    CannotTell,
}

/// Why no root file system follows from a digest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// containerd gave no answer.
    #[error("containerd could not be asked for an image's content")]
    CannotTell(#[source] ContainerdError),
    /// The content is not on this node.
    #[error("content sha256:{digest} is not on this node: pull the image again")]
    Absent {
        /// The content's name.
        digest: Sha256,
    },
    /// The content store holds other bytes than it says.
    #[error(
        "containerd's content store holds other bytes as sha256:{digest} (they hash to sha256:{found}): remove the image and pull it again"
    )]
    Hash {
        /// The content's name.
        digest: Sha256,
        /// What its bytes hash to.
        found: Sha256,
    },
    /// A document is longer than its kind may be.
    #[error("content sha256:{digest} is larger than {limit} bytes")]
    TooLarge {
        /// The content's name.
        digest: Sha256,
        /// The limit in bytes.
        limit: u64,
    },
    /// A document has another length than the descriptor that names it says.
    #[error("content sha256:{digest} has {found} bytes, and its descriptor says {promised}")]
    Size {
        /// The content's name.
        digest: Sha256,
        /// What the descriptor says.
        promised: u64,
        /// The length.
        found: u64,
    },
    /// A document is not JSON.
    #[error("content sha256:{digest} is not a JSON document: {why}")]
    Json {
        /// The content's name.
        digest: Sha256,
        /// What the parser said.
        why: String,
    },
    /// An object has a member twice, so that two parsers may read two things.
    #[error("content sha256:{digest} has the member `{member}` twice in one object")]
    Duplicate {
        /// The content's name.
        digest: Sha256,
        /// The member, escaped.
        member: String,
    },
    /// A member is spelled so that containerd takes it for another.
    #[error("content sha256:{digest} has the member `{member}`, which containerd takes for another spelling of one that counts")]
    Spelling {
        /// The content's name.
        digest: Sha256,
        /// The member, escaped.
        member: String,
    },
    /// A document has more values than any image's.
    #[error("content sha256:{digest} has more JSON values than an image's document can have")]
    TooManyValues {
        /// The content's name.
        digest: Sha256,
    },
    /// A member is missing or of the wrong type.
    #[error("content sha256:{digest} has no valid `{member}`")]
    Shape {
        /// The content's name.
        digest: Sha256,
        /// The member.
        member: &'static str,
    },
    /// A document is an index and a manifest at once.
    #[error("content sha256:{digest} has the members of an index and of a manifest")]
    Ambiguous {
        /// The content's name.
        digest: Sha256,
    },
    /// What a document is said to be is not what it is.
    #[error("content sha256:{digest} is said to be `{said}` and is {found}")]
    MediaType {
        /// The content's name.
        digest: Sha256,
        /// The media type in the document or in its descriptor, escaped.
        said: String,
        /// What the document's members make it.
        found: String,
    },
    /// An image of Docker's first schema, which containerd rewrites when it pulls.
    #[error("content sha256:{digest} is an image of Docker's schema 1: push the image again with a current tool")]
    Schema1 {
        /// The content's name.
        digest: Sha256,
    },
    /// Something in a registry that is not an image.
    #[error("content sha256:{digest} is not an image: its config is of type `{media_type}`")]
    NotAnImage {
        /// The content's name.
        digest: Sha256,
        /// The config's media type, escaped.
        media_type: String,
        /// Its config: containerd takes it for an image with this ID.
        config: ImageId,
    },
    /// A digest that is not SHA-256.
    #[error("content sha256:{digest} names `{named}`, which is not a sha256 digest")]
    DigestAlgorithm {
        /// The content's name.
        digest: Sha256,
        /// The digest in it, escaped.
        named: String,
    },
    /// Indexes in indexes.
    #[error("content sha256:{digest} is an index below {limit} others")]
    TooDeep {
        /// The content's name.
        digest: Sha256,
        /// How many may lie above each other.
        limit: usize,
    },
    /// More of something than an image can have.
    #[error("content sha256:{digest} has {count} {what}, and the limit is {limit}")]
    TooMany {
        /// The content's name.
        digest: Sha256,
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// The most that may be.
        limit: usize,
    },
    /// A checkpoint, at which containerd pulls another image by itself.
    #[error("content sha256:{digest} is a checkpoint of a container: containerd would pull the image that it names without a check")]
    Checkpoint {
        /// The content's name.
        digest: Sha256,
    },
    /// An image without a root file system.
    #[error("content sha256:{digest} is the config of an image without layers")]
    NoLayers {
        /// The content's name.
        digest: Sha256,
    },
    /// A root file system that is not made of layers.
    #[error("content sha256:{digest} is the config of an image whose root file system is `{found}`, not `layers`")]
    RootFs {
        /// The content's name.
        digest: Sha256,
        /// What it is, escaped.
        found: String,
    },
    /// Manifest and config do not belong together.
    #[error("content sha256:{digest} has {layers} layers, and its config has {diff_ids}")]
    LayerCount {
        /// The manifest's name.
        digest: Sha256,
        /// Layers of the manifest.
        layers: usize,
        /// `diff_ids` of the config.
        diff_ids: usize,
    },
}

impl ContentError {
    /// The stable code of this reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::CannotTell(_) => "CS-CONTENT-UNREACHABLE",
            Self::Absent { .. } => "CS-CONTENT-ABSENT",
            Self::Hash { .. } => "CS-CONTENT-HASH",
            Self::TooLarge { .. } => "CS-CONTENT-TOO-LARGE",
            Self::Size { .. } => "CS-CONTENT-SIZE",
            Self::Json { .. } => "CS-CONTENT-JSON",
            Self::Duplicate { .. } => "CS-CONTENT-DUPLICATE",
            Self::Spelling { .. } => "CS-CONTENT-SPELLING",
            Self::TooManyValues { .. } => "CS-CONTENT-VALUES",
            Self::Shape { .. } => "CS-CONTENT-SHAPE",
            Self::Ambiguous { .. } => "CS-CONTENT-AMBIGUOUS",
            Self::MediaType { .. } => "CS-CONTENT-MEDIA-TYPE",
            Self::Schema1 { .. } => "CS-CONTENT-SCHEMA-1",
            Self::NotAnImage { .. } => "CS-CONTENT-NOT-AN-IMAGE",
            Self::DigestAlgorithm { .. } => "CS-CONTENT-DIGEST",
            Self::TooDeep { .. } => "CS-CONTENT-TOO-DEEP",
            Self::TooMany { .. } => "CS-CONTENT-TOO-MANY",
            Self::Checkpoint { .. } => "CS-CONTENT-CHECKPOINT",
            Self::NoLayers { .. } => "CS-CONTENT-NO-LAYERS",
            Self::RootFs { .. } => "CS-CONTENT-ROOTFS",
            Self::LayerCount { .. } => "CS-CONTENT-LAYER-COUNT",
        }
    }

    /// Whether containerd is not there, or does not answer.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        matches!(self, Self::CannotTell(error) if error.is_outage())
    }

    /// Whether the image is bad, absent, or could not be looked at.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        match self {
            Self::CannotTell(_) => Standing::CannotTell,
            Self::Absent { .. } => Standing::Absent,
            Self::Hash { .. }
            | Self::TooLarge { .. }
            | Self::Size { .. }
            | Self::Json { .. }
            | Self::Duplicate { .. }
            | Self::Spelling { .. }
            | Self::TooManyValues { .. }
            | Self::Shape { .. }
            | Self::Ambiguous { .. }
            | Self::MediaType { .. }
            | Self::Schema1 { .. }
            | Self::NotAnImage { .. }
            | Self::DigestAlgorithm { .. }
            | Self::TooDeep { .. }
            | Self::TooMany { .. }
            | Self::Checkpoint { .. }
            | Self::NoLayers { .. }
            | Self::RootFs { .. }
            | Self::LayerCount { .. } => Standing::Bad,
        }
    }
}

impl From<ContainerdError> for ContentError {
    fn from(error: ContainerdError) -> Self {
        match error {
            ContainerdError::TooLarge { digest, limit } => Self::TooLarge { digest, limit },
            ContainerdError::Mismatch { digest, found } => Self::Hash { digest, found },
            other @ (ContainerdError::Unreachable { .. }
            | ContainerdError::Deadline { .. }
            | ContainerdError::Refused { .. }
            | ContainerdError::Malformed { .. }
            | ContainerdError::TooManyNames { .. }) => Self::CannotTell(other),
        }
    }
}
