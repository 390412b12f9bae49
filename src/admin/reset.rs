//! What an operator makes this node forget.

use std::sync::Arc;

use countersign_trust::name::shown;

use super::{refused, v1};
use crate::admit::{Admit, Refusal, Reset};

/// Longest name and reason that are kept on record.
const MAX_TEXT_CHARS: usize = 500;

/// Forgets what the request says; in whatever process.
pub async fn reset(admit: &Arc<Admit>, request: &v1::ResetRequest) -> v1::ResetResponse {
    let text = |text: &str| -> String { text.chars().take(MAX_TEXT_CHARS).collect() };
    let outcome = match wanted(request) {
        Ok(wanted) => admit.reset(&wanted, text(&request.by), text(&request.reason)).await,
        Err(refusal) => Err(refusal),
    };
    v1::ResetResponse { refusal: outcome.err().map(|refusal| refused(&refusal, request.repository.clone())) }
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
