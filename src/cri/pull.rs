//! PullImage: verified, and pulled by the verified digest.

use std::time::{Duration, Instant};

use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageId, ImageReference, Selector};

use super::checked::{Guard, Judged, Refused, namespace, to_the_end, unanswered};
use super::checks::CheckedCall;
use super::messages::{AuthConfig, PullImageRequest, image_status_request, image_status_response, pull_image_answer, pull_image_response};
use super::methods::{CheckedMethod, IMAGE_STATUS, PULL_IMAGE};
use super::patch;
use super::status::Status;
use super::upstream::{Reply, Upstream};
use crate::admit::{Admission, Asker, Refusal, Sought, chain};
use crate::crash::Step;
use crate::fetch::Credential;

/// containerd's CRI shows a new record within 2 ms, but lags seconds when an earlier event on the name failed.
const TAG_SHOWN_DEADLINE: Duration = Duration::from_secs(10);
/// First wait between two looks; doubled up to [`LONGEST_LOOK_INTERVAL`].
const FIRST_LOOK_INTERVAL: Duration = Duration::from_millis(1);
const LONGEST_LOOK_INTERVAL: Duration = Duration::from_millis(200);

impl Guard {
    pub(super) async fn pull(&self, call: CheckedCall) -> Result<Reply, Status> {
        let began = Instant::now();
        let request = PullImageRequest::read(&call.message)?;
        let judged = self::judged(&request, began);
        let Judged { image, namespace, .. } = judged;
        let refused = Refused { method: CheckedMethod::PullImage, judged, mode: self.admit.mode_of(image, namespace) };
        if !self.verifies(refused.mode) {
            self.not_judged(CheckedMethod::PullImage, judged);
            self.admit.note_let_pass(image);
            let _pulling = self.admit.pulling(image);
            return call.forward(CheckedMethod::PullImage).await;
        }
        let admission = match self.admit_pull(&request, namespace).await {
            Ok(admission) => admission,
            Err(refusal) => return self.pull_of_service(&call, &request, refused, refusal).await,
        };
        if admission.ends_at_the_verdict() {
            // The gate tries itself, and containerd has nothing to do with it.
            return Ok(Reply::new(pull_image_answer(&admission.digest.to_string())));
        }
        self.admitted(CheckedMethod::PullImage, judged, &admission, None);
        self.admit.warn_of_ended_certificates(&admission);
        Step::PullVerified.reached();
        let by_digest = ImageReference::by_digest(admission.image.repository().clone(), admission.digest);
        let message = patch::pull_image_name(&call.message, &by_digest.to_string())?;
        // Pulled even when the digest is here already, so that the registry checks this caller's credential.
        let reply = {
            let _pulling = self.admit.pulling(&by_digest.to_string());
            call.upstream.unary(PULL_IMAGE, message, &call.metadata).await
        };
        let guard = self.clone();
        let reply = match reply {
            Ok(reply) => reply,
            Err(status) => {
                to_the_end(async move {
                    guard.take_back(&admission, None).await;
                    Ok(())
                })
                .await?;
                return Err(status);
            }
        };
        Step::PullPulled.reached();
        to_the_end(async move {
            match guard.finish_pull(&admission, &reply, &call.upstream).await {
                Ok(()) => Ok(reply),
                Err(refusal) => {
                    let judged = self::judged(&request, began);
                    let refused = Refused { method: CheckedMethod::PullImage, judged, mode: admission.mode };
                    guard.refused(&call, refused, refusal).await
                }
            }
        })
        .await
    }

    /// A pod that ran before its image was enforced wants it pulled again: it has it, and nothing comes from the registry.
    async fn pull_of_service(
        &self,
        call: &CheckedCall,
        request: &PullImageRequest,
        refused: Refused<'_>,
        refusal: Refusal,
    ) -> Result<Reply, Status> {
        let (Mode::Enforced, Some(pod), Ok(image)) = (refused.mode, &request.sandbox, refused.judged.image.parse()) else {
            return self.refused(call, refused, refusal).await;
        };
        let goes_on = match self.admit.pull_outlives(refusal, &pod.uid, &image) {
            Ok(goes_on) => goes_on,
            Err(refusal) => return self.refused(call, refused, refusal).await,
        };
        let image_id = goes_on.content.image_id;
        match shown_image(&call.upstream, &image_id.to_string()).await {
            Ok(Some(found)) if found == image_id => {
                self.goes_on(CheckedMethod::PullImage, refused.judged, &goes_on);
                Ok(Reply::new(pull_image_answer(&image_id.to_string())))
            }
            Ok(_) => self.refused(call, refused, Refusal::NotPresent { image: refused.judged.image.to_owned() }).await,
            Err(refusal) => self.refused(call, refused, refusal).await,
        }
    }

    /// Whether an image is looked at whose rule says `mode`. One that is let pass may still be one that must never run.
    pub(super) fn verifies(&self, mode: Mode) -> bool {
        mode.verifies() || (self.admit.mode().verifies() && self.admit.has_denied_digests())
    }

    async fn admit_pull(&self, request: &PullImageRequest, namespace: Option<&str>) -> Result<Admission, Refusal> {
        let image: ImageReference = request.image.image.parse().map_err(|error| Refusal::Name { error })?;
        let asker = Asker { namespace, revision: request.sandbox.as_ref().and_then(|pod| pod.revision.as_ref()) };
        self.admit.pull(Sought { image: &image, asker }, request.auth.as_ref().and_then(credential)).await
    }

    /// Records what was pulled, on disk first, and names it in containerd's image store, so that `IfNotPresent`,
    /// `crictl images` and image GC go on as usual.
    async fn finish_pull(&self, admission: &Admission, reply: &Reply, upstream: &Upstream) -> Result<(), Refusal> {
        let digest = admission.digest;
        let answer = |what: String| Refusal::Answer { what };
        let image_ref = pull_image_response(&reply.message).map_err(|error| answer(format!("a pull with a malformed message: {error}")))?;
        let image_id: ImageId = image_ref.parse().map_err(|_| answer("a pull with no image ID".to_owned()))?;
        let content = match self.admit.content_of(digest, image_id).await {
            Ok(Some(content)) => content,
            other => {
                self.take_back(admission, Some(image_id)).await;
                let no_part = || answer(format!("a pull of {digest} with image {image_id}, which is not part of it"));
                return Err(other.err().unwrap_or_else(no_part));
            }
        };
        Step::PullFollowed.reached();
        let (admission, image) = self.admit.bound(admission.clone(), &content)?;
        self.admit.record_image(image).await?;
        Step::PullImageRecorded.reached();
        match admission.image.selector() {
            Selector::Tag(_) => self.name_image(&admission, image_id, upstream).await,
            // The CRI wants no tag after a pull by digest.
            Selector::Digest(_) | Selector::TagAndDigest(..) => Ok(()),
        }
    }

    /// Removes the records that containerd made for content that is refused; it makes one before it unpacks, so a failed pull
    /// leaves one too. They stand at the image ID, and a record there that leads to refused content denies every other image
    /// with the same config.
    async fn take_back(&self, admission: &Admission, image_id: Option<ImageId>) {
        let digest = admission.digest;
        if admission.mode != Mode::Enforced || !self.admit.is_refused_content(digest, image_id).await {
            return;
        }
        let _held = self.admit.image_locks.lock_all(image_id).await;
        let by_digest = ImageReference::by_digest(admission.image.repository().clone(), digest).to_string();
        let names: Vec<String> = image_id.map(|id| id.to_string()).into_iter().chain([by_digest]).collect();
        Step::PullContentRefused.reached();
        if let Err(error) = self.admit.containerd().remove_records(&names, &digest.to_string()).await {
            tracing::warn!(image = %admission.image, error = chain(&error), "the records of a refused image could not be removed");
        }
        Step::PullTakenBack.reached();
    }

    /// Writes the tag record and waits until containerd's CRI shows it: without it kubelet pulls again each time and runs
    /// the container as root.
    pub(super) async fn name_image(&self, admission: &Admission, image_id: ImageId, upstream: &Upstream) -> Result<(), Refusal> {
        let (tag, digest) = (admission.image.to_string(), admission.digest);
        let by_digest = ImageReference::by_digest(admission.image.repository().clone(), digest).to_string();
        let records = self.admit.containerd().records(&[by_digest.clone(), tag.clone()]).await?;
        let target_of = |name: &str| records.iter().find(|record| record.name == name).map(|record| &record.target);
        let target = target_of(&by_digest).filter(|target| target.digest == digest.to_string());
        let target = target.ok_or_else(|| Refusal::Answer { what: format!("no record of {by_digest} after its pull") })?;
        // A moving tag takes the image that it leaves, too: a container of that one may be created right now.
        let before = shown_image(upstream, &tag).await?;
        let _held = self.admit.image_locks.lock_all([Some(image_id), before].into_iter().flatten()).await;
        if before != Some(image_id) || target_of(&tag) != Some(target) {
            Step::PullTagDue.reached();
            self.admit.containerd().put_tag_record(&tag, target).await?;
            Step::PullTagWritten.reached();
        }
        self.wait_until_shown(admission, image_id, upstream).await?;
        Step::PullTagShown.reached();
        Ok(())
    }

    async fn wait_until_shown(&self, admission: &Admission, image_id: ImageId, upstream: &Upstream) -> Result<(), Refusal> {
        let tag = admission.image.to_string();
        let look = async {
            let mut interval = FIRST_LOOK_INTERVAL;
            while shown_image(upstream, &tag).await? != Some(image_id) {
                tokio::time::sleep(interval).await;
                interval = interval.saturating_mul(2).min(LONGEST_LOOK_INTERVAL);
            }
            Ok(())
        };
        let not_shown = || Refusal::TagNotShown { image: Box::new(admission.image.clone()), seconds: TAG_SHOWN_DEADLINE.as_secs() };
        tokio::time::timeout(TAG_SHOWN_DEADLINE, look).await.unwrap_or_else(|_| Err(not_shown()))
    }
}

fn judged(request: &PullImageRequest, began: Instant) -> Judged<'_> {
    Judged { image: &request.image.image, container: None, namespace: namespace(request.sandbox.as_ref()), began }
}

/// Which image containerd's CRI shows for a name.
async fn shown_image(upstream: &Upstream, name: &str) -> Result<Option<ImageId>, Refusal> {
    let answer = |what: String| Refusal::Answer { what };
    let reply = upstream.ask(IMAGE_STATUS, image_status_request(name)).await;
    let reply = reply.map_err(|status| unanswered("ImageStatus", &status))?;
    let image = image_status_response(&reply.message).map_err(|error| answer(format!("a malformed ImageStatus: {error}")))?;
    Ok(image.and_then(|image| image.id.parse().ok()))
}

/// The credential that kubelet sent with this pull; the first kind that is filled in, as containerd takes it.
fn credential(auth: &AuthConfig) -> Option<Credential> {
    if !auth.username.is_empty() {
        return Some(Credential::password(auth.username.clone(), auth.password.clone()));
    }
    if !auth.identity_token.is_empty() {
        return Some(Credential::identity_token(auth.identity_token.clone()));
    }
    if !auth.registry_token.is_empty() {
        return Some(Credential::registry_token(auth.registry_token.clone()));
    }
    Credential::of_basic(&auth.auth)
}
