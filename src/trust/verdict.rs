//! The one question: may this image be used, by this evidence, as far as is known, under this policy, at this moment?

use alloc::borrow::ToOwned as _;

use crate::evidence::{Evidence, Gun};
use crate::facts::Facts;
use crate::known::Known;
use crate::name::ImageReference;
use crate::pin::Pins;
use crate::refusal::{Reason, Refusal};
use crate::time::UnixTime;
use crate::trusted::Approval;
use crate::update::{Freshness, Progress, Terms, evaluate};

/// What the configuration demands of an image.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'a> {
    /// Which roots are trusted.
    pub pins: &'a Pins,
    /// Whether expiry is ignored (`allow-expired-cached-trust-data`).
    pub allow_expired: bool,
}

/// The answer. Given the same four inputs it is the same for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The signatures allow the image.
    Allow(Approval),
    /// They do not, or nothing covers it.
    Deny(Refusal),
}

/// Judges `image` by complete evidence, and says what is known of its repository afterwards: the successor of `known`
/// if the evidence was accepted, whatever it says of this image, and `known` itself if not.
///
/// The successor may be stored only when the evidence was fetched from the repository's server. `facts` changes how long
/// this takes and nothing else.
#[must_use]
pub fn verify(
    image: &ImageReference,
    evidence: &Evidence,
    known: &Known,
    policy: Policy<'_>,
    now: UnixTime,
    facts: &mut Facts,
) -> (Verdict, Known) {
    let deny = |reason| (Verdict::Deny(Refusal::of_image(image, reason)), known.to_owned());
    let gun = Gun::for_repository(image.repository());
    if gun != *evidence.gun() {
        return deny(Reason::OtherRepository(evidence.gun().clone()));
    }
    let Some(anchor) = policy.pins.anchor_for(&gun) else { return deny(Reason::NotPinned) };
    let terms = Terms { anchor, now, freshness: Freshness::Held { allow_expired: policy.allow_expired } };
    let trusted = match evaluate(evidence, known, terms, facts) {
        Ok(Progress::Trusted(trusted)) => trusted,
        Ok(Progress::Wanting(wants)) => {
            return deny(wants.into_iter().next().map_or(Reason::NoTrustData { had_some: false }, |want| Reason::Incomplete(want.file)));
        }
        Err(refusal) => return (Verdict::Deny(refusal.about(image)), known.to_owned()),
    };
    let verdict = trusted.judge(image).map_or_else(Verdict::Deny, Verdict::Allow);
    (verdict, trusted.into_known())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_of_another_repository_allows_nothing() {
        let image: ImageReference = "r.test/team/app:1".parse().unwrap();
        let other = Gun::for_repository(&"r.test/team/other".parse().unwrap());
        let evidence = Evidence::new(other.clone(), "https://r.test".into());
        let pins = Pins::default();
        let policy = Policy { pins: &pins, allow_expired: false };
        let (verdict, known) = verify(&image, &evidence, &Known::default(), policy, UnixTime::default(), &mut Facts::default());
        assert_eq!(verdict, Verdict::Deny(Refusal::of_image(&image, Reason::OtherRepository(other))));
        assert_eq!(known, Known::default());
    }

    #[test]
    fn an_image_that_no_pin_covers_is_denied() {
        let image: ImageReference = "r.test/team/app:1".parse().unwrap();
        let evidence = Evidence::new(Gun::for_repository(image.repository()), "https://r.test".into());
        let pins = Pins::default();
        let policy = Policy { pins: &pins, allow_expired: true };
        let (verdict, _) = verify(&image, &evidence, &Known::default(), policy, UnixTime::default(), &mut Facts::default());
        assert_eq!(verdict, Verdict::Deny(Refusal::of_image(&image, Reason::NotPinned)));
    }
}
