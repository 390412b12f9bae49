//! What makes a pin count that others can write: signed by nodes that are members today, alive, and not older than what this node
//! has seen.

use std::sync::Arc;

use countersign_trust::name::Sha256;
use countersign_trust::time::UnixTime;

use super::error::ResolveError;
use super::local::Local;
use super::pin::{Meaning, Pin, PinFault};
use super::service::Kind;
use super::vouch::{Voucher, Vouching};
use crate::clock::Clock;
use crate::store::{Key, Store};

/// For how long a pin lives without a node that uses it: a revision that comes back later means what is signed then, and whoever
/// holds the store can bring back no pin that is older.
pub(super) const LIVES_SECONDS: i64 = 7 * 24 * 60 * 60;
/// The same where a revision is one pod or one Job, which never comes back.
pub(super) const LIVES_ONCE_SECONDS: i64 = 24 * 60 * 60;
/// By how much the clocks of nodes may differ.
pub(super) const SKEW_SECONDS: i64 = 300;

/// What a node needs to share what it finds out with others.
#[derive(Debug)]
pub struct Sharing {
    pub(super) members: Arc<dyn Vouching>,
    pub(super) local: Local,
    clock: Arc<dyn Clock>,
}

impl Sharing {
    /// `local` is this node's own file, for what it must know while the store is away.
    #[must_use]
    pub fn new(members: Arc<dyn Vouching>, local: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { members, local: Local::new(local), clock }
    }

    /// Refuses to write what nobody would believe.
    pub(super) fn refuse_to_speak(&self) -> Result<(), ResolveError> {
        self.members.vouch(b"").map(drop).map_err(|what| ResolveError::NotMember { what })
    }

    pub(super) fn now(&self) -> Result<UnixTime, PinFault> {
        self.clock.now().map_err(|_| PinFault::Clock)
    }

    /// The pin as this node says it: what has no word of a node yet has this one's.
    pub(super) fn sealed(&self, pin: Pin) -> Result<Pin, ResolveError> {
        let sealed = self.now().map_err(|fault| fault.to_string()).and_then(|now| self.seal(pin, now));
        sealed.map_err(|what| ResolveError::NotMember { what })
    }

    fn seal(&self, pin: Pin, now: UnixTime) -> Result<Pin, String> {
        let cluster = self.members.cluster();
        let voucher = match pin.meaning.voucher.clone() {
            Some(voucher) => voucher,
            None => Voucher::of(&*self.members, &pin.claim(cluster, &pin.meaning))?,
        };
        let meaning = Meaning { voucher: Some(voucher), ..pin.meaning.clone() };
        let ends = Some(now.plus_seconds(lives(pin.revision.service.kind)));
        let unsigned = Pin { meaning, ends, voucher: None, ..pin };
        let voucher = Some(Voucher::of(&*self.members, &unsigned.statement(cluster))?);
        Ok(Pin { voucher, ..unsigned })
    }

    /// Refuses a pin that does not count here and now, by all that can change.
    pub(super) fn refuse(&self, key: &Key, pin: &Pin) -> Result<(), PinFault> {
        self.refuse_unvouched(pin)?;
        self.refuse_untimely(key, pin)
    }

    /// What costs signatures, and changes with the members only.
    pub(super) fn refuse_unvouched(&self, pin: &Pin) -> Result<(), PinFault> {
        let voucher = pin.voucher.as_ref().ok_or(PinFault::Unsigned)?;
        voucher.check(&*self.members, &pin.statement(self.members.cluster()))?;
        self.refuse_unclaimed(pin, &pin.meaning)
    }

    /// Whether a member saw this meaning of the pin, or of its past, as current.
    pub(super) fn refuse_unclaimed(&self, pin: &Pin, meaning: &Meaning) -> Result<(), PinFault> {
        let voucher = meaning.voucher.as_ref().ok_or(PinFault::Unsigned)?;
        voucher.check(&*self.members, &pin.claim(self.members.cluster(), meaning))
    }

    /// What changes with time and with what this node has seen.
    pub(super) fn refuse_untimely(&self, key: &Key, pin: &Pin) -> Result<(), PinFault> {
        let now = self.now()?;
        let ends = pin.ends.ok_or(PinFault::Unsigned)?;
        if ends < now {
            return Err(PinFault::Ended { at: ends });
        }
        let latest = now.plus_seconds(SKEW_SECONDS);
        // A number from the future would lock out every later one.
        let is_future = i64::try_from(pin.generation).map_or(true, |generation| UnixTime::from_seconds(generation) > latest);
        if is_future || pin.meaning.at > latest || ends > latest.plus_seconds(lives(pin.revision.service.kind)) {
            return Err(PinFault::Future);
        }
        if pin.generation < self.local.floor(key) {
            return Err(PinFault::RolledBack);
        }
        match self.local.withdrawn_at(&pin.image) {
            Some(at) if pin.meaning.at <= at => Err(PinFault::Withdrawn { at }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a pin that this node uses should be renewed by it now. `share` is from 0 to 1, another for each node, so that mostly
    /// one of the nodes that use it does, and the others learn of it.
    pub(super) fn should_renew(&self, pin: &Pin, share: f64) -> bool {
        let (Ok(now), Some(ends)) = (self.now(), pin.ends) else { return false };
        let left = ends.seconds().saturating_sub(now.seconds());
        let half = lives(pin.revision.service.kind) / 2;
        // From half of its life on, and at the latest when a quarter is left.
        (left as f64) < (half as f64) * (0.5 + share / 2.0)
    }

    /// Whether a pin has been void for as long as a node's clock may be ahead that takes nothing away from others, in seconds.
    pub(super) fn is_over(&self, pin: &Pin, ahead: i64) -> bool {
        let (Ok(now), Some(ends)) = (self.now(), pin.ends) else { return false };
        ends.plus_seconds(ahead.max(lives(pin.revision.service.kind)) + 2 * SKEW_SECONDS) < now
    }

    /// Whether another node has signed this pin.
    pub(super) fn is_of_another(&self, pin: &Pin) -> bool {
        pin.voucher.as_ref().is_some_and(|voucher| voucher.node != self.members.node())
    }

    /// Whether a pin was made or renewed not longer ago than so many seconds by this node's clock, which is not ahead by more then.
    pub(super) fn bears_out_clock(&self, pin: &Pin, ahead: i64) -> bool {
        let (Ok(now), Some(ends)) = (self.now(), pin.ends) else { return false };
        ends.plus_seconds(ahead - lives(pin.revision.service.kind)) > now
    }
}

/// A part of one that is another for each node, so that they do not all do the same at once.
#[must_use]
pub fn share_of(node: &str) -> f64 {
    let hash = Sha256::of(node.as_bytes());
    let first = hash.as_bytes().first().copied().unwrap_or_default();
    f64::from(first) / f64::from(u8::MAX)
}

/// For how long a pin of such a service lives without a node that uses it, in seconds.
pub(super) const fn lives(kind: Kind) -> i64 {
    match kind {
        Kind::Job | Kind::CronJob | Kind::Pod => LIVES_ONCE_SECONDS,
        Kind::Named | Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::Static => LIVES_SECONDS,
    }
}
