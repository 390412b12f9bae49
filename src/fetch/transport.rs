//! One request and one answer: the HTTP client, counted bodies, and what each failure means.

use std::error::Error;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use countersign_trust::name::shown;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, LOCATION, TRANSFER_ENCODING};
use reqwest::{Certificate, Client, Request, Response, StatusCode, Version, redirect, tls};
use url::Url;

use super::error::{FetchError, Unreached};
use super::limits::{BODY_RESERVE_BYTES, ERROR_BODY_BYTES, Limits, MAX_HEADER_BYTES};
use super::server::TrustServer;
use crate::tls::{TlsFault, causes, error_in};

/// The HTTP client of one registration: it verifies servers with the registered CA bundle and with the system's roots.
///
/// The system's roots are read from disk when the bundle alone has not verified a server, since that takes longer
/// than a whole update of a repository; and once: a client that lives on does not see them change.
#[derive(Debug)]
pub(super) struct HttpClient {
    server: TrustServer,
    limits: Limits,
    /// None without a bundle.
    with_bundle: Option<Client>,
    with_all_roots: OnceLock<Client>,
    has_been_answered: AtomicBool,
    /// Whether the last answer came by HTTP/2.
    multiplexes: AtomicBool,
    is_near: AtomicBool,
}

/// What a client verifies servers with.
#[derive(Clone, Copy)]
enum Roots {
    Bundle,
    BundleAndSystem,
}

impl HttpClient {
    /// A client for `server`, under its CA bundle if it has one.
    pub(super) fn new(server: &TrustServer, limits: Limits) -> Result<Self, FetchError> {
        let with_bundle = server.ca_bundle().map(|_| built(server, &limits, Roots::Bundle)).transpose()?;
        let client = Self {
            server: server.clone(),
            limits,
            with_bundle,
            with_all_roots: OnceLock::new(),
            has_been_answered: AtomicBool::new(false),
            multiplexes: AtomicBool::new(false),
            is_near: AtomicBool::new(false),
        };
        if client.with_bundle.is_none() {
            client.with_all_roots()?;
        }
        Ok(client)
    }

    /// Whether any request was ever answered, so that there is probably an open connection.
    pub(super) fn has_been_answered(&self) -> bool {
        self.has_been_answered.load(Ordering::Relaxed)
    }

    /// Whether several questions take less time one after the other on one connection than each on its own: the server is near,
    /// so that an answer comes sooner than a handshake ends, and does not take several at once (HTTP/1.1).
    pub(super) fn is_better_asked_in_turn(&self) -> bool {
        self.is_near.load(Ordering::Relaxed) && !self.multiplexes.load(Ordering::Relaxed)
    }

    /// Keeps in mind whether the first question of a conversation was answered quickly.
    pub(super) fn found_near(&self, is_near: bool) {
        self.is_near.store(is_near, Ordering::Relaxed);
    }

    /// Sends a request to `origin`. The body must not be a stream.
    pub(super) async fn send(&self, origin: &str, request: Request) -> Result<Response, FetchError> {
        let response = self.answer(origin, request).await?;
        self.has_been_answered.store(true, Ordering::Relaxed);
        self.multiplexes.store(response.version() == Version::HTTP_2, Ordering::Relaxed);
        Ok(response)
    }

    async fn answer(&self, origin: &str, request: Request) -> Result<Response, FetchError> {
        let failed = |error| failure(origin, error);
        let (Some(with_bundle), None) = (&self.with_bundle, self.with_all_roots.get()) else {
            return exchange(self.with_all_roots()?, request).await.map_err(failed);
        };
        // Nothing of a request leaves before its server is verified, so that this one can be sent anew.
        let again = request.try_clone();
        match (exchange(with_bundle, request).await, again) {
            (Err(error), Some(again)) if error_in(&error).is_some() => exchange(self.with_all_roots()?, again).await.map_err(failed),
            (answer, _) => answer.map_err(failed),
        }
    }

    fn with_all_roots(&self) -> Result<&Client, FetchError> {
        if let Some(client) = self.with_all_roots.get() {
            return Ok(client);
        }
        let client = built(&self.server, &self.limits, Roots::BundleAndSystem)?;
        Ok(self.with_all_roots.get_or_init(|| client))
    }
}

/// Sends a request. A connection that was kept open may be closed just when it is used again, which says nothing of the
/// server; so what only reads is sent once more (RFC 9110, 9.2.2).
async fn exchange(client: &Client, request: Request) -> reqwest::Result<Response> {
    let again = request.try_clone().filter(|again| again.method().is_safe());
    match (client.execute(request).await, again) {
        (Err(error), Some(again)) if is_cut_off(&error) => {
            tracing::debug!(?error, "the connection ended before the answer; asking once more");
            client.execute(again).await
        }
        (answer, _) => answer,
    }
}

/// Whether the connection was there, and ended before an answer came.
fn is_cut_off(error: &reqwest::Error) -> bool {
    !error.is_timeout() && !error.is_connect() && error_in(error).is_none() && is_network(error)
}

fn built(server: &TrustServer, limits: &Limits, roots: Roots) -> Result<Client, FetchError> {
    let bundle = server.ca_bundle().into_iter().flat_map(|bundle| bundle.certificates());
    let certificates: Result<Vec<_>, _> = bundle.map(Certificate::from_der).collect();
    let built = certificates.and_then(|certificates| {
        #[allow(clippy::disallowed_methods, reason = "this is where clients are made")]
        let builder = Client::builder();
        let builder = match roots {
            Roots::Bundle => builder.tls_certs_only(certificates),
            Roots::BundleAndSystem => builder.tls_certs_merge(certificates),
        };
        builder
            .tls_version_min(tls::Version::TLS_1_2)
            .https_only(true)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits.connect_deadline)
            .timeout(limits.request_deadline)
            .pool_max_idle_per_host(limits.idle_connections)
            .pool_idle_timeout(limits.idle_time)
            .build()
    });
    built.map_err(|error| {
        tracing::debug!(server = server.origin(), ?error, "no HTTP client");
        FetchError::NoRoots { server: server.origin() }
    })
}

/// What a request that got no whole answer means.
pub(super) fn failure(server: &str, error: reqwest::Error) -> FetchError {
    let error = error.without_url();
    tracing::debug!(server, ?error, "no answer");
    let server = server.to_owned();
    if let Some(fault) = error_in(&error).map(TlsFault::of) {
        return FetchError::Tls { server, fault };
    }
    if error.is_timeout() || has_io_error(&error, |kind| kind == io::ErrorKind::TimedOut) {
        return FetchError::Timeout { server };
    }
    if error.is_dns() {
        return FetchError::Unreachable { server, why: Unreached::Name };
    }
    if error.is_connect() {
        return FetchError::Unreachable { server, why: Unreached::Connect };
    }
    if is_network(&error) { FetchError::Interrupted { server } } else { FetchError::Protocol { server } }
}

/// Whether the network ended the exchange. hyper reports what is not HTTP, bad chunks too, as a parse error or as data that is invalid.
fn is_network(error: &reqwest::Error) -> bool {
    let is_invalid = |kind| matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput);
    let mut hyper_errors = causes(error).filter_map(<dyn Error>::downcast_ref::<hyper::Error>);
    let is_cut = hyper_errors.any(|error| error.is_incomplete_message() || error.is_canceled() || error.is_closed());
    is_cut || has_io_error(error, |kind| !is_invalid(kind)) || causes(error).find_map(<dyn Error>::downcast_ref).is_some_and(is_given_up)
}

/// Whether the server, or who stands before it, gave up an exchange of HTTP/2 without saying that something is wrong with it.
fn is_given_up(error: &h2::Error) -> bool {
    let reasons =
        [h2::Reason::NO_ERROR, h2::Reason::INTERNAL_ERROR, h2::Reason::REFUSED_STREAM, h2::Reason::CANCEL, h2::Reason::ENHANCE_YOUR_CALM];
    error.is_io() || error.is_remote() && error.reason().is_some_and(|reason| reasons.contains(&reason))
}

fn has_io_error(error: &reqwest::Error, is_meant: impl Fn(io::ErrorKind) -> bool) -> bool {
    // The innermost one tells: hyper-rustls wraps others as `Other`.
    let innermost = causes(error).filter_map(<dyn Error>::downcast_ref::<io::Error>).last();
    innermost.is_some_and(|error| is_meant(error.kind()))
}

/// What an answer means that carries neither a file nor "not found". `None` for a status that has no meaning of its own.
pub(super) fn refusal(server: &str, base: &Url, status: StatusCode, headers: &HeaderMap) -> Option<FetchError> {
    let server = server.to_owned();
    match status {
        StatusCode::UNAUTHORIZED => Some(FetchError::Unauthorized { server }),
        StatusCode::FORBIDDEN => Some(FetchError::Forbidden { server }),
        StatusCode::TOO_MANY_REQUESTS => Some(FetchError::Busy { server, status: status.as_u16() }),
        _ if status.is_server_error() => Some(FetchError::Busy { server, status: status.as_u16() }),
        _ if status.is_redirection() => Some(FetchError::Redirect { server, status: status.as_u16(), to: redirect_target(base, headers) }),
        _ => None,
    }
}

fn redirect_target(base: &Url, headers: &HeaderMap) -> String {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let target = location.and_then(|location| base.join(location).ok());
    target.as_ref().and_then(Url::host_str).map_or_else(|| "an unnamed place".to_owned(), shown)
}

/// The encoding of a body that is not the file itself.
pub(super) fn foreign_encoding(headers: &HeaderMap) -> Option<String> {
    let content = headers.get_all(CONTENT_ENCODING).iter().find(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    let transfer = headers.get_all(TRANSFER_ENCODING).iter().find(|value| !value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    content.or(transfer).map(|value| shown(&String::from_utf8_lossy(value.as_bytes())))
}

/// What reading a body gave.
pub(super) enum Body {
    /// All of it.
    Whole(Vec<u8>),
    /// More than was allowed; the rest was not read.
    TooLarge,
}

/// Reads a body of at most `limit` bytes, counting them as they come.
pub(super) async fn read_body(server: &str, mut response: Response, limit: u64) -> Result<Body, FetchError> {
    let claimed = response.content_length().unwrap_or(0);
    if claimed > limit {
        return Ok(Body::TooLarge);
    }
    let mut body = Vec::with_capacity(usize::try_from(claimed).unwrap_or(BODY_RESERVE_BYTES).min(BODY_RESERVE_BYTES));
    while let Some(chunk) = response.chunk().await.map_err(|error| failure(server, error))? {
        if (body.len() as u64).saturating_add(chunk.len() as u64) > limit {
            return Ok(Body::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Body::Whole(body))
}

/// The beginning of an error's body. Reading a short one to its end also keeps the connection usable.
pub(super) async fn read_excerpt(mut response: Response) -> Vec<u8> {
    let mut excerpt = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = ERROR_BODY_BYTES.saturating_sub(excerpt.len());
        excerpt.extend(chunk.iter().take(room));
        if excerpt.len() >= ERROR_BODY_BYTES {
            break;
        }
    }
    excerpt
}
