//! The operator's API of a running daemon, over a unix socket of its own. Nothing here can allow what the policy does not.

mod cluster;
mod decisions;
mod evidence;
pub mod explain;
mod fence;
mod grandfather;
pub mod inspect;
mod members;
mod pins;
mod reset;
pub mod status;

use std::pin::Pin;
use std::sync::Arc;

use countersign_trust::name::ImageReference;
use countersign_trust::policy::people::People;
use countersign_trust::time::UnixTime;
use countersign_trust::{Question, SignedBy};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::net::UnixStream;
use tonic::{Request, Response, Status};

use crate::admit::{Admission, Admit, MAX_EVIDENCE_FILE_BYTES, Origin, Refusal, Standing};
use crate::audit::{Recorder, Replayer};
use crate::cluster::Membership;
use crate::listen::Listener;
use crate::nodes::Nodes;
use crate::watch::Watch;

pub use decisions::{asked_filter, explain_decision, lines};
pub use evidence::{export, import};
pub use fence::check_fetch;
pub use reset::{list_resets, reset};

/// What the protocol file says, compiled.
#[allow(missing_docs, clippy::all, clippy::restriction, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("countersign.v1");
}

/// The longest message is a file of evidence, with a name beside it.
pub const MAX_MESSAGE_BYTES: usize = MAX_EVIDENCE_FILE_BYTES as usize + 64 * 1024;
/// Questions that are answered at once on one connection: an operator's, not a load.
const MAX_STREAMS: u32 = 16;

/// Puts the configuration file in force as it is now. The name of what is in force, or what is wrong with the file. Waits for the
/// disk.
pub type Reload = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// What the API speaks for.
#[derive(Clone)]
pub struct Served {
    /// The judge.
    pub admit: Arc<Admit>,
    /// Whoever exchanges the configuration.
    pub reload: Reload,
    /// Whoever sees what comes past the gate.
    pub watch: Arc<Watch>,
    /// Whoever writes decisions down.
    pub recorder: Arc<Recorder>,
    /// Whoever comes to them again.
    pub replayer: Arc<Replayer>,
    /// What this node is in its cluster. None if it shares with nobody.
    pub membership: Option<Arc<Membership>>,
    /// What the nodes of the cluster tell of themselves. None: this node shares with nobody.
    pub nodes: Option<Arc<Nodes>>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").finish_non_exhaustive()
    }
}

struct Api(Served);

#[tonic::async_trait]
impl v1::admin_server::Admin for Api {
    async fn verify(&self, request: Request<v1::VerifyRequest>) -> Result<Response<v1::VerifyResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(verify(&self.0.admit, &request).await))
    }

    async fn export_evidence(&self, request: Request<v1::ExportEvidenceRequest>) -> Result<Response<v1::ExportEvidenceResponse>, Status> {
        Ok(Response::new(export(&self.0.admit, &request.into_inner()).await))
    }

    async fn import_evidence(&self, request: Request<v1::ImportEvidenceRequest>) -> Result<Response<v1::ImportEvidenceResponse>, Status> {
        Ok(Response::new(import(&self.0.admit, &request.into_inner()).await))
    }

    async fn list_resets(&self, _: Request<v1::ListResetsRequest>) -> Result<Response<v1::ListResetsResponse>, Status> {
        Ok(Response::new(list_resets(&self.0.admit).await))
    }

    async fn reset(&self, request: Request<v1::ResetRequest>) -> Result<Response<v1::ResetResponse>, Status> {
        Ok(Response::new(reset(&self.0.admit, &request.into_inner()).await))
    }

    async fn reload(&self, _: Request<v1::ReloadRequest>) -> Result<Response<v1::ReloadResponse>, Status> {
        let reload = Arc::clone(&self.0.reload);
        let outcome = tokio::task::spawn_blocking(move || reload()).await;
        let outcome = outcome.unwrap_or_else(|_| Err("reloading panicked: please report this with the log".to_owned()));
        let outcome = outcome.map_or_else(v1::reload_response::Outcome::Error, v1::reload_response::Outcome::Policy);
        Ok(Response::new(v1::ReloadResponse { outcome: Some(outcome) }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(status::status(&self.0.admit, &self.0.watch, &self.0.recorder).await))
    }

    async fn check_fetch(&self, request: Request<v1::CheckFetchRequest>) -> Result<Response<v1::CheckFetchResponse>, Status> {
        Ok(Response::new(check_fetch(&self.0.admit, &request.into_inner()).await))
    }

    async fn take_services(&self, request: Request<v1::TakeServicesRequest>) -> Result<Response<v1::TakeServicesResponse>, Status> {
        Ok(Response::new(grandfather::take(&self.0.admit, &self.0.watch, &request.into_inner()).await))
    }

    async fn list_services(&self, _: Request<v1::ListServicesRequest>) -> Result<Response<v1::ListServicesResponse>, Status> {
        Ok(Response::new(grandfather::list(&self.0.admit)))
    }

    async fn end_services(&self, request: Request<v1::EndServicesRequest>) -> Result<Response<v1::EndServicesResponse>, Status> {
        Ok(Response::new(grandfather::end(&self.0.admit, &request.into_inner()).await))
    }

    async fn list_pins(&self, request: Request<v1::ListPinsRequest>) -> Result<Response<v1::ListPinsResponse>, Status> {
        Ok(Response::new(pins::list(&self.0.admit, &request.into_inner())))
    }

    async fn change_pins(&self, request: Request<v1::ChangePinsRequest>) -> Result<Response<v1::ChangePinsResponse>, Status> {
        Ok(Response::new(pins::change(&self.0.admit, &self.0.recorder, &request.into_inner()).await))
    }

    async fn show_members(&self, _: Request<v1::ShowMembersRequest>) -> Result<Response<v1::ShowMembersResponse>, Status> {
        Ok(Response::new(members::show(self.0.membership.as_ref())))
    }

    async fn publish_members(&self, request: Request<v1::PublishMembersRequest>) -> Result<Response<v1::PublishMembersResponse>, Status> {
        Ok(Response::new(members::publish(self.0.membership.as_ref(), request.into_inner()).await))
    }

    async fn cluster_status(&self, _: Request<v1::ClusterStatusRequest>) -> Result<Response<v1::ClusterStatusResponse>, Status> {
        Ok(Response::new(cluster::status(&self.0.admit, self.0.nodes.as_deref()).await))
    }

    type InspectStream = Pin<Box<dyn Stream<Item = Result<v1::InspectResponse, Status>> + Send>>;

    async fn inspect(&self, request: Request<v1::InspectRequest>) -> Result<Response<Self::InspectStream>, Status> {
        let parts = inspect::inspect(&self.0.admit, &request.into_inner()).await;
        // One piece after the other is made when the one before it was taken.
        Ok(Response::new(stream::iter(parts).map(Ok).boxed()))
    }

    type ListDecisionsStream = Pin<Box<dyn Stream<Item = Result<v1::ListDecisionsResponse, Status>> + Send>>;

    async fn list_decisions(&self, request: Request<v1::ListDecisionsRequest>) -> Result<Response<Self::ListDecisionsStream>, Status> {
        Ok(Response::new(decisions::of_daemon(&self.0.recorder, &request.into_inner()).map(Ok).boxed()))
    }

    async fn explain_decision(
        &self,
        request: Request<v1::ExplainDecisionRequest>,
    ) -> Result<Response<v1::ExplainDecisionResponse>, Status> {
        Ok(Response::new(explain_decision(Arc::clone(&self.0.replayer), &request.into_inner()).await))
    }
}

/// Judges an image as a pull without a credential would be judged, in whatever process.
pub async fn verify(admit: &Arc<Admit>, request: &v1::VerifyRequest) -> v1::VerifyResponse {
    let namespace = Some(request.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let image = match request.image.parse::<ImageReference>() {
        Ok(image) => image,
        Err(error) => return answer(&admit.policy().trust.people, Err(Refusal::Name { error }), String::new()),
    };
    let question = Question { image: &image, namespace };
    if !request.explain {
        return answer(&admit.policy().trust.people, admit.pull(question.into(), None).await, image.to_string());
    }
    let explained = admit.explain(question).await;
    let explanation = explain::explanation(&explained);
    v1::VerifyResponse { explanation, ..answer(&admit.policy().trust.people, explained.outcome, image.to_string()) }
}

fn answer(people: &People, outcome: Result<Admission, Refusal>, image: String) -> v1::VerifyResponse {
    let outcome = match outcome {
        Ok(admission) => v1::verify_response::Outcome::Approval(approval(&admission, people)),
        Err(refusal) => v1::verify_response::Outcome::Refusal(refused(&refusal, image)),
    };
    v1::VerifyResponse { outcome: Some(outcome), explanation: None }
}

fn approval(admission: &Admission, people: &People) -> v1::Approval {
    let approval = &admission.approval;
    let release = approval.release();
    v1::Approval {
        image: admission.image.to_string(),
        digest: admission.digest.to_string(),
        tag: release.map(|release| release.tag.to_string()).unwrap_or_default(),
        released_by: release.map(|release| release.released_by.to_string()).unwrap_or_default(),
        signed_by: release.map(|release| release.signed_by.iter().map(|by| signed_by(by, people)).collect()).unwrap_or_default(),
        valid_until: moment(approval.valid_until),
        from_held_evidence: matches!(admission.origin, Origin::Held | Origin::Expired),
        evidence: admission.evidence.map(|evidence| evidence.to_string()).unwrap_or_default(),
        rule: approval.rule.clone(),
        listed_by_rule: admission.origin == Origin::Rule,
        expired: admission.origin == Origin::Expired,
    }
}

/// RFC 3339; empty for what never ends.
fn moment(moment: UnixTime) -> String {
    if moment == UnixTime::NEVER { String::new() } else { moment.to_string() }
}

fn signed_by(by: &SignedBy, people: &People) -> v1::SignedBy {
    let signer = people.owner_of(&by.key);
    v1::SignedBy {
        role: by.role.to_string(),
        key: by.key.to_string(),
        signer: signer.map(ToString::to_string).unwrap_or_default(),
        teams: signer.map(|signer| people.teams_of(signer).map(ToString::to_string).collect()).unwrap_or_default(),
        certificate_ends: by.certificate_ends.map(|end| end.to_string()).unwrap_or_default(),
    }
}

fn refused(refusal: &Refusal, image: String) -> v1::Refusal {
    let cannot_tell_now = refusal.standing() != Standing::Denied;
    v1::Refusal { code: refusal.code().to_owned(), message: refusal.to_string(), cannot_tell_now, image }
}

/// Serves the API until `shutdown` is ready.
///
/// # Errors
/// What the transport says when it ends by itself.
pub async fn serve(listener: Listener, served: Served, shutdown: impl Future<Output = ()>) -> Result<(), tonic::transport::Error> {
    let connections = futures_util::stream::unfold(listener, |listener| async {
        let stream = listener.accept().await;
        Some((Ok::<UnixStream, std::io::Error>(stream), listener))
    });
    let service = v1::admin_server::AdminServer::new(Api(served));
    let service = service.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES);
    let server = tonic::transport::Server::builder().max_concurrent_streams(MAX_STREAMS).add_service(service);
    server.serve_with_incoming_shutdown(connections, shutdown).await
}
