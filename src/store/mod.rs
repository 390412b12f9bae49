//! The store: a small key space that the nodes of a cluster share.
//!
//! **It is not trusted.** Whatever is read here was written by whoever could write there: it is evidence to be verified or a hint,
//! and never an authority. What this room promises is about itself: every wait and every answer is bounded, no key of one list of
//! segments is that of another, what is written is written by compare-and-set, and what cannot be answered is an error that says
//! what to do, and never "there is none".
//!
//! - [`EmbeddedStore`]: a file of this node's own, for a node that shares with nobody.
//! - [`EtcdStore`]: etcd v3, for a cluster.

mod changes;
mod complaints;
mod embedded;
mod entry;
mod error;
mod etcd;

mod key;
mod lease;
pub mod limits;
mod listing;
mod mirror;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use changes::{Change, Changes};
pub use complaints::Complaints;
pub use embedded::EmbeddedStore;
pub use entry::{After, Entry, Expected, Page, Put, Removed, Revision, Unusable, UnusableValue};
pub use error::{LoginFault, Outage, StoreError, Try};

pub use etcd::{EtcdSettings, EtcdStore, Login, StoreTls};
pub use key::{Key, KeyError, Prefix, Segment};
pub use lease::Lease;
pub use listing::{Listing, list_all};
pub use mirror::{Mirror, follow};

/// A key space with compare-and-set, watches and leases. Every call ends within [`limits::CALL_DEADLINE`].
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// What stands below `key`; None if nothing does. It is as new as the last write that any node was told of.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] or [`StoreError::TooLarge`] if what stands there is no value of this program; the other variants
    /// if the store cannot be asked.
    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError>;

    /// At most `limit` entries below `prefix` (and [`limits::MAX_PAGE_ENTRIES`]), in the order of their written keys: the first
    /// ones, or those after a page. Each page is of a moment of its own: follow the changes from the revision of the first one.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be asked. What is no value of this program stands in the page as such.
    async fn list(&self, prefix: &Prefix, after: Option<&After>, limit: usize) -> Result<Page, StoreError>;

    /// As [`Store::list`], with up to [`limits::MAX_PAGE_KEYS`] entries and without what was written: each value is empty.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be asked.
    async fn list_keys(&self, prefix: &Prefix, after: Option<&After>, limit: usize) -> Result<Page, StoreError>;

    /// Writes `value` below `key`, if there is what is expected. With a lease, the entry ends with it.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] for a value that is too long, [`StoreError::Foreign`] if what is there is no value of this
    /// program, which is left as it is; [`StoreError::LeaseLost`]. After an outage the value may have been written all the same.
    async fn put(&self, key: &Key, value: Bytes, expected: Expected, lease: Option<&Lease>) -> Result<Put, StoreError>;

    /// Removes what stands below `key`, if it is of `revision`. Nobody need be able to read it.
    ///
    /// # Errors
    /// As [`Store::put`].
    async fn remove(&self, key: &Key, revision: Revision) -> Result<Removed, StoreError>;

    /// Follows the changes below `prefix` that came after `from`.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if they are gone, which may also be the first thing that is told of them;
    /// [`StoreError::TooManyWatches`], or why the store cannot be asked.
    async fn follow(&self, prefix: &Prefix, from: Revision) -> Result<Changes, StoreError>;

    /// A lease that lives for `ttl` (in whole seconds) after its last renewal, and is renewed until it is dropped.
    ///
    /// # Errors
    /// [`StoreError::LeaseLength`] for a length that is not given, or why the store cannot be asked.
    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError>;
}
