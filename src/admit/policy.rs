//! What the configuration says about images, in the form in which it is asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use countersign_trust::evidence::Gun;
use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageReference, RegistryHost, Sha256};
use countersign_trust::pin::Anchor;
use countersign_trust::policy::Consulted;
use countersign_trust::time::UnixTime;
use countersign_trust::{Approval, Question, Reason};

use super::refusal::Refusal;
use super::rehearsal::refuse_reserved;
use super::sandbox::SandboxImage;
use crate::fetch::{NodeCredentials, TrustServer};

/// The policy of this node.
#[derive(Debug)]
pub struct Policy {
    /// What is demanded of images.
    pub trust: countersign_trust::Policy,
    /// The trust server of each registered registry.
    pub servers: HashMap<RegistryHost, TrustServer>,
    /// For how long after it was last found good expired trust data serves while its server cannot be reached
    /// (`allow-expired-cached-trust-data`); none: not at all.
    pub expired_serves_for: Option<Duration>,
    /// This node's own credentials, for pulls that bring none. None: there are none.
    pub node_credentials: Option<Arc<NodeCredentials>>,
    /// For how long services that ran before their images were enforced go on by themselves. None: not at all.
    pub grandfather_for: Option<Duration>,
    /// For how long a service keeps a digest that its tag is not signed as any more, from when it was seen as current.
    pub superseded_max_age: Duration,
    /// What sandboxes may run.
    pub sandbox: SandboxImage,
    /// How often held trust data is brought up to date.
    pub refresh_interval: Duration,
    /// Names the policy: the hash of the configuration.
    pub digest: Sha256,
    /// The same without the name of this node: nodes of a cluster that are configured alike have it in common.
    pub shared_digest: Sha256,
}

/// What is known of an image before any trust data is looked at.
#[derive(Debug)]
pub(super) enum Local {
    /// A rule allows it.
    Allowed(Approval),
    /// Its trust data decides, which is known where to find.
    Asks,
}

/// Where the trust data of a repository is, and what anchors it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) server: &'a TrustServer,
    pub(super) anchor: &'a Anchor,
}

impl Policy {
    /// Everything that local data says. What is refused here is refused without a packet.
    pub(super) fn consult(&self, question: Question<'_>, now: UnixTime) -> Result<Local, Refusal> {
        refuse_reserved(question.image)?;
        self.consult_staged(question, now)
    }

    /// As [`Policy::consult`], for what is on the stage as well.
    pub(super) fn consult_staged(&self, question: Question<'_>, now: UnixTime) -> Result<Local, Refusal> {
        let host = question.image.repository().host();
        let not_registered = || Refusal::NotRegistered { host: host.clone() };
        match (self.trust.consult(question, now), self.servers.get(host)) {
            (Ok(Consulted::Allowed(approval)), _) => Ok(Local::Allowed(approval)),
            (Ok(Consulted::Signatures { .. }), Some(_)) => Ok(Local::Asks),
            (Ok(Consulted::Signatures { .. }), None) => Err(not_registered()),
            // Whoever forgot to register the registry did not get as far as its pins.
            (Err(refusal), None) if *refusal.reason() == Reason::NotPinned => Err(not_registered()),
            (Err(refusal), _) => Err(Refusal::Trust(refusal)),
        }
    }

    /// What is refused of a whole repository: that it is not registered or not pinned. A rule may be about some of its images.
    pub(super) fn consult_for_repository(&self, image: &ImageReference, now: UnixTime) -> Result<(), Refusal> {
        if self.source_of(image).is_some() {
            return Ok(());
        }
        self.consult(Question::without_namespace(image), now).map(drop)
    }

    /// Where the trust data of an image's repository is, and what anchors it.
    pub(super) fn source_of(&self, image: &ImageReference) -> Option<Source<'_>> {
        let server = self.servers.get(image.repository().host())?;
        let anchor = self.trust.pins.anchor_for(&Gun::for_repository(image.repository()))?;
        Some(Source { server, anchor })
    }

    /// Until when a digest is used on that was seen as current at `at`, and that its tag is not signed as any more.
    pub(super) fn superseded_serves_until(&self, at: UnixTime) -> UnixTime {
        at.plus_seconds(i64::try_from(self.superseded_max_age.as_secs()).unwrap_or(i64::MAX))
    }

    /// What becomes of the image if it is refused for this reason. What must never run is no matter of rules.
    pub(super) fn mode_after(&self, mode: Mode, refusal: &Refusal) -> Mode {
        if refusal.is_of_denied_digest() { mode.max(self.trust.mode) } else { mode }
    }
}
