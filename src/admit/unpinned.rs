//! What ends a pin: its tag is signed no more.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use countersign_trust::evidence::Gun;
use countersign_trust::name::{ImageReference, Repository, Selector};
use countersign_trust::time::UnixTime;
use countersign_trust::{Facts, Freshness, Progress, Question, Reason, Terms, evaluate};

use super::Admit;
use super::memory::Memory;
use super::refusal::Refusal;
use crate::ledger::Held;
use crate::resolve::{Pin, Pins, ResolveError};

/// Tags of one repository that are marked one by one when they are signed no more. Where there are more, all of its pins from before
/// count no more: what is signed now is the same for them, or was withdrawn.
const MOST_MARKED: usize = 256;

impl Admit {
    /// What was seen unsigned once is never revived: the next time that the tag is signed, it means what it is signed as then.
    pub(super) async fn end_pin(&self, pin: &Pin, why: &Refusal) {
        self.end_one_of(pin, why, &mut HashSet::new()).await;
    }

    /// As [`Admit::end_pin`], of one of many: a tag that was written down already is not written down again.
    async fn end_one_of(&self, pin: &Pin, why: &Refusal, withdrawn: &mut HashSet<ImageReference>) {
        let Some(pins) = self.pins() else { return };
        tracing::info!(image = %pin.image, service = %pin.revision.service, pinned = %pin.meaning.digest, reason = %why, "a pin has ended: its tag is not signed any more");
        let outcome = self.withdraw(pins, pin, withdrawn).await;
        if let Err(error) = outcome {
            tracing::warn!(image = %pin.image, service = %pin.revision.service, %error, "an ended pin could not be removed");
        }
    }

    async fn withdraw(&self, pins: &Pins, pin: &Pin, withdrawn: &mut HashSet<ImageReference>) -> Result<(), ResolveError> {
        // First: whoever holds the store could bring the pin back.
        if let (false, Ok(now)) = (withdrawn.contains(&pin.image), self.now()) {
            pins.withdraw(&pin.image, now).await?;
            withdrawn.insert(pin.image.clone());
        }
        if pins.end(pin).await? { pins.forget_evidence_of(pin).await } else { Ok(()) }
    }

    /// Marks every tag that was released by what was held of a repository, and is not by what is held now: also one of which no pin
    /// is known here, since whoever holds the store may have hidden it until the tag is signed again.
    pub(super) async fn mark_withdrawn_tags(&self, before: Option<Arc<Held>>, now_held: &Held) {
        let (Some(pins), Some(before), Ok(now)) = (self.pins().filter(|pins| pins.is_shared()), before, self.now()) else { return };
        if before.evidence.digest() == now_held.evidence.digest() {
            return;
        }
        let (Some(old), Some(new)) = (self.released_by(&before, now), self.released_by(now_held, now)) else { return };
        let Ok(repository) = now_held.evidence.gun().as_str().parse::<Repository>() else { return };
        let gone: Vec<&String> = old.difference(&new).collect();
        let marked = if gone.len() > MOST_MARKED {
            pins.withdraw_all(&repository, now).await
        } else {
            self.mark(pins, &repository, &gone, now).await
        };
        if let Err(error) = marked {
            tracing::warn!(%repository, %error, "that tags are signed no more could not be written down; pins of them may come back after a restart");
        }
    }

    async fn mark(&self, pins: &Pins, repository: &Repository, gone: &[&String], now: UnixTime) -> Result<(), ResolveError> {
        for tag in gone {
            if let Ok(image) = format!("{repository}:{tag}").parse() {
                pins.withdraw(&image, now).await?;
            }
        }
        Ok(())
    }

    /// The tags that some trust data releases, by today's policy. None if it does not count by that.
    fn released_by(&self, held: &Held, now: UnixTime) -> Option<BTreeSet<String>> {
        let policy = self.policy();
        let anchor = policy.trust.pins.anchor_for(held.evidence.gun())?;
        let terms = Terms { anchor, policy: &policy.trust, now, freshness: Freshness::Held { allow_expired: true } };
        match evaluate(&held.evidence, &held.known, terms, &mut Facts::default()).ok()? {
            Progress::Trusted(trusted) => Some(trusted.released_tags().map(|(tag, _)| tag.to_owned()).collect()),
            Progress::Wanting(_) => None,
        }
    }

    /// Ends every pin whose tag is signed no more, of all repositories that are held. For a daemon that was killed before it had.
    pub async fn end_all_unsigned_pins(&self) {
        for gun in self.memory().map(Memory::guns).unwrap_or_default() {
            self.end_unsigned_pins(&gun).await;
        }
    }

    /// Ends every pin of a repository whose tag is signed no more, whoever asked: it may be signed again before anybody asks for
    /// the others. Called whenever other trust data of it is held.
    pub(super) async fn end_unsigned_pins(&self, gun: &Gun) {
        let (Some(pins), Ok(repository)) = (self.pins(), gun.as_str().parse::<Repository>()) else { return };
        let pins = pins.of_repository(&repository);
        if pins.is_empty() {
            return;
        }
        let now = self.now().ok();
        let released = now.and_then(|now| self.memory().ok()?.released_tags(gun, &self.policy().trust, now));
        let mut withdrawn = HashSet::new();
        for (pin, refusal) in unsigned(pins, released.as_ref(), |pin| self.says_unsigned(pin)) {
            if self.is_checked_since(&pin) {
                self.end_one_of(&pin, &refusal, &mut withdrawn).await;
            }
        }
    }

    /// That the tag of a pin is signed no more, and was found so after the pin was made. What this node holds may be from before
    /// the tag was signed at all, while another node has pinned it since: that says nothing.
    pub(super) fn is_unsigned_since(&self, pin: &Pin) -> Option<Refusal> {
        if self.is_checked_since(pin) { self.says_unsigned(pin) } else { None }
    }

    /// Whether what is held of a pin's repository is from when the pin was made, or later.
    fn is_checked_since(&self, pin: &Pin) -> bool {
        let held = self.memory().ok().and_then(|memory| memory.held(&Gun::for_repository(pin.image.repository())));
        let checked_at = held.and_then(|held| i64::try_from(held.checked_at).ok());
        checked_at.is_some_and(|at| UnixTime::from_seconds(at) >= pin.meaning.at)
    }

    fn says_unsigned(&self, pin: &Pin) -> Option<Refusal> {
        let question = Question { image: &pin.image, namespace: Some(&pin.revision.service.namespace) };
        self.judge(question).err().filter(says_unsigned)
    }
}

/// The pins whose tags are signed no more, and why. A repository may have thousands of pins at each new signature: of a tag that is
/// released nothing is asked, since a pin ends by nothing else, and of every other one once for each namespace, by whose rules it is
/// judged. `released` is None where what is held is not good now.
fn unsigned(
    pins: Vec<Arc<Pin>>,
    released: Option<&HashSet<String>>,
    judge: impl Fn(&Pin) -> Option<Refusal>,
) -> Vec<(Arc<Pin>, Arc<Refusal>)> {
    let mut judged: HashMap<(ImageReference, String), Option<Arc<Refusal>>> = HashMap::new();
    let mut found = Vec::new();
    for pin in pins {
        if matches!(pin.image.selector(), Selector::Tag(tag) if released.is_some_and(|released| released.contains(tag.as_str()))) {
            continue;
        }
        let asked = (pin.image.clone(), pin.revision.service.namespace.clone());
        let refusal = judged.entry(asked).or_insert_with(|| judge(&pin).map(Arc::new)).clone();
        found.extend(refusal.map(|refusal| (pin, refusal)));
    }
    found
}

/// Whether this says that the tag is not signed, whatever it was signed as before.
fn says_unsigned(refusal: &Refusal) -> bool {
    let Refusal::Trust(refusal) = refusal else { return false };
    matches!(refusal.reason(), Reason::TagNotSigned | Reason::TargetUnusable | Reason::ReleasesRequired)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use countersign_trust::name::{EvidenceDigest, ManifestDigest, Sha256};

    use super::*;
    use crate::resolve::{Cause, Kind, Meaning, Revision, Service};

    fn pin(namespace: &str, id: usize, tag: &str) -> Arc<Pin> {
        let at = UnixTime::from_seconds(1_800_000_000);
        let service = Service { namespace: namespace.into(), kind: Kind::CronJob, name: "job".into() };
        let (digest, evidence) = (ManifestDigest::new(Sha256::of(b"old")), EvidenceDigest::of(b"old"));
        let meaning = Meaning { digest, evidence, evidence_bytes: 0, at, by: "node-1".into(), cause: Cause::FirstUse, voucher: None };
        let image = format!("r.test/app:{tag}").parse().unwrap();
        Arc::new(Pin::first(Revision { service, id: id.to_string() }, image, meaning, at).unwrap())
    }

    fn refusal(pin: &Pin) -> Refusal {
        Refusal::Trust(countersign_trust::Refusal::of_image(&pin.image, Reason::TagNotSigned))
    }

    #[test]
    fn of_thousands_of_pins_each_tag_is_judged_once_for_each_namespace_and_what_is_released_not_at_all() {
        let released = HashSet::from(["released".to_owned()]);
        let pins: Vec<_> = (0..3000)
            .flat_map(|id| {
                [("shop", "released"), ("shop", "gone"), ("bank", "gone"), ("bank", "refused")].map(|(ns, tag)| pin(ns, id, tag))
            })
            .collect();
        let asked = RefCell::new(Vec::new());
        let judge = |pin: &Pin| {
            asked.borrow_mut().push(format!("{} {}", pin.revision.service.namespace, pin.image));
            pin.image.to_string().ends_with(":gone").then(|| refusal(pin))
        };
        let ended = unsigned(pins.clone(), Some(&released), judge);
        assert_eq!(*asked.borrow(), ["shop r.test/app:gone", "bank r.test/app:gone", "bank r.test/app:refused"]);
        assert_eq!(ended.len(), 6000);
        assert!(ended.iter().all(|(pin, _)| pin.image.to_string() == "r.test/app:gone"));
        asked.borrow_mut().clear();
        unsigned(pins, None, judge);
        assert_eq!(asked.borrow().len(), 4, "what is held is not good now");
    }
}
