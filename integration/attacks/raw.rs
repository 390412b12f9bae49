//! A client that sends any bytes at all over HTTP/2, for what no CRI client sends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::encoding::encode_varint;
use tokio::net::UnixStream;

/// No answer may take longer: the gate waits 10 s for a request that does not arrive.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// Sends to one socket, each request on a connection of its own.
pub(super) struct Raw {
    socket: PathBuf,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    /// `grpc-status`, wherever it stood.
    pub(super) status: Option<u32>,
    /// `grpc-message`, encoded as it came.
    pub(super) text: String,
}

impl Raw {
    pub(super) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// A POST of these bytes, which are not framed.
    pub(super) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(Method::POST, path, &[("content-type", "application/grpc")], body).await
    }

    /// Any request.
    pub(super) async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = method;
        *request.uri_mut() = format!("http://localhost{path}").parse().unwrap();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
        }
        let answer = tokio::time::timeout(ANSWERS_WITHIN, async {
            let response = sender.send_request(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let trailers = body.collect().await.ok().and_then(|collected| collected.trailers().cloned());
            read(&parts.headers).or_else(|| trailers.as_ref().and_then(read)).unwrap_or(Answer { status: None, text: String::new() })
        });
        let answer = answer.await.unwrap();
        driver.abort();
        answer
    }
}

fn read(headers: &HeaderMap) -> Option<Answer> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let status = text("grpc-status")?.parse().ok();
    Some(Answer { status, text: text("grpc-message").unwrap_or_default() })
}

/// One gRPC frame.
pub(super) fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// A field of bytes, with any number, also one that protobuf does not allow.
pub(super) fn field(number: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_varint(number << 3 | 2, &mut bytes);
    encode_varint(content.len() as u64, &mut bytes);
    [&bytes, content].concat()
}
