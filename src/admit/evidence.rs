//! Evidence as a thing: taken out of a node for others, and taken in from a file.
//!
//! It makes no claim of its own. What comes in is judged exactly as what is fetched: under this node's policy, pins and
//! floors, at this moment.

use std::sync::Arc;

use countersign_trust::evidence::{Answer, CodecError, Evidence, FileName, Gun, Want};
use countersign_trust::name::{EvidenceDigest, ImageReference, Repository};
use countersign_trust::time::UnixTime;
use countersign_trust::{Facts, Freshness, MAX_ROOT_BYTES, Progress, Terms, TrustedRepository, evaluate};

use super::cluster::Asks;
use super::memory::Contact;
use super::policy::Source;
use super::{Admit, Refusal};
use crate::fetch::Credential;
use crate::ledger::Held;

/// The most bytes of a file of evidence: all files of an update, and old roots of more than twice as much.
pub const MAX_EVIDENCE_FILE_BYTES: u64 = 128 << 20;
/// Old roots that are archived with a repository; nobody rotates a root so often.
const MAX_ARCHIVED_ROOTS: u64 = 1024;

/// Evidence that was taken in.
#[derive(Debug)]
pub struct Imported {
    /// The repository that it is of.
    pub repository: Repository,
    /// Names what was kept of it.
    pub evidence: EvidenceDigest,
    /// Tags that are released by it.
    pub tags: usize,
    /// From when on it is out of date.
    pub valid_until: UnixTime,
    /// Whether it was out of date already, which is allowed here.
    pub has_expired: bool,
}

impl Admit {
    /// Everything that is needed to judge the images of a repository without its server: the newest trust data, and every root
    /// on the way to it, so that a node that knows an older one can follow.
    ///
    /// # Errors
    /// A [`Refusal`], as for a pull; only what verifies here is handed on.
    pub async fn export(self: &Arc<Self>, repository: &Repository) -> Result<Evidence, Refusal> {
        let image = any_image_of(repository)?;
        let (origin, credential) = self.refresh_by_node(&image, Asks::Server).await?;
        let gun = Gun::for_repository(repository);
        let held = self.memory()?.held(&gun).ok_or_else(|| Refusal::NotHeld { image: repository.to_string() })?;
        let mut evidence = held.evidence.clone();
        if origin == super::Origin::Server {
            self.add_old_roots(&image, held.known.floors.get("root").map_or(1, |floor| floor.version), credential, &mut evidence).await?;
        }
        Ok(evidence)
    }

    /// Servers of old versions have none, and what they lack is left out.
    async fn add_old_roots(
        &self,
        image: &ImageReference,
        newest: u64,
        credential: Option<Credential>,
        evidence: &mut Evidence,
    ) -> Result<(), Refusal> {
        let policy = self.policy();
        let Some(Source { server, .. }) = policy.source_of(image) else { return Ok(()) };
        let refused = |error| Refusal::server(image, error);
        let conversation = self.notary.conversation(server, evidence.gun(), credential.as_ref()).map_err(refused)?;
        let oldest = newest.saturating_sub(MAX_ARCHIVED_ROOTS).saturating_add(1).max(1);
        let wants: Vec<Want> = (oldest..=newest).map(|version| Want { file: FileName::Root(version), limit: MAX_ROOT_BYTES }).collect();
        for (file, answer) in conversation.ask(&wants).await {
            if let Answer::Found(body) = answer.map_err(refused)? {
                evidence.add(file, Answer::Found(body));
            }
        }
        Ok(())
    }

    /// Takes evidence in, if it is good here and now. Expired evidence is taken where expired trust data is allowed; an operator
    /// hands it over, and its age counts from now on. Since it serves only while the server is away, that is found out, too.
    ///
    /// # Errors
    /// [`Refusal::Evidence`] for bytes that are none; else why its repository is refused. Nothing is changed then.
    pub async fn import(self: &Arc<Self>, bytes: &[u8]) -> Result<Imported, Refusal> {
        let evidence = Evidence::decode(bytes).map_err(|error| Refusal::Evidence { error })?;
        let malformed = || Refusal::Evidence { error: CodecError::Malformed };
        let repository: Repository = evidence.gun().as_str().parse().map_err(|_| malformed())?;
        let image = any_image_of(&repository)?;
        let gun = evidence.gun().clone();
        let turn = self.refreshes.lock(gun.clone()).await;
        let now = self.now()?;
        let policy = self.policy();
        let Some(source) = policy.source_of(&image) else { return Err(self.why_no_source(&image, now)) };
        let known = self.memory()?.held(&gun).map(|held| held.known.clone()).unwrap_or_default();
        let mut facts = Facts::default();
        let mut evaluated = |allow_expired| {
            let terms = Terms { anchor: source.anchor, policy: &policy.trust, now, freshness: Freshness::Held { allow_expired } };
            trusted(&evidence, &known, terms, &mut facts)
        };
        let (trusted, has_expired) = match evaluated(false) {
            Ok(trusted) => (trusted, false),
            Err(_) if policy.expired_serves_for.is_some() => (evaluated(true).map_err(Refusal::Trust)?, true),
            Err(refusal) => return Err(Refusal::Trust(refusal)),
        };
        let checked_at = u64::try_from(now.seconds()).unwrap_or_default();
        let held = Held { known: trusted.known().clone(), evidence: trusted.evidence().clone(), checked_at, is_own: true };
        let evidence = held.evidence.digest();
        self.hold(held, facts, Contact::None).await?;
        drop(turn);
        if has_expired {
            // How it ends is kept in mind, and told to those who ask for an image.
            drop(self.refresh_by_node(&image, Asks::Server).await);
        } else {
            self.found_good_at(now);
        }
        let tags = trusted.released_tags().count();
        Ok(Imported { repository, evidence, tags, valid_until: trusted.valid_until(), has_expired })
    }

    /// What a pull would be told.
    fn why_no_source(&self, image: &ImageReference, now: UnixTime) -> Refusal {
        let question = countersign_trust::Question::without_namespace(image);
        match self.policy().consult(question, now) {
            Err(refusal) => refusal,
            Ok(_) => Refusal::NotRegistered { host: image.repository().host().clone() },
        }
    }
}

/// Judges evidence that must be whole.
pub(super) fn trusted(
    evidence: &Evidence,
    known: &countersign_trust::known::Known,
    terms: Terms<'_>,
    facts: &mut Facts,
) -> Result<Box<TrustedRepository>, countersign_trust::Refusal> {
    match evaluate(evidence, known, terms, facts)? {
        Progress::Trusted(trusted) => Ok(trusted),
        Progress::Wanting(wants) => {
            let file = wants.into_iter().next().map_or(FileName::Timestamp, |want| want.file);
            Err(countersign_trust::Refusal::of_repository(evidence.gun().clone(), countersign_trust::Reason::Incomplete(file)))
        }
    }
}

/// A reference into the repository; which one does not matter to its trust data.
fn any_image_of(repository: &Repository) -> Result<ImageReference, Refusal> {
    repository.to_string().parse().map_err(|error| Refusal::Name { error })
}
