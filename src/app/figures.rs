//! How old held trust data is and when it ends, as figures that are looked up when somebody asks.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_trust::evidence::Gun;
use countersign_trust::name::Sha256;
use countersign_trust::time::UnixTime;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::admit::{Admit, TrustEnd};
use crate::metrics::Metrics;

/// Repositories of which the end is shown. Those that end first are the ones to look at; a node may hold thousands, and each
/// series has a price in whatever keeps it.
const MOST_REPOSITORIES: usize = 100;
const SECONDS_PER_DAY: f64 = 86_400.0;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Repository {
    repository: String,
}

type Seconds = Gauge<f64, AtomicU64>;

/// Everything that was looked up.
pub(super) struct TrustFigures {
    admit: Arc<Admit>,
    /// What was found out before, under the policy of this name.
    known: Mutex<(Sha256, HashMap<Gun, TrustEnd>)>,
    repositories: Gauge,
    unusable: Gauge,
    oldest: Seconds,
    ends_in: Family<Repository, Seconds>,
    age: Family<Repository, Seconds>,
}

impl TrustFigures {
    pub(super) fn register(admit: Arc<Admit>, metrics: &Metrics) {
        let known = Mutex::new((admit.policy_digest(), HashMap::new()));
        let figures = Self {
            admit,
            known,
            repositories: Gauge::default(),
            unusable: Gauge::default(),
            oldest: Seconds::default(),
            ends_in: Family::default(),
            age: Family::default(),
        };
        metrics.register("trust_repositories", "Repositories of which trust data is held", figures.repositories.clone());
        let help = "Repositories whose held trust data cannot be used under the policy, whatever the time is";
        metrics.register("trust_repositories_unusable", help, figures.unusable.clone());
        let help = "Since the trust data of any repository was found good, of the one where that is longest ago";
        metrics.register("trust_data_oldest_seconds", help, figures.oldest.clone());
        let help = "Days until held trust data ends, negative after that, of the repositories where that is soonest";
        metrics.register("trust_data_ends_in_days", help, figures.ends_in.clone());
        let help = "Since held trust data was found good, of the same repositories";
        metrics.register("trust_data_age_seconds", help, figures.age.clone());
        metrics.before_reading(move || figures.refresh());
    }

    fn refresh(&self) {
        let (now, policy) = (self.admit.clock_says(), self.admit.policy_digest());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != policy {
            *known = (policy, HashMap::new());
        }
        let ends = self.admit.trust_ends(|gun| known.1.get(gun).cloned());
        known.1 = ends.iter().map(|end| (end.gun.clone(), end.clone())).collect();
        drop(known);
        self.show(ends, now);
    }

    fn show(&self, ends: Vec<TrustEnd>, now: UnixTime) {
        self.repositories.set(i64::try_from(ends.len()).unwrap_or(i64::MAX));
        let (usable, unusable): (Vec<TrustEnd>, Vec<TrustEnd>) = ends.into_iter().partition(|end| end.ends.is_some());
        self.unusable.set(i64::try_from(unusable.len()).unwrap_or(i64::MAX));
        let oldest = usable.iter().chain(&unusable).map(|end| end.found_good_at).min();
        self.oldest.set(oldest.map_or(0.0, |oldest| seconds_between(oldest, now)));
        // A repository that is not among the first any more must not stay with what was said of it.
        self.ends_in.clear();
        self.age.clear();
        for (gun, ends, found_good_at) in soonest(usable) {
            let labels = Repository { repository: gun.to_string() };
            self.ends_in.get_or_create(&labels).set(seconds_between(now, ends) / SECONDS_PER_DAY);
            self.age.get_or_create(&labels).set(seconds_between(found_good_at, now));
        }
    }
}

/// The repositories that end first.
fn soonest(ends: Vec<TrustEnd>) -> impl Iterator<Item = (Gun, UnixTime, UnixTime)> {
    let mut ends: Vec<(UnixTime, Gun, UnixTime)> =
        ends.into_iter().filter_map(|end| Some((end.ends?, end.gun, end.found_good_at))).collect();
    ends.sort();
    ends.into_iter().take(MOST_REPOSITORIES).map(|(ends, gun, found_good_at)| (gun, ends, found_good_at))
}

#[allow(clippy::cast_precision_loss, reason = "seconds of centuries fit")]
fn seconds_between(from: UnixTime, to: UnixTime) -> f64 {
    to.seconds().saturating_sub(from.seconds()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repositories_that_end_first_are_shown_and_no_more_than_some() {
        let end = |number: usize| TrustEnd {
            gun: Gun::for_repository(&format!("r.test/team/app-{number}").parse().unwrap()),
            ends: (number != 7).then(|| UnixTime::from_seconds(1_000_000 - number as i64)),
            found_good_at: UnixTime::from_seconds(5),
        };
        let shown: Vec<String> = soonest((0..150).map(end).collect()).map(|(gun, ..)| gun.to_string()).collect();
        assert_eq!(shown.len(), MOST_REPOSITORIES);
        assert_eq!(shown[..2], ["r.test/team/app-149", "r.test/team/app-148"]);
        assert_eq!(seconds_between(UnixTime::from_seconds(10), UnixTime::from_seconds(4)), -6.0);
    }
}
