//! What a node does for the pins that it uses, and for those that nobody does.

use std::sync::{Arc, PoisonError};

use countersign_trust::evidence::Evidence;
use countersign_trust::name::{ImageReference, Repository};
use countersign_trust::time::UnixTime;

use super::super::error::ResolveError;
use super::super::pieces::Packed;
use super::super::pin::Pin;
use super::super::service::Revision;
use super::super::sharing::{LIVES_ONCE_SECONDS, LIVES_SECONDS};
use super::{Pins, is_outage, key_of};

impl Pins {
    /// Keeps what this node uses: its copy of the pin, and the floor that no other may go below.
    ///
    /// # Errors
    /// Why this node's own file does not take it.
    pub async fn keep(&self, pin: &Pin, evidence: &Evidence) -> Result<(), ResolveError> {
        let Some(sharing) = &self.sharing else { return Ok(()) };
        sharing.local.keep(&key_of(pin)?, pin, &Packed::of(evidence)?, false).await
    }

    /// From now on no older pin of the same place counts here than one that was used.
    ///
    /// # Errors
    /// Why this node's own file does not take it.
    pub async fn raise_floor(&self, pin: &Pin) -> Result<(), ResolveError> {
        let Some(sharing) = &self.sharing else { return Ok(()) };
        sharing.local.raise_floor(&key_of(pin)?, pin.generation).await
    }

    /// Pins that are used here, and of which this node has no copy as they stand now.
    #[must_use]
    pub fn unkept(&self, is_used: impl Fn(&Revision) -> bool) -> Vec<Arc<Pin>> {
        if !self.is_shared() {
            return Vec::new();
        }
        self.all().into_iter().filter(|pin| is_used(&pin.revision) && !self.is_kept(pin)).collect()
    }

    /// Whether a pin needs no copy: there is one as it stands now, or the store is this node's own.
    #[must_use]
    pub fn is_kept(&self, pin: &Pin) -> bool {
        let Some(sharing) = &self.sharing else { return true };
        Pin::key(&pin.revision, &pin.image).is_some_and(|key| sharing.local.has(&key, pin))
    }

    /// Renews the pins of revisions that pods of this node are of, and those that are frozen, where they end soon. `share` is from 0 to 1, another for each
    /// node.
    ///
    /// # Errors
    /// Why the store does not take it.
    pub async fn renew(&self, is_used: impl Fn(&Revision) -> bool, share: f64) -> Result<(), ResolveError> {
        let Some(sharing) = &self.sharing else { return Ok(()) };
        // A frozen one waits for its revision to come back, also where nothing is of it now.
        let is_wanted = |pin: &Pin| pin.frozen.is_some() || is_used(&pin.revision);
        let mut outcome = Ok(());
        for pin in self.all().into_iter().filter(|pin| is_wanted(pin) && sharing.should_renew(pin, share)) {
            // What somebody has put in the place of one pin keeps no other from being renewed.
            let renewed = self.renew_one(&pin).await;
            if is_outage(&renewed) {
                return renewed;
            }
            outcome = outcome.and(renewed);
        }
        outcome
    }

    async fn renew_one(&self, pin: &Pin) -> Result<(), ResolveError> {
        let renewed = Pin { ends: None, voucher: None, ..pin.clone() };
        match self.evidence(&pin.meaning).await? {
            Some(evidence) => self.succeed(pin, renewed, &evidence).await.map(drop),
            // It means this or nothing, for as long as it is frozen.
            None if pin.frozen.is_some() => self.rewrite(pin, renewed).await.map(drop),
            None => Ok(()),
        }
    }

    /// Removes the pins that are over, and what nothing rests on any more. None of them counts anywhere.
    ///
    /// # Errors
    /// Why the store does not take it.
    pub async fn remove_ended(&self) -> Result<(), ResolveError> {
        let Some(sharing) = &self.sharing else { return Ok(()) };
        // A CronJob leaves a pin each minute: where the clock can hardly be ahead, it does not stay for a week.
        let is_close = self.is_clock_borne_out_within(LIVES_ONCE_SECONDS);
        let ahead = if is_close { LIVES_ONCE_SECONDS } else { LIVES_SECONDS };
        let over = self.standings().into_iter().filter(|own| sharing.is_over(&own.pin, ahead));
        let mut outcome = Ok(());
        for own in over.collect::<Vec<_>>() {
            let ended = self.end_with_evidence(&own.pin).await;
            if is_outage(&ended) {
                return ended;
            }
            outcome = outcome.and(ended);
        }
        for key in sharing.local.kept() {
            if self.standing(&key).is_none() {
                sharing.local.forget(&key).await?;
            }
        }
        outcome
    }

    async fn end_with_evidence(&self, pin: &Pin) -> Result<(), ResolveError> {
        if self.end(pin).await? { self.forget_evidence_of(pin).await } else { Ok(()) }
    }

    /// Whether none was left out for want of room.
    pub(in crate::resolve) fn are_all_held(&self) -> bool {
        self.held.read().unwrap_or_else(PoisonError::into_inner).has_room()
    }

    /// Whether this node's clock can be right, by the word of another: else nothing that others need is taken away by it. Where all
    /// pins are this node's own, there is nobody else.
    #[must_use]
    pub fn is_clock_borne_out(&self) -> bool {
        self.is_clock_borne_out_within(LIVES_SECONDS)
    }

    /// Whether this node's clock can be ahead by no more than so many seconds.
    fn is_clock_borne_out_within(&self, ahead: i64) -> bool {
        let Some(sharing) = &self.sharing else { return true };
        let of_others: Vec<_> = self.standings().into_iter().filter(|own| sharing.is_of_another(&own.pin)).collect();
        if of_others.is_empty() {
            return true;
        }
        // Of nodes that are members no more, or never were, nobody has to be heard; one that knows of no members hears nobody.
        let of_members: Vec<_> = of_others.into_iter().filter(|own| self.is_vouched(own)).collect();
        let is_alone = of_members.is_empty() && sharing.refuse_to_speak().is_ok();
        is_alone || of_members.iter().any(|own| sharing.bears_out_clock(&own.pin, ahead))
    }

    /// No pin of this tag counts on this node that was made until `now`: it was seen unsigned.
    ///
    /// # Errors
    /// Why this node's own file does not take it.
    pub async fn withdraw(&self, image: &ImageReference, now: UnixTime) -> Result<(), ResolveError> {
        let Some(sharing) = &self.sharing else { return Ok(()) };
        sharing.local.withdraw(image, now).await
    }

    /// The same of every tag of a repository.
    ///
    /// # Errors
    /// Why this node's own file does not take it.
    pub async fn withdraw_all(&self, repository: &Repository, now: UnixTime) -> Result<(), ResolveError> {
        let Some(sharing) = &self.sharing else { return Ok(()) };
        sharing.local.withdraw_all(repository, now).await
    }

    /// Forgets what was seen before, where no pin can be held against it any more.
    ///
    /// # Errors
    /// Why this node's own file does not take it.
    pub async fn forget_old(&self, now: UnixTime, oldest: UnixTime) -> Result<(), ResolveError> {
        let Some(sharing) = &self.sharing else { return Ok(()) };
        sharing.local.forget_old(now, oldest).await
    }
}
