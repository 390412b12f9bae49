//! Where the transparent path ends: the calls that are checked before containerd sees them.

use std::fmt;
use std::panic::AssertUnwindSafe;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use http::HeaderMap;

use super::budget::Share;
use super::methods::{CheckedMethod, RUN_POD_SANDBOX};
use super::status::{Code, Status};
use super::upstream::{Reply, Upstream};

/// What the caller is told when our own code failed. It never changes: kubelet shows the reason only when every
/// credential's attempt ends with the same text.
const FAILED_INTERNALLY: &str =
    "SignatureValidationFailed: countersign failed internally and refused the call; see `journalctl -u countersign` (CS-INTERNAL)";

/// A call whose request arrived whole.
pub struct CheckedCall {
    /// The protobuf message as the caller wrote it, without the five bytes of the frame.
    pub message: Bytes,
    /// The way to containerd on this caller's behalf.
    pub upstream: Upstream,
    /// The request's headers: `grpc-timeout`, `user-agent` and whatever else the caller sent.
    pub metadata: HeaderMap,
    /// The room that it takes in memory.
    pub(super) _share: Share,
}

/// The message may hold a registry's password.
impl fmt::Debug for CheckedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedCall").field("message_bytes", &self.message.len()).finish_non_exhaustive()
    }
}

impl CheckedCall {
    /// Makes the call of containerd as it stands.
    ///
    /// # Errors
    /// As [`Upstream::unary`].
    pub async fn forward(&self, method: CheckedMethod) -> Result<Reply, Status> {
        self.upstream.unary(method.path(), self.message.clone(), &self.metadata).await
    }
}

/// Answers the checked calls.
///
/// **When the caller goes away** (its deadline passes, it resets the stream, its connection ends) the future is
/// dropped at its next await. Whatever must finish, such as a create and the check after it, belongs in a task of its
/// own, which may keep a clone of [`CheckedCall::upstream`].
///
/// **A panic** in any of these is a denial with a fixed text; nothing is forwarded after it.
#[async_trait]
pub trait Checks: Send + Sync + 'static {
    /// Whether calls of this method come here now. If not, they are streamed through untouched. Asked once for each
    /// call, so that a change of configuration counts for the next call.
    fn checked(&self, method: CheckedMethod) -> bool;

    /// Answers PullImage.
    async fn pull_image(&self, call: CheckedCall) -> Result<Reply, Status>;

    /// Answers CreateContainer.
    async fn create_container(&self, call: CheckedCall) -> Result<Reply, Status>;

    /// Answers StartContainer.
    async fn start_container(&self, call: CheckedCall) -> Result<Reply, Status>;

    /// Answers RunPodSandbox; passes the call on unless implemented.
    async fn run_pod_sandbox(&self, call: CheckedCall) -> Result<Reply, Status> {
        call.upstream.unary(RUN_POD_SANDBOX, call.message.clone(), &call.metadata).await
    }
}

/// Runs a check; a panic in it is a denial.
pub(super) async fn answer(checks: &dyn Checks, method: CheckedMethod, call: CheckedCall) -> Result<Reply, Status> {
    let check = async {
        match method {
            CheckedMethod::PullImage => checks.pull_image(call).await,
            CheckedMethod::CreateContainer => checks.create_container(call).await,
            CheckedMethod::StartContainer => checks.start_container(call).await,
            CheckedMethod::RunPodSandbox => checks.run_pod_sandbox(call).await,
        }
    };
    // What a check leaves behind when it panics is its own to keep sound: its locks are poisoned or released.
    AssertUnwindSafe(check).catch_unwind().await.unwrap_or_else(|panic| Err(failed_internally(method, &*panic)))
}

/// Whether a call is to be checked; a panic in the question is answered as a panic in the check.
pub(super) fn is_checked(checks: &dyn Checks, method: CheckedMethod) -> Result<bool, Status> {
    let asked = std::panic::catch_unwind(AssertUnwindSafe(|| checks.checked(method)));
    asked.map_err(|panic| failed_internally(method, &*panic))
}

fn failed_internally(method: CheckedMethod, panic: &(dyn std::any::Any + Send)) -> Status {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = countersign_trust::name::shown(text.unwrap_or("no text"));
    tracing::error!(method = method.path(), panic = text, "a check panicked; the call was denied");
    Status::new(Code::Unknown, FAILED_INTERNALLY)
}
