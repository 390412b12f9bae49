//! Where decisions are written down, and where figures are asked for.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use countersign_trust::name::shown;

use super::fault::Fault;
use super::file::AuditFile;
use super::place::Place;
use super::shape::{At, Notes};
use super::socket;

/// Below the state directory: it is on the node's own disk, and root's alone.
const LOG: &str = "audit/decisions.jsonl";
/// Stands in messages as an example.
const LOG_EXAMPLE: &str = "/var/lib/countersign/audit/decisions.jsonl";
/// Stands in messages as an example.
const SOCKET_EXAMPLE: &str = "/run/countersign/metrics.sock";
/// A line has some 700 bytes, and a container costs two or three: so many containers as a busy node starts in weeks.
const DEFAULT_MAX_BYTES: u64 = 64 << 20;
/// A thousand lines: less would be gone before anybody looks.
const LEAST_MAX_BYTES: u64 = 1 << 20;
/// More is no log of one node any more, and reading it back takes minutes.
const MOST_MAX_BYTES: u64 = 16 << 30;

/// Where decisions are written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The newest file of the log.
    pub file: PathBuf,
    /// The most bytes of all its files.
    pub max_bytes: u64,
    /// Whether the file was named by the configuration; else its directory is ours to make.
    pub is_named: bool,
}

/// Where figures are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricsListen {
    /// A port that only this machine reaches.
    Loopback(SocketAddr),
    /// A socket that only its owner reaches.
    Unix(PathBuf),
}

/// None if a fault was noted, here or with the state directory.
pub(super) fn audit(file: &AuditFile, state_directory: Option<&Path>, place: &Place, notes: &mut Notes) -> Option<Audit> {
    let named = file.file.as_ref();
    let path = socket::path("audit.file", named, LOG_EXAMPLE, place, notes);
    let max_bytes = file.max_bytes.as_ref().map_or(Some(DEFAULT_MAX_BYTES), |written| max_bytes(written, notes));
    let path = if named.is_some() { path?.value } else { state_directory?.join(LOG) };
    Some(Audit { file: path, max_bytes: max_bytes?, is_named: named.is_some() })
}

fn max_bytes(written: &At<u64>, notes: &mut Notes) -> Option<u64> {
    let (least, most) = (LEAST_MAX_BYTES, MOST_MAX_BYTES);
    if (least..=most).contains(&written.value) {
        return Some(written.value);
    }
    notes.fault(written.at, Fault::Number { key: "audit.max-bytes", value: written.value, least, most });
    None
}

/// None if nothing is written, or a fault was noted. `taken` are the other sockets.
pub(super) fn metrics(written: Option<&At<String>>, taken: &[&Path], place: &Place, notes: &mut Notes) -> Option<MetricsListen> {
    let written = written?;
    if written.value.contains('/') {
        let path = socket::socket("metrics.listen", Some(written), SOCKET_EXAMPLE, place, notes)?.value;
        if !taken.iter().any(|other| socket::is_same_place(other, &path)) {
            return Some(MetricsListen::Unix(path));
        }
        notes.fault(written.at, Fault::MetricsSocketTaken { value: shown(&written.value) });
        return None;
    }
    let address = written.value.parse::<SocketAddr>().ok().filter(|address| address.ip().is_loopback() && address.port() != 0);
    if address.is_none() {
        notes.fault(written.at, Fault::MetricsListen { value: shown(&written.value) });
    }
    address.map(MetricsListen::Loopback)
}
