//! Evidence out of this node, and into it.

use std::sync::Arc;

use super::{refused, v1};
use crate::admit::{Admit, Imported, Refusal};

/// The newest trust data of a repository, for another node or an archive; in whatever process.
pub async fn export(admit: &Arc<Admit>, request: &v1::ExportEvidenceRequest) -> v1::ExportEvidenceResponse {
    use v1::export_evidence_response::Outcome;
    let exported = match request.repository.parse() {
        Ok(repository) => admit.export(&repository).await,
        Err(error) => Err(Refusal::Name { error }),
    };
    let outcome = match exported {
        Ok(evidence) => Outcome::Evidence(evidence.encode()),
        Err(refusal) => Outcome::Refusal(refused(&refusal, request.repository.clone())),
    };
    v1::ExportEvidenceResponse { outcome: Some(outcome) }
}

/// Takes a file of evidence in; in whatever process.
pub async fn import(admit: &Arc<Admit>, request: &v1::ImportEvidenceRequest) -> v1::ImportEvidenceResponse {
    use v1::import_evidence_response::Outcome;
    let outcome = match admit.import(&request.evidence).await {
        Ok(imported) => Outcome::Imported(as_message(&imported)),
        Err(refusal) => Outcome::Refusal(refused(&refusal, String::new())),
    };
    v1::ImportEvidenceResponse { outcome: Some(outcome) }
}

fn as_message(imported: &Imported) -> v1::Imported {
    v1::Imported {
        repository: imported.repository.to_string(),
        evidence: imported.evidence.to_string(),
        tags: imported.tags as u64,
        valid_until: imported.valid_until.to_string(),
        expired: imported.has_expired,
    }
}
