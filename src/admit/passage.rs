//! What passes through the gate, for whoever looks for what came past it.
//!
//! It is a memory and no permission: nothing is admitted because it stands here.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use countersign_trust::name::{ImageReference, Repository};

use super::Admit;

/// Starts that are kept in mind. Each is looked for within seconds of it.
const MAX_STARTED: usize = 4096;
/// Repositories of images that were let pass unverified. More would be no exception any more.
const MAX_LET_PASS: usize = 4096;

/// What passes and what has passed.
#[derive(Debug, Default)]
pub(super) struct Passages(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// How many creates are unanswered in each sandbox.
    creating: HashMap<String, usize>,
    /// How many pulls of each name the gate has asked containerd for and not heard of yet.
    pulling: HashMap<String, usize>,
    /// Containers whose start is under way, or was answered.
    starting: HashMap<String, usize>,
    started: HashSet<String>,
    started_in_order: VecDeque<String>,
    let_pass: BTreeSet<Repository>,
}

/// A create that is unanswered, until it is dropped.
#[derive(Debug)]
pub struct Creating<'a> {
    passages: &'a Passages,
    sandbox_id: String,
}

/// A pull that containerd was asked for, until it is dropped.
#[derive(Debug)]
pub struct Pulling<'a> {
    passages: &'a Passages,
    name: String,
}

impl Drop for Pulling<'_> {
    fn drop(&mut self) {
        self.passages.with(|inner| end(&mut inner.pulling, &self.name));
    }
}

/// A start that is under way, until it is dropped: then it counts as done, since a caller that goes away does not tell what
/// containerd did.
#[derive(Debug)]
pub struct Starting<'a> {
    passages: &'a Passages,
    container_id: String,
    has_failed: bool,
}

impl Passages {
    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// As containerd writes it, whatever the caller wrote.
fn normal(name: &str) -> String {
    name.parse::<ImageReference>().map_or_else(|_| name.to_owned(), |image| image.to_string())
}

fn begin(running: &mut HashMap<String, usize>, key: &str) {
    let count = running.entry(key.to_owned()).or_default();
    *count = count.saturating_add(1);
}

fn end(running: &mut HashMap<String, usize>, key: &str) {
    let Some(count) = running.get_mut(key) else { return };
    *count = count.saturating_sub(1);
    if *count == 0 {
        running.remove(key);
    }
}

impl Admit {
    /// Notes that a container is being made in a sandbox. Hold it until it is known what was made.
    #[must_use]
    pub fn creating(&self, sandbox_id: &str) -> Creating<'_> {
        self.passages.with(|inner| begin(&mut inner.creating, sandbox_id));
        Creating { passages: &self.passages, sandbox_id: sandbox_id.to_owned() }
    }

    /// Notes that containerd is asked to pull an image by this name. Hold it until it has answered.
    #[must_use]
    pub fn pulling(&self, name: &str) -> Pulling<'_> {
        let name = normal(name);
        self.passages.with(|inner| begin(&mut inner.pulling, &name));
        Pulling { passages: &self.passages, name }
    }

    /// Whether the gate has asked containerd to pull an image by this name.
    pub(super) fn is_pulling(&self, name: &str) -> bool {
        self.passages.with(|inner| inner.pulling.contains_key(&normal(name)))
    }

    /// Whether a create in this sandbox is unanswered.
    #[must_use]
    pub fn is_creating_in(&self, sandbox_id: &str) -> bool {
        self.passages.with(|inner| inner.creating.contains_key(sandbox_id))
    }

    /// Notes that the start of a container is asked of containerd. Hold it until that has answered.
    #[must_use]
    pub fn starting(&self, container_id: &str) -> Starting<'_> {
        self.passages.with(|inner| begin(&mut inner.starting, container_id));
        Starting { passages: &self.passages, container_id: container_id.to_owned(), has_failed: false }
    }

    /// Whether a container was, or is being, started through the gate since the daemon began.
    #[must_use]
    pub fn was_started_here(&self, container_id: &str) -> bool {
        self.passages.with(|inner| inner.starting.contains_key(container_id) || inner.started.contains(container_id))
    }

    /// Forgets that a container was started through the gate. A start that runs is still known.
    pub(super) fn forget_started(&self, container_id: &str) {
        self.passages.with(|inner| {
            if inner.started.remove(container_id) {
                inner.started_in_order.retain(|started| started != container_id);
            }
        });
    }

    /// Notes that an image was pulled unverified, since its rule lets it pass: its records are nothing to wonder about.
    pub fn note_let_pass(&self, image: &str) {
        let Ok(image) = image.parse::<ImageReference>() else { return };
        self.passages.with(|inner| {
            if inner.let_pass.len() < MAX_LET_PASS {
                inner.let_pass.insert(image.repository().clone());
            }
        });
    }

    /// Whether an image of this repository was pulled unverified, since its rule lets it pass.
    #[must_use]
    pub fn was_let_pass(&self, repository: &Repository) -> bool {
        self.passages.with(|inner| inner.let_pass.contains(repository))
    }
}

impl Inner {
    fn keep_started(&mut self, container_id: &str) {
        if self.started.insert(container_id.to_owned()) {
            self.started_in_order.push_back(container_id.to_owned());
        }
        if self.started_in_order.len() > MAX_STARTED
            && let Some(oldest) = self.started_in_order.pop_front()
        {
            self.started.remove(&oldest);
        }
    }
}

impl Starting<'_> {
    /// It was denied, or containerd did not start it.
    pub fn failed(mut self) {
        self.has_failed = true;
    }
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        self.passages.with(|inner| end(&mut inner.creating, &self.sandbox_id));
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.passages.with(|inner| {
            end(&mut inner.starting, &self.container_id);
            if !self.has_failed {
                inner.keep_started(&self.container_id);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_is_creating_until_its_last_create_is_answered() {
        let passages = Passages::default();
        let begin = |sandbox: &str| {
            passages.with(|inner| begin(&mut inner.creating, sandbox));
            Creating { passages: &passages, sandbox_id: sandbox.to_owned() }
        };
        let is_creating = |sandbox: &str| passages.with(|inner| inner.creating.contains_key(sandbox));
        let (first, second) = (begin("a"), begin("a"));
        assert!(is_creating("a") && !is_creating("b"));
        drop(first);
        assert!(is_creating("a"));
        drop(second);
        assert!(!is_creating("a"));
    }

    #[test]
    fn only_a_start_that_failed_is_forgotten() {
        let passages = Passages::default();
        let begin = |id: &str| {
            passages.with(|inner| begin(&mut inner.starting, id));
            Starting { passages: &passages, container_id: id.to_owned(), has_failed: false }
        };
        let known = |id: &str| passages.with(|inner| inner.starting.contains_key(id) || inner.started.contains(id));
        let failed = begin("failed");
        assert!(known("failed"));
        failed.failed();
        assert!(!known("failed"));
        drop(begin("abandoned"));
        assert!(known("abandoned"));
        for number in 0..MAX_STARTED {
            drop(begin(&number.to_string()));
        }
        assert!(!known("abandoned") && known("0"), "the oldest makes room");
    }
}
