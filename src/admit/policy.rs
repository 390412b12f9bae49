//! What the configuration says about images, in the form in which it is asked.

use std::collections::HashMap;
use std::sync::Arc;

use countersign_trust::evidence::Gun;
use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageReference, RegistryHost, Sha256};
use countersign_trust::pin::{Anchor, Pins};

use super::refusal::Refusal;
use crate::fetch::{NodeCredentials, TrustServer};

/// The policy of this node.
#[derive(Debug)]
pub struct Policy {
    /// Whether failures deny.
    pub mode: Mode,
    /// Which roots are trusted.
    pub pins: Pins,
    /// The trust server of each registered registry.
    pub servers: HashMap<RegistryHost, TrustServer>,
    /// This node's own credentials, for pulls that bring none. None: there are none.
    pub node_credentials: Option<Arc<NodeCredentials>>,
    /// Names the policy: the hash of the configuration.
    pub digest: Sha256,
}

impl Policy {
    /// Where the signatures of an image are, and what anchors them. What is refused here is refused without a packet.
    pub(super) fn source_of(&self, image: &ImageReference) -> Result<(&TrustServer, &Anchor), Refusal> {
        let host = image.repository().host();
        let server = self.servers.get(host).ok_or_else(|| Refusal::NotRegistered { host: host.clone() })?;
        let gun = Gun::for_repository(image.repository());
        let not_pinned = || countersign_trust::Refusal::of_image(image, countersign_trust::Reason::NotPinned);
        let anchor = self.pins.anchor_for(&gun).ok_or_else(|| Refusal::Trust(not_pinned()))?;
        Ok((server, anchor))
    }
}
