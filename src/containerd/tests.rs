use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use containerd_client::services::v1::snapshots::{Info, StatSnapshotResponse};
use containerd_client::services::v1::{
    Container, CreateImageResponse, GetContainerResponse, GetImageResponse, ListImagesResponse, ReadContentResponse, UpdateImageResponse,
};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tempfile::TempDir;
use tokio::net::UnixListener;

use super::*;

/// What the fake containerd answers: messages and a gRPC code.
type Answer = (Vec<Vec<u8>>, Code);
/// What it was asked: the path, the namespace, and the message.
type Asked = (String, String, Vec<u8>);

/// Something that speaks gRPC on a socket and answers as it is told.
struct Fake {
    directory: TempDir,
    asked: Arc<Mutex<Vec<Asked>>>,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl Fake {
    fn answering(answer: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> (Self, Containerd) {
        let mut fake = Self { directory: TempDir::new().unwrap(), asked: Arc::default(), server: None };
        fake.start(answer);
        let containerd = Containerd::new(&fake.socket());
        (fake, containerd)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("containerd.sock")
    }

    fn start(&mut self, answer: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let (answer, asked, count) = (Arc::new(answer), Arc::clone(&self.asked), Arc::new(AtomicUsize::new(0)));
        self.server = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, asked, count) = (Arc::clone(&answer), Arc::clone(&asked), Arc::clone(&count));
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let (answer, asked, count) = (Arc::clone(&answer), Arc::clone(&asked), Arc::clone(&count));
                    async move {
                        let path = request.uri().path().to_owned();
                        let namespace = request.headers()["containerd-namespace"].to_str().unwrap().to_owned();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        asked.lock().unwrap().push((path.clone(), namespace, body[5..].to_vec()));
                        Ok::<_, std::convert::Infallible>(response(answer(&path, count.fetch_add(1, Ordering::Relaxed))))
                    }
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                connections.spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        }));
    }

    async fn stop(&mut self) {
        let server = self.server.take().unwrap();
        server.abort();
        assert!(server.await.is_err());
        std::fs::remove_file(self.socket()).unwrap();
    }

    fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(path, ..)| path.rsplit_once('.').unwrap().1.to_owned()).collect()
    }

    fn message<T: Message + Default>(&self, number: usize) -> T {
        T::decode(self.asked.lock().unwrap()[number].2.as_slice()).unwrap()
    }
}

fn response((messages, code): Answer) -> Response<http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>> {
    let mut body = Vec::new();
    for message in messages {
        body.push(0);
        body.extend_from_slice(&(message.len() as u32).to_be_bytes());
        body.extend_from_slice(&message);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(code as i32));
    trailers.insert("grpc-message", HeaderValue::from_static("words%0Afrom containerd"));
    let body = Full::new(Bytes::from(body)).with_trailers(async { Some(Ok(trailers)) });
    Response::builder().header("content-type", "application/grpc").body(body.boxed()).unwrap()
}

fn ok(message: &impl Message) -> Answer {
    (vec![message.encode_to_vec()], Code::Ok)
}

fn refused(code: Code) -> Answer {
    (Vec::new(), code)
}

fn image(name: &str) -> Image {
    let target = types::Descriptor { media_type: "type".into(), digest: "sha256:00".into(), size: 7, ..types::Descriptor::default() };
    Image { name: name.into(), target: Some(target), ..Image::default() }
}

fn descriptor() -> Descriptor {
    Descriptor { media_type: "type".into(), digest: "sha256:00".into(), size: 7 }
}

#[tokio::test]
async fn many_records_are_asked_for_in_one_call_and_others_are_not_believed() {
    let (fake, containerd) = Fake::answering(|_, _| ok(&ListImagesResponse { images: vec![image("a"), image("forged")] }));
    let mut names = vec!["b\",name~=\"".to_owned(); FEW_NAMES];
    names.push("a".into());
    let records = containerd.records(&names).await.unwrap();
    assert_eq!(records, [Record { name: "a".into(), target: descriptor(), pinned: false }]);
    let asked: ListImagesRequest = fake.message(0);
    assert_eq!(asked.filters[0], r#"name=="b\U00000022\U0000002cname\U0000007e\U0000003d\U00000022""#);
    assert_eq!(asked.filters[FEW_NAMES], r#"name=="a""#);
    assert_eq!(fake.asked.lock().unwrap()[0].1, "k8s.io");
    assert_eq!(fake.paths().len(), 1);
}

#[tokio::test]
async fn few_records_are_each_asked_for_and_one_that_is_missing_is_left_out() {
    let (fake, containerd) = Fake::answering(|_, count| match count {
        0 => ok(&GetImageResponse { image: Some(image("a")) }),
        _ => refused(Code::NotFound),
    });
    let records = containerd.records(&["a".into(), "b".into()]).await.unwrap();
    assert_eq!(records, [Record { name: "a".into(), target: descriptor(), pinned: false }]);
    let asked: [GetImageRequest; 2] = [fake.message(0), fake.message(1)];
    assert_eq!(asked.map(|asked| asked.name), ["a", "b"]);
    assert!(fake.paths().iter().all(|path| path.ends_with("Images/Get")), "{:?}", fake.paths());
}

#[tokio::test]
async fn a_record_of_another_name_than_asked_for_is_not_believed() {
    let (_fake, containerd) = Fake::answering(|_, _| ok(&GetImageResponse { image: Some(image("forged")) }));
    let error = containerd.records(&["a".into()]).await.unwrap_err();
    assert!(matches!(error, ContainerdError::Malformed { call: "Images.Get", what: "name" }), "{error:?}");
}

#[tokio::test]
async fn no_names_are_no_question() {
    let (fake, containerd) = Fake::answering(|_, _| ok(&ListImagesResponse { images: vec![image("a")] }));
    assert_eq!(containerd.records(&[]).await.unwrap(), []);
    assert_eq!(fake.paths().len(), 0);
    let error = containerd.records(&vec!["a".to_owned(); MAX_NAMES + 1]).await.unwrap_err();
    assert!(matches!(error, ContainerdError::TooManyNames { limit: MAX_NAMES, .. }), "{error:?}");
}

#[tokio::test]
async fn a_tag_record_is_created_or_its_target_updated() {
    let (fake, containerd) = Fake::answering(|path, count| match (path.ends_with("/Create"), count) {
        (true, 0) => ok(&CreateImageResponse::default()),
        (true, 1) => refused(Code::AlreadyExists),
        (false, 2) => ok(&UpdateImageResponse::default()),
        (true, 3) => refused(Code::AlreadyExists),
        (false, 4) => refused(Code::NotFound),
        (true, 5) => ok(&CreateImageResponse::default()),
        other => panic!("{path} {other:?}"),
    });
    for _ in 0..3 {
        containerd.put_tag_record("r.test/a:1", &descriptor()).await.unwrap();
    }
    let methods: Vec<_> = fake.paths().iter().map(|path| path.rsplit_once('/').unwrap().1.to_owned()).collect();
    assert_eq!(methods, ["Create", "Create", "Update", "Create", "Update", "Create"]);
    let created = fake.message::<CreateImageRequest>(0).image.unwrap();
    assert_eq!((created.name.as_str(), created.target.unwrap().digest.as_str()), ("r.test/a:1", "sha256:00"));
    assert_eq!(created.labels["io.cri-containerd.image"], "managed");
    let mask = fake.message::<UpdateImageRequest>(2).update_mask.unwrap();
    assert_eq!(mask.paths, ["target", "labels.io.cri-containerd.image"]);
}

#[tokio::test]
async fn a_record_is_pinned_by_one_label_and_nothing_else_of_it_changes() {
    let (fake, containerd) = Fake::answering(|_, _| ok(&UpdateImageResponse::default()));
    let record = Record { name: "r.test/pause:1".into(), target: descriptor(), pinned: false };
    containerd.pin_record(&record).await.unwrap();
    let update = fake.message::<UpdateImageRequest>(0);
    assert_eq!(update.update_mask.unwrap().paths, ["labels.io.cri-containerd.pinned"]);
    let image = update.image.unwrap();
    assert_eq!((image.name.as_str(), image.labels["io.cri-containerd.pinned"].as_str()), ("r.test/pause:1", "pinned"));
    assert_eq!(image.target.unwrap().digest, "sha256:00", "containerd reads it whatever the mask says");
}

#[tokio::test]
async fn a_record_is_pinned_only_by_containerds_own_value() {
    for (value, pinned) in [("pinned", true), ("", false), ("true", false)] {
        let labels = [("io.cri-containerd.pinned".to_owned(), value.to_owned())].into();
        let found = Image { labels, ..image("a") };
        let (_fake, containerd) = Fake::answering(move |_, _| ok(&GetImageResponse { image: Some(found.clone()) }));
        assert_eq!(containerd.records(&["a".to_owned()]).await.unwrap()[0].pinned, pinned, "{value}");
    }
}

fn parts(content: &[u8]) -> Answer {
    let part = |data: &[u8]| ReadContentResponse { offset: 0, data: data.to_vec() }.encode_to_vec();
    (content.chunks(5).map(part).collect(), Code::Ok)
}

#[tokio::test]
async fn content_is_read_whole_counted_and_hashed() {
    let (fake, containerd) = Fake::answering(|_, count| match count {
        0..3 => parts(b"some content"),
        3 => refused(Code::NotFound),
        4 => (parts(b"some content").0, Code::NotFound),
        _ => refused(Code::Internal),
    });
    let digest = Sha256::of(b"some content");
    assert_eq!(containerd.content(&digest, 12).await.unwrap().as_deref(), Some(b"some content".as_slice()));
    assert_eq!(fake.message::<ReadContentRequest>(0).digest, format!("sha256:{digest}"));

    let error = containerd.content(&digest, 11).await.unwrap_err();
    assert!(matches!(error, ContainerdError::TooLarge { limit: 11, .. }), "{error:?}");

    let other = Sha256::of(b"other content");
    let error = containerd.content(&other, 12).await.unwrap_err();
    assert!(matches!(error, ContainerdError::Mismatch { found, .. } if found == digest), "{error:?}");
    assert_eq!(ContentError::from(error).standing(), Standing::Bad);

    assert_eq!(containerd.content(&digest, 12).await.unwrap(), None);
    assert_eq!(containerd.content(&digest, 12).await.unwrap(), None, "not found after the first part");
    let error = containerd.content(&digest, 12).await.unwrap_err();
    assert_eq!(error.to_string(), "containerd refused Content.Read with Internal: words\\nfrom containerd");
}

#[tokio::test]
async fn a_container_and_its_snapshot_are_found_or_absent() {
    let spec =
        br#"{"linux":{"uidMappings":[{"containerID":0,"hostID":9,"size":5}],"gidMappings":[{"containerID":0,"hostID":8,"size":5}]}}"#;
    let (_fake, containerd) = Fake::answering(|path, count| match (path.rsplit_once('/').unwrap().1, count) {
        ("Get", 0) => ok(&GetContainerResponse {
            container: Some(Container {
                image: "r.test/a:1".into(),
                snapshotter: "overlayfs".into(),
                snapshot_key: "key".into(),
                spec: Some(prost_types::Any { type_url: "spec".into(), value: spec.to_vec() }),
                ..Container::default()
            }),
        }),
        ("Stat", 1) => ok(&StatSnapshotResponse { info: Some(Info { parent: "sha256:11".into(), ..Info::default() }) }),
        ("Get", 4) => ok(&GetContainerResponse::default()),
        _ => refused(Code::NotFound),
    });
    let found = containerd.container("id").await.unwrap().unwrap();
    assert_eq!((found.image.as_str(), found.snapshotter.as_str(), found.snapshot_key.as_str()), ("r.test/a:1", "overlayfs", "key"));
    assert_eq!(found.id_mapping, Some(IdMapping { host_uid: 9, host_gid: 8, size: 5 }));
    assert_eq!(containerd.snapshot_parent("overlayfs", "key").await.unwrap().as_deref(), Some("sha256:11"));
    assert_eq!(containerd.container("id").await.unwrap(), None);
    assert_eq!(containerd.snapshot_parent("overlayfs", "key").await.unwrap(), None);
    let error = containerd.container("id").await.unwrap_err();
    assert!(matches!(error, ContainerdError::Malformed { what: "container", .. }), "{error:?}");
}

#[tokio::test]
async fn a_containerd_that_is_away_is_unreachable_and_found_again() {
    let answer = |_: &str, _: usize| ok(&StatSnapshotResponse { info: Some(Info::default()) });
    let (mut fake, containerd) = Fake::answering(answer);
    assert_eq!(containerd.snapshot_parent("overlayfs", "key").await.unwrap().as_deref(), Some(""));
    fake.stop().await;
    for _ in 0..2 {
        let error = containerd.snapshot_parent("overlayfs", "key").await.unwrap_err();
        assert!(matches!(error, ContainerdError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("containerd.sock"), "{error}");
    }
    fake.start(answer);
    assert_eq!(containerd.snapshot_parent("overlayfs", "key").await.unwrap().as_deref(), Some(""));
}

#[tokio::test(start_paused = true)]
async fn a_silent_containerd_is_given_up_at_the_deadline() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("containerd.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let containerd = Containerd::new(&socket);
    let begin = tokio::time::Instant::now();
    let error = containerd.content(&Sha256::of(b""), 1).await.unwrap_err();
    assert!(matches!(error, ContainerdError::Deadline { limit: CALL_DEADLINE, .. }), "{error:?}");
    assert!(begin.elapsed() < CALL_DEADLINE * 2);
    assert_eq!(ContentError::from(error).standing(), Standing::CannotTell);
}
