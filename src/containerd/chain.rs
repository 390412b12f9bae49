//! What an image is: from the digest that a signature names, by content alone, to the chain ID of its layers.
//!
//! Digest → (index → children) → manifest → config → `diff_ids` → chain ID. Each document is hashed on the way, so
//! the answer is as true as the digest, whoever wrote the content store; no name, label or platform is believed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::sync::{Mutex, PoisonError};

use countersign_trust::name::{ChainId, ImageId, ManifestDigest, Sha256};

use super::Containerd;
use super::document::{self, Child, Document, MAX_CHILDREN, Manifest};
use super::error::{ContainerdError, ContentError};

/// Bytes of an index or manifest: what Docker's registry takes (distribution, "manifest too large", 4 MiB).
pub const MANIFEST_LIMIT: u64 = 4 * 1024 * 1024;
/// Bytes of a config: twice a manifest, since histories and labels grow with the build, and no registry limits them.
pub const CONFIG_LIMIT: u64 = 8 * 1024 * 1024;
/// Indexes above each other: one of platforms, and one of such indexes, as some build tools nest them.
pub const MAX_INDEX_DEPTH: usize = 2;
/// Digests whose meaning is kept in memory: more than kubelet keeps images on a node, and at most some 25 MiB.
const MAX_REMEMBERED: usize = 1024;

/// One image below a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageContent {
    /// Its manifest.
    pub manifest: ManifestDigest,
    /// Its config: containerd's image ID.
    pub image_id: ImageId,
    /// Its root file system.
    pub chain_id: ChainId,
}

/// Where content comes from: containerd, or a test's own.
pub(super) trait Blobs: Sync {
    /// The bytes named `digest`, verified; None if there are none.
    fn blob(&self, digest: &Sha256, limit: u64) -> impl Future<Output = Result<Option<Vec<u8>>, ContainerdError>> + Send;
}

impl Blobs for Containerd {
    async fn blob(&self, digest: &Sha256, limit: u64) -> Result<Option<Vec<u8>>, ContainerdError> {
        self.content(digest, limit).await
    }
}

/// Every image that `digest`, of an index or a manifest, means on this node, in no particular order.
///
/// Children of an index whose content is not on this node are left out, and so are artifacts (children that are no
/// images, such as attestations): what is left out is denied if it is ever run. The same digest alone is refused.
///
/// # Errors
/// [`ContentError`]: the content of `digest` itself is absent, anything on the way is bad, or containerd cannot tell.
pub async fn images_under(containerd: &Containerd, digest: ManifestDigest) -> Result<Vec<ImageContent>, ContentError> {
    images_of(containerd, containerd.remembered(), digest).await
}

/// Whether `digest` means, on this node, something that is no image and has the config `image_id` all the same: containerd takes
/// it for that image.
///
/// # Errors
/// As [`images_under`].
pub async fn is_artifact_of(containerd: &Containerd, digest: ManifestDigest, image_id: &ImageId) -> Result<bool, ContentError> {
    let meaning = meaning_of(containerd, containerd.remembered(), digest).await?;
    Ok(meaning.artifacts.contains(image_id))
}

/// The image below `digest` whose config is `image_id`, or None if there is none on this node.
///
/// Asks containerd nothing if the answer is remembered, also for an index of which only one child is on this node.
///
/// # Errors
/// As [`images_under`].
pub async fn image_under(
    containerd: &Containerd,
    digest: ManifestDigest,
    image_id: &ImageId,
) -> Result<Option<ImageContent>, ContentError> {
    image_of(containerd, containerd.remembered(), digest, image_id).await
}

async fn images_of(blobs: &impl Blobs, remembered: &Remembered, digest: ManifestDigest) -> Result<Vec<ImageContent>, ContentError> {
    meaning_of(blobs, remembered, digest).await.map(|meaning| meaning.images)
}

async fn meaning_of(blobs: &impl Blobs, remembered: &Remembered, digest: ManifestDigest) -> Result<Meaning, ContentError> {
    if let Some(meaning) = remembered.meaning(&digest).filter(|meaning| meaning.is_complete) {
        return Ok(meaning);
    }
    let meaning = Walk::new(blobs, digest).finish().await?;
    remembered.keep(digest, meaning.clone());
    Ok(meaning)
}

async fn image_of(
    blobs: &impl Blobs,
    remembered: &Remembered,
    digest: ManifestDigest,
    image_id: &ImageId,
) -> Result<Option<ImageContent>, ContentError> {
    let find = |images: Vec<ImageContent>| images.into_iter().find(|image| image.image_id == *image_id);
    if let Some(found) = remembered.meaning(&digest).and_then(|meaning| find(meaning.images)) {
        return Ok(Some(found));
    }
    images_of(blobs, remembered, digest).await.map(find)
}

/// What a digest means. It is bound by hashes and never changes, but it may not be known in full.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Meaning {
    images: Vec<ImageContent>,
    /// The configs of children that are no images.
    artifacts: Vec<ImageId>,
    /// False if content of some child was absent when it was looked for: it may have come since.
    is_complete: bool,
}

/// The meanings of digests that were worked out before; the oldest makes room. Errors are never kept.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<(BTreeMap<ManifestDigest, Meaning>, VecDeque<ManifestDigest>)>);

impl Remembered {
    fn meaning(&self, digest: &ManifestDigest) -> Option<Meaning> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.0.get(digest).cloned()
    }

    fn keep(&self, digest: ManifestDigest, meaning: Meaning) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (meanings, order) = &mut *kept;
        // Content that has gone since takes nothing away from what is true.
        let knows_less = |old: &Meaning| !meaning.is_complete && meaning.images.len() < old.images.len();
        if meanings.get(&digest).is_some_and(knows_less) {
            return;
        }
        if meanings.insert(digest, meaning).is_none() {
            order.push_back(digest);
        }
        if order.len() > MAX_REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            meanings.remove(&oldest);
        }
    }
}

/// A document that is still to be read.
struct Step {
    digest: ManifestDigest,
    /// The descriptor that named it; None for the digest that was asked for.
    named_by: Option<Child>,
    /// Indexes above it.
    depth: usize,
}

struct Walk<'a, B> {
    blobs: &'a B,
    steps: VecDeque<Step>,
    seen: BTreeSet<ManifestDigest>,
    found: Meaning,
}

impl<'a, B: Blobs> Walk<'a, B> {
    fn new(blobs: &'a B, top: ManifestDigest) -> Self {
        Self {
            blobs,
            steps: VecDeque::from([Step { digest: top, named_by: None, depth: 0 }]),
            seen: BTreeSet::from([top]),
            found: Meaning { images: Vec::new(), artifacts: Vec::new(), is_complete: true },
        }
    }

    async fn finish(mut self) -> Result<Meaning, ContentError> {
        while let Some(step) = self.steps.pop_front() {
            match self.step(&step).await {
                Ok(()) => {}
                // Absence and being no image concern a child alone; the digest that was asked for must be an image.
                Err(ContentError::Absent { .. }) if step.named_by.is_some() => self.found.is_complete = false,
                Err(ContentError::NotAnImage { config, .. }) if step.named_by.is_some() => self.found.artifacts.push(config),
                Err(error) => return Err(error),
            }
        }
        Ok(self.found)
    }

    async fn step(&mut self, step: &Step) -> Result<(), ContentError> {
        let said = step.named_by.as_ref();
        let bytes = self.read(step.digest.hash(), MANIFEST_LIMIT, said.map(|child| child.size)).await?;
        match document::read(*step.digest.hash(), &bytes, said.map(|child| child.media_type.as_str()))? {
            Document::Index(children) => self.descend(step, children),
            Document::Manifest(manifest) => {
                self.found.images.push(self.image(step.digest, &manifest).await?);
                Ok(())
            }
        }
    }

    fn descend(&mut self, step: &Step, children: Vec<Child>) -> Result<(), ContentError> {
        let digest = *step.digest.hash();
        let depth = step.depth + 1;
        if depth > MAX_INDEX_DEPTH {
            return Err(ContentError::TooDeep { digest, limit: MAX_INDEX_DEPTH });
        }
        for child in children.into_iter().filter(Child::is_image) {
            if self.seen.insert(child.digest) {
                self.steps.push_back(Step { digest: child.digest, named_by: Some(child), depth });
            }
        }
        let count = self.seen.len() - 1;
        if count > MAX_CHILDREN {
            return Err(ContentError::TooMany { digest, what: "children at all levels", count, limit: MAX_CHILDREN });
        }
        Ok(())
    }

    async fn image(&self, digest: ManifestDigest, manifest: &Manifest) -> Result<ImageContent, ContentError> {
        let config = self.read(manifest.config.hash(), CONFIG_LIMIT, Some(manifest.config_size)).await?;
        let diff_ids = document::diff_ids(*manifest.config.hash(), &config)?;
        let Some((lowest, above)) = diff_ids.split_first() else {
            return Err(ContentError::NoLayers { digest: *manifest.config.hash() });
        };
        if diff_ids.len() != manifest.layers {
            let (layers, diff_ids) = (manifest.layers, diff_ids.len());
            return Err(ContentError::LayerCount { digest: *digest.hash(), layers, diff_ids });
        }
        Ok(ImageContent { manifest: digest, image_id: manifest.config, chain_id: chain_id(lowest, above) })
    }

    async fn read(&self, digest: &Sha256, limit: u64, promised: Option<u64>) -> Result<Vec<u8>, ContentError> {
        let Some(bytes) = self.blobs.blob(digest, limit).await? else { return Err(ContentError::Absent { digest: *digest }) };
        let found = bytes.len() as u64;
        match promised.filter(|promised| *promised != found) {
            Some(promised) => Err(ContentError::Size { digest: *digest, promised, found }),
            None => Ok(bytes),
        }
    }
}

/// The name of a stack of layers (OCI image specification, "Layer ChainID").
fn chain_id(lowest: &Sha256, above: &[Sha256]) -> ChainId {
    let on_top = |below: Sha256, next: &Sha256| Sha256::of(format!("sha256:{below} sha256:{next}").as_bytes());
    ChainId::new(above.iter().fold(*lowest, on_top))
}

#[cfg(test)]
mod tests;
