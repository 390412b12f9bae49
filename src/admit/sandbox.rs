//! The image of sandboxes, which containerd chooses and no pod names: which it must be, and what a sandbox stands on.

use std::sync::Arc;

use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageReference, ManifestDigest, Selector, shown};
use countersign_trust::policy::Basis;
use countersign_trust::time::UnixTime;
use countersign_trust::{Approval, Question};

use super::refusal::{Refusal, chain};
use super::{Admission, Admit, Origin};
use crate::containerd::chain::{ImageContent, images_under};
use crate::containerd::{Record, Standing as ContentStanding, stands_on};

/// What a verdict names as its rule where the configuration lists the digest.
const RULE: &str = "containerd.sandbox-image-digests";

/// What sandboxes may run. It is about nothing else: no workload passes by it.
#[derive(Debug, Clone, Default)]
pub struct SandboxImage {
    /// The name that containerd is configured with, if the operator wrote it down.
    pub name: Option<ImageReference>,
    /// The digests that it may have, the preferred first. Empty: its signatures decide.
    pub digests: Vec<ManifestDigest>,
}

impl SandboxImage {
    /// The admission of `name`, if it names a digest that the configuration lists.
    pub(super) fn listed(&self, name: &ImageReference, mode: Mode) -> Option<Admission> {
        let Selector::Digest(digest) = name.selector() else { return None };
        self.digests.contains(digest).then(|| listed(name, *digest, mode))
    }
}

fn listed(name: &ImageReference, digest: ManifestDigest, mode: Mode) -> Admission {
    let approval = Approval { digest, basis: Basis::ListedByRule, rule: RULE.to_owned(), valid_until: UnixTime::NEVER };
    Admission { image: name.clone(), approval, digest, origin: Origin::Rule, evidence: None, mode, pinned_at: None }
}

/// Under which name containerd keeps `image`: with a tag and a digest it drops the tag.
#[must_use]
pub fn record_name(image: &ImageReference) -> String {
    match image.selector() {
        Selector::Tag(_) | Selector::Digest(_) => image.to_string(),
        Selector::TagAndDigest(_, digest) => ImageReference::by_digest(image.repository().clone(), *digest).to_string(),
    }
}

impl Admit {
    /// The name of the image of sandboxes, if the operator wrote it down.
    #[must_use]
    pub fn sandbox_name(&self) -> Option<ImageReference> {
        self.policy().sandbox.name.clone()
    }

    /// Judges `name`, which has these records on the node, as the image of sandboxes: by the digests that the configuration lists
    /// for it, else by its signatures. What is held of its repository decides; only if nothing is, its trust server is asked.
    ///
    /// # Errors
    /// [`Refusal::Sandbox`].
    pub async fn admit_sandbox(self: &Arc<Self>, name: &ImageReference, records: &[Record]) -> Result<Admission, Refusal> {
        let judged = match self.policy().sandbox.digests.as_slice() {
            [] => self.judge_sandbox(name).await,
            digests => self.listed_sandbox(name, records, digests),
        };
        judged.map_err(|refusal| Refusal::sandbox(name, refusal))
    }

    async fn judge_sandbox(self: &Arc<Self>, name: &ImageReference) -> Result<Admission, Refusal> {
        let question = Question::without_namespace(name);
        match self.judge(question) {
            Err(Refusal::NotHeld { .. } | Refusal::ServerNotAsked { .. }) => self.pull(question.into(), None).await,
            judged => judged,
        }
    }

    /// The listed digest that the name means on this node, so that nothing is pulled without need; else the preferred.
    fn listed_sandbox(&self, name: &ImageReference, records: &[Record], digests: &[ManifestDigest]) -> Result<Admission, Refusal> {
        let mut present = records.iter().filter_map(|record| record.target.digest.parse::<ManifestDigest>().ok());
        let present = present.find(|digest| digests.contains(digest));
        let Some(digest) = present.or_else(|| digests.first().copied()) else {
            return Err(Refusal::Internal { what: "no digest is listed" });
        };
        self.refuse_denied(name, [digest.hash()])?;
        Ok(listed(name, digest, self.mode()))
    }

    /// Every image that `digest` means on this node, of which none must be denied. Empty if its content is not here.
    ///
    /// # Errors
    /// [`Refusal::Content`]; [`Refusal::Trust`].
    pub async fn sandbox_content(&self, name: &ImageReference, digest: ManifestDigest) -> Result<Vec<ImageContent>, Refusal> {
        let images = match images_under(&self.containerd, digest).await {
            Err(error) if error.standing() == ContentStanding::Absent => return Ok(Vec::new()),
            images => images.map_err(|error| Refusal::Content { digest, error: Arc::new(error) })?,
        };
        for image in &images {
            self.refuse_denied(name, [image.manifest.hash(), image.image_id.hash()])?;
        }
        Ok(images)
    }

    /// Keeps kubelet's image garbage collection from the image of sandboxes. containerd 1.7 does so when it pulls it by the
    /// configured name, which is not how the gate pulls it. A pod does not wait for it.
    pub async fn keep_sandbox_image(&self, record: &Record) {
        if record.pinned {
            return;
        }
        if let Err(error) = self.containerd.pin_record(record).await {
            let (record, error) = (shown(&record.name), chain(&error));
            tracing::warn!(record, error, "kubelet's image garbage collection may remove the image of sandboxes: it could not be pinned");
        }
    }

    /// The sandbox that was really made stands on the root file system of one of these images.
    ///
    /// # Errors
    /// [`Refusal::OtherRootFs`]; [`Refusal::Snapshotter`].
    pub async fn check_sandbox(&self, sandbox_id: &str, images: &[ImageContent]) -> Result<(), Refusal> {
        let (container, parent) = self.root_fs_of(sandbox_id).await?;
        let mapping = container.id_mapping.as_ref();
        if images.iter().any(|image| stands_on(&parent, &image.chain_id, mapping)) {
            return Ok(());
        }
        let expected = images.first().ok_or(Refusal::Internal { what: "a sandbox of no image" })?.chain_id;
        Err(Refusal::OtherRootFs { expected, found: shown(&parent) })
    }
}
