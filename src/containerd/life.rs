//! What lives in containerd, in every namespace: its containers and tasks, and the events that tell of their coming.

use std::collections::HashMap;
use std::fmt;

use containerd_client::events::{ContainerCreate, TaskStart};
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    Container, GetContainerRequest, GetRequest, ImageCreate, ImageUpdate, KillRequest, ListContainersRequest, ListNamespacesRequest,
    SubscribeRequest,
};
use containerd_client::types::Envelope;
use containerd_client::types::v1::Status as TaskStatus;
use countersign_trust::name::shown;
use futures_util::future::BoxFuture;
use http::Uri;
use prost::Message as _;
use serde::Deserialize;
use tonic::metadata::MetadataValue;
use tonic::{Response, Status, Streaming};

use super::spec::may_show_images;
use super::{Containerd, ContainerdError, MESSAGE_LIMIT, MadeAt, NAMESPACE, ORIGIN, found, request};

/// Containers of one namespace that are looked at. kubelet's own limit is some hundred pods.
pub const MAX_CONTAINERS: usize = 16_384;
/// What is heard of. Everything else (content, snapshots, exits, execs) brings no image to life.
const HEARD: [&str; 4] = ["/containers/create", "/tasks/start", "/images/create", "/images/update"];
/// Linux's number.
const SIGKILL: u32 = 9;
/// CRI's labels and annotation on the containers that it makes (containerd, `containerKindLabel`, `annotations.SandboxID`).
const KIND: &str = "io.cri-containerd.kind";
const SANDBOX_KIND: &str = "sandbox";
const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
/// kubelet's labels, which CRI copies.
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_NAME: &str = "io.kubernetes.pod.name";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// Something that came to life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The namespace of containerd.
    pub namespace: String,
    /// What.
    pub what: Happened,
}

/// What came to life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// A container was made; its ID.
    ContainerCreated(String),
    /// The task of a container was started; the container's ID.
    TaskStarted(String),
    /// An image record was made or changed; its name.
    ImageWritten(String),
}

/// containerd's events, from the moment of asking on.
pub struct Events(Stream);

/// containerd answers with the first event, and not before there is one.
enum Stream {
    Asked(BoxFuture<'static, Result<Response<Streaming<Envelope>>, Status>>),
    Answered(Box<Streaming<Envelope>>),
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

/// A container as its record shows it. All of it but the moment and the ID was written by whoever made it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// Its ID.
    pub id: String,
    /// The name of the image record that it says it was made from.
    pub image: String,
    /// When, by containerd's own clock.
    pub made_at: MadeAt,
    /// It says of itself that it is the sandbox of a pod.
    pub claims_sandbox: bool,
    /// The sandbox that it says it is in. Empty if it names none, or where it was not looked for.
    pub sandbox_id: String,
    /// The namespace of the pod that it says it is of; empty if none.
    pub pod_namespace: String,
    /// The pod.
    pub pod: String,
    /// Its name there.
    pub name: String,
    /// Its mounts may show images: volumes, for each of which another rule may answer.
    pub may_show_images: bool,
}

impl Containerd {
    /// Follows the events of every namespace. It is asked for them with the first [`Events::next`]; no deadline bounds the
    /// stream, which ends when containerd does.
    #[must_use]
    pub fn events(&self) -> Events {
        let mut client = EventsClient::with_origin(self.caller.clone(), Uri::from_static(ORIGIN)).max_decoding_message_size(MESSAGE_LIMIT);
        let filters = HEARD.iter().map(|topic| super::filter::equals("topic", topic)).collect();
        Events(Stream::Asked(Box::pin(async move { client.subscribe(request(SubscribeRequest { filters })).await })))
    }

    /// Every namespace.
    ///
    /// # Errors
    /// [`ContainerdError`].
    pub async fn namespaces(&self) -> Result<Vec<String>, ContainerdError> {
        let mut client =
            NamespacesClient::with_origin(self.caller.clone(), Uri::from_static(ORIGIN)).max_decoding_message_size(MESSAGE_LIMIT);
        let answer = self.within("Namespaces.List", client.list(request(ListNamespacesRequest::default()))).await?;
        Ok(answer.into_inner().namespaces.into_iter().map(|namespace| namespace.name).collect())
    }

    /// Every container of a namespace, at most [`MAX_CONTAINERS`], without the sandboxes that they are in.
    ///
    /// # Errors
    /// [`ContainerdError`].
    pub async fn containers_of(&self, namespace: &str) -> Result<Vec<Listed>, ContainerdError> {
        self.read_containers(namespace, Listed::of_record).await
    }

    /// As [`Containerd::containers_of`], for whoever looks at what each container was given: its OCI runtime specification.
    ///
    /// # Errors
    /// [`ContainerdError`].
    pub async fn specifications_of(&self, namespace: &str) -> Result<Vec<(Listed, Vec<u8>)>, ContainerdError> {
        let with_specification = |record: Container| {
            let specification = record.spec.as_ref().map(|spec| spec.value.clone()).unwrap_or_default();
            (Listed::of_record(record), specification)
        };
        self.read_containers(namespace, with_specification).await
    }

    /// A list of one message would be too long for containerd to send when there are some thousand containers.
    async fn read_containers<T>(&self, namespace: &str, read: impl Fn(Container) -> T) -> Result<Vec<T>, ContainerdError> {
        const CALL: &str = "Containers.ListStream";
        let mut client =
            ContainersClient::with_origin(self.caller.clone(), Uri::from_static(ORIGIN)).max_decoding_message_size(MESSAGE_LIMIT);
        let asked = in_namespace(CALL, namespace, ListContainersRequest::default())?;
        let listing = async {
            let mut parts = client.list_stream(asked).await?.into_inner();
            let mut listed = Vec::new();
            while let Some(part) = parts.message().await? {
                listed.extend(part.container.map(&read));
                if listed.len() >= MAX_CONTAINERS {
                    break;
                }
            }
            Ok(listed)
        };
        self.within(CALL, listing).await
    }

    /// One container, with the sandbox that it says it is in; None if there is none.
    ///
    /// # Errors
    /// [`ContainerdError`].
    pub async fn listed(&self, namespace: &str, id: &str) -> Result<Option<Listed>, ContainerdError> {
        const CALL: &str = "Containers.Get";
        let mut client =
            ContainersClient::with_origin(self.caller.clone(), Uri::from_static(ORIGIN)).max_decoding_message_size(MESSAGE_LIMIT);
        let asked = in_namespace(CALL, namespace, GetContainerRequest { id: id.to_owned() })?;
        let Some(answer) = found(self.within(CALL, client.get(asked)).await)? else { return Ok(None) };
        let container = answer.into_inner().container.ok_or(ContainerdError::Malformed { call: CALL, what: "container" })?;
        let sandbox_id = container.spec.as_ref().map(|spec| sandbox_in(&spec.value)).unwrap_or_default();
        Ok(Some(Listed { sandbox_id, ..Listed::of_record(container) }))
    }

    /// Whether the task of a container runs, or could go on running.
    ///
    /// # Errors
    /// [`ContainerdError`].
    pub async fn task_runs(&self, namespace: &str, container_id: &str) -> Result<bool, ContainerdError> {
        const CALL: &str = "Tasks.Get";
        let mut client = TasksClient::with_origin(self.caller.clone(), Uri::from_static(ORIGIN)).max_decoding_message_size(MESSAGE_LIMIT);
        let asked = in_namespace(CALL, namespace, GetRequest { container_id: container_id.to_owned(), exec_id: String::new() })?;
        let Some(answer) = found(self.within(CALL, client.get(asked)).await)? else { return Ok(false) };
        let status = answer.into_inner().process.map(|process| process.status()).unwrap_or_default();
        Ok(matches!(status, TaskStatus::Running | TaskStatus::Paused | TaskStatus::Pausing))
    }

    /// Kills every process of a container of Kubernetes.
    ///
    /// # Errors
    /// [`ContainerdError`].
    pub async fn kill_task(&self, container_id: &str) -> Result<(), ContainerdError> {
        let mut client = TasksClient::with_origin(self.caller.clone(), Uri::from_static(ORIGIN)).max_decoding_message_size(MESSAGE_LIMIT);
        let kill = KillRequest { container_id: container_id.to_owned(), exec_id: String::new(), signal: SIGKILL, all: true };
        found(self.within("Tasks.Kill", client.kill(request(kill))).await).map(drop)
    }
}

impl Events {
    /// The next event of those that are heard of; None when the stream has ended. Dropping the future loses no event.
    ///
    /// # Errors
    /// What the connection said, escaped.
    pub async fn next(&mut self) -> Result<Option<Event>, String> {
        let said = |status: Status| shown(status.message());
        loop {
            let envelope = match &mut self.0 {
                Stream::Asked(answer) => {
                    self.0 = Stream::Answered(Box::new(answer.await.map_err(said)?.into_inner()));
                    continue;
                }
                Stream::Answered(stream) => stream.message().await.map_err(said)?,
            };
            let Some(envelope) = envelope else { return Ok(None) };
            if let Some(event) = event_of(envelope) {
                return Ok(Some(event));
            }
        }
    }
}

/// Anybody with containerd's socket may publish an event. One that cannot be read tells of nothing: what is there is listed
/// from time to time, whoever told of it.
fn event_of(envelope: Envelope) -> Option<Event> {
    let body = envelope.event?.value;
    let body = body.as_slice();
    let what = match envelope.topic.as_str() {
        "/containers/create" => Happened::ContainerCreated(ContainerCreate::decode(body).ok()?.id),
        "/tasks/start" => Happened::TaskStarted(TaskStart::decode(body).ok()?.container_id),
        "/images/create" => Happened::ImageWritten(ImageCreate::decode(body).ok()?.name),
        "/images/update" => Happened::ImageWritten(ImageUpdate::decode(body).ok()?.name),
        _ => return None,
    };
    Some(Event { namespace: envelope.namespace, what })
}

impl Listed {
    /// Names this container and none that had its ID before, or will have it.
    #[must_use]
    pub fn once(&self) -> String {
        format!("{} of {}.{:09}", self.id, self.made_at.seconds, self.made_at.nanos)
    }

    fn of_record(record: Container) -> Self {
        let made_at = MadeAt::of(record.created_at);
        let label = |name: &str| record.labels.get(name).cloned().unwrap_or_default();
        Self {
            made_at,
            claims_sandbox: record.labels.get(KIND).is_some_and(|kind| kind == SANDBOX_KIND),
            sandbox_id: String::new(),
            pod_namespace: label(POD_NAMESPACE),
            pod: label(POD_NAME),
            name: label(CONTAINER_NAME),
            may_show_images: record.spec.as_ref().is_none_or(|spec| may_show_images(&spec.value)),
            id: record.id,
            image: record.image,
        }
    }
}

/// The sandbox that an OCI runtime specification names. Empty if it names none or cannot be read.
fn sandbox_in(specification: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Specification {
        #[serde(default)]
        annotations: HashMap<String, String>,
    }
    let read = serde_json::from_slice::<Specification>(specification);
    read.ok().and_then(|mut specification| specification.annotations.remove(SANDBOX_ID)).unwrap_or_default()
}

/// A question about another namespace than CRI's. A name that cannot stand in a header is no namespace of containerd.
fn in_namespace<T>(call: &'static str, namespace: &str, message: T) -> Result<tonic::Request<T>, ContainerdError> {
    let mut request = request(message);
    if namespace != NAMESPACE {
        let value = MetadataValue::try_from(namespace).map_err(|_| ContainerdError::Malformed { call, what: "namespace" })?;
        request.metadata_mut().insert("containerd-namespace", value);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(topic: &str, event: &impl prost::Message) -> Envelope {
        let event = prost_types::Any { type_url: String::new(), value: event.encode_to_vec() };
        Envelope { namespace: "k8s.io".to_owned(), topic: topic.to_owned(), event: Some(event), ..Envelope::default() }
    }

    #[test]
    fn what_brings_an_image_to_life_is_heard_of() {
        let heard = |topic: &str, event: &dyn Fn(&str) -> Envelope| event_of(event(topic)).map(|event| event.what);
        let container = ContainerCreate { id: "c".to_owned(), image: "i".to_owned(), runtime: None };
        let task = TaskStart { container_id: "c".to_owned(), pid: 7 };
        let image = ImageCreate { name: "r.test/a:1".to_owned(), ..ImageCreate::default() };
        let changed = ImageUpdate { name: "r.test/a:1".to_owned(), ..ImageUpdate::default() };
        assert_eq!(heard("/containers/create", &|topic| envelope(topic, &container)), Some(Happened::ContainerCreated("c".to_owned())));
        assert_eq!(heard("/tasks/start", &|topic| envelope(topic, &task)), Some(Happened::TaskStarted("c".to_owned())));
        for (topic, event) in
            [("/images/create", envelope("/images/create", &image)), ("/images/update", envelope("/images/update", &changed))]
        {
            assert_eq!(event_of(event).unwrap().what, Happened::ImageWritten("r.test/a:1".to_owned()), "{topic}");
        }
        assert_eq!(heard("/tasks/exit", &|topic| envelope(topic, &task)), None);
    }

    #[test]
    fn an_event_that_cannot_be_read_tells_of_nothing() {
        let broken = prost_types::Any { type_url: String::new(), value: vec![0xff; 9] };
        let event = Envelope { topic: "/tasks/start".to_owned(), event: Some(broken), ..Envelope::default() };
        assert_eq!(event_of(event), None);
        assert_eq!(event_of(Envelope { topic: "/tasks/start".to_owned(), ..Envelope::default() }), None);
    }

    #[test]
    fn the_sandbox_of_a_container_stands_in_its_specification() {
        let specification = br#"{"ociVersion":"1.0","annotations":{"io.kubernetes.cri.sandbox-id":"s1","other":"x"}}"#;
        assert_eq!(sandbox_in(specification), "s1");
        for none in [&b"{}"[..], b"", b"[1]", br#"{"annotations":{"a":1}}"#] {
            assert_eq!(sandbox_in(none), "", "{none:?}");
        }
    }

    #[test]
    fn labels_of_a_container_are_read_as_what_it_says_of_itself() {
        let labels = [(KIND, "sandbox"), (POD_NAMESPACE, "shop"), (POD_NAME, "web-1"), (CONTAINER_NAME, "web")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let listed = Listed::of_record(Container { id: "c".to_owned(), labels, ..Container::default() });
        assert!(listed.claims_sandbox);
        assert_eq!((listed.pod_namespace.as_str(), listed.pod.as_str(), listed.name.as_str()), ("shop", "web-1", "web"));
        assert!(!Listed::of_record(Container::default()).claims_sandbox);
    }
}
