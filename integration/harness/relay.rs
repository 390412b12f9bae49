//! A relay in front of containerd's socket, that lets a test act in the moment before a chosen request reaches containerd:
//! what an attacker with perfect timing could do.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::Must;
use super::folder::Folder;

/// Larger than the requests that are waited for, so that each comes in one piece.
const CHUNK_BYTES: usize = 64 * 1024;

/// What happens before the first request that contains the marker.
struct Ambush {
    marker: Vec<u8>,
    strike: BoxFuture<'static, ()>,
}

type Laid = Arc<Mutex<Option<Ambush>>>;

/// The relay. Dropping it ends it.
pub struct Relay {
    socket: PathBuf,
    laid: Laid,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Relay {
    /// Starts a relay to the socket `to`.
    pub fn start(folder: &Folder, to: &Path) -> Self {
        let socket = folder.sub("relay").join("containerd.sock");
        let listener = UnixListener::bind(&socket).must(format_args!("listening on {}", socket.display()));
        let laid = Laid::default();
        let task = tokio::spawn(accept(listener, to.to_owned(), Arc::clone(&laid)));
        Self { socket, laid, task }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Lets `strike` run to its end before the next request that contains `marker` (bytes that stand in its message as they are,
    /// such as a container's name) goes on to containerd.
    pub fn before(&self, marker: &str, strike: impl Future<Output = ()> + Send + 'static) {
        let ambush = Ambush { marker: marker.as_bytes().to_owned(), strike: strike.boxed() };
        *self.laid.lock().unwrap_or_else(PoisonError::into_inner) = Some(ambush);
    }

    /// Whether what was laid last has not been sprung.
    pub fn is_waiting(&self) -> bool {
        self.laid.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: UnixListener, to: PathBuf, laid: Laid) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let (to, laid) = (to.clone(), Arc::clone(&laid));
        connections.spawn(async move {
            // Either side may go away at any time, and then so does the other.
            let _ = carry(near, &to, &laid).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(near: UnixStream, to: &Path, laid: &Laid) -> io::Result<()> {
    let far = UnixStream::connect(to).await?;
    let (mut requests, mut answers) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    let there = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let length = requests.read(&mut chunk).await?;
            let part = &chunk[..length];
            if part.is_empty() {
                return io::Result::Ok(());
            }
            if let Some(ambush) = sprung(laid, part) {
                ambush.strike.await;
            }
            to_far.write_all(part).await?;
        }
    };
    let back = async { tokio::io::copy(&mut from_far, &mut answers).await.map(drop) };
    tokio::select! {
        ended = there => ended,
        ended = back => ended,
    }
}

fn sprung(laid: &Laid, part: &[u8]) -> Option<Ambush> {
    let mut laid = laid.lock().unwrap_or_else(PoisonError::into_inner);
    let meant = laid.as_ref().is_some_and(|ambush| part.windows(ambush.marker.len()).any(|bytes| bytes == ambush.marker));
    if meant { laid.take() } else { None }
}
