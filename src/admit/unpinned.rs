//! What ends a pin: its tag is signed no more.

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign_trust::evidence::Gun;
use countersign_trust::name::Repository;
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
        let Some(pins) = self.pins() else { return };
        tracing::info!(image = %pin.image, service = %pin.revision.service, pinned = %pin.meaning.digest, reason = %why, "a pin has ended: its tag is not signed any more");
        let outcome = self.withdraw(pins, pin).await;
        if let Err(error) = outcome {
            tracing::warn!(image = %pin.image, service = %pin.revision.service, %error, "an ended pin could not be removed");
        }
    }

    async fn withdraw(&self, pins: &Pins, pin: &Pin) -> Result<(), ResolveError> {
        // First: whoever holds the store could bring the pin back.
        if let Ok(now) = self.now() {
            pins.withdraw(&pin.image, now).await?;
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
        let Some(pins) = self.pins() else { return };
        let of_repository = pins.all().into_iter().filter(|pin| Gun::for_repository(pin.image.repository()) == *gun);
        for pin in of_repository {
            if let Some(refusal) = self.is_unsigned_since(&pin) {
                self.end_pin(&pin, &refusal).await;
            }
        }
    }

    /// That the tag of a pin is signed no more, and was found so after the pin was made. What this node holds may be from before
    /// the tag was signed at all, while another node has pinned it since: that says nothing.
    pub(super) fn is_unsigned_since(&self, pin: &Pin) -> Option<Refusal> {
        let held = self.memory().ok()?.held(&Gun::for_repository(pin.image.repository()))?;
        let checked_at = UnixTime::from_seconds(i64::try_from(held.checked_at).ok()?);
        let question = Question { image: &pin.image, namespace: Some(&pin.revision.service.namespace) };
        let refusal = self.judge(question).err().filter(says_unsigned)?;
        (checked_at >= pin.meaning.at).then_some(refusal)
    }
}

/// Whether this says that the tag is not signed, whatever it was signed as before.
fn says_unsigned(refusal: &Refusal) -> bool {
    let Refusal::Trust(refusal) = refusal else { return false };
    matches!(refusal.reason(), Reason::TagNotSigned | Reason::TargetUnusable | Reason::ReleasesRequired)
}
