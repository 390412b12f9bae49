//! A read-only Notary server over TLS that serves prepared trees, honestly or not.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::forge::Sealed;
use crate::server::{Served, Tree};

type Body = BoxBody<Bytes, Infallible>;

/// Spaces are sent in pieces of this size.
const PIECE: usize = 1 << 16;

/// The server. It stops when it is dropped.
pub(crate) struct StaticServer {
    address: SocketAddr,
    shown: Arc<Mutex<Sealed>>,
    accepting: JoinHandle<()>,
}

impl Drop for StaticServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl StaticServer {
    pub(crate) async fn start(acceptor: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shown = Arc::new(Mutex::new(Sealed::default()));
        let tree = Arc::clone(&shown);
        let accepting = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, tree) = (acceptor.clone(), Arc::clone(&tree));
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(move |request| respond(request, Arc::clone(&tree)));
                    // A client that reads no further ends its connection.
                    drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await);
                });
            }
        });
        Self { address, shown, accepting }
    }

    /// `https://localhost:<port>`.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// What is served from now on, whatever repository is asked for.
    pub(crate) fn show(&self, sealed: &Sealed) {
        *self.shown.lock().unwrap() = sealed.clone();
    }
}

async fn respond(request: Request<Incoming>, shown: Arc<Mutex<Sealed>>) -> Result<Response<Body>, Infallible> {
    let accepts_gzip = request.headers().get("accept-encoding").is_some_and(|value| value.to_str().unwrap().contains("gzip"));
    let path = request.uri().path();
    let served = match path.split_once("/_trust/tuf/") {
        Some((_, name)) => Tree::new(&shown.lock().unwrap().files, "repo").served(name, name),
        // Clients ask first whether this is a server of trust data at all.
        None => Served { body: b"{}".to_vec(), ..Served::status(if path == "/v2/" { 200 } else { 404 }) },
    };
    Ok(response(served, accepts_gzip))
}

fn response(served: Served, accepts_gzip: bool) -> Response<Body> {
    let mut response = Response::builder().status(served.status);
    for (name, value) in &served.headers {
        response = response.header(name, value);
    }
    let mut body = served.body;
    if served.may_be_gzip && accepts_gzip {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&body).unwrap();
        body = encoder.finish().unwrap();
        response = response.header("content-encoding", "gzip");
    }
    if !served.is_chunked && served.status != 204 {
        response = response.header("content-length", body.len() as u64 + served.padding);
    }
    let padding = usize::try_from(served.padding).unwrap();
    let spaces = [vec![PIECE; padding / PIECE], vec![padding % PIECE]].concat();
    let spaces = stream::iter(spaces).map(|length| Bytes::from(vec![b' '; length]));
    let pieces = stream::iter([Bytes::from(body)]).chain(spaces).filter(|piece| std::future::ready(!piece.is_empty()));
    response.body(BodyExt::boxed(StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))))).unwrap()
}
