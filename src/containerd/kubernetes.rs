//! What containerd's CRI says of itself, its pods and its containers: what kubelet sees of them.

use std::collections::HashMap;

use http::Uri;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerState, ListContainersRequest, ListPodSandboxRequest, PodSandbox, PodSandboxMetadata, PodSandboxStatusRequest, StatusRequest,
    VersionRequest,
};

use super::socket::Caller;
use super::{Containerd, ContainerdError, MESSAGE_LIMIT, ORIGIN};
use crate::resolve::{PodFacts, Revision};

/// A pod's sandbox, as its RunPodSandbox said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
    /// When the sandbox was made, in seconds since the Unix epoch.
    pub created_at: i64,
    /// Which revision of which service it is of, as far as its labels and annotations say.
    pub revision: Option<Revision>,
}

/// What a list of sandboxes tells of a pod.
struct Told<'a> {
    metadata: &'a PodSandboxMetadata,
    sandbox: &'a PodSandbox,
}

impl PodFacts for Told<'_> {
    fn name(&self) -> &str {
        &self.metadata.name
    }

    fn uid(&self) -> &str {
        &self.metadata.uid
    }

    fn namespace(&self) -> &str {
        &self.metadata.namespace
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.sandbox.labels.get(key).map(String::as_str)
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.sandbox.annotations.get(key).map(String::as_str)
    }
}

/// A container, as its CreateContainer said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodContainer {
    /// Its ID.
    pub id: String,
    /// The sandbox that it is in.
    pub sandbox_id: String,
    /// Its name in the pod.
    pub name: String,
    /// What the pod called its image. Empty where CRI does not keep that (1.6), or the caller gave none.
    pub named: String,
    /// The image that it was created with: an ID from kubelet, mostly a name from others.
    pub image: String,
    /// The ID of that image.
    pub image_id: String,
    /// It runs.
    pub is_running: bool,
    /// When it was made, in seconds since the Unix epoch.
    pub created_at: i64,
}

const NANOSECONDS: i64 = 1_000_000_000;

impl Containerd {
    fn runtime(&self) -> RuntimeServiceClient<Caller> {
        RuntimeServiceClient::with_origin(self.caller.clone(), Uri::from_static(ORIGIN)).max_decoding_message_size(MESSAGE_LIMIT)
    }

    /// Name and version, such as `containerd 1.6.20`.
    ///
    /// # Errors
    /// [`ContainerdError`].
    pub async fn version(&self) -> Result<String, ContainerdError> {
        let mut client = self.runtime();
        let answer = self.within("Version", client.version(VersionRequest { version: "v1".to_owned() })).await?.into_inner();
        Ok(format!("{} {}", answer.runtime_name, answer.runtime_version))
    }

    /// What its CRI tells of its own configuration and state: texts, most of them JSON, by name.
    ///
    /// # Errors
    /// [`ContainerdError`].
    pub async fn information(&self) -> Result<HashMap<String, String>, ContainerdError> {
        let mut client = self.runtime();
        Ok(self.within("Status", client.status(StatusRequest { verbose: true })).await?.into_inner().info)
    }

    /// The name of the image that its sandboxes run, as it is configured. None where it does not tell (2.x).
    ///
    /// # Errors
    /// [`ContainerdError`].
    pub async fn sandbox_image(&self) -> Result<Option<String>, ContainerdError> {
        let information = self.information().await?;
        let config = information.get("config").and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        Ok(config.and_then(|config| config.get("sandboxImage")?.as_str().map(str::to_owned)))
    }

    /// Every sandbox that its CRI knows, by ID.
    ///
    /// # Errors
    /// [`ContainerdError`].
    pub async fn pods(&self) -> Result<HashMap<String, Pod>, ContainerdError> {
        let mut client = self.runtime();
        let answer = self.within("ListPodSandbox", client.list_pod_sandbox(ListPodSandboxRequest::default())).await?;
        let pods = answer.into_inner().items.into_iter().map(|sandbox| {
            let metadata = sandbox.metadata.clone().unwrap_or_default();
            let revision = Revision::of(&Told { metadata: &metadata, sandbox: &sandbox });
            let created_at = sandbox.created_at.div_euclid(NANOSECONDS);
            (sandbox.id, Pod { namespace: metadata.namespace, name: metadata.name, uid: metadata.uid, created_at, revision })
        });
        Ok(pods.collect())
    }

    /// The name of the image that a sandbox runs, as its CRI remembers it. None if it does not tell.
    ///
    /// # Errors
    /// [`ContainerdError`].
    pub async fn image_of_pod(&self, sandbox_id: &str) -> Result<Option<String>, ContainerdError> {
        let mut client = self.runtime();
        let asked = PodSandboxStatusRequest { pod_sandbox_id: sandbox_id.to_owned(), verbose: true };
        let info = self.within("PodSandboxStatus", client.pod_sandbox_status(asked)).await?.into_inner().info;
        let read = info.get("info").and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        Ok(read.and_then(|info| info.get("image")?.as_str().map(str::to_owned)))
    }

    /// Every container that its CRI knows, in whatever state.
    ///
    /// # Errors
    /// [`ContainerdError`].
    pub async fn pod_containers(&self) -> Result<Vec<PodContainer>, ContainerdError> {
        let mut client = self.runtime();
        let answer = self.within("ListContainers", client.list_containers(ListContainersRequest::default())).await?;
        let container = |listed: k8s_cri::v1::Container| {
            let is_running = listed.state() == ContainerState::ContainerRunning;
            let image = listed.image.unwrap_or_default();
            PodContainer {
                id: listed.id,
                sandbox_id: listed.pod_sandbox_id,
                name: listed.metadata.unwrap_or_default().name,
                named: image.user_specified_image,
                image: image.image,
                image_id: listed.image_ref,
                is_running,
                created_at: listed.created_at.div_euclid(NANOSECONDS),
            }
        };
        Ok(answer.into_inner().containers.into_iter().map(container).collect())
    }
}
