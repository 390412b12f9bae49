//! Following what others write, until the process ends.

use std::time::Duration;

use crate::store::{Change, Prefix, Revision as Moment, Store, StoreError};

/// After the changes could not be followed: first wait before everything is listed again, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A mirror of a part of the store.
pub(super) trait Follows {
    /// The part.
    fn prefix(&self) -> Prefix;

    /// Takes everything that stands there, and gives back the moment from which changes are to be followed.
    async fn load(&self) -> Result<Moment, StoreError>;

    /// Takes a change.
    async fn apply(&self, change: Change);
}

/// Follows, and says with `told` when that does not work. What is held stays while the store cannot be asked.
pub(super) async fn follow(mirror: &impl Follows, store: &dyn Store, told: &str) {
    let mut wait = FIRST_WAIT;
    loop {
        match follow_once(mirror, store).await {
            Ok(()) | Err(StoreError::Compacted { .. }) => wait = FIRST_WAIT,
            Err(error) => {
                tracing::warn!(%error, "{told}");
                wait = wait.saturating_mul(2).min(LONGEST_WAIT);
            }
        }
        mirror.apply(Change::Interrupted).await;
        tokio::time::sleep(wait).await;
    }
}

async fn follow_once(mirror: &impl Follows, store: &dyn Store) -> Result<(), StoreError> {
    let from = mirror.load().await?;
    let mut changes = store.follow(&mirror.prefix(), from).await?;
    mirror.apply(Change::Resumed).await;
    while let Some(change) = changes.next().await {
        mirror.apply(change?).await;
    }
    Ok(())
}
