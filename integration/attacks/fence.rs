//! The second fence, on containerd 2.x: what containerd is about to pull past the gate, it asks countersign about.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tonic::Status;

use super::super::harness::containerd::Version;
use super::super::harness::image::Recipe;
use super::super::harness::world::sandbox;
use super::{Scene, assert_denied, binary};
use crate::verify::countersign;

/// A node whose containerd asks the daemon, by the script that comes with it.
async fn fenced(test: &str) -> Scene {
    let scene = Scene::on(Version::V2_1, test).await;
    let shipped = fs::read_to_string("systemd/image-verifier").unwrap();
    let installed = "/usr/bin/countersign image-verifier";
    assert!(shipped.contains(installed));
    let here = format!("{} image-verifier --config {}", binary().display(), scene.gate().configuration().display());
    let folder = scene.world.containerd.verifiers();
    fs::create_dir_all(&folder).unwrap();
    // Written under another name, so that nobody runs it half written.
    let (unfinished, script) = (folder.with_extension("new"), folder.join("countersign"));
    fs::write(&unfinished, shipped.replace(installed, &here)).unwrap();
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&unfinished, &script).unwrap();
    scene
}

/// containerd's own words, with the reason that countersign gave.
#[track_caller]
fn assert_blocked(pulled: Result<String, Status>, code: &str) {
    let status = pulled.unwrap_err();
    let said = status.message();
    assert!(said.contains("blocked pull of") && said.contains(&format!("({code})")), "not {code}: {said}");
}

#[tokio::test]
async fn what_is_pulled_past_the_gate_is_asked_about_and_only_what_is_signed_comes() {
    let scene = fenced("past_the_gate_is_asked").await;
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), "team/app", "2").await;
    let elsewhere = scene.world.push(&Recipe::prints("elsewhere").build(), "other/app", "1").await;
    assert_blocked(scene.behind().pull(&unsigned).await, "CS-TAG-NOT-SIGNED");
    assert_blocked(scene.behind().pull(&elsewhere).await, "CS-NOT-PINNED");
    assert_eq!(scene.behind().pull(&scene.name).await.unwrap(), scene.image.id().to_string());
    scene.behind().remove_image(&scene.name).await.unwrap();

    // The tag is moved in the registry, after it was signed.
    scene.world.push(&Recipe::prints("moved").build(), "team/app", "1").await;
    assert_blocked(scene.behind().pull(&scene.name).await, "CS-DIGEST-DIFFERS");
    assert_eq!(scene.behind().pull(&scene.by_digest()).await.unwrap(), scene.image.id().to_string());
}

#[tokio::test]
async fn what_the_gate_asks_for_is_pulled_also_by_a_rule_that_is_for_a_namespace() {
    let mut scene = fenced("the_gate_asks").await;
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), "team/app", "2").await;
    scene.runs_the_signed_image().await;
    let rule = "namespaces = [\"lab\"]\nmode = \"permissive\"";
    let configuration = scene.configuration().rule(&scene.world.gun(super::REPOSITORY), rule);
    let gate = scene.world.gate.as_mut().unwrap();
    gate.configure(&configuration);
    gate.restart().await;
    assert_eq!(scene.cri().run(&unsigned, "lab").await.unwrap().output, "unsigned\n");
    assert_denied(&scene.cri().run(&unsigned, "shop").await.unwrap_err(), "CS-TAG-NOT-SIGNED");
    scene.behind().remove_image(&unsigned).await.unwrap();
    assert_blocked(scene.behind().pull(&unsigned).await, "CS-TAG-NOT-SIGNED");
}

#[tokio::test]
async fn the_image_of_sandboxes_that_containerd_pulls_by_itself_is_the_listed_one_or_none() {
    let scene = fenced("pulls_sandboxes_by_itself").await;
    let name = format!("{}:3.10", scene.world.gun("pause"));
    let pod = scene.behind().run_pod(scene.behind().pod("default")).await.unwrap();
    assert_eq!(scene.root_of(&pod.id).await, sandbox().chain_id().to_string());
    scene.behind().remove_pod(&pod).await.unwrap();
    scene.behind().remove_image(&name).await.unwrap();

    scene.world.push(&Recipe::prints_and_stays("evil").build(), "pause", "3.10").await;
    let refused = scene.behind().run_pod(scene.behind().pod("default")).await.map(|pod| pod.id);
    assert_blocked(refused, "CS-NOT-PINNED");
    scene.runs_nothing().await;
    scene.runs_the_signed_image().await;
}

/// The daemon goes on with what is in force; so does what containerd asks.
#[tokio::test]
async fn a_file_that_became_bad_takes_no_pull_away_and_lets_none_in() {
    let mut scene = fenced("a_bad_file").await;
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), "team/app", "2").await;
    let file = scene.gate().configuration().to_owned();
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{good}\n[nonsense]\n")).unwrap();

    let (code, out, err) = countersign(&["status", "--config", file.to_str().unwrap()]).await;
    assert!(out.starts_with("mode enforced"), "{code:?}: {out}{err}");
    assert!(err.contains("nonsense"), "the file's fault is named: {err}");
    assert_blocked(scene.behind().pull(&unsigned).await, "CS-TAG-NOT-SIGNED");
    assert_eq!(scene.behind().pull(&scene.name).await.unwrap(), scene.image.id().to_string());
    scene.behind().remove_image(&scene.name).await.unwrap();
    scene.runs_the_signed_image().await;

    scene.world.gate.as_mut().unwrap().kill();
    assert_blocked(scene.behind().pull(&unsigned).await, "CS-TAG-NOT-SIGNED");
}

#[tokio::test]
async fn without_a_daemon_the_same_is_found_out_and_without_a_configuration_nothing_is_pulled() {
    let mut scene = fenced("no_daemon_to_ask").await;
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), "team/app", "2").await;
    scene.world.gate.as_mut().unwrap().kill();
    assert_blocked(scene.behind().pull(&unsigned).await, "CS-TAG-NOT-SIGNED");
    scene.behind().pull(&scene.name).await.unwrap();
    scene.behind().remove_image(&scene.name).await.unwrap();

    let file = scene.gate().configuration().to_owned();
    fs::write(&file, "nonsense").unwrap();
    let refused = scene.behind().pull(&scene.name).await.unwrap_err();
    assert!(refused.message().contains("blocked pull of"), "{refused:?}");
}
