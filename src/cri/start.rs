//! StartContainer: no record of containers is trusted, so the content check is repeated for every start.

use std::time::Instant;

use countersign_trust::mode::Mode;

use super::checked::{Guard, Judged, Refused, denial};
use super::checks::CheckedCall;
use super::messages::{StartContainerRequest, container_status_request, container_status_response};
use super::methods::{CONTAINER_STATUS, CheckedMethod};
use super::patch;
use super::status::Status;
use super::upstream::{Reply, Upstream};
use crate::admit::{Asked, Refusal, Standing, is_whole_id};
use crate::crash::Step;

impl Guard {
    pub(super) async fn start(&self, call: CheckedCall) -> Result<Reply, Status> {
        let began = Instant::now();
        let request = StartContainerRequest::read(&call.message)?;
        Step::StartAsked.reached();
        let container_id = whole_id(&call.upstream, &request.container_id).await?;
        // Whoever has the prefix by then, no other container than this is started.
        let call = CheckedCall { message: patch::start_container_id(&call.message, &container_id)?, ..call };
        Step::StartResolved.reached();
        let starting = self.admit.starting(&container_id);
        let reply = self.start_whole(&call, &container_id, began).await;
        if reply.is_err() {
            starting.failed();
        }
        reply
    }

    /// Starts the container with this whole ID, if it may be.
    async fn start_whole(&self, call: &CheckedCall, container_id: &str, began: Instant) -> Result<Reply, Status> {
        let asked = self.admit.asked_for(container_id);
        // One that was not made here, or before a restart: it may be an image that only a rule enforces. kubelet makes another.
        let mode = asked.as_ref().map_or_else(|| self.admit.strictest_mode(), |asked| self.admit.mode_of_asked(asked));
        let (image, namespace) = asked.as_ref().map_or(("", None), |asked| (asked.image.as_str(), asked.namespace.as_deref()));
        let judged = Judged { image, container: Some(container_id), namespace, began };
        if !self.verifies(mode) {
            self.not_judged(CheckedMethod::StartContainer, judged);
            return call.forward(CheckedMethod::StartContainer).await;
        }
        match self.admit.admit_start(container_id, asked.as_ref()).await {
            Ok((admission, verified)) => {
                self.admitted(CheckedMethod::StartContainer, judged, &admission, Some(verified.image_id));
            }
            // Nothing was judged, and by now there may be a container with this ID: it is not passed on in any mode.
            Err(refusal) if refusal.standing() == Standing::NotThere => return Err(denial(&refusal)),
            Err(refusal) if mode != Mode::Enforced => {
                let refused = Refused { method: CheckedMethod::StartContainer, judged, mode };
                return match self.look_again(container_id, asked.as_ref(), &call.upstream).await {
                    Ok(()) => self.refused(call, refused, refusal).await,
                    Err(found) => self.refused_for(call, refused, refusal, found).await,
                };
            }
            Err(refusal) => match self.admit.start_outlives(refusal, container_id, asked.as_ref()).await {
                Ok(goes_on) => self.goes_on(CheckedMethod::StartContainer, judged, &goes_on),
                Err(refusal) => {
                    let refused = Refused { method: CheckedMethod::StartContainer, judged, mode };
                    return self.refused(call, refused, refusal).await;
                }
            },
        }
        Step::StartAdmitted.reached();
        let reply = call.forward(CheckedMethod::StartContainer).await;
        Step::StartStarted.reached();
        reply
    }

    /// No digest of what the container was made of, and stands on, is denied by now.
    async fn look_again(&self, container_id: &str, asked: Option<&Asked>, upstream: &Upstream) -> Result<(), Refusal> {
        let Some(asked) = asked else { return Ok(()) };
        match self.look_for_denied(asked, upstream).await? {
            Some(looked_at) => self.stands_on(container_id, &looked_at).await,
            None => Ok(()),
        }
    }
}

/// The whole ID of the container that CRI means. CRI takes any unambiguous prefix; what containerd's own API knows under
/// that text could be another container, whose whole ID it is.
async fn whole_id(upstream: &Upstream, given: &str) -> Result<String, Status> {
    if is_whole_id(given) {
        return Ok(given.to_owned());
    }
    let reply = upstream.ask(CONTAINER_STATUS, container_status_request(given)).await?;
    let malformed = |error| Refusal::Answer { what: format!("a malformed ContainerStatus: {error}") };
    container_status_response(&reply.message).map_err(|error| denial(&malformed(error)))
}
