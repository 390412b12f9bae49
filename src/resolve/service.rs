//! Which service a pod belongs to, and which revision of it, from what CRI tells of the pod.
//!
//! The labels are the tenant's, and so are most annotations: they choose among the services of the pod's own namespace, and
//! never reach into another's. Nothing is admitted by them that the signatures do not admit.

use std::fmt;

use countersign_trust::name::{Sha256, shown};

/// Names the service, whatever the labels say.
pub const SERVICE_ANNOTATION: &str = "countersign/service";
/// Names the revision of it. Without it, the labels tell the revision, else the pod is one of its own.
pub const REVISION_ANNOTATION: &str = "countersign/revision";

/// Bytes of one part of a service's name. Kubernetes allows 253 for a name and 63 for a label's value; what is longer names no
/// service, and its pod is judged by what is signed now.
pub const MAX_PART_BYTES: usize = 253;

/// Of a `ReplicaSet` that a Deployment made: the hash of its pod template.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// Of a `StatefulSet` or a `DaemonSet`: its `ControllerRevision`.
const CONTROLLER_REVISION: &str = "controller-revision-hash";
/// Of a `StatefulSet`: the pod's own name.
const STATEFUL_POD: &str = "statefulset.kubernetes.io/pod-name";
/// Of a Job; the second is what Kubernetes wrote before 1.27 and still writes.
const JOB_NAMES: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
/// The UID of a Job.
const JOB_UIDS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
/// kubelet writes where it has each pod from, over whatever the pod says.
const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
const STATIC_SOURCES: [&str; 2] = ["file", "http"];
/// kubelet's hash of a static pod.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// What Kubernetes appends to a generated name (`k8s.io/apiserver/pkg/storage/names`): so many random characters, after a
/// base that is cut so that the whole has 63.
const RANDOM_CHARACTERS: usize = 5;
const LONGEST_GENERATED_BASE: usize = 58;
/// A `CronJob` names each Job after the minute that it was due at, in digits; there have been eight since 1990.
const FEWEST_MINUTE_DIGITS: usize = 8;

/// Whether a label or an annotation of this key tells of a service. Pods have many others.
#[must_use]
pub fn tells_of_service(key: &str) -> bool {
    let keys = [SERVICE_ANNOTATION, REVISION_ANNOTATION, TEMPLATE_HASH, CONTROLLER_REVISION, STATEFUL_POD, CONFIG_SOURCE, CONFIG_HASH];
    keys.into_iter().chain(JOB_NAMES).chain(JOB_UIDS).any(|telling| telling == key)
}

/// What is known of a pod.
pub trait PodFacts {
    /// Its name.
    fn name(&self) -> &str;
    /// Its UID.
    fn uid(&self) -> &str;
    /// Its namespace.
    fn namespace(&self) -> &str;
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
    /// The value of an annotation.
    fn annotation(&self, key: &str) -> Option<&str>;
}

/// What makes the pods of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The annotation says so.
    Named,
    /// A Deployment.
    Deployment,
    /// A `StatefulSet`.
    StatefulSet,
    /// A `DaemonSet`.
    DaemonSet,
    /// A `CronJob`: each Job of it is a revision.
    CronJob,
    /// A Job.
    Job,
    /// kubelet itself, from a file or a URL.
    Static,
    /// Nobody that is known here: a pod by itself.
    Pod,
}

impl Kind {
    /// As it is written in the name of a service.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Named => "service",
            Self::Deployment => "deployment",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
            Self::CronJob => "cronjob",
            Self::Job => "job",
            Self::Static => "static",
            Self::Pod => "pod",
        }
    }

    /// Reads [`Kind::as_str`].
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let all = [Self::Named, Self::Deployment, Self::StatefulSet, Self::DaemonSet, Self::CronJob, Self::Job, Self::Static, Self::Pod];
        all.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A workload of one namespace, as in Swarm.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// The namespace of its pods.
    pub namespace: String,
    /// What makes its pods.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

/// `namespace/kind/name`, escaped.
impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", shown(&self.namespace), self.kind.as_str(), shown(&self.name))
    }
}

/// One revision of a service: what a rollout makes, and every replica, restart and late node of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// Of which service.
    pub service: Service,
    /// Which: a hash, a UID, or what the annotation says.
    pub id: String,
}

impl Revision {
    /// Reads what is written of one. None for a kind that is none, and for names that no pod gives.
    #[must_use]
    pub fn read(namespace: String, kind: &str, name: String, id: String) -> Option<Self> {
        let kind = Kind::read(kind)?;
        let revision = Self { service: Service { namespace, kind, name }, id };
        revision.is_usual().then_some(revision)
    }
}

/// `namespace/kind/name revision`, escaped.
impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.service, shown(&self.id))
    }
}

impl Revision {
    /// The revision that a pod belongs to. None if the pod's namespace or UID is not known, or if a name is longer than any that
    /// Kubernetes gives, or has control characters, which are six times as long when they are written.
    #[must_use]
    pub fn of(pod: &impl PodFacts) -> Option<Self> {
        if pod.namespace().is_empty() || pod.uid().is_empty() {
            return None;
        }
        let derived = derived(pod);
        let (kind, name, id) = match present(pod.annotation(SERVICE_ANNOTATION)) {
            None => derived,
            Some(name) => (Kind::Named, name.to_owned(), derived_id(pod, derived)),
        };
        let revision = Self { service: Service { namespace: pod.namespace().to_owned(), kind, name }, id };
        revision.is_usual().then_some(revision)
    }

    fn is_usual(&self) -> bool {
        let parts = [&self.service.namespace, &self.service.name, &self.id];
        parts.into_iter().all(|part| (1..=MAX_PART_BYTES).contains(&part.len()) && !part.chars().any(char::is_control))
    }

    /// A name of it without the tenant's bytes, for keys and file names: the hash of all its parts, each with its length.
    #[must_use]
    pub fn digest(&self) -> Sha256 {
        let Self { service: Service { namespace, kind, name }, id } = self;
        let mut bytes = Vec::new();
        for part in [namespace.as_str(), kind.as_str(), name, id] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        Sha256::of(&bytes)
    }
}

/// The revision of a service that an annotation names. What has no workload of Kubernetes is not one revision for ever: a name
/// that is used again means what is signed then.
fn derived_id(pod: &impl PodFacts, (_, _, id): (Kind, String, String)) -> String {
    present(pod.annotation(REVISION_ANNOTATION)).map_or(id, str::to_owned)
}

/// What the labels say, as far as the pod's own name agrees with it.
fn derived(pod: &impl PodFacts) -> (Kind, String, String) {
    let found = static_pod(pod).or_else(|| of_deployment(pod)).or_else(|| of_controller(pod)).or_else(|| of_job(pod));
    found.unwrap_or_else(|| (Kind::Pod, pod.name().to_owned(), pod.uid().to_owned()))
}

type Found = (Kind, String, String);

fn static_pod(pod: &impl PodFacts) -> Option<Found> {
    let source = pod.annotation(CONFIG_SOURCE)?;
    if !STATIC_SOURCES.contains(&source) {
        return None;
    }
    let hash = present(pod.annotation(CONFIG_HASH)).unwrap_or_else(|| pod.uid());
    Some((Kind::Static, pod.name().to_owned(), hash.to_owned()))
}

fn of_deployment(pod: &impl PodFacts) -> Option<Found> {
    let hash = present(pod.label(TEMPLATE_HASH))?;
    let base = generated_base(pod.name())?;
    let whole = base.strip_suffix('-').and_then(|replica_set| replica_set.strip_suffix(hash)?.strip_suffix('-'));
    let name = whole.or_else(|| without_cut_hash(base, hash))?;
    present(Some(name)).map(|name| (Kind::Deployment, name.to_owned(), hash.to_owned()))
}

/// The name of a Deployment in a base that was cut: some of the hash, the hyphen before it, or some of the name itself, is gone.
fn without_cut_hash<'a>(base: &'a str, hash: &str) -> Option<&'a str> {
    if base.len() != LONGEST_GENERATED_BASE {
        return None;
    }
    let cut = (0..=hash.len()).rev().filter_map(|length| hash.get(..length));
    let whole = cut.filter_map(|part| base.strip_suffix(part)?.strip_suffix('-')).next();
    Some(whole.unwrap_or(base))
}

fn of_controller(pod: &impl PodFacts) -> Option<Found> {
    let hash = present(pod.label(CONTROLLER_REVISION))?;
    if pod.label(STATEFUL_POD) == Some(pod.name()) {
        let (name, ordinal) = pod.name().rsplit_once('-')?;
        let is_ordinal = !ordinal.is_empty() && ordinal.bytes().all(|digit| digit.is_ascii_digit());
        return is_ordinal.then(|| (Kind::StatefulSet, name.to_owned(), hash.to_owned()));
    }
    let base = generated_base(pod.name())?;
    // A base that was cut is as much of the name as there is.
    let name = if base.len() == LONGEST_GENERATED_BASE { base.strip_suffix('-').unwrap_or(base) } else { base.strip_suffix('-')? };
    present(Some(name)).map(|name| (Kind::DaemonSet, name.to_owned(), hash.to_owned()))
}

fn of_job(pod: &impl PodFacts) -> Option<Found> {
    let of_first = |keys: [&str; 2]| keys.into_iter().find_map(|key| present(pod.label(key)));
    let job = of_first(JOB_NAMES)?;
    // The pod of a Job is named after it, cut or not.
    let base = generated_base(pod.name()).filter(|base| base.starts_with(job) || job.starts_with(base));
    base?;
    let id = of_first(JOB_UIDS).unwrap_or(job).to_owned();
    let of_cron = job.rsplit_once('-').filter(|(name, minute)| {
        !name.is_empty() && minute.len() >= FEWEST_MINUTE_DIGITS && minute.bytes().all(|digit| digit.is_ascii_digit())
    });
    Some(of_cron.map_or_else(|| (Kind::Job, job.to_owned(), id.clone()), |(name, _)| (Kind::CronJob, name.to_owned(), id.clone())))
}

/// A generated name without its random end.
fn generated_base(name: &str) -> Option<&str> {
    let end = name.len().checked_sub(RANDOM_CHARACTERS)?;
    let (base, random) = name.split_at_checked(end)?;
    let is_random = random.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (is_random && !base.is_empty() && base.len() <= LONGEST_GENERATED_BASE).then_some(base)
}

fn present(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
