//! What an operator makes this node forget.

use std::sync::Arc;

use countersign_trust::name::shown;
use countersign_trust::time::UnixTime;

use super::{refused, v1};
use crate::admit::{Act, Admit, Refusal, Reset};

/// Longest name and reason that are kept on record.
const MAX_TEXT_CHARS: usize = 500;

/// Forgets what the request says; in whatever process.
pub async fn reset(admit: &Arc<Admit>, request: &v1::ResetRequest) -> v1::ResetResponse {
    let outcome = match wanted(request) {
        Ok(wanted) => admit.reset(&wanted, kept_text(&request.by), kept_text(&request.reason)).await,
        Err(refusal) => Err(refusal),
    };
    v1::ResetResponse { refusal: outcome.err().map(|refusal| refused(&refusal, request.repository.clone())) }
}

/// What is kept on record of a name or a reason.
pub(super) fn kept_text(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARS).collect()
}

fn wanted(request: &v1::ResetRequest) -> Result<Reset, Refusal> {
    if request.repository.is_empty() {
        return Ok(Reset::Clock);
    }
    let repository = request.repository.parse().map_err(|error| Refusal::Name { error })?;
    if request.role.is_empty() {
        return Ok(Reset::Repository(repository));
    }
    let role = request.role.parse().map_err(|_| Refusal::NotHeld { image: format!("{repository} ({})", shown(&request.role)) })?;
    Ok(Reset::Role(repository, role))
}

/// What was reset on this node; in whatever process.
pub async fn list_resets(admit: &Arc<Admit>) -> v1::ListResetsResponse {
    match admit.acts().await {
        Ok(acts) => v1::ListResetsResponse { resets: acts.into_iter().map(past).collect(), refusal: None },
        Err(refusal) => v1::ListResetsResponse { resets: Vec::new(), refusal: Some(refused(&refusal, String::new())) },
    }
}

fn past(act: Act) -> v1::PastReset {
    let at = UnixTime::from_seconds(i64::try_from(act.at).unwrap_or(i64::MAX));
    v1::PastReset { at: at.to_string(), by: act.by, what: act.what, reason: act.reason }
}
