//! Images whose manifests lie, and things in a registry that are no images.

use tonic::Status;

use super::super::harness::containerd::Version;
use super::super::harness::cri::container;
use super::super::harness::image::{Image, Recipe};
use super::super::harness::process::text;
use super::{REPOSITORY, Scene, assert_denied};

on_every_containerd! {
    a_signed_config_over_other_layers_is_not_pulled,
    a_signed_config_over_other_layers_imported_under_the_signed_name_runs_the_signed_layers,
    what_is_signed_and_no_image_does_not_run,
    a_signed_checkpoint_is_refused,
    refused_images_with_the_config_of_another_lock_nobody_out,
    what_is_no_image_below_an_index_and_has_the_config_of_another_locks_nobody_out,
}

/// containerd 2.1 takes an image with this annotation for a checkpoint and pulls the image that it names by itself.
const CHECKPOINT: &str = "org.criu.checkpoint.container.name";

/// Pushes an image and has its tag signed: whoever signs may be a tenant who is trusted with this repository alone.
async fn push_signed(scene: &Scene, image: &Image, tag: &str) -> String {
    let name = scene.world.push(image, REPOSITORY, tag).await;
    scene.world.notary.signer("admin").sign(&scene.world.gun(REPOSITORY), tag, image).await;
    name
}

/// containerd before 2.1 does not unpack what is no image. A later one does, so that the gate refuses it.
#[track_caller]
fn assert_no_image(containerd: Version, pulled: &Status) {
    match containerd {
        Version::V1_6 | Version::V1_7 => assert!(pulled.message().contains("failed to unpack image"), "{pulled:?}"),
        Version::V2_1 => assert_denied(pulled, "CS-CONTENT-NOT-AN-IMAGE"),
    }
}

async fn a_signed_config_over_other_layers_is_not_pulled(containerd: Version) {
    let scene = Scene::on(containerd, "a_signed_config_over_other_layers").await;
    let mixed = scene.image.over_layers_of(&Recipe::prints("evil").build());
    assert_eq!((mixed.id(), mixed.digest() == scene.image.digest()), (scene.image.id(), false));
    let unsigned = scene.world.push(&mixed, REPOSITORY, "unsigned").await;
    let signed = push_signed(&scene, &mixed, "mixed").await;

    assert_denied(&scene.cri().pull(&unsigned).await.unwrap_err(), "CS-TAG-NOT-SIGNED");
    let cold = scene.cri().pull(&signed).await.unwrap_err();
    assert!(cold.message().contains("wrong diff id calculated on extraction"), "{cold:?}");
    scene.runs_nothing().await;

    // With the real image unpacked containerd looks at the config alone: the signed layers are used.
    scene.runs_the_signed_image().await;
    let ran = scene.cri().run(&signed, "default").await.unwrap();
    assert_eq!((ran.output.as_str(), ran.image), ("signed\n", scene.image.id().to_string()));
    assert_eq!(scene.only_runs(&[scene.image.chain_id()]).await, 2);
}

async fn a_signed_config_over_other_layers_imported_under_the_signed_name_runs_the_signed_layers(containerd: Version) {
    let scene = Scene::on(containerd, "a_mixed_image_imported").await;
    let id = scene.pull().await;
    let mixed = scene.image.over_layers_of(&Recipe::prints("evil").build());
    scene.ctr().import(&mixed, &scene.name).await;
    let pod = scene.pod().await;
    let made = scene.cri().create(&pod, container(&id, &scene.name)).await.unwrap();
    scene.cri().start(&made).await.unwrap();
    assert_eq!(scene.cri().first_output(&made).await.unwrap(), "signed\n");
    assert_eq!(scene.only_runs(&[scene.image.chain_id()]).await, 1);
}

async fn what_is_signed_and_no_image_does_not_run(containerd: Version) {
    let scene = Scene::on(containerd, "what_is_signed_and_no_image").await;
    let wasm = Recipe::prints("artifact").config_media_type("application/vnd.wasm.config.v0+json").build();
    let empty = Recipe::empty().file("/data", "no image").config_media_type("application/vnd.oci.empty.v1+json").config("{}").build();
    let pod = scene.pod().await;
    for (tag, image) in [("wasm", wasm), ("empty", empty)] {
        let name = push_signed(&scene, &image, tag).await;
        assert_no_image(containerd, &scene.cri().pull(&name).await.unwrap_err());
        let records = scene.ctr().records().await.unwrap();
        assert!(!records.iter().any(|(_, target)| *target == image.digest().to_string()), "{tag}: {records:?}");
        let created = scene.cri().create(&pod, container(&image.id().to_string(), &name)).await.unwrap_err();
        assert_denied(&created, "CS-NOT-PRESENT");
        // The same, when another client brings it.
        let archive = scene.world.folder.path().join("archive.tar");
        image.write_archive(&archive, &[("io.containerd.image.name", &name)]);
        scene.ctr().run(&["images", "import", "--no-unpack", &text(&archive)]).await;
        scene.wait_until_shown(&name, &image).await;
        let created = scene.cri().create(&pod, container(&image.id().to_string(), &name)).await.unwrap_err();
        assert_denied(&created, "CS-CONTENT-NOT-AN-IMAGE");
        scene.runs_nothing().await;
    }
    scene.runs_the_signed_image().await;
}

async fn a_signed_checkpoint_is_refused(containerd: Version) {
    let scene = Scene::on(containerd, "a_signed_checkpoint").await;
    let checkpoint = Recipe::prints("checkpoint").annotation(CHECKPOINT, "evil").build();
    let name = push_signed(&scene, &checkpoint, "checkpoint").await;
    assert_denied(&scene.cri().pull(&name).await.unwrap_err(), "CS-CONTENT-CHECKPOINT");
    let (id, pod) = (checkpoint.id().to_string(), scene.pod().await);
    assert_denied(&scene.cri().create(&pod, container(&id, &name)).await.unwrap_err(), "CS-NOT-PRESENT");
    // The same, when another client brings it.
    scene.behind().pull(&name).await.unwrap();
    assert_denied(&scene.cri().create(&pod, container(&id, &name)).await.unwrap_err(), "CS-CONTENT-CHECKPOINT");
    scene.runs_nothing().await;
    scene.runs_the_signed_image().await;
}

/// A tenant who signs an own repository pushes another tenant's config below manifests that are refused, after containerd
/// has pulled them or by containerd itself.
async fn refused_images_with_the_config_of_another_lock_nobody_out(containerd: Version) {
    let mut scene = Scene::on(containerd, "refused_images_with_the_config_of_another").await;
    let checkpoint = Recipe::prints("signed").annotation(CHECKPOINT, "evil").build();
    let artifact = Recipe::prints("signed").config_media_type("application/vnd.wasm.config.v0+json").build();
    let (first, root) = scene.world.push_signed(&checkpoint, "team/their", "1").await;
    let fewer_layers = scene.image.over_layers_of(&Recipe::empty().file("/data", "one layer").build());
    let [second, third] = [scene.world.push(&artifact, "team/their", "2").await, scene.world.push(&fewer_layers, "team/their", "3").await];
    let admin = scene.world.notary.signer("admin");
    admin.sign(&scene.world.gun("team/their"), "2", &artifact).await;
    admin.sign(&scene.world.gun("team/their"), "3", &fewer_layers).await;
    let configuration = scene.configuration().root_key(scene.world.gun("team/their"), root.canonical);
    scene.world.start_gate(super::binary(), &configuration).await;
    // Before the other's image is on the node: a containerd that fails to unpack the artifact leaves its record.
    assert_no_image(containerd, &scene.cri().pull(&second).await.unwrap_err());
    let id = scene.pull().await;
    let pod = scene.pod().await;
    assert_eq!(scene.cri().run_image(&pod, &id, &scene.name).await.unwrap().output, "signed\n");

    for (theirs, image, says) in [
        (&first, &checkpoint, "(CS-CONTENT-CHECKPOINT)"),
        (&second, &artifact, "(CS-CONTENT-NOT-AN-IMAGE)"),
        (&third, &fewer_layers, "layers and diffIDs don't match"),
    ] {
        assert_eq!((image.id(), image.digest() == scene.image.digest()), (scene.image.id(), false));
        let refused = scene.cri().pull(theirs).await.unwrap_err();
        assert!(refused.message().contains(says), "{refused:?}");
        // As a container that kubelet restarts: without another pull.
        let ran = scene.cri().run_image(&pod, &id, &scene.name).await.unwrap();
        assert_eq!(ran.output, "signed\n");
        let created = scene.cri().create(&pod, container(&id, theirs)).await.unwrap_err();
        assert_eq!(created.message().rsplit_once(" (").map(|(_, code)| code.starts_with("CS-")), Some(true), "{created:?}");
        scene.only_runs(&[scene.image.chain_id()]).await;
    }
    scene.runs_the_signed_image().await;
}

/// containerd takes a manifest below an index for an image, whatever type its config says it is, and names it by that.
async fn what_is_no_image_below_an_index_and_has_the_config_of_another_locks_nobody_out(containerd: Version) {
    let mut scene = Scene::on(containerd, "what_is_no_image_below_an_index").await;
    let twin = Recipe::prints("signed").config_media_type("application/vnd.acme.config+json").index().build();
    assert_eq!((twin.id(), twin.digest() == scene.image.digest()), (scene.image.id(), false));
    let (theirs, root) = scene.world.push_signed(&twin, "team/their", "1").await;
    let unsigned = scene.world.push(&twin, "team/their", "2").await;
    let configuration = scene.configuration().root_key(scene.world.gun("team/their"), root.canonical);
    scene.world.start_gate(super::binary(), &configuration).await;
    let id = scene.pull().await;
    let pod = scene.pod().await;
    assert_eq!(scene.cri().run_image(&pod, &id, &scene.name).await.unwrap().output, "signed\n");

    // By whoever may sign in a repository of their own; and by a pod whose namespace is let pass.
    scene.cri().pull(&theirs).await.unwrap_err();
    assert_eq!(scene.cri().run_image(&pod, &id, &scene.name).await.unwrap().output, "signed\n");
    for name in [&theirs, &unsigned] {
        scene.behind().pull(name).await.unwrap();
        assert_eq!(scene.cri().run_image(&pod, &id, &scene.name).await.unwrap().output, "signed\n", "{name}");
        scene.cri().create(&pod, container(&id, name)).await.unwrap_err();
    }
    scene.only_runs(&[scene.image.chain_id()]).await;
}
