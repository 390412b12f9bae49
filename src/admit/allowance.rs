//! What one namespace may cost the node: whoever may create pods in it chooses the images, and how often.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::MAX_REPOSITORIES;

/// The time in which waiting is added up.
const WINDOW: Duration = Duration::from_secs(600);
/// For so long a namespace may wait in one window for trust servers that do not answer: four whole updates. kubelet pulls one
/// image at a time by default, so that others have most of the window.
pub(super) const WAITING: Duration = Duration::from_secs(120);
/// Repositories that one namespace may bring to this node in one run of the daemon: a quarter of what it holds, so that no
/// namespace takes the place of all others.
pub(super) const REPOSITORIES: u64 = MAX_REPOSITORIES / 4;
/// Namespaces that are kept account of. Kubernetes clusters have hundreds; beyond it, those that cost nothing lately are
/// forgotten.
const MAX_NAMESPACES: usize = 4096;

#[derive(Debug, Clone, Copy)]
struct Account {
    since: Instant,
    waited: Duration,
    brought: u64,
}

/// What each namespace has cost.
#[derive(Debug, Default)]
pub(super) struct Allowance(Mutex<HashMap<String, Account>>);

impl Allowance {
    /// For how long the namespace has to do without trust servers, if it has used up its waiting.
    pub(super) fn pause(&self, namespace: &str) -> Option<Duration> {
        let accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let account = accounts.get(namespace).filter(|account| account.waited >= WAITING)?;
        WINDOW.checked_sub(account.since.elapsed()).filter(|left| !left.is_zero())
    }

    /// Whether the namespace may bring one more repository to this node.
    pub(super) fn may_bring(&self, namespace: &str) -> bool {
        let accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.get(namespace).is_none_or(|account| account.brought < REPOSITORIES)
    }

    /// The namespace has waited for nothing since `began`.
    pub(super) fn waited(&self, namespace: &str, began: Instant) {
        self.change(namespace, |account| account.waited = account.waited.saturating_add(began.elapsed()));
    }

    /// The namespace has brought a repository.
    pub(super) fn brought(&self, namespace: &str) {
        self.change(namespace, |account| account.brought = account.brought.saturating_add(1));
    }

    fn change(&self, namespace: &str, change: impl FnOnce(&mut Account)) {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if accounts.len() >= MAX_NAMESPACES && !accounts.contains_key(namespace) {
            accounts.retain(|_, account| account.brought > 0 || account.since.elapsed() < WINDOW);
        }
        let account = accounts.entry(namespace.to_owned()).or_insert_with(Account::new);
        if account.since.elapsed() >= WINDOW {
            (account.since, account.waited) = (Instant::now(), Duration::ZERO);
        }
        change(account);
    }
}

impl Account {
    fn new() -> Self {
        Self { since: Instant::now(), waited: Duration::ZERO, brought: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_namespace_that_has_waited_for_long_does_without_for_the_rest_of_the_window() {
        let allowance = Allowance::default();
        for _ in 0..4 {
            assert_eq!(allowance.pause("greedy"), None);
            let began = Instant::now();
            tokio::time::advance(WAITING / 4).await;
            allowance.waited("greedy", began);
        }
        let pause = allowance.pause("greedy").unwrap();
        assert!(pause <= WINDOW && pause > WINDOW / 2, "{pause:?}");
        assert_eq!(allowance.pause("modest"), None, "nobody else is meant");
        tokio::time::advance(pause).await;
        assert_eq!(allowance.pause("greedy"), None);
        allowance.waited("greedy", Instant::now());
        assert_eq!(allowance.pause("greedy"), None, "a new window begins with nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_brings_no_more_than_its_part_of_the_repositories() {
        let allowance = Allowance::default();
        for _ in 0..REPOSITORIES {
            assert!(allowance.may_bring("greedy"));
            allowance.brought("greedy");
        }
        tokio::time::advance(WINDOW).await;
        assert!(!allowance.may_bring("greedy"));
        assert!(allowance.may_bring("modest"));
    }
}
