//! House-keeping among pins: what is used, or frozen, lives on, and what nothing uses ends.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use countersign_trust::evidence::Gun;

use super::Admit;
use super::pinned::{Pinning, Taken};
use crate::resolve::{Kind, Pin, Pins, Reach, ResolveError, Revision, share_of};

/// For how long a pin is kept that no pod of this node is of: a revision that comes back, by a rollback of its Deployment or on a
/// node that was drained, finds its pin.
const UNUSED_IS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The same where a revision is one pod or one Job, which never comes back. It is not at once: pods wait for their images.
const UNUSED_ONCE_IS_KEPT: Duration = Duration::from_secs(60 * 60);
/// For how long what was seen unsigned is remembered at least, whatever the configuration says today.
const WITHDRAWN_IS_KEPT: Duration = Duration::from_secs(180 * 24 * 60 * 60);

impl Admit {
    /// Keeps house among the pins, now and then: what is used lives on, and what nothing uses ends. `alive` is every revision that
    /// a pod of this node is of.
    pub async fn keep_pins(self: &Arc<Self>, alive: HashSet<Revision>) {
        let admit = Arc::clone(self);
        let kept = self.at_work(async move { admit.keep_pins_now(&alive).await }).await;
        if let Err(error) = kept {
            tracing::warn!(%error, "the pins of services could not be kept in order");
        }
    }

    async fn keep_pins_now(&self, alive: &HashSet<Revision>) -> Result<(), ResolveError> {
        match self.pinning.taken.get() {
            Some(taken) if taken.pins.is_shared() => self.keep_shared_pins(taken, alive).await,
            Some(taken) => self.end_unused_pins(taken, alive).await,
            None => Ok(()),
        }
    }

    /// Where nodes share them, pins that no node renews end by themselves.
    async fn keep_shared_pins(&self, taken: &Taken, alive: &HashSet<Revision>) -> Result<(), ResolveError> {
        let can_forget = taken.pins.is_clock_borne_out();
        if let (true, Ok(now)) = (can_forget, self.now()) {
            let kept_for = self.policy().superseded_max_age.max(WITHDRAWN_IS_KEPT);
            let seconds = i64::try_from(kept_for.as_secs()).unwrap_or(i64::MAX);
            taken.pins.forget_old(now, now.plus_seconds(-seconds)).await?;
        }
        for pin in taken.pins.unkept(|revision| alive.contains(revision)) {
            // One that cannot be kept keeps no other from it, nor from being renewed.
            if let Err(error) = self.keep_pin(&taken.pins, &pin).await {
                tracing::warn!(image = %pin.image, service = %pin.revision.service, %error, "this node's own copy of a pin could not be made");
            }
        }
        if taken.pins.reach() == Reach::Away {
            return Ok(());
        }
        let renewed = taken.pins.renew(|revision| alive.contains(revision), share_of(&taken.node)).await;
        if can_forget {
            return taken.pins.remove_ended().await.and(renewed);
        }
        tracing::warn!("this node's clock is far from what others say: it takes no pins away that have ended by it");
        renewed
    }

    /// Keeps a copy of a pin that is used here, and what it has seen of it also where the evidence is hidden from it.
    pub(super) async fn keep_pin(&self, pins: &Pins, pin: &Pin) -> Result<(), ResolveError> {
        pins.raise_floor(pin).await?;
        if let Some(evidence) = pins.evidence(&pin.meaning).await? {
            return pins.keep(pin, &evidence).await;
        }
        let held = self.memory().ok().and_then(|memory| memory.held(&Gun::for_repository(pin.image.repository())));
        let Some(held) = held.filter(|held| held.evidence.digest() == pin.meaning.evidence) else { return Ok(()) };
        pins.restore(&held.evidence).await?;
        pins.keep(pin, &held.evidence).await
    }

    /// Ends pins of revisions that no pod has been of for long.
    async fn end_unused_pins(&self, taken: &Taken, alive: &HashSet<Revision>) -> Result<(), ResolveError> {
        for pin in self.pinning.long_unused(&taken.pins.all(), alive, Instant::now()) {
            tracing::debug!(image = %pin.image, service = %pin.revision.service, revision = pin.revision.id, "a pin that nothing uses has ended");
            if taken.pins.end(&pin).await? {
                taken.pins.forget_evidence_of(&pin).await?;
            }
        }
        Ok(())
    }
}

impl Pinning {
    /// The pins that have been unused for longer than they are kept.
    fn long_unused(&self, all: &[Arc<Pin>], alive: &HashSet<Revision>, now: Instant) -> Vec<Arc<Pin>> {
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        let has_pins: HashSet<&Revision> = all.iter().map(|pin| &pin.revision).collect();
        unused.retain(|revision, _| has_pins.contains(revision) && !alive.contains(revision));
        let is_over = |pin: &&Arc<Pin>| -> bool {
            if alive.contains(&pin.revision) || pin.frozen.is_some() {
                return false;
            }
            let since = *unused.entry(pin.revision.clone()).or_insert(now);
            now.duration_since(since) > kept_for(pin.revision.service.kind)
        };
        all.iter().filter(is_over).cloned().collect()
    }
}

const fn kept_for(kind: Kind) -> Duration {
    match kind {
        Kind::Job | Kind::CronJob | Kind::Pod => UNUSED_ONCE_IS_KEPT,
        Kind::Named | Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::Static => UNUSED_IS_KEPT,
    }
}

#[cfg(test)]
mod tests {
    use countersign_trust::name::{EvidenceDigest, ManifestDigest, Sha256};
    use countersign_trust::time::UnixTime;

    use super::*;
    use crate::resolve::{Cause, Freeze, Meaning, Service};

    fn pin(kind: Kind, id: &str) -> Arc<Pin> {
        let service = Service { namespace: "shop".into(), kind, name: "web".into() };
        let meaning = Meaning {
            digest: ManifestDigest::new(Sha256::of(b"old")),
            evidence: EvidenceDigest::of(b"old"),
            evidence_bytes: 0,
            at: UnixTime::from_seconds(1_800_000_000),
            by: "node-1".into(),
            cause: Cause::FirstUse,
            voucher: None,
        };
        let now = meaning.at;
        Arc::new(Pin::first(Revision { service, id: id.into() }, "r.test/app:1".parse().unwrap(), meaning, now).unwrap())
    }

    #[test]
    fn a_pin_ends_when_nothing_has_used_it_for_long_and_sooner_if_its_pod_cannot_come_back() {
        let pinning = Pinning::default();
        let all = [pin(Kind::Deployment, "5d4f"), pin(Kind::Deployment, "7c9f"), pin(Kind::Pod, "u-1"), pin(Kind::CronJob, "j-1")];
        let alive: HashSet<Revision> = [all[1].revision.clone()].into();
        let begin = Instant::now();
        let ended = |alive: &HashSet<Revision>, after: Duration| {
            let ended = pinning.long_unused(&all, alive, begin + after);
            ended.iter().map(|pin| pin.revision.id.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ended(&alive, Duration::ZERO), "");
        assert_eq!(ended(&alive, UNUSED_ONCE_IS_KEPT), "");
        assert_eq!(ended(&alive, UNUSED_ONCE_IS_KEPT * 2), "u-1 j-1");
        assert_eq!(ended(&HashSet::from([all[2].revision.clone()]), UNUSED_ONCE_IS_KEPT * 3), "j-1", "a pod that is there again");
        assert_eq!(ended(&alive, UNUSED_ONCE_IS_KEPT * 4), "j-1", "and its time begins anew");
        assert_eq!(ended(&alive, UNUSED_IS_KEPT * 2), "5d4f u-1 j-1");
    }

    #[test]
    fn a_frozen_pin_waits_for_its_revision_to_come_back() {
        let pinning = Pinning::default();
        let pin = pin(Kind::Deployment, "5d4f");
        let freeze = Freeze { at: pin.meaning.at, by: "root".into() };
        let frozen = [Arc::new(pin.frozen_as(Some(freeze), pin.meaning.at))];
        let begin = Instant::now();
        for after in [Duration::ZERO, UNUSED_IS_KEPT * 2] {
            assert_eq!(pinning.long_unused(&frozen, &HashSet::new(), begin + after), []);
        }
        let released = [Arc::new(frozen[0].frozen_as(None, pin.meaning.at))];
        assert_eq!(pinning.long_unused(&released, &HashSet::new(), begin + UNUSED_IS_KEPT * 2), [], "its time begins then");
        assert_eq!(pinning.long_unused(&released, &HashSet::new(), begin + UNUSED_IS_KEPT * 4), released);
    }
}
