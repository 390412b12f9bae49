//! Rounds through what the nodes of a cluster have left behind in the store: evidence that no pin rests on, since a node died between
//! writing it and the pin or was not the first, and confirmations that nobody has renewed for long. One node at a time goes round.

use std::sync::Arc;
use std::time::Duration;

use countersign_trust::name::EvidenceDigest;
use countersign_trust::time::UnixTime;

use super::confirmed::Confirmations;
use super::error::ResolveError;
use super::pieces::Use;
use super::pins::{Pins, Reach};
use super::sharing::{SKEW_SECONDS, Sharing, share_of};
use crate::store::limits::MAX_PAGE_KEYS;
use crate::store::{Entry, Expected, Key, Prefix, Put, Removed, Revision as Moment, Store, StoreError};

/// The key that says when the last round began.
const ROUNDS: &str = "rounds";
/// From the beginning of one round to that of the next. What was written since the last one began stays: whoever writes evidence
/// writes the pin that rests on it within seconds.
const EVERY_SECONDS: i64 = 6 * 60 * 60;
/// How often a node looks whether a round is due: one small question for hundreds of idle ones.
const LOOKS_EVERY: Duration = Duration::from_secs(60 * 60);
/// For how long a round lasts: a store that shows pages without end is left alone, and the next round begins anew with what this
/// one did not come to.
const LASTS: Duration = Duration::from_secs(10 * 60);
/// For how long a confirmation stays that nobody renews: nobody uses its repository then, and most trust data has expired.
const CONFIRMATION_STAYS_SECONDS: i64 = 180 * 24 * 60 * 60;

/// Who goes round, and through what.
#[derive(Debug)]
pub struct Rounds {
    store: Arc<dyn Store>,
    sharing: Arc<Sharing>,
    pins: Arc<Pins>,
    confirmations: Arc<Confirmations>,
}

impl Rounds {
    /// Rounds of a node that follows both.
    #[must_use]
    pub const fn new(store: Arc<dyn Store>, sharing: Arc<Sharing>, pins: Arc<Pins>, confirmations: Arc<Confirmations>) -> Self {
        Self { store, sharing, pins, confirmations }
    }

    /// Goes round when it is due, until the process ends.
    pub async fn run(self) {
        let pause = LOOKS_EVERY.mul_f64(0.5 + share_of(self.sharing.members.node()));
        loop {
            tokio::time::sleep(pause).await;
            self.go().await;
        }
    }

    async fn go(&self) {
        match tokio::time::timeout(LASTS, self.go_if_due()).await {
            Ok(Ok(0)) => {}
            Ok(Ok(removed)) => tracing::info!(removed, "what nothing in the cluster rests on was removed from the store"),
            Ok(Err(error @ ResolveError::Store(StoreError::Foreign { .. }))) => {
                tracing::warn!(%error, "what nothing rests on stays in the store");
            }
            Ok(Err(error)) => tracing::debug!(%error, "what nothing rests on could not be removed from the store; another round does"),
            Err(_) => tracing::warn!(seconds = LASTS.as_secs(), "the store shows no end of what stands in it: the round was given up"),
        }
    }

    /// How many entries were removed: none if no round is due, another node goes, or this one cannot know what is used.
    pub(super) async fn go_if_due(&self) -> Result<usize, ResolveError> {
        if !self.knows_what_is_used() {
            return Ok(0);
        }
        let now = self.sharing.now().map_err(|fault| ResolveError::NotMember { what: fault.to_string() })?;
        let Some(before) = self.take_round(now).await? else { return Ok(0) };
        let ended = self.confirmations.end_older_than(now.plus_seconds(-CONFIRMATION_STAYS_SECONDS)).await?;
        let of_pins = self.remove_unused(Use::Pinned, before).await?;
        Ok(ended + of_pins + self.remove_unused(Use::Confirmed, before).await?)
    }

    fn knows_what_is_used(&self) -> bool {
        let follows = self.pins.reach() == Reach::Followed && self.confirmations.is_followed();
        follows && self.pins.are_all_held() && self.confirmations.are_all_held() && self.pins.is_clock_borne_out()
    }

    /// When the last round began, if this node begins one now.
    async fn take_round(&self, now: UnixTime) -> Result<Option<Moment>, ResolveError> {
        self.sharing.refuse_to_speak()?;
        let key = Key::new([ROUNDS]).map_err(|_| ResolveError::Internal { what: "a key of rounds that is none" })?;
        let last = self.store.read(&key).await?;
        if last.as_ref().is_some_and(|last| !is_due(last, now)) {
            return Ok(None);
        }
        let before = last.map(|last| last.revision);
        let expected = before.map_or(Expected::Absent, Expected::Revision);
        match self.store.put(&key, now.seconds().to_string().into(), expected, None).await? {
            Put::Done(_) => Ok(before),
            Put::Lost(_) => Ok(None),
        }
    }

    async fn remove_unused(&self, used: Use, before: Moment) -> Result<usize, ResolveError> {
        // One segment is never too many.
        let prefix = Prefix::new([used.area()]).unwrap_or_else(|_| Prefix::all());
        let (mut after, mut removed) = (None, 0);
        loop {
            let page = self.store.list_keys(&prefix, after.as_ref(), MAX_PAGE_KEYS).await?;
            for (key, entry) in page.entries.iter().filter(|(_, entry)| entry.revision < before) {
                if self.is_unused(used, key) && self.store.remove(key, entry.revision).await? == Removed::Done {
                    removed += 1;
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(removed);
            }
        }
    }

    /// What is named like no evidence is nobody's to judge.
    fn is_unused(&self, used: Use, key: &Key) -> bool {
        let Some(name) = name_in(key) else { return false };
        match used {
            Use::Pinned => !self.pins.rests_on(name),
            Use::Confirmed => !self.confirmations.rests_on(name),
        }
    }
}

fn name_in(key: &Key) -> Option<EvidenceDigest> {
    let hash = key.as_str().split('/').nth(1)?;
    format!("sha256:{hash}").parse().ok()
}

fn is_due(last: &Entry, now: UnixTime) -> bool {
    let began: Option<i64> = std::str::from_utf8(&last.value).ok().and_then(|text| text.parse().ok());
    began.is_none_or(|began| !(now.seconds().saturating_sub(EVERY_SECONDS)..=now.seconds() + SKEW_SECONDS).contains(&began))
}

#[cfg(test)]
mod tests {
    use countersign_trust::evidence::{Answer, Evidence, FileName, Gun};

    use super::super::pieces::{self, Packed};
    use super::super::pin::tests::{image, meaning, revision};
    use super::super::pin::{Meaning, Pin};
    use super::super::town::Town;
    use super::*;
    use crate::store::{Change, Mirror};

    fn evidence(text: &str) -> Evidence {
        let mut evidence = Evidence::new(Gun::for_repository(image().repository()), "https://r.test".into());
        evidence.add(FileName::Timestamp, Answer::Found(text.as_bytes().into()));
        evidence
    }

    async fn rounds(town: &Town, node: &'static str) -> Rounds {
        let (store, sharing): (Arc<dyn Store>, _) = (town.store.clone(), town.sharing("prod", node));
        let pins = Arc::new(Pins::shared(Arc::clone(&store), Arc::clone(&sharing)));
        let confirmations = Arc::new(Confirmations::new(Arc::clone(&store), Arc::clone(&sharing)));
        let rounds = Rounds::new(store, sharing, pins, confirmations);
        rounds.hears().await;
        rounds
    }

    impl Rounds {
        async fn hears(&self) {
            self.pins.load().await.unwrap();
            Mirror::load(&*self.confirmations).await.unwrap();
            self.pins.apply(Change::Resumed).await;
            self.confirmations.apply(Change::Resumed).await;
        }

        async fn has(&self, used: Use, text: &str) -> bool {
            pieces::read(&*self.store, used, evidence(text).digest()).await.unwrap().is_some()
        }

        async fn leaves(&self, used: Use, text: &str) {
            pieces::put(&*self.store, used, &Packed::of(&evidence(text)).unwrap()).await.unwrap();
        }

        async fn pin(&self, text: &str, now: UnixTime) {
            let meaning = Meaning { evidence: evidence(text).digest(), at: now, ..meaning(text, b"") };
            let pin = Pin::first(revision("web", text), image(), meaning, now).unwrap();
            self.pins.begin(pin, &evidence(text)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_nothing_rests_on_goes_in_the_round_after_the_one_that_could_see_it() {
        let town = Town::of(&["one", "two"]);
        let (one, two) = (rounds(&town, "one").await, rounds(&town, "two").await);
        one.pin("pinned", town.now()).await;
        one.confirmations.confirm(&evidence("confirmed"), town.now(), None).await.unwrap();
        for used in [Use::Pinned, Use::Confirmed] {
            one.leaves(used, "left").await;
        }
        two.hears().await;
        assert_eq!(one.go_if_due().await.unwrap(), 0, "it only says when it began");
        one.leaves(Use::Pinned, "later").await;
        assert_eq!(two.go_if_due().await.unwrap(), 0, "it is not due");
        town.passes(EVERY_SECONDS + 1);
        assert_eq!(two.go_if_due().await.unwrap(), 2);
        assert!(!two.has(Use::Pinned, "left").await && !two.has(Use::Confirmed, "left").await);
        assert!(two.has(Use::Pinned, "pinned").await && two.has(Use::Confirmed, "confirmed").await);
        assert!(two.has(Use::Pinned, "later").await, "its pin may be on its way");
        assert_eq!(one.go_if_due().await.unwrap(), 0, "another node has just gone");
        town.passes(EVERY_SECONDS + 1);
        assert_eq!(one.go_if_due().await.unwrap(), 1);
        assert!(!two.has(Use::Pinned, "later").await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_shows_pages_without_end_keeps_no_node_going_round() {
        let town = Town::of(&["one"]);
        let one = rounds(&town, "one").await;
        one.go().await;
        town.passes(EVERY_SECONDS + 1);
        for text in ["left", "left, too"] {
            one.leaves(Use::Pinned, text).await;
        }
        town.store.shows_no_end();
        let began = tokio::time::Instant::now();
        one.go().await;
        assert_eq!(began.elapsed().as_secs(), LASTS.as_secs());
    }

    #[tokio::test]
    async fn a_node_that_cannot_know_what_is_used_removes_nothing() {
        let town = Town::of(&["one", "two"]);
        let (one, two) = (rounds(&town, "one").await, rounds(&town, "two").await);
        one.leaves(Use::Pinned, "left").await;
        one.go_if_due().await.unwrap();
        town.passes(EVERY_SECONDS + 1);
        one.pins.apply(Change::Interrupted).await;
        assert_eq!(one.go_if_due().await.unwrap(), 0, "it does not hear of pins");
        one.hears().await;
        one.confirmations.apply(Change::Interrupted).await;
        assert_eq!(one.go_if_due().await.unwrap(), 0, "it does not hear of confirmations");
        let stranger = rounds(&town, "stranger").await;
        assert!(matches!(stranger.go_if_due().await, Err(ResolveError::NotMember { .. })));
        assert!(two.has(Use::Pinned, "left").await);
        assert_eq!(two.go_if_due().await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_confirmation_that_nobody_renews_for_long_ends_with_its_evidence() {
        let town = Town::of(&["one"]);
        let one = rounds(&town, "one").await;
        one.confirmations.confirm(&evidence("confirmed"), town.now(), None).await.unwrap();
        one.go_if_due().await.unwrap();
        town.passes(CONFIRMATION_STAYS_SECONDS - 1);
        assert_eq!(one.go_if_due().await.unwrap(), 0);
        town.passes(EVERY_SECONDS + 1);
        assert_eq!(one.go_if_due().await.unwrap(), 1);
        assert!(!one.has(Use::Confirmed, "confirmed").await);
        assert_eq!(one.confirmations.offered(&Gun::for_repository(image().repository())).await, None);
    }

    #[tokio::test]
    async fn nonsense_in_the_place_of_rounds_or_evidence_stops_no_round_and_is_left_alone() {
        let town = Town::of(&["one"]);
        let one = rounds(&town, "one").await;
        one.leaves(Use::Pinned, "left").await;
        let odd = Key::new(["evidence", "no hash", "head"]).unwrap();
        one.store.put(&odd, "x".into(), Expected::Absent, None).await.unwrap();
        let place = Key::new([ROUNDS]).unwrap();
        one.store.put(&place, "soon".into(), Expected::Absent, None).await.unwrap();
        assert_eq!(one.go_if_due().await.unwrap(), 1);
        assert!(one.store.read(&odd).await.unwrap().is_some());
        for (value, is_due_now) in
            [(town.now().seconds() + 10_000, true), (town.now().seconds(), false), (i64::MIN, true), (i64::MAX, true)]
        {
            let entry = Entry { value: value.to_string().into(), revision: Moment::new(1) };
            assert_eq!(is_due(&entry, town.now()), is_due_now, "{value}");
        }
    }
}
