//! How many tasks may be stopped, so that a fault of ours cannot empty a node.

use std::time::Duration;

use tokio::time::Instant;

/// Stops at once. Somebody who goes past the gate starts one thing or a handful.
const AT_ONCE: u32 = 5;
/// One more may be stopped after this time.
const EVERY: Duration = Duration::from_secs(10);

/// A supply of stops, which fills up again by itself.
#[derive(Debug)]
pub(super) struct Stops {
    left: u32,
    filled_at: Instant,
}

impl Stops {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: AT_ONCE, filled_at: now }
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
