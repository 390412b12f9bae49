//! What lives on this node whether or not it came through the gate: containerd's events are followed in every namespace, what
//! came past the gate is told of, and what runs is judged again by today's policy.
//!
//! Whoever has containerd's socket can make anything, and say anything of it. So what counts is content, as everywhere; what
//! containers say of themselves decides how long is waited, never that something is good.

mod board;
mod book;
mod consider;
mod course;
mod follow;
mod in_use;
mod inventory;
mod pending;
mod services;
mod stops;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use board::Board;
pub use board::{Action, Bypass, Counts, Elsewhere, Following, Inventory, MAX_BYPASSES, MAX_SHOWN, Seen, Unverified};
pub use course::{Kind, OnBypass};
pub use in_use::InUse;
pub use services::{TakeOrder, Taken};
use tokio::sync::{mpsc, oneshot};

use crate::admit::{Admit, Refusal};
use crate::audit::Recorder;
use crate::clock::Clock;
use crate::containerd::Containerd;

/// Looks that wait at once: each is an operator who asks.
const WAITING_LOOKS: usize = 16;
/// A look at everything that runs asks containerd some thousand questions at most, each answered within a millisecond.
const LOOK_DEADLINE: Duration = Duration::from_secs(15);
/// Beside that look, one more for each container that is taken down, and one write.
const TAKE_DEADLINE: Duration = Duration::from_secs(60);

/// Watches what lives in containerd. One for each process.
#[derive(Debug)]
pub struct Watch {
    admit: Arc<Admit>,
    recorder: Arc<Recorder>,
    /// A connection of its own: its stream of events must hold up nobody.
    containerd: Containerd,
    clock: Arc<dyn Clock>,
    on_bypass: OnBypass,
    directory: PathBuf,
    board: Mutex<Board>,
    asks: mpsc::Sender<Ask>,
}

/// What an operator waits for.
#[derive(Debug)]
enum Ask {
    /// A look at everything.
    Look(oneshot::Sender<()>),
    /// What is taken down of services that go on.
    Take(TakeOrder, oneshot::Sender<Result<Taken, Refusal>>),
}

/// Those who wait.
#[derive(Debug)]
pub struct Looks(mpsc::Receiver<Ask>);

impl Watch {
    /// Prepares to watch the containerd at `socket`; [`Watch::follow`] does it. What came through the gate is kept below
    /// `state`, and what came past it is recorded.
    #[must_use]
    pub fn new(
        admit: Arc<Admit>,
        recorder: Arc<Recorder>,
        clock: Arc<dyn Clock>,
        socket: &Path,
        state: &Path,
        on_bypass: OnBypass,
    ) -> (Arc<Self>, Looks) {
        let (asks, waiting) = mpsc::channel(WAITING_LOOKS);
        let (containerd, directory) = (Containerd::new(socket), state.join("watch"));
        let watch = Self { admit, recorder, containerd, clock, on_bypass, directory, board: Mutex::default(), asks };
        (Arc::new(watch), Looks(waiting))
    }

    /// What is done about what came past the gate.
    #[must_use]
    pub const fn on_bypass(&self) -> OnBypass {
        self.on_bypass
    }

    /// What was seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.with_board(|board| board.seen())
    }

    /// Looks at everything that runs now, and tells what was seen so far. When that takes too long, it is as old as it says.
    pub async fn look(&self) -> Seen {
        let (done, is_done) = oneshot::channel();
        let look = async {
            if self.asks.send(Ask::Look(done)).await.is_ok() {
                let _ = is_done.await;
            }
        };
        let _ = tokio::time::timeout(LOOK_DEADLINE, look).await;
        self.seen()
    }

    /// Takes down the services that go on because an operator says so.
    ///
    /// # Errors
    /// Why nothing was taken down.
    pub async fn take_services(&self, order: TakeOrder) -> Result<Taken, Refusal> {
        let (done, is_done) = oneshot::channel();
        let take = async {
            self.asks.send(Ask::Take(order, done)).await.ok()?;
            is_done.await.ok()
        };
        let taken = tokio::time::timeout(TAKE_DEADLINE, take).await.ok().flatten();
        taken.unwrap_or(Err(Refusal::Internal { what: "services were not taken down in time" }))
    }

    fn with_board<T>(&self, work: impl FnOnce(&mut Board) -> T) -> T {
        work(&mut self.board.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The present moment, in seconds since the Unix epoch. None for a clock that cannot be right.
    fn now(&self) -> Option<i64> {
        self.clock.now().ok().map(|now| now.seconds())
    }
}
