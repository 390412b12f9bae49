//! How `countersign cluster` ends, before a daemon that answers what a test makes up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use bytes::Bytes;
use countersign::admin::v1::{PublishMembersResponse, ShowMembersResponse};
use countersign::cluster::{Members, PrivateKey};
use countersign_trust::time::UnixTime;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::net::UnixListener;

/// The exit statuses of the help.
const OK: i32 = 0;
const REFUSED: i32 = 1;
const USAGE: i32 = 2;
const CANNOT_TELL: i32 = 3;

/// A daemon's socket, a configuration that names it, and the key of an authority.
struct Node {
    folder: tempfile::TempDir,
    authority: PrivateKey,
}

impl Node {
    /// The daemon knows a list of members with `node-1`.
    fn new(published: PublishMembersResponse) -> Self {
        let (folder, authority) = (tempfile::tempdir().unwrap(), PrivateKey::generate().unwrap());
        let node = Self { folder, authority };
        node.authority.write_new(&node.path("authority.pem")).unwrap();
        let path = |name: &str| node.path(name).display().to_string();
        let config = format!(
            "[listen]\ncri = '{}'\nadmin = '{}'\n[state]\ndirectory = '{}'\n[content-trust]\nmode = 'disabled'\n",
            path("cri.sock"),
            path("admin.sock"),
            path("state")
        );
        fs::write(node.path("config.toml"), config).unwrap();
        serve(node.path("admin.sock"), node.shown(), published);
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn shown(&self) -> ShowMembersResponse {
        let mut members = Members::of("prod".to_owned());
        members.set("node-1", Some(vec![PrivateKey::generate().unwrap().public()])).unwrap();
        ShowMembersResponse {
            cluster: "prod".to_owned(),
            node: "node-2".to_owned(),
            authorities: vec![self.authority.public().to_string()],
            document: members.sign(&self.authority, UnixTime::from_seconds(1_800_000_000), 30).unwrap(),
            ..ShowMembersResponse::default()
        }
    }

    async fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.arg("cluster").args(args).arg("--config").arg(self.path("config.toml"));
        let changes = ["enroll", "rotate", "remove", "renew"].contains(&args[0]);
        if changes && !args.contains(&"--authority-key") {
            command.arg("--authority-key").arg(self.path("authority.pem"));
        }
        let Output { status, stderr, .. } = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (status.code(), String::from_utf8(stderr).unwrap())
    }
}

fn serve(socket: PathBuf, shown: ShowMembersResponse, published: PublishMembersResponse) {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (shown, published) = (shown.encode_to_vec(), published.encode_to_vec());
            let service = service_fn(move |request: Request<Incoming>| {
                let is_change = request.uri().path().ends_with("/PublishMembers");
                let answer = if is_change { published.clone() } else { shown.clone() };
                async move { Ok::<_, Infallible>(response(&answer)) }
            });
            tokio::spawn(hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
        }
    });
}

type Body = StreamBody<futures_util::stream::Iter<std::array::IntoIter<Result<Frame<Bytes>, Infallible>, 2>>>;

fn response(message: &[u8]) -> Response<Body> {
    let framed = [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat();
    let done = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    let frames = futures_util::stream::iter([Ok(Frame::data(framed.into())), Ok(Frame::trailers(done))]);
    Response::builder().header("content-type", "application/grpc").body(StreamBody::new(frames)).unwrap()
}

fn key() -> String {
    PrivateKey::generate().unwrap().public().to_string()
}

#[tokio::test]
async fn what_the_list_of_members_does_not_allow_ends_with_1_and_says_why() {
    let (node, key) = (Node::new(PublishMembersResponse::default()), key());
    for (args, why) in [
        (&["enroll", "node-1", &key][..], "with another key"),
        (&["enroll", "NODE", &key], "is no name of a node"),
        (&["rotate", "node-9", &key], "node-9 is no member"),
        (&["remove", "node-9"], "node-9 is no member"),
    ] {
        let (code, said) = node.run(args).await;
        assert!(code == Some(REFUSED) && said.contains(why), "{args:?}: {code:?} {said}");
    }
    assert_eq!(node.run(&["enroll", "node-2", &key]).await, (Some(OK), String::new()));
}

#[tokio::test]
async fn what_the_daemon_refuses_ends_with_1_and_what_it_cannot_tell_now_with_3() {
    for (cannot_tell_now, expected) in [(false, REFUSED), (true, CANNOT_TELL)] {
        let fault = "the store says no".to_owned();
        let node = Node::new(PublishMembersResponse { fault, cannot_tell_now, ..PublishMembersResponse::default() });
        let (code, said) = node.run(&["renew"]).await;
        assert!(code == Some(expected) && said.contains("the store says no"), "{code:?} {said}");
    }
}

#[tokio::test]
async fn wrong_usage_ends_with_2() {
    let node = Node::new(PublishMembersResponse::default());
    let other = node.path("other.pem");
    PrivateKey::generate().unwrap().write_new(&other).unwrap();
    let (other, absent) = (other.display().to_string(), node.path("absent.pem").display().to_string());
    for (args, why) in [
        (&["enroll", "node-2", "no-key"][..], "invalid value"),
        (&["renew", "--days", "0"], "invalid value"),
        (&["renew", "--authority-key", &absent], "absent.pem"),
        (&["renew", "--authority-key", &other], "no authority that this node knows"),
    ] {
        let (code, said) = node.run(args).await;
        assert!(code == Some(USAGE) && said.contains(why), "{args:?}: {code:?} {said}");
    }
}

/// What the help promises.
#[tokio::test]
async fn the_help_says_how_each_command_ends() {
    for (command, words) in [("init", "1 the file cannot be made"), ("members", "1 it is not"), ("enroll", "1 refused, 2 wrong usage")] {
        let mut asked = Command::new(env!("CARGO_BIN_EXE_countersign"));
        let help = asked.args(["cluster", command, "--help"]).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains(words), "{command}: {help}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authority.pem");
    for expected in [OK, REFUSED] {
        let mut made = Command::new(env!("CARGO_BIN_EXE_countersign"));
        let made = made.args(["cluster", "init", "--authority-key"]).arg(&file).output().unwrap();
        assert_eq!(made.status.code(), Some(expected), "{}", String::from_utf8_lossy(&made.stderr));
    }
}
