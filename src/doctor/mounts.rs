//! Which running containers can reach containerd's socket.

use std::path::{Path, PathBuf};

use countersign_trust::name::shown;
use serde::Deserialize;

use super::{Finding, path_text};
use crate::admit::chain;
use crate::containerd::{Containerd, ContainerdError, Listed, NAMESPACE, Pod, PodContainer};

const CHECK: &str = "containers with the socket";
/// Containers that are named in one sentence.
const MOST_NAMED: usize = 8;

/// How near a mount brings the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Near {
    /// It is the socket, or the folder that it is in.
    Socket,
    /// It is a larger part of the node's files, with the socket somewhere in it.
    Tree,
}

pub(super) async fn examine(socket: &Path, containerd: &Containerd) -> Vec<Finding> {
    match holders(socket, containerd).await {
        Ok((of_socket, of_tree)) => findings(&path_text(socket), &of_socket, &of_tree),
        Err(error) => {
            let says = format!("containerd does not tell what containers mount: {}", chain(&error));
            vec![Finding::warn(CHECK, says, "systemctl status containerd")]
        }
    }
}

/// Running containers of every namespace that mount the socket or its folder, and those that mount more.
async fn holders(socket: &Path, containerd: &Containerd) -> Result<(Vec<String>, Vec<String>), ContainerdError> {
    let (mut of_socket, mut of_tree) = (Vec::new(), Vec::new());
    let (pods, containers) = tokio::try_join!(containerd.pods(), containerd.pod_containers())?;
    for namespace in containerd.namespaces().await? {
        for (listed, specification) in containerd.specifications_of(&namespace).await? {
            let Some(near) = nearest(&specification, socket) else { continue };
            if !containerd.task_runs(&namespace, &listed.id).await? {
                continue;
            }
            let container = containers.iter().find(|container| container.id == listed.id && namespace == NAMESPACE);
            let pod = container.and_then(|container| Some((pods.get(&container.sandbox_id)?, container)));
            match near {
                Near::Socket => of_socket.push(name_of(&namespace, &listed, pod)),
                Near::Tree => of_tree.push(name_of(&namespace, &listed, pod)),
            }
        }
    }
    Ok((of_socket, of_tree))
}

fn findings(socket: &str, of_socket: &[String], of_tree: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !of_socket.is_empty() {
        let says = format!("{} can start containers past the gate, since {socket} is mounted there", listed(of_socket));
        findings.push(Finding::open(
            CHECK,
            says,
            "take the hostPath volume from the pod; a read-only mount does not keep anybody from connecting",
        ));
    }
    if !of_tree.is_empty() {
        let says = format!("{} could reach {socket} as root, since a folder above it is mounted there", listed(of_tree));
        findings.push(Finding::warn(CHECK, says, "mount less of the node, or run the container as another user than root"));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("no running container has {socket} mounted")));
    }
    findings
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(MOST_NAMED);
    let named = names.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

fn name_of(namespace: &str, listed: &Listed, pod: Option<(&Pod, &PodContainer)>) -> String {
    match pod {
        Some((pod, container)) => format!("{}/{} ({})", shown(&pod.namespace), shown(&pod.name), shown(&container.name)),
        None => format!("container {} in containerd's namespace {}", shown(&listed.id), shown(namespace)),
    }
}

/// The part of an OCI runtime specification that says what is mounted.
#[derive(Deserialize)]
struct Specification {
    #[serde(default)]
    mounts: Vec<Mount>,
}

#[derive(Deserialize)]
struct Mount {
    #[serde(default)]
    source: String,
    #[serde(default, rename = "type")]
    kind: String,
}

/// How near the mounts of a container bring the socket. What cannot be read mounts nothing: containerd could not run it.
fn nearest(specification: &[u8], socket: &Path) -> Option<Near> {
    let specification: Specification = serde_json::from_slice(specification).ok()?;
    let binds = specification.mounts.iter().filter(|mount| mount.kind.is_empty() || mount.kind == "bind" || mount.kind == "none");
    let nearness = binds.filter_map(|mount| near(Path::new(&mount.source), socket));
    nearness.min_by_key(|near| match near {
        Near::Socket => 0,
        Near::Tree => 1,
    })
}

fn near(source: &Path, socket: &Path) -> Option<Near> {
    if !source.is_absolute() {
        return None;
    }
    let canonical = |path: &Path| -> PathBuf { path.canonicalize().unwrap_or_else(|_| path.to_owned()) };
    let (source, socket) = (canonical(source), canonical(socket));
    if source == socket || socket.parent() == Some(&source) {
        return Some(Near::Socket);
    }
    socket.starts_with(&source).then_some(Near::Tree)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn specification(sources: &[(&str, &str)]) -> Vec<u8> {
        let mounts: Vec<_> = sources.iter().map(|(kind, source)| serde_json::json!({"type": kind, "source": source})).collect();
        serde_json::json!({"ociVersion": "1.0.2", "mounts": mounts}).to_string().into_bytes()
    }

    #[test]
    fn the_socket_its_folder_and_what_is_above_are_told_apart() {
        let socket = Path::new("/nonexistent/containerd/containerd.sock");
        for (source, expected) in [
            ("/nonexistent/containerd/containerd.sock", Some(Near::Socket)),
            ("/nonexistent/containerd", Some(Near::Socket)),
            ("/nonexistent", Some(Near::Tree)),
            ("/", Some(Near::Tree)),
            ("/nonexistent/containerd/other.sock", None),
            ("/nonexistent/container", None),
            ("/var/lib/kubelet", None),
            ("tmpfs", None),
        ] {
            assert_eq!(nearest(&specification(&[("bind", source)]), socket), expected, "{source}");
        }
        let both = specification(&[("bind", "/"), ("bind", "/nonexistent/containerd"), ("proc", "/nonexistent/containerd")]);
        assert_eq!(nearest(&both, socket), Some(Near::Socket));
        assert_eq!(nearest(&specification(&[("proc", "/nonexistent/containerd")]), socket), None);
        assert_eq!(nearest(b"nonsense", socket), None);
    }

    #[test]
    fn a_mounted_socket_is_an_open_door_and_a_folder_above_it_is_to_be_looked_at() {
        let states =
            |socket: &[String], tree: &[String]| findings("/s", socket, tree).iter().map(|finding| finding.state).collect::<Vec<_>>();
        let names = ["shop/web (web)".to_owned()];
        assert_eq!(states(&[], &[]), [State::Ok]);
        assert_eq!(states(&names, &[]), [State::Open]);
        assert_eq!(states(&[], &names), [State::Warn]);
        assert_eq!(states(&names, &names), [State::Open, State::Warn]);
        let many: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        assert!(findings("/s", &many, &[])[0].says.contains("7 and 12 more"));
    }
}
