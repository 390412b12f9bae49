//! A wire between one node and etcd, which can be cut, and on which nothing may move.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::Must as _;
use super::etcd::Etcd;

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// They go on.
    Everything,
    /// They wait, and connections stand: as when a switch between drops packets.
    Silence,
    /// Connections end, and new ones at once.
    Nothing,
}

/// The wire. Whoever connects to its endpoint is at etcd's first member, as far as it carries.
#[derive(Debug)]
pub struct Wire {
    /// The client URL, without TLS.
    pub endpoint: String,
    carries: watch::Sender<Carries>,
}

impl Wire {
    /// Begins to listen.
    pub async fn to(etcd: &Etcd) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.must("binding a wire's port");
        let endpoint = format!("http://{}", listener.local_addr().must("asking for a wire's port"));
        let to = etcd.endpoint(0).trim_start_matches("http://").to_owned();
        let (sender, carries) = watch::channel(Carries::Everything);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, to.clone(), carries.clone()));
            }
        });
        Self { endpoint, carries: sender }
    }

    /// From now on.
    pub fn carries(&self, what: Carries) {
        self.carries.send_replace(what);
    }
}

async fn carry(near: TcpStream, to: String, carries: watch::Receiver<Carries>) {
    let mut cut = carries.clone();
    let carried = async {
        let Ok(far) = TcpStream::connect(to).await else { return };
        let ((near_from, near_to), (far_from, far_to)) = (near.into_split(), far.into_split());
        tokio::join!(one_way(near_from, far_to, carries.clone()), one_way(far_from, near_to, carries));
    };
    tokio::select! {
        () = carried => {}
        _ = cut.wait_for(|carries| *carries == Carries::Nothing) => {}
    }
}

async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut carries: watch::Receiver<Carries>) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if carries.wait_for(|carries| *carries != Carries::Silence).await.is_err() {
            break;
        }
        if to.write_all(&bytes[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
