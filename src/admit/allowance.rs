//! What one namespace may cost the node: whoever may create pods in it chooses the images, and how often.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::MAX_REPOSITORIES;

/// For so long a namespace may wait for trust servers that do not answer: four whole updates. An answer begins a new account.
pub(super) const WAITING: Duration = Duration::from_secs(120);
/// Then one try of it is let through in this time. kubelet pulls one image at a time by default, so that others have four
/// fifths of it, also when a whole update of 30 s is waited for; and a server that is back is noticed.
const ONE_TRY_IN: Duration = Duration::from_secs(150);
/// Repositories that one namespace may bring to this node in one run of the daemon: a quarter of what it holds, so that no
/// namespace takes the place of all others.
pub(super) const REPOSITORIES: u64 = MAX_REPOSITORIES / 4;
/// Namespaces that are kept account of. Kubernetes clusters have hundreds; beyond it, those that cost nothing lately are
/// forgotten.
const MAX_NAMESPACES: usize = 4096;
/// Bytes of the name of a namespace (Kubernetes, "DNS label": 63). What a caller calls one and is longer is none; all such have
/// one account.
const MAX_NAME: usize = 63;

#[derive(Debug, Clone, Copy, Default)]
struct Account {
    /// When it last waited, or was let through.
    last: Option<Instant>,
    waited: Duration,
    brought: u64,
}

/// What each namespace has cost.
#[derive(Debug, Default)]
pub(super) struct Allowance(Mutex<HashMap<String, Account>>);

impl Allowance {
    /// Whether a trust server may be asked for the namespace now. If it has waited too long already, the one try that is let
    /// through is taken by whoever is told so.
    pub(super) fn may_ask(&self, namespace: &str) -> bool {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(account) = accounts.get_mut(account_of(namespace)).filter(|account| account.waited >= WAITING) else { return true };
        let is_due = account.last.is_none_or(|last| last.elapsed() >= ONE_TRY_IN);
        if is_due {
            account.last = Some(Instant::now());
        }
        is_due
    }

    /// Whether the namespace may bring one more repository to this node.
    pub(super) fn may_bring(&self, namespace: &str) -> bool {
        let accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.get(account_of(namespace)).is_none_or(|account| account.brought < REPOSITORIES)
    }

    /// The namespace has waited for nothing since `began`. What several waited for at once counts once.
    pub(super) fn waited(&self, namespace: &str, began: Instant) {
        self.change(namespace, |account| {
            let since = account.last.map_or(began, |last| began.max(last));
            account.waited = account.waited.saturating_add(since.elapsed());
            account.last = Some(Instant::now());
        });
    }

    /// A trust server has answered, and the repository is new to this node or not.
    pub(super) fn answered(&self, namespace: &str, is_new: bool) {
        self.change(namespace, |account| {
            account.waited = Duration::ZERO;
            account.brought = account.brought.saturating_add(u64::from(is_new));
        });
    }

    fn change(&self, namespace: &str, change: impl FnOnce(&mut Account)) {
        let namespace = account_of(namespace);
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if accounts.len() >= MAX_NAMESPACES && !accounts.contains_key(namespace) {
            accounts.retain(|_, account| account.brought > 0 || !account.waited.is_zero());
        }
        if accounts.len() >= MAX_NAMESPACES && !accounts.contains_key(namespace) {
            return;
        }
        change(accounts.entry(namespace.to_owned()).or_default());
    }
}

fn account_of(namespace: &str) -> &str {
    if namespace.len() <= MAX_NAME { namespace } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn wait(allowance: &Allowance, namespace: &str, length: Duration) {
        let began = Instant::now();
        tokio::time::advance(length).await;
        allowance.waited(namespace, began);
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_that_has_waited_for_long_is_let_through_once_in_a_while() {
        let allowance = Allowance::default();
        for _ in 0..4 {
            assert!(allowance.may_ask("greedy"));
            wait(&allowance, "greedy", WAITING / 4).await;
        }
        for _ in 0..3 {
            assert!(!allowance.may_ask("greedy"));
            assert!(allowance.may_ask("modest"), "nobody else is meant");
            tokio::time::advance(ONE_TRY_IN).await;
            assert!(allowance.may_ask("greedy"), "a server that is back has to be noticed");
            assert!(!allowance.may_ask("greedy"), "one try, not one for each pod");
            wait(&allowance, "greedy", WAITING / 4).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_begins_a_new_account() {
        let allowance = Allowance::default();
        wait(&allowance, "shop", WAITING).await;
        assert!(!allowance.may_ask("shop"));
        allowance.answered("shop", false);
        assert!(allowance.may_ask("shop"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_many_pods_waited_for_at_once_counts_once() {
        let allowance = Allowance::default();
        let began = Instant::now();
        tokio::time::advance(WAITING / 4).await;
        for _ in 0..100 {
            allowance.waited("shop", began);
        }
        assert!(allowance.may_ask("shop"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_brings_no_more_than_its_part_of_the_repositories() {
        let allowance = Allowance::default();
        for _ in 0..REPOSITORIES {
            assert!(allowance.may_bring("greedy"));
            allowance.answered("greedy", true);
        }
        wait(&allowance, "greedy", WAITING).await;
        assert!(!allowance.may_bring("greedy"));
        assert!(allowance.may_bring("modest"));
    }

    #[test]
    fn accounts_are_bounded_however_many_names_there_are() {
        let allowance = Allowance::default();
        for number in 0..2 * MAX_NAMESPACES {
            allowance.answered(&number.to_string(), true);
        }
        assert_eq!(allowance.0.lock().unwrap().len(), MAX_NAMESPACES);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_long_for_a_namespace_is_not_kept() {
        let allowance = Allowance::default();
        for number in 0..8 {
            wait(&allowance, &format!("{}{number}", "n".repeat(1 << 20)), WAITING / 4).await;
        }
        let kept: usize = allowance.0.lock().unwrap().keys().map(String::len).sum();
        assert_eq!(kept, 0);
        assert!(!allowance.may_ask(&"m".repeat(64)), "all such wait together");
        assert!(allowance.may_ask(&"m".repeat(63)));
    }
}
