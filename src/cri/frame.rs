//! gRPC framing of unary messages, with bounds.
//!
//! gRPC over HTTP/2, "Requests": a message is one byte of flag, four bytes of length (big endian) and the message.
//! A checked call has exactly one; whatever else stands in the body could be read by containerd and not by us.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt;

use super::budget::{Budget, LARGE_HELD, SMALL_HELD, Share};
use super::status::{Code, Status};

/// The longest message in either direction: containerd's and kubelet's own limit (16 MiB).
pub const LONGEST_MESSAGE: usize = 16 * 1024 * 1024;
/// A flag byte and four bytes of length.
const PREFIX: usize = 5;
/// How long a checked request may take to arrive. kubelet sends one in less than a millisecond; ten seconds are
/// for a node that swaps.
const ARRIVAL: Duration = Duration::from_secs(10);

pub(super) const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Why a body is not one message.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError<E> {
    #[error("the message is compressed with {encoding}, which countersign does not read; it never offers it")]
    Compressed { encoding: String },
    #[error("the message is marked as compressed, but no grpc-encoding is named")]
    CompressedWithoutEncoding,
    #[error("the message begins with the flag byte {flag}; gRPC knows 0 and 1")]
    Flag { flag: u8 },
    #[error("the message has {length} bytes; at most {LONGEST_MESSAGE} are read")]
    TooLong { length: usize },
    #[error("the message ends after {have} of {want} bytes")]
    Truncated { have: usize, want: usize },
    #[error("there is no message")]
    Absent,
    #[error("more bytes follow the message; this call takes exactly one message")]
    More,
    #[error("too much of other requests is held while their checks wait to take another {length} bytes; try again")]
    NoRoom { length: usize },
    #[error("the body could not be read")]
    Body(#[source] E),
}

impl<E> FrameError<E> {
    /// The code that tells the caller that its request is at fault.
    ///
    /// Compression is answered as grpc-go does: an encoding that is not known is UNIMPLEMENTED, the flag without an
    /// encoding INTERNAL. Everything else about the frame is INVALID_ARGUMENT.
    const fn code(&self) -> Code {
        match self {
            Self::Compressed { .. } => Code::Unimplemented,
            Self::CompressedWithoutEncoding => Code::Internal,
            Self::Flag { .. } | Self::TooLong { .. } | Self::Truncated { .. } | Self::Absent | Self::More => Code::InvalidArgument,
            // As grpc-go answers a message that is too long for it: kubelet tries again, and says so meanwhile.
            Self::NoRoom { .. } => Code::ResourceExhausted,
            Self::Body(_) => Code::Cancelled,
        }
    }
}

/// Collects checked requests within a bound of memory and time.
#[derive(Debug)]
pub(super) struct Collector {
    budget: Budget,
    arrival: Duration,
}

impl Collector {
    pub(super) fn new() -> Self {
        Self::with_bounds(Budget::new(SMALL_HELD, LARGE_HELD), ARRIVAL)
    }

    pub(super) const fn with_bounds(budget: Budget, arrival: Duration) -> Self {
        Self { budget, arrival }
    }

    /// Reads the one message of a checked request. What it takes of the budget is given back with the share.
    pub(super) async fn request<B>(&self, headers: &HeaderMap, body: B) -> Result<(Bytes, Share), Status>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let refused = |error: FrameError<B::Error>| Status::new(error.code(), format!("countersign refused the request: {error}"));
        let mut share = self.budget.enter(headers).ok_or_else(|| refused(FrameError::NoRoom { length: 0 }))?;
        let take = |length| self.budget.take(&mut share, length);
        match tokio::time::timeout(self.arrival, collected(headers, body, take)).await {
            Ok((message, _trailers)) => Ok((message.map_err(refused)?, share)),
            Err(_elapsed) => {
                let text = format!("countersign refused the request: it did not arrive within {} s", self.arrival.as_secs_f32());
                Err(Status::new(Code::DeadlineExceeded, text))
            }
        }
    }
}

/// Reads a body that should be one uncompressed message, and the trailers after it, which count whatever the
/// message is: an error comes after none.
pub(super) async fn one_message<B>(headers: &HeaderMap, body: B) -> (Result<Bytes, FrameError<B::Error>>, HeaderMap)
where
    B: Body<Data = Bytes> + Unpin,
{
    collected(headers, body, |_length| true).await
}

/// The same, if there is room for a message of the length that its first bytes say.
async fn collected<B>(
    headers: &HeaderMap,
    mut body: B,
    mut has_room: impl FnMut(usize) -> bool,
) -> (Result<Bytes, FrameError<B::Error>>, HeaderMap)
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut assembly = Assembly::default();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        let pushed = match frame.map_err(FrameError::Body).map(Frame::into_data) {
            Ok(Ok(data)) => assembly.push(headers, data, &mut has_room),
            Ok(Err(other)) => {
                trailers = other.into_trailers().unwrap_or_default();
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = pushed {
            return (Err(error), trailers);
        }
    }
    (assembly.finish(), trailers)
}

/// The bytes that came so far. A message that came in one piece is never copied.
#[derive(Default)]
struct Assembly {
    whole: Bytes,
    pieces: BytesMut,
    declared: Option<usize>,
}

impl Assembly {
    fn push<E>(&mut self, headers: &HeaderMap, data: Bytes, has_room: &mut impl FnMut(usize) -> bool) -> Result<(), FrameError<E>> {
        if self.held().is_empty() {
            self.whole = data;
        } else {
            if self.pieces.is_empty() {
                // As long as the message will be: a buffer that grows by doubling would take up to twice as much.
                let expected = self.declared.map_or(0, |length| PREFIX.saturating_add(length));
                self.pieces.reserve(expected.max(self.whole.len().saturating_add(data.len())));
                self.pieces.extend_from_slice(&std::mem::take(&mut self.whole));
            }
            self.pieces.extend_from_slice(&data);
        }
        if self.declared.is_none() {
            self.declared = declared_length(headers, self.held())?;
            if let Some(length) = self.declared.filter(|&length| !has_room(length)) {
                return Err(FrameError::NoRoom { length });
            }
        }
        match self.declared {
            Some(length) if self.held().len() > PREFIX + length => Err(FrameError::More),
            Some(_) | None => Ok(()),
        }
    }

    fn held(&self) -> &[u8] {
        if self.pieces.is_empty() { &self.whole } else { &self.pieces }
    }

    fn finish<E>(self) -> Result<Bytes, FrameError<E>> {
        let have = self.held().len();
        if have == 0 {
            return Err(FrameError::Absent);
        }
        let want = PREFIX + self.declared.unwrap_or(0);
        if have != want {
            return Err(FrameError::Truncated { have, want });
        }
        let held = if self.pieces.is_empty() { self.whole } else { self.pieces.freeze() };
        Ok(held.slice(PREFIX..))
    }
}

/// Reads the five bytes before a message, when they are there.
fn declared_length<E>(headers: &HeaderMap, held: &[u8]) -> Result<Option<usize>, FrameError<E>> {
    let Some(&flag) = held.first() else { return Ok(None) };
    match flag {
        0 => {}
        1 => return Err(compressed(headers)),
        flag => return Err(FrameError::Flag { flag }),
    }
    let Some(length) = held.get(1..PREFIX).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()) else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > LONGEST_MESSAGE {
        return Err(FrameError::TooLong { length });
    }
    Ok(Some(length))
}

fn compressed<E>(headers: &HeaderMap) -> FrameError<E> {
    match headers.get(GRPC_ENCODING).map(|value| value.to_str().unwrap_or("an unreadable encoding")) {
        None | Some("identity") => FrameError::CompressedWithoutEncoding,
        Some(encoding) => FrameError::Compressed { encoding: countersign_trust::name::shown(encoding) },
    }
}

/// Whether the one content type is gRPC with protobuf (gRPC over HTTP/2, "Content-Type").
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let essence = value.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
    matches!(essence, b"application/grpc" | b"application/grpc+proto")
}

/// Puts the five bytes before a message.
pub(super) fn framed(message: &[u8]) -> Result<Bytes, Status> {
    let length = u32::try_from(message.len()).ok().filter(|_| message.len() <= LONGEST_MESSAGE);
    let Some(length) = length else {
        let text = format!("countersign made a message of {} bytes; at most {LONGEST_MESSAGE} are sent", message.len());
        return Err(Status::new(Code::Internal, text));
    };
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    frame.put_u32(length);
    frame.put_slice(message);
    Ok(frame.freeze())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http::HeaderValue;
    use http_body_util::StreamBody;

    use super::super::budget::SMALL;
    use super::*;

    async fn read(headers: &HeaderMap, chunks: &[&[u8]]) -> Result<Bytes, Status> {
        let frames: Vec<_> = chunks.iter().map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(chunk)))).collect();
        Collector::new().request(headers, StreamBody::new(stream::iter(frames))).await.map(|(message, _share)| message)
    }

    async fn refusal(chunks: &[&[u8]]) -> (Code, String) {
        let status = read(&HeaderMap::new(), chunks).await.unwrap_err();
        (status.code(), status.message().to_owned())
    }

    #[tokio::test]
    async fn a_message_is_the_same_in_one_piece_and_byte_by_byte() {
        let frame = framed(b"hello").unwrap();
        let pieces: Vec<&[u8]> = frame.chunks(1).collect();
        assert_eq!(read(&HeaderMap::new(), &[&frame]).await.unwrap(), "hello");
        assert_eq!(read(&HeaderMap::new(), &pieces).await.unwrap(), "hello");
        assert_eq!(read(&HeaderMap::new(), &[&framed(b"").unwrap()]).await.unwrap(), "");
    }

    #[tokio::test]
    async fn whatever_is_not_exactly_one_message_is_an_invalid_argument() {
        let two = [framed(b"a").unwrap(), framed(b"b").unwrap()].concat();
        let cases: [(&[&[u8]], &str); 6] = [
            (&[], "there is no message"),
            (&[b"\0\0\0"], "ends after 3 of 5 bytes"),
            (&[b"\0\0\0\0\x05hell"], "ends after 9 of 10 bytes"),
            (&[&two], "more bytes follow"),
            (&[b"\0\0\0\0\x01a", b"\0"], "more bytes follow"),
            (&[b"\x02\0\0\0\x01a"], "flag byte 2"),
        ];
        for (chunks, reason) in cases {
            let (code, message) = refusal(chunks).await;
            assert_eq!(code, Code::InvalidArgument, "{message}");
            assert!(message.contains(reason), "{message}");
        }
    }

    #[tokio::test]
    async fn a_message_over_the_limit_is_refused_at_its_first_five_bytes() {
        let (code, message) = refusal(&[b"\0\x01\0\0\x01"]).await;
        assert_eq!((code, message.contains("16777217 bytes")), (Code::InvalidArgument, true), "{message}");
    }

    #[tokio::test]
    async fn a_compressed_message_is_answered_as_grpc_go_does() {
        let (code, message) = refusal(&[b"\x01\0\0\0\x01a"]).await;
        assert_eq!((code, message.contains("no grpc-encoding")), (Code::Internal, true), "{message}");
        let headers = HeaderMap::from_iter([(GRPC_ENCODING, HeaderValue::from_static("gzip"))]);
        let status = read(&headers, &[b"\x01\0\0\0\x01a"]).await.unwrap_err();
        assert_eq!((status.code(), status.message().contains("gzip")), (Code::Unimplemented, true), "{status}");
    }

    fn silent() -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>())
    }

    fn sent(length: usize) -> http_body_util::Full<Bytes> {
        http_body_util::Full::new(framed(&vec![0; length]).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_trickles_is_given_up_and_its_room_is_free_again() {
        let collector = Collector::with_bounds(Budget::new(20_000, 0), Duration::from_secs(3));
        let status = collector.request(&HeaderMap::new(), silent()).await.unwrap_err();
        assert_eq!((status.code(), status.message().contains("within 3 s")), (Code::DeadlineExceeded, true), "{status}");
        assert_eq!(collector.request(&HeaderMap::new(), sent(1)).await.unwrap().0.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_do_not_arrive_hold_up_no_others() {
        let (collector, headers) = (Collector::new(), HeaderMap::new());
        let silent = futures_util::future::join_all((0..1000).map(|_| collector.request(&headers, silent())));
        tokio::select! {
            _ = silent => panic!("they have nothing to end with"),
            arrived = collector.request(&headers, sent(1)) => assert_eq!(arrived.unwrap().0.len(), 1),
        }
    }

    #[tokio::test]
    async fn a_request_is_refused_for_which_there_is_no_room_until_another_has_ended() {
        let (collector, headers) = (Collector::new(), HeaderMap::new());
        let mut held = Vec::new();
        let refused = loop {
            match collector.request(&headers, sent(LONGEST_MESSAGE)).await {
                Ok(request) => held.push(request),
                Err(status) => break status,
            }
        };
        assert_eq!(held.len(), LARGE_HELD / LONGEST_MESSAGE);
        let text =
            "countersign refused the request: too much of other requests is held while their checks wait to take another 16777216 bytes";
        assert_eq!((refused.code(), refused.message().starts_with(text)), (Code::ResourceExhausted, true), "{refused}");
        let kubelets = collector.request(&headers, sent(SMALL)).await;
        assert!(kubelets.is_ok(), "small ones have room of their own: {kubelets:?}");
        held.pop();
        assert!(collector.request(&headers, sent(LONGEST_MESSAGE)).await.is_ok(), "one has ended");
    }

    #[tokio::test]
    async fn small_requests_and_their_headers_are_bounded_too() {
        let collector = Collector::new();
        let headers = HeaderMap::from_iter([(GRPC_ENCODING, HeaderValue::from_str(&"x".repeat(16 * 1024)).unwrap())]);
        let mut held = Vec::new();
        let refused = loop {
            match collector.request(&headers, sent(0)).await {
                Ok(request) => held.push(request),
                Err(status) => break status,
            }
        };
        assert_eq!((refused.code(), held.len()), (Code::ResourceExhausted, 2047), "{refused}");
    }
}
