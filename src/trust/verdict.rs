//! The one question: may this image be used, by this evidence, as far as is known, under this policy, at this moment?

use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;

use crate::evidence::{Evidence, Gun};
use crate::facts::Facts;
use crate::known::Known;
use crate::policy::{Approval, Consulted, Policy, Question};
use crate::refusal::{Reason, Refusal};
use crate::time::UnixTime;
use crate::trusted::TrustedRepository;
use crate::update::{Freshness, Progress, Terms, evaluate};

/// The answer. Given the same inputs it is the same for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The policy allows the image.
    Allow(Approval),
    /// It does not, or nothing covers it.
    Deny(Refusal),
}

/// What this node holds of one repository.
#[derive(Debug, Clone, Copy)]
pub struct Holding<'a> {
    /// Complete evidence.
    pub evidence: &'a Evidence,
    /// What was known before it was accepted, or after.
    pub known: &'a Known,
    /// Whether its expiry is ignored: `allow-expired-cached-trust-data`, and the server cannot be reached.
    pub allow_expired: bool,
}

/// Judges an image by what is held of its repository, and says what is known of that afterwards: the successor of the known
/// state if the evidence was accepted, whatever it says of this image, and the same state if not.
///
/// The successor may be stored only when the evidence was fetched from the repository's server. `facts` changes how long
/// this takes and nothing else.
#[must_use]
pub fn verify(question: Question<'_>, held: Holding<'_>, policy: &Policy, now: UnixTime, facts: &mut Facts) -> (Verdict, Known) {
    let Decision { verdict, accepted } = decide(question, held, policy, now, facts);
    (verdict, accepted.map_or_else(|| held.known.to_owned(), |trusted| trusted.into_known()))
}

/// A verdict, with the trust data that it rests on.
pub(crate) struct Decision {
    pub(crate) verdict: Verdict,
    /// The repository, if its evidence was needed and accepted, whatever it says of the image.
    pub(crate) accepted: Option<Box<TrustedRepository>>,
}

/// The one place where a verdict comes about: to be given, and to be explained.
pub(crate) fn decide(question: Question<'_>, held: Holding<'_>, policy: &Policy, now: UnixTime, facts: &mut Facts) -> Decision {
    let without_data = |verdict| Decision { verdict, accepted: None };
    let (anchor, demand) = match policy.consult(question, now) {
        Ok(Consulted::Allowed(approval)) => return without_data(Verdict::Allow(approval)),
        Ok(Consulted::Signatures { anchor, demand }) => (anchor, demand),
        Err(refusal) => return without_data(Verdict::Deny(refusal)),
    };
    let trusted = match judged(question, held, Terms { anchor, policy, now, freshness: freshness(held) }, facts) {
        Ok(trusted) => trusted,
        Err(refusal) => return without_data(Verdict::Deny(refusal)),
    };
    let verdict = trusted.approve(question.image, &demand).map_or_else(Verdict::Deny, Verdict::Allow);
    Decision { verdict, accepted: Some(trusted) }
}

/// The repository of an image by what is held of it, if that is good now.
pub(crate) fn current(
    question: Question<'_>,
    held: Holding<'_>,
    policy: &Policy,
    now: UnixTime,
    facts: &mut Facts,
) -> Result<Box<TrustedRepository>, Refusal> {
    let gun = Gun::for_repository(question.image.repository());
    let anchor = policy.pins.anchor_for(&gun).ok_or_else(|| Refusal::of_image(question.image, Reason::NotPinned))?;
    judged(question, held, Terms { anchor, policy, now, freshness: freshness(held) }, facts)
}

const fn freshness(held: Holding<'_>) -> Freshness {
    Freshness::Held { allow_expired: held.allow_expired }
}

fn judged(question: Question<'_>, held: Holding<'_>, terms: Terms<'_>, facts: &mut Facts) -> Result<Box<TrustedRepository>, Refusal> {
    let denied = |reason| Refusal::of_image(question.image, reason);
    if Gun::for_repository(question.image.repository()) != *held.evidence.gun() {
        return Err(denied(Reason::OtherRepository(held.evidence.gun().clone())));
    }
    match evaluate(held.evidence, held.known, terms, facts) {
        Ok(Progress::Trusted(trusted)) => Ok(trusted),
        Ok(Progress::Wanting(wants)) => {
            let reason = wants.into_iter().next().map_or(Reason::NoTrustData { had_some: false }, |want| Reason::Incomplete(want.file));
            Err(denied(reason))
        }
        Err(refusal) => Err(refusal.about(question.image)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mode::Mode;
    use crate::name::ImageReference;
    use crate::pin::Pins;

    fn denied(image: &ImageReference, evidence: &Evidence, pins: Pins) -> Refusal {
        let held = Holding { evidence, known: &Known::default(), allow_expired: true };
        let policy = Policy::new(Mode::Enforced, pins);
        let (verdict, known) = verify(Question::without_namespace(image), held, &policy, UnixTime::default(), &mut Facts::default());
        assert_eq!(known, Known::default());
        let Verdict::Deny(refusal) = verdict else { panic!("{verdict:?}") };
        refusal
    }

    #[test]
    fn evidence_of_another_repository_allows_nothing() {
        let image: ImageReference = "r.test/team/app:1".parse().unwrap();
        let other = Gun::for_repository(&"r.test/team/other".parse().unwrap());
        let mut pins = Pins::default();
        pins.add_root_keys("*", ["00".repeat(32).as_str()]).unwrap();
        let refusal = denied(&image, &Evidence::new(other.clone(), "https://r.test".into()), pins);
        assert_eq!(refusal, Refusal::of_image(&image, Reason::OtherRepository(other)));
    }

    #[test]
    fn an_image_that_no_pin_covers_is_denied() {
        let image: ImageReference = "r.test/team/app:1".parse().unwrap();
        let evidence = Evidence::new(Gun::for_repository(image.repository()), "https://r.test".into());
        assert_eq!(denied(&image, &evidence, Pins::default()), Refusal::of_image(&image, Reason::NotPinned));
    }
}
