//! Which containerd is it, and what of it goes round the gate?

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use countersign_trust::name::shown;
use serde_json::Value;

use super::process::Process;
use super::{Finding, Node};
use crate::admit::chain;
use crate::containerd::{Containerd, ContainerdError, Plugin, unpacks};

const CHECK: &str = "containerd";
const SNAPSHOTTER: &str = "snapshotter";
const NRI: &str = "NRI";
const VERIFIER: &str = "image verifier";
const LISTENERS: &str = "containerd's listeners";
const SANDBOX: &str = "sandbox image";
const RUNTIMES: &str = "other runtimes";
/// Where containerd is configured when nobody says so.
const DEFAULT_CONFIG: &str = "/etc/containerd/config.toml";
/// Bytes of one of its files, and how many it imports.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;
const MAX_IMPORTS: usize = 64;
/// Where containerd looks for image verifiers when nobody says so (its `bindir` plugin).
const DEFAULT_VERIFIERS: &str = "/opt/containerd/image-verifier/bin";
/// Bytes of one of them that are read: a script is short.
const MAX_VERIFIER_BYTES: u64 = 4096;
/// Programs that run containers which no kubelet asked for.
const OTHER_RUNTIMES: [&str; 5] = ["dockerd", "cri-dockerd", "crio", "podman", "buildkitd"];
/// Where NRI's plugins lie (containerd, `nri/pkg/adaptation`).
const NRI_PLUGINS: &str = "/opt/nri/plugins";

pub(super) async fn examine(node: &Node<'_>, containerd: &Containerd, processes: &[Process]) -> Vec<Finding> {
    let told = tokio::try_join!(containerd.version(), containerd.plugins(), containerd.information());
    let mut findings = match &told {
        Ok((version, plugins, information)) => {
            let mut findings = of_containerd(version, plugins, information);
            findings.push(sandbox(node, &configuration_in(information)));
            findings
        }
        Err(error) => vec![unanswered(error)],
    };
    let daemon = processes.iter().find(|process| process.name == "containerd");
    let files = configuration(daemon);
    if let Ok((version, plugins, _)) = &told {
        let is_ready = plugins.iter().any(|plugin| plugin.kind == "io.containerd.image-verifier.v1" && plugin.is_ready);
        findings.push(verifier(version, is_ready, &verifiers(&files)));
    }
    findings.push(listeners(&files));
    findings.push(other_runtimes(processes));
    findings
}

/// What containerd's CRI says of its configuration.
fn configuration_in(information: &HashMap<String, String>) -> Value {
    information.get("config").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn unanswered(error: &ContainerdError) -> Finding {
    Finding::warn(CHECK, format!("containerd cannot be asked: {}", chain(error)), "systemctl status containerd")
}

fn of_containerd(version: &str, plugins: &[Plugin], information: &HashMap<String, String>) -> Vec<Finding> {
    let config = configuration_in(information);
    let is_ready = |kind: &str| plugins.iter().any(|plugin| plugin.kind == kind && plugin.is_ready);
    let mut findings = vec![known_version(version), snapshotters(&config, plugins)];
    if is_ready("io.containerd.nri.v1") {
        findings.push(nri(Path::new(NRI_PLUGINS)));
    }
    findings
}

/// What the gate was tried with. The rest is not known to be wrong.
fn known_version(version: &str) -> Finding {
    let number = version.rsplit(' ').next().unwrap_or_default().trim_start_matches('v');
    if ["1.6.", "1.7.", "2.1."].iter().any(|known| number.starts_with(known)) {
        return Finding::ok(CHECK, format!("it is {}", shown(version)));
    }
    let says = format!("it is {}; countersign is tried with 1.6, 1.7 and 2.1", shown(version));
    Finding::warn(CHECK, says, "try it on one node first: docs/operations.md, “Before you enforce”")
}

/// A snapshotter that fetches while a container runs takes the name of its layers on trust.
fn snapshotters(config: &Value, plugins: &[Plugin]) -> Finding {
    let used = config.pointer("/containerd/snapshotter").and_then(Value::as_str).unwrap_or_default();
    if !used.is_empty() && !unpacks(used) {
        let says =
            format!("containerd's CRI uses {}, which does not unpack and compare layers: every container on it is refused", shown(used));
        return Finding::warn(
            SNAPSHOTTER,
            says,
            "set snapshotter = \"overlayfs\" in containerd's configuration, systemctl restart containerd",
        );
    }
    let is_foreign = |plugin: &&Plugin| plugin.kind == "io.containerd.snapshotter.v1" && plugin.is_ready && !unpacks(&plugin.name);
    let foreign: Vec<String> = plugins.iter().filter(is_foreign).map(|plugin| shown(&plugin.name)).collect();
    let used = if used.is_empty() { "one of containerd's own".to_owned() } else { shown(used) };
    if foreign.is_empty() {
        return Finding::ok(SNAPSHOTTER, format!("containerd's CRI uses {used}, which unpacks and compares layers"));
    }
    let says =
        format!("containerd's CRI uses {used}; runtime handlers may use {}, on which every container is refused", foreign.join(", "));
    Finding::ok(SNAPSHOTTER, says)
}

fn nri(plugins: &Path) -> Finding {
    let count = fs::read_dir(plugins).map(|entries| entries.flatten().count()).unwrap_or_default();
    let says = match count {
        0 => {
            "NRI is on: a plugin that connects to it may change what a container mounts and runs, after the gate has checked it".to_owned()
        }
        count => format!(
            "NRI is on with {count} plugins in {}: they may change what a container mounts and runs, after the gate has checked it",
            plugins.display()
        ),
    };
    Finding::warn(NRI, says, "if no plugin is needed: [plugins.\"io.containerd.nri.v1.nri\"] disable = true, systemctl restart containerd")
}

/// On 2.x containerd asks a program about what it pulls by itself: one that lies in `folder`.
fn verifier(version: &str, is_ready: bool, folder: &Path) -> Finding {
    if !version.contains(" 2.") && !version.contains(" v2.") {
        return Finding::ok(VERIFIER, "this containerd has none; the gate checks what it pulls by itself");
    }
    if !is_ready {
        let says = "containerd has no image verifier, so that it asks nobody about what it pulls by itself";
        return Finding::warn(VERIFIER, says, "see docs/operations.md, “The image verifier”");
    }
    if fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_IMPORTS).any(|entry| asks_countersign(&entry.path())) {
        return Finding::ok(VERIFIER, format!("containerd asks countersign about what it pulls by itself ({})", folder.display()));
    }
    let says = format!("nothing in {} asks countersign about what containerd pulls by itself", folder.display());
    let mends =
        format!("install -D -m 0755 systemd/image-verifier {}/countersign; docs/operations.md, “The image verifier”", folder.display());
    Finding::warn(VERIFIER, says, mends)
}

/// Whether a program is the script that comes with countersign, or one like it.
fn asks_countersign(program: &Path) -> bool {
    let mut text = Vec::new();
    let read = fs::File::open(program).and_then(|file| file.take(MAX_VERIFIER_BYTES).read_to_end(&mut text));
    read.is_ok() && String::from_utf8_lossy(&text).contains("countersign image-verifier")
}

/// Where containerd looks for the programs that it asks.
fn verifiers(files: &[toml::Table]) -> PathBuf {
    let folder = |file: &toml::Table| {
        let plugin = file.get("plugins")?.get("io.containerd.image-verifier.v1.bindir")?;
        plugin.get("bin_dir")?.as_str().map(PathBuf::from)
    };
    files.iter().rev().find_map(folder).unwrap_or_else(|| PathBuf::from(DEFAULT_VERIFIERS))
}

/// containerd's configuration as its files say, the main one first. What it was started with may be older.
fn configuration(daemon: Option<&Process>) -> Vec<toml::Table> {
    let written = daemon.and_then(|daemon| daemon.flag("config").or_else(|| daemon.flag("c")));
    let written = written.unwrap_or_else(|| DEFAULT_CONFIG.to_owned());
    let main = daemon.map_or_else(|| PathBuf::from(&written), |daemon| daemon.file(&written));
    let mut files = Vec::new();
    let Some(first) = read(&main) else { return files };
    let imports = first.get("imports").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    files.push(first);
    let folder = Path::new(&written).parent().unwrap_or_else(|| Path::new("/"));
    for pattern in imports.iter().filter_map(toml::Value::as_str).take(MAX_IMPORTS) {
        for path in matching(&folder.join(pattern)) {
            files.extend(read(&path));
        }
    }
    files
}

fn read(path: &Path) -> Option<toml::Table> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(MAX_CONFIG_BYTES).read_to_string(&mut text).ok()?;
    text.parse().ok()
}

/// The files that an import means: one, or all of a folder whose names begin and end as written around a `*`.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (Some((begin, end)), Some(folder)) = (name.split_once('*'), pattern.parent()) else { return vec![pattern.to_owned()] };
    let fits = |name: &str| name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(fits)).take(MAX_IMPORTS).collect()
}

fn listeners(files: &[toml::Table]) -> Finding {
    if files.is_empty() {
        let says = "containerd's configuration file cannot be read, so that it cannot be seen whether it listens on TCP";
        return Finding::warn(LISTENERS, says, "run this on the node itself, as root");
    }
    let tcp = files.iter().filter_map(|file| file.get("grpc")?.get("tcp_address")?.as_str()).find(|address| !address.is_empty());
    match tcp {
        Some(address) => {
            let says = format!("containerd listens on {}: whoever reaches it may start containers past the gate", shown(address));
            Finding::open(LISTENERS, says, "remove tcp_address from [grpc] in containerd's configuration, systemctl restart containerd")
        }
        None => Finding::ok(LISTENERS, "containerd listens on unix sockets only"),
    }
}

fn other_runtimes(processes: &[Process]) -> Finding {
    let found = processes.iter().filter(|process| OTHER_RUNTIMES.contains(&process.name.as_str()));
    let found: Vec<String> = found.map(|process| format!("{} (pid {})", shown(&process.name), process.pid)).collect();
    if found.is_empty() {
        return Finding::ok(RUNTIMES, "no other program that runs containers is there");
    }
    let says = format!("also on this node: {}; whatever it runs does not pass the gate", found.join(", "));
    Finding::warn(RUNTIMES, says, "if nothing needs it: systemctl disable --now docker.service docker.socket (or the like)")
}

/// The gate checks the image of sandboxes if it knows which it is; where it does not, no sandbox starts.
fn sandbox(node: &Node<'_>, config: &Value) -> Finding {
    let told = config.get("sandboxImage").and_then(Value::as_str);
    let name = node.config.containerd.sandbox.name.as_ref().map(ToString::to_string).or_else(|| told.map(shown));
    match name {
        Some(name) => Finding::ok(SANDBOX, format!("{name} is checked before each sandbox, and compared with what was made")),
        None => Finding::warn(
            SANDBOX,
            "containerd does not tell which image its sandboxes run, so that none is started",
            "set sandbox-image in [containerd] of countersign's configuration to the name in containerd's own",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn plugin(kind: &str, name: &str) -> Plugin {
        Plugin { kind: kind.to_owned(), name: name.to_owned(), is_ready: true }
    }

    #[test]
    fn a_snapshotter_that_fetches_later_is_to_be_looked_at() {
        let config = |name: &str| serde_json::json!({"containerd": {"snapshotter": name}});
        assert_eq!(snapshotters(&config("overlayfs"), &[]).state, State::Ok);
        assert_eq!(snapshotters(&config("stargz"), &[]).state, State::Warn);
        let beside = snapshotters(&config("overlayfs"), &[plugin("io.containerd.snapshotter.v1", "nydus")]);
        assert!(beside.state == State::Ok && beside.says.contains("nydus"), "{}", beside.says);
        assert_eq!(snapshotters(&Value::Null, &[]).state, State::Ok);
    }

    #[test]
    fn a_containerd_that_listens_on_tcp_is_an_open_door() {
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        assert_eq!(listeners(&[table("version = 2\n[grpc]\naddress = \"/a.sock\"\n")]).state, State::Ok);
        assert_eq!(listeners(&[table("version = 2"), table("[grpc]\ntcp_address = \"0.0.0.0:1234\"\n")]).state, State::Open);
        assert_eq!(listeners(&[table("[grpc]\ntcp_address = \"\"\n")]).state, State::Ok);
        assert_eq!(listeners(&[]).state, State::Warn);
    }

    #[test]
    fn imports_of_containerds_configuration_are_read_too() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.toml", "b.toml", "c.txt"] {
            fs::write(folder.path().join(name), "x = 1").unwrap();
        }
        let mut found = matching(&folder.path().join("*.toml"));
        found.sort();
        assert_eq!(found, [folder.path().join("a.toml"), folder.path().join("b.toml")]);
        assert_eq!(matching(Path::new("/x/y.toml")), [Path::new("/x/y.toml")]);
    }

    #[test]
    fn versions_that_were_tried_are_known() {
        for (version, state) in [
            ("containerd 1.6.20~ds1", State::Ok),
            ("containerd v1.7.24", State::Ok),
            ("containerd 2.1.9", State::Ok),
            ("containerd 1.5.9", State::Warn),
            ("containerd v2.3.0", State::Warn),
        ] {
            assert_eq!(known_version(version).state, state, "{version}");
        }
    }

    #[test]
    fn a_containerd_that_asks_countersign_about_what_it_pulls_is_told_from_one_that_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file =
            format!("version = 3\n[plugins.\"io.containerd.image-verifier.v1.bindir\"]\nbin_dir = \"{}\"\n", folder.path().display());
        let configured = verifiers(&[file.parse().unwrap()]);
        assert_eq!((configured.as_path(), verifiers(&[])), (folder.path(), PathBuf::from(DEFAULT_VERIFIERS)));
        assert_eq!(verifier("containerd v1.7.24", false, &configured).state, State::Ok);
        assert_eq!(verifier("containerd 2.1.9", false, &configured).state, State::Warn);
        fs::write(folder.path().join("other"), "#!/bin/sh\nexit 0\n").unwrap();
        assert_eq!(verifier("containerd 2.1.9", true, &configured).state, State::Warn);
        fs::copy("systemd/image-verifier", folder.path().join("countersign")).unwrap();
        assert_eq!(verifier("containerd 2.1.9", true, &configured).state, State::Ok);
    }
}
