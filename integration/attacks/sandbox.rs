//! The image of sandboxes, which no pod names and containerd pulls by itself.

use k8s_cri::v1::ListPodSandboxRequest;

use super::super::harness::containerd::Version;
use super::super::harness::cri::container;
use super::super::harness::gate::GateConfig;
use super::super::harness::image::Recipe;
use super::super::harness::relay::Relay;
use super::super::harness::world::{World, sandbox};
use super::{Scene, assert_denied, binary};

on_every_containerd! {
    a_sandbox_runs_the_listed_digest_and_no_packet_is_sent_once_it_is_here,
    the_image_of_sandboxes_is_pulled_by_its_digest_when_the_tag_was_moved,
    a_sandboxes_record_that_was_moved_on_the_node_is_put_right,
    a_sandboxes_record_that_is_switched_on_the_way_is_caught_by_what_it_stands_on,
    an_unsigned_image_of_sandboxes_is_refused_before_any_runs,
    a_signed_image_of_sandboxes_runs_without_a_listed_digest,
    the_sandboxes_digest_lets_no_workload_pass,
    a_sandbox_of_another_image_gets_no_container_after_a_restart,
    permissive_mode_lets_any_sandbox_run_and_logs_it,
}

/// Where the image of sandboxes is in a world's registry.
const PAUSE: &str = "pause";

fn pause(world: &World) -> String {
    format!("{}:3.10", world.gun(PAUSE))
}

async fn try_sandbox(scene: &Scene) -> Result<(), tonic::Status> {
    scene.cri().run_pod(scene.cri().pod("default")).await.map(drop)
}

async fn a_sandbox_runs_the_listed_digest_and_no_packet_is_sent_once_it_is_here(containerd: Version) {
    let scene = Scene::on(containerd, "a_sandbox_runs_the_listed_digest").await;
    let asked = scene.world.notary.requests().len();
    let pod = scene.pod().await;
    assert_eq!(scene.ctr().root_file_system(&pod.id).await.unwrap(), sandbox().chain_id().to_string());
    assert_eq!(scene.world.notary.requests().len(), asked, "a listed digest needs no trust data");
    let before = scene.packets();
    scene.pod().await;
    assert_eq!(scene.packets(), before);
}

async fn the_image_of_sandboxes_is_pulled_by_its_digest_when_the_tag_was_moved(containerd: Version) {
    let scene = Scene::on(containerd, "the_tag_of_sandboxes_was_moved").await;
    let evil = Recipe::prints_and_stays("evil").build();
    scene.world.push(&evil, PAUSE, "3.10").await;
    let pod = scene.pod().await;
    assert_eq!(scene.ctr().root_file_system(&pod.id).await.unwrap(), sandbox().chain_id().to_string());
}

async fn a_sandboxes_record_that_was_moved_on_the_node_is_put_right(containerd: Version) {
    let scene = Scene::on(containerd, "a_sandboxes_record_was_moved").await;
    scene.pod().await;
    let evil = Recipe::prints_and_stays("evil").build();
    scene.ctr().import(&evil, &pause(&scene.world)).await;
    scene.wait_until_shown(&pause(&scene.world), &evil).await;
    let pod = scene.pod().await;
    assert_eq!(scene.ctr().root_file_system(&pod.id).await.unwrap(), sandbox().chain_id().to_string());
}

async fn a_sandboxes_record_that_is_switched_on_the_way_is_caught_by_what_it_stands_on(containerd: Version) {
    let mut scene = Scene::on(containerd, "a_sandboxes_record_is_switched").await;
    let relay = Relay::start(&scene.world.folder, &scene.world.containerd.socket());
    let mut configuration = scene.configuration();
    configuration.containerd = Some(relay.socket().to_owned());
    scene.world.start_gate(binary(), &configuration).await;
    scene.pod().await;
    let sandboxes = async || scene.behind().runtime().list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().into_inner().items;
    let before = sandboxes().await.len();
    let evil = Recipe::prints_and_stays("evil").build();
    scene.ctr().import(&evil, "example.com/evil:1").await;

    let config = scene.cri().pod("default");
    let (ctr, record, top) = (scene.ctr(), pause(&scene.world), evil.top().clone());
    relay.before(&config.metadata.as_ref().unwrap().uid, async move { ctr.retarget(&record, &top).await.unwrap() });
    let refused = scene.cri().run_pod(config).await.unwrap_err();

    assert!(!relay.is_waiting(), "the call was sent: {refused:?}");
    assert_denied(&refused, "CS-OTHER-ROOTFS");
    assert_eq!(sandboxes().await.len(), before, "the sandbox was removed");
    // The next one finds the record wrong, and pulls.
    let pod = scene.pod().await;
    assert_eq!(scene.ctr().root_file_system(&pod.id).await.unwrap(), sandbox().chain_id().to_string());
}

/// A gate that does not list the digest of the image of sandboxes.
async fn unlisted(scene: &mut Scene, lines: impl FnOnce(GateConfig) -> GateConfig) {
    let configuration = lines(GateConfig { sandbox_digests: Vec::new(), ..scene.configuration() });
    let gate = scene.world.gate.as_mut().unwrap();
    gate.configure(&configuration);
    gate.restart().await;
}

async fn an_unsigned_image_of_sandboxes_is_refused_before_any_runs(containerd: Version) {
    let mut scene = Scene::on(containerd, "an_unsigned_image_of_sandboxes").await;
    unlisted(&mut scene, |configuration| configuration).await;
    assert_denied(&try_sandbox(&scene).await.unwrap_err(), "CS-NOT-PINNED");
    let gun = scene.world.gun(PAUSE);
    let root = scene.root.canonical.clone();
    unlisted(&mut scene, |configuration| configuration.root_key(gun, root)).await;
    let refused = try_sandbox(&scene).await.unwrap_err();
    assert_denied(&refused, "CS-NO-TRUST-DATA");
    assert!(refused.message().contains("containerd.sandbox-image-digests"), "{}", refused.message());
    scene.runs_nothing().await;

    // What is listed for workloads is not meant for sandboxes, and the other way round.
    let listed = format!("allow-digests = [\"{}\"]", sandbox().digest());
    let gun = scene.world.gun(PAUSE);
    unlisted(&mut scene, |configuration| configuration.rule(&gun, &listed)).await;
    assert_denied(&try_sandbox(&scene).await.unwrap_err(), "CS-NOT-PINNED");
}

async fn a_signed_image_of_sandboxes_runs_without_a_listed_digest(containerd: Version) {
    let mut world = World::on(containerd, "a_signed_image_of_sandboxes").await;
    let image = Recipe::prints("signed").build();
    let (name, root) = world.push_signed(&image, super::REPOSITORY, "1").await;
    let (_, pause_root) = world.push_signed(&sandbox(), PAUSE, "3.10").await;
    let configuration =
        world.gate_config().root_key(world.gun(super::REPOSITORY), root.canonical.clone()).root_key(world.gun(PAUSE), pause_root.canonical);
    world.start_gate(binary(), &GateConfig { sandbox_digests: Vec::new(), ..configuration }).await;
    let scene = Scene { world, image, name, root };
    scene.runs_the_signed_image().await;
}

async fn the_sandboxes_digest_lets_no_workload_pass(containerd: Version) {
    let scene = Scene::on(containerd, "the_sandboxes_digest").await;
    let pod = scene.pod().await;
    let (name, id) = (pause(&scene.world), sandbox().id().to_string());
    for (image, name) in [(&id, &name), (&name, &name)] {
        assert_denied(&scene.cri().create(&pod, container(image, name)).await.unwrap_err(), "CS-NOT-PINNED");
    }
    let by_digest = format!("{}@{}", scene.world.gun(PAUSE), sandbox().digest());
    assert_denied(&scene.cri().pull(&by_digest).await.unwrap_err(), "CS-NOT-PINNED");
    scene.runs_nothing().await;
}

async fn a_sandbox_of_another_image_gets_no_container_after_a_restart(containerd: Version) {
    let mut scene = Scene::on(containerd, "a_sandbox_of_another_image").await;
    scene.pull().await;
    let evil = Recipe::prints_and_stays("evil").build();
    scene.ctr().import(&evil, &pause(&scene.world)).await;
    scene.wait_until_shown(&pause(&scene.world), &evil).await;
    let pod = scene.behind().run_pod(scene.behind().pod("default")).await.unwrap();
    scene.world.gate.as_mut().unwrap().restart().await;
    let refused = scene.cri().create(&pod, container(&scene.image.id().to_string(), &scene.name)).await.unwrap_err();
    assert_denied(&refused, "CS-OTHER-ROOTFS");
    scene.runs_nothing().await;
}

async fn permissive_mode_lets_any_sandbox_run_and_logs_it(containerd: Version) {
    let mut scene = Scene::on(containerd, "permissive_mode_lets_any_sandbox_run").await;
    unlisted(&mut scene, |configuration| configuration.mode("permissive")).await;
    try_sandbox(&scene).await.unwrap();
    scene.logged(&["let pass", "RunPodSandbox", "CS-NOT-PINNED"]).await;
}
