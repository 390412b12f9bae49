//! The question of containerd's image verifier.

use std::sync::Arc;

use countersign_trust::name::{ManifestDigest, shown};

use super::{refused, v1};
use crate::admit::{Admit, MayPull, Refusal};

/// Whether containerd may pull; in whatever process.
pub async fn check_fetch(admit: &Arc<Admit>, request: &v1::CheckFetchRequest) -> v1::CheckFetchResponse {
    let (image, digest) = (shown(&request.name), shown(&request.digest));
    let answer = match request.digest.parse::<ManifestDigest>() {
        Ok(digest) => admit.admit_fetch(&request.name, digest).await,
        Err(error) => Err(Refusal::Name { error }),
    };
    let allowed = match answer {
        Ok(MayPull::AskedByTheGate) => "the gate has asked for it",
        Ok(MayPull::Allowed) => "the policy allows it",
        Ok(MayPull::NotVerified) => "it is not verified",
        Ok(MayPull::LetPass(refusal)) => {
            tracing::warn!(image, digest, code = refusal.code(), reason = %refusal, "containerd pulls by itself: let pass");
            "its rule lets it pass"
        }
        Err(refusal) => {
            tracing::warn!(image, digest, code = refusal.code(), reason = %refusal, "containerd wanted to pull by itself: denied");
            return v1::CheckFetchResponse { allowed: String::new(), refusal: Some(refused(&refusal, image)) };
        }
    };
    tracing::info!(image, digest, allowed, "containerd may pull");
    v1::CheckFetchResponse { allowed: allowed.to_owned(), refusal: None }
}
