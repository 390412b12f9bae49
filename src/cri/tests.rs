//! The gate as a whole, between a caller and a fake containerd in the same process.

mod crowd;
mod deadline;
mod fake;
mod upload;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use self::fake::{Caller, Containerd, request};
use super::checks::{CheckedCall, Checks};
use super::frame::framed;
use super::methods::{self, CheckedMethod};
use super::proxy::{Drained, Gate};
use super::status::Status;
use super::upstream::Reply;
use super::{messages, patch};
use crate::listen::{Inherited, Listener};

const LIST: &str = "/runtime.v1.RuntimeService/ListContainers";
const EVENTS: &str = "/runtime.v1.RuntimeService/GetContainerEvents";
const HANGS: &str = "/runtime.v1.RuntimeService/ExecSync";
const IS_RESET: &str = "/runtime.v1.RuntimeService/StopContainer";
/// Longer than anything takes here, shorter than a test run's patience.
const PATIENCE: Duration = Duration::from_secs(20);

/// Checks that do something different for each method.
#[derive(Default)]
struct Sample {
    disabled: AtomicBool,
    dropped: Arc<Notify>,
    started: Arc<Notify>,
}

struct OnDrop(Arc<Notify>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[async_trait]
impl Checks for Sample {
    fn checked(&self, method: CheckedMethod) -> bool {
        !self.disabled.load(Ordering::SeqCst) && method != CheckedMethod::RunPodSandbox
    }

    /// Patches the name and passes the call on.
    async fn pull_image(&self, call: CheckedCall) -> Result<Reply, Status> {
        let message = patch::pull_image_name(&call.message, "reg/app@sha256:1")?;
        call.upstream.unary(methods::PULL_IMAGE, message, &call.metadata).await
    }

    /// Panics.
    async fn create_container(&self, call: CheckedCall) -> Result<Reply, Status> {
        panic!("{} bytes are too many", call.message.len())
    }

    /// Asks for the status, which fails, when the container is called `status`; else hangs.
    async fn start_container(&self, call: CheckedCall) -> Result<Reply, Status> {
        let container = messages::StartContainerRequest::read(&call.message)?.container_id;
        if container == "status" {
            return call.upstream.unary(methods::STATUS, Bytes::new(), &HeaderMap::new()).await;
        }
        let _guard = OnDrop(Arc::clone(&self.dropped));
        self.started.notify_one();
        std::future::pending().await
    }
}

struct Node {
    _directory: tempfile::TempDir,
    socket: PathBuf,
    containerd: PathBuf,
    checks: Arc<Sample>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Drained>,
}

impl Node {
    /// A gate before a containerd that does not run yet.
    async fn start(drain: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (socket, containerd) = (directory.path().join("gate/cri.sock"), directory.path().join("containerd.sock"));
        let listener = Listener::open(&socket, &mut Inherited::default()).await.unwrap();
        let checks = Arc::new(Sample::default());
        let gate = Gate::new(Arc::clone(&checks) as Arc<dyn Checks>, Arc::from(containerd.as_path()));
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(gate.serve(listener, async { drop(stopped.await) }, drain));
        Self { _directory: directory, socket, containerd, checks, stop, served }
    }

    async fn with_containerd() -> (Self, Containerd, Caller) {
        let node = Self::start(Duration::from_millis(200)).await;
        let containerd = Containerd::start(&node.containerd);
        let caller = Caller::connect(&node.socket).await;
        (node, containerd, caller)
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it did not happen")
}

#[tokio::test]
async fn a_call_is_the_same_through_the_gate_as_without_it() {
    let (node, containerd, through) = Node::with_containerd().await;
    let direct = Caller::connect(&node.containerd).await;
    let sent = |message: &[u8]| {
        let mut request = request(LIST, framed(message).unwrap());
        request.headers_mut().append("x-metadata-bin", HeaderValue::from_static("AAEC"));
        request.headers_mut().append("x-twice", HeaderValue::from_static("1"));
        request.headers_mut().append("x-twice", HeaderValue::from_static("2"));
        request
    };
    let through = through.got(sent(b"\x0a\x00")).await;
    let seen_through = containerd.last();
    let direct = direct.got(sent(b"\x0a\x00")).await;
    assert_eq!(through, direct);
    assert_eq!(seen_through, containerd.last());
    assert_eq!(seen_through.headers["grpc-timeout"], "119999m");
    assert_eq!(seen_through.uri, format!("http://localhost{LIST}"));
    assert_eq!(through.trailers.unwrap()["x-trailer-bin"], "AAEC");
}

#[tokio::test]
async fn containerd_is_always_called_localhost_and_sent_no_other_host() {
    let (_node, containerd, caller) = Node::with_containerd().await;
    let mut request = request(LIST, framed(b"").unwrap());
    *request.uri_mut() = format!("http://elsewhere.example:80{LIST}").parse().unwrap();
    request.headers_mut().insert("host", HeaderValue::from_static("elsewhere.example"));
    request.headers_mut().insert("proxy-authorization", HeaderValue::from_static("secret"));
    caller.got(request).await;
    let seen = containerd.last();
    assert_eq!(seen.uri, format!("http://localhost{LIST}"));
    assert!(!seen.headers.contains_key("host") && !seen.headers.contains_key("proxy-authorization"), "{:?}", seen.headers);
}

#[tokio::test]
async fn an_error_without_a_body_keeps_its_details() {
    let (node, _containerd, through) = Node::with_containerd().await;
    let direct = Caller::connect(&node.containerd).await;
    let through = through.call(methods::STATUS, b"").await;
    assert_eq!(through, direct.call(methods::STATUS, b"").await);
    assert_eq!(through.headers["grpc-status-details-bin"], "CAUS");
}

#[tokio::test]
async fn messages_of_a_stream_pass_one_by_one_and_its_trailers_end_it() {
    let (_node, containerd, caller) = Node::with_containerd().await;
    let mut stream = soon(caller.send(request(EVENTS, framed(b"").unwrap()))).await.unwrap().into_body();
    let events = containerd.state.events.lock().unwrap().take().unwrap();
    for event in ["one", "two"] {
        events.send(Ok(Frame::data(Bytes::from(event)))).await.unwrap();
        assert_eq!(soon(stream.frame()).await.unwrap().unwrap().into_data().unwrap(), event);
    }
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
    events.send(Ok(Frame::trailers(trailers.clone()))).await.unwrap();
    drop(events);
    assert_eq!(soon(stream.frame()).await.unwrap().unwrap().into_trailers().unwrap(), trailers);
}

#[tokio::test]
async fn a_caller_that_gives_up_before_the_answer_cancels_the_call_at_containerd() {
    let (_node, containerd, caller) = Node::with_containerd().await;
    let call = tokio::spawn(async move { caller.send(request(HANGS, framed(b"").unwrap())).await.map(drop) });
    soon(async {
        while containerd.calls() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    call.abort();
    soon(containerd.state.cancelled.notified()).await;
}

#[tokio::test]
async fn a_caller_that_leaves_a_stream_cancels_it_at_containerd() {
    let (_node, containerd, caller) = Node::with_containerd().await;
    let stream = soon(caller.send(request(EVENTS, framed(b"").unwrap()))).await.unwrap();
    drop(stream);
    soon(containerd.state.cancelled.notified()).await;
}

#[tokio::test]
async fn a_stream_that_containerd_resets_is_reset_with_the_same_reason() {
    let (_node, _containerd, caller) = Node::with_containerd().await;
    let error = caller.send(request(IS_RESET, framed(b"").unwrap())).await.unwrap_err();
    let reset = std::error::Error::source(&error).unwrap().downcast_ref::<h2::Error>().unwrap();
    assert_eq!(reset.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn messages_of_16_mib_and_more_pass_in_both_directions() {
    let (_node, containerd, caller) = Node::with_containerd().await;
    let body = Bytes::from_iter((0..17 * 1024 * 1024_u32).map(|at| at.to_le_bytes()[1]));
    let got = soon(caller.got(request(LIST, body.clone()))).await;
    assert!(got.body == body, "the answer has {} bytes", got.body.len());
    assert!(containerd.last().body == body);
}

#[tokio::test]
async fn what_is_no_known_cri_v1_call_is_unimplemented_and_never_reaches_containerd() {
    let (_node, containerd, caller) = Node::with_containerd().await;
    let paths = [
        "/runtime.v1.RuntimeService/RestorePod",
        "/runtime.v1.ImageService/PullImage?",
        "/runtime.v1alpha2.ImageService/PullImage",
        "/containerd.services.images.v1.Images/Get",
        "/containerd.services.transfer.v1.Transfer/Transfer",
        "/grpc.health.v1.Health/Check",
        "/",
    ];
    for path in paths {
        let got = caller.call(path, b"").await;
        assert_eq!((got.status().0, &got.trailers), ("12", &None), "{path}");
        assert!(got.status().1.contains(path), "{got:?}");
    }
    let mut get = request(LIST, Bytes::new());
    *get.method_mut() = http::Method::GET;
    assert_eq!(caller.got(get).await.status().0, "12");
    for kind in ["application/json", "application/grpc+json", "application/grpc-web"] {
        let mut other = request(LIST, framed(b"").unwrap());
        other.headers_mut().insert("content-type", kind.parse().unwrap());
        assert_eq!(caller.got(other).await.status().0, "12", "{kind}");
    }
    assert_eq!(containerd.calls(), 0);
    // The connection is still good.
    assert_eq!(caller.call(LIST, b"").await.status().0, "0");
}

#[tokio::test]
async fn containerd_may_be_down_at_first_and_restart_later() {
    let node = Node::start(PATIENCE).await;
    let caller = Caller::connect(&node.socket).await;
    let down = caller.call(LIST, b"").await;
    assert_eq!(down.status().0, "14");
    assert!(down.status().1.contains(node.containerd.to_str().unwrap()), "{down:?}");
    for _ in 0..3 {
        let containerd = Containerd::start(&node.containerd);
        assert_eq!(caller.call(LIST, b"").await.status().0, "0");
        containerd.kill().await;
        assert_eq!(caller.call(LIST, b"").await.status().0, "14");
    }
}

#[tokio::test]
async fn calls_that_containerd_takes_down_with_it_are_unavailable() {
    let (node, containerd, caller) = Node::with_containerd().await;
    let mut stream = soon(caller.send(request(EVENTS, framed(b"").unwrap()))).await.unwrap().into_body();
    let hanging = tokio::spawn(async move { caller.got(request(HANGS, framed(b"").unwrap())).await });
    soon(async {
        while containerd.calls() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    containerd.kill().await;
    let trailers = soon(stream.frame()).await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "14");
    let got = soon(hanging).await.unwrap();
    assert_eq!(got.status().0, "14");
    assert!(got.status().1.contains(node.containerd.to_str().unwrap()), "{got:?}");
}

#[tokio::test]
async fn a_check_can_change_the_request_and_the_answer_goes_back_as_it_came() {
    let (_node, containerd, caller) = Node::with_containerd().await;
    let mut request = request(methods::PULL_IMAGE, framed(&messages::pull_image_request("reg/app:1")).unwrap());
    request.headers_mut().insert("x-metadata", HeaderValue::from_static("kept"));
    let got = caller.got(request).await;
    let sent = framed(&messages::pull_image_request("reg/app@sha256:1")).unwrap();
    assert_eq!((&got.body, got.status().0), (&sent, "0"));
    assert_eq!(got.headers["x-header"], "kept");
    assert_eq!(got.trailers.as_ref().unwrap()["x-trailer-bin"], "AAEC");
    let seen = containerd.last();
    assert_eq!(seen.body, sent);
    assert_eq!((&seen.headers["x-metadata"], &seen.headers["grpc-timeout"]), (&"kept".parse().unwrap(), &"119999m".parse().unwrap()));
    assert!(!seen.headers.contains_key("grpc-accept-encoding"), "an answer must be readable: {:?}", seen.headers);
}

#[tokio::test]
async fn a_status_of_containerd_passes_through_a_check_with_its_details() {
    let (node, _containerd, caller) = Node::with_containerd().await;
    let direct = Caller::connect(&node.containerd).await.call(methods::STATUS, b"").await;
    assert_eq!(caller.call(methods::START_CONTAINER, b"\x0a\x06status").await, direct);
}

#[tokio::test]
async fn a_check_that_panics_denies_with_a_text_that_never_changes() {
    let (_node, containerd, caller) = Node::with_containerd().await;
    let first = caller.call(methods::CREATE_CONTAINER, b"a").await;
    let second = caller.call(methods::CREATE_CONTAINER, b"ab").await;
    assert_eq!(first.status().0, "2");
    assert!(first.status().1.starts_with("SignatureValidationFailed: countersign failed internally"), "{first:?}");
    assert!(first.status().1.ends_with("(CS-INTERNAL)"), "{first:?}");
    assert_eq!(first, second);
    assert_eq!(containerd.calls(), 0);
}

#[tokio::test]
async fn a_method_that_is_not_checked_is_passed_on_as_it_is() {
    let (node, containerd, caller) = Node::with_containerd().await;
    node.checks.disabled.store(true, Ordering::SeqCst);
    let no_message = Bytes::from_static(b"\x07garbage");
    let got = caller.got(request(methods::CREATE_CONTAINER, no_message.clone())).await;
    assert_eq!((got.body, containerd.last().body), (no_message.clone(), no_message));
}

#[tokio::test]
async fn a_checked_request_that_is_not_one_plain_message_is_refused_and_never_forwarded() {
    let (_node, containerd, caller) = Node::with_containerd().await;
    let pull = framed(&messages::pull_image_request("reg/app:1")).unwrap();
    let cases: [(Vec<u8>, &str, &str); 6] = [
        (Vec::new(), "3", "there is no message"),
        (pull[..pull.len() - 1].to_vec(), "3", "ends after"),
        ([&pull[..], &pull[..]].concat(), "3", "more bytes follow"),
        ([&[1], &pull[1..]].concat(), "13", "no grpc-encoding"),
        (b"\0\x01\0\0\x01".to_vec(), "3", "16777217 bytes"),
        (framed(&[&pull[5..], &pull[5..]].concat()).unwrap().to_vec(), "3", "PullImageRequest.image stands more than once"),
    ];
    for (body, code, reason) in cases {
        let got = caller.got(request(methods::PULL_IMAGE, body.into())).await;
        assert_eq!(got.status().0, code, "{got:?}");
        assert!(got.status().1.contains(reason), "{got:?}");
    }
    assert_eq!(containerd.calls(), 0);
}

#[tokio::test]
async fn a_check_is_dropped_when_its_caller_goes_away() {
    let (node, _containerd, caller) = Node::with_containerd().await;
    let call = tokio::spawn(async move { caller.call(methods::START_CONTAINER, b"\x0a\x01c").await });
    soon(node.checks.started.notified()).await;
    call.abort();
    soon(node.checks.dropped.notified()).await;
}

#[tokio::test]
async fn stopping_lets_a_running_call_finish_and_takes_no_more() {
    let node = Node::start(PATIENCE).await;
    let containerd = Containerd::start(&node.containerd);
    let caller = Caller::connect(&node.socket).await;
    let mut stream = soon(caller.send(request(EVENTS, framed(b"").unwrap()))).await.unwrap().into_body();
    node.stop.send(()).unwrap();
    soon(async {
        while tokio::net::UnixStream::connect(&node.socket).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let events = containerd.state.events.lock().unwrap().take().unwrap();
    events.send(Ok(Frame::data(Bytes::from("last")))).await.unwrap();
    drop(events);
    assert_eq!(soon(stream.frame()).await.unwrap().unwrap().into_data().unwrap(), "last");
    drop(stream);
    drop(caller);
    assert_eq!(soon(node.served).await.unwrap(), Drained { cut: 0 });
}

#[tokio::test]
async fn stopping_cuts_what_does_not_end() {
    let (node, _containerd, caller) = Node::with_containerd().await;
    let mut stream = soon(caller.send(request(EVENTS, framed(b"").unwrap()))).await.unwrap().into_body();
    node.stop.send(()).unwrap();
    assert_eq!(soon(node.served).await.unwrap(), Drained { cut: 1 });
    assert!(soon(stream.frame()).await.unwrap().is_err());
}

#[tokio::test]
async fn a_connection_without_a_call_does_not_hold_up_a_stop_although_its_caller_does_not_answer() {
    let node = Node::start(PATIENCE * 2).await;
    let _says_nothing = UnixStream::connect(&node.socket).await.unwrap();
    let mut hangs = UnixStream::connect(&node.socket).await.unwrap();
    // The preface and empty SETTINGS (RFC 9113, 3.4), and then no answer to the PING of a graceful shutdown.
    hangs.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    hangs.read_exact(&mut [0; 9]).await.unwrap();
    node.stop.send(()).unwrap();
    assert_eq!(soon(node.served).await.unwrap(), Drained { cut: 0 });
}

#[tokio::test]
async fn calls_of_one_connection_run_at_once() {
    let (_node, containerd, caller) = Node::with_containerd().await;
    let hanging: Vec<_> = (0..300).map(|_| caller.0.clone().send_request(request(HANGS, framed(b"").unwrap()))).collect();
    let hanging = futures_util::future::join_all(hanging);
    let other = async {
        while containerd.calls() < 300 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        caller.call(LIST, b"").await
    };
    tokio::select! {
        _ = hanging => panic!("a hanging call ended"),
        got = soon(other) => assert_eq!(got.status().0, "0"),
    }
}
