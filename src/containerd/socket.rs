//! Lets tonic's clients speak over [`Connection`]: each call is one write, and no task or queue stands between.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use tonic::Status;
use tonic::body::Body;

use crate::connection::{AnswerBody, ConnectError, Connection};

/// Makes unary and server-streaming calls: a request is sent when all of it is there.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Connection);

/// Why a call got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("there is no connection")]
    Connect(#[from] ConnectError),
    #[error("the connection failed")]
    Http2(#[from] h2::Error),
    #[error("the request could not be made")]
    Request(#[from] Status),
}

impl tower::Service<Request<Body>> for Caller {
    type Response = Response<AnswerBody>;
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, CallError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let connection = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let message = body.collect().await?.to_bytes();
            let mut sender = connection.sender().await?;
            let (response, mut stream) = sender.send_request(Request::from_parts(head, ()), false)?;
            stream.send_data(message, true)?;
            Ok(response.await?.map(AnswerBody::new))
        })
    }
}
