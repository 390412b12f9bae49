//! Image volumes: what a container's mounts show, by content.

use std::sync::Arc;

use countersign_trust::name::{ChainId, shown};

use super::refusal::Refusal;
use super::{Admit, Asker};
use crate::containerd::{ContainerRecord, stands_on};

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

    /// Every image that a container's mounts show was verified here, and is allowed today.
    pub(super) async fn admit_volumes(self: &Arc<Self>, container: &ContainerRecord, asker: Asker<'_>) -> Result<(), Refusal> {
        for mount in &container.volumes {
            // Without a snapshot it is a directory of the host that is called so.
            let Some(parent) = self.containerd.snapshot_parent(&container.snapshotter, &mount.snapshot_key).await? else { continue };
            let candidates = self.memory()?.images_on(|chain| stands_on(&parent, chain, container.id_mapping.as_ref()));
            self.first_allowed(candidates, asker, || Refusal::UnknownRootFs { found: shown(&parent) }).await?;
        }
        Ok(())
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
