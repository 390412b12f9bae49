//! One HTTP/2 connection to one member of etcd.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tower::Service;
use url::{Host, Url};

use super::settings::StoreTls;
use super::status::Fault;
use super::tls::{self, HandshakeFault};
use super::witness::{Testimony, Witness};
use crate::store::error::{Outage, StoreError};
use crate::store::limits::{CONNECT_DEADLINE, PING_DEADLINE, PING_INTERVAL};

/// Bytes of one answer that may be under way: a page of short values in one go.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// Bytes of all answers of a connection that may be under way: a watch that is not read must not stop the calls beside it.
const CONNECTION_WINDOW: u32 = 32 * STREAM_WINDOW;
/// Bytes of an answer's headers. etcd sends a few hundred; errors stand there.
const HEADER_LIST: u32 = 64 * 1024;
/// How long is waited to hear why a connection has ended: the two are told one after the other, without the network.
const ENDED_WAIT: Duration = Duration::from_millis(200);

/// A member of etcd, as it was configured.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    host: Host<String>,
    port: u16,
    is_tls: bool,
    /// Scheme, host and port.
    pub(super) name: Arc<str>,
}

impl Endpoint {
    /// None for a URL without a host.
    pub(super) fn of(url: &Url) -> Option<Self> {
        let host = url.host()?.to_owned();
        let port = url.port_or_known_default()?;
        let name = format!("{}://{host}:{port}", url.scheme());
        Some(Self { host, port, is_tls: url.scheme() == "https", name: name.into() })
    }

    fn server_name(&self) -> Option<ServerName<'static>> {
        match &self.host {
            Host::Domain(name) => ServerName::try_from(name.clone()).ok(),
            Host::Ipv4(address) => Some(ServerName::IpAddress((*address).into())),
            Host::Ipv6(address) => Some(ServerName::IpAddress((*address).into())),
        }
    }

    async fn tcp(&self) -> Result<TcpStream, Fault> {
        let stream = match &self.host {
            Host::Domain(name) => {
                let looked_up = tokio::net::lookup_host((name.as_str(), self.port)).await;
                let addresses: Vec<_> = looked_up.map_err(|_| Fault::Outage(Outage::Name))?.collect();
                TcpStream::connect(&*addresses).await
            }
            Host::Ipv4(address) => TcpStream::connect((*address, self.port)).await,
            Host::Ipv6(address) => TcpStream::connect((*address, self.port)).await,
        };
        let stream = stream.map_err(|_| Fault::Outage(Outage::Connect))?;
        // Questions are short, and somebody waits for each.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    fn refused(&self, fault: HandshakeFault) -> Fault {
        let endpoint = self.name.to_string();
        Fault::Store(match fault {
            HandshakeFault::Server(fault) => StoreError::Tls { endpoint, fault },
            HandshakeFault::Client => StoreError::ClientCertificate { endpoint },
        })
    }

    /// What the end of a connection means, of which TLS may have said why.
    fn ended(&self, testimony: &Testimony) -> Fault {
        testimony.get().map_or(Fault::Outage(Outage::Interrupted), |fault| self.refused(*fault))
    }
}

/// A connection. Clones share it, and keep it open.
#[derive(Clone)]
pub(super) struct Connection {
    sender: SendRequest<Body>,
    /// Whether it was found to lead to the cluster that is meant.
    is_right: Arc<AtomicBool>,
    /// Why it has ended, once it has.
    ended: watch::Receiver<Option<Fault>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("is_closed", &self.sender.is_closed()).finish_non_exhaustive()
    }
}

impl Connection {
    /// Opens one, within its deadline.
    pub(super) async fn open(endpoint: &Endpoint, tls: Option<&StoreTls>) -> Result<Self, Fault> {
        let opened = async {
            let tcp = endpoint.tcp().await?;
            match (endpoint.is_tls, tls) {
                (false, _) => Self::handshake(endpoint, tcp).await,
                (true, tls) => Self::handshake(endpoint, Self::encrypted(endpoint, tls, tcp).await?).await,
            }
        };
        tokio::time::timeout(CONNECT_DEADLINE, opened).await.unwrap_or(Err(Fault::Outage(Outage::Timeout)))
    }

    async fn encrypted(
        endpoint: &Endpoint,
        tls: Option<&StoreTls>,
        tcp: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Fault> {
        let unknown = || endpoint.refused(HandshakeFault::Server(crate::tls::TlsFault::UnknownIssuer));
        let config = tls::config(tls.ok_or_else(unknown)?).await.map_err(Fault::Store)?;
        let name = endpoint.server_name().ok_or(Fault::Outage(Outage::Name))?;
        let connected = TlsConnector::from(config).connect(name, tcp).await;
        connected
            .map_err(|error: io::Error| tls::fault_in(&error).map_or(Fault::Outage(Outage::Interrupted), |fault| endpoint.refused(fault)))
    }

    async fn handshake(endpoint: &Endpoint, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self, Fault> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_DEADLINE)
            // etcd takes a client for a nuisance that asks for signs of life while nothing is awaited.
            .keep_alive_while_idle(false);
        let (io, testimony) = Witness::of(io);
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(|_| endpoint.ended(&testimony))?;
        let (tell, ended) = watch::channel(None);
        let endpoint = endpoint.clone();
        // Ends by itself when every sender is dropped and no stream is open.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(endpoint = &*endpoint.name, %error, "connection to the store ended");
            }
            tell.send_replace(Some(endpoint.ended(&testimony)));
        });
        Ok(Self { sender, is_right: Arc::default(), ended })
    }

    /// Whether it can still be used, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed() && self.ended.borrow().is_none()
    }

    /// Whether a member of the cluster that is meant has answered on it.
    pub(super) fn is_right(&self) -> bool {
        self.is_right.load(Ordering::Relaxed)
    }

    pub(super) fn was_right(&self) {
        self.is_right.store(true, Ordering::Relaxed);
    }

    /// Why it has ended, for a call that it took with it.
    pub(super) async fn why_ended(&self) -> Fault {
        let mut ended = self.ended.clone();
        let told = tokio::time::timeout(ENDED_WAIT, ended.wait_for(Option::is_some)).await;
        match told {
            Ok(Ok(why)) => why.clone().unwrap_or(Fault::Outage(Outage::Interrupted)),
            Ok(Err(_)) | Err(_) => Fault::Outage(Outage::Interrupted),
        }
    }
}

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}
