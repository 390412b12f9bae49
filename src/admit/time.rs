//! The moment that is judged by: the node's clock, unless it went back.
//!
//! Whoever sets a clock back makes expired trust data good again. So what this node has once found good at some moment binds
//! its clock: a clock that is behind that by more than a tolerance says nothing about expiry. Only data that was good at
//! that moment moves the mark, so that a clock that once ran years ahead locks nobody out.

use std::sync::atomic::{AtomicU64, Ordering};

use countersign_trust::time::UnixTime;

use super::{Admit, Refusal, blocking};

/// By how much a clock may be behind: what a time service corrects at once, and no operator notices.
const TOLERANCE_SECONDS: i64 = 300;
/// How far the mark in the ledger may be behind the one in memory. Each write costs two commits.
const WRITTEN_EVERY_SECONDS: u64 = 3600;

/// When trust data was last found good, in seconds since the Unix epoch: in memory, and as it stands in the ledger.
#[derive(Debug, Default)]
pub(super) struct Latest {
    seen: AtomicU64,
    written: AtomicU64,
}

impl Latest {
    /// Takes up what the ledger holds.
    pub(super) fn begin_at(&self, mark: Option<u64>) {
        let mark = mark.unwrap_or_default();
        self.seen.fetch_max(mark, Ordering::Relaxed);
        self.written.store(mark, Ordering::Relaxed);
    }

    /// Forgets it, by an operator's word.
    pub(super) fn forget(&self, now: UnixTime) {
        let now = u64::try_from(now.seconds()).unwrap_or_default();
        self.seen.store(now, Ordering::Relaxed);
        self.written.store(now, Ordering::Relaxed);
    }

    fn moment(&self) -> UnixTime {
        UnixTime::from_seconds(i64::try_from(self.seen.load(Ordering::Relaxed)).unwrap_or(i64::MAX))
    }

    /// Takes note of a moment; gives it back if it is to be written.
    fn advance(&self, now: UnixTime) -> Option<u64> {
        let now = u64::try_from(now.seconds()).ok()?;
        self.seen.fetch_max(now, Ordering::Relaxed);
        let written = self.written.load(Ordering::Relaxed);
        let is_due = now.saturating_sub(written) >= WRITTEN_EVERY_SECONDS;
        // Of several at once one writes.
        (is_due && self.written.compare_exchange(written, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()).then_some(now)
    }
}

impl Admit {
    /// The present moment.
    ///
    /// # Errors
    /// [`Refusal::Clock`] for a clock that cannot be right, [`Refusal::ClockBack`] for one that was set back.
    pub(super) fn now(&self) -> Result<UnixTime, Refusal> {
        let (now, latest) = (self.clock.now()?, self.latest.moment());
        if now.plus_seconds(TOLERANCE_SECONDS) < latest { Err(Refusal::ClockBack { now, latest }) } else { Ok(now) }
    }

    /// Takes note that trust data was found good at `now`. That the mark could not be written is no reason to deny: the one
    /// in memory binds until the process ends.
    pub(super) async fn found_good_at(&self, now: UnixTime) {
        let (Some(mark), Ok((ledger, _))) = (self.latest.advance(now), self.ledger()) else { return };
        let ledger = ledger.clone();
        if let Err(refusal) = blocking(move || ledger.store_clock_mark(mark)).await.and_then(|written| Ok(written?)) {
            tracing::warn!(reason = %refusal, "the mark of the clock could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_only_rises_and_is_written_once_in_a_while() {
        let latest = Latest::default();
        latest.begin_at(Some(10_000));
        assert_eq!(latest.advance(UnixTime::from_seconds(10_001)), None);
        assert_eq!(latest.advance(UnixTime::from_seconds(9_000)), None);
        assert_eq!(latest.moment(), UnixTime::from_seconds(10_001));
        assert_eq!(latest.advance(UnixTime::from_seconds(13_600)), Some(13_600));
        assert_eq!(latest.advance(UnixTime::from_seconds(13_601)), None);
        latest.begin_at(Some(5));
        assert_eq!(latest.moment(), UnixTime::from_seconds(13_601), "a ledger that is taken later sets nothing back");
    }
}
