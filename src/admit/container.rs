//! What a container would run, and what it does run, by content (`ARCHITECTURE.md`, "A container is what its root file
//! system is").

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign_trust::mode::Mode;
use countersign_trust::name::{ChainId, ImageId, ImageReference, ManifestDigest, shown};

use super::early::Made;
use super::refusal::{Place, Refusal};
use super::rehearsal::refuse_reserved;
use super::{Admission, Admit, Asker, Effect, Sought, Workload, record_name};
use crate::containerd::chain::{ImageContent, image_under, images_under, is_artifact_of};
use crate::containerd::{ContainerRecord, Containerd, MadeAt, Record, Standing as ContentStanding, stands_on};
use crate::ledger::VerifiedImage;
use crate::resolve::Revision;
use countersign_trust::{Approval, Question};

/// containerd's own choice of a snapshotter (its `defaults.DefaultSnapshotter` on Linux). CRI names a container's
/// snapshot after the container.
const USUAL_SNAPSHOTTER: &str = "overlayfs";
/// Digests of one image that are asked about before it is known which of them have a record: mostly there is one.
const MOST_LIKELY_RECORDS: usize = 8;

/// What a caller may have written of a container that is kept in mind: fifty volumes with usual paths and names. As much is kept
/// of 4,096 containers.
const MAX_ASKED_BYTES: usize = 16 * 1024;

/// Hexadecimal digits of the ID of every container, and of every sandbox, that CRI makes.
const ID_DIGITS: usize = 64;

/// Which image a container is judged as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The name that the pod gave.
    Named(ImageReference),
    /// No name, only an image ID: it may be any image that was verified here and has this ID.
    Unnamed,
}

/// For what a container was made: the image that the pod named, and the pod's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// The image, as it was named, for messages.
    pub image: String,
    /// That name, if it is one: an image ID, and a prefix of one, can be read as a name too, and is none.
    pub name: Option<ImageReference>,
    /// The pod's namespace, if it was known.
    pub namespace: Option<String>,
    /// Which container of which pod it is, if the pod was known.
    pub workload: Option<Workload>,
    /// Its image was not enforced then.
    pub was_let_pass: bool,
    /// Which revision of which service it is of, if that was known.
    pub revision: Option<Revision>,
    /// The image, as containerd was given it.
    pub given: String,
    /// The images of its volumes, each of which may have a rule of its own.
    pub volumes: Vec<AskedVolume>,
    /// When the container was made, if that was looked at: another one may get its ID.
    pub made_at: Option<MadeAt>,
}

/// An image volume that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AskedVolume {
    /// Where the container sees it.
    pub path: String,
    /// Its image, as containerd was given it.
    pub given: String,
    /// The name that the pod gave, as [`Asked::name`].
    pub name: Option<ImageReference>,
}

impl Asked {
    /// What the caller has written, in bytes.
    fn bytes(&self) -> usize {
        let length = |name: &Option<ImageReference>| name.as_ref().map_or(0, |name| name.to_string().len());
        let volumes = self.volumes.iter().map(|volume| [volume.path.len(), volume.given.len(), length(&volume.name)]);
        volumes.flatten().fold(self.image.len().saturating_add(self.given.len()), usize::saturating_add)
    }

    /// The names of its images that are known: that of its root file system first, then those of its volumes.
    pub fn names(&self) -> impl Iterator<Item = &ImageReference> {
        self.name.iter().chain(self.volumes.iter().filter_map(|volume| volume.name.as_ref()))
    }

    /// Who asked.
    #[must_use]
    pub fn asker(&self) -> Asker<'_> {
        Asker { namespace: self.namespace.as_deref(), revision: self.revision.as_ref() }
    }
}

/// The pod of a sandbox, as kubelet told when the sandbox was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Which revision of which service it is of, as far as its labels say.
    pub revision: Option<Revision>,
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

    /// Whether the content of `digest` is here and can never be used as the image `image_id`, which containerd takes it for:
    /// it is refused, whichever image is meant by it, or it is no image and has that image's config.
    pub async fn is_refused_content(&self, digest: ManifestDigest, image_id: Option<ImageId>) -> bool {
        match image_id {
            Some(image_id) => is_artifact_of(&self.containerd, digest, &image_id).await,
            None => images_under(&self.containerd, digest).await.map(|_| false),
        }
        .unwrap_or_else(|error| error.standing() == ContentStanding::Bad)
    }

    /// Judges the image that a container would be made from: `image_id`, which containerd says `shown` means.
    ///
    /// # Errors
    /// A [`Refusal`]; [`Refusal::OtherImage`] if the policy allows another image than this.
    pub async fn admit_container(
        self: &Arc<Self>,
        subject: &Subject,
        asker: Asker<'_>,
        image_id: ImageId,
        shown: &str,
    ) -> Result<(Admission, VerifiedImage), Refusal> {
        match subject {
            Subject::Named(image) => self.admit_named(Sought { image, asker }, image_id).await,
            Subject::Unnamed => {
                let candidates = self.memory()?.images_with(&image_id);
                self.first_allowed(candidates, asker, || Refusal::NotHeld { image: shown.to_owned() }).await
            }
        }
    }

    pub(super) async fn admit_named(
        self: &Arc<Self>,
        sought: Sought<'_>,
        image_id: ImageId,
    ) -> Result<(Admission, VerifiedImage), Refusal> {
        let question = sought.question();
        refuse_reserved(question.image)?;
        if let Some(admitted) = self.listed_content(question, image_id).await? {
            return Ok(admitted);
        }
        let judged = self.judge_brought(question);
        self.pin_later(sought, &judged);
        match self.for_service(sought, judged, Effect::Looks).await {
            Ok(admission) => self.bind(admission, image_id).await,
            Err(refusal) => {
                let admission = self.platform_of_signed(question, refusal).await?;
                self.bind(admission, image_id).await
            }
        }
    }

    /// The image is one that the rule lists by digest, whatever name it goes by: a tag has no digest until one looks what is
    /// here.
    pub(super) async fn listed_content(
        &self,
        question: Question<'_>,
        image_id: ImageId,
    ) -> Result<Option<(Admission, VerifiedImage)>, Refusal> {
        for (digest, approval) in self.listed_digests(question)? {
            if let Some(content) = self.content_of(digest, image_id).await? {
                let admission = self.listed(question, approval);
                return self.bound(admission, &content).map(Some);
            }
        }
        Ok(None)
    }

    /// Every digest that the rule of the image lists. Nothing, when the rule denies.
    fn listed_digests(&self, question: Question<'_>) -> Result<Vec<(ManifestDigest, Approval)>, Refusal> {
        let policy = self.policy();
        let demand = policy.trust.demand_for(question, self.now()?);
        let demand = demand.map_err(|reason| Refusal::Trust(countersign_trust::Refusal::of_image(question.image, reason)))?;
        if demand.deny {
            return Ok(Vec::new());
        }
        Ok(demand.allowed_digests().filter_map(|digest| Some((digest, demand.listed(digest)?))).collect())
    }

    /// The allowed digest must lead to this image.
    pub(super) async fn bind(&self, admission: Admission, image_id: ImageId) -> Result<(Admission, VerifiedImage), Refusal> {
        let other = || Refusal::OtherImage { image: Box::new(admission.image.clone()), signed: admission.digest, found: image_id };
        let content = self.content_of(admission.digest, image_id).await?.ok_or_else(other)?;
        self.bound(admission, &content)
    }

    /// What an allowed digest leads to must not be denied, on no step of the way.
    pub fn bound(&self, admission: Admission, content: &ImageContent) -> Result<(Admission, VerifiedImage), Refusal> {
        let digest = admission.digest;
        self.refuse_denied(&admission.image, [digest.hash(), content.manifest.hash(), content.image_id.hash()])?;
        let repository = admission.image.repository().clone();
        Ok((admission, VerifiedImage { repository, digest, image_id: content.image_id, chain_id: content.chain_id }))
    }

    /// Refuses what must never be used under whatever names it goes by, also where a rule lets everything pass: an image is its
    /// config, what its records lead to, and the manifests on the way. Gives what the image is on this node, if a record leads to it
    /// and there was anything to look for.
    ///
    /// # Errors
    /// [`Refusal::Trust`]; what the records lead to cannot be looked at.
    pub async fn refuse_denied_content(
        &self,
        image: &ImageReference,
        names: &[String],
        image_id: ImageId,
    ) -> Result<Option<ImageContent>, Refusal> {
        if !self.has_denied_digests() {
            return Ok(None);
        }
        self.refuse_denied(image, [image_id.hash()])?;
        let (mut found, mut cannot_tell) = (None, None);
        for record in self.containerd.records(names).await? {
            let Ok(target) = record.target.digest.parse::<ManifestDigest>() else { continue };
            self.refuse_denied(image, [target.hash()])?;
            match self.content_of(target, image_id).await {
                Ok(Some(content)) => {
                    self.refuse_denied(image, [content.manifest.hash()])?;
                    found = Some(content);
                }
                // A record that leads elsewhere, or to refused content, is looked at by `check_records`. It hides no other.
                Ok(None) => {}
                Err(Refusal::Content { error, .. }) if error.standing() == ContentStanding::Bad => {}
                Err(refusal) => cannot_tell = cannot_tell.or(Some(refusal)),
            }
        }
        cannot_tell.map_or(Ok(found), Err)
    }

    /// The first image on record that is allowed today; else why the first of them is refused.
    pub(super) async fn first_allowed(
        &self,
        candidates: Vec<VerifiedImage>,
        asker: Asker<'_>,
        none: impl FnOnce() -> Refusal,
    ) -> Result<(Admission, VerifiedImage), Refusal> {
        let mut first_refusal = None;
        for candidate in candidates {
            match self.allowed_on_record(candidate, asker).await {
                Ok(admitted) => return Ok(admitted),
                Err(refusal) => first_refusal = first_refusal.or(Some(refusal)),
            }
        }
        Err(first_refusal.unwrap_or_else(none))
    }

    async fn allowed_on_record(&self, image: VerifiedImage, asker: Asker<'_>) -> Result<(Admission, VerifiedImage), Refusal> {
        let by_digest = ImageReference::by_digest(image.repository.clone(), image.digest);
        let sought = Sought { image: &by_digest, asker };
        let question = sought.question();
        let admission = match self.judge(question) {
            Ok(admission) => admission,
            Err(refusal) => match self.pinned_as(image.digest, sought).await {
                Some(admission) => admission,
                None => self.platform_of_signed(question, refusal).await?,
            },
        };
        // What lies between the digest and the image is looked at only when some of it could be denied.
        if self.has_denied_digests() { self.bind(admission, image.image_id).await } else { Ok((admission, image)) }
    }

    /// Takes away the record of the image's own name, if that is what led to the wrong image: a stale tag, or one that somebody
    /// moved. Whoever asks next finds the image absent, and pulls it. Other refusals stay as they are.
    pub async fn drop_wrong_record(&self, refusal: Refusal) -> Refusal {
        let Refusal::OtherImage { image, signed, found } = refusal else { return refusal };
        match self.remove_record_of(&image, found).await {
            Ok(true) => Refusal::RecordDropped { image, signed, found },
            Ok(false) => Refusal::OtherImage { image, signed, found },
            Err(error) => error,
        }
    }

    async fn remove_record_of(&self, image: &ImageReference, found: ImageId) -> Result<bool, Refusal> {
        let name = record_name(image);
        for record in self.containerd.records(std::slice::from_ref(&name)).await? {
            let Ok(target) = record.target.digest.parse::<ManifestDigest>() else { continue };
            if self.content_of(target, found).await?.is_some() {
                tracing::warn!(record = shown(&record.name), %target, "removed the record of a name that led to another image than it is signed as");
                self.containerd.remove_records(&[name], &record.target.digest).await?;
                return Ok(true);
            }
        }
        Ok(false)
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
    pub async fn check_records(&self, names: &[String], read: Option<RecordsRead>, image_id: ImageId, mode: Mode) -> Result<(), Refusal> {
        let records = match read.filter(|read| names.iter().all(|name| read.names.contains(name))) {
            Some(read) => read.records.into_iter().filter(|record| names.contains(&record.name)).collect(),
            None => self.containerd.records(names).await?,
        };
        for record in records {
            let other = || Refusal::OtherRecord { record: shown(&record.name), expected: image_id };
            let target: ManifestDigest = record.target.digest.parse().map_err(|_| other())?;
            let refusal = match self.content_of(target, image_id).await {
                Ok(Some(_)) => continue,
                Ok(None) => other(),
                Err(refusal) => refusal,
            };
            if mode != Mode::Enforced || !self.is_refused_content(target, Some(image_id)).await {
                return Err(refusal);
            }
            tracing::warn!(record = shown(&record.name), %target, "removed a record of refused content");
            self.containerd.remove_records(&[record.name], &record.target.digest).await?;
        }
        Ok(())
    }

    /// Reads the records that a pull of `named` leaves for the image, while containerd's CRI is asked which there are. None
    /// when they could not be read.
    pub async fn read_likely_records(&self, named: &ImageReference, image_id: ImageId) -> Option<RecordsRead> {
        let on_record = self.memory().ok()?.images_with(&image_id).into_iter().take(MOST_LIKELY_RECORDS);
        let by_digest = on_record.map(|image| ImageReference::by_digest(image.repository, image.digest).to_string());
        let names: BTreeSet<String> = by_digest.chain([named.to_string(), image_id.to_string()]).collect();
        let names: Vec<String> = names.into_iter().collect();
        let records = self.containerd.records(&names).await.ok()?;
        Some(RecordsRead { names, records })
    }

    /// As [`Admit::check_root_fs`], of a container that containerd has just made: a look that found it good while the create was
    /// unanswered serves. One that did not refuses nothing.
    ///
    /// # Errors
    /// As [`Admit::check_root_fs`].
    pub async fn check_made(&self, container_id: &str, chain_id: &ChainId) -> Result<MadeAt, Refusal> {
        if let Some(container) = self.early_looks.found_on(container_id, chain_id).await {
            return Ok(container.made_at);
        }
        self.check_root_fs(container_id, chain_id).await
    }

    /// The container that was really made stands on the root file system of the verified image. Gives back when it was made.
    ///
    /// # Errors
    /// [`Refusal::OtherRootFs`]; [`Refusal::Snapshotter`].
    pub async fn check_root_fs(&self, container_id: &str, chain_id: &ChainId) -> Result<MadeAt, Refusal> {
        let (container, parent) = self.root_fs_of(container_id).await?;
        if stands_on(&parent, chain_id, container.id_mapping.as_ref()) {
            return Ok(container.made_at);
        }
        Err(Refusal::OtherRootFs { expected: *chain_id, found: shown(&parent) })
    }

    /// Keeps in mind, for the start that follows, what a container was made from that passed [`Admit::check_made`]. An
    /// image may be on the node without a record of ours: imported, or pulled when a crash came before the record. No disk
    /// write: whoever was admitted once is admitted again after a restart, from the create on.
    pub fn remember(&self, image: &VerifiedImage) {
        if let Ok(memory) = self.memory() {
            memory.remember_image(image);
        }
    }

    /// Keeps in mind for what a container was made, so that its start is judged for the same. What would take too much memory is
    /// not kept: its start is judged by the strictest rule.
    pub fn remember_container(&self, container_id: &str, asked: Asked) {
        if asked.bytes() > MAX_ASKED_BYTES {
            return;
        }
        if let Ok(memory) = self.memory() {
            memory.remember_container(container_id, asked);
        }
    }

    /// Forgets a container that came through: another one has its ID by now.
    pub fn forget_container(&self, container_id: &str) {
        if let Ok(memory) = self.memory() {
            memory.forget_container(container_id);
        }
        self.forget_started(container_id);
    }

    /// Keeps in mind which pod a sandbox is for.
    pub fn remember_sandbox(&self, sandbox_id: &str, pod: Pod) {
        if let Ok(memory) = self.memory() {
            memory.remember_sandbox(sandbox_id, pod);
        }
    }

    /// The pod of a sandbox that was made here, or looked at, since the daemon started.
    #[must_use]
    pub fn pod_of(&self, sandbox_id: &str) -> Option<Pod> {
        self.memory().ok()?.pod_of(sandbox_id)
    }

    /// For what a container was made, if it was made here since the daemon started.
    #[must_use]
    pub fn asked_for(&self, container_id: &str) -> Option<Asked> {
        self.memory().ok()?.asked_for(container_id)
    }

    /// Judges a container that exists, of a pod in `namespace`: an image that was verified here and is allowed today has its
    /// root file system.
    ///
    /// # Errors
    /// [`Refusal::UnknownRootFs`]; [`Refusal::Snapshotter`]; or why the image on record is refused.
    pub async fn admit_start(self: &Arc<Self>, container_id: &str, asked: Option<&Asked>) -> Result<(Admission, VerifiedImage), Refusal> {
        let (container, parent) = self.root_fs_of(container_id).await?;
        self.admit_volumes(&container, asked.map(Asked::asker).unwrap_or_default(), &[]).await?;
        self.admit_root_fs(&container, &parent, asked).await
    }

    /// As [`Admit::admit_start`], of the root file system alone: what its snapshot stands on is `parent`.
    pub(super) async fn admit_root_fs(
        self: &Arc<Self>,
        container: &ContainerRecord,
        parent: &str,
        asked: Option<&Asked>,
    ) -> Result<(Admission, VerifiedImage), Refusal> {
        let asker = asked.map(Asked::asker).unwrap_or_default();
        let mut candidates = self.memory()?.images_on(|chain| stands_on(parent, chain, container.id_mapping.as_ref()));
        // One that was made for a name is judged for that name: what another name with the same files needs is no matter.
        let Some(image) = asked.and_then(|asked| asked.name.clone()) else {
            return self.first_allowed(candidates, asker, || Refusal::UnknownRootFs { place: Place::Root, found: shown(parent) }).await;
        };
        let mut refusal = Refusal::UnknownRootFs { place: Place::Root, found: shown(parent) };
        candidates.retain(|candidate| candidate.repository == *image.repository());
        for candidate in candidates {
            match self.admit_named(Sought { image: &image, asker }, candidate.image_id).await {
                Ok((admission, verified)) if verified.chain_id == candidate.chain_id => return Ok((admission, verified)),
                Ok(_) => {}
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    pub(super) async fn root_fs_of(&self, container_id: &str) -> Result<Made, Refusal> {
        root_fs_of(&self.containerd, container_id).await
    }
}

/// Whether it is an ID of CRI's from the first digit to the last, of which only one thing has it.
#[must_use]
pub fn is_whole_id(given: &str) -> bool {
    given.len() == ID_DIGITS && given.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// The record of a container, and what its root file system stands on.
pub(super) async fn root_fs_of(containerd: &Containerd, container_id: &str) -> Result<Made, Refusal> {
    let bare = || Refusal::Answer { what: format!("that container {} has no snapshot with a parent", shown(container_id)) };
    // Where CRI puts the snapshot is no secret, but only the record is believed: the guess saves a question, no more.
    let guessed = containerd.snapshot_parent(USUAL_SNAPSHOTTER, container_id);
    let (container, guessed) = tokio::join!(containerd.container(container_id), guessed);
    let container = container?.ok_or_else(|| Refusal::NoContainer { id: shown(container_id) })?;
    if !container.has_unpacked_layers() {
        return Err(Refusal::Snapshotter { name: shown(&container.snapshotter) });
    }
    let parent = if container.snapshotter == USUAL_SNAPSHOTTER && container.snapshot_key == container_id {
        guessed?
    } else {
        containerd.snapshot_parent(&container.snapshotter, &container.snapshot_key).await?
    };
    Ok((container, parent.ok_or_else(bare)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_has_written_of_a_container_is_counted_with_all_its_volumes() {
        let volume = |path: &str| AskedVolume { path: path.into(), given: "r.test/a:1".into(), name: "r.test/a:1".parse().ok() };
        let asked = Asked { image: "r.test/b:1".into(), given: "sha256:ab".into(), ..Asked::default() };
        assert_eq!(asked.bytes(), 19);
        let with_volumes = Asked { volumes: vec![volume("/one"), volume("/two")], ..asked.clone() };
        assert_eq!(with_volumes.bytes(), 19 + 2 * (4 + 10 + 10));
        let usual = Asked { volumes: vec![volume(&"/usual".repeat(20)); 50], ..asked.clone() };
        assert!(usual.bytes() <= MAX_ASKED_BYTES);
        let giant = Asked { volumes: vec![volume(&"/".repeat(MAX_ASKED_BYTES))], ..asked };
        assert!(giant.bytes() > MAX_ASKED_BYTES);
    }
}
