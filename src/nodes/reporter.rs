//! Telling the others: this node's report stands in the store under a lease, and is written again when it says something else.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_trust::name::shown;

use super::report::{Report, ReportFault};
use crate::store::{Expected, Key, Lease, Put, Revision, Store, StoreError};

/// How long the report of a node that is gone stays. It is renewed three times within it ([`crate::store::limits::RENEWALS_PER_LIFE`]):
/// one small request in 15 s is all that an idle node costs the store.
const LIFE: Duration = Duration::from_secs(45);
/// How often is looked whether there is something else to say, which asks nobody outside of this process; so no node writes more
/// often, either.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// First wait after the store could not be asked, and the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Part of each wait by which one node's differs from another's, so that a thousand that lost the store together do not come back
/// together: a quarter.
const JITTER_PARTS: u32 = 4;
/// How often a write is tried again at once because somebody else has written meanwhile.
const TRIES: usize = 4;

/// What this node says of itself now. None as long as it is not known.
pub type Told = Arc<dyn Fn() -> Option<Report> + Send + Sync>;

/// How the time is divided.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long a report stays after its node was last heard of.
    pub life: Duration,
    /// How often is looked whether there is something else to say.
    pub look_every: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { life: LIFE, look_every: LOOK_EVERY }
    }
}

/// Writes this node's report, for as long as it runs.
pub struct Reporter {
    store: Arc<dyn Store>,
    told: Told,
    pace: Pace,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("store", &self.store).field("pace", &self.pace).finish_non_exhaustive()
    }
}

/// What stands in the store, as far as this node knows.
#[derive(Default)]
struct Standing {
    lease: Option<Lease>,
    written: Option<(Report, Revision)>,
    /// It was said that there is another node of this name.
    was_warned: bool,
}

/// Why the report is not written.
#[derive(Debug, Clone, thiserror::Error)]
enum NotWritten {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Report(#[from] ReportFault),
    #[error("others are writing {key} in the store without a pause; find out who writes there")]
    Contended { key: Key },
}

impl Reporter {
    /// Prepares to write what `told` says; [`Reporter::run`] does it.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, told: Told, pace: Pace) -> Self {
        Self { store, told, pace }
    }

    /// Writes the report whenever it says something else, until the process ends. Dropping the future gives the lease back, and
    /// the report ends with it.
    pub async fn run(self) {
        let (mut standing, mut wait, mut is_outage) = (Standing::default(), FIRST_WAIT, false);
        loop {
            let pause = match self.write_if_new(&mut standing).await {
                Ok(()) => {
                    if is_outage {
                        tracing::info!("other nodes are told again what this node runs");
                    }
                    (wait, is_outage) = (FIRST_WAIT, false);
                    self.pace.look_every
                }
                Err(error) => {
                    if is_outage {
                        tracing::debug!(%error, "other nodes are still not told what this node runs");
                    } else {
                        tracing::warn!(%error, "other nodes are not told what this node runs; that is tried again");
                    }
                    is_outage = true;
                    let pause = wait;
                    wait = wait.saturating_mul(2).min(LONGEST_WAIT);
                    pause
                }
            };
            standing.pause(with_jitter(pause)).await;
        }
    }

    async fn write_if_new(&self, standing: &mut Standing) -> Result<(), NotWritten> {
        standing.forget_what_ended();
        let Some(report) = (self.told)() else { return Ok(()) };
        if standing.written.as_ref().is_some_and(|(written, _)| written.says_the_same(&report)) {
            return Ok(());
        }
        let bytes = Bytes::from(report.encode()?);
        let key = Report::key(&report.node).ok_or(ReportFault::Packed)?;
        let lease = match standing.lease.take() {
            Some(lease) => lease,
            None => self.store.lease(self.pace.life).await?,
        };
        let lease = standing.lease.insert(lease);
        match write(&*self.store, &key, bytes, standing.written.as_ref(), lease, &mut standing.was_warned).await {
            Ok(revision) => {
                standing.written = Some((report, revision));
                Ok(())
            }
            Err(error) => {
                // It may have been written all the same, and is then found there.
                standing.written = None;
                if matches!(error, NotWritten::Store(StoreError::LeaseLost)) {
                    standing.lease = None;
                }
                Err(error)
            }
        }
    }
}

impl Standing {
    /// What was written under a lease that is lost is gone, or will be.
    fn forget_what_ended(&mut self) {
        if self.lease.as_ref().is_some_and(Lease::is_lost) {
            (self.lease, self.written) = (None, None);
        }
    }

    /// Waits, but no longer than the lease lives.
    async fn pause(&self, length: Duration) {
        let lost = async {
            match &self.lease {
                Some(lease) => lease.lost().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = lost => {}
            () = tokio::time::sleep(length) => {}
        }
    }
}

/// Writes a report over whatever stands there: the name is this node's. What was there is its own of before a restart, or the
/// report of another node that has the same name, which is told of.
async fn write(
    store: &dyn Store,
    key: &Key,
    bytes: Bytes,
    written: Option<&(Report, Revision)>,
    lease: &Lease,
    was_warned: &mut bool,
) -> Result<Revision, NotWritten> {
    let mut expected = written.map_or(Expected::Absent, |(_, revision)| Expected::Revision(*revision));
    for _ in 0..TRIES {
        let there = match store.put(key, bytes.clone(), expected, Some(lease)).await? {
            Put::Done(revision) => return Ok(revision),
            Put::Lost(there) => there,
        };
        if written.is_some() && there.is_some() && !std::mem::replace(was_warned, true) {
            tracing::warn!(
                key = shown(key.as_str()),
                "somebody else writes this node's report: see that no other node of the cluster has this name"
            );
        }
        expected = there.map_or(Expected::Absent, |entry| Expected::Revision(entry.revision));
    }
    Err(NotWritten::Contended { key: key.clone() })
}

/// A wait that is up to a quarter shorter, another each time.
fn with_jitter(wait: Duration) -> Duration {
    let random = RandomState::new().hash_one(());
    let share = f64::from(u32::try_from(random >> 32).unwrap_or_default()) / f64::from(u32::MAX);
    wait.saturating_sub((wait / JITTER_PARTS).mul_f64(share))
}

#[cfg(test)]
mod tests;
