//! RunPodSandbox: its image, which containerd would pull by itself, is verified and pulled before, and what was really made is
//! compared with it by content. Which pod a sandbox is for is kept in mind for the containers that join it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageId, ImageReference, Selector, shown};

use super::checked::{Guard, Judged, Refused, to_the_end, unanswered};
use super::checks::CheckedCall;
use super::messages::{
    PodSandboxMetadata, RunPodSandboxRequest, list_containers_request, pod_sandbox_status_request, pod_sandbox_status_response,
    pull_image_request, pull_image_response, remove_pod_sandbox_request, run_pod_sandbox_response, status_request, status_response,
    stop_pod_sandbox_request,
};
use super::methods::{
    CheckedMethod, LIST_CONTAINERS, POD_SANDBOX_STATUS, PULL_IMAGE, REMOVE_POD_SANDBOX, RUN_POD_SANDBOX, STATUS, STOP_POD_SANDBOX,
};
use super::status::{Code, Status};
use super::upstream::{Reply, Upstream};
use crate::admit::{Admission, ImageContent, ImageRecord, KeyGuard, Pod, Refusal, is_whole_id, record_name};
use crate::crash::Step;

/// How long the pull of the sandboxes' image may take: half of what kubelet waits for a sandbox.
const PULL_DEADLINE: Duration = Duration::from_secs(120);
/// What a refusal says when it is not known which image is meant.
const UNKNOWN: &str = "the sandbox image";

/// What containerd told of its sandboxes' image; asked again after a sandbox was made of another.
pub(super) type ToldImage = Arc<Mutex<Option<ImageReference>>>;

/// The image of sandboxes, verified and on the node.
struct Ready {
    image: ImageReference,
    content: Vec<ImageContent>,
    /// Held until the sandbox is there.
    _held: KeyGuard<ImageId>,
}

/// The image of sandboxes is judged for no namespace: it is the same for all.
const fn judged(image: &str, began: Instant) -> Judged<'_> {
    Judged { image, container: None, namespace: None, began }
}

impl From<PodSandboxMetadata> for Pod {
    fn from(PodSandboxMetadata { name, uid, namespace, attempt: _, revision }: PodSandboxMetadata) -> Self {
        Self { name, uid, namespace, revision }
    }
}

impl Guard {
    /// The pod of a sandbox, as it was told when the sandbox was made. One that was not made here since the start, or that was
    /// forgotten, is looked at as a new one is. None: containerd knows no such sandbox, or no pod of it.
    pub(super) async fn pod_of(&self, sandbox_id: &str, upstream: &Upstream) -> Result<Option<Pod>, Refusal> {
        if let Some(pod) = self.admit.pod_of(sandbox_id) {
            return Ok(Some(pod));
        }
        let Some((whole_id, metadata)) = sandbox_status(sandbox_id, upstream).await? else { return Ok(None) };
        if self.admit.mode() == Mode::Enforced {
            let ready = self.ready_sandbox_image(upstream, Instant::now()).await?;
            if let Err(refusal) = self.admit.check_sandbox(&whole_id, &ready.content).await {
                if matches!(refusal, Refusal::OtherRootFs { .. }) {
                    self.remove_empty_sandbox(&whole_id, upstream).await;
                }
                return Err(refusal);
            }
        }
        let pod = metadata.map(Pod::from);
        if let Some(pod) = &pod {
            self.admit.remember_sandbox(&whole_id, pod.clone());
        }
        Ok(pod)
    }

    pub(super) async fn run_sandbox(&self, call: CheckedCall) -> Result<Reply, Status> {
        let began = Instant::now();
        let request = RunPodSandboxRequest::read(&call.message)?;
        Step::SandboxAsked.reached();
        let pod = request.sandbox.map(Pod::from);
        let mode = self.admit.mode();
        if !mode.verifies() {
            self.not_judged(CheckedMethod::RunPodSandbox, judged(UNKNOWN, began));
            let reply = call.forward(CheckedMethod::RunPodSandbox).await?;
            return Ok(self.joined(reply, pod));
        }
        match self.ready_sandbox_image(&call.upstream, began).await {
            Ok(ready) => {
                let guard = self.clone();
                to_the_end(async move { guard.run_admitted(&call, ready, pod, began).await }).await
            }
            Err(refusal) => {
                let refused = Refused { method: CheckedMethod::RunPodSandbox, judged: judged(UNKNOWN, began), mode };
                let reply = self.refused(&call, refused, refusal).await?;
                Ok(self.joined(reply, pod))
            }
        }
    }

    /// Keeps in mind which pod the new sandbox is for.
    fn joined(&self, reply: Reply, pod: Option<Pod>) -> Reply {
        if let (Ok(sandbox_id), Some(pod)) = (run_pod_sandbox_response(&reply.message), pod) {
            self.admit.remember_sandbox(&sandbox_id, pod);
        }
        reply
    }

    async fn ready_sandbox_image(&self, upstream: &Upstream, began: Instant) -> Result<Ready, Refusal> {
        let name = self.sandbox_image_name(upstream).await?;
        let records = self.admit.containerd().records(&[record_name(&name)]).await?;
        let admission = self.admit.admit_sandbox(&name, &records).await?;
        let (content, image_id) = self.sandbox_image_here(&admission, &records, upstream).await?;
        self.admitted(CheckedMethod::RunPodSandbox, judged(&name.to_string(), began), &admission, Some(image_id));
        // Its tag record is not moved from here until the sandbox stands.
        let held = self.admit.image_locks.share(image_id).await;
        Ok(Ready { image: name, content, _held: held })
    }

    /// The name in containerd's configuration.
    async fn sandbox_image_name(&self, upstream: &Upstream) -> Result<ImageReference, Refusal> {
        if let Some(name) = self.admit.sandbox_name() {
            return Ok(name);
        }
        if let Some(name) = self.told_image.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(name);
        }
        let reply = upstream.ask(STATUS, status_request()).await.map_err(|status| unanswered("Status", &status))?;
        let told = status_response(&reply.message).map_err(|error| Refusal::Answer { what: format!("a malformed Status: {error}") })?;
        let told = told.ok_or(Refusal::SandboxUnknown)?;
        let name: ImageReference = told.parse().map_err(|error| Refusal::Name { error })?;
        *self.told_image.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.clone());
        Ok(name)
    }

    /// What the admitted digest is on this node, pulled if it is not here or goes by another name than that of `records`; and one
    /// of its images.
    async fn sandbox_image_here(
        &self,
        admission: &Admission,
        records: &[ImageRecord],
        upstream: &Upstream,
    ) -> Result<(Vec<ImageContent>, ImageId), Refusal> {
        let (name, digest) = (&admission.image, admission.digest);
        if let Some(found) = records.iter().find(|found| found.target.digest == digest.to_string()) {
            let content = self.admit.sandbox_content(name, digest).await?;
            if let Some(image_id) = content.first().map(|image| image.image_id) {
                self.admit.keep_sandbox_image(found).await;
                return Ok((content, image_id));
            }
        }
        let by_digest = ImageReference::by_digest(name.repository().clone(), digest);
        Step::SandboxPullDue.reached();
        let reply = {
            let _pulling = self.admit.pulling(&by_digest.to_string());
            upstream.ask_within(PULL_DEADLINE, PULL_IMAGE, pull_image_request(&by_digest.to_string())).await
        };
        let reply = reply.map_err(|status| unanswered(&format!("the pull of the sandbox image {by_digest}"), &status))?;
        Step::SandboxPulled.reached();
        let image_id = pull_image_response(&reply.message).ok().and_then(|id| id.parse().ok());
        let image_id: ImageId = image_id.ok_or_else(|| Refusal::Answer { what: "a pull with no image ID".to_owned() })?;
        let content = self.admit.sandbox_content(name, digest).await?;
        if !content.iter().any(|image| image.image_id == image_id) {
            return Err(Refusal::Answer { what: format!("a pull of {digest} with image {image_id}, which is not part of it") });
        }
        if let Selector::Tag(_) = name.selector() {
            self.name_image(admission, image_id, upstream).await?;
        }
        for made in self.admit.containerd().records(&[record_name(name)]).await? {
            self.admit.keep_sandbox_image(&made).await;
        }
        Ok((content, image_id))
    }

    /// Runs the sandbox, and looks what it stands on.
    async fn run_admitted(&self, call: &CheckedCall, ready: Ready, pod: Option<Pod>, began: Instant) -> Result<Reply, Status> {
        Step::SandboxReady.reached();
        let reply = call.upstream.to_its_end(RUN_POD_SANDBOX, call.message.clone(), &call.metadata).await?;
        Step::SandboxMade.reached();
        let sandbox_id = run_pod_sandbox_response(&reply.message)?;
        let Err(refusal) = self.admit.check_sandbox(&sandbox_id, &ready.content).await else {
            Step::SandboxChecked.reached();
            return Ok(self.joined(reply, pod));
        };
        // containerd may have been given another image since it was asked.
        self.told_image.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (sandbox, image, mode) = (shown(&sandbox_id), ready.image.to_string(), self.admit.mode());
        let refused = Refused { method: CheckedMethod::RunPodSandbox, judged: judged(&image, began), mode };
        if mode != Mode::Enforced {
            self.let_pass(refused, &refusal);
            return Ok(self.joined(reply, pod));
        }
        let denial = self.denied(refused, &refusal);
        tracing::error!(sandbox, image, code = refusal.code(), "denied; the sandbox is removed");
        Step::SandboxRefused.reached();
        self.remove_sandbox(&sandbox_id, &call.upstream).await;
        Step::SandboxRemoved.reached();
        Err(denial)
    }

    /// Removes a sandbox of another image if nothing was made in it, such as one that the daemon was killed over before it looked:
    /// kubelet goes on with whatever sandbox of a pod is ready, and each of its containers would be refused for ever. One with
    /// containers is left alone: they may be a service's, which was made when sandboxes had another image.
    async fn remove_empty_sandbox(&self, sandbox_id: &str, upstream: &Upstream) {
        let listed = upstream.ask(LIST_CONTAINERS, list_containers_request(sandbox_id)).await;
        // An answer without a container has no bytes.
        if listed.is_ok_and(|reply| reply.message.is_empty()) {
            tracing::error!(sandbox = shown(sandbox_id), "a sandbox of another image, with no container in it, is removed");
            self.remove_sandbox(sandbox_id, upstream).await;
        }
    }

    /// With no deadline of the caller's: the sandbox must go even if the caller is out of patience.
    async fn remove_sandbox(&self, sandbox_id: &str, upstream: &Upstream) {
        let stopped = upstream.remove(STOP_POD_SANDBOX, stop_pod_sandbox_request(sandbox_id)).await;
        Step::SandboxStopped.reached();
        let removed = upstream.remove(REMOVE_POD_SANDBOX, remove_pod_sandbox_request(sandbox_id)).await;
        for status in [stopped.err(), removed.err()].into_iter().flatten() {
            tracing::error!(sandbox = shown(sandbox_id), error = status.message(), "a denied sandbox could not be removed");
        }
    }
}

/// The whole ID of the sandbox that CRI means. CRI takes any unambiguous prefix; by the time of the next question that may be the
/// prefix of another's.
pub(super) async fn whole_sandbox_id(given: &str, upstream: &Upstream) -> Result<String, Refusal> {
    if is_whole_id(given) {
        return Ok(given.to_owned());
    }
    let status = sandbox_status(given, upstream).await?;
    status.map(|(whole_id, _)| whole_id).ok_or_else(|| Refusal::NoSandbox { id: shown(given) })
}

/// What CRI says of the sandbox that it means: its whole ID, and its pod. None: it knows none.
async fn sandbox_status(sandbox_id: &str, upstream: &Upstream) -> Result<Option<(String, Option<PodSandboxMetadata>)>, Refusal> {
    let reply = match upstream.ask(POD_SANDBOX_STATUS, pod_sandbox_status_request(sandbox_id)).await {
        Err(status) if status.code() == Code::NotFound => return Ok(None),
        reply => reply.map_err(|status| unanswered("PodSandboxStatus", &status))?,
    };
    let malformed = |error| Refusal::Answer { what: format!("a malformed PodSandboxStatus: {error}") };
    pod_sandbox_status_response(&reply.message).map(Some).map_err(malformed)
}
