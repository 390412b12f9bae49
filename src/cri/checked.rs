//! The checked calls: what stands between kubelet's PullImage, CreateContainer and StartContainer and containerd.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use countersign_trust::mode::Mode;
use countersign_trust::name::shown;
use countersign_trust::time::UnixTime;

use super::checks::{CheckedCall, Checks};
use super::messages::PodSandboxMetadata;
use super::methods::CheckedMethod;
use super::sandbox::ToldImage;
use super::status::{Code, Status};
use super::upstream::Reply;
use crate::admit::{Admission, Admit, Grandfathered, Refusal, Standing};

/// Checks calls as the configuration says.
#[derive(Debug, Clone)]
pub struct Guard {
    pub(super) admit: Arc<Admit>,
    pub(super) told_image: ToldImage,
}

impl Guard {
    /// Checks calls with `admit`.
    #[must_use]
    pub fn new(admit: Arc<Admit>) -> Self {
        Self { admit, told_image: ToldImage::default() }
    }

    /// What becomes of a refused call, if the rule of its image says `mode`: denied, or in permissive mode passed on as it came
    /// and written down.
    pub(super) async fn refused(&self, call: &CheckedCall, refused: Refused<'_>, refusal: Refusal) -> Result<Reply, Status> {
        let Refused { method, mode, .. } = refused;
        let image = countersign_trust::name::shown(refused.image);
        match self.admit.mode_after(mode, &refusal) {
            Mode::Enforced if self.admit.is_on_stage(refused.image) => {
                tracing::debug!(call = ?method, image, code = refusal.code(), "denied, as it must be: the gate tries itself");
                Err(denial(&refusal))
            }
            Mode::Enforced => {
                tracing::warn!(call = ?method, image, code = refusal.code(), reason = %refusal, "denied");
                Err(denial(&refusal))
            }
            Mode::Permissive | Mode::Disabled => {
                if method == CheckedMethod::PullImage {
                    self.admit.note_let_pass(refused.image);
                }
                tracing::warn!(call = ?method, image, code = refusal.code(), reason = %refusal, "let pass: mode is {mode}");
                let _pulling = (method == CheckedMethod::PullImage).then(|| self.admit.pulling(refused.image));
                call.forward(method).await
            }
        }
    }
}

/// A call that is refused: which, for what, and what the rule of that says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused<'a> {
    pub(super) method: CheckedMethod,
    /// The image, or the container.
    pub(super) image: &'a str,
    pub(super) mode: Mode,
}

/// The namespace of a pod, if the caller told it.
pub(super) fn namespace(sandbox: Option<&PodSandboxMetadata>) -> Option<&str> {
    sandbox.map(|sandbox| sandbox.namespace.as_str()).filter(|namespace| !namespace.is_empty())
}

/// Writes down that an image was admitted.
pub(super) fn log_admitted(method: CheckedMethod, admission: &Admission, began: Instant) {
    tracing::info!(
        call = ?method,
        image = %admission.image,
        digest = %admission.digest,
        rule = admission.approval.rule,
        signers = admission.signers(),
        origin = ?admission.origin,
        evidence = admission.evidence.map(tracing::field::display),
        valid_until = %admission.approval.valid_until,
        took = ?began.elapsed(),
        "admitted"
    );
}

/// Writes down that a service goes on though its image is refused.
pub(super) fn log_service(method: CheckedMethod, service: &Grandfathered) {
    let Grandfathered { workload, namespace, pod, image, content, until, .. } = service;
    tracing::warn!(
        call = ?method,
        code = "CS-GRANDFATHERED",
        image = shown(image),
        image_id = %content.image_id,
        namespace = shown(namespace),
        pod = shown(pod),
        container = shown(&workload.container),
        until = %UnixTime::from_seconds(*until),
        "goes on: it ran before its image was enforced"
    );
}

/// The status of a denial. kubelet recognises the reason only in code `Unknown` and by the first word; the text is the
/// same for the same cause, since kubelet shows the reason only when the texts for all credentials agree.
pub(super) fn denial(refusal: &Refusal) -> Status {
    let word = match refusal.standing() {
        Standing::Denied => "SignatureValidationFailed",
        Standing::CannotTellNow => "RegistryUnavailable",
        // As the calls that are only passed on are answered.
        Standing::ContainerdAway => return Status::new(Code::Unavailable, format!("{refusal} ({})", refusal.code())),
    };
    Status::new(Code::Unknown, format!("{word}: {refusal} ({})", refusal.code()))
}

/// What it means that a question of our own to containerd's CRI ended with `status`.
pub(super) fn unanswered(question: &str, status: &Status) -> Refusal {
    if status.code() == Code::Unavailable && !status.is_containerds() {
        return Refusal::ContainerdAway { said: status.message().to_owned() };
    }
    Refusal::Answer { what: format!("{question} with an error: {}", status.message()) }
}

/// Runs to its end what must not be stopped halfway when the caller goes away.
pub(super) async fn to_the_end<T: Send + 'static>(work: impl Future<Output = Result<T, Status>> + Send + 'static) -> Result<T, Status> {
    match tokio::spawn(work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(denial(&Refusal::Internal { what: "a check panicked" })),
    }
}

#[async_trait]
impl Checks for Guard {
    fn checked(&self, method: CheckedMethod) -> bool {
        match method {
            CheckedMethod::RunPodSandbox | CheckedMethod::PullImage | CheckedMethod::CreateContainer | CheckedMethod::StartContainer => {
                self.admit.verifies()
            }
        }
    }

    async fn pull_image(&self, call: CheckedCall) -> Result<Reply, Status> {
        self.pull(call).await
    }

    async fn create_container(&self, call: CheckedCall) -> Result<Reply, Status> {
        self.create(call).await
    }

    async fn start_container(&self, call: CheckedCall) -> Result<Reply, Status> {
        self.start(call).await
    }

    async fn run_pod_sandbox(&self, call: CheckedCall) -> Result<Reply, Status> {
        self.run_sandbox(call).await
    }
}
