//! What is to come of pins, for those who watch over them: what their tags are signed as by now, when that ends, and what a container
//! really runs. Nothing is decided by it, and no packet is sent.

use std::sync::Arc;

use countersign_trust::Question;
use countersign_trust::name::{ImageReference, ManifestDigest};
use countersign_trust::time::UnixTime;

use super::refusal::Refusal;
use super::{Admission, Admit};
use crate::containerd::stands_on;
use crate::resolve::Pin;

/// What this node judges of the tag of a pin now.
#[derive(Debug, Clone)]
pub enum Prospect {
    /// It cannot tell: it holds nothing of the repository, or cannot judge now.
    Unknown,
    /// The tag is signed.
    Signed {
        /// As what.
        digest: ManifestDigest,
        /// From when on what the pin rests on is out of date. [`UnixTime::NEVER`]: never.
        ends: UnixTime,
    },
    /// The tag would be refused, and so would what it is pinned as.
    Refused(Refusal),
}

impl Admit {
    /// Every pin that is held here, with what this node judges of its tag now. It takes some microseconds for each.
    #[must_use]
    pub fn prospects(&self) -> Vec<(Arc<Pin>, Prospect)> {
        let pins = self.pins().map(|pins| pins.all()).unwrap_or_default();
        pins.into_iter().map(|pin| (Arc::clone(&pin), self.prospect_of(&pin))).collect()
    }

    fn prospect_of(&self, pin: &Pin) -> Prospect {
        let question = Question { image: &pin.image, namespace: Some(&pin.revision.service.namespace) };
        prospect(pin, self.judge(question), self.policy().superseded_serves_until(pin.meaning.at))
    }

    /// The digest that a container runs of an image's repository, by its root file system: one that was verified on this node once,
    /// whatever is said of it today. `wanted`, if it is that. None if none of them is it, or if containerd does not tell.
    pub async fn digest_on_record(&self, container_id: &str, image: &ImageReference, wanted: ManifestDigest) -> Option<ManifestDigest> {
        let (container, parent) = self.root_fs_of(container_id).await.ok()?;
        let mut on_record = self.memory().ok()?.images_on(|chain| stands_on(&parent, chain, container.id_mapping.as_ref()));
        on_record.retain(|verified| verified.repository == *image.repository());
        let is_wanted = on_record.iter().any(|verified| verified.digest == wanted);
        if is_wanted { Some(wanted) } else { on_record.last().map(|verified| verified.digest) }
    }
}

/// While the tag is signed as what it is pinned as, that ends with the trust data. Once it is superseded, it ends with its time, too.
fn prospect(pin: &Pin, judged: Result<Admission, Refusal>, superseded_ends: UnixTime) -> Prospect {
    match judged {
        Ok(admission) => {
            let is_superseded = admission.digest != pin.meaning.digest;
            let held_ends = admission.approval.valid_until;
            let ends = if is_superseded { held_ends.min(superseded_ends) } else { held_ends };
            Prospect::Signed { digest: admission.digest, ends }
        }
        // Nobody has asked for it on this node yet.
        Err(Refusal::NotHeld { .. }) => Prospect::Unknown,
        Err(refusal) if refusal.says_unverified() => Prospect::Refused(refusal),
        Err(_) => Prospect::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use countersign_trust::mode::Mode;
    use countersign_trust::name::{EvidenceDigest, Sha256};
    use countersign_trust::{Approval, Basis};

    use super::*;
    use crate::admit::Origin;
    use crate::resolve::{Cause, Kind, Meaning, Revision, Service};

    const SUPERSEDED_ENDS: UnixTime = UnixTime::from_seconds(1_810_000_000);
    const AT: UnixTime = UnixTime::from_seconds(1_800_000_000);

    fn digest(text: &str) -> ManifestDigest {
        ManifestDigest::new(Sha256::of(text.as_bytes()))
    }

    fn pin() -> Pin {
        let service = Service { namespace: "shop".into(), kind: Kind::Deployment, name: "web".into() };
        let meaning = Meaning {
            digest: digest("old"),
            evidence: EvidenceDigest::of(b"old"),
            evidence_bytes: 0,
            at: AT,
            by: "node-1".into(),
            cause: Cause::FirstUse,
            voucher: None,
        };
        Pin::first(Revision { service, id: "5d4f".into() }, "r.test/app:1".parse().unwrap(), meaning, AT).unwrap()
    }

    fn signed(digest: ManifestDigest, valid_until: UnixTime) -> Prospect {
        let approval = Approval { digest, basis: Basis::ListedByRule, rule: "default".into(), valid_until };
        let admission =
            Admission { image: pin().image, approval, digest, origin: Origin::Held, evidence: None, mode: Mode::Enforced, pinned_at: None };
        prospect(&pin(), Ok(admission), SUPERSEDED_ENDS)
    }

    #[test]
    fn what_a_pin_rests_on_ends_with_the_trust_data_and_once_it_is_superseded_with_its_time() {
        let (soon, late) = (AT.plus_seconds(1000), SUPERSEDED_ENDS.plus_seconds(1000));
        for (name, until, expected) in [("old", soon, soon), ("old", late, late), ("new", soon, soon), ("new", late, SUPERSEDED_ENDS)] {
            let Prospect::Signed { digest: found, ends } = signed(digest(name), until) else { panic!("it is signed") };
            assert_eq!((found, ends), (digest(name), expected), "{name} {until}");
        }
    }

    #[test]
    fn only_what_would_be_denied_is_refused_and_what_cannot_be_told_is_unknown() {
        let image = "r.test/app:1".to_owned();
        let prospect = |refusal| prospect(&pin(), Err(refusal), SUPERSEDED_ENDS);
        assert!(matches!(prospect(Refusal::NotHeld { image }), Prospect::Unknown));
        assert!(matches!(prospect(Refusal::Internal { what: "a fault of ours" }), Prospect::Unknown));
        let unsigned = countersign_trust::Refusal::of_image(&pin().image, countersign_trust::Reason::NotPinned);
        assert!(matches!(prospect(Refusal::Trust(unsigned)), Prospect::Refused(_)));
    }
}
