//! What can be wrong with a ledger, and what the operator does about it.

use std::io;
use std::path::PathBuf;

use countersign_trust::name::shown;

/// Why the ledger did not answer. Nothing here ever means "not on record".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The directory itself is missing or closed to us.
    #[error("the ledger's directory {} cannot be used: create it, owned by root and with mode 0700", directory.display())]
    Directory {
        /// The configured directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else has the ledger open.
    #[error("another process has the ledger {} open: is the daemon running?", path.display())]
    InUse {
        /// The ledger's file.
        path: PathBuf,
    },
    /// There was none, and then somebody put one there: what it has seen is not known to this process.
    #[error("the ledger {} was put there while another was about to be made: try again", path.display())]
    Appeared {
        /// The ledger's file.
        path: PathBuf,
    },
    /// What is there is not what was written. It is never taken for an empty ledger.
    #[error(
        "the ledger {} is unreadable ({what}): restore it from a backup, or move it away to begin anew, which forgets the newest version of every repository that this node has seen",
        path.display()
    )]
    Unreadable {
        /// The ledger's file.
        path: PathBuf,
        /// What was found, and in which entry.
        what: String,
        /// What the store said, if it was the store that noticed.
        source: Option<Box<redb::Error>>,
    },
    /// The disk did not give back what is on it.
    #[error("the ledger {} could not be read from disk: check the disk; the next call tries again", path.display())]
    Read {
        /// The ledger's file.
        path: PathBuf,
        /// What the store said.
        source: Box<redb::Error>,
    },
    /// The disk did not take what was to be recorded.
    #[error("the ledger {} could not be written: make room on its disk; the next call tries again", path.display())]
    Write {
        /// The file that was being written.
        path: PathBuf,
        /// What the store said.
        source: Box<redb::Error>,
    },
    /// A limit of this ledger would be passed. Nothing was recorded.
    #[error("the ledger takes no more: {what} would be {size}, and the limit is {limit}{}", largest_text(largest.as_deref()))]
    Full {
        /// What is limited.
        what: &'static str,
        /// What it would have become.
        size: u64,
        /// The most that it may be.
        limit: u64,
        /// The repository for which most of it is held, if others are counted with it.
        largest: Option<String>,
    },
}

/// How to make room.
fn largest_text(largest: Option<&str>) -> String {
    let Some(largest) = largest.map(shown) else { return String::new() };
    format!("; most is held for {largest}: if this node does not need that, `countersign reset {largest} --reason TEXT` makes room")
}

impl LedgerError {
    /// Whether the ledger may be usable later without anybody's hand on its files. While somebody mends them, a file that is
    /// away for a moment would be taken for a first use.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Directory { .. } | Self::InUse { .. } | Self::Appeared { .. } | Self::Write { .. } => true,
            Self::Unreadable { .. } | Self::Read { .. } | Self::Full { .. } => false,
        }
    }

    /// Whether the database must be opened anew before it can be trusted or used again.
    pub(super) const fn needs_reopening(&self) -> bool {
        match self {
            Self::Read { .. } | Self::Write { .. } => true,
            Self::Directory { .. } | Self::InUse { .. } | Self::Appeared { .. } | Self::Unreadable { .. } | Self::Full { .. } => false,
        }
    }
}
