//! Callers' connections: which are open, what runs on each, and which goes when there are too many.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;

/// Connections at once. kubelet holds two, crictl one; each costs two file descriptors, of which a process has 1024 where nobody
/// has said otherwise.
pub(super) const CONNECTIONS: usize = 256;
/// From here on, each new connection closes the one that has been without a call for the longest time. A client that
/// leaves its connections open must not keep kubelet out after a restart; gRPC clients connect again by themselves. The
/// rest up to [`CONNECTIONS`] is for those that are about to close.
const CROWDED: usize = 192;
/// Connections with a running call that one process may have when it opens another. Those are not closed for others, and a
/// client whose calls all hang must not keep kubelet out; no client has a use for so many.
const BUSY_OF_ONE_PROCESS: usize = 128;

/// Calls at once, on all connections together: a call that hangs takes some ten KiB. kubelet has a few hundred when the exec
/// probes of all its pods hang.
pub(super) const CALLS: usize = 8192;
/// The last of these are for connections that have at most [`FEW`] calls: a client that leaves its calls open on one or a few
/// connections must not keep kubelet out.
const KEPT_FREE: usize = 2048;
const FEW: usize = 256;

/// What became of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// It is served.
    Served,
    /// It is served, and another one that had no call is being closed for it.
    InPlaceOfAnother,
    /// It was closed: there is no room.
    Refused,
}

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Callers {
    tasks: JoinSet<()>,
    open: HashMap<Id, Caller>,
}

#[derive(Debug)]
struct Caller {
    process: Option<i32>,
    calls: Arc<Calls>,
    closing: watch::Sender<bool>,
}

impl Callers {
    /// Serves a connection of a process (by its ID, where the kernel tells it) with what `serve` makes of its calls and of the
    /// signal to close it, if there is room.
    pub(super) fn admit<F>(&mut self, process: Option<i32>, serve: impl FnOnce(Arc<Calls>, watch::Receiver<bool>) -> F) -> Entry
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.open.len() >= CONNECTIONS || self.busy_of(process) >= BUSY_OF_ONE_PROCESS {
            return Entry::Refused;
        }
        let makes_room = self.open.len() >= CROWDED && self.close_idlest();
        let (calls, closing) = (Arc::new(Calls::new()), watch::Sender::new(false));
        let task = self.tasks.spawn(serve(Arc::clone(&calls), closing.subscribe()));
        self.open.insert(task.id(), Caller { process, calls, closing });
        if makes_room { Entry::InPlaceOfAnother } else { Entry::Served }
    }

    /// Waits until a connection has ended; false when none is open.
    pub(super) async fn ended(&mut self) -> bool {
        let Some(ended) = self.tasks.join_next_with_id().await else { return false };
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        self.open.remove(&id);
        true
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Asks all of them to close once their calls have ended.
    pub(super) fn close_all(&self) {
        for caller in self.open.values() {
            caller.closing.send_replace(true);
        }
    }

    fn busy_of(&self, process: Option<i32>) -> usize {
        self.open.values().filter(|caller| caller.process == process && caller.calls.running() > 0).count()
    }

    fn close_idlest(&self) -> bool {
        let staying = self.open.values().filter(|caller| !*caller.closing.borrow());
        let idle = staying.filter_map(|caller| Some((caller.calls.idle_since()?, caller)));
        let Some((_, idlest)) = idle.min_by_key(|(since, _)| *since) else { return false };
        idlest.closing.send_replace(true);
        true
    }
}

/// The calls that run on one connection, from the arrival of the request to the end of the answer.
#[derive(Debug)]
pub(super) struct Calls(watch::Sender<Running>);

#[derive(Debug)]
struct Running {
    calls: usize,
    /// When a call last ended, or the connection came.
    since: Instant,
}

impl Calls {
    fn new() -> Self {
        Self(watch::Sender::new(Running { calls: 0, since: Instant::now() }))
    }

    /// Counts a call until the value is dropped.
    pub(super) fn begin(&self) -> Call {
        self.0.send_modify(|running| running.calls = running.calls.saturating_add(1));
        Call(self.0.clone())
    }

    /// Ready when no call has run for as long as `linger`.
    pub(super) async fn none_for(&self, linger: Duration) {
        let mut running = self.0.subscribe();
        loop {
            // The sender is ours, so waiting cannot fail.
            let _ = running.wait_for(|running| running.calls == 0).await;
            if tokio::time::timeout(linger, running.wait_for(|running| running.calls > 0)).await.is_err() {
                return;
            }
        }
    }

    fn running(&self) -> usize {
        self.0.borrow().calls
    }

    /// Since when no call has run; none while one runs.
    fn idle_since(&self) -> Option<Instant> {
        let running = self.0.borrow();
        (running.calls == 0).then_some(running.since)
    }
}

/// A running call.
#[derive(Debug)]
pub(super) struct Call(watch::Sender<Running>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running = Running { calls: running.calls.saturating_sub(1), since: Instant::now() });
    }
}

/// Room for [`CALLS`] calls.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CALLS)))
    }
}

impl Places {
    /// A place for one more call on a connection, until it is dropped; None: there is none.
    pub(super) fn take(&self, connection: &Calls) -> Option<OwnedSemaphorePermit> {
        if self.0.available_permits() <= KEPT_FREE && connection.running() > FEW {
            return None;
        }
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that is busy from its first moment on, and stays.
    async fn busy(calls: Arc<Calls>, _closing: watch::Receiver<bool>) {
        let _call = calls.begin();
        std::future::pending::<()>().await;
    }

    #[tokio::test]
    async fn a_process_whose_calls_all_hang_keeps_no_other_out() {
        let mut callers = Callers::default();
        let mut served = 0;
        for _ in 0..2 * CONNECTIONS {
            served += usize::from(callers.admit(Some(7), busy) != Entry::Refused);
            tokio::task::yield_now().await;
        }
        assert_eq!(served, BUSY_OF_ONE_PROCESS);
        assert_eq!(callers.admit(Some(8), busy), Entry::Served);
        tokio::task::yield_now().await;
        assert_eq!(callers.admit(Some(7), busy), Entry::Refused);
    }
}
