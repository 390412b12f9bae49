//! Looking at a repository: what its trust data says, brought up to date where it is pinned, and as its server gives it where
//! it is not.

use std::sync::Arc;

use countersign_trust::evidence::{Answer, Evidence, FileName, Gun};
use countersign_trust::known::Known;
use countersign_trust::name::{ImageReference, Repository};
use countersign_trust::offered::OfferedRoot;
use countersign_trust::pin::Pin;
use countersign_trust::time::UnixTime;
use countersign_trust::{Facts, Freshness, Progress, Terms, TrustedRepository, evaluate};

use super::cluster::Asks;
use super::explain::TrustData;
use super::memory::is_expiry;
use super::offered::newest_root;
use super::refresh::{Failure, Had, UPDATE_DEADLINE, fetch};
use super::refusal::Refusal;
use super::{Admit, Origin};
use crate::fetch::{Conversation, TrustServer};
use crate::ledger::Held;

/// What there is to be seen of a repository.
#[derive(Debug)]
pub struct Inspected {
    /// The repository.
    pub gun: Gun,
    /// The moment of all that follows. 1970 if the clock is wrong, which is the refusal then.
    pub now: UnixTime,
    /// The trust server of its registry; empty if the registry is not registered.
    pub server: String,
    /// The pin that answers for it. None: it is not pinned, and everything is as its server gives it.
    pub pin: Option<Pin>,
    /// Where the data came from.
    pub origin: Origin,
    /// Where it came from; none of what is not held.
    pub trust_data: Option<TrustData>,
    /// The root.
    pub root: Option<OfferedRoot>,
    /// The rest; none if it cannot be used.
    pub repository: Option<Box<TrustedRepository>>,
    /// It has run out, and is shown as if it had not.
    pub ignores_expiry: bool,
    /// What is wrong with it, if anything.
    pub refusal: Option<Refusal>,
    /// The policy under which it was looked at.
    pub policy: countersign_trust::Policy,
}

impl Admit {
    /// Brings what is held of `repository` up to date and shows it. Of one that is not pinned nothing is kept.
    pub async fn inspect(self: &Arc<Self>, repository: &Repository) -> Inspected {
        let gun = Gun::for_repository(repository);
        let policy = self.policy();
        let mut shown = Inspected {
            now: UnixTime::default(),
            server: String::new(),
            pin: policy.trust.pins.pin_for(&gun),
            origin: Origin::Server,
            trust_data: None,
            root: None,
            repository: None,
            ignores_expiry: false,
            refusal: None,
            policy: policy.trust.clone(),
            gun,
        };
        if let Err(refusal) = self.look(&mut shown, repository).await {
            shown.refusal = Some(refusal);
        }
        shown
    }

    async fn look(self: &Arc<Self>, shown: &mut Inspected, repository: &Repository) -> Result<(), Refusal> {
        shown.now = self.now()?;
        let host = repository.host();
        let policy = self.policy();
        let server = policy.servers.get(host).ok_or_else(|| Refusal::NotRegistered { host: host.clone() })?;
        shown.server = server.to_string();
        // Messages name an image; which one of the repository does not matter.
        let image = repository.to_string().parse().map_err(|error| Refusal::Name { error })?;
        if shown.pin.is_some() { self.look_at_pinned(shown, &image).await } else { self.look_at_offered(shown, server, &image).await }
    }

    async fn look_at_pinned(self: &Arc<Self>, shown: &mut Inspected, image: &ImageReference) -> Result<(), Refusal> {
        let refreshed = self.refresh_by_node(image, Asks::Server).await.map(|(origin, _)| origin);
        let held = self.memory()?.held(&shown.gun);
        let held = match (held, &refreshed) {
            (Some(held), _) => held,
            (None, Err(refusal)) => return Err(refusal.clone()),
            (None, Ok(_)) => return Err(Refusal::NotHeld { image: shown.gun.to_string() }),
        };
        shown.origin = refreshed.as_ref().map_or(Origin::Held, |origin| *origin);
        shown.refusal = refreshed.err();
        shown.trust_data = Some(TrustData::of(&held));
        shown.look_at(&held);
        Ok(())
    }

    /// Evaluates what the server offers under its own root, as trust on first use would. Nothing is kept.
    async fn look_at_offered(&self, shown: &mut Inspected, server: &TrustServer, image: &ImageReference) -> Result<(), Refusal> {
        let credential = self.node_credential(image.repository()).await?;
        let conversation = self.notary.conversation(server, &shown.gun, credential.as_ref());
        let conversation = conversation.map_err(|error| Refusal::server(image, error))?;
        let looked = tokio::time::timeout(UPDATE_DEADLINE, offered(&conversation, server, shown)).await;
        match looked.unwrap_or(Err(Failure::TimedOut)) {
            Ok(repository) => shown.repository = Some(repository),
            Err(Failure::Refused(refusal)) => return Err(Refusal::Trust(refusal)),
            Err(Failure::Server(error)) => return Err(Refusal::server(image, error)),
            Err(Failure::TimedOut) => {
                let (image, server) = (Box::new(image.clone()), server.to_string());
                return Err(Refusal::UpdateTimedOut { image, server, seconds: UPDATE_DEADLINE.as_secs() });
            }
        }
        Ok(())
    }
}

async fn offered(conversation: &Conversation, server: &TrustServer, shown: &mut Inspected) -> Result<Box<TrustedRepository>, Failure> {
    let body = newest_root(conversation, &shown.gun).await?;
    let root = OfferedRoot::read(&body, &shown.gun, &shown.policy, shown.now).map_err(Failure::Refused)?;
    let anchor = root.own_anchor();
    // It is shown whatever the rest is.
    shown.root = Some(root);
    let mut evidence = Evidence::new(shown.gun.clone(), server.to_string());
    evidence.add(FileName::NewestRoot, Answer::Found(body));
    let terms = Terms { anchor: &anchor, policy: &shown.policy, now: shown.now, freshness: Freshness::Fetching };
    fetch(conversation, Had::default(), (&Known::default(), terms), &mut evidence, &mut Facts::default()).await
}

impl Inspected {
    /// Evaluates what is held under the pin that answers; if it is refused because it has run out, it is shown all the same.
    fn look_at(&mut self, held: &Held) {
        // Where expired data serves, it is shown as what it is used as.
        self.ignores_expiry = self.origin == Origin::Expired;
        let looked = self.evaluated(held, self.ignores_expiry);
        self.repository = looked.as_ref().ok().cloned();
        if let Err(refusal) = looked {
            self.repository = is_expiry(refusal.reason()).then(|| self.evaluated(held, true).ok()).flatten();
            self.ignores_expiry |= self.repository.is_some();
            self.refusal = self.refusal.take().or(Some(Refusal::Trust(refusal)));
        }
        let Some(repository) = &self.repository else { return };
        if let Some(Answer::Found(body)) = repository.evidence().answer(&FileName::NewestRoot) {
            self.root = OfferedRoot::read(body, &self.gun, &self.policy, self.now).ok();
        }
    }

    fn evaluated(&self, held: &Held, allow_expired: bool) -> Result<Box<TrustedRepository>, countersign_trust::Refusal> {
        let not_pinned = || countersign_trust::Refusal::of_repository(self.gun.clone(), countersign_trust::Reason::NotPinned);
        let anchor = &self.pin.as_ref().ok_or_else(not_pinned)?.anchor;
        let terms = Terms { anchor, policy: &self.policy, now: self.now, freshness: Freshness::Held { allow_expired } };
        match evaluate(&held.evidence, &held.known, terms, &mut Facts::default())? {
            Progress::Trusted(trusted) => Ok(trusted),
            // Held evidence wants nothing.
            Progress::Wanting(_) => {
                Err(countersign_trust::Refusal::of_repository(self.gun.clone(), countersign_trust::Reason::NoTrustData { had_some: true }))
            }
        }
    }
}
