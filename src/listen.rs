//! Unix sockets that only their owner can reach.
//!
//! Whoever reaches the gate's socket commands the node. So the socket is 0600 in a 0700 directory, and the peer's
//! user is asked of the kernel all the same, for each connection.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use listenfd::ListenFd;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;

/// The mode of our sockets: a caller needs to write to connect.
const SOCKET_MODE: u32 = 0o600;
/// The mode of the directory that holds them.
const DIRECTORY_MODE: u32 = 0o700;
/// How long to wait after an accept failed. It fails when file descriptors or memory are short, which takes
/// other connections to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The least time between two log lines about the same thing that a caller can repeat at will.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Why a socket is not listened on. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The configured path is relative, or has no directory.
    #[error("{path}: the socket's path must be absolute")]
    Relative {
        /// The path.
        path: PathBuf,
    },
    /// The directory could not be made, or a file not be looked at, removed, bound or changed.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something else stands where the socket or its directory should be.
    #[error("{path} is not a {expected}; move it away or configure another path")]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// `directory` or `socket`.
        expected: &'static str,
    },
    /// The socket or its directory belongs to somebody else.
    #[error(
        "{path} belongs to user {uid}, not to user {own}; whoever owns it could stand in for countersign: `chown {own} {path}`, or remove it"
    )]
    Owner {
        /// The path.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Our own user.
        own: u32,
    },
    /// The directory lets others in.
    #[error("the directory {path} has mode {mode:04o}; others must not enter it: `chmod 0700 {path}` (systemd: `DirectoryMode=0700`)")]
    WideDirectory {
        /// The path.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The socket lets others in.
    #[error(
        "the socket {path} has mode {mode:04o}; others must not connect: set `SocketMode=0600` in the systemd socket unit, or remove the file"
    )]
    WideSocket {
        /// The path.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Somebody listens there already.
    #[error("another process answers at {path}; stop it first, or configure another path")]
    InUse {
        /// The path.
        path: PathBuf,
    },
}

/// The sockets that systemd handed to this process.
#[derive(Debug, Default)]
pub struct Inherited {
    listeners: Vec<StdUnixListener>,
}

impl Inherited {
    /// Takes every listening unix socket of `LISTEN_FDS`. Call it once, before any thread runs: it changes the
    /// environment.
    #[must_use]
    pub fn from_env() -> Self {
        let mut given = ListenFd::from_env();
        let listeners = (0..given.len()).filter_map(|index| given.take_unix_listener(index).ok().flatten()).collect();
        Self { listeners }
    }

    /// Takes the socket that is bound to `path`, wherever it stands in the list.
    fn take(&mut self, path: &Path) -> Option<StdUnixListener> {
        let bound = |listener: &StdUnixListener| listener.local_addr().is_ok_and(|address| address.as_pathname() == Some(path));
        let index = self.listeners.iter().position(bound)?;
        Some(self.listeners.swap_remove(index))
    }

    /// The paths of the sockets that nobody took: names in the systemd unit that the configuration does not have.
    #[must_use]
    pub fn left(&self) -> Vec<PathBuf> {
        let path = |listener: &StdUnixListener| listener.local_addr().ok()?.as_pathname().map(Path::to_path_buf);
        self.listeners.iter().filter_map(path).collect()
    }
}

impl From<Vec<StdUnixListener>> for Inherited {
    fn from(listeners: Vec<StdUnixListener>) -> Self {
        Self { listeners }
    }
}

/// A socket that hands out connections of permitted users only.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    own: u32,
    refused: Throttle,
    failed: Throttle,
}

impl Listener {
    /// Listens on `path`: the inherited socket of that path, else a new one. The directory is made if it is absent
    /// (its parent must exist); a socket file that nobody answers on is replaced.
    ///
    /// # Errors
    /// When anybody else could reach the socket or stand in for it, or somebody answers on it already.
    pub async fn open(path: &Path, inherited: &mut Inherited) -> Result<Self, ListenError> {
        let own = rustix::process::geteuid().as_raw();
        let directory = path.parent().filter(|_| path.is_absolute());
        let directory = directory.ok_or_else(|| ListenError::Relative { path: path.into() })?;
        let socket = match inherited.take(path) {
            Some(socket) => {
                refuse_wide_directory(directory, own)?;
                refuse_wide_socket(path, &looked_at(path)?, own)?;
                socket
            }
            None => {
                make_directory(directory)?;
                refuse_wide_directory(directory, own)?;
                clear_stale(path, own).await?;
                bind(path, own)?
            }
        };
        let io = |source| ListenError::Io { action: "listening on", path: path.into(), source };
        socket.set_nonblocking(true).map_err(io)?;
        let socket = UnixListener::from_std(socket).map_err(io)?;
        Ok(Self { socket, path: path.into(), own, refused: Throttle::default(), failed: Throttle::default() })
    }

    /// The next connection of root or of our own user. Connections of anybody else are closed and logged.
    ///
    /// Dropping the future loses no connection.
    pub async fn accept(&self) -> UnixStream {
        loop {
            match self.socket.accept().await {
                Ok((stream, _address)) if self.permits(&stream) => return stream,
                Ok(_refused) => {}
                Err(error) => {
                    if let Some(times) = self.failed.pass() {
                        tracing::error!(socket = %self.path.display(), %error, times, "no connection could be taken");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn permits(&self, stream: &UnixStream) -> bool {
        let peer = stream.peer_cred();
        if peer.as_ref().is_ok_and(|peer| permitted(peer.uid(), self.own)) {
            return true;
        }
        if let Some(times) = self.refused.pass() {
            let (uid, pid) = peer.map_or((None, None), |peer| (Some(peer.uid()), peer.pid()));
            tracing::warn!(socket = %self.path.display(), uid, pid, times, "a connection of another user was closed");
        }
        false
    }
}

/// Only root and the user that runs countersign may speak to it.
const fn permitted(uid: u32, own: u32) -> bool {
    uid == 0 || uid == own
}

fn make_directory(directory: &Path) -> Result<(), ListenError> {
    match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(ListenError::Io { action: "making the directory", path: directory.into(), source }),
    }
}

/// Looks at the file itself, never through a symbolic link, which its owner could turn elsewhere.
fn looked_at(path: &Path) -> Result<Metadata, ListenError> {
    fs::symlink_metadata(path).map_err(|source| ListenError::Io { action: "looking at", path: path.into(), source })
}

fn refuse_wide_directory(directory: &Path, own: u32) -> Result<(), ListenError> {
    let found = looked_at(directory)?;
    if !found.is_dir() {
        return Err(ListenError::WrongKind { path: directory.into(), expected: "directory" });
    }
    refuse_other_owner(directory, &found, own)?;
    match found.mode() & 0o7777 {
        mode if mode & 0o077 == 0 => Ok(()),
        mode => Err(ListenError::WideDirectory { path: directory.into(), mode }),
    }
}

fn refuse_wide_socket(path: &Path, found: &Metadata, own: u32) -> Result<(), ListenError> {
    if !found.file_type().is_socket() {
        return Err(ListenError::WrongKind { path: path.into(), expected: "socket" });
    }
    refuse_other_owner(path, found, own)?;
    match found.mode() & 0o7777 {
        mode if mode & !SOCKET_MODE == 0 => Ok(()),
        mode => Err(ListenError::WideSocket { path: path.into(), mode }),
    }
}

fn refuse_other_owner(path: &Path, found: &Metadata, own: u32) -> Result<(), ListenError> {
    // Root's files are as good as ours: root can do whatever their owner can.
    if permitted(found.uid(), own) {
        return Ok(());
    }
    Err(ListenError::Owner { path: path.into(), uid: found.uid(), own })
}

/// Removes a socket file of a process that is gone.
async fn clear_stale(path: &Path, own: u32) -> Result<(), ListenError> {
    match fs::symlink_metadata(path) {
        Ok(found) => refuse_wide_socket(path, &found, own)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ListenError::Io { action: "looking at", path: path.into(), source }),
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        // A full backlog answers "try again": somebody is there.
        Ok(_) => return Err(ListenError::InUse { path: path.into() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(ListenError::InUse { path: path.into() }),
        Err(source) => return Err(ListenError::Io { action: "asking who answers at", path: path.into(), source }),
    }
    fs::remove_file(path).map_err(|source| ListenError::Io { action: "removing the stale socket", path: path.into(), source })
}

/// Binds a new socket. Its mode is narrowed after binding; until then the directory keeps others out.
fn bind(path: &Path, own: u32) -> Result<StdUnixListener, ListenError> {
    let io = |action| move |source| ListenError::Io { action, path: path.into(), source };
    #[allow(clippy::disallowed_methods, reason = "this is where sockets are made, and narrowed")]
    let socket = StdUnixListener::bind(path).map_err(io("binding"))?;
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(io("setting the mode of"))?;
    refuse_wide_socket(path, &looked_at(path)?, own)?;
    Ok(socket)
}

/// Lets a log line pass at most once in ten seconds.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    state: Mutex<(Option<Instant>, u64)>,
}

impl Throttle {
    /// `Some(n)` when a line may be written, which then stands for `n` occurrences.
    pub(crate) fn pass(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (last, times) = &mut *state;
        *times = times.saturating_add(1);
        if last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            return None;
        }
        *last = Some(Instant::now());
        Some(std::mem::take(times))
    }
}

#[cfg(test)]
mod tests;
