//! Why an image is not admitted.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use countersign_trust::Reason;
use countersign_trust::evidence::CodecError;
use countersign_trust::name::{ChainId, ImageId, ImageReference, ManifestDigest, NameError, RegistryHost};
use countersign_trust::time::UnixTime;

use crate::clock::ClockError;
use crate::containerd::{ContainerdError, ContentError};
use crate::fetch::{FetchError, NodeCredentialError};
use crate::ledger::LedgerError;

/// What kind of "no" it is. They are never merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The signatures, or what is on the node, say no; or nothing covers the image.
    Denied,
    /// A server could not be reached: another try may succeed.
    CannotTellNow,
    /// The node's containerd is not there: nothing is said about the image, and no registry is at fault.
    ContainerdAway,
    /// There is nothing to judge: the call is about a container that the node does not have.
    NotThere,
}

/// Where a container sees a root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It is the container's own.
    Root,
    /// An image volume is mounted at this path, escaped.
    Volume(String),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => out.write_str("the container"),
            Self::Volume(path) => write!(out, "the image volume at {path}"),
        }
    }
}

/// What this node held when the trust server could not be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeldData {
    /// Nothing.
    Nothing,
    /// Something that does not allow the repository any more, and why.
    Refused(Box<countersign_trust::Refusal>),
    /// The server showed a newer timestamp before it went away, so what is held is known to be out of date.
    OutOfDate,
}

/// Why an image is not admitted. Cheap to clone, so that all who wait for one refresh get one answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The text is no image name.
    #[error("{error}; a pod's image must be a name such as registry.example/team/app:1")]
    Name {
        /// What is wrong with it.
        error: NameError,
    },
    /// The image's registry is not registered.
    #[error("{host} must be a registered trusted registry. Register it in the configuration ([[registries]], host-address = \"{host}\")")]
    NotRegistered {
        /// The registry of the image.
        host: RegistryHost,
    },
    /// The name is countersign's own.
    #[error("{host} is a name that countersign keeps for trying itself, and no registry: nothing can be pulled from it")]
    Reserved {
        /// The reserved name.
        host: &'static str,
    },
    /// This node's own credential, which the pull had to be judged with, could not be had.
    #[error("this node's credential for {host} could not be had: {error}")]
    Credentials {
        /// The registry of the image.
        host: RegistryHost,
        /// What happened.
        error: Arc<NodeCredentialError>,
    },
    /// The signatures say no.
    #[error("{0}")]
    Trust(countersign_trust::Refusal),
    /// The trust server gave no usable answer.
    #[error("{}", server_sentence(image, error, held))]
    Server {
        /// The image that was asked about.
        image: Box<ImageReference>,
        /// What happened.
        error: Box<FetchError>,
        /// What this node could fall back on.
        held: HeldData,
    },
    /// The update took longer than it may.
    #[error(
        "error contacting trust server: {server} did not deliver the trust data for {image} within {seconds} s; see whether it is overloaded"
    )]
    UpdateTimedOut {
        /// The image that was asked about.
        image: Box<ImageReference>,
        /// The trust server.
        server: String,
        /// The deadline.
        seconds: u64,
    },
    /// The image's namespace has used up its waiting for trust servers.
    #[error(
        "error contacting trust server: pods of namespace `{namespace}` have waited for more than {minutes} min for trust servers that did not answer, so that {image} has to wait; others are not held up by it"
    )]
    NamespaceWaited {
        /// The image that was asked about.
        image: Box<ImageReference>,
        /// The namespace, escaped; empty if it is not known.
        namespace: String,
        /// What it may wait in ten minutes.
        minutes: u64,
    },
    /// The image's namespace has brought as many repositories as it may.
    #[error(
        "{image} would be one repository more than namespace `{namespace}` may bring to this node ({limit}); see who creates pods there, and restart countersign"
    )]
    NamespaceFull {
        /// The image that was asked about.
        image: Box<ImageReference>,
        /// The namespace, escaped; empty if it is not known.
        namespace: String,
        /// How many it may bring.
        limit: u64,
    },
    /// What is held has expired, and whether its server can be reached is not known yet.
    #[error(
        "error contacting trust server: the trust server of {image} was not asked yet since countersign started, and what this node holds does not serve without that: {refusal}; the next try tells"
    )]
    ServerNotAsked {
        /// The image that was asked about.
        image: Box<ImageReference>,
        /// Why what is held does not serve.
        refusal: Box<countersign_trust::Refusal>,
    },
    /// The nodes of the cluster share what the tag means, and the store where they do could not be asked.
    #[error(
        "the store of the cluster could not be asked what {image} means for {service}: {what}; pods of revisions that this node has pinned go on (store.when-unreachable = \"local\" lets a node answer alone)"
    )]
    Store {
        /// The image that was asked about.
        image: Box<ImageReference>,
        /// Its service, escaped.
        service: String,
        /// What happened, and what to do.
        what: String,
    },
    /// An operator has frozen what the tag means for the service, and that cannot be used here.
    #[error(
        "{} is frozen for {} as {}, by {} at {}, and that may not run here: {}; `countersign pin release {}` lets it mean what is signed now",
        .0.image, .0.service, .0.pinned, .0.by, .0.at, .0.why, .0.service
    )]
    Frozen(Box<Frozen>),
    /// A file of evidence is none.
    #[error("this is no evidence that `countersign evidence export` wrote: {error}; export it again")]
    Evidence {
        /// What is wrong with it.
        error: CodecError,
    },
    /// No evidence is held for the image.
    #[error(
        "could not find trust signature for local image {image}: this node holds no trust data for it; pull it through countersign first"
    )]
    NotHeld {
        /// The image, as it was named.
        image: String,
    },
    /// The image on the node is not the signed one.
    #[error(
        "could not find trust signature for local image {image}: it is signed as {signed}, and the image on this node ({found}) is not that one; remove the image from the node, so that the signed one is pulled"
    )]
    OtherImage {
        /// The image, as it was named.
        image: Box<ImageReference>,
        /// What the signatures allow.
        signed: ManifestDigest,
        /// What would have run.
        found: ImageId,
    },
    /// A record of containerd that could be taken for the image leads elsewhere.
    #[error(
        "potential malicious behavior - the image record `{record}` on this node does not lead to image {expected}: remove that record (crictl rmi), so that the signed image is pulled again"
    )]
    OtherRecord {
        /// The record's name, escaped.
        record: String,
        /// The image that it claims to be.
        expected: ImageId,
    },
    /// The container's root file system is not that of the verified image.
    #[error(
        "potential malicious behavior - the container's root file system is {found}, not {expected} of the verified image: an image record was changed while the container was created"
    )]
    OtherRootFs {
        /// The chain ID of the verified image.
        expected: ChainId,
        /// What the container's snapshot stands on, escaped.
        found: String,
    },
    /// The container's snapshotter does not unpack and compare layers.
    #[error(
        "the container's snapshotter {name} is not one that unpacks and checks layers before a container runs: use overlayfs, or another that is part of containerd"
    )]
    Snapshotter {
        /// Its name, escaped.
        name: String,
    },
    /// No verified image on record has this root file system.
    #[error(
        "could not find trust signature for local image: no image that was verified on this node has the root file system {found} of {place}; create the container through countersign, from an image that verifies"
    )]
    UnknownRootFs {
        /// What of the container has it.
        place: Place,
        /// What its snapshot stands on, escaped.
        found: String,
    },
    /// The image is not on the node.
    #[error("image {image} is not on this node: pull it")]
    NotPresent {
        /// As it was named.
        image: String,
    },
    /// The content of the image cannot be followed to a config.
    #[error("the content of image {digest} cannot be checked: {}", chain(&**error))]
    Content {
        /// The digest whose content was read.
        digest: ManifestDigest,
        /// What is wrong.
        error: Arc<ContentError>,
    },
    /// containerd did not do what it was asked.
    #[error("{}", chain(&**error))]
    Containerd {
        /// What happened.
        error: Arc<ContainerdError>,
    },
    /// containerd's CRI cannot be reached.
    #[error("{said}")]
    ContainerdAway {
        /// Where it was looked for, how that failed and what to do.
        said: String,
    },
    /// containerd's CRI answered something that cannot be.
    #[error("containerd answered {what}: see containerd's log")]
    Answer {
        /// What it answered.
        what: String,
    },
    /// The call is about a container that containerd has no record of.
    #[error("container {id} does not exist on this node: create it first")]
    NoContainer {
        /// Its ID, escaped.
        id: String,
    },
    /// The call is about a sandbox that containerd knows none of.
    #[error("pod sandbox {id} does not exist on this node: run it first")]
    NoSandbox {
        /// Its ID, or the prefix of one, escaped.
        id: String,
    },
    /// containerd did not show the new tag in time.
    #[error("containerd did not show {image} within {seconds} s after it was pulled; the next try pulls again")]
    TagNotShown {
        /// The image that was pulled.
        image: Box<ImageReference>,
        /// The deadline.
        seconds: u64,
    },
    /// An image volume shows other files than those of the verified image.
    #[error(
        "potential malicious behavior - the image volume at {path} shows {found}, not {expected} of the verified image; delete the pod, so that its volumes are made anew"
    )]
    OtherVolume {
        /// Where it is mounted, escaped.
        path: String,
        /// The chain ID of the verified image.
        expected: ChainId,
        /// What the volume's snapshot stands on, escaped; or why it could not be found.
        found: String,
    },
    /// The record of the image's own name led to another image, and was removed.
    #[error(
        "{image} meant another image ({found}) on this node than the one that it is signed as, {signed}; that record was removed, and the next try pulls the signed image"
    )]
    RecordDropped {
        /// The image, as it was named.
        image: Box<ImageReference>,
        /// What the signatures allow.
        signed: ManifestDigest,
        /// What would have run.
        found: ImageId,
    },
    /// The image of sandboxes may not run.
    #[error("the sandbox image {image} may not run: {refusal}; it can be allowed by its digest (containerd.sandbox-image-digests)")]
    Sandbox {
        /// Its name.
        image: Box<ImageReference>,
        /// Why.
        refusal: Box<Refusal>,
    },
    /// Which image sandboxes run is not known.
    #[error(
        "containerd does not tell which image its sandboxes run: write the name that stands in containerd's configuration into countersign's (containerd.sandbox-image)"
    )]
    SandboxUnknown,
    /// The ledger did not take or give what it must.
    #[error("{}", chain(&**error))]
    Ledger {
        /// What happened.
        error: Arc<LedgerError>,
    },
    /// The clock is wrong.
    #[error("{0}")]
    Clock(#[from] ClockError),
    /// The clock was set back.
    #[error(
        "the node's clock says {now}, but trust data was found good here at {latest}: set the clock; if that one was wrong, run `countersign reset --clock --reason TEXT`"
    )]
    ClockBack {
        /// What the clock says.
        now: UnixTime,
        /// What it said before.
        latest: UnixTime,
    },
    /// Our own fault.
    #[error("countersign failed internally ({what}) and denies: please report this with its log")]
    Internal {
        /// Where.
        what: &'static str,
    },
}

/// What is frozen, and why it may not run.
#[derive(Debug, Clone)]
pub struct Frozen {
    /// The image that was asked about.
    pub image: ImageReference,
    /// Its service, escaped.
    pub service: String,
    /// What it is frozen as.
    pub pinned: ManifestDigest,
    /// Who has frozen it, escaped.
    pub by: String,
    /// When.
    pub at: UnixTime,
    /// Why that may not run.
    pub why: String,
}

impl Refusal {
    /// Whether the image must never be used, whatever a rule says.
    #[must_use]
    pub fn is_of_denied_digest(&self) -> bool {
        matches!(self, Self::Trust(refusal) if matches!(refusal.reason(), Reason::DigestDenied { .. }))
    }

    /// The stable code of this reason, the same in every version.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name { .. } => "CS-NAME",
            Self::NotRegistered { .. } => "CS-NOT-REGISTERED",
            Self::Reserved { .. } => "CS-SELF-PROOF",
            Self::Credentials { .. } => "CS-CREDENTIALS",
            Self::Trust(refusal) => refusal.code(),
            Self::Server { error, .. } => error.code(),
            Self::UpdateTimedOut { .. } => "CS-SERVER-TIMEOUT",
            Self::NamespaceWaited { .. } => "CS-NAMESPACE-WAITED",
            Self::NamespaceFull { .. } => "CS-NAMESPACE-FULL",
            Self::ServerNotAsked { .. } => "CS-SERVER-NOT-ASKED",
            Self::Store { .. } => "CS-STORE",
            Self::Frozen(_) => "CS-PIN-FROZEN",
            Self::Evidence { .. } => "CS-EVIDENCE-MALFORMED",
            Self::NotHeld { .. } => "CS-NOT-HELD",
            Self::OtherImage { .. } => "CS-OTHER-IMAGE",
            Self::OtherRecord { .. } => "CS-OTHER-RECORD",
            Self::OtherRootFs { .. } => "CS-OTHER-ROOTFS",
            Self::Snapshotter { .. } => "CS-SNAPSHOTTER",
            Self::UnknownRootFs { .. } => "CS-UNKNOWN-ROOTFS",
            Self::NotPresent { .. } => "CS-NOT-PRESENT",
            Self::Content { error, .. } => error.code(),
            Self::Containerd { .. } | Self::ContainerdAway { .. } => "CS-CONTAINERD",
            Self::Answer { .. } => "CS-CONTAINERD-ANSWER",
            Self::NoContainer { .. } => "CS-NO-CONTAINER",
            Self::NoSandbox { .. } => "CS-NO-SANDBOX",
            Self::TagNotShown { .. } => "CS-TAG-NOT-SHOWN",
            Self::OtherVolume { .. } => "CS-OTHER-VOLUME",
            Self::RecordDropped { .. } => "CS-RECORD-DROPPED",
            Self::Sandbox { refusal, .. } => refusal.code(),
            Self::SandboxUnknown => "CS-SANDBOX-UNKNOWN",
            Self::Ledger { .. } => "CS-LEDGER",
            Self::Clock(_) => "CS-CLOCK",
            Self::ClockBack { .. } => "CS-CLOCK-BACK",
            Self::Internal { .. } => "CS-INTERNAL",
        }
    }

    /// Whether policy, evidence and moment alone come to this, so that it can be reached again later from what was kept. What
    /// servers and containerd said then is not kept.
    #[must_use]
    pub fn is_judgement(&self) -> bool {
        matches!(self.judgement(), Self::Trust(_) | Self::NotRegistered { .. } | Self::Name { .. })
    }

    /// The refusal itself, without what it was for.
    pub(super) fn judgement(&self) -> &Self {
        if let Self::Sandbox { refusal, .. } = self { refusal.judgement() } else { self }
    }

    /// The image that was judged, if it says which.
    #[must_use]
    pub fn judged_image(&self) -> Option<&ImageReference> {
        match (self, self.judgement()) {
            (Self::Sandbox { image, .. }, _) => Some(image),
            (_, Self::Trust(refusal)) => refusal.image(),
            (_, _) => None,
        }
    }

    /// Whether it is bad, or cannot be told now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self {
            Self::Server { error, .. } if error.is_outage() => Standing::CannotTellNow,
            Self::UpdateTimedOut { .. }
            | Self::NamespaceWaited { .. }
            | Self::ServerNotAsked { .. }
            | Self::Store { .. }
            | Self::TagNotShown { .. }
            | Self::RecordDropped { .. }
            | Self::ClockBack { .. } => Standing::CannotTellNow,
            Self::Sandbox { refusal, .. } => refusal.standing(),
            Self::ContainerdAway { .. } => Standing::ContainerdAway,
            Self::Containerd { error } if error.is_outage() => Standing::ContainerdAway,
            Self::Content { error, .. } if error.is_outage() => Standing::ContainerdAway,
            Self::NoContainer { .. } | Self::NoSandbox { .. } => Standing::NotThere,
            Self::Name { .. }
            | Self::NotRegistered { .. }
            | Self::Reserved { .. }
            // No server was asked: a fault of this node's own, which held data must not bridge for as long as nobody mends it.
            | Self::Credentials { .. }
            | Self::Trust(_)
            | Self::Frozen(_)
            | Self::Server { .. }
            | Self::Evidence { .. }
            | Self::NotHeld { .. }
            | Self::OtherImage { .. }
            | Self::OtherRecord { .. }
            | Self::OtherRootFs { .. }
            | Self::Snapshotter { .. }
            | Self::UnknownRootFs { .. }
            | Self::NotPresent { .. }
            | Self::Content { .. }
            | Self::Containerd { .. }
            | Self::Answer { .. }
            | Self::OtherVolume { .. }
            | Self::SandboxUnknown
            | Self::NamespaceFull { .. }
            | Self::Ledger { .. }
            | Self::Clock(_)
            | Self::Internal { .. } => Standing::Denied,
        }
    }
}

impl Refusal {
    /// The same about another image of the same repository: what a server is refused for is shared by all who wait for it.
    #[must_use]
    pub(super) fn about(mut self, asked: &ImageReference) -> Self {
        if let Self::Trust(refusal) = self {
            return Self::Trust(refusal.about(asked));
        }
        if let Self::Server { image, .. } | Self::UpdateTimedOut { image, .. } | Self::ServerNotAsked { image, .. } = &mut self {
            **image = asked.clone();
        }
        self
    }

    /// `refusal` of the image of sandboxes. That containerd is away, or that we fail, says nothing about an image.
    pub(super) fn sandbox(image: &ImageReference, refusal: Self) -> Self {
        let is_about_image = match refusal.standing() {
            Standing::Denied | Standing::CannotTellNow => !matches!(refusal, Self::Internal { .. } | Self::Ledger { .. } | Self::Clock(_)),
            Standing::ContainerdAway | Standing::NotThere => false,
        };
        if is_about_image { Self::Sandbox { image: Box::new(image.clone()), refusal: Box::new(refusal) } } else { refusal }
    }

    /// The trust server gave no usable answer, and nothing else is there to fall back on.
    pub(super) fn server(image: &ImageReference, error: FetchError) -> Self {
        Self::Server { image: Box::new(image.clone()), error: Box::new(error), held: HeldData::Nothing }
    }
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        Self::Ledger { error: Arc::new(error) }
    }
}

impl From<ContainerdError> for Refusal {
    fn from(error: ContainerdError) -> Self {
        Self::Containerd { error: Arc::new(error) }
    }
}

fn server_sentence(image: &ImageReference, error: &FetchError, held: &HeldData) -> String {
    let lead = format!("error contacting trust server: {} (for {image})", chain(error));
    if !error.is_outage() {
        return lead;
    }
    match held {
        HeldData::Nothing => format!("{lead}; this node holds no trust data for {} to go on with", image.repository()),
        HeldData::Refused(refusal) => format!("{lead}; the trust data that this node holds does not serve: {refusal}"),
        HeldData::OutOfDate => {
            format!("{lead}; the trust data that this node holds is out of date, since the server showed a newer timestamp")
        }
    }
}

/// An error with its causes, each once.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
