//! The policy of a node, with everything as it is by default but what a test is about.

use std::collections::HashMap;
use std::time::Duration;

use countersign::admit::{Policy, SandboxImage};
use countersign::fetch::TrustServer;
use countersign_trust::name::{RegistryHost, Sha256};

/// The policy of a configuration whose hash is `digest`.
pub(crate) fn with(trust: countersign_trust::Policy, servers: HashMap<RegistryHost, TrustServer>, digest: Sha256) -> Policy {
    Policy {
        trust,
        servers,
        expired_serves_for: None,
        node_credentials: None,
        grandfather_for: None,
        superseded_max_age: Duration::from_secs(180 * 86_400),
        sandbox: SandboxImage::default(),
        refresh_interval: Duration::from_secs(3600),
        digest,
        shared_digest: digest,
    }
}
