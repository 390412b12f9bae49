//! The way to containerd: one HTTP/2 connection for each connection of a caller, opened when it is first needed.
//!
//! It is h2's own client: hyper's writes the headers of a request, and only then asks for its body, so that each call
//! would cost a second write and wake containerd twice.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, Version};
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::body::{RequestBody, UpstreamBody};
use super::frame::{self, GRPC_ENCODING};
use super::methods;
use super::status::{Code, Status};

/// How long containerd may take to take a connection. A unix socket answers at once or not at all; a full backlog
/// frees within milliseconds.
const CONNECT: Duration = Duration::from_secs(2);
/// Bytes of one answer that may wait here for a slow caller. A hundred containers list in 44 KiB; 1 MiB keeps even
/// a 16 MiB answer moving without a stop at each frame.
pub(super) const STREAM_WINDOW: u32 = 1024 * 1024;
/// Bytes of all answers of a connection together: eight stalled answers before the ninth must wait.
pub(super) const CONNECTION_WINDOW: u32 = 8 * STREAM_WINDOW;
/// Bytes that one read takes: containerd writes at most 32 KiB at once, and the list of a hundred containers is two
/// such writes, which are then two reads instead of a dozen.
const READ_AT_ONCE: usize = 64 * 1024;
/// Calls that may be made before containerd has said how many it takes; it takes any number.
const STREAMS_BEFORE_SETTINGS: usize = 256;
/// Bytes of headers that containerd may send: an error of runc with a hook's output stands in one header.
const HEADER_LIST: u32 = 1024 * 1024;

/// Headers that belong to one connection and are never passed on (RFC 9110, 7.6.1; RFC 9113, 8.2.2), `host` because
/// it could contradict `:authority`, and `te`, which is set anew.
const HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Removes what belongs to one connection.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// An answer of containerd, or one of our own: headers, one message, trailers.
#[derive(Clone)]
pub struct Reply {
    /// The response headers, containerd's own.
    pub headers: HeaderMap,
    /// The protobuf message, without the five bytes of the frame.
    pub message: Bytes,
    /// The trailers, `grpc-status: 0` among them.
    pub trailers: HeaderMap,
}

impl Reply {
    /// An answer that did not come from containerd.
    #[must_use]
    pub fn new(message: impl Into<Bytes>) -> Self {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))]);
        let trailers = HeaderMap::from_iter([(super::status::GRPC_STATUS, HeaderValue::from_static("0"))]);
        Self { headers, message: message.into(), trailers }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("message_bytes", &self.message.len()).finish_non_exhaustive()
    }
}

/// How a call to containerd was lost.
#[derive(Debug)]
pub(super) enum Loss {
    /// containerd reset this one stream, with a reason.
    Reset(h2::Reason),
    /// The connection is gone.
    Connection(Status),
}

impl Loss {
    fn into_status(self) -> Status {
        match self {
            Self::Reset(reason) => Status::from_reset(reason),
            Self::Connection(status) => status,
        }
    }
}

/// Tells a reset stream from a lost connection.
pub(super) fn loss_of(error: &h2::Error, socket: &Path) -> Loss {
    if error.is_reset() {
        return Loss::Reset(error.reason().unwrap_or(h2::Reason::INTERNAL_ERROR));
    }
    let text = format!("containerd at {} went away during the call; see `systemctl status containerd`", socket.display());
    Loss::Connection(Status::new(Code::Unavailable, text))
}

/// Why a call has no response.
#[derive(Debug)]
pub(super) enum SendError {
    /// containerd reset the stream.
    Reset(h2::Error, h2::Reason),
    /// containerd cannot be reached, or went away.
    Unavailable(Status),
}

/// containerd's CRI, over a connection that is opened when it is first used and again when it was closed.
///
/// Clones share the connection. A clone that outlives the caller's connection keeps it open, so that a task that
/// must finish after the caller went away can go on using it.
#[derive(Clone)]
pub struct Upstream {
    socket: Arc<Path>,
    connection: Arc<Mutex<Option<SendRequest<Bytes>>>>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Upstream {
    /// A way to the containerd that listens on `socket`. Nothing is opened yet.
    #[must_use]
    pub fn new(socket: Arc<Path>) -> Self {
        Self { socket, connection: Arc::default() }
    }

    /// containerd's socket.
    pub(super) fn socket(&self) -> &Arc<Path> {
        &self.socket
    }

    /// One call to containerd's CRI. `method` is one of the paths in [`methods`]; of `metadata` everything is sent on
    /// but what belongs to a connection or to the encoding of the original message. `grpc-timeout` goes as it came:
    /// the caller of this function answers for what a check has used up of it.
    ///
    /// No deadline is set here, and dropping the future cancels the call.
    ///
    /// # Errors
    /// containerd's own status, as it came; `UNAVAILABLE` when containerd cannot be reached or goes away; `INTERNAL`
    /// when its answer is no unary gRPC answer.
    pub async fn unary(&self, method: &'static str, message: Bytes, metadata: &HeaderMap) -> Result<Reply, Status> {
        let Some(known) = methods::known(method) else {
            return Err(Status::new(Code::Internal, format!("countersign called {method}, which it does not know")));
        };
        let mut request = Request::new(RequestBody::Framed(frame::framed(&message)?));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = known.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = call_headers(metadata);
        let response = self.send(request).await.map_err(|error| match error {
            SendError::Reset(_, reason) => Status::from_reset(reason),
            SendError::Unavailable(status) => status,
        })?;
        self.unary_reply(response).await
    }

    async fn unary_reply(&self, response: Response<UpstreamBody>) -> Result<Reply, Status> {
        let (parts, body) = response.into_parts();
        if let Some(Err(status)) = Status::from_trailers(&parts.headers) {
            return Err(status);
        }
        if !parts.status.is_success() {
            return Err(Status::new(Code::Internal, format!("containerd answered with the HTTP status {}", parts.status)));
        }
        let broken = |reason: &dyn fmt::Display| Status::new(Code::Internal, format!("containerd's answer cannot be read: {reason}"));
        let (message, trailers) = frame::one_message(&parts.headers, body).await;
        // An error may come after no message, or after a part of one: the status outranks the frame.
        if let Some(Err(status)) = Status::from_trailers(&trailers) {
            return Err(status);
        }
        let message = message.map_err(|error| {
            let frame::FrameError::Body(error) = error else { return broken(&error) };
            loss_of(&error, &self.socket).into_status()
        })?;
        match Status::from_trailers(&trailers) {
            Some(Ok(())) => Ok(Reply { headers: parts.headers, message, trailers }),
            Some(Err(status)) => Err(status),
            None => Err(broken(&"it has no grpc-status")),
        }
    }

    /// Sends a request, opening the connection when there is none or when it was closed.
    pub(super) async fn send(&self, request: Request<RequestBody>) -> Result<Response<UpstreamBody>, SendError> {
        let mut sender = self.sender().await?;
        let (head, body) = request.into_parts();
        let sent = sender.send_request(Request::from_parts(head, ()), body.is_empty());
        let (response, stream) = sent.map_err(|error| self.send_error(error))?;
        if !body.is_empty() {
            body.send(stream);
        }
        let response = response.await.map_err(|error| self.send_error(error))?;
        Ok(response.map(UpstreamBody::new))
    }

    fn send_error(&self, error: h2::Error) -> SendError {
        match loss_of(&error, &self.socket) {
            Loss::Reset(reason) => SendError::Reset(error, reason),
            Loss::Connection(status) => SendError::Unavailable(status),
        }
    }

    /// The connection, opened anew when it is closed. Callers that come meanwhile wait for it; a caller that goes
    /// away while it is being opened leaves nothing half done.
    async fn sender(&self) -> Result<SendRequest<Bytes>, SendError> {
        let mut connection = self.connection.lock().await;
        if let Some(sender) = connection.clone()
            // A clone waits for no stream of its own, so that this is an answer and never a wait.
            && let Ok(sender) = sender.ready().await
        {
            return Ok(sender);
        }
        let sender = self.open().await.map_err(|reason| {
            let text = format!("containerd does not answer at {}: {reason}; see `systemctl status containerd`", self.socket.display());
            SendError::Unavailable(Status::new(Code::Unavailable, text))
        })?;
        Ok(connection.insert(sender).clone())
    }

    async fn open(&self) -> Result<SendRequest<Bytes>, String> {
        let stream = match tokio::time::timeout(CONNECT, UnixStream::connect(&self.socket)).await {
            Ok(connected) => connected.map_err(|error| error.to_string())?,
            Err(_elapsed) => return Err(format!("no connection within {} s", CONNECT.as_secs())),
        };
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST);
        let handshake = builder.handshake(BufReader::with_capacity(READ_AT_ONCE, stream));
        let (sender, connection) = handshake.await.map_err(|error| error.to_string())?;
        // Ends by itself when every sender is dropped and no stream is open.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to containerd ended");
            }
        });
        Ok(sender)
    }
}

fn call_headers(metadata: &HeaderMap) -> HeaderMap {
    let mut headers = metadata.clone();
    strip_hop_by_hop(&mut headers);
    // The message is sent as it is, and an answer must be readable here.
    headers.remove(GRPC_ENCODING);
    headers.remove("grpc-accept-encoding");
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers
}
