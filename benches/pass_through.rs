//! What the gate is compared with: a proxy as one writes it with tonic, that checks nothing. It runs in a process of its
//! own, as the gate does.

use std::convert::Infallible;
use std::env;
use std::future::Future;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::{Channel, Endpoint, Server as GrpcServer};
use tonic::{Request, Response, Status};

use crate::harness::Must as _;
use crate::harness::folder::Folder;
use crate::harness::process::{Launch, Ready, Server, text};

/// The argument that makes this program the pass-through.
pub(crate) const SUBCOMMAND: &str = "pass-through";
/// What containerd and kubelet allow for one message.
const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;

/// A running pass-through.
#[derive(Debug)]
pub(crate) struct PassThrough {
    server: Server,
    socket: PathBuf,
}

impl PassThrough {
    /// Starts it in front of the containerd at `containerd`.
    pub(crate) async fn start(folder: &Folder, containerd: &Path) -> Self {
        let socket = folder.sub("pass-through").join("cri.sock");
        let program = env::current_exe().must("finding this program");
        let launch = Launch::new("pass-through", program).arg(SUBCOMMAND).path(&socket).path(containerd);
        Self { server: launch.start(&folder.logs(), Ready::Socket(socket.clone())).await, socket }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.server.pid().must("finding the pass-through's process")
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Is the pass-through, until it is ended by a signal.
pub(crate) fn serve(listen: &Path, containerd: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().must("starting the pass-through's runtime");
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("unix://{}", text(containerd))).must("naming a socket");
        let channel = endpoint.origin("http://localhost".parse().must("naming localhost")).connect_lazy();
        let listener = UnixListener::bind(listen).must("listening");
        let server = GrpcServer::builder().add_service(Forwarder::<Runtime>::new(&channel)).add_service(Forwarder::<Images>::new(&channel));
        server.serve_with_incoming(UnixListenerStream::new(listener)).await.must("serving");
    });
}

#[derive(Debug, Clone)]
struct Runtime;

#[derive(Debug, Clone)]
struct Images;

trait Name {
    const NAME: &'static str;
}

impl Name for Runtime {
    const NAME: &'static str = "runtime.v1.RuntimeService";
}

impl Name for Images {
    const NAME: &'static str = "runtime.v1.ImageService";
}

#[derive(Debug, Clone)]
struct Forwarder<N> {
    channel: Channel,
    name: PhantomData<N>,
}

impl<N> Forwarder<N> {
    fn new(channel: &Channel) -> Self {
        Self { channel: channel.clone(), name: PhantomData }
    }
}

impl<N: Name> NamedService for Forwarder<N> {
    const NAME: &'static str = N::NAME;
}

impl<N> tower::Service<http::Request<Body>> for Forwarder<N> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let method = Method { channel: self.channel.clone(), path };
        Box::pin(async move {
            let server = tonic::server::Grpc::new(BytesCodec);
            let mut server = server.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT);
            Ok(server.unary(method, request).await)
        })
    }
}

struct Method {
    channel: Channel,
    path: PathAndQuery,
}

impl UnaryService<Bytes> for Method {
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (channel, path) = (self.channel.clone(), self.path.clone());
        Box::pin(async move {
            let client = tonic::client::Grpc::new(channel);
            let mut client = client.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT);
            client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            client.unary(request, path, BytesCodec).await
        })
    }
}

/// Messages as they are: nothing is decoded.
#[derive(Debug, Clone, Copy, Default)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
