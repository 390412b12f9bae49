//! Image volumes: what a container's mounts show, by content.

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign_trust::name::{ChainId, ImageId, ImageReference, ManifestDigest, shown};

use super::refusal::{Place, Refusal};
use super::{Admit, Asker, ImageContent};
use crate::containerd::chain::images_under;
use crate::containerd::{ContainerRecord, IdMapping, Standing, VolumeMount, stands_on};
use crate::ledger::RanVolume;

/// What is said of a volume whose snapshot is not found.
const NO_SNAPSHOT: &str = "no snapshot of an image";

/// An image volume of a container, and what it has to show.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Where the container sees it.
    pub path: String,
    /// The root file system of its image.
    pub chain_id: ChainId,
}

impl Admit {
    /// Each of the image volumes that a container was asked to have shows the root file system of its image.
    ///
    /// # Errors
    /// [`Refusal::OtherVolume`].
    pub async fn check_volumes(&self, container_id: &str, volumes: &[Volume]) -> Result<(), Refusal> {
        if volumes.is_empty() {
            return Ok(());
        }
        let (container, _) = self.root_fs_of(container_id).await?;
        for Volume { path, chain_id } in volumes {
            let mounts: Vec<_> = container.volumes.iter().filter(|mount| is_same_place(&mount.destination, path)).collect();
            let other = |found: &str| Refusal::OtherVolume { path: shown(path), expected: *chain_id, found: shown(found) };
            if mounts.is_empty() {
                return Err(other(NO_SNAPSHOT));
            }
            // All of them: of two mounts at one place the later one is seen.
            for mount in mounts {
                let parent = self.containerd.snapshot_parent(&container.snapshotter, &mount.snapshot_key).await?;
                let parent = parent.as_deref().unwrap_or(NO_SNAPSHOT);
                if !stands_on(parent, chain_id, container.id_mapping.as_ref()) {
                    return Err(other(parent));
                }
            }
        }
        Ok(())
    }

    /// Every image that a container's mounts show was verified here, and is allowed today; or it is one of those that the container
    /// `ran` with before.
    pub(super) async fn admit_volumes(
        self: &Arc<Self>,
        container: &ContainerRecord,
        asker: Asker<'_>,
        ran: &[RanVolume],
    ) -> Result<(), Refusal> {
        for shown_image in self.images_shown_by(container).await? {
            if !ran.iter().any(|volume| shown_image.is_of(&volume.content.chain_id)) {
                self.admit_shown(&shown_image, asker).await?;
            }
        }
        Ok(())
    }

    /// What a container's mounts show was verified here, and is allowed today.
    pub(super) async fn admit_shown(self: &Arc<Self>, shown_image: &ShownImage<'_>, asker: Asker<'_>) -> Result<(), Refusal> {
        let candidates = self.memory()?.images_on(|chain| shown_image.is_of(chain));
        let unknown =
            || Refusal::UnknownRootFs { place: Place::Volume(shown(&shown_image.mount.destination)), found: shown(&shown_image.parent) };
        self.first_allowed(candidates, asker, unknown).await.map(drop)
    }

    /// The images that a container's mounts show, each once.
    pub(super) async fn images_shown_by<'c>(&self, container: &'c ContainerRecord) -> Result<Vec<ShownImage<'c>>, Refusal> {
        let (mut looked_at, mut found) = (BTreeSet::new(), Vec::new());
        for mount in &container.volumes {
            if !looked_at.insert(&mount.snapshot_key) {
                continue;
            }
            // Without a snapshot it is a directory of the host that is called so.
            let Some(parent) = self.containerd.snapshot_parent(&container.snapshotter, &mount.snapshot_key).await? else { continue };
            found.push(ShownImage { mount, parent, id_mapping: container.id_mapping.as_ref() });
        }
        Ok(found)
    }

    /// What is shown, by content: every image below what it was taken from that has these files. None if none is on this node.
    pub(super) async fn contents_shown(&self, shown_image: &ShownImage<'_>) -> Result<Vec<(ManifestDigest, ImageContent)>, Refusal> {
        let Some(target) = shown_image.mount.target() else { return Ok(Vec::new()) };
        let contents = match images_under(&self.containerd, target).await {
            Ok(contents) => contents,
            Err(error) if error.standing() == Standing::Absent => return Ok(Vec::new()),
            Err(error) => return Err(Refusal::Content { digest: target, error: Arc::new(error) }),
        };
        let shown = contents.into_iter().filter(|content| shown_image.is_of(&content.chain_id));
        Ok(shown.map(|content| (target, content)).collect())
    }

    /// Whether a container shows images in volumes, as far as can be told: what cannot be looked at may.
    pub async fn may_show_images(&self, container_id: &str) -> bool {
        let Ok((container, _)) = self.root_fs_of(container_id).await else { return true };
        !self.images_shown_by(&container).await.is_ok_and(|images| images.is_empty())
    }

    /// The names of the records that lead to `target`.
    pub(super) async fn names_leading_to(&self, target: &ManifestDigest) -> Result<Vec<ImageReference>, Refusal> {
        let records = self.containerd.records_to(target).await?;
        Ok(records.iter().filter(|record| record.name.parse::<ImageId>().is_err()).filter_map(|record| record.name.parse().ok()).collect())
    }
}

/// An image that a mount of a container shows.
pub(super) struct ShownImage<'c> {
    mount: &'c VolumeMount,
    /// What its snapshot stands on.
    parent: String,
    id_mapping: Option<&'c IdMapping>,
}

impl ShownImage<'_> {
    /// Whether it has the files of this root file system.
    pub(super) fn is_of(&self, chain_id: &ChainId) -> bool {
        stands_on(&self.parent, chain_id, self.id_mapping)
    }
}

/// Whether two paths in a container are one: containerd may clean what it was given.
fn is_same_place(one: &str, other: &str) -> bool {
    let parts = |path: &str| path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect::<Vec<_>>();
    parts(one) == parts(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_the_same_however_it_is_written() {
        for same in ["/data/v", "/data/v/", "//data/./v", "data/v"] {
            assert!(is_same_place("/data/v", same), "{same}");
        }
        for other in ["/data", "/data/v/w", "/data/../v", "/dataa/v", ""] {
            assert!(!is_same_place("/data/v", other), "{other}");
        }
    }
}
