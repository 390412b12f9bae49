//! A verdict with everything that it rests on.

use std::sync::Arc;

use countersign_trust::Question;
use countersign_trust::explain::Explanation;
use countersign_trust::name::ImageReference;
use countersign_trust::time::UnixTime;

use super::memory::Accounted;
use super::policy::Local;
use super::refusal::Refusal;
use super::{Admission, Admit, Origin, Prepared, admitted};
use crate::ledger::Held;

/// Where the trust data came from that a verdict rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustData {
    /// The trust server that gave it.
    pub server: String,
    /// When it was last found good here.
    pub found_good_at: UnixTime,
}

impl TrustData {
    pub(super) fn of(held: &Held) -> Self {
        let found_good_at = UnixTime::from_seconds(i64::try_from(held.checked_at).unwrap_or(i64::MAX));
        Self { server: held.evidence.server().to_owned(), found_good_at }
    }
}

/// A verdict with everything that it rests on.
#[derive(Debug)]
pub struct Explained {
    /// The verdict, as a pull would get it.
    pub outcome: Result<Admission, Refusal>,
    /// What was looked at for it. Where a refusal was reached before an evaluation, what the evaluation would have looked at.
    pub explanation: Option<Explanation>,
    /// Whether the trust data was confirmed for it; none if it was not brought up to date.
    pub origin: Option<Origin>,
    /// Where the trust data came from; none if none is held.
    pub trust_data: Option<TrustData>,
    /// The moment of the verdict.
    pub now: UnixTime,
}

impl Explained {
    pub(super) const fn without_account(outcome: Result<Admission, Refusal>, now: UnixTime) -> Self {
        Self { outcome, explanation: None, origin: None, trust_data: None, now }
    }
}

impl Admit {
    /// Judges an image as [`Admit::pull`] without a credential does, by the same evaluation, and says what the verdict rests on.
    pub async fn explain(self: &Arc<Self>, question: Question<'_>) -> Explained {
        let prepared = self.prepare(question, None, super::cluster::Asks::Server).await;
        let now = match self.now() {
            Ok(now) => now,
            Err(refusal) => return Explained::without_account(Err(refusal), UnixTime::default()),
        };
        match prepared {
            Ok(Prepared::Listed(admission)) => Explained { outcome: Ok(*admission), ..self.judge_explained(question, now) },
            Ok(Prepared::Refreshed(origin)) => {
                let explained = self.of_platform(question, self.judge_explained(question, now)).await;
                let outcome = explained.outcome.map(|admission| Admission { origin, ..admission });
                Explained { outcome, origin: Some(origin), ..explained }
            }
            Err(refusal) => Explained { outcome: Err(refusal), ..self.judge_explained(question, now) },
        }
    }

    /// As [`Admit::judge`] does.
    fn judge_explained(&self, question: Question<'_>, now: UnixTime) -> Explained {
        let memory = match self.memory() {
            Ok(memory) => memory,
            Err(refusal) => return Explained::without_account(Err(refusal), now),
        };
        let policy = self.policy();
        let Accounted { judged, explanation, held } = memory.explain(question, &policy, now);
        let outcome = match policy.consult(question, now) {
            Ok(Local::Allowed(approval)) => Ok(self.listed(question, approval)),
            Ok(Local::Asks) => judged.map(|judged| admitted(question, judged, policy.trust.mode_for(question, now))),
            Err(refusal) => Err(refusal),
        };
        let (explanation, trust_data) = (Some(explanation), held.as_deref().map(TrustData::of));
        Explained { explanation, trust_data, ..Explained::without_account(outcome, now) }
    }

    /// The manifest of a platform is allowed for the sake of its index, and so it is explained.
    async fn of_platform(&self, question: Question<'_>, explained: Explained) -> Explained {
        let Err(refusal) = explained.outcome else { return explained };
        match self.platform_of_signed(question, refusal).await {
            Err(refusal) => Explained { outcome: Err(refusal), ..explained },
            Ok(admission) => {
                let index = ImageReference::by_digest(question.image.repository().clone(), admission.approval.digest);
                let of_index = self.judge_explained(Question { image: &index, ..question }, explained.now);
                Explained { outcome: Ok(admission), ..of_index }
            }
        }
    }
}
