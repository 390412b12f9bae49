//! How many tasks may be stopped, so that a fault of ours cannot empty a node; and which were just now.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Stops at once. Somebody who goes past the gate starts one thing or a handful.
const AT_ONCE: u32 = 5;
/// One more may be stopped after this time.
const EVERY: Duration = Duration::from_secs(10);
/// A task that was killed is shown as running until its shim has told of its end. One that runs for longer is stopped again.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// A supply of stops, which fills up again by itself.
#[derive(Debug)]
pub(super) struct Stops {
    left: u32,
    filled_at: Instant,
    /// Containers whose task was killed, and when: no more than are killed in [`ENDS_WITHIN`].
    killed: HashMap<String, Instant>,
}

impl Stops {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: AT_ONCE, filled_at: now, killed: HashMap::new() }
    }

    /// Notes that the task of a container was killed.
    pub(super) fn killed(&mut self, container_id: &str, now: Instant) {
        self.killed.insert(container_id.to_owned(), now);
    }

    /// Whether the task of a container was killed just now, so that it need not be killed again.
    pub(super) fn is_ending(&mut self, container_id: &str, now: Instant) -> bool {
        self.killed.retain(|_, at| now.saturating_duration_since(*at) < ENDS_WITHIN);
        self.killed.contains_key(container_id)
    }

    /// Takes one, if there is one; else says after which time there is.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        while self.left < AT_ONCE && now.saturating_duration_since(self.filled_at) >= EVERY {
            self.left = self.left.saturating_add(1);
            self.filled_at += EVERY;
        }
        if self.left == AT_ONCE {
            self.filled_at = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err((self.filled_at + EVERY).saturating_duration_since(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_is_ending_is_not_stopped_again_until_it_has_had_the_time() {
        let began = Instant::now();
        let mut stops = Stops::new(began);
        assert!(!stops.is_ending("a", began));
        stops.killed("a", began);
        assert!(stops.is_ending("a", began + ENDS_WITHIN / 2) && !stops.is_ending("b", began));
        assert!(!stops.is_ending("a", began + ENDS_WITHIN), "it did not end");
    }

    #[test]
    fn a_handful_is_stopped_at_once_and_then_one_after_the_other() {
        let began = Instant::now();
        let mut stops = Stops::new(began);
        for _ in 0..AT_ONCE {
            assert_eq!(stops.take(began), Ok(()));
        }
        assert_eq!(stops.take(began), Err(EVERY));
        let later = began + EVERY;
        assert_eq!(stops.take(later), Ok(()));
        assert_eq!(stops.take(later + Duration::from_secs(3)), Err(EVERY - Duration::from_secs(3)));
        let much_later = later + EVERY * 100;
        for _ in 0..AT_ONCE {
            assert_eq!(stops.take(much_later), Ok(()));
        }
        assert!(stops.take(much_later).is_err(), "what was not used is not saved up");
    }
}
