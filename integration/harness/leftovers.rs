//! Removes a test's folder with all that hangs on it: containers and their shims outlive containerd by design,
//! and so do mounts, control groups and the shims' sockets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long killed processes may take to disappear; it is milliseconds.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks.
const POLL: Duration = Duration::from_millis(5);
/// Where containerd keeps the bundles of running containers, below its state folder; then namespace and ID.
const BUNDLES: &str = "io.containerd.runtime.v2.task";

/// What still exists of a test: for the test that wants nothing to be left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Processes with the folder in their command line, or in one of the control groups.
    pub processes: Vec<String>,
    /// Mount points below the folder.
    pub mounts: Vec<PathBuf>,
    /// Control groups of the folder's pods.
    pub cgroups: Vec<PathBuf>,
    /// The folder itself, when it is there.
    pub folder: Option<PathBuf>,
}

/// The control group below which all pods of a test are put: named after its folder.
pub fn cgroup_of(folder: &Path) -> String {
    format!("/{}", folder.file_name().and_then(|name| name.to_str()).unwrap_or_default())
}

/// Looks for whatever belongs to `folder`.
pub fn of(folder: &Path) -> Leftovers {
    let cgroups = cgroup_folders(&cgroup_of(folder));
    let members = cgroups.iter().flat_map(|group| members(group));
    let named = processes().into_iter().filter(|(_, words)| words.iter().any(|word| word.contains(&*folder.to_string_lossy())));
    Leftovers {
        processes: members.map(|pid| pid.to_string()).chain(named.map(|(pid, words)| format!("{pid} {words:?}"))).collect(),
        mounts: mounts_below(folder),
        cgroups,
        folder: folder.exists().then(|| folder.to_owned()),
    }
}

/// Kills the containers and shims of a containerd that ran in `folder` and is gone, unmounts, and deletes the folder.
pub fn remove(folder: &Path) {
    let bundles = bundles(folder);
    let mut groups: Vec<PathBuf> = bundles.iter().filter_map(|bundle| cgroup_in(bundle)).flat_map(|group| cgroup_folders(&group)).collect();
    groups.extend(cgroup_folders(&cgroup_of(folder)));
    let sockets: Vec<PathBuf> = bundles.iter().filter_map(|bundle| shim_socket(bundle)).collect();

    // Shims first: one that is told of its container's end would report it to a containerd that is gone.
    kill_all(|| shims_of(folder));
    kill_all(|| groups.iter().flat_map(|group| members(group)).collect());
    unmount(folder);
    let deadline = Instant::now() + GONE_WITHIN;
    groups.iter().for_each(|group| remove_cgroup(group, deadline));
    for socket in sockets {
        let _ = fs::remove_file(socket);
    }
    let _ = fs::remove_dir_all(folder);
}

fn kill_all(find: impl Fn() -> Vec<u32>) {
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        let found = find();
        if found.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in found.into_iter().filter_map(|pid| i32::try_from(pid).ok()).filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(POLL);
    }
}

/// The bundles of all containers that run or were created in `folder`.
pub fn bundles(folder: &Path) -> Vec<PathBuf> {
    let namespaces = entries(&folder.join("containerd/state").join(BUNDLES));
    namespaces.iter().flat_map(|namespace| entries(namespace)).collect()
}

fn cgroup_in(bundle: &Path) -> Option<String> {
    let config: Value = serde_json::from_slice(&fs::read(bundle.join("config.json")).ok()?).ok()?;
    config["linux"]["cgroupsPath"].as_str().filter(|path| path.starts_with('/')).map(str::to_owned)
}

/// The shim's socket lies outside of containerd's folders. Its address is in the bundle: alone up to containerd 1.7, and among
/// what else the shim has said in 2.x.
pub fn shim_socket(bundle: &Path) -> Option<PathBuf> {
    let said = || serde_json::from_slice::<Value>(&fs::read(bundle.join("bootstrap.json")).ok()?).ok();
    let address = fs::read_to_string(bundle.join("address")).ok();
    let address = address.or_else(|| said()?["address"].as_str().map(str::to_owned))?;
    address.trim().strip_prefix("unix://").map(PathBuf::from)
}

/// Shims have their containerd's socket in the command line.
fn shims_of(folder: &Path) -> Vec<u32> {
    let ours = |words: &[String]| {
        let shim = words.first().is_some_and(|program| program.contains("containerd-shim"));
        shim && words.iter().any(|word| Path::new(word).starts_with(folder))
    };
    processes().into_iter().filter(|(_, words)| ours(words)).map(|(pid, _)| pid).collect()
}

/// All processes with their command lines. A zombie has none, so it is not found.
fn processes() -> Vec<(u32, Vec<String>)> {
    let ids = entries(Path::new("/proc")).into_iter().filter_map(|path| path.file_name()?.to_str()?.parse().ok());
    let with_words = ids.filter_map(|pid: u32| Some((pid, fs::read(format!("/proc/{pid}/cmdline")).ok()?)));
    with_words
        .map(|(pid, line)| (pid, line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()))
        .collect()
}

/// Where a control group is, in each hierarchy that is mounted.
fn cgroup_folders(group: &str) -> Vec<PathBuf> {
    let below = group.trim_start_matches('/');
    let mounts = mounts().into_iter().filter(|mount| mount.kind.starts_with("cgroup"));
    mounts.map(|mount| mount.point.join(below)).filter(|path| !below.is_empty() && path.is_dir()).collect()
}

fn members(group: &Path) -> Vec<u32> {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let below = entries(group).into_iter().filter(|path| path.is_dir()).flat_map(|path| members(&path));
    own.lines().filter_map(|line| line.parse().ok()).chain(below).collect()
}

/// A control group is removed by `rmdir`, which fails until its last process is really gone.
fn remove_cgroup(group: &Path, deadline: Instant) {
    entries(group).into_iter().filter(|path| path.is_dir()).for_each(|path| remove_cgroup(&path, deadline));
    while group.is_dir() && fs::remove_dir(group).is_err() && Instant::now() < deadline {
        thread::sleep(POLL);
    }
}

fn unmount(folder: &Path) {
    let mounts = mounts_below(folder);
    if mounts.is_empty() {
        return;
    }
    let umount = |options: &[&str], points: &[PathBuf]| {
        let _ = Command::new("umount").args(options).args(points).stdout(Stdio::null()).stderr(Stdio::null()).status();
    };
    umount(&[], &mounts);
    let stubborn = mounts_below(folder);
    if !stubborn.is_empty() {
        umount(&["--lazy"], &stubborn);
    }
}

/// Mount points below `folder`, the last mounted first.
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    mounts().into_iter().map(|mount| mount.point).filter(|point| point.starts_with(folder)).rev().collect()
}

struct Mount {
    point: PathBuf,
    kind: String,
}

/// `/proc/self/mountinfo` (proc(5)): the fifth word is the mount point, the first after ` - ` the file system's type.
fn mounts() -> Vec<Mount> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?.replace("\\040", " ");
        Some(Mount { point: PathBuf::from(point), kind: after.split(' ').next()?.to_owned() })
    };
    table.lines().filter_map(line).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}
