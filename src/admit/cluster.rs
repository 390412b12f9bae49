//! What the nodes of a cluster need not each ask a trust server for. Evidence that another node had is verified here like any
//! other; what is believed is only when a member of the cluster had it confirmed. So whoever holds the store can slow nobody's
//! revocation down: each node asks the server itself within a maximum age, and before what is held comes near its end.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use countersign_trust::evidence::{Answer, Body, Evidence, Gun};
use countersign_trust::known::Known;
use countersign_trust::name::EvidenceDigest;
use countersign_trust::time::UnixTime;
use countersign_trust::{Facts, Freshness};

use super::evidence::trusted;
use super::refresh::Refresh;
use super::{Admit, Held, Origin, Refusal};
use crate::resolve::{Confirmation, Confirmations, Needs, Turn};

/// For how long a confirmation serves a pull whose digest is decided already, by the pin of its revision: a thousand nodes that
/// start one image within a minute ask its server a few times. What is withdrawn is noticed by their pulls so much later.
const SERVES_PINNED_SECONDS: i64 = 20;
/// Each node asks a server itself at least this often, whatever the others say.
const ASKS_ITSELF_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// The last part of the lifetime of trust data, in which each node asks itself: a quarter.
const LAST_PART: i64 = 4;

/// Whom a refresh asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Asks {
    /// The server, whatever others have heard of it.
    Server,
    /// The server, unless another node begins to just now: it decides what a tag means, so whatever was signed before must count.
    OneForAll,
    /// The server, unless another node has not long ago: what the tag means is decided.
    Seldom,
}

/// What the cluster had to say.
pub(super) enum Heard {
    /// What is held now was confirmed so lately that it serves.
    Serves,
    /// This node asks the server, and gives the turn back if it has one.
    Ask(Option<Turn>),
}

/// What other nodes had confirmed, once there is a store that they share.
#[derive(Debug, Default)]
pub(super) struct Cluster(OnceLock<Arc<Confirmations>>);

impl Cluster {
    /// Whether there are others to be heard.
    pub(super) fn is_heard(&self) -> bool {
        self.0.get().is_some()
    }
}

impl Admit {
    /// Takes what other nodes have had confirmed by trust servers. Before, and without it, this node asks for itself.
    pub fn take_confirmations(&self, confirmations: Arc<Confirmations>) {
        drop(self.cluster.0.set(confirmations));
    }

    /// Whether another node has had the repository confirmed within `age`, so that this node need not ask its server now. What
    /// is held is what was confirmed then.
    pub(super) async fn is_confirmed_elsewhere(&self, gun: &Gun, age: Duration) -> bool {
        let (Some(confirmations), Ok(now)) = (self.cluster.0.get(), self.now()) else { return false };
        let Some(confirmed) = confirmations.of(gun) else { return false };
        if confirmed.at.plus_seconds(i64::try_from(age.as_secs()).unwrap_or(i64::MAX)) < now {
            return false;
        }
        // In turn with pulls, which may bring something newer at this moment.
        let _turn = self.refreshes.lock(gun.clone()).await;
        self.take_confirmed(confirmations, &confirmed, now).await && self.may_rely_on_others(&confirmed, now)
    }

    /// Rule 15: each node asks the server itself within a maximum age, and before a quarter of the lifetime is left.
    fn may_rely_on_others(&self, confirmed: &Confirmation, now: UnixTime) -> bool {
        let Ok(memory) = self.memory() else { return false };
        let asked = memory.asked_at(&confirmed.gun).is_some_and(|at| at.elapsed() < ASKS_ITSELF_EVERY);
        let Some(ends) = memory.valid_until(&confirmed.gun, &self.policy().trust, now) else { return false };
        let lifetime = ends.seconds().saturating_sub(confirmed.since.seconds());
        let left = ends.seconds().saturating_sub(now.seconds());
        asked && left > lifetime / LAST_PART
    }

    /// Holds what another node had confirmed, if it verifies here. False if it does not.
    async fn take_confirmed(&self, confirmations: &Confirmations, confirmed: &Confirmation, now: UnixTime) -> bool {
        let Ok(memory) = self.memory() else { return false };
        let at = u64::try_from(confirmed.at.seconds()).unwrap_or_default();
        if memory.named(&confirmed.gun).is_some_and(|(_, name)| name == confirmed.evidence) {
            memory.confirmed_to_cluster(&confirmed.gun, at);
            return true;
        }
        let Some(evidence) = evidence_of(confirmations, &confirmed.gun, confirmed.evidence).await else { return false };
        match self.take_in(evidence, now, at).await {
            Ok(()) => true,
            Err(refusal) => {
                tracing::warn!(repository = %confirmed.gun, reason = %refusal, "what another node had confirmed does not verify here; this node asks for itself");
                false
            }
        }
    }

    /// Judges evidence that came from the store as what is fetched is, and holds it. Its floors are this node's from then on.
    async fn take_in(&self, evidence: Evidence, now: UnixTime, checked_at: u64) -> Result<(), Refusal> {
        let gun = evidence.gun().clone();
        let policy = self.policy();
        let not_covered = || Refusal::Trust(countersign_trust::Refusal::of_repository(gun.clone(), countersign_trust::Reason::NotPinned));
        let anchor = policy.trust.pins.anchor_for(&gun).ok_or_else(not_covered)?;
        let known = self.memory()?.held(&gun).map(|held| held.known.clone()).unwrap_or_default();
        let terms = countersign_trust::Terms { anchor, policy: &policy.trust, now, freshness: Freshness::Held { allow_expired: false } };
        let mut facts = Facts::default();
        let trusted = trusted(&evidence, &known, terms, &mut facts).map_err(Refusal::Trust)?;
        let held = Held { known: trusted.known().clone(), evidence: trusted.evidence().clone(), checked_at, is_own: false };
        self.hold_of_cluster(held, facts).await
    }

    /// Tells the others what the server has just confirmed, where nobody waits for it, and gives the turn back.
    pub(super) fn tell_cluster(&self, confirmed: Option<(Evidence, UnixTime)>, turn: Option<Turn>) {
        let Some(confirmations) = self.cluster.0.get().cloned() else { return };
        self.work.spawn(async move {
            let moment = if let Some(Turn::Mine(_, moment)) = &turn { Some(*moment) } else { None };
            if let Some((evidence, at)) = confirmed
                && let Err(error) = confirmations.confirm(&evidence, at, moment).await
            {
                tracing::debug!(repository = %evidence.gun(), %error, "what the server has confirmed could not be told to the cluster");
            }
            if let Some(Turn::Mine(key, moment)) = turn {
                confirmations.end_turn(&key, moment).await;
            }
        });
    }
}

impl Refresh<'_> {
    /// Asks the cluster before the server. The caller's turn at the repository is taken already.
    pub(super) async fn hear(&self, gun: &Gun) -> Heard {
        let Some(confirmations) = self.admit.cluster.0.get() else { return Heard::Ask(None) };
        let needs = match self.asks {
            Asks::Server => return Heard::Ask(None),
            Asks::OneForAll => Needs::Fresh,
            Asks::Seldom => Needs::Since(self.now.plus_seconds(-SERVES_PINNED_SECONDS)),
        };
        if let (Needs::Since(moment), Some(confirmed)) = (needs, confirmations.of(gun))
            && confirmed.at >= moment
            && self.hears(confirmations, &confirmed).await
        {
            return Heard::Serves;
        }
        match confirmations.turn(gun, needs).await {
            Turn::Confirmed(confirmed) if self.hears(confirmations, &confirmed).await => Heard::Serves,
            Turn::Confirmed(_) | Turn::Alone => Heard::Ask(None),
            turn @ Turn::Mine(..) => Heard::Ask(Some(turn)),
        }
    }

    /// Takes what was confirmed. Whether it serves.
    async fn hears(&self, confirmations: &Confirmations, confirmed: &Confirmation) -> bool {
        self.admit.take_confirmed(confirmations, confirmed, self.now).await && self.admit.may_rely_on_others(confirmed, self.now)
    }

    /// What the store offers of a repository of which this node holds nothing, whoever wrote it there. It is judged as any other
    /// evidence, and gives floors, since the server could show an old state; and files, for what the server names by their hashes. It
    /// admits nothing, and nobody can lock others out with a number.
    pub(super) async fn offered(&self, gun: &Gun) -> (Known, Vec<Body>) {
        let Some(evidence) = self.evidence_offered(gun).await else { return Default::default() };
        let terms = self.terms(Freshness::Held { allow_expired: true });
        match trusted(&evidence, &Known::default(), terms, &mut Facts::default()) {
            Ok(trusted) => (trusted.known().clone(), bodies_in(trusted.evidence())),
            Err(refusal) => {
                tracing::debug!(repository = %gun, reason = %refusal, "what the store offers does not verify here");
                Default::default()
            }
        }
    }

    async fn evidence_offered(&self, gun: &Gun) -> Option<Evidence> {
        let confirmations = self.admit.cluster.0.get()?;
        evidence_of(confirmations, gun, confirmations.offered(gun).await?).await
    }
}

fn bodies_in(evidence: &Evidence) -> Vec<Body> {
    let found = |(_, answer): (_, &Answer)| if let Answer::Found(body) = answer { Some(body.clone()) } else { None };
    evidence.answers().filter_map(found).collect()
}

/// Evidence of a repository from the store.
async fn evidence_of(confirmations: &Confirmations, gun: &Gun, name: EvidenceDigest) -> Option<Evidence> {
    let read = confirmations.evidence(name).await;
    let read = read.inspect_err(|error| tracing::debug!(repository = %gun, %error, "evidence of the cluster cannot be read")).ok()?;
    // Else what is said of one repository would be taken for another.
    read.filter(|evidence| evidence.gun() == gun)
}

/// What a refresh comes to that heard enough of the cluster.
pub(super) const HEARD: Origin = Origin::Cluster;
