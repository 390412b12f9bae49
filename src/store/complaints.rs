//! What is said of what others wrote: whoever can write the store must not be able to fill this node's log with it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines of one kind that are logged in [`WINDOW`]: enough to see who writes what, and some MB a day at most.
const MOST_LINES: u64 = 20;
/// After so long it begins anew.
const WINDOW: Duration = Duration::from_secs(60);

/// Lines of one kind about entries of the store, so many in a minute at most. How many were left out is said with the next one.
#[derive(Debug)]
pub struct Complaints(Mutex<Option<Window>>);

#[derive(Debug)]
struct Window {
    began: Instant,
    wanted: u64,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// It is said, after so many were not.
    Say {
        left_out: u64,
    },
    /// It is the first that is left out.
    LeaveOutFirst,
    LeaveOut,
}

impl Complaints {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Says `line`, unless too many have been said in this minute.
    pub fn say(&self, line: impl FnOnce()) {
        match self.turn(Instant::now()) {
            Turn::Say { left_out: 0 } => line(),
            Turn::Say { left_out } => {
                tracing::warn!(left_out, "so many further lines about entries of the store were left out before this one");
                line();
            }
            Turn::LeaveOutFirst => {
                tracing::warn!(
                    limit = MOST_LINES,
                    "there is too much to say about entries of the store: further lines of this kind are left out for up to a minute"
                );
            }
            Turn::LeaveOut => {}
        }
    }

    fn turn(&self, now: Instant) -> Turn {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current = window.get_or_insert(Window { began: now, wanted: 0 });
        let mut left_out = 0;
        if now.saturating_duration_since(current.began) >= WINDOW {
            left_out = current.wanted.saturating_sub(MOST_LINES);
            *current = Window { began: now, wanted: 0 };
        }
        current.wanted = current.wanted.saturating_add(1);
        match current.wanted.saturating_sub(MOST_LINES) {
            0 => Turn::Say { left_out },
            1 => Turn::LeaveOutFirst,
            _ => Turn::LeaveOut,
        }
    }
}

impl Default for Complaints {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_of_lines_a_few_are_said_in_a_minute_and_then_how_many_were_not() {
        let (complaints, begin) = (Complaints::new(), Instant::now());
        for _ in 0..MOST_LINES {
            assert_eq!(complaints.turn(begin), Turn::Say { left_out: 0 });
        }
        assert_eq!(complaints.turn(begin), Turn::LeaveOutFirst);
        for _ in 0..100_000 {
            assert_eq!(complaints.turn(begin + WINDOW / 2), Turn::LeaveOut);
        }
        assert_eq!(complaints.turn(begin + WINDOW), Turn::Say { left_out: 100_001 });
        assert_eq!(complaints.turn(begin + WINDOW), Turn::Say { left_out: 0 }, "it is said once");
        assert_eq!(complaints.turn(begin + WINDOW * 3), Turn::Say { left_out: 0 }, "nothing was left out since");
    }

    #[test]
    fn a_line_that_is_left_out_is_not_made() {
        let (complaints, mut made) = (Complaints::new(), 0);
        for _ in 0..MOST_LINES * 10 {
            complaints.say(|| made += 1);
        }
        assert_eq!(made, MOST_LINES);
    }
}
