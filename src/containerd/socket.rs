//! Connects tonic to a Unix socket by its path, which need not be UTF-8.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Makes a connection whenever tonic has none.
#[derive(Debug, Clone)]
pub(super) struct Connector(Arc<PathBuf>);

impl Connector {
    pub(super) fn new(socket: &Path) -> Self {
        Self(Arc::new(socket.to_owned()))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let socket = Arc::clone(&self.0);
        Box::pin(async move { UnixStream::connect(socket.as_path()).await.map(TokioIo::new) })
    }
}
