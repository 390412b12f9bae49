//! Bodies as they pass: enums, so that no frame is boxed and no byte is copied.

use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::{Reason, SendStream};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::callers::Call;
use super::upstream::{Loss, loss_of};
use crate::connection::AnswerBody;

/// What containerd is sent.
#[derive(Debug)]
pub(super) enum RequestBody {
    /// The caller's body, as it arrives.
    Downstream(Incoming),
    /// One framed message of a checked call.
    Framed(Bytes),
}

impl RequestBody {
    /// Whether the headers are all there is.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Downstream(body) => body.is_end_stream(),
            Self::Framed(frame) => frame.is_empty(),
        }
    }

    /// Sends what is here already together with the headers, in one write; what has yet to come follows in a task, for as long
    /// as somebody keeps what is returned.
    pub(super) fn send(self, mut stream: SendStream<Bytes>) -> Option<Wanted> {
        let mut forwarding = match self {
            Self::Framed(frame) => {
                // Fails only when the stream has ended, which its answer tells.
                drop(stream.send_data(frame, true));
                return None;
            }
            Self::Downstream(body) => Box::pin(forward(body, stream)),
        };
        if forwarding.as_mut().now_or_never().is_some() {
            return None;
        }
        let (wanted, unwanted) = oneshot::channel();
        tokio::spawn(async move {
            tokio::select! {
                () = forwarding => {}
                // A caller's reset is not seen behind what of its body is still here, and containerd may never take that.
                _ = unwanted => {}
            }
        });
        Some(Wanted(wanted))
    }
}

/// Kept for as long as somebody wants the answer to a request that is still being sent.
#[derive(Debug)]
pub(super) struct Wanted(#[expect(dead_code, reason = "the task notices when it is dropped")] oneshot::Sender<()>);

/// Forwards a caller's body until it ends, the caller resets its stream, or containerd wants no more of it.
async fn forward(mut body: Incoming, mut stream: SendStream<Bytes>) {
    let mut is_first = true;
    loop {
        let frame = match next_frame(&mut body, &mut stream).await {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return stream.send_reset(reset_reason(&error).unwrap_or(Reason::CANCEL)),
            None => return,
        };
        let sent = match frame.map(Frame::into_data) {
            Some(Ok(data)) => {
                // A stream that is not open yet has no capacity; its first frame waits in h2 beside the headers.
                if !is_first && !has_room(&mut stream).await {
                    return;
                }
                is_first = false;
                stream.send_data(data, body.is_end_stream())
            }
            Some(Err(other)) => stream.send_trailers(other.into_trailers().unwrap_or_default()),
            None => stream.send_data(Bytes::new(), true),
        };
        // An error is told by the answer; after the last frame there is nothing more to wait for.
        if sent.is_err() || body.is_end_stream() {
            return;
        }
    }
}

/// The next frame of a body, `Some(Ok(None))` at its end; None when containerd has ended the stream.
async fn next_frame(body: &mut Incoming, stream: &mut SendStream<Bytes>) -> Option<Result<Option<Frame<Bytes>>, hyper::Error>> {
    poll_fn(|cx| {
        if stream.poll_reset(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut *body).poll_frame(cx).map(|frame| Some(frame.transpose()))
    })
    .await
}

/// Waits until containerd takes more; false when it never will.
async fn has_room(stream: &mut SendStream<Bytes>) -> bool {
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        if !matches!(poll_fn(|cx| stream.poll_capacity(cx)).await, Some(Ok(_))) {
            return false;
        }
    }
    true
}

/// The reason with which the peer reset a stream of ours, if that is the error.
fn reset_reason(error: &(dyn std::error::Error + 'static)) -> Option<Reason> {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.find_map(|cause| cause.downcast_ref::<h2::Error>()?.reason())
}

/// What the caller is answered.
#[derive(Debug)]
pub(super) enum ResponseBody {
    /// containerd's body, as it arrives. The path names containerd's socket if it goes away in the middle.
    Upstream(AnswerBody, Arc<Path>, #[expect(dead_code, reason = "what counts is when it is dropped")] Option<Wanted>),
    /// One framed message, then trailers.
    Framed(Option<Bytes>, Option<HeaderMap>),
    /// Nothing: the headers said it all ("Trailers-Only"), or the trailers did.
    Ended,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        match this {
            Self::Upstream(body, socket, _) => {
                let polled = Pin::new(body).poll_frame(cx);
                let Poll::Ready(Some(Err(error))) = &polled else { return polled };
                // After a reset, hyper resets the caller's stream with the reason that containerd gave.
                let Loss::Connection(status) = loss_of(error, socket) else { return polled };
                *this = Self::Ended;
                Poll::Ready(Some(Ok(Frame::trailers(status.into_trailers()))))
            }
            Self::Framed(frame, trailers) => {
                let next = frame.take().map(Frame::data).or_else(|| trailers.take().map(Frame::trailers));
                Poll::Ready(next.map(Ok))
            }
            Self::Ended => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Upstream(body, ..) => body.is_end_stream(),
            Self::Framed(frame, trailers) => frame.is_none() && trailers.is_none(),
            Self::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Upstream(body, ..) => body.size_hint(),
            Self::Framed(..) | Self::Ended => SizeHint::default(),
        }
    }
}

/// An answer whose call runs until the body has ended or nobody wants it any more.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) body: ResponseBody,
    pub(super) _call: Call,
    pub(super) _place: Option<OwnedSemaphorePermit>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
