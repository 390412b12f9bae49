//! A small CRI client that asks as kubelet does.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    AuthConfig, Container, ContainerConfig, ContainerMetadata, ContainerState, ContainerStatus, ContainerStatusRequest,
    CreateContainerRequest, ExecSyncRequest, ExecSyncResponse, Image, ImageSpec, ImageStatusRequest, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, ListContainersRequest, ListImagesRequest, Mount, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, PullImageRequest, RemoveContainerRequest, RemoveImageRequest, RemovePodSandboxRequest, RunPodSandboxRequest,
    StartContainerRequest, StopContainerRequest, StopPodSandboxRequest, VersionRequest, VersionResponse,
};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::Must;
use super::process::text;
use super::token::Login;

/// What containerd and kubelet allow for one message.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// How long any call may take: kubelet's limit for RunPodSandbox, its longest.
const CALL_WITHIN: Duration = Duration::from_secs(240);
/// How long a server may take from its first open socket until it serves CRI, on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a container may take to print or to end. On a busy machine what it runs waits for a processor for seconds, since all
/// of its pod together have the share of one process.
const CONTAINER_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at a container.
const POLL: Duration = Duration::from_millis(10);

/// A pod sandbox that runs.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its ID.
    pub id: String,
    /// What it was made from; the calls for its containers repeat it.
    pub config: PodSandboxConfig,
}

/// A container that was run from an image name, as kubelet does it.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Its sandbox.
    pub pod: Pod,
    /// Its ID.
    pub container: String,
    /// The image ID that the pull returned, and that the container was created with.
    pub image: String,
    /// What it printed first.
    pub output: String,
}

/// A CRI client on one unix socket. It connects again by itself when the server was restarted.
#[derive(Debug, Clone)]
pub struct Cri {
    channel: Channel,
    pods: PathBuf,
    cgroup: String,
}

impl Cri {
    /// A client for the socket. Container logs go below `pods`, control groups below `cgroup`.
    pub fn new(socket: &Path, pods: &Path, cgroup: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("unix://{}", text(socket))).must("naming a socket");
        // kubelet sends `localhost`; a socket's path is no valid authority for many HTTP/2 servers.
        let endpoint = endpoint.origin("http://localhost".parse().must("naming localhost")).timeout(CALL_WITHIN);
        Self { channel: endpoint.connect_lazy(), pods: pods.to_owned(), cgroup: cgroup.to_owned() }
    }

    /// The connection, for calls that this client does not have.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The generated client of the runtime service.
    pub fn runtime(&self) -> RuntimeServiceClient<Channel> {
        let client = RuntimeServiceClient::new(self.channel.clone());
        client.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The generated client of the image service.
    pub fn images(&self) -> ImageServiceClient<Channel> {
        let client = ImageServiceClient::new(self.channel.clone());
        client.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Waits until the server answers Version.
    pub async fn ready(&self) {
        let deadline = Instant::now() + READY_WITHIN;
        while let Err(status) = self.version().await {
            assert!(Instant::now() < deadline, "CRI does not answer in {READY_WITHIN:?}: {status:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Version.
    pub async fn version(&self) -> Result<VersionResponse, Status> {
        Ok(self.runtime().version(VersionRequest { version: "v1".to_owned() }).await?.into_inner())
    }

    /// PullImage without credentials and sandbox. Returns the image ID.
    pub async fn pull(&self, image: &str) -> Result<String, Status> {
        self.pull_with(image, None, None).await
    }

    /// PullImage as kubelet sends it: with one credential, for one pod. Returns the image ID.
    pub async fn pull_with(&self, image: &str, login: Option<Login>, pod: Option<&PodSandboxConfig>) -> Result<String, Status> {
        let auth =
            login.map(|login| AuthConfig { username: login.user.to_owned(), password: login.password.to_owned(), ..Default::default() });
        let request = PullImageRequest { image: Some(named(image)), auth, sandbox_config: pod.cloned() };
        Ok(self.images().pull_image(request).await?.into_inner().image_ref)
    }

    /// ImageStatus: what the name or ID means, if anything.
    pub async fn image_status(&self, image: &str) -> Result<Option<Image>, Status> {
        let request = ImageStatusRequest { image: Some(named(image)), verbose: false };
        Ok(self.images().image_status(request).await?.into_inner().image)
    }

    /// ListImages.
    pub async fn list_images(&self) -> Result<Vec<Image>, Status> {
        Ok(self.images().list_images(ListImagesRequest::default()).await?.into_inner().images)
    }

    /// RemoveImage: all names of the image that the given name or ID means.
    pub async fn remove_image(&self, image: &str) -> Result<(), Status> {
        self.images().remove_image(RemoveImageRequest { image: Some(named(image)) }).await.map(drop)
    }

    /// The configuration of a pod on the host's network, with a name and UID of its own. Change its fields as needed.
    pub fn pod(&self, namespace: &str) -> PodSandboxConfig {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (name, uid) = (format!("pod-{number}"), format!("uid-{}-{number}", std::process::id()));
        let labels = [("name", &name), ("namespace", &namespace.to_owned()), ("uid", &uid)];
        let namespaces = NamespaceOption { network: NamespaceMode::Node.into(), ..Default::default() };
        PodSandboxConfig {
            log_directory: text(&self.pods.join(format!("{namespace}_{name}"))),
            labels: labels.map(|(key, value)| (format!("io.kubernetes.pod.{key}"), value.clone())).into(),
            metadata: Some(PodSandboxMetadata { name, uid, namespace: namespace.to_owned(), attempt: 0 }),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup.clone(),
                security_context: Some(LinuxSandboxSecurityContext { namespace_options: Some(namespaces), ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// RunPodSandbox.
    pub async fn run_pod(&self, config: PodSandboxConfig) -> Result<Pod, Status> {
        fs::create_dir_all(&config.log_directory).must("making a pod's log folder");
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let id = self.runtime().run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
        Ok(Pod { id, config })
    }

    /// CreateContainer. Returns the container's ID.
    pub async fn create(&self, pod: &Pod, container: ContainerConfig) -> Result<String, Status> {
        let request =
            CreateContainerRequest { pod_sandbox_id: pod.id.clone(), config: Some(container), sandbox_config: Some(pod.config.clone()) };
        Ok(self.runtime().create_container(request).await?.into_inner().container_id)
    }

    /// StartContainer.
    pub async fn start(&self, container: &str) -> Result<(), Status> {
        self.runtime().start_container(StartContainerRequest { container_id: container.to_owned() }).await.map(drop)
    }

    /// StopContainer, without a grace period.
    pub async fn stop(&self, container: &str) -> Result<(), Status> {
        let request = StopContainerRequest { container_id: container.to_owned(), timeout: 0 };
        self.runtime().stop_container(request).await.map(drop)
    }

    /// RemoveContainer.
    pub async fn remove(&self, container: &str) -> Result<(), Status> {
        self.runtime().remove_container(RemoveContainerRequest { container_id: container.to_owned() }).await.map(drop)
    }

    /// StopPodSandbox and RemovePodSandbox.
    pub async fn remove_pod(&self, pod: &Pod) -> Result<(), Status> {
        self.runtime().stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() }).await?;
        self.runtime().remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: pod.id.clone() }).await.map(drop)
    }

    /// ListContainers: all, in any state.
    pub async fn list_containers(&self) -> Result<Vec<Container>, Status> {
        Ok(self.runtime().list_containers(ListContainersRequest::default()).await?.into_inner().containers)
    }

    /// ContainerStatus.
    pub async fn container_status(&self, container: &str) -> Result<ContainerStatus, Status> {
        let request = ContainerStatusRequest { container_id: container.to_owned(), verbose: false };
        let status = self.runtime().container_status(request).await?.into_inner().status;
        status.ok_or_else(|| Status::internal("ContainerStatus came without a status"))
    }

    /// ExecSync.
    pub async fn exec(&self, container: &str, command: &[&str]) -> Result<ExecSyncResponse, Status> {
        let cmd = command.iter().map(|&word| word.to_owned()).collect();
        let request = ExecSyncRequest { container_id: container.to_owned(), cmd, timeout: 10 };
        Ok(self.runtime().exec_sync(request).await?.into_inner())
    }

    /// Waits until the container has ended and returns its exit code.
    pub async fn exit_code(&self, container: &str) -> Result<i32, Status> {
        let deadline = Instant::now() + CONTAINER_WITHIN;
        loop {
            let status = self.container_status(container).await?;
            if status.state() == ContainerState::ContainerExited {
                return Ok(status.exit_code);
            }
            assert!(Instant::now() < deadline, "container {container} has not ended in {CONTAINER_WITHIN:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// What the container has printed so far, from its log file.
    pub async fn output(&self, container: &str) -> Result<String, Status> {
        let path = self.container_status(container).await?.log_path;
        Ok(fs::read_to_string(path).map(|log| printed(&log)).unwrap_or_default())
    }

    /// Waits until the container has printed something or has ended.
    pub async fn first_output(&self, container: &str) -> Result<String, Status> {
        let deadline = Instant::now() + CONTAINER_WITHIN;
        loop {
            let ended = self.container_status(container).await?.state() == ContainerState::ContainerExited;
            let output = self.output(container).await?;
            if ended || !output.is_empty() {
                return Ok(output);
            }
            assert!(Instant::now() < deadline, "container {container} has printed nothing in {CONTAINER_WITHIN:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Creates and starts a container of an image ID for the name that the pod gave, and waits for its first output.
    pub async fn run_image(&self, pod: &Pod, image: &str, name: &str) -> Result<Ran, Status> {
        let container = self.create(pod, container(image, name)).await?;
        self.start(&container).await?;
        let output = self.first_output(&container).await?;
        Ok(Ran { pod: pod.clone(), container, image: image.to_owned(), output })
    }

    /// What kubelet does for a pod whose image is absent: RunPodSandbox, PullImage, CreateContainer by image ID,
    /// StartContainer. The sandbox is removed again when a later call fails.
    pub async fn run(&self, image: &str, namespace: &str) -> Result<Ran, Status> {
        let pod = self.run_pod(self.pod(namespace)).await?;
        let ran = match self.pull_with(image, None, Some(&pod.config)).await {
            Ok(id) => self.run_image(&pod, &id, image).await,
            Err(status) => Err(status),
        };
        if ran.is_err() {
            self.remove_pod(&pod).await?;
        }
        ran
    }
}

/// The configuration of a container as kubelet makes it: `image` is the image ID, `name` what the pod says. Change its fields as needed.
pub fn container(image: &str, name: &str) -> ContainerConfig {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: format!("container-{number}"), attempt: 0 }),
        image: Some(ImageSpec { user_specified_image: name.to_owned(), ..named(image) }),
        log_path: format!("container-{number}.log"),
        ..Default::default()
    }
}

/// A volume at `path`, of the image that `image` names and that the pod calls `name`.
pub fn image_volume(path: &str, image: &str, name: &str) -> Mount {
    let image = ImageSpec { user_specified_image: name.to_owned(), ..named(image) };
    Mount { container_path: path.to_owned(), readonly: true, image: Some(image), ..Default::default() }
}

fn named(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), annotations: HashMap::new(), ..Default::default() }
}

/// Lines of a CRI log: `<time> <stdout|stderr> <F or P> <text>`; P is a part of a line.
fn printed(log: &str) -> String {
    let line = |line: &str| {
        let mut words = line.splitn(4, ' ').skip(2);
        let full = words.next()? == "F";
        Some(format!("{}{}", words.next().unwrap_or_default(), if full { "\n" } else { "" }))
    };
    log.lines().filter_map(line).collect()
}
