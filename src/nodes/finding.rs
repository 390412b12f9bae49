//! What an operator should know of the cluster, one sentence each.

use std::fmt;

use countersign_trust::name::{ImageReference, ManifestDigest, Sha256, shown};
use countersign_trust::time::UnixTime;

use super::read::Unreadable;
use crate::resolve::Revision;

/// What a finding is about: the pin of an image for a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// For whom.
    pub revision: Revision,
    /// The image, by a tag.
    pub image: ImageReference,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.image, self.revision)
    }
}

/// What a pin says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pinned {
    /// What the tag means.
    pub digest: ManifestDigest,
    /// How often that was said.
    pub generation: u64,
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (generation {})", self.digest, self.generation)
    }
}

/// Something about the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// This node's own report is not in the store.
    Untold {
        /// The name of this node.
        node: String,
    },
    /// Something among the reports could not be read.
    Unreadable(Unreadable),
    /// A node has another configuration than most.
    Config {
        /// Which node.
        node: String,
        /// What is in force there.
        config: Sha256,
        /// What is in force on most nodes.
        majority: Sha256,
    },
    /// A node has another version of countersign than most.
    Version {
        /// Which node.
        node: String,
        /// Its version.
        version: String,
        /// That of most nodes.
        majority: String,
    },
    /// The clock of a node is ahead of this one's.
    Clock {
        /// Which node.
        node: String,
        /// By how many seconds, at least.
        ahead: i64,
    },
    /// A node has more pins in use than it tells of.
    LeftOut {
        /// Which node.
        node: String,
        /// How many it does not tell of.
        pins: u64,
    },
    /// A node goes by another pin than is held here.
    OtherPin {
        /// Which node.
        node: String,
        /// Which pin.
        subject: Subject,
        /// What it says there.
        there: Pinned,
        /// What it says here. None: there is no such pin here.
        here: Option<Pinned>,
    },
    /// Containers run something else than their pin says.
    RunsOther {
        /// On which node.
        node: String,
        /// Which pin.
        subject: Subject,
        /// What they run.
        digest: ManifestDigest,
        /// How many containers.
        containers: u32,
        /// What the pin says.
        pinned: ManifestDigest,
    },
    /// Containers of one revision run different things.
    Apart {
        /// Which pin.
        subject: Subject,
        /// Each digest, with one of the nodes that run it and how many do.
        digests: Vec<(ManifestDigest, String, u64)>,
    },
    /// What is pinned would be refused today.
    Refused {
        /// Which pin.
        subject: Subject,
        /// The stable code of the reason.
        code: String,
        /// The reason.
        reason: String,
    },
    /// What stands in the store as a pin counts for nothing here.
    Void {
        /// Which pin.
        subject: Subject,
        /// Why.
        why: String,
    },
    /// What a pin rests on soon ends, or has ended.
    EvidenceEnds {
        /// Which pin.
        subject: Subject,
        /// When.
        ends: UnixTime,
        /// That moment is over.
        has_ended: bool,
    },
    /// The tag is signed as something else by now, which a new revision would get.
    Update {
        /// Which pin.
        subject: Subject,
        /// What it says.
        pinned: ManifestDigest,
        /// What the tag is signed as.
        signed: ManifestDigest,
    },
}

/// What kind of finding it is, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// [`Finding::Apart`]
    Apart,
    /// [`Finding::RunsOther`]
    RunsOther,
    /// [`Finding::OtherPin`]
    OtherPin,
    /// [`Finding::Refused`]
    Refused,
    /// [`Finding::Void`]
    Void,
    /// [`Finding::Config`]
    Config,
    /// [`Finding::Version`]
    Version,
    /// [`Finding::Clock`]
    Clock,
    /// [`Finding::Untold`]
    Untold,
    /// [`Finding::Unreadable`]
    Unreadable,
    /// [`Finding::LeftOut`]
    LeftOut,
    /// [`Finding::EvidenceEnds`]
    EvidenceEnds,
    /// [`Finding::Update`]
    Update,
}

impl FindingKind {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Apart => "revision-apart",
            Self::RunsOther => "runs-other-digest",
            Self::OtherPin => "other-pin",
            Self::Refused => "pin-refused",
            Self::Void => "pin-void",
            Self::Config => "other-configuration",
            Self::Version => "other-version",
            Self::Clock => "clock-ahead",
            Self::Untold => "not-told",
            Self::Unreadable => "unreadable",
            Self::LeftOut => "left-out",
            Self::EvidenceEnds => "evidence-ends",
            Self::Update => "update-available",
        }
    }

    /// Whether the nodes do not agree, or cannot be seen to. The rest is what an operator plans for.
    #[must_use]
    pub const fn is_disagreement(self) -> bool {
        match self {
            Self::Apart
            | Self::RunsOther
            | Self::OtherPin
            | Self::Refused
            | Self::Void
            | Self::Config
            | Self::Version
            | Self::Clock
            | Self::Untold
            | Self::Unreadable
            | Self::LeftOut => true,
            Self::EvidenceEnds | Self::Update => false,
        }
    }
}

impl Finding {
    /// Which kind it is.
    #[must_use]
    pub const fn kind(&self) -> FindingKind {
        match self {
            Self::Apart { .. } => FindingKind::Apart,
            Self::RunsOther { .. } => FindingKind::RunsOther,
            Self::OtherPin { .. } => FindingKind::OtherPin,
            Self::Refused { .. } => FindingKind::Refused,
            Self::Void { .. } => FindingKind::Void,
            Self::Config { .. } => FindingKind::Config,
            Self::Version { .. } => FindingKind::Version,
            Self::Clock { .. } => FindingKind::Clock,
            Self::Untold { .. } => FindingKind::Untold,
            Self::Unreadable(_) => FindingKind::Unreadable,
            Self::LeftOut { .. } => FindingKind::LeftOut,
            Self::EvidenceEnds { .. } => FindingKind::EvidenceEnds,
            Self::Update { .. } => FindingKind::Update,
        }
    }

    /// The node that it is about, if it is about one.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Untold { node }
            | Self::Config { node, .. }
            | Self::Version { node, .. }
            | Self::Clock { node, .. }
            | Self::LeftOut { node, .. }
            | Self::OtherPin { node, .. }
            | Self::RunsOther { node, .. } => Some(node),
            Self::Unreadable(_)
            | Self::Apart { .. }
            | Self::Refused { .. }
            | Self::Void { .. }
            | Self::EvidenceEnds { .. }
            | Self::Update { .. } => None,
        }
    }

    /// The pin that it is about, if it is about one.
    #[must_use]
    pub const fn subject(&self) -> Option<&Subject> {
        match self {
            Self::OtherPin { subject, .. }
            | Self::RunsOther { subject, .. }
            | Self::Apart { subject, .. }
            | Self::Refused { subject, .. }
            | Self::Void { subject, .. }
            | Self::EvidenceEnds { subject, .. }
            | Self::Update { subject, .. } => Some(subject),
            Self::Untold { .. }
            | Self::Unreadable(_)
            | Self::Config { .. }
            | Self::Version { .. }
            | Self::Clock { .. }
            | Self::LeftOut { .. } => None,
        }
    }
}

/// What is so, and what to do; escaped.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untold { node } => {
                write!(f, "{}, which is this node, is not among them: see its log for why it does not tell the others", shown(node))
            }
            Self::Unreadable(Unreadable { key, why }) => write!(f, "{key} in the store was not read: {why}"),
            Self::Config { node, config, majority } => {
                write!(f, "{} has configuration {config}, and most nodes have {majority}: make them agree, and reload", shown(node))
            }
            Self::Version { node, version, majority } => {
                write!(f, "{} has version {}, and most nodes have {}", shown(node), shown(version), shown(majority))
            }
            Self::Clock { node, ahead } => {
                write!(f, "the clock of {} is at least {ahead} s ahead of this node's: set the wrong one", shown(node))
            }
            Self::LeftOut { node, pins } => write!(f, "{} has {pins} more pins in use than it tells of", shown(node)),
            Self::OtherPin { node, subject, there, here: Some(here) } => {
                write!(f, "{subject} is pinned as {there} on {}, and as {here} here", shown(node))
            }
            Self::OtherPin { node, subject, there, here: None } => {
                write!(f, "{subject} is pinned as {there} on {}, and not at all here", shown(node))
            }
            Self::RunsOther { node, subject, digest, containers, pinned } => {
                write!(
                    f,
                    "{containers} containers of {subject} on {} run {digest}, and the pin says {pinned}: restart their pods",
                    shown(node)
                )
            }
            Self::Apart { subject, digests } => {
                let each = digests.iter().map(|(digest, node, nodes)| format!("{digest} on {nodes} nodes (one is {})", shown(node)));
                write!(f, "{subject} runs {}", each.collect::<Vec<_>>().join(", and "))
            }
            Self::Refused { subject, code, reason } => {
                write!(f, "what {subject} is pinned as would be refused here now: {reason} ({code})")
            }
            Self::Void { subject, why } => {
                write!(f, "what stands in the store as the pin of {subject} counts for nothing: {why}; the next pod makes it anew")
            }
            Self::EvidenceEnds { subject, ends, has_ended: false } => write!(f, "what {subject} rests on ends at {ends}"),
            Self::EvidenceEnds { subject, ends, has_ended: true } => write!(f, "what {subject} rests on has ended at {ends}"),
            Self::Update { subject, pinned, signed } => {
                write!(f, "{subject} is pinned as {pinned}, and is signed as {signed} by now: `countersign service update` takes that")
            }
        }
    }
}
