//! The moment that is judged by: the node's clock, unless it went back.
//!
//! Whoever sets a clock back makes expired trust data good again. So what this node has once found good at some moment binds
//! its clock: a clock that is behind that by more than a tolerance says nothing about expiry. Only data that was good at
//! that moment moves the mark, so that a clock that once ran years ahead locks nobody out.

use std::sync::atomic::{AtomicU64, Ordering};

use countersign_trust::time::UnixTime;

use super::{Admit, Refusal};

/// By how much a clock may be behind: what a time service corrects at once, and no operator notices.
pub(super) const TOLERANCE_SECONDS: i64 = 300;

/// When trust data was last found good, in seconds since the Unix epoch. It stands in the ledger beside that data.
#[derive(Debug, Default)]
pub(super) struct Latest(AtomicU64);

impl Latest {
    /// Takes up what the ledger holds.
    pub(super) fn begin_at(&self, mark: Option<u64>) {
        self.0.fetch_max(mark.unwrap_or_default(), Ordering::Relaxed);
    }

    /// Forgets what was later, by an operator's word.
    pub(super) fn set_back_to(&self, now: UnixTime) {
        self.0.store(u64::try_from(now.seconds()).unwrap_or_default(), Ordering::Relaxed);
    }

    fn moment(&self) -> UnixTime {
        UnixTime::from_seconds(i64::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(i64::MAX))
    }

    fn advance(&self, now: UnixTime) {
        self.0.fetch_max(u64::try_from(now.seconds()).unwrap_or_default(), Ordering::Relaxed);
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

    /// Takes note that trust data was found good at `now`.
    pub(super) fn found_good_at(&self, now: UnixTime) {
        self.latest.advance(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_only_rises_until_an_operator_sets_it_back() {
        let latest = Latest::default();
        latest.begin_at(Some(10_000));
        latest.advance(UnixTime::from_seconds(9_000));
        assert_eq!(latest.moment(), UnixTime::from_seconds(10_000));
        latest.advance(UnixTime::from_seconds(10_001));
        latest.begin_at(Some(5));
        assert_eq!(latest.moment(), UnixTime::from_seconds(10_001), "a ledger that is taken later sets nothing back");
        latest.set_back_to(UnixTime::from_seconds(7));
        assert_eq!(latest.moment(), UnixTime::from_seconds(7));
    }
}
