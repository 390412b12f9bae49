//! A real containerd in a folder of its own, with root, state and socket there; several run side by side.

use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tonic::Status;

use super::Must as _;
use super::folder::Folder;
use super::image::Recipe;
use super::leftovers;
use super::process::{Launch, Ready, Server, text};
use super::registry::{Registry, write_hosts_toml};
use super::tls::Ca;
use super::{cri::Cri, ctr::Ctr};

/// `OVERLAYFS_SUPER_MAGIC` of Linux's `magic.h`.
const OVERLAYFS_MAGIC: i64 = 0x794c_7630;

/// How long CRI may take to fail on an event, on a busy machine.
const FAILS_WITHIN: Duration = Duration::from_secs(10);

/// Which containerd is meant, and so which form of configuration it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// 1.6, as in Debian 12.
    #[default]
    V1_6,
}

/// Which containerd to start.
#[derive(Debug, Clone, Default)]
pub struct ContainerdOptions {
    /// Its version.
    pub version: Version,
    /// A folder that comes first on PATH: with `containerd`, `ctr` and the matching `containerd-shim-runc-v2` of another
    /// release, but without its `runc`, which may need a newer libc than this machine has. None: what is installed.
    pub programs: Option<PathBuf>,
    /// The snapshotter of images and containers. None: overlayfs, where it works.
    pub snapshotter: Option<&'static str>,
}

/// A running containerd.
#[derive(Debug)]
pub struct Containerd {
    /// The process. Its containers go on when it stops, as everywhere.
    pub server: Server,
    folder: PathBuf,
    pods: PathBuf,
    programs: Option<PathBuf>,
}

impl Containerd {
    /// Starts it. Its sandbox image is `sandbox_image`, which has to be pullable before the first pod.
    pub async fn start(folder: &Folder, options: &ContainerdOptions, registry: &Registry, ca: &Ca, sandbox_image: &str) -> Self {
        let home = folder.sub("containerd");
        write_hosts_toml(&folder.sub("containerd/certs.d"), registry, ca);
        let configuration = match options.version {
            Version::V1_6 => configuration_1_6(&home, sandbox_image, options.snapshotter.unwrap_or_else(|| usual_snapshotter(&home))),
        };
        let file = folder.configuration("containerd.toml", &configuration);
        let path = search_path(options.programs.as_deref());
        let program = options.programs.as_ref().map_or_else(|| PathBuf::from("containerd"), |folder| folder.join("containerd"));
        let launch = Launch::new("containerd", program).arg("--config").path(&file).env("PATH", path);
        let server = launch.start(&folder.logs(), Ready::Socket(socket_in(&home))).await;
        let containerd =
            Self { server, folder: folder.path().to_owned(), pods: folder.logs().join("pods"), programs: options.programs.clone() };
        containerd.cri().ready().await;
        containerd
    }

    /// Ends it with SIGKILL and starts it again; its containers go on.
    pub async fn crash_and_restart(&mut self) {
        self.server.kill();
        self.server.start().await;
        self.cri().ready().await;
    }

    /// Its socket, where it serves CRI and its own API.
    pub fn socket(&self) -> PathBuf {
        socket_in(&self.folder.join("containerd"))
    }

    /// A CRI client straight to it, past the gate.
    pub fn cri(&self) -> Cri {
        self.cri_through(&self.socket())
    }

    /// A CRI client through another socket, with the same folder for container logs and the same control group.
    pub fn cri_through(&self, socket: &Path) -> Cri {
        Cri::new(socket, &self.pods, &leftovers::cgroup_of(&self.folder))
    }

    /// Makes CRI keep its view of a record for a second or more, whatever it targets from now on: the event of a record that
    /// leads nowhere fails, and later events of that name wait until it is tried again. Returns when CRI has failed on it.
    pub async fn blind_cri(&self, record: &str) -> Result<(), Status> {
        let failures = || self.server.log().lines().filter(|line| line.contains("Failed to handle event") && line.contains(record)).count();
        let before = failures();
        self.ctr().retarget(record, Recipe::prints("an image that is not here").build().top()).await?;
        let deadline = Instant::now() + FAILS_WITHIN;
        while failures() == before {
            assert!(Instant::now() < deadline, "CRI did not fail on the event of {record}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Its own tool, for what CRI cannot do.
    pub fn ctr(&self) -> Ctr {
        let program = self.programs.as_ref().map_or_else(|| PathBuf::from("ctr"), |folder| folder.join("ctr"));
        Ctr::new(&self.socket(), program)
    }
}

fn socket_in(home: &Path) -> PathBuf {
    home.join("containerd.sock")
}

/// overlayfs, but on top of itself, as in a container, where the kernel does not take it.
fn usual_snapshotter(home: &Path) -> &'static str {
    let file_system = rustix::fs::statfs(home).must("asking for a file system").f_type;
    if file_system == OVERLAYFS_MAGIC { "native" } else { "overlayfs" }
}

fn search_path(first: Option<&Path>) -> String {
    let system = env::var("PATH").unwrap_or_default();
    // runc is in /usr/sbin, which the PATH of a person who is not root may lack.
    let system = format!("{system}:/usr/sbin:/sbin");
    first.map_or_else(|| system.clone(), |folder| format!("{}:{system}", text(folder)))
}

/// `restrict_oom_score_adj` lets containers start where `CAP_SYS_RESOURCE` is missing. `Root` keeps runc's own records in the
/// folder too: by default they lie in `/run/containerd/runc`, shared by all containerds of the machine.
fn configuration_1_6(home: &Path, sandbox_image: &str, snapshotter: &str) -> String {
    let home = text(home);
    format!(
        r#"version = 2
root = "{home}/root"
state = "{home}/state"
[grpc]
  address = "{home}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{home}/opt"
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
