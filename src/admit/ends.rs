//! When trust data ends, for those who watch over it.

use countersign_trust::evidence::Gun;
use countersign_trust::time::UnixTime;
use countersign_trust::{Facts, Freshness, Progress, Terms, evaluate};

use super::Admit;

/// When what is held of a repository ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustEnd {
    /// The repository.
    pub gun: Gun,
    /// From when on some of its trust data is out of date. None if it cannot be used whatever the time is.
    pub ends: Option<UnixTime>,
    /// When it was last found good here.
    pub found_good_at: UnixTime,
}

impl Admit {
    /// When what is held of each repository ends. `known` gives what was found out before, for the same moment of being found
    /// good: verifying everything that a node holds takes a while.
    pub fn trust_ends(&self, known: impl Fn(&Gun) -> Option<TrustEnd>) -> Vec<TrustEnd> {
        let Ok(memory) = self.memory() else { return Vec::new() };
        let mut ends = Vec::new();
        for gun in memory.guns() {
            let Some(held) = memory.held(&gun) else { continue };
            let found_good_at = UnixTime::from_seconds(i64::try_from(held.checked_at).unwrap_or(i64::MAX));
            let before = known(&gun).filter(|known| known.found_good_at == found_good_at);
            ends.push(before.unwrap_or_else(|| TrustEnd { ends: self.end_of(&gun, &held), gun, found_good_at }));
        }
        ends
    }

    /// Expiry itself must not stand in the way of saying when it was.
    fn end_of(&self, gun: &Gun, held: &crate::ledger::Held) -> Option<UnixTime> {
        let policy = self.policy();
        let anchor = policy.trust.pins.anchor_for(gun)?;
        let now = self.clock.now().ok()?;
        let terms = Terms { anchor, policy: &policy.trust, now, freshness: Freshness::Held { allow_expired: true } };
        match evaluate(&held.evidence, &held.known, terms, &mut Facts::default()) {
            Ok(Progress::Trusted(trusted)) => Some(trusted.valid_until()),
            Ok(Progress::Wanting(_)) | Err(_) => None,
        }
    }
}
