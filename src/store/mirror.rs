//! A mirror of a part of the store: everything that stands there, and then every change, until the process ends.

use std::future::Future;
use std::time::{Duration, Instant};

use super::Store;
use super::changes::Change;
use super::entry::Revision;
use super::error::StoreError;
use super::key::Prefix;

/// After the changes could not be followed: first wait before everything is listed again, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A mirror of a part of the store.
pub trait Mirror: Sync {
    /// The part.
    fn prefix(&self) -> Prefix;

    /// Takes everything that stands there, and gives back the moment from which changes are to be followed.
    ///
    /// # Errors
    /// Why the store cannot be asked.
    fn load(&self) -> impl Future<Output = Result<Revision, StoreError>> + Send;

    /// Takes a change. [`Change::Interrupted`] comes also where following has ended and begins anew later, and
    /// [`Change::Resumed`] whenever it has begun.
    fn apply(&self, change: Change) -> impl Future<Output = ()> + Send;
}

/// Follows, and says with `told` when that does not work. What is held stays while the store cannot be asked.
pub async fn follow(mirror: &impl Mirror, store: &dyn Store, told: &str) {
    let mut wait = FIRST_WAIT;
    loop {
        let began = Instant::now();
        match follow_once(mirror, store).await {
            Ok(()) | Err(StoreError::Compacted { .. }) => {}
            Err(error) => tracing::warn!(%error, "{told}"),
        }
        // A store that ends each watch at once does not get a listing each time.
        wait = if began.elapsed() > LONGEST_WAIT { FIRST_WAIT } else { wait };
        mirror.apply(Change::Interrupted).await;
        tokio::time::sleep(wait).await;
        wait = wait.saturating_mul(2).min(LONGEST_WAIT);
    }
}

async fn follow_once(mirror: &impl Mirror, store: &dyn Store) -> Result<(), StoreError> {
    let from = mirror.load().await?;
    let mut changes = store.follow(&mirror.prefix(), from).await?;
    mirror.apply(Change::Resumed).await;
    while let Some(change) = changes.next().await {
        mirror.apply(change?).await;
    }
    Ok(())
}
