//! How much of the store pins may take, of one namespace and in all.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use countersign_trust::name::{EvidenceDigest, shown};

use super::super::error::ResolveError;
use super::super::held::bytes_of;
use super::super::pin::Pin;
use super::Pins;
use super::write::Ground;
use crate::store::Key;
use crate::store::limits::MAX_LISTED_BYTES;

/// Pins of one namespace: what a tenant can make by making pods. A namespace with so many revisions alive at once is none.
pub const MAX_PINS_OF_A_NAMESPACE: usize = 4096;
/// Bytes of the evidence that the pins of one namespace rest on, as it is packed: what its services share is counted once. That
/// is thousands of usual size; whoever signs ever more of the largest is stopped before he fills the store of all.
pub(super) const MAX_EVIDENCE_BYTES_OF_A_NAMESPACE: u64 = 64 << 20;
/// Bytes of the evidence of all pins: half of what etcd takes by default (`--quota-backend-bytes`), beyond which it takes nothing
/// from anybody.
pub(super) const MAX_EVIDENCE_BYTES: u64 = 1 << 30;
/// Pins of a cluster: fewer than the store lists, so that no tenant keeps a node from listing them.
pub(super) const MAX_PINS: usize = 49_152;
/// Bytes of all pins, with their keys: fewer than the store lists ([`MAX_LISTED_BYTES`]), with room for what nodes write that do
/// not know of each other's yet. Most have one KiB; names and a past of other meanings make some of ten.
pub(super) const MAX_BYTES: u64 = 48 << 20;
const _: () = assert!(MAX_BYTES < MAX_LISTED_BYTES as u64);
/// Bytes of the pins of one namespace: twice what as many as it may have take mostly.
pub(super) const MAX_BYTES_OF_A_NAMESPACE: u64 = 8 << 20;

impl Pins {
    pub(super) fn refuse_over_quota(&self, namespace: &str, ground: &Ground) -> Result<(), ResolveError> {
        let of_namespace = self.of_namespace(namespace);
        if self.held.read().unwrap_or_else(PoisonError::into_inner).vouched_pins() >= MAX_PINS {
            return Err(ResolveError::Full { limit: MAX_PINS });
        }
        if of_namespace.len() >= MAX_PINS_OF_A_NAMESPACE {
            return Err(ResolveError::Quota { namespace: shown(namespace), limit: MAX_PINS_OF_A_NAMESPACE });
        }
        self.refuse_evidence_over_quota(&of_namespace, namespace, ground)
    }

    /// A pin that takes no more than before can always be renewed.
    pub(super) fn refuse_bytes_over_quota(&self, key: &Key, pin: &Pin) -> Result<(), ResolveError> {
        let (held, namespace) = (self.held.read().unwrap_or_else(PoisonError::into_inner), &pin.revision.service.namespace);
        let more = bytes_of(key, pin).saturating_sub(held.of(key).map_or(0, |own| own.bytes));
        if more > 0 && held.bytes_of_namespace(namespace) + more > MAX_BYTES_OF_A_NAMESPACE {
            return Err(ResolveError::QuotaBytes { namespace: shown(namespace), limit: MAX_BYTES_OF_A_NAMESPACE });
        }
        let is_full = more > 0 && held.bytes() + more > MAX_BYTES;
        if is_full { Err(ResolveError::FullBytes { limit: MAX_BYTES }) } else { Ok(()) }
    }

    /// What many pins rest on is counted once.
    pub(super) fn refuse_evidence_over_quota(
        &self,
        of_namespace: &[Arc<Pin>],
        namespace: &str,
        ground: &Ground,
    ) -> Result<(), ResolveError> {
        let mut sizes: HashMap<EvidenceDigest, u64> = of_namespace.iter().flat_map(|pin| pin.evidence_sizes()).collect();
        if sizes.insert(ground.name(), ground.size()).is_some() {
            return Ok(());
        }
        if sizes.values().sum::<u64>() > MAX_EVIDENCE_BYTES_OF_A_NAMESPACE {
            return Err(ResolveError::EvidenceQuota { namespace: shown(namespace), limit: MAX_EVIDENCE_BYTES_OF_A_NAMESPACE });
        }
        let all = self.held.read().unwrap_or_else(PoisonError::into_inner).evidence_bytes();
        let is_full = all.saturating_add(ground.size()) > MAX_EVIDENCE_BYTES;
        if is_full { Err(ResolveError::EvidenceFull { limit: MAX_EVIDENCE_BYTES }) } else { Ok(()) }
    }

    /// Every pin of a namespace that counts: nobody uses up what another may have.
    pub(super) fn of_namespace(&self, namespace: &str) -> Vec<Arc<Pin>> {
        self.counting(|pin| pin.revision.service.namespace == namespace)
    }
}
