//! Judging again what was judged before: by any policy, evidence and moment, and by nothing of this node.

use countersign_trust::explain::{Explanation, explain};
use countersign_trust::time::UnixTime;
use countersign_trust::{Approval, Facts, Freshness, Holding, Question, Terms, Verdict, evaluate};

use super::explain::{Explained, TrustData};
use super::memory::is_expiry;
use super::policy::Local;
use super::refusal::Refusal;
use super::{Admission, Looked, Origin, Policy};
use crate::ledger::Held;

/// An answer of the evaluation, and what it looked at.
type Answered = (Result<(Approval, Origin), Refusal>, Explanation);

impl Policy {
    /// The verdict on an image under this policy, by this evidence with what was known, at this moment: the evaluation that a
    /// pull or a container gets, with what it rests on. Without evidence it is what the policy says alone.
    #[must_use]
    pub fn judge_again(&self, question: Question<'_>, basis: Option<(&Held, Looked)>, now: UnixTime) -> Explained {
        let (judged, explanation) = match basis {
            None => (Err(not_held(question)), explain(question, None, &self.trust, now, &mut Facts::default())),
            Some((held, Looked::Held)) => self.as_held(question, held, now, false),
            Some((held, Looked::Expired)) => self.as_expired(question, held, now),
            Some((held, Looked::Fetched)) => self.as_fetched(question, held, now),
        };
        let judged = match self.consult(question, now) {
            Ok(Local::Allowed(approval)) => Ok((approval, Origin::Rule)),
            Ok(Local::Asks) => judged,
            Err(refusal) => Err(refusal),
        };
        let evidence = basis.map(|(held, _)| held.evidence.digest());
        let outcome = judged.map(|(approval, origin)| {
            let evidence = evidence.filter(|_| origin != Origin::Rule);
            let (digest, mode) = (approval.digest, self.trust.mode_for(question, now));
            Admission { image: question.image.clone(), approval, digest, origin, evidence, mode, pinned_at: None }
        });
        let trust_data = basis.map(|(held, _)| TrustData::of(held));
        Explained { explanation: Some(explanation), trust_data, ..Explained::without_account(outcome, now) }
    }

    /// As [`Policy::judge_again`], for the image of sandboxes, of which the configuration may list the digests.
    #[must_use]
    pub fn judge_sandbox_again(&self, question: Question<'_>, basis: Option<(&Held, Looked)>, now: UnixTime) -> Explained {
        let explained = self.judge_again(question, basis, now);
        let listed = self.sandbox.listed(question.image, self.trust.mode);
        match listed.filter(|admission| self.trust.refuse_denied(admission.digest.hash()).is_ok()) {
            Some(admission) => Explained { outcome: Ok(admission), ..explained },
            None => explained,
        }
    }

    fn as_held(&self, question: Question<'_>, held: &Held, now: UnixTime, allow_expired: bool) -> Answered {
        let holding = Holding { evidence: &held.evidence, known: &held.known, allow_expired };
        let explanation = explain(question, Some(holding), &self.trust, now, &mut Facts::default());
        let origin = if allow_expired { Origin::Expired } else { Origin::Held };
        let answer = match &explanation.verdict {
            Some(Verdict::Allow(approval)) => Ok((approval.clone(), origin)),
            Some(Verdict::Deny(refusal)) => Err(Refusal::Trust(refusal.clone())),
            None => Err(not_held(question)),
        };
        (answer, explanation)
    }

    /// Expired data serves only where unexpired would not have been needed.
    fn as_expired(&self, question: Question<'_>, held: &Held, now: UnixTime) -> Answered {
        let unexpired = self.as_held(question, held, now, false);
        match &unexpired.0 {
            Err(Refusal::Trust(refusal)) if is_expiry(refusal.reason()) => self.as_held(question, held, now, true),
            Ok(_) | Err(_) => unexpired,
        }
    }

    /// What was fetched is refused before it is all there.
    fn as_fetched(&self, question: Question<'_>, held: &Held, now: UnixTime) -> Answered {
        let (answer, explanation) = self.as_held(question, held, now, false);
        let Some(anchor) = self.trust.pins.anchor_for(held.evidence.gun()) else { return (answer, explanation) };
        let terms = Terms { anchor, policy: &self.trust, now, freshness: Freshness::Fetching };
        match evaluate(&held.evidence, &held.known, terms, &mut Facts::default()) {
            Err(refusal) => (Err(Refusal::Trust(refusal.about(question.image))), explanation),
            Ok(_) => (answer, explanation),
        }
    }
}

fn not_held(question: Question<'_>) -> Refusal {
    Refusal::NotHeld { image: question.image.to_string() }
}
