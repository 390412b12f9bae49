//! What the trust server of a repository has confirmed to some node of the cluster, and when: the others need not ask for it
//! again so soon. The evidence is handed on with it, and whoever takes it verifies it; only the moment is a member's word.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use countersign_trust::evidence::{Evidence, Gun};
use countersign_trust::name::{EvidenceDigest, shown};
use countersign_trust::time::UnixTime;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::error::ResolveError;
use super::held::Vouched;
use super::pieces::{self, Packed, Use};
use super::pin::PinFault;
use super::sharing::{SKEW_SECONDS, Sharing, share_of};
use super::vouch::{Voucher, WrittenVoucher};
use crate::store::{
    Change, Complaints, Entry, Expected, Key, Mirror, Prefix, Put, Removed, Revision as Moment, Store, StoreError, follow, list_all,
};

/// The form of what is written.
const VERSION: u32 = 3;
/// The first segments of the keys.
const CONFIRMED: &str = "confirmed";
const TURNS: &str = "turns";
/// For how long others wait for the node whose turn it is to ask a server: most answers take a tenth of it, and a node that died
/// meanwhile holds up nobody for longer.
const TURN_SECONDS: i64 = 5;
/// For how long a node waits for turns of others, one after the other, before it asks for itself: long enough for a server that
/// takes longer than a turn, and for a store that a thousand nodes ask at once.
const WAITS: Duration = Duration::from_secs(20);
/// When a turn has ended, the others look for the next one spread over this time: the first one takes it, and the others see that.
const SPREAD: Duration = Duration::from_millis(100);
/// How soon it is looked again where nothing was heard: a node whose server does not answer gives its turn back without a word.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
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

/// Who asks the server of a repository.
#[derive(Debug)]
pub enum Turn {
    /// This node: the others wait for a moment. To be given back with [`Confirmations::end_turn`].
    Mine(Key, Moment),
    /// Another node has asked meanwhile.
    Confirmed(Confirmation),
    /// This node, without a word to others: the store cannot be asked, or nobody was heard of in time.
    Alone,
}

/// A confirmation as it was heard of, and which write of the store it is.
#[derive(Debug)]
struct Standing {
    said: Confirmation,
    moment: Moment,
    vouched: Vouched,
}

/// What a confirmation must be that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// From this moment or later.
    Since(UnixTime),
    /// Of a node that began to ask after this one did: whatever was signed before this one asked is in it.
    Fresh,
}

/// Whose turn it is.
enum Taken {
    Mine(Key, Moment),
    /// Another's, which began with this write.
    Theirs(Moment),
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

    /// Whose turn it is to ask the server of a repository. Waits for nodes whose turn it is, for a bounded time: the one that was
    /// asking already, and, where its answer may be too old, one after it.
    pub async fn turn(&self, gun: &Gun, needs: Needs) -> Turn {
        match tokio::time::timeout(WAITS, self.wait_for_turn(gun, needs)).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(error)) => {
                tracing::debug!(repository = %gun, %error, "no turn to ask its server could be had");
                Turn::Alone
            }
            Err(_) => Turn::Alone,
        }
    }

    async fn wait_for_turn(&self, gun: &Gun, needs: Needs) -> Result<Turn, ResolveError> {
        let place = key(TURNS, gun).ok_or(ResolveError::Internal { what: "a key of a turn that is none" })?;
        let mut changes = self.changes.subscribe();
        let mut taken = self.take_turn(&place).await?;
        let mut begun_before = None;
        loop {
            let theirs = match taken {
                Taken::Mine(key, moment) => return self.begin_turn(gun, needs, key, moment).await,
                Taken::Theirs(moment) => moment,
            };
            // A node that was asking already when this one began to wait may have been told what is not so any more.
            let begun = *begun_before.get_or_insert(theirs);
            let serves = |confirmed: &Confirmation| match needs {
                Needs::Since(moment) => confirmed.at >= moment,
                Needs::Fresh => confirmed.turn > Some(begun) && self.is_of_now(confirmed),
            };
            let is_over = || self.of(gun).is_some_and(|confirmed| serves(&confirmed) || confirmed.turn >= Some(theirs));
            // It may have been given back with nothing to tell, while others have much to say of other repositories.
            let look_again = Instant::now() + LOOK_AGAIN;
            while !is_over() && Instant::now() < look_again {
                drop(tokio::time::timeout_at(look_again, changes.changed()).await);
            }
            if let Some(confirmed) = self.of(gun).filter(serves) {
                return Ok(Turn::Confirmed(confirmed));
            }
            tokio::time::sleep(SPREAD.mul_f64(share_of(self.sharing.members.node()))).await;
            // To look costs the store less than to try to write.
            let under_way = self.turn_under_way(&place).await?;
            if under_way.is_none() {
                self.look(gun).await?;
            }
            if let Some(confirmed) = self.of(gun).filter(serves) {
                return Ok(Turn::Confirmed(confirmed));
            }
            taken = match under_way {
                Some(moment) => {
                    if moment == theirs {
                        // What was found out in it is told, and it is given back next.
                        tokio::time::sleep(SPREAD).await;
                    }
                    Taken::Theirs(moment)
                }
                None => self.take_turn(&place).await?,
            };
        }
    }

    /// The turn of this node. The one before it may have ended so lately that what was told in it is not heard of yet.
    async fn begin_turn(&self, gun: &Gun, needs: Needs, key: Key, moment: Moment) -> Result<Turn, ResolveError> {
        let Needs::Since(since) = needs else { return Ok(Turn::Mine(key, moment)) };
        self.look(gun).await?;
        let Some(confirmed) = self.of(gun).filter(|confirmed| confirmed.at >= since) else { return Ok(Turn::Mine(key, moment)) };
        self.end_turn(&key, moment).await;
        Ok(Turn::Confirmed(confirmed))
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

    async fn turn_under_way(&self, place: &Key) -> Result<Option<Moment>, ResolveError> {
        let now = self.now()?;
        match self.store.read(place).await {
            Ok(entry) => Ok(entry.filter(|entry| is_under_way(entry, now)).map(|entry| entry.revision)),
            Err(StoreError::Foreign { .. } | StoreError::TooLarge { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn now(&self) -> Result<UnixTime, ResolveError> {
        self.sharing.now().map_err(|fault| ResolveError::NotMember { what: fault.to_string() })
    }

    /// Whether it was said in this turn: whoever holds the store could show what was said in an earlier one of the same number.
    fn is_of_now(&self, confirmed: &Confirmation) -> bool {
        self.sharing.now().is_ok_and(|now| confirmed.at.plus_seconds(TURN_SECONDS + SKEW_SECONDS) >= now)
    }

    async fn take_turn(&self, place: &Key) -> Result<Taken, ResolveError> {
        let now = self.now()?;
        self.sharing.refuse_to_speak()?;
        let turn: Vec<u8> = now.seconds().to_string().into_bytes();
        let mut expected = Expected::Absent;
        for _ in 0..TRIES {
            match self.store.put(place, turn.clone().into(), expected, None).await? {
                Put::Done(moment) => return Ok(Taken::Mine(place.clone(), moment)),
                Put::Lost(Some(entry)) if is_under_way(&entry, now) => return Ok(Taken::Theirs(entry.revision)),
                Put::Lost(Some(entry)) => expected = Expected::Revision(entry.revision),
                Put::Lost(None) => expected = Expected::Absent,
            }
        }
        Err(ResolveError::Contended { key: place.to_string() })
    }

    /// Gives a turn back: what was found out stands in the store, or nothing was.
    pub async fn end_turn(&self, key: &Key, moment: Moment) {
        let ended: Result<Removed, StoreError> = self.store.remove(key, moment).await;
        if let Err(error) = ended {
            tracing::debug!(%key, %error, "a turn could not be given back; it ends by itself");
        }
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

impl Confirmation {
    /// What the node has signed.
    fn statement(&self, cluster: &str) -> Vec<u8> {
        let Self { gun, evidence, evidence_bytes, since, at, turn, .. } = self;
        let (evidence, turn) = (evidence.to_string(), turn.map(Moment::number));
        let said = ("countersign confirmation", cluster, gun.as_str(), evidence, evidence_bytes, since.seconds(), at.seconds(), turn);
        // Text and numbers are always written.
        serde_json::to_vec(&said).unwrap_or_default()
    }

    fn encode(&self) -> Result<Vec<u8>, ResolveError> {
        let Self { gun, evidence, evidence_bytes, since, at, turn, voucher } = self;
        let written = Written {
            version: VERSION,
            repository: gun.as_str().to_owned(),
            evidence: evidence.to_string(),
            evidence_bytes: *evidence_bytes,
            since: since.seconds(),
            at: at.seconds(),
            turn: turn.map(Moment::number),
            voucher: voucher.as_ref().map(WrittenVoucher::from),
        };
        serde_json::to_vec(&written).map_err(|_| ResolveError::Internal { what: "a confirmation that cannot be written" })
    }

    fn decode(gun: &Gun, bytes: &[u8]) -> Option<Self> {
        let written: Written = serde_json::from_slice(bytes).ok()?;
        let voucher = match written.voucher {
            Some(voucher) => Some(voucher.read()?),
            None => None,
        };
        let evidence_bytes = written.evidence_bytes;
        // A size that cannot be would use up what all may have.
        let is_usual = written.version == VERSION && evidence_bytes <= MAX_EVIDENCE_BYTES_OF_ONE;
        let (since, at) = (UnixTime::from_seconds(written.since), UnixTime::from_seconds(written.at));
        let (evidence, turn) = (written.evidence.parse().ok()?, written.turn.map(Moment::new));
        let is_of_it = is_usual && written.repository == gun.as_str();
        is_of_it.then_some(Self { gun: gun.clone(), evidence, evidence_bytes, since, at, turn, voucher })
    }
}

/// As it is written. A field that is not known is refused: what it restricts would be lost.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    repository: String,
    evidence: String,
    evidence_bytes: u64,
    since: i64,
    at: i64,
    turn: Option<u64>,
    voucher: Option<WrittenVoucher>,
}

fn read(written_below: &Key, bytes: &[u8]) -> Option<Confirmation> {
    let written: Written = serde_json::from_slice(bytes).ok()?;
    let gun = Gun::for_repository(&written.repository.parse().ok()?);
    // Whoever can write the store could put what is said of one repository in another's place.
    (key(CONFIRMED, &gun).as_ref() == Some(written_below)).then(|| Confirmation::decode(&gun, bytes))?
}

fn key(area: &str, gun: &Gun) -> Option<Key> {
    Key::new([area, gun.as_str()]).ok()
}

/// Whether the node whose turn it is may still be asking. What does not read as a moment, or is of a clock far ahead, holds up
/// nobody.
fn is_under_way(entry: &Entry, now: UnixTime) -> bool {
    let begun: Option<i64> = std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse().ok());
    begun.is_some_and(|begun| begun.abs_diff(now.seconds()) <= TURN_SECONDS.unsigned_abs())
}

#[cfg(test)]
mod tests;
