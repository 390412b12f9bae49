//! What a container would run, and what it does run, by content (`ARCHITECTURE.md`, "A container is what its root file
//! system is").

use std::sync::Arc;

use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageId, ImageReference, ManifestDigest, shown};

use super::refusal::Refusal;
use super::{Admission, Admit};
use crate::containerd::chain::{ImageContent, image_under, images_under};
use crate::containerd::{ContainerRecord, Record, Standing as ContentStanding, stands_on};
use crate::ledger::VerifiedImage;

/// containerd's own choice of a snapshotter (its `defaults.DefaultSnapshotter` on Linux). CRI names a container's
/// snapshot after the container.
const USUAL_SNAPSHOTTER: &str = "overlayfs";
/// Digests of one image that are asked about before it is known which of them have a record: mostly there is one.
const MOST_LIKELY_RECORDS: usize = 8;

/// Which image a container is judged as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The name that the pod gave.
    Named(ImageReference),
    /// No name, only an image ID: it may be any image that was verified here and has this ID.
    Unnamed,
}

/// Records that were read before it was known which names they were needed of.
#[derive(Debug)]
pub struct RecordsRead {
    names: Vec<String>,
    records: Vec<Record>,
}

impl Admit {
    /// What `digest` is on this node if it leads to `image_id`, each blob hashed on the way. `None` if it leads elsewhere,
    /// or its content is not here.
    ///
    /// # Errors
    /// [`Refusal::Content`].
    pub async fn content_of(&self, digest: ManifestDigest, image_id: ImageId) -> Result<Option<ImageContent>, Refusal> {
        match image_under(&self.containerd, digest, &image_id).await {
            Err(error) if error.standing() == ContentStanding::Absent => Ok(None),
            found => found.map_err(|error| Refusal::Content { digest, error: Arc::new(error) }),
        }
    }

    /// Whether the content of `digest` is here and refused, whichever image is meant by it.
    pub async fn is_refused_content(&self, digest: ManifestDigest) -> bool {
        images_under(&self.containerd, digest).await.is_err_and(|error| error.standing() == ContentStanding::Bad)
    }

    /// Judges the image that a container would be made from: `image_id`, which containerd says `shown` means.
    ///
    /// # Errors
    /// A [`Refusal`]; [`Refusal::OtherImage`] if the signatures allow another image than this.
    pub async fn admit_container(&self, subject: &Subject, image_id: ImageId, shown: &str) -> Result<(Admission, VerifiedImage), Refusal> {
        match subject {
            Subject::Named(image) => self.bind(self.judge(image)?, image_id).await,
            Subject::Unnamed => {
                let candidates = self.memory()?.images_with(&image_id);
                self.first_allowed(candidates, || Refusal::NotHeld { image: shown.to_owned() })
            }
        }
    }

    /// The allowed digest must lead to this image.
    async fn bind(&self, admission: Admission, image_id: ImageId) -> Result<(Admission, VerifiedImage), Refusal> {
        let digest = admission.approval.digest;
        let other = || Refusal::OtherImage { image: Box::new(admission.image.clone()), signed: digest, found: image_id };
        let content = self.content_of(digest, image_id).await?.ok_or_else(other)?;
        let repository = admission.image.repository().clone();
        let image = VerifiedImage { repository, digest, image_id, chain_id: content.chain_id };
        Ok((admission, image))
    }

    /// The first image on record that the evidence held today still allows; else why the first of them is refused.
    fn first_allowed(&self, candidates: Vec<VerifiedImage>, none: impl FnOnce() -> Refusal) -> Result<(Admission, VerifiedImage), Refusal> {
        let mut first_refusal = None;
        for candidate in candidates {
            match self.judge(&ImageReference::by_digest(candidate.repository.clone(), candidate.digest)) {
                Ok(admission) => return Ok((admission, candidate)),
                Err(refusal) => first_refusal = first_refusal.or(Some(refusal)),
            }
        }
        Err(first_refusal.unwrap_or_else(none))
    }

    /// Every record that could be taken for `image_id` leads, by hashed content, to it. containerd takes the first *name*
    /// of the image and whatever that name's record targets at that moment.
    ///
    /// A record that leads to content which can never be used is removed in enforced mode: a pull that was refused leaves one
    /// when a crash, or its caller's going away, comes before it is taken back, and it would deny another image that has the
    /// same config.
    ///
    /// # Errors
    /// [`Refusal::OtherRecord`], naming the record; [`Refusal::Content`].
    pub async fn check_records(&self, names: &[String], read: Option<RecordsRead>, image_id: ImageId) -> Result<(), Refusal> {
        let records = match read.filter(|read| names.iter().all(|name| read.names.contains(name))) {
            Some(read) => read.records.into_iter().filter(|record| names.contains(&record.name)).collect(),
            None => self.containerd.records(names).await?,
        };
        for record in records {
            let other = || Refusal::OtherRecord { record: shown(&record.name), expected: image_id };
            let target: ManifestDigest = record.target.digest.parse().map_err(|_| other())?;
            match self.content_of(target, image_id).await {
                Ok(Some(_)) => {}
                Ok(None) => return Err(other()),
                Err(_) if self.mode() == Mode::Enforced && self.is_refused_content(target).await => {
                    tracing::warn!(record = shown(&record.name), %target, "removed a record of refused content");
                    self.containerd.remove_records(&[record.name], &record.target.digest).await?;
                }
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }

    /// Reads the records that a pull of `named` leaves for the image, while containerd's CRI is asked which there are. None
    /// when they could not be read.
    pub async fn read_likely_records(&self, named: &ImageReference, image_id: ImageId) -> Option<RecordsRead> {
        let on_record = self.memory().ok()?.images_with(&image_id).into_iter().take(MOST_LIKELY_RECORDS);
        let by_digest = on_record.map(|image| ImageReference::by_digest(image.repository, image.digest).to_string());
        let names: Vec<String> = by_digest.chain([named.to_string(), image_id.to_string()]).collect();
        let records = self.containerd.records(&names).await.ok()?;
        Some(RecordsRead { names, records })
    }

    /// The container that was really made stands on the root file system of the verified image.
    ///
    /// # Errors
    /// [`Refusal::OtherRootFs`]; [`Refusal::Snapshotter`].
    pub async fn check_root_fs(&self, container_id: &str, image: &VerifiedImage) -> Result<(), Refusal> {
        let (container, parent) = self.root_fs_of(container_id).await?;
        if stands_on(&parent, &image.chain_id, container.id_mapping.as_ref()) {
            return Ok(());
        }
        Err(Refusal::OtherRootFs { expected: image.chain_id, found: shown(&parent) })
    }

    /// Keeps in mind, for the start that follows, what a container was made from that passed [`Admit::check_root_fs`]. An
    /// image may be on the node without a record of ours: imported, or pulled when a crash came before the record. No disk
    /// write: whoever was admitted once is admitted again after a restart, from the create on.
    pub fn remember(&self, image: &VerifiedImage) {
        if let Ok(memory) = self.memory() {
            memory.remember_image(image);
        }
    }

    /// Judges a container that exists: an image that was verified here and is allowed today has its root file system.
    ///
    /// # Errors
    /// [`Refusal::UnknownRootFs`]; [`Refusal::Snapshotter`]; or why the image on record is refused.
    pub async fn admit_start(&self, container_id: &str) -> Result<(Admission, VerifiedImage), Refusal> {
        let (container, parent) = self.root_fs_of(container_id).await?;
        let candidates = self.memory()?.images_on(|chain| stands_on(&parent, chain, container.id_mapping.as_ref()));
        self.first_allowed(candidates, || Refusal::UnknownRootFs { found: shown(&parent) })
    }

    async fn root_fs_of(&self, container_id: &str) -> Result<(ContainerRecord, String), Refusal> {
        let missing = |what: &str| Refusal::Answer { what: format!("that container {} has no {what}", shown(container_id)) };
        // Where CRI puts the snapshot is no secret, but only the record is believed: the guess saves a question, no more.
        let guessed = self.containerd.snapshot_parent(USUAL_SNAPSHOTTER, container_id);
        let (container, guessed) = tokio::join!(self.containerd.container(container_id), guessed);
        let container = container?.ok_or_else(|| missing("record"))?;
        if !container.has_unpacked_layers() {
            return Err(Refusal::Snapshotter { name: shown(&container.snapshotter) });
        }
        let parent = if container.snapshotter == USUAL_SNAPSHOTTER && container.snapshot_key == container_id {
            guessed?
        } else {
            self.containerd.snapshot_parent(&container.snapshotter, &container.snapshot_key).await?
        };
        Ok((container, parent.ok_or_else(|| missing("snapshot with a parent"))?))
    }
}
