//! One HTTP/2 connection to containerd, opened when it is first used and again when it was closed.
//!
//! It is h2's own client: hyper's writes the headers of a request, and only then asks for its body, so that each call
//! would cost a second write and wake containerd twice.

use std::fmt;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http_body::{Body, Frame};
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

/// How long containerd may take to take a connection. A unix socket answers at once or not at all; a full backlog
/// frees within milliseconds.
const CONNECT: Duration = Duration::from_secs(2);
/// Bytes of one answer that may wait here for a slow caller. A hundred containers list in 44 KiB; 256 KiB keep even
/// a 16 MiB answer moving without a stop at each frame.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// Bytes of all answers of a connection together: eight stalled answers before the ninth must wait. Each caller's connection
/// has one to containerd, so that as many callers as there may be, all of which read nothing, take 512 MiB.
pub const CONNECTION_WINDOW: u32 = 8 * STREAM_WINDOW;
/// Bytes that one read takes: containerd writes at most 32 KiB at once, and the list of a hundred containers is two
/// such writes, which are then two reads instead of a dozen.
const READ_AT_ONCE: usize = 64 * 1024;
/// Calls that may be made before containerd has said how many it takes; it takes any number.
const STREAMS_BEFORE_SETTINGS: usize = 256;
/// Bytes of headers that containerd may send: an error of runc with a hook's output stands in one header.
const HEADER_LIST: u32 = 1024 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket does not take one.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// The socket's queue stays full.
    #[error("no connection within {} s", CONNECT.as_secs())]
    Deadline,
    /// What listens there does not speak HTTP/2.
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

/// A connection to containerd. Clones share it, and keep it open as long as there is one of them.
#[derive(Clone)]
pub struct Connection {
    socket: Arc<Path>,
    sender: Arc<Mutex<Option<SendRequest<Bytes>>>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Connection {
    /// To whoever listens on `socket`. Nothing is opened yet.
    #[must_use]
    pub fn new(socket: Arc<Path>) -> Self {
        Self { socket, sender: Arc::default() }
    }

    /// Where it leads.
    #[must_use]
    pub const fn socket(&self) -> &Arc<Path> {
        &self.socket
    }

    /// What requests are sent with, on a connection that was open a moment ago. Callers that come while it is being
    /// opened wait for it; one that goes away meanwhile leaves nothing half done. A connection that is opened belongs to
    /// the runtime of the caller.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn sender(&self) -> Result<SendRequest<Bytes>, ConnectError> {
        let mut kept = self.sender.lock().await;
        if let Some(sender) = kept.clone()
            // A clone waits for no stream of its own, so that this is an answer and never a wait.
            && let Ok(sender) = sender.ready().await
        {
            return Ok(sender);
        }
        Ok(kept.insert(self.open().await?).clone())
    }

    async fn open(&self) -> Result<SendRequest<Bytes>, ConnectError> {
        let connected = tokio::time::timeout(CONNECT, UnixStream::connect(&self.socket)).await;
        let stream = connected.map_err(|_elapsed| ConnectError::Deadline)??;
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST);
        let (sender, connection) = builder.handshake(BufReader::with_capacity(READ_AT_ONCE, stream)).await?;
        // Ends by itself when every sender is dropped and no stream is open.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to containerd ended");
            }
        });
        Ok(sender)
    }
}

/// The body of an answer, as it arrives.
#[derive(Debug)]
pub struct AnswerBody(RecvStream);

impl AnswerBody {
    /// The rest of an answer, after its headers.
    #[must_use]
    pub const fn new(stream: RecvStream) -> Self {
        Self(stream)
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let stream = &mut self.get_mut().0;
        let Some(data) = ready!(stream.poll_data(cx)) else {
            return stream.poll_trailers(cx).map(|trailers| trailers.transpose().map(|trailers| trailers.map(Frame::trailers)));
        };
        let data = data.and_then(|data| stream.flow_control().release_capacity(data.len()).map(|()| data));
        Poll::Ready(Some(data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

#[cfg(test)]
mod tests;
