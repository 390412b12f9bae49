//! A containerd of a few lines, and a caller.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::wrappers::ReceiverStream;

use super::super::frame::framed;

pub(super) type Body = BoxBody<Bytes, hyper::Error>;
type Sender = mpsc::Sender<Result<Frame<Bytes>, hyper::Error>>;

/// A request as it reached containerd.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) uri: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What the fake has seen, and the strings that a test pulls.
#[derive(Default)]
pub(super) struct State {
    /// Calls that arrived.
    pub(super) calls: AtomicUsize,
    /// Calls whose body arrived whole.
    pub(super) seen: Mutex<Vec<Seen>>,
    /// A call or its answer was dropped before its end.
    pub(super) cancelled: Notify,
    /// Sends messages of GetContainerEvents.
    pub(super) events: Mutex<Option<Sender>>,
}

struct OnDrop(Arc<State>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.cancelled.notify_one();
    }
}

pub(super) struct Containerd {
    pub(super) state: Arc<State>,
    task: JoinHandle<()>,
}

impl Containerd {
    /// Listens on `path`, replacing what is there.
    pub(super) fn start(path: &Path) -> Self {
        Self::resume(path, Arc::default())
    }

    pub(super) fn resume(path: &Path, state: Arc<State>) -> Self {
        drop(std::fs::remove_file(path));
        let listener = UnixListener::bind(path).unwrap();
        let task = tokio::spawn(serve(listener, Arc::clone(&state)));
        Self { state, task }
    }

    /// Ends the process: every connection breaks.
    pub(super) async fn kill(self) {
        self.task.abort();
        drop(self.task.await);
    }

    pub(super) fn calls(&self) -> usize {
        self.state.calls.load(Ordering::SeqCst)
    }

    pub(super) fn last(&self) -> Seen {
        self.state.seen.lock().unwrap().pop().unwrap()
    }
}

async fn serve(listener: UnixListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&state)));
            let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            server.auto_date_header(false).max_concurrent_streams(None);
            drop(server.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

/// `Status` fails, `StopContainer` is reset, `ExecSync` hangs, `GetContainerEvents` streams, the rest echo.
async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, h2::Error> {
    state.calls.fetch_add(1, Ordering::SeqCst);
    let (parts, body) = request.into_parts();
    match parts.uri.path().rsplit('/').next().unwrap() {
        "ExecSync" => {
            let _guard = OnDrop(Arc::clone(&state));
            std::future::pending::<()>().await;
        }
        "StopContainer" => return Err(h2::Reason::ENHANCE_YOUR_CALM.into()),
        "GetContainerEvents" => return Ok(events(&state)),
        "Status" => {
            let response = Response::builder().header("content-type", "application/grpc").header("grpc-status", "9");
            let response = response.header("grpc-message", "not%0Aready").header("grpc-status-details-bin", "CAUS");
            return Ok(response.body(BoxBody::new(http_body_util::Empty::new().map_err(|never| match never {}))).unwrap());
        }
        _ => {}
    }
    let body = body.collect().await.unwrap().to_bytes();
    state.seen.lock().unwrap().push(Seen { uri: parts.uri.to_string(), headers: parts.headers, body: body.clone() });
    let trailers = HeaderMap::from_iter([
        ("grpc-status".parse().unwrap(), HeaderValue::from_static("0")),
        ("x-trailer-bin".parse().unwrap(), HeaderValue::from_static("AAEC")),
    ]);
    let body = Full::new(body).map_err(|never| match never {}).with_trailers(async move { Some(Ok(trailers)) });
    let response = Response::builder().header("content-type", "application/grpc").header("x-header", "kept");
    Ok(response.body(BoxBody::new(body)).unwrap())
}

fn events(state: &Arc<State>) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(4);
    let closed = sender.clone();
    *state.events.lock().unwrap() = Some(sender);
    let state = Arc::clone(state);
    tokio::spawn(async move {
        closed.closed().await;
        state.cancelled.notify_one();
    });
    let body = BoxBody::new(StreamBody::new(ReceiverStream::new(receiver)));
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

/// An answer as the caller got it.
#[derive(Debug, PartialEq)]
pub(super) struct Got {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) trailers: Option<HeaderMap>,
}

impl Got {
    /// The status, of the trailers or of a trailers-only answer.
    pub(super) fn status(&self) -> (&str, &str) {
        let status = self.trailers.as_ref().unwrap_or(&self.headers);
        (status["grpc-status"].to_str().unwrap(), status.get("grpc-message").map_or("", |text| text.to_str().unwrap()))
    }
}

/// A caller, as kubelet is one.
pub(super) struct Caller(pub(super) SendRequest<Body>);

impl Caller {
    pub(super) async fn connect(path: &PathBuf) -> Self {
        let stream = UnixStream::connect(path).await.unwrap();
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
        self.0.clone().send_request(request).await
    }

    pub(super) async fn got(&self, request: Request<Body>) -> Got {
        let (parts, body) = self.send(request).await.unwrap().into_parts();
        assert_eq!(parts.status, 200);
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned();
        Got { headers: parts.headers, body: body.to_bytes(), trailers }
    }

    pub(super) async fn call(&self, path: &str, message: &[u8]) -> Got {
        self.got(request(path, framed(message).unwrap())).await
    }
}

/// A request with the headers of kubelet 1.36.
pub(super) fn request(path: &str, body: Bytes) -> Request<Body> {
    Request::builder()
        .method("POST")
        .uri(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("user-agent", "grpc-go/1.81.1")
        .header("te", "trailers")
        .header("grpc-timeout", "119999m")
        .header("grpc-accept-encoding", "gzip")
        .body(BoxBody::new(Full::new(body).map_err(|never| match never {})))
        .unwrap()
}
