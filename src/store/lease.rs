//! A lease: what was written under it ends with it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::error::StoreError;
use super::limits::{MAX_LEASE, MIN_LEASE};

/// Which store a lease is of, so that none is taken for that of another.
#[derive(Debug, Clone)]
pub(super) struct Owner(Arc<()>);

impl Owner {
    pub(super) fn new() -> Self {
        Self(Arc::new(()))
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A lease that is renewed in the background until it is dropped. What was written under it is then removed: at once if the store
/// can be reached, and when its life ends if not.
pub struct Lease {
    owner: Owner,
    number: i64,
    ttl: Duration,
    is_lost: watch::Receiver<bool>,
    /// Dropped with the lease, which ends the renewal and gives the lease back.
    _held: Box<dyn Send + Sync>,
}

impl Lease {
    pub(super) fn new(owner: &Owner, number: i64, ttl: Duration, is_lost: watch::Receiver<bool>, held: Box<dyn Send + Sync>) -> Self {
        Self { owner: owner.clone(), number, ttl, is_lost, _held: held }
    }

    /// For how long it lives after its last renewal.
    #[must_use]
    pub const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Whether it has ended, or must be taken to have: it could not be renewed within its life.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        // Where nobody is left to renew it, it ends.
        *self.is_lost.borrow() || self.is_lost.has_changed().is_err()
    }

    /// Waits until it is lost.
    pub async fn lost(&self) {
        let mut is_lost = self.is_lost.clone();
        // Whoever renews it is gone without a word: then nobody does.
        let _ = is_lost.wait_for(|is_lost| *is_lost).await;
    }

    /// The number by which the store of `owner` knows it.
    pub(super) fn number(&self, owner: &Owner) -> Result<i64, StoreError> {
        if self.owner.is(owner) && !self.is_lost() { Ok(self.number) } else { Err(StoreError::LeaseLost) }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("number", &self.number)
            .field("ttl", &self.ttl)
            .field("is_lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

/// Refuses a length that is not given.
pub(super) fn refuse_length(ttl: Duration) -> Result<(), StoreError> {
    if (MIN_LEASE..=MAX_LEASE).contains(&ttl) {
        return Ok(());
    }
    Err(StoreError::LeaseLength { seconds: ttl.as_secs(), least: MIN_LEASE.as_secs(), most: MAX_LEASE.as_secs() })
}
