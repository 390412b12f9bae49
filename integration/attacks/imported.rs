//! Images that came past the gate under trusted names: imported, preloaded, tagged.

use super::super::faults::assert_refused;
use super::super::harness::containerd::Version;
use super::super::harness::cri::container;
use super::super::harness::image::Recipe;
use super::super::harness::world::World;
use super::{REPOSITORY, Scene, assert_denied, binary, code_of};

on_every_containerd! {
    an_image_imported_under_a_signed_tag_is_refused,
    an_image_imported_under_a_signed_digest_is_refused,
    an_image_imported_under_the_id_of_a_signed_one_is_refused,
    an_imported_image_is_refused_when_the_signed_one_was_never_pulled,
    a_preloaded_image_runs_when_its_trust_data_says_so,
    a_preloaded_image_whose_server_is_away_cannot_be_told_and_is_asked_for_once_in_a_while,
    one_image_under_a_signed_and_an_unsigned_name_goes_on_under_the_signed_one,
}

/// How a refusal begins that another try may mend.
const CANNOT_TELL: &str = "RegistryUnavailable";

/// The evil image is created under each of the names in the given order; each creation is refused with its code.
async fn import_and_create(scene: &Scene, record: &str, creates: &[(&str, &str, &str)]) {
    let evil = Recipe::prints("evil").build();
    scene.ctr().import(&evil, record).await;
    let pod = scene.pod().await;
    let before = scene.packets();
    for (image, name, code) in creates {
        let refused = scene.cri().create(&pod, container(image, name)).await.unwrap_err();
        assert_eq!(code_of(&refused), *code, "{image} as {name}");
    }
    assert_eq!(scene.packets(), before, "no packet was sent");
    scene.runs_nothing().await;
}

async fn an_image_imported_under_a_signed_tag_is_refused(containerd: Version) {
    let scene = Scene::on(containerd, "an_image_imported_under_a_signed_tag").await;
    scene.pull().await;
    let (evil, id) = (Recipe::prints("evil").build().id().to_string(), scene.image.id().to_string());
    let (name, by_digest) = (scene.name.clone(), scene.by_digest());

    let creates = [
        (evil.as_str(), by_digest.as_str(), "CS-OTHER-IMAGE"),
        (&evil, &id, "CS-NOT-PRESENT"),
        (&evil, "", "CS-NOT-HELD"),
        // The pod's own name leads to it: that record goes.
        (&name, &name, "CS-RECORD-DROPPED"),
    ];
    import_and_create(&scene, &name, &creates).await;

    // A pull makes it good again.
    scene.runs_the_signed_image().await;
}

async fn an_image_imported_under_a_signed_digest_is_refused(containerd: Version) {
    let scene = Scene::on(containerd, "an_image_imported_under_a_signed_digest").await;
    scene.pull().await;
    let evil = Recipe::prints("evil").build().id().to_string();
    let (name, by_digest) = (scene.name.clone(), scene.by_digest());

    let creates = [
        (evil.as_str(), name.as_str(), "CS-OTHER-IMAGE"),
        (&evil, "", "CS-NOT-HELD"),
        (&by_digest, &name, "CS-OTHER-IMAGE"),
        (&by_digest, "", "CS-RECORD-DROPPED"),
    ];
    import_and_create(&scene, &by_digest, &creates).await;

    scene.runs_the_signed_image().await;
}

async fn an_image_imported_under_the_id_of_a_signed_one_is_refused(containerd: Version) {
    let scene = Scene::on(containerd, "an_image_imported_under_the_id").await;
    scene.pull().await;
    let (evil, id) = (Recipe::prints("evil").build().id().to_string(), scene.image.id().to_string());
    let (name, by_digest) = (scene.name.clone(), scene.by_digest());

    let creates = [
        (evil.as_str(), name.as_str(), "CS-OTHER-IMAGE"),
        (&evil, &id, "CS-NOT-PRESENT"),
        (&id, &name, "CS-OTHER-RECORD"),
        (&id, &id, "CS-OTHER-RECORD"),
        (&name, &by_digest, "CS-OTHER-RECORD"),
    ];
    import_and_create(&scene, &id, &creates).await;

    scene.runs_the_signed_image().await;
}

async fn an_imported_image_is_refused_when_the_signed_one_was_never_pulled(containerd: Version) {
    let scene = Scene::on(containerd, "an_imported_image_alone").await;
    let evil = Recipe::prints("evil").build();
    scene.ctr().import(&evil, &scene.name).await;
    let (pod, id) = (scene.pod().await, evil.id().to_string());

    // The trust data is fetched, and says what the name has to mean.
    let refused = scene.cri().create(&pod, container(&id, &scene.name)).await.unwrap_err();
    assert_refused(&refused, CANNOT_TELL, &format!("{} meant another image ({id})", scene.name), "CS-RECORD-DROPPED");
    let before = scene.packets();
    assert_denied(&scene.cri().create(&pod, container(&id, &scene.name)).await.unwrap_err(), "CS-OTHER-IMAGE");
    assert_eq!(scene.cri().image_status(&scene.name).await.unwrap(), None, "kubelet finds it absent, and pulls");
    assert_eq!(scene.packets(), before, "what is held answers");
    scene.runs_nothing().await;
    scene.runs_the_signed_image().await;
}

async fn a_preloaded_image_runs_when_its_trust_data_says_so(containerd: Version) {
    let mut world = World::on(containerd, "a_preloaded_image").await;
    let image = Recipe::prints("signed").build();
    let (name, root) = world.push_signed(&image, REPOSITORY, "1").await;
    // On the node before the gate is: the right image, by containerd's own pull.
    let id = world.cri().pull(&name).await.unwrap();
    let unsigned = world.push(&Recipe::prints("unsigned").build(), REPOSITORY, "2").await;
    let unsigned_id = world.cri().pull(&unsigned).await.unwrap();
    let configuration = world.gate_config().root_key(world.gun(REPOSITORY), root.canonical.clone());
    world.start_gate(binary(), &configuration).await;
    let scene = Scene { world, image, name, root };
    let pod = scene.pod().await;
    let before = scene.packets();
    // Without a name nobody knows whose trust data to fetch.
    for (image, name) in [(&id, &id), (&id, &String::new())] {
        assert_denied(&scene.cri().create(&pod, container(image, name)).await.unwrap_err(), "CS-NOT-HELD");
    }
    assert_eq!(scene.packets(), before, "no packet was sent");

    assert_denied(&scene.cri().create(&pod, container(&unsigned_id, &unsigned)).await.unwrap_err(), "CS-TAG-NOT-SIGNED");
    for (image, name) in [(&id, &scene.name), (&scene.name, &scene.name), (&id, &scene.by_digest())] {
        let ran = scene.cri().run_image(&pod, image, name).await.unwrap();
        assert_eq!(ran.output, "signed\n");
    }
    // Now it is known whose it is.
    assert_eq!(scene.cri().run_image(&pod, &id, &id).await.unwrap().output, "signed\n");
}

async fn a_preloaded_image_whose_server_is_away_cannot_be_told_and_is_asked_for_once_in_a_while(containerd: Version) {
    let mut world = World::on(containerd, "a_preloaded_image_alone").await;
    let image = Recipe::prints("signed").build();
    let (name, root) = world.push_signed(&image, REPOSITORY, "1").await;
    let id = world.cri().pull(&name).await.unwrap();
    let configuration = world.gate_config().root_key(world.gun(REPOSITORY), root.canonical.clone());
    world.notary.server.stop();
    world.start_gate(binary(), &configuration).await;
    let scene = Scene { world, image, name, root };
    let pod = scene.pod().await;
    for _ in 0..3 {
        let refused = scene.cri().create(&pod, container(&id, &scene.name)).await.unwrap_err();
        assert_refused(&refused, CANNOT_TELL, "error contacting trust server: ", "CS-SERVER-UNREACHABLE");
    }
    scene.runs_nothing().await;
}

async fn one_image_under_a_signed_and_an_unsigned_name_goes_on_under_the_signed_one(containerd: Version) {
    let scene = Scene::on(containerd, "one_image_under_two_names").await;
    let id = scene.pull().await;
    let unsigned = scene.world.push(&scene.image, REPOSITORY, "2").await;
    let foreign = scene.world.push(&scene.image, "other/app", "1").await;
    assert_denied(&scene.cri().pull(&unsigned).await.unwrap_err(), "CS-TAG-NOT-SIGNED");
    assert_denied(&scene.cri().pull(&foreign).await.unwrap_err(), "CS-NOT-PINNED");

    // Another client brings the names, so that CRI knows all of them for the one image.
    for name in [&unsigned, &foreign] {
        assert_eq!(scene.behind().pull(name).await.unwrap(), id);
    }
    let pod = scene.pod().await;
    for (name, code) in [(&unsigned, "CS-TAG-NOT-SIGNED"), (&foreign, "CS-NOT-PINNED")] {
        for image in [&id, name] {
            assert_denied(&scene.cri().create(&pod, container(image, name)).await.unwrap_err(), code);
        }
    }
    scene.runs_nothing().await;

    let ran = scene.cri().run_image(&pod, &id, &scene.name).await.unwrap();
    assert_eq!(ran.output, "signed\n");
    scene.runs_the_signed_image().await;
}
