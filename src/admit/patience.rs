//! How long a server that made somebody wait is not waited for again.
//!
//! kubelet pulls one image at a time by default: without this, a trust server that hangs would hold up each pull of the node
//! for as long as it may take, although what is held would do.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A server that fails within this time holds up nobody.
const NOTICEABLE: Duration = Duration::from_secs(2);
/// For so long after that it is not asked where held trust data serves: some pulls go on, and a server that is back is
/// noticed soon.
const PAUSE: Duration = Duration::from_secs(30);

/// Servers that made somebody wait for nothing, and since when they are left alone.
#[derive(Debug, Default)]
pub(super) struct Patience(Mutex<HashMap<String, Instant>>);

impl Patience {
    /// Whether `server` is left alone at the moment.
    pub(super) fn is_over_with(&self, server: &str) -> bool {
        let mut left_alone = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        left_alone.retain(|_, since| since.elapsed() < PAUSE);
        left_alone.contains_key(server)
    }

    /// Takes note of a try at `server` that began at `began` and failed as an outage.
    pub(super) fn failed(&self, server: &str, began: Instant) {
        if began.elapsed() >= NOTICEABLE {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(server.to_owned(), Instant::now());
        }
    }

    /// The server has answered.
    pub(super) fn answered(&self, server: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(server);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_server_that_made_somebody_wait_is_left_alone_for_a_while() {
        let patience = Patience::default();
        patience.failed("https://fast.test", Instant::now());
        assert!(!patience.is_over_with("https://fast.test"));
        let began = Instant::now();
        tokio::time::advance(NOTICEABLE).await;
        patience.failed("https://slow.test", began);
        assert!(patience.is_over_with("https://slow.test"));
        assert!(!patience.is_over_with("https://other.test"));
        tokio::time::advance(PAUSE).await;
        assert!(!patience.is_over_with("https://slow.test"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_the_pause() {
        let patience = Patience::default();
        let began = Instant::now();
        tokio::time::advance(NOTICEABLE).await;
        patience.failed("https://slow.test", began);
        patience.answered("https://slow.test");
        assert!(!patience.is_over_with("https://slow.test"));
    }
}
