//! A server that is far away: a relay that delays what passes it, in each direction, and lets any amount through.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::harness::Must as _;

/// One way to a server in another part of the world.
const DELAY: Duration = Duration::from_millis(20);
const CHUNK_BYTES: usize = 64 * 1024;

/// Starts a relay to `server` on a thread of its own, since the commands that are timed block this one. It ends with the
/// process. Returns where it listens.
#[allow(clippy::disallowed_methods, reason = "the bench's own server, on loopback")]
pub(crate) fn start(server: SocketAddr) -> SocketAddr {
    let (told, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().must("starting a runtime");
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.must("listening");
            let _ = told.send(listener.local_addr().must("finding a port"));
            loop {
                let (near, _) = listener.accept().await.must("accepting a connection");
                tokio::spawn(relay(near, server));
            }
        });
    });
    address.recv().must("starting a relay")
}

/// The delay of the handshake of TCP is that of the first bytes: whoever connects waits for both ways.
async fn relay(near: TcpStream, server: SocketAddr) {
    tokio::time::sleep(2 * DELAY).await;
    let Ok(far) = TcpStream::connect(server).await else { return };
    for stream in [&near, &far] {
        let _ = stream.set_nodelay(true);
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::join!(delayed(near_read, far_write), delayed(far_read, near_write));
}

async fn delayed(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf) {
    let (on_its_way, mut arriving) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            let _ = on_its_way.send((Instant::now() + DELAY, chunk[..length].to_vec()));
        }
    };
    let write = async move {
        while let Some((arrives, bytes)) = arriving.recv().await {
            tokio::time::sleep_until(arrives).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
