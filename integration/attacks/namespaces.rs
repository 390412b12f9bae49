//! The namespace of a pod, which chooses the rule.

use std::time::Duration;

use k8s_cri::v1::{CreateContainerRequest, PodSandboxConfig};

use super::super::harness::containerd::Version;
use super::super::harness::cri::{Pod, container};
use super::super::harness::image::Recipe;
use super::super::harness::relay::Relay;
use super::{REPOSITORY, Scene, assert_denied};

on_every_containerd! {
    an_image_of_a_lenient_namespace_is_judged_again_for_a_strict_one,
    a_container_of_no_sandbox_is_judged_as_one_of_no_namespace,
    an_id_that_can_be_read_as_a_lenient_name_is_none,
    a_strict_sandbox_that_takes_the_prefix_of_a_lenient_one_on_the_way_gets_no_container,
    a_strict_container_that_takes_the_prefix_of_a_lenient_one_on_the_way_is_not_started,
}

const LENIENT: &str = "lenient";
/// Longer than the watcher takes to look at a container that was made.
const WATCHER_LOOKS: Duration = Duration::from_secs(2);

/// A gate that lets pass in one namespace whatever is not signed.
async fn lenient_scene(containerd: Version, test: &str) -> Scene {
    let mut scene = Scene::on(containerd, test).await;
    let lines = format!("name = \"lenient\"\nnamespaces = [\"{LENIENT}\"]\nmode = \"permissive\"");
    let configuration = scene.configuration().rule(&scene.world.gun(REPOSITORY), &lines);
    let gate = scene.world.gate.as_mut().unwrap();
    gate.configure(&configuration);
    gate.restart().await;
    scene
}

async fn create_as(scene: &Scene, pod: &Pod, claimed: &PodSandboxConfig, image: &str, name: &str) -> Result<String, tonic::Status> {
    let request = CreateContainerRequest {
        pod_sandbox_id: pod.id.clone(),
        config: Some(container(image, name)),
        sandbox_config: Some(claimed.clone()),
    };
    scene.cri().runtime().create_container(request).await.map(|answer| answer.into_inner().container_id)
}

async fn an_image_of_a_lenient_namespace_is_judged_again_for_a_strict_one(containerd: Version) {
    let mut scene = lenient_scene(containerd, "an_image_of_a_lenient_namespace").await;
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), REPOSITORY, "2").await;
    let lenient = scene.cri().pod(LENIENT);
    let id = scene.cri().pull_with(&unsigned, None, Some(&lenient)).await.unwrap();
    let lenient = scene.cri().run_pod(lenient).await.unwrap();
    assert_eq!(scene.cri().run_image(&lenient, &id, &unsigned).await.unwrap().output, "unsigned\n");

    let strict = scene.pod().await;
    for _ in ["fresh", "restarted"] {
        for image in [&id, &unsigned] {
            assert_denied(&scene.cri().create(&strict, container(image, &unsigned)).await.unwrap_err(), "CS-TAG-NOT-SIGNED");
        }
        // What a request says of its pod is not what the sandbox was made for.
        let claimed = create_as(&scene, &strict, &lenient.config, &id, &unsigned).await.unwrap_err();
        assert_denied(&claimed, "CS-TAG-NOT-SIGNED");
        let prefix = Pod { id: strict.id[..20].to_owned(), ..strict.clone() };
        let claimed = create_as(&scene, &prefix, &lenient.config, &id, &unsigned).await.unwrap_err();
        assert_denied(&claimed, "CS-TAG-NOT-SIGNED");
        assert_eq!(scene.cri().run_image(&lenient, &id, &unsigned).await.unwrap().output, "unsigned\n");
        scene.world.gate.as_mut().unwrap().restart().await;
    }
}

async fn a_container_of_no_sandbox_is_judged_as_one_of_no_namespace(containerd: Version) {
    let scene = lenient_scene(containerd, "a_container_of_no_sandbox").await;
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), REPOSITORY, "2").await;
    let lenient = scene.cri().pod(LENIENT);
    let id = scene.cri().pull_with(&unsigned, None, Some(&lenient)).await.unwrap();
    let gone = Pod { id: "0".repeat(64), ..scene.pod().await };
    let refused = create_as(&scene, &gone, &lenient, &id, &unsigned).await.unwrap_err();
    assert_denied(&refused, "CS-TAG-NOT-SIGNED");
}

async fn an_id_that_can_be_read_as_a_lenient_name_is_none(containerd: Version) {
    let mut scene = Scene::on(containerd, "an_id_that_can_be_read_as_a_name").await;
    // Names without a host are below docker.io/library, and so is what an ID or its first digits would be.
    let configuration =
        scene.configuration().rule("docker.io/library/*", "name = \"lenient\"\nnamespaces = [\"lenient\"]\nmode = \"permissive\"");
    let gate = scene.world.gate.as_mut().unwrap();
    gate.configure(&configuration);
    gate.restart().await;
    let evil = Recipe::prints("evil").build();
    scene.ctr().import(&evil, "example.com/evil:1").await;
    let pod = scene.cri().run_pod(scene.cri().pod(LENIENT)).await.unwrap();
    let id = evil.id().to_string();
    let digits = id.trim_start_matches("sha256:");
    for (image, name) in [
        (id.as_str(), id.as_str()),
        (&id, ""),
        (digits, digits),
        (&digits[..12], ""),
        (&id, &digits[..12]),
        (&id, "busybox:1"),
        (&id[..20], ""),
    ] {
        let refused = scene.cri().create(&pod, container(image, name)).await.unwrap_err();
        assert!(refused.message().starts_with("SignatureValidationFailed: "), "{image} as {name}: {refused:?}");
    }
    scene.runs_nothing().await;

    // What really is called so passes.
    scene.ctr().import(&evil, "docker.io/library/busybox:1").await;
    scene.wait_until_shown("busybox:1", &evil).await;
    assert_eq!(scene.cri().run_image(&pod, &id, "busybox:1").await.unwrap().output, "evil\n");
}

/// A gate behind a relay, where the rule of one namespace has this mode.
async fn relayed_scene(containerd: Version, test: &str, mode: &str) -> (Scene, Relay) {
    let mut scene = Scene::on(containerd, test).await;
    let relay = Relay::start(&scene.world.folder, &scene.world.containerd.socket());
    let lines = format!("name = \"lenient\"\nnamespaces = [\"{LENIENT}\"]\nmode = \"{mode}\"");
    let mut configuration = scene.configuration().rule(&scene.world.gun(REPOSITORY), &lines);
    configuration.containerd = Some(relay.socket().to_owned());
    let gate = scene.world.gate.as_mut().unwrap();
    gate.configure(&configuration);
    gate.restart().await;
    (scene, relay)
}

/// When the sandbox was looked at and the create is on its way, the sandbox goes, and one of a strict namespace with the same first
/// digit comes.
async fn a_strict_sandbox_that_takes_the_prefix_of_a_lenient_one_on_the_way_gets_no_container(containerd: Version) {
    let (scene, relay) = relayed_scene(containerd, "a_sandbox_by_its_prefix", "permissive").await;
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), REPOSITORY, "2").await;
    let id = scene.behind().pull(&unsigned).await.unwrap();

    let lenient = scene.cri().run_pod(scene.cri().pod(LENIENT)).await.unwrap();
    let prefix = lenient.id[..1].to_owned();
    let config = container(&id, &unsigned);
    let (behind, going, wanted) = (scene.behind().clone(), lenient.clone(), prefix.clone());
    relay.before(&config.metadata.as_ref().unwrap().name, async move {
        behind.remove_pod(&going).await.unwrap();
        loop {
            let strict = behind.run_pod(behind.pod("strict")).await.unwrap();
            if strict.id.starts_with(&wanted) {
                break;
            }
            behind.remove_pod(&strict).await.unwrap();
        }
    });
    let by_prefix = Pod { id: prefix.clone(), ..lenient };
    let created = scene.cri().create(&by_prefix, config).await;
    assert!(!relay.is_waiting(), "the create was sent: {created:?}");
    assert_eq!(created.unwrap_err().code(), tonic::Code::NotFound);
    scene.runs_nothing().await;

    // The same of a prefix that nothing had when it was looked for.
    let unused = Pod { id: "x".to_owned(), ..by_prefix };
    let config = container(&id, &unsigned);
    relay.before(&config.metadata.as_ref().unwrap().name, async {});
    assert_eq!(scene.cri().create(&unused, config).await.unwrap_err().code(), tonic::Code::NotFound);
    assert!(relay.is_waiting(), "the create was not sent");
}

/// When the container was found and its start is on its way, it goes, and one of a strict namespace with the same first digit comes,
/// which was made past the gate.
async fn a_strict_container_that_takes_the_prefix_of_a_lenient_one_on_the_way_is_not_started(containerd: Version) {
    let (scene, relay) = relayed_scene(containerd, "a_container_by_its_prefix", "disabled").await;
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), REPOSITORY, "2").await;
    let id = scene.behind().pull(&unsigned).await.unwrap();
    let lenient = scene.cri().run_pod(scene.cri().pod(LENIENT)).await.unwrap();
    let strict = scene.pod().await;
    let made = scene.cri().create(&lenient, container(&id, &unsigned)).await.unwrap();
    let (behind, going, config) = (scene.behind().clone(), made.clone(), container(&id, &unsigned));
    // The watcher has heard of the container by then: nothing else than its start names it in full.
    tokio::time::sleep(WATCHER_LOOKS).await;
    relay.before(&made, async move {
        behind.remove(&going).await.unwrap();
        loop {
            let other = behind.create(&strict, config.clone()).await.unwrap();
            if other[..1] == going[..1] {
                break;
            }
            behind.remove(&other).await.unwrap();
        }
    });
    let started = scene.cri().start(&made[..1]).await;
    assert!(!relay.is_waiting(), "the start was sent: {started:?}");
    assert_eq!(started.unwrap_err().code(), tonic::Code::NotFound);
    for other in scene.cri().list_containers().await.unwrap() {
        let status = scene.cri().container_status(&other.id).await.unwrap();
        assert_eq!(status.started_at, 0, "{status:?} was started");
    }
}
