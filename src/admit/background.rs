//! Bringing what is held up to date while nobody asks, so that an expiry or a revocation is known before a container does.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use countersign_trust::Reason;
use countersign_trust::evidence::Gun;
use countersign_trust::name::{ImageReference, Repository};
use tokio::time::Instant;

use super::cluster::Asks;
use super::{Admit, Refusal, Standing};

/// How often it is looked which repositories are held by now.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// After the start all repositories are asked about within this time, not at once: a node may hold thousands.
const SPREAD_AT_START: Duration = Duration::from_secs(60);
/// A server that could not be reached is asked again after this time, and then after twice as long each time.
const FIRST_RETRY: Duration = Duration::from_secs(30);
/// Part of an interval by which one repository's differs from another's, so that nodes that started together do not ask
/// together for ever: a tenth.
const JITTER_PARTS: u32 = 10;

/// When a repository is asked about next.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    /// Tries in a row that ended without an answer.
    outages: u32,
}

/// The timetable of the repositories that are held.
#[derive(Debug, Default)]
struct Timetable(HashMap<Gun, Due>);

impl Timetable {
    /// Takes up repositories that are new, each within the time that `spread` says, and forgets those that are held no more.
    /// `interval` may have become shorter since the others were planned: none waits longer than it.
    fn follow(&mut self, held: &[Gun], spread: impl Fn(&Gun) -> Duration, interval: Duration, now: Instant) {
        self.0.retain(|gun, _| held.contains(gun));
        for (gun, due) in self.0.iter_mut().filter(|(_, due)| due.at > now + interval) {
            due.at = now + interval.mul_f64(share(gun));
        }
        for gun in held {
            self.0.entry(gun.clone()).or_insert_with(|| Due { at: now + spread(gun).mul_f64(share(gun)), outages: 0 });
        }
    }

    /// The repository that is due first, if any is at `now`.
    fn first_due(&self, now: Instant) -> Option<Gun> {
        let due = self.0.iter().filter(|(_, due)| due.at <= now);
        due.min_by_key(|(_, due)| due.at).map(|(gun, _)| gun.clone())
    }

    /// Plans the next try after one that reached the server or did not.
    fn plan(&mut self, gun: &Gun, was_outage: bool, interval: Duration, now: Instant) {
        let outages = self.0.get(gun).map_or(0, |due| due.outages);
        let outages = if was_outage { outages.saturating_add(1) } else { 0 };
        let wait = match outages.checked_sub(1) {
            None => interval,
            Some(doublings) => FIRST_RETRY.saturating_mul(2_u32.saturating_pow(doublings)).min(interval),
        };
        let jitter = (wait / JITTER_PARTS).mul_f64(share(gun));
        self.0.insert(gun.clone(), Due { at: now + wait.saturating_sub(jitter), outages });
    }
}

/// A part of one that is another for each repository and in each process.
fn share(gun: &Gun) -> f64 {
    thread_local!(static KEY: RandomState = RandomState::new());
    let hash = KEY.with(|key| key.hash_one(gun));
    f64::from(u32::try_from(hash >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

impl Admit {
    /// Refreshes what is held, each repository about once in the interval that the policy says, until the process ends. One at a time: nobody waits
    /// for it, and it must be no load on a server.
    pub async fn refresh_in_background(self: Arc<Self>) {
        let mut timetable = Timetable::default();
        let mut longest_spread = SPREAD_AT_START;
        loop {
            let interval = self.policy().refresh_interval;
            let spread = longest_spread.min(interval);
            if let Ok(memory) = self.memory() {
                // What comes later was fetched just now, or was imported, and then its server may never have been asked.
                let spread = |gun: &Gun| if memory.was_never_asked(gun) { spread } else { interval };
                timetable.follow(&memory.guns(), spread, interval, Instant::now());
                longest_spread = LOOK_INTERVAL;
            }
            while let Some(gun) = timetable.first_due(Instant::now()) {
                let was_outage = self.refresh_held(&gun).await;
                timetable.plan(&gun, was_outage, interval, Instant::now());
            }
            tokio::time::sleep(LOOK_INTERVAL.min(interval)).await;
        }
    }

    /// Asks the server of a repository as a pull by this node would, and tells whether it could not be reached.
    async fn refresh_held(self: &Arc<Self>, gun: &Gun) -> bool {
        let Ok(repository) = gun.as_str().parse::<Repository>() else { return false };
        if self.is_confirmed_elsewhere(gun, self.policy().refresh_interval).await {
            return false;
        }
        // Which image of the repository is named does not matter to a refresh.
        let Ok(image) = repository.to_string().parse::<ImageReference>() else { return false };
        let outcome = self.refresh_by_node(&image, Asks::OneForAll).await.map(|(origin, _)| origin);
        match &outcome {
            Ok(origin) => tracing::debug!(repository = %gun, ?origin, "trust data was refreshed"),
            // Its registration or its pin was taken out of the configuration; whoever asks for an image is told.
            Err(Refusal::NotRegistered { .. }) => {}
            Err(Refusal::Trust(refusal)) if *refusal.reason() == Reason::NotPinned => {}
            Err(refusal) => {
                tracing::warn!(repository = %gun, code = refusal.code(), reason = %refusal, "trust data could not be refreshed");
            }
        }
        matches!(&outcome, Ok(super::Origin::Held | super::Origin::Expired))
            || outcome.is_err_and(|refusal| refusal.standing() == Standing::CannotTellNow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gun(name: &str) -> Gun {
        Gun::for_repository(&name.parse().unwrap())
    }

    const INTERVAL: Duration = Duration::from_secs(3600);

    #[test]
    fn every_repository_is_due_within_the_spread_and_then_once_in_an_interval() {
        let (now, guns) = (Instant::now(), [gun("r.test/a/a"), gun("r.test/b/b")]);
        let mut timetable = Timetable::default();
        timetable.follow(&guns, |_| SPREAD_AT_START, INTERVAL, now);
        let mut asked = Vec::new();
        while let Some(gun) = timetable.first_due(now + SPREAD_AT_START) {
            timetable.plan(&gun, false, INTERVAL, now + SPREAD_AT_START);
            asked.push(gun);
        }
        asked.sort();
        assert_eq!(asked, guns);
        assert_eq!(timetable.first_due(now + SPREAD_AT_START + INTERVAL * 8 / 10), None);
        assert!(timetable.first_due(now + SPREAD_AT_START + INTERVAL).is_some());
    }

    #[test]
    fn a_server_that_is_away_is_asked_again_soon_and_then_less_often() {
        let (now, name) = (Instant::now(), gun("r.test/a/a"));
        let mut timetable = Timetable::default();
        timetable.follow(std::slice::from_ref(&name), |_| Duration::ZERO, INTERVAL, now);
        for longest in [FIRST_RETRY, FIRST_RETRY * 2, FIRST_RETRY * 4] {
            timetable.plan(&name, true, INTERVAL, now);
            assert_eq!(timetable.first_due(now + longest * 8 / 10), None);
            assert_eq!(timetable.first_due(now + longest), Some(name.clone()));
        }
        for _ in 0..40 {
            timetable.plan(&name, true, INTERVAL, now);
        }
        assert_eq!(timetable.first_due(now + INTERVAL), Some(name.clone()), "never later than when all is well");
        timetable.plan(&name, false, INTERVAL, now);
        timetable.plan(&name, true, INTERVAL, now);
        assert_eq!(timetable.first_due(now + FIRST_RETRY), Some(name), "an answer forgets the outages");
    }

    #[test]
    fn a_repository_that_is_held_no_more_is_not_asked_about() {
        let (now, name) = (Instant::now(), gun("r.test/a/a"));
        let mut timetable = Timetable::default();
        timetable.follow(std::slice::from_ref(&name), |_| Duration::ZERO, INTERVAL, now);
        timetable.follow(&[], |_| Duration::ZERO, INTERVAL, now);
        assert_eq!(timetable.first_due(now + INTERVAL), None);
    }

    #[test]
    fn a_shorter_interval_counts_for_what_was_planned_before() {
        let (now, guns) = (Instant::now(), [gun("r.test/a/a"), gun("r.test/b/b")]);
        let mut timetable = Timetable::default();
        for gun in &guns {
            timetable.plan(gun, false, INTERVAL * 24, now);
        }
        timetable.follow(&guns, |_| INTERVAL * 24, INTERVAL * 24, now);
        assert_eq!(timetable.first_due(now + INTERVAL), None, "the interval is a day");
        timetable.follow(&guns, |_| INTERVAL, INTERVAL, now);
        let mut asked = 0;
        while let Some(gun) = timetable.first_due(now + INTERVAL) {
            timetable.plan(&gun, false, INTERVAL, now + INTERVAL);
            asked += 1;
        }
        assert_eq!(asked, 2, "the interval is an hour");
    }
}
