//! Manifests of platforms: a signature names an index, and a pod the manifest in it that is for its platform.

use countersign_trust::name::{ImageReference, Selector};
use countersign_trust::{Question, Reason};

use super::refusal::Refusal;
use super::{Admission, Admit};
use crate::ledger::VerifiedImage;

/// Images on record of one repository that are looked through for the index of a manifest. Each may cost a few questions to
/// containerd.
const MOST_INDEXES: usize = 64;

impl Admit {
    /// The admission of a digest that no signature names, but that lies in a signed index of the same repository. The index
    /// was pulled here before, and its content on this node is followed by hash, so that whoever names a platform's manifest
    /// gets no more than whoever names the index.
    ///
    /// # Errors
    /// `refusal`, where it is about something else or no such index is here.
    pub(super) async fn platform_of_signed(&self, question: Question<'_>, refusal: Refusal) -> Result<Admission, Refusal> {
        let is_unsigned = matches!(&refusal, Refusal::Trust(refusal) if *refusal.reason() == Reason::DigestNotSigned);
        let Selector::Digest(wanted) = question.image.selector() else { return Err(refusal) };
        if !is_unsigned {
            return Err(refusal);
        }
        let on_record = self.memory()?.images_of(question.image.repository());
        for VerifiedImage { repository, digest, image_id, .. } in on_record.into_iter().rev().take(MOST_INDEXES) {
            if digest == *wanted {
                continue;
            }
            let index = ImageReference::by_digest(repository, digest);
            let Ok(admission) = self.judge(Question { image: &index, ..question }) else { continue };
            let content = self.content_of(digest, image_id).await;
            if content.is_ok_and(|content| content.is_some_and(|content| content.manifest == *wanted)) {
                return Ok(Admission { image: question.image.clone(), digest: *wanted, ..admission });
            }
        }
        Err(refusal)
    }
}
