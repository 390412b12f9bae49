use proptest::prelude::*;

use super::*;
use crate::resolve::{Kind, Service};

fn sandbox(namespace: &str) -> v1::PodSandboxConfig {
    let metadata = v1::PodSandboxMetadata { name: "pod".into(), uid: "0-1".into(), namespace: namespace.into(), attempt: 3 };
    v1::PodSandboxConfig {
        metadata: Some(metadata),
        hostname: "host".into(),
        labels: [("io.kubernetes.pod.name".into(), "pod".into())].into(),
        annotations: [("a".into(), "b".into())].into(),
        dns_config: Some(v1::DnsConfig::default()),
        port_mappings: vec![v1::PortMapping::default()],
        linux: Some(v1::LinuxPodSandboxConfig::default()),
        ..v1::PodSandboxConfig::default()
    }
}

fn spec(image: &str, user: &str) -> v1::ImageSpec {
    v1::ImageSpec {
        image: image.into(),
        user_specified_image: user.into(),
        annotations: [("k".into(), "v".into())].into(),
        runtime_handler: "kata".into(),
    }
}

fn mount(path: &str, image: Option<v1::ImageSpec>) -> v1::Mount {
    v1::Mount {
        container_path: path.into(),
        readonly: true,
        uid_mappings: vec![v1::IdMapping::default(); 2],
        image,
        ..v1::Mount::default()
    }
}

fn create(image: &str, user: &str, mounts: Vec<v1::Mount>) -> v1::CreateContainerRequest {
    let config = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "app".into(), attempt: 2 }),
        image: Some(spec(image, user)),
        command: vec!["a".into(), "b".into()],
        envs: vec![v1::KeyValue { key: "k".into(), value: "v".into() }; 2],
        mounts,
        tty: true,
        linux: Some(v1::LinuxContainerConfig::default()),
        ..v1::ContainerConfig::default()
    };
    v1::CreateContainerRequest { pod_sandbox_id: "s".into(), config: Some(config), sandbox_config: Some(sandbox("ns")) }
}

#[test]
fn a_pull_is_read_with_its_credential_and_pod() {
    let auth = v1::AuthConfig {
        username: "u".into(),
        password: "secret".into(),
        auth: "a".into(),
        server_address: "s".into(),
        identity_token: "i".into(),
        registry_token: "r".into(),
    };
    let sent = v1::PullImageRequest { image: Some(spec("reg/app:1", "app")), auth: Some(auth), sandbox_config: Some(sandbox("ns")) };
    let read = PullImageRequest::read(&sent.encode_to_vec()).unwrap();
    assert_eq!((read.image.image.as_str(), read.image.user_specified_image.as_str()), ("reg/app:1", "app"));
    assert_eq!(read.image.runtime_handler, "kata");
    let service = Service { namespace: "ns".into(), kind: Kind::Pod, name: "pod".into() };
    let revision = Some(Revision { service, id: "0-1".into() });
    let metadata = PodSandboxMetadata { name: "pod".into(), uid: "0-1".into(), namespace: "ns".into(), attempt: 3, revision };
    assert_eq!(read.sandbox.as_ref(), Some(&metadata));
    assert!(!format!("{read:?}").contains("secret"));
    let auth = read.auth.unwrap();
    let fields = [auth.username, auth.password, auth.auth, auth.server_address, auth.identity_token, auth.registry_token];
    assert_eq!(fields, ["u", "secret", "a", "s", "i", "r"]);
}

#[test]
fn a_pull_without_credential_and_pod_is_read() {
    let read = PullImageRequest::read(&pull_image_request("reg/app:1")).unwrap();
    assert_eq!((read.image.image.as_str(), read.auth, read.sandbox), ("reg/app:1", None, None));
}

#[test]
fn a_create_is_read_with_the_mounts_that_name_an_image_in_their_order() {
    let mounts = vec![mount("/a", None), mount("/b", Some(spec("sha256:1", "vol:1"))), mount("/c", Some(v1::ImageSpec::default()))];
    let read = CreateContainerRequest::read(&create("sha256:0", "app", mounts).encode_to_vec()).unwrap();
    assert_eq!((read.pod_sandbox_id.as_str(), read.container_name.as_str(), read.attempt), ("s", "app", 2));
    assert_eq!(read.image.image, "sha256:0");
    assert_eq!(read.sandbox.unwrap().namespace, "ns");
    let mounts: Vec<_> = read.image_mounts.iter().map(|mount| (mount.container_path.as_str(), mount.image.image.as_str())).collect();
    assert_eq!(mounts, [("/b", "sha256:1"), ("/c", "")]);
}

/// Kubernetes 1.36 sends fields that k8s-cri 0.11 does not have.
#[test]
fn fields_of_cri_v0_36_are_read_or_passed_over() {
    let mut image = spec("sha256:1", "vol:1").encode_to_vec();
    image.extend(b"\xa2\x01\x03ref");
    let mut mount = b"\x4a".to_vec();
    prost::encoding::encode_varint(image.len() as u64, &mut mount);
    mount.extend(&image);
    mount.extend(b"\x52\x03sub\x5a\x02rw");
    let mut config = v1::ContainerConfig { image: Some(spec("a", "b")), ..v1::ContainerConfig::default() }.encode_to_vec();
    config.push(0x3a);
    prost::encoding::encode_varint(mount.len() as u64, &mut config);
    config.extend(&mount);
    config.extend(b"\x90\x01\x0f");
    let mut request = vec![0x12];
    prost::encoding::encode_varint(config.len() as u64, &mut request);
    request.extend(&config);
    let read = CreateContainerRequest::read(&request).unwrap();
    assert_eq!(read.image_mounts[0].image.image_ref, "ref");
}

#[test]
fn an_env_that_is_not_utf8_is_containerds_business() {
    let message = create("a", "b", vec![]).encode_to_vec();
    let at = message.windows(6).position(|window| window == b"\x0a\x01k\x12\x01v").unwrap();
    let mut message = message;
    message[at + 5] = 0xff;
    assert!(v1::CreateContainerRequest::decode(&message[..]).is_err());
    assert_eq!(CreateContainerRequest::read(&message).unwrap().image.image, "a");
}

#[test]
fn the_other_messages_are_read() {
    let start = v1::StartContainerRequest { container_id: "c".into() }.encode_to_vec();
    assert_eq!(StartContainerRequest::read(&start).unwrap().container_id, "c");
    let run = v1::RunPodSandboxRequest { config: Some(sandbox("ns")), runtime_handler: "kata".into() }.encode_to_vec();
    let run = RunPodSandboxRequest::read(&run).unwrap();
    assert_eq!((run.sandbox.unwrap().namespace.as_str(), run.runtime_handler.as_str()), ("ns", "kata"));
    let image =
        v1::Image { id: "i".into(), repo_tags: vec!["t".into()], repo_digests: vec!["d".into(); 2], size: 9, ..v1::Image::default() };
    let status = v1::ImageStatusResponse { image: Some(image), info: [("info".into(), "{}".into())].into() }.encode_to_vec();
    let image = Image { id: "i".into(), repo_tags: vec!["t".into()], repo_digests: vec!["d".into(); 2] };
    assert_eq!(image_status_response(&status), Ok(Some(image)));
    assert_eq!(image_status_response(&[]), Ok(None));
    assert_eq!(pull_image_response(b"\x0a\x01x"), Ok("x".into()));
    assert_eq!(create_container_response(b"\x0a\x01x"), Ok("x".into()));
    assert_eq!(run_pod_sandbox_response(b"\x0a\x01x"), Ok("x".into()));
}

#[test]
fn our_own_requests_ask_for_what_they_should() {
    let request = v1::ContainerStatusRequest::decode(container_status_request("c")).unwrap();
    assert_eq!((request.container_id.as_str(), request.verbose), ("c", true));
    assert_eq!(v1::RemoveContainerRequest::decode(remove_container_request("c")).unwrap().container_id, "c");
    assert_eq!(v1::ImageStatusRequest::decode(image_status_request("i")).unwrap().image.unwrap().image, "i");
    assert!(v1::PodSandboxStatusRequest::decode(pod_sandbox_status_request("s")).unwrap().verbose);
}

/// Puts `twice` behind a message that has the field already, at each level of the way to an image.
fn nested(path: &[u8], inner: &[u8]) -> Vec<u8> {
    path.iter().rev().fold(inner.to_vec(), |inner, number| {
        let mut outer = vec![number << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        outer.extend(inner);
        outer
    })
}

#[test]
fn a_singular_field_that_stands_twice_is_refused_on_every_level() {
    let repeated = |message, field| Err(WireError::Repeated { message, field });
    let twice = |path: &[u8], field: &[u8]| nested(path, &field.repeat(2));
    let pull = |message: Vec<u8>| PullImageRequest::read(&[nested(&[1], b""), message].concat()).map(drop);
    assert_eq!(pull(nested(&[1], b"")), repeated("PullImageRequest", "image"));
    assert_eq!(pull(twice(&[], b"\x12\x00")), repeated("PullImageRequest", "auth"));
    assert_eq!(pull(twice(&[2], b"\x12\x01p")), repeated("AuthConfig", "password"));
    assert_eq!(pull(twice(&[3], b"\x0a\x00")), repeated("PodSandboxConfig", "metadata"));
    assert_eq!(pull(twice(&[3], b"\x42\x00")), repeated("PodSandboxConfig", "linux"));
    assert_eq!(pull(twice(&[3, 1], b"\x1a\x02ns")), repeated("PodSandboxMetadata", "namespace"));
    assert_eq!(PullImageRequest::read(&twice(&[1], b"\x0a\x01a")).map(drop), repeated("ImageSpec", "image"));

    let create = |message: Vec<u8>| CreateContainerRequest::read(&message).map(drop);
    assert_eq!(create(twice(&[], b"\x12\x00")), repeated("CreateContainerRequest", "config"));
    assert_eq!(create(twice(&[2], b"\x12\x00")), repeated("ContainerConfig", "image"));
    assert_eq!(create(twice(&[2], b"\x70\x01")), repeated("ContainerConfig", "tty"));
    assert_eq!(create(twice(&[2, 2], b"\x92\x01\x01a")), repeated("ImageSpec", "user_specified_image"));
    let with_mount = |mount: Vec<u8>| create(nested(&[2], &[nested(&[2], b""), mount].concat()));
    assert_eq!(with_mount(twice(&[7], b"\x4a\x00")), repeated("Mount", "image"));
    assert_eq!(with_mount(twice(&[7, 9], b"\x0a\x01a")), repeated("ImageSpec", "image"));
    assert_eq!(StartContainerRequest::read(b"\x0a\x01a\x0a\x01b").map(drop), repeated("StartContainerRequest", "container_id"));
}

#[test]
fn a_call_that_names_no_image_is_refused() {
    let missing = |message, field| Err(WireError::Missing { message, field });
    assert_eq!(PullImageRequest::read(&[]).map(drop), missing("PullImageRequest", "image"));
    assert_eq!(CreateContainerRequest::read(&[]).map(drop), missing("CreateContainerRequest", "config"));
    assert_eq!(CreateContainerRequest::read(b"\x12\x00").map(drop), missing("ContainerConfig", "image"));
}

#[test]
fn a_container_with_more_image_mounts_than_we_look_at_is_refused() {
    let many = |count| create("a", "b", vec![mount("/m", Some(v1::ImageSpec::default())); count]).encode_to_vec();
    assert_eq!(CreateContainerRequest::read(&many(IMAGE_MOUNTS)).unwrap().image_mounts.len(), IMAGE_MOUNTS);
    let refusal = CreateContainerRequest::read(&many(IMAGE_MOUNTS + 1)).unwrap_err();
    assert_eq!(refusal, WireError::TooMany { message: "ContainerConfig", field: "mounts", limit: IMAGE_MOUNTS });
}

#[test]
fn a_refused_request_is_an_invalid_argument_with_a_sentence() {
    let status = Status::from(PullImageRequest::read(b"\x0a\x00\x0a\x00").unwrap_err());
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(
        status.message(),
        "countersign refused the request: PullImageRequest.image stands more than once; which one would be used is not certain"
    );
}

proptest! {
    #[test]
    fn a_create_is_read_as_prost_reads_it(
        image in ".{0,40}", user in ".{0,40}", volumes in prop::collection::vec(prop::option::of(".{0,20}"), 0..6),
    ) {
        let mounts = volumes.iter().map(|volume| mount("/m", volume.as_deref().map(|volume| spec(volume, "v")))).collect();
        let read = CreateContainerRequest::read(&create(&image, &user, mounts).encode_to_vec()).unwrap();
        prop_assert_eq!((read.image.image, read.image.user_specified_image), (image, user));
        let read: Vec<_> = read.image_mounts.into_iter().map(|mount| mount.image.image).collect();
        prop_assert_eq!(read, volumes.into_iter().flatten().collect::<Vec<_>>());
    }

    #[test]
    fn a_changed_create_is_refused_or_read_as_prost_reads_it(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = create("sha256:0", "reg/app:1", vec![mount("/a", Some(spec("sha256:1", "vol:1")))]).encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len() * 4).max(at + 1).min(bytes.len()));
        if let (Ok(ours), Ok(theirs)) = (CreateContainerRequest::read(&bytes), v1::CreateContainerRequest::decode(&bytes[..])) {
            let config = theirs.config.unwrap();
            let image = config.image.unwrap();
            prop_assert_eq!((ours.image.image, ours.image.user_specified_image), (image.image, image.user_specified_image));
            let theirs: Vec<_> = config.mounts.into_iter().filter_map(|mount| Some(mount.image?.image)).collect();
            let ours: Vec<_> = ours.image_mounts.into_iter().map(|mount| mount.image.image).collect();
            prop_assert_eq!(ours, theirs);
        }
    }
}

#[test]
fn the_image_of_sandboxes_is_read_where_containerd_tells_it() {
    let told = |info: &[(&str, &str)]| {
        let info = info.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        status_response(&v1::StatusResponse { info, ..v1::StatusResponse::default() }.encode_to_vec())
    };
    let config = r#"{"containerd":{"sandboxImage":"inner/evil:1"},"sandboxImage":"registry.k8s.io/pause:3.10","other":[1]}"#;
    assert_eq!(told(&[("golang", "1"), ("config", config)]), Ok(Some("registry.k8s.io/pause:3.10".to_owned())));
    for silent in [&[][..], &[("golang", "1")], &[("config", "{}")], &[("config", r#"{"sandboxImage":""}"#)]] {
        assert_eq!(told(silent), Ok(None), "{silent:?}");
    }
    for broken in ["", "[]", "{", r#"{"sandboxImage":1}"#, r#"{"sandboxImage":"a","sandboxImage":"b"}"#] {
        assert!(told(&[("config", broken)]).is_err(), "{broken}");
    }
}

#[test]
fn a_sandboxes_pod_is_read_from_its_status() {
    let metadata = v1::PodSandboxMetadata { name: "pod".into(), uid: "0-1".into(), namespace: "ns".into(), attempt: 3 };
    let status = v1::PodSandboxStatus { id: "whole".into(), metadata: Some(metadata), state: 1, ..v1::PodSandboxStatus::default() };
    let response = v1::PodSandboxStatusResponse { status: Some(status), timestamp: 7, ..v1::PodSandboxStatusResponse::default() };
    let (id, pod) = pod_sandbox_status_response(&response.encode_to_vec()).unwrap();
    assert_eq!((id.as_str(), pod.unwrap().namespace.as_str()), ("whole", "ns"));
    let missing = WireError::Missing { message: "PodSandboxStatusResponse", field: "status" };
    assert_eq!(pod_sandbox_status_response(&[]), Err(missing));
}
