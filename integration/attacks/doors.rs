//! Ways to containerd that do not pass a check: other services, the old API, unknown methods, the socket itself.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Output;

use http::Method;
use tokio::process::Command;

use super::super::harness::containerd::{Version, program};
use super::super::harness::cri::container;
use super::super::harness::gate::serve_until_it_ends;
use super::super::harness::image::Recipe;
use super::super::harness::process::{lossy, run, text};
use super::raw::{Raw, field, frame};
use super::{Scene, binary};

on_every_containerd! {
    the_old_api_other_services_and_unknown_methods_are_unimplemented,
    containerds_own_tool_gets_nothing_at_the_gates_socket,
}

const UNIMPLEMENTED: Option<u32> = Some(12);
/// Debian's `nobody`.
const NOBODY: u32 = 65534;

/// The tool of that release of containerd, run by this user.
async fn ctr(containerd: Version, socket: &Path, uid: u32, args: &[&str]) -> Output {
    let mut command = Command::new(program(containerd, "ctr"));
    command.arg("--address").arg(socket).args(["--connect-timeout", "2s"]).args(args).uid(uid).gid(uid);
    run(command).await
}

async fn the_old_api_other_services_and_unknown_methods_are_unimplemented(containerd: Version) {
    let mut scene = Scene::on(containerd, "other_services").await;
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), "other/app", "1").await;
    for mode in ["enforced", "permissive", "disabled"] {
        scene.switch_to(mode).await;
        let raw = Raw::new(&scene.gate().socket());
        let pull = frame(&field(1, &field(1, unsigned.as_bytes())));
        let paths = [
            "/runtime.v1alpha2.ImageService/PullImage",
            "/runtime.v1alpha2.RuntimeService/CreateContainer",
            "/runtime.v1alpha2.RuntimeService/Version",
            "/runtime.v1.RuntimeService/RestorePod",
            "/runtime.v1.RuntimeService/PullImage",
            "/runtime.v1.ImageService/CreateContainer",
            "/runtime.v1.ImageService/PullImage?x",
            "/runtime.v1.ImageService//PullImage",
            "/runtime.v1.ImageService/%50ullImage",
            "/runtime.v2.ImageService/PullImage",
            "/containerd.services.images.v1.Images/List",
            "/containerd.services.containers.v1.Containers/Create",
            "/containerd.services.tasks.v1.Tasks/Create",
            "/containerd.services.content.v1.Content/Write",
            "/containerd.services.snapshots.v1.Snapshots/Prepare",
            "/containerd.services.diff.v1.Diff/Apply",
            "/containerd.services.leases.v1.Leases/Create",
            "/containerd.services.transfer.v1.Transfer/Transfer",
            "/containerd.services.version.v1.Version/Version",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/",
        ];
        for path in paths {
            let answer = raw.post(path, pull.clone()).await;
            assert_eq!(answer.status, UNIMPLEMENTED, "{mode} {path}: {answer:?}");
        }
        let known = "/runtime.v1.ImageService/PullImage";
        for (method, content_type) in [
            (Method::GET, "application/grpc"),
            (Method::PUT, "application/grpc"),
            (Method::POST, "application/json"),
            (Method::POST, "application/grpc+json"),
            (Method::POST, "application/grpc-web"),
        ] {
            let answer = raw.send(method.clone(), known, &[("content-type", content_type)], pull.clone()).await;
            assert_eq!(answer.status, UNIMPLEMENTED, "{mode} {method} {content_type}: {answer:?}");
        }
    }
    assert!(scene.behind().list_images().await.unwrap().is_empty(), "nothing was pulled");
}

async fn containerds_own_tool_gets_nothing_at_the_gates_socket(containerd: Version) {
    let scene = Scene::on(containerd, "containerds_own_tool").await;
    scene.pull().await;
    let socket = scene.gate().socket();
    let evil = scene.world.folder.path().join("evil.tar");
    Recipe::prints("evil").build().write_archive(&evil, &[("io.containerd.image.name", &scene.name)]);
    let before = scene.ctr().records().await.unwrap();
    for args in [
        &["version"][..],
        &["--namespace", "k8s.io", "images", "ls"],
        &["--namespace", "k8s.io", "images", "rm", &scene.name],
        &["--namespace", "k8s.io", "images", "tag", &scene.name, "example.com/tagged:1"],
        &["--namespace", "k8s.io", "images", "import", &text(&evil)],
        &["--namespace", "k8s.io", "run", &scene.name, "past-the-gate"],
        &["plugins", "ls"],
    ] {
        let output = ctr(containerd, &socket, 0, args).await;
        assert!(!output.status.success(), "{args:?}: {}", lossy(&output.stdout));
        let printed = lossy(&output.stderr);
        assert!(printed.contains("countersign forwards CRI v1 calls only"), "{args:?}: {printed}");
    }
    assert_eq!(scene.ctr().records().await.unwrap(), before);
    assert!(ctr(containerd, &scene.world.containerd.socket(), 0, &["version"]).await.status.success(), "the tool itself works");
    scene.runs_nothing().await;
}

#[tokio::test]
async fn the_sockets_are_root_s_alone_and_another_user_is_not_served() {
    let scene = Scene::new("the_sockets").await;
    let (cri, admin) = (scene.gate().socket(), scene.gate().admin_socket());
    let home = cri.parent().unwrap();
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(home), mode(&cri), mode(&admin)), (0o700, 0o600, 0o600));
    let refused = ctr(Version::default(), &cri, NOBODY, &["version"]).await;
    assert!(lossy(&refused.stderr).contains("permission denied"), "{}", lossy(&refused.stderr));

    // Opened by mistake under the running gate: the peer's user is asked of the kernel.
    fs::set_permissions(home, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(scene.world.folder.path(), Permissions::from_mode(0o755)).unwrap();
    for socket in [&cri, &admin] {
        fs::set_permissions(socket, Permissions::from_mode(0o666)).unwrap();
        let refused = ctr(Version::default(), socket, NOBODY, &["version"]).await;
        let printed = lossy(&refused.stderr);
        assert!(!refused.status.success() && !printed.contains("permission denied"), "{printed}");
        assert!(!printed.contains("nimplemented"), "nobody got an answer of the gate: {printed}");
        scene.logged(&["a connection of another user was closed", &text(socket), "uid=65534"]).await;
    }
    scene.runs_the_signed_image().await;
}

#[tokio::test]
async fn the_gate_does_not_serve_from_a_directory_or_socket_that_others_can_enter() {
    let mut scene = Scene::new("a_wide_directory").await;
    let gate = scene.world.gate.as_mut().unwrap();
    // A killed gate leaves its socket behind.
    gate.kill();
    let (socket, configuration) = (gate.socket(), gate.configuration().to_owned());
    let home = socket.parent().unwrap();
    for mode in [0o755, 0o710, 0o701, 0o770] {
        fs::set_permissions(home, Permissions::from_mode(mode)).unwrap();
        let ended = serve_until_it_ends(binary(), &configuration).await;
        let (printed, sentence) = (lossy(&ended.stderr), format!("the directory {} has mode {mode:04o}", home.display()));
        assert_eq!(ended.status.code().map(|code| code != 0), Some(true), "{printed}");
        assert!(printed.contains(&sentence) && printed.contains(&format!("`chmod 0700 {}`", home.display())), "{printed}");
    }
    fs::set_permissions(home, Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    let ended = serve_until_it_ends(binary(), &configuration).await;
    assert!(lossy(&ended.stderr).contains(&format!("the socket {} has mode 0666", socket.display())), "{}", lossy(&ended.stderr));
    assert!(!ended.status.success());
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "no socket").unwrap();
    fs::set_permissions(&socket, Permissions::from_mode(0o600)).unwrap();
    let ended = serve_until_it_ends(binary(), &configuration).await;
    assert!(lossy(&ended.stderr).contains(&format!("{} is not a socket", socket.display())), "{}", lossy(&ended.stderr));
    assert!(!ended.status.success());
}

#[tokio::test]
async fn a_second_gate_does_not_take_the_socket_of_the_first() {
    let scene = Scene::new("a_second_gate").await;
    let ended = serve_until_it_ends(binary(), scene.gate().configuration()).await;
    assert!(!ended.status.success());
    let printed = lossy(&ended.stderr);
    assert!(printed.contains("another process answers at") || printed.contains("ledger"), "{printed}");
    let id = scene.pull().await;
    scene.cri().create(&scene.pod().await, container(&id, &scene.name)).await.unwrap();
}
