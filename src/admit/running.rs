//! What runs on this node, judged by today's policy: containers and image records that exist already.

use std::sync::Arc;

use countersign_trust::Question;
use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageId, ImageReference, ManifestDigest, Sha256};
use countersign_trust::time::UnixTime;

use super::container::Asked;
use super::refusal::{Refusal, Standing};
use super::rehearsal::refuse_reserved;
use super::volume::ShownImage;
use super::{Admission, Admit, Asker, ImageContent, Sought};
use crate::containerd::{ContainerRecord, Record, stands_on};
use crate::ledger::VerifiedImage;

/// Names by which an image in a volume is judged. Anybody who may import an image gives it names.
const MOST_NAMES: usize = 32;

impl Admit {
    /// Judges a container that exists, for what it was made for, by its root file system and by what its image volumes show: images
    /// that were verified here, or that came without a record of ours (imported) and are what their names mean, by content.
    ///
    /// # Errors
    /// Why it has no valid evidence today.
    pub async fn judge_running(
        self: &Arc<Self>,
        container_id: &str,
        asked: &Asked,
        image_id: Option<ImageId>,
    ) -> Result<(Admission, VerifiedImage), Refusal> {
        let (container, parent) = self.root_fs_of(container_id).await?;
        for shown_image in self.images_shown_by(&container).await? {
            self.judge_shown(&shown_image, asked).await?;
        }
        self.judge_root_fs((container_id, &container, &parent), asked, image_id).await
    }

    /// As [`Admit::judge_running`], of the root file system alone: what its snapshot stands on is the last of the three.
    pub(super) async fn judge_root_fs(
        self: &Arc<Self>,
        (container_id, container, parent): (&str, &ContainerRecord, &str),
        asked: &Asked,
        image_id: Option<ImageId>,
    ) -> Result<(Admission, VerifiedImage), Refusal> {
        let refusal = match self.admit_root_fs(container, parent, Some(asked)).await {
            Err(refusal @ Refusal::UnknownRootFs { .. }) => refusal,
            Err(refusal @ Refusal::OtherImage { .. }) => return self.judge_superseded(container_id, asked).await.ok_or(refusal),
            judged => return judged,
        };
        let (Some(image), Some(image_id)) = (&asked.name, image_id) else { return Err(refusal) };
        let question = Question { image, namespace: asked.namespace.as_deref() };
        let (admission, verified) = self.judge_held(question, image_id).await?;
        self.check_root_fs(container_id, &verified.chain_id).await?;
        Ok((admission, verified))
    }

    /// What a mount shows was verified here, or is what one of its names means: under which of them it is signed does not matter,
    /// what a container calls it or which record leads to it.
    pub(super) async fn judge_shown(self: &Arc<Self>, shown_image: &ShownImage<'_>, asked: &Asked) -> Result<(), Refusal> {
        let refusal = match self.admit_shown(shown_image, asked.asker()).await {
            Err(refusal) if refusal.says_unverified() => refusal,
            judged => return judged,
        };
        let mut cannot_tell = None;
        for (target, content) in self.contents_shown(shown_image).await? {
            let called = asked.volumes.iter().filter_map(|volume| volume.name.clone());
            for image in called.chain(self.names_leading_to(&target).await?).take(MOST_NAMES) {
                let question = Question { image: &image, namespace: asked.namespace.as_deref() };
                match self.judge_held(question, content.image_id).await {
                    Ok((_, verified)) if verified.chain_id == content.chain_id => return Ok(()),
                    Err(other) if !other.says_unverified() => cannot_tell = cannot_tell.or(Some(other)),
                    Ok(_) | Err(_) => {}
                }
            }
        }
        Err(cannot_tell.unwrap_or(refusal))
    }

    /// What runs, runs on when an operator has pinned its tag anew: it is of what its revision was pinned as before.
    async fn judge_superseded(&self, container_id: &str, asked: &Asked) -> Option<(Admission, VerifiedImage)> {
        let sought = Sought { image: asked.name.as_ref()?, asker: asked.asker() };
        let (container, parent) = self.root_fs_of(container_id).await.ok()?;
        let on_record = self.memory().ok()?.images_on(|chain| stands_on(&parent, chain, container.id_mapping.as_ref()));
        for image in on_record.into_iter().filter(|image| image.repository == *sought.image.repository()) {
            if let Some(admission) = self.pinned_before(image.digest, sought).await {
                return self.bind(admission, image.image_id).await.ok();
            }
        }
        None
    }

    /// By what is held alone: whoever only looks sends no packet, and uses up nobody's allowance.
    async fn judge_held(&self, question: Question<'_>, image_id: ImageId) -> Result<(Admission, VerifiedImage), Refusal> {
        refuse_reserved(question.image)?;
        if let Some(listed) = self.listed_content(question, image_id).await? {
            return Ok(listed);
        }
        let admission = match self.judge(question) {
            Ok(admission) => admission,
            Err(refusal) => self.platform_of_signed(question, refusal).await?,
        };
        self.bind(admission, image_id).await
    }

    /// What sandboxes may stand on today if their image is `name`, by what is held alone: the content of every digest that is
    /// listed for it, else of the signed one. Empty if none of it is here.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn sandbox_contents(&self, name: &ImageReference) -> Result<Vec<ImageContent>, Refusal> {
        let mut digests = self.policy().sandbox.digests.clone();
        if digests.is_empty() {
            digests.push(self.judge(Question::without_namespace(name))?.digest);
        }
        let mut contents = Vec::new();
        for digest in digests {
            if self.refuse_denied(name, [digest.hash()]).is_ok() {
                contents.extend(self.sandbox_content(name, digest).await?);
            }
        }
        Ok(contents)
    }

    /// Judges what an image record leads to, by what is held: a name must mean what is signed for it, or something that is
    /// signed in its repository; an ID must be that of an image that is allowed.
    ///
    /// # Errors
    /// Why not.
    pub async fn judge_record(&self, record: &Record) -> Result<(), Refusal> {
        let target: ManifestDigest = match record.target.digest.parse() {
            Ok(target) => target,
            Err(error) => return Err(Refusal::Name { error }),
        };
        if let Ok(image_id) = record.name.parse::<ImageId>() {
            let other = || Refusal::OtherRecord { record: record.name.clone(), expected: image_id };
            self.content_of(target, image_id).await?.ok_or_else(other)?;
            let candidates = self.memory()?.images_with(&image_id);
            return self.first_allowed(candidates, Asker::default(), || Refusal::NotHeld { image: record.name.clone() }).await.map(drop);
        }
        let image: ImageReference = record.name.parse().map_err(|error| Refusal::Name { error })?;
        let named = self.judge(Question::without_namespace(&image));
        if named.as_ref().is_ok_and(|admission| admission.digest == target) {
            return Ok(());
        }
        let by_digest = ImageReference::by_digest(image.repository().clone(), target);
        let question = Question::without_namespace(&by_digest);
        match self.judge(question) {
            Ok(_) => Ok(()),
            Err(_) if self.is_kept_by_a_service(target, &image).await => Ok(()),
            Err(refusal) => self.platform_of_signed(question, refusal).await.map(drop),
        }
    }

    /// What becomes of the image of a record if it is refused.
    #[must_use]
    pub fn mode_of_record(&self, record: &Record) -> Mode {
        self.mode_of(&record.name, None)
    }
}

impl Refusal {
    /// Whether this says that an image has no valid evidence, and not that something else kept us from judging it: our own
    /// faults, a containerd that is away or a server that was not asked.
    #[must_use]
    pub fn says_unverified(&self) -> bool {
        let is_ours = matches!(
            self,
            Self::Ledger { .. }
                | Self::Clock(_)
                | Self::ClockBack { .. }
                | Self::Internal { .. }
                | Self::Answer { .. }
                | Self::Containerd { .. }
                | Self::Credentials { .. }
        );
        self.standing() == Standing::Denied && !is_ours
    }
}

impl Admit {
    /// The present moment, for whoever shows it. None for a clock that cannot be right.
    #[must_use]
    pub fn moment(&self) -> Option<UnixTime> {
        self.clock.now().ok()
    }

    /// Why nothing can be judged by the present moment, if so.
    #[must_use]
    pub fn clock_fault(&self) -> Option<Refusal> {
        self.now().err()
    }

    /// The name of the policy: the hash of the configuration.
    #[must_use]
    pub fn policy_digest(&self) -> Sha256 {
        self.policy().digest
    }

    /// The same for every node that is configured alike.
    #[must_use]
    pub fn shared_digest(&self) -> Sha256 {
        self.policy().shared_digest
    }
}
