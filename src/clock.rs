//! The wall clock, read in one place.

use std::fmt;
use std::time::SystemTime;

use countersign_trust::time::UnixTime;

/// When this binary was built, in seconds since 1970. A clock before that is wrong.
const BUILT_AT: &str = env!("COUNTERSIGN_BUILT_AT");

/// Tells what time it is. Tests bring their own.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The present moment.
    ///
    /// # Errors
    /// [`ClockError`] if the clock cannot be right.
    fn now(&self) -> Result<UnixTime, ClockError>;
}

/// The clock is certainly wrong, so nothing can be said about expiry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the node's clock says {now}, which is before countersign was built ({built}): set the clock")]
pub struct ClockError {
    now: UnixTime,
    built: UnixTime,
}

impl ClockError {
    /// What the clock says, wrong as it is: for records, never for a judgement.
    #[must_use]
    pub const fn says(&self) -> UnixTime {
        self.now
    }
}

/// The system's clock. With the feature `crash-points`, which no release has, `COUNTERSIGN_CLOCK_OFFSET=<seconds>` moves it, so
/// that a test need not wait for what expires.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[cfg(feature = "crash-points")]
fn offset_seconds() -> i64 {
    std::env::var("COUNTERSIGN_CLOCK_OFFSET").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or_default()
}

#[cfg(not(feature = "crash-points"))]
const fn offset_seconds() -> i64 {
    0
}

impl Clock for SystemClock {
    fn now(&self) -> Result<UnixTime, ClockError> {
        #[allow(clippy::disallowed_methods, reason = "this is the clock")]
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = UnixTime::from_seconds(i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)).plus_seconds(offset_seconds());
        let built = UnixTime::from_seconds(BUILT_AT.parse().unwrap_or_default());
        if now < built { Err(ClockError { now, built }) } else { Ok(now) }
    }
}
