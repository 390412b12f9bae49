//! Bodies as they pass: an enum, so that no frame is boxed and no byte is copied.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::watch;

use super::upstream::{Loss, loss_of};

/// What containerd is sent.
#[derive(Debug)]
pub(super) enum RequestBody {
    /// The caller's body, as it arrives.
    Downstream(Incoming),
    /// One framed message of a checked call.
    Framed(Option<Bytes>),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Downstream(body) => Pin::new(body).poll_frame(cx),
            Self::Framed(frame) => Poll::Ready(frame.take().map(|frame| Ok(Frame::data(frame)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Downstream(body) => body.is_end_stream(),
            Self::Framed(frame) => frame.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Downstream(body) => body.size_hint(),
            // An exact size would make hyper add a content-length, which no gRPC client sends.
            Self::Framed(_) => SizeHint::default(),
        }
    }
}

/// What the caller is answered.
#[derive(Debug)]
pub(super) enum ResponseBody {
    /// containerd's body, as it arrives. The path names containerd's socket if it goes away in the middle.
    Upstream(Incoming, Arc<Path>),
    /// One framed message, then trailers.
    Framed(Option<Bytes>, Option<HeaderMap>),
    /// Nothing: the headers said it all ("Trailers-Only"), or the trailers did.
    Ended,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        match this {
            Self::Upstream(body, socket) => {
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
            Self::Upstream(body, _) => body.is_end_stream(),
            Self::Framed(frame, trailers) => frame.is_none() && trailers.is_none(),
            Self::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Upstream(body, _) => body.size_hint(),
            Self::Framed(..) | Self::Ended => SizeHint::default(),
        }
    }
}

/// Counts the calls of one connection, from the arrival of the request to the end of the answer.
#[derive(Debug)]
pub(super) struct Calls(watch::Sender<usize>);

impl Calls {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Counts a call until the value is dropped.
    pub(super) fn begin(&self) -> Call {
        self.0.send_modify(|running| *running = running.saturating_add(1));
        Call(self.0.clone())
    }

    /// Ready when no call has run for as long as `linger`.
    pub(super) async fn none_for(&self, linger: std::time::Duration) {
        let mut running = self.0.subscribe();
        loop {
            // The sender is ours, so waiting cannot fail.
            let _ = running.wait_for(|running| *running == 0).await;
            if tokio::time::timeout(linger, running.wait_for(|running| *running > 0)).await.is_err() {
                return;
            }
        }
    }
}

/// A running call.
#[derive(Debug)]
pub(super) struct Call(watch::Sender<usize>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running = running.saturating_sub(1));
    }
}

/// An answer whose call runs until the body has ended or nobody wants it any more.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) body: ResponseBody,
    pub(super) _call: Call,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
