//! `/metrics` over HTTP/1.1, on loopback or on a unix socket. Whoever asks can read and do nothing else.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{CONTENT_TYPE, Metrics};
use crate::listen::{Inherited, ListenError, Listener};

/// Connections that are served at once. One collector asks every few seconds; the others wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 4;
/// A whole connection, from its acceptance to the last byte of the answer. Collectors give up after ten seconds by default.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);
/// The request's line and headers. Collectors send some two hundred bytes; hyper reads no smaller buffer than this.
const MOST_HEADER_BYTES: usize = 8 * 1024;
/// Headers of a request.
const MOST_HEADERS: usize = 32;
/// How long to wait after a connection could not be taken: it fails when file descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where figures are asked for.
#[derive(Debug)]
pub enum MetricsListener {
    /// A port of this machine, for everybody on it.
    Loopback(TcpListener),
    /// A socket that only its owner reaches.
    Unix(Listener),
}

impl MetricsListener {
    /// Listens on a port of loopback.
    ///
    /// # Errors
    /// What the system says; an address that others can reach is refused.
    pub async fn loopback(address: SocketAddr) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "others could reach this address"));
        }
        #[allow(clippy::disallowed_methods, reason = "the one TCP port, on loopback only, and only where the configuration asks for it")]
        let listener = TcpListener::bind(address).await?;
        Ok(Self::Loopback(listener))
    }

    /// Listens on a unix socket.
    ///
    /// # Errors
    /// As [`Listener::open`].
    pub async fn unix(path: &Path, inherited: &mut Inherited) -> Result<Self, ListenError> {
        Listener::open(path, inherited).await.map(Self::Unix)
    }
}

/// Serves figures until `shutdown` is ready.
pub async fn serve(listener: MetricsListener, metrics: Arc<Metrics>, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let taken = tokio::select! {
            taken = accept(&listener, &room) => taken,
            () = &mut shutdown => return,
        };
        let Some((connection, permit)) = taken else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            // One that is too slow is closed.
            let _ = tokio::time::timeout(CONNECTION_DEADLINE, answer_connection(connection, metrics)).await;
            drop(permit);
        });
    }
}

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

type Taken = (Box<dyn Connection>, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &MetricsListener, room: &Arc<Semaphore>) -> Option<Taken> {
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    let connection: Box<dyn Connection> = match listener {
        MetricsListener::Loopback(listener) => Box::new(listener.accept().await.ok()?.0),
        MetricsListener::Unix(listener) => Box::new(listener.accept().await),
    };
    Some((connection, permit))
}

async fn answer_connection(connection: Box<dyn Connection>, metrics: Arc<Metrics>) {
    let service = service_fn(move |request| answer(request, Arc::clone(&metrics)));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(CONNECTION_DEADLINE);
    server.max_buf_size(MOST_HEADER_BYTES).max_headers(MOST_HEADERS).keep_alive(false);
    // How a connection ends is of no interest to anybody here.
    let _ = server.serve_connection(TokioIo::new(connection), service).await;
}

/// The request's body is never read.
async fn answer(request: Request<Incoming>, metrics: Arc<Metrics>) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_known = request.uri().path() == "/metrics";
    let mut response = match (is_known, request.method() == Method::GET) {
        (false, _) => plain(StatusCode::NOT_FOUND, "ask for /metrics\n"),
        (true, false) => plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"),
        (true, true) => match tokio::task::spawn_blocking(move || metrics.text()).await {
            Ok(text) => Response::new(Full::from(text)),
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "a figure could not be had; see countersign's log\n"),
        },
    };
    let kind = if response.status() == StatusCode::OK { CONTENT_TYPE } else { "text/plain" };
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    Ok(response)
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    async fn serving() -> SocketAddr {
        let listener = MetricsListener::loopback("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let MetricsListener::Loopback(socket) = &listener else { unreachable!() };
        let address = socket.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::new(Metrics::new()), std::future::pending()));
        address
    }

    async fn asked(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn figures_are_given_to_whoever_asks_for_them_and_nothing_else_is() {
        let address = serving().await;
        let answer = asked(address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("# EOF\n"), "{answer}");
        assert!(answer.contains(&format!("content-type: {CONTENT_TYPE}\r\n")), "{answer}");
        for (request, status) in [
            ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), "404 Not Found"),
            ("GET /metrics/ HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), "404 Not Found"),
            ("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc".to_owned(), "405 Method Not Allowed"),
            (format!("GET /metrics HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(MOST_HEADERS + 1)), "431 Request Header Fields Too Large"),
            (format!("GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(2 * MOST_HEADER_BYTES)), "431 Request Header Fields Too Large"),
        ] {
            let answer = asked(address, &request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{status}: {answer}");
        }
    }

    #[tokio::test]
    async fn an_address_that_others_can_reach_is_refused() {
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
            let error = MetricsListener::loopback(address.parse().unwrap()).await.unwrap_err();
            assert_eq!(error.to_string(), "others could reach this address");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_sends_nothing_is_let_go_and_holds_up_nobody_for_longer() {
        let address = serving().await;
        let mut idle = Vec::new();
        for _ in 0..MOST_CONNECTIONS {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = asked(address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}
