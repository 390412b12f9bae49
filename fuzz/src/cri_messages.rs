//! The strict reader of CRI messages, and the changes to them.
//!
//! Strict bytes have one reading: written anew, they are the same bytes. What is read is what generated types read, and
//! what containerd's lenient reader takes from the same bytes. A changed message has the new name for all of them, is
//! otherwise equal, and changed back it is the old one to the byte.

mod lenient;

use countersign::cri::messages::{self, CreateContainerRequest, ImageSpec, PodSandboxMetadata, PullImageRequest, StartContainerRequest};
use countersign::cri::patch;
use countersign::cri::wire::{Fields, Value, WireError};
use k8s_cri::v1;
use prost::Message as _;

use crate::choices::Choices;

/// Names that a message is given: short, empty, and so long that every length on the way to it grows.
const NAMES: [&str; 4] = ["x", "", "registry.example:5000/acme/web", LONG_NAME];
const LONG_NAME: &str = "registry.example:5000/a-path-that-is-longer-than-a-length-of-one-byte-can-say/a-path-that-is-longer-than-a-length-of-one-byte-can-say@sha256:0123456789abcdef";

/// The first byte chooses the call, the second the new name; the rest is the message.
pub fn check(data: &[u8]) {
    let mut choices = Choices::new(data);
    let call = choices.byte() % 5;
    let name = choices.one_of(&NAMES).copied().unwrap_or_default();
    let message = choices.rest();
    check_fields(message);
    match call {
        0 => check_pull(message, name),
        1 => check_create(message, name),
        2 => check_start(message, name),
        3 => check_answers(message),
        _ => check_sandboxes(message),
    }
}

fn check_fields(message: &[u8]) {
    let mut again = Vec::new();
    for field in Fields::new("Message", message) {
        let Ok(field) = field else { return };
        let (wire_type, content) = match field.value {
            Value::Varint(value) => (0, varint(value)),
            Value::Fixed64(bytes) => (1, bytes.to_vec()),
            Value::Bytes(bytes) => (2, [varint(bytes.len() as u64), bytes.to_vec()].concat()),
            Value::Fixed32(bytes) => (5, bytes.to_vec()),
        };
        again.extend(varint(u64::from(field.number) << 3 | wire_type));
        assert_eq!(field.after_tag.start, again.len());
        again.extend(content);
        assert_eq!(field.after_tag.end, again.len());
    }
    assert_eq!(again, message, "strict bytes can be written in another way");
}

fn varint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(value, &mut out);
    out
}

/// What became of a change. One that was refused must have had nothing to change.
fn changed(patched: Result<impl AsRef<[u8]>, WireError>, old: &str) -> Option<Vec<u8>> {
    match patched {
        Ok(patched) => Some(patched.as_ref().to_vec()),
        Err(WireError::Missing { .. }) => {
            assert_eq!(old, "", "a message that has a name cannot be given another");
            None
        }
        Err(error) => panic!("what was read cannot be changed: {error}"),
    }
}

// === PullImage ===

const IMAGE_OF_PULL: &[u32] = &[1, 1];

fn check_pull(message: &[u8], name: &str) {
    let Ok(read) = PullImageRequest::read(message) else { return };
    check_pull_reading(message, &read);
    let old = read.image.image.clone();
    let Some(patched) = changed(patch::pull_image_name(message, name), &old) else { return };
    let expected = PullImageRequest { image: ImageSpec { image: name.to_owned(), ..read.image }, ..read };
    assert_eq!(PullImageRequest::read(&patched).as_ref(), Ok(&expected));
    check_pull_reading(&patched, &expected);
    assert_eq!(&patch::pull_image_name(&patched, &old).expect("it was changed before")[..], message);
}

fn check_pull_reading(message: &[u8], read: &PullImageRequest) {
    check_string(message, IMAGE_OF_PULL, &read.image.image);
    check_string(message, &[1, 18], &read.image.user_specified_image);
    check_string(message, &[1, 19], &read.image.runtime_handler);
    check_string(message, &[1, 20], &read.image.image_ref);
    check_pod(message, [3, 1], read.sandbox.as_ref());
    check_string(message, &[2, 2], read.auth.as_ref().map_or("", |auth| &auth.password));
    let Ok(other) = v1::PullImageRequest::decode(message) else { return };
    check_spec(&read.image, other.image);
    let sandbox = other.sandbox_config.and_then(|config| config.metadata);
    check_sandbox(read.sandbox.as_ref(), sandbox);
    let auth = read.auth.as_ref().map(|auth| {
        [&auth.username, &auth.password, &auth.auth, &auth.server_address, &auth.identity_token, &auth.registry_token].map(Clone::clone)
    });
    let others =
        other.auth.map(|auth| [auth.username, auth.password, auth.auth, auth.server_address, auth.identity_token, auth.registry_token]);
    assert_eq!(auth, others);
}

fn check_string(message: &[u8], path: &[u32], read: &str) {
    if let Ok(found) = lenient::string(message, path) {
        assert_eq!(String::from_utf8_lossy(&found), read, "containerd reads another {path:?}");
    }
}

fn check_spec(read: &ImageSpec, other: Option<v1::ImageSpec>) {
    let other = other.expect("a generated type has the image, too");
    assert_eq!(
        (&read.image, &read.user_specified_image, &read.runtime_handler),
        (&other.image, &other.user_specified_image, &other.runtime_handler)
    );
}

fn check_sandbox(read: Option<&PodSandboxMetadata>, other: Option<v1::PodSandboxMetadata>) {
    let read = read.map(|pod| (pod.name.as_str(), pod.uid.as_str(), pod.namespace.as_str()));
    assert_eq!(read, other.as_ref().map(|pod| (pod.name.as_str(), pod.uid.as_str(), pod.namespace.as_str())));
}

// === CreateContainer ===

const IMAGE_OF_CREATE: &[u32] = &[2, 2, 1];

fn check_create(message: &[u8], name: &str) {
    let Ok(read) = CreateContainerRequest::read(message) else { return };
    check_create_reading(message, &read);
    let old = read.image.image.clone();
    let Some(patched) = changed(patch::create_container_image(message, name), &old) else { return };
    let expected = CreateContainerRequest { image: ImageSpec { image: name.to_owned(), ..read.image }, ..read };
    assert_eq!(CreateContainerRequest::read(&patched).as_ref(), Ok(&expected));
    check_create_reading(&patched, &expected);
    assert_eq!(&patch::create_container_image(&patched, &old).expect("it was changed before")[..], message);
}

fn check_create_reading(message: &[u8], read: &CreateContainerRequest) {
    check_string(message, IMAGE_OF_CREATE, &read.image.image);
    check_string(message, &[2, 2, 18], &read.image.user_specified_image);
    check_string(message, &[1], &read.pod_sandbox_id);
    check_string(message, &[2, 1, 1], &read.container_name);
    check_pod(message, [3, 1], read.sandbox.as_ref());
    check_last_volume(message, read);
    let Ok(other) = v1::CreateContainerRequest::decode(message) else { return };
    let config = other.config.expect("a generated type has the configuration, too");
    check_spec(&read.image, config.image);
    assert_eq!((&read.pod_sandbox_id, &read.container_name), (&other.pod_sandbox_id, &config.metadata.unwrap_or_default().name));
    check_sandbox(read.sandbox.as_ref(), other.sandbox_config.and_then(|config| config.metadata));
    let mounts = config.mounts.into_iter().filter_map(|mount| Some((mount.container_path, mount.image?.image)));
    let read: Vec<_> = read.image_mounts.iter().map(|mount| (mount.container_path.clone(), mount.image.image.clone())).collect();
    assert_eq!(read, mounts.collect::<Vec<_>>(), "another mount of an image");
}

/// The image of a lone mount as containerd reads it: of several, the lenient reader gives the last string alone.
fn check_last_volume(message: &[u8], read: &CreateContainerRequest) {
    let Ok(mounts) = lenient::all(message, &[2, 7]) else { return };
    match (mounts.len(), read.image_mounts.as_slice()) {
        (1, [mount]) => {
            check_string(message, &[2, 7, 1], &mount.container_path);
            check_string(message, &[2, 7, 9, 1], &mount.image.image);
            check_string(message, &[2, 7, 9, 18], &mount.image.user_specified_image);
        }
        (1, []) => check_string(message, &[2, 7, 9, 1], ""),
        (mounts, volumes) => assert!(volumes.len() <= mounts, "more volumes than mounts"),
    }
}

// === StartContainer, and answers ===

fn check_start(message: &[u8], name: &str) {
    let Ok(read) = StartContainerRequest::read(message) else { return };
    check_string(message, &[1], &read.container_id);
    if let Ok(other) = v1::StartContainerRequest::decode(message) {
        assert_eq!(read.container_id, other.container_id);
    }
    let Some(patched) = changed(patch::start_container_id(message, name), &read.container_id) else { return };
    assert_eq!(StartContainerRequest::read(&patched), Ok(StartContainerRequest { container_id: name.to_owned() }));
    check_string(&patched, &[1], name);
    assert_eq!(&patch::start_container_id(&patched, &read.container_id).expect("it was changed before")[..], message);
}

fn check_answers(message: &[u8]) {
    if let (Ok(read), Ok(other)) = (messages::image_status_response(message), v1::ImageStatusResponse::decode(message)) {
        let read = read.map(|image| (image.id, image.repo_tags, image.repo_digests));
        assert_eq!(read, other.image.map(|image| (image.id, image.repo_tags, image.repo_digests)));
    }
    if let Ok(read) = messages::container_status_response(message) {
        check_string(message, &[1, 1], &read);
        if let Ok(other) = v1::ContainerStatusResponse::decode(message) {
            assert_eq!(Some(read), other.status.map(|status| status.id));
        }
    }
    if let (Ok(read), Ok(other)) = (messages::pull_image_response(message), v1::PullImageResponse::decode(message)) {
        assert_eq!(read, other.image_ref);
    }
    for read in [messages::create_container_response(message), messages::run_pod_sandbox_response(message)].into_iter().flatten() {
        check_string(message, &[1], &read);
    }
    check_status(message);
}

/// The sandboxes' image is the one of an entry that containerd calls its configuration, and of no other.
fn check_status(message: &[u8]) {
    let (Ok(read), Ok(other)) = (messages::status_response(message), v1::StatusResponse::decode(message)) else { return };
    // Of an entry that stands twice, ours is the first one. containerd writes each once.
    let keys = lenient::all(message, &[2, 1]).unwrap_or_default();
    let (Some(read), 1) = (read, keys.iter().filter(|&&key| key == b"config").count()) else { return };
    let config: serde_json::Value = serde_json::from_str(&other.info["config"]).expect("what was read is JSON");
    assert_eq!(config["sandboxImage"], read);
}

// === Sandboxes ===

fn check_sandboxes(message: &[u8]) {
    if let Ok(read) = messages::RunPodSandboxRequest::read(message) {
        check_string(message, &[2], &read.runtime_handler);
        check_pod(message, [1, 1], read.sandbox.as_ref());
        if let Ok(other) = v1::RunPodSandboxRequest::decode(message) {
            assert_eq!(read.runtime_handler, other.runtime_handler);
            check_sandbox(read.sandbox.as_ref(), other.config.and_then(|config| config.metadata));
        }
    }
    let Ok((id, pod)) = messages::pod_sandbox_status_response(message) else { return };
    check_string(message, &[1, 1], &id);
    check_pod(message, [1, 2], pod.as_ref());
    if let Ok(other) = v1::PodSandboxStatusResponse::decode(message) {
        let other = other.status.expect("a generated type has the status, too");
        assert_eq!(id, other.id);
        check_sandbox(pod.as_ref(), other.metadata);
    }
}

/// The pod, whose metadata stand at `path`, as containerd reads it.
fn check_pod(message: &[u8], path: [u32; 2], read: Option<&PodSandboxMetadata>) {
    let strings = read.map_or(["", "", ""], |pod| [&pod.name, &pod.uid, &pod.namespace]);
    for (number, string) in (1..).zip(strings) {
        check_string(message, &[path[0], path[1], number], string);
    }
}
