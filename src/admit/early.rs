//! Looks at containers that containerd has made and not yet answered for.
//!
//! containerd tells of a new container as soon as its record is there and its snapshot, which is prepared before; then it
//! writes files of its own, and answers the create a millisecond or more later. Looking in between costs the caller no wait.
//! What somebody changes between that look and the answer is judged where what is changed after the answer is: every
//! StartContainer looks again.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use countersign_trust::name::ChainId;
use tokio::task::JoinHandle;

use super::container::{is_whole_id, root_fs_of};
use super::{Admit, Refusal};
use crate::containerd::{ContainerRecord, stands_on};

/// Looks that are kept at once. A look is taken when its create is answered; kubelet makes one container of a pod after the
/// other, and hardly ever of more pods than this at once. Whoever can publish events in containerd gets no more.
const MOST_LOOKS: usize = 64;
/// How long is waited for a look that began before the answer came; containerd answers in milliseconds, and the look after the
/// answer has a deadline of its own.
const PATIENCE: Duration = Duration::from_secs(1);

/// A container's record, and what its snapshot stands on.
pub(super) type Made = (ContainerRecord, String);

/// The looks of this moment.
#[derive(Debug, Default)]
pub(super) struct EarlyLooks(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Creates that containerd was asked for and that will take a look.
    awaited: usize,
    looks: VecDeque<Look>,
}

/// One look. It is broken off when it is thrown away.
#[derive(Debug)]
struct Look {
    container_id: String,
    found: JoinHandle<Result<Made, Refusal>>,
}

impl Drop for Look {
    fn drop(&mut self) {
        self.found.abort();
    }
}

/// A create that containerd was asked for.
#[derive(Debug)]
#[must_use]
pub struct Awaiting<'a>(&'a EarlyLooks);

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.0.with(|inner| {
            inner.awaited = inner.awaited.saturating_sub(1);
            if inner.awaited == 0 {
                inner.looks.clear();
            }
        });
    }
}

impl EarlyLooks {
    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn await_one(&self) -> Awaiting<'_> {
        self.with(|inner| inner.awaited = inner.awaited.saturating_add(1));
        Awaiting(self)
    }

    /// Begins a look, if a create may take it and there is room. The oldest one that has ended makes room; if its create is still
    /// unanswered, the container is looked at after the answer.
    fn begin(&self, container_id: &str, look: impl FnOnce() -> JoinHandle<Result<Made, Refusal>>) {
        self.with(|inner| {
            if inner.awaited == 0 || inner.looks.iter().any(|look| look.container_id == container_id) {
                return;
            }
            if inner.looks.len() >= MOST_LOOKS {
                let Some(ended) = inner.looks.iter().position(|look| look.found.is_finished()) else { return };
                inner.looks.remove(ended);
            }
            inner.looks.push_back(Look { container_id: container_id.to_owned(), found: look() });
        });
    }

    fn take(&self, container_id: &str) -> Option<Look> {
        self.with(|inner| {
            let place = inner.looks.iter().position(|look| look.container_id == container_id)?;
            inner.looks.remove(place)
        })
    }

    /// The record of a container, if the look at it has found that it stands on this root file system.
    pub(super) async fn found_on(&self, container_id: &str, chain_id: &ChainId) -> Option<ContainerRecord> {
        let (container, parent) = self.found(container_id).await?;
        stands_on(&parent, chain_id, container.id_mapping.as_ref()).then_some(container)
    }

    /// What the look at a container has found. None if there was no look, or it found out nothing in time.
    async fn found(&self, container_id: &str) -> Option<Made> {
        let mut look = self.take(container_id)?;
        tokio::time::timeout(PATIENCE, &mut look.found).await.ok()?.ok()?.ok()
    }
}

impl Admit {
    /// Notes that containerd is asked to make a container. Hold it until it was looked what was made.
    pub fn awaiting_container(&self) -> Awaiting<'_> {
        self.early_looks.await_one()
    }

    /// Looks at a container of which containerd tells that it was made, if a create waits for its answer. Call it within the
    /// gate's runtime.
    pub fn look_early(&self, container_id: &str) {
        // Anybody with containerd's socket chooses the text of an event.
        if !is_whole_id(container_id) {
            return;
        }
        let (containerd, id) = (self.containerd.clone(), container_id.to_owned());
        self.early_looks.begin(container_id, || tokio::spawn(async move { root_fs_of(&containerd, &id).await }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerd::MadeAt;
    use countersign_trust::name::{Sha256, shown};
    use std::future::{Future, pending};

    fn made(parent: &str) -> Result<Made, Refusal> {
        let (image, snapshotter, snapshot_key) = (String::new(), "overlayfs".to_owned(), "c".to_owned());
        let made_at = MadeAt { seconds: 1, nanos: 2 };
        Ok((ContainerRecord { image, snapshotter, snapshot_key, id_mapping: None, volumes: Vec::new(), made_at }, parent.to_owned()))
    }

    fn looks_at(looks: &EarlyLooks, id: &str, found: impl Future<Output = Result<Made, Refusal>> + Send + 'static) {
        looks.begin(id, || tokio::spawn(found));
    }

    #[tokio::test]
    async fn a_look_is_found_once_by_the_create_of_its_container() {
        let looks = EarlyLooks::default();
        let _awaiting = looks.await_one();
        looks_at(&looks, "one", async { made("chain-one") });
        looks_at(&looks, "two", async { made("chain-two") });
        assert_eq!(looks.found("two").await.unwrap().1, "chain-two");
        assert_eq!(looks.found("two").await, None);
        assert_eq!(looks.found("one").await.unwrap().1, "chain-one");
    }

    #[tokio::test]
    async fn only_a_look_that_found_the_root_file_system_of_the_image_serves() {
        let looks = EarlyLooks::default();
        let _awaiting = looks.await_one();
        let [own, other] = [[1; 32], [2; 32]].map(|bytes| ChainId::new(Sha256::of(&bytes)));
        for id in ["good", "swapped"] {
            looks_at(&looks, id, async move { made(&own.to_string()) });
        }
        assert_eq!(looks.found_on("good", &own).await.unwrap().made_at, MadeAt { seconds: 1, nanos: 2 });
        assert_eq!(looks.found_on("swapped", &other).await, None);
        assert_eq!(looks.found_on("never looked at", &own).await, None);
    }

    #[tokio::test]
    async fn nothing_is_looked_at_while_no_create_waits() {
        let looks = EarlyLooks::default();
        looks.begin("one", || unreachable!("nobody asked"));
        let awaiting = looks.await_one();
        looks_at(&looks, "two", async { made("chain") });
        drop(awaiting);
        let _awaiting = looks.await_one();
        assert_eq!(looks.found("two").await, None, "it is as old as the creates before it");
    }

    #[tokio::test]
    async fn a_look_that_found_out_nothing_is_none() {
        let looks = EarlyLooks::default();
        let _awaiting = looks.await_one();
        looks_at(&looks, "one", async { Err(Refusal::NoContainer { id: shown("one") }) });
        looks_at(&looks, "two", async { panic!("a fault of ours") });
        assert_eq!(looks.found("one").await, None);
        assert_eq!(looks.found("two").await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_holds_up_its_create_for_a_moment_only() {
        let looks = EarlyLooks::default();
        let _awaiting = looks.await_one();
        looks_at(&looks, "one", pending());
        let began = tokio::time::Instant::now();
        assert_eq!(looks.found("one").await, None);
        assert_eq!(began.elapsed(), PATIENCE);
    }

    #[tokio::test]
    async fn made_up_events_begin_no_more_looks_than_there_is_room_for() {
        let looks = EarlyLooks::default();
        let _awaiting = looks.await_one();
        for number in 0..MOST_LOOKS {
            looks_at(&looks, &number.to_string(), pending());
        }
        looks.begin("one more", || unreachable!("there is no room"));
        looks.begin("7", || unreachable!("it is looked at"));
        let ended = looks.take("7").unwrap();
        drop(ended);
        looks_at(&looks, "7", async { made("chain") });
        while !looks.with(|inner| inner.looks.iter().any(|look| look.found.is_finished())) {
            tokio::task::yield_now().await;
        }
        looks_at(&looks, "one more", async { made("chain of one more") });
        assert_eq!(looks.found("7").await, None, "it has ended, and made room");
        assert_eq!(looks.found("one more").await.unwrap().1, "chain of one more");
    }
}
