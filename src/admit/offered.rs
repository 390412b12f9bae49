//! What a server offers of a repository, to be looked at. Nothing of it is trusted, and nothing is kept.

use std::sync::Arc;

use countersign_trust::evidence::{Answer, Body, Gun};
use countersign_trust::name::{RegistryHost, Repository};
use countersign_trust::offered::OfferedRoot;
use countersign_trust::time::UnixTime;
use countersign_trust::{Policy, Reason};

use super::refresh::{Failure, UPDATE_DEADLINE};
use super::refusal::{Standing, chain};
use crate::fetch::{Conversation, FetchError, NodeCredentialError, NodeCredentials, NotaryClient, TrustServer};

/// Why a server's root cannot be shown.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OfferFault {
    /// The trust server gave no usable answer.
    #[error("error contacting trust server: {}", chain(&**error))]
    Server {
        /// What happened.
        error: Box<FetchError>,
    },
    /// The trust server took too long.
    #[error("error contacting trust server: {server} did not deliver the root within {seconds} s; see whether it is overloaded")]
    TimedOut {
        /// The trust server.
        server: String,
        /// The deadline.
        seconds: u64,
    },
    /// This node's own credential could not be had.
    #[error("this node's credential for {host} could not be had: {error}")]
    Credentials {
        /// The registry.
        host: RegistryHost,
        /// What happened.
        error: Box<NodeCredentialError>,
    },
    /// There is no root, or it cannot be read.
    #[error("{0}")]
    Trust(countersign_trust::Refusal),
}

impl OfferFault {
    /// The stable code of this reason.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Server { error } => error.code(),
            Self::TimedOut { .. } => "CS-SERVER-TIMEOUT",
            Self::Credentials { .. } => "CS-CREDENTIALS",
            Self::Trust(refusal) => refusal.code(),
        }
    }

    /// Whether there is nothing to show, or it cannot be told now.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        match self {
            Self::Server { error } if error.is_outage() => Standing::CannotTellNow,
            Self::TimedOut { .. } => Standing::CannotTellNow,
            Self::Server { .. } | Self::Credentials { .. } | Self::Trust(_) => Standing::Denied,
        }
    }
}

/// Asks servers which roots they offer, for nobody in particular: with this node's own credentials, where it has any.
#[derive(Debug)]
pub struct Offering {
    notary: NotaryClient,
    credentials: Option<Arc<NodeCredentials>>,
    policy: Policy,
    now: UnixTime,
}

impl Offering {
    /// Looks at roots under `policy`, at the moment `now`.
    #[must_use]
    pub fn new(policy: Policy, credentials: Option<Arc<NodeCredentials>>, now: UnixTime) -> Self {
        Self { notary: NotaryClient::new(), credentials, policy, now }
    }

    /// The policy that says how trust data is read, which keys are revoked, and what is pinned.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The moment of looking.
    #[must_use]
    pub const fn now(&self) -> UnixTime {
        self.now
    }

    /// The root that `server` offers for `repository` now, read without trusting it.
    ///
    /// # Errors
    /// [`OfferFault`].
    pub async fn root(&self, server: &TrustServer, repository: &Repository) -> Result<OfferedRoot, OfferFault> {
        let gun = Gun::for_repository(repository);
        let refused = |error: FetchError| OfferFault::Server { error: Box::new(error) };
        let credential = match &self.credentials {
            None => None,
            Some(node) => node.of(repository).await.map_err(|error| {
                let host = repository.host().clone();
                OfferFault::Credentials { host, error: Box::new(error) }
            })?,
        };
        let conversation = self.notary.conversation(server, &gun, credential.as_ref()).map_err(refused)?;
        let asked = tokio::time::timeout(UPDATE_DEADLINE, newest_root(&conversation, &gun)).await;
        let body = asked.unwrap_or(Err(Failure::TimedOut)).map_err(|failure| match failure {
            Failure::Server(error) => refused(error),
            Failure::Refused(refusal) => OfferFault::Trust(refusal),
            Failure::TimedOut => OfferFault::TimedOut { server: server.to_string(), seconds: UPDATE_DEADLINE.as_secs() },
        })?;
        OfferedRoot::read(&body, &gun, &self.policy, self.now).map_err(OfferFault::Trust)
    }
}

/// The bytes of the root that a server offers now.
pub(super) async fn newest_root(conversation: &Conversation, gun: &Gun) -> Result<Body, Failure> {
    let no_data = || countersign_trust::Refusal::of_repository(gun.clone(), Reason::NoTrustData { had_some: false });
    match conversation.ask(&[OfferedRoot::wanted()]).await.into_iter().next() {
        Some((_, Ok(Answer::Found(body)))) => Ok(body),
        Some((_, Ok(Answer::NotFound))) | None => Err(Failure::Refused(no_data())),
        Some((_, Err(error))) => Err(Failure::Server(error)),
    }
}
