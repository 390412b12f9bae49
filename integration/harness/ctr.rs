//! containerd's own tool and API: what an agent with its socket can do behind the gate's back.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use containerd_client::events::ContainerCreate;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{Kind, ListSnapshotsRequest, StatSnapshotRequest};
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateImageRequest, DeleteImageRequest, GetContainerRequest, Image as Record, ListContainersRequest,
    ListImagesRequest, SubscribeRequest, UpdateContainerRequest, UpdateImageRequest, container,
};
use containerd_client::types::Descriptor;
use prost::Message as _;
use tokio::process::Command;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::Must;
use super::image::{Blob, Image};
use super::process::{run_well, text};

/// Where CRI keeps its images and containers.
const NAMESPACE: &str = "k8s.io";

/// The tool `ctr` and containerd's own API, in CRI's namespace.
#[derive(Debug, Clone)]
pub struct Ctr {
    socket: PathBuf,
    program: PathBuf,
    channel: Channel,
}

impl Ctr {
    /// For the containerd at `socket`, which has to be an absolute path.
    pub fn new(socket: &Path, program: PathBuf) -> Self {
        let endpoint = Endpoint::from_shared(format!("unix://{}", text(socket))).must("naming a socket");
        let endpoint = endpoint.origin("http://localhost".parse().must("naming localhost"));
        Self { socket: socket.to_owned(), program, channel: endpoint.connect_lazy() }
    }

    /// Runs `ctr` with these arguments and returns what it printed.
    pub async fn run(&self, args: &[&str]) -> String {
        let mut command = Command::new(&self.program);
        command.arg("--address").arg(&self.socket).args(["--namespace", NAMESPACE]).args(args);
        run_well(command).await
    }

    /// `ctr images import` of an archive of this image, under any name at all.
    pub async fn import(&self, image: &Image, name: &str) {
        let archive = tempfile::NamedTempFile::new().must("making a file for an archive");
        image.write_archive(archive.path(), &[("io.containerd.image.name", name)]);
        self.run(&["images", "import", &text(archive.path())]).await;
    }

    /// `ctr images tag`: another record with the same target.
    pub async fn tag(&self, from: &str, to: &str) {
        self.run(&["images", "tag", "--force", from, to]).await;
    }

    /// `ctr images rm`: one record.
    pub async fn remove(&self, name: &str) {
        self.run(&["images", "rm", name]).await;
    }

    /// All records: name and digest of the target.
    pub async fn records(&self) -> Result<Vec<(String, String)>, Status> {
        let images = self.images().list(in_namespace(ListImagesRequest::default())).await?.into_inner().images;
        let target = |image: &Record| image.target.as_ref().map(|target| target.digest.clone()).unwrap_or_default();
        Ok(images.into_iter().map(|image| (image.name.clone(), target(&image))).collect())
    }

    /// Makes a record that points to this content.
    pub async fn create_record(&self, name: &str, target: &Blob) -> Result<(), Status> {
        let image = Some(record(name, descriptor(target)));
        self.images().create(in_namespace(CreateImageRequest { image, ..Default::default() })).await.map(drop)
    }

    /// Points an existing record to other content, which need not be there. The labels stay.
    pub async fn retarget(&self, name: &str, target: &Blob) -> Result<(), Status> {
        let update_mask = Some(prost_types::FieldMask { paths: vec!["target".to_owned()] });
        let image = Some(record(name, descriptor(target)));
        self.images().update(in_namespace(UpdateImageRequest { image, update_mask, ..Default::default() })).await.map(drop)
    }

    /// Makes a container's record, which need not lead anywhere.
    pub async fn create_container_record(&self, id: &str, snapshotter: &str) -> Result<(), Status> {
        let runtime = Some(container::Runtime { name: "io.containerd.runc.v2".to_owned(), options: None });
        let (snapshotter, snapshot_key) = (snapshotter.to_owned(), id.to_owned());
        let spec =
            Some(prost_types::Any { type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".into(), value: b"{}".to_vec() });
        let record = Container { id: id.to_owned(), runtime, snapshotter, snapshot_key, spec, ..Default::default() };
        let request = CreateContainerRequest { container: Some(record) };
        ContainersClient::new(self.channel.clone()).create(in_namespace(request)).await.map(drop)
    }

    /// Points the record of each container that is made from now on to the root file system of another one, as soon as containerd
    /// tells of it. Never ends.
    pub async fn swap_root_file_systems(&self, for_that_of: &str) -> Result<(), Status> {
        let request = SubscribeRequest { filters: vec![r#"topic=="/containers/create""#.to_owned()] };
        let mut events = EventsClient::new(self.channel.clone()).subscribe(in_namespace(request)).await?.into_inner();
        while let Some(envelope) = events.message().await? {
            let created = ContainerCreate::decode(envelope.event.unwrap_or_default().value.as_slice());
            let id = created.map_err(|error| Status::internal(error.to_string()))?.id;
            // It may be gone by now.
            let _ = self.swap_root_file_system(&id, for_that_of).await;
        }
        Ok(())
    }

    /// Points the record of a container to another root file system.
    pub async fn swap_root_file_system(&self, id: &str, snapshot: &str) -> Result<(), Status> {
        let update_mask = Some(prost_types::FieldMask { paths: vec!["snapshotkey".to_owned()] });
        let container = Some(Container { id: id.to_owned(), snapshot_key: snapshot.to_owned(), ..Default::default() });
        let request = in_namespace(UpdateContainerRequest { container, update_mask });
        ContainersClient::new(self.channel.clone()).update(request).await.map(drop)
    }

    /// Deletes a record.
    pub async fn delete_record(&self, name: &str) -> Result<(), Status> {
        let request = DeleteImageRequest { name: name.to_owned(), sync: true, ..Default::default() };
        self.images().delete(in_namespace(request)).await.map(drop)
    }

    /// What the root file system of a container stands on: the chain ID of the layers that it really uses.
    pub async fn root_file_system(&self, container: &str) -> Result<String, Status> {
        let request = in_namespace(GetContainerRequest { id: container.to_owned() });
        let found = ContainersClient::new(self.channel.clone()).get(request).await?.into_inner().container;
        let found = found.ok_or_else(|| Status::not_found("Containers.Get came without a container"))?;
        let request = in_namespace(StatSnapshotRequest { snapshotter: found.snapshotter, key: found.snapshot_key });
        let info = SnapshotsClient::new(self.channel.clone()).stat(request).await?.into_inner().info;
        info.map(|info| info.parent).ok_or_else(|| Status::not_found("Snapshots.Stat came without a snapshot"))
    }

    /// The IDs of all records of containers, which those of sandboxes are, too.
    pub async fn container_records(&self) -> Result<Vec<String>, Status> {
        let containers = ContainersClient::new(self.channel.clone()).list(in_namespace(ListContainersRequest::default())).await?;
        Ok(containers.into_inner().containers.into_iter().map(|container| container.id).collect())
    }

    /// The snapshots of this snapshotter that can be written to: root file systems of containers and sandboxes.
    pub async fn active_snapshots(&self, snapshotter: &str) -> Result<Vec<String>, Status> {
        let request = ListSnapshotsRequest { snapshotter: snapshotter.to_owned(), filters: Vec::new() };
        let mut parts = SnapshotsClient::new(self.channel.clone()).list(in_namespace(request)).await?.into_inner();
        let mut active = Vec::new();
        while let Some(part) = parts.message().await? {
            active.extend(part.info.into_iter().filter(|info| info.kind() == Kind::Active).map(|info| info.name));
        }
        Ok(active)
    }

    fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone())
    }
}

fn descriptor(target: &Blob) -> Descriptor {
    Descriptor {
        media_type: target.media_type.clone(),
        digest: target.digest().to_string(),
        size: i64::try_from(target.bytes.len()).must("counting the bytes of a manifest"),
        annotations: HashMap::new(),
    }
}

fn record(name: &str, target: Descriptor) -> Record {
    Record { name: name.to_owned(), target: Some(target), ..Default::default() }
}

fn in_namespace<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", NAMESPACE.parse().must("naming CRI's namespace"));
    request
}
