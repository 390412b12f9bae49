//! The latest changes, for whoever follows. Each follower has a place in them and no queue of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::database::Write;
use crate::store::changes::Change;
use crate::store::entry::{Entry, Revision};
use crate::store::error::StoreError;
use crate::store::key::Prefix;
use crate::store::limits::{HISTORY_BYTES, HISTORY_ENTRIES};

#[derive(Debug)]
struct Kept {
    writes: VecDeque<Write>,
    bytes: usize,
    /// Writes up to this revision are not kept any more.
    forgotten: u64,
    /// How often all was forgotten: whoever followed before follows another story.
    epoch: u64,
}

#[derive(Debug)]
pub(super) struct History {
    kept: Arc<Mutex<Kept>>,
    latest: watch::Sender<u64>,
}

impl History {
    /// Nothing is remembered of what came before `revision`.
    pub(super) fn new(revision: u64) -> Self {
        let kept = Kept { writes: VecDeque::new(), bytes: 0, forgotten: revision, epoch: 0 };
        Self { kept: Arc::new(Mutex::new(kept)), latest: watch::Sender::new(revision) }
    }

    /// Remembers a write. They come in their order, since they are made one after the other.
    pub(super) fn push(&self, write: Write) {
        let revision = write.revision;
        {
            let mut kept = lock(&self.kept);
            kept.bytes += size(&write);
            kept.writes.push_back(write);
            while kept.writes.len() > HISTORY_ENTRIES || kept.bytes > HISTORY_BYTES {
                let Some(oldest) = kept.writes.pop_front() else { break };
                kept.bytes = kept.bytes.saturating_sub(size(&oldest));
                kept.forgotten = oldest.revision;
            }
        }
        self.latest.send_replace(revision);
    }

    /// Forgets everything: the file was opened anew at `revision`, and may not hold what was told.
    pub(super) fn forget(&self, revision: u64) {
        {
            let mut kept = lock(&self.kept);
            let epoch = kept.epoch + 1;
            *kept = Kept { writes: VecDeque::new(), bytes: 0, forgotten: revision, epoch };
        }
        self.latest.send_replace(revision);
    }

    /// Sees the end of the history.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    /// Waits for the end of the history: nobody writes any more.
    pub(super) async fn is_gone(watched: &mut watch::Receiver<u64>) {
        while watched.changed().await.is_ok() {}
    }

    /// A place after `from`.
    pub(super) fn follow(&self, from: Revision) -> Result<Follower, StoreError> {
        let latest = self.latest.subscribe();
        let kept = lock(&self.kept);
        let is_kept = kept.forgotten <= from.number() && from.number() <= *latest.borrow();
        if !is_kept {
            return Err(StoreError::Compacted { from: from.number() });
        }
        Ok(Follower { kept: Arc::clone(&self.kept), latest, place: from.number(), epoch: kept.epoch })
    }
}

/// A place in the history.
#[derive(Debug)]
pub(super) struct Follower {
    kept: Arc<Mutex<Kept>>,
    latest: watch::Receiver<u64>,
    place: u64,
    epoch: u64,
}

impl Follower {
    /// Waits for the next change below `prefix`. None when the store is gone.
    pub(super) async fn next(&mut self, prefix: &Prefix) -> Option<Result<Change, StoreError>> {
        loop {
            // Marked as seen before looking, so that no write in between is slept over.
            let _ = *self.latest.borrow_and_update();
            match self.look(prefix) {
                Ok(Some(write)) => return Some(Ok(change(write))),
                Ok(None) => self.latest.changed().await.ok()?,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn look(&mut self, prefix: &Prefix) -> Result<Option<Write>, StoreError> {
        let kept = lock(&self.kept);
        if kept.forgotten > self.place || kept.epoch != self.epoch {
            return Err(StoreError::Compacted { from: self.place });
        }
        let begin = kept.writes.partition_point(|write| write.revision <= self.place);
        for write in kept.writes.range(begin..) {
            self.place = write.revision;
            if prefix.contains(&write.key) {
                return Ok(Some(write.clone()));
            }
        }
        Ok(None)
    }
}

fn change(write: Write) -> Change {
    let revision = Revision::new(write.revision);
    match write.value {
        Some(value) => Change::Put { key: write.key, entry: Entry { value, revision } },
        None => Change::Removed { key: write.key, revision },
    }
}

fn size(write: &Write) -> usize {
    write.value.as_ref().map_or(0, Bytes::len)
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}
