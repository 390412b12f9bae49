//! Reading what the nodes tell of themselves: page by page, so much and no more, and one report after the other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_trust::name::shown;

use super::report::{NODES, Report, ReportFault};
use crate::store::limits::MAX_PAGE_ENTRIES;
use crate::store::{Key, Prefix, Store, StoreError};

/// Reports that are read: Kubernetes supports 5,000 nodes.
pub const MAX_NODES: usize = 10_000;
/// Bytes of all reports as they are read: several times those of 5,000 nodes with a hundred pods each.
const MAX_READ_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that all reports of one reading may unpack to. It takes seconds, off every thread on which somebody waits for a container.
const MAX_UNPACKED_BYTES: usize = 256 * 1024 * 1024;
/// How long reading all reports may take: each page has its own deadline, and there may be many.
pub const READ_DEADLINE: Duration = Duration::from_secs(25);
/// Things beside the reports that are told of one by one.
const MAX_UNUSABLE: usize = 256;

/// The nodes of a cluster, as they stand in its store.
#[derive(Debug)]
pub struct Nodes {
    store: Arc<dyn Store>,
    own: String,
}

/// Why the reports cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The store cannot be asked.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The store answers, but it takes too long.
    #[error("the store did not give out the reports of all nodes within {} s: see how busy it is", READ_DEADLINE.as_secs())]
    Slow,
}

/// Something that stands among the reports and could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Where it stands in the store, escaped.
    pub key: String,
    /// Why it was not read.
    pub why: String,
}

/// What stands in the store, unread.
#[derive(Debug, Default)]
pub struct Reports {
    packed: Vec<(Key, Bytes)>,
    unreadable: Vec<Unreadable>,
}

impl Nodes {
    /// The nodes whose reports stand in `store`. `own` is the name of this one.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, own: String) -> Self {
        Self { store, own }
    }

    /// The name of this node.
    #[must_use]
    pub fn own(&self) -> &str {
        &self.own
    }

    /// What stands in the store now, each page as it was when it was asked for.
    ///
    /// # Errors
    /// [`ReadError`]: it cannot be asked.
    pub async fn read(&self) -> Result<Reports, ReadError> {
        tokio::time::timeout(READ_DEADLINE, self.read_pages()).await.map_err(|_| ReadError::Slow)?
    }

    async fn read_pages(&self) -> Result<Reports, ReadError> {
        // One segment is never too many.
        let prefix = Prefix::new([NODES]).unwrap_or_else(|_| Prefix::all());
        let (mut reports, mut bytes, mut after) = (Reports::default(), 0_usize, None);
        loop {
            let page = self.store.list(&prefix, after.as_ref(), MAX_PAGE_ENTRIES).await?;
            for unusable in page.unusable {
                reports.cannot_read(shown(&unusable.key), unusable.why.to_string());
            }
            for (key, entry) in page.entries {
                bytes = bytes.saturating_add(entry.value.len());
                if reports.packed.len() >= MAX_NODES || bytes > MAX_READ_BYTES {
                    reports.refuse_rest();
                    return Ok(reports);
                }
                reports.packed.push((key, entry.value));
            }
            after = page.next;
            if after.is_none() {
                return Ok(reports);
            }
            if reports.unreadable.len() >= MAX_UNUSABLE {
                reports.refuse_rest();
                return Ok(reports);
            }
        }
    }
}

impl Reports {
    /// Reads one report after the other; none is in memory longer than the caller keeps it. What cannot be read hides nothing
    /// beside it.
    pub fn iter(&self) -> impl Iterator<Item = Result<Report, Unreadable>> + '_ {
        let mut unpacked = 0_usize;
        let reports = self.packed.iter().map(move |(key, bytes)| {
            if unpacked > MAX_UNPACKED_BYTES {
                return Err(Unreadable {
                    key: shown(key.as_str()),
                    why: "the reports before it were too long to read this one, too".into(),
                });
            }
            let read = Report::decode(key, bytes);
            // What was refused has cost no less.
            unpacked = unpacked.saturating_add(read.as_ref().map_or(super::packed::MAX_REPORT_BYTES, |(_, length)| *length));
            read.map(|(report, _)| report).map_err(|fault: ReportFault| Unreadable { key: shown(key.as_str()), why: fault.to_string() })
        });
        reports.chain(self.unreadable.iter().cloned().map(Err))
    }

    fn cannot_read(&mut self, key: String, why: String) {
        if self.unreadable.len() < MAX_UNUSABLE {
            self.unreadable.push(Unreadable { key, why });
        }
    }

    fn refuse_rest(&mut self) {
        let why = format!("below it stands more than the reports of {MAX_NODES} nodes: find out who writes there, and remove it");
        self.unreadable.push(Unreadable { key: format!("{NODES}/"), why });
    }
}

#[cfg(test)]
mod tests;
