//! What the trust server of a repository has confirmed to some node of the cluster, and when: the others need not ask for it
//! again so soon. The evidence is handed on with it, and whoever takes it verifies it; only the moment is a member's word.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use countersign_trust::evidence::{Evidence, Gun};
use countersign_trust::name::{EvidenceDigest, shown};
use countersign_trust::time::UnixTime;
use tokio::sync::watch;

pub use self::turn::{Needs, Turn};
use self::written::read;
use super::error::ResolveError;
use super::held::Vouched;
use super::pieces::{self, Packed, Use};
use super::pin::PinFault;
use super::sharing::{SKEW_SECONDS, Sharing};
use super::vouch::Voucher;
use crate::store::{
    Change, Complaints, Entry, Expected, Key, Mirror, Prefix, Put, Removed, Revision as Moment, Store, StoreError, follow, list_all,
};

/// The first segment of the keys.
const CONFIRMED: &str = "confirmed";
/// Bytes of the evidence of one repository, as it is packed, that is handed on: one with more is asked for by each node.
const MAX_EVIDENCE_BYTES_OF_ONE: u64 = 4 << 20;
/// Bytes of all evidence that was confirmed: a quarter of what etcd takes by default (`--quota-backend-bytes`), beyond which it takes
/// nothing from anybody.
const MAX_EVIDENCE_BYTES: u64 = 512 << 20;
/// Repositories that are held in mind: what can be listed is bounded, and what one node may hold is less.
const MOST: usize = 32_768;
/// How often a write is tried again because somebody else has written meanwhile.
const TRIES: usize = 4;

/// Lines about what stands in the store and does not count.
static COMPLAINTS: Complaints = Complaints::new();

/// What the trust server of a repository has confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmation {
    /// The repository.
    pub gun: Gun,
    /// Names the evidence.
    pub evidence: EvidenceDigest,
    /// How many bytes it takes in the store.
    pub evidence_bytes: u64,
    /// Since when it is that evidence.
    pub since: UnixTime,
    /// When it was last confirmed.
    pub at: UnixTime,
    /// The turn in which the server was asked, for those who wait for its end. None if it was asked out of turn.
    pub turn: Option<Moment>,
    voucher: Option<Voucher>,
}

/// A confirmation as it was heard of, and which write of the store it is.
#[derive(Debug)]
struct Standing {
    said: Confirmation,
    moment: Moment,
    vouched: Vouched,
}

/// What the servers of all repositories have confirmed to the nodes of a cluster.
#[derive(Debug)]
pub struct Confirmations {
    store: Arc<dyn Store>,
    sharing: Arc<Sharing>,
    held: RwLock<HashMap<Key, Arc<Standing>>>,
    changes: watch::Sender<()>,
    is_followed: AtomicBool,
}

impl Confirmations {
    /// None are held before they are followed.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, sharing: Arc<Sharing>) -> Self {
        Self { store, sharing, held: RwLock::default(), changes: watch::Sender::new(()), is_followed: AtomicBool::new(false) }
    }

    /// Follows what others write, until the process ends.
    pub async fn follow(self: Arc<Self>) {
        follow(&*self, &*self.store, "what other nodes had confirmed by trust servers cannot be followed; this node asks for itself").await;
    }

    /// What was confirmed of a repository, if a node says so whose word counts. Whoever uses it verifies the evidence.
    #[must_use]
    pub fn of(&self, gun: &Gun) -> Option<Confirmation> {
        let standing = self.standing(&key(CONFIRMED, gun)?)?;
        self.counts(&standing).then(|| standing.said.clone())
    }

    /// What stands in the store for a repository, whoever wrote it: evidence that verifies raises floors, and nothing more. Where
    /// nothing was heard of it the store is asked.
    pub async fn offered(&self, gun: &Gun) -> Option<EvidenceDigest> {
        let key = key(CONFIRMED, gun)?;
        if self.standing(&key).is_none() && self.is_followed() {
            let looked = self.look(gun).await;
            looked.inspect_err(|error| tracing::debug!(repository = %gun, %error, "what is offered of it cannot be asked for")).ok()?;
        }
        self.standing(&key).map(|standing| standing.said.evidence)
    }

    fn standing(&self, key: &Key) -> Option<Arc<Standing>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Evidence by its name. None if the store does not have it as it was.
    ///
    /// # Errors
    /// Why the store cannot be asked.
    pub async fn evidence(&self, name: EvidenceDigest) -> Result<Option<Evidence>, ResolveError> {
        pieces::read(&*self.store, Use::Confirmed, name).await
    }

    /// Tells the others what a server has confirmed to this node at `at`, in its turn if it had one: what they wait for is said
    /// though another node, whose clock may be ahead, has said that it asked as late or later.
    ///
    /// # Errors
    /// [`ResolveError::NotMember`], or why the store does not take it.
    pub async fn confirm(&self, evidence: &Evidence, at: UnixTime, turn: Option<Moment>) -> Result<(), ResolveError> {
        let gun = evidence.gun();
        let key = key(CONFIRMED, gun).ok_or(ResolveError::Internal { what: "a key of a confirmation that is none" })?;
        let packed = Packed::of(evidence)?;
        let (name, evidence_bytes) = (packed.name(), packed.size());
        self.refuse_over_quota(&key, evidence_bytes)?;
        pieces::write(&*self.store, Use::Confirmed, &packed).await?;
        let (mut before, mut expected) = match self.standing(&key) {
            Some(standing) => (Some(standing.said.clone()), Expected::Revision(standing.moment)),
            None => (None, Expected::Absent),
        };
        for _ in 0..TRIES {
            let counts = before.clone().filter(|before| self.refuse(before).is_ok());
            if counts.as_ref().is_some_and(|counts| counts.at >= at && counts.turn >= turn) {
                return Ok(());
            }
            let latest = counts.as_ref().map_or(at, |counts| counts.at.max(at));
            let since = counts.filter(|counts| counts.evidence == name).map_or(at, |counts| counts.since);
            let next =
                self.sealed(Confirmation { gun: gun.clone(), evidence: name, evidence_bytes, since, at: latest, turn, voucher: None })?;
            match self.store.put(&key, next.encode()?.into(), expected, None).await? {
                Put::Done(moment) => {
                    self.hold(key, next, moment);
                    return self.forget_before(before, name).await;
                }
                // What does not read as a confirmation is as good as absent, and gives way.
                Put::Lost(Some(entry)) => {
                    (before, expected) = (Confirmation::decode(gun, &entry.value), Expected::Revision(entry.revision))
                }
                Put::Lost(None) => (before, expected) = (None, Expected::Absent),
            }
        }
        Err(ResolveError::Contended { key: key.to_string() })
    }

    /// Nothing rests on what was confirmed before.
    async fn forget_before(&self, before: Option<Confirmation>, name: EvidenceDigest) -> Result<(), ResolveError> {
        match before.filter(|before| before.evidence != name) {
            Some(before) => pieces::remove(&*self.store, Use::Confirmed, before.evidence).await,
            None => Ok(()),
        }
    }

    /// What stands there for the same repository gives way.
    fn refuse_over_quota(&self, key: &Key, evidence_bytes: u64) -> Result<(), ResolveError> {
        let others: Vec<Arc<Standing>> = {
            let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
            held.iter().filter(|(other, _)| *other != key).map(|(_, standing)| Arc::clone(standing)).collect()
        };
        let room = MAX_EVIDENCE_BYTES.saturating_sub(evidence_bytes);
        let is_within = |counts: &dyn Fn(&Standing) -> bool| {
            let counting = others.iter().filter(|other| counts(other));
            counting.map(|other| other.said.evidence_bytes).sum::<u64>() <= room
        };
        // Whose word counts is looked at only where it matters: the numbers of somebody who is nobody use up nothing.
        let has_room = is_within(&|_| true) || is_within(&|other| self.is_vouched(other));
        if evidence_bytes <= MAX_EVIDENCE_BYTES_OF_ONE && has_room {
            return Ok(());
        }
        Err(ResolveError::EvidenceFull { limit: MAX_EVIDENCE_BYTES })
    }

    /// What stands in the store may be heard of later than that the turn in which it was said has ended.
    async fn look(&self, gun: &Gun) -> Result<(), ResolveError> {
        let Some(key) = key(CONFIRMED, gun) else { return Ok(()) };
        match self.store.read(&key).await {
            Ok(entry) => entry.iter().for_each(|entry| self.take(&key, entry)),
            Err(StoreError::Foreign { .. } | StoreError::TooLarge { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Whether what is held here is what stands in the store.
    pub(super) fn is_followed(&self) -> bool {
        self.is_followed.load(Ordering::Acquire)
    }

    /// Whether none was left out for want of room.
    pub(super) fn are_all_held(&self) -> bool {
        self.held.read().unwrap_or_else(PoisonError::into_inner).len() < MOST
    }

    /// Whether any confirmation names this evidence, also one that does not count here: it may on another node.
    pub(super) fn rests_on(&self, name: EvidenceDigest) -> bool {
        self.held.read().unwrap_or_else(PoisonError::into_inner).values().any(|held| held.said.evidence == name)
    }

    /// Ends what was last confirmed before `oldest`, with its evidence. How many there were.
    ///
    /// # Errors
    /// Why the store does not take it.
    pub(super) async fn end_older_than(&self, oldest: UnixTime) -> Result<usize, ResolveError> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut ended = 0;
        for (key, standing) in held.into_iter().filter(|(_, standing)| standing.said.at < oldest) {
            if self.store.remove(&key, standing.moment).await? == Removed::Done {
                self.forget(&key, standing.moment);
                pieces::remove(&*self.store, Use::Confirmed, standing.said.evidence).await?;
                ended += 1;
            }
        }
        Ok(ended)
    }

    fn sealed(&self, confirmation: Confirmation) -> Result<Confirmation, ResolveError> {
        let members = &*self.sharing.members;
        let voucher = Voucher::of(members, &confirmation.statement(members.cluster()));
        Ok(Confirmation { voucher: Some(voucher.map_err(|what| ResolveError::NotMember { what })?), ..confirmation })
    }

    /// Whether what was heard counts here and now. Its signature is looked at once, and again when the members have changed.
    fn counts(&self, standing: &Standing) -> bool {
        self.is_vouched(standing) && self.refuse_future(&standing.said).is_ok()
    }

    fn is_vouched(&self, standing: &Standing) -> bool {
        standing.vouched.or_check(self.sharing.members.serial(), || self.refuse_unvouched(&standing.said).is_ok())
    }

    fn refuse(&self, confirmation: &Confirmation) -> Result<(), PinFault> {
        self.refuse_unvouched(confirmation)?;
        self.refuse_future(confirmation)
    }

    fn refuse_unvouched(&self, confirmation: &Confirmation) -> Result<(), PinFault> {
        let members = &*self.sharing.members;
        let voucher = confirmation.voucher.as_ref().ok_or(PinFault::Unsigned)?;
        voucher.check(members, &confirmation.statement(members.cluster()))
    }

    fn refuse_future(&self, confirmation: &Confirmation) -> Result<(), PinFault> {
        let is_future = confirmation.at > self.sharing.now()?.plus_seconds(SKEW_SECONDS) || confirmation.since > confirmation.at;
        if is_future { Err(PinFault::Future) } else { Ok(()) }
    }

    fn hold(&self, key: Key, said: Confirmation, moment: Moment) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        // Changes may be heard of after what was written here.
        let is_newer = held.get(&key).is_none_or(|own| own.moment < moment);
        if is_newer && (held.len() < MOST || held.contains_key(&key)) {
            held.insert(key, Arc::new(Standing { said, moment, vouched: Vouched::not_checked() }));
        }
        drop(held);
        self.changes.send_replace(());
    }

    fn take(&self, key: &Key, entry: &Entry) {
        match read(key, &entry.value) {
            Some(confirmation) => self.hold(key.clone(), confirmation, entry.revision),
            None => {
                COMPLAINTS.say(|| {
                    tracing::warn!(key = shown(&key.to_string()), "what stands in the store for a confirmation does not read as one");
                });
                self.forget(key, entry.revision);
            }
        }
    }

    /// What was written later stays.
    fn forget(&self, key: &Key, moment: Moment) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if held.get(key).is_some_and(|own| own.moment <= moment) {
            held.remove(key);
        }
    }
}

impl Mirror for Confirmations {
    fn prefix(&self) -> Prefix {
        Prefix::new([CONFIRMED]).unwrap_or_else(|_| Prefix::all())
    }

    async fn load(&self) -> Result<Moment, StoreError> {
        let newest = self.held.read().unwrap_or_else(PoisonError::into_inner).values().map(|own| own.moment).max();
        let listing = list_all(&*self.store, &self.prefix()).await?;
        if newest.is_some_and(|newest| newest > listing.revision) {
            // An older state of the store, from a backup: nothing that was known of it is newer.
            self.held.write().unwrap_or_else(PoisonError::into_inner).clear();
        }
        for (key, entry) in &listing.entries {
            self.take(key, entry);
        }
        let listed: HashSet<&Key> = listing.entries.iter().map(|(key, _)| key).collect();
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.retain(|key, own| own.moment > listing.revision || listed.contains(key));
        Ok(listing.revision)
    }

    async fn apply(&self, change: Change) {
        match change {
            Change::Put { key, entry } => self.take(&key, &entry),
            Change::Removed { key, revision } => self.forget(&key, revision),
            Change::Interrupted => self.is_followed.store(false, Ordering::Release),
            Change::Resumed => self.is_followed.store(true, Ordering::Release),
            Change::Unusable(_) => {}
        }
    }
}

fn key(area: &str, gun: &Gun) -> Option<Key> {
    Key::new([area, gun.as_str()]).ok()
}

#[cfg(test)]
mod tests;
mod turn;
mod written;
