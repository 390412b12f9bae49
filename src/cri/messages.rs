//! The CRI messages that the checks read, and those that we send ourselves.
//!
//! A field of the schema that is absent and one that is empty are the same (proto3); one that must not be absent says so.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use k8s_cri::v1;
use prost::Message as _;

use super::schema::{
    AUTH_CONFIG, CONTAINER_CONFIG, CONTAINER_METADATA, CONTAINER_STATUS, CONTAINER_STATUS_RESPONSE, CREATE_CONTAINER_REQUEST,
    CREATE_CONTAINER_RESPONSE, IMAGE, IMAGE_SPEC, IMAGE_STATUS_RESPONSE, INFO_ENTRY, MOUNT, POD_SANDBOX_CONFIG, POD_SANDBOX_METADATA,
    POD_SANDBOX_STATUS, POD_SANDBOX_STATUS_RESPONSE, PULL_IMAGE_REQUEST, PULL_IMAGE_RESPONSE, RUN_POD_SANDBOX_REQUEST,
    RUN_POD_SANDBOX_RESPONSE, START_CONTAINER_REQUEST, STATUS_RESPONSE, STRING_ENTRY,
};
use super::status::{Code, Status};
use super::wire::{Message, Schema, WireError};
use crate::resolve::{PodFacts, Revision, tells_of_service};

/// Mounts of one container that name an image. Kubernetes sets no number, but a pod must fit into etcd's 1.5 MiB.
const IMAGE_MOUNTS: usize = 1024;
/// Names of one image. containerd's answer is bounded by its 16 MiB; this only bounds our own memory.
const NAMES: usize = 64 * 1024;

/// A request that could be read in two ways is the caller's fault.
impl From<WireError> for Status {
    fn from(error: WireError) -> Self {
        Self::new(Code::InvalidArgument, format!("countersign refused the request: {error}"))
    }
}

/// `ImageSpec`: which image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSpec {
    /// The name, image ID or prefix of one. Empty when absent.
    pub image: String,
    /// What the pod says. Empty when absent: crictl, older kubelets.
    pub user_specified_image: String,
    /// The runtime handler whose snapshotter pulls. Empty when absent.
    pub runtime_handler: String,
    /// The digest of an image volume's image (kubelet 1.36). Empty when absent.
    pub image_ref: String,
}

impl ImageSpec {
    fn read(spec: &Message<'_>) -> Result<Self, WireError> {
        Ok(Self {
            image: spec.string(1)?.into(),
            user_specified_image: spec.string(18)?.into(),
            runtime_handler: spec.string(19)?.into(),
            image_ref: spec.string(20)?.into(),
        })
    }
}

/// `AuthConfig`: the credential that kubelet chose for this pull. Its `Debug` shows none of it.
#[derive(Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct AuthConfig {
    pub username: String,
    pub password: String,
    /// `username:password` in base64, of docker's configuration files.
    pub auth: String,
    pub server_address: String,
    pub identity_token: String,
    pub registry_token: String,
}

impl AuthConfig {
    fn read(auth: &Message<'_>) -> Result<Self, WireError> {
        Ok(Self {
            username: auth.string(1)?.into(),
            password: auth.string(2)?.into(),
            auth: auth.string(3)?.into(),
            server_address: auth.string(4)?.into(),
            identity_token: auth.string(5)?.into(),
            registry_token: auth.string(6)?.into(),
        })
    }
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig").finish_non_exhaustive()
    }
}

/// `PodSandboxMetadata`: which pod asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSandboxMetadata {
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// How often the sandbox was made anew.
    pub attempt: u64,
    /// Which revision of which service the pod is of, as far as its labels and annotations say.
    pub revision: Option<Revision>,
}

/// The metadata of a `PodSandboxConfig`, which the caller may have left out.
fn sandbox_metadata(config: Option<Message<'_>>) -> Result<Option<PodSandboxMetadata>, WireError> {
    let Some(config) = config else { return Ok(None) };
    metadata_of(config.child(1, &POD_SANDBOX_METADATA)?, entries(&config, 6)?, entries(&config, 7)?)
}

fn metadata_of(
    metadata: Option<Message<'_>>,
    labels: BTreeMap<&str, &str>,
    annotations: BTreeMap<&str, &str>,
) -> Result<Option<PodSandboxMetadata>, WireError> {
    let Some(metadata) = metadata else { return Ok(None) };
    let (name, uid, namespace) = (metadata.string(1)?, metadata.string(2)?, metadata.string(3)?);
    let revision = Revision::of(&Told { name, uid, namespace, labels, annotations });
    Ok(Some(PodSandboxMetadata { name: name.into(), uid: uid.into(), namespace: namespace.into(), attempt: metadata.varint(4)?, revision }))
}

/// The entries of a map of strings that tell of a service. Of two with one key the last counts, as it does for containerd.
fn entries<'a>(config: &Message<'a>, number: u32) -> Result<BTreeMap<&'a str, &'a str>, WireError> {
    let mut told = BTreeMap::new();
    for entry in config.repeated(number)? {
        let entry = Message::parse(&STRING_ENTRY, entry)?;
        let key = entry.string(1)?;
        if tells_of_service(key) {
            told.insert(key, entry.string(2)?);
        }
    }
    Ok(told)
}

/// What a message tells of a pod.
struct Told<'a> {
    name: &'a str,
    uid: &'a str,
    namespace: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
    annotations: BTreeMap<&'a str, &'a str>,
}

impl PodFacts for Told<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn uid(&self) -> &str {
        self.uid
    }

    fn namespace(&self) -> &str {
        self.namespace
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).copied()
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).copied()
    }
}

/// `PullImageRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullImageRequest {
    /// Which image.
    pub image: ImageSpec,
    /// With which credential.
    pub auth: Option<AuthConfig>,
    /// For which pod: absent when nobody's (crictl).
    pub sandbox: Option<PodSandboxMetadata>,
}

impl PullImageRequest {
    /// Reads the message.
    ///
    /// # Errors
    /// When it is no strict protobuf, a singular field is repeated, or it names no image.
    pub fn read(message: &[u8]) -> Result<Self, WireError> {
        let request = Message::parse(&PULL_IMAGE_REQUEST, message)?;
        let auth = request.child(2, &AUTH_CONFIG)?;
        Ok(Self {
            image: ImageSpec::read(&request.required(1, &IMAGE_SPEC)?)?,
            auth: auth.map(|auth| AuthConfig::read(&auth)).transpose()?,
            sandbox: sandbox_metadata(request.child(3, &POD_SANDBOX_CONFIG)?)?,
        })
    }
}

/// A mount of a container that shows an image's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageMount {
    /// Where it is mounted.
    pub container_path: String,
    /// Which image.
    pub image: ImageSpec,
}

/// `CreateContainerRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateContainerRequest {
    /// The sandbox that the container joins.
    pub pod_sandbox_id: String,
    /// The container's name in its pod.
    pub container_name: String,
    /// How often the container was made anew.
    pub attempt: u64,
    /// The image of its root file system.
    pub image: ImageSpec,
    /// The mounts that name an image, an empty one too, in their order.
    pub image_mounts: Vec<ImageMount>,
    /// The pod, as this request says.
    pub sandbox: Option<PodSandboxMetadata>,
}

impl CreateContainerRequest {
    /// Reads the message.
    ///
    /// # Errors
    /// When it is no strict protobuf, a singular field is repeated, or it has no configuration or no image.
    pub fn read(message: &[u8]) -> Result<Self, WireError> {
        let request = Message::parse(&CREATE_CONTAINER_REQUEST, message)?;
        let config = request.required(2, &CONTAINER_CONFIG)?;
        let metadata = config.child(1, &CONTAINER_METADATA)?;
        let metadata = metadata.map(|metadata| Ok((metadata.string(1)?.to_owned(), metadata.varint(2)?))).transpose()?;
        let (container_name, attempt) = metadata.unwrap_or_default();
        Ok(Self {
            pod_sandbox_id: request.string(1)?.into(),
            container_name,
            attempt,
            image: ImageSpec::read(&config.required(2, &IMAGE_SPEC)?)?,
            image_mounts: image_mounts(&config)?,
            sandbox: sandbox_metadata(request.child(3, &POD_SANDBOX_CONFIG)?)?,
        })
    }
}

fn image_mounts(config: &Message<'_>) -> Result<Vec<ImageMount>, WireError> {
    let mut found = Vec::new();
    for mount in config.repeated(7)? {
        let mount = Message::parse(&MOUNT, mount)?;
        let Some(image) = mount.child(9, &IMAGE_SPEC)? else { continue };
        if found.len() == IMAGE_MOUNTS {
            return Err(WireError::TooMany { message: CONTAINER_CONFIG.name, field: "mounts", limit: IMAGE_MOUNTS });
        }
        found.push(ImageMount { container_path: mount.string(1)?.into(), image: ImageSpec::read(&image)? });
    }
    Ok(found)
}

/// `StartContainerRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartContainerRequest {
    /// The container, or a prefix of its ID that is unambiguous to containerd.
    pub container_id: String,
}

impl StartContainerRequest {
    /// Reads the message.
    ///
    /// # Errors
    /// When it is no strict protobuf or the field is repeated.
    pub fn read(message: &[u8]) -> Result<Self, WireError> {
        Ok(Self { container_id: only_string(&START_CONTAINER_REQUEST, message)? })
    }
}

/// `RunPodSandboxRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPodSandboxRequest {
    /// The pod.
    pub sandbox: Option<PodSandboxMetadata>,
    /// The runtime handler. Empty when absent.
    pub runtime_handler: String,
}

impl RunPodSandboxRequest {
    /// Reads the message.
    ///
    /// # Errors
    /// When it is no strict protobuf or a singular field is repeated.
    pub fn read(message: &[u8]) -> Result<Self, WireError> {
        let request = Message::parse(&RUN_POD_SANDBOX_REQUEST, message)?;
        let sandbox = sandbox_metadata(request.child(1, &POD_SANDBOX_CONFIG)?)?;
        Ok(Self { sandbox, runtime_handler: request.string(2)?.into() })
    }
}

/// `Image`, as far as it is read: all of it is what containerd's records say, not what was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The image ID (the config digest).
    pub id: String,
    /// The tags of its records.
    pub repo_tags: Vec<String>,
    /// The digests of its records. A record's name is whatever its writer chose.
    pub repo_digests: Vec<String>,
}

/// Reads an `ImageStatusResponse`. `None`: containerd has no such image.
///
/// # Errors
/// When it is no strict protobuf or a singular field is repeated.
pub fn image_status_response(message: &[u8]) -> Result<Option<Image>, WireError> {
    let response = Message::parse(&IMAGE_STATUS_RESPONSE, message)?;
    let Some(image) = response.child(1, &IMAGE)? else { return Ok(None) };
    let owned = |strings: Vec<&str>| strings.into_iter().map(str::to_owned).collect();
    Ok(Some(Image {
        id: image.string(1)?.into(),
        repo_tags: owned(image.strings(2, NAMES)?),
        repo_digests: owned(image.strings(3, NAMES)?),
    }))
}

/// Reads `PullImageResponse.image_ref`: the image ID.
///
/// # Errors
/// When it is no strict protobuf or the field is repeated.
pub fn pull_image_response(message: &[u8]) -> Result<String, WireError> {
    only_string(&PULL_IMAGE_RESPONSE, message)
}

/// Reads `CreateContainerResponse.container_id`.
///
/// # Errors
/// When it is no strict protobuf or the field is repeated.
pub fn create_container_response(message: &[u8]) -> Result<String, WireError> {
    only_string(&CREATE_CONTAINER_RESPONSE, message)
}

/// Reads `ContainerStatusResponse.status.id`: the whole ID of the container.
///
/// # Errors
/// When it is no strict protobuf, a singular field is repeated, or there is no status.
pub fn container_status_response(message: &[u8]) -> Result<String, WireError> {
    let response = Message::parse(&CONTAINER_STATUS_RESPONSE, message)?;
    Ok(response.required(1, &CONTAINER_STATUS)?.string(1)?.to_owned())
}

/// Reads `RunPodSandboxResponse.pod_sandbox_id`.
///
/// # Errors
/// When it is no strict protobuf or the field is repeated.
pub fn run_pod_sandbox_response(message: &[u8]) -> Result<String, WireError> {
    only_string(&RUN_POD_SANDBOX_RESPONSE, message)
}

/// Reads `PodSandboxStatusResponse.status`: the whole ID of the sandbox, and the pod that it is for.
///
/// # Errors
/// When it is no strict protobuf, a singular field is repeated, or there is no status.
pub fn pod_sandbox_status_response(message: &[u8]) -> Result<(String, Option<PodSandboxMetadata>), WireError> {
    let response = Message::parse(&POD_SANDBOX_STATUS_RESPONSE, message)?;
    let status = response.required(1, &POD_SANDBOX_STATUS)?;
    let metadata = metadata_of(status.child(2, &POD_SANDBOX_METADATA)?, entries(&status, 7)?, entries(&status, 8)?)?;
    Ok((status.string(1)?.to_owned(), metadata))
}

/// Reads the name of the sandboxes' image in a verbose `StatusResponse`. `None`: this containerd does not tell it.
///
/// # Errors
/// When it is no strict protobuf, or its configuration is no JSON object.
pub fn status_response(message: &[u8]) -> Result<Option<String>, WireError> {
    /// containerd writes its whole CRI configuration.
    #[derive(serde::Deserialize)]
    struct Config {
        #[serde(rename = "sandboxImage")]
        sandbox_image: Option<String>,
    }
    let response = Message::parse(&STATUS_RESPONSE, message)?;
    for entry in response.repeated(2)? {
        let entry = Message::parse(&INFO_ENTRY, entry)?;
        if entry.string(1)? == "config" {
            let config: Config =
                serde_json::from_str(entry.string(2)?).map_err(|_| WireError::WrongType { message: "StatusResponse", field: "info" })?;
            return Ok(config.sandbox_image.filter(|name| !name.is_empty()));
        }
    }
    Ok(None)
}

fn only_string(schema: &'static Schema, message: &[u8]) -> Result<String, WireError> {
    Ok(Message::parse(schema, message)?.string(1)?.to_owned())
}

/// Writes an `ImageStatusRequest` for a name, an image ID or a prefix of one.
#[must_use]
pub fn image_status_request(image: &str) -> Bytes {
    let image = v1::ImageSpec { image: image.into(), ..v1::ImageSpec::default() };
    v1::ImageStatusRequest { image: Some(image), verbose: false }.encode_to_vec().into()
}

/// Writes a `PullImageRequest` of our own, for no pod and without a credential.
#[must_use]
pub fn pull_image_request(image: &str) -> Bytes {
    let image = v1::ImageSpec { image: image.into(), ..v1::ImageSpec::default() };
    v1::PullImageRequest { image: Some(image), ..v1::PullImageRequest::default() }.encode_to_vec().into()
}

/// Writes a `PullImageResponse` of our own.
#[must_use]
pub fn pull_image_answer(image_ref: &str) -> Bytes {
    v1::PullImageResponse { image_ref: image_ref.into() }.encode_to_vec().into()
}

/// Writes a `RemoveContainerRequest`.
#[must_use]
pub fn remove_container_request(container_id: &str) -> Bytes {
    v1::RemoveContainerRequest { container_id: container_id.into() }.encode_to_vec().into()
}

/// Writes a `ContainerStatusRequest` that asks for containerd's own information too.
#[must_use]
pub fn container_status_request(container_id: &str) -> Bytes {
    v1::ContainerStatusRequest { container_id: container_id.into(), verbose: true }.encode_to_vec().into()
}

/// Writes a `PodSandboxStatusRequest` that asks for containerd's own information too.
#[must_use]
pub fn pod_sandbox_status_request(pod_sandbox_id: &str) -> Bytes {
    v1::PodSandboxStatusRequest { pod_sandbox_id: pod_sandbox_id.into(), verbose: true }.encode_to_vec().into()
}

/// Writes a `StatusRequest` that asks for containerd's own information too.
#[must_use]
pub fn status_request() -> Bytes {
    v1::StatusRequest { verbose: true }.encode_to_vec().into()
}

/// Writes a `StopPodSandboxRequest`.
#[must_use]
pub fn stop_pod_sandbox_request(pod_sandbox_id: &str) -> Bytes {
    v1::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.into() }.encode_to_vec().into()
}

/// Writes a `ListContainersRequest` for all containers of a sandbox.
#[must_use]
pub fn list_containers_request(pod_sandbox_id: &str) -> Bytes {
    let filter = v1::ContainerFilter { pod_sandbox_id: pod_sandbox_id.into(), ..Default::default() };
    v1::ListContainersRequest { filter: Some(filter) }.encode_to_vec().into()
}

/// Writes a `RemovePodSandboxRequest`.
#[must_use]
pub fn remove_pod_sandbox_request(pod_sandbox_id: &str) -> Bytes {
    v1::RemovePodSandboxRequest { pod_sandbox_id: pod_sandbox_id.into() }.encode_to_vec().into()
}

#[cfg(test)]
mod tests;
