//! A node: it fetches, and it judges what it was handed.

use countersign_trust::evidence::{Answer, Evidence, FileName};
use countersign_trust::explain::explain;
use countersign_trust::known::Known;
use countersign_trust::name::ImageReference;
use countersign_trust::offered::OfferedRoot;
use countersign_trust::time::UnixTime;
use countersign_trust::{
    Facts, Freshness, Holding, Policy, Progress, Question, Refusal, Terms, TrustedRepository, Verdict, evaluate, proven_root_steps, verify,
};

use super::honest::{Files, World};

/// More rounds than any honest update takes: each root on the way is one.
const MOST_ROUNDS: usize = 256;

#[derive(Clone)]
pub(super) struct Node<'a> {
    pub(super) policy: &'a Policy,
    pub(super) now: UnixTime,
    pub(super) known: Known,
}

/// The refusal is boxed for its size.
pub(super) type Outcome = Result<Box<TrustedRepository>, Box<Refusal>>;

/// What can be told of an outcome, to compare two of them.
pub(super) fn told(outcome: &Outcome) -> Result<(Known, UnixTime, Evidence), &Refusal> {
    outcome
        .as_ref()
        .map(|trusted| (trusted.known().clone(), trusted.valid_until(), trusted.evidence().clone()))
        .map_err(|refusal| &**refusal)
}

/// Everything at once.
pub(super) fn evidence_of(world: &World, files: &Files) -> Evidence {
    let mut evidence = Evidence::new(world.gun.clone(), "https://fuzz.test".into());
    files.iter().for_each(|(file, body)| evidence.add(file.clone(), Answer::Found(body.clone())));
    evidence
}

impl<'a> Node<'a> {
    fn terms(&self, world: &World, freshness: Freshness) -> Terms<'a> {
        let anchor = self.policy.pins.anchor_for(&world.gun).expect("every world is pinned");
        Terms { anchor, policy: self.policy, now: self.now, freshness }
    }

    /// Fetches what it wants from `files`, until it wants no more; also returns what was fetched.
    pub(super) fn fetch(&self, world: &World, files: &Files, facts: &mut Facts) -> (Outcome, Evidence) {
        let mut evidence = Evidence::new(world.gun.clone(), "https://fuzz.test".into());
        let terms = self.terms(world, Freshness::Fetching);
        for _ in 0..MOST_ROUNDS {
            let wants = match evaluate(&evidence, &self.known, terms, facts) {
                Ok(Progress::Wanting(wants)) => wants,
                Ok(Progress::Trusted(trusted)) => return (Ok(trusted), evidence),
                Err(refusal) => return (Err(Box::new(refusal)), evidence),
            };
            assert!(!wants.is_empty(), "nothing is wanted, and there is no verdict");
            for want in wants {
                assert!(evidence.answer(&want.file).is_none(), "{} is wanted again", want.file);
                // The daemon refuses a body that is longer than wanted; the evaluation must do so by itself.
                let answer = files.get(&want.file).map_or(Answer::NotFound, |body| Answer::Found(body.clone()));
                evidence.add(want.file, answer);
            }
        }
        panic!("no verdict after {MOST_ROUNDS} rounds");
    }

    pub(super) fn proven_root_steps(&self, world: &World, evidence: &Evidence, facts: &mut Facts) -> u64 {
        proven_root_steps(evidence, &self.known, self.terms(world, Freshness::Fetching), facts)
    }

    /// The verdict, which is the one that is explained, and what is known afterwards.
    pub(super) fn verify(&self, image: &ImageReference, evidence: &Evidence, allow_expired: bool, facts: &mut Facts) -> (Verdict, Known) {
        let question = Question::without_namespace(image);
        let held = Holding { evidence, known: &self.known, allow_expired };
        let explained = explain(question, Some(held), self.policy, self.now, &mut facts.clone());
        let (verdict, known) = verify(question, held, self.policy, self.now, facts);
        assert_eq!(explained.verdict.as_ref(), Some(&verdict), "another verdict is explained");
        (verdict, known)
    }

    /// The root that a server offers, if a node that knows nothing would accept it.
    pub(super) fn accepted_root(&self, world: &World, files: &Files) -> Option<OfferedRoot> {
        let offered = OfferedRoot::read(files.get(&FileName::NewestRoot)?, &world.gun, self.policy, self.now).ok()?;
        let anchor = self.terms(world, Freshness::Fetching).anchor;
        offered.refuse_unless_anchored_in(anchor, self.policy, self.now).is_ok().then_some(offered)
    }

    /// What an accepted repository leaves behind is written and read again, and says the same when it is all there is.
    pub(super) fn check_kept(&self, world: &World, trusted: &TrustedRepository, facts: &mut Facts) {
        let known = Known::decode(&trusted.known().encode()).expect("what is known can be read again");
        assert_eq!(known, *trusted.known());
        let evidence = Evidence::decode(&trusted.evidence().encode()).expect("what is kept can be read again");
        assert_eq!(evidence, *trusted.evidence());
        let terms = self.terms(world, Freshness::Held { allow_expired: false });
        let again = match evaluate(&evidence, &known, terms, facts) {
            Ok(Progress::Trusted(again)) => again,
            Ok(Progress::Wanting(wants)) => panic!("held evidence wants {wants:?}"),
            Err(refusal) => panic!("what was accepted is refused when it is judged again: {refusal:?}"),
        };
        assert_eq!(again.known(), &known);
        assert_eq!(again.valid_until(), trusted.valid_until());
        assert!(again.listed().eq(trusted.listed()), "what was kept says something else");
    }
}
