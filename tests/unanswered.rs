//! The checks themselves, before a containerd that does not answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "test code")]

#[path = "notary/policy.rs"]
mod policy_of;

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageReference, Sha256};
use countersign_trust::pin::Pins;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_cri::v1;
use prost::Message as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use countersign::admit::Admit;
use countersign::audit::{LogSettings, Recorder};
use countersign::clock::SystemClock;
use countersign::containerd::Containerd;
use countersign::cri::methods::CREATE_CONTAINER;
use countersign::cri::{Gate, Guard};
use countersign::ledger::Ledger;
use countersign::listen::{Inherited, Listener};
use countersign::metrics::Metrics;

type Body = Full<Bytes>;

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(20);
const IMAGE: &str = "registry.test/team/app:1";

/// What containerd is asked of its images' states. Answered when the sender is used, else never.
type Asked = mpsc::Receiver<oneshot::Sender<()>>;

/// A containerd that has no image, and takes its time for saying so.
fn containerd(socket: &Path) -> Asked {
    let (asked, questions) = mpsc::channel(8);
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let asked = asked.clone();
            let service = service_fn(move |request| not_found(request, asked.clone()));
            tokio::spawn(async move {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    questions
}

async fn not_found(request: Request<Incoming>, asked: mpsc::Sender<oneshot::Sender<()>>) -> Result<Response<Body>, Infallible> {
    if request.uri().path().ends_with("/ImageStatus") {
        let (answer, answered) = oneshot::channel();
        asked.send(answer).await.unwrap();
        drop(answered.await);
    }
    let response = Response::builder().header("content-type", "application/grpc").header("grpc-status", "5");
    let response = response.header("grpc-message", "no such image here");
    Ok(response.body(Body::default()).unwrap())
}

/// A gate that enforces, before the containerd on `containerd`.
async fn gate(directory: &Path, containerd: &Path) -> PathBuf {
    let socket = directory.join("gate/cri.sock");
    let listener = Listener::open(&socket, &mut Inherited::default()).await.unwrap();
    let trust = countersign_trust::Policy::new(Mode::Enforced, Pins::default());
    let policy = policy_of::with(trust, HashMap::new(), Sha256::of(b"policy"));
    let work = tokio::runtime::Handle::current();
    let own_api = Containerd::new(containerd);
    let admit = Admit::new(policy, Arc::new(SystemClock), own_api, Ledger::open(directory), work);
    let admit = Arc::new(admit);
    let settings = LogSettings { path: directory.join("decisions.jsonl"), max_bytes: 1 << 20, makes_directory: false };
    let recorder = Recorder::new(Arc::clone(&admit), settings, None, &Metrics::new(), tokio::runtime::Handle::current());
    let gate = Gate::new(Arc::new(Guard::new(admit, Arc::new(recorder))), containerd.into());
    tokio::spawn(gate.serve(listener, std::future::pending(), Duration::ZERO));
    socket
}

/// kubelet's way to create a container: by the image's ID, with the name that the pod gave.
fn create() -> Request<Body> {
    let image = v1::ImageSpec {
        image: format!("sha256:{}", Sha256::of(b"config")),
        user_specified_image: IMAGE.parse::<ImageReference>().unwrap().to_string(),
        ..v1::ImageSpec::default()
    };
    let config = v1::ContainerConfig { image: Some(image), ..v1::ContainerConfig::default() };
    let message = v1::CreateContainerRequest { pod_sandbox_id: "5a".repeat(32), config: Some(config), sandbox_config: None };
    let message = message.encode_to_vec();
    let frame = [&[0], u32::try_from(message.len()).unwrap().to_be_bytes().as_slice(), &message].concat();
    let request = Request::post(format!("http://localhost{CREATE_CONTAINER}")).header("content-type", "application/grpc");
    request.header("te", "trailers").body(Body::from(frame)).unwrap()
}

/// A caller with a connection of its own: the code and the message of the answer.
async fn called(socket: PathBuf) -> (String, String) {
    let stream = UnixStream::connect(socket).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(create()).await.unwrap();
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    (header("grpc-status"), header("grpc-message"))
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it did not happen")
}

#[tokio::test]
async fn a_create_whose_caller_went_away_unanswered_locks_the_image_for_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("containerd.sock");
    let mut asked = containerd(&path);
    let socket = gate(directory.path(), &path).await;

    // The one is never answered, and its caller runs out of patience.
    let mut unanswered = Vec::new();
    for _ in 0..3 {
        let waiting = tokio::spawn(called(socket.clone()));
        unanswered.push(soon(asked.recv()).await.unwrap());
        waiting.abort();
        assert!(waiting.await.is_err());
    }

    let waiting = tokio::spawn(called(socket));
    soon(asked.recv()).await.unwrap().send(()).unwrap();
    let (code, message) = soon(waiting).await.unwrap();
    assert_eq!((code.as_str(), message.contains("no such image here")), ("2", true), "{message}");
    assert!(unanswered.iter().all(oneshot::Sender::is_closed), "containerd is told that nobody waits for the others");
}

#[tokio::test]
async fn a_create_that_containerd_leaves_unanswered_ends_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("containerd.sock");
    let mut asked = containerd(&path);
    let socket = gate(directory.path(), &path).await;

    let waiting = tokio::spawn(called(socket));
    let _unanswered = soon(asked.recv()).await.unwrap();
    let (code, message) = soon(waiting).await.unwrap();
    assert_eq!(code, "14", "{message}");
    let said = format!("containerd at {} did not answer /runtime.v1.ImageService/ImageStatus within 10 s", path.display());
    assert!(message.starts_with(&said), "{message}");
    assert!(message.ends_with("(CS-CONTAINERD)"), "{message}");
}

#[tokio::test]
async fn a_create_that_waits_for_containerd_holds_up_no_other_of_its_image() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("containerd.sock");
    let mut asked = containerd(&path);
    let socket = gate(directory.path(), &path).await;

    let first = tokio::spawn(called(socket.clone()));
    let _unanswered = soon(asked.recv()).await.unwrap();
    let second = tokio::spawn(called(socket));
    soon(asked.recv()).await.unwrap().send(()).unwrap();
    soon(second).await.unwrap();
    assert!(!first.is_finished(), "the first still waits");
}
