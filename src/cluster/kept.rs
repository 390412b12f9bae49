//! The newest document of members that this node knew, in a file of its own.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bytes::Bytes;

use super::key::PublicKey;
use super::members::{Members, MembersFault};

/// Its name in the state directory.
pub(super) const FILE: &str = "members";
/// Its name until it is whole.
const NEW_FILE: &str = "members.new";
/// What is said of one that cannot be read.
pub(super) const UNREADABLE: &str = "the document of the cluster's members that this node kept (`members` in its state directory) cannot be read: put it back from a backup, or remove it and restart the daemon, which then takes the one in the store";

/// There is one, and it cannot be read.
#[derive(Debug)]
pub(super) struct Unreadable;

/// The document, and its bytes. None if none was kept, or none of this configuration.
///
/// # Errors
/// [`Unreadable`]: it is not known which was the newest. The log says why.
pub(super) fn read(directory: &Path, cluster: &str, authorities: &[PublicKey]) -> Result<Option<(Members, Bytes)>, Unreadable> {
    let path = directory.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(&path, &error)),
    };
    match Members::decode_whenever(&bytes, cluster, authorities) {
        Ok(members) => Ok(Some((members, bytes.into()))),
        // An operator has changed the configuration since, and its version says nothing of documents of the new one.
        Err(fault @ (MembersFault::Authority { .. } | MembersFault::Cluster { .. })) => {
            tracing::warn!(%fault, "the kept document of the cluster's members is not of this configuration; it is asked for again");
            Ok(None)
        }
        Err(
            fault @ (MembersFault::Malformed { .. }
            | MembersFault::Signature
            | MembersFault::Future { .. }
            | MembersFault::Ended { .. }
            | MembersFault::TooMany),
        ) => Err(unreadable(&path, &fault)),
    }
}

fn unreadable(path: &Path, why: &dyn fmt::Display) -> Unreadable {
    tracing::error!(file = %path.display(), %why, "{UNREADABLE}; until then the word of no other node counts here");
    Unreadable
}

/// Keeps one, whole or not at all.
pub(super) fn write(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = directory.join(NEW_FILE);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, directory.join(FILE))?;
    // Else a power cut could bring the older one back.
    fs::File::open(directory)?.sync_all()
}
