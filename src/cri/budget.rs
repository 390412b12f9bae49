//! How many bytes of checked requests are held at once, from their first byte until their checks have ended.
//!
//! A check may wait for a trust server or for containerd for minutes, and its request waits with it. Nobody waits for room:
//! whoever finds none is told at once, and others go on.

use std::sync::Arc;

use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests up to this length are small, and have room of their own. kubelet's are some KiB; one with large annotations, or many
/// variables from a ConfigMap, may be longer, and is a large one.
pub(super) const SMALL: usize = 64 * 1024;
/// For the small ones: 4096 at once of kubelet's, which has at most one for each of some hundred pods.
pub(super) const SMALL_HELD: usize = 64 * 1024 * 1024;
/// For the large ones: two of the longest, or 32 with a MiB each. A check copies what it changes and what it sends, so that it
/// takes up to four times as much for a moment.
pub(super) const LARGE_HELD: usize = 32 * 1024 * 1024;
/// What every call counts for besides its message and its headers: its task, and the rest of the block that it was read into.
const LEAST: usize = 16 * 1024;

/// The room for requests.
#[derive(Debug)]
pub(super) struct Budget {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Budget {
    /// Room for so many bytes.
    pub(super) fn new(small: usize, large: usize) -> Self {
        Self { small: Arc::new(Semaphore::new(small)), large: Arc::new(Semaphore::new(large)) }
    }

    /// The room for a call whose message has yet to come; None: it is used up.
    pub(super) fn enter(&self, headers: &HeaderMap) -> Option<Share> {
        let headers = headers.iter().map(|(name, value)| name.as_str().len().saturating_add(value.len()));
        let call = taken(&self.small, headers.fold(LEAST, usize::saturating_add))?;
        Some(Share(vec![call]))
    }

    /// The room for the message of a call; false: it is used up.
    pub(super) fn take(&self, share: &mut Share, length: usize) -> bool {
        let room = if length <= SMALL { &self.small } else { &self.large };
        let message = taken(room, length);
        let is_there = message.is_some();
        share.0.extend(message);
        is_there
    }
}

fn taken(room: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    Arc::clone(room).try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
}

/// The room that one call takes, until this is dropped.
#[derive(Debug)]
pub(super) struct Share(Vec<OwnedSemaphorePermit>);
