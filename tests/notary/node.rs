//! A node that refreshes a repository from a [`Tree`], as the daemon does from a server.

use countersign_trust::evidence::{Answer, Evidence, FileName, Gun};
use countersign_trust::known::Known;
use countersign_trust::pin::{Anchor, Pins};
use countersign_trust::time::UnixTime;
use countersign_trust::{Facts, Freshness, Progress, Terms, TrustedRepository, evaluate};

use crate::server::{OUTAGE, Reply, Tree};

/// Under which terms every test of this kind evaluates, but for the moment.
pub(crate) const fn terms(anchor: &Anchor, now: UnixTime, freshness: Freshness) -> Terms<'_> {
    Terms { anchor, now, freshness }
}

/// What a node remembers between two phases.
#[derive(Default)]
pub(crate) struct Node {
    pub(crate) known: Known,
    held: Option<Evidence>,
    facts: Facts,
}

/// The outcome of a phase: `accept`, or the code of the refusal.
pub(crate) type Outcome = Result<Box<TrustedRepository>, String>;

impl Node {
    pub(crate) fn refresh(&mut self, gun: &Gun, pins: &Pins, now: UnixTime, tree: &Tree<'_>) -> Outcome {
        let Some(anchor) = pins.anchor_for(gun) else { return Err("CS-NOT-PINNED".into()) };
        let mut evidence = Evidence::new(gun.clone(), "https://hostile.test".into());
        loop {
            let terms = terms(anchor, now, Freshness::Fetching);
            let wants = match evaluate(&evidence, &self.known, terms, &mut self.facts) {
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
                Some(&OUTAGE) => return self.judge_held(&evidence, anchor, now),
                Some(code) => return Err((*code).into()),
            }
        }
    }

    fn judge_held(&mut self, fetched: &Evidence, anchor: &Anchor, now: UnixTime) -> Outcome {
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
        let terms = terms(anchor, now, Freshness::Held { allow_expired: false });
        match evaluate(&evidence, &self.known, terms, &mut self.facts) {
            Ok(Progress::Trusted(trusted)) => Ok(trusted),
            Ok(Progress::Wanting(_)) => panic!("held evidence wants nothing"),
            Err(refusal) => Err(refusal.code().into()),
        }
    }
}
