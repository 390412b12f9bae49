//! The same attacks in the modes that let them pass: permissive writes down each of them, disabled touches nothing.

use super::super::harness::containerd::Version;
use super::super::harness::cri::container;
use super::super::harness::image::Recipe;
use super::raw::{Raw, field, frame};
use super::{REPOSITORY, Scene, assert_denied};

on_every_containerd! {
    permissive_mode_lets_pass_what_is_refused_and_logs_it,
    permissive_mode_lets_retargeted_records_pass_removes_nothing_and_logs_it,
    disabled_mode_touches_nothing,
}

async fn permissive_mode_lets_pass_what_is_refused_and_logs_it(containerd: Version) {
    let mut scene = Scene::on(containerd, "permissive_mode").await;
    scene.switch_to("permissive").await;
    let [evil, other] = [Recipe::prints("evil").build(), Recipe::prints("other").build()];

    // Pulls.
    let tag = scene.world.push(&evil, REPOSITORY, "unsigned").await;
    let foreign = scene.world.push(&evil, "other/app", "1").await;
    scene.world.push(&other, REPOSITORY, "other").await;
    let pulls = [
        (tag.clone(), &evil, "CS-TAG-NOT-SIGNED"),
        (foreign.clone(), &evil, "CS-NOT-PINNED"),
        (scene.repository_digest(&evil), &evil, "CS-DIGEST-NOT-SIGNED"),
        (format!("{}@{}", scene.name, other.digest()), &other, "CS-DIGEST-DIFFERS"),
    ];
    for (reference, image, code) in &pulls {
        assert_eq!(scene.cri().pull(reference).await.unwrap(), image.id().to_string(), "{reference}");
        scene.logged(&["let pass", "PullImage", reference, code]).await;
    }
    let absent = scene.cri().pull("127.0.0.1:1/team/app:1").await.unwrap_err();
    assert!(!absent.message().contains("CS-"), "containerd's own answer: {absent:?}");
    scene.logged(&["let pass", "PullImage", "CS-NOT-REGISTERED"]).await;

    // Creates and starts.
    let pod = scene.pod().await;
    let evil_id = evil.id().to_string();
    for (name, code) in
        [(tag.as_str(), "CS-TAG-NOT-SIGNED"), (&foreign, "CS-NOT-PINNED"), (&scene.name, "CS-OTHER-IMAGE"), ("", "CS-NOT-HELD")]
    {
        let ran = scene.cri().run_image(&pod, &evil_id, name).await.unwrap();
        assert_eq!(ran.output, "evil\n");
        scene.logged(&["let pass", "CreateContainer", code]).await;
    }
    scene.logged(&["let pass", "StartContainer", "CS-UNKNOWN-ROOTFS"]).await;
    let made = scene.behind().create(&pod, container(&evil_id, &foreign)).await.unwrap();
    scene.cri().start(&made).await.unwrap();
    assert_eq!(scene.cri().first_output(&made).await.unwrap(), "evil\n");
}

async fn permissive_mode_lets_retargeted_records_pass_removes_nothing_and_logs_it(containerd: Version) {
    let mut scene = Scene::on(containerd, "permissive_mode_and_records").await;
    scene.switch_to("permissive").await;
    let evil = Recipe::prints("evil").build();

    // What verifies runs its signed digest, also here.
    scene.world.push(&evil, REPOSITORY, "1").await;
    let ran = scene.cri().run(&scene.name, "default").await.unwrap();
    assert_eq!((ran.output.as_str(), ran.image), ("signed\n", scene.image.id().to_string()));

    let (id, ctr, pod) = (scene.image.id().to_string(), scene.ctr(), scene.pod().await);
    ctr.import(&evil, "example.com/evil:1").await;
    scene.world.containerd.blind_cri(&scene.name).await.unwrap();
    ctr.retarget(&scene.name, evil.top()).await.unwrap();
    let ran = scene.cri().run_image(&pod, &id, &scene.name).await.unwrap();
    assert_eq!(ran.output, "evil\n", "the attack works, and is let pass");
    assert_eq!(scene.root_of(&ran.container).await, evil.chain_id().to_string());
    scene.logged(&["let pass", "CreateContainer", "CS-OTHER-RECORD"]).await;
    scene.logged(&["let pass", "StartContainer", "CS-UNKNOWN-ROOTFS"]).await;

    // Back in enforced mode nothing of it starts again.
    let made = scene.behind().create(&pod, container(&evil.id().to_string(), &scene.name)).await.unwrap();
    scene.switch_to("enforced").await;
    assert_denied(&scene.cri().start(&made).await.unwrap_err(), "CS-UNKNOWN-ROOTFS");
    scene.cri().pull(&scene.name).await.unwrap();
    let ran = scene.cri().run_image(&pod, &id, &scene.name).await.unwrap();
    assert_eq!(ran.output, "signed\n");
}

#[tokio::test]
async fn permissive_mode_still_refuses_what_cannot_be_read() {
    let mut scene = Scene::new("permissive_mode_and_bad_input").await;
    scene.switch_to("permissive").await;
    let raw = Raw::new(&scene.gate().socket());
    let twice = [field(1, &field(1, scene.name.as_bytes())), field(1, &field(1, b"evil"))].concat();
    let answer = raw.post("/runtime.v1.ImageService/PullImage", frame(&twice)).await;
    assert_eq!(answer.status, Some(3), "{answer:?}");
}

async fn disabled_mode_touches_nothing(containerd: Version) {
    let mut scene = Scene::on(containerd, "disabled_mode").await;
    scene.switch_to("disabled").await;
    let evil = Recipe::prints("evil").build();
    scene.world.push(&evil, REPOSITORY, "1").await;
    let asked = scene.world.notary.requests().len();

    let ran = scene.cri().run(&scene.name, "default").await.unwrap();

    assert_eq!((ran.output.as_str(), ran.image), ("evil\n", evil.id().to_string()));
    let tag = ("GET /v2/team/app/manifests/1", "HEAD /v2/team/app/manifests/1");
    let requests = scene.world.registry.requests();
    assert!(requests.iter().any(|request| request == tag.0 || request == tag.1), "pulled by the tag itself: {requests:?}");
    assert_eq!(scene.world.notary.requests().len(), asked, "no trust server is asked");
    let log = scene.gate().log();
    assert!(!log.contains("CS-") && !log.contains("admitted"), "{log}");
    // Bytes that the checks would refuse reach containerd as they came, and its answer comes back.
    let twice = [field(1, &field(1, b"evil")), field(1, &field(1, scene.name.as_bytes()))].concat();
    let answer = Raw::new(&scene.gate().socket()).post("/runtime.v1.ImageService/PullImage", frame(&twice)).await;
    assert_eq!(answer.status, Some(0), "containerd takes the second of two images: {answer:?}");
}
