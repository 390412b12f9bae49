//! StartContainer: no record of containers is trusted, so the content check is repeated for every start.

use std::time::Instant;

use super::checked::{Guard, log_admitted};
use super::checks::CheckedCall;
use super::messages::StartContainerRequest;
use super::methods::{CheckedMethod, START_CONTAINER};
use super::status::Status;
use super::upstream::Reply;
use crate::crash::Step;

impl Guard {
    pub(super) async fn start(&self, call: CheckedCall) -> Result<Reply, Status> {
        let began = Instant::now();
        let request = StartContainerRequest::read(&call.message)?;
        Step::StartAsked.reached();
        match self.admit.admit_start(&request.container_id).await {
            Ok((admission, _)) => log_admitted(CheckedMethod::StartContainer, &admission, began),
            Err(refusal) => return self.refused(&call, CheckedMethod::StartContainer, &request.container_id, refusal).await,
        }
        Step::StartAdmitted.reached();
        let reply = call.upstream.unary(START_CONTAINER, call.message.clone(), &call.metadata).await;
        Step::StartStarted.reached();
        reply
    }
}
