//! Messages that two parsers could read in two ways, and bytes that are no messages.

use http::Method;
use k8s_cri::v1::{CreateContainerRequest, KeyValue};
use prost::Message as _;

use super::super::harness::containerd::Version;
use super::super::harness::cri::{Pod, container};
use super::super::harness::image::Recipe;
use super::raw::{Raw, field, frame};
use super::{Scene, assert_denied};

on_every_containerd! {
    an_env_that_is_not_utf_8_and_fields_of_later_versions_reach_containerd,
}

const PULL: &str = "/runtime.v1.ImageService/PullImage";
const CREATE: &str = "/runtime.v1.RuntimeService/CreateContainer";
const START: &str = "/runtime.v1.RuntimeService/StartContainer";
const RUN: &str = "/runtime.v1.RuntimeService/RunPodSandbox";
const INVALID_ARGUMENT: Option<u32> = Some(3);
const UNIMPLEMENTED: Option<u32> = Some(12);
const INTERNAL: Option<u32> = Some(13);
/// 2^32 + 1: a reader that cuts field numbers to 32 bits takes it for field 1.
const WRAPPED: u64 = (1 << 32) + 1;

/// `CreateContainerRequest` with this encoded configuration.
fn create(pod: &Pod, config: &[u8]) -> Vec<u8> {
    let mut message = field(1, pod.id.as_bytes());
    message.extend(field(2, config));
    message.extend(field(3, &pod.config.encode_to_vec()));
    message
}

#[tokio::test]
async fn a_message_that_could_be_read_in_two_ways_is_refused() {
    let scene = Scene::new("a_message_that_could_be_read_in_two_ways").await;
    let id = scene.pull().await;
    let evil = scene.world.push(&Recipe::prints("evil").build(), "other/app", "1").await;
    let evil_id = scene.behind().pull(&evil).await.unwrap();
    let (pod, raw) = (scene.pod().await, Raw::new(&scene.gate().socket()));
    let spec = |name: &str| field(1, name.as_bytes());
    let both = [spec(&scene.name), spec(&evil)].concat();
    let good = container(&id, &scene.name).encode_to_vec();
    let bad = container(&evil_id, &evil).encode_to_vec();
    let image = |content: &[u8]| field(2, content);
    let metadata = field(1, &field(1, b"container"));
    let whole = create(&pod, &good);
    let cases: [(&str, Vec<u8>, &str); 16] = [
        (PULL, [field(1, &spec(&scene.name)), field(1, &spec(&evil))].concat(), "PullImageRequest.image stands more than once"),
        (PULL, field(1, &both), "ImageSpec.image stands more than once"),
        (PULL, [field(1, &spec(&scene.name)), field(WRAPPED, &spec(&evil))].concat(), "PullImageRequest has "),
        (PULL, field(1, &[spec(&scene.name), field(WRAPPED, evil.as_bytes())].concat()), "ImageSpec has "),
        (PULL, [vec![0x8a, 0x80, 0x80, 0x80, 0x00], field(0, b"")].concat(), "PullImageRequest has a varint"),
        (PULL, field(1, &[&[0x0a, 0x80 | 2, 0][..], b"ab"].concat()), "ImageSpec has a varint"),
        (PULL, field(1, &field(1, b"caf\xe9")), "ImageSpec.image is not UTF-8"),
        (PULL, vec![0x08, 1], "PullImageRequest.image has the wrong wire type"),
        (PULL, vec![0x0b, 0x0c], "of wire type 3"),
        (PULL, Vec::new(), "PullImageRequest.image is missing"),
        (CREATE, [create(&pod, &good), field(2, &bad)].concat(), "CreateContainerRequest.config stands more than once"),
        (CREATE, create(&pod, &[good.clone(), image(&spec(&evil_id))].concat()), "ContainerConfig.image stands more than once"),
        (CREATE, create(&pod, &[good.clone(), field((1 << 32) + 2, &spec(&evil_id))].concat()), "ContainerConfig has "),
        (CREATE, create(&pod, &[metadata, image(&[spec(&id), spec(&evil_id)].concat())].concat()), "ImageSpec.image stands more than once"),
        (CREATE, whole[..whole.len() - 3].to_vec(), "ends inside a field"),
        (START, [field(1, id.as_bytes()), field(1, evil_id.as_bytes())].concat(), "container_id stands more than once"),
    ];
    for (path, message, says) in cases {
        let answer = raw.post(path, frame(&message)).await;
        assert_eq!(answer.status, INVALID_ARGUMENT, "{says}: {answer:?}");
        assert!(answer.text.starts_with("countersign refused the request: ") && answer.text.contains(says), "{says}: {answer:?}");
    }
    scene.runs_nothing().await;
    scene.runs_the_signed_image().await;
}

#[tokio::test]
async fn what_is_not_exactly_one_frame_is_refused() {
    let scene = Scene::new("what_is_not_exactly_one_frame").await;
    let raw = Raw::new(&scene.gate().socket());
    let good = frame(&field(1, &field(1, scene.name.as_bytes())));
    let evil = frame(&field(1, &field(1, b"other/app:1")));
    let compressed = [&[1], &good[1..]].concat();
    let huge = vec![0; 17 << 20];
    let cases: [(&str, Vec<u8>, Option<u32>, &str); 9] = [
        ("two frames", [good.clone(), evil].concat(), INVALID_ARGUMENT, "more bytes follow"),
        ("a byte after the frame", [&good[..], &[0]].concat(), INVALID_ARGUMENT, "more bytes follow"),
        ("the flag of compression alone", compressed, INTERNAL, "no grpc-encoding is named"),
        ("another flag", [&[2], &good[1..]].concat(), INVALID_ARGUMENT, "the flag byte 2"),
        ("a truncated frame", good[..good.len() - 1].to_vec(), INVALID_ARGUMENT, "ends after"),
        ("a truncated prefix", good[..3].to_vec(), INVALID_ARGUMENT, "ends after 3 of 5 bytes"),
        ("nothing", Vec::new(), INVALID_ARGUMENT, "there is no message"),
        ("17 MiB", frame(&huge), INVALID_ARGUMENT, "at most 16777216 are read"),
        ("a length of 4 GiB", vec![0, 255, 255, 255, 255, 0], INVALID_ARGUMENT, "4294967295 bytes"),
    ];
    for (what, body, status, says) in cases {
        for path in [PULL, CREATE, START] {
            let answer = raw.post(path, body.clone()).await;
            assert_eq!(answer.status, status, "{what} to {path}: {answer:?}");
            assert!(answer.text.contains(says), "{what}: {answer:?}");
        }
    }
    let headers = [("content-type", "application/grpc"), ("grpc-encoding", "gzip")];
    let answer = raw.send(Method::POST, PULL, &headers, [&[1], &good[1..]].concat()).await;
    assert_eq!((answer.status, answer.text.contains("compressed with gzip")), (UNIMPLEMENTED, true), "{answer:?}");
    let sixteen_mebibytes = frame(&field(1, &field(1, &huge[..(16 << 20) - 10])));
    let answer = raw.post(PULL, sixteen_mebibytes).await;
    assert_eq!(answer.status, Some(2), "the longest message is read, and its name refused: {answer:?}");
    assert!(answer.text.contains("CS-NAME"), "{answer:?}");
    scene.runs_nothing().await;
    scene.runs_the_signed_image().await;
}

#[tokio::test]
async fn random_bytes_do_not_stop_the_gate() {
    let scene = Scene::new("random_bytes").await;
    let raw = Raw::new(&scene.gate().socket());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        // xorshift64: the same bytes in every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..100 {
        let length = usize::try_from(next() % 300).unwrap();
        let bytes: Vec<u8> = (0..length).map(|_| next().to_le_bytes()[0]).collect();
        let path = [PULL, CREATE, START, RUN][round / 2 % 4];
        let body = if round % 2 == 0 { frame(&bytes) } else { bytes };
        let answer = raw.post(path, body).await;
        assert!(answer.status.is_some_and(|status| status != 0), "{answer:?}");
    }
    scene.runs_nothing().await;
    scene.runs_the_signed_image().await;
}

async fn an_env_that_is_not_utf_8_and_fields_of_later_versions_reach_containerd(containerd: Version) {
    let scene = Scene::with(containerd, "an_env_that_is_not_utf_8", &Recipe::shell("echo \"odd=$ODD plain=$PLAIN\"")).await;
    let id = scene.pull().await;
    let (pod, raw) = (scene.pod().await, Raw::new(&scene.gate().socket()));
    let mut config = container(&id, &scene.name);
    config.envs = vec![KeyValue { key: "PLAIN".into(), value: "yes".into() }];
    let mut config = config.encode_to_vec();
    config.extend(field(6, &[field(1, b"ODD"), field(2, b"\xff\xfe")].concat()));
    // stop_signal, which is newer than the types that this project is built with, and a field of no version.
    config.extend([0x90, 0x01, 9]);
    config.extend(field(4000, b"of a later version"));
    let mut message = create(&pod, &config);
    message.extend(field(5000, b"of a later version"));
    assert!(CreateContainerRequest::decode(message.as_slice()).is_err(), "decoding it as the types have it fails");

    let answer = raw.post(CREATE, frame(&message)).await;

    assert_eq!(answer.status, Some(0), "{answer:?}");
    let made = scene.behind().list_containers().await.unwrap();
    assert_eq!(made.len(), 1);
    assert_eq!(scene.root_of(&made[0].id).await, scene.image.chain_id().to_string());
    scene.cri().start(&made[0].id).await.unwrap();
    assert_eq!(scene.cri().first_output(&made[0].id).await.unwrap(), "odd=\u{fffd}\u{fffd} plain=yes\n");
    // The same message for another image is refused: unknown fields do not hide it.
    let evil = scene.behind().pull(&scene.world.push(&Recipe::prints("evil").build(), "other/app", "1").await).await.unwrap();
    let refused = scene.cri().create(&pod, container(&evil, &scene.name)).await.unwrap_err();
    assert_denied(&refused, "CS-OTHER-IMAGE");
}
