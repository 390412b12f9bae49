//! Images that are on the node though no pull of them came through the gate: preloaded, imported, pulled before it was there.
//! Their trust data is fetched when a container is made of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_trust::Question;
use countersign_trust::evidence::Gun;
use countersign_trust::name::ImageId;
use tokio::time::Instant;

use super::cluster::Asks;
use super::refusal::Refusal;
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
    /// Fetches the trust data of an image that is on the node and of whose repository nothing is held, in the way of a pull with
    /// this node's own credential. How that ended is remembered for a while, for all who ask for the repository.
    ///
    /// It takes as long as an update: hold no lock meanwhile.
    ///
    /// # Errors
    /// Why nobody is asked for this namespace.
    pub async fn bring(self: &Arc<Self>, question: Question<'_>, image_id: Option<ImageId>) -> Result<(), Refusal> {
        let gun = Gun::for_repository(question.image.repository());
        // Mostly it is held, and is judged once it was asked what is on the node. Without a ledger that says why nothing is.
        if self.memory().map_or(true, |memory| memory.holds(&gun)) {
            return Ok(());
        }
        if !matches!(self.judge(question), Err(Refusal::NotHeld { .. })) || self.in_vain.refusal(&gun).is_some() {
            return Ok(());
        }
        if let Some(image_id) = image_id
            && self.listed_content(question, image_id).await?.is_some()
        {
            return Ok(());
        }
        let refreshed = self.on_account(question, true, self.refresh_by_node(question.image, Asks::OneForAll)).await?;
        if let Err(refusal) = refreshed {
            self.in_vain.keep(gun, refusal);
        }
        Ok(())
    }

    /// Judges by what is held. If nothing is, and it was asked for in vain, that is why.
    pub(super) fn judge_brought(&self, question: Question<'_>) -> Result<Admission, Refusal> {
        let judged = self.judge(question);
        let Err(Refusal::NotHeld { .. }) = judged else { return judged };
        match self.in_vain.refusal(&Gun::for_repository(question.image.repository())) {
            Some(refusal) => Err(refusal.about(question.image)),
            None => judged,
        }
    }
}
