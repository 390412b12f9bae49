//! `countersign doctor` on a node that is made up of the test's servers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use k8s_cri::v1::Mount;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::super::harness::cri::container;
use super::Scene;

fn finding<'f>(findings: &'f Value, check: &str) -> Vec<&'f Value> {
    findings["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == check).collect()
}

/// A process with kubelet's name that is connected to a socket, and nothing more.
fn kubelet(scene: &Scene, socket: &std::path::Path) -> Child {
    let program = scene.world.folder.sub("bin").join("kubelet");
    if !program.exists() {
        // perl-base is on every Debian.
        fs::copy("/usr/bin/perl", &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let connect = "use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un($ARGV[0])) or die $!; sleep 600";
    let mut command = Command::new(program);
    command.args(["-e", connect]).arg(socket).stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}

#[tokio::test]
async fn a_node_whose_kubelet_uses_the_gate_has_no_open_door_and_one_whose_kubelet_does_not_has() {
    let scene = Scene::new("doctor").await;
    scene.status_until(|status| status["self-proof"]["shown"] == "enforced").await;
    let mut through = kubelet(&scene, &scene.gate().socket());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (exit, findings) = scene.countersign(&["doctor"]).await;
    let kubelets = finding(&findings, "kubelet");
    assert!(kubelets.iter().any(|kubelet| kubelet["state"] == "OK"), "{findings:#}");
    assert_eq!(finding(&findings, "containerd's socket")[0]["state"], "OK", "{findings:#}");
    assert_eq!(finding(&findings, "containers with the socket")[0]["state"], "OK", "{findings:#}");
    assert_eq!(
        (finding(&findings, "mode")[0]["state"].clone(), finding(&findings, "self-proof")[0]["state"].clone()),
        ("OK".into(), "OK".into())
    );
    if kubelets.len() == 1 {
        assert_eq!((exit, &findings["open"]), (Some(0), &false.into()), "{findings:#}");
    }
    through.kill().await.unwrap();

    let _past = kubelet(&scene, &scene.world.containerd.socket());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (exit, findings) = scene.countersign(&["doctor"]).await;
    assert_eq!((exit, &findings["open"]), (Some(1), &true.into()), "{findings:#}");
    let open: Vec<_> = finding(&findings, "kubelet").into_iter().filter(|finding| finding["state"] == "OPEN").collect();
    assert!(open[0]["says"].as_str().unwrap().contains("connected to containerd, and not to the gate"), "{findings:#}");
    assert!(open[0]["mend"].as_str().unwrap().contains("containerRuntimeEndpoint"));
}

#[tokio::test]
async fn a_container_that_has_containerds_socket_and_a_socket_that_others_may_open_are_open_doors() {
    let scene = Scene::new("doctor_doors").await;
    let id = scene.cri().pull(&scene.name).await.unwrap();
    let pod = scene.cri().run_pod(scene.cri().pod("agents")).await.unwrap();
    let socket = scene.world.containerd.socket();
    let mut agent = container(&id, &scene.name);
    let host_path = socket.parent().unwrap().to_str().unwrap().to_owned();
    agent.mounts = vec![Mount { container_path: "/run/containerd".to_owned(), host_path, ..Mount::default() }];
    let made = scene.cri().create(&pod, agent).await.unwrap();
    scene.cri().start(&made).await.unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();

    let (exit, findings) = scene.countersign(&["doctor"]).await;

    assert_eq!(exit, Some(1));
    let holders = finding(&findings, "containers with the socket");
    assert_eq!(holders[0]["state"], "OPEN", "{findings:#}");
    assert!(holders[0]["says"].as_str().unwrap().contains("agents/"), "{findings:#}");
    assert_eq!(finding(&findings, "containerd's socket")[0]["state"], "OPEN", "{findings:#}");
    let mut text = Command::new(super::binary());
    let text = text.arg("doctor").arg("--config").arg(scene.gate().configuration()).output().await.unwrap();
    assert_eq!(text.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&text.stdout).contains("OPEN  containerd's socket"), "{text:?}");
}
