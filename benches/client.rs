//! The light client of the bench: gRPC over a bare HTTP/2 connection on one thread, so that what it costs itself does
//! not hide what is measured.

use std::future::poll_fn;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Request, Uri, header};
use prost::Message;
use tokio::net::UnixStream;

use crate::harness::Must as _;

/// Bytes of one answer that may be under way: more than the longest one that is measured.
const WINDOW: u32 = 1024 * 1024;
/// A flag byte and four bytes of length (gRPC over HTTP/2, "Requests").
const PREFIX: usize = 5;

/// A call that is made again and again.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    uri: Uri,
    frame: Bytes,
}

impl Call {
    /// A call of `method` (`RuntimeService/Version`) of CRI v1.
    pub(crate) fn new(method: &str, message: &impl Message) -> Self {
        let length = message.encoded_len();
        let mut frame = BytesMut::with_capacity(PREFIX + length);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(length).must("counting the bytes of a message"));
        message.encode(&mut frame).must("encoding a message");
        let uri = format!("http://localhost/runtime.v1.{method}").parse().must("naming a method");
        Self { uri, frame: frame.freeze() }
    }
}

/// One connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    sender: SendRequest<Bytes>,
}

impl Client {
    /// Connects to whoever listens on the socket. The connection ends with the last client.
    pub(crate) async fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).await.must(format_args!("connecting to {}", socket.display()));
        let mut builder = h2::client::Builder::new();
        builder.enable_push(false).initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
        let (sender, connection) = builder.handshake(stream).await.must("beginning HTTP/2");
        tokio::spawn(async move { drop(connection.await) });
        Self { sender }
    }

    /// Makes the call, and gives back the bytes of its answer's message.
    pub(crate) async fn call(&mut self, call: &Call) -> Bytes {
        let answer = self.ask(call).await;
        assert!(answer.is_ok(), "{} was answered with {:?}: {:?}", call.uri, answer.of("grpc-status"), answer.of("grpc-message"));
        answer.message.slice(PREFIX..)
    }

    async fn ask(&mut self, call: &Call) -> Answer {
        let mut request = Request::post(call.uri.clone()).version(http::Version::HTTP_2).body(()).must("making a request");
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
        poll_fn(|cx| self.sender.poll_ready(cx)).await.must("waiting for the connection");
        let (response, mut body) = self.sender.send_request(request, false).must("sending a request");
        body.send_data(call.frame.clone(), true).must("sending a message");
        let (parts, mut body) = response.await.must("waiting for an answer").into_parts();
        let mut message = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data.must("reading an answer");
            body.flow_control().release_capacity(data.len()).must("making room for more");
            message.extend_from_slice(&data);
        }
        let trailers = body.trailers().await.must("reading trailers").unwrap_or_default();
        Answer { headers: parts.headers, message: message.freeze(), trailers }
    }

    /// How long the call takes, from the first byte that is sent to the last that is read.
    pub(crate) async fn timed(&mut self, call: &Call) -> Duration {
        let began = Instant::now();
        self.call(call).await;
        began.elapsed()
    }

    /// How long a call takes that containerd refuses with these words.
    pub(crate) async fn timed_refused(&mut self, call: &Call, words: &str) -> Duration {
        let began = Instant::now();
        let answer = self.ask(call).await;
        let took = began.elapsed();
        let said = answer.of("grpc-message").map(|said| String::from_utf8_lossy(said.as_bytes()).into_owned()).unwrap_or_default();
        assert!(!answer.is_ok() && said.contains(words), "{} was answered with {said}", call.uri);
        took
    }
}

struct Answer {
    headers: HeaderMap,
    message: Bytes,
    trailers: HeaderMap,
}

impl Answer {
    fn of(&self, name: &str) -> Option<&HeaderValue> {
        self.trailers.get(name).or_else(|| self.headers.get(name))
    }

    fn is_ok(&self) -> bool {
        self.of("grpc-status").is_some_and(|status| status == "0")
    }
}
