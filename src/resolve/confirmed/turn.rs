//! Whose turn it is to ask the trust server of a repository, so that a thousand nodes ask it once.

use std::time::Duration;

use countersign_trust::evidence::Gun;
use countersign_trust::time::UnixTime;
use tokio::time::Instant;

use super::{Confirmation, Confirmations, TRIES, key};
use crate::resolve::error::ResolveError;
use crate::resolve::sharing::{SKEW_SECONDS, share_of};
use crate::store::{Entry, Expected, Key, Put, Removed, Revision as Moment, StoreError};

/// The first segment of the keys.
pub(super) const TURNS: &str = "turns";
/// For how long others wait for the node whose turn it is to ask a server: most answers take a tenth of it, and a node that died
/// meanwhile holds up nobody for longer.
pub(super) const TURN_SECONDS: i64 = 5;
/// For how long a node waits for turns of others, one after the other, before it asks for itself: long enough for a server that
/// takes longer than a turn, and for a store that a thousand nodes ask at once.
const WAITS: Duration = Duration::from_secs(20);
/// When a turn has ended, the others look for the next one spread over this time: the first one takes it, and the others see that.
const SPREAD: Duration = Duration::from_millis(100);
/// How soon it is looked again where nothing was heard: a node whose server does not answer gives its turn back without a word.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Who asks the server of a repository.
#[derive(Debug)]
pub enum Turn {
    /// This node: the others wait for a moment. To be given back with [`Confirmations::end_turn`].
    Mine(Key, Moment),
    /// Another node has asked meanwhile.
    Confirmed(Confirmation),
    /// This node, without a word to others: the store cannot be asked, or nobody was heard of in time.
    Alone,
}

/// What a confirmation must be that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// From this moment or later.
    Since(UnixTime),
    /// Of a node that began to ask after this one did: whatever was signed before this one asked is in it.
    Fresh,
}

/// Whose turn it is.
enum Taken {
    Mine(Key, Moment),
    /// Another's, which began with this write.
    Theirs(Moment),
}

impl Confirmations {
    /// Whose turn it is to ask the server of a repository. Waits for nodes whose turn it is, for a bounded time: the one that was
    /// asking already, and, where its answer may be too old, one after it.
    pub async fn turn(&self, gun: &Gun, needs: Needs) -> Turn {
        match tokio::time::timeout(WAITS, self.wait_for_turn(gun, needs)).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(error)) => {
                tracing::debug!(repository = %gun, %error, "no turn to ask its server could be had");
                Turn::Alone
            }
            Err(_) => Turn::Alone,
        }
    }

    async fn wait_for_turn(&self, gun: &Gun, needs: Needs) -> Result<Turn, ResolveError> {
        let place = key(TURNS, gun).ok_or(ResolveError::Internal { what: "a key of a turn that is none" })?;
        let mut changes = self.changes.subscribe();
        let mut taken = self.take_turn(&place).await?;
        let mut begun_before = None;
        loop {
            let theirs = match taken {
                Taken::Mine(key, moment) => return self.begin_turn(gun, needs, key, moment).await,
                Taken::Theirs(moment) => moment,
            };
            // A node that was asking already when this one began to wait may have been told what is not so any more.
            let begun = *begun_before.get_or_insert(theirs);
            let serves = |confirmed: &Confirmation| match needs {
                Needs::Since(moment) => confirmed.at >= moment,
                Needs::Fresh => confirmed.turn > Some(begun) && self.is_of_now(confirmed),
            };
            let is_over = || self.of(gun).is_some_and(|confirmed| serves(&confirmed) || confirmed.turn >= Some(theirs));
            // It may have been given back with nothing to tell, while others have much to say of other repositories.
            let look_again = Instant::now() + LOOK_AGAIN;
            while !is_over() && Instant::now() < look_again {
                drop(tokio::time::timeout_at(look_again, changes.changed()).await);
            }
            if let Some(confirmed) = self.of(gun).filter(serves) {
                return Ok(Turn::Confirmed(confirmed));
            }
            tokio::time::sleep(SPREAD.mul_f64(share_of(self.sharing.members.node()))).await;
            // To look costs the store less than to try to write.
            let under_way = self.turn_under_way(&place).await?;
            if under_way.is_none() {
                self.look(gun).await?;
            }
            if let Some(confirmed) = self.of(gun).filter(serves) {
                return Ok(Turn::Confirmed(confirmed));
            }
            taken = match under_way {
                Some(moment) => {
                    if moment == theirs {
                        // What was found out in it is told, and it is given back next.
                        tokio::time::sleep(SPREAD).await;
                    }
                    Taken::Theirs(moment)
                }
                None => self.take_turn(&place).await?,
            };
        }
    }

    /// The turn of this node. The one before it may have ended so lately that what was told in it is not heard of yet.
    async fn begin_turn(&self, gun: &Gun, needs: Needs, key: Key, moment: Moment) -> Result<Turn, ResolveError> {
        let Needs::Since(since) = needs else { return Ok(Turn::Mine(key, moment)) };
        let looked = self.look(gun).await.map(|()| self.of(gun).filter(|confirmed| confirmed.at >= since));
        let turn = match looked {
            Ok(None) => return Ok(Turn::Mine(key, moment)),
            Ok(Some(confirmed)) => Ok(Turn::Confirmed(confirmed)),
            Err(error) => Err(error),
        };
        self.end_turn(&key, moment).await;
        turn
    }

    async fn turn_under_way(&self, place: &Key) -> Result<Option<Moment>, ResolveError> {
        let now = self.now()?;
        match self.store.read(place).await {
            Ok(entry) => Ok(entry.filter(|entry| is_under_way(entry, now)).map(|entry| entry.revision)),
            Err(StoreError::Foreign { .. } | StoreError::TooLarge { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn now(&self) -> Result<UnixTime, ResolveError> {
        self.sharing.now().map_err(|fault| ResolveError::NotMember { what: fault.to_string() })
    }

    /// Whether it was said in this turn: whoever holds the store could show what was said in an earlier one of the same number.
    fn is_of_now(&self, confirmed: &Confirmation) -> bool {
        self.sharing.now().is_ok_and(|now| confirmed.at.plus_seconds(TURN_SECONDS + SKEW_SECONDS) >= now)
    }

    async fn take_turn(&self, place: &Key) -> Result<Taken, ResolveError> {
        let now = self.now()?;
        self.sharing.refuse_to_speak()?;
        let turn: Vec<u8> = now.seconds().to_string().into_bytes();
        let mut expected = Expected::Absent;
        for _ in 0..TRIES {
            match self.store.put(place, turn.clone().into(), expected, None).await? {
                Put::Done(moment) => return Ok(Taken::Mine(place.clone(), moment)),
                Put::Lost(Some(entry)) if is_under_way(&entry, now) => return Ok(Taken::Theirs(entry.revision)),
                Put::Lost(Some(entry)) => expected = Expected::Revision(entry.revision),
                Put::Lost(None) => expected = Expected::Absent,
            }
        }
        Err(ResolveError::Contended { key: place.to_string() })
    }

    /// Gives a turn back: what was found out stands in the store, or nothing was.
    pub async fn end_turn(&self, key: &Key, moment: Moment) {
        let ended: Result<Removed, StoreError> = self.store.remove(key, moment).await;
        if let Err(error) = ended {
            tracing::debug!(%key, %error, "a turn could not be given back; it ends by itself");
        }
    }
}

/// Whether the node whose turn it is may still be asking. What does not read as a moment, or is of a clock far ahead, holds up
/// nobody.
fn is_under_way(entry: &Entry, now: UnixTime) -> bool {
    let begun: Option<i64> = std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse().ok());
    begun.is_some_and(|begun| begun.abs_diff(now.seconds()) <= TURN_SECONDS.unsigned_abs())
}
