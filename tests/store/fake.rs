//! An etcd that answers what a test makes up: what no real one does.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use countersign::store::{EtcdSettings, EtcdStore};
use futures_util::StreamExt as _;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// What is answered to a question.
pub(crate) enum Answer {
    /// This message.
    Message(Vec<u8>),
    /// These, one after the other.
    Messages(Vec<Vec<u8>>),
    /// The beginning of a message of so many bytes, and then nothing.
    Claim(u32),
    /// Nothing.
    Silence,
    /// The end of the call, without an answer.
    Broken,
    /// An HTTP status, as of a server that is no etcd.
    Http(u16),
}

/// What a question is: its path, its message, and how many came before.
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) message: Vec<u8>,
    pub(crate) number: usize,
}

/// A store at a server that answers as `script` says, after it has shown the mark of the key space.
pub(crate) async fn store_at(script: impl Fn(Asked) -> Answer + Send + Sync + 'static) -> EtcdStore {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (script, count) = (Arc::new(script), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (script, count) = (Arc::clone(&script), Arc::clone(&count));
            let service = service_fn(move |request| answer(request, Arc::clone(&script), Arc::clone(&count)));
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    EtcdStore::new(&EtcdSettings { endpoints: vec![endpoint.parse().unwrap()], tls: None, login: None, cluster: "prod".into() })
}

type Body = BoxBody<Bytes, std::io::Error>;

async fn answer<S: Fn(Asked) -> Answer>(
    request: Request<Incoming>,
    script: Arc<S>,
    count: Arc<AtomicUsize>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    // A stream of requests has no end: its first frame is the question.
    let frame = request.into_body().frame().await;
    let sent = frame.and_then(Result::ok).and_then(|frame| frame.into_data().ok()).unwrap_or_default();
    let message = sent.get(5..).unwrap_or_default().to_vec();
    let number = count.fetch_add(1, Ordering::SeqCst);
    let answer = if number == 0 {
        Answer::Message(range(1, &[("/countersign/prod/format", 1, b"countersign store 1 prod")], false))
    } else {
        script(Asked { path, message, number: number - 1 })
    };
    Ok(response(answer))
}

fn response(answer: Answer) -> Response<Body> {
    let (status, frames, goes_on): (_, Vec<_>, _) = match answer {
        Answer::Message(message) => return response(Answer::Messages(vec![message])),
        Answer::Messages(messages) => {
            let data = messages.iter().map(|message| Ok(Frame::data(framed(message.len() as u32, message))));
            (200, data.chain([Ok(Frame::trailers(done()))]).collect(), false)
        }
        Answer::Claim(length) => (200, vec![Ok(Frame::data(framed(length, b"begin")))], true),
        Answer::Silence => (200, Vec::new(), true),
        Answer::Broken => (200, vec![Err(std::io::Error::other("broken"))], false),
        Answer::Http(status) => (status, Vec::new(), false),
    };
    let frames = futures_util::stream::iter(frames);
    let body = if goes_on {
        BodyExt::boxed(StreamBody::new(frames.chain(futures_util::stream::pending())))
    } else {
        BodyExt::boxed(StreamBody::new(frames))
    };
    Response::builder().status(status).header("content-type", "application/grpc").body(body).unwrap()
}

fn done() -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"))])
}

fn framed(length: u32, message: &[u8]) -> Bytes {
    [&[0][..], &length.to_be_bytes(), message].concat().into()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A field with a number.
pub(crate) fn number(field: u8, value: u64) -> Vec<u8> {
    [vec![field << 3], varint(value)].concat()
}

/// A field with bytes, or with another message.
pub(crate) fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    [vec![field << 3 | 2], varint(value.len() as u64), value.to_vec()].concat()
}

/// An entry of etcd's: key, revision, value.
pub(crate) fn key_value((key, revision, value): (&str, u64, &[u8])) -> Vec<u8> {
    [bytes(1, key.as_bytes()), number(3, revision), bytes(5, value)].concat()
}

/// An answer to `Range`.
pub(crate) fn range(revision: u64, found: &[(&str, u64, &[u8])], is_more: bool) -> Vec<u8> {
    let found = found.iter().flat_map(|entry| bytes(2, &key_value(*entry)));
    [bytes(1, &number(3, revision)), found.collect(), number(3, is_more.into())].concat()
}

/// A value as this program writes it.
pub(crate) fn sealed(payload: &[u8]) -> Vec<u8> {
    [&b"\xc5cs1"[..], &[7; 16], payload].concat()
}
