//! What runs, judged by today's policy.

use super::super::harness::containerd::Version;
use super::super::harness::cri::{container, image_volume};
use super::super::harness::image::Recipe;
use super::Scene;

on_every_containerd! {
    a_sandbox_of_another_image_that_was_made_past_the_gate_is_shown_and_never_stopped,
}

#[tokio::test]
async fn a_signature_that_is_taken_back_shows_within_the_refresh_interval_and_nothing_is_stopped() {
    let scene = Scene::with("taken_back", |configuration| configuration.table("[refresh]\ninterval = \"10s\"").table(super::STOP)).await;
    let ran = scene.cri().run(&scene.name, "shop").await.unwrap();
    let (exit, status) = scene.status().await;
    assert_eq!((exit, &status["inventory"]["verified"]), (Some(0), &1.into()), "{status:#}");

    scene.world.notary.signer("admin").remove_tag(&scene.world.gun(super::REPOSITORY), "1").await;

    let status = scene.status_until(|status| status["inventory"]["unverified"] == 1).await;
    let container = &status["inventory"]["containers"][0];
    assert_eq!(container["code"], "CS-TAG-NOT-SIGNED", "{status:#}");
    assert_eq!((&container["namespace"], &container["image"]), (&"shop".into(), &scene.name.as_str().into()));
    assert_eq!(status["bypasses-seen"], 0);
    assert!(scene.runs(&ran.container).await, "what came through the gate goes on");
    assert_eq!(scene.status().await.0, Some(1));
}

#[tokio::test]
async fn a_rule_that_asks_for_no_evidence_exempts_and_a_policy_that_asks_for_more_shows_at_once() {
    let mut scene = Scene::new("policy_changes").await;
    scene.cri().run(&scene.name, "shop").await.unwrap();
    scene.status_until(|status| status["inventory"]["verified"] == 1).await;

    let stricter = scene
        .configuration()
        .signed_by(&["acme/qa"])
        .table("[[signers]]\nname = \"nobody\"\nkeys = [\"0bf4028f1e0626984f4ca21bf5afb64eaf78246618a04009d967fba14ac31492\"]")
        .team("acme/qa", &["nobody"]);
    scene.restart_with(&stricter).await;
    let status = scene.status_until(|status| status["inventory"]["unverified"] == 1).await;
    assert_eq!(status["inventory"]["containers"][0]["code"], "CS-SIGNING-POLICY", "{status:#}");

    let exempt = stricter.rule(&scene.world.gun(super::REPOSITORY), "namespaces = [\"shop\"]\nmode = \"disabled\"");
    scene.restart_with(&exempt).await;
    let status = scene.status_until(|status| status["inventory"]["exempt"] == 1).await;
    assert_eq!((&status["inventory"]["unverified"], &status["bypasses-seen"]), (&0.into(), &0.into()), "{status:#}");
}

#[tokio::test]
async fn what_shows_an_unsigned_image_in_a_volume_counts_by_the_strictest_rule_after_a_restart_too() {
    let mut scene = Scene::on(Version::V2_1, "volume_counts", |configuration| configuration.mode("permissive")).await;
    let (unsigned, _) = scene.unsigned().await;
    let id = scene.cri().pull(&scene.name).await.unwrap();
    let pod = scene.cri().run_pod(scene.cri().pod("shop")).await.unwrap();
    let mut config = container(&id, &scene.name);
    config.mounts = vec![image_volume("/volume", &unsigned, &unsigned)];
    let made = scene.cri().create(&pod, config).await.unwrap();
    scene.cri().start(&made).await.unwrap();
    let status = scene.status_until(|status| status["inventory"]["unverified"] == 1).await;
    assert_eq!(status["inventory"]["containers"][0]["code"], "CS-UNKNOWN-ROOTFS", "{status:#}");

    let (own, other) = (scene.world.gun(super::REPOSITORY), scene.world.gun("other/app"));
    let exempt = |images: &[&String]| {
        images.iter().fold(scene.configuration().mode("permissive"), |config, images| config.rule(images, "mode = \"disabled\""))
    };
    let (one, both) = (exempt(&[&own]), exempt(&[&own, &other]));
    scene.restart_with(&one).await;
    scene.status_until(|status| status["inventory"]["unverified"] == 1).await;
    scene.restart_with(&both).await;
    let status = scene.status_until(|status| status["inventory"]["exempt"] == 1).await;
    assert_eq!((&status["inventory"]["unverified"], &status["bypasses-seen"]), (&0.into(), &0.into()), "{status:#}");
}

async fn a_sandbox_of_another_image_that_was_made_past_the_gate_is_shown_and_never_stopped(containerd: Version) {
    let scene = Scene::on(containerd, "other_sandbox", |configuration| configuration.table(super::STOP)).await;
    let ran = scene.cri().run(&scene.name, "shop").await.unwrap();
    let status = scene.status_until(|status| status["inventory"]["verified"] == 1).await;
    assert_eq!((&status["inventory"]["sandboxes"], &status["inventory"]["unverified"]), (&1.into(), &0.into()), "{status:#}");

    let sandboxes = format!("{}/pause:3.10", scene.world.registry.host());
    scene.world.containerd.ctr().import(&Recipe::sleeps().file("/other", "x").build(), &sandboxes).await;
    let pod = scene.behind().run_pod(scene.behind().pod("evil")).await.unwrap();

    let status = scene.status_until(|status| status["inventory"]["unverified"] == 1).await;
    let shown = &status["inventory"]["containers"][0];
    assert_eq!((&shown["container"], &shown["code"]), (&"(sandbox)".into(), &"CS-OTHER-ROOTFS".into()), "{status:#}");
    assert_eq!((&shown["namespace"], &shown["id"]), (&"evil".into(), &pod.id.as_str().into()));
    assert!(scene.runs(&pod.id).await && scene.runs(&ran.container).await);
    assert_eq!(status["stopped"], 0);
}

#[tokio::test]
async fn without_a_daemon_the_status_cannot_be_told() {
    let mut scene = Scene::new("no_daemon").await;
    scene.world.gate.as_mut().unwrap().server.stop();
    let mut command = tokio::process::Command::new(super::binary());
    command.arg("status").arg("--config").arg(scene.gate().configuration());
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no daemon answers at"), "{output:?}");
}
