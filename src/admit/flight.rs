//! One refresh for all who ask for the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_trust::Question;
use countersign_trust::evidence::Gun;
use countersign_trust::name::{ImageReference, Sha256};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use super::cluster::Asks;
use super::refresh::Refresh;
use super::{Admit, Origin, Refusal};
use crate::fetch::Credential;

/// What one refresh is shared by: nobody gets an answer that another credential, namespace or policy earned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FlightKey {
    gun: Gun,
    namespace: String,
    credential: Option<Sha256>,
    policy: Sha256,
    asks: Asks,
}

pub(super) type Flight = Shared<BoxFuture<'static, Result<Origin, Refusal>>>;

/// The refreshes that are under way.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<FlightKey, Flight>>);

impl std::fmt::Debug for Flights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flights")
    }
}

impl Admit {
    /// Brings a repository up to date for nobody in particular, with this node's own credential.
    pub(super) async fn refresh_by_node(
        self: &Arc<Self>,
        image: &ImageReference,
        asks: Asks,
    ) -> Result<(Origin, Option<Credential>), Refusal> {
        self.policy().consult_for_repository(image, self.now()?)?;
        let credential = self.node_credential(image.repository()).await?;
        let origin = self.join(Question::without_namespace(image), credential.clone(), asks).await?;
        Ok((origin, credential))
    }

    /// Joins the refresh that is under way for the same repository, namespace, credential and policy, or starts one.
    pub(super) fn join(self: &Arc<Self>, question: Question<'_>, credential: Option<Credential>, asks: Asks) -> Flight {
        let image = question.image;
        // Where nobody else could be heard, all ask alike, and share one refresh.
        let asks = if self.cluster.is_heard() { asks } else { Asks::Server };
        let key = FlightKey {
            gun: Gun::for_repository(image.repository()),
            namespace: question.namespace.unwrap_or_default().to_owned(),
            credential: credential.as_ref().map(Credential::fingerprint),
            policy: self.policy().digest,
            asks,
        };
        let mut flights = self.flights.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || {
            let (admit, image, key) = (Arc::clone(self), image.clone(), key.clone());
            let task = self.work.spawn(async move {
                let outcome = admit.refresh(&image, credential.as_ref(), asks).await;
                admit.flights.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                outcome
            });
            task.map(|joined| joined.unwrap_or(Err(Refusal::Internal { what: "the refresh panicked" }))).boxed().shared()
        };
        // A flight that has landed without removing itself has panicked; it is no answer for those who come later.
        match flights.get(&key).filter(|flight| flight.peek().is_none()) {
            Some(flight) => flight.clone(),
            None => {
                let flight = start();
                flights.insert(key.clone(), flight.clone());
                flight
            }
        }
    }

    async fn refresh(&self, image: &ImageReference, credential: Option<&Credential>, asks: Asks) -> Result<Origin, Refusal> {
        let _turn = self.refreshes.lock(Gun::for_repository(image.repository())).await;
        let now = self.now()?;
        // Whether a rule of some namespace needs no trust data does not matter to the repository.
        let policy = self.policy();
        let Some(source) = policy.source_of(image) else {
            return Err(Refusal::NotRegistered { host: image.repository().host().clone() });
        };
        Refresh { admit: self, policy: &policy, image, source, now, asks }.run(credential).await
    }
}
