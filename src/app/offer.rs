//! The roots that servers offer, for an operator who decides what to pin. Nothing is trusted, and nothing is written.

use countersign_trust::Policy;
use countersign_trust::evidence::Gun;
use countersign_trust::mode::Mode;
use countersign_trust::name::{RegistryHost, Repository};
use countersign_trust::offered::OfferedRoot;
use countersign_trust::pin::{Pin, Pins};
use countersign_trust::time::UnixTime;
use futures_util::{StreamExt as _, stream};

use super::{StartError, ca_bundle, node_credentials};
use crate::admit::{OfferFault, Offering};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::fetch::TrustServer;

/// Servers that are asked at once: an operator names a handful of repositories.
const AT_ONCE: usize = 4;

/// A trust server that the operator names instead of the configured one.
#[derive(Debug, Clone, Default)]
pub struct Elsewhere {
    /// Its URL.
    pub notary_server: Option<String>,
    /// PEM text with the authorities to trust for it beside the system's.
    pub ca_bundle: Option<String>,
}

/// What a server offers as the root of a repository.
#[derive(Debug)]
pub struct Offer {
    /// The repository.
    pub repository: Repository,
    /// Where it was asked for.
    pub server: String,
    /// Whether images may come from its registry.
    pub is_registered: bool,
    /// The moment of asking.
    pub now: UnixTime,
    /// The root, or why there is none to be shown.
    pub root: Result<OfferedRoot, OfferFault>,
    /// Why no pin could make it trusted, if so.
    pub unusable: Option<countersign_trust::Refusal>,
    /// The pin that answers for the repository today, with what it says of the root.
    pub pinned: Option<(Pin, Option<countersign_trust::Refusal>)>,
}

/// Asks for the present roots of `repositories`: of the servers that `config` names, or the reference client would ask, unless
/// the operator sends elsewhere.
///
/// # Errors
/// [`StartError::Server`], [`StartError::CaBundle`] and [`StartError::Clock`].
pub async fn offers(config: Option<&Config>, elsewhere: &Elsewhere, repositories: Vec<Repository>) -> Result<Vec<Offer>, StartError> {
    let policy = config.map_or_else(|| Policy::new(Mode::Enforced, Pins::default()), |config| config.policy.clone());
    let credentials = config.and_then(node_credentials);
    let offering = &Offering::new(policy, credentials, SystemClock.now()?);
    let mut asked = Vec::new();
    for repository in repositories {
        let server = server_of(config, elsewhere, repository.host())?;
        let is_registered = config.is_some_and(|config| config.registry(repository.host()).is_some());
        asked.push((repository, server, is_registered));
    }
    let offers = asked.into_iter().map(|(repository, server, is_registered)| async move {
        let root = offering.root(&server, &repository).await;
        offer(offering, (repository, server.to_string(), is_registered), root)
    });
    Ok(stream::iter(offers).buffered(AT_ONCE).collect().await)
}

fn offer(offering: &Offering, asked: (Repository, String, bool), root: Result<OfferedRoot, OfferFault>) -> Offer {
    let (repository, server, is_registered) = asked;
    let (policy, now) = (offering.policy(), offering.now());
    let shown = root.as_ref().ok();
    let unusable = shown.and_then(|root| root.refuse_unusable(policy, now).err());
    let pinned = policy.pins.pin_for(&Gun::for_repository(&repository)).map(|pin| {
        let refusal = shown.and_then(|root| root.refuse_unless_anchored_in(&pin.anchor, policy, now).err());
        (pin, refusal)
    });
    Offer { repository, server, is_registered, now, root, unusable, pinned }
}

fn server_of(config: Option<&Config>, elsewhere: &Elsewhere, host: &RegistryHost) -> Result<TrustServer, StartError> {
    let registry = config.and_then(|config| config.registry(host));
    let pem = elsewhere.ca_bundle.as_deref().or_else(|| registry.and_then(|registry| registry.ca_bundle.as_deref()));
    let bundle = ca_bundle(host, pem)?;
    let url = elsewhere.notary_server.as_deref().or_else(|| registry.map(|registry| registry.notary_server.as_str()));
    let server = match url {
        Some(url) => TrustServer::new(host.clone(), url, bundle),
        None => TrustServer::of_registry(host.clone(), bundle),
    };
    server.map_err(|source| StartError::Server { host: host.to_string(), source })
}
