//! The checked calls: what stands between kubelet's PullImage, CreateContainer and StartContainer and containerd.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageId, shown};
use countersign_trust::time::UnixTime;

use super::checks::{CheckedCall, Checks};
use super::messages::PodSandboxMetadata;
use super::methods::CheckedMethod;
use super::sandbox::ToldImage;
use super::status::{Code, Status};
use super::upstream::Reply;
use crate::admit::{Admission, Admit, GoesOn, Grandfathered, Refusal, Standing};
use crate::audit::{Call, GOES_ON, Recorder};

/// Checks calls as the configuration says, and hands every decision to the recorder.
#[derive(Debug, Clone)]
pub struct Guard {
    pub(super) admit: Arc<Admit>,
    pub(super) told_image: ToldImage,
    recorder: Arc<Recorder>,
}

impl Guard {
    /// Checks calls with `admit`.
    #[must_use]
    pub fn new(admit: Arc<Admit>, recorder: Arc<Recorder>) -> Self {
        Self { admit, told_image: ToldImage::default(), recorder }
    }

    /// What becomes of a refused call, if the rule of its image says `mode`: denied, or in permissive mode passed on as it came
    /// and written down.
    pub(super) async fn refused(&self, call: &CheckedCall, refused: Refused<'_>, refusal: Refusal) -> Result<Reply, Status> {
        let mode = self.admit.mode_after(refused.mode, &refusal);
        match mode {
            Mode::Enforced => Err(self.denied(refused, &refusal)),
            Mode::Permissive | Mode::Disabled => {
                if refused.method == CheckedMethod::PullImage {
                    self.admit.note_let_pass(refused.judged.image);
                }
                self.let_pass(Refused { mode, ..refused }, &refusal);
                let _pulling = (refused.method == CheckedMethod::PullImage).then(|| self.admit.pulling(refused.judged.image));
                call.forward(refused.method).await
            }
        }
    }

    /// Writes down that a call is denied, and gives the answer.
    pub(super) fn denied(&self, refused: Refused<'_>, refusal: &Refusal) -> Status {
        // Whoever else says the name of a trial, in whatever call, is on record.
        if refused.method == CheckedMethod::PullImage && self.admit.is_on_stage(refused.judged.image) {
            tracing::debug!(call = ?refused.method, code = refusal.code(), "denied, as it must be: the gate tries itself");
            return denial(refusal);
        }
        let id = self.recorder.denied(refused.judged.call(refused.method), refusal);
        let (image, container) = refused.judged.shown();
        tracing::warn!(call = ?refused.method, image, code = refusal.code(), reason = %refusal, container, %id, "denied");
        denial(refusal)
    }

    /// Writes down that a refused call goes on all the same.
    pub(super) fn let_pass(&self, refused: Refused<'_>, refusal: &Refusal) {
        let id = self.recorder.let_pass(refused.judged.call(refused.method), refusal);
        let (image, container) = refused.judged.shown();
        let mode = refused.mode;
        tracing::warn!(call = ?refused.method, image, code = refusal.code(), reason = %refusal, container, %id, "let pass: mode is {mode}");
    }

    /// Writes down that a call goes on without being judged.
    pub(super) fn not_judged(&self, method: CheckedMethod, judged: Judged<'_>) {
        let id = self.recorder.not_judged(judged.call(method));
        let (image, container) = judged.shown();
        tracing::debug!(call = ?method, image, container, %id, "passed on without being judged: its rule says disabled");
    }

    /// Writes down that an image was admitted. `image_id` is what it is on this node, where that is known by then.
    pub(super) fn admitted(&self, method: CheckedMethod, judged: Judged<'_>, admission: &Admission, image_id: Option<ImageId>) {
        let id = self.recorder.allowed(judged.call(method), admission, image_id);
        let valid_until = admission.approval.valid_until;
        tracing::info!(
            call = ?method,
            image = %admission.image,
            digest = %admission.digest,
            rule = admission.approval.rule,
            signers = admission.signers(),
            origin = ?admission.origin,
            evidence = admission.evidence.map(tracing::field::display),
            valid_until = (valid_until != UnixTime::NEVER).then(|| tracing::field::display(valid_until)),
            took = ?judged.began.elapsed(),
            %id,
            "admitted"
        );
    }

    /// Writes down that a service goes on though its image is refused.
    pub(super) fn goes_on(&self, method: CheckedMethod, judged: Judged<'_>, goes_on: &GoesOn) {
        let id = self.recorder.goes_on(judged.call(method), goes_on);
        let GoesOn { service: Grandfathered { workload, namespace, pod, until, .. }, content } = goes_on;
        tracing::warn!(
            call = ?method,
            code = GOES_ON,
            image = shown(judged.image),
            image_id = %content.image_id,
            namespace = shown(namespace),
            pod = shown(pod),
            container = shown(&workload.container),
            until = %UnixTime::from_seconds(*until),
            %id,
            "goes on: it ran before its image was enforced"
        );
    }
}

/// What is judged, as the caller named it, and since when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged<'a> {
    /// The image. Empty for a container of which it is not known.
    pub(super) image: &'a str,
    /// The container, of a start.
    pub(super) container: Option<&'a str>,
    /// The pod's namespace, if it is known.
    pub(super) namespace: Option<&'a str>,
    /// When the request had arrived.
    pub(super) began: Instant,
}

impl<'a> Judged<'a> {
    const fn call(self, method: CheckedMethod) -> Call<'a> {
        let Self { image, container, namespace, began } = self;
        Call { method: method.name(), image, namespace, container, began }
    }

    /// The image, if it is known, and the container, for the journal.
    fn shown(self) -> (Option<String>, Option<String>) {
        let image = Some(self.image).filter(|image| !image.is_empty());
        (image.map(shown), self.container.map(shown))
    }
}

/// A call that is refused: which, for what, and what the rule of that says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused<'a> {
    pub(super) method: CheckedMethod,
    pub(super) judged: Judged<'a>,
    pub(super) mode: Mode,
}

/// The namespace of a pod, if the caller told it.
pub(super) fn namespace(sandbox: Option<&PodSandboxMetadata>) -> Option<&str> {
    sandbox.map(|sandbox| sandbox.namespace.as_str()).filter(|namespace| !namespace.is_empty())
}

/// The status of a denial. kubelet recognises the reason only in code `Unknown` and by the first word; the text is the
/// same for the same cause, since kubelet shows the reason only when the texts for all credentials agree.
pub(super) fn denial(refusal: &Refusal) -> Status {
    let word = match refusal.standing() {
        Standing::Denied => "SignatureValidationFailed",
        Standing::CannotTellNow => "RegistryUnavailable",
        // As the calls that are only passed on are answered.
        Standing::ContainerdAway => return Status::new(Code::Unavailable, format!("{refusal} ({})", refusal.code())),
        Standing::NotThere => return Status::new(Code::NotFound, format!("{refusal} ({})", refusal.code())),
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
