//! Whatever a local caller does, and whatever containerd answers: the daemon's memory is bounded, it says why it refuses, and it
//! goes on to serve others. No test needs a server, or to be root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

mod node;

use std::path::Path;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use k8s_cri::v1;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use node::{Answer, Caller, LISTED, Node, length, soon};

/// What the daemon may have in memory, in MiB. By itself it has 15 to 25 here; two requests of 16 MiB are held, each up to four
/// times.
const GIANTS_TAKE: usize = 160;
/// 8192 calls that hang.
const CALLS_TAKE: usize = 256;
/// 192 callers that read nothing, 2 MiB of answers for each, and the buffers on the way.
const UNREAD_TAKES: usize = 768;
const CALLERS_OF_A_PROCESS: usize = 90;
const CALLS_OF_A_CALLER: usize = 12;
/// Connections without a call.
const CONNECTIONS_TAKE: usize = 64;
/// The longest answers are read, one after the other.
const NONSENSE_TAKES: usize = 128;

/// gRPC's codes.
const INVALID_ARGUMENT: &str = "3";
const RESOURCE_EXHAUSTED: &str = "8";
const INTERNAL: &str = "13";
const UNAVAILABLE: &str = "14";
const UNKNOWN: &str = "2";

#[track_caller]
fn assert_within(node: &Node, limit: usize) {
    let peak = node.peak();
    assert!(peak <= limit, "the daemon had {peak} MiB");
}

/// PullImage of the image whose trust server says nothing, with a field that nobody knows of so many bytes.
fn pull(node: &Node, padding: usize) -> Bytes {
    let image = v1::ImageSpec { image: node.image.clone(), ..v1::ImageSpec::default() };
    let mut message = v1::PullImageRequest { image: Some(image), ..v1::PullImageRequest::default() }.encode_to_vec();
    message.extend(length(0x7a, padding));
    message.resize(message.len() + padding, 0);
    message.into()
}

/// CreateContainer as kubelet sends it: by the image's ID, with the name that the pod gave.
fn create(node: &Node) -> Bytes {
    let image = v1::ImageSpec {
        image: format!("sha256:{}", "cd".repeat(32)),
        user_specified_image: node.image.replace("team/app", "team/other"),
        ..v1::ImageSpec::default()
    };
    let config = v1::ContainerConfig { image: Some(image), ..v1::ContainerConfig::default() };
    let request = v1::CreateContainerRequest { pod_sandbox_id: "pod".into(), config: Some(config), ..Default::default() };
    request.encode_to_vec().into()
}

#[tokio::test]
async fn long_requests_that_wait_for_a_trust_server_are_held_within_a_bound_and_kubelets_calls_go_on() {
    let node = Node::start().await;
    let giant = pull(&node, 15 << 20);
    let mut waiting = FuturesUnordered::new();
    for _ in 0..64 {
        let (caller, giant) = (Caller::connect(&node.socket).await, giant.clone());
        waiting.push(tokio::spawn(async move { caller.call("ImageService/PullImage", giant).await }));
    }
    let mut refused = 0;
    while refused < 62 {
        let got = soon(waiting.next()).await.unwrap().unwrap();
        assert_eq!(got.code, RESOURCE_EXHAUSTED, "{got:?}; {} MiB", node.peak());
        assert!(got.text.starts_with("countersign refused the request: too much of other requests is held"), "{got:?}");
        refused += 1;
    }
    assert_within(&node, GIANTS_TAKE);

    node.serves().await;
    let caller = Caller::connect(&node.socket).await;
    let start = v1::StartContainerRequest { container_id: "none".into() }.encode_to_vec();
    let started = soon(caller.call("RuntimeService/StartContainer", start.into())).await;
    assert_eq!((started.code.as_str(), started.text.as_str()), ("5", "there is no such thing"), "containerd's own answer");

    // The two that are held end with their trust server, and make room.
    for _ in 0..2 {
        let got = soon(waiting.next()).await.unwrap().unwrap();
        assert!(got.text.starts_with("RegistryUnavailable: "), "{got:?}");
    }
    let again = soon(caller.call("ImageService/PullImage", giant)).await;
    assert!(again.text.starts_with("RegistryUnavailable: "), "{again:?}");
    assert_eq!(node.calls("PullImage"), 0, "nothing was forwarded");
    assert_within(&node, GIANTS_TAKE);
}

#[tokio::test]
async fn requests_that_are_too_long_or_never_arrive_take_no_memory() {
    let node = Node::start().await;
    let mut arriving = Vec::new();
    for _ in 0..40 {
        let caller = Caller::connect(&node.socket).await;
        let refused = soon(caller.call("ImageService/PullImage", pull(&node, 17 << 20))).await;
        assert_eq!((refused.code.as_str(), refused.text.contains("at most 16777216 are read")), (INVALID_ARGUMENT, true), "{refused:?}");
        // The same to a method that is only passed on, of which containerd reads everything.
        let passed = soon(caller.call("RuntimeService/Version", vec![0; 17 << 20].into())).await;
        assert_eq!(passed.code, "0", "{passed:?}");
        arriving.push(caller);
    }
    node.serves().await;
    assert_within(&node, CONNECTIONS_TAKE);
}

#[tokio::test]
async fn thousands_of_open_calls_on_one_connection_and_on_many_are_bounded_and_kubelets_go_on() {
    let node = Node::start().await;
    node.answer("ExecSync", Answer::Silence);
    let flood = |caller: Caller, calls: usize| {
        (0..calls).map(move |_| {
            let caller = caller.clone();
            tokio::spawn(async move { caller.call("RuntimeService/ExecSync", Bytes::new()).await })
        })
    };
    let mut open = FuturesUnordered::new();
    for _ in 0..4 {
        open.extend(flood(Caller::connect(&node.socket).await, 2000));
    }
    let refused = soon(open.next()).await.unwrap().unwrap();
    let text = "countersign refused the call: 8192 calls run at once, which is all it serves; try again";
    assert_eq!((refused.code.as_str(), refused.text.as_str()), (RESOURCE_EXHAUSTED, text));
    node.serves().await;

    for _ in 0..100 {
        open.extend(flood(Caller::connect(&node.socket).await, 100));
    }
    // Other callers may take what is left, and then it is said.
    let last = async {
        loop {
            let got = Caller::connect(&node.socket).await.call("RuntimeService/Version", Bytes::new()).await;
            if got.code == RESOURCE_EXHAUSTED {
                return got;
            }
        }
    };
    assert_eq!(soon(last).await.text, text);
    assert_within(&node, CALLS_TAKE);
    for call in &open {
        call.abort();
    }
    drop(open);
    soon(async { while Caller::connect(&node.socket).await.call("RuntimeService/Version", Bytes::new()).await.code != "0" {} }).await;
}

/// What a process of its own does for the next test: one may not have as many connections.
#[tokio::test]
#[ignore = "part of another test"]
async fn callers_that_read_nothing() {
    let Some(socket) = std::env::var_os("SOCKET_TO_READ_NOTHING_FROM") else { return };
    let mut unread = Vec::new();
    for _ in 0..CALLERS_OF_A_PROCESS {
        let caller = Caller::connect(Path::new(&socket)).await;
        for _ in 0..CALLS_OF_A_CALLER {
            let caller = caller.clone();
            unread.push(tokio::spawn(async move { caller.begin("RuntimeService/ListContainers", Bytes::new()).await }));
        }
    }
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn callers_that_read_nothing_of_long_answers_are_bounded_and_others_are_served() {
    let node = Node::start().await;
    node.answer("ListContainers", Answer::Long(4 << 20));
    let mut processes = Vec::new();
    for _ in 0..2 {
        let mut process = tokio::process::Command::new(std::env::current_exe().unwrap());
        process.args(["--exact", "callers_that_read_nothing", "--ignored"]).env("SOCKET_TO_READ_NOTHING_FROM", &node.socket);
        processes.push(process.stdout(std::process::Stdio::null()).kill_on_drop(true).spawn().unwrap());
    }
    node.until_called("ListContainers", 2 * CALLERS_OF_A_PROCESS * CALLS_OF_A_CALLER).await;
    node.serves().await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_within(&node, UNREAD_TAKES);
}

#[tokio::test]
async fn a_process_that_leaves_a_hanging_call_on_each_connection_gets_no_more_of_them() {
    let node = Node::start().await;
    node.answer("ExecSync", Answer::Silence);
    let mut hanging = Vec::new();
    for number in 1..=128 {
        let caller = Caller::connect(&node.socket).await;
        hanging.push(tokio::spawn(async move { caller.call("RuntimeService/ExecSync", Bytes::new()).await }));
        node.until_called("ExecSync", number).await;
    }
    let mut stream = UnixStream::connect(&node.socket).await.unwrap();
    let read = soon(stream.read(&mut [0; 64])).await;
    assert!(read.as_ref().map_or(true, |read| *read == 0), "it was closed: {read:?}");
    for call in &hanging {
        call.abort();
    }
    soon(async { while UnixStream::connect(&node.socket).await.unwrap().read(&mut [0; 64]).await.unwrap_or_default() == 0 {} }).await;
    node.serves().await;
}

#[tokio::test]
async fn connections_that_never_finish_their_first_bytes_make_room_for_others() {
    let node = Node::start().await;
    let beginnings: [&[u8]; 4] =
        [b"", b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"];
    let mut half_open = Vec::new();
    for number in 0..600 {
        let mut stream = UnixStream::connect(&node.socket).await.unwrap();
        // One that was closed to make room for others does not take it.
        drop(stream.write_all(beginnings[number % beginnings.len()]).await);
        half_open.push(stream);
        if number % 100 == 99 {
            node.serves().await;
        }
    }
    assert_within(&node, CONNECTIONS_TAKE);
}

#[tokio::test]
async fn whatever_containerd_answers_while_a_call_is_checked_nothing_passes_and_the_reason_is_named() {
    let node = Node::start().await;
    let caller = Caller::connect(&node.socket).await;
    let run = v1::RunPodSandboxRequest::default().encode_to_vec();
    let start = v1::StartContainerRequest { container_id: "12ab".into() }.encode_to_vec();
    let checked = [
        ("CreateContainer", create(&node), "PodSandboxStatus"),
        ("StartContainer", start.into(), "ContainerStatus"),
        ("RunPodSandbox", run.into(), "Status"),
    ];
    let answers = [
        (Answer::NoProtobuf, "malformed"),
        (Answer::Html, "its content type is not application/grpc"),
        (Answer::Endless, "more bytes follow"),
        (Answer::Cut, "reset the call's HTTP/2 stream"),
        (Answer::Silence, "did not answer"),
    ];
    for (method, message, question) in checked {
        for (answer, reason) in answers {
            node.answer(question, answer);
            let got = soon(caller.call(&format!("RuntimeService/{method}"), message.clone())).await;
            assert!(got.text.contains(reason), "{method} {answer:?}: {got:?}");
            let expected = match (method, answer) {
                (_, Answer::Silence) => UNAVAILABLE,
                // Nothing is known yet of the container: it is not said that it is denied.
                ("StartContainer", Answer::Html | Answer::Endless | Answer::Cut) => INTERNAL,
                _ => UNKNOWN,
            };
            assert_eq!(got.code, expected, "{method} {answer:?}: {got:?}");
            node.serves().await;
        }
        assert_eq!(node.calls(method), 0, "nothing was forwarded");
    }
    assert_within(&node, NONSENSE_TAKES);
}

/// PullImage of an image that is allowed without a trust server, so that the call reaches containerd.
fn pull_listed(node: &Node) -> Bytes {
    let image = format!("{}@{LISTED}", node.image.replace("team/app:1", "team/listed"));
    let image = v1::ImageSpec { image, ..v1::ImageSpec::default() };
    // As kubelet sends it: without a namespace no rule that eases matches.
    let metadata = v1::PodSandboxMetadata { namespace: "default".into(), ..Default::default() };
    let pod = v1::PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
    v1::PullImageRequest { image: Some(image), sandbox_config: Some(pod), ..Default::default() }.encode_to_vec().into()
}

#[tokio::test]
async fn whatever_containerd_answers_a_pull_with_it_is_no_success_and_others_are_served() {
    let node = Node::start().await;
    let caller = Caller::connect(&node.socket).await;
    let answers = [
        (Answer::NoProtobuf, UNKNOWN, "a pull with a malformed message"),
        (Answer::Nothing, UNKNOWN, "a pull with no image ID"),
        // A name, and no ID: nothing of it can be looked at.
        (Answer::Long(4), UNKNOWN, "a pull with no image ID"),
        (Answer::Html, INTERNAL, "its content type is not application/grpc"),
        (Answer::Endless, INTERNAL, "more bytes follow"),
        (Answer::Long(17 << 20), INTERNAL, "at most 16777216 are read"),
        (Answer::Cut, INTERNAL, "reset the call's HTTP/2 stream"),
        (Answer::NotFound, "5", "there is no such thing"),
    ];
    for (number, (answer, code, reason)) in answers.into_iter().enumerate() {
        node.answer("PullImage", answer);
        let got = soon(caller.call("ImageService/PullImage", pull_listed(&node))).await;
        assert!(got.code == code && got.text.contains(reason), "{answer:?}: {got:?}");
        assert_eq!(node.calls("PullImage"), number + 1, "{answer:?}: it was forwarded");
        node.serves().await;
    }
    assert_within(&node, NONSENSE_TAKES);
}

#[tokio::test]
async fn pulls_that_containerd_never_answers_hold_up_nobody_and_end_with_their_callers() {
    let node = Node::start().await;
    node.answer("PullImage", Answer::Silence);
    let mut waiting = Vec::new();
    for _ in 0..64 {
        let (caller, message) = (Caller::connect(&node.socket).await, pull_listed(&node));
        waiting.push(tokio::spawn(async move { caller.call("ImageService/PullImage", message).await }));
    }
    node.until_called("PullImage", waiting.len()).await;
    node.serves().await;
    assert!(waiting.iter().all(|call| !call.is_finished()), "a pull may take as long as its caller waits");
    for call in &waiting {
        call.abort();
    }
    drop(waiting);

    node.answer("PullImage", Answer::NotFound);
    let got = soon(Caller::connect(&node.socket).await.call("ImageService/PullImage", pull_listed(&node))).await;
    assert_eq!(got.text, "there is no such thing", "nothing is left that the next waits for");
    assert_within(&node, CONNECTIONS_TAKE);
}
