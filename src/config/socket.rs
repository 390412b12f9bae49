//! The sockets and the directory of the daemon.

use std::path::{Path, PathBuf};

use countersign_trust::name::shown;

use super::Listen;
use super::fault::Fault;
use super::file::SocketsFile;
use super::place::Place;
use super::shape::{At, Notes};

const CRI_SOCKET: &str = "/run/countersign/cri.sock";
const ADMIN_SOCKET: &str = "/run/countersign/admin.sock";
const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
pub(super) const STATE_DIRECTORY: &str = "/var/lib/countersign";
/// The kernel keeps a socket's path in 108 bytes, the last of them zero (`unix(7)`).
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// The three sockets, which must be three. None if one of them is no path; that was noted.
pub(super) fn check(file: &SocketsFile, place: &Place, notes: &mut Notes) -> Option<(Listen, PathBuf)> {
    let cri = socket("listen.cri", file.cri.as_ref(), CRI_SOCKET, place, notes);
    let admin = socket("listen.admin", file.admin.as_ref(), ADMIN_SOCKET, place, notes);
    let containerd = socket("containerd.address", file.containerd.as_ref(), CONTAINERD_SOCKET, place, notes);
    let (cri, admin, containerd) = (cri?, admin?, containerd?);
    for (key, ours) in [("listen.cri", &cri), ("listen.admin", &admin)] {
        if is_same_place(&ours.value, &containerd.value) {
            notes.fault(ours.at.max(containerd.at), Fault::ProxiesToItself { key, value: shown_path(&ours.value) });
        }
    }
    if is_same_place(&cri.value, &admin.value) {
        notes.fault(cri.at.max(admin.at), Fault::OneSocketForTwo { value: shown_path(&admin.value) });
    }
    Some((Listen { cri: cri.value, admin: admin.value }, containerd.value))
}

/// The directory for what the daemon keeps. None if what is written is no path; that was noted.
pub(super) fn state_directory(written: Option<&At<String>>, place: &Place, notes: &mut Notes) -> Option<PathBuf> {
    path("state.directory", written, STATE_DIRECTORY, place, notes).map(|path| path.value)
}

pub(super) fn socket(
    key: &'static str,
    written: Option<&At<String>>,
    default: &'static str,
    place: &Place,
    notes: &mut Notes,
) -> Option<At<PathBuf>> {
    let path = path(key, written, default, place, notes)?;
    if path.value.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
        notes.fault(path.at, Fault::SocketPathTooLong { key, value: shown_path(&path.value), limit: MAX_SOCKET_PATH_BYTES });
        return None;
    }
    Some(path)
}

/// kubelet and crictl want `unix://` before a socket; as a path it would be a directory named `unix:`.
pub(super) fn is_path(written: &str) -> bool {
    !written.is_empty() && !written.contains("://") && !written.contains('\0')
}

pub(super) fn path(
    key: &'static str,
    written: Option<&At<String>>,
    default: &'static str,
    place: &Place,
    notes: &mut Notes,
) -> Option<At<PathBuf>> {
    let Some(written) = written else { return Some(At::new(PathBuf::from(default), 0)) };
    if !is_path(&written.value) {
        notes.fault(written.at, Fault::NotAPath { key, value: shown(&written.value), example: default });
        return None;
    }
    Some(At::new(place.resolve(&written.value), written.at))
}

/// Whether two paths name one file, also where they lead to its directory on different ways (`/var/run` and `/run`).
pub(super) fn is_same_place(one: &Path, other: &Path) -> bool {
    fn canonical(path: &Path) -> PathBuf {
        let directory = path.parent().and_then(|directory| directory.canonicalize().ok());
        directory.zip(path.file_name()).map_or_else(|| path.to_owned(), |(directory, name)| directory.join(name))
    }
    one == other || canonical(one) == canonical(other)
}

fn shown_path(path: &Path) -> String {
    shown(&path.to_string_lossy())
}
