//! containerd's own API over its socket: image records, content, containers and snapshots.
//!
//! Names, labels and annotations that come from here were written by whoever could import an image; they are hints.
//! Content is hashed while it is read, and is then as good as its digest.

pub mod chain;
mod document;
mod error;
mod filter;
mod introspection;
mod json;
mod kubernetes;
mod life;
mod remap;
mod socket;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::snapshots::StatSnapshotRequest;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::{
    CreateImageRequest, DeleteImageRequest, GetContainerRequest, GetImageRequest, Image, ListImagesRequest, ReadContentRequest,
    UpdateImageRequest,
};
use containerd_client::types;
use countersign_trust::name::{ManifestDigest, Sha256, shown};
use futures_util::future;
use http::Uri;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use crate::connection::Connection;
use crate::crash::Step;
use chain::Remembered;
pub use error::{ContainerdError, ContentError, Standing};
pub use introspection::{Plugin, unpacks};
pub use kubernetes::{Pod, PodContainer};
pub use life::{Event, Events, Happened, Listed, MAX_CONTAINERS};
pub use remap::{IdMapping, is_remap_of, stands_on};
use socket::Caller;
use spec::RuntimeSpec;
pub use spec::VolumeMount;

/// Where CRI keeps everything of Kubernetes (containerd, `constants.K8sContainerdNamespace`).
pub const NAMESPACE: &str = "k8s.io";
/// The origin of every call: one whose authority Go's and Rust's servers accept, and that kubelet sends.
const ORIGIN: &str = "http://localhost";
/// containerd's own snapshotters on Linux (`cmd/containerd/builtins`): all of them unpack layers with containerd's applier, which
/// compares every layer with the diff ID of the config before it gives the snapshot the name of the chain.
const UNPACKING_SNAPSHOTTERS: [&str; 6] = ["blockfile", "btrfs", "devmapper", "native", "overlayfs", "zfs"];
/// Names that are asked for one by one, and at once: containerd finds each by its key. For a list it reads every record of
/// the node, which takes longer the more images there are.
const FEW_NAMES: usize = 8;
/// For each call, connecting and the whole answer included. containerd answers in milliseconds; kubelet waits 120 s
/// for a whole CreateContainer.
pub const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of one message: containerd's own limit (its `defaults.DefaultMaxRecvMsgSize`), above tonic's.
const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;
/// Names in one question, so that it stays below the message limit and is answered well within the deadline.
pub const MAX_NAMES: usize = 4096;
/// Marks a record as CRI's own, so that its image store follows it (containerd, `labels.ImageLabelKey`).
const MANAGED: (&str, &str) = ("io.cri-containerd.image", "managed");
/// Keeps kubelet's image garbage collection from an image (containerd, `labels.PinnedImageLabelKey`).
const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");
/// Capacity reserved for content before its length is known.
const FIRST_CAPACITY: u64 = 64 * 1024;

/// A connection to containerd. Clones share it; it connects when it is first used, and again after it broke.
#[derive(Debug, Clone)]
pub struct Containerd {
    caller: Caller,
    remembered: Arc<Remembered>,
}

/// What a record or an index names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Its media type.
    pub media_type: String,
    /// Its digest, as containerd spells it.
    pub digest: String,
    /// Its length in bytes.
    pub size: i64,
}

/// An image record: a name, and what it means at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The name. Anybody who may import an image chooses it.
    pub name: String,
    /// What it means.
    pub target: Descriptor,
    /// Whether CRI keeps kubelet's image garbage collection from it.
    pub pinned: bool,
}

/// What containerd knows of a container's root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRecord {
    /// The name of the image record that the container was made from.
    pub image: String,
    /// Which snapshotter holds its file system.
    pub snapshotter: String,
    /// Its snapshot there.
    pub snapshot_key: String,
    /// How its user namespace shifts owners, if it has one that CRI makes.
    pub id_mapping: Option<IdMapping>,
    /// Its mounts that may show images.
    pub volumes: Vec<VolumeMount>,
    /// When it was made.
    pub made_at: MadeAt,
}

/// When containerd made the record of a container, by its own clock. Nobody can choose it, and no later write changes it (containerd,
/// `metadata.containerStore`), so that it tells two containers apart that had the same ID.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeAt {
    /// Seconds since the Unix epoch.
    pub seconds: i64,
    /// Nanoseconds after that.
    pub nanos: i32,
}

impl MadeAt {
    fn of(moment: Option<prost_types::Timestamp>) -> Self {
        moment.map(|moment| Self { seconds: moment.seconds, nanos: moment.nanos }).unwrap_or_default()
    }
}

impl ContainerRecord {
    /// Whether a chain ID in its snapshotter names content that was unpacked and compared. One that fetches a layer while
    /// the container runs (stargz, nydus, overlaybd) takes the name of the chain on trust.
    #[must_use]
    pub fn has_unpacked_layers(&self) -> bool {
        UNPACKING_SNAPSHOTTERS.contains(&self.snapshotter.as_str())
    }
}

impl Containerd {
    /// Prepares a connection to `socket`. It is opened by the first call, and belongs to that call's runtime.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        let caller = Caller(Connection::new(socket.into()));
        Self { caller, remembered: Arc::default() }
    }

    /// The records of exactly these names. Names that have none are left out.
    ///
    /// # Errors
    /// [`ContainerdError`]; also for more than [`MAX_NAMES`] names.
    pub async fn records(&self, names: &[String]) -> Result<Vec<Record>, ContainerdError> {
        let (count, limit) = (names.len(), MAX_NAMES);
        if count > limit {
            return Err(ContainerdError::TooManyNames { count, limit });
        }
        // Without a filter containerd would answer with every record, so that no names are never listed.
        if count <= FEW_NAMES {
            let found = future::try_join_all(names.iter().map(|name| self.record(name))).await?;
            return Ok(found.into_iter().flatten().collect());
        }
        self.listed_records(names).await
    }

    async fn record(&self, name: &str) -> Result<Option<Record>, ContainerdError> {
        const CALL: &str = "Images.Get";
        let mut client = ImagesClient::with_origin(self.caller.clone(), Uri::from_static(ORIGIN)).max_decoding_message_size(MESSAGE_LIMIT);
        let asked = GetImageRequest { name: name.to_owned() };
        let Some(answer) = found(self.within(CALL, client.get(request(asked))).await)? else { return Ok(None) };
        let image = answer.into_inner().image.ok_or(ContainerdError::Malformed { call: CALL, what: "image" })?;
        if image.name != name {
            return Err(ContainerdError::Malformed { call: CALL, what: "name" });
        }
        record(CALL, image).map(Some)
    }

    async fn listed_records(&self, names: &[String]) -> Result<Vec<Record>, ContainerdError> {
        const CALL: &str = "Images.List";
        let filters = names.iter().map(|name| filter::equals("name", name)).collect();
        let mut client = ImagesClient::with_origin(self.caller.clone(), Uri::from_static(ORIGIN)).max_decoding_message_size(MESSAGE_LIMIT);
        let answer = self.within(CALL, client.list(request(ListImagesRequest { filters }))).await?;
        let images = answer.into_inner().images.into_iter().filter(|image| names.contains(&image.name));
        images.map(|image| record(CALL, image)).collect()
    }

    /// The records that lead to `target`, by whatever names.
    ///
    /// # Errors
    /// [`ContainerdError`].
    pub async fn records_to(&self, target: &ManifestDigest) -> Result<Vec<Record>, ContainerdError> {
        const CALL: &str = "Images.List";
        let filters = vec![filter::equals("target.digest", &target.to_string())];
        let mut client = ImagesClient::with_origin(self.caller.clone(), Uri::from_static(ORIGIN)).max_decoding_message_size(MESSAGE_LIMIT);
        let answer = self.within(CALL, client.list(request(ListImagesRequest { filters }))).await?;
        let records: Result<Vec<_>, _> = answer.into_inner().images.into_iter().map(|image| record(CALL, image)).collect();
        Ok(records?.into_iter().filter(|record| record.target.digest == target.to_string()).collect())
    }

    /// Makes `name` mean `means`: as a new record, or with the target of the record that it has. Other labels stay.
    /// `name` is a normalised reference with a tag.
    ///
    /// # Errors
    /// [`ContainerdError`].
    pub async fn put_tag_record(&self, name: &str, means: &Descriptor) -> Result<(), ContainerdError> {
        let mut client = ImagesClient::with_origin(self.caller.clone(), Uri::from_static(ORIGIN)).max_decoding_message_size(MESSAGE_LIMIT);
        let image = Image {
            name: name.to_owned(),
            labels: HashMap::from([(MANAGED.0.to_owned(), MANAGED.1.to_owned())]),
            target: Some(target(means)),
            ..Image::default()
        };
        let create = CreateImageRequest { image: Some(image.clone()), ..CreateImageRequest::default() };
        match self.within("Images.Create", client.create(request(create.clone()))).await {
            Err(ContainerdError::Refused { code: Code::AlreadyExists, .. }) => {}
            answer => return answer.map(drop),
        }
        Step::PullTagTaken.reached();
        let update_mask = Some(prost_types::FieldMask { paths: vec!["target".to_owned(), format!("labels.{}", MANAGED.0)] });
        let update = UpdateImageRequest { image: Some(image), update_mask, ..UpdateImageRequest::default() };
        match self.within("Images.Update", client.update(request(update))).await {
            // Removed between the two calls, as kubelet's garbage collection may.
            Err(ContainerdError::Refused { code: Code::NotFound, .. }) => {
                self.within("Images.Create", client.create(request(create))).await.map(drop)
            }
            answer => answer.map(drop),
        }
    }

    /// Keeps kubelet's image garbage collection from the image of a record. What it means, and its other labels, stay.
    ///
    /// # Errors
    /// [`ContainerdError`]; also if there is no such record any more.
    pub async fn pin_record(&self, record: &Record) -> Result<(), ContainerdError> {
        let mut client = ImagesClient::with_origin(self.caller.clone(), Uri::from_static(ORIGIN)).max_decoding_message_size(MESSAGE_LIMIT);
        let labels = HashMap::from([(PINNED.0.to_owned(), PINNED.1.to_owned())]);
        // containerd reads the target whether or not it is to change.
        let image = Image { name: record.name.clone(), labels, target: Some(target(&record.target)), ..Image::default() };
        let update_mask = Some(prost_types::FieldMask { paths: vec![format!("labels.{}", PINNED.0)] });
        let update = UpdateImageRequest { image: Some(image), update_mask, ..UpdateImageRequest::default() };
        self.within("Images.Update", client.update(request(update))).await.map(drop)
    }

    /// Removes those of the records of these names that mean `digest`.
    ///
    /// # Errors
    /// As [`Containerd::records`].
    pub async fn remove_records(&self, names: &[String], digest: &str) -> Result<(), ContainerdError> {
        let mut client = ImagesClient::with_origin(self.caller.clone(), Uri::from_static(ORIGIN)).max_decoding_message_size(MESSAGE_LIMIT);
        for record in self.records(names).await?.into_iter().filter(|record| record.target.digest == digest) {
            let delete = DeleteImageRequest { name: record.name, ..DeleteImageRequest::default() };
            found(self.within("Images.Delete", client.delete(request(delete))).await)?;
        }
        Ok(())
    }

    /// The content named `digest`, at most `limit` bytes of it, hashed while it is read; None if it is not there.
    ///
    /// # Errors
    /// [`ContainerdError::TooLarge`], [`ContainerdError::Mismatch`], or containerd gave no answer.
    pub async fn content(&self, digest: &Sha256, limit: u64) -> Result<Option<Vec<u8>>, ContainerdError> {
        const CALL: &str = "Content.Read";
        let read = self.read_content(digest, limit);
        match self.within(CALL, async { Ok(read.await) }).await? {
            Err(Unread::Containerd(error)) => Err(error),
            Err(Unread::Status(status)) if status.code() == Code::NotFound => Ok(None),
            Err(Unread::Status(status)) => Err(self.failed(CALL, status)),
            Ok(bytes) => Ok(Some(bytes)),
        }
    }

    async fn read_content(&self, digest: &Sha256, limit: u64) -> Result<Vec<u8>, Unread> {
        let mut client = ContentClient::with_origin(self.caller.clone(), Uri::from_static(ORIGIN)).max_decoding_message_size(MESSAGE_LIMIT);
        let asked = ReadContentRequest { digest: format!("sha256:{digest}"), offset: 0, size: 0 };
        let mut parts = client.read(request(asked)).await?.into_inner();
        let mut bytes = Vec::with_capacity(usize::try_from(limit.min(FIRST_CAPACITY)).unwrap_or_default());
        let mut hasher = sha2::Sha256::new();
        while let Some(part) = parts.message().await? {
            if (bytes.len() + part.data.len()) as u64 > limit {
                return Err(Unread::Containerd(ContainerdError::TooLarge { digest: *digest, limit }));
            }
            hasher.update(&part.data);
            bytes.extend_from_slice(&part.data);
        }
        let found = Sha256::from_bytes(hasher.finalize().into());
        if found == *digest { Ok(bytes) } else { Err(Unread::Containerd(ContainerdError::Mismatch { digest: *digest, found })) }
    }

    /// The container (or sandbox) with this ID; None if there is none.
    ///
    /// # Errors
    /// [`ContainerdError`].
    pub async fn container(&self, id: &str) -> Result<Option<ContainerRecord>, ContainerdError> {
        const CALL: &str = "Containers.Get";
        let mut client =
            ContainersClient::with_origin(self.caller.clone(), Uri::from_static(ORIGIN)).max_decoding_message_size(MESSAGE_LIMIT);
        let answer = self.within(CALL, client.get(request(GetContainerRequest { id: id.to_owned() }))).await;
        let Some(answer) = found(answer)? else { return Ok(None) };
        let malformed = |what| ContainerdError::Malformed { call: CALL, what };
        let container = answer.into_inner().container.ok_or_else(|| malformed("container"))?;
        let spec = container.spec.map(|spec| RuntimeSpec::read(&spec.value)).transpose();
        let spec = spec.map_err(|_| malformed("specification"))?;
        let (id_mapping, volumes) = spec.map_or_else(Default::default, |spec| (spec.id_mapping, spec.volumes));
        Ok(Some(ContainerRecord {
            image: container.image,
            snapshotter: container.snapshotter,
            snapshot_key: container.snapshot_key,
            id_mapping,
            volumes,
            made_at: MadeAt::of(container.created_at),
        }))
    }

    /// What the snapshot `key` stands on; empty if it stands on nothing, None if there is no such snapshot.
    ///
    /// # Errors
    /// [`ContainerdError`].
    pub async fn snapshot_parent(&self, snapshotter: &str, key: &str) -> Result<Option<String>, ContainerdError> {
        const CALL: &str = "Snapshots.Stat";
        let mut client =
            SnapshotsClient::with_origin(self.caller.clone(), Uri::from_static(ORIGIN)).max_decoding_message_size(MESSAGE_LIMIT);
        let asked = StatSnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
        let answer = self.within(CALL, client.stat(request(asked))).await;
        let Some(answer) = found(answer)? else { return Ok(None) };
        let info = answer.into_inner().info.ok_or(ContainerdError::Malformed { call: CALL, what: "info" })?;
        Ok(Some(info.parent))
    }

    fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    async fn within<T>(&self, call: &'static str, answer: impl Future<Output = Result<T, Status>>) -> Result<T, ContainerdError> {
        match tokio::time::timeout(CALL_DEADLINE, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(self.failed(call, status)),
            Err(_) => Err(ContainerdError::Deadline { socket: self.caller.0.socket().to_path_buf(), call, limit: CALL_DEADLINE }),
        }
    }

    /// A status that our side of the connection made has a cause; one that containerd sent has none.
    fn failed(&self, call: &'static str, status: Status) -> ContainerdError {
        let is_ours = std::error::Error::source(&status).is_some();
        if is_ours || matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded) {
            return ContainerdError::Unreachable { socket: self.caller.0.socket().to_path_buf(), call, status: Box::new(status) };
        }
        ContainerdError::Refused { call, code: status.code(), message: shown(status.message()) }
    }
}

/// Why content was not read to its end.
enum Unread {
    Containerd(ContainerdError),
    Status(Status),
}

impl From<Status> for Unread {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
    request
}

/// Not-found is an answer.
fn found<T>(answer: Result<T, ContainerdError>) -> Result<Option<T>, ContainerdError> {
    match answer {
        Err(ContainerdError::Refused { code: Code::NotFound, .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

fn target(means: &Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: means.media_type.clone(),
        digest: means.digest.clone(),
        size: means.size,
        ..types::Descriptor::default()
    }
}

fn record(call: &'static str, image: Image) -> Result<Record, ContainerdError> {
    let target = image.target.ok_or(ContainerdError::Malformed { call, what: "target" })?;
    let target = Descriptor { media_type: target.media_type, digest: target.digest, size: target.size };
    let pinned = image.labels.get(PINNED.0).is_some_and(|value| value == PINNED.1);
    Ok(Record { name: image.name, target, pinned })
}
