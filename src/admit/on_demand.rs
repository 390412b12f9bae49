//! Images that are on the node though no pull of them came through the gate: preloaded, imported, pulled before it was there.
//! Their trust data is fetched when a container is made of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_trust::Question;
use countersign_trust::evidence::Gun;
use tokio::time::Instant;

use super::refusal::{Refusal, Standing};
use super::{Admission, Admit};

/// For how long a refusal answers for those who ask again. kubelet tries a container every 11 to 15 s, for ever.
const REFUSAL_LASTS: Duration = Duration::from_secs(60);
/// Refusals that are remembered. Whoever may create pods can name any repository that a pin covers.
const MAX_REFUSALS: usize = 1024;

/// Repositories whose trust data was asked for in vain, with when and why.
#[derive(Debug, Default)]
pub(super) struct InVain(Mutex<HashMap<Gun, (Instant, Refusal)>>);

impl InVain {
    fn refusal(&self, gun: &Gun) -> Option<Refusal> {
        let refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.get(gun).filter(|(at, _)| at.elapsed() < REFUSAL_LASTS).map(|(_, refusal)| refusal.clone())
    }

    fn keep(&self, gun: Gun, refusal: Refusal) {
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.len() >= MAX_REFUSALS {
            refusals.retain(|_, (at, _)| at.elapsed() < REFUSAL_LASTS);
        }
        if refusals.len() < MAX_REFUSALS {
            refusals.insert(gun, (Instant::now(), refusal));
        }
    }

    /// Another policy is in force.
    pub(super) fn forget_all(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Trust data has come.
    pub(super) fn forget(&self, gun: &Gun) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(gun);
    }
}

impl Admit {
    /// Judges by what is held; if nothing is held of the repository, its trust server is asked first, with this node's own
    /// credential, in the way of a pull.
    ///
    /// # Errors
    /// A [`Refusal`], which answers for a while for all who ask for the repository.
    pub(super) async fn judged_on_demand(self: &Arc<Self>, question: Question<'_>) -> Result<Admission, Refusal> {
        let judged = self.judge(question);
        let Err(Refusal::NotHeld { .. }) = judged else { return judged };
        let gun = Gun::for_repository(question.image.repository());
        if let Some(refusal) = self.in_vain.refusal(&gun) {
            return Err(refusal);
        }
        let namespace = question.namespace.unwrap_or_default();
        if let Some(refusal) = self.refuse_over_allowance(question, namespace, true) {
            return Err(refusal);
        }
        let began = Instant::now();
        match self.refresh_by_node(question.image).await {
            Ok((origin, _)) => {
                self.allowance.brought(namespace);
                self.judge(question).map(|admission| Admission { origin, ..admission })
            }
            Err(refusal) => {
                if refusal.standing() == Standing::CannotTellNow {
                    self.allowance.waited(namespace, began);
                }
                self.in_vain.keep(gun, refusal.clone());
                Err(refusal)
            }
        }
    }
}
