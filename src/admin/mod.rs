//! The operator's API of a running daemon: reads and questions, over a unix socket of its own. Nothing here can change a
//! verdict.

use std::sync::Arc;

use countersign_trust::name::ImageReference;
use tokio::net::UnixStream;
use tonic::{Request, Response, Status};

use crate::admit::{Admission, Admit, Origin, Refusal, Standing};
use crate::listen::Listener;

/// What the protocol file says, compiled.
#[allow(missing_docs, clippy::all, clippy::restriction, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("countersign.v1");
}

/// A question is at most an image name.
const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// Questions that are answered at once on one connection: an operator's, not a load.
const MAX_STREAMS: u32 = 16;

struct Api {
    admit: Arc<Admit>,
}

#[tonic::async_trait]
impl v1::admin_server::Admin for Api {
    async fn verify(&self, request: Request<v1::VerifyRequest>) -> Result<Response<v1::VerifyResponse>, Status> {
        Ok(Response::new(verify(&self.admit, &request.into_inner().image).await))
    }
}

/// Judges an image as a pull without a credential would be judged, in whatever process.
pub async fn verify(admit: &Arc<Admit>, image: &str) -> v1::VerifyResponse {
    let outcome = match image.parse::<ImageReference>() {
        Ok(image) => admit.pull(&image, "", None).await.map_err(|refusal| (refusal, image.to_string())),
        Err(error) => Err((Refusal::Name { error }, String::new())),
    };
    let outcome = match outcome {
        Ok(admission) => v1::verify_response::Outcome::Approval(approval(&admission)),
        Err((refusal, image)) => v1::verify_response::Outcome::Refusal(refused(&refusal, image)),
    };
    v1::VerifyResponse { outcome: Some(outcome) }
}

fn approval(admission: &Admission) -> v1::Approval {
    let approval = &admission.approval;
    v1::Approval {
        image: admission.image.to_string(),
        digest: approval.digest.to_string(),
        tag: approval.tag.to_string(),
        released_by: approval.released_by.to_string(),
        signed_by: approval.signed_by.iter().map(|by| v1::SignedBy { role: by.role.to_string(), key: by.key.to_string() }).collect(),
        valid_until: approval.valid_until.to_string(),
        from_held_evidence: admission.origin == Origin::Held,
        evidence: admission.evidence.to_string(),
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
pub async fn serve(listener: Listener, admit: Arc<Admit>, shutdown: impl Future<Output = ()>) -> Result<(), tonic::transport::Error> {
    let connections = futures_util::stream::unfold(listener, |listener| async {
        let stream = listener.accept().await;
        Some((Ok::<UnixStream, std::io::Error>(stream), listener))
    });
    let service = v1::admin_server::AdminServer::new(Api { admit }).max_decoding_message_size(MAX_REQUEST_BYTES);
    let server = tonic::transport::Server::builder().max_concurrent_streams(MAX_STREAMS).add_service(service);
    server.serve_with_incoming_shutdown(connections, shutdown).await
}
