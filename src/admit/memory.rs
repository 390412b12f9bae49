//! What this node holds, in memory: the ledger's content with the facts that were found out about it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use countersign_trust::evidence::{Answer, Evidence, FileName, Gun};
use countersign_trust::name::{ChainId, EvidenceDigest, ImageId, ImageReference};
use countersign_trust::pin::Pins;
use countersign_trust::time::UnixTime;
use countersign_trust::{Approval, Facts, Freshness, Policy, Terms, Verdict, evaluate, verify};

use super::refusal::Refusal;
use crate::ledger::{Held, MAX_IMAGES, VerifiedImage};

/// Verified images that are kept in mind: all that the ledger holds, and as many that it has given up since the start. Whose
/// image is forgotten is admitted again by its next create.
const MAX_REMEMBERED: usize = 2 * MAX_IMAGES;

/// One repository's evidence, and what is remembered of its bytes.
#[derive(Debug)]
struct Repository {
    held: Arc<Held>,
    facts: Facts,
    /// The evidence's name, once it was asked for: it costs more than judging an image again.
    name: Option<EvidenceDigest>,
}

impl Repository {
    const fn new(held: Arc<Held>, facts: Facts) -> Self {
        Self { held, facts, name: None }
    }
}

/// Everything that is held. Judging takes a lock for microseconds and never waits for a network.
#[derive(Debug, Default)]
pub(super) struct Memory {
    repositories: RwLock<HashMap<Gun, Arc<Mutex<Repository>>>>,
    images: RwLock<BTreeSet<VerifiedImage>>,
}

impl Memory {
    pub(super) fn new(repositories: impl IntoIterator<Item = Held>, images: impl IntoIterator<Item = VerifiedImage>) -> Self {
        let repositories = repositories.into_iter().map(|held| {
            let repository = Repository::new(Arc::new(held), Facts::default());
            (repository.held.evidence.gun().clone(), Arc::new(Mutex::new(repository)))
        });
        Self { repositories: RwLock::new(repositories.collect()), images: RwLock::new(images.into_iter().collect()) }
    }

    fn repository(&self, gun: &Gun) -> Option<Arc<Mutex<Repository>>> {
        self.repositories.read().unwrap_or_else(PoisonError::into_inner).get(gun).cloned()
    }

    pub(super) fn held(&self, gun: &Gun) -> Option<Arc<Held>> {
        let repository = self.repository(gun)?;
        let repository = repository.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&repository.held))
    }

    pub(super) fn hold(&self, held: Arc<Held>, facts: Facts) {
        let gun = held.evidence.gun().clone();
        let repository = Arc::new(Mutex::new(Repository::new(held, facts)));
        self.repositories.write().unwrap_or_else(PoisonError::into_inner).insert(gun, repository);
    }

    /// Judges the held evidence of the image's repository again, at `now`, and names it.
    pub(super) fn judge(&self, image: &ImageReference, pins: &Pins, now: UnixTime) -> Result<(Approval, EvidenceDigest), Refusal> {
        let gun = Gun::for_repository(image.repository());
        let repository = self.repository(&gun).ok_or_else(|| Refusal::NotHeld { image: image.to_string() })?;
        let mut repository = repository.lock().unwrap_or_else(PoisonError::into_inner);
        let held = Arc::clone(&repository.held);
        let policy = Policy { pins, allow_expired: false };
        match verify(image, &held.evidence, &held.known, policy, now, &mut repository.facts) {
            (Verdict::Allow(approval), _) => Ok((approval, *repository.name.get_or_insert_with(|| held.evidence.digest()))),
            (Verdict::Deny(refusal), _) => Err(Refusal::Trust(refusal)),
        }
    }

    /// Evaluates every repository once, one after the other.
    pub(super) fn warm(&self, pins: &Pins, now: UnixTime) -> usize {
        let guns: Vec<Gun> = self.repositories.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        for gun in &guns {
            let (Some(anchor), Some(repository)) = (pins.anchor_for(gun), self.repository(gun)) else { continue };
            let mut repository = repository.lock().unwrap_or_else(PoisonError::into_inner);
            let held = Arc::clone(&repository.held);
            let terms = Terms { anchor, now, freshness: Freshness::Held { allow_expired: false } };
            // Whether it is good is asked when an image is.
            let _ = evaluate(&held.evidence, &held.known, terms, &mut repository.facts);
        }
        guns.len()
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

    pub(super) fn images_with(&self, image_id: &ImageId) -> Vec<VerifiedImage> {
        self.images_where(|image| image.image_id == *image_id)
    }

    pub(super) fn images_on(&self, chain: impl Fn(&ChainId) -> bool) -> Vec<VerifiedImage> {
        self.images_where(|image| chain(&image.chain_id))
    }

    fn images_where(&self, fits: impl Fn(&VerifiedImage) -> bool) -> Vec<VerifiedImage> {
        self.images.read().unwrap_or_else(PoisonError::into_inner).iter().filter(|image| fits(image)).cloned().collect()
    }
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
