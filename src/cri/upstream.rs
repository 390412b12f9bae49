//! The way to containerd: one HTTP/2 connection for each connection of a caller, opened when it is first needed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, Version};
use tokio::time::Instant;

use super::body::{RequestBody, Wanted};
use super::frame::{self, GRPC_ENCODING};
use super::methods;
use super::status::{Code, Status};
use crate::connection::{AnswerBody, ConnectError, Connection};

/// For what the gate itself asks of containerd's CRI. The answers come within milliseconds; one that never came would keep an
/// image's lock for ever.
const QUESTION_DEADLINE: Duration = Duration::from_secs(10);

/// For what containerd makes and the gate has to look at. kubelet waits 2 min for a container and 4 min for a sandbox; on a busy
/// node one may be made after that, and the image's lock must not be kept for ever for a containerd that hangs.
const MAKING_DEADLINE: Duration = Duration::from_mins(5);
/// How long containerd is asked to remove what must not stay. A removal takes longer than an answer on a busy node, and containerd
/// may be restarted meanwhile; kubelet does not wait for a container longer than this.
const REMOVAL_DEADLINE: Duration = Duration::from_mins(2);
/// Between two tries: a containerd that is being restarted is back within seconds.
const REMOVAL_PAUSE: Duration = Duration::from_secs(1);
/// A caller's deadline (gRPC over HTTP/2, "Requests").
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

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
#[derive(Debug, Clone)]
pub struct Upstream {
    connection: Connection,
}

impl Upstream {
    /// A way to the containerd that listens on `socket`. Nothing is opened yet.
    #[must_use]
    pub fn new(socket: Arc<Path>) -> Self {
        Self { connection: Connection::new(socket) }
    }

    /// containerd's socket.
    pub(super) const fn socket(&self) -> &Arc<Path> {
        self.connection.socket()
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
        let (response, _) = self.send(request).await.map_err(|error| match error {
            SendError::Reset(_, reason) => Status::from_reset(reason),
            SendError::Unavailable(status) => status,
        })?;
        self.unary_reply(response).await
    }

    /// A question of our own, which no caller's deadline bounds.
    ///
    /// # Errors
    /// As [`Upstream::unary`]; also `UNAVAILABLE` when containerd does not answer in time.
    pub(super) async fn ask(&self, method: &'static str, message: Bytes) -> Result<Reply, Status> {
        self.ask_within(QUESTION_DEADLINE, method, message).await
    }

    /// A question of our own that may take longer than others.
    ///
    /// # Errors
    /// As [`Upstream::ask`].
    pub(super) async fn ask_within(&self, limit: Duration, method: &'static str, message: Bytes) -> Result<Reply, Status> {
        self.unary_within(limit, method, message, &HeaderMap::new()).await
    }

    /// A caller's call that makes something which has to be looked at afterwards. The caller's deadline is not passed on: when
    /// it ends, containerd 2.1 breaks off its answer and makes the thing all the same, and nobody would know of it.
    ///
    /// # Errors
    /// As [`Upstream::unary`]; also `UNAVAILABLE` when containerd does not answer in time.
    pub(super) async fn to_its_end(&self, method: &'static str, message: Bytes, metadata: &HeaderMap) -> Result<Reply, Status> {
        let mut metadata = metadata.clone();
        metadata.remove(GRPC_TIMEOUT);
        self.unary_within(MAKING_DEADLINE, method, message, &metadata).await
    }

    /// A removal of our own, asked for until it is done: to remove twice is no error in CRI, and one that is broken off is left
    /// half done, with what was to be removed in place.
    ///
    /// # Errors
    /// As [`Upstream::ask`], the last of the answers.
    pub(super) async fn remove(&self, method: &'static str, message: Bytes) -> Result<(), Status> {
        let until = Instant::now() + REMOVAL_DEADLINE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Err(status) = self.ask_within(left, method, message.clone()).await else { return Ok(()) };
            if Instant::now() + REMOVAL_PAUSE >= until {
                return Err(status);
            }
            tokio::time::sleep(REMOVAL_PAUSE).await;
        }
    }

    async fn unary_within(&self, limit: Duration, method: &'static str, message: Bytes, metadata: &HeaderMap) -> Result<Reply, Status> {
        let answered = tokio::time::timeout(limit, self.unary(method, message, metadata)).await;
        answered.unwrap_or_else(|_elapsed| {
            let (socket, seconds) = (self.socket().display(), limit.as_secs());
            let text = format!("containerd at {socket} did not answer {method} within {seconds} s; see `systemctl status containerd`");
            Err(Status::new(Code::Unavailable, text))
        })
    }

    async fn unary_reply(&self, response: Response<AnswerBody>) -> Result<Reply, Status> {
        let (parts, body) = response.into_parts();
        if let Some(Err(status)) = Status::from_trailers(&parts.headers) {
            return Err(status);
        }
        if !parts.status.is_success() {
            return Err(Status::new(Code::Internal, format!("containerd answered with the HTTP status {}", parts.status)));
        }
        let broken = |reason: &dyn fmt::Display| Status::new(Code::Internal, format!("containerd's answer cannot be read: {reason}"));
        if !frame::is_grpc(&parts.headers) {
            return Err(broken(&"its content type is not application/grpc"));
        }
        let (message, trailers) = frame::one_message(&parts.headers, body).await;
        // An error may come after no message, or after a part of one: the status outranks the frame.
        if let Some(Err(status)) = Status::from_trailers(&trailers) {
            return Err(status);
        }
        let message = message.map_err(|error| {
            let frame::FrameError::Body(error) = error else { return broken(&error) };
            loss_of(&error, self.socket()).into_status()
        })?;
        match Status::from_trailers(&trailers) {
            Some(Ok(())) => Ok(Reply { headers: parts.headers, message, trailers }),
            Some(Err(status)) => Err(status),
            None => Err(broken(&"it has no grpc-status")),
        }
    }

    /// Sends a request, opening the connection when there is none or when it was closed. A body that is not here yet is sent
    /// until the future, and then what it gives back, is dropped.
    pub(super) async fn send(&self, request: Request<RequestBody>) -> Result<(Response<AnswerBody>, Option<Wanted>), SendError> {
        let mut sender = self.connection.sender().await.map_err(|error| self.unreachable(&error))?;
        let (head, body) = request.into_parts();
        let sent = sender.send_request(Request::from_parts(head, ()), body.is_empty());
        let (response, stream) = sent.map_err(|error| self.send_error(error))?;
        let wanted = if body.is_empty() { None } else { body.send(stream) };
        let response = response.await.map_err(|error| self.send_error(error))?;
        Ok((response.map(AnswerBody::new), wanted))
    }

    fn send_error(&self, error: h2::Error) -> SendError {
        match loss_of(&error, self.socket()) {
            Loss::Reset(reason) => SendError::Reset(error, reason),
            Loss::Connection(status) => SendError::Unavailable(status),
        }
    }

    fn unreachable(&self, error: &ConnectError) -> SendError {
        let text = format!("containerd does not answer at {}: {error}; see `systemctl status containerd`", self.socket().display());
        SendError::Unavailable(Status::new(Code::Unavailable, text))
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
