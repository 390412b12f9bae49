//! A real containerd in a folder of its own, with root, state and socket there; several run side by side.

mod configuration;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs};

use tonic::Status;

use self::configuration::Settings;
use super::Must as _;
use super::folder::{Folder, target_folder};
use super::image::Recipe;
use super::leftovers;
use super::process::{Launch, Ready, Server, text};
use super::registry::{Registry, write_hosts_toml};
use super::tls::Ca;
use super::{cri::Cri, ctr::Ctr};

/// `OVERLAYFS_SUPER_MAGIC` of Linux's `magic.h`.
const OVERLAYFS_MAGIC: i64 = 0x794c_7630;

/// The folder in cargo's target folder that has a file for each version that was run. `make test` prints them.
const RAN_ON: &str = "containerds-ran";
/// CRI tries again 1 s after its first failure on an event, and waits twice as long after each other: 4 s after so many. What a
/// test does before CRI looks again takes longer than one second on a busy machine.
const FAILURES: usize = 3;
/// How long CRI may take to fail so often, 3 s of which it waits, on a busy machine.
const FAILS_WITHIN: Duration = Duration::from_secs(20);

/// Which release of containerd is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// 1.6, as in Debian 12: the machine's own.
    #[default]
    V1_6,
    /// 1.7.
    V1_7,
    /// 2.1, or a later 2.x.
    V2_1,
}

impl Version {
    /// As people call it. `unpack-containerds.sh` names folders so.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1_6 => "1.6",
            Self::V1_7 => "1.7",
            Self::V2_1 => "2.1",
        }
    }

    /// What the version that containerd itself reports begins with.
    const fn reported(self) -> &'static str {
        match self {
            Self::V1_6 => "1.6.",
            Self::V1_7 => "1.7.",
            Self::V2_1 => "2.",
        }
    }

    /// The folder with `containerd`, `ctr` and the matching `containerd-shim-runc-v2`, and without `runc`, which would need a
    /// newer libc than this machine has. None: what is installed.
    fn programs(self) -> Option<PathBuf> {
        let unpacked = || {
            let folder = target_folder().join("containerds").join(self.name());
            assert!(folder.is_dir(), "containerd {} is not in {}: run `make parts`", self.name(), folder.display());
            folder
        };
        (self != Self::V1_6).then(unpacked)
    }
}

/// Which containerd to start.
#[derive(Debug, Clone, Copy, Default)]
pub struct ContainerdOptions {
    /// Its version.
    pub version: Version,
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
    version: Version,
}

impl Containerd {
    /// Starts it. Its sandbox image is `sandbox_image`, which has to be pullable before the first pod.
    pub async fn start(folder: &Folder, options: &ContainerdOptions, registry: &Registry, ca: &Ca, sandbox_image: &str) -> Self {
        let home = folder.sub("containerd");
        write_hosts_toml(&folder.sub("containerd/certs.d"), registry, ca);
        let snapshotter = options.snapshotter.unwrap_or_else(|| usual_snapshotter(&home));
        let settings = Settings { home: &home, sandbox_image, snapshotter };
        let file = folder.configuration("containerd.toml", &settings.for_version(options.version));
        let launch = Launch::new("containerd", program(options.version, "containerd")).arg("--config").path(&file);
        let launch = launch.env("PATH", search_path(options.version.programs().as_deref()));
        let server = launch.start(&folder.logs(), Ready::Socket(socket_in(&home))).await;
        let containerd = Self { server, folder: folder.path().to_owned(), pods: folder.logs().join("pods"), version: options.version };
        containerd.cri().ready().await;
        containerd.is_what_was_asked_for().await;
        containerd
    }

    /// A test that says that it ran on a version must have. What containerd says of itself is written down for whoever ran
    /// the tests.
    async fn is_what_was_asked_for(&self) {
        let version = self.cri().version().await.must("asking containerd for its version").runtime_version;
        let version = version.trim_start_matches('v');
        assert!(version.starts_with(self.version.reported()), "this is containerd {version}, not {}", self.version.name());
        let folder = target_folder().join(RAN_ON);
        fs::create_dir_all(&folder).must("making a folder for versions");
        fs::write(folder.join(self.version.name()), format!("containerd {version}\n")).must("writing down a version");
    }

    /// Which release it is.
    pub const fn version(&self) -> Version {
        self.version
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

    /// Makes CRI keep its view of a record for 4 s, whatever it targets from now on: the event of a record that leads nowhere
    /// fails, and later events of that name wait until it is tried again. Returns when CRI has failed on it for the last time.
    pub async fn blind_cri(&self, record: &str) -> Result<(), Status> {
        let failed = |line: &&str| line.contains("Failed to handle") && line.contains(record);
        let failures = || self.server.log().lines().filter(failed).count();
        let before = failures();
        self.ctr().retarget(record, Recipe::prints("an image that is not here").build().top()).await?;
        let deadline = Instant::now() + FAILS_WITHIN;
        while failures() < before + FAILURES {
            assert!(Instant::now() < deadline, "CRI did not fail on the event of {record}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Where it looks for programs that it asks before it pulls (2.1).
    pub fn verifiers(&self) -> PathBuf {
        self.folder.join("containerd/verifiers")
    }

    /// Its own tool, for what CRI cannot do.
    pub fn ctr(&self) -> Ctr {
        Ctr::new(&self.socket(), program(self.version, "ctr"))
    }
}

/// Where the program of that release is, for a search on PATH or by path.
pub fn program(version: Version, name: &str) -> PathBuf {
    version.programs().map_or_else(|| PathBuf::from(name), |folder| folder.join(name))
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
