//! The gate itself: takes callers' connections and passes their calls to containerd.
//!
//! Calls that are not checked are streamed: bodies frame by frame, metadata, deadlines, trailers, resets in both
//! directions. Each caller's connection has its own connection to containerd, so that one caller's flow control or
//! stalled answers never hold up another's.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Method as HttpMethod, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::body::{Counted, RequestBody, ResponseBody};
use super::callers::{CALLS, CONNECTIONS, Callers, Calls, Entry, Places};
use super::checks::{self, CheckedCall, Checks};
use super::frame::{self, Collector};
use super::methods::{self, CheckedMethod, Method};
use super::status::{Code, Status};
use super::upstream::{Reply, SendError, Upstream, strip_hop_by_hop};
use crate::listen::{Listener, Throttle};

/// Calls at once on one connection. containerd sets no limit; hyper's 200 would stop a kubelet with 250 pods whose
/// exec probes hang.
const STREAMS: u32 = 2048;
/// Bytes of one request that may wait here, and of all requests of a connection: most are some hundred bytes, and a longer one
/// moves on at once. That is 128 MiB for as many connections as there may be, when nothing moves.
const REQUEST_WINDOW: u32 = 64 * 1024;
const REQUESTS_WINDOW: u32 = 8 * REQUEST_WINDOW;
/// Bytes of headers that a caller may send: hyper's own 16 KiB, four times.
const HEADER_LIST: u32 = 64 * 1024;
/// For how long a connection without a running call stays open after it was asked to close: HTTP/2 closes it in good
/// order within a round trip, and a caller that is itself stopped, or hangs, must not hold up the stop.
const IDLE_LINGER: Duration = Duration::from_millis(250);

/// What was left when serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were closed in the middle of a call, since the time to drain was over.
    pub cut: usize,
}

/// The CRI proxy between its callers and one containerd.
#[derive(Clone)]
pub struct Gate {
    checks: Arc<dyn Checks>,
    containerd: Arc<Path>,
    collector: Arc<Collector>,
    places: Places,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("containerd", &self.containerd).finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate before the containerd that listens on the socket `containerd`, which may still be down.
    #[must_use]
    pub fn new(checks: Arc<dyn Checks>, containerd: Arc<Path>) -> Self {
        Self { checks, containerd, collector: Arc::new(Collector::new()), places: Places::default() }
    }

    /// Serves until `shutdown` is ready, then lets running calls finish for at most `drain`.
    ///
    /// A call that never ends by itself (GetContainerEvents) uses the whole of `drain`; a connection without a call
    /// uses none of it.
    pub async fn serve(self, listener: Listener, shutdown: impl Future<Output = ()>, drain: Duration) -> Drained {
        let mut callers = Callers::default();
        let (crowded, full) = (Throttle::default(), Throttle::default());
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                true = callers.ended() => {}
                stream = listener.accept() => {
                    let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
                    match callers.admit(process, |calls, closing| self.clone().connection(stream, calls, closing)) {
                        Entry::Served => {}
                        Entry::InPlaceOfAnother => log_crowded(&crowded, callers.len()),
                        Entry::Refused => log_full(&full),
                    }
                }
            }
        }
        drop(listener);
        callers.close_all();
        let drained = async { while callers.ended().await {} };
        if tokio::time::timeout(drain, drained).await.is_err() {
            tracing::warn!(open = callers.len(), ?drain, "drain limit reached; closing what is left");
        }
        Drained { cut: callers.len() }
    }

    async fn connection(self, stream: UnixStream, calls: Arc<Calls>, mut closing: watch::Receiver<bool>) {
        let upstream = Upstream::new(Arc::clone(&self.containerd));
        let service = service_fn(|request| {
            let (gate, upstream, place, call) = (self.clone(), upstream.clone(), self.places.take(&calls), calls.begin());
            async move {
                let response = match &place {
                    Some(_) => gate.answer(request, upstream).await?,
                    None => refusal(no_place()),
                };
                Ok::<_, h2::Error>(response.map(|body| Counted { body, _call: call, _place: place }))
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(REQUEST_WINDOW)
            .initial_connection_window_size(REQUESTS_WINDOW)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEADER_LIST)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = async { drop(closing.wait_for(|closing| *closing).await) } => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = calls.none_for(IDLE_LINGER) => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a caller's connection ended");
        }
    }

    async fn answer(self, request: Request<Incoming>, upstream: Upstream) -> Result<Response<ResponseBody>, h2::Error> {
        let method = match admitted(&request) {
            Ok(method) => method,
            Err(status) => return Ok(refusal(status)),
        };
        let checked = match method.checked.map(|checked| (checked, checks::is_checked(&*self.checks, checked))) {
            None | Some((_, Ok(false))) => None,
            Some((checked, Ok(true))) => Some(checked),
            Some((_, Err(status))) => return Ok(refusal(status)),
        };
        match checked {
            None => transparent(method, request, &upstream).await,
            // Boxed, so that the task of a call that is only passed on stays small.
            Some(checked) => Ok(Box::pin(self.checked(checked, request, upstream)).await),
        }
    }

    async fn checked(self, method: CheckedMethod, request: Request<Incoming>, upstream: Upstream) -> Response<ResponseBody> {
        let (parts, body) = request.into_parts();
        let (message, share) = match self.collector.request(&parts.headers, body).await {
            Ok(arrived) => arrived,
            Err(status) => return refusal(status),
        };
        let call = CheckedCall { message, upstream, metadata: parts.headers, _share: share };
        match checks::answer(&*self.checks, method, call).await {
            Ok(reply) => replied(reply),
            Err(status) => refusal(status),
        }
    }
}

fn log_crowded(throttle: &Throttle, open: usize) {
    if let Some(times) = throttle.pass() {
        tracing::warn!(open, times, "many connections: a client leaves them open; those longest without a call are closed");
    }
}

fn log_full(throttle: &Throttle) {
    if let Some(times) = throttle.pass() {
        tracing::warn!(limit = CONNECTIONS, times, "too many connections; the new one was closed");
    }
}

fn no_place() -> Status {
    Status::new(
        Code::ResourceExhausted,
        format!("countersign refused the call: {CALLS} calls run at once, which is all it serves; try again"),
    )
}

/// Finds the method, or says why nothing is forwarded. Whatever is not a known CRI v1 call is UNIMPLEMENTED, which
/// kubelet takes as "this runtime is older than I am".
fn admitted(request: &Request<Incoming>) -> Result<&'static Method, Status> {
    let unimplemented = |what: &str| Err(Status::new(Code::Unimplemented, format!("countersign forwards CRI v1 calls only: {what}")));
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    let Some(method) = methods::known(path) else {
        return unimplemented(&format!("{} is not one that this version knows", countersign_trust::name::shown(path)));
    };
    if request.method() != HttpMethod::POST {
        return unimplemented("the HTTP method is not POST");
    }
    if !frame::is_grpc(request.headers()) {
        return unimplemented("the content type is not application/grpc");
    }
    Ok(method)
}

async fn transparent(
    method: &'static Method,
    request: Request<Incoming>,
    upstream: &Upstream,
) -> Result<Response<ResponseBody>, h2::Error> {
    let (mut parts, body) = request.into_parts();
    parts.uri = method.uri.clone();
    // Extensions are this connection's own (hyper's upgrade handles, a `:protocol`).
    parts.extensions = http::Extensions::new();
    strip_hop_by_hop(&mut parts.headers);
    parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    match upstream.send(Request::from_parts(parts, RequestBody::Downstream(body))).await {
        Ok((response, wanted)) => {
            let (mut parts, body) = response.into_parts();
            strip_hop_by_hop(&mut parts.headers);
            Ok(Response::from_parts(parts, ResponseBody::Upstream(body, Arc::clone(upstream.socket()), wanted)))
        }
        Err(SendError::Unavailable(status)) => Ok(refusal(status)),
        // hyper resets the caller's stream with the reason that containerd gave.
        Err(SendError::Reset(error, _)) => Err(error),
    }
}

/// The answer of a check: containerd's headers, message and trailers, or our own.
fn replied(reply: Reply) -> Response<ResponseBody> {
    let frame = match frame::framed(&reply.message) {
        Ok(frame) => frame,
        Err(status) => return refusal(status),
    };
    let mut response = Response::new(ResponseBody::Framed(Some(frame), Some(reply.trailers)));
    *response.headers_mut() = reply.headers;
    strip_hop_by_hop(response.headers_mut());
    // The frame is written anew, uncompressed and of its own length.
    response.headers_mut().remove(frame::GRPC_ENCODING);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response
}

/// A status in the headers and nothing after them (gRPC over HTTP/2, "Trailers-Only").
fn refusal(status: Status) -> Response<ResponseBody> {
    let mut headers = status.into_trailers();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let mut response = Response::new(ResponseBody::Ended);
    *response.headers_mut() = headers;
    response
}
