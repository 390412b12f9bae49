//! What an operator can make this node forget: the way out when a repository was created anew, a version was pushed absurdly
//! high, or the clock once ran ahead. Never what the policy demands.

use std::sync::Arc;

use countersign_trust::Facts;
use countersign_trust::evidence::Gun;
use countersign_trust::name::Repository;
use countersign_trust::role::RoleName;

use super::memory::Contact;
use super::{Admit, Refusal, blocking};
use crate::ledger::{Act, Effect, Held};

/// What is to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reset {
    /// Everything about a repository: its root, its floors, its evidence. The next contact is a first one, and the pin decides.
    Repository(Repository),
    /// The version floor of one role, and that the role was ever listed.
    Role(Repository, RoleName),
    /// When trust data was last found good.
    Clock,
}

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Repository(repository) => write!(f, "everything about {repository}"),
            Self::Role(repository, role) => write!(f, "the floor of {role} of {repository}"),
            Self::Clock => f.write_str("the latest moment at which trust data was found good"),
        }
    }
}

impl Admit {
    /// Forgets what an operator says, and keeps on record who said so, when and why.
    ///
    /// # Errors
    /// [`Refusal::NotHeld`] if there is nothing to forget; [`Refusal::Ledger`].
    pub async fn reset(&self, reset: &Reset, by: String, reason: String) -> Result<(), Refusal> {
        let now = self.clock.now()?;
        let act = Act { at: u64::try_from(now.seconds()).unwrap_or_default(), by, what: reset.to_string(), reason };
        tracing::warn!(by = act.by, what = act.what, reason = act.reason, "an operator resets what this node knows");
        match reset {
            Reset::Repository(repository) => self.reset_repository(repository, None, act).await,
            Reset::Role(repository, role) => self.reset_repository(repository, Some(role), act).await,
            Reset::Clock => {
                let moment = act.at;
                self.store_act(act, Effect::ClockNotAfter(moment)).await?;
                self.memory()?.not_checked_after(moment);
                self.latest.set_back_to(now);
                Ok(())
            }
        }
    }

    /// In turn with the refreshes of the repository, which would write back what they had read before.
    async fn reset_repository(&self, repository: &Repository, role: Option<&RoleName>, act: Act) -> Result<(), Refusal> {
        let gun = Gun::for_repository(repository);
        let _turn = self.refreshes.lock(gun.clone()).await;
        let held = self.memory()?.held(&gun).ok_or_else(|| Refusal::NotHeld { image: repository.to_string() })?;
        let Some(role) = role else {
            self.store_act(act, Effect::Forget(gun.clone())).await?;
            self.memory()?.forget(&gun);
            return Ok(());
        };
        let mut known = held.known.clone();
        let had_floor = known.floors.remove(role.as_str()).is_some();
        let was_published = known.published.remove(role.as_str());
        if !had_floor && !was_published {
            return Err(Refusal::NotHeld { image: format!("{repository} ({role})") });
        }
        let next = Arc::new(Held { known, ..(*held).clone() });
        self.store_act(act, Effect::Replace(Arc::clone(&next))).await?;
        self.memory()?.hold(next, Facts::default(), Contact::None);
        Ok(())
    }

    async fn store_act(&self, act: Act, effect: Effect) -> Result<(), Refusal> {
        let ledger = self.ledger()?.0.clone();
        let makes_room = matches!(effect, Effect::Forget(_));
        blocking(move || ledger.store_act(&act, &effect)).await??;
        if makes_room {
            self.no_room.forget_all();
        }
        Ok(())
    }

    /// Everything that operators have reset, oldest first.
    ///
    /// # Errors
    /// [`Refusal::Ledger`].
    pub async fn acts(&self) -> Result<Vec<Act>, Refusal> {
        let ledger = self.ledger()?.0.clone();
        Ok(blocking(move || ledger.acts()).await??)
    }
}
