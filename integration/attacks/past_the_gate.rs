//! Containers that were made past the gate, and started through it.

use tonic::Code;

use super::super::harness::containerd::Version;
use super::super::harness::cri::container;
use super::super::harness::image::Recipe;
use super::{Scene, assert_denied};

on_every_containerd! {
    a_container_of_an_unsigned_image_made_past_the_gate_does_not_start,
    a_container_of_the_signed_image_starts_by_its_id_and_by_a_prefix_of_it,
    a_container_does_not_start_on_the_word_of_another_whose_id_is_a_prefix_of_its_own,
    a_container_on_a_snapshotter_that_is_not_containerds_own_does_not_start,
    a_container_that_does_not_exist_is_not_started,
    an_image_whose_signature_was_taken_back_does_not_start_again_after_the_next_pull,
}

async fn a_container_of_an_unsigned_image_made_past_the_gate_does_not_start(containerd: Version) {
    let scene = Scene::on(containerd, "made_past_the_gate").await;
    scene.pull().await;
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), "other/app", "1").await;
    let id = scene.behind().pull(&unsigned).await.unwrap();
    let pod = scene.pod().await;
    for name in [&unsigned, &scene.name] {
        let made = scene.behind().create(&pod, container(&id, name)).await.unwrap();
        for given in [made.as_str(), &made[..13]] {
            assert_denied(&scene.cri().start(given).await.unwrap_err(), "CS-UNKNOWN-ROOTFS");
        }
        assert_eq!(scene.cri().output(&made).await.unwrap(), "");
        let state = scene.cri().container_status(&made).await.unwrap();
        assert_eq!((state.started_at, state.exit_code), (0, 0), "it never ran");
    }
}

async fn a_container_of_the_signed_image_starts_by_its_id_and_by_a_prefix_of_it(containerd: Version) {
    let scene = Scene::on(containerd, "started_by_prefix").await;
    let id = scene.pull().await;
    let pod = scene.pod().await;
    for length in [64, 13] {
        let made = scene.cri().create(&pod, container(&id, &scene.name)).await.unwrap();
        scene.cri().start(&made[..length]).await.unwrap();
        assert_eq!(scene.cri().first_output(&made).await.unwrap(), "signed\n");
    }
}

/// CRI takes a prefix of an ID; containerd's own API takes the whole ID. An agent makes a container of the signed image
/// whose whole ID is the prefix of another's.
async fn a_container_does_not_start_on_the_word_of_another_whose_id_is_a_prefix_of_its_own(containerd: Version) {
    let scene = Scene::on(containerd, "started_by_the_prefix_of_another").await;
    scene.pull().await;
    let unsigned = scene.world.push(&Recipe::prints("unsigned").build(), "other/app", "1").await;
    let id = scene.behind().pull(&unsigned).await.unwrap();
    let made = scene.behind().create(&scene.pod().await, container(&id, &unsigned)).await.unwrap();
    let prefix = &made[..13];
    scene.ctr().run(&["containers", "create", &scene.name, prefix]).await;

    let started = scene.cri().start(prefix).await;

    assert_eq!(scene.cri().output(&made).await.unwrap(), "", "it never ran");
    assert_denied(&started.unwrap_err(), "CS-UNKNOWN-ROOTFS");
    scene.ctr().run(&["containers", "rm", prefix]).await;
}

/// A snapshotter that fetches while the container runs takes the chain ID on trust.
async fn a_container_on_a_snapshotter_that_is_not_containerds_own_does_not_start(containerd: Version) {
    let scene = Scene::on(containerd, "lazy_snapshotter").await;
    scene.pull().await;
    for (id, snapshotter) in [("ab", "stargz"), ("cd", "overlayfs2")] {
        let id = id.repeat(32);
        scene.ctr().create_container_record(&id, snapshotter).await.unwrap();
        let refused = scene.cri().start(&id).await.unwrap_err();
        assert_denied(&refused, "CS-SNAPSHOTTER");
        assert!(refused.message().contains(snapshotter), "{refused:?}");
        scene.ctr().run(&["containers", "rm", "--keep-snapshot", &id]).await;
    }
    scene.runs_the_signed_image().await;
}

async fn a_container_that_does_not_exist_is_not_started(containerd: Version) {
    let scene = Scene::on(containerd, "a_container_that_does_not_exist").await;
    let refused = scene.cri().start(&"ab".repeat(32)).await.unwrap_err();
    assert_eq!((refused.code(), refused.message().contains("(CS-NO-CONTAINER)")), (Code::NotFound, true), "{refused:?}");
    // What is no whole ID is looked up by CRI, whose own answer comes back.
    for given in ["", "nothing", "../..", "\u{1b}[2J\"'\\"] {
        let refused = scene.cri().start(given).await.unwrap_err();
        let code = if given.is_empty() { Code::Unknown } else { Code::NotFound };
        assert_eq!((refused.code(), refused.message().contains("CS-")), (code, false), "{given}: {refused:?}");
    }
    let huge = scene.cri().start(&"x".repeat(1_000_000)).await.unwrap_err();
    assert!(huge.message().len() < 3000, "{}", huge.message());
    scene.runs_the_signed_image().await;
}

async fn an_image_whose_signature_was_taken_back_does_not_start_again_after_the_next_pull(containerd: Version) {
    let scene = Scene::on(containerd, "a_signature_was_taken_back").await;
    let id = scene.pull().await;
    let pod = scene.pod().await;
    let made = scene.cri().create(&pod, container(&id, &scene.name)).await.unwrap();
    scene.world.notary.signer("admin").remove_tag(&scene.world.gun(super::REPOSITORY), "1").await;

    assert_denied(&scene.cri().pull(&scene.name).await.unwrap_err(), "CS-TAG-NOT-SIGNED");
    assert_denied(&scene.cri().start(&made).await.unwrap_err(), "CS-TAG-NOT-SIGNED");
    assert_denied(&scene.cri().create(&pod, container(&id, &scene.name)).await.unwrap_err(), "CS-TAG-NOT-SIGNED");
    assert_eq!(scene.cri().output(&made).await.unwrap(), "");
}
