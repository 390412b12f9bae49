//! The store of one node: a file in its state directory, with the same meaning as the one that nodes share.
//!
//! What is answered with `Ok` is on the disk. Leases end with the process: what was written under one is removed when the file is
//! opened again. Changes are remembered in memory, for a while, so that whoever follows begins with a list after a restart.

mod database;
mod file;
mod history;
mod record;

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use self::database::Database;
use self::file::StoreFile;
use self::history::History;
use super::Store;
use super::changes::Changes;
use super::entry::{After, Entry, Expected, Page, Put, Removed, Revision, refuse_long};
use super::error::StoreError;
use super::key::{Key, Prefix};
use super::lease::{Lease, Owner, refuse_length};
use super::limits::{CALL_DEADLINE, MAX_PAGE_ENTRIES, MAX_PAGE_KEYS, MAX_WATCHES, PENDING_CALLS};

/// A file that could not be opened is not tried again before. Each try reads the whole file, to see that it is not damaged.
const REOPEN_PAUSE: Duration = Duration::from_secs(5);

/// The store of one node. Clones share one open file.
#[derive(Debug, Clone)]
pub struct EmbeddedStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: StoreFile,
    state: Mutex<State>,
    history: Arc<History>,
    owner: Owner,
    leases: AtomicI64,
    calls: Arc<Semaphore>,
    watches: Arc<Semaphore>,
}

/// The file.
#[derive(Debug)]
enum State {
    Open(Database),
    /// After the disk failed: the next call opens the file anew, since redb refuses every call after an I/O error.
    Closed,
    /// It could not be opened, at this moment.
    Refused(StoreError, Instant),
}

impl EmbeddedStore {
    /// Opens the store in `directory`, and makes both on first use. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::Directory`], [`StoreError::InUse`], [`StoreError::Damaged`] or [`StoreError::Disk`].
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let file = StoreFile::prepare(directory)?;
        let database = Database::open(&file)?;
        let history = Arc::new(History::new(database.revision()));
        Ok(Self(Arc::new(Shared {
            file,
            state: Mutex::new(State::Open(database)),
            history,
            owner: Owner::new(),
            leases: AtomicI64::new(0),
            calls: Arc::new(Semaphore::new(PENDING_CALLS)),
            watches: Arc::new(Semaphore::new(MAX_WATCHES)),
        })))
    }

    /// Does `call` on a blocking thread. One that the disk keeps longer than the deadline goes on there, and holds its place.
    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let full = |_| StoreError::Busy { what: format!("{PENDING_CALLS} calls wait for the disk already; see that the disk is well") };
        let permit = Arc::clone(&self.0.calls).try_acquire_owned().map_err(full)?;
        let shared = Arc::clone(&self.0);
        let task = tokio::task::spawn_blocking(move || {
            let _permit: OwnedSemaphorePermit = permit;
            shared.with_database(call)
        });
        match tokio::time::timeout(CALL_DEADLINE, task).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_panicked)) => Err(self.0.file.failed("a call ended with a fault of this program")),
            Err(_elapsed) => Err(self.0.file.failed("it did not answer in time")),
        }
    }
}

impl Shared {
    fn with_database<T>(&self, call: impl FnOnce(&mut Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| {
            // A panic in the middle of a call leaves what is in memory in doubt, so the file is opened anew.
            let mut state = poisoned.into_inner();
            *state = State::Closed;
            self.state.clear_poison();
            state
        });
        let answer = call(self.opened(&mut state)?);
        if matches!(answer, Err(StoreError::Disk { .. } | StoreError::Damaged { .. })) {
            *state = State::Closed;
        }
        answer
    }

    /// The open database, opened now if it is not.
    fn opened<'s>(&self, state: &'s mut State) -> Result<&'s mut Database, StoreError> {
        match state {
            State::Open(_) => {}
            State::Refused(error, at) if at.elapsed() < REOPEN_PAUSE => return Err(error.clone()),
            State::Refused(..) | State::Closed => {
                *state = match Database::open(&self.file) {
                    Ok(opened) => {
                        self.history.forget(opened.revision());
                        State::Open(opened)
                    }
                    Err(error) => State::Refused(error, Instant::now()),
                };
            }
        }
        match state {
            State::Open(database) => Ok(database),
            State::Refused(error, _) => Err(error.clone()),
            State::Closed => Err(self.file.failed("it is closed")),
        }
    }

    /// Removes what was written under a lease.
    fn end_lease(&self, lease: i64) -> Result<(), StoreError> {
        let history = Arc::clone(&self.history);
        self.with_database(|database| database.end_lease(lease, |write| history.push(write)))
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let key = key.clone();
        self.call(move |database| database.read(&key)).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&After>, limit: usize) -> Result<Page, StoreError> {
        let (prefix, after) = (prefix.clone(), after.cloned());
        self.call(move |database| database.list(&prefix, after.as_ref(), limit.clamp(1, MAX_PAGE_ENTRIES))).await
    }

    async fn list_keys(&self, prefix: &Prefix, after: Option<&After>, limit: usize) -> Result<Page, StoreError> {
        let (prefix, after) = (prefix.clone(), after.cloned());
        let mut page = self.call(move |database| database.list(&prefix, after.as_ref(), limit.clamp(1, MAX_PAGE_KEYS))).await?;
        page.entries.iter_mut().for_each(|(_, entry)| entry.value = Bytes::new());
        Ok(page)
    }

    async fn put(&self, key: &Key, value: Bytes, expected: Expected, lease: Option<&Lease>) -> Result<Put, StoreError> {
        refuse_long(key, &value)?;
        let lease = lease.map_or(Ok(0), |lease| lease.number(&self.0.owner))?;
        let (key, history) = (key.clone(), Arc::clone(&self.0.history));
        self.call(move |database| database.put(&key, value, expected, lease, |write| history.push(write))).await
    }

    async fn remove(&self, key: &Key, revision: Revision) -> Result<Removed, StoreError> {
        let (key, history) = (key.clone(), Arc::clone(&self.0.history));
        self.call(move |database| database.remove(&key, revision, |write| history.push(write))).await
    }

    async fn follow(&self, prefix: &Prefix, from: Revision) -> Result<Changes, StoreError> {
        let permit = Arc::clone(&self.0.watches).try_acquire_owned().map_err(|_| StoreError::TooManyWatches)?;
        let mut follower = self.0.history.follow(from)?;
        let prefix = prefix.clone();
        // What waits for the follower waits in the history, whose values are shared.
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let _permit = permit;
            loop {
                let next = tokio::select! {
                    next = follower.next(&prefix) => next,
                    () = sender.closed() => return,
                };
                let Some(next) = next else { return };
                let is_end = next.is_err();
                if sender.send(next).await.is_err() || is_end {
                    return;
                }
            }
        });
        Ok(Changes::new(receiver))
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        refuse_length(ttl)?;
        let number = self.0.leases.fetch_add(1, Ordering::Relaxed) + 1;
        let (held, is_dropped) = oneshot::channel::<()>();
        let (is_lost, lost) = watch::channel(false);
        let (shared, mut watched) = (Arc::downgrade(&self.0), self.0.history.watch());
        tokio::spawn(async move {
            // Dropping the lease, or the store, drops the other end.
            tokio::select! {
                _ = is_dropped => {}
                () = History::is_gone(&mut watched) => {}
            }
            drop(is_lost);
            let Some(shared) = shared.upgrade() else { return };
            let _ = tokio::task::spawn_blocking(move || {
                if let Err(error) = shared.end_lease(number) {
                    tracing::warn!(%error, "what was written under a lease stays until the store is opened again");
                }
            })
            .await;
        });
        Ok(Lease::new(&self.0.owner, number, ttl, lost, Box::new(Mutex::new(held))))
    }
}
