//! A node that refreshes a repository from a [`Tree`], as the daemon does from a server.

use countersign_trust::evidence::{Answer, Evidence, FileName, Gun};
use countersign_trust::known::Known;
use countersign_trust::mode::Mode;
use countersign_trust::pin::Pins;
use countersign_trust::time::UnixTime;
use countersign_trust::{Facts, Freshness, Policy, Progress, Terms, TrustedRepository, evaluate};

use crate::server::{OUTAGE, Reply, Tree};

/// What a node remembers between two phases.
#[derive(Default)]
pub(crate) struct Node {
    pub(crate) known: Known,
    held: Option<Evidence>,
    facts: Facts,
}

/// The outcome of a phase: `accept`, or the code of the refusal.
pub(crate) type Outcome = Result<Box<TrustedRepository>, String>;

/// A policy that pins these and says nothing else.
pub(crate) fn pinning(pins: &Pins) -> Policy {
    Policy::new(Mode::Enforced, pins.clone())
}

/// The terms on which a repository that `policy` pins is evaluated.
pub(crate) fn terms<'p>(policy: &'p Policy, gun: &Gun, now: UnixTime, freshness: Freshness) -> Option<Terms<'p>> {
    Some(Terms { anchor: policy.pins.anchor_for(gun)?, policy, now, freshness })
}

impl Node {
    pub(crate) fn refresh(&mut self, gun: &Gun, pins: &Pins, now: UnixTime, tree: &Tree<'_>) -> Outcome {
        self.refresh_under(&pinning(pins), gun, now, tree)
    }

    pub(crate) fn refresh_under(&mut self, policy: &Policy, gun: &Gun, now: UnixTime, tree: &Tree<'_>) -> Outcome {
        let Some(fetching) = terms(policy, gun, now, Freshness::Fetching) else { return Err("CS-NOT-PINNED".into()) };
        let mut evidence = Evidence::new(gun.clone(), "https://hostile.test".into());
        loop {
            let wants = match evaluate(&evidence, &self.known, fetching, &mut self.facts) {
                Ok(Progress::Wanting(wants)) => wants,
                Ok(Progress::Trusted(trusted)) => {
                    self.known = trusted.known().clone();
                    self.held = Some(trusted.evidence().clone());
                    return Ok(trusted);
                }
                Err(refusal) => return Err(refusal.code().into()),
            };
            // Every answer is kept, also beside one that failed; a refusal counts more than an outage.
            let mut faults = Vec::new();
            for want in wants {
                let kept =
                    self.held.as_ref().and_then(|held| held.answer(&want.file)).filter(|_| matches!(want.file, FileName::ByHash(..)));
                match kept.map_or_else(|| tree.reply(&want.file, want.limit), |answer| Reply::Answer(answer.clone())) {
                    Reply::Answer(answer) => evidence.add(want.file, answer),
                    Reply::Fault(code) => faults.push(code),
                }
            }
            match faults.iter().find(|code| **code != OUTAGE).or_else(|| faults.first()) {
                None => {}
                Some(&OUTAGE) => return self.judge_held(&evidence, fetching),
                Some(code) => return Err((*code).into()),
            }
        }
    }

    fn judge_held(&mut self, fetched: &Evidence, terms: Terms<'_>) -> Outcome {
        let Some(mut evidence) = self.held.clone() else { return Err(OUTAGE.into()) };
        // A newer timestamp was seen: what is held is known to be out of date.
        let seen = fetched.answer(&FileName::Timestamp);
        if seen.is_some() && seen != evidence.answer(&FileName::Timestamp) {
            return Err(OUTAGE.into());
        }
        for (file, answer) in fetched.answers() {
            if matches!((file, answer), (FileName::Root(_), Answer::Found(_))) {
                evidence.add(file.clone(), answer.clone());
            }
        }
        let terms = Terms { freshness: Freshness::Held { allow_expired: false }, ..terms };
        match evaluate(&evidence, &self.known, terms, &mut self.facts) {
            Ok(Progress::Trusted(trusted)) => Ok(trusted),
            Ok(Progress::Wanting(_)) => panic!("held evidence wants nothing"),
            Err(refusal) => Err(refusal.code().into()),
        }
    }
}
