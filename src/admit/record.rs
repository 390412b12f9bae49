//! What this node comes to know is put on record, on disk first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_trust::Facts;
use countersign_trust::evidence::Gun;
use countersign_trust::name::Repository;

use super::memory::Contact;
use super::{Admit, Refusal, blocking};
use crate::crash::Step;
use crate::ledger::{Held, LedgerError, VerifiedImage};

/// Repositories that are kept in mind for which there was no room. More say no more to an operator.
const MOST_WITHOUT_ROOM: usize = 64;

/// The repositories whose newest trust data the ledger had no room for.
#[derive(Debug, Default)]
pub(super) struct NoRoom(Mutex<BTreeMap<Gun, Arc<LedgerError>>>);

impl NoRoom {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<Gun, Arc<LedgerError>>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes how the ledger took what is newest of a repository.
    fn note(&self, gun: &Gun, taken: Result<(), &Arc<LedgerError>>) {
        self.with(|without| match taken {
            Err(error) if matches!(**error, LedgerError::Full { .. }) => {
                if without.len() < MOST_WITHOUT_ROOM {
                    without.insert(gun.clone(), Arc::clone(error));
                }
            }
            Ok(()) => drop(without.remove(gun)),
            Err(_) => {}
        });
    }

    /// An operator has made room: whoever finds none still will say so.
    pub(super) fn forget_all(&self) {
        self.with(BTreeMap::clear);
    }
}

impl Admit {
    /// Records, on disk first, that an image was verified and what it is on this node. An image that is on record costs
    /// no write.
    ///
    /// # Errors
    /// [`Refusal::Ledger`].
    pub async fn record_image(&self, image: VerifiedImage) -> Result<(), Refusal> {
        let (ledger, memory) = self.ledger()?;
        let (ledger, record) = (ledger.clone(), image.clone());
        blocking(move || ledger.store_image(&record)).await??;
        memory.remember_image(&image);
        Ok(())
    }

    /// Holds what the repository's server, or the operator, has given.
    pub(super) async fn hold(&self, held: Held, facts: Facts, contact: Contact) -> Result<Arc<Held>, Refusal> {
        let (before, held) = (self.memory()?.held(held.evidence.gun()), Arc::new(held));
        Step::RefreshFetched.reached();
        self.put_on_record(&held).await?;
        Step::RefreshRecorded.reached();
        self.memory()?.hold(Arc::clone(&held), facts, contact);
        self.follow_up(before, &held).await;
        Ok(held)
    }

    /// As [`Admit::hold`], of what another node had from the server.
    pub(super) async fn hold_of_cluster(&self, held: Held, facts: Facts) -> Result<(), Refusal> {
        let (before, held) = (self.memory()?.held(held.evidence.gun()), Arc::new(held));
        self.put_on_record(&held).await?;
        self.memory()?.hold_of_cluster(Arc::clone(&held), facts);
        self.follow_up(before, &held).await;
        Ok(())
    }

    async fn put_on_record(&self, held: &Arc<Held>) -> Result<(), Refusal> {
        let gun = held.evidence.gun();
        let (ledger, record, shares) = (self.ledger()?.0.clone(), Arc::clone(held), self.shares_pin_with(gun));
        let taken = blocking(move || ledger.store_repository(&record, &shares)).await?.map_err(Arc::new);
        self.no_room.note(gun, taken.as_ref().copied());
        taken.map_err(|error| Refusal::Ledger { error })
    }

    async fn follow_up(&self, before: Option<Arc<Held>>, held: &Arc<Held>) {
        self.in_vain.forget(held.evidence.gun());
        self.mark_withdrawn_tags(before, held).await;
        self.end_unsigned_pins(held.evidence.gun()).await;
    }

    /// Tells which repositories are pinned to the same keys as `gun`: whoever holds them signs for all of these.
    fn shares_pin_with(&self, gun: &Gun) -> impl Fn(&str) -> bool + Send + 'static {
        let policy = self.policy();
        let pin_of = move |gun: &Gun| policy.trust.pins.pin_for(gun).map(|pin| pin.anchor);
        let own = pin_of(gun);
        move |other: &str| other.parse::<Repository>().is_ok_and(|other| pin_of(&Gun::for_repository(&other)) == own)
    }

    /// How many repositories the ledger had no room for when they were last asked about, and what it said of one of them.
    #[must_use]
    pub fn without_room(&self) -> Option<(usize, String)> {
        self.no_room.with(|without| without.first_key_value().map(|(_, error)| (without.len(), error.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_has_no_room_until_it_is_taken_or_an_operator_makes_some() {
        let full = Arc::new(LedgerError::Full { what: "the number of repositories", size: 2, limit: 1, largest: None });
        let other = Arc::new(LedgerError::Appeared { path: "/ledger".into() });
        let gun = |number: usize| Gun::for_repository(&format!("r.test/app-{number}").parse().unwrap());
        let no_room = NoRoom::default();
        let without = || no_room.with(|without| without.keys().cloned().collect::<Vec<_>>());
        no_room.note(&gun(0), Err(&other));
        assert_eq!(without(), [], "the ledger cannot be used, which is another matter");
        no_room.note(&gun(0), Err(&full));
        no_room.note(&gun(1), Err(&full));
        no_room.note(&gun(0), Ok(()));
        assert_eq!(without(), [gun(1)]);
        (0..2 * MOST_WITHOUT_ROOM).for_each(|number| no_room.note(&gun(number), Err(&full)));
        assert_eq!(without().len(), MOST_WITHOUT_ROOM);
        no_room.forget_all();
        assert_eq!(without(), []);
    }
}
