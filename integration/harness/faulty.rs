//! A server that fails on request, for what the real ones cannot be made to do: it stands before a real one, passes
//! requests on, and answers those that a test has named with garbage, silence or whatever else was asked for.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::Must;
use super::process::Port;
use super::tls::{Ca, ServerCertificate, acceptor};

/// One block of a body that never ends; at full speed, so that whoever reads it all runs out of memory at once.
const ENDLESS_BLOCK: &[u8] = &[b' '; 64 * 1024];
/// Pause between the bytes of an answer that trickles: far below any time-out between two reads.
const TRICKLE: Duration = Duration::from_millis(200);
/// The headers of an answer that belong to it, not to its connection.
const KEPT_HEADERS: [&str; 4] = ["content-type", "docker-content-digest", "www-authenticate", "docker-distribution-api-version"];

/// How a request is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// As the real server answers it.
    Relay,
    /// The same, some time later.
    Later(Duration),
    /// As the real server answers another path.
    Instead(String),
    /// The next of these each time.
    InTurn(Vec<Answer>),
    /// With this status, body and one header.
    Fixed(u16, Vec<u8>, Option<(&'static str, String)>),
    /// The request is read and never answered.
    Silence,
    /// 200 and a body without an end.
    Endless,
    /// 200 and a body that comes a byte at a time and never ends.
    Trickle,
    /// The connection is closed in the middle of the body.
    Cut,
    /// Bytes that are not HTTP. It holds for every path, from the next connection on.
    NotHttp,
}

impl Answer {
    /// 200 with these bytes.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::Fixed(200, body.into(), None)
    }

    /// This status with an empty body.
    pub const fn status(status: u16) -> Self {
        Self::Fixed(status, Vec::new(), None)
    }

    /// 200 with a page of HTML, as captive portals and misconfigured proxies send it.
    pub fn html() -> Self {
        Self::Fixed(200, b"<!DOCTYPE html><title>Sign in</title>".to_vec(), Some(("content-type", "text/html".to_owned())))
    }

    /// 307 to the same path elsewhere.
    pub fn redirect(to: &str) -> Self {
        Self::Fixed(307, Vec::new(), Some(("location", to.to_owned())))
    }

    /// 401 with this challenge.
    pub fn challenge(challenge: &str) -> Self {
        Self::Fixed(401, Vec::new(), Some(("www-authenticate", challenge.to_owned())))
    }
}

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `METHOD path`, with the query.
    pub request: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
}

/// A running server.
#[derive(Debug)]
pub struct FaultyServer {
    port: Port,
    scheme: &'static str,
    state: Arc<State>,
    acceptor: Option<TlsAcceptorOf>,
    running: Option<Running>,
}

/// `TlsAcceptor` shows nothing of itself.
#[derive(Clone)]
struct TlsAcceptorOf(TlsAcceptor);

impl std::fmt::Debug for TlsAcceptorOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAcceptor")
    }
}

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    /// Scheme, host and port of the real server.
    real: String,
    client: reqwest::Client,
    rules: Mutex<Vec<(String, Answer)>>,
    turns: Mutex<HashMap<String, usize>>,
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<usize>,
}

impl FaultyServer {
    /// Starts it with TLS, with a certificate of `ca`, before the real server at `real`. It relays until it is told otherwise.
    pub async fn before(real: &str, ca: &Ca) -> Self {
        Self::with_certificate(real, ca, &ca.server("faulty-server")).await
    }

    /// The same with another certificate, which need not be any of `ca`'s.
    pub async fn with_certificate(real: &str, ca: &Ca, certificate: &ServerCertificate) -> Self {
        Self::launch(real, ca, Some(TlsAcceptorOf(acceptor(certificate)))).await
    }

    /// The same on plain http: before a registry that containerd asks.
    pub async fn plain_before(real: &str, ca: &Ca) -> Self {
        Self::launch(real, ca, None).await
    }

    async fn launch(real: &str, ca: &Ca, acceptor: Option<TlsAcceptorOf>) -> Self {
        let state = Arc::new(State {
            real: real.to_owned(),
            client: ca.client(),
            rules: Mutex::default(),
            turns: Mutex::default(),
            seen: Mutex::default(),
            connections: Mutex::default(),
        });
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let mut server = Self { port: Port::free(), scheme, state, acceptor, running: None };
        server.start().await;
        server
    }

    /// Starts it again after [`FaultyServer::stop`], on the same port.
    pub async fn start(&mut self) {
        self.stop();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let (number, state, acceptor) = (self.port.number(), Arc::clone(&self.state), self.acceptor.clone());
        // A thread of its own, so that it answers also while the test's thread is busy.
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().must("making a runtime");
            runtime.block_on(async {
                let listener = listen(number);
                let _ = ready.send(());
                tokio::select! { () = serve(listener, acceptor, state) => {} , _ = stopped => {} }
            });
        });
        self.running = Some(Running { stop, thread });
        is_ready.await.must("starting a faulty server");
    }

    /// Closes its port and all connections: from now on connections are refused.
    pub fn stop(&mut self) {
        let Some(Running { stop, thread }) = self.running.take() else { return };
        drop(stop);
        let _ = thread.join();
    }

    /// Scheme, host and port.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.host())
    }

    /// Host and port.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Answers requests whose path contains `part` in this way from now on; `""` is every path. A rule that is made later
    /// comes first, and one for the same part is replaced.
    pub fn answer(&self, part: &str, answer: Answer) {
        let mut rules = self.state.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.retain(|(known, _)| known != part);
        rules.insert(0, (part.to_owned(), answer));
    }

    /// Relays everything again.
    pub fn mend(&self) {
        self.state.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The requests so far, oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many requests so far have `part` in their line.
    pub fn count(&self, part: &str) -> usize {
        self.seen().iter().filter(|seen| seen.request.contains(part)).count()
    }

    /// TCP connections so far, whatever was sent on them.
    pub fn connections(&self) -> usize {
        *self.state.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FaultyServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn listen(port: u16) -> TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().must("making a socket");
    socket.set_reuseaddr(true).must("setting SO_REUSEADDR");
    socket.bind((Ipv4Addr::LOCALHOST, port).into()).must("binding a faulty server's port");
    socket.listen(1024).must("listening on a faulty server's port")
}

async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptorOf>, state: Arc<State>) {
    while let Ok((connection, _)) = listener.accept().await {
        *state.connections.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        tokio::spawn(connected(connection, acceptor.clone(), Arc::clone(&state)));
    }
}

async fn connected(connection: TcpStream, acceptor: Option<TlsAcceptorOf>, state: Arc<State>) {
    match acceptor {
        None => converse(connection, state).await,
        Some(TlsAcceptorOf(acceptor)) => {
            if let Ok(stream) = acceptor.accept(connection).await {
                converse(stream, state).await;
            }
        }
    }
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, state: Arc<State>) {
    if state.rules.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|(_, answer)| matches!(answer, Answer::NotHttp)) {
        // Not before the request is there: an answer to nothing is another fault.
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
        let _ = stream.shutdown().await;
        return;
    }
    let service = hyper::service::service_fn(move |request| answered(request, Arc::clone(&state)));
    // Each answer ends its connection, so that no fault meets a connection from before it was asked for. An error is
    // what the test asked for.
    let _ = hyper::server::conn::http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

async fn answered(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, Infallible> {
    let (request, _) = request.into_parts();
    let path = request.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let authorization = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let line = format!("{} {path}", request.method);
    state.seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { request: line, authorization });
    let answer = state.chosen(&path);
    Ok(match answer {
        Answer::Relay | Answer::InTurn(_) => state.relayed(&request, &path).await,
        Answer::Later(wait) => {
            tokio::time::sleep(wait).await;
            state.relayed(&request, &path).await
        }
        Answer::Instead(other) => state.relayed(&request, &other).await,
        Answer::Fixed(status, body, header) => fixed(status, body, header),
        Answer::Silence | Answer::NotHttp => std::future::pending().await,
        Answer::Endless => streamed(stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(ENDLESS_BLOCK))))),
        Answer::Trickle => streamed(stream::unfold((), |()| async {
            tokio::time::sleep(TRICKLE).await;
            Some((Ok(Frame::data(Bytes::from_static(b" "))), ()))
        })),
        Answer::Cut => streamed(stream::iter([Ok(Frame::data(Bytes::from_static(b"{\"signed\":"))), Err(std::io::Error::other("cut"))])),
    })
}

impl State {
    fn chosen(&self, path: &str) -> Answer {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((part, answer)) = rules.iter().find(|(part, _)| path.contains(part.as_str())) else { return Answer::Relay };
        let Answer::InTurn(answers) = answer else { return answer.clone() };
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = turns.entry(part.clone()).or_default();
        *turn += 1;
        answers[(*turn - 1) % answers.len()].clone()
    }

    async fn relayed(&self, request: &Parts, path: &str) -> Response<Body> {
        let mut headers = HeaderMap::new();
        for name in [ACCEPT, AUTHORIZATION] {
            headers.extend(request.headers.get_all(&name).iter().map(|value| (name.clone(), value.clone())));
        }
        let asked = self.client.request(request.method.clone(), format!("{}{path}", self.real)).headers(headers);
        let Ok(answer) = asked.send().await else { return fixed(502, Vec::new(), None) };
        let mut response = Response::new(());
        *response.status_mut() = answer.status();
        for name in KEPT_HEADERS {
            let name = HeaderName::from_static(name);
            response.headers_mut().extend(answer.headers().get_all(&name).iter().map(|value| (name.clone(), value.clone())));
        }
        // A HEAD's length is told in the header alone.
        if request.method == hyper::Method::HEAD
            && let Some(length) = answer.headers().get(hyper::header::CONTENT_LENGTH)
        {
            response.headers_mut().insert(hyper::header::CONTENT_LENGTH, length.clone());
        }
        let body = answer.bytes().await.unwrap_or_default();
        response.map(|()| full(body))
    }
}

fn fixed(status: u16, body: Vec<u8>, header: Option<(&'static str, String)>) -> Response<Body> {
    let mut response = Response::new(full(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).must("naming a status");
    if let Some((name, value)) = header {
        response.headers_mut().insert(name, value.parse().must("making a header"));
    }
    response
}

fn full(body: Bytes) -> Body {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

fn streamed(frames: impl stream::Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send + 'static) -> Response<Body> {
    Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
}
