//! The real daemon before a containerd of a few lines, which does what a test says.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that a caller takes before it has read them: so little that what it does not read stays in the gate.
const WINDOW: u32 = 64 * 1024;

/// A digest that is listed for `team/listed`, so that no trust server is asked for it.
pub(crate) const LISTED: &str = "sha256:abababababababababababababababababababababababababababababababab";

/// What the containerd does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// An empty message.
    Nothing,
    /// A message of so many bytes.
    Long(usize),
    /// A message that is no protobuf.
    NoProtobuf,
    /// A page of HTML.
    Html,
    /// One message after the other, without an end.
    Endless,
    /// The half of a message, and then the stream is reset.
    Cut,
    /// No answer.
    Silence,
    /// gRPC's code NOT_FOUND.
    NotFound,
}

/// How each method is answered, by its last name; how often each was called.
#[derive(Debug, Default)]
struct Script {
    answers: HashMap<&'static str, Answer>,
    calls: HashMap<String, usize>,
}

pub(crate) struct Node {
    _directory: tempfile::TempDir,
    pub(crate) socket: PathBuf,
    pub(crate) image: String,
    script: Arc<Mutex<Script>>,
    daemon: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

impl Node {
    /// A daemon that enforces, and whose trust server takes connections and says nothing.
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        containerd(&directory.path().join("containerd.sock"), &script);
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let host = silent.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = silent.accept().await {
                open.push(stream);
            }
        });
        let file = directory.path().join("countersign.toml");
        fs::write(&file, configuration(directory.path(), &host)).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        let daemon =
            command.arg("serve").arg("--config").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let socket = directory.path().join("gate/cri.sock");
        let node = Self { image: format!("{host}/team/app:1"), _directory: directory, socket, script, daemon };
        soon(async {
            while UnixStream::connect(&node.socket).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        node.serves().await;
        node
    }

    pub(crate) fn answer(&self, method: &'static str, answer: Answer) {
        self.script.lock().unwrap().answers.insert(method, answer);
    }

    pub(crate) fn calls(&self, method: &str) -> usize {
        self.script.lock().unwrap().calls.get(method).copied().unwrap_or_default()
    }

    pub(crate) async fn until_called(&self, method: &str, times: usize) {
        soon(async {
            while self.calls(method) < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// A caller that came just now is answered. As gRPC clients do, it connects again when its connection was closed.
    pub(crate) async fn serves(&self) {
        let answered = async {
            loop {
                let Ok(caller) = Caller::try_connect(&self.socket).await else { continue };
                if let Ok(response) = caller.begin("RuntimeService/Version", Bytes::new()).await {
                    return Got::of(response).await;
                }
            }
        };
        let version = soon(answered).await;
        assert_eq!(version.code, "0", "{version:?}");
    }

    /// The most memory that the daemon has had so far, in MiB.
    pub(crate) fn peak(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
    }
}

fn configuration(directory: &Path, host: &str) -> String {
    let path = |name: &str| directory.join(name).display().to_string();
    format!(
        "[listen]\ncri = '{}'\nadmin = '{}'\n[containerd]\naddress = '{}'\n[state]\ndirectory = '{}'\n\
         [content-trust]\nmode = 'enforced'\n[content-trust.trust-pinning]\nroot-keys = {{ '{host}/*' = ['{}'] }}\n\
         [[registries]]\nhost-address = '{host}'\nnotary-server = 'https://{host}'\n\
         [[rules]]\nimages = ['{host}/team/listed']\nallow-digests = ['{LISTED}']\n",
        path("gate/cri.sock"),
        path("gate/admin.sock"),
        path("containerd.sock"),
        path("state"),
        "ab".repeat(32),
    )
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it did not happen")
}

// === containerd ===

type Body = UnsyncBoxBody<Bytes, h2::Error>;

fn containerd(socket: &Path, script: &Arc<Mutex<Script>>) {
    let (listener, script) = (UnixListener::bind(socket).unwrap(), Arc::clone(script));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let script = Arc::clone(&script);
            let service = service_fn(move |request| answered(request, Arc::clone(&script)));
            tokio::spawn(async move {
                let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                server.max_concurrent_streams(None);
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
}

async fn answered(request: Request<Incoming>, script: Arc<Mutex<Script>>) -> Result<Response<Body>, Infallible> {
    let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
    drop(request.into_body().collect().await);
    let answer = {
        let mut script = script.lock().unwrap();
        *script.calls.entry(method.clone()).or_default() += 1;
        let default = if method == "Version" { Answer::Nothing } else { Answer::NotFound };
        script.answers.get(method.as_str()).copied().unwrap_or(default)
    };
    let grpc = Response::builder().header("content-type", "application/grpc");
    Ok(match answer {
        Answer::Nothing => grpc.body(message(vec![])).unwrap(),
        Answer::Long(bytes) => grpc.body(message([length(10, bytes), vec![0; bytes]].concat())).unwrap(),
        Answer::NoProtobuf => grpc.body(message(b"\xff\xff\xff\xff".to_vec())).unwrap(),
        Answer::Html => {
            Response::builder().header("content-type", "text/html").body(plain("<!DOCTYPE html><title>Sign in</title>")).unwrap()
        }
        Answer::Endless => {
            let block = Bytes::from(framed(&vec![0; 64 * 1024]));
            grpc.body(streamed(stream::repeat_with(move || Ok(Frame::data(block.clone()))))).unwrap()
        }
        Answer::Cut => {
            let half = Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\x09\x0a\x07half")));
            grpc.body(streamed(stream::iter([half, Err(h2::Reason::INTERNAL_ERROR.into())]))).unwrap()
        }
        Answer::Silence => std::future::pending().await,
        Answer::NotFound => grpc.header("grpc-status", "5").header("grpc-message", "there is no such thing").body(plain("")).unwrap(),
    })
}

fn plain(text: &'static str) -> Body {
    UnsyncBoxBody::new(Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}))
}

fn streamed(frames: impl stream::Stream<Item = Result<Frame<Bytes>, h2::Error>> + Send + 'static) -> Body {
    UnsyncBoxBody::new(StreamBody::new(frames))
}

fn message(content: Vec<u8>) -> Body {
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
    let body = Full::new(Bytes::from(framed(&content))).map_err(|never| match never {});
    UnsyncBoxBody::new(body.with_trailers(async move { Some(Ok(trailers)) }))
}

// === Callers ===

/// The beginning of a field of bytes.
pub(crate) fn length(tag: u8, bytes: usize) -> Vec<u8> {
    let mut field = vec![tag];
    prost::encoding::encode_varint(bytes as u64, &mut field);
    field
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], u32::try_from(message.len()).unwrap().to_be_bytes().as_slice(), message].concat()
}

/// What a caller got.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) code: String,
    pub(crate) text: String,
}

impl Got {
    async fn of(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned();
        let status = trailers.unwrap_or(parts.headers);
        let text = |name: &str| status.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        Self { code: text("grpc-status"), text: text("grpc-message") }
    }
}

/// A connection to the gate.
#[derive(Clone)]
pub(crate) struct Caller(SendRequest<Full<Bytes>>);

impl Caller {
    pub(crate) async fn connect(socket: &Path) -> Self {
        Self::try_connect(socket).await.unwrap()
    }

    async fn try_connect(socket: &Path) -> Result<Self, hyper::Error> {
        let stream = soon(UnixStream::connect(socket)).await.unwrap();
        let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        client.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
        let (sender, connection) = client.handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// The headers of the answer, whose body is not read.
    pub(crate) async fn begin(&self, method: &str, message: Bytes) -> Result<Response<Incoming>, hyper::Error> {
        let request = Request::post(format!("http://localhost/runtime.v1.{method}")).header("content-type", "application/grpc");
        let request = request.header("te", "trailers").body(Full::new(framed(&message).into())).unwrap();
        self.0.clone().send_request(request).await
    }

    pub(crate) async fn call(&self, method: &str, message: Bytes) -> Got {
        Got::of(self.begin(method, message).await.unwrap()).await
    }
}
