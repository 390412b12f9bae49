//! What is read of a container's OCI runtime specification, which containerd wrote: how owners are shifted, and which images
//! are mounted.

use countersign_trust::name::ManifestDigest;
use serde::Deserialize;

use super::remap::IdMapping;

/// Below its state, containerd 2.1 and later mounts images at `image-volumes/<sandbox>/<digest>`, and names each snapshot after
/// that place (containerd, `getImageVolumeHostPath`).
const IMAGE_VOLUMES: &str = "image-volumes";
/// Parts of that place below it.
const PARTS: usize = 2;

/// A mount of a container that may show an image: only a snapshot of that name tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMount {
    /// Where the container sees it.
    pub destination: String,
    /// What its snapshot is named, if it is one.
    pub snapshot_key: String,
}

impl VolumeMount {
    /// What the record led to that containerd took the image from, as its place says: an index or a manifest. Only content that has
    /// the files of the snapshot makes that true.
    #[must_use]
    pub fn target(&self) -> Option<ManifestDigest> {
        let digits = self.snapshot_key.rsplit('/').next()?;
        format!("sha256:{digits}").parse().ok()
    }
}

/// Whether a container of this specification may show images besides that of its root file system. So may one of which it cannot be
/// told.
pub(super) fn may_show_images(specification: &[u8]) -> bool {
    !RuntimeSpec::read(specification).is_ok_and(|spec| spec.volumes.is_empty())
}

/// The parts of a specification that are read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RuntimeSpec {
    pub(super) id_mapping: Option<IdMapping>,
    pub(super) volumes: Vec<VolumeMount>,
}

#[derive(Deserialize)]
struct Spec {
    #[serde(default)]
    mounts: Vec<Mount>,
    #[serde(default)]
    linux: Option<Linux>,
}

#[derive(Deserialize)]
struct Mount {
    #[serde(default)]
    destination: String,
    #[serde(default)]
    source: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(default)]
    uid_mappings: Vec<Line>,
    #[serde(default)]
    gid_mappings: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(rename = "containerID")]
    container_id: u32,
    #[serde(rename = "hostID")]
    host_id: u32,
    size: u32,
}

impl RuntimeSpec {
    /// Reads a specification.
    ///
    /// # Errors
    /// If the text is none.
    pub(super) fn read(text: &[u8]) -> Result<Self, serde_json::Error> {
        let Spec { mounts, linux } = serde_json::from_slice(text)?;
        let volumes = mounts.into_iter().filter_map(|mount| {
            let snapshot_key = snapshot_key(&mount.source)?.to_owned();
            Some(VolumeMount { destination: mount.destination, snapshot_key })
        });
        Ok(Self { id_mapping: linux.as_ref().and_then(Linux::id_mapping), volumes: volumes.collect() })
    }
}

/// What the snapshot is named that a mount from `source` shows, or shows a directory of.
fn snapshot_key(source: &str) -> Option<&str> {
    let mut end = source.find(&format!("/{IMAGE_VOLUMES}/"))? + 1 + IMAGE_VOLUMES.len();
    for _ in 0..PARTS {
        let rest = source.get(end + 1..)?;
        end += 1 + rest.find('/').unwrap_or(rest.len());
    }
    source.get(..end)
}

impl Linux {
    /// How owners are shifted. None if they are not, or in a way that CRI does not make, which no snapshot's name can be
    /// recomputed from.
    fn id_mapping(&self) -> Option<IdMapping> {
        let ([uids], [gids]) = (self.uid_mappings.as_slice(), self.gid_mappings.as_slice()) else { return None };
        if (uids.container_id, gids.container_id) != (0, 0) {
            return None;
        }
        Some(IdMapping { host_uid: uids.host_id, host_gid: gids.host_id, size: uids.size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPING: IdMapping = IdMapping { host_uid: 65_536, host_gid: 131_072, size: 4096 };

    #[test]
    fn a_place_says_what_the_record_of_the_image_led_to() {
        let at = |snapshot_key: String| VolumeMount { destination: "/v".to_owned(), snapshot_key };
        let digits = "ab".repeat(32);
        assert_eq!(at(format!("/run/image-volumes/s/{digits}")).target(), format!("sha256:{digits}").parse().ok());
        for other in ["", "/run/image-volumes/s/", "/run/image-volumes/s/latest"] {
            assert_eq!(at(other.to_owned()).target(), None, "{other}");
        }
    }

    #[test]
    fn what_cannot_be_read_may_show_images() {
        assert!(!may_show_images(br#"{"mounts":[{"destination":"/d","source":"/srv/data"}]}"#));
        assert!(!may_show_images(b"{}"));
        for may in [br#"{"mounts":[{"destination":"/d","source":"/run/image-volumes/s/ab"}]}"#.as_slice(), b"", b"nonsense"] {
            assert!(may_show_images(may), "{}", String::from_utf8_lossy(may));
        }
    }

    #[test]
    fn a_mount_from_below_the_image_volumes_names_its_snapshot() {
        let base = "/run/containerd/io.containerd.grpc.v1.cri/image-volumes/abc/def";
        for source in [base.to_owned(), format!("{base}/"), format!("{base}/sub/path")] {
            assert_eq!(snapshot_key(&source), Some(base), "{source}");
        }
        for none in [
            "",
            "/",
            "/var/lib/kubelet",
            "/run/image-volumes",
            "/run/image-volumes/",
            "/run/image-volumes/abc",
            "/run/my-image-volumes/a/b",
        ] {
            assert_eq!(snapshot_key(none), None, "{none}");
        }
        let text =
            format!(r#"{{"mounts":[{{"destination":"/proc","type":"proc","source":"proc"}},{{"destination":"/v","source":"{base}"}}]}}"#);
        let want = VolumeMount { destination: "/v".to_owned(), snapshot_key: base.to_owned() };
        assert_eq!(RuntimeSpec::read(text.as_bytes()).unwrap().volumes, [want]);
    }

    #[test]
    fn the_mapping_is_read_from_the_containers_specification() {
        let spec = |uids: &str, gids: &str| {
            let text = format!(r#"{{"ociVersion":"1.1","linux":{{"uidMappings":{uids},"gidMappings":{gids},"resources":{{}}}}}}"#);
            RuntimeSpec::read(text.as_bytes()).unwrap().id_mapping
        };
        let uids = r#"[{"containerID":0,"hostID":65536,"size":4096}]"#;
        let gids = r#"[{"containerID":0,"hostID":131072,"size":4096}]"#;
        assert_eq!(spec(uids, gids), Some(MAPPING));
        assert_eq!(spec("[]", "[]"), None);
        assert_eq!(spec(uids, "[]"), None);
        let two = r#"[{"containerID":0,"hostID":1,"size":1},{"containerID":1,"hostID":7,"size":1}]"#;
        assert_eq!(spec(two, gids), None);
        assert_eq!(spec(r#"[{"containerID":1,"hostID":65536,"size":4096}]"#, gids), None);
        assert_eq!(RuntimeSpec::read(br#"{"ociVersion":"1.1"}"#).unwrap().id_mapping, None);
        assert_eq!(RuntimeSpec::read(br#"{"linux":{}}"#).unwrap().id_mapping, None);
        assert!(RuntimeSpec::read(b"{").is_err());
    }
}
