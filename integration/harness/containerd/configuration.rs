//! The configuration file of each release of containerd.
//!
//! `restrict_oom_score_adj` lets containers start where `CAP_SYS_RESOURCE` is missing. `Root` keeps runc's own records in the
//! folder too: by default they lie in `/run/containerd/runc`, shared by all containerds of the machine. So does the socket of
//! NRI, which is switched off.

use std::path::Path;

use super::super::process::text;
use super::Version;

/// What the file is to say, whatever its form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings<'a> {
    /// Where containerd's folders and its socket are.
    pub(super) home: &'a Path,
    /// The name of the sandbox image.
    pub(super) sandbox_image: &'a str,
    /// The snapshotter of images and containers.
    pub(super) snapshotter: &'a str,
}

impl Settings<'_> {
    /// The whole file.
    pub(super) fn for_version(self, version: Version) -> String {
        match version {
            Version::V1_6 => self.version_2(),
            Version::V1_7 => self.version_2() + NO_NRI,
            Version::V2_1 => self.version_3(),
        }
    }

    fn version_2(self) -> String {
        let Self { sandbox_image, snapshotter, .. } = self;
        let home = text(self.home);
        let common = common(2, &home);
        format!(
            r#"{common}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{sandbox_image}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{home}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{home}/certs.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{home}/runc"
        SystemdCgroup = false
"#
        )
    }

    /// From 2.0 on images and containers are plugins of their own, and pulls are the transfer service's, which has to be
    /// told where to unpack.
    fn version_3(self) -> String {
        let Self { sandbox_image, snapshotter, .. } = self;
        let home = text(self.home);
        let common = common(3, &home);
        format!(
            r#"{common}{NO_NRI}
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = "{snapshotter}"
[plugins."io.containerd.image-verifier.v1.bindir"]
  bin_dir = "{home}/verifiers"
  per_verifier_timeout = "30s"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{sandbox_image}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{home}/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  enable_unprivileged_ports = false
  enable_unprivileged_icmp = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{home}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      Root = "{home}/runc"
      SystemdCgroup = false
"#
        )
    }
}

/// 1.6 has no such plugin.
const NO_NRI: &str = "\n[plugins.\"io.containerd.nri.v1.nri\"]\n  disable = true\n";

fn common(version: u8, home: &str) -> String {
    format!(
        r#"version = {version}
root = "{home}/root"
state = "{home}/state"
[grpc]
  address = "{home}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{home}/opt""#
    )
}
