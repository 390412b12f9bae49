//! What this node holds, in memory: the ledger's content with the facts that were found out about it.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use countersign_trust::evidence::{Answer, Evidence, FileName, Gun};
use countersign_trust::explain::{Explanation, explain};
use countersign_trust::name::{ChainId, EvidenceDigest, ImageId, Repository as RepositoryName};
use countersign_trust::time::UnixTime;
use countersign_trust::{
    Approval, Facts, Freshness, Holding, Pinned, Progress, Question, Reason, RoleFault, Terms, TrustedRepository, Verdict, evaluate,
    verify, verify_pinned,
};

use super::Origin;
use super::container::{Asked, Pod};
use super::policy::Policy;
use super::refusal::Refusal;
use crate::ledger::{Held, MAX_IMAGES, VerifiedImage};

/// Verified images that are kept in mind: all that the ledger holds, and as many that it has given up since the start. Whose
/// image is forgotten is admitted again by its next create.
const MAX_REMEMBERED: usize = 2 * MAX_IMAGES;

/// Containers of which is remembered for what they were made. Far more than a node has that were made and not started.
const MAX_CONTAINERS: usize = 4096;

/// Sandboxes of which is remembered for which pod they are: far more than a node has pods. Of others containerd is asked.
const MAX_SANDBOXES: usize = 4096;

/// One repository's evidence, and what is remembered of its bytes.
#[derive(Debug)]
struct Repository {
    held: Arc<Held>,
    facts: Facts,
    /// The evidence's name, once it was asked for: it costs more than judging an image again.
    name: Option<EvidenceDigest>,
    contact: Contact,
    /// When it was found good as the ledger has it, in seconds since the Unix epoch. What is held may be confirmed since.
    recorded_at: u64,
    /// When this node last had an answer of the server itself, or first held something of the repository since it began.
    asked_at: Instant,
}

/// How the last try to reach the repository's server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contact {
    /// There was none since this process began.
    None,
    /// The server answered, whatever it said.
    Answered,
    /// It could not be reached.
    Outage,
}

/// An image that what is held allows.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) approval: Approval,
    pub(super) evidence: EvidenceDigest,
    pub(super) origin: Origin,
}

/// A judgement with what it rests on.
#[derive(Debug)]
pub(super) struct Accounted {
    pub(super) judged: Result<Judged, Refusal>,
    pub(super) explanation: Explanation,
    /// What it was judged by.
    pub(super) held: Option<Arc<Held>>,
}

impl Repository {
    fn new(held: Arc<Held>, facts: Facts, contact: Contact) -> Self {
        let recorded_at = held.checked_at;
        Self { held, facts, name: None, contact, recorded_at, asked_at: Instant::now() }
    }

    /// How the last try to reach the server ended, and whether expired data serves because of that.
    fn server(&self, policy: &Policy, now: UnixTime) -> (Contact, bool) {
        (self.contact, self.expired_serves(policy, now))
    }

    /// Whether it is allowed to go on with expired data: its server cannot be reached, and this node had the data from there, and
    /// found it good, not too long ago (`docs/notary-v1.md`, 10.3).
    fn expired_serves(&self, policy: &Policy, now: UnixTime) -> bool {
        let found_good = UnixTime::from_seconds(i64::try_from(self.held.checked_at).unwrap_or(i64::MAX));
        let lasts = |length: std::time::Duration| found_good.plus_seconds(i64::try_from(length.as_secs()).unwrap_or(i64::MAX)) >= now;
        self.held.is_own && self.contact == Contact::Outage && policy.expired_serves_for.is_some_and(lasts)
    }
}

/// Everything that is held. Judging takes a lock for microseconds and never waits for a network.
#[derive(Debug, Default)]
pub(super) struct Memory {
    repositories: RwLock<HashMap<Gun, Arc<Mutex<Repository>>>>,
    images: RwLock<BTreeSet<VerifiedImage>>,
    containers: Mutex<Recent<Asked>>,
    sandboxes: Mutex<Recent<Pod>>,
}

/// What was last said of so many things, by their IDs; the oldest makes room.
#[derive(Debug)]
struct Recent<T> {
    said: HashMap<String, T>,
    order: VecDeque<String>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { said: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T: Clone> Recent<T> {
    fn keep(&mut self, id: &str, said: T, limit: usize) {
        if self.said.insert(id.to_owned(), said).is_none() {
            self.order.push_back(id.to_owned());
        }
        if self.order.len() > limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.said.remove(&oldest);
        }
    }

    fn of(&self, id: &str) -> Option<T> {
        self.said.get(id).cloned()
    }

    fn forget(&mut self, id: &str) {
        if self.said.remove(id).is_some() {
            self.order.retain(|kept| kept != id);
        }
    }
}

impl Memory {
    pub(super) fn new(repositories: impl IntoIterator<Item = Held>, images: impl IntoIterator<Item = VerifiedImage>) -> Self {
        let repositories = repositories.into_iter().map(|held| {
            let repository = Repository::new(Arc::new(held), Facts::default(), Contact::None);
            (repository.held.evidence.gun().clone(), Arc::new(Mutex::new(repository)))
        });
        Self {
            repositories: RwLock::new(repositories.collect()),
            images: RwLock::new(images.into_iter().collect()),
            containers: Mutex::default(),
            sandboxes: Mutex::default(),
        }
    }

    fn repository(&self, gun: &Gun) -> Option<Arc<Mutex<Repository>>> {
        self.repositories.read().unwrap_or_else(PoisonError::into_inner).get(gun).cloned()
    }

    /// Whether anything is held of the repository.
    pub(super) fn holds(&self, gun: &Gun) -> bool {
        self.repositories.read().unwrap_or_else(PoisonError::into_inner).contains_key(gun)
    }

    pub(super) fn held(&self, gun: &Gun) -> Option<Arc<Held>> {
        let repository = self.repository(gun)?;
        let repository = repository.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&repository.held))
    }

    /// What is held of a repository, if its server answered when it was asked last: it confirmed this at `checked_at`.
    pub(super) fn confirmed(&self, gun: &Gun) -> Option<Arc<Held>> {
        let repository = self.repository(gun)?;
        let repository = repository.lock().unwrap_or_else(PoisonError::into_inner);
        (repository.contact == Contact::Answered).then(|| Arc::clone(&repository.held))
    }

    /// What is held of a repository, with its evidence's name.
    pub(super) fn named(&self, gun: &Gun) -> Option<(Arc<Held>, EvidenceDigest)> {
        let repository = self.repository(gun)?;
        let mut repository = repository.lock().unwrap_or_else(PoisonError::into_inner);
        let held = Arc::clone(&repository.held);
        let name = *repository.name.get_or_insert_with(|| held.evidence.digest());
        Some((held, name))
    }

    /// Holds what the ledger has.
    pub(super) fn hold(&self, held: Arc<Held>, facts: Facts, contact: Contact) {
        self.insert(Repository::new(held, facts, contact));
    }

    /// Holds what the server has just confirmed, and what the ledger has with an earlier moment.
    pub(super) fn confirm(&self, held: Arc<Held>, facts: Facts) {
        let recorded_at = self.recorded_at(held.evidence.gun()).unwrap_or_default();
        self.insert(Repository { recorded_at, ..Repository::new(held, facts, Contact::Answered) });
    }

    /// Holds what the ledger has, and another node had from the server.
    pub(super) fn hold_of_cluster(&self, held: Arc<Held>, facts: Facts) {
        let asked_at = self.asked_at(held.evidence.gun()).unwrap_or_else(Instant::now);
        self.insert(Repository { asked_at, ..Repository::new(held, facts, Contact::Answered) });
    }

    /// Takes note that another node has had confirmed what is held.
    pub(super) fn confirmed_to_cluster(&self, gun: &Gun, checked_at: u64) {
        let Some(repository) = self.repository(gun) else { return };
        let mut repository = repository.lock().unwrap_or_else(PoisonError::into_inner);
        if repository.held.checked_at < checked_at {
            repository.held = Arc::new(Held { checked_at, ..(*repository.held).clone() });
        }
        repository.contact = Contact::Answered;
    }

    /// When this node last had an answer of the server itself, or first held something of the repository since it began.
    pub(super) fn asked_at(&self, gun: &Gun) -> Option<Instant> {
        let repository = self.repository(gun)?;
        let repository = repository.lock().unwrap_or_else(PoisonError::into_inner);
        Some(repository.asked_at)
    }

    /// When what is held of a repository was found good, as the ledger has it.
    pub(super) fn recorded_at(&self, gun: &Gun) -> Option<u64> {
        let repository = self.repository(gun)?;
        let repository = repository.lock().unwrap_or_else(PoisonError::into_inner);
        Some(repository.recorded_at)
    }

    fn insert(&self, repository: Repository) {
        let gun = repository.held.evidence.gun().clone();
        let repository = Arc::new(Mutex::new(repository));
        self.repositories.write().unwrap_or_else(PoisonError::into_inner).insert(gun, repository);
    }

    /// Forgets what is held of a repository.
    pub(super) fn forget(&self, gun: &Gun) {
        self.repositories.write().unwrap_or_else(PoisonError::into_inner).remove(gun);
    }

    /// Nothing was found good later than at `moment`.
    pub(super) fn not_checked_after(&self, moment: u64) {
        for gun in self.guns() {
            let Some(repository) = self.repository(&gun) else { continue };
            let mut repository = repository.lock().unwrap_or_else(PoisonError::into_inner);
            if repository.held.checked_at > moment {
                repository.held = Arc::new(Held { checked_at: moment, ..(*repository.held).clone() });
                repository.recorded_at = repository.recorded_at.min(moment);
            }
        }
    }

    /// Every repository of which something is held.
    pub(super) fn guns(&self) -> Vec<Gun> {
        self.repositories.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Whether nobody has tried to reach the repository's server since this process began, or since its data was taken in.
    pub(super) fn was_never_asked(&self, gun: &Gun) -> bool {
        let repository = self.repository(gun);
        repository.is_some_and(|repository| repository.lock().unwrap_or_else(PoisonError::into_inner).contact == Contact::None)
    }

    /// Keeps in mind how a try to reach the repository's server ended.
    pub(super) fn contacted(&self, gun: &Gun, contact: Contact) {
        if let Some(repository) = self.repository(gun) {
            repository.lock().unwrap_or_else(PoisonError::into_inner).contact = contact;
        }
    }

    /// Whether expired data of the repository may be used at `now`.
    pub(super) fn expired_serves(&self, gun: &Gun, policy: &Policy, now: UnixTime) -> bool {
        let repository = self.repository(gun);
        repository.is_some_and(|repository| repository.lock().unwrap_or_else(PoisonError::into_inner).expired_serves(policy, now))
    }

    /// Judges the held evidence of the image's repository again, at `now`, and names it. Expired evidence serves only where
    /// unexpired would not have been needed.
    pub(super) fn judge(&self, question: Question<'_>, policy: &Policy, now: UnixTime) -> Result<Judged, Refusal> {
        let gun = Gun::for_repository(question.image.repository());
        let repository = self.repository(&gun).ok_or_else(|| Refusal::NotHeld { image: question.image.to_string() })?;
        let mut repository = repository.lock().unwrap_or_else(PoisonError::into_inner);
        let server = repository.server(policy, now);
        judge_by(server, question, policy, |allow_expired| judge_with(&mut repository, question, policy, now, allow_expired))
    }

    /// Judges an image by what its tag was pinned as. Expired evidence of today serves where it serves for what is signed now.
    pub(super) fn judge_pinned(
        &self,
        question: Question<'_>,
        pinned: Pinned<'_>,
        policy: &Policy,
        now: UnixTime,
    ) -> Result<Judged, Refusal> {
        let gun = Gun::for_repository(question.image.repository());
        let repository = self.repository(&gun).ok_or_else(|| Refusal::NotHeld { image: question.image.to_string() })?;
        let mut repository = repository.lock().unwrap_or_else(PoisonError::into_inner);
        let server = repository.server(policy, now);
        judge_by(server, question, policy, |allow_expired| {
            let held = Arc::clone(&repository.held);
            let holding = Holding { evidence: &held.evidence, known: &held.known, allow_expired };
            let approval = verify_pinned(question, pinned, holding, &policy.trust, now, &mut repository.facts)?;
            let origin = if allow_expired { Origin::Expired } else { Origin::Held };
            Ok(Judged { approval, evidence: pinned.evidence.digest(), origin })
        })
    }

    /// Judges as [`Self::judge`] does, and says what the verdict rests on.
    pub(super) fn explain(&self, question: Question<'_>, policy: &Policy, now: UnixTime) -> Accounted {
        let gun = Gun::for_repository(question.image.repository());
        let Some(repository) = self.repository(&gun) else {
            let explanation = explain(question, None, &policy.trust, now, &mut Facts::default());
            return Accounted { judged: Err(Refusal::NotHeld { image: question.image.to_string() }), explanation, held: None };
        };
        // Whoever explains takes its time: nobody waits for it.
        let (held, server) = {
            let repository = repository.lock().unwrap_or_else(PoisonError::into_inner);
            (Arc::clone(&repository.held), repository.server(policy, now))
        };
        let mut explanation = explain(question, None, &policy.trust, now, &mut Facts::default());
        let judged = judge_by(server, question, policy, |allow_expired| {
            let holding = Holding { evidence: &held.evidence, known: &held.known, allow_expired };
            explanation = explain(question, Some(holding), &policy.trust, now, &mut Facts::default());
            judged_as_explained(&explanation, &held.evidence, allow_expired)
        });
        Accounted { judged, explanation, held: Some(held) }
    }

    /// Evaluates every repository once, one after the other.
    pub(super) fn warm(&self, policy: &countersign_trust::Policy, now: UnixTime) -> usize {
        let guns = self.guns();
        for gun in &guns {
            let (Some(anchor), Some(repository)) = (policy.pins.anchor_for(gun), self.repository(gun)) else { continue };
            let mut repository = repository.lock().unwrap_or_else(PoisonError::into_inner);
            let held = Arc::clone(&repository.held);
            let terms = Terms { anchor, policy, now, freshness: Freshness::Held { allow_expired: false } };
            // Whether it is good is asked when an image is.
            let _ = evaluate(&held.evidence, &held.known, terms, &mut repository.facts);
        }
        guns.len()
    }

    /// Until when what is held of a repository is valid. None if it is not good now.
    pub(super) fn valid_until(&self, gun: &Gun, policy: &countersign_trust::Policy, now: UnixTime) -> Option<UnixTime> {
        self.good_now(gun, policy, now).map(|trusted| trusted.valid_until())
    }

    /// Every tag of a repository that is released by what is held of it. None if it is not good now.
    pub(super) fn released_tags(&self, gun: &Gun, policy: &countersign_trust::Policy, now: UnixTime) -> Option<HashSet<String>> {
        let trusted = self.good_now(gun, policy, now)?;
        Some(trusted.released_tags().map(|(tag, _)| tag.to_owned()).collect())
    }

    fn good_now(&self, gun: &Gun, policy: &countersign_trust::Policy, now: UnixTime) -> Option<Box<TrustedRepository>> {
        let (anchor, repository) = (policy.pins.anchor_for(gun)?, self.repository(gun)?);
        let mut repository = repository.lock().unwrap_or_else(PoisonError::into_inner);
        let held = Arc::clone(&repository.held);
        let terms = Terms { anchor, policy, now, freshness: Freshness::Held { allow_expired: false } };
        match evaluate(&held.evidence, &held.known, terms, &mut repository.facts).ok()? {
            Progress::Trusted(trusted) => Some(trusted),
            Progress::Wanting(_) => None,
        }
    }

    pub(super) fn remember_image(&self, image: &VerifiedImage) {
        // Most images are known, and then nobody waits for anybody.
        if self.images.read().unwrap_or_else(PoisonError::into_inner).contains(image) {
            return;
        }
        let mut images = self.images.write().unwrap_or_else(PoisonError::into_inner);
        if images.len() >= MAX_REMEMBERED {
            images.pop_first();
        }
        images.insert(image.clone());
    }

    /// kubelet starts a container right after it was made.
    pub(super) fn remember_container(&self, container_id: &str, asked: Asked) {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner).keep(container_id, asked, MAX_CONTAINERS);
    }

    pub(super) fn forget_container(&self, container_id: &str) {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner).forget(container_id);
    }

    pub(super) fn asked_for(&self, container_id: &str) -> Option<Asked> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner).of(container_id)
    }

    pub(super) fn remember_sandbox(&self, sandbox_id: &str, pod: Pod) {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner).keep(sandbox_id, pod, MAX_SANDBOXES);
    }

    pub(super) fn pod_of(&self, sandbox_id: &str) -> Option<Pod> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner).of(sandbox_id)
    }

    pub(super) fn images_with(&self, image_id: &ImageId) -> Vec<VerifiedImage> {
        self.images_where(|image| image.image_id == *image_id)
    }

    /// Images on record of one repository.
    pub(super) fn images_of(&self, repository: &RepositoryName) -> Vec<VerifiedImage> {
        self.images_where(|image| image.repository == *repository)
    }

    pub(super) fn images_on(&self, chain: impl Fn(&ChainId) -> bool) -> Vec<VerifiedImage> {
        self.images_where(|image| chain(&image.chain_id))
    }

    fn images_where(&self, fits: impl Fn(&VerifiedImage) -> bool) -> Vec<VerifiedImage> {
        self.images.read().unwrap_or_else(PoisonError::into_inner).iter().filter(|image| fits(image)).cloned().collect()
    }
}

/// Judges with unexpired data, and with expired where that serves and is needed.
fn judge_by<T>(
    (contact, expired_serves): (Contact, bool),
    question: Question<'_>,
    policy: &Policy,
    mut judge: impl FnMut(bool) -> Result<T, countersign_trust::Refusal>,
) -> Result<T, Refusal> {
    let refusal = match judge(false) {
        Ok(judged) => return Ok(judged),
        Err(refusal) => refusal,
    };
    if !is_expiry(refusal.reason()) || policy.expired_serves_for.is_none() {
        return Err(Refusal::Trust(refusal));
    }
    if expired_serves {
        return judge(true).map_err(Refusal::Trust);
    }
    if contact == Contact::None {
        return Err(Refusal::ServerNotAsked { image: Box::new(question.image.clone()), refusal: Box::new(refusal) });
    }
    Err(Refusal::Trust(refusal))
}

/// The verdict of an explanation is the verdict.
fn judged_as_explained(explanation: &Explanation, evidence: &Evidence, allow_expired: bool) -> Result<Judged, countersign_trust::Refusal> {
    match &explanation.verdict {
        Some(Verdict::Allow(approval)) => {
            let origin = if allow_expired { Origin::Expired } else { Origin::Held };
            Ok(Judged { approval: approval.clone(), evidence: evidence.digest(), origin })
        }
        Some(Verdict::Deny(refusal)) => Err(refusal.clone()),
        None => {
            let reason = Reason::NoTrustData { had_some: false };
            Err(countersign_trust::Refusal::of_repository(evidence.gun().clone(), reason))
        }
    }
}

fn judge_with(
    repository: &mut Repository,
    question: Question<'_>,
    policy: &Policy,
    now: UnixTime,
    allow_expired: bool,
) -> Result<Judged, countersign_trust::Refusal> {
    let held = Arc::clone(&repository.held);
    let holding = Holding { evidence: &held.evidence, known: &held.known, allow_expired };
    match verify(question, holding, &policy.trust, now, &mut repository.facts) {
        (Verdict::Allow(approval), _) => {
            let evidence = *repository.name.get_or_insert_with(|| held.evidence.digest());
            Ok(Judged { approval, evidence, origin: if allow_expired { Origin::Expired } else { Origin::Held } })
        }
        (Verdict::Deny(refusal), _) => Err(refusal),
    }
}

/// Whether the passing of time may be all that is wrong. A delegation that has expired is left out, so that the signature of
/// a team is missing.
pub(super) const fn is_expiry(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::Expired { .. }
            | Reason::RootCertificates(_)
            | Reason::ReleasesUnusable { fault: RoleFault::Expired(_) | RoleFault::CertificateEnded(_), .. }
            | Reason::SigningPolicy(_)
    )
}

/// The evidence that is held, with the roots that were fetched before the refresh failed.
pub(super) fn with_fetched_roots(held: &Evidence, fetched: &Evidence) -> Evidence {
    let mut combined = held.clone();
    for (file, answer) in fetched.answers() {
        if matches!((file, answer), (FileName::Root(_), Answer::Found(_))) {
            combined.add(file.clone(), answer.clone());
        }
    }
    combined
}

/// Whether the server showed another timestamp before it went away: what is held is then known to be out of date.
pub(super) fn is_outdated(held: &Evidence, fetched: &Evidence) -> bool {
    let seen = fetched.answer(&FileName::Timestamp);
    seen.is_some() && seen != held.answer(&FileName::Timestamp)
}

#[cfg(test)]
mod tests {
    use countersign_trust::known::Known;

    use super::*;

    #[test]
    fn what_is_confirmed_again_and_again_stays_recorded_when_it_was() {
        let gun = Gun::for_repository(&"r.test/team/app".parse().unwrap());
        let evidence = Evidence::new(gun.clone(), "https://r.test".into());
        let held = |checked_at| Arc::new(Held { known: Known::default(), evidence: evidence.clone(), checked_at, is_own: true });
        let memory = Memory::new([], []);
        memory.hold(held(1000), Facts::default(), Contact::Answered);
        for moment in [2000, 3000] {
            memory.confirm(held(moment), Facts::default());
            assert_eq!((memory.held(&gun).unwrap().checked_at, memory.recorded_at(&gun)), (moment, Some(1000)));
        }
        memory.hold(held(4000), Facts::default(), Contact::Answered);
        assert_eq!(memory.recorded_at(&gun), Some(4000));
        memory.confirm(held(9000), Facts::default());
        memory.not_checked_after(3500);
        assert_eq!((memory.held(&gun).unwrap().checked_at, memory.recorded_at(&gun)), (3500, Some(3500)));
    }
}
