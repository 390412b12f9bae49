//! Changes, as they are followed.

use tokio::sync::mpsc;

use super::entry::{Entry, Revision, Unusable};
use super::error::StoreError;
use super::key::Key;

/// Something that happened below a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This stands there now.
    Put {
        /// Where.
        key: Key,
        /// What, and since when.
        entry: Entry,
    },
    /// Nothing stands there any more: it was removed, or its lease has ended.
    Removed {
        /// Where.
        key: Key,
        /// Since when.
        revision: Revision,
    },
    /// Something stands there now that is no entry of this program.
    Unusable(Unusable),
    /// The store cannot be reached: what has happened since is told when it can be again.
    Interrupted,
    /// It can be reached again.
    Resumed,
}

/// The changes below a prefix, in their order, none left out. After a connection was lost some may come a second time: a change
/// whose revision is not above that of what is known of its key says nothing new.
#[derive(Debug)]
pub struct Changes(mpsc::Receiver<Result<Change, StoreError>>);

impl Changes {
    pub(super) const fn new(receiver: mpsc::Receiver<Result<Change, StoreError>>) -> Self {
        Self(receiver)
    }

    /// Waits for the next change. A store that cannot be reached is waited for, and nothing is lost by it.
    ///
    /// An error is the end, and None comes after it. [`StoreError::Compacted`]: changes are gone, so list again, and follow from
    /// there. So does [`StoreError::TooLarge`]: somebody has written what cannot be carried. Anything else is to be mended.
    pub async fn next(&mut self) -> Option<Result<Change, StoreError>> {
        self.0.recv().await
    }
}
