//! What a verdict rests on, for those who keep it: the evidence that was looked at, with what was known.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_trust::evidence::{Answer, Evidence, Gun};
use countersign_trust::known::Known;
use countersign_trust::name::{EvidenceDigest, ImageReference};
use countersign_trust::time::UnixTime;
use countersign_trust::{Question, Refusal as TrustRefusal};

use super::policy::Local;
use super::{Admission, Admit, Origin, Refusal};
use crate::ledger::Held;

/// Refused fetches that are kept in mind, until whoever records the refusals has taken them.
const MOST_REFUSED: usize = 16;
/// Bytes of all of them together. What is longer is not kept: a server decides how much it sends, and this is memory.
const MOST_REFUSED_BYTES: usize = 8 << 20;

/// As what evidence was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Looked {
    /// As what is held.
    Held,
    /// As what is held, and may have run out (`allow-expired-cached-trust-data`).
    Expired,
    /// As what was fetched, and is not held, since it was refused.
    Fetched,
}

/// What a verdict rests on.
#[derive(Debug, Clone)]
pub struct Basis {
    /// Names the evidence.
    pub evidence: EvidenceDigest,
    /// The evidence, and what was known. Of what was fetched and refused, it is not held.
    pub held: Arc<Held>,
    /// As what it was looked at.
    pub looked: Looked,
}

/// Evidence that was fetched and refused. It is dropped by those who judge, and what they say can only be followed with it.
#[derive(Debug, Default)]
pub(super) struct RefusedFetches(Mutex<VecDeque<(TrustRefusal, Basis, usize)>>);

impl RefusedFetches {
    /// Keeps the newest; the oldest make room.
    pub(super) fn add(&self, refusal: &TrustRefusal, evidence: Evidence, known: Known) {
        let bytes = bytes_of(&evidence);
        if bytes > MOST_REFUSED_BYTES {
            return;
        }
        let basis = Basis {
            evidence: evidence.digest(),
            held: Arc::new(Held { known, evidence, checked_at: 0, is_own: true }),
            looked: Looked::Fetched,
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(other, other_basis, _)| other != refusal || other_basis.held.evidence.gun() != basis.held.evidence.gun());
        kept.push_back((refusal.clone(), basis, bytes));
        while kept.len() > MOST_REFUSED || kept.iter().map(|(_, _, bytes)| bytes).sum::<usize>() > MOST_REFUSED_BYTES {
            kept.pop_front();
        }
    }

    /// What the refusal of an image rests on, if it is one of these.
    fn find(&self, image: &ImageReference, refusal: &TrustRefusal) -> Option<Basis> {
        let gun = Gun::for_repository(image.repository());
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |of_fetch: &TrustRefusal| of_fetch.reason() == refusal.reason();
        kept.iter()
            .rev()
            .find(|(of_fetch, basis, _)| *basis.held.evidence.gun() == gun && same(of_fetch))
            .map(|(_, basis, _)| basis.clone())
    }
}

fn bytes_of(evidence: &Evidence) -> usize {
    let bytes = |answer: &Answer| match answer {
        Answer::Found(body) => body.bytes().len(),
        Answer::NotFound => 0,
    };
    evidence.answers().map(|(_, answer)| bytes(answer)).sum()
}

impl Admit {
    /// What the clock says, right or wrong: for records, never for a judgement.
    #[must_use]
    pub fn clock_says(&self) -> UnixTime {
        self.clock.now().unwrap_or_else(|error| error.says())
    }

    /// The rule that answers for an image.
    #[must_use]
    pub fn rule_of(&self, question: Question<'_>) -> Option<String> {
        self.policy().trust.demand_for(question, self.clock_says()).ok().map(|demand| demand.rule.to_owned())
    }

    /// What an admission rests on. None if it needed no evidence, or other evidence is held by now.
    #[must_use]
    pub fn basis_of_admission(&self, admission: &Admission) -> Option<Basis> {
        let looked = match admission.origin {
            Origin::Server | Origin::Cluster | Origin::Held => Looked::Held,
            Origin::Expired => Looked::Expired,
            Origin::Rule => return None,
        };
        if admission.pinned_at.is_some() {
            return self.basis_of_pin(admission.evidence?);
        }
        let gun = Gun::for_repository(admission.image.repository());
        let (held, evidence) = self.memory().ok()?.named(&gun)?;
        (admission.evidence == Some(evidence)).then_some(Basis { evidence, held, looked })
    }

    /// What a service keeps rests on the evidence of then, which was looked at with nothing known.
    fn basis_of_pin(&self, name: EvidenceDigest) -> Option<Basis> {
        let evidence = Evidence::clone(&*self.evidence_looked_at(&name)?);
        Some(Basis {
            evidence: name,
            held: Arc::new(Held { known: Known::default(), evidence, checked_at: 0, is_own: true }),
            looked: Looked::Held,
        })
    }

    /// What a refusal rests on: what was fetched and is refused, else what is held. None where no trust data was looked at.
    #[must_use]
    pub fn basis_of_refusal(&self, question: Question<'_>, refusal: &Refusal) -> Option<Basis> {
        let (now, policy) = (self.clock_says(), self.policy());
        if !matches!(policy.consult(question, now), Ok(Local::Asks)) {
            return None;
        }
        if let Refusal::Trust(refusal) = refusal.judgement()
            && let Some(basis) = self.refused_fetches.find(question.image, refusal)
        {
            return Some(basis);
        }
        let (memory, gun) = (self.memory().ok()?, Gun::for_repository(question.image.repository()));
        let (held, evidence) = memory.named(&gun)?;
        let looked = if memory.expired_serves(&gun, &policy, now) { Looked::Expired } else { Looked::Held };
        Some(Basis { evidence, held, looked })
    }

    /// What is held of a repository, if that is the evidence of this name.
    #[must_use]
    pub fn held_as(&self, gun: &Gun, evidence: &EvidenceDigest) -> Option<Arc<Held>> {
        let (held, name) = self.memory().ok()?.named(gun)?;
        (name == *evidence).then_some(held)
    }
}

#[cfg(test)]
mod tests {
    use countersign_trust::Reason;
    use countersign_trust::evidence::FileName;

    use super::*;

    fn image(tag: &str) -> ImageReference {
        format!("r.test/team/app:{tag}").parse().unwrap()
    }

    fn add(fetches: &RefusedFetches, reason: Reason, bytes: usize) -> EvidenceDigest {
        let gun = Gun::for_repository(image("1").repository());
        let mut evidence = Evidence::new(gun.clone(), "https://r.test".into());
        evidence.add(FileName::Timestamp, Answer::Found(vec![b'x'; bytes].into()));
        let digest = evidence.digest();
        fetches.add(&TrustRefusal::of_repository(gun, reason), evidence, Known::default());
        digest
    }

    fn find(fetches: &RefusedFetches, reason: Reason) -> Option<EvidenceDigest> {
        fetches.find(&image("2"), &TrustRefusal::of_image(&image("2"), reason)).map(|basis| basis.evidence)
    }

    #[test]
    fn a_refusal_is_followed_to_the_fetch_that_was_refused_for_the_same_reason() {
        let fetches = RefusedFetches::default();
        let first = add(&fetches, Reason::TooLong { file: FileName::Timestamp, limit: 1 }, 10);
        let second = add(&fetches, Reason::TooLong { file: FileName::Timestamp, limit: 2 }, 20);
        assert_eq!(find(&fetches, Reason::TooLong { file: FileName::Timestamp, limit: 1 }), Some(first));
        assert_eq!(find(&fetches, Reason::TooLong { file: FileName::Timestamp, limit: 2 }), Some(second));
        assert_eq!(find(&fetches, Reason::TagNotSigned), None);
        let newer = add(&fetches, Reason::TooLong { file: FileName::Timestamp, limit: 1 }, 30);
        assert_eq!(find(&fetches, Reason::TooLong { file: FileName::Timestamp, limit: 1 }), Some(newer));
    }

    #[test]
    fn what_refused_fetches_take_of_memory_is_bounded() {
        let fetches = RefusedFetches::default();
        for limit in 0..100 {
            add(&fetches, Reason::TooLong { file: FileName::Timestamp, limit }, MOST_REFUSED_BYTES / 4);
        }
        let bytes: usize = fetches.0.lock().unwrap().iter().map(|(_, _, bytes)| bytes).sum();
        assert!(bytes > 0 && bytes <= MOST_REFUSED_BYTES, "{bytes}");
        add(&fetches, Reason::TagNotSigned, MOST_REFUSED_BYTES + 1);
        assert_eq!(find(&fetches, Reason::TagNotSigned), None);
        for limit in 0..100 {
            add(&fetches, Reason::TooLong { file: FileName::Timestamp, limit }, 1);
        }
        assert_eq!(fetches.0.lock().unwrap().len(), MOST_REFUSED);
    }
}
