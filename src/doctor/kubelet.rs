//! Does kubelet use the gate, for both of its services?

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use countersign_trust::name::shown;

use super::process::Process;
use super::unix::Sockets;
use super::{Finding, Node, is_same, path_text};

const CHECK: &str = "kubelet";
/// kubelet's configuration has some KiB.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// Where kubelet is told to look, as far as it says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Endpoints {
    runtime: Option<String>,
    image: Option<String>,
}

/// Looks at every kubelet of the node: a node of a test cluster may hold several.
pub(super) fn examine(node: &Node<'_>, processes: &[Process], sockets: Result<&Sockets, &io::Error>) -> Vec<Finding> {
    let kubelets: Vec<&Process> = processes.iter().filter(|process| process.name == "kubelet").collect();
    if kubelets.is_empty() {
        let mend = "systemctl status kubelet";
        return vec![Finding::warn(CHECK, "no kubelet runs on this node, so that it cannot be seen whether it uses the gate", mend)];
    }
    kubelets.into_iter().map(|kubelet| examine_one(node, kubelet, sockets)).collect()
}

fn examine_one(node: &Node<'_>, kubelet: &Process, sockets: Result<&Sockets, &io::Error>) -> Finding {
    let gate = &node.config.listen.cri;
    let pid = kubelet.pid;
    let mend = format!(
        "set containerRuntimeEndpoint: unix://{} in kubelet's configuration, leave imageServiceEndpoint unset, systemctl restart kubelet",
        path_text(gate)
    );
    let endpoints = endpoints(kubelet);
    for (service, endpoint) in [("runtime", &endpoints.runtime), ("image", &endpoints.image)] {
        if let Some(endpoint) = endpoint.as_deref().filter(|endpoint| !is_endpoint(endpoint, gate)) {
            return Finding::open(
                CHECK,
                format!("kubelet (pid {pid}) is told to use {} as its {service} service, and not the gate", shown(endpoint)),
                mend,
            );
        }
    }
    let sockets = match sockets {
        Ok(sockets) => sockets,
        Err(error) => {
            return Finding::warn(
                CHECK,
                format!("the kernel does not tell what kubelet (pid {pid}) is connected to: {error}"),
                "modprobe unix_diag",
            );
        }
    };
    let leads: Vec<&Path> = kubelet.sockets().into_iter().filter_map(|inode| sockets.leads_to(inode)).collect();
    let uses = |path: &Path| leads.iter().any(|found| is_same(found, path));
    match (uses(gate), uses(&node.config.containerd.address), endpoints.runtime) {
        (true, false, _) => Finding::ok(CHECK, format!("kubelet (pid {pid}) is connected to the gate, and not to containerd")),
        // Its cAdvisor reads statistics from containerd's own API.
        (true, true, Some(_)) => Finding::ok(
            CHECK,
            format!("kubelet (pid {pid}) uses the gate for both services; its other connection to containerd reads statistics (cAdvisor)"),
        ),
        (true, true, None) => Finding::warn(
            CHECK,
            format!("kubelet (pid {pid}) is connected to the gate and to containerd, and it cannot be seen which service uses which"),
            mend,
        ),
        (false, true, _) => Finding::open(CHECK, format!("kubelet (pid {pid}) is connected to containerd, and not to the gate"), mend),
        (false, false, _) => Finding::open(CHECK, format!("kubelet (pid {pid}) is not connected to the gate"), mend),
    }
}

/// Flags outrank the configuration file.
fn endpoints(kubelet: &Process) -> Endpoints {
    let file = kubelet.flag("config").and_then(|path| read(&kubelet.file(&path)).ok()).unwrap_or_default();
    Endpoints {
        runtime: kubelet.flag("container-runtime-endpoint").or_else(|| member(&file, "containerRuntimeEndpoint")),
        image: kubelet.flag("image-service-endpoint").or_else(|| member(&file, "imageServiceEndpoint")),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_CONFIG_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// A text at the top of a configuration in YAML or JSON, which kubelet both reads.
fn member(text: &str, name: &str) -> Option<String> {
    let lines = text.lines().map(|line| line.trim_start_matches([' ', '\t', '{', ',', '"']));
    let mut values = lines.filter_map(|line| line.strip_prefix(name)?.trim_start_matches('"').trim_start().strip_prefix(':'));
    let value = values.next()?.split(" #").next()?.trim().trim_end_matches([',', '}']).trim();
    let value = value.trim_matches(['"', '\'']);
    (!value.is_empty()).then(|| value.to_owned())
}

/// Whether an endpoint is the socket at `path`.
fn is_endpoint(endpoint: &str, path: &Path) -> bool {
    let written = endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:")).unwrap_or(endpoint);
    is_same(Path::new(written), path)
}

#[cfg(test)]
mod tests {
    use super::super::process::tests::made_up;
    use super::*;

    #[test]
    fn endpoints_come_from_flags_and_else_from_the_configuration_that_kubelet_sees() {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["kubelet", "--config", "/var/lib/kubelet/config.yaml", "--image-service-endpoint=unix:///other.sock"];
        let kubelet = made_up(folder.path(), 9, "kubelet", &arguments);
        let seen = folder.path().join("9/root/var/lib/kubelet");
        fs::create_dir_all(&seen).unwrap();
        fs::write(
            seen.join("config.yaml"),
            "kind: KubeletConfiguration\ncontainerRuntimeEndpoint: \"unix:///run/gate.sock\" # why\nimageServiceEndpoint: unix:///x\n",
        )
        .unwrap();
        let expected = Endpoints { runtime: Some("unix:///run/gate.sock".to_owned()), image: Some("unix:///other.sock".to_owned()) };
        assert_eq!(endpoints(&kubelet), expected);
    }

    #[test]
    fn a_configuration_is_read_in_both_forms() {
        for (text, expected) in [
            ("a: 1\ncontainerRuntimeEndpoint: unix:///a\n", Some("unix:///a")),
            ("{\"kind\": \"x\",\n  \"containerRuntimeEndpoint\": \"unix:///a\",\n}", Some("unix:///a")),
            ("containerRuntimeEndpoint: ''\n", None),
            ("containerRuntimeEndpointOther: unix:///a\n", None),
            ("# containerRuntimeEndpoint: unix:///a\n", None),
        ] {
            assert_eq!(member(text, "containerRuntimeEndpoint").as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn an_endpoint_is_compared_as_a_path() {
        let gate = Path::new("/nonexistent/cri.sock");
        for same in ["unix:///nonexistent/cri.sock", "/nonexistent/cri.sock", "unix:/nonexistent/cri.sock"] {
            assert!(is_endpoint(same, gate), "{same}");
        }
        for other in ["unix:///run/containerd/containerd.sock", "tcp://127.0.0.1:1", ""] {
            assert!(!is_endpoint(other, gate), "{other}");
        }
    }
}
