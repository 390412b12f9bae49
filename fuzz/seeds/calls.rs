//! CRI messages as kubelet and containerd write them.

use std::collections::HashMap;

use k8s_cri::v1;
use prost::Message as _;

/// As `fuzz/src/cri_messages.rs` chooses: the call and the new name.
const PULL: u8 = 0;
const CREATE: u8 = 1;
const START: u8 = 2;
const ANSWER: u8 = 3;
const SANDBOX: u8 = 4;

pub(crate) fn all() -> impl Iterator<Item = Vec<u8>> {
    let pull = v1::PullImageRequest { image: Some(image()), auth: Some(auth()), sandbox_config: Some(sandbox()) };
    let bare = v1::PullImageRequest { image: Some(image()), ..v1::PullImageRequest::default() };
    let create = v1::CreateContainerRequest { pod_sandbox_id: "pod".into(), config: Some(config()), sandbox_config: Some(sandbox()) };
    let start = v1::StartContainerRequest { container_id: "0123abcd".into() };
    let status = v1::ImageStatusResponse { image: Some(record()), info: HashMap::from([("info".into(), "{}".into())]) };
    let run = v1::RunPodSandboxRequest { config: Some(sandbox()), runtime_handler: "kata".into() };
    let node = v1::StatusResponse {
        info: HashMap::from([("config".into(), "{\"sandboxImage\":\"registry.example/pause:3\"}".into()), ("golang".into(), "go".into())]),
        ..v1::StatusResponse::default()
    };
    let of_sandbox = v1::PodSandboxStatusResponse {
        status: Some(v1::PodSandboxStatus { id: "p".into(), metadata: sandbox().metadata, ..Default::default() }),
        ..Default::default()
    };
    let of_container =
        v1::ContainerStatusResponse { status: Some(v1::ContainerStatus { id: "c".into(), ..Default::default() }), ..Default::default() };
    let messages = [
        (PULL, pull.encode_to_vec()),
        (PULL, bare.encode_to_vec()),
        // A field that no version knows yet, in the image too.
        (PULL, b"\x0a\x0b\xa2\x06\x02hi\x0a\x01a\xa0\x06\x07\xa2\x06\x01x".to_vec()),
        (CREATE, create.encode_to_vec()),
        (START, start.encode_to_vec()),
        (ANSWER, status.encode_to_vec()),
        (ANSWER, of_container.encode_to_vec()),
        (ANSWER, node.encode_to_vec()),
        (SANDBOX, run.encode_to_vec()),
        (SANDBOX, of_sandbox.encode_to_vec()),
    ];
    messages.into_iter().flat_map(|(call, message)| (0..4).map(move |name| [&[call, name], message.as_slice()].concat()))
}

fn image() -> v1::ImageSpec {
    v1::ImageSpec {
        image: "registry.example:5000/acme/web:2".into(),
        annotations: HashMap::from([("key".into(), "value".into())]),
        user_specified_image: "web:2".into(),
        runtime_handler: "runc".into(),
    }
}

fn auth() -> v1::AuthConfig {
    v1::AuthConfig { username: "user".into(), password: "password".into(), server_address: "registry".into(), ..v1::AuthConfig::default() }
}

fn sandbox() -> v1::PodSandboxConfig {
    let metadata = v1::PodSandboxMetadata { name: "web".into(), uid: "1".into(), namespace: "shop".into(), attempt: 3 };
    v1::PodSandboxConfig { metadata: Some(metadata), hostname: "web".into(), ..v1::PodSandboxConfig::default() }
}

fn config() -> v1::ContainerConfig {
    let mount = v1::Mount { container_path: "/models".into(), image: Some(image()), ..v1::Mount::default() };
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "web".into(), attempt: 2 }),
        image: Some(image()),
        command: vec!["run".into()],
        mounts: vec![mount, v1::Mount { host_path: "/etc".into(), ..v1::Mount::default() }],
        tty: true,
        ..v1::ContainerConfig::default()
    }
}

fn record() -> v1::Image {
    v1::Image {
        id: "sha256:0".into(),
        repo_tags: vec!["a:1".into(), "a:2".into()],
        repo_digests: vec!["a@sha256:0".into()],
        ..v1::Image::default()
    }
}
