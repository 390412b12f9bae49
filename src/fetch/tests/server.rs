//! A TLS server in this process that answers as a test says and remembers what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::fetch::server::CaBundle;

/// A certificate authority of one test.
pub(super) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub(super) bundle: CaBundle,
}

impl Authority {
    pub(super) fn new() -> Self {
        Self::named("countersign test authority")
    }

    pub(super) fn named(name: &str) -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), bundle: CaBundle::parse(&pem).unwrap() }
    }

    fn acceptor(&self, leaf: rcgen::CertificateParams) -> TlsAcceptor {
        self.acceptor_of(leaf, &[])
    }

    /// Offers these protocols inside of TLS.
    fn acceptor_of(&self, leaf: rcgen::CertificateParams, protocols: &[&[u8]]) -> TlsAcceptor {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = leaf.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// The certificate that a test's server normally has.
pub(super) fn leaf() -> rcgen::CertificateParams {
    rcgen::CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap()
}

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }
}

type AnyBody = BoxBody<Bytes, Infallible>;

/// What the server does about a request.
pub(super) enum Reply {
    Answer(Response<AnyBody>),
    Silence,
}

impl Reply {
    /// A body with its length.
    pub(super) fn sized(status: u16, body: impl Into<Bytes>) -> Self {
        Self::with(status, Full::new(body.into()).boxed())
    }

    /// A body in two chunks, without its length.
    pub(super) fn chunked(body: &[u8]) -> Self {
        let (left, right) = body.split_at(body.len() / 2);
        let chunks = [left, right].map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk))));
        Self::with(200, http_body_util::BodyExt::boxed(StreamBody::new(stream::iter(chunks))))
    }

    /// A body that never ends.
    pub(super) fn endless() -> Self {
        let chunks = stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b' '; 4096]))));
        Self::with(200, http_body_util::BodyExt::boxed(StreamBody::new(chunks)))
    }

    /// A body that begins and then stops coming, and never ends.
    pub(super) fn stalled() -> Self {
        let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"{")))]);
        Self::with(200, http_body_util::BodyExt::boxed(StreamBody::new(first.chain(stream::pending()))))
    }

    fn with(status: u16, body: AnyBody) -> Self {
        Self::Answer(Response::builder().status(status).body(body).unwrap())
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Answer(response) = &mut self {
            response.headers_mut().append(name, value.parse().unwrap());
        }
        self
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

/// What a server does after its answer.
#[derive(Clone, Copy)]
enum Then {
    Close,
    CloseAtTheNextRequest,
}

/// How a server of HTTP/2 ends each exchange.
#[derive(Clone, Copy)]
pub(super) enum Http2End {
    /// With a whole body.
    Body(&'static [u8]),
    /// Without an answer.
    Reset(h2::Reason),
    /// After a piece of the body.
    ResetAfter(&'static [u8], h2::Reason),
}

impl Http2End {
    fn answer(self, mut respond: h2::server::SendResponse<Bytes>) {
        let mut begin = || respond.send_response(Response::new(()), false).unwrap();
        match self {
            Self::Body(body) => begin().send_data(Bytes::from_static(body), true).unwrap(),
            Self::Reset(reason) => respond.send_reset(reason),
            Self::ResetAfter(body, reason) => {
                let mut stream = begin();
                stream.send_data(Bytes::from_static(body), false).unwrap();
                tokio::spawn(async move {
                    // The piece goes first.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    stream.send_reset(reason);
                });
            }
        }
    }
}

/// The server. It stops when it is dropped.
pub(super) struct TestServer {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl TestServer {
    pub(super) async fn start(authority: &Authority, handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_as(authority, leaf(), handler).await
    }

    pub(super) async fn start_as(
        authority: &Authority,
        leaf: rcgen::CertificateParams,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let acceptor = authority.acceptor(leaf);
        let handler: Arc<Handler> = Arc::new(handler);
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let log = Arc::clone(&seen);
        Self::listen(seen, move |tcp| {
            let (acceptor, handler, log) = (acceptor.clone(), Arc::clone(&handler), Arc::clone(&log));
            async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let service = service_fn(|request| respond(request, &handler, &log));
                let _closed = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
            }
        })
        .await
    }

    /// A server that writes `answer` after the first request of each connection, whatever that is, and closes.
    pub(super) async fn raw(authority: &Authority, answer: &'static [u8]) -> Self {
        Self::answering_once(authority, answer, Then::Close).await
    }

    /// A server that gives this answer once on each connection, and closes it when a second request comes: what happens when
    /// the closing of a kept-open connection crosses a request on the wire.
    pub(super) async fn once_a_connection(authority: &Authority, answer: &'static [u8]) -> Self {
        Self::answering_once(authority, answer, Then::CloseAtTheNextRequest).await
    }

    async fn answering_once(authority: &Authority, answer: &'static [u8], then: Then) -> Self {
        let acceptor = authority.acceptor(leaf());
        Self::listen(Arc::default(), move |tcp| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                read_head(&mut tls).await;
                tls.write_all(answer).await.unwrap();
                match then {
                    Then::Close => drop(tls.shutdown().await),
                    Then::CloseAtTheNextRequest => read_head(&mut tls).await,
                }
            }
        })
        .await
    }

    /// A server that speaks HTTP/2 alone.
    pub(super) async fn http2(authority: &Authority, end: Http2End) -> Self {
        let acceptor = authority.acceptor_of(leaf(), &[b"h2"]);
        Self::listen(Arc::default(), move |tcp| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let Ok(mut connection) = h2::server::handshake(tls).await else { return };
                while let Some(Ok((_, respond))) = connection.accept().await {
                    end.answer(respond);
                }
            }
        })
        .await
    }

    /// A server that does not speak TLS.
    pub(super) async fn plain(answer: &'static [u8]) -> Self {
        Self::listen(Arc::default(), move |mut tcp| async move {
            let _written = tcp.write_all(answer).await;
            let _rest = tcp.read_to_end(&mut Vec::new()).await;
        })
        .await
    }

    async fn listen<F>(seen: Arc<Mutex<Vec<Seen>>>, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(tcp));
            }
        });
        Self { address, seen, connections, accepting }
    }

    /// `https://<host>:<port>`.
    pub(super) fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.address.port())
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many connections were made, TLS or not.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn respond(request: Request<Incoming>, handler: &Arc<Handler>, log: &Mutex<Vec<Seen>>) -> Result<Response<AnyBody>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let seen = Seen {
        method: head.method.to_string(),
        target: head.uri.path_and_query().unwrap().to_string(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    log.lock().unwrap().push(seen.clone());
    match handler(&seen) {
        Reply::Answer(response) => Ok(response),
        Reply::Silence => std::future::pending().await,
    }
}

async fn read_head(tls: &mut TlsStream<TcpStream>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tls.read_u8().await.unwrap());
    }
}
