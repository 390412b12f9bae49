//! What a pull by tag, by digest and by both may fetch.

use super::super::harness::containerd::Version;
use super::super::harness::image::{Image, Recipe};
use super::{Scene, assert_denied};

on_every_containerd! {
    a_tag_that_was_moved_after_signing_runs_the_signed_digest,
    a_tag_that_is_signed_again_runs_the_new_digest_and_takes_its_record_along,
    pulls_by_digest_leave_no_tag_record_and_only_signed_digests_are_pulled,
    signed_images_of_every_form_run,
    a_platforms_manifest_is_as_good_as_the_signed_index_that_holds_it_and_no_other_is,
    what_local_data_denies_is_denied_before_the_first_packet,
}

async fn a_tag_that_was_moved_after_signing_runs_the_signed_digest(containerd: Version) {
    let scene = Scene::with(containerd, "a_tag_that_was_moved", &Recipe::prints("signed").user("65534")).await;
    let moved = Recipe::prints("moved").build();
    assert_eq!(scene.world.push(&moved, super::REPOSITORY, "1").await, scene.name);

    let ran = scene.cri().run(&scene.name, "default").await.unwrap();

    assert_eq!((ran.output.as_str(), ran.image), ("signed\n", scene.image.id().to_string()));
    assert_eq!(scene.root_of(&ran.container).await, scene.image.chain_id().to_string());
    let shown = scene.cri().image_status(&scene.name).await.unwrap().expect("the tag is shown, so that kubelet does not pull again");
    assert_eq!(shown.id, scene.image.id().to_string());
    assert_eq!((shown.repo_tags, shown.repo_digests), (vec![scene.name.clone()], vec![scene.by_digest()]));
    assert_eq!(shown.uid.map(|uid| uid.value), Some(65534), "without it kubelet runs the container as root");
    let records = scene.ctr().records().await.unwrap();
    assert!(records.contains(&(scene.name.clone(), scene.image.digest().to_string())), "{records:?}");
    assert!(!records.iter().any(|(_, target)| *target == moved.digest().to_string()), "{records:?}");
    let asked = scene.world.registry.requests();
    assert!(!asked.iter().any(|request| request.ends_with("/team/app/manifests/1") && request.starts_with("GET")), "{asked:?}");
}

async fn a_tag_that_is_signed_again_runs_the_new_digest_and_takes_its_record_along(containerd: Version) {
    let scene = Scene::on(containerd, "a_tag_that_is_signed_again").await;
    scene.pull().await;
    let next = Recipe::prints("next").build();
    scene.world.push(&next, super::REPOSITORY, "1").await;
    scene.world.notary.signer("admin").sign(&scene.world.gun(super::REPOSITORY), "1", &next).await;

    let ran = scene.cri().run(&scene.name, "default").await.unwrap();

    assert_eq!((ran.output.as_str(), ran.image), ("next\n", next.id().to_string()));
    let shown = scene.cri().image_status(&scene.name).await.unwrap().unwrap();
    assert_eq!(shown.id, next.id().to_string());
    let old = scene.cri().create(&ran.pod, super::super::harness::cri::container(&scene.image.id().to_string(), &scene.name)).await;
    assert_denied(&old.unwrap_err(), "CS-OTHER-IMAGE");
    assert_eq!(scene.only_runs(&[next.chain_id()]).await, 1);
}

async fn pulls_by_digest_leave_no_tag_record_and_only_signed_digests_are_pulled(containerd: Version) {
    let scene = Scene::on(containerd, "pulls_by_digest").await;
    let other = Recipe::prints("other").build();
    scene.world.push(&other, super::REPOSITORY, "unsigned").await;
    let (name, by_digest) = (&scene.name, scene.by_digest());

    for (reference, code) in [
        (scene.repository_digest(&other), "CS-DIGEST-NOT-SIGNED"),
        (format!("{name}@{}", other.digest()), "CS-DIGEST-DIFFERS"),
        (format!("{}@{}", scene.tag("unsigned"), other.digest()), "CS-TAG-NOT-SIGNED"),
        (format!("{}@{}", scene.tag("unsigned"), scene.image.digest()), "CS-TAG-NOT-SIGNED"),
        (scene.tag("unsigned"), "CS-TAG-NOT-SIGNED"),
        (format!("{}@{}", scene.world.gun(super::REPOSITORY), scene.image.id()), "CS-DIGEST-NOT-SIGNED"),
    ] {
        assert_denied(&scene.cri().pull(&reference).await.unwrap_err(), code);
    }
    assert!(scene.cri().list_images().await.unwrap().is_empty(), "nothing was pulled");

    for reference in [by_digest.clone(), format!("{name}@{}", scene.image.digest())] {
        let ran = scene.cri().run(&reference, "default").await.unwrap();
        assert_eq!((ran.output.as_str(), ran.image), ("signed\n", scene.image.id().to_string()), "{reference}");
        let shown = scene.cri().image_status(&by_digest).await.unwrap().unwrap();
        assert_eq!((shown.repo_tags, shown.repo_digests), (vec![], vec![by_digest.clone()]), "{reference}");
    }
    assert!(scene.cri().image_status(name).await.unwrap().is_none(), "no tag record");
    assert_eq!(scene.only_runs(&[scene.image.chain_id()]).await, 2);
}

async fn signed_images_of_every_form_run(containerd: Version) {
    let scene = Scene::on(containerd, "signed_images_of_every_form").await;
    let admin = scene.world.notary.signer("admin");
    let forms = [
        ("oci-index", Recipe::prints("oci-index").index()),
        ("docker", Recipe::prints("docker").docker()),
        ("docker-list", Recipe::prints("docker-list").docker().index()),
    ];
    for (form, recipe) in forms {
        let image = recipe.build();
        let name = scene.world.push(&image, super::REPOSITORY, form).await;
        admin.sign(&scene.world.gun(super::REPOSITORY), form, &image).await;

        let ran = scene.cri().run(&name, "default").await.unwrap();

        assert_eq!((ran.output, ran.image), (format!("{form}\n"), image.id().to_string()));
        assert_eq!(scene.root_of(&ran.container).await, image.chain_id().to_string(), "{form}");
        let shown = scene.cri().image_status(&name).await.unwrap().unwrap();
        assert_eq!(shown.repo_digests, [scene.repository_digest(&image)], "{form}");
    }
}

/// A signature names the index. A platform's manifest is as good once the index is here and leads to it by content.
async fn a_platforms_manifest_is_as_good_as_the_signed_index_that_holds_it_and_no_other_is(containerd: Version) {
    let scene = Scene::with(containerd, "a_manifest_of_a_signed_index", &Recipe::prints("signed").index()).await;
    let named = |image: &Image| format!("{}@{}", scene.world.gun(super::REPOSITORY), image.manifest_digest());
    let child = named(&scene.image);
    assert_denied(&scene.cri().pull(&child).await.unwrap_err(), "CS-DIGEST-NOT-SIGNED");
    let id = scene.pull().await;

    assert_eq!(scene.cri().pull(&child).await.unwrap(), id);
    let created = scene.cri().create(&scene.pod().await, super::super::harness::cri::container(&id, &child)).await.unwrap();
    assert_eq!(scene.root_of(&created).await, scene.image.chain_id().to_string());

    let evil = Recipe::prints("evil").index().build();
    scene.world.push(&evil, super::REPOSITORY, "evil").await;
    assert_denied(&scene.cri().pull(&named(&evil)).await.unwrap_err(), "CS-DIGEST-NOT-SIGNED");
    scene.only_runs(&[scene.image.chain_id()]).await;
}

async fn what_local_data_denies_is_denied_before_the_first_packet(containerd: Version) {
    let scene = Scene::on(containerd, "what_local_data_denies").await;
    let before = scene.packets();
    let host = scene.world.registry.host();
    for (reference, code, says) in [
        (format!("{host}/other/app:1"), "CS-NOT-PINNED", "no pin covers"),
        ("docker.io/library/busybox:1".to_owned(), "CS-NOT-REGISTERED", "docker.io must be a registered trusted registry"),
        ("busybox".to_owned(), "CS-NOT-REGISTERED", "docker.io must be a registered trusted registry"),
        ("127.0.0.1:1/team/app:1".to_owned(), "CS-NOT-REGISTERED", "127.0.0.1:1 must be a registered trusted registry"),
        (format!("{}@sha512:{}", scene.world.gun(super::REPOSITORY), "ab".repeat(64)), "CS-NAME", "is not a sha256 digest"),
        (format!("{} ", scene.name), "CS-NAME", "is not a tag"),
        (scene.image.id().hash().to_string(), "CS-NAME", "is an image ID, not an image name"),
        (String::new(), "CS-NAME", "the image name is empty"),
        (format!("{host}/team/{}", "a".repeat(1_000_000)), "CS-NAME", "is longer than"),
        (format!("{host}/team/app\u{1b}[2J\":1"), "CS-NAME", r#"\u{1b}[2J\""#),
    ] {
        let refused = scene.cri().pull(&reference).await.unwrap_err();
        assert_denied(&refused, code);
        assert!(refused.message().contains(says), "{}", refused.message());
    }
    assert_eq!(scene.packets(), before, "no packet was sent");
}
