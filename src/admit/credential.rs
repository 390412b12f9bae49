//! Which credential a trust server is asked with.

use std::sync::Arc;
use std::time::Duration;

use countersign_trust::name::Repository;

use super::refusal::Refusal;
use super::{Admit, UPDATE_DEADLINE};
use crate::fetch::{Credential, HELPER_DEADLINE};

/// The most that a verdict on a pull takes when nobody else asks: a question to a credential helper, then an update.
pub const ANSWER_DEADLINE: Duration = UPDATE_DEADLINE.saturating_add(HELPER_DEADLINE);

impl Admit {
    /// The pull's own credential if it brought one, whatever that is good for; else this node's. What this gives is for the
    /// trust server and its token server, and never part of a call that is forwarded.
    pub(super) async fn credential_for(&self, repository: &Repository, own: Option<Credential>) -> Result<Option<Credential>, Refusal> {
        match own {
            Some(own) => Ok(Some(own)),
            None => self.node_credential(repository).await,
        }
    }

    /// This node's own credential for a repository, for work that no pull asked for. `None` if it has none.
    ///
    /// Dropping the returned future abandons the wait; a helper ends within its deadline.
    ///
    /// # Errors
    /// [`Refusal::Credentials`]: asking without it instead would end in a refusal that names the wrong cause.
    pub async fn node_credential(&self, repository: &Repository) -> Result<Option<Credential>, Refusal> {
        let Some(node) = self.policy().node_credentials.clone() else { return Ok(None) };
        let wanted = repository.clone();
        let asked = self.work.spawn(async move { node.of(&wanted).await }).await;
        let asked = asked.map_err(|_| Refusal::Internal { what: "reading this node's credentials panicked" })?;
        asked.map_err(|error| Refusal::Credentials { host: repository.host().clone(), error: Arc::new(error) })
    }
}
